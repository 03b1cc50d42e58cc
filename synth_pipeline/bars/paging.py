"""All bars of a span from a source that gives them page by page, forming ones left out.

A span that holds no bar (before the listing, a long halt) is skipped by bisection, not walked.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from synth_pipeline.bars import BarSource, Row
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.progress import Progress, silent


def pages(
    source: BarSource,
    symbol: str,
    timeframe: Timeframe,
    start_ns: int,
    end_ns: int,
    *,
    progress: Progress = silent,
) -> Iterator[list[Row]]:
    """Yield pages of bars that open at or after `start` and have closed by `end`, the source's clock at most.

    Rows outside their page's span are dropped: a source that ignores `start` would give bars twice. Raises what the
    source raises; pages yielded before stay good.
    """
    total = max((end_ns - start_ns) // timeframe.ns, 1)
    position = start_ns
    while position < end_ns:
        stop = min(position + source.page_bars(timeframe) * timeframe.ns, end_ns)
        rows = [row for row in source.page(symbol, timeframe, position, stop) if position <= row.open_ns < stop]
        closed = [row for row in rows if _close(timeframe, row.open_ns) <= end_ns]
        if closed:
            yield closed
        elif not rows and source.can_seek:
            stop = _next_open(source, symbol, timeframe, stop, end_ns)
        position = stop
        progress(min((position - start_ns) // timeframe.ns, total), total, f"{symbol} {timeframe} bars")


def _close(timeframe: Timeframe, open_ns: int) -> int:
    return int(timeframe.after(np.array([open_ns]))[0])


def _next_open(source: BarSource, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> int:
    """Return when the first bar at or after `start` opens, to within a page; `end` when there is none."""
    span = source.page_bars(timeframe) * timeframe.ns
    if (newest := source.newest(symbol, timeframe, end_ns)) is None or newest < start_ns:
        return end_ns
    low, high = 0, -(-(end_ns - start_ns) // span)  # nothing lies in the first `low` pages, something in `high`
    while high - low > 1:
        middle = (low + high) // 2
        newest = source.newest(symbol, timeframe, start_ns + middle * span)
        low, high = (middle, high) if newest is None or newest < start_ns else (low, middle)
    return start_ns + low * span
