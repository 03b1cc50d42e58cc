"""The statistics that the report's figures draw, computed once and stored in the record.

Figures compute nothing: what a figure shows is made here, thinned so that a record stays small. No verdicts here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.evaluation import (
    AutocorrelationPanel,
    Gappy,
    HistogramPanel,
    PathPanel,
    QuantilePanel,
)
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, Series

PATH_POINTS = 240
EXAMPLES = 4
BAND = (0.05, 0.95)
FAN = (5, 25, 50, 75, 95)
BINS = 61
WIDEST = 12.0
"""Standard deviations beyond which the histogram does not reach."""
PROBABILITIES = np.concatenate([[0.001, 0.0025, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.9975, 0.999]])


def price_panel(train: Series, synthetic: Series, holdout: Series, returns: int) -> PathPanel:
    """Make the price fan over the first `returns` steps: held-out path, end of training, synthetic quantiles."""
    return curve_panel(_percent, train, synthetic, holdout, returns)


def drawdown_panel(train: Series, synthetic: Series, holdout: Series, returns: int) -> PathPanel:
    """Make the same of the fall from the highest price so far."""
    return curve_panel(_drawdown, train, synthetic, holdout, returns)


def curve_panel(
    curve: Callable[[Series, int, int], FloatArray], train: Series, synthetic: Series, holdout: Series, returns: int
) -> PathPanel:
    """Make a fan of any curve of prices, from a series and its first and last step to values (paths, steps)."""
    kept = np.unique(np.linspace(0, returns, min(PATH_POINTS, returns + 1)).round().astype(np.int64))
    fan = curve(synthetic, 0, returns)[:, kept]
    known = np.isfinite(fan).any(axis=0)
    quantiles = np.full((len(FAN), kept.size), np.nan)
    quantiles[:, known] = np.nanpercentile(fan[:, known], FAN, axis=0)
    return PathPanel(
        seconds=[float(step) * synthetic.step_ns / NS_PER_SECOND for step in kept],
        real=_gappy(curve(holdout, 0, returns)[0, kept]),
        fresh=_gappy(curve(train, train.steps - 1 - returns, train.steps - 1)[0, kept]),
        quantiles={str(level): _gappy(row) for level, row in zip(FAN, quantiles, strict=True)},
        examples=[_gappy(path) for path in fan[:EXAMPLES]],
    )


def histogram_panel(train: Sample, synthetic: Sample, holdout: Sample) -> HistogramPanel:
    """Make the three return densities on shared bins, in standard deviations of the held-out returns."""
    sigma = float(moments.standard_deviation(holdout.pooled[np.newaxis])[0])
    pools = [sample.pooled / sigma for sample in (holdout, train, synthetic)]
    reach = max(float(np.quantile(np.abs(pool), 0.999)) for pool in pools)
    edge = float(np.clip(reach, 4.0, WIDEST))
    edges = np.linspace(-edge, edge, BINS + 1)
    width = edges[1] - edges[0]
    densities = [np.histogram(np.clip(pool, -edge, edge), edges)[0] / (pool.size * width) for pool in pools]
    real, fresh, made = (density.tolist() for density in densities)
    return HistogramPanel(edges.tolist(), real, fresh, made, sigma)


def quantile_panel(train: Sample, synthetic: Sample, holdout: Sample) -> QuantilePanel:
    """Make the quantiles of the three return distributions, in standard deviations of the held-out returns."""
    sigma = float(moments.standard_deviation(holdout.pooled[np.newaxis])[0])
    # Probabilities that the smallest sample cannot resolve would only repeat its extremes.
    smallest = min(sample.pooled.size for sample in (train, synthetic, holdout))
    kept = PROBABILITIES[np.minimum(PROBABILITIES, 1 - PROBABILITIES) * smallest >= 0.5]
    real, fresh, made = (np.quantile(sample.pooled / sigma, kept).tolist() for sample in (holdout, train, synthetic))
    return QuantilePanel(kept.tolist(), real, fresh, made)


def autocorrelation_panel(
    curves: Callable[[FloatArray], FloatArray], train: Sample, synthetic: Sample, holdout: Sample, resampled: FloatArray
) -> AutocorrelationPanel | None:
    """Set the mean curves of three samples beside the band of resampled paths; None where a curve is undefined."""
    fresh, made, real = (moments.mean(curves(sample.returns).T) for sample in (train, synthetic, holdout))
    drawn = curves(resampled)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not (np.isfinite(fresh) & np.isfinite(made) & np.isfinite(real)).all() or len(drawn) == 0:
        return None
    low, high = np.quantile(drawn, BAND, axis=0)
    lags = list(range(1, real.size + 1))
    return AutocorrelationPanel(lags, real.tolist(), fresh.tolist(), made.tolist(), low.tolist(), high.tolist())


def _percent(series: Series, first: int, last: int) -> FloatArray:
    """Return the price in percent of the first known one, steps `first` to `last`, NaN where there is none."""
    price = series.column(series.price_name)[:, first : last + 1]
    price = np.where(np.isfinite(price) & (price > 0), price, np.nan)
    first_known = np.isfinite(price).argmax(axis=1)[:, np.newaxis]
    percent: FloatArray = 100.0 * (price / np.take_along_axis(price, first_known, axis=1) - 1.0)
    return percent


def _drawdown(series: Series, first: int, last: int) -> FloatArray:
    """Return the price in percent of the highest one since `first`, less 100; NaN where there is none."""
    level = 1.0 + _percent(series, first, last) / 100.0
    drawdown: FloatArray = 100.0 * (level / np.fmax.accumulate(level, axis=1) - 1.0)
    return drawdown


def _gappy(values: FloatArray) -> Gappy:
    return [float(value) if np.isfinite(value) else None for value in values]
