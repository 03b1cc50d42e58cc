"""A session: participants trade with a running order flow, and each other, step by step.

    session = Session(flow.start(start_ns, rng=stream(1, "run")))
    maker = session.join("maker", Latency.of(200_000, 0.3), rng=stream(1, "maker"))
    order = maker.submit(BID, 59_999, 20, post_only=True)
    session.step(start_ns + 1_000_000_000)
    maker.book(5), maker.trades, maker.reports, maker.position, maker.cash

The flow runs up to the moment at which a message arrives; then the exchange acts on it, and the flow goes on with the
book as it is now. Of one moment the flow's events come first, then messages in the order in which they were sent. What
happens does not depend on how time is cut into steps, nor on who else is there and does nothing.

Here belongs the order of events and what only the exchange knows (`queue_ahead`, `settled`). What a participant sees
and knows stands in `participant`, market data in `feed`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.market import engine
from synth_pipeline.market.book import DELETE, IOC
from synth_pipeline.market.compiling import kernel
from synth_pipeline.market.feed import Feed, View
from synth_pipeline.market.flows import Run
from synth_pipeline.market.flows.stability import lowest_price
from synth_pipeline.market.latency import Latency, Link
from synth_pipeline.market.participant import (
    ACCEPTED,
    CANCEL,
    CANCELLED,
    EXPIRED,
    FILLED,
    MARKET,
    MODIFIED,
    MODIFY,
    REFUSED,
    SUBMIT,
    Participant,
    Report,
    Request,
)
from synth_pipeline.market.tape import Market, record, rewind

REFUSALS = {
    engine.REFUSED_SIZE: "size",
    engine.REFUSED_PRICE: "price",
    engine.REFUSED_FULL: "full",
    engine.REFUSED_TICK: "tick",
    engine.REFUSED_LOT: "lot",
    engine.REFUSED_FLAGS: "flags",
    engine.REFUSED_DISPLAY: "display",
    engine.REFUSED_CROSSES: "crosses",
}
"""Why the exchange refuses what is sent, as reports say it; besides `gone` (it rests no more) and `halted`."""
_CANCEL, _MODIFY = 1, 2
_CODES = {SUBMIT: 0, CANCEL: _CANCEL, MODIFY: _MODIFY}


@dataclass(slots=True)
class _Account:
    """What the exchange has of a participant."""

    participant: Participant
    owner: int
    view: View
    entry: Link
    orders: dict[int, _Order]
    """Resting orders by the participant's ids."""
    position: int = 0
    cash: int = 0


@dataclass(slots=True)
class _Order:
    account: _Account
    number: int
    """The participant's id."""
    engine_id: int
    side: int
    price: int
    left: int
    flags: int


class Session:
    """A market in time that participants take part in.

    `on_tape` is called with the market each time before what its tape and journal hold is dropped, so that somebody may
    write down what happens.
    """

    def __init__(self, run: Run, *, on_tape: Callable[[Market], None] | None = None) -> None:
        self.run = run
        self._market = run.market
        self._on_tape = on_tape
        self._feed = Feed()
        self._accounts: dict[str, _Account] = {}
        self._requests: list[tuple[int, int, _Account, Request]] = []
        self._numbers = count()
        self._resting: dict[int, _Order] = {}
        """Orders of participants by the engine's ids."""
        self._told: list[tuple[Report, Participant]] = []
        self._pool = self._market.book.orders.view(np.ndarray)
        self._tape = self._market.tape.view(np.ndarray)
        self._done = self._market.journal.trades.view(np.ndarray)
        self._state = self._market.book.state.view(np.ndarray)
        self._rules = self._market.book.rules.view(np.ndarray)
        # Fields of plain arrays are read ten times as fast as those of records.
        self._rows = self._market.journal.rows.view(np.ndarray)
        self._clock = self._market.clock.view(np.ndarray)
        self._mark()
        self._broken: SynthError | None = None
        self.now_ns = run.now_ns
        """The time that the session has reached, and at which what participants send now is sent."""

    def join(self, name: str, latency: Latency | None = None, *, rng: np.random.Generator | None = None) -> Participant:
        """Let somebody take part from now on, who starts with the book as it is.

        Raises `InputError` for a name that is taken, and for a jittered latency without an rng.
        """
        if name in self._accounts:
            raise InputError(f"participant {name!r} is there already: choose another name")
        entry, reports, feed = (latency or Latency()).links(rng)
        self._publish()
        view = View(self._market, self._feed, feed, self.now_ns)
        participant = Participant(name, view, reports, lambda request: self._send(account, request))
        account = _Account(participant, 1 + len(self._accounts), view, entry, {})
        self._accounts[name] = account
        return participant

    def step(self, until_ns: int) -> None:
        """Go on to a time: everything up to and at it happens, and what arrives by then is received.

        Raises `InputError` for a time in the past, `SynthError` with what broke, and when, once the market is no market
        any more; what happened before that is received all the same.
        """
        if self._broken is not None:
            raise self._broken
        if until_ns < self.now_ns:
            raise InputError(f"the session has reached {self.now_ns} ns: it cannot go back to {until_ns} ns")
        for account in self._accounts.values():
            account.participant.begin_step()
        try:
            while self._requests and self._requests[0][0] <= until_ns:
                at_ns, _, account, request = heapq.heappop(self._requests)
                self._advance(at_ns)
                self._act(at_ns, account, request)
            self._advance(until_ns)
            self.now_ns = until_ns
        except SynthError as error:
            self._broken, self.now_ns = error, self.run.now_ns
            raise
        finally:
            self._publish()
            for account in self._accounts.values():
                account.participant.end_step(self.now_ns)

    def queue_ahead(self, participant: Participant) -> dict[int, int]:
        """Return by own id the lots that would trade before each resting order at its price: what no feed tells."""
        orders = self._accounts[participant.name].orders
        return {number: engine.queue_ahead(self._market.book, order.engine_id) for number, order in orders.items()}

    def settled(self, participant: Participant) -> tuple[int, int]:
        """Return position (lots) and cash (ticks times lots) at the exchange, reports on their way included."""
        account = self._accounts[participant.name]
        return account.position, account.cash

    # --- the flow's turn

    def _advance(self, until_ns: int) -> None:
        # A flow that is asked twice for one time might draw anew; so it is asked once.
        done = bool(self._clock["now_ns"][0] >= until_ns)
        while not done:
            done = self.run.advance(until_ns)
            if not done and self._clock["events"][0] == 0:
                raise SynthError(f"at {self.run.now_ns} ns the journal cannot hold all parts of icebergs: send fewer")
            if not done:
                self._publish()
        self._read()

    def _publish(self) -> None:
        """Empty the tape: what it tells of own orders is noted, everybody's feed goes on."""
        self._read()
        if self._on_tape is not None:
            self._on_tape(self._market)
        self._feed.publish(self.run)
        rewind(self._market)
        self._trades_read = self._events_read = 0
        for account in self._accounts.values():
            account.participant.watch(self._feed, self.run.now_ns)
        self._feed.forget([account.view for account in self._accounts.values()])

    def _read(self) -> None:
        """Note what the flow has done to own orders since the tape was last read."""
        if self._resting:
            self._read_trades()
            if (self._low, self._tick) != self._terms():
                self._read_moves(list(self._resting.values()))
        self._mark()

    def _mark(self) -> None:
        """Send the reports of what has been read, in the order in which it happened, and go on from here."""
        for report, participant in sorted(self._told, key=lambda each: each[0].time_ns):
            participant.post(report, self._out_ns(report.time_ns))
        self._told.clear()
        self._trades_read = int(self._rows["trades"][0])
        self._events_read = int(self._clock["events"][0])
        self._low, self._tick = self._terms()

    def _terms(self) -> tuple[int, int]:
        """Return what the exchange moves orders for: the lowest price that there is, and the tick."""
        return int(self._state["low"][0]), int(self._rules["tick"][0])

    def _read_trades(self) -> None:
        done = self._done[self._trades_read : int(self._rows["trades"][0])]
        own = np.flatnonzero(done["maker_owner"] | done["taker_owner"])
        if own.size == 0:
            return
        events = self._tape[: int(self._clock["events"][0])]
        times = events["time_ns"][np.searchsorted(events["trade_rows"], own + self._trades_read, "right")]
        for time_ns, row in zip(times.tolist(), done[own], strict=True):
            for which in ("maker_id", "taker_id"):
                order = self._resting.get(int(row[which]))
                if order is not None:
                    self._fill(order, time_ns, int(row["price"]), int(row["lots"]), is_maker=which == "maker_id")

    def _fill(self, order: _Order, time_ns: int, price: int, lots: int, *, is_maker: bool) -> None:
        account, sign = order.account, 1 if order.side == engine.BID else -1
        account.position += sign * lots
        account.cash -= sign * lots * price
        order.left -= lots
        self._tell(order, time_ns, FILLED, lots, price=price, is_maker=is_maker)
        if order.left == 0:
            self._drop(order)

    def _read_moves(self, orders: Iterable[_Order], own_ns: int | None = None) -> None:
        """Note which orders rest no more or elsewhere, untraded: after a request at `own_ns`, else by the exchange."""
        ids, prices, mask = self._pool["order_id"], self._pool["price"], self._pool.size - 1
        for order in orders:
            slot = order.engine_id & mask
            if order.left == 0 or (ids[slot] == order.engine_id and prices[slot] == order.price):
                continue
            time_ns = self._gone_ns(order) if own_ns is None else own_ns
            if ids[slot] == order.engine_id:
                order.price = int(prices[slot])
                self._tell(order, time_ns, MODIFIED, order.left, reason="venue")
            elif order.flags & IOC:
                self._expire(order, time_ns, "unfilled")
            else:
                self._expire(order, time_ns, "venue" if own_ns is None else "self_trade")

    def _expire(self, order: _Order, time_ns: int, reason: str) -> None:
        lots, order.left = order.left, 0
        self._drop(order)
        self._tell(order, time_ns, EXPIRED, lots, reason=reason)

    def _drop(self, order: _Order) -> None:
        del self._resting[order.engine_id], order.account.orders[order.number]

    def _gone_ns(self, order: _Order) -> int:
        """Return when the exchange took an order from its price.

        A hidden one leaves no row: where the price band did not move past it, the time reached must do.
        """
        events = self._tape[self._events_read : int(self._clock["events"][0])]
        first = int(self._tape["event_rows"][self._events_read - 1]) if self._events_read else 0
        told = self._market.journal.events.view(np.ndarray)[first : int(self._rows["events"][0])]
        found = np.flatnonzero((told["kind"] == DELETE) & (told["order_id"] == order.engine_id))
        if found.size:
            return int(events["time_ns"][np.searchsorted(events["event_rows"], found[0] + first, "right")])
        low, width = self._low, self._market.book.levels.shape[1]
        for event in events:
            low = lowest_price(low, width, (int(event["bid"]) + int(event["ask"])) // 2)
            if not low <= order.price < low + width:
                return int(event["time_ns"])
        return self.run.now_ns

    # --- a participant's turn

    def _send(self, account: _Account, request: Request) -> None:
        arrival_ns = account.entry.arrival_ns(self._out_ns(self.now_ns))
        for halt in self.run.halts:
            if halt.start_ns <= arrival_ns < halt.end_ns and not halt.rejects:
                arrival_ns = halt.end_ns
        heapq.heappush(self._requests, (arrival_ns, next(self._numbers), account, request))

    def _act(self, now_ns: int, account: _Account, request: Request) -> None:
        """Let the exchange act on a request."""
        order = account.orders.get(request.order)
        if request.what == SUBMIT:
            order = _Order(account, request.order, 0, request.side, request.price, 0, request.flags)
        elif order is None:
            gone = _Order(account, request.order, 0, request.side, request.price, 0, 0)
            self._tell(gone, now_ns, REFUSED, request.lots, reason="gone")
            self._mark()
            return
        is_halted = any(halt.start_ns <= now_ns < halt.end_ns for halt in self.run.halts)
        code = 0 if is_halted else self._match(now_ns, order, request)
        if is_halted or code in REFUSALS:
            self._tell(order, now_ns, REFUSED, request.lots, reason="halted" if is_halted else REFUSALS[code])
        elif request.what == CANCEL:
            order.left = 0
            self._drop(order)
            self._tell(order, now_ns, CANCELLED, code)
        else:
            order.engine_id, order.price, order.left = code, request.price, request.lots
            self._resting[code] = account.orders[order.number] = order
            self._tell(order, now_ns, MODIFIED if request.what == MODIFY else ACCEPTED, order.left)
            self._read_trades()
            allows = self._rules["self_trade"][0] == engine.ALLOW
            self._read_moves([order] if allows else list(account.orders.values()), now_ns)
        self._mark()

    def _match(self, now_ns: int, order: _Order, request: Request) -> int:
        what = _CODES[request.what]
        terms = (request.side, request.price, request.lots, request.flags, request.display)
        for _ in range(2):
            code = int(_ask(self._market, now_ns, what, order.engine_id, order.account.owner, *terms))
            if code != engine.REFUSED_JOURNAL:
                return code
            self._publish()
        raise SynthError(f"at {now_ns} ns the journal cannot hold all parts of icebergs: send fewer")

    def _tell(self, order: _Order, time_ns: int, event: str, lots: int, **more: Any) -> None:
        price = more.pop("price", order.price)
        report = Report(time_ns, order.number, event, order.side, price, lots, order.left, **more)
        self._told.append((report, order.account.participant))

    def _out_ns(self, time_ns: int) -> int:
        """Return when what is sent at a time gets through, the usual latency apart."""
        return int(self.run.published_ns(np.array([time_ns]))[0])


@kernel
def _ask(
    market: Market, now_ns: int, what: int, engine_id: int, owner: int, side: int, price: int, lots: int, flags: int,
    display: int,
) -> int:  # fmt: skip
    """Do what a request asks for, and write it to the tape where it changed anything; returns what the engine does."""
    book, journal, rows = market.book, market.journal, market.journal.rows[0]
    if market.clock[0].events == market.tape.size:
        return engine.REFUSED_JOURNAL
    before = rows.levels + rows.trades + rows.events
    if what == _CANCEL:
        code = engine.cancel(book, journal, engine_id)
    elif what == _MODIFY:
        code = engine.modify(book, journal, engine_id, price, lots)
    elif flags == MARKET:
        code = engine.market(book, journal, side, lots, owner)
    else:
        code = engine.limit(book, journal, side, price, lots, owner, flags, display)
    if rows.levels + rows.trades + rows.events > before:
        record(market, now_ns)
    return int(code)
