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

All rates share the factor a(t) of the time of day; the sides are pooled. A rate is n / T of its cell, the maximum of the
likelihood of point processes with predictable intensities, drawn towards the mean over the cells around it with the
weight of `_PRIOR` events, so that a cell that was hardly seen has a rate; its standard error is √n / T likewise. Sizes of
orders and shares of queues that cancellations take are drawn from those seen in the state. Where orders have ids, a
cancellation takes a whole order, at a position in the queue drawn from those seen; else it takes its share from the
back of the queue. Simulation is exact, by thinning of candidates at the highest rates.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numba import njit

from synth_pipeline.generators.inference import Estimate
from synth_pipeline.market.book import Book
from synth_pipeline.market.engine import ASK, BID, cancel, limit, modify
from synth_pipeline.market.engine import market as send_market
from synth_pipeline.market.flows import DONE, FULL, queues
from synth_pipeline.market.flows.calibrated import Calibrated, Loop, Opening
from synth_pipeline.market.flows.day_shape import next_candidate, shape_of
from synth_pipeline.market.flows.opening import opening_of
from synth_pipeline.market.flows.placement import distances_up_to, reach_of
from synth_pipeline.market.flows.queues import BEHIND, BEST, INSIDE, SPREADS, Counts, Grid
from synth_pipeline.market.flows.replaying import Record, record_of
from synth_pipeline.market.flows.response import Guide, fair_ticks, respond
from synth_pipeline.market.flows.sizes import POINTS, Sizes, draw_size, quantiles, sizes_of
from synth_pipeline.market.flows.stability import settle
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, Messages

_PRIOR = 1.0
"""Events of the wider mean that each cell is given beside its own."""
_BEST_SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
"""Shares of best queues, as events leave them, that the bounds of their size classes have below them."""
_SPARE_ROWS = 64


class Law(NamedTuple):
    """Rates and sizes as the compiled loop needs them; rates are per second, behind the best also per price."""

    grid: Grid
    inside: FloatArray
    """Shape (SPREADS, 2)."""
    ahead: FloatArray
    """Where in the spread an order stands, from 0 next to its own best to 1 next to the other: shape (SPREADS, POINTS)."""
    best: FloatArray
    """Limit orders, cancellations, market orders: shape (3, WIDTHS, OPPOSITE, sizes)."""
    behind: FloatArray
    """Limit orders, cancellations: shape (2, distances, sizes)."""
    sizes: Sizes
    """Groups: limit orders inside by spread, at the best by size, market orders by size, behind by distance, first at
    empty and then at other prices."""
    shares: FloatArray
    """Share of the queue that a cancellation takes, at the best by size, behind by distance: shape (…, POINTS)."""
    makers: IntArray
    """Lots of the orders that one addition at the touch consists of, shape (POINTS,); empty where it is one."""
    positions: FloatArray
    """Share of the queue ahead of the cancelled order, shape (POINTS,); empty where orders are not known."""
    day: FloatArray
    """Factor of each part of the day."""


class QueueReactive(Calibrated[Law]):
    """The queue-reactive flow, with sizes, a time of day and prices behind an often empty neighbourhood."""

    Law = Law

    def fit(self, messages: Messages, *, rng: np.random.Generator, progress: Progress = silent) -> Self:  # noqa: ARG002
        progress(0, 2, "counting")
        found = record_of(messages)
        day, flat = shape_of(messages.time_ns, messages.spans)
        self.notes = (*found.notes, *([flat] if flat else []))
        grid = _grid(found, self.parameters.reach_ticks)
        self._estimate(found, grid, day)
        progress(1, 2, "opening")
        reach = grid.distances.class_of.size - 1
        self._opening = Opening(opening_of(messages, reach), messages.scale, reach, found.spread)
        progress(2, 2, "fitted")
        return self

    def fit_like(self, messages: Messages, truth: Self) -> Self:
        """Estimate with the classes and the time of day of another one, whose parameters can thus be compared."""
        self._estimate(record_of(messages), truth.law.grid, truth.law.day)
        return self

    def _estimate(self, found: Record, grid: Grid, day: FloatArray) -> None:
        counts = queues.count(found.rows, grid, day)
        inside, inside_error = _smooth(counts.inside, counts.inside_seconds, (0, 1))
        best, best_error = _stacked([_smooth(each, counts.best_seconds, (0, 1)) for each in counts.best])
        behind, behind_error = _stacked([_smooth(each, counts.behind_seconds, (0,)) for each in counts.behind])
        behind[1, :, 0] = 0.0
        sizes, shares = _sizes(found, counts, grid), _shares(found, counts, grid)
        self._law = Law(grid, inside, _ahead(counts), best, behind, sizes, shares, _makers(found), np.zeros(0), day)
        self.estimates = _named(counts, (inside, best, behind), (inside_error, best_error, behind_error), grid)

    @property
    def _opening_sizes(self) -> tuple[Sizes, int]:
        return self.law.sizes, SPREADS

    def _loop(self, market: Market, rng: np.random.Generator) -> Loop:
        law, state = self.law, _start_state(market)
        return lambda until_ns, guide: int(_advance(market, law, state, guide, until_ns, rng))


def _grid(found: Record, reach: int) -> Grid:
    rows = found.rows
    placed = found.distance[(rows.kind == LIMIT) & (found.distance > 0)]
    distances = distances_up_to(reach or reach_of(placed))
    first = Grid(*(np.array([2**62]) for _ in range(3)), distances)
    counts = queues.count(rows, first, np.ones(1))
    best, behind = counts.before[counts.region == BEST], counts.before[(counts.region == BEHIND) & (counts.before > 0)]
    return Grid(_bounds(best, _BEST_SHARES), _bounds(best, (0.25, 0.75)), _bounds(behind, (0.25, 0.5, 0.75)), distances)


def _bounds(sizes: IntArray, shares: tuple[float, ...]) -> IntArray:
    """Return the different quantiles of sizes."""
    if not sizes.size:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.quantile(sizes, shares).astype(np.int64))


def _smooth(count: FloatArray, seconds: FloatArray, over: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Return rates and standard errors, each cell drawn towards the mean over the axes `over`, that to the mean of all."""
    overall = max(float(count.sum()), _PRIOR) / max(float(seconds.sum()), 1e-9)
    wide = (count.sum(axis=over, keepdims=True) + _PRIOR) / (seconds.sum(axis=over, keepdims=True) + _PRIOR / overall)
    exposure = seconds + _PRIOR / wide
    return (count + _PRIOR) / exposure, np.sqrt(count + _PRIOR) / exposure


def _stacked(pairs: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    rates, errors = zip(*pairs, strict=True)
    return np.stack(rates), np.stack(errors)


def _named(
    counts: Counts, rates: tuple[FloatArray, ...], errors: tuple[FloatArray, ...], grid: Grid
) -> dict[str, Estimate]:
    """Return the rate of every cell in which something happened."""
    found: dict[str, Estimate] = {}
    moved, stayed = counts.inside.sum(axis=0)
    if moved + stayed > 0:
        theta = moved / (moved + stayed)
        error = np.sqrt(theta * (1 - theta) / (moved + stayed))
        found["theta"] = Estimate(float(theta), float(error) or None, "share")
    labels = (
        lambda at: f"inside_{2 ** at[0] + 1}_{('other', 'own')[at[1]]}",
        lambda at: f"{_KINDS[at[0]]}_best_{_WIDTHS[at[1]]}_{_OPPOSITE[at[2]]}_q{at[3]}",
        lambda at: f"{_KINDS[at[0]]}_behind_{grid.distances.names[at[1]]}_q{at[2]}",
    )
    for label, happened, rate, error in zip(labels, (counts.inside, counts.best, counts.behind), rates, errors, strict=True):
        for at in zip(*np.nonzero(happened), strict=True):
            found[label(at)] = Estimate(float(rate[at]), float(error[at]))
    return found


_KINDS, _OPPOSITE = ("limit", "cancel", "market"), ("small", "usual", "large")
_WIDTHS = ("1", "2_4", "5_32", "33_256", "wider")


def _sizes(found: Record, counts: Counts, grid: Grid) -> Sizes:
    """Return sizes by group, of neighbouring groups where one has too few."""
    rows, best, distances = found.rows, grid.best.size + 1, grid.distances.edges.size - 1
    placed, taken = rows.kind == LIMIT, rows.takes > 0
    first = (0, SPREADS, SPREADS + best, SPREADS + 2 * best, SPREADS + 2 * best + distances)
    parts = (
        (placed & (counts.region == INSIDE), rows.size, first[0] + counts.state),
        (placed & (counts.region == BEST), rows.size, first[1] + counts.state),
        (taken & (counts.region == BEST), rows.takes, first[2] + counts.state),
        (placed & (counts.region == BEHIND) & (counts.before <= 0), rows.size, first[3] + counts.distance),
        (placed & (counts.region == BEHIND) & (counts.before > 0), rows.size, first[4] + counts.distance),
    )
    ranges = [*zip(first, (*first[1:], first[4] + distances), strict=True)]
    wider = [np.arange(max(each - 2, low), min(each + 3, high)) for low, high in ranges for each in range(low, high)]
    sizes = np.concatenate([values[mask] for mask, values, _ in parts])
    return sizes_of(sizes, np.concatenate([groups[mask] for mask, _, groups in parts]), wider)


def _makers(found: Record) -> IntArray:
    if found.makers.size < _FEWEST:
        return np.zeros(0, dtype=np.int64)
    return np.maximum(quantiles(found.makers), 1).astype(np.int64)


def _ahead(counts: Counts) -> FloatArray:
    """Return where in the spread orders stand, by its class, of neighbouring classes where one has too few."""
    among = [counts.region == INSIDE, *((counts.region == INSIDE) & (counts.state == each) for each in range(SPREADS))]
    near = [np.any(among[max(each, 1) : each + 3], axis=0) for each in range(SPREADS)]
    picked = [(among[1 + each], near[each], among[0]) for each in range(SPREADS)]
    return np.stack([_pick([counts.ahead[mask] for mask in masks]) for masks in picked])


def _pick(samples: list[FloatArray]) -> FloatArray:
    """Return the table of the first sample that is large enough, else of the last."""
    enough = [each for each in samples if each.size >= _FEWEST] or samples[-1:]
    return quantiles(enough[0]) if enough[0].size else np.ones(POINTS)


def _shares(found: Record, counts: Counts, grid: Grid) -> FloatArray:
    """Return the shares of queues that cancellations take, at the best by size, then behind by distance."""
    taken = (found.rows.kind == CANCEL) & (counts.region >= BEST) & (counts.before > 0)
    share = np.minimum(found.rows.size[taken] / counts.before[taken], 1.0)
    best = grid.best.size + 1
    groups = np.where(counts.region == BEST, counts.state, best + counts.distance)[taken]
    tables = []
    for group in range(best + grid.distances.edges.size - 1):
        low, high = (0, best) if group < best else (best, groups.max(initial=best) + 1)
        own = share[groups == group]
        near = share[(np.abs(groups - group) <= 2) & (groups >= low) & (groups < high)]
        tables.append(_pick([own, near, share]))
    return np.stack(tables)


_FEWEST = 50
_MOST_MAKERS = 32
"""Orders that one addition consists of at most."""


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


@njit(cache=True)
def _advance(
    market: Market, law: Law, state: State, guide: Guide, until_ns: int, rng: np.random.Generator
) -> int:
    """Run up to a time; the next candidate waits in `state`, so where the time is cut makes no difference."""
    book, clock = market.book, market.clock[0]
    widths = np.diff(law.grid.distances.edges)
    highest = np.empty((2, widths.size))
    for each in range(widths.size):
        highest[0, each] = law.behind[0, each].max() * widths[each]
        highest[1, each] = law.behind[1, each].max() * widths[each]
    cumulative = np.empty((2, widths.size))
    rates = np.zeros(2 * _KIND_COUNT + 1)
    for kind in range(2):
        cumulative[kind] = np.cumsum(highest[kind]) / highest[kind].sum()
        rates[2 * (_PLACE + kind) : 2 * (_PLACE + kind) + 2] = highest[kind].sum()
    rates[-1] = guide.rate
    if _watch(book, state) and state.next_ns[0] > 0:
        # Somebody else has changed the touch meanwhile: from now on other rates hold.
        state.since_ns[0], state.next_ns[0] = clock.now_ns, 0
    while True:
        if not has_room(market, book.sides[BID].orders + book.sides[ASK].orders + _SPARE_ROWS):
            return FULL
        _set_rates(book, law, state, rates)
        kind, side, price = _next_event(book, law, state, rates, cumulative, until_ns, rng)
        if kind < 0:
            clock.now_ns = until_ns
            return DONE
        clock.now_ns = now_ns = state.since_ns[0]
        if _act(market, law, guide, kind, side, price, rng):
            record(market, now_ns)
            code = settle(market, fair_ticks(guide, now_ns) if guide.rate > 0 else state.opened[0])
            if code != 0:
                return code
            _watch(book, state)


@njit(cache=True)
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


@njit(cache=True)
def _set_rates(book: Book, law: Law, state: State, rates: FloatArray) -> None:
    """Set the rates inside the spread and at the best, of bids and asks."""
    grid, touch = law.grid, state.touch
    spread = touch[ASK] - touch[BID]
    width = queues.width_class(spread)
    for side in range(2):
        rates[2 * _ENTER + side] = law.inside[queues.spread_class(spread), int(state.left[0] == side)] if spread > 1 else 0.0
        size, opposite = queues.best_state(grid, touch[2 + side]), queues.opposite_class(grid, touch[3 - side])
        for kind in range(3):
            rates[2 * (_JOIN + kind) + side] = law.best[kind, width, opposite, size]


@njit(cache=True)
def _next_event(
    book: Book, law: Law, state: State, rates: FloatArray, cumulative: FloatArray, until_ns: int,
    rng: np.random.Generator,
) -> tuple[int, int, int]:  # fmt: skip
    """Return kind, side and (behind the best) price of what happens next; a negative kind when nothing by `until_ns`.

    Behind the best, candidates come at the highest rates of the states, at any price, and are kept with the share that
    the rate of the state there is.
    """
    levels, mask, low, total = book.levels, book.levels.shape[1] - 1, book.state[0].low, rates.sum()
    edges = law.grid.distances.edges
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
        which = min(int(np.searchsorted(cumulative[kind - _PLACE], drawn / rates[at])), edges.size - 2)
        behind = edges[which] + int(rng.random() * (edges[which + 1] - edges[which]))
        price = state.touch[side] + (2 * side - 1) * behind
        if price < low or price > low + mask:
            continue
        own = law.behind[kind - _PLACE, which]
        if rng.random() * own.max() < own[queues.behind_state(law.grid, levels[side, price & mask].lots)]:
            return kind, side, price


@njit(cache=True)
def _act(
    market: Market, law: Law, guide: Guide, kind: int, side: int, price: int, rng: np.random.Generator
) -> bool:
    """Let an event happen; tell whether the book changed."""
    book, journal, grid = market.book, market.journal, law.grid
    best, classes = book.sides[side].best, grid.best.size + 1
    mask = book.levels.shape[1] - 1
    if kind == _RESPOND:
        return respond(market, guide, law.sizes, SPREADS, SPREADS + classes, market.clock[0].now_ns, rng)
    state = queues.best_state(grid, book.levels[side, best & mask].lots)
    if kind == _ENTER:
        spread = book.sides[ASK].best - book.sides[BID].best
        which = queues.spread_class(spread)
        ahead = 1 + int(law.ahead[which, int(rng.random() * POINTS)] * (spread - 2) + 0.5)
        return _add(market, law, side, best + (1 - 2 * side) * ahead, draw_size(law.sizes, which, rng), rng)
    if kind == _JOIN:
        return _add(market, law, side, best, draw_size(law.sizes, SPREADS + state, rng), rng)
    if kind == _TAKE:
        return send_market(book, journal, 1 - side, draw_size(law.sizes, SPREADS + classes + state, rng)) > 0
    if kind == _LEAVE:
        return _withdraw(market, side, best, law.shares[state], rng)
    which = grid.distances.class_of[abs(price - best)]
    if kind == _DROP:
        return _withdraw(market, side, price, law.shares[classes + which], rng)
    joins = book.levels[side, price & mask].lots > 0
    group = SPREADS + 2 * classes + which + (grid.distances.edges.size - 1 if joins else 0)
    return limit(book, journal, side, price, draw_size(law.sizes, group, rng)) > 0


@njit(cache=True)
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


@njit(cache=True)
def _withdraw(market: Market, side: int, price: int, shares: FloatArray, rng: np.random.Generator) -> bool:
    """Take a share of a queue from its back; orders that are not the flow's own stay."""
    book = market.book
    level = book.levels[side, price & (book.levels.shape[1] - 1)]
    left = max(int(shares[int(rng.random() * POINTS)] * level.lots + 0.5), 1)
    slot, changed = level.last, False
    while slot != 0 and left > 0:
        order = book.orders[slot]
        slot, lots = order.ahead, order.lots
        if order.owner != 0:
            continue
        if lots > left:
            modify(book, market.journal, order.order_id, price, lots - left)
        else:
            cancel(book, market.journal, order.order_id)
        left -= lots
        changed = True
    return changed
