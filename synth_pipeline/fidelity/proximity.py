"""Distances between windows, and nearest neighbours, as the families of coverage and privacy need them.

The distance of two windows is Euclidean over all steps and features, each feature in standard deviations of the whole
training set, divided by the root of their number: two unrelated windows of white noise are √2 apart. All pairs are
computed, once for two sets, by one matrix product in single precision: n · m · length · features multiplications, 0.2 s
for 5,000 windows of 24 × 6 against themselves; subsets look their distances up. Exact: nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from weakref import ReferenceType, ref

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray, IntArray

Distances = NDArray[np.float32]
Found = TypeVar("Found")


class Nearest(NamedTuple):
    """The nearest of other windows to each."""

    distance: FloatArray
    """Shape (n,)."""
    place: IntArray
    """Which one of the others, shape (n,)."""


def distances(first: Windows, second: Windows, train: Windows) -> Distances:
    """Return the distance of each window of `first` to each of `second`, shape (n, m), in units of `train`.

    A window is no neighbour of its own: where two sets share windows the distance of one to itself is infinite.
    """
    (one, rows), (two, columns) = first.rooted, second.rooted
    found = _between(one, two, train.rooted[0])
    if first.origin or second.origin:
        found = _looked_up(found, rows, columns)
    elif one is two:
        found = found.copy()
    if one is two:
        found[_shared(rows, columns)] = np.inf
    return found


@njit(cache=True)
def _looked_up(found: Distances, rows: IntArray, columns: IntArray) -> Distances:
    """Return some rows and columns, in one pass: a copy of whole rows would be made for nothing."""
    some = np.empty((rows.size, columns.size), found.dtype)
    for i in range(rows.size):
        row = found[rows[i]]
        for j in range(columns.size):
            some[i, j] = row[columns[j]]
    return some


def _shared(rows: IntArray, columns: IntArray) -> tuple[IntArray, IntArray]:
    """Return the positions in both of the windows that two sets of one share, each window as often as it is there."""
    order = np.argsort(columns, kind="stable")
    first, last = (np.searchsorted(columns, rows, side, sorter=order) for side in ("left", "right"))
    times = last - first
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.repeat(np.arange(rows.size), times), order[np.repeat(first, times) + within]


def nearest(first: Windows, second: Windows, train: Windows) -> Nearest:
    """Return the nearest window of `second` to each of `first`, itself not counted."""

    def found() -> Nearest:
        between = distances(first, second, train)
        place = between.argmin(axis=1)
        return Nearest(between[np.arange(first.count), place].astype(np.float64), place)

    return kept(first, second, "_nearest", found)


def _between(first: Windows, second: Windows, train: Windows) -> Distances:
    """Return all distances of two whole sets; they are kept with the first."""

    def found() -> Distances:
        one, two = _rows(first, train), _rows(second, train)
        products = one @ two.T
        _to_distances(products, np.einsum("ij,ij->i", one, one), np.einsum("ij,ij->i", two, two))
        return np.asarray(products)

    return kept(first, second, "_between", found)


@njit(cache=True)
def _to_distances(products: Distances, one: Distances, two: Distances) -> None:
    """Make the products of rows their distances, given the squares of both sides, in place: many megabytes."""
    for i in range(one.size):
        for j in range(two.size):
            square = one[i] + two[j] - np.float32(2) * products[i, j]
            products[i, j] = np.float32(0) if square < 0 else np.sqrt(square)


def _rows(windows: Windows, train: Windows) -> Distances:
    """Return each window as one row in units of `train`, shape (n, length · features)."""

    def found() -> Distances:
        centre, spread = train.once(_units)
        scores = (windows.values - centre) / spread
        rows = scores.reshape(windows.count, -1) / np.sqrt(windows.length * len(windows.names))
        return np.asarray(rows, np.float32)

    return kept(windows, train, "_rows", found)


def kept(first: Windows, second: Windows, name: str, find: Callable[[], Found]) -> Found:
    """Return what was found of two sets before; it is kept with the first for as long as both live."""
    made: dict[int, tuple[ReferenceType[Windows], Found]] = first.__dict__.setdefault(name, {})
    # By a weak reference: a set that kept itself would outlive its evaluation, and these are hundreds of megabytes.
    if id(second) not in made or made[id(second)][0]() is not second:
        made[id(second)] = ref(second), find()
    return made[id(second)][1]


def _units(train: Windows) -> tuple[FloatArray, FloatArray]:
    """Return the mean and the standard deviation of every feature, 1 for a constant one."""
    spread = train.values.std(axis=(0, 1))
    return train.values.mean(axis=(0, 1)), np.where(spread > 0, spread, 1.0)
