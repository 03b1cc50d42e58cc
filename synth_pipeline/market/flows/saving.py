"""Fitted flows on disk: `flow.json` holds numbers, names and notes, `flow.npz` the arrays; no code is stored."""

import json
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from synth_pipeline.errors import InputError

_FACTS, _ARRAYS = "flow.json", "flow.npz"


def write(folder: Path, flow: str, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a fitted flow into an existing folder."""
    text = json.dumps({"flow": flow, **facts}, indent=1, sort_keys=True)
    (folder / _FACTS).write_text(text + "\n", encoding="utf-8")
    np.savez(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]


def read(folder: Path, flow: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read back what `write` wrote. Raises `InputError` for a folder without a flow or with another one."""
    path = folder / _FACTS
    if not path.exists():
        raise InputError(f"{folder} holds no fitted flow: name a folder that `save` wrote")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (found := facts.pop("flow")) != flow:
        raise InputError(f"{folder} holds a flow {found!r}, not {flow!r}: load it by its own name")
    with np.load(folder / _ARRAYS) as stored:
        return facts, {name: stored[name] for name in stored.files}


def packed(law: tuple[Any, ...], prefix: str = "") -> dict[str, np.ndarray]:
    """Return the fields of a named tuple, and of those in it, as arrays by dotted name."""
    found: dict[str, np.ndarray] = {}
    for name, value in law._asdict().items():  # type: ignore[attr-defined]
        inner = isinstance(value, tuple)
        found |= packed(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": np.asarray(value)}
    return found


def unpacked(kind: type[Any], arrays: dict[str, np.ndarray], prefix: str = "") -> Any:
    """Return the named tuple that `packed` was given; its fields are annotated with what they hold."""
    values = {}
    for name, hint in get_type_hints(kind).items():
        if hasattr(hint, "_fields"):
            values[name] = unpacked(hint, arrays, f"{prefix}{name}.")
        else:
            stored = arrays[prefix + name]
            values[name] = hint(stored) if hint in (int, float) else stored
    return kind(**values)
