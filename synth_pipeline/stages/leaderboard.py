"""The verbs `leaderboard` and `compare_datasets`: what was sampled of one market, side by side.

Both are made of the records of `evaluate` and evaluate nothing that was not: the leaderboard lists what is still to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage import references
from synth_pipeline.lineage.manifests import Manifest, Stage
from synth_pipeline.schema import Instrument
from synth_pipeline.stages.calibrate import checkpoint_name
from synth_pipeline.stages.history import Cell
from synth_pipeline.stages.models import evaluate
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

if TYPE_CHECKING:
    from synth_pipeline.fidelity.evaluation import Evaluation

LEADERBOARD = "leaderboard"
AGAINST = "-against-"
"""Between the names of two datasets in the key of a comparison."""
SOURCES = ("fidelity/evaluation.py", "reports", "stages/leaderboard.py")


def leaderboard(
    workspace: Workspace, instrument: Instrument, cell: Cell, *, waiting: Mapping[str, str] | None = None
) -> Manifest:
    """Rank all datasets of a market that were evaluated, by grade and fidelity; write HTML and JSON.

    Datasets without a report and checkpoints without a dataset stand at the end, with what is to be done: those there
    are, or the ones given. Raises `NoDataError` where nothing was fitted.
    """
    reports = _reports(workspace, instrument, cell)
    if waiting is None:
        waiting = _waiting(workspace, instrument, cell, set(reports))
    if not reports and not waiting:
        raise NoDataError(f"nothing was fitted on {instrument} {cell}: fit, sample and evaluate a generator first")
    inputs = {each.ref: each.digest for each in reports.values()}
    config = {"waiting": waiting}
    draft = draft_of(workspace, "reports", f"{instrument}/{cell}/{LEADERBOARD}", inputs, SOURCES, config)

    def build(place: Path) -> Built:
        from synth_pipeline.reports.leaderboard_page import Entry, ranked, render

        entries = [Entry.of(name, _record(workspace, each), each.digest) for name, each in reports.items()]
        entries = ranked([*entries, *(Entry(name=name, because=because) for name, because in waiting.items())])
        told = {"instrument": str(instrument), "cell": str(cell), "code": draft.code_version}
        told |= {"command": f"synth-pipeline leaderboard {instrument} {cell}"}
        told |= {f"input {name}": digest for name, digest in inputs.items()}
        page, data = place / "leaderboard.html", place / "leaderboard.json"
        page.write_text(render(f"{instrument} · {cell}", entries, told), encoding="utf-8")
        data.write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=1))
        best = entries[0]
        facts = {"entries": len(entries), "best": best.name, "grade": best.grade, "fidelity": best.fidelity}
        return Built({"report": page, "leaderboard": data}, facts, shown=("report",))

    return materialize(workspace, draft, build)


def compare_datasets(workspace: Workspace, instrument: Instrument, cell: Cell, dataset: str, against: str) -> Manifest:
    """Put two datasets of a market beside each other, every number with its floors; write HTML.

    Evaluates what was not evaluated. Raises `InputError` for a dataset against itself.
    """
    if dataset == against:
        raise InputError(f"{dataset} would be compared with itself: name another dataset after --against")
    reports = {name: evaluate(workspace, instrument, cell, name) for name in (dataset, against)}
    inputs = {each.ref: each.digest for each in reports.values()}
    key = f"{instrument}/{cell}/{dataset}{AGAINST}{against}"
    draft = draft_of(workspace, "reports", key, inputs, SOURCES, {})

    def build(place: Path) -> Built:
        from synth_pipeline.reports.comparison_page import render

        records = {name: _record(workspace, each) for name, each in reports.items()}
        page = place / "report.html"
        page.write_text(render(records), encoding="utf-8")
        facts = {
            name: {"grade": each.grade, "fidelity": each.fidelity, "floor": each.floor}
            for name, each in records.items()
        }
        return Built({"report": page}, {"compared": facts}, shown=("report",))

    return materialize(workspace, draft, build)


def _record(workspace: Workspace, report: Manifest) -> Evaluation:
    from synth_pipeline.fidelity.evaluation import Evaluation

    return Evaluation.load(workspace.file(report, "evaluation"))


def _reports(workspace: Workspace, instrument: Instrument, cell: Cell) -> dict[str, Manifest]:
    """Return the reports on datasets, none of books or of several, by the name of the dataset."""
    return {
        name: workspace.require("reports", "evaluate", instrument, cell, name)
        for name in _names(workspace, "reports", instrument, cell)
        if name != LEADERBOARD and AGAINST not in name and not name.startswith("book@")
    }


def _waiting(workspace: Workspace, instrument: Instrument, cell: Cell, done: set[str]) -> dict[str, str]:
    """Return what has no report, and what is to be done about it."""
    sampled = _names(workspace, "synthetic", instrument, cell)
    waiting = {name: "sampled, not evaluated: evaluate it" for name in sampled if name not in done}
    seen = {name.partition("@")[0] for name in (*sampled, *done)}
    fitted = [
        name
        for name in _names(workspace, "checkpoints", instrument, cell)
        if name not in seen and not name.startswith(checkpoint_name(""))
    ]
    return waiting | dict.fromkeys(fitted, "fitted, not sampled: sample and evaluate it")


def _names(workspace: Workspace, stage: Stage, instrument: Instrument, cell: Cell) -> list[str]:
    return [folder.name for folder in references.cells(workspace.folder(stage, instrument, cell))]
