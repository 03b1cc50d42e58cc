"""The sensor `inbox`: what is dropped into the inbox folder becomes raw capture, ticks and features.

It runs from the start, unlike a schedule: dropping a file (or telling a recorder to write there) is the request, and a
run on unchanged files does nothing. Which files are what is decided in `stages.inbox`; a large one is looked through by
a job of its own, `look_through`, because a sensor must answer at once.
"""

import json
import time
from pathlib import Path
from typing import Any

import dagster as dg

from synth_pipeline.orchestration.assets import FEATURES, TICKS
from synth_pipeline.orchestration.partitions import INSTRUMENTS, cell
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.settings import Settings
from synth_pipeline.stages.inbox import Look, Request, State, look, look_through

SECONDS = 30
REFUSED = "inbox-refused.json"
"""File in the home that lists what the inbox refuses, and why."""

CAPTURED = dg.define_asset_job(
    "inbox_day",
    selection=dg.AssetSelection.assets("raw_capture", *TICKS, FEATURES),
    description="One day of an instrument, from the files in the inbox to features.",
)


class LargeFile(dg.Config):
    """One version of a large file, and where the answer belongs."""

    inbox: str
    name: str
    answer: str


@dg.op
def find_instrument_and_days(context: dg.OpExecutionContext, config: LargeFile) -> None:
    """Read a large file once for its instrument and days; the sensor goes on from there."""
    held = look_through(Path(config.inbox), config.name, Path(config.answer))
    context.log.info(f"{config.name}: {held if isinstance(held, str) else held._asdict()}")


@dg.job(description="Find out what a large file in the inbox holds.")
def look_through_large_file() -> None:
    """One op, in a process of its own."""
    find_instrument_and_days()


@dg.sensor(
    name="inbox",
    jobs=[CAPTURED, look_through_large_file],
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Turns files dropped into the inbox (SYNTH_INBOX) into runs.",
)
def inbox(context: dg.SensorEvaluationContext, verbs: dg.ResourceParam[Verbs]) -> dg.SensorResult:
    """Ask for the days that are due; leave what is still growing alone; report once what cannot be used."""
    settings = verbs.settings
    found = look(settings, State.from_text(context.cursor), time.time_ns())
    for _, reason in found.refused:
        context.log.warning(f"refused: {reason}")
    _list_refused(settings, found.state)
    known = set(context.instance.get_dynamic_partitions(INSTRUMENTS.name or ""))
    fresh = sorted({str(request.instrument) for request in found.requests} - known)
    runs = [*map(_day, found.requests), *(_large(settings.inbox, *large) for large in found.large)]
    return dg.SensorResult(
        run_requests=runs,
        skip_reason=None if runs else _said(settings, found),
        cursor=found.state.to_text(),
        dynamic_partitions_requests=[INSTRUMENTS.build_add_request(fresh)] if fresh else [],
    )


def _day(request: Request) -> dg.RunRequest:
    config = {"sources": [str(path) for path in request.sources]}
    return dg.RunRequest(
        run_key=request.key,
        job_name=CAPTURED.name,
        partition_key=cell(request.instrument, request.day),
        run_config={"ops": {"raw_capture": {"config": config}}},
        tags={"synth/instrument": str(request.instrument), "synth/day": request.day.isoformat()},
    )


def _large(inbox: Path, name: str, answer: Path) -> dg.RunRequest:
    config = {"inbox": str(inbox), "name": name, "answer": str(answer)}
    return dg.RunRequest(
        run_key=answer.stem,
        job_name=look_through_large_file.name,
        run_config={"ops": {"find_instrument_and_days": {"config": config}}},
    )


def _said(settings: Settings, found: Look) -> str:
    waiting = [f"{name} {reason}" for name, reason in found.waiting.items()]
    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    return f"nothing new in {settings.inbox}" + (f"; waiting: {'; '.join(waiting[:3])}{more}" if waiting else "")


def _list_refused(settings: Settings, state: State) -> None:
    """Keep the list of refused files beside the inbox as it is now."""
    path = settings.home / REFUSED
    rows: list[dict[str, Any]] = [
        {"path": str(settings.inbox / name), "bytes": stamp[0], "modified_ns": stamp[1], "reason": reason}
        for name, (stamp, _, reason) in sorted(state.refused.items())
    ]
    text = json.dumps(rows, indent=2) + "\n"
    if (path.exists() and path.read_text(encoding="utf-8") == text) or (not path.exists() and not rows):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
