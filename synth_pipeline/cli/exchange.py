"""The embedded exchange: a venue of your own on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth_pipeline.cli.face import app, err
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.settings import Settings

if TYPE_CHECKING:
    from synth_pipeline.exchange.bars import Bars
    from synth_pipeline.exchange.server import Exchange

_FAULTS = "What goes wrong, as name or name:key=value,…; docs/exchange.md lists them. May be given several times."


@app.command(
    epilog="Example: synth-pipeline exchange --venue binance_usdm --source simulated --speed 10 --fault gap:after=500"
)
def exchange(
    venue: Annotated[
        str, typer.Option(help="Venue to serve, such as binance_usdm; `synth-pipeline venues` lists them.")
    ],
    source: Annotated[
        list[str] | None, typer.Option(help="`simulated`, or a recorded file; several files are served as one.")
    ] = None,
    speed: Annotated[str, typer.Option(help="1 is as recorded, 10 ten times as fast, max as fast as possible.")] = "1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of streams and REST; 0 takes any that is free.")
    ] = 9443,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    fault: Annotated[list[str] | None, typer.Option(help=_FAULTS)] = None,
    symbols: Annotated[str, typer.Option(help="Symbols of the simulated market, by comma; one when left out.")] = "",
    seconds: Annotated[
        float | None, typer.Option(help="Length of the simulated market; endless when left out.")
    ] = None,
    bars: Annotated[
        list[str] | None, typer.Option(help="SYMBOL=FILE: answer klines from bars in a CSV or Parquet file.")
    ] = None,
    clients: Annotated[
        int, typer.Option(min=1, help="The market starts when this many connections have subscribed.")
    ] = 1,
    retime: Annotated[
        bool, typer.Option("--retime", help="Move recorded stamps so that the first message is of now.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: one line when ready, one when all is sent.")
    ] = False,
) -> None:
    """Serve a venue's own protocols on this machine, from the simulated market or from recordings, until stopped."""
    import asyncio

    from synth_pipeline.exchange import server
    from synth_pipeline.rng import stream

    if not source and not bars:
        raise InputError("nothing to serve: give --source simulated, --source FILE, or --bars SYMBOL=FILE")
    how: dict[str, Any] = {
        "faults": fault or [],
        "speed": _speed(speed),
        "host": host,
        "port": port,
        "bars": dict(_bars(each) for each in bars or []),
        "symbols": [symbol for symbol in symbols.upper().split(",") if symbol],
        "seconds": seconds,
        "clients": clients,
        "retime": retime,
        "rng": stream(Settings().seed, "exchange"),
    }
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(server.serve(_source(source), venue, **how), as_json))


def _loop_factory() -> Any:
    """Take the faster loop where the system has it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise InputError(f"--speed {text!r} is no pace: give a positive number such as 10, or max")
    return speed


def _source(names: list[str] | None) -> str | list[Path] | None:
    if names == ["simulated"]:
        return "simulated"
    return [Path(name) for name in names] if names else None


def _bars(text: str) -> tuple[str, Bars]:
    from synth_pipeline.archives import opened
    from synth_pipeline.bars import files
    from synth_pipeline.exchange.bars import Bars

    symbol, _, name = text.partition("=")
    if not name:
        raise InputError(f"--bars {text!r} is not of the form SYMBOL=FILE, such as BTCUSDT=bars.csv")
    with opened(Path(name)) as file:
        found, _ = files.read(file.read(), name, files.Options(symbol=None))
    if not len(found):
        raise NoDataError(f"{name} holds no bars: nothing to serve")
    of = found.columns
    volume = ["0" if value != value else value for value in of["volume"]]
    return symbol.upper(), Bars.of(of["open_ns"] // 1_000_000, of["open"], of["high"], of["low"], of["close"], volume)


async def _serve(serving: Any, as_json: bool) -> None:
    """Serve until a signal, and say when it is ready and when all is sent."""
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving as running:
        _say(as_json, "ready", running, {"urls": running.urls, "port": running.port})
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, running.running}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set() and running.running.exception() is None:
            _say(as_json, "finished", running, {"sent": running.sent, "injected": running.injected})
            await stopping


def _say(as_json: bool, event: str, running: Exchange, facts: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps({"event": event, **facts}), flush=True)  # noqa: T201 - this is the face
    elif event == "ready":
        err.print(f"{running.protocol.name} at {running.websocket_url} and {running.rest_url}; Ctrl-C stops it")
    else:
        count = f"{sum(running.sent.values()):,}"
        err.print(f"all sent: {count} messages, {len(running.injected)} faults; REST goes on")
