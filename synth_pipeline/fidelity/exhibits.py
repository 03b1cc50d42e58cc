"""What a reader wants to see beside the metrics: tails, volatility, correlations, map, neighbours, stress, checklists.

Made once, from the same three series as the record, and thinned so that the record stays small. No verdicts here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import checklists, kernels, moments, panels, stress, temporal
from synth_pipeline.fidelity.comparison import Changes, Comparison, Cuts
from synth_pipeline.fidelity.evaluation import (
    CorrelationPanel,
    Curves,
    Evaluation,
    Exhibits,
    Gappy,
    MapPanel,
    NeighbourPair,
    NeighbourPanel,
    PathPanel,
    StressPanel,
    StressPlace,
)
from synth_pipeline.fidelity.proximity import nearest
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import PRICES, Windows
from synth_pipeline.series import FloatArray, Series

TAIL_POINTS = 40
ROLLING = 20
"""Steps of a rolling volatility."""
SHOWN = 300
"""Windows a side on the map."""
PAIRS = 3
MOST_FEATURES = 16
MOST_STEPS = 40_000
"""Steps a side that the checklists, the correlations and the severity of regimes are of, the last ones."""
CALM = ("bull", "sideways", "low_volatility", "normal_volatility")
"""Regimes that are no stress."""


class Sides(NamedTuple):
    """The three series of one comparison."""

    train: Series
    synthetic: Series
    holdout: Series

    def only(self, name: str) -> Sides:
        """Return those of one asset."""
        return Sides(*(side.parts()[name] for side in self))


class Labels(NamedTuple):
    """A regime of every step of the real series, training then held-out, and of the synthetic one; -1 is none."""

    names: tuple[str, ...]
    train: NDArray[np.int8]
    synthetic: NDArray[np.int8]
    holdout: NDArray[np.int8]


def exhibited(record: Evaluation, sides: Sides, labels: Labels | None = None) -> Evaluation:
    """Return the record with its exhibits, and of several assets those of each.

    `labels` are of the market as a whole, shape (paths, steps) each; without them severity is not shown.
    """
    assets = {name: exhibited(each, sides.only(name)) for name, each in record.assets.items()}
    made: dict[str, Any] = {} if record.assets else _of_prices(sides, labels)
    cuts = Cuts.of(*sides)
    shown = Exhibits(
        **made,
        correlations=_correlations(sides),
        map=_map(cuts) if cuts else None,
        neighbours=_neighbours(cuts) if cuts else None,
    )
    return msgspec.structs.replace(record, exhibits=shown, assets=assets)


class _OfPrices(NamedTuple):
    returns: PathPanel
    losses: Curves | None
    gains: Curves | None
    squared_return_acf: Curves | None
    volatility_by_scale: Curves | None
    rolling_volatility: PathPanel | None
    stress: tuple[StressPanel, ...]
    checklists: tuple[checklists.Checklist, ...]


def _of_prices(sides: Sides, labels: Labels | None) -> dict[str, Any]:
    compared = Comparison.of(*sides)
    samples = compared.fresh, compared.synthetic, compared.holdout
    steps = compared.unit or compared.length
    return _OfPrices(
        returns=panels.curve_panel(_returns, sides.train, sides.synthetic, sides.holdout, steps),
        losses=_tail(-1.0, *samples),
        gains=_tail(1.0, *samples),
        squared_return_acf=_autocorrelations(*samples),
        volatility_by_scale=_by_scale(*samples),
        rolling_volatility=_rolling(sides, steps),
        stress=_stress(sides, labels) if labels else (),
        checklists=_checklists(sides),
    )._asdict()


# --- of returns


def _tail(sign: float, train: Sample, synthetic: Sample, holdout: Sample) -> Curves | None:
    """Make the shares of returns beyond each size on one side, None where a sample has none so large."""
    sigma = float(moments.standard_deviation(holdout.pooled[np.newaxis])[0])
    pools = [np.sort(sign * each.pooled / sigma) for each in (holdout, train, synthetic)]
    largest = max(float(pool[-1]) for pool in pools)
    if largest <= 0.5:
        return None
    sizes = np.geomspace(0.25, largest, TAIL_POINTS)
    shares = [1.0 - np.searchsorted(pool, sizes) / pool.size for pool in pools]
    real, fresh, made = ([float(each) if each > 0 else None for each in share] for share in shares)
    return Curves(sizes.tolist(), real, fresh, made)


def _autocorrelations(train: Sample, synthetic: Sample, holdout: Sample) -> Curves | None:
    curves = [moments.mean(temporal.squared_return_acf(each.returns).T) for each in (holdout, train, synthetic)]
    if not np.isfinite(curves[0]).any():
        return None
    real, fresh, made = (_gappy(each) for each in curves)
    return Curves([float(lag) for lag in range(1, len(real) + 1)], real, fresh, made)


def _by_scale(train: Sample, synthetic: Sample, holdout: Sample) -> Curves | None:
    """Make the standard deviation by horizon, over what a random walk of the held-out one has at that horizon."""
    longest = holdout.returns.shape[1] // 10
    if longest < 2:
        return None
    scales = np.unique(np.geomspace(1, longest, 16).round().astype(np.int64))
    sigma = float(moments.standard_deviation(holdout.pooled[np.newaxis])[0])
    real, fresh, made = (
        _gappy(np.array([_spread(each, int(scale)) / (sigma * scale**0.5) for scale in scales]))
        for each in (holdout, train, synthetic)
    )
    return Curves([float(scale) for scale in scales], real, fresh, made)


def _spread(sample: Sample, steps: int) -> float:
    sums = kernels.block_sums(sample.returns, steps)
    known = sums[np.isfinite(sums)]
    return float(known.std()) if known.size > 1 else np.nan


def _returns(series: Series, first: int, last: int) -> FloatArray:
    """Return the log-returns of steps `first` to `last` in percent; the first step has none."""
    returns = Sample.of(series).returns[:, first:last]
    return np.asarray(100.0 * np.pad(returns, ((0, 0), (1, 0)), constant_values=np.nan))


def _rolling(sides: Sides, returns: int) -> PathPanel | None:
    if returns < 4 * ROLLING:
        return None
    return panels.curve_panel(_rolling_volatility, sides.train, sides.synthetic, sides.holdout, returns)


def _rolling_volatility(series: Series, first: int, last: int) -> FloatArray:
    """Return the root mean square of the last 20 returns in percent, NaN where a gap hides one."""
    returns = Sample.of(series).returns[:, first:last]
    squares = np.lib.stride_tricks.sliding_window_view(returns**2, ROLLING, axis=1).mean(axis=2)
    found = np.full((returns.shape[0], last - first + 1), np.nan)
    found[:, ROLLING:] = 100.0 * np.sqrt(squares)
    return found


# --- of features


def _correlations(sides: Sides) -> CorrelationPanel | None:
    """Correlate features as they change; None where there is but one."""
    changes = Changes.of(sides.train)
    names = [name for name in sides.holdout.names if name in sides.synthetic.names][:MOST_FEATURES]
    if len(names) < 2:
        return None
    real, made = (changes(_last(each.select(tuple(names)))) for each in (sides.holdout, sides.synthetic))
    return CorrelationPanel(names, _matrix(real), _matrix(made))


def _matrix(series: Series) -> list[Gappy]:
    rows = series.values.reshape(-1, series.values.shape[2])
    known = rows[np.isfinite(rows).all(axis=1)]
    if len(known) < 2:
        return [[None] * rows.shape[1]] * rows.shape[1]
    centred = known - known.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = centred.T @ centred / np.outer(size, size)
    return [_gappy(row) for row in matrix.round(4)]


def _map(cuts: Cuts) -> MapPanel:
    """Show windows on the first two principal components of the training ones."""
    flat = [each.thinned(4 * SHOWN).flat for each in (cuts.train, cuts.holdout, cuts.synthetic)]
    centre, spread = flat[0].mean(axis=0), flat[0].std(axis=0)
    train, holdout, made = ((each - centre) / np.where(spread > 0, spread, 1.0) for each in flat)
    _, strengths, axes = np.linalg.svd(train, full_matrices=False)
    total = float((strengths**2).sum())
    first = np.zeros((train.shape[1], 2))
    first[:, : min(2, len(axes))] = axes[:2].T
    # A plane has no up: the longest entry of an axis is made positive, so that the same data give the same map.
    first *= np.where(first[np.abs(first).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    real, held, synthetic = (
        (each[np.unique(np.linspace(0, len(each) - 1, SHOWN).astype(np.int64))] @ first).round(4).tolist()
        for each in (train, holdout, made)
    )
    return MapPanel(real, held, synthetic, float((strengths[:2] ** 2).sum() / total) if total else 0.0)


def _neighbours(cuts: Cuts) -> NeighbourPanel:
    """Show the synthetic windows nearest to training ones, each with another training window."""
    found, held = nearest(cuts.synthetic, cuts.train, cuts.train), nearest(cuts.holdout, cuts.train, cuts.train)
    order = np.argsort(found.distance, kind="stable")
    _, first = np.unique(found.place[order], return_index=True)
    chosen = order[np.sort(first)[:PAIRS]]
    at = next((at for at, name in enumerate(cuts.train.names) if name.rpartition(":")[2].lower() in PRICES), 0)
    pairs = [
        NeighbourPair(
            _drawn(cuts.synthetic, int(each), at, cuts.train),
            _drawn(cuts.train, int(found.place[each]), at, cuts.train),
            float(found.distance[each]),
        )
        for each in chosen
    ]
    name = cuts.train.names[at]
    feature = f"{name}, summed up, σ" if cuts.train.in_changes else f"{name}, scaled"
    return NeighbourPanel(pairs, float(np.median(held.distance)), float(held.distance.min()), feature)


def _drawn(windows: Windows, row: int, at: int, train: Windows) -> list[float]:
    values = windows.values[row, :, at]
    if windows.in_changes:
        spread = float(train.values[:, :, at].std())
        values = np.cumsum(np.append(0.0, (values - train.values[:, :, at].mean()) / (spread or 1.0)))
    drawn: list[float] = values.round(4).tolist()
    return drawn


# --- stress and checklists


def _stress(sides: Sides, labels: Labels) -> tuple[StressPanel, ...]:
    prices = [each.column(each.price_name) for each in sides]
    shown = []
    for number, regime in enumerate(labels.names):
        marks = [np.asarray(each == number) for each in labels[1:]]
        if regime in CALM or not (marks[0].any() or marks[2].any()):
            continue
        train, made, holdout = (stress.of_episodes(*each) for each in zip(prices, marks, strict=True))
        real = stress.Severity(
            *(np.concatenate([getattr(each, name) for each in (train, holdout)]) for name in _MEASURES)
        )
        shown.append(_severity(regime, made, real))
    return tuple(shown)


_MEASURES = tuple(stress.MEASURES)


def _severity(regime: str, made: stress.Severity, real: stress.Severity) -> StressPanel:
    counts = int(real.duration.size), int(made.duration.size)
    if not counts[1]:
        return StressPanel(regime, *counts, reason="it never comes about in the synthetic data")
    try:
        found = stress.placements(made, real)
    except MetricError as error:
        return StressPanel(regime, *counts, reason=str(error))
    places = tuple(
        StressPlace(
            each.title,
            each.unit,
            real=_known(each.real),
            synthetic=_known(each.synthetic),
            percentile=each.percentile,
            milder=each.milder,
            graver=each.graver,
        )
        for each in found
    )
    return StressPanel(regime, *counts, places)


def _checklists(sides: Sides) -> tuple[checklists.Checklist, ...]:
    """Hold the synthetic data against the training data, and the held-out ones too: they are the fresh real data."""
    real, synthetic, fresh = (_last(each) for each in sides)
    return tuple(
        each(real, synthetic, fresh)
        for each in (
            checklists.feature_parity,
            checklists.augmentation_table,
            checklists.weighted_fidelity,
            checklists.path_diagnostics,
        )
    )


def _last(series: Series) -> Series:
    """Return the last steps of every path, and only so many paths that they are few enough."""
    paths = min(series.paths, max(MOST_STEPS // series.steps, 1))
    whole = series.slice(max(series.steps - MOST_STEPS, 0), series.steps)
    return replace(whole, values=whole.values[:paths], start_ns=whole.start_ns[:paths])


def _gappy(values: FloatArray) -> Gappy:
    return [_known(value) for value in values]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
