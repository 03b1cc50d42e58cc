"""GJR-GARCH of every asset of a basket: what `dcc_garch` and `vine_copula` filter with and run their shocks through.

What belongs here: one fit an asset over the same rows, how its errors carry over to what is estimated from its
residuals, and joint paths for given joint shocks. What does not: the law of the shocks.

The fit is quasi maximum likelihood with normal innovations (`conditional_variance`), on the longest stretch of rows
that all assets have; it is consistent whatever the law of the shocks, and so is what is estimated from its residuals
afterwards (Bollerslev and Wooldridge 1992; Chen and Fan 2006, J. Econometrics 135).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import tee
from typing import NamedTuple

import numba
import numpy as np

from synth_pipeline.generators import conditional_variance
from synth_pipeline.generators.basket import Basket, Histories
from synth_pipeline.generators.conditional_variance import Fit
from synth_pipeline.generators.price_process import Report
from synth_pipeline.series import FloatArray

_NAMES = ("omega", "alpha", "gamma", "beta")
_STEP = 1e-3


class Margins(NamedTuple):
    """The parameters of every asset."""

    scale: FloatArray
    """[s], shape (assets,)."""
    coefficients: FloatArray
    """ω, α, γ, β, shape (assets, 4)."""
    downside: FloatArray
    """Share of the variance of shocks that lies below zero, shape (assets,)."""


@dataclass(frozen=True, eq=False)
class Filtered:
    """Fitted margins and what they leave."""

    margins: Margins
    fits: tuple[Fit, ...]

    @property
    def scores(self) -> FloatArray:
        """Residuals of mean 0 and variance 1, shape (steps, assets)."""
        return np.stack([standardised(fit.scores) for fit in self.fits], axis=1)

    @property
    def log_likelihood(self) -> float:
        """Of all assets, as if they were independent."""
        return float(sum(fit.log_likelihood for fit in self.fits))


def standardised(scores: FloatArray) -> FloatArray:
    """Return residuals of one asset at mean 0 and variance 1."""
    centred = scores - scores.mean()
    return np.asarray(centred / centred.std())


@numba.njit(cache=True)
def variances_along(returns: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Return σ_t² of GJR along returns in units of their scale, from 1."""
    omega, alpha, gamma, beta = coefficients
    variances, variance = np.empty(len(returns)), 1.0
    for t in range(len(returns)):
        variances[t] = variance = max(variance, 1e-12)
        variance = omega + (alpha + gamma * (returns[t] < 0)) * returns[t] ** 2 + beta * variance
    return variances


def moved(fit: Fit, which: int, steps: float) -> FloatArray:
    """Return the coefficients ω, α, γ, β with one of them moved by so many steps of differentiation."""
    coefficients = fit.law.coefficients.copy()
    coefficients[which] += steps * step_of(fit, which)
    return coefficients


def step_of(fit: Fit, which: int) -> float:
    """Return the step by which a coefficient is moved for derivatives."""
    return _STEP * max(abs(float(fit.law.coefficients[which])), 1e-2)


def residuals_at(fit: Fit, coefficients: FloatArray) -> FloatArray:
    """Return the standardised residuals that other coefficients leave."""
    return standardised(fit.returns / np.sqrt(variances_along(fit.returns, coefficients)))


def influence(fit: Fit) -> dict[int, FloatArray]:
    """Return what each return adds to each coefficient's error, times how many they are, shape (steps,).

    That is -H^{-1} ∂l_t/∂θ of the quasi-likelihood. Coefficients at their bounds have no error.
    """
    inner = [at for at, name in enumerate(_NAMES) if fit.estimates[name].error is not None]

    def gradients(coefficients: FloatArray) -> FloatArray:
        found = []
        for at in inner:
            ends = []
            for way in (1.0, -1.0):
                shifted = coefficients.copy()
                shifted[at] += way * step_of(fit, at)
                variances = variances_along(fit.returns, shifted)
                ends.append(-0.5 * (np.log(variances) + fit.returns**2 / variances))
            found.append((ends[0] - ends[1]) / (2 * step_of(fit, at)))
        return np.stack(found, axis=1)

    if not inner:
        return {}
    slopes = [
        (gradients(moved(fit, at, 1.0)) - gradients(moved(fit, at, -1.0))).mean(axis=0) / (2 * step_of(fit, at))
        for at in inner
    ]
    solved = -gradients(fit.law.coefficients) @ np.linalg.pinv(np.stack(slopes, axis=1)).T
    return dict(zip(inner, solved.T, strict=True))


def filtered(basket: Basket, histories: Histories, *, rng: np.random.Generator, report: Report) -> Filtered:
    """Fit every asset; give the basket estimates and notes. Raises `TrainingError` where a search ends nowhere."""
    longest = histories.longest()
    rows, steps = len(longest[0]), len(histories.common[0])
    if rows < steps:
        basket.notes.append(f"fitted on the longest stretch of rows that all assets have: {rows} of {steps} returns")
    fits, laws = [], []
    basket.estimates = {}
    for at, (name, returns) in enumerate(zip(histories.names, longest, strict=True)):
        report(0.5 * at / len(longest), f"filtering the volatility of {name}")
        fit = conditional_variance.fit(returns, "gjr", "normal", rng)
        fit = replace(fit, law=fit.law._replace(downside=conditional_variance.downside_of(fit.scores)))
        law, why = conditional_variance.stationary(fit)
        basket.notes += [f"{name}: {why}"] if why else []
        basket.estimates = {**basket.estimates} | {f"{name}.{key}": each for key, each in fit.estimates.items()}
        fits.append(fit)
        laws.append(law)
    margins = Margins(
        scale=np.array([law.scale for law in laws]),
        coefficients=np.stack([law.coefficients for law in laws]),
        downside=np.array([law.downside for law in laws]),
    )
    return Filtered(margins, tuple(fits))


def laws_of(margins: Margins) -> list[conditional_variance.Law]:
    """Return the law of each asset."""
    return [
        conditional_variance.Law("gjr", "normal", float(scale), coefficients, np.empty(0), float(downside))
        for scale, coefficients, downside in zip(*margins, strict=True)
    ]


def burn_in_of(margins: Margins) -> int:
    """Return after how many steps every variance has forgotten where it started."""
    return max(conditional_variance.burn_in_of(law) for law in laws_of(margins))


def paths(margins: Margins, shocks: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield s σ_t and z_t, shape (steps, assets), along pieces of joint shocks, the first of which only burns in."""
    copies = tee(shocks, len(margins.scale))
    walks = [
        conditional_variance.paths(law, _column(copy, asset))
        for asset, (law, copy) in enumerate(zip(laws_of(margins), copies, strict=True))
    ]
    for pieces in zip(*walks, strict=True):
        yield (
            np.stack([sigma for sigma, _ in pieces], axis=1),
            np.stack([scores for _, scores in pieces], axis=1),
        )


def _column(shocks: Iterable[FloatArray], asset: int) -> Iterator[FloatArray]:
    return (np.ascontiguousarray(piece[:, asset]) for piece in shocks)
