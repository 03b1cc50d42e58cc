"""The book as the venue knows it, in the venue's own decimal strings, so that an answer repeats the wire exactly."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from functools import lru_cache

from synth_pipeline.venues import BookUpdate, Levels, SequenceRule, Verdict

DECIMALS = 18
"""No venue writes a price with more."""
_BUFFERED = 20_000
"""Updates kept while no snapshot is known: over half an hour of Binance's fastest stream."""


@lru_cache(maxsize=1 << 15)
def units(text: str) -> int:
    """Return a decimal string as an integer count of 10**-DECIMALS, exactly."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(DECIMALS, "0"))


def step_of(texts: Iterable[str]) -> int:
    """Return the largest step, in `units`, that all numbers are multiples of; 0 when there are none."""
    return math.gcd(*(units(text) for text in texts))


class Book:
    """One depth stream's book, known from its first snapshot on and until a hole in its chain."""

    def __init__(self, rule: SequenceRule) -> None:
        self._rule = rule
        self._waiting: deque[BookUpdate] = deque(maxlen=_BUFFERED)
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}
        self.known = False
        self.last_id = 0
        """Final id of the last update seen, applied or not."""
        self.event_ns = 0
        self.first_id: int | None = None
        """First id of all that was ever seen."""

    def apply(self, update: BookUpdate) -> None:
        """Take in a snapshot or a change, by the venue's documented rule."""
        if self.first_id is None:
            self.first_id = update.first_id
        if update.snapshot:
            self._replace(update)
            return
        self.last_id, self.event_ns = update.last_id, update.event_ns
        if self.known:
            self._follow(update)
        else:
            self._waiting.append(update)

    def _replace(self, snapshot: BookUpdate) -> None:
        self._rule.snapshot(snapshot.last_id)
        self.bids, self.asks = dict(snapshot.bids), dict(snapshot.asks)
        self.known = True
        self.last_id = max(self.last_id, snapshot.last_id)
        self.event_ns = max(self.event_ns, snapshot.event_ns)
        waiting, self._waiting = list(self._waiting), deque(maxlen=_BUFFERED)
        for update in waiting:
            self._follow(update)

    def _follow(self, update: BookUpdate) -> None:
        verdict = self._rule.check(update) if self.known else Verdict.NEEDS_SNAPSHOT
        if verdict is Verdict.IN_ORDER:
            _set(self.bids, update.bids)
            _set(self.asks, update.asks)
        elif verdict is not Verdict.DUPLICATE:
            self.known = False
            self._waiting.append(update)

    @property
    def applied_id(self) -> int:
        """The id up to which the book is complete; 0 while it is not known."""
        return (self._rule.last_id or 0) if self.known else 0

    def top(self, levels: int) -> tuple[Levels, Levels]:
        """Return the best levels of bids and asks, best first."""
        bids = sorted(self.bids.items(), key=_price, reverse=True)
        asks = sorted(self.asks.items(), key=_price)
        return bids[:levels], asks[:levels]


def _price(level: tuple[str, str]) -> int:
    return units(level[0])


def _set(side: dict[str, str], levels: Levels) -> None:
    for price, size in levels:
        if size.strip("0."):
            side[price] = size
        else:
            side.pop(price, None)
