"""Scoring many candidates against one base series: the fidelity of `weighted`, with all that depends on the base known.

Candidate and base are compared at equal lengths: the longer one is cut into windows as long as the shorter one, and its
statistics are means over windows. Candidates come in pieces and are scored on the way: memory holds a piece and a batch
of windows, which are no longer than the base, however long the candidates are. A score is the same to the bit whatever
the pieces and in whatever company. What is done with a score is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.fidelity import moments, weighted
from synth_pipeline.fidelity.comparison import SHORTEST
from synth_pipeline.fidelity.copying import looked_at
from synth_pipeline.fidelity.metric import StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.sample import Sample, log_returns
from synth_pipeline.series import FloatArray, Series

_BATCH = 2**17
"""Returns whose statistics are computed in one go: few enough for the cache, enough to make calls cheap."""


@dataclass(frozen=True, eq=False)
class Base:
    """A real series to score candidates of `steps` steps against, and its twelve statistics."""

    sample: Sample
    steps: int
    length: int
    """Returns of a window."""
    twelve: tuple[StatisticMetric, ...]
    levels: FloatArray
    """Their statistics, shape (12,)."""
    looked_at: int
    """How many of a candidate's first returns are searched for copies."""

    @classmethod
    def of(cls, series: Series, steps: int) -> Self:
        """Compute the statistics.

        Raises `TooLittleDataError` when series or candidates are too short for one of them, or the price never moves.
        """
        found = metrics(["weighted"]).values()
        twelve = tuple(metric for metric in found if isinstance(metric, StatisticMetric) and metric.weight > 0)
        longest = max(twelve, key=lambda metric: metric.minimum)
        told = f"all twelve metrics make the score, and {longest.name} needs {longest.minimum} returns"
        if steps <= longest.minimum:
            raise TooLittleDataError(f"paths of {steps} steps cannot be scored: {told}; ask for longer paths")
        sample, length = Sample.of(series), min(series.steps, steps) - 1
        windows = sample.windows(max(length, 1))
        if (known := int(windows.counts.max(initial=0))) < longest.minimum:
            raise TooLittleDataError(f"a base series of {known} known returns cannot be scored against: {told}")
        levels = moments.mean(_statistics(twelve, windows.with_at_least(SHORTEST)))
        if lacking := [metric.name for metric, level in zip(twelve, levels, strict=True) if not np.isfinite(level)]:
            raise TooLittleDataError(
                f"the base series does not define {', '.join(lacking)}: its price never moves, or gaps cut it to "
                f"pieces; take a longer or livelier stretch"
            )
        return cls(sample, steps, length, twelve, levels, looked_at(sample))

    def similarities(self, levels: FloatArray) -> FloatArray:
        """Return the similarity, in [0, 1], of each statistic to the base's; (candidates, 12) → the same shape.

        0 for one that a candidate leaves undefined: a path that stands still resembles nothing.
        """
        pairs = zip(self.twelve, self.levels, levels.T, strict=True)
        found = [metric.compare(np.full_like(column, level), column) for metric, level, column in pairs]
        return np.nan_to_num(np.stack(found, axis=1), nan=0.0)

    def scores(self, similarities: FloatArray) -> FloatArray:
        """Return the 0-100 fidelity of each candidate; (candidates, 12) → (candidates,)."""
        return weighted.fidelity(dict(zip(self.twelve, similarities.T, strict=True)))

    def lost(self, similarities: FloatArray) -> FloatArray:
        """Return the points of 100 that each metric costs, shape as given."""
        weights = np.array([metric.weight for metric in self.twelve])
        lost: FloatArray = 100.0 * (1.0 - similarities) * weights / weights.sum()
        return lost


class Scored(NamedTuple):
    """What scoring knows of one candidate."""

    score: float
    lost: FloatArray
    """Points of 100 that each of the twelve metrics costs, shape (12,)."""
    head: FloatArray
    """Its first log-returns, as many as the search for copies looks at."""
    typical: float
    """Median price along them."""


class Scorer:
    """Takes candidates piece by piece, one after the other, and scores them."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._number: int | None = None
        self._heads: dict[int, list[FloatArray]] = {}
        self._opens: dict[int, float] = {}
        self._found: dict[int, list[FloatArray]] = {}
        self._waiting: list[tuple[int, FloatArray]] = []

    def add(self, number: int, prices: FloatArray) -> None:
        """Take the next prices, shape (steps,), of candidate `number`, or the first ones of another."""
        if number != self._number:
            self._number, self._skip = number, (self.base.steps - 1) % self.base.length
            self._last, self._rest = prices[:0], prices[:0]
            self._heads[number], self._found[number], self._opens[number] = [], [], float(prices[0])
        whole = np.concatenate((self._last, prices))
        returns, self._last = log_returns(whole), whole[-1:]
        if (room := self.base.looked_at - sum(map(len, self._heads[number]))) > 0:
            self._heads[number].append(returns[:room].copy())
        kept = np.concatenate((self._rest, returns[self._skip :]))
        self._skip = max(self._skip - returns.size, 0)
        full = kept.size - kept.size % self.base.length
        self._rest = kept[full:]
        if full:
            self._waiting.append((number, kept[:full].reshape(-1, self.base.length)))
        if sum(windows.size for _, windows in self._waiting) >= _BATCH:
            self._compute()

    def _compute(self) -> None:
        """Compute the statistics of the windows that wait."""
        if not self._waiting:
            return
        statistics = _statistics(self.base.twelve, Sample(np.concatenate([windows for _, windows in self._waiting])))
        ends = np.cumsum([len(windows) for _, windows in self._waiting])
        for (number, _), found in zip(self._waiting, np.split(statistics, ends[:-1], axis=1), strict=True):
            self._found[number].append(found)
        self._waiting = []

    def finish(self) -> dict[int, Scored]:
        """Return every candidate taken so far, by number, and forget them."""
        self._compute()
        levels = np.array([moments.mean(np.concatenate(found, axis=1)) for found in self._found.values()])
        similarities = self.base.similarities(levels)
        numbers, scores, lost = self._found, self.base.scores(similarities), self.base.lost(similarities)
        heads = {number: np.concatenate(pieces) for number, pieces in self._heads.items()}
        typical = {number: self._opens[number] * float(np.median(np.exp(np.cumsum(heads[number])))) for number in heads}
        self._number, self._heads, self._found, self._opens = None, {}, {}, {}
        return {
            number: Scored(float(score), points, heads[number], typical[number])
            for number, score, points in zip(numbers, scores, lost, strict=True)
        }


def _statistics(twelve: tuple[StatisticMetric, ...], windows: Sample) -> FloatArray:
    """Return every statistic of every window, shape (12, windows), NaN where one is undefined."""
    return np.stack([metric.levels(windows) for metric in twelve])
