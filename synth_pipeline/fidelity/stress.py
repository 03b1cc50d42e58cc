"""Severity of stress scenarios beside labelled history: how deep, how wild, how long, how slow to recover.

Labels come as arrays of the prices' shape, from rules, a model or a person. A synthetic scenario is a whole path; a
real episode is a stretch of steps with the label, and its recovery may come after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import MetricError
from synth_pipeline.series import FloatArray

VOLATILITY_STEPS = 10
FEWEST_EPISODES = 5
MEASURES = {
    "max_drawdown": ("Max drawdown", "share"),
    "peak_volatility": ("Peak volatility", "share"),
    "duration": ("Duration", "steps"),
    "recovery": ("Recovery", "steps"),
}
"""Title and unit of each measure of severity."""


@dataclass(frozen=True, eq=False)
class Severity:
    """How severe each of some episodes is, arrays of shape (episodes,)."""

    max_drawdown: FloatArray
    """Largest loss from a running peak, as a share of the peak."""
    peak_volatility: FloatArray
    """Largest root mean square of 10 log-returns in a row, of all where there are fewer."""
    duration: FloatArray
    """Steps from the peak of that loss to its trough."""
    recovery: FloatArray
    """Steps from the trough until the price is at the peak again; infinite where that is never seen."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where synthetic scenarios lie among real episodes in one respect."""

    name: str
    title: str
    unit: str
    synthetic: float
    """Median of the scenarios."""
    real: float
    """Median of the episodes."""
    percentile: float
    """Mean, over scenarios, of the percentage of real episodes that are milder, ties counted by half; 50 is typical."""
    milder: float
    """Share of scenarios milder than every real episode."""
    graver: float
    """Share of scenarios graver than every real episode."""


def of_paths(prices: FloatArray) -> Severity:
    """Return the severity of scenarios, each a path of prices, shape (paths, steps)."""
    return _collected((path, 0, path.size) for path in prices)


def of_episodes(prices: FloatArray, labelled: NDArray[np.bool_]) -> Severity:
    """Return the severity of the stretches that carry a label, both arrays of shape (paths, steps).

    An episode begins with the price before its first labelled step, from which its first move is.
    """
    return _collected(
        (path, max(first - 1, 0), stop)
        for path, marks in zip(prices, labelled, strict=True)
        for first, stop in _stretches(marks)
    )


def placements(synthetic: Severity, real: Severity) -> tuple[Placement, ...]:
    """Place scenarios among real episodes, measure by measure.

    Raises `MetricError` for fewer than five real episodes, or no scenario: a percentile among few says nothing.
    """
    if real.duration.size < FEWEST_EPISODES or not synthetic.duration.size:
        raise MetricError(
            f"severity needs {FEWEST_EPISODES} real episodes and a scenario: there are {real.duration.size} and "
            f"{synthetic.duration.size}; label more history"
        )
    return tuple(
        _placement(name, title, unit, getattr(synthetic, name), getattr(real, name))
        for name, (title, unit) in MEASURES.items()
    )


def _placement(name: str, title: str, unit: str, synthetic: FloatArray, real: FloatArray) -> Placement:
    ordered = np.sort(real)
    below, to = (np.searchsorted(ordered, synthetic, side=side) for side in ("left", "right"))
    return Placement(
        name=name,
        title=title,
        unit=unit,
        synthetic=float(np.quantile(synthetic, 0.5, method="lower")),
        real=float(np.quantile(real, 0.5, method="lower")),
        percentile=float(100.0 * np.mean((below + to) / 2.0 / real.size)),
        milder=float(np.mean(synthetic < ordered[0])),
        graver=float(np.mean(synthetic > ordered[-1])),
    )


def _collected(episodes: Iterator[tuple[FloatArray, int, int]]) -> Severity:
    found = np.array([_severity(*episode) for episode in episodes]).reshape(-1, 4)
    return Severity(*found[~np.isnan(found).any(axis=1)].T)


def _severity(path: FloatArray, first: int, stop: int) -> tuple[float, float, float, float]:
    """Return the four measures of the steps `first`…`stop` (half open) of a path; NaN where a gap or no move is."""
    level = np.log(np.where(path > 0, path, np.nan))
    inside = level[first:stop]
    if inside.size < 2 or np.isnan(inside).any():
        return np.nan, np.nan, np.nan, np.nan
    fallen = np.maximum.accumulate(inside) - inside
    trough = int(np.argmax(fallen))
    peak = int(np.argmax(inside[: trough + 1]))
    after = np.flatnonzero(~(level[first + trough :] < inside[peak]))
    # A gap before the recovery hides it.
    is_seen = after.size > 0 and not np.isnan(level[first + trough + after[0]])
    squares = np.diff(inside) ** 2
    width = min(VOLATILITY_STEPS, squares.size)
    means = np.convolve(squares, np.full(width, 1.0 / width), mode="valid")
    recovery = float(after[0]) if is_seen else np.inf
    return -float(np.expm1(-fallen[trough])), float(np.sqrt(means.max())), float(trough - peak), recovery


def _stretches(marks: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
