"""Order of log-returns in time: autocorrelation of returns and of their size.

A lag never reaches over a gap. The distribution of single returns is in `marginal`.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.kernels import autocorrelations
from synth_pipeline.fidelity.metric import metric
from synth_pipeline.fidelity.moments import mean
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray

RETURN_LAGS = 20
ABSOLUTE_RETURN_LAGS = 50


@metric(
    title="Autocorrelation of returns",
    goal="low",
    bounds=(0.0, 2.0 * sqrt(2.0)),
    minimum=4 * RETURN_LAGS,
    citation="Cont 2001, Quantitative Finance 1(2), fact 1",
    meaning="The last moves foretell the next one where they do not in the market, or the other way round.",
)
def return_acf_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference of the autocorrelations of log-returns at lags 1-20, averaged over paths."""
    return _rms_difference(return_acf(synthetic.returns), return_acf(real.returns))


@metric(
    title="Autocorrelation of |returns|",
    goal="low",
    bounds=(0.0, 2.0 * sqrt(2.0)),
    minimum=4 * ABSOLUTE_RETURN_LAGS,
    citation="Cont 2001, Quantitative Finance 1(2), fact 6",
    meaning="Volatility does not cluster as in the market: wild and calm stretches are too mixed or too lasting.",
)
def absolute_return_acf_error(real: Sample, synthetic: Sample) -> float:
    """Root mean square difference of the autocorrelations of |log-returns| at lags 1-50, averaged over paths."""
    return _rms_difference(absolute_return_acf(synthetic.returns), absolute_return_acf(real.returns))


def return_acf(returns: FloatArray) -> FloatArray:
    """Return the autocorrelations of log-returns at lags 1-20, (paths, steps) → (paths, 20)."""
    return autocorrelations(returns, RETURN_LAGS)


def absolute_return_acf(returns: FloatArray) -> FloatArray:
    """Return the autocorrelations of |log-returns| at lags 1-50, (paths, steps) → (paths, 50)."""
    return autocorrelations(np.abs(returns), ABSOLUTE_RETURN_LAGS)


def _rms_difference(first: FloatArray, second: FloatArray) -> float:
    difference = mean(first.T) - mean(second.T)
    if not np.isfinite(difference).all():
        raise MetricError("autocorrelation is undefined: returns are constant, or gaps leave no stretch long enough")
    return float(np.sqrt(np.mean(difference**2)))
