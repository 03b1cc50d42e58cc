"""Slow, obvious twins of the generators' kernels, an exact filter beside the approximate one, a market to fit on."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
from scipy import stats

from synth_pipeline.features.transforms import on_grid
from synth_pipeline.generators import conditional_variance, heston, jump_filter
from synth_pipeline.generators.companions import Companions
from synth_pipeline.generators.hidden_markov import Chain, stationary
from synth_pipeline.generators.jump_filter import Law
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series


def _moves(rng: np.random.Generator, steps: int, burn_in: int) -> FloatArray:
    """Half seconds of a liquid perpetual, roughly: three in five without a move, jumps of many ticks in clusters."""
    fade, base, intensity, moves = math.exp(-0.5), 0.25, 0.5, []
    alpha = 0.5 * (1 - fade) / 1.06
    for t in range(-burn_in, steps):
        small, large = rng.poisson(0.97 * intensity), rng.poisson(0.03 * intensity)
        if t >= 0:
            moves.append(9e-5 * math.sqrt(small + 16 * large) * rng.standard_normal())
        intensity = base + fade * (intensity - base) + alpha * (small + 3 * large)
    return np.array(moves)


def market(steps: int, *, seed: int = 0, price: float = 60_000.0, tick: float = 0.1, lot: float = 0.001) -> Series:
    """Return mid, spread, volume and imbalance in which flow leads price and volume goes with the size of moves."""
    rng = stream(seed, "market")
    moves = _moves(rng, steps, 500)
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


def rounded_walk(
    returns: FloatArray, spreads: FloatArray, start: float, *, held: bool
) -> tuple[FloatArray, FloatArray]:
    """The price path again: of all allowed prices, the one nearest to where the return points.

    A move of fewer half ticks than the spread has ticks is kept, and the spread is the nearest that allows it. Where
    spreads are held, a step without a move repeats the one before.
    """
    paths, placed = [], []
    for row, widths in zip(returns, spreads, strict=True):
        price, before, path, found = int(start), int(widths[0]), [], []
        for move, width in zip(row, widths.astype(int), strict=True):
            target = price * math.exp(move)
            near = range(max(1, int(target) - 4), int(target) + width + 6)
            wanted = min(near, key=lambda units: abs(units - target))
            if width and abs(wanted - price) < width and (wanted - width) % 2:
                other = width + 1 if before > width else width - 1
                width = other if wanted >= other + 2 else width
            allowed = [units for units in near if width == 0 or (units >= width + 2 and (units - width) % 2 == 0)]
            rested, price = price, min(allowed, key=lambda units: abs(units - target))
            before = before if held and price == rested else width
            path.append(price)
            found.append(before)
        paths.append(path)
        placed.append(found)
    return np.array(paths, dtype=float), np.array(placed, dtype=float)


def _constants(law: Law) -> tuple[float, float, float, float]:
    """Return e^{-β}, α, μ and E[e^J - 1]."""
    fade = math.exp(-law.decay)
    mean_mark = 1 + (law.large_excitation - 1) * law.large_share
    up, down, share = _large(law)
    grown = share * 2 * math.exp(up**2 / 2) * stats.norm.cdf(up)
    grown += (1 - share) * 2 * math.exp(down**2 / 2) * stats.norm.cdf(-down)
    growth = (1 - law.large_share) * math.exp(law.jump**2 / 2) + law.large_share * grown - 1
    alpha = law.branching_ratio * (1 - fade) / mean_mark
    return fade, alpha, law.mean_intensity * (1 - law.branching_ratio), float(growth)


def _large(law: Law) -> tuple[float, float, float]:
    """Return scales of large jumps up and down, and the share that goes up."""
    up, down = law.up_ratio * law.jump, law.down_ratio * law.jump
    return up, down, down / (up + down)


def jumps(rng: np.random.Generator, profile: FloatArray, burn_in: int, law: Law) -> tuple[FloatArray, FloatArray]:
    """Log-returns and intensities of one path of the kernels."""
    state = jump_filter.opening(rng, float(profile[0]), burn_in, law)
    returns, intensities, _ = jump_filter.simulated(rng, np.append(profile, profile[-1]), state, law)
    return np.asarray(returns), np.asarray(intensities)


def simulated_slowly(
    rng: np.random.Generator, profile: FloatArray, burn_in: int, law: Law
) -> tuple[FloatArray, FloatArray]:
    """The simulation again, in plain Python."""
    fade, alpha, _, growth = _constants(law)
    up, down, share = _large(law)
    factors = np.concatenate((np.full(burn_in, profile[0]), profile, profile[-1:]))
    bases = bases_of(factors, law)
    intensity, returns, intensities = law.mean_intensity * profile[0], [], []
    for t in range(burn_in + len(profile)):
        small = rng.poisson(intensity * (1 - law.large_share))
        large = rng.poisson(intensity * law.large_share)
        if t >= burn_in:
            move = math.sqrt(law.diffusion**2 + small * law.jump**2) * rng.standard_normal()
            for _ in range(large):
                size = abs(rng.standard_normal())
                move += size * up if rng.random() < share else -size * down
            returns.append(move - law.diffusion**2 / 2 - intensity * growth)
            intensities.append(intensity)
        excited = fade * max(intensity - bases[t], 0.0) + alpha * (small + law.large_excitation * large)
        intensity = bases[t + 1] + excited
    return np.array(returns), np.array(intensities)


def bases_of(factors: FloatArray, law: Law) -> list[float]:
    """The base intensities that make the mean intensity have these factors: its recursion, solved for the base."""
    fade, means = math.exp(-law.decay), law.mean_intensity * factors
    bases = [float(means[0]) * (1 - law.branching_ratio)]
    for now, following in pairwise(means):
        base = following - fade * (now - bases[-1]) - law.branching_ratio * (1 - fade) * now
        bases.append(max(float(base), 1e-6 * law.mean_intensity))
    return bases


def counts(most: int) -> list[tuple[int, int]]:
    """Return every (jumps, large jumps) up to `most` jumps."""
    return [(k, j) for k in range(most + 1) for j in range(k + 1)]


def jump_density(move: float, k: int, j: int, law: Law) -> float:
    """Return the density of a move of k jumps of which j are large, as the filter takes it."""
    up, down, share = _large(law)
    around = law.diffusion**2 + (k - j) * law.jump**2
    if j != 1:
        return float(stats.norm.pdf(move, scale=math.sqrt(around + j * up * down)))
    rising = stats.skewnorm.pdf(move, up / math.sqrt(around), scale=math.hypot(math.sqrt(around), up))
    falling = stats.skewnorm.pdf(-move, down / math.sqrt(around), scale=math.hypot(math.sqrt(around), down))
    return float(share * rising + (1 - share) * falling)


def filtered_slowly(returns: FloatArray, opens: np.ndarray, profile: FloatArray, law: Law) -> tuple[float, FloatArray]:
    """The filter again without a price grid: moments by the law of total variance, one count after the other."""
    fade, alpha, _, growth = _constants(law)
    mark_square = 1 + (law.large_excitation**2 - 1) * law.large_share
    long_variance = alpha**2 * mark_square * law.mean_intensity
    long_variance /= 1 - (fade + law.branching_ratio * (1 - fade)) ** 2
    total, means, bases, now = 0.0, [], [], 0.0
    mean = variance = math.nan
    for t, (observed, is_open, factor) in enumerate(zip(returns, opens, profile, strict=True)):
        if is_open:
            bases = bases_of(np.append(profile[t:], profile[-1]), law)
            mean, variance = law.mean_intensity * factor, long_variance * factor
        means.append(mean)
        now, after = bases[0], bases[1]
        bases = bases[1:]
        shape, rate = mean**2 / variance, mean / variance
        weights, centres, widths = [], [], []
        jumps = stats.nbinom.pmf(np.arange(31), shape, rate / (rate + 1))
        for k, j in counts(30):
            prior = jumps[k] * math.comb(k, j) * law.large_share**j * (1 - law.large_share) ** (k - j)
            weights.append(prior * jump_density(observed + law.diffusion**2 / 2 + mean * growth, k, j, law))
            marks = k - j + law.large_excitation * j
            centres.append(after + fade * ((shape + k) / (rate + 1) - now) + alpha * marks)
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
    drawn = jumps(stream(0, "long run"), np.ones(200_000), 2_000, law)[1]
    edges = np.concatenate(([-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]))
    opening = np.histogram(drawn, edges)[0] / len(drawn)
    steps = []
    for k, j in counts(14):
        following = base + fade * (grid - base) + alpha * (k - j + law.large_excitation * j)
        at = np.clip(np.searchsorted(grid, following) - 1, 0, points - 2)
        share = np.clip((following - grid[at]) / (grid[at + 1] - grid[at]), 0, 1)
        prior = stats.poisson.pmf(k, grid) * stats.binom.pmf(j, k, law.large_share)
        steps.append((prior, k, j, at, share))
    total, known = 0.0, opening
    for observed in returns:
        after = np.zeros(points)
        # The compensator moves little over the grid of intensities: one density at its mean serves all of them.
        move = observed + law.diffusion**2 / 2 + float(known @ grid) * growth
        for prior, k, j, at, share in steps:
            joint = known * prior * jump_density(move, k, j, law)
            np.add.at(after, at, joint * (1 - share))
            np.add.at(after, at + 1, joint * share)
        total += math.log(after.sum())
        known = after / after.sum()
    return total


def hawkes_log_likelihood(times: FloatArray, end: float, base: float, branching: float, decay: float) -> float:
    """The likelihood again, every pair of events looked at."""
    total = -base * end
    for i, time in enumerate(times):
        total += math.log(base + sum(branching * decay * math.exp(-decay * (time - before)) for before in times[:i]))
        total -= branching * (1 - math.exp(-decay * (end - time)))
    return total


def compensator(times: FloatArray, base: float, branching: float, decay: float) -> FloatArray:
    """The compensator between neighbouring events again, from the whole history each time."""

    def until(now: float) -> float:
        return base * now + sum(branching * (1 - math.exp(-decay * (now - time))) for time in times if time < now)

    return np.array([until(right) - until(left) for left, right in pairwise(times)])


def merton_log_likelihood(
    returns: FloatArray, rounding: float, diffusion: float, intensity: float, mean: float, jump: float, location: float
) -> float:
    """Merton's mixture again, by scipy."""
    number = np.arange(100)
    spreads = np.sqrt(diffusion**2 + number * jump**2 + rounding)
    densities = stats.norm.pdf(returns[:, None], location + number * mean, spreads)
    return float(np.log(densities @ stats.poisson.pmf(number, intensity)).sum())


def markov_log_likelihood(returns: FloatArray, opens: np.ndarray, chain: Chain) -> tuple[float, FloatArray]:
    """Log-likelihood and smoothed probabilities of a hidden Markov model, every path of states looked at."""
    total, pieces = 0.0, []
    for piece in np.split(returns, np.flatnonzero(opens)[1:]):
        opening, joint = stationary(chain.transitions), {}
        for path in product(range(len(chain.means)), repeat=len(piece)):
            weight = opening[path[0]] * math.prod(chain.transitions[a, b] for a, b in pairwise(path))
            each = stats.norm.pdf(piece, chain.means[list(path)], np.sqrt(chain.variances[list(path)]))
            joint[path] = weight * math.prod(each)
        mass = sum(joint.values())
        total += math.log(mass)
        smoothed = np.zeros((len(piece), len(chain.means)))
        for path, weight in joint.items():
            smoothed[np.arange(len(piece)), list(path)] += weight / mass
        pieces.append(smoothed)
    return total, np.concatenate(pieces)


def variances_slowly(law: conditional_variance.Law, scores: FloatArray, start: float) -> FloatArray:
    """The four variance recursions again."""
    omega, alpha, gamma, beta = law.coefficients
    variances = [start]
    for t in range(1, len(scores)):
        shocks = [math.sqrt(v) * z for v, z in zip(variances, scores, strict=False)]
        if law.volatility == "egarch":
            logs = omega + alpha * (abs(scores[t - 1]) - math.sqrt(2 / math.pi)) + gamma * scores[t - 1]
            variances.append(math.exp(logs + beta * math.log(variances[-1])))
        elif law.volatility == "figarch":
            weights = conditional_variance.figarch_weights(law.coefficients)
            past = [shocks[t - 1 - i] ** 2 if i < t else start for i in range(len(weights))]
            variances.append(omega / (1 - beta) + float(weights @ np.array(past)))
        else:
            down = shocks[-1] < 0
            variances.append(omega + (alpha + gamma * down) * shocks[-1] ** 2 + beta * variances[-1])
    return np.array(variances)


def heston_density(law: heston.Law, chain: heston.Chain, sums: FloatArray, squares: FloatArray, steps: int) -> float:
    """Heston's likelihood on the grid again, one stretch of returns in units of one."""
    state, total = chain.opening, 0.0
    for moved, square in zip(sums, squares, strict=True):
        mean = (chain.points[:, None] + chain.points) / 2
        surprise = chain.points - chain.points[:, None] - law.reversion * steps * (law.variance - mean)
        centre = steps * (law.variance - mean) / 2 + law.leverage / law.vol_of_vol * surprise
        spread = np.sqrt((1 - law.leverage**2) * steps * mean)
        density = chain.moves * stats.norm.pdf(moved, centre, spread)
        if steps > 1:
            # The chi-squared density but for what does not depend on the variance.
            density = density * np.exp(-square / mean / 2) * mean ** (-(steps - 1) / 2)
        following = state @ density
        total += math.log(following.sum())
        state = following / following.sum()
    return total


def activity_of(returns: FloatArray, level: float) -> FloatArray:
    """The recent activity again."""
    levels = []
    for move in returns:
        level = level if math.isnan(move) else 0.9 * level + 0.1 * abs(move)
        levels.append(level)
    return np.array(levels)


def resampled_slowly(companions: Companions, moves: FloatArray, rng: np.random.Generator) -> list[int]:
    """The choice of rows of history again."""
    edges, ordered, firsts, class_of, features, _ = companions._classes
    activity = activity_of(companions.returns, float(np.nanmean(np.abs(companions.returns))))
    ladder = np.sort(activity)
    row, rows = len(companions.returns) - 1, []
    for move, active in zip(moves, activity_of(moves, activity[-1]), strict=True):
        wanted = int(np.searchsorted(edges, move))
        own = ordered[firsts[wanted] : firsts[wanted + 1]]
        if len(own) == 0:
            own = ordered[max(firsts[wanted] - 1, 0) : min(firsts[wanted] + 1, len(ordered))]
        candidates = [row + 1] if row + 1 < len(class_of) and class_of[row + 1] == wanted else []
        candidates += [int(own[int(rng.random() * len(own))]) for _ in range(64)]
        target = np.searchsorted(ladder, active) / len(ladder)
        apart = [np.searchsorted(ladder, activity[each]) / len(ladder) - target for each in candidates]
        distances = [
            float(np.sum((features[each - 1] - features[row]) ** 2) + gap**2)
            for each, gap in zip(candidates, apart, strict=True)
        ]
        row = candidates[int(np.argmin(distances))]
        rows.append(row)
    return rows


def bars(steps: int, *, seed: int = 0, tick: float = 0.5) -> Series:
    """Return hourly bars with clustering volatility, gapless opens, wicks and volume that go with it."""
    rng = stream(seed, "bars")
    level, levels = 0.0, []
    for _ in range(steps):
        level = 0.97 * level + 0.12 * rng.standard_normal()
        levels.append(level)
    scale = 0.004 * np.exp(levels)
    closes = 2_000 * np.exp(np.cumsum(scale * rng.standard_t(6, steps)))
    opens = np.append(2_000.0, closes[:-1])
    highs = np.maximum(opens, closes) * np.exp(np.abs(0.5 * scale * rng.standard_normal(steps)))
    lows = np.minimum(opens, closes) * np.exp(-np.abs(0.5 * scale * rng.standard_normal(steps)))
    prices = np.stack((opens, highs, lows, closes))
    if tick:
        prices = np.rint(prices / tick) * tick
    volume = np.rint(1e5 * scale / 0.004 * np.exp(0.4 * rng.standard_normal(steps))) / 100
    values = np.stack((*prices, volume), axis=1)[np.newaxis]
    names = ("open", "high", "low", "close", "volume")
    return Series(values, names, 3_600 * 10**9, np.array([10**18]), tick, 0.01)
