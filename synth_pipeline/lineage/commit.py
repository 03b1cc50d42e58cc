"""How a partition comes to be: staged aside, named by content, committed by its manifest, which comes last.

In a local folder files are renamed into place, and so is the manifest; in a remote store each is one put. A crash at
any point leaves the old manifest and the files it names as they were. Two writers of one partition both succeed; the
manifest that lands last wins whole. Files of an earlier manifest stay, so a reader that has opened one finds everything
it names; removing them is retention's business, not this file's.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_pipeline import storage
from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.lineage.digests import sha256_file, sha256_json
from synth_pipeline.lineage.manifests import NAME, Artifact, Manifest, encode
from synth_pipeline.storage import Place

if TYPE_CHECKING:
    from upath import UPath

Groups = Mapping[str, dict[str, list[int]]]
"""`Artifact.groups` by output."""

STAGING = ".staging-"
"""How the name of a staging folder begins."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside a folder, on its file system, and remove it afterwards.

    Readers never look into it; one that a dead process left behind harms nobody. Raises `InputError` when the place
    cannot be written to, `SynthError` when the disk fills up while the body writes.
    """
    place = folder.parent / f"{STAGING}{folder.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder.parent}: {error.strerror}; make it writable or set SYNTH_HOME"
        ) from error
    try:
        yield place
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise SynthError(
            f"cannot write {folder}: {error.strerror}; what was there before is untouched, make room and run again"
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def commit(
    folder: Place,
    draft: Manifest,
    staged: Mapping[str, Path],
    *,
    rows: Mapping[str, int] | None = None,
    groups: Groups | None = None,
    facts: Mapping[str, Any] | None = None,
    copies: Path | None = None,
) -> Manifest:
    """Move the staged files (or whole folders) into the partition folder and return the manifest that names them.

    The output `trades` staged as `trades.parquet` becomes `trades-3f2a9c01d2ab.parquet`. A staged folder `checkpoint`
    becomes `checkpoint-…/` with one output a file (`checkpoint/weights.pt`). `rows` counts the rows of output files by
    name, `groups` describes their row groups; `facts` are added to the draft's. What goes to a remote store is moved to
    `copies` (`copies.py`) afterwards, on whose file system it was staged. Raises `InputError` when the store refuses.
    """
    files = [name for name, source in staged.items() if source.is_file()]
    if unknown := set(rows or {}) - set(files):
        raise SynthError(
            f"{draft.ref}: rows given for {', '.join(sorted(unknown))}, but staged files are {', '.join(files)}"
        )
    beside = folder if isinstance(folder, Path) else copies
    outputs: dict[str, Artifact] = {}
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    for name, source in staged.items():
        found = _describe(name, source, (rows or {}).get(name), (groups or {}).get(name))
        if not isinstance(folder, Path):
            _upload(source, folder, found)
        if beside is not None:
            _place(source, beside / Path(next(iter(found.values())).path).parts[0], found)
        outputs |= found
    manifest = replace(draft, outputs=outputs, facts={**draft.facts, **(facts or {})}, skipped=False)
    publish(folder, encode(manifest))
    return manifest


def _describe(name: str, source: Path, rows: int | None, groups: dict[str, list[int]] | None) -> dict[str, Artifact]:
    """Make one staged file or folder durable and return its outputs under their content-bearing paths."""
    stem, dot, suffix = source.name.partition(".")
    if not source.is_dir():
        _sync(source)
        digest = sha256_file(source)
        return {name: Artifact(f"{stem}-{digest[:12]}{dot}{suffix}", digest, source.stat().st_size, rows, groups)}
    inside = sorted(source.rglob("*"))
    for path in (*inside, source):
        _sync(path)
    files = {path.relative_to(source).as_posix(): path for path in inside if path.is_file()}
    if not files:
        raise SynthError(f"output {name} is an empty folder: nothing was written to {source}")
    if any(path.name == NAME for path in files.values()):
        raise SynthError(f"output {name} holds a file called {NAME}: that name is the partition's own, choose another")
    digests = {inner: sha256_file(path) for inner, path in files.items()}
    top = f"{source.name}-{sha256_json(digests)[:12]}"
    return {
        f"{name}/{inner}": Artifact(f"{top}/{inner}", digests[inner], path.stat().st_size)
        for inner, path in files.items()
    }


def _upload(source: Path, folder: UPath, found: Mapping[str, Artifact]) -> None:
    for artifact in found.values():
        # Below a staged folder an artifact's path goes on as the file's; that of a staged file is a name alone.
        storage.upload(source.joinpath(*Path(artifact.path).parts[1:]), folder / artifact.path)


def _place(source: Path, target: Path, found: Mapping[str, Artifact]) -> None:
    """Rename a staged file or folder to its content-bearing name; the same content there already is left in peace."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not all(_holds(target.parent / artifact.path, artifact) for artifact in found.values()):
            target.rename(source.with_name(f"{source.name}.damaged"))
            source.replace(target)
        else:
            os.utime(target)  # named anew: `compaction` must not take it for a leftover


def _holds(path: Path, artifact: Artifact) -> bool:
    return path.is_file() and sha256_file(path) == artifact.sha256


def publish(folder: Place, content: bytes) -> None:
    """Write the manifest, aside and renamed into place or in one put: the commit point."""
    if not isinstance(folder, Path):
        storage.put(folder / NAME, content)
        return
    _sync(folder)
    fresh = folder / f".{NAME}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        fresh.write_bytes(content)
        _sync(fresh)
        fresh.replace(folder / NAME)
    finally:
        fresh.unlink(missing_ok=True)
    _sync(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
