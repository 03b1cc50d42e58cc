"""Recorded files into raw logs: formats recognized by content, days split without a loss, faults named in one line."""

import gzip
import lzma
from datetime import date
from pathlib import Path

import pytest
import zstandard

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.collector import Collector
from synth_pipeline.archives.rawlog import CONTINUES, Kind
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from tests import wire
from tests.wire import START_NS

TODAY = date.fromisoformat(wire.DAY)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_compression_is_recognized_by_content(tmp_path: Path, compress: object) -> None:
    plain = wire.write_capture(tmp_path / "plain", wire.market(2))
    path = tmp_path / "capture.bin"
    path.write_bytes(compress(plain.read_bytes()))  # type: ignore[operator]
    archive = importing.archive_of(path)
    assert isinstance(archive, Collector)
    assert archive.symbols(path) == ["BTCUSDT"]
    assert [line.payload for line in archive.lines(path)] == [payload for _, payload in wire.market(2)]


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_a_truncated_file_is_an_error_in_one_line(tmp_path: Path, compress: object) -> None:
    plain = wire.write_capture(tmp_path / "plain", wire.market(200))
    whole = compress(plain.read_bytes())  # type: ignore[operator]
    path = tmp_path / "cut.gz"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match=r"cut.gz is truncated or damaged .*: fetch the file again"):
        list(Collector().lines(path))


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        importing.archive_of(tmp_path / "absent.gz")
    (tmp_path / "empty.gz").touch()
    with pytest.raises(NoDataError, match="is empty"):
        importing.archive_of(tmp_path / "empty.gz")
    (tmp_path / "poem.txt").write_text("no market here\n" * 10)
    with pytest.raises(InputError, match=r"of no known format: known are .*collector, .*lobster"):
        importing.archive_of(tmp_path / "poem.txt")


def test_microsecond_stamps_become_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "micro"
    path.write_bytes(b"%d %s\n" % (START_NS // 1000, wire.trade(1, "1", "1")))
    assert [line.received_ns for line in Collector().lines(path)] == [START_NS]


def test_a_line_without_a_time_is_kept_under_the_time_before(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", wire.market(1))
    content = path.read_bytes().splitlines()
    content[4] = content[4][9:]
    path.write_bytes(b"\n".join(content))
    log = tmp_path / "day.rawlog"
    written = importing.write_day(log, Collector().lines(path), TODAY, "BTCUSDT")
    records = list(rawlog.read(log))
    assert written.without_time == 1
    assert len(records) == len(content)
    assert records[4].received_ns == records[3].received_ns


def test_days_are_split_and_the_seam_is_marked(tmp_path: Path) -> None:
    shift = NS_PER_DAY - 3 * NS_PER_SECOND
    frames = [(offset + shift, payload) for offset, payload in wire.market(6)]
    path = wire.write_capture(tmp_path / "capture.gz", frames)
    days = importing.days_of([path])
    assert days == [date(2023, 11, 15), date(2023, 11, 16)]
    written, logs = [], []
    for day in days:
        log = tmp_path / f"{day}.rawlog"
        written.append(importing.write_day(log, Collector().lines(path), day, "BTCUSDT"))
        logs.append(list(rawlog.read(log)))
    assert [record.payload for log in logs for record in log if record.kind == Kind.MESSAGE] == [
        payload for _, payload in frames
    ]
    assert logs[0][-1].payload == logs[1][0].payload == CONTINUES
    assert [day.continues_from_yesterday for day in written] == [False, True]
    assert [day.other_days for day in written] == [len(logs[1]) - 1, len(logs[0]) - 1]


def test_two_files_of_one_recording_are_one_stream_in_either_order(tmp_path: Path) -> None:
    shift = NS_PER_DAY - 3 * NS_PER_SECOND
    frames = [(offset + shift, payload) for offset, payload in wire.market(6)]
    border = next(number for number, (offset, _) in enumerate(frames) if offset >= NS_PER_DAY)
    paths = [
        wire.write_capture(tmp_path / "b.gz", frames[:border]),
        wire.write_capture(tmp_path / "a.gz", frames[border:]),
    ]
    for order in (paths, paths[::-1]):
        lines = list(importing.chained(importing.in_order(order)))
        assert [line.payload for line in lines] == [payload for _, payload in frames]


def test_a_pause_over_midnight_is_no_continuation(tmp_path: Path) -> None:
    frames = wire.market(2) + [(NS_PER_DAY + offset, payload) for offset, payload in wire.market(2)]
    path = wire.write_capture(tmp_path / "capture", frames)
    log = tmp_path / "second.rawlog"
    assert not importing.write_day(log, Collector().lines(path), date(2023, 11, 16), "BTCUSDT").continues_from_yesterday
    assert all(record.kind == Kind.MESSAGE for record in rawlog.read(log))


def test_the_venue_is_read_from_the_messages(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", wire.market(2))
    assert importing.venues_of(path, Collector()) == ["binance_usdm", "simulated"]
    spot = [(offset, wire.depth(offset, offset, None)) for offset in range(1, 20)]
    assert importing.venues_of(wire.write_capture(tmp_path / "spot", spot), Collector()) == ["binance_spot"]


def test_a_stamp_far_from_both_its_neighbours_founds_no_day(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", wire.market(2))
    lines = path.read_bytes().splitlines()
    for at, stamp in ((5, b"1000000000000000000"), (9, b"9999999999999999999"), (12, b"1900000000000000000")):
        lines[at] = stamp + lines[at][19:]
    path.write_bytes(b"\n".join(lines))
    assert importing.days_of([path]) == [TODAY]
    assert [line.received_ns for line in Collector().lines(path)].count(None) == 3


def test_files_that_overlap_in_time_are_merged(tmp_path: Path) -> None:
    frames = wire.market(6)
    is_quote = [b"bookTicker" in payload for _, payload in frames]
    parts = [
        [frame for frame, quote in zip(frames, is_quote, strict=True) if quote is wanted] for wanted in (True, False)
    ]
    paths = [wire.write_capture(tmp_path / f"{name}.gz", part) for name, part in zip("ab", parts, strict=True)]
    merged = list(importing.chained(importing.in_order(paths)))
    assert [(line.received_ns, line.payload) for line in merged] == [(START_NS + at, payload) for at, payload in frames]


def test_leading_junk_goes_with_the_first_message_that_has_a_time(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", [(10**9, wire.trade(1, "1", "1"))])
    path.write_bytes(b"# collected by hand\n   \n" + path.read_bytes())
    log = tmp_path / "day.rawlog"
    importing.write_day(log, Collector().lines(path), TODAY, "BTCUSDT")
    assert {record.received_ns for record in rawlog.read(log)} == {START_NS + 10**9}


def test_one_stamp_minutes_ahead_does_not_drag_the_others_along(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture", wire.market(3))
    lines = path.read_bytes().splitlines()
    lines[20] = b"%d" % (int(lines[20][:19]) + 300 * NS_PER_SECOND) + lines[20][19:]
    path.write_bytes(b"\n".join(lines))
    stamps = [line.received_ns for line in Collector().lines(path)]
    assert [at for at, stamp in enumerate(stamps) if stamp is None] == [20]


def test_a_table_of_bars_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "hourly.csv"
    path.write_text("Date,Open,High,Low,Close,Volume\n2020-01-01 00:00:00+00:00,7189.43,7190.52,7170.15,7171.55,2449\n")
    with pytest.raises(InputError, match="synth-pipeline bars"):
        importing.archive_of(path)
