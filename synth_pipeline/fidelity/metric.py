"""What a metric is: a plain function with its facts declared once, beside it.

Three kinds. Most compare two samples of log-returns at once:

    @metric(title="…", goal="low", bounds=(0, inf), minimum=200, citation="…", meaning="…")
    def ks_distance(real: Sample, synthetic: Sample) -> float: …

Where the comparison is between one number of each sample, the function is that number, batched over paths:

    @statistic_metric(compare=absolute_difference, goal="low", …)
    def return_kurtosis(returns: FloatArray) -> FloatArray: …

Of short windows of all features, a metric sees the training ones, the synthetic ones and the held-out ones, all scaled
by `windows.scaled`, and may draw:

    @window_metric(title="…", goal="low", bounds=(0, inf), minimum=50, citation="…", meaning="…", cost="cheap")
    def authenticity(
        train: Windows, synthetic: Windows, holdout: Windows, *, rng: np.random.Generator
    ) -> float: …

The decorated name is a `Metric`, called as `f(real, synthetic) → float`, or a `WindowMetric`, called as declared. A
family is a file of them; `registry` finds them by file, so a new metric edits nothing else. What belongs to one metric
alone stays in its family file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, Required, TypedDict, Unpack

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.joint import JointSample
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray, Series

Goal = Literal["low", "high", "target"]
"""What is good: a low value, a high one, or the one that real data have."""
CACHED = 2**17
"""Returns that a statistic is computed of at once."""
Reference = Literal["holdout", "train"]
"""Which real sample the synthetic one is held against."""
Scale = Literal["linear", "log"]
Cost = Literal["cheap", "learned"]
"""`learned` for a metric that trains a network or another learner: computed only when asked for."""
Function = Callable[[Sample, Sample], float]
Statistic = Callable[[FloatArray], FloatArray]
"""Log-returns (paths, steps) → one number a path, NaN where a path does not define it."""
Compare = Callable[[FloatArray, FloatArray], FloatArray]
"""Statistics of real and synthetic paths → values of the metric, element by element."""


class WindowFunction(Protocol):
    """Training, synthetic and held-out windows → one number."""

    __name__: str
    __module__: str

    def __call__(self, train: Windows, synthetic: Windows, holdout: Windows, /, *, rng: np.random.Generator) -> float:
        """Compare the three."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Facts:
    """What is known about a metric of any kind."""

    name: str
    family: str
    title: str
    """What the report calls it."""
    goal: Goal
    bounds: tuple[float, float]
    """Range of the values."""
    minimum: int
    """Fewest known returns a path needs; shorter paths are left out. Of a window metric, fewest windows a side."""
    citation: str
    what: str
    """What it measures: the first sentence of the function's docstring."""
    meaning: str
    """What is wrong when it is off, in plain words."""
    unit: str = ""
    reference: Reference = "holdout"
    """`train` for a metric of copying: it has no bootstrap band, since resamples of the training data are copies."""
    margin: float = 0.0
    """Difference too small to matter: the band of real data is widened by it on both sides."""
    exposes: bool = False
    """Whether only replayed training data make it off: then no grade is given."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric(Facts):
    """One comparison of a real and a synthetic sample of log-returns, and what is known about it."""

    function: Function
    joint: bool = False
    """Whether it is of several assets, and its samples are `JointSample`s."""

    def __call__(self, real: Sample | Series, synthetic: Sample | Series) -> float:
        """Compare two samples. Raises `MetricError` where the metric is undefined or has too little data."""
        return float(self.function(self.enough(real, "real"), self.enough(synthetic, "synthetic")))

    def per_path(self, real: Sample, synthetic: Sample) -> tuple[FloatArray, str]:
        """Compare `real` with every path of `synthetic` by itself.

        Returns one value a path, shape (paths,), NaN where a path has none, and the first such reason ("" if all have
        one).
        """
        values, reason = np.full(synthetic.paths, np.nan), ""
        for index, path in enumerate(synthetic.one_by_one):
            try:
                values[index] = self(real, path)
            except MetricError as error:
                reason = reason or str(error)
        return values, reason

    def enough(self, sample: Sample | Series, side: str) -> Sample:
        """Return the paths of a sample that are long enough. Raises `MetricError` when none is."""
        kind = JointSample if self.joint else Sample
        sample = kind.of(sample) if isinstance(sample, Series) else sample
        long_enough = sample.with_at_least(self.minimum)
        if long_enough.paths == 0:
            longest = int(sample.counts.max(initial=0))
            raise MetricError(f"{self.name} needs {self.minimum} known returns, the {side} sample has {longest}")
        return long_enough


@dataclass(frozen=True, eq=False, kw_only=True)
class StatisticMetric(Metric):
    """A metric that compares one number of each sample, the mean over its paths."""

    statistic: Statistic
    compare: Compare
    above: str
    """What is wrong when the synthetic number is off and above the real ones; `meaning` says it for below."""
    statistic_unit: str = ""
    """Unit of the statistic: `share` is told in percent, `p` is a p-value, "" a plain number."""
    scale: Scale = "linear"
    """The scale on which the statistic is judged: `log` for a positive one, whose band of real values is lopsided."""
    weight: float = 0.0
    """Weight in the 0-100 fidelity; 0 keeps it out."""

    def level(self, sample: Sample, side: str) -> float:
        """Return the mean over paths of the statistic. Raises `MetricError` where no path defines it."""
        self.enough(sample, side)
        level = float(moments.mean(sample.once(self.levels)[sample.counts >= self.minimum][np.newaxis])[0])
        if not np.isfinite(level):
            raise MetricError(
                f"{self.name} of the {side} sample is undefined: it does not move, or gaps cut it too short"
            )
        return level

    def levels(self, sample: Sample) -> FloatArray:
        """Return the statistic of every path, shape (paths,), NaN where a path does not define it."""
        # Some rows after the others, as many as stay in the processor's cache: no row depends on another.
        rows = CACHED // (sample.returns.shape[1] + 1) + 1
        parts = [self.statistic(sample.returns[at : at + rows]) for at in range(0, max(sample.paths, 1), rows)]
        return np.where(sample.counts >= self.minimum, np.concatenate(parts), np.nan)

    def per_path(self, real: Sample, synthetic: Sample) -> tuple[FloatArray, str]:
        """Compare as the base class does, all paths at once."""
        try:
            level = self.level(real, "real")
            self.enough(synthetic, "synthetic")
        except MetricError as error:
            return np.full(synthetic.paths, np.nan), str(error)
        levels = synthetic.once(self.levels)
        values = self.compare(np.full_like(levels, level), levels)
        undefined = int(np.isnan(values).sum())
        reason = f"{self.name} is undefined on {undefined} of {values.size} synthetic paths: they do not move enough"
        return values, reason if undefined else ""


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowMetric(Facts):
    """One comparison of synthetic windows with training and held-out ones, and what is known about it."""

    function: WindowFunction
    cost: Cost = "cheap"

    def __call__(self, train: Windows, synthetic: Windows, holdout: Windows, *, rng: np.random.Generator) -> float:
        """Compare. Raises `MetricError` where the metric is undefined, not finite, or has too few windows."""
        for side, windows in (("training", train), ("synthetic", synthetic), ("held-out", holdout)):
            if windows.count < self.minimum:
                raise MetricError(f"{self.name} needs {self.minimum} windows, the {side} sample has {windows.count}")
        value = float(self.function(train, synthetic, holdout, rng=rng))
        if not np.isfinite(value):
            raise MetricError(f"{self.name} of these windows is no number: {value}")
        return value


class _Told(TypedDict):
    """What the function itself says."""

    name: str
    family: str
    what: str


class _Declared(TypedDict, total=False):
    """What a declaration says of a metric of any kind; see `Facts`."""

    title: Required[str]
    goal: Required[Goal]
    bounds: Required[tuple[float, float]]
    minimum: Required[int]
    citation: Required[str]
    unit: str
    margin: float


class _Comparison(_Declared, total=False):
    meaning: Required[str]
    reference: Reference
    exposes: bool


class _OfSamples(_Comparison, total=False):
    joint: bool


class _OfWindows(_Comparison, total=False):
    cost: Cost


class _OfStatistic(_Declared, total=False):
    above: Required[str]
    statistic_unit: str
    scale: Scale
    weight: float
    joint: bool


def metric(**declared: Unpack[_OfSamples]) -> Callable[[Function], Metric]:
    """Declare a comparison of two samples to be the metric of its name, in the family of its file."""
    return lambda function: Metric(function=function, **_told(function), **declared)


def statistic_metric(
    *, compare: Compare, below: str, **declared: Unpack[_OfStatistic]
) -> Callable[[Statistic], StatisticMetric]:
    """Declare a statistic to be the metric of its name.

    `below` and `above` say what is wrong when the synthetic number lies on that side of the real ones; `margin` is in
    units of the statistic.
    """

    def declare(statistic: Statistic) -> StatisticMetric:
        def function(real: Sample, synthetic: Sample) -> float:
            levels = (
                np.array([made.level(sample, side)]) for sample, side in ((real, "real"), (synthetic, "synthetic"))
            )
            value = float(compare(*levels)[0])
            if not np.isfinite(value):
                raise MetricError(f"{made.name} cannot be compared: one of the two samples does not move")
            return value

        told = _told(statistic)
        made = StatisticMetric(
            function=function, statistic=statistic, compare=compare, meaning=below, **told, **declared
        )
        return made

    return declare


def window_metric(**declared: Unpack[_OfWindows]) -> Callable[[WindowFunction], WindowMetric]:
    """Declare a comparison of windows to be the metric of its name, in the family of its file.

    `reference` is `train` for a metric that tells copies from new windows, `exposes` where nothing else makes it off.
    """
    return lambda function: WindowMetric(function=function, **_told(function), **declared)


def _told(function: Function | Statistic | WindowFunction) -> _Told:
    """Return name, family, which is its file, and the first sentence of what it measures."""
    what = (function.__doc__ or "").partition("\n\n")[0].strip()
    return _Told(name=function.__name__, family=function.__module__.rpartition(".")[2], what=what)


def absolute_difference(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return |a - b|."""
    return np.abs(first - second)


def absolute_log_ratio(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return |log(a / b)| of two positive numbers; NaN when either is 0."""
    quotient = moments.quotient(first, second)
    return np.abs(np.log(np.where(quotient > 0, quotient, np.nan)))
