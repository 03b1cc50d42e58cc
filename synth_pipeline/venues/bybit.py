"""What Bybit v5's market segments share: topics, heartbeats, and the rule that a snapshot always overwrites.

Wire format: https://bybit-exchange.github.io/docs/v5/ws/connect, …/v5/websocket/public/orderbook and …/trade.

A topic is `orderbook.{depth}.{symbol}` or `publicTrade.{symbol}`. After a subscription the book topic sends a snapshot,
then deltas whose `u` is the one before plus 1; a snapshot that comes again, or `u` = 1 after a restart of theirs,
overwrites the book. Depth 1 sends snapshots only and repeats the last one, with its `u`, after 3 quiet seconds. `ts` is
when the message was made, `cts` when the matching engine made the change: `cts` is comparable with a trade's `T`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

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
_RESTARTED = 1
"""The `u` of the full book that follows a restart of the venue's service."""
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Stamp = Annotated[int, msgspec.Meta(ge=0, le=9 * 10**12)]
_UUID_CHARACTERS = 36


class _Head(msgspec.Struct, gc=False):
    topic: str = ""
    type: str = ""
    ts: Stamp = 0
    cts: Stamp = 0
    data: msgspec.Raw = msgspec.Raw()
    success: bool | None = None
    op: str | None = None
    code: int | None = msgspec.field(name="retCode", default=None)


class _Ids(msgspec.Struct, gc=False):
    u: Id


class Book(msgspec.Struct, gc=False):
    """`data` of an orderbook message."""

    s: str
    b: Levels
    a: Levels
    u: Id


class Print(msgspec.Struct, gc=False):
    """One element of a publicTrade message's `data`; `BT` marks a block trade, `RPI` retail price improvement."""

    i: str
    T: Stamp
    p: str
    v: str
    S: Literal["Buy", "Sell"]
    s: str
    BT: bool = False
    RPI: bool = False


class _Clock(msgspec.Struct, gc=False):
    time: int


class BybitRule(SequenceRule):
    """`u` counts up by one from the snapshot on."""

    snapshot_overwrites: ClassVar[bool] = True

    def judge(self, update: BookUpdate | Head, last_id: int, bridging: bool) -> Verdict:  # noqa: ARG002 - one rule
        """See the class."""
        if update.last_id <= last_id:
            return Verdict.DUPLICATE
        return Verdict.IN_ORDER if update.first_id == last_id + 1 else Verdict.GAP


class BybitVenue(Venue):
    """A Bybit v5 segment; a subclass states its address and how to tell its symbols and trades from the others'."""

    websocket_url: ClassVar[str] = "wss://stream.bybit.com"
    rest_url: ClassVar[str] = "https://api.bybit.com"
    time_path: ClassVar[str] = "/v5/market/time"
    streams: ClassVar[tuple[str, ...]] = ("orderbook.200", "orderbook.1", "publicTrade")
    # All topics of one connection together may take 21,000 characters.
    streams_per_connection: ClassVar[int] = 500
    streams_per_frame: ClassVar[int] = 10
    heartbeat: ClassVar[bytes | None] = b'{"op":"ping"}'
    trade_ids_count_up: ClassVar[bool] = False
    visible_levels: ClassVar[int] = 200

    def __init__(self) -> None:
        self._head = msgspec.json.Decoder(_Head)
        self._ids = msgspec.json.Decoder(_Ids)
        self._book = msgspec.json.Decoder(Book)
        self._prints = msgspec.json.Decoder(list[Print])

    def topic(self, symbol: str, stream: str) -> str:
        """`orderbook.200.BTCUSDT`."""
        return f"{stream}.{symbol.upper()}"

    def stream_kind(self, stream: str) -> str:
        """Depth 1 is the top of book, any other depth the book."""
        if stream.startswith("orderbook.") and stream[10:].isdigit():
            return "quotes" if stream == "orderbook.1" else "book_levels"
        return "trades" if stream == "publicTrade" else stream

    def request(self, topics: Sequence[str], *, wanted: bool, number: int) -> bytes:
        """One subscribe or unsubscribe frame."""
        op = "subscribe" if wanted else "unsubscribe"
        return msgspec.json.encode({"op": op, "args": list(topics), "req_id": str(number)})

    def server_time_ns(self, answer: bytes) -> int:
        """Milliseconds as `time`."""
        try:
            return msgspec.json.decode(answer, type=_Clock).time * NS_PER_MS
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage("unexpected_form", str(error)) from None

    def head(self, payload: bytes) -> Head:
        """The envelope, and `u` where the topic is a book."""
        try:
            head = self._head.decode(payload)
            stream, _, symbol = head.topic.rpartition(".")
            if not stream:
                return Head(None, "refusal" if head.success is False else "answer")
            kind, event_ns = self.stream_kind(stream), (head.ts or head.cts) * NS_PER_MS
            if kind not in {"book_levels", "quotes"}:
                return Head(symbol, kind, event_ns=event_ns)
            u = self._ids.decode(head.data).u
            whole = kind == "book_levels" and _is_whole(head, u)
            return Head(symbol, kind, u, u, None, snapshot=whole, event_ns=event_ns)
        except msgspec.ValidationError:
            return Head(None, "unexpected_form")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage("malformed_json", str(error)) from None

    def parse(self, payload: bytes, received_ns: int) -> tuple[Message, ...]:
        """Turn one payload into its messages, several where it packs several trades.

        Raises `BadMessage`: `malformed_json`, `unexpected_form` (JSON of another shape), `partial_quote` (a change of
        the top of book, which depth 1 does not send) or `wrong_venue`.
        """
        try:
            head = self._head.decode(payload)
            return self._dispatch(head, received_ns)
        except msgspec.ValidationError as error:
            raise BadMessage("unexpected_form", str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage("malformed_json", str(error)) from None

    def _dispatch(self, head: _Head, received_ns: int) -> tuple[Message, ...]:
        stream, _, symbol = head.topic.rpartition(".")
        if not stream:
            if head.success is None and head.op is None and head.code is None:
                raise BadMessage("unexpected_form", "neither a topic's message nor an answer")
            return (Ignored(None, "answer"),)
        self._require(self.check_symbol(symbol))
        match self.stream_kind(stream):
            case "book_levels":
                return (self._update(head, received_ns),)
            case "quotes":
                return (self._quote(head, received_ns),)
            case "trades":
                trades = tuple(self._trade(each) for each in self._prints.decode(head.data))
                return trades or (Ignored(symbol, "publicTrade"),)
            case kind:
                return (Ignored(symbol, kind),)

    def sequence_rule(self) -> BybitRule:
        """The u chain."""
        return BybitRule()

    @abstractmethod
    def check_symbol(self, symbol: str) -> str | None:
        """Return why a symbol cannot be of this segment, or None."""

    @abstractmethod
    def trade_id(self, text: str) -> int:
        """Turn the segment's trade id into an int64. Raises `BadMessage` for the id of another segment."""

    @staticmethod
    def _require(foreign: str | None) -> None:
        if foreign is not None:
            raise BadMessage("wrong_venue", foreign)

    def _update(self, head: _Head, received_ns: int) -> BookUpdate:
        book = self._book.decode(head.data)
        stamp = (head.cts or head.ts) * NS_PER_MS or received_ns
        return BookUpdate(book.s, stamp, book.u, book.u, None, book.b, book.a, snapshot=_is_whole(head, book.u))

    def _quote(self, head: _Head, received_ns: int) -> Quote:
        book = self._book.decode(head.data)
        if not _is_whole(head, book.u):
            raise BadMessage("partial_quote", f"orderbook.1 of {book.s} sent a {head.type or 'message without a type'}")
        stamp = (head.cts or head.ts) * NS_PER_MS or received_ns
        (bid, bid_size), (ask, ask_size) = (side[0] if side else ("0", "0") for side in (book.b, book.a))
        return Quote(book.s, stamp, book.u, bid, bid_size, ask, ask_size)

    def _trade(self, each: Print) -> Trade:
        side = 1 if each.S == "Buy" else -1
        # Neither a block trade nor retail price improvement meets an order of the public book.
        off_market = each.BT or each.RPI
        return Trade(each.s, each.T * NS_PER_MS, self.trade_id(each.i), each.p, each.v, side, off_market)


def _is_whole(head: _Head, u: int) -> bool:
    return head.type == "snapshot" or u == _RESTARTED


class BybitDerivatives(BybitVenue):
    """What linear and inverse contracts share: trade ids are UUIDs."""

    def trade_id(self, text: str) -> int:
        """The first 63 bits of the UUID: 59 of them vary, so ten million trades collide with probability 1e-4."""
        digits = text[:8] + text[9:13] + text[14:18]
        if len(text) != _UUID_CHARACTERS or text.count("-") != 4:
            raise BadMessage("wrong_venue", f"trade id {text!r} is no UUID, as derivatives send it")
        try:
            return int(digits, 16) >> 1
        except ValueError:
            raise BadMessage("unexpected_form", f"trade id {text!r} is no UUID") from None
