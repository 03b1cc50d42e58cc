"""Logs on their way to the disk: hours, midnight, torn tails, and what a kill leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import CONTINUES, Kind, Record
from synth_pipeline.capture.disk import NS_PER_HOUR, Disk, Log
from synth_pipeline.capture.logfile import LogFile
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument
from tests.wire import START_NS

INSTRUMENT = Instrument("simulated", "BTCUSDT")


def _write(folder: Path, stamps: list[int]) -> dict[str, list[Record]]:
    """Record messages of given receive times; return the files by the end of their names."""
    disk = Disk(folder, 10**6)
    log = Log(disk, INSTRUMENT)
    log.open(stamps[0])
    disk.start()
    for number, stamp in enumerate(stamps):
        log.append(stamp, number, 1, Kind.MESSAGE, b"message %d" % number)
    log.seal()
    disk.close()
    return {path.name.split(".")[2]: list(rawlog.read(path)) for path in sorted(folder.rglob("*.rawlog"))}


def test_hours_get_files_of_their_own(tmp_path: Path) -> None:
    late = START_NS + NS_PER_HOUR - 1
    files = _write(tmp_path, [START_NS, late, late + 1, late + 2])
    assert {name: len(records) for name, records in files.items()} == {"2023-11-15T00": 2, "2023-11-15T01": 2}
    assert next(tmp_path.rglob("*T00.rawlog")).parent == tmp_path / "simulated" / "BTCUSDT"


def test_midnight_is_marked_on_both_sides(tmp_path: Path) -> None:
    midnight = START_NS + NS_PER_DAY
    files = _write(tmp_path, [midnight - 5, midnight + 5])
    before, after = files.values()
    assert [record[:3] for record in before] == [(midnight - 5, b"message 0", 0), (midnight - 5, CONTINUES, 1)]
    assert [record[:3] for record in after] == [(midnight, CONTINUES, 1), (midnight + 5, b"message 1", 0)]


def test_midnight_in_silence_is_not_marked(tmp_path: Path) -> None:
    midnight = START_NS + NS_PER_DAY
    files = _write(tmp_path, [midnight - 61 * NS_PER_SECOND, midnight + 5])
    assert all(record.kind == Kind.MESSAGE for records in files.values() for record in records)


@settings(max_examples=25)
@given(steps=st.lists(st.integers(-2 * NS_PER_HOUR, 2 * NS_PER_HOUR), min_size=1, max_size=12))
def test_a_clock_that_steps_loses_nothing_and_rewrites_nothing(tmp_path_factory: object, steps: list[int]) -> None:
    folder = tmp_path_factory.mktemp("steps")  # type: ignore[attr-defined]
    stamps = [START_NS + 10 * NS_PER_HOUR]
    for step in steps:
        stamps.append(stamps[-1] + step)
    files = _write(folder, stamps)
    messages = [record for records in files.values() for record in records if record.kind == Kind.MESSAGE]
    assert sorted((record.monotonic_ns, record.received_ns) for record in messages) == list(enumerate(stamps))
    for name, records in files.items():
        hours = {record.received_ns // NS_PER_HOUR for record in records if record.kind == Kind.MESSAGE}
        assert len(hours) == 1, name


def test_a_torn_tail_is_cut_and_noted_once(tmp_path: Path) -> None:
    path = Disk(tmp_path, 1).path_of(INSTRUMENT, START_NS)
    _write(tmp_path, [START_NS])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[16:-3])
    files = _write(tmp_path, [START_NS + 1])
    (records,) = files.values()
    assert [record.payload for record in records] == [
        b"message 0",
        json.dumps({"event": "torn", "bytes": len(whole) - 19}, separators=(",", ":")).encode(),
        b"message 0",
    ]


def test_a_file_torn_within_its_first_bytes_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "young.rawlog"
    path.write_bytes(rawlog.MAGIC[:5])
    file = LogFile(path)
    assert (file.torn_bytes, path.read_bytes()) == (5, rawlog.MAGIC)
    file.close()


def test_a_quiet_instruments_file_is_closed_after_its_hour(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 10**6)
    log = Log(disk, INSTRUMENT)
    log.open(START_NS)
    disk.start()
    log.append(START_NS, 0, 1, Kind.MESSAGE, b"alone")
    path = next(tmp_path.rglob("*.rawlog"))
    log.tick(START_NS + NS_PER_HOUR - 1, 0)
    assert rawlog.is_being_written(path)
    log.tick(START_NS + NS_PER_HOUR + NS_PER_SECOND, 0)
    for _ in range(200):
        if not rawlog.is_being_written(path):
            break
        time.sleep(0.01)
    assert not rawlog.is_being_written(path)
    disk.close()


def _write_for_ever(folder: str, ready: object) -> None:
    disk = Disk(Path(folder), 10**8)
    log = Log(disk, INSTRUMENT)
    log.open(START_NS)
    disk.start()
    number = 0
    while True:
        for _ in range(500):
            log.append(START_NS + number, number, 1, Kind.MESSAGE, os.urandom(400))
            number += 1
        log.tick(START_NS + number, number)
        if number == 5000:
            ready.set()  # type: ignore[attr-defined]
        while disk.held_bytes > 10**6:
            time.sleep(0.0005)


def test_kill_9_while_writing_leaves_a_log_that_reads_and_goes_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    kept = 0
    for round_number in range(3):
        ready = context.Event()
        writer = context.Process(target=_write_for_ever, args=(str(tmp_path), ready), daemon=True)
        writer.start()
        assert ready.wait(60)
        time.sleep(0.013 * round_number)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        path = next(tmp_path.rglob("*.rawlog"))
        records = [record for record in rawlog.read(path, "mend") if record.kind == Kind.MESSAGE]
        assert len(records) >= kept + 2000
        assert [record.monotonic_ns for record in records[kept:]] == list(range(len(records) - kept))
        kept = len(records)
    file = LogFile(path)
    file.close()
    assert sum(record.kind == Kind.MESSAGE for record in rawlog.read(path)) == kept
