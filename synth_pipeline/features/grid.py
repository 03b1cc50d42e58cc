"""The grid: ticks to one row of features per bucket of (usually) half a second.

What belongs here: which bucket a tick falls into, what a gap or an end of the recording hides, how integers become
market units. What walks the ticks is in `features.kernels`; longer bars and rolling features are not grid features.

**Buckets.** Bucket k covers [k step, (k + 1) step) since the Unix epoch and is labelled by its end: a row says what was
known then, so nothing received at or after a label can change it. Every bucket from the first covered moment to the
last has a row.

**State** (mid, microprice, spread, both imbalances) is that of the last quote, or book event, before the label. It is
carried over empty buckets (`STALE`: no quote arrived; a row flagged `SNAPSHOT` repeats the book and is no arrival), but
never over a lost moment: from there to the next quote it is NaN. A book with an empty side is NaN and `ONE_SIDED`;
depth that is not known is NaN and `NO_BOOK`.

**Sums** (volume, signed volume, trade count, order-flow imbalance, realized variance) and VWAP are over the bucket.
Where it touches lost time of the stream they are made of, they are NaN; a touch of any stream is flagged `GAP`. Trades
flagged `OFF_MARKET` are in none of them. The first change of a bucket is measured from the quote carried in; a change
over lost time, or from or to a one-sided book, counts nothing. While no quote is known, there is no order flow: NaN.

**Lost time** is what lies strictly between the two ends of a gap, and all time outside the coverage; a gap whose ends
leave no moment between them (clocks that tick in milliseconds) loses the moment it starts at. So the first and the last
bucket of a recording, which it covers in part, are flagged `GAP`: their sums are NaN, and at the last label, after the
recording stopped, nothing is known any more. A stream that was never recorded must be given as a gap from start to end:
without that, no trade means volume 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.features import kernels
from synth_pipeline.schema import Flag, GridFlag
from synth_pipeline.series import FloatArray, IntArray

Columns = Mapping[str, np.ndarray]

_STREAMS = ("trades", "book_levels", "quotes")
_BEGINNING_NS, _END_NS = -(2**63), 2**63 - 1


def grid_features(
    quotes: Columns,
    trades: Columns,
    depth: Columns,
    gaps: Sequence[tuple[str, int, int]],
    coverage: Sequence[tuple[int, int]],
    scale: schema.Scale,
    *,
    step_ns: int,
    start_ns: int,
    end_ns: int,
) -> dict[str, np.ndarray]:
    """Return the rows of `schema.GRID` for every bucket that starts in [start_ns, end_ns).

    `quotes` and `trades` hold the columns of their tick tables; `depth` holds `recv_ns`, `bid_size_10`, `ask_size_10`
    (lots over the ten best levels) and `known`, a row per book event. Each holds the rows of the buckets asked for, and
    quotes and depth the last row before them, which is carried in. `gaps` are (stream, last known moment, first known
    moment); `coverage` are the half-open intervals in which the recording ran. Both reach back to the rows carried in:
    a quote from before the first covered moment is not believed.

    Order-flow imbalance: Cont, Kukanov and Stoikov (2014), "The price impact of order book events", e_n summed.
    Raises `InputError` for unsorted rows, an unknown stream, a reversed gap, a coverage not ascending or not disjoint.
    """
    buckets = _buckets(coverage, step_ns, start_ns, end_ns)
    lost = {stream: _lost_time(stream, gaps, coverage) for stream in _STREAMS}
    if buckets.count == 0:
        return schema.GRID.empty()
    flags = np.zeros(buckets.count, dtype=np.uint8)
    for stream in _STREAMS:
        for span in buckets.touched(lost[stream]):
            flags[span] |= np.uint8(GridFlag.GAP)
    columns: dict[str, np.ndarray] = {
        "label_ns": (buckets.first + np.arange(1, buckets.count + 1)) * step_ns,
        **_quote_columns(quotes, buckets, lost["quotes"], scale, flags),
        **_trade_columns(trades, buckets, lost["trades"], scale),
        "imbalance_10": _depth_column(depth, buckets, lost["book_levels"], flags),
        "flags": flags,
    }
    return {name: columns[name] for name in schema.GRID.names}


@dataclass(frozen=True)
class _LostTime:
    """One stretch of time, both ends included, in which a stream is not known."""

    first_ns: int
    last_ns: int


@dataclass(frozen=True)
class _Buckets:
    """The buckets of one call: `count` of them from number `first` since the epoch."""

    first: int
    count: int
    step_ns: int

    def rows_before_edges(self, table: str, recv_ns: IntArray) -> IntArray:
        """Return how many rows were received before each of the count + 1 edges."""
        if not kernels.is_in_time_order(recv_ns):
            raise InputError(f"rows of {table} are not sorted by recv_ns: sort them by (recv_ns, seq) first")
        edges_ns = np.array([self.first, self.first + self.count], dtype=np.int64) * self.step_ns
        start, stop = np.searchsorted(recv_ns, edges_ns)
        rows = np.empty(self.count + 1, dtype=np.int64)
        kernels.rows_before_edges(recv_ns[start:stop], int(edges_ns[0]), self.step_ns, rows)
        rows += start
        return rows

    def touched(self, lost: Sequence[_LostTime]) -> list[slice]:
        """Return the buckets that hold a lost moment."""
        return [self._span(time.first_ns // self.step_ns, time.last_ns // self.step_ns + 1) for time in lost]

    def hidden(self, lost: Sequence[_LostTime], recv_ns: IntArray, rows: IntArray) -> list[slice]:
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


def _buckets(coverage: Sequence[tuple[int, int]], step_ns: int, start_ns: int, end_ns: int) -> _Buckets:
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
        return _Buckets(0, 0, step_ns)
    first = max(-(-start_ns // step_ns), coverage[0][0] // step_ns)
    stop = min(-(-end_ns // step_ns), (coverage[-1][1] - 1) // step_ns + 1)
    return _Buckets(first, max(stop - first, 0), step_ns)


def _lost_time(
    stream: str, gaps: Sequence[tuple[str, int, int]], coverage: Sequence[tuple[int, int]]
) -> list[_LostTime]:
    lost = []
    for name, known_ns, known_again_ns in gaps:
        if name not in (*_STREAMS, "all"):
            raise InputError(f"gap of unknown stream {name!r}: known are {', '.join(_STREAMS)} and all")
        if known_again_ns < known_ns:
            raise InputError(f"gap of {name} ends at {known_again_ns} ns, before its start {known_ns} ns: swap the two")
        if name in (stream, "all"):
            has_moments = known_again_ns > known_ns + 1
            lost.append(_LostTime(known_ns + 1, known_again_ns - 1) if has_moments else _LostTime(known_ns, known_ns))
    ends = [_BEGINNING_NS, *(moment for interval in coverage for moment in interval), _END_NS]
    for end, start in zip(ends[::2], ends[1::2], strict=True):
        if start > end:
            lost.append(_LostTime(end, start - 1))
    return lost


def _quote_columns(
    quotes: Columns, buckets: _Buckets, lost: Sequence[_LostTime], scale: schema.Scale, flags: np.ndarray
) -> dict[str, FloatArray]:
    recv_ns, bid_price, bid_size, ask_price, ask_size = _arrays(
        quotes, "recv_ns", "bid_price", "bid_size", "ask_price", "ask_size"
    )
    rows = buckets.rows_before_edges("quotes", recv_ns)
    unlinked = np.zeros(buckets.count + 1, dtype=np.bool_)
    hidden = buckets.hidden(lost, recv_ns, rows)
    for span in hidden:
        unlinked[span] = True
    out = np.empty((6, buckets.count))
    tick, lot = _ratio(scale.tick_size), _ratio(scale.lot_size)
    kernels.quote_features(bid_price, bid_size, ask_price, ask_size, rows, _busy(rows), unlinked, tick, lot, out)
    flags |= _has_no_arrival(quotes, buckets, rows) * np.uint8(GridFlag.STALE)
    flags |= (np.isnan(out[0]) & ~unlinked[1:]) * np.uint8(GridFlag.ONE_SIDED)
    for span in hidden:
        out[:, max(span.start - 1, 0) : max(span.stop - 1, 0)] = np.nan
    for span in buckets.touched(lost):
        out[4:, span] = np.nan
    return dict(zip(("mid", "microprice", "spread", "imbalance_1", "ofi", "realized_variance"), out, strict=True))


def _has_no_arrival(quotes: Columns, buckets: _Buckets, rows: IntArray) -> NDArray[np.bool_]:
    """Return the buckets without a quote, snapshot rows apart."""
    is_empty: NDArray[np.bool_] = rows[1:] == rows[:-1]
    flags = quotes["flags"][rows[0] : rows[-1]]
    if np.bitwise_or.reduce(flags) & Flag.SNAPSHOT:
        snapshots = quotes["recv_ns"][rows[0] : rows[-1]][(flags & np.uint8(Flag.SNAPSHOT)) != 0]
        numbers, counts = np.unique(snapshots // buckets.step_ns - buckets.first, return_counts=True)
        is_empty[numbers] = rows[numbers + 1] - rows[numbers] == counts
    return is_empty


def _trade_columns(
    trades: Columns, buckets: _Buckets, lost: Sequence[_LostTime], scale: schema.Scale
) -> dict[str, FloatArray]:
    recv_ns, price, size, side, flags = _arrays(trades, "recv_ns", "price", "size", "side", "flags")
    rows = buckets.rows_before_edges("trades", recv_ns)
    out = np.empty((4, buckets.count))
    tick, lot = _ratio(scale.tick_size), _ratio(scale.lot_size)
    off_market = int(Flag.OFF_MARKET)
    kernels.trade_features(price, size, side, flags, off_market, rows, _busy(rows), tick, lot, scale.inverse, out)
    for span in buckets.touched(lost):
        out[:, span] = np.nan
    return dict(zip(("vwap", "volume", "signed_volume", "trade_count"), out, strict=True))


def _depth_column(depth: Columns, buckets: _Buckets, lost: Sequence[_LostTime], flags: np.ndarray) -> FloatArray:
    recv_ns, bid_size, ask_size, known = _arrays(depth, "recv_ns", "bid_size_10", "ask_size_10", "known")
    rows = buckets.rows_before_edges("depth", recv_ns)
    imbalance, is_known = np.empty(buckets.count), np.empty(buckets.count, dtype=np.bool_)
    kernels.depth_imbalance(bid_size, ask_size, known, rows, imbalance, is_known)
    for span in buckets.hidden(lost, recv_ns, rows):
        labels = slice(max(span.start - 1, 0), max(span.stop - 1, 0))
        imbalance[labels], is_known[labels] = np.nan, False
    flags |= ~is_known * np.uint8(GridFlag.NO_BOOK)
    flags |= (is_known & np.isnan(imbalance)) * np.uint8(GridFlag.ONE_SIDED)
    return imbalance


def _busy(rows: IntArray) -> IntArray:
    """Return the numbers of the buckets that hold rows."""
    return np.flatnonzero(rows[1:] != rows[:-1])


def _ratio(size: Decimal) -> kernels.Ratio:
    exact = Fraction(size)
    return float(exact.numerator), float(exact.denominator)


def _arrays(columns: Columns, *names: str) -> list[np.ndarray]:
    """Return contiguous, read-only views, as Arrow hands them out: a kernel compiles once per kind of array."""
    views = [np.ascontiguousarray(columns[name]).view() for name in names]
    for view in views:
        view.flags.writeable = False
    return views
