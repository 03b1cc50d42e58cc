"""Geometric Brownian motion: independent normal log-returns, the baseline of every other law.

Over one step of the grid,

    log S_t - log S_{t-1} = -σ²/2 + σ ε_t,          ε_t ~ N(0, 1) independent

(Black and Scholes 1973, J. Political Economy 81; Osborne 1959, Operations Research 7). exp(log S) is a martingale.

Calibration is maximum likelihood, in closed form: σ² is the mean square of returns about their mean. On a price grid
σ is that of the latent price (`price_process.unrounded`). The standard error is that of a mean of squares which may
be dependent (Newey and West), by the delta method: returns of real markets cluster, and the textbook σ / √(2n) is
then too small. Simulation is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from synth_pipeline.generators.inference import Estimate, criteria, mean_error, residual_tests, scores_of
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns, unrounded
from synth_pipeline.series import FloatArray


class Law(NamedTuple):
    """The parameters, per step of the grid."""

    volatility: float
    """[σ]"""


class GeometricBrownianMotion(PriceProcess):
    """Closed-form maximum likelihood, exact simulation. See the module's docstring."""

    Law = Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Take the moments."""
        report(0.0, "moments")
        centred = returns.values - returns.values.mean()
        scale = float(np.sqrt(np.mean(centred**2)))
        volatility = unrounded(scale, returns.resolution)
        error = mean_error(centred**2) / (2 * scale)
        self.law = Law(volatility)
        self.estimates = {"volatility": Estimate(volatility, error * volatility / scale)}
        likelihood = float(stats.norm.logpdf(centred, scale=scale).sum())
        scores = scores_of(lambda x: special.ndtr(x / volatility), centred, returns.resolution, rng)
        self.diagnostics = criteria(likelihood, 2, len(returns)) | residual_tests(scores, returns.stretch)

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw normals."""
        sigma = self.law.volatility
        for count in counts:
            yield sigma * rng.standard_normal(count) - sigma * sigma / 2
