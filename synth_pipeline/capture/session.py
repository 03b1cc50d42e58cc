"""Some symbols on one WebSocket path: the connection, its successors, and what becomes of each message.

Per message little is done: stamp, read the head, compare ids, append. Everything rare (a gap, a snapshot, a lost or
silent connection, the venue's cut after a day) is a task beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from synth_pipeline.capture.backoff import Backoff
from synth_pipeline.capture.clock import Clock
from synth_pipeline.capture.connection import LOST, Connection, retry_after
from synth_pipeline.capture.figures import Figures
from synth_pipeline.capture.overlap import Arrival, Overlap
from synth_pipeline.capture.rest import RequestFailed, Rest
from synth_pipeline.capture.sequence import Book, Counted, Rising
from synth_pipeline.capture.tape import Tape
from synth_pipeline.errors import BadMessage
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.venues import Head, Venue, Verdict

_HEALTHY_NS = 10 * NS_PER_SECOND
"""A connection that ended sooner counts as another failure, so that the waits grow."""
_CATCH_UP_SECONDS = 10.0
"""How far a new connection may lag behind the one that it replaced."""
_ANSWER_SECONDS = 1.0
"""A snapshot that is asked for before the updates flow may miss some of them."""


@dataclass(frozen=True)
class Limits:
    """Patience and bounds of a recording."""

    buffer_bytes: int = 64 * 2**20
    """What may wait for the disk before messages are dropped."""
    message_bytes: int = 16 * 2**20
    """A larger message ends the connection."""
    seal_seconds: float = 0.25
    """Age at which a buffer goes to the disk."""
    sync_seconds: float = 1.0
    ping_seconds: float = 20.0
    """A socket that leaves a ping unanswered for this long is dead."""
    stall_seconds: float = 30.0
    """Silence that makes a lively stream suspect; trades are given four times as long."""
    session_seconds: float | None = None
    """When a successor takes over; None: ten minutes before the venue's own cut."""
    overlap_seconds: float = 120.0
    """How long two connections may run side by side; as a rule it is a fraction of a second."""
    backoff_seconds: float = 0.5
    backoff_cap_seconds: float = 60.0
    snapshot_seconds: float = 5.0
    """How long a snapshot that comes on the stream may take."""
    clock_seconds: float = 30.0
    """How often the venue is asked for its time."""


@dataclass(frozen=True)
class Surroundings:
    """What all sessions of a recording share."""

    venue: Venue
    rest: Rest
    figures: Figures
    clock: Clock
    limits: Limits
    rng: np.random.Generator


class Session:
    """One group of streams that one connection carries."""

    def __init__(
        self, around: Surroundings, url: str, tapes: Mapping[str | None, Tape], streams: Sequence[str]
    ) -> None:
        self._venue, self._rest, self._figures = around.venue, around.rest, around.figures
        self._clock, self._limits, self._rng = around.clock, around.limits, around.rng
        self._url, self._tapes, self._streams = url, tapes, streams
        kinds = {stream: self._venue.stream_kind(stream) for stream in streams}
        self._depth = [stream for stream, kind in kinds.items() if kind == "book_levels"]
        self._shows_top = bool({"quotes", "book_levels"} & set(kinds.values()))
        self._symbols = [tape.symbol for tape in tapes.values()]
        self._head = self._venue.head
        self._overlap: Overlap | None = None
        self._open: set[Connection] = set()
        self._current: Connection | None = None
        self._is_closing = False
        for tape in tapes.values():
            if self._depth and self._venue.snapshot_path is not None:
                tape.log.on_new_file = partial(self._mend, tape)

    async def run(self) -> None:
        """Keep a connection open until cancelled."""
        backoff = Backoff(self._rng, self._limits.backoff_seconds, self._limits.backoff_cap_seconds)
        connection = await self._connect(backoff)
        while True:
            reason = await self._until_over(connection)
            if reason is None:
                connection = await self._hand_over(connection)
                continue
            self._lose(connection, reason)
            if time.monotonic_ns() - connection.opened_ns > _HEALTHY_NS:
                backoff.reset()
            await asyncio.sleep(backoff.next_seconds())
            connection = await self._connect(backoff)

    async def close(self) -> None:
        """Close what is open and give up what is being mended."""
        self._is_closing = True
        tasks = [tape.mending for tape in self._tapes.values() if self._depth and tape.mending is not None]
        for task in tasks:
            task.cancel()
        closing = [connection.close() for connection in self._open]
        await asyncio.gather(*tasks, *closing, return_exceptions=True)

    async def _connect(self, backoff: Backoff) -> Connection:
        """Open and subscribe, again and again."""
        while True:
            try:
                connection = await Connection.open(
                    self._url,
                    self.take,
                    max_bytes=self._limits.message_bytes,
                    ping_seconds=self._limits.ping_seconds,
                )
                await self._subscribe(connection)
            except LOST as error:
                reason = f"{self._url}: {type(error).__name__}: {error}"
                self._figures.connect_failures += 1
                self._figures.fault = reason
                for tape in self._tapes.values():
                    tape.note("connect_failed", reason=reason)
                await asyncio.sleep(max(backoff.next_seconds(), retry_after(error)))
            else:
                return connection

    async def _subscribe(self, connection: Connection) -> None:
        self._open.add(connection)
        self._figures.connects += 1
        self._note("connected", connection)
        if self._venue.heartbeat is not None:
            connection.keep_alive(self._venue.heartbeat, self._venue.heartbeat_seconds)
        try:
            await connection.send(self._venue.subscribe(self._symbols, self._streams), self._venue.frame_seconds)
        except LOST as error:
            await connection.close(at_once=True)
            self._lose(connection, f"{type(error).__name__}: {error}")
            raise
        self._current = connection
        for tape in self._tapes.values():
            for kind in map(self._venue.stream_kind, self._streams):
                (tape.streams.get(kind) or tape.open_stream(kind)).forget_pace()
            if self._venue.snapshot_path is not None and tape.book is not None and not tape.book.is_known:
                self._mend(tape)

    def _note(self, name: str, connection: Connection, **facts: object) -> None:
        """Note the state of a connection; one that shows no top of book says nothing about what is known of it."""
        name = name if self._shows_top else f"side_{name}"
        for tape in self._tapes.values():
            tape.note(name, connection=connection.number, **facts)

    def _lose(self, connection: Connection, reason: str) -> None:
        self._open.discard(connection)
        self._figures.disconnects += 1
        self._figures.fault = reason
        self._note("disconnected", connection, reason=reason)

    async def _until_over(self, connection: Connection) -> str | None:
        """Wait for the end of a connection and return its reason, or None when its successor is due."""
        hours = self._venue.session_hours
        lasts = self._limits.session_seconds or (hours * 3600 - 600 if hours else float("inf"))
        look = min(1.0, self._limits.stall_seconds / 4, lasts / 4)
        while True:
            await asyncio.wait({connection.reader}, timeout=look)
            if connection.reader.done():
                return connection.reader.result()
            silent = self._stalled(connection)
            if silent is not None:
                self._figures.stalls += 1
                await connection.close(at_once=True)
                return silent
            if time.monotonic_ns() - connection.opened_ns > lasts * NS_PER_SECOND:
                return None

    def _stalled(self, connection: Connection) -> str | None:
        """Return what fell silent, or None."""
        now, patience = time.monotonic_ns(), int(self._limits.stall_seconds * NS_PER_SECOND)
        if connection.pace.is_stalled(now, patience):
            return "stalled: the connection is silent"
        if not connection.pace.messages and now - connection.opened_ns > 2 * patience:
            return "stalled: nothing came"
        for tape in self._tapes.values():
            for kind in map(self._venue.stream_kind, self._streams):
                stream = tape.streams[kind]
                if stream.is_stalled(now, 4 * patience if kind == "trades" else patience):
                    return f"stalled: {kind} of {tape.symbol} are silent"
        return None

    async def _hand_over(self, old: Connection) -> Connection:
        """Let a new connection take over, both side by side until it has joined every stream that speaks."""
        self._overlap = overlap = Overlap(self._venue, old.number, self._figures)
        backoff = Backoff(self._rng, self._limits.backoff_seconds, self._limits.backoff_cap_seconds)
        connecting = asyncio.create_task(self._connect(backoff))
        try:
            await asyncio.wait({connecting, old.reader}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await self._run_beside(old, connecting.result(), overlap)
            if old.reader.done() and old in self._open:
                self._lose(old, old.reader.result())
                self._end(overlap)
            new = await connecting
        finally:
            connecting.cancel()
        if not overlap.old_is_closed:
            self._end(overlap)
            self._overlap, self._current = None, old
            self._lose(new, new.reader.result())
            await asyncio.sleep(backoff.next_seconds())
            return old
        asyncio.get_running_loop().call_later(_CATCH_UP_SECONDS, self._forget, overlap)
        return new

    async def _run_beside(self, old: Connection, new: Connection, overlap: Overlap) -> None:
        """Wait until the new connection has joined, and close the old one unless either ended by itself."""
        until = time.monotonic() + self._limits.overlap_seconds
        while time.monotonic() < until and not overlap.is_complete:
            if old.reader.done() or new.reader.done():
                return
            await asyncio.sleep(0.02)
            self._keep_released(overlap)
        self._figures.handovers += 1
        self._open.discard(old)
        await old.close()
        self._end(overlap)
        self._note("disconnected", old, reason="handed over")

    def _end(self, overlap: Overlap) -> None:
        """The old connection is closed: what was held because of it is news."""
        overlap.old_is_closed = True
        self._keep_released(overlap)

    def _keep_released(self, overlap: Overlap) -> None:
        for arrival in overlap.release(time.monotonic_ns()):
            self._keep(*arrival)

    def _forget(self, overlap: Overlap) -> None:
        if self._overlap is overlap:
            self._overlap = None

    def take(self, connection: Connection, payload: bytes) -> None:
        """Take one message: this is the hot path."""
        figures = self._figures
        received_ns, monotonic_ns = connection.socket.received_ns, connection.socket.monotonic_ns
        figures.messages += 1
        figures.bytes += len(payload)
        connection.pace.hear(monotonic_ns)
        try:
            head = self._head(payload)
        except BadMessage:
            figures.garbage += 1
            self._record_everywhere(connection, payload)
            return
        tape = self._tapes.get(head.symbol)
        if tape is None:
            self._take_unnamed(connection, head, payload)
            return
        if head.event_ns:
            lag_ns = received_ns - head.event_ns
            figures.lags_ns.append(lag_ns)
            self._clock.heard(monotonic_ns, lag_ns)
        stream = tape.streams.get(head.stream) or tape.open_stream(head.stream)
        stream.hear(monotonic_ns)
        overlap = self._overlap
        if overlap is not None and not overlap.is_news(
            Arrival(tape, stream, head, connection.number, received_ns, monotonic_ns, payload)
        ):
            return
        self._keep(tape, stream, head, connection.number, received_ns, monotonic_ns, payload)

    def _keep(
        self,
        tape: Tape,
        stream: Book | Counted | Rising,
        head: Head,
        connection: int,
        received_ns: int,
        monotonic_ns: int,
        payload: bytes,
    ) -> None:
        """Check one message's place in its stream, and record it."""
        last_id = stream.last_id
        verdict = stream.check(head)
        if verdict is not Verdict.IN_ORDER or head.snapshot:
            self._see_to(tape, stream, head, verdict, last_id)
        tape.log.append(received_ns, monotonic_ns, connection, 0, payload)

    def _take_unnamed(self, connection: Connection, head: Head, payload: bytes) -> None:
        """Take what is of none of our symbols: an answer, a refusal, JSON of a form that no stream has."""
        figures = self._figures
        if head.stream == "refusal":
            figures.refusals += 1
            figures.fault = f"the venue refused: {payload[:200].decode(errors='replace')}"
        is_garbage = head.stream == "unexpected_form"
        figures.garbage += is_garbage
        figures.answers += not is_garbage
        self._record_everywhere(connection, payload)

    def _record_everywhere(self, connection: Connection, payload: bytes) -> None:
        """Keep what names no symbol of ours in every log: it may concern any of them."""
        socket = connection.socket
        for tape in self._tapes.values():
            tape.log.append(socket.received_ns, socket.monotonic_ns, connection.number, 0, payload)

    def _see_to(self, tape: Tape, stream: Book | Counted | Rising, head: Head, verdict: Verdict, last_id: int) -> None:
        """Count and mend what is not simply the next message."""
        if head.snapshot:
            self._figures.snapshots += 1
        elif verdict is Verdict.DUPLICATE:
            self._figures.repeated += 1
        elif verdict is Verdict.GAP:
            self._figures.gaps += 1
            tape.note("gap", stream=stream.kind, last_id=last_id, first_id=head.first_id)
        if verdict in (Verdict.GAP, Verdict.NEEDS_SNAPSHOT) and isinstance(stream, Book):
            self._mend(tape)

    def _mend(self, tape: Tape) -> None:
        """See to it that a snapshot comes, of this symbol alone."""
        if not self._is_closing and (tape.mending is None or tape.mending.done()):
            bring = self._resubscribe if self._venue.snapshot_path is None else self._ask_for_snapshot
            tape.mending = asyncio.create_task(bring(tape))

    async def _ask_for_snapshot(self, tape: Tape) -> None:
        """Ask until a snapshot reaches the updates that wait; not before the subscription is answered."""
        until = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < until and self._current is not None and not self._current.pace.messages:
            await asyncio.sleep(0.005)
        backoff = Backoff(self._rng, self._limits.backoff_seconds, self._limits.backoff_cap_seconds)
        while True:
            try:
                payload = await self._rest.snapshot(tape.symbol)
                bridged = self._take_snapshot(tape, payload)
            except (RequestFailed, BadMessage) as error:
                reason = str(error)
            else:
                if bridged:
                    return
                reason = "older than the updates that wait for it"
            self._snapshot_failed(tape, reason)
            await asyncio.sleep(backoff.next_seconds())

    def _snapshot_failed(self, tape: Tape, reason: str) -> None:
        self._figures.snapshot_failures += 1
        self._figures.fault = f"snapshot of {tape.symbol}: {reason}"
        tape.note("snapshot_failed", reason=reason)

    def _take_snapshot(self, tape: Tape, payload: bytes) -> bool:
        tape.log.append(time.time_ns(), time.monotonic_ns(), 0, 0, payload)
        head = self._head(payload)
        if not head.snapshot:
            raise BadMessage("unexpected_form", "the answer is no snapshot")
        self._figures.snapshots += 1
        book = tape.streams.get("book_levels")
        return not isinstance(book, Book) or book.take_snapshot(head.last_id)

    async def _resubscribe(self, tape: Tape) -> None:
        """End the symbol's depth stream and ask for it anew: it begins with a snapshot."""
        for _ in range(3):
            connection = self._current
            if connection is None or tape.book is None or tape.book.is_known:
                return
            frames = [
                *self._venue.unsubscribe([tape.symbol], self._depth),
                *self._venue.subscribe([tape.symbol], self._depth),
            ]
            try:
                await connection.send(frames, self._venue.frame_seconds)
            except LOST:
                return
            until = time.monotonic() + self._limits.snapshot_seconds
            while time.monotonic() < until and not tape.book.is_known:
                await asyncio.sleep(0.02)
        if connection is not None and tape.book is not None and not tape.book.is_known:
            self._snapshot_failed(tape, "no snapshot came on the stream")
            await connection.close(at_once=True)
