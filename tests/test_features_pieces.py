"""A day is featurized a piece at a time: the same bytes wherever pieces begin, the same memory however long the day."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import schema
from synth_pipeline.features.grid import grid_features
from synth_pipeline.lineage import commit
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import GRID, NS_PER_DAY, Flag, Instrument, Scale, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace, features, window_features
from synth_pipeline.ticks import book, parquet
from synth_pipeline.ticks.store import Day
from tests.tick_tables import Ticks

BTC = Instrument("simulated", "BTCUSDT")
DAY = date(2025, 1, 6)
START = day_start_ns(DAY)
SECOND = 10**9


def write_day(home: Path, seconds: int, group_rows: int = 256) -> tuple[Workspace, Manifest]:
    """A day of so many seconds of a market of a hundred rows a second, in small row groups, with gaps and a pause."""
    covered = [(START + 3, START + seconds * SECOND // 3), (START + seconds * SECOND // 2, START + seconds * SECOND)]
    lost = [
        ("quotes", covered[0][0] + 5 * SECOND, covered[0][0] + 9 * SECOND),
        ("all", covered[1][0] + 5 * SECOND, covered[1][0] + 6 * SECOND),
        ("book_levels", covered[1][0] + 8 * SECOND, covered[1][0] + 11 * SECOND),
    ]
    tables = random_tables(covered, 50 * seconds)
    names = ("stream", "start_ns", "end_ns")
    tables["gaps"] = {name: np.array(column) for name, column in zip(names, zip(*lost, strict=True), strict=True)}
    tables["gaps"] |= {"reason": np.array(["test"] * 3), "missing": np.full(3, -1)}
    metadata = {"visible_levels": "0", "coverage": json.dumps(covered)}
    workspace = Workspace.of(Settings(home=home, tracking=False))
    draft = Manifest(stage="ticks", key=f"{BTC}/{DAY}", inputs={}, code_version="", config={})
    folder = home / "ticks" / BTC.venue / BTC.symbol / DAY.isoformat()
    with commit.staging(folder) as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP", group_rows)
        files = {name: place / f"{name}.parquet" for name in tables}
        for name, columns in tables.items():
            scale = Scale(Decimal("0.1"), Decimal("0.001"))
            parquet.write_table(files[name], schema.TICK_TABLES[name], columns, scale, **metadata)
        return workspace, commit.commit(folder, draft, files)


def random_tables(covered: list[tuple[int, int]], rows: int) -> Ticks:
    """Rows in bursts, some quotes one-sided; book events of three levels around a touch that wanders."""
    rng = stream(7, "pieces", rows)
    tables = {}
    for name, count in (("quotes", rows), ("trades", rows // 5), ("book_levels", rows)):
        halves = [rng.integers(start // 10**6, end // 10**6, count // 2) * 10**6 + 5 for start, end in covered]
        at = np.sort(np.concatenate(halves))
        side = rng.choice([-1, 1], at.size)
        columns = {"side": side, "size": rng.integers(int(name == "trades"), 90, at.size)}
        flags = rng.choice(
            [Flag.LAST, Flag.LAST | Flag.SNAPSHOT, Flag.LAST | Flag.OFF_MARKET], at.size, p=[0.9, 0, 0.1]
        )
        if name == "book_levels":
            at = np.repeat(at[::3], 3)[: at.size]
            flags = np.where(np.arange(at.size) % 3 == 2, Flag.LAST, 0)
            flags[-1] |= Flag.LAST
        touch = 60_000 + np.cumsum(rng.integers(-1, 2, at.size))
        columns |= {"price": touch - side * rng.integers(1, 30, at.size), "flags": flags}
        columns |= {"bid_price": touch - rng.integers(1, 5, at.size), "ask_price": touch + rng.integers(1, 5, at.size)}
        columns |= {f"{each}_size": rng.integers(0, 50, at.size) for each in ("bid", "ask")}
        columns |= dict.fromkeys(("seq", "update_id", "trade_id"), np.arange(at.size)) | {"recv_ns": at, "event_ns": at}
        tables[name] = {each.name: columns[each.name].astype(each.dtype) for each in schema.TICK_TABLES[name].columns}
    return tables


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest]:
    return write_day(tmp_path_factory.mktemp("pieces"), 90)


def featurized(day: tuple[Workspace, Manifest], rows: int, buckets: int) -> bytes:
    """The features file, made in pieces of so many rows and buckets."""
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_features, "PIECE_ROWS", rows)
        patch.setattr(window_features, "PIECE_BUCKETS", buckets)
        built = features._featurize(*day, DAY, Path(place))
        return built.files["features"].read_bytes()


@settings(max_examples=15)
@given(rows=st.integers(1, 6000), buckets=st.integers(1, 200))
def test_the_file_does_not_depend_on_the_pieces(day: tuple[Workspace, Manifest], rows: int, buckets: int) -> None:
    assert featurized(day, rows, buckets) == featurized(day, 10**9, 10**9)


def test_pieces_are_the_grid_in_one_pass(day: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    workspace, ticks = day
    tables = {name: parquet.read_table(workspace.file(ticks, name)) for name in ("quotes", "trades", "book_levels")}
    opened = Day(None, workspace.file(ticks, "quotes").parent, START, ticks)
    rebuilt = book.replay(tables["book_levels"])
    expected = grid_features(
        tables["quotes"],
        tables["trades"],
        book.depth_of(rebuilt, 0),
        opened.gaps,
        opened.coverage,
        opened.rows("quotes").scale,
        step_ns=workspace.settings.step_ns,
        start_ns=START,
        end_ns=START + NS_PER_DAY,
        ladder=book.ladder_of(rebuilt, 0),
    )
    assert all(np.isfinite(expected[name]).any() for name in GRID.names)
    (tmp_path / "file").write_bytes(featurized(day, 500, 10**9))
    found = parquet.read_table(tmp_path / "file")
    for name in GRID.names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("names", [{"mid", "volume"}, {"mid", "ofi"}])
def test_a_window_of_few_rows_is_one_piece(
    day: tuple[Workspace, Manifest], monkeypatch: pytest.MonkeyPatch, names: set[str]
) -> None:
    workspace, ticks = day
    monkeypatch.setattr(window_features, "PIECE_ROWS", 1024)
    opened = Day(None, workspace.file(ticks, "quotes").parent, START, ticks)
    for start in range(START, START + 60 * SECOND, 7 * SECOND):  # 10 s hold some 600 quotes
        (piece,) = window_features.day_pieces(opened, start, start + 10 * SECOND, SECOND // 2, names)
        assert len(piece["mid"]) == 20


def test_facts_are_counted_over_all_pieces(day: tuple[Workspace, Manifest], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_features, "PIECE_ROWS", 500)
        built = features._featurize(*day, DAY, tmp_path)
    found = parquet.read_table(built.files["features"])
    assert built.facts == {
        "rows": 180,
        "known_mid": int(np.isfinite(found["mid"]).sum()),
        "gap_rows": int((found["flags"] & schema.GridFlag.GAP > 0).sum()),
        "first_label_ns": START + SECOND // 2,
        "last_label_ns": START + 90 * SECOND,
    }


def test_memory_does_not_grow_with_the_length_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 256)
    monkeypatch.setattr(window_features, "PIECE_ROWS", 4096)
    monkeypatch.setattr(window_features, "PIECE_BUCKETS", 64)
    days = [write_day(tmp_path / str(seconds), seconds) for seconds in (60, 400, 1600)]
    _, short, long = (_peak(day, tmp_path) for day in days)  # the first compiles what is to be compiled
    assert long < 1.2 * short + 100_000


def _peak(day: tuple[Workspace, Manifest], place: Path) -> int:
    pool, usual = pa.system_memory_pool(), pa.default_memory_pool()
    before = pool.bytes_allocated()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        features._featurize(*day, DAY, place)
        return tracemalloc.get_traced_memory()[1] + max(0, pool.max_memory() - before)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
