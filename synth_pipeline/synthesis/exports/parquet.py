"""Parquet, one file: `path`, `time` (timestamp in ns, UTC) and the features; zstd, row groups of some 65,536 rows."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from synth_pipeline.synthesis.exports import Export, Source
from synth_pipeline.synthesis.exports.columnar import batches, schema


class Parquet(Export):
    """One table for analysis."""

    suffix: ClassVar = ".parquet"

    def write(self, source: Source, place: Path) -> None:
        """Write the file."""
        wanted = schema(source)
        with pq.ParquetWriter(place, wanted, compression="zstd") as file:
            for batch in batches(source, wanted):
                file.write_table(pa.Table.from_batches([batch]), row_group_size=batch.num_rows)
