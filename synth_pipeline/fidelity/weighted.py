"""The twelve weighted metrics and the 0-100 fidelity that they add up to.

Each function is the statistic of one path, batched: log-returns (paths, steps) → (paths,), NaN where a path does not
define it. Its metric is the similarity, in [0, 1], of the statistics of a real and a synthetic sample (means over
paths):

- *ratio* min(a, b) / max(a, b), for positive quantities on no natural scale: 0.9 is a tenth apart;
- *difference* max(0, 1 - |a - b| / scale), for quantities that may be near 0, where a relative error would punish
  noise. The scale is the difference at which two samples have nothing in common in this respect; it stands beside
  each metric.

A similarity of 1 is not what fresh real data reach: every reported value stands beside theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import chdtrc

from synth_pipeline.fidelity import kernels, moments
from synth_pipeline.fidelity.metric import Compare, Scale, Statistic, StatisticMetric, statistic_metric
from synth_pipeline.series import FloatArray, IntArray

RSI_PERIOD = 14
LJUNG_BOX_LAGS = 10
ARCH_LAGS = 5
VOLATILITY_BLOCK = 10


def weighted(
    *,
    title: str,
    weight: float,
    similarity: Compare,
    minimum: int,
    citation: str,
    below: str,
    above: str,
    statistic_unit: str = "",
    margin: float = 0.0,
    scale: Scale = "linear",
) -> Callable[[Statistic], StatisticMetric]:
    """Declare a statistic to be one of the weighted metrics."""
    return statistic_metric(
        compare=similarity,
        title=title,
        goal="high",
        bounds=(0.0, 1.0),
        minimum=minimum,
        citation=citation,
        below=below,
        above=above,
        unit="similarity",
        statistic_unit=statistic_unit,
        margin=margin,
        scale=scale,
        weight=weight,
    )


def ratio(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return min / max of two non-negative numbers; NaN when both are 0."""
    return moments.quotient(np.minimum(first, second), np.maximum(first, second))


def difference(scale: float) -> Compare:
    """Return the similarity that falls in a line from 1 (equal) to 0 (`scale` or more apart)."""
    return lambda first, second: np.maximum(0.0, 1.0 - np.abs(first - second) / scale)


def fidelity(similarities: Mapping[StatisticMetric, FloatArray]) -> FloatArray:
    """Return the 0-100 fidelity of every path: the weighted mean of its similarities, absent ones left out.

    NaN for a path on which every one of them is absent.
    """
    score: FloatArray | float = 0.0
    total: FloatArray | float = 0.0
    # Metric by metric: numpy would add up the twelve of one path in another order than those of many.
    for metric, values in similarities.items():
        known = np.isfinite(values)
        score = score + 100.0 * metric.weight * np.where(known, values, 0.0)
        total = total + metric.weight * known
    return moments.quotient(np.asarray(score), np.asarray(total))


@weighted(
    title="Volatility",
    weight=3.0,
    statistic_unit="share",
    similarity=ratio,
    scale="log",
    minimum=2,
    citation="Cont 2001, Quantitative Finance 1(2)",
    below="Moves are too small: the market is too calm.",
    above="Moves are too large: the market is too nervous.",
)
def volatility(returns: FloatArray) -> FloatArray:
    """Standard deviation of log-returns; compared as a ratio."""
    return moments.standard_deviation(returns)


@weighted(
    title="Skewness",
    weight=2.0,
    similarity=difference(2.0),
    minimum=30,
    citation="Cont 2001, Quantitative Finance 1(2), fact 3",
    below="Large falls outweigh large rises more than in the market.",
    above="Large rises outweigh large falls more than in the market.",
)
def skewness(returns: FloatArray) -> FloatArray:
    """Third standardised moment; difference on a scale of 2, the skewness of an exponential distribution."""
    return moments.skewness(returns)


@weighted(
    title="Kurtosis",
    weight=2.0,
    similarity=ratio,
    scale="log",
    minimum=30,
    citation="Cont 2001, Quantitative Finance 1(2), fact 2",
    below="Extreme moves are too rare: the tails are too thin.",
    above="Extreme moves are too common, or a few of them are too large.",
)
def kurtosis(returns: FloatArray) -> FloatArray:
    """Fourth standardised moment (3 for a Gaussian, never below 1); compared as a ratio."""
    return moments.kurtosis(returns)


@weighted(
    title="Max drawdown",
    weight=1.5,
    statistic_unit="share",
    similarity=ratio,
    scale="log",
    minimum=2,
    citation="Magdon-Ismail, Atiya 2004, Risk 17(10)",
    below="The worst fall from a peak is shallower than in the market.",
    above="The worst fall from a peak is deeper than in the market.",
)
def max_drawdown(returns: FloatArray) -> FloatArray:
    """Largest loss from a running peak as a share of it, inside stretches without gaps; compared as a ratio."""
    return kernels.max_drawdowns(returns)


@weighted(
    title="ACF lag 1",
    weight=1.0,
    similarity=difference(0.5),
    minimum=30,
    citation="Cont 2001, Quantitative Finance 1(2), fact 1",
    below="A move is followed by its opposite more often than in the market.",
    above="A move is followed by another in its direction more often than in the market.",
)
def acf_lag_1(returns: FloatArray) -> FloatArray:
    """Autocorrelation of log-returns at lag 1; difference on a scale of 0.5."""
    return kernels.autocorrelations(returns, 1)[:, 0]


@weighted(
    title="ACF sum (10)",
    weight=2.0,
    similarity=difference(1.0),
    minimum=50,
    citation="Lo, MacKinlay 1988, Review of Financial Studies 1(1)",
    below="Moves cancel over the next steps more than in the market.",
    above="Moves add up to trends more than in the market.",
)
def acf_sum_10(returns: FloatArray) -> FloatArray:
    """Sum of the autocorrelations of log-returns at lags 1-10, signs kept; difference on a scale of 1."""
    total: FloatArray = kernels.autocorrelations(returns, 10).sum(axis=1)
    return total


@weighted(
    title="Volatility clustering",
    weight=3.0,
    similarity=difference(0.3),
    minimum=50,
    citation="Cont 2001, Quantitative Finance 1(2), fact 6",
    below="Large moves come singly, where in the market they come in clusters.",
    above="Large moves cluster more than in the market.",
)
def volatility_clustering(returns: FloatArray) -> FloatArray:
    """Mean autocorrelation of |log-returns| at lags 1-10; difference on a scale of 0.3."""
    average: FloatArray = kernels.autocorrelations(np.abs(returns), 10).mean(axis=1)
    return average


@weighted(
    title="Hurst exponent",
    weight=2.0,
    similarity=difference(0.3),
    minimum=100,
    citation="Peng et al. 1994, Physical Review E 49(2)",
    below="Prices revert over long stretches more than in the market.",
    above="Prices trend over long stretches more than in the market.",
)
def hurst_exponent(returns: FloatArray) -> FloatArray:
    """Slope of log F(s) on log s of detrended fluctuation analysis; difference on a scale of 0.3.

    Linear detrending, boxes of 4 up to a tenth of the steps, each 1.2 times the last. About 0.5 without memory.
    """
    boxes = dfa_boxes(returns.shape[1])
    with np.errstate(divide="ignore"):
        height = np.log(kernels.fluctuations(returns, boxes))
    height[~np.isfinite(height)] = np.nan
    width = np.where(np.isfinite(height), np.log(boxes), np.nan)
    rise = moments.correlation(width, height) * moments.standard_deviation(height)
    return moments.quotient(rise, moments.standard_deviation(width))


@weighted(
    title="Ljung–Box p",
    weight=1.0,
    similarity=difference(1.0),
    statistic_unit="p",
    margin=0.05,
    minimum=50,
    citation="Ljung, Box 1978, Biometrika 65(2)",
    below="Returns fail the test for white noise more clearly than in the market: the next one can be foretold.",
    above="Returns pass for white noise where those of the market do not.",
)
def ljung_box_p(returns: FloatArray) -> FloatArray:
    """p-value of the Ljung-Box test of log-returns at lags 1-10; compared as a plain difference.

    Worth little: without autocorrelation p is uniform, so that two perfect samples differ by 1/3 on average; at large n
    any autocorrelation drives both to 0, and the similarity is 1 whatever its strength. Its weight is 1 of 22.5.
    """
    return np.asarray(chdtrc(LJUNG_BOX_LAGS, ljung_box(returns)))


@weighted(
    title="ARCH-LM p",
    weight=1.0,
    similarity=difference(1.0),
    statistic_unit="p",
    margin=0.05,
    minimum=50,
    citation="Engle 1982, Econometrica 50(4)",
    below="Squared returns foretell each other more clearly than in the market.",
    above="Squared returns do not foretell each other, where in the market they do.",
)
def arch_lm_p(returns: FloatArray) -> FloatArray:
    """p-value of Engle's test: squared centred log-returns regressed on five lags; compared as a plain difference.

    Worth as little as `ljung_box_p`, for the same two reasons.
    """
    return np.asarray(chdtrc(ARCH_LAGS, kernels.lagrange_multipliers(returns, ARCH_LAGS)))


@weighted(
    title="RSI correlation",
    weight=2.0,
    similarity=difference(0.3),
    minimum=50,
    citation="Wilder 1978, New Concepts in Technical Trading Systems",
    below="After a strong momentum indicator prices revert more than in the market.",
    above="After a strong momentum indicator prices go on more than in the market.",
)
def rsi_correlation(returns: FloatArray) -> FloatArray:
    """Correlation of Wilder's RSI (14 steps) with the next log-return; difference on a scale of 0.3.

    What an indicator foretells can be compared between series that are not paired step by step: below 0 the market
    reverts after a strong index, above 0 it goes on. The index is computed on log-returns, so no price level enters.
    """
    index = kernels.relative_strength(returns, RSI_PERIOD)
    return moments.correlation(index[:, :-1], returns[:, 1:])


@weighted(
    title="Volatility persistence",
    weight=2.0,
    similarity=difference(0.6),
    minimum=10 * VOLATILITY_BLOCK,
    citation="Andersen, Bollerslev, Diebold, Labys 2003, Econometrica 71(2)",
    below="Calm and wild regimes end sooner than in the market.",
    above="Calm and wild regimes last longer than in the market.",
)
def volatility_persistence(returns: FloatArray) -> FloatArray:
    """Correlation of the volatilities of neighbouring blocks of ten log-returns; difference on a scale of 0.6."""
    blocks = kernels.block_volatilities(returns, VOLATILITY_BLOCK)
    return moments.correlation(blocks[:, :-1], blocks[:, 1:])


def ljung_box(returns: FloatArray) -> FloatArray:
    """Return the Ljung-Box statistic of each row at lags 1-10, shape (paths,)."""
    rho = kernels.autocorrelations(returns, LJUNG_BOX_LAGS)
    count = np.isfinite(returns).sum(axis=1)[:, np.newaxis]
    lags = np.arange(1, LJUNG_BOX_LAGS + 1)
    statistic: FloatArray = (count * (count + 2) * rho**2 / (count - lags)).sum(axis=1)
    return statistic


def dfa_boxes(steps: int) -> IntArray:
    """Return the box sizes of detrended fluctuation analysis for paths of `steps` returns."""
    powers = int(np.floor(np.log(max(0.1 * steps, 4.0) / 4.0) / np.log(1.2)))
    return np.unique(np.floor(4.0 * 1.2 ** np.arange(powers + 1)).astype(np.int64))
