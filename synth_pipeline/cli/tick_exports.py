"""From a day of ticks to files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth_pipeline.cli.face import InstrumentName, Json, app, opened_workspace, out, print_json
from synth_pipeline.schema import Instrument, parse_day


@app.command(
    "export-ticks",
    epilog="Examples: synth-pipeline export-ticks binance_usdm.BTCUSDT 2024-08-08 --format hftbacktest --to npz; "
    "synth-pipeline export-ticks nasdaq.AMZN 2012-06-21 --format lobster --to csv --levels 1 --start 14:00 --end 15:00",
)
def export_ticks(
    instrument: InstrumentName,
    day: Annotated[str, typer.Argument(help="UTC day, such as 2024-08-08.", metavar="DAY")],
    to: Annotated[str, typer.Option("--format", help="lobster, hftbacktest or tardis; see docs/tick-exports.md.")],
    folder: Annotated[Path, typer.Option("--to", help="Folder that the files go to; made where missing.")],
    levels: Annotated[
        int | None, typer.Option(min=1, help="Levels a side of lobster's orderbook file; default: 10, if so many.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="UTC time of the day, such as 10:30; default: its start.")] = None,
    end: Annotated[str | None, typer.Option(help="UTC time of the day, exclusive; default: its end.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that stand there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a day of ticks as LOBSTER CSV, hftbacktest events or Tardis CSV."""
    from synth_pipeline import stages

    with opened_workspace() as workspace:
        made = stages.export_ticks(
            workspace,
            Instrument.parse(instrument),
            parse_day(day),
            to,
            folder,
            start=start,
            end=end,
            levels=levels,
            force=force,
        )
    if as_json:
        facts = {"format": to, "rows": dict(made.rows), "left_out": dict(made.left_out), "facts": dict(made.facts)}
        print_json(facts | {"files": [str(path) for path in made.files]})
        return
    for path in made.files:
        out.print(f"  {path}", highlight=False, soft_wrap=True)
    told = [f"{count:,} {name}" for name, count in made.rows.items()]
    told += [f"left out: {count:,} {reason}" for reason, count in made.left_out.items()]
    told += [f"{name.replace('_', ' ')} {fact}" for name, fact in made.facts.items()]
    out.print("; ".join(told), highlight=False, soft_wrap=True)
