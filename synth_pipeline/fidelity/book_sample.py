"""`BookSample`: what the statistics of an order book see, one row a message, from plain arrays of any source.

As LOBSTER's files of N levels do, it holds the messages within the best levels only, and the book after each. Messages
that nobody sent (levels that come into sight) move the book but are no rows. Nothing here compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.series import FloatArray, IntArray

LIMIT, CANCEL, MARKET = 1, 2, 4
LEVELS = 10
"""Levels a side whose sizes are summed."""
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BookSample:
    """Messages and the book after each of them; the last message of a stretch is left out, the book after it unknown.

    Prices count ticks, sizes lots.
    """

    time_ns: IntArray
    kind: IntArray
    """`LIMIT`, `CANCEL` or `MARKET` (executed)."""
    side: IntArray
    """Of the resting order: 1 bid, -1 ask."""
    price: IntArray
    size: IntArray
    order_id: IntArray
    """0 where it is unknown."""
    level: IntArray
    """The message's level of its side, 1 the best: of placed orders in the book after, of others in the one before."""
    touch: IntArray
    """Shape (4, messages): bid price, bid size, ask price, ask size after the message; a size of 0: no such side."""
    volume: IntArray
    """Shape (2, messages): lots in the visible levels of bids and asks after the message."""
    stretch: IntArray
    """Number of the gapless stretch that a message is of."""
    levels: int
    """Levels a side that are visible, at most `LEVELS`."""

    @classmethod
    def of(
        cls,
        messages: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike],
        books: Iterable[tuple[slice, NDArray[np.int64]]],
        opens: ArrayLike,
        levels: int = LEVELS,
    ) -> Self:
        """Take columns (time_ns, kind, side, price, size, order_id) and the books before every message.

        `books` yields rows and their ladders of shape (4, rows, levels): bid price, bid size, ask price, ask size, best
        first, 0 where there is no level; `opens` are the first rows of the stretches. Raises `TooLittleDataError` when
        no message is left.
        """
        columns = [np.asarray(column).astype(np.int64) for column in messages]
        count = columns[0].size
        level, touch, volume = np.zeros(count, np.int64), np.zeros((4, count), np.int64), np.zeros((2, count), np.int64)
        for rows, ladder in books:
            seen = np.ascontiguousarray(ladder[:, :, :levels])
            _describe(seen, columns[2][rows], columns[3][rows], level[rows], touch[:, rows], volume[:, rows])
        stretch = np.searchsorted(np.asarray(opens), np.arange(count), side="right") - 1
        kept = np.flatnonzero(np.isin(columns[1], (LIMIT, CANCEL, MARKET)) & (level <= levels))
        if kept.size < 2:
            raise TooLittleDataError(f"{kept.size} messages within {levels} levels: take a longer stretch of messages")
        following = kept[1:]
        rows = kept[:-1][stretch[kept[:-1]] == stretch[following]]
        after = following[stretch[kept[:-1]] == stretch[following]]
        time_ns, kind, side, price, size, order_id = (column[rows] for column in columns)
        described = (level[rows], touch[:, after], volume[:, after], stretch[rows])
        return cls(time_ns, kind, side, price, size, order_id, *described, levels)

    def __len__(self) -> int:
        return self.time_ns.size

    def rows(self, chosen: slice | BoolArray) -> Self:
        """Return some of the messages."""
        each = (self.time_ns, self.kind, self.side, self.price, self.size, self.order_id, self.level)
        time_ns, kind, side, price, size, order_id, level = (column[chosen] for column in each)
        books = (self.touch[:, chosen], self.volume[:, chosen], self.stretch[chosen])
        return type(self)(time_ns, kind, side, price, size, order_id, level, *books, self.levels)

    @cached_property
    def has_both_sides(self) -> BoolArray:
        """Whether the book after a message has a bid and an ask."""
        return np.asarray((self.touch[1] > 0) & (self.touch[3] > 0))

    @cached_property
    def mid(self) -> FloatArray:
        """The mid price after every message in ticks, NaN where a side is empty."""
        return np.where(self.has_both_sides, (self.touch[0] + self.touch[2]) / 2, np.nan)

    @cached_property
    def follows(self) -> BoolArray:
        """Whether a message directly follows the one before it, with no gap between; shape (messages,)."""
        return np.append(False, self.stretch[1:] == self.stretch[:-1])[: len(self)]


@njit(cache=True)
def _describe(
    ladder: np.ndarray, side: np.ndarray, price: np.ndarray, level: np.ndarray, touch: np.ndarray, volume: np.ndarray
) -> None:
    """Fill the level of every message in the book before it, and the touch and the volume of that book."""
    for row in range(side.size):
        own = 0 if side[row] > 0 else 2
        level[row] = 1
        for each in range(ladder.shape[2]):
            if ladder[own + 1, row, each] > 0 and (ladder[own, row, each] - price[row]) * side[row] > 0:
                level[row] += 1
            volume[0, row] += ladder[1, row, each]
            volume[1, row] += ladder[3, row, each]
        for column in range(4):
            touch[column, row] = ladder[column, row, 0]
