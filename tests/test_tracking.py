"""The tracker against a real sqlite store, read back with MLflow's own client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from synth_pipeline.errors import InputError
from synth_pipeline.lineage import tracking
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Artifact, Manifest
from synth_pipeline.lineage.runs import NullTracker, Tracker, key, numbers, texts
from synth_pipeline.lineage.tracking import MlflowTracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

ROOT = Path(__file__).parents[1]
NAME = "binance_usdm.BTCUSDT.wgan_gp"
DAGSTER = {"dagster/run_id": "d" * 36, "dagster/asset_key": "checkpoint", "dagster/partition": "2024-08-08"}


def draft(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "stage": "checkpoints",
        "key": "binance_usdm.BTCUSDT/2024-08-08/wgan_gp",
        "inputs": {"features/binance_usdm/BTCUSDT/2024-08-08": "a" * 64, "file:capture.gz": "b" * 64},
        "code_version": "0.1.0+abc",
        "config": {"epochs": 3, "net": {"hidden": [32, 16]}, "regime": None},
        "seed": 7,
    }
    return Manifest(**values | changes)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store with its schema, made once: the tests copy the file."""
    home = tmp_path_factory.mktemp("migrated")
    tracking._connect(f"sqlite:///{home}/mlflow.db", home)
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a store; afterwards the working folder, which is another one, must still be empty."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    shutil.copy(migrated, home / "mlflow.db")
    monkeypatch.chdir(work)
    yield home
    assert list(work.iterdir()) == []


def uri(home: Path) -> str:
    return f"sqlite:///{home}/mlflow.db"


@pytest.fixture
def tracker(home: Path) -> MlflowTracker:
    return MlflowTracker(uri(home), home, mlflow_url="http://mlflow:5000/", dagster_url="http://dagster:3000/")


@pytest.fixture
def client(home: Path) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri(home), registry_uri=uri(home))


def fit(home: Path, weights: str, manifest: Manifest) -> Manifest:
    folder = home / manifest.ref
    with staging(folder) as tmp:
        (tmp / "checkpoint").mkdir()
        (tmp / "checkpoint" / "weights.pt").write_text(weights)
        return commit(
            folder, manifest, {"checkpoint": tmp / "checkpoint"}, facts={"seconds": 2.5, "gaps": {"trades": 1}}
        )


def _datasets(run: Run) -> list[DatasetInput]:
    assert run.inputs is not None
    return list(run.inputs.dataset_inputs)


class TestRun:
    def test_everything_a_materialization_leaves(
        self, home: Path, tracker: MlflowTracker, client: MlflowClient
    ) -> None:
        with tracker.run(draft(), DAGSTER) as run:
            made = fit(home, "w", replace(draft(), mlflow_run_id=run.run_id))
            run.log_metrics({"loss": 0.5, "curve": [1, 2], "ok": True}, step=1)
            run.log_metrics({"loss": 0.25}, step=2)
            run.log_artifact(made.file(home / made.ref, "checkpoint"))
            run.record(made)
        stored = client.get_run(run.run_id)

        assert stored.info.status == "FINISHED"
        assert stored.info.run_name == "binance_usdm.BTCUSDT/2024-08-08/wgan_gp"
        tags = stored.data.tags
        assert tags["synth/ref"] == "checkpoints/binance_usdm/BTCUSDT/2024-08-08/wgan_gp"
        assert tags["synth/stage"] == "checkpoints"
        assert tags["synth/digest"] == made.digest
        assert tags["synth/fingerprint"] == draft().fingerprint == made.fingerprint
        assert tags["synth/code_version"] == "0.1.0+abc"
        assert {name: tags[f"synth/input/{name}"] for name in draft().inputs} == draft().inputs
        assert {name: tags[name] for name in DAGSTER} == DAGSTER
        assert "http://dagster:3000/runs/" + "d" * 36 in tags["mlflow.note.content"]
        assert stored.data.params == {"epochs": "3", "net.hidden": "[32, 16]", "regime": "null", "seed": "7"}
        assert stored.data.metrics == {"loss": 0.25, "seconds": 2.5, "gaps.trades": 1.0}
        assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "loss")] == [
            (1, 0.5),
            (2, 0.25),
        ]

        places = {found.dataset.name: found for found in _datasets(stored)}
        assert places.keys() == draft().inputs.keys()
        features = places["features/binance_usdm/BTCUSDT/2024-08-08"]
        assert features.dataset.digest == "a" * 36
        assert json.loads(features.dataset.source) == {"uri": str(home / "features/binance_usdm/BTCUSDT/2024-08-08")}
        assert [(tag.key, tag.value) for tag in features.tags] == [("mlflow.data.context", "training")]

        assert stored.info.artifact_uri.startswith((home / "mlflow-artifacts" / "checkpoints").as_uri())
        artifacts = Path(stored.info.artifact_uri.removeprefix("file://"))
        assert (artifacts / "manifest.json").read_bytes() == (home / made.ref / "manifest.json").read_bytes()
        (copied,) = artifacts.glob("checkpoint-*/weights.pt")
        assert copied.read_text() == "w"
        assert tracker.url(run.run_id) == f"http://mlflow:5000/#/runs/{run.run_id}"

    def test_curves_are_told_in_a_few_calls(
        self, tracker: MlflowTracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []
        with tracker.run(draft(), {}) as run:
            batch = run._client.log_batch
            monkeypatch.setattr(run._client, "log_batch", lambda *a, **k: (calls.append(1), batch(*a, **k))[1])
            run.log_curves({"generator_loss": [(n, n / 7) for n in range(1, 1_501)], "held_out_loss": [(40, 0.5)]})
        assert len(calls) == 2
        points = client.get_metric_history(run.run_id, "generator_loss")
        assert [(point.step, point.value) for point in points] == [(n, n / 7) for n in range(1, 1_501)]
        assert client.get_run(run.run_id).data.metrics["held_out_loss"] == 0.5

    def test_one_experiment_a_stage(self, home: Path, tracker: MlflowTracker, client: MlflowClient) -> None:
        for stage in ("ticks", "features", "ticks"):
            with tracker.run(draft(stage=stage, inputs={}, config={}, seed=None), {}):
                pass
        found = {entry.name: entry for entry in client.search_experiments() if entry.name.startswith("synth/")}
        assert found.keys() == {"synth/ticks", "synth/features"}
        assert found["synth/ticks"].artifact_location == (home / "mlflow-artifacts" / "ticks").as_uri()
        assert len(client.search_runs([found["synth/ticks"].experiment_id])) == 2

    def test_an_experiment_deleted_in_the_ui_comes_back(self, tracker: MlflowTracker, client: MlflowClient) -> None:
        with tracker.run(draft(), {}) as first:
            pass
        client.delete_experiment(client.get_run(first.run_id).info.experiment_id)
        with tracker.run(draft(), {}) as second:
            pass
        assert client.get_experiment(client.get_run(second.run_id).info.experiment_id).lifecycle_stage == "active"

    @pytest.mark.parametrize("error", [ValueError("no\nnumbers"), KeyboardInterrupt()])
    def test_a_failing_body_leaves_the_run_failed(
        self, tracker: MlflowTracker, client: MlflowClient, error: BaseException
    ) -> None:
        opened = []

        def body() -> None:
            with tracker.run(draft(), {}) as run:
                opened.append(run.run_id)
                raise error

        with pytest.raises(type(error)) as raised:
            body()
        assert raised.value is error
        stored = client.get_run(opened[0])
        assert stored.info.status == "FAILED"
        assert stored.info.end_time is not None
        assert stored.data.tags["synth/error"].startswith(type(error).__name__)
        assert "synth/digest" not in stored.data.tags

    def test_a_parameter_that_changes_fails_the_run_in_one_line(
        self, tracker: MlflowTracker, client: MlflowClient
    ) -> None:
        with tracker.run(draft(), {}) as run:
            run.log_params({"epochs": 3, "more": "text"})
            with pytest.raises(InputError, match=r"MLflow store .* does not work: .*Changing param values") as raised:
                run.log_params({"epochs": 4})
        assert "\n" not in str(raised.value)
        assert client.get_run(run.run_id).data.params["more"] == "text"

    def test_many_inputs_strange_names_and_long_values(self, tracker: MlflowTracker, client: MlflowClient) -> None:
        inputs = {f"file:capture (copy {n})@{n}.jsonl.gz": f"{n:064x}" for n in range(150)}
        inputs |= {"file:../a//b": "c" * 64, "file:" + "ü" * 300: "d" * 64}
        config = {f"p{n}": n for n in range(150)} | {"long": "x" * 9000}
        with tracker.run(draft(inputs=inputs, config=config), {"odd key?": "v" * 9000}) as run:
            pass
        stored = client.get_run(run.run_id)
        recorded = {value for name, value in stored.data.tags.items() if name.startswith("synth/input/")}
        assert recorded == set(inputs.values())
        assert len(_datasets(stored)) == 152
        assert stored.data.params["p149"] == "149"
        assert stored.data.params["long"] == "x" * 6000
        assert stored.data.tags["odd key_"] == "v" * 6000

    def test_rows_are_metrics_by_table(self, tracker: MlflowTracker, client: MlflowClient) -> None:
        outputs = {"trades": Artifact("t", "0" * 64, 1, 12), "log": Artifact("l", "1" * 64, 1)}
        with tracker.run(draft(stage="ticks"), {}) as run:
            run.record(
                draft(stage="ticks", outputs=outputs, facts={"clock": "ok", "rate": 1e-3, "rows": {"trades": 12}})
            )
        assert client.get_run(run.run_id).data.metrics == {"rows.trades": 12.0, "rate": 1e-3}
        with tracker.run(draft(stage="reports"), {}) as run:
            run.record(draft(stage="reports", facts={"rows": 3}))
        assert client.get_run(run.run_id).data.metrics == {"rows": 3.0}


class TestRegistry:
    def test_versions_aliases_and_the_way_back(
        self, home: Path, tracker: MlflowTracker, client: MlflowClient, tmp_path: Path
    ) -> None:
        from mlflow.artifacts import download_artifacts

        runs = []
        for turn in (1, 2):
            with tracker.run(draft(seed=turn), {}) as run:
                made = fit(home, f"w{turn}", draft(seed=turn))
                version = run.register(made.file(home / made.ref, "checkpoint"), NAME, params={"hidden": turn})
                assert version == str(turn)
                runs.append(run.run_id)
        aliases = client.get_registered_model(NAME).aliases
        assert {alias: str(version) for alias, version in aliases.items()} == {"champion": "1", "challenger": "2"}
        for alias, turn in (("champion", 1), ("challenger", 2)):
            found = client.get_model_version_by_alias(NAME, alias)
            assert found.run_id == runs[turn - 1]
            place = download_artifacts(found.source, dst_path=str(tmp_path / alias), tracking_uri=uri(home))
            assert (Path(place) / "weights.pt").read_text() == f"w{turn}"
        (model,) = client.search_logged_models(
            [client.get_run(runs[1]).info.experiment_id], filter_string=f"source_run_id = '{runs[1]}'"
        )
        assert model.params == {"hidden": "2"}
        assert model.model_type == "generator"
        assert model.status == "READY"
        assert client.get_run(runs[1]).data.tags["synth/model"] == f"models:/{NAME}/2"


class TestStore:
    @pytest.mark.parametrize(
        ("place", "reason"),
        [
            ("http://127.0.0.1:9", "Connection refused"),
            ("sqlite:////dev/null/sub/mlflow.db", "Not a directory"),
            ("sqlite:///{tmp}", "unable to open database file"),
            ("sqlite:///{tmp}/text.db", "file is not a database"),
            ("postgresql+nodriver://desk:secret@db/x", "nodriver"),
            ("gopher://x", "gopher"),
        ],
    )
    def test_a_store_out_of_reach_is_one_line_with_its_uri_and_a_remedy(
        self, tmp_path: Path, place: str, reason: str
    ) -> None:
        (tmp_path / "text.db").write_text("not a database, but long enough to look at: " * 100)
        where = place.format(tmp=tmp_path)
        with pytest.raises(InputError) as raised:
            MlflowTracker(where, tmp_path).run(draft(), {}).__enter__()
        message = str(raised.value)
        assert "\n" not in message
        assert reason in message
        assert where.replace(":secret@", ":***@") in message
        assert "secret" not in message
        assert "SYNTH_TRACKING=false" in message

    def test_a_store_lost_on_the_way_does_not_hide_the_error_that_matters(
        self, home: Path, tracker: MlflowTracker
    ) -> None:
        def body() -> None:
            with tracker.run(draft(), {}):
                (home / "mlflow.db").write_bytes(b"gone " * 1000)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as raised:
            body()
        (note,) = raised.value.__notes__
        assert "stays open: MLflow store" in note

    def test_a_half_made_schema_of_a_dead_process_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / ".mlflow.db.new").write_bytes(b"half a schema")
        with MlflowTracker(uri(tmp_path), tmp_path).run(draft(), {}) as run:
            pass
        assert run.run_id
        assert not (tmp_path / ".mlflow.db.new").exists()

    def test_processes_that_meet_a_fresh_store_together(self, tmp_path: Path) -> None:
        """Two at once, warnings as errors: each gets its run, nothing is printed, the working folder stays empty."""
        work = tmp_path / "work"
        work.mkdir()
        script = (
            "import sys; from pathlib import Path\n"
            "from synth_pipeline.lineage.manifests import Manifest\n"
            "from synth_pipeline.lineage.tracking import MlflowTracker\n"
            "home = Path(sys.argv[1])\n"
            "draft = Manifest(stage='ticks', key='v.S/1', inputs={}, code_version='1', config={})\n"
            "with MlflowTracker(f'sqlite:///{home}/mlflow.db', home).run(draft, {}) as run:\n"
            "    run.log_metrics({'x': 1})\n"
            "    (home / 'model').mkdir(exist_ok=True)\n"
            "    (home / 'model' / 'w').write_text('w')\n"
            "    run.register(home / 'model', 'v.S.g')\n"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        writers = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
                cwd=work,
                env=environment | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        assert [(writer.communicate(), writer.returncode) for writer in writers] == [(("", ""), 0)] * 2
        assert list(work.iterdir()) == []

        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri(tmp_path), registry_uri=uri(tmp_path))
        experiment = client.get_experiment_by_name("synth/ticks")
        assert experiment is not None
        assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"] * 2
        assert set(client.get_registered_model("v.S.g").aliases) == {"champion", "challenger"}


class TestLight:
    def test_the_module_and_the_null_tracker_load_no_mlflow(self) -> None:
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from synth_pipeline.lineage.manifests import Manifest\n"
            "from synth_pipeline.lineage.runs import NullTracker\n"
            "from synth_pipeline.lineage.tracking import MlflowTracker\n"
            "tracker = MlflowTracker('sqlite:////tmp/absent/mlflow.db', Path('/tmp/absent'))\n"
            "assert tracker.url('x') is None\n"
            "draft = Manifest(stage='ticks', key='v.S/1', inputs={}, code_version='1', config={})\n"
            "with NullTracker().run(draft, {}) as run:\n"
            "    run.record(draft)\n"
            "    assert run.run_id is None and run.register(Path('x'), 'v.S.g') is None\n"
            "heavy = {'mlflow', 'sqlalchemy', 'pandas', 'torch', 'requests'} & sys.modules.keys()\n"
            "assert not heavy, heavy\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True)

    def test_both_trackers_are_trackers(self, tmp_path: Path) -> None:
        trackers: list[Tracker] = [NullTracker(), MlflowTracker("sqlite://", tmp_path)]
        assert [tracker.url("x") for tracker in trackers] == [None, None]
        with trackers[0].run(draft(), {}) as run:
            run.log_params({"a": 1})
            run.log_metrics({"a": 1})
            run.log_curves({"a": [(1, 1.0)]})
            run.log_artifact(tmp_path)
            run.log_dataset("a", "b", tmp_path, "c")
        assert list(tmp_path.iterdir()) == []

    def test_values_become_the_texts_and_numbers_that_mlflow_takes(self) -> None:
        values = {"a": {"b": 1, "c": {"d": "x"}}, "e": [1], "f": None, "g": True, "h": 2.5}
        assert texts(values) == {"a.b": "1", "a.c.d": "x", "e": "[1]", "f": "null", "g": "true", "h": "2.5"}
        assert numbers(values) == {"a.b": 1.0, "h": 2.5}
        assert key("synth/input/file:../a//b(1)") == "synth/input/file:../a/b_1_"
