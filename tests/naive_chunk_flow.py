"""Slow, obvious twins of the cascade's kernels, and series whose volatility is known to cluster."""

from __future__ import annotations

import math

import numpy as np

from synth_pipeline.generators.cascade import Atoms, Cascade
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series


def drivers(score: float, at: int, odd: bool, atoms: Atoms) -> list[float]:
    """The score and its two activities, or their means within the atom that it lies in."""
    for low, high, means in zip(atoms.low[at], atoms.high[at], atoms.drivers[at], strict=True):
        if low <= score <= high:
            return [float(each) for each in means]
    return smooth(score, odd)


def smooth(score: float, odd: bool) -> list[float]:
    """The drivers of a score that is in no atom."""
    if odd:
        return [score, score**2, abs(score) * math.sqrt(math.pi / 2)]
    return [score, math.exp(score / 2 - 1 / 8), math.exp(-score / 2 - 1 / 8)]


def row_of(scores: FloatArray, odd: np.ndarray, atoms: Atoms) -> list[float]:
    """All drivers of a row: first every score, then both activities of every feature."""
    each = [drivers(min(max(float(z), -5), 5), at, bool(odd[at]), atoms) for at, z in enumerate(scores)]
    return [own[0] for own in each] + [activity for own in each for activity in own[1:]]


def cascade_before(
    scores: FloatArray, opens: np.ndarray, odd: np.ndarray, decays: FloatArray, atoms: Atoms
) -> FloatArray:
    """The averages before each row, every one computed anew from the whole past."""
    features, found = len(odd), []
    start = [0.0] * features + [1.0] * 2 * features
    for row in range(len(scores)):
        first = max(at for at in range(row + 1) if at == 0 or opens[at])
        past = [row_of(scores[at], odd, atoms) for at in range(first, row) if not np.isnan(scores[at, 0])]
        averages = []
        for decay in decays:
            weights = [(1 - decay) * decay**age for age in range(len(past))][::-1]
            rest = decay ** len(past)
            averages.append(
                [
                    rest * start[driver] + sum(w * each[driver] for w, each in zip(weights, past, strict=True))
                    for driver in range(3 * features)
                ]
            )
        found.append(averages)
    return np.array(found)


def law(cascade: FloatArray, fitted: Cascade) -> tuple[list[float], list[float]]:
    """Location and scale after a cascade, term by term."""
    features, scales = len(fitted.odd), len(fitted.decays)
    locations, sizes = [], []
    for at in range(features):
        slopes = fitted.slopes[at].reshape(scales, 3 * features)
        weights = fitted.weights[at, 1:].reshape(scales, 2 * features)
        locations.append(sum(slopes[k, g] * cascade[k, g] for k in range(scales) for g in range(3 * features)))
        square = fitted.weights[at, 0]
        square += sum(weights[k, g] * cascade[k, features + g] for k in range(scales) for g in range(2 * features))
        sizes.append(math.sqrt(fitted.level[at] * square))
    return locations, sizes


def garch(steps: int, seed: int = 0) -> Series:
    """Closes whose squared returns follow one another for a hundred steps."""
    rng, variance, moves = stream(seed, "garch"), 1e-4, []
    for shock in rng.standard_normal(steps + 500):
        moves.append(math.sqrt(variance) * shock)
        variance = 1e-4 * 0.02 + 0.10 * moves[-1] ** 2 + 0.88 * variance
    close = 100 * np.exp(np.cumsum(moves[500:]))
    return Series(close[np.newaxis, :, np.newaxis], ("close",), 3_600 * 10**9, np.array([10**18]), 0.0)
