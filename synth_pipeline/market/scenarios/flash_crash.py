"""Flash crash: a large seller who looks at volume, not at price, sells into the book; the flow refills it.

From `at` on, every `every` seconds, the seller sends a market order through the engine, until `lots` are sold or `for`
is over: evenly over the time, but no more than the share `participation` of what all trade since, as the algorithm of
6 May 2010 did (CFTC and SEC 2010, "Findings regarding the market events of May 6, 2010": 9 % of the volume of the
minute before). Without `lots` the share alone decides; with `participation=1` nothing but the time does. An order takes
at most half of the bids that are displayed, and the next one makes up for it, so that a market is left; what is not
sold by the end is not sold.

Nothing else is made to happen. How deep the price falls, who comes back and when is the flow's own dynamics, and
`measuring.resilience` tells it. Orders of the seller have the owner `SELLER`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from synth_pipeline.errors import InputError
from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.engine import market as send_market
from synth_pipeline.market.scenarios import NEVER, Agent, Scenario, duration, number
from synth_pipeline.market.tape import Market, has_room, record
from synth_pipeline.schema import NS_PER_SECOND

SELLER = -1
_SPARE_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class FlashCrash(Scenario):
    """A large seller."""

    duration: float = duration(60.0)
    lots: int | None = number(None, least=0, most=2**40)
    participation: float = number(0.3, least=0.0, most=1.0)
    every: float = number(0.1, least=0.001, is_time=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lots is None and self.participation == 1.0:
            raise InputError(
                f"scenario {self.name} with participation=1 lacks lots: give it as {self.name}:lots=NUMBER"
            )

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is sold."""
        return self.lots == 0 or self.participation == 0.0 or self.duration == 0

    def agents(self, start_ns: int) -> Sequence[Agent]:
        """Return the seller."""
        return [Seller(self, *self.span(start_ns))]


class Seller:
    """Who sells."""

    def __init__(self, plan: FlashCrash, start_ns: int, end_ns: int) -> None:
        self.next_ns, self.sold = start_ns, 0
        self._plan, self._length_ns, self._end_ns = plan, end_ns - start_ns, end_ns
        self._began: tuple[int, int] | None = None
        """When it did, and what had been traded by then."""

    def act(self, market: Market, now_ns: int) -> bool:
        """Sell what is due now; False where the tape is too full to."""
        book, sides = market.book, market.book.sides
        if not has_room(market, int(sides.orders[BID] + sides.orders[ASK]) + _SPARE_ROWS):
            return False
        if now_ns > self._end_ns:
            self.next_ns = NEVER
            return True
        traded = int(book.state.traded[0])
        self._began = self._began or (now_ns, traded)
        lots = min(self._due(now_ns, traded) - self.sold, int(sides.lots[BID]) // 2)
        if lots > 0:
            send_market(book, market.journal, ASK, lots, SELLER)
            self.sold += int(book.state.traded[0]) - traded
            record(market, now_ns)
        self.next_ns = NEVER if self.sold == self._plan.lots else now_ns + round(self._plan.every * NS_PER_SECOND)
        return True

    def _due(self, now_ns: int, traded: int) -> int:
        """Return how much should be sold by now, by the time that has passed and by what others traded."""
        share, (began_ns, before) = self._plan.participation, self._began or (now_ns, traded)
        evenly, followed = NEVER, NEVER
        if self._plan.lots is not None:
            evenly = self._plan.lots * (now_ns - began_ns) // self._length_ns
        if share < 1.0:
            followed = int((traded - before - self.sold) * share / (1.0 - share))
        return min(evenly, followed)
