"""The verb `featurize`, and days of features as one series."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns
from synth_pipeline.series import Series
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize
from synth_pipeline.ticks import parquet

SOURCES = (
    "schema.py",
    "features/kernels.py",
    "features/buckets.py",
    "features/arrivals.py",
    "features/depth.py",
    "features/grid.py",
    "ticks/book.py",
    "ticks/parquet.py",
    "ticks/rowgroups.py",
    "stages/features.py",
    "stages/window_features.py",
)


def featurize(workspace: Workspace, instrument: Instrument, day: date) -> Manifest:
    """Compute one day of grid features from its ticks. Raises `NoDataError` when there are none."""
    ticks = workspace.require("ticks", "ingest", instrument, day)
    config = {"step_ms": workspace.settings.step_ms}
    draft = draft_of(workspace, "features", f"{instrument}/{day}", {ticks.ref: ticks.digest}, SOURCES, config)
    return materialize(workspace, draft, lambda place: _featurize(workspace, ticks, day, place))


def _featurize(workspace: Workspace, ticks: Manifest, day: date, place: Path) -> Built:
    from synth_pipeline.stages.window_features import day_pieces
    from synth_pipeline.ticks.store import Day

    files = [workspace.file(ticks, name) for name in ("quotes", "trades", "book_levels", "gaps")]
    start_ns, step_ns = day_start_ns(day), workspace.settings.step_ns
    opened = Day(None, files[0].parent, start_ns, ticks)
    path = place / "features.parquet"
    writer = parquet.TableWriter(path, schema.GRID)
    known_mid = gap_rows = 0
    labels: list[int] = []
    for piece in day_pieces(opened, start_ns, start_ns + NS_PER_DAY, step_ns, {*schema.GRID.names}):
        writer.write(piece)
        known_mid += int(np.isfinite(piece["mid"]).sum())
        gap_rows += int(((piece["flags"] & schema.GridFlag.GAP) > 0).sum())
        labels += piece["label_ns"][[0, -1]].tolist() if piece["label_ns"].size else []
    rows = writer.close(opened.rows("quotes").scale, step_ns=str(step_ns))
    facts = {
        "rows": rows,
        "known_mid": known_mid,
        "gap_rows": gap_rows,
        "first_label_ns": labels[0] if rows else None,
        "last_label_ns": labels[-1] if rows else None,
    }
    return Built({"features": path}, facts, {"features": rows})


def look_back_of(workspace: Workspace, instrument: Instrument, day: date) -> dict[date, Manifest]:
    """The features of the days that a fit on this day sees, oldest first; the day itself must be there."""
    workspace.require("features", "featurize", instrument, day)
    days = [day - timedelta(days=back) for back in range(workspace.settings.lookback_days - 1, -1, -1)]
    found = {each: workspace.find("features", instrument, each) for each in days}
    return {each: manifest for each, manifest in found.items() if manifest is not None}


def feature_series(
    workspace: Workspace, instrument: Instrument, look_back: Mapping[date, Manifest], names: tuple[str, ...]
) -> Series:
    """Join days of features into one path on one unbroken grid; what no day covers is NaN.

    Raises `NoDataError` where some of the columns are known and others never: together no row would be.
    """
    from synth_pipeline.features.windows import series_from_grid

    paths = [workspace.file(manifest, "features") for manifest in look_back.values()]
    for day, path in zip(look_back, paths, strict=True):
        found = int(parquet.read_metadata(path)["step_ns"])
        if found != workspace.settings.step_ns:
            raise InputError(
                f"features of {instrument} on {day} have steps of {found // 1_000_000} ms, not SYNTH_STEP_MS="
                f"{workspace.settings.step_ms}: featurize that day again, or set the step back"
            )
    tables = [parquet.read_table(path, ("label_ns", *names)) for path in paths]
    labels = np.concatenate([table["label_ns"] for table in tables])
    step = workspace.settings.step_ns
    grid = np.arange(labels[0], labels[-1] + step, step)
    rows = (labels - labels[0]) // step
    columns: dict[str, np.ndarray] = {"label_ns": grid}
    for name in names:
        columns[name] = np.full(len(grid), np.nan)
        columns[name][rows] = np.concatenate([table[name] for table in tables])
    unknown = [name for name in names if not np.isfinite(columns[name]).any()]
    if 0 < len(unknown) < len(names):
        raise NoDataError(
            f"{instrument} has no {', '.join(unknown)} on {', '.join(map(str, look_back))}: the capture lacks the "
            "stream that this is made of (trades, quotes or the book); record it too, or choose a generator without it"
        )
    scales = [parquet.read_scale(path) for path in paths]
    return series_from_grid(
        columns,
        names,
        step_ns=step,
        tick_size=float(min(scale.tick_size for scale in scales)),
        lot_size=float(min(scale.lot_size for scale in scales)),
    )
