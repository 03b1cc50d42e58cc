"""Bybit topics that the venue makes of its deepest book and its trades, and the writer of a simulated market.

https://bybit-exchange.github.io/docs/v5/websocket/public/{orderbook,ticker,kline}.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from synth_pipeline.exchange.bars import DAY_MS, MINUTE_MS, Bar, closing
from synth_pipeline.exchange.bybit_rest import INTERVALS
from synth_pipeline.exchange.protocol import View, encode
from synth_pipeline.exchange.state import State
from synth_pipeline.market.wire import Level, Wire
from synth_pipeline.venues import BookUpdate, Levels, Message, Trade

_NS_PER_MS = 1_000_000
PRIVATE_DEPTH = 0
"""Depth of the topic on which a simulated market tells all of its book; no client may subscribe to it."""
_EVERY_MS = {"50": 20, "200": 100, "1000": 200}
"""Push interval of each depth; spot's 200 levels come every 200 ms, here as in the others."""
_FIRST_ID = 2
"""1 would mean that the service was restarted."""


def book_message(topic: str, kind: str, event_ns: int, update_id: int, bids: Levels, asks: Levels) -> bytes:
    """Write an orderbook message; the cross sequence is the update id, since nothing else is known of it."""
    ms = event_ns // _NS_PER_MS
    data = {"s": topic.rpartition(".")[2], "b": bids, "a": asks, "u": update_id, "seq": update_id}
    return encode({"topic": topic, "type": kind, "ts": ms, "data": data, "cts": ms})


def view_of(stream: bytes, category: str, state: State) -> View | None:  # noqa: ARG001 - any known symbol is taken
    """Return the maker of a topic, or None for one that cannot be made."""
    name, _, symbol = stream.decode().rpartition(".")
    kind, _, detail = name.partition(".")
    if kind == "orderbook" and detail in _EVERY_MS:
        return BookView(stream, symbol, int(detail), _EVERY_MS[detail])
    if kind == "kline" and detail in INTERVALS:
        return Klines(stream, symbol, detail)
    return Ticker(stream, symbol, category) if kind == "tickers" else None


class BookView(View):
    """The best levels of the deepest book: a snapshot, then what differs."""

    def __init__(self, stream: bytes, symbol: str, levels: int, every_ms: int) -> None:
        super().__init__(stream, ("book_levels",))
        self._symbol, self._levels, self._every_ns = symbol, levels, every_ms * _NS_PER_MS
        self._shown: tuple[dict[str, str], dict[str, str]] | None = None
        self._update_id, self._event_ns, self._pushed_ns = _FIRST_ID, 0, 0

    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:
        """A snapshot when the book has just become known, else a delta when it is due and something differs."""
        book = state.book(self._symbol)
        if not any(isinstance(message, BookUpdate) for message in messages) or book is None:
            return []
        shown = self._shown
        if shown is not None and at_ns - self._pushed_ns < self._every_ns:
            return []
        now = self._look(state)
        if now is None or now == shown:
            return []
        self._shown, self._pushed_ns, self._event_ns = now, at_ns, book.event_ns
        if shown is None:
            return [self._message("snapshot", *(list(side.items()) for side in now))]
        self._update_id += 1
        return [self._message("delta", *(_changes(*sides) for sides in zip(shown, now, strict=True)))]

    def greeting(self, at_ns: int, state: State) -> bytes | None:
        """The book as of the last message of this topic."""
        if self._shown is None:
            book = state.book(self._symbol)
            self._shown = self._look(state)
            if self._shown is None or book is None:
                return None
            self._pushed_ns, self._event_ns = at_ns, book.event_ns
        return self._message("snapshot", *(list(side.items()) for side in self._shown))

    def _look(self, state: State) -> tuple[dict[str, str], dict[str, str]] | None:
        book = state.book(self._symbol)
        if book is None:
            return None
        bids, asks = book.top(self._levels)
        return dict(bids), dict(asks)

    def _message(self, kind: str, bids: Levels, asks: Levels) -> bytes:
        return book_message(self.stream.decode(), kind, self._event_ns, self._update_id, bids, asks)


def _changes(before: dict[str, str], after: dict[str, str]) -> Levels:
    gone = [(price, "0") for price in before if price not in after]
    return gone + [(price, size) for price, size in after.items() if before.get(price) != size]


class Klines(View):
    """The bar that is open after each trade, and each closed bar once, confirmed."""

    def __init__(self, stream: bytes, symbol: str, interval: str) -> None:
        super().__init__(stream, ("trades",))
        self._symbol, self._interval, self._interval_ms = symbol, interval, INTERVALS[interval]
        self._open_ms: int | None = None

    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:
        """One message with what closed and what is open."""
        if not any(isinstance(message, Trade) for message in messages):
            return []
        page = state.bars(self._symbol, self._interval_ms).page(
            self._interval_ms, self._open_ms, None, 1000, first=True
        )
        page = page if self._open_ms is not None else page[-1:]
        if not page:
            return []
        self._open_ms = page[-1].open_ms
        data = [self._bar(bar, at_ns, confirm=bar is not page[-1]) for bar in page]
        return [encode({"topic": self.stream.decode(), "data": data, "ts": at_ns // _NS_PER_MS, "type": "snapshot"})]

    def _bar(self, bar: Bar, at_ns: int, *, confirm: bool) -> dict[str, Any]:
        times = {"start": bar.open_ms, "end": closing(bar.open_ms, self._interval_ms), "interval": self._interval}
        prices = {"open": bar.open, "close": bar.close, "high": bar.high, "low": bar.low}
        sums = {"volume": f"{bar.volume:f}", "turnover": f"{bar.turnover:f}"}
        return {**times, **prices, **sums, "confirm": confirm, "timestamp": at_ns // _NS_PER_MS}


class Ticker(View):
    """Last price, touch and the past day; derivatives send changes only, spot the whole."""

    def __init__(self, stream: bytes, symbol: str, category: str) -> None:
        super().__init__(stream, ("trades", "quotes"))
        self._symbol, self._whole = symbol, category == "spot"
        self._every_ns = (50 if self._whole else 100) * _NS_PER_MS
        self._shown: dict[str, str] = {}
        self._pushed_ns = 0

    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:  # noqa: ARG002
        """What changed, when it is due."""
        if at_ns - self._pushed_ns < self._every_ns:
            return []
        now = self._now(state)
        changed = {name: value for name, value in now.items() if self._shown.get(name) != value}
        if not changed:
            return []
        whole = self._whole or not self._shown
        self._shown, self._pushed_ns = now, at_ns
        if whole:
            return [self._message("snapshot", {**now, **self._day(state)}, at_ns)]
        return [self._message("delta", changed, at_ns)]

    def greeting(self, at_ns: int, state: State) -> bytes | None:
        """Everything, once something is known."""
        self._shown = self._shown or self._now(state)
        return self._message("snapshot", {**self._shown, **self._day(state)}, at_ns) if self._shown else None

    def _now(self, state: State) -> dict[str, str]:
        last, quote = state.tape(self._symbol).last, state.quote(self._symbol)
        now = {"lastPrice": last.price} if last else {}
        if quote is not None and not self._whole:
            now |= {"bid1Price": quote.bid_price, "bid1Size": quote.bid_size}
            now |= {"ask1Price": quote.ask_price, "ask1Size": quote.ask_size}
        return now

    def _day(self, state: State) -> dict[str, str]:
        bars = state.bars(self._symbol, MINUTE_MS)
        day = bars.page(MINUTE_MS, None, None, DAY_MS // MINUTE_MS, first=False)
        if not day:
            return {}
        whole = Bar(day[0].open_ms, day[0].open, day[0].high, day[0].low, day[0].close)
        for bar in day:
            whole.add(bar)
        prices = {"prevPrice24h": whole.open, "highPrice24h": whole.high, "lowPrice24h": whole.low}
        return {**prices, "volume24h": f"{whole.volume:f}", "turnover24h": f"{whole.turnover:f}"}

    def _message(self, kind: str, data: dict[str, str], at_ns: int) -> bytes:
        ms = at_ns // _NS_PER_MS
        document = {"topic": self.stream.decode(), "type": kind, "data": {"symbol": self._symbol, **data}}
        return encode({**document, "cs": ms, "ts": ms})


class BybitWire(Wire):
    """Encodes the messages of one symbol: the whole book privately, the touch as depth 1, every trade by itself."""

    def __init__(self, symbol: str, tick_size: Decimal, lot_size: Decimal, *, numeric_ids: bool) -> None:
        super().__init__(symbol, tick_size, lot_size)
        self._numeric_ids = numeric_ids
        self._book_id = _FIRST_ID

    def depth_update(
        self,
        *,
        sent_ms: int,
        event_ms: int,
        first_id: int,  # noqa: ARG002 - the chain counts messages
        last_id: int,
        previous_id: int,  # noqa: ARG002
        bids: Iterable[Level],
        asks: Iterable[Level],
    ) -> bytes:
        """Encode changed levels."""
        self._book_id += 1
        return self._orderbook(PRIVATE_DEPTH, "delta", sent_ms, event_ms, self._book_id, last_id, bids, asks)

    def snapshot(
        self, *, sent_ms: int, event_ms: int, last_id: int, bids: Iterable[Level], asks: Iterable[Level]
    ) -> bytes:
        """Encode the whole book."""
        return self._orderbook(PRIVATE_DEPTH, "snapshot", sent_ms, event_ms, self._book_id, last_id, bids, asks)

    def book_ticker(self, *, sent_ms: int, event_ms: int, update_id: int, bid: Level, ask: Level) -> bytes:
        """Encode the touch."""
        return self._orderbook(1, "snapshot", sent_ms, event_ms, update_id, update_id, [bid], [ask])

    def trade(
        self, *, sent_ms: int, event_ms: int, trade_id: int, price: int, size: int, buyer_is_maker: bool
    ) -> bytes:
        """Encode one print."""
        text = str(trade_id) if self._numeric_ids else _uuid(trade_id)
        return (
            f'{{"topic":"publicTrade.{self._symbol}","type":"snapshot","ts":{sent_ms},"data":[{{"T":{event_ms},'
            f'"s":"{self._symbol}","S":"{"Sell" if buyer_is_maker else "Buy"}","v":"{self._size(size)}",'
            f'"p":"{self._price(price)}","L":"ZeroPlusTick","i":"{text}","BT":false,"RPI":false,"seq":{trade_id}}}]}}'
        ).encode()

    def _orderbook(
        self,
        depth: int,
        kind: str,
        sent_ms: int,
        event_ms: int,
        update_id: int,
        sequence: int,
        bids: Iterable[Level],
        asks: Iterable[Level],
    ) -> bytes:
        return (
            f'{{"topic":"orderbook.{depth}.{self._symbol}","type":"{kind}","ts":{sent_ms},"data":{{"s":"{self._symbol}",'
            f'"b":{self._levels(bids)},"a":{self._levels(asks)},"u":{update_id},"seq":{sequence}}},"cts":{event_ms}}}'
        ).encode()


def _uuid(number: int) -> str:
    """Write a trade id as the UUIDs of derivatives, whose first 63 bits it becomes."""
    digits = f"{number << 1:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:]}-8000-000000000000"
