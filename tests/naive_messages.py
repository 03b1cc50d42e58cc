"""Slow, obvious twins of `ticks.messages`, and a small venue that publishes what happens to its book."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from synth_pipeline import schema
from synth_pipeline.schema import Flag
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, Messages

Columns = dict[str, np.ndarray]
Level = tuple[int, int]
"""Side and price."""


def table(form: schema.Table, rows: list[dict[str, int]]) -> Columns:
    """Rows said by name; what is left out is 0."""
    return {c.name: np.array([row.get(c.name, 0) for row in rows], dtype=c.dtype) for c in form.columns}


@dataclass
class Venue:
    """A book that is acted on at random and published as differences, with its trades and its orders."""

    rng: np.random.Generator
    book: dict[Level, int] = field(default_factory=dict)
    published: dict[Level, int] = field(default_factory=dict)
    now: int = 1_000_000_000
    levels: list[dict[str, int]] = field(default_factory=list)
    trades: list[dict[str, int]] = field(default_factory=list)
    books: list[dict[Level, int]] = field(default_factory=list)
    """What was published, event by event."""

    def best(self, side: int) -> int:
        prices = [price for (own, price), size in self.book.items() if own == side and size > 0]
        return max(prices, default=0) if side > 0 else min(prices, default=10**6)

    def act(self) -> None:
        """Place, cancel or take."""
        self.now += int(self.rng.integers(1, 4_000_000))
        side, size = int(self.rng.choice((1, -1))), int(self.rng.integers(1, 9))
        what = self.rng.random()
        held = [level for level, there in self.book.items() if there > 0 and level[0] == side]
        if what < 0.5 or len(held) < 3:
            price = int(self.rng.integers(95, 105))
            if (price < self.best(-1)) if side > 0 else (price > self.best(1)):
                self.book[side, price] = self.book.get((side, price), 0) + size
        elif what < 0.75:
            level = held[int(self.rng.integers(len(held)))]
            self.book[level] = max(self.book[level] - size, 0)
        else:
            self.take(side, size)

    def take(self, side: int, size: int) -> None:
        """Execute the best orders of a side, one level at least staying."""
        while size and sum(there > 0 for level, there in self.book.items() if level[0] == side) > 1:
            price = self.best(side)
            filled = min(size, self.book[side, price])
            self.book[side, price] -= filled
            size -= filled
            trade = {"recv_ns": self.now, "event_ns": self.now, "price": price, "size": filled, "side": -side}
            self.trades.append(trade | {"seq": len(self.trades), "flags": int(Flag.LAST)})

    def publish(self, *, full: bool = False) -> None:
        """Publish what differs from what was published last, or everything."""
        changed = [level for level in self.book if full or self.book[level] != self.published.get(level, 0)]
        changed = [level for level in changed if not full or self.book[level] > 0]
        for level in changed:
            flags = int(Flag.LAST) * (level == changed[-1]) | int(Flag.SNAPSHOT) * full
            row = {"recv_ns": self.now, "event_ns": self.now, "seq": len(self.books), "flags": flags}
            self.levels.append(row | {"side": level[0], "price": level[1], "size": self.book[level]})
        if changed:
            self.books.append({level: size for level, size in self.book.items() if size > 0})
        self.published = dict(self.book)
        self.now += 1


def run_venue(seed: np.random.Generator, events: int, actions: int) -> Venue:
    """Return a venue after a full book and so many differences of up to `actions` actions each."""
    venue = Venue(seed)
    for price in range(90, 99):
        venue.book[1, price] = int(seed.integers(1, 20))
        venue.book[-1, price + 12] = int(seed.integers(1, 20))
    venue.publish(full=True)
    for _ in range(events):
        for _ in range(int(seed.integers(1, actions + 1))):
            venue.act()
        venue.publish()
    return venue


def books_at_ends(messages: Messages) -> list[dict[Level, int]]:
    """Apply messages one by one and return the book wherever an event of the source ended."""
    found = []
    bounds = [*messages.opens[1:].tolist(), len(messages)]
    for standing, first, stop in zip(messages.initial, messages.opens.tolist(), bounds, strict=True):
        book = {(1, price): size for price, size in standing.bids.tolist()}
        book |= {(-1, price): size for price, size in standing.asks.tolist()}
        for row in range(first, stop):
            apply(book, messages, row)
            if messages.ends[row]:
                found.append({level: size for level, size in book.items() if size > 0})
    return found


def apply(book: dict[Level, int], messages: Messages, row: int) -> None:
    """Apply one message."""
    level, size = (int(messages.side[row]), int(messages.price[row])), int(messages.size[row])
    held, kind = book.get(level, 0), int(messages.kind[row])
    if kind == LIMIT:
        book[level] = held + size
    elif kind in (CANCEL, MARKET):
        assert held >= size > 0
        book[level] = held - size
    else:
        book[level] = size


def ladder_of(book: dict[Level, int], levels: int) -> list[list[int]]:
    """Return bid prices, bid sizes, ask prices, ask sizes of the best levels, 0 where there is none."""
    rows: list[list[int]] = []
    for side in (1, -1):
        best = sorted((price for own, price in book if own == side and book[own, price] > 0), reverse=side > 0)[:levels]
        rows.append(best + [0] * (levels - len(best)))
        rows.append([book[side, price] for price in best] + [0] * (levels - len(best)))
    return rows


def is_crossed(book: dict[Level, int]) -> bool:
    """Whether a bid stands at or above an ask."""
    bids = [price for (side, price), size in book.items() if side > 0 and size > 0]
    asks = [price for (side, price), size in book.items() if side < 0 and size > 0]
    return bool(bids and asks) and max(bids) >= min(asks)


def messages_of_differences(rows: Columns) -> list[tuple[int, int, int, int]]:
    """Return (kind, side, price, size) of level changes without trades: what left, then what came, event by event."""
    book: dict[Level, int] = {}
    found: list[tuple[int, int, int, int]] = []
    event: list[tuple[Level, int]] = []
    for row in range(len(rows["flags"])):
        level, size, flags = (
            (int(rows["side"][row]), int(rows["price"][row])),
            int(rows["size"][row]),
            rows["flags"][row],
        )
        if flags & Flag.SNAPSHOT:
            book[level] = size
            continue
        event.append((level, size))
        if flags & Flag.LAST:
            for (side, price), size in event:
                if size < book.get((side, price), 0):
                    found.append((CANCEL, side, price, book[side, price] - size))
            for (side, price), size in event:
                if size > book.get((side, price), 0):
                    found.append((LIMIT, side, price, size - book.get((side, price), 0)))
            book |= dict(event)
            event = []
    return found
