"""GARCH: GARCH, GJR, EGARCH or FIGARCH with normal, Student or skewed Student innovations, chosen by BIC.

Over one step of the grid, with σ_t of `conditional_variance`,

    log S_t - log S_{t-1} = -s² σ_t² / 2 + s σ_t z_t,

z_t normal, standardised Student (Bollerslev 1987, Rev. Econ. Stat. 69) or skewed Student (Hansen 1994, Int. Econ. Rev.
35). With normal innovations exp(log S) is a martingale. Student innovations leave the price without a mean at all; the
same compensator then takes out the drift to second order.

Calibration is maximum likelihood by `arch` on the longest stretch without a gap, the latest 20,000 returns at most.
BIC chooses among the members unless `volatility` or `distribution` say. It does not look at EGARCH with Student
innovations: its variance is infinite (Nelson 1991, theorem A1.2), so samples explode. Nor at Student innovations for
prices that rest in more than a tenth of the steps: their likelihood is unbounded as the law shrinks onto the zero
returns. Simulation is exact after a burn-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, get_args

import numpy as np

from synth_pipeline.generators import conditional_variance, price_process
from synth_pipeline.generators.conditional_variance import Distribution, Fit, Volatility
from synth_pipeline.generators.inference import criteria, residual_tests
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns
from synth_pipeline.series import FloatArray

_MOST_RESTING = 0.1


@dataclass(frozen=True)
class Parameters(price_process.Parameters):
    """What a user may set."""

    most_returns: int = 20_000
    """A fit sees at most this many, the latest."""
    volatility: Volatility | None = None
    """`garch`, `gjr`, `egarch` or `figarch`; by BIC without it."""
    distribution: Distribution | None = None
    """`normal`, `t` or `skewt`; by BIC without it."""


class Garch(PriceProcess):
    """Maximum likelihood by `arch`, selection by BIC. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    Law = conditional_variance.Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Fit every member that is asked for and keep the least BIC."""
        latent = longest_of(self, returns)
        members = self._members(latent)
        found: list[Fit] = []
        for at, (volatility, distribution) in enumerate(members):
            report(at / len(members), f"{volatility} with {distribution} innovations")
            found.append(conditional_variance.fit(latent, volatility, distribution, rng))
        best = min(found, key=lambda fit: fit.bic)
        keep(self, best)

    def _members(self, returns: Returns) -> list[tuple[Volatility, Distribution]]:
        volatilities = (self.parameters.volatility,) if self.parameters.volatility else get_args(Volatility)
        asked = self.parameters.distribution
        if asked:
            return [(volatility, asked) for volatility in volatilities]
        if returns.resting > _MOST_RESTING:
            self.notes.append(
                f"{returns.resting:.0%} of the returns are 0: innovations are normal, as Student's shrink onto them"
            )
            return [(volatility, "normal") for volatility in volatilities]
        told = self.parameters.volatility is not None
        return [
            (volatility, distribution)
            for volatility in volatilities
            for distribution in get_args(Distribution)
            if told or volatility != "egarch" or distribution == "normal"
        ]

    @property
    def martingale(self) -> bool:
        """Whether innovations are normal."""
        return bool(self.law.distribution == "normal")

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw innovations and run the recursion along them."""
        burn_in = conditional_variance.burn_in_of(self.law)
        scores = conditional_variance.innovations(self.law, rng, chain((burn_in,), counts))
        for sigma, score in conditional_variance.paths(self.law, scores):
            yield sigma * score - sigma**2 / 2


def longest_of(process: PriceProcess, returns: Returns) -> Returns:
    """Return the longest stretch on the latent scale, and note what that leaves out."""
    longest = returns.longest()
    if len(longest) < len(returns):
        process.notes.append(f"fitted on the longest stretch without a gap: {len(longest)} of {len(returns)} returns")
    return longest.latent()


def keep(process: PriceProcess, fit: Fit) -> None:
    """Give a process the law of a fit, projected where it is not stationary."""
    process.law, why = conditional_variance.stationary(fit)
    process.notes += [why] if why else []
    process.estimates = fit.estimates
    process.diagnostics = (
        criteria(fit.log_likelihood, len(fit.estimates), len(fit.scores))
        | {"returns": float(len(fit.scores)), "persistence": conditional_variance.persistence_of(fit.law)}
        | residual_tests(fit.normal_scores, np.zeros(len(fit.scores), dtype=np.int64))
    )
