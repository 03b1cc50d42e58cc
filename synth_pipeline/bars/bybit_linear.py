"""Bybit linear klines (USDT and USDC contracts): volume in base, turnover in quote currency."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.bars.bybit import BybitBars


class BybitLinearBars(BybitBars):
    """Category `linear`."""

    category: ClassVar[str] = "linear"
