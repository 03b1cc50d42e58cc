"""Venues: ONE FILE = ONE VENUE, with no socket inside: bytes in, typed messages out.

A venue file defines one subclass of `Venue` whose class attributes are the venue's facts. `tests/test_venues.py`
holds it to the laws below. Archives of row files (LOBSTER, …) name their venue themselves and need no file here.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

Levels = list[tuple[str, str]]
"""(price, size) as decimal strings, exactly as received; size is absolute and zero removes the level."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One print."""

    symbol: str
    event_ns: int
    trade_id: int
    price: str
    size: str
    side: int
    """Aggressor: 1 buys, -1 sells."""
    off_market: bool = False
    """No order in the book took part."""


class BookUpdate(msgspec.Struct, frozen=True, gc=False):
    """Absolute sizes of changed levels, or of all levels when `snapshot`."""

    symbol: str | None
    """None where the venue's snapshot does not say."""
    event_ns: int
    """0 where the venue's message carries no time."""
    first_id: int
    last_id: int
    previous_id: int | None
    """Final id of the update before, on venues that send it."""
    bids: Levels
    asks: Levels
    snapshot: bool = False


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Top of book."""

    symbol: str
    event_ns: int
    """0 where the venue's message carries no time."""
    update_id: int
    bid_price: str
    bid_size: str
    ask_price: str
    ask_size: str


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A message that is known and not used (mark price, subscription answer, …); counted by kind."""

    symbol: str | None
    kind: str


Message = Trade | BookUpdate | Quote | Ignored


class Head(msgspec.Struct, frozen=True, gc=False):
    """What the recorder must know of a payload while it passes: whose it is, and where it stands in its stream."""

    symbol: str | None
    """None where the payload does not say."""
    stream: str
    """`book_levels`, `quotes`, `trades`, `answer` (to a request), `refusal` (of one), or the venue's own name."""
    first_id: int = 0
    last_id: int = 0
    """0 where the stream has no id that the rule could follow."""
    previous_id: int | None = None
    snapshot: bool = False
    event_ns: int = 0
    """When the venue made the message; 0 where it carries no time."""


class Verdict(enum.Enum):
    """What the sequence rule says of one book update."""

    IN_ORDER = "in order"
    DUPLICATE = "duplicate"
    """Already contained in what is known: drop it."""
    GAP = "gap"
    """Something is missing before it: the book is unknown until the next snapshot."""
    NEEDS_SNAPSHOT = "needs snapshot"
    """Nothing is known yet: keep it, a snapshot may bridge to it."""


class SequenceRule(ABC):
    """The venue's documented rule for one symbol's book updates, as a small state machine.

    It starts without knowledge; `snapshot` gives it some; `check` advances it only when it answers IN_ORDER, and a GAP
    takes it back to the start.
    """

    snapshot_overwrites: ClassVar[bool] = False
    """A snapshot replaces the book whenever it comes; where False, one that nobody waited for says nothing new."""

    def __init__(self) -> None:
        self.last_id: int | None = None
        """Final id of all that is known; None while nothing is."""
        self.bridging = False
        """A snapshot was taken and no update has followed it yet."""

    def snapshot(self, last_id: int) -> None:
        """Take a snapshot that contains everything up to `last_id`."""
        self.last_id, self.bridging = last_id, True

    def resume(self, last_id: int) -> None:
        """Go on from a book whose last applied update was `last_id`."""
        self.last_id, self.bridging = last_id, False

    def check(self, update: BookUpdate | Head) -> Verdict:
        """Judge one update and advance."""
        if self.last_id is None:
            return Verdict.NEEDS_SNAPSHOT
        verdict = self.judge(update, self.last_id, self.bridging)
        if verdict is Verdict.IN_ORDER:
            self.last_id, self.bridging = update.last_id, False
        elif verdict is Verdict.GAP:
            self.last_id, self.bridging = None, False
        return verdict

    @abstractmethod
    def judge(self, update: BookUpdate | Head, last_id: int, bridging: bool) -> Verdict:
        """Compare one update with what is known; `bridging` when that came from a snapshot. Changes nothing."""


class Venue(ABC):
    """Facts and wire format of one market segment of an exchange."""

    websocket_url: ClassVar[str]
    """Scheme, host and port; the setting `venue_urls` may put another in its place."""
    websocket_path: ClassVar[str]
    """Where the streams are served; `path_of` says it stream by stream."""
    rest_url: ClassVar[str]
    """Scheme, host and port, as `websocket_url`."""
    snapshot_path: ClassVar[str | None] = None
    """REST path of a depth snapshot, with `{symbol}`; None where the stream itself brings snapshots."""
    snapshot_weight: ClassVar[int] = 0
    """What one depth snapshot costs of `weight_per_minute`."""
    weight_per_minute: ClassVar[int] = 0
    """The venue's limit of request weight a minute and address."""
    time_path: ClassVar[str]
    """REST path of the venue's clock."""
    streams: ClassVar[tuple[str, ...]]
    """What is recorded by default, in the venue's own words."""
    streams_per_connection: ClassVar[int]
    streams_per_frame: ClassVar[int]
    """How many streams one subscribe frame may name."""
    frame_seconds: ClassVar[float] = 0.25
    """Pause between two frames that we send: venues limit how many they take a second."""
    heartbeat: ClassVar[bytes | None] = None
    """A frame to send every `heartbeat_seconds`; None where WebSocket pings are enough."""
    heartbeat_seconds: ClassVar[float] = 20.0
    session_hours: ClassVar[float | None] = None
    """The venue cuts a connection after this long; None where it states no limit."""
    inverse: ClassVar[bool] = False
    """Sizes are contracts worth a fixed amount of quote currency."""
    trade_ids_count_up: ClassVar[bool] = True
    """Each trade's id is the one before plus 1; where False, ids tell duplicates only, never a gap."""
    visible_levels: ClassVar[int] = 0
    """Levels a side that the recorded depth stream shows, 0 when all: what lies deeper is unknown, not empty."""

    def subscribe(self, symbols: Sequence[str], streams: Sequence[str] = ()) -> list[bytes]:
        """Return the frames that ask for the streams (default: `self.streams`) of the symbols."""
        return self._frames(symbols, streams, wanted=True)

    def unsubscribe(self, symbols: Sequence[str], streams: Sequence[str] = ()) -> list[bytes]:
        """Return the frames that end the streams (default: `self.streams`) of the symbols."""
        return self._frames(symbols, streams, wanted=False)

    def _frames(self, symbols: Sequence[str], streams: Sequence[str], *, wanted: bool) -> list[bytes]:
        names = [self.topic(symbol, stream) for symbol in symbols for stream in streams or self.streams]
        parts = (names[at : at + self.streams_per_frame] for at in range(0, len(names), self.streams_per_frame))
        return [self.request(part, wanted=wanted, number=number) for number, part in enumerate(parts, start=1)]

    def path_of(self, stream: str) -> str:  # noqa: ARG002 - one path serves all streams of most venues
        """Return the WebSocket path that serves a stream; streams of different paths need connections of their own."""
        return self.websocket_path

    @abstractmethod
    def topic(self, symbol: str, stream: str) -> str:
        """Return the venue's name of one stream of one symbol."""

    @abstractmethod
    def stream_kind(self, stream: str) -> str:
        """Return what a stream brings: `book_levels`, `quotes`, `trades`, or the venue's own name."""

    @abstractmethod
    def request(self, topics: Sequence[str], *, wanted: bool, number: int) -> bytes:
        """Return one frame that subscribes to the topics, or ends them."""

    @abstractmethod
    def server_time_ns(self, answer: bytes) -> int:
        """Read the answer to `time_path`. Raises `BadMessage`."""

    @abstractmethod
    def head(self, payload: bytes) -> Head:
        """Read only what places a payload in its stream. Raises `BadMessage` for what is no JSON object."""

    @abstractmethod
    def parse(self, payload: bytes, received_ns: int) -> tuple[Message, ...]:
        """Turn one payload into its messages, in the order they stand in it, at least one.

        Raises `BadMessage` with a reason slug.
        """

    @abstractmethod
    def sequence_rule(self) -> SequenceRule:
        """Return a fresh rule for one symbol."""


CONTRACT = Venue
MACHINERY = frozenset({"binance", "bybit"})
