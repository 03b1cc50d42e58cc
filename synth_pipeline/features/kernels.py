"""Compiled loops over ticks: arrays and numbers in, arrays filled.

Here lives what walks every tick. What a gap, a coverage or a scale *means* is decided in `features.grid`, which hands
over plain masks. Edge j of a grid is the moment `first_edge_ns + j * step_ns`; bucket b lies between edges b and b + 1,
and edge b + 1 is its label. `rows[j]` counts the rows received before edge j, so bucket b holds rows `rows[b]` to
`rows[b + 1]`, and row `rows[j] - 1` is the last that was known at edge j.

Every bucket is summed on its own, in row order, so how a day is cut into windows changes no bit. Only + - * / touch the
numbers (the logarithm of a rare large price move apart), and every machine rounds those alike. Indices are unsigned
where the loop is hot, since numba otherwise tests each one for being negative; results are written into arrays that
numpy made, since numpy asks for huge pages and numba does not (3 against 9 ms for three million rows of float64).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray

BoolArray = NDArray[np.bool_]
ByteArray = NDArray[np.uint8]
SideArray = NDArray[np.int8]

_BLOCK = 1024  # rows worked on at once: two int64 buffers of it stay in the first-level cache
_SERIES_LIMIT = 0.01  # up to here four terms of the artanh series are exact to the last bit or two


@njit(cache=True, error_model="numpy")
def rows_before_edges(recv_ns: IntArray, first_edge_ns: int, step_ns: int, rows: IntArray) -> bool:
    """Fill `rows[j]` with the number of rows received before edge j; return whether the rows are in time order.

    `recv_ns` holds only rows within the edges. Each row leaves its number at the edge that follows it, so the last row
    of a bucket wins; then edges that no row wrote to take over the count before them. No bucket is searched for.
    """
    rows[:] = 0
    per_step = 1.0 / step_ns
    following = np.empty(_BLOCK, dtype=np.int64)
    steps_back = np.int64(0)
    for start in range(0, recv_ns.size, _BLOCK):
        block = recv_ns[start : start + _BLOCK]
        for i in range(1, block.size):
            steps_back |= block[i] - block[i - 1]
        for i in range(block.size):
            late = block[i] - first_edge_ns
            bucket = np.int64(late * per_step)
            # The product may be one bucket off; the remainder says so.
            remainder = late - bucket * step_ns
            following[i] = bucket + 1 + np.int64(remainder >= step_ns) - np.int64(remainder < 0)
        if start:
            steps_back |= block[0] - recv_ns[start - 1]
        for i in range(block.size):
            rows[np.uint64(following[i])] = start + i + 1
    count = np.int64(0)
    for edge in range(rows.size):
        count = max(count, rows[edge])
        rows[edge] = count
    return steps_back >= 0


@njit(cache=True, error_model="numpy", inline="always")
def _side_flow(price_before: int, size_before: int, price: int, size: int) -> int:
    """Return the bid half of the e_n of Cont, Kukanov and Stoikov (2014); negated prices give the ask half."""
    return (size if price >= price_before else 0) - (size_before if price <= price_before else 0)


@njit(cache=True, error_model="numpy", inline="always")
def _log_change(ratio: float) -> float:
    """Return log(b / a) of ratio = (b - a) / (b + a), small: 2 artanh(ratio).

    Unlike the difference of two logarithms it loses nothing to cancellation.
    """
    square = ratio * ratio
    return 2.0 * ratio * (1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0))))


@njit(cache=True, error_model="numpy")
def _quote_changes(
    bid_price: IntArray,
    bid_size: IntArray,
    ask_price: IntArray,
    ask_size: IntArray,
    flow: IntArray,
    squared: FloatArray,
) -> None:
    """Fill `flow[i]` (lots) and `squared[i]` (squared log-mid change) with the change from row i to row i + 1.

    A change from or to a one-sided book is 0. The first loop has no branch, so that it becomes vector instructions;
    the second is for the rare blocks in which a price moved far or was not positive (its logarithm is NaN).
    """
    is_rare = False
    for i in range(bid_price.size - 1):
        bid, bid_next, ask, ask_next = bid_price[i], bid_price[i + 1], ask_price[i], ask_price[i + 1]
        is_two_sided = (bid_size[i] > 0) & (ask_size[i] > 0) & (bid_size[i + 1] > 0) & (ask_size[i + 1] > 0)
        net = _side_flow(bid, bid_size[i], bid_next, bid_size[i + 1])
        net -= _side_flow(-ask, ask_size[i], -ask_next, ask_size[i + 1])
        before, after = bid + ask, bid_next + ask_next
        ratio = float(after - before) / float(after + before)
        change = _log_change(ratio)
        flow[i] = net if is_two_sided else 0
        squared[i] = change * change if is_two_sided else 0.0
        is_rare |= is_two_sided & ((abs(ratio) > _SERIES_LIMIT) | (before <= 0) | (after <= 0))
    if is_rare:
        for i in range(bid_price.size - 1):
            if min(bid_size[i], ask_size[i], bid_size[i + 1], ask_size[i + 1]) > 0:
                before, after = bid_price[i] + ask_price[i], bid_price[i + 1] + ask_price[i + 1]
                if before <= 0 or after <= 0:
                    squared[i] = math.nan
                elif abs(float(after - before) / float(after + before)) > _SERIES_LIMIT:
                    squared[i] = math.log(after / before) ** 2


@njit(cache=True, error_model="numpy")
def quote_features(
    bid_price: IntArray,
    bid_size: IntArray,
    ask_price: IntArray,
    ask_size: IntArray,
    is_update: BoolArray,
    rows: IntArray,
    hidden: BoolArray,
    touched: BoolArray,
    ticks: tuple[float, float],
    lots: tuple[float, float],
    marks: tuple[int, int],
    out: FloatArray,
    flags: ByteArray,
) -> None:
    n = rows.size - 1
    end = rows[n]
    mid, microprice, spread, imbalance, ofi, variance = out[0], out[1], out[2], out[3], out[4], out[5]
    tick, per_tick = ticks
    lot, per_lot = lots
    stale, one_sided = marks
    flow = np.empty(_BLOCK, dtype=np.int64)
    squared = np.empty(_BLOCK, dtype=np.float64)
    block, block_end = np.int64(0), np.int64(0)
    for b in range(n):
        start, stop = rows[b], rows[b + 1]
        is_known = stop > 0 and not hidden[b + 1]
        if stop > start or b == 0:
            last = np.uint64(max(stop - 1, 0))
            if stop > 0 and min(bid_size[last], ask_size[last]) > 0:
                bid, ask, bid_lots, ask_lots = bid_price[last], ask_price[last], bid_size[last], ask_size[last]
                total = float(bid_lots) + float(ask_lots)
                mid_now = (bid + ask) * tick / (2.0 * per_tick)
                spread_now = (ask - bid) * tick / per_tick
                micro_now = (bid + (ask - bid) * (bid_lots / total)) * tick / per_tick
                imb_now = (bid_lots - ask_lots) / total
            else:
                mid_now = micro_now = spread_now = imb_now = math.nan
        if is_known:
            mid[b], microprice[b], spread[b], imbalance[b] = mid_now, micro_now, spread_now, imb_now
            if math.isnan(mid_now):
                flags[b] |= one_sided
        else:
            mid[b], microprice[b], spread[b], imbalance[b] = math.nan, math.nan, math.nan, math.nan
        if not _any(is_update, start, stop):
            flags[b] |= stale
        if not is_known or touched[b]:
            ofi[b] = variance[b] = math.nan
            continue
        if start==stop:
            ofi[b]=variance[b]=0.0
            continue
        row = start + np.int64(hidden[b] or start == 0)
        net, squares = 0, 0.0
        while row < stop:
            if row >= block_end:
                block, block_end = row, min(row + _BLOCK, end)
                span = slice(block - 1, block_end)
                _quote_changes(bid_price[span], bid_size[span], ask_price[span], ask_size[span], flow, squared)
            upto = min(stop, block_end)
            for i in range(np.uint64(row - block), np.uint64(upto - block)):
                net += flow[i]
                squares += squared[i]
            row = upto
        ofi[b] = net * lot / per_lot
        variance[b] = squares


@njit(cache=True, error_model="numpy")
def _any(marks: BoolArray, start: int, stop: int) -> bool:
    """Return whether any row is marked; looks from the last, which nearly always is."""
    for row in range(stop - 1, start - 1, -1):
        if marks[row]:
            return True
    return False


@njit(cache=True, error_model="numpy")
def trade_features(
    price: IntArray,
    size: IntArray,
    side: SideArray,
    flags: ByteArray,
    excluded: int,
    rows: IntArray,
    touched: BoolArray,
    ticks: tuple[float, float],
    lots: tuple[float, float],
    inverse: bool,
    out: FloatArray,
) -> None:
    vwap, volume, signed, count = out[0], out[1], out[2], out[3]
    tick, per_tick = ticks
    lot, per_lot = lots
    for b in range(rows.size - 1):
        total, net, trades, anchor, deviation = 0, 0, 0, 0, 0.0
        for row in range(np.uint64(rows[b]), np.uint64(rows[b + 1])):
            if flags[row] & excluded:
                continue
            if trades == 0:
                anchor = price[row]
            trades += 1
            total += size[row]
            net += side[row] * size[row]
            d = float(price[row] - anchor) * size[row]
            deviation += d / price[row] if inverse else d
        if touched[b]:
            vwap[b]=volume[b]=signed[b]=count[b]=math.nan
        elif trades==0:
            vwap[b]=math.nan
            volume[b]=signed[b]=count[b]=0.0
        else:
            count[b] = trades
            volume[b] = total * lot / per_lot
            signed[b] = net * lot / per_lot
            vwap[b] = (anchor + (anchor * deviation / (total - deviation) if inverse else deviation / total)) * tick / per_tick
