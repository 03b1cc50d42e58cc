"""Everything on S3: what is made, looked after, rebuilt and removed when no partition lies on this machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from synth_pipeline import stages
from synth_pipeline.cli import main
from synth_pipeline.lineage import graph
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import object_stores
from tests.made_results import DAY, SOURCE, market, of_flow, of_generator
from tests.object_stores import BUCKET
from tests.test_tracking import migrated

s3, migrated_store = object_stores.s3, migrated
GENERATOR = "geometric_brownian_motion"


@pytest.fixture(scope="module")
def made(s3: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Manifest, Manifest]:
    """Reports on a generator and on an order flow."""
    home = tmp_path_factory.mktemp("remote") / "home"
    workspace = Workspace.of(Settings(home=home, data_url=f"{s3}/top", tracking=False))
    market(workspace, basket=False)
    return workspace, of_generator(workspace, GENERATOR), of_flow(workspace, "zero_intelligence")


def test_results_are_rebuilt_from_a_bucket(made: tuple[Workspace, Manifest, Manifest], tmp_path: Path) -> None:
    workspace, report, books = made
    found = stages.reproduce(workspace, books.ref, home=tmp_path / "clean")
    assert found.first_difference is None, found.first_difference
    stages.bundle(workspace, report.ref, tmp_path / "paper.zip", raw=True)
    local = Workspace.of(Settings(home=tmp_path / "local", tracking=False))
    assert stages.reproduce(local, str(tmp_path / "paper.zip")).is_identical
    # No partition came to lie in the home, only copies of what was read.
    assert [path.name for path in workspace.settings.home.iterdir()] == ["cache"]


def test_the_commands_of_upkeep_see_the_bucket(
    made: tuple[Workspace, Manifest, Manifest],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    workspace, report, _ = made
    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setenv("SYNTH_DATA_URL", workspace.settings.data_url)
    monkeypatch.setenv("SYNTH_TRACKING", "false")

    def told(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["synth-pipeline", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        return capsys.readouterr().out

    address = f"{workspace.settings.data_url}/{report.ref}"
    assert json.loads(told("lineage", address, "--write", str(tmp_path / "l.html"), "--json"))["sound"]
    assert "s3://" not in (tmp_path / "l.html").read_text()
    assert "all sound" in told("verify")
    assert f"in {workspace.settings.data_url}" in " ".join(told("doctor").replace("│", " ").split())
    assert json.loads(told("compact", "--json"))["removed"] == []
    assert json.loads(told("leaderboard", str(SOURCE), str(DAY), "--json"))
    assert stages.gc(workspace, days=0, now=datetime.now(UTC), dry_run=True).kept == ()


def test_what_goes_leaves_no_object_behind(s3: str, tmp_path: Path) -> None:
    workspace = Workspace.of(Settings(home=tmp_path / "home", data_url=f"{s3}/going", tracking=False))
    stages.record(workspace, SOURCE, DAY, seconds=5)
    stages.ingest(workspace, SOURCE, DAY)
    objects = boto3.resource("s3").Bucket(BUCKET).objects.filter(Prefix="going/")
    assert len(list(objects)) > 5
    swept = stages.gc(workspace, days=0, now=datetime.now(UTC))
    assert [each.ref.partition("/")[0] for each in swept.expired] == ["ticks", "raw"]
    assert list(objects) == []


def test_runs_keep_their_files_on_s3_too(s3: str, migrated: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(migrated.read_bytes())
    where = {"data_url": f"{s3}/tracked", "mlflow_artifacts": f"{s3}/mlflow"}
    workspace = Workspace.of(Settings(home=home, **where), tags={"dagster/run_id": "d" * 36})
    made = stages.record(workspace, SOURCE, DAY, seconds=5)
    assert made.mlflow_run_id is not None
    client = MlflowClient(tracking_uri=workspace.settings.tracking_uri)
    run = client.get_run(made.mlflow_run_id)
    assert run.info.artifact_uri.startswith(f"{s3}/mlflow/raw/")
    assert [each.path for each in client.list_artifacts(made.mlflow_run_id)] == ["manifest.json"]
    # From the run to the manifest and back.
    assert run.data.tags["synth/digest"] == made.digest
    assert graph.chain(workspace.settings.data, made.mlflow_run_id).ref == made.ref
    assert not (home / "mlflow-artifacts").exists()
