"""`evaluate`: every metric of a synthetic series, beside the same number between real data.

Statistics are the families' business, cutting is `comparison`'s, floors are `floors`' and `splits`', verdicts are
`verdicts`', the letter is `grade`'s; here they meet in one record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity import bootstrap, floors, panels, results, splits, temporal, validity, verdicts, weighted
from synth_pipeline.fidelity.comparison import Comparison, Cuts
from synth_pipeline.fidelity.evaluation import Evaluation, Floors, Panels, Result, Sizes
from synth_pipeline.fidelity.grade import graded
from synth_pipeline.fidelity.metric import Metric, StatisticMetric, WindowMetric
from synth_pipeline.fidelity.registry import metrics, window_metrics
from synth_pipeline.fidelity.results import Values
from synth_pipeline.fidelity.verdicts import Judgement, Question
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import Series

HELD_OUT = 0.3
"""Share of real data, at their end, that is held out where none are given."""
_FIDELITY = "fidelity"
_GRAVITY = ("absent", "indistinguishable", "close", "off")
Families = Collection[str] | Literal["all"] | None
"""Which families: those named; all; or None, all that train nothing."""


def evaluate(
    real: Series,
    synthetic: Series,
    holdout: Series | None = None,
    *,
    rng: np.random.Generator,
    families: Families = None,
    progress: Progress = silent,
) -> Evaluation:
    """Compare a synthetic series with held-out real data, and real data with real data.

    `real` is what the generator was fitted on, `holdout` a later period that it never saw; where that is None, the
    last 30 % of the real data are held out, which is fair only if the generator did not see them.

    Everything is compared at equal sizes: the three series are cut into windows of n returns, n being the shortest of
    the three. With f a metric, H the held-out windows and S, T single windows of synthetic and training data:

    - value: mean over S of f(H, S); its spread is the standard deviation over S;
    - floors: the same number four times between real data (`floors` says how each is drawn): two halves of one period,
      resamples in blocks, f(T, H) of fresh real data, and f(H, T) of the copy;
    - band: 5 % to 95 % of f(H*, T*) over 100 stationary block bootstrap resamples of *both* sides. It holds the noise
      of both samples at these sizes and the drift from training to held-out time, which no model fitted on the former
      can know of. Resampling one side only would make it too narrow: H is as accidental as S.

    A verdict says whether a value is no worse than band and fresh real data, at a chance of 5 % that *any* number of
    real data is called otherwise (`verdicts`). A distance is judged from both real stretches, held-out and training,
    and must be no further from either than they are from each other. A metric that compares one number of each sample
    is judged by that number, which must lie in *its* band over the resamples of both stretches: kurtoses of 10 and 80
    are both real when the real ones range from 10 to 80, and 3 is not, though nearer to 10. Copying is measured against
    the whole training series; there, fresh real data are the held-out windows, without a band. Metrics of windows are
    judged by what training windows that were kept apart score in place of the synthetic ones (`splits`).

    `families` restricts the metrics beside the weighted twelve, which the fidelity always needs; what trains a network
    is computed only when its family is named, or for "all". Values and floors do not depend on which others are asked
    for; verdicts do, as more numbers give chance more room. Raises `TooLittleDataError` for fewer than 50 returns or
    real prices that never move.

    Series of several assets are compared asset by asset, and their dependence by the metrics that are made for it, with
    floors and bands of resamples that keep rows whole. The fidelity, its floors and band are means over assets.
    """
    told = "given"
    if holdout is None:
        real, holdout, told = held_out(real)
    job = _Job(real, synthetic, holdout, told, rng, families, progress)
    return graded(_evaluate_basket(job) if synthetic.assets else _evaluate(job))


def held_out(real: Series) -> tuple[Series, Series, str]:
    """Split real data by time; where there are several paths, by their order."""
    if real.paths > 1:
        at = round((1.0 - HELD_OUT) * real.paths)
        first, rest = (
            replace(real, values=real.values[part], start_ns=real.start_ns[part])
            for part in (slice(at), slice(at, None))
        )
        return first, rest, f"the last {HELD_OUT:.0%} of the paths of the real data"
    at = round((1.0 - HELD_OUT) * real.steps)
    return real.slice(0, at), real.slice(at, real.steps), f"the last {HELD_OUT:.0%} of the real data"


@dataclass(frozen=True, eq=False)
class _Job:
    """What is asked for."""

    train: Series
    synthetic: Series
    holdout: Series
    told: str
    """Where the held-out data come from."""
    rng: np.random.Generator
    families: Families
    progress: Progress

    @property
    def named(self) -> Collection[str] | None:
        """The families asked for; None for all."""
        return None if self.families in (None, "all") else self.families

    def of_windows(self) -> dict[str, WindowMetric]:
        """Return the metrics of windows: those that train nothing, unless their family is named."""
        found = window_metrics(self.named)
        return {name: each for name, each in found.items() if self.families is not None or each.cost == "cheap"}


class _Steps:
    """Counts the steps of one evaluation."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total

    def __call__(self, note: str = "real against real") -> None:
        """Report one more."""
        self.done += 1
        self.progress(self.done, self.total, note)


@dataclass(frozen=True, eq=False)
class _Measured:
    """Values and floors of everything, before anything is judged."""

    sides: Comparison
    cuts: Cuts | None
    block: float
    draws: floors.Floors
    values: dict[str, Values]
    found: dict[str, tuple[Result, Question | None]]

    def questions(self) -> dict[str, Question]:
        """Return the numbers to be judged, by metric."""
        return {name: question for name, (_, question) in self.found.items() if question}

    def results(self, judgements: Mapping[str, Judgement], limit: float) -> tuple[Result, ...]:
        """Return all results with their verdicts."""
        return tuple(results.stated(result, judgements.get(name), limit) for name, (result, _) in self.found.items())


def _measure(job: _Job, chosen: Mapping[str, Metric]) -> _Measured:
    sides = Comparison.of(job.train, job.synthetic, job.holdout)
    of_windows = job.of_windows()
    tick = _Steps(job.progress, floors.PAIRS + len(chosen) + len(of_windows))
    block = bootstrap.volatility_block_length(sides.train)
    draws = floors.measured(chosen, sides, block, rng=job.rng, tick=tick)
    values, found = {}, {}
    for name, metric in chosen.items():
        values[name] = Values.of(metric, sides)
        found[name] = results.of_returns(metric, values[name], draws, sides)
        tick(name)
    cuts = Cuts.of(job.train, job.synthetic, job.holdout) if of_windows else None
    if cuts:
        scores = splits.measured(of_windows, cuts, rng=job.rng, tick=tick)
        found |= {name: results.of_windows(of_windows[name], each) for name, each in scores.items()}
    return _Measured(sides, cuts, block, draws, values, found)


def _evaluate(job: _Job) -> Evaluation:
    chosen = metrics(None if job.named is None else {*job.named, "weighted"})
    made = _measure(job, chosen)
    twelve = {each: name for name, each in chosen.items() if isinstance(each, StatisticMetric) and each.weight > 0}
    fidelities = {
        kind: weighted.fidelity({each: getattr(made.values[name], kind) for each, name in twelve.items()})
        for kind in ("synthetic", "fresh", "copy")
    }
    bootstrapped, halves = (
        weighted.fidelity({each: drawn[name] for each, name in twelve.items()})
        for drawn in (made.draws.bootstrap, made.draws.split_half)
    )
    score, floor = (float(np.nanmean(fidelities[kind])) for kind in ("synthetic", "fresh"))
    question = Question(score, bootstrapped, (floor, float(np.nanmean(fidelities["copy"]))), "high")
    judgements, limit = verdicts.judged({**made.questions(), _FIDELITY: question})
    available = sum(each.weight for each, name in twelve.items() if results.known(made.values[name].synthetic))
    return Evaluation(
        fidelity=score,
        fidelity_spread=results.spread(fidelities["synthetic"]),
        floor=floor,
        fidelity_floors=Floors(
            split_half=results.floor(halves),
            bootstrap=results.floor(bootstrapped),
            fresh=results.floor(fidelities["fresh"]),
            copy=results.floor(fidelities["copy"]),
        ),
        fidelity_band=verdicts.interval(bootstrapped) or (0.0, 100.0),
        fidelity_verdict=judgements[_FIDELITY].verdict,
        fidelity_weight=available / sum(each.weight for each in twelve),
        results=made.results(judgements, limit),
        checks=validity.checks(job.synthetic, job.train),
        sizes=_sizes(job, made),
        panels=_panels(job, made),
    )


def _evaluate_basket(job: _Job) -> Evaluation:
    parts = [series.parts() for series in (job.train, job.synthetic, job.holdout)]
    if not list(parts[0]) == list(parts[1]) == list(parts[2]):
        told = " and ".join(", ".join(names) for names in dict.fromkeys(tuple(each) for each in parts))
        raise InputError(f"assets differ, {told}: compare series of the same assets in the same order")
    made = _measure(job, metrics(job.named, joint=True))
    judgements, limit = verdicts.judged(made.questions())
    assets = {
        name: graded(_evaluate(replace(job, train=own, synthetic=new, holdout=held)))
        for (name, own), new, held in zip(parts[0].items(), parts[1].values(), parts[2].values(), strict=True)
    }
    score, floor = (float(np.mean([getattr(each, name) for each in assets.values()])) for name in ("fidelity", "floor"))
    low, high = np.mean([each.fidelity_band for each in assets.values()], axis=0).tolist()
    first = next(iter(assets.values()))
    return Evaluation(
        fidelity=score,
        fidelity_spread=None,
        floor=floor,
        fidelity_floors=_mean_floors([each.fidelity_floors for each in assets.values()]),
        fidelity_band=(low, high),
        fidelity_verdict=max((each.fidelity_verdict for each in assets.values()), key=_GRAVITY.index),
        fidelity_weight=min(each.fidelity_weight for each in assets.values()),
        results=made.results(judgements, limit),
        checks=tuple(
            msgspec.structs.replace(check, title=f"{name}: {check.title}")
            for name, each in assets.items()
            for check in each.checks
        ),
        sizes=msgspec.structs.replace(first.sizes, tick_size=0.0, block_length=made.block),
        assets=assets,
    )


def _mean_floors(each: list[Floors]) -> Floors:
    """Return the mean over assets of every kind of floor."""
    return Floors(
        **{
            kind: results.floor(np.array([getattr(one, kind).value or np.nan for one in each], np.float64))
            for kind in Floors.__struct_fields__
        }
    )


def _sizes(job: _Job, made: _Measured) -> Sizes:
    train, synthetic, holdout, sides = job.train, job.synthetic, job.holdout, made.sides
    return Sizes(
        price=synthetic.price_name,
        step_ns=synthetic.step_ns,
        tick_size=synthetic.tick_size,
        train_steps=train.paths * train.steps,
        holdout_steps=holdout.paths * holdout.steps,
        synthetic_paths=synthetic.paths,
        synthetic_steps=synthetic.steps,
        compared_returns=sides.length,
        train_windows=sides.fresh.paths,
        holdout_windows=sides.holdout.paths,
        synthetic_windows=sides.synthetic.paths,
        train_missing=int(sides.train.returns.size - sides.train.pooled.size),
        holdout_missing=int(np.isnan(sides.whole_holdout.returns).sum()),
        block_length=made.block,
        resamples=floors.RESAMPLES,
        holdout=job.told,
        thinned=(*sides.thinned, *(made.cuts.told if made.cuts else ())),
    )


def _panels(job: _Job, made: _Measured) -> Panels:
    sides, resampled = made.sides, made.draws.paths
    cut = sides.fresh, sides.synthetic, sides.holdout
    series, steps = (job.train, job.synthetic, job.holdout), sides.unit or sides.length
    return Panels(
        price=panels.price_panel(*series, steps),
        drawdown=panels.drawdown_panel(*series, steps),
        histogram=panels.histogram_panel(*cut),
        quantiles=panels.quantile_panel(*cut),
        return_acf=panels.autocorrelation_panel(temporal.return_acf, *cut, resampled),
        absolute_return_acf=panels.autocorrelation_panel(temporal.absolute_return_acf, *cut, resampled),
    )
