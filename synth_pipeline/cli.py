"""The command line: one command a verb, thin over `stages`.

Results go to stdout, as a table or with `--json` as one JSON document; everything else goes to stderr. Exit codes: 0
done, 2 the input is wrong (one line says what and how to mend it), 1 a fault of ours.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from synth_pipeline import __version__
from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.progress import Progress, silent
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.settings import Settings

if TYPE_CHECKING:
    from synth_pipeline.stages import Workspace

app = typer.Typer(
    help="Raw exchange captures to synthetic markets worth trusting.",
    epilog="Start with `synth-pipeline demo`, then `synth-pipeline run CAPTURE.gz --venue V --symbol S`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Sources = Annotated[list[Path], typer.Argument(help="Recorded files, compressed or not.", metavar="FILE")]
Venue = Annotated[str | None, typer.Option(help="Venue, such as binance_usdm; read from the files when left out.")]
Symbol = Annotated[str | None, typer.Option(help="Symbol, such as BTCUSDT; read from the files when left out.")]
Generators = Annotated[str | None, typer.Option(help="Generators by comma; default: the setting SYNTH_GENERATORS.")]
InstrumentName = Annotated[
    str, typer.Argument(help="venue.SYMBOL, such as binance_usdm.BTCUSDT.", metavar="INSTRUMENT")
]
Day = Annotated[str, typer.Argument(help="UTC day, such as 2024-08-08.", metavar="DAY")]
GeneratorName = Annotated[
    str, typer.Argument(help="Generator; `synth-pipeline generators` lists them.", metavar="GENERATOR")
]

_out, _err = Console(), Console(stderr=True)
DEMO = (Instrument("simulated", "BTCUSDT"), date(2025, 1, 6))
"""The cell that `demo` makes: an hour of the embedded market."""


def main() -> None:
    """Run the command line; the entry point of `synth-pipeline` and `python -m synth_pipeline`."""
    try:
        app(prog_name="synth-pipeline")
    except InputError as error:
        _complain(error, 2)
    except SynthError as error:
        _complain(error, 1)
    except BrokenPipeError:
        sys.exit(1)


def _complain(error: SynthError, code: int) -> None:
    print(f"synth-pipeline: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - this is the face
    sys.exit(code)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201 - this is the face


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar on a terminal and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=_err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=note or None)

        yield show


@contextmanager
def _workspace() -> Iterator[Workspace]:
    from synth_pipeline.stages import Workspace

    with _progress() as progress:
        yield Workspace.of(Settings(), progress=progress)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"synth-pipeline {__version__}")  # noqa: T201 - this is the face
        raise typer.Exit


@app.command(epilog="Example: synth-pipeline demo --seconds 900")
def demo(
    seconds: Annotated[float, typer.Option(help="Length of the simulated recording.")] = 3600.0,
    generators: Generators = None,
    as_json: Json = False,
) -> None:
    """Run the whole graph on the embedded market; needs no data and no network."""
    document = _run_graph(DEMO[0], [DEMO[1]], [], generators, seconds)
    if as_json:
        _print_json(document)
        return
    _print_run(document)
    itself = sys.argv[0]  # as it was called: the virtual environment need not be active
    _out.print("\nNext: look at the graph, the runs and their lineage in the browser")
    _out.print(f"  {itself} up", highlight=False)
    _out.print("or run it on a capture of your own")
    _out.print(f"  {itself} run CAPTURE.gz --venue binance_usdm --symbol BTCUSDT", highlight=False, soft_wrap=True)


@app.command(epilog="Example: synth-pipeline run btcusdt_20240808.gz --venue binance_usdm --symbol BTCUSDT --json")
def run(
    sources: Sources,
    venue: Venue = None,
    symbol: Symbol = None,
    generators: Generators = None,
    as_json: Json = False,
) -> None:
    """Take recorded files the whole way: ticks, features, fitted generators, datasets, fidelity reports."""
    from synth_pipeline import stages
    from synth_pipeline.capture.importing import days_of

    instrument = stages.identify(sources, venue, symbol)
    document = _run_graph(instrument, days_of(sources), sources, generators, 0.0)
    _print_json(document) if as_json else _print_run(document)


def _run_graph(
    instrument: Instrument, days: list[date], sources: list[Path], generators: str | None, seconds: float
) -> dict[str, Any]:
    from synth_pipeline import generators as package
    from synth_pipeline import plugins, stages
    from synth_pipeline.orchestration import inprocess

    started = time.perf_counter()
    settings = Settings() if generators is None else Settings(generators=generators)
    for name in settings.generator_names:
        plugins.require(package, name)
    with _progress() as progress:
        done = inprocess.materialize(
            settings, instrument, days, settings.generator_names, sources, seconds=seconds, progress=progress
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
    _out.print(f"[bold]{document['instrument']}[/bold]  {', '.join(document['partitions'])}")
    rows = ", ".join(f"{count:,} {name}" for name, count in document["rows"].items() if count)
    _out.print(f"  ticks      {rows}", highlight=False)
    agreed = (
        "no quote stream to compare with"
        if agreement is None
        else f"{agreement:.2%} of {book['book_ticker_matched']:,} quotes agree"
    )
    _out.print(f"  book       {book['gaps']} gaps, {book['crossed']} crossed, {agreed}", highlight=False)
    if document["quarantined"]:
        _out.print(
            f"  quarantine {', '.join(f'{count:,} {reason}' for reason, count in document['quarantined'].items())}"
        )
    _out.print(f"  features   {features['rows']:,} rows", highlight=False)
    table = Table("generator", "fidelity", "fresh real data")
    for name, found in document["generators"].items():
        table.add_row(name, f"{found['fidelity']:.1f}", f"{found['floor']:.1f}")
    _out.print(table)
    for name, found in document["generators"].items():
        _out.print(f"report of {name}: {found['report']}", soft_wrap=True, highlight=False)
    made, skipped = len(document["materialized"]), len(document["skipped"])
    _out.print(f"{made} assets made, {skipped} unchanged and skipped, {document['seconds']:.1f} s", highlight=False)


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
    with _workspace() as workspace:
        made = [stages.record(workspace, what, each, sources or (), seconds=seconds) for each in days]
    _print_manifests(made, as_json)


@app.command(epilog="Example: synth-pipeline ingest binance_usdm.BTCUSDT 2024-08-08")
def ingest(instrument: InstrumentName, day: Day, as_json: Json = False) -> None:
    """Turn one recorded day into tick tables."""
    from synth_pipeline import stages

    with _workspace() as workspace:
        _print_manifests([stages.ingest(workspace, Instrument.parse(instrument), parse_day(day))], as_json)


@app.command(epilog="Example: synth-pipeline features binance_usdm.BTCUSDT 2024-08-08")
def features(instrument: InstrumentName, day: Day, as_json: Json = False) -> None:
    """Compute one day of grid features from its ticks."""
    from synth_pipeline import stages

    with _workspace() as workspace:
        _print_manifests([stages.featurize(workspace, Instrument.parse(instrument), parse_day(day))], as_json)


@app.command(epilog="Example: synth-pipeline fit binance_usdm.BTCUSDT 2024-08-08 wgan_gp --set steps=2000")
def fit(
    instrument: InstrumentName,
    day: Day,
    generator: GeneratorName,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter as name=value; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a generator on the features of the look-back that ends with a day."""
    from synth_pipeline import stages

    parameters = dict(_setting(text) for text in settings or [])
    with _workspace() as workspace:
        made = stages.fit(workspace, Instrument.parse(instrument), parse_day(day), generator, parameters)
        _print_manifests([made], as_json)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"parameter {text!r} is not of the form name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


@app.command(epilog="Example: synth-pipeline sample binance_usdm.BTCUSDT 2024-08-08 wgan_gp --paths 100 --steps 7200")
def sample(
    instrument: InstrumentName,
    day: Day,
    generator: GeneratorName,
    paths: Annotated[int | None, typer.Option(min=1, help="Independent paths.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Grid steps of each path.")] = None,
    as_json: Json = False,
) -> None:
    """Sample connected paths from a fitted generator into a dataset."""
    from synth_pipeline import stages

    with _workspace() as workspace:
        made = stages.sample(
            workspace, Instrument.parse(instrument), parse_day(day), generator, paths=paths, steps=steps
        )
        _print_manifests([made], as_json)


@app.command(epilog="Example: synth-pipeline evaluate binance_usdm.BTCUSDT 2024-08-08 wgan_gp")
def evaluate(instrument: InstrumentName, day: Day, generator: GeneratorName, as_json: Json = False) -> None:
    """Score a dataset against held-out real data and write the fidelity report."""
    from synth_pipeline import stages

    with _workspace() as workspace:
        _print_manifests([stages.evaluate(workspace, Instrument.parse(instrument), parse_day(day), generator)], as_json)


def _print_manifests(made: list[Any], as_json: bool) -> None:
    home = Settings().home
    if as_json:
        documents = [
            {
                "ref": manifest.ref,
                "skipped": manifest.skipped,
                "digest": manifest.digest,
                "files": {
                    name: str(home / manifest.ref / artifact.path) for name, artifact in manifest.outputs.items()
                },
                "facts": manifest.facts,
                "mlflow_run_id": manifest.mlflow_run_id,
            }
            for manifest in made
        ]
        _print_json(documents if len(documents) > 1 else documents[0])
        return
    table = Table("partition", "", "rows", "seconds", "digest")
    for manifest in made:
        state, rows = "unchanged" if manifest.skipped else "made", manifest.rows
        table.add_row(
            manifest.ref, state, f"{rows:,}" if rows else "", f"{manifest.facts['seconds']:.1f}", manifest.digest[:12]
        )
    _out.print(table)


def _list_plugins(package: Any, as_json: bool) -> None:
    from synth_pipeline import plugins

    found = {name: plugins.headline(package, name) for name in plugins.names(package)}
    _print_listing(found, as_json)


def _print_listing(found: dict[str, str], as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    table = Table("name", "what it is")
    for name, headline in found.items():
        table.add_row(name, headline)
    _out.print(table)


@app.command()
def generators(as_json: Json = False) -> None:
    """List the generators."""
    from synth_pipeline import generators as package

    _list_plugins(package, as_json)


@app.command()
def venues(as_json: Json = False) -> None:
    """List the venues that have a wire format."""
    from synth_pipeline import venues as package

    _list_plugins(package, as_json)


@app.command()
def archives(as_json: Json = False) -> None:
    """List the formats of recorded files."""
    from synth_pipeline import archives as package

    _list_plugins(package, as_json)


@app.command()
def metrics(as_json: Json = False) -> None:
    """List the fidelity metrics with their goals."""
    from synth_pipeline.fidelity.registry import metrics as registered

    _print_listing({name: f"{metric.what} ({metric.goal})" for name, metric in registered().items()}, as_json)


@app.command(epilog="Example: synth-pipeline lineage reports/binance_usdm.BTCUSDT/2024-08-08/wgan_gp")
def lineage(
    ref: Annotated[
        str, typer.Argument(help="A partition, a file of one, an MLflow run id or a digest.", metavar="REF")
    ],
    as_json: Json = False,
) -> None:
    """Print the chain from a report (or any other partition) back to raw bytes, with digests."""
    from synth_pipeline.lineage import graph

    node = graph.chain(Settings().home, ref)
    if as_json:
        _print_json(graph.to_json(node))
    else:
        print(graph.render(node))  # noqa: T201 - this is the face


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
) -> None:
    """Open the Dagster UI, its daemon and the MLflow UI; one Ctrl-C stops all."""
    from synth_pipeline.orchestration import servers

    servers.up(Settings(), port, mlflow_port, _err.print)
