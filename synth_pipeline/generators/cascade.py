"""Memory of a market at several scales, and the law of the next step that it gives: location and scale by likelihood.

What belongs here: the recursions, their likelihood, and standard normal innovations from scores and back. What does
not: what else innovations depend on (`rectified_flow`).

Of every feature j three drivers are kept, each the conditional mean given its *value*, so that nothing remembers where
in an atom (no trade, a price at rest, a spread of one tick) the score of the value happened to be drawn: the score z
itself and two activities of mean one under N(0, 1), z² and |z| √(π/2) of a direction, exp(z/2 - 1/8) and
exp(-z/2 - 1/8) of others. Each driver x has averages at K scales, a heterogeneous cascade (Corsi 2009, J. Financial
Econometrics 7, 174-196; averages are exponential instead of uniform),

    E_k ← λ_k E_k + (1 - λ_k) x,        λ_k = 2^(-1 / h_k),  h = 0, 1, 4, 16, 64, …

and the law of the next score is N(m, s²) with

    m_j = Σ_k Σ_g a_jkg E_k(x_g),       s_j² = v_j (w_j0 + Σ_k Σ_g w_jkg E_k(u_g)),   w_j ≥ 0, Σ w_j = 1,

g in m over drivers that mirror like j (activities less 1 for what has no direction), in s over the activities u. As
each has mean one, s² has the mean v whatever is estimated: volatility feeds back and cannot run away. A score is known
to lie in an interval where its value is an atom, so the likelihood is that of interval-censored data (Tobin 1958,
Econometrica 26; for the ticks of a spread it is an ordered probit). An innovation is y = (z - m) / s, and of an atom
one drawn from that normal law within the interval: the randomised probability integral transform (Rüschendorf 2009) of
the *conditional* law. Where this law is true, innovations are independent and standard normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numba
import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from torch import Tensor

from synth_pipeline.features.marginals import Marginal
from synth_pipeline.series import FloatArray

FARTHEST = 5.0
"""A score that is fed back is no larger: beyond it nothing has been seen."""
_HALF_LIVES = (0, 1, 4, 16, 64, 256, 1024)
_SPANS = 16
"""A history holds as many half-lives of the slowest average at least."""
_MOST_ROWS = 25_000
_RIDGE = 0.01
"""Of the rows. Slow averages of what has no memory hardly vary: their slopes are noise, and would add up to trends."""
_NOWHERE = 40.0
_LEAST = 0.02
"""[c] The constant has a share at least: without any, scales die out in the end."""
_SMALLEST = 1e-6
"""Of the mean square: the constant is no less, so that no scale is 0 on the way."""
_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Atoms:
    """Values that scores stand for: the interval of scores of each atom of each feature, and the drivers in it."""

    low: FloatArray
    """Lower ends, ascending, infinite where a feature has fewer; shape (features, atoms)."""
    high: FloatArray
    drivers: FloatArray
    """Shape (features, atoms, 3)."""

    @classmethod
    def of(cls, marginals: Sequence[Marginal], odd: Sequence[bool]) -> Self:
        """Read them off the laws of the features."""
        found = [_intervals(marginal) for marginal in marginals]
        most = max(1, *(len(each) for each in found))
        low, high = np.full((2, len(found), most), np.inf)
        drivers = np.zeros((len(found), most, 3))
        for at, intervals in enumerate(found):
            if odd[at]:  # to the last bit, or a mirrored path would not be one
                turned = [(-stop, -start) for start, stop in reversed(intervals)]
                intervals = [tuple(np.add(one, two) / 2) for one, two in zip(intervals, turned, strict=True)]
            for number, (start, stop) in enumerate(intervals):
                low[at, number], high[at, number] = start, stop
                drivers[at, number] = _within(start, stop, direction=odd[at])
        return cls(low, high, drivers)


def _intervals(marginal: Marginal) -> list[tuple[float, float]]:
    """Return the scores of each value that repeats, outermost ones open where nothing lies beyond."""
    _, first = np.unique(marginal.knots, return_index=True)
    last = np.append(first[1:], len(marginal.knots)) - 1
    found = []
    for start, stop in zip(first.tolist(), last.tolist(), strict=True):
        if stop > start:
            low, high = float(ndtri(marginal.levels[start])), float(ndtri(marginal.levels[stop]))
            found.append(
                (
                    -np.inf if start == 0 and not marginal.lower.share else low,
                    np.inf if stop == len(marginal.knots) - 1 and not marginal.upper.share else high,
                )
            )
    return found


def _within(low: float, high: float, *, direction: bool) -> tuple[float, float, float]:
    """Return the means of the three drivers of a standard normal score between two others."""
    mass = float(ndtr(high) - ndtr(low))
    density = [0.0 if np.isinf(each) else float(np.exp(-(each**2) / 2) / np.sqrt(2 * np.pi)) for each in (low, high)]
    mean = (density[0] - density[1]) / mass
    if not direction:
        up, down = (float(ndtr(high - tilt) - ndtr(low - tilt)) / mass for tilt in (0.5, -0.5))
        return mean, up, down
    edges = [0.0 if np.isinf(each) else each * part for each, part in zip((low, high), density, strict=True)]
    square = 1 + (edges[0] - edges[1]) / mass
    # |z| over an interval about zero, which that of a direction at rest is; over another, the sign is known.
    peak = 2 * 0.3989422804014327 if low < 0 < high else 0.0
    size = (peak - sum(density)) / mass if peak else abs(mean)
    return mean, square, size * float(np.sqrt(np.pi / 2))


@numba.njit(cache=True)
def drivers_of(
    score: float, at: int, odd: bool, low: FloatArray, high: FloatArray, atoms: FloatArray
) -> tuple[float, float, float]:
    """Return the three drivers of a score of feature `at`."""
    for number in range(low.shape[1]):
        if score < low[at, number]:
            break
        if score <= high[at, number]:
            return atoms[at, number, 0], atoms[at, number, 1], atoms[at, number, 2]
    if odd:
        return score, score * score, abs(score) * 1.2533141373155001
    return score, np.exp(score / 2 - 0.125), np.exp(-score / 2 - 0.125)


@numba.njit(cache=True)
def remembered(
    scores: FloatArray,
    opens: np.ndarray,
    odd: np.ndarray,
    decays: FloatArray,
    low: FloatArray,
    high: FloatArray,
    atoms: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the drivers of each row of scores and the cascade before it; shapes (rows, 3 features), (…, K, 3 f).

    A row of NaN is a gap: memory stands still. Where a row `opens` a path, memory is what it is on average.
    """
    rows, features = scores.shape
    drivers = np.zeros((rows, 3 * features), dtype=np.float32)
    cascade = np.zeros((rows, decays.size, 3 * features), dtype=np.float32)
    now = np.zeros((decays.size, 3 * features))
    for row in range(rows):
        if row == 0 or opens[row]:
            now[:, :features] = 0.0
            now[:, features:] = 1.0
        cascade[row] = now
        if np.isnan(scores[row, 0]):
            continue
        update(scores[row], odd, decays, low, high, atoms, now, drivers[row])
    return drivers, cascade


@numba.njit(cache=True)
def update(
    scores: FloatArray,
    odd: np.ndarray,
    decays: FloatArray,
    low: FloatArray,
    high: FloatArray,
    atoms: FloatArray,
    now: FloatArray,
    drivers: np.ndarray,
) -> None:
    """Take one row of scores into the cascade `now`, shape (K, 3 features), and leave its drivers in `drivers`."""
    features = scores.size
    for at in range(features):
        score = min(max(scores[at], -5.0), 5.0)
        own, first, second = drivers_of(score, at, odd[at], low, high, atoms)
        drivers[at], drivers[features + 2 * at], drivers[features + 2 * at + 1] = own, first, second
    for scale in range(decays.size):
        for driver in range(3 * features):
            now[scale, driver] = decays[scale] * now[scale, driver] + (1 - decays[scale]) * drivers[driver]


@numba.njit(cache=True)
def law(
    now: FloatArray, slopes: FloatArray, weights: FloatArray, level: FloatArray, m: FloatArray, s: FloatArray
) -> None:
    """Leave location and scale of the next row's scores in `m` and `s`."""
    scales, features = now.shape[0], m.size
    for at in range(features):
        mean, square = 0.0, weights[at, 0]
        for scale in range(scales):
            mean += slopes[at, scale * 3 * features + at] * now[scale, at]
            for driver in range(2 * features):
                square += weights[at, 1 + scale * 2 * features + driver] * now[scale, features + driver]
        m[at], s[at] = min(max(mean, -5.0), 5.0), np.sqrt(level[at] * square)


@numba.njit(cache=True)
def drawn(
    innovations: np.ndarray,
    odd: np.ndarray,
    decays: FloatArray,
    low: FloatArray,
    high: FloatArray,
    atoms: FloatArray,
    slopes: FloatArray,
    weights: FloatArray,
    level: FloatArray,
    cascade: FloatArray,
) -> tuple[FloatArray, np.ndarray]:
    """Return scores and drivers of innovations, shape (paths, steps, features); move `cascade`, (paths, K, 3 f), on."""
    paths, steps, features = innovations.shape
    scores = np.empty((paths, steps, features))
    drivers = np.empty((paths, steps, 3 * features), dtype=np.float32)
    m, s = np.empty(features), np.empty(features)
    for path in range(paths):
        for step in range(steps):
            law(cascade[path], slopes, weights, level, m, s)
            for at in range(features):
                scores[path, step, at] = min(max(m[at] + s[at] * innovations[path, step, at], -5.0), 5.0)
            update(scores[path, step], odd, decays, low, high, atoms, cascade[path], drivers[path, step])
    return scores, drivers


@dataclass(frozen=True, eq=False)
class Cascade:
    """A fitted memory: what an innovation is, given all that came before."""

    odd: np.ndarray
    """Which features mirror; shape (features,)."""
    decays: FloatArray
    """[λ] Shape (K,)."""
    atoms: Atoms
    slopes: FloatArray
    """[a] Shape (features, K · 3 features)."""
    weights: FloatArray
    """[w] Shape (features, 1 + K · 2 features)."""
    level: FloatArray
    """[v] Shape (features,)."""

    @classmethod
    def fit(
        cls, scores: FloatArray, opens: np.ndarray, odd: np.ndarray, atoms: Atoms, price: int | None = None
    ) -> tuple[Self, FloatArray, FloatArray]:
        """Raise the likelihood of scores, shape (rows, features); rows of NaN are gaps, some rows open a path.

        The return, feature `price`, has the location 0: what a history tells of it is a trend of that history.
        Returns also the drivers of every row and the cascade before it, as `remembered` does.
        """
        known = np.isfinite(scores).all(axis=1)
        longest = max(int(known.sum()) // _SPANS, 1)
        decays = np.array([0.0 if not h else 2 ** (-1 / h) for h in _HALF_LIVES if h <= longest])
        drivers, cascade = remembered(scores, opens, odd, decays, atoms.low, atoms.high, atoms.drivers)
        rows = np.flatnonzero(known)[:: -(-int(known.sum()) // _MOST_ROWS)]
        slopes = np.stack([_regressed(at, scores[rows, at], cascade[rows]) for at in range(len(odd))])
        if price is not None:
            slopes[price] = 0.0
        means = np.clip(cascade[rows].reshape(len(rows), -1) @ slopes.T, -FARTHEST, FARTHEST)
        found = [_climbed(at, scores[rows, at], means[:, at], cascade[rows], atoms) for at in range(len(odd))]
        weights, level = np.stack([each[0] for each in found]), np.array([each[1] for each in found])
        return cls(odd, decays, atoms, slopes, weights, level), drivers, cascade

    def law(self, cascade: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return locations and scales after cascades of shape (rows, K, 3 features); shapes (rows, features)."""
        features, rows = len(self.odd), len(cascade)
        mean = cascade.reshape(rows, -1) @ self.slopes.T
        square = self.weights[:, 0] + cascade[:, :, features:].reshape(rows, -1) @ self.weights[:, 1:].T
        return np.clip(mean, -FARTHEST, FARTHEST), np.sqrt(self.level * square)

    def innovations(
        self, scores: FloatArray, cascade: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return innovations of scores (rows, features) after cascades, with locations and scales."""
        mean, scale = self.law(cascade)
        made = (scores - mean) / scale
        for at in range(len(self.odd)):
            low, high, tied = _censored(scores[:, at], at, self.atoms)
            ends = [ndtr((end[tied] - mean[tied, at]) / scale[tied, at]) for end in (low, high)]
            made[tied, at] = ndtri(np.clip(ends[0] + (ends[1] - ends[0]) * rng.random(int(tied.sum())), 1e-9, 1 - 1e-9))
        return np.clip(made, -2 * FARTHEST, 2 * FARTHEST), mean, scale

    def draw(self, innovations: np.ndarray, cascade: FloatArray) -> tuple[FloatArray, np.ndarray]:
        """Return scores and drivers of innovations, shape (paths, steps, features), and move the cascades on."""
        made: tuple[FloatArray, np.ndarray] = drawn(
            innovations,
            self.odd,
            self.decays,
            self.atoms.low,
            self.atoms.high,
            self.atoms.drivers,
            self.slopes,
            self.weights,
            self.level,
            cascade,
        )
        return made


def _censored(scores: FloatArray, at: int, atoms: Atoms) -> tuple[FloatArray, FloatArray, np.ndarray]:
    """Return the ends of the interval that each score is known to lie in, and whether it has two."""
    number = np.clip(np.searchsorted(atoms.low[at], scores, side="right") - 1, 0, None)
    low, high = atoms.low[at][number], atoms.high[at][number]
    tied = (scores >= low) & (scores <= high)
    # Open ends far away instead of infinite: a gradient through infinity is no number.
    ends = [np.clip(np.where(tied, end, scores), -_NOWHERE, _NOWHERE) for end in (low, high)]
    return ends[0], ends[1], tied


def _regressed(at: int, scores: FloatArray, cascade: FloatArray) -> FloatArray:
    """Return the slopes of a score on its own averages by least squares with a ridge."""
    own = cascade[:, :, at].astype(np.float64)
    inside = own.T @ own + _RIDGE * len(own) * np.eye(own.shape[1])
    slopes = np.zeros(cascade.shape[1:])
    slopes[:, at] = np.linalg.solve(inside, own.T @ scores)
    return slopes.ravel()


def _climbed(
    at: int, scores: FloatArray, mean: FloatArray, cascade: FloatArray, atoms: Atoms
) -> tuple[FloatArray, float]:
    """Return weights and level of the largest likelihood of the scale of one feature."""
    rows, features = len(scores), len(atoms.low)
    averages = torch.from_numpy(cascade[:, :, features:].reshape(rows, -1).astype(np.float64))
    # s² = Σ θ (c + (1 - c) u), θ ≥ 0: at a bound a weight may come back from 0, where one of a softmax would stay.
    activity = torch.cat((torch.ones(rows, 1, dtype=torch.float64), _LEAST + (1 - _LEAST) * averages), dim=1)
    low, high, tied = _censored(scores, at, atoms)
    ends, known = [torch.from_numpy(each - mean) for each in (low, high)], torch.from_numpy(tied)

    def loss(shares: FloatArray) -> tuple[float, FloatArray]:
        free = torch.tensor(shares, requires_grad=True)
        value = -_likelihood(ends, known, (activity @ free).sqrt()).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item(), free.grad.numpy()  # type: ignore[union-attr]

    square, others = float(np.mean((scores - mean) ** 2)), averages.shape[1]
    start = np.concatenate(([square / 2], np.full(others, square / 2 / others)))
    bounds = [(_SMALLEST * square, None)] + [(0.0, None)] * others
    found: FloatArray = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ITERATIONS, "ftol": 1e-10}
    ).x
    weights = (1 - _LEAST) * found / found.sum()
    weights[0] += _LEAST
    return weights, float(found.sum())


def _likelihood(ends: list[Tensor], tied: Tensor, scale: Tensor) -> Tensor:
    """Return the log-likelihood of each score: of its density, or of the interval that it lies in."""
    low, high = (end / scale for end in ends)
    # Both ends on the left, where small masses keep their digits.
    left, right = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
    safe = (torch.where(tied, left, -1.0), torch.where(tied, right, 1.0))
    mass = torch.special.ndtr(safe[1]) - torch.special.ndtr(safe[0])
    density = -(torch.where(tied, 0.0, low) ** 2) / 2 - scale.log() - 0.5 * float(np.log(2 * np.pi))
    return torch.where(tied, mass.clamp_min(1e-12).log(), density)
