"""A synthetic order book beside a real one: every statistic with its intervals, what real data score, the means.

The floor of a statistic is the same score of real messages against other real ones: halves of one sample, or fresh
later data. Means run over the unconditional statistics, as the leaderboard of LOB-Bench does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import book_scores, order_book
from synth_pipeline.fidelity.book_sample import BookSample
from synth_pipeline.fidelity.book_scores import Score
from synth_pipeline.fidelity.impact import IMPACT
from synth_pipeline.fidelity.order_book import STATISTICS, ConditionalStatistic
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray

Distance = Literal["l1", "wasserstein"]
HORIZON = 100
"""Messages of one block of the divergence over the horizon."""


@dataclass(frozen=True)
class Row:
    """One statistic."""

    name: str
    l1: Score | None
    """Total variation; None where it cannot be computed, and `reason` says why."""
    wasserstein: Score | None
    reason: str = ""
    l1_floor: float | None = None
    """Of real against real; None without a floor."""
    wasserstein_floor: float | None = None


@dataclass(frozen=True)
class BookComparison:
    """What `compare` found."""

    rows: tuple[Row, ...]
    """Of the unconditional statistics, then of the conditional ones, in LOB-Bench's order."""
    impact: dict[str, float]
    """Mean absolute difference of the response functions, ticks."""
    absent: dict[str, str]
    """Response functions that cannot be computed, and why."""

    def mean(self, distance: Distance) -> float:
        """Return the mean over the unconditional statistics that there are."""
        return float(np.mean(self._values(distance)))

    def median(self, distance: Distance) -> float:
        """Return the median over the same."""
        return float(np.median(self._values(distance)))

    def interquartile_mean(self, distance: Distance) -> float:
        """Return the mean of the middle half of the same."""
        values = np.sort(self._values(distance))
        cut = values.size // 4
        return float(values[cut : values.size - cut].mean())

    def floor_mean(self, distance: Distance) -> float:
        """Return the mean of the floors of the same statistics; NaN without any."""
        name: Literal["l1_floor", "wasserstein_floor"] = "l1_floor" if distance == "l1" else "wasserstein_floor"
        found = [getattr(row, name) for row in self._unconditional(distance) if getattr(row, name) is not None]
        return float(np.mean(found)) if found else float("nan")

    def _unconditional(self, distance: Distance) -> list[Row]:
        rows = [row for row in self.rows if not isinstance(STATISTICS[row.name], ConditionalStatistic)]
        return [row for row in rows if getattr(row, distance) is not None]

    def _values(self, distance: Distance) -> FloatArray:
        found = [getattr(row, distance).value for row in self._unconditional(distance)]
        if not found:
            raise MetricError("no statistic of the order book could be computed: take more messages")
        return np.array(found)


def compare(
    real: BookSample,
    synthetic: BookSample,
    *,
    rng: np.random.Generator,
    floor: tuple[BookSample, BookSample] | None = None,
    progress: Progress = silent,
) -> BookComparison:
    """Score a synthetic sample against a real one; `floor` are two real samples for real against real."""
    rows = []
    for number, statistic in enumerate(STATISTICS.values(), start=1):
        try:
            l1, wasserstein = statistic.compare(real, synthetic, rng=rng)
            rows.append(Row(statistic.name, l1, wasserstein, "", *_floor(statistic, floor, rng)))
        except MetricError as error:
            rows.append(Row(statistic.name, None, None, str(error)))
        progress(number, len(STATISTICS), statistic.title)
    impact, absent = {}, {}
    for name, function in IMPACT.items():
        try:
            impact[name] = function.compare(real, synthetic)
        except MetricError as error:
            absent[name] = str(error)
    return BookComparison(tuple(rows), impact, absent)


def _floor(
    statistic: order_book.BookStatistic, floor: tuple[BookSample, BookSample] | None, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    if floor is None:
        return None, None
    try:
        l1, wasserstein = statistic.compare(*floor, rng=rng)
    except MetricError:
        return None, None
    return l1.value, wasserstein.value


def halves(sample: BookSample) -> tuple[BookSample, BookSample]:
    """Return the messages of the first and of the second half of the time."""
    middle = (int(sample.time_ns[0]) + int(sample.time_ns[-1])) // 2
    return sample.rows(sample.time_ns < middle), sample.rows(sample.time_ns >= middle)


def divergence(real: BookSample, synthetic: Sequence[BookSample], blocks: int) -> dict[str, FloatArray]:
    """Return, by statistic, the total variation over the horizon: of the k-th 100 messages of all synthetic paths.

    Paths should begin from the real book; then the score says how far from it they have drifted. NaN where a block does
    not define a statistic.
    """
    found = {}
    for name, statistic in STATISTICS.items():
        if isinstance(statistic, ConditionalStatistic):
            continue
        reference = order_book.all_values(statistic, real)
        found[name] = np.full(blocks, np.nan)
        for block in range(blocks):
            cut = slice(block * HORIZON, (block + 1) * HORIZON)
            parts = [order_book.all_values(statistic, path.rows(cut)) for path in synthetic if len(path) > cut.start]
            values = np.concatenate([*parts, np.empty(0)])
            if values.size and reference.size:
                found[name][block] = book_scores.total_variation(reference, values, discrete=statistic.discrete)
    return found
