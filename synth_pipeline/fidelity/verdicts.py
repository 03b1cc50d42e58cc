"""Verdicts: where each value lies beside what real data give, so that many at once raise few false alarms.

A band that holds 90 % of real numbers leaves out one of ten, and a report has dozens. So the bands of one evaluation
are widened together, by one factor on the scale of each: the 95 % quantile, over resamples of real data, of the
largest excess of any number. All real numbers then lie inside together in 95 of 100 cases, whatever their dependence,
which the resamples share (Westfall and Young 1993, Resampling-Based Multiple Testing). What lies outside is taken out
and the factor computed anew from what is left, until nothing more falls out: the step-down of Romano and Wolf (2005,
Econometrica 73(4)), as safe and more powerful. Nothing here knows metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from synth_pipeline.fidelity.evaluation import Verdict
from synth_pipeline.fidelity.metric import Goal, Scale
from synth_pipeline.series import FloatArray

BAND = (0.05, 0.95)
FALSE_ALARMS = 0.05
"""Chance that any of the numbers of real data is called other than indistinguishable."""
FEW = 20
"""Draws below which quantiles mean nothing: such a number is judged by the range of all real ones."""


class Judgement(NamedTuple):
    """What is said of one number."""

    verdict: Verdict
    excess: float
    """How far it lies beyond the band of real numbers, in half-widths of the band; 0 inside."""


@dataclass(frozen=True, eq=False)
class Question:
    """One number, and the real numbers that it is judged by."""

    value: float
    draws: FloatArray
    """What resamples of real data give, NaN where one leaves it undefined."""
    real: tuple[float, ...]
    """What real data themselves give: never outside."""
    goal: Goal
    margin: float = 0.0
    scale: Scale = "linear"

    @cached_property
    def _known(self) -> FloatArray:
        draws = _scaled(self.draws, self.scale)
        return draws[np.isfinite(draws)]

    @cached_property
    def _band(self) -> tuple[float, float, float, float]:
        """Lower and upper end of the band, and its half-widths below and above the middle, or its tails if longer."""
        if self._known.size < FEW:
            everything = np.concatenate([self._known, _scaled(np.array(self.real), self.scale)])
            low, high = float(everything.min()), float(everything.max())
            return low, high, high - low, high - low
        furthest_low, low, middle, high, furthest_high = np.quantile(self._known, (0.01, BAND[0], 0.5, BAND[1], 0.99))
        # A number with a long tail, such as a p-value, must not widen the bands of all others.
        down = max(middle - low, low - furthest_low, self.margin)
        up = max(high - middle, furthest_high - high, self.margin)
        return float(low), float(high), float(down), float(up)

    def excess(self) -> float:
        """Return how far the value lies beyond the band and the real values, in half-widths of the band."""
        real = _scaled(np.array([self.value, *self.real]), self.scale)
        value, known = float(real[0]), real[1:][np.isfinite(real[1:])]
        if not np.isfinite(value):
            return np.inf
        low, high, down, up = self._band
        above = value - max(high, *known) - self.margin
        below = min(low, *known) - self.margin - value
        beyond = {"low": (above, up), "high": (below, down), "target": max((above, up), (below, down))}[self.goal]
        return _quotient(*beyond)

    def scatter(self, count: int) -> FloatArray:
        """Return the excess of each draw beyond their own band, repeated to `count`; none of few draws."""
        low, high, down, up = self._band
        if self._known.size < FEW or not (down > 0 and up > 0):
            return np.zeros(count)
        draws = _scaled(np.resize(self.draws, count), self.scale)
        above, below = (draws - high) / up, (low - draws) / down
        beyond = {"low": above, "high": below, "target": np.maximum(above, below)}[self.goal]
        return np.asarray(np.maximum(np.nan_to_num(beyond, nan=0.0), 0.0))


def judged(questions: Mapping[str, Question]) -> tuple[dict[str, Judgement], float]:
    """Judge all numbers of one evaluation together; return also the factor that the bands were widened by at last.

    Indistinguishable: not beyond the widened band. Close: beyond it by at most another half-width of the band. Off:
    further away.
    """
    excess = {name: question.excess() for name, question in questions.items()}
    count = max((question.draws.size for question in questions.values()), default=0)
    scatter = {name: question.scatter(count) for name, question in questions.items()}
    inside, limit = set(questions), 0.0
    while inside and count:
        largest = np.max([scatter[name] for name in inside], axis=0)
        limit = float(np.quantile(largest, 1.0 - FALSE_ALARMS, method="higher"))
        outside = {name for name in inside if excess[name] > limit}
        if not outside:
            break
        inside -= outside
    return {name: Judgement(_verdict(each, limit), each) for name, each in excess.items()}, limit


def interval(draws: FloatArray) -> tuple[float, float] | None:
    """Return the 5 % and 95 % quantiles of the known draws; None when fewer than half are known."""
    known = draws[np.isfinite(draws)]
    if known.size == 0 or 2 * known.size < draws.size:
        return None
    low, high = np.quantile(known, BAND)
    return float(low), float(high)


def _verdict(excess: float, limit: float) -> Verdict:
    if excess <= limit:
        return "indistinguishable"
    return "close" if excess <= limit + 1.0 else "off"


def _scaled(values: FloatArray, scale: Scale) -> FloatArray:
    if scale == "linear":
        return np.asarray(values, np.float64)
    logarithms: FloatArray = np.log(np.where(values > 0, values, np.nan))
    return logarithms


def _quotient(beyond: float, width: float) -> float:
    if beyond <= 0:
        return 0.0
    return float(beyond / width) if width > 0 else np.inf
