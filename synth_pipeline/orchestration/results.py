"""What a materialization shows in the UI: metadata that a person wants to see, and the outcome of its checks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.stages import Workspace
from synth_pipeline.storage import Place

_FACTS_IN_FIGURES = (
    "gaps",
    "trade_gaps",
    "crossed",
    "book_ticker_agreement",
    "book_ticker_matched",
    "fidelity",
    "floor",
)


def result(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    manifest: Manifest,
    *,
    asset: dg.AssetKey | None = None,
    output: str | None = None,
    checks: Mapping[str, tuple[bool, str, Any]] | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
) -> dg.MaterializeResult[Any]:
    """Return the result of one asset: its metadata, its content digest as data version, its checks.

    `output` names the one file of the partition that this asset is; `checks` are name → (passed, what was seen, value).
    """
    if manifest.mlflow_run_id is not None:
        name = (asset or context.asset_key).to_python_identifier()
        context.instance.add_run_tags(context.run.run_id, {f"mlflow/{name}": manifest.mlflow_run_id})
    digest = manifest.outputs[output].sha256 if output else manifest.digest
    return dg.MaterializeResult(
        asset_key=asset,
        metadata=metadata(workspace, manifest, output),
        data_version=dg.DataVersion(digest),
        check_results=[
            dg.AssetCheckResult(
                check_name=name,
                passed=passed,
                severity=severity,
                description=seen,
                metadata={"value": value},
                asset_key=asset,
            )
            for name, (passed, seen, value) in (checks or {}).items()
        ],
    )


def metadata(workspace: Workspace, manifest: Manifest, output: str | None) -> dict[str, Any]:
    """Return what the UI shows of a manifest."""
    folder = workspace.settings.data / manifest.ref
    artifacts = [manifest.outputs[output]] if output else list(manifest.outputs.values())
    facts = manifest.facts
    shown: dict[str, Any] = {
        "skipped": manifest.skipped,
        "bytes": sum(artifact.bytes for artifact in artifacts),
        "seconds": facts.get("seconds"),
        "peak_memory_mb": facts.get("peak_memory_mb"),
    } | {name: facts[name] for name in _FACTS_IN_FIGURES if facts.get(name) is not None}
    rows = [artifact.rows for artifact in artifacts if artifact.rows is not None]
    if rows:
        shown["dagster/row_count"] = sum(rows)
    if facts.get("coverage"):
        shown["time span"] = _span(facts["coverage"])
    record = {"inputs": manifest.inputs, "config": manifest.config, "facts": facts, "fingerprint": manifest.fingerprint}
    return shown | _links(workspace, manifest, folder) | {"manifest": dg.MetadataValue.json(record)}


def _span(coverage: list[list[int]]) -> str:
    first, last = (datetime.fromtimestamp(ns / NS_PER_SECOND, UTC) for ns in (coverage[0][0], coverage[-1][1]))
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S} UTC in {len(coverage)} stretch(es)"


def _links(workspace: Workspace, manifest: Manifest, folder: Place) -> dict[str, Any]:
    links: dict[str, Any] = {"folder": dg.MetadataValue.path(str(folder))}
    if manifest.mlflow_run_id is not None:
        links["mlflow/run_id"] = manifest.mlflow_run_id
        if url := workspace.tracker.url(manifest.mlflow_run_id):
            links["mlflow/url"] = dg.MetadataValue.url(url)
    if "report" in manifest.outputs:
        # A path, not a link: browsers refuse file links on served pages. MLflow's artifact view shows the page itself.
        links["report"] = dg.MetadataValue.path(str(manifest.file(folder, "report")))
    return links
