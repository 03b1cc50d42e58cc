"""The verb `record`: raw bytes into the store, from recorded files or from the embedded market."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

from synth_pipeline import archives, plugins, venues
from synth_pipeline.archives import FrameArchive, RowArchive, rawlog
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.lineage import manifests
from synth_pipeline.lineage.digests import sha256_file
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_start_ns
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

_IMPORT_SOURCES = ("schema.py", "capture", "archives", "stages/raw.py")
_SIMULATION_SOURCES = ("schema.py", "rng.py", "archives/rawlog.py", "market", "stages/raw.py")
SIMULATED = "simulated"
"""The venue whose raw captures come from the embedded market."""


def identify(sources: Sequence[Path], venue: str | None, symbol: str | None) -> Instrument:
    """Decide which instrument the files are of; what is not given is read from the files.

    Raises `UnknownNameError` for an unknown venue, `InputError` when the files contradict what was given or do not say.
    """
    archive = importing.archive_of(sources[0])
    archive_name = type(archive).__module__.rpartition(".")[2]
    if archive.venue is not None:
        if venue not in (None, archive.venue, archive_name):
            raise InputError(
                f"{sources[0]} is a {archive_name} file, of venue {archive.venue!r}, not {venue!r}: check --venue"
            )
        venue = archive.venue
    elif isinstance(archive, FrameArchive) and venue in (None, *plugins.names(venues)):
        venue = _common_venue(sources, venue)
    if venue is None:
        raise InputError(
            f"{sources[0]} does not say which venue it is of: pass --venue, one of {', '.join(known_venues())}"
        )
    if venue not in known_venues():
        raise UnknownNameError("venue", venue, known_venues())
    return Instrument(venue, symbol or _only_symbol(sources[0], archive.symbols(sources[0])))


def _common_venue(sources: Sequence[Path], venue: str | None) -> str | None:
    """The venue that the messages of every file are of, None when no file's messages say."""
    for path, archive in importing.in_order(sources):
        found = importing.venues_of(path, archive)
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
) -> Manifest:
    """Bring one day of raw bytes into the store: from recorded files, or `seconds` of the embedded market.

    Without sources, what is stored already is the capture. Raises `NoDataError` when there is none, `InputError` for
    files that cannot be read.
    """
    if not sources and instrument.venue != SIMULATED:
        return replace(workspace.require("raw", "give the recorded files and record", instrument, day), skipped=True)
    key = f"{instrument}/{day}"
    if not sources:
        if not math.isfinite(seconds) or seconds <= 0:
            raise InputError(f"{seconds} seconds cannot be recorded: give a positive number")
        draft = draft_of(workspace, "raw", key, {}, _SIMULATION_SOURCES, {"seconds": seconds}, seeded=True)
        return materialize(workspace, draft, lambda place: _simulate(workspace, instrument, day, seconds, place))
    files = _members(list(dict.fromkeys(archives.require_file(path).resolve() for path in sources)))
    draft = draft_of(workspace, "raw", key, _digests(files), _IMPORT_SOURCES, {})
    return materialize(workspace, draft, lambda place: _import(files, instrument, day, place))


def _members(paths: list[Path]) -> list[Path]:
    """Add what belongs to a row archive of several files. Raises `InputError` for several row archives."""
    archive = importing.archive_of(paths[0])
    if not isinstance(archive, RowArchive):
        return paths
    members = archive.members(paths[0])
    if not set(paths) <= set(members):
        raise InputError(f"{paths[0]} is one session a file: give each of {len(paths)} such files a run of its own")
    return members


def _digests(files: list[Path]) -> dict[str, str]:
    """Digests by name; files of one name in different folders are told apart by a number."""
    names = Counter(path.name for path in files)
    return {
        f"{manifests.FILE_INPUT}{path.name}" + (f"#{number}" if names[path.name] > 1 else ""): sha256_file(path)
        for number, path in enumerate(files, start=1)
    }


def _simulate(workspace: Workspace, instrument: Instrument, day: date, seconds: float, place: Path) -> Built:
    from synth_pipeline.market import exchange

    start = day_start_ns(day)
    end = start + min(int(seconds * NS_PER_SECOND), NS_PER_DAY)
    rng = stream(workspace.settings.seed, "market", str(instrument), day.isoformat())
    path = place / "capture.rawlog"
    with rawlog.Writer(path) as log:
        for frame in exchange.simulate(instrument.symbol, start, end, rng=rng, progress=workspace.progress):
            log.append(rawlog.Record(frame.received_ns, frame.payload))
    return Built({"capture": path}, {"format": "rawlog", "messages": log.records}, {"capture": log.records})


def _import(sources: Sequence[Path], instrument: Instrument, day: date, place: Path) -> Built:
    archive = importing.archive_of(sources[0])
    if isinstance(archive, RowArchive):
        archive.rows(sources[0], instrument.symbol, day)
        name = type(archive).__module__.rpartition(".")[2]
        return Built({"archive": _kept(sources, place)}, {"format": name})
    path = place / "capture.rawlog"
    written = importing.write_day(path, importing.chained(importing.in_order(sources)), day, instrument.symbol)
    names = ", ".join(map(str, sources))
    if not written.messages:
        days = ", ".join(each.isoformat() for each in importing.days_of(sources))
        raise NoDataError(f"{names}: no message on {day}; the days are {days}")
    if not written.naming_symbol:
        held = sorted({symbol for source in sources for symbol in archive.symbols(source)})
        raise NoDataError(
            f"{names}: no message of {instrument.symbol} on {day}; the capture holds {', '.join(held)}; check --symbol"
        )
    return Built({"capture": path}, {"format": "rawlog"} | asdict(written), {"capture": written.messages})


def _kept(members: Sequence[Path], place: Path) -> Path:
    """Copy a row archive as it is; one of several files is kept as one ZIP of them."""
    if len(members) == 1:
        return Path(shutil.copyfile(members[0], place / members[0].name))
    kept = place / "archive.zip"
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            # A fixed date: the same files give the same bytes.
            archive.writestr(zipfile.ZipInfo(member.name), member.read_bytes(), zipfile.ZIP_DEFLATED)
    return kept
