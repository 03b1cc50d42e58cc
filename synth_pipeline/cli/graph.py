"""The graph and its first stages: demo, run, ingest, features."""

from __future__ import annotations

import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from synth_pipeline.cli.face import (
    Columns,
    Generators,
    InstrumentName,
    Json,
    Sources,
    Symbol,
    Timezone,
    Venue,
    app,
    form_of,
    opened_workspace,
    out,
    print_json,
    print_manifests,
    progress_bar,
)
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.settings import Settings

if TYPE_CHECKING:
    from synth_pipeline.archives import Form

DEMO = (Instrument("simulated", "BTCUSDT"), date(2025, 1, 6))
"""The cell that `demo` makes: an hour of the embedded market."""


@app.command(epilog="Example: synth-pipeline demo --seconds 900")
def demo(
    seconds: Annotated[float, typer.Option(help="Length of the simulated recording.")] = 3600.0,
    generators: Generators = None,
    as_json: Json = False,
) -> None:
    """Run the whole graph on the embedded market; needs no data and no network."""
    document = _run_graph(DEMO[0], [DEMO[1]], [], generators, seconds)
    if as_json:
        print_json(document)
        return
    _print_run(document)
    itself = sys.argv[0]  # as it was called: the virtual environment need not be active
    out.print("\nNext: look at the graph, the runs and their lineage in the browser")
    out.print(f"  {itself} up", highlight=False)
    out.print("or run it on a capture of your own")
    out.print(f"  {itself} run CAPTURE.gz --venue binance_usdm --symbol BTCUSDT", highlight=False, soft_wrap=True)


@app.command(epilog="Example: synth-pipeline run btcusdt_20240808.gz --venue binance_usdm --symbol BTCUSDT --json")
def run(
    sources: Sources,
    venue: Venue = None,
    symbol: Symbol = None,
    columns: Columns = "",
    timezone: Timezone = "",
    generators: Generators = None,
    as_json: Json = False,
) -> None:
    """Take recorded files the whole way: ticks, features, fitted generators, datasets, fidelity reports."""
    from synth_pipeline import stages
    from synth_pipeline.capture.importing import days_of

    form = form_of(columns, timezone)
    instrument = stages.identify(sources, venue, symbol, form)
    document = _run_graph(instrument, days_of(sources, form), sources, generators, 0.0, form)
    print_json(document) if as_json else _print_run(document)


def _run_graph(
    instrument: Instrument,
    days: list[date],
    sources: list[Path],
    generators: str | None,
    seconds: float,
    form: Form | None = None,
) -> dict[str, Any]:
    from synth_pipeline import generators as package
    from synth_pipeline import plugins, stages
    from synth_pipeline.orchestration import inprocess

    started = time.perf_counter()
    settings = Settings() if generators is None else Settings(generators=generators)
    for name in settings.generator_names:
        plugins.require(package, name)
    with progress_bar() as progress:
        done = inprocess.materialize(
            settings, instrument, days, settings.generator_names, sources, seconds=seconds, form=form, progress=progress
        )
    document = stages.summary(stages.Workspace.of(settings), instrument, days, settings.generator_names)
    return document | {
        "materialized": [f"{step.asset} {step.day}" for step in done if not step.skipped],
        "skipped": [f"{step.asset} {step.day}" for step in done if step.skipped],
        "dagster": {"run_ids": sorted({step.run_id for step in done})},
        "seconds": round(time.perf_counter() - started, 2),
    }


def _print_run(document: dict[str, Any]) -> None:
    book, features = document["book"], document["features"]
    agreement = book["book_ticker_agreement"]
    out.print(f"[bold]{document['instrument']}[/bold]  {', '.join(document['partitions'])}")
    rows = ", ".join(f"{count:,} {name}" for name, count in document["rows"].items() if count)
    out.print(f"  ticks      {rows}", highlight=False)
    agreed = (
        "no quote stream to compare with"
        if agreement is None
        else f"{agreement:.2%} of {book['book_ticker_matched']:,} quotes agree"
    )
    out.print(f"  book       {book['gaps']} gaps, {book['crossed']} crossed, {agreed}", highlight=False)
    if document["quarantined"]:
        out.print(
            f"  quarantine {', '.join(f'{count:,} {reason}' for reason, count in document['quarantined'].items())}"
        )
    out.print(f"  features   {features['rows']:,} rows", highlight=False)
    table = Table("generator", "fidelity", "fresh real data")
    for name, found in document["generators"].items():
        table.add_row(name, f"{found['fidelity']:.1f}", f"{found['floor']:.1f}")
    out.print(table)
    for name, found in document["generators"].items():
        out.print(f"report of {name}: {found['report']}", soft_wrap=True, highlight=False)
    made, skipped = len(document["materialized"]), len(document["skipped"])
    out.print(f"{made} assets made, {skipped} unchanged and skipped, {document['seconds']:.1f} s", highlight=False)


@app.command(epilog="Example: synth-pipeline ingest binance_usdm.BTCUSDT 2024-08-01:2024-08-08 --workers 4")
def ingest(
    instrument: InstrumentName,
    days: Annotated[
        str, typer.Argument(help="UTC day, or FIRST:LAST, both included, of which the recorded ones.", metavar="DAY")
    ],
    workers: Annotated[int | None, typer.Option(min=1, help="Days at a time; default: one for each core.")] = None,
    as_json: Json = False,
) -> None:
    """Turn recorded days into tick tables; what is there already is skipped."""
    from synth_pipeline import stages

    first, colon, last = days.partition(":")
    with opened_workspace() as workspace:
        what, wanted = Instrument.parse(instrument), [parse_day(first)]
        if colon:
            wanted = stages.recorded_days(workspace, what, wanted[0], parse_day(last))
        made = stages.ingest_days(workspace, what, wanted, workers or os.cpu_count() or 1)
    print_manifests(made, as_json)


@app.command(
    epilog="Examples: synth-pipeline features binance_usdm.BTCUSDT 2024-08-08; synth-pipeline features depth.csv "
    "--start 2024-01-01T00:00:00 --end 2024-01-01T00:30:00 --trades trades.csv"
)
def features(
    source: Annotated[str, typer.Argument(help="venue.SYMBOL, or a CSV file sorted by time.", metavar="SOURCE")],
    day: Annotated[str | None, typer.Argument(help="UTC day of an instrument, to be kept.", metavar="DAY")] = None,
    start: Annotated[
        str | None, typer.Option(help="Instead of a day: first moment, such as 2024-01-01T00:00:00.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="First moment after the window.")] = None,
    step: Annotated[float | None, typer.Option(help="Seconds of a bucket; default: the setting SYNTH_STEP_MS.")] = None,
    trades: Annotated[Path | None, typer.Option(help="CSV file of trades, sorted by time.")] = None,
    columns: Annotated[
        str, typer.Option(help="Every column of the CSV file by comma, where its header is not clear.")
    ] = "",
    trade_columns: Annotated[str, typer.Option(help="The same of the trades.")] = "",
    time_column: Annotated[str | None, typer.Option("--time", help="Time column, if several could be.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the CSV files' times: s, ms, us, ns or iso.")] = None,
    decimals: Annotated[int, typer.Option(min=0, max=18, help="Decimals that prices and sizes of CSV files have.")] = 8,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Round prices and sizes that have more, instead of leaving them out.")
    ] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Parquet file to write the rows to.")] = None,
    as_json: Json = False,
) -> None:
    """Compute grid features: of one day from its ticks, or of any window from the store or from CSV files."""
    from synth_pipeline import stages
    from synth_pipeline.cli import windows

    if day is not None and start is None and end is None:
        with opened_workspace() as workspace:
            print_manifests([stages.featurize(workspace, Instrument.parse(source), parse_day(day))], as_json)
        return
    if day is not None or start is None or end is None:
        raise InputError("features are of a DAY, or of a window with both --start and --end: give one of the two")
    seconds = Settings().step_ms / 1000 if step is None else step
    if windows.is_csv(source):
        files = windows.csv_files(Path(source), trades, (columns, trade_columns), time_column, unit)
        windows.print_csv_features(*files, (start, end, seconds), (decimals, nearest), to, as_json)
    else:
        windows.print_store_features(Instrument.parse(source), (start, end, seconds), to, as_json)
