"""How far the local clock is from the venue's: estimated in a rolling window, never used to rewrite a stamp.

Two bounds meet. A message cannot arrive before it was made, so the offset (local minus venue) is at most the least
`receive - event` of the window; and a request for the venue's time, sent at t0 and answered at t1 with time s, says
that the offset lies within [t0 - s, t1 - s].
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_WINDOW_NS = 120 * 10**9
_BUCKET_NS = 10 * 10**9
_STEP_NS = 50_000_000
"""A wall clock that leaves the monotonic one by more than this between two looks was stepped."""


class Offset(NamedTuple):
    """Local minus venue clock; the truth lies within `error_ns` of it, None where only one bound is known."""

    offset_ns: int
    error_ns: int | None


class Clock:
    """Rolling bounds of the offset."""

    def __init__(self) -> None:
        self._least: deque[tuple[int, int]] = deque()
        self._asked: deque[tuple[int, int, int]] = deque()
        self._ahead_ns: int | None = None
        self.steps = 0
        """How often the wall clock was stepped."""

    def heard(self, monotonic_ns: int, lag_ns: int) -> None:
        """Take one `receive - event`."""
        bucket = monotonic_ns // _BUCKET_NS
        if not self._least or self._least[-1][0] != bucket:
            self._least.append((bucket, lag_ns))
        elif lag_ns < self._least[-1][1]:
            self._least[-1] = (bucket, lag_ns)

    def asked(self, monotonic_ns: int, sent_ns: int, answered_ns: int, venue_ns: int) -> None:
        """Take one question for the venue's time: local wall stamps around it, and the answer."""
        low, high = sent_ns - venue_ns, answered_ns - venue_ns
        if any(low > other_high + _STEP_NS or high < other_low - _STEP_NS for _, other_low, other_high in self._asked):
            # The venue's clock was set, or runs at another speed: what was known before says nothing about now.
            self._asked.clear()
            self._least.clear()
        self._asked.append((monotonic_ns, low, high))

    def look(self, wall_ns: int, monotonic_ns: int) -> bool:
        """Compare the two local clocks; True, and a fresh start of the estimate, where the wall clock was stepped."""
        ahead_ns, before = wall_ns - monotonic_ns, self._ahead_ns
        self._ahead_ns = ahead_ns
        stepped = before is not None and abs(ahead_ns - before) > _STEP_NS
        if stepped:
            self.steps += 1
            self._least.clear()
            self._asked.clear()
        oldest = monotonic_ns - _WINDOW_NS
        while self._least and self._least[0][0] * _BUCKET_NS < oldest:
            self._least.popleft()
        while self._asked and self._asked[0][0] < oldest:
            self._asked.popleft()
        return stepped

    def offset(self) -> Offset | None:
        """Return the estimate, None while nothing is known."""
        heard = min((lag for _, lag in self._least), default=None)
        if not self._asked:
            return None if heard is None else Offset(heard, None)
        low, high = max(low for _, low, _ in self._asked), min(high for _, _, high in self._asked)
        if heard is not None and low <= heard < high:
            high = heard
        # Within two minutes clocks drift apart by less than a millisecond, but bounds of different moments may cross.
        return Offset((low + high) // 2, abs(high - low) // 2)
