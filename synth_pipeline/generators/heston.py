"""Heston's stochastic volatility: the variance is a square-root diffusion, correlated with the price.

    d log S = -v/2 dt + √v dW,      dv = κ (θ - v) dt + ξ √v dZ,      d⟨W, Z⟩ = ρ dt

(Heston 1993, Rev. Financial Studies 6, eq. 1-4), time in steps of the grid. exp(log S) is a martingale.

Simulation is the quadratic-exponential scheme of Andersen (2008), J. Comput. Finance 11, with its martingale correction
(sections 3.2 and 4.2, ψ_c = 1.5, γ₁ = γ₂ = 1/2), from the stationary gamma law of v.

Calibration is maximum likelihood of the same discretisation, on the returns R of blocks of m steps and the sum of
squares Q of their deviations from R / m. Given v at both ends of a block and v̄ their mean, R is normal with variance
(1 - ρ²) m v̄ about -m (v̄ - θ)/2 + (ρ/ξ)(v' - v - κ m (θ - v̄)), as history's mean is taken out, and Q / v̄ is
chi-squared with m - 1 degrees of freedom. v is integrated out on a grid (Kitagawa 1987, JASA 82), on which it moves
as the birth-and-death chain with the drift and diffusion of v (Cui, Kirkby and Nguyen 2018, EJOR 268, section 3); m
makes the variance move by about a grid point a block. Standard errors are from the observed information. The scores
of `residual_…` are of R given the past.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from synth_pipeline.errors import TrainingError
from synth_pipeline.generators.inference import (
    Estimate,
    climb,
    covariance,
    criteria,
    estimates_of,
    free_of,
    residual_tests,
    values_of,
)
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns
from synth_pipeline.series import FloatArray

_POINTS = 40
_MOST_BLOCKS, _FEWEST_BLOCKS = 3_000, 60
_MOVES_BY = 0.01
_MOVES, _MOST_RESTING = 8, 0.1
_NEGLIGIBLE = 1e-10
_FLOOR = -700.0
_LEAST = 0.8
_SWITCH = 1.5
_LINKS = {"reversion": "positive", "variance": "positive", "vol_of_vol": "positive", "leverage": "correlation"}
_BOUNDS = {
    "reversion": (1e-4, 3.0),
    "variance": (0.05, 20.0),
    "vol_of_vol": (1e-3, 5.0),
    "leverage": (-0.98, 0.98),
}


class Law(NamedTuple):
    """The parameters, per step of the grid."""

    reversion: float
    """[κ]"""
    variance: float
    """[θ] Long-run variance of a return."""
    vol_of_vol: float
    """[ξ]"""
    leverage: float
    """[ρ]"""

    def scaled(self, factor: float) -> Law:
        """Return the law of so many times the variance."""
        return self._replace(variance=factor * self.variance, vol_of_vol=math.sqrt(factor) * self.vol_of_vol)


class Chain(NamedTuple):
    """The variance on a grid of points, and its moves over a block."""

    points: FloatArray
    opening: FloatArray
    moves: FloatArray


def chain_of(law: Law, steps: int) -> Chain:
    """Return the birth-and-death chain of v, points equally spaced in √v over the stationary gamma law."""
    shape = 2 * law.reversion * law.variance / law.vol_of_vol**2
    ends = special.gammaincinv(shape, 1e-4), special.gammainccinv(shape, 1e-6)
    roots = np.sqrt(np.maximum(ends, 1e-12) * law.variance / shape)
    points = np.linspace(float(roots[0]), float(roots[1]), _POINTS) ** 2
    gaps = np.diff(points)
    drift, spread = law.reversion * (law.variance - points), law.vol_of_vol**2 * points
    both = gaps[1:] + gaps[:-1]
    up, down = np.maximum(drift[:-1], 0) / gaps, np.maximum(-drift[1:], 0) / gaps
    up[1:] = np.maximum((spread[1:-1] + gaps[:-1] * drift[1:-1]) / (gaps[1:] * both), up[1:])
    down[:-1] = np.maximum((spread[1:-1] - gaps[1:] * drift[1:-1]) / (gaps[:-1] * both), down[:-1])
    # The two ends only turn back; the floor keeps every point within reach, so that the chain has one long run.
    up, down = np.maximum(up, 1e-9), np.maximum(down, 1e-9)
    logs = np.concatenate(([0.0], np.cumsum(np.log(up) - np.log(down))))
    opening = np.exp(logs - logs.max())
    opening /= opening.sum()
    # Detailed balance makes the generator symmetric in these coordinates, hence a real spectrum.
    values, vectors = linalg.eigh_tridiagonal(-np.append(up, 0) - np.insert(down, 0, 0.0), np.sqrt(up * down))
    root = np.sqrt(np.maximum(opening, 1e-300))
    moves = (vectors * np.exp(np.minimum(values, 0) * steps)) @ vectors.T * root / root[:, np.newaxis]
    moves = np.maximum(moves, 0)
    return Chain(points, opening, moves / moves.sum(axis=1, keepdims=True))


@numba.njit(cache=True)
def _normals(law: Law, chain: Chain, steps: int, unit: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return centre, exponent and weighted height of R for every move of the chain, shape (points, points)."""
    count = len(chain.points)
    centres, exponents, heights = np.empty((count, count)), np.empty((count, count)), np.empty((count, count))
    for a in range(count):
        for b in range(count):
            mean = 0.5 * (chain.points[a] + chain.points[b])
            surprise = chain.points[b] - chain.points[a] - law.reversion * steps * (law.variance - mean)
            variance = (1.0 - law.leverage**2) * steps * mean
            centres[a, b] = 0.5 * steps * unit * (law.variance - mean) + law.leverage / law.vol_of_vol * surprise
            exponents[a, b] = -0.5 / variance
            heights[a, b] = chain.moves[a, b] * mean ** (-0.5 * (steps - 1)) / math.sqrt(2.0 * math.pi * variance)
    return centres, exponents, heights


@numba.njit(cache=True)
def filtered(
    sums: FloatArray,
    squares: FloatArray,
    opens: NDArray[np.bool_],
    steps: int,
    unit: float,
    law: Law,
    chain: Chain,
    levels: FloatArray,
) -> float:
    """Return the log-likelihood of the blocks and fill P(R ≤ observed | the past), where `levels` has room.

    `sums` are R less their mean, `squares` are Q, in units of `unit`; `opens` marks blocks after a gap, where v starts
    from its long run.
    """
    points, moves = chain.points, chain.moves
    centres, exponents, heights = _normals(law, chain, steps, unit)
    total, state, following = 0.0, chain.opening.copy(), np.empty(len(points))
    for t in range(len(sums)):
        if opens[t]:
            state[:] = chain.opening
        following[:] = 0.0
        # Taken out of every exponent: the decay of Q at the highest variance, or all of them would underflow.
        level, least = 0.0, 0.5 * squares[t] / points[-1]
        for a in range(len(points)):
            for b in range(len(points)):
                if state[a] * moves[a, b] < _NEGLIGIBLE:
                    continue
                distance = sums[t] - centres[a, b]
                exponent = exponents[a, b] * distance**2 - squares[t] / (points[a] + points[b]) + least
                following[b] += state[a] * heights[a, b] * math.exp(exponent)
                if len(levels):
                    tail = 0.5 * math.erfc(-distance * math.sqrt(-exponents[a, b]))
                    level += state[a] * moves[a, b] * tail
        mass = following.sum()
        if len(levels):
            levels[t] = level
        if mass > 0.0:
            total += math.log(mass) - least
            state[:] = following / mass
        else:  # no variance of the grid reaches so far: a floor, and the filter passes over the block
            total += _FLOOR
    return total


@numba.njit(cache=True)
def simulated(rng: np.random.Generator, steps: int, v: float, law: Law) -> tuple[FloatArray, float]:
    """Return log-returns from the variance `v` on by Andersen's scheme, and the variance after them."""
    kappa, theta, xi, rho = law
    fade = math.exp(-kappa)
    k1 = 0.5 * (kappa * rho / xi - 0.5) - rho / xi
    k2 = 0.5 * (kappa * rho / xi - 0.5) + rho / xi
    k3 = 0.5 * (1.0 - rho * rho)
    a = k2 + 0.5 * k3
    returns = np.empty(steps)
    for t in range(steps):
        mean = theta + (v - theta) * fade
        spread = v * xi**2 * fade * (1.0 - fade) / kappa + theta * xi**2 * (1.0 - fade) ** 2 / (2.0 * kappa)
        psi = spread / (mean * mean)
        of_variance, of_price = rng.standard_normal(), rng.standard_normal()
        if psi <= _SWITCH:
            b2 = 2.0 / psi - 1.0 + math.sqrt(2.0 / psi) * math.sqrt(max(2.0 / psi - 1.0, 0.0))
            scale = mean / (1.0 + b2)
            following = scale * (math.sqrt(b2) + of_variance) ** 2
            k0 = -a * b2 * scale / (1.0 - 2.0 * a * scale) + 0.5 * math.log(1.0 - 2.0 * a * scale)
        else:
            p = (psi - 1.0) / (psi + 1.0)
            beta = (1.0 - p) / mean
            uniform = 0.5 * math.erfc(-of_variance / math.sqrt(2.0))
            following = 0.0 if uniform <= p else math.log((1.0 - p) / max(1.0 - uniform, 1e-300)) / beta
            k0 = -math.log(p + beta * (1.0 - p) / (beta - a))
        k0 -= (k1 + 0.5 * k3) * v
        returns[t] = k0 + k1 * v + k2 * following + math.sqrt(k3 * (v + following)) * of_price
        v = following
    return returns, v


def reversion_of(returns: Returns) -> tuple[float, float]:
    """Return κ and the variance of v (in units of the squared mean) that the autocovariance of squares decays by."""
    squares = returns.values**2 / returns.scale**2 - 1.0
    best = (0.05, 0.5)
    for width in (4, 16, 64, 256):
        if 8 * width > len(squares):
            break
        lagged = [float(np.mean(squares[lag:] * squares[:-lag])) for lag in range(1, 2 * width + 1)]
        near, far = sum(lagged[:width]), sum(lagged[width:])
        if near > 0 and 0.02 * near < far < 0.9 * near:
            kappa = math.log(near / far) / width
            best = kappa, near / width * kappa * width / -math.expm1(-kappa * width)
    return best


@dataclass(frozen=True)
class Blocks:
    """Returns in blocks of `steps`, none over a gap, in units of their scale."""

    sums: FloatArray
    squares: FloatArray
    opens: NDArray[np.bool_]
    steps: int
    scale: float

    @classmethod
    def of(cls, returns: Returns, steps: int) -> Self:
        """Cut every stretch from its start; what is left over at its end is dropped."""
        sums, squares, opens = [], [], []
        for piece in returns.pieces():
            count = len(piece) // steps
            cut = (piece[: count * steps].reshape(count, steps) - returns.values.mean()) / returns.scale
            sums.append(cut.sum(axis=1))
            squares.append(((cut - cut.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
            opens.append(np.arange(count) == 0)
        return cls(np.concatenate(sums), np.concatenate(squares), np.concatenate(opens), steps, returns.scale)

    def log_likelihood(self, free: FloatArray, levels: FloatArray | None = None) -> float:
        """Return it at free parameters in units of the scale; fill `levels` where they are given."""
        law = Law(**values_of(free, _LINKS))
        chain, filled = chain_of(law, self.steps), np.empty(0) if levels is None else levels
        return float(filtered(self.sums, self.squares, self.opens, self.steps, self.scale, law, chain, filled))

    def climb(self, start: FloatArray, bounds: FloatArray) -> tuple[float, FloatArray]:
        """Return the mean log-likelihood and the free parameters that the search reaches."""
        inside = np.clip(start, bounds[:, 0] + 1e-3, bounds[:, 1] - 1e-3)
        return climb(lambda free: self.log_likelihood(free) / len(self.sums), inside, bounds, 100)


class Heston(PriceProcess):
    """Maximum likelihood on a grid of variances, Andersen's scheme. See the module's docstring."""

    Law = Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:  # noqa: ARG002
        """Climb from the moments of squared returns; again on longer blocks where the variance hardly moves in one."""
        latent = returns.latent()
        kappa, relative = reversion_of(latent)
        relative = min(max(relative, 0.05), 3.0)
        free = np.array([math.log(kappa), 0.0, math.log(2 * kappa * relative) / 2, 0.0])
        bounds = np.array(
            [free_of(dict(zip(_LINKS, side, strict=True)), _LINKS) for side in zip(*_BOUNDS.values(), strict=True)]
        ).T
        most = int(np.bincount(latent.stretch).max()) // _FEWEST_BLOCKS
        # Resting prices say little step by step: their blocks hold about eight moves.
        wanted = math.ceil(_MOVES / (1 - latent.resting)) if latent.resting > _MOST_RESTING else 1
        steps = max(1, min(max(wanted, math.ceil(len(latent) / _MOST_BLOCKS)), most))
        report(0.1, "climbing the likelihood")
        blocks = Blocks.of(latent, steps)
        best, free = blocks.climb(free, bounds)
        longer = min(math.ceil(2 * _MOVES_BY / math.exp(free[0])), most)
        if longer > steps and math.exp(free[0]) * steps < _MOVES_BY:
            report(0.5, "climbing the likelihood of longer blocks")
            blocks = Blocks.of(latent, longer)
            best, free = blocks.climb(free, bounds)
        if best <= -1e6:
            raise TrainingError("heston: the likelihood is no number; look for a spike among the prices")
        report(0.8, "standard errors")
        self._keep(blocks, free, covariance(blocks.log_likelihood, free, bounds))

    def _keep(self, blocks: Blocks, free: FloatArray, among: FloatArray) -> None:
        found = estimates_of(free, among, _LINKS)
        for name, unit in (("variance", blocks.scale**2), ("vol_of_vol", blocks.scale)):
            each = found[name]
            found[name] = Estimate(each.value * unit, each.error and each.error * unit, each.link)
        self.estimates = found
        likeliest = Law(**{name: estimate.value for name, estimate in found.items()})
        share = likeliest.variance / blocks.scale**2
        self.law = law = likeliest if share >= _LEAST else likeliest.scaled(1 / share)
        if share < _LEAST:
            self.notes.append(
                f"the likeliest variance is {share:.2g} times that of the data, as prices rest and jump: "
                "the law is scaled to make them agree"
            )
        levels = np.empty(len(blocks.sums))
        total = blocks.log_likelihood(free, levels)
        scores = special.ndtri(np.clip(levels, 1e-15, 1 - 1e-15))
        self.diagnostics = (
            criteria(total, len(_LINKS), len(levels))
            | {"block_steps": float(blocks.steps), "blocks": float(len(levels))}
            | {"feller_ratio": 2 * law.reversion * law.variance / law.vol_of_vol**2}
            | residual_tests(scores, np.cumsum(blocks.opens))
        )

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Simulate from the stationary law of the variance."""
        law: Law = self.law
        shape = 2 * law.reversion * law.variance / law.vol_of_vol**2
        variance = float(rng.standard_gamma(shape)) * law.variance / shape
        for count in counts:
            returns, variance = simulated(rng, count, variance, law)
            yield returns
