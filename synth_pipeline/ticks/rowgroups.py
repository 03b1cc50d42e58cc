"""One table of one day, read by time: the contract, and the Parquet file of the store as its first kind.

A day file's name carries the digest of its content, so what its footer says never changes and stays in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.errors import SynthError
from synth_pipeline.schema import Scale
from synth_pipeline.series import IntArray

Columns = dict[str, np.ndarray]


class DayRows(Protocol):
    """Rows sorted by `recv_ns`."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def scale(self) -> Scale:
        """What the integers count."""

    def read(self, start_ns: int, end_ns: int, names: Sequence[str], *, carry_in: bool) -> Columns:
        """Return columns (`recv_ns` among them) of the rows in [start_ns, end_ns) and the one before if `carry_in`."""

    def bounds(self, name: str, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Return two values between which a column lies in a window and in the row before it."""


@dataclass(frozen=True)
class ParquetDay:
    """A day file of the store."""

    path: Path
    footer: pq.FileMetaData
    scale: Scale
    metadata: dict[str, str]
    first_ns: IntArray
    """Least `recv_ns` of each row group."""
    last_ns: IntArray

    def groups(self, start_ns: int, end_ns: int, *, carry_in: bool) -> list[int]:
        """Return the row groups that hold the rows of a window and, if `carry_in`, the row before it."""
        first, stop = int(np.searchsorted(self.last_ns, start_ns)), int(np.searchsorted(self.first_ns, end_ns))
        has_earlier = first < self.first_ns.size and self.first_ns[first] < start_ns
        back = int(carry_in and first > 0 and not has_earlier)
        return list(range(first - back, max(stop, first)))

    def read(self, start_ns: int, end_ns: int, names: Sequence[str], *, carry_in: bool) -> Columns:
        """Read the row groups of the window, and search within them."""
        groups = self.groups(start_ns, end_ns, carry_in=carry_in)
        try:
            # On one thread: handing out a few small column chunks costs more than it saves.
            file = pq.ParquetFile(self.path, metadata=self.footer, memory_map=True)
            table = file.read_row_groups(groups, columns=list(names), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise SynthError(f"{self.path} is damaged ({error}): delete its folder and ingest again") from error
        columns = {name: _array(table.column(name)) for name in names}
        start, stop = np.searchsorted(columns["recv_ns"], (start_ns, end_ns)).tolist()
        start -= int(carry_in and start > 0)
        return {name: column[start:stop] for name, column in columns.items()}

    def bounds(self, name: str, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Take them from the statistics of the row groups."""
        position = self.footer.schema.names.index(name)
        groups = self.groups(start_ns, end_ns, carry_in=True)
        found = [self.footer.row_group(group).column(position).statistics for group in groups]
        return min((each.min for each in found), default=0), max((each.max for each in found), default=0)


@lru_cache(maxsize=4096)
def parquet_day(path: Path) -> ParquetDay:
    """Open a day file that is sorted by `recv_ns`. Raises `SynthError` when it is missing or damaged."""
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise SynthError(f"{path} is missing or damaged ({error}): delete its folder and ingest again") from error
    position = footer.schema.names.index("recv_ns")
    numbers = range(footer.num_row_groups if footer.num_rows else 0)
    groups = [footer.row_group(number).column(position).statistics for number in numbers]
    first_ns, last_ns = (np.array([getattr(each, end) for each in groups], dtype=np.int64) for end in ("min", "max"))
    metadata = {key.decode(): value.decode() for key, value in footer.metadata.items() if key != b"ARROW:schema"}
    return ParquetDay(path, footer, Scale.from_metadata(footer.metadata), metadata, first_ns, last_ns)


def _array(column: pa.ChunkedArray) -> np.ndarray:
    # Chunk by chunk: ChunkedArray.to_numpy imports pandas.
    chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    if len(chunks) == 1:
        return np.asarray(chunks[0])
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=column.type.to_pandas_dtype())
