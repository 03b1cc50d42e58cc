"""Adding to stored bars what a source has before and after them.

What is stored is not asked for again, except the last bar: a source that has changed its mind about it is found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synth_pipeline.bars import BarSource
from synth_pipeline.bars.checks import PRICES, SIZES, Sound, sound_rows
from synth_pipeline.bars.paging import pages
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import SynthError
from synth_pipeline.progress import Progress

_DEFAULT_BARS = 1000
_BLOCK_PAGES = 20
"""Pages of history before the first stored bar that are kept or lost together."""


@dataclass
class Growth:
    """What a source gave that is not stored."""

    parts: list[Sound] = field(default_factory=list)
    revised: list[dict[str, Any]] = field(default_factory=list)
    """Values of the last stored bar that the source now gives otherwise: `open_ns`, `column`, `stored`, `now`."""
    fault: SynthError | KeyboardInterrupt | None = None
    """What ended it early; the parts are whole up to there."""


def grow(
    source: BarSource,
    ticker: str,
    timeframe: Timeframe,
    stored: Sound | None,
    start_ns: int | None,
    end_ns: int | None,
    progress: Progress,
) -> Growth:
    """Ask for the closed bars in [start, end) that are not stored.

    Without a start it goes on from what is stored, or takes the last thousand bars.
    """
    growth = Growth()
    try:
        now_ns = source.now_ns()
        end_ns = now_ns if end_ns is None else min(end_ns, now_ns)
        for span in _spans(source, timeframe, stored, start_ns, end_ns):
            part: list[Sound] = []
            forward = stored is None or span[0] >= stored.columns["open_ns"][0]
            try:
                for page in pages(source, ticker, timeframe, *span, progress=progress):
                    part.append(sound_rows(page))
            except (SynthError, KeyboardInterrupt):
                # Half a block before the stored bars would leave a hole that nobody asks for again.
                part = part if forward else []
                raise
            finally:
                growth.parts += part
    except (SynthError, KeyboardInterrupt) as fault:
        growth.fault = fault
    if stored is not None and growth.parts:
        _compare(growth, stored)
    return growth


def _spans(
    source: BarSource, timeframe: Timeframe, stored: Sound | None, start_ns: int | None, end_ns: int
) -> Iterator[tuple[int, int]]:
    """Yield what to ask for: after the stored bars, then before them, latest block first."""
    if stored is None:
        yield (end_ns - _DEFAULT_BARS * timeframe.ns if start_ns is None else start_ns), end_ns
        return
    first, last = (int(stored.columns["open_ns"][at]) for at in (0, -1))
    if end_ns > last:
        yield last, end_ns
    block = _BLOCK_PAGES * source.page_bars(timeframe) * timeframe.ns
    stop = first
    while start_ns is not None and start_ns < stop:
        yield max(start_ns, stop - block), stop
        stop -= block


def _compare(growth: Growth, stored: Sound) -> None:
    """Take the last stored bar out of what came, and what is different about it into `revised`."""
    last = stored.columns["open_ns"][-1]
    for part in growth.parts:
        again = part.columns["open_ns"] == last
        if not again.any():
            continue
        at = int(np.flatnonzero(again)[0])
        for name in (*PRICES, *SIZES):
            before, now = float(stored.columns[name][-1]), float(part.columns[name][at])
            if before != now and not (np.isnan(before) and np.isnan(now)):
                growth.revised.append({"open_ns": int(last), "column": name, "stored": before, "now": now})
        part.columns = {name: column[~again] for name, column in part.columns.items()}
    growth.parts = [part for part in growth.parts if len(part.columns["open_ns"]) or part.bad]
