"""A venue on loopback whose every step a test decides: real sockets, no rules of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import Kind, Record
from synth_pipeline.capture.figures import Figures
from synth_pipeline.capture.recorder import Plan, Recorder
from synth_pipeline.capture.session import Limits
from synth_pipeline.rng import stream

Rest = Callable[[str], tuple[int, bytes, dict[str, str]]]
QUICK = {"backoff_seconds": 0.02, "backoff_cap_seconds": 0.1, "seal_seconds": 0.02, "sync_seconds": 0.1}


def an_empty_book(path: str) -> tuple[int, bytes, dict[str, str]]:
    """Know the time, and a book of nothing."""
    if path.endswith("time"):
        return 200, b'{"serverTime":1700006400000,"time":1700006400000}', {}
    return 200, b'{"lastUpdateId":1,"bids":[],"asks":[]}', {}


class Scripted:
    """The exchange's side: connections in the order they came, frames heard, paths asked for."""

    def __init__(self, rest: Rest = an_empty_book) -> None:
        self.rest = rest
        self.clients: list[ServerConnection] = []
        self.heard: list[Any] = []
        self.asked: list[tuple[float, str]] = []
        self.refuse_with: list[int] = []
        self._server: Server | None = None
        self.url = ""

    async def __aenter__(self) -> Scripted:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._answer, ping_interval=None, close_timeout=0.2
        )
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            if self.refuse_with:
                return Response(self.refuse_with.pop(), "Refused", Headers({"Content-Length": "0"}), b"")
            return None
        self.asked.append((asyncio.get_running_loop().time(), request.path))
        status, body, headers = self.rest(request.path)
        found = Headers({"Content-Length": str(len(body)), "Connection": "close"} | headers)
        return Response(status, HTTPStatus(status).phrase, found, body)

    async def _serve(self, client: ServerConnection) -> None:
        self.clients.append(client)
        with contextlib.suppress(ConnectionClosed):
            async for message in client:
                self.heard.append(json.loads(message))

    async def send(self, *payloads: bytes, client: int = -1) -> None:
        """Send text frames to one client, the latest by default, unless it is gone."""
        with contextlib.suppress(ConnectionClosed):
            for payload in payloads:
                await self.clients[client].send(payload, text=True)

    def snapshots_asked(self) -> list[float]:
        """Return when depth was asked for."""
        return [at for at, path in self.asked if "depth" in path]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


Script = Callable[[Scripted, Recorder], Coroutine[Any, Any, None]]


def record(
    folder: Path,
    script: Script,
    *,
    venue: str = "simulated",
    symbols: tuple[str, ...] = ("BTCUSDT",),
    streams: tuple[str, ...] = (),
    rest: Rest = an_empty_book,
    **limits: Any,
) -> Figures:
    """Record what a script sends, from its first connection until it returns."""

    async def run() -> Figures:
        async with Scripted(rest) as exchange:
            urls = {"websocket": f"ws://{exchange.url}", "rest": f"http://{exchange.url}"}
            plan = Plan.of(venue, symbols, folder, streams=streams, urls=urls)  # type: ignore[arg-type]
            recorder = Recorder(plan, rng=stream(0, "scripted"), limits=Limits(**(QUICK | limits)))
            running = asyncio.create_task(recorder.run())
            try:
                await until(lambda: exchange.heard)
                await script(exchange, recorder)
            finally:
                recorder.stop("the script is over")
                figures = await running
            return figures

    return asyncio.run(run())


def records_of(folder: Path, symbol: str = "BTCUSDT") -> list[Record]:
    """Return everything recorded of a symbol, in order."""
    paths = sorted(folder.glob(f"*/{symbol}/*.rawlog"))
    return [record for path in paths for record in rawlog.read(path)]


def notes_of(folder: Path, symbol: str = "BTCUSDT") -> list[dict[str, Any]]:
    """Return the recorder's notes."""
    return [json.loads(each.payload) for each in records_of(folder, symbol) if each.kind == Kind.EVENT]


def payloads_of(folder: Path, symbol: str = "BTCUSDT") -> list[bytes]:
    """Return the messages that came on a stream."""
    return [each.payload for each in records_of(folder, symbol) if each.kind == Kind.MESSAGE and each.connection]
