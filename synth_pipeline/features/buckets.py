"""Which bucket a tick falls into, and which buckets lost time touches or hides.

What belongs here: the rules that every feature computed from ticks shares. `features.grid` says them in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.features import kernels
from synth_pipeline.series import FloatArray, IntArray

Columns = Mapping[str, np.ndarray]
Gaps = Sequence[tuple[str, int, int]]
"""(stream, last known moment, first known moment)."""
Coverage = Sequence[tuple[int, int]]
"""Half-open intervals in which the recording ran, ascending and disjoint."""

TradeColumns = tuple[FloatArray, FloatArray, FloatArray, FloatArray]

STREAMS = ("trades", "book_levels", "quotes")
_KEPT_BYTES = 32 * 2**20
_BEGINNING_NS, _END_NS = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class LostTime:
    """One stretch of time, both ends included, in which a stream is not known."""

    first_ns: int
    last_ns: int


@dataclass(frozen=True)
class Buckets:
    """The buckets of one call: `count` of them from number `first` since the epoch."""

    first: int
    count: int
    step_ns: int

    @property
    def edges_ns(self) -> tuple[int, int]:
        """The first edge and the last."""
        return self.first * self.step_ns, (self.first + self.count) * self.step_ns

    @property
    def labels_ns(self) -> IntArray:
        """The end of every bucket."""
        first_edge_ns, last_edge_ns = self.edges_ns
        return np.arange(first_edge_ns + self.step_ns, last_edge_ns + self.step_ns, self.step_ns)

    def new_column(self) -> FloatArray:
        """Return an array to fill.

        One a column: the allocator keeps what it lent for these, but hands anything above 32 MiB back to the system.
        """
        return np.empty(self.count)

    def new_columns(self, number: int) -> list[FloatArray]:
        """Return so many: in one piece as long as the allocator keeps it, because small pages of memory cost much."""
        if 8 * number * self.count <= _KEPT_BYTES:
            return [*np.empty((number, self.count))]
        return [self.new_column() for _ in range(number)]

    def rows_within(self, table: str, recv_ns: IntArray) -> slice:
        """Return the rows of the buckets, as far as these are in time order: who walks them finds that out."""
        start, stop = map(int, np.searchsorted(recv_ns, self.edges_ns))
        require_order(table, start <= stop)
        return slice(start, stop)

    def require_order_outside(self, table: str, recv_ns: IntArray) -> None:
        """Raise `InputError` unless the rows before and after the buckets are in time order too."""
        within = self.rows_within(table, recv_ns)
        for outside in (recv_ns[: within.start + 1], recv_ns[max(within.stop - 1, 0) :]):
            require_order(table, kernels.is_in_time_order(outside))

    def rows_before_edges(self, table: str, recv_ns: IntArray) -> IntArray:
        """Return how many rows were received before each of the count + 1 edges."""
        within = self.rows_within(table, recv_ns)
        rows = np.empty(self.count + 1, dtype=np.int64)
        first_edge_ns = self.first * self.step_ns
        require_order(table, kernels.rows_before_edges(recv_ns[within], first_edge_ns, self.step_ns, rows))
        if within.start:
            rows += within.start
        return rows

    def trade_features(self, trades: Columns, scale: schema.Scale, out: TradeColumns) -> None:
        """Fill VWAP, volume, signed volume and trade count; the last two are left out where their arrays are empty."""
        columns = arrays(trades, "recv_ns", "price", "size", "side", "flags")
        within = self.rows_within("trades", columns[0])
        recv_ns, price, size, side, flags = (column[within] for column in columns)
        tick, lot, excluded = ratio(scale.tick_size), ratio(scale.lot_size), int(schema.Flag.OFF_MARKET)
        edge_ns, step_ns = self.first * self.step_ns, self.step_ns
        is_sorted = kernels.trade_features(
            recv_ns, price, size, side, flags, excluded, edge_ns, step_ns, tick, lot, scale.inverse, out
        )
        require_order("trades", is_sorted)

    def touched(self, lost: Sequence[LostTime]) -> list[slice]:
        """Return the buckets that hold a lost moment, as spans."""
        return [self._span(time.first_ns // self.step_ns, time.last_ns // self.step_ns + 1) for time in lost]

    def hidden(self, lost: Sequence[LostTime], recv_ns: IntArray, rows: IntArray) -> list[slice]:
        """Return the edges at which no state is known: before the first row, and from lost time to the row after it."""
        spans = [slice(0, int(np.searchsorted(rows, 1)))]
        for time in lost:
            resumed = int(np.searchsorted(recv_ns, time.last_ns, side="right"))
            resumed_ns = int(recv_ns[resumed]) if resumed < recv_ns.size else _END_NS
            first, last = time.first_ns // self.step_ns + 1, resumed_ns // self.step_ns
            spans.append(slice(self._place(first, self.count + 1), self._place(last + 1, self.count + 1)))
        return spans

    def _span(self, first: int, stop: int) -> slice:
        return slice(self._place(first, self.count), self._place(stop, self.count))

    def _place(self, number: int, limit: int) -> int:
        return min(max(number - self.first, 0), limit)


def buckets_of(coverage: Coverage, step_ns: int, start_ns: int, end_ns: int) -> Buckets:
    """Return the buckets that start in [start_ns, end_ns), from the first covered moment to the last."""
    if step_ns <= 0 or end_ns < start_ns:
        raise InputError(
            f"no grid from {start_ns} to {end_ns} ns in steps of {step_ns} ns: the step must be positive, "
            f"and the end not before the start"
        )
    for start, end in coverage:
        if end <= start:
            raise InputError(f"coverage interval [{start}, {end}) is empty: leave it out")
    for (_, end), (start, _) in pairwise(coverage):
        if start < end:
            raise InputError(
                f"coverage goes back from {end} to {start} ns: sort the intervals and merge those that overlap"
            )
    if not coverage:
        return Buckets(0, 0, step_ns)
    first = max(-(-start_ns // step_ns), coverage[0][0] // step_ns)
    stop = min(-(-end_ns // step_ns), (coverage[-1][1] - 1) // step_ns + 1)
    return Buckets(first, max(stop - first, 0), step_ns)


def lost_time(stream: str, gaps: Gaps, coverage: Coverage) -> list[LostTime]:
    """Return when a stream is not known: within its gaps, and outside the coverage."""
    lost = []
    for name, known_ns, known_again_ns in gaps:
        if name not in (*STREAMS, "all"):
            raise InputError(f"gap of unknown stream {name!r}: known are {', '.join(STREAMS)} and all")
        if known_again_ns < known_ns:
            raise InputError(f"gap of {name} ends at {known_again_ns} ns, before its start {known_ns} ns: swap the two")
        if name in (stream, "all"):
            has_moments = known_again_ns > known_ns + 1
            lost.append(LostTime(known_ns + 1, known_again_ns - 1) if has_moments else LostTime(known_ns, known_ns))
    ends = [_BEGINNING_NS, *(moment for interval in coverage for moment in interval), _END_NS]
    for end, start in zip(ends[::2], ends[1::2], strict=True):
        if start > end:
            lost.append(LostTime(end, start - 1))
    return lost


def require_order(table: str, is_sorted: bool) -> None:
    """Raise `InputError` unless the rows of a table are in time order."""
    if not is_sorted:
        raise InputError(f"rows of {table} are not sorted by recv_ns: sort them by (recv_ns, seq) first")


def in_chunks(fill: Callable[[int], None], count: int, chunk: int, threads: int) -> None:
    """Call `fill` with the first of every `chunk` of `count` buckets, on so many threads; windows tile bit for bit."""
    starts = range(0, count, chunk)
    if threads == 1:
        for start in starts:
            fill(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, starts))


def ratio(size: Decimal) -> kernels.Ratio:
    """Return a tick or lot size as numerator and denominator."""
    above, below = size.as_integer_ratio()
    return float(above), float(below)


def arrays(columns: Columns, *names: str) -> list[np.ndarray]:
    """Return contiguous, read-only views, as Arrow hands them out: a kernel compiles once per kind of array."""
    views = [np.ascontiguousarray(columns[name]).view() for name in names]
    for view in views:
        view.flags.writeable = False
    return views
