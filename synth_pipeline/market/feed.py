"""Market data of a session: what the exchange has published, and the book as each participant sees it by now.

An event of the tape is one packet: displayed levels that changed and trades. Packets of one time arrive together, each
participant's after the latency of its feed, and in order. Here belongs nothing that a participant does.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.market.book import ASK, BID, NO_ASK, NO_BID, Book, depth, level_bit, new_book, next_occupied
from synth_pipeline.market.compiling import kernel, njit
from synth_pipeline.market.flows import Run
from synth_pipeline.market.latency import Law, Link, next_arrival_ns
from synth_pipeline.market.tape import Market
from synth_pipeline.series import IntArray

PUBLIC_TRADE = np.dtype([(name, np.int64) for name in ("time_ns", "price", "lots", "taker_side")])
"""A trade as everybody sees it."""
_TIME, _LEVELS, _TRADES, _OUT = range(4)
"""Columns of packets: when, up to which level and trade they reach, when they get out of the exchange."""
_CURSOR, _TRADE, _SEEN, _SENT, _ARRIVAL = range(5)
"""A view's state: packets and trades it has, when what it shows was sent; when the last packet under way was sent, and
when that arrives."""
_NONE = -(2**62)


class Feed:
    """Packets that some participant has not received yet."""

    def __init__(self) -> None:
        self.packets = np.empty((0, 4), np.int64)
        self.levels = np.empty((0, 3), np.int64)
        """Rows (side, price, displayed lots)."""
        self.trades = np.empty(0, PUBLIC_TRADE)

    def publish(self, run: Run) -> None:
        """Append what the tape of a run holds."""
        market = run.market
        events, rows = int(market.clock.view(np.ndarray)["events"][0]), market.journal.rows.view(np.ndarray)[0]
        if events == 0:
            return
        tape = market.tape.view(np.ndarray)[:events]
        times = tape["time_ns"].copy()
        reach = (tape["level_rows"] + len(self.levels), tape["trade_rows"] + len(self.trades))
        changes = market.journal.levels.view(np.ndarray)[: rows["levels"]]
        done = market.journal.trades.view(np.ndarray)[: rows["trades"]]
        trades = np.empty(done.size, PUBLIC_TRADE)
        trades["time_ns"] = np.repeat(times, np.diff(tape["trade_rows"], prepend=0))
        for name in ("price", "lots", "taker_side"):
            trades[name] = done[name]
        levels = np.column_stack([changes[name] for name in ("side", "price", "after")])
        self.packets = np.concatenate((self.packets, np.column_stack((times, *reach, run.published_ns(times)))))
        self.levels = np.concatenate((self.levels, levels))
        self.trades = np.concatenate((self.trades, trades))

    def forget(self, views: list[View]) -> None:
        """Drop the packets that all have received."""
        gone = min((view.received for view in views), default=len(self.packets))
        if gone == 0:
            return
        levels, trades = int(self.packets[gone - 1, _LEVELS]), int(self.packets[gone - 1, _TRADES])
        # Copies: a slice would keep what is dropped in memory.
        self.packets = self.packets[gone:] - np.array([0, levels, trades, 0])
        self.levels, self.trades = self.levels[levels:].copy(), self.trades[trades:].copy()
        for view in views:
            view.forget(gone, trades)


class View:
    """The displayed book as one participant knows it; it begins with the book as it is."""

    def __init__(self, market: Market, feed: Feed, link: Link, now_ns: int) -> None:
        self._link = link
        width = market.book.levels.shape[1]
        self._book = new_book(width, levels=width, pool=2)
        self._state = np.array([len(feed.packets), len(feed.trades), now_ns, _NONE, _NONE])
        for side in (BID, ASK):
            prices, lots = depth(market.book, side, width)
            levels = np.column_stack((np.full(prices.size, side), prices, lots))
            _show(self._book, levels, 0, len(levels))

    @property
    def received(self) -> int:
        """How many packets of the feed it has."""
        return int(self._state[_CURSOR])

    @property
    def seen_ns(self) -> int:
        """When the exchange published what it shows."""
        return int(self._state[_SEEN])

    def receive(self, feed: Feed, until_ns: int) -> np.ndarray:
        """Take the packets that arrive up to a time; returns their trades, rows of `PUBLIC_TRADE`."""
        first, link = int(self._state[_TRADE]), self._link
        _receive(self._book, self._state, feed.packets, feed.levels, link.law, link.last_ns, until_ns, link.rng)
        return feed.trades[first : self._state[_TRADE]]

    def forget(self, packets: int, trades: int) -> None:
        """Count anew after the feed has dropped its first packets and trades."""
        self._state[_CURSOR] -= packets
        self._state[_TRADE] -= trades

    def depth(self, side: int, levels: int) -> IntArray:
        """Return the best levels of a side, rows (price, lots), best first; fewer when the side has fewer."""
        return np.column_stack(depth(self._book, side, levels))

    def touch(self) -> tuple[int, int]:
        """Return the best bid and ask, `NO_BID` and `NO_ASK` where there is none."""
        best = self._book.sides.view(np.ndarray)["best"]
        return int(best[BID]), int(best[ASK])


@njit(cache=True)
def _receive(
    book: Book, state: IntArray, packets: IntArray, levels: IntArray, law: Law, last_ns: IntArray, until_ns: int,
    rng: np.random.Generator | None,
) -> None:  # fmt: skip
    """Show packets up to a time; the arrival of the next is drawn once and waits, so asking often changes nothing."""
    while state[_CURSOR] < len(packets):
        at = state[_CURSOR]
        if packets[at, _TIME] != state[_SENT]:
            state[_SENT] = packets[at, _TIME]
            state[_ARRIVAL] = next_arrival_ns(law, last_ns, packets[at, _OUT], rng)
        if state[_ARRIVAL] > until_ns:
            return
        _show(book, levels, packets[at - 1, _LEVELS] if at > 0 else 0, packets[at, _LEVELS])
        state[_SEEN], state[_TRADE] = packets[at, _TIME], packets[at, _TRADES]
        state[_CURSOR] = at + 1


@kernel
def _show(book: Book, levels: IntArray, first: int, last: int) -> None:
    """Set displayed levels to what a part of the feed says."""
    mask = book.levels.shape[1] - 1
    for row in range(first, last):
        side, price, lots = levels[row, 0], levels[row, 1], levels[row, 2]
        own, level, bit = book.sides[side], book.levels[side, price & mask], level_bit(side, price) & mask
        own.lots += lots - level.lots
        level.lots = lots
        if lots > 0:
            book.occupied[side, bit >> 6] |= 1 << (bit & 63)
            if (price > own.best) if side == BID else (price < own.best):
                own.best = price
            continue
        book.occupied[side, bit >> 6] &= ~(1 << (bit & 63))
        if own.lots == 0:
            own.best = NO_BID if side == BID else NO_ASK
        elif price == own.best:
            own.best = next_occupied(book, side, price)
