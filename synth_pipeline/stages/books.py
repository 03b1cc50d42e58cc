"""Days of features beside the best levels of the book at every label, as one series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import numpy as np

from synth_pipeline.errors import NoDataError
from synth_pipeline.features import book_image
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns
from synth_pipeline.series import FloatArray, Series
from synth_pipeline.stages.features import feature_series
from synth_pipeline.stages.workspace import Workspace

_KNOWN = "imbalance_5"
"""Of the features: NaN where the book is hidden by a gap, or has not five levels."""


def ticks_of(workspace: Workspace, instrument: Instrument, day: date, features: Manifest) -> Manifest:
    """Return the ticks that a day of features was made from. Raises `NoDataError` when they have changed since."""
    found = workspace.require("ticks", "ingest", instrument, day)
    if features.inputs.get(found.ref) != found.digest:
        raise NoDataError(f"{features.ref} is older than {found.ref}: featurize that day again")
    return found


def book_series(
    workspace: Workspace,
    instrument: Instrument,
    look_back: Mapping[date, Manifest],
    ticks: Mapping[date, Manifest],
    names: tuple[str, ...],
) -> Series:
    """Return the columns `names`, some of them of `features.book_image`, of days as `feature_series` joins them.

    Raises `NoDataError` where the book is never known five levels deep.
    """
    plain = tuple(name for name in names if name not in book_image.NAMES)
    grid = feature_series(workspace, instrument, look_back, (*plain, _KNOWN))
    labels = grid.start_ns[0] + grid.step_ns * np.arange(grid.steps)
    values = np.full((grid.steps, len(book_image.NAMES)), np.nan)
    for day, manifest in ticks.items():
        start_ns = day_start_ns(day)
        own = (labels > start_ns) & (labels <= start_ns + NS_PER_DAY)
        values[own] = _of_day(workspace, manifest, start_ns, grid.step_ns)[(labels[own] - start_ns) // grid.step_ns - 1]
    values[np.isnan(grid.column(_KNOWN)[0])] = np.nan
    joined = np.concatenate((grid.values, values[np.newaxis]), axis=2)
    return replace(grid, values=joined, names=(*grid.names, *book_image.NAMES)).select(names)


def _of_day(workspace: Workspace, manifest: Manifest, start_ns: int, step_ns: int) -> FloatArray:
    """Return the book's columns at every label of a day, shape (buckets, columns)."""
    from synth_pipeline.stages.window_features import book_pieces
    from synth_pipeline.ticks.store import Day

    files = [workspace.file(manifest, name) for name in ("quotes", "trades", "book_levels", "gaps")]
    opened = Day(None, files[0].parent, start_ns, manifest)
    scale = opened.rows("quotes").scale
    pieces = []
    for labels, ladder in book_pieces(opened, step_ns):
        columns = book_image.book_columns(ladder, labels, scale)
        pieces.append(np.stack([columns[name] for name in book_image.NAMES], axis=1))
    return np.concatenate(pieces)
