"""What happened at each distance from the other side's best price, and for how long it could have happened.

One pass over the messages counts limit orders, cancellations and market orders, and adds up the exposures that rates
are per: seconds, seconds times ticks in sight, seconds times resting orders. Seconds are weighted with the time of day.
Time during which a side is empty or the sides cross is no exposure, and what happens at its end does not count.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from synth_pipeline.market.compiling import njit
from synth_pipeline.market.flows.day_shape import activity
from synth_pipeline.market.flows.placement import Distances, PowerLaw, class_at, extended, power_law
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
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, SHOWN

_FEWEST_WAITS = 20
_PRIOR, _FEW = 0.5, 10
_GLIMPSE = 0.02
"""Share of the longest time that a tick of a class was seen, below which its own rates tell nothing."""


class Tally(NamedTuple):
    """Counts and exposures of both sides together, by class of distance."""

    limits: FloatArray
    cancels: FloatArray
    markets: FloatArray
    """Market orders, shape (1,)."""
    tick_seconds: FloatArray
    order_seconds: FloatArray
    seconds: FloatArray
    """Shape (1,); each side counts its own."""
    classes: IntArray
    """Class of the distance of each message, -1 of one that is not counted."""


class Rates(NamedTuple):
    """Rates per second: of a tick, of an order, of a side."""

    limit: FloatArray
    cancel: FloatArray
    market: float


def rates_of(counted: Tally, distances: Distances) -> tuple[Rates, PowerLaw]:
    """Return rates of every class, and the power law of limit orders from the distance where they are most frequent.

    A class of few cancellations is given half of one at the mean rate: no order stays for ever, and none is gone in no
    time because its class was hardly ever there.
    """
    seen = in_sight(counted, distances)
    limits = counted.limits / np.maximum(counted.tick_seconds, 1e-300)
    mean = (counted.cancels.sum() + _PRIOR) / max(counted.order_seconds.sum(), 1e-9)
    given = np.where(counted.cancels < _FEW, _PRIOR, 0.0)
    cancels = (counted.cancels + given) / (counted.order_seconds + given / mean)
    peak = int(np.argmax(np.where(seen, limits, 0.0)))
    falling = np.where(np.arange(seen.size) >= min(peak, seen.sum() - 3), counted.tick_seconds, 0.0)
    placing = power_law(distances, counted.limits, falling)
    limits, cancels = extended(distances, limits, cancels, seen, placing)
    return Rates(limits, cancels, float(counted.markets[0] / max(counted.seconds[0], 1e-9))), placing


def in_sight(counted: Tally, distances: Distances) -> NDArray[np.bool_]:
    """Return which classes were seen for long enough.

    The furthest that a source of few levels shows, it shows just after a level was used up, when it is filled again.
    """
    each_tick = counted.tick_seconds / np.diff(distances.edges)
    return np.asarray(each_tick > _GLIMPSE * each_tick.max())


def tally(rows: Rows, distances: Distances, shape: FloatArray, unit: float) -> Tally:
    """Count; `unit` is the lots of one order, where only they are known."""
    found, nothing = _empty(rows, distances), np.zeros(distances.edges.size - 1)
    _walk(rows, new_ladder(rows), distances, shape, unit, found, Rates(nothing, nothing, 0.0))
    return found


def _empty(rows: Rows, distances: Distances) -> Tally:
    limits, cancels, ticks, orders = np.zeros((4, distances.edges.size - 1))
    return Tally(limits, cancels, np.zeros(1), ticks, orders, np.zeros(1), np.full(rows.kind.size, -1))


def rescaled_waits(
    rows: Rows, distances: Distances, shape: FloatArray, unit: float, rates: Rates
) -> dict[str, FloatArray]:
    """Return by kind of event the compensators between neighbouring events, Exp(1) under the true law."""
    found = _empty(rows, distances)
    compensators = _walk(rows, new_ladder(rows), distances, shape, unit, found, rates)
    return waits_of(rows, compensators, found.classes >= 0)


def waits_of(rows: Rows, compensators: FloatArray, counted: NDArray[np.bool_]) -> dict[str, FloatArray]:
    """Return by kind what compensators, shape (3 kinds, messages), grow by between counted events of a stretch."""
    stretch = np.searchsorted(rows.opens, np.arange(rows.kind.size), side="right")
    of_kind = {"limit": rows.kind == LIMIT, "cancel": rows.kind == CANCEL, "market": rows.takes > 0}
    found = {}
    for number, (name, mask) in enumerate(of_kind.items()):
        at = np.flatnonzero(mask & counted)
        found[name] = np.diff(compensators[number, at])[np.diff(stretch[at]) == 0]
    return found


def waiting_tests(waits: dict[str, FloatArray]) -> dict[str, float]:
    """Return Kolmogorov-Smirnov distance to Exp(1) and p-value by kind of event, where there are 20 waits."""
    found: dict[str, float] = {}
    for name, each in waits.items():
        if len(each) >= _FEWEST_WAITS:
            test = stats.kstest(each, "expon")
            found |= {f"{name}_ks": float(test.statistic), f"{name}_ks_p": float(test.pvalue)}
    return found


@njit(cache=True)
def _walk(
    rows: Rows, ladder: Ladder, distances: Distances, shape: FloatArray, unit: float, found: Tally, rates: Rates
) -> FloatArray:
    """Fill the tally and return the compensators of limit orders, cancellations and market orders at each message."""
    compensators = np.zeros((3, rows.kind.size))
    running = np.zeros(3)
    ticks, orders = np.zeros((2, found.limits.size)), np.zeros((2, found.limits.size))
    is_known = np.zeros(2, dtype=np.bool_)
    for stretch in range(rows.opens.size - 1):
        open_stretch(ladder, rows, stretch, unit)
        is_known[:] = False
        before_ns, was_open = rows.starts_ns[stretch], is_open(ladder)
        for at in range(rows.opens[stretch], rows.opens[stretch + 1]):
            now_ns = rows.time_ns[at]
            if now_ns > before_ns:
                was_open = is_open(ladder)
            if now_ns > before_ns and was_open:
                pace = activity(shape, (now_ns + before_ns) // 2) * (now_ns - before_ns) / NS_PER_SECOND
                _expose(rows, ladder, distances, pace, ticks, orders, is_known, found, rates, running)
            before_ns = now_ns
            compensators[:, at] = running
            if was_open:
                _count(rows, ladder, distances, at, found)
            _change(rows, ladder, distances, at, unit, orders, is_known)
        if rows.ends_ns[stretch] > before_ns and is_open(ladder):
            pace = activity(shape, before_ns) * (rows.ends_ns[stretch] - before_ns) / NS_PER_SECOND
            _expose(rows, ladder, distances, pace, ticks, orders, is_known, found, rates, running)
    return compensators


@njit(cache=True)
def _expose(
    rows: Rows, ladder: Ladder, distances: Distances, seconds: float, ticks: FloatArray, orders: FloatArray,
    is_known: np.ndarray, found: Tally, rates: Rates, running: FloatArray,
) -> None:  # fmt: skip
    """Add a time over which the book stood still."""
    for side in range(2):
        if rows.depth > 0 or not is_known[side]:
            _look(rows, ladder, distances, side, ticks[side], orders[side])
            is_known[side] = True
        for each in range(found.limits.size):
            found.tick_seconds[each] += seconds * ticks[side, each]
            found.order_seconds[each] += seconds * orders[side, each]
            running[0] += seconds * ticks[side, each] * rates.limit[each]
            running[1] += seconds * orders[side, each] * rates.cancel[each]
    found.seconds[0] += 2 * seconds
    running[2] += 2 * seconds * rates.market


@njit(cache=True)
def _look(rows: Rows, ladder: Ladder, distances: Distances, side: int, ticks: FloatArray, orders: FloatArray) -> None:
    """Count the ticks in sight and the orders there, by class."""
    reach = distances.class_of.size - 1
    out = -1 if side == BID else 1
    ticks[:] = 0.0
    orders[:] = 0.0
    other = ladder.best[1 - side]
    for distance in range(1, sight(ladder, side, rows.depth, reach) + 1):
        price = other + out * distance
        if not 0 <= price < ladder.lots.shape[1]:
            return
        which = distances.class_of[distance]
        ticks[which] += 1.0
        orders[which] += ladder.orders[side, price]


@njit(cache=True)
def _distance(ladder: Ladder, side: int, price: int) -> int:
    return int(ladder.best[ASK] - price if side == BID else price - ladder.best[BID])


@njit(cache=True)
def _count(rows: Rows, ladder: Ladder, distances: Distances, at: int, found: Tally) -> None:
    """Count one message, at its distance in the book before it; one that would cross counts as most aggressive."""
    side, kind = rows.side[at], rows.kind[at]
    if not 0 <= ladder.best[1 - side] < ladder.lots.shape[1]:
        return
    distance = max(_distance(ladder, side, rows.price[at]), 1)
    if kind == MARKET:
        found.markets[0] += rows.takes[at] > 0
        found.classes[at] = 0
    elif kind != SHOWN and distance < distances.class_of.size:
        which = class_at(distances, distance)
        found.classes[at] = which
        if kind == LIMIT:
            found.limits[which] += 1.0
        else:
            found.cancels[which] += 1.0


@njit(cache=True)
def _change(
    rows: Rows, ladder: Ladder, distances: Distances, at: int, unit: float, orders: FloatArray, is_known: np.ndarray
) -> None:
    """Apply one message, and keep the numbers of orders by class where distances stay what they are."""
    side, price = rows.side[at], rows.price[at]
    best, inside = ladder.best[side], 0 <= price < ladder.lots.shape[1]
    before = ladder.orders[side, price] if inside else 0
    apply(ladder, rows, at, unit)
    if ladder.best[side] != best:
        is_known[1 - side] = False
    distance = _distance(ladder, side, price)
    if is_known[side] and inside and 1 <= distance < distances.class_of.size:
        orders[side, distances.class_of[distance]] += ladder.orders[side, price] - before
