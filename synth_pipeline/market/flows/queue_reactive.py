"""Queue-reactive: orders come at rates that depend on how long the queue is that they join or leave.

Huang, Lehalle and Rosenbaum (2015), "Simulating and analyzing order book data: the queue-reactive model", JASA 110,
models II and III. With the states of `queues`, on each side and independent given the book:

- at the best price, limit orders, cancellations and market orders at the rates λ^L, λ^C, λ^M of the size of the queue,
  of the class of the opposite queue, and of the width of the spread;
- at each price behind it, limit orders and cancellations at rates of the distance and of the size there, which is
  mostly zero where ticks are small: an order joins a level at another rate than it opens one;
- inside a spread of several ticks, limit orders at rates of its width and of the side whose best left last.

So the reference price moves by itself when a best queue is used up. Which way is the share θ (`theta`) of gaps that the
*other* side fills; the rest is filled by the side that left (the price comes back). Queues keep their orders when it
moves: what the paper redraws with probability θ^reinit is here remembered by the book.

All rates share the factor a(t) of the time of day; the sides are pooled. Estimates are told in `queue_law`. Sizes of
orders and shares of queues that cancellations take are drawn from those seen in the state. Where orders have ids, a
cancellation takes a whole order, at a position in the queue drawn from those seen; else it takes its share from the
back of the queue, and what joins the touch at once is several orders, of the sizes that fills show. Simulation is
exact: competing exponential times at the touch, thinning behind it.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.market.book import Book, level_bit
from synth_pipeline.market.compiling import kernel
from synth_pipeline.market.engine import ASK, BID, cancel, limit, modify
from synth_pipeline.market.engine import market as send_market
from synth_pipeline.market.flows import DONE, FULL, queues
from synth_pipeline.market.flows.calibrated import Calibrated, Loop, Opening
from synth_pipeline.market.flows.day_shape import next_candidate, shape_of
from synth_pipeline.market.flows.opening import deepened, opening_of
from synth_pipeline.market.flows.pace import CANCELS, LIMITS, TAKES, Pace, draw_lots
from synth_pipeline.market.flows.placement import class_at, distances_up_to, on_tick, reach_of
from synth_pipeline.market.flows.queue_law import Law, grid_of, growth_of, law_of, theta_of
from synth_pipeline.market.flows.queues import SPREADS, Grid
from synth_pipeline.market.flows.replaying import Record, record_of
from synth_pipeline.market.flows.response import Guide, fair_ticks, respond
from synth_pipeline.market.flows.sizes import POINTS
from synth_pipeline.market.flows.stability import settle
from synth_pipeline.market.flows.tallying import rates_of, tally, waiting_tests
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import Messages

_SPARE_ROWS = 256
_ALMOST_ONE = 1.0 - 2.0**-40
_MOST_MAKERS = 32
"""Orders that one addition consists of at most."""


class QueueReactive(Calibrated[Law]):
    """The queue-reactive flow, with sizes, a time of day and prices behind an often empty neighbourhood."""

    Law = Law

    def fit(self, messages: Messages, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate from messages, as `OrderFlow.fit` says."""
        progress(0, 2, "counting")
        found = record_of(messages)
        day, flat = shape_of(messages.time_ns, messages.spans)
        self.notes = (*found.notes, *([flat] if flat else []))
        distances = distances_up_to(self.parameters.reach_ticks or reach_of(found.placed, messages.depth))
        counts = self._estimate(found, grid_of(found, distances), day)
        self.notes = (*self.notes, *growth_of(found, counts, self.law.grid))
        progress(1, 2, "opening")
        reach = distances.class_of.size - 1
        levels = opening_of(messages, reach)
        if messages.depth:
            rates, _ = rates_of(tally(found.rows, distances, day, found.unit), distances)
            levels = deepened(levels, distances, rates.limit, rates.cancel, self.law.sizes, rng)
        self._opening = Opening(levels, messages.scale, reach, found.spread, found.unit)
        progress(2, 2, "fitted")
        return self

    def fit_like(self, messages: Messages, truth: Self) -> Self:
        """Estimate with the classes and the time of day of another one, whose parameters can thus be compared."""
        self._estimate(record_of(messages), truth.law.grid, truth.law.day)
        return self

    def _estimate(self, found: Record, grid: Grid, day: FloatArray) -> queues.Counts:
        counts = queues.count(found.rows, grid, day)
        self._law, self.estimates = law_of(found, counts, grid, day)
        waits = queues.rescaled_waits(found.rows, grid, day, self._law.rates)
        self.diagnostics = waiting_tests(waits) | theta_of(counts)
        return counts

    def _loop(self, market: Market, pace: Pace, rng: np.random.Generator) -> Loop:
        law, state, ceilings = self.law, _start_state(market), _ceilings_of(self.law)
        return lambda until_ns, guide: int(_advance(market, law, pace, state, ceilings, guide, until_ns, rng))


class State(NamedTuple):
    """Where a run stands."""

    since_ns: IntArray
    """When the last candidate came; one entry, as in the next one."""
    next_ns: IntArray
    """When the next one comes; 0 where that is not drawn yet."""
    left: IntArray
    """The side whose best left last; one entry."""
    touch: IntArray
    """Best prices and the lots there when it was last looked."""
    opened: FloatArray
    """The mid at the start, ticks; one entry."""


def _start_state(market: Market) -> State:
    touch = np.zeros(4, dtype=np.int64)
    touch[:2] = market.book.sides.best[:2]
    zero = np.zeros(1, dtype=np.int64)
    return State(market.clock.now_ns.copy(), zero.copy(), zero.copy(), touch, np.array([0.5 * touch.sum()]))


class Ceilings(NamedTuple):
    """What events are drawn from."""

    rates: FloatArray
    """Per second: of each kind inside the spread and at the best on each side, at their highest of those behind, and of
    comparisons with a fundamental price; shape (2 kinds · sides + 1,). Set anew as they change, as the next."""
    paces: FloatArray
    """Factors of the rates, as in `Pace`."""
    totals: FloatArray
    """The highest rates of all prices behind the best together, shape (2 kinds,)."""
    cumulative: FloatArray
    """Probabilities of the classes of distances, shape (2 kinds, classes + 1)."""
    highest: FloatArray
    """The highest rate of a price of a class, shape (2 kinds, classes)."""


def _ceilings_of(law: Law) -> Ceilings:
    highest = law.rates.behind.max(axis=2)
    sums = np.cumsum(highest * np.diff(law.grid.distances.edges), axis=1)
    totals = sums[:, -1].copy()
    cumulative = np.concatenate((np.zeros((2, 1)), sums / totals[:, None]), axis=1)
    return Ceilings(np.zeros(2 * _KIND_COUNT + 1), np.ones((3, 2)), totals, cumulative, highest)


@kernel
def _advance(
    market: Market, law: Law, pace: Pace, state: State, ceilings: Ceilings, guide: Guide, until_ns: int,
    rng: np.random.Generator,
) -> int:  # fmt: skip
    """Run up to a time; the next candidate waits in `state`, so where the time is cut makes no difference."""
    book, clock, is_other = market.book, market.clock[0], True
    _set_pace(pace, guide, ceilings)
    if (_watch(book, state) and state.next_ns[0] > 0) or pace.is_new[0]:
        # Somebody else has changed the touch meanwhile, or the pace: from now on other rates hold.
        state.since_ns[0], state.next_ns[0], pace.is_new[0] = clock.now_ns, 0, 0
    while True:
        if not has_room(market, book.sides[BID].orders + book.sides[ASK].orders + _SPARE_ROWS):
            return FULL
        if is_other:
            _set_rates(law, ceilings.paces, state, book.rules[0].tick, ceilings.rates)
        kind, side, price = _next_event(book, law, state, ceilings, until_ns, rng)
        if kind < 0:
            clock.now_ns = until_ns
            return DONE
        clock.now_ns = now_ns = state.since_ns[0]
        is_other = False
        if _act(market, law, pace, guide, kind, side, price, rng):
            record(market, now_ns)
            code = settle(market, fair_ticks(guide, now_ns) if guide.rate > 0 else state.opened[0])
            if code != 0:
                return code
            is_other = _watch(book, state)


@kernel
def _watch(book: Book, state: State) -> bool:
    """Note the touch, and which side's best left, whoever made it leave; tell whether the touch is another one."""
    changed, mask = False, book.levels.shape[1] - 1
    for side in range(2):
        best = book.sides[side].best
        lots = book.levels[side, best & mask].lots
        if best != state.touch[side] and (best < state.touch[side]) == (side == BID):
            state.left[0] = side
        changed |= best != state.touch[side] or lots != state.touch[2 + side]
        state.touch[side], state.touch[2 + side] = best, lots
    return changed


_ENTER, _JOIN, _LEAVE, _TAKE, _PLACE, _DROP, _RESPOND = range(7)
"""Kinds of event: inside the spread, at the best (three), behind (two), the response to a fundamental price."""
_KIND_COUNT = 6
_AT = (LIMITS, CANCELS, TAKES)
"""What the kinds at the best are."""


@kernel
def _set_pace(pace: Pace, guide: Guide, ceilings: Ceilings) -> None:
    """Set the factors, the rates behind the best, and that of comparisons."""
    for side in range(2):
        for row in range(3):
            ceilings.paces[row, side] = pace.speed[0] * pace.rates[row, side]
        for kind in range(2):
            factor = ceilings.paces[CANCELS if kind else LIMITS, side]
            ceilings.rates[2 * (_PLACE + kind) + side] = ceilings.totals[kind] * factor
    ceilings.rates[-1] = guide.rate * pace.response[0]


@kernel
def _set_rates(law: Law, paces: FloatArray, state: State, tick: int, rates: FloatArray) -> None:
    """Set the rates inside the spread and at the best; a price of a coarser tick holds a share of each that it is."""
    grid, touch = law.grid, state.touch
    spread = (touch[ASK] - touch[BID]) // tick
    width = queues.width_class(spread)
    for side in range(2):
        entering = law.rates.inside[queues.spread_class(spread), int(state.left[0] == side)]
        rates[2 * _ENTER + side] = entering * paces[LIMITS, side] if spread > 1 else 0.0
        size, opposite = (
            queues.best_state(grid, touch[2 + side] // tick),
            queues.opposite_class(grid, touch[3 - side] // tick),
        )
        for kind in range(3):
            rates[2 * (_JOIN + kind) + side] = law.rates.best[kind, width, opposite, size] * paces[_AT[kind], side]


@kernel
def _next_event(
    book: Book, law: Law, state: State, ceilings: Ceilings, until_ns: int, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Return kind, side and (behind the best) price of what happens next; a negative kind when nothing by `until_ns`.

    Behind the best, candidates come at the highest rates of the states, at any price, and are kept with the share that
    the rate of the state there is.
    """
    levels, occupied, mask, low = book.levels, book.occupied, book.levels.shape[1] - 1, book.state[0].low
    rates, cumulative, highest = ceilings.rates, ceilings.cumulative, ceilings.highest
    edges, behind_rates, bounds, total = law.grid.distances.edges, law.rates.behind, law.grid.behind, rates.sum()
    while True:
        if next_candidate(law.day, state.since_ns, state.next_ns, total, until_ns, rng) < 0:
            return -1, 0, 0
        drawn, at = rng.random() * total, 0
        while drawn >= rates[at] and at < rates.size - 1:
            drawn -= rates[at]
            at += 1
        kind, side = at // 2, at % 2
        if kind != _PLACE and kind != _DROP:
            return kind, side, 0
        # One uniform number tells the class, the price within it, and whether the candidate is kept.
        share = drawn / rates[at]
        which = min(int(np.searchsorted(cumulative[kind - _PLACE, 1:], share, side="right")), edges.size - 2)
        first, last = cumulative[kind - _PLACE, which], cumulative[kind - _PLACE, which + 1]
        ticks = min((share - first) / (last - first), _ALMOST_ONE) * (edges[which + 1] - edges[which])
        # On a coarser tick a price stands for itself and those behind it that are none any more, each with its share.
        price = on_tick(book, 1 - side, state.touch[side] + (2 * side - 1) * (edges[which] + int(ticks)))
        if price < low or price > low + mask:
            continue
        bit, size = level_bit(side, price) & mask, 0
        if occupied[side, bit >> 6] >> (bit & 63) & 1:
            size = 1 + int(np.searchsorted(bounds, levels[side, price & mask].lots // book.rules[0].tick))
        if (ticks - int(ticks)) * highest[kind - _PLACE, which] < behind_rates[kind - _PLACE, which, size]:
            return kind, side, price


@kernel
def _act(
    market: Market, law: Law, pace: Pace, guide: Guide, kind: int, side: int, price: int, rng: np.random.Generator
) -> bool:
    """Let an event happen; tell whether the book changed."""
    book, journal, grid = market.book, market.journal, law.grid
    best, classes = book.sides[side].best, grid.best.size + 1
    mask, tick = book.levels.shape[1] - 1, book.rules[0].tick
    if kind == _RESPOND:
        # A sum of rates that was rounded may end here although nobody responds.
        return guide.rate > 0.0 and respond(
            market, guide, law.sizes, SPREADS, SPREADS + classes, market.clock[0].now_ns, rng
        )
    state = queues.best_state(grid, book.levels[side, best & mask].lots // tick)
    if kind == _ENTER:
        spread = (book.sides[ASK].best - book.sides[BID].best) // tick
        which = queues.spread_class(spread)
        ahead = 1 + int(law.ahead[which, int(rng.random() * POINTS)] * (spread - 2) + 0.5)
        price = on_tick(book, side, best + (1 - 2 * side) * ahead * tick)
        return _add(market, law, side, price, draw_lots(pace, LIMITS, side, law.sizes, which, rng), rng)
    if kind == _JOIN:
        return _add(market, law, side, best, draw_lots(pace, LIMITS, side, law.sizes, SPREADS + state, rng), rng)
    if kind == _TAKE:
        lots = draw_lots(pace, TAKES, side, law.sizes, SPREADS + classes + state, rng)
        return send_market(book, journal, 1 - side, lots) > 0
    if kind == _LEAVE:
        return _leave(market, law, side, best, state, rng)
    which = class_at(grid.distances, abs(price - best))
    if kind == _DROP:
        return _leave(market, law, side, price, classes + which, rng)
    joins = book.levels[side, price & mask].lots > 0
    group = SPREADS + 2 * classes + which + (grid.distances.edges.size - 1 if joins else 0)
    lots = draw_lots(pace, LIMITS, side, law.sizes, group, rng)
    return limit(book, journal, side, price, lots) > 0


@kernel
def _add(market: Market, law: Law, side: int, price: int, lots: int, rng: np.random.Generator) -> bool:
    """Add lots to a price, in orders of the sizes that market orders meet."""
    left, pieces = lots, min(law.makers.size, _MOST_MAKERS)
    while left > 0 and pieces > 0:
        piece = min(left, law.makers[int(rng.random() * POINTS)]) if pieces > 1 else left
        if limit(market.book, market.journal, side, price, piece) <= 0:
            return left < lots
        left -= piece
        pieces -= 1
    return left < lots or limit(market.book, market.journal, side, price, lots) > 0


@kernel
def _leave(market: Market, law: Law, side: int, price: int, group: int, rng: np.random.Generator) -> bool:
    """Cancel at a price: an order by its position where those are known, else a share of the queue from its back."""
    book = market.book
    level = book.levels[side, price & (book.levels.shape[1] - 1)]
    if law.positions.size == 0:
        shared = level.lots / book.rules[0].tick
        return _withdraw(market, level.last, max(int(law.shares[group, int(rng.random() * POINTS)] * shared + 0.5), 1))
    slot, ahead = level.first, law.positions[int(rng.random() * POINTS)] * level.lots
    while book.orders[slot].behind != 0 and ahead >= book.orders[slot].lots:
        ahead -= book.orders[slot].lots
        slot = book.orders[slot].behind
    return book.orders[slot].owner == 0 and cancel(book, market.journal, book.orders[slot].order_id) > 0


@kernel
def _withdraw(market: Market, slot: int, lots: int) -> bool:
    """Take lots from the orders from a slot on to the front; orders that are not the flow's own stay."""
    book, left = market.book, lots
    while slot != 0 and left > 0:
        order = book.orders[slot]
        slot, held = order.ahead, order.lots
        if order.owner != 0:
            continue
        if held > left:
            modify(book, market.journal, order.order_id, order.price, held - left)
        else:
            cancel(book, market.journal, order.order_id)
        left -= held
    return left < lots
