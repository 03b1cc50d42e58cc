"""The contract of a protocol family: how its streams are named, what its clients may say, what its REST side answers.

A family file (`binance`, `bybit`) holds the wire and nothing else: no sockets, no clocks, no queues. Paths come from
the `Venue` class, so a venue's facts stand once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from synth_pipeline.errors import InputError
from synth_pipeline.market.wire import Encoder
from synth_pipeline.venues import Message, Trade, Venue

if TYPE_CHECKING:
    from synth_pipeline.exchange.state import State

Kind = Literal["book_levels", "trades", "quotes", "other"]
"""What a stream carries, in the words of the tick tables."""
_KINDS: dict[str, Kind] = {"book_levels": "book_levels", "trades": "trades", "quotes": "quotes"}
encode = msgspec.json.encode


class Item(NamedTuple):
    """One message of the market on its way out."""

    at_ns: int
    """When the source has it: the receive time of a recording."""
    stream: bytes
    """The venue's name of its stream; empty for the answer to a depth request that a recording holds."""
    payload: bytes
    verbatim: bool = False
    """Goes out as it is, whatever form the client asked for."""


@dataclass(frozen=True)
class Request:
    """One REST request."""

    path: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, target: str) -> Request:
        """Read a request target; of a parameter given twice the first counts."""
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        return cls(parts.path, dict(reversed(pairs)))


@dataclass(frozen=True)
class Answer:
    """One REST answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, document: Any, status: int = 200) -> Answer:
        """Encode a document."""
        return cls(status, encode(document))


class Refused(Exception):  # noqa: N818 - an answer in the venue's words, not a fault of ours
    """A request that the venue refuses, with what it says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode())
        self.answer = answer


@dataclass
class Session:
    """What one WebSocket client has asked for."""

    connection_id: str
    combined: bool
    """Whether events come wrapped with the name of their stream."""
    streams: dict[str, None] = field(default_factory=dict)
    """Names subscribed to, in order."""


class Reply(NamedTuple):
    """What follows from one frame of a client."""

    answers: list[bytes]
    subscribed: Sequence[str] = ()
    """Names that were not subscribed to before."""
    changed: bool = False
    """Whether what the client gets, or its form, is another now."""


class View(ABC):
    """A stream that the source does not hold and the venue makes of what it knows."""

    def __init__(self, stream: bytes, kinds: Iterable[Kind]) -> None:
        self.stream, self.kinds = stream, frozenset(kinds)
        """Which messages it follows."""

    @abstractmethod
    def follow(self, at_ns: int, messages: Iterable[Message], state: State) -> list[bytes]:
        """Return the payloads that follow from messages which the state has just taken in."""

    def greeting(self, at_ns: int, state: State) -> bytes | None:  # noqa: ARG002 - for those who greet
        """Return what a new subscriber gets first, or None."""
        return None


class Protocol(ABC):
    """One venue's side of its family's wire."""

    ping_s: ClassVar[float | None] = None
    """The server sends a WebSocket ping this often."""
    pong_s: ClassVar[float | None] = None
    """A client that has not answered for this long is cut."""
    idle_s: ClassVar[float | None] = None
    """A client that has said nothing for this long is cut."""
    incoming_per_second: int | None = None
    """Frames that a client may send."""
    example: ClassVar[str] = "BTCUSDT"
    """A symbol of the venue's."""

    def __init__(self, name: str, venue: Venue) -> None:
        self.name, self.venue = name, venue
        self._kinds: dict[bytes, Kind] = {}

    @abstractmethod
    def stream_of(self, payload: bytes) -> bytes | None:
        """Return the stream a captured payload came on, empty for a depth answer, None for anything else."""

    def kind_of(self, stream: bytes) -> Kind:
        """Return what a stream carries."""
        kind = self._kinds.get(stream)
        if kind is None:
            kind = self._kinds[stream] = _KINDS.get(self.venue.stream_kind(self.name_of(stream)), "other")
        return kind

    @abstractmethod
    def name_of(self, stream: bytes) -> str:
        """Return a stream's name without its symbol."""

    @abstractmethod
    def symbol_of(self, stream: bytes) -> str:
        """Return the symbol of a stream, in capitals."""

    def feed_of(self, stream: bytes) -> bytes:
        """Return one name for all streams that carry the same messages."""
        return stream

    def prefix(self, stream: str, session: Session) -> bytes | None:  # noqa: ARG002 - for those who wrap
        """Return what an event of this client starts with; empty: as captured; None: the bare event."""
        return b""

    def body(self, item: Item) -> bytes:
        """Return the bare event."""
        return item.payload

    @abstractmethod
    def open(self, request: Request, connection_id: str) -> Session:
        """Return the session of a new WebSocket client. Raises `Refused` for a path that is not the venue's."""

    @abstractmethod
    def hear(self, session: Session, payload: str | bytes, state: State) -> Reply:
        """Take one frame of a client."""

    @abstractmethod
    def view(self, stream: bytes, state: State) -> View | None:
        """Return the maker of a stream that the source does not hold, or None."""

    def greeting(self, stream: bytes, state: State) -> bytes | None:  # noqa: ARG002 - for those who greet
        """Return what a new subscriber of a stream of the source gets first, or None."""
        return None

    @abstractmethod
    def depth_symbol(self, request: Request, state: State, now_ms: int) -> str | None:
        """Return the symbol whose book a request asks for, None when it asks for something else. Raises `Refused`."""

    @abstractmethod
    def answer(self, request: Request, state: State, now_ms: int) -> Answer:
        """Answer a REST request. Raises `Refused`."""

    def captured(self, payload: bytes, request: Request) -> Answer | None:  # noqa: ARG002 - for those who record them
        """Return a captured depth answer as the answer to this request, or None where it does not fit."""
        return None

    @abstractmethod
    def aged(self, answer: Answer, last_id: int) -> Answer:
        """Return a depth answer under an older id."""

    @abstractmethod
    def weight(self, request: Request) -> int:
        """Return what a request costs."""

    def turnover(self, trade: Trade) -> Decimal:
        """Return what a trade was worth, in the currency that turnover counts."""
        return Decimal(trade.price) * Decimal(trade.size)

    @abstractmethod
    def simulated_streams(self, symbol: str) -> list[bytes]:
        """Return the streams that `encoder` writes."""

    @abstractmethod
    def encoder(self, symbol: str, tick_size: Decimal, lot_size: Decimal) -> Encoder:
        """Return the writer of a simulated market's messages."""


def whole(request: Request, name: str, default: int, refused: Refused) -> int:
    """Return a whole-number parameter. Raises `refused` for anything else."""
    text = request.parameters.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise refused from None


def protocol_of(venue: str) -> Protocol:
    """Return the wire of a venue. Raises `UnknownNameError`, or `InputError` for one without a family here."""
    from synth_pipeline import plugins, venues
    from synth_pipeline.exchange import binance, bybit

    speaker = plugins.load(venues, venue)()
    for family in (*binance.SEGMENTS, *bybit.CATEGORIES):
        if isinstance(speaker, family.speaks):
            return family(venue, speaker)
    raise InputError(f"venue {venue} speaks no protocol that can be served: choose one of Binance's or Bybit's")
