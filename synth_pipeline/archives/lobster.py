"""LOBSTER: NASDAQ messages with the limit order book after each, at any number of levels.

Format: https://lobsterdata.com/info/DataStructure.php. A session is a ZIP of, or side by side,
`TICKER_DATE_START_END_message_LEVELS.csv` and the `orderbook` file with one row a message. Times are seconds after
midnight in New York; prices are USD × 10,000. The source has one clock, so both our clocks are set from it and every
row is flagged BAD_CLOCK. Only LEVELS levels a side are visible: a level that leaves the window is removed from our
book and one that enters is added, so that replaying the level changes gives exactly the recorded window.
"""

from __future__ import annotations

import io
import re
import zipfile
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numba import njit

from synth_pipeline.archives import RowArchive, Rows
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_SECOND, Flag, Scale, day_of

_NAME = re.compile(r"([A-Za-z.\-]+)_(\d{4}-\d\d-\d\d)_(\d+)_(\d+)_(message|orderbook)_(\d+)\.csv")
_NEW_YORK = ZoneInfo("America/New_York")
_EMPTY = 9_999_999_999
_PRICE_UNIT = Decimal("0.0001")
_NS_PER_MS = 1_000_000

ADD, REDUCE, DELETE, EXECUTE, EXECUTE_HIDDEN, CROSS, HALT = 1, 2, 3, 4, 5, 6, 7
"""LOBSTER's event types."""


class _Day(NamedTuple):
    symbol: str
    day: date
    start_ms: int
    end_ms: int
    levels: int
    messages: bytes
    books: bytes

    @property
    def midnight_ns(self) -> int:
        """New York midnight in UTC ns; clocks change on Sundays only, when there is no session."""
        return int(datetime.combine(self.day, time(), _NEW_YORK).timestamp()) * NS_PER_SECOND


class Lobster(RowArchive):
    """LOBSTER message and orderbook files."""

    venue = "nasdaq"

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the member names decide
        """A ZIP with a member, or a CSV with a name, of LOBSTER's form."""
        return any(_NAME.fullmatch(name) for name in _members(path))

    def symbols(self, path: Path) -> list[str]:
        """Return the ticker of the file name."""
        return [_open(path).symbol]

    def days(self, path: Path) -> list[date]:
        """Return the UTC day of the session (a NASDAQ session never crosses UTC midnight)."""
        day = _open(path)
        return [day_of(day.midnight_ns + day.start_ms * _NS_PER_MS)]

    def members(self, path: Path) -> list[Path]:
        """Return the ZIP, or both files of the pair."""
        return [path] if zipfile.is_zipfile(path) else [file for _, file in _pair(path)]

    def rows(self, path: Path, symbol: str, day: date) -> Rows:
        """Read the session as trades, orders, quotes and level changes."""
        source = _open(path)
        if source.symbol != symbol or self.days(path) != [day]:
            raise NoDataError(f"{path} holds {source.symbol} on {self.days(path)[0]}, not {symbol} on {day}")
        messages = _read_messages(path, source)
        books = _read_books(path, source, len(messages["time_ns"]))
        unit = _tick_in_units(messages)
        scale = Scale((_PRICE_UNIT * unit).normalize(), Decimal(1))
        message_faults, book_faults = _message_faults(messages, unit), _book_faults(books, unit)
        rejected = _rejected(messages, "trades", message_faults) + _rejected(messages, "book_levels", book_faults)
        clock = {"recv_ns": messages["time_ns"], "event_ns": messages["time_ns"], "seq": messages["seq"]}
        is_sound = book_faults == ""
        books, sound_clock = books[is_sound], _picked(clock, is_sound)
        tables = {
            "trades": _trades(messages, clock, message_faults == "", unit),
            "orders": _orders(messages, clock, message_faults == "", unit),
            "quotes": _quotes(books, sound_clock, unit),
            "book_levels": _levels(books, sound_clock, unit),
        }
        start, end = (source.midnight_ns + ms * _NS_PER_MS for ms in (source.start_ms, source.end_ms))
        return Rows(tables, scale, [(start, end)], source.levels, rejected)


def _members(path: Path) -> list[str]:
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [Path(name).name for name in archive.namelist()]
    return [path.name]


def _open(path: Path) -> _Day:
    try:
        found = (
            _zip_contents(path)
            if zipfile.is_zipfile(path)
            else [(match, file.read_bytes()) for match, file in _pair(path)]
        )
    except (zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): fetch the file again") from error
    by_kind = {match[5]: (match, content) for match, content in found}
    if set(by_kind) != {"message", "orderbook"}:
        raise InputError(f"{path} lacks the message or the orderbook file of its session: both are needed")
    match, messages = by_kind["message"]
    return _Day(
        match[1],
        date.fromisoformat(match[2]),
        int(match[3]),
        int(match[4]),
        int(match[6]),
        messages,
        by_kind["orderbook"][1],
    )


def _zip_contents(path: Path) -> list[tuple[re.Match[str], bytes]]:
    with zipfile.ZipFile(path) as archive:
        named = [(_NAME.fullmatch(Path(name).name), name) for name in archive.namelist()]
        found = [(match, archive.read(name)) for match, name in named if match]
    if len(found) > 2:
        raise InputError(f"{path} holds {len(found) // 2} sessions: give one session a file")
    return found


def _pair(path: Path) -> list[tuple[re.Match[str], Path]]:
    names = {path.name, path.name.replace("_message_", "_orderbook_"), path.name.replace("_orderbook_", "_message_")}
    files = [(_NAME.fullmatch(name), path.with_name(name)) for name in sorted(names)]
    return [(match, file) for match, file in files if match and file.is_file()]


def _csv(path: Path, content: bytes, columns: int, what: str) -> pl.DataFrame:
    """Read a headerless CSV of integers, the first column of a message file excepted: it is a decimal time."""
    schema = {f"c{index}": pl.String if (what == "message" and index == 0) else pl.Int64 for index in range(columns)}
    try:
        frame = pl.read_csv(io.BytesIO(content), has_header=False, schema=schema)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the {what} file of {path} is not LOBSTER's {columns} integer columns ({reason})") from error
    incomplete = frame.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if incomplete.any():
        row = incomplete.arg_true()[0] + 1
        raise InputError(f"row {row} of the {what} file of {path} lacks columns: the file is damaged, fetch it again")
    return frame


def _read_messages(path: Path, source: _Day) -> dict[str, np.ndarray]:
    frame = _csv(path, source.messages, 6, "message")
    seconds = pl.col("c0").str.split(".").list
    time_ns = seconds.get(0).cast(pl.Int64) * NS_PER_SECOND + (
        seconds.get(1, null_on_oob=True).fill_null("0").str.pad_end(9, "0").str.slice(0, 9).cast(pl.Int64)
    )
    try:
        frame = frame.with_columns(time_ns=time_ns + source.midnight_ns)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the message file of {path} has times that are no decimal seconds ({reason})") from error
    names = {"time_ns": "time_ns", "c1": "kind", "c2": "order_id", "c3": "size", "c4": "price", "c5": "side"}
    columns = {new: frame[old].to_numpy() for old, new in names.items()}
    if (np.diff(columns["time_ns"]) < 0).any():
        row = int(np.argmax(np.diff(columns["time_ns"]) < 0)) + 2
        raise InputError(f"the message file of {path} goes back in time at row {row}: it is damaged")
    return columns | {"seq": np.arange(frame.height, dtype=np.int64)}


def _read_books(path: Path, source: _Day, rows: int) -> np.ndarray:
    books = _csv(path, source.books, 4 * source.levels, "orderbook").to_numpy()
    if len(books) != rows:
        raise InputError(f"{path} has {rows} messages but {len(books)} book rows: the files are not of one session")
    return np.ascontiguousarray(books.reshape(rows, source.levels, 4))


def _tick_in_units(messages: dict[str, np.ndarray]) -> int:
    """Return the tick in 0.0001 USD: a cent for visible orders at or above 1 USD (Regulation NMS, Rule 612)."""
    visible = messages["price"][messages["kind"] <= EXECUTE]
    return 100 if visible.size and not (visible % 100).any() else 1


def _message_faults(messages: dict[str, np.ndarray], unit: int) -> np.ndarray:
    """Return what is wrong with each message, empty for nothing.

    Hidden orders may trade inside the tick; the integer scale cannot hold such a price, and nothing is rounded.
    """
    halted = messages["kind"] == HALT
    faults = np.full(len(halted), "", dtype=object)
    faults[(messages["price"] % unit != 0) & ~halted] = "off_tick"
    faults[((messages["price"] <= 0) | (messages["size"] <= 0)) & ~halted] = "not_positive"
    faults[~np.isin(messages["side"], (1, -1)) | (messages["kind"] < ADD) | (messages["kind"] > HALT)] = (
        "unexpected_form"
    )
    return faults


def _book_faults(books: np.ndarray, unit: int) -> np.ndarray:
    """Return what is wrong with each book row, empty for nothing; such a row leaves the book as it was."""
    prices, sizes = books[:, :, 0::2], books[:, :, 1::2]
    shown = np.abs(prices) != _EMPTY
    faults = np.full(len(books), "", dtype=object)
    faults[(shown & (prices % unit != 0)).any(axis=(1, 2))] = "off_tick"
    faults[(shown & ((prices <= 0) | (sizes <= 0))).any(axis=(1, 2))] = "not_positive"
    faults[shown[:, 0].all(axis=1) & (prices[:, 0, 1] >= prices[:, 0, 0])] = "crossed_quote"
    return faults


def _rejected(
    messages: dict[str, np.ndarray], stream: str, faults: np.ndarray
) -> list[tuple[int, int, str, str, str, bytes]]:
    names = ("time_ns", "kind", "order_id", "size", "price", "side")
    return [
        (
            int(messages["time_ns"][row]),
            row,
            stream,
            str(faults[row]),
            f"row {row + 1} of the session's {'messages' if stream == 'trades' else 'books'}",
            ",".join(str(messages[name][row]) for name in names).encode(),
        )
        for row in np.flatnonzero(faults != "").tolist()
    ]


def _picked(columns: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[mask] for name, values in columns.items()}


def _trades(
    messages: dict[str, np.ndarray], clock: dict[str, np.ndarray], is_sound: np.ndarray, unit: int
) -> dict[str, np.ndarray]:
    kind = messages["kind"]
    mask = np.isin(kind, (EXECUTE, EXECUTE_HIDDEN, CROSS)) & is_sound
    # An auction's cross print takes no order of the continuous book.
    flags = Flag.BAD_CLOCK | np.where(kind == CROSS, Flag.OFF_MARKET, 0) | Flag.LAST
    columns = clock | {
        "trade_id": messages["seq"] + 1,
        "price": messages["price"] // unit,
        "size": messages["size"],
        "side": (-messages["side"]).astype(np.int8),  # the file names the resting side
        "flags": flags.astype(np.uint8),
    }
    return _picked(columns, mask)


def _orders(
    messages: dict[str, np.ndarray], clock: dict[str, np.ndarray], is_sound: np.ndarray, unit: int
) -> dict[str, np.ndarray]:
    halted = messages["kind"] == HALT
    columns = clock | {
        "order_id": messages["order_id"],
        "kind": messages["kind"].astype(np.int8),
        "side": messages["side"].astype(np.int8),
        "price": np.where(halted, messages["price"], messages["price"] // unit),
        "size": messages["size"],
        "flags": np.full(len(halted), Flag.BAD_CLOCK | Flag.LAST, dtype=np.uint8),
    }
    return _picked(columns, is_sound)


def _quotes(books: np.ndarray, clock: dict[str, np.ndarray], unit: int) -> dict[str, np.ndarray]:
    ask, bid = books[:, 0, :2], books[:, 0, 2:]
    empty_ask, empty_bid = ask[:, 0] == _EMPTY, bid[:, 0] == -_EMPTY
    columns = clock | {
        "update_id": clock["seq"] + 1,
        "bid_price": np.where(empty_bid, 0, bid[:, 0] // unit),
        "bid_size": np.where(empty_bid, 0, bid[:, 1]),
        "ask_price": np.where(empty_ask, 0, ask[:, 0] // unit),
        "ask_size": np.where(empty_ask, 0, ask[:, 1]),
        "flags": np.full(len(books), Flag.BAD_CLOCK | Flag.LAST, dtype=np.uint8),
    }
    changed = np.ones(len(books), dtype=bool)
    changed[1:] = (books[1:, 0] != books[:-1, 0]).any(axis=1)
    return _picked(columns, changed)


def _levels(books: np.ndarray, clock: dict[str, np.ndarray], unit: int) -> dict[str, np.ndarray]:
    row, side, price, size = _level_changes(books)
    flags = np.full(len(row), Flag.BAD_CLOCK, dtype=np.uint8)
    if len(row):
        flags[np.append(row[1:] != row[:-1], True)] |= np.uint8(Flag.LAST)
        flags[row == 0] |= np.uint8(Flag.SNAPSHOT)
    return {
        "recv_ns": clock["recv_ns"][row],
        "event_ns": clock["event_ns"][row],
        "seq": clock["seq"][row],
        "update_id": clock["seq"][row] + 1,
        "side": side,
        "price": price // unit,
        "size": size,
        "flags": flags,
    }


@njit(cache=True)
def _level_changes(books: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, side, price, size) of every level unlike the row before; size 0 for one that is no longer shown."""
    rows, levels = books.shape[0], books.shape[1]
    found = np.empty((rows * levels * 4, 4), np.int64)
    count = 0
    nothing = np.full((levels, 4), _EMPTY)
    nothing[:, 2] = -_EMPTY
    for row in range(rows):
        before = books[row - 1] if row else nothing
        for column, side, empty in ((2, 1, -_EMPTY), (0, -1, _EMPTY)):
            for level in range(levels):
                price = before[level, column]
                if price != empty and _size_at(books[row], column, price) == 0:
                    found[count] = row, side, price, 0
                    count += 1
            for level in range(levels):
                price, size = books[row, level, column], books[row, level, column + 1]
                if price != empty and _size_at(before, column, price) != size:
                    found[count] = row, side, price, size
                    count += 1
    found = found[:count]
    return found[:, 0].copy(), found[:, 1].astype(np.int8), found[:, 2].copy(), found[:, 3].copy()


@njit(cache=True)
def _size_at(book: np.ndarray, column: int, price: int) -> int:
    """Return the size that one side of a book row shows at a price, 0 for none."""
    for level in range(book.shape[0]):
        if book[level, column] == price:
            return int(book[level, column + 1])
    return 0
