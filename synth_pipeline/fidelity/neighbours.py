"""Divergence of two samples of single numbers by the distances to nearest neighbours; a few thousand numbers a side.

The estimator of Wang, Kulkarni and Verdú (2009), "Divergence Estimation for Multidimensional Densities Via
k-Nearest-Neighbor Distances", IEEE Transactions on Information Theory 55(5), in one dimension, where neighbours are
found by sorting.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.special import psi

from synth_pipeline.series import FloatArray, IntArray

NEIGHBOURS = 5


def divergence(first: FloatArray, second: FloatArray, neighbours: int = NEIGHBOURS) -> float:
    """Return the Kullback-Leibler divergence of `first` from `second`, in nats; may be below 0 by chance.

    With n, m values, and ρ, ν the distances of a value of `first` to its k-th neighbour in `first` and in `second`:
    the mean of log(ν / ρ) + log(m / (n - 1)). Where ρ or ν is 0 the value is tied k times and has no density. There
    the values within the larger of the two are counted, i in `first` and j in `second`, and ψ(i) - ψ(j) stands for
    the logarithm, the same paper's rule for neighbours of varying number.
    """
    first, second = np.sort(first), np.sort(second)
    own, other = _kth(first, None, neighbours), _kth(first, second, neighbours)
    is_tied = (own == 0) | (other == 0)
    tied = first[is_tied]
    # What is as far as the furthest neighbour must not be lost to rounding.
    reach = np.maximum(own, other)[is_tied] * (1 + 1e-9) + 4 * np.spacing(np.abs(tied))
    logarithms = np.empty(first.size)
    logarithms[~is_tied] = np.log(other[~is_tied] / own[~is_tied])
    logarithms[is_tied] = psi(_within(first, tied, reach) - 1) - psi(_within(second, tied, reach))
    return float(logarithms.mean() + np.log(second.size / (first.size - 1)))


def _within(ordered: FloatArray, points: FloatArray, reach: FloatArray) -> FloatArray:
    after = np.searchsorted(ordered, points + reach, side="right")
    return np.asarray(after - np.searchsorted(ordered, points - reach, side="left"), np.float64)


def _kth(points: FloatArray, ordered: FloatArray | None, k: int) -> FloatArray:
    """Return the distance of each of the ordered points to its k-th neighbour, in `ordered` or among themselves.

    The k nearest are neighbours in order: one of the stretches of k, or of k + 1 with the point itself, around it.
    """
    if ordered is None:
        ordered, length, first = points, k + 1, np.arange(points.size) - k
    else:
        length, first = k, np.searchsorted(ordered, points) - k
    beyond = np.full(k + 1, np.inf)
    padded = np.concatenate([-beyond, ordered, beyond])
    return _narrowest(points, padded, first + k + 1, length, k)


@njit(cache=True)
def _narrowest(points: FloatArray, padded: FloatArray, first: IntArray, length: int, shifts: int) -> FloatArray:
    """Return how far the furthest number is of the nearest stretch, of those that start at `first` and later."""
    distance = np.full(points.size, np.inf)
    for i in range(points.size):
        for start in range(first[i], first[i] + shifts + 1):
            furthest = max(points[i] - padded[start], padded[start + length - 1] - points[i])
            distance[i] = min(distance[i], furthest)
    return distance
