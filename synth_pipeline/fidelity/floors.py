"""Floors: what a metric takes between real samples, and the verdict that this allows on a value.

Two floors stand beside every number, *fresh real data* and the bootstrap band; `evaluate` says how they are drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import log

import numpy as np

from synth_pipeline.fidelity import bootstrap, weighted
from synth_pipeline.fidelity.comparison import Comparison
from synth_pipeline.fidelity.evaluation import Verdict
from synth_pipeline.fidelity.metric import Goal, Metric, Scale, StatisticMetric
from synth_pipeline.progress import Progress
from synth_pipeline.series import FloatArray

RESAMPLES = 100
BAND = (0.05, 0.95)
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Bands:
    """What resamples of real data score against each other; a metric that most leave undefined is missing."""

    values: dict[str, Interval]
    """Of the metric's value, by metric."""
    levels: dict[str, Interval]
    """Of the statistic that a `StatisticMetric` compares, training and held-out resamples together, by metric."""
    fidelity: Interval
    paths: FloatArray
    """The resamples of the training series, shape (resamples, steps)."""


def bands(
    chosen: Mapping[str, Metric], sides: Comparison, block: float, *, rng: np.random.Generator, progress: Progress
) -> Bands:
    """Score resampled training windows against a resampled held-out sample, at the sizes of the comparison."""
    banded = {name: metric for name, metric in chosen.items() if metric.reference == "holdout"}
    values = {name: np.full(RESAMPLES, np.nan) for name in banded}
    holdout_block = bootstrap.volatility_block_length(sides.holdout)
    fresh = bootstrap.resamples(sides.train, (1, sides.length), RESAMPLES, block, rng=rng)
    held = bootstrap.resamples(sides.holdout, (sides.holdout.paths, sides.length), RESAMPLES, holdout_block, rng=rng)
    kind, shape = type(sides.train), (RESAMPLES, *sides.synthetic.returns.shape[1:])
    paths, held_paths = np.empty(shape), np.empty(shape)
    for index, (first, second) in enumerate(zip(held, fresh, strict=True)):
        paths[index], held_paths[index] = second[0], first[0]
        for name, metric in banded.items():
            values[name][index] = metric.per_path(kind(first), kind(second))[0][0]
        progress(index + 1, RESAMPLES + len(chosen), "real against real")
    both = kind(np.concatenate([paths, held_paths]))
    comparing = {name: metric for name, metric in banded.items() if isinstance(metric, StatisticMetric)}
    scores = weighted.fidelity({metric: values[name] for name, metric in comparing.items() if metric.weight > 0})
    return Bands(
        values={name: found for name in banded if (found := _interval(values[name]))},
        levels={name: found for name, metric in comparing.items() if (found := _interval(metric.levels(both)))},
        fidelity=_interval(scores) or (0.0, 100.0),
        paths=paths,
    )


def verdict(
    value: float,
    real: Collection[float],
    band: Interval,
    goal: Goal,
    margin: float = 0.0,
    scale: Scale = "linear",
) -> Verdict:
    """Say where a value lies beside what real data give.

    Indistinguishable: no worse than the band of real resamples, or than any of the `real` values themselves, but for
    the margin. Close: worse by at most half the width of the band so widened (for a Gaussian: between 1.6 and 3.3
    standard deviations from its middle). Off: worse than that. For the goal `target` both sides are worse.
    """
    if scale == "log":
        if value <= 0:
            return "off"
        value, real, band = log(value), [log(number) for number in real], (log(band[0]), log(band[1]))
    low, high = min(band[0], *real) - margin, max(band[1], *real) + margin
    worse = {"low": value - high, "high": low - value, "target": max(value - high, low - value)}[goal]
    if worse <= 0:
        return "indistinguishable"
    return "close" if worse <= (band[1] - band[0]) / 2 + margin else "off"


def _interval(values: FloatArray) -> Interval | None:
    """Return the 5 % and 95 % quantiles of the known values; None when fewer than half are known."""
    known = values[np.isfinite(values)]
    if 2 * known.size < values.size:
        return None
    low, high = np.quantile(known, BAND)
    return float(low), float(high)
