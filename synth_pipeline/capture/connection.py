"""One WebSocket connection of the recorder: opened, subscribed, kept alive, read until it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from itertools import count

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from synth_pipeline.capture.sequence import Stream

LOST = (OSError, WebSocketException)
"""What opening or writing raises when there is no connection to be had (timeouts are `OSError`s)."""
_NUMBERS = count(1)
# The library reports a ping without an answer as an error of its own; here it is a reason to reconnect.
_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False

Take = Callable[["Connection", bytes], None]


class _Stamped(ClientConnection):
    """Notes both clocks when bytes come off the socket, before anything is done with them."""

    received_ns = monotonic_ns = 0

    def data_received(self, data: bytes) -> None:
        """Stamp, then go on."""
        self.received_ns, self.monotonic_ns = time.time_ns(), time.monotonic_ns()
        super().data_received(data)


class Connection:
    """One open connection, read by a task of its own."""

    def __init__(self, socket: _Stamped, take: Take) -> None:
        self.number = next(_NUMBERS)
        """Told apart within one run of the recorder."""
        self.opened_ns = time.monotonic_ns()
        self.pace = Stream("connection")
        self.reader = asyncio.create_task(self._read(take))
        """Ends with the reason why the connection did."""
        self.socket = socket
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, url: str, take: Take, *, max_bytes: int, ping_seconds: float, open_seconds: float = 10.0
    ) -> Connection:
        """Connect, within seconds. Raises one of `LOST`."""
        socket = await connect(
            url,
            create_connection=_Stamped,
            compression=None,
            max_size=max_bytes,
            # The reader empties the queue before the loop reads the socket again.
            max_queue=None,
            open_timeout=open_seconds,
            ping_interval=ping_seconds,
            ping_timeout=ping_seconds,
            close_timeout=2.0,
            logger=_LOGGER,
        )
        assert isinstance(socket, _Stamped)
        return cls(socket, take)

    async def _read(self, take: Take) -> str:
        receive = self.socket.recv
        try:
            while True:
                take(self, await receive(decode=False))
        except ConnectionClosed as error:
            return _reason(error)

    async def send(self, frames: Sequence[bytes], pause_seconds: float) -> None:
        """Send frames with a pause between two. Raises one of `LOST`."""
        for number, frame in enumerate(frames):
            if number:
                await asyncio.sleep(pause_seconds)
            await self.socket.send(frame.decode())

    def keep_alive(self, heartbeat: bytes, every_seconds: float) -> None:
        """Send a frame at intervals until the connection ends."""

        async def beat() -> None:
            while not self.reader.done():
                await asyncio.sleep(every_seconds)
                try:
                    await self.send([heartbeat], 0.0)
                except LOST:
                    return

        self._beating = asyncio.create_task(beat())

    async def close(self, *, at_once: bool = False) -> None:
        """End the connection; `at_once` without the closing handshake, which a dead peer would not answer."""
        if self._beating is not None:
            self._beating.cancel()
        if at_once:
            self.socket.transport.abort()
        else:
            await self.socket.close()
        await self.reader


def _reason(error: ConnectionClosed) -> str:
    if error.rcvd is not None and not (error.sent is not None and not error.rcvd_then_sent):
        return f"closed by the venue: {error.rcvd.code} {error.rcvd.reason}".rstrip()
    if error.sent is not None:
        return f"closed by us: {error.sent.code} {error.sent.reason}".rstrip()
    return "connection lost"


def retry_after(error: BaseException) -> float:
    """Return how long a refused handshake asks us to stay away, 0 where it does not say."""
    text = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return float(text) if text.isascii() and text.isdigit() else 0.0
