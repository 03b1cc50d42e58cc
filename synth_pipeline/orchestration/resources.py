"""Resources: what asset bodies get the workspace from that they hand to the verbs."""

import time

import dagster as dg

from synth_pipeline.progress import Progress
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace

_EVERY_S = 2.0


class Verbs:
    """Opens a workspace for one step, tagged with the Dagster run that asked for it."""

    def __init__(self, settings: Settings | None = None, progress: Progress | None = None) -> None:
        self._settings = settings
        self._progress = progress

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        return self._settings or Settings()

    def workspace(self, context: dg.AssetExecutionContext, key: str) -> Workspace:
        """Return the workspace of one cell of a step; without a progress of its own it reports into the step's log."""
        tags = {
            "dagster/run_id": context.run.run_id,
            "dagster/asset_key": context.op_execution_context.op_handle.name.replace("__", "/"),
            "dagster/partition": str(key),
        }
        progress, is_night = self._progress or _to_log(context), "synth/nightly" in context.run.tags
        return Workspace.of(self.settings, tags=tags, progress=progress, is_night=is_night)


def _to_log(context: dg.AssetExecutionContext) -> Progress:
    """Report progress into the step's log, a line every few seconds: each is a row in a database that steps share."""
    last = time.monotonic()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _EVERY_S:
            last = now
            context.log.debug(f"{note} {done}/{total}")

    return report
