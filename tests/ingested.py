"""One day ingested from records of a test's own making, its tables read back from disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import plugins, venues
from synth_pipeline.archives.rawlog import Record, Writer
from synth_pipeline.ticks import ingest, parquet
from synth_pipeline.ticks.day import DayTicks
from synth_pipeline.ticks.opening import Opening


@dataclass(frozen=True)
class Ingested:
    """A day of ticks and what its files hold."""

    ticks: DayTicks
    tables: dict[str, dict[str, np.ndarray]]
    content: dict[str, bytes]

    @property
    def counts(self) -> dict[str, object]:
        return self.ticks.counts


def ingest_day(
    records: Iterable[Record],
    venue: str = "binance_usdm",
    symbol: str = "BTCUSDT",
    *,
    day_start: int = 0,
    opening: Opening | None = None,
    block_bytes: int = ingest.BLOCK_BYTES,
    frame_records: int = 10**9,
) -> Ingested:
    """Write a raw log of the records and ingest it, in blocks of so many bytes."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "BLOCK_BYTES", block_bytes)
        log, place = Path(folder) / "day.rawlog", Path(folder) / "ticks"
        place.mkdir()
        write_log(log, records, frame_records)
        ticks = ingest.ingest_frames(log, plugins.load(venues, venue)(), symbol, day_start, lambda: opening, place)
        assert {path.name for path in place.iterdir()} == {path.name for path in ticks.files.values()}
        tables = {name: parquet.read_table(path) for name, path in ticks.files.items()}
        assert {name: len(next(iter(columns.values()))) for name, columns in tables.items()} == ticks.rows
        return Ingested(ticks, tables, {name: path.read_bytes() for name, path in ticks.files.items()})


def write_log(path: Path, records: Iterable[Record], frame_records: int = 10**9) -> Path:
    """Write a raw log whose frames hold at most so many records."""
    with Writer(path) as log:
        for number, record in enumerate(records, start=1):
            log.append(record)
            if number % frame_records == 0:
                log._flush()
    return path
