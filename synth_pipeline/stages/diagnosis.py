"""The verb `doctor`: is this machine, this home and this store fit for work, and what to do where they are not.

It looks and changes nothing. A finding is fine, worth knowing, or in the way; the latter two name their remedy.
"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.request import urlopen

from synth_pipeline.errors import SynthError
from synth_pipeline.lineage import compaction, manifests, references
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.settings import Settings
from synth_pipeline.stages.upkeep import GRACE_S, left_behind

State = Literal["fine", "note", "wrong"]
_LEAST_FREE, _FEW_FREE = 1e9, 20e9
"""Bytes below which nothing can be made, and below which a few days of a busy symbol fill the disk."""
_LEAST_MEMORY = 4e9
_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do."""

    name: str
    state: State
    told: str
    remedy: str = ""


def doctor(settings: Settings) -> list[Finding]:
    """Look at everything; a fault in one look is a finding of its own and does not end the others."""
    looks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        "python": _python,
        "libraries": _libraries,
        "machine": _machine,
        "gpu": _gpu,
        "home": _home,
        "store": _store,
        "leftovers": _leftovers,
        "mlflow": _mlflow,
        "dagster": _dagster,
    }
    return [finding for name, look in looks.items() for finding in _safely(name, look, settings)]


def _safely(name: str, look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    try:
        return list(look(settings))
    except (SynthError, OSError) as error:
        return [Finding(name, "wrong", str(error), "mend what it names, and ask again")]


def _python(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - every look has this shape
    yield Finding("python", "fine", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _libraries(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires("synth-pipeline") or ()]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    unfit = []
    for each in needed:
        try:
            found = version(each.name)
        except PackageNotFoundError:
            unfit.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(found, prereleases=True):
            unfit.append(f"{each.name} {found} is not {each.specifier}")
    if unfit:
        yield Finding("libraries", "wrong", "; ".join(unfit), "install the package again: pip install -e . --upgrade")
    else:
        yield Finding("libraries", "fine", f"{len(needed)} as required, torch {version('torch')}")


def _machine(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    import psutil

    memory, cores = psutil.virtual_memory(), os.cpu_count() or 1
    told = f"{cores} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory free"
    if memory.available < _LEAST_MEMORY:
        yield Finding("machine", "note", told, "close other programs: a fit takes up to 4 GB")
    else:
        yield Finding("machine", "fine", told)


def _gpu(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    from synth_pipeline.generators.neural import gpu_names

    yield Finding("gpu", "fine", ", ".join(gpu_names()) or "none: everything runs on the CPU")


def _home(settings: Settings) -> Iterator[Finding]:
    home = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    if not os.access(home, os.W_OK):
        yield Finding("home", "wrong", f"{settings.home} cannot be written to", "make it writable or set SYNTH_HOME")
        return
    free = shutil.disk_usage(home).free
    told = f"{settings.home}, {free / 1e9:.1f} GB free"
    if free < _FEW_FREE:
        state: State = "wrong" if free < _LEAST_FREE else "note"
        yield Finding("home", state, told, "make room: synth-pipeline gc --dry-run, synth-pipeline compact --dry-run")
    else:
        yield Finding("home", "fine", told)


def _store(settings: Settings) -> Iterator[Finding]:
    count, problems = 0, []
    for folder in references.manifests(settings.data):
        count += 1
        try:
            manifest = manifests.load(folder)
        except SynthError as error:
            problems.append(str(error))
            continue
        problems += (
            [f"{path} is missing or cut short" for path in manifests.damaged(folder, manifest)] if manifest else []
        )
    told = f"{count} partitions in {settings.data}"
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        yield Finding(
            "store", "wrong", f"{told}: {problems[0]}{more}", "synth-pipeline verify names all; make them again"
        )
    else:
        yield Finding("store", "fine", told)


def _leftovers(settings: Settings) -> Iterator[Finding]:
    lying = left_behind(settings, time.time_ns() - int(GRACE_S * NS_PER_SECOND))
    if not lying:
        yield Finding("leftovers", "fine", "none")
        return
    places = [leftover.place for _, leftover in lying]
    states = sum(place.name.startswith(compaction.TRAINING) for place in places)
    told = f"{len(places) - states} staging folders and {states} training runs of dead processes, such as {places[0]}"
    yield Finding("leftovers", "note", told, "synth-pipeline compact removes them; a fit asked for again goes on")


def _mlflow(settings: Settings) -> Iterator[Finding]:
    address = settings.tracking_uri
    if not settings.tracking:
        yield Finding("mlflow", "note", "tracking is off", "unset SYNTH_TRACKING to have a run for everything made")
    elif address.startswith("sqlite:///"):
        yield from _database("mlflow", Path(address.removeprefix("sqlite:///")))
    elif address.startswith("http"):
        try:
            urlopen(f"{address.rstrip('/')}/health", timeout=_PATIENCE_S).close()
            yield Finding("mlflow", "fine", f"{address} answers")
        except (URLError, TimeoutError, ValueError) as error:
            yield Finding("mlflow", "wrong", f"{address} does not answer: {error}", "start it, or mend the address")
    else:
        yield Finding("mlflow", "fine", address)


def _dagster(settings: Settings) -> Iterator[Finding]:
    folder = settings.home / "dagster"
    if not folder.exists():
        yield Finding("dagster", "fine", "no instance yet: `run`, `demo` and `up` make one")
        return
    for path in sorted(folder.rglob("*.db")):
        yield from _database(f"dagster {path.stem}", path)


def _database(name: str, path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(name, "fine", f"{path} is not there yet")
        return
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_PATIENCE_S) as database:
            (state,) = database.execute("pragma quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        yield Finding(name, "note", f"{path}: {error}", "another process holds it: ask again, or stop that one")
        return
    except sqlite3.DatabaseError as error:
        state = str(error)
    if state == "ok":
        yield Finding(name, "fine", f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    else:
        yield Finding(name, "wrong", f"{path} is damaged: {state}", "move it away: what is stored is not touched by it")
