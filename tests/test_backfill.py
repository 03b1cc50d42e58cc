"""Many cells: what is due, what a change makes due, chunks in which one cell is poisoned, and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from synth_pipeline import cli, stages
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.lineage.digests import code_version
from synth_pipeline.orchestration import backfill as backfills
from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.assets import CHUNK, FEATURES, TICKS, all_assets
from synth_pipeline.orchestration.definitions import definitions
from synth_pipeline.orchestration.partitions import cell
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.orchestration.results import FAILED
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import made_days

BTC, ETH = made_days.instrument(), made_days.instrument("ETHUSDT")
BASE = [*map(dg.AssetKey, TICKS), FEATURES]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("instrument", [str(BTC), str(ETH)])
        yield made


def _chunk(
    settings: Settings, instance: dg.DagsterInstance, first: date, last: date, selected: list[dg.AssetKey]
) -> dg.ExecuteInProcessResult:
    """Run a chunk as a backfill of Dagster does: one run of a range of partitions."""
    return dg.materialize(
        all_assets(),
        selection=dg.AssetSelection.assets(*selected),
        resources={"verbs": Verbs(settings)},
        instance=instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": cell(BTC, first),
            "dagster/asset_partition_range_end": cell(BTC, last),
        },
    )


def _versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    keys = instance.get_materialized_partitions(asset)
    found = {key: instance.get_latest_data_version_record(asset, partition_key=key) for key in keys}
    return {
        key: record.asset_materialization.tags["dagster/data_version"]
        for key, record in found.items()
        if record is not None and record.asset_materialization is not None and record.asset_materialization.tags
    }


class TestChunks:
    def test_every_cell_of_a_chunk_has_the_version_of_its_manifest(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        for number in range(3):
            made_days.record(settings, [number], seconds=3 + number)
        assert _chunk(settings, instance, made_days.day(0), made_days.day(2), BASE).success
        workspace = Workspace(settings)
        for number in range(3):
            key, day = str(cell(BTC, made_days.day(number))), made_days.day(number)
            made = workspace.require("features", "featurize", BTC, day)
            assert _versions(instance, FEATURES)[key] == made.digest
            ticks = workspace.require("ticks", "ingest", BTC, day)
            assert _versions(instance, dg.AssetKey("trades"))[key] == ticks.outputs["trades"].sha256
        assert len(set(_versions(instance, FEATURES).values())) == 3

    @pytest.mark.parametrize("selected", [BASE, BASE[:-1]], ids=["features", "ticks"])
    def test_one_poisoned_cell_does_not_stop_the_others(
        self, settings: Settings, instance: dg.DagsterInstance, selected: list[dg.AssetKey]
    ) -> None:
        made_days.record(settings, range(4))
        made_days.poison(settings, 2)
        run = _chunk(settings, instance, made_days.day(0), made_days.day(3), selected)
        assert not run.success
        (failure,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
        assert failure.user_failure_data is not None
        told = failure.user_failure_data.description or ""
        assert "1 of 4 cells failed, the others are made" in told
        assert str(made_days.day(2)) in told
        good = {str(cell(BTC, made_days.day(number))) for number in (0, 1, 3)}
        for asset in selected:
            found = {key: version for key, version in _versions(instance, asset).items() if version != FAILED}
            assert set(found) == good, asset
        assert str(cell(BTC, made_days.day(2))) not in instance.get_materialized_partitions(selected[-1])

    def test_the_code_behind_an_asset_is_its_code_version(self) -> None:
        graph = definitions().resolve_asset_graph()
        codes = {key.to_user_string(): graph.get(key).code_version for key in graph.materializable_asset_keys}
        assert codes["trades"] == code_version("schema.py", "venues", "archives", "capture", "ticks", "stages/ticks.py")
        assert codes["garch/checkpoint"] != codes["heston/checkpoint"]
        assert all(codes.values())

    def test_every_step_takes_a_slot_of_a_pool_and_a_share_of_the_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = {each.op.name: each.op.pool for each in all_assets()}
        assert pool["features_500ms"] == pool["raw_capture"] == "cpu"
        assert pool["garch__checkpoint"] == ("gpu" if pools.has_gpu() else "cpu")
        monkeypatch.setattr("os.cpu_count", lambda: 16)
        for name in pools.threads():
            monkeypatch.delenv(name, raising=False)
        assert set(pools.threads().values()) == {"8"}
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert pools.threads()["OMP_NUM_THREADS"] == "3"


def _make(settings: Settings, plan: backfills.Plan) -> None:
    workspace = Workspace(settings)
    for chunk in plan.chunks:
        for day in chunk.days:
            stages.ingest(workspace, chunk.instrument, day)
            stages.featurize(workspace, chunk.instrument, day)


def _due(plan: backfills.Plan) -> list[str]:
    return [f"{chunk.instrument}/{day}" for chunk in plan.chunks for day in chunk.days]


class TestPlan:
    def test_chunks_are_days_of_one_instrument_that_follow_one_another(self, settings: Settings) -> None:
        made_days.record(settings, [*range(CHUNK + 2), CHUNK + 3])
        made_days.record(settings, [0], ["ETHUSDT"])
        plan = backfills.plan(settings, [BTC, ETH], made_days.day(0), made_days.day(CHUNK + 3))
        assert [(str(chunk.instrument), len(chunk.days)) for chunk in plan.chunks] == [
            (str(BTC), CHUNK), (str(BTC), 2), (str(BTC), 1), (str(ETH), 1),
        ]  # fmt: skip
        assert f"{BTC}/{made_days.day(CHUNK + 2)}" in plan.missing
        assert plan.assets == tuple(BASE)

    def test_training_is_dragged_in_only_when_asked_for(self, settings: Settings) -> None:
        made_days.record(settings, [0])
        chosen = settings.model_copy(update={"generators": "garch"})
        day = made_days.day(0)
        assert not [key for key in backfills.plan(chosen, [BTC], day, day).assets if len(key.path) > 1]
        names = {key.to_user_string() for key in backfills.plan(chosen, [BTC], day, day, "models").assets}
        assert names >= {"garch/checkpoint", "garch/champion", "features_500ms"}
        assert not [name for name in names if name.startswith("wgan_gp")]

    def test_an_altered_recording_makes_its_own_cells_due_and_no_other(self, settings: Settings) -> None:
        numbers, symbols = range(4), ("BTCUSDT", "ETHUSDT", "SOLUSDT")
        made_days.record(settings, numbers, symbols)
        instruments = [made_days.instrument(symbol) for symbol in symbols]
        span = (made_days.day(0), made_days.day(3))
        first = backfills.plan(settings, instruments, *span)
        assert len(_due(first)) == 12
        _make(settings, first)
        again = backfills.plan(settings, instruments, *span)
        assert (again.chunks, len(again.current)) == ((), 12)
        made_days.record(settings, [1], ["ETHUSDT"], seconds=5)
        assert _due(backfills.plan(settings, instruments, *span)) == [f"{ETH}/{made_days.day(1)}"]

    def test_a_file_that_is_gone_makes_its_cell_due(self, settings: Settings) -> None:
        made_days.record(settings, range(2))
        span = (made_days.day(0), made_days.day(1))
        _make(settings, backfills.plan(settings, [BTC], *span))
        made = Workspace(settings).require("features", "featurize", BTC, made_days.day(1))
        Path(str(settings.data / made.ref / made.path("features"))).unlink()
        assert _due(backfills.plan(settings, [BTC], *span)) == [f"{BTC}/{made_days.day(1)}"]

    def test_what_cannot_be_asked_for_is_named(self, settings: Settings) -> None:
        day = made_days.day(0)
        with pytest.raises(NoDataError, match="nothing is recorded of"):
            backfills.plan(settings, [BTC], day, day)
        with pytest.raises(InputError, match="end before they begin"):
            backfills.plan(settings, [BTC], made_days.day(1), day)
        with pytest.raises(InputError, match="SYNTH_FIRST_DAY"):
            backfills.plan(settings, [BTC], date(1970, 1, 1), day)
        with pytest.raises(UnknownNameError, match="Did you mean 'features'"):
            backfills.plan(settings, [BTC], day, day, "feature")


def _command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    monkeypatch.setattr(sys, "argv", ["synth-pipeline", "backfill", *map(str, words), "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_four_workers_make_29_of_30_on_one_sqlite_database_and_go_on_with_the_poisoned_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SYNTH_HOME", str(settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    (_, *_, last) = made_days.record(settings, range(30), seconds=2)
    made_days.poison(settings, 29)
    words = (BTC, f"{made_days.day(0)}:{made_days.day(29)}", "--workers", 4, "--here")
    code, document = _command(monkeypatch, capsys, *words)
    poisoned = f"{BTC}/{made_days.day(29)}"
    assert (code, len(document["made"]), list(document["failed"])) == (1, 29, [poisoned])
    assert "InputError" in document["failed"][poisoned]
    with backfills.opened_instance(settings, []) as instance:
        assert len(instance.get_materialized_partitions(FEATURES)) == 29
        ended = sorted(run.status.value for run in instance.get_runs())
    assert ended == ["FAILURE", *["SUCCESS"] * (len(ended) - 1)]  # the database was never too busy for one of them
    Path(str(settings.data / last.ref / "manifest.json")).unlink()
    made_days.record(settings, [29], seconds=2)
    code, document = _command(monkeypatch, capsys, *words)
    assert (code, document["made"], len(document["current"])) == (0, [poisoned], 29)
