"""How far apart two samples of numbers are: total variation of histograms and Wasserstein-1, with bootstrap intervals.

Both follow LOB-Bench (Nagy et al. 2025, "LOB-Bench: Benchmarking Generative AI for Finance", ICML): bins by Freedman
and Diaconis on the pooled values, Wasserstein after scaling the pooled values to unit variance. Its intervals resample
single values; messages depend on each other, so that these are too narrow, and ours resample blocks (Politis and Romano
1994) of the length that Politis and White's rule gives. Both are told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import bootstrap
from synth_pipeline.series import FloatArray, IntArray

RESAMPLES = 100
CONFIDENCE = 0.99
MOST_RULED = 50_000
"""Values that the rule for the block length looks at: a longer sample tells it nothing new."""
Interval = tuple[float, float]


class Score(NamedTuple):
    """A distance between two samples."""

    value: float
    interval: Interval
    """99 % of resamples in blocks lie within."""
    published_interval: Interval
    """The same of single values resampled independently, as LOB-Bench prints it."""


class Binned(NamedTuple):
    """Two samples on common places, in ascending order, group by group."""

    first: IntArray
    """The place of every value of the first sample."""
    second: IntArray
    widths: FloatArray
    """What lies between a place and the next, weighing the difference of the distributions there; empty for bins."""
    starts: IntArray
    """The first place of every group, and the number of places."""
    weights: FloatArray
    """The share of all values that each group has."""


def total_variation(first: FloatArray, second: FloatArray, *, discrete: bool) -> float:
    """Return half the L1 distance of the histograms, 0 to 1. Raises `MetricError` for an empty sample."""
    return distance(bins(first, second, discrete=discrete))


def wasserstein(first: FloatArray, second: FloatArray) -> float:
    """Return the Wasserstein-1 distance in pooled standard deviations. Raises `MetricError` where all are equal."""
    return distance(ranks(first, second))


def bins(first: FloatArray, second: FloatArray, *, discrete: bool) -> Binned:
    """Put values into bins: one for each value, or of Freedman and Diaconis' width 2 IQR / n^(1/3).

    Where more than half of the values are one and the same, so that the quartiles say nothing, that value has a bin of
    its own and the width is that of the others. Raises `MetricError` for an empty sample.
    """
    pooled = _pooled(first, second)
    if discrete:
        found, place = np.unique(pooled, return_inverse=True)
        return _of_one_group(place, first.size, np.empty(0), found.size)
    spread = _quartile_range(pooled)
    atom = np.zeros(pooled.size, np.bool_)
    if spread == 0.0:
        atom = pooled == np.median(pooled)
        spread = _quartile_range(pooled[~atom]) if not atom.all() else 0.0
    others = pooled[~atom]
    place = np.zeros(pooled.size, np.int64)
    if spread > 0.0:
        low, high = others.min(), others.max()
        count = np.ceil((high - low) / (2 * spread / np.cbrt(others.size)))
        place[~atom] = 1 + np.minimum((others - low) * (count / (high - low)), count - 1).astype(np.int64)
    elif others.size:
        place[~atom] = 1 + np.unique(others, return_inverse=True)[1]
    # Only bins that hold something count, of which there may be far fewer: one value may lie far out.
    found, place = np.unique(place, return_inverse=True)
    return _of_one_group(place, first.size, np.empty(0), found.size)


def _quartile_range(values: FloatArray) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def ranks(first: FloatArray, second: FloatArray) -> Binned:
    """Put values on their ranks, and the gaps between neighbours in units of the pooled standard deviation.

    Raises `MetricError` for an empty sample, and where all values are equal.
    """
    pooled = _pooled(first, second)
    deviation = float(pooled.std(ddof=1))
    found, place = np.unique(pooled, return_inverse=True)
    if found.size < 2:
        raise MetricError(f"all {pooled.size} values are {found[0]:g}: their scale is 0")
    return _of_one_group(place, first.size, np.append(np.diff(found), 0.0) / deviation, found.size)


def _of_one_group(place: IntArray, first: int, widths: FloatArray, places: int) -> Binned:
    return Binned(place[:first], place[first:], widths, np.array([0, places]), np.ones(1))


def grouped(
    firsts: FloatArray,
    seconds: FloatArray,
    first_groups: FloatArray,
    second_groups: FloatArray,
    place: Callable[[FloatArray, FloatArray], Binned],
) -> Binned:
    """Put the values of every group on places of its own; a group's number says which values belong together.

    A group that only one sample has is wholly different: one place for each sample. One whose values are all equal has
    no scale and no distance. Raises `MetricError` where no group is in both samples.
    """
    pooled = np.concatenate((first_groups, second_groups))
    names = np.unique(pooled)
    if not np.isin(names, first_groups)[np.isin(names, second_groups)].any():
        raise MetricError("the two samples have no condition in common")
    first, second = np.zeros(firsts.size, np.int64), np.zeros(seconds.size, np.int64)
    widths, starts = [np.empty(0)], [0]
    for name in names:
        of_first, of_second = first_groups == name, second_groups == name
        made = _group(firsts[of_first], seconds[of_second], place)
        first[of_first], second[of_second] = starts[-1] + made.first, starts[-1] + made.second
        widths.append(made.widths)
        starts.append(starts[-1] + int(made.starts[-1]))
    weights = np.array([np.mean(pooled == name) for name in names])
    return Binned(first, second, np.concatenate(widths), np.array(starts), weights)


def _group(first: FloatArray, second: FloatArray, place: Callable[[FloatArray, FloatArray], Binned]) -> Binned:
    if first.size and second.size and np.ptp(np.concatenate((first, second))) > 0.0:
        return place(first, second)
    # Of bins the widths are empty, of ranks there is one a place.
    widths = np.zeros(min(place(np.arange(2.0), np.arange(2.0)).widths.size, 1))
    return _of_one_group(np.zeros(first.size + second.size, np.int64), first.size, widths, 1)


def _pooled(first: FloatArray, second: FloatArray) -> FloatArray:
    if not first.size or not second.size:
        side = "first" if not first.size else "second"
        raise MetricError(f"the {side} sample has no value")
    return np.concatenate((first, second))


def distance(binned: Binned) -> float:
    """Return the distance of two samples, groups weighted."""
    places = int(binned.starts[-1])
    first, second = (np.bincount(each, minlength=places) for each in (binned.first, binned.second))
    return float(_between(first, second, binned.widths, binned.starts, binned.weights))


@njit(cache=True)
def _between(first: IntArray, second: IntArray, widths: FloatArray, starts: IntArray, weights: FloatArray) -> float:
    """Return the distance of two histograms: of the bins, or of their cumulative sums where the gaps have widths."""
    total = 0.0
    for group in range(weights.size):
        begin, end = starts[group], starts[group + 1]
        first_count, second_count = first[begin:end].sum(), second[begin:end].sum()
        if first_count == 0 or second_count == 0:
            total += weights[group] if widths.size == 0 else 0.0
            continue
        gap, apart = 0.0, 0.0
        for place in range(begin, end):
            difference = first[place] / first_count - second[place] / second_count
            gap += difference
            apart += 0.5 * abs(difference) if widths.size == 0 else abs(gap) * widths[place]
        # Shares add up to 1 but for rounding.
        total += weights[group] * (min(apart, 1.0) if widths.size == 0 else apart)
    return total


def scored(binned: Binned, lengths: tuple[float, float], *, rng: np.random.Generator) -> Score:
    """Return the distance of two binned samples with its intervals; `lengths` are the mean blocks of both samples."""
    value, tails = distance(binned), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    blocks, singles = _resampled(binned, lengths, RESAMPLES, rng), _redrawn(binned, RESAMPLES, rng)
    # As published, the value itself counts among its resamples.
    (low, high), (single_low, single_high) = (np.quantile(np.append(each, value), tails) for each in (blocks, singles))
    return Score(value, (float(low), float(high)), (float(single_low), float(single_high)))


def _redrawn(binned: Binned, count: int, rng: np.random.Generator) -> FloatArray:
    """Return the distances of resamples of single values, whose histograms are multinomial."""
    sides = [np.bincount(each, minlength=int(binned.starts[-1])) for each in (binned.first, binned.second)]
    distances = np.empty(count)
    for resample in range(count):
        first, second = (rng.multinomial(side.sum(), side / side.sum()) for side in sides)
        distances[resample] = _between(first, second, binned.widths, binned.starts, binned.weights)
    return distances


@njit(cache=True)
def _resampled(binned: Binned, lengths: tuple[float, float], count: int, rng: np.random.Generator) -> FloatArray:
    distances, places = np.empty(count), binned.starts[-1]
    for resample in range(count):
        first = _counts(binned.first, places, lengths[0], rng)
        second = _counts(binned.second, places, lengths[1], rng)
        distances[resample] = _between(first, second, binned.widths, binned.starts, binned.weights)
    return distances


@njit(cache=True)
def _counts(values: IntArray, places: int, length: float, rng: np.random.Generator) -> IntArray:
    """Return the histogram of a stationary block bootstrap, blocks going on at the start beyond the end."""
    counts = np.zeros(places, np.int64)
    at = left = 0
    for _ in range(values.size):
        if left == 0:
            at, left = int(rng.integers(0, values.size)), int(rng.geometric(1.0 / length))
        counts[values[at]] += 1
        at = at + 1 if at + 1 < values.size else 0
        left -= 1
    return counts


def block_length(values: FloatArray) -> float:
    """Return Politis and White's mean block length of a sample; 1 where it is too short or does not vary."""
    seen = values[:MOST_RULED]
    if seen.size < 10 or np.ptp(seen) == 0:
        return 1.0
    return bootstrap.block_length(seen)
