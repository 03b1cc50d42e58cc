"""A reference market maker: quotes around the mid that lean against its inventory.

Guéant, Lehalle and Fernandez-Tapia (2013), "Dealing with the inventory risk: a solution to the market making problem",
Math. Financ. Econ. 7, solve the model of Avellaneda and Stoikov (2008): the mid is a Brownian motion of volatility σ, a
quote at distance δ is filled at the rate A e^{-kδ}, the maker has constant absolute risk aversion γ. Far from the end,
with q orders' worth of inventory (their section 4, the asymptotic quotes):

    δ_bid = ln(1 + γ/k) / γ + (2q + 1)/2 · s      δ_ask = ln(1 + γ/k) / γ - (2q - 1)/2 · s
    s = √( σ² γ / (2 k A) · (1 + γ/k)^(1 + k/γ) )

γ is given as a multiple of k, so that it means the same whatever a tick is worth. A, k and σ come from the flow itself
(`fill_rates`). The model knows no adverse selection: where trades move the mid for good it loses what they move it by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from synth_pipeline.errors import InputError
from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.participant import REFUSED, Participant
from synth_pipeline.market.strategies.fill_rates import FillRates


@dataclass(frozen=True)
class Quoting:
    """Where to quote. Raises `InputError` for a risk aversion that is not positive."""

    rates: FillRates
    risk_aversion: float = 0.1
    """[γ / k]"""

    def __post_init__(self) -> None:
        if not self.risk_aversion > 0:
            raise InputError(f"risk_aversion is {self.risk_aversion}: it must be positive")

    @property
    def half_spread(self) -> float:
        """Ticks from the mid of both quotes without inventory and volatility."""
        return math.log1p(self.risk_aversion) / (self.risk_aversion * self.rates.decay)

    @property
    def skew(self) -> float:
        """[s] Ticks by which both quotes move for each order's worth of inventory."""
        rates, ratio = self.rates, self.risk_aversion
        factor = (1 + ratio) ** (1 + 1 / ratio)
        return rates.volatility * math.sqrt(ratio / (2 * rates.rate) * factor)

    def distances(self, inventory: float) -> tuple[float, float]:
        """Return how far below the mid to bid and above it to ask, ticks, with so many orders' worth of inventory."""
        return (
            self.half_spread + (inventory + 0.5) * self.skew,
            self.half_spread - (inventory - 0.5) * self.skew,
        )


class MarketMaker:
    """Keeps one bid and one ask in the book, post-only, and none on a side where it holds the most it may."""

    def __init__(self, participant: Participant, quoting: Quoting, *, lots: int = 1, most: int = 10) -> None:
        if lots < 1 or most < lots:
            raise InputError(f"lots={lots}, most={most}: quote at least one lot, and hold at least one quote")
        self.participant = participant
        self._quoting, self._lots, self._most = quoting, lots, most
        self._quotes: dict[int, int] = {}
        """Own order by side."""
        self._asked: dict[int, tuple[int, int]] = {}
        """Price and lots last asked for, by side."""

    def act(self, now_ns: int) -> None:  # noqa: ARG002 - it acts on what it knows, whatever the time
        """Put both quotes where they belong."""
        who, mid = self.participant, self.participant.mid
        for report in who.reports:
            if report.event == REFUSED:
                # What was asked for is not there, so it will be asked for anew.
                self._asked.pop(report.side, None)
        if mid is None:
            return
        bid, ask = self._quoting.distances(who.position / self._lots)
        self._quote(BID, math.floor(mid - bid), min(self._lots, self._most - who.position))
        self._quote(ASK, math.ceil(mid + ask), min(self._lots, self._most + who.position))

    def _quote(self, side: int, price: int, lots: int) -> None:
        who, order = self.participant, self._quotes.get(side, 0)
        # Never across what it sees: a maker does not pay the spread.
        bids, asks = who.book(1)
        price = max(1, min(price, int(asks[0, 0]) - 1)) if side == BID else max(price, int(bids[0, 0]) + 1)
        if order not in who.orders:
            self._quotes.pop(side, None)
            if lots > 0:
                self._quotes[side] = who.submit(side, price, lots, post_only=True)
                self._asked[side] = price, lots
        elif lots <= 0:
            if self._asked.pop(side, None):
                who.cancel(order)
        elif self._asked.get(side) != (price, lots):
            who.modify(order, price, lots)
            self._asked[side] = price, lots
