"""Arrow IPC, one file, not compressed, so that it can be mapped: `path`, `time` (timestamp in ns, UTC), the features.

The file format of https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format, also known as Feather V2.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from synth_pipeline.synthesis.exports import Export, Source
from synth_pipeline.synthesis.exports.columnar import batches, schema


class Arrow(Export):
    """One table to map into memory."""

    suffix: ClassVar = ".arrow"

    def write(self, source: Source, place: Path) -> None:
        """Write the file."""
        wanted = schema(source)
        with pa.OSFile(str(place), "wb") as sink, pa.ipc.new_file(sink, wanted) as file:
            for batch in batches(source, wanted):
                file.write_batch(batch)
