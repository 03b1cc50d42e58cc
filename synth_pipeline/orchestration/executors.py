"""Where the steps of a run are executed: processes of this machine, or jobs of a Ray cluster (`SYNTH_EXECUTOR=ray`).

On Ray a step asks for what its tag `dagster-ray/config` says and runs on a node that has it
(https://danielgafni.github.io/dagster-ray/). Neither
dagster_ray nor ray is imported unless chosen; both come with the extra `[ray]`.
"""

from __future__ import annotations

import os
from typing import Any

import dagster as dg

from synth_pipeline.errors import InputError
from synth_pipeline.orchestration import pools
from synth_pipeline.settings import Settings

_RAY = "dagster-ray/config"

# What forked steps have without importing it: the package, and the storage (sqlalchemy and alembic) that each of them
# opens. A spawned one pays two seconds of processor time for them every time. One that is not there is passed over.
PRELOADED = ["synth_pipeline.orchestration.definitions", "dagster._core.storage.sqlite_storage", "dagster_postgres"]
_PROCESSES = dg.multiprocess_executor.configured(
    {"max_concurrent": pools.STEPS, "start_method": {"forkserver": {"preload_modules": PRELOADED}}}
)


def executor(settings: Settings) -> dg.ExecutorDefinition:
    """Return the executor that the settings ask for. Raises `InputError` when its extra is not installed."""
    return _on_ray(settings) if settings.executor == "ray" else _PROCESSES


def needs(pool: str) -> dict[str, Any]:
    """Return the op tags that say what a step of a pool needs of a node: one CPU, in the pool `gpu` a GPU as well."""
    return {_RAY: {"num_cpus": 1} | ({} if pool == pools.CPU else {"num_gpus": 1})}


def _on_ray(settings: Settings) -> dg.ExecutorDefinition:
    try:
        from dagster_ray import ray_executor
    except ImportError as error:
        raise InputError(
            f"SYNTH_EXECUTOR=ray needs a library that is not installed ({error}): pip install synth-pipeline[ray]"
        ) from error
    # A node starts a step in a folder of its own: the home must be absolute. Credentials are the nodes' own affair,
    # since Ray shows a job's environment on its dashboard.
    ours = sorted(name for name in os.environ if name.startswith("SYNTH_") and name != "SYNTH_HOME")
    configured: dg.ExecutorDefinition = ray_executor.configured(
        {"ray": {"env_vars": [f"SYNTH_HOME={settings.home}", *ours]}}
    )
    return configured
