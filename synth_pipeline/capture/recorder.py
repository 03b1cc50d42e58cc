"""The live recorder: a venue's streams into raw logs, one file per instrument and UTC hour.

One event loop stamps, checks and buffers; one thread writes (`disk`). `docs/recorder.md` says what it survives.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from synth_pipeline import __version__, plugins, venues
from synth_pipeline.capture.clock import Clock
from synth_pipeline.capture.disk import Disk
from synth_pipeline.capture.figures import Figures
from synth_pipeline.capture.rest import RequestFailed, Rest
from synth_pipeline.capture.session import Limits, Session, Surroundings
from synth_pipeline.capture.tape import Tape
from synth_pipeline.errors import BadMessage, InputError, NoDataError
from synth_pipeline.schema import Instrument
from synth_pipeline.venues import Venue

_NOTE_CLOCK_SECONDS = 60.0
_SCHEMES = {"websocket": ("ws://", "wss://"), "rest": ("http://", "https://")}


@dataclass(frozen=True)
class Plan:
    """What to record, from where, into which folder."""

    name: str
    """The venue's name."""
    venue: Venue
    instruments: tuple[Instrument, ...]
    streams: tuple[str, ...]
    websocket_url: str
    rest_url: str
    folder: Path

    @classmethod
    def of(
        cls,
        name: str,
        symbols: Sequence[str],
        folder: Path,
        *,
        streams: Sequence[str] = (),
        urls: Mapping[Literal["websocket", "rest"], str] | None = None,
    ) -> Plan:
        """Make a plan of names.

        Raises `UnknownNameError` for a venue without a file, `InputError` for no symbols, streams that cannot go
        together, or an address of another kind.
        """
        venue: Venue = plugins.load(venues, name)()
        urls = urls or {}
        for side, url in urls.items():
            if not url.startswith(_SCHEMES[side]):
                raise InputError(
                    f"address {url!r} does not begin with {' or '.join(_SCHEMES[side])}: mend {side} of {name} in"
                    " SYNTH_VENUE_URLS"
                )
        instruments = tuple(dict.fromkeys(Instrument(name, symbol.strip()) for symbol in symbols if symbol.strip()))
        chosen = tuple(dict.fromkeys(stream.strip() for stream in streams if stream.strip())) or venue.streams
        if not instruments:
            raise InputError("no symbols to record: give --symbols, such as BTCUSDT,ETHUSDT")
        depths = [stream for stream in chosen if venue.stream_kind(stream) == "book_levels"]
        if len(depths) > 1:
            raise InputError(f"streams {', '.join(depths)} have update ids of their own each: record one of them")
        return cls(
            name,
            venue,
            instruments,
            chosen,
            urls.get("websocket", venue.websocket_url).rstrip("/"),
            urls.get("rest", venue.rest_url).rstrip("/"),
            folder,
        )


class Recorder:
    """One recording, from `run` to its end."""

    def __init__(self, plan: Plan, *, rng: np.random.Generator, limits: Limits | None = None) -> None:
        self.plan = plan
        self.figures = Figures()
        self._limits = limits or Limits()
        self._disk = Disk(plan.folder, self._limits.buffer_bytes, self._limits.sync_seconds)
        self._clock = Clock()
        self._rest = Rest(plan.venue, plan.rest_url)
        self._tapes = {each.symbol: Tape(plan.venue, each, self._disk) for each in plan.instruments}
        self._around = Surroundings(plan.venue, self._rest, self.figures, self._clock, self._limits, rng)
        self._stop = asyncio.Event()
        self._reason = "asked to stop"
        self._started = 0.0

    def stop(self, reason: str = "asked to stop") -> None:
        """End the recording cleanly; to be called in its event loop."""
        self._reason = reason
        self._stop.set()

    async def run(self, seconds: float | None = None, on_second: Callable[[Figures], object] | None = None) -> Figures:
        """Record until stopped, or for some seconds.

        Raises `InputError` when a file cannot be opened, `NoDataError` when nothing came of any symbol.
        """
        self._open_logs()
        self._started = time.monotonic()
        self._disk.start()
        sessions = list(self._sessions())
        tasks = [asyncio.create_task(session.run()) for session in sessions]
        tasks += [asyncio.create_task(work) for work in (self._tick(on_second), self._watch_clock())]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({*tasks, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reason = self._reason if self._stop.is_set() else "time is up"
            for task in (*tasks, stopped):
                task.cancel()
            for session in sessions:
                await session.close()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await self._close(reason)
        for fault in done:
            if isinstance(fault, Exception):
                raise fault
        if self.figures.messages == self.figures.answers and not self.figures.snapshots:
            raise NoDataError(
                f"nothing came from {self.plan.websocket_url} ({self.figures.fault or 'connected, but silent'}):"
                " check the network, the venue, the symbols and the streams"
            )
        return self.figures

    def _open_logs(self) -> None:
        now_ns = time.time_ns()
        try:
            for tape in self._tapes.values():
                tape.log.open(now_ns)
        except (OSError, InputError) as error:
            self._disk.close()
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{error.filename or self.plan.folder} cannot be written ({error.strerror}): give another --raw-dir"
            ) from error
        for tape in self._tapes.values():
            plan = self.plan
            tape.note("start", venue=plan.name, symbol=tape.symbol, streams=plan.streams, version=__version__)

    def _sessions(self) -> Iterator[Session]:
        """Streams of one path go together, as many symbols as one connection may carry."""
        venue = self.plan.venue
        paths: dict[str, list[str]] = {}
        for stream in self.plan.streams:
            paths.setdefault(venue.path_of(stream), []).append(stream)
        tapes = list(self._tapes.values())
        for path, streams in paths.items():
            size = max(1, venue.streams_per_connection // len(streams))
            for at in range(0, len(tapes), size):
                group: dict[str | None, Tape] = {tape.symbol: tape for tape in tapes[at : at + size]}
                yield Session(self._around, f"{self.plan.websocket_url}{path}", group, streams)

    async def _tick(self, on_second: Callable[[Figures], object] | None) -> None:
        shown = time.monotonic()
        while True:
            await asyncio.sleep(self._limits.seal_seconds)
            self._tick_logs()
            if on_second is not None and time.monotonic() - shown >= 1.0:
                shown = time.monotonic()
                on_second(self.figures)

    def _tick_logs(self) -> None:
        now_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
        if self._clock.look(now_ns, monotonic_ns):
            self._note_clock(stepped=True)
        for tape in self._tapes.values():
            tape.log.tick(now_ns, monotonic_ns)
        figures, disk, offset = self.figures, self._disk, self._clock.offset()
        figures.offset_ns, figures.offset_error_ns = (None, None) if offset is None else offset
        figures.dropped = sum(tape.log.dropped_messages for tape in self._tapes.values())
        figures.clock_steps = self._clock.steps
        figures.file_bytes, figures.held_bytes, figures.disk_lag_seconds = (
            disk.file_bytes,
            disk.held_bytes,
            disk.lag_seconds,
        )
        figures.fault = disk.fault or figures.fault
        figures.seconds = time.monotonic() - self._started

    async def _watch_clock(self) -> None:
        """Ask the venue for its time now and then, and note the estimate once a minute."""
        noted = time.monotonic() - _NOTE_CLOCK_SECONDS
        while True:
            with contextlib.suppress(RequestFailed, BadMessage):
                sent_ns, answered_ns, venue_ns = await self._rest.time()
                self._clock.asked(time.monotonic_ns(), sent_ns, answered_ns, venue_ns)
            if time.monotonic() - noted >= _NOTE_CLOCK_SECONDS and self._note_clock():
                noted = time.monotonic()
            await asyncio.sleep(self._limits.clock_seconds)

    def _note_clock(self, **facts: object) -> bool:
        offset = self._clock.offset()
        if offset is None and not facts:
            return False
        known: dict[str, object] = {} if offset is None else offset._asdict()
        for tape in self._tapes.values():
            tape.note("clock", **known, **facts)
        return True

    async def _close(self, reason: str) -> None:
        """Write down why it ended, and wait for the disk."""
        await self._rest.close()
        for tape in self._tapes.values():
            tape.note("stop", reason=reason)
            tape.log.seal()
        await asyncio.to_thread(self._disk.close)
        self._tick_logs()
        if self._disk.lost_bytes:
            self.figures.fault = f"{self._disk.lost_bytes} bytes were never written: {self._disk.fault}"
