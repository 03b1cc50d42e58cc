"""A sorted CSV of many days on its way to the store: each day from its own part of the file, in bounded memory, and
again after a kill."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import stages
from synth_pipeline.archives import csv, opened, typed
from synth_pipeline.archives.drafts import settled
from synth_pipeline.archives.generic_csv import GenericCsv
from synth_pipeline.capture import importing
from synth_pipeline.lineage import manifests
from synth_pipeline.schema import NS_PER_DAY, Instrument, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks import rows

BTC = Instrument("mine", "BTCUSDT")
FIRST = date(2025, 1, 6)
HEADER = "timestamp,bid_price,ask_price,bid_size,ask_size\n"


def quotes(stamps: list[str]) -> str:
    return HEADER + "".join(f"{stamp},{100 + n % 7}.5,{108 + n % 5}.0,{n % 9}.25,3\n" for n, stamp in enumerate(stamps))


def write_days(path: Path, days: int, rows_a_day: int) -> Path:
    """Quotes at even distances, in microseconds."""
    start, step = day_start_ns(FIRST) // 1000, NS_PER_DAY // 1000 // rows_a_day
    path.write_text(quotes([str(start + n * step) for n in range(days * rows_a_day)]))
    return path


def as_text(moment: datetime) -> str:
    return str(int(moment.timestamp() * 10**6))


def stamps() -> st.SearchStrategy[list[str]]:
    """Times of some days, rising but for a few that are late, far off or no times at all."""
    hours = st.lists(st.integers(0, 110), max_size=60).map(sorted)
    strays = st.dictionaries(st.integers(0, 59), st.sampled_from([-30, -1, 500, None]), max_size=5)

    def made(hours: list[int], strays: dict[int, int | None]) -> list[str]:
        found = []
        for number, hour in enumerate(hours):
            shift = strays.get(number, 0)
            moment = datetime(2025, 1, 6, tzinfo=UTC) + timedelta(hours=hour + (shift or 0))
            found.append("?" if shift is None else as_text(moment))
        return found

    return st.builds(made, hours, strays)


@settings(max_examples=60)
@given(stamps=stamps(), chunk=st.integers(60, 600), falls=st.booleans(), packed=st.booleans())
def test_a_day_is_kept_from_its_part_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, stamps: list[str], chunk: int, falls: bool, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    path = folder / "quotes.csv"
    content = quotes(stamps[::-1] if falls else stamps).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    archive = GenericCsv()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv, "CHUNK_BYTES", chunk)
        expected = {
            (times[row], draft.payload(row))
            for draft, times in settled(archive.drafts(path, None))
            for row in range(len(draft))
        }
        for day in archive.days(path):
            start = day_start_ns(day)
            (folder / str(day)).mkdir()
            with opened(archive.keep(path, "BTCUSDT", day, folder / str(day))) as kept:
                lines = kept.read().removeprefix(HEADER.encode()).splitlines()
            wanted = [line for time, line in expected if start <= time < start + NS_PER_DAY]
            assert sorted(lines) == sorted(wanted)


def test_a_day_reads_little_more_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_days(tmp_path / "quotes.csv", 20, 300)
    monkeypatch.setattr(csv, "CHUNK_BYTES", 1000)
    archive, read = GenericCsv(), 0
    archive.days(path)
    blocks = csv.blocks

    def counted(*where: object) -> Iterator[tuple[bytes, bool]]:
        nonlocal read
        for block, is_torn in blocks(*where):  # type: ignore[arg-type]
            read += len(block)
            yield block, is_torn

    monkeypatch.setattr(csv, "blocks", counted)
    kept = archive.keep(path, "BTCUSDT", FIRST + timedelta(days=11), tmp_path)
    assert len(kept.read_text().splitlines()) == 301
    assert read < kept.stat().st_size + 4000


def test_a_file_is_digested_once_for_all_its_days(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_days(tmp_path / "quotes.csv", 3, 20)
    digested = []
    digest = stages.raw.sha256_file
    monkeypatch.setattr(stages.raw, "sha256_file", lambda file: digested.append(file) or digest(file))
    for day in importing.days_of([path]):
        stages.record(workspace, BTC, day, [path])
    assert digested == [path]
    write_days(path, 3, 21)
    assert not stages.record(workspace, BTC, FIRST, [path]).skipped
    assert len(digested) == 2


def test_memory_does_not_grow_with_the_length_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = typed.TypedArchive.batches

    def batches(archive: typed.TypedArchive, *where: object) -> object:
        return small(archive, *where, chunk_bytes=50_000)  # type: ignore[arg-type]

    monkeypatch.setattr(typed.TypedArchive, "batches", batches)
    monkeypatch.setattr(csv.CsvArchive.drafts, "__defaults__", (50_000,))
    short, long = (_peak(write_days(tmp_path / str(count), 1, count), tmp_path) for count in (40_000, 160_000))
    assert long < 1.2 * short + 100_000


def _peak(path: Path, place: Path) -> int:
    pool, usual = pa.system_memory_pool(), pa.default_memory_pool()
    before = pool.bytes_allocated()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        rows.ingest_rows([(GenericCsv(), path)], "BTCUSDT", FIRST, place)
        return tracemalloc.get_traced_memory()[1] + max(0, pool.max_memory() - before)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_progress_tells_of_records(workspace: Workspace, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    stages.record(workspace, BTC, FIRST, [write_days(tmp_path / "quotes.csv", 1, 500)])
    told = replace(workspace, progress=lambda done, total, note="": seen.append((done, total, note)))
    stages.ingest(told, BTC, FIRST)
    assert seen[-1] == (500, 500, "records read")


def test_a_killed_ingestion_goes_on_where_it_was(tmp_path: Path) -> None:
    """Days side by side, killed when the first of them stands: the rest is made, and all is as if nothing had been."""
    path = write_days(tmp_path / "quotes.csv", 4, 30_000)
    homes = [Workspace.of(Settings(home=tmp_path / name, tracking=False)) for name in ("killed", "whole")]
    days = importing.days_of([path])
    for workspace in homes:
        for day in days:
            stages.record(workspace, BTC, day, [path])
    folder = homes[0].settings.home / "ticks" / BTC.venue / BTC.symbol
    command = [sys.executable, "-m", "synth_pipeline", "ingest", str(BTC), f"{days[0]}:{days[-1]}", "--workers", "2"]
    environment = os.environ | {"SYNTH_HOME": str(homes[0].settings.home), "SYNTH_TRACKING": "false"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (made := [*folder.glob(f"*/{manifests.NAME}")]) and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = stages.ingest_days(homes[0], BTC, days, workers=1)
    assert sum(manifest.skipped for manifest in again) >= len(made) > 0
    expected = stages.ingest_days(homes[1], BTC, days, workers=1)
    assert [manifest.digest for manifest in again] == [manifest.digest for manifest in expected]
    for day in days:
        names = {file.name for file in (folder / day.isoformat()).iterdir()}
        assert names == {file.name for file in homes[1].folder("ticks", BTC, day).iterdir()}
