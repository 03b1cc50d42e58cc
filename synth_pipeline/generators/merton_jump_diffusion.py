"""Merton's jump diffusion: a Brownian log price with normal jumps that arrive independently of the past.

Over one step of the grid,

    log S_t - log S_{t-1} = -c + σ ε_t + Σ_{i ≤ N_t} J_i,      N_t ~ Poisson(λ),  J_i ~ N(m, δ²),
    c = σ²/2 + λ (e^{m + δ²/2} - 1)

(Merton 1976, J. Financial Economics 3, eq. 1-3). exp(log S) is a martingale: c is its compensator.

Calibration is maximum likelihood over (σ, λ, m, δ) and the location of the diffusion. The density of a return is the
Poisson mixture of N(a + k m, σ² + k δ²); on a price grid every variance takes the rounding error's h²/6 (Sheppard). A
mixture's likelihood is unbounded where one component shrinks onto a repeated return (Kiefer and Wolfowitz 1956), so σ
stays above a thousandth of the scale of returns, or a fiftieth of the price grid. m is 0 for prices that rest in more
than a tenth of the steps. The search starts from three splits of the variance between diffusion and jumps; standard
errors are from the observed information. Simulation is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numba
import numpy as np
from scipy import special, stats

from synth_pipeline.errors import TrainingError
from synth_pipeline.generators.inference import (
    climb,
    covariance,
    criteria,
    estimates_of,
    free_of,
    residual_tests,
    scores_of,
    values_of,
)
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns
from synth_pipeline.series import FloatArray

_MOST_JUMPS, _MOST_RESTING = 60, 0.1
_NEGLIGIBLE = 1e-12
_LINKS = {
    "diffusion": "positive",
    "intensity": "positive",
    "jump_mean": "real",
    "jump": "positive",
    "location": "real",
}


class Law(NamedTuple):
    """The parameters, per step of the grid."""

    diffusion: float
    """[σ] Standard deviation of the diffusion."""
    intensity: float
    """[λ] Jumps a step."""
    jump_mean: float
    """[m]"""
    jump: float
    """[δ] Standard deviation of a jump."""


@numba.njit(cache=True)
def log_likelihood(
    returns: FloatArray, rounding: float, diffusion: float, intensity: float, mean: float, jump: float, location: float
) -> float:
    """Return the log-likelihood; `rounding` is the variance that the price grid adds."""
    weight = math.exp(-intensity)
    weights, centres, halves = np.empty(_MOST_JUMPS), np.empty(_MOST_JUMPS), np.empty(_MOST_JUMPS)
    count = 0
    left = 1.0
    for k in range(_MOST_JUMPS):
        variance = diffusion * diffusion + k * jump * jump + rounding
        weights[k] = weight / math.sqrt(2.0 * math.pi * variance)
        centres[k], halves[k] = location + k * mean, -0.5 / variance
        left -= weight
        weight *= intensity / (k + 1.0)
        count = k + 1
        if k > intensity and left < _NEGLIGIBLE:
            break
    total = 0.0
    for move in returns:
        density = 0.0
        for k in range(count):
            density += weights[k] * math.exp(halves[k] * (move - centres[k]) ** 2)
        total += math.log(max(density, 1e-300))
    return total


def distribution(moves: FloatArray, law: Law, location: float) -> FloatArray:
    """Return P(latent return ≤ move) of the mixture."""
    counts = np.arange(_MOST_JUMPS)
    weights = stats.poisson.pmf(counts, law.intensity)
    spreads = np.sqrt(law.diffusion**2 + counts * law.jump**2)
    return np.asarray(special.ndtr((moves[:, np.newaxis] - location - counts * law.jump_mean) / spreads) @ weights)


class MertonJumpDiffusion(PriceProcess):
    """Maximum likelihood of the Poisson mixture, exact simulation. See the module's docstring."""

    Law = Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Climb from three starts, then take the observed information there."""
        scale, rounding = returns.scale, returns.resolution**2 / 6
        unit = returns.values / scale

        def likelihood(free: FloatArray) -> float:
            values = values_of(free, _LINKS)
            return float(log_likelihood(unit, rounding / scale**2, *values.values()))

        least = max(returns.resolution / 50 / scale, 1e-3)
        centred = (-20.0, 20.0), (-3.0, 3.0)
        if returns.resting > _MOST_RESTING:
            centred = (0.0, 0.0), (0.0, 0.0)
            self.notes.append(
                f"{returns.resting:.0%} of the returns are 0: jumps have the mean 0, as what compensates another would "
                "move a price that rests"
            )
        natural = ((least, 3.0), (1e-4, 20.0), centred[0], (1e-2, 50.0), centred[1])
        bounds = np.array(
            [free_of(dict(zip(_LINKS, side, strict=True)), _LINKS) for side in zip(*natural, strict=True)]
        ).T
        found = []
        for at, (share, intensity) in enumerate(((0.9, 0.01), (0.5, 0.1), (0.1, 0.7))):
            report(at / 4, "climbing the likelihood")
            spread = math.sqrt((1 - share) / intensity)
            start = free_of(dict(zip(_LINKS, (math.sqrt(share), intensity, 0.0, spread, 0.0), strict=True)), _LINKS)
            found.append(climb(lambda free: likelihood(free) / len(unit), start, bounds, 200))
        best, free = max(found, key=lambda pair: pair[0])
        if best <= -1e6:
            raise TrainingError("merton_jump_diffusion: the likelihood is no number; look for a spike among the prices")
        report(0.8, "standard errors")
        self._keep(returns, free, covariance(likelihood, free, bounds), rng)

    def _keep(self, returns: Returns, free: FloatArray, among: FloatArray, rng: np.random.Generator) -> None:
        scale, rounding = returns.scale, returns.resolution**2 / 6
        estimates = estimates_of(free, among, _LINKS)
        for name in ("diffusion", "jump_mean", "jump", "location"):
            each = estimates[name]
            estimates[name] = type(each)(each.value * scale, each.error and each.error * scale, each.link)
        location = estimates.pop("location").value
        self.estimates = estimates
        self.law = Law(**{name: estimate.value for name, estimate in estimates.items()})
        law: Law = self.law
        total = log_likelihood(
            returns.values, rounding, law.diffusion, law.intensity, law.jump_mean, law.jump, location
        )
        jumps = self.law.intensity * (self.law.jump**2 + self.law.jump_mean**2)
        scores = scores_of(
            lambda moves: distribution(moves, self.law, location), returns.values, returns.resolution, rng
        )
        self.diagnostics = (
            criteria(total, len(_LINKS), len(returns))
            | {"jump_share_of_variance": jumps / (jumps + self.law.diffusion**2)}
            | residual_tests(scores, returns.stretch)
        )

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw the jumps of a step as one normal, given their number."""
        law: Law = self.law
        levels = special.pdtr(np.arange(_MOST_JUMPS), law.intensity)
        growth = law.intensity * math.expm1(law.jump_mean + law.jump**2 / 2)
        compensator = law.diffusion**2 / 2 + growth
        for count in counts:
            both = rng.random((count, 2))
            jumps = np.searchsorted(levels, both[:, 0])
            spreads = np.sqrt(law.diffusion**2 + jumps * law.jump**2)
            yield jumps * law.jump_mean + spreads * special.ndtri(both[:, 1]) - compensator
