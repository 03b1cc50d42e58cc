"""A dataset as a table for people: which columns, under which headers, each number with the decimals of its grid.

Of bars `Date,Open,High,Low,Close,Volume` and what else there is; of grid features `time,time_ns` and the columns as
they are called. Of several assets `BTCUSDT:Close`. A value that nobody knows is an empty cell.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from synth_pipeline.schema import NS_PER_DAY
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.synthesis.columns import BARS, markets
from synth_pipeline.synthesis.dataset import Rows
from synth_pipeline.synthesis.exports import Source

_TITLED = (*BARS, "volume")
_MOST_DECIMALS = 18
_MOST_UNITS = 2.0**49
"""Beyond it a double does not say which unit is meant."""
_WHOLE = 1e15
_NOISE = 1e-15
"""Relative difference that units · step has from the double of the decimal number: the three roundings on the way."""


class Column(NamedTuple):
    """One column of numbers: its header, where it is in the values, and its decimals; None without a grid."""

    header: str
    at: int
    decimals: int | None


class Sheet:
    """The table of one export."""

    def __init__(self, source: Source) -> None:
        self.is_bars = source.is_bars
        self.columns = [
            Column(f"{market.asset}:{header}" if market.asset else header, at, _decimals(market.step_of(name)))
            for market in markets(source.dataset)
            for name, at in sorted(market.columns.items(), key=lambda item: _order(*item, is_bars=self.is_bars))
            for header in [name.capitalize() if self.is_bars and name in _TITLED else name]
        ]
        step_ns = source.dataset.step_ns
        first_ns = next(source.dataset.scan()).label_ns[:1]
        phase_ns = int(source.times(first_ns)[0])
        self.has_days_only = self.is_bars and step_ns % NS_PER_DAY == 0 and phase_ns % NS_PER_DAY == 0
        self.time_decimals = next(
            digits for digits in (0, 3, 6, 9) if not (step_ns % 10 ** (9 - digits) or phase_ns % 10 ** (9 - digits))
        )

    @property
    def time_headers(self) -> list[str]:
        """Headers before those of the columns."""
        return ["Date"] if self.is_bars else ["time", "time_ns"]

    def header(self) -> bytes:
        """Return the first line of a CSV file."""
        names = [*self.time_headers, *(column.header for column in self.columns)]
        return pl.DataFrame({name: [""] for name in names}).head(0).write_csv().encode()

    def lines(self, rows: Rows) -> bytes:
        """Return rows as lines of a CSV file."""
        times = pl.Series(rows.label_ns).cast(pl.Datetime("ns")).dt.strftime(self._form())
        shown = [times] if self.is_bars else [times, pl.Series(rows.label_ns)]
        shown += [_text(rows.values[:, column.at], column.decimals) for column in self.columns]
        frame = pl.DataFrame([each.alias(str(number)) for number, each in enumerate(shown)])
        return frame.write_csv(include_header=False).encode()

    def _form(self) -> str:
        if self.has_days_only:
            return "%Y-%m-%d"
        return f"%Y-%m-%dT%H:%M:%S{f'%.{self.time_decimals}f' if self.time_decimals else ''}Z"


def _order(name: str, at: int, *, is_bars: bool) -> tuple[int, int]:
    return (_TITLED.index(name) if is_bars and name in _TITLED else len(_TITLED) * is_bars, at)


def _decimals(step: float) -> int | None:
    """Return how many decimals the multiples of a step have; None where there is no step."""
    if step <= 0:
        return None
    exponent = Decimal(repr(step)).normalize().as_tuple().exponent
    decimals = max(0, -int(exponent))
    return decimals if decimals <= _MOST_DECIMALS else None


def _text(values: FloatArray, decimals: int | None) -> pl.Series:
    """Return numbers as they are printed; what is off its grid, or has none, as the shortest text that is exact."""
    if decimals is None:
        return _shortest(values)
    scaled = values * 10.0**decimals
    units = np.rint(scaled)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        fits = (
            known & (np.abs(scaled - units) <= _NOISE * np.maximum(np.abs(units), 1.0)) & (np.abs(units) < _MOST_UNITS)
        )
    exact = _decimal(np.where(fits, units, 0.0).astype(np.int64), fits, decimals)
    if np.array_equal(fits, known):
        return exact
    return exact.cast(pl.String).zip_with(pl.Series(fits), _shortest(values))


def _decimal(units: IntArray, known: np.ndarray, decimals: int) -> pl.Series:
    """Return units · 10^-decimals as decimal numbers: Arrow's are 128-bit integers, low half first, and a scale."""
    halves = pa.py_buffer(np.stack([units, units >> 63], axis=1).tobytes())
    mask = pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
    made = pa.Array.from_buffers(pa.decimal128(38, decimals), len(units), [mask, halves])
    return pl.Series(made)


def _shortest(values: FloatArray) -> pl.Series:
    """Return the shortest text of each number; whole ones without a point."""
    numbers = pl.Series(np.ascontiguousarray(values)).fill_nan(None)
    whole = (numbers == numbers.round()) & (numbers.abs() < _WHOLE)
    if whole.any():
        integers = numbers.cast(pl.Int64, strict=False).cast(pl.String)
        return integers.zip_with(whole.fill_null(False), numbers.cast(pl.String))
    return numbers.cast(pl.String)
