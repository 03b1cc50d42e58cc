"""Recorded files into the raw store: which archive a file is, which days it holds, and one day's raw log out of it."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

import synth_pipeline.archives as archives
import synth_pipeline.venues as venues
from synth_pipeline import plugins
from synth_pipeline.archives import Archive, Form, FrameArchive, Line
from synth_pipeline.archives.rawlog import CONTINUES, SILENCE_NS, Kind, Record, Writer
from synth_pipeline.errors import BadMessage, InputError
from synth_pipeline.schema import NS_PER_DAY, day_start_ns

_SNIFFED_LINES = 200
_BARS = re.compile(rb"open.*high.*low.*close", re.IGNORECASE)
GENERIC = "generic_csv"
"""The archive that a user's word about a table makes it."""


def archive_of(path: Path, form: Form | None = None) -> Archive:
    """Recognize a file's format by its content; what a user says of its form makes it a generic table.

    Raises `InputError` for a missing, empty, damaged or unknown file.
    """
    head = archives.head_of(path)
    if form:
        return plugins.load(archives, GENERIC)(form)  # type: ignore[no-any-return]
    for name in plugins.names(archives):
        archive = plugins.load(archives, name)
        if archive.matches(path, head):
            return archive()  # type: ignore[no-any-return]
    if _BARS.search(head.partition(b"\n")[0]):
        raise InputError(f"{path} holds bars, not ticks: bring them in with `synth-pipeline bars {path}`")
    known = ", ".join(plugins.names(archives))
    raise InputError(
        f"{path} is of no known format: known are {known}; of a table, say what its columns mean with --columns"
    )


def venues_of(path: Path, archive: FrameArchive) -> list[str]:
    """Return the venues that the file names, else those whose parsers take any of its first messages, most first."""
    if named := archive.venues(path):
        return named
    lines = [line for line, _ in zip(archive.lines(path), range(_SNIFFED_LINES), strict=False)]
    said = {note.venue for line in lines if (note := _note(line)) is not None and note.event == "start"}
    if said and said <= set(plugins.names(venues)):
        return sorted(said)
    found = {name: _readable(name, lines) for name in plugins.names(venues)}
    return sorted((name for name, count in found.items() if count), key=lambda name: -found[name])


class _Note(msgspec.Struct):
    """What importing must know of a recorder's note."""

    event: str = ""
    venue: str = ""


def _note(line: Line) -> _Note | None:
    """Read a recorder's note, None where the line is a message."""
    try:
        return msgspec.json.decode(line.payload, type=_Note) if line.kind == Kind.EVENT else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Note()


def _readable(venue: str, lines: Iterable[Line]) -> int:
    parser, count = plugins.load(venues, venue)(), 0
    for line in lines:
        try:
            messages = parser.parse(line.payload, 0)
        except BadMessage:
            continue
        # A REST snapshot or an answer reads the same on several venues.
        count += any(message.symbol is not None for message in messages)
    return count


def days_of(sources: Sequence[Path], form: Form | None = None) -> list[date]:
    """Return the UTC days that the files hold, in order. Raises `InputError` when no line carries a time."""
    days = {day for path in sources for day in archive_of(path, form).days(path)}
    if not days:
        names = ", ".join(str(path) for path in sources)
        raise InputError(f"{names}: no line carries a receive time; is it a capture of another format?")
    return sorted(days)


@dataclass(frozen=True)
class Written:
    """What one day's raw log holds."""

    messages: int
    without_time: int
    """Messages without a readable receive time, filed under the time of the message before."""
    other_days: int
    """Messages of the recording that belong to other days."""
    continues_from_yesterday: bool
    naming_symbol: int
    """Messages in which the symbol stands; a REST snapshot need not name it."""


def write_day(path: Path, lines: Iterable[Line], day: date, symbol: str) -> Written:
    """Write one UTC day of a recording as a raw log, with all its messages, of other symbols too.

    A message without a readable time belongs to the day of the message before it: it is kept, so that ingestion can
    count it. Where the recording goes on over midnight, the log says so on that side.
    """
    start, end = day_start_ns(day), day_start_ns(day) + NS_PER_DAY
    messages = without_time = other_days = naming = 0
    names = (symbol.upper().encode(), symbol.lower().encode())
    from_yesterday = stopped = False
    latest: int | None = None
    with Writer(path) as log:
        for received_ns, line in _timed(lines):
            note = _note(line)
            stopped = stopped or (note is not None and note.event == "start")
            near = latest is not None and received_ns - latest <= SILENCE_NS and not stopped
            if start <= received_ns < end:
                if near and latest is not None and latest < start and not messages:
                    log.append(Record(start, CONTINUES, Kind.EVENT))
                    from_yesterday = True
                from_yesterday |= line.payload == CONTINUES and not messages
                log.append(Record(received_ns, line.payload, line.kind, line.monotonic_ns, line.connection))
                messages += line.kind == Kind.MESSAGE
                without_time += line.received_ns is None
                naming += any(name in line.payload for name in names)
            else:
                if near and latest is not None and start <= latest < end <= received_ns:
                    log.append(Record(latest, CONTINUES, Kind.EVENT))
                other_days += 1
            latest, stopped = received_ns, note is not None and note.event == "stop"
    return Written(messages, without_time, other_days, from_yesterday, naming)


def _timed(lines: Iterable[Line]) -> Iterator[tuple[int, Line]]:
    """Pair every message with a time: its own, that of the one before it, or that of the first that has one."""
    leading: list[Line] = []
    latest: int | None = None
    for line in lines:
        latest = latest if line.received_ns is None else line.received_ns
        if latest is None:
            leading.append(line)
            continue
        yield from ((latest, early) for early in leading)
        leading.clear()
        yield latest, line


def in_order(sources: Sequence[Path]) -> list[tuple[Path, FrameArchive]]:
    """Return recordings with their archives, by first receive time. Raises `InputError` for row archives."""
    found = []
    for path in sources:
        archive = archive_of(path)
        if not isinstance(archive, FrameArchive):
            raise InputError(f"{path} holds rows, not messages: give tables and recordings one after the other")
        stamps = (line.received_ns for line in archive.lines(path) if line.received_ns is not None)
        found.append((next(stamps, 0), path, archive))
    return [(path, archive) for _, path, archive in sorted(found, key=lambda item: item[0])]


def chained(sources: Sequence[tuple[Path, FrameArchive]], venue: str | None = None) -> Iterator[Line]:
    """Yield the messages of several files as one recording, of one venue where a file holds several; files that overlap
    in time are merged by receive time.

    Within a file the order stays as it is: where its clock steps back, the latest time so far decides.
    """
    streams = (_with_latest(archive.lines(path, venue)) for path, archive in sources)
    return (line for _, line in heapq.merge(*streams, key=lambda pair: pair[0]))


def _with_latest(lines: Iterable[Line]) -> Iterator[tuple[int, Line]]:
    latest = 0
    for received_ns, line in _timed(lines):
        latest = max(latest, received_ns)
        yield latest, line
