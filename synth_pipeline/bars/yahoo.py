"""Yahoo Finance through `yfinance` (pip install 'synth-pipeline[yahoo]'): stocks, indices, currencies, coins.

Prices are as traded, not adjusted for dividends. A day is stamped with its session's date at 00:00 UTC, whatever the
exchange's time zone; intraday bars with their UTC time. Yahoo keeps minutes for a month and hours for two years only.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import numpy as np

from synth_pipeline.bars import BarSource, Row
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND

_TIMEFRAMES = {name: name for name in ("1m", "2m", "5m", "15m", "30m", "1h", "1d")} | {
    "1w": "1wk",
    "1M": "1mo",
    "3M": "3mo",
}


class YahooBars(BarSource):
    """`yfinance.Ticker.history`."""

    timeframes = _TIMEFRAMES
    can_seek: ClassVar[bool] = False

    @classmethod
    def connect(cls, venue: str, base_url: str, *, rng: np.random.Generator) -> Self:  # noqa: ARG003 - it has its own
        """Load the library."""
        return cls()

    def __init__(self) -> None:
        try:
            import yfinance
        except ImportError as error:
            raise InputError("yahoo needs yfinance: pip install 'synth-pipeline[yahoo]'") from error
        self._library = yfinance

    def now_ns(self) -> int:
        """Return the local clock: Yahoo tells no time."""
        return time.time_ns()

    def page_bars(self, timeframe: Timeframe) -> int:
        """Seven days of minutes; of anything else as much as there is."""
        return 7 * NS_PER_DAY // timeframe.ns if str(timeframe) == "1m" else 1_000_000

    def page(self, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> list[Row]:
        """Return the bars that open in [start, end), oldest first."""
        daily = timeframe.ns >= NS_PER_DAY
        start, end = (datetime.fromtimestamp(ns // NS_PER_SECOND, UTC) for ns in (start_ns, end_ns))
        span: dict[str, Any] = {"start": start.date(), "end": end.date()} if daily else {"start": start, "end": end}
        try:
            frame = self._library.Ticker(symbol).history(
                interval=self.timeframes[str(timeframe)], auto_adjust=False, actions=False, **span
            )
        except self._library.exceptions.YFRateLimitError as error:
            raise NoDataError(f"yahoo asks for patience ({error}): run the same command again in a while") from error
        if frame.empty:
            return []
        index = frame.index.tz_localize(None) if daily and frame.index.tz is not None else frame.index
        opens = index.as_unit("ns").astype("int64")
        columns = [map(repr, frame[name].tolist()) for name in ("Open", "High", "Low", "Close", "Volume")]
        return [Row(int(open_ns), *cells) for open_ns, *cells in zip(opens, *columns, strict=True)]
