"""Binance's wire, spot, USD-M and COIN-M: combined and raw streams, subscription frames, the public REST endpoints.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and …/rest-api, and the same pages under
…/derivatives/usds-margined-futures and …/derivatives/coin-margined-futures; error codes under …/errors.

    /stream?streams=btcusdt@trade/btcusdt@depth@100ms    {"stream":"btcusdt@trade","data":{…}}
    /ws/btcusdt@trade                                    {…}
    {"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}    {"result":null,"id":1}

Streams of depth differ in speed only: whichever a client asks for carries the messages that the market holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from synth_pipeline.exchange import binance_rest
from synth_pipeline.exchange.binance_views import view_of
from synth_pipeline.exchange.protocol import (
    Answer,
    Item,
    Protocol,
    Refused,
    Reply,
    Request,
    Session,
    View,
    encode,
)
from synth_pipeline.exchange.state import State
from synth_pipeline.market.wire import Encoder, Level, Wire
from synth_pipeline.venues import Trade, Venue
from synth_pipeline.venues.binance_coinm import BinanceCoinm
from synth_pipeline.venues.binance_spot import BinanceSpot
from synth_pipeline.venues.binance_usdm import BinanceUsdm

_WRAPPED = b'{"stream":"'
_DATA = b'","data":'
_DEPTH = re.compile(rb"(.+@depth)(?:@\d+ms)?")
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_STREAMS = {
    "depthUpdate": "depth",
    "markPriceUpdate": "markPrice",
    "24hrTicker": "ticker",
    "24hrMiniTicker": "miniTicker",
}
"""Event types whose stream has another name."""


class _Event(msgspec.Struct, gc=False):
    """What names the stream of a bare event."""

    e: str = ""
    s: str = ""
    k: msgspec.Raw = msgspec.Raw()
    last_update_id: int | None = msgspec.field(name="lastUpdateId", default=None)
    bid_size: str | None = msgspec.field(name="B", default=None)
    stream: str = ""


class _Wrapped(msgspec.Struct, gc=False):
    data: msgspec.Raw


class _Kline(msgspec.Struct, gc=False):
    i: str


class Binance(Protocol):
    """A segment; a subclass states what differs."""

    speaks: ClassVar[type[Venue]]
    entrances: ClassVar[tuple[str, ...]] = ("",)
    """What may stand before `/stream` and `/ws`."""
    ping_s: ClassVar[float | None] = 180.0
    pong_s: ClassVar[float | None] = 600.0
    incoming_per_second = 10
    rest: ClassVar[binance_rest.Facts]

    def __init__(self, name: str, venue: Venue) -> None:
        super().__init__(name, venue)
        self._event = msgspec.json.Decoder(_Event)

    def stream_of(self, payload: bytes) -> bytes | None:
        """The name that a combined event carries; of a bare one, that of its type."""
        if payload.startswith(_WRAPPED):
            return payload[11 : payload.find(b'"', 11)]
        try:
            event = self._event.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if event.stream:
            return event.stream.encode()
        if event.last_update_id is not None and not event.e:
            return b""
        name = event.e or ("bookTicker" if event.bid_size is not None else "")
        if not name or not event.s:
            return None
        if name == "kline":
            name = f"kline_{msgspec.json.decode(event.k, type=_Kline).i}"
        return f"{event.s.lower()}@{_STREAMS.get(name, name)}".encode()

    def name_of(self, stream: bytes) -> str:
        """What stands after the symbol."""
        return stream.partition(b"@")[2].decode()

    def symbol_of(self, stream: bytes) -> str:
        """What stands before the @."""
        return stream.partition(b"@")[0].decode().upper()

    def feed_of(self, stream: bytes) -> bytes:
        """Depth streams of one symbol are the same at every speed."""
        match = _DEPTH.fullmatch(stream)
        return match[1] if match else stream

    def prefix(self, stream: str, session: Session) -> bytes | None:
        """The wrapper of a combined stream."""
        return f'{{"stream":"{stream}","data":'.encode() if session.combined else None

    def body(self, item: Item) -> bytes:
        """The event inside the wrapper."""
        payload, start = item.payload, len(_WRAPPED) + len(item.stream)
        if payload.startswith(_DATA, start) and payload.startswith(_WRAPPED):
            return payload[start + len(_DATA) : -1]
        if payload.startswith(b"{") and b'"stream"' in payload:
            return bytes(msgspec.json.decode(payload, type=_Wrapped).data)
        return payload

    def open(self, request: Request, connection_id: str) -> Session:
        """`/stream?streams=a/b`, `/ws`, `/ws/a/b`, behind the entrances of the segment."""
        for entrance in self.entrances:
            path = request.path.removeprefix(entrance)
            if request.path.startswith(entrance) and path.rstrip("/") == self.venue.websocket_path:
                names = request.parameters.get("streams", "")
                return Session(connection_id, combined=True, streams=_names(names))
            if request.path.startswith(entrance) and (path == "/ws" or path.startswith("/ws/")):
                return Session(connection_id, combined=False, streams=_names(path.removeprefix("/ws")))
        raise Refused(Answer(404, b"Not Found"))

    def hear(self, session: Session, payload: str | bytes, state: State) -> Reply:  # noqa: ARG002 - any name is taken
        """Answer one frame, by the documented list of answers and errors."""
        try:
            frame = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Reply([_error(3, f"Invalid JSON: {error}")])
        if not isinstance(frame, dict) or "method" not in frame:
            return Reply([_error(2, "Invalid request: missing field `method`")])
        number = frame.get("id")
        if not isinstance(number, int | str | None) or isinstance(number, bool):
            return Reply([_error(2, "Invalid request: request ID must be an unsigned integer")])
        if frame["method"] not in _METHODS:
            known = ", ".join(f"`{method}`" for method in _METHODS)
            wrong = f"Invalid request: unknown variant `{frame['method']}`, expected one of {known}"
            return Reply([_error(2, wrong, number)])
        return self._perform(session, frame["method"], frame.get("params"), number)

    def _perform(self, session: Session, method: str, params: Any, number: int | str | None) -> Reply:
        if method == "LIST_SUBSCRIPTIONS":
            return Reply([encode({"result": list(session.streams), "id": number})])
        if not isinstance(params, list):
            return Reply([_error(2, "Invalid request: missing field `params`", number)])
        if method.endswith("PROPERTY"):
            return _property(session, method, params, number)
        if not all(isinstance(name, str) for name in params):
            return Reply([_error(2, "Invalid request: stream name must be a string", number)])
        done = encode({"result": None, "id": number})
        if method == "UNSUBSCRIBE":
            for name in params:
                session.streams.pop(name, None)
            return Reply([done], changed=True)
        added = [name for name in dict.fromkeys(params) if name not in session.streams]
        if len(session.streams) + len(added) > self.venue.streams_per_connection:
            return Reply([_error(4, "Too many subscriptions", number)])
        session.streams.update(dict.fromkeys(added))
        return Reply([done], added, changed=True)

    def view(self, stream: bytes, state: State) -> View | None:
        """Klines, aggregate trades and partial books are made of trades and depth."""
        return view_of(stream, self, state)

    def depth_symbol(self, request: Request, state: State, now_ms: int) -> str | None:  # noqa: ARG002
        """The symbol of a depth request that is in order."""
        if request.path != f"{self.rest.root(self.venue)}/depth":
            return None
        self.rest.depth_limit(request)
        return binance_rest.symbol_of(request, state)

    def answer(self, request: Request, state: State, now_ms: int) -> Answer:
        """See `binance_rest`."""
        return binance_rest.answer(self.rest, self.venue, request, state, now_ms)

    def captured(self, payload: bytes, request: Request) -> Answer | None:
        """The bytes themselves, when the request asks for as many levels as they hold."""
        limit = self.rest.depth_limit(request)
        book = msgspec.json.decode(payload)
        return Answer(200, payload) if max(len(book["bids"]), len(book["asks"])) <= limit else None

    def aged(self, answer: Answer, last_id: int) -> Answer:
        """Another `lastUpdateId`."""
        return Answer(answer.status, re.sub(rb'"lastUpdateId":\d+', b'"lastUpdateId":%d' % last_id, answer.body))

    def weight(self, request: Request) -> int:
        """See `binance_rest`."""
        return self.rest.weight(request, self.venue)

    def simulated_streams(self, symbol: str) -> list[bytes]:
        """Depth, touch and trades under the names that the segment records by default."""
        return [self.venue.topic(symbol, stream).encode() for stream in self.venue.streams]

    def encoder(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> Encoder:
        """The segment's own fields."""
        return Wire(symbol, tick_size, lot_size)


class Spot(Binance):
    """Spot pairs."""

    speaks = BinanceSpot
    ping_s: ClassVar[float | None] = 20.0
    pong_s: ClassVar[float | None] = 60.0
    incoming_per_second = 5
    rest = binance_rest.SPOT

    def encoder(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> Encoder:
        """Spot's fields; every number has eight decimals."""
        return SpotWire(symbol, tick_size, lot_size)


class Usdm(Binance):
    """USD-M futures."""

    speaks = BinanceUsdm
    entrances = ("", "/public", "/market")
    rest = binance_rest.USDM


class Coinm(Binance):
    """COIN-M futures."""

    speaks = BinanceCoinm
    example = "BTCUSD_PERP"
    rest = binance_rest.COINM

    def turnover(self, trade: Trade) -> Decimal:
        """Contracts are worth 100 USD each (BTC) or 10 (the others), so the base amount is that over the price."""
        worth = 100 if trade.symbol.startswith("BTC") else 10
        return (Decimal(trade.size) * worth / Decimal(trade.price)).quantize(Decimal("1e-8"))

    def encoder(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> Encoder:  # noqa: ARG002 - whole contracts
        """The USD-M fields and the pair; sizes count contracts, whatever the lot was called."""
        return CoinmWire(symbol, tick_size, Decimal(1))


SEGMENTS = (Spot, Usdm, Coinm)


class SpotWire(Wire):
    """Encodes the messages of one spot pair; its quotes and books carry no time, every number has eight decimals."""

    price_decimals: ClassVar[int] = 8
    size_decimals: ClassVar[int] = 8

    def depth_update(
        self,
        *,
        sent_ms: int,
        event_ms: int,  # noqa: ARG002 - spot sends one time only
        first_id: int,  # noqa: ARG002 - spot's chain leaves no id out
        last_id: int,
        previous_id: int,
        bids: Iterable[Level],
        asks: Iterable[Level],
    ) -> bytes:
        """Encode changed levels."""
        return (
            f'{{"stream":"{self._stream}@depth@100ms","data":{{"e":"depthUpdate","E":{sent_ms},"s":"{self._symbol}",'
            f'"U":{previous_id + 1},"u":{last_id},"b":{self._levels(bids)},"a":{self._levels(asks)}}}}}'
        ).encode()

    def book_ticker(self, *, sent_ms: int, event_ms: int, update_id: int, bid: Level, ask: Level) -> bytes:  # noqa: ARG002
        """Encode the touch."""
        return (
            f'{{"stream":"{self._stream}@bookTicker","data":{{"u":{update_id},"s":"{self._symbol}",'
            f'"b":"{self._price(bid[0])}","B":"{self._size(bid[1])}","a":"{self._price(ask[0])}",'
            f'"A":"{self._size(ask[1])}"}}}}'
        ).encode()

    def trade(
        self, *, sent_ms: int, event_ms: int, trade_id: int, price: int, size: int, buyer_is_maker: bool
    ) -> bytes:
        """Encode one print."""
        return (
            f'{{"stream":"{self._stream}@trade","data":{{"e":"trade","E":{sent_ms},"s":"{self._symbol}","t":{trade_id},'
            f'"p":"{self._price(price)}","q":"{self._size(size)}","T":{event_ms},'
            f'"m":{"true" if buyer_is_maker else "false"},"M":true}}}}'
        ).encode()

    def snapshot(
        self,
        *,
        sent_ms: int,  # noqa: ARG002 - spot's book carries no time
        event_ms: int,  # noqa: ARG002
        last_id: int,
        bids: Iterable[Level],
        asks: Iterable[Level],
    ) -> bytes:
        """Encode the whole book."""
        return (f'{{"lastUpdateId":{last_id},"bids":{self._levels(bids)},"asks":{self._levels(asks)}}}').encode()


class CoinmWire(Wire):
    """Encodes the messages of one COIN-M contract: those of USD-M with the pair beside the symbol."""

    price_decimals: ClassVar[int] = 1

    def __init__(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> None:
        super().__init__(symbol, tick_size, lot_size)
        self._named = f'"s":"{self._symbol}"'.encode()
        self._paired = self._named + f',"ps":"{self._symbol.partition("_")[0]}"'.encode()

    def depth_update(self, **fields: Any) -> bytes:
        """Encode changed levels."""
        return super().depth_update(**fields).replace(self._named, self._paired, 1)

    def book_ticker(self, **fields: Any) -> bytes:
        """Encode the touch."""
        return super().book_ticker(**fields).replace(self._named, self._paired, 1)


def _names(text: str) -> dict[str, None]:
    return dict.fromkeys(filter(None, text.split("/")))


def _error(code: int, message: str, number: int | str | None = None) -> bytes:
    return encode({"error": {"code": code, "msg": message}, "id": number})


def _property(session: Session, method: str, params: list[Any], number: int | str | None) -> Reply:
    """Answer SET_PROPERTY and GET_PROPERTY, whose one property is `combined`."""
    if not params or not isinstance(params[0], str):
        return Reply([_error(2, "Invalid request: property name must be a string", number)])
    if params[0] != "combined":
        return Reply([_error(0, "Unknown property", number)])
    if method == "GET_PROPERTY":
        return Reply([encode({"result": session.combined, "id": number})])
    if len(params) != 2 or not isinstance(params[1], bool):
        return Reply([_error(1, "Invalid value type: expected Boolean", number)])
    session.combined = params[1]
    return Reply([encode({"result": None, "id": number})], changed=True)
