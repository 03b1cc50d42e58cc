"""Scenarios of a simulated market: one file, one thing that can happen to its flow, its venue or its messages.

    flash_crash:lots=5000,participation=0.3,at=10m,for=2m      exchange_outage:at=1h,for=90s      liquidity_drought

A scenario is written `NAME:key=value,…`; times are seconds from the start of the run, or a number with s, m, h or d.
Here stand how they are written and what one may do; `staging.under` puts several on any order flow. Add a file with one
subclass of `Scenario` and it is listed and held to the contract tests.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from synth_pipeline import plugins
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND

if TYPE_CHECKING:
    from synth_pipeline.market.flows import Halt
    from synth_pipeline.market.flows.pace import Pace
    from synth_pipeline.market.tape import Market
    from synth_pipeline.series import IntArray

MACHINERY = frozenset({"measuring", "staging"})
"""Files here that are no scenarios."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Stretch(NamedTuple):
    """A time over which the flow goes at another pace: [start, end) ns."""

    start_ns: int
    end_ns: int
    pace: Pace


class Agent(Protocol):
    """Somebody who does something to the book at moments of their own."""

    next_ns: int
    """The next moment; `NEVER` after the last."""

    def act(self, market: Market, now_ns: int) -> bool:
        """Do it and choose the next moment, later than now; False, with nothing done, when the tape is too full.

        Now is later than the moment chosen where the venue was halted then, or the run began after it.
        """


NEVER = 2**62


def number(
    default: Any = MISSING, *, key: str = "", least: float = -inf, most: float = inf, is_time: bool = False
) -> Any:
    """Declare a parameter with its range, and its name in text where that is another."""
    bounds = {"at least": least, "at most": most}
    rule = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if isfinite(bound)) or "finite"
    return field(default=default, metadata={"key": key, "rule": rule, "bounds": (least, most), "is_time": is_time})


def choice(default: str, *values: str) -> Any:
    """Declare a parameter that is one of some words."""
    return field(default=default, metadata={"values": (default, *values)})


@dataclass(frozen=True, kw_only=True)
class Scenario(ABC):
    """Something that happens to a run; a scenario without any strength is none."""

    at: float = number(0.0, least=0.0, is_time=True)
    """Seconds from the start of the run to where it begins."""

    @staticmethod
    def parse(text: str) -> Scenario:
        """Read `NAME:key=value,…`. Raises `UnknownNameError` and `InputError` for what is none."""
        name, _, rest = text.partition(":")
        kind: type[Scenario] = plugins.load(sys.modules[__name__], name.strip())
        known = {_key(each): each for each in fields(kind)}
        values: dict[str, Any] = {}
        for pair in rest.split(",") if rest else ():
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals:
                raise InputError(f"{pair.strip()!r} of scenario {text!r} is not of the form key=value")
            if key not in known:
                raise InputError(f"scenario {name} has no parameter {key!r}: it has {', '.join(known)}")
            if known[key].name in values:
                raise InputError(f"{key!r} of scenario {text!r} stands twice: give it once")
            values[known[key].name] = _value(name, known[key], value)
        return kind(**values)

    def __post_init__(self) -> None:
        for each in fields(self):
            value, allowed = getattr(self, each.name), each.metadata.get("values")
            if allowed and value not in allowed:
                raise self._refusal(each, f"one of {', '.join(allowed)}")
            if allowed or (value is None and each.default is None):
                continue
            least, most = each.metadata["bounds"]
            if not (isfinite(value) and least <= value <= most):
                raise self._refusal(each, each.metadata["rule"])

    def __str__(self) -> str:
        values = {_key(each): getattr(self, each.name) for each in fields(self)}
        told = [f"{key}={str(value).removesuffix('.0')}" for key, value in values.items() if value is not None]
        return f"{self.name}:{','.join(told)}"

    def _refusal(self, parameter: Field[Any], rule: str) -> InputError:
        given = f"{_key(parameter)}={getattr(self, parameter.name)}"
        return InputError(f"scenario {self.name} cannot have {given}: it must be {rule}")

    @property
    def name(self) -> str:
        """What it is called in text."""
        return type(self).__module__.rpartition(".")[2]

    def span(self, start_ns: int) -> tuple[int, int]:
        """Return from when to when it lasts, ns, in a run from `start_ns`; `NEVER` for one without an end."""
        begin = start_ns + round(self.at * NS_PER_SECOND)
        duration: float | None = getattr(self, "duration", None)
        return begin, NEVER if duration is None else begin + round(duration * NS_PER_SECOND)

    @property
    @abstractmethod
    def is_neutral(self) -> bool:
        """Whether its parameters are such that nothing happens."""

    def stretches(self, start_ns: int) -> Sequence[Stretch]:  # noqa: ARG002 - most go at the usual pace
        """Return when the flow goes at another pace."""
        return ()

    def agents(self, start_ns: int) -> Sequence[Agent]:  # noqa: ARG002 - most send no orders of their own
        """Return who acts on the book besides the flow."""
        return ()

    def halts(self, start_ns: int) -> Sequence[Halt]:  # noqa: ARG002 - most leave the venue as it is
        """Return when the venue does not match."""
        return ()

    def published_ns(self, start_ns: int, time_ns: IntArray) -> IntArray:  # noqa: ARG002 - most are no delay
        """Return when messages of some times get through; it never falls where the times do not."""
        return time_ns


def duration(default: float | None) -> Any:
    """Declare how long a scenario lasts, seconds; None where it may last to the end of the run."""
    return number(default, key="for", least=0.0, is_time=True)


def _key(parameter: Field[Any]) -> str:
    return parameter.metadata.get("key") or parameter.name


def _value(name: str, parameter: Field[Any], text: str) -> Any:
    """Read one value. Raises `InputError` for text that is no number, no whole one or no time."""
    if "values" in parameter.metadata:
        return text
    is_time, is_whole = parameter.metadata["is_time"], "int" in str(parameter.type)
    unit = _UNITS.get(text[-1:], 0.0) if is_time else 0.0
    try:
        return int(text) if is_whole else float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        wanted = "a time such as 600, 90s, 10m or 1h" if is_time else "a whole number" if is_whole else "a number"
        raise InputError(f"scenario {name} cannot have {_key(parameter)}={text}: it must be {wanted}") from None


CONTRACT = Scenario
__all__ = ["CONTRACT", "MACHINERY", "NEVER", "Agent", "Scenario", "Stretch", "choice", "duration", "number"]
