"""A price path of the store by name: of a fitted generator, of a sampled dataset, or of real features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Self

import numpy as np

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument
from synth_pipeline.series import Series
from synth_pipeline.stages.history import Cell, parse_cell
from synth_pipeline.stages.workspace import Workspace

_VERBS = {"checkpoints": "fit", "synthetic": "sample", "features": "featurize"}
_FORM = "INSTRUMENT/CELL/GENERATOR, synthetic/INSTRUMENT/CELL/DATASET or features/INSTRUMENT/DAY"


@dataclass(frozen=True)
class PathRef:
    """Where a path is: a fitted generator draws one without an end, a dataset holds some, features hold the real one.

    Of several assets it is the path of one.
    """

    stage: str
    instrument: Instrument
    cell: Cell
    name: str = ""
    """Of the generator or the dataset."""
    path: int = 0
    """Of a dataset, the number of the path."""
    asset: str = ""

    @classmethod
    def parse(cls, text: str, *, path: int = 0, asset: str = "") -> Self:
        """Read one of the three forms. Raises `InputError` for any other."""
        parts = text.split("/")
        stage, *rest = parts if parts[0] in _VERBS else ("checkpoints", *parts)
        if len(rest) != (2 if stage == "features" else 3):
            raise InputError(f"fundamental price {text!r} is not of the form {_FORM}")
        if path < 0 or (path and stage != "synthetic"):
            raise InputError(f"path {path} of {text!r}: only a dataset has several, numbered from 0")
        return cls(stage, Instrument.parse(rest[0]), parse_cell(rest[1]), "".join(rest[2:]), path, asset)

    def __str__(self) -> str:
        text = "/".join(filter(None, (self.stage, str(self.instrument), str(self.cell), self.name)))
        return text + f"#{self.path}" * (self.stage == "synthetic") + f":{self.asset}" * bool(self.asset)

    def manifest(self, workspace: Workspace) -> Manifest:
        """Return the manifest of what it is of. Raises `NoDataError` where that was not made."""
        stage, more = self.stage, (self.name,) if self.name else ()
        return workspace.require(stage, _VERBS[stage], self.instrument, self.cell, *more)  # type: ignore[arg-type]

    def inputs(self, workspace: Workspace) -> dict[str, str]:
        """Return the digest of what it is of, by REF."""
        manifest = self.manifest(workspace)
        return {manifest.ref: manifest.digest}


def market_pieces(workspace: Workspace, ref: PathRef, *, rng: np.random.Generator) -> Iterable[tuple[int, Series]]:
    """Return the paths piece by piece, as generators stream them.

    Raises `InputError` for a generator that makes no path without an end.
    """
    from synth_pipeline.market.fundamental import of_generator
    from synth_pipeline.synthesis.dataset import scan_dataset

    manifest = ref.manifest(workspace)
    if ref.stage == "checkpoints":
        model = plugins.load(generators, ref.name).load(workspace.file(manifest, "checkpoint"))
        return of_generator(model, rng=rng)
    if ref.stage == "synthetic":
        return scan_dataset(workspace.file(manifest, "dataset"))
    return [(0, _known(workspace, ref, manifest))]


def _known(workspace: Workspace, ref: PathRef, manifest: Manifest) -> Series:
    """Return a day's mids from the first known one on."""
    from synth_pipeline.stages.features import feature_series

    if not isinstance(ref.cell, date):
        raise InputError(f"features of {ref.instrument} are by day, not by {ref.cell}: give a day")
    series = feature_series(workspace, ref.instrument, {ref.cell: manifest}, ("mid",))
    known = np.flatnonzero(np.isfinite(series.values[0, :, 0]))
    if not known.size:
        raise InputError(f"{ref} has no known mid: take another day")
    return series.slice(int(known[0]), int(known[-1]) + 1)
