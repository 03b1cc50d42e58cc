"""Self-exciting jump diffusion: a Brownian log price with signed jumps whose intensity is a Hawkes process.

Over one step t of the grid, with N_t jumps of which M_t are large,

    log S_t - log S_{t-1} = -c_t + σ ε_t + Σ_{i ≤ N_t} J_i,         N_t ~ Poisson(λ_t),  M_t ~ Binomial(N_t, q),
    λ_{t+1} = μ + e^{-β} (λ_t - μ) + α (N_t + (κ - 1) M_t),         α = n (1 - e^{-β}) / (1 + (κ - 1) q),

an exponential-kernel Hawkes process (Hawkes 1971, Biometrika 58, eq. 12) observed once a step and kept by Ogata's
recursion (Ogata 1981, IEEE Trans. Inf. Theory 27): the jumps of a step excite from the next one on, a large jump κ
times as much as another. The branching ratio is 0 < n < 1, so the process is stationary by parametrisation and its
mean intensity is μ / (1 - n). A jump is N(0, δ²), a large one N(0, ρ² δ²): the body and the tail of the moves, both of
symmetric sign. With

    c_t = σ²/2 + λ_t E[e^J - 1]

exp(log S) is a martingale exactly; E[e^J] is finite, which is what rules out Student jumps. A price that rests on its
tick through most steps is one whose σ lies far below the tick: the jump counts then carry the zero returns, the
clustering and the tails.

Likelihood. N_t and λ_t are not observed. Given the past, λ_t is taken as Gamma with the mean and variance that an
assumed-density filter keeps: N_t is then negative binomial, λ_t given N_t is Gamma again, and the two moments of
λ_{t+1} follow in closed form. The density of a return is the mixture of normals over (N_t, M_t); as prices are rounded
to a grid of step h, each normal is averaged over the triangular error that the difference of two rounded prices has.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from synth_pipeline.errors import TrainingError
from synth_pipeline.features.transforms import Anchor, checked
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.series import FloatArray, Series

_MOST_JUMPS, _MOST_LARGE = 40, 10
_NEGLIGIBLE = 1e-8
_IMPOSSIBLE = 1e6
_FLOOR = -700.0
_LONGEST_BURN_IN = 20_000
_SHORT_FIT, _FEW, _MANY = 2_000, 30, 300
_FILE = "self_exciting_jump_diffusion.json"


class Law(NamedTuple):
    """The estimated parameters, per step of the grid; names in brackets are the symbols of the module's docstring."""

    diffusion: float
    """[σ] Standard deviation of the diffusion."""
    mean_intensity: float
    """[μ / (1 - n)] Jumps a step in the long run."""
    branching_ratio: float
    """[n] Jumps that one jump excites in the long run."""
    decay: float
    """[β] Rate at which excitation fades."""
    jump: float
    """[δ] Standard deviation of a jump."""
    large_ratio: float
    """[ρ] How many times larger a large jump is."""
    large_share: float
    """[q] Share of jumps that are large."""
    large_excitation: float
    """[κ] How many times more a large jump excites."""


@numba.njit(cache=True)
def _memory(law: Law) -> tuple[float, float, float]:
    """Return e^{-β}, α and the variance of the intensity in the long run."""
    fade = math.exp(-law.decay)
    extra, share = law.large_excitation - 1.0, law.large_share
    alpha = law.branching_ratio * (1.0 - fade) / (1.0 + extra * share)
    persistence = fade + law.branching_ratio * (1.0 - fade)
    squared_mark = 1.0 + (2.0 * extra + extra * extra) * share
    return fade, alpha, alpha * alpha * squared_mark * law.mean_intensity / (1.0 - persistence * persistence)


@numba.njit(cache=True)
def _jump_growth(law: Law) -> float:
    """Return E[e^J - 1]."""
    small, large = law.jump**2 / 2.0, (law.jump * law.large_ratio) ** 2 / 2.0
    return (1.0 - law.large_share) * math.expm1(small) + law.large_share * math.expm1(large)


@numba.njit(cache=True)
def rounded_density(move: float, spread: float, resolution: float) -> float:
    """Return the density of N(0, spread²) averaged over a triangular error of `resolution` either side.

    Times `resolution` it is the probability of this difference of two prices rounded to a grid of that step. A wide
    normal takes the error's variance, resolution²/6 (Sheppard's correction); the narrow ones are integrated.
    """
    if spread >= 2.0 * resolution:
        variance = spread * spread + resolution * resolution / 6.0
        return math.exp(-0.5 * move * move / variance) / math.sqrt(2.0 * math.pi * variance)
    if abs(move) > resolution + 8.0 * spread:
        return 0.0
    total = 0.0
    for side in (-1.0, 0.0, 1.0):
        x = (move + side * resolution) / spread
        integral = 0.5 * x * math.erfc(-x / math.sqrt(2.0)) + math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        total += (1.0 - 3.0 * (side == 0.0)) * spread * integral
    return max(total, 0.0) / (resolution * resolution)


@numba.njit(cache=True)
def _mixture(law: Law) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Return spread and weight of (k jumps, j large ones), and how many j matter for each k."""
    spreads = np.zeros((_MOST_JUMPS + 1, _MOST_LARGE + 1))
    weights = np.zeros_like(spreads)
    tops = np.zeros(_MOST_JUMPS + 1, dtype=np.int64)
    odds = law.large_share / (1.0 - law.large_share)
    for k in range(_MOST_JUMPS + 1):
        weight = (1.0 - law.large_share) ** k
        for j in range(min(k, _MOST_LARGE) + 1):
            variance = law.diffusion**2 + law.jump**2 * (k - j + law.large_ratio**2 * j)
            spreads[k, j], weights[k, j], tops[k] = math.sqrt(variance), weight, j
            weight *= (k - j) / (j + 1.0) * odds
            if weight < _NEGLIGIBLE:
                break
    return spreads, weights, tops


@numba.njit(cache=True)
def filtered(
    returns: FloatArray, opens: NDArray[np.bool_], resolution: float, law: Law, means: FloatArray, variances: FloatArray
) -> float:
    """Return the log-likelihood and fill the mean and variance of every λ_t given the past.

    `opens` marks the first return after a gap, where the filter restarts from the long run. A move that no mixture of
    the law reaches counts with the floor e^-700 and excites nothing, so that one bad print does not undo a fit.
    """
    fade, alpha, long_variance = _memory(law)
    growth, base = _jump_growth(law), law.mean_intensity * (1.0 - law.branching_ratio)
    spreads, weights, tops = _mixture(law)
    exponents = -0.5 / (spreads**2 + resolution**2 / 6.0)
    heights = weights * np.sqrt(-exponents / math.pi)
    peaks = np.sqrt(-exponents[:, 0] / math.pi)
    extra, total, mean, variance = law.large_excitation - 1.0, 0.0, 0.0, 0.0
    for t in range(len(returns)):
        if opens[t]:
            mean, variance = law.mean_intensity, long_variance
        variance = max(variance, 1e-8 * mean * mean)
        means[t], variances[t] = mean, variance
        shape, rate = mean * mean / variance, mean / variance
        move = returns[t] + 0.5 * law.diffusion**2 + mean * growth
        square = move * move
        prior = math.exp(-shape * math.log1p(1.0 / rate))
        mass, p, pk, pkk, pm, pmm, pkm = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(_MOST_JUMPS + 1):
            pj, pjj, pkj = 0.0, 0.0, 0.0
            for j in range(tops[k] + 1):
                if spreads[k, j] >= 2.0 * resolution:
                    joint = prior * heights[k, j] * math.exp(square * exponents[k, j])
                else:
                    joint = prior * weights[k, j] * rounded_density(move, spreads[k, j], resolution)
                pj += joint
                pjj += joint * j
                pkj += joint * j * j
            mark = k * pj + extra * pjj
            p += pj
            pk += pj * k
            pkk += pj * k * k
            pm += mark
            pmm += k * (mark + extra * pjj) + extra * extra * pkj
            pkm += mark * k
            mass += prior
            # What is left out can add no more than the height of the narrowest normal that remains.
            if k >= 4 and (1.0 - mass) * peaks[k] < _NEGLIGIBLE * p:
                break
            prior *= (shape + k) / ((k + 1.0) * (rate + 1.0))
        if not p > 0.0:  # no mixture of these reaches so far: a floor, and the filter passes over the move
            total += _FLOOR
            continue
        total += math.log(p)
        count, marks = pk / p, pm / p
        count_variance = max(pkk / p - count * count, 0.0)
        now = (shape + count) / (rate + 1.0)
        now_variance = (now + count_variance / (rate + 1.0)) / (rate + 1.0)
        shared = (pkm / p - count * marks) / (rate + 1.0)
        mean = base * (1.0 - fade) + fade * now + alpha * marks
        variance = fade**2 * now_variance + alpha**2 * max(pmm / p - marks * marks, 0.0) + 2.0 * fade * alpha * shared
    return total


@numba.njit(cache=True)
def distribution(moves: FloatArray, law: Law, means: FloatArray, variances: FloatArray) -> FloatArray:
    """Return P(latent return of step t ≤ moves[t] | the past), for moments of λ_t that `filtered` filled."""
    growth = _jump_growth(law)
    spreads, weights, tops = _mixture(law)
    levels = np.zeros(len(moves))
    for t in range(len(moves)):
        shape, rate = means[t] ** 2 / variances[t], means[t] / variances[t]
        move = moves[t] + 0.5 * law.diffusion**2 + means[t] * growth
        prior = math.exp(-shape * math.log1p(1.0 / rate))
        mass = 0.0
        for k in range(_MOST_JUMPS + 1):
            for j in range(tops[k] + 1):
                levels[t] += prior * weights[k, j] * 0.5 * math.erfc(-move / spreads[k, j] / math.sqrt(2.0))
            mass += prior
            prior *= (shape + k) / ((k + 1.0) * (rate + 1.0))
        levels[t] /= mass
    return levels


@numba.njit(cache=True)
def simulated(rng: np.random.Generator, steps: int, burn_in: int, law: Law) -> tuple[FloatArray, FloatArray]:
    """Return log returns and intensities, both of shape (steps,), after `burn_in` steps from the mean intensity."""
    fade, alpha, _ = _memory(law)
    growth, base = _jump_growth(law), law.mean_intensity * (1.0 - law.branching_ratio)
    returns, intensities = np.empty(steps), np.empty(steps)
    intensity = law.mean_intensity
    for t in range(-burn_in, steps):
        small = rng.poisson((1.0 - law.large_share) * intensity)
        large = rng.poisson(law.large_share * intensity)
        if t >= 0:
            spread = math.sqrt(law.diffusion**2 + law.jump**2 * (small + law.large_ratio**2 * large))
            returns[t] = spread * rng.standard_normal() - 0.5 * law.diffusion**2 - intensity * growth
            intensities[t] = intensity
        intensity = base + fade * (intensity - base) + alpha * (small + law.large_excitation * large)
    return returns, intensities


@dataclass(frozen=True)
class Observations:
    """Log returns of every stretch without a gap, one after the other."""

    returns: FloatArray
    opens: NDArray[np.bool_]
    resolution: float
    """Step of the price grid over the median price; 0 without a grid."""

    @classmethod
    def of(cls, series: Series, price_step: float) -> Self:
        """Take them off a series of one column."""
        pieces = [np.log(series.values[path, start:stop, 0]) for path, start, stop in segments(series)]
        returns = [np.diff(piece) for piece in pieces if len(piece) > 1]
        opens = np.zeros(sum(map(len, returns)), dtype=np.bool_)
        opens[np.cumsum([0, *map(len, returns[:-1])])] = True
        return cls(np.concatenate(returns), opens, price_step / float(np.exp(np.median(np.concatenate(pieces)))))

    @property
    def scale(self) -> float:
        """Root mean square of the returns."""
        return float(np.sqrt(np.mean(self.returns**2)))

    def latest(self, count: int) -> Self:
        """Return the last `count` of them."""
        opens = self.opens[-count:].copy()
        opens[0] = True
        return replace(self, returns=self.returns[-count:], opens=opens)

    def log_likelihood(self, law: Law) -> float:
        """Return the log-likelihood of a law."""
        scratch = np.empty((2, len(self.returns)))
        return float(filtered(self.returns, self.opens, self.resolution, law, scratch[0], scratch[1]))


def law_of(free: FloatArray) -> Law:
    """Return the law of its free parameters: logarithms, of the branching ratio the log-odds."""
    values = np.exp(free)
    values[2] = 1.0 / (1.0 + np.exp(-free[2]))
    return Law(*map(float, values))


def bounds_of(observed: Observations) -> FloatArray:
    """Return lower and upper bounds of the free parameters, shape (8, 2), wide but for two.

    σ stops at a fiftieth of the price grid, below which no price shows it; a jump has at least the size of the grid.
    """
    scale, grid = observed.scale, observed.resolution
    natural = [
        (grid / 50 or scale / 1e3, 2 * scale + grid),
        (1e-3, 20),
        (0.01, 0.995),
        (1e-3, 3),
        (max(grid, scale / 100), min(20 * scale, 1.0) + grid),
        (1.5, 15),
        (1e-3, 0.25),
        (0.2, 30),
    ]
    free = np.log(np.array(natural))
    free[2] -= np.log1p(-np.exp(free[2]))
    return np.asarray(free)


def starts_of(observed: Observations, bounds: FloatArray) -> list[FloatArray]:
    """Return where the search starts: prices that rest between jumps, prices that always move, and between the two."""
    moves = np.abs(observed.returns)
    moving = moves > min(observed.resolution, float(moves.max())) / 2
    share, typical, scale = float(moving.mean()), float(np.median(moves[moving])) / 0.67, observed.scale
    resting = [np.exp(bounds[0, 0]) * 3, -math.log(max(1 - share, 0.01)), 0.5, 0.5, typical, 3, 0.03, 1]
    moving_always = [typical, 0.2, 0.8, 0.1, scale, 2, 0.03, 1]
    between = [typical / 3, 3.0, 0.9, 0.3, typical / 2, 5, 0.03, 3]
    starts = []
    for natural in (resting, moving_always, between):
        free = np.log(np.array(natural, dtype=np.float64))
        free[2] -= np.log1p(-np.exp(free[2]))
        starts.append(np.clip(free, bounds[:, 0], bounds[:, 1]))
    return starts


def climb(observed: Observations, start: FloatArray, bounds: FloatArray, iterations: int) -> tuple[float, FloatArray]:
    """Return the mean log-likelihood and the free parameters that at most so many iterations reach from `start`."""

    def loss(free: FloatArray) -> float:
        likelihood = observed.log_likelihood(law_of(free)) / len(observed.returns)
        return -likelihood if np.isfinite(likelihood) else _IMPOSSIBLE

    limits = optimize.Bounds(bounds[:, 0], bounds[:, 1])
    options: Any = {"maxiter": iterations, "ftol": 1e-9, "eps": 1e-6}
    found = optimize.minimize(loss, start, method="L-BFGS-B", bounds=limits, options=options)
    return -float(found.fun), np.asarray(found.x)


def covariance(observed: Observations, free: FloatArray, inner: NDArray[np.int64]) -> FloatArray | None:
    """Return the covariance of the free parameters `inner`, None where the likelihood does not determine them all.

    The inverse of the numerical Hessian, each second derivative from points on both sides: its error is O(step²).
    """
    step = 5e-3

    def at(*moves: tuple[int, float]) -> float:
        moved = free.copy()
        for which, direction in moves:
            moved[which] += direction * step
        return observed.log_likelihood(law_of(moved))

    middle = at()
    up, down = {i: at((i, 1.0)) for i in inner}, {i: at((i, -1.0)) for i in inner}
    hessian = np.empty((len(inner), len(inner)))
    for row, i in enumerate(inner):
        hessian[row, row] = (up[i] - 2 * middle + down[i]) / step**2
        for column, j in enumerate(inner[:row]):
            both = at((i, 1.0), (j, 1.0)) + at((i, -1.0), (j, -1.0))
            mixed = (both - up[i] - down[i] - up[j] - down[j] + 2 * middle) / (2 * step**2)
            hessian[row, column] = hessian[column, row] = mixed
    if not np.isfinite(hessian).all() or np.linalg.eigvalsh(-hessian)[0] <= 0:
        return None
    return np.asarray(np.linalg.inv(-hessian), dtype=np.float64)


def standard_errors(observed: Observations, free: FloatArray, bounds: FloatArray) -> dict[str, float]:
    """Return standard errors by the delta method, of the parameters that the likelihood determines.

    One at its bound has none (the likelihood does not peak there), nor has any when the Hessian is not definite.
    """
    inner = np.flatnonzero((free - bounds[:, 0] > 1e-2) & (bounds[:, 1] - free > 1e-2))
    among = covariance(observed, free, inner)
    if among is None:
        return {}
    law = law_of(free)
    slopes = np.array(law)
    slopes[2] *= 1 - law.branching_ratio
    errors = dict(
        zip(np.array(Law._fields)[inner].tolist(), (slopes[inner] * np.sqrt(np.diag(among))).tolist(), strict=True)
    )
    if {1, 2} <= set(inner.tolist()):
        base = law.mean_intensity * np.where(inner == 1, 1 - law.branching_ratio, 0)
        base -= law.mean_intensity * np.where(inner == 2, slopes[2], 0)
        errors["base_intensity"] = float(np.sqrt(base @ among @ base))
    return {f"{name}_se": error for name, error in errors.items()}


def diagnostics(observed: Observations, law: Law, step_ns: int, rng: np.random.Generator) -> dict[str, float]:
    """Return what tells a good fit from a bad one.

    `pit_ks` is the Kolmogorov-Smirnov distance of the probability-integral transforms to the uniform law (a rounded
    move lands anywhere in its cell, by `rng`); `pit_clustering` the lag-one autocorrelation of their distance from the
    median: the clustering of volatility that the law leaves unexplained.
    """
    means, variances = np.empty((2, len(observed.returns)))
    likelihood = filtered(observed.returns, observed.opens, observed.resolution, law, means, variances)
    low = distribution(observed.returns - observed.resolution / 2, law, means, variances)
    high = distribution(observed.returns + observed.resolution / 2, law, means, variances)
    levels = low + (high - low) * rng.random(len(low))
    depth = np.abs(levels - 0.5)
    growth = law.jump**2 * (1 + (law.large_ratio**2 - 1) * law.large_share) * law.mean_intensity
    return {
        "log_likelihood": float(likelihood),
        "returns": float(len(observed.returns)),
        "base_intensity": law.mean_intensity * (1 - law.branching_ratio),
        "excitation_half_life_seconds": math.log(2) / law.decay * step_ns / 1e9,
        "jump_share_of_variance": growth / (growth + law.diffusion**2),
        "pit_ks": float(stats.kstest(levels, "uniform").statistic),
    } | ({"pit_clustering": float(np.corrcoef(depth[1:], depth[:-1])[0, 1])} if np.ptp(depth) > 0 else {})


@dataclass(frozen=True)
class Parameters:
    """What a user may set."""

    most_returns: int = 100_000
    """The likelihood sees at most this many, the latest: standard errors shrink no further in a way that matters."""


class SelfExcitingJumpDiffusion(Generator):
    """Maximum likelihood on equally spaced prices; samples martingales of any length. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    columns = ("mid", "close")

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate by quasi-Newton from three fixed starts; `rng` only places rounded moves for the diagnostics."""
        chosen = checked(series, (series.price_name,), self.required, self.minimum_steps)
        self.anchor = Anchor.of(chosen)
        observed = Observations.of(chosen, self.anchor.price_step).latest(self.parameters.most_returns)
        short, bounds = observed.latest(_SHORT_FIT), bounds_of(observed)
        found: list[tuple[float, FloatArray]] = []
        for start in starts_of(observed, bounds):
            progress(len(found), 5, "searching the likelihood")
            found.append(climb(short, start, bounds, _FEW))
        progress(3, 5, "climbing the likelihood")
        _, free = max(found, key=lambda pair: pair[0])
        likelihood, free = climb(observed, free, bounds, _MANY)
        if likelihood <= -_IMPOSSIBLE:
            raise TrainingError(
                "self_exciting_jump_diffusion: the likelihood is no number wherever the search starts; "
                "look for a spike among the prices"
            )
        progress(4, 5, "standard errors")
        self.law = law_of(free)
        self._summary = self.law._asdict() | diagnostics(observed, self.law, chosen.step_ns, rng)
        self._summary |= standard_errors(observed, free, bounds)
        progress(5, 5, "fitted")
        return self

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Return paths whose latent log price is a martingale; what is shown is its nearest price on the grid."""
        self.check_request(n, steps, regime)
        moves = np.zeros((n, steps))
        for path, own in enumerate(per_path(rng, n)):
            moves[path, 1:] = np.cumsum(simulated(own, steps - 1, self._burn_in(), self.law)[0])
        return self.anchor.series(self.anchor.prices(moves)[:, :, np.newaxis])

    def _burn_in(self) -> int:
        """Return after how many steps the intensity has forgotten where it started, to one part in a thousand."""
        fading = (1 - math.exp(-self.law.decay)) * (1 - self.law.branching_ratio)
        return min(math.ceil(math.log(1000) / fading), _LONGEST_BURN_IN)

    def save(self, folder: Path) -> None:
        """Write one JSON file."""
        state = {
            "parameters": asdict(self.parameters),
            "anchor": asdict(self.anchor),
            "law": self.law._asdict(),
            "summary": self._summary,
        }
        (folder / _FILE).write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        state = json.loads((folder / _FILE).read_text())
        made = cls.from_settings(state["parameters"])
        made.anchor, made.law, made._summary = Anchor.from_json(state["anchor"]), Law(**state["law"]), state["summary"]
        return made

    def summary(self) -> dict[str, float]:
        """Return estimates, their standard errors (`…_se`, where they exist), likelihood and diagnostics."""
        return dict(self._summary)
