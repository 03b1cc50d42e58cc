"""Binance USD-M futures klines: volume in base currency, turnover in quote currency."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.bars.binance import BinanceBars


class BinanceUsdmBars(BinanceBars):
    """`/fapi/v1/klines`."""

    path: ClassVar[str] = "/fapi/v1"
    weight_per_minute: ClassVar[int] = 2400
