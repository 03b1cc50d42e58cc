"""What a metric is: a plain function of two samples with its facts declared once, beside it.

    @metric(title="…", goal="low", bounds=(0, inf), minimum=200, citation="…", meaning="…")
    def ks_distance(real: Sample, synthetic: Sample) -> float: …

The decorated name is a `Metric`, called like the function. A family is a file of them; `registry.metrics` finds them by
file, so a new metric edits nothing else. What belongs to one metric alone stays in its family file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray, Series

Goal = Literal["low", "high", "target"]
"""What is good: a low value, a high one, or the one that real data have."""
Reference = Literal["holdout", "train"]
"""Which real sample the synthetic one is held against."""
Function = Callable[[Sample, Sample], float]


@dataclass(frozen=True, eq=False)
class Metric:
    """One comparison of a real and a synthetic sample, and what is known about it."""

    name: str
    family: str
    title: str
    """What the report calls it."""
    goal: Goal
    bounds: tuple[float, float]
    """Range of the values."""
    minimum: int
    """Fewest known returns a path needs; shorter paths are left out."""
    citation: str
    meaning: str
    """What is wrong when it is off, in plain words."""
    function: Function
    unit: str = ""
    reference: Reference = "holdout"
    margin: float | None = None
    """For a metric whose real-vs-real value is (nearly) always the floor itself: how far beside the floor counts as the
    same. None: the bootstrap band decides."""

    def __call__(self, real: Sample | Series, synthetic: Sample | Series) -> float:
        """Compare two samples. Raises `MetricError` where the metric is undefined or has too little data."""
        return float(self.function(self.enough(real, "real"), self.enough(synthetic, "synthetic")))

    def per_path(self, real: Sample, synthetic: Sample) -> tuple[FloatArray, str]:
        """Compare `real` with every path of `synthetic` by itself.

        Returns one value a path, shape (paths,), NaN where a path has none, and the first such reason ("" if all have one).
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
        sample = Sample.of(sample) if isinstance(sample, Series) else sample
        long_enough = sample.with_at_least(self.minimum)
        if long_enough.paths == 0:
            longest = int(sample.counts.max(initial=0))
            raise MetricError(f"{self.name} needs {self.minimum} known returns, the {side} sample has {longest}")
        return long_enough


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
    margin: float | None = None,
) -> Callable[[Function], Metric]:
    """Declare a function to be the metric of its name, in the family of its file."""

    def declare(function: Function) -> Metric:
        return Metric(
            name=function.__name__,
            family=function.__module__.rpartition(".")[2],
            title=title,
            goal=goal,
            bounds=bounds,
            minimum=minimum,
            citation=citation,
            meaning=meaning,
            function=function,
            unit=unit,
            reference=reference,
            margin=margin,
        )

    return declare
