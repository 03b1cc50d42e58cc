"""Export formats: each read back by somebody else, the same bytes every time, and never half a file."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastexcel
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import plugins
from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.progress import Progress
from synth_pipeline.series import Series
from synth_pipeline.synthesis import exports
from synth_pipeline.synthesis.dataset import Dataset, write_dataset
from synth_pipeline.synthesis.exporting import export
from synth_pipeline.synthesis.exports import Source, tfrecord, xlsx
from synth_pipeline.synthesis.exports.csv import Csv
from tests import sampled

FORMATS = plugins.names(exports)
BATCH = "3f2a9c01"
SERIES = {"quotes": sampled.quotes(3, 40), "bars": sampled.bars(2, 30), "basket": sampled.basket(2, 20)}
every_format = pytest.mark.parametrize("to", FORMATS)
every_series = pytest.mark.parametrize("name", SERIES)


def source(tmp_path: Path, series: Series, **more: Any) -> Source:
    """A dataset of a series, as exports see it."""
    if not (tmp_path / "dataset").exists():
        write_dataset(tmp_path / "dataset", sampled.pieces(series), about={"seed": 0})
    return Source(Dataset.open(tmp_path / "dataset"), BATCH, **more)


def target(tmp_path: Path, to: str) -> Path:
    """A file or a folder, whichever the format writes."""
    kind = plugins.load(exports, to)
    return tmp_path / "out" / ("batch" if kind.is_folder else f"dataset{kind.suffix}")


def made(tmp_path: Path, to: str, series: Series, **more: Any) -> list[Path]:
    """The files of an export."""
    return export(source(tmp_path, series, **more), to, target(tmp_path, to))


def labels(series: Series) -> np.ndarray:
    """Label of every step, shape (paths, steps)."""
    return series.start_ns[:, None] + np.arange(series.steps) * series.step_ns


def test_the_formats_are_those_of_the_documentation() -> None:
    assert FORMATS == ["arrow", "csv", "npz", "parquet", "tfrecord", "xlsx", "zip"]
    text = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in FORMATS)


# CSV


def test_csv_of_bars_is_laid_out_as_bars_are_given(tmp_path: Path) -> None:
    series = SERIES["bars"]
    files = made(tmp_path, "csv", series)
    assert [path.name for path in files] == [f"synthetic_{path}_batch_{BATCH}.csv" for path in (1, 2)]
    for path, file in enumerate(files):
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
        assert list(rows[0]) == ["Date", "Open", "High", "Low", "Close", "Volume"]
        first = datetime(2024, 8, 8, tzinfo=UTC)  # the open of the first bar, whose label is its end
        assert [row["Date"] for row in rows] == [f"{first + timedelta(days=day):%Y-%m-%d}" for day in range(30)]
        for at, name in enumerate(("Open", "High", "Low", "Close", "Volume")):
            assert [float(row[name]) for row in rows] == series.values[path, :, at].tolist()
            form = r"\d+" if name == "Volume" else r"\d+\.\d\d"
            assert all(re.fullmatch(form, row[name]) for row in rows)


def test_csv_of_quotes_has_times_of_both_kinds_and_the_decimals_of_the_grid(tmp_path: Path) -> None:
    series = SERIES["quotes"]
    rows = list(csv.DictReader(io.StringIO(made(tmp_path, "csv", series)[1].read_text(encoding="utf-8"))))
    assert list(rows[0]) == ["time", "time_ns", *sampled.QUOTES]
    assert [int(row["time_ns"]) for row in rows] == labels(series)[1].tolist()
    stamps = [datetime.fromisoformat(row["time"]) for row in rows]
    assert [stamp.timestamp() for stamp in stamps] == [row_ns / 1e9 for row_ns in labels(series)[1]]
    assert rows[1]["time"] == "2024-08-08T00:00:00.500Z"
    assert all(re.fullmatch(r"\d+\.\d\d", row["mid"]) for row in rows)  # half ticks of 0.1
    assert all(re.fullmatch(r"\d+\.\d", row["spread"]) for row in rows)
    assert all(re.fullmatch(r"\d+\.\d{3}", row["volume"]) for row in rows)
    for at, name in enumerate(sampled.QUOTES):
        assert [float(row[name]) for row in rows] == series.values[1, :, at].tolist()


def test_csv_of_several_assets_names_each(tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(made(tmp_path, "csv", SERIES["basket"])[0].read_text(encoding="utf-8"))))
    assert rows[0][:3] == ["Date", "BTCUSDT:Open", "BTCUSDT:High"]
    assert rows[0][-2:] == ["ÆTH€:Close", "ÆTH€:Volume"]
    assert len(rows) == 21


def test_columns_of_bars_are_put_in_their_usual_order(tmp_path: Path) -> None:
    series = SERIES["bars"].select(("volume", "close", "low", "high"))
    text = made(tmp_path, "csv", series)[0].read_text(encoding="utf-8")
    assert text.startswith("Date,High,Low,Close,Volume\n")
    assert [float(line.split(",")[3]) for line in text.splitlines()[1:]] == series.column("close")[0].tolist()


def test_months_and_hours_of_bars_show_their_opens(tmp_path: Path) -> None:
    months = np.array(["2024-02-01", "2024-03-01", "2024-04-01"], dtype="M8[ns]").astype(np.int64)
    write_dataset(
        tmp_path / "dataset", sampled.pieces(sampled.bars(1, 3, step_ns=28 * sampled.DAY_NS)), labels=months.__getitem__
    )
    opens = {int(each): int(before) for each, before in zip(months[1:], months, strict=False)}
    opens[int(months[0])] = int(np.datetime64("2024-01-01", "ns").astype(np.int64))
    files = made(tmp_path, "csv", SERIES["bars"], opens=lambda each: np.array([opens[int(one)] for one in each]))
    assert [line[:11] for line in files[0].read_text().splitlines()[1:]] == [
        "2024-01-01,",
        "2024-02-01,",
        "2024-03-01,",
    ]
    hourly = made(tmp_path / "hours", "csv", sampled.bars(1, 3, step_ns=3_600_000_000_000))
    assert [line[:21] for line in hourly[0].read_text().splitlines()[1:]] == [
        f"2024-08-08T0{hour}:00:00Z," for hour in range(3)
    ]


def test_our_own_reader_takes_exported_bars_back(tmp_path: Path) -> None:
    from synth_pipeline.bars.files import Options, read

    file = made(tmp_path, "csv", SERIES["bars"])[0]
    found, _ = read(file.read_bytes(), file.name, Options())
    assert str(found.timeframe) == "1d"
    assert not found.bad
    np.testing.assert_array_equal(
        np.stack([found.columns[name] for name in sampled.BARS], axis=1), SERIES["bars"].values[0]
    )


def test_unknown_values_are_empty_cells(tmp_path: Path) -> None:
    series = sampled.bars(1, 6)
    series.values[0, 2] = np.nan
    series.values[0, :, 4] = np.nan
    lines = made(tmp_path, "csv", series)[0].read_text().splitlines()
    assert lines[3] == "2024-08-10,,,,,"
    assert all(line.endswith(",") for line in lines[1:])


@given(
    units=st.lists(st.integers(-(2**49) + 1, 2**49 - 1), min_size=1, max_size=9),
    decimals=st.integers(0, 12),
    noise=st.booleans(),
)
def test_numbers_on_a_grid_are_printed_exactly(units: list[int], decimals: int, noise: bool) -> None:
    from synth_pipeline.synthesis.exports.sheet import _text

    exact = [Decimal(unit).scaleb(-decimals) for unit in units]
    # A product of units and step misses the double of the decimal number by a rounding error.
    values = np.array(
        [unit * float(f"1e-{decimals}") if noise else float(each) for unit, each in zip(units, exact, strict=True)]
    )
    assert _text(values, decimals).cast(pl.String).to_list() == [f"{each:.{decimals}f}" for each in exact]


@given(values=st.lists(st.floats() | st.integers(-(10**14), 10**14).map(float), min_size=1, max_size=9))
def test_numbers_without_a_grid_are_printed_shortest(values: list[float]) -> None:
    from synth_pipeline.synthesis.exports.sheet import _text

    for value, text in zip(values, _text(np.array(values), None).to_list(), strict=True):
        if np.isnan(value):
            assert text is None
        else:
            assert float(text) == value
            assert "." not in text or not value.is_integer() or abs(value) >= 1e15


def test_what_is_off_its_grid_is_never_rounded(tmp_path: Path) -> None:
    series = sampled.bars(1, 3)
    series.values[0, 1, 3] = 1000.123456789
    closes = [line.split(",")[4] for line in made(tmp_path, "csv", series)[0].read_text().splitlines()[1:]]
    assert closes[1] == "1000.123456789"
    assert re.fullmatch(r"\d+\.\d\d", closes[0])


# XLSX and ZIP


def _read_book(file: Path | bytes, sheet: int = 0) -> pl.DataFrame:
    return pl.DataFrame(fastexcel.read_excel(file).load_sheet(sheet))


@every_series
def test_workbooks_hold_dates_and_numbers(name: str, tmp_path: Path) -> None:
    series = SERIES[name]
    files = made(tmp_path, "xlsx", series)
    assert [path.name for path in files] == [f"synthetic_{path + 1}_batch_{BATCH}.xlsx" for path in range(series.paths)]
    frame = _read_book(files[1])
    assert frame.columns[0] == ("time" if name == "quotes" else "Date")
    offset = 0 if name == "quotes" else series.step_ns
    stamps = frame[:, 0].cast(pl.Datetime("ns")).cast(pl.Int64).to_numpy()
    assert np.abs(stamps - (labels(series)[1] - offset)).max() < 1_000_000
    np.testing.assert_allclose(frame[:, 1:].cast(pl.Float64).to_numpy(), series.values[1], rtol=1e-15)


def test_rows_beyond_a_sheet_go_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "SHEET_ROWS", 13)
    series = sampled.quotes(1, 30)
    (file,) = made(tmp_path, "xlsx", series)
    assert fastexcel.read_excel(file).sheet_names == ["1", "2", "3"]
    frames = [_read_book(file, sheet) for sheet in range(3)]
    assert [len(frame) for frame in frames] == [12, 12, 6]
    np.testing.assert_array_equal(pl.concat(frames)["mid"].to_numpy(), series.column("mid")[0])


def test_a_sheet_may_be_full_to_its_last_row() -> None:
    assert xlsx.SHEET_ROWS == 2**20


def test_cells_of_a_workbook_are_shown_with_the_decimals_of_the_grid(tmp_path: Path) -> None:
    with zipfile.ZipFile(made(tmp_path, "xlsx", SERIES["quotes"])[0]) as book:
        styles, page = book.read("xl/styles.xml").decode(), book.read("xl/worksheets/sheet1.xml").decode()
    for form in ("yyyy-mm-dd hh:mm:ss.000", "0.00", "0.0", "0.000"):
        assert f'formatCode="{form}"' in styles or form == "0.00"  # 0.00 is one of Excel's own
    assert 'state="frozen"' in page


def test_a_batch_is_two_archives_of_the_files(tmp_path: Path) -> None:
    series = SERIES["bars"]
    archives = made(tmp_path, "zip", series)
    assert [path.name for path in archives] == [f"synthetic_batch_{BATCH}.zip", f"synthetic_batch_{BATCH}_xlsx.zip"]
    for archive, suffix in zip(archives, ("csv", "xlsx"), strict=True):
        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            assert opened.namelist() == [f"synthetic_{path}_batch_{BATCH}.{suffix}" for path in (1, 2)]
            plain = export(source(tmp_path, series), suffix, tmp_path / "plain" / "of" / suffix)
            assert [opened.read(name) for name in opened.namelist()] == [path.read_bytes() for path in plain]
            assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# Columns, arrays, records


@every_series
@pytest.mark.parametrize("to", ["parquet", "arrow"])
def test_columnar_files_hold_times_and_doubles(name: str, to: str, tmp_path: Path) -> None:
    series = SERIES[name]
    (file,) = made(tmp_path, to, series)
    table = pq.read_table(file) if to == "parquet" else pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    assert table.column_names == ["path", "time", *series.names]
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    offset = 0 if name == "quotes" else series.step_ns
    np.testing.assert_array_equal(table["time"].cast(pa.int64()).to_numpy(), labels(series).ravel() - offset)
    np.testing.assert_array_equal(table["path"].to_numpy(), np.repeat(np.arange(series.paths), series.steps))
    for at, column in enumerate(series.names):
        np.testing.assert_array_equal(table[column].to_numpy(), series.values[:, :, at].ravel())
    assert table.schema.metadata[b"batch"] == f'"{BATCH}"'.encode()
    assert table.schema.metadata[b"about"] == b'{"seed": 0}'


def test_many_short_paths_share_row_groups(tmp_path: Path) -> None:
    (file,) = made(tmp_path, "parquet", sampled.quotes(10_000, 10))
    assert pq.ParquetFile(file).num_row_groups == 2
    assert pl.scan_parquet(file).select(pl.col("path").n_unique()).collect().item() == 10_000


@every_series
def test_arrays_are_paths_by_steps_by_features(name: str, tmp_path: Path) -> None:
    series = SERIES[name]
    (file,) = made(tmp_path, "npz", series)
    with np.load(file, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["values"], series.values)
        assert found["values"].dtype == np.float64
        offset = 0 if name == "quotes" else series.step_ns
        np.testing.assert_array_equal(found["time_ns"], labels(series) - offset)
        assert tuple(found["names"]) == series.names
        assert (int(found["step_ns"]), float(found["tick_size"])) == (series.step_ns, series.tick_size)
        assert ("assets" in found) == bool(series.assets)
        if series.assets:
            assert found["assets"].tolist() == [asset.name for asset in series.assets]
            assert found["tick_sizes"].tolist() == [0.01, 0.01]


def _example_class() -> Any:
    """tf.train.Example as its .proto files describe it, by Google's own runtime."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, str, bool]) -> Any:
        described = file.message_type.add(name=name)
        for field, number, kind, inner, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            described.field.add(name=field, number=number, type=kind, type_name=inner or None, label=label)
        return described

    message("BytesList", ("value", 1, kinds.TYPE_BYTES, "", True))
    message("FloatList", ("value", 1, kinds.TYPE_FLOAT, "", True))
    message("Int64List", ("value", 1, kinds.TYPE_INT64, "", True))
    lists = (("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List"))
    message("Feature", *((name, at, kinds.TYPE_MESSAGE, f".tf.{inner}", False) for name, at, inner in lists))
    features = message("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".tf.Features.FeatureEntry", True))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=kinds.TYPE_MESSAGE, type_name=".tf.Feature", label=kinds.LABEL_OPTIONAL
    )
    message("Example", ("features", 1, kinds.TYPE_MESSAGE, ".tf.Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


def _crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit: reflected, polynomial 0x1EDC6F41."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _records(file: Path) -> Iterator[bytes]:
    """Records of a TFRecord file, checksums checked."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        length, crc = struct.unpack_from("<QI", content, at)
        data = content[at + 12 : at + 12 + length]
        for checked, masked in (
            (content[at : at + 8], crc),
            (data, struct.unpack_from("<I", content, at + 12 + length)[0]),
        ):
            unmasked = (masked - 0xA282EAD8) & 0xFFFFFFFF
            assert (unmasked << 15 | unmasked >> 17) & 0xFFFFFFFF == _crc32c(checked)
        yield data
        at += 16 + length


@every_series
def test_records_are_examples_with_exact_units(name: str, tmp_path: Path) -> None:
    series = SERIES[name]
    (file,) = made(tmp_path, "tfrecord", series)
    example = _example_class()
    found = [example.FromString(data).features.feature for data in _records(file)]
    assert [features["path"].int64_list.value[0] for features in found] == list(range(series.paths))
    offset = 0 if name == "quotes" else series.step_ns
    for path, features in enumerate(found):
        np.testing.assert_array_equal(features["time_ns"].int64_list.value, labels(series)[path] - offset)
        for at, column in enumerate(series.names):
            values = series.values[path, :, at]
            np.testing.assert_array_equal(features[column].float_list.value, values.astype(np.float32))
            if f"{column}/unit" in features:
                unit = Decimal(features[f"{column}/unit"].bytes_list.value[0].decode())
                units = features[f"{column}/units"].int64_list.value
                assert [float(each * unit) for each in units] == values.tolist()
        assert ("mid/units" in features) == (name == "quotes")


def test_records_of_long_paths_go_on_and_unknown_units_are_told(tmp_path: Path) -> None:
    series = sampled.quotes(1, 65_540)
    series.values[0, 65_538, 0] = np.nan
    (file,) = made(tmp_path, "tfrecord", series)
    example = _example_class()
    content = file.read_bytes()
    length = struct.unpack_from("<Q", content)[0]
    second = example.FromString(content[length + 16 + 12 : -4]).features.feature
    assert second["step"].int64_list.value[:] == [65_536]
    assert second["mid/units"].int64_list.value[2] == -(2**63)
    assert np.isnan(second["mid"].float_list.value[2])


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_varints_are_those_of_protobuf(values: list[int]) -> None:
    from google.protobuf.internal.encoder import _VarintBytes

    expected = b"".join(_VarintBytes(value % 2**64) for value in values)
    assert tfrecord.varints(np.array(values, dtype=np.int64)) == expected


# What all formats keep to


@every_format
@every_series
def test_the_same_dataset_is_the_same_bytes_at_any_time(
    to: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path, to, SERIES[name])
    was = [path.read_bytes() for path in first]
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    __import__("time").tzset()
    try:
        again = export(source(tmp_path, SERIES[name]), to, target(tmp_path / "later", to))
    finally:
        monkeypatch.undo()
        __import__("time").tzset()
    assert [path.name for path in again] == [path.name for path in first]
    assert [path.read_bytes() for path in again] == was


@every_format
def test_one_path_of_one_step_is_enough(to: str, tmp_path: Path) -> None:
    assert made(tmp_path, to, sampled.quotes(1, 1))


@every_format
def test_what_stands_there_is_replaced_only_by_force(to: str, tmp_path: Path) -> None:
    files = made(tmp_path, to, SERIES["bars"])
    whole = source(tmp_path, SERIES["bars"])
    before = {path: path.read_bytes() for path in files}
    other = target(tmp_path, to).parent / "other.txt"
    if target(tmp_path, to).is_dir():
        other = target(tmp_path, to) / "other.txt"
    other.write_text("kept")
    part = replace(whole, dataset=whole.dataset.head(1))
    with pytest.raises(InputError, match="exists already: choose another name, or replace it with --force"):
        export(part, to, target(tmp_path, to))
    assert {path: path.read_bytes() for path in files} == before
    written = export(part, to, target(tmp_path, to), force=True)
    if to != "csv" and to != "xlsx":
        assert all(path.read_bytes() != before[path] for path in written)
    assert other.read_text() == "kept"


def _failing(after_rows: int, error: BaseException) -> Progress:
    def progress(done: int, total: int, note: str = "") -> None:
        if done >= after_rows:
            raise error

    return progress


@every_format
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(to: str, error: BaseException, tmp_path: Path) -> None:
    half = source(tmp_path, SERIES["quotes"], progress=_failing(80, error))
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt) as stopped:
        export(half, to, target(tmp_path, to))
    assert list((tmp_path / "out").iterdir()) == []
    if isinstance(error, OSError):
        assert "No space left on device" in str(stopped.value)
    before = target(tmp_path, to)
    assert export(source(tmp_path, SERIES["quotes"]), to, before)
    with pytest.raises((InputError, KeyboardInterrupt)):
        export(half, to, before, force=True)
    assert len(list((tmp_path / "out").iterdir())) == 1


@every_format
def test_progress_counts_up_to_all_rows(to: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made(tmp_path, to, SERIES["quotes"], progress=lambda done, total, _="": seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_files_appear_with_ordinary_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        files = made(tmp_path, "csv", SERIES["quotes"])
    finally:
        os.umask(umask)
    assert files[0].parent.stat().st_mode & 0o777 == 0o755
    assert files[0].stat().st_mode & 0o777 == 0o644


def test_places_that_cannot_be_are_refused_in_one_line(tmp_path: Path) -> None:
    dataset = source(tmp_path, SERIES["quotes"])
    (tmp_path / "file").write_text("")
    for to, out, told in (
        ("csv", tmp_path / "file", "give a folder"),
        ("csv", tmp_path / "data.csv", "give a folder, such as data"),
        ("zip", tmp_path / "data.zip", "give a folder, such as data"),
        ("parquet", tmp_path, "is a folder: name one, such as"),
        ("npz", tmp_path / "file" / "x.npz", "cannot write"),
        ("csv", tmp_path / "file" / "x", "cannot write"),
        ("parquet", Path("/proc/nowhere/x.parquet"), "cannot write"),
    ):
        with pytest.raises(InputError, match=told) as refused:
            export(dataset, to, out)
        assert "\n" not in str(refused.value)
    with pytest.raises(UnknownNameError, match="unknown export 'exel': known are arrow, csv"):
        export(dataset, "exel", tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "file"]


def test_names_are_safe_on_every_system(tmp_path: Path) -> None:
    for to in ("csv", "zip"):
        for path in made(tmp_path, to, SERIES["basket"]):
            assert re.fullmatch(r"[a-z0-9_]+\.[a-z]+", path.name)
    assert Csv.suffix == ".csv"


_EXPORT = """
import sys
from pathlib import Path
from synth_pipeline.synthesis.dataset import write_dataset, Dataset
from synth_pipeline.synthesis.exporting import export
from synth_pipeline.synthesis.exports import Source
from tests import sampled

folder, to, pieces = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
one = sampled.quotes(1, 65_536)
write_dataset(folder / "dataset", ((0, one) for _ in range(pieces)))
export(Source(Dataset.open(folder / "dataset"), "b"), to, folder / "out")
sampled.print_peak()
"""


@pytest.mark.slow
@pytest.mark.parametrize("to", sorted({*FORMATS} - {"xlsx", "zip"}))
def test_memory_does_not_grow_with_the_rows(to: str, tmp_path: Path) -> None:
    peaks = []
    for pieces in (4, 20):
        command = [sys.executable, "-c", _EXPORT, str(tmp_path / str(pieces)), to, str(pieces)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        peaks.append(int(done.stdout))
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 40
