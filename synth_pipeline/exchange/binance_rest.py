"""Binance's public REST endpoints: depth, klines, time and exchangeInfo, with their limits, weights and errors.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints and the market data pages of
the futures sections. An error is a status of 400 and `{"code": -1121, "msg": "Invalid symbol."}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from synth_pipeline.exchange.bars import DAY_MS, HOUR_MS, MINUTE_MS, MONTH, SECOND_MS, WEEK_MS, Bar, closing
from synth_pipeline.exchange.protocol import Answer, Refused, Request, whole
from synth_pipeline.exchange.state import State
from synth_pipeline.venues import Venue

_MINUTES = {f"{count}m": count * MINUTE_MS for count in (1, 3, 5, 15, 30)}
_HOURS = {f"{count}h": count * HOUR_MS for count in (1, 2, 4, 6, 8, 12)}
INTERVALS = {**_MINUTES, **_HOURS, "1d": DAY_MS, "3d": 3 * DAY_MS, "1w": WEEK_MS, "1M": MONTH}
"""Kline intervals of every segment, in ms; spot has `1s` besides."""
_FUTURES_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
_COINM_SPAN_MS = 200 * DAY_MS


def refused(code: int, message: str, status: int = 400) -> Refused:
    """Return an error in the venue's form."""
    return Refused(Answer.json({"code": code, "msg": message}, status))


UNKNOWN_BOOK = (-1001, "Internal error; unable to process your request. Please try again.", 503)
"""Answer to a depth request while the book is not known: the market has no snapshot yet, or a hole in its chain."""


@dataclass(frozen=True)
class Facts:
    """What differs between the segments."""

    intervals: dict[str, int]
    depths: tuple[int, ...]
    """Admissible limits of a depth request; none: any, the largest being `most_levels`."""
    default_depth: int
    most_levels: int
    most_bars: int
    bars_over_limit: bool
    """Whether a limit above `most_bars` means the most (True) or is refused."""
    times: bool
    """Whether a depth answer carries its times."""
    names: bool
    """Whether a depth answer carries its symbol and pair."""
    span_ms: int | None
    """The longest stretch that one klines request may span."""
    depth_weights: tuple[tuple[int, int], ...]
    """(largest limit, weight), ascending."""
    bar_weights: tuple[tuple[int, int], ...]
    info_weight: int

    def root(self, venue: Venue) -> str:
        """Return what every path starts with, such as `/fapi/v1`."""
        return venue.time_path.rpartition("/")[0]

    def depth_limit(self, request: Request) -> int:
        """Return the levels a side that a depth request asks for. Raises `Refused`."""
        limit = whole(
            request, "limit", self.default_depth, refused(-1130, "Data sent for parameter 'limit' is not valid.")
        )
        if self.depths and limit not in self.depths:
            raise refused(-4021, f"{limit} is not valid depth limit.")
        if limit < 1:
            raise refused(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(limit, self.most_levels)

    def bar_limit(self, request: Request) -> int:
        """Return the number of klines that a request asks for. Raises `Refused`."""
        wrong = refused(-1130, "Data sent for parameter 'limit' is not valid.")
        limit = whole(request, "limit", 500, wrong)
        if limit < 1 or (limit > self.most_bars and not self.bars_over_limit):
            raise wrong
        return min(limit, self.most_bars)

    def weight(self, request: Request, venue: Venue) -> int:
        """Return what a request costs; one that is refused costs as if it asked for the default."""
        endpoint = request.path.removeprefix(f"{self.root(venue)}/")
        if endpoint == "exchangeInfo":
            return self.info_weight
        weights, default = {"depth": (self.depth_weights, self.default_depth), "klines": (self.bar_weights, 500)}.get(
            endpoint, (((1, 1),), 1)
        )
        text = request.parameters.get("limit", "")
        limit = int(text) if text.isdigit() else default
        return next((weight for most, weight in weights if limit <= most), weights[-1][1])


SPOT = Facts(
    intervals={"1s": SECOND_MS, **INTERVALS},
    depths=(),
    default_depth=100,
    most_levels=5000,
    most_bars=1000,
    bars_over_limit=True,
    times=False,
    names=False,
    span_ms=None,
    depth_weights=((100, 5), (500, 25), (1000, 50), (5000, 250)),
    bar_weights=((1000, 2),),
    info_weight=20,
)
USDM = Facts(
    intervals=INTERVALS,
    depths=_FUTURES_DEPTHS,
    default_depth=500,
    most_levels=1000,
    most_bars=1500,
    bars_over_limit=False,
    times=True,
    names=False,
    span_ms=None,
    depth_weights=((50, 2), (100, 5), (500, 10), (1000, 20)),
    bar_weights=((99, 1), (499, 2), (1000, 5), (1500, 10)),
    info_weight=1,
)
COINM = replace(USDM, names=True, span_ms=_COINM_SPAN_MS)


def answer(facts: Facts, venue: Venue, request: Request, state: State, now_ms: int) -> Answer:
    """Answer a request. Raises `Refused`."""
    endpoints: dict[str, Callable[[], Any]] = {
        "ping": dict,
        "time": lambda: {"serverTime": now_ms},
        "exchangeInfo": lambda: _info(venue, request, state, now_ms),
        "depth": lambda: _depth(facts, request, state),
        "klines": lambda: _klines(facts, request, state),
    }
    endpoint = request.path.removeprefix(f"{facts.root(venue)}/")
    if endpoint not in endpoints or not request.path.startswith(facts.root(venue)):
        raise Refused(Answer(404, b"<html><body><h2>404 Not found</h2></body></html>"))
    return Answer.json(endpoints[endpoint]())


def symbol_of(request: Request, state: State) -> str:
    """Return the symbol that a request must name. Raises `Refused`."""
    symbol = request.parameters.get("symbol", "")
    if not symbol:
        raise refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if symbol not in state.symbols:
        raise refused(-1121, "Invalid symbol.")
    return symbol


def _depth(facts: Facts, request: Request, state: State) -> dict[str, Any]:
    symbol, limit = symbol_of(request, state), facts.depth_limit(request)
    book = state.book(symbol)
    if book is None:
        raise refused(*UNKNOWN_BOOK)
    bids, asks = book.top(limit)
    event_ms = book.event_ns // 1_000_000
    times = {"E": event_ms, "T": event_ms} if facts.times else {}
    names = {"symbol": symbol, "pair": symbol.partition("_")[0]} if facts.names else {}
    return {"lastUpdateId": book.applied_id, **times, **names, "bids": bids, "asks": asks}


def _klines(facts: Facts, request: Request, state: State) -> list[list[Any]]:
    symbol, limit = symbol_of(request, state), facts.bar_limit(request)
    interval = request.parameters.get("interval", "")
    if not interval:
        raise refused(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
    if interval not in facts.intervals:
        raise refused(-1120, "Invalid interval.")
    interval_ms = facts.intervals[interval]
    start_ms, end_ms = (
        whole(
            request,
            name,
            -1,
            refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."),
        )
        for name in ("startTime", "endTime")
    )
    if facts.span_ms and start_ms >= 0 and end_ms >= 0 and end_ms - start_ms > facts.span_ms:
        raise refused(-4055, "The maximum interval between startTime and endTime is 200 days.")
    page = state.bars(symbol, interval_ms).page(
        interval_ms,
        start_ms if start_ms >= 0 else None,
        end_ms if end_ms >= 0 else None,
        limit,
        first=start_ms >= 0,
    )
    return [row(bar, interval_ms) for bar in page]


def row(bar: Bar, interval_ms: int) -> list[Any]:
    """Return a kline as the venue lists it."""
    sums = (plain(value) for value in (bar.volume, bar.turnover, bar.bought, bar.bought_turnover))
    volume, turnover, bought, bought_turnover = sums
    prices = [bar.open_ms, bar.open, bar.high, bar.low, bar.close, volume, closing(bar.open_ms, interval_ms)]
    return [*prices, turnover, bar.trades, bought, bought_turnover, "0"]


def plain(value: Decimal) -> str:
    """Write an exact sum without an exponent."""
    return f"{value:f}"


def _info(venue: Venue, request: Request, state: State, now_ms: int) -> dict[str, Any]:
    asked = request.parameters.get("symbol")
    symbols = [symbol_of(request, state)] if asked is not None else state.symbols
    limit = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": venue.weight_per_minute,
    }
    described = [_described(venue, symbol, state) for symbol in symbols]
    return {"timezone": "UTC", "serverTime": now_ms, "rateLimits": [limit], "exchangeFilters": [], "symbols": described}


def _described(venue: Venue, symbol: str, state: State) -> dict[str, Any]:
    tick, lot = state.steps(symbol)
    status = "contractStatus" if venue.inverse else "status"
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000000", "stepSize": lot},
    ]
    return {"symbol": symbol, status: "TRADING", "filters": filters}
