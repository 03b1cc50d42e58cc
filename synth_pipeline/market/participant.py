"""A participant of a session: what it sends, and what it knows by now of the market and of its own orders.

Nothing here looks into the exchange: all that a participant knows came over its links. Prices are ticks, sizes lots,
cash is ticks times lots, fees apart; all exact integers.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.book import ASK, BID, HIDDEN, IOC, NO_ASK, NO_BID, POST_ONLY
from synth_pipeline.market.feed import PUBLIC_TRADE, Feed, View
from synth_pipeline.market.latency import Link
from synth_pipeline.series import IntArray

ACCEPTED, REFUSED, FILLED, MODIFIED, CANCELLED, EXPIRED = (
    "accepted",
    "refused",
    "filled",
    "modified",
    "cancelled",
    "expired",
)
"""What is reported: the exchange has taken an order; refused an order, a cancellation or a modification; a trade; as
the participant asked; what is left has gone without being asked for."""
SUBMIT, CANCEL, MODIFY = "submit", "cancel", "modify"
MARKET = -1
"""Flags of a market order."""
_LARGEST = 2**62


class Request(NamedTuple):
    """What a participant asks the exchange for."""

    what: str
    """`SUBMIT`, `CANCEL` or `MODIFY`."""
    order: int
    """The participant's own id."""
    side: int = BID
    price: int = 0
    lots: int = 0
    flags: int = 0
    """Of the engine, or `MARKET`."""
    display: int = 0


class Report(NamedTuple):
    """What the exchange tells a participant of one of its orders."""

    time_ns: int
    """When it happened at the exchange."""
    order: int
    event: str
    side: int
    price: int
    """Of a trade its price, else the order's; 0 of a market order."""
    lots: int
    """Traded, cancelled or expired lots, else those that the order wants."""
    left: int
    """Lots that the order still wants after it."""
    is_maker: bool = False
    """Of a trade: whether the order rested."""
    reason: str = ""
    """Why something was refused or has expired."""


class OpenOrder(NamedTuple):
    """An order as its participant knows it."""

    side: int
    price: int
    left: int
    """Lots that it still wants."""
    is_accepted: bool
    """Whether the exchange has confirmed it."""


class Participant:
    """One who trades in a session; made by `Session.join`."""

    def __init__(self, name: str, view: View, reports: Link, send: Callable[[Request], None]) -> None:
        self.name = name
        self.position = 0
        """Lots bought less lots sold, by the fills reported so far."""
        self.cash = 0
        """Ticks times lots received less paid, by the fills reported so far."""
        self.reports: list[Report] = []
        """What has arrived in the last step, in order."""
        self.trades: np.ndarray = np.empty(0, PUBLIC_TRADE)
        """Trades of everybody that the feed has shown in the last step, rows of `PUBLIC_TRADE`."""
        self._view, self._link, self._send = view, reports, send
        self._orders: dict[int, OpenOrder] = {}
        self._known: set[int] = set()
        self._on_the_way: deque[tuple[int, Report]] = deque()
        self._seen_trades: list[np.ndarray] = []
        self._sent = 0

    def submit(
        self,
        side: int,
        price: int | None,
        lots: int,
        *,
        kind: Literal["limit", "market"] = "limit",
        ioc: bool = False,
        post_only: bool = False,
        hidden: bool = False,
        display: int = 0,
    ) -> int:
        """Send an order now and return its own id; what becomes of it is told by `reports`.

        `display` makes an iceberg of it; a market order has no price. What breaks the rules is refused by the exchange;
        raises `InputError` only for what is no order at all.
        """
        if side not in (BID, ASK):
            raise InputError(f"side is {side!r}: an order is a bid ({BID}) or an ask ({ASK})")
        flags = ioc * IOC | post_only * POST_ONLY | hidden * HIDDEN
        if kind == "market":
            if price is not None or flags or display:
                raise InputError("a market order has no price, flag or display: give None and leave the others out")
            flags = MARKET
        elif kind != "limit":
            raise InputError(f"kind is {kind!r}: an order is 'limit' or 'market'")
        number = 0 if flags == MARKET else _whole("price", price)
        request = Request(SUBMIT, self._sent + 1, side, number, _whole("lots", lots), flags, _whole("display", display))
        self._sent += 1
        self._orders[self._sent] = OpenOrder(side, number, request.lots, False)
        self._send(request)
        return self._sent

    def cancel(self, order: int) -> None:
        """Ask to cancel an order. Raises `InputError` for an id that was never given."""
        self._check(order)
        self._send(Request(CANCEL, order))

    def modify(self, order: int, price: int, lots: int) -> None:
        """Ask for another price or number of lots still wanted; fewer lots at the same price keep the place.

        Raises `InputError` for an id that was never given.
        """
        self._check(order)
        self._send(Request(MODIFY, order, price=_whole("price", price), lots=_whole("lots", lots)))

    def book(self, levels: int = 10) -> tuple[IntArray, IntArray]:
        """Return the best bids and asks as the feed shows them by now, rows (price, lots), best first."""
        return self._view.depth(BID, levels), self._view.depth(ASK, levels)

    @property
    def mid(self) -> float | None:
        """The mid of the book as the feed shows it, ticks; None where a side is empty."""
        bid, ask = self._view.touch()
        return None if bid == NO_BID or ask == NO_ASK else 0.5 * (bid + ask)

    @property
    def seen_ns(self) -> int:
        """When the exchange published the book that `book` shows."""
        return self._view.seen_ns

    @property
    def fills(self) -> list[Report]:
        """Own trades that have been reported in the last step."""
        return [report for report in self.reports if report.event == FILLED]

    @property
    def orders(self) -> Mapping[int, OpenOrder]:
        """Own orders by id, those on their way to the exchange too, as far as reports tell."""
        return MappingProxyType(self._orders)

    def begin_step(self) -> None:
        """Forget what arrived in the last step (for the session)."""
        self.reports, self._seen_trades = [], []

    def watch(self, feed: Feed, until_ns: int) -> None:
        """Take what the feed brings up to a time (for the session)."""
        self._seen_trades.append(self._view.receive(feed, until_ns))

    def post(self, report: Report, out_ns: int) -> None:
        """Send a report that gets out of the exchange at a time (for the session, in the order of events)."""
        self._on_the_way.append((self._link.arrival_ns(out_ns), report))

    def end_step(self, until_ns: int) -> None:
        """Take the reports that arrive up to a time (for the session)."""
        self.trades = np.concatenate(self._seen_trades)
        while self._on_the_way and self._on_the_way[0][0] <= until_ns:
            self._learn(self._on_the_way.popleft()[1])

    def _learn(self, report: Report) -> None:
        self.reports.append(report)
        if report.event == FILLED:
            sign = 1 if report.side == BID else -1
            self.position += sign * report.lots
            self.cash -= sign * report.lots * report.price
        if report.left == 0:
            self._orders.pop(report.order, None)
        elif report.order in self._orders:
            known = self._orders[report.order]
            price = known.price if report.event == FILLED else report.price
            self._orders[report.order] = OpenOrder(report.side, price, report.left, True)

    def _check(self, order: int) -> None:
        if not 1 <= order <= self._sent:
            raise InputError(f"{self.name} has sent no order {order}: its ids go from 1 to {self._sent}")


def _whole(name: str, value: object) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} is {value!r}: it must be a whole number") from None
    if abs(number) >= _LARGEST:
        raise InputError(f"{name} is {number}: it must be below 2^62")
    return number
