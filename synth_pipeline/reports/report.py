"""`Report`: a fidelity record with what can be drawn of it, and the one call that makes it.

It holds no raw data: a report read back from its record shows the same numbers, figures and page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from synth_pipeline.errors import UnknownNameError
from synth_pipeline.features.regimes import label
from synth_pipeline.fidelity.evaluate import Families, held_out
from synth_pipeline.fidelity.evaluate import evaluate as measure
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.fidelity.exhibits import Labels, Sides, exhibited
from synth_pipeline.progress import Progress, silent
from synth_pipeline.reports.tables import Reading, aligned, series_of
from synth_pipeline.rng import stream
from synth_pipeline.series import Series

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Report:
    """The record of one evaluation, as tables, figures and a page."""

    evaluation: Evaluation

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
        if record.assets and asset is not None:
            if asset not in record.assets:
                raise UnknownNameError("asset", asset, record.assets)
            record = record.assets[asset]
        drawn = figures(record)
        if name not in drawn:
            raise UnknownNameError("figure", name, drawn)
        return drawn[name]

    def html(self) -> str:
        """Return the page: one file that needs nothing else."""
        from synth_pipeline.reports.page import render

        return render(self.evaluation)

    def save(self, path: Path) -> Path:
        """Write the record as JSON and return where."""
        return self.evaluation.save(path)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote. Raises `InputError` for anything else."""
        return cls(Evaluation.load(path))


def evaluate(
    real: object,
    synthetic: object,
    holdout: object | None = None,
    *,
    families: Families = None,
    reading: Reading | None = None,
    rng: np.random.Generator | None = None,
    progress: Progress = silent,
    provenance: Mapping[str, str] | None = None,
) -> Report:
    """Evaluate as `fidelity.evaluate.evaluate` does, and return what can be shown of it.

    Each of the three may be a `Series`, a Polars or pandas frame or column in long form, or an array of shape (steps,),
    (paths, steps) or (paths, steps, features) in the order of time; `tables` says how columns are told apart, `reading`
    what they do not tell. Where nothing is held out, the last 30 % of the real data are. Random numbers come from a
    fixed seed unless `rng` is given. Raises as both do.
    """
    sides = _sides(real, synthetic, holdout, reading or Reading())
    drawn = stream(0, "evaluate") if rng is None else rng
    record = measure(
        sides["real data"],
        sides["synthetic data"],
        sides.get("held-out data"),
        rng=drawn,
        families=families,
        progress=progress,
    )
    return of_record(record, sides["real data"], sides["synthetic data"], sides.get("held-out data"), provenance)


def of_record(
    record: Evaluation,
    real: Series,
    synthetic: Series,
    holdout: Series | None,
    provenance: Mapping[str, str] | None = None,
) -> Report:
    """Return the report of a record, with all that the page shows beside the metrics, from the series of the record."""
    if holdout is None:
        real, holdout, _ = held_out(real)
    shown = exhibited(record, Sides(real, synthetic, holdout), _labels(real, synthetic, holdout))
    return Report(msgspec.structs.replace(shown, provenance=dict(provenance or {})))


def _sides(real: object, synthetic: object, holdout: object | None, reading: Reading) -> dict[str, Series]:
    given = {"real data": real, "synthetic data": synthetic}
    given |= {} if holdout is None else {"held-out data": holdout}
    series = {name: each for name, each in given.items() if isinstance(each, Series)}
    if len(series) == len(given):
        return series
    first = series_of(real, "real data", reading)
    return aligned({name: series_of(each, name, reading, like=first) for name, each in given.items()})


def _labels(real: Series, synthetic: Series, holdout: Series) -> Labels | None:
    """Label regimes by rules; None of several assets, whose severity is that of each."""
    if real.assets:
        return None
    found = [label(each) for each in (real, synthetic, holdout)]
    return Labels(found[0].names, *(each.labels for each in found))
