"""A market as a Gymnasium environment (pip install 'synth-pipeline[gym]'): an agent quotes, or takes, against a flow.

    env = MarketEnv(flow, horizon_s=60.0, step_s=0.5)
    observation, info = env.reset(seed=1)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

An action chooses offset and size of a bid and of an ask, and perhaps a market order. The reward is the change of
wealth in the step (cash, and the position at the mid, as the agent knows them; ticks times lots) less
`inventory_penalty` times the squared position and the seconds (the running penalty of Cartea and Jaimungal 2015, "Risk
metrics and fine tuning of high-frequency trading strategies", Math. Finance 25). An episode is truncated at its horizon
and terminated when the market breaks down; `info` then has the reason. The API is that of Gymnasium 1.x.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.flows import OrderFlow
from synth_pipeline.market.latency import Latency
from synth_pipeline.market.participant import Participant
from synth_pipeline.market.session import Session
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise InputError("the market environment needs gymnasium: pip install 'synth-pipeline[gym]'") from error

Observation = dict[str, np.ndarray]
_FAR = 1e9
"""Bound of what has none by nature, beyond all that happens."""


class MarketEnv(gymnasium.Env[Observation, np.ndarray]):
    """One agent in a session; every episode is a new run of the flow.

    Observations, float32: `book` of shape (2 sides, levels, 2), ticks from the mid and lots, zeros where there is no
    level; `inventory` in lots; `orders` of shape (2 sides, 2), the own quotes' ticks from the mid and lots left, zeros
    where there is none; `time`, the share of the episode that is over.

    Actions: five numbers. Bid and ask: 0 for no quote, else 1 + the place in `offsets`, ticks behind the own side's
    best price (negative ones inside the spread); sizes of both, places in `sizes` (lots); market order: 0 none, 1 buy,
    2 sell, of the bid's or ask's size. Quotes are post-only, and none is sent that would take the position beyond
    `most_lots`. Where an action leaves a quote as it is, it keeps its place in the queue.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - the base class has it so

    def __init__(
        self,
        flow: OrderFlow,
        *,
        horizon_s: float = 60.0,
        step_s: float = 0.5,
        start_ns: int = 0,
        levels: int = 5,
        offsets: tuple[int, ...] = (0, 1, 2, 5, 10),
        sizes: tuple[int, ...] = (1, 5, 10),
        most_lots: int = 100,
        inventory_penalty: float = 0.0,
        latency: Latency | None = None,
    ) -> None:
        if not (horizon_s >= step_s > 0 and levels > 0 and offsets and sizes and min(sizes) > 0 and most_lots > 0):
            raise InputError(
                "an episode needs horizon_s >= step_s > 0, a level, an offset, sizes and most_lots of a lot or more"
            )
        self._flow, self._latency = flow, latency or Latency()
        self._start_ns, self._step_ns = start_ns, round(step_s * NS_PER_SECOND)
        self._steps = math.ceil(horizon_s / step_s)
        self._levels, self._offsets, self._sizes = levels, offsets, sizes
        self._most_lots, self._inventory_penalty = most_lots, inventory_penalty
        # A Dict is a space of dicts of arrays, which its stub does not know.
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {
                "book": spaces.Box(-_FAR, _FAR, (2, levels, 2)),
                "inventory": spaces.Box(-_FAR, _FAR, (1,)),
                "orders": spaces.Box(-_FAR, _FAR, (2, 2)),
                "time": spaces.Box(0.0, 1.0, (1,)),
            }
        )
        quotes = len(offsets) + 1
        self.action_space = spaces.MultiDiscrete([quotes, quotes, len(sizes), len(sizes), 3])
        self._session: Session | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; one seed is one episode, whatever came before."""
        super().reset(seed=seed, options=options)
        episode = int(self.np_random.integers(2**63))
        self._session = Session(self._flow.start(self._start_ns, rng=stream(episode, "run")))
        self._agent = self._session.join("agent", self._latency, rng=stream(episode, "latency"))
        self._quotes = [0, 0]
        self._taken = 0
        self._wealth = 0.0
        self._mid = self._agent.mid or 0.0
        return self._observed(), self._info()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send what an action says, go on by a step, and see what has come of it.

        Raises `InputError` before `reset` and for an action outside the space.
        """
        if self._session is None:
            raise InputError("the environment has no episode: call reset first")
        if not self.action_space.contains(action):
            raise InputError(f"action {action!r} is outside {self.action_space}")
        self._act(*(int(each) for each in action))
        breakdown = ""
        try:
            self._session.step(self._session.now_ns + self._step_ns)
        except SynthError as error:
            breakdown = str(error)
        self._taken += 1
        self._mid = self._agent.mid or self._mid
        before, self._wealth = self._wealth, self._agent.cash + self._agent.position * self._mid
        penalty = self._inventory_penalty * self._agent.position**2 * self._step_ns / NS_PER_SECOND
        truncated = not breakdown and self._taken >= self._steps
        info = self._info() | ({"breakdown": breakdown} if breakdown else {})
        return self._observed(), self._wealth - before - penalty, bool(breakdown), truncated, info

    def _act(self, bid: int, ask: int, bid_size: int, ask_size: int, take: int) -> None:
        agent, sizes = self._agent, (self._sizes[bid_size], self._sizes[ask_size])
        if take:
            side = BID if take == 1 else ASK
            lots = self._within(side, sizes[side])
            if lots > 0:
                agent.submit(side, None, lots, kind="market")
        for side, best, choice in zip((BID, ASK), agent.book(1), (bid, ask), strict=True):
            lots = self._within(side, sizes[side])
            price = int(best[0, 0]) + (2 * side - 1) * self._offsets[choice - 1] if choice and len(best) else 0
            self._quote(side, price, lots)

    def _quote(self, side: int, price: int, lots: int) -> None:
        agent, order = self._agent, self._quotes[side]
        known = agent.orders.get(order)
        if known is not None and (known.price, known.left) != (price, lots):
            if price > 0 and lots > 0:
                agent.modify(order, price, lots)
            else:
                agent.cancel(order)
        elif known is None and price > 0 and lots > 0:
            self._quotes[side] = agent.submit(side, price, lots, post_only=True)

    def _within(self, side: int, lots: int) -> int:
        """Return how many of some lots may be traded without holding more than the most."""
        return min(lots, self._most_lots - (1 - 2 * side) * self._agent.position)

    def _observed(self) -> Observation:
        agent = self._agent
        book, orders = np.zeros((2, self._levels, 2), np.float32), np.zeros((2, 2), np.float32)
        for side, seen in enumerate(agent.book(self._levels)):
            book[side, : len(seen)] = seen - (self._mid, 0.0)
            order = agent.orders.get(self._quotes[side])
            if order is not None:
                orders[side] = order.price - self._mid, order.left
        return {
            "book": book,
            "inventory": np.array([agent.position], np.float32),
            "orders": orders,
            "time": np.array([self._taken / self._steps], np.float32),
        }

    def _info(self) -> dict[str, Any]:
        agent: Participant = self._agent
        return {"position": agent.position, "cash": agent.cash, "mid": self._mid, "fills": len(agent.fills)}
