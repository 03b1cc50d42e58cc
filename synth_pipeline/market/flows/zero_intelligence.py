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
its sight go on from it: λ(d) ~ d^-α, fitted from where λ is highest on, and θ(d) ~ 1 / d (`placement.extended`).
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.generators.inference import Estimate
from synth_pipeline.market.book import Book
from synth_pipeline.market.compiling import kernel, njit
from synth_pipeline.market.engine import ASK, BID, cancel, limit
from synth_pipeline.market.engine import market as send_market
from synth_pipeline.market.flows import DONE, FULL
from synth_pipeline.market.flows.calibrated import FEWEST_TOLD, Calibrated, Loop, Opening, Parameters
from synth_pipeline.market.flows.day_shape import FLAT, next_candidate, shape_of
from synth_pipeline.market.flows.opening import deepened, opening_of
from synth_pipeline.market.flows.pace import CANCELS, LIMITS, TAKES, Pace, draw_lots
from synth_pipeline.market.flows.placement import (
    Distances,
    class_at,
    distances_up_to,
    draw_distance,
    on_tick,
    reach_of,
)
from synth_pipeline.market.flows.replaying import Record, record_of
from synth_pipeline.market.flows.response import Guide, fair_ticks, respond
from synth_pipeline.market.flows.sizes import Sizes, sizes_of
from synth_pipeline.market.flows.stability import settle
from synth_pipeline.market.flows.tallying import Tally, rates_of, rescaled_waits, tally, waiting_tests
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import stream
from synth_pipeline.schema import Scale
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import LIMIT, Messages

_SPARE_ROWS = 16


class Law(NamedTuple):
    """Rates and sizes as the compiled loop needs them."""

    distances: Distances
    limit_rates: FloatArray
    """Per second, side and tick, by class."""
    cancel_rates: FloatArray
    """Per second and order."""
    market_rate: float
    """Per second and side."""
    sizes: Sizes
    """Group c is of limit orders of class c, the last one of market orders."""
    day: FloatArray
    """Factor of each part of the day."""


class ZeroIntelligence(Calibrated[Law]):
    """The flow of Cont, Stoikov and Talreja with sizes and a time of day."""

    Law = Law

    @classmethod
    def example(cls, parameters: Parameters | None = None) -> Self:
        """Return a flow of round numbers on a book in its long-run state, to try things on without data."""
        flow = cls(parameters)
        distances = distances_up_to(flow.parameters.reach_ticks or 50)
        classes, lots = distances.edges.size - 1, np.arange(1, 13)
        groups = np.append(np.repeat(np.arange(classes), lots.size), np.full(lots.size, classes))
        sizes = sizes_of(np.tile(lots, classes + 1), groups, [np.array([each]) for each in range(classes + 1)])
        limits, cancels = 0.8 * distances.middles**-0.5, 0.2 * distances.middles**-0.1
        flow._law = Law(distances, limits, cancels, 0.5, sizes, FLAT)
        touch = np.array([[BID, 10_000, 5], [ASK, 10_001, 5]])
        levels = deepened(touch, distances, limits, cancels, sizes, stream(0, "example"))
        scale = Scale(Decimal("0.01"), Decimal("1"))
        flow._opening = Opening(levels, scale, distances.class_of.size - 1, 1.0, float(lots.mean()))
        named = zip(distances.names, limits.tolist(), cancels.tolist(), strict=True)
        flow.estimates = {"market_rate": Estimate(0.5, None)}
        for name, limit_rate, cancel_rate in named:
            flow.estimates[f"limit_rate_{name}"] = Estimate(limit_rate, None)
            flow.estimates[f"cancel_rate_{name}"] = Estimate(cancel_rate, None)
        return flow

    def fit(self, messages: Messages, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate from messages, as `OrderFlow.fit` says."""
        progress(0, 2, "counting")
        found = record_of(messages)
        distances = distances_up_to(self.parameters.reach_ticks or reach_of(found.placed, messages.depth))
        day, flat = shape_of(messages.time_ns, messages.spans)
        self.notes = (*found.notes, *([flat] if flat else []))
        self._estimate(found, distances, day)
        progress(1, 2, "opening")
        law, reach = self.law, distances.class_of.size - 1
        levels = opening_of(messages, reach)
        if messages.depth:
            levels = deepened(levels, distances, law.limit_rates, law.cancel_rates, law.sizes, rng)
        self._opening = Opening(levels, messages.scale, reach, found.spread, found.unit)
        progress(2, 2, "fitted")
        return self

    def fit_like(self, messages: Messages, truth: Self) -> Self:
        """Estimate with the classes and the time of day of another one, whose parameters can thus be compared."""
        found = replace(record_of(messages), unit=truth.opening.unit)
        self._estimate(found, truth.law.distances, truth.law.day)
        return self

    def _estimate(self, found: Record, distances: Distances, day: FloatArray) -> None:
        counted = tally(found.rows, distances, day, found.unit)
        rates, placing = rates_of(counted, distances)
        self._law = Law(distances, *rates, _sizes(found, counted, distances), day)
        self.diagnostics = {
            **waiting_tests(rescaled_waits(found.rows, distances, day, found.unit, rates)),
            "placement_exponent": placing.exponent,
            "placement_exponent_se": placing.error,
        }
        self.estimates = _estimates(distances, counted)

    def _loop(self, market: Market, pace: Pace, rng: np.random.Generator) -> Loop:
        law, state = self.law, _start_state(market)
        return lambda until_ns, guide: int(_advance(market, law, pace, state, guide, until_ns, rng))


def _estimates(distances: Distances, counted: Tally) -> dict[str, Estimate]:
    """Return n / T and √n / T wherever enough happened to tell an interval."""
    found = {"market_rate": _rate(counted.markets[0], counted.seconds[0])}
    for which, name in enumerate(distances.names):
        for kind, count, exposure in (
            ("limit", counted.limits[which], counted.tick_seconds[which]),
            ("cancel", counted.cancels[which], counted.order_seconds[which]),
        ):
            if count >= FEWEST_TOLD and exposure > 0:
                found[f"{kind}_rate_{name}"] = _rate(count, exposure)
    return found


def _rate(count: float, exposure: float) -> Estimate:
    return Estimate(float(count / exposure), float(np.sqrt(count) / exposure))


def _sizes(found: Record, counted: Tally, distances: Distances) -> Sizes:
    """Return sizes by class, of neighbouring classes where one has too few, and last of market orders."""
    rows, classes = found.rows, distances.edges.size - 1
    placed = (rows.kind == LIMIT) & (counted.classes >= 0)
    taken = rows.takes > 0
    sizes = np.concatenate((rows.size[placed], rows.takes[taken]))
    groups = np.concatenate((counted.classes[placed], np.full(int(taken.sum()), classes)))
    wider = [np.arange(max(which - 2, 0), min(which + 3, classes)) for which in range(classes)]
    return sizes_of(sizes, groups, [*wider, np.array([classes])])


class State(NamedTuple):
    """Where a run stands; one entry each."""

    since_ns: IntArray
    """When the last candidate came."""
    next_ns: IntArray
    """When the next one comes; 0 where that is not drawn yet."""
    high_slot: IntArray
    """The highest slot that an order of the flow had."""
    opened: FloatArray
    """The mid at the start, ticks."""


def _start_state(market: Market) -> State:
    sides, used = market.book.sides, np.flatnonzero(market.book.orders.order_id)
    return State(
        np.array([market.clock.now_ns[0]]),
        np.array([0]),
        np.array([used.max(initial=0)]),
        np.array([0.5 * (sides.best[BID] + sides.best[ASK])]),
    )


@njit(cache=True)
def _advance(
    market: Market, law: Law, pace: Pace, state: State, guide: Guide, until_ns: int, rng: np.random.Generator
) -> int:
    """Run up to a time; the next candidate waits in `state`, so where the time is cut makes no difference."""
    book, clock = market.book, market.clock[0]
    if pace.is_new[0]:
        state.since_ns[0], state.next_ns[0], pace.is_new[0] = clock.now_ns, 0, 0
    cumulative = np.cumsum(law.limit_rates * np.diff(law.distances.edges))
    rates = pace.speed[0] * pace.rates
    placed, taken = cumulative[-1] * rates[LIMITS], law.market_rate * rates[TAKES]
    limits, markets, responses = placed.sum(), taken.sum(), guide.rate * pace.response[0]
    cumulative /= cumulative[-1]
    fastest = law.cancel_rates.max() * rates[CANCELS].max()
    while True:
        if not has_room(market, book.sides[BID].orders + book.sides[ASK].orders + _SPARE_ROWS):
            return FULL
        drawn, slot = _next_event(
            book, law, rates[CANCELS], fastest, state, limits + markets + responses, until_ns, rng
        )
        if drawn < 0.0:
            clock.now_ns = until_ns
            return DONE
        clock.now_ns = now_ns = state.since_ns[0]
        if slot > 0:
            changed = cancel(book, market.journal, book.orders[slot].order_id) > 0
        elif drawn < limits:
            changed = _place(market, law, pace, BID if drawn < placed[BID] else ASK, cumulative, state, rng)
        elif drawn < limits + markets:
            met = ASK if drawn - limits < taken[ASK] else BID
            lots = draw_lots(pace, TAKES, met, law.sizes, cumulative.size, rng)
            changed = send_market(book, market.journal, 1 - met, lots) > 0
        else:
            # A sum that was rounded may end here although nobody responds.
            changed = responses > 0.0 and respond(market, guide, law.sizes, 0, cumulative.size, now_ns, rng)
        if changed:
            record(market, now_ns)
            code = settle(market, fair_ticks(guide, now_ns) if guide.rate > 0 else state.opened[0])
            if code != 0:
                return code


@kernel
def _next_event(
    book: Book, law: Law, by_side: FloatArray, fastest: float, state: State, others: float, until_ns: int,
    rng: np.random.Generator,
) -> tuple[float, int]:  # fmt: skip
    """Return the slot of the order that is cancelled next, or 0 and where in 0 … others another event was drawn.

    The first is negative when neither happens by `until_ns`. A candidate cancellation takes any slot; an order of the
    flow's own that stands there is cancelled with the share that its rate, times `by_side`, is of the `fastest`.
    """
    orders, sides, high_slot = book.orders, book.sides, state.high_slot[0]
    rates, class_of = law.cancel_rates, law.distances.class_of
    cancels = fastest * high_slot
    while True:
        if next_candidate(law.day, state.since_ns, state.next_ns, cancels + others, until_ns, rng) < 0:
            return -1.0, 0
        drawn = rng.random() * (cancels + others)
        if drawn >= cancels:
            return drawn - cancels, 0
        place = drawn / fastest
        slot = int(place)
        order = orders[1 + slot]
        if order.order_id == 0 or order.owner != 0:
            continue
        best = sides[1 - order.side].best
        distance = best - order.price if order.side == BID else order.price - best
        if place - slot < rates[class_of[min(max(distance, 0), class_of.size - 1)]] * by_side[order.side] / fastest:
            return 0.0, 1 + slot


@kernel
def _place(
    market: Market, law: Law, pace: Pace, side: int, cumulative: FloatArray, state: State, rng: np.random.Generator
) -> bool:
    """Send a limit order; one below the lowest price that there is does not come."""
    distance = draw_distance(law.distances, cumulative, rng)
    other = market.book.sides[1 - side].best
    price = on_tick(market.book, side, other - distance if side == BID else other + distance)
    lots = draw_lots(pace, LIMITS, side, law.sizes, class_at(law.distances, distance), rng)
    order_id = limit(market.book, market.journal, side, price, lots)
    if order_id <= 0:
        return False
    state.high_slot[0] = max(state.high_slot[0], order_id & (market.book.orders.size - 1))
    return True
