"""ZIP, a batch: `synthetic_batch_<id>.zip` of a CSV file a path, and `synthetic_batch_<id>_xlsx.zip` of the workbooks.

The files inside are those of the formats `csv` and `xlsx`. Their stamps are 1980-01-01, the first that ZIP knows, so
that the same dataset is the same archive.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import IO, ClassVar

from synth_pipeline.synthesis.exports import Export, Source
from synth_pipeline.synthesis.exports.csv import write_csv
from synth_pipeline.synthesis.exports.sheet import Sheet
from synth_pipeline.synthesis.exports.xlsx import write_workbook


class Zip(Export):
    """Two archives in a folder."""

    suffix: ClassVar = ".zip"
    is_folder: ClassVar = True

    def names(self, source: Source) -> list[str]:
        """Return the names of the two."""
        return [f"synthetic_batch_{source.batch}{ending}" for ending in (".zip", "_xlsx.zip")]

    def write(self, source: Source, place: Path) -> None:
        """Write the archives."""
        sheet = Sheet(source)
        texts, books = self.names(source)
        with zipfile.ZipFile(place / texts, "w") as archive:
            for path, pieces in source.by_path("CSV files", laps=2):
                with _member(archive, source.file_name(path, ".csv"), zipfile.ZIP_DEFLATED) as file:
                    write_csv(file, sheet, pieces)
        with zipfile.ZipFile(place / books, "w") as archive:
            for path, pieces in source.by_path("workbooks", lap=1, laps=2):
                book = place / source.file_name(path, ".xlsx")
                write_workbook(book, sheet, pieces)
                with book.open("rb") as made, _member(archive, book.name, zipfile.ZIP_STORED) as file:
                    shutil.copyfileobj(made, file)
                book.unlink()


def _member(archive: zipfile.ZipFile, name: str, compression: int) -> IO[bytes]:
    """Open a new file of an archive; a workbook is compressed already."""
    described = zipfile.ZipInfo(name)
    described.compress_type = compression
    return archive.open(described, "w", force_zip64=True)
