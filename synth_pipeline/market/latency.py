"""Latency: how long messages take between a participant and the exchange.

A participant has three links: its orders go in on one, what the exchange answers comes back on another, market data
come on the third. A message takes `median_ns` times e^(jitter z), z standard normal: delays over a network are skewed
to the XX
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.compiling import njit
from synth_pipeline.rng import per_path
from synth_pipeline.series import IntArray


class Law(NamedTuple):
    """A `Delay` as compiled code takes it."""

    median_ns: float
    jitter: float


@dataclass(frozen=True)
class Delay:
    """How long a link takes. Raises `InputError` for values that are negative or not finite."""

    median_ns: int = 0
    jitter: float = 0.0
    """Standard deviation of the logarithm; 0 makes every delay the median."""

    def __post_init__(self) -> None:
        for name, value in (("median_ns", self.median_ns), ("jitter", self.jitter)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} of a link is {value}: it must be 0 or more, and finite")

    @property
    def law(self) -> Law:
        """What compiled code takes."""
        return Law(float(self.median_ns), float(self.jitter))


@dataclass(frozen=True)
class Latency:
    """The three links of a participant."""

    orders: Delay = field(default_factory=Delay)
    """From the participant to the exchange."""
    reports: Delay = field(default_factory=Delay)
    """What the exchange tells the participant of its own orders."""
    feed: Delay = field(default_factory=Delay)
    """Market data."""

    @classmethod
    def of(cls, median_ns: int, jitter: float = 0.0) -> Self:
        """Return a latency with all three links alike."""
        delay = Delay(median_ns, jitter)
        return cls(delay, delay, delay)

    @property
    def is_random(self) -> bool:
        """Whether any link draws its delays."""
        return any(link.jitter > 0 for link in (self.orders, self.reports, self.feed))

    def links(self, rng: np.random.Generator | None) -> tuple[Link, Link, Link]:
        """Return the three links, each with its own stream. Raises `InputError` when they need one and get none."""
        delays = (self.orders, self.reports, self.feed)
        if rng is None:
            if self.is_random:
                raise InputError("the latency is jittered and has no rng: pass one, such as stream(seed, 'latency')")
            return Link(delays[0]), Link(delays[1]), Link(delays[2])
        streams = per_path(rng, len(delays))
        return Link(delays[0], streams[0]), Link(delays[1], streams[1]), Link(delays[2], streams[2])


class Link:
    """One direction of one connection, first in, first out."""

    def __init__(self, delay: Delay, rng: np.random.Generator | None = None) -> None:
        self.law = delay.law
        self.rng = rng
        self.last_ns: IntArray = np.array([-(2**62)])
        """When the last message arrived or will arrive; one entry."""

    def arrival_ns(self, sent_ns: int) -> int:
        """Return when a message arrives; to be asked in the order in which messages are sent."""
        return _arrival_ns(self.law, self.last_ns, sent_ns, self.rng)


def _arrival_ns(law: Law, last_ns: IntArray, sent_ns: int, rng: np.random.Generator | None) -> int:
    delay = law.median_ns
    if rng is not None and law.jitter > 0.0:
        delay *= math.exp(law.jitter * rng.standard_normal())
    last_ns[0] = max(last_ns[0], sent_ns + int(delay + 0.5))
    return int(last_ns[0])


next_arrival_ns = njit(cache=True)(_arrival_ns)
"""`Link.arrival_ns` for compiled code, given the link's law, last arrival and stream."""
