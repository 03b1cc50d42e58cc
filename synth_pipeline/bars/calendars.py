"""Which bars are missing: gaps, told apart from the hours in which a market is closed.

A market's closed hours are learnt from the bars: times of the week (slots of one bar) at which, over four weeks or
more, there is never or hardly ever a bar. Missing bars at other times are gaps. Bars are never invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.bars.timeframe import MONDAY_NS, WEEK_NS, Timeframe
from synth_pipeline.schema import NS_PER_DAY

_WEEKS = 4
_RARE = 0.05
"""A slot seen less than this share as often as the most frequent one is closed: a special session opens no weekend."""
_MOST_SLOTS = WEEK_NS // 10**10
"""Bars of ten seconds; finer ones would need more weeks than files hold."""


class Gap(NamedTuple):
    """Missing bars in [start, end)."""

    start_ns: int
    end_ns: int
    missing: int


@dataclass(frozen=True)
class Calendar:
    """When bars of one timeframe are expected."""

    timeframe: Timeframe
    phase_ns: int = 0
    """Open times modulo the timeframe."""
    open_slots: tuple[bool, ...] | None = None
    """By slot of the week from Monday 00:00 + phase; None where every bar is expected."""

    @classmethod
    def learn(cls, opens: np.ndarray, timeframe: Timeframe) -> Self:
        """Learn from sorted, distinct open times."""
        if not timeframe.fixed or not len(opens):
            return cls(timeframe)
        step = timeframe.ns
        phases, counts = np.unique(opens % step, return_counts=True)
        phase = int(phases[counts.argmax()])
        if WEEK_NS % step or WEEK_NS // step > _MOST_SLOTS or step == WEEK_NS:
            return cls(timeframe, phase)
        # Half a bar of tolerance: sessions that start by local time move by an hour against UTC.
        seen = np.bincount((opens - phase - MONDAY_NS + step // 2) % WEEK_NS // step, minlength=WEEK_NS // step)
        often = int(seen.max())
        if often < _WEEKS or (seen >= _RARE * often).all():
            return cls(timeframe, phase)
        return cls(timeframe, phase, tuple((seen >= _RARE * often).tolist()))

    @cached_property
    def _passed(self) -> np.ndarray:
        """Expected slots before each slot of the week."""
        slots = np.asarray(self.open_slots if self.open_slots is not None else (True,), dtype=np.int64)
        return np.concatenate([[0], np.cumsum(slots)])

    def expected(self, start_ns: np.ndarray, end_ns: np.ndarray) -> np.ndarray:
        """Return how many bars should open in each [start, end)."""
        if not self.timeframe.fixed:
            return np.asarray(self._month(end_ns) - self._month(start_ns))
        return np.asarray(self._count(end_ns) - self._count(start_ns))

    def _month(self, times: np.ndarray) -> np.ndarray:
        """Number of month buckets that begin before each time."""
        months = (times - 1).astype("M8[ns]").astype("M8[M]").astype(np.int64)
        return months // self.timeframe.count

    def _count(self, times: np.ndarray) -> np.ndarray:
        """Expected opens before each time, from a far Monday on."""
        slots = -((self.phase_ns + MONDAY_NS - times) // self.timeframe.ns)
        weeks, rest = np.divmod(slots, len(self._passed) - 1)
        return np.asarray(weeks * self._passed[-1] + self._passed[rest])

    def is_open(self, times: np.ndarray) -> np.ndarray:
        """Return whether bars are expected to open at these times, or half a bar off."""
        if self.open_slots is None:
            return np.ones(len(times), dtype=np.bool_)
        step = self.timeframe.ns
        slots = (times - self.phase_ns - MONDAY_NS + step // 2) // step
        return np.asarray(np.asarray(self.open_slots)[slots % len(self.open_slots)])

    def following(self, last_ns: int, numbers: np.ndarray) -> np.ndarray:
        """Return when the bars expected after the one that opened at `last_ns` open; number 0 is the next one."""
        if not self.timeframe.fixed:
            month = np.datetime64(last_ns, "ns").astype("M8[M]")
            into = last_ns - int(month.astype("M8[ns]").astype(np.int64))
            return np.asarray((month + (numbers + 1) * self.timeframe.count).astype("M8[ns]").astype(np.int64) + into)
        step = self.timeframe.ns
        slots = np.flatnonzero(self.open_slots) if self.open_slots is not None else np.zeros(1, dtype=np.int64)
        length = len(self._passed) - 1
        last = (last_ns - self.phase_ns - MONDAY_NS + step // 2) // step
        ahead = last // length * len(slots) + int(np.searchsorted(slots, last % length, side="right")) + numbers
        return np.asarray(last_ns + (ahead // len(slots) * length + slots[ahead % len(slots)] - last) * step)

    def is_holiday(self, gap: Gap) -> bool:
        """Whether a market that closes was closed throughout: less than a week, and every bar of the days touched."""
        if self.open_slots is None or gap.end_ns - gap.start_ns > WEEK_NS:
            return False
        days = np.array([gap.start_ns // NS_PER_DAY, -(-gap.end_ns // NS_PER_DAY)]) * NS_PER_DAY
        return int(self.expected(days[:1], days[1:])[0]) == gap.missing

    def gaps(self, opens: np.ndarray) -> list[Gap]:
        """Return the stretches between sorted bars in which expected ones are missing."""
        if len(opens) < 2:
            return []
        ends = self.timeframe.after(opens[:-1])
        # A missing bar must fit in whole before the next one.
        latest = opens[1:] - self.timeframe.ns + 1 if self.timeframe.fixed else opens[1:]
        missing = self.expected(ends, latest)
        found = np.flatnonzero(missing > 0)
        return [Gap(int(ends[at]), int(opens[at + 1]), int(missing[at])) for at in found]
