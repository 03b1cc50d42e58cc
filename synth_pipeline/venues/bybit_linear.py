"""Bybit linear contracts (v5): USDT and USDC perpetuals and futures, sizes in base currency."""

from __future__ import annotations

import re
from typing import ClassVar

from synth_pipeline.venues.bybit import BybitDerivatives

_INVERSE = re.compile(r"[A-Z0-9]+USD([FGHJKMNQUVXZ]\d{2})?")


class BybitLinear(BybitDerivatives):
    """Linear perpetuals and futures.

    On the wire::

        {"topic":"orderbook.200.BTCUSDT","type":"snapshot","ts":1700000000105,"data":{"s":"BTCUSDT",
         "b":[["37000.10","0.250"]],"a":[["37000.20","1.000"]],"u":1009,"seq":51},"cts":1700000000101}
        {"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1700000000107,"data":[{"T":1700000000106,"s":"BTCUSDT",
         "S":"Sell","v":"0.004","p":"37000.10","L":"MinusTick","i":"00000000-0000-5000-8000-000000000047","BT":false,
         "RPI":false,"seq":52}]}
    """

    websocket_path: ClassVar[str] = "/v5/public/linear"
    streams_per_frame: ClassVar[int] = 100

    def check_symbol(self, symbol: str) -> str | None:
        """Inverse contracts are named after USD."""
        return f"inverse contract {symbol}" if _INVERSE.fullmatch(symbol) else None
