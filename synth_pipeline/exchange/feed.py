"""From the source to the clients: pace, views, faults, subscriptions, back-pressure.

Messages go out in batches: frames are built by hand (a server's are not masked, so a frame is a short head and the
payload) and written to the transport in one piece. At the speed of a clock a client that cannot follow is cut, as a
venue does; as fast as possible, the market waits for its slowest client, and for one that was cut off and is coming
back, so that only injected faults lose anything.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic, time_ns

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State as Phase

from synth_pipeline.exchange.faults import Action, Cut, Fault, Freeze, Pause, shifted
from synth_pipeline.exchange.protocol import Item, Protocol, Session, View
from synth_pipeline.exchange.sources import Source
from synth_pipeline.exchange.state import State
from synth_pipeline.venues import BookUpdate

_BATCH = 256
_SETTLED_S = 0.25
"""The market starts when nobody has subscribed for this long: a client may need several frames or connections."""
_HELD_S = 2.0
"""How long a recorded depth answer waits for somebody to ask for it."""
_MOST_BUFFERED = 64 * 1024 * 1024
"""Bytes that a client may lag behind a clock."""
_NS_PER_SECOND, _NS_PER_MS = 1_000_000_000, 1_000_000
_GOING_AWAY = 1001


def head(length: int) -> bytes:
    """Return what stands before the payload of an unmasked text frame (RFC 6455, section 5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


_HEADS = [head(length) for length in range(4096)]


class Client:
    """One WebSocket client and what is on its way to it."""

    def __init__(self, connection: ServerConnection, session: Session) -> None:
        self.connection, self.session = connection, session
        self.frames: list[bytes] = []
        self.frozen = False

    @property
    def alive(self) -> bool:
        """Whether it can still be reached."""
        return not self.frozen and self.connection.state is Phase.OPEN

    def push(self, payload: bytes) -> None:
        """Put one message behind what is on its way."""
        length = len(payload)
        self.frames.append(_HEADS[length] if length < len(_HEADS) else head(length))
        self.frames.append(payload)

    def flush(self) -> None:
        """Hand everything to the transport."""
        if self.frames:
            if self.alive:
                self.connection.transport.write(b"".join(self.frames))
            self.frames.clear()


@dataclass
class Asker:
    """Somebody who asked for a book that is not known yet."""

    answer: asyncio.Future[bytes]
    served: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """Sends a market to its subscribers."""

    def __init__(
        self,
        source: Source,
        protocol: Protocol,
        state: State,
        faults: Sequence[Fault],
        *,
        speed: float | None,
        retime: bool,
        clients: int,
        patience_s: float,
    ) -> None:
        self._source, self._protocol, self._state, self._faults = source, protocol, state, faults
        self._speed, self._retime = speed, retime
        self._least_clients, self._patience_s = clients, patience_s
        self._feeds = {protocol.feed_of(stream) for stream in source.streams}
        self._clients: set[Client] = set()
        self._dead: list[Client] = []
        self._routes: dict[bytes, tuple[tuple[Client, bytes | None], ...]] = {}
        self._views: dict[str, dict[bytes, View]] = {}
        self._lost: set[bytes] = set()
        """Feeds whose last client vanished without unsubscribing."""
        self._askers: dict[str, list[Asker]] = {}
        self._asked = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._latest_subscription = 0.0
        self._started_at = 0.0
        self._first_ns = 0
        self.at_ns = source.start_ns
        """Time of the latest message in the source."""
        self._moved_ms = 0
        """By how much stamps are moved."""
        self.sent: Counter[bytes] = Counter()
        """Messages sent, by stream, counted once a client."""
        self.started = asyncio.Event()
        self.finished = asyncio.Event()

    @property
    def now_ns(self) -> int:
        """The market's time."""
        if self._retime and not self.started.is_set():
            return time_ns()
        now_ns = self.at_ns
        if self._speed is not None and self.started.is_set():
            elapsed_s = (monotonic() - self._started_at) * self._speed
            now_ns = max(now_ns, self._first_ns + int(elapsed_s * _NS_PER_SECOND))
        return now_ns + self._moved_ms * _NS_PER_MS

    # Clients come, ask and go.

    def join(self, client: Client) -> None:
        """Take a client in, with the streams that its address names."""
        self._clients.add(client)
        if client.session.streams:
            self.subscribe(client, list(client.session.streams))

    def leave(self, client: Client) -> None:
        """Let a client go; what it alone listened to is missed."""
        self._clients.discard(client)
        self._routes.clear()
        followed = {self._protocol.feed_of(name.encode()) for name in client.session.streams}
        self._lost |= followed - self._followed()

    def subscribe(self, client: Client, names: Iterable[str]) -> None:
        """Send a client these streams from now on, beginning with what a newcomer gets."""
        self.changed()
        for name in names:
            stream = name.encode()
            feed = self._protocol.feed_of(stream)
            self._lost.discard(feed)
            greeting = self._view(stream) if feed not in self._feeds else self._protocol.greeting(stream, self._state)
            if greeting is not None:
                client.push(greeting)
                self.sent[stream] += 1
        client.flush()
        self._latest_subscription = monotonic()
        self._subscribed.set()

    def changed(self) -> None:
        """Forget who gets what; it is looked up again."""
        self._routes.clear()

    def freeze(self) -> None:
        """Let every open connection die without a word."""
        for client in list(self._clients):
            client.frozen = True
            self._dead.append(client)
            self.leave(client)

    def hang_up(self) -> None:
        """Let go of the connections that died, which no handshake could close."""
        for client in self._dead:
            client.connection.transport.abort()

    def _view(self, stream: bytes) -> bytes | None:
        views = self._views.setdefault(self._protocol.symbol_of(stream), {})
        if stream not in views:
            view = self._protocol.view(stream, self._state)
            if view is None:
                return None
            views[stream] = view
        return views[stream].greeting(self.at_ns, self._state)

    def _followed(self) -> set[bytes]:
        names = (name for client in self._clients if client.alive for name in client.session.streams)
        return {self._protocol.feed_of(name.encode()) for name in names}

    # Books that are asked for before they are known.

    def ask(self, symbol: str) -> Asker | None:
        """Wait for a symbol's next recorded depth answer, where its book is not known; None where it is."""
        if self.finished.is_set() or not self._source.recorded or not self._state.waits_for(symbol):
            return None
        asker = Asker(asyncio.get_running_loop().create_future())
        self._askers.setdefault(symbol, []).append(asker)
        self._asked.set()
        return asker

    def withdraw(self, symbol: str, asker: Asker) -> None:
        """Wait no longer."""
        self._askers[symbol].remove(asker)

    async def _depth_answer(self, item: Item) -> None:
        """Give a recorded depth answer to whom it was recorded for: the client that needs it now."""
        await self._flush()
        update = next((each for each in self._state.read(item) if isinstance(each, BookUpdate)), None)
        symbol = self._state.owner(update) if update else None
        if symbol is None:
            return
        if self._speed is None and self._is_awaited(symbol):
            await self._somebody_asks(symbol)
        self._state.now(item)
        askers = self._askers.pop(symbol, [])
        for asker in askers:
            asker.answer.set_result(item.payload)
        if self._speed is None and askers:
            served = (asker.served.wait() for asker in askers)
            await asyncio.wait([asyncio.ensure_future(each) for each in served], timeout=_HELD_S)

    def _is_awaited(self, symbol: str) -> bool:
        """Whether somebody follows a symbol's depth and cannot know its book yet."""
        if not self._source.recorded or not self._state.waits_for(symbol):
            return False
        streams = (name.encode() for client in self._clients for name in client.session.streams)
        kind_of, symbol_of = self._protocol.kind_of, self._protocol.symbol_of
        return any(kind_of(stream) == "book_levels" and symbol_of(stream) == symbol for stream in streams)

    async def _somebody_asks(self, symbol: str) -> None:
        try:
            async with asyncio.timeout(_HELD_S):
                while not self._askers.get(symbol):
                    self._asked.clear()
                    await self._asked.wait()
        except TimeoutError:
            return

    # The market runs.

    async def run(self) -> None:
        """Send everything, from the first subscription on."""
        try:
            await self._begin()
            unsent = 0
            for item in self._source.items():
                await self._reach(item)
                if not item.stream:
                    await self._depth_answer(item)
                    continue
                if self._moved_ms:
                    item = shifted(item, self._moved_ms)
                if self._faults:
                    await self._publish_spoiled(self._published(item))
                else:
                    for each in self._published(item):
                        self._send(each)
                unsent += 1
                if unsent == _BATCH:
                    await self._flush()
                    unsent = 0
            for fault in self._faults:
                for each in fault.left():
                    self._send(each)
            await self._flush()
        finally:
            self.finished.set()

    async def _begin(self) -> None:
        await self._subscribed.wait()
        while True:
            quiet_s = monotonic() - self._latest_subscription
            subscribed = sum(bool(client.session.streams) for client in self._clients)
            if quiet_s >= _SETTLED_S and subscribed >= self._least_clients:
                break
            await asyncio.sleep(max(0.01, _SETTLED_S - quiet_s))
        self._started_at = monotonic()
        self.started.set()

    async def _reach(self, item: Item) -> None:
        """Wait until a message is due."""
        if not self._first_ns:
            self._first_ns = item.at_ns
            self._moved_ms = (time_ns() - item.at_ns) // _NS_PER_MS if self._retime else 0
        self.at_ns = max(self.at_ns, item.at_ns)
        if self._speed is None:
            return
        due = self._started_at + (self.at_ns - self._first_ns) / _NS_PER_SECOND / self._speed
        if due > monotonic():
            await self._flush()
            await asyncio.sleep(due - monotonic())

    def _published(self, item: Item) -> Sequence[Item]:
        """Let the venue take in a message, and return it with what the venue makes of it."""
        if not self._views:
            self._state.later(item)
            return (item,)
        views = self._views.get(self._protocol.symbol_of(item.stream), {})
        views.pop(item.stream, None)
        kind = self._protocol.kind_of(item.stream)
        following = [view for view in views.values() if kind in view.kinds]
        if not following:
            self._state.later(item)
            return (item,)
        messages = self._state.now(item)
        made = (
            Item(item.at_ns, view.stream, payload)
            for view in following
            for payload in view.follow(item.at_ns, messages, self._state)
        )
        return (item, *made)

    async def _publish_spoiled(self, items: Sequence[Item]) -> None:
        results: list[Item | Action] = [item for item in items if self._targets(item.stream)]
        for fault in self._faults:
            results = [
                each
                for result in results
                for each in (fault.publish(result) if isinstance(result, Item) else (result,))
            ]
        for result in results:
            if isinstance(result, Item):
                self._send(result)
            else:
                await self._flush()
                await self._act(result)

    async def _act(self, action: Action) -> None:
        match action:
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Freeze():
                self.freeze()
            case Cut():
                cut = [client.connection.close(_GOING_AWAY, "session limit") for client in self._clients]
                await asyncio.gather(*cut)
        await self._audience()

    def _send(self, item: Item) -> None:
        _, stream, payload, verbatim = item
        route = self._targets(stream)
        if not route:
            return
        bare = None
        for client, prefix in route:
            if verbatim or (prefix is not None and payload.startswith(prefix)):
                client.push(payload)
                continue
            if bare is None:
                bare = self._protocol.body(item)
            client.push(bare if prefix is None else prefix + bare + b"}")
        self.sent[stream] += len(route)

    def _targets(self, stream: bytes) -> tuple[tuple[Client, bytes | None], ...]:
        """Return who gets a stream, and what stands before the event for each."""
        route = self._routes.get(stream)
        if route is None:
            route = self._routes[stream] = tuple(self._route(stream))
        return route

    def _route(self, stream: bytes) -> Iterable[tuple[Client, bytes | None]]:
        feed = self._protocol.feed_of(stream)
        for client in self._clients:
            for name in client.session.streams if client.alive else ():
                other = name.encode()
                if other == stream or (other not in self._source.streams and self._protocol.feed_of(other) == feed):
                    yield client, self._protocol.prefix(name, client.session)

    async def _flush(self) -> None:
        for client in list(self._clients):
            client.flush()
        await asyncio.sleep(0)
        for client in list(self._clients):
            await self._let_follow(client)
        if self._speed is None:
            await self._audience()

    async def _let_follow(self, client: Client) -> None:
        connection = client.connection
        if not client.alive or not connection.paused:
            return
        if self._speed is not None:
            if connection.transport.get_write_buffer_size() > _MOST_BUFFERED:
                connection.transport.abort()
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await connection.drain()
        except (TimeoutError, ConnectionError):
            connection.transport.abort()

    async def _audience(self) -> None:
        """As fast as possible means as fast as there is somebody to listen to it."""
        if self._speed is not None:
            return
        while not self._followed():
            await self._next_subscription()
        if self._lost and not await self._next_returns():
            self._lost.clear()

    async def _next_returns(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                while self._lost:
                    await self._next_subscription()
        except TimeoutError:
            return False
        return True

    async def _next_subscription(self) -> None:
        self._subscribed.clear()
        await self._subscribed.wait()
