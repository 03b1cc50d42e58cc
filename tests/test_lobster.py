"""LOBSTER sessions: New York time, cents, hidden prints, and a visible window that replays exactly."""

import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline.archives.lobster import Lobster
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import TICK_TABLES, Flag, day_start_ns
from synth_pipeline.ticks import book

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


def _session(folder: Path, messages: str = MESSAGES, books: str = BOOKS) -> Path:
    path = folder / "session.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME.format("message"), messages)
        archive.writestr(NAME.format("orderbook"), books)
    return path


def test_times_prices_and_sides(tmp_path: Path) -> None:
    path = _session(tmp_path)
    archive = Lobster()
    assert archive.matches(path, b"")
    assert archive.symbols(path) == ["TEST"]
    assert archive.days(path) == [DAY]
    rows = archive.rows(path, "TEST", DAY)
    trades = rows.tables["trades"]
    assert (trades["recv_ns"] - OPEN_NS).tolist() == [500_000_000, 1_250_000_000]
    assert trades["price"].tolist() == [10_000, 10_001]
    assert trades["side"].tolist() == [-1, 1]  # a resting buy is hit by a seller, and the other way round
    assert (trades["flags"] & Flag.BAD_CLOCK > 0).all()
    assert rows.scale.tick_size == Decimal("0.01")
    assert rows.coverage == [(OPEN_NS, OPEN_NS + 6 * 3600 * 10**9 + 1800 * 10**9)]
    assert rows.tables["orders"]["kind"].tolist() == [1, 4, 5, 3]


def test_a_hidden_print_inside_the_tick_is_quarantined(tmp_path: Path) -> None:
    rows = Lobster().rows(_session(tmp_path), "TEST", DAY)
    assert [row[3] for row in rows.quarantine] == ["off_tick"]
    assert b"1000050" in rows.quarantine[0][5]


def test_replaying_the_level_changes_gives_the_recorded_window(tmp_path: Path) -> None:
    rows = Lobster().rows(_session(tmp_path), "TEST", DAY)
    rebuilt = book.replay(rows.tables["book_levels"])
    assert rebuilt.top.tolist() == [[10_000, 100, 10_001, 10], [10_000, 60, 10_001, 10], [9_999, 50, 10_001, 10]]
    assert rebuilt.depth[-1].tolist() == [50, 10]  # a level that left the window is gone from ours


def test_tables_are_the_schemas(tmp_path: Path) -> None:
    for name, columns in Lobster().rows(_session(tmp_path), "TEST", DAY).tables.items():
        assert set(columns) == set(TICK_TABLES[name].names)
        for column in TICK_TABLES[name].columns:
            assert columns[column.name].dtype == np.dtype(column.dtype), (name, column.name)


def test_the_pair_of_csv_files_works_without_a_zip(tmp_path: Path) -> None:
    (tmp_path / NAME.format("message")).write_text(MESSAGES)
    (tmp_path / NAME.format("orderbook")).write_text(BOOKS)
    assert Lobster().symbols(tmp_path / NAME.format("message")) == ["TEST"]


@pytest.mark.parametrize(
    ("messages", "books", "message"),
    [
        (MESSAGES, BOOKS.rsplit("\n", 2)[0] + "\n", "5 messages but 4 book rows"),
        (MESSAGES.replace("34202,", "34100,"), BOOKS, "goes back in time at row 5"),
        (MESSAGES.replace("100,1000000", "ten,1000000"), BOOKS, "is not LOBSTER's 6 integer columns"),
    ],
)
def test_damaged_sessions_are_named(tmp_path: Path, messages: str, books: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Lobster().rows(_session(tmp_path, messages, books), "TEST", DAY)


def test_another_symbol_or_day_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoDataError, match="holds TEST on 2012-06-21, not AMZN"):
        Lobster().rows(_session(tmp_path), "AMZN", DAY)


def test_a_truncated_zip_is_an_error(tmp_path: Path) -> None:
    path = _session(tmp_path)
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        Lobster().rows(path, "TEST", DAY)


def test_the_amazon_day(real: Callable[[str], Path]) -> None:
    path = real("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip")
    rows = Lobster().rows(path, "AMZN", DAY)
    rebuilt = book.replay(rows.tables["book_levels"])
    assert rebuilt.crossed == 0
    quotes = rows.tables["quotes"]
    recorded = np.stack([quotes[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size")], axis=1)
    assert (rebuilt.top == recorded).all()
    assert len(rows.tables["trades"]["price"]) + len(rows.quarantine) == 2445 + 8974


@pytest.mark.parametrize(
    ("messages", "books", "message"),
    [
        (MESSAGES.replace("34200.5,4,11,40,1000000,1", "34200.5,4,11"), BOOKS, "row 2 of the message file"),
        (MESSAGES, BOOKS.replace("1000100,10,1000000,60", "1000100,10", 1), "orderbook file"),
        (MESSAGES.replace("34200.5,", "34200.5x,"), BOOKS, "no decimal seconds"),
    ],
)
def test_lines_cut_in_half_are_named(tmp_path: Path, messages: str, books: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Lobster().rows(_session(tmp_path, messages, books), "TEST", DAY)


@pytest.mark.parametrize(
    ("old", "new", "stream", "reason"),
    [
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,-40,1000000,1", "trades", "not_positive"),
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,40,-1000000,1", "trades", "not_positive"),
        ("34200.5,4,11,40,1000000,1", "34200.5,4,11,40,1000000,7", "trades", "unexpected_form"),
        ("34200.5,4,11,40,1000000,1", "34200.5,9,11,40,1000000,1", "trades", "unexpected_form"),
        ("1000100,10,1000000,60,", "1000155,10,1000000,60,", "book_levels", "off_tick"),
        ("1000100,10,1000000,60,", "1000100,-10,1000000,60,", "book_levels", "not_positive"),
        ("1000100,10,1000000,60,", "1000000,10,1000100,60,", "book_levels", "crossed_quote"),
    ],
)
def test_values_of_no_market_are_quarantined(tmp_path: Path, old: str, new: str, stream: str, reason: str) -> None:
    path = _session(tmp_path, MESSAGES.replace(old, new, 1), BOOKS.replace(old, new, 1))
    rows = Lobster().rows(path, "TEST", DAY)
    assert (stream, reason) in [row[2:4] for row in rows.quarantine]
    assert book.replay(rows.tables["book_levels"]).crossed == 0
    assert (rows.tables["trades"]["size"] > 0).all()
    assert set(rows.tables["orders"]["side"].tolist()) <= {1, -1}
