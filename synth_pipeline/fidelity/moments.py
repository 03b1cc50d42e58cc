"""Moments and correlations of every path of an array at once, NaN standing for what a gap hides.

Arrays in, one number a path out; a path that does not define the number (constant, empty) gives NaN, which callers turn
into an absence with its reason. Nothing here knows metrics.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.series import FloatArray

CONSTANT = 1e-9
"""Share of its own size below which a spread is rounding noise: the path counts as constant."""


def quotient(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the quotient element by element, NaN where the denominator is not positive."""
    result: FloatArray = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def mean(values: FloatArray) -> FloatArray:
    """Return the mean of each row's known values, (paths, steps) → (paths,); NaN for a row without any."""
    known = np.isfinite(values)
    return quotient(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def central_moment(values: FloatArray, order: int) -> FloatArray:
    """Return the `order`-th central moment of each row (divisor n)."""
    deviation = values - mean(values)[:, np.newaxis]
    power = deviation
    for _ in range(order - 1):
        power = power * deviation
    return mean(power)


def standard_deviation(values: FloatArray) -> FloatArray:
    """Return the standard deviation (divisor n) of each row; exactly 0 for a constant one."""
    spread = np.sqrt(central_moment(values, 2))
    size = mean(np.abs(values))
    return np.where(spread <= CONSTANT * size, 0.0, spread)


def skewness(values: FloatArray) -> FloatArray:
    """Return the third standardised moment of each row; NaN for a constant one."""
    return quotient(central_moment(values, 3), standard_deviation(values) ** 3)


def kurtosis(values: FloatArray) -> FloatArray:
    """Return the fourth standardised moment of each row (3 for a Gaussian); NaN for a constant one."""
    return quotient(central_moment(values, 4), standard_deviation(values) ** 4)


def correlation(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return Pearson's correlation of each row's pairs of which both values are known; NaN when either is constant."""
    both = np.isfinite(first) & np.isfinite(second)
    first, second = np.where(both, first, np.nan), np.where(both, second, np.nan)
    product = (first - mean(first)[:, np.newaxis]) * (second - mean(second)[:, np.newaxis])
    return quotient(mean(product), standard_deviation(first) * standard_deviation(second))
