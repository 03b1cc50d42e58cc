"""What happened to queues of each size: the states of the queue-reactive model, its counts and its exposures.

A price is *inside* the spread, *best* (of its own side), or *behind* the best by some ticks. Each has a state:

- best: the size of the queue, of the queue opposite (small, usual, large), and the width of the spread;
- behind: the distance from the best (classes of `placement`), and the size of the queue, which may be empty;
- inside: the width of the spread (classes that double), and whether the side's own best was the one that left last.

One pass over the messages gives each its state and adds up the seconds, weighted with the time of day, that each state
was there: a price behind the best counts by itself, both sides count together.
"""

from typing import NamedTuple

import numpy as np

from synth_pipeline.market.compiling import kernel, njit
from synth_pipeline.market.flows.day_shape import activity
from synth_pipeline.market.flows.placement import Distances
from synth_pipeline.market.flows.replaying import (
    ASK,
    BID,
    Ladder,
    Rows,
    apply,
    is_open,
    new_ladder,
    open_stretch,
    sight,
)
from synth_pipeline.market.flows.tallying import waits_of
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, SHOWN

INSIDE, BEST, BEHIND = 0, 1, 2
OPPOSITE = 3
"""Classes of the opposite queue."""
SPREADS = 8
"""Classes of spreads wider than a tick: 2, 3-4, 5-8, …"""
WIDTHS = 5
"""Classes of spreads as the best queues see them: 1, 2-4, 5-32, 33-256, wider."""


class Grid(NamedTuple):
    """The classes."""

    best: IntArray
    """Upper bounds of the sizes of best queues, lots; state k lies above bound k - 1 and up to bound k."""
    opposite: IntArray
    """The two bounds of small and usual opposite queues."""
    behind: IntArray
    """Upper bounds of the sizes of queues behind; state 0 is empty."""
    distances: Distances
    """Of ticks behind the best."""


class Rates(NamedTuple):
    """Rates per second by state, behind the best per price; kinds of event are 0 limit, 1 cancel, 2 market."""

    inside: FloatArray
    """Shape (SPREADS, 2: own best left last or not)."""
    best: FloatArray
    """Shape (3 kinds, WIDTHS, OPPOSITE, sizes)."""
    behind: FloatArray
    """Shape (2 kinds, distances, sizes)."""


class Counts(NamedTuple):
    """Events and seconds by state; kinds of event are 0 limit, 1 cancel, 2 market."""

    inside: FloatArray
    """Limit orders, shape (SPREADS, 2: own best left last or not)."""
    inside_seconds: FloatArray
    best: FloatArray
    """Shape (3 kinds, WIDTHS, OPPOSITE, sizes)."""
    best_seconds: FloatArray
    """Shape (WIDTHS, OPPOSITE, sizes)."""
    behind: FloatArray
    """Shape (2 kinds, distances, sizes)."""
    behind_seconds: FloatArray
    """Seconds times prices, shape (distances, sizes)."""
    region: IntArray
    """Of each message: INSIDE, BEST, BEHIND or -1."""
    state: IntArray
    """Its size class, of one inside the class of the spread; -1 where it has none."""
    distance: IntArray
    """Its class of distance behind the best."""
    before: IntArray
    """Lots at its price before it; of a market order in the best queue."""
    ahead: FloatArray
    """Of one inside the spread, where it stands: 0 a tick before its own best, 1 a tick before the other."""


def count(rows: Rows, grid: Grid, shape: FloatArray) -> Counts:
    """Count messages and seconds by state."""
    found = _empty(rows, grid)
    nothing = Rates(np.zeros_like(found.inside), np.zeros_like(found.best), np.zeros_like(found.behind))
    _walk(rows, new_ladder(rows), grid, shape, nothing, found)
    return found


def rescaled_waits(rows: Rows, grid: Grid, shape: FloatArray, rates: Rates) -> dict[str, FloatArray]:
    """Return by kind of event the compensators between neighbouring events, Exp(1) under the true law."""
    found = _empty(rows, grid)
    compensators = _walk(rows, new_ladder(rows), grid, shape, rates, found)
    return waits_of(rows, compensators, found.region >= 0)


def _empty(rows: Rows, grid: Grid) -> Counts:
    sizes, behind, distances = grid.best.size + 1, grid.behind.size + 2, grid.distances.edges.size - 1
    region, state, distance, before = np.full((4, rows.kind.size), -1)
    return Counts(
        inside=np.zeros((SPREADS, 2)),
        inside_seconds=np.zeros((SPREADS, 2)),
        best=np.zeros((3, WIDTHS, OPPOSITE, sizes)),
        best_seconds=np.zeros((WIDTHS, OPPOSITE, sizes)),
        behind=np.zeros((2, distances, behind)),
        behind_seconds=np.zeros((distances, behind)),
        region=region,
        state=state,
        distance=distance,
        before=before,
        ahead=np.zeros(rows.kind.size),
    )


@kernel
def best_state(grid: Grid, lots: int) -> int:
    """Return the size class of a best queue."""
    return int(np.searchsorted(grid.best, lots))


@kernel
def opposite_class(grid: Grid, lots: int) -> int:
    """Return the class of the opposite queue."""
    return int(np.searchsorted(grid.opposite, lots))


@kernel
def behind_state(grid: Grid, lots: int) -> int:
    """Return the size class of a queue behind the best, 0 of an empty one."""
    return 0 if lots <= 0 else 1 + int(np.searchsorted(grid.behind, lots))


@kernel
def spread_class(spread: int) -> int:
    """Return the class of a spread of two ticks or more."""
    found, width = 0, 2
    while width < spread and found < SPREADS - 1:
        width *= 2
        found += 1
    return found


@kernel
def width_class(spread: int) -> int:
    """Return the class of a spread as the best queues see it."""
    return int(spread > 1) + int(spread > 4) + int(spread > 32) + int(spread > 256)


@njit(cache=True)
def _walk(rows: Rows, ladder: Ladder, grid: Grid, shape: FloatArray, rates: Rates, found: Counts) -> FloatArray:
    """Fill the counts and return the compensators of limit orders, cancellations and market orders at each message."""
    compensators, running = np.zeros((3, rows.kind.size)), np.zeros(3)
    prices = np.zeros((2, found.behind_seconds.shape[0], found.behind_seconds.shape[1]))
    is_known = np.zeros(2, dtype=np.bool_)
    left = np.zeros(1, dtype=np.int64)  # the side whose best left last
    for stretch in range(rows.opens.size - 1):
        open_stretch(ladder, rows, stretch, 1.0)
        is_known[:] = False
        before_ns = rows.starts_ns[stretch]
        for at in range(rows.opens[stretch], rows.opens[stretch + 1]):
            now_ns = rows.time_ns[at]
            if now_ns > before_ns and is_open(ladder):
                seconds = activity(shape, (now_ns + before_ns) // 2) * (now_ns - before_ns) / NS_PER_SECOND
                _expose(rows, ladder, grid, seconds, left[0], prices, is_known, found, rates, running)
            before_ns = now_ns
            compensators[:, at] = running
            if is_open(ladder):
                _classify(rows, ladder, grid, at, left[0], found)
            _change(rows, ladder, grid, at, left, prices, is_known)
        if rows.ends_ns[stretch] > before_ns and is_open(ladder):
            seconds = activity(shape, before_ns) * (rows.ends_ns[stretch] - before_ns) / NS_PER_SECOND
            _expose(rows, ladder, grid, seconds, left[0], prices, is_known, found, rates, running)
    return compensators


@njit(cache=True)
def _expose(
    rows: Rows, ladder: Ladder, grid: Grid, seconds: float, left: int,
    prices: FloatArray, is_known: np.ndarray, found: Counts, rates: Rates, running: FloatArray,
) -> None:  # fmt: skip
    """Add a time over which the book stood still."""
    spread = ladder.best[ASK] - ladder.best[BID]
    for side in range(2):
        lots, other = ladder.lots[side, ladder.best[side]], ladder.lots[1 - side, ladder.best[1 - side]]
        width, opposite, size = width_class(spread), opposite_class(grid, other), best_state(grid, lots)
        found.best_seconds[width, opposite, size] += seconds
        running += seconds * rates.best[:, width, opposite, size]
        if spread > 1:
            found.inside_seconds[spread_class(spread), int(left == side)] += seconds
            running[0] += seconds * rates.inside[spread_class(spread), int(left == side)]
        if rows.depth > 0 or not is_known[side]:
            _look(rows, ladder, grid, side, prices[side])
            is_known[side] = True
        found.behind_seconds[:] += seconds * prices[side]
        for kind in range(2):
            running[kind] += seconds * (prices[side] * rates.behind[kind]).sum()


@njit(cache=True)
def _look(rows: Rows, ladder: Ladder, grid: Grid, side: int, prices: FloatArray) -> None:
    """Count the prices behind the best, by distance and size."""
    reach = grid.distances.class_of.size - 1
    out = -1 if side == BID else 1
    prices[:] = 0.0
    best = ladder.best[side]
    spread = ladder.best[ASK] - ladder.best[BID]
    far = sight(ladder, side, rows.depth, reach + spread) - spread
    for distance in range(1, min(far, reach) + 1):
        price = best + out * distance
        if not 0 <= price < ladder.lots.shape[1]:
            return
        prices[grid.distances.class_of[distance], behind_state(grid, ladder.lots[side, price])] += 1.0


@njit(cache=True)
def _classify(rows: Rows, ladder: Ladder, grid: Grid, at: int, left: int, found: Counts) -> None:
    """Count one message in the book before it, and note its state."""
    side, kind, price = rows.side[at], rows.kind[at], rows.price[at]
    best, spread = ladder.best[side], ladder.best[ASK] - ladder.best[BID]
    behind = best - price if side == BID else price - best
    own, other = ladder.lots[side, best], ladder.lots[1 - side, ladder.best[1 - side]]
    if kind == MARKET:
        if rows.takes[at] > 0:
            state = best_state(grid, own)
            found.best[2, width_class(spread), opposite_class(grid, other), state] += 1.0
            found.region[at], found.state[at], found.before[at] = BEST, state, own
    elif kind == LIMIT and behind < 0:
        if spread > 1:
            which = spread_class(spread)
            found.inside[which, int(left == side)] += 1.0
            found.region[at], found.state[at], found.before[at] = INSIDE, which, 0
            found.ahead[at] = min(-behind - 1, spread - 2) / max(spread - 2, 1)
    elif kind != SHOWN and behind == 0:
        state = best_state(grid, own)
        found.best[int(kind == CANCEL), width_class(spread), opposite_class(grid, other), state] += 1.0
        found.region[at], found.state[at], found.before[at] = BEST, state, own
    elif kind != SHOWN and 0 < behind < grid.distances.class_of.size:
        lots = ladder.lots[side, price] if 0 <= price < ladder.lots.shape[1] else 0
        distance, state = grid.distances.class_of[behind], behind_state(grid, lots)
        if kind == LIMIT or lots > 0:
            found.behind[int(kind == CANCEL), distance, state] += 1.0
            found.region[at], found.state[at], found.before[at] = BEHIND, state, lots
            found.distance[at] = distance


@njit(cache=True)
def _change(
    rows: Rows, ladder: Ladder, grid: Grid, at: int, left: IntArray, prices: FloatArray, is_known: np.ndarray
) -> None:
    """Apply one message, and keep the numbers of prices while the best stays."""
    side, price = rows.side[at], rows.price[at]
    best, within = ladder.best[side], 0 <= price < ladder.lots.shape[1]
    before = ladder.lots[side, price] if within else 0
    apply(ladder, rows, at, 1.0)
    if ladder.best[side] != best:
        is_known[side] = False
        if (ladder.best[side] < best) == (side == BID):
            left[0] = side
        return
    behind = best - price if side == BID else price - best
    if is_known[side] and within and 0 < behind < grid.distances.class_of.size:
        distance = grid.distances.class_of[behind]
        prices[side, distance, behind_state(grid, before)] -= 1.0
        prices[side, distance, behind_state(grid, ladder.lots[side, price])] += 1.0
