"""A venue's kline endpoint on loopback, with a clock of its own and faults on demand; for Binance and for Bybit v5."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

START_MS = 1_700_006_400_000
"""2023-11-15 00:00:00 UTC, a Wednesday."""
STEP_MS = 60_000
Fault = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


def kline(open_ms: int) -> list[str]:
    """Return open, high, low, close, volume, turnover, trades of the bar at a time; they follow from the time alone."""
    at = open_ms // STEP_MS
    middle = 100 + at * 7919 % 997 / 8
    return [f"{x:.3f}" for x in (middle, middle + 1, middle - 1, middle + 0.5, at % 29, at % 31 * 100)] + [str(at % 11)]


@dataclass
class Exchange:
    """What the server knows and what it was asked."""

    opens: list[int]
    now_ms: int
    limit: int = 1000
    changed: dict[int, list[str]] = field(default_factory=dict)
    """Bars that the venue gives otherwise than `kline`."""
    faults: list[Fault] = field(default_factory=list)
    """Answers to the next requests instead of the true ones."""
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """Return the JSON answer to one request."""
        if path.endswith("/time"):
            seconds, nanos = str(self.now_ms // 1000), str(self.now_ms * 10**6)
            body: dict[str, Any] = {"serverTime": self.now_ms}
            return body if "v5" not in path else _v5({"timeSecond": seconds, "timeNano": nanos}, self.now_ms)
        if "v5" in path:
            rows = self._rows(query.get("start"), query.get("end"), int(query.get("limit", 200)), newest=True)
            listed = [[str(ms), *values[:6]] for ms, values in rows[::-1]]
            return _v5({"category": query["category"], "symbol": query["symbol"], "list": listed}, self.now_ms)
        forward = "startTime" in query
        rows = self._rows(
            query.get("startTime"), query.get("endTime"), int(query.get("limit", 500)), newest=not forward
        )
        return [[ms, *v[:5], ms + STEP_MS - 1, v[5], int(v[6]), "0", "0", "0"] for ms, v in rows]

    def _rows(self, start: str | None, end: str | None, limit: int, *, newest: bool) -> list[tuple[int, list[str]]]:
        assert limit <= self.limit, "asked for more than a page holds"
        low, high = int(start or 0), int(end or 2**62)
        within = [ms for ms in self.opens if low <= ms <= min(high, self.now_ms)]
        chosen = within[-limit:] if newest else within[:limit]
        return [(ms, self.changed.get(ms, kline(ms))) for ms in chosen]


def _v5(result: dict[str, Any], now_ms: int) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now_ms}


@contextmanager
def serving(exchange: Exchange) -> Iterator[Exchange]:
    """Serve an exchange on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: no waiting for delayed acknowledgements

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            exchange.asked.append((parts.path, query))
            if exchange.faults:
                status, headers, body = exchange.faults.pop(0)
            else:
                status, headers, body = 200, exchange.headers, json.dumps(exchange.answer(parts.path, query)).encode()
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    exchange.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield exchange
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
