"""The verb `promote`: whether a new checkpoint becomes the `champion` of its model, and why.

The alias belongs to the registry; what was decided, against which champion and for what reason stays here as
`promotions/INSTRUMENT/CELL/GENERATOR`, and as tags of the model's version.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from synth_pipeline.errors import NoDataError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.lineage.runs import Champion
from synth_pipeline.schema import Instrument
from synth_pipeline.stages.history import Cell
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

if TYPE_CHECKING:
    from synth_pipeline.fidelity.evaluation import Evaluation

SOURCES = ("stages/promotion.py",)
_NEVER = {"invalid": "its values are invalid", "memorised": "it replays its training data"}


class Decision(NamedTuple):
    """Whether the newcomer is promoted, and the sentence that says why."""

    promoted: bool
    reason: str


def promote(workspace: Workspace, instrument: Instrument, cell: Cell, generator: str) -> Manifest:
    """Give a checkpoint the alias `champion` unless its report scores it worse than the champion by more than chance.

    Raises `NoDataError` when it has no report of its own, `InputError` when the registry does not answer.
    """
    checkpoint, report = _judged(workspace, instrument, cell, generator)
    model = f"{instrument}.{generator}"
    champion = workspace.tracker.champion(model)
    inputs = {checkpoint.ref: checkpoint.digest, report.ref: report.digest}
    if champion is not None and champion.digest == checkpoint.digest:
        decided = workspace.find("promotions", instrument, cell, generator)
        if decided is not None and decided.inputs == inputs:
            return replace(decided, skipped=True)
    config = {
        "model": model,
        "champion": champion and {"ref": champion.ref, "digest": champion.digest, "fidelity": champion.fidelity},
        "registered": checkpoint.mlflow_run_id is not None,
    }
    draft = draft_of(workspace, "promotions", f"{instrument}/{cell}/{generator}", inputs, SOURCES, config)
    return materialize(workspace, draft, lambda place: _promote(workspace, checkpoint, report, champion, draft, place))


def _judged(workspace: Workspace, instrument: Instrument, cell: Cell, generator: str) -> tuple[Manifest, Manifest]:
    """The checkpoint and its report. Raises `NoDataError` for a report of another checkpoint."""
    at = (instrument, cell, generator)
    checkpoint = workspace.require("checkpoints", "fit", *at)
    sampled = workspace.require("synthetic", "sample", *at)
    report = workspace.require("reports", "evaluate", *at)
    for made, upstream, verb in ((sampled, checkpoint, "sample"), (report, sampled, "evaluate")):
        if made.inputs.get(upstream.ref) != upstream.digest:
            raise NoDataError(f"{made.ref} is older than {upstream.ref}: {verb} it again")
    return checkpoint, report


def _promote(
    workspace: Workspace,
    checkpoint: Manifest,
    report: Manifest,
    champion: Champion | None,
    draft: Manifest,
    place: Path,
) -> Built:
    from synth_pipeline.fidelity.evaluation import Evaluation

    evaluation = Evaluation.from_json(workspace.file(report, "evaluation").read_bytes())
    low, high = evaluation.fidelity_band
    run_id = checkpoint.mlflow_run_id
    decision = decide(evaluation, champion, checkpoint) if run_id else Decision(False, "it is no registered model")
    facts: dict[str, Any] = {
        **decision._asdict(),
        "fidelity": evaluation.fidelity,
        "floor": evaluation.floor,
        "band": [low, high],
        "champion": champion.ref if champion else None,
        "champion_fidelity": champion.fidelity if champion else None,
    }
    if run_id is not None:
        # Before the commit: a decision that stands without the alias would be skipped for ever after.
        verdict = {"fidelity": evaluation.fidelity, "band": [low, high], "reason": decision.reason}
        workspace.tracker.judge(draft.config["model"], run_id, verdict, promoted=decision.promoted)
    path = place / "decision.json"
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Built({"decision": path}, facts)


def decide(evaluation: Evaluation, champion: Champion | None, checkpoint: Manifest) -> Decision:
    """Compare with the champion; a difference no wider than the band of real resamples is chance."""
    if fault := _NEVER.get(evaluation.conclusion):
        return Decision(False, f"kept the old one: {fault}")
    if champion is None:
        return Decision(True, "the first of its model")
    if champion.digest == checkpoint.digest:
        return Decision(True, "it is the champion already")
    if champion.fidelity is None:
        return Decision(True, f"the champion {champion.ref} was never judged")
    low, high = evaluation.fidelity_band
    behind, width = champion.fidelity - evaluation.fidelity, high - low
    told = f"fidelity {evaluation.fidelity:.1f} against the champion's {champion.fidelity:.1f}"
    if behind > width:
        return Decision(False, f"kept the old one: {told} is worse by more than the floor band of {width:.1f}")
    return Decision(True, f"{told}, no worse than the floor band of {width:.1f} allows")
