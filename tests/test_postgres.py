"""Dagster and MLflow in PostgreSQL: the configuration that the documentation shows, two runs at once on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from synth_pipeline.lineage import tracking
from synth_pipeline.orchestration import backfill as backfills
from synth_pipeline.orchestration.assets import FEATURES
from synth_pipeline.orchestration.inprocess import instance_folder, opened_instance
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import made_days, postgres_server

pytest.importorskip("dagster_postgres", reason="the extra [postgres] is not installed")
PAGE = Path(__file__).parents[1] / "docs" / "postgresql.md"
BTC, ETH = made_days.instrument(), made_days.instrument("ETHUSDT")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with postgres_server.served("dagster", "mlflow") as urls, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_POSTGRES_URL", urls["dagster"])
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        made = Settings(home=tmp_path_factory.mktemp("home"), mlflow_tracking_uri=urls["mlflow"])
        (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        config = instance_folder(made) / "dagster.yaml"
        config.write_text(config.read_text() + block)
        yield made


def test_the_page_gives_addresses_with_the_driver_that_dagster_needs() -> None:
    # SQLAlchemy 2.1 takes another driver, psycopg 3, for a bare postgresql://
    assert set(re.findall(r"postgresql(?:\+\w+)?://", PAGE.read_text())) == {"postgresql+psycopg2://"}


@pytest.mark.slow
def test_two_runs_at_once_are_kept_whole_in_both_databases(settings: Settings) -> None:
    """Both databases are empty, and both runs find them so."""
    made_days.record(settings, range(2), ["BTCUSDT", "ETHUSDT"])
    plan = backfills.plan(settings, [BTC, ETH], made_days.day(0), made_days.day(1))
    found = backfills.run_here(settings, plan, workers=2)
    assert (len(found.made), found.failed) == (4, {})
    with opened_instance(settings, []) as instance:
        storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
        assert [type(each).__module__.partition(".")[0] for each in storages] == ["dagster_postgres"] * 3
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        assert len(instance.get_materialized_partitions(FEATURES)) == 4
        assert instance.get_concurrency_config().run_queue_config is not None
        state = instance.schedule_storage
        assert state is not None
        assert state.all_instigator_state() == []
    assert not list(settings.home.glob("**/*.db"))
    client = tracking._connect(settings.tracking_uri, settings.home)
    made = Workspace(settings).require("features", "featurize", ETH, made_days.day(1))
    run = client.get_run(made.mlflow_run_id or "")
    assert (run.info.status, run.data.tags["synth/digest"]) == ("FINISHED", made.digest)
    names = [each.name for each in client.search_experiments() if each.name.startswith("synth/")]
    assert sorted(names) == ["synth/features", "synth/ticks"]
