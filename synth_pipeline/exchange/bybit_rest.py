"""Bybit's public REST endpoints: orderbook, kline, time and instruments-info.

https://bybit-exchange.github.io/docs/v5/market/{orderbook,kline,time,instrument}. Every answer has the status 200 and
the envelope `{"retCode":0,"retMsg":"OK","result":{…},"retExtInfo":{},"time":…}`; an error has another code in it.
Klines come newest first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synth_pipeline.exchange.bars import DAY_MS, MINUTE_MS, MONTH, WEEK_MS
from synth_pipeline.exchange.protocol import Answer, Refused, Request, whole
from synth_pipeline.exchange.state import State

_MINUTES = (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)
INTERVALS = {**{str(count): count * MINUTE_MS for count in _MINUTES}, "D": DAY_MS, "W": WEEK_MS, "M": MONTH}
"""Kline intervals in ms."""
_MOST_BARS = 1000
_BOOKS = {"spot": (1, 1000), "linear": (25, 1000), "inverse": (25, 1000)}
"""Default and largest number of levels."""


def _enveloped(result: Any, now_ms: int, code: int = 0, message: str = "OK") -> Answer:
    return Answer.json({"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms})


def refused(message: str, now_ms: int, code: int = 10001) -> Refused:
    """Return an error in the venue's form."""
    return Refused(_enveloped({}, now_ms, code, message))


def answer(category: str, request: Request, state: State, now_ms: int) -> Answer:
    """Answer a request. Raises `Refused`."""
    endpoints: dict[str, Callable[[str, Request, State, int], Any]] = {
        "time": _time,
        "orderbook": _orderbook,
        "kline": _kline,
        "instruments-info": _instruments,
    }
    endpoint = request.path.removeprefix("/v5/market/")
    if endpoint not in endpoints or not request.path.startswith("/v5/market/"):
        raise Refused(Answer(404, b"404 page not found"))
    if endpoint != "time":
        default = "linear" if endpoint == "kline" else ""
        if request.parameters.get("category", default) != category:
            raise refused("params error: Category Invalid", now_ms)
    return _enveloped(endpoints[endpoint](category, request, state, now_ms), now_ms)


def _time(category: str, request: Request, state: State, now_ms: int) -> dict[str, Any]:  # noqa: ARG001 - the common form
    return {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}


def _symbol(request: Request, state: State, now_ms: int) -> str:
    symbol = request.parameters.get("symbol", "")
    if symbol not in state.symbols:
        raise refused("params error: symbol invalid", now_ms)
    return symbol


def _limit(request: Request, default: int, most: int, now_ms: int) -> int:
    wrong = refused("params error: limit invalid", now_ms)
    limit = whole(request, "limit", default, wrong)
    if not 1 <= limit <= most:
        raise wrong
    return limit


def depth_of(category: str, request: Request, state: State, now_ms: int) -> tuple[str, int]:
    """Return the symbol and the levels that an orderbook request asks for. Raises `Refused`."""
    return _symbol(request, state, now_ms), _limit(request, *_BOOKS[category], now_ms)


def _orderbook(category: str, request: Request, state: State, now_ms: int) -> dict[str, Any]:
    symbol, limit = depth_of(category, request, state, now_ms)
    book = state.book(symbol)
    if book is None:
        raise refused("Server error.", now_ms, 10016)
    bids, asks = book.top(limit)
    event_ms, last_id = book.event_ns // 1_000_000, book.applied_id
    return {"s": symbol, "b": bids, "a": asks, "ts": event_ms, "u": last_id, "seq": last_id, "cts": event_ms}


def _kline(category: str, request: Request, state: State, now_ms: int) -> dict[str, Any]:
    symbol, limit = _symbol(request, state, now_ms), _limit(request, 200, _MOST_BARS, now_ms)
    interval = request.parameters.get("interval", "")
    if interval not in INTERVALS:
        raise refused("Invalid period!", now_ms)
    start_ms, end_ms = (
        whole(request, name, -1, refused(f"params error: {name} invalid", now_ms)) for name in ("start", "end")
    )
    # With an end the bars before it count, as far back as the limit goes; with a start alone those after it.
    page = state.bars(symbol, INTERVALS[interval]).page(
        INTERVALS[interval],
        start_ms if start_ms >= 0 else None,
        end_ms if end_ms >= 0 else None,
        limit,
        first=end_ms < 0 <= start_ms,
    )
    rows = [
        [str(bar.open_ms), bar.open, bar.high, bar.low, bar.close, f"{bar.volume:f}", f"{bar.turnover:f}"]
        for bar in reversed(page)
    ]
    return {"category": category, "symbol": symbol, "list": rows}


def _instruments(category: str, request: Request, state: State, now_ms: int) -> dict[str, Any]:
    asked = request.parameters.get("symbol")
    if asked is not None and asked not in state.symbols:
        if category != "spot":
            raise refused("params error: symbol invalid", now_ms)
        return {"category": category, "list": []}
    described = [_described(category, symbol, state) for symbol in ([asked] if asked is not None else state.symbols)]
    return {"category": category, "list": described} | ({} if category == "spot" else {"nextPageCursor": ""})


def _described(category: str, symbol: str, state: State) -> dict[str, Any]:
    tick, lot = state.steps(symbol)
    if category == "spot":
        sizes = {"basePrecision": lot, "minOrderQty": lot, "maxOrderQty": "9000000"}
        return {"symbol": symbol, "status": "Trading", "lotSizeFilter": sizes, "priceFilter": {"tickSize": tick}}
    kind = "LinearPerpetual" if category == "linear" else "InversePerpetual"
    prices = {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick}
    sizes = {"maxOrderQty": "9000000", "minOrderQty": lot, "qtyStep": lot}
    facts = {
        "symbol": symbol,
        "contractType": kind,
        "status": "Trading",
        "priceScale": str(len(tick.partition(".")[2])),
    }
    return {**facts, "priceFilter": prices, "lotSizeFilter": sizes}
