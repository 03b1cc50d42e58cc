"""Tick and feature tables as Parquet files: writing, reading, scanning. Paths are always explicit, never globs.

Encodings: times, ids and prices DELTA_BINARY_PACKED, the rest plain, no dictionaries, zstd-3, row groups of 64 k rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.errors import SynthError
from synth_pipeline.schema import Scale, Table

ROW_GROUP = 65_536
_PLAIN = {"size", "bid_size", "ask_size", "side", "flags", "kind"}


def write_table(
    path: Path, table: Table, columns: Mapping[str, np.ndarray], scale: Scale | None = None, **metadata: str
) -> int:
    """Write one table and return its row count. `metadata` and the scale go into the file's key-value metadata.

    Raises `SynthError` when the columns are not the table's.
    """
    if set(columns) != set(table.names):
        raise SynthError(f"table {table.name} takes {table.names}, not {tuple(columns)}")
    arrays = [pa.array(columns[column.name], pa.type_for_alias(column.dtype)) for column in table.columns]
    extra = (scale.metadata() if scale else {}) | {key.encode(): value.encode() for key, value in metadata.items()}
    rows = pa.Table.from_arrays(arrays, schema=table.arrow.with_metadata(extra))
    delta = {c.name: "DELTA_BINARY_PACKED" for c in table.columns if c.dtype == "int64" and c.name not in _PLAIN}
    pq.write_table(
        rows,
        path,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        column_encoding=delta | {c.name: "PLAIN" for c in table.columns if c.name not in delta},
        row_group_size=ROW_GROUP,
        write_statistics=True,
    )
    return int(rows.num_rows)


def read_table(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read columns of one file as arrays; strings and bytes come as object arrays."""
    try:
        table = pq.read_table(path, columns=None if names is None else list(names), partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise SynthError(f"{path} is damaged ({error}): delete its folder and run again") from error
    return {name: _to_numpy(table.column(name)) for name in table.column_names}


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    # Chunk by chunk: ChunkedArray.to_numpy imports pandas.
    chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int64)


def read_metadata(path: Path) -> dict[str, str]:
    """Return a file's own key-value metadata."""
    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def read_scale(path: Path) -> Scale:
    """Return the scale that a tick file carries. Raises `SynthError` when it carries none."""
    metadata = pq.read_schema(path).metadata or {}
    if b"tick_size" not in metadata:
        raise SynthError(f"{path} carries no tick_size: it is not a tick file of ours; ingest the capture again")
    return Scale.from_metadata(metadata)
