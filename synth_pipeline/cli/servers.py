"""The browser: Dagster, its daemon and MLflow."""

from __future__ import annotations

from typing import Annotated

import typer

from synth_pipeline.cli.face import (
    app,
    err,
)
from synth_pipeline.settings import Settings


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
) -> None:
    """Open the Dagster UI, its daemon and the MLflow UI; one Ctrl-C stops all."""
    from synth_pipeline.orchestration import servers

    servers.up(Settings(), port, mlflow_port, err.print)
