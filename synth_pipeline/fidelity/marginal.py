"""Distribution of single log-returns, time order ignored: moments, distances, divergences, quantiles, tails.

All known returns of a sample are pooled. Two metrics are of windows, for features of any kind: their levels and their
changes. What depends on the order of returns is in `temporal`.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import distributions, moments, neighbours
from synth_pipeline.fidelity.distributions import Grouped
from synth_pipeline.fidelity.metric import (
    absolute_difference,
    absolute_log_ratio,
    metric,
    statistic_metric,
    window_metric,
)
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray, IntArray

KS_POINTS = 200
"""Points of each path that the Kolmogorov-Smirnov distance sees: its noise depends on n, so n is fixed."""
KL_POINTS = 4_000
"""Points of all paths that the nearest-neighbour divergence sees."""
BINS = 50
TAIL = 0.05
"""Share of a path's returns that count as its lower, or upper, tail."""
_ATOM = 0.05
"""Log-distance from the threshold within which returns of a tail count as tied with it."""
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
    return distributions.kolmogorov_smirnov(real.once(_ks_points), synthetic.once(_ks_points))


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
    spreads = _spread(real, "real") + _spread(synthetic, "synthetic")
    return 2.0 * distributions.wasserstein(real.once(_grouped), synthetic.once(_grouped)) / spreads


@metric(
    title="Energy distance",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    unit="√ mean σ",
    citation="Székely, Rizzo 2013, Journal of Statistical Planning and Inference 143(8)",
    meaning="The distributions of moves differ, typical moves and tails together.",
)
def energy_distance(real: Sample, synthetic: Sample) -> float:
    """Energy distance √(2 ∫ (F - G)²) of the log-returns, in units of the root of the mean of their deviations."""
    spreads = _spread(real, "real") + _spread(synthetic, "synthetic")
    energy = distributions.energy(real.once(_grouped), synthetic.once(_grouped))
    return energy / float(np.sqrt(spreads / 2.0))


@metric(
    title="Jensen–Shannon distance",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=200,
    citation="Endres, Schindelin 2003, IEEE Transactions on Information Theory 49(7)",
    meaning="Moves of some sizes are too common and of others too rare.",
)
def jensen_shannon_distance(real: Sample, synthetic: Sample) -> float:
    """Root of the Jensen-Shannon divergence, in bits, of log-returns counted in the 50 quantile bins of the real ones.

    Quantiles that coincide, as on a coarse tick grid, are one edge: an atom is a bin of its own or shares one with the
    gap beside it.
    """
    _spread(real, "real")
    return distributions.jensen_shannon(real.ordered, synthetic.ordered, real.once(_edges))


@metric(
    title="Nearest-neighbour KL divergence",
    goal="low",
    bounds=(0.0, inf),
    minimum=200,
    unit="nats",
    citation="Wang, Kulkarni, Verdú 2009, IEEE Transactions on Information Theory 55(5); Pérez-Cruz 2008, ISIT",
    meaning="Real moves fall where the synthetic ones are sparse: part of the distribution is missing.",
)
def neighbour_divergence(real: Sample, synthetic: Sample) -> float:
    """Kullback-Leibler divergence of real from synthetic log-returns by fifth nearest neighbours, 0 where below.

    About 4,000 returns a sample at most, equally spaced in each path. Ties, as on a tick grid, have no density: there
    the shares of both samples within the same distance are compared instead.
    """
    _spread(real, "real")
    return max(neighbours.divergence(real.once(_kl_points), synthetic.once(_kl_points)), 0.0)


@statistic_metric(
    compare=absolute_log_ratio,
    scale="log",
    title="Tail index of losses",
    goal="low",
    bounds=(0.0, inf),
    minimum=400,
    unit="log ratio",
    citation="Hill 1975, Annals of Statistics 3(5)",
    below="Crashes are too large for how often moves are large: the lower tail is too heavy.",
    above="The lower tail is too thin: large losses are never far beyond ordinary bad moves.",
)
def lower_tail_index(returns: FloatArray) -> FloatArray:
    """Hill's tail index of the lowest 5 % of log-returns (about 3 in most markets); the logarithm of the ratio."""
    return np.array([hill(-path)[0] for path in returns])


@statistic_metric(
    compare=absolute_log_ratio,
    scale="log",
    title="Tail index of gains",
    goal="low",
    bounds=(0.0, inf),
    minimum=400,
    unit="log ratio",
    citation="Hill 1975, Annals of Statistics 3(5)",
    below="Rallies are too large for how often moves are large: the upper tail is too heavy.",
    above="The upper tail is too thin: large gains are never far beyond ordinary good moves.",
)
def upper_tail_index(returns: FloatArray) -> FloatArray:
    """Hill's tail index of the highest 5 % of log-returns (about 3 in most markets); the logarithm of the ratio."""
    return np.array([hill(path)[0] for path in returns])


def hill(values: FloatArray, share: float = TAIL) -> tuple[float, float]:
    """Return Hill's estimate of the index of the upper tail and its standard error, index / √k; shape (steps,).

    Over the highest k = `share` · n of the known values. Both NaN where their threshold is not positive, or half of
    them or more lie within 5 % of it: steps of a coarse price grid are no tail.
    """
    known = values[np.isfinite(values)]
    k = int(share * known.size)
    if k < 2:
        return np.nan, np.nan
    highest = np.partition(known, known.size - k - 1)[-k - 1 :]
    if highest[0] <= 0:
        return np.nan, np.nan
    above = np.log(highest[1:] / highest[0])
    if 2 * np.count_nonzero(above > _ATOM) <= k:
        return np.nan, np.nan
    index = 1.0 / float(above.mean())
    return index, index / np.sqrt(k)


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
    made, own = (
        each.once(_quantiles) / _spread(each, side) for each, side in ((synthetic, "synthetic"), (real, "real"))
    )
    return float(np.abs(made - own).mean())


@window_metric(
    title="Levels of each feature",
    goal="low",
    bounds=(0.0, inf),
    minimum=50,
    unit="real σ",
    citation="Ang et al. 2023, PVLDB 17(3): marginal distribution difference",
    meaning="Some features take values that they never take, or miss some that they do.",
)
def level_distance(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Mean over features of the Wasserstein-1 distance of their values, in standard deviations of the real ones."""
    return feature_distance(holdout.once(_levels), synthetic.once(_levels))


@window_metric(
    title="Changes of each feature",
    goal="low",
    bounds=(0.0, inf),
    minimum=50,
    unit="real σ",
    citation="Cont 2001, Quantitative Finance 1(2)",
    meaning="Features change too much or too little from one step to the next.",
)
def change_distance(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Mean over features of the Wasserstein-1 distance of their one-step changes, in real standard deviations."""
    return feature_distance(holdout.once(_changes), synthetic.once(_changes))


def feature_distance(real: FloatArray, synthetic: FloatArray) -> float:
    """Return the mean Wasserstein-1 distance of features that `by_feature` gives, constant real ones left out.

    In standard deviations of the real feature. Raises `MetricError` where all real features are constant.
    """
    found = []
    for first, second in zip(real, synthetic, strict=True):
        spread = float(moments.standard_deviation(first[np.newaxis])[0])
        if spread > 0:
            sides = distributions.grouped(first), distributions.grouped(second)
            found.append(distributions.wasserstein(*sides) / spread)
    if not found:
        raise MetricError("every real feature is constant: there is no scale to compare on")
    return float(np.mean(found))


def by_feature(values: FloatArray) -> FloatArray:
    """Return all values of each feature from the lowest on, (n, length, features) → (features, n · length)."""
    return np.sort(np.ascontiguousarray(values.reshape(-1, values.shape[2]).T), axis=1)


def _levels(windows: Windows) -> FloatArray:
    return by_feature(windows.values)


def _changes(windows: Windows) -> FloatArray:
    return by_feature(np.diff(windows.values, axis=1))


def _thinned(sample: Sample, points: int) -> FloatArray:
    """Return `points` equally spaced known returns of each path, all where it has fewer, from the lowest on."""
    known = [path[np.isfinite(path)] for path in sample.returns]
    return np.sort(np.concatenate([path[_spaced(path.size, points)] for path in known]))


@lru_cache(maxsize=64)
def _spaced(count: int, points: int) -> IntArray:
    return np.linspace(0, count - 1, min(points, count)).round().astype(np.int64)


def _grouped(sample: Sample) -> Grouped:
    return distributions.grouped(sample.ordered)


def _ks_points(sample: Sample) -> FloatArray:
    return _thinned(sample, KS_POINTS)


def _kl_points(sample: Sample) -> FloatArray:
    return _thinned(sample, -(-KL_POINTS // sample.paths))


def _edges(sample: Sample) -> FloatArray:
    quantiles = np.quantile(sample.ordered, np.arange(1, BINS) / BINS, method="inverted_cdf")
    return np.unique(quantiles)


def _deviation(sample: Sample) -> float:
    return float(moments.standard_deviation(sample.pooled[np.newaxis])[0])


def _spread(sample: Sample, side: str) -> float:
    spread = sample.once(_deviation)
    if spread == 0.0:
        raise MetricError(f"the {side} returns are all equal: their standard deviation is 0")
    return spread


def _quantiles(sample: Sample) -> FloatArray:
    """Return twelve quantiles, less the mean."""
    return np.asarray(np.quantile(sample.ordered, TAIL_PROBABILITIES) - sample.pooled.mean())
