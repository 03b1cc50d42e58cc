"""The sockets of the embedded exchange: WebSocket and REST of one venue on one port of this machine.

WebSocket handshake, pings and closing are the `websockets` library's; it hands plain HTTP requests to us, and each is
answered and its connection closed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from time import time_ns
from typing import Any, TypeVar

import numpy as np
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from synth_pipeline import rng as randomness
from synth_pipeline.errors import InputError
from synth_pipeline.exchange.bars import Bars
from synth_pipeline.exchange.faults import (
    ClockStep,
    Fault,
    RateLimit,
    SessionCut,
    SlowSnapshot,
    StaleSnapshot,
    TlsRefusal,
    bind_all,
    parse_fault,
)
from synth_pipeline.exchange.feed import Client, Feed
from synth_pipeline.exchange.limits import FrameLimit, RequestLimit, WeightLimit
from synth_pipeline.exchange.protocol import Answer, Protocol, Refused, Request, protocol_of
from synth_pipeline.exchange.sources import Nothing, Recorded, Simulated, Source
from synth_pipeline.exchange.state import State
from synth_pipeline.market.parameters import Parameters

_Kind = TypeVar("_Kind", bound=Fault)
_WRITE_LIMIT = 1024 * 1024
_CLOSE_S = 1.0
_PATIENCE_S = 5.0
"""How long a request waits for a book that is not known yet."""
_TLS_ALERT = bytes.fromhex("15030100020228")
"""A fatal handshake_failure (RFC 8446, section 6.2)."""
_GOING_AWAY, _POLICY = 1001, 1008
_AGED_IDS = 1_000_000
_NS_PER_MS = 1_000_000


class Connection(ServerConnection):
    """One connection to the exchange, which may be refused before it speaks and may die without a word."""

    exchange: Exchange
    client: Client | None = None
    frames: FrameLimit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or refuse as a TLS server would."""
        super().connection_made(transport)
        self.frames = FrameLimit(self.exchange.protocol.incoming_per_second)
        if self.exchange.refuses_connection():
            self.transport.write(_TLS_ALERT)
            self.transport.close()

    @property
    def _is_frozen(self) -> bool:
        return self.client is not None and self.client.frozen

    def data_received(self, data: bytes) -> None:
        """Hear nothing once dead."""
        if not self._is_frozen:
            super().data_received(data)

    def send_data(self) -> None:
        """Say nothing once dead."""
        if self._is_frozen:
            self.protocol.data_to_send()
        else:
            super().send_data()

    def process_event(self, event: Any) -> None:
        """Cut who sends too much; pings and pongs count."""
        if isinstance(event, Frame) and not self.frames.admit(time_ns()):
            self.exchange.cut(self, _POLICY, "Too many requests")
            return
        super().process_event(event)


class Exchange:
    """A running exchange."""

    def __init__(self, protocol: Protocol, source: Source, faults: Sequence[Fault], **how: Any) -> None:
        self.protocol = protocol
        self.injected: list[dict[str, Any]] = []
        """Every injected fault, in order."""
        self._faults = faults
        self._state = State(protocol, source.symbols, how.pop("bars"))
        for item in source.opening:
            self._state.now(item)
        self.feed = Feed(source, protocol, self._state, faults, **how)
        weight = protocol.venue.weight_per_minute
        self._limit = WeightLimit(weight) if weight else RequestLimit()
        self._closing: set[asyncio.Task[None]] = set()
        self.host, self.port = "", 0
        self.running: asyncio.Task[None] | None = None
        """Sends the market; ends with an error where the source is damaged, which leaving `serve` raises too."""

    @property
    def websocket_url(self) -> str:
        """Scheme, host and port of the streams."""
        return f"ws://{self.host}:{self.port}"

    @property
    def rest_url(self) -> str:
        """Scheme, host and port of the REST side."""
        return f"http://{self.host}:{self.port}"

    @property
    def urls(self) -> dict[str, dict[str, str]]:
        """The addresses in the form of the setting `venue_urls`."""
        return {self.protocol.name: {"websocket": self.websocket_url, "rest": self.rest_url}}

    @property
    def finished(self) -> asyncio.Event:
        """Set once the whole source was sent."""
        return self.feed.finished

    @property
    def sent(self) -> dict[str, int]:
        """Messages sent, by stream, counted once a client."""
        return {stream.decode(): count for stream, count in self.feed.sent.items()}

    def refuses_connection(self) -> bool:
        """Whether a fault refuses the connection that has just been made."""
        return any(fault.refuses() for fault in self._of(TlsRefusal))

    def cut(self, connection: ServerConnection, code: int, reason: str) -> None:
        """Close a connection, beside what else happens."""
        task = asyncio.ensure_future(connection.close(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _of(self, kind: type[_Kind]) -> list[_Kind]:
        return [fault for fault in self._faults if isinstance(fault, kind)]

    @property
    def _now_ms(self) -> int:
        return self.feed.now_ns // _NS_PER_MS + sum(fault.offset_ms for fault in self._of(ClockStep))

    # WebSocket

    async def meet(self, connection: Connection) -> None:
        """Serve one WebSocket client until it goes or its time is over."""
        client = connection.client
        assert client is not None, "the handshake makes the client"
        hours = self.protocol.venue.session_hours
        lives_s = [fault.seconds for fault in self._of(SessionCut) if fault.seconds]
        lives_s += [hours * 3600] if hours else []
        self.feed.join(client)
        try:
            async with asyncio.timeout(min(lives_s, default=None)):
                await self._listen(client)
        except ConnectionClosed:
            return
        except TimeoutError:
            for fault in self._of(SessionCut):
                fault.note(seconds=fault.seconds)
            await connection.close(_GOING_AWAY, "session limit")
        finally:
            self.feed.leave(client)

    async def _listen(self, client: Client) -> None:
        while True:
            try:
                async with asyncio.timeout(self.protocol.idle_s):
                    payload = await client.connection.recv()
            except TimeoutError:
                await client.connection.close(_GOING_AWAY, "idle")
                return
            reply = self.protocol.hear(client.session, payload, self._state)
            for answer in reply.answers:
                client.push(answer)
            client.flush()
            if reply.changed:
                self.feed.changed()
            if reply.subscribed:
                self.feed.subscribe(client, reply.subscribed)

    # REST

    async def receive(self, connection: ServerConnection, http: HttpRequest) -> Response | None:
        """Answer a REST request, or let a WebSocket handshake go on."""
        request = Request.of(http.path)
        if http.headers.get("Upgrade", "").lower() != "websocket":
            return _response(await self._answer(connection, http.path, request))
        try:
            session = self.protocol.open(request, str(uuid.uuid4()))
        except Refused as refused:
            return _response(refused.answer)
        assert isinstance(connection, Connection)
        connection.client = Client(connection, session)
        return None

    async def _answer(self, connection: ServerConnection, target: str, request: Request) -> Answer:
        if request.path == "/_faults":
            return Answer.json(self.injected)
        if request.path == "/_status":
            return Answer.json({"finished": self.finished.is_set(), "sent": self.sent})
        refusal = self._refusal(target, request)
        if refusal is None:
            try:
                symbol = self.protocol.depth_symbol(request, self._state, self._now_ms)
                if symbol is not None:
                    return self._headed(await self._depth(connection, request, symbol))
                return self._headed(self.protocol.answer(request, self._state, self._now_ms))
            except Refused as refused:
                refusal = refused.answer
        return self._headed(refusal)

    def _refusal(self, target: str, request: Request) -> Answer | None:
        now_ns = time_ns()
        for fault in self._of(RateLimit):
            if fault.refuses(target):
                return self._limit.exhaust(now_ns, fault.seconds)
        return self._limit.admit(now_ns, self.protocol.weight(request))

    def _headed(self, answer: Answer) -> Answer:
        return Answer(answer.status, answer.body, {**self._limit.headers, **answer.headers})

    async def _depth(self, connection: ServerConnection, request: Request, symbol: str) -> Answer:
        answer = await self._captured(connection, request, symbol)
        if answer is None:
            answer = self.protocol.answer(request, self._state, self._now_ms)
        book = self._state.book(symbol)
        for fault in self._of(StaleSnapshot):
            if book is not None and fault.ages(symbol):
                answer = self.protocol.aged(answer, max(1, (book.first_id or 0) - _AGED_IDS))
        for late in self._of(SlowSnapshot):
            await asyncio.sleep(late.delay(symbol))
        return answer

    async def _captured(self, connection: ServerConnection, request: Request, symbol: str) -> Answer | None:
        """Wait for the recorded answer where the book is not known yet."""
        asker = self.feed.ask(symbol)
        if asker is None:
            return None
        connection.connection_lost_waiter.add_done_callback(lambda _: asker.served.set())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                payload = await asker.answer
        except TimeoutError:
            self.feed.withdraw(symbol, asker)
            return None
        return self.protocol.captured(payload, request)


def _response(answer: Answer) -> Response:
    headers = Headers({"Content-Type": "application/json;charset=UTF-8", "Content-Length": str(len(answer.body))})
    headers["Connection"] = "close"
    for name, value in answer.headers.items():
        headers[name] = value
    return Response(answer.status, HTTPStatus(answer.status).phrase, headers, answer.body)


@asynccontextmanager
async def serve(
    source: Source | str | Path | Sequence[Path] | None,
    venue: str,
    *,
    faults: Sequence[Fault | str] = (),
    speed: float | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    bars: Mapping[str, Bars] | None = None,
    symbols: Sequence[str] = (),
    seconds: float | None = None,
    start_ns: int | None = None,
    parameters: Parameters | None = None,
    retime: bool = False,
    clients: int = 1,
    patience_s: float = 10.0,
    rng: np.random.Generator | None = None,
) -> AsyncIterator[Exchange]:
    """Serve a venue: `"simulated"`, recorded files, or None for klines from `bars` alone.

    `speed` counts recorded seconds a second, None is as fast as possible; the market starts once `clients` of them
    have subscribed. `symbols`, `seconds`, `start_ns` (default: now) and `parameters` are of the simulated market.
    Raises `InputError` for a venue, file or fault that does not fit, or a port that is taken.
    """
    rng = rng or randomness.stream(0, "exchange")
    protocol = protocol_of(venue)
    if source == "simulated":
        # A market of no date that runs by a clock is of now, whenever its first client comes.
        retime = retime or (start_ns is None and speed is not None)
        how = {"start_ns": start_ns or time_ns(), "seconds": seconds, "parameters": parameters}
        source = Simulated(symbols, protocol, rng=rng, **how)  # type: ignore[arg-type]
    elif not isinstance(source, Source):
        paths = [Path(source)] if isinstance(source, str | Path) else source
        source = Nothing() if paths is None else Recorded(paths, protocol)
    failing = [parse_fault(fault) if isinstance(fault, str) else fault for fault in faults]
    pace = {"speed": speed, "retime": retime, "clients": clients, "patience_s": patience_s}
    exchange = Exchange(protocol, source, failing, bars=bars, **pace)
    bind_all(failing, protocol, rng, exchange.injected)
    async with _listening(exchange, host, port):
        exchange.running = running = asyncio.create_task(exchange.feed.run())
        try:
            yield exchange
        finally:
            running.cancel()
            exchange.feed.hang_up()
            with suppress(asyncio.CancelledError):
                await running


@asynccontextmanager
async def _listening(exchange: Exchange, host: str, port: int) -> AsyncIterator[Server]:
    made = type("Made", (Connection,), {"exchange": exchange})
    protocol = exchange.protocol
    try:
        server = await serve_websockets(
            exchange.meet,  # type: ignore[arg-type]
            host,
            port,
            process_request=exchange.receive,
            compression=None,
            server_header=None,
            ping_interval=protocol.ping_s,
            ping_timeout=protocol.pong_s,
            close_timeout=_CLOSE_S,
            write_limit=_WRITE_LIMIT,
            create_connection=made,
        )
    except OSError as error:
        raise InputError(f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port") from error
    async with server:
        exchange.host, exchange.port = host, next(iter(server.sockets)).getsockname()[1]
        yield server
