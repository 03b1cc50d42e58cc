"""Copying: how much of a synthetic path is the training sample, word for word or with small changes.

A copy scores well everywhere else; only this family tells it from a good model. Distances of windows of all features
are `privacy`'s.
"""

from __future__ import annotations

from hashlib import sha256
from math import inf, log2
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.kernels import MANY, matches
from synth_pipeline.fidelity.metric import metric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray, IntArray

SHORTEST_RUN = 5
"""Returns in a row that make a verbatim run."""
CHANCE_BITS = 10.0
"""A run counts when chance would produce it anywhere in the two samples less than once in 2^10 times."""
MOST_PAIRS = 4_000_000
"""About as many pairs of steps are compared; of a path that needs more only the first steps are looked at."""
NEAR = 0.95
NEAR_STEPS = 20
NEAR_LOOKED_AT = 200
LARGEST = 2.5
"""Typical sizes beyond which a return counts no more."""
MOST_MOVE = 0.8
"""Share of the returns of a stretch that must move: still ones are alike by chance."""
_PIECE = 2**14
_CITATION = "Carlini et al. 2021, USENIX Security, on verbatim memorization"


@metric(
    title="Longest verbatim run",
    goal="low",
    bounds=(0.0, inf),
    minimum=SHORTEST_RUN,
    unit="steps",
    reference="train",
    exposes=True,
    margin=5.0,
    citation=_CITATION,
    meaning="A stretch of the training data reappears unchanged.",
)
def longest_verbatim_run(real: Sample, synthetic: Sample) -> float:
    """Returns in the longest run that a path has in common with the training data, word for word.

    `verbatim_runs` says which runs count; of several paths the longest is taken.
    """
    return float(max(copied(real, path, synthetic.resolution).longest for path in _looked_at(real, synthetic)))


@metric(
    title="Copied steps",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=SHORTEST_RUN,
    unit="share",
    reference="train",
    exposes=True,
    margin=0.02,
    citation=_CITATION,
    meaning="Pieces of the training data are replayed: good scores elsewhere then say nothing about new markets.",
)
def verbatim_share(real: Sample, synthetic: Sample) -> float:
    """Share of returns that lie in runs of five or more taken from the training data, word for word.

    `verbatim_runs` says which runs count; paths are pooled.
    """
    found = [copied(real, path, synthetic.resolution) for path in _looked_at(real, synthetic)]
    return sum(each.steps for each in found) / sum(each.known for each in found)


@metric(
    title="Near copies",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=2 * NEAR_STEPS,
    unit="share",
    reference="train",
    exposes=True,
    margin=0.02,
    citation="Yeh et al. 2016, ICDM, Matrix Profile I: joins of subsequences by their shape",
    meaning="Pieces of the training data are replayed with a little noise, or louder or softer.",
)
def near_copy_share(real: Sample, synthetic: Sample) -> float:
    """Share of stretches of 20 returns that have the shape of a stretch of the training data, up to small changes.

    The shape is what is left when returns are divided by their typical size in the stretch and large ones are cut, so
    that no single move makes two stretches alike. Alike are two with a cosine of 0.95 or more: noise of a third of the
    size of the moves is forgiven, and of 10^9 pairs of unrelated stretches about one in ten thousand is as near. At 200
    stretches, equally spaced, every stretch of the training data is tried. Those in which little moves are left out.
    """
    made = _shapes(synthetic.in_a_row, real, synthetic.resolution)
    if len(made) == 0:
        raise MetricError("near_copy_share needs stretches of 20 returns that move, the synthetic sample has none")
    made = made[np.linspace(0, len(made) - 1, min(len(made), NEAR_LOOKED_AT)).round().astype(np.int64)]
    best = np.zeros(len(made), np.float32)
    for known in real.once(_known_shapes):
        np.maximum(best, (made @ known.T).max(axis=1), out=best)
    return float((best >= NEAR).mean())


def _known_shapes(real: Sample) -> list[NDArray[np.float32]]:
    """Return the shapes of all stretches of a sample, in pieces."""
    source = real.in_a_row
    pieces = (source[start : start + _PIECE + NEAR_STEPS - 1] for start in range(0, source.size, _PIECE))
    return [shapes for piece in pieces if len(shapes := _shapes(piece, real))]


def _shapes(returns: FloatArray, real: Sample, resolution: float = 0.0) -> NDArray[np.float32]:
    """Return every stretch of 20 returns in which most move as a unit vector of its shape, shape (stretches, 20)."""
    if returns.size < NEAR_STEPS:
        return np.empty((0, NEAR_STEPS), np.float32)
    stretches = sliding_window_view(returns.astype(np.float32), NEAR_STEPS)
    sizes = np.abs(stretches)
    moving = (sizes > _tolerance(real, resolution) / 2).sum(axis=1) >= MOST_MOVE * NEAR_STEPS
    stretches = stretches[moving & np.isfinite(stretches).all(axis=1)]
    typical = np.median(np.abs(stretches), axis=1, keepdims=True)
    shapes = np.clip(stretches / typical, -LARGEST, LARGEST)
    return np.asarray(shapes / np.sqrt(np.einsum("ij,ij->i", shapes, shapes))[:, np.newaxis])


class Copied(NamedTuple):
    """What one path has in common with the training data, word for word."""

    longest: int
    """Returns in the longest verbatim run."""
    runs: int
    """How many such runs there are, one that lies inside another not counted."""
    steps: int
    """Returns that lie in any."""
    known: int
    """Returns that were looked at."""


def copied(real: Sample, path: FloatArray, resolution: float = 0.0) -> Copied:
    """Count the verbatim runs (see `verbatim_runs`) of log-returns of shape (steps,), whose tick is `resolution`."""
    # Two metrics look at the same paths, and finding the runs is all of their cost.
    kept: dict[tuple[bytes, float], Copied] = real.__dict__.setdefault("_copied", {})
    key = sha256(path.tobytes()).digest(), resolution
    if key not in kept:
        kept[key] = _counted(real, path, resolution)
    return kept[key]


def _counted(real: Sample, path: FloatArray, resolution: float) -> Copied:
    runs = verbatim_runs(real, path, resolution)
    ends = np.flatnonzero(runs)
    last = np.append(runs[1:], 0)[ends] != runs[ends] + 1
    edges = np.zeros(runs.size + 1, dtype=np.int64)
    np.add.at(edges, ends - runs[ends] + 1, 1)
    np.add.at(edges, ends + 1, -1)
    inside = int((np.cumsum(edges) > 0).sum())
    return Copied(int(runs.max(initial=0)), int(last.sum()), inside, int(np.isfinite(path).sum()))


def looked_at(real: Sample) -> int:
    """Return how many of a path's first steps are compared with a sample, so that cost stays bounded."""
    return real.once(_affordable)


def _affordable(real: Sample) -> int:
    thin = real.in_a_row[real.ranked[:: max(real.pooled.size // 1000, 1)]]
    equal, _ = matches(real.in_a_row, real.ranked, thin, _tolerance(real))
    # To find the equals of a step costs as much as a hundred of them, a scan as much as a few of all.
    each = 100.0 + min(float(equal.mean()), real.pooled.size / MANY)
    return max(int(MOST_PAIRS / each), 10 * SHORTEST_RUN)


def _tolerance(real: Sample, resolution: float = 0.0) -> float:
    return max(real.resolution, resolution, 1e-6 * float(real.pooled.std()))


def verbatim_runs(real: Sample, path: FloatArray, resolution: float = 0.0) -> IntArray:
    """Return for each step the length of the verbatim run that ends there, 0 where none does; shape (steps,).

    Two returns are equal when they differ by no more than one tick (prices put back on their grid at another level move
    each return by up to that; at the typical price of the path, where that is the lower one) or, without a grid, by a
    millionth of a standard deviation. Short runs of common returns
    occur by chance, above all runs in which nothing moves. So a run counts when it has five returns or more *and*
    carries log₂(pairs of steps) + 10 bits of surprise: for each return -log₂ of the share of real ones equal to it, and
    nothing for a return of less than half a tick.
    """
    tolerance = _tolerance(real, resolution)
    equal, lengths = matches(real.in_a_row, real.ranked, path, tolerance)
    moves = np.abs(np.where(np.isfinite(path), path, 0.0)) > tolerance / 2
    surprise = np.where(moves, np.log2(real.pooled.size / np.maximum(equal, 1)), 0.0)
    total = np.concatenate([[0.0], np.cumsum(surprise)])
    ends = np.arange(1, path.size + 1)
    needed = log2(real.pooled.size * path.size) + CHANCE_BITS
    counts = (lengths >= SHORTEST_RUN) & (total[ends] - total[ends - lengths] >= needed)
    return np.where(counts, lengths, 0)


def _looked_at(real: Sample, synthetic: Sample) -> list[FloatArray]:
    return [path[: looked_at(real)] for path in synthetic.returns]
