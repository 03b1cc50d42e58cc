"""The verb `export`: a dataset as files for other programs, outside the home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.lineage.digests import sha256_json
from synth_pipeline.schema import Instrument
from synth_pipeline.series import IntArray
from synth_pipeline.stages.workspace import Workspace

if TYPE_CHECKING:
    from synth_pipeline.stages.history import Cell

_BATCH_LETTERS = 8


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    dataset: str
    """REF of the dataset."""
    batch: str
    """Names the batch in file names; the same dataset and number of paths give the same."""
    paths: int
    rows: int
    files: tuple[Path, ...]


def export(
    workspace: Workspace,
    instrument: Instrument,
    cell: Cell,
    dataset: str,
    to: str,
    out: Path,
    *,
    paths: int | None = None,
    force: bool = False,
) -> Exported:
    """Write a dataset (`GENERATOR`, or `GENERATOR@SCENARIO`), or its first paths, in a format of `synthesis/exports`.

    Raises `NoDataError` when there is no such dataset, `UnknownNameError` for an unknown format, `InputError` for more
    paths than there are and for a place that is taken or cannot be written to.
    """
    from synth_pipeline.synthesis.dataset import Dataset
    from synth_pipeline.synthesis.exporting import export as write
    from synth_pipeline.synthesis.exports import Source

    sampled = workspace.require("synthetic", "sample", instrument, cell, dataset)
    found = Dataset.open(workspace.file(sampled, "dataset"))
    if paths is not None:
        found = found.head(paths)
    batch = sha256_json({"dataset": sampled.digest, "paths": found.paths})[:_BATCH_LETTERS]
    files = write(Source(found, batch, _opens(cell), workspace.progress), to, out, force=force)
    return Exported(sampled.ref, batch, found.paths, found.rows, tuple(files))


def _opens(cell: Cell) -> Callable[[IntArray], IntArray] | None:
    """Return how the opens of bars follow from their ends; only months are not equally long."""
    if not isinstance(cell, Timeframe) or cell.fixed:
        return None
    return lambda label_ns: cell.floor(label_ns - 1)
