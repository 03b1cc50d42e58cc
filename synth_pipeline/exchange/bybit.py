"""Bybit's v5 wire, spot, linear and inverse: topics, subscription frames, the public REST endpoints.

https://bybit-exchange.github.io/docs/v5/ws/connect, …/v5/websocket/public/{orderbook,trade,ticker,kline} and
…/v5/market/{orderbook,kline,time,instrument}.

    {"op":"subscribe","args":["orderbook.50.BTCUSDT"],"req_id":"1"}
    {"success":true,"ret_msg":"","conn_id":"…","req_id":"1","op":"subscribe"}
    {"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":…,"data":{"s":…,"b":[…],"a":[…],"u":…,"seq":…},"cts":…}

One topic that does not exist fails its whole frame. A subscriber of a book gets a snapshot first, then the changes.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from synth_pipeline.exchange import bybit_rest
from synth_pipeline.exchange.bybit_views import PRIVATE_DEPTH, BybitWire, book_message, view_of
from synth_pipeline.exchange.protocol import Answer, Protocol, Refused, Reply, Request, Session, View, encode
from synth_pipeline.exchange.state import State
from synth_pipeline.market.wire import Encoder
from synth_pipeline.venues import Trade, Venue
from synth_pipeline.venues.bybit_inverse import BybitInverse
from synth_pipeline.venues.bybit_linear import BybitLinear
from synth_pipeline.venues.bybit_spot import BybitSpot

_TOPIC = b'{"topic":"'
_TOPICS = re.compile(
    r"(orderbook\.(1|50|200|1000)|publicTrade|tickers|kline\.(1|3|5|15|30|60|120|240|360|720|D|W|M)|allLiquidation)"
    r"\.([A-Z0-9\-]+)"
)
_LONGEST_ARGS = 21_000
"""Characters that the topics of one connection may take together."""


class _Head(msgspec.Struct, gc=False):
    topic: str = ""


class Bybit(Protocol):
    """A category; a subclass states what differs."""

    speaks: ClassVar[type[Venue]]
    category: ClassVar[str]
    idle_s: ClassVar[float | None] = 600.0
    acknowledges: ClassVar[str] = ""
    """`ret_msg` of a subscription that was taken."""
    names_pings: ClassVar[bool] = True
    """Whether the answer to a ping repeats its `req_id`."""
    numeric_ids: ClassVar[bool] = False

    def __init__(self, name: str, venue: Venue) -> None:
        super().__init__(name, venue)
        self._head = msgspec.json.Decoder(_Head)

    def stream_of(self, payload: bytes) -> bytes | None:
        """The topic."""
        if payload.startswith(_TOPIC):
            return payload[10 : payload.find(b'"', 10)]
        try:
            topic = self._head.decode(payload).topic
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return topic.encode() or None

    def name_of(self, stream: bytes) -> str:
        """What stands before the symbol."""
        return stream.rpartition(b".")[0].decode()

    def symbol_of(self, stream: bytes) -> str:
        """What stands after the last dot."""
        return stream.rpartition(b".")[2].decode()

    def open(self, request: Request, connection_id: str) -> Session:
        """One path a category; topics are subscribed to by frames."""
        if request.path != self.venue.websocket_path:
            raise Refused(Answer(404, b"Not Found"))
        return Session(connection_id, combined=True)

    def hear(self, session: Session, payload: str | bytes, state: State) -> Reply:
        """Answer one frame."""
        try:
            frame = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Reply([self._said(session, {}, f"error:{error}", success=False)])
        if not isinstance(frame, dict) or frame.get("op") not in {"subscribe", "unsubscribe", "ping"}:
            return Reply(
                [self._said(session, frame if isinstance(frame, dict) else {}, "error:invalid op", success=False)]
            )
        if frame["op"] == "ping":
            return Reply([self._said(session, frame, "pong", success=True)])
        topics = frame.get("args")
        if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
            return Reply([self._said(session, frame, "error:invalid args", success=False)])
        if frame["op"] == "unsubscribe":
            for topic in topics:
                session.streams.pop(topic, None)
            return Reply([self._said(session, frame, self.acknowledges, success=True)], changed=True)
        return self._subscribe(session, frame, topics, state)

    def _subscribe(self, session: Session, frame: dict[str, Any], topics: list[str], state: State) -> Reply:
        if (wrong := self._wrong(session, topics, state)) is not None:
            return Reply([self._said(session, frame, wrong, success=False)])
        session.streams.update(dict.fromkeys(topics))
        return Reply([self._said(session, frame, self.acknowledges, success=True)], topics, changed=True)

    def _wrong(self, session: Session, topics: list[str], state: State) -> str | None:
        if self.category == "spot" and len(topics) > self.venue.streams_per_frame:
            return f"args size >{self.venue.streams_per_frame}"
        if sum(map(len, (*session.streams, *topics))) > _LONGEST_ARGS:
            return f"error:args too long, over {_LONGEST_ARGS} characters"
        symbols = set(state.symbols)
        for topic in topics:
            match = _TOPICS.fullmatch(topic)
            if match is None or match[4] not in symbols:
                return f"error:handler not found,topic:{topic}"
            if topic in session.streams:
                return f"error:already subscribed,topic:{topic}"
        return None

    def _said(self, session: Session, frame: dict[str, Any], message: str, *, success: bool) -> bytes:
        said = {"success": success, "ret_msg": message, "conn_id": session.connection_id}
        op = frame.get("op", "")
        named = {"req_id": str(frame.get("req_id", ""))} if self.names_pings or op != "ping" else {}
        return encode({**said, **named, "op": op})

    def view(self, stream: bytes, state: State) -> View | None:
        """Shallower books, tickers and klines are made of the deepest book and the trades."""
        return view_of(stream, self.category, state)

    def greeting(self, stream: bytes, state: State) -> bytes | None:
        """The whole book, as of the last change sent."""
        book = state.book_of(stream) if self.kind_of(stream) == "book_levels" else None
        if book is None or not book.known:
            return None
        return book_message(
            stream.decode(), "snapshot", book.event_ns, book.applied_id, *book.top(len(book.bids) + len(book.asks))
        )

    def depth_symbol(self, request: Request, state: State, now_ms: int) -> str | None:
        """The symbol of an orderbook request that is in order."""
        if request.path != "/v5/market/orderbook":
            return None
        return bybit_rest.depth_of(self.category, request, state, now_ms)[0]

    def answer(self, request: Request, state: State, now_ms: int) -> Answer:
        """See `bybit_rest`."""
        return bybit_rest.answer(self.category, request, state, now_ms)

    def aged(self, answer: Answer, last_id: int) -> Answer:
        """Another `u`."""
        return Answer(answer.status, re.sub(rb'"u":\d+', b'"u":%d' % last_id, answer.body))

    def weight(self, request: Request) -> int:  # noqa: ARG002 - every request counts once
        """One."""
        return 1

    def simulated_streams(self, symbol: str) -> list[bytes]:
        """The private book, the touch and the trades."""
        return [f"{name}.{symbol}".encode() for name in (f"orderbook.{PRIVATE_DEPTH}", "orderbook.1", "publicTrade")]

    def encoder(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> Encoder:
        """The category's own form of trade ids."""
        return BybitWire(symbol, tick_size, lot_size, numeric_ids=self.numeric_ids)


class Spot(Bybit):
    """Spot pairs."""

    speaks = BybitSpot
    category = "spot"
    acknowledges = "subscribe"
    names_pings = False
    numeric_ids = True


class Linear(Bybit):
    """USDT and USDC contracts."""

    speaks = BybitLinear
    category = "linear"


class Inverse(Bybit):
    """Contracts settled in coin."""

    speaks = BybitInverse
    category = "inverse"
    example = "BTCUSD"

    def turnover(self, trade: Trade) -> Decimal:
        """Contracts are worth 1 USD each, so the coin amount is their number over the price."""
        return (Decimal(trade.size) / Decimal(trade.price)).quantize(Decimal("1e-8"))


CATEGORIES = (Spot, Linear, Inverse)
