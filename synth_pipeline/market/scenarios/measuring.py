"""What a market goes through: its touch and depth looked at in steps, and how it falls and recovers.

A look takes the best prices and the lots displayed in the best levels. `resilience` compares a stretch with the time
before it: Kyle (1985) calls the speed with which prices and depth come back the resiliency of a market; measured after
large orders as in Degryse, de Jong, van Ravenswaaij and Wuyts (2005), Review of Finance 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.book import ASK, BID, depth
from synth_pipeline.market.flows import Run
from synth_pipeline.market.tape import rewind
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray

_BACK = 0.9


@dataclass(frozen=True)
class Looks:
    """A market at equally distant times."""

    time_ns: IntArray
    bid: IntArray
    """Ticks."""
    ask: IntArray
    bid_lots: IntArray
    """Displayed in the best levels."""
    ask_lots: IntArray

    @property
    def mid(self) -> FloatArray:
        """Ticks."""
        return np.asarray(0.5 * (self.bid + self.ask), dtype=np.float64)

    @property
    def spread(self) -> IntArray:
        """Ticks."""
        return self.ask - self.bid


@dataclass(frozen=True)
class Resilience:
    """How a market takes a stretch in which something happens; shares are of what was usual before it."""

    drawdown: float
    """Largest fall of the mid from its highest value since the stretch began, as a share of that."""
    low_s: float
    """Seconds from the beginning to the lowest mid of that fall."""
    taken_back: float
    """Share of the fall that the mid has taken back by the last look."""
    half_back_s: float
    """Seconds from the lowest mid until half of the fall was taken back; NaN where it was not."""
    least_depth: float
    """Smallest share of the usual depth, both sides together."""
    depth_back_s: float
    """Seconds from the end of the stretch until 90 % of the usual depth stand again; NaN where they do not."""
    widest_spread: float
    """Largest multiple of the usual spread."""


def look(run: Run, until_ns: int, step_ns: int, *, levels: int = 10) -> Looks:
    """Run up to a time and look at the book at the end of every step; what the tape holds is dropped."""
    rows = []
    for now_ns in range(run.now_ns + step_ns, until_ns + 1, step_ns):
        while not run.advance(now_ns):
            rewind(run.market)
        rewind(run.market)
        sides = run.market.book.sides
        lots = [int(depth(run.market.book, side, levels)[1].sum()) for side in (BID, ASK)]
        rows.append((now_ns, sides.best[BID], sides.best[ASK], *lots))
    return Looks(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)


def resilience(looks: Looks, start_ns: int, end_ns: int) -> Resilience:
    """Return how the market took the stretch [start, end) ns.

    Raises `InputError` where nothing was looked at before it or from it on.
    """
    before, since = looks.time_ns <= start_ns, looks.time_ns > start_ns
    if not before.any() or not since.any():
        raise InputError(f"{start_ns} ns has no looks before or after it: look from earlier on and for longer")
    mid, lots = looks.mid[since], (looks.bid_lots + looks.ask_lots).astype(np.float64)
    seconds = (looks.time_ns[since] - start_ns) / NS_PER_SECOND
    falls = np.maximum.accumulate(mid) - mid
    low = int(falls.argmax())
    share = lots[since] / np.median(lots[before])
    fallen, back = falls[low], mid[low:] - mid[low]
    ended = (end_ns - start_ns) / NS_PER_SECOND
    return Resilience(
        drawdown=float(fallen / mid[: low + 1].max()),
        low_s=float(seconds[low]),
        taken_back=float(back[-1] / fallen) if fallen else nan,
        half_back_s=_first(seconds[low:], back >= 0.5 * fallen) - float(seconds[low]),
        least_depth=float(share.min()),
        depth_back_s=_first(seconds, (share >= _BACK) & (seconds >= ended)) - ended,
        widest_spread=float(looks.spread[since].max() / np.median(looks.spread[before])),
    )


def _first(seconds: FloatArray, holds: np.ndarray) -> float:
    """Return the first time at which something holds; NaN where it never does."""
    return float(seconds[holds.argmax()]) if holds.any() else nan
