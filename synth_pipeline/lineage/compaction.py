"""What lies in a store and is named by no manifest: files of earlier versions, and what dead processes left behind.

Nothing is removed that was written or moved within the grace, nor beside a manifest that young: a writer may be about
to name it, and a reader of the version before may still open it. A staging folder goes when nobody has written to it
for that long and the process that it names is not one of this machine: a fit writes nothing for hours.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synth_pipeline import storage
from synth_pipeline.lineage.commit import STAGING
from synth_pipeline.lineage.manifests import NAME, Manifest, load
from synth_pipeline.storage import Place

if TYPE_CHECKING:
    from upath import UPath

_STAGING = re.compile(re.escape(STAGING) + r"(?P<name>.+)-(?P<process>\d+)-[^-]+")
"""The folder that `commit.staging` makes beside the one named."""
TRAINING = ".training-"
"""How the name of a training run's state begins, which lies beside the partition until that is committed."""
_STATE = re.compile(re.escape(TRAINING) + r"(?P<name>.+)-[0-9a-f]{12}.*")


class Leftover(NamedTuple):
    """A file, a local folder, or an object that nothing names."""

    place: Place
    bytes: int
    changed_ns: int


def unnamed(folder: Place, latest_ns: int) -> list[Leftover]:
    """Return what lies in a partition's folder without being named, unchanged since `latest_ns`, its manifest too."""
    manifest = load(folder)
    if manifest is None or storage.changed_ns(folder / NAME) > latest_ns:
        return []
    lying = _files(folder, manifest) if isinstance(folder, Path) else _objects(folder, manifest)
    return [leftover for leftover in lying if leftover.changed_ns <= latest_ns]


def staged(top: Path, latest_ns: int) -> Iterator[tuple[Path, Leftover]]:
    """Yield what lies beside partitions below a folder and is unchanged since `latest_ns`: staging folders of dead
    processes, and states of training runs. First what they were to become, relative to that folder."""
    for folder, inner, files in os.walk(top):
        dead = [match for name in sorted(inner) if (match := _STAGING.fullmatch(name)) and not _runs(int(match[2]))]
        states = [match for name in sorted(files) if (match := _STATE.fullmatch(name))]
        inner[:] = [name for name in inner if not name.startswith(".")]
        for match in (*dead, *states):
            path = Path(folder, match[0])
            if (leftover := _leftover(path)).changed_ns <= latest_ns:
                yield path.with_name(match["name"]).relative_to(top), leftover


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def orphaned(folder: Place, manifest: Manifest, hot: Path) -> list[Leftover]:
    """Return hot tables of a day whose Parquet file no manifest names any more."""
    named = {Path(artifact.path).stem for artifact in manifest.outputs.values()}
    lies = (path for path in sorted(hot.glob("*.hot")) if path.stem not in named)
    # A local file of an earlier version keeps its hot table until it goes itself.
    return [_leftover(path) for path in lies if not storage.size(folder / path.with_suffix(".parquet").name)]


def remove(leftover: Leftover) -> None:
    """Remove it; that it is gone already is no error."""
    if not isinstance(leftover.place, Path):
        storage.remove(leftover.place)
    elif leftover.place.is_dir():
        shutil.rmtree(leftover.place, ignore_errors=True)
    else:
        leftover.place.unlink(missing_ok=True)


def _files(folder: Path, manifest: Manifest) -> Iterator[Leftover]:
    named = {Path(artifact.path).parts[0] for artifact in manifest.outputs.values()} | {NAME}
    for path in sorted(folder.iterdir()):
        holds_partitions = path.is_dir() and next(path.rglob(NAME), None) is not None
        if path.name not in named and not holds_partitions:
            yield _leftover(path)


def _leftover(path: Path) -> Leftover:
    found = [each.stat() for each in (path, *path.rglob("*"))]
    size = sum(each.st_size for each in found if not stat.S_ISDIR(each.st_mode))
    return Leftover(path, size, max(each.st_ctime_ns for each in found))


def _objects(folder: UPath, manifest: Manifest) -> Iterator[Leftover]:
    named = {artifact.path for artifact in manifest.outputs.values()} | {NAME}
    lying = storage.entries(folder)
    others = tuple(path.removesuffix(NAME) for path in lying if path.endswith(f"/{NAME}"))
    for path, (size, changed_ns) in lying.items():
        if path not in named and not path.startswith(others):
            yield Leftover(folder / path, size, changed_ns)
