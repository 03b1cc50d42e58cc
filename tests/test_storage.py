"""Data on a remote store: the same bytes and rows as in a local folder, and no more fetched than needed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from aiobotocore.client import AioBaseClient
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import schema, stages, storage
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage import copies, graph, manifests
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.lineage.references import resolve
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Flag, Instrument, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.window_features import window_features
from synth_pipeline.storage import Place
from synth_pipeline.ticks import parquet, rowgroups, store
from tests import object_stores
from tests.object_stores import BUCKET, put
from tests.test_lineage import draft
from tests.test_store import BTC, DAYS, FIRST, LAST, MIDNIGHT, SCALES, moments, write_day

s3, url = object_stores.s3, object_stores.url


# --- the verbs


GENERATOR = "geometric_brownian_motion"


def materialize_all(workspace: Workspace) -> list[Manifest]:
    day = DAYS[0]
    return [
        stages.record(workspace, BTC, day, seconds=300),
        stages.ingest(workspace, BTC, day),
        stages.featurize(workspace, BTC, day),
        stages.fit(workspace, BTC, day, GENERATOR),
        stages.sample(workspace, BTC, day, GENERATOR, paths=4, steps=60),
        stages.evaluate(workspace, BTC, day, GENERATOR),
    ]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Manifest]]:
    workspace = Workspace.of(Settings(home=tmp_path_factory.mktemp("local"), tracking=False))
    return workspace, materialize_all(workspace)


def test_every_verb_makes_the_same_bytes_anywhere(
    url: str, local: tuple[Workspace, list[Manifest]], tmp_path: Path
) -> None:
    here = Workspace.of(Settings(home=tmp_path / "home", data_url=url, tracking=False))
    made = materialize_all(here)
    assert [each.digest for each in made] == [each.digest for each in local[1]]
    assert [each.outputs for each in made] == [each.outputs for each in local[1]]
    assert not [path for path in (tmp_path / "home").iterdir() if path.name != "cache"]
    # Another machine finds everything done, and fetches what it opens.
    there = Workspace.of(Settings(home=tmp_path / "other", data_url=url, tracking=False))
    assert all(each.skipped for each in materialize_all(there))
    assert not (tmp_path / "other").exists()
    for one, other in zip(made, local[1], strict=True):
        for name in one.outputs:
            assert there.file(one, name).read_bytes() == local[0].file(other, name).read_bytes()
        assert manifests.verify(there.settings.data / one.ref) == []
    assert stages.load_generator(there, BTC, DAYS[0], GENERATOR).parameters
    span = (day_start_ns(DAYS[0]) + 60 * 10**9, day_start_ns(DAYS[0]) + 200 * 10**9)
    for table in ("quotes", "trades", "book_levels"):
        assert_equal_windows(there.settings.data, local[0].settings.home, table, *span)
    features = [window_features(place, BTC, *span) for place in (there.settings.data, local[0].settings.home)]
    for name, column in features[0].items():
        np.testing.assert_array_equal(column, features[1][name])


def assert_equal_windows(one: Place, other: Place, table: str, start: int, end: int, **options: Any) -> None:
    try:
        expected = store.read(other, BTC, table, start, end, **options)
    except NoDataError:
        with pytest.raises(NoDataError):
            store.read(one, BTC, table, start, end, **options)
        return
    found = store.read(one, BTC, table, start, end, **options)
    assert (found.scale, found.carried, [*found.columns]) == (expected.scale, expected.carried, [*expected.columns])
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column, err_msg=name)
        assert found.columns[name].dtype == column.dtype
    frames = [store.scan(place, BTC, table, start, end).collect() for place in (one, other)]
    assert frames[0].equals(frames[1], null_equal=True)
    assert frames[0].schema == frames[1].schema


def test_bars_grow_and_are_verified(url: str, tmp_path: Path) -> None:
    from synth_pipeline.bars.files import Options
    from synth_pipeline.bars.timeframe import Timeframe
    from synth_pipeline.stages import upkeep

    rows = [f"2024-01-{day:02},{day},{day + 2},{day - 1},{day + 1},10" for day in range(1, 22)]
    path = tmp_path / "X.csv"
    path.write_text("\n".join(["time,open,high,low,close,volume", *rows]))
    made = []
    for options in ({"data_url": url}, {}):
        workspace = Workspace.of(Settings(home=tmp_path / f"home{len(options)}", tracking=False, **options))
        daily = stages.bars_from_file(workspace, path, None, Options())
        weekly = stages.resample_bars(workspace, Instrument("file", "X"), Timeframe.parse("1d"), Timeframe.parse("1w"))
        made.append([daily.outputs, weekly.outputs])
        assert [each.ref for each in upkeep.verify(workspace, "bars")] == ["bars/file/X/1d", "bars/file/X/1w"]
        assert not any(each.problems for each in upkeep.verify(workspace))
    assert made[0] == made[1]


def test_the_way_back_is_found_by_any_name(url: str, tmp_path: Path) -> None:
    data = storage.place_of(url)
    raw = put(data, draft(stage="raw"), {"capture": "frames"}, tmp_path)
    ticks = put(data, draft(inputs={raw.ref: raw.digest}), {"trades": "t"}, tmp_path)
    names = (ticks.ref, ticks.ref.replace("/", ".", 1), f"{url}/{ticks.ref}/{ticks.outputs['trades'].path}")
    for name in (*names, "ticks/binance_usdm.BTCUSDT/2024-08-08", ticks.digest[:12]):
        if name != names[1]:
            assert resolve(data, name) == ticks.ref
    assert graph.chain(data, ticks.ref).sound
    with pytest.raises(NoDataError, match=r"names no partition.*there are raw/binance_usdm/BTCUSDT/2024-08-08, ticks/"):
        resolve(data, "ticks/binance_usdm/BTCUSDT/2024-08-09")


# --- windows


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days in small row groups; the manifest of the first does not describe them."""
    place = tmp_path_factory.mktemp("days")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP", 256)
        for number, day in enumerate(DAYS):
            write_day(place, day, number)
    return place


def copied(source: Path, url: str) -> Place:
    data = storage.place_of(url)
    assert not isinstance(data, Path)
    for path in source.rglob("*"):
        if path.is_file():
            storage.upload(path, data / path.relative_to(source).as_posix())
    return data


@pytest.fixture(scope="module")
def remote_days(days: Path, s3: str) -> dict[str, Place]:
    return {kind: copied(days, f"{top}/days") for kind, top in (("memory", f"memory://{BUCKET}"), ("s3", s3))}


@pytest.mark.parametrize(("kind", "examples"), [("memory", 100), ("s3", 10)])
@pytest.mark.parametrize("table", ["quotes", "trades", "book_levels"])
def test_a_remote_window_is_the_local_one(
    days: Path, remote_days: dict[str, Place], kind: str, examples: int, table: str
) -> None:
    names = schema.TICK_TABLES[table].names

    @given(st.tuples(moments, moments).map(sorted), st.sets(st.sampled_from(names)), st.booleans())
    @settings(max_examples=examples)
    def law(edges: list[int], columns: set[str], carry_in: bool) -> None:
        options = {"columns": sorted(columns) or None, "carry_in": carry_in}
        assert_equal_windows(remote_days[kind], days, table, *edges, **options)

    law()


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_features_of_a_remote_window_are_the_local_ones(days: Path, remote_days: dict[str, Place], kind: str) -> None:
    for names in (None, ("mid", "vwap")):
        span = (MIDNIGHT - 30 * 10**9, MIDNIGHT + 170 * 10**9)
        found, expected = (window_features(place, BTC, *span, columns=names) for place in (remote_days[kind], days))
        for name, column in expected.items():
            np.testing.assert_array_equal(found[name], column)


def test_the_hot_tier_of_remote_days_lies_in_the_home(
    days: Path, remote_days: dict[str, Place], tmp_path: Path
) -> None:
    span = (FIRST, LAST)
    found = store.read(remote_days["s3"], BTC, "quotes", *span, hot=True, home=tmp_path)
    for name, column in store.read(days, BTC, "quotes", *span).columns.items():
        np.testing.assert_array_equal(found.columns[name], column)
    assert {path.parent.name for path in (tmp_path / "hot").rglob("*.hot")} == {day.isoformat() for day in DAYS}
    with pytest.raises(InputError, match=r"the hot tier of s3://.* needs a folder on this machine: pass home"):
        store.read(remote_days["s3"], BTC, "trades", *span, hot=True)


def test_a_query_of_a_remote_scan_is_planned_by_polars(days: Path, remote_days: dict[str, Place]) -> None:
    queries: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
        lambda frame: frame.select("bid_price"),
        lambda frame: frame.filter(pl.col("seq") % 7 == 0).select("ask_price", "recv_ns"),
        lambda frame: frame.head(700),
        lambda frame: frame.filter(pl.col("bid_size") > 20).head(40).select("seq"),
        lambda frame: frame.group_by("flags").agg(pl.len(), pl.col("ask_size").sum()),
    ]
    for query in queries:
        one, other = (
            query(store.scan(place, BTC, "quotes", FIRST, LAST)).collect() for place in (*remote_days.values(),)
        )
        expected = query(store.scan(days, BTC, "quotes", FIRST, LAST)).collect()
        assert one.equals(expected)
        assert other.equals(expected)


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_addresses_names_and_times_may_be_texts(days: Path, remote_days: dict[str, Place], kind: str) -> None:
    data = str({"local": days, **remote_days}[kind])
    found = store.read(data, "simulated.BTCUSDT", "trades", "2025-01-07", "2025-01-07T00:01", ["price"])
    at = datetime(2025, 1, 7, tzinfo=UTC)
    same = store.read(data, BTC, "trades", at, at.replace(minute=1, tzinfo=None), ["price"])
    exact = store.read(days, BTC, "trades", MIDNIGHT, MIDNIGHT + 60 * 10**9, ["price"])
    for window in (found, same):
        np.testing.assert_array_equal(window.columns["price"], exact.columns["price"])
    assert len(exact.columns["price"]) > 10


def test_a_remote_partition_made_again_is_read_anew(days: Path, url: str, tmp_path: Path) -> None:
    data = copied(days, url)
    span = (LAST - 240 * 10**9, LAST)
    before = store.read(data, BTC, "trades", *span)
    folder = data / f"ticks/simulated/BTCUSDT/{DAYS[2]}"
    manifest = manifests.load(folder)
    assert manifest
    with staging(tmp_path / "p") as place:
        files = {name: copies.local(folder, manifest, name, place) for name in manifest.outputs}
        fewer = {name: column[:10] for name, column in parquet.read_table(files["trades"]).items()}
        scale, metadata = parquet.read_scale(files["trades"]), {"coverage": "[]", "visible_levels": "0"}
        files["trades"] = place / "trades.parquet"
        parquet.write_table(files["trades"], schema.TRADES, fewer, scale, **metadata)
        commit(folder, manifest, files)
    assert len(store.read(data, BTC, "trades", *span).columns["seq"]) == 10 < len(before.columns["seq"])


# --- what is fetched


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Operation, key and bytes of everything that S3 answers."""
    found: list[tuple[str, str, int]] = []
    call = AioBaseClient._make_api_call

    async def spying(client: Any, operation: str, words: dict[str, Any]) -> Any:
        answer = await call(client, operation, words)
        size = answer.get("ContentLength", 0) if operation == "GetObject" else 0
        found.append((operation, words.get("Key", ""), size))
        return answer

    monkeypatch.setattr(AioBaseClient, "_make_api_call", spying)
    return found


@pytest.fixture(scope="module")
def long_day(s3: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, int]:
    """A day of 400,000 quotes on S3, and how many bytes its file has."""
    rows, start = 400_000, day_start_ns(DAYS[0])
    rng = stream(3, "storage")
    columns = {name: rng.integers(1, 2**40, rows) for name in schema.QUOTES.names}
    columns |= {"recv_ns": start + np.arange(rows) * 10**8, "seq": np.arange(rows)}
    columns["flags"] = np.full(rows, Flag.LAST)
    columns = {each.name: columns[each.name].astype(each.dtype) for each in schema.QUOTES.columns}
    data = storage.place_of(f"{s3}/long")
    key = f"{BTC}/{DAYS[0]}"
    manifest = Manifest(stage="ticks", key=key, inputs={}, code_version="", config={})
    with staging(tmp_path_factory.mktemp("long") / "p") as place:
        path = place / "quotes.parquet"
        parquet.write_table(path, schema.QUOTES, columns, SCALES[0])
        described = rowgroups.described(path)
        made = commit(data / manifest.ref, manifest, {"quotes": path}, groups={"quotes": described})
    return data, made.outputs["quotes"].bytes


def test_a_window_fetches_the_columns_of_its_row_groups_and_no_more(
    long_day: tuple[Place, int], asked: list[tuple[str, str, int]]
) -> None:
    data, size = long_day
    start = day_start_ns(DAYS[0]) + 20_000 * NS_PER_SECOND
    forget_days()
    found = store.read(data, BTC, "quotes", start, start + 600 * NS_PER_SECOND, ["bid_price"])
    assert len(found.columns["bid_price"]) == 6000
    assert {operation for operation, *_ in asked} == {"GetObject"}
    (manifest, footer, *chunks) = [size for *_, size in asked]
    # One row group of 16,384 rows: random prices of 40 bits as they are, times that compress to a byte or two.
    assert sum(chunks) < 16_384 * (8 + 3) + 1000 < size / 60
    assert footer <= 65_536
    assert manifest < 10_000
    asked.clear()
    store.read(data, BTC, "quotes", start, start + 600 * NS_PER_SECOND, ["bid_price"])
    assert sorted(size for *_, size in asked) == sorted([manifest, *chunks]), "the footer stays known"


def test_a_scan_that_stops_early_fetches_no_more(
    long_day: tuple[Place, int], asked: list[tuple[str, str, int]]
) -> None:
    data, size = long_day
    start = day_start_ns(DAYS[0])
    frame = store.scan(data, BTC, "quotes", start, start + NS_PER_DAY)
    assert len(frame.select("seq").collect()) == 400_000
    assert sum(size for *_, size in asked) < 65_536 + 400_000 * 2 + 10_000
    asked.clear()
    assert frame.select("seq", "recv_ns").head(5).collect()["seq"].to_list() == [0, 1, 2, 3, 4]
    assert sum(size for *_, size in asked) < size / 2


def test_a_day_that_is_not_there_is_asked_for_once(s3: str, asked: list[tuple[str, str, int]]) -> None:
    with pytest.raises(NoDataError, match=r"no ticks of simulated\.BTCUSDT from 2025-01-06 to 2025-01-08"):
        store.read(f"{s3}/nothing", BTC, "quotes", "2025-01-06", "2025-01-09")
    assert asked == []  # an answer of "no such key" is none


def test_days_of_a_long_window_are_listed_and_not_asked_for(
    days: Path, remote_days: dict[str, Place], asked: list[tuple[str, str, int]]
) -> None:
    forget_days()
    span = ("2015-01-01", "2035-01-01")
    found, expected = (store.read(data, BTC, "trades", *span, ["seq"]) for data in (remote_days["s3"], days))
    np.testing.assert_array_equal(found.columns["seq"], expected.columns["seq"])
    kinds = [operation for operation, *_ in asked]
    assert kinds.count("ListObjectsV2") == 1
    assert len(kinds) < 20


def test_what_is_current_is_seen_without_a_listing(s3: str, asked: list[tuple[str, str, int]], tmp_path: Path) -> None:
    data = storage.place_of(f"{s3}/current")
    made = put(data, draft(), {"trades": "t", "quotes": "q"}, tmp_path)
    asked.clear()
    assert manifests.is_current(data / made.ref, made.fingerprint)
    assert sorted(operation for operation, *_ in asked) == ["GetObject", "HeadObject", "HeadObject"]


def forget_days() -> None:
    rowgroups.footer_of.cache_clear()
    store._decode.cache_clear()
