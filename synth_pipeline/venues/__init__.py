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

    def check(self, update: BookUpdate) -> Verdict:
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
    def judge(self, update: BookUpdate, last_id: int, bridging: bool) -> Verdict:
        """Compare one update with what is known; `bridging` when that came from a snapshot. Changes nothing."""


class Venue(ABC):
    """Facts and wire format of one market segment of an exchange."""

    websocket_url: ClassVar[str]
    rest_url: ClassVar[str]
    snapshot_path: ClassVar[str]
    """REST path of a depth snapshot, with `{symbol}`."""
    inverse: ClassVar[bool] = False
    """Sizes are contracts worth a fixed amount of quote currency."""
    streams: ClassVar[tuple[str, ...]]
    """What is recorded by default."""
    session_hours: ClassVar[float]
    """The venue cuts a connection after this long."""

    @abstractmethod
    def subscribe(self, symbols: Sequence[str]) -> list[bytes]:
        """Return the frames to send after connecting."""

    @abstractmethod
    def parse(self, payload: bytes, received_ns: int) -> tuple[Message, ...]:
        """Turn one payload into its messages, in the order they stand in it, at least one.

        Raises `BadMessage` with a reason slug.
        """

    @abstractmethod
    def sequence_rule(self) -> SequenceRule:
        """Return a fresh rule for one symbol."""


CONTRACT = Venue
MACHINERY = frozenset({"binance"})
