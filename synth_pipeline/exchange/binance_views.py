"""Binance streams that the venue makes of trades and depth: aggTrade, klines, partial books.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams, sections of these names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from synth_pipeline.exchange.bars import SECOND_MS, Bar, closing
from synth_pipeline.exchange.binance_rest import plain
from synth_pipeline.exchange.protocol import View, encode
from synth_pipeline.exchange.state import State
from synth_pipeline.venues import BookUpdate, Message, Trade

if TYPE_CHECKING:
    from synth_pipeline.exchange.binance import Binance

_NS_PER_MS = 1_000_000
_PARTIAL = re.compile(r"depth(5|10|20)(?:@(\d+)ms)?")


def view_of(stream: bytes, protocol: Binance, state: State) -> View | None:  # noqa: ARG001 - any symbol is taken
    """Return the maker of a stream, or None for one that cannot be made."""
    symbol, _, name = stream.decode().partition("@")
    symbol = symbol.upper()
    if name == "aggTrade":
        return AggregateTrades(stream)
    if name.startswith("kline_") and name[6:] in protocol.rest.intervals:
        return Klines(stream, symbol, name[6:], protocol.rest.intervals[name[6:]])
    if match := _PARTIAL.fullmatch(name):
        slow_ms = 250 if protocol.rest.times else SECOND_MS
        return PartialBook(stream, symbol, int(match[1]), int(match[2] or slow_ms), futures=protocol.rest.times)
    return None


class AggregateTrades(View):
    """Every trade as an aggregate of its own."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream, ("trades",))

    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:  # noqa: ARG002
        """One event a trade; the aggregate has the trade's own id."""
        found = []
        for trade in messages:
            if isinstance(trade, Trade) and not trade.off_market:
                ms, number = trade.event_ns // _NS_PER_MS, trade.trade_id
                event = {"e": "aggTrade", "E": ms, "s": trade.symbol, "a": number, "p": trade.price, "q": trade.size}
                found.append(encode({**event, "f": number, "l": number, "T": ms, "m": trade.side < 0}))
        return found


class Klines(View):
    """The current bar every second of `1s` and every two of the others, and each closed bar once."""

    def __init__(self, stream: bytes, symbol: str, interval: str, interval_ms: int) -> None:
        super().__init__(stream, ("trades",))
        self._symbol, self._interval, self._interval_ms = symbol, interval, interval_ms
        self._every_ns = (1 if interval == "1s" else 2) * SECOND_MS * _NS_PER_MS
        self._pushed_ns = 0
        self._open_ms: int | None = None

    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:
        """What closed, and what is open when it is due."""
        trades = [message for message in messages if isinstance(message, Trade)]
        if not trades:
            return []
        page = state.bars(self._symbol, self._interval_ms).page(
            self._interval_ms, self._open_ms, None, 1500, first=True
        )
        if self._open_ms is None:
            page = page[-1:]
        if not page:
            return []
        found = [self._event(bar, at_ns, closed=True) for bar in page[:-1]]
        if found or at_ns - self._pushed_ns >= self._every_ns:
            found.append(self._event(page[-1], at_ns, closed=False))
            self._pushed_ns = at_ns
        self._open_ms = page[-1].open_ms
        return found

    def _event(self, bar: Bar, at_ns: int, *, closed: bool) -> bytes:
        kline: dict[str, Any] = {"t": bar.open_ms, "T": closing(bar.open_ms, self._interval_ms), "s": self._symbol}
        kline |= {"i": self._interval, "f": -1, "L": -1, "o": bar.open, "c": bar.close, "h": bar.high, "l": bar.low}
        kline |= {"v": plain(bar.volume), "n": bar.trades, "x": closed, "q": plain(bar.turnover)}
        kline |= {"V": plain(bar.bought), "Q": plain(bar.bought_turnover), "B": "0"}
        return encode({"e": "kline", "E": at_ns // _NS_PER_MS, "s": self._symbol, "k": kline})


class PartialBook(View):
    """The best levels, on a clock."""

    def __init__(self, stream: bytes, symbol: str, levels: int, every_ms: int, *, futures: bool) -> None:
        super().__init__(stream, ("book_levels",))
        self._symbol, self._levels, self._futures = symbol, levels, futures
        self._every_ns, self._pushed_ns, self._previous_id = every_ms * _NS_PER_MS, 0, 0

    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:
        """The book as it stands, when it is due and known."""
        update = next((message for message in messages if isinstance(message, BookUpdate)), None)
        book = state.book(self._symbol)
        if update is None or book is None or at_ns - self._pushed_ns < self._every_ns:
            return []
        self._pushed_ns = at_ns
        bids, asks = book.top(self._levels)
        last_id = book.applied_id
        if not self._futures:
            return [encode({"lastUpdateId": last_id, "bids": bids, "asks": asks})]
        ms, previous_id, self._previous_id = book.event_ns // _NS_PER_MS, self._previous_id or last_id, last_id
        head = {"e": "depthUpdate", "E": ms, "T": ms, "s": self._symbol, "U": update.first_id, "u": last_id}
        return [encode({**head, "pu": previous_id, "b": bids, "a": asks})]
