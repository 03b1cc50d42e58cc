"""Slow, obvious twins of the generators' kernels, an exact filter beside the approximate one, a market to fit on."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from synth_pipeline.features.transforms import on_grid
from synth_pipeline.generators.self_exciting_jump_diffusion import Law, simulated
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series

MARKET = Law(
    diffusion=3e-8,
    mean_intensity=0.5,
    branching_ratio=0.5,
    decay=0.5,
    jump=9e-5,
    large_ratio=4.0,
    large_share=0.03,
    large_excitation=3.0,
)
"""Half seconds of a liquid perpetual, roughly: three in five without a move, jumps of many ticks in clusters."""


def market(steps: int, *, seed: int = 0, price: float = 60_000.0, tick: float = 0.1, lot: float = 0.001) -> Series:
    """Return mid, spread, volume and imbalance in which flow leads price and volume goes with the size of moves."""
    rng = stream(seed, "market")
    moves, _ = simulated(rng, steps, 500, MARKET)
    pressure = np.zeros(steps)
    for t in range(1, steps):
        pressure[t] = 0.7 * pressure[t - 1] + rng.standard_normal()
    signs = np.where(rng.random(steps) < 1 / (1 + np.exp(-0.8 * np.roll(pressure, 1))), 1.0, -1.0)
    ticks = np.where(rng.random(steps) < 0.05, 1 + rng.poisson(2.0, steps), 1).astype(float)
    bid = np.maximum(np.rint(price * np.exp(np.cumsum(np.abs(moves) * signs)) / tick), 1.0)
    lots = np.rint(np.exp(5 + 1.5 * rng.standard_normal(steps)) * (1 + np.abs(moves) / 5e-5)) * (
        rng.random(steps) < 0.95
    )
    columns = (on_grid(2 * bid + ticks, tick / 2), on_grid(ticks, tick), on_grid(lots, lot), np.tanh(pressure))
    names = ("mid", "spread", "volume", "imbalance_1")
    return Series(np.stack(columns, axis=1)[np.newaxis], names, 500_000_000, np.array([10**18]), tick, lot)


def rounded_walk(returns: FloatArray, spreads: FloatArray, start: float) -> FloatArray:
    """The price path again: of all allowed prices, the one nearest to where the return points."""
    paths = []
    for row, widths in zip(returns, spreads, strict=True):
        price, path = int(start), []
        for move, width in zip(row, widths.astype(int), strict=True):
            target = price * math.exp(move)
            near = range(max(1, int(target) - 4), int(target) + width + 6)
            allowed = [units for units in near if width == 0 or (units >= width + 2 and (units - width) % 2 == 0)]
            price = min(allowed, key=lambda units: abs(units - target))
            path.append(price)
        paths.append(path)
    return np.array(paths, dtype=float)


def _constants(law: Law) -> tuple[float, float, float, float]:
    """Return e^{-β}, α, μ and E[e^J - 1]."""
    fade = math.exp(-law.decay)
    mean_mark = 1 + (law.large_excitation - 1) * law.large_share
    growth = (1 - law.large_share) * math.exp(law.jump**2 / 2)
    growth += law.large_share * math.exp((law.jump * law.large_ratio) ** 2 / 2) - 1
    alpha = law.branching_ratio * (1 - fade) / mean_mark
    return fade, alpha, law.mean_intensity * (1 - law.branching_ratio), growth


def simulated_slowly(rng: np.random.Generator, steps: int, burn_in: int, law: Law) -> tuple[FloatArray, FloatArray]:
    """The simulation again, in plain Python."""
    fade, alpha, base, growth = _constants(law)
    intensity, returns, intensities = law.mean_intensity, [], []
    for t in range(burn_in + steps):
        small = rng.poisson(intensity * (1 - law.large_share))
        large = rng.poisson(intensity * law.large_share)
        if t >= burn_in:
            variance = law.diffusion**2 + small * law.jump**2 + large * (law.jump * law.large_ratio) ** 2
            move = math.sqrt(variance) * rng.standard_normal()
            returns.append(move - law.diffusion**2 / 2 - intensity * growth)
            intensities.append(intensity)
        intensity = base + fade * (intensity - base) + alpha * (small + law.large_excitation * large)
    return np.array(returns), np.array(intensities)


def counts(most: int) -> list[tuple[int, int]]:
    """Return every (jumps, large jumps) up to `most` jumps."""
    return [(k, j) for k in range(most + 1) for j in range(k + 1)]


def filtered_slowly(returns: FloatArray, opens: np.ndarray, law: Law) -> tuple[float, FloatArray]:
    """The filter again without a price grid: moments by the law of total variance, one count after the other."""
    fade, alpha, base, growth = _constants(law)
    mark_square = 1 + (law.large_excitation**2 - 1) * law.large_share
    long_variance = alpha**2 * mark_square * law.mean_intensity
    long_variance /= 1 - (fade + law.branching_ratio * (1 - fade)) ** 2
    total, means = 0.0, []
    mean = variance = math.nan
    for observed, is_open in zip(returns, opens, strict=True):
        if is_open:
            mean, variance = law.mean_intensity, long_variance
        means.append(mean)
        shape, rate = mean**2 / variance, mean / variance
        weights, centres, widths = [], [], []
        jumps = stats.nbinom.pmf(np.arange(31), shape, rate / (rate + 1))
        for k, j in counts(30):
            prior = jumps[k] * math.comb(k, j) * law.large_share**j * (1 - law.large_share) ** (k - j)
            spread = math.sqrt(law.diffusion**2 + law.jump**2 * (k - j + j * law.large_ratio**2))
            move = observed + law.diffusion**2 / 2 + mean * growth
            weights.append(prior * math.exp(-0.5 * (move / spread) ** 2) / spread / math.sqrt(2 * math.pi))
            marks = k - j + law.large_excitation * j
            centres.append(base + fade * ((shape + k) / (rate + 1) - base) + alpha * marks)
            widths.append(fade**2 * (shape + k) / (rate + 1) ** 2)
        posterior = np.array(weights) / sum(weights)
        total += math.log(sum(weights))
        mean = float(posterior @ np.array(centres))
        variance = float(posterior @ (np.array(widths) + (np.array(centres) - mean) ** 2))
    return total, np.array(means)


def exact_log_likelihood(returns: FloatArray, law: Law, *, points: int = 300, highest: float = 12.0) -> float:
    """Return the log-likelihood without the Gamma assumption: the law of the intensity on a fine grid of values."""
    fade, alpha, base, growth = _constants(law)
    grid = base + (highest - base) * np.linspace(0, 1, points) ** 2
    drawn = simulated(stream(0, "long run"), 200_000, 2_000, law)[1]
    edges = np.concatenate(([-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]))
    opening = np.histogram(drawn, edges)[0] / len(drawn)
    steps = []
    for k, j in counts(14):
        following = base + fade * (grid - base) + alpha * (k - j + law.large_excitation * j)
        at = np.clip(np.searchsorted(grid, following) - 1, 0, points - 2)
        share = np.clip((following - grid[at]) / (grid[at + 1] - grid[at]), 0, 1)
        prior = stats.poisson.pmf(k, grid) * stats.binom.pmf(j, k, law.large_share)
        spread = math.sqrt(law.diffusion**2 + law.jump**2 * (k - j + j * law.large_ratio**2))
        steps.append((prior, spread, at, share))
    total, known = 0.0, opening
    for observed in returns:
        moves = observed + law.diffusion**2 / 2 + grid * growth
        after = np.zeros(points)
        for prior, spread, at, share in steps:
            joint = known * prior * np.exp(-0.5 * (moves / spread) ** 2) / spread / math.sqrt(2 * math.pi)
            np.add.at(after, at, joint * (1 - share))
            np.add.at(after, at + 1, joint * share)
        total += math.log(after.sum())
        known = after / after.sum()
    return total
