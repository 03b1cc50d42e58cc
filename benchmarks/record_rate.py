"""How fast the recorder records over loopback, and what a `kill -9` costs it.

A lean broadcaster of our own (frames built beforehand, their ids counted on in place) sends USD-M messages, mixed and
sized as a busy day mixes them, from one core; the recorder receives, checks, compresses and writes on the other.
Both sides count.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import struct
import tempfile
import threading
import time
from itertools import pairwise
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import Kind
from synth_pipeline.capture.recorder import Plan, Recorder
from synth_pipeline.capture.sequence import Book, Counted, Rising
from synth_pipeline.errors import InputError
from synth_pipeline.rng import stream
from synth_pipeline.venues import Head, Verdict
from synth_pipeline.venues.binance import FuturesRule

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
_CYCLE = ("depth", *("quote",) * 6, *("trade",) * 3)
"""One depth update, six quotes, three trades: 240 bytes on average."""
_CYCLES = 50
_DIGITS = 12
_START = 10 ** (_DIGITS - 1)
_CONTEXT = multiprocessing.get_context("spawn")
_SPAWN_SECONDS = 60.0


class Broadcast:
    """Blocks of frames for all symbols; every block goes on where the one before ended."""

    def __init__(self) -> None:
        text, places, steps, rng = bytearray(), [], [], stream(0, "broadcast")
        for cycle in range(_CYCLES):
            for symbol in SYMBOLS:
                for number, kind in enumerate(_CYCLE):
                    frame, ids = _frame(symbol, kind, cycle, number, rng)
                    places += [len(text) + at for at, _ in ids]
                    steps += [value for _, value in ids]
                    text += frame
        self._bytes = np.frombuffer(bytes(text), dtype=np.uint8).copy()
        self._places = np.array(places)[:, None] + np.arange(_DIGITS)
        self._values = np.array(steps, dtype=np.int64)
        self._powers = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int64)
        self.messages = _CYCLES * len(SYMBOLS) * len(_CYCLE)
        """Messages in a block."""
        self._advance = np.where(self._values >= 2 * _START, _CYCLES * _CYCLE.count("trade"), _CYCLES * 10)

    def next(self) -> bytes:
        """Return the next block."""
        digits = self._values[:, None] // self._powers % 10 + ord("0")
        self._bytes[self._places] = digits.astype(np.uint8)
        self._values += self._advance
        return self._bytes.tobytes()


def _frame(
    symbol: str, kind: str, cycle: int, number: int, rng: np.random.Generator
) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a WebSocket frame, and where in it which id stands; ids have twelve digits."""
    update = _START + 10 * cycle
    prices, sizes = 37000 + rng.integers(0, 2000, 24) / 10, rng.exponential(1.0, 24)
    levels = [[f"{price:.2f}", f"{size:.3f}"] for price, size in zip(prices, sizes, strict=True)]
    price, size = levels[0]
    common = {"E": 1_700_000_000_105, "T": 1_700_000_000_101, "s": symbol}
    if kind == "depth":
        ids = [update + 1, update + 10, update]
        event = {"e": "depthUpdate", **common} | dict(zip(("U", "u", "pu"), ids, strict=True))
        event |= {"b": levels[:12], "a": levels[12:]}
        name = "depth@0ms"
    elif kind == "quote":
        ids = [update + number]
        event = {"e": "bookTicker", "u": ids[0], "b": price, "B": size, "a": "39000.20", "A": levels[1][1], **common}
        name = "bookTicker"
    else:
        ids = [2 * _START + 3 * cycle + number - _CYCLE.index("trade")]
        event = {"e": "trade", **common, "t": ids[0], "p": price, "q": size, "X": "MARKET", "m": False}
        name = "trade"
    body = json.dumps({"stream": f"{symbol.lower()}@{name}", "data": event}, separators=(",", ":")).encode()
    frame = _header(len(body)) + body
    places, at = [], 0
    for value in ids:
        at = frame.index(str(value).encode(), at)
        places.append((at, value))
        at += _DIGITS
    return frame, places


def _header(length: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", 0x81, length)
    return struct.pack("!BBH", 0x81, 126, length)


class Sender:
    """The exchange's side: one WebSocket client at a time, REST answers beside it, and a count of what was sent."""

    def __init__(self, slice_messages: int, pause_seconds: float) -> None:
        self._broadcast = Broadcast()
        self._frames_a_slice, self._pause = slice_messages, pause_seconds
        self._slices = self._cut(self._broadcast.next())
        self.sent: list[tuple[int, int]] = []
        """Of the present connection: monotonic ns, messages sent until then."""
        self.updates = _START
        self.running = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def _cut(self, block: bytes) -> list[bytes]:
        starts, at = [], 0
        while at < len(block):
            starts.append(at)
            length = block[at + 1]
            at += 2 + length if length < 126 else 4 + int.from_bytes(block[at + 2 : at + 4], "big")
        edges = [*starts[:: self._frames_a_slice], len(block)]
        return [block[start:end] for start, end in pairwise(edges)]

    def serve(self) -> None:
        """Accept clients until stopped."""
        while self.running:
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        request = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in request:
                if not (more := client.recv(4096)):
                    return
                request += more
            if b"Sec-WebSocket-Key" in request:
                self._stream(client, request)
            else:
                self._rest(client, request)

    def _rest(self, client: socket.socket, request: bytes) -> None:
        if b"/depth" in request:
            body: dict[str, Any] = {
                "lastUpdateId": self.updates,
                "bids": [["37000.00", "1"]],
                "asks": [["37000.10", "1"]],
            }
        else:
            body = {"serverTime": time.time_ns() // 10**6}
        text = json.dumps(body).encode()
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text) + text)
        client.close()

    def _stream(self, client: socket.socket, request: bytes) -> None:
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        digest = hashlib.sha1(key.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accept = base64.b64encode(digest)
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        client.recv(65536)  # the subscription
        lock = threading.Lock()
        threading.Thread(target=_pong, args=(client, lock), daemon=True).start()
        self.sent = sent = []
        total = 0
        while self.running:
            for part in self._slices:
                with lock:
                    client.sendall(part)
                total += min(self._frames_a_slice, self._broadcast.messages)
                sent.append((time.monotonic_ns(), total))
                if self._pause:
                    time.sleep(self._pause)
            self.updates += 10 * _CYCLES
            self._slices = self._cut(self._broadcast.next())
        client.sendall(b"\x88\x02\x03\xe8")


def _pong(client: socket.socket, lock: threading.Lock) -> None:
    """Answer the client's pings, which are masked and short."""
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            if data[0] == 0x89 and len(data) >= 6:
                length, mask, body = data[1] & 0x7F, data[2:6], data[6:]
                plain = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body[:length]))
                with lock:
                    client.sendall(bytes([0x8A, length]) + plain)


def _send(pipe: Pipe, slice_messages: int, pause_seconds: float) -> None:
    """The sender's process: reports its port, then answers with its counts whenever it is asked."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sender = Sender(slice_messages, pause_seconds)
    threading.Thread(target=sender.serve, daemon=True).start()
    pipe.send(sender.port)
    while (asked := pipe.recv()) != "end":
        if asked == "stop":
            sender.running = False
            time.sleep(0.5)
        pipe.send(list(sender.sent))


def _record(pipe: Pipe, port: int, folder: str) -> None:
    """The recorder's process: reports its figures and memory once a second, and the last ones at its end."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    process = psutil.Process()
    urls = {"websocket": f"ws://127.0.0.1:{port}", "rest": f"http://127.0.0.1:{port}"}
    recorder = Recorder(Plan.of("simulated", SYMBOLS, Path(folder), urls=urls), rng=stream(os.getpid(), "record_rate"))

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, recorder.stop)
        used = [time.process_time()]

        def report(figures: Any) -> None:
            pipe.send(figures.document() | {"rss": process.memory_info().rss, "cpu": time.process_time() - used[0]})

        await recorder.run(None, report)
        pipe.send(None)

    try:
        import uvloop

        uvloop.run(run())
    except ImportError:
        asyncio.run(run())


def _messages(folder: Path) -> int:
    """Count what came to one symbol's files over the stream since the last start of a recorder."""
    count = 0
    for path in sorted(folder.glob("*.rawlog")):
        for record in rawlog.read(path, "mend"):
            if record.kind == Kind.EVENT and b'"event":"start"' in record.payload:
                count = 0
            count += record.kind == Kind.MESSAGE and record.connection > 0
    return count


def rate(seconds: float) -> dict[str, float]:
    """Record as fast as both sides can for some seconds.

    Returns messages/s, messages lost, growth of the recorder's memory in MB over the last two thirds, and microseconds
    of CPU a message.
    """
    with tempfile.TemporaryDirectory() as folder:
        at_sender, sender_end = _CONTEXT.Pipe()
        sender = _CONTEXT.Process(target=_send, args=(sender_end, 2000, 0.0), daemon=True)
        sender.start()
        port = at_sender.recv()
        at_recorder, recorder_end = _CONTEXT.Pipe()
        recorder = _CONTEXT.Process(target=_record, args=(recorder_end, port, folder), daemon=True)
        recorder.start()
        reports = [at_recorder.recv()]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            reports.append(at_recorder.recv())
        at_sender.send("stop")
        sent = at_sender.recv()[-1][1]
        time.sleep(1.0)
        assert recorder.pid is not None
        os.kill(recorder.pid, signal.SIGTERM)
        last = reports[-1]
        while (report := at_recorder.recv()) is not None:
            last = report
        recorder.join()
        at_sender.send("end")
        recorded = sum(_messages(Path(folder, "simulated", symbol)) for symbol in SYMBOLS)
    first, end = reports[len(reports) // 3], reports[-1]
    return {
        "messages_per_second": (end["messages"] - first["messages"]) / (end["seconds"] - first["seconds"]),
        "lost": sent - recorded,
        "sent": sent,
        "gaps": last["gaps"],
        "memory_growth_mb": (end["rss"] - first["rss"]) / 1e6,
        "cpu_us_per_message": (end["cpu"] - first["cpu"]) / max(1, end["messages"] - first["messages"]) * 1e6,
        "bytes_per_message": end["bytes"] / end["messages"],
    }


def sequence_rate(messages: int) -> float:
    """Return messages a second and core that the recorder's sequence check judges, heads read beforehand."""
    heads = [
        Head("BTCUSDT", "book_levels", 10 * number + 1, 10 * number + 10, 10 * number)
        for number in range(messages // 3)
    ]
    trades = [Head("BTCUSDT", "trades", number, number) for number in range(1, messages // 3 + 1)]
    quotes = [Head("BTCUSDT", "quotes", number, number) for number in range(1, messages // 3 + 1)]
    book = Book(FuturesRule())
    book.take_snapshot(0)
    work = [(book.check, heads), (Counted("trades").check, trades), (Rising("quotes").check, quotes)]
    started = time.perf_counter()
    wrong = sum(check(head) is not Verdict.IN_ORDER for check, stream_heads in work for head in stream_heads)
    seconds = time.perf_counter() - started
    assert not wrong
    return 3 * (messages // 3) / seconds


def kills(number: int, seed: int = 0) -> dict[str, float]:
    """Kill a recorder -9 at random moments, each time starting another on the same files.

    Returns the worst loss in seconds (from when the sender delivered the first message that is not in the files to the
    kill), files that could not be read afterwards, and tails that were found torn.
    """
    rng = stream(seed, "kills")
    losses, unreadable = [], 0
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, "simulated", symbol) for symbol in SYMBOLS]
        at_sender, sender_end = _CONTEXT.Pipe()
        sender = _CONTEXT.Process(target=_send, args=(sender_end, 20, 0.002), daemon=True)
        sender.start()
        port = at_sender.recv()
        for _ in range(number):
            killed_ns = _run_and_kill(port, folder, float(rng.uniform(1.0, 3.0)))
            at_sender.send("count")
            sent = at_sender.recv()
            for each in folders:
                try:
                    losses.append(_loss(each, sent, killed_ns))
                except InputError:
                    unreadable += 1
        at_sender.send("end")
        notes = [record.payload for path in Path(folder).rglob("*.rawlog") for record in rawlog.read(path, "mend")]
    torn = sum(b'"event":"torn"' in payload for payload in notes)
    return {"worst_loss_seconds": max(losses), "unreadable": unreadable, "kills": number, "torn_tails": torn}


def _run_and_kill(port: int, folder: str, seconds: float) -> int:
    """Run a recorder for some seconds after its first report; return the monotonic ns of its death."""
    at_recorder, recorder_end = _CONTEXT.Pipe()
    recorder = _CONTEXT.Process(target=_record, args=(recorder_end, port, folder), daemon=True)
    recorder.start()
    recorder_end.close()
    at_recorder.recv()
    time.sleep(seconds)
    killed_ns = time.monotonic_ns()
    recorder.kill()
    recorder.join()
    return killed_ns


def _loss(folder: Path, sent: list[tuple[int, int]], killed_ns: int) -> float:
    """Seconds of one symbol's messages that are not in its files."""
    rows, recorded = len(_CYCLE), _messages(folder)
    # Where in the broadcast the symbol's first missing message stands.
    missing = recorded // rows * rows * len(SYMBOLS) + SYMBOLS.index(folder.name) * rows + recorded % rows
    delivered = next((at for at, total in sent if total > missing), killed_ns)
    return max(0.0, (killed_ns - delivered) / 1e9)
