"""The record that every materialization leaves in its partition folder, and how it is read back.

A REF such as `ticks/binance_usdm/BTCUSDT/2024-08-08` names a partition and is also its folder where the data lie. How
a manifest comes to be written is in `commit.py`; what it is hashed with is in `digests.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import msgspec

from synth_pipeline import storage
from synth_pipeline.errors import SynthError
from synth_pipeline.lineage.digests import json_value, sha256_file, sha256_json
from synth_pipeline.storage import Place

Stage = Literal["raw", "bars", "ticks", "features", "checkpoints", "synthetic", "reports", "promotions"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Every stage, upstream first; each is a folder of the home."""

NAME = "manifest.json"
"""The file whose appearance commits a partition."""

_NUMBERS = re.compile(r"\[\n\s+(-?\d+(?:,\n\s+-?\d+)*)\n\s+\]")
"""A list of whole numbers with one a line; within a text there is no line end."""

FILE_INPUT = "file:"
"""Prefix of the name of an input that is no partition but a file from outside; its digest is the file's SHA-256."""


@dataclass(frozen=True)
class Artifact:
    """One output file of a partition."""

    path: str
    """Relative to the partition folder; the name carries the content's digest."""
    sha256: str
    bytes: int
    rows: int | None = None
    groups: dict[str, list[int]] | None = None
    """Of a tick table one entry a row group: `rows`, then least and greatest values, `first_recv_ns`, `last_recv_ns`,
    the same of `seq` and of `update_id`, `trade_id`, `order_id` where the table has them. Enters no digest."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was made, from which inputs, by which code, configuration and seed.

    Without `outputs` it is a draft: enough to decide whether a rebuild is needed. What comes after them is for people
    and enters no digest.
    """

    stage: Stage
    key: str
    """`venue.SYMBOL/day`, with `/generator` where one is involved; of bars `venue.SYMBOL/timeframe`."""
    inputs: dict[str, str]
    """Digest by name: the REF of an upstream manifest, or `file:NAME` for a file from outside."""
    code_version: str
    config: dict[str, Any]
    """What the result depends on besides inputs, code and seed: JSON values."""
    seed: int | None = None
    outputs: dict[str, Artifact] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """Rows, gaps, counts, seconds, peak memory: JSON values."""
    created_at: str = ""
    """ISO 8601, UTC."""
    mlflow_run_id: str | None = None
    dagster_run_id: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    """Versions of Python and libraries by name, and the `commit` of a checkout (`environment.py`)."""
    skipped: bool = False
    """True when this run found the partition current and did nothing; never true in the file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", json_value(f"config of {self.ref}", self.config))
        object.__setattr__(self, "facts", json_value(f"facts of {self.ref}", self.facts))

    @property
    def ref(self) -> str:
        """The name under which lineage knows this partition."""
        return ref(self.stage, self.key)

    @cached_property
    def fingerprint(self) -> str:
        """What decides whether a rebuild is needed: SHA-256 over everything that the outputs depend on."""
        names = ("stage", "key", "inputs", "code_version", "config", "seed")
        return sha256_json({name: getattr(self, name) for name in names})

    @cached_property
    def digest(self) -> str:
        """What downstream manifests record as their input: SHA-256 over the outputs' content, blind to the clock."""
        return sha256_json({name: artifact.sha256 for name, artifact in self.outputs.items()})

    @property
    def rows(self) -> int | None:
        """Rows over all outputs that have any."""
        counts = [artifact.rows for artifact in self.outputs.values() if artifact.rows is not None]
        return sum(counts) if counts else None

    def file(self, folder: Place, name: str) -> Place:
        """Return the place of one output in the partition folder (`path`)."""
        return folder / self.path(name)

    def path(self, name: str) -> str:
        """Return the path of one output, or of the folder when a whole folder was committed under `name`.

        Raises `SynthError` for a name that this manifest lacks.
        """
        if artifact := self.outputs.get(name):
            return artifact.path
        for inner, artifact in self.outputs.items():
            if inner.startswith(f"{name}/"):
                return artifact.path.removesuffix(inner.removeprefix(f"{name}/"))
        raise SynthError(f"{self.ref} has no output {name!r}: it has {', '.join(self.outputs) or 'none'}")


@dataclass(frozen=True)
class Mismatch:
    """An output file that is not what its manifest says."""

    name: str
    path: Place
    expected: str
    found: str | None
    """SHA-256 of what is there now; None when nothing is."""

    def __str__(self) -> str:
        state = (
            "is missing" if self.found is None else f"has sha256 {self.found[:12]}, recorded was {self.expected[:12]}"
        )
        return f"{self.path} {state}"


def ref(stage: Stage, key: str) -> str:
    """Return the REF of a partition: `ticks`, `binance_usdm.BTCUSDT/2024-08-08` → `ticks/binance_usdm/BTCUSDT/…`."""
    return f"{stage}/{key.replace('.', '/', 1)}"


def load(folder: Place) -> Manifest | None:
    """Return the manifest of a partition folder, None when there is none.

    Raises `SynthError` for a file that is not a manifest or was changed by hand.
    """
    content = storage.read(folder / NAME)
    return None if content is None else decode(content, folder / NAME)


def decode(content: bytes, path: Place) -> Manifest:
    """Return the manifest that a file's content is. Raises `SynthError`, naming its path, for what is none."""
    remedy = "delete this file to have the partition built again"
    try:
        stored = _decoded(content)
        manifest = msgspec.convert(stored, Manifest)
    except (ValueError, SynthError) as error:
        raise SynthError(f"manifest {path} is corrupt: {error}; {remedy}") from error
    for name in ("fingerprint", "digest"):
        if stored.get(name) != getattr(manifest, name):
            raise SynthError(f"manifest {path} is corrupt: its {name} does not fit its content; {remedy}")
    return manifest


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        # A file name that is no text is written as half a surrogate pair, which only Python's own reader takes.
        return json.loads(content)


def encode(manifest: Manifest) -> bytes:
    """Return the file content of a manifest: indented JSON, with fingerprint and digest spelled out for other tools."""
    plain = asdict(replace(manifest, skipped=False)) | {"fingerprint": manifest.fingerprint, "digest": manifest.digest}
    for artifact in plain["outputs"].values():
        if artifact["groups"] is None:
            del artifact["groups"]
    return _NUMBERS.sub(_in_one_line, json.dumps(plain, indent=2)).encode() + b"\n"


def _in_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def is_current(folder: Place, fingerprint: str) -> Manifest | None:
    """Return the folder's manifest, marked `skipped`, when nothing it depends on has changed; None when it has.

    Outputs are checked to exist with their recorded size and are not read: this is the fast path (`verify` rehashes).
    """
    manifest = load(folder)
    if manifest is None or manifest.fingerprint != fingerprint or damaged(folder, manifest):
        return None
    return replace(manifest, skipped=True)


def damaged(folder: Place, manifest: Manifest) -> list[Place]:
    """Return the output files that are missing or have another size than recorded, unread."""
    recorded = {artifact.path: artifact.bytes for artifact in manifest.outputs.values()}
    found = zip(recorded.items(), storage.sizes(folder, [*recorded]), strict=True)
    return [folder / path for (path, size), now in found if now != size]


def verify(folder: Place) -> list[Mismatch]:
    """Rehash every output and return what is not as recorded. Raises `SynthError` when the folder has no manifest."""
    manifest = load(folder)
    if manifest is None:
        raise SynthError(f"{folder} holds no {NAME}: nothing was committed there")
    found = []
    for name, artifact in manifest.outputs.items():
        path = folder / artifact.path
        actual = None if storage.size(path) is None else sha256_file(path)
        if actual != artifact.sha256:
            found.append(Mismatch(name, path, artifact.sha256, actual))
    return found
