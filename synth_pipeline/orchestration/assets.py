"""The graph: raw_capture → trades, book_levels, quotes → features_500ms → checkpoint, dataset, report → leaderboard.

A body resolves its cell, calls one verb and returns the result; everything else is in `stages` and below.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from synth_pipeline import generators, plugins, stages
from synth_pipeline.archives import Form
from synth_pipeline.orchestration.partitions import CELLS, cell_of, days_back
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.orchestration.results import result
from synth_pipeline.settings import Settings

SETTINGS = Settings()
TICKS = ("trades", "book_levels", "quotes")
FEATURES = dg.AssetKey(f"features_{SETTINGS.step_ms}ms")


class RawCaptureConfig(dg.Config):
    """Where the bytes of one cell come from."""

    sources: list[str] = Field(
        default=[], description="Recorded files; none means what is stored, or the embedded market."
    )
    seconds: float = Field(default=3600.0, description="Length of a simulated recording, for the venue `simulated`.")
    columns: dict[str, str] = Field(default={}, description="Of a table: its columns by meaning (time, price, …).")
    timezone: str = Field(default="", description="Of a table: the time zone of its wall times.")


@dg.asset(
    partitions_def=CELLS,
    group_name="capture",
    kinds={"zstd"},
    check_specs=[dg.AssetCheckSpec("non_empty", asset="raw_capture")],
)
def raw_capture(
    context: dg.AssetExecutionContext, config: RawCaptureConfig, verbs: dg.ResourceParam[Verbs]
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Bytes as received: one raw log (or one archive file) a day."""
    workspace = verbs.workspace(context)
    form = Form(config.columns, config.timezone)
    sources = [Path(path) for path in config.sources]
    manifest = stages.record(workspace, *cell_of(context), sources, seconds=config.seconds, form=form or None)
    size = sum(artifact.bytes for artifact in manifest.outputs.values())
    return result(context, workspace, manifest, checks={"non_empty": (size > 0, f"{size} bytes", size)})


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=[dg.AssetDep(raw_capture, partition_mapping=days_back(2))],
            group_name="ticks",
            kinds={"parquet"},
            description=f"{name} of one day, exact integers, sorted by receive time",
            partitions_def=CELLS,
        )
        for name in TICKS
    ],
    check_specs=[
        *(dg.AssetCheckSpec("non_empty", asset=name) for name in TICKS),
        dg.AssetCheckSpec("sequence_gaps", asset="book_levels"),
        dg.AssetCheckSpec("crossed_book", asset="book_levels"),
        dg.AssetCheckSpec("book_ticker_agreement", asset="quotes"),
        dg.AssetCheckSpec("trade_id_gaps", asset="trades"),
    ],
    partitions_def=CELLS,
)
def ticks(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Typed rows of one day; the day before gives the opening book where the recording goes on over midnight."""
    workspace = verbs.workspace(context)
    manifest = stages.ingest(workspace, *cell_of(context))
    for name in TICKS:
        checks = _tick_checks(name, manifest.facts)
        yield result(context, workspace, manifest, asset=dg.AssetKey(name), output=name, checks=checks)


def _tick_checks(table: str, facts: dict[str, Any]) -> dict[str, tuple[bool, str, Any]]:
    rows = facts["rows"][table]
    checks: dict[str, tuple[bool, str, Any]] = {"non_empty": (rows > 0, f"{rows} rows", rows)}
    if table == "book_levels":
        checks["sequence_gaps"] = (facts["gaps"] == 0, f"{facts['gaps']} gaps in the update ids", facts["gaps"])
        checks["crossed_book"] = (
            facts["crossed"] == 0,
            f"{facts['crossed']} events left the book crossed",
            facts["crossed"],
        )
    if table == "quotes":
        share, matched = facts["book_ticker_agreement"], facts["book_ticker_matched"]
        seen = "nothing to compare" if share is None else f"{share:.2%} of {matched} matched updates agree"
        checks["book_ticker_agreement"] = (share is None or share >= 0.999, seen, share)
    if table == "trades":
        checks["trade_id_gaps"] = (
            facts["trade_gaps"] == 0,
            f"{facts['trade_gaps']} gaps in the ids",
            facts["trade_gaps"],
        )
    return checks


@dg.asset(
    key=FEATURES,
    deps=list(TICKS),
    partitions_def=CELLS,
    group_name="features",
    kinds={"parquet", "numba"},
    check_specs=[dg.AssetCheckSpec("known_mid", asset=FEATURES)],
)
def features(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Grid features, one row a bucket, labelled by the bucket's end."""
    workspace = verbs.workspace(context)
    manifest = stages.featurize(workspace, *cell_of(context))
    known, rows = manifest.facts["known_mid"], manifest.facts["rows"]
    return result(
        context, workspace, manifest, checks={"known_mid": (known > 0, f"{known} of {rows} rows know the mid", known)}
    )


def generator_assets(generator: str) -> list[dg.AssetsDefinition]:
    """Return the three assets of one generator."""
    common: dict[str, Any] = {"partitions_def": CELLS, "group_name": generator, "key_prefix": generator}
    window = dg.AssetDep(FEATURES, partition_mapping=days_back(SETTINGS.lookback_days))

    @dg.asset(deps=[window], kinds={"checkpoint"}, **common)
    def checkpoint(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Fitted on the training split of the look-back; also a registered MLflow model."""
        workspace = verbs.workspace(context)
        return result(context, workspace, stages.fit(workspace, *cell_of(context), generator))

    @dg.asset(deps=[checkpoint], kinds={"parquet"}, **common)
    def synthetic_dataset(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Connected paths in market units, one row a path and step."""
        workspace = verbs.workspace(context)
        return result(context, workspace, stages.sample(workspace, *cell_of(context), generator))

    spec = dg.AssetCheckSpec("fidelity_threshold", asset=dg.AssetKey([generator, "fidelity_report"]))

    @dg.asset(deps=[synthetic_dataset, window], kinds={"html"}, check_specs=[spec], **common)
    def fidelity_report(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Scores against held-out real data, beside those of real against real: HTML and JSON."""
        workspace = verbs.workspace(context)
        manifest = stages.evaluate(workspace, *cell_of(context), generator)
        fidelity, floor, least = (
            manifest.facts["fidelity"],
            manifest.facts["floor"],
            workspace.settings.fidelity_threshold,
        )
        seen = f"fidelity {fidelity:.1f}, fresh real data {floor:.1f}, threshold {least:g}"
        return result(context, workspace, manifest, checks={"fidelity_threshold": (fidelity >= least, seen, fidelity)})

    return [checkpoint, synthetic_dataset, fidelity_report]


@dg.asset(
    deps=[dg.AssetKey([name, "fidelity_report"]) for name in plugins.names(generators)],
    partitions_def=CELLS,
    group_name="leaderboard",
    kinds={"html"},
)
def leaderboard(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """All datasets of a market, ranked by grade and fidelity, with floors and copying: HTML and JSON."""
    workspace = verbs.workspace(context)
    return result(context, workspace, stages.leaderboard(workspace, *cell_of(context)))


def all_assets() -> list[dg.AssetsDefinition]:
    """Return the whole graph; every generator plug-in has its assets."""
    of_generators = [asset for name in plugins.names(generators) for asset in generator_assets(name)]
    return [raw_capture, ticks, features, *of_generators, leaderboard]
