"""The raw log keeps every byte, and says where it was damaged."""

import contextlib
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import Kind, Record, Writer
from synth_pipeline.errors import InputError

records = st.lists(
    st.builds(
        Record,
        received_ns=st.integers(0, 2**62),
        payload=st.binary(max_size=300),
        kind=st.sampled_from([int(kind) for kind in Kind]),
        monotonic_ns=st.integers(0, 2**62),
        connection=st.integers(0, 2**32 - 1),
    ),
    max_size=50,
)


def _write(path: Path, wanted: list[Record]) -> Path:
    path.unlink(missing_ok=True)
    with Writer(path) as log:
        for record in wanted:
            log.append(record)
    return path


@given(wanted=records)
def test_read_returns_what_was_written(tmp_path_factory: pytest.TempPathFactory, wanted: list[Record]) -> None:
    path = _write(tmp_path_factory.getbasetemp() / "round.rawlog", wanted)
    assert list(rawlog.read(path)) == wanted


def test_records_span_several_frames(tmp_path: Path) -> None:
    wanted = [Record(number, bytes([number % 251]) * 10_000) for number in range(100)]
    path = _write(tmp_path / "long.rawlog", wanted)
    assert list(rawlog.read(path)) == wanted


def test_a_writer_never_overwrites(tmp_path: Path) -> None:
    path = _write(tmp_path / "kept.rawlog", [Record(1, b"x")])
    with pytest.raises(FileExistsError):
        Writer(path)


@pytest.mark.parametrize("cut", [1, 5, 9, 40])
def test_a_torn_tail_is_named_with_its_position(tmp_path: Path, cut: int) -> None:
    path = _write(tmp_path / "torn.rawlog", [Record(number, b"payload" * 50) for number in range(20)])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match="damaged from byte 16 on"):
        list(rawlog.read(path))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = _write(tmp_path / "flipped.rawlog", [Record(1, b"payload")])
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        list(rawlog.read(path))


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"not a log at all, really")
    with pytest.raises(InputError, match="not a raw log"):
        list(rawlog.read(path))


def _frames(path: Path, blocks: list[list[Record]]) -> list[int]:
    """Write blocks of records as one frame each; return where each frame ends."""
    compressor, ends = rawlog.Compressor(), [len(rawlog.MAGIC)]
    content = rawlog.MAGIC
    for block in blocks:
        content += compressor.frame(b"".join(map(rawlog.pack, block)))
        ends.append(len(content))
    path.write_bytes(content)
    return ends


_BLOCKS = [[Record(100 * number + each, b"payload %d" % each) for each in range(number + 1)] for number in range(1, 6)]


@given(cut=st.integers(0, 2000), tail=st.sampled_from(["mend", "growing"]))
def test_any_truncation_leaves_a_readable_prefix(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: rawlog.Tail
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.rawlog"
    ends = _frames(path, _BLOCKS)
    size = max(len(rawlog.MAGIC), ends[-1] - cut)
    path.write_bytes(path.read_bytes()[:size])
    whole = sum(end <= size for end in ends[1:])
    found = list(rawlog.read(path, tail))
    torn = [json.loads(each.payload) for each in found if each.kind == Kind.EVENT]
    assert [each for each in found if each.kind == Kind.MESSAGE] == [
        each for block in _BLOCKS[:whole] for each in block
    ]
    missing = size - ends[whole]
    assert torn == ([{"event": "torn", "bytes": missing}] if missing and tail == "mend" else [])
    assert rawlog.whole_bytes(path) == ends[whole]


@given(at=st.integers(16, 2000), bit=st.integers(0, 7))
def test_any_flipped_bit_costs_its_frame_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "bit.rawlog"
    ends = _frames(path, _BLOCKS)
    content = bytearray(path.read_bytes())
    at = 16 + (at - 16) % (len(content) - 16)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    hurt = next(number for number, end in enumerate(ends[1:]) if at < end)
    found = list(rawlog.read(path, "mend"))
    assert [each for each in found if each.kind == Kind.MESSAGE] == [
        each for number, block in enumerate(_BLOCKS) if number != hurt for each in block
    ]
    with pytest.raises(InputError, match=f"damaged from byte {ends[hurt]} on") as refused:
        list(rawlog.read(path))
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="damaged at byte") if hurt < len(_BLOCKS) - 1 else contextlib.nullcontext():
        list(rawlog.read(path, "growing"))


def test_a_frame_of_something_else_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.rawlog"
    path.write_bytes(rawlog.MAGIC + rawlog.Compressor().frame(b"no records at all, but a good checksum"))
    with pytest.raises(InputError, match="holds a frame that no recorder of ours wrote"):
        list(rawlog.read(path))


def test_a_reader_of_a_growing_file_sees_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "growing.rawlog"
    with Writer(path) as log:
        log.append(Record(1, b"x" * rawlog.FRAME_BYTES))
        log.append(Record(2, b"pending"))
        log._file.flush()
        assert [each.received_ns for each in rawlog.read(path, "growing")] == [1]
    assert [each.received_ns for each in rawlog.read(path)] == [1, 2]


def test_the_archive_reads_on_behind_a_tear_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "torn.rawlog"
    ends = _frames(path, _BLOCKS[:2])
    path.write_bytes(path.read_bytes()[: ends[1] + 9] + path.read_bytes()[ends[1] :])
    lines = list(rawlog.RawLog().lines(path))
    assert [line.kind for line in lines] == [0, 0, 1, 0, 0, 0]
    assert lines[2].payload == b'{"event":"torn","bytes":9}'
    assert lines[2].received_ns == lines[1].received_ns


def test_version_1_reads_what_version_1_wrote() -> None:
    """The layout is frozen: these bytes were written by hand from its description."""
    record = bytes.fromhex("01000000000000000200000000000000030000000002000000") + b"hi"
    assert rawlog.pack(Record(1, b"hi", 0, 2, 3)) == record
    assert list(rawlog.records(record)) == [Record(1, b"hi", 0, 2, 3)]
    frame = rawlog.Compressor().frame(record)
    assert frame[8:12] == b"\x28\xb5\x2f\xfd"
    assert int.from_bytes(frame[:4], "little") == len(frame) - 8
    assert int.from_bytes(frame[4:8], "little") == zlib.crc32(frame[8:])
    assert rawlog.MAGIC == b"SYNTHRAW\x01\0\0\0\0\0\0\0"
