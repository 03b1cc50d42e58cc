"""Self-exciting jump diffusion: a Brownian log price with signed jumps whose intensity is a Hawkes process.

Over one step t of the grid, with N_t jumps of which M_t are large,

    log S_t - log S_{t-1} = -c_t + σ ε_t + Σ_{i ≤ N_t} J_i,         N_t ~ Poisson(λ_t),  M_t ~ Binomial(N_t, q),
    λ_{t+1} = μ_{t+1} + e^{-β} (λ_t - μ_t) + α (N_t + (κ - 1) M_t),   α = n (1 - e^{-β}) / (1 + (κ - 1) q),

an exponential-kernel Hawkes process (Hawkes 1971, Biometrika 58, eq. 12) observed once a step and kept by Ogata's
recursion (Ogata 1981, IEEE Trans. Inf. Theory 27): the jumps of a step excite from the next one on, a large jump κ
times as much as another. The branching ratio is 0 < n < 1, so the process is stationary by parametrisation and its
mean intensity is μ / (1 - n). The base μ_t is that with which the mean of λ_t follows
the time of day (`diurnal`). A small jump is N(0, δ²). A large one
has a sign and the size law of that sign: up, |N(0, ρ₊² δ²)|, or down, -|N(0, ρ₋² δ²)|; up with the probability
p = ρ₋ / (ρ₊ + ρ₋), so that the side with the larger jumps has fewer and E[J] = 0: a jump of non-zero mean would need a
compensator of first order, a drift that prices which rest between jumps do not have. With

    c_t = σ²/2 + λ_t E[e^J - 1]

exp(log S) is a martingale exactly; E[e^J] is finite, which is what rules out Student jumps. A price that rests on its
tick through most steps is one whose σ lies far below the tick: the jump counts then carry the zero returns, the
clustering and the tails.

Calibration is maximum likelihood by an assumed-density filter (`jump_filter`) and quasi-Newton from three starts:
prices that always move, prices between, and resting prices whose moves are events of a Hawkes process (`hawkes`).
Standard errors are from the observed information; one at its bound has none. Beside the usual residual tests,
`rescaled_p` is that of time rescaling: with p_t the probability, given the past, that step t exceeds the 95 %
quantile of moves, the sums of -log(1 - p_t) between exceedances are Exp(1) (Haslinger, Pipa and Brown 2010, Neural
Computation 22, eq. 9). Simulation is exact, from the long run of the intensity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from synth_pipeline.errors import TooLittleDataError, TrainingError
from synth_pipeline.generators import diurnal, hawkes, jump_filter
from synth_pipeline.generators.inference import (
    Estimate,
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
from synth_pipeline.series import FloatArray, IntArray

_LONGEST_BURN_IN = 20_000
_SHORT_FIT, _FEW, _MANY = 2_000, 20, 300
_EXCEEDED = 0.95
_LINKS = {name: "share" if name == "branching_ratio" else "positive" for name in jump_filter.Law._fields}


class Law(NamedTuple):
    """What a sample needs."""

    jumps: FloatArray
    """The fields of `jump_filter.Law`, in its order."""
    profile: FloatArray
    """Factors on the mean intensity, one a part of the day."""
    next_ns: float
    """The first sampled label."""


def law_of(free: FloatArray) -> jump_filter.Law:
    """Return the law of its free parameters."""
    return jump_filter.Law(**values_of(free, _LINKS))


class Likelihood:
    """The log-likelihood of returns under a law, with scratch space for the filter."""

    def __init__(self, returns: Returns, profile: FloatArray) -> None:
        self.returns, self.profile = returns, diurnal.at(profile, returns.labels_ns)
        self.means, self.variances = np.empty((2, len(returns)))

    def __call__(self, law: jump_filter.Law) -> float:
        """Return it, and leave the moments of the intensity in `means` and `variances`."""
        known = self.returns
        return float(
            jump_filter.filtered(
                known.values, known.opens, self.profile, known.resolution, law, self.means, self.variances
            )
        )

    def climb(self, start: FloatArray, bounds: FloatArray, iterations: int) -> tuple[float, FloatArray]:
        """Return the mean log-likelihood and the free parameters that the search reaches."""
        return climb(lambda free: self(law_of(free)) / len(self.returns), start, bounds, iterations)


def bounds_of(returns: Returns) -> FloatArray:
    """Return lower and upper bounds of the free parameters, shape (9, 2), wide but for two.

    σ stops at a fiftieth of the price grid, below which no price shows it; a jump has at least the size of the grid.
    """
    scale, grid = returns.scale, returns.resolution
    natural = {
        "diffusion": (grid / 50 or scale / 1e3, 2 * scale + grid),
        "mean_intensity": (1e-3, 20),
        "branching_ratio": (0.01, 0.995),
        "decay": (1e-3, 3),
        "jump": (max(grid, scale / 100), min(20 * scale, 1.0) + grid),
        "up_ratio": (1.5, 15),
        "down_ratio": (1.5, 15),
        "large_share": (1e-3, 0.25),
        "large_excitation": (0.2, 30),
    }
    sides = zip(*natural.values(), strict=True)
    return np.array([free_of(dict(zip(natural, side, strict=True)), _LINKS) for side in sides]).T


def starts_of(returns: Returns, bounds: FloatArray) -> list[FloatArray]:
    """Return where the search starts: prices that rest between jumps, prices that always move, and between the two."""
    sizes = np.abs(returns.values)
    moving = sizes > min(returns.resolution, float(sizes.max())) / 2
    share, typical, scale = float(moving.mean()), float(np.median(sizes[moving])) / 0.67, returns.scale
    branching, decay = excitation_of(np.flatnonzero(moving).astype(np.float64), len(returns))
    least = np.exp(bounds[0, 0])
    natural = (
        (least * 3, -math.log(max(1 - share, 0.01)), branching, decay, typical, 3, 3, 0.03, 1),
        (typical, 0.2, 0.8, 0.1, scale, 2, 2, 0.03, 1),
        (typical / 3, 3.0, 0.9, 0.3, typical / 2, 5, 5, 0.03, 3),
    )
    inside = [np.clip(values, *_natural(bounds)) for values in natural]
    return [free_of(dict(zip(_LINKS, values, strict=True)), _LINKS) for values in inside]


def _natural(bounds: FloatArray) -> tuple[FloatArray, FloatArray]:
    low, high = (np.array(law_of(side)) for side in bounds.T)
    return low, high


def excitation_of(times: FloatArray, steps: int) -> tuple[float, float]:
    """Return branching ratio and decay of moves as events of a Hawkes process, or a guess where none can be fitted."""
    try:
        found = hawkes.fit(times, float(steps))
    except (TooLittleDataError, TrainingError):
        return 0.5, 0.5
    return found.branching_ratio, found.decay


def rescaled(
    exceeds: FloatArray, happened: NDArray[np.bool_], stretch: IntArray, rng: np.random.Generator
) -> FloatArray:
    """Return the time-rescaled waiting times between events that `happened`, within stretches without a gap.

    `exceeds` is the probability of an event at each step. At the event itself, only a part of the step counts, by
    `rng`, as it is not known when within the step the event was.
    """
    hazard = -np.log1p(-np.clip(exceeds, 1e-12, 1 - 1e-12))
    total = np.cumsum(hazard)
    at = np.flatnonzero(happened)
    part = -np.log1p(-rng.random(len(at)) * -np.expm1(-hazard[at]))
    waits = total[at[1:]] - hazard[at[1:]] - total[at[:-1]] + part[1:]
    return np.asarray(waits[stretch[at[1:]] == stretch[at[:-1]]])


class SelfExcitingJumpDiffusion(PriceProcess):
    """Maximum likelihood on equally spaced prices; samples martingales of any length. See the module's docstring."""

    Law = Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Climb from three starts; `rng` only places rounded moves for the diagnostics."""
        profile, why_flat = diurnal.profile_of(returns.values, returns.labels_ns, returns.step_ns)
        self.notes += [why_flat] if why_flat else []
        likelihood, bounds = Likelihood(returns, profile), bounds_of(returns)
        short = Likelihood(returns.latest(_SHORT_FIT), profile)
        found: list[tuple[float, FloatArray]] = []
        for start in starts_of(returns, bounds):
            report(len(found) / 5, "searching the likelihood")
            found.append(short.climb(start, bounds, _FEW))
        report(3 / 5, "climbing the likelihood")
        best, free = likelihood.climb(max(found, key=lambda pair: pair[0])[1], bounds, _MANY)
        if best <= -1e6:
            raise TrainingError(
                "self_exciting_jump_diffusion: the likelihood is no number wherever the search starts; "
                "look for a spike among the prices"
            )
        report(4 / 5, "standard errors")
        law = law_of(free)
        if free[2] > bounds[2, 1] - 1e-2:
            self.notes.append("the branching ratio is held at 0.995: the estimate is not stationary, activity drifts")
        self.law = Law(np.array(law), profile, float(self.anchor.next_ns))
        among = covariance(lambda free: likelihood(law_of(free)), free, bounds)
        self.estimates = estimates_of(free, among, _LINKS) | {"base_intensity": _base(law, among)}
        self.diagnostics = self._diagnostics(likelihood, law, rng)

    def _diagnostics(self, likelihood: Likelihood, law: jump_filter.Law, rng: np.random.Generator) -> dict[str, float]:
        returns, total = likelihood.returns, likelihood(law)

        def distribution(moves: FloatArray) -> FloatArray:
            return jump_filter.distribution(moves, law, likelihood.means, likelihood.variances)

        cell = returns.resolution
        limit = float(np.quantile(np.abs(returns.values), _EXCEEDED))
        limit = (math.floor(limit / cell) + 0.5) * cell if cell else limit
        edge = np.full(len(returns), limit)
        exceeds = distribution(-edge) + 1.0 - distribution(edge)
        waits = rescaled(exceeds, np.abs(returns.values) > limit, returns.stretch, rng)
        large = law.large_share * (law.up_ratio * law.down_ratio - 1)
        jumps = law.mean_intensity * law.jump**2 * (1 + large)
        return (
            criteria(total, len(_LINKS), len(returns))
            | {
                "returns": float(len(returns)),
                "excitation_half_life_seconds": math.log(2) / law.decay * returns.step_ns / 1e9,
                "large_up_share": law.down_ratio / (law.up_ratio + law.down_ratio),
                "jump_share_of_variance": jumps / (jumps + law.diffusion**2),
            }
            | ({"rescaled_p": float(stats.kstest(waits, "expon").pvalue)} if len(waits) else {})
            | residual_tests(scores_of(distribution, returns.values, cell, rng), returns.stretch)
        )

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Simulate after a burn-in in which the intensity forgets where it started, to one part in a thousand."""
        law = jump_filter.Law(*map(float, self.law.jumps))
        fading = (1 - math.exp(-law.decay)) * (1 - law.branching_ratio)
        burn_in = min(math.ceil(math.log(1000) / fading), _LONGEST_BURN_IN)
        label = int(self.law.next_ns) + self.anchor.step_ns
        state = jump_filter.opening(rng, float(self._factors(label, 1)[0]), burn_in, law)
        for count in counts:
            returns, _, state = jump_filter.simulated(rng, self._factors(label, count + 1), state, law)
            label += count * self.anchor.step_ns
            yield returns

    def _factors(self, label: int, count: int) -> FloatArray:
        """Return the factors of the time of day from a label on."""
        return diurnal.at(self.law.profile, label + np.arange(count) * self.anchor.step_ns)


def _base(law: jump_filter.Law, among: FloatArray) -> Estimate:
    """Return the base intensity [μ = λ̄ (1 - n)] with its standard error by the delta method."""
    base = law.mean_intensity * (1 - law.branching_ratio)
    slopes = np.array([base, -law.mean_intensity * law.branching_ratio * (1 - law.branching_ratio)])
    variance = float(slopes @ among[1:3, 1:3] @ slopes)
    return Estimate(base, math.sqrt(variance) if variance > 0 else None)
