"""From ticks to order flow and back: calibrate, simulate, evaluate-book."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.table import Table

from synth_pipeline.cli.face import (
    InstrumentName,
    Json,
    ParameterTexts,
    app,
    opened_workspace,
    out,
    print_json,
    print_manifests,
)
from synth_pipeline.cli.models import print_estimates, setting
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument, parse_day

DayName = Annotated[str, typer.Argument(help="UTC day of ticks, such as 2024-08-08.", metavar="DAY")]


@app.command(
    epilog="Examples: synth-pipeline calibrate binance_usdm.BTCUSDT 2024-08-08 queue_reactive; "
    "synth-pipeline calibrate bitstamp.BTCUSD 2015-05-01 hawkes --days 3 --set reach_ticks=500"
)
def calibrate(
    instrument: InstrumentName,
    day: DayName,
    flow: Annotated[str, typer.Argument(help="zero_intelligence, queue_reactive or hawkes.", metavar="FLOW")],
    days: Annotated[int, typer.Option(min=1, help="Days of ticks it sees, ending with DAY.")] = 1,
    settings: ParameterTexts = None,
    as_json: Json = False,
) -> None:
    """Fit a model of order flow on stored ticks: book changes and trades, or orders."""
    from synth_pipeline import stages

    parameters = dict(setting(text) for text in settings or [])
    with opened_workspace() as workspace:
        made = stages.calibrate(workspace, Instrument.parse(instrument), parse_day(day), flow, parameters, days=days)
    print_manifests([made], as_json)
    if not as_json:
        print_estimates(made.facts)


@app.command(
    epilog="Examples: synth-pipeline simulate simulated.BTC 2024-08-10:2024-08-11 "
    "binance_usdm.BTCUSDT/2024-08-08/queue_reactive; synth-pipeline simulate simulated.CRASH 2024-08-10 "
    "binance_usdm.BTCUSDT/2024-08-08/hawkes --fundamental binance_usdm.BTCUSDT/2024-08-08/garch "
    "--scenario flash_crash:lots=5000,at=10m --seconds 3600; "
    "synth-pipeline simulate simulated.TOY 2024-08-10 zero_intelligence --start-price 100"
)
def simulate(
    instrument: InstrumentName,
    days: Annotated[str, typer.Argument(help="UTC day, or FIRST:LAST, both included.", metavar="DAY[:DAY]")],
    flow: Annotated[
        str,
        typer.Argument(help="A calibrated flow as INSTRUMENT/DAY/FLOW; queue_reactive alone is the embedded market's."),
    ],
    fundamental: Annotated[
        str | None,
        typer.Option(
            help="Price path that the mid follows: INSTRUMENT/CELL/GENERATOR as fitted, "
            "synthetic/INSTRUMENT/CELL/DATASET as sampled, or features/INSTRUMENT/DAY."
        ),
    ] = None,
    path: Annotated[int, typer.Option(min=0, help="Which path of the dataset.")] = 0,
    asset: Annotated[str, typer.Option(help="Which asset of a path of several.")] = "",
    scenario: Annotated[
        list[str] | None, typer.Option(help="What happens, as NAME:key=value,…; times count from the day's start.")
    ] = None,
    start: Annotated[str, typer.Option(help="Time of day at which each day begins, HH:MM:SS.")] = "00:00:00",
    seconds: Annotated[float, typer.Option(help="How long each day lasts; the whole day when left out.")] = 86_400.0,
    start_price: Annotated[str | None, typer.Option(help="Begin anew with the mid at this price.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever the day before left.")] = False,
    capture: Annotated[
        bool, typer.Option("--capture", help="Also keep a recording that `exchange` can replay, as of Binance USD-M.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make days of ticks from an order flow: orders, book levels, quotes and trades of a simulated instrument."""
    from synth_pipeline import stages
    from synth_pipeline.stages.paths import PathRef

    what = stages.Simulation(
        flow,
        PathRef.parse(fundamental, path=path, asset=asset) if fundamental else None,
        tuple(scenario or ()),
        _seconds_of(start),
        seconds,
        capture,
    )
    price = None if start_price is None else _price_of(start_price)
    wanted = list(stages.days_of(days))
    with opened_workspace() as workspace:
        made = stages.simulate_days(
            workspace, Instrument.parse(instrument), wanted, what, start_price=price, fresh=fresh
        )
    print_manifests(made, as_json)
    for manifest in () if as_json else made:
        if followed := manifest.facts.get("fundamental"):
            out.print(
                f"{manifest.ref}: mid {followed['rms_ticks']:.2f} ticks ({followed['rms_bp']:.3f} bp) from the "
                f"fundamental price at the end of a step, at most {followed['max_ticks']:.1f}; "
                f"lag {followed['lag_ms']:.0f} ms",
                highlight=False,
                soft_wrap=True,
            )
        for note in manifest.facts["notes"]:
            out.print(f"note: {note}", highlight=False, soft_wrap=True)


def _seconds_of(text: str) -> float:
    parts = text.split(":")
    sizes = [int(part) if part.isdecimal() else 99 for part in parts]
    if len(parts) not in (2, 3) or any(size >= most for size, most in zip(sizes, (24, 60, 60), strict=False)):
        raise InputError(f"--start {text!r} is no time of day: give HH:MM or HH:MM:SS, before 24:00")
    return float(sum(part * size for part, size in zip(sizes, (3600, 60, 1), strict=False)))


def _price_of(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal(0)
    if not (price.is_finite() and price > 0):
        raise InputError(f"--start-price {text!r} is no price: give a positive number")
    return price


@app.command(
    name="evaluate-book",
    epilog="Example: synth-pipeline evaluate-book binance_usdm.BTCUSDT 2024-08-08 simulated.BTC 2024-08-10",
)
def evaluate_book(
    real: Annotated[str, typer.Argument(help="The real instrument, venue.SYMBOL.", metavar="REAL")],
    real_day: Annotated[str, typer.Argument(help="Its UTC day.", metavar="DAY")],
    simulated: Annotated[str, typer.Argument(help="The simulated instrument, venue.SYMBOL.", metavar="SIMULATED")],
    simulated_day: Annotated[str, typer.Argument(help="Its UTC day.", metavar="DAY")],
    seconds: Annotated[float, typer.Option(help="Longest stretch of both days that is compared.")] = 1800.0,
    predict: Annotated[
        bool, typer.Option("--predict", help="Also train a network on either to tell the mid's next moves (TRADES).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score a day's order book and messages against a real day's by LOB-Bench, beside real against real."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        made = stages.compare_books(
            workspace,
            Instrument.parse(real),
            parse_day(real_day),
            Instrument.parse(simulated),
            parse_day(simulated_day),
            seconds=seconds,
            predict=predict,
        )
        page, data = workspace.file(made, "report"), workspace.file(made, "evaluation")
    if as_json:
        import json

        print_json(json.loads(data.read_text(encoding="utf-8")) | {"ref": made.ref, "report": str(page)})
        return
    print_manifests([made], as_json)
    table = Table("statistic", "L1", "real / real", "Wasserstein", "real / real")
    for name, row in (*made.facts["statistics"].items(), ("mean", made.facts["means"])):
        table.add_row(name, *("–" if value is None else f"{value:.3f}" for value in row.values()))
    out.print(table)
    if (score := made.facts.get("predictive_score")) is not None:
        told = score.get("absent") or f"{score['ratio']:.3f} × the error after real messages"
        out.print(f"predictive score: {told}", soft_wrap=True, highlight=False)
    out.print(f"report: {page}", soft_wrap=True, highlight=False)
