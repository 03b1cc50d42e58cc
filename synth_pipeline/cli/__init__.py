"""The command line: one command a verb, thin over `stages`.

Results go to stdout, as a table or with `--json` as one JSON document; everything else goes to stderr. Exit codes: 0
done, 2 the input is wrong (one line says what and how to mend it), 1 a fault of ours.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from synth_pipeline import __version__
from synth_pipeline.cli import (
    backfill,
    bars,
    capture,
    exchange,
    export,
    graph,
    inbox,
    lineage,
    listings,
    models,
    servers,
    simulate,
    store,
    tick_exports,
)
from synth_pipeline.cli.face import app
from synth_pipeline.errors import InputError, SynthError

__all__ = [
    "app",
    "backfill",
    "bars",
    "capture",
    "exchange",
    "export",
    "graph",
    "inbox",
    "lineage",
    "listings",
    "main",
    "models",
    "servers",
    "simulate",
    "store",
    "tick_exports",
]


def main() -> None:
    """Run the command line; the entry point of `synth-pipeline` and `python -m synth_pipeline`."""
    try:
        sys.exit(app(prog_name="synth-pipeline", standalone_mode=False) or 0)
    except TyperException as error:
        _correct(error)
    except typer.Abort:
        _complain(SynthError("stopped: what it reads from ended"), 1)
    except InputError as error:
        _complain(error, 2)
    except SynthError as error:
        _complain(error, 1)
    except BrokenPipeError:
        sys.exit(1)


def _correct(error: TyperException) -> None:
    """Say what is wrong with the words of a command, in one line; a command without any is shown its help."""
    told, context = error.format_message(), getattr(error, "ctx", None)
    if context is not None and told == context.get_help():
        print(told, file=sys.stderr)  # noqa: T201 - this is the face
        sys.exit(error.exit_code)
    command = context.command_path if context else "synth-pipeline"
    _complain(InputError(f"{told.rstrip('.')} (see {command} --help)"), error.exit_code)


def _complain(error: SynthError, code: int) -> None:
    print(f"synth-pipeline: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - this is the face
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"synth-pipeline {__version__}")  # noqa: T201 - this is the face
        raise typer.Exit
