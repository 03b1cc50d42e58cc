"""From features or bars to markets: fit, sample, evaluate."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from synth_pipeline.cli.face import (
    CellName,
    GeneratorName,
    InstrumentName,
    Json,
    app,
    opened_workspace,
    out,
    print_manifests,
)
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument


@app.command(
    epilog="Examples: synth-pipeline fit binance_usdm.BTCUSDT 2024-08-08 wgan_gp --set steps=2000; "
    "synth-pipeline fit file.SP500 1d block_bootstrap; synth-pipeline fit file.BTC+ETH 1h dcc_garch"
)
def fit(
    instrument: InstrumentName,
    cell: CellName,
    generator: GeneratorName,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter as name=value; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a generator on the features of the look-back that ends with a day, or on stored bars."""
    from synth_pipeline import stages

    parameters = dict(_setting(text) for text in settings or [])
    with opened_workspace() as workspace:
        made = stages.fit(workspace, Instrument.parse(instrument), stages.parse_cell(cell), generator, parameters)
    print_manifests([made], as_json)
    if not as_json:
        _print_estimates(made.facts)


def _print_estimates(facts: dict[str, Any]) -> None:
    """Show what was estimated, with standard errors where there are any, and what the fit fell back on."""
    table = Table("estimate", "value", "standard error")
    for name, value in facts.items():
        if isinstance(value, float) and name != "seconds" and not name.endswith("_se"):
            error = facts.get(f"{name}_se")
            table.add_row(name, f"{value:.6g}", "" if error is None else f"{error:.2g}")
    out.print(table)
    for note in facts["notes"]:
        out.print(f"note: {note}", highlight=False, soft_wrap=True)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"parameter {text!r} is not of the form name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


@app.command(
    epilog="Examples: synth-pipeline sample binance_usdm.BTCUSDT 2024-08-08 garch --paths 100 --steps 7200; "
    "synth-pipeline sample file.SP500 1d block_bootstrap --min-fidelity 95; "
    "synth-pipeline sample file.SP500 1d block_bootstrap --regime bear --shock volatility:times=2"
)
def sample(
    instrument: InstrumentName,
    cell: CellName,
    generator: GeneratorName,
    paths: Annotated[int | None, typer.Option(min=1, help="Independent paths.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, help="Steps of each path.")] = None,
    regime: Annotated[str | None, typer.Option(help="Sample under this market regime, such as flash_crash.")] = None,
    shock: Annotated[
        list[str] | None, typer.Option(help="Put a shock on every path, as KIND:name=value,…; may be repeated.")
    ] = None,
    min_fidelity: Annotated[
        float | None, typer.Option(help="Keep only paths that score at least this, of 100, against the training data.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sample connected paths from a fitted generator into a dataset."""
    from synth_pipeline import stages

    scenario = stages.Scenario(regime, tuple(shock or ()), min_fidelity)
    with opened_workspace() as workspace:
        made = stages.sample(
            workspace,
            Instrument.parse(instrument),
            stages.parse_cell(cell),
            generator,
            paths=paths,
            steps=steps,
            scenario=scenario,
        )
    print_manifests([made], as_json)
    if not as_json and min_fidelity is not None:
        facts = made.facts
        out.print(
            f"{facts['paths']} of {facts['candidates']} candidates reach {min_fidelity:g} "
            f"({facts['acceptance_rate']:.0%}), the best {facts['best_fidelity']:.1f}; longest verbatim run "
            f"{facts['longest_verbatim_run']} steps, {facts['verbatim_share']:.0%} of the steps copied",
            highlight=False,
        )


@app.command(epilog="Example: synth-pipeline evaluate binance_usdm.BTCUSDT 2024-08-08 wgan_gp")
def evaluate(
    instrument: InstrumentName,
    cell: CellName,
    dataset: Annotated[
        str, typer.Argument(help="Generator, or GENERATOR@SCENARIO as `sample` names it.", metavar="DATASET")
    ],
    as_json: Json = False,
) -> None:
    """Score a dataset against held-out real data and write the fidelity report."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        made = stages.evaluate(workspace, Instrument.parse(instrument), stages.parse_cell(cell), dataset)
        page = workspace.file(made, "report")
    print_manifests([made], as_json)
    if not as_json:
        out.print(f"fidelity {made.facts['fidelity']:.1f}, fresh real data {made.facts['floor']:.1f}", highlight=False)
        out.print(f"report: {page}", soft_wrap=True, highlight=False)
