"""DCC-GARCH: volatilities that cluster and correlations that move, of several assets.

Over one step of the grid, for asset i, with σ_it of a GJR-GARCH (`conditional_variance`),

    log S_it - log S_i,t-1 = -s_i² σ_it² / 2 + s_i σ_it z_it,      z_t ~ N(0, R_t) given the past,
    R_t = diag(Q_t)^{-1/2} Q_t diag(Q_t)^{-1/2},
    Q_t = (1 - a - b) S + a z*_{t-1} z*'_{t-1} + b Q_{t-1},        z*_t = diag(Q_t)^{1/2} z_t, S_ii = 1:

dynamic conditional correlation of Engle (2002), J. Bus. Econ. Stat. 20, with the correction of Aielli (2013), J. Bus.
Econ. Stat. 31, eq. 3.3, by which S is the mean of z* z*' and can be estimated by it. exp(log S_i) is a martingale each.

Calibration is quasi maximum likelihood in steps: the GJR-GARCH of every asset; S for given a and b, from z*, which
needs nothing but a, b and z; a and b at the highest Gaussian likelihood of z_t given R_t. Standard errors of a and b
are the sandwich of Bollerslev and Wooldridge (1992) for that profile likelihood, with what the errors of the
volatilities before add to it (Engle and Sheppard 2001, NBER working paper 8554, section 3); those of S_ij come from
z* z*' - Q_t, which has no memory: the error of S_ij is (1 - b) / (1 - a - b) times that of its mean. Where moving
correlations add too little to the likelihood, a and b are 0, with a note. Simulation is exact after a burn-in.

Shocks are normal given volatilities and correlations: jumps together beyond what these make are `vine_copula`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any, ClassVar, NamedTuple

import numba
import numpy as np
from scipy import special

from synth_pipeline.errors import TrainingError
from synth_pipeline.generators import conditional_variance, garch_margins, price_process
from synth_pipeline.generators.basket import Basket, Histories
from synth_pipeline.generators.garch_margins import Margins
from synth_pipeline.generators.inference import Estimate, climb, covariance, criteria, mean_error
from synth_pipeline.generators.price_process import Report
from synth_pipeline.series import FloatArray

_HIGHEST, _LOWEST = 0.9999, 1e-4
_STARTS = ((0.97, 0.03), (0.9, 0.1))
_ITERATIONS = 100
_STEP = 5e-3
_EVIDENCE = 3.0
"""Log-likelihood that moving correlations must add to be believed: 5 % of constant ones do by chance."""


class Law(NamedTuple):
    """The parameters."""

    scale: FloatArray
    """[s], shape (assets,)."""
    coefficients: FloatArray
    """ω, α, γ, β of every asset, shape (assets, 4)."""
    downside: FloatArray
    """Share of the variance of shocks that lies below zero, shape (assets,)."""
    news: float
    """[a]"""
    memory: float
    """[b]"""
    correlation: FloatArray
    """[S], shape (assets, assets)."""


@numba.njit(cache=True)
def starred(scores: FloatArray, news: float, memory: float) -> FloatArray:
    """Return z*_t, shape (steps, assets): the diagonal of Q_t needs no S."""
    made = np.empty_like(scores)
    for asset in range(scores.shape[1]):
        level = 1.0
        for t in range(len(scores)):
            made[t, asset] = math.sqrt(level) * scores[t, asset]
            level = 1.0 - news - memory + news * made[t, asset] ** 2 + memory * level
    return made


@numba.njit(cache=True)
def _factor(matrix: FloatArray, factor: FloatArray) -> None:
    """Write the Cholesky factor of the correlation matrix of `matrix`; NaN where there is none."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            total = matrix[i, j] / math.sqrt(matrix[i, i] * matrix[j, j])
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                factor[i, i] = math.sqrt(total) if total > 0 else np.nan
            else:
                factor[i, j] = total / factor[j, j]


@numba.njit(cache=True)
def _advance(matrix: FloatArray, target: FloatArray, star: FloatArray, news: float, memory: float) -> None:
    """Turn Q_t into Q_{t+1}."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            level = (1.0 - news - memory) * target[i, j] + news * star[i] * star[j] + memory * matrix[i, j]
            matrix[i, j] = matrix[j, i] = level


@numba.njit(cache=True)
def likelihoods(scores: FloatArray, stars: FloatArray, target: FloatArray, news: float, memory: float) -> FloatArray:
    """Return log p(z_t | past) less its value for independent assets, shape (steps,); NaN where R_t is singular."""
    steps, assets = scores.shape
    terms, matrix, factor, solved = np.empty(steps), target.copy(), np.zeros((assets, assets)), np.empty(assets)
    for t in range(steps):
        _factor(matrix, factor)
        term = 0.0
        for i in range(assets):
            rest = scores[t, i]
            for k in range(i):
                rest -= factor[i, k] * solved[k]
            solved[i] = rest / factor[i, i]
            term -= math.log(factor[i, i]) + 0.5 * (solved[i] ** 2 - scores[t, i] ** 2)
        terms[t] = term
        _advance(matrix, target, stars[t], news, memory)
    return terms


@numba.njit(cache=True)
def surprises(stars: FloatArray, target: FloatArray, news: float, memory: float) -> FloatArray:
    """Return z*_t z*_t' - Q_t, shape (steps, assets, assets)."""
    steps, assets = stars.shape
    made, matrix = np.empty((steps, assets, assets)), target.copy()
    for t in range(steps):
        for i in range(assets):
            for j in range(assets):
                made[t, i, j] = stars[t, i] * stars[t, j] - matrix[i, j]
        _advance(matrix, target, stars[t], news, memory)
    return made


@numba.njit(cache=True)
def correlated(normals: FloatArray, matrix: FloatArray, target: FloatArray, news: float, memory: float) -> FloatArray:
    """Return z_t made of independent normals, shape (steps, assets); `matrix` is Q_t of the first step and moves on."""
    steps, assets = normals.shape
    made, factor, star = np.empty((steps, assets)), np.zeros((assets, assets)), np.empty(assets)
    for t in range(steps):
        _factor(matrix, factor)
        for i in range(assets):
            total = 0.0
            for k in range(i + 1):
                total += factor[i, k] * normals[t, k]
            made[t, i] = total
            star[i] = math.sqrt(matrix[i, i]) * total
        _advance(matrix, target, star, news, memory)
    return made


class DccGarch(Basket):
    """Quasi maximum likelihood in steps, exact simulation. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = price_process.Parameters
    Law = Law
    twin = "garch"

    def estimate(self, histories: Histories, *, rng: np.random.Generator, report: Report) -> None:
        """Fit every volatility, then the correlations of what is left."""
        filtered = garch_margins.filtered(self, histories, rng=rng, report=report)
        report(0.5, "correlations")
        found = fit(filtered.scores, filtered.fits)
        if not found.moves:
            self.notes.append("correlations do not move (a is 0): they are taken as constant")
        self.law = Law(*filtered.margins, found.news.value, found.memory.value, found.correlation)
        pairs = combinations(range(len(histories.names)), 2)
        self.estimates = {**self.estimates, "a": found.news, "b": found.memory} | {
            f"{histories.names[i]}.{histories.names[j]}.correlation": Estimate(
                float(found.correlation[i, j]), found.errors[i, j], "correlation"
            )
            for i, j in pairs
        }
        total = filtered.log_likelihood + found.log_likelihood
        self.diagnostics = criteria(total, len(self.estimates), len(filtered.scores)) | {
            "returns": float(len(filtered.scores)),
            "correlation_persistence": found.news.value + found.memory.value,
        }

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw normals, correlate them, and run the volatilities along them."""
        law, margins = self.law, Margins(*self.law[:3])
        burn_in = max(garch_margins.burn_in_of(margins), _burn_in_of(law))
        matrix = law.correlation.copy()
        shocks = (
            correlated(rng.standard_normal((count, len(matrix))), matrix, law.correlation, law.news, law.memory)
            for count in chain((burn_in,), counts)
        )
        for sigma, scores in garch_margins.paths(margins, shocks):
            yield sigma * scores - sigma**2 / 2


def _burn_in_of(law: Law) -> int:
    """Return after how many steps correlations have forgotten where they started, to one part in a thousand."""
    return math.ceil(math.log(1000) / (1 - law.news - law.memory))


@dataclass(frozen=True, eq=False)
class Fit:
    """Dynamic correlations of standardised residuals."""

    news: Estimate
    memory: Estimate
    correlation: FloatArray
    errors: FloatArray
    """Standard errors of `correlation`."""
    log_likelihood: float
    """Above that of independent assets."""

    @property
    def moves(self) -> bool:
        """Whether correlations are not constant."""
        return self.news.value > 0


def fit(scores: FloatArray, margins: Sequence[conditional_variance.Fit] = ()) -> Fit:
    """Fit a and b, and S with them, to residuals of mean 0 and variance 1, shape (steps, assets).

    Standard errors allow for those of the volatilities in `margins`, whose residuals they are.
    Raises `TrainingError` where two assets are one and the same.
    """
    constant = _terms(scores, 0.0, 0.0)
    if not np.isfinite(constant).all():
        raise TrainingError("dcc_garch: an asset is made of others, exactly: leave out one that moves with another")

    def of_persistence(free: FloatArray) -> float:
        persistence, share = special.expit(free)
        return float(_terms(scores, share * persistence, (1 - share) * persistence).mean())

    edge = np.array([[special.logit(low), special.logit(high)] for low, high in ((0.1, _HIGHEST), (_LOWEST, 0.9))])
    tried = [climb(of_persistence, special.logit(np.array(start)), edge, _ITERATIONS) for start in _STARTS]
    best, free = max(tried, key=lambda found: found[0])
    news = memory = 0.0
    if len(scores) * (best - constant.mean()) > _EVIDENCE:
        persistence, share = special.expit(free)
        news, memory = float(share * persistence), float((1 - share) * persistence)
    target = _target(starred(scores, news, memory))
    error_of_news, error_of_memory = _sandwich(scores, news, memory, margins) if news else (None, None)
    return Fit(
        news=Estimate(news, error_of_news, "share"),
        memory=Estimate(memory, error_of_memory, "share"),
        correlation=target,
        errors=_errors(starred(scores, news, memory), target, news, memory),
        log_likelihood=float(_terms(scores, news, memory).sum()),
    )


def _target(stars: FloatArray) -> FloatArray:
    """Return S of its z*."""
    square = stars.T @ stars
    return np.asarray(square / np.sqrt(np.outer(np.diag(square), np.diag(square))))


def _terms(scores: FloatArray, news: float, memory: float) -> FloatArray:
    """Return the terms of the likelihood of a and b, with the S that goes with them."""
    stars = starred(scores, news, memory)
    return likelihoods(scores, stars, _target(stars), news, memory)


def _sandwich(
    scores: FloatArray, news: float, memory: float, margins: Sequence[conditional_variance.Fit]
) -> tuple[float | None, float | None]:
    """Return the standard errors of a and b; None where the likelihood does not peak."""
    values = np.array([news, memory])
    free = special.logit(values)

    def terms_at(point: FloatArray, residuals: FloatArray = scores) -> FloatArray:
        inside = special.expit(point).sum() < 1
        return _terms(residuals, *special.expit(point)) if inside else np.full(len(residuals), np.nan)

    def gradients(residuals: FloatArray) -> FloatArray:
        steps = _STEP * np.eye(2)
        ends = [(terms_at(free + step, residuals), terms_at(free - step, residuals)) for step in steps]
        return np.stack([(up - down) / (2 * _STEP) for up, down in ends], axis=1)

    among = covariance(lambda point: float(terms_at(point).sum()), free)
    total = gradients(scores)
    for asset, margin in enumerate(margins):
        for which, each in garch_margins.influence(margin).items():
            ends = []
            for way in (1.0, -1.0):
                residuals = scores.copy()
                residuals[:, asset] = garch_margins.residuals_at(margin, garch_margins.moved(margin, which, way))
                ends.append(gradients(residuals).mean(axis=0))
            slope = (ends[0] - ends[1]) / (2 * garch_margins.step_of(margin, which))
            total += each[:, np.newaxis] * slope
    variances = np.diag(among @ (total.T @ total) @ among)
    if not np.isfinite(variances).all():
        return None, None
    first, second = values * (1 - values) * np.sqrt(variances)
    return float(first), float(second)


def _errors(stars: FloatArray, target: FloatArray, news: float, memory: float) -> FloatArray:
    """Return the standard errors of S, by the delta method for its division by the diagonal."""
    news_of = surprises(stars, target, news, memory)
    lasting = (1 - memory) / (1 - news - memory)
    errors = np.zeros_like(target)
    for i, j in combinations(range(len(target)), 2):
        own = news_of[:, i, i] + news_of[:, j, j]
        errors[i, j] = errors[j, i] = lasting * mean_error(news_of[:, i, j] - target[i, j] * own / 2)
    return errors
