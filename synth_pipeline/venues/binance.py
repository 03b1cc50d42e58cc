"""What Binance's three market segments share: the wire format of combined streams and the two sequence rules.

Wire format: https://developers.binance.com/docs — "Web Socket Streams" and "How to manage a local order book
correctly" of the spot, USD-M and COIN-M sections. A combined stream wraps each event as `{"stream": …, "data": …}`; a
REST depth snapshot is recognized by its `lastUpdateId`. The server pings every 20 s (spot) or 3 minutes (futures) and
takes 5 (spot) or 10 (futures) frames of ours a second, up to 1,024 streams a connection, 24 hours long.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from synth_pipeline.errors import BadMessage
from synth_pipeline.venues import (
    BookUpdate,
    Head,
    Ignored,
    Levels,
    Message,
    Quote,
    SequenceRule,
    Trade,
    Venue,
    Verdict,
)

NS_PER_MS = 1_000_000
_LATEST_MS = 9 * 10**12
"""The year 2255 in ms: a larger stamp counts µs. Neither reaches beyond int64 as ns."""
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Stamp = Annotated[int, msgspec.Meta(ge=0, le=1000 * _LATEST_MS)]
_KINDS = {
    "depth": "book_levels",
    "depthUpdate": "book_levels",
    "bookTicker": "quotes",
    "trade": "trades",
}
"""What we call the venue's streams and event types."""


class _Head(msgspec.Struct, gc=False):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    id: int | str | None = None
    last_update_id: int | None = msgspec.field(name="lastUpdateId", default=None)
    bid_size: str | None = msgspec.field(name="B", default=None)


class _Ids(msgspec.Struct, gc=False):
    """Where an event stands in its stream."""

    s: str | None = None
    e: str = ""
    U: int = 0
    u: int = 0
    pu: int | None = None
    t: int = 0
    E: int = 0
    T: int = 0


class _Place(_Ids, gc=False):
    """The same of any payload: a combined event, a bare one, a REST answer, an answer to a request."""

    stream: str = ""
    data: _Ids | None = None
    id: int | str | None = None
    error: msgspec.Raw = msgspec.Raw()
    last_update_id: int | None = msgspec.field(name="lastUpdateId", default=None)
    symbol: str | None = None
    bid_size: str | None = msgspec.field(name="B", default=None)


class _Clock(msgspec.Struct, gc=False):
    server_time: int = msgspec.field(name="serverTime")


class Depth(msgspec.Struct, gc=False):
    """A `depthUpdate` event of any segment; `pu` exists on futures only, `ps` on COIN-M only."""

    s: str
    U: Id
    u: Id
    b: Levels
    a: Levels
    E: Stamp = 0
    T: Stamp = 0
    pu: Id | None = None
    ps: str | None = None


class Ticker(msgspec.Struct, gc=False):
    """A `bookTicker` event; spot sends neither `e` nor a time."""

    s: str
    u: Id
    b: str
    B: str
    a: str
    A: str
    E: Stamp = 0
    T: Stamp = 0
    e: str | None = None
    ps: str | None = None


class Print(msgspec.Struct, gc=False):
    """A `trade` event; `X` exists on futures only, `M` on spot only."""

    s: str
    t: Id
    p: str
    q: str
    m: bool
    T: Stamp
    X: str | None = None
    M: bool | None = None


class Snapshot(msgspec.Struct, gc=False):
    """A REST depth answer; spot's carries neither symbol nor time."""

    lastUpdateId: Id  # noqa: N815 - the venue's name
    bids: Levels
    asks: Levels
    symbol: str | None = None
    E: Stamp = 0
    T: Stamp = 0


def to_ns(stamp: int) -> int:
    """Turn a venue stamp into ns: milliseconds by default, microseconds where the connection asked for them."""
    return stamp * 1000 if stamp > _LATEST_MS else stamp * NS_PER_MS


def _placed(ids: _Ids, kind: str) -> Head:
    if kind == "book_levels":
        return Head(ids.s, kind, ids.U, ids.u, ids.pu, False, to_ns(ids.E or ids.T))
    number = ids.t if kind == "trades" else ids.u
    return Head(ids.s, kind, number, number, None, False, to_ns(ids.E or ids.T))


class SpotRule(SequenceRule):
    """Spot: the first update after snapshot L has U <= L+1 <= u; then U == previous u + 1.

    An update that overlaps what is known (U <= last+1 <= u) is in order: its sizes are absolute, as of u.
    """

    def judge(self, update: BookUpdate | Head, last_id: int, bridging: bool) -> Verdict:  # noqa: ARG002 - one rule for both
        """See the class."""
        if update.last_id <= last_id:
            return Verdict.DUPLICATE
        return Verdict.IN_ORDER if update.first_id <= last_id + 1 else Verdict.GAP


class FuturesRule(SequenceRule):
    """Futures: the first update after snapshot L has U <= L <= u; then pu == previous u.

    `pu <= L < U` is in order too: the chain says that no update lies between pu and U, so the snapshot holds all
    before it. An update that ends at L itself (u == L) is the one the snapshot already contains; the book rows it
    repeats are the same.
    """

    def judge(self, update: BookUpdate | Head, last_id: int, bridging: bool) -> Verdict:
        """See the class."""
        if update.last_id < last_id or (update.last_id == last_id and not bridging):
            return Verdict.DUPLICATE
        previous = update.first_id if update.previous_id is None else update.previous_id
        if bridging:
            return Verdict.IN_ORDER if min(previous, update.first_id) <= last_id else Verdict.GAP
        return Verdict.IN_ORDER if previous == last_id else Verdict.GAP


class BinanceVenue(Venue):
    """A Binance segment; a subclass states its facts and which of the segments' marks its events carry."""

    websocket_path: ClassVar[str] = "/stream"
    streams_per_connection: ClassVar[int] = 1024
    # Frames above 4 KiB are refused: a hundred of the longest names fit.
    streams_per_frame: ClassVar[int] = 100
    session_hours: ClassVar[float | None] = 24.0

    def __init__(self) -> None:
        self._place = msgspec.json.Decoder(_Place)
        self._kinds: dict[str, str] = {}
        self._head = msgspec.json.Decoder(_Head)
        self._depth = msgspec.json.Decoder(Depth)
        self._ticker = msgspec.json.Decoder(Ticker)
        self._print = msgspec.json.Decoder(Print)
        self._snapshot = msgspec.json.Decoder(Snapshot)

    def topic(self, symbol: str, stream: str) -> str:
        """`btcusdt@depth@100ms`."""
        return f"{symbol.lower()}@{stream}"

    def stream_kind(self, stream: str) -> str:
        """The part before the update speed says what it is."""
        kind = stream.partition("@")[0]
        return _KINDS.get(kind, kind)

    def request(self, topics: Sequence[str], *, wanted: bool, number: int) -> bytes:
        """One SUBSCRIBE or UNSUBSCRIBE frame."""
        method = "SUBSCRIBE" if wanted else "UNSUBSCRIBE"
        return msgspec.json.encode({"method": method, "params": list(topics), "id": number})

    def server_time_ns(self, answer: bytes) -> int:
        """Milliseconds as `serverTime`."""
        try:
            return msgspec.json.decode(answer, type=_Clock).server_time * NS_PER_MS
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage("unexpected_form", str(error)) from None

    def head(self, payload: bytes) -> Head:
        """One pass over the payload that reads ids and times only."""
        try:
            place = self._place.decode(payload)
        except msgspec.ValidationError:
            return Head(None, "unexpected_form")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage("malformed_json", str(error)) from None
        if place.data is None:
            return self._bare(place)
        kind = self._kinds.get(place.stream)
        if kind is None:
            kind = self._kinds[place.stream] = self.stream_kind(place.stream.partition("@")[2])
        return _placed(place.data, kind)

    def _bare(self, place: _Place) -> Head:
        """An event outside a combined stream, or an answer."""
        if place.last_update_id is not None:
            last = place.last_update_id
            stamp = to_ns(place.E or place.T)
            return Head(place.symbol, "book_levels", last, last, snapshot=True, event_ns=stamp)
        if place.e or place.bid_size is not None:
            return _placed(place, self.stream_kind(place.e or "bookTicker"))
        return Head(None, "refusal" if len(place.error) else "answer")

    def parse(self, payload: bytes, received_ns: int) -> tuple[Message, ...]:
        """Turn one payload into its one message; `received_ns` stands in for a time that the venue does not send.

        Raises `BadMessage`: `malformed_json`, `unexpected_form` (JSON of another shape) or `wrong_venue`.
        """
        try:
            head = self._head.decode(payload)
            return (self._dispatch(head, head.data if head.stream else payload, received_ns),)
        except msgspec.ValidationError as error:
            raise BadMessage("unexpected_form", str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage("malformed_json", str(error)) from None

    def _dispatch(self, head: _Head, body: bytes | msgspec.Raw, received_ns: int) -> Message:
        kind = head.stream.partition("@")[2].partition("@")[0] or head.e
        if kind in {"depth", "depthUpdate"}:
            return self._book(self._depth.decode(body), received_ns)
        if kind == "bookTicker" or (not kind and head.bid_size is not None):
            return self._quote(self._ticker.decode(body), received_ns)
        if kind == "trade":
            return self._trade(self._print.decode(body))
        if head.last_update_id is not None:
            return self._full(self._snapshot.decode(body), received_ns)
        if not kind and head.id is None:
            raise BadMessage("unexpected_form", "neither a stream event, nor a depth snapshot, nor an answer")
        return Ignored(head.stream.partition("@")[0].upper() or None, kind or "answer")

    @abstractmethod
    def check_segment(self, event: Depth | Ticker | Print) -> str | None:
        """Return what in the event does not belong to this segment, or None."""

    def _check(self, event: Depth | Ticker | Print) -> None:
        if (foreign := self.check_segment(event)) is not None:
            raise BadMessage("wrong_venue", foreign)

    def _book(self, event: Depth, received_ns: int) -> BookUpdate:
        self._check(event)
        stamp = to_ns(event.T or event.E) or received_ns
        return BookUpdate(event.s, stamp, event.U, event.u, event.pu, event.b, event.a)

    def _quote(self, event: Ticker, received_ns: int) -> Quote:
        self._check(event)
        stamp = to_ns(event.T or event.E) or received_ns
        return Quote(event.s, stamp, event.u, event.b, event.B, event.a, event.A)

    def _trade(self, event: Print) -> Trade:
        self._check(event)
        off_market = event.X is not None and event.X != "MARKET"
        # m: the buyer was the maker, so the aggressor sold.
        return Trade(event.s, to_ns(event.T), event.t, event.p, event.q, -1 if event.m else 1, off_market)

    def _full(self, event: Snapshot, received_ns: int) -> BookUpdate:
        stamp = to_ns(event.T or event.E) or received_ns
        return BookUpdate(
            event.symbol, stamp, event.lastUpdateId, event.lastUpdateId, None, event.bids, event.asks, snapshot=True
        )
