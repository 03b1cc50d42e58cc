"""Fitted flows on disk: `flow.json` holds numbers, names and notes, `flow.npz` the arrays; no code is stored."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.generators.inference import Estimate

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


def plain(estimates: dict[str, Estimate]) -> dict[str, list[Any]]:
    """Return estimates as JSON takes them."""
    return {name: [each.value, each.error, each.link] for name, each in estimates.items()}


def estimates_from(stored: dict[str, list[Any]]) -> dict[str, Estimate]:
    """Return what `plain` was given."""
    return {name: Estimate(*each) for name, each in stored.items()}


def summary_of(estimates: dict[str, Estimate]) -> dict[str, float]:
    """Return estimates by name, and beside each its standard error, NaN where there is none."""
    found: dict[str, float] = {}
    for name, each in estimates.items():
        found[name] = each.value
        found[f"{name}_se"] = float("nan") if each.error is None else each.error
    return found
