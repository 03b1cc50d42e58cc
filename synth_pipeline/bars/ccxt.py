"""Any exchange that ccxt knows (pip install 'synth-pipeline[ccxt]'): `ccxt_kraken.BTC/USD`.

ccxt hands numbers over as floats, so what is stored is what ccxt made of the exchange's text. Exchanges differ in how
far back they go and how much a page holds; what they do not give is listed as gaps.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from synth_pipeline.bars import BarSource, Row
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError

NS_PER_MS = 1_000_000
PREFIX = "ccxt_"
_PAGE = 500
"""What nearly every exchange gives in one answer."""


class CcxtBars(BarSource):
    """`fetch_ohlcv` of one exchange, with ccxt's own rate limiter."""

    can_seek: ClassVar[bool] = False

    @classmethod
    def connect(cls, venue: str, base_url: str, *, rng: np.random.Generator) -> Self:  # noqa: ARG003 - it has its own
        """Load the library and the exchange that the venue `ccxt_NAME` names."""
        return cls(venue.removeprefix(PREFIX))

    def __init__(self, exchange: str) -> None:
        try:
            import ccxt
        except ImportError as error:
            raise InputError("ccxt sources need ccxt: pip install 'synth-pipeline[ccxt]'") from error
        if exchange not in ccxt.exchanges:
            raise UnknownNameError("ccxt exchange", exchange, ccxt.exchanges)
        self._errors = ccxt
        self._exchange: Any = getattr(ccxt, exchange)({"enableRateLimit": True})
        offered: dict[str, Any] = self._exchange.timeframes or {}
        self.timeframes = {name: name for name in offered if name[-1] in "smhdwM"}

    def now_ns(self) -> int:
        """Return ccxt's clock."""
        return int(self._exchange.milliseconds()) * NS_PER_MS

    def page_bars(self, timeframe: Timeframe) -> int:  # noqa: ARG002 - the same for all
        """Return how many bars one page may hold."""
        return _PAGE

    def page(self, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> list[Row]:
        """Return the bars that open in [start, end), oldest first."""
        try:
            rows = self._exchange.fetch_ohlcv(
                symbol, self.timeframes[str(timeframe)], since=-(-start_ns // NS_PER_MS), limit=_PAGE
            )
        except (self._errors.BadSymbol, self._errors.NotSupported, self._errors.BadRequest) as error:
            raise InputError(f"{self._exchange.id} refuses {symbol!r}: {error}; check the symbol") from error
        except self._errors.BaseError as error:
            raise NoDataError(
                f"{self._exchange.id} does not answer ({error}): what came before is kept, run the command again later"
            ) from error
        return [
            Row(int(row[0]) * NS_PER_MS, *("" if cell is None else repr(cell) for cell in row[1:6]))
            for row in sorted(rows)
            if row[0] * NS_PER_MS < end_ns
        ]
