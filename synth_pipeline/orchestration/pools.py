"""How many steps may run at once, and on how many threads and in how much memory each.

Training takes a slot of the pool `gpu` (one, from `dagster.yaml`) where there is a GPU, so that two fits do not meet in
its memory; without one it takes a slot of `cpu` like every other step, of which there is one for each core.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from synth_pipeline.errors import InputError
from synth_pipeline.settings import Settings

STEPS = 2
"""Steps of one run at a time."""
CPU = "cpu"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
"""What the libraries read when they are loaded; torch reads the first."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU may be used, without loading torch; `SYNTH_GPU` answers for machines other than this."""
    if (told := Settings().gpu) is not None:
        return told
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible not in ("", "-1") and any(Path("/dev").glob("nvidia[0-9]*"))


def training_pool() -> str:
    """Return the pool that a fit takes a slot of."""
    return "gpu" if has_gpu() else CPU


def threads(steps: int = STEPS) -> dict[str, str]:
    """Return the environment by which the steps that run side by side share the cores; what is set already stays."""
    share = str(max(1, (os.cpu_count() or 1) // steps))
    return {name: os.environ.get(name, share) for name in _THREADS}


@contextmanager
def memory_share(gib: float) -> Iterator[None]:
    """Give a step that has a process of its own so much memory and no more; 0 is its share of the machine's.

    Raises `InputError` when it asks for more: it alone fails, where else both steps would wait for the disk, or the
    kernel would choose which to kill. Not where there is a GPU, whose driver reserves addresses by the terabyte.
    """
    if multiprocessing.parent_process() is None or has_gpu():
        yield
        return
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    share = int(gib * 2**30) or whole // STEPS
    share = share if before[1] == resource.RLIM_INFINITY else min(share, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (share, before[1]))
    try:
        yield
    except MemoryError as error:
        raise InputError(
            f"the step asked for more than its {share / 2**30:.1f} GiB of memory ({error}): give it more by "
            "SYNTH_STEP_MEMORY_GIB, or less to do at once"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def set_slots(instance: dg.DagsterInstance) -> None:
    """Give the pool `cpu` a slot for each core, unless somebody chose another number."""
    storage = instance.event_log_storage
    chosen = {limit.name for limit in storage.get_pool_limits() if not limit.from_default}
    if storage.supports_global_concurrency_limits and CPU not in chosen:
        storage.set_concurrency_slots(CPU, os.cpu_count() or 1)
