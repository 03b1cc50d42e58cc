"""What Dagster loads. Nothing here or above imports torch, mlflow or pytorch_lightning: a test asserts it."""

import gc
import os

import dagster as dg

from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.alerts import alerts
from synth_pipeline.orchestration.assets import SETTINGS, all_assets
from synth_pipeline.orchestration.executors import executor
from synth_pipeline.orchestration.inbox import inbox
from synth_pipeline.orchestration.nightly import NIGHT, nightly
from synth_pipeline.orchestration.resources import Verbs

EXECUTOR = executor(SETTINGS)

# What is loaded by now stays to the end: forked steps share its memory, and a process that ends does not look for
# cycles in it, 0.6 s of every run.
gc.freeze()


@dg.definitions
def definitions() -> dg.Definitions:
    """Return the code location."""
    os.environ.update(pools.threads())  # before a step loads what reads them
    return dg.Definitions(
        assets=all_assets(),
        jobs=[NIGHT],
        schedules=[nightly],
        sensors=[inbox, alerts],
        resources={"verbs": Verbs()},
        executor=EXECUTOR,
    )
