"""Tick and feature tables as Parquet files: writing, reading, scanning. Paths are always explicit, never globs.

Encodings, chosen on recorded captures (`docs/tick-store.md` has the table, `benchmarks/sizes.py` makes it): what rises
(times, ids, arrival order) DELTA_BINARY_PACKED, but the receive time that a book event's rows share plain; so too the
touch and the prices of trades, which wander by little and are decoded twice as fast; prices and sizes of levels and
sizes of trades and orders BYTE_STREAM_SPLIT; sides and flags by dictionary; the rest plain. zstd-3, quotes zstd-9, and
zstd-15 where a longer search finds more. Row groups of 16 k rows, since a half-hour window then decodes less
(`benchmarks/window.py`); of 8 k for trades, which are fewer, and of 64 k for levels, which are read by the day.

On disk `event_ns` is null where it equals `recv_ns`, as it does where a source gives no time of its own: nanosecond
stamps are what a row costs most by, and these would be stored twice. Every reader here and in `ticks.store` fills it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.errors import SynthError
from synth_pipeline.schema import Column, Scale, Table

ROW_GROUP = 16_384
_TIMES = {"book_levels": 4.0, "trades": 0.5}
"""Row groups of tables that have others, in multiples of `ROW_GROUP`."""
_WANDERING = {("quotes", "bid_price"), ("quotes", "ask_price"), ("trades", "price")}
_RISING = {"recv_ns", "event_ns", "seq", "update_id", "trade_id", "label_ns", "open_ns", "close_ns"}
_REPEATED = {("book_levels", "recv_ns")}
_SPLIT = {("book_levels", "price"), ("book_levels", "size"), ("orders", "size"), ("trades", "size")}
_DICTIONARY = {"side", "flags", "kind"}
_LEVELS = {"quotes": 9}
_LEVELS_OF_COLUMNS = {("quotes", name): 15 for name in ("recv_ns", "event_ns", "seq", "bid_price", "ask_price")}
_LEVEL = 3


class TableWriter:
    """Writes one table piece by piece at bounded memory; a row group is complete before the next begins.

    The scale and the metadata may become known while writing: they are taken at `close`.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._group_rows = round(ROW_GROUP * _TIMES.get(table.name, 1.0))
        self._writer = pq.ParquetWriter(
            path,
            table.arrow,
            compression="zstd",
            compression_level={name: compression_level(table.name, name) for name in table.names},
            use_dictionary=[name for name in table.names if name in _DICTIONARY],
            column_encoding={c.name: _encoding(table.name, c) for c in table.columns if c.name not in _DICTIONARY},
            write_statistics=True,
        )
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self.rows = 0
        """Rows taken so far."""

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take some rows. Raises `SynthError` when the columns are not the table's."""
        if set(columns) != set(self._table.names):
            raise SynthError(f"table {self._table.name} takes {self._table.names}, not {tuple(columns)}")
        same = columns["event_ns"] == columns["recv_ns"] if "event_ns" in columns else None
        masks = {} if same is None or not same.any() else {"event_ns": same}
        arrays = [
            pa.array(columns[c.name], pa.type_for_alias(c.dtype), mask=masks.get(c.name)) for c in self._table.columns
        ]
        rows = pa.Table.from_arrays(arrays, schema=self._table.arrow)
        self.rows += rows.num_rows
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        if self._pending_rows >= self._group_rows:
            self._flush(whole_groups=True)

    def _flush(self, *, whole_groups: bool) -> None:
        rows = pa.concat_tables(self._pending)
        ready = rows.num_rows // self._group_rows * self._group_rows if whole_groups else rows.num_rows
        self._writer.write_table(rows.slice(0, ready), row_group_size=self._group_rows)
        self._pending, self._pending_rows = [rows.slice(ready)], rows.num_rows - ready

    def close(self, scale: Scale | None = None, **metadata: str) -> int:
        """Write what is pending, and the scale and metadata as key-value metadata; return the row count."""
        if self._pending_rows:
            self._flush(whole_groups=False)
        extra = (scale.metadata() if scale else {}) | {key.encode(): value.encode() for key, value in metadata.items()}
        self._writer.add_key_value_metadata(extra)
        self._writer.close()
        return self.rows


def compression_level(table: str, column: str) -> int:
    """Return the zstd level of one column."""
    return _LEVELS_OF_COLUMNS.get((table, column), _LEVELS.get(table, _LEVEL))


def _encoding(table: str, column: Column) -> str:
    place = (table, column.name)
    if place in _WANDERING or (column.dtype == "int64" and column.name in _RISING and place not in _REPEATED):
        return "DELTA_BINARY_PACKED"
    return "BYTE_STREAM_SPLIT" if place in _SPLIT else "PLAIN"


def write_table(
    path: Path, table: Table, columns: Mapping[str, np.ndarray], scale: Scale | None = None, **metadata: str
) -> int:
    """Write one table and return its row count. `metadata` and the scale go into the file's key-value metadata.

    Raises `SynthError` when the columns are not the table's.
    """
    writer = TableWriter(path, table)
    writer.write(columns)
    return writer.close(scale, **metadata)


def read_table(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read columns of one file as arrays; strings and bytes come as object arrays."""
    try:
        table = pq.read_table(path, columns=stored_names(names), partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise SynthError(f"{path} is damaged ({error}): delete its folder and run again") from error
    table = filled(table, names)
    return {name: _to_numpy(table.column(name)) for name in table.column_names}


def row_groups(path: Path, names: Sequence[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yield columns of one file, a row group at a time. Raises `SynthError` for a damaged file."""
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = filled(file.read_row_group(number, columns=stored_names(names)), names)
                yield {name: _to_numpy(table.column(name)) for name in table.column_names}
    except (OSError, pa.ArrowException) as error:
        raise SynthError(f"{path} is damaged ({error}): delete its folder and run again") from error


def stored_names(names: Sequence[str] | None) -> list[str] | None:
    """Return the columns that must be read to get some: with `event_ns` also what fills it."""
    if names is None:
        return None
    return [*dict.fromkeys((*names, "recv_ns"))] if "event_ns" in names else list(names)


def filled(table: pa.Table, names: Sequence[str] | None) -> pa.Table:
    """Return the columns asked for of what was read, `event_ns` without nulls."""
    if "event_ns" in table.column_names and table.column("event_ns").null_count:
        import pyarrow.compute as pc

        position = table.column_names.index("event_ns")
        field = pa.field("event_ns", pa.int64())
        table = table.set_column(position, field, pc.coalesce(table.column("event_ns"), table.column("recv_ns")))
    return table if names is None else table.select(list(names))


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    # Chunk by chunk: ChunkedArray.to_numpy imports pandas.
    chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int64)


def row_count(path: Path) -> int:
    """Return how many rows a file has."""
    return int(pq.read_metadata(path).num_rows)


def read_metadata(path: Path) -> dict[str, str]:
    """Return a file's own key-value metadata."""
    metadata = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}


def read_scale(path: Path) -> Scale:
    """Return the scale that a tick file carries. Raises `SynthError` when it carries none."""
    metadata = pq.read_metadata(path).metadata or {}
    if b"tick_size" not in metadata:
        raise SynthError(f"{path} carries no tick_size: it is not a tick file of ours; ingest the capture again")
    return Scale.from_metadata(metadata)
