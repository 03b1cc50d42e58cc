"""What a materialization shows in the UI: metadata that a person wants to see, and the outcome of its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import dagster as dg

from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.partitions import cells_of, instrument_and_day
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.schema import NS_PER_SECOND, Instrument
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
    "device",
    "promoted",
    "reason",
    "champion",
    "champion_fidelity",
    "tracking",
)


Checks = Mapping[str, tuple[bool, str, Any]]
"""By name of the check: whether it passed, what was seen, the value."""
FAILED = "failed"
"""The data version of a cell that a chunk could not make, and the name of the metadata that say why."""
Verb = Callable[[Workspace, Instrument, date], Manifest]


class Cell(NamedTuple):
    """One cell of a run, made."""

    key: dg.MultiPartitionKey
    workspace: Workspace
    manifest: Manifest


def materialized(
    context: dg.AssetExecutionContext,
    verbs: Verbs,
    verb: Verb,
    assets: Mapping[dg.AssetKey, str | None] | None = None,
    *,
    checks: Callable[[str | None, Manifest], Checks] = lambda _, __: {},
) -> Iterator[dg.MaterializeResult[Any]]:
    """Call a verb for every cell of the run and tell Dagster what became of them.

    `assets` are the assets of the step and, for each, the one file of the partition that it is. Of several cells each
    has an event of its own, since its data version is that of its manifest, and one that fails does not stop the
    others: the run fails when all were tried, in the last of its steps, where the cell fails again for want of what it
    is made from. Raises what the verb raises for a single cell, else `dg.Failure`.
    """
    assets = assets or {context.asset_key: None}
    keys = cells_of(context)
    if len(keys) == 1:
        cell = _made(context, verbs, verb, keys[0])
        for asset, output in assets.items():
            yield _result(context, cell, asset, output, checks(output, cell.manifest))
        return
    made, failed = _all_made(context, verbs, verb, keys)
    if not failed or not _is_last(context, [*assets]):
        for asset, output in assets.items():
            seen = [(cell.key, checks(output, cell.manifest)) for cell in made]
            yield dg.MaterializeResult(asset_key=asset, check_results=_check_results(asset, _joint(seen)))
    # After Dagster's own events, which take every cell of a step that ends well for made, with one version: the last
    # event of a partition counts.
    for asset, output in assets.items():
        _tell_each(context, made, asset, output)
        if failed and not _is_last(context, [*assets]):
            _tell_failed(context, failed, asset)
    if failed and _is_last(context, [*assets]):
        told = "; ".join(f"{key}: {error}" for key, error in list(failed.items())[:5])
        raise dg.Failure(
            f"{len(failed)} of {len(keys)} cells failed, the others are made: {told}",
            metadata={FAILED: dg.MetadataValue.json({key: _line(error) for key, error in failed.items()})},
            allow_retries=False,
        )


def _is_last(context: dg.AssetExecutionContext, assets: Sequence[dg.AssetKey]) -> bool:
    """Whether no asset of this run is made from these; the last one reports for all of its cells."""
    layer = context.op_execution_context.job_def.asset_layer
    children = {child for asset in assets for child in layer.asset_graph.get(asset).child_keys}
    return not children & layer.selected_asset_keys


def _all_made(
    context: dg.AssetExecutionContext, verbs: Verbs, verb: Verb, keys: Sequence[dg.MultiPartitionKey]
) -> tuple[list[Cell], dict[str, Exception]]:
    made, failed = [], {}
    for number, key in enumerate(keys, start=1):
        try:
            made.append(_made(context, verbs, verb, key))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other cells go on and the step fails at its end
            context.log.error(f"{key}: {type(error).__name__}: {error}")  # noqa: TRY400 - the log shows what a user reads
            failed[str(key)] = error
        context.log.info(f"{number} of {len(keys)} cells")
    return made, failed


def _made(context: dg.AssetExecutionContext, verbs: Verbs, verb: Verb, key: dg.MultiPartitionKey) -> Cell:
    workspace = verbs.workspace(context, key)
    with pools.memory_share(verbs.settings.step_memory_gib):
        return Cell(key, workspace, verb(workspace, *instrument_and_day(key)))


def _version(manifest: Manifest, output: str | None) -> str:
    return manifest.outputs[output].sha256 if output else manifest.digest


def _result(
    context: dg.AssetExecutionContext, cell: Cell, asset: dg.AssetKey, output: str | None, checks: Checks
) -> dg.MaterializeResult[Any]:
    if cell.manifest.mlflow_run_id is not None:
        tag = {f"mlflow/{asset.to_python_identifier()}": cell.manifest.mlflow_run_id}
        context.instance.add_run_tags(context.run.run_id, tag)
    return dg.MaterializeResult(
        asset_key=asset,
        metadata=metadata(cell.workspace, cell.manifest, output),
        data_version=dg.DataVersion(_version(cell.manifest, output)),
        check_results=_check_results(asset, checks),
    )


def _tell_each(context: dg.AssetExecutionContext, made: list[Cell], asset: dg.AssetKey, output: str | None) -> None:
    for key, workspace, manifest in made:
        context.log_event(
            dg.AssetMaterialization(
                asset,
                partition=key,
                metadata=metadata(workspace, manifest, output),
                tags={
                    "dagster/data_version": _version(manifest, output),
                    "dagster/data_version_is_user_provided": "true",
                    "dagster/code_version": manifest.code_version,
                },
            )
        )


def _tell_failed(context: dg.AssetExecutionContext, failed: Mapping[str, Exception], asset: dg.AssetKey) -> None:
    for key, error in failed.items():
        told = {FAILED: _line(error)}
        tags = {"dagster/data_version": FAILED, "dagster/data_version_is_user_provided": "true"}
        context.log_event(dg.AssetMaterialization(asset, partition=key, metadata=told, tags=tags))


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def failures(events: Iterable[dg.DagsterEvent], keys: Sequence[str]) -> dict[str, str]:
    """Return why cells of a run were not made, by key, what was told first; `keys` are all cells of the run."""
    told: dict[str, str] = {}
    rest = ""
    for event in events:
        if event.is_step_materialization:
            made = event.step_materialization_data.materialization
            if FAILED in made.metadata and made.partition is not None:
                told.setdefault(made.partition, str(made.metadata[FAILED].value))
        elif event.is_step_failure:
            failure = event.step_failure_data
            known = failure.user_failure_data.metadata.get(FAILED) if failure.user_failure_data else None
            if known is not None and isinstance(known.value, Mapping):
                told = {key: str(error) for key, error in known.value.items()} | told
            if known is None and failure.error is not None:
                cause = failure.error.cause or failure.error
                rest = rest or " ".join(cause.message.split())
    return dict.fromkeys(keys, rest) | told if rest else told


def _joint(seen: Sequence[tuple[dg.MultiPartitionKey, Checks]]) -> Checks:
    """The check of all cells: it passes when each does, and shows the first that does not."""
    joint: dict[str, tuple[bool, str, Any]] = {}
    for key, checks in seen:
        for name, (passed, told, value) in checks.items():
            if name not in joint or (joint[name][0] and not passed):
                joint[name] = (passed, f"{key}: {told}", value)
    return joint


def _check_results(asset: dg.AssetKey, checks: Checks) -> list[dg.AssetCheckResult]:
    return [
        dg.AssetCheckResult(
            check_name=name,
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=told,
            metadata={"value": value},
            asset_key=asset,
        )
        for name, (passed, told, value) in checks.items()
    ]


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
