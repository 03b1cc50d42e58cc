"""Scenarios put on an order flow: its runs stop where something begins or ends, let it happen, and go on.

Whoever runs the flow needs not know. Several scenarios act together: paces multiply, halts add up, delays follow one
another. A scenario without strength is left out, so that the run is the flow's own to the byte, as it is until the
first scenario begins. Nothing depends on how the time is cut into calls of `advance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from synth_pipeline.market.flows import OrderFlow, Run
from synth_pipeline.market.flows.pace import Pace
from synth_pipeline.market.scenarios import NEVER, Scenario, Stretch
from synth_pipeline.series import IntArray

if TYPE_CHECKING:
    from synth_pipeline.market.flows.response import Fundamental

FlowT = TypeVar("FlowT", bound=OrderFlow)


def under(flow: FlowT, scenarios: Sequence[Scenario | str], *, origin_ns: int | None = None) -> FlowT:
    """Return a flow whose runs go through scenarios, given or as text; all else of it is the flow's.

    Their times count from `origin_ns`, by default from the start of each run. Raises as `Scenario.parse`.
    """
    parsed = [Scenario.parse(each) if isinstance(each, str) else each for each in scenarios]
    active = [each for each in parsed if not each.is_neutral]
    return cast("FlowT", Staged(flow, active, origin_ns)) if active else flow


class Staged:
    """A fitted flow under scenarios; what it does not have itself is the flow's."""

    def __init__(self, flow: OrderFlow, scenarios: Sequence[Scenario], origin_ns: int | None) -> None:
        self.flow, self.scenarios, self.origin_ns = flow, scenarios, origin_ns

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["flow"], name)

    def start(self, start_ns: int, *, rng: np.random.Generator, fundamental: Fundamental | None = None) -> Run:
        """Return a run of the flow under the scenarios."""
        run = self.flow.start(start_ns, rng=rng, fundamental=fundamental)
        return StagedRun(run, self.scenarios, start_ns if self.origin_ns is None else self.origin_ns)


class StagedRun(Run):
    """A run that stops at every moment at which a scenario changes something."""

    def __init__(self, run: Run, scenarios: Sequence[Scenario], origin_ns: int) -> None:
        super().__init__(run.market, run._step, run.pace)
        self._scenarios, self._origin_ns = scenarios, origin_ns
        self.halts = sorted(halt for each in scenarios for halt in each.halts(origin_ns))
        self._stretches = [stretch for each in scenarios for stretch in each.stretches(origin_ns)]
        self._agents = [agent for each in scenarios for agent in each.agents(origin_ns)]
        self._edges = sorted({edge for each in self._stretches for edge in (each.start_ns, each.end_ns)})

    def advance(self, until_ns: int) -> bool:
        """Run up to a time, as `Run.advance` says."""
        while True:
            stop_ns = min([*self._edges[:1], *(agent.next_ns for agent in self._agents)], default=NEVER)
            if stop_ns > self.now_ns or stop_ns > until_ns:
                done = super().advance(min(until_ns, stop_ns))
                if not done or stop_ns > until_ns:
                    return done
            if not self._let_happen(stop_ns):
                return False

    def published_ns(self, time_ns: IntArray) -> IntArray:
        """Return when messages get through the scenarios' delays, one after the other."""
        for each in self._scenarios:
            time_ns = each.published_ns(self._origin_ns, time_ns)
        return time_ns

    def _let_happen(self, stop_ns: int) -> bool:
        """Change the pace and let agents act; False where the tape is too full for one of them."""
        now_ns = max(stop_ns, self.now_ns)
        while self._edges and self._edges[0] <= now_ns:
            del self._edges[0]
            self.pace.change(_pace_of(self._stretches, now_ns))
        reopens_ns = max((halt.end_ns for halt in self.halts if halt.start_ns <= now_ns < halt.end_ns), default=now_ns)
        for agent in self._agents:
            if agent.next_ns > stop_ns:
                continue
            if reopens_ns > now_ns:
                agent.next_ns = reopens_ns
            elif not agent.act(self.market, now_ns):
                return False
            self.pace.is_new[0] = 1
        return True


def _pace_of(stretches: Sequence[Stretch], now_ns: int) -> Pace:
    """Return the pace of a time: the product of all that hold then."""
    found = Pace.usual()
    for stretch in stretches:
        if stretch.start_ns <= now_ns < stretch.end_ns:
            for factors, more in zip(found[:-1], stretch.pace[:-1], strict=True):
                factors *= more
    return found
