"""Ticks as files for other programs: what is written reads back to the same ticks, and books agree with hftbacktest."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import cli, schema
from synth_pipeline.archives.lobster import Lobster
from synth_pipeline.archives.tardis import Tardis
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Flag, Instrument, Scale, day_start_ns
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks import exports, parquet
from synth_pipeline.ticks.book import Book
from synth_pipeline.ticks.exports import Source, hftbacktest
from synth_pipeline.ticks.exports.exporting import export
from synth_pipeline.ticks.rows import ingest_rows
from tests.tick_days import Columns, order_day, put_day, rows_of

BTC = Instrument("binance_usdm", "BTCUSDT")
DAY = date(2024, 8, 8)
START = day_start_ns(DAY)
SCALE = Scale(Decimal("0.1"), Decimal("0.001"))


def source(home: Path, start: int = START, end: int = START + NS_PER_DAY, **more: Any) -> Source:
    return Source(home, BTC, start, end, home=home, **more)


def read_back(
    folder: Path, archive: Tardis | Lobster, paths: list[Path], symbol: str = "BTCUSDT"
) -> dict[str, Columns]:
    """Ingest files as any recording; prices and sizes come as exact decimals."""
    place = folder / "again"
    place.mkdir(exist_ok=True)
    ticks = ingest_rows([(archive, path) for path in paths], "BTCUSDT", DAY, place)
    assert not ticks.counts["quarantined"]
    tables = {name: parquet.read_table(file) for name, file in ticks.files.items()}
    return {name: decimals(rows, ticks.scale) for name, rows in tables.items()}


def decimals(rows: Columns, scale: Scale) -> Columns:
    steps = dict.fromkeys(("price", "bid_price", "ask_price"), scale.tick_size)
    steps |= dict.fromkeys(("size", "bid_size", "ask_size"), scale.lot_size)
    return {
        name: np.array([value * steps[name] for value in column.tolist()], object) if name in steps else column
        for name, column in rows.items()
    }


def ladders(rows: Columns, clock_ns: int = 1) -> dict[int, list[list[int]]]:
    """The five best levels after the last event of every moment of a clock."""
    found = Book().feed(rows, 5)
    times = (found.recv_ns // clock_ns).tolist()
    return {time: found.ladder[:, event].tolist() for event, time in enumerate(times)}


# --- made days


def streams(seed: int) -> dict[str, Columns]:
    """Trades, quotes and book events with ties, gaps and full books, some within one microsecond, and odd stamps."""
    rng = stream(seed, "tick exports")
    times = START + np.cumsum(rng.choice([0, 1, 400, 7_000, 5 * 10**8, 40 * 10**9], 60)) + 1
    levels, trades, quotes = [], [], []
    for seq, at in enumerate(times.tolist()):
        stamp = at + int(rng.choice([-at, -90 * NS_PER_SECOND, -5_000_000, -40, 0, 3_000_000]))
        shared = {"recv_ns": at, "event_ns": stamp, "seq": seq}
        match rng.choice(["book", "trade", "quote", "full", "tie"], p=[0.4, 0.2, 0.15, 0.15, 0.1]):
            case "trade":
                side, mark = int(rng.integers(-1, 2)), int(rng.choice([0, Flag.OFF_MARKET], p=[0.8, 0.2]))
                what = {"price": int(rng.integers(990, 1010)), "size": int(rng.integers(1, 99)), "side": side}
                trades.append({**shared, **what, "trade_id": 10**12 + seq, "flags": Flag.LAST | mark})
            case "quote":
                sides = {f"{side}_size": int(rng.integers(0, 3)) for side in ("bid", "ask")}
                prices = {"bid_price": 1000 if sides["bid_size"] else 0, "ask_price": 1001 if sides["ask_size"] else 0}
                quotes.append({**shared, **sides, **prices, "update_id": seq, "flags": Flag.LAST})
            case kind:
                mark, count = (Flag.SNAPSHOT if kind == "full" or seq == 0 else 0), int(rng.integers(1, 7))
                sides = rng.choice([-1, 1], count).tolist()
                for number, side in enumerate(sides):
                    what = {"side": side, "price": 1000 - side * int(rng.integers(1, 9)), "update_id": seq}
                    what |= {"size": int(rng.integers(1 if mark else 0, 50))}
                    levels.append({**shared, **what, "flags": mark | (Flag.LAST if number == count - 1 else 0)})
    forms = {"trades": (schema.TRADES, trades), "quotes": (schema.QUOTES, quotes)}
    return {name: rows_of(*each) for name, each in (forms | {"book_levels": (schema.BOOK_LEVELS, levels)}).items()}


seeds = st.integers(0, 10**6)
pieces = st.sampled_from([1, 7, 2**17])


def small_pieces(patch: pytest.MonkeyPatch, rows: int) -> None:
    patch.setattr(parquet, "ROW_GROUP", 4)
    patch.setattr(exports, "PIECE_ROWS", rows)


@settings(max_examples=20)
@given(seeds, pieces, st.sampled_from([SCALE, Scale(Decimal("0.25"), Decimal("1E-8")), Scale(Decimal(1), Decimal(10))]))
def test_tardis_files_read_back_to_the_same_ticks(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, scale: Scale
) -> None:
    folder, tables = tmp_path_factory.mktemp("tardis"), streams(seed)
    with pytest.MonkeyPatch.context() as patch:
        small_pieces(patch, rows)
        put_day(folder, BTC, DAY, tables, scale)
        files, written = export(source(folder), "tardis", folder / "out")
    kinds = {"incremental_book_L2": "book_levels", "trades": "trades", "quotes": "quotes"}
    assert {path.name for path in files} == {
        f"binance-futures_{kind}_2024-08-08_BTCUSDT.csv.gz" for kind, name in kinds.items() if tables[name]["seq"].size
    }
    again = read_back(folder, Tardis(), files)
    told = {name: decimals(tables[name], scale) for name in kinds.values() if tables[name]["seq"].size}
    for name in {"trades", "quotes"} & set(told):
        wanted = dict(told[name])
        stamp = np.where(wanted["event_ns"] > 0, wanted["event_ns"], wanted["recv_ns"])
        wanted |= {"recv_ns": wanted["recv_ns"] // 1000 * 1000, "event_ns": stamp // 1000 * 1000}
        left = {"seq", "update_id", "flags"}
        assert {c: v.tolist() for c, v in again[name].items() if c not in left} == {
            c: v.tolist() for c, v in wanted.items() if c not in left
        }
    if "book_levels" in told:
        assert written.rows["incremental_book_L2"] == again["book_levels"]["seq"].size
        count = {"price": scale.tick_size, "size": scale.lot_size}
        back = {
            name: np.array([int(value / count[name]) for value in column.tolist()]) if name in count else column
            for name, column in again["book_levels"].items()
        }
        assert ladders(back, 1000) == ladders(tables["book_levels"], 1000)


def events_of(path: Path) -> np.ndarray:
    with np.load(path) as archive:
        assert archive.files == ["data"]
        found: np.ndarray = archive["data"]
    return found


def check_structure(events: np.ndarray) -> None:
    """What the documentation asks of the array: its dtype, and an order by each clock of what that clock handles."""
    assert events.dtype.names == ("ev", "exch_ts", "local_ts", "px", "qty", "order_id", "ival", "fval")
    assert events.dtype.itemsize == 64
    exch, local = (events[events["ev"] & np.uint64(bit) > 0] for bit in (1 << 31, 1 << 30))
    assert (np.diff(exch["exch_ts"]) >= 0).all()
    assert (np.diff(local["local_ts"]) >= 0).all()
    assert (events["exch_ts"] <= events["local_ts"]).all()
    bare = [np.sort(_bare(side)) for side in (exch, local)]
    assert bare[0].tobytes() == bare[1].tobytes()
    assert set(np.unique(events["ev"] & np.uint64(0xFF)).tolist()) <= {1, 2, 3, 4}


def _bare(events: np.ndarray) -> np.ndarray:
    plain = events.copy()
    plain["ev"] &= np.uint64(~(3 << 30) & 0xFFFFFFFF)
    plain["px"] = np.nan_to_num(plain["px"], nan=-1.0)
    return plain


def naive_book(events: np.ndarray) -> dict[int, dict[tuple[int, float], float]]:
    """Every book by time of receipt, from LOCAL rows one by one."""
    book: dict[tuple[int, float], float] = {}
    found = {}
    for event in events[events["ev"] & np.uint64(1 << 30) > 0].tolist():
        kind, side = event[0] & 0xFF, 1 if event[0] & 1 << 29 else -1
        if kind == 3:
            book = {key: size for key, size in book.items() if key[0] != side}
        elif kind != 2:
            book[side, event[3]] = event[4]
            book = {key: size for key, size in book.items() if size > 0}
        found[event[2]] = dict(book)
    return found


@settings(max_examples=20)
@given(seeds, pieces)
def test_hftbacktest_events_are_in_order_and_are_the_book(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int
) -> None:
    folder, tables = tmp_path_factory.mktemp("npz"), streams(seed)
    with pytest.MonkeyPatch.context() as patch:
        small_pieces(patch, rows)
        put_day(folder, BTC, DAY, tables, SCALE)
        ((path,), written) = export(source(folder), "hftbacktest", folder / "out")
    events = events_of(path)
    check_structure(events)
    assert path.name == "btcusdt_20240808.npz"
    trades, levels = tables["trades"], tables["book_levels"]
    inside = trades["flags"] & Flag.OFF_MARKET == 0
    local = events[events["ev"] & np.uint64(1 << 30) > 0]
    dealt = local[local["ev"] & np.uint64(0xFF) == 2]
    assert dealt["px"].tolist() == [value / 10 for value in trades["price"][inside].tolist()]
    assert dealt["qty"].tolist() == [value / 1000 for value in trades["size"][inside].tolist()]
    sides = [{1 << 29: 1, 1 << 28: -1, 0: 0}[ev & 3 << 28] for ev in dealt["ev"].tolist()]
    assert sides == trades["side"][inside].tolist()
    assert written.left_out.get("off market", 0) == int((~inside).sum())
    books = naive_book(events)
    for event, (at, row) in enumerate(zip(*(each.tolist() for each in _ends(levels)), strict=True)):
        if event + 1 == len(_ends(levels)[0]) or _ends(levels)[0][event + 1] > at:
            book = Book()
            book.feed({name: column[: row + 1] for name, column in levels.items()})
            sides_ = [(1, book.bids), (-1, book.asks)]
            assert books[at] == {(side, p / 10): s / 1000 for side, rows_ in sides_ for p, s in rows_.tolist()}


def _ends(levels: Columns) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(levels["flags"] & Flag.LAST)
    return levels["recv_ns"][rows], rows


def test_the_size_of_pieces_changes_no_byte(tmp_path: Path) -> None:
    contents = []
    for number, rows in enumerate((1, 9, 2**17)):
        with pytest.MonkeyPatch.context() as patch:
            small_pieces(patch, rows)
            home = tmp_path / str(number)
            tables = streams(5) | order_day(stream(5, "orders"), (START + np.arange(200) * 10**11).tolist())
            put_day(home, BTC, DAY, tables, SCALE)
            for form in ("tardis", "hftbacktest", "lobster"):
                export(source(home), form, home / "out")
        files = sorted((home / "out").iterdir())
        contents.append([path.read_bytes() for path in files if path.suffix != ".gz"])
        contents[-1] += [gzip.decompress(path.read_bytes()) for path in files if path.suffix == ".gz"]
    assert len(contents[0]) == 8
    assert contents[0] == contents[1] == contents[2]


@settings(max_examples=20)
@given(seeds, pieces, st.integers(1, 12))
def test_lobster_files_read_back_to_the_same_orders(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, shown: int
) -> None:
    """Over midnight in New York, which is four in the morning of this UTC day."""
    folder, rng = tmp_path_factory.mktemp("lobster"), stream(seed, "lobster")
    times = START + 4 * 3600 * NS_PER_SECOND + np.cumsum(rng.choice([0, 1, 10**9, 10**11], 150)) - 5 * 10**11
    tables = order_day(rng, times.tolist())
    with pytest.MonkeyPatch.context() as patch:
        small_pieces(patch, rows)
        put_day(folder, BTC, DAY, tables, Scale(Decimal("0.01"), Decimal(1)))
        files, written = export(source(folder, levels=shown), "lobster", folder / "out")
    assert [path.name for path in files] == [
        f"BTCUSDT_{name}_{what}_{shown}.csv"
        for name in ("2024-08-07_72000000_86400000", "2024-08-08_0_72000000")
        for what in ("message", "orderbook")
    ]
    again = read_back(folder, Lobster(), files[::2])
    told = decimals(tables["orders"], Scale(Decimal("0.01"), Decimal(1)))
    columns = ("recv_ns", "order_id", "kind", "side", "price", "size")
    keys = list(zip(*(told[name].tolist() for name in columns), strict=True))
    found = list(zip(*(again["orders"][name].tolist() for name in columns), strict=True))
    assert written.rows["messages"] == len(found)
    assert written.left_out.get("beyond the visible levels", 0) == len(keys) - len(found)
    assert [key for key in keys if key in set(found)] == found
    if shown == 12:
        assert found == keys
    lines = b"".join(path.read_bytes() for path in files[1::2]).decode().splitlines()
    best = naive_ladders(tables["orders"], shown)
    assert lines == [line for key, line in zip(keys, best, strict=True) if key in set(found)]


def test_both_pairs_of_a_day_are_kept_and_read(tmp_path: Path) -> None:
    """As one ZIP, on the day after New York had one of 25 hours."""
    day = date(2024, 11, 4)
    start, scale = day_start_ns(day), Scale(Decimal("0.01"), Decimal(1))
    times = (start + 4 * 3600 * NS_PER_SECOND + np.arange(120) * 60 * NS_PER_SECOND).tolist()
    tables = order_day(stream(4, "keep"), times)
    put_day(tmp_path, BTC, day, tables, scale)
    files, _ = export(source(tmp_path, start, start + NS_PER_DAY, levels=60), "lobster", tmp_path / "out")
    assert [path.name.split("_")[1] for path in files[::2]] == ["2024-11-03", "2024-11-04"]
    assert float(files[0].read_text().splitlines()[-1].split(",")[0]) > 24 * 3600
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)
    kept = Lobster().keep(tmp_path / "pairs.zip", "BTCUSDT", day, tmp_path)
    place = tmp_path / "again"
    place.mkdir()
    ticks = ingest_rows([(Lobster(), kept)], "BTCUSDT", day, place)
    again = parquet.read_table(ticks.files["orders"])
    for name in ("recv_ns", "order_id", "kind", "side", "size"):
        assert again[name].tolist() == tables["orders"][name].tolist()
    assert (np.diff(again["seq"]) > 0).all()
    last = Book().feed(parquet.read_table(ticks.files["book_levels"]), 5).ladder[1::2, -1].tolist()
    assert last == Book().feed(tables["book_levels"], 5).ladder[1::2, -1].tolist()


def naive_ladders(orders: Columns, shown: int) -> list[str]:
    """The orderbook file's row of every event, from a plain dictionary of sizes."""
    book: dict[tuple[int, int], int] = {}
    lines = []
    for kind, side, price, size in zip(*(orders[n].tolist() for n in ("kind", "side", "price", "size")), strict=True):
        if kind != 5:
            book[side, price] = book.get((side, price), 0) + (size if kind == 1 else -size)
        sides = {s: sorted((p for (s_, p), left in book.items() if s_ == s and left), reverse=s > 0) for s in (-1, 1)}
        line: list[int] = []
        for level in range(shown):
            for s, empty in ((-1, 9_999_999_999), (1, -9_999_999_999)):
                there = level < len(sides[s])
                line += [sides[s][level] * 100, book[s, sides[s][level]]] if there else [empty, 0]
        lines.append(",".join(map(str, line)))
    return lines


def test_a_stretch_begins_with_the_market_as_it_stood(tmp_path: Path) -> None:
    tables = streams(11)
    put_day(tmp_path, BTC, DAY, tables, SCALE)
    levels = tables["book_levels"]
    at = int(levels["recv_ns"][levels["seq"].size // 2]) + 1
    later = int(np.searchsorted(levels["recv_ns"], at))
    (path,), _ = export(source(tmp_path, at), "hftbacktest", tmp_path / "npz")
    book = Book()
    book.feed({name: column[:later] for name, column in levels.items()})
    stood = {(side, p / 10): s / 1000 for side, rows in ((1, book.bids), (-1, book.asks)) for p, s in rows.tolist()}
    assert naive_book(events_of(path))[at] == stood
    files, _ = export(source(tmp_path, at), "tardis", tmp_path / "csv")
    again = read_back(tmp_path, Tardis(), files)
    assert set(again["book_levels"]["recv_ns"][: len(stood)].tolist()) == {at // 1000 * 1000}
    quotes = tables["quotes"]
    before = int(np.searchsorted(quotes["recv_ns"], at)) - 1
    assert again["quotes"]["bid_size"][0] == int(quotes["bid_size"][before]) * SCALE.lot_size


def test_a_day_that_goes_on_from_the_one_before_begins_with_its_book(tmp_path: Path) -> None:
    tables = streams(3)
    opening = rows_of(
        schema.BOOK_LEVELS,
        [
            {"recv_ns": START, "seq": -1, "side": side, "price": 1000 - 20 * side, "size": 7, "flags": flags}
            for side, flags in ((1, Flag.SNAPSHOT), (-1, Flag.SNAPSHOT | Flag.LAST))
        ],
    )
    levels = tables["book_levels"]
    diffs = {name: column[levels["flags"] & Flag.SNAPSHOT == 0] for name, column in levels.items()}
    whole = {name: np.concatenate((opening[name], column)) for name, column in diffs.items()}
    put_day(tmp_path, BTC, date(2024, 8, 7), {}, SCALE)
    put_day(tmp_path, BTC, DAY, tables | {"book_levels": whole}, SCALE, opened_from_yesterday=True)
    files, _ = export(source(tmp_path), "tardis", tmp_path / "csv")
    again = read_back(tmp_path, Tardis(), files)["book_levels"]
    assert again["recv_ns"][:2].tolist() == [START, START]
    assert again["seq"].size == whole["seq"].size
    assert (again["flags"][:2] & Flag.SNAPSHOT > 0).all()


def test_an_incoming_order_is_told_once(tmp_path: Path) -> None:
    """A source that tells it before it trades, both sides reporting: the book of the files is never crossed."""
    told = [
        (1, 1, -1, 101, 5),
        (2, 1, 1, 99, 4),
        (3, 1, 1, 101, 8),
        (1, 4, -1, 101, 5),
        (3, 4, 1, 101, 5),
        (2, 3, 1, 99, 4),
    ]
    sizes = [5, 4, 8, 0, 3, 0]
    shared = [{"recv_ns": START + n * 10**9, "seq": n, "flags": Flag.LAST} for n in range(6)]
    orders = [
        s | dict(zip(("order_id", "kind", "side", "price", "size"), row, strict=True))
        for s, row in zip(shared, told, strict=True)
    ]
    levels = [s | {"side": r[2], "price": r[3], "size": size} for s, r, size in zip(shared, told, sizes, strict=True)]
    tables = {"orders": rows_of(schema.ORDERS, orders), "book_levels": rows_of(schema.BOOK_LEVELS, levels)}
    put_day(tmp_path, BTC, DAY, tables, Scale(Decimal(1), Decimal(1)), crossed=1)
    files, written = export(source(tmp_path, levels=1), "lobster", tmp_path / "out")
    assert files[0].read_text().splitlines() == [
        "72000,1,1,5,1010000,-1",
        "72001,1,2,4,990000,1",
        "72003,4,1,5,1010000,-1",
        "72003,1,3,3,1010000,1",
    ]
    assert files[1].read_text().splitlines()[-2:] == ["9999999999,0,990000,4", "9999999999,0,1010000,3"]
    assert sum(written.left_out.values()) == 2


# --- what is refused


@pytest.mark.parametrize(
    ("form", "tables", "scale", "more", "words"),
    [
        ("lobster", ("trades", "book_levels"), SCALE, {}, "has no orders on 2024-08-08"),
        (
            "lobster",
            ("orders", "book_levels"),
            Scale(Decimal("0.00001"), Decimal(1)),
            {},
            "no multiple of 0.0001, LOBSTER's unit",
        ),
        ("lobster", ("orders", "book_levels"), SCALE, {"levels": 3}, "shows 2 levels a side, not 3"),
        ("hftbacktest", ("trades",), SCALE, {}, "has no book_levels on 2024-08-08"),
        ("tardis", (), SCALE, {}, "has no rows on 2024-08-08"),
        ("tardsi", ("trades",), SCALE, {}, "unknown export 'tardsi'"),
        ("tardis", ("trades",), SCALE, {"end": START + 2 * NS_PER_DAY}, "crosses midnight UTC"),
        ("tardis", ("trades",), SCALE, {"start": START + 9, "end": START + 10}, "was recorded"),
    ],
)
def test_what_a_format_cannot_say_is_refused_by_name(
    tmp_path: Path, form: str, tables: tuple[str, ...], scale: Scale, more: dict[str, Any], words: str
) -> None:
    made = order_day(stream(1, "refused"), [START + 10**9 + n for n in range(9)])
    covered = [(START + 100, START + NS_PER_DAY)]
    given_ = {name: made[name] for name in tables}
    put_day(tmp_path, BTC, DAY, given_, scale, visible_levels=2, coverage=covered)
    with pytest.raises(InputError, match=words) as caught:
        export(source(tmp_path, **more), form, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_day(tmp_path, BTC, DAY, streams(2), SCALE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hftbacktest, "_pack", full)
    with pytest.raises(InputError, match="No space left on device"):
        export(source(tmp_path), "hftbacktest", tmp_path / "new" / "out")
    assert [path.name for path in (tmp_path / "new").iterdir()] == []


def test_the_command(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_day(workspace.settings.home, BTC, DAY, streams(2), SCALE)
    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["synth-pipeline", "export-ticks", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    words = (BTC, DAY, "--format", "hftbacktest", "--to", tmp_path / "npz")
    code, out, _ = run(*words, "--json")
    told = json.loads(out)
    assert (code, told["files"]) == (0, [str(tmp_path / "npz" / "btcusdt_20240808.npz")])
    assert told["facts"] == {"tick_size": "0.1", "lot_size": "0.001", "inverse": False}
    assert told["rows"]["events"] == len(events_of(tmp_path / "npz" / "btcusdt_20240808.npz"))
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "or replace it with --force" in err
    assert run(*words, "--force")[0] == 0
    wrongs = (("--start", "10:30", "--end", "10:00"), ("--start", "noon"), ("--end", "00:00"), ("--levels", "5"))
    for wrong in wrongs:
        code, out, err = run(*words, "--force", *wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(NoDataError, match="no ticks of"):
        export(source(tmp_path), "tardis", tmp_path / "out")
