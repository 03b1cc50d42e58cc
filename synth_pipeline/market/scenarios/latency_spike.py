"""Latency spike: messages get through late, in the order in which they were sent.

A message of [at, at + for) takes `by` seconds longer, whichever way it goes: what the venue publishes is received late,
what participants send arrives late. None overtakes another, so what was sent just after the spike waits for what was
sent at its end and comes together with it (a link that keeps order: TCP, RFC 9293). The book itself is as without it.
"""

from dataclasses import dataclass

import numpy as np

from synth_pipeline.market.scenarios import Scenario, duration, number
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import IntArray


@dataclass(frozen=True, kw_only=True)
class LatencySpike(Scenario):
    """Messages late for a time."""

    duration: float | None = duration(10.0)
    by: float = number(0.5, least=0.0, is_time=True)

    @property
    def is_neutral(self) -> bool:
        """Whether nothing comes later."""
        return self.by == 0 or self.duration == 0

    def published_ns(self, start_ns: int, time_ns: IntArray) -> IntArray:
        """Return the times, those within the spike later by `by`, those after it no earlier than its last."""
        begin, end = self.span(start_ns)
        late = round(self.by * NS_PER_SECOND)
        after = np.maximum(time_ns, end + late)
        return np.asarray(np.where(time_ns < begin, time_ns, np.where(time_ns < end, time_ns + late, after)))
