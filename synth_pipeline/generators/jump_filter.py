"""Kernels of the self-exciting jump diffusion: its filter, its conditional distribution, its simulation.

What belongs here: arrays and a `Law` in, arrays out; the model is written out in `self_exciting_jump_diffusion`.

N_t and λ_t are not observed. Given the past, λ_t is taken as Gamma with the mean and variance that an assumed-density
filter keeps: N_t is then negative binomial, λ_t given N_t is Gamma again, and the two moments of λ_{t+1} follow in
closed form. The density of a return is a mixture over N_t = k and the number j of large jumps among them: a normal
without a large jump; with one, the convolution of a normal with a half-normal up or down, which is skew normal
(Azzalini 1985, Scand. J. Statist. 12); with more, the normal of their variance ρ₊ ρ₋ δ² each, as such steps are rare.
As prices are rounded to a grid of step h, each normal is averaged over the triangular error of the difference of two
rounded prices.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import special

from synth_pipeline.series import FloatArray

_MOST_JUMPS, _MOST_LARGE = 40, 10
_NEGLIGIBLE = 1e-8
_FLOOR = -700.0
_FINEST, _SPACING, _MARGIN = 0.05, 0.03, 20


class Law(NamedTuple):
    """The parameters, per step of the grid; names in brackets are the symbols of the generator's docstring."""

    diffusion: float
    """[σ] Standard deviation of the diffusion."""
    mean_intensity: float
    """[μ / (1 - n)] Jumps a step in the long run."""
    branching_ratio: float
    """[n] Jumps that one jump excites in the long run."""
    decay: float
    """[β] Rate at which excitation fades."""
    jump: float
    """[δ] Standard deviation of a small jump."""
    up_ratio: float
    """[ρ₊] Scale of large jumps up, over that of small jumps."""
    down_ratio: float
    """[ρ₋] The same of large jumps down."""
    large_share: float
    """[q] Share of jumps that are large."""
    large_excitation: float
    """[κ] How many times more a large jump excites."""


@numba.njit(cache=True)
def memory(law: Law) -> tuple[float, float, float]:
    """Return e^{-β}, α and the variance of the intensity in the long run."""
    fade = math.exp(-law.decay)
    extra, share = law.large_excitation - 1.0, law.large_share
    alpha = law.branching_ratio * (1.0 - fade) / (1.0 + extra * share)
    persistence = fade + law.branching_ratio * (1.0 - fade)
    squared_mark = 1.0 + (2.0 * extra + extra * extra) * share
    return fade, alpha, alpha * alpha * squared_mark * law.mean_intensity / (1.0 - persistence * persistence)


@numba.njit(cache=True)
def base_after(base: float, factor: float, following: float, law: Law) -> float:
    """Return the base intensity of the next step: that with which the *mean* intensity has these factors of the day.

    Excitation carries the activity of one hour into the next, so the base must vary more than its mean does.
    """
    fade = math.exp(-law.decay)
    kept = fade + law.branching_ratio * (1.0 - fade)
    return max(fade * base + law.mean_intensity * (following - kept * factor), 1e-6 * law.mean_intensity)


@numba.njit(cache=True)
def large_jumps(law: Law) -> tuple[float, float, float]:
    """Return the scales of large jumps up and down and the share that goes up: that which makes their mean zero."""
    up, down = law.jump * law.up_ratio, law.jump * law.down_ratio
    return up, down, down / (up + down)


@numba.njit(cache=True)
def jump_growth(law: Law) -> float:
    """Return E[e^J - 1]."""
    up, down, share = large_jumps(law)
    above, below = math.erf(up / math.sqrt(2.0)), math.erf(down / math.sqrt(2.0))
    grown = share * math.expm1(up * up / 2.0) * (1.0 + above)
    grown += (1.0 - share) * math.expm1(down * down / 2.0) * (1.0 - below)
    grown += share * above - (1.0 - share) * below
    return (1.0 - law.large_share) * math.expm1(law.jump**2 / 2.0) + law.large_share * grown


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
def skewed_density(move: float, variance: float, scale: float) -> float:
    """Return the density of N(0, variance) + |N(0, scale²)|."""
    whole = variance + scale * scale
    tilt = move * scale / math.sqrt(2.0 * variance * whole)
    return math.exp(-0.5 * move * move / whole) / math.sqrt(2.0 * math.pi * whole) * math.erfc(-tilt)


@numba.njit(cache=True)
def _weights(law: Law) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return P(j large | k jumps), and the last j that matters for each k."""
    weights = np.zeros((_MOST_JUMPS + 1, _MOST_LARGE + 1))
    tops = np.zeros(_MOST_JUMPS + 1, dtype=np.int64)
    odds = law.large_share / (1.0 - law.large_share)
    for k in range(_MOST_JUMPS + 1):
        weight = (1.0 - law.large_share) ** k
        for j in range(min(k, _MOST_LARGE) + 1):
            weights[k, j], tops[k] = weight, j
            weight *= (k - j) / (j + 1.0) * odds
            if weight < _NEGLIGIBLE:
                break
    return weights, tops


class Mixture(NamedTuple):
    """The normals whose weighted sum is the density of a move, shape (jumps, large jumps)."""

    heights: FloatArray
    exponents: FloatArray
    tilts: FloatArray
    """Of the skewed ones, shape (jumps, 2): one large jump up is [k, 1], one down `[k, _MOST_LARGE + 1]`."""
    narrowest: FloatArray
    """Standard deviation of k small jumps."""
    tops: NDArray[np.int64]
    """The last count of large jumps that matters for each k."""


@numba.njit(cache=True)
def _mixture(law: Law, resolution: float) -> Mixture:
    weights, tops = _weights(law)
    shape = (_MOST_JUMPS + 1, _MOST_LARGE + 2)
    variances, heights, tilts = np.ones(shape), np.zeros(shape), np.zeros((_MOST_JUMPS + 1, 2))
    up, down, share = large_jumps(law)
    scales = (up, down)
    for k in range(_MOST_JUMPS + 1):
        for j in range(min(k, _MOST_LARGE) + 1):
            variances[k, j] = law.diffusion**2 + (k - j) * law.jump**2 + resolution * resolution / 6.0
            heights[k, j] = weights[k, j]
            if j >= 2:
                variances[k, j] += j * up * down
        if k >= 1:
            around = variances[k, 1]
            for side in range(2):
                tilts[k, side] = scales[side] / math.sqrt(2.0 * around * (around + scales[side] ** 2))
            variances[k, 1], variances[k, -1] = around + scales[0] ** 2, around + scales[1] ** 2
            heights[k, 1], heights[k, -1] = weights[k, 1] * share, weights[k, 1] * (1.0 - share)
    heights = heights / np.sqrt(2.0 * np.pi * variances)
    return Mixture(heights, -0.5 / variances, tilts, np.sqrt(variances[:, 0]), tops)


@numba.njit(cache=True)
def _small(move: float, k: int, law: Law, mixture: Mixture, resolution: float) -> float:
    """Return the density of a move of k small jumps times their probability given k jumps."""
    density = mixture.heights[k, 0] * math.exp(move * move * mixture.exponents[k, 0])
    if mixture.narrowest[k] < 2.1 * resolution:
        spread = math.sqrt(law.diffusion**2 + k * law.jump**2)
        density = (1.0 - law.large_share) ** k * rounded_density(move, spread, resolution)
    return float(density)


@numba.njit(cache=True)
def _large(move: float, k: int, mixture: Mixture) -> tuple[float, float, float]:
    """Return the density of a move of k jumps with some large ones, and its first two moments of how many."""
    heights, exponents, square = mixture.heights, mixture.exponents, move * move
    p, pj, pjj = 0.0, 0.0, 0.0
    for j in range(1, mixture.tops[k] + 1):
        joint = heights[k, j] * math.exp(square * exponents[k, j])
        if j == 1:
            joint *= math.erfc(-move * mixture.tilts[k, 0])
            falling = heights[k, -1] * math.exp(square * exponents[k, -1])
            joint += falling * math.erfc(move * mixture.tilts[k, 1])
        p += joint
        pj += joint * j
        pjj += joint * j * j
    return p, pj, pjj


@numba.njit(cache=True)
def _fill(row: FloatArray, move: float, k: int, law: Law, mixture: Mixture, resolution: float) -> None:
    """Set what is smooth of the mixture at a move: the density of k jumps, and two moments of how many are large.

    The densities of no jump, and of small jumps that are narrow beside the price grid, are not in it.
    """
    p, pj, pjj = _large(move, k, mixture)
    if _is_smooth(k, mixture, resolution):
        p += _small(move, k, law, mixture, resolution)
    row[0], row[1], row[2] = p, pj, pjj


@numba.njit(cache=True)
def _is_smooth(k: int, mixture: Mixture, resolution: float) -> bool:
    return k > 0 and mixture.narrowest[k] >= 2.1 * resolution


@numba.njit(cache=True)
def filtered(
    returns: FloatArray,
    opens: NDArray[np.bool_],
    profile: FloatArray,
    resolution: float,
    law: Law,
    means: FloatArray,
    variances: FloatArray,
) -> float:
    """Return the log-likelihood and fill the mean and variance of every λ_t given the past.

    `opens` marks the first return after a gap, where the filter restarts from the long run; `profile` is the factor on
    the mean intensity at each step. The smooth densities are interpolated by a cubic between those of a few hundred
    moves, `unit` · sinh(node · `_SPACING`), each evaluated once: over thousands of returns that costs a tenth. A move
    that no mixture of the law reaches counts with the floor e^-700 and excites nothing, so that one bad print does not
    undo a fit.
    """
    fade, alpha, long_variance = memory(law)
    growth, base = jump_growth(law), 0.0
    mixture = _mixture(law, resolution)
    unit = _FINEST * math.sqrt(np.mean(returns * returns))
    first = math.floor(math.asinh(returns.min() / unit) / _SPACING) - _MARGIN
    count = math.ceil(math.asinh(returns.max() / unit) / _SPACING) + _MARGIN - first
    table, filled = np.empty((count, _MOST_JUMPS + 1, 3)), np.zeros(count, dtype=np.int64)
    smooth = np.array([_is_smooth(k, mixture, resolution) for k in range(_MOST_JUMPS + 1)])
    inverses = 1.0 / np.arange(1.0, _MOST_JUMPS + 2.0)
    extra, total, mean, variance = law.large_excitation - 1.0, 0.0, 0.0, 0.0
    for t in range(len(returns)):
        if opens[t]:
            mean, variance = law.mean_intensity * profile[t], long_variance * profile[t]
            base = mean * (1.0 - law.branching_ratio)
        variance = max(variance, 1e-8 * mean * mean)
        means[t], variances[t] = mean, variance
        shape, rate = mean * mean / variance, mean / variance
        move = returns[t] + 0.5 * law.diffusion**2 + mean * growth
        place = min(max(math.asinh(move / unit) / _SPACING - first, 1.0), count - 2.001)
        node = int(place)
        w = place - node
        # Lagrange's cubic through the four nodes around.
        w0, w1 = -w * (w - 1.0) * (w - 2.0) / 6.0, (w + 1.0) * (w - 1.0) * (w - 2.0) / 2.0
        w2, w3 = -(w + 1.0) * w * (w - 2.0) / 2.0, (w + 1.0) * w * (w - 1.0) / 6.0
        a, b, c, d = table[node - 1], table[node], table[node + 1], table[node + 2]
        prior = math.exp(-shape * math.log1p(1.0 / rate))
        fewer = 1.0 / (rate + 1.0)
        mass, p, pk, pkk, pm, pmm, pkm = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        ready = filled[node - 1 : node + 3].min()
        for k in range(_MOST_JUMPS + 1):
            if k >= ready:
                for at in range(node - 1, node + 3):
                    if filled[at] == k:
                        _fill(table[at, k], unit * math.sinh((first + at) * _SPACING), k, law, mixture, resolution)
                        filled[at] = k + 1
            pj = w0 * a[k, 0] + w1 * b[k, 0] + w2 * c[k, 0] + w3 * d[k, 0]
            pjj = w0 * a[k, 1] + w1 * b[k, 1] + w2 * c[k, 1] + w3 * d[k, 1]
            pkj = w0 * a[k, 2] + w1 * b[k, 2] + w2 * c[k, 2] + w3 * d[k, 2]
            if not smooth[k]:
                pj += _small(move, k, law, mixture, resolution)
            pj, pjj, pkj = prior * pj, prior * pjj, prior * pkj
            mark = k * pj + extra * pjj
            p += pj
            pk += pj * k
            pkk += pj * k * k
            pm += mark
            pmm += k * (mark + extra * pjj) + extra * extra * pkj
            pkm += mark * k
            mass += prior
            # What is left out can add no more than about the height of the narrowest normal that remains.
            if k >= 4 and (1.0 - mass) < _NEGLIGIBLE * p * mixture.narrowest[k]:
                break
            prior *= (shape + k) * fewer * inverses[k]
        base_now = base
        base = base_after(base, profile[t], profile[min(t + 1, len(returns) - 1)], law)
        if not p > 0.0:  # no mixture of these reaches so far: a floor, and the filter passes over the move
            total += _FLOOR
            continue
        total += math.log(p)
        expected, marks = pk / p, pm / p
        spread = max(pkk / p - expected * expected, 0.0)
        now = (shape + expected) / (rate + 1.0)
        now_variance = (now + spread / (rate + 1.0)) / (rate + 1.0)
        shared = (pkm / p - expected * marks) / (rate + 1.0)
        mean = base + fade * max(now - base_now, 0.0) + alpha * marks
        variance = fade**2 * now_variance + alpha**2 * max(pmm / p - marks * marks, 0.0) + 2.0 * fade * alpha * shared
    return total


def distribution(moves: FloatArray, law: Law, means: FloatArray, variances: FloatArray) -> FloatArray:
    """Return P(latent return of step t ≤ moves[t] | the past), for moments of λ_t that `filtered` filled."""
    shape, rate = means**2 / variances, means / variances
    move = moves + 0.5 * law.diffusion**2 + means * jump_growth(law)
    up, down, share = large_jumps(law)
    weights, tops = _weights(law)
    prior = np.exp(-shape * np.log1p(1.0 / rate))
    levels, mass = np.zeros(len(moves)), np.zeros(len(moves))
    for k in range(_MOST_JUMPS + 1):
        level = weights[k, 0] * special.ndtr(move / math.sqrt(law.diffusion**2 + k * law.jump**2))
        for j in range(1, tops[k] + 1):
            around = law.diffusion**2 + (k - j) * law.jump**2
            if j == 1:
                level += weights[k, 1] * share * _skewed_level(move, around, up)
                level += weights[k, 1] * (1.0 - share) * (1.0 - _skewed_level(-move, around, down))
            else:
                level += weights[k, j] * special.ndtr(move / math.sqrt(around + j * up * down))
        levels += prior * level
        mass += prior
        if 1.0 - mass.min() < _NEGLIGIBLE:
            break
        prior = prior * (shape + k) / ((k + 1.0) * (rate + 1.0))
    return np.asarray(levels / mass)


def _skewed_level(moves: FloatArray, variance: float, scale: float) -> FloatArray:
    """Return the distribution function of N(0, variance) + |N(0, scale²)|, by Owen's T function."""
    scores = moves / math.sqrt(variance + scale * scale)
    return np.asarray(special.ndtr(scores) - 2.0 * special.owens_t(scores, scale / math.sqrt(variance)))


@numba.njit(cache=True)
def opening(rng: np.random.Generator, factor: float, burn_in: int, law: Law) -> tuple[float, float]:
    """Return intensity and base after `burn_in` steps from the mean intensity at one factor of the day."""
    fade, alpha, _ = memory(law)
    intensity = law.mean_intensity * factor
    base = intensity * (1.0 - law.branching_ratio)
    for _ in range(burn_in):
        small = rng.poisson((1.0 - law.large_share) * intensity)
        large = rng.poisson(law.large_share * intensity)
        intensity = base + fade * max(intensity - base, 0.0) + alpha * (small + law.large_excitation * large)
    return intensity, base


@numba.njit(cache=True)
def simulated(
    rng: np.random.Generator, profile: FloatArray, state: tuple[float, float], law: Law
) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """Return log-returns, intensities, and the state that goes on from there.

    `profile` has the factor of every step and of the one after, `state` intensity and base of the first step.
    """
    fade, alpha, _ = memory(law)
    growth = jump_growth(law)
    up, down, share = large_jumps(law)
    steps = len(profile) - 1
    returns, intensities = np.empty(steps), np.empty(steps)
    intensity, base = state
    for t in range(steps):
        small = rng.poisson((1.0 - law.large_share) * intensity)
        large = rng.poisson(law.large_share * intensity)
        spread = math.sqrt(law.diffusion**2 + law.jump**2 * small)
        move = spread * rng.standard_normal() - 0.5 * law.diffusion**2 - intensity * growth
        for _ in range(large):
            size = abs(rng.standard_normal())
            move += up * size if rng.random() < share else -down * size
        returns[t], intensities[t] = move, intensity
        excited = fade * max(intensity - base, 0.0) + alpha * (small + law.large_excitation * large)
        base = base_after(base, profile[t], profile[t + 1], law)
        intensity = base + excited
    return returns, intensities, (intensity, base)
