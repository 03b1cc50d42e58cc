"""Compiled sums and recursions over the log-returns of many paths: arrays in, arrays out, NaN for a gap.

A run is a stretch without NaN. No recursion, lag or box reaches from one run into the next. Each row is worked on by
itself, laid out side by side in memory, so that it gives the same bits in any company. Sums of squares and products are
about the mean, found first: no digits are lost where it dwarfs the spread. Each kernel has a slow twin in the tests;
what needs neither runs nor long sums is in `moments` and in the metric families.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray

CONSTANT = 1e-9
"""Share of its own size below which a spread is rounding noise: the row counts as constant."""
MANY = 32
"""A scan compares this many returns while one is looked up."""
_ANY_ORDER = {"reassoc", "contract"}
"""What lets the compiler spread a sum over vector registers: two to five times as fast."""


@njit(cache=True, fastmath=_ANY_ORDER)
def moments(values: FloatArray) -> FloatArray:
    """Return mean and second to fourth central moment (divisor n) of each row's known values, shape (4, paths).

    NaN for a row without any; the second moment of a constant row is exactly 0.
    """
    paths, steps = values.shape
    result = np.full((4, paths), np.nan)
    for path in range(paths):
        row = np.ascontiguousarray(values[path])
        known, total, size = 0, 0.0, 0.0
        for t in range(steps):
            if np.isfinite(row[t]):
                known += 1
                total += row[t]
                size += abs(row[t])
        if known == 0:
            continue
        centre = total / known
        second, third, fourth = 0.0, 0.0, 0.0
        for t in range(steps):
            if np.isfinite(row[t]):
                square = (row[t] - centre) ** 2
                second += square
                third += square * (row[t] - centre)
                fourth += square * square
        if _is_constant(second, known, size):
            second = 0.0
        result[0, path] = centre
        result[1, path] = second / known
        result[2, path] = third / known
        result[3, path] = fourth / known
    return result


@njit(cache=True)
def _is_constant(square: float, count: int, size: float) -> bool:
    """Say whether a sum of squares about the mean is rounding noise, beside the sum of the sizes."""
    return square * count <= (CONSTANT * size) ** 2


@njit(cache=True, fastmath=_ANY_ORDER)
def correlations(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return Pearson's correlation of each row's pairs of which both values are known; NaN when either is constant."""
    paths, steps = first.shape
    result = np.full(paths, np.nan)
    for path in range(paths):
        one, two = np.ascontiguousarray(first[path]), np.ascontiguousarray(second[path])
        known, total_one, total_two, size_one, size_two = 0, 0.0, 0.0, 0.0, 0.0
        for t in range(steps):
            if np.isfinite(one[t]) and np.isfinite(two[t]):
                known += 1
                total_one += one[t]
                total_two += two[t]
                size_one += abs(one[t])
                size_two += abs(two[t])
        if known == 0:
            continue
        centre_one, centre_two = total_one / known, total_two / known
        square_one, square_two, product = 0.0, 0.0, 0.0
        for t in range(steps):
            if np.isfinite(one[t]) and np.isfinite(two[t]):
                square_one += (one[t] - centre_one) ** 2
                square_two += (two[t] - centre_two) ** 2
                product += (one[t] - centre_one) * (two[t] - centre_two)
        if not _is_constant(square_one, known, size_one) and not _is_constant(square_two, known, size_two):
            result[path] = product / np.sqrt(square_one * square_two)
    return result


@njit(cache=True)
def _runs(row: FloatArray, shortest: int = 1) -> IntArray:
    """Return the start and the end (half open) of every run of `shortest` values or more, shape (runs, 2)."""
    missing = 0
    for t in range(row.size):
        missing += np.isnan(row[t])
    gaps = np.flatnonzero(np.isnan(row)) if missing else np.empty(0, np.int64)
    bounds = np.empty((gaps.size + 1, 2), np.int64)
    bounds[0, 0], bounds[-1, 1] = 0, row.size
    bounds[1:, 0] = gaps + 1
    bounds[:-1, 1] = gaps
    return bounds[bounds[:, 1] - bounds[:, 0] >= shortest]


@njit(cache=True, fastmath=_ANY_ORDER)
def _centred(row: FloatArray) -> tuple[int, float, FloatArray]:
    """Return how many values are known, the sum of their sizes, and all less their mean."""
    row = np.ascontiguousarray(row)
    count, total, size = 0, 0.0, 0.0
    for t in range(row.size):
        if not np.isnan(row[t]):
            count += 1
            total += row[t]
            size += abs(row[t])
    return count, size, row - total / max(count, 1)


@njit(cache=True, fastmath=_ANY_ORDER)
def _lagged(run: FloatArray, lag: int, start: int, stop: int) -> float:
    """Sum the products of the values at `start`…`stop` (half open) and those `lag` before."""
    total, later, earlier = 0.0, run[start:stop], run[start - lag : stop - lag]
    for i in range(later.size):
        total += later[i] * earlier[i]
    return total


@njit(cache=True, fastmath=_ANY_ORDER)
def _total(values: FloatArray) -> float:
    total = 0.0
    for t in range(values.size):
        total += values[t]
    return total


@njit(cache=True)
def autocorrelations(values: FloatArray, lags: int) -> FloatArray:
    """Return the sample autocorrelations at lags 1..`lags` of each row, shape (paths, lags).

    Without gaps this is the usual estimator (divisor n at every lag). With gaps a lag averages the pairs inside runs
    and keeps the factor (n - lag) / n. A constant row gives NaN.
    """
    paths = values.shape[0]
    result = np.full((paths, lags), np.nan)
    for path in range(paths):
        count, size, row = _centred(values[path])
        products, pairs = np.zeros(lags + 1), np.zeros(lags + 1)
        for first, stop in _runs(row):
            for lag in range(min(lags + 1, stop - first)):
                products[lag] += _lagged(row, lag, first + lag, stop)
                pairs[lag] += stop - first - lag
        if _is_constant(products[0], count, size):
            continue
        for lag in range(1, lags + 1):
            if pairs[lag] > 0:
                result[path, lag - 1] = products[lag] / pairs[lag] * (count - lag) / products[0]
    return result


@njit(cache=True)
def lagrange_multipliers(values: FloatArray, lags: int) -> FloatArray:
    """Return Engle's statistic of each row, n R² of the squared centred values regressed on their lags, (paths,).

    By normal equations about the mean, over the n steps whose lags lie in the same run. NaN for n below 2 `lags` + 1,
    and for a row that is constant or whose squares are.
    """
    paths = values.shape[0]
    result = np.full(paths, np.nan)
    for path in range(paths):
        count, size, row = _centred(values[path])
        squares, runs = row * row, _runs(row, lags + 1)
        used, total = 0, 0.0
        for first, stop in runs:
            used += stop - first - lags
            total += _total(squares[first + lags : stop])
        if used <= 2 * lags or _is_constant(total, count, size):
            continue
        sums, products = np.zeros(lags + 1), np.zeros((lags + 1, lags + 1))
        for first, stop in runs:
            _add_products(squares[first:stop] - total / used, sums, products)
        products -= np.outer(sums, sums) / used
        if not _is_constant(products[0, 0], used, total):
            result[path] = used * _explained(products)
    return result


@njit(cache=True)
def _add_products(run: FloatArray, sums: FloatArray, products: FloatArray) -> None:
    """Add Σ x(t-i) and Σ x(t-i) x(t-j) over the steps t that have all lags.

    Most terms of the second are the same for equal j - i and are summed once. The others, at the two ends, are added,
    never taken away: a crash on the last day would leave nothing but rounding.
    """
    lags = sums.size - 1
    middle, end = range(lags, run.size - lags), max(run.size - lags, lags)
    for gap in range(lags + 1):
        common = _lagged(run, gap, middle.start, middle.stop)
        for i in range(lags + 1 - gap):
            left = _lagged(run, gap, lags - i, min(lags, run.size - i))
            total = common + left + _lagged(run, gap, end, run.size - i)
            products[i, i + gap] += total
            if gap > 0:
                products[i + gap, i] += total
    for i in range(lags + 1):
        sums[i] += _total(run[lags - i : run.size - i])


@njit(cache=True)
def _explained(products: FloatArray) -> float:
    """Return R² of the regression of the first of some variables on the others, from their products about the mean.

    Elimination takes the variable of which most is left unexplained by those before, and ends where only rounding is:
    variables that repeat each other add nothing.
    """
    total, scale, explained = products[0, 0], np.diag(products).copy(), 0.0
    left = products.copy()
    for _ in range(1, scale.size):
        shares = np.where(scale[1:] > 0, np.diag(left)[1:] / scale[1:], 0.0)
        best = int(np.argmax(shares)) + 1
        if shares[best - 1] <= CONSTANT:
            break
        explained += left[0, best] ** 2 / left[best, best]
        left = left - np.outer(left[best], left[best]) / left[best, best]
    return float(min(explained / total, 1.0))


@njit(cache=True)
def max_drawdowns(values: FloatArray) -> FloatArray:
    """Return the largest loss from a running peak of the price inside any run, as a share of the peak, (paths,)."""
    paths = values.shape[0]
    result = np.full(paths, np.nan)
    for path in range(paths):
        row = values[path]
        deepest, seen = 0.0, False
        for first, stop in _runs(row):
            level, peak, seen = 0.0, 0.0, True
            for t in range(first, stop):
                level += row[t]
                peak = max(peak, level)
                deepest = min(deepest, level - peak)
        if seen:
            result[path] = -np.expm1(deepest)
    return result


@njit(cache=True)
def relative_strength(values: FloatArray, period: int) -> FloatArray:
    """Return Wilder's relative strength index (0-100) after each return, shape (paths, steps).

    Plain averages of gains and losses seed the smoothing; the index begins when `period` returns of the run are known.
    Without any movement it is 50.
    """
    result = np.full(values.shape, np.nan)
    for path in range(values.shape[0]):
        row = values[path]
        for first, stop in _runs(row):
            gain, loss = 0.0, 0.0
            for t in range(first, stop):
                weight = 1.0 / min(t - first + 1, period)
                gain += (max(row[t], 0.0) - gain) * weight
                loss += (max(-row[t], 0.0) - loss) * weight
                if t - first + 1 >= period:
                    result[path, t] = 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0
    return result


@njit(cache=True)
def fluctuations(values: FloatArray, boxes: IntArray) -> FloatArray:
    """Return the detrended fluctuation F(s) of each row at the box sizes s, shape (paths, sizes).

    The profile (running sum of the centred returns, anew in each run) is cut into boxes of s from the start of each
    run; F is the root mean square around the least-squares line of each box, 0 where that is rounding noise. A size
    that no run holds gives NaN.
    """
    paths = values.shape[0]
    result = np.full((paths, boxes.size), np.nan)
    times = np.arange(float(boxes.max()))
    for path in range(paths):
        _, _, row = _centred(values[path])
        spread, residuals, used = 0.0, np.zeros(boxes.size), np.zeros(boxes.size)
        for first, stop in _runs(row):
            spread = max(spread, np.abs(row[first:stop]).max())
            profile = np.cumsum(row[first:stop])
            for k in range(boxes.size):
                residuals[k] += _detrended(profile, times[: boxes[k]])
                used[k] += profile.size // boxes[k] * boxes[k]
        for k in range(boxes.size):
            if used[k] > 0:
                found = np.sqrt(residuals[k] / used[k])
                result[path, k] = found if found > CONSTANT * spread else 0.0
    return result


@njit(cache=True, fastmath=_ANY_ORDER)
def _detrended(profile: FloatArray, times: FloatArray) -> float:
    """Sum the squared residuals of every full box; levels count from the first of their box, which keeps digits."""
    box = times.size
    middle = (box - 1) / 2.0
    spread = box * (box * box - 1.0) / 12.0
    residual = 0.0
    for first in range(0, profile.size - box + 1, box):
        levels = profile[first : first + box]
        total, moment, square = 0.0, 0.0, 0.0
        for i in range(box):
            level = levels[i] - levels[0]
            total += level
            moment += times[i] * level
            square += level * level
        slope = moment - middle * total
        residual += max(square - total * total / box - slope * slope / spread, 0.0)
    return residual


@njit(cache=True)
def block_volatilities(values: FloatArray, length: int) -> FloatArray:
    """Return the root mean square of each full block of `length` returns, shape (paths, 2 (steps // length) + 1).

    Blocks tile each run from its start. A NaN stands between the blocks of two runs, so that neighbours in the result
    are neighbours in time.
    """
    paths, steps = values.shape
    result = np.full((paths, 2 * (steps // length) + 1), np.nan)
    for path in range(paths):
        row = values[path]
        filled = 0
        for first, stop in _runs(row):
            for start in range(first, stop - length + 1, length):
                square = 0.0
                for t in range(start, start + length):
                    square += row[t] ** 2
                result[path, filled] = np.sqrt(square / length)
                filled += 1
            filled += stop - first >= length
    return result


@njit(cache=True)
def block_sums(values: FloatArray, length: int) -> FloatArray:
    """Return the sum of each full block of `length` returns, laid out as `block_volatilities` does."""
    paths, steps = values.shape
    result = np.full((paths, 2 * (steps // length) + 1), np.nan)
    for path in range(paths):
        row = values[path]
        filled = 0
        for first, stop in _runs(row):
            for start in range(first, stop - length + 1, length):
                result[path, filled] = row[start : start + length].sum()
                filled += 1
            filled += stop - first >= length
    return result


@njit(cache=True)
def lagged_correlations(first: FloatArray, second: FloatArray, lags: int) -> FloatArray:
    """Return the correlations of each row of `first` with what `second` is 1..`lags` steps later, shape (paths, lags).

    Estimated as `autocorrelations` are; both rows must have the same gaps. NaN where either is constant.
    """
    paths = first.shape[0]
    result = np.full((paths, lags), np.nan)
    for path in range(paths):
        count, size_one, one = _centred(first[path])
        _, size_two, two = _centred(second[path])
        square_one, square_two = 0.0, 0.0
        products, pairs = np.zeros(lags), np.zeros(lags)
        for start, stop in _runs(one):
            square_one += _lagged(one, 0, start, stop)
            square_two += _lagged(two, 0, start, stop)
            for lag in range(1, min(lags + 1, stop - start)):
                products[lag - 1] += _dot(one[start : stop - lag], two[start + lag : stop])
                pairs[lag - 1] += stop - start - lag
        if _is_constant(square_one, count, size_one) or _is_constant(square_two, count, size_two):
            continue
        for lag in range(1, lags + 1):
            if pairs[lag - 1] > 0:
                average = products[lag - 1] / pairs[lag - 1]
                result[path, lag - 1] = average * (count - lag) / np.sqrt(square_one * square_two)
    return result


@njit(cache=True, fastmath=_ANY_ORDER)
def _dot(first: FloatArray, second: FloatArray) -> float:
    total = 0.0
    for t in range(first.size):
        total += first[t] * second[t]
    return total


@njit(cache=True)
def falls(values: FloatArray) -> FloatArray:
    """Return the size of every fall at its last step, NaN elsewhere, in the shape of the returns.

    A fall is a longest stretch of a run without a positive return; one without a negative return is none.
    """
    result = np.full(values.shape, np.nan)
    for path in range(values.shape[0]):
        row = values[path]
        for first, stop in _runs(row):
            lost = 0.0
            for t in range(first, stop):
                lost = lost - row[t] if row[t] <= 0.0 else 0.0
                if lost > 0.0 and (t + 1 == stop or row[t + 1] > 0.0):
                    result[path, t] = lost
    return result


@njit(cache=True)
def devolatilised(values: FloatArray, memory: float, warm: int) -> FloatArray:
    """Return each return over its recent volatility, NaN for the first `warm` of a run, in the shape of the returns.

    The recent variance is v ← memory · v + (1 - memory) r² of the returns before, from the mean square of the first
    `warm` on. Less than a sixteenth of the row's mean square counts as a sixteenth: after many returns of 0 on a
    coarse grid any move would be huge.
    """
    result = np.full(values.shape, np.nan)
    for path in range(values.shape[0]):
        row = values[path]
        known, square = 0, 0.0
        for first, stop in _runs(row):
            known += stop - first
            square += _dot(row[first:stop], row[first:stop])
        least = square / max(known, 1) / 16.0
        if least == 0.0:
            continue
        for first, stop in _runs(row, warm + 1):
            recent = _dot(row[first : first + warm], row[first : first + warm]) / warm
            for t in range(first + warm, stop):
                result[path, t] = row[t] / np.sqrt(max(recent, least))
                recent = memory * recent + (1.0 - memory) * row[t] * row[t]
    return result


@njit(cache=True)
def matches(source: FloatArray, ranked: IntArray, path: FloatArray, tolerance: float) -> tuple[IntArray, IntArray]:
    """Return, for each step of `path`, how many values of `source` equal it, and the longest run that ends there.

    A run is one that `source` holds verbatim. Two returns are equal when they differ by at most `tolerance`; NaN equals
    nothing. `ranked` are the positions of the known values of `source` from the lowest on: it leads to the few that
    equal a return. For a return that many equal, such as 0 on a coarse grid, a scan of all is faster.
    """
    lengths, written = np.zeros((2, source.size + 1), np.int32), np.zeros((2, 2), np.int64)
    equal, longest = np.zeros(path.size, np.int64), np.zeros(path.size, np.int64)
    ordered, many = source[ranked], source.size // MANY
    for i in range(path.size):
        side = i % 2
        here, before = lengths[side], lengths[1 - side]
        first = np.searchsorted(ordered, path[i] - tolerance)
        # The difference above was rounded: what lies just at the tolerance may be on the other side.
        while first < ordered.size and path[i] - ordered[first] > tolerance:
            first += 1
        while first > 0 and path[i] - ordered[first - 1] <= tolerance:
            first -= 1
        stop = first
        if first + many < ordered.size and ordered[first + many] - path[i] <= tolerance:
            equal[i], longest[i] = _scan(source, path[i], tolerance, before, here)
            first, stop = 0, ordered.size
        else:
            here[ranked[written[side, 0] : written[side, 1]] + 1] = 0
            while stop < ordered.size and ordered[stop] - path[i] <= tolerance:
                length = before[ranked[stop]] + 1
                here[ranked[stop] + 1] = length
                longest[i] = max(longest[i], length)
                stop += 1
            equal[i] = stop - first
        written[side, 0], written[side, 1] = first, stop
    return equal, longest


@njit(cache=True)
def _scan(source: FloatArray, value: float, tolerance: float, before: IntArray, here: IntArray) -> tuple[int, int]:
    """Fill in the lengths of the runs that end in `value`, one for every step of `source`; return as `matches` does."""
    equal, longest = np.int32(0), np.int32(0)
    for j in range(source.size):
        same = np.int32(abs(source[j] - value) <= tolerance)
        length = (before[j] + np.int32(1)) * same
        here[j + 1] = length
        equal += same
        longest = max(longest, length)
    return int(equal), int(longest)


@njit(cache=True)
def walks(starts: IntArray, jumps: NDArray[np.bool_], following: IntArray) -> IntArray:
    """Return positions of the shape of `starts` that follow each other in `following`, but for the jumps to a start."""
    result = np.empty_like(starts)
    for path in range(starts.shape[0]):
        result[path, 0] = starts[path, 0]
        for step in range(1, starts.shape[1]):
            here = following[result[path, step - 1]]
            result[path, step] = starts[path, step] if jumps[path, step] else here
    return result
