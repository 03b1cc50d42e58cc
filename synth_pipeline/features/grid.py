"""The grid: ticks to one row of features per bucket of (usually) half a second.

What belongs here: which bucket a tick falls into, what a gap or an end of the recording hides, how integers become
market units. What walks the ticks is in `features.kernels`, what needs levels behind the touch in `features.depth`;
longer bars and features over several buckets (`features.rolling`) are not grid features. docs/features.md lists all.

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

import numpy as np
from numpy.typing import NDArray

from synth_pipeline import schema
from synth_pipeline.features import kernels
from synth_pipeline.features.arrivals import NAMES as ARRIVAL_NAMES
from synth_pipeline.features.arrivals import arrival_columns
from synth_pipeline.features.buckets import (
    STREAMS,
    Buckets,
    Columns,
    Coverage,
    Gaps,
    LostTime,
    arrays,
    buckets_of,
    in_chunks,
    lost_time,
    ratio,
)
from synth_pipeline.features.depth import NAMES as LADDER_NAMES
from synth_pipeline.features.depth import depth_columns
from synth_pipeline.schema import Flag, GridFlag
from synth_pipeline.series import FloatArray, IntArray

_CHUNK = 1 << 15  # buckets worked on at once: what is made on the way stays in the cache
_OF_QUOTES = ("mid", "microprice", "spread", "imbalance_1", "ofi", "realized_variance")
_OF_TRADES = ("vwap", "volume", "signed_volume", "trade_count")
_ALWAYS = (*_OF_QUOTES, *_OF_TRADES, "imbalance_10", "flags")
"""Columns that one pass makes together."""


def grid_features(
    quotes: Columns,
    trades: Columns,
    depth: Columns,
    gaps: Gaps,
    coverage: Coverage,
    scale: schema.Scale,
    *,
    step_ns: int,
    start_ns: int,
    end_ns: int,
    ladder: Columns | None = None,
    names: tuple[str, ...] = schema.GRID.names,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return the columns `names` of `schema.GRID` for every bucket that starts in [start_ns, end_ns).

    `quotes` and `trades` hold the columns of their tick tables; `depth` holds `recv_ns`, `bid_size_10`, `ask_size_10`
    (lots over the ten best levels) and `known`, a row per book event; `ladder`, as `features.depth` takes it, the
    levels themselves: without it the features that need them are NaN. Each holds the rows of the buckets asked for,
    and all but the trades the last row before them, which is carried in. `gaps` are (stream, last known moment, first
    known moment); `coverage` are the half-open intervals in which the recording ran. Both reach back to the rows
    carried in: a quote from before the first covered moment is not believed. `threads` changes the time taken and no
    bit.

    Order-flow imbalance: Cont, Kukanov and Stoikov (2014), "The price impact of order book events", e_n summed.
    Raises `InputError` for unsorted rows, an unknown stream, a reversed gap, a coverage not ascending or not disjoint.
    """
    buckets = buckets_of(coverage, step_ns, start_ns, end_ns)
    lost = {stream: lost_time(stream, gaps, coverage) for stream in STREAMS}
    for table, rows in (("quotes", quotes), ("trades", trades), ("depth", depth), ("ladder", ladder or depth)):
        buckets.require_order_outside(table, arrays(rows, "recv_ns")[0])
    dtypes = {column.name: column.dtype for column in schema.GRID.columns}
    columns = {name: np.empty(buckets.count, dtypes[name]) for name in names}

    def fill(start: int) -> None:
        chunk = Buckets(buckets.first + start, min(_CHUNK, buckets.count - start), step_ns)
        parts = {name: column[start : start + chunk.count] for name, column in columns.items()}
        # What nobody asked for is written too, but to a place that stays in the cache.
        out = {name: parts.get(name, np.empty(chunk.count, dtypes[name])) for name in _ALWAYS} | parts
        _fill_chunk(quotes, trades, depth, ladder, chunk, lost, scale, out)

    in_chunks(fill, buckets.count, _CHUNK, threads)
    return columns


def _fill_chunk(
    quotes: Columns,
    trades: Columns,
    depth: Columns,
    ladder: Columns | None,
    buckets: Buckets,
    lost: Mapping[str, list[LostTime]],
    scale: schema.Scale,
    out: Mapping[str, np.ndarray],
) -> None:
    """Fill the columns of some buckets, those of `_ALWAYS` among them."""
    flags = out["flags"]
    flags[:] = 0
    for stream in STREAMS:
        for span in buckets.touched(lost[stream]):
            flags[span] |= np.uint8(GridFlag.GAP)
    if "label_ns" in out:
        out["label_ns"][:] = buckets.labels_ns
    _fill_quotes(quotes, buckets, lost["quotes"], scale, flags, [out[name] for name in _OF_QUOTES])
    _fill_trades(trades, buckets, lost["trades"], scale, [out[name] for name in _OF_TRADES])
    _fill_depth(depth, buckets, lost["book_levels"], flags, out["imbalance_10"])
    if arrivals := out.keys() & {*ARRIVAL_NAMES}:
        found = arrival_columns(quotes, trades, buckets, lost["quotes"], lost["trades"], scale)
        for name in arrivals:
            out[name][:] = found[name]
    if levels := out.keys() & {*LADDER_NAMES}:
        known = {} if ladder is None else depth_columns(ladder, buckets, lost["book_levels"], scale)
        for name in levels:
            out[name][:] = known.get(name, np.nan)


def _fill_quotes(
    quotes: Columns,
    buckets: Buckets,
    lost: Sequence[LostTime],
    scale: schema.Scale,
    flags: np.ndarray,
    out: Sequence[FloatArray],
) -> None:
    recv_ns, bid_price, bid_size, ask_price, ask_size = arrays(
        quotes, "recv_ns", "bid_price", "bid_size", "ask_price", "ask_size"
    )
    rows = buckets.rows_before_edges("quotes", recv_ns)
    unlinked = np.zeros(buckets.count + 1, dtype=np.bool_)
    hidden = buckets.hidden(lost, recv_ns, rows)
    for span in hidden:
        unlinked[span] = True
    tick, lot = ratio(scale.tick_size), ratio(scale.lot_size)
    mid, microprice, spread, imbalance, ofi, variance = out
    made = (mid, microprice, spread, imbalance, ofi, variance)
    kernels.quote_features(bid_price, bid_size, ask_price, ask_size, rows, unlinked, tick, lot, made)
    flags |= _has_no_arrival(quotes, buckets, rows) * np.uint8(GridFlag.STALE)
    flags |= (np.isnan(mid) > unlinked[1:]) * np.uint8(GridFlag.ONE_SIDED)
    for column in out:
        for span in hidden:
            column[max(span.start - 1, 0) : max(span.stop - 1, 0)] = np.nan
    for column in (ofi, variance):
        for span in buckets.touched(lost):
            column[span] = np.nan


def _has_no_arrival(quotes: Columns, buckets: Buckets, rows: IntArray) -> NDArray[np.bool_]:
    """Return the buckets without a quote, snapshot rows apart."""
    is_empty: NDArray[np.bool_] = rows[1:] == rows[:-1]
    flags = quotes["flags"][rows[0] : rows[-1]]
    if np.bitwise_or.reduce(flags) & Flag.SNAPSHOT:
        snapshots = quotes["recv_ns"][rows[0] : rows[-1]][(flags & np.uint8(Flag.SNAPSHOT)) != 0]
        numbers, counts = np.unique(snapshots // buckets.step_ns - buckets.first, return_counts=True)
        is_empty[numbers] = rows[numbers + 1] - rows[numbers] == counts
    return is_empty


def _fill_trades(
    trades: Columns, buckets: Buckets, lost: Sequence[LostTime], scale: schema.Scale, out: Sequence[FloatArray]
) -> None:
    vwap, volume, signed_volume, trade_count = out
    buckets.trade_features(trades, scale, (vwap, volume, signed_volume, trade_count))
    for span in buckets.touched(lost):
        for column in out:
            column[span] = np.nan


def _fill_depth(
    depth: Columns, buckets: Buckets, lost: Sequence[LostTime], flags: np.ndarray, imbalance: FloatArray
) -> None:
    if len(depth["recv_ns"]) == 0:
        flags |= np.uint8(GridFlag.NO_BOOK)
        imbalance[:] = np.nan
        return
    recv_ns, bid_size, ask_size, known = arrays(depth, "recv_ns", "bid_size_10", "ask_size_10", "known")
    rows = buckets.rows_before_edges("depth", recv_ns)
    is_known = np.empty(buckets.count, dtype=np.bool_)
    kernels.depth_imbalance(bid_size, ask_size, known, rows, imbalance, is_known)
    for span in buckets.hidden(lost, recv_ns, rows):
        labels = slice(max(span.start - 1, 0), max(span.stop - 1, 0))
        imbalance[labels], is_known[labels] = np.nan, False
    flags |= ~is_known * np.uint8(GridFlag.NO_BOOK)
    flags |= (is_known & np.isnan(imbalance)) * np.uint8(GridFlag.ONE_SIDED)
