"""The simulated venue as a recorder sees it: frames in the order they arrive.

Here the simulation becomes messages: update ids, the clock of the depth stream, the depth snapshot, delays and latency. The
bytes of a message are written in `wire`.

Every event that changes the book gets one update id; ids skip, since a venue counts all of its symbols together. An event
publishes its trades, then the touch if it moved (`bookTicker` with the event's id). The depth stream runs on a clock: at
each tick at which some level differs from what was last published, one diff names every level touched since the last diff,
so that it can be applied to any snapshot taken in between. After a diff that ends with id u the book's top is hence that of
the last `bookTicker` whose id is at most u.

Ids start at the start time in milliseconds (they advance more slowly than that), so a later recording has higher ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.efficient_price import price_law
from synth_pipeline.market.engine import ASK, BID, Book, depth
from synth_pipeline.market.order_flow import advance, flow_law, new_market, rewind
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.market.wire import Level, Wire
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.schema import NS_PER_SECOND

_NS_PER_MS = 1_000_000
_WARM_UP_NS = 30 * NS_PER_SECOND
_STRIDE_NS = 10 * NS_PER_SECOND
_MEAN_ID_STEP = 3.0


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
    progress: Progress = silent,
) -> Iterator[Frame]:
    """Yield every frame received from `start_ns` up to, not including, `end_ns`, at constant memory.

    A longer stretch begins with the very frames of a shorter one. Raises `InputError` for an empty stretch, a symbol
    that is not alphanumeric, or parameters that want more orders than fit.
    """
    if end_ns <= start_ns:
        raise InputError(f"the simulation ends at {end_ns} ns, not after its start at {start_ns} ns: choose a later end")
    exchange = Exchange(symbol, start_ns, rng=rng, parameters=parameters or Parameters())
    return _until(exchange, start_ns, end_ns, progress)


def _until(exchange: Exchange, start_ns: int, end_ns: int, progress: Progress) -> Iterator[Frame]:
    total = math.ceil((end_ns - start_ns) / NS_PER_SECOND)
    for now_ns in range(start_ns + _STRIDE_NS, end_ns + _STRIDE_NS, _STRIDE_NS):
        for frame in exchange.advance(min(now_ns, end_ns)):
            if frame.received_ns >= end_ns:
                return
            yield frame
        progress(min((now_ns - start_ns) // NS_PER_SECOND, total), total, "simulating")


class Exchange:
    """A venue with one symbol and one recorder connected to it since `start_ns`."""

    def __init__(self, symbol: str, start_ns: int, *, rng: np.random.Generator, parameters: Parameters) -> None:
        self._flow_rng, id_rng, delay_rng, latency_rng = per_path(rng, 4)
        self._parameters = parameters
        self._price, self._flow = price_law(parameters), flow_law(parameters)
        self._market = new_market(start_ns - _WARM_UP_NS, parameters, self._price, self._flow, self._flow_rng)
        self._wire = Wire(symbol, parameters.tick_size, parameters.lot_size)
        self._id_steps = _endless(lambda size: id_rng.geometric(1 / _MEAN_ID_STEP, size))
        self._connection = _Connection(parameters, delay_rng, latency_rng)
        self._depth = _DepthStream(start_ns, parameters.diff_interval_ms * _NS_PER_MS)
        self._snapshot_ns: int | None = start_ns + parameters.snapshot_after_ms * _NS_PER_MS
        self._last_id = self._last_trade_id = start_ns // _NS_PER_MS
        self._last_event_ns = start_ns
        self._touch: list[int] = []
        self._warm_up(start_ns)

    @property
    def book(self) -> Book:
        """The book as it stands, to look at."""
        return self._market.book

    @property
    def last_id(self) -> int:
        """Update id of the book as it stands."""
        return self._last_id

    def advance(self, until_ns: int) -> Iterator[Frame]:
        """Simulate up to a time and yield what the recorder receives of it, in order of arrival."""
        if self._snapshot_ns is not None and until_ns >= self._snapshot_ns:
            yield from self._run(self._snapshot_ns)
            self._snapshot_ns = None
            self._connection.answer(self._now_ns, self._take_snapshot)
        yield from self._run(until_ns)

    @property
    def _now_ns(self) -> int:
        return int(self._market.clock_ns[0])

    def _warm_up(self, until_ns: int) -> None:
        while not advance(self._market, self._price, self._flow, until_ns, self._flow_rng):
            rewind(self._market)
        rewind(self._market)

    def _run(self, until_ns: int) -> Iterator[Frame]:
        done = False
        while not done:
            done = advance(self._market, self._price, self._flow, until_ns, self._flow_rng)
            yield from self._publish()
            rewind(self._market)
        yield from self._publish_depth(self._now_ns)

    def _publish(self) -> Iterator[Frame]:
        """Publish what the tape holds."""
        tape, journal = self._market.tape, self._market.journal
        rows = slice(int(tape.rows[0]))
        levels = _rows(journal.level_side, journal.level_price, journal.level_before, journal.level_after)
        trades = _rows(journal.trade_price, journal.trade_size, journal.taker_side)
        events = zip(*(column[rows].tolist() for column in tape[:4]), strict=True)
        level_row = trade_row = 0
        for time_ns, level_rows, trade_rows, touch in events:
            yield from self._publish_depth(time_ns)
            self._last_id += next(self._id_steps)
            self._last_event_ns = time_ns
            for price, size, side in trades[trade_row:trade_rows]:
                yield from self._publish_trade(price, size, side)
            if touch != self._touch:
                self._touch = touch
                yield from self._publish_touch(touch)
            self._depth.add(self._last_id, levels[level_row:level_rows])
            level_row, trade_row = level_rows, trade_rows

    def _publish_trade(self, price: int, size: int, taker_side: int) -> Iterator[Frame]:
        self._last_trade_id += 1
        return self._connection.send(
            self._last_event_ns,
            lambda sent_ms: self._wire.trade(
                sent_ms=sent_ms,
                event_ms=self._last_event_ns // _NS_PER_MS,
                trade_id=self._last_trade_id,
                price=price,
                size=size,
                buyer_is_maker=taker_side == ASK,
            ),
        )
