"""Market impact: how the mid price goes on after an order of each kind, on average over a sample.

The response of kind π at lag l is R(l) = < (m(t + l) - m(t)) ε(t) > over the messages t of that kind, in ticks, where m
is the mid *before* a message and ε is the direction in which it presses: a buy, a bid that is placed and an ask that is
cancelled press up. Kinds are executions, placements and cancellations at the best level, each with and without a move
of the mid by the message itself (Eisler, Bouchaud, Kockelkoren 2012, "The price impact of order book events",
Quantitative Finance 12(9); as in LOB-Bench).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.book_sample import CANCEL, LIMIT, MARKET, BookSample
from synth_pipeline.series import FloatArray

LAGS = np.unique(np.geomspace(1, 200, 20).round().astype(np.int64))
"""Messages after which the response is looked at."""
MINIMUM = 100
Response = Callable[[BookSample], FloatArray]


@dataclass(frozen=True, eq=False, kw_only=True)
class ImpactFunction:
    """A response function, and what is known about it."""

    name: str
    response: Response
    """The response at every one of `LAGS`, in ticks."""
    title: str
    what: str
    goal: str = "low"
    bounds: tuple[float, float] = (0.0, inf)
    minimum: int = MINIMUM
    """Fewest messages of the kind."""
    citation: str = "Eisler, Bouchaud, Kockelkoren 2012, Quantitative Finance 12(9); Nagy et al. 2025, LOB-Bench, ICML"

    def compare(self, real: BookSample, synthetic: BookSample) -> float:
        """Return the mean absolute difference of the responses over all lags, in ticks.

        Raises `MetricError` where a sample has too few messages of the kind.
        """
        return float(np.abs(self.response(real) - self.response(synthetic)).mean())


IMPACT: dict[str, ImpactFunction] = {}
"""All response functions by name."""


def impact(*, title: str) -> Callable[[Response], ImpactFunction]:
    """Declare a function of a sample to be the response function of its name."""

    def declare(function: Response) -> ImpactFunction:
        what = (function.__doc__ or "").partition("\n\n")[0].strip()
        made = ImpactFunction(name=function.__name__, response=function, title=title, what=what)
        IMPACT[made.name] = made
        return made

    return declare


@impact(title="After an execution")
def impact_market(sample: BookSample) -> FloatArray:
    """Response to an execution that leaves the mid as it was."""
    return _response(sample, MARKET, moves=False)


@impact(title="After an execution that moves the mid")
def impact_market_moving(sample: BookSample) -> FloatArray:
    """Response to an execution that moves the mid."""
    return _response(sample, MARKET, moves=True)


@impact(title="After a placement")
def impact_limit(sample: BookSample) -> FloatArray:
    """Response to an order placed at the best level that leaves the mid as it was."""
    return _response(sample, LIMIT, moves=False)


@impact(title="After a placement that moves the mid")
def impact_limit_moving(sample: BookSample) -> FloatArray:
    """Response to an order that is placed and moves the mid."""
    return _response(sample, LIMIT, moves=True)


@impact(title="After a cancellation")
def impact_cancel(sample: BookSample) -> FloatArray:
    """Response to an order cancelled at the best level that leaves the mid as it was."""
    return _response(sample, CANCEL, moves=False)


@impact(title="After a cancellation that moves the mid")
def impact_cancel_moving(sample: BookSample) -> FloatArray:
    """Response to an order that is cancelled and moves the mid."""
    return _response(sample, CANCEL, moves=True)


def _response(sample: BookSample, kind: int, *, moves: bool) -> FloatArray:
    # The mid before a message is the one after the message before it.
    before = np.append(np.nan, sample.mid[:-1])
    before[~sample.follows] = np.nan
    moved = sample.mid != before
    chosen = (sample.kind == kind) & (sample.level == 1) & (moved == moves) & np.isfinite(before + sample.mid)
    presses = np.where(kind == LIMIT, sample.side, -sample.side)
    found = np.full(LAGS.size, np.nan)
    for place, lag in enumerate(LAGS.tolist()):
        rows = np.flatnonzero(chosen[: len(sample) - lag + 1])
        # After l messages from t on stands the mid after message t + l - 1, of the same stretch.
        later = rows + lag - 1
        same = sample.stretch[later] == sample.stretch[rows]
        change = ((sample.mid[later] - before[rows]) * presses[rows])[same]
        change = change[np.isfinite(change)]
        if change.size < MINIMUM:
            verb = "move" if moves else "leave"
            raise MetricError(f"{change.size} such messages {verb} the mid, {MINIMUM} are needed for a response")
        found[place] = change.mean()
    return found
