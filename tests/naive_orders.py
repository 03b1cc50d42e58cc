"""The slow, obvious twin of `ticks.orders`: a dictionary of orders, levels summed anew after every event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from synth_pipeline.archives import OrderAction


class Event(NamedTuple):
    """One order event."""

    action: int
    order_id: int
    side: int
    price: int
    size: int
    is_last: bool = True


class Book:
    """Orders by id as (side, price, size)."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[int, int, int]] = {}
        self.reported: dict[int, int] = defaultdict(int)
        self.traded = 0

    def apply(self, event: Event) -> None:
        held = self.orders.get(event.order_id)
        match event.action:
            case OrderAction.CLEAR:
                self.orders.clear()
            case OrderAction.FILLED:
                self.reported[event.order_id] += event.size
            case OrderAction.ADD | OrderAction.SET:
                if held is not None and (event.side, event.price) == held[:2] and event.size <= held[2]:
                    self._reduce(event.order_id, held, event.size, is_trade=False)
                else:
                    self.reported.pop(event.order_id, None)
                    self._put(event.order_id, (event.side, event.price, event.size))
            case OrderAction.LEFT if held is None:
                self._put(event.order_id, (event.side, event.price, event.size))
            case _ if held is not None:
                taken = {
                    OrderAction.REDUCE: event.size,
                    OrderAction.EXECUTE: event.size,
                    OrderAction.DELETE: held[2],
                    OrderAction.LEFT: max(held[2] - event.size, 0),
                }[OrderAction(event.action)]
                is_trade = event.action in (OrderAction.EXECUTE, OrderAction.LEFT)
                self._reduce(event.order_id, held, max(held[2] - taken, 0), is_trade=is_trade)
        if event.is_last:
            self.reported.clear()

    def _reduce(self, order_id: int, held: tuple[int, int, int], left: int, *, is_trade: bool) -> None:
        gone = held[2] - left
        known = gone if is_trade else min(self.reported[order_id], gone)
        self.reported[order_id] = max(self.reported[order_id] - known, 0)
        self.traded += known
        self._put(order_id, (held[0], held[1], left))

    def _put(self, order_id: int, order: tuple[int, int, int]) -> None:
        if order[2] > 0:
            self.orders[order_id] = order
        else:
            self.orders.pop(order_id, None)

    def levels(self, side: int) -> dict[int, int]:
        """Size by price."""
        found: dict[int, int] = defaultdict(int)
        for order_side, price, size in self.orders.values():
            if order_side == side:
                found[price] += size
        return dict(found)

    def top(self) -> tuple[int, int, int, int]:
        bids, asks = self.levels(1), self.levels(-1)
        bid, ask = max(bids, default=0), min(asks, default=0)
        return bid, bids.get(bid, 0), ask, asks.get(ask, 0)


def replayed(levels: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """Level changes (side, price, size) applied one by one: size by side and price."""
    book: dict[tuple[int, int], int] = {}
    for side, price, size in levels:
        if size:
            book[side, price] = size
        else:
            book.pop((side, price), None)
    return book
