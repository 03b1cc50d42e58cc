"""CSV, one file a path: `synthetic_1_batch_<id>.csv`, …; UTF-8, RFC 4180 with line feeds, times ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, ClassVar

from synth_pipeline.synthesis.dataset import Rows
from synth_pipeline.synthesis.exports import Export, Source
from synth_pipeline.synthesis.exports.sheet import Sheet


class Csv(Export):
    """Text for every program."""

    suffix: ClassVar = ".csv"
    is_folder: ClassVar = True

    def write(self, source: Source, place: Path) -> None:
        """Write the files."""
        sheet = Sheet(source)
        for path, pieces in source.by_path():
            with (place / source.file_name(path, self.suffix)).open("wb") as file:
                write_csv(file, sheet, pieces)


def write_csv(file: IO[bytes], sheet: Sheet, pieces: Iterable[Rows]) -> None:
    """Write one path."""
    file.write(sheet.header())
    for rows in pieces:
        file.write(sheet.lines(rows))
