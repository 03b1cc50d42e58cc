"""What a file in the inbox holds: which instruments and days, told by the recorder's name for it or by its content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from synth_pipeline.archives import Archive, FrameArchive, RowArchive
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_of, day_start_ns, parse_day
from synth_pipeline.stages.raw import known_venues

HOUR_NS = 3600 * NS_PER_SECOND
_RECORDED = re.compile(r"([a-z][a-z0-9_]*)\.([A-Za-z0-9][A-Za-z0-9_\-]*)\.(\d{4}-\d\d-\d\d)T([01]\d|2[0-3])\.rawlog")


class Holding(NamedTuple):
    """What one file, or the files of one session, hold."""

    instruments: list[str]
    days: list[str]
    first_ns: int
    last_ns: int
    files: list[str]
    """Relative to the inbox; more than one where a row archive has several."""
    rows: bool = False
    """Of a row archive: not to be joined with other files."""


def by_name(name: str) -> Holding | None:
    """Return what one of the recorder's own hourly files holds, None for any other name."""
    if (match := _RECORDED.fullmatch(Path(name).name)) is None:
        return None
    try:
        start = day_start_ns(parse_day(match[3])) + int(match[4]) * HOUR_NS
        return Holding([str(Instrument(match[1], match[2]))], [match[3]], start, start + HOUR_NS - 1, [name])
    except InputError:
        return None


def by_content(inbox: Path, name: str) -> Holding:
    """Look through a file. Raises `InputError` for one that is unknown, damaged, or does not tell its instrument."""
    path = inbox / name
    archive = importing.archive_of(path)
    venue, symbols = _instrument(inbox, name, archive)
    instruments = [str(Instrument(venue, symbol)) for symbol in symbols]
    if isinstance(archive, RowArchive):
        days = archive.days(path)
        files = sorted(str(member.relative_to(inbox)) for member in archive.members(path))
        start, end = day_start_ns(days[0]), day_start_ns(days[-1]) + NS_PER_DAY
        return Holding(instruments, [day.isoformat() for day in days], start, end - 1, files, rows=True)
    assert isinstance(archive, FrameArchive)
    first, last, numbers = 2**63, 0, set()
    for line in archive.lines(path):
        if (at := line.received_ns) is not None:
            first, last = min(first, at), max(last, at)
            numbers.add(at // NS_PER_DAY)
    if not numbers:
        raise NoDataError(f"{path} has no message with a readable receive time: nothing of it can be filed")
    return Holding(instruments, [day_of(n * NS_PER_DAY).isoformat() for n in sorted(numbers)], first, last, [name])


def _instrument(inbox: Path, name: str, archive: Archive) -> tuple[str, list[str]]:
    """Return venue and symbols as the content says, or where it does not, as the folders `<venue>/<SYMBOL>/` say."""
    path, folders = inbox / name, Path(name).parts[:-1]
    told = folders[0] if folders and folders[0] in known_venues() else None
    candidates = [named] if (named := archive.venue_of(path)) else []
    if not candidates and isinstance(archive, FrameArchive):
        candidates = list(importing.venues_of(path, archive))
    venue = told if told and (not candidates or told in candidates) else next(iter(candidates), None)
    symbols = archive.symbols(path)
    if told and len(folders) > 1 and (not symbols or folders[1].upper() in map(str.upper, symbols)):
        symbols = [folders[1]]
    if venue is None or not symbols:
        lacks = "venue" if venue is None else "symbol"
        place = inbox / "<venue>" / "<SYMBOL>"
        raise InputError(f"{path} does not say its {lacks}: lay it into {place}, such as binance_usdm/BTCUSDT")
    return venue, symbols
