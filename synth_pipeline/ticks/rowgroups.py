"""One table of one day, read by time: the contract, and the Parquet file of the store as its first kind.

A day file's name carries the digest of its content, so what its footer says never changes and stays in memory. Which
row groups a window needs is in the manifest (`Artifact.groups`, made here), or in the footer of files from before. A
local file stays open; of a remote one the byte ranges of the columns asked for are fetched, all at once, and nothing
else. Here pyarrow decodes them, in `ticks.pages` compiled loops.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline import storage
from synth_pipeline.errors import SynthError
from synth_pipeline.schema import Scale
from synth_pipeline.series import IntArray
from synth_pipeline.storage import Place
from synth_pipeline.ticks.parquet import filled, stored_names

if TYPE_CHECKING:
    from upath import UPath

Columns = dict[str, np.ndarray]
Groups = dict[str, list[int]]

_DESCRIBED = ("recv_ns", "seq", "update_id", "trade_id", "order_id")
"""Columns whose least and greatest value in each row group stand in the manifest."""
_TAIL = 65_536
"""Bytes from the end of a remote file that are fetched for its footer; a longer footer takes a second fetch."""
_LEAST_GAP = 65_536
"""Ranges that lie closer than this are fetched as one: the bytes between take less time than another request."""
_MOST = 8 * 2**20
"""Bytes that are fetched as one, if several ranges: long stretches come faster over several connections."""


class DayRows(Protocol):
    """Rows sorted by `recv_ns`."""

    @property
    def path(self) -> Place:
        """The file."""

    @property
    def scale(self) -> Scale:
        """What the integers count."""

    def read(self, start_ns: int, end_ns: int, names: Sequence[str], *, carry_in: bool) -> Columns:
        """Return columns (`recv_ns` among them) of the rows in [start_ns, end_ns) and the one before if `carry_in`."""

    def bounds(self, name: str, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Return two values between which a column lies in a window and in the row before it."""


class Chunk(NamedTuple):
    """Where one column of one row group is in its file, and what it holds."""

    start: int
    end: int
    rows: int
    kind: tuple[str, str]
    """Physical type and codec, as Parquet calls them."""


@dataclass(frozen=True)
class ParquetDay:
    """A day file of the store."""

    path: Place
    footer: pq.FileMetaData
    scale: Scale
    metadata: dict[str, str]
    first_ns: IntArray
    """Least `recv_ns` of each row group."""
    last_ns: IntArray
    _known: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict, repr=False)
    """Statistics of columns that were asked for: taking them from the footer is slow beside a window."""
    _chunks: dict[tuple[int, str], Chunk] = field(default_factory=dict, repr=False)
    """Likewise where the columns of row groups are."""

    def groups(self, start_ns: int, end_ns: int, *, carry_in: bool) -> list[int]:
        """Return the row groups that hold the rows of a window and, if `carry_in`, the row before it."""
        first, stop = int(np.searchsorted(self.last_ns, start_ns)), int(np.searchsorted(self.first_ns, end_ns))
        has_earlier = first < self.first_ns.size and self.first_ns[first] < start_ns
        back = int(carry_in and first > 0 and not has_earlier)
        return list(range(first - back, max(stop, first)))

    def read(self, start_ns: int, end_ns: int, names: Sequence[str], *, carry_in: bool) -> Columns:
        """Read the row groups of the window, and search within them."""
        table = read_groups(self.path, self.footer, self.groups(start_ns, end_ns, carry_in=carry_in), names)
        columns = {name: _array(table.column(name)) for name in names}
        start, stop = np.searchsorted(columns["recv_ns"], (start_ns, end_ns)).tolist()
        start -= int(carry_in and start > 0)
        return {name: column[start:stop] for name, column in columns.items()}

    def bounds(self, name: str, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Take them from the statistics of the row groups."""
        groups = self.groups(start_ns, end_ns, carry_in=True)
        if name not in self._known:
            self._known[name] = _statistics(self.footer, name, range(self.first_ns.size))
        least, greatest = self._known[name]
        return min((least[group] for group in groups), default=0), max((greatest[group] for group in groups), default=0)

    def chunk(self, group: int, name: str) -> Chunk:
        """Return one column of one row group."""
        if (group, name) not in self._chunks:
            self._chunks[group, name] = _chunk(self.footer, group, name)
        return self._chunks[group, name]


def parquet_day(path: Place, size: int | None = None, groups: Groups | None = None) -> ParquetDay:
    """Open a day file that is sorted by `recv_ns`, with its size and row groups as its manifest has them.

    Raises `SynthError` when it is missing or damaged.
    """
    footer = footer_of(path, size)
    if groups is None:
        edges = _statistics(footer, "recv_ns", range(footer.num_row_groups if footer.num_rows else 0))
    elif len(groups["rows"]) != (footer.num_row_groups if footer.num_rows else 0):
        raise SynthError(f"{path} has other row groups than its manifest says: delete its folder and ingest again")
    else:
        edges = groups["first_recv_ns"], groups["last_recv_ns"]
    first_ns, last_ns = (np.array(edge, dtype=np.int64) for edge in edges)
    metadata = {key.decode(): value.decode() for key, value in footer.metadata.items() if key != b"ARROW:schema"}
    return ParquetDay(path, footer, Scale.from_metadata(footer.metadata), metadata, first_ns, last_ns)


def described(path: Path) -> Groups:
    """Return what a manifest says of the row groups of a tick table (`Artifact.groups`)."""
    footer = footer_of(path)
    numbers = range(footer.num_row_groups if footer.num_rows else 0)
    found: Groups = {"rows": [footer.row_group(number).num_rows for number in numbers]}
    for name in _DESCRIBED:
        if name in footer.schema.names:
            found[f"first_{name}"], found[f"last_{name}"] = _statistics(footer, name, numbers)
    return found


def _statistics(footer: pq.FileMetaData, name: str, groups: Iterable[int]) -> tuple[list[int], list[int]]:
    """Return the least and the greatest value of a column in each of some row groups."""
    position = footer.schema.names.index(name)
    found = [footer.row_group(group).column(position).statistics for group in groups]
    return [each.min for each in found], [each.max for each in found]


@lru_cache(maxsize=4096)
def footer_of(path: Place, size: int | None = None) -> pq.FileMetaData:
    """Return the footer of a Parquet file; of a remote one its size must be given.

    Raises `SynthError` when the file is missing or damaged.
    """
    try:
        if isinstance(path, Path):
            return pq.read_metadata(path)
        assert size is not None
        start = max(size - _TAIL, 0)
        (tail,) = storage.ranges(path, [(start, size)])
        parts = {start: tail}
        if 0 <= (begin := size - 8 - int.from_bytes(tail[-8:-4], "little")) < start:
            parts[begin] = storage.ranges(path, [(begin, start)])[0]
        return pq.read_metadata(_sparse(size, parts))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SynthError(f"{path} is missing or damaged ({error}): delete its folder and ingest again") from error


def read_groups(path: Place, footer: pq.FileMetaData, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
    """Return columns of some row groups. Raises `SynthError` for a damaged file."""
    stored = stored_names(names) or []
    try:
        if isinstance(path, Path):
            file = _opened(path, threading.get_ident())
        else:
            file = _parquet_file(_fetched(path, footer, groups, stored), footer)
        # On one thread: handing out a few small column chunks costs more than it saves.
        return filled(file.read_row_groups(groups, columns=stored, use_threads=False), names)
    except (OSError, pa.ArrowException) as error:
        raise SynthError(f"{path} is damaged ({error}): delete its folder and ingest again") from error


@lru_cache(maxsize=256)
def _opened(path: Path, thread: int) -> pq.ParquetFile:  # noqa: ARG001 - a file is read by one thread at a time
    """Open a local file once: that takes a fifth as long as reading a half hour of it."""
    return _parquet_file(_file(path), footer_of(path))


def _parquet_file(source: pa.NativeFile, footer: pq.FileMetaData) -> pq.ParquetFile:
    # By default pyarrow has other threads read ahead: to wait for each takes longer than to read what lies in memory.
    return pq.ParquetFile(source, metadata=footer, pre_buffer=False)


@lru_cache(maxsize=256)
def _file(path: Path) -> pa.NativeFile:
    """Open a local file, which any thread may read by place.

    Names carry the digest of what they name, so another file never comes under an old name. Given a path, pyarrow
    first looks for the file system it could mean; a memory map would crash where a disk fails.
    """
    return pa.OSFile(str(path))


def source_of(path: Place, footer: pq.FileMetaData, groups: Sequence[int], names: Sequence[str]) -> pa.NativeFile:
    """Return what holds the columns of some row groups: a local file, or what was fetched of a remote one."""
    return _file(path) if isinstance(path, Path) else _fetched(path, footer, groups, names)


def _fetched(path: UPath, footer: pq.FileMetaData, groups: Sequence[int], names: Sequence[str]) -> pa.BufferReader:
    """Fetch the column chunks of some row groups and return the file as far as it is needed."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted(_chunk(footer, group, name)[:2] for group in groups for name in names):
        if spans and start - spans[-1][1] < _LEAST_GAP and end - spans[-1][0] <= _MOST:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    parts = storage.ranges(path, spans) if spans else []
    return _sparse(spans[-1][1] if spans else 0, {span[0]: part for span, part in zip(spans, parts, strict=True)})


def _chunk(footer: pq.FileMetaData, group: int, name: str) -> Chunk:
    column = footer.row_group(group).column(footer.schema.names.index(name))
    start = column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
    kind = column.physical_type, column.compression
    return Chunk(start, start + column.total_compressed_size, column.num_values, kind)


def _sparse(size: int, parts: dict[int, bytes]) -> pa.BufferReader:
    """Return a file of which some parts are known; pages of zeros that nobody touches take no memory."""
    content = np.zeros(size, dtype=np.uint8)
    for start, part in parts.items():
        content[start : start + len(part)] = np.frombuffer(part, dtype=np.uint8)
    return pa.BufferReader(pa.py_buffer(content))


def _array(column: pa.ChunkedArray) -> np.ndarray:
    # Chunk by chunk: ChunkedArray.to_numpy imports pandas.
    chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    if len(chunks) == 1:
        return np.asarray(chunks[0])
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=column.type.to_pandas_dtype())
