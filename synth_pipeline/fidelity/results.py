"""Results: a metric's value set beside its floors, and the question that a verdict answers.

Nothing is computed of samples here but the values of one metric, and nothing is judged; `verdicts` does that.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from synth_pipeline.fidelity.comparison import Comparison
from synth_pipeline.fidelity.evaluation import Floor, Floors, Result
from synth_pipeline.fidelity.floors import Floors as Draws
from synth_pipeline.fidelity.metric import Facts, Metric, StatisticMetric, WindowMetric
from synth_pipeline.fidelity.splits import Scores
from synth_pipeline.fidelity.verdicts import Judgement, Question, interval
from synth_pipeline.series import FloatArray

FURTHEST = 1e6
"""Excess that stands for any greater one."""
SEARCHED = 16
"""Synthetic paths that are searched for copies, equally spaced, each against all of training."""
_NO_BAND = "is undefined on most resamples of the real data, so it has no floor"


@dataclass(frozen=True, eq=False)
class Values:
    """A metric on every synthetic path and on every path of real data, NaN where absent."""

    synthetic: FloatArray
    fresh: FloatArray
    copy: FloatArray
    training: FloatArray
    """On every synthetic path again, with the training data as the reference."""
    reason: str

    @classmethod
    def of(cls, metric: Metric, sides: Comparison) -> Values:
        """Compute all four."""
        if metric.reference == "train":
            made, reason = metric.per_path(sides.train, sides.synthetic.thinned(SEARCHED))
            fresh, fresh_reason = metric.per_path(sides.train, sides.holdout.thinned(SEARCHED // 4))
            copy, _ = metric.per_path(sides.train, sides.fresh.thinned(1))
            return cls(made, fresh, copy, made, reason or fresh_reason)
        made, reason = metric.per_path(sides.holdout, sides.synthetic)
        fresh, fresh_reason = metric.per_path(sides.fresh, sides.holdout)
        copy, _ = metric.per_path(sides.holdout, sides.fresh)
        return cls(made, fresh, copy, metric.per_path(sides.fresh, sides.synthetic)[0], reason or fresh_reason)

    @property
    def is_absent(self) -> bool:
        """Whether fewer than half of the synthetic paths, or no path of real data, have a value."""
        return 2 * np.isfinite(self.synthetic).sum() < self.synthetic.size or not np.isfinite(self.fresh).any()


def of_returns(metric: Metric, values: Values, draws: Draws, sides: Comparison) -> tuple[Result, Question | None]:
    """Set a metric of returns beside its floors; no question is asked where it is absent."""
    absent = described(metric, values.reason or f"{metric.name} {_NO_BAND}", paths=known(values.synthetic))
    bootstrapped = draws.bootstrap[metric.name]
    band = interval(bootstrapped) if metric.reference == "holdout" else None
    if values.is_absent or (band is None and metric.reference == "holdout"):
        return absent, None
    value, fresh, copy, training = (
        float(np.nanmean(each)) if known(each) else np.nan
        for each in (values.synthetic, values.fresh, values.copy, values.training)
    )
    present = msgspec.structs.replace(
        absent,
        reason="",
        value=value,
        spread=spread(values.synthetic),
        floor=fresh,
        training=training,
        band=band,
        floors=Floors(
            split_half=floor(draws.split_half[metric.name], "half windows are too short for it"),
            bootstrap=floor(bootstrapped),
            fresh=floor(values.fresh),
            copy=floor(values.copy),
        ),
    )
    if isinstance(metric, StatisticMetric) and (levels := interval(draws.levels[metric.name])):
        held, train, made = (metric.level(sample, "real") for sample in (sides.holdout, sides.fresh, sides.synthetic))
        meaning = metric.above if made > held else metric.meaning
        stated = msgspec.structs.replace(
            present, meaning=meaning, real=held, fresh=train, synthetic=made, real_band=levels
        )
        return stated, Question(made, draws.levels[metric.name], (held, train), "target", metric.margin, metric.scale)
    if metric.reference == "train":
        return present, Question(value, np.empty(0), (fresh,), metric.goal, metric.margin)
    worse = min(value, training) if metric.goal == "high" else max(value, training)
    real = tuple(each for each in (fresh, copy) if np.isfinite(each))
    return present, Question(worse, bootstrapped, real, metric.goal, metric.margin)


def of_windows(metric: WindowMetric, scores: Scores) -> tuple[Result, Question | None]:
    """Set a metric of windows beside its floors; no question is asked where it is absent."""
    absent = described(metric, scores.reason or f"{metric.name} {_NO_BAND}", paths=0)
    fresh = float(np.nanmean(scores.fresh)) if known(scores.fresh) else np.nan
    if not np.isfinite(scores.value) or not known(scores.split_half) or not np.isfinite(fresh):
        return absent, None
    present = msgspec.structs.replace(
        absent,
        reason="",
        value=scores.value,
        paths=1,
        floor=fresh,
        band=interval(scores.split_half),
        floors=Floors(
            split_half=floor(scores.split_half),
            bootstrap=floor(scores.bootstrap, "not drawn for what trains a learner: the copy says as much"),
            fresh=floor(scores.fresh),
            copy=floor(scores.copy),
        ),
    )
    return present, Question(scores.value, scores.split_half, (fresh,), metric.goal, metric.margin)


def stated(result: Result, judgement: Judgement | None, limit: float) -> Result:
    """Write a verdict into a result."""
    if judgement is None:
        return result
    excess = min(judgement.excess, FURTHEST)
    return msgspec.structs.replace(result, verdict=judgement.verdict, excess=excess, limit=limit)


def described(metric: Facts, reason: str, paths: int) -> Result:
    """Return what is known of a metric whatever the samples: an absent result."""
    return Result(
        name=metric.name,
        family=metric.family,
        title=metric.title,
        goal=metric.goal,
        unit=metric.unit,
        citation=metric.citation,
        what=metric.what,
        meaning=metric.meaning,
        reference=metric.reference,
        margin=metric.margin,
        weight=(metric.weight or None) if isinstance(metric, StatisticMetric) else None,
        statistic_unit=metric.statistic_unit if isinstance(metric, StatisticMetric) else "",
        paths=paths,
        exposes=metric.exposes,
        cost=metric.cost if isinstance(metric, WindowMetric) else "cheap",
        verdict="absent",
        reason=reason,
    )


def floor(draws: FloatArray, reason: str = "real data leave it undefined") -> Floor:
    """Return the mean and the interval of some draws; the reason where none is known."""
    if not known(draws):
        return Floor(reason=reason)
    return Floor(
        value=float(np.nanmean(draws)), interval=interval(draws) if known(draws) > 1 else None, draws=known(draws)
    )


def known(values: FloatArray) -> int:
    """Return how many values are numbers."""
    return int(np.isfinite(values).sum())


def spread(values: FloatArray) -> float | None:
    """Return the standard deviation of the known values; None for fewer than two."""
    found = values[np.isfinite(values)]
    return float(found.std(ddof=1)) if found.size > 1 else None
