"""Bybit inverse contracts (v5): settled in the coin, sizes in contracts of 1 USD."""

from __future__ import annotations

import re
from typing import ClassVar

from synth_pipeline.venues.bybit import BybitDerivatives

_SYMBOL = re.compile(r"[A-Z0-9]+USD([FGHJKMNQUVXZ]\d{2})?")


class BybitInverse(BybitDerivatives):
    """Inverse perpetuals (BTCUSD) and futures (BTCUSDZ26).

    On the wire::

        {"topic":"orderbook.200.BTCUSD","type":"delta","ts":1700000000105,"data":{"s":"BTCUSD","b":[["37000.10","250"]],
         "a":[["37000.20","0"]],"u":1009,"seq":51},"cts":1700000000101}
        {"topic":"publicTrade.BTCUSD","type":"snapshot","ts":1700000000107,"data":[{"T":1700000000106,"s":"BTCUSD",
         "S":"Buy","v":"10","p":"37000.20","L":"PlusTick","i":"00000000-0000-5000-8000-000000000047","BT":false,
         "seq":52}]}
    """

    websocket_path: ClassVar[str] = "/v5/public/inverse"
    streams_per_frame: ClassVar[int] = 100
    inverse: ClassVar[bool] = True

    def check_symbol(self, symbol: str) -> str | None:
        """Inverse contracts are named after USD."""
        return None if _SYMBOL.fullmatch(symbol) else f"{symbol}, which is no inverse contract such as BTCUSD"
