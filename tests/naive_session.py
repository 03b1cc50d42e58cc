"""A session, slow and obvious: messages in order of arrival, every packet kept, every view replayed from the start."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from synth_pipeline.market import engine
from synth_pipeline.market.flows import Run
from synth_pipeline.market.latency import Delay
from synth_pipeline.market.tape import record, rewind
from synth_pipeline.rng import per_path


@dataclass
class Packet:
    time_ns: int
    levels: list[tuple[int, int, int]]
    """(side, price, lots)"""
    trades: list[dict[str, int]]


@dataclass
class Action:
    """What a participant sends: `how` are the arguments of `submit`, `cancel` or `modify`."""

    time_ns: int
    who: int
    what: str
    order: int
    side: int = 0
    price: int | None = None
    lots: int = 0
    how: dict[str, object] = field(default_factory=dict)


def arrivals(delay: Delay, sent: list[int], rng: np.random.Generator) -> list[int]:
    """Return when messages arrive that are sent at some times, in that order."""
    found: list[int] = []
    for time_ns in sent:
        late = delay.median_ns * math.exp(delay.jitter * rng.standard_normal()) if delay.jitter else delay.median_ns
        found.append(max([time_ns + int(late + 0.5), *found[-1:]]))
    return found


class NaiveSession:
    """Plays a script of actions of participants with given delays (orders, reports, feed) and streams, up to a time."""

    def __init__(
        self,
        run: Run,
        latencies: list[list[Delay]],
        rngs: list[np.random.Generator],
        script: list[Action],
        until_ns: int,
    ) -> None:
        self.run, self.packets = run, list[Packet]()
        self.reports: list[list[tuple[int, int, str, int, int]]] = [[] for _ in latencies]
        """By participant (time, order, event, lots, left), in order of events, arrived or not."""
        self.orders: dict[tuple[int, int], list[int]] = {}
        """Resting orders by (participant, own id): engine's id, side, lots left."""
        self.opening = {
            (side, int(price)): int(lots)
            for side in (0, 1)
            for price, lots in zip(*engine.depth(run.market.book, side, 10**4), strict=True)
        }
        self._links = [per_path(rng, 3) for rng in rngs]
        self._latencies = latencies
        sends = []
        for who, delays in enumerate(latencies):
            own = [(number, action) for number, action in enumerate(script) if action.who == who]
            arrival = arrivals(delays[0], [action.time_ns for _, action in own], self._links[who][0])
            sends += [(at_ns, number, action) for at_ns, (number, action) in zip(arrival, own, strict=True)]
        for at_ns, _, action in sorted(sends, key=lambda send: send[:2]):
            if at_ns <= until_ns:
                self._run_to(at_ns)
                self._act(at_ns, action)
        self._run_to(until_ns)

    def settled(self, who: int) -> tuple[int, int]:
        """Return position and cash from every trade that there was."""
        position = cash = 0
        for packet in self.packets:
            for trade in packet.trades:
                for owner, side in (
                    (trade["taker_owner"], trade["taker_side"]),
                    (trade["maker_owner"], 1 - trade["taker_side"]),
                ):
                    if owner == who + 1:
                        sign = 1 if side == engine.BID else -1
                        position += sign * trade["lots"]
                        cash -= sign * trade["lots"] * trade["price"]
        return position, cash

    def received(self, who: int, until_ns: int) -> list[Packet]:
        """Return the packets that a participant has at a time; those of one time travel together."""
        times = sorted({packet.time_ns for packet in self.packets})
        arrival = dict(zip(times, arrivals(self._latencies[who][2], times, self._links[who][2]), strict=True))
        return [packet for packet in self.packets if arrival[packet.time_ns] <= until_ns]

    def view(self, packets: list[Packet]) -> list[list[tuple[int, int]]]:
        """Return bids and asks after some packets, best first."""
        levels = dict(self.opening)
        for packet in packets:
            levels |= {(side, price): lots for side, price, lots in packet.levels}
        held = [[(price, lots) for (own, price), lots in levels.items() if own == side and lots] for side in (0, 1)]
        return [sorted(held[0], reverse=True), sorted(held[1])]

    def told(self, who: int, until_ns: int) -> list[tuple[int, int, str, int, int]]:
        """Return the reports that a participant has at a time."""
        own = self.reports[who]
        arrival = arrivals(self._latencies[who][1], [report[0] for report in own], self._links[who][1])
        return [report for report, at_ns in zip(own, arrival, strict=True) if at_ns <= until_ns]

    def _run_to(self, until_ns: int) -> None:
        done = self.run.now_ns >= until_ns
        while not done:
            done = self.run.advance(until_ns)
            self._drain()

    def _drain(self) -> None:
        market, level, trade = self.run.market, 0, 0
        for event in market.tape[: market.clock.events[0]]:
            levels = market.journal.levels[level : event.level_rows]
            rows = market.journal.trades[trade : event.trade_rows]
            level, trade = event.level_rows, event.trade_rows
            trades = [{name: int(row[name]) for name in engine.TRADE.names or ()} for row in rows]
            changes = [(int(row.side), int(row.price), int(row.after)) for row in levels]
            self.packets.append(Packet(int(event.time_ns), changes, trades))
            for done in trades:
                self._fill(int(event.time_ns), done)
        rewind(market)

    def _fill(self, time_ns: int, trade: dict[str, int]) -> None:
        for engine_id in (trade["maker_id"], trade["taker_id"]):
            for (who, order), held in list(self.orders.items()):
                if held[0] == engine_id:
                    held[2] -= trade["lots"]
                    self.reports[who].append((time_ns, order, "filled", trade["lots"], held[2]))
                    if held[2] == 0:
                        del self.orders[who, order]

    def _act(self, now_ns: int, action: Action) -> None:
        key, told = (action.who, action.order), self.reports[action.who]
        held = self.orders.get(key)
        if action.what != "submit" and held is None:
            told.append((now_ns, action.order, "refused", action.lots, 0))
            return
        code = self._send(action, held[0] if held else 0)
        if (
            self.run.market.journal.rows.trades[0]
            or self.run.market.journal.rows.levels[0]
            or self.run.market.journal.rows.events[0]
        ):
            record(self.run.market, now_ns)
        if code < 0:
            told.append((now_ns, action.order, "refused", action.lots, held[2] if held else 0))
        elif action.what == "cancel":
            del self.orders[key]
            told.append((now_ns, action.order, "cancelled", code, 0))
        else:
            self.orders[key] = [code, action.side, action.lots]
            told.append(
                (now_ns, action.order, "accepted" if action.what == "submit" else "modified", action.lots, action.lots)
            )
        self._drain()
        if key in self.orders and engine.find(self.run.market.book, self.orders[key][0]) == 0:
            told.append((now_ns, action.order, "expired", self.orders.pop(key)[2], 0))

    def _send(self, action: Action, engine_id: int) -> int:
        market, how = self.run.market, action.how
        if action.what == "cancel":
            return engine.cancel(market.book, market.journal, engine_id)
        if action.what == "modify":
            return engine.modify(market.book, market.journal, engine_id, action.price, action.lots)
        owner = action.who + 1
        if how.get("kind") == "market":
            return engine.market(market.book, market.journal, action.side, action.lots, owner)
        flags = (
            engine.IOC * bool(how.get("ioc"))
            + engine.POST_ONLY * bool(how.get("post_only"))
            + engine.HIDDEN * bool(how.get("hidden"))
        )
        return engine.limit(
            market.book, market.journal, action.side, action.price, action.lots, owner, flags, how.get("display", 0)
        )
