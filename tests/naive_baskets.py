"""Slow, obvious twins of the kernels of joint laws, and small markets of several assets."""

from __future__ import annotations

import numpy as np
from scipy import stats

from synth_pipeline.features.transforms import on_grid
from synth_pipeline.generators.joint_companions import Rows
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, IntArray, Series

HOUR = 3600 * 10**9


def closes(returns: FloatArray, *, tick: float = 0.0, price: float = 100.0) -> Series:
    """Return assets A, B, … whose closes have these log-returns, shape (steps, assets)."""
    levels = price * np.exp(np.concatenate([np.zeros((1, returns.shape[1])), np.cumsum(returns, axis=0)]))
    levels = np.rint(levels / tick) * tick if tick else levels
    parts = {
        chr(ord("A") + at): Series(column[np.newaxis, :, np.newaxis], ("close",), HOUR, np.zeros(1, np.int64), tick)
        for at, column in enumerate(levels.T)
    }
    return Series.joined(parts)


def several_bars(steps: int, assets: int = 2, *, seed: int = 0, tick: float = 0.01) -> Series:
    """Return bars of assets whose volume and range go with a liveliness that all share."""
    rng = stream(seed, "several bars")
    liveliness = np.zeros(steps)
    for t in range(1, steps):
        liveliness[t] = 0.95 * liveliness[t - 1] + 0.3 * rng.standard_normal()
    shared = rng.standard_normal(steps)
    parts = {}
    for at in range(assets):
        scale = 2e-3 * np.exp(liveliness / 2)
        close = 100 * np.exp(np.cumsum(scale * (0.8 * shared + 0.6 * rng.standard_normal(steps))))
        opened = np.append(100.0, close[:-1])
        high = np.maximum(opened, close) * np.exp(scale * rng.exponential(0.5, steps))
        low = np.minimum(opened, close) * np.exp(-scale * rng.exponential(0.5, steps))
        volume = np.rint(1_000 * np.exp(liveliness + 0.3 * rng.standard_normal(steps)))
        rows = np.stack([*(on_grid(np.rint(each / tick), tick) for each in (opened, high, low, close)), volume], axis=1)
        names = ("open", "high", "low", "close", "volume")
        parts[chr(ord("A") + at)] = Series(rows[np.newaxis], names, HOUR, np.zeros(1, np.int64), tick, 1.0)
    return Series.joined(parts)


def chosen(
    rng: np.random.Generator, classes: IntArray, returns: FloatArray, activity: FloatArray, rows: Rows, row: int
) -> list[int]:
    """The choice of rows again: every candidate's distance written out."""
    found = []
    for wanted, move, active in zip(classes, returns, activity, strict=True):
        low, high = rows.firsts[wanted], rows.firsts[wanted + 1]
        if low == high:
            low, high = max(low - 1, 0), min(high + 1, len(rows.ordered))
        candidates = [int(rows.ordered[low + int(rng.random() * (high - low))]) for _ in range(256)]
        if row + 1 < len(rows.returns) and np.isfinite(rows.returns[row + 1]).all():
            candidates.append(row + 1)
        distances = [
            4 * np.sum((rows.returns[each] - move) ** 2)
            + np.sum((rows.activity[each] - active) ** 2)
            + np.sum((rows.features[each - 1] - rows.features[row]) ** 2)
            for each in candidates
        ]
        row = candidates[int(np.argmin(distances))]
        found.append(row)
    return found


def covariance_of_overlaps(first: FloatArray, second: FloatArray) -> float:
    """Hayashi and Yoshida's sum over all pairs of moves, each from the change before it (or a gap) to its own."""

    def moves_of(returns: FloatArray) -> list[tuple[int, int, float]]:
        found, start = [], -1
        for step, move in enumerate(returns):
            if np.isnan(move):
                start = step
            elif move != 0:
                found.append((start, step, float(move)))
                start = step
        return found

    return sum(
        one * two
        for begun, ended, one in moves_of(first)
        for start, end, two in moves_of(second)
        if start < ended and begun < end
    )


def dynamic(scores: FloatArray, target: FloatArray, news: float, memory: float) -> tuple[list[float], list[FloatArray]]:
    """Log density of each z_t above that of independent assets, and every z* z*' - Q, with matrices throughout."""
    matrix, terms, surprises = target.copy(), [], []
    for score in scores:
        deviations = np.sqrt(np.diag(matrix))
        correlation = matrix / np.outer(deviations, deviations)
        joint = stats.multivariate_normal(np.zeros(len(score)), correlation).logpdf(score)
        terms.append(float(joint - stats.norm.logpdf(score).sum()))
        star = deviations * score
        surprises.append(np.outer(star, star) - matrix)
        matrix = (1 - news - memory) * target + news * np.outer(star, star) + memory * matrix
    return terms, surprises


def correlated(normals: FloatArray, target: FloatArray, news: float, memory: float) -> FloatArray:
    """Shocks of moving correlation again, each by a Cholesky factor of its own."""
    matrix, made = target.copy(), []
    for row in normals:
        deviations = np.sqrt(np.diag(matrix))
        score = np.linalg.cholesky(matrix / np.outer(deviations, deviations)) @ row
        star = deviations * score
        matrix = (1 - news - memory) * target + news * np.outer(star, star) + memory * matrix
        made.append(score)
    return np.array(made)


def together(path: FloatArray, share: float, *, lower: bool) -> float:
    """Share of the lowest (highest) moves of one asset that are among another's, mean over pairs: by counting."""
    count = round(share * len(path))
    tails = [set(np.argsort(column if lower else -column)[:count].tolist()) for column in path.T]
    pairs = [(i, j) for i in range(len(tails)) for j in range(i)]
    return float(np.mean([len(tails[i] & tails[j]) / count for i, j in pairs]))
