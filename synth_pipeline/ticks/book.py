"""The book, rebuilt from its level changes: the top after every event, the depth of the ten best levels, the whole at
the end.

A side is a sorted array whose best level stands last, so that the changes, which cluster at the touch, move few
elements. Prices may lie anywhere: nothing is windowed and nothing is re-based.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.schema import Flag

DEPTH = 10
_LAST, _SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)


class Replay(NamedTuple):
    """The book after every event (one entry each), and all levels after the last."""

    recv_ns: np.ndarray
    event_ns: np.ndarray
    seq: np.ndarray
    update_id: np.ndarray
    flags: np.ndarray
    """All marks of the event's rows."""
    top: np.ndarray
    """Shape (events, 4): bid price, bid size, ask price, ask size; a size of 0 means that the side is empty."""
    depth: np.ndarray
    """Shape (events, 2): lots in the ten best bid and ask levels."""
    bids: np.ndarray
    """Shape (levels, 2): price and size at the end, best last."""
    asks: np.ndarray
    """Shape (levels, 2): price and size at the end, best last."""

    @property
    def crossed(self) -> int:
        """How many events left the best bid at or above the best ask."""
        bid, bid_size, ask, ask_size = self.top.T
        return int(((bid >= ask) & (bid_size > 0) & (ask_size > 0)).sum())


class Book:
    """A book that is fed with rows of `schema.BOOK_LEVELS`, piece by piece, and remembers where it stands."""

    def __init__(self) -> None:
        self._books = np.zeros((2, 1024, 2), np.int64)  # 0 bids, 1 asks with negated prices: both ascend to the best
        self._counts = np.zeros(2, np.int64)
        self._before = _LAST
        self._open_flags = 0

    @property
    def bids(self) -> np.ndarray:
        """Shape (levels, 2): price and size as they stand, best last."""
        return self._books[0, : self._counts[0]].copy()

    @property
    def asks(self) -> np.ndarray:
        """Shape (levels, 2): price and size as they stand, best last."""
        return np.multiply(self._books[1, : self._counts[1]], [-1, 1])

    def feed(self, levels: Mapping[str, np.ndarray]) -> Replay:
        """Apply rows in their stored order and return the events that end among them.

        A run of SNAPSHOT rows replaces the book; the book is read after each row flagged LAST.
        """
        flags = levels["flags"]
        last = np.flatnonzero(flags & _LAST)
        self._books, top, depth = _replay(
            levels["side"], levels["price"], levels["size"], flags, len(last), self._books, self._counts, self._before
        )
        recv_ns, event_ns, seq, update_id = (levels[name][last] for name in ("recv_ns", "event_ns", "seq", "update_id"))
        return Replay(
            recv_ns, event_ns, seq, update_id, self._flags_of_events(flags, last), top, depth, self.bids, self.asks
        )

    def _flags_of_events(self, flags: np.ndarray, last: np.ndarray) -> np.ndarray:
        """All marks of each event's rows; an event may have begun in the piece before and end in the next."""
        if len(flags):
            self._before = int(flags[-1])
        found = np.empty(0, np.uint8)
        tail = flags
        if len(last):
            found = np.bitwise_or.reduceat(flags[: last[-1] + 1], np.concatenate(([0], last[:-1] + 1)))
            found[0] |= self._open_flags
            self._open_flags, tail = 0, flags[last[-1] + 1 :]
        self._open_flags |= int(np.bitwise_or.reduce(tail, initial=0))
        return found


def replay(levels: Mapping[str, np.ndarray]) -> Replay:
    """Rebuild the book from all rows of `schema.BOOK_LEVELS` at once."""
    return Book().feed(levels)


@njit(cache=True)
def _replay(
    side: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    flags: np.ndarray,
    events: int,
    books: np.ndarray,
    counts: np.ndarray,
    before: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the book, which may have grown, and top and depth of every event; `before` are the flags of the row before
    the first."""
    top, depth = np.zeros((events, 4), np.int64), np.zeros((events, 2), np.int64)
    event = 0
    for row in range(len(side)):
        if flags[row] & _SNAPSHOT and (not before & _SNAPSHOT or before & _LAST):
            counts[:] = 0
        before = flags[row]
        which = 0 if side[row] > 0 else 1
        if counts[which] == books.shape[1]:
            larger = np.zeros((2, 2 * books.shape[1], 2), np.int64)
            larger[:, : books.shape[1]] = books
            books = larger
        counts[which] = _apply(books[which], counts[which], price[row] * side[row], size[row])
        if flags[row] & _LAST:
            for which in range(2):
                count = counts[which]
                sign = 1 - 2 * which
                if count:
                    top[event, 2 * which] = sign * books[which, count - 1, 0]
                    top[event, 2 * which + 1] = books[which, count - 1, 1]
                for level in range(max(0, count - DEPTH), count):
                    depth[event, which] += books[which, level, 1]
            event += 1
    return books, top, depth


@njit(cache=True)
def _apply(book: np.ndarray, count: int, key: int, size: int) -> int:
    """Set one level of an ascending side and return the new level count."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if book[middle, 0] < key:
            low = middle + 1
        else:
            high = middle
    if low < count and book[low, 0] == key:
        if size > 0:
            book[low, 1] = size
            return count
        for level in range(low, count - 1):
            book[level, 0], book[level, 1] = book[level + 1, 0], book[level + 1, 1]
        return count - 1
    if size == 0:
        return count
    for level in range(count, low, -1):
        book[level, 0], book[level, 1] = book[level - 1, 0], book[level - 1, 1]
    book[low, 0], book[low, 1] = key, size
    return count + 1


def depth_of(book: Replay, visible_levels: int) -> dict[str, np.ndarray]:
    """Return the lots in the ten best levels after every event; not known where the source shows fewer than ten."""
    return {
        "recv_ns": book.recv_ns,
        "bid_size_10": book.depth[:, 0].copy(),
        "ask_size_10": book.depth[:, 1].copy(),
        "known": np.full(len(book.recv_ns), visible_levels == 0 or visible_levels >= DEPTH),
    }


def quotes_of(book: Replay, top_before: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the top as rows of `schema.QUOTES`, for recordings without quotes: its changes, and every full book.

    A full book says what the top is even when that equals the last one known, which a gap may lie behind. `top_before`
    is the top after the event before the first, None when there was none.
    """
    before = np.concatenate(([[-1] * 4] if top_before is None else top_before[None], book.top))
    rows = np.flatnonzero((before[1:] != before[:-1]).any(axis=1) | ((book.flags & _SNAPSHOT) > 0))
    return {
        "recv_ns": book.recv_ns[rows],
        "event_ns": book.event_ns[rows],
        "seq": book.seq[rows],
        "update_id": book.update_id[rows],
        "bid_price": book.top[rows, 0],
        "bid_size": book.top[rows, 1],
        "ask_price": book.top[rows, 2],
        "ask_size": book.top[rows, 3],
        "flags": book.flags[rows],
    }
