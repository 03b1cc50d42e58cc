"""Several timeframes of one series at once: sampled on the finest, the coarser ones are made of it.

Open of the first step, high of the highest, low of the lowest, the sum of sizes, of every other column the last: what
is known at the label. Buckets are those of `bars.resampling`: aligned to the Unix epoch, weeks to Monday; a label is
the end of a step, so the bucket that ends at L holds the labels in (L - length, L]. A bucket that the series holds in
part is left out, one with a gap in it is a gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.features.transforms import on_grid
from synth_pipeline.schema import NS_PER_DAY
from synth_pipeline.series import FloatArray, Series

SIZES = ("volume", "turnover", "trade_count", "buy_volume")
_WEEK_NS, _MONDAY_NS = 7 * NS_PER_DAY, 4 * NS_PER_DAY


def timeframes(series: Series, factors: Iterable[int]) -> dict[int, Series]:
    """Return the series in steps of so many of its own, by factor; 1 is the series itself.

    Raises `InputError` for a factor below 1, one that leaves no whole step, and paths that begin at different places
    of a step.
    """
    return {factor: _coarser(series, factor) for factor in factors}


def _coarser(series: Series, factor: int) -> Series:
    if factor < 1:
        raise InputError(f"a timeframe of {factor} steps is none: take 1 or more")
    if factor == 1:
        return series
    if series.assets:
        return Series.joined({name: _coarser(part, factor) for name, part in series.parts().items()})
    length = factor * series.step_ns
    origin = _MONDAY_NS if length % _WEEK_NS == 0 else 0
    opens = series.start_ns - series.step_ns - origin
    skipped = -(opens % -length // series.step_ns)
    if len(set(skipped.tolist())) > 1:
        raise InputError(f"paths begin at different places of a step of {factor}: bring each to it alone")
    first = int(skipped[0])
    count = (series.steps - first) // factor
    if count < 1:
        raise InputError(f"{series.steps} steps hold no whole one of {factor}: sample longer paths")
    rows = series.values[:, first : first + count * factor].reshape(series.paths, count, factor, -1)
    values = np.stack([_column(rows[..., at], name, series) for at, name in enumerate(series.names)], axis=2)
    values[~np.isfinite(rows).all(axis=(2, 3))] = np.nan
    start_ns = (opens + first * series.step_ns) // length * length + length + origin
    return replace(series, values=values, step_ns=length, start_ns=start_ns)


def _column(rows: FloatArray, name: str, series: Series) -> FloatArray:
    """Return one column of the coarser series from rows of shape (paths, buckets, steps)."""
    if name == "open":
        return rows[..., 0]
    if name == "high":
        return np.asarray(rows.max(axis=2))
    if name == "low":
        return np.asarray(rows.min(axis=2))
    if name not in SIZES:
        return rows[..., -1]
    total = rows.sum(axis=2)
    # Sums of decimal sizes are exact only as whole lots.
    whole = name in ("volume", "buy_volume") and series.lot_size
    return on_grid(np.rint(total / series.lot_size), series.lot_size) if whole else np.asarray(total)
