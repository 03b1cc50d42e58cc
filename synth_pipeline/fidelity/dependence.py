"""Dependence of several assets: how they move together, on ordinary days, one after the other, and in crashes.

Metrics of `JointSample`s alone. Every number is of one path and averaged over paths; pairs count alike. What each asset
does by itself is the business of the other families.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import numpy as np
from scipy import stats

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.metric import absolute_difference, metric, statistic_metric
from synth_pipeline.fidelity.moments import mean
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray

LAGS = 5
TAIL = 0.05
"""Share of returns that count as a crash, or a rally, of one asset."""
_FEWEST_IN_TAIL = 20


@statistic_metric(
    compare=absolute_difference,
    title="Average correlation",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Plerou et al. 2002, Physical Review E 65",
    below="Assets move together too little: a portfolio looks safer than it is.",
    above="Assets move together too much: a portfolio looks riskier than it is.",
    margin=0.01,
    joint=True,
)
def average_correlation(returns: FloatArray) -> FloatArray:
    """Mean over pairs of assets of the correlation of their log-returns; compared as a difference."""
    return np.array([_pairs(_correlation(path)).mean() for path in returns])


@metric(
    title="Correlations",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Plerou et al. 2002, Physical Review E 65",
    meaning="Some assets are tied to the wrong ones, even where the average is right.",
    joint=True,
)
def correlation_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference, over pairs of assets, of the correlations of log-returns at the same time."""
    return _difference(_correlation, real, synthetic)


@metric(
    title="Rank correlations",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Spearman 1904, American Journal of Psychology 15(1)",
    meaning="Ordinary moves go together too much or too little, whatever the large ones do.",
    joint=True,
)
def rank_correlation_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference, over pairs of assets, of Spearman's rank correlations of log-returns."""
    return _difference(lambda path: _correlation(np.asarray(stats.rankdata(path, axis=0))), real, synthetic)


@metric(
    title="Correlations of |returns|",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Engle, Ito, Lin 1990, Econometrica 58(3)",
    meaning="Nervous times of one asset are calm ones of another where the market shares them, or the other way round.",
    joint=True,
)
def volatility_correlation_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference, over pairs of assets, of the correlations of |log-returns| at the same time."""
    return _difference(lambda path: _correlation(np.abs(path)), real, synthetic)


@metric(
    title="Lead and lag",
    goal="low",
    bounds=(0.0, 2.0 * sqrt(2.0)),
    minimum=20 * LAGS,
    citation="Lo, MacKinlay 1990, Review of Financial Studies 3(2)",
    meaning="One asset foretells another where it does not in the market, or no longer does.",
    joint=True,
)
def lead_lag_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference, over ordered pairs, of the correlations of log-returns 1-5 steps apart."""
    first, second = (np.stack([_lagged(path) for path in sample.returns]) for sample in (real, synthetic))
    return _rms(_mean(first) - _mean(second))


@statistic_metric(
    compare=absolute_difference,
    title="Crashes together",
    goal="low",
    bounds=(0.0, inf),
    minimum=int(_FEWEST_IN_TAIL / TAIL),
    citation="Longin, Solnik 2001, Journal of Finance 56(2)",
    below="Assets crash together too rarely: diversification saves more than it would.",
    above="Assets crash together too often.",
    statistic_unit="share",
    margin=0.01,
    joint=True,
)
def crash_dependence(returns: FloatArray) -> FloatArray:
    """Share of the lowest 5 % of an asset's log-returns that are also among another's, mean over pairs."""
    return _together(returns)


@statistic_metric(
    compare=absolute_difference,
    title="Rallies together",
    goal="low",
    bounds=(0.0, inf),
    minimum=int(_FEWEST_IN_TAIL / TAIL),
    citation="Longin, Solnik 2001, Journal of Finance 56(2)",
    below="Assets jump up together too rarely.",
    above="Assets jump up together too often.",
    statistic_unit="share",
    margin=0.01,
    joint=True,
)
def rally_dependence(returns: FloatArray) -> FloatArray:
    """Share of the highest 5 % of an asset's log-returns that are also among another's, mean over pairs."""
    return _together(-returns)


def _known(path: FloatArray) -> FloatArray:
    return path[np.isfinite(path[:, 0])]


def _standardised(path: FloatArray) -> FloatArray:
    """Return the columns at mean 0 and deviation 1, NaN for a constant one."""
    centred = path - np.nanmean(path, axis=0)
    deviation = np.sqrt(np.nanmean(centred**2, axis=0))
    return np.asarray(centred / np.where(deviation > 0, deviation, np.nan))


def _correlation(path: FloatArray) -> FloatArray:
    """Return the correlations of the columns of known rows, shape (assets, assets)."""
    known = _known(path)
    if len(known) < 2:
        return np.full((path.shape[1], path.shape[1]), np.nan)
    scores = _standardised(known)
    return np.asarray(scores.T @ scores / len(scores))


def _lagged(path: FloatArray) -> FloatArray:
    """Return the correlations of each asset with every other one 1-5 steps later, shape (5 · ordered pairs,)."""
    scores = _standardised(path)
    is_known = np.isfinite(scores)
    flat = np.where(is_known, scores, 0.0)
    apart = ~np.eye(path.shape[1], dtype=np.bool_)
    found = []
    for lag in range(1, LAGS + 1):
        pairs = is_known[:-lag].T.astype(np.float64) @ is_known[lag:]
        found.append((flat[:-lag].T @ flat[lag:] / np.where(pairs > 0, pairs, np.nan))[apart])
    return np.concatenate(found)


def _together(returns: FloatArray) -> FloatArray:
    """Return, for every path, the mean over pairs of how much of two lower tails is at the same time."""
    found = np.full(len(returns), np.nan)
    for at, path in enumerate(returns):
        known = _known(path)
        if len(known) * TAIL < _FEWEST_IN_TAIL or (known.std(axis=0) == 0).any():
            continue
        tails = (known <= np.quantile(known, TAIL, axis=0)).astype(np.float64)
        sizes = tails.sum(axis=0)
        found[at] = _pairs(tails.T @ tails / np.sqrt(np.outer(sizes, sizes))).mean()
    return found


def _pairs(matrix: FloatArray) -> FloatArray:
    return matrix[np.triu_indices(len(matrix), 1)]


def _mean(curves: FloatArray) -> FloatArray:
    """Return the mean over paths, shape (paths, numbers) → (numbers,)."""
    return mean(np.ascontiguousarray(curves.T))


def _difference(statistic: Callable[[FloatArray], FloatArray], real: Sample, synthetic: Sample) -> float:
    first, second = (
        _mean(np.stack([_pairs(statistic(_known(path))) for path in sample.returns])) for sample in (real, synthetic)
    )
    return _rms(first - second)


def _rms(difference: FloatArray) -> float:
    if not np.isfinite(difference).all():
        raise MetricError("dependence is undefined: an asset does not move, or gaps leave no stretch long enough")
    return float(np.sqrt(np.mean(difference**2)))
