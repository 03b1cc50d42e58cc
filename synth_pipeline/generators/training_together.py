"""Several processes that train one network: what they must agree on, and how an alarm leaves them.

Lightning starts them as forks (`ddp_fork`), since what a recipe holds cannot be pickled, and its
`DistributedDataParallel` averages their gradients. Every decision of a run is taken on the mean of a loss over all
processes or on what the first one knows (held-out loss, collapse, time): so all take the same one and none waits for
another forever.
https://lightning.ai/docs/pytorch/stable/accelerators/gpu_intermediate.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessRaisedException

from synth_pipeline.errors import TrainingError

_ALARM = re.compile(r"synth_pipeline\.errors\.TrainingError: (.+)")


def rank() -> int:
    """Return the number of this process among those that train together; 0 of one alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def mean(value: float, device: torch.device) -> float:
    """Return the mean of a number over all processes."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.all_reduce(shared)
    return float(shared) / distributed.get_world_size()


def of_first(value: float, device: torch.device) -> float:
    """Return a number as the first process has it."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


@contextmanager
def alarms() -> Iterator[None]:
    """Raise the `TrainingError` that a process of several has raised as it is."""
    try:
        yield
    except ProcessRaisedException as error:
        found = _ALARM.search(str(error))
        if found is None:
            raise
        raise TrainingError(found[1]) from None
