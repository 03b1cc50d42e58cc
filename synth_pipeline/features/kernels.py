"""Compiled loops over ticks: arrays and numbers in, arrays filled.

Here lives what walks every tick. What a gap, a coverage or a scale *means* is decided in `features.grid`; nothing here
knows of it. Edge j of a grid is the moment `first_edge_ns + j * step_ns`; bucket b lies between edges b and b + 1, and
edge b + 1 is its label. `rows[j]` counts the rows received before edge j: bucket b holds rows `rows[b]` up to
`rows[b + 1]`, and row `rows[j] - 1` is the last one known at edge j.

Every bucket is summed on its own, in row order, so that how a day is cut into windows changes no bit. Sizes are added
in float64, where whole numbers are exact up to 2**53 and then round; int64 would wrap unseen.

Three habits make these loops fast, all measured: what can be computed without a branch is computed for a block of rows
first; indices are unsigned where numba cannot see that they are not negative; results go into arrays that numpy made,
because numpy asks for huge pages and numba does not (3 against 9 ms to write three million float64).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray

Ratio = tuple[float, float]
"""A scale as numerator and denominator, both whole: dividing by 10 rounds once, multiplying by 0.1 twice."""

_BLOCK = 1024  # rows worked on at once: their buffers stay in the first-level cache
_GROUP = 256  # buckets labelled at once, while the rows before their labels are still in the second-level cache
_EXACT_NS = np.int64(1) << 50  # thirteen days
_SERIES_LIMIT = 0.01  # up to here four terms of the artanh series are exact to the last bit or two


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _steps_back(recv_ns: IntArray) -> int:
    """Return a negative number where a row was received before the one above it."""
    steps_back = np.int64(0)
    for row in range(1, recv_ns.size):
        steps_back |= recv_ns[row] - recv_ns[row - 1]
    return int(steps_back)


@njit(cache=True, nogil=True, error_model="numpy")
def is_in_time_order(recv_ns: IntArray) -> bool:
    """Return whether no row was received before the one above it."""
    return bool(_steps_back(recv_ns) >= 0)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _bucket_numbers(
    recv_ns: IntArray, edge_ns: int, step_ns: int, after_ns: np.int64, before_ns: np.int64, to: IntArray
) -> bool:
    """Fill `to` with the bucket of each row, the edge being where bucket 0 starts.

    Returns False, and fills nothing, unless the rows are in time order and lie within [after_ns, before_ns): numbers
    of others would be no place to write to. Division is slow and a product with the reciprocal may round to below a
    whole number, so half a nanosecond is added: then a product of less than 2**50 ns is at least 0.5 / step_ns from any
    whole number, more than both roundings can move it.
    """
    last_ns = recv_ns[recv_ns.size - 1]
    if (_steps_back(recv_ns) | (recv_ns[0] - after_ns) | (before_ns - 1 - last_ns)) < 0:
        return False
    first = (recv_ns[0] - edge_ns) // step_ns
    start_ns = edge_ns + first * step_ns
    per_step = 1.0 / step_ns
    if last_ns - start_ns < _EXACT_NS:
        for i in range(recv_ns.size):
            to[i] = first + np.int64((float(recv_ns[i] - start_ns) + 0.5) * per_step)
    else:
        for i in range(recv_ns.size):
            to[i] = (recv_ns[i] - edge_ns) // step_ns
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def last_rows(recv_ns: IntArray, first_edge_ns: int, step_ns: int, last: IntArray) -> bool:
    """Fill `last[b]` with 1 + the number of the last row of bucket b, 0 where it has none; return whether sorted.

    `recv_ns` holds the rows within the edges only. Each row leaves its number at its bucket, so the last one wins and
    no bucket is searched for.
    """
    last[:] = 0
    numbers = np.empty(_BLOCK, dtype=np.int64)
    after_ns, before_ns = np.int64(first_edge_ns), np.int64(first_edge_ns + last.size * step_ns)
    for start in range(0, recv_ns.size, _BLOCK):
        block = recv_ns[start : start + _BLOCK]
        if not _bucket_numbers(block, first_edge_ns, step_ns, after_ns, before_ns, numbers):
            return False
        after_ns = block[block.size - 1]
        for i in range(block.size):
            last[np.uint64(numbers[i])] = start + i + 1
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def rows_before_edges(recv_ns: IntArray, first_edge_ns: int, step_ns: int, rows: IntArray) -> bool:
    """Fill `rows[j]` with the number of rows received before edge j; return whether they are in time order.

    `recv_ns` holds the rows within the edges only. An edge whose bucket has no row takes over the count before it.
    """
    rows[0] = 0
    is_sorted = last_rows(recv_ns, first_edge_ns, step_ns, rows[1:])
    count = np.int64(0)
    for edge in range(rows.size):
        more = rows[edge] - count
        count += more & ~(more >> 63)  # the larger of the two, without a branch to mispredict
        rows[edge] = count
    return is_sorted


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _side_flow(price_before: int, size_before: int, price: int, size: int) -> int:
    """Return the bid half of the e_n of Cont, Kukanov and Stoikov (2014); negated prices give the ask half."""
    return (size if price >= price_before else 0) - (size_before if price <= price_before else 0)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _log_change(ratio: float) -> float:
    """Return log(b / a) = 2 artanh(ratio) for a small ratio = (b - a) / (b + a).

    The difference of two logarithms would lose to cancellation what two neighbouring prices differ by.
    """
    square = ratio * ratio
    return 2.0 * ratio * (1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0))))


@njit(cache=True, nogil=True, error_model="numpy")
def _large_changes(
    bid_price: IntArray, bid_size: IntArray, ask_price: IntArray, ask_size: IntArray, squared: FloatArray
) -> None:
    """Correct `squared` where the price moved too far for the series, or has no logarithm (NaN)."""
    for i in range(bid_price.size - 1):
        if min(bid_size[i], ask_size[i], bid_size[i + 1], ask_size[i + 1]) > 0:
            before, after = bid_price[i] + ask_price[i], bid_price[i + 1] + ask_price[i + 1]
            if before <= 0 or after <= 0:
                squared[i] = math.nan
            elif abs(float(after - before) / float(after + before)) > _SERIES_LIMIT:
                squared[i] = math.log1p(float(after - before) / before) ** 2


@njit(cache=True, nogil=True, error_model="numpy")
def _quote_changes(
    bid_price: IntArray,
    bid_size: IntArray,
    ask_price: IntArray,
    ask_size: IntArray,
    flow: FloatArray,
    squared: FloatArray,
) -> None:
    """Fill `flow[i]` (e_n in lots) and `squared[i]` (squared log-mid change) with the change from row i to row i + 1.

    A change from or to a one-sided book is 0. The loop has no branch, so that it compiles to vector instructions.
    """
    has_large = False
    for i in range(bid_price.size - 1):
        bid, bid_next, ask, ask_next = bid_price[i], bid_price[i + 1], ask_price[i], ask_price[i + 1]
        is_two_sided = (bid_size[i] > 0) & (ask_size[i] > 0) & (bid_size[i + 1] > 0) & (ask_size[i + 1] > 0)
        net = _side_flow(bid, bid_size[i], bid_next, bid_size[i + 1])
        net -= _side_flow(-ask, ask_size[i], -ask_next, ask_size[i + 1])
        before, after = bid + ask, bid_next + ask_next
        ratio = float(after - before) / float(max(after + before, 1))
        change = _log_change(ratio)
        flow[i] = float(net) if is_two_sided else 0.0
        squared[i] = change * change if is_two_sided else 0.0
        has_large |= is_two_sided & ((abs(ratio) > _SERIES_LIMIT) | (before <= 0) | (after <= 0))
    if has_large:
        _large_changes(bid_price, bid_size, ask_price, ask_size, squared)


@njit(cache=True, nogil=True, error_model="numpy")
def _touch(
    bid_price: IntArray,
    bid_size: IntArray,
    ask_price: IntArray,
    ask_size: IntArray,
    rows: IntArray,
    first: int,
    tick: Ratio,
    last: IntArray,
    out: tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray],
) -> None:
    """Label a group of buckets from bucket `first` on: mid, microprice, spread, imbalance; NaN for a one-sided book.

    `rows` counts those before the group's labels. The scratch space `last` parts the gathering of scattered rows from
    the arithmetic, which so becomes vector instructions.
    """
    for b in range(rows.size):
        row = np.uint64(max(rows[b] - 1, 0))
        last[0, b], last[1, b] = bid_price[row], ask_price[row]
        last[2, b], last[3, b] = bid_size[row], ask_size[row]
    bids, asks, bid_sizes, ask_sizes = last[0], last[1], last[2], last[3]
    mid, microprice, spread, imbalance = out[0][first:], out[1][first:], out[2][first:], out[3][first:]
    per_tick, per_half_tick = tick[1], 2.0 * tick[1]
    for b in range(rows.size):
        is_two_sided = (bid_sizes[b] > 0) & (ask_sizes[b] > 0)
        tilt = float(bid_sizes[b] - ask_sizes[b]) / max(float(bid_sizes[b]) + float(ask_sizes[b]), 1.0)
        both, width = float(bids[b] + asks[b]), float(asks[b] - bids[b])
        mid[b] = both * tick[0] / per_half_tick if is_two_sided else math.nan
        microprice[b] = (both + width * tilt) * tick[0] / per_half_tick if is_two_sided else math.nan
        spread[b] = width * tick[0] / per_tick if is_two_sided else math.nan
        imbalance[b] = tilt if is_two_sided else math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def quote_features(
    bid_price: IntArray,
    bid_size: IntArray,
    ask_price: IntArray,
    ask_size: IntArray,
    rows: IntArray,
    unlinked: NDArray[np.bool_],
    tick: Ratio,
    lot: Ratio,
    out: tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray],
) -> None:
    """Fill mid, microprice, spread and imbalance at the label of every bucket; OFI and realized variance within it.

    Microprice is (bid * ask size + ask * bid size) / (bid size + ask size), written as mid + spread / 2 * imbalance.
    Where `unlinked[b]`, the first change of bucket b does not count, since what came before is not known; so it is
    wherever `rows[b]` is 0.
    """
    if rows[-1] == 0:
        for column in out:
            column[:] = math.nan
        return
    ofi, realized_variance = out[4], out[5]
    ofi[:], realized_variance[:] = 0.0, 0.0
    flow, squared = np.empty(_BLOCK, dtype=np.float64), np.empty(_BLOCK, dtype=np.float64)
    last = np.empty((4, _GROUP), dtype=np.int64)
    busy = np.empty(_GROUP, dtype=np.int64)
    block, block_end = np.int64(0), np.int64(0)
    for group in range(0, rows.size - 1, _GROUP):
        group_end = min(group + _GROUP, rows.size - 1)
        count = np.int64(0)
        for bucket in range(group, group_end):
            busy[np.uint64(count)] = bucket
            count += np.int64(rows[bucket + 1] != rows[bucket])
        for turn in range(count):
            b = np.uint64(busy[turn])
            row, stop = rows[b] + np.int64(unlinked[b]), rows[b + np.uint64(1)]
            net, squares = 0.0, 0.0
            while row < stop:
                if row >= block_end:
                    block, block_end = row, min(row + _BLOCK, rows[-1])
                    span = slice(block - 1, block_end)
                    _quote_changes(bid_price[span], bid_size[span], ask_price[span], ask_size[span], flow, squared)
                upto = min(stop, block_end)
                for i in range(np.uint64(row - block), np.uint64(upto - block)):
                    net += flow[i]
                    squares += squared[i]
                row = upto
            ofi[b] = net * lot[0] / lot[1]
            realized_variance[b] = squares
        labels = rows[group + 1 : group_end + 1]
        _touch(bid_price, bid_size, ask_price, ask_size, labels, group, tick, last, out)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _vwap(anchor: int | np.int64, volume: float, deviation: float, tick: Ratio, inverse: bool) -> float:
    """Return the VWAP of `trade_features`, NaN without a volume."""
    if volume <= 0:
        return math.nan
    shift = anchor * deviation / (volume - deviation) if inverse else deviation / volume
    return (anchor + shift) * tick[0] / tick[1]


@njit(cache=True, nogil=True, error_model="numpy")
def trade_features(  # noqa: C901 - one pass over the trades; a call in it would cost a third of its time
    recv_ns: IntArray,
    price: IntArray,
    size: IntArray,
    side: NDArray[np.int8],
    flags: NDArray[np.uint8],
    excluded: int,
    first_edge_ns: int,
    step_ns: int,
    tick: Ratio,
    lot: Ratio,
    inverse: bool,
    out: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
) -> bool:
    """Fill VWAP, volume, signed volume and trade count of every bucket; rows with an `excluded` flag apart.

    Return whether the rows are in time order; they are those within the edges. Where the array of the trade count is
    empty, the last two are left out. VWAP is summed as deviation from the bucket's first price p0, which keeps the
    products small and makes the VWAP of a single price that price: p0 + D / Q with D = sum q (p - p0) and Q = sum q.
    Inverse contracts are weighted by the base amount q / p instead: Q / sum(q / p) = p0 + p0 D / (Q - D) with
    D = sum q (p - p0) / p.
    """
    vwap, volume, signed_volume, trade_count = out
    vwap[:] = math.nan
    volume[:], signed_volume[:], trade_count[:] = 0.0, 0.0, 0.0
    is_whole = trade_count.size > 0
    numbers = np.empty(_BLOCK, dtype=np.int64)
    after_ns, before_ns = np.int64(first_edge_ns), np.int64(first_edge_ns + volume.size * step_ns)
    bucket, anchor = np.uint64(volume.size), np.int64(0)
    trades, total, signed, deviation = 0.0, 0.0, 0.0, 0.0
    for start in range(0, recv_ns.size, _BLOCK):
        block = recv_ns[start : start + _BLOCK]
        if not _bucket_numbers(block, first_edge_ns, step_ns, after_ns, before_ns, numbers):
            return False
        after_ns = block[block.size - 1]
        for i in range(block.size):
            row = np.uint64(start + i)
            if flags[row] & excluded:
                continue
            if np.uint64(numbers[i]) != bucket:
                if trades > 0:
                    vwap[bucket] = _vwap(anchor, total, deviation, tick, inverse)
                    volume[bucket] = total * lot[0] / lot[1]
                    if is_whole:
                        signed_volume[bucket], trade_count[bucket] = signed * lot[0] / lot[1], trades
                bucket, anchor = np.uint64(numbers[i]), price[row]
                trades, total, signed, deviation = 0.0, 0.0, 0.0, 0.0
            trades += 1.0
            total += size[row]
            weighted = float(price[row] - anchor) * size[row]
            deviation += weighted / price[row] if inverse else weighted
            if is_whole:
                signed += side[row] * size[row]
    if trades > 0:
        vwap[bucket] = _vwap(anchor, total, deviation, tick, inverse)
        volume[bucket] = total * lot[0] / lot[1]
        if is_whole:
            signed_volume[bucket], trade_count[bucket] = signed * lot[0] / lot[1], trades
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def depth_imbalance(
    bid_size: IntArray,
    ask_size: IntArray,
    known: NDArray[np.bool_],
    rows: IntArray,
    out: FloatArray,
    is_known: NDArray[np.bool_],
) -> None:
    """Fill `out[b]` with (bid - ask) / (bid + ask) at the label, NaN unless both are positive, and `is_known[b]`."""
    for b in range(rows.size - 1):
        row = np.uint64(rows[b + 1] - 1)
        is_known[b] = rows[b + 1] > 0 and known[row]
        if is_known[b] and min(bid_size[row], ask_size[row]) > 0:
            out[b] = float(bid_size[row] - ask_size[row]) / (float(bid_size[row]) + float(ask_size[row]))
        else:
            out[b] = math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def lean_touch(
    recv_ns: IntArray,
    bid_price: IntArray,
    ask_price: IntArray,
    bid_size: IntArray,
    ask_size: IntArray,
    before: int,
    first_edge_ns: int,
    step_ns: int,
    tick: Ratio,
    last: IntArray,
    mid: FloatArray,
    spread: FloatArray,
) -> bool:
    """Fill mid and spread at the labels; return whether the rows are in time order.

    `recv_ns` holds the rows within the edges only, the other columns those `before` them too. `last` is room for a
    number a bucket and may share its memory with `mid`. Where the sizes are empty arrays, every quote is taken to be
    two-sided: two columns less to read.
    """
    if not last_rows(recv_ns, first_edge_ns, step_ns, last):
        return False
    unknown = np.int64(0)
    if before == 0:  # nothing is carried in: the first row is the first thing known
        unknown = (recv_ns[0] - first_edge_ns) // step_ns if recv_ns.size else np.int64(last.size)
        mid[:unknown], spread[:unknown] = math.nan, math.nan
    has_sizes = bid_size.size > 0
    found = np.ones((4, _GROUP), dtype=np.int64)
    bids, asks, bid_sizes, ask_sizes = found[0], found[1], found[2], found[3]
    known = np.int64(before)
    for group in range(unknown, last.size, _GROUP):
        inside = last[group : group + _GROUP]
        mids, widths = mid[group : group + _GROUP], spread[group : group + _GROUP]
        for b in range(inside.size):
            known = max(known, inside[b] + before)
            row = np.uint64(known - 1)
            bids[b], asks[b] = bid_price[row], ask_price[row]
            if has_sizes:
                bid_sizes[b], ask_sizes[b] = bid_size[row], ask_size[row]
        for b in range(inside.size):
            is_two_sided = (bid_sizes[b] > 0) & (ask_sizes[b] > 0)
            mids[b] = float(bids[b] + asks[b]) * tick[0] / (2.0 * tick[1]) if is_two_sided else math.nan
            widths[b] = float(asks[b] - bids[b]) * tick[0] / tick[1] if is_two_sided else math.nan
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def arrivals(
    recv_ns: IntArray,
    flags: NDArray[np.uint8],
    excluded: int,
    first_edge_ns: int,
    step_ns: int,
    last_row: IntArray,
    out: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
) -> bool:
    """Fill count, first and last (ns after the bucket's start, NaN without one) and sum of squared intervals (ns²).

    `last_row[b]` becomes 1 + the number of the last row of bucket b that counts, 0 without one; rows with an `excluded`
    flag do not count. Intervals are those between two arrivals of the same bucket. Returns whether the rows are in time
    order.
    """
    count, first, last, squares = out
    count[:], first[:], last[:], squares[:] = 0.0, math.nan, math.nan, 0.0
    last_row[:] = 0
    numbers = np.empty(_BLOCK, dtype=np.int64)
    after_ns, before_ns = np.int64(first_edge_ns), np.int64(first_edge_ns + count.size * step_ns)
    for start in range(0, recv_ns.size, _BLOCK):
        block = recv_ns[start : start + _BLOCK]
        if not _bucket_numbers(block, first_edge_ns, step_ns, after_ns, before_ns, numbers):
            return False
        after_ns = block[block.size - 1]
        for i in range(block.size):
            if flags[start + i] & excluded:
                continue
            b = np.uint64(numbers[i])
            since = float(block[i] - first_edge_ns - numbers[i] * step_ns)
            if last_row[b] == 0:
                first[b] = since
            else:
                squares[b] += (since - last[b]) ** 2
            last[b] = since
            last_row[b] = start + i + 1
            count[b] += 1.0
    return True
