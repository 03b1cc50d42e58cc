"""The state of a training run on disk, from which it goes on with the same bytes.

One file, written whole or not at all: weights of every network and their average, optimizers, both random sources,
losses, place in the schedule, best held-out loss and time spent. It is `torch.save` of tensors and plain values, and
is read back with `weights_only`, so that no code comes out of it. A fingerprint of data, settings, seed and initial
weights says whose it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth_pipeline.errors import InputError


def fingerprint(tensors: Iterable[Tensor], *words: object) -> str:
    """Return a digest of what a run starts from."""
    digest = hashlib.sha256(repr(words).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that a reader, or a run after a kill, sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes may train the same thing
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path, mark: str) -> dict[str, Any] | None:
    """Return the state of a run with this fingerprint, None where there is no file.

    Raises `InputError` for a file that is no state, or that of another run.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(f"{path} is no training state ({type(error).__name__}): delete it to start anew") from error
    if state.get("fingerprint") != mark:
        raise InputError(
            f"{path} is of another training run (other data, settings, seed or version): delete it to start anew"
        )
    return state
