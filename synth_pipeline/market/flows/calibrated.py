"""What calibrated flows have in common: a law as a tuple of arrays, estimates, an opening book; saved, loaded, run."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.generators.inference import Estimate
from synth_pipeline.market.flows import OrderFlow, Run, saving
from synth_pipeline.market.flows.opening import open_market
from synth_pipeline.market.flows.pace import Pace
from synth_pipeline.market.flows.response import Guide, guided
from synth_pipeline.market.tape import Market
from synth_pipeline.schema import Scale
from synth_pipeline.series import IntArray

if TYPE_CHECKING:
    from synth_pipeline.market.flows.response import Fundamental
    from synth_pipeline.ticks.messages import Messages

FEWEST_TOLD = 10
"""Events that a rate needs to be told with its interval; those of fewer are in the law alone."""
LawT = TypeVar("LawT", bound=tuple[Any, ...])
Loop = Callable[[int, Guide], int]
"""Runs up to a time along a guide; returns `DONE`, `FULL` or a code of `stability.REASONS`."""


@dataclass(frozen=True)
class Parameters:
    """What a user may set of every flow. Raises `InputError` for values out of range."""

    reach_ticks: int = 0
    """Furthest distance of new orders from the other side's best; 0 lets the record tell."""
    response_rate: float = 20.0
    """Comparisons with the fundamental price per second, where there is one."""
    pool: int = 2**16
    """Orders that the book can hold, a power of two."""

    def __post_init__(self) -> None:
        if self.reach_ticks < 0:
            raise InputError(f"reach_ticks is {self.reach_ticks}: give a number of ticks, or 0 to let the record tell")
        if not self.response_rate > 0:
            raise InputError(f"response_rate is {self.response_rate}: it must be positive")


@dataclass(frozen=True)
class Opening:
    """The book that a run opens with, in the units of its record."""

    levels: IntArray
    """Rows (side, price, lots)."""
    scale: Scale
    reach: int
    """Ticks from the other side's best within which orders are placed."""
    spread: float
    """Usual ticks between the best prices; the mid may differ from a fundamental price by as much."""
    unit: float
    """Lots of a usual order, of which levels are taken to consist."""

    def facts(self) -> dict[str, Any]:
        """Return all but the levels as JSON takes it."""
        scale = [str(self.scale.tick_size), str(self.scale.lot_size), self.scale.inverse]
        return {"scale": scale, "reach": self.reach, "spread": self.spread, "unit": self.unit}

    @classmethod
    def of(cls, facts: dict[str, Any], levels: IntArray) -> Self:
        """Read back what `facts` returned."""
        tick, lot, inverse = facts["scale"]
        return cls(levels, Scale(Decimal(tick), Decimal(lot), inverse), facts["reach"], facts["spread"], facts["unit"])


class Calibrated(OrderFlow, Generic[LawT]):
    """A flow whose fitted state is a law and an opening."""

    Parameters = Parameters
    Law: ClassVar[type[Any]]
    """`NamedTuple` of numbers, arrays and such tuples, which the compiled loop takes."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self._law: LawT | None = None
        self._opening: Opening | None = None
        self.estimates: dict[str, Estimate] = {}

    @property
    def law(self) -> LawT:
        """The fitted law. Raises `InputError` before `fit`."""
        if self._law is None:
            raise InputError(f"{self._name} is not fitted: call fit, or load one that was")
        return self._law

    @property
    def opening(self) -> Opening:
        """The book that runs open with. Raises `InputError` before `fit`."""
        if self._opening is None:
            raise InputError(f"{self._name} is not fitted: call fit, or load one that was")
        return self._opening

    def opened_with(self, levels: IntArray, *, unit: float = math.inf) -> Self:
        """Return the same flow, whose runs open with other rows (side, price, lots): orders, or levels of `unit`s."""
        other = copy(self)
        other._opening = replace(self.opening, levels=levels, unit=unit)
        return other

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def fit_like(self, messages: Messages, truth: Self) -> Self:
        """Estimate with the classes and the time of day of another one, whose parameters can thus be compared."""

    @abstractmethod
    def _loop(self, market: Market, pace: Pace, rng: np.random.Generator) -> Loop:
        """Return the compiled loop on a market, which goes at a pace that may change."""

    def start(self, start_ns: int, *, rng: np.random.Generator, fundamental: Fundamental | None = None) -> Run:
        """Return a run that opens with the record's last book; with a `fundamental` the mid follows its price."""
        opening = self.opening
        market = open_market(opening.levels, opening.unit, opening.reach, start_ns, self.parameters.pool)
        tick_size, rate = float(opening.scale.tick_size), self.parameters.response_rate
        pace = Pace.usual()
        loop = self._loop(market, pace, rng)
        return Run(market, guided(fundamental, tick_size, rate, opening.spread, start_ns, loop), pace)

    def summary(self) -> dict[str, float]:
        """Return the estimates by name, and beside each its standard error as `…_se`, NaN where there is none."""
        errors = {f"{name}_se": float("nan") if x.error is None else x.error for name, x in self.estimates.items()}
        return {name: each.value for name, each in self.estimates.items()} | errors

    def save(self, folder: Path) -> None:
        """Write `flow.json` and `flow.npz`."""
        facts = {
            "parameters": asdict(self.parameters),
            "opening": self.opening.facts(),
            "estimates": {name: [x.value, x.error, x.link] for name, x in self.estimates.items()},
            "notes": list(self.notes),
            "diagnostics": dict(self.diagnostics),
        }
        saving.write(folder, self._name, facts, saving.packed(self.law) | {"opening": self.opening.levels})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote. Raises `InputError` for a folder without such a flow."""
        facts, arrays = saving.read(folder, cls.__module__.rpartition(".")[2])
        flow = cls(cls.Parameters(**facts["parameters"]))
        flow._opening = Opening.of(facts["opening"], arrays.pop("opening"))
        flow._law = saving.unpacked(cls.Law, arrays)
        flow.estimates = {name: Estimate(*each) for name, each in facts["estimates"].items()}
        flow.notes, flow.diagnostics = tuple(facts["notes"]), facts["diagnostics"]
        return flow
