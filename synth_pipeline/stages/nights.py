"""What a night has to do for an instrument: which days are due, which nobody recorded, and which day to fit on.

Days are UTC days, so summer time moves the hour of a night and never a day. A night looks back over a few days: what
was missed while the machine slept, what came late and what was revised is due like yesterday.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from synth_pipeline.errors import SynthError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument
from synth_pipeline.stages.features import featurize
from synth_pipeline.stages.models import evaluate, fit, sample
from synth_pipeline.stages.raw import SIMULATED, record
from synth_pipeline.stages.ticks import ingest
from synth_pipeline.stages.workspace import StaleError, Workspace, is_current


@dataclass(frozen=True)
class Night:
    """The work of one night on one instrument."""

    due: tuple[date, ...]
    """Recorded days whose features are not current, oldest first."""
    missing: tuple[date, ...]
    """Days that nobody recorded: a holiday, or they come late."""
    fit_on: date | None
    """The last recorded day, when a generator is due on it."""


def night(workspace: Workspace, instrument: Instrument, last: date, days: int, generators: Sequence[str]) -> Night:
    """Look over the `days` UTC days that end with `last`, in milliseconds a day that is current."""
    looked = [last - timedelta(days=back) for back in range(days - 1, -1, -1)]
    recorded = [day for day in looked if _is_recorded(workspace, instrument, day)]
    if instrument.venue == SIMULATED:
        recorded = [day for day in looked if day >= min(recorded, default=last)]
    due = tuple(day for day in recorded if not day_is_current(workspace, instrument, day))
    newest = recorded[-1] if recorded else None
    wanted = newest is not None and (
        bool(due) or not all(models_are_current(workspace, instrument, newest, name) for name in generators)
    )
    return Night(due, tuple(day for day in looked if day not in recorded), newest if wanted and generators else None)


def _is_recorded(workspace: Workspace, instrument: Instrument, day: date) -> bool:
    try:
        return workspace.find("raw", instrument, day) is not None
    except SynthError:  # what is there cannot be read: a run of that day says so
        return True


def day_is_current(workspace: Workspace, instrument: Instrument, day: date, *, features: bool = True) -> bool:
    """Whether raw capture, ticks and, unless they are not wanted, features of a day are all unchanged."""

    def steps(looking: Workspace) -> Manifest:
        stored = looking.find("raw", instrument, day)
        if stored is None or instrument.venue == SIMULATED:
            record(looking, instrument, day, seconds=stored.config.get("seconds", 3600.0) if stored else 3600.0)
        made = ingest(looking, instrument, day)
        return featurize(looking, instrument, day) if features else made

    return is_current(workspace, steps)


def models_are_current(workspace: Workspace, instrument: Instrument, day: date, generator: str) -> bool:
    """Whether checkpoint, dataset and report of a day are unchanged and the report was decided on.

    The registry is not asked: that takes seconds.
    """

    def steps(looking: Workspace) -> Manifest:
        fit(looking, instrument, day, generator)
        sample(looking, instrument, day, generator)
        report = evaluate(looking, instrument, day, generator)
        decided = looking.require("promotions", "promote", instrument, day, generator)
        if decided.inputs.get(report.ref) != report.digest:
            raise StaleError(f"{decided.ref} is not current")
        return decided

    return is_current(workspace, steps)
