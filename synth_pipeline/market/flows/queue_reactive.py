"""Queue-reactive: orders come at rates that depend on how long the queue is that they join or leave.

Huang, Lehalle and Rosenbaum (2015), "Simulating and analyzing order book data: the queue-reactive model", JASA 110,
models II and III. With the states of `queues`, on each side and independent given the book:

- at the best price, limit orders, cancellations and market orders at the rates λ^L, λ^C, λ^M of the size of the queue,
  of the class of the opposite queue, and of whether the spread is one tick;
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
    """Limit orders, cancellations, market orders: shape (3, 2 spreads, OPPOSITE, sizes)."""
    behind: FloatArray
    """Limit orders, cancellations: shape (2, distances, sizes)."""
    sizes: Sizes
    """Groups: limit orders inside by spread, at the best by size, market orders by size, behind by distance, first at
    empty and then at other prices."""
    shares: FloatArray
    """Share of the queue that a cancellation takes, at the best by size, behind by distance: shape (…, POINTS)."""
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
        self._law = Law(grid, inside, _ahead(counts), best, behind, sizes, shares, np.zeros(0), day)
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
        lambda at: f"{_KINDS[at[0]]}_best_{('tick', 'wide')[at[1]]}_{_OPPOSITE[at[2]]}_q{at[3]}",
        lambda at: f"{_KINDS[at[0]]}_behind_{grid.distances.names[at[1]]}_q{at[2]}",
    )
    for label, happened, rate, error in zip(labels, (counts.inside, counts.best, counts.behind), rates, errors, strict=True):
        for at in zip(*np.nonzero(happened), strict=True):
            found[label(at)] = Estimate(float(rate[at]), float(error[at]))
    return found


_KINDS, _OPPOSITE = ("limit", "cancel", "market"), ("small", "usual", "large")


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


class State(NamedTuple):
    """Where a run stands; one entry each, `best` of each side."""

    since_ns: IntArray
    """When the last candidate came."""
    next_ns: IntArray
    """When the next one comes; 0 where that is not drawn yet."""
    left: IntArray
    """The side whose best left last."""
    best: IntArray
    """Best prices when it was last looked."""
    opened: FloatArray
    """The mid at the start, ticks."""


def _start_state(market: Market) -> State:
    best = market.book.sides.best[:2].astype(np.int64)
    return State(
        np.array([market.clock.now_ns[0]]), np.array([0]), np.array([0]), best.copy(), np.array([0.5 * best.sum()])
    )


@njit(cache=True)
def _advance(
    market: Market, law: Law, state: State, guide: Guide, until_ns: int, rng: np.random.Generator
) -> int:
    """Run up to a time; the next candidate waits in `state`, so where the time is cut makes no difference."""
    book, clock = market.book, market.clock[0]
    widths = np.diff(law.grid.distances.edges)
    placing, leaving = np.empty(widths.size), np.empty(widths.size)
    for each in range(widths.size):
        placing[each] = law.behind[0, each].max() * widths[each]
        leaving[each] = law.behind[1, each].max() * widths[each]
    rates = np.array(
        [law.inside.max(), law.best[0].max(), law.best[1].max(), law.best[2].max(), placing.sum(), leaving.sum()]
    )
    bounds = 2.0 * np.cumsum(rates)
    placing, leaving = np.cumsum(placing) / placing.sum(), np.cumsum(leaving) / leaving.sum()
    while True:
        _watch(book, state)
        if not has_room(market, book.sides[BID].orders + book.sides[ASK].orders + _SPARE_ROWS):
            return FULL
        kind, side, price = _next_event(book, law, state, rates, bounds, placing, leaving, guide.rate, until_ns, rng)
        if kind < 0:
            clock.now_ns = until_ns
            return DONE
        clock.now_ns = now_ns = state.since_ns[0]
        if _act(market, law, guide, kind, side, price, rng):
            record(market, now_ns)
            code = settle(market, fair_ticks(guide, now_ns) if guide.rate > 0 else state.opened[0])
            if code != 0:
                return code


@njit(cache=True)
def _watch(book: Book, state: State) -> None:
    """Note which side's best left, whoever made it leave."""
    for side in range(2):
        best = book.sides[side].best
        if best != state.best[side] and (best < state.best[side]) == (side == BID):
            state.left[0] = side
        state.best[side] = best


_ENTER, _JOIN, _LEAVE, _TAKE, _PLACE, _DROP, _RESPOND = range(7)
"""Kinds of event: inside the spread, at the best (three), behind (two), the response to a fundamental price."""


@njit(cache=True)
def _next_event(
    book: Book, law: Law, state: State, rates: FloatArray, bounds: FloatArray, placing: FloatArray,
    leaving: FloatArray, response: float, until_ns: int, rng: np.random.Generator,
) -> tuple[int, int, int]:  # fmt: skip
    """Return kind, side and (behind the best) price of what happens next; a negative kind when nothing by `until_ns`.

    Candidates come at the highest rates of the states and are kept with the share that the rate of the present one is.
    """
    grid, levels, sides = law.grid, book.levels, book.sides
    mask, low, total = levels.shape[1] - 1, book.state[0].low, bounds[-1] + response
    spread = sides[ASK].best - sides[BID].best
    lots = (levels[BID, sides[BID].best & mask].lots, levels[ASK, sides[ASK].best & mask].lots)
    sizes = (queues.best_state(grid, lots[0]), queues.best_state(grid, lots[1]))
    opposite = (queues.opposite_class(grid, lots[1]), queues.opposite_class(grid, lots[0]))
    while True:
        if next_candidate(law.day, state.since_ns, state.next_ns, total, until_ns, rng) < 0:
            return -1, 0, 0
        drawn = rng.random() * total
        if drawn >= bounds[-1]:
            return _RESPOND, 0, 0
        kind = 0
        while drawn >= bounds[kind]:
            kind += 1
        rest = (bounds[kind] - drawn) / rates[kind]
        side = int(rest >= 1.0)
        kept = (rest - side) * rates[kind]
        if kind >= _PLACE:
            which = min(int(np.searchsorted(placing if kind == _PLACE else leaving, rest - side)), placing.size - 1)
            first = grid.distances.edges[which]
            behind = first + int(rng.random() * (grid.distances.edges[which + 1] - first))
            price = sides[side].best + (2 * side - 1) * behind
            if price < low or price > low + mask:
                continue
            own = law.behind[kind - _PLACE, which]
            if rng.random() * own.max() < own[queues.behind_state(grid, levels[side, price & mask].lots)]:
                return kind, side, price
        elif kind == _ENTER:
            if spread > 1 and kept < law.inside[queues.spread_class(spread), int(state.left[0] == side)]:
                return kind, side, 0
        elif kept < law.best[kind - _JOIN, int(spread > 1), opposite[side], sizes[side]]:
            return kind, side, 0


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
        return limit(book, journal, side, best + (1 - 2 * side) * ahead, draw_size(law.sizes, which, rng)) > 0
    if kind == _JOIN:
        return limit(book, journal, side, best, draw_size(law.sizes, SPREADS + state, rng)) > 0
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
