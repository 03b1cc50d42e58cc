"""NumPy `.npz`, one file: `values` (paths, steps, features), `names`, `time_ns` (paths, steps) and the grids.

`step_ns`, `tick_size` and `lot_size` are scalars; of several assets `assets` holds their names and `tick_sizes` and
`lot_sizes` their grids. Nothing is pickled. The archive is a ZIP of `.npy` files, written by their documented header:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
from numpy.lib import format as npy

from synth_pipeline.synthesis.exports import Export, Source


class Npz(Export):
    """Arrays for NumPy and what reads its files."""

    suffix: ClassVar = ".npz"

    def write(self, source: Source, place: Path) -> None:
        """Write the file."""
        made = source.dataset
        shape = (made.paths, made.steps)
        with zipfile.ZipFile(place, "w") as archive:
            with _array(archive, "values", "<f8", (*shape, len(made.names))) as file:
                for rows in source.scan(laps=2):
                    file.write(rows.values.astype("<f8").tobytes())
            with _array(archive, "time_ns", "<i8", shape) as file:
                for rows in source.scan(lap=1, laps=2):
                    file.write(rows.label_ns.astype("<i8").tobytes())
            facts = {"names": made.names, "step_ns": made.step_ns}
            facts |= {"tick_size": made.tick_size, "lot_size": made.lot_size}
            if made.assets:
                facts["assets"] = [asset.name for asset in made.assets]
                facts["tick_sizes"] = [asset.tick_size for asset in made.assets]
                facts["lot_sizes"] = [asset.lot_size for asset in made.assets]
            for name, fact in facts.items():
                with _member(archive, name) as file:
                    npy.write_array(file, np.asarray(fact), allow_pickle=False)


def _array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> IO[bytes]:
    """Open an array whose bytes follow, row by row."""
    file = _member(archive, name)
    npy.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
