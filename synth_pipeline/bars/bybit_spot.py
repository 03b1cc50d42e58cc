"""Bybit spot klines: volume in base currency, turnover in quote currency."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.bars.bybit import BybitBars


class BybitSpotBars(BybitBars):
    """Category `spot`."""

    category: ClassVar[str] = "spot"
