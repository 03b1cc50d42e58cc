"""Synthetic datasets as Parquet: one row a path and step, features in market units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.generators import Generator
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import Series


def write_dataset(path: Path, series: Series) -> int:
    """Write a series in long form (path, label_ns, features…) and return its row count."""
    labels = series.start_ns[:, None] + np.arange(series.steps) * series.step_ns
    columns = {
        "path": np.repeat(np.arange(series.paths, dtype=np.int64), series.steps),
        "label_ns": labels.ravel(),
    } | {name: series.column(name).ravel() for name in series.names}
    metadata = {
        "step_ns": str(series.step_ns),
        "tick_size": repr(series.tick_size),
        "lot_size": repr(series.lot_size),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, compression="zstd", use_dictionary=False, row_group_size=65_536)
    return int(table.num_rows)


def read_dataset(path: Path) -> Series:
    """Read back what `write_dataset` wrote."""
    frame = pl.read_parquet(path)
    metadata = {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
    names = tuple(name for name in frame.columns if name not in {"path", "label_ns"})
    paths = int(frame["path"].max()) + 1 if frame.height else 0  # type: ignore[arg-type]
    steps = frame.height // paths if paths else 0
    values = np.stack([frame[name].to_numpy() for name in names], axis=1).reshape(paths, steps, len(names))
    return Series(
        values=values,
        names=names,
        step_ns=int(metadata["step_ns"]),
        start_ns=frame["label_ns"].to_numpy().reshape(paths, steps)[:, 0].copy(),
        tick_size=float(metadata["tick_size"]),
        lot_size=float(metadata["lot_size"]),
    )


def sample_dataset(
    generator: Generator, path: Path, *, paths: int, steps: int, rng: np.random.Generator, progress: Progress = silent
) -> int:
    """Sample `paths` connected paths of `steps` steps into one file and return its row count."""
    progress(0, paths, f"sampling {paths} paths of {steps} steps")
    rows = write_dataset(path, generator.sample(paths, steps, rng=rng))
    progress(paths, paths)
    return rows
