"""The graph: raw_capture → trades, book_levels, quotes → features_500ms → per generator checkpoint, dataset, report,
champion → leaderboard.

A body hands one verb to `materialized`, which calls it for every cell of the run; everything else is in `stages` and
below. A backfill takes the cells in chunks, a run each.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from synth_pipeline import generators, plugins, stages
from synth_pipeline.archives import Form
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.orchestration import executors, pools
from synth_pipeline.orchestration.partitions import CELLS, days_back
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.orchestration.results import Checks, materialized
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace

SETTINGS = Settings()
TICKS = ("trades", "book_levels", "quotes")
FEATURES = dg.AssetKey(f"features_{SETTINGS.step_ms}ms")
CHUNK = 10
"""Cells of one run of a backfill."""
_CODE = stages.code_versions()
_DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
"""A night that failed warns, a second one fails."""

GENERATOR_ASSETS = ("checkpoint", "synthetic_dataset", "fidelity_report", "champion")
"""What every generator has, upstream first."""

Results = Iterator[dg.MaterializeResult[Any]]


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
    code_version=_CODE["record"],
    check_specs=[dg.AssetCheckSpec("non_empty", asset="raw_capture")],
    pool=pools.CPU,
    op_tags=executors.needs(pools.CPU),
)
def raw_capture(context: dg.AssetExecutionContext, config: RawCaptureConfig, verbs: dg.ResourceParam[Verbs]) -> Results:
    """Bytes as received: one raw log (or one archive file) a day."""
    form = Form(config.columns, config.timezone) or None
    sources = [Path(path) for path in config.sources]

    def verb(workspace: Workspace, instrument: Instrument, day: date) -> Manifest:
        return stages.record(workspace, instrument, day, sources, seconds=config.seconds, form=form)

    yield from materialized(context, verbs, verb, checks=_raw_checks)


def _raw_checks(_: str | None, manifest: Manifest) -> Checks:
    size = sum(artifact.bytes for artifact in manifest.outputs.values())
    return {"non_empty": (size > 0, f"{size} bytes", size)}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=[dg.AssetDep(raw_capture, partition_mapping=days_back(2))],
            group_name="ticks",
            kinds={"parquet"},
            code_version=_CODE["ingest"],
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
    pool=pools.CPU,
    op_tags=executors.needs(pools.CPU),
)
def ticks(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
    """Typed rows of one day; the day before gives the opening book where the recording goes on over midnight."""
    assets = {dg.AssetKey(name): name for name in TICKS}
    yield from materialized(context, verbs, stages.ingest, assets, checks=_tick_checks)


def _tick_checks(table: str | None, manifest: Manifest) -> Checks:
    facts = manifest.facts
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
    code_version=_CODE["featurize"],
    check_specs=[dg.AssetCheckSpec("known_mid", asset=FEATURES)],
    freshness_policy=_DAILY,
    pool=pools.CPU,
    op_tags=executors.needs(pools.CPU),
)
def features(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
    """Grid features, one row a bucket, labelled by the bucket's end."""
    yield from materialized(context, verbs, stages.featurize, checks=_feature_checks)


def _feature_checks(_: str | None, manifest: Manifest) -> Checks:
    known, rows = manifest.facts["known_mid"], manifest.facts["rows"]
    return {"known_mid": (known > 0, f"{known} of {rows} rows know the mid", known)}


def _report_checks(least: float, manifest: Manifest) -> Checks:
    fidelity, floor = manifest.facts["fidelity"], manifest.facts["floor"]
    seen = f"fidelity {fidelity:.1f}, fresh real data {floor:.1f}, threshold {least:g}"
    return {"fidelity_threshold": (fidelity >= least, seen, fidelity)}


def generator_assets(generator: str) -> list[dg.AssetsDefinition]:
    """Return the four assets of one generator."""
    common: dict[str, Any] = {"partitions_def": CELLS, "group_name": generator, "key_prefix": generator}
    window = dg.AssetDep(FEATURES, partition_mapping=days_back(SETTINGS.lookback_days))
    code = stages.code_versions(generator)
    training = pools.training_pool()
    needs = executors.needs(training)

    @dg.asset(deps=[window], kinds={"checkpoint"}, code_version=code["fit"], pool=training, op_tags=needs, **common)
    def checkpoint(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
        """Fitted on the training split of the look-back; also a registered MLflow model."""
        yield from materialized(context, verbs, partial(stages.fit, generator=generator))

    @dg.asset(deps=[checkpoint], kinds={"parquet"}, code_version=code["sample"], pool=training, op_tags=needs, **common)
    def synthetic_dataset(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
        """Connected paths in market units, one row a path and step."""
        yield from materialized(context, verbs, partial(stages.sample, generator=generator))

    spec = dg.AssetCheckSpec("fidelity_threshold", asset=dg.AssetKey([generator, "fidelity_report"]))

    @dg.asset(
        deps=[synthetic_dataset, window],
        kinds={"html"},
        code_version=code["evaluate"],
        check_specs=[spec],
        pool=pools.CPU,
        op_tags=executors.needs(pools.CPU),
        **common,
    )
    def fidelity_report(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
        """Scores against held-out real data, beside those of real against real: HTML and JSON."""
        least = verbs.settings.fidelity_threshold
        verb = partial(stages.evaluate, dataset=generator)
        yield from materialized(context, verbs, verb, checks=lambda _, manifest: _report_checks(least, manifest))

    @dg.asset(deps=[checkpoint, fidelity_report], kinds={"mlflow"}, code_version=code["promote"], **common)
    def champion(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
        """Whether the checkpoint became the champion of its model, and why."""
        yield from materialized(context, verbs, partial(stages.promote, generator=generator))

    return [checkpoint, synthetic_dataset, fidelity_report, champion]


@dg.asset(
    deps=[dg.AssetKey([name, "fidelity_report"]) for name in plugins.names(generators)],
    partitions_def=CELLS,
    group_name="leaderboard",
    kinds={"html"},
    code_version=_CODE["leaderboard"],
    pool=pools.CPU,
    op_tags=executors.needs(pools.CPU),
)
def leaderboard(context: dg.AssetExecutionContext, verbs: dg.ResourceParam[Verbs]) -> Results:
    """All datasets of a market, ranked by grade and fidelity, with floors and copying: HTML and JSON."""
    yield from materialized(context, verbs, stages.leaderboard)


def model_keys(names: Iterable[str]) -> list[dg.AssetKey]:
    """Return what is made of the generators named, upstream first, and the leaderboard last."""
    return [*(dg.AssetKey([name, asset]) for name in names for asset in GENERATOR_ASSETS), leaderboard.key]


def all_assets() -> list[dg.AssetsDefinition]:
    """Return the whole graph; every generator plug-in has its assets."""
    of_generators = [asset for name in plugins.names(generators) for asset in generator_assets(name)]
    chunks = dg.BackfillPolicy.multi_run(max_partitions_per_run=CHUNK)
    graph = (raw_capture, ticks, features, *of_generators, leaderboard)
    return [each.with_attributes(backfill_policy=chunks) for each in graph]
