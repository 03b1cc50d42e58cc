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
from typing import Literal, Protocol

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.joint import JointSample
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray, Series

Goal = Literal["low", "high", "target"]
"""What is good: a low value, a high one, or the one that real data have."""
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
        for index in range(synthetic.paths):
            try:
                values[index] = self(real, synthetic.path(index))
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
    statistic_unit: str
    """Unit of the statistic: `share` is told in percent, `p` is a p-value, "" a plain number."""
    scale: Scale
    """The scale on which the statistic is judged: `log` for a positive one, whose band of real values is lopsided."""
    weight: float
    """Weight in the 0-100 fidelity; 0 keeps it out."""

    def level(self, sample: Sample, side: str) -> float:
        """Return the mean over paths of the statistic. Raises `MetricError` where no path defines it."""
        level = float(moments.mean(self.statistic(self.enough(sample, side).returns)[np.newaxis])[0])
        if not np.isfinite(level):
            raise MetricError(
                f"{self.name} of the {side} sample is undefined: it does not move, or gaps cut it too short"
            )
        return level

    def levels(self, sample: Sample) -> FloatArray:
        """Return the statistic of every path, shape (paths,), NaN where a path does not define it."""
        return np.where(sample.counts >= self.minimum, self.statistic(sample.returns), np.nan)

    def per_path(self, real: Sample, synthetic: Sample) -> tuple[FloatArray, str]:
        """Compare as the base class does, all paths at once."""
        try:
            level = self.level(real, "real")
            self.enough(synthetic, "synthetic")
        except MetricError as error:
            return np.full(synthetic.paths, np.nan), str(error)
        levels = self.levels(synthetic)
        values = self.compare(np.full_like(levels, level), levels)
        undefined = int(np.isnan(values).sum())
        reason = f"{self.name} is undefined on {undefined} of {values.size} synthetic paths: they do not move enough"
        return values, reason if undefined else ""


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowMetric(Facts):
    """One comparison of synthetic windows with training and held-out ones, and what is known about it."""

    function: WindowFunction
    cost: Cost

    def __call__(self, train: Windows, synthetic: Windows, holdout: Windows, *, rng: np.random.Generator) -> float:
        """Compare. Raises `MetricError` where the metric is undefined, not finite, or has too few windows."""
        for side, windows in (("training", train), ("synthetic", synthetic), ("held-out", holdout)):
            if windows.count < self.minimum:
                raise MetricError(f"{self.name} needs {self.minimum} windows, the {side} sample has {windows.count}")
        value = float(self.function(train, synthetic, holdout, rng=rng))
        if not np.isfinite(value):
            raise MetricError(f"{self.name} of these windows is no number: {value}")
        return value


def metric(
    *,
    title: str,
    goal: Goal,
    bounds: tuple[float, float],
    minimum: int,
    citation: str,
    meaning: str,
    unit: str = "",
    reference: Reference = "holdout",
    margin: float = 0.0,
    exposes: bool = False,
    joint: bool = False,
) -> Callable[[Function], Metric]:
    """Declare a comparison of two samples to be the metric of its name, in the family of its file."""

    def declare(function: Function) -> Metric:
        return Metric(
            name=function.__name__,
            family=function.__module__.rpartition(".")[2],
            function=function,
            title=title,
            goal=goal,
            bounds=bounds,
            minimum=minimum,
            citation=citation,
            what=_first_sentence(function),
            meaning=meaning,
            unit=unit,
            reference=reference,
            margin=margin,
            exposes=exposes,
            joint=joint,
        )

    return declare


def statistic_metric(
    *,
    compare: Compare,
    title: str,
    goal: Goal,
    bounds: tuple[float, float],
    minimum: int,
    citation: str,
    below: str,
    above: str,
    unit: str = "",
    statistic_unit: str = "",
    margin: float = 0.0,
    scale: Scale = "linear",
    weight: float = 0.0,
    joint: bool = False,
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

        made = StatisticMetric(
            name=statistic.__name__,
            family=statistic.__module__.rpartition(".")[2],
            function=function,
            title=title,
            goal=goal,
            bounds=bounds,
            minimum=minimum,
            citation=citation,
            what=_first_sentence(statistic),
            meaning=below,
            above=above,
            unit=unit,
            margin=margin,
            statistic=statistic,
            compare=compare,
            statistic_unit=statistic_unit,
            scale=scale,
            weight=weight,
            joint=joint,
        )
        return made

    return declare


def window_metric(
    *,
    title: str,
    goal: Goal,
    bounds: tuple[float, float],
    minimum: int,
    citation: str,
    meaning: str,
    cost: Cost = "cheap",
    unit: str = "",
    reference: Reference = "holdout",
    margin: float = 0.0,
    exposes: bool = False,
) -> Callable[[WindowFunction], WindowMetric]:
    """Declare a comparison of windows to be the metric of its name, in the family of its file.

    `reference` is `train` for a metric that tells copies from new windows, `exposes` where nothing else makes it off.
    """

    def declare(function: WindowFunction) -> WindowMetric:
        return WindowMetric(
            name=function.__name__,
            family=function.__module__.rpartition(".")[2],
            function=function,
            title=title,
            goal=goal,
            bounds=bounds,
            minimum=minimum,
            citation=citation,
            what=_first_sentence(function),
            meaning=meaning,
            unit=unit,
            reference=reference,
            margin=margin,
            exposes=exposes,
            cost=cost,
        )

    return declare


def _first_sentence(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").partition("\n\n")[0].strip()


def absolute_difference(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return |a - b|."""
    return np.abs(first - second)


def absolute_log_ratio(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return |log(a / b)| of two positive numbers; NaN when either is 0."""
    quotient = moments.quotient(first, second)
    return np.abs(np.log(np.where(quotient > 0, quotient, np.nan)))
