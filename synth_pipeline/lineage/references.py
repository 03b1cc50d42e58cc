"""What a person may call a partition: REF, path, MLflow run id or digest, turned into its REF."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from synth_pipeline import storage
from synth_pipeline.errors import NoDataError, SynthError
from synth_pipeline.lineage.digests import sha256_file
from synth_pipeline.lineage.manifests import FILE_INPUT, NAME, STAGES, Manifest, load
from synth_pipeline.storage import Place

if TYPE_CHECKING:
    from upath import UPath

_HEX = re.compile(r"[0-9a-fA-F]{8,64}")
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LISTED = 8


def manifests(home: Place) -> Iterator[Place]:
    """Yield the folder of every committed partition of a home, upstream stages first, sorted; never a staging one.

    A home is here what holds the stages: the home folder, or where data lie instead.
    """
    for stage in STAGES:
        if not isinstance(home, Path):
            yield from ((home / stage / path).parent for path in storage.below(home / stage, NAME))
            continue
        for folder, inner, files in os.walk(home / stage):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if NAME in files:
                yield Path(folder)


def cells(folder: Place) -> list[Place]:
    """Return the folders of committed partitions that lie in a folder, such as the days of an instrument, sorted."""
    if not isinstance(folder, Path):
        return sorted(folder / path.split("/")[0] for path in storage.below(folder, NAME) if path.count("/") == 1)
    return sorted(path.parent for path in folder.glob(f"[!.]*/{NAME}"))


def resolve(home: Place, text: str) -> str:
    """Return the one REF that a text means. Raises as `resolve_all`, and `NoDataError` for several, listing them."""
    found = resolve_all(home, text)
    if len(found) > 1:
        raise _several(text, found)
    return found[0]


def resolve_all(home: Place, text: str) -> list[str]:
    """Return the REFs that a text means: of a Dagster run all results, of any other text one.

    Accepted: a REF (`reports/binance_usdm/BTCUSDT/2024-08-08/wgan_gp`, or with `binance_usdm.BTCUSDT`); a path to a
    partition folder or a file in it; any file whose content is an output or an outside input; an MLflow run id; a
    Dagster run id, which means what no other partition of the run was made from, decisions on champions aside; the
    first 8 or more hex digits of a partition's digest or of a file's SHA-256.
    Raises `NoDataError`, listing what exists, for anything else and for a digest that several partitions share.
    """
    given = Path(text).expanduser()
    if found := _named(home, text, given):
        return [found]
    if _RUN.fullmatch(text) and (made := _made_by(home, text)):
        return made
    wanted = sha256_file(given) if _exists(given) and given.is_file() else text.lower()
    matches = _search(home, wanted) if _HEX.fullmatch(wanted) else []
    if len(matches) == 1:
        return matches
    if matches:
        raise _several(text, matches)
    known = [str(folder).removeprefix(f"{home}/") for folder in manifests(home)]
    if not known:
        raise NoDataError(
            f"{text!r} names nothing: {home} holds no partitions yet, make some with synth-pipeline run or demo"
        )
    raise NoDataError(f"{text!r} names no partition, file, run or digest in {home}: there are {_listing(known)}")


def _several(text: str, refs: list[str]) -> NoDataError:
    return NoDataError(f"{text!r} means several partitions: {_listing(refs)}; give one of these")


def _named(home: Place, text: str, given: Path) -> str | None:
    """Return the REF of the partition that a text names as a REF or as a path."""
    texts = (text, text.replace(".", "/", 1))
    if isinstance(home, Path):
        found = (_partition_of(home, path) for path in (*(home / each for each in texts), given))
    else:
        found = (_remote_partition_of(home, each) for each in (text.removeprefix(f"{home}/"), texts[1]))
    return next((ref for ref in found if ref), None)


def _remote_partition_of(home: UPath, text: str) -> str | None:
    parts = PurePosixPath(text).parts
    if parts and parts[0] in STAGES:
        for count in range(len(parts), 1, -1):
            if storage.size(home.joinpath(*parts[:count], NAME)) is not None:
                return "/".join(parts[:count])
    return None


def _partition_of(home: Path, path: Path) -> str | None:
    """Return the REF of the committed partition that a path is or lies in."""
    path, home = path.resolve(), home.resolve()
    if not _exists(path) or not path.is_relative_to(home):
        return None
    for folder in (path, *path.parents):
        if folder == home:
            break
        if (folder / NAME).is_file():
            return folder.relative_to(home).as_posix()
    return None


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises on a name that is too long to be one


def _search(home: Place, wanted: str) -> list[str]:
    """Return the REFs whose run id or digest begins with `wanted`; a partition's own digest outranks its files'."""
    own, held = [], []
    unreadable: list[str] = []
    for folder in manifests(home):
        try:
            manifest = load(folder)
        except SynthError as error:
            unreadable.append(str(error))
            continue
        if manifest and (manifest.mlflow_run_id == wanted or manifest.digest.startswith(wanted)):
            own.append(manifest.ref)
        elif manifest and any(digest.startswith(wanted) for digest in _file_digests(manifest)):
            held.append(manifest.ref)
    if unreadable and not own and not held:
        raise SynthError(f"{wanted} was not found among the readable manifests, and: {unreadable[0]}")
    return own or held


def _made_by(home: Place, run_id: str) -> list[str]:
    """Return the REFs of what a Dagster run made, but for what it made others of its own from."""
    found = [manifest for folder in manifests(home) if (manifest := _readable(folder))]
    made = [manifest for manifest in found if manifest.dagster_run_id == run_id]
    made = [manifest for manifest in made if manifest.stage != "promotions"] or made
    return [manifest.ref for manifest in made if not any(manifest.ref in other.inputs for other in made)]


def _readable(folder: Place) -> Manifest | None:
    try:
        return load(folder)
    except SynthError:
        return None


def _file_digests(manifest: Manifest) -> list[str]:
    outside = [digest for name, digest in manifest.inputs.items() if name.startswith(FILE_INPUT)]
    return outside + [artifact.sha256 for artifact in manifest.outputs.values()]


def _listing(refs: list[str]) -> str:
    """Name the newest few of some REFs and count the others."""
    shown = ", ".join(refs[-_LISTED:])
    return shown if len(refs) <= _LISTED else f"{shown} and {len(refs) - _LISTED} more"
