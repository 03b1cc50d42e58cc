"""The same graph, executed in this process: what `synth-pipeline run` and `demo` do.

The runs land in the instance that `synth-pipeline up` shows, so a person finds them in the UI afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from synth_pipeline.archives import Form
from synth_pipeline.errors import InputError
from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.assets import FEATURES, TICKS, all_assets
from synth_pipeline.orchestration.partitions import DAYS, INSTRUMENTS, cell
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings

_CONFIG = "dagster.yaml"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Materialized(NamedTuple):
    """One asset partition of a finished run."""

    asset: str
    day: date
    skipped: bool
    """Nothing it depends on had changed."""
    run_id: str
    """Dagster's."""


_RUN_ASSETS = ("checkpoint", "synthetic_dataset", "fidelity_report")
"""What is made of every generator, upstream first; who is champion is decided at night."""


def instance_folder(settings: Settings) -> Path:
    """Return the DAGSTER_HOME of a home, with the project's instance configuration in it."""
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _CONFIG).exists():
        beside = (Path(__file__).with_name(_CONFIG), Path(__file__).parents[2] / _CONFIG)
        shutil.copyfile(next(path for path in beside if path.exists()), folder / _CONFIG)
    return folder


def materialize(
    settings: Settings,
    instrument: Instrument,
    days: Sequence[date],
    generators: Sequence[str],
    sources: Sequence[Path],
    *,
    seconds: float = 3600.0,
    form: Form | None = None,
    progress: Progress = silent,
) -> list[Materialized]:
    """Materialize raw capture to features of every day, then the generators' assets of the last.

    What is unchanged is skipped by the verbs. An error of a verb is raised as it is.
    """
    assets = all_assets()
    base = [dg.AssetKey("raw_capture"), *map(dg.AssetKey, TICKS), FEATURES]
    of_generators = [dg.AssetKey([name, asset]) for name in generators for asset in _RUN_ASSETS]
    config: dict[str, Any] = {"sources": [str(path.resolve()) for path in sources], "seconds": seconds}
    if form:
        config |= {"columns": dict(form.columns), "timezone": form.timezone}
    raw = {"raw_capture": {"config": config}}
    for day in days:
        require_partition(settings, day)
    with opened_instance(settings, [instrument]) as instance:
        done: list[Materialized] = []
        for day in days:
            selected = [*base, *(of_generators if day == days[-1] else [])]
            done += run_cell(instance, assets, Verbs(settings, progress), instrument, day, selected, ops=raw)
    return done


@contextmanager
def opened_instance(settings: Settings, instruments: Sequence[Instrument]) -> Iterator[dg.DagsterInstance]:
    """Open the instance of a home with these instruments among its partitions."""
    with dg.DagsterInstance.from_config(str(instance_folder(settings))) as instance:
        pools.set_slots(instance)
        known = set(instance.get_dynamic_partitions(INSTRUMENTS.name or ""))
        if fresh := [str(each) for each in instruments if str(each) not in known]:
            instance.add_dynamic_partitions(INSTRUMENTS.name or "", fresh)
        yield instance


def run_cell(
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetsDefinition],
    verbs: Verbs,
    instrument: Instrument,
    day: date,
    selected: Sequence[dg.AssetKey],
    *,
    ops: Mapping[str, Any] | None = None,
) -> list[Materialized]:
    """Run some assets of one cell in this process. An error of a verb is raised as it is."""
    run = dg.materialize(
        assets,
        selection=dg.AssetSelection.assets(*selected),
        partition_key=cell(instrument, day),
        resources={"verbs": verbs},
        instance=instance,
        run_config={"ops": dict(ops or {}), **_QUIET},
        tags=_tags(instrument, day),
    )
    return _materialized(run, day)


def run_chunk(
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetsDefinition],
    verbs: Verbs,
    instrument: Instrument,
    days: Sequence[date],
    selected: Sequence[dg.AssetKey],
) -> dg.ExecuteInProcessResult:
    """Run some assets of days that follow one another, as one run in this process; what fails is in the result."""
    first, last = (cell(instrument, day) for day in (days[0], days[-1]))
    return dg.materialize(
        assets,
        selection=dg.AssetSelection.assets(*selected),
        resources={"verbs": verbs},
        instance=instance,
        raise_on_error=False,
        run_config=_QUIET,
        tags=_tags(instrument, days[0])
        | {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
    )


def require_partition(settings: Settings, day: date) -> None:
    """Raise `InputError` for a day that Dagster has no partition for."""
    if not DAYS.has_partition_key(day.isoformat()):
        raise InputError(
            f"day {day} is no partition, which run from SYNTH_FIRST_DAY={settings.first_day} to today: set it"
        )


def _materialized(run: dg.ExecuteInProcessResult, day: date) -> list[Materialized]:
    return [
        Materialized(
            asset=event.materialization.asset_key.to_user_string(),
            day=day,
            skipped=bool(event.materialization.metadata["skipped"].value),
            run_id=run.run_id,
        )
        for event in run.get_asset_materialization_events()
    ]


def _tags(instrument: Instrument, day: date) -> dict[str, Any]:
    return {"synth/instrument": str(instrument), "synth/day": day.isoformat()}
