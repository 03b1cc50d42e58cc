"""What every command shares: the application, option types, tables, JSON, the progress bar, the workspace."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from synth_pipeline.errors import InputError
from synth_pipeline.progress import Progress, silent
from synth_pipeline.settings import Settings

if TYPE_CHECKING:
    from synth_pipeline.archives import Form
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
Columns = Annotated[
    str,
    typer.Option(help="What the columns of a table mean, such as time=DateTime,price=Price,size=Volume."),
]
Timezone = Annotated[str, typer.Option(help="Time zone of a table's wall times, such as America/Chicago.")]
Generators = Annotated[str | None, typer.Option(help="Generators by comma; default: the setting SYNTH_GENERATORS.")]
InstrumentName = Annotated[
    str, typer.Argument(help="venue.SYMBOL, such as binance_usdm.BTCUSDT.", metavar="INSTRUMENT")
]
CellName = Annotated[
    str,
    typer.Argument(help="UTC day of features, such as 2024-08-08, or timeframe of bars, such as 1d.", metavar="CELL"),
]
GeneratorName = Annotated[
    str, typer.Argument(help="Generator; `synth-pipeline generators` lists them.", metavar="GENERATOR")
]
ParameterTexts = Annotated[list[str] | None, typer.Option("--set", help="A parameter as name=value; may be repeated.")]

out, err = Console(), Console(stderr=True)


def form_of(columns: str, timezone: str) -> Form | None:
    """Return what the options say of a table, None when they say nothing. Raises `InputError` for another form."""
    from synth_pipeline.archives import Form

    pairs = [text.partition("=") for text in columns.split(",") if text]
    if wrong := next((text for text, equals, value in pairs if not (equals and value)), None):
        raise InputError(f"--columns {wrong!r} is not of the form meaning=column, such as time=DateTime,price=Price")
    return Form({role.strip(): name.strip() for role, _, name in pairs}, timezone) if pairs or timezone else None


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(document, indent=2))  # noqa: T201 - this is the face


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a bar on a terminal and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=note or None)

        yield show


@contextmanager
def opened_workspace() -> Iterator[Workspace]:
    """Open the workspace that the settings name, with a progress bar."""
    from synth_pipeline.stages import Workspace

    with progress_bar() as progress:
        yield Workspace.of(Settings(), progress=progress)


def print_manifests(made: list[Any], as_json: bool) -> None:
    """Print what was made, or skipped, one line a partition."""
    data = Settings().data
    if as_json:
        documents = [
            {
                "ref": manifest.ref,
                "skipped": manifest.skipped,
                "digest": manifest.digest,
                "files": {
                    name: str(data / manifest.ref / artifact.path) for name, artifact in manifest.outputs.items()
                },
                "facts": manifest.facts,
                "mlflow_run_id": manifest.mlflow_run_id,
            }
            for manifest in made
        ]
        print_json(documents if len(documents) > 1 else documents[0])
        return
    table = Table(Column("partition", overflow="fold"), "", "rows", "seconds", "digest")
    for manifest in made:
        state, rows = "unchanged" if manifest.skipped else "made", manifest.rows
        table.add_row(
            manifest.ref, state, f"{rows:,}" if rows else "", f"{manifest.facts['seconds']:.1f}", manifest.digest[:12]
        )
    out.print(table)


def print_listing(found: dict[str, str], as_json: bool) -> None:
    """Print names with a line about each."""
    if as_json:
        print_json(found)
        return
    table = Table("name", "what it is")
    for name, headline in found.items():
        table.add_row(name, headline)
    out.print(table)
