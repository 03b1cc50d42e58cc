"""The way back and forth again: lineage, reproduce, bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from synth_pipeline.cli.face import Json, app, err, opened_workspace, out, print_json
from synth_pipeline.errors import InputError
from synth_pipeline.settings import Settings

Ref = Annotated[
    str, typer.Argument(help="A partition, a file of one, an MLflow or Dagster run id, or a digest.", metavar="REF")
]


@app.command(
    epilog="Examples: synth-pipeline lineage reports/binance_usdm.BTCUSDT/2024-08-08/wgan_gp; "
    "synth-pipeline lineage report.html --write lineage.html"
)
def lineage(
    ref: Ref,
    write: Annotated[
        Path | None, typer.Option(help="Draw it into this file too: .html, or .dot for Graphviz.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the chain from a report (or any other partition) back to raw bytes, with digests."""
    from synth_pipeline.lineage import drawing, graph

    node = graph.chain(Settings().data, ref)
    if write is not None:
        ways = {".html": drawing.to_html, ".dot": drawing.to_dot, ".gv": drawing.to_dot}
        if (way := ways.get(write.suffix)) is None:
            raise InputError(f"{write} is neither .html nor .dot: name one of these")
        _written(write, way(node))
    if as_json:
        print_json(graph.to_json(node))
    else:
        print(graph.render(node))  # noqa: T201 - this is the face


def _written(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from error


@app.command(
    epilog="Examples: synth-pipeline reproduce reports/simulated.BTCUSDT/2025-01-06/wgan_gp; "
    "synth-pipeline reproduce paper.zip --json"
)
def reproduce(
    ref: Annotated[str, typer.Argument(help="What `lineage` takes, or a bundle.", metavar="REF|BUNDLE")],
    keep: Annotated[
        Path | None, typer.Option(help="Rebuild in this empty folder and leave it.", metavar="FOLDER")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rebuild a result from raw bytes in a clean home and compare digests; exit 1 at the first stage that differs."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        found = stages.reproduce(workspace, ref, home=keep)
    first = found.first_difference
    if as_json:
        print_json(
            {
                "ref": found.ref,
                "identical": found.is_identical,
                "stages": [
                    {
                        "ref": each.ref,
                        "recorded": each.recorded,
                        "rebuilt": each.rebuilt,
                        "identical": each.is_identical,
                        "copied": each.is_copy,
                    }
                    for each in found.stages
                ],
                "first_difference": None if first is None else {"ref": first.ref, "why": first.why},
                "notes": list(found.notes),
            }
        )
    else:
        table = Table("partition", "", "recorded", "rebuilt")
        for each in found.stages:
            state = "differs" if not each.is_identical else "copied, rehashed" if each.is_copy else "identical"
            table.add_row(each.ref, state, each.recorded[:12], (each.rebuilt or "none")[:12])
        out.print(table)
        for note in found.notes:
            out.print(f"note: {note}", highlight=False, soft_wrap=True)
    if first is not None:
        err.print(f"synth-pipeline: {first.ref} differs: {first.why}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    if not as_json:
        out.print(f"{found.ref} is reproduced: every digest is as recorded", highlight=False, soft_wrap=True)


@app.command(epilog="Example: synth-pipeline bundle reports/binance_usdm.BTCUSDT/2024-08-08/wgan_gp paper.zip --raw")
def bundle(
    ref: Ref,
    path: Annotated[Path, typer.Argument(help="The ZIP to write.", metavar="FILE.zip")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Put the recordings in as well: it then needs nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a result and everything it was made from into one ZIP that `reproduce` takes on another machine."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        made = stages.bundle(workspace, ref, path, raw=raw)
    size = path.stat().st_size
    if as_json:
        print_json(
            {"ref": made.ref, "path": str(path), "bytes": size, "refs": list(made.refs), "without": list(made.without)}
        )
        return
    out.print(f"{path}: {len(made.refs)} partitions, {size / 1e6:,.1f} MB", highlight=False)
    if made.without:
        out.print(f"without the bytes of {', '.join(made.without)}: --raw adds them", highlight=False, soft_wrap=True)
