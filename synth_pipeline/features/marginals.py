"""Any column to standard normal scores and back: its empirical distribution with generalised-Pareto tails.

What belongs here: laws of one column of numbers. What does not: what the numbers are (`transforms`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from scipy.special import ndtr, ndtri

from synth_pipeline.series import FloatArray

_KNOTS = 1_024
"""Of 256, returns of a market at rest keep five a side: their shoulders were straight lines across the grid."""
_TAIL_SHARE, _TAIL_ROWS, _FEWEST_EXCEEDANCES = 0.0025, 15, 5
"""A hundredth is no tail where prices rest 24 of 25 times: the moves that are left are all of it, and no Pareto law."""
_REACH = 2.0
_SMALLEST_SHARE = 1e-9


@dataclass(frozen=True)
class Tail:
    """Generalised-Pareto law of what exceeds a threshold: P(X > u + y) = share · (1 + ξ y / β)^(-1/ξ)."""

    threshold: float
    share: float
    shape: float
    scale: float
    limit: float
    """No value goes beyond; `_REACH` times as far from the median as any that was seen."""

    @classmethod
    def fit(cls, ordered: FloatArray, heaviest: float) -> Self:
        """Estimate from sorted values by probability-weighted moments, the shape kept within [-0.5, `heaviest`].

        Source: Hosking & Wallis (1987), Technometrics 29, equations of section 2.3 (their k is -ξ).
        """
        rows, top = len(ordered), float(ordered[-1])
        wanted = min(max(_TAIL_SHARE, _TAIL_ROWS / rows), 0.1)
        threshold = float(np.quantile(ordered, 1 - wanted))
        excess = ordered[np.searchsorted(ordered, threshold, side="right") :] - threshold
        if len(excess) < _FEWEST_EXCEEDANCES:
            return cls(top, 0.0, 0.0, 0.0, top)
        count = len(excess)
        first = float(excess.mean())
        second = float((excess * (count - np.arange(count) - 0.65) / count).mean())
        shape = float(np.clip(2 - first / max(first - 2 * second, 1e-12 * first), -0.5, heaviest))
        limit = top + (_REACH - 1) * (top - float(np.median(ordered)))
        return cls(threshold, count / rows, shape, first * (1 - shape), limit)

    def exceedance(self, values: FloatArray) -> FloatArray:
        """Return P(X > value) for values above the threshold."""
        depth = np.maximum(values - self.threshold, 0) / self.scale
        return self.share * (
            np.exp(-depth) if self.shape == 0 else np.maximum(1 + self.shape * depth, 0) ** (-1 / self.shape)
        )

    def quantile(self, exceedance: FloatArray) -> FloatArray:
        """Return the value that is exceeded with this probability (at most `share`)."""
        ratio = np.maximum(exceedance, 1e-300) / self.share
        depth = -np.log(ratio) if self.shape == 0 else np.expm1(-self.shape * np.log(ratio)) / self.shape
        return np.minimum(self.threshold + self.scale * depth, self.limit)


@dataclass(frozen=True, eq=False)
class Marginal:
    """One feature to N(0, 1) and back: empirical distribution in the body, generalised-Pareto tails.

    A value that repeats (no trade, a zero return, a spread of one tick) owns an interval of probability. Forward it
    lands anywhere in it, by a seeded uniform draw; back, the whole interval gives the value again, exactly. This is the
    distributional transform of Rüschendorf (2009), J. Stat. Plan. Inference 139, eq. 2.
    """

    knots: FloatArray
    """Quantiles of the body, not decreasing."""
    levels: FloatArray
    """Their probabilities."""
    lower: Tail
    """Of the negated values."""
    upper: Tail

    @classmethod
    def fit(cls, values: FloatArray, *, odd: bool = False, heaviest: float = 0.5) -> Self:
        """Estimate from finite values; `odd` makes the map odd, so that a symmetric input stays symmetric."""
        ordered = np.sort(np.concatenate((values, -values)) if odd else values)
        upper = Tail.fit(ordered, heaviest)
        lower = upper if odd else Tail.fit(-ordered[::-1], heaviest)
        outermost = 0.5 / len(ordered)
        levels = np.linspace(max(lower.share, outermost), 1 - max(upper.share, outermost), _KNOTS)
        knots = np.clip(np.quantile(ordered, levels), -lower.threshold, upper.threshold)
        knots[0], knots[-1] = -lower.threshold, upper.threshold
        return cls((knots - knots[::-1]) / 2 if odd else knots, levels, lower, upper)

    def normal(self, values: FloatArray, rng: np.random.Generator | None = None) -> FloatArray:
        """Return the standard normal scores of finite values; ties are broken by `rng`, or land midway without it."""
        levels = np.interp(values, self.knots, self.levels)
        if rng is not None or (self.knots[1:] == self.knots[:-1]).any():
            first = np.searchsorted(self.knots, values, side="left")
            last = np.searchsorted(self.knots, values, side="right") - 1
            tied = last >= first
            top = len(self.knots) - 1
            low, high = self.levels[np.clip(first, 0, top)], self.levels[np.clip(last, 0, top)]
            levels = np.where(tied, low + (high - low) * (0.5 if rng is None else rng.random(values.shape)), levels)
        if self.upper.share:
            levels = np.where(values > self.upper.threshold, 1 - self.upper.exceedance(values), levels)
        if self.lower.share:
            levels = np.where(-values > self.lower.threshold, self.lower.exceedance(-values), levels)
        return np.asarray(ndtri(np.clip(levels, _SMALLEST_SHARE, 1 - _SMALLEST_SHARE)))

    def value(self, normal: FloatArray) -> FloatArray:
        """Return the values with these standard normal scores."""
        below, above = ndtr(normal), ndtr(-normal)
        values = np.interp(below, self.levels, self.knots)
        if self.upper.share:
            values = np.where(above < self.upper.share, self.upper.quantile(above), values)
        if self.lower.share:
            values = np.where(below < self.lower.share, -self.lower.quantile(below), values)
        return values

    def arrays(self) -> dict[str, FloatArray]:
        """Return the state as arrays."""
        tails = [list(asdict(tail).values()) for tail in (self.lower, self.upper)]
        return {"knots": self.knots, "levels": self.levels, "tails": np.array(tails)}

    @classmethod
    def from_arrays(cls, state: dict[str, FloatArray]) -> Self:
        """Read back what `arrays` gave."""
        lower, upper = (Tail(*map(float, row)) for row in state["tails"])
        return cls(state["knots"], state["levels"], lower, upper)
