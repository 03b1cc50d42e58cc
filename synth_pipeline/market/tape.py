"""The tape: when what the journal holds happened, in one form for every order flow.

An order flow sends orders and writes an event after each that changed the book; a reader takes the rows of journal and
tape out and rewinds both. Here belongs nothing that decides or that publishes.
"""

from typing import NamedTuple, Protocol

import numpy as np

from synth_pipeline.market.book import ASK, BID, Book, Journal, new_journal, records, resting
from synth_pipeline.market.compiling import kernel

_CAPACITY = 2**15

EVENT = np.dtype(
    [
        (name, np.int64)
        for name in ("time_ns", "level_rows", "trade_rows", "event_rows", "bid", "bid_lots", "ask", "ask_lots")
    ]
)
"""Something that changed the book: when, how far the three lists of the journal reach with it, the touch after it."""
CLOCK = np.dtype([(name, np.int64) for name in ("now_ns", "step_end_ns", "events")])
"""Now, when the step ends over which a flow holds its rates, events on the tape."""


class Market(NamedTuple):
    """A book in time, as every order flow has it."""

    book: Book
    journal: Journal
    tape: np.recarray
    """`EVENT` rows."""
    clock: np.recarray
    """One `CLOCK`."""


class Taped(Protocol):
    """Whatever holds what a `Market` holds: a flow may keep its own state behind it."""

    @property
    def book(self) -> Book:
        """As a `Market`'s."""

    @property
    def journal(self) -> Journal:
        """As a `Market`'s."""

    @property
    def tape(self) -> np.recarray:
        """As a `Market`'s."""

    @property
    def clock(self) -> np.recarray:
        """As a `Market`'s."""


def new_tape(book: Book, start_ns: int, *, capacity: int = _CAPACITY) -> Market:
    """Return a market at a time, its tape of at most `capacity` events empty, its journal twice as long."""
    market = Market(book, new_journal(2 * capacity), records(capacity, EVENT), records(1, CLOCK))
    market.clock.now_ns[0] = market.clock.step_end_ns[0] = start_ns
    return market


@kernel
def record(market: Taped, now_ns: int) -> None:
    """Write an event: all that the journal took in since the last one happened now."""
    event, rows, sides = market.tape[market.clock[0].events], market.journal.rows[0], market.book.sides
    event.time_ns = now_ns
    event.level_rows, event.trade_rows, event.event_rows = rows.levels, rows.trades, rows.events
    event.bid, event.ask = sides[BID].best, sides[ASK].best
    event.bid_lots = resting(market.book, BID, event.bid)
    event.ask_lots = resting(market.book, ASK, event.ask)
    market.clock[0].events += 1


@kernel
def rewind(market: Taped) -> None:
    """Empty the tape and the journal once they are read."""
    rows = market.journal.rows[0]
    rows.levels = rows.trades = rows.events = market.clock[0].events = 0


@kernel
def has_room(market: Taped, needed: int) -> bool:
    """Tell whether so many rows still fit each list of the journal, and so many events the tape.

    What icebergs and hidden orders may add, which only outsiders send, is counted in.
    """
    rows, sides = market.journal.rows[0], market.book.sides
    needed += sides[2].orders + sides[3].orders + 2 * (sides[0].refreshes + sides[1].refreshes)
    used = max(rows.levels, rows.trades, rows.events)
    return bool(used + needed <= market.journal.levels.size and market.clock[0].events + needed <= market.tape.size)
