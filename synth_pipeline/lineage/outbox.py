"""What a tracker was to be told while its server was down, kept on disk and told later.

One folder a materialization in `mlflow-outbox` of the home: `run.json`, and copies of the files that belong to the run,
written aside and renamed. The next materialization that finds the server up sends what waits, oldest first, before its
own; a run keeps the times at which it began and ended. Whatever was told already may be told again without harm. A
letter that a server refuses is set aside as `refused-…`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.lineage import commit, manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.lineage.runs import Champion, Curves
from synth_pipeline.lineage.tracking import MlflowRun, MlflowTracker

FOLDER = "mlflow-outbox"
_LETTER = "run.json"
_CHECKPOINT = "checkpoint"
_log = logging.getLogger(__name__)


@dataclass
class Letter:
    """What a run was to be told."""

    draft: Manifest
    tags: dict[str, str]
    started_ms: int
    run_id: str | None = None
    """Of a run that the server knows already."""
    ended_ms: int = 0
    params: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    curves: list[dict[str, list[tuple[int, float]]]] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    datasets: list[tuple[str, str, str, str]] = field(default_factory=list)
    model: tuple[str, str, dict[str, Any]] | None = None
    """Name, alias, parameters."""
    made: Manifest | None = None
    error: str | None = None


class QueuedRun:
    """One run; what its server does not hear is written down."""

    def __init__(self, run: MlflowRun | None, tracker: MlflowTracker, letter: Letter, place: Path) -> None:
        self._run, self._tracker, self._letter, self._place = run, tracker, letter, place
        letter.run_id = run.run_id if run else None

    @property
    def run_id(self) -> str | None:
        """The id of the run; None while the server does not know of it."""
        return self._letter.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, now or later."""
        self._letter.params.append(dict(params))
        self._tell(lambda run: run.log_params(params))

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Record the numbers among the metrics, now or later."""
        self._letter.metrics.append((dict(metrics), step))
        self._tell(lambda run: run.log_metrics(metrics, step))

    def log_curves(self, curves: Curves) -> None:
        """Record values over steps, now or later."""
        self._letter.curves.append({name: list(curve) for name, curve in curves.items()})
        self._tell(lambda run: run.log_curves(curves))

    def log_artifact(self, path: Path) -> None:
        """Copy a file or a folder, now or later."""
        self._letter.artifacts.append(str(path))
        self._tell(lambda run: run.log_artifact(path))

    def log_dataset(self, ref: str, digest: str, path: Path, context: str) -> None:
        """Record a dataset as an input of the run, now or later."""
        self._letter.datasets.append((ref, digest, str(path), context))
        self._tell(lambda run: run.log_dataset(ref, digest, path, context))

    def record(self, manifest: Manifest) -> None:
        """Record the committed manifest, now or later."""
        self._letter.made = manifest
        self._tell(lambda run: run.record(manifest))

    def register(
        self, folder: Path, name: str, *, alias: str = "challenger", params: Mapping[str, Any] | None = None
    ) -> str | None:
        """Register a checkpoint, now or later; None means later."""
        self._letter.model = (name, alias, dict(params or {}))
        version = self._tell(lambda run: run.register(folder, name, alias=alias, params=params))
        if version is None:  # what is staged is gone by then
            shutil.copytree(folder, self._place / _CHECKPOINT)
        return version

    def close(self, error: BaseException | None) -> None:
        """End the run, or post what its server has not heard."""
        self._letter.ended_ms = _now_ms()
        if error is None:
            self._tell(lambda run: run.finish())
        elif self._run is not None:
            self._run.fail(error)
        if self._run is None:
            self._letter.error = None if error is None else f"{type(error).__name__}: {error}"
            _post(self._letter, self._place)

    def _tell(self, tell: Callable[[MlflowRun], str | None]) -> str | None:
        if self._run is None:
            return None
        try:
            return tell(self._run)
        except InputError:
            if self._tracker.answers():
                raise
            self._run = None
            return None


class QueuedTracker:
    """An MLflow tracker whose server may go away for a while: nothing is held up, nothing is lost."""

    def __init__(self, tracker: MlflowTracker, folder: Path) -> None:
        self._tracker, self._folder = tracker, folder

    @contextmanager
    def run(self, draft: Manifest, tags: Mapping[str, str]) -> Iterator[QueuedRun]:
        """Open a run. Raises `InputError` when the store is there and does not work."""
        letter = Letter(draft, dict(tags), _now_ms())
        place = self._folder / f".{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        told = QueuedRun(self._opened(letter), self._tracker, letter, place)
        try:
            yield told
        except BaseException as error:
            told.close(error)
            raise
        else:
            told.close(None)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def url(self, run_id: str) -> str | None:
        """Return the run's page in the MLflow UI; None when no UI is configured."""
        return self._tracker.url(run_id)

    def champion(self, model: str) -> Champion | None:
        """Return the version of a model that has the alias `champion`. Raises `InputError` when nobody answers."""
        return self._tracker.champion(model)

    def judge(self, model: str, run_id: str, verdict: Mapping[str, Any], *, promoted: bool) -> None:
        """Tag a version, and give it the alias. Raises `InputError` when nobody answers."""
        self._tracker.judge(model, run_id, verdict, promoted=promoted)

    def send(self) -> int:
        """Send what waits, unless another process does; return how much. Raises `InputError` when nobody answers."""
        waiting = sorted(path for path in self._folder.glob("[0-9]*") if path.is_dir())
        if not waiting:
            return 0
        with (self._folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            return sum(self._delivered(place) for place in waiting if place.exists())

    def _opened(self, letter: Letter) -> MlflowRun | None:
        try:
            self.send()
            return self._tracker.open(letter.draft, letter.tags)
        except InputError as error:
            if self._tracker.answers():
                raise
            _log.warning("%s; the run goes on, and MLflow is told when it is back", error)
            return None

    def _delivered(self, place: Path) -> bool:
        try:
            self._deliver(place)
        except (SynthError, OSError, msgspec.MsgspecError) as error:
            if not self._tracker.answers():
                raise
            _log.warning("what waits for MLflow in %s is refused: %s", place, error)
            place.rename(place.with_name(f"refused-{place.name}"))
            return False
        shutil.rmtree(place)
        return True

    def _deliver(self, place: Path) -> None:
        letter = msgspec.json.decode((place / _LETTER).read_bytes(), type=Letter)
        if letter.run_id is None:
            letter.run_id = self._tracker.open(letter.draft, letter.tags, letter.started_ms).run_id
            _write(letter, place)
        run = self._tracker.opened(letter.run_id)
        for params in letter.params:
            run.log_params(params)
        for metrics, step in letter.metrics:
            run.log_metrics(metrics, step)
        for curves in letter.curves:
            run.log_curves(curves)
        for ref, digest, path, context in letter.datasets:
            run.log_dataset(ref, digest, Path(path), context)
        if letter.model is not None and (place / _CHECKPOINT).exists():
            name, alias, parameters = letter.model
            if not run.is_registered(name):
                run.register(place / _CHECKPOINT, name, alias=alias, params=parameters)
        if letter.made is not None:
            run.record(replace(letter.made, mlflow_run_id=run.run_id))
            self._adopt(letter.made, run.run_id)
        for each in letter.artifacts:
            run.log_artifact(place / Path(each).name)
        run.finish(letter.ended_ms) if letter.error is None else run.fail(SynthError(letter.error))

    def _adopt(self, made: Manifest, run_id: str) -> None:
        """Tell the stored manifest which run it is, unless it has been made again since."""
        folder = self._tracker.data / made.ref
        stored = manifests.load(folder)
        if stored is not None and (stored.fingerprint, stored.created_at) == (made.fingerprint, made.created_at):
            commit.publish(folder, manifests.encode(replace(stored, mlflow_run_id=run_id)))


def _post(letter: Letter, place: Path) -> None:
    """Write a letter with its files aside, and rename it: from then on it waits."""
    place.mkdir(parents=True, exist_ok=True)
    for each in map(Path, letter.artifacts):
        if each.is_dir():
            shutil.copytree(each, place / each.name, dirs_exist_ok=True)
        elif each.exists():
            shutil.copyfile(each, place / each.name)
    _write(letter, place)
    place.rename(place.with_name(place.name.removeprefix(".")))


def _write(letter: Letter, place: Path) -> None:
    fresh = place / f".{_LETTER}"
    fresh.write_bytes(msgspec.json.encode(letter))
    fresh.replace(place / _LETTER)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
