"""Binance COIN-M futures klines: volume in contracts, turnover in base currency."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.bars.binance import BinanceBars
from synth_pipeline.schema import NS_PER_DAY


class BinanceCoinmBars(BinanceBars):
    """`/dapi/v1/klines`; a request may span 200 days at most."""

    path: ClassVar[str] = "/dapi/v1"
    weight_per_minute: ClassVar[int] = 2400
    longest_ns: ClassVar[int] = 200 * NS_PER_DAY
