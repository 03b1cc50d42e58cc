"""Invertible transforms between market units and standard normal features, fitted on the training split only.

What belongs here: how one column becomes unbounded, and how numbers that a network made become prices, bars, spreads
and sizes that a venue could have shown. What does not: how any column becomes N(0, 1) (`marginals`), the map of bars
(`ohlc`), networks, and cutting windows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.features.marginals import Marginal
from synth_pipeline.features.ohlc import BARS, bars_of, out_of_order, shape_of
from synth_pipeline.features.windows import segments
from synth_pipeline.series import FloatArray, Series

_FEWEST_MOVES = 10
_FEWEST_KNOWN = 0.5
_SELDOM = 0.01
"""Of the steps in which a mid rests: a spread that changes in fewer holds while it does."""
_NARROW = 2
"""Ticks of a spread that does not give way to a mid: one tick would be half of it or more."""
_MOST_UNITS = 2.0**50
_FILE = "transform.npz"


def known_columns(series: Series, columns: tuple[str, ...]) -> tuple[Series, list[str]]:
    """Return a series without those of `columns` that most priced rows lack, and notes on what a fit falls back on.

    Their NaN would make a gap of every row. Bars with a high or low inside open and close are counted.
    """
    priced = np.isfinite(series.column(series.price_name))
    kept, notes = [], []
    for name in series.names:
        share = float(np.isfinite(series.column(name)[priced]).mean()) if priced.any() else 1.0
        if name not in columns or name == series.price_name or share >= _FEWEST_KNOWN:
            kept.append(name)
        else:
            notes.append(f"{name} is missing in {1 - share:.0%} of the rows: fitted and sampled without it")
    if mended := out_of_order(series) if "close" in series.names else 0:
        notes.append(f"{mended} bars have a high or low inside open and close: taken as without that wick")
    return series.select(tuple(kept)), notes


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
        return self.nearest(self.price * np.exp(np.clip(log_moves, -700.0, 600.0)))

    def nearest(self, prices: FloatArray) -> FloatArray:
        """Return the nearest prices on the grid, in the same order."""
        if not self.price_step:
            return prices
        return on_grid(np.clip(np.rint(prices / self.price_step), 1, _MOST_UNITS), self.price_step)

    def quotes(self, log_moves: FloatArray, ticks: FloatArray) -> dict[str, FloatArray]:
        """Return the nearest mids on a grid, and spreads of whole ticks that have their parity.

        Where `ticks` have not, a spread of more than two gives way by one, up as often as down; beside a narrower one
        the mid takes the nearest place that it allows.
        """
        latent = 2 * self.price * np.exp(np.clip(log_moves, -700.0, 600.0)) / self.tick_size
        nearest = np.rint(np.minimum(latent, _MOST_UNITS))
        gives = ((nearest - ticks) % 2 != 0) & (ticks > _NARROW)
        ticks = ticks + gives * (1 - 2 * (nearest // 2 % 2))
        mids = ticks + 2 * np.clip(np.rint((latent - ticks) / 2), 1.0, _MOST_UNITS)
        return {"mid": on_grid(mids, self.tick_size / 2), "spread": on_grid(ticks, self.tick_size)}

    def series(self, values: FloatArray, start: int = 0) -> Series:
        """Wrap sampled values, shape (paths, steps, features), as a series `start` steps after the fitted one."""
        start_ns = np.full(len(values), self.next_ns + start * self.step_ns, dtype=np.int64)
        return Series(values, self.names, self.step_ns, start_ns, self.tick_size, self.lot_size)


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


@dataclass(frozen=True)
class Distance:
    """A log distance, of a bar's open from the close before or of its high from its low, as it is."""

    odd: bool
    least: float
    heaviest = 0.5

    def encode(self, values: FloatArray) -> FloatArray:
        """Return them."""
        return values

    def decode(self, encoded: FloatArray) -> FloatArray:
        """Return them, none below the least possible one."""
        return np.maximum(encoded, self.least)


Codec = Return | Size | Share | Distance


def _codec(name: str, values: FloatArray, anchor: Anchor) -> Codec:
    if name == anchor.price_name:
        return Return()
    if name == "spread":
        return Size.of(values, anchor.tick_size, anchor.tick_size)
    if name == "volume":
        return Size.of(values, anchor.lot_size, 0.0)
    if "_size_" in name:  # of a level of the book: one that stands there holds a lot
        return Size.of(values, anchor.lot_size, anchor.lot_size)
    if "_gap_" in name:  # from one level to the next
        return Size.of(values, anchor.tick_size, anchor.tick_size)
    if name.startswith("imbalance_") or name == "low":
        return Share()
    if name in {"open", "high"}:
        return Distance(odd=name == "open", least=-1e3 if name == "open" else 0.0)
    raise InputError(
        f"column {name!r} has no transform: there is one for mid, spread, imbalance_N, volume, those of bars and "
        "levels of the book"
    )


def _unconstrained(series: Series) -> Series:
    """Return bars with opens as log distances, highs as both wicks together, lows as the share of the upper one.

    The share runs from -1 to 1, so that it changes its sign, and nothing else does, where up and down change places.
    Raises `InputError` for prices that are not positive, and for highs without lows or lows without highs.
    """
    found = [name for name in BARS if name in series.names]
    if series.price_name != "close" or not found:
        return series
    if ("high" in found) != ("low" in found):
        raise InputError(f"bars have {' and '.join(found)} beside close: give both of high and low, or none")
    columns = {name: series.column(name) for name in series.names}
    for name in found:
        if not np.nanmin(columns[name]) > 0:
            raise InputError(f"{name} holds {np.nanmin(columns[name]):g}: log-returns need positive prices")
    before = np.concatenate((np.full_like(columns["close"][:, :1], np.nan), columns["close"][:, :-1]), axis=1)
    columns |= shape_of(columns, before)
    if "high" in found:
        upper, both = columns["high"], columns["high"] + columns["low"]
        columns |= {"high": both, "low": (2 * upper - both) / np.where(both > 0, both, 1.0)}
    return replace(series, values=np.stack([columns[name] for name in series.names], axis=2))


@numba.njit(cache=True)
def rounded_walk(
    returns: FloatArray, spreads: FloatArray, starts: FloatArray, widths: FloatArray, held: bool
) -> tuple[FloatArray, FloatArray]:
    """Return prices, in steps of their grid, that follow log-returns from one to the next, and spreads that fit them.

    Shapes (paths, steps); `starts` and `widths`, (paths,), are the price and the spread before. Where `spreads` (whole
    ticks, with prices in half ticks) are not 0, a mid has the parity of its spread, because the bid is
    (mid - spread) / 2 whole ticks; the bid is at least one tick. Where the two disagree, the one that loses the
    smaller part of itself gives way: the spread, by a tick towards the one before or else inwards, to a move of fewer
    half ticks than it has ticks; the move, by half a tick, to a narrower spread. Each return starts from the *rounded*
    price before it, so a zero return stays one. Ties go to even, so rounding has no drift. With `held`, a mid that
    rests holds its spread: in a book one side moves at a time, and with it both of them.
    """
    prices, placed = np.empty_like(returns), np.empty_like(returns)
    for path in range(returns.shape[0]):
        price, width = starts[path], widths[path]
        for step in range(returns.shape[1]):
            spread = spreads[path, step]
            before, target = price, min(price * np.exp(returns[path, step]), _MOST_UNITS)
            if spread > 0:
                wanted = np.rint(target)
                if (spread - wanted) % 2 != 0 and abs(wanted - price) < spread:
                    given = spread + (1.0 if spread < width else -1.0)
                    spread = given if wanted >= given + 2 else spread
                price = spread + 2 * max(np.rint((target - spread) / 2), 1.0)
            else:
                price = max(np.rint(target), 1.0)
            width = width if held and price == before else spread
            prices[path, step], placed[path, step] = price, width
    return prices, placed


def _holds(series: Series) -> bool:
    """Whether spreads hold where mids rest: on fine grids they change in a thousandth of such steps, or never."""
    if series.price_name != "mid" or "spread" not in series.names:
        return False
    moves, changes = (np.diff(series.column(name), axis=1) for name in ("mid", "spread"))
    rests = (moves == 0) & np.isfinite(changes)
    return bool(rests.any() and (changes[rests] != 0).mean() < _SELDOM)


@dataclass(frozen=True, eq=False)
class SeriesTransform:
    """A series in market units ↔ standard normal features of the same shape.

    The marginals of directions (returns, imbalances) are odd: flipping the sign of their scores mirrors bid and
    ask, so a law of the scores that is symmetric under the flip has no drift in market units.
    """

    anchor: Anchor
    codecs: tuple[Codec, ...]
    marginals: tuple[Marginal, ...]
    held: bool
    """Whether a mid that rests holds its spread."""

    @classmethod
    def fit(cls, series: Series) -> Self:
        """Estimate from the training split; rows of NaN are gaps. Raises `InputError` for a column it cannot map."""
        anchor, series = Anchor.of(series), _unconstrained(series)
        known = series.values[np.isfinite(series.values).all(axis=2)]
        codecs = tuple(_codec(name, known[:, at], anchor) for at, name in enumerate(series.names))
        marginals = []
        for name, codec in zip(series.names, codecs, strict=True):
            encoded = codec.encode(series.column(name))
            marginals.append(Marginal.fit(encoded[np.isfinite(encoded)], odd=codec.odd, heaviest=codec.heaviest))
        return cls(anchor, codecs, tuple(marginals), _holds(series))

    @property
    def directions(self) -> FloatArray:
        """-1 for features whose sign flips when bid and ask change places, 1 for the others; shape (features,)."""
        return np.array([-1.0 if codec.odd else 1.0 for codec in self.codecs])

    def encode(self, series: Series, *, rng: np.random.Generator) -> Series:
        """Return the scores; a gap, and the first row after one (it has no return), is a row of NaN."""
        scores, series = np.full(series.values.shape, np.nan), _unconstrained(series)
        for at, (codec, marginal) in enumerate(zip(self.codecs, self.marginals, strict=True)):
            encoded = codec.encode(series.values[:, :, at])
            known = np.isfinite(encoded)
            scores[known, at] = marginal.normal(encoded[known], rng)
        scores[~np.isfinite(scores).all(axis=2)] = np.nan
        return replace(series, values=scores)

    def decode(self, scores: FloatArray) -> Series:
        """Return market units for scores of shape (paths, steps, features); row 0 holds the last fitted price."""
        return next(self.decoded((scores,)))

    def decoded(self, pieces: Iterable[FloatArray]) -> Iterator[Series]:
        """Yield market units for pieces of scores that go on from one another."""
        start, before = 0, None
        for scores in pieces:
            values = self._values(scores, before)
            yield self.anchor.series(values, start)
            start, before = start + scores.shape[1], dict(zip(self.anchor.names, values[:, -1].T, strict=True))

    def _values(self, scores: FloatArray, before: dict[str, FloatArray] | None) -> FloatArray:
        """Return market units of scores that follow a row of each path, `before`; None: the last fitted price."""
        columns = {
            name: codec.decode(marginal.value(scores[:, :, at].astype(np.float64)))
            for at, (name, codec, marginal) in enumerate(
                zip(self.anchor.names, self.codecs, self.marginals, strict=True)
            )
        }
        returns = columns[self.anchor.price_name].copy()
        if before is None:
            returns[:, :1] = 0.0
        starts = np.full(len(scores), self.anchor.price) if before is None else before[self.anchor.price_name]
        if "spread" in columns and self.anchor.price_step:
            columns |= self._quotes(returns, columns["spread"], starts, None if before is None else before["spread"])
        else:
            columns[self.anchor.price_name] = self._prices(returns, starts)
            columns |= self._bars(columns, starts)
        return np.stack([columns[name] for name in self.anchor.names], axis=2)

    def _prices(self, returns: FloatArray, starts: FloatArray) -> FloatArray:
        """Return prices on their grid."""
        step = self.anchor.price_step
        if not step:
            return self.anchor.prices(np.log(starts / self.anchor.price)[:, np.newaxis] + np.cumsum(returns, axis=1))
        units = np.maximum(np.rint(starts / step), 1.0)
        return on_grid(rounded_walk(returns, np.zeros_like(returns), units, np.zeros_like(units), False)[0], step)

    def _quotes(
        self, returns: FloatArray, spread: FloatArray, starts: FloatArray, width: FloatArray | None
    ) -> dict[str, FloatArray]:
        """Return mids on their grid, and spreads that fit them.

        A spread is at most half the last fitted price, and the first one gives way by a tick where that price asks for
        the other parity.
        """
        tick, step = self.anchor.tick_size, self.anchor.price_step
        units = np.maximum(np.rint(starts / step), 1.0)
        widest = max(1.0, np.floor(max(np.rint(self.anchor.price / step), 1.0) / 4))
        ticks = np.minimum(np.rint(spread / tick), widest)
        if width is None:
            ticks[:, 0] += (ticks[:, 0] - units) % 2
        mids, ticks = rounded_walk(
            returns, ticks, units, ticks[:, 0].copy() if width is None else np.rint(width / tick), self.held
        )
        return {"mid": on_grid(mids, step), "spread": on_grid(ticks, tick)}

    def _bars(self, columns: dict[str, FloatArray], starts: FloatArray) -> dict[str, FloatArray]:
        """Return opens, highs and lows around the closes."""
        close = columns[self.anchor.price_name]
        shape = {name: columns[name] for name in BARS if name in columns}
        if "high" in shape:
            both, tilt = shape["high"], shape["low"]
            shape |= {"high": both * (1 + tilt) / 2, "low": both * (1 - tilt) / 2}
        before = np.concatenate((starts[:, np.newaxis], close[:, :-1]), axis=1)
        return bars_of(shape, close, before, self.anchor.nearest)

    def save(self, folder: Path) -> None:
        """Write the state into an existing folder."""
        codecs = [{"kind": type(codec).__name__, **asdict(codec)} for codec in self.codecs]
        state = {"anchor": asdict(self.anchor), "codecs": codecs, "held": self.held}
        arrays = {f"{at}.{key}": array for at, m in enumerate(self.marginals) for key, array in m.arrays().items()}
        with (folder / _FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, state=np.array(json.dumps(state, sort_keys=True)), **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        kinds: dict[str, type[Codec]] = {kind.__name__: kind for kind in (Return, Size, Share, Distance)}
        with np.load(folder / _FILE, allow_pickle=False) as arrays:
            state = json.loads(str(arrays["state"]))
            codecs = tuple(kinds[codec.pop("kind")](**codec) for codec in state["codecs"])
            parts = [{key: arrays[f"{at}.{key}"] for key in ("knots", "levels", "tails")} for at in range(len(codecs))]
        return cls(Anchor.from_json(state["anchor"]), codecs, tuple(map(Marginal.from_arrays, parts)), state["held"])
