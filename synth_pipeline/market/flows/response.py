"""How a flow follows a fundamental price: what informed traders and makers do when the mid is not where it should be.

Someone compares the mid with the fundamental price, the more often the further they are apart: `rate` times a second
where they differ by the tolerance, in proportion up to `URGENCY` times as often. An informed order of usual size then
trades up to the fundamental price, makers pull what it has overtaken on that side, and quote anew on both sides of it.
So the mid follows within the tolerance and a delay of less than 1 / rate, while what lies around it is the flow's own.
(Makers who cancel what better information overtakes: Glosten and Milgrom 1985.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from synth_pipeline.market.compiling import kernel
from synth_pipeline.market.engine import ASK, BID, IOC, cancel, limit
from synth_pipeline.market.flows.placement import on_tick
from synth_pipeline.market.flows.sizes import Sizes, draw_size
from synth_pipeline.market.tape import Market
from synth_pipeline.series import FloatArray

DONE = 0
URGENCY = 16.0
"""Tolerances from which on comparisons come no more often."""


class Fundamental(Protocol):
    """A price that the mid should follow."""

    def piece(self, now_ns: int) -> tuple[int, int, FloatArray]:
        """Return the first moment, the step (ns) and the log prices of a stretch that holds a time."""


class Guide(NamedTuple):
    """A stretch of the fundamental price; `rate` is 0 where there is none."""

    start_ns: int
    step_ns: int
    ticks: FloatArray
    """The price at the start of each step."""
    rate: float
    """Comparisons per second, at their most frequent."""
    tolerance: float
    """Ticks between mid and fundamental price that nobody acts on."""


NOBODY = Guide(0, 1, np.ones(1), 0.0, 0.0)
"""No fundamental price."""


@kernel
def fair_ticks(guide: Guide, now_ns: int) -> float:
    """Return the fundamental price at a time, of its first and last step outside the stretch."""
    step = (now_ns - guide.start_ns) // guide.step_ns
    return float(guide.ticks[min(max(step, 0), guide.ticks.size - 1)])


@kernel
def respond(
    market: Market, guide: Guide, sizes: Sizes, quote: int, take: int, now_ns: int, rng: np.random.Generator
) -> bool:
    """Act on the fundamental price where that pays, and tell whether anything was done.

    `quote` and `take` are the groups that sizes of limit and market orders are drawn from.
    """
    book, journal = market.book, market.journal
    fair = fair_ticks(guide, now_ns)
    mid = 0.5 * (book.sides[BID].best + book.sides[ASK].best)
    # A mid between two prices of a coarse tick is as near as it gets.
    off, tolerance = abs(fair - mid), max(guide.tolerance, 0.5 * book.rules[0].tick)
    if off <= tolerance or off < tolerance * URGENCY * rng.random():
        return False
    side = BID if fair > mid else ASK
    price = on_tick(book, side, math.floor(fair) if side == BID else math.ceil(fair))
    limit(book, journal, side, price, draw_size(sizes, take, rng), 0, IOC)
    _pull(market, 1 - side, price)
    limit(book, journal, side, price, draw_size(sizes, quote, rng))
    away = max(round(guide.tolerance), 1) * (1 if side == BID else -1)
    if (book.sides[1 - side].best - price - away) * away > 0:
        limit(book, journal, 1 - side, on_tick(book, 1 - side, price + away), draw_size(sizes, quote, rng))
    return True


@kernel
def _pull(market: Market, side: int, price: int) -> None:
    """Cancel the flow's orders on a side that stand at a price or beyond it, towards the other side."""
    book, out = market.book, 1 if side == ASK else -1
    while book.sides[side].orders > 1 and (price - book.sides[side].best) * out >= 0:
        level = book.levels[side, book.sides[side].best & (book.levels.shape[1] - 1)]
        slot = level.first
        while slot != 0 and book.orders[slot].owner != 0:
            slot = book.orders[slot].behind
        if slot == 0:
            return
        cancel(book, market.journal, book.orders[slot].order_id)


def guided(
    fundamental: Fundamental | None,
    tick_size: float,
    rate: float,
    tolerance: float,
    start_ns: int,
    loop: Callable[[int, Guide], int],
) -> Callable[[int], int]:
    """Return `step(until_ns)` of a loop that takes the guide of the time in which it runs."""
    if fundamental is None:
        return lambda until_ns: loop(until_ns, NOBODY)
    reached = [start_ns]
    guide = NOBODY

    def step(until_ns: int) -> int:
        nonlocal guide
        code = DONE
        while code == DONE and reached[0] < until_ns:
            end_ns = guide.start_ns + guide.step_ns * len(guide.ticks)
            if guide is NOBODY or reached[0] >= end_ns:
                piece_ns, step_ns, log_price = fundamental.piece(reached[0])
                guide = Guide(piece_ns, step_ns, np.exp(log_price) / tick_size, rate * URGENCY, tolerance)
                end_ns = piece_ns + step_ns * len(log_price)
            code = loop(min(until_ns, end_ns), guide)
            if code == DONE:
                reached[0] = min(until_ns, end_ns)
        return code

    return step
