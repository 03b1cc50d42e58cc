"""Small wire samples of our own: Binance messages as bytes, built from the numbers that a test is about."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

START_NS = 1_700_006_400_000_000_000
"""2023-11-15 00:00:00 UTC."""
DAY = "2023-11-15"
Levels = list[tuple[str, str]]


def _event(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": data}, separators=(",", ":")).encode()


def depth(
    first: int, last: int, previous: int | None, bids: Levels = (), asks: Levels = (), symbol: str = "BTCUSDT"
) -> bytes:  # type: ignore[assignment]
    data: dict[str, Any] = {"e": "depthUpdate", "E": 1_700_006_400_105, "s": symbol, "U": first, "u": last}
    if previous is not None:
        data |= {"T": 1_700_006_400_101, "pu": previous}
    return _event("depth@100ms", data | {"b": list(bids), "a": list(asks)})


def ticker(update_id: int, bid: str, bid_size: str, ask: str, ask_size: str, *, spot: bool = False) -> bytes:
    data = {"u": update_id, "s": "BTCUSDT", "b": bid, "B": bid_size, "a": ask, "A": ask_size}
    extra = {} if spot else {"e": "bookTicker", "T": 1_700_006_400_101, "E": 1_700_006_400_105}
    return _event("bookTicker", data | extra)


def trade(trade_id: int, price: str, size: str, *, sells: bool = False, kind: str | None = "MARKET") -> bytes:
    data: dict[str, Any] = {"e": "trade", "E": 1_700_006_400_107, "T": 1_700_006_400_106, "s": "BTCUSDT"}
    data |= {"t": trade_id, "p": price, "q": size, "m": sells}
    return _event("trade", data | ({"X": kind} if kind else {"M": True}))


def snapshot(last: int, bids: Levels, asks: Levels) -> bytes:
    return json.dumps(
        {"lastUpdateId": last, "E": 1_700_006_400_100, "T": 1_700_006_400_099, "bids": bids, "asks": asks}
    ).encode()


def write_capture(path: Path, frames: Iterable[tuple[int, bytes]]) -> Path:
    """Write frames (nanoseconds after START_NS, payload) in the collector format, gzipped when the name says so."""
    text = b"".join(b"%d %s\n" % (START_NS + offset, payload) for offset, payload in frames)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def market(seconds: int, *, start_id: int = 100) -> list[tuple[int, bytes]]:
    """A tiny USD-M market: a snapshot, then ten diffs, quotes and a trade or two each second, all chains unbroken."""
    frames: list[tuple[int, bytes]] = []
    step = 100_000_000
    bids, asks = [("100.0", "5.000"), ("99.9", "7.000")], [("100.1", "5.000"), ("100.2", "7.000")]
    frames.append((1, depth(start_id - 5, start_id - 1, start_id - 9, [("99.9", "7.000")])))
    frames.append((2, snapshot(start_id, bids, asks)))
    previous = start_id
    for number in range(1, 10 * seconds):
        at, last = number * step, previous + 3
        size = f"{1 + number % 7}.000"
        frames.append((at, depth(previous + 1, last, previous, [("100.0", size)], [("100.1", "5.000")])))
        frames.append((at + 1, ticker(last, "100.0", size, "100.1", "5.000")))
        frames.append((at + 2, trade(number, "100.1" if number % 2 else "100.0", "0.250", sells=number % 2 == 0)))
        previous = last
    return frames


def bybit_book(
    u: int, bids: Levels, asks: Levels, *, whole: bool = False, depth: int = 200, symbol: str = "BTCUSDT"
) -> bytes:
    """An orderbook message of Bybit v5; `whole` makes it a snapshot."""
    return json.dumps(
        {
            "topic": f"orderbook.{depth}.{symbol}",
            "type": "snapshot" if whole else "delta",
            "ts": 1_700_006_400_105,
            "data": {"s": symbol, "b": bids, "a": asks, "u": u, "seq": 10 * u},
            "cts": 1_700_006_400_101,
        },
        separators=(",", ":"),
    ).encode()


def bybit_trades(
    *ids: str, symbol: str = "BTCUSDT", side: str = "Buy", block: bool = False, rpi: bool = False
) -> bytes:
    """A publicTrade message of Bybit v5 that packs a trade for each id."""
    trades = [
        {
            "T": 1_700_006_400_106,
            "s": symbol,
            "S": side,
            "v": "0.250",
            "p": "100.10",
            "i": each,
            "BT": block,
            "RPI": rpi,
        }
        for each in ids
    ]
    document = {"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": 1_700_006_400_107, "data": trades}
    return json.dumps(document, separators=(",", ":")).encode()


def uuid_of(number: int) -> str:
    """A trade id as Bybit's derivatives send it."""
    return f"{number:08x}-0000-5000-8000-000000000000"
