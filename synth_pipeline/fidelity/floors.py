"""Floors: what a metric of returns takes between real samples, four kinds of them.

- split half: windows of the training data dealt to two halves at random, one against the other;
- bootstrap: a resample of the training data against a resample of the held-out ones, at the sizes of the comparison;
- fresh: the held-out data, a later period that nobody has seen, in place of the synthetic ones, against training data;
- copy: the training data replayed as if they were synthetic.

For a metric of copying, whose reference is the training data, bootstrap and copy are what a replay scores, and no
standard. What windows score is in `splits`, the verdict in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from synth_pipeline.fidelity import bootstrap, moments
from synth_pipeline.fidelity.comparison import Comparison
from synth_pipeline.fidelity.metric import Metric, StatisticMetric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray

RESAMPLES = 100
PAIRS = 50
"""Resamples that a metric scores which compares more than one number of each: those come one by one."""
DEALS = 8
MOST_RESAMPLED = 40_000
"""Most returns of one held-out resample."""
Values = dict[str, FloatArray]
"""By metric, NaN where a metric is undefined."""


@dataclass(frozen=True, eq=False)
class Floors:
    """What real data score against real data."""

    split_half: Values
    """Of every deal."""
    bootstrap: Values
    """Of every pair of resamples."""
    levels: Values
    """The statistic that a `StatisticMetric` compares, of training and then held-out resamples."""
    paths: FloatArray
    """The resamples of the training series, shape (resamples, steps)."""


def measured(
    chosen: Mapping[str, Metric], sides: Comparison, block: float, *, rng: np.random.Generator, tick: Callable[[], None]
) -> Floors:
    """Draw resamples and deals, and score them; `tick` is called after each."""
    kind, steps = type(sides.train), sides.length
    rows = min(sides.holdout.paths, max(MOST_RESAMPLED // steps, 1))
    fresh = np.concatenate(list(resamples(sides, sides.train, 1, block, rng=rng)))
    held_block = bootstrap.volatility_block_length(sides.holdout) if not sides.unit else block
    held = np.stack(list(resamples(sides, sides.whole_holdout, rows, held_block, rng=rng)))
    real, made = kind(held.reshape(-1, *held.shape[2:])), kind(fresh)
    values, levels = {}, {}
    against_real = {name: each for name, each in chosen.items() if each.reference == "holdout"}
    for name, metric in against_real.items():
        if isinstance(metric, StatisticMetric):
            first, second = metric.levels(made), moments.mean(metric.levels(real).reshape(RESAMPLES, rows))
            values[name], levels[name] = metric.compare(second, first), np.concatenate([first, second])
    rest = {name: metric for name, metric in against_real.items() if name not in values}
    found: dict[str, list[float]] = {name: [] for name in rest}
    for first, second in zip(held[:PAIRS], fresh[:PAIRS], strict=True):
        real, made = kind(first), kind(second[np.newaxis])
        for name, metric in rest.items():
            found[name].append(metric.per_path(real, made)[0][0])
        tick()
    values |= {name: np.array(each) for name, each in found.items()}
    for name, metric in chosen.items():
        if metric.reference == "train":
            values[name] = metric.per_path(sides.train, kind(fresh[:1]))[0]
    return Floors(_split_half(chosen, sides, rng=rng), values, levels, fresh)


def resamples(
    sides: Comparison, sample: Sample, rows: int, block: float, *, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield resamples of a whole sample, shape (rows, steps), in blocks of returns, or of the short paths it has."""
    if not sides.unit:
        return bootstrap.resamples(sample, (rows, sides.length), RESAMPLES, block, rng=rng)
    count = (sides.length + 1) // (sides.unit + 1)
    return bootstrap.bundles(sample.windows(sides.unit), (rows, count), RESAMPLES, rng=rng)


def _split_half(chosen: Mapping[str, Metric], sides: Comparison, *, rng: np.random.Generator) -> Values:
    """Deal windows of training data to two halves; of a single one, its own two halves."""
    whole = sides.fresh if sides.fresh.paths > 1 else sides.fresh.windows(sides.length // 2)
    found: dict[str, list[float]] = {name: [] for name in chosen}
    halves = {name: whole.once(each.levels) for name, each in chosen.items() if isinstance(each, StatisticMetric)}
    for _ in range(DEALS):
        dealt = rng.permutation(whole.paths)
        first, second = dealt[::2], dealt[1::2]
        real, made = whole.at(first), whole.at(second[:1])
        for name, metric in chosen.items():
            if isinstance(metric, StatisticMetric):
                level = moments.mean(halves[name][first][np.newaxis])
                found[name].append(float(metric.compare(level, halves[name][second[:1]])[0]))
            elif metric.reference == "holdout" or not found[name]:
                found[name].append(metric.per_path(real, made)[0][0])
    return {name: np.array(each) for name, each in found.items()}
