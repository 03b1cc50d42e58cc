"""Paths of hours: how many stylised facts they keep, whether they copy or drift, and who comes nearest.

Two recordings on the half-second grid, the LOBSTER day of AMZN and the Bitstamp order-by-order capture, from
`SYNTH_REAL_DATA` (default `../shared/data`). The last two hours of each are *fresh*: nothing is fitted on them. Paths
of two hours are held against what came before by every metric of returns of the families `marginal`, `temporal` and
`weighted`, each beside its 95 % band between real and real: between the training series and 200 stationary block
bootstrap resamples of it, two hours each, in blocks as long as its volatility asks for. A metric that compares one
number of each side is judged by that number, which must lie between the 2.5 % and 97.5 % quantiles of the resamples; a
distance must not exceed their 95 % quantile. What resamples leave undefined is no check. Each path is one look, as the
fresh period is; shares are means over paths.

Ranks are of equal wall-clock budgets, on the distance of the autocorrelations of |returns| and on the tail index of
returns over ten seconds (half seconds of a coarse grid have no tail), both from the training series, by mean over the
recordings and over seeds: every model is fitted with each, on one thread, as many at once as there are cores. The rank
is that of the means; beside it stands which models differ from `chunk_flow` by more than two standard errors of seeds.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
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
RESAMPLES, PATHS, DRIFTING = 200, 16, 64
SEEDS = 4
APART = 2.0
"""Standard errors of seeds that part two models."""
NEURAL = ("chunk_flow", "ar_mlp", "wgan_gp", "conditional_gan", "rcgan", "quant_gan", "sig_wgan")
CLASSICAL = ("self_exciting_jump_diffusion", "filtered_historical_simulation", "garch", "block_bootstrap")
TEN_SECONDS, TAIL = 20, 0.05
BUDGET = "60s"
BARS = {
    "facts_vs_fresh": 1.0,
    "copied_share": 0.01,
    "drift_z": 3.0,
    "rank_chunk_flow": 1.0,
    "sample_rate_chunk_flow": 20_000.0,
}


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording, cut in time."""

    name: str
    train: Series
    fresh: Series


def recordings(data: Path, home: Path) -> Iterator[Recording]:
    """Ingest the files that are there and cut their features."""
    for name, (file, day) in RECORDINGS.items():
        if not (data / file).exists():
            continue
        workspace, sources = stages.Workspace.of(Settings(home=home)), [data / file]
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


def checks(train: Series, resamples: int = RESAMPLES) -> list[Check]:
    """Draw the bands of all facts; of metrics that judge the same number one is kept."""
    real = Sample.of(train)
    block = bootstrap.volatility_block_length(real)
    rng = stream(0, "benchmark", "bands")
    resampled = bootstrap.resamples(real, (1, STEPS), resamples, block, rng=rng)
    draws = [replace(real, returns=each) for each in resampled]
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
    each = {fact.metric.name: float(np.mean([fact.passed(real, path) for path in made.one_by_one])) for fact in facts}
    return float(np.mean(list(each.values()))), each


def fitted(name: str, series: Series, settings: Mapping[str, Any], seed: int = 0) -> Generator:
    """Return a generator fitted on a series."""
    made: Generator = plugins.load(generators, name).from_settings(dict(settings))
    return made.fit(series, rng=stream(seed, "fit"))


@dataclass
class Found:
    """What the paths of one recording are like."""

    facts: float
    fresh: float
    training: float
    checks: int
    copied: float
    drift: float
    lacking: list[str] = field(default_factory=list)


def looked_at(recording: Recording, generator: Generator, quick: bool) -> Found:
    """Hold paths of two hours against the training series."""
    train, paths = recording.train, generator.sample(DRIFTING, STEPS + 1, rng=stream(0, "paths"))
    facts = checks(train, 60 if quick else RESAMPLES)
    some = replace(
        paths, values=paths.values[: 4 if quick else PATHS], start_ns=paths.start_ns[: 4 if quick else PATHS]
    )
    made, each = share(facts, train, some)
    known = share(facts, train, recording.fresh)[0]
    again = [train.slice(at, at + STEPS + 1) for at in np.linspace(0, train.steps - STEPS - 1, 3).astype(int).tolist()]
    training = float(np.mean([share(facts, train, part)[0] for part in again]))
    ends = paths.log_returns().sum(axis=1)
    return Found(
        made,
        known,
        training,
        len(facts),
        verbatim_share(Sample.of(train), Sample.of(some)),
        abs(float(ends.mean() / (ends.std(ddof=1) / np.sqrt(len(ends))))),
        sorted(name for name, passed in each.items() if passed < 0.5),
    )


def facts_claims(found: Mapping[str, Found]) -> list[Claim]:
    """Return the claims of facts, copies and drift, the worse of the recordings each."""
    ratios = {name: each.facts / each.fresh for name, each in found.items()}
    shown = {
        f"{name}, {what}": value
        for name, each in found.items()
        for what, value in (
            ("paths", each.facts),
            ("fresh", each.fresh),
            ("training windows", each.training),
            ("checks", float(each.checks)),
        )
    }
    lacking = "; ".join(f"{name} mostly lacks {', '.join(each.lacking)}" for name, each in found.items())
    what = "share of stylised facts that paths of two hours keep, over that of the two hours that followed"
    return [
        Claim("facts_vs_fresh", what, min(ratios.values()), BARS["facts_vs_fresh"], "high", ratios | shown, lacking),
        Claim(
            "copied_share",
            "share of returns in verbatim runs of five or more from the training series",
            max(each.copied for each in found.values()),
            BARS["copied_share"],
            "low",
            {name: each.copied for name, each in found.items()},
        ),
        Claim(
            "drift_z",
            f"|z| of the mean log price of {DRIFTING} paths after two hours",
            max(each.drift for each in found.values()),
            BARS["drift_z"],
            "low",
            {name: each.drift for name, each in found.items()},
        ),
    ]


# ---- ranks


def tail_index(sample: Sample) -> float:
    """Return Hill's index of sizes of moves over ten seconds, mean over paths."""
    sums = np.abs(kernels.block_sums(sample.returns, TEN_SECONDS))
    return float(np.nanmean([hill(path, TAIL)[0] for path in sums]))


def distances(real: Series, paths: Series) -> tuple[float, float]:
    """Return how far paths are from a real series in autocorrelation of |returns| and in tail index."""
    one, other = Sample.of(real), Sample.of(paths)
    return temporal.absolute_return_acf_error(one, other), abs(float(np.log(tail_index(other) / tail_index(one))))


def _standing(name: str, on: Recording, settings: Mapping[str, Any], seed: int) -> tuple[float, float]:
    """Return the distances of a generator's paths of two hours from what it was fitted on.

    The tail index of sixteen paths moves by a tenth from one sixteen to the next.
    """
    made = fitted(name, on.train, settings, seed)
    return distances(on.train, made.sample(DRIFTING, STEPS + 1, rng=stream(seed, "paths")))


def standings(all_of: list[Recording], budget: str) -> dict[str, FloatArray]:
    """Return the distances of every generator, means over the recordings, shape (seeds, 2); one at a time a core."""
    names: dict[str, dict[str, Any]] = {name: {"budget": budget} for name in NEURAL} | {name: {} for name in CLASSICAL}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = {
            name: [[pool.submit(_standing, name, on, settings, seed) for on in all_of] for seed in range(SEEDS)]
            for name, settings in names.items()
        }
        return {
            name: np.mean([[each.result() for each in row] for row in rows], axis=1) for name, rows in asked.items()
        }


def apart(one: FloatArray, other: FloatArray) -> bool:
    """Whether means of two samples of seeds differ by more than their standard errors allow."""
    error = np.sqrt(sum(each.var(ddof=1) / len(each) for each in (one, other)))
    return bool(abs(one.mean() - other.mean()) > APART * error)


def floors(all_of: list[Recording]) -> tuple[float, float]:
    """Return the 95 % quantiles of both distances between a training series and single resamples of it."""
    rng, found = stream(0, "benchmark", "floor"), []
    for each in all_of:
        real = Sample.of(each.train)
        block = bootstrap.volatility_block_length(real)
        drawn = [replace(real, returns=r) for r in bootstrap.resamples(real, (1, STEPS), 100, block, rng=rng)]
        own = tail_index(real)
        pairs = [(temporal.absolute_return_acf_error(real, one), abs(np.log(tail_index(one) / own))) for one in drawn]
        found.append(np.nanquantile(pairs, 0.95, axis=0))
    first, second = np.mean(found, axis=0).tolist()
    return first, second


def rank_claim(all_of: list[Recording], budget: str) -> Claim:
    """Rank by both distances; a classical model is ahead only by more than the floor. The worse rank counts."""
    seeds = standings(all_of, budget)
    table = {name: each.mean(axis=0).tolist() for name, each in seeds.items()}
    floor, ranks, shown, notes = floors(all_of), [], {}, []
    for at, what in enumerate(("acf", "tail")):
        own = table["chunk_flow"][at]
        ahead = [name for name in NEURAL if table[name][at] < own]
        ahead += [name for name in CLASSICAL if table[name][at] < own - floor[at]]
        ranks.append(1 + len(ahead))
        shown |= {f"{name}, {what}": row[at] for name, row in sorted(table.items(), key=lambda each: each[1][at])}
        shown |= {f"{name}, {what}, deviation of seeds": float(each[:, at].std(ddof=1)) for name, each in seeds.items()}
        shown |= {f"floor, {what}": floor[at], f"rank, {what}": float(ranks[-1])}
        parted = [name for name, each in seeds.items() if apart(each[:, at], seeds["chunk_flow"][:, at])]
        nearer = [name for name in parted if table[name][at] < own]
        farther = [name for name in parted if table[name][at] > own]
        notes.append(f"{what}, beyond the spread of seeds: {_named(nearer)} nearer, {_named(farther)} farther")
    what = f"rank by autocorrelation of |returns| and by tail index, {budget} of training each, mean of {SEEDS} seeds; "
    bar = BARS["rank_chunk_flow"]
    return Claim(
        "rank_chunk_flow", what + "the worse of the two", float(max(ranks)), bar, "equal", shown, "; ".join(notes)
    )


def _named(names: list[str]) -> str:
    return ", ".join(names) or "none"


# ---- speed


def _bars_per_second(folder: str, steps: int) -> float:
    generator = plugins.load(generators, "chunk_flow").load(Path(folder))
    generator.sample(1, 64, rng=stream(0, "warm"))
    started = time.perf_counter()
    generator.sample(generator.rows, steps, rng=stream(0, "speed"))
    return generator.rows * steps / (time.perf_counter() - started)


def rate_claim(generator: Generator, steps: int) -> Claim:
    """Sample in two processes at once."""
    with tempfile.TemporaryDirectory() as folder:
        generator.save(Path(folder))
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            rates = list(pool.map(_bars_per_second, [folder] * 2, [steps] * 2))
    what = "bars a second, all four features, batches of 64 paths, 2 processes"
    bar = BARS["sample_rate_chunk_flow"]
    return Claim("sample_rate_chunk_flow", what, sum(rates), bar, "high", {"the slower process": min(rates)})


def claims(data: Path, quick: bool) -> list[Claim]:
    """Return the claims of long paths; `quick` looks at one recording after seconds of training and ranks nobody."""
    with tempfile.TemporaryDirectory() as home:
        all_of = list(recordings(data, Path(home)))
    if not all_of:
        note = f"{' and '.join(file for file, _ in RECORDINGS.values())} not under SYNTH_REAL_DATA"
        return [Claim(name, "paths of hours", None, bar, "low", note=note) for name, bar in BARS.items()]
    all_of = all_of[-1:] if quick else all_of
    made = [fitted("chunk_flow", each.train, {"steps": 300} if quick else {}) for each in all_of]
    pairs = zip(all_of, made, strict=True)
    found = facts_claims({each.name: looked_at(each, own, quick) for each, own in pairs})
    if quick:
        note = "not measured in the quick form"
        found.append(Claim("rank_chunk_flow", "rank among models", None, BARS["rank_chunk_flow"], "equal", note=note))
    else:
        found.append(rank_claim(all_of, BUDGET))
    return [*found, rate_claim(made[0], 2_048 if quick else 16_384)]


def main() -> None:
    options = arguments(__doc__).parse_args()
    report("generators_paths", claims(DATA, options.quick), as_json=options.json)


if __name__ == "__main__":
    main()
