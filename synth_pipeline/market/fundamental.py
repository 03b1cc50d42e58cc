"""The fundamental price: a path of any generator, series or dataset, day after day, as an order flow follows it.

The path is taken for its returns: it begins at a price that is given (the mid at the opening, say), whatever level it
had. Step k of it holds from k to k + 1 steps after the start, so that a grid row labelled at the end of the step shows
the price that was asked for. Where a step is longer than `FINEST_NS`, a Brownian bridge leads from one price to the
next, at the volatility of the steps so far (RiskMetrics' average, decay 0.94); the path's own prices stay as they are.
Unknown prices (gaps) are bridged by holding the last one. At most two pieces are in memory; `passed` steps are skipped,
so a path goes on where an earlier run left it.

`Tracking` measures how closely the mid follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypedDict

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.generators import Generator
from synth_pipeline.rng import per_path
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, Series

FINEST_NS = NS_PER_SECOND
"""Longest step that is taken as it is."""
_DECAY = 0.94
_SMALL_SHARE = 0.2
_PHASES = 8
"""Moments of each step at which the mid is looked at."""
Pieces = Iterable[tuple[int, Series]]
"""Numbered paths, piece by piece, as generators and datasets stream them."""


def of_generator(model: Generator, *, rng: np.random.Generator, regime: str | None = None) -> Pieces:
    """Return one path without an end.

    Raises `InputError` for a generator that cannot make one at constant memory.
    """
    name = type(model).__module__.rpartition(".")[2]
    if model.max_steps is not None or type(model).stream is Generator.stream:
        most = "holds whole paths in memory" if model.max_steps is None else f"samples at most {model.max_steps} steps"
        raise InputError(f"{name} {most}, so it can drive no market without an end: take garch or block_bootstrap, say")
    steps = min((2**62 - anchor.next_ns) // anchor.step_ns for anchor in model.anchors) if model.anchors else 2**40
    return model.stream(1, max(steps, 1), regime=regime, rng=rng)


class Fundamental:
    """Log prices over time, in pieces, forwards only; a flow asks for the one that holds a time."""

    def __init__(
        self,
        pieces: Pieces,
        start_ns: int,
        start_price: float,
        *,
        name: str,
        path: int = 0,
        asset: str = "",
        passed: int = 0,
        rng: np.random.Generator,
    ) -> None:
        """Take one of the paths, of several assets one, from its step `passed` on; `name` is for errors.

        The price is `start_price` at step 0 of the path. `rng` draws the bridges. Raises `InputError` where the path
        has no such step or no price.
        """
        self._name, self._passed, self._seed = name, passed, rng
        prices = _log_prices(pieces, path, asset)
        try:
            self.step_ns, first = next(prices)
        except StopIteration:
            raise InputError(f"{name} has no path {path}: it numbers them from 0") from None
        if not np.isfinite(first[0]):
            raise InputError(f"{name} begins with a gap: cut it to where a price is known")
        self._parts = max(-(-self.step_ns // FINEST_NS), 1)
        self._shift = math.log(start_price) - float(first[0])
        logs = chain([first], (piece for _, piece in prices))
        self._logs = self._bridged(logs) if self._parts > 1 else _from(_held(logs), passed)
        self._began_ns = self._start_ns = self._end_ns = start_ns
        self._piece = np.empty(0)

    @property
    def inner_ns(self) -> int:
        """Distance of two prices, bridges included."""
        return self.step_ns // self._parts

    def piece(self, now_ns: int) -> tuple[int, int, FloatArray]:
        """Return the first moment, the step (ns) and the log prices of the stretch that holds a time.

        Raises `InputError` where the path has ended before.
        """
        while now_ns >= self._end_ns:
            try:
                self._piece = next(self._logs) + self._shift
            except StopIteration:
                ended = (self._end_ns - self._began_ns) / NS_PER_SECOND
                raise InputError(
                    f"the path of {self._name} ends {ended:g} s after the start: sample a longer one, or simulate less"
                ) from None
            self._start_ns = self._end_ns
            self._end_ns += self.inner_ns * len(self._piece)
        return self._start_ns, self.inner_ns, self._piece

    def _bridged(self, logs: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Yield the path from step `passed` on with a Brownian bridge between two prices; the last one ends it."""
        parts, streams = self._parts, per_path(self._seed, 2**31)
        share = np.arange(parts) / parts
        variance, before, number = 0.0, math.nan, 0
        for piece in _held(logs):
            made = []
            for value in piece.tolist():
                if number:
                    move = value - before
                    variance = move**2 if number == 1 else _DECAY * variance + (1 - _DECAY) * move**2
                    if number > self._passed:
                        walk = np.cumsum(np.append(0.0, streams[number].standard_normal(parts)))
                        bridge = math.sqrt(variance / parts) * (walk[:-1] - share * walk[-1])
                        made.append(before + share * move + bridge)
                before, number = value, number + 1
            if made:
                yield np.concatenate(made)


def _log_prices(pieces: Pieces, path: int, asset: str) -> Iterator[tuple[int, FloatArray]]:
    """Yield step and log prices of each piece of one path."""
    for number, piece in pieces:
        if number > path:
            return
        if number == path:
            one = _of_asset(piece, asset)
            yield one.step_ns, np.log(one.column(one.price_name)[0])


def _of_asset(piece: Series, asset: str) -> Series:
    names = [each.name for each in piece.assets]
    if not names and not asset:
        return piece
    if asset not in names:
        has = f"has the assets {', '.join(names)}" if names else "is of one market"
        raise InputError(f"asset {asset!r} of a fundamental price: the path {has}; name one of them, or none")
    return piece.parts()[asset]


def _held(logs: Iterator[FloatArray]) -> Iterator[FloatArray]:
    """Hold the last known price over gaps."""
    last = math.nan
    for piece in logs:
        whole = np.append(last, piece)
        known = np.maximum.accumulate(np.where(np.isfinite(whole), np.arange(whole.size), 0))
        held = whole[known][1:]
        last = float(held[-1])
        yield held


def _from(logs: Iterator[FloatArray], passed: int) -> Iterator[FloatArray]:
    """Leave out the first steps."""
    for piece in logs:
        if passed < len(piece):
            yield piece[passed:]
        passed = max(passed - len(piece), 0)


class TrackingFacts(TypedDict):
    """What `Tracking` found."""

    labels: int
    """Steps of the path that ended."""
    rms_ticks: float
    """Of the mid at the end of each step against the price asked for in it."""
    max_ticks: float
    rms_bp: float
    max_bp: float
    step_ticks: float
    """Root mean square of what the mid was asked to move in a step."""
    lag_ms: float
    """Mean time until the mid has made the move that it makes in a step."""
    small_ticks: float
    """What counts as small: half the usual spread and the distance that nobody acts on, or a fifth of `step_ticks`."""
    is_small: bool


class Tracking:
    """Hands a fundamental price to a flow and holds the mid against it: at the end of every step, and within it.

    It may run ahead of what is measured by the pieces that the flow has asked for.
    """

    def __init__(self, fundamental: Fundamental, start_ns: int, tick_size: float, spread: float) -> None:
        """`spread` in ticks is the usual one, within which nobody acts either."""
        self._source, self._tick_size, self._small = fundamental, tick_size, 1.5 * spread
        self._asked: list[tuple[int, int, FloatArray]] = []
        self._next_ns, self._step_ns, self._anchor = start_ns, fundamental.inner_ns, math.nan
        self._times, self._mids = np.empty(0, np.int64), np.empty(0)
        self._count, self._squares, self._bp_squares, self._worst, self._worst_bp = 0, 0.0, 0.0, 0.0, 0.0
        self._made, self._wanted = np.zeros(_PHASES), 0.0

    def piece(self, now_ns: int) -> tuple[int, int, FloatArray]:
        """Return what the fundamental price does."""
        found = self._source.piece(now_ns)
        if not self._asked or self._asked[-1][0] != found[0]:
            self._asked.append(found)
        return found

    def feed(self, time_ns: np.ndarray, mid: np.ndarray, until_ns: int) -> None:
        """Take the mids in ticks after each event, all up to a time."""
        self._times, self._mids = np.append(self._times, time_ns), np.append(self._mids, mid)
        while self._asked and self._next_ns + self._step_ns <= until_ns:
            start_ns, step_ns, logs = self._asked[0]
            stop = min((until_ns - start_ns) // step_ns, len(logs))
            self._take(logs[(self._next_ns - start_ns) // step_ns : stop])
            if stop == len(logs):
                del self._asked[0]
        kept = max(int(np.searchsorted(self._times, self._next_ns)) - 1, 0)
        self._times, self._mids = self._times[kept:], self._mids[kept:]

    def _take(self, logs: FloatArray) -> None:
        ends = self._next_ns + self._step_ns * np.arange(1, _PHASES * len(logs) + 1) // _PHASES
        self._next_ns += self._step_ns * len(logs)
        seen = np.append(math.nan, self._mids)[np.searchsorted(self._times, ends)].reshape(-1, _PHASES)
        wanted = np.exp(logs) / self._tick_size
        before = np.append(self._anchor, seen[:-1, -1])[: len(seen)]
        self._anchor = float(seen[-1, -1]) if len(seen) else self._anchor
        known = np.isfinite(before) & np.isfinite(seen).all(axis=1)
        seen, wanted, before = seen[known], wanted[known], before[known]
        off = seen[:, -1] - wanted
        bp = np.log(seen[:, -1] / wanted) * 1e4
        self._count += off.size
        self._squares += float(off @ off)
        self._bp_squares += float(bp @ bp)
        self._worst = max(self._worst, float(np.abs(off).max(initial=0.0)))
        self._worst_bp = max(self._worst_bp, float(np.abs(bp).max(initial=0.0)))
        move = wanted - before
        self._made += move @ (seen - before[:, np.newaxis])
        self._wanted += float(move @ move)

    def facts(self) -> TrackingFacts:
        """Return the residual. Raises `InputError` where no step has ended."""
        if not self._count:
            raise InputError(f"no step of {self._step_ns / 1e9:g} s of the fundamental price ended: simulate longer")
        share = np.append(0.0, self._made / self._made[-1]) if self._made[-1] > 0 else np.ones(_PHASES + 1)
        rms, step = math.sqrt(self._squares / self._count), math.sqrt(self._wanted / self._count)
        small = max(self._small, _SMALL_SHARE * step)
        return {
            "labels": self._count,
            "rms_ticks": rms,
            "max_ticks": self._worst,
            "rms_bp": math.sqrt(self._bp_squares / self._count),
            "max_bp": self._worst_bp,
            "step_ticks": step,
            "lag_ms": float(np.sum(1 - 0.5 * (share[1:] + share[:-1]))) * self._step_ns / _PHASES / 1e6,
            "small_ticks": small,
            "is_small": rms <= small,
        }
