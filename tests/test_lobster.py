"""LOBSTER sessions: New York time, cents, hidden prints, halts, and a visible window that replays exactly."""

import gzip
import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline.archives.lobster import Lobster
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.rng import stream
from synth_pipeline.schema import Flag, day_start_ns
from synth_pipeline.ticks import book, parquet
from synth_pipeline.ticks.day import DayTicks
from synth_pipeline.ticks.rows import ingest_rows

DAY = date(2012, 6, 21)
OPEN_NS = day_start_ns(DAY) + (13 * 3600 + 1800) * 10**9  # 09:30 in New York, in summer
NAME = "TEST_2012-06-21_34200000_57600000_{}_2.csv"
MESSAGES = """34200.000000001,1,11,100,1000000,1
34200.5,4,11,40,1000000,1
34201.25,5,0,7,1000050,-1
34201.25,5,0,8,1000100,-1
34202,3,12,60,1000000,1
"""
BOOKS = """1000100,10,1000000,100,1000200,20,999900,50
1000100,10,1000000,60,1000200,20,999900,50
1000100,10,1000000,60,1000200,20,999900,50
1000100,10,1000000,60,1000200,20,999900,50
1000100,10,999900,50,9999999999,0,-9999999999,0
"""


def _session(folder: Path, messages: str = MESSAGES, books: str = BOOKS, name: str = NAME) -> Path:
    path = folder / "session.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name.format("message"), messages)
        archive.writestr(name.format("orderbook"), books)
        archive.writestr("LOBSTER_SampleFiles_ReadMe.txt", "what the columns mean")
    return path


def _ticks(folder: Path, path: Path, symbol: str = "TEST", day: date = DAY) -> DayTicks:
    place = folder / "ticks"
    place.mkdir(exist_ok=True)
    return ingest_rows([(Lobster(), path)], symbol, day, place)


def _table(ticks: DayTicks, name: str) -> dict[str, np.ndarray]:
    return parquet.read_table(ticks.files[name])


def test_times_prices_and_sides(tmp_path: Path) -> None:
    path = _session(tmp_path)
    archive = Lobster()
    assert archive.matches(path, b"")
    assert archive.symbols(path) == ["TEST"]
    assert archive.days(path) == [DAY]
    ticks = _ticks(tmp_path, path)
    trades = _table(ticks, "trades")
    assert (trades["recv_ns"] - OPEN_NS).tolist() == [500_000_000, 1_250_000_000]
    assert trades["price"].tolist() == [10_000, 10_001]
    assert trades["side"].tolist() == [-1, 1]  # a resting buy is hit by a seller, and the other way round
    assert trades["trade_id"].tolist() == [2, 4]
    assert (trades["flags"] & Flag.BAD_CLOCK > 0).all()
    assert ticks.scale.tick_size == Decimal("0.01")
    assert ticks.coverage == [(OPEN_NS, OPEN_NS + 6 * 3600 * 10**9 + 1800 * 10**9)]
    assert ticks.visible_levels == 2
    assert _table(ticks, "orders")["kind"].tolist() == [1, 4, 5, 3]


def test_a_hidden_print_inside_the_tick_is_quarantined(tmp_path: Path) -> None:
    rejected = _table(_ticks(tmp_path, _session(tmp_path)), "quarantine")
    assert set(zip(rejected["stream"].tolist(), rejected["reason"].tolist(), strict=True)) == {
        ("orders", "off_tick"),
        ("trades", "off_tick"),
    }
    assert all(b"1000050" in payload for payload in rejected["payload"])


def test_replaying_the_level_changes_gives_the_recorded_window(tmp_path: Path) -> None:
    rebuilt = book.replay(_table(_ticks(tmp_path, _session(tmp_path)), "book_levels"))
    assert rebuilt.top.tolist() == [[10_000, 100, 10_001, 10], [10_000, 60, 10_001, 10], [9_999, 50, 10_001, 10]]
    assert rebuilt.depth[-1].tolist() == [50, 10]  # a level that left the window is gone from ours


@pytest.mark.parametrize("levels", [1, 5, 10, 50])
def test_windows_of_any_depth_replay_exactly(tmp_path: Path, levels: int) -> None:
    rng = stream(1, "lobster", levels)
    tops, depths, rows = [], [], []
    for _ in range(300):
        shown = [int(rng.integers(0, levels + 1)) for _ in range(2)]
        asks = np.cumsum(rng.integers(1, 4, levels)) + 10_000
        bids = 10_000 - np.cumsum(rng.integers(0 if levels == 1 else 1, 4, levels))
        sizes = rng.integers(1, 900, (2, levels))
        row = []
        for level in range(levels):
            for side, prices, empty in ((0, asks, 9_999_999_999), (1, bids, -9_999_999_999)):
                is_shown = level < shown[side]
                row += [int(prices[level]) * 100, int(sizes[side][level])] if is_shown else [empty, 0]
        rows.append(",".join(map(str, row)))
        sides = [(bids, sizes[1], shown[1]), (asks, sizes[0], shown[0])]
        tops.append([value for prices, size, count in sides for value in ([prices[0], size[0]] if count else [0, 0])])
        depths.append([int(size[: min(count, 10)].sum()) for _, size, count in sides])
    messages = "".join(f"{34_200 + n}.5,1,{n},1,1000000,1\n" for n in range(300))
    path = _session(tmp_path, messages, "\n".join(rows) + "\n", NAME.replace("_2.csv", f"_{levels}.csv"))
    ticks = _ticks(tmp_path, path)
    rebuilt = book.replay(_table(ticks, "book_levels"))
    at = ((rebuilt.recv_ns - OPEN_NS) // 10**9).tolist()
    assert len(at) > 100
    assert rebuilt.top.tolist() == [tops[n] for n in at]
    assert rebuilt.depth.tolist() == [depths[n] for n in at]
    assert ticks.counts["book_ticker_agreement"] == 1.0


def test_halts_and_auctions(tmp_path: Path) -> None:
    messages = MESSAGES.splitlines(keepends=True)
    messages[2:4] = ["34201.25,7,0,0,-1,-1\n", "34201.5,6,0,900,1000000,-1\n"]
    ticks = _ticks(tmp_path, _session(tmp_path, "".join(messages)))
    orders, trades = _table(ticks, "orders"), _table(ticks, "trades")
    assert orders["kind"].tolist() == [1, 4, 7, 6, 3]
    assert orders["price"].tolist()[2] == -1  # a mark, not a price
    assert (trades["flags"] & Flag.OFF_MARKET > 0).tolist() == [False, True]
    assert ticks.rows["quarantine"] == 0


def test_sub_dollar_prices_have_ticks_of_a_hundredth_of_a_cent(tmp_path: Path) -> None:
    messages = MESSAGES.replace("1000000", "9955").replace("1000050", "9956").replace("1000100", "9960")
    books = (
        BOOKS.replace("1000100", "9960").replace("1000000", "9955").replace("1000200", "9970").replace("999900", "9950")
    )
    ticks = _ticks(tmp_path, _session(tmp_path, messages, books))
    assert ticks.scale.tick_size == Decimal("0.0001")
    assert ticks.rows["quarantine"] == 0
    assert _table(ticks, "trades")["price"].tolist() == [9955, 9956, 9960]


def test_a_zip_of_several_sessions_is_read_session_by_session(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    other = NAME.replace("TEST", "BRK.B").replace("2012-06-21", "2012-12-21")
    with zipfile.ZipFile(path, "w") as archive:
        for name in (NAME, other):
            archive.writestr(f"folder/{name.format('message')}", MESSAGES)
            archive.writestr(f"folder/{name.format('orderbook')}", BOOKS)
    lobster = Lobster()
    assert lobster.symbols(path) == ["BRK-B", "TEST"]
    assert lobster.days(path) == [DAY, date(2012, 12, 21)]
    ticks = _ticks(tmp_path, path, "BRK-B", date(2012, 12, 21))
    assert ticks.coverage[0][0] == day_start_ns(date(2012, 12, 21)) + (14 * 3600 + 1800) * 10**9  # in winter
    (tmp_path / "kept").mkdir()
    kept = lobster.keep(path, "BRK-B", date(2012, 12, 21), tmp_path / "kept")
    assert lobster.symbols(kept) == ["BRK-B"]


def test_the_pair_of_csv_files_works_without_a_zip(tmp_path: Path) -> None:
    (tmp_path / NAME.format("message")).write_text(MESSAGES)
    (tmp_path / (NAME.format("orderbook") + ".gz")).write_bytes(gzip.compress(BOOKS.encode()))
    path = tmp_path / NAME.format("message")
    assert Lobster().symbols(path) == ["TEST"]
    assert len(Lobster().members(path)) == 2
    assert _ticks(tmp_path, path).rows["trades"] == 2
    (tmp_path / (NAME.format("orderbook") + ".gz")).unlink()
    with pytest.raises(InputError, match="lacks the message or the orderbook file"):
        Lobster().days(path)


@pytest.mark.parametrize(
    ("messages", "books", "message"),
    [
        (MESSAGES, BOOKS.rsplit("\n", 2)[0] + "\n", "5 messages but 4 book rows"),
        (MESSAGES.replace("\n", "\n\n", 1), BOOKS + BOOKS[:50].split("\n", maxsplit=1)[0] + "\n", "has an empty line"),
    ],
)
def test_pairs_that_do_not_fit_are_named(tmp_path: Path, messages: str, books: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ticks(tmp_path, _session(tmp_path, messages, books))


def test_another_symbol_or_day_is_not_there(tmp_path: Path) -> None:
    path = _session(tmp_path)
    with pytest.raises(NoDataError, match=r"holds nothing of AMZN on 2012-06-21.* its symbols TEST"):
        _ticks(tmp_path, path, "AMZN")
    with pytest.raises(NoDataError, match="holds TEST on 2012-06-21, not AMZN"):
        Lobster().keep(path, "AMZN", DAY, tmp_path)


def test_a_truncated_zip_is_an_error(tmp_path: Path) -> None:
    path = _session(tmp_path)
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        _ticks(tmp_path, path)


def test_the_amazon_day(real: Callable[[str], Path], tmp_path: Path) -> None:
    ticks = _ticks(tmp_path, real("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"), "AMZN")
    rebuilt, quotes = book.replay(_table(ticks, "book_levels")), _table(ticks, "quotes")
    assert rebuilt.crossed == 0
    recorded = np.stack([quotes[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size")], axis=1)
    assert (rebuilt.top == recorded).all()
    off_tick = int((_table(ticks, "quarantine")["stream"] == "trades").sum())
    assert ticks.rows["trades"] + off_tick == 2445 + 8974


@pytest.mark.parametrize(
    ("old", "new", "stream", "reason"),
    [
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,-40,1000000,1", "trades", "not_positive"),
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,40,-1000000,1", "trades", "not_positive"),
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,40,1000000,7", "trades", "unknown_side"),
        ("34200.5,4,11,40,1000000,1", "34200.5,9,11,40,1000000,1", "orders", "unknown_kind"),
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,ten,1000000,1", "orders", "malformed_number"),
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11", "raw", "wrong_columns"),
        ("34200.5,4,11,40,1000000,1", "34200.5x,4,11,40,1000000,1", "raw", "bad_time"),
        ("34200.5,4,11,40,1000000,1", "84200.5,4,11,40,1000000,1", "raw", "bad_time"),
        ("1000100,10,1000000,60,", "1000155,10,1000000,60,", "book_levels", "off_tick"),
        ("1000100,10,1000000,60,", "1000100,-10,1000000,60,", "book_levels", "not_positive"),
        ("1000100,10,1000000,60,", "1000000,10,1000100,60,", "book_levels", "crossed_quote"),
        ("1000100,10,1000000,60,1000200", "1000100,10,1000000,60,1000000", "book_levels", "disordered_levels"),
        ("1000100,10,1000000,60,", "1000100,10,1000000,", "raw", "wrong_columns"),
    ],
)
def test_values_of_no_market_are_quarantined(tmp_path: Path, old: str, new: str, stream: str, reason: str) -> None:
    path = _session(tmp_path, MESSAGES.replace(old, new, 1), BOOKS.replace(old, new, 1))
    ticks = _ticks(tmp_path, path)
    rejected = _table(ticks, "quarantine")
    assert (stream, reason) in set(zip(rejected["stream"].tolist(), rejected["reason"].tolist(), strict=True))
    assert book.replay(_table(ticks, "book_levels")).crossed == 0
    assert (_table(ticks, "trades")["size"] > 0).all()
    assert set(_table(ticks, "orders")["side"].tolist()) <= {1, -1}


def test_a_cut_last_line_is_quarantined(tmp_path: Path) -> None:
    ticks = _ticks(tmp_path, _session(tmp_path, MESSAGES[:-2], BOOKS))
    assert ticks.counts["quarantined"]["torn_line"] == 1


def test_a_message_that_steps_back_keeps_the_latest_time(tmp_path: Path) -> None:
    ticks = _ticks(tmp_path, _session(tmp_path, MESSAGES.replace("34202,", "34200.75,")))
    orders = _table(ticks, "orders")
    assert (orders["recv_ns"][-1] - OPEN_NS, orders["event_ns"][-1] - OPEN_NS) == (1_250_000_000, 750_000_000)
    assert ticks.counts["late"] == 1
