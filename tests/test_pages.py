"""Pages of Parquet by compiled loops: whatever wrote them, the rows are pyarrow's, and so is what is said of damage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import SynthError
from synth_pipeline.rng import stream
from synth_pipeline.schema import Scale
from synth_pipeline.ticks import pages, rowgroups
from synth_pipeline.ticks.rowgroups import ParquetDay
from tests import naive_pages

ENCODINGS = {"PLAIN": 0, "DELTA_BINARY_PACKED": 5, "BYTE_STREAM_SPLIT": 9}
INT64 = st.integers(-(2**63), 2**63 - 1)


def write(path: Path, columns: dict[str, Any], encoding: str = "DELTA_BINARY_PACKED", **how: Any) -> ParquetDay:
    """Write a table sorted by `recv_ns` and open it."""
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
    if not how.get("use_dictionary"):
        options["column_encoding"] = encoding
    pq.write_table(pa.table(columns), path, **options | how)
    return opened(path)


def opened(path: Path) -> ParquetDay:
    """Open a file that need not be one of the store."""
    footer = rowgroups.footer_of(path)
    first, last = rowgroups._statistics(footer, "recv_ns", range(footer.num_row_groups if footer.num_rows else 0))
    return ParquetDay(path, footer, Scale(Decimal(1), Decimal(1)), {}, np.array(first), np.array(last))


def same(table: ParquetDay, start: int, end: int, names: tuple[str, ...], *, carry_in: bool) -> None:
    """Require what pyarrow reads."""
    expected = table.read(start, end, names, carry_in=carry_in)
    found = pages.read(table, start, end, names, carry_in=carry_in)
    assert [*found] == [*expected]
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype


@given(st.data())
@settings(max_examples=60)
def test_windows_are_those_of_pyarrow(data: st.DataObject) -> None:
    rows = data.draw(st.integers(8, 700))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    bits = data.draw(st.integers(0, 54))
    times = np.cumsum(rng.integers(0, 1 + 2**40 * data.draw(st.booleans()), rows))
    columns = {"recv_ns": times, "value": rng.integers(-(2**bits), 2**bits, rows)}
    groups = {"row_group_size": data.draw(st.integers(8, 800)), "max_rows_per_page": data.draw(st.integers(8, 800))}
    with tempfile.TemporaryDirectory() as folder:
        encoding = data.draw(st.sampled_from([*ENCODINGS]))
        table = write(Path(folder) / "day", columns, encoding, **groups, write_batch_size=8)
        start = data.draw(st.integers(-1, int(times[-1]) + 1))
        end = data.draw(st.integers(start, int(times[-1]) + 2))
        same(table, start, end, ("value", "recv_ns"), carry_in=data.draw(st.booleans()))


def test_our_own_pages_need_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {name: np.arange(50_000) ** 2 for name in ("recv_ns", "value")}
    tables = [write(tmp_path / name, columns, name, row_group_size=30_000) for name in ENCODINGS]
    monkeypatch.setattr(ParquetDay, "read", lambda *_, **__: pytest.fail("read by pyarrow"))
    for table in tables:
        found = pages.read(table, 10**6, 40_000**2, ("recv_ns", "value"), carry_in=True)
        np.testing.assert_array_equal(found["value"], columns["value"][999:40_000])


VALUES = stream(1, "pages").integers(-9, 9, 5000)
TIMES = np.cumsum(np.abs(VALUES))
REQUIRED = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("recv_ns", "value")])
FOREIGN: dict[str, tuple[Any, dict[str, Any]]] = {
    "another codec": (VALUES, {"compression": "snappy"}),
    "no codec": (VALUES, {"compression": "none"}),
    "version 2": (VALUES, {"data_page_version": "2.0"}),
    "dictionary": (VALUES, {"use_dictionary": True}),
    "nulls": (pa.array(VALUES, mask=VALUES > 7), {}),
    "nothing but nulls": (pa.nulls(VALUES.size, pa.int64()), {}),
    "another type": (VALUES.astype(np.int32), {}),
    "no number": (VALUES.astype(str), {"encoding": "PLAIN"}),
    "widest differences": (np.where(VALUES > 0, 2**63 - 1, -(2**63)), {}),
    "checksums": (VALUES, {"write_page_checksum": True}),
    "no statistics of it": (VALUES, {"write_statistics": ["recv_ns"]}),
    "an index of pages": (VALUES, {"write_page_index": True, "max_rows_per_page": 100}),
    "few rows in a group": (VALUES, {"row_group_size": 7}),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_pages_are_read_all_the_same(kind: str, tmp_path: Path) -> None:
    values, how = FOREIGN[kind]
    table = write(tmp_path / "day", {"recv_ns": TIMES, "value": values}, **how)
    for start, end in ((100, 9000), (0, 10**9), (-5, 0), (50_000, 60_000)):
        same(table, start, end, ("recv_ns", "value"), carry_in=True)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_columns_that_must_have_a_value_are_read_all_the_same(encoding: str, tmp_path: Path) -> None:
    rows = pa.table({"recv_ns": TIMES, "value": VALUES}, schema=REQUIRED)
    pq.write_table(rows, tmp_path / "day", compression="zstd", use_dictionary=False, column_encoding=encoding)
    same(opened(tmp_path / "day"), 100, 9000, ("recv_ns", "value"), carry_in=False)


def test_files_of_another_writer_are_read_all_the_same(tmp_path: Path) -> None:
    pl.DataFrame({"recv_ns": TIMES, "value": VALUES}).write_parquet(tmp_path / "day", row_group_size=700)
    same(opened(tmp_path / "day"), 100, 9000, ("recv_ns", "value"), carry_in=True)


def test_a_day_without_rows(tmp_path: Path) -> None:
    table = write(tmp_path / "day", {"recv_ns": TIMES[:0], "value": VALUES[:0]})
    same(table, 0, 10, ("recv_ns", "value"), carry_in=True)


# --- kernels against their twins, on what is written and on what time makes of it


@given(st.lists(INT64, min_size=8, max_size=300), st.sampled_from([*ENCODINGS]), st.data())
@settings(max_examples=200)
def test_kernels_do_as_their_twins_whatever_the_bytes(numbers: list[int], encoding: str, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        numbers = np.cumsum([number % 1000 for number in numbers]).tolist()
    header, body = page(numbers, encoding)
    header = damaged(header, data)
    found = pages.page_of(np.frombuffer(header, np.uint8), 0)
    assert (None if found[0] < 0 else found) == naive_pages.page_of(header, 0)
    body = damaged(body, data)
    wanted = data.draw(st.integers(1, len(numbers)))
    values = np.empty(wanted, np.int64)
    is_whole = pages.fill(np.frombuffer(body, np.uint8), ENCODINGS[encoding], len(numbers), values)
    assert (values.tolist() if is_whole else None) == naive_pages.values(
        body, ENCODINGS[encoding], len(numbers), wanted
    )


def page(numbers: list[int], encoding: str) -> tuple[bytes, bytes]:
    """The only page of a column, as a whole and its body decompressed."""
    sink = pa.BufferOutputStream()
    rows = pa.table({"value": np.array(numbers, np.int64)})
    pq.write_table(rows, sink, compression="zstd", use_dictionary=False, column_encoding=encoding)
    content = sink.getvalue().to_pybytes()
    chunk = rowgroups._chunk(pq.read_metadata(pa.BufferReader(content)), 0, "value")
    content = content[chunk.start : chunk.end]
    begin, end, size, count, kind = pages.page_of(np.frombuffer(content, np.uint8), 0)
    assert (end, count, kind) == (len(content), len(numbers), ENCODINGS[encoding])
    body = zstandard.decompress(content[begin:end])
    assert len(body) == size
    return content, body


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """As it was, or some of its first bytes changed, or cut."""
    changed = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, min(len(content), 90) - 1), max_size=2)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@given(st.data())
@settings(max_examples=60)
def test_a_damaged_file_is_what_pyarrow_says_it_is(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        table = write(whole, {"recv_ns": TIMES, "value": VALUES}, row_group_size=2000)
        content = bytearray(whole.read_bytes())
        chunk = table.chunk(data.draw(st.integers(0, 2)), data.draw(st.sampled_from(["recv_ns", "value"])))
        content[data.draw(st.integers(chunk.start, chunk.end - 1))] = data.draw(st.integers(0, 255))
        path = Path(folder) / "damaged"
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), chunk.start + 9]))])
        broken = ParquetDay(path, table.footer, table.scale, {}, table.first_ns, table.last_ns)
        rowgroups.footer_of.cache_clear()
        expected, found = (
            said(read, broken, 0, 10**9, ("recv_ns", "value"), carry_in=False) for read in (ParquetDay.read, pages.read)
        )
        if isinstance(expected, str) and not isinstance(found, str):
            # What hits a header may change no value, and is then not looked at.
            expected = table.read(0, 10**9, ("recv_ns", "value"), carry_in=False)
        np.testing.assert_equal(found, expected)


def said(read: Callable[..., rowgroups.Columns], *words: Any, **more: Any) -> rowgroups.Columns | str:
    """What was read, or why it was not."""
    try:
        return read(*words, **more)
    except SynthError as error:
        return str(error)
