"""Digests: canonical JSON, content of files, and the version of the code that made something.

What is hashed is decided here; what is done with a digest (skip, compare, name a file) is not.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import synth_pipeline
from synth_pipeline import storage
from synth_pipeline.errors import SynthError
from synth_pipeline.storage import Place

_PACKAGE = Path(synth_pipeline.__file__).parent


def json_value(what: str, value: Any) -> Any:
    """Return `value` as JSON reads it back: tuples become lists, keys strings.

    Raises `SynthError`, naming `what`, for anything that JSON cannot hold, NaN included.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SynthError(f"{what} is not JSON: {error}; give it plain finite numbers, text, lists and dicts") from error


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII. Raises `SynthError` as `json_value` does."""
    plain = json_value("value to digest", value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Place) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with storage.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_version(*sources: str) -> str:
    """Return the package version and a short hash of the named sources, such as `0.1.0+3f2a9c01d2ab`.

    A source is a file or folder of `synth_pipeline` (`"ticks"`, `"schema.py"`); the order does not matter. Read once a
    process, so a run keeps one version even when the files change under it. Raises `SynthError` for an unknown source.
    """
    digests = {path.relative_to(_PACKAGE).as_posix(): _source_digest(path) for name in sources for path in _files(name)}
    return f"{synth_pipeline.__version__}+{sha256_json(digests)[:12]}"


@cache
def _source_digest(path: Path) -> str:
    return sha256_file(path)


@cache
def _files(name: str) -> list[Path]:
    source = _PACKAGE / name
    if not source.exists():
        raise SynthError(
            f"no source {name!r} in {_PACKAGE}: name a file or folder of the package, such as ticks or schema.py"
        )
    found = [source] if source.is_file() else list(source.rglob("*"))
    return [path for path in found if path.is_file() and path.parent.name != "__pycache__" and path.name[0] != "."]
