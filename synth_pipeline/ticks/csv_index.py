"""A persistent index of a CSV file: what every block of 64 kB holds, so that nothing in it is ever missed.

What belongs here: making, keeping and checking it. `ticks.csv` finds windows without one by bisection, as fast; a
bisection cannot see a block of rows that lies far from its place, and knows neither how many rows there are nor where
the file is out of order. The index does, after one scan of the times.

It is a Parquet file, a row a block of whole lines, in file order:

    offset       byte at which the block begins; it ends where the next one begins
    rows         lines with a time that can be read
    unreadable   lines without one
    unsorted     rows whose time is before that of the row above
    tied         rows with the time of the row above
    least_ns, greatest_ns, last_ns   times; 2**63 - 1, -2**63 and the block before's where there is no row

and one JSON value in its metadata (`csv`): `inode`, `size`, `mtime_ns` of the file, `stop` (end of the last whole
line), SHA-256 of the first 4096 bytes and of the last 4096 before `stop`, how the file is read (`form`), and
`unsorted_at`, the bytes at which the first 1000 unsorted rows begin. An index is that of a file with the same inode,
digests and form, and the same size and time of change, or a greater size: then it is made for what was added only.
Anything else is another file, and is scanned from its start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.lineage import commit
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import IntArray
from synth_pipeline.ticks.csv_rows import Form, Rows

BLOCK = 65_536
"""Bytes between the beginnings of two blocks, about."""
_READ = 1 << 24
_CHECKED = 4096
_LISTED = 1000
_NAMES = ("offset", "rows", "unreadable", "unsorted", "tied", "least_ns", "greatest_ns", "last_ns")
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_KEY = b"csv"


@dataclass(frozen=True)
class Stamp:
    """Which file, and how much of it."""

    inode: int
    size: int
    mtime_ns: int
    stop: int
    head: str
    tail: str
    form: dict[str, Any]
    unsorted_at: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class CsvIndex:
    """What is known of every block of a file."""

    stamp: Stamp
    columns: dict[str, IntArray]

    @property
    def rows(self) -> int:
        """Rows with a time that can be read."""
        return int(self.columns["rows"].sum())

    def facts(self) -> dict[str, Any]:
        """Return rows, unreadable lines, unsorted and tied rows, and where the first unsorted ones begin."""
        sums = {name: int(self.columns[name].sum()) for name in _NAMES[1:5]}
        return {**sums, "unsorted_at": self.stamp.unsorted_at}

    def places(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Return the stretches of bytes that hold every row of a window, the last before it and the first after it."""
        least, greatest = self.columns["least_ns"], self.columns["greatest_ns"]
        if not least.size:
            return []
        wanted = (greatest >= start_ns) & (least < end_ns)
        before, after = np.where(greatest < start_ns, greatest, _FIRST), np.where(least >= end_ns, least, _LAST)
        # Of equal ones the last, as in file order.
        wanted[least.size - 1 - int(np.argmax(before[::-1]))] |= before.max() > _FIRST
        wanted[int(np.argmin(after))] |= after.min() < _LAST
        edges = np.flatnonzero(np.diff(np.concatenate(([False], wanted, [False]))))
        ends = [*self.columns["offset"].tolist(), self.stamp.size]
        return [(ends[first], ends[stop]) for first, stop in edges.reshape(-1, 2).tolist()]


def load(place: Path) -> CsvIndex | None:
    """Return the index that lies at a place, None when there is none that can be read."""
    try:
        table = pq.read_table(place, partitioning=None)
        stamp = Stamp(**json.loads(table.schema.metadata[_KEY]))
        return CsvIndex(stamp, {name: table.column(name).combine_chunks().to_numpy() for name in _NAMES})
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def save(index: CsvIndex, place: Path) -> None:
    """Put an index at a place; a reader sees the old one or the new. Raises `InputError` where it cannot be written."""
    table = pa.table(index.columns).replace_schema_metadata({_KEY: json.dumps(asdict(index.stamp)).encode()})
    with commit.staging(place) as folder:
        staged = folder / place.name
        pq.write_table(table, staged, compression="zstd")
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(place)


def updated(
    known: CsvIndex | None,
    descriptor: int,
    form: Form,
    read: Callable[[int, int], Rows],
    *,
    progress: Progress = silent,
) -> CsvIndex:
    """Return the index of an open file: `known` itself, `known` with what was added since, or a new one.

    `read` returns the whole lines that begin and end between two bytes.
    """
    found = os.fstat(descriptor)
    if known is not None and not _is_of(known.stamp, descriptor, found, form):
        known = None
    if known is not None and known.stamp.size == found.st_size:
        return known
    parts, at, unsorted_at = _kept(known, form.first_row)
    last_ns, begin, length = int(parts[0]["last_ns"][-1]) if parts[0]["last_ns"].size else int(_FIRST), at, _READ
    while at < found.st_size:
        rows = read(at, min(at + length, found.st_size))
        if not len(rows):
            if at + length >= found.st_size:
                break
            length *= 2  # a line longer than what was read
            continue
        blocks, stray = _blocks(rows, at, last_ns)
        parts.append(blocks)
        unsorted_at += stray[: _LISTED - len(unsorted_at)]
        at, last_ns, length = int(rows.ends[-1]), int(blocks["last_ns"][-1]), _READ
        progress(at - begin, found.st_size - begin, "indexing")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in _NAMES}
    return CsvIndex(_stamp(descriptor, found, at, form, unsorted_at), joined)


def _kept(known: CsvIndex | None, first_row: int) -> tuple[list[dict[str, IntArray]], int, list[int]]:
    """Return what stays of an index whose file has grown, and where to go on: its last block may be half a one."""
    if known is None or not known.columns["offset"].size:
        return [{name: np.empty(0, dtype=np.int64) for name in _NAMES}], first_row, []
    at = int(known.columns["offset"][-1])
    return (
        [{name: column[:-1] for name, column in known.columns.items()}],
        at,
        [place for place in known.stamp.unsorted_at if place < at],
    )


def _blocks(rows: Rows, begin: int, last_ns: int) -> tuple[dict[str, IntArray], list[int]]:
    """Return a row for every block of what was read from byte `begin` on, and where its unsorted rows begin."""
    number = (rows.offsets - begin) // BLOCK
    first = np.flatnonzero(np.diff(number, prepend=-1))
    has_time = rows.has_time
    # A line without a time takes over the one before: so it is neither unsorted nor the least or the greatest.
    carried = np.maximum.accumulate(np.where(has_time, np.arange(1, len(rows) + 1), 0))
    time_ns = np.concatenate(([last_ns], rows.time_ns))[carried]
    above = np.concatenate(([last_ns], time_ns[:-1]))
    is_unsorted, is_tied = has_time & (time_ns < above), has_time & (time_ns == above)
    flags = {"rows": has_time, "unreadable": ~has_time, "unsorted": is_unsorted, "tied": is_tied}
    sums = {name: np.add.reduceat(values.astype(np.int64), first) for name, values in flags.items()}
    offset = rows.offsets[first].copy()
    offset[0] = begin
    return {
        "offset": offset,
        **sums,
        "least_ns": np.minimum.reduceat(np.where(has_time, rows.time_ns, _LAST), first),
        "greatest_ns": np.maximum.reduceat(np.where(has_time, rows.time_ns, _FIRST), first),
        "last_ns": time_ns[np.append(first[1:], len(rows)) - 1],
    }, rows.offsets[is_unsorted].tolist()


def _is_of(stamp: Stamp, descriptor: int, found: os.stat_result, form: Form) -> bool:
    is_changed = stamp.size == found.st_size and stamp.mtime_ns != found.st_mtime_ns
    if is_changed or stamp.inode != found.st_ino or stamp.size > found.st_size or stamp.form != _form_facts(form):
        return False
    return (stamp.head, stamp.tail) == _digests(descriptor, stamp.stop)


def _form_facts(form: Form) -> dict[str, Any]:
    return {**asdict(form), "names": list(form.names)}


def _stamp(descriptor: int, found: os.stat_result, stop: int, form: Form, unsorted_at: list[int]) -> Stamp:
    head, tail = _digests(descriptor, stop)
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, stop, head, tail, _form_facts(form), unsorted_at)


def _digests(descriptor: int, stop: int) -> tuple[str, str]:
    """Return the digests of the first bytes of a file and of the last ones before `stop`."""
    ends = (0, min(_CHECKED, stop)), (max(stop - _CHECKED, 0), stop)
    head, tail = (hashlib.sha256(os.pread(descriptor, last - first, first)).hexdigest() for first, last in ends)
    return head, tail
