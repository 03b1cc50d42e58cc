"""Zero intelligence: orders come at rates that know nothing but their distance from the other side's best price.

Cont, Stoikov and Talreja (2010), "A stochastic model for order book dynamics", Oper. Res. 58, section 2, after Smith,
Farmer, Gillemot and Krishnamurthy (2003), Quant. Finance 3. On each side, all independent:

- limit orders come at each distance d at the rate λ(d) a tick;
- market orders come at the rate μ and trade up to their size;
- each resting order at distance d is cancelled at the rate θ(d).

All rates share the factor a(t) of the time of day. λ and θ are constant over the classes of `placement`, the same for
both sides: with n events in an exposure of T (seconds times ticks, seconds, seconds times orders) the maximum of the
Poisson likelihood is n / T, its standard error √n / T. Sizes are drawn from those seen (`sizes`). Simulation is exact:
candidates come at the highest rate that an order can have, and are kept in proportion (thinning; Lewis and Shedler
1979), so that every choice depends on the book at that moment only.

From level changes the number of orders is inferred (`replaying.apply`). Where a source shows few levels, rates beyond
its sight go on as the power law λ(d) ~ d^-α fitted within it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit

from synth_pipeline.errors import InputError
from synth_pipeline.generators.inference import Estimate
from synth_pipeline.market.engine import ASK, BID, cancel, limit
from synth_pipeline.market.engine import market as send_market
from synth_pipeline.market.flows import DONE, FULL, OrderFlow, Run, saving
from synth_pipeline.market.flows.day_shape import after_wait, shape_of
from synth_pipeline.market.flows.opening import follow_band, open_market, opening_of
from synth_pipeline.market.flows.placement import (
    Distances,
    class_at,
    distances_up_to,
    draw_distance,
    power_law,
    reach_of,
)
from synth_pipeline.market.flows.replaying import Tally, rescaled_waits, rows_of, tally
from synth_pipeline.market.flows.response import Guide, fair_ticks, guided, respond
from synth_pipeline.market.flows.sizes import Sizes, draw_size, sizes_of
from synth_pipeline.market.flows.stability import NO_SLOT, broken
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, Messages

_PRIOR = 0.5
"""Cancellations, at the mean rate, that each class is given beside its own: no order stays for ever."""
_LIMITS, _TAKES = 0, 1
"""Of the groups that sizes are drawn from, the first and the last are of these."""


@dataclass(frozen=True)
class Parameters:
    """What a user may set."""

    reach_ticks: int = 0
    """Furthest distance of new orders from the other side's best; 0 lets the record tell."""
    response_rate: float = 20.0
    """Comparisons with the fundamental price per second, where there is one."""
    pool: int = 2**16
    """Orders that the book can hold."""


class Law(NamedTuple):
    """The rates and sizes as the compiled loop needs them."""

    distances: Distances
    limit_rates: FloatArray
    """Per second, side and tick, by class."""
    cancel_rates: FloatArray
    """Per second and order."""
    market_rate: float
    """Per second and side."""
    sizes: Sizes
    """Group c is limit orders of class c, the last one market orders."""
    day: FloatArray
    """Factor of each part of the day."""


class ZeroIntelligence(OrderFlow):
    """The flow of Cont, Stoikov and Talreja with sizes and a time of day."""

    Parameters = Parameters

    def __init__(self, parameters: Parameters | None = None) -> None:
        super().__init__(parameters)
        self.law: Law | None = None
        self.estimates: dict[str, Estimate] = {}
        self.opening: IntArray = np.zeros((0, 3), dtype=np.int64)
        self.tick_size = 1.0
        self.tolerance = 1.0

    def fit(self, messages: Messages, *, rng: np.random.Generator, progress: Progress = silent) -> Self:  # noqa: ARG002
        rows, distance, _ = rows_of(messages)
        progress(0, 3, "counting")
        limits = distance[(rows.kind == LIMIT) & (distance > 0)]
        distances = distances_up_to(self.parameters.reach_ticks or reach_of(limits))
        day, flat = shape_of(messages.time_ns, messages.spans)
        return self._estimate(messages, rows, distances, day, [flat] if flat else [], progress)

    def fit_like(self, other: ZeroIntelligence, messages: Messages) -> Self:
        """Estimate with the classes and the time of day of another one."""
        law = other.fitted()
        return self._estimate(messages, rows_of(messages)[0], law.distances, law.day, [], silent)

    def _estimate(
        self, messages: Messages, rows: Rows, distances: Distances, day: FloatArray, notes: list[str], progress: Progress
    ) -> Self:
        unit = usual_lots(messages)
        counted = tally(rows, distances, day, unit)
        placing = power_law(distances, counted.limits, counted.tick_seconds)
        self.estimates = _estimates(distances, counted, placing)
        limit_rates, cancel_rates = _rates(distances, counted, placing)
        sizes = _sizes(rows, counted, distances)
        self.law = Law(distances, limit_rates, cancel_rates, self.estimates["market_rate"].value, sizes, day)
        progress(1, 3, "testing")
        rates = Rates(limit_rates, cancel_rates, self.law.market_rate)
        self.diagnostics = waiting_tests(rescaled_waits(rows, distances, day, unit, rates))
        self.notes = notes + notes_of(messages) + _unseen(distances, counted)
        progress(2, 3, "opening")
        self.opening = opening_of(messages, distances.class_of.size - 1)
        self.tick_size = float(messages.scale.tick_size)
        self.tolerance = tolerance_of(messages)
        progress(3, 3, "fitted")
        return self
