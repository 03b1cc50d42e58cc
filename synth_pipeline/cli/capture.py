"""Raw captures: record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth_pipeline.cli.face import (
    Json,
    Symbol,
    Venue,
    app,
    opened_workspace,
    print_manifests,
)
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument, parse_day


@app.command(epilog="Example: synth-pipeline record --instrument simulated.BTCUSDT --day 2025-01-06 --seconds 600")
def record(
    sources: Annotated[list[Path] | None, typer.Argument(help="Recorded files.", metavar="FILE")] = None,
    venue: Venue = None,
    symbol: Symbol = None,
    instrument: Annotated[
        str | None, typer.Option(help="Instead of files: an instrument of the embedded market.")
    ] = None,
    day: Annotated[str | None, typer.Option(help="UTC day of a simulated recording.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of a simulated recording.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Bring raw bytes into the store, from recorded files or from the embedded market."""
    from synth_pipeline import stages
    from synth_pipeline.capture.importing import days_of

    if sources:
        what, days = stages.identify(sources, venue, symbol), days_of(sources)
    elif instrument and day:
        what, days = Instrument.parse(instrument), [parse_day(day)]
    else:
        raise InputError("nothing to record: give recorded files, or --instrument simulated.SYMBOL and --day")
    with opened_workspace() as workspace:
        made = [stages.record(workspace, what, each, sources or (), seconds=seconds) for each in days]
    print_manifests(made, as_json)
