"""What there is: plug-ins, metrics, and the chain behind a result."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from synth_pipeline.cli.face import (
    Json,
    app,
    print_json,
    print_listing,
)
from synth_pipeline.settings import Settings


def _list_plugins(package: Any, as_json: bool) -> None:
    from synth_pipeline import plugins

    found = {name: plugins.headline(package, name) for name in plugins.names(package)}
    print_listing(found, as_json)


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

    print_listing(
        {name: f"{metric.what} ({metric.goal})" for name, metric in (registered() | registered(joint=True)).items()},
        as_json,
    )


@app.command(epilog="Example: synth-pipeline lineage reports/binance_usdm.BTCUSDT/2024-08-08/wgan_gp")
def lineage(
    ref: Annotated[
        str, typer.Argument(help="A partition, a file of one, an MLflow run id or a digest.", metavar="REF")
    ],
    as_json: Json = False,
) -> None:
    """Print the chain from a report (or any other partition) back to raw bytes, with digests."""
    from synth_pipeline.lineage import graph

    node = graph.chain(Settings().data, ref)
    if as_json:
        print_json(graph.to_json(node))
    else:
        print(graph.render(node))  # noqa: T201 - this is the face
