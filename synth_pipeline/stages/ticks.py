"""The verb `ingest`: raw bytes to tick tables."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from synth_pipeline import archives, plugins, venues
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument, day_start_ns
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

if TYPE_CHECKING:
    from synth_pipeline.ticks.opening import Opening

SOURCES = ("schema.py", "venues", "archives", "capture", "ticks", "stages/ticks.py")


def ingest(workspace: Workspace, instrument: Instrument, day: date) -> Manifest:
    """Turn one day of raw bytes into tick tables, opening with yesterday's book where the recording goes on from it.

    Raises `NoDataError` when nothing was recorded, `InputError` when the capture is not of this venue or symbol.
    """
    raw = workspace.require("raw", "record", instrument, day)
    before = _continued_from(workspace, raw, instrument, day)
    inputs = {raw.ref: raw.digest} | ({before.ref: before.digest} if before else {})
    draft = draft_of(
        workspace,
        "ticks",
        f"{instrument}/{day}",
        inputs,
        SOURCES,
        {},
    )
    return materialize(workspace, draft, lambda place: _ingest(workspace, raw, before, instrument, day, place))


def _continued_from(workspace: Workspace, raw: Manifest, instrument: Instrument, day: date) -> Manifest | None:
    """Yesterday's ticks, made now if need be, when today's recording is the continuation of yesterday's."""
    yesterday = day - timedelta(days=1)
    if not raw.facts.get("continues_from_yesterday") or workspace.find("raw", instrument, yesterday) is None:
        return None
    return ingest(workspace, instrument, yesterday)


def _ingest(
    workspace: Workspace, raw: Manifest, before: Manifest | None, instrument: Instrument, day: date, place: Path
) -> Built:
    from synth_pipeline.ticks import ingest, rowgroups, rows
    from synth_pipeline.ticks.store import TABLES

    if raw.facts["format"] == "rawlog":
        ticks = ingest.ingest_frames(
            workspace.file(raw, "capture"),
            plugins.load(venues, instrument.venue)(),
            instrument.symbol,
            day_start_ns(day),
            lambda: _close_of(workspace, before),
            place,
            messages=raw.facts["messages"],
            progress=workspace.progress,
        )
    else:
        formats = raw.facts["formats"]
        sources = [(plugins.load(archives, formats[name])(), workspace.file(raw, name)) for name in raw.outputs]
        ticks = rows.ingest_rows(
            sources, instrument.symbol, day, place, inverse=_is_inverse(instrument), progress=workspace.progress
        )
    facts = ticks.counts | {
        "rows": ticks.rows,
        "coverage": ticks.coverage,
        "tick_size": str(ticks.scale.tick_size),
        "lot_size": str(ticks.scale.lot_size),
    }
    groups = {name: rowgroups.described(ticks.files[name]) for name in TABLES if name in ticks.files}
    return Built(ticks.files, facts, ticks.rows, groups)


def _is_inverse(instrument: Instrument) -> bool:
    known = instrument.venue in plugins.names(venues)
    return known and bool(plugins.load(venues, instrument.venue).inverse)


def _close_of(workspace: Workspace, ticks: Manifest | None) -> Opening | None:
    """The book and the quote as a day left them, None when its book was unknown at the end."""
    from synth_pipeline.ticks.opening import read_close

    if ticks is None:
        return None
    return read_close({name: workspace.file(ticks, name) for name in ("book_levels", "quotes", "trades")})
