"""Slow, obvious twins of the fidelity kernels: plain Python over the runs between gaps."""

import math
from fractions import Fraction
from itertools import groupby, pairwise

import numpy as np


def runs(row):
    """Split a row at its NaN."""
    groups = groupby(row, key=lambda value: not math.isnan(value))
    return [[float(value) for value in group] for known, group in groups if known]


def moments(row):
    """Mean and central moments, in exact arithmetic."""
    known = [Fraction(float(value)) for value in row if math.isfinite(value)]
    if not known:
        return [math.nan] * 4
    centre = sum(known) / len(known)
    return [float(centre), *(float(sum((value - centre) ** k for value in known) / len(known)) for k in (2, 3, 4))]


def correlation(first, second):
    pairs = [
        (Fraction(float(a)), Fraction(float(b))) for a, b in zip(first, second, strict=True) if math.isfinite(a + b)
    ]
    if len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return math.nan
    one, two = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    product = sum((a - one) * (b - two) for a, b in pairs)
    squares = sum((a - one) ** 2 for a, _ in pairs) * sum((b - two) ** 2 for _, b in pairs)
    return float(product) / math.sqrt(squares)


def lagrange_multiplier(row, lags):
    """Engle's n R², by least squares on the rows that no gap touches; NaN where nothing varies."""
    known = [value for piece in runs(row) for value in piece]
    centre = sum(known) / max(len(known), 1)
    squares = [[(value - centre) ** 2 for value in piece] for piece in runs(row)]
    rows = [piece[t - lags : t + 1] for piece in squares for t in range(lags, len(piece))]
    targets = [past[-1] for past in rows]
    if len(set(known)) < 2 or len(rows) <= 2 * lags or max(targets) - min(targets) < 1e-12 * max(targets):
        return math.nan
    past = np.array([[1.0, *past[:-1]] for past in rows])
    scale = np.abs(past).max(axis=0)
    fitted = past / scale @ np.linalg.lstsq(past / scale, targets, rcond=1e-12)[0]
    average = sum(targets) / len(targets)
    left = sum((target - fit) ** 2 for target, fit in zip(targets, fitted, strict=True))
    return len(rows) * (1 - left / sum((target - average) ** 2 for target in targets))


def autocorrelations(row, lags):
    pieces = runs(row)
    known = [value for piece in pieces for value in piece]
    count = len(known)
    centre = sum(known) / max(count, 1)
    square = sum((value - centre) ** 2 for value in known)
    if len(set(known)) < 2:
        return [math.nan] * lags
    result = []
    for lag in range(1, lags + 1):
        products = [
            (later - centre) * (earlier - centre)
            for piece in pieces
            for earlier, later in zip(piece, piece[lag:], strict=False)
        ]
        result.append(sum(products) / len(products) * (count - lag) / square if products else math.nan)
    return result


def max_drawdown(row):
    worst = 0.0
    for piece in runs(row):
        price, peak = 1.0, 1.0
        for change in piece:
            price *= math.exp(change)
            peak = max(peak, price)
            worst = max(worst, 1.0 - price / peak)
    return worst if runs(row) else math.nan


def relative_strength(row, period):
    result = []
    seen = []
    gain = loss = 0.0
    for change in row:
        if math.isnan(change):
            seen = []
            result.append(math.nan)
            continue
        seen.append(float(change))
        if len(seen) < period:
            result.append(math.nan)
            continue
        if len(seen) == period:
            gain = sum(max(value, 0.0) for value in seen) / period
            loss = sum(max(-value, 0.0) for value in seen) / period
        else:
            gain = (gain * (period - 1) + max(change, 0.0)) / period
            loss = (loss * (period - 1) + max(-change, 0.0)) / period
        result.append(100.0 * gain / (gain + loss) if gain + loss > 0 else 50.0)
    return result


def fluctuation(row, box):
    pieces = runs(row)
    known = [value for piece in pieces for value in piece]
    centre = sum(known) / max(len(known), 1)
    squares = []
    for piece in pieces:
        level, profile = 0.0, []
        for value in piece:
            level += value - centre
            profile.append(level)
        for first in range(0, len(profile) - box + 1, box):
            squares += _residuals(profile[first : first + box])
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan


def _residuals(values):
    times = range(len(values))
    middle, average = sum(times) / len(values), sum(values) / len(values)
    slope = sum((t - middle) * v for t, v in zip(times, values, strict=True)) / sum((t - middle) ** 2 for t in times)
    return [(v - average - slope * (t - middle)) ** 2 for t, v in zip(times, values, strict=True)]


def neighbouring_volatilities(row, length):
    """Volatilities of neighbouring blocks, as pairs."""
    pairs = []
    for piece in runs(row):
        blocks = [piece[first : first + length] for first in range(0, len(piece) - length + 1, length)]
        sizes = [math.sqrt(sum(value**2 for value in block) / length) for block in blocks]
        pairs += list(pairwise(sizes))
    return pairs


def longest_match_ending(source, path, end, tolerance):
    """Longest stretch of `source` equal to the steps of `path` that end before `end`."""
    for length in range(end, 0, -1):
        piece = path[end - length : end]
        for first in range(len(source) - length + 1):
            if all(abs(a - b) <= tolerance for a, b in zip(source[first : first + length], piece, strict=True)):
                return length
    return 0
