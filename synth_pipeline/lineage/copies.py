"""Whole files of a remote store on this machine: fetched once, checked, named by their content.

A copy lies under the same name as in the partition, which carries its digest. It is written aside and renamed, hashed
when it came and again whenever it is asked for; the whole folder may be deleted at any time. Windows of ticks need no
copies (`ticks.rowgroups` reads ranges); verbs, which read files from end to end, do.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from synth_pipeline import storage
from synth_pipeline.errors import SynthError
from synth_pipeline.lineage.digests import sha256_file
from synth_pipeline.lineage.manifests import Artifact, Manifest
from synth_pipeline.storage import Place

if TYPE_CHECKING:
    from upath import UPath


def local(folder: Place, manifest: Manifest, name: str, copies: Path) -> Path:
    """Return the path of an output, or of a folder of outputs: in the partition itself when that is local.

    Raises `SynthError` for a name that the manifest lacks and for an object that is missing or not what was recorded.
    """
    if isinstance(folder, Path):
        return folder / manifest.path(name)
    for inner, artifact in manifest.outputs.items():
        if inner == name or inner.startswith(f"{name}/"):
            _fetch(folder / artifact.path, copies / artifact.path, artifact)
    return copies / manifest.path(name)


def _fetch(source: UPath, target: Path, artifact: Artifact) -> None:
    if target.is_file() and sha256_file(target) == artifact.sha256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        storage.download(source, fresh)
        if (found := sha256_file(fresh)) != artifact.sha256:
            raise SynthError(
                f"{source} has sha256 {found[:12]}, recorded was {artifact.sha256[:12]}: delete the manifest beside it "
                "and make it again"
            )
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
