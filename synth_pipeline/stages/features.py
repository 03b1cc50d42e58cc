"""The verb `featurize`, and days of features as one series."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns
from synth_pipeline.series import Series
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize
from synth_pipeline.ticks import store

_SOURCES = (
    "schema.py",
    "features/kernels.py",
    "features/buckets.py",
    "features/arrivals.py",
    "features/depth.py",
    "features/grid.py",
    "ticks/book.py",
    "ticks/ladder.py",
    "ticks/store.py",
    "stages/features.py",
)


def featurize(workspace: Workspace, instrument: Instrument, day: date) -> Manifest:
    """Compute one day of grid features from its ticks. Raises `NoDataError` when there are none."""
    ticks = workspace.require("ticks", "ingest", instrument, day)
    config = {"step_ms": workspace.settings.step_ms}
    draft = draft_of(workspace, "features", f"{instrument}/{day}", {ticks.ref: ticks.digest}, _SOURCES, config)
    return materialize(workspace, draft, lambda place: _featurize(workspace, ticks, instrument, day, place))


def _featurize(workspace: Workspace, ticks: Manifest, instrument: Instrument, day: date, place: Path) -> Built:
    from synth_pipeline.features.grid import grid_features
    from synth_pipeline.ticks import book
    from synth_pipeline.ticks.ladder import Ladders

    folder = workspace.folder("ticks", instrument, day)
    quotes, trades, levels, gaps = (
        store.read_table(ticks.file(folder, name)) for name in ("quotes", "trades", "book_levels", "gaps")
    )
    metadata = store.read_metadata(ticks.file(folder, "book_levels"))
    scale = store.read_scale(ticks.file(folder, "quotes"))
    visible_levels = int(metadata["visible_levels"])
    columns = grid_features(
        quotes,
        trades,
        book.depth_of(book.replay(levels), visible_levels),
        list(zip(gaps["stream"].tolist(), gaps["start_ns"].tolist(), gaps["end_ns"].tolist(), strict=True)),
        [(start, end) for start, end in json.loads(metadata["coverage"])],
        scale,
        step_ns=workspace.settings.step_ns,
        start_ns=day_start_ns(day),
        end_ns=day_start_ns(day) + NS_PER_DAY,
        ladder=Ladders(visible_levels).feed(levels),
    )
    path = place / "features.parquet"
    rows = store.write_table(path, schema.GRID, columns, scale, step_ns=str(workspace.settings.step_ns))
    labels, known = columns["label_ns"], np.isfinite(columns["mid"])
    facts = {
        "rows": rows,
        "known_mid": int(known.sum()),
        "gap_rows": int(((columns["flags"] & schema.GridFlag.GAP) > 0).sum()),
        "first_label_ns": int(labels[0]) if rows else None,
        "last_label_ns": int(labels[-1]) if rows else None,
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
    """Join days of features into one path on one unbroken grid; what no day covers is NaN."""
    from synth_pipeline.features.windows import series_from_grid

    paths = [
        manifest.file(workspace.folder("features", instrument, day), "features") for day, manifest in look_back.items()
    ]
    for day, path in zip(look_back, paths, strict=True):
        found = int(store.read_metadata(path)["step_ns"])
        if found != workspace.settings.step_ns:
            raise InputError(
                f"features of {instrument} on {day} have steps of {found // 1_000_000} ms, not SYNTH_STEP_MS="
                f"{workspace.settings.step_ms}: featurize that day again, or set the step back"
            )
    tables = [store.read_table(path, ("label_ns", *names)) for path in paths]
    labels = np.concatenate([table["label_ns"] for table in tables])
    step = workspace.settings.step_ns
    grid = np.arange(labels[0], labels[-1] + step, step)
    rows = (labels - labels[0]) // step
    columns: dict[str, np.ndarray] = {"label_ns": grid}
    for name in names:
        columns[name] = np.full(len(grid), np.nan)
        columns[name][rows] = np.concatenate([table[name] for table in tables])
    scales = [store.read_scale(path) for path in paths]
    return series_from_grid(
        columns,
        names,
        step_ns=step,
        tick_size=float(min(scale.tick_size for scale in scales)),
        lot_size=float(min(scale.lot_size for scale in scales)),
    )
