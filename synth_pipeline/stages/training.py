"""What surrounds the fit of a network: the state that it goes on from after a kill, the checkpoint that it starts from,
its pictures.

The state lies beside the partition and is no part of it; a checkpoint to start from is an input like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_pipeline.errors import InputError, TrainingError
from synth_pipeline.generators import Generator
from synth_pipeline.lineage import compaction, manifests, references
from synth_pipeline.lineage.digests import sha256_json
from synth_pipeline.lineage.environment import environment
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray
from synth_pipeline.settings import Settings
from synth_pipeline.stages.history import Cell
from synth_pipeline.stages.workspace import Workspace

if TYPE_CHECKING:
    from synth_pipeline.generators.neural import Portrait

COLD = "none"
"""What a fit is told to start from nothing."""
KEPT_EVERY_S = 30.0
_LINES = 24
_FEATURES = 6


def _state_file(workspace: Workspace, draft: Manifest) -> Path:
    """Return the file that the training run of a draft is kept in until its checkpoint is committed.

    Its name holds a digest of what the bytes depend on: so it is never met by another run, nor after an upgrade.
    """
    versions = {name: each for name, each in environment().items() if name != "commit"}
    mark = sha256_json([draft.fingerprint, versions, workspace.settings.accelerator])
    beside = workspace.beside(draft.ref)
    return beside.with_name(f"{compaction.TRAINING}{beside.name}-{mark[:12]}")


def config_of(settings: Settings) -> dict[str, Any]:
    """Return the settings that change what a network learns, those that are not as they come."""
    names = ("devices", "mixed_precision")
    return {name: value for name in names if (value := getattr(settings, name)) != Settings.model_fields[name].default}


@contextmanager
def kept(workspace: Workspace, draft: Manifest) -> Iterator[Path]:
    """Yield the file that the training run of a draft is kept in; it goes when its checkpoint is committed, and when
    training fails: it would fail again."""
    state = _state_file(workspace, draft)
    try:
        yield state
    except TrainingError:
        _forget(state)
        raise
    _forget(state)


def _forget(state: Path) -> None:
    """Remove a state, and what kills left of its writing."""
    for path in state.parent.glob(f"{state.name}*"):
        path.unlink(missing_ok=True)


def start_of(
    workspace: Workspace, draft: Manifest, kind: type[Generator], cell: Cell, wanted: str | None
) -> Manifest | None:
    """Return the checkpoint that the fit of a draft starts from, None for a cold start.

    It is the one that is wanted (a REF, or `none`); else what the standing checkpoint started from; else, at night, the
    last one of the same configuration in the same week. A week begins cold: so what a checkpoint was made from stays a
    few days. Raises `InputError` for a checkpoint of another generator, for the cell's own and for one made from it.
    """
    if wanted not in (None, COLD) and not kind.is_network:
        name = draft.config["generator"]
        raise InputError(f"{name} is no network and starts from no checkpoint: leave out start_from {wanted}")
    if wanted == COLD or not kind.is_network:
        return None
    if wanted is not None:
        return _named(workspace, draft, wanted)
    standing = manifests.load(workspace.settings.data / draft.ref)
    if standing is not None and _is_like(standing, draft):
        before = standing.config.get("start_from")
        return _load(workspace, before) if before else None
    if workspace.is_night and workspace.settings.warm_start and isinstance(cell, date):
        return _last_of_week(workspace, draft, cell)
    return None


def _named(workspace: Workspace, draft: Manifest, wanted: str) -> Manifest:
    found, generator = _load(workspace, references.resolve(workspace.settings.data, wanted)), draft.config["generator"]
    if found is None or found.stage != "checkpoints" or found.config.get("generator") != generator:
        raise InputError(f"{wanted} is no sound checkpoint of {generator}: name the REF of one, or fit that one again")
    earlier: Manifest | None = found
    while earlier is not None:
        if earlier.key == draft.key:
            raise InputError(f"{wanted} is, or started from, the checkpoint of {draft.key} itself: name an earlier one")
        before = earlier.config.get("start_from")
        earlier = _load(workspace, before) if before else None
    return found


def _load(workspace: Workspace, ref: str) -> Manifest | None:
    folder = workspace.settings.data / ref
    found = manifests.load(folder)
    return None if found is None or manifests.damaged(folder, found) else found


def _is_like(found: Manifest, draft: Manifest) -> bool:
    """Whether a checkpoint has the configuration of a draft, whatever it started from."""
    return {name: each for name, each in found.config.items() if name != "start_from"} == draft.config


def _last_of_week(workspace: Workspace, draft: Manifest, day: date) -> Manifest | None:
    for back in range(1, day.weekday() + 1):
        found = _load(workspace, draft.ref.replace(f"/{day}/", f"/{day - timedelta(days=back)}/"))
        if found is not None and _is_like(found, draft):
            return found
    return None


def surround(workspace: Workspace, model: Generator, state: Path, start: Manifest | None) -> None:
    """Tell a network where its run is kept, where it starts and on what it is trained."""
    from synth_pipeline.generators.neural import NeuralGenerator
    from synth_pipeline.generators.recipe import Watch

    assert isinstance(model, NeuralGenerator)
    model.watch = Watch(
        state=state,
        every_seconds=KEPT_EVERY_S,
        start_from=workspace.file(start, "checkpoint") if start else None,
        accelerator=workspace.settings.accelerator,
        devices=workspace.settings.devices,
        mixed=workspace.settings.mixed_precision,
    )


def pictures(model: Generator, seed: int, key: str, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Draw how training went into a folder, and return the losses over steps.

    `losses.svg`; `samples.svg`, training windows beside samples; `latent.svg`, the t-SNE (van der Maaten and Hinton
    2008, Journal of Machine Learning Research 9) of where both lie in the latent space. The same seed gives the same
    bytes.
    """
    from synth_pipeline.generators.neural import NeuralGenerator
    from synth_pipeline.reports import drawing

    assert isinstance(model, NeuralGenerator)
    curves = model.history.curves()
    shown = model.portrait(rng=stream(seed, "portrait", key))
    folder.mkdir()
    lines = {name: np.array(curve, dtype=np.float64) for name, curve in curves.items()}
    (folder / "losses.svg").write_text(drawing.curves("losses over steps", lines))
    (folder / "samples.svg").write_text(_windows(shown, model.transform.anchor.names))
    near = _neighbourhoods(np.concatenate((shown.real_latent, shown.made_latent)), seed)
    points = {"training windows": near[: len(shown.real)], "samples": near[len(shown.real) :]}
    (folder / "latent.svg").write_text(drawing.points("t-SNE of latent windows", points))
    return curves


def _windows(shown: Portrait, names: tuple[str, ...]) -> str:
    from synth_pipeline.reports import drawing

    some = np.unique(np.linspace(0, len(shown.real) - 1, min(len(shown.real), _LINES)).astype(np.int64))
    kinds = {"training": shown.real, "samples": shown.made}
    panels = {
        f"{name}, {kind}": windows[some, :, at]
        for at, name in enumerate(names[:_FEATURES])
        for kind, windows in kinds.items()
    }
    return drawing.bundles("windows, in standard normal scores", panels)


def _neighbourhoods(rows: FloatArray, seed: int) -> FloatArray:
    """Return the t-SNE of rows: on one thread, since its sums depend on how many there are."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        perplexity = min(30.0, (len(rows) - 1) / 3)
        found = TSNE(perplexity=perplexity, max_iter=400, init="pca", random_state=seed % 2**32, n_jobs=1)
        return np.asarray(found.fit_transform(rows), dtype=np.float64)
