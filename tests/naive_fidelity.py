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


def block_sums(row, length):
    """Sums of the full blocks of each run, one list a run."""
    pieces = runs(row)
    return [[sum(piece[at : at + length]) for at in range(0, len(piece) - length + 1, length)] for piece in pieces]


def lagged_correlations(first, second, lags):
    """Correlations of one row with what another is later; both have the same gaps."""
    ones, twos = runs(first), runs(second)
    flat = [[value for piece in pieces for value in piece] for pieces in (ones, twos)]
    if any(len(set(values)) < 2 for values in flat):
        return [math.nan] * lags
    count = len(flat[0])
    centres = [sum(values) / count for values in flat]
    squares = [sum((value - centre) ** 2 for value in values) for values, centre in zip(flat, centres, strict=True)]
    result = []
    for lag in range(1, lags + 1):
        products = [
            (earlier - centres[0]) * (later - centres[1])
            for one, two in zip(ones, twos, strict=True)
            for earlier, later in zip(one, two[lag:], strict=False)
        ]
        scale = math.sqrt(squares[0]) * math.sqrt(squares[1])
        result.append(sum(products) / len(products) * (count - lag) / scale if products else math.nan)
    return result


def shared_ranks(row):
    """Ranks from 0 on: how many known values are less, and half of how many others are equal."""
    known = [value for value in row if not math.isnan(value)]
    return [
        math.nan if math.isnan(value) else sum(x < value for x in known) + (known.count(value) - 1) / 2 for value in row
    ]


def burstiness(sizes, least):
    """(σ - μ) / (σ + μ) of the times between large values of one run, NaN for fewer than ten."""
    waits = []
    for piece in runs(sizes):
        large = [t for t, size in enumerate(piece) if size > 0 and size >= least]
        waits += [later - earlier for earlier, later in pairwise(large)]
    if len(waits) < 10:
        return math.nan
    return float((np.std(waits) - np.mean(waits)) / (np.std(waits) + np.mean(waits)))


def falls(row):
    """Sizes of the stretches without a positive return that lose anything."""
    found = []
    for piece in runs(row):
        for is_up, stretch in groupby(piece, key=lambda value: value > 0):
            lost = -sum(stretch)
            if not is_up and lost > 0:
                found.append(lost)
    return found


def devolatilised(row, memory, warm):
    """Returns over the root of an exponential mean of the squares before them."""
    known = [value for piece in runs(row) for value in piece]
    least = sum(value**2 for value in known) / max(len(known), 1) / 16
    found = []
    for piece in runs(row):
        for t in range(warm, len(piece)):
            weights = [(1 - memory) * memory ** (t - 1 - s) for s in range(warm, t)]
            recent = memory ** (t - warm) * sum(value**2 for value in piece[:warm]) / warm
            recent += sum(weight * piece[s] ** 2 for weight, s in zip(weights, range(warm, t), strict=True))
            if least > 0:
                found.append(piece[t] / math.sqrt(max(recent, least)))
    return found


def neighbour_divergence(first, second, k):
    """Kullback-Leibler divergence by k-th neighbours; what is tied k times is counted instead."""
    from scipy.special import digamma

    total = 0.0
    for at, value in enumerate(first):
        own = sorted(abs(value - other) for other in first[:at] + first[at + 1 :])
        others = sorted(abs(value - other) for other in second)
        near, far = own[k - 1], others[k - 1]
        if near > 0 and far > 0:
            total += math.log(far / near)
        else:
            reach = max(near, far) * (1 + 1e-9) + 1e-15
            counts = [sum(distance <= reach for distance in distances) for distances in (own, others)]
            total += float(digamma(counts[0]) - digamma(counts[1]))
    return total / len(first) + math.log(len(second) / (len(first) - 1))


def words(letters, levels):
    """All words of 1 to `levels` letters, level after level, the last letter running fastest."""
    found, level = [], [()]
    for _ in range(levels):
        level = [(*word, letter) for word in level for letter in range(letters)]
        found += level
    return found


def signature(moves, levels):
    """Iterated integrals of a piecewise linear path by words, Chen's identity word by word, in exact arithmetic."""
    letters = len(moves[0])
    found = {(): Fraction(1)} | dict.fromkeys(words(letters, levels), Fraction(0))
    for move in moves:
        step = [Fraction(float(value)) for value in move]
        straight = {
            word: math.prod((step[letter] for letter in word), start=Fraction(1, math.factorial(len(word))))
            for word in found
        }
        found = tensor_product(found, straight)
    return found


def tensor_product(first, second):
    """Product of two sums of words: each word of the first before each of the second."""
    return {word: sum(first[word[:at]] * second[word[at:]] for at in range(len(word) + 1)) for word in first}


def log_signature(moves, levels):
    """Logarithm of the signature, the series cut off where powers vanish."""
    rest = signature(moves, levels) | {(): Fraction(0)}
    power, found = rest, dict.fromkeys(rest, Fraction(0))
    for order in range(1, levels + 1):
        found = {word: found[word] + Fraction((-1) ** (order + 1), order) * power[word] for word in found}
        power = tensor_product(power, rest)
    return found


def shuffles(first, second):
    """All ways to riffle two words together, with repetitions."""
    if not first or not second:
        return [first + second]
    head = [first[:1] + rest for rest in shuffles(first[1:], second)]
    return head + [second[:1] + rest for rest in shuffles(first, second[1:])]


def discrepancy(first, second, width):
    """Unbiased squared maximum mean discrepancy, pair by pair."""

    def mean_kernel(pairs):
        values = [math.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / width) for x, y in pairs]
        return sum(values) / len(values)

    within, other = (
        [(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j] for rows in (first, second)
    )
    return mean_kernel(within) + mean_kernel(other) - 2 * mean_kernel([(x, y) for x in first for y in second])


def feature_correlation(windows, first, second, lag):
    """Correlation of a feature with another one `lag` steps later, over the pairs that windows hold."""
    columns = [[window[:, at] for window in windows] for at in (first, second)]
    centres = [np.mean(column) for column in columns]
    spreads = [np.std(column) for column in columns]
    products = [
        (one[t] - centres[0]) * (two[t + lag] - centres[1])
        for one, two in zip(*columns, strict=True)
        for t in range(len(one) - lag)
    ]
    return sum(products) / len(products) / spreads[0] / spreads[1]
