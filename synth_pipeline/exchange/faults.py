"""What goes wrong on purpose: one class a fault, by name, composable, seeded, and logged in full.

    --fault drop:count=3,share=0.01,stream=trades --fault session_cut:seconds=10

A fault on messages hits the venue's publication, so every client misses the same ones; the venue's own book, and hence
its depth answers, keep them. What nobody has subscribed to is neither hit nor counted. `after` messages of the chosen
kind pass first, then each is hit with probability `share` until `count` were. A fault on requests counts requests.
"""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from time import time_ns
from typing import Any, ClassVar

import numpy as np

from synth_pipeline.errors import BadMessage, InputError, UnknownNameError
from synth_pipeline.exchange.protocol import Item, Protocol
from synth_pipeline.rng import per_path

_STAMP = re.compile(rb'"(E|T|ts|cts)":(\d{13}|\d{16})(?!\d)')
CHAINED = ("book_levels", "trades")
"""Streams whose ids tell what is missing, twice or out of order."""


@dataclass(frozen=True)
class Pause:
    """Nothing goes out for a while; what was due goes out afterwards."""

    seconds: float


@dataclass(frozen=True)
class Freeze:
    """Every open connection dies without a word: no data, no pongs, no close."""


@dataclass(frozen=True)
class Cut:
    """Every open connection is closed."""


Action = Pause | Freeze | Cut


@dataclass
class Fault(ABC):
    """One thing that goes wrong."""

    name: ClassVar[str]
    count: int = 1
    """How many times at most; 0 is without limit."""
    after: int = 100
    """How many pass before."""
    share: float = 1.0
    """Probability that one of those that follow is hit."""
    symbol: str = ""
    """Only this one."""
    stream: str = ""
    """Only `book_levels`, `trades` or `quotes`; by default both that have a chain of ids."""
    done: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)

    def bind(self, protocol: Protocol, rng: np.random.Generator, log: list[dict[str, Any]]) -> None:
        """Learn the wire, the randomness and the log of the exchange."""
        self._protocol, self._rng, self._log = protocol, rng, log

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """Return what goes out, and happens, in place of a message."""
        return (item,)

    def left(self) -> Sequence[Item]:
        """Return what is still held when the market ends."""
        return ()

    def note(self, **facts: Any) -> dict[str, Any]:
        """Log one injection, with the wall clock, and return its entry."""
        entry = {"name": self.name, "at_ns": time_ns(), **facts}
        self._log.append(entry)
        return entry

    def _falls(self) -> bool:
        """Whether the next one is hit."""
        if self.count and self.done >= self.count:
            return False
        self.seen += 1
        if self.seen <= self.after or (self.share < 1 and self._rng.random() >= self.share):
            return False
        self.done += 1
        return True

    def _hits(self, item: Item) -> bool:
        if self.count and self.done >= self.count:
            return False
        kind = self._protocol.kind_of(item.stream)
        if kind not in ((self.stream,) if self.stream else CHAINED):
            return False
        return (not self.symbol or self._protocol.symbol_of(item.stream) == self.symbol) and self._falls()

    def _facts(self, item: Item) -> dict[str, Any]:
        """Return whose message it was and its ids."""
        stream = item.stream
        return {
            "symbol": self._protocol.symbol_of(stream),
            "stream": self._protocol.kind_of(stream),
            "wire": stream.decode(),
            "ids": self._ids(item),
            "market_ns": item.at_ns,
        }

    def _ids(self, item: Item) -> list[int]:
        try:
            messages = self._protocol.venue.parse(item.payload, item.at_ns)
        except BadMessage:
            return []
        ids = [value for message in messages for value in _ids_of(message)]
        return [min(ids), max(ids)] if ids else []


def _ids_of(message: Any) -> tuple[int, ...]:
    for names in (("first_id", "last_id"), ("trade_id",), ("update_id",)):
        if hasattr(message, names[0]):
            return tuple(getattr(message, name) for name in names)
    return ()


@dataclass
class Drop(Fault):
    """One message never goes out."""

    name = "drop"

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """Nothing instead of it."""
        if not self._hits(item):
            return (item,)
        self.note(**self._facts(item))
        return ()


@dataclass
class Gap(Fault):
    """A run of messages of one stream never goes out."""

    name = "gap"
    length: int = 10
    """Messages of the run."""

    def __post_init__(self) -> None:
        self._running: dict[bytes, tuple[int, dict[str, Any]]] = {}

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """Nothing for as long as the run lasts."""
        left, entry = self._running.pop(item.stream, (0, {}))
        if not left and self._hits(item):
            left, entry = self.length, self.note(**self._facts(item), messages=0)
        if not left:
            return (item,)
        entry["ids"] = [*entry["ids"][:1], *self._ids(item)[-1:]]
        entry["messages"] += 1
        if left > 1:
            self._running[item.stream] = (left - 1, entry)
        return ()


@dataclass
class Duplicate(Fault):
    """One message goes out twice."""

    name = "duplicate"

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """It and itself."""
        if not self._hits(item):
            return (item,)
        self.note(**self._facts(item))
        return (item, item)


@dataclass
class Reorder(Fault):
    """One message goes out after the next of its stream."""

    name = "reorder"

    def __post_init__(self) -> None:
        self._held: dict[bytes, Item] = {}

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """Hold it, or let it go with the one held."""
        held = self._held.pop(item.stream, None)
        if held is not None:
            return (item, held)
        if not self._hits(item):
            return (item,)
        self.note(**self._facts(item))
        self._held[item.stream] = item
        return ()

    def left(self) -> Sequence[Item]:
        """What no further message came for."""
        return tuple(self._held.values())


@dataclass
class Stall(Fault):
    """The venue goes silent and answers pings; afterwards everything follows."""

    name = "stall"
    seconds: float = 5.0

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """A pause before it."""
        if not self._hits(item):
            return (item,)
        self.note(**self._facts(item), seconds=self.seconds)
        return (Pause(self.seconds), item)


@dataclass
class HalfOpen(Fault):
    """Every open connection dies without a close: the network in between is gone."""

    name = "half_open"

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """Death before it."""
        if not self._hits(item):
            return (item,)
        self.note(**self._facts(item))
        return (Freeze(), item)


@dataclass
class SessionCut(Fault):
    """Connections are closed as at the venue's limit: all at once at a message, or each `seconds` after it opened."""

    name = "session_cut"
    seconds: float = 0.0
    """Age at which each connection is cut; 0: by message."""

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """The cut before it."""
        if self.seconds or not self._hits(item):
            return (item,)
        self.note(**self._facts(item))
        return (Cut(), item)


@dataclass
class Garbage(Fault):
    """A frame that is no JSON follows a message: its own first half."""

    name = "garbage"

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """It, and half of it."""
        if not self._hits(item):
            return (item,)
        half = item.payload[: max(2, len(item.payload) // 2)].decode(errors="ignore").encode()
        self.note(**self._facts(item), bytes=len(half))
        return (item, item._replace(payload=half, verbatim=True))


@dataclass
class Oversize(Fault):
    """A frame follows a message that is larger than a client should take."""

    name = "oversize"
    size: int = 32 * 1024 * 1024
    """Bytes of the frame."""

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """It, and the giant."""
        if not self._hits(item):
            return (item,)
        self.note(**self._facts(item), bytes=self.size)
        head, tail = b'{"e":"oversize","pad":"', b'"}'
        giant = head + b"x" * max(0, self.size - len(head) - len(tail)) + tail
        return (item, item._replace(payload=giant, verbatim=True))


@dataclass
class ClockStep(Fault):
    """The venue's clock steps: from here on its stamps, and its answer to what time it is, are off."""

    name = "clock_step"
    ms: int = 5000

    @property
    def offset_ms(self) -> int:
        """How far the clock is off now."""
        return self.ms if self.done else 0

    def publish(self, item: Item) -> Sequence[Item | Action]:
        """It, at another time."""
        if self._hits(item):
            self.note(**self._facts(item), ms=self.ms)
        return (shifted(item, self.ms),) if self.done else (item,)


@dataclass
class RateLimit(Fault):
    """The weight of the minute is used up: requests are refused, and those that go on are banned."""

    name = "rate_limit"
    after: int = 0
    seconds: int = 1
    """What Retry-After says."""
    path: str = ""
    """Only requests with this in their path count, such as `depth`."""

    def refuses(self, target: str) -> bool:
        """Whether this request is the one from which on they are refused."""
        falls = self.path in target and self._falls()
        if falls:
            self.note(request=target, seconds=self.seconds)
        return falls


@dataclass
class StaleSnapshot(Fault):
    """A depth answer is older than anything that a client can have buffered."""

    name = "stale_snapshot"
    after: int = 0

    def ages(self, symbol: str) -> bool:
        """Whether this answer is stale."""
        falls = self._falls()
        if falls:
            self.note(symbol=symbol)
        return falls


@dataclass
class SlowSnapshot(Fault):
    """A depth answer comes late, and shows the book as it was at the request."""

    name = "slow_snapshot"
    after: int = 0
    seconds: float = 2.0

    def delay(self, symbol: str) -> float:
        """Return the seconds by which this answer is late."""
        if not self._falls():
            return 0.0
        self.note(symbol=symbol, seconds=self.seconds)
        return self.seconds


@dataclass
class TlsRefusal(Fault):
    """A new connection is met with a TLS alert and closed, whatever it speaks."""

    name = "tls_refusal"
    after: int = 0

    def refuses(self) -> bool:
        """Whether this connection is refused."""
        falls = self._falls()
        if falls:
            self.note()
        return falls


KINDS: dict[str, type[Fault]] = {
    kind.name: kind
    for kind in (
        Drop,
        Gap,
        Duplicate,
        Reorder,
        Stall,
        HalfOpen,
        SessionCut,
        Garbage,
        Oversize,
        ClockStep,
        RateLimit,
        StaleSnapshot,
        SlowSnapshot,
        TlsRefusal,
    )
}
_TYPES = {"int": int, "float": float, "str": str}


def parse_fault(text: str) -> Fault:
    """Read `name` or `name:key=value,…`. Raises `UnknownNameError` or `InputError`."""
    name, _, rest = text.partition(":")
    if name not in KINDS:
        raise UnknownNameError("fault", name, KINDS)
    kind = KINDS[name]
    types = {each.name: _TYPES[str(each.type)] for each in fields(kind) if each.init}
    values: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if key not in types:
            raise UnknownNameError(f"parameter of the fault {name}", key, types)
        try:
            values[key] = types[key](value)
        except ValueError:
            raise InputError(f"fault {text!r}: {key}={value!r} is no {types[key].__name__}, such as {key}=1") from None
    return kind(**values)


def bind_all(faults: Sequence[Fault], protocol: Protocol, rng: np.random.Generator, log: list[dict[str, Any]]) -> None:
    """Give every fault a random stream of its own."""
    for fault, each in zip(faults, per_path(rng, len(faults)), strict=True):
        fault.bind(protocol, each, log)


def shifted(item: Item, ms: int) -> Item:
    """Return a message with every stamp moved, in ms or µs as it stands."""

    def moved(match: re.Match[bytes]) -> bytes:
        stamp = int(match[2]) + (ms if len(match[2]) == 13 else ms * 1000)
        return b'"%b":%d' % (match[1], stamp)

    return item._replace(payload=_STAMP.sub(moved, item.payload))
