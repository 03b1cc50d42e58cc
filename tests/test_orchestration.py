"""The graph as Dagster sees it: what depends on what, what a person sees, and that its runs are the verbs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from synth_pipeline import generators, plugins
from synth_pipeline.orchestration import inprocess
from synth_pipeline.orchestration.assets import FEATURES, TICKS, all_assets
from synth_pipeline.orchestration.definitions import definitions
from synth_pipeline.orchestration.partitions import CELLS, cell, days_back
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from tests import wire

BTC = Instrument("binance_usdm", "BTCUSDT")
TODAY = date.fromisoformat(wire.DAY)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("instrument", [str(BTC)])
        yield made


def _graph() -> dg.AssetGraph:  # type: ignore[name-defined]
    return definitions().resolve_asset_graph()


def test_the_graph_is_the_one_of_the_design() -> None:
    graph = _graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    expected = {
        "raw_capture": set(),
        "trades": {"raw_capture"},
        "book_levels": {"raw_capture"},
        "quotes": {"raw_capture"},
        "features_500ms": {"trades", "book_levels", "quotes"},
    }
    for name in plugins.names(generators):
        expected |= {
            f"{name}/checkpoint": {"features_500ms"},
            f"{name}/synthetic_dataset": {f"{name}/checkpoint"},
            f"{name}/fidelity_report": {f"{name}/synthetic_dataset", "features_500ms"},
            f"{name}/champion": {f"{name}/checkpoint", f"{name}/fidelity_report"},
        }
    expected["leaderboard"] = {f"{name}/fidelity_report" for name in plugins.names(generators)}
    assert parents == expected


def test_every_asset_is_partitioned_by_instrument_and_day_and_says_what_it_is() -> None:
    graph = _graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.partitions_def == CELLS, key
        assert node.description, key


def test_definitions_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        all_assets()


def test_days_back_ends_with_the_cells_own_day(instance: dg.DagsterInstance) -> None:
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        subset = CELLS.empty_subset().with_partition_keys([cell(BTC, TODAY)])
        mapped = days_back(3).get_upstream_mapped_partitions_result_for_partitions(subset, CELLS, CELLS)
        keys = {str(key) for key in mapped.partitions_subset.get_partition_keys()}
    assert keys == {f"2023-11-{day}|binance_usdm.BTCUSDT" for day in (13, 14, 15)}


def _materialize(settings: Settings, instance: dg.DagsterInstance, path: Path) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        all_assets(),
        selection=dg.AssetSelection.assets("raw_capture", *TICKS, FEATURES),
        partition_key=cell(BTC, TODAY),
        resources={"verbs": Verbs(settings)},
        instance=instance,
        run_config={"ops": {"raw_capture": {"config": {"sources": [str(path)]}}}},
    )


def test_metadata_and_checks_say_what_a_person_wants_to_know(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    frames = wire.market(60)
    depths = [number for number, frame in enumerate(frames) if b"depthUpdate" in frame[1]]
    run = _materialize(
        settings, instance, wire.write_capture(tmp_path / "capture.gz", frames[: depths[99]] + frames[depths[100] :])
    )
    events = {
        event.materialization.asset_key.to_user_string(): event.materialization
        for event in run.get_asset_materialization_events()
    }
    assert set(events) == {"raw_capture", *TICKS, "features_500ms"}
    levels = {name: entry.value for name, entry in events["book_levels"].metadata.items()}
    assert levels["dagster/row_count"] > 0
    assert levels["gaps"] == 1
    assert {"bytes", "seconds", "peak_memory_mb", "time span", "folder", "manifest", "skipped"} <= set(levels)
    checks = {
        (check.asset_key.to_user_string(), check.check_name): check.passed
        for check in run.get_asset_check_evaluations()
    }
    assert checks[("book_levels", "sequence_gaps")] is False
    assert checks[("book_levels", "crossed_book")] is True
    assert checks[("quotes", "book_ticker_agreement")] is True
    assert checks[("trades", "non_empty")] is True


def test_a_second_run_is_skipped_with_the_same_data_versions(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(20))
    versions = []
    for expected in (False, True):
        run = _materialize(settings, instance, path)
        events = [event.materialization for event in run.get_asset_materialization_events()]
        assert {bool(event.metadata["skipped"].value) for event in events} == {expected}
        versions.append({str(event.asset_key): event.tags["dagster/data_version"] for event in events})
    assert versions[0] == versions[1]


def test_the_instance_of_a_home_carries_the_projects_configuration(settings: Settings) -> None:
    folder = inprocess.instance_folder(settings)
    assert "free_slots_after_run_end_seconds: 60" in (folder / "dagster.yaml").read_text()
    with dg.DagsterInstance.from_config(str(folder)) as made:
        assert made.run_coordinator is not None


def test_in_process_runs_reach_the_instance_that_the_ui_shows(settings: Settings, tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(20))
    done = inprocess.materialize(settings, BTC, [TODAY], [], [path])
    assert {step.asset for step in done} == {"raw_capture", *TICKS, "features_500ms"}
    with dg.DagsterInstance.from_config(str(inprocess.instance_folder(settings))) as instance:
        runs = instance.get_runs()
        assert [run.run_id for run in runs] == [done[0].run_id]
        assert runs[0].tags["synth/instrument"] == str(BTC)
        assert instance.get_dynamic_partitions("instrument") == [str(BTC)]


def test_an_error_of_a_verb_comes_out_as_it_is(settings: Settings, tmp_path: Path) -> None:
    from synth_pipeline.errors import InputError

    with pytest.raises(InputError, match="check the path"):
        inprocess.materialize(settings, BTC, [TODAY], [], [tmp_path / "absent.gz"])


def test_manifest_metadata_is_json(settings: Settings, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = _materialize(settings, instance, wire.write_capture(tmp_path / "capture.gz", wire.market(20)))
    for event in run.get_asset_materialization_events():
        json.dumps(event.materialization.metadata["manifest"].value)
