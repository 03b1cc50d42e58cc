"""Distances of two distributions of single numbers, given from the lowest on.

Exact up to 20,000 numbers a side. More are put into 20,000 groups of neighbours, each of which counts as its mean with
its share: what is lost is less than the spread inside groups. The nearest-neighbour divergence is in `neighbours`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.special import rel_entr

from synth_pipeline.series import FloatArray

MOST = 20_000
"""Numbers of one side that are told apart."""


class Grouped(NamedTuple):
    """Numbers from the lowest on, or the means of groups of neighbours."""

    values: FloatArray
    shares: FloatArray
    """What each counts, 1 together."""


def grouped(ordered: FloatArray) -> Grouped:
    """Return at most 20,000 numbers and the share of each."""
    if ordered.size <= MOST:
        return Grouped(ordered, np.full(ordered.size, 1.0 / max(ordered.size, 1)))
    bounds = np.linspace(0, ordered.size, MOST + 1).astype(np.int64)
    sizes = np.diff(bounds)
    return Grouped(np.add.reduceat(ordered, bounds[:-1]) / sizes, sizes / ordered.size)


def wasserstein(first: Grouped, second: Grouped) -> float:
    """Return the Wasserstein-1 distance, ∫ |F - G|."""
    if np.array_equal(first.shares, second.shares):  # numbers of one rank belong together: no need to merge
        return float(np.sum(np.abs(first.values - second.values) * first.shares))
    heights, widths = _merged(*first, *second)
    return float(np.sum(np.abs(heights) * widths))


def energy(first: Grouped, second: Grouped) -> float:
    """Return the energy distance, √(2 ∫ (F - G)²) (Székely and Rizzo 2013)."""
    heights, widths = _merged(*first, *second)
    return float(np.sqrt(2.0 * np.sum(heights**2 * widths)))


def kolmogorov_smirnov(first: FloatArray, second: FloatArray) -> float:
    """Return the largest gap of the two distribution functions; of all numbers, however many."""
    points = np.concatenate([first, second])
    gaps = np.searchsorted(first, points, side="right") / first.size
    gaps -= np.searchsorted(second, points, side="right") / second.size
    return float(np.abs(gaps).max())


def jensen_shannon(first: FloatArray, second: FloatArray, edges: FloatArray) -> float:
    """Return the root of the Jensen-Shannon divergence, in bits, of the shares between edges and beyond the outer."""
    one, two = _shares(first, edges), _shares(second, edges)
    middle = (one + two) / 2.0
    divergence = (np.sum(rel_entr(one, middle)) + np.sum(rel_entr(two, middle))) / (2.0 * np.log(2.0))
    return float(np.sqrt(max(divergence, 0.0)))


def _shares(ordered: FloatArray, edges: FloatArray) -> FloatArray:
    """Return the share of numbers up to each edge and beyond the one before, shape (edges + 1,)."""
    below = np.searchsorted(ordered, edges, side="right") / ordered.size
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


@njit(cache=True)
def _merged(
    one: FloatArray, share_one: FloatArray, two: FloatArray, share_two: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the difference of the two distribution functions between all points, and the widths there."""
    steps = one.size + two.size - 1
    heights, widths = np.empty(steps), np.empty(steps)
    i = j = 0
    height = last = 0.0
    for at in range(steps + 1):
        # Without a branch that nobody can foresee: the two sides alternate at random.
        is_first = j == two.size or (i < one.size and one[i] <= two[j])
        value = one[min(i, one.size - 1)] if is_first else two[min(j, two.size - 1)]
        if at > 0:
            heights[at - 1], widths[at - 1] = height, value - last
        height += share_one[min(i, one.size - 1)] if is_first else -share_two[min(j, two.size - 1)]
        i, j, last = i + is_first, j + (not is_first), value
    return heights, widths
