"""The verb `ingest`: raw bytes to tick tables."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline import archives, plugins, schema, venues
from synth_pipeline.archives import rawlog
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument, day_start_ns
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize
from synth_pipeline.ticks import store

if TYPE_CHECKING:
    from synth_pipeline.ticks.ingest import Opening


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
        ("schema.py", "venues", "archives", "capture", "ticks", "stages/ticks.py"),
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
    from synth_pipeline.ticks import book, ingest, quality

    folder = workspace.folder("raw", instrument, day)
    if raw.facts["format"] == "rawlog":
        ticks = ingest.ingest_frames(
            rawlog.read(raw.file(folder, "capture")),
            plugins.load(venues, instrument.venue)(),
            instrument.symbol,
            day_start_ns(day),
            lambda: _close_of(workspace, before, instrument, day - timedelta(days=1)),
        )
    else:
        archive = plugins.load(archives, raw.facts["format"])()
        ticks = ingest.ingest_rows(archive.rows(raw.file(folder, "archive"), instrument.symbol, day))
    rebuilt = book.replay(ticks.tables["book_levels"])
    agreement = quality.book_ticker_agreement(rebuilt, ticks.tables["quotes"])
    from_stream = ticks.counts.get("quotes_from") == "stream"
    files, rows = {}, {}
    for name, columns in ticks.tables.items():
        files[name] = place / f"{name}.parquet"
        rows[name] = store.write_table(files[name], schema.TICK_TABLES[name], columns, ticks.scale, **ticks.metadata())
    facts = ticks.counts | {
        "crossed": rebuilt.crossed,
        "book_ticker_agreement": agreement.share if from_stream else None,
        "book_ticker_matched": agreement.matched if from_stream else 0,
        "rows": rows,
        "coverage": ticks.coverage,
        "tick_size": str(ticks.scale.tick_size),
        "lot_size": str(ticks.scale.lot_size),
    }
    return Built(files, facts, rows)


def _close_of(workspace: Workspace, ticks: Manifest | None, instrument: Instrument, day: date) -> Opening | None:
    """The book and the quote as a day left them, None when its book was unknown at the end."""
    from synth_pipeline.ticks import book, ingest

    if ticks is None:
        return None
    folder = workspace.folder("ticks", instrument, day)
    levels = ticks.file(folder, "book_levels")
    close = store.read_metadata(levels).get("close_update_id")
    if close is None:
        return None
    rebuilt = book.replay(store.read_table(levels))
    quotes, trades = (store.read_table(ticks.file(folder, name)) for name in ("quotes", "trades"))
    names = ("bid_price", "bid_size", "ask_price", "ask_size", "update_id")
    return ingest.Opening(
        bids=rebuilt.bids,
        asks=rebuilt.asks,
        quote=np.array([quotes[name][-1] for name in names]) if len(quotes["recv_ns"]) else None,
        scale=store.read_scale(levels),
        update_id=int(close),
        trade_id=int(trades["trade_id"].max()) if len(trades["recv_ns"]) else None,
    )
