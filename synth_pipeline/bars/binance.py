"""What Binance's three market segments share: klines, ascending pages from `startTime`.

    GET {path}/klines?symbol=BTCUSDT&interval=1h&startTime=1704067200000&endTime=1707667199999&limit=1000
    [[1704067200000,"42283.58","42554.57","42261.02","42475.23","1271.68108",1704070799999,"53957248.973789",47134,
      "682.57581","28957416.819645","0"], …]

open time, open, high, low, close, volume, close time, quote volume, trades, taker volumes, unused:
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints. On COIN-M the volume counts
contracts and the eighth field is base currency. An error is `{"code": -1121, "msg": "Invalid symbol."}`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from synth_pipeline.bars import Row
from synth_pipeline.bars.rest import Later, RestSource
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError

NS_PER_MS = 1_000_000
_TOO_MANY_REQUESTS = -1003
_NAMES = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
TIMEFRAMES = dict(zip(_NAMES, _NAMES, strict=True))


class BinanceBars(RestSource):
    """A Binance segment's klines."""

    timeframes = TIMEFRAMES
    weight_header: ClassVar[str | None] = "X-MBX-USED-WEIGHT-1M"
    path: ClassVar[str]
    """What stands before `/klines` and `/time`."""
    longest_ns: ClassVar[int] = 2**62
    """Longest time that one request may span."""
    page_limit: ClassVar[int] = 1000
    """Futures allow 1500, but weigh that twice as much as 1000."""

    def now_ns(self) -> int:
        """Return the server time."""
        return self.ask(f"{self.path}/time", {}, lambda answer: int(answer["serverTime"])) * NS_PER_MS

    def page_bars(self, timeframe: Timeframe) -> int:
        """Return how many bars one page may hold."""
        return min(self.page_limit, self.longest_ns // timeframe.ns)

    def page(self, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> list[Row]:
        """Return the bars that open in [start, end), oldest first."""
        span = {"startTime": -(-start_ns // NS_PER_MS), "endTime": (end_ns - 1) // NS_PER_MS}
        return self._rows(symbol, timeframe, span | {"limit": self.page_limit})

    def newest(self, symbol: str, timeframe: Timeframe, before_ns: int) -> int | None:
        """Return when the newest bar that opens before a time opens."""
        rows = self._rows(symbol, timeframe, {"endTime": (before_ns - 1) // NS_PER_MS, "limit": 1})
        return rows[-1].open_ns if rows else None

    def _rows(self, symbol: str, timeframe: Timeframe, more: dict[str, int]) -> list[Row]:
        params = {"symbol": symbol, "interval": self.timeframes[str(timeframe)]} | more
        return self.ask(f"{self.path}/klines", params, lambda answer: [_row(kline) for kline in answer])

    def check(self, answer: Any) -> None:
        """Read `{"code": …, "msg": …}`."""
        if isinstance(answer, dict) and "code" in answer:
            if answer["code"] == _TOO_MANY_REQUESTS:
                raise Later(str(answer.get("msg")))
            raise InputError(
                f"{self.base_url} refuses the request: {answer.get('msg')} (code {answer['code']}); check the symbol"
            )


def _row(kline: list[Any]) -> Row:
    return Row(int(kline[0]) * NS_PER_MS, *map(str, (*kline[1:6], *kline[7:9])))
