"""The simulated venue as a recorder sees it: frames in the order they arrive.

Here the simulation becomes messages: update ids, the clock of the depth stream, the depth snapshot, delays and latency.
The bytes of a message are written in `wire`.

Every event that changes the book gets one update id; ids skip, since a venue counts all of its symbols together. An
event publishes its trades, then the touch if it moved (`bookTicker` with the event's id). The depth stream runs on a
clock: at each tick at which some level differs from what was last published, one diff names every level touched since
the last diff, so that it can be applied to any snapshot taken in between. After a diff that ends with id u the book's
top is hence that of the last `bookTicker` whose id is at most u.

Ids start at the start time in milliseconds (they advance more slowly than that), so a later recording has higher ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.calibration import embedded_market
from synth_pipeline.market.engine import ASK, BID, Book, depth
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.market.tape import rewind
from synth_pipeline.market.wire import Encoder, Level, Wire
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import IntArray

_NS_PER_MS = 1_000_000
_WARM_UP_NS = 30 * NS_PER_SECOND
_STRIDE_NS = 10 * NS_PER_SECOND
_MEAN_ID_STEP = 3.0
_SPACING_NS = 1000
"""Messages that arrive together are read one after another."""
_BLOCK = 4096


class Frame(NamedTuple):
    """One message as a recorder writes it down."""

    received_ns: int
    payload: bytes


def simulate(
    symbol: str,
    start_ns: int,
    end_ns: int,
    *,
    rng: np.random.Generator,
    parameters: Parameters | None = None,
    encoder: Encoder | None = None,
    progress: Progress = silent,
) -> Iterator[Frame]:
    """Yield every frame received from `start_ns` up to, not including, `end_ns`, at constant memory.

    The format is Binance USD-M's unless an encoder of another venue's is given.

    A longer stretch begins with the very frames of a shorter one. The depth snapshot arrives about `snapshot_after_ms`
    plus `snapshot_latency_ms` after the start; a stretch that ends before has none. Raises `InputError` for an empty
    stretch, a symbol that is not alphanumeric, or parameters that want more orders than fit.
    """
    if end_ns <= start_ns:
        raise InputError(
            f"the simulation ends at {end_ns} ns, not after its start at {start_ns} ns: choose a later end"
        )
    simulation = Simulation(symbol, start_ns, rng=rng, parameters=parameters or Parameters(), encoder=encoder)
    return _until(simulation, start_ns, end_ns, progress)


def _until(simulation: Simulation, start_ns: int, end_ns: int, progress: Progress) -> Iterator[Frame]:
    total = math.ceil((end_ns - start_ns) / NS_PER_SECOND)
    for now_ns in range(start_ns + _STRIDE_NS, end_ns + _STRIDE_NS, _STRIDE_NS):
        yield from takewhile(lambda frame: frame.received_ns < end_ns, simulation.advance(min(now_ns, end_ns)))
        progress(min((now_ns - start_ns) // NS_PER_SECOND, total), total, "simulating")


class Simulation:
    """A venue with one symbol and one recorder connected to it since `start_ns`."""

    def __init__(
        self,
        symbol: str,
        start_ns: int,
        *,
        rng: np.random.Generator,
        parameters: Parameters,
        encoder: Encoder | None = None,
    ) -> None:
        flow_rng, self._id_rng, delay_rng, latency_rng = per_path(rng, 4)
        self._parameters = parameters
        self._driven = embedded_market(parameters, start_ns - _WARM_UP_NS, flow_rng)
        self._market = self._driven.market
        self._wire = encoder or Wire(symbol, parameters.tick_size, parameters.lot_size)
        self._connection = Connection(parameters, delay_rng, latency_rng)
        self._snapshot_ns: int | None = start_ns + parameters.snapshot_after_ms * _NS_PER_MS
        self._last_id = self._last_trade_id = start_ns // _NS_PER_MS
        self._depth = DepthStream(start_ns, self._last_id, parameters.diff_interval_ms * _NS_PER_MS)
        self._last_event_ns = start_ns
        self._touch: list[int] = []
        self._warm_up(start_ns)

    @property
    def book(self) -> Book:
        """The book as it stands, to look at."""
        return self._market.book

    def advance(self, until_ns: int) -> Iterator[Frame]:
        """Simulate up to a time and yield what the recorder receives of it, in order of arrival."""
        if self._snapshot_ns is not None and until_ns >= self._snapshot_ns:
            yield from self._run(self._snapshot_ns)
            self._snapshot_ns = None
            self._answer_snapshot()
        yield from self._run(until_ns)

    @property
    def _now_ns(self) -> int:
        return int(self._market.clock.now_ns[0])

    def _warm_up(self, until_ns: int) -> None:
        while not self._driven.advance(until_ns):
            rewind(self._market)
        rewind(self._market)

    def _run(self, until_ns: int) -> Iterator[Frame]:
        done = False
        while not (done and self._now_ns >= until_ns):
            done = self._driven.advance(min(until_ns, self._now_ns + NS_PER_SECOND))
            self._publish()
            rewind(self._market)
            yield from self._connection.take()
        self._publish_depth(self._now_ns)
        yield from self._connection.take()

    def _publish(self) -> None:
        """Publish what the tape holds: events one by one where they show, with all that follows unseen."""
        journal, tape = self._market.journal, self._market.tape[: self._market.clock.events[0]]
        if not tape.size:
            return
        ids = self._last_id + np.cumsum(self._id_rng.geometric(1 / _MEAN_ID_STEP, tape.size))
        levels: list[tuple[int, int, int, int]] = journal.levels[: journal.rows.levels[0]].tolist()
        trades: list[tuple[int, ...]] = journal.trades[: journal.rows.trades[0]].tolist()
        firsts = np.flatnonzero(self._is_shown(tape))
        lasts = np.append(firsts[1:], tape.size) - 1
        level_row = trade_row = 0
        for first, first_id, last, last_id in zip(
            tape[firsts].tolist(), ids[firsts].tolist(), tape[lasts].tolist(), ids[lasts].tolist(), strict=True
        ):
            time_ns, _, trade_rows, _, *touch = first
            self._publish_depth(time_ns)
            self._last_id, self._last_event_ns = first_id, time_ns
            for _, _, price, lots, taker_side, *_ in trades[trade_row:trade_rows]:
                self._publish_trade(price, lots, taker_side)
            if touch != self._touch:
                self._publish_touch(touch)
            self._last_event_ns, level_rows, trade_row, *_ = last
            self._last_id = last_id
            self._depth.add(first_id, last_id, levels[level_row:level_rows])
            level_row = level_rows

    def _is_shown(self, tape: np.ndarray) -> np.ndarray:
        """Return which events publish something: trades, another touch, or the depth before them."""
        touch = [tape[name] for name in ("bid", "bid_lots", "ask", "ask_lots", "trade_rows")]
        ticks = tape["time_ns"] // self._depth.interval_ns
        shown: np.ndarray = np.append(True, (np.diff(np.stack((*touch, ticks))) != 0).any(axis=0))
        return shown

    def _publish_trade(self, price: int, size: int, taker_side: int) -> None:
        self._last_trade_id += 1
        sent_ms, event_ms = self._stamps()
        payload = self._wire.trade(
            sent_ms=sent_ms,
            event_ms=event_ms,
            trade_id=self._last_trade_id,
            price=price,
            size=size,
            buyer_is_maker=taker_side == ASK,
        )
        self._connection.deliver(sent_ms, payload)

    def _publish_touch(self, touch: list[int]) -> None:
        self._touch = touch
        sent_ms, event_ms = self._stamps()
        payload = self._wire.book_ticker(
            sent_ms=sent_ms, event_ms=event_ms, update_id=self._last_id, bid=touch[:2], ask=touch[2:]
        )
        self._connection.deliver(sent_ms, payload)

    def _publish_depth(self, now_ns: int) -> None:
        if (diff := self._depth.due(now_ns)) is None:
            return
        sent_ms = self._connection.sent_ms(diff.clock_ns)
        payload = self._wire.depth_update(
            sent_ms=sent_ms,
            event_ms=self._last_event_ns // _NS_PER_MS,
            first_id=diff.first_id,
            last_id=diff.last_id,
            previous_id=diff.previous_id,
            bids=diff.levels[BID],
            asks=diff.levels[ASK],
        )
        self._connection.deliver(sent_ms, payload)

    def _stamps(self) -> tuple[int, int]:
        """Return the sending and the event time in ms of what the last event publishes."""
        return self._connection.sent_ms(self._last_event_ns), self._last_event_ns // _NS_PER_MS

    def _answer_snapshot(self) -> None:
        """Show the book as it stands to the recorder, later."""
        levels = self._parameters.snapshot_levels
        bids, asks = (np.column_stack(depth(self.book, side, levels)).tolist() for side in (BID, ASK))
        payload = self._wire.snapshot(
            sent_ms=self._connection.sent_ms(self._now_ns),
            event_ms=self._last_event_ns // _NS_PER_MS,
            last_id=self._last_id,
            bids=bids,
            asks=asks,
        )
        self._connection.answer(self._now_ns + self._parameters.snapshot_latency_ms * _NS_PER_MS, payload)


class Diff(NamedTuple):
    """What one message of the depth stream says."""

    clock_ns: int
    first_id: int
    last_id: int
    previous_id: int
    levels: tuple[list[Level], list[Level]]
    """Touched levels of bids and asks, by rising price."""


class DepthStream:
    """Gathers level changes and lets them go on a clock."""

    def __init__(self, start_ns: int, last_id: int, interval_ns: int) -> None:
        self.interval_ns = interval_ns
        self._next_ns = (start_ns // interval_ns + 1) * interval_ns
        self._previous_id = self._first_id = self._last_id = last_id
        self._changes: list[tuple[int, int, int, int]] = []

    def add(self, first_id: int, last_id: int, changes: list[tuple[int, int, int, int]]) -> None:
        """Take in the level changes (side, price, size before, size after) of events with ids from first to last."""
        if not self._changes:
            self._first_id = first_id
        self._last_id = last_id
        self._changes += changes

    def due(self, now_ns: int) -> Diff | None:
        """Return the diff of the clock's next tick, once `now_ns` has reached it, unless nothing differs."""
        if now_ns < self._next_ns:
            return None
        clock_ns = now_ns // self.interval_ns * self.interval_ns
        due_ns, self._next_ns = self._next_ns, clock_ns + self.interval_ns
        sizes = {(side, price): after for side, price, _, after in self._changes}
        # What was undone stays in memory: a snapshot may have caught it in between.
        if sizes == {(side, price): before for side, price, before, _ in reversed(self._changes)}:
            return None
        levels: tuple[list[Level], list[Level]] = ([], [])
        for side, price in sorted(sizes):
            levels[side].append((price, sizes[side, price]))
        self._changes.clear()
        diff = Diff(due_ns, self._first_id, self._last_id, self._previous_id, levels)
        self._previous_id = self._last_id
        return diff


class Connection:
    """The way from the venue to the recorder: stamps, latency, arrival in the order sent."""

    def __init__(
        self, parameters: Parameters, delay_rng: np.random.Generator, latency_rng: np.random.Generator
    ) -> None:
        median_ns, log_sd = parameters.latency_median_ms * _NS_PER_MS, parameters.latency_log_sd
        stays = 1 / (1 + parameters.publish_delay_ms)
        self._delays_ms = _endless(lambda size: delay_rng.geometric(stays, size) - 1)
        self._latencies_ns = _endless(
            lambda size: (median_ns * np.exp(log_sd * latency_rng.standard_normal(size))).astype(np.int64)
        )
        self._last_ns = 0
        self._answer: Frame | None = None
        self._received: list[Frame] = []

    def sent_ms(self, event_ns: int) -> int:
        """Return when the venue sends what an event caused."""
        return event_ns // _NS_PER_MS + next(self._delays_ms)

    def answer(self, received_ns: int, payload: bytes) -> None:
        """Let the answer to a request arrive at a time, among the frames delivered then."""
        self._answer = Frame(received_ns, payload)

    def deliver(self, sent_ms: int, payload: bytes) -> None:
        """Let a message arrive, after an answer that is due before it."""
        received_ns = sent_ms * _NS_PER_MS + next(self._latencies_ns)
        if self._answer is not None and self._answer.received_ns <= received_ns:
            self._arrive(*self._answer)
            self._answer = None
        self._arrive(received_ns, payload)

    def take(self) -> list[Frame]:
        """Return what has arrived since the last call."""
        received, self._received = self._received, []
        return received

    def _arrive(self, received_ns: int, payload: bytes) -> None:
        self._last_ns = max(received_ns, self._last_ns + _SPACING_NS)
        self._received.append(Frame(self._last_ns, payload))


def _endless(draw: Callable[[int], IntArray]) -> Iterator[int]:
    """Yield numbers one by one that are drawn in blocks, which is faster and the same however many are taken."""
    while True:
        yield from draw(_BLOCK).tolist()
