"""The verbs `fit`, `sample` and `evaluate`: from features to a checkpoint, a dataset and a fidelity report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import generators, plugins
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.generators import Generator
from synth_pipeline.lineage.digests import code_version, sha256_json
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND, Instrument
from synth_pipeline.series import Series
from synth_pipeline.stages import training
from synth_pipeline.stages.history import Cell, History, Labels
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

_SERIES_SOURCES = (
    "schema.py",
    "series.py",
    "rng.py",
    "ticks/parquet.py",
    "features/windows.py",
    "features/marginals.py",
    "features/ohlc.py",
    "features/regimes.py",
    "features/transforms.py",
    "bars/calendars.py",
    "bars/timeframe.py",
    "bars/values.py",
    "stages/features.py",
    "stages/history.py",
    "stages/models.py",
    "stages/training.py",
    "reports/drawing.py",
)
_BOOK_SOURCES = ("features/book_image.py", "features/buckets.py", "features/kernels.py", "stages/books.py")
_HOUR_NS = 3600 * NS_PER_SECOND
_DOMINANT = 0.25
"""Share of the variance of a history from which on a single move is named."""
_MOST_PATHS = 64
"""Paths of a dataset that an evaluation looks at."""


def fit_sources(generator: str) -> tuple[str, ...]:
    """Return the code that a checkpoint of a generator depends on."""
    files = [f"generators/{name}.py" for name in plugins.files_of(generators, generator)]
    return (*_SERIES_SOURCES, *(_BOOK_SOURCES if generator in generators.OF_BOOKS else ()), *files)


def sample_sources(generator: str) -> tuple[str, ...]:
    """Return the code that a dataset of a generator depends on."""
    return (*fit_sources(generator), "synthesis", "fidelity")


def evaluate_sources(generator: str) -> tuple[str, ...]:
    """Return the code that a report of a generator depends on."""
    return (*sample_sources(generator), "reports")


def fit(
    workspace: Workspace,
    instrument: Instrument,
    cell: Cell,
    generator: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    start_from: str | None = None,
) -> Manifest:
    """Fit a generator on the training split of what is known in a cell; register it as a model.

    The fit of a network that was killed goes on where it was. `start_from` names a checkpoint whose weights it starts
    from, `none` is a cold start; `training.start_of` says what is left out means. Raises `UnknownNameError`,
    `NoDataError`, `TooLittleDataError`, or `TrainingError` when the fit itself fails.
    """
    kind: type[Generator] = plugins.load(generators, generator)
    model = kind.from_settings(dict(parameters or {}))
    history = History.of(workspace, instrument, cell, generator)
    config = {
        "generator": generator,
        "parameters": asdict(model.parameters),
        "train_fraction": workspace.settings.train_fraction,
        **history.config,
        **(training.config_of(workspace.settings) if kind.is_network else {}),
    }
    draft = draft_of(
        workspace,
        "checkpoints",
        f"{instrument}/{cell}/{generator}",
        dict(history.inputs),
        fit_sources(generator),
        config,
        seeded=True,
    )
    start = training.start_of(workspace, draft, kind, cell, start_from)
    if start is not None:
        inputs = {**draft.inputs, start.ref: start.digest}
        draft = replace(draft, inputs=inputs, config={**draft.config, "start_from": start.ref})
    if not kind.is_network:
        return materialize(workspace, draft, lambda place: _fit(workspace, history, model, draft, place))
    with training.kept(workspace, draft) as state:

        def build(place: Path) -> Built:
            training.surround(workspace, model, state, start)
            return _fit(workspace, history, model, draft, place)

        return materialize(workspace, draft, build)


def _split(workspace: Workspace, history: History, kind: type[Generator]) -> tuple[Series, Series]:
    """Training and held-out series with the columns that a generator takes.

    Of a basket the share is one of the rows since the last asset was listed; all rows before train.
    """
    from synth_pipeline.features.windows import split

    series = history.series(kind)
    share = workspace.settings.train_fraction
    if series.assets:
        prices = np.stack([part.column(part.price_name)[0] for part in series.parts().values()])
        before = int(np.isfinite(prices).argmax(axis=1).max()) / series.steps
        share = before + share * (1 - before)
    return split(series, share)


def _fit(workspace: Workspace, history: History, model: Generator, draft: Manifest, place: Path) -> Built:
    train, held_out = _split(workspace, history, type(model))
    rng = stream(workspace.settings.seed, "fit", draft.key)
    try:
        model.fit(train, rng=rng, progress=workspace.progress)
    except TooLittleDataError as error:
        raise TooLittleDataError(
            f"{error} (of {train.steps + held_out.steps} steps {train.steps} train and the rest is held out: "
            f"SYNTH_TRAIN_FRACTION={workspace.settings.train_fraction:g})"
        ) from error
    folder = place / "checkpoint"
    folder.mkdir()
    model.save(folder)
    notes = [*model.notes, *_jumps(train)]
    facts = model.summary() | {"train_steps": train.steps, "max_steps": model.max_steps, "notes": notes}
    name = f"{history.instrument}.{draft.config['generator']}"
    if not model.is_network:
        return Built({"checkpoint": folder}, facts, model=name)
    drawn = place / "pictures"
    curves = training.pictures(model, workspace.settings.seed, draft.key, drawn)
    return Built({"checkpoint": folder, "pictures": drawn}, facts, model=name, curves=curves, shown=("pictures",))


def _jumps(train: Series) -> list[str]:
    """Name a single move that is most of what there is to fit, such as a split or a false print."""
    notes = []
    for name, part in (train.parts() if train.assets else {"": train}).items():
        moves = np.nan_to_num(part.log_returns())
        at = np.unravel_index(np.abs(moves).argmax(), moves.shape)
        share = float(moves[at] ** 2 / np.sum(moves**2))
        if share > _DOMINANT:
            notes.append(
                f"{f'{name}: ' * bool(name)}one move of {np.expm1(moves[at]):+.1%} (step {at[1] + 1} of {part.steps}) "
                f"makes {share:.0%} of the variance: a split or a false print? estimates lean on it"
            )
    return notes


def load_generator(workspace: Workspace, instrument: Instrument, cell: Cell, generator: str) -> Generator:
    """Load the fitted generator of a checkpoint.

    Raises `NoDataError` when none was fitted, `InputError` for one of earlier code that this code cannot read.
    """
    kind: type[Generator] = plugins.load(generators, generator)
    checkpoint = workspace.require("checkpoints", "fit", instrument, cell, generator)
    folder = workspace.file(checkpoint, "checkpoint")
    try:
        return kind.load(folder)
    except (KeyError, TypeError, RuntimeError) as error:  # arrays, parameters, weights that are not there
        now = code_version(*fit_sources(generator))
        if checkpoint.code_version == now:
            raise
        raise InputError(
            f"{checkpoint.ref} was made by code {checkpoint.code_version} and {now} does not read it: fit it again"
        ) from error


@dataclass(frozen=True)
class Scenario:
    """Under which conditions to sample; the plain one is the market as it was fitted."""

    regime: str | None = None
    shocks: tuple[str, ...] = ()
    """Each such as `volatility:times=3,at=600,for=120` (`synthesis.shocks` has the kinds)."""
    min_fidelity: float | None = None
    """Keep only paths that score at least this, 0 to 100, against the training data."""

    def __post_init__(self) -> None:
        from synth_pipeline.synthesis.shocks import Shock

        # One shock has one text, whatever the order and the form of its numbers.
        object.__setattr__(self, "shocks", tuple(str(Shock.parse(text)) for text in self.shocks))
        if self.min_fidelity is not None and not 0 <= self.min_fidelity <= 100:
            raise InputError(f"min_fidelity={self.min_fidelity:g} is no fidelity: give a number from 0 to 100")

    def name(self, generator: str) -> str:
        """Return what its dataset is filed under: the generator, and what sets it apart from the plain one."""
        parts = [self.regime] if self.regime else []
        if self.shocks:
            kinds = [shock.partition(":")[0] for shock in self.shocks]
            parts += [*kinds, sha256_json(self.shocks)[:6]]
        if self.min_fidelity is not None:
            parts.append(f"fidelity{self.min_fidelity:g}")
        return f"{generator}@{'-'.join(parts)}" if parts else generator


def sample(
    workspace: Workspace,
    instrument: Instrument,
    cell: Cell,
    generator: str,
    *,
    paths: int | None = None,
    steps: int | None = None,
    scenario: Scenario = Scenario(),
) -> Manifest:
    """Sample connected paths from a checkpoint into a dataset; by default as long as the training split, of grid
    features an hour at most, of a model of one window that.

    Raises `NoDataError` when nothing was fitted, `InputError` for a request that the generator cannot honour or, with
    a least fidelity, that too few paths reach.
    """
    checkpoint = workspace.require("checkpoints", "fit", instrument, cell, generator)
    needs_history = isinstance(cell, Timeframe) or scenario.min_fidelity is not None
    history = History.of(workspace, instrument, cell, generator) if needs_history else None
    paths = workspace.settings.sample_paths if paths is None else paths
    if steps is None:
        most = checkpoint.facts["train_steps"]
        steps = most if isinstance(cell, Timeframe) else min(most, _HOUR_NS // workspace.settings.step_ns)
        steps = min(steps, checkpoint.facts.get("max_steps") or steps)
    config = {"paths": paths, "steps": steps, **asdict(scenario)}
    if history:
        config |= {"train_fraction": workspace.settings.train_fraction, **history.config}
    draft = draft_of(
        workspace,
        "synthetic",
        f"{instrument}/{cell}/{scenario.name(generator)}",
        {checkpoint.ref: checkpoint.digest, **(history.inputs if history else {})},
        sample_sources(generator),
        config,
        seeded=True,
    )

    def build(place: Path) -> Built:
        model = load_generator(workspace, instrument, cell, generator)
        train = _split(workspace, history, type(model))[0] if history else None
        labels = history.labels(train) if history and train else None
        return _sample(workspace, model, train, labels, scenario, draft, place)

    return materialize(workspace, draft, build)


def _sample(
    workspace: Workspace,
    model: Generator,
    train: Series | None,
    labels: Labels | None,
    scenario: Scenario,
    draft: Manifest,
    place: Path,
) -> Built:
    from synth_pipeline.synthesis.dataset import write_dataset
    from synth_pipeline.synthesis.rejection import accepted
    from synth_pipeline.synthesis.scenarios import Shock, shocked

    paths, steps = draft.config["paths"], draft.config["steps"]
    if labels:
        _check_labels(labels, steps)
    # Not of the scenario: a shocked path is the plain one with the shock on it.
    draws = stream(workspace.settings.seed, "sample", draft.key.partition("@")[0])
    facts: dict[str, Any] = {"paths": paths, "steps": steps}
    if scenario.min_fidelity is None or train is None:
        pieces = model.stream(paths, steps, regime=scenario.regime, rng=draws)
    else:
        found = accepted(
            model,
            _resembled(model, train, scenario.regime),
            paths=paths,
            steps=steps,
            min_fidelity=scenario.min_fidelity,
            regime=scenario.regime,
            rng=draws,
            workers=os.cpu_count() or 1,
            watch=workspace.progress,
        )
        pieces = found.pieces()
        facts |= found.facts()
        if scenario.regime:
            facts["selected_on"] += f", its steps of regime {scenario.regime} one after the other"
    shocks = [Shock.parse(text) for text in scenario.shocks]
    pieces = shocked(pieces, shocks, rng=stream(workspace.settings.seed, "shock", draft.key))
    folder = place / "dataset"
    about = {"generator": _generator_of(draft), "seed": workspace.settings.seed, **asdict(scenario)}
    facts["rows"] = write_dataset(
        folder, pieces, labels=labels, about=about, most_rows=paths * steps, progress=workspace.progress
    )
    return Built({"dataset": folder}, facts)


def _resembled(model: Generator, train: Series, regime: str | None) -> Series:
    """What sampled paths should be like: the training data, or its steps of a regime."""
    from synth_pipeline.features.regimes import gathered

    if regime is None or not model.conditions:
        return train
    return gathered(train, model.regimes_of(train).where(regime))


def _generator_of(draft: Manifest) -> str:
    """The generator that a dataset or report is of: its name up to the scenario."""
    return draft.key.rpartition("/")[2].partition("@")[0]


def evaluate(workspace: Workspace, instrument: Instrument, cell: Cell, dataset: str) -> Manifest:
    """Score a dataset (`NAME`, or `NAME@SCENARIO`) against held-out real data, beside the same scores of real against
    real; write HTML and JSON."""
    sampled = workspace.require("synthetic", "sample", instrument, cell, dataset)
    history = History.of(workspace, instrument, cell, _generator_of(sampled))
    inputs = {sampled.ref: sampled.digest, **history.inputs}
    sources = evaluate_sources(_generator_of(sampled))
    config = {"train_fraction": workspace.settings.train_fraction, **history.config}
    draft = draft_of(workspace, "reports", f"{instrument}/{cell}/{dataset}", inputs, sources, config, seeded=True)
    return materialize(workspace, draft, lambda place: _evaluate(workspace, history, cell, sampled, draft, place))


def _evaluate(
    workspace: Workspace, history: History, cell: Cell, sampled: Manifest, draft: Manifest, place: Path
) -> Built:
    from synth_pipeline.fidelity.evaluate import evaluate as compare
    from synth_pipeline.reports.report import of_record
    from synth_pipeline.synthesis.dataset import read_dataset

    name = draft.key.rpartition("/")[2]
    train, holdout = _split(workspace, history, plugins.load(generators, _generator_of(draft)))
    folder = workspace.file(sampled, "dataset")
    synthetic = read_dataset(folder, most_paths=_MOST_PATHS)
    rng = stream(workspace.settings.seed, "evaluate", draft.key)
    evaluation = compare(train, synthetic, holdout, rng=rng, progress=workspace.progress)
    provenance = {
        "instrument": str(history.instrument),
        "day" if isinstance(cell, date) else "bars": str(cell),
        "generator": name,
        "seed": str(workspace.settings.seed),
        "code": draft.code_version,
        "command": f"synth-pipeline evaluate {history.instrument} {cell} {name}",
        "reproduce": f"synth-pipeline reproduce {draft.ref}",
        "runs": f"synth-pipeline lineage {draft.ref}",
        "render_again": "synth-pipeline evaluate --render report.json --to page.html",
    }
    provenance |= _conditions(sampled)
    provenance |= {f"input {name}": digest for name, digest in draft.inputs.items()}
    report = of_record(evaluation, train, synthetic, holdout, provenance)
    page, data = place / "report.html", place / "report.json"
    report.save(data)
    page.write_text(report.html(), encoding="utf-8")
    facts = {
        "grade": evaluation.grade,
        "fidelity": evaluation.fidelity,
        "floor": evaluation.floor,
        **_conditions(sampled),
    }
    return Built({"report": page, "evaluation": data}, facts, shown=("report",))


def _conditions(sampled: Manifest) -> dict[str, str]:
    """What sets a dataset apart from the market as it was fitted, in words; empty for a plain one."""
    config, facts = sampled.config, sampled.facts
    parts = [f"regime {config['regime']}"] if config["regime"] else []
    parts += [f"shock {shock}" for shock in config["shocks"]]
    told = {"scenario": "; ".join(parts)} if parts else {}
    if config["min_fidelity"] is None:
        return told
    chosen = f"{facts['paths']} of {facts['candidates']} candidates reach {config['min_fidelity']:g}"
    return told | {"selected_on": f"{facts['selected_on']}: {chosen}"}


def _check_labels(labels: Labels, steps: int) -> None:
    """Raise `InputError` where the calendar of a market leads past the last time that int64 holds."""
    some = labels(np.unique(np.linspace(0, steps - 1, 1000, dtype=np.int64)))
    if (some[1:] <= some[:-1]).any():  # a difference would wrap too
        raise InputError(f"{steps} bars end after 2262, the last year of times in ns: ask for fewer")
