"""From features or bars to markets: fit, sample, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from synth_pipeline.cli.face import (
    CellName,
    GeneratorName,
    InstrumentName,
    Json,
    ParameterTexts,
    app,
    opened_workspace,
    out,
    print_json,
    print_manifests,
    progress_bar,
)
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument

if TYPE_CHECKING:
    from synth_pipeline.fidelity.evaluation import Evaluation
    from synth_pipeline.stages import Files


@app.command(
    epilog="Examples: synth-pipeline fit binance_usdm.BTCUSDT 2024-08-08 wgan_gp --steps 2000 --set hidden=64; "
    "synth-pipeline fit binance_usdm.BTCUSDT 2024-08-08 time_vae --budget 5m --preset release; "
    "synth-pipeline fit binance_usdm.BTCUSDT 2024-08-09 wgan_gp "
    "--start-from checkpoints/binance_usdm/BTCUSDT/2024-08-08/wgan_gp; "
    "synth-pipeline fit file.SP500 1d block_bootstrap; synth-pipeline fit file.BTC+ETH 1h dcc_garch"
)
def fit(
    instrument: InstrumentName,
    cell: CellName,
    generator: GeneratorName,
    settings: ParameterTexts = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of a network.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Train a network for this time instead, such as 90s, 5m or 1h30m.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Of a network: benchmark, or release, which holds out, drops out, refuses copies."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="REF of a checkpoint whose weights a network starts from, or none. "
            "Default: what the standing checkpoint started from."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a generator on the features of the look-back that ends with a day, or on stored bars.

    --steps, --budget and --preset are the parameters of that name. A fit that was killed goes on when asked for again.
    """
    from synth_pipeline import stages

    parameters = _with(dict(setting(text) for text in settings or []), steps=steps, budget=budget, preset=preset)
    with opened_workspace() as workspace:
        at = Instrument.parse(instrument), stages.parse_cell(cell)
        made = stages.fit(workspace, *at, generator, parameters, start_from=start_from)
    print_manifests([made], as_json)
    if not as_json:
        print_estimates(made.facts)


def _with(parameters: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return parameters with those that have an option of their own. Raises `InputError` for one given both ways."""
    given = {name: value for name, value in options.items() if value is not None}
    if both := next((name for name in given if name in parameters), None):
        raise InputError(
            f"--{both} {given[both]} and --set {both}={parameters[both]} are one parameter: give one of them"
        )
    return parameters | given


def print_estimates(facts: dict[str, Any]) -> None:
    """Show what was estimated, with standard errors where there are any, and what the fit fell back on."""
    table = Table("estimate", "value", "standard error")
    for name, value in facts.items():
        if isinstance(value, float) and name != "seconds" and not name.endswith("_se"):
            error = facts.get(f"{name}_se")
            table.add_row(name, f"{value:.6g}", "" if error is None else f"{error:.2g}")
    out.print(table)
    for note in facts["notes"]:
        out.print(f"note: {note}", highlight=False, soft_wrap=True)


def setting(text: str) -> tuple[str, Any]:
    """Read `name=value`, the value as JSON where it is some. Raises `InputError` for any other form."""
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


@app.command(
    epilog="Examples: synth-pipeline evaluate binance_usdm.BTCUSDT 2024-08-08 wgan_gp --against garch; "
    "synth-pipeline evaluate real.csv synthetic.parquet --holdout later.csv --to page.html; "
    "synth-pipeline evaluate --render page.json --to page.html"
)
def evaluate(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="INSTRUMENT CELL DATASET, or two files: REAL SYNTHETIC.", metavar="WHAT"),
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(help="File of real data that the generator never saw; else the last 30 % of REAL.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another dataset, or synthetic file, to be put beside the first.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Page to write, with the record as JSON beside it.")] = None,
    render: Annotated[
        list[Path] | None, typer.Option(help="Make the page of this record alone; twice: of two beside each other.")
    ] = None,
    price: Annotated[str | None, typer.Option(help="Column of the price, in files.")] = None,
    path: Annotated[str | None, typer.Option(help="Column that tells paths apart, in files.")] = None,
    tick: Annotated[
        float | None, typer.Option(min=0, help="Price of one tick, in files; 0 for none. Default: the real decimals.")
    ] = None,
    families: Annotated[
        str | None, typer.Option(help="Families of metrics by comma, or all, learned ones too; of files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a dataset, or a file of any tool, against held-out real data; write the fidelity report."""
    from synth_pipeline import stages

    words = what or []
    only_files = {"--holdout": holdout, "--price": price, "--path": path, "--tick": tick, "--families": families}
    if render:
        if words or to is None or any(value is not None for value in (*only_files.values(), against)):
            raise InputError("--render makes a page of a record alone: give --render RECORD.json --to PAGE.html only")
        out.print(f"report: {stages.rendered(render, to)}", soft_wrap=True, highlight=False)
    elif len(words) == 2:
        real, synthetic = map(Path, words)
        files = stages.Files(real, synthetic, holdout, Path(against) if against else None, price, path, tick)
        _evaluate_files(files, _families(families), to, as_json=as_json)
    elif len(words) == 3:
        if given := [name for name, value in {**only_files, "--to": to}.items() if value is not None]:
            raise InputError(f"{given[0]} is of files: a dataset knows its own, and its report lies in its partition")
        _evaluate_dataset(words, against, as_json=as_json)
    else:
        raise InputError(f"evaluate takes INSTRUMENT CELL DATASET or REAL SYNTHETIC, not {len(words)} arguments")


def _families(text: str | None) -> Any:
    return text if text in (None, "all") else [name.strip() for name in str(text).split(",") if name.strip()]


def _evaluate_dataset(words: list[str], against: str | None, *, as_json: bool) -> None:
    from synth_pipeline import stages

    instrument, cell, dataset = Instrument.parse(words[0]), stages.parse_cell(words[1]), words[2]
    with opened_workspace() as workspace:
        made = (
            stages.compare_datasets(workspace, instrument, cell, dataset, against)
            if against
            else stages.evaluate(workspace, instrument, cell, dataset)
        )
        page = workspace.file(made, "report")
    print_manifests([made], as_json)
    if not as_json:
        for name, facts in made.facts.get("compared", {dataset: made.facts}).items():
            told = f"fidelity {facts['fidelity']:.1f}, fresh real data {facts['floor']:.1f}, grade {facts['grade']}"
            out.print(f"{name}: {told}", soft_wrap=True, highlight=False)
        out.print(f"report: {page}", soft_wrap=True, highlight=False)


def _evaluate_files(files: Files, families: Any, to: Path | None, *, as_json: bool) -> None:
    from synth_pipeline import stages

    with progress_bar() as progress:
        made = stages.evaluate_files(files, families=families, progress=progress)
    page = stages.write_report(to, made) if to else None
    if as_json:
        records = {name: json.loads(report.evaluation.to_json()) for name, report in made.items()}
        print_json(records if len(records) > 1 else next(iter(records.values())))
        return
    for name, report in made.items():
        _print_scores(name, report.evaluation)
    if page:
        out.print(f"report: {page}", soft_wrap=True, highlight=False)


def _print_scores(name: str, record: Evaluation) -> None:
    """Show the grade, the fidelity with its floors, and what is off or close."""
    floors = record.fidelity_floors
    kinds = {"fresh real": floors.fresh, "halves": floors.split_half, "bootstrap": floors.bootstrap}
    known = {kind: floor.value for kind, floor in {**kinds, "copy": floors.copy}.items() if floor.value is not None}
    told = ", ".join(f"{kind} {value:.1f}" for kind, value in known.items())
    out.print(f"{name}: grade {record.grade}: {record.grade_because}", soft_wrap=True, highlight=False)
    out.print(f"fidelity {record.fidelity:.1f} ({told})", soft_wrap=True, highlight=False)
    table = Table("metric", "verdict", "synthetic", "fresh real", "what is wrong")
    for verdict in ("off", "close"):
        for each in record.results:
            if each.verdict == verdict:
                numbers = ("" if value is None else f"{value:.4g}" for value in (each.value, each.floor))
                table.add_row(each.title, each.verdict, *numbers, each.meaning)
    if table.row_count:
        out.print(table)


@app.command(epilog="Example: synth-pipeline leaderboard file.SP500 1d")
def leaderboard(instrument: InstrumentName, cell: CellName, as_json: Json = False) -> None:
    """Rank everything that was sampled of a market, by grade and fidelity, with floors and copying."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        made = stages.leaderboard(workspace, Instrument.parse(instrument), stages.parse_cell(cell))
        page, data = (workspace.file(made, name) for name in ("report", "leaderboard"))
    entries = json.loads(data.read_bytes())
    if as_json:
        print_json(entries)
        return
    table = Table("sample", "grade", "fidelity", "fresh real", "copy", "within real", "copied steps", "why no better")
    for each in entries:
        numbers = (each["fidelity"], each["fresh"], each["copy"])
        scores = ("" if value is None else f"{value:.1f}" for value in numbers)
        within = f"{each['inside']} of {each['judged']}" if each["grade"] else ""
        copied = "" if each["verbatim"] is None else f"{each['verbatim']:.1%}"
        table.add_row(each["name"], each["grade"] or "", *scores, within, copied, each["because"])
    out.print(table)
    out.print(f"report: {page}", soft_wrap=True, highlight=False)
