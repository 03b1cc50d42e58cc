"""Row groups of a remote Parquet file as a Polars lazy frame, for any store that fsspec knows.

Polars asks for the columns and rows that a query needs; some row groups at a time are fetched by ranges, so that memory
stays bounded and a query that stops early fetches no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from synth_pipeline.storage import Place
from synth_pipeline.ticks.rowgroups import read_groups

_AT_ONCE = 32
"""Row groups that are fetched together: some megabytes."""


def lazy_groups(path: Place, footer: pq.FileMetaData, groups: Sequence[int]) -> pl.LazyFrame:
    """Return some row groups of a file, read when the frame is collected."""
    empty = pl.DataFrame(footer.schema.to_arrow_schema().empty_table())

    def source(
        names: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        for start in range(0, len(groups), _AT_ONCE):
            frame = pl.DataFrame(read_groups(path, footer, groups[start : start + _AT_ONCE], names or empty.columns))
            if rows is not None:
                frame = frame.head(rows)
                rows -= len(frame)
            yield frame if predicate is None else frame.filter(predicate)
            if rows == 0:
                return

    return register_io_source(source, schema=empty.schema)
