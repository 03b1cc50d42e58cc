"""Many days of many instruments: backfill."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from synth_pipeline.cli.face import Json, app, err, out, print_json, progress_bar
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.settings import Settings

if TYPE_CHECKING:
    from synth_pipeline.orchestration.backfill import Outcome, Plan
    from synth_pipeline.progress import Progress


@app.command(epilog="Example: synth-pipeline backfill binance_usdm.BTCUSDT,binance_usdm.ETHUSDT 2024-08-01:2024-10-29")
def backfill(
    instruments: Annotated[str, typer.Argument(help="venue.SYMBOL, several by comma.", metavar="INSTRUMENTS")],
    days: Annotated[str, typer.Argument(help="UTC days FIRST:LAST, both included.", metavar="FIRST:LAST")],
    assets: Annotated[
        str, typer.Option(help="How far: ticks, features, or models, which fits the generators of every day too.")
    ] = "features",
    workers: Annotated[int | None, typer.Option(min=1, help="Chunks at a time; default: one for each core.")] = None,
    here: Annotated[
        bool, typer.Option("--here", help="In processes of this command, even where a Dagster server runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring days up to date, in chunks: what is current is skipped, what fails is named and stops nothing else."""
    from synth_pipeline.orchestration import backfill as backfills

    first, colon, last = days.partition(":")
    named = [Instrument.parse(name.strip()) for name in instruments.split(",") if name.strip()]
    if not named:
        raise InputError("no instrument is named: give one such as binance_usdm.BTCUSDT, several by comma")
    settings = Settings()
    plan = backfills.plan(settings, named, parse_day(first), parse_day(last if colon else first), assets)
    with progress_bar() as progress:
        found, where = _run(settings, plan, workers or os.cpu_count() or 1, progress, here=here)
    if as_json:
        document = {"made": sorted(found.made), "current": [*plan.current], "missing": [*plan.missing]}
        print_json(document | {"failed": found.failed, "backfill_id": where})
    else:
        _print(plan, found)
    if found.failed:
        raise typer.Exit(1)


def _run(settings: Settings, plan: Plan, workers: int, progress: Progress, *, here: bool) -> tuple[Outcome, str | None]:
    from synth_pipeline.orchestration import backfill as backfills
    from synth_pipeline.orchestration import server

    if not plan.chunks:
        return backfills.Outcome(), None
    if here or not server.serves(settings):
        return backfills.run_here(settings, plan, workers, progress), None
    backfill_id = server.launch(settings, plan)
    err.print(f"backfill {backfill_id} on {settings.dagster_url}/runs/b/{backfill_id}", soft_wrap=True, highlight=False)
    return server.watch(settings, plan, backfill_id, progress), backfill_id


def _print(plan: Plan, found: Outcome) -> None:
    told = f"{len(found.made)} cells made, {len(plan.current)} unchanged and skipped, {len(plan.missing)} not recorded"
    out.print(f"{told}, {len(found.failed)} failed", highlight=False)
    for name, error in sorted(found.failed.items()):
        out.print(f"  {name}: {error}", highlight=False, soft_wrap=True, markup=False)
