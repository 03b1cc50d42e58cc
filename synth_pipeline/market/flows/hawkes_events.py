"""What the Hawkes flow sees in messages: events of twelve types, when they happened, and the state before each.

The types are `KINDS` on either side: limit orders inside the spread, at the touch and behind it, cancellations at the
touch and behind it, market orders (of the side that they hit). The state of a type is the spread, what stands where the
type acts, and what stands beside it: at the touch, lots of its own and of the other side; behind it, resting orders and
lots at the touch. Each is cut into classes of powers of two, so that another record has the same classes.

A source that publishes changes together, or whose clock is coarse, has events at one time that did not happen at one
time. Executions on one side within the source's resolution, at most a millisecond, are one market order; all other
changes are spread, in their order, evenly at random over a resolution before their time. The resolution is the median
time between publications where most changes share one, else the unit of the clock.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from synth_pipeline.market.compiling import njit
from synth_pipeline.market.flows.replaying import (
    ASK,
    BID,
    Ladder,
    Rows,
    apply,
    is_open,
    new_ladder,
    open_stretch,
)
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET

KINDS = ("inside", "touch", "behind", "cancel_touch", "cancel_behind", "market")
INSIDE, TOUCH, BEHIND, CANCEL_TOUCH, CANCEL_BEHIND, TAKE = range(6)
TYPES = 2 * len(KINDS)
"""Type = 2 * kind + side."""
SPREADS, CLASSES = 8, 32
"""Classes of the spread (powers of two) and of each of the two sizes."""
CELLS = SPREADS * CLASSES * CLASSES
IMPOSSIBLE = -1
"""The cell of a type that cannot happen: inside a spread of one tick, behind where nothing rests."""
_LOTS_STEPS, _ORDERS_STEPS = 2.0, 4.0
"""Classes an octave, of lots and of numbers of orders."""
_PROFILES = 2000
_MOST_TIED = 0.5
_ONE_TAKER_NS = 1_000_000
"""Executions on one side within this time, or the source's resolution where that is finer, are one market order."""
_SINCE, _EVENT, _FIRST = range(3)
"""Of the last taker of a side: when it came, its event, its first price."""


class Events(NamedTuple):
    """Events of the order flow, in order of the messages."""

    at: IntArray
    """The message (row) of each."""
    types: IntArray
    spread: IntArray
    """Ticks, before the event; 0 where a side is empty or the sides cross."""
    offset: IntArray
    """Ticks behind the own side's best price; negative inside the spread."""
    lots: IntArray
    """At the touch of each side, shape (events, 2)."""
    orders: IntArray
    """Resting on each side up to the reach, shape (events, 2)."""
    behind: IntArray
    """Of those, behind the touch."""
    joins: IntArray
    """1 where something rested at the price before."""
    size: IntArray
    """Lots, of all executions of a market order."""
    sweep: IntArray
    """Ticks from the first to the worst price of a market order."""


class Typical(NamedTuple):
    """The state in which all factors are 1, the middle of the scales of classes."""

    spread: int
    """Ticks."""
    lots: float
    """At a touch."""
    orders: float
    """Of a side."""


def spread_out(rows: Rows, ends: np.ndarray, unit: float, rng: np.random.Generator) -> Rows:
    """Return the messages at times, and in an order, in which they may have happened.

    `ends` tells of each message whether it is the last of an event of the source. Where a limit order would trade with
    what the same publication takes away, that is taken away just before it.
    """
    stretch = np.searchsorted(rows.opens, np.arange(len(rows.kind)), side="right") - 1
    back = (resolution_of(rows) * rng.random(len(rows.kind))).astype(np.int64)
    moved = np.where((rows.kind == LIMIT) | (rows.kind == CANCEL), back, 0)
    times = np.maximum(rows.time_ns - moved, rows.starts_ns[stretch])
    if not _is_published_together(rows):
        # One by one, or of a coarse clock: the order is the source's.
        publication = np.concatenate(([0], np.cumsum(ends)[:-1]))
        return rows._replace(time_ns=times[np.lexsort((times, publication))])
    publications = np.append(0, np.flatnonzero(ends) + 1)
    order = _interleaved(rows, new_ladder(rows), np.unique(np.append(publications, len(ends))), unit, times)
    names = ("kind", "side", "price", "size", "lasts", "takes")
    return rows._replace(time_ns=times[order], **{name: getattr(rows, name)[order] for name in names})


def events_of(rows: Rows, reach: int, unit: float) -> tuple[Events, FloatArray]:
    """Return the events up to a reach behind the touch, and how many orders rest at each offset on average."""
    count = len(rows.kind)
    single, double = np.zeros((7, count), dtype=np.int64), np.zeros((3, count, 2), dtype=np.int64)
    found = Events(*single[:4], *double, *single[4:])
    profile = np.zeros(reach + 1)
    together = int(min(resolution_of(rows), _ONE_TAKER_NS))
    kept, looks = _walk(rows, new_ladder(rows), reach, unit, together, found, profile)
    return Events(*(column[:kept] for column in found)), profile / max(looks, 1)


def resolution_of(rows: Rows) -> float:
    """Return, in ns, the median time between publications where most changes share one, else the unit of the clock."""
    gaps = _gaps(rows)
    return float(np.median(gaps[gaps > 0])) if _is_published_together(rows) else float(np.gcd.reduce(gaps))


def _gaps(rows: Rows) -> IntArray:
    return np.asarray(np.diff(rows.time_ns[(rows.kind == LIMIT) | (rows.kind == CANCEL)]))


def _is_published_together(rows: Rows) -> bool:
    return bool((_gaps(rows) == 0).mean() > _MOST_TIED)


@njit(cache=True)
def _interleaved(rows: Rows, ladder: Ladder, bounds: IntArray, unit: float, times: IntArray) -> IntArray:
    """Return an order by time within each publication that does not cross the book, and bring times to that order."""
    order, done, stretch = np.empty(len(rows.kind), dtype=np.int64), np.zeros(len(rows.kind), dtype=np.bool_), 0
    kept = 0
    for number in range(bounds.size - 1):
        first, stop = bounds[number], bounds[number + 1]
        while stretch < rows.opens.size - 1 and first >= rows.opens[stretch]:
            open_stretch(ladder, rows, stretch, unit)
            stretch += 1
        for place in np.argsort(times[first:stop], kind="mergesort"):
            at = first + place
            while not done[at]:
                before = at
                if rows.kind[at] == LIMIT and is_open(ladder):
                    before = _in_the_way(rows, ladder, at, stop, first, done)
                times[before] = times[at]
                apply(ladder, rows, before, unit)
                order[kept], done[before] = before, True
                kept += 1
    return order


@njit(cache=True)
def _in_the_way(rows: Rows, ladder: Ladder, at: int, stop: int, first: int, done: np.ndarray) -> int:
    """Return a message that takes away what a limit order would trade with, or the order itself."""
    side = rows.side[at]
    best, out = ladder.best[1 - side], -1 if side == BID else 1
    if not _is_there(ladder, 1 - side) or (rows.price[at] - best) * out > 0:
        return at
    for other in range(first, stop):
        if not done[other] and rows.side[other] != side and rows.price[other] == best and rows.kind[other] != LIMIT:
            return other
    return at


@njit(cache=True)
def _walk(
    rows: Rows, ladder: Ladder, reach: int, unit: float, together: int, found: Events, profile: FloatArray
) -> tuple[int, int]:
    """Write the events and return their number; add up the orders by offset at some of them, and return at how many."""
    kept = looks = 0
    window, every = np.zeros(2, dtype=np.int64), max(len(rows.kind) // _PROFILES, 1)
    takers = np.zeros((2, 3), dtype=np.int64)
    for stretch in range(rows.opens.size - 1):
        open_stretch(ladder, rows, stretch, unit)
        for side in range(2):
            window[side] = _resting(ladder, side, ladder.best[side], reach)
            takers[side, _SINCE] = -together - 1
        for at in range(rows.opens[stretch], rows.opens[stretch + 1]):
            if rows.kind[at] == MARKET:
                kept = _take(rows, ladder, at, window, together, takers, found, kept)
            elif _is_event(rows, ladder, at, reach):
                _write(rows, ladder, at, window, found, kept)
                kept += 1
            if at % every == 0 and is_open(ladder):
                _look(ladder, reach, profile)
                looks += 2
            _follow(rows, ladder, at, reach, unit, window)
    return kept, looks


@njit(cache=True)
def _take(
    rows: Rows, ladder: Ladder, at: int, window: IntArray, together: int, takers: IntArray, found: Events, kept: int
) -> int:
    """Write an execution as a market order or add it to the last one of its side, and return the events written."""
    side, time_ns = rows.side[at], rows.time_ns[at]
    last = takers[side]
    if abs(time_ns - last[_SINCE]) > together:
        _write(rows, ladder, at, window, found, kept)
        found.size[kept] = 0
        last[_SINCE], last[_EVENT], last[_FIRST] = time_ns, kept, rows.price[at]
        kept += 1
    found.size[last[_EVENT]] += rows.size[at]
    found.sweep[last[_EVENT]] = max(found.sweep[last[_EVENT]], abs(rows.price[at] - last[_FIRST]))
    return kept


@njit(cache=True)
def _is_event(rows: Rows, ladder: Ladder, at: int, reach: int) -> bool:
    side = rows.side[at]
    if rows.kind[at] not in (LIMIT, CANCEL):
        return False
    return _offset(ladder, side, rows.price[at]) <= reach or not _is_there(ladder, side)


@njit(cache=True)
def _is_there(ladder: Ladder, side: int) -> bool:
    return bool(0 <= ladder.best[side] < ladder.lots.shape[1])


@njit(cache=True)
def _offset(ladder: Ladder, side: int, price: int) -> int:
    return int(ladder.best[side] - price if side == BID else price - ladder.best[side])


@njit(cache=True)
def _write(rows: Rows, ladder: Ladder, at: int, window: IntArray, found: Events, kept: int) -> None:
    side, kind = rows.side[at], rows.kind[at]
    offset = _offset(ladder, side, rows.price[at]) if _is_there(ladder, side) else 0
    if kind == MARKET:
        which = TAKE
    elif kind == CANCEL:
        which = CANCEL_BEHIND if offset > 0 else CANCEL_TOUCH
    else:
        which = BEHIND if offset > 0 else (TOUCH if offset == 0 else INSIDE)
    found.at[kept], found.types[kept], found.offset[kept] = at, 2 * which + side, offset
    found.size[kept] = rows.size[at]
    price = rows.price[at]
    found.joins[kept] = 0 <= price < ladder.lots.shape[1] and ladder.lots[side, price] > 0
    found.spread[kept] = ladder.best[ASK] - ladder.best[BID] if is_open(ladder) else 0
    for own in range(2):
        if _is_there(ladder, own):
            found.lots[kept, own] = ladder.lots[own, ladder.best[own]]
            found.orders[kept, own] = window[own]
            found.behind[kept, own] = window[own] - ladder.orders[own, ladder.best[own]]


@njit(cache=True)
def _resting(ladder: Ladder, side: int, best: int, reach: int) -> int:
    """Count the orders from a best price to the reach behind it."""
    out, count = -1 if side == BID else 1, 0
    for offset in range(reach + 1):
        price = best + out * offset
        if not 0 <= price < ladder.lots.shape[1]:
            break
        count += ladder.orders[side, price]
    return count


@njit(cache=True)
def _look(ladder: Ladder, reach: int, profile: FloatArray) -> None:
    for side in range(2):
        out = -1 if side == BID else 1
        for offset in range(reach + 1):
            price = ladder.best[side] + out * offset
            if not 0 <= price < ladder.lots.shape[1]:
                break
            profile[offset] += ladder.orders[side, price]


@njit(cache=True)
def _follow(rows: Rows, ladder: Ladder, at: int, reach: int, unit: float, window: IntArray) -> None:
    """Apply a message and keep the numbers of orders up to the reach."""
    side, price = rows.side[at], rows.price[at]
    out = -1 if side == BID else 1
    best, was_there = ladder.best[side], _is_there(ladder, side)
    inside = 0 <= price < ladder.lots.shape[1]
    before = ladder.orders[side, price] if inside else 0
    apply(ladder, rows, at, unit)
    if not (was_there and _is_there(ladder, side)):
        window[side] = _resting(ladder, side, ladder.best[side], reach) if _is_there(ladder, side) else 0
        return
    if inside and (price - best) * out <= reach:
        window[side] += ladder.orders[side, price] - before
    moved = (ladder.best[side] - best) * out
    for step in range(min(moved, 0), max(moved, 0)):
        far = best + out * (reach + 1 + step)
        if 0 <= far < ladder.lots.shape[1]:
            window[side] += ladder.orders[side, far] if moved > 0 else -ladder.orders[side, far]


def typical_of(events: Events) -> Typical:
    """Return medians over the events."""
    known = events.spread > 0
    if not known.any():
        return Typical(1, 1.0, 1.0)
    lots, orders = (max(float(np.median(column[known])), 1.0) for column in (events.lots, events.orders))
    return Typical(int(np.median(events.spread[known])), lots, orders)


def cells_of(events: Events, typical: Typical) -> IntArray:
    """Return the cell of each type before each event, shape (events, `TYPES`); `IMPOSSIBLE` where it cannot happen."""
    spread, lots, orders = _classes(events.spread, events.lots, events.orders, typical)
    cells = np.empty((len(spread), TYPES), dtype=np.int64)
    for kind in range(len(KINDS)):
        is_deep = kind in (BEHIND, CANCEL_BEHIND)
        for side in range(2):
            own, other = (orders[:, side], lots[:, side]) if is_deep else (lots[:, side], lots[:, 1 - side])
            cells[:, 2 * kind + side] = (spread * CLASSES + own) * CLASSES + other
    impossible = np.zeros(cells.shape, dtype=np.bool_)
    impossible[:, 2 * INSIDE : 2 * INSIDE + 2] = (events.spread == 1)[:, None]
    impossible[:, 2 * CANCEL_BEHIND : 2 * CANCEL_BEHIND + 2] = events.behind <= 0
    # What happened was possible, whatever an inferred number says.
    impossible[np.arange(len(spread)), events.types] = False
    return np.where(impossible, IMPOSSIBLE, cells)


@njit(cache=True)
def _classes(
    spread: IntArray, lots: IntArray, orders: IntArray, typical: Typical
) -> tuple[IntArray, IntArray, IntArray]:
    of_spread, of_lots, of_orders = np.empty_like(spread), np.empty_like(lots), np.empty_like(orders)
    for at in range(spread.size):
        of_spread[at] = spread_class(spread[at])
        for side in range(2):
            of_lots[at, side] = lots_class(typical, lots[at, side])
            of_orders[at, side] = orders_class(typical, orders[at, side])
    return of_spread, of_lots, of_orders


@njit(cache=True)
def spread_class(spread: int) -> int:
    """Return the class of a spread in ticks."""
    return int(min(max(math.log2(max(spread, 1)), 0), SPREADS - 1))


@njit(cache=True)
def lots_class(typical: Typical, lots: int) -> int:
    """Return the class of what stands at the touch."""
    return _class_of(lots / typical.lots, _LOTS_STEPS)


@njit(cache=True)
def orders_class(typical: Typical, orders: int) -> int:
    """Return the class of how many orders a side has."""
    return _class_of(orders / typical.orders, _ORDERS_STEPS)


@njit(cache=True)
def _class_of(ratio: float, steps: float) -> int:
    octaves = math.log2(max(ratio, 1e-9))
    return int(min(max(math.floor(steps * octaves + 0.5) + CLASSES // 2, 0), CLASSES - 1))


def loadings(features: int, typical: Typical) -> FloatArray:
    """Return what each cell loads on, shape (kinds, cells, features), all 0 in the typical state.

    The first two features are of the spread, its octaves and whether it is one tick; the others classes of the sizes.
    Behind the touch the number of orders is none: see `offsets`.
    """
    spread, own, other = np.unravel_index(np.arange(CELLS), (SPREADS, CLASSES, CLASSES))
    usual = spread_class(typical.spread)
    narrow = (spread == 0).astype(np.float64) - (usual == 0)
    columns = np.stack((spread - usual, narrow, own - CLASSES // 2, other - CLASSES // 2), axis=1)
    found = np.repeat(columns[None].astype(np.float64), len(KINDS), axis=0)
    found[[BEHIND, CANCEL_BEHIND], :, 2] = 0.0
    return found[:, :, :features]


def offsets() -> FloatArray:
    """Return the known part of log factors, shape (kinds, cells): cancellations behind grow with the orders there."""
    _, own, _ = np.unravel_index(np.arange(CELLS), (SPREADS, CLASSES, CLASSES))
    found = np.zeros((len(KINDS), CELLS))
    found[CANCEL_BEHIND] = (own - CLASSES // 2) / _ORDERS_STEPS * np.log(2.0)
    return found
