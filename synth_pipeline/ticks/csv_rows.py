"""Bytes of a delimited file to rows: exact times and numbers, no float on the way.

What belongs here: what one line means. Where in a file to read is `ticks.csv`'s part. A row is a line with its line
end (LF or CRLF); blank lines are none. A field may be quoted as a whole (RFC 4180) but holds no line break. Numbers are
plain decimals, with an exponent if need be (`1e-05` is how Python prints small floats). Times are counts since the
epoch, whole or with a fraction, or ISO 8601 (`2024-01-01T00:00:00.5Z`, `2024-01-01 00:00:00+09:00`; without a zone:
UTC).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks import csv_kernels as kernels

Unit = Literal["s", "ms", "us", "ns", "iso"]
UNITS: tuple[Unit, ...] = get_args(Unit)

_FLOAT_TENS = 10.0 ** np.arange(23)


class Kind(enum.IntEnum):
    """How the fields of a column are read."""

    EXACT = kernels.EXACT
    """int64 in units of the last decimal place that the caller keeps."""
    EXACT_OR_EMPTY = kernels.EXACT_OR_EMPTY
    """The same; an empty field is 0."""
    FLOAT = kernels.FLOAT
    """The nearest float64; an empty field is NaN."""
    NEAREST = kernels.NEAREST
    """As `EXACT`, but a number with more decimals is rounded to the nearest with as many."""
    NEAREST_OR_EMPTY = kernels.NEAREST_OR_EMPTY
    """The same; an empty field is 0."""
    TEXT = kernels.TEXT
    """Up to eight bytes of lower-case text, as bytes."""


class Fault(enum.IntEnum):
    """Why a row cannot be read; the name in lower case is its reason slug."""

    NONE = 0
    MALFORMED_NUMBER = kernels.MALFORMED_NUMBER
    TOO_MANY_DECIMALS = kernels.TOO_MANY_DECIMALS
    NUMBER_TOO_LARGE = kernels.NUMBER_TOO_LARGE
    TEXT_TOO_LONG = kernels.TEXT_TOO_LONG
    NOT_POSITIVE = 5
    CROSSED_QUOTE = 6
    FIELD_COUNT = kernels.FIELD_COUNT
    """From here on the time is not known either."""
    MALFORMED_TIME = kernels.MALFORMED_TIME
    OPEN_QUOTE = kernels.OPEN_QUOTE


@dataclass(frozen=True)
class Form:
    """How the lines of one file are to be read."""

    names: tuple[str, ...]
    delimiter: int
    time_field: int
    exponent: int
    """Power of ten of the time unit in ns, or `kernels.BY_MAGNITUDE`, or `kernels.ISO`."""
    first_row: int
    """Byte at which the rows begin."""
    settled: bool = True
    """False when there was no row yet to go by."""


@dataclass(frozen=True)
class Rows:
    """Lines as columns, in file order; where `faults` is not 0 the values mean nothing."""

    offsets: IntArray
    """Byte of the file at which each line begins."""
    ends: IntArray
    time_ns: IntArray
    columns: dict[str, np.ndarray]
    faults: NDArray[np.uint8]

    @property
    def has_time(self) -> NDArray[np.bool_]:
        """Whether the time of a row can be trusted."""
        trusted: NDArray[np.bool_] = self.faults < Fault.FIELD_COUNT
        return trusted

    def __len__(self) -> int:
        return self.offsets.size


def parse(data: bytes, offset: int, form: Form, kinds: dict[str, Kind], decimals: int) -> Rows:
    """Read the whole lines of `data`, which begins at a line start, `offset` bytes into its file."""
    raw = np.frombuffer(data, dtype=np.uint8)
    slots = np.full(len(form.names), -1, dtype=np.int64)
    for slot, name in enumerate(kinds):
        slots[form.names.index(name)] = slot
    limit = int(np.count_nonzero(raw == kernels.NEWLINE))
    spans, time_ns = np.empty((2, limit), dtype=np.int64), np.empty(limit, dtype=np.int64)
    values, digits = np.empty((len(kinds), limit), dtype=np.int64), np.empty((len(kinds), limit), dtype=np.int8)
    faults = np.empty(limit, dtype=np.uint8)
    codes = np.array([*kinds.values()], dtype=np.int64)
    how = (form.delimiter, form.time_field, form.exponent)
    count = kernels.parse(raw, how, slots, codes, spans, time_ns, values, digits, faults)
    faults = faults[:count]
    columns = {
        name: _column(kind, values[slot, :count], digits[slot, :count], decimals, data, faults)
        for slot, (name, kind) in enumerate(kinds.items())
    }
    return Rows(spans[0, :count] + offset, spans[1, :count] + offset, time_ns[:count], columns, faults)


def joined(parts: list[Rows]) -> Rows:
    """Return the rows of consecutive pieces as one."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    offsets, ends, time_ns = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("offsets", "ends", "time_ns")
    )
    return Rows(offsets, ends, time_ns, columns, np.concatenate([part.faults for part in parts]))


def _column(
    kind: Kind, values: IntArray, digits: NDArray[np.int8], decimals: int, data: bytes, faults: NDArray[np.uint8]
) -> np.ndarray:
    """Turn mantissas and their digits after the point into what was asked for; mark what does not fit."""
    if kind == Kind.TEXT:
        return values.view("S8")
    if kind == Kind.FLOAT:
        return _floats(values, digits, data)
    nearest = kind in (Kind.NEAREST, Kind.NEAREST_OR_EMPTY)
    kernels.to_decimals(values, digits, decimals, nearest, faults)
    return values


def _floats(values: IntArray, digits: NDArray[np.int8], data: bytes) -> FloatArray:
    """Whole numbers below 2**53 over a power of ten up to 22 round once; the rest goes through Python's parser."""
    found: FloatArray = values / _FLOAT_TENS[np.maximum(digits, 0)]
    found[digits == kernels.EMPTY_DIGITS] = np.nan
    for row in np.flatnonzero(digits == kernels.SLOW_FLOAT_DIGITS).tolist():
        start, length = int(values[row]) >> 16, int(values[row]) & 0xFFFF
        found[row] = float(data[start : start + length])
    return found
