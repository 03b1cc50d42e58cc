"""Raw captures: record, from files, from the embedded market or live; replay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synth_pipeline.cli.exchange import exchange
from synth_pipeline.cli.face import (
    Columns,
    Json,
    Symbol,
    Timezone,
    Venue,
    app,
    form_of,
    opened_workspace,
    print_manifests,
)
from synth_pipeline.cli.live import run_live, seconds_of
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND, Instrument, parse_day

if TYPE_CHECKING:
    from synth_pipeline.archives import Form
    from synth_pipeline.archives.rawlog import Record


@app.command(
    epilog="Example: synth-pipeline record --venue binance_usdm --symbols BTCUSDT,ETHUSDT --for 10m. From files: "
    "synth-pipeline record btcusdt_20240808.gz. From the embedded market: synth-pipeline record --instrument "
    "simulated.BTCUSDT --day 2025-01-06 --seconds 600."
)
def record(
    sources: Annotated[list[Path] | None, typer.Argument(help="Recorded files.", metavar="FILE")] = None,
    venue: Venue = None,
    symbol: Symbol = None,
    columns: Columns = "",
    timezone: Timezone = "",
    symbols: Annotated[str | None, typer.Option(help="Symbols to record live, by comma.")] = None,
    streams: Annotated[
        str,
        typer.Option(help="Streams to record live, by comma, in the venue's words; default: depth, quotes, trades."),
    ] = "",
    lasting: Annotated[
        str | None, typer.Option("--for", help="How long to record live, such as 10m; default: until stopped.")
    ] = None,
    raw_dir: Annotated[Path | None, typer.Option(help="Folder of live raw logs; default: the inbox.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve live figures to Prometheus on this port.")
    ] = None,
    instrument: Annotated[
        str | None, typer.Option(help="Instead of files: an instrument of the embedded market.")
    ] = None,
    day: Annotated[str | None, typer.Option(help="UTC day of a simulated recording.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of a simulated recording.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Bring raw bytes in: live from a venue, from recorded files, or from the embedded market.

    Live, --json prints one JSON line a second and a summary at the end; SIGINT and SIGTERM end the recording cleanly.
    """
    if symbols is not None:
        if sources or venue is None:
            raise InputError("--symbols records live: give --venue with it, and no files")
        run_live(
            venue,
            symbols.split(","),
            streams=streams.split(","),
            seconds=None if lasting is None else seconds_of(lasting),
            folder=raw_dir,
            metrics_port=metrics_port,
            as_json=as_json,
        )
        return
    _import(sources or [], venue, symbol, form_of(columns, timezone), instrument, day, seconds, as_json)


def _import(
    sources: list[Path],
    venue: str | None,
    symbol: str | None,
    form: Form | None,
    instrument: str | None,
    day: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    from synth_pipeline import stages
    from synth_pipeline.capture.importing import days_of

    if sources:
        what, days = stages.identify(sources, venue, symbol, form), days_of(sources, form)
    elif instrument and day:
        what, days = Instrument.parse(instrument), [parse_day(day)]
    else:
        raise InputError(
            "nothing to record: give recorded files, --venue and --symbols, or --instrument simulated.SYMBOL and --day"
        )
    with opened_workspace() as workspace:
        made = []
        for each in days:
            made.append(stages.record(workspace, what, each, sources, seconds=seconds, form=form))
            workspace.progress(len(made), len(days), "days recorded")
    print_manifests(made, as_json)


@app.command(epilog="Example: synth-pipeline replay binance_usdm.BTCUSDT.2024-08-08T23.rawlog --limit 20")
def replay(
    source: Annotated[Path, typer.Argument(help="A raw log, of which also one still being written.", metavar="FILE")],
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Instead of printing, serve it as its venue does; see `exchange`.")
    ] = False,
    venue: Venue = None,
    speed: Annotated[str, typer.Option(help="Pace when serving: 1 is as recorded, max as fast as possible.")] = "1",
    port: Annotated[int, typer.Option(help="Port when serving; 0 takes any that is free.")] = 9443,
    as_json: Json = False,
) -> None:
    """Print the records of a raw log, or serve them anew; torn stretches stand as notes."""
    from synth_pipeline.archives import rawlog, require_file
    from synth_pipeline.capture.importing import venues_of

    if serve:
        found = [venue] if venue else venues_of(require_file(source), rawlog.RawLog())
        if not found:
            raise InputError(f"{source} does not say which venue it is of: pass --venue")
        exchange(found[0], source=[str(source)], speed=speed, port=port, as_json=as_json)
        return
    records = rawlog.read(require_file(source), "growing" if rawlog.is_being_written(source) else "mend")
    for record in islice(records, limit):
        print(_as_line(record) if as_json else _as_text(record))  # noqa: T201 - this is the face


def _as_line(record: Record) -> str:
    """One record as a JSON line; bytes that are no UTF-8 are shown with replacement characters."""
    kind = "message" if record.kind == 0 else "note"
    stamps = {"received_ns": record.received_ns, "monotonic_ns": record.monotonic_ns, "connection": record.connection}
    return json.dumps(stamps | {"kind": kind, "payload": record.payload.decode(errors="replace")})


def _as_text(record: Record) -> str:
    seconds, ns = divmod(record.received_ns, NS_PER_SECOND)
    when = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}"
    mark = " " if record.kind == 0 else "*"
    return f"{when} {record.connection:>3} {mark} {record.payload.decode(errors='replace')}"
