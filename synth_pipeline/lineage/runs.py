"""What a tracker of runs promises, the tracker that keeps nothing, and how a manifest reads as a run.

Plain values only; the tracker that writes to MLflow, and every import of mlflow, is in `tracking.py`.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synth_pipeline.lineage.manifests import Manifest

# MLflow's own limits: mlflow/utils/validation.py
_KEY_LENGTH = 250
_VALUE_LENGTH = 6000
Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Of each metric its values over steps: pairs of the number of a step and the value."""
_FORBIDDEN = re.compile(r"[^/\w.\- :]")


@dataclass(frozen=True)
class Champion:
    """The version of a model that is in use."""

    version: str
    ref: str
    """Of its checkpoint."""
    digest: str
    fidelity: float | None
    """As it was judged when it was promoted; None when it never was."""


class Run(Protocol):
    """One materialization as the tracker sees it; every log call may be repeated."""

    @property
    def run_id(self) -> str | None:
        """The tracker's id of this run; None when nothing is tracked."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record what was chosen; nested names are joined by dots."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Record what was measured; nested names are joined by dots, what is no number is passed over."""

    def log_curves(self, curves: Curves) -> None:
        """Record what was measured over steps, all in a few calls."""

    def log_artifact(self, path: Path) -> None:
        """Copy a file or a folder into the tracker's store."""

    def log_dataset(self, ref: str, digest: str, path: Path, context: str) -> None:
        """Record a dataset by name, digest and place, without reading it."""

    def record(self, manifest: Manifest) -> None:
        """Record the committed manifest: its digest as a tag, rows and facts as metrics, itself as an artifact."""

    def register(
        self, folder: Path, name: str, *, alias: str = "challenger", params: Mapping[str, Any] | None = None
    ) -> str | None:
        """Register a checkpoint folder as the next version of a model and return the version; None untracked.

        The alias moves to the new version; `champion` is given too as long as the model has none.
        """


class Tracker(Protocol):
    """Keeps one run for every materialization."""

    def run(self, draft: Manifest, tags: Mapping[str, str]) -> AbstractContextManager[Run]:
        """Open a run for what the draft describes; it ends FINISHED, or FAILED when the body raises."""

    def url(self, run_id: str) -> str | None:
        """Return where a person looks at the run; None when there is no such place."""

    def champion(self, model: str) -> Champion | None:
        """Return the version of a model that has the alias `champion`; None when none has."""

    def judge(self, model: str, run_id: str, verdict: Mapping[str, Any], *, promoted: bool) -> None:
        """Tag the version of a model that a run registered with what was decided; promoted, it becomes `champion`."""


@dataclass(frozen=True)
class NullRun:
    """The run of the tracker that keeps nothing."""

    run_id: None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Keep nothing."""

    def log_curves(self, curves: Curves) -> None:
        """Keep nothing."""

    def log_artifact(self, path: Path) -> None:
        """Keep nothing."""

    def log_dataset(self, ref: str, digest: str, path: Path, context: str) -> None:
        """Keep nothing."""

    def record(self, manifest: Manifest) -> None:
        """Keep nothing."""

    def register(
        self,
        folder: Path,
        name: str,
        *,
        alias: str = "challenger",
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Register nothing."""


class NullTracker:
    """Keeps nothing: the tracker when tracking is switched off."""

    @contextmanager
    def run(self, draft: Manifest, tags: Mapping[str, str]) -> Iterator[NullRun]:  # noqa: ARG002 - the shape of Tracker
        """Open a run that keeps nothing."""
        yield NullRun()

    def url(self, run_id: str) -> None:
        """Return None: nothing is kept, so nothing can be looked at."""

    def champion(self, model: str) -> None:
        """Return None: nothing is registered."""

    def judge(self, model: str, run_id: str, verdict: Mapping[str, Any], *, promoted: bool) -> None:
        """Tag nothing."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def key(name: str) -> str:
    """Return a name as MLflow accepts it: its own alphabet, no `//` or `..`, at most 250 characters."""
    return posixpath.normpath(_FORBIDDEN.sub("_", name))[:_KEY_LENGTH]


def text(value: Any) -> str:
    """Return a value as the text of a tag or parameter: text as it is, everything else as JSON."""
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:_VALUE_LENGTH]


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as tags or parameters, nested ones flattened."""
    return {key(name): text(value) for name, value in flatten(values).items()}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among values as metrics, nested ones flattened; booleans, text and lists are left out."""
    return {
        key(name): float(value)
        for name, value in flatten(values).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def run_tags(draft: Manifest) -> dict[str, str]:
    """Return the tags by which a run is found from a manifest, and its inputs from the run."""
    own = {"ref": draft.ref, "stage": draft.stage, "fingerprint": draft.fingerprint, "code_version": draft.code_version}
    return {f"synth/{name}": value for name, value in own.items()} | {
        key(f"synth/input/{name}"): digest for name, digest in draft.inputs.items()
    }
