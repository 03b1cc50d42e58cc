"""Slow obvious twins of what bars do: one bar at a time, from the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple


class Bar(NamedTuple):
    open_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def bucket(open_ns: int, timeframe: str) -> int:
    """Start of the bucket that holds a time: weeks from Monday, months from the first."""
    seconds = open_ns // 10**9
    at = datetime.fromtimestamp(seconds, UTC)
    if timeframe == "1M":
        return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp()) * 10**9
    if timeframe == "1w":
        midnight = seconds - seconds % 86_400
        return (midnight - at.weekday() * 86_400) * 10**9
    units = {"m": 60, "h": 3600, "d": 86_400}
    length = int(timeframe[:-1]) * units[timeframe[-1]]
    return (seconds - seconds % length) * 10**9


def resample(bars: Sequence[Bar], timeframe: str) -> list[Bar]:
    found: dict[int, list[Bar]] = {}
    for bar in bars:
        found.setdefault(bucket(bar.open_ns, timeframe), []).append(bar)
    return [
        Bar(
            start,
            inside[0].open,
            max(bar.high for bar in inside),
            min(bar.low for bar in inside),
            inside[-1].close,
            math.fsum(bar.volume for bar in inside),
        )
        for start, inside in sorted(found.items())
    ]
