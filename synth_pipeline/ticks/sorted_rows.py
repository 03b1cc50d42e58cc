"""Rows of a table with texts, in at any order and out sorted, at bounded memory: gaps and quarantine.

Rows are kept until they pass a budget, then written, sorted, as one run into a scratch file; the runs are merged, some
at a time, and all at the end. Equal rows stay, as many times as they came.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synth_pipeline.schema import Table

BUDGET_BYTES = 32 * 1024 * 1024
MOST_RUNS = 64
"""As many are merged at once: each holds a few rows in memory."""
_ROW_BYTES = 500
"""What a row takes besides its payload: a tuple of five or six objects."""
_BATCH = 128

Row = tuple[Any, ...]


class SortedRows:
    """Rows of one table, sorted as tuples."""

    def __init__(self, folder: Path, table: Table, budget: int = BUDGET_BYTES) -> None:
        self._folder, self._table, self._budget = folder, table, budget
        self._rows: list[Row] = []
        self._bytes = 0
        self._runs: list[Path] = []
        self._written = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Take some rows."""
        self._rows += rows
        self._bytes += sum(_ROW_BYTES + sum(len(value) for value in row if isinstance(value, bytes)) for row in rows)
        if self._bytes > self._budget:
            self._spill()

    def _spill(self) -> None:
        self._write(iter(sorted(self._rows)))
        self._rows, self._bytes = [], 0
        if len(self._runs) > MOST_RUNS:
            runs, self._runs = self._runs, []
            self._write(heapq.merge(*map(_read, runs)))
            for path in runs:
                path.unlink()

    def _write(self, rows: Iterator[Row]) -> None:
        path = self._folder / f"{self._table.name}.{self._written}.run"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, self._table.arrow) as writer:
            for columns in _columns(self._table, rows, _BATCH):
                writer.write_batch(pa.record_batch(list(columns.values()), schema=self._table.arrow))
        self._runs.append(path)
        self._written += 1

    def columns(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield all rows in order as columns, so many rows at a time, and remove the scratch files."""
        yield from _columns(self._table, heapq.merge(*map(_read, self._runs), iter(sorted(self._rows))), rows)
        for path in self._runs:
            path.unlink()


def _read(path: Path) -> Iterator[Row]:
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _columns(table: Table, rows: Iterator[Row], size: int) -> Iterator[dict[str, np.ndarray]]:
    while chunk := list(islice(rows, size)):
        yield {
            column.name: np.array(values, dtype=object if column.dtype in {"string", "binary"} else column.dtype)
            for column, values in zip(table.columns, zip(*chunk, strict=True), strict=True)
        }
