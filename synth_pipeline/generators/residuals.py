"""What a network draws in the states of history, held against what was there, and mended in scale and law.

What belongs here: the map from a network's draws to standard normal ones. What does not: networks and states
(`chunk_flow`).

Innovations are of mean zero, and their scale given a state c (numbers that a mirror leaves as they are) is fitted
log-linearly, once to those that history had and once to those that the network draws in the same states,

    E[y² | c] = exp(β₀ + β · c),        min over β of  Σ (β₀ + β · c + y² exp(-β₀ - β · c)) + |β|² / 2 τ²,

the quasi-likelihood of a multiplicative heteroskedastic law (Harvey 1976, Econometrica 44, 461-465) under N(0, τ²) on
the slopes. A draw is multiplied by exp((β of history - β of draws) · c / 2), and what then is its law becomes N(0, 1).
A network that has learnt a little too much of how wild a state is makes it wilder: the error comes back through the
scale, and grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import minimize

from synth_pipeline.features.marginals import Marginal
from synth_pipeline.series import FloatArray

_PRECISION = 400.0
"""[1 / τ²] A standard deviation of a state moves a scale by 2.5 % or so, unless data say more."""
_FARTHEST, _MOST, _MOST_OF_LOG = 4.0, 1.0, 30.0


@dataclass(frozen=True, eq=False)
class Residuals:
    """The scale of draws given a state, and the law of what is left."""

    slopes: FloatArray
    """Of the logarithm of the factor; shape (numbers of a state, features)."""
    laws: tuple[Marginal, ...]

    @classmethod
    def fit(cls, known: FloatArray, drawn: FloatArray, states: FloatArray, odd: Sequence[bool]) -> Self:
        """Compare innovations that history had and draws, both (rows, steps, features), in states (rows, numbers)."""
        seen = np.clip(states, -_FARTHEST, _FARTHEST)
        own, theirs = (
            np.stack([_log_scale(seen, (each[..., at] ** 2).mean(axis=1), each.shape[1]) for at in range(len(odd))], 1)
            for each in (known, drawn)
        )
        made = cls((own - theirs) / 2, ())
        scaled = made.scaled(drawn, states)
        laws = (Marginal.fit(scaled[..., at].ravel(), odd=bool(turns), heaviest=0.0) for at, turns in enumerate(odd))
        return cls(made.slopes, tuple(laws))

    def scaled(self, drawn: FloatArray, states: FloatArray) -> FloatArray:
        """Return draws, shape (rows, steps, features), in the scale that history had in these states."""
        factor = np.clip(np.clip(states, -_FARTHEST, _FARTHEST) @ self.slopes, -_MOST, _MOST)
        found: FloatArray = drawn * np.exp(factor)[:, np.newaxis]
        return found

    def __call__(self, drawn: FloatArray, states: FloatArray) -> FloatArray:
        """Return draws as standard normal innovations, shape (rows, steps, features)."""
        scaled = self.scaled(drawn, states)
        return np.stack([law.normal(scaled[..., at]) for at, law in enumerate(self.laws)], axis=2)


def _log_scale(states: FloatArray, squares: FloatArray, steps: int) -> FloatArray:
    """Return β for mean squares of so many steps a row; the constant is left out."""
    rows = np.concatenate((np.ones((len(states), 1)), states), axis=1)
    penalty = np.full(rows.shape[1], _PRECISION / (steps * len(rows)))
    penalty[0] = 0.0

    def loss(beta: FloatArray) -> tuple[float, FloatArray]:
        scale = np.clip(rows @ beta, -_MOST_OF_LOG, _MOST_OF_LOG)
        ratio = squares * np.exp(-scale)
        slope = rows.T @ (1 - ratio) / len(rows) + penalty * beta
        return float((scale + ratio).mean() + (penalty * beta**2).sum() / 2), slope

    start = np.zeros(rows.shape[1])
    start[0] = np.log(squares.mean() + 1e-12)
    found: FloatArray = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-7}).x[1:]
    return found
