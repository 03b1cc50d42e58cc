"""One-sided flow: for a time more market orders, or limit orders, of one side than usual.

`side` is what those who come want, `buy` or `sell`: their market orders come `takes` times as often, their limit orders
`limits` times. More market orders that sell use up bids and press the price; more limit orders that sell pile up asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.flows.pace import LIMITS, TAKES, Pace
from synth_pipeline.market.scenarios import Scenario, Stretch, choice, duration, number


@dataclass(frozen=True, kw_only=True)
class OneSidedFlow(Scenario):
    """Orders of one side at other rates."""

    duration: float | None = duration(60.0)
    side: str = choice("sell", "buy")
    takes: float = number(2.0, least=0.0, most=100.0)
    limits: float = number(1.0, least=0.0, most=100.0)

    @property
    def is_neutral(self) -> bool:
        """Whether both kinds come as usual."""
        return self.takes == self.limits == 1.0 or self.duration == 0

    def stretches(self, start_ns: int) -> Sequence[Stretch]:
        """Return the time of the one-sided flow."""
        own = ASK if self.side == "sell" else BID
        pace = Pace.usual()
        pace.rates[TAKES, 1 - own], pace.rates[LIMITS, own] = self.takes, self.limits
        return [Stretch(*self.span(start_ns), pace)]
