"""Filtered historical simulation: a GJR-GARCH volatility whose innovations are drawn from its own residuals.

Over one step of the grid, with σ_t of GJR-GARCH (`conditional_variance`) and s the scale of returns,

    log S_t - log S_{t-1} = -k(s σ_t) + s σ_t z_t,      z_t drawn at random from the standardised residuals z_1 … z_T,
    k(u) = log (1/T) Σ_i e^{u z_i}

(Barone-Adesi, Giannopoulos and Vosper 1999, J. Futures Markets 19): the volatility clusters as the model says, and its
shocks have the tails and the skewness of history, with no law assumed. k makes exp(log S) a martingale, exactly but for
the interpolation of k(u) / u² between hundred values of u.

Calibration is quasi maximum likelihood with normal innovations, by `arch`, on the longest stretch without a gap, the
latest 20,000 returns at most; it is consistent whatever the law of z (Bollerslev and Wooldridge 1992), and its
standard errors are robust. Of prices that rest in more than a tenth of the steps, gains and losses are brought to the
same sum by a factor each, so that a return of 0 stays one. Simulation is exact after a burn-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import numpy as np

from synth_pipeline.generators import conditional_variance, garch, price_process
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns
from synth_pipeline.series import FloatArray


class Law(NamedTuple):
    """A fitted GJR-GARCH and its residuals."""

    scale: float
    """[s]"""
    coefficients: FloatArray
    """ω, α, γ, β."""
    residuals: FloatArray
    """z_1 … z_T."""


@dataclass(frozen=True)
class Parameters(price_process.Parameters):
    """What a user may set."""

    most_returns: int = 20_000
    """A fit sees at most this many, the latest."""


class FilteredHistoricalSimulation(PriceProcess):
    """Quasi maximum likelihood by `arch`, residuals at random. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    Law = Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Fit GJR-GARCH and keep its residuals, at mean zero and unit variance."""
        report(0.0, "filtering volatility")
        fit = conditional_variance.fit(garch.longest_of(self, returns), "gjr", "normal", rng)
        residuals = conditional_variance.balanced(fit.scores)
        residuals = residuals / residuals.std()
        downside = conditional_variance.downside_of(residuals)
        garch.keep(self, replace(fit, law=fit.law._replace(downside=downside)))
        self.law = Law(fit.law.scale, self.law.coefficients, residuals)

    @cached_property
    def _compensator(self) -> tuple[FloatArray, FloatArray]:
        """log u and k(u) / u², u from far below to far above what returns can be."""
        sizes = np.logspace(-9, 0.5, 100)
        residuals = self.law.residuals
        growth = [np.log1p(np.mean(np.expm1(u * residuals) - u * residuals)) for u in sizes]
        return np.log(sizes), np.asarray(growth) / sizes**2

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw residuals and run the recursion along them."""
        residuals = self.law.residuals
        downside = conditional_variance.downside_of(residuals)
        law = conditional_variance.Law("gjr", "normal", self.law.scale, self.law.coefficients, np.empty(0), downside)
        scores = (
            residuals[(rng.random(count) * len(residuals)).astype(np.int64)]
            for count in chain((conditional_variance.burn_in_of(law),), counts)
        )
        for sigma, score in conditional_variance.paths(law, scores):
            yield sigma * score - sigma**2 * np.interp(np.log(sigma), *self._compensator)
