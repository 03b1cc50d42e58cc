"""Paths of hours: how many stylised facts they keep, whether they copy or drift, and who comes nearest.

Two recordings on the half-second grid, the LOBSTER day of AMZN and the Bitstamp order-by-order capture, from
`SYNTH_REAL_DATA` (default `../shared/data`). The last two hours of each are *fresh*: nothing is fitted on them. Paths of
two hours are held against what came before, by every metric of returns of the families `marginal`, `temporal` and
`weighted`, each beside its 95 % band between real and real: the metric between the training series and stationary block
bootstrap resamples of it of two hours, in blocks as long as its volatility asks for. A metric that compares one number
of each side is judged by that number, which must lie between the 2.5 % and 97.5 % quantiles of the resamples; a distance
must not exceed their 95 %. What resamples leave undefined is no check. Each path is one look, as the fresh period is;
shares are means over paths.

Ranks are of equal wall-clock budgets, on the distance of the autocorrelations of |returns| and on the tail index of
returns over ten seconds (half seconds of a coarse grid have no tail), by mean over both recordings and both periods.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from bootstrap_schemes import DATA
from common import Claim, arguments, report

from synth_pipeline import generators, plugins, stages
from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import bootstrap, kernels, temporal
from synth_pipeline.fidelity.copying import verbatim_share
from synth_pipeline.fidelity.marginal import hill
from synth_pipeline.fidelity.metric import Metric, StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.generators import Generator
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from synth_pipeline.settings import Settings

RECORDINGS = {
    "LOBSTER AMZN": ("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip", date(2012, 6, 21)),
    "Bitstamp L3": ("bitstamp_btcusd_l3_raw_20150501.log.xz", date(2015, 5, 1)),
}
COLUMNS = ("mid", "spread", "volume", "imbalance_1")
HOURS, STEP_S = 2, 0.5
STEPS = round(HOURS * 3600 / STEP_S)
RESAMPLES = 200
NEURAL = ("chunk_flow", "ar_mlp", "wgan_gp", "conditional_gan", "rcgan", "quant_gan", "sig_wgan")
CLASSICAL = ("self_exciting_jump_diffusion", "filtered_historical_simulation", "garch", "block_bootstrap")
TEN_SECONDS, TAIL = 20, 0.05


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording, cut in time."""

    name: str
    train: Series
    fresh: Series


def recordings(home: Path) -> Iterator[Recording]:
    """Ingest the files that are there and cut their features."""
    for name, (file, day) in RECORDINGS.items():
        if not (DATA / file).exists():
            continue
        workspace, sources = stages.Workspace.of(Settings(home=home)), [DATA / file]
        instrument = stages.identify(sources, None, None)
        stages.record(workspace, instrument, day, sources)
        stages.ingest(workspace, instrument, day)
        features = stages.featurize(workspace, instrument, day)
        whole = stages.feature_series(workspace, instrument, {day: features}, COLUMNS)
        cut = whole.steps - STEPS - 1
        yield Recording(name, whole.slice(0, cut), whole.slice(cut, whole.steps))


@dataclass(frozen=True, eq=False)
class Check:
    """One fact of the training series, and between what bounds real data have it."""

    metric: Metric
    low: float
    high: float

    def passed(self, train: Sample, path: Sample) -> bool:
        """Whether a path has it."""
        found = _value(self.metric, train, path)
        return bool(self.low <= found <= self.high)


def _value(metric: Metric, train: Sample, path: Sample) -> float:
    """Return the number that is judged, NaN where there is none."""
    try:
        return metric.level(path, "synthetic") if isinstance(metric, StatisticMetric) else metric(train, path)
    except MetricError:
        return np.nan


def checks(train: Series) -> list[Check]:
    """Draw the bands of all facts; of metrics that judge the same number one is kept."""
    real = Sample.of(train)
    block = bootstrap.volatility_block_length(real)
    rng = stream(0, "benchmark", "bands")
    draws = [replace(real, returns=each) for each in bootstrap.resamples(real, (1, STEPS), RESAMPLES, block, rng=rng)]
    found: dict[float, Check] = {}
    for metric in metrics(("marginal", "temporal", "weighted")).values():
        values = np.array([_value(metric, real, draw) for draw in draws])
        if not np.isfinite(values).all():
            continue
        if isinstance(metric, StatisticMetric):
            low, high = np.quantile(values, (0.025, 0.975))
        else:
            low, high = -np.inf, float(np.quantile(values, 0.95))
        found.setdefault(float(values.sum()), Check(metric, float(low) - metric.margin, float(high) + metric.margin))
    return list(found.values())


def share(facts: list[Check], train: Series, paths: Series) -> tuple[float, dict[str, float]]:
    """Return which share of the facts paths have, and of each fact how many paths have it."""
    real, made = Sample.of(train), Sample.of(paths)
    each = {
        fact.metric.name: float(np.mean([fact.passed(real, made.path(at)) for at in range(made.paths)]))
        for fact in facts
    }
    return float(np.mean(list(each.values()))), each
