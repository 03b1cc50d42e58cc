"""What every maximum-likelihood fit needs: links, numerical information matrices, intervals, residual tests.

What belongs here: mathematics that takes a likelihood or residuals and knows no model. What does not: any model.

A parameter is searched for on a free scale (`LINKS`), where its estimate is closer to normal than on its own; its 95 %
interval is made there and brought back, so that it never leaves the values the parameter can take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from synth_pipeline.series import FloatArray

Likelihood = Callable[[FloatArray], float]

_IMPOSSIBLE = 1e6
_Z95 = 1.959963984540054
_LAGS = 20


class Link(NamedTuple):
    """A map from the free scale, and back, with its slope as a function of the value."""

    value: Callable[[float], float]
    free: Callable[[float], float]
    slope: Callable[[float], float]


LINKS: dict[str, Link] = {
    "real": Link(lambda x: x, lambda x: x, lambda _: 1.0),
    "positive": Link(math.exp, math.log, lambda x: x),
    "share": Link(lambda x: float(special.expit(x)), lambda x: float(special.logit(x)), lambda x: x * (1 - x)),
    "correlation": Link(math.tanh, math.atanh, lambda x: 1 - x * x),
    "reciprocal": Link(lambda x: -1 / x if x < 0 else math.inf, lambda x: -1 / x, lambda x: x * x),
}


@dataclass(frozen=True)
class Estimate:
    """One estimated parameter; `error` is None where the likelihood does not determine it."""

    value: float
    error: float | None
    link: str = "positive"

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval; everything where there is no standard error."""
        link = LINKS[self.link]
        if self.error is None or link.slope(self.value) <= 0:
            return -math.inf, math.inf
        half = _Z95 * self.error / link.slope(self.value)
        centre = link.free(self.value)
        return link.value(centre - half), link.value(min(centre + half, 700.0))


def values_of(free: FloatArray, links: Mapping[str, str]) -> dict[str, float]:
    """Return parameters by name from the free scale."""
    return {name: LINKS[link].value(float(x)) for (name, link), x in zip(links.items(), free, strict=True)}


def free_of(values: Mapping[str, float], links: Mapping[str, str]) -> FloatArray:
    """Return the free parameters of these values."""
    return np.array([LINKS[link].free(values[name]) for name, link in links.items()])


def climb(likelihood: Likelihood, start: FloatArray, bounds: FloatArray, iterations: int) -> tuple[float, FloatArray]:
    """Return the highest (mean) log-likelihood, and where, that at most so many iterations reach within the bounds.

    Quasi-Newton (L-BFGS-B); `bounds` has shape (parameters, 2). A likelihood that is no number counts as -1e6.
    """

    def loss(free: FloatArray) -> float:
        value = likelihood(free)
        return -value if np.isfinite(value) else _IMPOSSIBLE

    options: Any = {"maxiter": iterations, "ftol": 1e-9, "eps": 1e-6}
    limits = optimize.Bounds(bounds[:, 0], bounds[:, 1])
    found = optimize.minimize(loss, np.clip(start, *bounds.T), method="L-BFGS-B", bounds=limits, options=options)
    return -float(found.fun), np.asarray(found.x)


def covariance(likelihood: Likelihood, free: FloatArray, bounds: FloatArray | None = None) -> FloatArray:
    """Return the inverse observed information of a log-likelihood (the sum), shape (parameters, parameters).

    Each second derivative is taken from points on both sides: its error is O(step²). Parameters at a bound, and all
    of them where the Hessian is not definite, have NaN: the likelihood does not peak there.
    """
    count = len(free)
    inner = np.arange(count)
    if bounds is not None:
        inner = np.flatnonzero((free - bounds[:, 0] > 1e-2) & (bounds[:, 1] - free > 1e-2))
    whole = np.full((count, count), np.nan)
    hessian = _hessian(likelihood, free, inner)
    if len(inner) and np.isfinite(hessian).all() and np.linalg.eigvalsh(-hessian)[0] > 0:
        whole[np.ix_(inner, inner)] = np.linalg.inv(-hessian)
    return whole


def _hessian(likelihood: Likelihood, free: FloatArray, inner: NDArray[np.int64]) -> FloatArray:
    step = 5e-3

    def at(*moves: tuple[int, float]) -> float:
        moved = free.copy()
        for which, direction in moves:
            moved[which] += direction * step
        return likelihood(moved)

    middle = at()
    up, down = {i: at((i, 1.0)) for i in inner}, {i: at((i, -1.0)) for i in inner}
    hessian = np.empty((len(inner), len(inner)))
    for row, i in enumerate(inner):
        hessian[row, row] = (up[i] - 2 * middle + down[i]) / step**2
        for column, j in enumerate(inner[:row]):
            both = at((i, 1.0), (j, 1.0)) + at((i, -1.0), (j, -1.0))
            mixed = (both - up[i] - down[i] - up[j] - down[j] + 2 * middle) / (2 * step**2)
            hessian[row, column] = hessian[column, row] = mixed
    return hessian


def estimates_of(free: FloatArray, among: FloatArray, links: Mapping[str, str]) -> dict[str, Estimate]:
    """Return estimates with standard errors by the delta method, from the covariance on the free scale."""
    values, variances = values_of(free, links), np.diag(among)
    return {
        name: Estimate(
            values[name],
            LINKS[link].slope(values[name]) * math.sqrt(variance) if variance > 0 else None,
            link,
        )
        for (name, link), variance in zip(links.items(), variances, strict=True)
    }


def mean_error(values: FloatArray) -> float:
    """Return the standard error of a mean of dependent values: Newey and West (1987), Econometrica 55, eq. 5.

    The lag is 4 (n / 100)^{2/9}, their later rule of thumb.
    """
    count = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred) / count
    lags = min(int(4 * (count / 100) ** (2 / 9)), count - 1)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / count
    return math.sqrt(max(variance, 0.0) / count)


def criteria(log_likelihood: float, parameters: int, observations: int) -> dict[str, float]:
    """Return log-likelihood, AIC (Akaike 1974) and BIC (Schwarz 1978)."""
    return {
        "log_likelihood": float(log_likelihood),
        "aic": 2.0 * parameters - 2.0 * log_likelihood,
        "bic": math.log(observations) * parameters - 2.0 * log_likelihood,
    }


def scores_of(
    distribution: Callable[[FloatArray], FloatArray], values: FloatArray, resolution: float, rng: np.random.Generator
) -> FloatArray:
    """Return standard normal scores of observed values under a distribution function, one level a value.

    A value rounded to a grid of `resolution` lands anywhere in its cell, by `rng`: the randomised quantile residual of
    Dunn and Smyth (1996), J. Comput. Graph. Stat. 5, eq. 2.
    """
    low, high = distribution(values - resolution / 2), distribution(values + resolution / 2)
    levels = low + (high - low) * rng.random(len(values))
    return np.asarray(special.ndtri(np.clip(levels, 1e-15, 1 - 1e-15)))


def residual_tests(scores: FloatArray, stretch: NDArray[np.int64]) -> dict[str, float]:
    """Return tests of what should be independent standard normal scores; `stretch` numbers their unbroken runs.

    Kolmogorov-Smirnov for the law, Ljung and Box (1978) with 20 lags on scores and on their squares for what is left
    of autocorrelation and of clustering; `residual_clustering` is the lag-one autocorrelation of their sizes. With
    many observations each rejects everything: compare them among models.
    """
    return {
        "residual_clustering": _neighbours(np.abs(scores), stretch),
        "residual_ks": float(stats.kstest(scores, "norm").statistic),
        "residual_ks_p": float(stats.kstest(scores, "norm").pvalue),
        "residual_ljung_box_p": ljung_box(scores, stretch),
        "residual_squared_ljung_box_p": ljung_box(scores**2, stretch),
    }


def _neighbours(values: FloatArray, stretch: NDArray[np.int64]) -> float:
    """Return the lag-one autocorrelation within stretches."""
    centred = values - values.mean()
    same = stretch[1:] == stretch[:-1]
    return float((centred[1:] * centred[:-1])[same].sum() / max(float(centred @ centred), 1e-300))


def ljung_box(values: FloatArray, stretch: NDArray[np.int64], lags: int = _LAGS) -> float:
    """Return the p-value of no autocorrelation up to `lags`; pairs over a gap do not count."""
    count, centred = len(values), values - values.mean()
    power = float(centred @ centred)
    lags = min(lags, count // 5)
    if power <= 0 or lags < 1:
        return 1.0
    within = [stretch[lag:] == stretch[:-lag] for lag in range(1, lags + 1)]
    products = [float((centred[lag:] * centred[:-lag])[same].sum()) / power for lag, same in enumerate(within, 1)]
    statistic = count * (count + 2) * sum(r * r / (count - lag) for lag, r in enumerate(products, 1))
    return float(stats.chi2.sf(statistic, lags))
