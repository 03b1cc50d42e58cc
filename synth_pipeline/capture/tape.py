"""One instrument while it is recorded: its log, its streams, and the notes of the recorder."""

from __future__ import annotations

import asyncio
import time

from synth_pipeline.archives import rawlog
from synth_pipeline.capture.disk import Disk, Log
from synth_pipeline.capture.sequence import Book, Counted, Rising
from synth_pipeline.schema import Instrument
from synth_pipeline.venues import Venue


class Tape:
    """The recording of one instrument."""

    def __init__(self, venue: Venue, instrument: Instrument, disk: Disk) -> None:
        self.instrument = instrument
        self.streams: dict[str, Book | Counted | Rising] = {}
        self.mending: asyncio.Task[None] | None = None
        """Brings a snapshot, while one is needed."""
        self.log = Log(disk, instrument)
        self._venue = venue

    @property
    def symbol(self) -> str:
        """The instrument's symbol."""
        return self.instrument.symbol

    @property
    def book(self) -> Book | None:
        """The depth stream, None before its first message."""
        stream = self.streams.get("book_levels")
        return stream if isinstance(stream, Book) else None

    def open_stream(self, kind: str) -> Book | Counted | Rising:
        """Begin to follow a stream."""
        stream: Book | Counted | Rising
        if kind == "book_levels":
            stream = Book(self._venue.sequence_rule())
        elif kind == "trades" and self._venue.trade_ids_count_up:
            stream = Counted(kind)
        else:
            stream = Rising(kind)
        self.streams[kind] = stream
        return stream

    def note(self, name: str, **facts: object) -> None:
        """Write a note of the recorder."""
        self.log.note(rawlog.note(name, time.time_ns(), time.monotonic_ns(), **facts))
