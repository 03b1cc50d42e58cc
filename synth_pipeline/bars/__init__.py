"""Bar sources: ONE FILE = ONE SOURCE of OHLCV bars that is asked over a network; and what becomes of their bars.

A source answers with rows of text as the venue wrote them. What all sources and files share: `timeframe`, `values`
(text to numbers, and how exact that is), `checks` (what a bar must be; quarantine), `calendars` (missing bars),
`paging` (asking for more than a page holds), `resampling`. Files are read by `files`. A bar is stamped at its OPEN, and
known at its close (`schema.BARS`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self

import numpy as np

from synth_pipeline.bars.timeframe import Timeframe


class Row(NamedTuple):
    """One bar as the source wrote it; None for what the source does not say."""

    open_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: str | None = None
    turnover: str | None = None
    trade_count: str | None = None


class BarSource(ABC):
    """Somebody who can be asked for bars, page by page. A source of a venue bears the venue's name."""

    timeframes: Mapping[str, str]
    """What it offers: our name of a timeframe to its own."""
    can_seek: ClassVar[bool] = True
    """Whether `newest` is answered."""

    @classmethod
    @abstractmethod
    def connect(cls, venue: str, base_url: str, *, rng: np.random.Generator) -> Self:
        """Open the source for a venue at an address, empty for its own; `rng` spreads waiting times.

        Raises `InputError` when a library that it needs is not installed.
        """

    @abstractmethod
    def now_ns(self) -> int:
        """Return the source's clock: a bar is closed when that says so."""

    @abstractmethod
    def page_bars(self, timeframe: Timeframe) -> int:
        """Return how many bars one page may hold."""

    @abstractmethod
    def page(self, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> list[Row]:
        """Return the bars that open in [start, end), oldest first; the caller asks for one page at most.

        Raises `InputError` when the source refuses the request, `NoDataError` when it cannot be reached.
        """

    def newest(self, symbol: str, timeframe: Timeframe, before_ns: int) -> int | None:
        """Return when the newest bar that opens before a time opens, None when there is none."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections."""


CONTRACT = BarSource
MACHINERY = frozenset(
    {
        "binance",
        "bybit",
        "calendars",
        "checks",
        "columns",
        "dates",
        "exporting",
        "files",
        "growth",
        "paging",
        "resampling",
        "rest",
        "sniffing",
        "timeframe",
        "values",
    }
)
