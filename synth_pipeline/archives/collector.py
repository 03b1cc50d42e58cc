"""The collector format: one `receive-time JSON` line a message, usually gzipped.

    1700000000123456789 {"stream":"btcusdt@trade","data":{…}}

The stamp is ns, µs or ms since the epoch, line by line as its digits say; REST snapshots stand between the stream
events. Logs of Bitstamp's orders have a format of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from synth_pipeline.archives import FrameArchive, Line, opened
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, day_of

_LINE = re.compile(rb"(\d{13}|\d{16}|\d{19}) (.*)", re.DOTALL)
_FIRST = re.compile(rb"\d{13}(?:\d{3}){0,2} ?\{(?!.*\"channel\": ?\"live_(?:orders|trades)_)")
_STREAM = re.compile(rb'"s(?:ymbol)?":"([A-Za-z0-9_\-]+)"')
_PEEK = 200
_CONTRADICTION_NS = 60 * NS_PER_SECOND
_EARLIEST_NS, _LATEST_NS = 946_684_800 * 10**9, 4_102_444_800 * 10**9
"""The years 2000 to 2100: no capture's clock stood elsewhere."""


class Collector(FrameArchive):
    """`receive-time JSON` lines."""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A first line that starts with a stamp of 13, 16 or 19 digits and a brace."""
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

    def lines(self, path: Path, venue: str | None = None) -> Iterator[Line]:  # noqa: ARG002 - of one venue
        """Yield one `Line` per non-empty line; an unreadable stamp gives `received_ns=None`.

        So does a stamp outside the years 2000 to 2100, and one that its neighbours, which agree, contradict by over a
        minute. A last line without its newline is yielded like any other: the parser judges it.
        """
        with opened(path) as file:
            texts = (text for line in file if (text := line.rstrip(b"\r\n")))
            lines = map(_parsed, texts)
            before: int | None = None
            line = next(lines, None)
            while line is not None:
                following = next(lines, None)
                alone = _stands_alone(before, line, following)
                yield Line(None, line.payload) if alone else line
                if not alone:
                    before = line.received_ns or before
                line = following


def _parsed(text: bytes) -> Line:
    match = _LINE.fullmatch(text)
    if match is None:
        return Line(None, text)
    stamp = int(match[1])
    return Line(stamp * 10 ** (19 - len(match[1])), match[2])


def _stands_alone(before: int | None, line: Line, following: Line | None) -> bool:
    if line.received_ns is None:
        return False
    if not _EARLIEST_NS <= line.received_ns < _LATEST_NS:
        return True
    after = following.received_ns if following else None
    if before is None or after is None:
        return False
    return abs(after - before) <= _CONTRADICTION_NS < min(abs(line.received_ns - before), abs(line.received_ns - after))
