"""The verbs `fit`, `sample` and `evaluate`: from features to a checkpoint, a dataset and a fidelity report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import generators, plugins, schema
from synth_pipeline.errors import NoDataError
from synth_pipeline.generators import Generator
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND, Instrument
from synth_pipeline.series import Series
from synth_pipeline.stages.features import feature_series, look_back_of
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

_SERIES_SOURCES = (
    "schema.py",
    "series.py",
    "rng.py",
    "ticks/store.py",
    "features/windows.py",
    "features/transforms.py",
    "stages/features.py",
    "stages/models.py",
)
_HOUR_NS = 3600 * NS_PER_SECOND


def _model_sources(generator: str) -> tuple[str, ...]:
    shared = tuple(f"generators/{name}.py" for name in ("__init__", *sorted(generators.MACHINERY)))
    return (*_SERIES_SOURCES, *shared, f"generators/{generator}.py")


def fit(
    workspace: Workspace, instrument: Instrument, day: date, generator: str, parameters: Mapping[str, Any] | None = None
) -> Manifest:
    """Fit a generator on the training split of the look-back ending with this day; register it as a model.

    Raises `UnknownNameError`, `NoDataError`, `TooLittleDataError`, or `TrainingError` when the fit itself fails.
    """
    kind: type[Generator] = plugins.load(generators, generator)
    model = kind.from_settings(dict(parameters or {}))
    look_back = look_back_of(workspace, instrument, day)
    config = {
        "generator": generator,
        "parameters": asdict(model.parameters),
        "train_fraction": workspace.settings.train_fraction,
        "lookback_days": workspace.settings.lookback_days,
        "step_ms": workspace.settings.step_ms,
    }
    inputs = {manifest.ref: manifest.digest for manifest in look_back.values()}
    draft = draft_of(
        workspace,
        "checkpoints",
        f"{instrument}/{day}/{generator}",
        inputs,
        _model_sources(generator),
        config,
        seeded=True,
    )
    return materialize(workspace, draft, lambda place: _fit(workspace, instrument, look_back, model, draft, place))


def _split(
    workspace: Workspace, instrument: Instrument, look_back: Mapping[date, Manifest], kind: type[Generator]
) -> tuple[Series, Series]:
    """Training and held-out series with the columns that a generator takes."""
    from synth_pipeline.features.windows import split

    names = tuple(name for name in kind.columns if name in schema.GRID.names)
    series = feature_series(workspace, instrument, look_back, names)
    if not np.isfinite(series.column(series.price_name)).any():
        raise NoDataError(
            f"{instrument} has no {series.price_name} price on {', '.join(map(str, look_back))}: "
            "the capture holds neither quotes nor a book that a snapshot anchors; record these streams"
        )
    return split(series, workspace.settings.train_fraction)


def _fit(
    workspace: Workspace,
    instrument: Instrument,
    look_back: Mapping[date, Manifest],
    model: Generator,
    draft: Manifest,
    place: Path,
) -> Built:
    train, _ = _split(workspace, instrument, look_back, type(model))
    rng = stream(workspace.settings.seed, "fit", draft.key)
    model.fit(train, rng=rng, progress=workspace.progress)
    folder = place / "checkpoint"
    folder.mkdir()
    model.save(folder)
    facts = model.summary() | {"train_steps": train.steps, "notes": list(model.notes)}
    return Built({"checkpoint": folder}, facts, model=f"{instrument}.{draft.config['generator']}")


def load_generator(workspace: Workspace, instrument: Instrument, day: date, generator: str) -> Generator:
    """Load the fitted generator of a checkpoint. Raises `NoDataError` when none was fitted."""
    kind: type[Generator] = plugins.load(generators, generator)
    checkpoint = workspace.require("checkpoints", "fit", instrument, day, generator)
    return kind.load(checkpoint.file(workspace.folder("checkpoints", instrument, day, generator), "checkpoint"))


def sample(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    generator: str,
    *,
    paths: int | None = None,
    steps: int | None = None,
) -> Manifest:
    """Sample connected paths from a checkpoint into a dataset; by default as long as the training
    split, an hour at most.

    Raises `NoDataError` when nothing was fitted, `InputError` for a request that the generator cannot honour.
    """
    from synth_pipeline.synthesis.dataset import sample_dataset

    checkpoint = workspace.require("checkpoints", "fit", instrument, day, generator)
    paths = workspace.settings.sample_paths if paths is None else paths
    if steps is None:
        steps = min(checkpoint.facts["train_steps"], _HOUR_NS // workspace.settings.step_ns)
    config = {"paths": paths, "steps": steps}
    sources = (*_model_sources(generator), "synthesis")
    draft = draft_of(
        workspace,
        "synthetic",
        f"{instrument}/{day}/{generator}",
        {checkpoint.ref: checkpoint.digest},
        sources,
        config,
        seeded=True,
    )

    def build(place: Path) -> Built:
        model = load_generator(workspace, instrument, day, generator)
        rng = stream(workspace.settings.seed, "sample", draft.key)
        path = place / "dataset.parquet"
        rows = sample_dataset(model, path, paths=paths, steps=steps, rng=rng, progress=workspace.progress)
        return Built({"dataset": path}, {"rows": rows} | config, {"dataset": rows})

    return materialize(workspace, draft, build)


def evaluate(workspace: Workspace, instrument: Instrument, day: date, generator: str) -> Manifest:
    """Score a dataset against held-out real data, beside the same scores of real against real; write HTML and JSON."""
    dataset = workspace.require("synthetic", "sample", instrument, day, generator)
    look_back = look_back_of(workspace, instrument, day)
    inputs = {manifest.ref: manifest.digest for manifest in (dataset, *look_back.values())}
    sources = (*_model_sources(generator), "synthesis", "fidelity", "reports")
    config = {"train_fraction": workspace.settings.train_fraction, "step_ms": workspace.settings.step_ms}
    draft = draft_of(workspace, "reports", f"{instrument}/{day}/{generator}", inputs, sources, config, seeded=True)
    return materialize(
        workspace,
        draft,
        lambda place: _evaluate(workspace, instrument, day, look_back, dataset, draft, place),
    )


def _evaluate(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    look_back: Mapping[date, Manifest],
    dataset: Manifest,
    draft: Manifest,
    place: Path,
) -> Built:
    from synth_pipeline.fidelity.evaluate import evaluate as compare
    from synth_pipeline.reports.page import render
    from synth_pipeline.synthesis.dataset import read_dataset

    generator = draft.key.rpartition("/")[2]
    train, holdout = _split(workspace, instrument, look_back, plugins.load(generators, generator))
    synthetic = read_dataset(dataset.file(workspace.folder("synthetic", instrument, day, generator), "dataset"))
    rng = stream(workspace.settings.seed, "evaluate", draft.key)
    evaluation = compare(train, synthetic, holdout, rng=rng, progress=workspace.progress)
    provenance = {
        "instrument": str(instrument),
        "day": day.isoformat(),
        "generator": generator,
        "seed": str(workspace.settings.seed),
        "code": draft.code_version,
        "command": f"synth-pipeline evaluate {instrument} {day} {generator}",
    } | {f"input {name}": digest for name, digest in draft.inputs.items()}
    page, data = place / "report.html", place / "report.json"
    data.write_bytes(evaluation.to_json())
    page.write_text(render(evaluation, provenance), encoding="utf-8")
    facts = {"fidelity": evaluation.fidelity, "floor": evaluation.floor}
    return Built({"report": page, "evaluation": data}, facts, shown=("report",))
