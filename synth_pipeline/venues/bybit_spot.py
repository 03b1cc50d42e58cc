"""Bybit spot (v5)."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.errors import BadMessage
from synth_pipeline.venues.bybit import BybitVenue


class BybitSpot(BybitVenue):
    """Spot pairs.

    On the wire::

        {"topic":"orderbook.200.BTCUSDT","ts":1700000000105,"type":"delta","data":{"s":"BTCUSDT",
         "b":[["37000.1","0.25"]],"a":[["37000.2","0"]],"u":1009,"seq":51},"cts":1700000000101}
        {"topic":"publicTrade.BTCUSDT","ts":1700000000107,"type":"snapshot","data":[{"i":"2290000000000000071",
         "T":1700000000106,"p":"37000.3","v":"0.01","S":"Buy","seq":52,"s":"BTCUSDT","BT":false,"RPI":false}]}

    Trade ids are numbers that skip: they rise within a symbol but do not count its trades.
    """

    websocket_path: ClassVar[str] = "/v5/public/spot"

    def check_symbol(self, symbol: str) -> str | None:
        """Spot pairs have no delivery date and no settlement suffix."""
        return f"contract {symbol}" if "-" in symbol or symbol.endswith("PERP") else None

    def trade_id(self, text: str) -> int:
        """The number itself."""
        if not (text.isascii() and text.isdigit() and int(text) < 2**63):
            raise BadMessage("wrong_venue", f"trade id {text!r} is no number, as spot sends it")
        return int(text)
