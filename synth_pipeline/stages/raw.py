"""The verb `record`: raw bytes into the store, from recorded files or from the embedded market."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from functools import lru_cache
from pathlib import Path

from synth_pipeline import archives, plugins, venues
from synth_pipeline.archives import Archive, Form, FrameArchive, RowArchive, plain_symbol, rawlog
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.lineage import manifests
from synth_pipeline.lineage.digests import sha256_file
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_start_ns
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

IMPORT_SOURCES = ("schema.py", "capture", "archives", "stages/raw.py")
SIMULATION_SOURCES = ("schema.py", "rng.py", "archives/rawlog.py", "market", "stages/raw.py")
SIMULATED = "simulated"
"""The venue whose raw captures come from the embedded market."""


def identify(sources: Sequence[Path], venue: str | None, symbol: str | None, form: Form | None = None) -> Instrument:
    """Decide which instrument the files are of; what is not given is read from the files.

    Raises `UnknownNameError` for an unknown venue of messages, `InputError` when the files contradict what was given or
    do not say.
    """
    archive = importing.archive_of(sources[0], form)
    told = archive.venue_of(sources[0])
    if told is not None and venue in (None, told, _name_of(archive)):
        venue = told
    elif told is not None:
        raise InputError(f"{sources[0]} is a {_name_of(archive)} file, of venue {told!r}, not {venue!r}: check --venue")
    elif isinstance(archive, FrameArchive) and venue in (None, *plugins.names(venues)):
        venue = _common_venue(sources, venue)
    if venue is None:
        raise InputError(
            f"{sources[0]} does not say which venue it is of: pass --venue, one of {', '.join(known_venues())}"
            + (" or a name of your own" if isinstance(archive, RowArchive) else "")
        )
    if venue not in known_venues() and isinstance(archive, FrameArchive):
        raise UnknownNameError("venue", venue, known_venues())
    return Instrument(venue, plain_symbol(symbol or _only_symbol(sources[0], archive.symbols(sources[0]))))


def _name_of(archive: Archive) -> str:
    return type(archive).__module__.rpartition(".")[2]


def _common_venue(sources: Sequence[Path], venue: str | None) -> str | None:
    """The venue that the messages of every file are of, None when no file's messages say."""
    for path, archive in importing.in_order(sources):
        found = importing.venues_of(path, archive)
        if venue is None and len(archive.venues(path)) > 1:
            raise InputError(f"{path} holds messages of {' and '.join(found)}: pass the one you mean with --venue")
        if venue is not None and found and venue not in found:
            raise InputError(
                f"{path} is not of venue {venue!r}: its messages are those of {' or '.join(found)}; check --venue"
            )
        venue = venue or next(iter(found), None)
    return venue


def _only_symbol(path: Path, symbols: list[str]) -> str:
    if len(symbols) != 1:
        raise InputError(f"{path} holds {', '.join(symbols) or 'no named symbol'}: pass the one you mean with --symbol")
    return symbols[0]


def known_venues() -> list[str]:
    """Return the venues with a wire format and those that only archives know."""
    from_archives = {plugins.load(archives, name).venue for name in plugins.names(archives)}
    return sorted({*plugins.names(venues), *(name for name in from_archives if name)})


def record(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    sources: Sequence[Path] = (),
    *,
    seconds: float = 3600.0,
    form: Form | None = None,
) -> Manifest:
    """Bring one day of raw bytes into the store: from recorded files, or `seconds` of the embedded market.

    Several files are one recording, or tables of one instrument (trades and the book, say); `form` is what a user says
    of a table. Without sources, what is stored already is the capture. Raises `NoDataError` when there is none,
    `InputError` for files that cannot be read.
    """
    if not sources and instrument.venue != SIMULATED:
        return replace(workspace.require("raw", "give the recorded files and record", instrument, day), skipped=True)
    key = f"{instrument}/{day}"
    if not sources:
        if not math.isfinite(seconds) or seconds <= 0:
            raise InputError(f"{seconds} seconds cannot be recorded: give a positive number")
        draft = draft_of(workspace, "raw", key, {}, SIMULATION_SOURCES, {"seconds": seconds}, seeded=True)
        return materialize(workspace, draft, lambda place: _simulate(workspace, instrument, day, seconds, place))
    found = _whole_sources(list(dict.fromkeys(archives.require_file(path).resolve() for path in sources)), form)
    config = {"columns": dict(form.columns), "timezone": form.timezone} if form else {}
    draft = draft_of(
        workspace, "raw", key, _digests([file for files, _ in found for file in files]), IMPORT_SOURCES, config
    )
    return materialize(workspace, draft, lambda place: _import(found, instrument, day, place))


_Source = tuple[list[Path], Archive]
"""The files of one source, the one that names it first, and their archive."""


def _whole_sources(paths: list[Path], form: Form | None) -> list[_Source]:
    """Add to each file what belongs to it. Raises `InputError` for tables and recordings together."""
    found: list[_Source] = []
    for path in paths:
        archive = importing.archive_of(path, form)
        if any(path in files for files, _ in found):
            continue
        members = archive.members(path) if isinstance(archive, RowArchive) else [path]
        found.append(([path, *(member for member in members if member != path)], archive))
    if len({isinstance(archive, RowArchive) for _, archive in found}) > 1:
        names = " and ".join(str(files[0]) for files, _ in found)
        raise InputError(f"{names} are tables and recordings: give one kind at a time")
    return found


def _digests(files: list[Path]) -> dict[str, str]:
    """Digests by name; files of one name in different folders are told apart by a number."""
    names = Counter(path.name for path in files)
    states = [path.stat() for path in files]
    return {
        f"{manifests.FILE_INPUT}{path.name}" + (f"#{number}" if names[path.name] > 1 else ""): _digest(
            path, (state.st_ino, state.st_size, state.st_mtime_ns)
        )
        for number, (path, state) in enumerate(zip(files, states, strict=True), start=1)
    }


@lru_cache(maxsize=256)
def _digest(path: Path, state: tuple[int, ...]) -> str:  # noqa: ARG001 - part of the key
    """Digest a file once for all its days."""
    return sha256_file(path)


def _simulate(workspace: Workspace, instrument: Instrument, day: date, seconds: float, place: Path) -> Built:
    from synth_pipeline.market import simulation

    start = day_start_ns(day)
    end = start + min(int(seconds * NS_PER_SECOND), NS_PER_DAY)
    rng = stream(workspace.settings.seed, "market", str(instrument), day.isoformat())
    path = place / "capture.rawlog"
    with rawlog.Writer(path) as log:
        for frame in simulation.simulate(instrument.symbol, start, end, rng=rng, progress=workspace.progress):
            log.append(rawlog.Record(frame.received_ns, frame.payload))
    return Built({"capture": path}, {"format": "rawlog", "messages": log.records}, {"capture": log.records})


def _import(sources: Sequence[_Source], instrument: Instrument, day: date, place: Path) -> Built:
    if isinstance(sources[0][1], RowArchive):
        return _keep(sources, instrument, day, place)
    path = place / "capture.rawlog"
    paths = [files[0] for files, _ in sources]
    # Only a file that names several venues is read for one: the embedded market's own stand in for Binance's.
    lines = importing.chained(importing.in_order(paths), instrument.venue)
    written = importing.write_day(path, lines, day, instrument.symbol)
    names = ", ".join(map(str, paths))
    if not written.messages:
        days = ", ".join(each.isoformat() for each in importing.days_of(paths))
        raise NoDataError(f"{names}: no message on {day}; the days are {days}")
    if not written.naming_symbol:
        held = sorted({symbol for files, archive in sources for symbol in archive.symbols(files[0])})
        raise NoDataError(
            f"{names}: no message of {instrument.symbol} on {day}; the capture holds {', '.join(held)}; check --symbol"
        )
    return Built({"capture": path}, {"format": "rawlog"} | asdict(written), {"capture": written.messages})


def _keep(sources: Sequence[_Source], instrument: Instrument, day: date, place: Path) -> Built:
    """Store the day's part of each table, as it came, and read it back once."""
    kept: dict[str, Path] = {}
    formats: dict[str, str] = {}
    rows: dict[str, int] = {}
    for number, (files, archive) in enumerate(sources, start=1):
        assert isinstance(archive, RowArchive)
        held = archive.symbols(files[0])
        if held and instrument.symbol not in held:
            raise NoDataError(f"{files[0]} holds {', '.join(held)}, not {instrument.symbol}: check --symbol")
        name = "archive" if number == 1 else f"archive_{number}"
        aside = place / f"{name}.part"
        aside.mkdir()
        path = archive.keep(files[0], instrument.symbol, day, aside)
        kept[name] = path.rename(place / f"{name}{path.suffix}")
        aside.rmdir()
        head = type(archive)().scan(kept[name], instrument.symbol, day)
        formats[name], rows[name] = _name_of(archive), head.records
    return Built(kept, {"format": formats["archive"], "formats": formats}, rows)
