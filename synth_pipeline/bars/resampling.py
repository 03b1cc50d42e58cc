"""Bars of a finer timeframe into bars of a coarser one.

Open of the first, high of the highest, low of the lowest, close of the last, sizes summed (unknown when one is).
Buckets are aligned as in `timeframe`; one that lacks expected bars is marked `PARTIAL`, one without any is no row.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.bars.calendars import Calendar, Gap
from synth_pipeline.bars.checks import SIZES, Bars
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError
from synth_pipeline.schema import BarFlag


def resample(bars: Bars, timeframe: Timeframe, *, keep_partial: bool = True) -> Bars:
    """Return coarser bars; partial ones are marked, or left out and their time listed as gaps.

    Raises `InputError` for a timeframe that is not made of whole bars.
    """
    if not bars.timeframe.divides(timeframe):
        raise InputError(f"bars of {timeframe} are not made of whole bars of {bars.timeframe}: choose a multiple")
    source = bars.columns
    buckets = timeframe.floor(source["open_ns"])
    starts = np.flatnonzero(np.diff(buckets, prepend=buckets[:1] - 1))
    opens, ends = buckets[starts], timeframe.after(buckets[starts])
    counts = np.diff(starts, append=len(buckets))
    lacking = counts < bars.calendar.expected(opens, ends)
    marked = np.bitwise_or.reduceat(source["flags"], starts) if len(starts) else source["flags"]
    partial = lacking | ((marked & BarFlag.PARTIAL) > 0)
    columns = {
        "open_ns": opens,
        "close_ns": ends,
        "open": source["open"][starts],
        "high": np.maximum.reduceat(source["high"], starts) if len(starts) else source["high"],
        "low": np.minimum.reduceat(source["low"], starts) if len(starts) else source["low"],
        "close": source["close"][starts + counts - 1],
    } | {name: np.add.reduceat(source[name], starts) if len(starts) else source[name] for name in SIZES}
    columns["flags"] = np.where(partial, BarFlag.PARTIAL, 0).astype(np.uint8)
    if not keep_partial:
        columns = {name: column[~partial] for name, column in columns.items()}
    gaps = _gaps(bars.calendar, timeframe, columns["open_ns"])
    after_gap = np.isin(columns["open_ns"], [gap.end_ns for gap in gaps])
    columns["flags"] |= np.where(after_gap, BarFlag.GAP_BEFORE, 0).astype(np.uint8)
    calendar = Calendar.learn(columns["open_ns"], timeframe)
    return Bars(timeframe, columns, calendar, gaps, bars.bad, bars.rounded, bars.unordered)


def _gaps(source: Calendar, timeframe: Timeframe, opens: np.ndarray) -> list[Gap]:
    """Buckets between two rows in which bars were expected and none is."""
    gaps = []
    ends = timeframe.after(opens[:-1])
    for start, end in zip(ends.tolist(), opens[1:].tolist(), strict=True):
        if start == end:
            continue
        inner = [start]
        while (following := int(timeframe.after(np.array(inner[-1:]))[0])) < end:
            inner.append(following)
        edges = np.array([*inner, end])
        missing = int((source.expected(edges[:-1], edges[1:]) > 0).sum())
        if missing:
            gaps.append(Gap(start, end, missing))
    return gaps
