"""Every table, column, unit and flag: the one place.

Times are int64 nanoseconds since the Unix epoch, UTC. Prices and sizes of tick tables are exact integers: prices count
ticks, sizes count lots; the scale (`Scale`) stands in each file's metadata. Grid features are float64 in market units.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Literal, Self

import numpy as np
import pyarrow as pa

from synth_pipeline.errors import InputError

NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_SECOND

Dtype = Literal["int64", "int8", "uint8", "float64", "string", "binary"]


class Flag(enum.IntFlag):
    """Quality marks of one tick row (uint8); the vocabulary follows databento's DBN record flags."""

    LAST = 1
    """The last row of one exchange event: the book is consistent after it."""
    SNAPSHOT = 2
    """Part of a full book (or of the carried-in top of book), not a change."""
    GAP_BEFORE = 4
    """Something was lost between the row before and this one."""
    BAD_CLOCK = 8
    """`recv_ns` is not what the recorder wrote: its clock stepped back, or the source has one clock only."""
    OFF_MARKET = 16
    """A print that no order in the book took part in (insurance fund, liquidation transfer, hidden order)."""


class GridFlag(enum.IntFlag):
    """Quality marks of one grid row (uint8)."""

    GAP = 1
    """The bucket touches a gap of the recording: what the gap hides is NaN."""
    NO_BOOK = 2
    """Depth is not known at the label (no snapshot yet, or the recording has none): `imbalance_10` is NaN."""
    STALE = 4
    """No quote arrived in the bucket: the last one is carried forward."""
    ONE_SIDED = 8
    """The book had no bid or no ask at the label: mid, spread and what follows from them are NaN."""


class BarFlag(enum.IntFlag):
    """Quality marks of one bar (uint8)."""

    GAP_BEFORE = 1
    """Bars are missing between the row before and this one."""
    PARTIAL = 2
    """Something within the bar is missing (source bars, or a stretch of the recording): its values cover the rest."""


@dataclass(frozen=True)
class Column:
    """One column: its name, storage type and unit."""

    name: str
    dtype: Dtype
    unit: str


@dataclass(frozen=True)
class Table:
    """One table: its columns in order, and the columns it is sorted by."""

    name: str
    columns: tuple[Column, ...]
    sort: tuple[str, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        return pa.schema([pa.field(column.name, pa.type_for_alias(column.dtype)) for column in self.columns])

    def empty(self) -> dict[str, np.ndarray]:
        """Return zero rows of every numeric column."""
        return {column.name: np.empty(0, dtype=column.dtype) for column in self.columns}


_RECV = Column("recv_ns", "int64", "ns UTC, local receipt")
_EVENT = Column("event_ns", "int64", "ns UTC, exchange clock")
_SEQ = Column("seq", "int64", "arrival order within the day")
_FLAGS = Column("flags", "uint8", "schema.Flag")
_TICK_SORT = ("recv_ns", "seq")

TRADES = Table(
    "trades",
    (
        _RECV,
        _EVENT,
        _SEQ,
        Column("trade_id", "int64", "the venue's id"),
        Column("price", "int64", "ticks"),
        Column("size", "int64", "lots"),
        Column("side", "int8", "aggressor: 1 buys, -1 sells, 0 unknown"),
        _FLAGS,
    ),
    _TICK_SORT,
)
BOOK_LEVELS = Table(
    "book_levels",
    (
        _RECV,
        _EVENT,
        _SEQ,
        Column("update_id", "int64", "the venue's final update id of the event"),
        Column("side", "int8", "1 bid, -1 ask"),
        Column("price", "int64", "ticks"),
        Column("size", "int64", "lots now at the price; 0 removes the level"),
        _FLAGS,
    ),
    _TICK_SORT,
)
QUOTES = Table(
    "quotes",
    (
        _RECV,
        _EVENT,
        _SEQ,
        Column("update_id", "int64", "the venue's update id"),
        Column("bid_price", "int64", "ticks"),
        Column("bid_size", "int64", "lots; 0 when the side is empty"),
        Column("ask_price", "int64", "ticks"),
        Column("ask_size", "int64", "lots; 0 when the side is empty"),
        _FLAGS,
    ),
    _TICK_SORT,
)
ORDERS = Table(
    "orders",
    (
        _RECV,
        _EVENT,
        _SEQ,
        Column("order_id", "int64", "the venue's id; 0 for hidden orders"),
        Column(
            "kind", "int8", "1 add, 2 reduce, 3 delete, 4 execute, 5 execute hidden, 7 halt marker (LOBSTER's codes)"
        ),
        Column("side", "int8", "of the resting order: 1 buy, -1 sell"),
        Column("price", "int64", "ticks"),
        Column("size", "int64", "lots"),
        _FLAGS,
    ),
    _TICK_SORT,
)
GAPS = Table(
    "gaps",
    (
        Column("start_ns", "int64", "last moment before it that is known"),
        Column("end_ns", "int64", "first moment after it that is known"),
        Column("stream", "string", "trades, book_levels, quotes or all"),
        Column("reason", "string", "slug: sequence_gap, no_snapshot, silence, …"),
        Column("missing", "int64", "ids or messages lost; -1 when unknown"),
    ),
    ("start_ns",),
)
QUARANTINE = Table(
    "quarantine",
    (
        _RECV,
        _SEQ,
        Column("stream", "string", "where the row would have gone"),
        Column("reason", "string", "slug"),
        Column("detail", "string", "what was wrong, one line"),
        Column("payload", "binary", "as received"),
    ),
    ("recv_ns", "seq"),
)

TICK_TABLES = {table.name: table for table in (TRADES, BOOK_LEVELS, QUOTES, ORDERS, GAPS, QUARANTINE)}
"""What a day of ticks may hold, by name."""

GRID = Table(
    "features",
    (
        Column("label_ns", "int64", "ns UTC, the bucket's end: what the row says was known then"),
        Column("mid", "float64", "price"),
        Column("microprice", "float64", "price, mid weighted by the opposite touch size"),
        Column("spread", "float64", "price"),
        Column("vwap", "float64", "price of the bucket's trades; NaN without a trade"),
        Column("volume", "float64", "size traded; contracts on inverse instruments"),
        Column("signed_volume", "float64", "size bought by aggressors minus size sold"),
        Column("trade_count", "float64", "trades; NaN where a gap hides some"),
        Column("imbalance_1", "float64", "(bid - ask) / (bid + ask) of the touch sizes, -1..1"),
        Column("imbalance_10", "float64", "the same over the ten best levels; NaN where depth is unknown"),
        Column("ofi", "float64", "order-flow imbalance of the touch, size (Cont, Kukanov, Stoikov 2014)"),
        Column("realized_variance", "float64", "sum of squared log-mid changes within the bucket"),
        Column("depth_mid", "float64", "price, mean of the ten best levels of both sides weighted by size"),
        Column("book_slope", "float64", "size per price, growth of cumulative depth with distance from the mid"),
        Column("imbalance_5", "float64", "imbalance_1 over the five best levels"),
        Column("ofi_1", "float64", "size, order-flow imbalance of the best level, from book events"),
        Column("ofi_2", "float64", "size, the same of the second level"),
        Column("ofi_3", "float64", "size, of the third"),
        Column("ofi_4", "float64", "size, of the fourth"),
        Column("ofi_5", "float64", "size, of the fifth"),
        Column("depth_added", "float64", "size added to the ten best levels of both sides"),
        Column("depth_removed", "float64", "size removed from them: traded or cancelled"),
        Column("quote_count", "float64", "quotes that arrived; NaN where a gap hides some"),
        Column("quote_first", "float64", "s from the bucket's start to its first quote; NaN without one"),
        Column("quote_last", "float64", "s from the bucket's start to its last quote; NaN without one"),
        Column("quote_interval_squares", "float64", "s², sum of squared times between quotes of the bucket"),
        Column("last_price", "float64", "price of the bucket's last trade; NaN without one"),
        Column("trade_first", "float64", "s from the bucket's start to its first trade; NaN without one"),
        Column("trade_last", "float64", "s from the bucket's start to its last trade; NaN without one"),
        Column("trade_interval_squares", "float64", "s², sum of squared times between trades of the bucket"),
        Column("flags", "uint8", "schema.GridFlag"),
    ),
    ("label_ns",),
)

BARS = Table(
    "bars",
    (
        Column("open_ns", "int64", "ns UTC, first moment that the bar covers"),
        Column("close_ns", "int64", "ns UTC, the bar's end, exclusive: what the row says was known then"),
        Column("open", "float64", "price"),
        Column("high", "float64", "price"),
        Column("low", "float64", "price"),
        Column("close", "float64", "price"),
        Column("volume", "float64", "size traded; contracts on inverse instruments; NaN where the source has none"),
        Column("turnover", "float64", "value traded: quote currency, base on inverse instruments; NaN where unknown"),
        Column("trade_count", "float64", "trades; NaN where unknown"),
        Column("flags", "uint8", "schema.BarFlag"),
    ),
    ("open_ns",),
)
"""Bars of any kind. A missing bar is an absent row, never an invented one."""


@dataclass(frozen=True)
class Scale:
    """How the integers of a tick file turn into market units; exact decimals, so nothing is ever rounded."""

    tick_size: Decimal
    """Quote currency per tick."""
    lot_size: Decimal
    """Base currency (or contracts) per lot."""
    inverse: bool = False
    """Sizes count contracts worth a fixed amount of *quote* currency, so base amounts go as size / price."""

    def metadata(self) -> dict[bytes, bytes]:
        """Return the scale as Parquet key-value metadata."""
        return {
            b"tick_size": str(self.tick_size).encode(),
            b"lot_size": str(self.lot_size).encode(),
            b"inverse": b"1" if self.inverse else b"0",
        }

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes]) -> Self:
        """Read back what `metadata` wrote. Raises `KeyError` when the file carries no scale."""
        return cls(
            Decimal(metadata[b"tick_size"].decode()),
            Decimal(metadata[b"lot_size"].decode()),
            metadata[b"inverse"] == b"1",
        )


@dataclass(frozen=True, order=True)
class Instrument:
    """`venue.SYMBOL`, the one key of everything (two partition dimensions are all that Dagster allows).

    `venue.A+B` is a basket: several instruments of one venue that one generator is fitted on. Symbols are kept in
    capitals. Raises `InputError` for names that no folder and no partition key could carry.
    """

    venue: str
    symbol: str

    _FORM = re.compile(r"[a-z][a-z0-9_]*\.[A-Z0-9][A-Z0-9_\-]*(\+[A-Z0-9][A-Z0-9_\-]*)*")

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbol", self.symbol.upper())
        if not self._FORM.fullmatch(str(self)):
            raise InputError(f"instrument {str(self)!r} is not of the form venue.SYMBOL, such as binance_usdm.BTCUSDT")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `venue.SYMBOL`. Raises `InputError` for any other form."""
        venue, _, symbol = text.partition(".")
        return cls(venue, symbol)

    @property
    def members(self) -> tuple[Self, ...]:
        """The instruments of a basket, in the order given; of any other just itself."""
        return tuple(replace(self, symbol=symbol) for symbol in self.symbol.split("+"))

    def __str__(self) -> str:
        return f"{self.venue}.{self.symbol}"


def day_of(ns: int) -> date:
    """Return the UTC day that holds a time in ns."""
    return datetime.fromtimestamp(ns // NS_PER_SECOND, UTC).date()


def day_start_ns(day: date) -> int:
    """Return the first nanosecond of a UTC day."""
    return (day - date(1970, 1, 1)).days * NS_PER_DAY


def parse_day(text: str) -> date:
    """Read `YYYY-MM-DD`. Raises `InputError` for any other form."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"day {text!r} is not a date of the form 2024-08-08") from error
