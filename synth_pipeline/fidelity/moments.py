"""Moments and correlations of every path of an array at once, NaN standing for what a gap hides.

Arrays in, one number a path out; a path that does not define the number (constant, empty) gives NaN, which callers turn
into an absence with its reason. Nothing here knows metrics; the sums are in `kernels`.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.fidelity import kernels
from synth_pipeline.series import FloatArray


def quotient(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the quotient element by element, NaN where the denominator is not positive."""
    result: FloatArray = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def mean(values: FloatArray) -> FloatArray:
    """Return the mean of each row's known values, (paths, steps) → (paths,); NaN for a row without any."""
    centre: FloatArray = kernels.moments(values)[0]
    return centre


def standard_deviation(values: FloatArray) -> FloatArray:
    """Return the standard deviation (divisor n) of each row; exactly 0 for a constant one."""
    spread: FloatArray = np.sqrt(kernels.moments(values)[1])
    return spread


def skewness(values: FloatArray) -> FloatArray:
    """Return the third standardised moment of each row; NaN for a constant one."""
    _, second, third, _ = kernels.moments(values)
    return quotient(third, second**1.5)


def kurtosis(values: FloatArray) -> FloatArray:
    """Return the fourth standardised moment of each row (3 for a Gaussian); NaN for a constant one."""
    _, second, _, fourth = kernels.moments(values)
    return quotient(fourth, second**2)


def correlation(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return Pearson's correlation of each row's pairs of which both values are known; NaN when either is constant."""
    return kernels.correlations(first, second)
