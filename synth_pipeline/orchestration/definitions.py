"""What Dagster loads. Nothing here or above imports torch, mlflow or pytorch_lightning: a test asserts it."""

import os

import dagster as dg

from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.alerts import alerts
from synth_pipeline.orchestration.assets import all_assets
from synth_pipeline.orchestration.inbox import inbox
from synth_pipeline.orchestration.nightly import NIGHT, nightly
from synth_pipeline.orchestration.resources import Verbs

# What forked steps have without importing it: the package, and the storage (sqlalchemy and alembic) that each of them
# opens. A spawned one pays two seconds of processor time for them every time. One that is not there is passed over.
PRELOADED = ["synth_pipeline.orchestration.definitions", "dagster._core.storage.sqlite_storage", "dagster_postgres"]
EXECUTOR = dg.multiprocess_executor.configured(
    {
        "max_concurrent": pools.STEPS,
        "start_method": {"forkserver": {"preload_modules": PRELOADED}},
    }
)


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
