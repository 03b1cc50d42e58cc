"""Grid features straight from CSV files: a file of best bid and ask sorted by time, and one of trades if there is one.

What belongs here: which columns are what, and what such files say about the recording. They hold no notes, so: the file
of quotes covers the time from its first row to its last; more than a minute without a quote is a gap of everything, as
in a raw log; trades further than that from the ends of the quotes' file are a gap of trades. Prices and sizes
are kept to eight decimals, whatever the window, so that windows tile to the last bit. Depth is not in such files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth_pipeline import schema
from synth_pipeline.archives.rawlog import SILENCE_NS
from synth_pipeline.errors import InputError
from synth_pipeline.features.grid import grid_features
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import NS_PER_SECOND, Flag, Scale
from synth_pipeline.ticks.csv import Slice, SortedCsv
from synth_pipeline.ticks.csv_rows import Fault, Kind, Unit

Gaps = list[tuple[str, int, int]]
Columns = dict[str, np.ndarray]

_PIECE_NS = 3600 * NS_PER_SECOND
"""Longer windows are worked on in pieces of about this length: they tile, and memory stays bounded."""
_SIZE = r"(size|sz|volume|vol|qty|quantity|amount)s?"
_QUOTE_COLUMNS = {
    "bid_price": r"(best)?bids?(price|px)?s?[01]?(price)?",
    "ask_price": r"(best)?(ask|offer)s?(price|px)?s?[01]?(price)?",
    "bid_size": rf"(best)?bids?[01]?{_SIZE}[01]?",
    "ask_size": rf"(best)?(ask|offer)s?[01]?{_SIZE}[01]?",
}
_TRADE_COLUMNS = {
    "price": r"(trade|last)?(price|px)s?",
    "size": rf"(trade|last)?{_SIZE}",
    "side": r"(trade|taker|aggressor)?side|(is)?buyer(is)?maker",
}
_SIDES = {b"buy": 1, b"bid": 1, b"b": 1, b"1": 1, b"sell": -1, b"ask": -1, b"s": -1, b"a": -1, b"-1": -1}
_MAKER_SIDES = {b"true": -1, b"t": -1, b"1": -1, b"false": 1, b"f": 1, b"0": 1}


@dataclass(frozen=True)
class CsvFile:
    """A CSV file and what its user says of it; what is left out is recognized."""

    path: Path
    columns: tuple[str, ...] = ()
    time: str | None = None
    unit: Unit | None = None


@dataclass
class CsvRead:
    """What became of one file, over all pieces of the window."""

    rows: int = 0
    bytes_read: int = 0
    slice_bytes: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_at: list[int] = field(default_factory=list)
    unsorted_at: set[int] = field(default_factory=set)
    unfinished_bytes: int = 0

    def add(self, part: Slice) -> None:
        """Count one piece in."""
        self.rows += part.time_ns.size - part.carried
        self.bytes_read += part.bytes_read
        self.slice_bytes += part.slice_bytes
        self.rejected.update(part.rejected)
        self.rejected_at += part.rejected_at
        self.unsorted_at.update(part.unsorted_at.tolist())
        self.unfinished_bytes = part.unfinished_bytes

    def facts(self) -> dict[str, Any]:
        """Return the figures as JSON values, places cut down to the first few."""
        return {
            "rows": self.rows,
            "rejected": dict(self.rejected),
            "rejected_at": sorted(self.rejected_at)[:5],
            "unsorted": len(self.unsorted_at),
            "unsorted_at": sorted(self.unsorted_at)[:5],
            "unfinished_bytes": self.unfinished_bytes,
            "bytes_read": self.bytes_read,
            "slice_bytes": self.slice_bytes,
        }


_MOST_LEFT_OUT = 0.01


@dataclass(frozen=True)
class CsvFeatures:
    """Rows of `schema.GRID`, and what became of each file."""

    columns: Columns
    quotes: CsvRead
    trades: CsvRead | None


def csv_features(
    quotes: CsvFile,
    trades: CsvFile | None,
    start_ns: int,
    end_ns: int,
    *,
    step_ns: int,
    decimals: int = 8,
    nearest: bool = False,
    progress: Progress = silent,
) -> CsvFeatures:
    """Return the features of every bucket that starts in [start_ns, end_ns), one that holds no recording apart.

    Prices and sizes with more `decimals` than these are left out and counted, or rounded to the `nearest` on request.
    Raises `InputError` when a file's columns or times are not clear, it is not sorted, or over a hundredth of the rows
    of the window has too many decimals.
    """
    if step_ns <= 0 or end_ns < start_ns:
        raise InputError(f"no grid from {start_ns} to {end_ns} ns in steps of {step_ns} ns: check start, end and step")
    source = _Source(quotes, trades, decimals, nearest=nearest)
    begin, stop = source.buckets(start_ns, end_ns, step_ns)
    edges = [*range(begin, stop, max(_PIECE_NS // step_ns, 1)), stop]
    pieces = []
    for done, (first, last) in enumerate(pairwise(edges)):
        pieces.append(source.piece(first * step_ns, last * step_ns, step_ns))
        progress(done + 1, len(edges) - 1, "features")
    _check_decimals(quotes.path, source.quotes_read, decimals)
    if trades is not None:
        _check_decimals(trades.path, source.trades_read, decimals)
    columns = {
        name: np.concatenate([piece[name] for piece in pieces]) if pieces else empty
        for name, empty in schema.GRID.empty().items()
    }
    return CsvFeatures(columns, source.quotes_read, source.trades_read if trades else None)


def _check_decimals(path: Path, read: CsvRead, decimals: int) -> None:
    """Refuse a file whose numbers are not on the grid that was asked for: the rows left would be another market."""
    finer = read.rejected["too_many_decimals"]
    if finer > _MOST_LEFT_OUT * (read.rows + finer):
        raise InputError(
            f"{path}: {finer} of {read.rows + finer} rows have prices or sizes of more than {decimals} decimals: "
            "round them with --nearest, or raise --decimals"
        )


class _Source:
    """Both files, opened, and their columns by what they are."""

    def __init__(self, quotes: CsvFile, trades: CsvFile | None, decimals: int, *, nearest: bool) -> None:
        self.quotes = _opened(quotes)
        self.quote_names = _assigned(quotes.path, self.quotes, _QUOTE_COLUMNS, ("bid_price", "ask_price"))
        if len(self.quote_names) == 3:
            raise InputError(f"{quotes.path} has a size for one side only: name both or none with the option `columns`")
        self.trades = None if trades is None else _opened(trades)
        self.trade_names: dict[str, str] = {}
        if trades is not None and self.trades is not None:
            self.trade_names = _assigned(trades.path, self.trades, _TRADE_COLUMNS, ("price", "size"))
        self.quotes_read, self.trades_read = CsvRead(), CsvRead()
        span = self.quotes.span()
        self.coverage = None if span is None else (span[0], span[1] + 1)
        self.decimals = decimals
        self.exact = (Kind.NEAREST, Kind.NEAREST_OR_EMPTY) if nearest else (Kind.EXACT, Kind.EXACT_OR_EMPTY)
        self.scale = Scale(Decimal(1).scaleb(-decimals), Decimal(1).scaleb(-decimals))

    def buckets(self, start_ns: int, end_ns: int, step_ns: int) -> tuple[int, int]:
        """Return the first bucket that starts in a window and touches the coverage, and the one after the last."""
        if self.coverage is None:
            return 0, 0
        first = max(-(-start_ns // step_ns), self.coverage[0] // step_ns)
        return first, max(min(-(-end_ns // step_ns), (self.coverage[1] - 1) // step_ns + 1), first)

    def piece(self, start_ns: int, end_ns: int, step_ns: int) -> Columns:
        """Return the grid rows of one piece."""
        assert self.coverage is not None
        quotes, gaps = self._quotes(start_ns, end_ns)
        depth = {name: np.empty(0, dtype=np.int64) for name in ("recv_ns", "bid_size_10", "ask_size_10")}
        columns = grid_features(
            quotes,
            self._trades(start_ns, end_ns),
            depth | {"known": np.empty(0, dtype=np.bool_)},
            gaps + self._trade_gaps(),
            [self.coverage],
            self.scale,
            step_ns=step_ns,
            start_ns=start_ns,
            end_ns=end_ns,
        )
        unknown = set() if "bid_size" in self.quote_names else {"microprice", "imbalance_1", "ofi"}
        unknown |= set() if "side" in self.trade_names else {"signed_volume"}
        return {name: np.full(len(c), np.nan) if name in unknown else c for name, c in columns.items()}

    def _quotes(self, start_ns: int, end_ns: int) -> tuple[Columns, Gaps]:
        names = self.quote_names
        part = self.quotes.read(
            start_ns,
            end_ns,
            dict.fromkeys(names.values(), self.exact[1]),
            decimals=self.decimals,
            carry_in=True,
            check=lambda columns: _quote_faults(_named(columns, names)),
        )
        self.quotes_read.add(part)
        moments = [
            at for at in (part.before_ns, *part.time_ns[part.carried :].tolist(), part.after_ns) if at is not None
        ]
        silences = np.flatnonzero(np.diff(np.array(moments, dtype=np.int64)) > SILENCE_NS)
        gaps = [("all", moments[row], moments[row + 1]) for row in silences.tolist()]
        columns = _two_sided(_named(part.columns, names))
        columns |= {"recv_ns": part.time_ns, "flags": np.full(part.time_ns.size, Flag.LAST, dtype=np.uint8)}
        return columns, gaps

    def _trades(self, start_ns: int, end_ns: int) -> Columns:
        if self.trades is None:
            return schema.TRADES.empty()
        names = self.trade_names
        kinds = {name: Kind.TEXT if role == "side" else self.exact[0] for role, name in names.items()}
        part = self.trades.read(
            start_ns, end_ns, kinds, decimals=self.decimals, check=lambda columns: _trade_faults(_named(columns, names))
        )
        self.trades_read.add(part)
        columns = _named(part.columns, names)
        side = np.zeros(part.time_ns.size, dtype=np.int8)
        if "side" in names:
            side = _sides(columns["side"], is_maker="maker" in names["side"].lower())
        flags = np.full(part.time_ns.size, Flag.LAST, dtype=np.uint8)
        return columns | {"recv_ns": part.time_ns, "side": side, "flags": flags}

    def _trade_gaps(self) -> Gaps:
        assert self.coverage is not None
        start_ns, end_ns = self.coverage
        span = None if self.trades is None else self.trades.span()
        if span is None:
            return [("trades", start_ns - 1, end_ns)]
        gaps = [("trades", start_ns - 1, span[0])] if span[0] > start_ns + SILENCE_NS else []
        return [*gaps, ("trades", span[1], end_ns)] if span[1] < end_ns - SILENCE_NS else gaps


def _opened(file: CsvFile) -> SortedCsv:
    return SortedCsv(file.path, time=file.time, unit=file.unit, columns=file.columns)


def _assigned(path: Path, file: SortedCsv, patterns: Mapping[str, str], needed: Sequence[str]) -> dict[str, str]:
    """Return the file's column of each role that it has. Raises `InputError` when one is missing or not clear."""
    names = [name for position, name in enumerate(file.form.names) if position != file.form.time_field]
    found: dict[str, str] = {}
    for role, pattern in patterns.items():
        fitting = [name for name in names if name.lower() == role]
        fitting = fitting or [name for name in names if re.fullmatch(pattern, re.sub("[^a-z0-9]", "", name.lower()))]
        if len(fitting) > 1:  # of several levels the best, where they count from 0
            fitting = [name for name in fitting if "0" in name] or fitting
        if len(fitting) > 1 or (not fitting and role in needed):
            which = " or ".join(map(repr, fitting)) or "none"
            raise InputError(
                f"{path}: which of the columns {', '.join(file.form.names)} is the {role} is not clear ({which}): name "
                f"all columns in order with the option `columns`, this one {role!r}"
            )
        if fitting:
            found[role] = fitting[0]
    return found


def _named(columns: Mapping[str, np.ndarray], names: Mapping[str, str]) -> Columns:
    return {role: columns[name] for role, name in names.items()}


def _two_sided(columns: Columns) -> Columns:
    """Give an empty side, one without a price, size 0; where the file has no sizes, every other side gets size 1."""
    for side in ("bid", "ask"):
        has_price = columns[f"{side}_price"] != 0
        columns[f"{side}_size"] = np.where(has_price, columns.get(f"{side}_size", 1), 0)
    return columns


def _quote_faults(columns: Columns) -> NDArray[np.uint8]:
    two_sided = _two_sided(columns)
    bid, ask = two_sided["bid_price"], two_sided["ask_price"]
    is_crossed = (bid >= ask) & (two_sided["bid_size"] > 0) & (two_sided["ask_size"] > 0)
    is_negative = np.minimum.reduce([*two_sided.values()]) < 0
    return np.where(is_negative, Fault.NOT_POSITIVE, is_crossed * Fault.CROSSED_QUOTE).astype(np.uint8)


def _trade_faults(columns: Columns) -> NDArray[np.uint8]:
    is_positive = (columns["price"] > 0) & (columns["size"] > 0)
    return (~is_positive * Fault.NOT_POSITIVE).astype(np.uint8)


def _sides(texts: np.ndarray, *, is_maker: bool) -> NDArray[np.int8]:
    """Return the aggressor's side: 1 buys, -1 sells, 0 where the text says neither."""
    known = _MAKER_SIDES if is_maker else _SIDES
    distinct, which = np.unique(texts, return_inverse=True)
    return np.array([known.get(text, 0) for text in distinct.tolist()], dtype=np.int8)[which]
