"""The compiled loop of the Hawkes flow: which event comes next, and what it does to the book.

Between events each part of the total rate falls as an exponential or, the base, follows the time of day, so the first
event of each part is drawn by the inverse of its law. It waits in `State`, whatever the calls of the loop; where
somebody else changed the book meanwhile, the rates are others, and it is drawn anew from that moment.

At another pace each type comes s times as often and excites 1 / s as much: the branching matrix D G D⁻¹ has the
spectral radius of G and, with the base D μ, the mean rates are D times those before. At another speed all rates and all
decays are that many times what they were.
"""

import math
from typing import NamedTuple

import numpy as np

from synth_pipeline.market.book import BID, Book, next_occupied
from synth_pipeline.market.compiling import kernel
from synth_pipeline.market.engine import ASK, IOC, cancel, limit
from synth_pipeline.market.flows import DONE, FULL
from synth_pipeline.market.flows.hawkes_events import (
    BEHIND,
    CANCEL_BEHIND,
    CANCEL_TOUCH,
    INSIDE,
    TOUCH,
    TYPES,
    Typical,
    lots_class,
    orders_class,
    spread_class,
)
from synth_pipeline.market.flows.pace import CANCELS, LIMITS, TAKES, Pace, draw_lots
from synth_pipeline.market.flows.placement import Distances, class_at, draw_distance, on_tick
from synth_pipeline.market.flows.response import Guide, fair_ticks, respond
from synth_pipeline.market.flows.sizes import Sizes, draw_size
from synth_pipeline.market.flows.stability import EXPLOSION, settle
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray

_SPARE_ROWS = 16
_TRIES = 1000
TAKE_CLASSES = 8
"""Groups of sizes of market orders, by lots at the touch."""
_NEVER = 2**62


class Law(NamedTuple):
    """Rates and sizes as the compiled loop needs them; rates are per second."""

    base: FloatArray
    """[μ] shape (types,)."""
    jumps: FloatArray
    """[n β] by source, type and decay: by how much an event raises each rate, shape (types, types, decays)."""
    decays: FloatArray
    by_spread: FloatArray
    """Factor of each type by class of the spread, shape (types, SPREADS)."""
    by_own: FloatArray
    """By class of the size where it acts, shape (types, CLASSES)."""
    by_other: FloatArray
    """By class of the size beside it, shape (types, CLASSES)."""
    typical: Typical
    features: int
    """Of the state, how many the factors depend on."""
    distances: Distances
    """Classes of distances behind the own side's best price."""
    placed: FloatArray
    """Cumulative probabilities of those classes."""
    joining: FloatArray
    """Share of the orders of a class that join a level."""
    leaving: FloatArray
    """Rate at which an order of a class is cancelled, relative to the highest."""
    inside: Sizes
    """Ticks by which an order inside the spread improves the best price, by class of the spread."""
    sweeps: Sizes
    """Ticks that a market order may go on from the best price, where it is larger than what stands there."""
    sizes: Sizes
    """Groups: behind by class of distance, at the touch, inside, market orders by lots at the touch."""
    day: FloatArray
    """Factor of μ in each part of the day."""
    most: float
    """Events that past ones still excite, on average, beyond which the flow has exploded."""


class State(NamedTuple):
    """Where a run stands; one entry each unless another shape is given."""

    excess: FloatArray
    """What past events add to each rate at `since_ns`, before factors, shape (types, decays)."""
    factors: FloatArray
    """[f] of each type in the book as it is, times its pace and the speed, shape (types,)."""
    speed: FloatArray
    """Of the clock since `since_ns`."""
    since_ns: IntArray
    """When the last event came."""
    next_ns: IntArray
    """When the next one comes; 0 where that is not drawn yet."""
    part: IntArray
    """Which part of the rate it belongs to: a decay, `_BASE` or `_RESPONSE`."""
    seen: IntArray
    """What the book was when it was drawn."""
    high_slot: IntArray
    """The highest slot that an order of the flow had."""
    opened: FloatArray
    """The mid at the start, ticks."""


_BASE, _RESPONSE = -1, -2
_STILL = 1e-3
"""The slowest pace that events make up for by exciting more."""
_ROWS = (LIMITS, LIMITS, LIMITS, CANCELS, CANCELS, TAKES)
"""Of the pace, by kind."""


def start_state(market: Market, law: Law) -> State:
    """Return the state of a run that nothing has excited yet."""
    sides, used = market.book.sides, np.flatnonzero(market.book.orders.order_id)
    return State(
        excess=np.zeros((TYPES, len(law.decays))),
        factors=np.ones(TYPES),
        speed=np.ones(1),
        since_ns=np.array([market.clock.now_ns[0]]),
        next_ns=np.array([0]),
        part=np.array([_BASE]),
        seen=np.array([0]),
        high_slot=np.array([used.max(initial=0)]),
        opened=np.array([0.5 * (sides.best[BID] + sides.best[ASK])]),
    )


@kernel
def advance(
    market: Market, law: Law, pace: Pace, state: State, guide: Guide, until_ns: int, rng: np.random.Generator
) -> int:
    """Run up to a time; returns `DONE`, `FULL` or a code of `stability.REASONS`."""
    book, clock = market.book, market.clock[0]
    if pace.is_new[0] or (state.next_ns[0] != 0 and state.seen[0] != _print_of(book)):
        _fade(law, state, max(clock.now_ns, state.since_ns[0]))
        state.next_ns[0] = pace.is_new[0] = 0
        state.speed[0] = pace.speed[0]
    while True:
        if not has_room(market, book.sides[BID].orders + book.sides[ASK].orders + _SPARE_ROWS):
            return FULL
        if state.next_ns[0] == 0:
            _set_factors(book, law, pace, state)
            if _draw_next(law, state, guide.rate * pace.response[0], rng) > law.most:
                return EXPLOSION
            state.seen[0] = _print_of(book)
        if state.next_ns[0] > until_ns:
            clock.now_ns = until_ns
            return DONE
        clock.now_ns = now_ns = state.next_ns[0]
        state.next_ns[0] = 0
        _fade(law, state, now_ns)
        if _happen(market, law, pace, state, guide, rng):
            record(market, now_ns)
            code = settle(market, fair_ticks(guide, now_ns) if guide.rate > 0 else state.opened[0])
            if code != 0:
                return code


@kernel
def _happen(market: Market, law: Law, pace: Pace, state: State, guide: Guide, rng: np.random.Generator) -> bool:
    """Let what was drawn happen; tell whether the book changed. What changes nothing excites nothing."""
    if state.part[0] == _RESPONSE:
        quote, take = law.placed.size, law.sizes.table_of.size - 1 - TAKE_CLASSES // 2
        return respond(market, guide, law.sizes, quote, take, state.since_ns[0], rng)
    which = _draw_type(law, state, rng)
    if not _act(market, law, pace, state, which // 2, which % 2, rng):
        return False
    _excite(law, state, which, pace.rates[_ROWS[which // 2], which % 2])
    return True


@kernel
def _print_of(book: Book) -> int:
    """Return a number that changes with the book."""
    sides = book.sides
    return int(
        book.state[0].sequence * 1_000_003 + sides[BID].lots * 31 + sides[ASK].lots + sides[BID].best - sides[ASK].best
    )


@kernel
def _fade(law: Law, state: State, now_ns: int) -> None:
    seconds = state.speed[0] * (now_ns - state.since_ns[0]) / NS_PER_SECOND
    for k in range(law.decays.size):
        kept = math.exp(-law.decays[k] * seconds)
        for which in range(TYPES):
            state.excess[which, k] *= kept
    state.since_ns[0] = now_ns


@kernel
def _excite(law: Law, state: State, source: int, pace: float) -> None:
    for which in range(TYPES):
        for k in range(law.decays.size):
            state.excess[which, k] += law.jumps[source, which, k] / max(pace, _STILL)


@kernel
def _set_factors(book: Book, law: Law, pace: Pace, state: State) -> None:
    """Look up the factors of the book as it is."""
    sides, mask = book.sides, book.levels.shape[1] - 1
    bid, ask = sides[BID].best, sides[ASK].best
    spread = spread_class(ask - bid)
    lots = (
        lots_class(law.typical, book.levels[BID, bid & mask].lots),
        lots_class(law.typical, book.levels[ASK, ask & mask].lots),
    )
    orders = (orders_class(law.typical, sides[BID].orders), orders_class(law.typical, sides[ASK].orders))
    for which in range(TYPES):
        kind, side = which // 2, which % 2
        is_deep = kind in (BEHIND, CANCEL_BEHIND)
        own, other = (orders[side], lots[side]) if is_deep else (lots[side], lots[1 - side])
        state.factors[which] = law.by_spread[which, spread] * law.by_own[which, own] * law.by_other[which, other]
        state.factors[which] *= pace.rates[_ROWS[kind], side] * state.speed[0]
    if ask - bid <= 1:
        state.factors[2 * INSIDE] = state.factors[2 * INSIDE + 1] = 0.0


@kernel
def _draw_next(law: Law, state: State, response: float, rng: np.random.Generator) -> float:
    """Draw when the first event of each part comes, keep the first of all, and return the excited events to come."""
    soonest, part, excited = math.inf, _BASE, 0.0
    for k in range(law.decays.size):
        total = 0.0
        for which in range(TYPES):
            total += state.factors[which] * state.excess[which, k]
        if total > 0.0:
            decay = law.decays[k] * state.speed[0]
            excited += total / decay
            left = 1.0 - decay * rng.standard_exponential() / total
            if left > 0.0 and -math.log(left) < soonest * decay:
                soonest, part = -math.log(left) / decay, k
    if response > 0.0:
        wait = rng.standard_exponential() / response
        if wait < soonest:
            soonest, part = wait, _RESPONSE
    total = 0.0
    for which in range(TYPES):
        total += state.factors[which] * law.base[which]
    base_ns = _NEVER
    if total > 0.0:
        base_ns = _after(law.day, state.since_ns[0], rng.standard_exponential(), total)
    if soonest * NS_PER_SECOND < base_ns - state.since_ns[0]:
        base_ns = state.since_ns[0] + int(soonest * NS_PER_SECOND)
    else:
        part = _BASE
    state.next_ns[0], state.part[0] = base_ns, part
    return excited


@kernel
def _after(day: FloatArray, now_ns: int, mass: float, rate: float) -> int:
    """Return when a rate times the factor of the day adds up to `mass`."""
    while True:
        part_ns = NS_PER_DAY // day.size
        end_ns = (now_ns // part_ns + 1) * part_ns
        pace = rate * day[now_ns % NS_PER_DAY // part_ns]
        left = (end_ns - now_ns) / NS_PER_SECOND
        if mass <= pace * left:
            return now_ns + int(mass / pace * NS_PER_SECOND + 0.5)
        mass -= pace * left
        now_ns = end_ns


@kernel
def _draw_type(law: Law, state: State, rng: np.random.Generator) -> int:
    """Draw the type of an event of a part of the rate; all rates of a part have faded alike."""
    total, part = 0.0, state.part[0]
    for which in range(TYPES):
        total += state.factors[which] * (law.base[which] if part == _BASE else state.excess[which, part])
    drawn = rng.random() * total
    for which in range(TYPES):
        drawn -= state.factors[which] * (law.base[which] if part == _BASE else state.excess[which, part])
        if drawn < 0.0:
            return which
    return TYPES - 1


@kernel
def _act(market: Market, law: Law, pace: Pace, state: State, kind: int, side: int, rng: np.random.Generator) -> bool:
    """Let an event happen; tell whether the book changed."""
    book, journal = market.book, market.journal
    best, mask = book.sides[side].best, book.levels.shape[1] - 1
    inwards, group = 1 - 2 * side, law.placed.size
    if kind == CANCEL_TOUCH:
        return _cancel(market, _any_of(book, side, best, rng))
    if kind == CANCEL_BEHIND:
        return _cancel(market, _any_behind(book, law, state, side, rng))
    if kind == TOUCH:
        return _place(market, state, side, best, draw_lots(pace, LIMITS, side, law.sizes, group, rng))
    if kind == INSIDE:
        spread = book.sides[ASK].best - book.sides[BID].best
        ahead = min(draw_size(law.inside, spread_class(spread), rng), spread - 1)
        lots = draw_lots(pace, LIMITS, side, law.sizes, group + 1, rng)
        return _place(market, state, side, best + inwards * ahead, lots)
    if kind == BEHIND:
        distance = draw_distance(law.distances, law.placed, rng)
        which = class_at(law.distances, distance)
        price = best - inwards * distance
        if rng.random() < law.joining[which]:
            price = _level_near(book, side, price)
        return _place(market, state, side, price, draw_lots(pace, LIMITS, side, law.sizes, which, rng))
    resting = book.levels[side, best & mask].lots
    which = lots_class(law.typical, resting) * TAKE_CLASSES // law.by_own.shape[1]
    lots = draw_lots(pace, TAKES, side, law.sizes, group + 2 + which, rng)
    worst = best - inwards * draw_size(law.sweeps, 0, rng) if lots > resting else best
    worst = on_tick(book, 1 - side, max(worst, book.state[0].low))
    return limit(book, journal, 1 - side, worst, lots, 0, IOC) > 0


@kernel
def _level_near(book: Book, side: int, price: int) -> int:
    """Return the price, from a price on away from the market, at which something rests, or the price where that is
    further than it is from the best one."""
    low, best = book.state[0].low, book.sides[side].best
    if price <= low or price >= low + book.levels.shape[1] - 1 or book.sides[side].orders == 0:
        return price
    found = next_occupied(book, side, price)
    return found if abs(found - price) <= abs(price - best) and (found - best) * (2 * side - 1) > 0 else price


@kernel
def _place(market: Market, state: State, side: int, price: int, lots: int) -> bool:
    """Send a limit order; one outside the prices that there are does not come."""
    order_id = limit(market.book, market.journal, side, on_tick(market.book, side, price), lots)
    if order_id <= 0:
        return False
    state.high_slot[0] = max(state.high_slot[0], order_id & (market.book.orders.size - 1))
    return True


@kernel
def _cancel(market: Market, slot: int) -> bool:
    return slot > 0 and cancel(market.book, market.journal, market.book.orders[slot].order_id) > 0


@kernel
def _any_of(book: Book, side: int, price: int, rng: np.random.Generator) -> int:
    """Return the slot of one of the flow's orders at a price, each as likely as any other; 0 where there is none."""
    slot, chosen, met = book.levels[side, price & (book.levels.shape[1] - 1)].first, 0, 0
    while slot != 0:
        if book.orders[slot].owner == 0:
            met += 1
            if rng.random() * met < 1.0:
                chosen = slot
        slot = book.orders[slot].behind
    return int(chosen)


@kernel
def _any_behind(book: Book, law: Law, state: State, side: int, rng: np.random.Generator) -> int:
    """Return the slot of one of the flow's orders behind the touch, drawn by the rates of `leaving`; 0 for none."""
    best, out = book.sides[side].best, 2 * side - 1
    for _ in range(_TRIES):
        slot = 1 + int(rng.random() * state.high_slot[0])
        order = book.orders[slot]
        distance = (order.price - best) * out
        if order.order_id == 0 or order.owner != 0 or order.side != side or distance <= 0:
            continue
        if rng.random() < law.leaving[class_at(law.distances, distance)]:
            return slot
    return 0
