"""How long a bar is: `1m`, `4h`, `1d`, `1w`, `1M`; and where bars of that length begin.

Buckets are aligned to the Unix epoch, weeks to Monday (1970-01-05), months to the first of a month UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND

WEEK_NS = 7 * NS_PER_DAY
MONDAY_NS = 4 * NS_PER_DAY
"""1970-01-05, the first Monday."""
_UNITS = {
    "s": NS_PER_SECOND,
    "m": 60 * NS_PER_SECOND,
    "h": 3600 * NS_PER_SECOND,
    "d": NS_PER_DAY,
    "w": WEEK_NS,
}
_MONTH = "M"
_FORM = re.compile(r"([1-9]\d{0,5})([smhdwM])")


@dataclass(frozen=True)
class Timeframe:
    """A whole number of seconds, minutes, hours, days, weeks or calendar months."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1m`, `4h`, `1d`, `1w`, `1M` (month). Raises `InputError` for any other form."""
        if (match := _FORM.fullmatch(text)) is None:
            raise InputError(f"timeframe {text!r} is not of the form 1m, 15m, 4h, 1d, 1w or 1M (a month)")
        return cls(int(match[1]), match[2]).simplest()

    @classmethod
    def of_ns(cls, ns: int) -> Self:
        """Return the timeframe of a fixed length in its simplest words. Raises `InputError` for parts of a second."""
        if ns <= 0 or ns % NS_PER_SECOND:
            raise InputError(f"bars of {ns} ns have no timeframe: it is a whole number of seconds")
        return cls(ns // NS_PER_SECOND, "s").simplest()

    def simplest(self) -> Self:
        """Return the same length in the largest unit that fits: 60m is 1h."""
        if self.unit == _MONTH:
            return self
        unit = next(name for name in reversed(_UNITS) if self.ns % _UNITS[name] == 0)
        return type(self)(self.ns // _UNITS[unit], unit)

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def fixed(self) -> bool:
        """Whether every bar is equally long: all but months."""
        return self.unit != _MONTH

    @property
    def ns(self) -> int:
        """Length in ns; of months the shortest, 28 days each."""
        return self.count * (_UNITS[self.unit] if self.fixed else 28 * NS_PER_DAY)

    def floor(self, times: np.ndarray) -> np.ndarray:
        """Return the first moment of the bucket that holds each time: ns in, ns out."""
        if not self.fixed:
            months = times.astype("M8[ns]").astype("M8[M]").astype(np.int64)
            return (months // self.count * self.count).astype("M8[M]").astype("M8[ns]").astype(np.int64)
        origin = MONDAY_NS if self.ns % WEEK_NS == 0 else 0
        return (times - origin) // self.ns * self.ns + origin

    def after(self, opens: np.ndarray) -> np.ndarray:
        """Return the end, exclusive, of bars that open at these times."""
        if self.fixed:
            return opens + self.ns
        start = opens.astype("M8[ns]").astype("M8[M]")
        into = opens - start.astype("M8[ns]").astype(np.int64)
        return np.asarray((start + self.count).astype("M8[ns]").astype(np.int64) + into)

    def divides(self, coarser: Timeframe) -> bool:
        """Whether every bucket of `coarser` is made of whole buckets of this."""
        if self.fixed and coarser.fixed:
            # Weeks begin on Mondays, so what tiles a week must also tile the four days from the epoch to its Monday.
            shifted = coarser.ns % WEEK_NS == 0 and self.ns % WEEK_NS != 0
            return coarser.ns % self.ns == 0 and not (shifted and MONDAY_NS % self.ns)
        if self.fixed:
            return NS_PER_DAY % self.ns == 0
        return not coarser.fixed and coarser.count % self.count == 0


def infer(opens: np.ndarray) -> Timeframe:
    """Return the timeframe of sorted, distinct open times: their most common distance.

    Raises `InputError` when there are fewer than two, or the distance is no whole number of seconds.
    """
    if len(opens) < 2:
        raise InputError(f"{len(opens)} bar(s) do not say how long a bar is: pass --timeframe")
    steps, counts = np.unique(np.diff(opens), return_counts=True)
    common = int(steps[counts.argmax()])
    if 28 * NS_PER_DAY <= common <= 366 * NS_PER_DAY:
        months = np.diff(opens.astype("M8[ns]").astype("M8[M]").astype(np.int64))
        distances, found = np.unique(months, return_counts=True)
        return Timeframe(int(distances[found.argmax()]), _MONTH)
    return Timeframe.of_ns(common)
