"""Cutting a series: contiguous segments, fixed-length windows, the chronological split.

Nothing here bridges a gap: a window or segment never holds NaN. Nothing here shuffles: time order is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.series import FloatArray, Series


def series_from_grid(
    columns: Mapping[str, np.ndarray], names: tuple[str, ...], *, step_ns: int, tick_size: float, lot_size: float
) -> Series:
    """Make one path of grid columns; rows with any NaN in `names` stay NaN in all of them, as gaps.

    `columns` must hold `label_ns` on an unbroken grid of `step_ns`.
    """
    values = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
    values[~np.isfinite(values).all(axis=1)] = np.nan
    return Series(
        values=values[np.newaxis],
        names=names,
        step_ns=step_ns,
        start_ns=np.asarray(columns["label_ns"][:1], dtype=np.int64),
        tick_size=tick_size,
        lot_size=lot_size,
    )


def segments(series: Series) -> list[tuple[int, int, int]]:
    """Return (path, start, stop) of every longest run without NaN, in path and time order."""
    found = []
    for path in range(series.paths):
        known = np.isfinite(series.values[path]).all(axis=1).astype(np.int8)
        edges = np.diff(np.concatenate(([0], known, [0])))
        starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        found += [(path, int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]
    return found


def windows(series: Series, length: int, stride: int = 1) -> FloatArray:
    """Return every window of `length` steps, `stride` apart, that lies within one segment.

    Shape (windows, length, features). Raises `TooLittleDataError` when no segment is long enough.
    """
    cuts = [
        series.values[path, first : first + length]
        for path, start, stop in segments(series)
        for first in range(start, stop - length + 1, stride)
    ]
    if not cuts:
        longest = max((stop - start for _, start, stop in segments(series)), default=0)
        raise TooLittleDataError(
            f"no window of {length} steps fits: the longest stretch without a gap has {longest} steps; "
            f"record for longer or choose a shorter window"
        )
    return np.stack(cuts)


def split(series: Series, fraction: float) -> tuple[Series, Series]:
    """Cut every path in time: the first `fraction` of the steps to train on, the rest held out."""
    cut = int(series.steps * fraction)
    return series.slice(0, cut), series.slice(cut, series.steps)
