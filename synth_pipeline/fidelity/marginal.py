"""Distribution of single log-returns, time order ignored: moments, Kolmogorov-Smirnov, Wasserstein, quantiles.

All known returns of a sample are pooled. What depends on the order of returns is in `temporal`.
"""

from __future__ import annotations

from math import inf

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.metric import absolute_difference, absolute_log_ratio, metric, statistic_metric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray

KS_POINTS = 200
"""Points of each path that the Kolmogorov-Smirnov distance sees: its noise depends on n, so n is fixed."""
TAIL_PROBABILITIES = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995])


@statistic_metric(
    compare=absolute_difference,
    title="Mean return",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    unit="own σ",
    citation="Cont 2001, Quantitative Finance 1(2)",
    below="Prices drift down compared with the real ones.",
    above="Prices drift up compared with the real ones.",
)
def mean_return(returns: FloatArray) -> FloatArray:
    """Mean log-return over the standard deviation; compared as a difference."""
    return moments.quotient(moments.mean(returns), moments.standard_deviation(returns))


@statistic_metric(
    compare=absolute_log_ratio,
    scale="log",
    title="Standard deviation",
    statistic_unit="share",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    unit="log ratio",
    citation="Cont 2001, Quantitative Finance 1(2)",
    below="Moves are too small: the market is too calm.",
    above="Moves are too large: the market is too nervous.",
)
def standard_deviation(returns: FloatArray) -> FloatArray:
    """Standard deviation of log-returns; compared as the absolute logarithm of the ratio."""
    return moments.standard_deviation(returns)


@statistic_metric(
    compare=absolute_difference,
    title="Skewness",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    citation="Cont 2001, Quantitative Finance 1(2), fact 3",
    below="Large falls outweigh large rises more than in the market.",
    above="Large rises outweigh large falls more than in the market.",
)
def return_skewness(returns: FloatArray) -> FloatArray:
    """Skewness (third standardised moment) of log-returns; compared as a difference."""
    return moments.skewness(returns)


@statistic_metric(
    compare=absolute_difference,
    scale="log",
    title="Kurtosis",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    citation="Cont 2001, Quantitative Finance 1(2), fact 2",
    below="Extreme moves are too rare: the tails are too thin.",
    above="Extreme moves are too common, or a few of them are too large.",
)
def return_kurtosis(returns: FloatArray) -> FloatArray:
    """Kurtosis (fourth standardised moment, 3 for a Gaussian) of log-returns; the difference is that of the excesses.

    One single move can decide it: read it with `quantile_error`, which no single move can.
    """
    return moments.kurtosis(returns)


@metric(
    title="Kolmogorov–Smirnov distance",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=KS_POINTS,
    citation="Smirnov 1948, Annals of Mathematical Statistics 19(2)",
    meaning="Typical moves have the wrong sizes, for example too few seconds in which nothing moves.",
)
def ks_distance(real: Sample, synthetic: Sample) -> float:
    """Largest gap of the two distribution functions of log-returns, at 200 equally spaced returns of each path.

    The distance and not its p-value, which at large n rejects real against real as well (returns are not independent).
    On a coarse tick grid single-tick moves are atoms that shift with the price level, in real data as in synthetic.
    """
    first, second = np.sort(_thinned(real)), np.sort(_thinned(synthetic))
    points = np.concatenate([first, second])
    below_first = np.searchsorted(first, points, side="right") / first.size
    below_second = np.searchsorted(second, points, side="right") / second.size
    return float(np.abs(below_first - below_second).max())


@metric(
    title="Wasserstein distance",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    unit="mean σ",
    citation="Villani 2009, Optimal Transport, ch. 6",
    meaning="The sizes of moves differ, on average over the whole distribution.",
)
def wasserstein_distance(real: Sample, synthetic: Sample) -> float:
    """Wasserstein-1 distance of the log-returns, in units of the mean of their two standard deviations."""
    first, second = np.sort(real.pooled), np.sort(synthetic.pooled)
    points = np.sort(np.concatenate([first, second]))
    below_first = np.searchsorted(first, points[:-1], side="right") / first.size
    below_second = np.searchsorted(second, points[:-1], side="right") / second.size
    area = np.sum(np.abs(below_first - below_second) * np.diff(points))
    return 2.0 * float(area) / (_spread(real, "real") + _spread(synthetic, "synthetic"))


@metric(
    title="Quantile error",
    goal="low",
    bounds=(0.0, inf),
    minimum=200,
    unit="own σ",
    citation="Hyndman, Fan 1996, The American Statistician 50(4)",
    meaning="The shape of the distribution is wrong whatever its width: shoulders and tails are misplaced.",
)
def quantile_error(real: Sample, synthetic: Sample) -> float:
    """Mean absolute difference of twelve quantiles (0.5 % to 99.5 %) of log-returns, each in its own deviations."""
    return float(np.abs(_quantiles(synthetic, "synthetic") - _quantiles(real, "real")).mean())


def _thinned(sample: Sample) -> FloatArray:
    known = [path[np.isfinite(path)] for path in sample.returns]
    return np.concatenate([path[np.linspace(0, path.size - 1, KS_POINTS).round().astype(np.int64)] for path in known])


def _spread(sample: Sample, side: str) -> float:
    spread = float(moments.standard_deviation(sample.pooled[np.newaxis])[0])
    if spread == 0.0:
        raise MetricError(f"the {side} returns are all equal: their standard deviation is 0")
    return spread


def _quantiles(sample: Sample, side: str) -> FloatArray:
    quantiles: FloatArray = np.quantile(
        (sample.pooled - sample.pooled.mean()) / _spread(sample, side), TAIL_PROBABILITIES
    )
    return quantiles
