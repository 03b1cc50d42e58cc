"""Which row of history comes when: four schemes of the block bootstrap, as endless runs of row numbers.

What belongs here: kernels from random numbers to row numbers, and the `Blocks` that they draw from. What does not: what
a row holds.

A block is a run of rows of one stretch: none bridges a gap or the end of a path. Three schemes draw block after block
independently and with replacement:

- *stationary* (Politis and Romano 1994, J. American Statistical Association 89) from every row, of geometric length,
- *circular* (Politis and Romano 1992, in LePage and Billard) from every row, of one length; in both, the end of a
  stretch is followed by its own start, so that every row is drawn equally often in the long run;
- *moving* (Künsch 1989, Annals of Statistics 17) from every row with a whole block before the stretch ends (a shorter
  stretch is one block), of one length.

The *hybrid* is balanced and matched, an epoch of about as many rows as history has after the other:

1. Every stretch is cut at random into blocks of ½ to 1½ times the length; one of less than the length stays whole.
2. Each block has a class of recent volatility where it begins and one where it ends: quantile classes of an
   exponential mean of |r|, twice the cube root of the number of blocks of them. Blocks are alike when both agree and
   the fourth root of Σ r⁴ differs by less than half, and each is replaced by one of those that are like it, drawn with
   replacement. This is a stratified form of the balanced bootstrap (Davison, Hinkley and Schechtman 1986, Biometrika
   73): in every epoch each kind of block occurs as often as in history, and no path depends on how many times the one
   great crash was drawn, while all that has its like varies freely.
3. Blocks lead from class to class as edges from vertex to vertex. History goes through all of them, so there are walks
   that use every edge once and in which each block begins in the class where the one before ended. One of these Euler
   circuits is drawn, all equally likely (Kandel, Matias, Unger and Winkler 1996, Discrete Applied Mathematics 71): a
   random tree of last exits by loop-erased walks (Wilson 1996), the other exits in random order.

So volatility passes the joins and clusters outlast their blocks. For step 3, a stretch's first block begins in the
class where the stretch before it ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numba
import numpy as np
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray

Scheme = Literal["hybrid", "stationary", "circular", "moving"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
_MEMORY = 0.94
"""Of recent volatility: about seventeen steps, RiskMetrics' choice for days."""
_ALIKE = 0.5
_MOST_CLASSES = 30
_RESTING = 1e-12


@numba.njit(cache=True)
def drawn(
    rng: np.random.Generator,
    rows: IntArray,
    row: int,
    left: int,
    starts: IntArray,
    following: IntArray,
    length: float,
    geometric: bool,
) -> tuple[int, int]:
    """Fill `rows` with blocks drawn independently, going on at `row` with `left` rows of its block; return both after.

    `following` is the row after each one, -1 where a block ends early.
    """
    turns = math.log1p(-1.0 / length) if geometric and length > 1.0 else -np.inf
    for t in range(len(rows)):
        if left == 0 or row < 0:
            row = starts[int(rng.random() * len(starts))]
            left = int(length + 0.5)
            if geometric:
                left = 1 + int(math.log1p(-rng.random()) / turns)
        rows[t] = row
        row = following[row]
        left -= 1
    return row, left


@numba.njit(cache=True)
def cut(rng: np.random.Generator, opens: IntArray, stops: IntArray, length: int) -> tuple[IntArray, IntArray]:
    """Return first row and end of random blocks that tile every stretch."""
    least, most = max(length // 2, 1), max(length + length // 2, 1)
    room = np.sum((stops - opens) // least) + 2 * len(opens)
    firsts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    count = 0
    for s in range(len(opens)):
        first, stop = opens[s], stops[s]
        end = first + 1 + int(rng.random() * most)
        if stop - first <= length:
            end = stop
        while first < stop:
            firsts[count], ends[count] = first, min(end, stop)
            count += 1
            first, end = end, end + least + int(rng.random() * (most - least + 1))
    return firsts[:count], ends[:count]


@numba.njit(cache=True)
def replaced(rng: np.random.Generator, kinds: IntArray) -> IntArray:
    """Return for every block one of its kind, drawn with replacement."""
    order = np.argsort(kinds, kind="mergesort")
    chosen = np.empty_like(order)
    first = 0
    while first < len(order):
        stop = first + 1
        while stop < len(order) and kinds[order[stop]] == kinds[order[first]]:
            stop += 1
        for at in range(first, stop):
            chosen[order[at]] = order[first + int(rng.random() * (stop - first))]
        first = stop
    return chosen


@numba.njit(cache=True)
def circuit(rng: np.random.Generator, sources: IntArray, targets: IntArray, classes: int, root: int) -> IntArray:
    """Return the edges of a random Euler circuit from `root`, all circuits equally likely.

    Every vertex must have as many edges that leave as arrive, and all edges hang together.
    """
    begins = np.zeros(classes + 1, np.int64)
    for source in sources:
        begins[source + 1] += 1
    begins = np.cumsum(begins)
    leaving = np.argsort(sources, kind="mergesort")
    last, reached = np.full(classes, -1), begins[1:] == begins[:-1]
    reached[root] = True
    for vertex in range(classes):
        at = vertex
        while not reached[at]:
            last[at] = begins[at] + int(rng.random() * (begins[at + 1] - begins[at]))
            at = targets[leaving[last[at]]]
        at = vertex
        while not reached[at]:
            reached[at] = True
            at = targets[leaving[last[at]]]
    for vertex in range(classes):
        top = begins[vertex + 1] - 1
        if last[vertex] >= 0:
            leaving[last[vertex]], leaving[top] = leaving[top], leaving[last[vertex]]
            top -= 1
        for at in range(top, begins[vertex], -1):
            other = begins[vertex] + int(rng.random() * (at - begins[vertex] + 1))
            leaving[at], leaving[other] = leaving[other], leaving[at]
    walk, used, at = np.empty_like(leaving), begins[:-1].copy(), root
    for step in range(len(walk)):
        walk[step] = leaving[used[at]]
        used[at] += 1
        at = targets[walk[step]]
    return walk


@numba.njit(cache=True)
def epoch(
    rng: np.random.Generator,
    opens: IntArray,
    stops: IntArray,
    before: IntArray,
    after: IntArray,
    fourth: FloatArray,
    length: int,
    classes: int,
) -> IntArray:
    """Return the rows of one epoch of the hybrid; `before` and `after` are classes around each row, `fourth` its r⁴."""
    firsts, ends = cut(rng, opens, stops, length)
    phase = rng.random()
    kinds = np.empty(len(firsts), np.int64)
    sources, targets = np.empty_like(kinds), np.empty_like(kinds)
    for at in range(len(firsts)):
        sources[at], targets[at] = before[firsts[at]], after[ends[at] - 1]
        size = 0.25 * math.log(max(np.sum(fourth[firsts[at] : ends[at]]), _RESTING))
        kinds[at] = ((sources[at] * classes + targets[at]) << 20) + int(size / math.log1p(_ALIKE) + phase + 1000.0)
    chosen = replaced(rng, kinds)
    walk = circuit(rng, sources, targets, classes, after[stops[-1] - 1])
    total = 0
    for at in range(len(walk)):
        total += ends[chosen[at]] - firsts[chosen[at]]
    rows, filled = np.empty(total, np.int64), 0
    for at in walk:
        for row in range(firsts[chosen[at]], ends[chosen[at]]):
            rows[filled] = row
            filled += 1
    return rows


@dataclass(frozen=True, eq=False)
class Blocks:
    """What one scheme draws from: stretches of rows, and the length of blocks."""

    opens: IntArray
    """First row of each stretch, in time order."""
    stops: IntArray
    """End of each, exclusive."""
    sizes: FloatArray
    """Of every row of history: the size of its move in units of the typical one, shape (rows,)."""
    scheme: Scheme
    length: float

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int((self.stops - self.opens).sum())

    @property
    def expected(self) -> int:
        """About how many blocks they make, none of them across stretches."""
        return int(np.maximum((self.stops - self.opens) / max(self.length, 1.0), 1.0).sum())

    @cached_property
    def classes(self) -> tuple[IntArray, IntArray, int]:
        """Class of recent volatility before and after every row, and how many classes there are."""
        from scipy.signal import lfilter

        mean = float(self.sizes.mean())
        recent = lfilter([1.0 - _MEMORY], [1.0, -_MEMORY], self.sizes, zi=[_MEMORY * mean])[0]
        inside = recent[self._inside]
        wanted = min(max(round(2 * self.expected ** (1 / 3)), 1), _MOST_CLASSES)
        edges = np.unique(np.quantile(inside, np.arange(1, wanted) / wanted))
        after = np.searchsorted(edges, recent).astype(np.int64)
        before = np.roll(after, 1)
        before[self.opens] = after[np.roll(self.stops, 1) - 1]
        return before, after, len(edges) + 1

    def rows(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[IntArray]:
        """Yield row numbers, so many at a time; the cut changes nothing."""
        return self._epochs(rng, counts) if self.scheme == "hybrid" else self._drawn(rng, counts)

    def _epochs(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[IntArray]:
        (before, after, classes), length = self.classes, round(self.length)
        rows = np.empty(0, dtype=np.int64)
        for count in counts:
            while len(rows) < count:
                more = epoch(rng, self.opens, self.stops, before, after, self._fourth, length, classes)
                rows = np.concatenate((rows, more))
            yield rows[:count]
            rows = rows[count:]

    def _drawn(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[IntArray]:
        starts, following = self._starts
        row, left = 0, 0
        for count in counts:
            rows = np.empty(count, dtype=np.int64)
            row, left = drawn(
                rng, rows, row, left, starts, following, max(self.length, 1.0), self.scheme == "stationary"
            )
            yield rows

    @cached_property
    def _starts(self) -> tuple[IntArray, IntArray]:
        """Rows where a block may begin, and the row that follows each."""
        following = np.arange(1, len(self.sizes) + 1)
        following[self.stops - 1] = -1 if self.scheme == "moving" else self.opens
        if self.scheme != "moving":
            return np.flatnonzero(self._inside), following
        ends = np.maximum(self.stops - round(self.length) + 1, self.opens + 1)
        return _between(self.opens, ends), following

    @cached_property
    def _fourth(self) -> FloatArray:
        return self.sizes**4

    @cached_property
    def _inside(self) -> NDArray[np.bool_]:
        inside = np.zeros(len(self.sizes), dtype=np.bool_)
        inside[_between(self.opens, self.stops)] = True
        return inside


def _between(firsts: IntArray, ends: IntArray) -> IntArray:
    """Return every number from each first up to its end."""
    return np.concatenate([np.arange(first, end) for first, end in zip(firsts, ends, strict=True)])
