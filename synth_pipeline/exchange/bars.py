"""Klines: bars of one symbol at their own step, gathered from its trades or given whole, and cut into pages.

A bar covers [open, open + interval) and is labelled by its opening time in ms UTC. A page is what one REST request
answers: the pages of any chain of requests hold every bar once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.exchange.book import units
from synth_pipeline.venues import Trade

SECOND_MS = 1000
MINUTE_MS, HOUR_MS, DAY_MS = 60 * SECOND_MS, 3600 * SECOND_MS, 86_400 * SECOND_MS
WEEK_MS = 7 * DAY_MS
MONTH = 0
"""The one interval that is no fixed length."""
_MONDAY_MS = 4 * DAY_MS
"""The epoch was a Thursday; weeks open on Mondays."""
_SECONDS_KEPT, _MINUTES_KEPT = 3600, 60 * 24 * 60
"""Bars of one second and of one minute that are kept of a source's trades: an hour and sixty days."""


@dataclass(slots=True)
class Bar:
    """One bar; prices are decimal strings as traded, sums are exact."""

    open_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    """What was traded is worth: as a rule the sum of price times size."""
    trades: int = 0
    bought: Decimal = Decimal(0)
    """Size that aggressors bought."""
    bought_turnover: Decimal = Decimal(0)

    @classmethod
    def of(cls, trade: Trade, turnover: Decimal, open_ms: int) -> Self:
        """Return the bar of a single trade."""
        size = Decimal(trade.size)
        bought = (size, turnover) if trade.side > 0 else (Decimal(0), Decimal(0))
        return cls(open_ms, trade.price, trade.price, trade.price, trade.price, size, turnover, 1, *bought)

    def add(self, later: Bar) -> None:
        """Extend this bar by the one that follows it."""
        if units(later.high) > units(self.high):
            self.high = later.high
        if units(later.low) < units(self.low):
            self.low = later.low
        self.close = later.close
        self.volume += later.volume
        self.turnover += later.turnover
        self.trades += later.trades
        self.bought += later.bought
        self.bought_turnover += later.bought_turnover


def opening(at_ms: int, interval_ms: int) -> int:
    """Return when the bar that holds a time opened."""
    if interval_ms == MONTH:
        moment = datetime.fromtimestamp(at_ms // SECOND_MS, UTC)
        return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * SECOND_MS
    shift = _MONDAY_MS if interval_ms == WEEK_MS else 0
    return (at_ms - shift) // interval_ms * interval_ms + shift


def closing(open_ms: int, interval_ms: int) -> int:
    """Return the last millisecond of a bar."""
    following = opening(open_ms + 32 * DAY_MS, MONTH) if interval_ms == MONTH else open_ms + interval_ms
    return following - 1


class Bars:
    """Bars of one symbol in the order of time, `step_ms` apart at least."""

    def __init__(self, step_ms: int, bars: Iterable[Bar] = ()) -> None:
        self.step_ms = step_ms
        self._bars = list(bars)

    @classmethod
    def of(
        cls,
        open_ms: Sequence[Any] | np.ndarray,
        open: Sequence[Any] | np.ndarray,  # noqa: A002 - the field's own word
        high: Sequence[Any] | np.ndarray,
        low: Sequence[Any] | np.ndarray,
        close: Sequence[Any] | np.ndarray,
        volume: Sequence[Any] | np.ndarray,
    ) -> Self:
        """Take plain columns of one length: opening times in ms UTC, prices and sizes as strings or numbers.

        Raises `InputError` for times that do not rise.
        """
        times = [int(value) for value in open_ms]
        steps = np.diff(times)
        if len(times) < 1 or (len(steps) and steps.min() <= 0):
            raise InputError(f"bars of {len(times)} rows: opening times must rise from row to row; sort them first")
        columns = [[_text(value) for value in column] for column in (open, high, low, close, volume)]
        bars = []
        for at, first, highest, lowest, last, size in zip(times, *columns, strict=True):
            bars.append(Bar(at, first, highest, lowest, last, Decimal(size), Decimal(size) * Decimal(last)))
        return cls(int(steps.min()) if len(steps) else MINUTE_MS, bars)

    def page(self, interval_ms: int, start_ms: int | None, end_ms: int | None, limit: int, *, first: bool) -> list[Bar]:
        """Return the first or the last `limit` bars that open within [start, end], oldest first.

        An interval below the step of what is known has no bars.
        """
        if interval_ms != MONTH and interval_ms < self.step_ms:
            return []
        low = 0 if start_ms is None else bisect_left(self._bars, _from(start_ms, interval_ms), key=_opened)
        high = len(self._bars)
        if end_ms is not None:
            high = bisect_right(self._bars, closing(opening(end_ms, interval_ms), interval_ms), key=_opened)
        if first:
            return list(_limited(_merged(self._bars[low:high], interval_ms), limit))
        return self._last(low, high, interval_ms, limit)

    def _last(self, low: int, high: int, interval_ms: int, limit: int) -> list[Bar]:
        if high <= low:
            return []
        newest_ms, reach_ms = self._bars[high - 1].open_ms, limit * (interval_ms or 31 * DAY_MS)
        while True:  # where bars are missing, `limit` of them reach further back than their length says
            since = opening(newest_ms - reach_ms, interval_ms)
            begin = max(low, bisect_left(self._bars, since, key=_opened))
            found = list(_merged(self._bars[begin:high], interval_ms))
            if len(found) >= limit or begin == low:
                return found[-limit:]
            reach_ms *= 4

    @property
    def last(self) -> Bar | None:
        """The latest bar."""
        return self._bars[-1] if self._bars else None


class TradeBars(Bars):
    """Bars gathered from trades as they come; a stretch without a trade repeats the close at no volume."""

    def __init__(self, step_ms: int, kept: int) -> None:
        super().__init__(step_ms)
        self._kept = kept

    def add(self, trade: Trade, turnover: Decimal) -> None:
        """Take in one print; one older than the latest bar belongs to it all the same."""
        open_ms = opening(trade.event_ns // 1_000_000, self.step_ms)
        last = self.last
        bar = Bar.of(trade, turnover, open_ms)
        if last is not None and open_ms <= last.open_ms:
            last.add(bar)
            return
        if last is not None:
            since = max(last.open_ms + self.step_ms, open_ms - self._kept * self.step_ms)
            for empty_ms in range(since, open_ms, self.step_ms):
                self._bars.append(Bar(empty_ms, last.close, last.close, last.close, last.close))
        self._bars.append(bar)
        if len(self._bars) > 2 * self._kept:
            del self._bars[: -self._kept]


class Tape:
    """What the trades of one symbol come to: bars of a second for a while, bars of a minute for long."""

    def __init__(self) -> None:
        self._seconds = TradeBars(SECOND_MS, _SECONDS_KEPT)
        self._minutes = TradeBars(MINUTE_MS, _MINUTES_KEPT)
        self.last: Trade | None = None

    def add(self, trade: Trade, turnover: Decimal) -> None:
        """Take in one print and what it was worth."""
        self.last = trade
        self._seconds.add(trade, turnover)
        self._minutes.add(trade, turnover)

    def bars(self, interval_ms: int) -> Bars:
        """Return the bars that this interval is made of."""
        return self._seconds if interval_ms != MONTH and interval_ms < MINUTE_MS else self._minutes


def _opened(bar: Bar) -> int:
    return bar.open_ms


def _from(start_ms: int, interval_ms: int) -> int:
    """Return the first opening time at or after a time."""
    opened = opening(start_ms, interval_ms)
    return opened if opened == start_ms else closing(opened, interval_ms) + 1


def _merged(bars: Iterable[Bar], interval_ms: int) -> Iterator[Bar]:
    merged: Bar | None = None
    for bar in bars:
        open_ms = opening(bar.open_ms, interval_ms)
        if merged is not None and merged.open_ms == open_ms:
            merged.add(bar)
            continue
        if merged is not None:
            yield merged
        merged = replace(bar, open_ms=open_ms)
    if merged is not None:
        yield merged


def _limited(bars: Iterator[Bar], limit: int) -> Iterator[Bar]:
    for _, bar in zip(range(limit), bars, strict=False):
        yield bar


def _text(value: Any) -> str:
    """Write a number without an exponent, and a string as it is."""
    if isinstance(value, float | np.floating):
        return np.format_float_positional(value, trim="0")
    return str(value)
