"""What there is: plug-ins and metrics."""

from __future__ import annotations

from typing import Any

from synth_pipeline.cli.face import (
    Json,
    app,
    print_listing,
)


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
