"""What stands in the store for some days of an instrument, as JSON values for people and machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from synth_pipeline.lineage.manifests import Manifest, Stage
from synth_pipeline.schema import Instrument
from synth_pipeline.stages.workspace import Workspace


def summary(workspace: Workspace, instrument: Instrument, days: Sequence[date], names: Sequence[str]) -> dict[str, Any]:
    """Return what stands in the store for these days and, on the last of them, these generators, as JSON values."""
    ticks = [workspace.require("ticks", "ingest", instrument, day) for day in days]
    features = [workspace.require("features", "featurize", instrument, day) for day in days]
    paths = [
        str(manifest.file(workspace.folder("features", instrument, day), "features"))
        for day, manifest in zip(days, features, strict=True)
    ]
    runs = [
        manifest.mlflow_run_id
        for day in days
        for stage in ("raw", "ticks", "features")
        if (manifest := workspace.find(stage, instrument, day)) is not None
    ]
    raw = [workspace.require("raw", "record", instrument, day) for day in days]
    without_time = {"no_receive_time": sum(manifest.facts.get("without_time", 0) for manifest in raw)}
    described = {name: _describe(workspace, instrument, days[-1], name, runs) for name in names}
    tables = sorted({name for manifest in ticks for name in manifest.facts["rows"]})
    return {
        "instrument": str(instrument),
        "partitions": [day.isoformat() for day in days],
        "rows": {name: sum(manifest.facts["rows"].get(name, 0) for manifest in ticks) for name in tables},
        "quarantined": _total(manifest.facts["quarantined"] for manifest in ticks),
        "flagged": _total([*(manifest.facts["flagged"] for manifest in ticks), without_time]),
        "book": {
            "gaps": sum(manifest.facts["gaps"] for manifest in ticks),
            "crossed": sum(manifest.facts["crossed"] for manifest in ticks),
            "overtaken": sum(manifest.facts.get("book_events", {}).get("overtaken", 0) for manifest in ticks),
            "book_ticker_agreement": _pooled_agreement(ticks),
            "book_ticker_matched": sum(manifest.facts["book_ticker_matched"] for manifest in ticks),
        },
        "features": {
            "rows": sum(manifest.facts["rows"] for manifest in features),
            "path": paths[0] if len(paths) == 1 else paths,
        },
        "generators": described,
        "mlflow": {
            "tracking_uri": workspace.settings.tracking_uri if workspace.settings.tracking else None,
            "run_ids": [run for run in runs if run is not None],
        },
    }


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(each) for each in counts), Counter()))


def _pooled_agreement(ticks: Sequence[Manifest]) -> float | None:
    matched = sum(manifest.facts["book_ticker_matched"] for manifest in ticks)
    agreed = sum(
        (manifest.facts["book_ticker_agreement"] or 0.0) * manifest.facts["book_ticker_matched"] for manifest in ticks
    )
    return agreed / matched if matched else None


def _describe(
    workspace: Workspace, instrument: Instrument, day: date, generator: str, runs: list[str | None]
) -> dict[str, Any]:
    described: dict[str, Any] = {}
    outputs: tuple[tuple[Stage, str, str], ...] = (
        ("checkpoints", "fit", "checkpoint"),
        ("synthetic", "sample", "dataset"),
        ("reports", "evaluate", "report"),
    )
    for stage, verb, output in outputs:
        manifest = workspace.require(stage, verb, instrument, day, generator)
        described[output] = str(manifest.file(workspace.folder(stage, instrument, day, generator), output))
        runs.append(manifest.mlflow_run_id)
    report = workspace.require("reports", "evaluate", instrument, day, generator)
    return described | {"fidelity": report.facts["fidelity"], "floor": report.facts["floor"]}
