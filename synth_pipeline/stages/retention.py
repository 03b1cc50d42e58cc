"""The verb `gc`: remove partitions that are old, but none that something which stays was made from.

A report keeps its dataset, its checkpoint, their features, ticks and raw bytes alive: as long as it stands, it can be
rebuilt. So what goes is old and read by nothing, or only by what goes with it.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from synth_pipeline import storage
from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.lineage import manifests
from synth_pipeline.lineage.manifests import STAGES, Manifest
from synth_pipeline.stages.upkeep import partitions, ref_of
from synth_pipeline.stages.workspace import Workspace
from synth_pipeline.storage import Place


@dataclass(frozen=True)
class Expired:
    """A partition that goes, or would."""

    ref: str
    bytes: int
    created_at: str


@dataclass(frozen=True)
class Kept:
    """An old partition that stays, and why."""

    ref: str
    reason: str


@dataclass(frozen=True)
class Swept:
    """What `gc` did, or would do."""

    expired: tuple[Expired, ...]
    """Downstream first, the order in which they go."""
    kept: tuple[Kept, ...]


def gc(
    workspace: Workspace,
    what: str | None = None,
    *,
    days: float,
    now: datetime,
    stages: Collection[str] = STAGES,
    dry_run: bool = False,
) -> Swept:
    """Remove the partitions of some stages that were made more than `days` days before `now`.

    Never one that a partition which stays names as an input. `what` restricts as it does for `verify`. Raises
    `NoDataError` when nothing is named, `UnknownNameError` for a stage that there is not, `InputError` for a negative
    age, and `SynthError` while any manifest of the store cannot be read, since nobody knows what it was made from.
    """
    if not 0 <= days <= 36_525:
        raise InputError(f"an age of {days:g} days is none: give 0 to 36525, a century")
    for stage in stages:
        if stage not in STAGES:
            raise UnknownNameError("stage", stage, STAGES)
    named = {ref_of(workspace, folder) for folder in partitions(workspace, what)}
    made = [manifest for folder in partitions(workspace) if (manifest := manifests.load(folder)) is not None]
    readable = {manifest.ref: manifest for manifest in made}
    before = (now - timedelta(days=days)).astimezone(UTC)
    old = {
        ref
        for ref, manifest in readable.items()
        if ref in named and manifest.stage in stages and datetime.fromisoformat(manifest.created_at) < before
    }
    going, kept = _closed(old, _readers(made))
    order = sorted(going, key=lambda ref: (-STAGES.index(readable[ref].stage), ref))
    expired = tuple(Expired(ref, _size(readable[ref]), readable[ref].created_at) for ref in order)
    for number, each in enumerate(() if dry_run else expired):
        workspace.progress(number, len(expired), f"removing {each.ref}")
        _remove(workspace.settings.data / each.ref, readable[each.ref])
    return Swept(expired, tuple(sorted(kept, key=lambda each: each.ref)))


def _readers(made: Iterable[Manifest]) -> dict[str, set[str]]:
    readers: dict[str, set[str]] = defaultdict(set)
    for manifest in made:
        for name in manifest.inputs:
            readers[name].add(manifest.ref)
    return readers


def _closed(old: set[str], readers: dict[str, set[str]]) -> tuple[set[str], list[Kept]]:
    """Leave out of the old ones whatever something that stays was made from, until nothing changes."""
    going, kept = set(old), []
    changed = True
    while changed:
        held = {ref: min(staying) for ref in going if (staying := readers[ref] - going)}
        kept += [Kept(ref, f"{reader} was made from it") for ref, reader in held.items()]
        going -= held.keys()
        changed = bool(held)
    return going, kept


def _size(manifest: Manifest) -> int:
    return sum(artifact.bytes for artifact in manifest.outputs.values())


def _remove(folder: Place, manifest: Manifest) -> None:
    """Take the manifest away first: from then on the partition is not there, whatever a crash leaves of its files."""
    if not isinstance(folder, Path):
        for path in (manifests.NAME, *(artifact.path for artifact in manifest.outputs.values())):
            storage.remove(folder / path)
        return
    (folder / manifests.NAME).unlink(missing_ok=True)
    holds_others = next(folder.rglob(manifests.NAME), None) is not None
    for artifact in manifest.outputs.values():
        (folder / artifact.path).unlink(missing_ok=True)
    if not holds_others:
        shutil.rmtree(folder, ignore_errors=True)
