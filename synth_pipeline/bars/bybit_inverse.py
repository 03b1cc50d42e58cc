"""Bybit inverse klines: volume in contracts of one quote unit, turnover in base currency."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.bars.bybit import BybitBars


class BybitInverseBars(BybitBars):
    """Category `inverse`."""

    category: ClassVar[str] = "inverse"
