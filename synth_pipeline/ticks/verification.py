"""Whether a stored table keeps its rules: row count, order, times within their day, values that can be.

Digests are the manifest's business (`lineage.manifests.verify`); here a file is read for what it says, a row group at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from synth_pipeline.errors import SynthError
from synth_pipeline.schema import Table
from synth_pipeline.ticks import parquet

_SIZES = ("size", "bid_size", "ask_size")
_SIDES = (-1, 0, 1)


def findings(path: Path, table: Table, span: tuple[int, int] | None = None, rows: int | None = None) -> list[str]:
    """Return what is wrong with one file of a table, one line each; nothing for a sound one.

    `span` is the half-open stretch of ns in which its first sort column must lie, `rows` the count on record. Of
    repeated findings the first is given.
    """
    try:
        names = pq.read_schema(path).names
        if missing := [name for name in table.names if name not in names]:
            return [f"has no column {', '.join(missing)}"]
        found = dict(_findings(path, table, span))
        counted = parquet.row_count(path)
    except (SynthError, OSError, ValueError) as error:
        return [f"cannot be read: {error}"]
    if rows is not None and counted != rows:
        found["rows"] = f"has {counted} rows and the manifest says {rows}"
    return list(found.values())


def _findings(path: Path, table: Table, span: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """Yield kind and text of the first finding of every kind."""
    keys = list(table.sort)
    checked = [name for name in (*_SIZES, "side") if name in table.names and table.name != "quarantine"]
    found: dict[str, str] = {}
    first, before = 0, None
    for group in parquet.row_groups(path, [*dict.fromkeys((*keys, *checked))]):
        count = len(group[keys[0]])
        whole = group if before is None else {name: np.concatenate([before[name], group[name]]) for name in group}
        offset = first - (0 if before is None else 1)
        for kind, row, text in _in_group(whole, keys, checked, span):
            found.setdefault(kind, f"row {offset + row}: {text}")
        before = {name: column[-1:] for name, column in group.items()}
        first += count
    yield from found.items()


def _in_group(
    columns: Mapping[str, np.ndarray], keys: list[str], checked: list[str], span: tuple[int, int] | None
) -> Iterator[tuple[str, int, str]]:
    falls = _falls([columns[key] for key in keys])
    if falls.size:
        yield "order", int(falls[0]) + 1, f"{', '.join(keys)} fall back from the row before"
    time = columns[keys[0]]
    outside = np.flatnonzero((time < span[0]) | (time >= span[1])) if span else np.empty(0, dtype=np.int64)
    if outside.size:
        yield "span", int(outside[0]), f"{keys[0]} {time[outside[0]]} lies outside of the partition's day"
    for name in checked:
        column = columns[name]
        wrong = np.flatnonzero(~np.isin(column, _SIDES) if name == "side" else column < 0)
        if wrong.size:
            yield name, int(wrong[0]), f"{name} {column[wrong[0]]} cannot be"


def _falls(keys: list[np.ndarray]) -> np.ndarray:
    """Return the rows after which the tuple of keys is smaller than before."""
    falling = np.zeros(max(len(keys[0]) - 1, 0), dtype=np.bool_)
    equal = ~falling
    for key in keys:
        falling |= equal & (key[1:] < key[:-1])
        equal &= key[1:] == key[:-1]
    return np.flatnonzero(falling)
