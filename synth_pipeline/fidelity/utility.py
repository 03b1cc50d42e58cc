"""Utility: whether what is learned, or chosen, on synthetic data holds on real data of a later period.

Train on synthetic, test on real (TSTR), beside training on real (TRTR), on three tasks with three learners; what
synthetic windows add to real ones; whether trading rules rank alike. `usefulness.outcome` has every trial by itself,
with the interval of its gain. A low error is no use by itself: where the next step cannot be told, every teacher is as
good as any other, and all ratios are 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan, sqrt

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.metric import metric, window_metric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.trading_rules import sharpe_ratios
from synth_pipeline.fidelity.usefulness import TASKS, Errors, errors
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray

_TSTR = "Esteban, Hyland, Rätsch 2017, arXiv 1706.02633"
_MINIMUM = 100


@window_metric(
    title="TSTR: direction",
    goal="low",
    bounds=(0.0, inf),
    minimum=_MINIMUM,
    citation=_TSTR,
    meaning="Which way the price goes next is learned worse from synthetic windows than from real ones.",
    unit="× the error of TRTR",
    cost="learned",
)
def tstr_direction(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Error in the next price change's sign after training on synthetic windows, over that after training on real."""
    return _ratio("direction", train, synthetic, holdout)


@window_metric(
    title="TSTR: volatility",
    goal="low",
    bounds=(0.0, inf),
    minimum=_MINIMUM,
    citation=_TSTR,
    meaning="How large the next price change is, is learned worse from synthetic windows than from real ones.",
    unit="× the error of TRTR",
    cost="learned",
)
def tstr_volatility(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Error in the next price change's size after training on synthetic windows, over that after training on real."""
    return _ratio("volatility", train, synthetic, holdout)


@window_metric(
    title="TSTR: next value",
    goal="low",
    bounds=(0.0, inf),
    minimum=_MINIMUM,
    citation=_TSTR,
    meaning="The next value of the last feature is learned worse from synthetic windows than from real ones.",
    unit="× the error of TRTR",
    cost="learned",
)
def tstr_value(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Error in the last feature's next value after training on synthetic windows, over that after training on real."""
    return _ratio("value", train, synthetic, holdout)


def _ratio(task: str, train: Windows, synthetic: Windows, holdout: Windows) -> float:
    return float(np.mean([found.ratio for found in errors(train, synthetic, holdout, task)]))


def _all(train: Windows, synthetic: Windows, holdout: Windows) -> Iterator[Errors]:
    for task in TASKS:
        yield from errors(train, synthetic, holdout, task)


@window_metric(
    title="TRTS",
    goal="low",
    bounds=(0.0, inf),
    minimum=_MINIMUM,
    citation=_TSTR,
    meaning="What models learned from real windows fails on synthetic ones, or does better there than it should.",
    cost="learned",
)
def trts_difference(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """How far the error of real-trained models on synthetic windows is from that on held-out ones, as a share of it."""
    return float(np.mean([abs(found.trts / found.trtr - 1) for found in _all(train, synthetic, holdout)]))


@window_metric(
    title="Gain by augmentation",
    goal="high",
    bounds=(-inf, 1.0),
    minimum=_MINIMUM,
    citation="Esteban, Hyland, Rätsch 2017, arXiv 1706.02633; intervals by a block bootstrap",
    meaning="Adding synthetic windows to real ones makes models worse on what comes later.",
    unit="share of the error",
    cost="learned",
)
def augmentation_gain(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Share of a model's error on held-out windows that training on real and synthetic ones together removes."""
    return float(np.mean([found.gain for found in _all(train, synthetic, holdout)]))


@metric(
    title="Ranks of trading rules",
    goal="high",
    bounds=(-1.0, 1.0),
    minimum=250,
    citation="Kendall 1938, Biometrika 30",
    meaning="The rule that is best on synthetic data is not the one that is best on real data.",
)
def rule_rank_agreement(real: Sample, synthetic: Sample) -> float:
    """Kendall's τ between the Sharpe ratios of twelve trading rules on real and on synthetic paths."""
    levels = []
    for side, sample in (("real", real), ("synthetic", synthetic)):
        level = sample.once(_ratios)
        if not np.isfinite(level).all():
            raise MetricError(f"rule_rank_agreement cannot rank the {side} sample: some rule never trades there")
        levels.append(level)
    return kendall(*levels)


def kendall(first: FloatArray, second: FloatArray) -> float:
    """Return Kendall's τ: pairs in the same order less those in the opposite one, over the untied; NaN if all are tied.

    τ-b for ties. scipy takes a millisecond for a dozen numbers, most of it to look at its arguments.
    """
    one, two = (np.sign(side[:, np.newaxis] - side) for side in (first, second))
    untied = sqrt(np.count_nonzero(one) * np.count_nonzero(two))
    return float((one * two).sum() / untied) if untied else nan


def _ratios(sample: Sample) -> FloatArray:
    """Return the mean Sharpe ratio of each rule over the paths where it trades, NaN where it never does."""
    ratios = sharpe_ratios(sample.returns)
    traded = np.isfinite(ratios)
    count = traded.sum(axis=1)
    mean: FloatArray = np.where(traded, ratios, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
    return mean
