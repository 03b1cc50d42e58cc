"""How fast a running flow sends each kind of order, and how large, relative to what it was fitted on.

A pace of ones is the flow as fitted, to the byte. It may change at any time: the loop of the flow then draws its next
event anew from where its clock stands, which is exact, since what waits has no memory. A pace of zeros is a flow that
sends nothing.

`side` is where an order rests or is met: `TAKES` on the bid side are market orders that sell.
"""

from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.market.compiling import kernel
from synth_pipeline.market.flows.sizes import Sizes, draw_size
from synth_pipeline.series import FloatArray, IntArray

LIMITS, TAKES, CANCELS = 0, 1, 2


class Pace(NamedTuple):
    """Factors of a running flow; whoever changes one sets `is_new`."""

    rates: FloatArray
    """Of limit orders, market orders and cancellations, by side: shape (3, 2)."""
    lots: FloatArray
    """Of the sizes of limit and market orders, by side: shape (2, 2)."""
    speed: FloatArray
    """Of the flow's own clock, and so of all its rates and of how fast its memory fades; one entry."""
    response: FloatArray
    """Of the comparisons with a fundamental price; one entry."""
    is_new: IntArray
    """Whether it changed since the loop looked last; one entry."""

    @classmethod
    def usual(cls) -> Self:
        """Return the pace of the flow as fitted."""
        return cls(np.ones((3, 2)), np.ones((2, 2)), np.ones(1), np.ones(1), np.zeros(1, dtype=np.int64))

    def change(self, other: Self) -> None:
        """Go at another pace from now on; the one that is gone at already changes nothing."""
        for own, new in zip(self[:-1], other[:-1], strict=True):
            if not np.array_equal(own, new):
                own[...] = new
                self.is_new[0] = 1


@kernel
def draw_lots(pace: Pace, kind: int, side: int, sizes: Sizes, group: int, rng: np.random.Generator) -> int:
    """Draw lots for a group at a pace, rounded to either side so that the mean is in proportion; at least one."""
    lots, factor = draw_size(sizes, group, rng), pace.lots[kind, side]
    if factor == 1.0:
        return lots
    wanted = lots * factor
    return max(int(wanted) + int(rng.random() < wanted - int(wanted)), 1)
