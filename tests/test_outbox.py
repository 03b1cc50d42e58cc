"""A tracker whose server goes away: the run goes on, nothing is lost, and the server hears of it when it is back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synth_pipeline import stages
from synth_pipeline.errors import InputError
from synth_pipeline.lineage import tracking
from synth_pipeline.lineage.manifests import Manifest, load
from synth_pipeline.lineage.outbox import FOLDER, QueuedTracker
from synth_pipeline.lineage.tracking import MlflowRun, MlflowTracker
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.workspace import Built, materialize
from tests import made_days

if TYPE_CHECKING:
    from mlflow import MlflowClient

DOWN = "http://127.0.0.1:9"
NAME = "binance_usdm.BTCUSDT.garch"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield tmp_path_factory.mktemp("home")


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return tracking._connect(f"sqlite:///{home}/mlflow.db", home)


def _back(home: Path) -> QueuedTracker:
    return QueuedTracker(MlflowTracker(f"sqlite:///{home}/mlflow.db", home), home / FOLDER)


def _fit(workspace: Workspace, generator: str = "garch") -> Manifest:
    key = f"{made_days.instrument()}/{made_days.day(0)}/{generator}"
    draft = Manifest(
        stage="checkpoints", key=key, inputs={"features/x": "a" * 64}, code_version="1", config={"parameters": {"p": 1}}
    )

    def build(place: Path) -> Built:
        (place / "checkpoint").mkdir()
        (place / "checkpoint" / "weights").write_text(generator)
        (place / "page.html").write_text("page")
        files = {"checkpoint": place / "checkpoint", "page": place / "page.html"}
        curves = {"curve": [(1, 0.5), (2, 0.25)]}
        return Built(files, {"loss": 0.5}, model=f"binance_usdm.BTCUSDT.{generator}", curves=curves, shown=("page",))

    return materialize(workspace, draft, build)


def _waiting(home: Path) -> list[Path]:
    return [path for path in (home / FOLDER).iterdir() if path.is_dir()]


def test_what_a_server_that_is_down_misses_is_told_when_it_is_back(home: Path, client: MlflowClient) -> None:
    from mlflow.artifacts import download_artifacts

    down = Workspace.of(Settings(home=home, mlflow_tracking_uri=DOWN))
    made = _fit(down)
    assert made.mlflow_run_id is None
    assert len(_waiting(home)) == 1
    assert _fit(down).skipped

    assert _back(home).send() == 1
    assert _waiting(home) == []
    stored = load(home / made.ref)
    assert stored is not None
    assert (stored.digest, stored.fingerprint) == (made.digest, made.fingerprint)
    run = client.get_run(stored.mlflow_run_id or "")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"parameters.p": "1"}
    assert run.data.metrics["loss"] == 0.5
    points = client.get_metric_history(run.info.run_id, "curve")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.25)]
    assert run.data.tags["synth/digest"] == made.digest
    assert run.info.end_time - run.info.start_time < 60_000
    version = client.get_model_version_by_alias(NAME, "champion")
    assert version.run_id == stored.mlflow_run_id
    place = download_artifacts(version.source, tracking_uri=f"sqlite:///{home}/mlflow.db")
    assert (Path(place) / "weights").read_text() == "garch"
    assert any(item.path.startswith("page") for item in client.list_artifacts(run.info.run_id))
    assert _back(home).send() == 0


def test_a_server_lost_on_the_way_hears_the_rest_in_the_same_run(
    home: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise InputError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowTracker, "answers", lambda _: False)
        patch.setattr(MlflowRun, "record", lost)
        made = _fit(Workspace(Settings(home=home), _back(home)), "heston")
    assert made.mlflow_run_id is not None
    assert client.get_run(made.mlflow_run_id).info.status == "RUNNING"
    assert _back(home).send() == 1
    run = client.get_run(made.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["synth/digest"] == made.digest
    assert len(client.search_model_versions("name='binance_usdm.BTCUSDT.heston'")) == 1


def test_a_failure_while_the_server_is_down_is_told_too(home: Path, client: MlflowClient) -> None:
    down = Workspace.of(Settings(home=home, mlflow_tracking_uri=DOWN))
    draft = Manifest(stage="features", key="v.S/1", inputs={}, code_version="1", config={})

    def build(_: Path) -> Built:
        raise ZeroDivisionError("no rows")

    with pytest.raises(ZeroDivisionError):
        materialize(down, draft, build)
    assert _back(home).send() == 1
    experiment = client.get_experiment_by_name("synth/features")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert "no rows" in run.data.tags["synth/error"]


def test_the_next_run_sends_what_waits(home: Path, client: MlflowClient) -> None:
    _fit(Workspace.of(Settings(home=home, mlflow_tracking_uri=DOWN)), "merton")
    with _back(home).run(Manifest(stage="ticks", key="v.S/1", inputs={}, code_version="1", config={}), {}):
        pass
    assert _waiting(home) == []


def test_a_letter_that_is_refused_is_set_aside_and_holds_nobody_up(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = home / FOLDER / "1-x"
    place.mkdir(parents=True)
    (place / "run.json").write_text("{")
    assert _back(home).send() == 0
    assert "is refused" in caplog.text
    assert (home / FOLDER / "refused-1-x" / "run.json").exists()


def test_a_store_that_is_there_and_does_not_work_is_still_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database " * 200)
    with pytest.raises(InputError, match="is not a database"):
        _fit(Workspace.of(Settings(home=tmp_path)))


def test_a_day_is_promoted_through_a_real_registry(home: Path, client: MlflowClient) -> None:
    tracker = _back(home)
    made = _fit(Workspace(Settings(home=home), tracker), "rough")
    model = "binance_usdm.BTCUSDT.rough"
    first = tracker.champion(model)
    assert first is not None
    assert (first.digest, first.fidelity, first.version) == (made.digest, None, "1")
    tracker.judge(model, made.mlflow_run_id or "", {"fidelity": 91.5, "reason": "why"}, promoted=True)
    again = tracker.champion(model)
    assert again is not None
    assert again.fidelity == 91.5
    assert client.get_model_version(model, "1").tags["synth/reason"] == "why"
    assert tracker.champion("no.such.model") is None


def test_the_verbs_go_on_without_their_server(settings: Settings) -> None:
    made_days.record(settings, [0])
    workspace = Workspace.of(settings.model_copy(update={"tracking": True, "mlflow_tracking_uri": DOWN}))
    stages.ingest(workspace, made_days.instrument(), made_days.day(0))
    assert stages.featurize(workspace, made_days.instrument(), made_days.day(0)).facts["known_mid"] > 0
    assert len(_waiting(settings.home)) == 2
