"""Invertible transforms between market units and standard normal features, fitted on the training split only.

What belongs here: how one column becomes unbounded, how any column becomes N(0, 1), and how numbers that a network made
become prices, spreads and sizes that a venue could have shown. What does not: networks, and cutting windows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np
from scipy.special import ndtr, ndtri

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.features.windows import segments
from synth_pipeline.series import FloatArray, Series

_KNOTS = 256
_FEWEST_MOVES = 10
_TAIL_SHARE, _TAIL_ROWS, _FEWEST_EXCEEDANCES = 0.01, 15, 5
_REACH = 2.0
_SMALLEST_SHARE = 1e-9
_MOST_UNITS = 2.0**50
_FILE = "transform.npz"


def checked(series: Series, columns: tuple[str, ...], required: tuple[str, ...], minimum_steps: int) -> Series:
    """Return the columns of `columns` that a series has, after the checks that every generator makes before it fits.

    Raises `InputError` for a missing column and for prices that are not positive or never change, `TooLittleDataError`
    when no stretch without a gap has `minimum_steps` steps.
    """
    for name in (series.price_name, *required):
        series.column(name)
    second_price = {"mid", "close"} - {series.price_name}
    chosen = series.select(tuple(name for name in columns if name in series.names and name not in second_price))
    longest = max((stop - start for _, start, stop in segments(chosen)), default=0)
    known = chosen.column(chosen.price_name)[np.isfinite(chosen.values).all(axis=2)]
    if known.size and known.min() <= 0:
        raise InputError(f"{chosen.price_name} holds {known.min():g}: log-returns need positive prices; mend the input")
    if longest < minimum_steps:
        raise TooLittleDataError(
            f"the longest stretch without a gap has {longest} steps and {minimum_steps} are needed: "
            f"record for longer or choose a smaller step"
        )
    if known.min() == known.max():
        raise InputError(
            f"{chosen.price_name} rests at {known[0]:g} throughout: there is nothing to fit; choose another day"
        )
    moves = int((np.nan_to_num(chosen.log_returns()) != 0).sum())
    if moves < _FEWEST_MOVES:
        raise TooLittleDataError(
            f"{chosen.price_name} moves {moves} times and {_FEWEST_MOVES} are needed: record for longer"
        )
    return chosen


def on_grid(units: FloatArray, step: float) -> FloatArray:
    """Return `units` · `step`, as the nearest double of the decimal number where 1 / `step` is whole."""
    per_one = round(1 / step)
    return units / per_one if abs(per_one * step - 1) < 1e-9 else units * step


@dataclass(frozen=True)
class Anchor:
    """Where samples of a fitted series start, and the grids they live on."""

    names: tuple[str, ...]
    price_name: str
    step_ns: int
    tick_size: float
    lot_size: float
    price: float
    """Last fitted price."""
    next_ns: int
    """The label after the last fitted one."""

    @classmethod
    def of(cls, series: Series) -> Self:
        """Read it off a series that holds at least one row without NaN."""
        path, _, stop = segments(series)[-1]
        price = float(series.column(series.price_name)[path, stop - 1])
        next_ns = int(series.start_ns[path]) + stop * series.step_ns
        grids = (series.step_ns, series.tick_size, series.lot_size)
        return cls(series.names, series.price_name, *grids, price=price, next_ns=next_ns)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` gave."""
        return cls(**{**state, "names": tuple(state["names"])})

    @property
    def price_step(self) -> float:
        """Distance of two possible prices: half a tick for the mid, a tick for a traded price, 0 without a grid."""
        return self.tick_size / 2 if self.price_name == "mid" else self.tick_size

    def prices(self, log_moves: FloatArray) -> FloatArray:
        """Return the prices that lie `log_moves` above the last fitted one, rounded to the nearest on the grid."""
        latent = self.price * np.exp(np.clip(log_moves, -700.0, 600.0))
        if not self.price_step:
            return latent
        units = np.clip(np.rint(latent / self.price_step), 1, _MOST_UNITS)
        return on_grid(units, self.price_step)

    def series(self, values: FloatArray) -> Series:
        """Wrap sampled values, shape (paths, steps, features), as a series that follows the fitted one."""
        start_ns = np.full(len(values), self.next_ns, dtype=np.int64)
        return Series(values, self.names, self.step_ns, start_ns, self.tick_size, self.lot_size)


@dataclass(frozen=True)
class Tail:
    """Generalised-Pareto law of what exceeds a threshold: P(X > u + y) = share · (1 + ξ y / β)^(-1/ξ)."""

    threshold: float
    share: float
    shape: float
    scale: float
    limit: float
    """No value goes beyond; `_REACH` times as far from the median as any that was seen."""

    @classmethod
    def fit(cls, ordered: FloatArray, heaviest: float) -> Self:
        """Estimate from sorted values by probability-weighted moments, the shape kept within [-0.5, `heaviest`].

        Source: Hosking & Wallis (1987), Technometrics 29, equations of section 2.3 (their k is -ξ).
        """
        rows, top = len(ordered), float(ordered[-1])
        wanted = min(max(_TAIL_SHARE, _TAIL_ROWS / rows), 0.1)
        threshold = float(np.quantile(ordered, 1 - wanted))
        excess = ordered[np.searchsorted(ordered, threshold, side="right") :] - threshold
        if len(excess) < _FEWEST_EXCEEDANCES:
            return cls(top, 0.0, 0.0, 0.0, top)
        count = len(excess)
        first = float(excess.mean())
        second = float((excess * (count - np.arange(count) - 0.65) / count).mean())
        shape = float(np.clip(2 - first / max(first - 2 * second, 1e-12 * first), -0.5, heaviest))
        limit = top + (_REACH - 1) * (top - float(np.median(ordered)))
        return cls(threshold, count / rows, shape, first * (1 - shape), limit)

    def exceedance(self, values: FloatArray) -> FloatArray:
        """Return P(X > value) for values above the threshold."""
        depth = np.maximum(values - self.threshold, 0) / self.scale
        return self.share * (
            np.exp(-depth) if self.shape == 0 else np.maximum(1 + self.shape * depth, 0) ** (-1 / self.shape)
        )

    def quantile(self, exceedance: FloatArray) -> FloatArray:
        """Return the value that is exceeded with this probability (at most `share`)."""
        ratio = np.maximum(exceedance, 1e-300) / self.share
        depth = -np.log(ratio) if self.shape == 0 else np.expm1(-self.shape * np.log(ratio)) / self.shape
        return np.minimum(self.threshold + self.scale * depth, self.limit)


@dataclass(frozen=True, eq=False)
class Marginal:
    """One feature to N(0, 1) and back: empirical distribution in the body, generalised-Pareto tails.

    A value that repeats (no trade, a zero return, a spread of one tick) owns an interval of probability. Forward it
    lands anywhere in it, by a seeded uniform draw; back, the whole interval gives the value again, exactly. This is the
    distributional transform of Rüschendorf (2009), J. Stat. Plan. Inference 139, eq. 2.
    """

    knots: FloatArray
    """Quantiles of the body, not decreasing."""
    levels: FloatArray
    """Their probabilities."""
    lower: Tail
    """Of the negated values."""
    upper: Tail

    @classmethod
    def fit(cls, values: FloatArray, *, odd: bool = False, heaviest: float = 0.5) -> Self:
        """Estimate from finite values; `odd` makes the map odd, so that a symmetric input stays symmetric."""
        ordered = np.sort(np.concatenate((values, -values)) if odd else values)
        upper = Tail.fit(ordered, heaviest)
        lower = upper if odd else Tail.fit(-ordered[::-1], heaviest)
        outermost = 0.5 / len(ordered)
        levels = np.linspace(max(lower.share, outermost), 1 - max(upper.share, outermost), _KNOTS)
        knots = np.clip(np.quantile(ordered, levels), -lower.threshold, upper.threshold)
        knots[0], knots[-1] = -lower.threshold, upper.threshold
        return cls((knots - knots[::-1]) / 2 if odd else knots, levels, lower, upper)

    def normal(self, values: FloatArray, rng: np.random.Generator | None = None) -> FloatArray:
        """Return the standard normal scores of finite values; ties are broken by `rng`, or land midway without it."""
        first = np.searchsorted(self.knots, values, side="left")
        last = np.searchsorted(self.knots, values, side="right") - 1
        tied = last >= first
        top = len(self.knots) - 1
        low, high = self.levels[np.clip(first, 0, top)], self.levels[np.clip(last, 0, top)]
        within = low + (high - low) * (0.5 if rng is None else rng.random(values.shape))
        levels = np.where(tied, within, np.interp(values, self.knots, self.levels))
        if self.upper.share:
            levels = np.where(values > self.upper.threshold, 1 - self.upper.exceedance(values), levels)
        if self.lower.share:
            levels = np.where(-values > self.lower.threshold, self.lower.exceedance(-values), levels)
        return np.asarray(ndtri(np.clip(levels, _SMALLEST_SHARE, 1 - _SMALLEST_SHARE)))

    def value(self, normal: FloatArray) -> FloatArray:
        """Return the values with these standard normal scores."""
        below, above = ndtr(normal), ndtr(-normal)
        values = np.interp(below, self.levels, self.knots)
        if self.upper.share:
            values = np.where(above < self.upper.share, self.upper.quantile(above), values)
        if self.lower.share:
            values = np.where(below < self.lower.share, -self.lower.quantile(below), values)
        return values

    def arrays(self) -> dict[str, FloatArray]:
        """Return the state as arrays."""
        tails = [list(asdict(tail).values()) for tail in (self.lower, self.upper)]
        return {"knots": self.knots, "levels": self.levels, "tails": np.array(tails)}

    @classmethod
    def from_arrays(cls, state: dict[str, FloatArray]) -> Self:
        """Read back what `arrays` gave."""
        lower, upper = (Tail(*map(float, row)) for row in state["tails"])
        return cls(state["knots"], state["levels"], lower, upper)


@dataclass(frozen=True)
class Return:
    """Price ↔ log-return, NaN in the first row of a stretch; back, see `rounded_walk`."""

    odd = True
    heaviest = 0.5

    def encode(self, values: FloatArray) -> FloatArray:
        """Return log changes along axis 1."""
        logs = np.log(values)
        return np.concatenate((np.full_like(logs[:, :1], np.nan), np.diff(logs, axis=1)), axis=1)

    def decode(self, encoded: FloatArray) -> FloatArray:
        """Return the log changes themselves: prices come from `rounded_walk`, which knows the grid and the spread."""
        return encoded


@dataclass(frozen=True)
class Size:
    """A non-negative amount ↔ log(amount / unit + 1): volume on the lot grid, spread on the tick grid."""

    unit: float
    grid: float
    least: float
    odd = False
    # An exponential tail of the logarithm is a Pareto tail of the amount; a heavier one has no mean.
    heaviest = 0.0

    @classmethod
    def of(cls, values: FloatArray, grid: float, least: float) -> Self:
        """Take the grid as the unit, or the smallest positive amount where there is no grid."""
        positive = values[values > 0]
        return cls(grid or (float(positive.min()) if positive.size else 1.0), grid, least)

    def encode(self, values: FloatArray) -> FloatArray:
        """Return the logarithm; amounts below the least possible one count as that.

        Amounts off the grid by a rounding error are put on it, or equal ones would not tie.
        """
        units = np.maximum(values, self.least) / self.unit
        return np.log1p(np.rint(units) if self.grid else units)

    def decode(self, encoded: FloatArray) -> FloatArray:
        """Return amounts on the grid, none below the least possible one."""
        amounts = np.expm1(np.minimum(encoded, 600.0)) * self.unit
        if self.grid:
            amounts = on_grid(np.minimum(np.rint(amounts / self.grid), _MOST_UNITS), self.grid)
        return np.maximum(amounts, self.least)


@dataclass(frozen=True)
class Share:
    """A share within [-1, 1] ↔ artanh(share), with the two ends kept finite."""

    odd = True
    heaviest = 0.0

    def encode(self, values: FloatArray) -> FloatArray:
        """Return the inverse hyperbolic tangent."""
        return np.arctanh(np.clip(values, -1, 1) * (1 - 1e-9))

    def decode(self, encoded: FloatArray) -> FloatArray:
        """Return the share."""
        return np.clip(np.tanh(encoded) / (1 - 1e-9), -1, 1)


Codec = Return | Size | Share


def _codec(name: str, values: FloatArray, anchor: Anchor) -> Codec:
    if name == anchor.price_name:
        return Return()
    if name == "spread":
        return Size.of(values, anchor.tick_size, anchor.tick_size)
    if name == "volume":
        return Size.of(values, anchor.lot_size, 0.0)
    if name.startswith("imbalance_"):
        return Share()
    raise InputError(f"column {name!r} has no transform: there is one for mid, close, spread, volume and imbalance_N")


@numba.njit(cache=True)
def rounded_walk(returns: FloatArray, spreads: FloatArray, start: float) -> FloatArray:
    """Return prices, in steps of their grid, that follow log-returns from one price on the grid to the next.

    Shapes (paths, steps). Where `spreads` (whole ticks, with prices in half ticks) are not 0, a mid has the parity of
    its spread, because the bid is (mid - spread) / 2 whole ticks; the bid is at least one tick. Each return starts from
    the *rounded* price before it, so a zero return stays one. Ties go to even, so rounding has no drift.
    """
    prices = np.empty_like(returns)
    for path in range(returns.shape[0]):
        price = start
        for step in range(returns.shape[1]):
            spread = spreads[path, step]
            target = min(price * np.exp(returns[path, step]), 2.0**50)
            price = spread + 2 * max(np.rint((target - spread) / 2), 1.0) if spread > 0 else max(np.rint(target), 1.0)
            prices[path, step] = price
    return prices


@dataclass(frozen=True, eq=False)
class SeriesTransform:
    """A series in market units ↔ standard normal features of the same shape.

    The marginals of directions (returns, imbalances) are odd: flipping the sign of their scores mirrors bid and
    ask, so a law of the scores that is symmetric under the flip has no drift in market units.
    """

    anchor: Anchor
    codecs: tuple[Codec, ...]
    marginals: tuple[Marginal, ...]

    @classmethod
    def fit(cls, series: Series) -> Self:
        """Estimate from the training split; rows of NaN are gaps. Raises `InputError` for a column it cannot map."""
        anchor = Anchor.of(series)
        known = series.values[np.isfinite(series.values).all(axis=2)]
        codecs = tuple(_codec(name, known[:, at], anchor) for at, name in enumerate(series.names))
        marginals = []
        for name, codec in zip(series.names, codecs, strict=True):
            encoded = codec.encode(series.column(name))
            marginals.append(Marginal.fit(encoded[np.isfinite(encoded)], odd=codec.odd, heaviest=codec.heaviest))
        return cls(anchor, codecs, tuple(marginals))

    @property
    def directions(self) -> FloatArray:
        """-1 for features whose sign flips when bid and ask change places, 1 for the others; shape (features,)."""
        return np.array([-1.0 if codec.odd else 1.0 for codec in self.codecs])

    def encode(self, series: Series, *, rng: np.random.Generator) -> Series:
        """Return the scores; a gap, and the first row after one (it has no return), is a row of NaN."""
        scores = np.full(series.values.shape, np.nan)
        for at, (codec, marginal) in enumerate(zip(self.codecs, self.marginals, strict=True)):
            encoded = codec.encode(series.values[:, :, at])
            known = np.isfinite(encoded)
            scores[known, at] = marginal.normal(encoded[known], rng)
        scores[~np.isfinite(scores).all(axis=2)] = np.nan
        return replace(series, values=scores)

    def decode(self, scores: FloatArray) -> Series:
        """Return market units for scores of shape (paths, steps, features); row 0 holds the last fitted price."""
        columns = {
            name: codec.decode(marginal.value(scores[:, :, at].astype(np.float64)))
            for at, (name, codec, marginal) in enumerate(
                zip(self.anchor.names, self.codecs, self.marginals, strict=True)
            )
        }
        returns = columns[self.anchor.price_name].copy()
        returns[:, :1] = 0.0
        columns |= self._placed(returns, columns.get("spread"))
        return self.anchor.series(np.stack([columns[name] for name in self.anchor.names], axis=2))

    def _placed(self, returns: FloatArray, spread: FloatArray | None) -> dict[str, FloatArray]:
        """Return prices on their grid, and spreads that fit them.

        A spread is at most half the last fitted price, and the first one gives way by a tick where that price asks for
        the other parity.
        """
        name, step = self.anchor.price_name, self.anchor.price_step
        if not step:
            return {name: self.anchor.prices(np.cumsum(returns, axis=1))}
        start = max(np.rint(self.anchor.price / step), 1.0)
        if spread is None or name != "mid":
            return {name: on_grid(rounded_walk(returns, np.zeros_like(returns), start), step)}
        ticks = np.minimum(np.rint(spread / self.anchor.tick_size), max(1.0, np.floor(start / 4)))
        ticks[:, :1] += (ticks[:, :1] - start) % 2
        return {
            name: on_grid(rounded_walk(returns, ticks, start), step),
            "spread": on_grid(ticks, self.anchor.tick_size),
        }

    def save(self, folder: Path) -> None:
        """Write the state into an existing folder."""
        codecs = [{"kind": type(codec).__name__, **asdict(codec)} for codec in self.codecs]
        state = {"anchor": asdict(self.anchor), "codecs": codecs}
        arrays = {f"{at}.{key}": array for at, m in enumerate(self.marginals) for key, array in m.arrays().items()}
        with (folder / _FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, state=np.array(json.dumps(state, sort_keys=True)), **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        kinds: dict[str, type[Codec]] = {kind.__name__: kind for kind in (Return, Size, Share)}
        with np.load(folder / _FILE, allow_pickle=False) as arrays:
            state = json.loads(str(arrays["state"]))
            codecs = tuple(kinds[codec.pop("kind")](**codec) for codec in state["codecs"])
            parts = [{key: arrays[f"{at}.{key}"] for key in ("knots", "levels", "tails")} for at in range(len(codecs))]
        return cls(Anchor.from_json(state["anchor"]), codecs, tuple(map(Marginal.from_arrays, parts)))
