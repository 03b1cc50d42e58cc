"""The best levels of the book after every event: what features of depth are computed from.

What belongs here: level changes in, ladders out, as columns of the shape that `features.depth` takes. A ladder of ten
levels is 320 bytes an event, so a long recording is fed piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit

from synth_pipeline.schema import Flag
from synth_pipeline.ticks.book import DEPTH

_LAST, _SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)


class Ladders:
    """The book as a maker of ladders: fed with rows of `schema.BOOK_LEVELS`, it remembers where it stands.

    `visible_levels` is how many levels the source shows; 0 for all of them.
    """

    def __init__(self, visible_levels: int = 0) -> None:
        self._levels = min(visible_levels or DEPTH, DEPTH)
        self._keys = np.zeros((2, 1024), np.int64)  # 0 bids, 1 asks with negated prices: both ascend to the best
        self._sizes = np.zeros((2, 1024), np.int64)
        self._counts = np.zeros(2, np.int64)
        self._before = _LAST

    def feed(self, levels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Apply rows in their stored order; return `recv_ns` and the ladder of every event that ends among them.

        `bid_price`, `bid_size`, `ask_price` and `ask_size` have shape (events, levels), best first; where a side has
        fewer levels, the rest is 0. The book is read after each row flagged LAST; a run of SNAPSHOT rows replaces it.
        """
        flags = levels["flags"]
        last = np.flatnonzero(flags & _LAST)
        out = np.zeros((4, len(last), self._levels), np.int64)
        book = (self._keys, self._sizes, self._counts)
        rows = (levels["side"], levels["price"], levels["size"], flags)
        self._keys, self._sizes = _ladders(*rows, self._before, *book, out)
        self._before = int(flags[-1]) if len(flags) else self._before
        names = ("bid_price", "bid_size", "ask_price", "ask_size")
        return {"recv_ns": levels["recv_ns"][last], **dict(zip(names, out, strict=True))}


@njit(cache=True)
def _ladders(
    side: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    flags: np.ndarray,
    before: int,
    keys: np.ndarray,
    sizes: np.ndarray,
    counts: np.ndarray,
    out: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Fill `out`, shape (4, events, levels): bid price, bid size, ask price and size; `before` flags the row before.

    Returns the keys and sizes of the book, which may have grown.
    """
    event = 0
    for row in range(side.size):
        if flags[row] & _SNAPSHOT and (not before & _SNAPSHOT or before & _LAST):
            counts[:] = 0
        before = flags[row]
        which = 0 if side[row] > 0 else 1
        if counts[which] == keys.shape[1]:
            keys, sizes = np.concatenate((keys, keys), axis=1), np.concatenate((sizes, sizes), axis=1)
        counts[which] = _set_level(keys[which], sizes[which], counts[which], price[row] * side[row], size[row])
        if flags[row] & _LAST:
            for which in range(2):
                for level in range(min(counts[which], out.shape[2])):
                    place = counts[which] - 1 - level
                    out[2 * which, event, level] = keys[which, place] * (1 - 2 * which)
                    out[2 * which + 1, event, level] = sizes[which, place]
            event += 1
    return keys, sizes


@njit(cache=True)
def _set_level(keys: np.ndarray, sizes: np.ndarray, count: int, key: int, size: int) -> int:
    """Set one level of an ascending side and return the new level count."""
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
