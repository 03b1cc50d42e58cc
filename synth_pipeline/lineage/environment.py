"""What a partition was made with, besides its sources: Python, the libraries and the processor (for which BLAS chooses
its kernels) that may change a last digit, the commit.

It enters no digest. When a rebuild differs though inputs, code, configuration and seed are the same, it says why.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import synth_pipeline

_LIBRARIES = ("numpy", "numba", "scipy", "pyarrow", "polars", "torch", "scikit-learn", "statsmodels", "arch", "plotly")
_BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_REPOSITORY = Path(synth_pipeline.__file__).parents[1] / ".git"


@cache
def environment() -> dict[str, str]:
    """Return versions by name; a library that is not installed is missing, as is `commit` outside of a checkout."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    found["processor"] = _processor(Path("/proc/cpuinfo"))
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = _commit(_REPOSITORY)
    return found | ({"commit": commit} if commit else {})


def _processor(cpuinfo: Path) -> str:
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _commit(repository: Path) -> str | None:
    """Read what HEAD of a git repository points at, without git; None where there is none to read."""
    head = repository / "HEAD"
    if not head.is_file():
        return None
    name = head.read_text(encoding="utf-8").strip().removeprefix("ref: ")
    if "/" not in name:
        return name
    loose, packed = repository / name, repository / "packed-refs"
    if loose.is_file():
        return loose.read_text(encoding="utf-8").strip()
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have BLAS add up on one thread: the last digits of its sums, and so every digest, depend on how many share them.

    Libraries that are loaded from now on read the environment, which stays so; those that are there are told.
    """
    from threadpoolctl import threadpool_limits

    os.environ.update(_BLAS_THREADS)
    with threadpool_limits(1, user_api="blas"):
        yield
