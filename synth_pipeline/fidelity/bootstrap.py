"""Stationary block bootstrap of log-returns: real samples made of pieces of a real sample, for the floors.

Blocks have geometric lengths (Politis and Romano 1994, "The Stationary Bootstrap", JASA 89) with the mean that
Politis and White's rule gives (2004, with the correction of Patton, Politis and White 2009). Nothing here compares
samples, and nothing here is a generator to be judged: it keeps every return as it is, so a resample is a verbatim
copy in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.kernels import autocorrelations, walks
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray, IntArray

PATIENCE = 5
"""Negligible autocorrelations in a row after which the rest counts as none; the rule's max(5, √log₁₀ n)."""

FEWEST = 10
"""Known values that a block length needs."""


def block_length(values: FloatArray) -> float:
    """Return Politis and White's mean block length for a series, NaN being gaps; shape (steps,).

    b = (2 G² / D)^(1/3) n^(1/3) with G = Σ λ(k/M) |k| R(k), D = 2 (Σ λ(k/M) R(k))², λ the flat-top window. M is twice
    the lag after which five autocorrelations in a row stay below 2 √(log₁₀ n / n). From 1 to min(3 √n, n / 3).
    """
    count = int(np.isfinite(values).sum())
    if count < FEWEST:
        raise MetricError(f"a block length needs {FEWEST} known values, there are {count}")
    furthest = int(np.ceil(np.sqrt(count))) + PATIENCE
    rho = autocorrelations(values[np.newaxis], furthest)[0]
    rho = np.where(np.isfinite(rho), rho, 0.0)
    small = np.abs(rho) < 2 * np.sqrt(np.log10(count) / count)
    quiet = [lag for lag in range(furthest - PATIENCE + 1) if small[lag : lag + PATIENCE].all()]
    loud = np.flatnonzero(~small) + 1
    last = quiet[0] if quiet else int(loud[-1])
    bandwidth = min(2 * max(last, 1), furthest)
    lags = np.arange(1, bandwidth + 1)
    window = np.minimum(1.0, 2.0 * (1.0 - lags / bandwidth))
    spread = 2.0 * np.sum(window * lags * rho[:bandwidth])
    level = 1.0 + 2.0 * np.sum(window * rho[:bandwidth])
    length = (2.0 * spread**2 / (2.0 * level**2)) ** (1 / 3) * count ** (1 / 3)
    return float(np.clip(length, 1.0, np.ceil(min(3 * np.sqrt(count), count / 3))))


def volatility_block_length(sample: Sample) -> float:
    """Return the block length that |returns| ask for: dependence lives in volatility, not in the returns themselves."""
    sizes = np.abs(sample.in_a_row)
    return block_length(sizes if sizes.ndim == 1 else (sizes / np.nanmean(sizes, axis=0)).mean(axis=1))


def resamples(
    sample: Sample, shape: tuple[int, int], count: int, length: float, *, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield `count` resamples of `shape` (paths, steps), each path drawn afresh, in blocks of mean `length`.

    A block that reaches the end of a run without gaps goes on at the run's start, so that every return is equally
    likely and no block bridges a gap.
    """
    values = sample.in_a_row
    # Several assets have their gaps at the same times.
    first = values.reshape(len(values), -1)[:, 0]
    known, following = np.flatnonzero(np.isfinite(first)), successors(first)
    for _ in range(count):
        yield values[indices(known, following, shape, length, rng=rng)]


def bundles(sample: Sample, shape: tuple[int, int], count: int, *, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield `count` resamples of short paths: `shape` (rows, paths a row) of them, put after each other with gaps.

    Whole paths are drawn, in blocks of neighbours as long as their mean sizes ask for: overlapping cuts of one series
    are not independent.
    """
    sizes = np.abs(sample.returns).reshape(sample.paths, -1)
    typical = moments.mean(sizes)
    length = block_length(typical) if np.isfinite(typical).sum() >= FEWEST else 1.0
    places = np.arange(sample.paths)
    following = np.append(places[1:], 0)
    for _ in range(count):
        drawn = indices(places, following, shape, length, rng=rng)
        yield sample.at(drawn.ravel()).bundled(shape[1]).returns


def indices(
    known: IntArray, following: IntArray, shape: tuple[int, int], length: float, *, rng: np.random.Generator
) -> IntArray:
    """Draw the positions of one resample: a new start among `known` with probability 1 / `length`, else the next."""
    starts = known[rng.integers(0, known.size, size=shape)]
    jumps = rng.random(shape) < 1.0 / length
    return walks(starts, jumps, following)


def successors(values: FloatArray) -> IntArray:
    """Return the position after each one, the end of a run being followed by the run's start; shape (steps,)."""
    following = np.arange(1, values.size + 1)
    known = np.isfinite(values)
    edges = np.diff(np.concatenate(([0], known.astype(np.int8), [0])))
    following[np.flatnonzero(edges == -1) - 1] = np.flatnonzero(edges == 1)
    return following
