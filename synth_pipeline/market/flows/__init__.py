"""Order flows: one file, one calibrated model of who sends what to the book, and when.

A flow is fitted on messages (`ticks.messages`: sizes added, cancelled and executed, of levels or of orders) and then
runs on the matching engine. Here stands the contract; the files named in `MACHINERY` hold what flows share. Add a file
with one subclass of `OrderFlow` and it is listed and held to every law below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from synth_pipeline import plugins
from synth_pipeline.errors import SynthError
from synth_pipeline.progress import Progress, silent

if TYPE_CHECKING:
    from synth_pipeline.market.flows.pace import Pace
    from synth_pipeline.market.flows.response import Fundamental
    from synth_pipeline.market.tape import Market
    from synth_pipeline.series import IntArray
    from synth_pipeline.ticks.messages import Messages

MACHINERY = frozenset(
    {
        "calibrated",
        "day_shape",
        "hawkes_events",
        "hawkes_run",
        "multivariate_hawkes",
        "observing",
        "opening",
        "pace",
        "placement",
        "positions",
        "queue_law",
        "queues",
        "recovery",
        "replaying",
        "response",
        "saving",
        "sizes",
        "stability",
        "tallying",
    }
)
"""Files here that flows share, not flows."""

DONE, FULL = 0, 1
"""What a compiled loop returns besides the `stability` codes: the time is reached; the tape or journal is full."""


class Halt(NamedTuple):
    """A time [start, end) ns in which the venue does not match; nothing happens to the book."""

    start_ns: int
    end_ns: int
    rejects: bool
    """Whether orders sent meanwhile are rejected; else they are matched at its end, in the order they were sent."""
    is_gap: bool
    """Whether its feed breaks off and begins anew with a full book; else it stays connected and is silent."""


class Run:
    """A flow that is running on a book of its own.

    `step(until_ns)` is the flow's compiled loop; it returns `DONE`, `FULL` or a code of `stability.REASONS`.
    """

    halts: Sequence[Halt] = ()
    """When the venue does not match: who sends orders or publishes has to heed it."""

    def __init__(self, market: Market, step: Callable[[int], int], pace: Pace) -> None:
        self.market = market
        self.pace = pace
        self._step = step

    @property
    def now_ns(self) -> int:
        """The time up to which the flow has run."""
        return int(self.market.clock.now_ns[0])

    def advance(self, until_ns: int) -> bool:
        """Run up to a time; False when the tape is full: drain it, `tape.rewind`, and call again.

        What happens does not depend on how often this is called. Raises `SynthError` with what broke, and when, once
        the market is no market any more: a side is empty, the price has run away, the book is full.
        """
        from synth_pipeline.market.flows.stability import REASONS, emptied

        # Others may have taken all that stood on a side, and the flow places its orders by the best prices.
        code = emptied(self.market.book) or self._step(until_ns)
        if code in REASONS:
            raise SynthError(f"the simulation broke down at {self.now_ns} ns: {REASONS[code]}")
        return code == DONE

    def published_ns(self, time_ns: IntArray) -> IntArray:
        """Return when messages of some times, ascending, get through besides the usual latency; none overtakes another.

        It holds for what the venue publishes and for what is sent to it.
        """
        return time_ns


class OrderFlow(ABC):
    """A model of order flow, fitted on messages, that runs on the matching engine.

    Laws, held by the contract tests: `fit` does not touch its input; the same seed runs the same events and another
    seed others, however the time is cut into calls of `advance`; save → load → run changes nothing; the book is never
    crossed; a breakdown is an error that names it.
    """

    Parameters: ClassVar[type[Any]]
    """Frozen dataclass of what a user may set; every field has a default."""
    notes: Sequence[str] = ()
    """What the fit fell back on or had to infer, and why, one line each."""
    diagnostics: Mapping[str, float] = {}
    """Tests of the fit: `…_ks` Kolmogorov-Smirnov distances of time-rescaled waiting times, `…_p` their p-values; and
    what follows from the estimates."""

    def __init__(self, parameters: Any = None) -> None:
        self.parameters = self.Parameters() if parameters is None else parameters

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Make one from plain values.

        Raises `InputError` for a name that `Parameters` lacks or a value that does not fit.
        """
        return cls(plugins.parameters_of(cls, settings))

    @abstractmethod
    def fit(self, messages: Messages, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate from messages and return self.

        Raises `TooLittleDataError` for messages too few or too one-sided to tell the rates, `TrainingError` where an
        estimate is not stationary.
        """

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Return the estimates by name, and beside each its standard error as `…_se`; rates are per second."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted state into an existing folder: arrays and JSON, no pickled code."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""

    @abstractmethod
    def start(self, start_ns: int, *, rng: np.random.Generator, fundamental: Fundamental | None = None) -> Run:
        """Return a run that opens with a book as calibrated; with a `fundamental` the mid follows its price."""


CONTRACT = OrderFlow
__all__ = ["CONTRACT", "DONE", "FULL", "MACHINERY", "Halt", "OrderFlow", "Run"]
