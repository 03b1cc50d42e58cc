"""The schedule `nightly`: what the night has to do for every instrument, as runs in the right order.

For each instrument a run for every due day, oldest first, then one that fits, samples, evaluates, promotes and ranks on
the last recorded day. They carry the tag `synth/nightly`, of which `dagster.yaml` lets one run at a time for each
instrument: so a fit sees the days that were caught up before it, and a day that fails does not hold up the rest. A
second night that begins meanwhile asks for nothing that is on its way, and finds unchanged what the first has made.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from synth_pipeline import generators, plugins, stages
from synth_pipeline.errors import SynthError
from synth_pipeline.orchestration.assets import FEATURES, SETTINGS, TICKS, model_keys
from synth_pipeline.orchestration.partitions import DAYS, INSTRUMENTS, cell
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings

TAG = "synth/nightly"
_DAY = [dg.AssetKey("raw_capture"), *map(dg.AssetKey, TICKS), FEATURES]
_NOT_DONE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]

NIGHT = dg.define_asset_job(
    "night",
    selection=dg.AssetSelection.assets(*_DAY, *model_keys(plugins.names(generators))),
    description="What the nightly schedule asks for: a day up to features, or the generators of one.",
)


@dg.schedule(
    name="nightly",
    job=NIGHT,
    cron_schedule=f"0 {SETTINGS.nightly_hour} * * *",
    execution_timezone=SETTINGS.nightly_timezone,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Yesterday and whatever came late: ticks, features, a refit, a report, perhaps a new champion.",
)
def nightly(context: dg.ScheduleEvaluationContext, verbs: dg.ResourceParam[Verbs]) -> list[dg.RunRequest]:
    """Ask for the due days of every instrument and for its fit; say what is missing."""
    settings = verbs.settings
    at = context.scheduled_execution_time
    wanted: list[dg.RunRequest] = []
    for instrument in _instruments(context, settings):
        try:
            wanted += _night(context, settings, instrument, at)
        except SynthError as error:
            context.log.error(f"{instrument}: {error}")  # noqa: TRY400 - one line, as a user reads it
    return wanted


def last_whole_day(at: datetime) -> date:
    """Return the last UTC day that is over at a moment."""
    return at.astimezone(UTC).date() - timedelta(days=1)


def _instruments(context: dg.ScheduleEvaluationContext, settings: Settings) -> list[Instrument]:
    known = context.instance.get_dynamic_partitions(INSTRUMENTS.name or "")
    chosen = settings.nightly_names
    if fresh := [str(each) for each in chosen if str(each) not in known]:
        context.instance.add_dynamic_partitions(INSTRUMENTS.name or "", fresh)
    return list(chosen) or [Instrument.parse(name) for name in sorted(known)]


def _night(
    context: dg.ScheduleEvaluationContext, settings: Settings, instrument: Instrument, at: datetime
) -> list[dg.RunRequest]:
    names, back = settings.generator_names, settings.nightly_catch_up_days
    # Without a tracker: a look at the store opens no MLflow.
    found = stages.night(stages.Workspace(settings), instrument, last_whole_day(at), back, names)
    if found.missing:
        told = ", ".join(day.isoformat() for day in found.missing)
        context.log.warning(f"{instrument}: nothing is recorded of {told}; what comes late is taken the next night")
    coming = _coming(context.instance, instrument)
    days = [day for day in found.due if day.isoformat() not in coming and _is_partition(day)]
    runs = [_request(instrument, day, _DAY, at, "day") for day in days]
    if found.fit_on is not None and f"{found.fit_on} models" not in coming:
        runs.append(_request(instrument, found.fit_on, model_keys(names), at, "models"))
    return runs


def _request(instrument: Instrument, day: date, assets: list[dg.AssetKey], at: datetime, what: str) -> dg.RunRequest:
    own = day.isoformat() if what == "day" else f"{day} {what}"
    return dg.RunRequest(
        run_key=f"{at.date()}/{instrument}/{own}",
        partition_key=cell(instrument, day),
        asset_selection=assets,
        tags={
            TAG: str(instrument),
            "synth/night": own,
            "synth/instrument": str(instrument),
            "synth/day": day.isoformat(),
            "dagster/priority": "0" if what == "day" else "-1",
        },
    )


def _coming(instance: dg.DagsterInstance, instrument: Instrument) -> set[str]:
    """What earlier nights have asked for and is not done."""
    runs = instance.get_runs(dg.RunsFilter(tags={TAG: str(instrument)}, statuses=_NOT_DONE))
    return {run.tags["synth/night"] for run in runs if "synth/night" in run.tags}


def _is_partition(day: date) -> bool:
    return DAYS.has_partition_key(day.isoformat())
