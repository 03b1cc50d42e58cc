"""The efficient price and the pace of the market: what is known beside the orders, and how fast all of them act on it.

Trades tell most of what there is to know, so the efficient price is the mid that orders have made, and moves besides by
news alone (Madhavan, Richardson, Roomans 1997, Rev. Financ. Stud. 10): Laplace jumps at a Poisson rate (Merton 1976)
that the market learns within seconds; the flow follows them through its `response`. A price with a diffusion of its
own, which orders know nothing of and follow, swings back: lag-one autocorrelations of half-second returns below -0.1,
which real ones have not.

Everything runs in business time (Clark 1973, "A subordinated stochastic process model"): all rates of the flow, and of
the news, share one pace,

    pace(t) = level · a(t) · exp(Σ (x_j - v_j / 2)),      dx_j = -κ_j x_j dt + √(2 κ_j v_j) dB_j,

a(t) the shape of the day and x_j independent stationary Ornstein-Uhlenbeck processes of variance v_j, some that forget
in seconds and some in days. E[exp(…)] = 1. Variance of returns comes at the pace of the orders: that is the stochastic
volatility (multi-scale log-normal, as in Chernov, Gallant, Ghysels, Tauchen 2003, J. Econometrics 116), and why trades
and volatility cluster together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from synth_pipeline.market.engine import ASK, BID
from synth_pipeline.market.flows import OrderFlow
from synth_pipeline.market.flows.day_shape import activity
from synth_pipeline.market.tape import Market
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray

STEP_NS = 250_000_000
"""Time over which a pace and an efficient price are held."""
_STEP_S = STEP_NS / NS_PER_SECOND
_LEARNT = 1.0 - 0.5 ** (_STEP_S / 5.0)
"""Share of what is left of the news that the market learns in a step, half of it in five seconds: bars by the minute,
of which its size is told, do not tell how fast."""
_NOTHING = 1e-7
"""News, as a log price, that is too little to act on."""


class EfficientLaw(NamedTuple):
    """Pace and news."""

    level: float
    """Mean pace, of the order flow as fitted."""
    day: FloatArray
    """[a] by equal parts of a UTC day, 1 on average."""
    variances: FloatArray
    """[v_j] of log pace."""
    half_lives_s: FloatArray
    """[ln 2 / κ_j] seconds."""
    news_per_day: float
    """At the mean pace."""
    news_scale: float
    """Mean absolute size of the log jump."""


def steps(law: EfficientLaw, start_ns: int, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield the pace of one step of `STEP_NS` after the other, and the news learnt in it as a log return."""
    kept = 0.5 ** (_STEP_S / law.half_lives_s)
    moving, offset = np.sqrt(law.variances * (1 - kept**2)), 0.5 * float(law.variances.sum())
    state = np.sqrt(law.variances) * rng.standard_normal(law.variances.size)
    often, news = law.news_per_day / 86_400 * _STEP_S, 0.0
    for now_ns in count(start_ns, STEP_NS):
        relative = activity(law.day, now_ns) * math.exp(float(state.sum()) - offset)
        if rng.random() < often * relative:
            news += rng.laplace(0.0, law.news_scale)
        learnt = _LEARNT * news if abs(news) > _NOTHING else 0.0
        news -= learnt
        yield law.level * relative, learnt
        state = kept * state + moving * rng.standard_normal(law.variances.size)


class Driven:
    """A run of a flow at the pace of a law, which learns its news."""

    def __init__(
        self, flow: OrderFlow, law: EfficientLaw, start_ns: int, tick_size: float, rngs: Sequence[np.random.Generator]
    ) -> None:
        """Start with two random streams, of the orders and of pace and news."""
        self._steps = steps(law, start_ns, rngs[1])
        self._tick_size = tick_size
        self._reached_ns = self._end_ns = start_ns
        self._log_price = np.zeros(1)
        self._run = flow.start(start_ns, rng=rngs[0], fundamental=self)

    @property
    def market(self) -> Market:
        """As a `Run`'s."""
        return self._run.market

    def piece(self, now_ns: int) -> tuple[int, int, FloatArray]:  # noqa: ARG002 - the step is the one it runs in
        """Return the step that holds a time, and the efficient price in it, as a `Fundamental` does."""
        return self._end_ns - STEP_NS, STEP_NS, self._log_price

    def advance(self, until_ns: int) -> bool:
        """Run up to a time; False when the tape is full, as `Run.advance`."""
        while self._reached_ns < until_ns:
            if self._reached_ns == self._end_ns:
                self._begin_step()
            next_ns = min(until_ns, self._end_ns)
            if not self._run.advance(next_ns):
                return False
            self._reached_ns = next_ns
        return True

    def _begin_step(self) -> None:
        pace, (speed, news) = self._run.pace, next(self._steps)
        sides = self.market.book.sides
        mid = 0.5 * (sides[BID].best + sides[ASK].best)
        self._end_ns += STEP_NS
        self._log_price = np.array([math.log(mid * self._tick_size) + news])
        pace.speed[0], pace.response[0], pace.is_new[0] = speed, float(news != 0.0), 1
