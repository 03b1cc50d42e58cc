"""Any CSV of ticks with a header: trades, quotes, level changes or visible levels, by what its columns are called.

The meaning of a column is read from its name (`price`, `qty`, `BidSize1`, `best_ask_price`, …) or said by the user:
`--columns time=DateTime,price=Price,size=Volume`, with numbers from 1 for files without a header. Times are epochs in
s, ms, µs or ns, or dates with a time of day in UTC or in the zone that the user names. What the user said is kept as
the first line of the stored file:

    # synth-pipeline {"columns": {"time": "DateTime"}, "timezone": "America/Chicago"}

A file is trades with a price and a size; quotes with prices and sizes of bid and ask; level changes with a price, a
size and a side that says bid or ask (rows of one time are one event); windows with numbered levels. Nothing is
invented: quotes without sizes are refused, trades without a side have side 0, without ids the row's number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth_pipeline.archives import Form, columns
from synth_pipeline.archives.csv import CsvArchive, Layout, Reading, first_lines, peek
from synth_pipeline.archives.drafts import Piece
from synth_pipeline.archives.fields import NO_TIME, Fields, split
from synth_pipeline.archives.wall_time import WallClock
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Flag

_NOTE = b"# synth-pipeline "
_ROLES = {
    "recv_time": "localtimestamp localtime recvtime receivetime receivedtime tsrecv recvns localns",
    "event_time": "eventtime exchangetime exchangetimestamp exchtime tsevent transactiontime tradetime exchts",
    "time": "timestamp time ts datetime t timestampms timestampus timestampns timems timeus timens unixtime epoch",
    "date": "date day tradedate",
    "price": "price px p last lastprice tradeprice executionprice",
    "size": "size qty quantity volume vol amount q v lastsize tradesize lastqty",
    "side": "side direction takerside aggressor aggressorside buysell bidask",
    "buyer_maker": "isbuyermaker buyermaker isbuyermarketmaker",
    "trade_id": "tradeid id tid aggtradeid trdmatchid",
    "bid_price": "bid bidprice bestbid bestbidprice bidpx",
    "bid_size": "bidsize bidqty bidvolume bidvol bidamount bestbidqty bestbidsize bestbidvolume bidsz bidquantity",
    "ask_price": "ask askprice bestask bestaskprice askpx offer offerprice",
    "ask_size": "asksize askqty askvolume askvol askamount bestaskqty bestasksize bestaskvolume asksz askquantity",
    "symbol": "symbol ticker instrument pair sym",
    "is_snapshot": "issnapshot snapshot",
}
"""What a column may be called, letters and digits only, the first name of a role first."""
_QUOTE = ("bid_price", "bid_size", "ask_price", "ask_size")
_LEVEL = re.compile(
    r"(bid|ask)s?(price|px|size|qty|sz|volume|vol|amount|quantity|)(\d+)(price|px|size|qty|sz|volume|vol|amount|quantity|)"
)
_PRICES = ("price", "px", "")
_BARS = {"open", "high", "low", "close"}
_SIDES = ("buy", "sell", "b", "s", "1", "-1", "buyer", "seller", "long", "short")
_NO_SIDE = ("", "0", "n", "none", "unknown", "nan", "na", "u")
_LEVEL_SIDES = ("bid", "ask", "b", "a", "bids", "asks")


@dataclass(frozen=True)
class _Table(Layout):
    """How one file is written, and what its columns mean."""

    roles: tuple[tuple[str, int], ...] = ()
    levels: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()
    """Columns of price and size of ask and bid, level by level."""
    shape: str = ""
    wall: WallClock | None = None

    def column(self, role: str) -> int | None:
        return dict(self.roles).get(role)


class GenericCsv(CsvArchive):
    """Any CSV of ticks."""

    def __init__(self, form: Form | None = None) -> None:
        self._form = form or Form()

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:
        """A header that tells times and trades, quotes or levels, and no other format's; or a form noted on top."""
        if head.startswith(_NOTE):
            return True
        if _claimed(path, head):
            return False
        try:
            return bool(_table(path, head, Form()).shape)
        except InputError:
            return False

    def layout(self, path: Path) -> _Table:
        """Return the columns and what they mean. Raises `InputError` where that cannot be told."""
        head = peek(path)
        return _table(path, head, self._form or _noted(path, head))

    def preamble(self, path: Path) -> bytes:
        """Return comments and header, with what the user said on top."""
        preamble = self.layout(path).preamble
        return _note(self._form) + _without_note(preamble) if self._form else preamble

    def tables(self, path: Path) -> tuple[str, ...]:
        """Return what the shape holds."""
        return {"windows": ("quotes", "book_levels")}.get(shape := self.layout(path).shape, (shape,))

    def visible_levels(self, path: Path) -> int:
        """Return how many levels the columns number."""
        return len(self.layout(path).levels)

    def read(self, path: Path, layout: Layout, fields: Fields, first: int) -> Reading:  # noqa: ARG002
        """Read rows of any shape."""
        assert isinstance(layout, _Table)
        received, happened = (_times(layout, fields, role) for role in ("recv_time", "event_time"))
        plain = _times(layout, fields, "time")
        recv_ns = next(times for times in (received, plain, happened) if times is not None)
        event_ns = next(times for times in (happened, plain, received) if times is not None)
        one_clock = received is None
        return Reading(recv_ns, event_ns, lambda: [_piece(layout, fields, first, recv_ns, one_clock=one_clock)])


def _times(table: _Table, fields: Fields, role: str) -> np.ndarray | None:
    """Return the times of a column in UTC, None where there is no such column."""
    column = table.column(role)
    if column is None:
        return None
    date = table.column("date")
    if role == "time" and date is not None:
        days, clocks = fields.dates(date), fields.clock_times(column)
        times = np.where((days == NO_TIME) | (clocks == NO_TIME), NO_TIME, days + clocks)
        is_local = np.ones(len(times), np.bool_)
    else:
        times, is_local = fields.times(column)
    return times if table.wall is None else np.where(is_local, table.wall.to_utc(times), times)


def _piece(table: _Table, fields: Fields, first: int, recv_ns: np.ndarray, *, one_clock: bool) -> Piece:
    piece = _rows(table, fields, first, recv_ns)
    marks = piece.columns["flags"] | np.uint8(Flag.BAD_CLOCK if one_clock else 0)
    return piece._replace(columns={**piece.columns, "flags": marks})


def _rows(table: _Table, fields: Fields, first: int, recv_ns: np.ndarray) -> Piece:
    roles = dict(table.roles)
    if table.shape == "windows":
        asks, bids = zip(*table.levels, strict=True)
        return columns.windows(fields, asks, bids, first)
    if table.shape == "quotes":
        bid, ask = ((roles[f"{side}_price"], roles[f"{side}_size"]) for side in ("bid", "ask"))
        return columns.quotes(fields, bid, ask, columns.ids(fields, roles.get("trade_id"), first))
    if table.shape == "book_levels":
        side = columns.sides(fields, roles["side"], _LEVEL_SIDES)
        is_snapshot = np.zeros(len(side), np.bool_)
        if "is_snapshot" in roles:
            is_snapshot = fields.one_of(roles["is_snapshot"], ("true", "1", "t", "yes")) >= 0
        flags = np.where(is_snapshot, np.uint8(Flag.SNAPSHOT), np.uint8(0))
        return columns.levels(fields, roles["price"], roles["size"], side, flags, 2 * recv_ns + is_snapshot, first)
    return columns.trades(fields, roles["price"], roles["size"], _aggressors(table, fields), _ids(table, fields, first))


def _ids(table: _Table, fields: Fields, first: int) -> np.ndarray:
    return columns.ids(fields, table.column("trade_id"), first)


def _aggressors(table: _Table, fields: Fields) -> np.ndarray:
    side, maker = table.column("side"), table.column("buyer_maker")
    if maker is not None:
        return columns.sides(fields, maker, ("false", "true", "0", "1"))
    return np.zeros(len(fields.start), np.int8) if side is None else columns.sides(fields, side, _SIDES, _NO_SIDE)


def _note(form: Form) -> bytes:
    return _NOTE + json.dumps({"columns": dict(form.columns), "timezone": form.timezone}).encode() + b"\n"


def _without_note(preamble: bytes) -> bytes:
    return preamble.partition(b"\n")[2] if preamble.startswith(_NOTE) else preamble


def _noted(path: Path, head: bytes) -> Form:
    """Return the form that stands on top of a stored file."""
    if not head.startswith(_NOTE):
        return Form()
    try:
        noted = json.loads(head[len(_NOTE) :].partition(b"\n")[0])
        return Form(dict(noted["columns"]), str(noted["timezone"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} begins with a note on its form that cannot be read: take the first line off"
        ) from error


def _claimed(path: Path, head: bytes) -> bool:
    """Whether another table format is more specific about this file."""
    from synth_pipeline.archives import binance_vision, bitstamp_orders, bybit_public, merged_csv, tardis

    others: tuple[type[CsvArchive] | type[merged_csv.MergedCsv], ...] = (
        binance_vision.BinanceVision,
        bitstamp_orders.BitstampOrders,
        bybit_public.BybitPublic,
        merged_csv.MergedCsv,
        tardis.Tardis,
    )
    return any(other.matches(path, head) for other in others)


def _table(path: Path, head: bytes, form: Form) -> _Table:
    preamble, line = first_lines(head)
    delimiter = max(",;\t|", key=lambda mark: line.count(mark.encode()))
    fields = [text.strip().strip('"') for text in line.decode("utf-8", "replace").strip().split(delimiter)]
    has_header = not any(re.fullmatch(r"[-+]?\d[\d.:\-/ TeE+]*", text) for text in fields)
    names = tuple(name.lower() for name in fields) if has_header else tuple(str(n + 1) for n in range(len(fields)))
    skipped = preamble + (line if has_header else b"")
    roles = _told(path, names, form) | {"": -1}
    for role, column in _sniffed(names).items():
        if role not in roles and column not in roles.values():
            roles[role] = column
    del roles[""]
    roles = _with_time(roles, head[len(skipped) :], delimiter, len(names))
    levels = _levels(names)
    shape = _shape(roles, levels, head[len(skipped) :], delimiter, len(names))
    if not shape or not {"time", "recv_time", "event_time"} & set(roles) or set(names) >= _BARS:
        raise InputError(_advice(path, names, roles))
    wall = WallClock(form.timezone) if form.timezone else None
    symbol = names[roles["symbol"]] if "symbol" in roles else None
    return _Table(names, skipped, delimiter, symbol, tuple(roles.items()), levels, shape, wall)


def _told(path: Path, names: tuple[str, ...], form: Form) -> dict[str, int]:
    """Return the columns that the user named, by name or by number from 1."""
    roles = {}
    for role, name in form.columns.items():
        if role not in _ROLES:
            raise InputError(
                f"--columns {role}={name}: {role} is no meaning of a column; known are {', '.join(_ROLES)}"
            )
        if name.lower() in names:
            roles[role] = names.index(name.lower())
        elif name.isdigit() and 0 < int(name) <= len(names):
            roles[role] = int(name) - 1
        else:
            raise InputError(f"--columns {role}={name}: {path} has no column {name!r}; it has {', '.join(names)}")
    return roles


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name)


def _sniffed(names: Sequence[str]) -> dict[str, int]:
    plain = [_plain(name) for name in names]
    found: dict[str, int] = {}
    for role, words in _ROLES.items():
        for word in words.split():
            if word in plain and plain.index(word) not in found.values():
                found[role] = plain.index(word)
                break
    return found


def _first_record(rest: bytes, delimiter: str, width: int) -> Fields:
    return split(rest.partition(b"\n")[0] + b"\n", delimiter, width)


def _with_time(roles: dict[str, int], rest: bytes, delimiter: str, width: int) -> dict[str, int]:
    """Settle what a date column is: half of the time, or all of it."""
    record = _first_record(rest, delimiter, width)
    if "date" not in roles or not len(record.start):
        return {role: column for role, column in roles.items() if role != "date"}
    if "time" in roles and record.clock_times(roles["time"])[0] != NO_TIME:
        return roles
    rest_of = {role: column for role, column in roles.items() if role != "date"}
    return rest_of if "time" in roles else rest_of | {"time": roles["date"]}


def _levels(names: Sequence[str]) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """Return the columns of numbered levels (`bids[0].price`, `ask_size_1`, `BidPx01`), best first."""
    found: dict[tuple[str, bool, int], int] = {}
    for column, name in enumerate(names):
        match = _LEVEL.fullmatch(_plain(name))
        if match is not None:
            found[match[1], (match[2] or match[4]) in _PRICES, int(match[3])] = column
    numbers = sorted({number for _, _, number in found})
    whole = [n for n in numbers if all((side, what, n) in found for side in ("ask", "bid") for what in (True, False))]
    return tuple(
        ((found["ask", True, n], found["ask", False, n]), (found["bid", True, n], found["bid", False, n]))
        for n in whole
    )


def _shape(roles: dict[str, int], levels: Sequence[object], rest: bytes, delimiter: str, width: int) -> str:
    if levels:
        return "windows"
    if all(role in roles for role in _QUOTE):
        return "quotes"
    if "price" not in roles or "size" not in roles:
        return ""
    record = _first_record(rest, delimiter, width)
    if (
        "side" in roles
        and len(record.start)
        and record.one_of(roles["side"], ("bid", "ask", "bids", "asks", "a"))[0] >= 0
    ):
        return "book_levels"
    return "trades"


def _advice(path: Path, names: Sequence[str], roles: dict[str, int]) -> str:
    if set(names) >= _BARS:
        return f"{path} holds bars, not ticks: read them with `synth-pipeline bars`"
    told = ", ".join(f"{role}={names[column]}" for role, column in roles.items()) or "none"
    return (
        f"{path} has the columns {', '.join(names[:20])}, of which {told} are understood: say the rest as "
        "--columns time=…,price=…,size=… (trades) or time,bid_price,bid_size,ask_price,ask_size (quotes)"
    )
