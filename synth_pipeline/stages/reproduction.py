"""The verb `reproduce`: make a result anew from the bytes that came from outside, in a clean home; compare digests.

Partitions are made in the order of their lineage, each by its own verb with the configuration and seed of its manifest.
What came from outside (recordings, files of bars) is copied and rehashed. The first partition that differs ends it:
whatever was made from it would differ too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from synth_pipeline import storage
from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.lineage import bundles, graph, manifests
from synth_pipeline.lineage.manifests import Manifest, Stage
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.stages.history import parse_cell
from synth_pipeline.stages.workspace import Workspace
from synth_pipeline.storage import Place


@dataclass(frozen=True)
class Rebuilt:
    """One partition, as recorded and as made anew."""

    ref: str
    recorded: str
    """Digest of its outputs."""
    rebuilt: str | None
    """None when it could not be made."""
    is_copy: bool
    """It came from outside and was copied and rehashed, not made."""
    why: str = ""
    """Why it differs, as far as manifests tell; empty when it does not."""

    @property
    def is_identical(self) -> bool:
        """Whether every output has the recorded bytes."""
        return self.rebuilt == self.recorded


@dataclass(frozen=True)
class Reproduction:
    """What came of it."""

    ref: str
    stages: tuple[Rebuilt, ...]
    """Upstream first, up to the first that differs."""
    notes: tuple[str, ...] = ()

    @property
    def first_difference(self) -> Rebuilt | None:
        """The partition that ended it, None when all are identical."""
        return next((each for each in self.stages if not each.is_identical), None)

    @property
    def is_identical(self) -> bool:
        """Whether everything has the recorded bytes."""
        return self.first_difference is None


def reproduce(workspace: Workspace, what: str, *, home: Path | None = None) -> Reproduction:
    """Rebuild what a text names, or what a bundle holds, in `home`, by default a temporary one.

    Raises `NoDataError` when it names nothing or bytes from outside are not there, `InputError` for a home that holds
    something already or a damaged bundle, `SynthError` when its lineage is broken.
    """
    with _opened(workspace, what) as (source, ref), _clean(home) as clean:
        node = graph.chain(source, ref)
        made = bundles.manifests_of(node)
        if node.stage == "promotions":
            judged = next(name for name in made[-1].inputs if name.startswith("reports/"))
            raise InputError(f"{node.ref} is a decision on what a registry held that night: reproduce {judged} instead")
        done: list[Rebuilt] = []
        for number, manifest in enumerate(made):
            workspace.progress(number, len(made), manifest.ref)
            if bundles.is_base(manifest):
                done.append(_copied(manifest, [source, workspace.settings.data], clean))
            else:
                done.append(_rebuilt(workspace, manifest, clean))
            if not done[-1].is_identical:
                break
        return Reproduction(node.ref, tuple(done), tuple(_notes(node)))


@contextmanager
def _opened(workspace: Workspace, what: str) -> Iterator[tuple[Place, str]]:
    """Give where the recorded partitions lie, and what is to be rebuilt there."""
    path = Path(what).expanduser()
    if not bundles.is_bundle(path):
        yield workspace.settings.data, what
        return
    with tempfile.TemporaryDirectory(prefix="synth-bundle-") as folder:
        bundle = bundles.unpack(path, Path(folder))
        yield Path(folder), bundle.ref


@contextmanager
def _clean(home: Path | None) -> Iterator[Path]:
    if home is None:
        with tempfile.TemporaryDirectory(prefix="synth-reproduce-") as folder:
            yield Path(folder)
        return
    if home.exists() and any(home.iterdir()):
        raise InputError(f"{home} is not empty: a clean home is one that holds nothing yet, name another")
    home.mkdir(parents=True, exist_ok=True)
    yield home


def _notes(node: graph.Node) -> Iterator[str]:
    for found in graph.walk(node):
        if found.problem and found.stage != "file":
            yield f"{found.ref} is {found.problem}"


# --- one partition


def _copied(manifest: Manifest, sources: list[Place], home: Path) -> Rebuilt:
    """Copy a partition from the first place that has its files as recorded, and rehash it there.

    Raises `NoDataError` where none has them at all.
    """
    altered: Rebuilt | None = None
    for source in sources:
        found = source / manifest.ref
        if None in storage.sizes(found, [artifact.path for artifact in manifest.outputs.values()]):
            continue
        copied = _copy(manifest, found, home / manifest.ref)
        if copied.is_identical:
            return copied
        altered = altered or copied
    if altered is not None:
        return altered
    files = ", ".join(f"{path} (sha256 {artifact.sha256[:12]}…)" for path, artifact in manifest.outputs.items())
    raise NoDataError(
        f"the bytes of {manifest.ref} are not here ({files}): "
        "set SYNTH_HOME to a home that has them, or bundle with --raw"
    )


def _copy(manifest: Manifest, found: Place, folder: Path) -> Rebuilt:
    for artifact in manifest.outputs.values():
        target = folder / artifact.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.opened(found / artifact.path) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
    (folder / manifests.NAME).write_bytes(manifests.encode(manifest))
    wrong = manifests.verify(folder)
    state = None if wrong else manifest.digest
    return Rebuilt(manifest.ref, manifest.digest, state, is_copy=True, why=str(wrong[0]) if wrong else "")


def _rebuilt(workspace: Workspace, manifest: Manifest, home: Path) -> Rebuilt:
    """Make a partition anew by its own verb."""
    settings = workspace.settings.model_copy(
        update={"home": home, "data_url": "", "tracking": False} | _settings_of(manifest)
    )
    try:
        made = _VERBS[manifest.stage](Workspace(settings, progress=workspace.progress), manifest)
    except SynthError as error:
        return Rebuilt(manifest.ref, manifest.digest, None, is_copy=False, why=f"it cannot be made anew: {error}")
    same = made.digest == manifest.digest
    return Rebuilt(manifest.ref, manifest.digest, made.digest, is_copy=False, why="" if same else _why(manifest, made))


def _settings_of(manifest: Manifest) -> dict[str, Any]:
    names = ("step_ms", "lookback_days", "train_fraction", "devices", "mixed_precision")
    found = {name: manifest.config[name] for name in names if name in manifest.config}
    return found if manifest.seed is None else found | {"seed": manifest.seed}


def _why(recorded: Manifest, made: Manifest) -> str:
    """Say what two manifests of one partition differ in, the likeliest cause first."""
    outputs = [name for name in recorded.outputs if recorded.outputs[name].sha256 != _sha256(made, name)]
    differ = f"{', '.join(outputs) or 'outputs'} differ"
    if recorded.code_version != made.code_version:
        commit = recorded.environment.get("commit")
        way = f"check out commit {commit[:12]} to have that code" if commit else "install that version"
        return f"{differ}: made by code {recorded.code_version}, this is {made.code_version}; {way}"
    for name, was, now in (
        ("inputs", recorded.inputs, made.inputs),
        ("configuration", recorded.config, made.config),
        ("seed", {"seed": recorded.seed}, {"seed": made.seed}),
    ):
        if changed := [key for key in {**was, **now} if was.get(key) != now.get(key)]:
            return f"{differ}: {name} {', '.join(sorted(changed))} not as recorded"
    was, now = recorded.environment, made.environment
    versions = [f"{name} {was.get(name)} then, {now.get(name)} now" for name in was if was[name] != now.get(name)]
    cause = "; ".join(versions) or "and so is the environment: something in it is not deterministic"
    return f"{differ} though inputs, code, configuration and seed are the same; {cause}"


def _sha256(manifest: Manifest, name: str) -> str | None:
    artifact = manifest.outputs.get(name)
    return None if artifact is None else artifact.sha256


# --- verbs by stage, with what the manifest says


def _cell(manifest: Manifest) -> tuple[Instrument, str, str]:
    instrument, cell, *more = manifest.key.split("/")
    return Instrument.parse(instrument), cell, "/".join(more)


def _raw(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.stages.raw import record

    instrument, day, _ = _cell(manifest)
    return record(workspace, instrument, parse_day(day), seconds=manifest.config["seconds"])


def _bars(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.bars.timeframe import Timeframe
    from synth_pipeline.stages.bars import resample_bars

    instrument, timeframe, _ = _cell(manifest)
    finer = next(iter(manifest.inputs)).rpartition("/")[2]
    return resample_bars(workspace, instrument, Timeframe.parse(finer), Timeframe.parse(timeframe))


def _ticks(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.stages.simulate import Simulation, simulate
    from synth_pipeline.stages.ticks import ingest

    instrument, day, _ = _cell(manifest)
    if "flow" not in manifest.config:
        return ingest(workspace, instrument, parse_day(day))
    names = ("flow", "start_s", "seconds", "capture")
    config = manifest.config
    what = Simulation(
        **{name: config[name] for name in names},
        scenarios=tuple(config["scenarios"]),
        fundamental=_path_of(config["fundamental"]),
    )
    price = config["start_price"]
    goes_on = any(name.startswith("ticks/") for name in manifest.inputs)
    start = None if price is None else Decimal(price)
    return simulate(workspace, instrument, parse_day(day), what, start_price=start, fresh=not goes_on)


def _path_of(text: str | None) -> Any:
    from synth_pipeline.stages.paths import PathRef

    if text is None:
        return None
    named, _, asset = text.partition(":")
    named, _, number = named.partition("#")
    return PathRef.parse(named, path=int(number or 0), asset=asset)


def _features(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.stages.features import featurize

    instrument, day, _ = _cell(manifest)
    return featurize(workspace, instrument, parse_day(day))


def _checkpoints(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.stages.calibrate import calibrate
    from synth_pipeline.stages.models import fit

    instrument, cell, name = _cell(manifest)
    config = manifest.config
    if "flow" in config:
        return calibrate(
            workspace, instrument, parse_day(cell), config["flow"], config["parameters"], days=config["days"]
        )
    start_from = config.get("start_from", "none")
    return fit(workspace, instrument, parse_cell(cell), name, config["parameters"], start_from=start_from)


def _synthetic(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.stages.models import Scenario, sample

    instrument, cell, name = _cell(manifest)
    config = manifest.config
    scenario = Scenario(config["regime"], tuple(config["shocks"]), config["min_fidelity"])
    sizes = {"paths": config["paths"], "steps": config["steps"]}
    return sample(workspace, instrument, parse_cell(cell), name.partition("@")[0], **sizes, scenario=scenario)


def _reports(workspace: Workspace, manifest: Manifest) -> Manifest:
    from synth_pipeline.stages.book_reports import BOOK, compare_books
    from synth_pipeline.stages.leaderboard import AGAINST, LEADERBOARD, compare_datasets, leaderboard
    from synth_pipeline.stages.models import evaluate

    instrument, cell, name = _cell(manifest)
    if name.startswith(BOOK):
        real, _, day = name.removeprefix(BOOK).partition("@")
        days = Instrument.parse(real), parse_day(day), instrument, parse_day(cell)
        return compare_books(workspace, *days, **manifest.config)
    if name == LEADERBOARD:
        return leaderboard(workspace, instrument, parse_cell(cell), waiting=manifest.config["waiting"])
    first, against, second = name.partition(AGAINST)
    if against:
        return compare_datasets(workspace, instrument, parse_cell(cell), first, second)
    return evaluate(workspace, instrument, parse_cell(cell), name)


_VERBS: Mapping[Stage, Callable[[Workspace, Manifest], Manifest]] = {
    "raw": _raw,
    "bars": _bars,
    "ticks": _ticks,
    "features": _features,
    "checkpoints": _checkpoints,
    "synthetic": _synthetic,
    "reports": _reports,
}


def bundle(workspace: Workspace, what: str, path: Path, *, raw: bool = False) -> bundles.Bundle:
    """Write what a text names and everything upstream of it into one ZIP that `reproduce` takes on another machine.

    Raises as `bundles.write` does.
    """
    return bundles.write(workspace.settings.data, what, path, raw=raw, progress=workspace.progress)
