"""The hot tier: a day table as raw columns, for windows in a fraction of a millisecond and without a warm cache.

It is made on demand from a Parquet file of the store, is named after it (so after its digest) and may be deleted at any
time. Layout of `NAME-DIGEST.hot`, integers little-endian:

    columns      each column of the table, back to back, in its own dtype
    index        int64: `recv_ns` of every 4096th row, from the first on
    description  JSON: {"rows", "columns": {name: [dtype, offset, least, greatest]}, "index": offset, "scale": {…}}
    length       uint64: bytes of the description
    mark         b"SYNTHHOT"

A window takes one read of some thousand stamps at each edge and one of each column. Searching a mapped column instead
would touch cold pages all over it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.errors import SynthError
from synth_pipeline.lineage import commit
from synth_pipeline.schema import Scale
from synth_pipeline.series import IntArray
from synth_pipeline.ticks import parquet
from synth_pipeline.ticks.rowgroups import Columns, parquet_day

EVERY = 4096
"""Rows between two stamps of the index."""
_MARK = b"SYNTHHOT"
_TAIL = 16_384  # the description, and the index of some six million rows; what is longer takes a second read


@dataclass(frozen=True)
class HotDay:
    """A day table in the hot tier."""

    path: Path
    rows: int
    columns: dict[str, tuple[np.dtype[Any], int, int, int]]
    """Dtype, offset in the file, least and greatest value of each."""
    index: IntArray
    scale: Scale

    def read(self, start_ns: int, end_ns: int, names: Sequence[str], *, carry_in: bool) -> Columns:
        """Read the stamps from the block of the one edge to that of the other, then exactly the rows asked for."""
        low = max(int(np.searchsorted(self.index, start_ns)) - 1, 0) * EVERY
        high = max(min(int(np.searchsorted(self.index, end_ns)) * EVERY, self.rows), low)
        with _opened(self.path) as descriptor:
            stamps = self._column(descriptor, "recv_ns", low, high)
            first, stop = np.searchsorted(stamps, (start_ns, end_ns)).tolist()
            first -= int(carry_in and first > 0)
            others = {name: self._column(descriptor, name, low + first, low + stop) for name in {*names} - {"recv_ns"}}
        return {name: others.get(name, stamps[first:stop]) for name in names}

    def _column(self, descriptor: int, name: str, first: int, stop: int) -> np.ndarray:
        dtype, offset, *_ = self.columns[name]
        content = os.pread(descriptor, (stop - first) * dtype.itemsize, offset + first * dtype.itemsize)
        if len(content) < (stop - first) * dtype.itemsize:
            raise SynthError(f"{self.path} is cut short: delete it, and it is made again")
        return np.frombuffer(content, dtype=dtype)

    def bounds(self, name: str, start_ns: int, end_ns: int) -> tuple[int, int]:  # noqa: ARG002 - the whole day's
        """Take those of the whole day from the description."""
        return self.columns[name][2:]


def hot_day(path: Path, source: Callable[[], Path]) -> HotDay:
    """Return the hot tier `HOME/hot/…/NAME-DIGEST.hot` of a day file, made from that where it is missing."""
    if not path.exists():
        _make(path, source())
    return _open(path)


def _make(path: Path, source: Path) -> None:
    with commit.staging(path.parent) as place:
        staged = place / path.name
        with staged.open("wb") as file:
            description: dict[str, Any] = {"columns": {}}
            for name in parquet_day(source).footer.schema.names:
                column = parquet.read_table(source, (name,))[name]
                bounds = (int(column.min()), int(column.max())) if column.size else (0, 0)
                description["columns"][name] = [column.dtype.str, file.tell(), *bounds]
                file.write(np.ascontiguousarray(column).data)
                if name == "recv_ns":
                    stamps, description["rows"] = np.ascontiguousarray(column[::EVERY]), column.size
            description |= {"index": file.tell(), "scale": _scale_text(parquet_day(source).scale)}
            encoded = json.dumps(description).encode()
            file.write(stamps.data)
            file.write(encoded + len(encoded).to_bytes(8, "little") + _MARK)
            file.flush()
            os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(path)


def _scale_text(scale: Scale) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in scale.metadata().items()}


@lru_cache(maxsize=4096)
def _open(path: Path) -> HotDay:
    """Read the description and the index; the name carries the digest of the source, so both stay true."""
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        start = max(size - _TAIL, 0)
        tail = os.pread(descriptor, _TAIL, start)
        end = len(tail) - len(_MARK) - 8
        length = int.from_bytes(tail[end : end + 8], "little")
        if tail[-len(_MARK) :] != _MARK or length > end:
            raise SynthError(f"{path} is damaged: delete it, and it is made again")
        found = json.loads(tail[end - length : end])
        count = -(-found["rows"] // EVERY)
        if found["index"] < start:
            index = np.frombuffer(os.pread(descriptor, 8 * count, found["index"]), dtype=np.int64)
        else:
            index = np.frombuffer(tail, dtype=np.int64, count=count, offset=found["index"] - start)
    columns = {name: (np.dtype(dtype), *numbers) for name, (dtype, *numbers) in found["columns"].items()}
    scale = Scale.from_metadata({key.encode(): value.encode() for key, value in found["scale"].items()})
    return HotDay(path, found["rows"], columns, index, scale)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
