"""One day of raw records to typed ticks on the day's integer grid.

The raw log is read once, in arrival order. Receive times are taken as they are while they rise; where the recorder's
clock stepped back, rows keep the latest time seen and are flagged BAD_CLOCK, because the order of arrival is what is
certain.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from synth_pipeline import schema
from synth_pipeline.archives import Rows
from synth_pipeline.archives.rawlog import CONTINUES, SILENCE_NS, Kind, Record
from synth_pipeline.errors import BadMessage, InputError, NoDataError
from synth_pipeline.schema import Flag, Scale
from synth_pipeline.ticks import book as books
from synth_pipeline.ticks import decimals
from synth_pipeline.ticks.assemble import Arrival, Assembler, Hole, Rejected
from synth_pipeline.venues import BookUpdate, Ignored, Message, Quote, Trade, Venue

Columns = dict[str, np.ndarray]
_STREAMS = ("trades", "book_levels", "quotes")


@dataclass(frozen=True)
class Opening:
    """The market as it stood at the day's first moment: yesterday's close."""

    bids: np.ndarray
    """Shape (levels, 2): ticks and lots of `scale`."""
    asks: np.ndarray
    quote: np.ndarray | None
    """bid price, bid size, ask price, ask size, update id in ticks and lots; None when unknown."""
    scale: Scale
    update_id: int
    trade_id: int | None


@dataclass(frozen=True)
class DayTicks:
    """The tick tables of one instrument and UTC day."""

    tables: dict[str, Columns]
    """By name, columns as in `schema`; string columns are object arrays."""
    scale: Scale
    coverage: list[tuple[int, int]]
    """Half-open stretches in which the recorder ran."""
    visible_levels: int = 0
    """Levels a side that the source shows; 0 when all."""
    close_update_id: int | None = None
    """Final update id of the day, None when the book was unknown at its end."""
    counts: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """What every file of the day carries besides the scale."""
        close = {} if self.close_update_id is None else {"close_update_id": str(self.close_update_id)}
        coverage = json.dumps(self.coverage)
        return {"visible_levels": str(self.visible_levels), "coverage": coverage} | close


def ingest_rows(rows: Rows) -> DayTicks:
    """Take over the rows of an archive, whose own stream of quotes and level changes is the book."""
    rejected = [Rejected(*row) for row in rows.quarantine]
    tables = {name: dict(columns) for name, columns in rows.tables.items()}
    start, end = rows.coverage[0][0], rows.coverage[-1][1]
    absent = [Hole(start, end, name, "not_recorded", -1) for name in _STREAMS if name not in tables]
    tables |= {hole.stream: schema.TICK_TABLES[hole.stream].empty() for hole in absent}
    tables["gaps"] = _table_of(schema.GAPS, sorted([*absent, *_silences(rows.coverage)]))
    tables["quarantine"] = _table_of(schema.QUARANTINE, rejected)
    counts = {
        "messages": max(len(columns["recv_ns"]) for columns in rows.tables.values()),
        "quarantined": dict(Counter(row.reason for row in rejected)),
        "flagged": _flagged(tables),
        "gaps": 0,
        "trade_gaps": 0,
        "quotes_from": "stream",
        "opened_from_yesterday": False,
    }
    return DayTicks(tables, rows.scale, rows.coverage, rows.visible_levels, counts=counts)


class _Reader:
    """Feeds records through the venue's parser into the assembler."""

    def __init__(self, venue: Venue, symbol: str, day_start: int, find_opening: Callable[[], Opening | None]) -> None:
        self.venue, self.symbol, self.day_start, self.find_opening = venue, symbol, day_start, find_opening
        self.opening: Opening | None = None
        self.rows = Assembler(venue.sequence_rule())
        self.others: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.accepted = 0
        self.named = 0
        self.latest_ns = 0
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.continued_before = self.continues_after = False

    def feed(self, seq: int, record: Record) -> None:
        if record.kind == Kind.EVENT:
            self._note(record)
            return
        at = self._clock(seq, record)
        try:
            messages = self.venue.parse(record.payload, record.received_ns)
        except BadMessage as error:
            self.rows.reject(at, "raw", error.reason, str(error))
            return
        for message in messages:
            self._accept(at, message)

    def _accept(self, at: Arrival, message: Message) -> None:
        if message.symbol is not None and message.symbol.upper() != self.symbol:
            self.others[message.symbol] += 1
            return
        if message.symbol is None and isinstance(message, BookUpdate) and self.others:
            self.rows.reject(at, "book_levels", "unnamed_snapshot", "it may be of any of the capture's symbols")
            return
        self.accepted += 1
        self.named += message.symbol is not None
        self._take(at, message)

    def _note(self, record: Record) -> None:
        if record.payload != CONTINUES:
            return
        if self.latest_ns:
            self.continues_after = True
            return
        self.continued_before = True
        self.opening = self.find_opening()
        if self.opening is not None:
            last_quote = None if self.opening.quote is None else int(self.opening.quote[4])
            self.rows.resume(self.opening.update_id, self.day_start, self.opening.trade_id, last_quote)

    def _clock(self, seq: int, record: Record) -> Arrival:
        recv_ns = max(record.received_ns, self.latest_ns)
        if not self.latest_ns or recv_ns - self.latest_ns > SILENCE_NS:
            self.starts.append(recv_ns)
            self.ends.append(recv_ns)
        self.latest_ns = self.ends[-1] = recv_ns
        return Arrival(recv_ns, seq, Flag.BAD_CLOCK if recv_ns != record.received_ns else 0, record.payload)

    def _take(self, at: Arrival, message: Message) -> None:
        match message:
            case BookUpdate():
                self.rows.add_book(at, message)
            case Quote():
                self.rows.add_quote(at, message)
            case Trade():
                self.rows.add_trade(at, message)
            case Ignored():
                self.ignored[message.kind] += 1

    def coverage(self) -> list[tuple[int, int]]:
        """Stretches of recording; one that goes on over the day's border reaches it."""
        found = [[start, end + 1] for start, end in zip(self.starts, self.ends, strict=True)]
        if found and self.continued_before:
            found[0][0] = self.day_start
        if found and self.continues_after:
            found[-1][1] = self.day_start + schema.NS_PER_DAY
        return [(start, end) for start, end in found]


def ingest_frames(
    records: Iterable[Record], venue: Venue, symbol: str, day_start: int, find_opening: Callable[[], Opening | None]
) -> DayTicks:
    """Turn one day's raw records into tick tables.

    `find_opening` is asked for yesterday's close only when the log says that the recording goes on from yesterday.
    Raises `InputError` when the records are of another venue, `NoDataError` when none is of the symbol.
    """
    reader = _Reader(venue, symbol, day_start, find_opening)
    for seq, record in enumerate(records):
        reader.feed(seq, record)
    _check_belongs(reader)
    coverage = reader.coverage()
    reader.rows.finish(coverage[-1][1])
    return _typed(reader, coverage)


def _check_belongs(reader: _Reader) -> None:
    reasons = Counter(row.reason for row in reader.rows.rejected)
    if reasons["wrong_venue"] > reader.accepted:
        detail = next(row.detail for row in reader.rows.rejected if row.reason == "wrong_venue")
        raise InputError(
            f"the capture is not of venue {type(reader.venue).__module__.rpartition('.')[2]} ({detail}): check --venue"
        )
    if not reader.named:
        if reader.others:
            raise NoDataError(
                f"no message of {reader.symbol}: the capture holds {', '.join(sorted(reader.others))}; check --symbol"
            )
        detail = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)) or "no records"
        raise NoDataError(f"no readable message of {reader.symbol} ({detail}): check the file, --venue and --symbol")


def _typed(reader: _Reader, coverage: list[tuple[int, int]]) -> DayTicks:
    rows, opening, day_start = reader.rows, reader.opening, reader.day_start
    numbers = _Numbers(rows)
    if opening is not None:
        numbers.include(opening)
    grid = numbers.grid()
    scale = Scale(decimals.as_decimal(grid[0]), decimals.as_decimal(grid[1]), reader.venue.inverse)
    tables = {
        "trades": _trades(rows, numbers, grid),
        "book_levels": _book_levels(rows, numbers, grid, opening, day_start),
        "quotes": _quotes(rows, numbers, grid, opening, day_start),
    }
    recorded_quotes = len(rows.quotes) > 0
    if not recorded_quotes and len(tables["book_levels"]["recv_ns"]):
        tables["quotes"] = books.quotes_of(books.replay(tables["book_levels"]))
    absent = [] if rows.trades else [Hole(coverage[0][0], coverage[-1][1], "trades", "not_recorded", -1)]
    tables["gaps"] = _table_of(schema.GAPS, sorted([*rows.holes, *absent, *_silences(coverage)]))
    tables["quarantine"] = _table_of(schema.QUARANTINE, sorted(rows.rejected))
    counts = {
        "messages": reader.accepted,
        "book_events": dict(rows.counts),
        "ignored": dict(reader.ignored),
        "other_symbols": dict(reader.others),
        "quarantined": dict(Counter(row.reason for row in rows.rejected)),
        "flagged": _flagged(tables),
        "gaps": rows.counts["gaps"],
        "trade_gaps": sum(hole.stream == "trades" for hole in rows.holes),
        "quotes_from": "stream" if recorded_quotes else "book",
        "opened_from_yesterday": opening is not None,
    }
    return DayTicks(tables, scale, coverage, close_update_id=rows.rule.last_id, counts=counts)


def _flagged(tables: dict[str, Columns]) -> dict[str, int]:
    """Count the rows that are kept under a mark of doubt."""
    flags = np.concatenate([columns["flags"] for columns in tables.values() if "flags" in columns])
    return {(flag.name or "").lower(): int((flags & flag > 0).sum()) for flag in (Flag.BAD_CLOCK, Flag.OFF_MARKET)}


def _silences(coverage: list[tuple[int, int]]) -> list[Hole]:
    return [Hole(before[1] - 1, after[0], "all", "silence", -1) for before, after in pairwise(coverage)]


def _table_of(table: schema.Table, rows: Iterable[tuple[Any, ...]]) -> Columns:
    rows = list(rows)
    columns = zip(*rows, strict=True) if rows else ((),) * len(table.columns)
    return {
        column.name: np.array(values, dtype=object if column.dtype in {"string", "binary"} else column.dtype)
        for column, values in zip(table.columns, columns, strict=True)
    }


class _Numbers:
    """Every price and size of the day as integers of 1e-8, with those that are no plain decimals marked."""

    def __init__(self, rows: Assembler) -> None:
        levels = [level for event in rows.book for side in (event.bids, event.asks) for level in side]
        self.book = self._pair([level[0] for level in levels], [level[1] for level in levels])
        self.trades = self._pair([trade.price for _, trade in rows.trades], [trade.size for _, trade in rows.trades])
        quotes = [quote for _, quote in rows.quotes]
        self.bids = self._pair([quote.bid_price for quote in quotes], [quote.bid_size for quote in quotes])
        self.asks = self._pair([quote.ask_price for quote in quotes], [quote.ask_size for quote in quotes])
        self._opening = np.empty((0, 2), np.int64)

    @staticmethod
    def _pair(prices: list[str], sizes: list[str]) -> np.ndarray:
        """Shape (rows, 3): price, size, whether both are plain decimals."""
        price, price_valid = decimals.to_integers(prices)
        size, size_valid = decimals.to_integers(sizes)
        return np.stack([price, size, (price_valid & size_valid).astype(np.int64)], axis=1)

    def include(self, opening: Opening) -> None:
        """Let the carried-in book take part in finding the grid."""
        levels = [opening.bids, opening.asks]
        if opening.quote is not None:
            levels.append(opening.quote[:4].reshape(2, 2))
        self._opening = wire_units(np.concatenate(levels), opening.scale)

    def grid(self) -> tuple[int, int]:
        """Tick and lot in 1e-8."""
        prices, sizes = np.concatenate([each[:, :2] for each in (self.book, self.trades, self.bids, self.asks)]).T
        tick, lot = decimals.infer_grid(prices, decimals.PRICE_MAJORITY), decimals.infer_grid(sizes, majority=1.0)
        # Yesterday's book lies on yesterday's grid, which may be finer: it is carried over exactly.
        carried_prices, carried_sizes = self._opening.T
        return (
            decimals.infer_grid(np.append(carried_prices, tick), majority=1.0) if carried_prices.size else tick,
            decimals.infer_grid(np.append(carried_sizes, lot), majority=1.0) if carried_sizes.size else lot,
        )


def wire_units(levels: np.ndarray, scale: Scale) -> np.ndarray:
    """Turn (rows, 2) of ticks and lots into units of 1e-8."""
    factors = [int(size.scaleb(decimals.WIRE_DECIMALS)) for size in (scale.tick_size, scale.lot_size)]
    return levels[:, :2] * np.array(factors, dtype=np.int64)


def _fits(pairs: np.ndarray, grid: tuple[int, int], minimum_size: int) -> np.ndarray:
    """Return a reason per row: empty where price and size are on the grid and positive."""
    reasons = np.full(len(pairs), "", dtype=object)
    reasons[pairs[:, 0] % grid[0] != 0] = "off_tick"
    reasons[(pairs[:, 0] <= 0) | (pairs[:, 1] < minimum_size)] = "not_positive"
    reasons[pairs[:, 2] == 0] = "malformed_number"
    return reasons


def _quarantine(rows: Assembler, stream: str, reason: str, at: tuple[int, int], detail: str, payload: bytes) -> None:
    rows.rejected.append(Rejected(at[0], at[1], stream, reason, detail, payload))


def _trades(rows: Assembler, numbers: _Numbers, grid: tuple[int, int]) -> Columns:
    reasons = _fits(numbers.trades, grid, minimum_size=1)
    for row in np.flatnonzero(reasons != "").tolist():
        at, trade = rows.trades[row]
        _quarantine(rows, "trades", reasons[row], at[:2], f"price {trade.price} size {trade.size}", at.payload)
    keep = np.flatnonzero(reasons == "")
    kept = [rows.trades[row] for row in keep.tolist()]
    flags = [at.flags | Flag.LAST | (Flag.OFF_MARKET if trade.off_market else 0) for at, trade in kept]
    return {
        "recv_ns": np.array([at.recv_ns for at, _ in kept], dtype=np.int64),
        "event_ns": np.array([trade.event_ns for _, trade in kept], dtype=np.int64),
        "seq": np.array([at.seq for at, _ in kept], dtype=np.int64),
        "trade_id": np.array([trade.trade_id for _, trade in kept], dtype=np.int64),
        "price": numbers.trades[keep, 0] // grid[0],
        "size": numbers.trades[keep, 1] // grid[1],
        "side": np.array([trade.side for _, trade in kept], dtype=np.int8),
        "flags": np.array(flags, dtype=np.uint8),
    }


def _quotes(
    rows: Assembler, numbers: _Numbers, grid: tuple[int, int], opening: Opening | None, day_start: int
) -> Columns:
    reasons = _fits(numbers.bids, grid, minimum_size=0)
    ask_reasons = _fits(numbers.asks, grid, minimum_size=0)
    reasons = np.where(reasons == "", ask_reasons, reasons)
    crossed = (numbers.bids[:, 0] >= numbers.asks[:, 0]) & (numbers.bids[:, 1] > 0) & (numbers.asks[:, 1] > 0)
    reasons[(reasons == "") & crossed] = "crossed_quote"
    for row in np.flatnonzero(reasons != "").tolist():
        at, quote = rows.quotes[row]
        detail = f"bid {quote.bid_price} x {quote.bid_size}, ask {quote.ask_price} x {quote.ask_size}"
        _quarantine(rows, "quotes", reasons[row], at[:2], detail, at.payload)
    keep = np.flatnonzero(reasons == "")
    kept = [rows.quotes[row] for row in keep.tolist()]
    columns = {
        "recv_ns": np.array([at.recv_ns for at, _ in kept], dtype=np.int64),
        "event_ns": np.array([quote.event_ns for _, quote in kept], dtype=np.int64),
        "seq": np.array([at.seq for at, _ in kept], dtype=np.int64),
        "update_id": np.array([quote.update_id for _, quote in kept], dtype=np.int64),
        "bid_price": numbers.bids[keep, 0] // grid[0],
        "bid_size": numbers.bids[keep, 1] // grid[1],
        "ask_price": numbers.asks[keep, 0] // grid[0],
        "ask_size": numbers.asks[keep, 1] // grid[1],
        "flags": np.array([at.flags | Flag.LAST for at, _ in kept], dtype=np.uint8),
    }
    if opening is None or opening.quote is None:
        return columns
    sides = np.concatenate([wire_units(opening.quote[None, side : side + 2], opening.scale) for side in (0, 2)])
    first = [day_start, day_start, -1, opening.quote[4], *(sides // np.array(grid)).ravel(), Flag.LAST | Flag.SNAPSHOT]
    return {
        name: np.concatenate([np.array([value], dtype=columns[name].dtype), columns[name]])
        for name, value in zip(schema.QUOTES.names, first, strict=True)
    }


def _book_levels(
    rows: Assembler, numbers: _Numbers, grid: tuple[int, int], opening: Opening | None, day_start: int
) -> Columns:
    sides = [(len(event.bids), len(event.asks)) for event in rows.book]
    event = np.repeat(np.arange(len(sides)), [bids + asks for bids, asks in sides])
    side = np.concatenate([np.repeat(np.array([1, -1], np.int8), pair) for pair in sides] or [np.empty(0, np.int8)])
    reasons = _fits(numbers.book, grid, minimum_size=0)
    for row in np.flatnonzero(reasons != "").tolist():
        at = rows.book[event[row]]
        price, size = (decimals.as_decimal(int(value)) for value in numbers.book[row, :2])
        detail = f"update {at.update_id}: {'bid' if side[row] > 0 else 'ask'} price {price} size {size}"
        _quarantine(rows, "book_levels", reasons[row], (at.recv_ns, at.seq), detail, b"")
    keep = reasons == ""
    event, side, pairs = event[keep], side[keep], numbers.book[keep]
    shared = {
        name: np.array([getattr(row, name) for row in rows.book], dtype=np.int64)[event]
        for name in ("recv_ns", "event_ns", "seq", "update_id", "flags")
    }
    flags = shared.pop("flags")
    edge = event[1:] != event[:-1]
    last, first = np.append(edge, True), np.insert(edge, 0, True)
    flags[last[: len(flags)]] |= Flag.LAST
    flags[~first[: len(flags)]] &= ~int(Flag.GAP_BEFORE)
    columns = shared | {
        "side": side,
        "price": pairs[:, 0] // grid[0],
        "size": pairs[:, 1] // grid[1],
        "flags": flags.astype(np.uint8),
    }
    return columns if opening is None else _with_opening(columns, opening, grid, day_start)


def _with_opening(columns: Columns, opening: Opening, grid: tuple[int, int], day_start: int) -> Columns:
    levels = np.concatenate([opening.bids, opening.asks])
    count = len(levels)
    prices, sizes = (wire_units(levels, opening.scale) // np.array(grid)).T
    flags = np.full(count, Flag.SNAPSHOT, dtype=np.uint8)
    flags[-1:] |= np.uint8(Flag.LAST)
    first = {
        "recv_ns": np.full(count, day_start),
        "event_ns": np.full(count, day_start),
        "seq": np.full(count, -1),
        "update_id": np.full(count, opening.update_id),
        "side": np.repeat(np.array([1, -1], np.int8), [len(opening.bids), len(opening.asks)]),
        "price": prices,
        "size": sizes,
        "flags": flags,
    }
    return {name: np.concatenate([first[name], columns[name]]) for name in columns}
