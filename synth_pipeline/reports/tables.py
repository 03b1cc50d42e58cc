"""Frames and arrays of any tool into `Series`, by the names that people give to columns; how each doubt is decided.

- a frame is in long form: one row a step, all paths below each other where a column tells them apart (`path`, `sample`,
  `scenario`, …), otherwise one path. Rows of a path are put in the order of their times, where there are any, and count
  as one step each: where a market closes the next row is the next step;
- the price is `mid` or `close` by the names that files of bars use, or the only column of numbers, or the one that is
  named. Open, high, low and volume are told by the same names, but dropped where the price is not the close beside
  them, such as an adjusted one;
- every other column of numbers is a feature; text, times and row numbers are left out;
- an array of one axis is one path of prices, of two axes paths of prices, of three paths, steps and features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from synth_pipeline.bars import dates
from synth_pipeline.bars.columns import ADJUSTED, ALIASES, plain_name
from synth_pipeline.bars.values import decimal_mark, decimal_step, numbers
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray, Series

PATHS = (
    *("path", "path id", "path no", "sample", "sample id", "scenario", "simulation", "sim", "trajectory"),
    *("window", "window id", "run", "replicate", "episode"),
)
MIDS = ("mid", "mid price", "midprice")
TIMES = ("label ns", "open ns", "recv ns", "event ns", "time ns", "bucket end ns")
"""Beside those of `bars.columns`."""
BARS = ("open", "high", "low", "volume")
COUNTERS = ("", "index", "unnamed 0", "index level 0", "level 0", "step", "row", "i", "t", "column 1")
FINEST = 1e-8
"""Share of the price below which decimals are those of a computation (1228.099976), no grid of a market."""
_SAMPLE = 500
_MOSTLY = 0.9
_STEP_TOLERANCE = 0.01
_NO_PRICES = 0.25
"""Share of values of 0 or less from which on a column is taken for something else than a price."""


@dataclass(frozen=True)
class Reading:
    """What a person knows of a table that it does not say."""

    price: str | None = None
    """Column of the price."""
    path: str | None = None
    """Column that tells paths apart."""
    tick_size: float | None = None
    """Price of one tick; 0 without a grid; None: the decimals of the prices, unless they are those of a computation."""

    def tick_of(self, prices: FloatArray) -> float:
        """Return the price of one tick; a grid that is not known would make prices of few decimals look like copies."""
        if self.tick_size is not None:
            return self.tick_size
        step = decimal_step(prices)
        return step if step > FINEST * float(np.nanmedian(prices)) else 0.0


def series_of(data: object, name: str, reading: Reading = Reading(), *, like: Series | None = None) -> Series:
    """Return data of any kind as a series; `like` names the columns of an array without names.

    Takes a `Series`, a Polars or pandas frame or column, or an array. Raises `InputError` where only a person can
    decide, `NoDataError` for nothing. The step of data without times is 0.
    """
    if isinstance(data, Series):
        return data
    frame = _frame(data)
    if frame is not None:
        return _of_frame(frame, name, reading)
    return _of_array(data, name, reading, like)


def aligned(all_series: Mapping[str, Series]) -> dict[str, Series]:
    """Return series that can be compared: the same price, columns and step, and the grid of the first.

    Raises `InputError` where steps differ, or one has no price of the others' kind.
    """
    first = next(iter(all_series.values()))
    if any(each.assets for each in all_series.values()):
        return dict(all_series)
    called = first.price_name
    named = {name: _renamed(each, called) for name, each in all_series.items()}
    shared = tuple(column for column in first.names if all(column in each.names for each in named.values()))
    step = _common_step(named)
    return {
        name: replace(each.select(shared), step_ns=step, tick_size=first.tick_size, lot_size=first.lot_size)
        for name, each in named.items()
    }


def _renamed(series: Series, price: str) -> Series:
    own = series.price_name
    if own == price or price in series.names:
        return series
    return replace(series, names=tuple(price if name == own else name for name in series.names))


def _common_step(named: Mapping[str, Series]) -> int:
    known = {name: each.step_ns for name, each in named.items() if each.step_ns}
    if not known:
        return NS_PER_SECOND
    (first, step), *others = known.items()
    for other, found in others:
        if abs(found - step) > _STEP_TOLERANCE * step:
            raise InputError(
                f"{first} has steps of {step / NS_PER_SECOND:g} s and {other} of {found / NS_PER_SECOND:g} s: bring "
                f"both to one timeframe, or leave the times out of one"
            )
    return step


# --- of arrays


def _of_array(data: object, name: str, reading: Reading, like: Series | None) -> Series:
    try:
        values = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(data).__name__}: give a Series, a frame or an array of numbers") from error
    if values.ndim == 1:
        values = values[np.newaxis]
    if values.ndim == 2:
        values = values[:, :, np.newaxis]
    if values.ndim != 3 or not values.size:
        raise InputError(f"{name} has shape {values.shape}: give (steps,), (paths, steps) or (paths, steps, features)")
    count = values.shape[2]
    if like and (count == len(like.names) or count == 1):
        names = like.names if count > 1 else (like.price_name,)
    else:
        names = ("close", *(f"feature_{at}" for at in range(2, count + 1)))
    prices = values[:, :, names.index("mid" if "mid" in names else "close")]
    _require_prices(prices, name, "the first feature")
    return Series(values, names, 0, np.zeros(len(values), dtype=np.int64), reading.tick_of(prices))


# --- of frames


def _frame(data: object) -> pl.DataFrame | None:
    """Return a frame or a named column of any library as a Polars frame; None for what is none."""
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.Series):
        return data.to_frame(data.name or "close")
    if type(data).__module__.partition(".")[0] != "pandas":
        return None
    given: Any = data
    table = given.to_frame(given.name if given.name is not None else "close") if given.ndim == 1 else given
    table = table if type(table.index).__name__ == "RangeIndex" else table.reset_index()
    table = table.set_axis([str(column) for column in table.columns], axis=1)
    found: pl.DataFrame = pl.from_pandas(table)
    return found


def _of_frame(frame: pl.DataFrame, name: str, reading: Reading) -> Series:
    if frame.is_empty():
        raise NoDataError(f"{name} holds no rows: check the file")
    frame = frame.rename({each: each.replace(":", " ") for each in frame.columns if ":" in each})
    keys = _path_keys(frame, name, reading.path)
    times, time_name = _times(frame, taken={reading.path, reading.price})
    order, starts = _ordered(keys, times, name)
    columns = {
        each: values[order]
        for each in frame.columns
        if each not in (time_name, reading.path)
        and plain_name(each) not in PATHS
        and (values := _numbers(frame[each], name, wanted=each == reading.price)) is not None
        and (each == reading.price or not _is_counter(each, values[order], starts))
    }
    price = _price(columns, name, reading.price)
    _require_prices(columns[price], name, price)
    named = _named(columns, price)
    values = _stacked(list(named.values()), starts)
    ordered = None if times is None else times[order]
    first = np.zeros(len(starts), dtype=np.int64) if ordered is None else ordered[starts]
    return Series(values, tuple(named), _step_of(ordered, starts), first, reading.tick_of(columns[price]))


def _path_keys(frame: pl.DataFrame, name: str, given: str | None) -> IntArray:
    """Return the number of the path of every row."""
    if given is not None and given not in frame.columns:
        raise InputError(f"{name} has no column {given!r} for --path: it has {', '.join(frame.columns)}")
    found = given or next((each for each in frame.columns if plain_name(each) in PATHS), None)
    if found is None:
        several = next((each for each in frame.columns if plain_name(each) in ALIASES["symbol"]), None)
        if several and frame[several].dtype == pl.String and frame[several].n_unique() > 1:
            raise InputError(
                f"{name} holds {frame[several].n_unique()} different values of {several}: keep one of them, or pass "
                f"--path {several} to take each for a path"
            )
        return np.zeros(frame.height, dtype=np.int64)
    column = frame[found] if frame[found].dtype.is_numeric() else frame[found].cast(pl.String).fill_null("")
    return np.asarray(column.rank("dense").to_numpy(), dtype=np.int64) - 1


def _times(frame: pl.DataFrame, taken: set[str | None]) -> tuple[IntArray | None, str | None]:
    """Return the times in ns and the column that they come from; None without any."""
    known = (*TIMES, *ALIASES["time"], *ALIASES["close time"])
    candidates = sorted(
        (each for each in frame.columns if each not in taken and plain_name(each) in known),
        key=lambda each: known.index(plain_name(each)),
    )
    for each in candidates:
        column = frame[each]
        if column.dtype.is_temporal() and column.dtype != pl.Time:
            return column.cast(pl.Datetime("ns")).dt.epoch("ns").fill_null(dates.NO_TIME).to_numpy(), each
        if column.dtype.is_integer() or column.dtype == pl.String:
            text = column.cast(pl.String)
            if dates.looks_like_times(text.drop_nulls().head(_SAMPLE)):
                return dates.parse(text), each
    return None, None


def _ordered(keys: IntArray, times: IntArray | None, name: str) -> tuple[IntArray, IntArray]:
    """Return the rows path by path in the order of time, and where each path begins among them."""
    if times is not None and (times == dates.NO_TIME).any():
        row = int(np.flatnonzero(times == dates.NO_TIME)[0]) + 1
        raise InputError(f"row {row} of {name} has no time that can be read: mend or drop it")
    order = np.argsort(keys, kind="stable") if times is None else np.lexsort((times, keys))
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    if times is not None:
        again = np.flatnonzero((np.diff(times[order]) == 0) & (np.diff(keys[order]) == 0))
        if again.size:
            stamp = np.datetime64(int(times[order[again[0]]]), "ns")
            raise InputError(f"{name} has two rows of {stamp}: drop one, or name what tells paths apart with --path")
    return order, starts


def _numbers(column: pl.Series, name: str, *, wanted: bool) -> FloatArray | None:
    """Return a column of numbers, NaN where a cell is missing; None for another column."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if column.dtype != pl.String:
        return None
    cells = column.fill_null("")
    try:
        found = numbers(cells, decimal_mark(cells))
    except InputError:
        if wanted:
            raise
        return None
    if np.isfinite(found.values).mean() < _MOSTLY and not wanted:
        return None
    if found.invalid.any():
        row = int(np.flatnonzero(found.invalid)[0])
        raise InputError(f"row {row + 1} of {name} has {cells[row]!r} for {column.name}: mend it, or leave it empty")
    return np.asarray(found.values, dtype=np.float64)


def _is_counter(name: str, values: FloatArray, starts: IntArray) -> bool:
    """Whether a column only numbers the rows."""
    if plain_name(name) not in COUNTERS or values.size < 2:
        return False
    steps = np.delete(np.diff(values), starts[1:] - 1)
    return bool((steps == 1).all())


def _price(columns: Mapping[str, FloatArray], name: str, given: str | None) -> str:
    if given is not None:
        if given not in columns:
            raise InputError(f"{name} has no column of numbers {given!r} for --price: it has {', '.join(columns)}")
        return given
    for known in (MIDS, ALIASES["close"], ADJUSTED):
        ranked = sorted(
            (each for each in columns if plain_name(each) in known), key=lambda each: known.index(plain_name(each))
        )
        if ranked:
            return ranked[0]
    worded = [each for each in columns if "close" in plain_name(each).split() and plain_name(each) not in ADJUSTED]
    if len(worded) == 1:
        return worded[0]
    if len(columns) == 1:
        return next(iter(columns))
    told = ", ".join(columns) or "no column of numbers"
    raise InputError(f"{name} has no column that is plainly the price, but {told}: name it with --price COLUMN")


def _named(columns: Mapping[str, FloatArray], price: str) -> dict[str, FloatArray]:
    """Return the columns under the names that metrics know; the price first."""
    by_role = {
        role: next((each for each in columns if plain_name(each) in ALIASES[role] and each != price), None)
        for role in ("open", "high", "low", "close", "volume")
    }
    is_mid = plain_name(price) in MIDS
    is_close = not is_mid and _price(columns, "", None) == price
    whole = is_close and all(by_role[role] for role in ("open", "high", "low"))
    kept = {each: role for role, each in by_role.items() if each and (role == "volume" or (whole and role in BARS))}
    dropped = {each for each in by_role.values() if each and each not in kept}
    dropped |= {each for each in columns if plain_name(each) in ADJUSTED and each != price}
    named = {"mid" if is_mid else "close": columns[price]}
    for each, values in columns.items():
        if each != price and each not in dropped:
            named.setdefault(kept.get(each, each), values)
    return named


def _require_prices(values: FloatArray, name: str, price: str) -> None:
    known = values[np.isfinite(values)]
    if not known.size:
        raise NoDataError(f"{name} knows no value of {price}: check the column")
    if np.mean(known <= 0) > _NO_PRICES:
        raise InputError(
            f"{(known <= 0).mean():.0%} of {price} of {name} are 0 or less, so it holds no prices: name the column of "
            f"prices with --price, or sum returns up to prices first"
        )


def _stacked(columns: list[FloatArray], starts: IntArray) -> FloatArray:
    """Put columns of rows into the shape (paths, steps, features); shorter paths end with gaps."""
    rows = np.stack(columns, axis=1)
    lengths = np.diff(np.append(starts, len(rows)))
    values = np.full((starts.size, int(lengths.max()), rows.shape[1]), np.nan)
    path = np.repeat(np.arange(starts.size), lengths)
    values[path, np.arange(len(rows)) - starts[path]] = rows
    return values


def _step_of(times: IntArray | None, starts: IntArray) -> int:
    if times is None or times.size < 2:
        return 0
    steps = np.delete(np.diff(times), starts[1:] - 1)
    return int(np.median(steps)) if steps.size else 0
