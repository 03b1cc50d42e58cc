"""What a bar must be: whole, positive, in OHLC order, once. What is not goes to quarantine with its reason.

Reasons: `bad_time`, `missing_value`, `not_a_number`, `not_positive`, `ohlc_order`, `negative_volume`, `bad_fields`,
`duplicate` (the same bar again), `conflict` (another bar of the same time; the first one stays), `overlap` (off the
file's time grid and over a neighbour).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from synth_pipeline import schema
from synth_pipeline.bars import Row
from synth_pipeline.bars.calendars import Calendar, Gap
from synth_pipeline.bars.dates import NO_TIME
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.bars.values import Numbers, numbers
from synth_pipeline.schema import NS_PER_DAY, BarFlag

PRICES = ("open", "high", "low", "close")
SIZES = ("volume", "turnover", "trade_count")
Columns = dict[str, np.ndarray]


class Bad(NamedTuple):
    """One row of `schema.QUARANTINE`."""

    recv_ns: int
    seq: int
    stream: str
    reason: str
    detail: str
    payload: bytes


@dataclass
class Sound:
    """Rows that are bars each by itself, in the order they came, and the others."""

    columns: Columns
    """`open_ns`, prices, sizes and `seq`, the row's number in its source."""
    bad: list[Bad] = field(default_factory=list)
    rounded: int = 0
    """Values that float64 cannot hold exactly."""

    @classmethod
    def join(cls, parts: Sequence[Sound]) -> Self:
        """Return several parts as one."""
        names = ("open_ns", *PRICES, *SIZES, "seq")
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
        return cls(columns, [bad for part in parts for bad in part.bad], sum(part.rounded for part in parts))


@dataclass(frozen=True)
class Bars:
    """Bars in order, each once, and what was found on the way."""

    timeframe: Timeframe
    columns: Columns
    """As `schema.BARS`."""
    calendar: Calendar
    gaps: list[Gap]
    bad: list[Bad]
    rounded: int = 0
    unordered: int = 0
    """Rows that came before one of an earlier time."""

    def __len__(self) -> int:
        return len(self.columns["open_ns"])

    def reasons(self) -> dict[str, int]:
        """Count the quarantined rows by reason."""
        return dict(Counter(bad.reason for bad in self.bad))


def sound(open_ns: np.ndarray, cells: dict[str, Numbers], seq: np.ndarray, payload: Callable[[int], bytes]) -> Sound:
    """Judge rows one by one; `payload` gives the text of the row at a position."""
    prices = [cells[name] for name in PRICES]
    low, high = cells["low"].values, cells["high"].values
    sizes = {name: cells[name] for name in SIZES if name in cells}
    with np.errstate(invalid="ignore"):
        tests = {
            "bad_time": open_ns == NO_TIME,
            "missing_value": np.logical_or.reduce([cell.missing for cell in prices]),
            "not_a_number": np.logical_or.reduce([cell.invalid for cell in (*prices, *sizes.values())]),
            "not_positive": np.logical_or.reduce([cell.values <= 0 for cell in prices]),
            "ohlc_order": np.logical_or.reduce([(cell.values > high) | (cell.values < low) for cell in prices]),
            "negative_volume": np.logical_or.reduce(
                [np.zeros(len(seq), bool), *(s.values < 0 for s in sizes.values())]
            ),
        }
    good = np.ones(len(seq), dtype=bool)
    bad: list[Bad] = []
    for reason, failed in tests.items():
        for at in np.flatnonzero(failed & good).tolist():
            stamp = 0 if open_ns[at] == NO_TIME else int(open_ns[at])
            bad.append(Bad(stamp, int(seq[at]), "bars", reason, _detail(reason, at, cells), payload(at)))
        good &= ~failed
    unknown = np.full(len(seq), np.nan)
    columns = {"open_ns": open_ns, "seq": seq} | {name: cells[name].values for name in PRICES}
    columns |= {name: sizes[name].values if name in sizes else unknown for name in SIZES}
    rounded = sum(cell.rounded for cell in cells.values())
    return Sound({name: column[good] for name, column in columns.items()}, bad, rounded)


def _detail(reason: str, at: int, cells: dict[str, Numbers]) -> str:
    if reason == "bad_time":
        return "the time cannot be read"
    return ", ".join(f"{name} {cell.values[at]:.15g}" for name, cell in cells.items())


def sound_rows(rows: Sequence[Row]) -> Sound:
    """Judge rows of a bar source."""
    frame = pl.DataFrame(rows, schema=dict.fromkeys(Row._fields, pl.String) | {"open_ns": pl.Int64}, orient="row")
    cells = {name: numbers(frame[name]) for name in (*PRICES, *SIZES) if frame[name].null_count() < len(frame)}
    empty = Numbers(np.empty(0), np.empty(0, bool), np.empty(0, bool), 0)
    cells = cells or dict.fromkeys(PRICES, empty)
    return sound(
        frame["open_ns"].to_numpy(), cells, np.arange(len(rows)), lambda at: ",".join(map(str, rows[at])).encode()
    )


def assemble(rows: Sound, timeframe: Timeframe) -> Bars:
    """Sort, keep each bar once, find what is missing."""
    columns, bad = rows.columns, list(rows.bad)
    unordered = int((np.diff(columns["open_ns"]) < 0).sum())
    order = np.argsort(columns["open_ns"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    columns, twice = _each_once(columns)
    columns, over = _apart(columns, timeframe)
    opens = columns["open_ns"]
    calendar = Calendar.learn(opens, timeframe)
    gaps = calendar.gaps(opens)
    closes = timeframe.after(opens)
    # Days of a session that starts by local time are 23 h apart once a year.
    closes[:-1] = np.minimum(closes[:-1], opens[1:])
    after_gap = np.isin(opens, [gap.end_ns for gap in gaps])
    flags = np.where(after_gap, BarFlag.GAP_BEFORE, 0).astype(np.uint8)
    columns = columns | {"close_ns": closes, "flags": flags}
    table = {name: columns[name] for name in schema.BARS.names}
    return Bars(timeframe, table, calendar, gaps, bad + twice + over, rows.rounded, unordered)


def _each_once(columns: Columns) -> tuple[Columns, list[Bad]]:
    opens = columns["open_ns"]
    again = np.concatenate([[False], np.diff(opens) == 0]) if len(opens) else np.zeros(0, bool)
    firsts = np.maximum.accumulate(np.where(again, 0, np.arange(len(opens)))) if len(opens) else again
    bad = []
    for at in np.flatnonzero(again).tolist():
        here, first = (_values(columns, row) for row in (at, int(firsts[at])))
        bad.append(_set_aside(columns, at, "duplicate" if here == first else "conflict"))
    return {name: column[~again] for name, column in columns.items()}, bad


def _apart(columns: Columns, timeframe: Timeframe) -> tuple[Columns, list[Bad]]:
    """Set aside bars off the common time grid that overlap a neighbour; days may be shorter once a year."""
    opens = columns["open_ns"]
    if len(opens) < 2 or timeframe.ns >= NS_PER_DAY:
        return columns, []
    phases, counts = np.unique(opens % timeframe.ns, return_counts=True)
    off = opens % timeframe.ns != phases[counts.argmax()]
    near = np.diff(opens) < timeframe.ns
    over = off & (np.append(near, False) | np.insert(near, 0, False))
    bad = [_set_aside(columns, at, "overlap") for at in np.flatnonzero(over).tolist()]
    return {name: column[~over] for name, column in columns.items()}, bad


def _values(columns: Columns, at: int) -> list[str]:
    return [repr(columns[name][at].item()) for name in (*PRICES, *SIZES)]


def _set_aside(columns: Columns, at: int, reason: str) -> Bad:
    text = ",".join([str(columns["open_ns"][at]), *_values(columns, at)])
    return Bad(int(columns["open_ns"][at]), int(columns["seq"][at]), "bars", reason, text, text.encode())


def quarantine_table(bad: Iterable[Bad]) -> Columns:
    """Return the rows as columns of `schema.QUARANTINE`."""
    rows = sorted(bad, key=lambda row: (row.recv_ns, row.seq))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(Bad._fields)
    dtypes = {column.name: column.dtype for column in schema.QUARANTINE.columns}
    return {
        name: np.array(values, dtype=dtypes[name] if dtypes[name] == "int64" else object)
        for name, values in zip(Bad._fields, columns, strict=True)
    }
