"""What can happen to a sampled path: one class a shock, each a change of one market's columns, piece by piece.

    volatility:times=3,at=600,for=120          outage:at=1h,for=5m          gap:by=-0.05,at=10d,asset=BTCUSDT

A shock is written `KIND:name=value,…`; times are seconds, or a number with s, m, h, d or w.

What belongs here: parameters, and what they do to prices, spreads and sizes before these are put back on their grids.
What does not: streams, several assets, grids (`scenarios`).

Shocks of the price are written as what they add to the log price, from the path as it was: nothing is rounded in
between, so that no error grows along a path, and outside of its stretch a shock leaves log-returns as they were. Step k
lies k steps' time after the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from math import isfinite, log1p
from typing import Any, ClassVar

import numpy as np

from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.schema import NS_PER_SECOND, BarFlag, GridFlag
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.synthesis.columns import BARS, SIZES

Columns = dict[str, FloatArray]
Effect = Callable[[Columns, IntArray], Columns]
"""From the columns of the next steps, and the numbers of these, to what becomes of them; it remembers what it needs."""

_POINTS = ("mid", "microprice", "vwap", "depth_mid", "last_price")
"""Prices that are one number a step; those of bars are a shape."""
_ACTIVITY = (*sorted(SIZES), "turnover", "trade_count", "quote_count")
_IMBALANCES = ("imbalance_1", "imbalance_5", "imbalance_10")
_FOREVER = 2**62
_MOST_LOG = 600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def _number(
    default: Any = MISSING,
    *,
    key: str = "",
    least: float = -np.inf,
    above: float = -np.inf,
    most: float = np.inf,
    below: float = np.inf,
    is_time: bool = False,
) -> Any:
    """Declare a parameter: its name in text where that is another, and its range."""
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    rule = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if isfinite(bound)) or "finite"
    metadata = {"key": key, "is_time": is_time, "rule": rule, "bounds": (least, above, most, below)}
    return field(default=default, metadata=metadata)


def _duration(default: Any = MISSING, key: str = "for") -> Any:
    """Declare a parameter in seconds, above 0."""
    return _number(default, key=key, above=0.0, is_time=True)


@dataclass(frozen=True, kw_only=True)
class Shock(ABC):
    """Something that happens to every path."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Columns of which it changes something; a series with none of them is not one for it. Empty: the price."""

    at: float = _number(0.0, least=0.0, is_time=True)
    """Seconds from the first step to where it begins."""
    asset: str = ""
    """Only this one; empty for all."""

    @staticmethod
    def parse(text: str) -> Shock:
        """Read `KIND:name=value,…`. Raises `UnknownNameError` and `InputError` for what is none."""
        kind, _, rest = text.partition(":")
        values: dict[str, Any] = {}
        for pair in rest.split(",") if rest else ():
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or key in values:
                state = "stands twice" if key in values else "is not of the form name=value"
                raise InputError(f"{pair.strip()!r} of shock {text!r} {state}: write {kind}:name=value,name=value")
            values[key] = value
        return Shock.of(kind.strip(), values)

    @staticmethod
    def of(kind: str, values: Mapping[str, Any]) -> Shock:
        """Make one from its parameters, numbers or text. Raises as `parse` does."""
        if kind not in KINDS:
            raise UnknownNameError("shock", kind, KINDS)
        known = {_key(each): each for each in fields(KINDS[kind])}
        if stray := next((key for key in values if key not in known), None):
            raise InputError(f"shock {kind} has no parameter {stray!r}: it has {', '.join(known)}")
        if lacking := next((key for key, each in known.items() if each.default is MISSING and key not in values), None):
            raise InputError(f"shock {kind} lacks {lacking}: give it as {kind}:{lacking}=VALUE")
        read = {known[key].name: _value(kind, key, known[key], value) for key, value in values.items()}
        return KINDS[kind](**read)

    def to_json(self) -> dict[str, Any]:
        """Return the kind and every parameter that is not at its default; `of` reads them back."""
        values = {_key(each): getattr(self, each.name) for each in fields(self)}
        defaults = {_key(each): each.default for each in fields(self)}
        return {"kind": self.name} | {key: value for key, value in values.items() if value != defaults[key]}

    def __str__(self) -> str:
        values = [f"{key}={str(value).removesuffix('.0')}" for key, value in self.to_json().items() if key != "kind"]
        return f"{self.name}:{','.join(values)}"

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if "bounds" not in each.metadata or (value is None and each.default is None):
                continue
            least, above, most, below = each.metadata["bounds"]
            if not (isfinite(value) and least <= value <= most and above < value < below):
                rule = each.metadata["rule"]
                raise InputError(f"shock {self.name} cannot have {_key(each)}={value:g}: it must be {rule}")

    def start(self, step_ns: int) -> int:
        """Return its first step."""
        return -(-round(self.at * NS_PER_SECOND) // step_ns)

    @abstractmethod
    def effect(self, step_ns: int, rng: np.random.Generator) -> Effect:
        """Return what it does to one path of one market."""


@dataclass(frozen=True, kw_only=True)
class Stretch(Shock):
    """A shock of a stretch of steps, which are those in [at, at + for)."""

    duration: float | None = _duration(None)
    """Seconds; None to the end of the path."""

    def stop(self, step_ns: int) -> int:
        """Return the first step after it. Raises `InputError` when it covers none."""
        if self.duration is None:
            return _FOREVER
        stop = -(-round((self.at + self.duration) * NS_PER_SECOND) // step_ns)
        if stop == self.start(step_ns):
            step = f"{step_ns / NS_PER_SECOND:g} s"
            raise InputError(f"shock {self.name}: for={self.duration:g} covers no step of {step}; make it longer")
        return stop


@dataclass(frozen=True, kw_only=True)
class Outage(Stretch):
    """The venue is silent: prices stand as they were, nothing trades; then the price jumps to where it is."""

    name: ClassVar = "outage"
    duration: float = _duration()

    def effect(self, step_ns: int, rng: np.random.Generator) -> Effect:  # noqa: ARG002 - nothing random
        """Hold every column at its last value, sizes at 0, bars flat."""
        start, stop = self.start(step_ns), self.stop(step_ns)
        last: dict[str, float] = {}

        def hold(columns: Columns, steps: IntArray) -> Columns:
            begin, end = np.searchsorted(steps, (start, stop)).tolist()
            for name, column in columns.items():
                last[name] = _last_known(column[:begin], last.get(name, np.nan))
                if np.isnan(last[name]):  # it begins with the path
                    last[name] = _last_known(column[begin:end][::-1], np.nan)
            if begin == end:
                return columns
            price = columns[price_of(columns)][begin:end]
            held = {name: column.copy() for name, column in columns.items()}
            for name, column in held.items():
                value = last["close"] if name in BARS else last[name]
                value = 0.0 if name in _ACTIVITY or name == "realized_variance" else value
                column[begin:end] = np.where(np.isnan(price), column[begin:end], value)
            if "flags" in held:
                mark = int(BarFlag.PARTIAL if "close" in held else GridFlag.STALE)
                flags = columns["flags"][begin:end]
                held["flags"][begin:end] = np.where(
                    np.isnan(flags), flags, np.nan_to_num(flags).astype(np.int64) | mark
                )
            return held

        return hold


@dataclass(frozen=True, kw_only=True)
class LiquidityDrought(Stretch):
    """Spreads are `times` as wide, sizes and counts `times` smaller, imbalances noise; `ramp` leads in and out."""

    name: ClassVar = "liquidity_drought"
    needs: ClassVar = ("spread", *_ACTIVITY, *_IMBALANCES)
    times: float = _number(least=1.0)
    ramp: float = _number(0.0, least=0.0, is_time=True)

    def effect(self, step_ns: int, rng: np.random.Generator) -> Effect:
        """Scale by times^w, w the trapezoid of the ramps; of imbalances w · (1 - 1 / times) becomes uniform noise."""
        start, stop = self.start(step_ns), self.stop(step_ns)
        ramp = round(self.ramp * NS_PER_SECOND) // step_ns + 1
        times = self.times

        def drain(columns: Columns, steps: IntArray) -> Columns:
            weight = np.clip(np.minimum(steps - start + 1, stop - steps) / ramp, 0.0, 1.0)
            inside = weight > 0
            if times == 1.0 or not inside.any():
                return columns
            factor = times**weight
            drained = dict(columns)
            for name in _ACTIVITY:
                if name in columns:
                    drained[name] = np.where(inside, columns[name] / factor, columns[name])
            if "spread" in columns:
                drained["spread"] = np.where(inside, columns["spread"] * factor, columns["spread"])
            names = [name for name in _IMBALANCES if name in columns]
            share = weight[inside] * (1.0 - 1.0 / times)
            noise = rng.uniform(-1.0, 1.0, (int(inside.sum()), len(names)))
            for at, name in enumerate(names):
                drained[name] = columns[name].copy()
                drained[name][inside] += share * (noise[:, at] - columns[name][inside])
            return drained

        return drain


@dataclass(frozen=True, kw_only=True)
class Volatility(Stretch):
    """Log-returns are `times` as large, the wicks of bars too; realized variance goes with the square."""

    name: ClassVar = "volatility"
    times: float = _number(above=0.0)

    def effect(self, step_ns: int, rng: np.random.Generator) -> Effect:  # noqa: ARG002 - nothing random
        """Stretch the log price about where it was when the stretch began; then move on from where it ended."""
        start, stop = self.start(step_ns), self.stop(step_ns)
        extra = self.times - 1.0
        reference, last = np.nan, np.nan

        def magnify(columns: Columns, steps: IntArray) -> Columns:
            nonlocal reference, last
            if extra == 0.0:
                return columns
            begin, end = np.searchsorted(steps, (start, stop)).tolist()
            price = np.log(columns[price_of(columns)])
            reference = _last_known(price[:begin], reference)
            if np.isnan(reference):  # it begins with the path
                reference = _last_known(price[begin:end][::-1], np.nan)
            last = _last_known(price[begin:end], last)
            moved = dict(columns)
            for name in (*_POINTS, *BARS):
                if name in columns:
                    added = np.zeros(len(steps))
                    added[begin:end] = extra * (np.log(columns[name][begin:end]) - reference)
                    added[end:] = np.nan_to_num(extra * (last - reference))
                    moved[name] = columns[name] * _growth(added)
            if "realized_variance" in columns:
                moved["realized_variance"] = columns["realized_variance"].copy()
                moved["realized_variance"][begin:end] *= (1.0 + extra) ** 2
            return moved

        return magnify


class Drift(Shock):
    """A known path that is added to the log price."""

    @abstractmethod
    def added(self, seconds: FloatArray) -> FloatArray:
        """Return what is added to the log price at times after the path's first step; 0 before it begins."""

    opens_with_close: ClassVar[bool] = False
    """Whether a bar opens with what its close has, not with what the close before had."""

    def effect(self, step_ns: int, rng: np.random.Generator) -> Effect:  # noqa: ARG002 - nothing random
        """Move prices; of bars body and wicks go with the ends."""

        def move(columns: Columns, steps: IntArray) -> Columns:
            seconds = np.asarray(steps * step_ns / NS_PER_SECOND, dtype=np.float64)
            close = self.added(seconds)
            before = np.asarray((steps - 1) * step_ns / NS_PER_SECOND, dtype=np.float64)
            opened = close if self.opens_with_close else self.added(before)
            return _moved(columns, opened, close)

        return move


@dataclass(frozen=True, kw_only=True)
class FlashCrash(Drift):
    """The price falls by a share `depth` within `for`, and takes back `rebound` of it (in log) within `recovery`."""

    name: ClassVar = "flash_crash"
    depth: float = _number(least=0.0, below=1.0)
    duration: float = _duration()
    recovery: float | None = _duration(None, "")
    """Default: as long as the fall."""
    rebound: float = _number(1.0, least=0.0, most=1.0)

    def added(self, seconds: FloatArray) -> FloatArray:
        """Fall and recover in a straight line of the log price."""
        since = seconds - self.at
        down = np.clip(since / self.duration, 0.0, 1.0)
        up = np.clip((since - self.duration) / (self.recovery or self.duration), 0.0, 1.0)
        return np.asarray(log1p(-self.depth) * (down - self.rebound * up))


@dataclass(frozen=True, kw_only=True)
class Trend(Drift):
    """The price grows by a share `by` over `for`, evenly in log, and stays there."""

    name: ClassVar = "trend"
    by: float = _number(above=-1.0)
    duration: float = _duration()

    def added(self, seconds: FloatArray) -> FloatArray:
        """Grow in a straight line of the log price."""
        return np.asarray(log1p(self.by) * np.clip((seconds - self.at) / self.duration, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Gap(Drift):
    """The price jumps by a share `by` before the first step at or after `at`: a bar opens there."""

    name: ClassVar = "gap"
    opens_with_close: ClassVar = True
    by: float = _number(above=-1.0)

    def added(self, seconds: FloatArray) -> FloatArray:
        """Jump."""
        return np.where(seconds >= self.at, log1p(self.by), 0.0)


KINDS: Mapping[str, type[Shock]] = {
    kind.name: kind for kind in (FlashCrash, Gap, LiquidityDrought, Outage, Trend, Volatility)
}


def _key(parameter: Field[Any]) -> str:
    """Return what a parameter is called in text."""
    return parameter.metadata.get("key") or parameter.name


def _value(kind: str, key: str, parameter: Field[Any], value: Any) -> Any:
    """Read one parameter. Raises `InputError` for text that is no number, or no time."""
    if "bounds" not in parameter.metadata:
        return str(value)
    text, unit = str(value), 1.0
    if parameter.metadata["is_time"] and text[-1:] in _UNITS:
        text, unit = text[:-1], _UNITS[text[-1]]
    try:
        return float(text) * unit
    except ValueError:
        wanted = "a time such as 600, 90s, 10m, 1h or 5d" if parameter.metadata["is_time"] else "a number"
        raise InputError(f"shock {kind} cannot have {key}={value}: it must be {wanted}") from None


def price_of(columns: Mapping[str, FloatArray]) -> str:
    """Return which column is the price. Raises `InputError` without one."""
    for name in ("mid", "close"):
        if name in columns:
            return name
    raise InputError(f"a shock needs a price, mid or close: the series holds {', '.join(columns)}")


def _moved(columns: Columns, opened: FloatArray, close: FloatArray) -> Columns:
    """Add to the log prices: `close` everywhere, `opened` to the opens; wicks keep their length."""
    if not close.any() and not opened.any():
        return columns
    moved = dict(columns)
    for name in (*_POINTS, "close"):
        if name in columns:
            moved[name] = columns[name] * _growth(close)
    if "open" in columns:
        moved["open"] = columns["open"] * _growth(opened)
    if "close" not in columns:
        return moved
    body, now = ([each[name] for name in ("open", "close") if name in each] for each in (columns, moved))
    rests = (close == 0) & (opened == 0)
    for name, end in (("high", np.maximum), ("low", np.minimum)):
        if name in columns:
            wick = columns[name] / end.reduce(body)
            moved[name] = np.where(rests, columns[name], end.reduce(now) * wick)
    return moved


def _growth(added: FloatArray) -> FloatArray:
    return np.exp(np.clip(added, -_MOST_LOG, _MOST_LOG))


def _last_known(column: FloatArray, before: float) -> float:
    known = column[np.isfinite(column)]
    return float(known[-1]) if len(known) else before
