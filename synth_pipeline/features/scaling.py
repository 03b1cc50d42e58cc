"""Scalers: fitted on training data only, or on nothing but the past; each with its inverse.

What belongs here: linear maps between market units and numbers of about one. Maps that also change a distribution are
in `features.transforms`.

`Scaler` has one centre and one scale a feature, estimated once. `PastScaler` has one of each a row, estimated from the
rows before that row, which it does not see itself: so nothing looks ahead, and the inverse can rebuild a path step by
step from its past. A feature that rests has scale 1: it is centred and keeps its unit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numba import njit

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.series import FloatArray

Kind = Literal["standard", "robust", "min_max"]
_KINDS: tuple[Kind, ...] = ("standard", "robust", "min_max")


@dataclass(frozen=True, eq=False)
class Scaler:
    """(value - centre) / scale, a centre and a scale for each feature.

    `standard`: mean and standard deviation (of the population); `robust`: median and interquartile range; `min_max`:
    smallest value and range.
    """

    kind: Kind
    centre: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, training: FloatArray, kind: Kind = "standard") -> Self:
        """Estimate from training data, shape (…, features); NaN, a gap, is left out.

        Raises `InputError` for an unknown kind or an infinite value, `TooLittleDataError` for a feature with no value.
        """
        rows = np.asarray(training, dtype=np.float64).reshape(-1, np.shape(training)[-1])
        infinite = np.flatnonzero(np.isinf(rows).any(axis=0))
        if infinite.size:
            raise InputError(f"feature {infinite[0]} has an infinite value, which has no scale: make it NaN, a gap")
        empty = np.flatnonzero(~np.isfinite(rows).any(axis=0))
        if empty.size:
            raise TooLittleDataError(
                f"feature {empty[0]} has no value to fit a scaler on: leave it out, or record more"
            )
        if kind == "standard":
            centre, scale = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
        elif kind == "robust":
            low, centre, high = np.nanquantile(rows, [0.25, 0.5, 0.75], axis=0)
            scale = high - low
        elif kind == "min_max":
            centre = np.nanmin(rows, axis=0)
            scale = np.nanmax(rows, axis=0) - centre
        else:
            raise InputError(f"no scaler {kind!r}: known are {', '.join(_KINDS)}")
        # A feature that rests keeps a spread of rounding errors, which must not become its unit.
        rests = scale <= 1e-14 * np.abs(centre)
        return cls(kind, centre, np.where(rests, 1.0, scale))

    def apply(self, values: FloatArray) -> FloatArray:
        """Return scaled values of the same shape."""
        return (values - self.centre) / self.scale

    def invert(self, scaled: FloatArray) -> FloatArray:
        """Return the values that `apply` was given, to within the rounding of two operations."""
        return scaled * self.scale + self.centre

    def save(self, path: Path) -> None:
        """Write the state as JSON, which keeps every bit."""
        state = {"kind": self.kind, "centre": self.centre.tolist(), "scale": self.scale.tolist()}
        path.write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        state = json.loads(path.read_text(encoding="utf-8"))
        return cls(state["kind"], np.array(state["centre"]), np.array(state["scale"]))


class Scaled(NamedTuple):
    """Scaled values, and what each was scaled with."""

    values: FloatArray
    centre: FloatArray
    scale: FloatArray


@dataclass(frozen=True)
class PastScaler:
    """(value - mean) / standard deviation, both of the rows before it: the last `length`, or all of them.

    Over the last `length` rows a gap makes NaN, until the window is clean again; over all rows, gaps are left out, and
    at least `minimum` rows must be known.
    """

    length: int | None
    minimum: int = 2

    def __post_init__(self) -> None:
        if self.minimum < 1 or (self.length is not None and self.length < self.minimum):
            raise InputError(
                f"a scaler over {self.length} rows, at least {self.minimum}: take 1 or more, and a longer one"
            )

    def apply(self, values: FloatArray) -> Scaled:
        """Return scaled values, shape (rows, features); NaN as long as the past is too short.

        Raises `InputError` for values of another shape.
        """
        columns = np.array(values, dtype=np.float64)
        if columns.ndim != 2:
            raise InputError(
                f"values of shape {columns.shape} are not (rows, features): write one column as x[:, None]"
            )
        moments = np.empty((2, *columns.shape))
        for at in range(columns.shape[1]):
            column = np.ascontiguousarray(columns[:, at])
            _walk(column, column, 0, self.length or 0, self.minimum, False, moments[:, :, at])
        return Scaled((columns - moments[0]) / moments[1], moments[0], moments[1])

    def invert(self, scaled: FloatArray, history: FloatArray) -> FloatArray:
        """Return the rows of a path whose first rows are `history`, shape (rows before the first to rebuild, features).

        Each row is rebuilt from the rows rebuilt before it. Raises `TooLittleDataError` for a history that is too short
        to scale the next row with.
        """
        needed = self.minimum if self.length is None else self.length
        if len(history) < needed:
            raise TooLittleDataError(f"a history of {len(history)} rows, and {needed} are needed to go on from it")
        values = np.concatenate((history, np.full(scaled.shape, np.nan)))
        unused = np.empty((2, len(values)))
        for at in range(values.shape[1]):
            column = np.ascontiguousarray(values[:, at])
            scores = np.concatenate((history[:, at], scaled[:, at]))
            _walk(scores, column, len(history), self.length or 0, self.minimum, True, unused)
            values[:, at] = column
        return values[len(history) :]

    def save(self, path: Path) -> None:
        """Write the state as JSON."""
        path.write_text(json.dumps({"length": self.length, "minimum": self.minimum}), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read back what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@njit(cache=True, nogil=True)
def _walk(
    scores: FloatArray, values: FloatArray, first: int, length: int, minimum: int, inverse: bool, moments: FloatArray
) -> None:
    """Fill `moments[:, t]` with mean and scale of the values before t; `inverse` fills `values` from row `first` on.

    A `length` of 0 stands for all rows; their moments are updated as in Welford (1962), Technometrics 4.
    """
    count, mean, squares = 0, 0.0, 0.0
    for t in range(values.size):
        if length > 0:
            count, mean, squares = _window_moments(values[max(t - length, 0) : t], length)
        scale = math.sqrt(squares / count) if count >= minimum else math.nan
        moments[0, t] = mean if count >= minimum else math.nan
        moments[1, t] = 1.0 if scale <= 1e-14 * abs(mean) else scale
        if inverse and t >= first:
            values[t] = scores[t] * moments[1, t] + moments[0, t]
        if length == 0 and not math.isnan(values[t]):
            count += 1
            change = values[t] - mean
            mean += change / count
            squares += change * (values[t] - mean)


@njit(cache=True, nogil=True)
def _window_moments(window: FloatArray, length: int) -> tuple[int, float, float]:
    """Return count, mean and sum of squared deviations of a full window without a gap; a count of 0 for any other."""
    total = 0.0
    for value in window:
        total += value
    if window.size < length or math.isnan(total):
        return 0, 0.0, 0.0
    mean, squares = total / length, 0.0
    for value in window:
        squares += (value - mean) ** 2
    return length, mean, squares
