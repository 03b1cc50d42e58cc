"""Tick-size change: from a moment on prices are multiples of a coarser tick.

The new tick is `times` the instrument's. At `at` every order at a price that is none any more goes to the next price
away from the market, the better-priced first and of one price the older first, at the back of what stands there
(`orders=reprice`), or is cancelled (`orders=cancel`). From then on the flow's own limit orders go to the next price
away from the market too. After `for` seconds the old tick is back, and nothing needs to move.

The instrument's scale in the tables stays the finer one, of which all prices are multiples, so they stay exact. For a
change to a finer tick, begin with the coarse one: `tick_size_change:times=10,for=1h`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth_pipeline.market.book import BID, Book, Journal
from synth_pipeline.market.compiling import njit
from synth_pipeline.market.engine import cancel, modify
from synth_pipeline.market.flows.placement import on_tick
from synth_pipeline.market.scenarios import NEVER, Agent, Scenario, choice, duration, number
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.series import IntArray


@dataclass(frozen=True, kw_only=True)
class TickSizeChange(Scenario):
    """A coarser tick, for a time or for good."""

    duration: float | None = duration(None)
    times: int = number(10, least=1, most=100_000)
    orders: str = choice("reprice", "cancel")

    @property
    def is_neutral(self) -> bool:
        """Whether the tick stays what it is."""
        return self.times == 1 or self.duration == 0

    def agents(self, start_ns: int) -> Sequence[Agent]:
        """Return the venue, which changes its rules."""
        return [_Venue(*self.span(start_ns), self.times, is_cancelling=self.orders == "cancel")]


class _Venue:
    """Who changes the tick and then puts it back."""

    def __init__(self, start_ns: int, end_ns: int, times: int, *, is_cancelling: bool) -> None:
        self.next_ns = start_ns
        self._end_ns, self._times, self._is_cancelling = end_ns, times, is_cancelling
        self._usual = 0

    def act(self, market: Market, now_ns: int) -> bool:
        if now_ns >= self._end_ns:
            market.book.rules.tick[0] = self._usual or market.book.rules.tick[0]
            self.next_ns = NEVER
            return True
        orders = market.book.orders
        resting = np.flatnonzero(orders.order_id > 0)
        if not has_room(market, 2 * resting.size + 2):
            return False
        self._usual = int(market.book.rules.tick[0])
        market.book.rules.tick[0] *= self._times
        # The better price first, which for bids is the higher one; an older order has the smaller id.
        better = np.where(orders.side[resting] == BID, -orders.price[resting], orders.price[resting])
        order = np.lexsort((orders.order_id[resting], better))
        if _regrid(market.book, market.journal, resting[order], self._is_cancelling) > 0:
            record(market, now_ns)
        self.next_ns = self._end_ns
        return True


@njit(cache=True)
def _regrid(book: Book, journal: Journal, slots: IntArray, is_cancelling: bool) -> int:
    """Move or cancel orders off the grid and return how many those were."""
    moved = 0
    for slot in slots:
        order = book.orders[slot]
        order_id, price = order.order_id, on_tick(book, order.side, order.price)
        if price == order.price:
            continue
        moved += 1
        if is_cancelling or modify(book, journal, order_id, price, order.lots + order.reserve) <= 0:
            cancel(book, journal, order_id)
    return moved
