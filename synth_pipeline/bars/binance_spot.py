"""Binance spot klines: volume in base currency, turnover in quote currency."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.bars.binance import TIMEFRAMES, BinanceBars

_TIMEFRAMES = {"1s": "1s"} | TIMEFRAMES


class BinanceSpotBars(BinanceBars):
    """`/api/v3/klines`, at most 1000 a page; the segment also has one-second bars."""

    path: ClassVar[str] = "/api/v3"
    timeframes = _TIMEFRAMES
    weight_per_minute: ClassVar[int] = 6000
