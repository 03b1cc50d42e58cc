"""OHLCV bars: fetch, read, put together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth_pipeline.cli.face import Json, app, opened_workspace, out, print_manifests
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND, Instrument

if TYPE_CHECKING:
    from synth_pipeline.bars.files import Options
    from synth_pipeline.lineage.manifests import Manifest
    from synth_pipeline.stages import Workspace

_DEFAULT_TIMEFRAME = "1h"
_SHOWN_GAPS = 5
_STAMPS = ("open", "close")
_FILE_ENDINGS = {".csv", ".txt", ".tsv", ".parquet", ".gz", ".xz", ".zst", ".zip"}
_DATES = {"day-first": True, "month-first": False}
_DECIMALS = {"point": ".", "comma": ","}


@app.command(epilog="Example: synth-pipeline bars binance_usdm.BTCUSDT --timeframe 1h --start 2024-01-01")
def bars(
    source: Annotated[
        str, typer.Argument(help="A CSV or Parquet file, or SOURCE.TICKER, such as bybit_linear.BTCUSDT or yahoo.SPY.")
    ],
    timeframe: Annotated[
        str | None, typer.Option(help="Such as 1m, 1h, 1d, 1w, 1M; default: 1h of a source, a file's own.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First open, UTC; of a file without times its first bar.")] = None,
    end: Annotated[str | None, typer.Option(help="Bars must close by then, UTC; default: now.")] = None,
    finer: Annotated[
        str | None, typer.Option("--from", help="Put stored bars of this timeframe together instead of asking.")
    ] = None,
    instrument: Annotated[str | None, typer.Option(help="File a file's bars under this venue.SYMBOL.")] = None,
    stamp: Annotated[str, typer.Option(help="What a file's times are: open or close of the bar.")] = "open",
    dates: Annotated[str | None, typer.Option(help="1/4/1999 is day-first or month-first.")] = None,
    decimal: Annotated[str | None, typer.Option(help="1,234 has a decimal comma, or point is the mark.")] = None,
    timezone: Annotated[str, typer.Option(help="Zone of a file's times that name none.")] = "UTC",
    columns: Annotated[
        list[str] | None, typer.Option(help="ROLE=COLUMN, by name or number from 1; may be repeated.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Which one, in a file of several.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="Also write the bars to FILE.csv or .parquet.")] = None,
    as_json: Json = False,
) -> None:
    """Bring OHLCV bars into the store: from a venue, from a file of any common shape, or from finer bars."""
    from synth_pipeline import stages
    from synth_pipeline.bars.timeframe import Timeframe

    options = _options(timeframe, start, stamp, dates, decimal, timezone, columns, symbol)
    with opened_workspace() as workspace:
        if _is_file(source):
            target = Instrument.parse(instrument) if instrument else None
            made = stages.bars_from_file(workspace, Path(source), target, options)
        else:
            wanted = Timeframe.parse(timeframe or _DEFAULT_TIMEFRAME)
            if finer is not None:
                made = stages.resample_bars(workspace, Instrument.parse(source), Timeframe.parse(finer), wanted)
            else:
                made = stages.bars_from_source(workspace, source, wanted, options.start_ns, _moment("--end", end))
        if out_file is not None:
            _export(workspace, made, out_file)
    print_manifests([made], True) if as_json else _print_bars(made)


def _is_file(source: str) -> bool:
    """Whether a person means a file; one that does not exist is complained about where files are opened."""
    path = Path(source)
    return path.is_file() or path.suffix.lower() in _FILE_ENDINGS or "." not in source


def _options(
    timeframe: str | None,
    start: str | None,
    stamp: str,
    dates: str | None,
    decimal: str | None,
    timezone: str,
    columns: list[str] | None,
    symbol: str | None,
) -> Options:
    from synth_pipeline.bars.files import Options
    from synth_pipeline.bars.timeframe import Timeframe

    return Options(
        timeframe=Timeframe.parse(timeframe) if timeframe else None,
        start_ns=_moment("--start", start),
        closing=_choice("--stamp", stamp, {name: name == "close" for name in _STAMPS}),
        day_first=_choice("--dates", dates, _DATES),
        decimal=_choice("--decimal", decimal, _DECIMALS),
        timezone=timezone,
        columns=dict(map(_pair, columns or ())),
        symbol=symbol,
    )


def _choice(option: str, text: str | None, known: dict[str, Any]) -> Any:
    if text is not None and text not in known:
        raise InputError(f"{option} {text!r} is not one of {', '.join(known)}")
    return None if text is None else known[text]


def _pair(text: str) -> tuple[str, str]:
    role, equals, column = text.partition("=")
    if not equals:
        raise InputError(f"--columns {text!r} is not of the form ROLE=COLUMN, such as close=Last")
    return role, column


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is no time such as 2024-01-31 or 2024-01-31T08:00") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * NS_PER_SECOND


def _export(workspace: Workspace, made: Manifest, path: Path) -> None:
    from synth_pipeline.bars.exporting import export
    from synth_pipeline.stages.bars import read_bars

    export(path, read_bars(workspace, made))


def _print_bars(made: Manifest) -> None:
    facts = made.facts
    out.print(f"[bold]{made.ref}[/bold]  {'unchanged' if made.skipped else 'made'}")
    out.print(
        f"  bars       {facts['rows']:,}, the first opens {_shown(facts['first_open_ns'])}, "
        f"the last {_shown(facts['last_open_ns'])} UTC",
        highlight=False,
        soft_wrap=True,
    )
    lost = f"{facts['missing']:,} in {facts['gaps']:,} gaps" if facts["gaps"] else "none"
    out.print(f"  missing    {lost}{', closed hours not counted' if facts['closed_hours'] else ''}", highlight=False)
    set_aside = ", ".join(f"{count:,} {reason}" for reason, count in facts["quarantined"].items())
    out.print(f"  quarantine {set_aside or 'none'}", highlight=False)
    _print_notes(facts)


def _print_notes(facts: dict[str, Any]) -> None:
    for start, end, missing in facts["first_gaps"][:_SHOWN_GAPS]:
        out.print(f"  gap        {missing:,} bars from {_shown(start)} to {_shown(end)}", highlight=False)
    if facts["gaps"] > _SHOWN_GAPS:
        out.print(f"  …          {facts['gaps'] - _SHOWN_GAPS:,} more gaps, in the output `gaps`", highlight=False)
    for change in facts.get("revised", ()):
        told = f"{change['column']} was {change['stored']:.15g}, is now {change['now']:.15g}"
        out.print(
            f"  revised    the source has changed the bar of {_shown(change['open_ns'])}, {told}", highlight=False
        )
    if facts.get("ignored_columns"):
        out.print(f"  left out   {', '.join(facts['ignored_columns'])}", highlight=False)
    if facts.get("time") == "index":
        out.print("  times      the file has none: its bars are numbered from --start", highlight=False)


def _shown(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // NS_PER_SECOND, UTC):%Y-%m-%d %H:%M}"
