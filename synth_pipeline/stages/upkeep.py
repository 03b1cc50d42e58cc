"""Looking after the store: `verify` what is there, `compact` away what nothing names, list what was set aside."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage import manifests, references
from synth_pipeline.lineage.manifests import Manifest, Stage
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns, parse_day
from synth_pipeline.stages.history import Cell
from synth_pipeline.stages.workspace import Workspace
from synth_pipeline.storage import Place
from synth_pipeline.ticks import parquet, verification

GRACE_S = 3600.0
"""A file that no manifest names is left alone for an hour: a writer may be about to name it, a reader still reading."""
_TABLES = {**schema.TICK_TABLES, "features": schema.GRID, "bars": schema.BARS}


@dataclass(frozen=True)
class Checked:
    """What was looked at in one partition, and what is wrong with it."""

    ref: str
    files: int
    bytes: int
    problems: tuple[str, ...]


def partitions(workspace: Workspace, what: str | None = None) -> list[Place]:
    """Return the folders of all partitions, or of those that a text names: a stage, an instrument, `INSTRUMENT/DAY`, a
    REF or the beginning of one.

    Raises `NoDataError` when there is none.
    """
    data = workspace.settings.data
    found = [folder for folder in references.manifests(data) if _is_named(_ref(workspace, folder), what)]
    if not found:
        raise NoDataError(f"no partition {f'of {what} ' if what else ''}in {data}: make some first, or check the name")
    return found


def _ref(workspace: Workspace, folder: Place) -> str:
    return str(folder).removeprefix(f"{workspace.settings.data}/")


def _is_named(ref: str, what: str | None) -> bool:
    if what is None:
        return True
    parts = tuple(ref.split("/"))
    wanted = tuple(what.strip("/").split("/"))
    keyed = (f"{parts[1]}.{parts[2]}", *parts[3:])
    return any(path[: len(wanted)] == wanted for path in (parts, keyed, (parts[0], *keyed)))


def verify(workspace: Workspace, what: str | None = None) -> list[Checked]:
    """Rehash every file of the partitions that a text names, and check the rules of every table.

    Order, times within their day, sizes and sides that can be, row counts. Raises `NoDataError` when nothing is named.
    """
    found = partitions(workspace, what)
    checked = []
    for number, folder in enumerate(found):
        ref = _ref(workspace, folder)
        workspace.progress(number, len(found), f"verifying {ref}")
        checked.append(_checked(workspace, folder, ref))
    workspace.progress(len(found), len(found), "verified")
    return checked


def _checked(workspace: Workspace, folder: Place, ref: str) -> Checked:
    manifest = manifests.load(folder)
    if manifest is None:
        return Checked(ref, 0, 0, ("its manifest is gone",))
    wrong = {mismatch.name: str(mismatch) for mismatch in manifests.verify(folder)}
    problems = list(wrong.values())
    for name, artifact in manifest.outputs.items():
        if name in _TABLES and name not in wrong:
            span = _span(manifest) if name not in ("gaps", "quarantine") else None
            told = verification.findings(workspace.file(manifest, name), _TABLES[name], span, artifact.rows)
            problems += [f"{manifest.file(folder, name)}: {text}" for text in told]
    return Checked(ref, len(manifest.outputs), sum(each.bytes for each in manifest.outputs.values()), tuple(problems))


def _span(manifest: Manifest) -> tuple[int, int] | None:
    """The day of a partition of ticks or features; labels of features reach to its end, inclusive."""
    if manifest.stage not in ("ticks", "features"):
        return None
    start = day_start_ns(parse_day(manifest.key.split("/")[1]))
    return start, start + NS_PER_DAY + (manifest.stage == "features")


@dataclass
class Compacted:
    """What nothing names any more."""

    files: list[Path] = field(default_factory=list)
    bytes: int = 0


def compact(
    workspace: Workspace, what: str | None = None, *, grace_s: float = GRACE_S, dry_run: bool = False
) -> Compacted:
    """Remove the files of earlier versions, what dead processes left behind, and hot tables whose source is gone.

    What no manifest names is removed once it has lain for `grace_s` seconds, and so has the manifest beside it: readers
    of an earlier version have finished by then. Raises `NoDataError` when nothing is named, `InputError` for a negative
    grace and for data in a remote store.
    """
    if not grace_s >= 0:
        raise InputError(f"a grace of {grace_s:g} s is no time: give 0 or more")
    latest = time.time_ns() - int(grace_s * 1e9)  # file times are wall times
    found = Compacted()
    folders = [folder for folder in partitions(workspace, what) if isinstance(folder, Path)]
    if not folders:
        raise InputError(f"data at {workspace.settings.data} cannot be compacted: only a local folder can")
    for number, folder in enumerate(folders):
        workspace.progress(number, len(folders), "compacting")
        for path in _unnamed(folder, latest):
            _remove(path, found, dry_run=dry_run)
    for path in _abandoned(workspace, folders, latest):
        _remove(path, found, dry_run=dry_run)
    workspace.progress(len(folders), len(folders), "compacted")
    return found


def _unnamed(folder: Path, latest: int) -> Iterator[Path]:
    """Yield what lies in a partition's folder without being named by its manifest."""
    manifest = manifests.load(folder)
    if manifest is None or (folder / manifests.NAME).stat().st_mtime_ns > latest:
        return
    named = {Path(artifact.path).parts[0] for artifact in manifest.outputs.values()} | {manifests.NAME}
    for path in sorted(folder.iterdir()):
        inner = path.is_dir() and any((inside / manifests.NAME).exists() for inside in (path, *path.iterdir()))
        if path.name not in named and not inner and _changed_ns(path) <= latest:
            yield path


def _abandoned(workspace: Workspace, folders: Sequence[Path], latest: int) -> Iterator[Path]:
    """Yield staging folders beside partitions, and hot tables whose Parquet file is no longer there."""
    home = workspace.settings.home
    for place in sorted({folder.parent for folder in folders}):
        yield from (path for path in sorted(place.glob(".staging-*")) if _changed_ns(path) <= latest)
    for folder in folders:
        stage, *inside = _ref(workspace, folder).split("/")
        if stage == "ticks":
            hot = home.joinpath("hot", *inside)
            tables = sorted(hot.glob("*.hot")) if hot.is_dir() else []
            yield from (path for path in tables if not (folder / path.with_suffix(".parquet").name).exists())


def _changed_ns(path: Path) -> int:
    """When a file or folder was last changed or moved."""
    return path.stat().st_ctime_ns


def _remove(path: Path, found: Compacted, *, dry_run: bool) -> None:
    inside = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    found.files.append(path)
    found.bytes += sum(each.stat().st_size for each in inside)
    if dry_run:
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def quarantine(
    workspace: Workspace, instrument: Instrument, cell: Cell, reason: str | None = None
) -> dict[str, np.ndarray]:
    """Return what was refused of a day of ticks, or of bars: the columns of `schema.QUARANTINE`, by time.

    Raises `NoDataError` when there is no such partition, `InputError` for a reason that no row has.
    """
    stage: Stage = "bars" if isinstance(cell, Timeframe) else "ticks"
    manifest = workspace.require(stage, "make", instrument, cell)
    rows = parquet.read_table(workspace.file(manifest, "quarantine"))
    if reason is None:
        return rows
    kept = rows["reason"] == reason
    if not kept.any():
        known = ", ".join(sorted(set(rows["reason"].tolist()))) or "none at all"
        raise InputError(f"nothing of {instrument} {cell} was refused for {reason!r}: the reasons are {known}")
    return {name: column[kept] for name, column in rows.items()}
