"""Scores in the form of checklists, each with the bars that its authors set, and what fresh real data score on them.

Such lists are common in practice, and flatter or frighten by accident: a test of equal distributions at a large n
rejects real against real, and a verbatim copy passes nearly all. Every check therefore has a slot for its floor, the
same number between two stretches of real data, and every list says which share of its checks *those* pass.

- `feature_parity`: moments, distributions, autocorrelations and cross-correlations of derived features, within bands
  of 0.05 standard deviations or at p > 0.05.
- `augmentation_table`: divergence of returns, coherence in time, diversity; what learners and strategies measure is
  handed in.
- `weighted_fidelity`: the twelve weighted metrics in one number; they are declared in `weighted`.
- `path_diagnostics`: systematic drift, and whether volatility clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Literal

import msgspec
import numpy as np
from scipy import stats

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import kernels, marginal, moments, temporal, weighted
from synth_pipeline.fidelity.metric import StatisticMetric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray, Series

BAND = 0.05
"""Half-width of a band, in standard deviations of the real feature; of a correlation, in its own units."""
KS_POINTS = 500
"""Points a side of a Kolmogorov-Smirnov test, equally spaced: its p-value means nothing without its n."""
P_VALUE = 0.05
LAGS = 5
DRIFT_NS = 300 * 10**9
"""Horizon at which autoregressive paths were seen to run off: five minutes."""
WINDOW, COMPONENTS, NEIGHBOURS, MOST_WINDOWS = 24, 8, 5, 1_000
_FEATURES = ("volume", "spread", "imbalance_1")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One check: its value, the bar and what fresh real data score."""

    name: str
    title: str
    value: float | None
    """None where it cannot be computed; `reason` says why."""
    bar: float
    goal: Literal["low", "high"]
    """`low` passes up to the bar, `high` from the bar on."""
    floor: float | None = None
    """The same between real and fresh real data; None without fresh data."""
    reason: str = ""
    applies: bool = True
    """Whether the real data allow the check, and all it needs is there; where not, it counts neither way."""

    @property
    def passed(self) -> bool:
        """Whether the value reaches the bar; one that is missing does not."""
        return self._reaches(self.value)

    @property
    def floor_passed(self) -> bool:
        """Whether fresh real data do."""
        return self._reaches(self.floor)

    def _reaches(self, value: float | None) -> bool:
        if value is None:
            return False
        return value <= self.bar if self.goal == "low" else value >= self.bar


class Checklist(msgspec.Struct, frozen=True, kw_only=True):
    """Checks, and the share of them that are passed; what only the synthetic data leave undefined is not passed."""

    name: str
    checks: tuple[Checked, ...]

    @property
    def share(self) -> float | None:
        """Share of passed checks among those that apply; None without any."""
        known = [check.passed for check in self.checks if check.applies]
        return sum(known) / len(known) if known else None

    @property
    def floor_share(self) -> float | None:
        """The same of fresh real data."""
        known = [check.floor_passed for check in self.checks if check.floor is not None]
        return sum(known) / len(known) if known else None


Measure = Callable[[Series, Series], float]
_Row = tuple[str, str, float, Literal["low", "high"], Measure]
"""Name, title, bar, goal, and the function of real and other series."""


def feature_parity(real: Series, synthetic: Series, fresh: Series | None = None) -> Checklist:
    """Check moments, distributions and correlations of returns, volatility, volume, spread and imbalance.

    Of each feature: mean within 0.05 standard deviations of the real one; variance, skewness and kurtosis of the
    feature in real standard deviations within 0.05; p > 0.05 in the two-sample Kolmogorov-Smirnov test of 500 equally
    spaced points a side. Of returns and squared returns: autocorrelations at lags 1-5 within 0.05. Of every two
    features: correlations within 0.05. Volatility is that of single steps, |log-return|.
    """
    return Checklist(name="feature_parity", checks=_checked(_parity_rows(real, synthetic), real, synthetic, fresh))


def augmentation_table(
    real: Series, synthetic: Series, fresh: Series | None = None, *, learned: Mapping[str, float] | None = None
) -> Checklist:
    """Check divergence of returns (< 0.05), difference of lag-1 autocorrelation (< 0.10) and diversity (> 0.80).

    Divergence is that of Kullback and Leibler by nearest neighbours. Diversity is coverage (Naeem et al. 2020): the
    share of real windows of 24 returns nearer to a synthetic one than to their fifth real neighbour, in the space of
    the first 8 principal components. `learned` hands in what others measure: `tstr_ratio` (> 0.90), `augmented_sharpe`
    less its baseline (> 0) and `stress_survival` (> 0.95); what is missing is told as missing.
    """
    rows: list[_Row] = [
        ("distribution_kl", "Divergence of returns", 0.05, "low", _of_samples(marginal.neighbour_divergence)),
        ("temporal_coherence", "Autocorrelation at lag 1", 0.10, "low", _lag_one_difference),
        ("diversity", "Diversity", 0.80, "high", diversity),
    ]
    measured = learned or {}
    handed = tuple(
        Checked(
            name=name,
            title=title,
            value=measured.get(name),
            bar=bar,
            goal="high",
            reason="" if name in measured else "measured by a learner or a strategy, and not handed in",
            applies=name in measured,
        )
        for name, title, bar in (
            ("tstr_ratio", "Trained on synthetic over trained on real", 0.90),
            ("augmented_sharpe", "Sharpe ratio gained by augmentation", 0.0),
            ("stress_survival", "Stress scenarios survived", 0.95),
        )
    )
    return Checklist(name="augmentation_table", checks=(*handed, *_checked(rows, real, synthetic, fresh)))


def weighted_fidelity(real: Series, synthetic: Series, fresh: Series | None = None) -> Checklist:
    """Check the 0-100 fidelity of the twelve weighted metrics against 90, the lower end of what is typical."""
    rows: list[_Row] = [("fidelity", "Weighted fidelity", 90.0, "high", _fidelity)]
    return Checklist(name="weighted_fidelity", checks=_checked(rows, real, synthetic, fresh))


def path_diagnostics(real: Series, synthetic: Series, fresh: Series | None = None) -> Checklist:
    """Check that moves over five minutes have no systematic direction and the real width, and that |r| clusters.

    Direction is |mean| over its standard error, of moves that do not overlap (bar 1.96); width the |logarithm| of the
    ratio of standard deviations (bar 0.2); clustering the root mean square difference of the autocorrelations of
    |log-returns| at lags 1-50 (bar 0.05); and single log-returns pass the Kolmogorov-Smirnov test of 500 points. Where
    five minutes are less than one step, or more than a twentieth of the shorter series, that bound is the horizon.
    """
    others = (synthetic,) if fresh is None else (synthetic, fresh)
    shortest = min(side.paths * (side.steps - 1) for side in (real, *others))
    steps = min(max(DRIFT_NS // real.step_ns, 1), max(shortest // 20, 1), *(side.steps - 1 for side in (real, *others)))
    rows: list[_Row] = [
        (
            "drift",
            f"Systematic drift over {steps} steps",
            1.96,
            "low",
            lambda _, other: _direction(_moves(other, steps)),
        ),
        ("width", f"Width of moves over {steps} steps", 0.2, "low", lambda one, other: _width(one, other, steps)),
        (
            "clustering",
            "Autocorrelation of |returns|",
            BAND,
            "low",
            _of_samples(temporal.absolute_return_acf_error),
        ),
        ("returns_ks", "Returns, Kolmogorov-Smirnov p", P_VALUE, "high", _ks_p_value(_returns)),
    ]
    return Checklist(name="path_diagnostics", checks=_checked(rows, real, synthetic, fresh))


def diversity(real: Series, synthetic: Series) -> float:
    """Return the share of real windows that a synthetic one covers; `augmentation_table` says how."""
    first, second = (_windows(side) for side in (real, synthetic))
    centre = first.mean(axis=0)
    axes = np.linalg.svd(first - centre, full_matrices=False)[2][:COMPONENTS].T
    one, two = (first - centre) @ axes, (second - centre) @ axes
    radius = np.partition(_squared_distances(one, one), NEIGHBOURS, axis=1)[:, NEIGHBOURS]
    return float(np.mean(_squared_distances(one, two).min(axis=1) <= radius))


# --- feature parity


def _parity_rows(real: Series, synthetic: Series) -> Iterator[_Row]:
    shared = [name for name in _FEATURES if name in real.names and name in synthetic.names]
    features: dict[str, Callable[[Series], FloatArray]] = {"return": _returns, "volatility": _sizes}
    features |= {name: _column(name) for name in shared}
    for name, feature in features.items():
        for order, moment in enumerate(("mean", "variance", "skewness", "kurtosis"), start=1):
            title = f"{name.capitalize()}: {moment}"
            yield f"{name}_{moment}", title, BAND, "low", _moment_difference(feature, order)
        yield f"{name}_ks", f"{name.capitalize()}: Kolmogorov-Smirnov p", P_VALUE, "high", _ks_p_value(feature)
    for name, power in (("return", 1), ("squared_return", 2)):
        for lag in range(1, LAGS + 1):
            title = f"{name.replace('_', ' ').capitalize()}: autocorrelation at lag {lag}"
            yield f"{name}_acf_{lag}", title, BAND, "low", _acf_difference(power, lag)
    for one, two in combinations(features, 2):
        difference = _correlation_difference(features[one], features[two])
        yield f"{one}_{two}", f"{one.capitalize()} and {two}: correlation", BAND, "low", difference


def _returns(series: Series) -> FloatArray:
    return Sample.of(series).returns


def _sizes(series: Series) -> FloatArray:
    return np.abs(_returns(series))


def _column(name: str) -> Callable[[Series], FloatArray]:
    """Return a column from the second step on, beside the returns."""
    return lambda series: series.column(name)[:, 1:]


def _known(values: FloatArray) -> FloatArray:
    known = values[np.isfinite(values)]
    if known.size < 2 or known.std() == 0:
        raise MetricError("the feature does not vary, or is not known")
    return known


def _moment_difference(feature: Callable[[Series], FloatArray], order: int) -> Measure:
    def difference(real: Series, other: Series) -> float:
        one, two = _known(feature(real)), _known(feature(other))
        if order == 1:
            return float(abs(two.mean() - one.mean()) / one.std())
        if order == 2:
            return float(abs(two.var() / one.var() - 1.0))
        moment = moments.skewness if order == 3 else moments.kurtosis
        return float(abs(moment(two[np.newaxis]) - moment(one[np.newaxis]))[0])

    return difference


def _ks_p_value(feature: Callable[[Series], FloatArray]) -> Measure:
    def p_value(real: Series, other: Series) -> float:
        one, two = (_thinned(_known(feature(side))) for side in (real, other))
        return float(stats.ks_2samp(one, two).pvalue)

    return p_value


def _thinned(known: FloatArray) -> FloatArray:
    return known[np.linspace(0, known.size - 1, min(KS_POINTS, known.size)).round().astype(np.int64)]


def _acf_difference(power: int, lag: int) -> Measure:
    def coefficient(series: Series) -> float:
        return float(moments.mean(kernels.autocorrelations(_returns(series) ** power, lag).T)[-1])

    return lambda real, other: abs(coefficient(real) - coefficient(other))


def _correlation_difference(first: Callable[[Series], FloatArray], second: Callable[[Series], FloatArray]) -> Measure:
    def correlation(series: Series) -> float:
        return float(moments.correlation(first(series).reshape(1, -1), second(series).reshape(1, -1))[0])

    return lambda real, other: abs(correlation(real) - correlation(other))


# --- the other lists


def _lag_one_difference(real: Series, other: Series) -> float:
    return _acf_difference(1, 1)(real, other)


def _of_samples(metric: Callable[[Sample, Sample], float]) -> Measure:
    """Compare series by a metric of samples, cut to paths of equal length."""

    def measure(real: Series, other: Series) -> float:
        length = min(real.steps, other.steps) - 1
        return metric(Sample.of(real).windows(length), Sample.of(other).windows(length))

    return measure


def _fidelity(real: Series, other: Series) -> float:
    twelve = [found for found in vars(weighted).values() if isinstance(found, StatisticMetric)]
    scores = {}
    for found in twelve:
        try:
            scores[found] = np.array([_of_samples(found)(real, other)])
        except MetricError:
            continue
    if not scores:
        raise MetricError("there are too few steps for any of the twelve metrics")
    return float(weighted.fidelity(scores)[0])


def _moves(series: Series, steps: int) -> FloatArray:
    """Return the log price changes over `steps` steps that do not overlap, those over gaps left out."""
    sums = kernels.block_sums(Sample.of(series).returns, steps)
    return sums[np.isfinite(sums)]


def _direction(moves: FloatArray) -> float:
    if moves.size < 2 or moves.std() == 0:
        raise MetricError("there are too few moves that differ to tell a drift")
    return float(abs(moves.mean()) / (moves.std(ddof=1) / np.sqrt(moves.size)))


def _width(real: Series, other: Series, steps: int) -> float:
    one, two = (_known(_moves(side, steps)).std() for side in (real, other))
    return float(abs(np.log(two / one)))


def _windows(series: Series) -> FloatArray:
    cut = Sample.of(series).windows(WINDOW).returns
    whole = cut[np.isfinite(cut).all(axis=1)]
    if len(whole) <= max(COMPONENTS, NEIGHBOURS):
        raise MetricError(f"diversity needs {COMPONENTS + 1} windows of {WINDOW} returns a side, one has {len(whole)}")
    return whole[np.linspace(0, len(whole) - 1, min(MOST_WINDOWS, len(whole))).round().astype(np.int64)]


def _squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    squares: FloatArray = (first**2).sum(axis=1)[:, np.newaxis] + (second**2).sum(axis=1) - 2.0 * first @ second.T
    return squares


def _checked(
    rows: Iterator[_Row] | list[_Row], real: Series, synthetic: Series, fresh: Series | None
) -> tuple[Checked, ...]:
    return tuple(_check(row, real, synthetic, fresh) for row in rows)


def _check(row: _Row, real: Series, synthetic: Series, fresh: Series | None) -> Checked:
    name, title, bar, goal, measure = row
    value, reason = _value(measure, real, synthetic)
    floor = None if fresh is None else _value(measure, real, fresh)[0]
    applies = value is not None or _value(measure, real, real)[0] is not None
    return Checked(name=name, title=title, value=value, bar=bar, goal=goal, floor=floor, reason=reason, applies=applies)


def _value(measure: Measure, real: Series, other: Series) -> tuple[float | None, str]:
    try:
        value = measure(real, other)
    except MetricError as error:
        return None, str(error)
    return (value, "") if np.isfinite(value) else (None, "one of the two sides does not vary, or gaps cut it too short")
