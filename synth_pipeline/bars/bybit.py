"""What Bybit's categories share: v5 klines, newest first within a page.

    GET /v5/market/kline?category=linear&symbol=BTCUSDT&interval=60&start=1704067200000&end=1707663600000&limit=1000
    {"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSDT","category":"linear","list":[
      ["1704070800000","42475.2","42775","42431.6","42613.5","7233.29","308345391.5"], …]},"time":1704075000000}

start time, open, high, low, close, volume, turnover: https://bybit-exchange.github.io/docs/v5/market/kline. Both ends
of the span are included. Linear and spot count volume in base and turnover in quote currency; inverse counts volume in
contracts of one quote unit and turnover in base currency.
"""

from __future__ import annotations

from typing import Any, ClassVar

from synth_pipeline.bars import Row
from synth_pipeline.bars.rest import Later, RestSource
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError

NS_PER_MS = 1_000_000
_LATER = {10000, 10006, 10016, 10018}
"""Server timeout, too many visits, internal error, too many requests from this address."""
TIMEFRAMES = {
    **{f"{minutes}m": str(minutes) for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}h": str(60 * hours) for hours in (1, 2, 4, 6, 12)},
    "1d": "D",
    "1w": "W",
    "1M": "M",
}


class BybitBars(RestSource):
    """One category of Bybit v5."""

    timeframes = TIMEFRAMES
    category: ClassVar[str]

    def now_ns(self) -> int:
        """Return the server time."""
        return self.ask("/v5/market/time", {}, lambda answer: int(answer["result"]["timeNano"]))

    def page_bars(self, timeframe: Timeframe) -> int:  # noqa: ARG002 - the same for all
        """Return how many bars one page may hold."""
        return 1000

    def page(self, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> list[Row]:
        """Return the bars that open in [start, end), oldest first."""
        span = {"start": -(-start_ns // NS_PER_MS), "end": (end_ns - 1) // NS_PER_MS}
        return self._rows(symbol, timeframe, span | {"limit": self.page_bars(timeframe)})

    def newest(self, symbol: str, timeframe: Timeframe, before_ns: int) -> int | None:
        """Return when the newest bar that opens before a time opens."""
        rows = self._rows(symbol, timeframe, {"end": (before_ns - 1) // NS_PER_MS, "limit": 1})
        return rows[-1].open_ns if rows else None

    def _rows(self, symbol: str, timeframe: Timeframe, more: dict[str, int]) -> list[Row]:
        params = {"category": self.category, "symbol": symbol, "interval": self.timeframes[str(timeframe)]} | more
        listed = self.ask("/v5/market/kline", params, lambda answer: [_row(each) for each in answer["result"]["list"]])
        return listed[::-1]

    def check(self, answer: Any) -> None:
        """Read `retCode`."""
        code = answer.get("retCode") if isinstance(answer, dict) else None
        if code in _LATER:
            raise Later(f"{answer.get('retMsg')} (retCode {code})")
        if code != 0:
            message = answer.get("retMsg") if isinstance(answer, dict) else answer
            raise InputError(f"{self.base_url} refuses the request: {message} (retCode {code}); check the symbol")


def _row(kline: list[Any]) -> Row:
    return Row(int(kline[0]) * NS_PER_MS, *map(str, kline[1:7]))
