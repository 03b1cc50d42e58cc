"""`evaluate`: every metric of a synthetic series, beside the same number between real data.

Statistics are the families' business, cutting is `comparison`'s, floors are `floors`'; here they meet in one record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity import bootstrap, floors, panels, temporal, validity, weighted
from synth_pipeline.fidelity.comparison import Comparison
from synth_pipeline.fidelity.evaluation import Evaluation, Panels, Result, Sizes
from synth_pipeline.fidelity.metric import Metric, StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray, Series


def evaluate(
    train: Series,
    synthetic: Series,
    holdout: Series,
    *,
    rng: np.random.Generator,
    families: Collection[str] | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Compare a synthetic series with held-out real data, and real data with held-out real data.

    Everything is compared at equal sizes: the three series are cut into windows of n returns, n being the shortest of
    the three. With f a metric, H the held-out windows and S, T single windows of synthetic and training data:

    - value: mean over S of f(H, S); its spread is the standard deviation over S;
    - floor: mean over T of f(H, T), *fresh real data*: what a period next to the held-out one scores;
    - band: 5 % to 95 % of f(H*, T*) over 100 stationary block bootstrap resamples of *both* sides. It holds the noise
      of both samples at these sizes and the drift from training to held-out time, which no model fitted on the former
      can know of. Resampling one side only would make it too narrow: H is as accidental as S.

    A verdict (`floors.verdict`) says whether a value is no worse than band and floor. A distance is judged from both
    real stretches, held-out and training, and must be no further from either than they are from each other. A metric
    that compares one number of each sample is judged by that number, which must lie in *its* band over the resamples
    of both stretches: kurtoses of 10 and 80 are both real when the real ones range from 10 to 80, and 3 is not, though
    nearer to 10. Copying is measured against the whole training series; there, fresh real data are the held-out
    windows, without a band.

    `families` restricts the metrics beside the weighted twelve, which the fidelity always needs; a number does not
    depend on which others are asked for. Raises `TooLittleDataError` for fewer than 50 returns or real prices that
    never move.

    Series of several assets are compared asset by asset, and their dependence by the metrics that are made for it, with
    floors and bands of resamples that keep rows whole. The fidelity, its floor and band are means over assets.
    """
    if synthetic.assets:
        return _evaluate_basket(train, synthetic, holdout, rng=rng, families=families, progress=progress)
    chosen = metrics(None if families is None else {*families, "weighted"})
    sides = Comparison.of(train, synthetic, holdout)
    block = bootstrap.volatility_block_length(sides.train)
    bands = floors.bands(chosen, sides, block, rng=rng, progress=progress)
    values: dict[str, _Values] = {}
    for name, metric in chosen.items():
        values[name] = _values(metric, sides)
        progress(floors.RESAMPLES + len(values), floors.RESAMPLES + len(chosen), name)
    comparing = {metric: values[name] for name, metric in chosen.items() if isinstance(metric, StatisticMetric)}
    twelve = {metric: found for metric, found in comparing.items() if metric.weight > 0}
    scores = weighted.fidelity({metric: found.synthetic for metric, found in twelve.items()})
    score = float(np.nanmean(scores))
    floor = float(np.nanmean(weighted.fidelity({metric: found.fresh for metric, found in twelve.items()})))
    return Evaluation(
        fidelity=score,
        fidelity_spread=_spread(scores),
        floor=floor,
        fidelity_band=bands.fidelity,
        fidelity_verdict=floors.verdict(score, (floor,), bands.fidelity, "high"),
        fidelity_weight=_available(twelve),
        results=tuple(_result(metric, values[name], bands, sides) for name, metric in chosen.items()),
        checks=validity.checks(synthetic),
        sizes=_sizes(train, synthetic, holdout, sides, block),
        panels=_panels(train, synthetic, holdout, sides, bands.paths),
    )


def _evaluate_basket(
    train: Series,
    synthetic: Series,
    holdout: Series,
    *,
    rng: np.random.Generator,
    families: Collection[str] | None,
    progress: Progress,
) -> Evaluation:
    parts = [series.parts() for series in (train, synthetic, holdout)]
    if not list(parts[0]) == list(parts[1]) == list(parts[2]):
        told = " and ".join(", ".join(names) for names in dict.fromkeys(tuple(each) for each in parts))
        raise InputError(f"assets differ, {told}: compare series of the same assets in the same order")
    chosen = metrics(families, joint=True)
    sides = Comparison.of(train, synthetic, holdout)
    block = bootstrap.volatility_block_length(sides.train)
    bands = floors.bands(chosen, sides, block, rng=rng, progress=progress)
    results = tuple(_result(metric, _values(metric, sides), bands, sides) for metric in chosen.values())
    assets = {
        name: evaluate(own, made, held, rng=rng, families=families, progress=progress)
        for (name, own), made, held in zip(parts[0].items(), parts[1].values(), parts[2].values(), strict=True)
    }
    score, floor = (float(np.mean([getattr(each, name) for each in assets.values()])) for name in ("fidelity", "floor"))
    low, high = np.mean([each.fidelity_band for each in assets.values()], axis=0).tolist()
    return Evaluation(
        fidelity=score,
        fidelity_spread=None,
        floor=floor,
        fidelity_band=(low, high),
        fidelity_verdict=floors.verdict(score, (floor,), (low, high), "high"),
        fidelity_weight=min(each.fidelity_weight for each in assets.values()),
        results=results,
        checks=tuple(
            msgspec.structs.replace(check, title=f"{name}: {check.title}")
            for name, each in assets.items()
            for check in each.checks
        ),
        sizes=msgspec.structs.replace(next(iter(assets.values())).sizes, tick_size=0.0, block_length=block),
        assets=assets,
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """A metric on every synthetic path and on every path of fresh real data, NaN where absent."""

    synthetic: FloatArray
    fresh: FloatArray
    training: FloatArray
    """On every synthetic path again, with the fresh real data as the reference."""
    reason: str

    @property
    def is_absent(self) -> bool:
        """Whether fewer than half of the synthetic paths, or no path of real data, have a value."""
        return 2 * np.isfinite(self.synthetic).sum() < self.synthetic.size or not np.isfinite(self.fresh).any()


def _values(metric: Metric, sides: Comparison) -> _Values:
    against_train = metric.reference == "train"
    reference, fresh = (sides.train, sides.holdout) if against_train else (sides.holdout, sides.fresh)
    values, reason = metric.per_path(reference, sides.synthetic)
    floor, floor_reason = metric.per_path(reference, fresh)
    training = values if against_train else metric.per_path(sides.fresh, sides.synthetic)[0]
    return _Values(values, floor, training, reason or floor_reason)


def _result(metric: Metric, values: _Values, bands: floors.Bands, sides: Comparison) -> Result:
    """Set a metric's values beside their floors and judge them."""
    band = bands.values.get(metric.name)
    absent = _absent(metric, values)
    if values.is_absent or (band is None and metric.reference == "holdout"):
        return absent
    value, floor, training = (float(np.nanmean(found)) for found in (values.synthetic, values.fresh, values.training))
    present = msgspec.structs.replace(
        absent, reason="", value=value, spread=_spread(values.synthetic), floor=floor, training=training, band=band
    )
    if isinstance(metric, StatisticMetric) and (levels := bands.levels.get(metric.name)):
        real, fresh, made = (metric.level(sample, "real") for sample in (sides.holdout, sides.fresh, sides.synthetic))
        return msgspec.structs.replace(
            present,
            meaning=metric.above if made > real else metric.meaning,
            verdict=floors.verdict(made, (real, fresh), levels, "target", metric.margin, metric.scale),
            real=real,
            fresh=fresh,
            synthetic=made,
            real_band=levels,
        )
    worse = min(value, training) if metric.goal == "high" else max(value, training)
    judged = floors.verdict(worse, (floor,), band or (floor, floor), metric.goal, metric.margin)
    return msgspec.structs.replace(present, verdict=judged)


def _absent(metric: Metric, values: _Values) -> Result:
    return Result(
        name=metric.name,
        family=metric.family,
        title=metric.title,
        goal=metric.goal,
        unit=metric.unit,
        citation=metric.citation,
        what=metric.what,
        meaning=metric.meaning,
        reference=metric.reference,
        margin=metric.margin,
        weight=(metric.weight or None) if isinstance(metric, StatisticMetric) else None,
        statistic_unit=metric.statistic_unit if isinstance(metric, StatisticMetric) else "",
        paths=int(np.isfinite(values.synthetic).sum()),
        verdict="absent",
        reason=values.reason or f"{metric.name} is undefined on most resamples of the real data, so it has no floor",
    )


def _available(twelve: Mapping[StatisticMetric, _Values]) -> float:
    """Return the share of the weight whose metrics exist on some synthetic path."""
    known = sum(metric.weight for metric, values in twelve.items() if np.isfinite(values.synthetic).any())
    return known / sum(metric.weight for metric in twelve)


def _spread(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if known.size > 1 else None


def _sizes(train: Series, synthetic: Series, holdout: Series, sides: Comparison, block: float) -> Sizes:
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
        holdout_missing=int(np.isnan(sides.holdout.returns).sum()),
        block_length=block,
        resamples=floors.RESAMPLES,
    )


def _panels(train: Series, synthetic: Series, holdout: Series, sides: Comparison, resampled: FloatArray) -> Panels:
    cut = sides.fresh, sides.synthetic, sides.holdout
    return Panels(
        price=panels.price_panel(train, synthetic, holdout, sides.length),
        drawdown=panels.drawdown_panel(train, synthetic, holdout, sides.length),
        histogram=panels.histogram_panel(*cut),
        quantiles=panels.quantile_panel(*cut),
        return_acf=panels.autocorrelation_panel(temporal.return_acf, *cut, resampled),
        absolute_return_acf=panels.autocorrelation_panel(temporal.absolute_return_acf, *cut, resampled),
    )
