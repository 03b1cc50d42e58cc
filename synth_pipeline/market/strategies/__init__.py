"""Reference strategies: what one may try a market on, and measure others against.

A strategy belongs to one participant; between the steps of a session it acts on what that participant knows. Here stand
how they are played and what comes of it; `maker` quotes both sides, `taker` works off an order, `impact` measures what
that does to the price.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.participant import Participant
from synth_pipeline.market.session import Session
from synth_pipeline.progress import Progress, silent

WEALTH = np.dtype([("time_ns", np.int64), ("position", np.int64), ("cash", np.int64), ("mid", np.float64)])
"""What a participant has, by the reports so far: lots, ticks times lots, and the mid as it sees it (NaN: one-sided)."""


class Strategy(Protocol):
    """Somebody who acts between steps."""

    participant: Participant

    def act(self, now_ns: int) -> None:
        """Send, change and cancel orders."""


def play(
    session: Session,
    strategies: Sequence[Strategy],
    until_ns: int,
    *,
    step_ns: int,
    progress: Progress = silent,
) -> list[np.ndarray]:
    """Let strategies act before every step up to a time; returns of each its `WEALTH` after every step."""
    if step_ns <= 0:
        raise InputError(f"step_ns is {step_ns}: a step must take time")
    start_ns = session.now_ns
    steps = -(-(until_ns - start_ns) // step_ns)
    found = [np.zeros(steps, WEALTH) for _ in strategies]
    for number in range(steps):
        for strategy in strategies:
            strategy.act(session.now_ns)
        session.step(min(start_ns + (number + 1) * step_ns, until_ns))
        for rows, strategy in zip(found, strategies, strict=True):
            who = strategy.participant
            rows[number] = (session.now_ns, who.position, who.cash, np.nan if who.mid is None else who.mid)
        progress(number + 1, steps, "playing")
    return found


def wealth_of(rows: np.ndarray) -> np.ndarray:
    """Return the wealth of `WEALTH` rows, ticks times lots, the position valued at the mid."""
    return np.asarray(rows["cash"] + rows["position"] * rows["mid"])
