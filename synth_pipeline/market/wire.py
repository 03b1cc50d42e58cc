"""What the simulated venue says: `Encoder` is the contract, `Wire` the format of Binance USD-M, byte for byte.

Wire format: https://developers.binance.com/docs, section USD-M futures: "Diff. Book Depth Streams", "Individual Symbol
Book Ticker Streams", trade streams, and the REST "Order Book". Ticks and lots come in, JSON goes out; what is published
when is decided in `simulation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import ClassVar, Protocol

from synth_pipeline.errors import InputError

_REMEMBERED = 2**13
"""Texts of prices, and of sizes, that an encoder keeps."""
Level = Sequence[int]
"""Price in ticks, size in lots."""


class Decimals:
    """Writes multiples of a fixed step as decimal strings of constant length."""

    def __init__(self, step: Decimal, least_decimals: int = 0) -> None:
        self._decimals = max(least_decimals, -int(step.normalize().as_tuple().exponent))
        self._unit = 10**self._decimals
        self._step = int(step * self._unit)

    def __call__(self, count: int) -> str:
        """Write `count` steps."""
        whole, rest = divmod(count * self._step, self._unit)
        return f"{whole}.{rest:0{self._decimals}d}" if self._decimals else str(whole)


class Encoder(Protocol):
    """Writes the messages of one symbol in some venue's format: times in ms, prices in ticks, sizes in lots."""

    def depth_update(
        self,
        *,
        sent_ms: int,
        event_ms: int,
        first_id: int,
        last_id: int,
        previous_id: int,
        bids: Iterable[Level],
        asks: Iterable[Level],
    ) -> bytes:
        """Encode changed levels: absolute sizes, zero where a level is gone."""

    def book_ticker(self, *, sent_ms: int, event_ms: int, update_id: int, bid: Level, ask: Level) -> bytes:
        """Encode the touch."""

    def trade(
        self, *, sent_ms: int, event_ms: int, trade_id: int, price: int, size: int, buyer_is_maker: bool
    ) -> bytes:
        """Encode one print."""

    def snapshot(
        self, *, sent_ms: int, event_ms: int, last_id: int, bids: Iterable[Level], asks: Iterable[Level]
    ) -> bytes:
        """Encode the whole book: levels best first."""


class Wire:
    """Encodes the messages of one symbol of Binance USD-M."""

    price_decimals: ClassVar[int] = 2
    """Prices carry at least as many, whatever the tick size."""
    size_decimals: ClassVar[int] = 0
    """The same of sizes."""

    def __init__(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> None:
        if not symbol.replace("_", "").isalnum() or not symbol.isascii():
            raise InputError(f"symbol {symbol!r} is not made of letters and digits, such as BTCUSDT")
        self._symbol = symbol.upper()
        self._stream = symbol.lower()
        # Most prices and sizes come again and again.
        self._price = lru_cache(_REMEMBERED)(Decimals(tick_size, self.price_decimals))
        self._size = lru_cache(_REMEMBERED)(Decimals(lot_size, self.size_decimals))

    def depth_update(
        self,
        *,
        sent_ms: int,
        event_ms: int,
        first_id: int,
        last_id: int,
        previous_id: int,
        bids: Iterable[Level],
        asks: Iterable[Level],
    ) -> bytes:
        """Encode changed levels: absolute sizes, zero where a level is gone."""
        return (
            f'{{"stream":"{self._stream}@depth@0ms","data":{{"e":"depthUpdate","E":{sent_ms},"T":{event_ms},'
            f'"s":"{self._symbol}","U":{first_id},"u":{last_id},"pu":{previous_id},'
            f'"b":{self._levels(bids)},"a":{self._levels(asks)}}}}}'
        ).encode()

    def book_ticker(self, *, sent_ms: int, event_ms: int, update_id: int, bid: Level, ask: Level) -> bytes:
        """Encode the touch."""
        return (
            f'{{"stream":"{self._stream}@bookTicker","data":{{"e":"bookTicker","u":{update_id},"s":"{self._symbol}",'
            f'"b":"{self._price(bid[0])}","B":"{self._size(bid[1])}","a":"{self._price(ask[0])}",'
            f'"A":"{self._size(ask[1])}","T":{event_ms},"E":{sent_ms}}}}}'
        ).encode()

    def trade(
        self, *, sent_ms: int, event_ms: int, trade_id: int, price: int, size: int, buyer_is_maker: bool
    ) -> bytes:
        """Encode one print."""
        return (
            f'{{"stream":"{self._stream}@trade","data":{{"e":"trade","E":{sent_ms},"T":{event_ms},"s":"{self._symbol}",'
            f'"t":{trade_id},"p":"{self._price(price)}","q":"{self._size(size)}","X":"MARKET",'
            f'"m":{"true" if buyer_is_maker else "false"}}}}}'
        ).encode()

    def snapshot(
        self, *, sent_ms: int, event_ms: int, last_id: int, bids: Iterable[Level], asks: Iterable[Level]
    ) -> bytes:
        """Encode the answer to a depth request: levels best first."""
        return (
            f'{{"lastUpdateId":{last_id},"E":{sent_ms},"T":{event_ms},'
            f'"bids":{self._levels(bids)},"asks":{self._levels(asks)}}}'
        ).encode()

    def _levels(self, levels: Iterable[Level]) -> str:
        price_of, size_of = self._price, self._size
        return "[" + ",".join([f'["{price_of(price)}","{size_of(size)}"]' for price, size in levels]) + "]"
