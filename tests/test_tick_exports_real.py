"""Real days as files for other programs: LOBSTER byte for byte, Tardis and back, and hftbacktest reading for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import stages
from synth_pipeline.schema import Instrument, Scale
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks import parquet
from synth_pipeline.ticks.book import Book
from tests.test_tick_exports import BTC, DAY, check_structure, events_of

PEER = os.environ.get("SYNTH_HFTBACKTEST_PYTHON", sys.executable)
"""A Python that has hftbacktest, which cannot share an environment with us."""


def tops_of_peer(path: Path, times: np.ndarray, scale: Scale, folder: Path) -> tuple[np.ndarray, int]:
    """The top of book that hftbacktest has at some times, in ticks and lots, and how many trades it saw."""
    np.save(folder / "times.npy", times)
    script = Path(__file__).with_name("hftbacktest_reader.py")
    steps = [f"{scale.tick_size:f}", f"{scale.lot_size:f}"]
    order = [PEER, str(script), str(path), str(folder / "times.npy"), *steps, str(folder / "tops.npz")]
    subprocess.run(order, check=True, capture_output=True)
    with np.load(folder / "tops.npz") as found:
        tops, trades = found["tops"], int(found["trades"])
    tops[:, 1::2] /= float(scale.lot_size)
    return np.rint(tops), trades


@pytest.mark.slow
def test_hftbacktest_itself_reads_the_same_book(real: Callable[[str], Path], tmp_path: Path) -> None:
    if subprocess.run([PEER, "-c", "import hftbacktest"], capture_output=True, check=False).returncode:
        pytest.skip(f"hftbacktest is not in {PEER} (set SYNTH_HFTBACKTEST_PYTHON to a Python that has it)")
    workspace = Workspace.of(Settings(home=tmp_path, tracking=False))
    capture = [real("binance_usdm_btcusdt_20240808.gz")]
    stages.record(workspace, BTC, DAY, capture)
    made = stages.ingest(workspace, BTC, DAY)
    done = stages.export_ticks(workspace, BTC, DAY, "hftbacktest", tmp_path / "npz")
    check_structure(events_of(done.files[0]))
    levels = parquet.read_table(workspace.file(made, "book_levels"))
    book = Book().feed(levels)
    times, last = np.unique(book.recv_ns[::-1], return_index=True)
    wanted = book.top[::-1][last]
    tops, trades = tops_of_peer(done.files[0], times, parquet.read_scale(workspace.file(made, "quotes")), tmp_path)
    assert trades == made.facts["rows"]["trades"]
    np.testing.assert_array_equal(tops[1:], wanted[1:])  # its clock starts with the first event


def test_lobster_files_are_those_that_the_day_was_made_of(real: Callable[[str], Path], tmp_path: Path) -> None:
    """Byte by byte, but for the rows that were quarantined: hidden prints between two cents."""
    path = real("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip")
    workspace = Workspace.of(Settings(home=tmp_path, tracking=False))
    instrument, day = Instrument("nasdaq", "AMZN"), date(2012, 6, 21)
    stages.record(workspace, instrument, day, [path])
    made = stages.ingest(workspace, instrument, day)
    refused = parquet.read_table(workspace.file(made, "quarantine"))["payload"]
    gone = {bytes(row).split(b"\n")[0] + b"\n" for row in refused}
    done = stages.export_ticks(workspace, instrument, day, "lobster", tmp_path / "csv")
    with zipfile.ZipFile(path) as archive:
        message, book = (archive.read(file.name).splitlines(keepends=True) for file in done.files)
    kept = [n for n, line in enumerate(message) if line.rstrip() + b"\n" not in gone]
    assert 0 < len(message) - len(kept) < 100
    for file, lines in zip(done.files, (message, book), strict=True):
        assert file.read_bytes() == b"".join(lines[n].rstrip() + b"\n" for n in kept)


def test_a_real_day_comes_back_through_tardis(real: Callable[[str], Path], tmp_path: Path) -> None:
    instrument = Instrument("binance_spot", "BTCUSDT")
    capture = [real("binance_spot_btcusdt_20240808.gz")]
    ticks = []
    for home, files in ((tmp_path / "a", capture), (tmp_path / "b", [])):
        workspace = Workspace.of(Settings(home=home, tracking=False))
        sources = files or sorted((tmp_path / "csv").iterdir())
        assert stages.identify(sources, None, None) == instrument
        stages.record(workspace, instrument, DAY, sources)
        made = stages.ingest(workspace, instrument, DAY)
        ticks.append(
            {name: parquet.read_table(workspace.file(made, name)) for name in ("trades", "quotes", "book_levels")}
        )
        if files:
            stages.export_ticks(workspace, instrument, DAY, "tardis", tmp_path / "csv")
    for name, rows in ticks[0].items():
        for column in set(rows) - {"seq", "update_id"}:
            clock = 1000 if column.endswith("_ns") else 1
            np.testing.assert_array_equal(rows[column] // clock, ticks[1][name][column] // clock)
