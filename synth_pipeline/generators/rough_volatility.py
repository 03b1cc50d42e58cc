"""Rough volatility: the logarithm of variance is a stationary Gaussian process whose paths are rougher than Brownian.

Over one step of the grid, with W a Brownian motion and time in steps,

    log S_{t+1} - log S_t = -V_t / 2 + √V_t (ρ (W_{t+1} - W_t) + √(1 - ρ²) ε_t),
    V_t = ξ exp(ν X_t - ν²/2),      X_t = ∫_{-∞}^t g(t - s) dW_s / ‖g‖,      g(x) = x^{H - 1/2} e^{-λ x}

(Gatheral, Jaisson and Rosenbaum 2018, Quant. Finance 18: log-volatility is a fractional process with H near 0.1;
Bayer, Friz and Gatheral 2016, Quant. Finance 16, for ρ). The gamma kernel g makes X stationary, so a path of any
length has one law: its autocorrelation is Matérn's, 2^{1-H}/Γ(H) (λh)^H K_H(λh) (Bennedsen, Lunde and Pakkanen 2022,
J. Financial Econometrics 20). exp(log S) is a martingale, because V_t is known before the return.

Simulation is the hybrid scheme (Bennedsen, Lunde and Pakkanen 2017, Finance Stoch. 21, section 2.3, κ = 1): the step
next to the kernel's singularity is exact, the others are cell averages, to where e^{-λx} has decayed to e^{-6}, and at
most 131,072 steps. What lies beyond holds the share Γ(2H, 2λx) / Γ(2H) of the variance of X, below 7e-5 unless λ is
below 4.6e-5; X has unit variance all the same, and starts from its stationary law.

Calibration. (H, λ, ν) by debiased Whittle likelihood (Sykulski, Olhede, Guillaumin, Lilly and Early 2019, Biometrika
106, eq. 7) of log realised variances over blocks of m steps; every stretch without a gap has its own periodogram. The
logarithm of a block's mean variance is taken as normal with the covariances of that mean (Fenton 1960), and the error
of measurement as that of a chi-squared block, ψ₁(m/2), times a third of the kurtosis of returns within blocks
(Barndorff-Nielsen and Shephard 2002, JRSS B 64). Standard errors allow for the fourth cumulant ψ₃(m/2) of that error,
which a Gaussian likelihood leaves out. ξ is the mean squared return. ρ is the covariance of a block's return with the
log variances of the five that follow, over what it is for ρ = 1. `hurst_by_scaling` is H as the slope of the
variogram of log realised variance, less its noise (Gatheral et al., section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from scipy import fft, linalg, special

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.generators.inference import (
    Estimate,
    climb,
    estimates_of,
    free_of,
    mean_error,
    residual_tests,
    values_of,
)
from synth_pipeline.generators.pieces import recut
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns
from synth_pipeline.series import FloatArray, IntArray

_MOST_BLOCKS, _FEWEST_BLOCKS, _SHORTEST, _SHORTEST_BLOCK = 4_000, 48, 32, 4
_MOVES, _MOST_RESTING = 16, 0.1
_LEADS = 5
_LONGEST_KERNEL, _DECAYED = 2**17, 6.0
_SUBSTEPS = 4
_LINKS = {"hurst": "share", "reversion": "positive", "vol_of_log": "positive"}
_BOUNDS = {"hurst": (0.01, 0.95), "reversion": (1e-3, 10.0), "vol_of_log": (0.01, 5.0)}


class Law(NamedTuple):
    """The parameters; times in steps of the grid."""

    hurst: float
    """[H]"""
    reversion: float
    """[λ]"""
    vol_of_log: float
    """[ν] Standard deviation of log variance."""
    variance: float
    """[ξ] Mean variance of a return."""
    leverage: float
    """[ρ]"""


def matern(lags: FloatArray, hurst: float, reversion: float) -> FloatArray:
    """Return the autocorrelation of X at lags ≥ 0."""
    x = np.maximum(reversion * lags, 1e-12)
    near = x < 600.0
    values = np.zeros_like(x)
    values[near] = 2 ** (1 - hurst) / special.gamma(hurst) * x[near] ** hurst * special.kv(hurst, x[near])
    return np.where(lags == 0, 1.0, values)


def kernel_of(hurst: float, reversion: float) -> tuple[FloatArray, float]:
    """Return the weights of ΔW one, two, … steps back, and ‖g‖, both of the hybrid scheme."""
    alpha = hurst - 0.5
    length = min(max(math.ceil(_DECAYED / reversion), 2), _LONGEST_KERNEL)
    edges = np.arange(length + 1.0) ** (alpha + 1)
    weights = np.diff(edges) / (alpha + 1) * np.exp(-reversion * (np.arange(length) + 0.5))
    first = math.exp(-reversion / 2)
    norm = math.sqrt(first**2 / (2 * alpha + 1) + float(weights[1:] @ weights[1:]))
    return weights, norm


@dataclass(frozen=True)
class LogVariances:
    """Log realised variances of blocks, a piece a stretch, less their mean; returns of the same blocks."""

    pieces: list[FloatArray]
    sums: list[FloatArray]
    steps: int
    noise: float
    """Variance of the error of measurement."""
    floored: int
    """Blocks without a move: they take the smallest realised variance there is."""

    @classmethod
    def of(cls, returns: Returns, steps: int) -> Self:
        """Cut every stretch from its start. Raises `TooLittleDataError` where no stretch has 32 blocks."""
        squares, sums, kurtoses, rests = [], [], [], []
        for piece in returns.pieces():
            count = len(piece) // steps
            if count >= _SHORTEST:
                cut = piece[: count * steps].reshape(count, steps) - returns.values.mean()
                squares.append((cut**2).sum(axis=1))
                kurtoses.append((steps + 2) * (cut**4).sum(axis=1) / np.maximum(squares[-1], 1e-300) ** 2)
                sums.append(cut.sum(axis=1))
                rests.append((piece[: count * steps].reshape(count, steps) == 0).all(axis=1))
        if not squares:
            raise TooLittleDataError(f"no stretch without a gap has {_SHORTEST * steps} returns: record for longer")
        every, rest = np.concatenate(squares), np.concatenate(rests)
        least = float(every[~rest].min())
        mean = float(np.mean(np.log(np.maximum(every, least))))
        logs = [np.log(np.maximum(piece, least)) - mean for piece in squares]
        noise = float(special.polygamma(1, steps / 2)) * max(float(np.mean(np.concatenate(kurtoses))) / 3, 0.5)
        return cls(logs, sums, steps, noise, int(rest.sum()))

    def whittle(self, free: FloatArray) -> float:
        """Return the debiased Whittle log-likelihood at free (H, λ per block, ν)."""
        return -sum(
            float(np.sum(np.log(expected) + periodogram / expected))
            for expected, periodogram in zip(self.expected(free), self._periodograms, strict=True)
        )

    def expected(self, free: FloatArray) -> list[FloatArray]:
        """Return the expected periodogram of every piece, at the Fourier frequencies of `_periodograms`."""
        covariances = self.autocovariance(max(map(len, self.pieces)), **values_of(free, _LINKS))
        found = []
        for piece in self.pieces:
            count = len(piece)
            tapered = (1 - np.arange(count) / count) * covariances[:count]
            spectrum = np.maximum(2 * fft.fft(tapered).real - covariances[0], 1e-12)
            found.append(spectrum[1 : (count - 1) // 2 + 1])
        return found

    def autocovariance(self, count: int, hurst: float, reversion: float, vol_of_log: float) -> FloatArray:
        """Return it at block lags 0 … count - 1: of the logarithm of a block's mean variance, plus noise."""
        parts = min(self.steps, _SUBSTEPS)
        fine = np.expm1(vol_of_log**2 * matern(np.arange(count * parts + parts) / parts, hurst, reversion))
        offsets = np.arange(1 - parts, parts)
        weights = (parts - np.abs(offsets)) / parts**2
        at = np.abs(np.arange(count)[:, np.newaxis] * parts + offsets)
        covariances = np.log1p(fine[at] @ weights)
        covariances[0] += self.noise
        return np.asarray(covariances)

    def covariance(self, free: FloatArray, bounds: FloatArray) -> FloatArray:
        """Return the covariance of the Whittle estimate; NaN for parameters at a bound."""
        inner = np.flatnonzero((free - bounds[:, 0] > 1e-2) & (bounds[:, 1] - free > 1e-2))
        information, scores = np.zeros((len(inner), len(inner))), np.zeros((len(inner), len(inner)))
        moves = 1e-4 * np.eye(len(free))[inner]
        sides = [(self.expected(free + move), self.expected(free - move)) for move in moves]
        for at, (piece, expected) in enumerate(zip(self.pieces, self.expected(free), strict=True)):
            slopes = np.array([np.log(up[at] / down[at]) / 2e-4 for up, down in sides])
            excess = slopes @ (1 / expected)
            information += slopes @ slopes.T
            scores += slopes @ slopes.T
            scores += float(special.polygamma(3, self.steps / 2)) / len(piece) * np.outer(excess, excess)
        whole = np.full((len(free), len(free)), np.nan)
        if len(inner) and np.linalg.eigvalsh(information)[0] > 0:
            inverse = np.linalg.inv(information)
            whole[np.ix_(inner, inner)] = inverse @ scores @ inverse
        return whole

    @cached_property
    def _periodograms(self) -> list[FloatArray]:
        """|DFT|² / length at the Fourier frequencies strictly between zero and Nyquist's."""
        return [np.abs(fft.rfft(piece)[1 : (len(piece) - 1) // 2 + 1]) ** 2 / len(piece) for piece in self.pieces]

    def hurst_by_scaling(self) -> float:
        """Return half the slope of the log variogram, less its noise, over up to 16 lags."""
        longest = max(self.pieces, key=len)
        lags = np.arange(1, min(16, len(longest) // 8) + 1)
        rises = np.array([np.mean((longest[lag:] - longest[:-lag]) ** 2) - 2 * self.noise for lag in lags])
        known = rises > 0
        if known.sum() < 3:
            return math.nan
        return float(np.polyfit(np.log(lags[known]), np.log(rises[known]), 1)[0]) / 2

    def leverage(self, law: Law) -> Estimate:
        """Return ρ with the standard error of the covariance that it is made of."""
        weights, norm = kernel_of(law.hurst, law.reversion)
        weights = np.concatenate((weights, np.zeros(max(0, (_LEADS + 2) * self.steps - len(weights))))) / norm
        offsets = np.arange(1 - self.steps, self.steps)
        shares = (self.steps - np.abs(offsets)) / self.steps
        known = sum(float(weights[lead * self.steps + offsets - 1] @ shares) for lead in range(1, _LEADS + 1))
        unit = math.sqrt(law.variance) * math.exp(-(law.vol_of_log**2) / 8) * law.vol_of_log * known
        products = [
            sums[:-_LEADS] * sum(logs[lead : len(logs) - _LEADS + lead] for lead in range(1, _LEADS + 1))
            for logs, sums in zip(self.pieces, self.sums, strict=True)
        ]
        every = np.concatenate(products) / unit
        value = float(np.clip(every.mean(), -0.95, 0.95))
        return Estimate(value, mean_error(every), "correlation")


class RoughVolatility(PriceProcess):
    """Debiased Whittle likelihood of log realised variance, hybrid scheme. See the module's docstring."""

    Law = Law

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:  # noqa: ARG002
        """Search from three roughnesses, then take moments for the level and the leverage."""
        latent = returns.latent()
        longest = int(np.bincount(latent.stretch).max())
        wanted = math.ceil(_MOVES / (1 - latent.resting)) if latent.resting > _MOST_RESTING else _SHORTEST_BLOCK
        steps = max(1, min(max(wanted, math.ceil(len(latent) / _MOST_BLOCKS)), longest // _FEWEST_BLOCKS))
        blocks = LogVariances.of(latent, steps)
        if blocks.floored:
            self.notes.append(
                f"{blocks.floored} of {sum(map(len, blocks.pieces))} blocks of {steps} steps are without a move: "
                "their realised variance is set to the least of the others"
            )
        bounds = np.array(
            [free_of(dict(zip(_LINKS, side, strict=True)), _LINKS) for side in zip(*_BOUNDS.values(), strict=True)]
        ).T
        count = sum(map(len, blocks.pieces))
        spread = float(np.var(np.concatenate(blocks.pieces)))
        signal = math.sqrt(max(spread - blocks.noise, 0.1 * spread))
        found = []
        for at, hurst in enumerate((0.1, 0.3, 0.6)):
            report(at / 4, "climbing the Whittle likelihood")
            start = free_of(dict(zip(_LINKS, (hurst, 0.05, signal), strict=True)), _LINKS)
            found.append(climb(lambda free: blocks.whittle(free) / count, start, bounds, 100))
        best, free = max(found, key=lambda pair: pair[0])
        report(0.8, "standard errors")
        estimates = estimates_of(free, blocks.covariance(free, bounds), _LINKS)
        self._keep(blocks, free, estimates, latent.scale**2, best * count)

    def _keep(
        self, blocks: LogVariances, free: FloatArray, found: dict[str, Estimate], variance: float, total: float
    ) -> None:
        each = found["reversion"]
        found["reversion"] = Estimate(each.value / blocks.steps, each.error and each.error / blocks.steps)
        law = Law(found["hurst"].value, found["reversion"].value, found["vol_of_log"].value, variance, 0.0)
        found["variance"] = Estimate(variance, _level_error(law, sum(map(len, blocks.pieces)) * blocks.steps))
        found["leverage"] = blocks.leverage(law)
        self.law, self.estimates = law._replace(leverage=found["leverage"].value), found
        scaling = blocks.hurst_by_scaling()
        self.diagnostics = (
            {"whittle_log_likelihood": total, "noise": blocks.noise}
            | {"block_steps": float(blocks.steps), "blocks": float(sum(map(len, blocks.pieces)))}
            | ({"hurst_by_scaling": scaling} if math.isfinite(scaling) else {})
            | residual_tests(*_innovations(blocks, values_of(free, _LINKS)))
        )

    @cached_property
    def _kernel(self) -> tuple[FloatArray, float]:
        return kernel_of(self.law.hurst, self.law.reversion)

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Cut what `_blocks` makes."""
        return recut(self._blocks(rng), counts)

    def _blocks(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Convolve the kernel with normals by overlap-save, in blocks of a fixed length, without end."""
        law: Law = self.law
        weights, norm = self._kernel
        length = 2 ** math.ceil(math.log2(max(len(weights), 512)))
        alpha = law.hurst - 0.5
        share = 1 / (alpha + 1)
        left = math.sqrt(max(1 / (2 * alpha + 1) - share**2, 0.0))
        response = fft.rfft(np.concatenate(([0.0], weights[1:], np.zeros(2 * length - len(weights)))))
        history = rng.standard_normal(length)
        while True:
            noise = rng.standard_normal((length, 3))
            # W_{t+1} - W_t drives the return of step t; V_t has seen what came before.
            past = np.concatenate((history, noise[:, 0]))
            far = fft.irfft(fft.rfft(past, 2 * length) * response, 2 * length)[length - 1 : 2 * length - 1]
            near = math.exp(-law.reversion / 2) * (share * past[length - 1 : -1] + left * noise[:, 1])
            variances = law.variance * np.exp(law.vol_of_log * (far + near) / norm - law.vol_of_log**2 / 2)
            shocks = law.leverage * noise[:, 0] + math.sqrt(1 - law.leverage**2) * noise[:, 2]
            yield np.sqrt(variances) * shocks - variances / 2
            history = noise[:, 0]


def _level_error(law: Law, count: int) -> float:
    """Return the standard error of a mean squared return: squares of normals times log-normal variances."""
    lags = np.arange(1, count)
    dependence = np.expm1(law.vol_of_log**2 * matern(lags.astype(np.float64), law.hurst, law.reversion))
    own = 3 * math.exp(law.vol_of_log**2) - 1
    return law.variance * math.sqrt((own + 2 * float((1 - lags / count) @ dependence)) / count)


def _innovations(blocks: LogVariances, values: dict[str, float]) -> tuple[FloatArray, IntArray]:
    """Return standardised one-block-ahead errors of log realised variance, and the number of their stretch."""
    order = min(50, min(map(len, blocks.pieces)) // 2)
    covariances = blocks.autocovariance(order + 1, **values)
    weights = linalg.solve_toeplitz(covariances[:-1], covariances[1:])
    spread = math.sqrt(max(covariances[0] - float(weights @ covariances[1:]), 1e-12))
    errors = [
        (piece[order:] - np.convolve(piece, weights, mode="valid")[: len(piece) - order]) / spread
        for piece in blocks.pieces
    ]
    return np.concatenate(errors), np.repeat(np.arange(len(errors)), list(map(len, errors)))
