"""Dependence between the features of one market: prices, sizes, spread, imbalance, at the same time and one later.

Metrics of windows, for any columns. Prices enter as their changes from step to step, which correlate where levels only
drift; every other feature as it is. Nothing here depends on the scale of a feature. Dependence of several assets is in
`dependence`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.metric import window_metric
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray

LAGS = 5
IMBALANCES = ("imbalance_1", "imbalance_5", "imbalance_10")
ROUNDS = 5
"""Draws that the correlational score is the mean of."""


@window_metric(
    title="Correlational score",
    goal="low",
    bounds=(0.0, np.inf),
    minimum=50,
    citation="Liao et al. 2020, Conditional Sig-Wasserstein GANs; Yuan, Qiao 2024, ICLR (Diffusion-TS)",
    meaning="Features that go together in the real data do not, or the other way round, counted on their levels.",
)
def correlational_score(_: Windows, synthetic: Windows, holdout: Windows, *, rng: np.random.Generator) -> float:
    """Sum over pairs of features of the difference of their correlations, over 10, of random fifths of the windows."""
    return correlational(holdout.values, synthetic.values, rng=rng)


@window_metric(
    title="Cross-correlation",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Cont, Kukanov, Stoikov 2014, Journal of Financial Econometrics 12(1)",
    meaning="Features move together that do not in the market, or no longer do.",
)
def cross_correlation_error(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Root mean square difference, over pairs of features, of their correlations at the same time."""
    return _difference(_simultaneous, 0, holdout, synthetic)


@window_metric(
    title="Lagged cross-correlation",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Hasbrouck 1991, Journal of Finance 46(1)",
    meaning="One feature foretells another where it does not in the market, or no longer does.",
)
def lagged_cross_correlation_error(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Root mean square difference, over ordered pairs of features, of the correlations of one with another later."""
    return _difference(_later, LAGS, holdout, synthetic)


@window_metric(
    title="Spread and imbalance",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Cont, Kukanov, Stoikov 2014, Journal of Financial Econometrics 12(1)",
    meaning="The spread does not widen and narrow with the pressure on the book as in the market.",
)
def spread_imbalance_error(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Difference of the correlations of the spread with how far the imbalance of the book is from its mean."""
    imbalance = next((name for name in IMBALANCES if name in holdout.names), IMBALANCES[0])
    return _coupling_difference(holdout, synthetic, "spread", imbalance)


@window_metric(
    title="Volume and volatility",
    goal="low",
    bounds=(0.0, 2.0),
    minimum=50,
    citation="Karpoff 1987, Journal of Financial and Quantitative Analysis 22(1); Cont 2001, fact 10",
    meaning="Prices move without volume, or volume moves no price, where in the market the two go together.",
)
def volume_volatility_error(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Difference of the correlations of volume with the size of the price change of the same step."""
    price = next((name for name in holdout.names if name.lower() in ("mid", "close")), "close")
    volume = next((name for name in holdout.names if name.lower() == "volume"), "volume")
    return _coupling_difference(holdout, synthetic, volume, price)


def correlational(real: FloatArray, synthetic: FloatArray, *, rng: np.random.Generator) -> float:
    """Return the correlational score of windows, shape (n, length, features), as Diffusion-TS computes it.

    Five times, of a fifth of the windows of each side drawn with replacement: with every feature at mean 0 and
    deviation 1 over its windows and steps, the mean product of two features; Σ |real - synthetic| over the lower
    triangle with its diagonal, over 10. The score is the mean of the five. Raises `MetricError` for a constant feature.
    """
    scores = []
    for _ in range(ROUNDS):
        drawn = (side[rng.integers(0, len(side), len(side) // ROUNDS)] for side in (real, synthetic))
        first, second = (_products(side) for side in drawn)
        scores.append(np.abs(first - second)[np.tril_indices(len(first))].sum() / 10.0)
    return float(np.mean(scores))


def _products(values: FloatArray) -> FloatArray:
    """Return the mean products of standardised features, shape (features, features)."""
    flat = values.reshape(-1, values.shape[2])
    deviation = flat.std(axis=0, ddof=1)
    if not (deviation > 0).all():
        raise MetricError("correlation is undefined: a feature is constant in the windows drawn")
    scores = (flat - flat.mean(axis=0)) / deviation
    return np.asarray(scores.T @ scores / len(scores))


def lagged_correlations(values: FloatArray, lags: Iterable[int]) -> FloatArray:
    """Return the correlations of each feature with each one so many steps later, inside windows, (lags, f, f).

    About the mean and over the deviation of all windows. NaN for a constant feature.
    """
    centred = values - values.mean(axis=(0, 1))
    deviation = np.sqrt((centred**2).mean(axis=(0, 1)))
    scores = centred / np.where(deviation > 0, deviation, np.nan)
    found = []
    for lag in lags:
        first, second = (
            side.reshape(-1, values.shape[2]) for side in (scores[:, : values.shape[1] - lag], scores[:, lag:])
        )
        found.append(first.T @ second / len(first))
    return np.stack(found)


def _simultaneous(windows: Windows) -> FloatArray:
    return lagged_correlations(windows.moves, (0,))


def _later(windows: Windows) -> FloatArray:
    return lagged_correlations(windows.moves, range(1, LAGS + 1))


def _difference(
    correlations: Callable[[Windows], FloatArray], furthest: int, real: Windows, synthetic: Windows
) -> float:
    features = len(real.names)
    if features < 2 or real.length < furthest + 3:
        raise MetricError(
            f"cross-correlation at lag {furthest} needs 2 features and windows of {furthest + 3}: these have "
            f"{features} and {real.length}"
        )
    one, other = np.nonzero(np.tri(features, k=-1) if furthest == 0 else ~np.eye(features, dtype=np.bool_))
    # What stands still only in the synthetic windows correlates with nothing.
    differences = (real.once(correlations) - np.nan_to_num(synthetic.once(correlations)))[:, one, other].ravel()
    known = differences[np.isfinite(differences)]
    if not known.size:
        raise MetricError("cross-correlation is undefined: no two real features move")
    return sqrt(float(np.mean(known**2)))


def coupling(windows: Windows, first: str, second: str) -> float:
    """Return the correlation of a feature with how far another one is from its mean, over all windows.

    Raises `MetricError` for a feature that is not there or does not move.
    """
    if missing := [name for name in (first, second) if name not in windows.names]:
        raise MetricError(f"the windows have no feature {missing[0]!r}: they hold {', '.join(windows.names)}")
    one, two = (windows.moves[:, :, windows.names.index(name)].reshape(1, -1) for name in (first, second))
    found = float(moments.correlation(one, np.abs(two - two.mean()))[0])
    if not np.isfinite(found):
        raise MetricError(f"correlation of {first} and {second} is undefined: one of them does not move")
    return found


def _coupling_difference(real: Windows, synthetic: Windows, first: str, second: str) -> float:
    return abs(coupling(real, first, second) - coupling(synthetic, first, second))
