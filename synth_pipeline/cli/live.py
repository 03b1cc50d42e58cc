"""The live form of `record`: the recorder under signals, and what it shows while it runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table

from synth_pipeline.cli.face import err, out
from synth_pipeline.errors import InputError
from synth_pipeline.settings import Settings

if TYPE_CHECKING:
    from synth_pipeline.capture.figures import Figures
    from synth_pipeline.capture.recorder import Recorder

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_COUNTS = ("gaps", "disconnects", "handovers", "stalls", "duplicates", "dropped", "snapshots", "garbage")


def seconds_of(text: str) -> float:
    """Read a duration such as 90s, 10m or 1h30m. Raises `InputError` for any other form, and for none at all."""
    match = _DURATION.fullmatch(text.strip())
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0,) * 4
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total <= 0:
        raise InputError(f"duration {text!r} is not of the form 90s, 10m or 1h30m")
    return total


class Rates:
    """Messages and bytes a second, from one look to the next."""

    def __init__(self) -> None:
        self._before = (0.0, 0, 0)

    def of(self, figures: Figures) -> dict[str, float]:
        """Return the rates since the look before."""
        seconds, messages, size = self._before
        self._before = (figures.seconds, figures.messages, figures.bytes)
        passed = max(figures.seconds - seconds, 1e-9)
        rates = {"messages": figures.messages - messages, "bytes": figures.bytes - size}
        return {f"{name}_per_second": round(count / passed, 1) for name, count in rates.items()}


def table_of(name: str, figures: Figures, rates: dict[str, float]) -> Table:
    """Return what a person wants to see of a running recording."""
    table = Table(title=f"recording {name}", show_header=False)
    table.add_row("messages/s", f"{rates['messages_per_second']:,.0f}", "messages", f"{figures.messages:,}")
    table.add_row("MB/s", f"{rates['bytes_per_second'] / 1e6:.2f}", "MB on disk", f"{figures.file_bytes / 1e6:,.1f}")
    median, tail = figures.lag_ms(0.5), figures.lag_ms(0.99)
    offset, error = (None if ns is None else ns / 1e6 for ns in (figures.offset_ns, figures.offset_error_ns))
    table.add_row("lag ms, median", _number(median), "lag ms, p99", _number(tail))
    clock = _number(offset) if error is None else f"{_number(offset)} ± {_number(error)}"
    table.add_row("clock offset ms", clock, "disk lag s", f"{figures.disk_lag_seconds:.2f}")
    for left, right in zip(_COUNTS[::2], _COUNTS[1::2], strict=True):
        table.add_row(left, f"{getattr(figures, left):,}", right, f"{getattr(figures, right):,}")
    if figures.fault:
        table.caption = f"last trouble: {figures.fault}"
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f}"


def run_live(
    venue: str,
    symbols: list[str],
    *,
    streams: list[str],
    seconds: float | None,
    folder: Path | None,
    metrics_port: int | None,
    as_json: bool,
) -> None:
    """Record until the time is up or a signal comes, then print the summary.

    Raises `InputError` as the recorder does.
    """
    from synth_pipeline import plugins, venues
    from synth_pipeline.capture.recorder import Plan, Recorder
    from synth_pipeline.rng import stream

    settings = Settings()
    for name in settings.venue_urls:
        # A name that is misspelt would leave the venue itself the one that is asked.
        plugins.require(venues, name)
    urls = settings.venue_urls.get(venue)
    plan = Plan.of(venue, symbols, folder or settings.inbox, streams=streams, urls=urls)
    recorder = Recorder(plan, rng=stream(settings.seed, "recorder", venue, str(os.getpid())))
    if metrics_port is not None:
        from synth_pipeline.capture import metrics

        port = metrics.serve(recorder.figures, venue, metrics_port)
        err.print(f"metrics at http://127.0.0.1:{port}/metrics", highlight=False)
    names = f"{venue} {', '.join(each.symbol for each in plan.instruments)}"
    figures = _under_signals(recorder, seconds, names, as_json)
    if as_json:
        _print_line({"summary": True, "folder": str(plan.folder), "venue": venue} | figures.document())
    else:
        mean = {
            "messages_per_second": figures.messages / figures.seconds,
            "bytes_per_second": figures.bytes / figures.seconds,
        }
        out.print(table_of(names, figures, mean))
        out.print(f"raw logs under {plan.folder / venue}", soft_wrap=True, highlight=False)


def _under_signals(recorder: Recorder, seconds: float | None, names: str, as_json: bool) -> Figures:
    rates = Rates()
    if as_json:
        return _run(recorder, seconds, lambda figures: _print_line(figures.document() | rates.of(figures)))
    if not sys.stderr.isatty():
        return _run(recorder, seconds, None)
    with Live(console=err, transient=True, auto_refresh=False) as live:
        return _run(
            recorder,
            seconds,
            lambda figures: live.update(table_of(names, figures, rates.of(figures)), refresh=True),
        )


def _run(recorder: Recorder, seconds: float | None, on_second: Callable[[Figures], object] | None) -> Figures:
    async def work() -> Figures:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, recorder.stop, signal.Signals(number).name)
        return await recorder.run(seconds, on_second)

    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        return runner.run(work())


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _print_line(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)  # noqa: T201 - this is the face
