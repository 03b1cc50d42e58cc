"""Where verbs work, and the one way in which every verb makes a partition."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from synth_pipeline.errors import NoDataError, SynthError
from synth_pipeline.lineage import commit, copies, manifests, outbox
from synth_pipeline.lineage.digests import code_version
from synth_pipeline.lineage.environment import environment, one_blas_thread
from synth_pipeline.lineage.manifests import Manifest, Stage
from synth_pipeline.lineage.outbox import QueuedTracker
from synth_pipeline.lineage.runs import Curves, NullTracker, Tracker
from synth_pipeline.lineage.tracking import MlflowTracker
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.storage import Place


class StaleError(SynthError):
    """A partition is not current, and the workspace only looks."""


@dataclass(frozen=True)
class Workspace:
    """Where verbs work and whom they tell."""

    settings: Settings
    tracker: Tracker = field(default_factory=NullTracker)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Written on every tracked run: who asked for it (the Dagster run, say)."""
    progress: Progress = silent
    is_night: bool = False
    """Whether this is the work of a night, whose networks may start from an earlier checkpoint."""
    builds: bool = True
    """Whether verbs make what is not current; otherwise they raise `StaleError`."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        tags: Mapping[str, str] | None = None,
        progress: Progress = silent,
        is_night: bool = False,
    ) -> Self:
        """Make one with the tracker that the settings ask for."""
        return cls(settings, _tracker(settings), tags or {}, progress, is_night)

    def folder(self, stage: Stage, instrument: Instrument, cell: object, *more: str) -> Place:
        """The folder of one partition; its cell is a day, or a timeframe of bars."""
        return self.settings.partition(stage, instrument, cell, *more)

    def find(self, stage: Stage, instrument: Instrument, cell: object, *more: str) -> Manifest | None:
        """The manifest of one partition, None when it was never made."""
        return manifests.load(self.folder(stage, instrument, cell, *more))

    def require(self, stage: Stage, verb: str, instrument: Instrument, cell: object, *more: str) -> Manifest:
        """The manifest of one partition. Raises `NoDataError` naming the verb that makes it, or makes it again."""
        manifest = self.find(stage, instrument, cell, *more)
        key = "/".join((str(instrument), str(cell), *more))
        if manifest is None:
            raise NoDataError(f"no {stage} of {key}: {verb} it first")
        if damaged := manifests.damaged(self.folder(stage, instrument, cell, *more), manifest):
            raise NoDataError(f"{damaged[0]}, a file of the {stage} of {key}, is missing or cut short: {verb} it again")
        return manifest

    def beside(self, ref: str) -> Path:
        """The folder of a partition or, where that is remote, one on the file system of the copies of its files.

        Beside it lies what is being made.
        """
        folder = self.settings.data / ref
        return folder if isinstance(folder, Path) else self.settings.copies / "partition"

    def file(self, manifest: Manifest, name: str) -> Path:
        """A file, or folder of files, of a partition on this machine; of a remote one it is a copy, fetched if need be.

        Raises `SynthError` for a name that the manifest lacks and for an object that is missing or damaged.
        """
        return copies.local(self.settings.data / manifest.ref, manifest, name, self.settings.copies)


def _tracker(settings: Settings) -> Tracker:
    if not settings.tracking:
        return NullTracker()
    urls = {"mlflow_url": settings.mlflow_url, "dagster_url": settings.dagster_url}
    urls |= {"artifacts": settings.artifacts}
    tracker = MlflowTracker(settings.tracking_uri, settings.home, data=settings.data, **urls)
    return QueuedTracker(tracker, settings.home / outbox.FOLDER)


@dataclass(frozen=True)
class Built:
    """What a builder leaves in the staging folder."""

    files: Mapping[str, Path]
    facts: Mapping[str, Any]
    rows: Mapping[str, int] = field(default_factory=dict)
    groups: commit.Groups = field(default_factory=dict)
    model: str | None = None
    """Name under which the output `checkpoint` is registered as a model."""
    curves: Curves = field(default_factory=dict)
    """What the tracker is told over steps, such as losses."""
    shown: tuple[str, ...] = ()
    """Outputs that are copied to the tracker, for people who look there."""


def materialize(workspace: Workspace, draft: Manifest, build: Callable[[Path], Built]) -> Manifest:
    """Return the current manifest, or build, commit and track the partition that the draft describes."""
    folder, kept = workspace.settings.data / draft.ref, workspace.settings.copies
    if (current := manifests.is_current(folder, draft.fingerprint)) is not None:
        return current
    if not workspace.builds:
        raise StaleError(f"{draft.ref} is not current")
    started = time.perf_counter()
    with workspace.tracker.run(draft, workspace.tags) as run, commit.staging(workspace.beside(draft.ref)) as place:
        with one_blas_thread():
            built = build(place)
        facts = dict(built.facts) | {
            "seconds": round(time.perf_counter() - started, 3),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "device": _device(),
        }
        draft = replace(
            draft,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            mlflow_run_id=run.run_id,
            dagster_run_id=workspace.tags.get("dagster/run_id"),
            environment=environment(),
        )
        if built.model is not None:
            # Before the commit: a checkpoint that stands but is no model would be skipped for ever after.
            run.register(built.files["checkpoint"], built.model, params=draft.config["parameters"])
        described: dict[str, Any] = {"rows": built.rows, "groups": built.groups, "facts": facts}
        manifest = commit.commit(folder, draft, built.files, **described, copies=kept)
        run.record(manifest)
        if built.curves:
            run.log_curves(built.curves)
        for name in built.shown:
            run.log_artifact(workspace.file(manifest, name))
    return manifest


def _device() -> str:
    """Return the name of the GPU that this process has used, else `cpu`; torch is not loaded for the answer."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "cpu"
    return str(torch.cuda.get_device_name())


def is_current(workspace: Workspace, verb: Callable[[Workspace], Manifest]) -> bool:
    """Whether a verb would find its partition unchanged; one that it would refuse is not current either."""
    try:
        verb(replace(workspace, builds=False))
    except SynthError:
        return False
    return True


def draft_of(
    workspace: Workspace,
    stage: Stage,
    key: str,
    inputs: dict[str, str],
    sources: tuple[str, ...],
    config: dict[str, Any],
    *,
    seeded: bool = False,
) -> Manifest:
    """Return what a partition depends on: its inputs' digests, the code under `sources`, configuration and, if it draws
    random numbers, the seed."""
    seed = workspace.settings.seed if seeded else None
    version = code_version(*sources)
    return Manifest(stage=stage, key=key, inputs=inputs, code_version=version, config=config, seed=seed)
