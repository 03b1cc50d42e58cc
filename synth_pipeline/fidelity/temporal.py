"""Order of log-returns in time: memory of returns and of their size, its direction, aggregation, bursts, falls, drift.

A lag never reaches over a gap. Two metrics are of windows, for features of any kind. The distribution of single returns
is in `marginal`; Hurst exponent and volatility persistence of returns are among the `weighted`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import inf, sqrt

import numpy as np
from numba import njit

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import distributions, kernels, moments, weighted
from synth_pipeline.fidelity.distributions import Grouped
from synth_pipeline.fidelity.kernels import autocorrelations
from synth_pipeline.fidelity.metric import absolute_difference, metric, statistic_metric, window_metric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray, IntArray

RETURN_LAGS = 20
ABSOLUTE_RETURN_LAGS = 50
DIRECTION_LAGS = 10
"""Lags over which past and future are compared."""
HORIZONS = (2, 4, 8, 16)
"""Steps of the returns whose kurtosis falls towards that of a Gaussian."""
LARGE = 0.95
"""Quantile of |returns| above which a move is large."""
MEMORY, WARM = 0.94, 20
"""Of the recent variance, after RiskMetrics."""
WINDOW_LAGS = 5


@metric(
    title="Autocorrelation of returns",
    goal="low",
    bounds=(0.0, 2.0 * sqrt(2.0)),
    minimum=4 * RETURN_LAGS,
    citation="Cont 2001, Quantitative Finance 1(2), fact 1",
    meaning="The last moves foretell the next one where they do not in the market, or the other way round.",
)
def return_acf_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference of the autocorrelations of log-returns at lags 1-20, averaged over paths."""
    return _rms_difference(return_acf, real, synthetic)


@metric(
    title="Autocorrelation of |returns|",
    goal="low",
    bounds=(0.0, 2.0 * sqrt(2.0)),
    minimum=4 * ABSOLUTE_RETURN_LAGS,
    citation="Cont 2001, Quantitative Finance 1(2), fact 6",
    meaning="Volatility does not cluster as in the market: wild and calm stretches are too mixed or too lasting.",
)
def absolute_return_acf_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference of the autocorrelations of |log-returns| at lags 1-50, averaged over paths."""
    return _rms_difference(absolute_return_acf, real, synthetic)


@metric(
    title="Autocorrelation of squared returns",
    goal="low",
    bounds=(0.0, 2.0 * sqrt(2.0)),
    minimum=4 * ABSOLUTE_RETURN_LAGS,
    citation="Cont 2001, Quantitative Finance 1(2), fact 6",
    meaning="The largest moves do not follow each other as in the market: shocks fade too soon or too late.",
)
def squared_return_acf_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference of the autocorrelations of squared log-returns at lags 1-50, averaged over paths."""
    return _rms_difference(squared_return_acf, real, synthetic)


@statistic_metric(
    compare=absolute_difference,
    title="Ljung–Box per observation",
    goal="low",
    bounds=(0.0, inf),
    minimum=100,
    citation="Ljung, Box 1978, Biometrika 65(2)",
    below="The next return can be foretold from the last ones less than in the market.",
    above="The next return can be foretold from the last ones more than in the market.",
)
def ljung_box_per_observation(returns: FloatArray) -> FloatArray:
    """Ljung-Box statistic of log-returns at lags 1-10 over their number: a strength, where p-values are 0 or chance."""
    return weighted.ljung_box(returns) / _counts(returns)


@statistic_metric(
    compare=absolute_difference,
    title="ARCH-LM per observation",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=100,
    citation="Engle 1982, Econometrica 50(4)",
    below="The last squared returns tell less about the next than in the market: volatility forgets.",
    above="The last squared returns tell more about the next than in the market.",
)
def arch_lm_per_observation(returns: FloatArray) -> FloatArray:
    """Engle's statistic at five lags over the number of returns: nearly R² of squared returns on those before."""
    return kernels.lagrange_multipliers(returns, weighted.ARCH_LAGS) / _counts(returns)


@statistic_metric(
    compare=absolute_difference,
    title="Long memory of volatility",
    goal="low",
    bounds=(0.0, inf),
    minimum=200,
    citation="Peng et al. 1994, Physical Review E 49(2)",
    below="Volatility forgets sooner than in the market: no long calm or wild times.",
    above="Volatility remembers longer than in the market: it wanders off.",
)
def volatility_hurst(returns: FloatArray) -> FloatArray:
    """Hurst exponent of |log-returns| by detrended fluctuation analysis: 0.5 without memory, above with long memory."""
    return weighted.hurst_exponent.statistic(np.abs(returns))


@statistic_metric(
    compare=absolute_difference,
    title="Leverage effect",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=200,
    citation="Bouchaud, Matacz, Potters 2001, Physical Review Letters 87(22); Cont 2001, fact 9",
    below="Falls are followed by more volatility than in the market.",
    above="Falls do not raise volatility as they do in the market.",
)
def leverage_effect(returns: FloatArray) -> FloatArray:
    """Mean of L(τ), the correlation of a log-return with the squared one τ = 1-10 steps later; negative for stocks."""
    average: FloatArray = leverage(returns).mean(axis=1)
    return average


@statistic_metric(
    compare=absolute_difference,
    title="Zumbach effect",
    goal="low",
    bounds=(0.0, 4.0),
    minimum=200,
    citation="Zumbach, Lynch 2001, Physica A 298(3-4); Zumbach 2009, Quantitative Finance 9(5)",
    below="Past trends raise volatility less than in the market, or volatility starts trends: time may run backwards.",
    above="Past trends raise volatility more than in the market.",
)
def zumbach_effect(returns: FloatArray) -> FloatArray:
    """How much more the squared return of ten steps foretells the volatility of the next ten than the other way round.

    Correlation of the square of the sum with the next sum of squares, less that of the sum of squares with the square
    of the next sum. Time reversal turns its sign.
    """
    trend = kernels.block_sums(returns, weighted.VOLATILITY_BLOCK) ** 2
    activity = kernels.block_volatilities(returns, weighted.VOLATILITY_BLOCK) ** 2
    foretold = moments.correlation(trend[:, :-1], activity[:, 1:])
    return foretold - moments.correlation(activity[:, :-1], trend[:, 1:])


@statistic_metric(
    compare=absolute_difference,
    title="Direction of time in volatility",
    goal="low",
    bounds=(0.0, 4.0),
    minimum=200,
    citation="Ramsey, Rothman 1996, Journal of Money, Credit and Banking 28(1)",
    below="Volatility does not jump up and fade as in the market; far below, time runs backwards.",
    above="Shocks come out of the blue more, and fade more slowly, than in the market.",
)
def volatility_asymmetry(returns: FloatArray) -> FloatArray:
    """Mean, over 1-10 steps, of how much more r² foretells a later |r| than |r| foretells a later r², as correlations.

    Above 0 where shocks come suddenly and fade slowly. Time reversal turns its sign.
    """
    size = np.abs(returns)
    return _lagged_mean(size**2, size) - _lagged_mean(size, size**2)


@statistic_metric(
    compare=absolute_difference,
    title="Leverage by ranks",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=200,
    citation="Bouchaud, Matacz, Potters 2001, Physical Review Letters 87(22)",
    below="Falls are followed by more volatility than in the market.",
    above="Volatility does not follow falls as it does in the market; time may run backwards.",
)
def ranked_leverage(returns: FloatArray) -> FloatArray:
    """Mean, over 1-10 steps, of the rank correlation of a return and a later |return|: below 0 where falls alarm.

    Ranks, since single crashes decide the `leverage_effect`, which is of sizes.
    """
    order = np.argsort(np.where(np.isnan(returns), np.inf, returns), axis=1)  # three times as fast as with NaN
    return _lagged_mean(*shared_ranks(returns, order))


@njit(cache=True)
def shared_ranks(rows: FloatArray, order: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the ranks of values in their rows, and those of their sizes, given the order of the values, gaps last.

    Equal ones share their rank; NaN where there is none.
    """
    ranks, size_ranks = np.full(rows.shape, np.nan), np.full(rows.shape, np.nan)
    for number in range(len(rows)):
        places = order[number, : np.isfinite(rows[number]).sum()]
        ordered = rows[number][places]
        _rank(ordered, places, ranks[number])
        _rank(*_by_size(ordered, places), size_ranks[number])
    return ranks, size_ranks


@njit(cache=True)
def _by_size(ordered: FloatArray, places: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the sizes of ordered values, from the lowest on, and their places: falls backwards, merged with rises."""
    sizes, moved, last = np.empty_like(ordered), np.empty_like(places), ordered.size - 1
    rise = int(np.searchsorted(ordered, 0.0))
    fall = rise - 1
    for at in range(ordered.size):
        # Without a branch that nobody can foresee: falls and rises alternate at random.
        is_fall = (rise > last) | ((fall >= 0) & (-ordered[max(fall, 0)] <= ordered[min(rise, last)]))
        here = fall if is_fall else rise
        sizes[at], moved[at] = abs(ordered[here]), places[here]
        fall, rise = fall - is_fall, rise + (not is_fall)
    return sizes, moved


@njit(cache=True)
def _rank(ordered: FloatArray, places: IntArray, ranks: FloatArray) -> None:
    """Write the ranks of ordered values to their places."""
    first = 0
    while first < ordered.size:
        last = first
        while last + 1 < ordered.size and ordered[last + 1] == ordered[first]:
            last += 1
        for at in range(first, last + 1):
            ranks[places[at]] = 0.5 * (first + last)
        first = last + 1


@metric(
    title="Aggregational Gaussianity",
    goal="low",
    bounds=(0.0, inf),
    minimum=30 * HORIZONS[-1],
    unit="log ratio",
    citation="Cont 2001, Quantitative Finance 1(2), fact 4",
    meaning="Tails do not thin out with the horizon as in the market: returns over many steps have the wrong shape.",
)
def aggregation_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference of the log-kurtosis of log-returns over 2, 4, 8 and 16 steps, averaged over paths."""
    return _rms_difference(log_kurtosis_by_horizon, real, synthetic)


@statistic_metric(
    compare=absolute_difference,
    title="Conditional heavy tails",
    goal="low",
    scale="log",
    bounds=(0.0, inf),
    minimum=100,
    citation="Cont 2001, Quantitative Finance 1(2), fact 8; RiskMetrics 1996",
    below="All extreme moves come in wild times: none surprises, as some do in the market.",
    above="Moves out of the blue are too common, or a few of them are too large.",
)
def conditional_kurtosis(returns: FloatArray) -> FloatArray:
    """Kurtosis of log-returns over their recent volatility (exponential memory of 0.94, at least a quarter of σ)."""
    return moments.kurtosis(kernels.devolatilised(returns, MEMORY, WARM))


@statistic_metric(
    compare=absolute_difference,
    title="Intermittency",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=400,
    citation="Goh, Barabási 2008, EPL 81(4)",
    below="Large moves come too regularly.",
    above="Large moves come in bursts more than in the market.",
)
def intermittency(returns: FloatArray) -> FloatArray:
    """Burstiness (σ - μ) / (σ + μ) of the times between the largest 5 % of |log-returns|: 0 at random, 1 in bursts."""
    sizes = np.abs(returns)
    return burstiness(sizes, np.array([_large(path) for path in sizes]))


@metric(
    title="Drawdowns",
    goal="low",
    bounds=(0.0, inf),
    minimum=100,
    unit="mean σ",
    citation="Johansen, Sornette 2001, Journal of Risk 4(2)",
    meaning="Uninterrupted falls are too small or too large: losses follow each other too rarely or too often.",
)
def drawdown_distance(real: Sample, synthetic: Sample) -> float:
    """Wasserstein-1 distance of the sizes of falls, longest stretches without a positive log-return, in mean σ."""
    spreads = [float(sample.once(_spread)) for sample in (real, synthetic)]
    sizes = [sample.once(_fall_sizes) for sample in (real, synthetic)]
    for size, spread, side in zip(sizes, spreads, ("real", "synthetic"), strict=True):
        if not size.values.size or spread == 0.0:
            raise MetricError(f"drawdown_distance is undefined: the {side} price never falls, or falls all the time")
    return 2.0 * distributions.wasserstein(*sizes) / sum(spreads)


@statistic_metric(
    compare=absolute_difference,
    title="Drift",
    goal="low",
    bounds=(0.0, inf),
    minimum=30,
    unit="σ √n",
    citation="Lo, MacKinlay 1988, Review of Financial Studies 1(1)",
    below="Paths come back to where they began more than in the market.",
    above="Paths run off in one direction, each its own or all the same.",
)
def drift(returns: FloatArray) -> FloatArray:
    """Size of the sum of a path's log-returns over σ √n: 0.8 on average for a random walk, whatever the direction."""
    spread = moments.standard_deviation(returns) / np.sqrt(_counts(returns))
    return moments.quotient(np.abs(moments.mean(returns)), spread)


@window_metric(
    title="Memory of each feature",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Ang et al. 2023, PVLDB 17(3): autocorrelation difference",
    meaning="Some features revert, go on or jump about where the real ones do not.",
)
def change_memory_error(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Root mean square difference, over features, of the autocorrelations of one-step changes at lags 1-5."""
    return _window_difference(_change_memory, holdout, synthetic)


@window_metric(
    title="Memory of each feature's activity",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Cont 2001, Quantitative Finance 1(2), fact 6",
    meaning="Large changes of a feature do not follow each other as the real ones do.",
)
def activity_memory_error(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Root mean square difference, over features, of the autocorrelations of sizes of one-step changes, lags 1-5."""
    return _window_difference(_activity_memory, holdout, synthetic)


def return_acf(returns: FloatArray) -> FloatArray:
    """Return the autocorrelations of log-returns at lags 1-20, (paths, steps) → (paths, 20)."""
    return autocorrelations(returns, RETURN_LAGS)


def absolute_return_acf(returns: FloatArray) -> FloatArray:
    """Return the autocorrelations of |log-returns| at lags 1-50, (paths, steps) → (paths, 50)."""
    return autocorrelations(np.abs(returns), ABSOLUTE_RETURN_LAGS)


def squared_return_acf(returns: FloatArray) -> FloatArray:
    """Return the autocorrelations of squared log-returns at lags 1-50, (paths, steps) → (paths, 50)."""
    return autocorrelations(returns**2, ABSOLUTE_RETURN_LAGS)


def leverage(returns: FloatArray) -> FloatArray:
    """Return L(τ), the correlation of a log-return with the squared one τ steps later, τ = 1-10, shape (paths, 10)."""
    return kernels.lagged_correlations(returns, returns**2, DIRECTION_LAGS)


def log_kurtosis_by_horizon(returns: FloatArray) -> FloatArray:
    """Return the logarithm of the kurtosis of log-returns over 2, 4, 8 and 16 steps, shape (paths, 4)."""
    curves = np.stack([moments.kurtosis(kernels.block_sums(returns, steps)) for steps in HORIZONS], axis=1)
    logarithms: FloatArray = np.log(curves)
    return logarithms


def window_memory(values: FloatArray, lags: int = WINDOW_LAGS) -> FloatArray:
    """Return the autocorrelations of each feature inside windows at lags 1-`lags`, shape (lags, features).

    Values of shape (n, length, features), about the mean of all windows, over the variance of all; NaN for a constant
    feature. A lag counts the pairs that windows hold.
    """
    centred = values - values.mean(axis=(0, 1))
    products = []
    for lag in range(lags + 1):
        later, earlier = centred[:, lag:], centred[:, : values.shape[1] - lag]
        products.append(np.einsum("nsf,nsf->f", later, earlier) / later[:, :, 0].size)
    return moments.quotient(np.stack(products[1:]), np.broadcast_to(products[0], (lags, values.shape[2])))


def _change_memory(windows: Windows) -> FloatArray:
    return window_memory(windows.changes)


def _activity_memory(windows: Windows) -> FloatArray:
    """Return the memory of how far the changes of each feature are from their mean."""
    return window_memory(np.abs(windows.changes - windows.changes.mean(axis=(0, 1))))


def _window_difference(memory: Callable[[Windows], FloatArray], real: Windows, synthetic: Windows) -> float:
    """Return the difference over features that move in both; where only one of the two moves, memory counts as 0."""
    if (steps := real.changes.shape[1]) <= WINDOW_LAGS:
        raise MetricError(f"lags 1-{WINDOW_LAGS} need windows of {WINDOW_LAGS + 2} steps, these have {steps + 1}")
    first, second = real.once(memory), synthetic.once(memory)
    moves = np.isfinite(first[0])
    if not moves.any():
        raise MetricError("every real feature is constant: there is nothing to remember")
    return float(np.sqrt(np.mean((first - np.nan_to_num(second))[:, moves] ** 2)))


def _fall_sizes(sample: Sample) -> Grouped:
    found = kernels.falls(sample.returns)
    return distributions.grouped(np.sort(found[np.isfinite(found)]))


def _spread(sample: Sample) -> float:
    return float(moments.standard_deviation(sample.pooled[np.newaxis])[0])


def _counts(returns: FloatArray) -> FloatArray:
    counts: FloatArray = np.isfinite(returns).sum(axis=1).astype(np.float64)
    return counts


def _lagged_mean(first: FloatArray, second: FloatArray) -> FloatArray:
    average: FloatArray = kernels.lagged_correlations(first, second, DIRECTION_LAGS).mean(axis=1)
    return average


def _large(sizes: FloatArray) -> float:
    known = sizes[np.isfinite(sizes)]
    rank = int(LARGE * known.size)
    return float(np.partition(known, rank)[rank])


@njit(cache=True)
def burstiness(sizes: FloatArray, least: FloatArray) -> FloatArray:
    """Return the burstiness of the values of each row from some least on, NaN where under ten waits lie inside runs."""
    found = np.full(len(sizes), np.nan)
    for number in range(len(sizes)):
        last, waits, total, square = -1, 0, 0, 0
        for step in range(sizes.shape[1]):
            size = sizes[number, step]
            if np.isnan(size):
                last = -1
            elif size > 0 and size >= least[number]:
                if last >= 0:
                    waits, total, square = waits + 1, total + step - last, square + (step - last) ** 2
                last = step
        if waits >= 10:
            spread = np.sqrt(waits * square - total**2)  # both of them over the number of waits, exactly
            found[number] = (spread - total) / (spread + total)
    return found


@cache
def _average(curve: Callable[[FloatArray], FloatArray]) -> Callable[[Sample], FloatArray]:
    """Return the function that gives the mean over paths of a curve: always the same one, for `Sample.once`."""
    return lambda sample: moments.mean(curve(sample.returns).T)


def _rms_difference(curve: Callable[[FloatArray], FloatArray], real: Sample, synthetic: Sample) -> float:
    difference = synthetic.once(_average(curve)) - real.once(_average(curve))
    if not np.isfinite(difference).all():
        raise MetricError("autocorrelation is undefined: returns are constant, or gaps leave no stretch long enough")
    return float(np.sqrt(np.mean(difference**2)))
