"""`Report`: a fidelity record with what can be drawn of it, and the one call that makes it.

It holds no raw data: a report read back from its record shows the same numbers, figures and page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.fidelity.evaluate import Families
from synth_pipeline.fidelity.evaluate import evaluate as measure
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import Series

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Report:
    """The record of one evaluation, as tables, figures and a page."""

    evaluation: Evaluation
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where the data come from, as `page.render` takes it."""

    @property
    def score(self) -> float:
        """The 0-100 fidelity; read it beside `evaluation.fidelity_floors`."""
        return self.evaluation.score

    def table(self) -> list[dict[str, str | float | None]]:
        """Return one flat row a metric, with its floors and verdict, ready for a data frame."""
        return self.evaluation.table()

    def figure(self, name: str, asset: str | None = None) -> go.Figure:
        """Return one figure; of several assets that of one. Raises `UnknownNameError` for a name that it lacks."""
        from synth_pipeline.reports.figures import figures

        record = self.evaluation
        if record.assets:
            if asset not in record.assets:
                raise UnknownNameError("asset", str(asset), record.assets)
            record = record.assets[str(asset)]
        if record.panels is None:
            raise InputError("this record holds no panels: evaluate again to draw figures")
        drawn = figures(record.panels)
        if name not in drawn:
            raise UnknownNameError("figure", name, drawn)
        return drawn[name]

    def html(self) -> str:
        """Return the page: one file that needs nothing else."""
        from synth_pipeline.reports.page import render

        return render(self.evaluation, self.provenance)

    def save(self, path: Path) -> Path:
        """Write the record as JSON and return where."""
        return self.evaluation.save(path)

    @classmethod
    def load(cls, path: Path, provenance: Mapping[str, str] | None = None) -> Report:
        """Read what `save` wrote. Raises `InputError` for anything else."""
        return cls(Evaluation.load(path), provenance or {})


def evaluate(
    real: Series,
    synthetic: Series,
    holdout: Series | None = None,
    *,
    rng: np.random.Generator,
    families: Families = None,
    progress: Progress = silent,
    provenance: Mapping[str, str] | None = None,
) -> Report:
    """Evaluate as `fidelity.evaluate.evaluate` does, and return what can be shown of it."""
    record = measure(real, synthetic, holdout, rng=rng, families=families, progress=progress)
    return Report(record, provenance or {})
