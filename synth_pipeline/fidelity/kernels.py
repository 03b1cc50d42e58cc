"""Compiled recursions over the log-returns of many paths: arrays in, arrays out, NaN for a gap.

A run is a stretch without NaN. No recursion, lag or box reaches from one run into the next. Each kernel has a slow
twin in the tests. Statistics that need no recursion are in `moments` and in the metric families.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray


@njit(cache=True)
def autocorrelations(values: FloatArray, lags: int) -> FloatArray:
    """Return the sample autocorrelations at lags 1..`lags` of each row, shape (paths, lags).

    Without gaps this is the usual estimator (divisor n at every lag). With gaps a lag averages the pairs inside runs
    and keeps the factor (n - lag) / n. A constant row gives NaN.
    """
    paths, steps = values.shape
    result = np.full((paths, lags), np.nan)
    for path in range(paths):
        row = values[path]
        count, centre = _centre(row)
        square, size = 0.0, 0.0
        products, pairs = np.zeros(lags), np.zeros(lags)
        run = 0
        for t in range(steps):
            if np.isnan(row[t]):
                run = 0
                continue
            here = row[t] - centre
            square += here * here
            size += abs(row[t])
            for lag in range(1, min(run, lags) + 1):
                products[lag - 1] += here * (row[t - lag] - centre)
                pairs[lag - 1] += 1.0
            run += 1
        if square * count <= (1e-9 * size) ** 2:
            continue
        for lag in range(1, lags + 1):
            if pairs[lag - 1] > 0:
                result[path, lag - 1] = products[lag - 1] / pairs[lag - 1] * (count - lag) / square
    return result


@njit(cache=True)
def _centre(row: FloatArray) -> tuple[int, float]:
    """Return how many values are known, and their mean."""
    count, total = 0, 0.0
    for value in row:
        if not np.isnan(value):
            count += 1
            total += value
    return count, total / max(count, 1)


@njit(cache=True)
def max_drawdowns(values: FloatArray) -> FloatArray:
    """Return the largest loss from a running peak of the price inside any run, as a share of the peak, (paths,)."""
    paths, steps = values.shape
    result = np.full(paths, np.nan)
    for path in range(paths):
        level, peak, deepest, seen = 0.0, 0.0, 0.0, False
        for t in range(steps):
            if np.isnan(values[path, t]):
                level, peak = 0.0, 0.0
                continue
            seen = True
            level += values[path, t]
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
    paths, steps = values.shape
    result = np.full((paths, steps), np.nan)
    for path in range(paths):
        gain, loss, run = 0.0, 0.0, 0
        for t in range(steps):
            change = values[path, t]
            if np.isnan(change):
                gain, loss, run = 0.0, 0.0, 0
                continue
            run += 1
            weight = 1.0 / min(run, period)
            gain += (max(change, 0.0) - gain) * weight
            loss += (max(-change, 0.0) - loss) * weight
            if run >= period:
                result[path, t] = 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0
    return result


@njit(cache=True)
def fluctuations(values: FloatArray, boxes: IntArray) -> FloatArray:
    """Return the detrended fluctuation F(s) of each row at the box sizes s, shape (paths, sizes).

    The profile (running sum of the centred returns, anew in each run) is cut into boxes of s; F is the root mean square
    around the least-squares line of each box. A size that no run holds gives NaN.
    """
    paths, steps = values.shape
    result = np.full((paths, boxes.size), np.nan)
    profile = np.empty(steps)
    for path in range(paths):
        row = values[path]
        _, centre = _centre(row)
        level = 0.0
        for t in range(steps):
            level = 0.0 if np.isnan(row[t]) else level + row[t] - centre
            profile[t] = level
        for k in range(boxes.size):
            residual, used = _detrended(row, profile, boxes[k])
            if used > 0:
                result[path, k] = np.sqrt(residual / used)
    return result


@njit(cache=True)
def _detrended(row: FloatArray, profile: FloatArray, box: int) -> tuple[float, int]:
    """Sum the squared residuals of every full box, and count their points."""
    middle = (box - 1) / 2.0
    spread = box * (box * box - 1.0) / 12.0
    residual, used, run = 0.0, 0, 0
    for t in range(row.size):
        run = 0 if np.isnan(row[t]) else run + 1
        if run < box:
            continue
        first = t - box + 1
        average = 0.0
        for i in range(box):
            average += profile[first + i]
        average /= box
        slope, square = 0.0, 0.0
        for i in range(box):
            here = profile[first + i] - average
            slope += (i - middle) * here
            square += here * here
        residual += max(square - slope * slope / spread, 0.0)
        used += box
        run = 0
    return residual, used


@njit(cache=True)
def block_volatilities(values: FloatArray, length: int) -> FloatArray:
    """Return the root mean square of each full block of `length` returns, shape (paths, 2 (steps // length) + 1).

    Blocks tile each run from its start. A NaN stands between the blocks of two runs, so that neighbours in the result
    are neighbours in time.
    """
    paths, steps = values.shape
    result = np.full((paths, 2 * (steps // length) + 1), np.nan)
    for path in range(paths):
        filled, run, square = 0, 0, 0.0
        for t in range(steps):
            if np.isnan(values[path, t]):
                if filled > 0 and not np.isnan(result[path, filled - 1]):
                    filled += 1
                run, square = 0, 0.0
                continue
            run += 1
            square += values[path, t] ** 2
            if run == length:
                result[path, filled] = np.sqrt(square / length)
                filled += 1
                run, square = 0, 0.0
    return result


@njit(cache=True)
def longest_matches(source: FloatArray, path: FloatArray, tolerance: float) -> IntArray:
    """Return, for each step of `path`, the length of the longest run ending there that `source` holds verbatim.

    Two returns are the same when they differ by at most `tolerance`; NaN equals nothing.
    """
    size = source.size
    before, here = np.zeros(size + 1, np.int32), np.zeros(size + 1, np.int32)
    result = np.zeros(path.size, np.int64)
    for i in range(path.size):
        longest = np.int32(0)
        for j in range(size):
            same = np.int32(abs(source[j] - path[i]) <= tolerance)
            length = (before[j] + np.int32(1)) * same
            here[j + 1] = length
            longest = max(longest, length)
        result[i] = longest
        before, here = here, before
    return result


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
