"""MLflow: with `registry.py` the only importer of mlflow, and only when the first run is opened.

One experiment a stage, one run a materialization, checkpoints in the model registry. What a manifest says as tags,
parameters and metrics is decided in `runs.py`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import synth_pipeline
from synth_pipeline.errors import InputError
from synth_pipeline.lineage import registry
from synth_pipeline.lineage.manifests import FILE_INPUT, NAME, Manifest, encode
from synth_pipeline.lineage.runs import Champion, Curves, key, numbers, run_tags, texts
from synth_pipeline.storage import Place

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 100  # MLflow takes at most this many parameters or tags a call
_POINTS = 1000  # and this many metrics
_DIGEST = 36  # and stores this many characters of a dataset's digest
_CONTEXT = {"checkpoints": "training", "reports": "evaluation"}
_SERVED = ("http://", "https://")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_EXISTS = "RESOURCE_ALREADY_EXISTS"


class MlflowTracker:
    """Keeps runs in an MLflow store: sqlite in the home folder, another database, or a server."""

    def __init__(
        self,
        uri: str,
        home: Path,
        *,
        data: Place | None = None,
        artifacts: str = "",
        mlflow_url: str = "",
        dagster_url: str = "",
    ) -> None:
        self.uri = uri
        self.home = home
        self.artifacts = artifacts or (home / "mlflow-artifacts").as_uri()
        self.data = data or home
        self.mlflow_url = mlflow_url.rstrip("/")
        self.dagster_url = dagster_url.rstrip("/")

    @contextmanager
    def run(self, draft: Manifest, tags: Mapping[str, str]) -> Iterator[MlflowRun]:
        """Open a run tagged with the draft's digests and inputs and with `tags`, its configuration as parameters.

        Raises `InputError` when the store cannot be reached. A failing body leaves the run FAILED, its error as a tag.
        """
        run = self.open(draft, tags)
        try:
            yield run
        except BaseException as error:
            run.fail(error)
            raise
        run.finish()

    def open(self, draft: Manifest, tags: Mapping[str, str], started_ms: int | None = None) -> MlflowRun:
        """Open a run as `run` does, for the caller to end. Raises `InputError` when the store cannot be reached."""
        client = self._client
        with _store_errors(self.uri):
            experiment_id = self._experiment(draft.stage)
            note = {"mlflow.note.content": self._note(draft, tags)}
            all_tags = run_tags(draft) | _commit() | texts(tags) | note
            made = client.create_run(experiment_id, started_ms, tags=all_tags, run_name=draft.key)
        run = MlflowRun(client, self.uri, made.info.run_id, experiment_id)
        try:
            run.log_params(draft.config | ({} if draft.seed is None else {"seed": draft.seed}))
            run.log_datasets(self._inputs(draft), _CONTEXT.get(draft.stage, draft.stage))
        except BaseException as error:
            run.fail(error)
            raise
        return run

    def opened(self, run_id: str) -> MlflowRun:
        """Return a run that was opened before. Raises `InputError` as `open` does."""
        client = self._client
        with _store_errors(self.uri):
            return MlflowRun(client, self.uri, run_id, client.get_run(run_id).info.experiment_id)

    def answers(self) -> bool:
        """Whether the store is there at all; one that is a file of this machine always is."""
        try:
            if self.uri.startswith(_SERVED):
                _knock(self.uri)
        except OSError:
            return False
        return True

    def url(self, run_id: str) -> str | None:
        """Return the run's page in the MLflow UI; None when no UI is configured."""
        return f"{self.mlflow_url}/#/runs/{run_id}" if self.mlflow_url else None

    def champion(self, model: str) -> Champion | None:
        """Return the version of a model that has the alias `champion`. Raises `InputError` as `run` does."""
        client = self._client
        with _store_errors(self.uri):
            return registry.champion(client, model)

    def judge(self, model: str, run_id: str, verdict: Mapping[str, Any], *, promoted: bool) -> None:
        """Tag the version that a run registered; promoted, it becomes `champion`. Raises `InputError` as `run` does."""
        client = self._client
        with _store_errors(self.uri):
            registry.judge(client, model, run_id, texts(verdict), promoted=promoted)

    @cached_property
    def _client(self) -> MlflowClient:
        return _connect(self.uri, self.home)

    def _inputs(self, draft: Manifest) -> list[tuple[str, str, Place]]:
        """Return name, digest and place of the draft's inputs."""
        places = {name: Path(name.removeprefix(FILE_INPUT)) for name in draft.inputs if name.startswith(FILE_INPUT)}
        return [(name, digest, places.get(name, self.data / name)) for name, digest in draft.inputs.items()]

    def _experiment(self, stage: str) -> str:
        """Return the id of a stage's experiment, made on first use; one deleted in the UI comes back."""
        from mlflow.exceptions import MlflowException

        name = f"synth/{stage}"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # A server keeps artifacts where it likes; any other store must be told, or it would make ./mlruns.
            place = None if self.uri.startswith(_SERVED) else f"{self.artifacts}/{stage}"
            try:
                return self._client.create_experiment(name, artifact_location=place)
            except MlflowException as error:
                if error.error_code != _EXISTS:
                    raise
                return self._experiment(stage)  # another process was first
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _note(self, draft: Manifest, tags: Mapping[str, str]) -> str:
        """Return the run's description, in Markdown: the partition's folder and the way back to Dagster."""
        lines = [f"`{draft.ref}` in `{self.data}`"]
        if self.dagster_url and "dagster/run_id" in tags:
            lines.append(f"[Dagster run]({self.dagster_url}/runs/{tags['dagster/run_id']})")
        return "\n\n".join(lines)


class MlflowRun:
    """One open run of an MLflow store. Every method raises `InputError` when the store fails."""

    def __init__(self, client: MlflowClient, uri: str, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._uri = uri
        self._experiment_id = experiment_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters; MLflow refuses to change one that it has."""
        from mlflow.entities import Param

        entries = [Param(name, value) for name, value in texts(params).items()]
        with _store_errors(self._uri):
            for start in range(0, len(entries), _BATCH):
                self._client.log_batch(self.run_id, params=entries[start : start + _BATCH])

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Record the numbers among the metrics."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        entries = [Metric(name, value, now, step) for name, value in numbers(metrics).items()]
        with _store_errors(self._uri):
            for start in range(0, len(entries), _POINTS):
                self._client.log_batch(self.run_id, metrics=entries[start : start + _POINTS])

    def log_curves(self, curves: Curves) -> None:
        """Record values over steps, a thousand a call; MLflow takes no more."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        points = [Metric(key(name), value, now, step) for name, curve in curves.items() for step, value in curve]
        with _store_errors(self._uri):
            for start in range(0, len(points), _POINTS):
                self._client.log_batch(self.run_id, metrics=points[start : start + _POINTS])

    def log_artifact(self, path: Path) -> None:
        """Copy a file into the run's artifacts, or a folder under its own name."""
        with _store_errors(self._uri):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self._client.log_artifact(self.run_id, str(path))

    def log_dataset(self, ref: str, digest: str, path: Path, context: str) -> None:
        """Record a dataset as an input of the run; MLflow stores the first 36 digits of its digest."""
        self.log_datasets([(ref, digest, path)], context)

    def log_datasets(self, datasets: list[tuple[str, str, Place]], context: str) -> None:
        """Record several datasets (name, digest, place) in one transaction."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", context)]
        entries = [
            DatasetInput(Dataset(name, digest[:_DIGEST], "local", json.dumps({"uri": str(path)})), tags)
            for name, digest, path in datasets
        ]
        with _store_errors(self._uri):
            self._client.log_inputs(self.run_id, datasets=entries)

    def record(self, manifest: Manifest) -> None:
        """Record the committed manifest: its digest as a tag, rows and facts as metrics, itself as an artifact."""
        counts = {name: artifact.rows for name, artifact in manifest.outputs.items() if artifact.rows is not None}
        self.log_metrics(manifest.facts | ({"rows": counts} if counts else {}))
        with _store_errors(self._uri):
            self._client.set_tag(self.run_id, "synth/digest", manifest.digest)
            self._client.log_text(self.run_id, encode(manifest).decode(), NAME)

    def register(
        self, folder: Path, name: str, *, alias: str = "challenger", params: Mapping[str, Any] | None = None
    ) -> str:
        """Register a checkpoint folder as the next version of the model `name`, under the alias."""
        with _store_errors(self._uri):
            model = self._client.create_logged_model(
                self._experiment_id,
                name=name.rpartition(".")[2],  # a logged model's name may hold no dot
                source_run_id=self.run_id,
                tags={"mlflow.model.isExternal": "true"},
                params=texts(params or {}),
                model_type="generator",
            )
            self._client.log_model_artifacts(model.model_id, str(folder))
            self._client.finalize_logged_model(model.model_id, "READY")
            version = self._new_version(name, model.model_id, model.artifact_location, alias)
            link = [{"name": name, "version": version}]
            self._client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(link)})
            self._client.set_tag(self.run_id, "synth/model", f"models:/{name}/{version}")
        return version

    def is_registered(self, name: str) -> bool:
        """Whether this run has registered a version of a model."""
        with _store_errors(self._uri):
            return registry.version_of(self._client, name, self.run_id) is not None

    def _new_version(self, name: str, model_id: str, location: str, alias: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != _EXISTS:
                raise
        # The location, not models:/ID: a database store would look the id up in the process-wide default store.
        made = self._client.create_model_version(
            name, source=location, run_id=self.run_id, model_id=model_id, await_creation_for=0
        )
        version = str(made.version)
        self._client.set_registered_model_alias(name, alias, version)
        if "champion" not in self._client.get_registered_model(name).aliases:
            self._client.set_registered_model_alias(name, "champion", version)
        return version

    def finish(self, ended_ms: int | None = None) -> None:
        """End the run as FINISHED."""
        with _store_errors(self._uri):
            self._client.set_terminated(self.run_id, "FINISHED", ended_ms)

    def fail(self, error: BaseException) -> None:
        """End the run as FAILED; when the store fails too, say so beside the error that matters."""
        try:
            with _store_errors(self._uri):
                self._client.set_tag(self.run_id, "synth/error", f"{type(error).__name__}: {error}"[:1000])
                self._client.set_terminated(self.run_id, "FAILED")
        except InputError as lost:
            error.add_note(f"The MLflow run {self.run_id} stays open: {lost}")


def _connect(uri: str, home: Path) -> MlflowClient:
    """Return a client of a store that answers, its schema in place. Raises `InputError` when there is none."""
    # mlflow reports its use over the network and prints links on stdout, both by default; neither is wanted here.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Its own seven tries would hold a run up for minutes when a server goes away; what fails is queued (`outbox.py`).
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Its log of the schema's creation is noise, its log of database errors repeats what we raise.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        # mlflow 3.17 on SQLAlchemy 2.1
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
        from mlflow import MlflowClient

        with _store_errors(uri), _first_use(uri, home):
            _knock(uri)
            return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _knock(uri: str) -> None:
    """Raise `OSError` or `SQLAlchemyError` when nobody answers; mlflow itself would retry for minutes first."""
    if uri.startswith(_SERVED):
        try:
            urlopen(f"{uri.rstrip('/')}/health", timeout=5).close()
        except HTTPError as error:  # it answers, if only to ask who we are
            error.close()
    elif uri.startswith(_DATABASES):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


@contextmanager
def _first_use(uri: str, home: Path) -> Iterator[None]:
    """Hold the lock of a database store: no process meets, or leaves, half a schema. One of sqlite is made aside."""
    from sqlalchemy.engine import make_url

    if uri.startswith("postgresql"):
        with _server_lock(uri):
            yield
        return
    database = make_url(uri).database if uri.startswith("sqlite:") else None
    if not database:
        yield
        return
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            fresh = path.with_name(f".{path.name}.new")
            fresh.unlink(missing_ok=True)
            _make_schema(fresh, home / "mlflow-artifacts")
            fresh.replace(path)
        yield


@contextmanager
def _server_lock(uri: str) -> Iterator[None]:
    """Hold a lock of a PostgreSQL database, which its server gives back when the connection ends, however it ends."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('synth-pipeline'))"))
            yield
    finally:
        engine.dispose()


def _make_schema(path: Path, artifacts: Path) -> None:
    """Make an empty sqlite store, durable only when done: its hundred migrations would each wait for the disk.

    It keeps a write-ahead log, as Dagster's do: a transaction waits for the disk once instead of three times.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    try:
        engine = SqlAlchemyStore(f"sqlite:///{path}", artifacts.as_uri()).engine  # type: ignore[no-untyped-call]
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        engine.dispose()
    finally:
        event.remove(Engine, "connect", hurry)
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn whatever the store raises into one line for the user, without the password that a URI may hold."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError) as error:  # the last: no database driver
        reason = str(error).strip().partition("\n")[0]
        shown = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)
        raise InputError(
            f"MLflow store {shown} does not work: {reason}; repair it, or set SYNTH_MLFLOW_TRACKING_URI to another "
            "or SYNTH_TRACKING=false to go without"
        ) from error


@cache
def _commit() -> dict[str, str]:
    """Return the git commit of the package's own checkout as a tag; nothing when it is an installed copy."""
    root = Path(synth_pipeline.__file__).parents[1]
    if not (root / ".git").exists():
        return {}
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return {}
    return {"git.commit": asked.stdout.strip()} if asked.returncode == 0 else {}
