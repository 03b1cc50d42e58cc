"""Correlated Brownian motion: independent jointly normal log-returns of several assets, the baseline of joint laws.

Over one step of the grid, for asset i,

    log S_it - log S_i,t-1 = -σ_i²/2 + σ_i ε_it,          ε_t ~ N(0, R) independent over time, R_ii = 1,

so that exp(log S_i) is a martingale each.

Calibration is maximum likelihood in closed form. σ_i is as in `geometric_brownian_motion`, from every stretch of the
asset; R_ij is the covariance over the steps that both have, over the σ of these: an asset with a short history takes
nothing from the others. On a price grid both σ are those of the latent price: rounding adds to variances and not to
covariances. With `asynchronous`, covariances are those of Hayashi and Yoshida (2005), Bernoulli 11, eq. 2.2: products
of all pairs of moves that overlap in time, a move lasting from one change of the price to the next. That is for steps
shorter than the time between changes, where one asset's move waits for another's and the plain covariance fades (Epps
1979, J. Am. Stat. Assoc. 74); samples then have the correlation of long horizons at every horizon.

Standard errors allow for clustering (Newey and West); intervals of correlations are made on Fisher's z (1915,
Biometrika 10). Pairs estimated from different rows may fit no joint law: R is then the nearest correlation matrix
(Higham 2002, IMA J. Numer. Anal. 22, algorithm 3.3), with a note. Simulation is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from synth_pipeline.generators import price_process
from synth_pipeline.generators.basket import Basket, Histories
from synth_pipeline.generators.inference import Estimate, criteria, mean_error, residual_tests, scores_of
from synth_pipeline.generators.price_process import Report, unrounded
from synth_pipeline.series import FloatArray, IntArray

_HIGHEST = 0.9999
_SMALLEST = 1e-10
_ROUNDS = 1_000


class Law(NamedTuple):
    """The parameters, per step of the grid."""

    volatility: FloatArray
    """[σ], shape (assets,)."""
    correlation: FloatArray
    """[R], shape (assets, assets)."""


@dataclass(frozen=True)
class Parameters(price_process.Parameters):
    """What a user may set."""

    asynchronous: bool = False
    """Estimate correlations by Hayashi and Yoshida."""


class CorrelatedBrownianMotion(Basket):
    """Closed-form maximum likelihood, exact simulation. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    Law = Law
    twin = "geometric_brownian_motion"

    def estimate(self, histories: Histories, *, rng: np.random.Generator, report: Report) -> None:
        """Take the moments."""
        report(0.0, "moments")
        self.estimates, self.diagnostics, sigma = {}, {}, np.empty(len(histories.names))
        for i, (name, own) in enumerate(zip(histories.names, histories.own, strict=True)):
            centred = own.values - own.values.mean()
            squares = centred**2
            scale = float(np.sqrt(squares.mean()))
            sigma[i] = unrounded(scale, own.resolution)
            error = mean_error(squares) / (2 * scale) * sigma[i] / scale
            self.estimates[f"{name}.volatility"] = Estimate(float(sigma[i]), error)
            cell = own.resolution / sigma[i]
            tests = residual_tests(scores_of(special.ndtr, centred / sigma[i], cell, rng), own.stretch)
            self.diagnostics |= {f"{name}.{key}": value for key, value in tests.items()}
        correlation = np.eye(len(sigma))
        for i, j in combinations(range(len(sigma)), 2):
            found = self._pair(histories, i, j)
            correlation[i, j] = correlation[j, i] = found.value
            self.estimates[f"{histories.names[i]}.{histories.names[j]}.correlation"] = found
        least = float(np.linalg.eigvalsh(correlation)[0])
        if least < _SMALLEST:
            self.notes.append(
                f"the correlations of pairs fit no joint law (least eigenvalue {least:.2g}): taken as the nearest "
                f"that do"
            )
            correlation = nearest_correlation(correlation)
        self.law = Law(sigma, correlation)
        self.diagnostics |= self._criteria(histories)

    def _pair(self, histories: Histories, i: int, j: int) -> Estimate:
        """Return the correlation of two assets over the steps that both have."""
        both = np.asarray(np.isfinite(histories.moves[:, (i, j)]).all(axis=1))
        centred = histories.moves[both][:, (i, j)]
        centred -= centred.mean(axis=0)
        first, second = (
            unrounded(float(own.std()), histories.own[asset].resolution)
            for own, asset in zip(centred.T, (i, j), strict=True)
        )
        scaled = centred / np.array([first, second])
        products = scaled[:, 0] * scaled[:, 1]
        if self.parameters.asynchronous:
            moves = np.where(both[:, np.newaxis], histories.moves[:, (i, j)], np.nan)
            products = overlapping(moves[:, 0], moves[:, 1])[both] / (first * second)
        value = float(np.clip(products.mean(), -_HIGHEST, _HIGHEST))
        return Estimate(value, mean_error(products - value * (scaled**2).sum(axis=1) / 2), "correlation")

    def _criteria(self, histories: Histories) -> dict[str, float]:
        """Return the likelihood of the rows that all have."""
        scores = np.stack([own.values - own.values.mean() for own in histories.common], axis=1) / self.law.volatility
        inverse = np.linalg.pinv(self.law.correlation, hermitian=True)
        log_determinant = np.linalg.slogdet(self.law.correlation + _SMALLEST * np.eye(len(inverse)))[1]
        constant = len(inverse) * math.log(2 * math.pi) + log_determinant + 2 * np.log(self.law.volatility).sum()
        likelihood = -0.5 * float(np.einsum("ti,ij,tj->", scores, inverse, scores) + len(scores) * constant)
        count = len(inverse) * (len(inverse) + 3) // 2
        return criteria(likelihood, count, len(scores)) | {"returns": float(len(scores))}

    @cached_property
    def _factor(self) -> FloatArray:
        values, vectors = np.linalg.eigh(self.law.correlation)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw normals."""
        sigma = self.law.volatility
        for count in counts:
            yield sigma * mixed(rng.standard_normal((count, len(sigma))), self._factor) - sigma**2 / 2


def mixed(independent: FloatArray, factor: FloatArray) -> FloatArray:
    """Return `factor` times each row, added up in the same order however many rows there are."""
    total = np.zeros_like(independent)
    for column, weights in zip(independent.T, factor.T, strict=True):
        total += column[:, np.newaxis] * weights
    return total


def nearest_correlation(matrix: FloatArray) -> FloatArray:
    """Return the correlation matrix that is nearest to a symmetric one, by Dykstra's alternating projections."""
    nearest, correction = matrix.copy(), np.zeros_like(matrix)
    for _ in range(_ROUNDS):
        shifted = nearest - correction
        values, vectors = np.linalg.eigh(shifted)
        definite = (vectors * np.maximum(values, _SMALLEST)) @ vectors.T
        correction, before = definite - shifted, nearest
        nearest = definite.copy()
        np.fill_diagonal(nearest, 1.0)
        if np.abs(nearest - before).max() < _SMALLEST:
            break
    deviations = np.sqrt(np.diag(definite))
    made = definite / np.outer(deviations, deviations)
    np.fill_diagonal(made, 1.0)
    return np.asarray((made + made.T) / 2)


def overlapping(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return, at the end of every move of `first`, its product with all moves of `second` that overlap with it.

    Shapes (steps,); both are NaN in the same steps, and no move spans those. Elsewhere the products are 0; their sum is
    Hayashi and Yoshida's covariance.
    """
    ends = [np.flatnonzero(np.nan_to_num(moves) != 0) for moves in (first, second)]
    starts = [_starts(np.isfinite(first), end) for end in ends]
    sums = np.concatenate(([0.0], np.cumsum(second[ends[1]])))
    low = np.searchsorted(ends[1], starts[0], side="right")
    high = np.searchsorted(starts[1], ends[0], side="left")
    products = np.zeros(len(first))
    products[ends[0]] = first[ends[0]] * (sums[high] - sums[np.minimum(low, high)])
    return products


def _starts(is_known: NDArray[np.bool_], ends: IntArray) -> IntArray:
    """Return the step after which each move began: that of the move before, or the last gap."""
    gaps = np.maximum.accumulate(np.where(is_known, -1, np.arange(len(is_known))))
    return np.asarray(np.maximum(np.concatenate(([-1], ends[:-1]))[: len(ends)], gaps[ends]))
