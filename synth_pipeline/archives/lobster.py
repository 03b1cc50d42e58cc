"""LOBSTER: NASDAQ messages with the limit order book after each, at any number of levels.

Format: https://lobsterdata.com/info/DataStructure.php. A session is a pair of files, in a ZIP or side by side,
`TICKER_DATE_START_END_message_LEVELS.csv` (or .csv.gz, …) and `…_orderbook_LEVELS.csv` with one row a message:

    34200.017459617,5,0,1,2238200,-1        time, type, order id, size, price, direction
    2239500,100,2231800,100,…               ask price, ask size, bid price, bid size, level by level

Times are seconds after midnight in New York; prices are USD × 10,000. The source has one clock. Only LEVELS levels a
side are visible, and the orderbook file is the book: its messages cannot build it, since they name orders of the
visible levels only. A tick is a cent unless a visible order stands between two.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from zoneinfo import ZoneInfo

import numpy as np

from synth_pipeline.archives import Head, merged, opened
from synth_pipeline.archives.drafts import Draft, Fault, Piece
from synth_pipeline.archives.fields import NO_TIME, Decimals, Fields, of_integers, split, to_integers
from synth_pipeline.archives.grid import Step, Tally
from synth_pipeline.archives.typed import CHUNK_BYTES, TypedArchive
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_SECOND, Flag, Scale, day_of

_NAME = re.compile(r"([A-Za-z0-9.\-]+)_(\d{4}-\d\d-\d\d)_(\d+)_(\d+)_(message|orderbook)_(\d+)\.csv(?:\.\w+)?")
_NEW_YORK = ZoneInfo("America/New_York")
_EMPTY = 9_999_999_999
_NS_PER_MS = 1_000_000
_LONGEST_DAY_NS = 25 * 3600 * NS_PER_SECOND
"""New York has such a day every autumn."""
_CENT, _UNIT = Step(1, -2), Step(1, -4)

ADD, REDUCE, DELETE, EXECUTE, EXECUTE_HIDDEN, CROSS, HALT = 1, 2, 3, 4, 5, 6, 7
"""LOBSTER's event types."""


class _Session(NamedTuple):
    """One pair of files."""

    ticker: str
    day: date
    start_ms: int
    end_ms: int
    levels: int
    messages: str
    """Name of the member of the ZIP, or of the file beside."""
    books: str

    @property
    def symbol(self) -> str:
        return self.ticker.upper().replace(".", "-")

    @property
    def midnight_ns(self) -> int:
        """New York midnight in UTC ns; clocks change on Sundays only, when there is no session."""
        return int(datetime.combine(self.day, time(), _NEW_YORK).timestamp()) * NS_PER_SECOND

    @property
    def utc_day(self) -> date:
        """A NASDAQ session never crosses UTC midnight."""
        return day_of(self.midnight_ns + self.start_ms * _NS_PER_MS)


class Lobster(TypedArchive):
    """LOBSTER message and orderbook files."""

    venue = "nasdaq"
    one_clock = True

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the member names decide
        """A ZIP with a member, or a CSV with a name, of LOBSTER's form."""
        return any(_NAME.fullmatch(Path(name).name) for name in _names(path))

    def symbols(self, path: Path) -> list[str]:
        """Return the tickers of the file names."""
        return sorted({session.symbol for session in _sessions(path)})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the sessions."""
        return sorted({session.utc_day for session in _sessions(path)})

    def members(self, path: Path) -> list[Path]:
        """Return the ZIP, or both files of the pair."""
        if zipfile.is_zipfile(path):
            return [path]
        (session,) = _sessions(path)
        return [path.with_name(session.messages), path.with_name(session.books)]

    def tables(self, path: Path) -> tuple[str, ...]:  # noqa: ARG002 - always all
        """Return all tables."""
        return ("trades", "orders", "quotes", "book_levels")

    def visible_levels(self, path: Path) -> int:
        """Return LEVELS of the file names."""
        return max(session.levels for session in _sessions(path))

    def preamble(self, path: Path) -> bytes:  # noqa: ARG002 - `keep` copies
        """Return nothing: there is no header."""
        return b""

    def scale(self, prices: Tally, sizes: Tally) -> Scale:  # noqa: ARG002 - sizes are shares
        """Return a cent where every visible order stands on one (Regulation NMS, Rule 612), else 0.0001 USD."""
        found = prices.step(1.0)
        on_cents = found.size % _CENT.size == 0
        return Scale((_CENT if on_cents else _UNIT).size, Decimal(1))

    def drafts(self, path: Path, symbol: str | None, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Draft]:
        """Yield the sessions' messages with their books. Raises `InputError` where the pair does not fit together."""
        for session in _sessions(path):
            if symbol in (None, session.symbol):
                yield from _drafts(path, session, chunk_bytes)

    def scan(self, path: Path, symbol: str, day: date) -> Head:
        """Look through the session; the file names say when it was recorded, halts included."""
        head = super().scan(path, symbol, day)
        named = [
            tuple(session.midnight_ns + ms * _NS_PER_MS for ms in (session.start_ms, session.end_ms))
            for session in _sessions(path)
            if (session.symbol, session.utc_day) == (symbol, day)
        ]
        return replace(head, coverage=merged([*named, *head.coverage]))  # type: ignore[list-item]

    def keep(self, path: Path, symbol: str, day: date, place: Path) -> Path:
        """Copy the pairs of the day's sessions into one ZIP; a ZIP of one session is copied whole."""
        sessions = _sessions(path)
        wanted = [session for session in sessions if (session.symbol, session.utc_day) == (symbol, day)]
        if not wanted:
            held = ", ".join(f"{session.symbol} on {session.utc_day}" for session in sessions)
            raise NoDataError(f"{path} holds {held}, not {symbol} on {day}")
        if len(sessions) == 1 and zipfile.is_zipfile(path):
            return Path(shutil.copyfile(path, place / path.name))
        kept = place / "archive.zip"
        with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in (name for session in wanted for name in (session.messages, session.books)):
                # A fixed date: the same files give the same bytes.
                target = zipfile.ZipInfo(re.sub(r"\.csv\.\w+$", ".csv", Path(name).name))
                target.compress_type = zipfile.ZIP_DEFLATED
                with _member(path, name) as file, archive.open(target, "w") as copy:
                    shutil.copyfileobj(file, copy, CHUNK_BYTES)
        return kept


def _names(path: Path) -> list[str]:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return [path.name]
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _sessions(path: Path) -> list[_Session]:
    """Return the sessions of a ZIP, or the one that a file is half of, by day and ticker."""
    names = _names(path)
    if names == [path.name]:
        other = {"message": "orderbook", "orderbook": "message"}
        beside = re.sub(r"_(message|orderbook)_", lambda match: f"_{other[match[1]]}_", path.name)
        names += [file.name for file in path.parent.glob(beside.partition(".csv")[0] + ".csv*") if file.is_file()]
    pairs: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        if match := _NAME.fullmatch(Path(name).name):
            pairs.setdefault((*match.groups()[:4], match[6]), {})[match[5]] = name
    if any(len(pair) != 2 for pair in pairs.values()):
        raise InputError(f"{path} lacks the message or the orderbook file of its session: both are needed")
    sessions = [
        _Session(
            key[0],
            date.fromisoformat(key[1]),
            int(key[2]),
            int(key[3]),
            int(key[4]),
            pair["message"],
            pair["orderbook"],
        )
        for key, pair in pairs.items()
    ]
    return sorted(sessions, key=lambda session: (session.day, session.ticker))


@contextmanager
def _member(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open one file of a session."""
    if not zipfile.is_zipfile(path):
        with opened(path.with_name(name)) as file:
            yield file
        return
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            yield cast(BinaryIO, member)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): fetch the file again") from error


def _drafts(path: Path, session: _Session, chunk_bytes: int) -> Iterator[Draft]:
    rows = max(1, chunk_bytes // (40 + 20 * session.levels))
    count = 0
    with ExitStack() as stack:
        messages, books = (stack.enter_context(_member(path, name)) for name in (session.messages, session.books))
        while True:
            lines, book_lines = (list(islice(file, rows)) for file in (messages, books))
            if len(lines) != len(book_lines):
                have = (count + len(lines) + sum(1 for _ in messages), count + len(book_lines) + sum(1 for _ in books))
                raise InputError(
                    f"{path} has {have[0]} messages but {have[1]} book rows: the files are not of one session, or cut"
                )
            if not lines:
                return
            yield _draft(path, session, lines, book_lines, count)
            count += len(lines)


def _draft(path: Path, session: _Session, lines: list[bytes], book_lines: list[bytes], first: int) -> Draft:
    fields, books = split(b"".join(lines), ",", 6), split(b"".join(book_lines), ",", 4 * session.levels)
    if not len(lines) == len(fields.start) == len(books.start):
        raise InputError(f"the message or the orderbook file of {path} has an empty line: the rows would not fit")
    faults = np.where((fields.widths == 6) & (books.widths == 4 * session.levels), 0, Fault.WRONG_COLUMNS)
    if not (lines[-1].endswith(b"\n") and book_lines[-1].endswith(b"\n")):
        faults[-1] = Fault.TORN_LINE
    times = _seconds(fields.decimals(0))
    times = np.where(times == NO_TIME, NO_TIME, times + session.midnight_ns)

    def payload(row: int) -> bytes:
        return fields.line(row) + b"\n" + books.line(row)

    return Draft(times, times, faults.astype(np.uint8), lambda: _pieces(fields, books, session, first), payload)


def _seconds(numbers: Decimals) -> np.ndarray:
    """Return seconds of a day as ns, `NO_TIME` for what is none."""
    values, whole = to_integers(numbers._replace(exponent=numbers.exponent + 9))
    return np.where(whole & (values >= 0) & (values < _LONGEST_DAY_NS), values, NO_TIME)


def _pieces(fields: Fields, books: Fields, session: _Session, first: int) -> list[Piece]:
    (kind, _), (order_id, _), (size, _), (price, _), (side, _) = read = [fields.integers(at) for at in range(1, 6)]
    faults = np.zeros(len(kind), np.uint8)
    faults[~np.isin(side, (1, -1))] = Fault.UNKNOWN_SIDE
    faults[(kind < ADD) | (kind > HALT)] = Fault.UNKNOWN_KIND
    faults[~np.logical_and.reduce([whole for _, whole in read])] = Fault.MALFORMED_NUMBER
    messages = _Messages(kind, order_id, size, price, side, faults)
    return [*messages.orders(), messages.trades(first), _windows(books, session, first)]


class _Messages(NamedTuple):
    """Columns of the message file."""

    kind: np.ndarray
    order_id: np.ndarray
    size: np.ndarray
    price: np.ndarray
    side: np.ndarray
    faults: np.ndarray

    def orders(self) -> list[Piece]:
        """Return all messages; of halts the price is a mark (-1 halted, 0 quoting, 1 trading) and stays as it is."""
        is_halt = self.kind == HALT
        rows, halts = np.flatnonzero(~is_halt), np.flatnonzero(is_halt)
        marks = {"price": self.price[halts], "size": self.size[halts]}
        return [
            self._piece("orders", rows, self._order(rows), self.kind[rows] <= EXECUTE),
            Piece("orders", halts, self._order(halts) | marks, {}, {}, self.faults[halts]),
        ]

    def _order(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        kinds = {name: getattr(self, name)[rows].astype(np.int8) for name in ("kind", "side")}
        return kinds | {"order_id": self.order_id[rows], "flags": np.zeros(len(rows), np.uint8)}

    def trades(self, first: int) -> Piece:
        """Return the executions; the file names the resting side. A cross print takes no order of the book."""
        rows = np.flatnonzero(np.isin(self.kind, (EXECUTE, EXECUTE_HIDDEN, CROSS)))
        flags = np.where(self.kind[rows] == CROSS, np.uint8(Flag.OFF_MARKET), np.uint8(0))
        side = np.where(self.side[rows] > 0, np.int8(-1), np.int8(1))
        columns: dict[str, np.ndarray] = {"trade_id": first + 1 + rows, "side": side, "flags": flags}
        return self._piece("trades", rows, columns, np.zeros(len(rows), np.bool_))

    def _piece(self, table: str, rows: np.ndarray, columns: dict[str, np.ndarray], shapes_grid: np.ndarray) -> Piece:
        prices, sizes = {"price": of_integers(self.price[rows], -4)}, {"size": of_integers(self.size[rows], 0)}
        return Piece(table, rows, columns, prices, sizes, self.faults[rows], shapes_grid)


def _windows(books: Fields, session: _Session, first: int) -> Piece:
    parts = [books.integers(column) for column in range(4 * session.levels)]
    values = np.stack([value for value, _ in parts], axis=1).reshape(-1, session.levels, 4)
    whole = np.logical_and.reduce([each for _, each in parts])
    prices, sizes = values[:, :, 0::2], values[:, :, 1::2]
    absent = np.abs(prices) == _EMPTY
    faults = np.where(whole, 0, Fault.MALFORMED_NUMBER).astype(np.uint8)
    faults[((sizes == 0) & ~absent).any(axis=(1, 2)) & whole] = Fault.NOT_POSITIVE
    rows = np.arange(len(values))
    columns: dict[str, np.ndarray] = {"update_id": first + 1 + rows, "event": first + rows}
    columns["flags"] = np.zeros(len(rows), np.uint8)
    shown = (
        {"price": of_integers(np.where(absent, 0, prices), -4)},
        {"size": of_integers(np.where(absent, 0, sizes), 0)},
    )
    return Piece("books", rows, columns, *shown, faults, np.zeros(len(rows), np.bool_))
