"""The book, rebuilt from its level changes: the best levels of both sides after every event, the whole at the end.

A side is a window of 65,536 neighbouring prices that lies around its best one and slides with it: the size of each in
one array, a bit for each that has a size in another, so that a change is two writes and the next best level the next
bit. The few levels below the window stand in a sorted list; none stands above it. So prices may lie anywhere, and
memory follows the number of levels, not their prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np
from numba import njit
from numba.cpython.unsafe import numbers

from synth_pipeline.schema import Flag

DEPTH = 10
_LAST, _SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)
_PRICES = 1 << 16
_WORDS = _PRICES // 64
_BELOW = 3 * _PRICES // 4
"""Prices of the window below the best one when it is laid around it; the rest is for the touch to rise."""
_LEAST_BELOW = _PRICES // 4
"""With fewer prices below the best one the window is laid anew, if there are levels below it."""
_NONE = -(2**63)
_LOWEST = -(2**62)
"""Keys below this never lie in a window, whose base could not be written."""
_leading_zeros = cast(Callable[[np.uint64], int], numbers.leading_zeros)


class _Sides(NamedTuple):
    """Both sides, a row each: 0 bids, 1 asks with negated prices, so that both ascend to the best."""

    sizes: np.ndarray
    """Shape (2, prices): the size at key k in place k mod prices, where it is marked."""
    marks: np.ndarray
    """Shape (2, prices / 64): bit k mod 64 of word k / 64 says that there is a level at key k."""
    base: np.ndarray
    """The lowest key of the window, a multiple of 64."""
    best: np.ndarray
    """The highest key of a level in the window."""
    far: np.ndarray
    """Shape (2, 2, room): keys below the window, ascending, and their sizes."""
    far_count: np.ndarray
    """How many these are."""


class Replay(NamedTuple):
    """The book after every event (one entry each), and all levels after the last."""

    rows: Mapping[str, np.ndarray]
    """The level changes themselves."""
    last: np.ndarray
    """The number of each event's last row."""
    flags: np.ndarray
    """All marks of each event's rows."""
    ladder: np.ndarray
    """Shape (4, events, levels): bid price, bid size, ask price and ask size, best level first; where a side has fewer
    levels, the rest is 0."""
    bids: np.ndarray
    """Shape (levels, 2): price and size at the end, best last."""
    asks: np.ndarray
    """Shape (levels, 2): price and size at the end, best last."""

    @property
    def recv_ns(self) -> np.ndarray:
        """When each event was received."""
        times: np.ndarray = self.rows["recv_ns"][self.last]
        return times

    @property
    def update_id(self) -> np.ndarray:
        """The venue's id of each event."""
        ids: np.ndarray = self.rows["update_id"][self.last]
        return ids

    @property
    def top(self) -> np.ndarray:
        """Shape (events, 4): bid price, bid size, ask price, ask size; a size of 0 means that the side is empty."""
        return self.ladder[:, :, 0].T

    @property
    def depth(self) -> np.ndarray:
        """Shape (events, 2): lots in the levels of the ladder, bids and asks."""
        lots: np.ndarray = self.ladder[1::2].sum(axis=2).T
        return lots

    @property
    def crossed(self) -> int:
        """How many events left the best bid at or above the best ask."""
        bid, bid_size, ask, ask_size = self.ladder[:, :, 0]
        return int(((bid >= ask) & (bid_size > 0) & (ask_size > 0)).sum())


class Book:
    """A book that is fed with rows of `schema.BOOK_LEVELS`, piece by piece, and remembers where it stands."""

    def __init__(self) -> None:
        sizes, marks = np.zeros((2, _PRICES), np.int64), np.zeros((2, _WORDS), np.uint64)
        base, best, count = np.zeros(2, np.int64), np.full(2, _NONE), np.zeros(2, np.int64)
        self._sides = _Sides(sizes, marks, base, best, np.empty((2, 2, 0), np.int64), count)
        self._run = np.array([_LAST, 0])

    @property
    def bids(self) -> np.ndarray:
        """Shape (levels, 2): price and size as they stand, best last."""
        return self._side(0)

    @property
    def asks(self) -> np.ndarray:
        """Shape (levels, 2): price and size as they stand, best last."""
        return self._side(1) * [-1, 1]

    def _side(self, which: int) -> np.ndarray:
        sizes, marks, base, _, far, count = (each[which] for each in self._sides)
        words = np.flatnonzero(marks)
        bits = np.unpackbits(marks[words].view(np.uint8), bitorder="little").reshape(-1, 64)
        places = np.add.outer(64 * words, np.arange(64))[bits > 0]
        keys = base + (places - base) % _PRICES
        near = np.stack((keys, sizes[places]), axis=1)[np.argsort(keys)]
        return np.concatenate((far[:, :count].T, near))

    def feed(self, levels: Mapping[str, np.ndarray], depth: int = 1) -> Replay:
        """Apply rows in their stored order; return the events that end among them, with so many of the best levels.

        A run of SNAPSHOT rows replaces the book; the book is read after each row flagged LAST.
        """
        self._make_room(len(levels["flags"]))
        events = np.count_nonzero(levels["flags"] & _LAST)
        last, flags = np.empty(events, np.int64), np.empty(events, np.uint8)
        ladder = np.zeros((4, events, depth), np.int64)
        rows = (levels["side"], levels["price"], levels["size"], levels["flags"])
        _replay(*rows, self._sides, self._run, last, flags, ladder)
        return Replay(levels, last, flags, ladder, self.bids, self.asks)

    def _make_room(self, rows: int) -> None:
        """Let all levels fit below the window, even if each row adds one; room that is not used takes no memory."""
        far, most = self._sides.far, int(self._sides.far_count.max())
        if most + _PRICES + rows > far.shape[2]:
            larger = np.empty((2, 2, 2 * most + _PRICES + rows), np.int64)
            larger[:, :, :most] = far[:, :, :most]
            self._sides = self._sides._replace(far=larger)


def replay(levels: Mapping[str, np.ndarray]) -> Replay:
    """Rebuild the book from all rows of `schema.BOOK_LEVELS` at once, with ladders of ten levels."""
    return Book().feed(levels, DEPTH)


@njit(cache=True)
def _replay(
    side: np.ndarray, price: np.ndarray, size: np.ndarray, flags: np.ndarray,
    sides: _Sides, run: np.ndarray, last: np.ndarray, flags_of_events: np.ndarray, ladder: np.ndarray,
) -> None:  # fmt: skip
    """Fill row number, flags and ladder of every event; `run` holds the flags of the row before and those of the open
    event."""
    sizes, marks, base, best, far, far_count = sides
    event, before, of_event = 0, run[0], run[1]
    for row in range(side.size):
        here = np.int64(flags[row])
        if here & _SNAPSHOT and (not before & _SNAPSHOT or before & _LAST):
            marks[:], best[:], far_count[:] = 0, _NONE, 0
        before = here
        of_event |= here
        which = np.uint64(side[row] <= 0)
        key = price[row] * side[row]
        if np.uint64(key - base[which]) >= np.uint64(_PRICES) and size[row] > 0:
            _make_way(sides, which, key)
        if np.uint64(key - base[which]) < np.uint64(_PRICES):
            # Without a branch on the size, which nobody could predict.
            word, bit = np.uint64(key >> 6) & np.uint64(_WORDS - 1), np.uint64(key) & np.uint64(63)
            sizes[which, np.uint64(key) & np.uint64(_PRICES - 1)] = size[row]
            marks[which, word] = marks[which, word] & ~(np.uint64(1) << bit) | np.uint64(size[row] > 0) << bit
            if key >= best[which]:
                best[which] = _highest(marks, which, key, base[which])
        elif key < base[which]:
            far_count[which] = _set_far(far[which, 0], far[which, 1], far_count[which], key, size[row])
        if here & _LAST:
            for each in range(2):
                which = np.uint64(each)
                if best[which] < base[which] + _LEAST_BELOW and far_count[which] > 0:
                    _lay(sides, which, max(best[which], far[which, 0, far_count[which] - 1]))
                _read(sides, which, ladder, event)
            last[event], flags_of_events[event], of_event = row, of_event, np.int64(0)
            event += 1
    run[0], run[1] = before, of_event


@njit(cache=True)
def _highest(marks: np.ndarray, which: np.uint64, key: int, base: int) -> int:
    """Return the highest key with a level from `base` up to `key`, `_NONE` when there is none."""
    word, first = key >> 6, base >> 6
    if word < first:
        return _NONE
    found = marks[which, np.uint64(word) & np.uint64(_WORDS - 1)] & (~np.uint64(0) >> np.uint64(63 - (key & 63)))
    while found == 0 and word > first:
        word -= 1
        found = marks[which, np.uint64(word) & np.uint64(_WORDS - 1)]
    return _NONE if found == 0 else (word << 6) + 63 - int(_leading_zeros(found))


@njit(cache=True)
def _make_way(sides: _Sides, which: np.uint64, key: int) -> None:
    """Lay the window around a level that comes and is the best or the first of its side; others stay below it."""
    if key > sides.base[which] or (sides.best[which] == _NONE and sides.far_count[which] == 0):
        _lay(sides, which, key)


@njit(cache=True)
def _lay(sides: _Sides, which: np.uint64, around: int) -> None:
    """Lay the window around the best key; levels that leave it at the bottom become far ones, and the other way."""
    sizes, marks, base, best, far, far_count = sides
    old = base[which]
    base[which] = (max(around, _LOWEST) - _BELOW) & ~63
    for word in range(old >> 6, min(base[which], old + _PRICES) >> 6):
        place = word & (_WORDS - 1)
        while marks[which, place]:
            lowest = marks[which, place] & (~marks[which, place] + np.uint64(1))
            key = (word << 6) + 63 - int(_leading_zeros(lowest))
            far[which, 0, far_count[which]], far[which, 1, far_count[which]] = key, sizes[which, key & (_PRICES - 1)]
            far_count[which] += 1
            marks[which, place] ^= lowest
    if best[which] < base[which]:
        best[which] = _NONE
    while far_count[which] > 0 and far[which, 0, far_count[which] - 1] >= base[which]:
        far_count[which] -= 1
        key = far[which, 0, far_count[which]]
        sizes[which, key & (_PRICES - 1)] = far[which, 1, far_count[which]]
        marks[which, (key >> 6) & (_WORDS - 1)] |= np.uint64(1) << np.uint64(key & 63)
        best[which] = max(best[which], key)


@njit(cache=True)
def _set_far(keys: np.ndarray, sizes: np.ndarray, count: int, key: int, size: int) -> int:
    """Set one level below the window and return their new count."""
    place = np.searchsorted(keys[:count], key)
    is_known = place < count and keys[place] == key
    if size > 0 and not is_known:
        for level in range(count, place, -1):
            keys[level], sizes[level] = keys[level - 1], sizes[level - 1]
        count += 1
    if size > 0:
        keys[place], sizes[place] = key, size
    elif is_known:
        for level in range(place, count - 1):
            keys[level], sizes[level] = keys[level + 1], sizes[level + 1]
        count -= 1
    return count


@njit(cache=True)
def _read(sides: _Sides, which: np.uint64, ladder: np.ndarray, event: int) -> None:
    """Fill price and size of the best levels of one side."""
    sizes, marks, base, best, far, far_count = sides
    price, sign = 2 * which, 1 - 2 * np.int64(which)
    key, place = best[which], far_count[which] - 1
    for level in range(ladder.shape[2]):
        if key != _NONE:
            ladder[price, event, level] = key * sign
            ladder[price + 1, event, level] = sizes[which, np.uint64(key) & np.uint64(_PRICES - 1)]
            key = _highest(marks, which, key - 1, base[which]) if level + 1 < ladder.shape[2] else _NONE
        elif place >= 0:
            ladder[price, event, level] = far[which, 0, place] * sign
            ladder[price + 1, event, level] = far[which, 1, place]
            place -= 1


def ladder_of(book: Replay, visible_levels: int) -> dict[str, np.ndarray]:
    """Return the ladders as `features.depth` takes them; where the source shows fewer levels, so many.

    `visible_levels` is how many levels a side the source shows; 0 for all of them.
    """
    sides = book.ladder[:, :, : visible_levels or None]
    return {"recv_ns": book.recv_ns} | dict(zip(("bid_price", "bid_size", "ask_price", "ask_size"), sides, strict=True))


def depth_of(book: Replay, visible_levels: int) -> dict[str, np.ndarray]:
    """Return the lots in the ten best levels after every event; not known where the source shows fewer than ten."""
    bids, asks = book.depth.T
    known = np.full(len(bids), visible_levels == 0 or visible_levels >= DEPTH)
    return {"recv_ns": book.recv_ns, "bid_size_10": bids, "ask_size_10": asks, "known": known}


def quotes_of(book: Replay, top_before: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the top as rows of `schema.QUOTES`, for recordings without quotes: its changes, and every full book.

    A full book says what the top is even when that equals the last one known, which a gap may lie behind. `top_before`
    is the top after the event before the first, None when there was none.
    """
    before = np.concatenate(([[-1] * 4] if top_before is None else top_before[None], book.top))
    found = np.flatnonzero((before[1:] != before[:-1]).any(axis=1) | ((book.flags & _SNAPSHOT) > 0))
    shared = {name: book.rows[name][book.last[found]] for name in ("recv_ns", "event_ns", "seq", "update_id")}
    top = dict(zip(("bid_price", "bid_size", "ask_price", "ask_size"), book.ladder[:, found, 0], strict=True))
    return shared | top | {"flags": book.flags[found]}
