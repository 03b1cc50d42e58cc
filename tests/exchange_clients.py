"""Clients of the embedded exchange, as simple as they come: they listen, ask, and rebuild books as documented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from synth_pipeline.exchange.server import Exchange


@asynccontextmanager
async def connected(exchange: Exchange, path: str, queue: int | None = None) -> AsyncIterator[ClientConnection]:
    """Connect to one path, and take as much as comes, or `queue` frames ahead."""
    url = exchange.websocket_url + path
    async with connect(url, compression=None, max_size=None, max_queue=queue, ping_interval=None) as socket:
        yield socket


async def listen(exchange: Exchange, path: str, frames: Iterable[str] = ()) -> list[bytes]:
    """Connect, send the frames, and return all that comes until the market has ended or we are cut off."""
    heard: list[bytes] = []
    async with connected(exchange, path) as socket:
        for frame in frames:
            await socket.send(frame)
        async with asyncio.timeout(30):
            ending = asyncio.create_task(until_end(exchange, socket))
            async for message in socket:
                heard.append(message.encode() if isinstance(message, str) else message)
            ending.cancel()
    return heard


async def until_end(exchange: Exchange, socket: ClientConnection) -> None:
    """Close a connection once everything has been sent; the close frame comes after the last message."""
    await exchange.finished.wait()
    await socket.close()


async def get(exchange: Exchange, target: str) -> httpx.Response:
    """Ask the REST side."""
    async with httpx.AsyncClient(base_url=exchange.rest_url) as client:
        return await client.get(target)


async def ask(exchange: Exchange, target: str) -> Any:
    """Ask the REST side for a document."""
    answer = await get(exchange, target)
    assert answer.status_code == 200, answer.text
    return answer.json()


class DictBook:
    """The book by the documented steps and nothing else."""

    def __init__(self, bids: Iterable[list[str]], asks: Iterable[list[str]]) -> None:
        self.sides: list[dict[str, str]] = [dict(map(tuple, side)) for side in (bids, asks)]

    def change(self, bids: Iterable[list[str]], asks: Iterable[list[str]]) -> None:
        for side, levels in zip(self.sides, (bids, asks), strict=True):
            for price, size in levels:
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)

    def top(self, levels: int) -> list[list[tuple[str, str]]]:
        bids, asks = self.sides
        best_bids = sorted(bids.items(), key=lambda level: -float(level[0]))
        return [best_bids[:levels], sorted(asks.items(), key=lambda level: float(level[0]))[:levels]]


def events(heard: Iterable[bytes], kind: str) -> list[dict[str, Any]]:
    """Return the bare Binance events of one type, wrapped or not."""
    documents = (json.loads(message) for message in heard)
    bare = (document.get("data", document) for document in documents)
    return [event for event in bare if event.get("e") == kind]
