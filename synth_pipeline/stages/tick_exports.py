"""The verb `export_ticks`: a day of ticks, or a part of it, as files for other programs, outside the home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns
from synth_pipeline.stages.workspace import Workspace


@dataclass(frozen=True)
class ExportedTicks:
    """What an export wrote."""

    files: tuple[Path, ...]
    rows: Mapping[str, int]
    left_out: Mapping[str, int]
    """Rows that the format has no place for, by reason."""
    facts: Mapping[str, Any]
    """What a reader of the files has to know."""


def export_ticks(
    workspace: Workspace,
    instrument: Instrument,
    day: date,
    to: str,
    folder: Path,
    *,
    start: str | None = None,
    end: str | None = None,
    levels: int | None = None,
    force: bool = False,
) -> ExportedTicks:
    """Write a UTC day, or what of it lies between two times of day (`10:30`), in a format of `ticks/exports`.

    Raises `NoDataError` when the day is not in the store or has nothing for the format, `UnknownNameError` for an
    unknown format, `InputError` for times that are none, and for a place that is taken or cannot be written to.
    """
    from synth_pipeline.ticks.exports import Source
    from synth_pipeline.ticks.exports.exporting import export

    begin = day_start_ns(day)
    start_ns = begin if start is None else _moment(day, start)
    end_ns = begin + NS_PER_DAY if end is None else _moment(day, end)
    if start_ns >= end_ns:
        raise InputError(f"nothing lies from {start or '00:00'} to {end or '24:00'} of {day}: give an earlier start")
    settings = workspace.settings
    source = Source(settings.data, instrument, start_ns, end_ns, levels, settings.home, workspace.progress)
    files, written = export(source, to, folder, force=force)
    return ExportedTicks(tuple(files), written.rows, written.left_out, written.facts)


def _moment(day: date, time: str) -> int:
    """Return a time of a day in ns. Raises `InputError` for any other text."""
    from synth_pipeline.ticks.store import moment_ns

    return moment_ns(f"{day}T{time}")
