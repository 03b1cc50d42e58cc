"""The collector format: one `receive-time JSON` line a message, usually gzipped.

    1700000000123456789 {"stream":"btcusdt@trade","data":{…}}

The stamp is ns or µs since the epoch (by its digits); REST snapshots stand between the stream events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from synth_pipeline.archives import FrameArchive, Line, opened
from synth_pipeline.schema import NS_PER_DAY, day_of

_LINE = re.compile(rb"(\d{16}|\d{19}) (.*)", re.DOTALL)
_FIRST = re.compile(rb"\d{16}(?:\d{3})? ?\{")
_STREAM = re.compile(rb'"s(?:ymbol)?":"([A-Za-z0-9_\-]+)"')
_PEEK = 200


class Collector(FrameArchive):
    """`receive-time JSON` lines."""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A first line that starts with a 16- or 19-digit stamp and a brace."""
        return any(_FIRST.match(line) for line in head.split(b"\n")[:20])

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the first messages."""
        with opened(path) as file:
            lines = [line for line, _ in zip(file, range(_PEEK), strict=False)]
        return sorted({match[1].decode() for line in lines if (match := _STREAM.search(line))})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the receive stamps."""
        stamps = {line.received_ns // NS_PER_DAY for line in self.lines(path) if line.received_ns is not None}
        return [day_of(number * NS_PER_DAY) for number in sorted(stamps)]

    def lines(self, path: Path) -> Iterator[Line]:
        """Yield one `Line` per non-empty line; an unreadable stamp gives `received_ns=None`.

        A last line without its newline is yielded like any other: the parser judges it.
        """
        with opened(path) as file:
            for line in file:
                text = line.rstrip(b"\r\n")
                if not text:
                    continue
                match = _LINE.fullmatch(text)
                if match is None:
                    yield Line(None, text)
                    continue
                stamp = int(match[1])
                yield Line(stamp * 1000 if len(match[1]) == 16 else stamp, match[2])
