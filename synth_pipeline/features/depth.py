"""Features of the levels behind the touch: depth-weighted mid, slope, imbalance, multi-level order flow, depth that
came and went.

What belongs here: what needs a ladder, the best levels of the book after every event. Which moments are hidden is
decided as for the quotes (`features.grid`); the stream is `book_levels`.

**Depth-weighted mid**: sum of p q over the ten best levels of both sides, over the sum of q (the weighted price WP of
Cao, Hansch and Wang (2009), "The information content of an open limit-order book", Journal of Futures Markets 29).

**Slope** of a side: size per price of the line through the origin that fits best how cumulative size Q_j grows with the
distance d_j of level j from the mid, sum of d_j Q_j over sum of d_j²; the feature is the mean of both sides. It is the
density of the block-shaped book of Obizhaeva and Wang (2013), "Optimal trading strategy and supply/demand dynamics",
Journal of Financial Markets 16: its reciprocal is what a unit of size moves the price by. NaN for a crossed book, or a
locked one with a single level.

**Order flow of level m**: e_n of Cont, Kukanov and Stoikov (2014), with level m in place of the touch, summed over the
bucket (Xu, Gould and Howison (2018), "Multi-level order-flow imbalance in a limit order book", Market Microstructure
and Liquidity 4). A change from or to a book without that level counts nothing.

**Depth added and removed**: between two events, every price that both ladders show (the worse of the two last prices
bounds it) is compared; growth of its size is added, shrinkage removed. What came and went between two events is not
seen, so both are lower bounds. What trades do not explain of the size removed was cancelled.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline import schema
from synth_pipeline.features.buckets import Buckets, Columns, LostTime, arrays, ratio
from synth_pipeline.series import FloatArray, IntArray

NAMES = (
    "depth_mid",
    "book_slope",
    "imbalance_5",
    "ofi_1",
    "ofi_2",
    "ofi_3",
    "ofi_4",
    "ofi_5",
    "depth_added",
    "depth_removed",
)
_FLOW = 3
"""Where in `NAMES` the sums over the bucket begin: five of order flow, then added and removed."""
_FLOW_LEVELS = 5
_NEEDS = (10, 10, 5, 1, 2, 3, 4, 5, 10, 10)
"""How many levels the source must show for each of `NAMES`."""


def depth_columns(
    ladder: Columns, buckets: Buckets, lost: list[LostTime], scale: schema.Scale
) -> dict[str, FloatArray]:
    """Return the features of `NAMES`, a row per bucket.

    `ladder` holds `recv_ns` and, of shape (events, levels) with the best level first, `bid_price`, `bid_size`,
    `ask_price` and `ask_size`; a size of 0 says that the side has no such level. It holds the rows of the buckets, and
    the last before them. A feature is NaN where the source shows fewer levels than it needs.
    """
    recv_ns, bid_price, bid_size, ask_price, ask_size = arrays(
        ladder, "recv_ns", "bid_price", "bid_size", "ask_price", "ask_size"
    )
    rows = buckets.rows_before_edges("book_levels", recv_ns)
    hidden = buckets.hidden(lost, recv_ns, rows)
    unlinked = np.zeros(buckets.count + 1, dtype=np.bool_)
    for span in hidden:
        unlinked[span] = True
    out = np.full((len(NAMES), buckets.count), np.nan)
    if len(recv_ns):
        _state(bid_price, bid_size, ask_price, ask_size, rows, out)
        _flow(bid_price, bid_size, ask_price, ask_size, rows, unlinked, out[_FLOW:])
    for span in hidden:
        out[:, max(span.start - 1, 0) : max(span.stop - 1, 0)] = np.nan
    for span in buckets.touched(lost):
        out[_FLOW:, span] = np.nan
    out[np.array(_NEEDS) > bid_price.shape[1]] = np.nan
    tick, lot = ratio(scale.tick_size), ratio(scale.lot_size)
    out[0] = out[0] * tick[0] / tick[1]
    out[1] = out[1] * lot[0] / lot[1] * tick[1] / tick[0]
    out[_FLOW:] = out[_FLOW:] * lot[0] / lot[1]
    return dict(zip(NAMES, out, strict=True))


@njit(cache=True, nogil=True, error_model="numpy")
def _state(
    bid_price: IntArray, bid_size: IntArray, ask_price: IntArray, ask_size: IntArray, rows: IntArray, out: FloatArray
) -> None:
    """Fill `out[:3, b]` with depth-weighted mid, slope and imbalance of five levels at the label, in ticks and lots."""
    for b in range(rows.size - 1):
        row = max(rows[b + 1] - 1, 0)
        bids, bid_lots, asks, ask_lots = bid_price[row], bid_size[row], ask_price[row], ask_size[row]
        if bid_lots[0] <= 0 or ask_lots[0] <= 0:
            out[:3, b] = math.nan
            continue
        anchor, mid = bids[0], (bids[0] + asks[0]) / 2.0
        weight, moment = 0.0, 0.0
        for level in range(bids.size):
            weight += bid_lots[level] + ask_lots[level]
            moment += float(bids[level] - anchor) * bid_lots[level] + float(asks[level] - anchor) * ask_lots[level]
        out[0, b] = anchor + moment / weight
        out[1, b] = (_side_slope(bids, bid_lots, mid) + _side_slope(asks, ask_lots, mid)) / 2.0
        bid, ask = float(bid_lots[:_FLOW_LEVELS].sum()), float(ask_lots[:_FLOW_LEVELS].sum())
        out[2, b] = (bid - ask) / (bid + ask)
        if asks[0] < bids[0]:
            out[1, b] = math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _side_slope(prices: IntArray, sizes: IntArray, mid: float) -> float:
    """Return the slope of cumulative size on distance from the mid, through the origin."""
    total, product, square = 0.0, 0.0, 0.0
    for level in range(prices.size):
        if sizes[level] > 0:
            distance = abs(prices[level] - mid)
            total += sizes[level]
            product += distance * total
            square += distance * distance
    return product / square if square > 0 else math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _flow(
    bid_price: IntArray,
    bid_size: IntArray,
    ask_price: IntArray,
    ask_size: IntArray,
    rows: IntArray,
    unlinked: NDArray[np.bool_],
    out: FloatArray,
) -> None:
    """Fill `out`, shape (7, buckets), in lots: order flow of five levels, size added, size removed.

    Where `unlinked[b]`, the first change of bucket b does not count, since what came before is not known.
    """
    out[:] = 0.0
    levels = min(_FLOW_LEVELS, bid_price.shape[1])
    for b in range(rows.size - 1):
        for row in range(max(rows[b] + np.int64(unlinked[b]), 1), rows[b + 1]):
            for level in range(levels):
                sizes = (bid_size[row - 1, level], bid_size[row, level], ask_size[row - 1, level], ask_size[row, level])
                if min(sizes) > 0:
                    out[level, b] += _side_flow(bid_price[row - 1, level], sizes[0], bid_price[row, level], sizes[1])
                    out[level, b] -= _side_flow(-ask_price[row - 1, level], sizes[2], -ask_price[row, level], sizes[3])
            for price, size, sign in ((bid_price, bid_size, 1), (ask_price, ask_size, -1)):
                added, removed = _changed(price[row - 1], size[row - 1], price[row], size[row], sign)
                out[_FLOW_LEVELS, b] += added
                out[_FLOW_LEVELS + 1, b] += removed


@njit(cache=True, nogil=True, error_model="numpy")
def _side_flow(price_before: int, size_before: int, price: int, size: int) -> int:
    """Return the bid half of e_n; negated prices give the ask half."""
    return (size if price >= price_before else 0) - (size_before if price <= price_before else 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _changed(
    before: IntArray, size_before: IntArray, after: IntArray, size: IntArray, sign: int
) -> tuple[float, float]:
    """Return the size added and removed at the prices that both ladders of one side show."""
    added, removed, old, new = 0.0, 0.0, 0, 0
    while True:
        # A side whose last level is empty is shown whole; else what lies behind the last price is not known.
        has_old, has_new = old < before.size and size_before[old] > 0, new < after.size and size[new] > 0
        if (not has_old and old == before.size) or (not has_new and new == after.size) or not (has_old or has_new):
            return added, removed
        ahead = 0 if not (has_old and has_new) else sign * (before[old] - after[new])
        if has_old and has_new and ahead == 0:
            change = float(size[new] - size_before[old])
            added, removed = added + max(change, 0.0), removed + max(-change, 0.0)
            old, new = old + 1, new + 1
        elif not has_new or (has_old and ahead > 0):
            removed += size_before[old]
            old += 1
        else:
            added += size[new]
            new += 1
