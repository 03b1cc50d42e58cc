"""Fractional differentiation: as little differencing as makes a series stationary, and back without loss.

What belongs here: the weights of (1 - B)^d, the filter and its exact inverse, the smallest d that passes a unit-root
test. Source: Hosking (1981), "Fractional differencing", Biometrika 68; for prices López de Prado (2018), "Advances in
Financial Machine Learning", chapter 5.

The weights are w_0 = 1, w_k = -w_{k-1} (d - k + 1) / k. With a fixed **width** every value is made of the same number
of past values, and the first width - 1 have none (NaN); **expanding** (no width) takes all there are, so that the first
value is the first of the series itself. Both look back only, to the last bit: sums are formed directly, since a Fourier
transform would spread the rounding of later values over earlier ones.

Either is inverted step by step, x_t = y_t - Σ w_k x_{t-k} over k ≥ 1, and no value is lost. For 0 < d < 1 the weights
after the first are negative and sum to more than -1, so however wide the filter is, its inverse is stable: rounding
errors are forgotten, not blown up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from synth_pipeline.errors import InputError, TooLittleDataError, UnknownNameError
from synth_pipeline.series import FloatArray

_BLOCK = 512  # values summed together: vector instructions, and both arrays in the first-level cache
_SMALLEST_WEIGHT = 1e-5
_FEWEST_ROWS = 50
_FINEST = 1e-6
_LEVELS = ("1%", "5%", "10%")


def weights(d: float, width: int) -> FloatArray:
    """Return w_0 … w_{width - 1} of (1 - B)^d. Raises `InputError` for a width below 1 or a d that is no number."""
    if width < 1 or not math.isfinite(d):
        raise InputError(f"a filter of order {d} and width {width} has no weights: take a number and 1 or more")
    k = np.arange(1, width)
    return np.concatenate(([1.0], np.cumprod((k - 1 - d) / k)))


def width_of(d: float, smallest: float = _SMALLEST_WEIGHT, at_most: int = 10_000) -> int:
    """Return how many weights there are before they fall below `smallest` for good."""
    sizes = np.abs(weights(d, at_most))
    return int(np.flatnonzero(sizes >= smallest)[-1]) + 1


def difference(values: FloatArray, d: float, width: int | None = None) -> FloatArray:
    """Return the fractional difference of order `d` along a series of finite values; NaN where the width is not filled.

    Raises `InputError` for values that are not finite: difference the segments between gaps one by one.
    """
    values = _finite(values)
    out = values.copy()
    _add_past(values, weights(d, max(values.size, 1) if width is None else width), out, 0, values.size)
    if width is not None:
        out[: width - 1] = np.nan
    return out


def integrate(
    differenced: FloatArray, d: float, width: int | None = None, start: FloatArray | None = None
) -> FloatArray:
    """Return the series that `difference` was given.

    With a width, `start` holds the first width - 1 values, which have no difference; `InputError` unless it does.
    """
    begin = np.empty(0) if start is None else _finite(start)
    if begin.size != min((width or 1) - 1, differenced.size):
        raise InputError(f"a filter of width {width} starts from {(width or 1) - 1} values: got {begin.size}")
    taps = weights(d, max(differenced.size, 1) if width is None else width)
    values = np.concatenate((begin, _finite(differenced[begin.size :])))
    _undo(values, begin.size, taps)
    return values


@dataclass(frozen=True)
class UnitRoot:
    """What the augmented Dickey-Fuller test says of a series."""

    statistic: float
    critical: float
    """The statistic must lie below, for the series to pass as stationary."""

    @property
    def is_stationary(self) -> bool:
        """Whether a unit root is rejected."""
        return self.statistic < self.critical


def unit_root(values: FloatArray, level: str = "5%") -> UnitRoot:
    """Run the test with a constant and the lag order of Schwert (1989), 12 (n / 100)^(1/4), at most.

    The statistic is judged, not the p-value, which is 0 for any long series. Raises `UnknownNameError` for a level that
    there is not, `InputError` for a series that rests.
    """
    from statsmodels.tsa.stattools import adfuller

    if level not in _LEVELS:
        raise UnknownNameError("level", level, _LEVELS)
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        raise InputError(f"the series rests at {values[0]:g} throughout: there is no unit root to test for")
    result = adfuller(values, regression="c", autolag="AIC", result_object=True)
    return UnitRoot(float(result.statistic), float(result.critical_values[level]))


def minimal_order(values: FloatArray, *, width: int | None = None, tolerance: float = 0.01, level: str = "5%") -> float:
    """Return the smallest d in [0, 1] whose difference passes `unit_root`, to within `tolerance`.

    The statistic falls as d grows, so the interval is halved; the upper end, which passed, is returned. Fit it on
    training data only. Raises `TooLittleDataError` for too few values, `InputError` when even d = 1 does not pass,
    for a straight line and for a tolerance below 1e-6.
    """
    values = _finite(values)
    if not tolerance >= _FINEST:
        raise InputError(f"a tolerance of {tolerance} cannot be halved down to: take {_FINEST:g} or more")

    def passes(d: float) -> bool:
        differenced = difference(values, d, width if width is not None else width_of(d, at_most=values.size // 2))
        known = differenced[np.isfinite(differenced)]
        return unit_root(known, level).is_stationary

    if values.size < _FEWEST_ROWS or (width or 0) > values.size // 2:
        raise TooLittleDataError(
            f"{values.size} values and a width of {width or 'half of them'}: "
            f"{max(_FEWEST_ROWS, 2 * (width or 0))} values are needed for a unit-root test"
        )
    if np.ptp(values) == 0:
        raise InputError(f"the series rests at {values[0]:g} throughout: it has no order of differencing")
    if passes(0.0):
        return 0.0
    if not passes(1.0):
        raise InputError(
            "a unit root is left after a whole difference: the series is not integrated of order 1 or less"
        )
    low, high = 0.0, 1.0
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _finite(values: FloatArray) -> FloatArray:
    values = np.ascontiguousarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(
            f"a series of shape {values.shape} with {int((~np.isfinite(values)).sum())} values that are not finite: "
            f"give one segment between gaps"
        )
    return values


@njit(cache=True, nogil=True)
def _add_past(values: FloatArray, taps: FloatArray, out: FloatArray, start: int, stop: int) -> None:
    """Add Σ w_k x_{t-k} over k ≥ 1 to `out[t]` for t in [start, stop), k ascending, so that every sum has one order."""
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        for k in range(1, min(taps.size, last)):
            for t in range(max(first, k), last):
                out[t] += taps[k] * values[t - k]


@njit(cache=True, nogil=True)
def _undo(values: FloatArray, start: int, taps: FloatArray) -> None:
    """Turn differences from `start` on into values, in place."""
    past = np.zeros_like(values)
    for first in range(start, values.size, _BLOCK):
        last = min(first + _BLOCK, values.size)
        # What earlier blocks bring, all at once; then what the values of this block bring to one another.
        for k in range(1, min(taps.size, last)):
            for t in range(max(first, k), min(last, first + k)):
                past[t] += taps[k] * values[t - k]
        for t in range(first, last):
            for k in range(1, min(taps.size, t - first + 1)):
                past[t] += taps[k] * values[t - k]
            values[t] -= past[t]
