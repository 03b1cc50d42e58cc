"""A research bundle: one ZIP with everything that a result was made from, to be rebuilt on another machine.

    bundle.json               format, the REF it is of, every partition, and raw files that were left out
    data/<REF>/manifest.json  and the files that the manifest names, laid out as in a home
    README.txt                what to do with it

Entries are sorted and carry no time: the same partitions give the same bytes. What rebuilds it is `stages.reproduce`.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from synth_pipeline import storage
from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.lineage import graph
from synth_pipeline.lineage.manifests import FILE_INPUT, NAME, Manifest
from synth_pipeline.progress import Progress, silent
from synth_pipeline.storage import Place

FORMAT = 1
INDEX = "bundle.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_README = """Research bundle of {ref}

Rebuild it from the raw bytes in a clean home, and compare every digest:

    synth-pipeline reproduce THIS.zip

Made by synth_pipeline {code}. {raw}
Below data/ lie the partitions with their manifests; a report opens in any browser.
"""
_BASE = ("raw", "bars")
"""Stages whose partitions may hold what came from outside."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself."""

    ref: str
    refs: tuple[str, ...]
    """Every partition in it, upstream first."""
    without: tuple[str, ...]
    """Partitions of which it holds the manifest alone."""


def write(home: Place, ref: str, path: Path, *, raw: bool, progress: Progress = silent) -> Bundle:
    """Write the bundle of a partition, with or without the bytes from outside.

    Raises `NoDataError` when the text names nothing, `InputError` where nothing can be written, `SynthError` when
    something upstream is missing or stale: a bundle of it could not be rebuilt.
    """
    node = graph.chain(home, ref)
    if unsound := [found for found in graph.walk(node) if found.problem]:
        raise SynthError(f"{node.ref} cannot be bundled: {unsound[0].ref} is {unsound[0].problem}; make it again first")
    made = manifests_of(node)
    without = () if raw else tuple(each.ref for each in made if is_base(each))
    bundle = Bundle(node.ref, tuple(each.ref for each in made), without)
    entries = sorted(_entries(home, made, bundle))
    with storage.aside(path) as fresh:
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:
            for number, (name, source) in enumerate(entries):
                progress(number, len(entries), name)
                _add(archive, name, source)
        fresh.replace(path)
    return bundle


def manifests_of(node: graph.Node) -> list[Manifest]:
    """Return every partition upstream of a node and itself, upstream first."""
    order: dict[str, Manifest] = {}
    seen: set[str] = set()
    waiting = [(node, False)]
    while waiting:
        node, is_after_its_inputs = waiting.pop()
        if is_after_its_inputs and node.manifest is not None:
            order[node.ref] = node.manifest
        elif node.ref not in seen:
            seen.add(node.ref)
            waiting.append((node, True))
            waiting.extend((child, False) for child in reversed(node.children))
    return list(order.values())


def is_base(manifest: Manifest) -> bool:
    """Tell whether a partition holds what came from outside, and was made from no other partition."""
    return manifest.stage in _BASE and bool(manifest.inputs) and all(map(_is_file, manifest.inputs))


def _is_file(name: str) -> bool:
    return name.startswith(FILE_INPUT)


def _entries(home: Place, made: Sequence[Manifest], bundle: Bundle) -> Iterator[tuple[str, Place | bytes]]:
    told = {"format": FORMAT, "ref": bundle.ref, "refs": bundle.refs, "without": bundle.without}
    yield INDEX, json.dumps(told, indent=2).encode() + b"\n"
    raw = f"It lacks the raw bytes of {', '.join(bundle.without)}: have them in SYNTH_HOME." if bundle.without else ""
    yield "README.txt", _README.format(ref=bundle.ref, code=made[-1].code_version, raw=raw).encode()
    for manifest in made:
        folder = home / manifest.ref
        yield f"data/{manifest.ref}/{NAME}", folder / NAME
        for artifact in manifest.outputs.values() if manifest.ref not in bundle.without else ():
            yield f"data/{manifest.ref}/{artifact.path}", folder / artifact.path


def _add(archive: zipfile.ZipFile, name: str, source: Place | bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    if isinstance(source, bytes):
        archive.writestr(entry, source)
        return
    with storage.opened(source) as file, archive.open(entry, "w", force_zip64=True) as target:
        shutil.copyfileobj(file, target, 1 << 20)


def is_bundle(path: Path) -> bool:
    """Tell whether a file is a bundle, of whatever format."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return INDEX in archive.namelist()


def unpack(path: Path, folder: Path) -> Bundle:
    """Lay a bundle's partitions out below a folder, as in a home, and return what it says of itself.

    Raises `InputError` for a damaged one, one of another format, and one whose entries lead out of the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            told = json.loads(archive.read(INDEX))
            if told.get("format") != FORMAT:
                raise InputError(f"{path} is a bundle of format {told.get('format')}, this version reads {FORMAT}")
            for entry in archive.infolist():
                if entry.filename.startswith("data/"):
                    _extract(archive, entry, folder)
        return Bundle(told["ref"], tuple(told["refs"]), tuple(told["without"]))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch the bundle again") from error


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    inside = PurePosixPath(entry.filename).relative_to("data")
    if inside.is_absolute() or ".." in inside.parts:
        raise InputError(f"entry {entry.filename!r} of the bundle leads out of its folder: do not trust it")
    target = folder.joinpath(*inside.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
