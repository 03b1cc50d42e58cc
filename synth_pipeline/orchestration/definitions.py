"""What Dagster loads. Nothing here or above imports torch, mlflow or pytorch_lightning: a test asserts it."""

import dagster as dg

from synth_pipeline.orchestration.assets import all_assets
from synth_pipeline.orchestration.inbox import inbox
from synth_pipeline.orchestration.resources import Verbs


@dg.definitions
def definitions() -> dg.Definitions:
    """Return the code location."""
    return dg.Definitions(
        assets=all_assets(),
        sensors=[inbox],
        resources={"verbs": Verbs()},
        # Forked steps import the package once; a spawned one pays two seconds for it every time.
        executor=dg.multiprocess_executor.configured(
            {
                "max_concurrent": 2,
                "start_method": {"forkserver": {"preload_modules": ["synth_pipeline.orchestration.definitions"]}},
            }
        ),
    )
