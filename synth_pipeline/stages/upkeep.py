"""Looking after the store: `verify` what is there, `compact` away what nothing names, list what was set aside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.lineage import compaction, manifests, references
from synth_pipeline.lineage.compaction import Leftover
from synth_pipeline.lineage.manifests import STAGES, Manifest, Stage
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns, parse_day
from synth_pipeline.settings import Settings
from synth_pipeline.stages.history import Cell
from synth_pipeline.stages.workspace import Workspace
from synth_pipeline.storage import Place
from synth_pipeline.ticks import parquet, verification
from synth_pipeline.ticks.rowgroups import described

GRACE_S = 3600.0
"""A file that no manifest names is left alone for an hour: a writer may be about to name it, a reader still reading."""
_LONGEST_GRACE_S = 3.2e9
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
    if not (found := _named(workspace, what)):
        raise _nothing(workspace, what)
    return found


def _named(workspace: Workspace, what: str | None) -> list[Place]:
    found = references.manifests(workspace.settings.data)
    return [folder for folder in found if _is_named(ref_of(workspace, folder), what)]


def _nothing(workspace: Workspace, what: str | None) -> NoDataError:
    of = f"of {what} " if what else ""
    return NoDataError(f"no partition {of}in {workspace.settings.data}: make some first, or check the name")


def ref_of(workspace: Workspace, folder: Place) -> str:
    """Return the REF of a partition's folder."""
    return str(folder).removeprefix(f"{workspace.settings.data}/")


def _is_named(ref: str, what: str | None) -> bool:
    if what is None:
        return True
    parts = tuple(ref.split("/"))
    wanted = tuple(what.strip("/").split("/"))
    keyed = (".".join(parts[1:3]), *parts[3:])
    return any(path[: len(wanted)] == wanted for path in (parts, keyed, (parts[0], *keyed)))


def verify(workspace: Workspace, what: str | None = None) -> list[Checked]:
    """Rehash every file of the partitions that a text names, and check the rules of every table.

    Order, times within their day, sizes and sides that can be, row counts, ranges of row groups. Raises `NoDataError`
    when nothing is named.
    """
    found = partitions(workspace, what)
    checked = []
    for number, folder in enumerate(found):
        ref = ref_of(workspace, folder)
        workspace.progress(number, len(found), f"verifying {ref}")
        checked.append(_checked(workspace, folder, ref))
    workspace.progress(len(found), len(found), "verified")
    return checked


def _checked(workspace: Workspace, folder: Place, ref: str) -> Checked:
    try:
        manifest = manifests.load(folder)
    except SynthError as error:
        return Checked(ref, 0, 0, (str(error),))
    if manifest is None:
        return Checked(ref, 0, 0, ("its manifest is gone",))
    wrong = {mismatch.name: str(mismatch) for mismatch in manifests.verify(folder)}
    problems = list(wrong.values())
    for name, artifact in manifest.outputs.items():
        if name in _TABLES and name not in wrong:
            span = _span(manifest) if name not in ("gaps", "quarantine") else None
            path = workspace.file(manifest, name)
            told = verification.findings(path, _TABLES[name], span, artifact.rows)
            if artifact.groups is not None and not told and described(path) != artifact.groups:
                told = ["its row groups are not those of the manifest"]
            problems += [f"{manifest.file(folder, name)}: {text}" for text in told]
    return Checked(ref, len(manifest.outputs), sum(each.bytes for each in manifest.outputs.values()), tuple(problems))


def _span(manifest: Manifest) -> tuple[int, int] | None:
    """The day of a partition of ticks or features; labels of features reach to its end, inclusive."""
    if manifest.stage not in ("ticks", "features"):
        return None
    start = day_start_ns(parse_day(manifest.key.split("/")[1]))
    return start, start + NS_PER_DAY + (manifest.stage == "features")


def compact(
    workspace: Workspace, what: str | None = None, *, grace_s: float = GRACE_S, dry_run: bool = False
) -> list[Leftover]:
    """Remove the files of earlier versions, what dead processes left behind, and hot tables whose source is gone.

    What no manifest names is removed once it has lain for `grace_s` seconds, and so has the manifest beside it: readers
    of an earlier version have finished by then. Returns what was removed, or would be. Raises `NoDataError` when
    nothing is named, `InputError` for a negative grace, and, when all else is compacted, `SynthError` for a manifest
    that cannot be read: what lies beside it stays.
    """
    if not 0 <= grace_s <= _LONGEST_GRACE_S:
        raise InputError(f"a grace of {grace_s:g} s is no time: give seconds from 0 to {_LONGEST_GRACE_S:g}, a century")
    latest_ns = time.time_ns() - int(grace_s * 1e9)  # file times are wall times
    folders, dead = _named(workspace, what), left_behind(workspace.settings, latest_ns)
    found = [leftover for ref, leftover in dead if _is_named(ref, what)]
    if not folders and not found:
        raise _nothing(workspace, what)
    _removed(found, dry_run=dry_run)
    unreadable: list[SynthError] = []
    for number, folder in enumerate(folders):
        workspace.progress(number, len(folders), f"compacting {ref_of(workspace, folder)}")
        try:
            lying = compaction.unnamed(folder, latest_ns) + _orphaned(workspace, folder)
        except SynthError as error:
            unreadable.append(error)
            continue
        found += _removed(lying, dry_run=dry_run)
    workspace.progress(len(folders), len(folders), "compacted")
    if unreadable:
        others = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        raise SynthError(f"{unreadable[0]}{others}; all other partitions are compacted")
    return found


def left_behind(settings: Settings, latest_ns: int) -> list[tuple[str, Leftover]]:
    """Return the staging folders of dead processes and the training runs that nobody has written to since `latest_ns`,
    each behind the REF of what it was to become: partitions, hot tables, and what goes to a remote store."""
    tops = {settings.home} | ({settings.data} if isinstance(settings.data, Path) else set())
    places = ((top, name) for top in sorted(tops) for name in (*STAGES, "hot", "cache"))
    return [
        (f"{name}/{inside}", leftover)
        for top, name in places
        for inside, leftover in compaction.staged(top / name, latest_ns)
    ]


def _orphaned(workspace: Workspace, folder: Place) -> list[Leftover]:
    stage, *inside = ref_of(workspace, folder).split("/")
    manifest = manifests.load(folder)
    if stage != "ticks" or manifest is None:
        return []
    return compaction.orphaned(folder, manifest, workspace.settings.home.joinpath("hot", *inside))


def _removed(leftovers: list[Leftover], *, dry_run: bool) -> list[Leftover]:
    if not dry_run:
        for leftover in leftovers:
            compaction.remove(leftover)
    return leftovers


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
