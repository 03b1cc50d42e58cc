"""Exchange outage: matching halts, the book stands still and stale; then the venue opens again.

Nothing happens in [at, at + for). What the flow would have sent meanwhile is rejected and never seen (`orders=reject`),
or waits at the venue (`orders=queue`) and is matched within `burst` seconds of the reopening: as many orders as would
have come, drawn against the book that they then meet. Orders of others meet the same rule (`Run.halts`). A fundamental
price goes on, and the book jumps to it at the reopening.

The feed of a venue that hangs stays connected and says nothing (`feed=stale`), or breaks off and starts anew with a
full book (`feed=gap`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from synth_pipeline.errors import InputError
from synth_pipeline.market.flows import Halt
from synth_pipeline.market.flows.pace import Pace
from synth_pipeline.market.scenarios import Scenario, Stretch, choice, duration, number
from synth_pipeline.schema import NS_PER_SECOND


@dataclass(frozen=True, kw_only=True)
class ExchangeOutage(Scenario):
    """A venue that is silent for a time."""

    duration: float = duration(60.0)
    orders: str = choice("queue", "reject")
    burst: float = number(1.0, least=0.001, is_time=True)
    feed: str = choice("stale", "gap")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.duration and self.orders == "queue" and self.duration > 10_000 * self.burst:
            raise InputError(
                f"scenario {self.name} cannot have burst={self.burst:g}: it must be at least for / 10000, "
                f"{self.duration / 10_000:g}"
            )

    @property
    def is_neutral(self) -> bool:
        """Whether it lasts no time."""
        return self.duration == 0

    def stretches(self, start_ns: int) -> Sequence[Stretch]:
        """Return the silence and, where orders queue, the burst in which the flow's clock makes up for it."""
        begin, end = self.span(start_ns)
        silence, burst = Pace.usual(), Pace.usual()
        silence.response[:] = 0.0
        if self.orders == "reject":
            silence.rates[:] = 0.0
            return [Stretch(begin, end, silence)]
        silence.speed[:], burst.speed[:] = 0.0, 1.0 + self.duration / self.burst
        return [Stretch(begin, end, silence), Stretch(end, end + round(self.burst * NS_PER_SECOND), burst)]

    def halts(self, start_ns: int) -> Sequence[Halt]:
        """Return the silence."""
        return [Halt(*self.span(start_ns), self.orders == "reject", self.feed == "gap")]
