"""Windows of the store, and features of them: all rows filtered, over midnight and over gaps, from either tier."""

from __future__ import annotations

import json
import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import schema, stages
from synth_pipeline.errors import InputError, NoDataError, SynthError, UnknownNameError
from synth_pipeline.lineage import commit, manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, Flag, Instrument, Scale, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages.window_features import window_features
from synth_pipeline.ticks import hot, parquet, rowgroups, store

BTC = Instrument("simulated", "BTCUSDT")
DAYS = [date(2025, 1, 6), date(2025, 1, 7), date(2025, 1, 9)]
"""The second goes on from the first; the third stands alone."""
MIDNIGHT = day_start_ns(DAYS[1])
FIRST, LAST = MIDNIGHT - 240 * 10**9, day_start_ns(DAYS[2]) + 240 * 10**9
SCALES = [
    Scale(Decimal("0.1"), Decimal("0.001")),
    Scale(Decimal("0.1"), Decimal("0.001")),
    Scale(Decimal("0.02"), Decimal("0.01")),
]
LEAN = ("mid", "spread", "vwap", "volume")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of a random market in small row groups, with gaps, featurized."""
    place = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP", 256)
        for number, day in enumerate(DAYS):
            write_day(place, day, number)
    workspace = stages.Workspace.of(Settings(home=place, tracking=False))
    for day in DAYS:
        stages.featurize(workspace, BTC, day)
    return place


def write_day(home: Path, day: date, number: int) -> None:
    """Two or four minutes at the end, the beginning or both ends of the days."""
    start = day_start_ns(day)
    covered = [
        (start + NS_PER_DAY - 240 * 10**9, start + NS_PER_DAY),
        (start, start + 240 * 10**9),
        (start, start + 240 * 10**9),
    ][number]
    tables = random_ticks(covered, number)
    opened = number == 1
    if opened:
        tables = {name: with_opening(name, rows, start) for name, rows in tables.items()}
    lost = covered[0] + 100 * 10**9
    gaps = [
        ("quotes", lost, lost + 7 * 10**9),
        ("all", lost + 30 * 10**9, lost + 31 * 10**9),
        ("trades", lost + 60 * 10**9, lost + 60 * 10**9),
    ]
    metadata = {"visible_levels": "0", "coverage": json.dumps([covered])}
    folder = home / "ticks" / BTC.venue / BTC.symbol / day.isoformat()
    draft = Manifest(stage="ticks", key=f"{BTC}/{day}", inputs={}, code_version="", config={})
    with commit.staging(folder) as place:
        files = {}
        tables["gaps"] = {
            "start_ns": np.array([gap[1] for gap in gaps]),
            "end_ns": np.array([gap[2] for gap in gaps]),
            "stream": np.array([gap[0] for gap in gaps], dtype=object),
            "reason": np.array(["test"] * 3, dtype=object),
            "missing": np.full(3, -1),
        }
        for name, columns in tables.items():
            files[name] = place / f"{name}.parquet"
            parquet.write_table(files[name], schema.TICK_TABLES[name], columns, SCALES[number], **metadata)
        # Manifests of before did not describe row groups.
        groups = {name: rowgroups.described(files[name]) for name in store.TABLES if name in files and number > 0}
        commit.commit(folder, draft, files, groups=groups, facts={"opened_from_yesterday": opened})


def random_ticks(covered: tuple[int, int], number: int) -> dict[str, dict[str, np.ndarray]]:
    rng = stream(5, "window", number)
    tables = {}
    for name, rows in (("quotes", 3000), ("trades", 700), ("book_levels", 2000)):
        at = np.sort(rng.integers(covered[0] // 10**6, covered[1] // 10**6, rows)) * 10**6  # ms: ties, rows at midnight
        if number == 1:
            at[:2] = covered[0]
        columns = {"recv_ns": at, "event_ns": at - 10**6, "seq": np.arange(rows), "flags": np.full(rows, Flag.LAST)}
        columns |= {"update_id": np.arange(rows), "trade_id": np.arange(rows), "side": rng.choice([-1, 1], rows)}
        columns |= {"size": rng.integers(1 if name == "trades" else 0, 90, rows)}
        columns |= {"price": 60_000 + rng.integers(-9, 9, rows), "bid_price": 60_000 + rng.integers(-9, 0, rows)}
        columns |= {"ask_price": 60_000 + rng.integers(1, 9, rows)}
        # Only the second day has one-sided quotes: the others need no sizes to be read.
        columns |= {f"{side}_size": rng.integers(0 if number == 1 else 1, 50, rows) for side in ("bid", "ask")}
        if name == "book_levels":
            columns["flags"][:6] = [Flag.SNAPSHOT] * 5 + [Flag.SNAPSHOT | Flag.LAST]
            columns["recv_ns"][:6] = columns["recv_ns"][0]
            columns["price"] = np.where(columns["side"] > 0, 59_990, 60_010) + rng.integers(-9, 9, rows)
        if name == "trades":
            columns["flags"][::50] |= Flag.OFF_MARKET
        form = schema.TICK_TABLES[name]
        tables[name] = {column.name: columns[column.name].astype(column.dtype) for column in form.columns}
    return tables


def with_opening(name: str, rows: dict[str, np.ndarray], start_ns: int) -> dict[str, np.ndarray]:
    """Put what was taken over from the day before on top: its last quote, its book."""
    if name == "trades":
        return rows
    count = 1 if name == "quotes" else 4
    top = {column: values[:count].copy() for column, values in rows.items()}
    top["recv_ns"][:] = top["event_ns"][:] = start_ns
    top["seq"][:] = -1
    top["flags"][:] = [Flag.SNAPSHOT] * (count - 1) + [Flag.SNAPSHOT | Flag.LAST]
    if name == "book_levels":
        top["side"][:], top["price"][:], top["size"][:] = [1, 1, -1, -1], [59_999, 59_998, 60_001, 60_002], 5
        rows["flags"][:6] = Flag.LAST
    return {column: np.concatenate([top[column], values]) for column, values in rows.items()}


def all_rows(home: Path, table: str) -> pl.DataFrame:
    """Every row of the store once, on the window's scale, by Polars alone."""
    frames = []
    for number, day in enumerate(DAYS):
        (path,) = (home / "ticks" / BTC.venue / BTC.symbol / day.isoformat()).glob(f"{table}-*.parquet")
        frame = pl.read_parquet(path)
        if number == 1:
            frame = frame.filter(pl.col("seq") >= 0)
        tick, lot = (1, 10) if number == 2 else (5, 1)
        frames.append(frame.with_columns(pl.col("^.*price$") * tick, pl.col("^.*size$") * lot))
    return pl.concat(frames)


moments = st.one_of(
    st.integers(FIRST - 10**10, MIDNIGHT + 250 * 10**9),
    st.integers(-3, 3).map(lambda shift: MIDNIGHT + shift),
    st.integers(LAST - 250 * 10**9, LAST + 10**10),
)


def expected_rows(every: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    return every.filter((pl.col("recv_ns") >= start) & (pl.col("recv_ns") < end))


def in_fine_units(columns: dict[str, np.ndarray], scale: Scale) -> dict[str, np.ndarray]:
    """Bring a window to ticks of 0.02 and lots of 0.001, the finest of the store."""
    tick, lot = int(scale.tick_size / Decimal("0.02")), int(scale.lot_size / Decimal("0.001"))
    return {
        name: values * (tick if name.endswith("price") else lot if name.endswith("size") else 1)
        for name, values in columns.items()
    }


@pytest.mark.parametrize("table", ["quotes", "trades", "book_levels"])
@given(edges=st.tuples(moments, moments).map(sorted))
def test_a_window_is_all_rows_filtered_in_either_tier(home: Path, table: str, edges: list[int]) -> None:
    expected = expected_rows(all_rows(home, table), *edges)
    try:
        found, hot_found = (store.read(home, BTC, table, *edges, hot=tier) for tier in (False, True))
    except NoDataError:
        assert expected.is_empty()
        return
    assert (found.carried, found.scale) == (0, hot_found.scale)
    for name, values in in_fine_units(found.columns, found.scale).items():
        np.testing.assert_array_equal(values, expected[name].to_numpy(), err_msg=name)
        np.testing.assert_array_equal(hot_found.columns[name], found.columns[name], err_msg=name)
        assert hot_found.columns[name].dtype == found.columns[name].dtype


@pytest.mark.parametrize("table", ["quotes", "trades", "book_levels"])
@given(edges=st.tuples(moments, moments).map(sorted))
@settings(max_examples=25)
def test_a_lazy_scan_gives_the_same_rows(home: Path, table: str, edges: list[int]) -> None:
    expected = expected_rows(all_rows(home, table), *edges)
    try:
        frame = store.scan(home, BTC, table, *edges).collect()
        market = store.scan(home, BTC, table, *edges, market_units=True).collect()
        scale = store.read(home, BTC, table, *edges).scale
    except NoDataError:
        assert expected.is_empty()
        return
    columns = in_fine_units({name: frame[name].to_numpy() for name in frame.columns}, scale)
    for name, values in columns.items():
        np.testing.assert_array_equal(values, expected[name].to_numpy(), err_msg=name)
    for name in {*columns} & {"price", "size", "bid_price"}:
        step = Decimal("0.001") if name == "size" else Decimal("0.02")
        assert market[name].to_list() == [float(value * step) for value in columns[name].tolist()]


@given(start=moments, length=st.integers(0, 10**9))
def test_the_quote_before_a_window_comes_along(home: Path, start: int, length: int) -> None:
    day = next((day for day in DAYS if 0 <= start - day_start_ns(day) < NS_PER_DAY), None)
    if day is None:
        return
    every = all_rows(home, "quotes")
    for tier in (False, True):
        found = store.read(home, BTC, "quotes", start, start + length, carry_in=True, hot=tier)
        rows = in_fine_units(found.columns, found.scale)
        # Over midnight the state comes through the day's opening row; else the day's own last row before the window.
        before = every.filter((pl.col("recv_ns") < start) & (pl.col("recv_ns") >= day_start_ns(day)))
        has_opening = day == DAYS[1] and (before.is_empty())
        assert found.carried == (1 if len(before) or has_opening else 0)
        if found.carried and not has_opening:
            assert {name: int(rows[name][0]) for name in rows} == before.row(-1, named=True)
        if has_opening:
            assert (rows["seq"][0], rows["recv_ns"][0]) == (-1, MIDNIGHT)
        expected = expected_rows(every, start, start + length)
        np.testing.assert_array_equal(rows["seq"][found.carried :], expected["seq"].to_numpy())


def test_book_levels_carry_the_whole_book_in(home: Path) -> None:
    start = MIDNIGHT + 50 * 10**9
    found = store.read(home, BTC, "book_levels", start, start + 10**9, carry_in=True)
    day = store.read(home, BTC, "book_levels", MIDNIGHT, start + 10**9, carry_in=True)
    assert day.carried == 4
    assert found.carried == (found.columns["recv_ns"] < start).sum() > 4
    for name, values in found.columns.items():
        np.testing.assert_array_equal(values, day.columns[name])


def test_only_the_row_groups_of_the_window_are_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = rowgroups.pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        rowgroups.pq.ParquetFile,
        "read_row_groups",
        lambda file, groups, **options: read.extend(groups) or original(file, groups, **options),
    )
    start = MIDNIGHT + 100 * 10**9
    found = store.read(home, BTC, "quotes", start, start + 10**9, ["bid_price"], carry_in=True)
    assert [*found.columns] == ["recv_ns", "bid_price"]
    assert len(read) <= 2


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 3)), min_size=1, max_size=200))
def test_an_exchange_time_that_is_the_receive_time_is_not_stored_twice(rows: list[tuple[int, int]]) -> None:
    columns = schema.QUOTES.empty()
    columns = {name: np.ones(len(rows), dtype=column.dtype) for name, column in columns.items()}
    columns["recv_ns"] = np.cumsum([step for step, _ in rows]) + 10**18
    columns["event_ns"] = columns["recv_ns"] + [late for _, late in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quotes.parquet"
        parquet.write_table(path, schema.QUOTES, columns, Scale(Decimal(1), Decimal(1)))
        stored = pl.read_parquet(path)["event_ns"].null_count()
        assert stored == sum(late == 0 for _, late in rows)
        for names in (None, ("event_ns",), ("seq", "event_ns"), ("event_ns", "recv_ns")):
            for found in (parquet.read_table(path, names), next(parquet.row_groups(path, names))):
                assert [*found] == [*(names or schema.QUOTES.names)]
                np.testing.assert_array_equal(found["event_ns"], columns["event_ns"])
        day = rowgroups.parquet_day(path).read(0, 2**62, ("event_ns", "recv_ns"), carry_in=False)
        np.testing.assert_array_equal(day["event_ns"], columns["event_ns"])


@pytest.mark.parametrize("table", ["quotes", "trades", "book_levels"])
def test_a_manifest_describes_row_groups(home: Path, table: str) -> None:
    first, second = (manifests.load(home / f"ticks/simulated/BTCUSDT/{day}") for day in DAYS[:2])
    assert first
    assert second
    assert first.outputs[table].groups is None
    groups, start = second.outputs[table].groups, 0
    assert groups
    every = pl.read_parquet(second.file(home / second.ref, table))
    assert len(groups["rows"]) > 1
    names = [name for name in ("recv_ns", "seq", "update_id", "trade_id") if name in every.columns]
    assert [*groups] == ["rows", *(f"{end}_{name}" for name in names for end in ("first", "last"))]
    for number, count in enumerate(groups["rows"]):
        rows = every.slice(start, count)
        start += count
        for name in names:
            told = (groups[f"first_{name}"][number], groups[f"last_{name}"][number])
            assert told == (rows[name].min(), rows[name].max())
    assert start == len(every)


def test_days_that_repeat_nothing_in_the_store_keep_their_opening(home: Path, tmp_path: Path) -> None:
    write_day(tmp_path, DAYS[1], 1)
    found = store.read(tmp_path, BTC, "quotes", MIDNIGHT, MIDNIGHT + 1)
    assert found.columns["seq"].tolist() == [-1, 0, 1]
    assert store.read(home, BTC, "quotes", MIDNIGHT, MIDNIGHT + 1).columns["seq"].tolist() == [0, 1]
    assert store.scan(tmp_path, BTC, "quotes", MIDNIGHT, MIDNIGHT + 1).collect()["seq"].to_list() == [-1, 0, 1]


def test_gaps_are_those_that_reach_into_the_window(home: Path) -> None:
    lost = FIRST + 100 * 10**9
    found = store.scan(home, BTC, "gaps", lost + 5 * 10**9, lost + 30 * 10**9 + 1).collect()
    assert found["stream"].to_list() == ["quotes", "all"]


def test_a_partition_made_again_is_read_anew(tmp_path: Path) -> None:
    write_day(tmp_path, DAYS[2], 2)
    before = store.read(tmp_path, BTC, "trades", LAST - 240 * 10**9, LAST, hot=True)
    with pytest.MonkeyPatch.context() as patch:
        others = random_ticks((LAST - 240 * 10**9, LAST), 7)
        patch.setattr("tests.test_store.random_ticks", lambda *_: others)
        write_day(tmp_path, DAYS[2], 2)
    for tier in (False, True):
        after = store.read(tmp_path, BTC, "trades", LAST - 240 * 10**9, LAST, hot=tier)
        assert not np.array_equal(after.columns["recv_ns"], before.columns["recv_ns"])


def test_what_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(NoDataError, match=r"no ticks of simulated\.BTCUSDT from 2025-01-08 to 2025-01-08: ingest"):
        store.read(home, BTC, "quotes", MIDNIGHT + NS_PER_DAY, MIDNIGHT + NS_PER_DAY + 1)
    with pytest.raises(UnknownNameError, match="unknown table 'quote'"):
        store.read(home, BTC, "quote", FIRST, LAST)
    with pytest.raises(UnknownNameError, match="unknown column of quotes 'price'"):
        store.read(home, BTC, "quotes", FIRST, LAST, ["price"])
    with pytest.raises(InputError, match="swap the two"):
        store.scan(home, BTC, "quotes", LAST, FIRST)
    with pytest.raises(UnknownNameError, match="unknown feature 'midd'"):
        window_features(home, BTC, FIRST, LAST, columns=["midd"])
    with pytest.raises(InputError, match="does not divide a day"):
        window_features(home, BTC, FIRST, LAST, step_ns=7 * 10**9)
    orders = store.read(home, BTC, "orders", FIRST, LAST)
    assert [*orders.columns] == [*schema.ORDERS.names]
    assert orders.columns["recv_ns"].size == 0


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_day(tmp_path, DAYS[2], 2)
    span = (LAST - 240 * 10**9, LAST)
    store.read(tmp_path, BTC, "trades", *span, hot=True)
    (hot_file,) = (tmp_path / "hot").rglob("trades-*.hot")
    content = hot_file.read_bytes()
    hot._open.cache_clear()
    store._load.cache_clear()
    hot_file.write_bytes(content[:-20])
    with pytest.raises(SynthError, match="is damaged: delete it"):
        store.read(tmp_path, BTC, "trades", *span, hot=True)
    (source,) = (tmp_path / "ticks").rglob("trades-*.parquet")
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(SynthError, match="damaged"):
        store.read(tmp_path, BTC, "trades", *span)
    rowgroups.footer_of.cache_clear()
    store._load.cache_clear()
    with pytest.raises(SynthError, match="damaged"):
        store.read(tmp_path, BTC, "trades", *span)


# --- features


def stored(home: Path, start: int, end: int) -> dict[str, np.ndarray]:
    """The rows of the days' features files of the buckets that start in a window."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in schema.GRID.names}
    for day in DAYS:
        (path,) = (home / "features" / BTC.venue / BTC.symbol / day.isoformat()).glob("features-*.parquet")
        table = parquet.read_table(path)
        begins = table["label_ns"] - 500_000_000
        for name, parts in columns.items():
            parts.append(table[name][(begins >= start) & (begins < end)])
    return {name: np.concatenate(parts) for name, parts in columns.items()}


@pytest.mark.parametrize("names", [None, LEAN, ("mid", "ofi", "trade_count"), ("volume",)])
@given(edges=st.tuples(moments, moments).map(sorted), tier=st.booleans())
@settings(max_examples=40)
def test_features_of_a_window_are_the_stored_ones_cut(
    home: Path, names: tuple[str, ...] | None, edges: list[int], tier: bool
) -> None:
    expected = stored(home, *edges)
    try:
        found = window_features(home, BTC, *edges, columns=names, hot=tier)
    except NoDataError:
        assert expected["label_ns"].size == 0
        return
    assert [*found] == ([*schema.GRID.names] if names is None else ["label_ns", *names])
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_features_without_a_gap_take_the_lean_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the full grid was asked")

    monkeypatch.setattr("synth_pipeline.stages.window_features.grid_features", refuse)
    start = FIRST + 20 * 10**9
    found = window_features(home, BTC, start, start + 60 * 10**9, columns=LEAN)
    assert np.isfinite(found["mid"]).all()
    with pytest.raises(AssertionError):
        window_features(home, BTC, start, start + 90 * 10**9, columns=LEAN)
