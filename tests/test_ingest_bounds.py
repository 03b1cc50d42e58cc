"""A day takes as much memory as a block, whatever it holds; and what does not fit into memory comes out sorted."""

from __future__ import annotations

import functools
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import plugins, schema, venues
from synth_pipeline.archives.rawlog import Record
from synth_pipeline.ticks import assemble, ingest, parquet, sorted_rows
from synth_pipeline.ticks.sorted_rows import SortedRows
from synth_pipeline.ticks.spill import Spill
from tests import wire
from tests.ingested import ingest_day, write_log
from tests.wire import START_NS


def _market(seconds: int) -> Iterator[tuple[int, bytes]]:
    yield from wire.market(seconds)


def _garbage(seconds: int) -> Iterator[tuple[int, bytes]]:
    yield 0, wire.trade(1, "1.0", "1")
    yield from ((number, b"\xff%d" % number) for number in range(1, 30 * seconds))


def _without_snapshot(seconds: int) -> Iterator[tuple[int, bytes]]:
    yield from (frame for frame in wire.market(seconds) if b"lastUpdateId" not in frame[1])


def _without_quotes(seconds: int) -> Iterator[tuple[int, bytes]]:
    yield from (frame for frame in wire.market(seconds) if b"bookTicker" not in frame[1])


def _with_lost_trades(seconds: int) -> Iterator[tuple[int, bytes]]:
    trades = (frame for frame in wire.market(3 * seconds) if b'"trade"' in frame[1])
    yield from (frame for number, frame in enumerate(trades) if number % 2)


def _with_empty_trades(seconds: int) -> Iterator[tuple[int, bytes]]:
    yield from ((number, wire.trade(number, "1.0", "0")) for number in range(30 * seconds))


@pytest.mark.parametrize(
    "made",
    [_market, _garbage, _without_snapshot, _without_quotes, _with_lost_trades, _with_empty_trades],
    ids=lambda made: made.__name__.strip("_"),
)
def test_memory_does_not_grow_with_the_length_of_the_day(
    made: Callable[[int], Iterator[tuple[int, bytes]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr(parquet, "ROW_GROUP", 1000)
    monkeypatch.setattr(assemble, "WAITING_BYTES", 100_000)
    monkeypatch.setattr(assemble, "LATE_HOLES", 100)
    monkeypatch.setattr(ingest, "SortedRows", functools.partial(SortedRows, budget=300_000))
    monkeypatch.setattr(sorted_rows, "MOST_RUNS", 4)
    _peak(made, 20, tmp_path / "first")  # compiles what is to be compiled
    short, long = _peak(made, 400, tmp_path / "short"), _peak(made, 1000, tmp_path / "long")
    assert long < 1.2 * short + 100_000


def _peak(made: Callable[[int], Iterator[tuple[int, bytes]]], seconds: int, place: Path) -> int:
    place.mkdir()
    log = write_log(place / "day.rawlog", (Record(START_NS + at, payload) for at, payload in made(seconds)), 500)
    pool, usual = pa.system_memory_pool(), pa.default_memory_pool()
    before = pool.bytes_allocated()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        ingest.ingest_frames(log, plugins.load(venues, "binance_usdm")(), "BTCUSDT", START_NS, lambda: None, place)
        return tracemalloc.get_traced_memory()[1] + max(0, pool.max_memory() - before)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_updates_that_wait_too_long_are_given_up_and_the_rest_bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [frame for frame in wire.market(20) if b"lastUpdateId" not in frame[1]]
    frames.append((frames[-1][0], wire.snapshot(100 + 3 * 195, [("100.0", "5")], [("100.1", "5")])))
    whole = ingest_day(Record(START_NS + at, payload) for at, payload in frames)
    monkeypatch.setattr(assemble, "WAITING_BYTES", 10_000)
    less = ingest_day(Record(START_NS + at, payload) for at, payload in frames)
    assert whole.counts["quarantined"] == {}
    given_up = less.counts["quarantined"]["no_snapshot"]  # type: ignore[index]
    assert 100 < given_up < 195
    assert whole.counts["book_events"]["superseded_by_snapshot"] == (  # type: ignore[index]
        given_up + less.counts["book_events"]["superseded_by_snapshot"]  # type: ignore[index]
    )
    assert less.content["book_levels"] == whole.content["book_levels"]


rows = st.lists(
    st.tuples(
        st.integers(0, 9), st.integers(0, 3), st.sampled_from("ab"), st.just("r"), st.just("d"), st.binary(max_size=9)
    )
)


@given(st.lists(rows, max_size=6), st.integers(0, 3000), st.integers(1, 4))
def test_rows_leave_sorted_whatever_the_budget(parts: list[list[tuple[Any, ...]]], budget: int, most_runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_rows, "MOST_RUNS", most_runs)
        kept = SortedRows(Path(folder), schema.QUARANTINE, budget)
        for part in parts:
            kept.add(part)
        pieces = list(kept.columns(rows=4))
        found = [row for piece in pieces for row in zip(*(piece[name] for name in piece), strict=True)]
        assert found == sorted(row for part in parts for row in part)
        assert not list(Path(folder).iterdir())


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), max_size=5))
def test_a_spill_gives_back_its_pieces(values: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder) / "spill")
        for each in values:
            spill.append(np.array([each, each], dtype=np.int64), np.array([each[::-1]], dtype=np.int64))
        found = [(first.tolist(), second.tolist()) for first, second in spill.pieces(matrices=2)]
        assert found == [([each, each], [each[::-1]]) for each in values if each]
        assert spill.rows == sum(map(len, values))
        assert not list(Path(folder).iterdir())
