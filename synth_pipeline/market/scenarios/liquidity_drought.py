"""Liquidity drought: makers send fewer and smaller limit orders, cancel sooner, and follow the fundamental price less.

For a time limit orders come at `limits` times their rate and with `lots` times their size, resting orders are
cancelled at `cancels` times their rate. Market orders stay as they are, so the book is used up: the spread widens, the
depth falls; then both recover as the flow refills the book. Who follows a fundamental price makes a market too, and
compares with it `limits` times as often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from synth_pipeline.market.flows.pace import CANCELS, LIMITS, Pace
from synth_pipeline.market.scenarios import Scenario, Stretch, duration, number


@dataclass(frozen=True, kw_only=True)
class LiquidityDrought(Scenario):
    """Limit orders rarer and smaller, cancellations more frequent, on both sides."""

    duration: float | None = duration(60.0)
    limits: float = number(0.5, least=0.0, most=1.0)
    lots: float = number(1.0, least=0.01, most=1.0)
    cancels: float = number(2.0, least=1.0, most=100.0)

    @property
    def is_neutral(self) -> bool:
        """Whether all stays as it is."""
        return self.limits == self.lots == self.cancels == 1.0 or self.duration == 0

    def stretches(self, start_ns: int) -> Sequence[Stretch]:
        """Return the drought."""
        pace = Pace.usual()
        pace.rates[LIMITS], pace.rates[CANCELS], pace.lots[LIMITS] = self.limits, self.cancels, self.lots
        pace.response[:] = self.limits
        return [Stretch(*self.span(start_ns), pace)]
