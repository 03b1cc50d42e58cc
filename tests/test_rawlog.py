"""The raw log keeps every byte, and says where it was damaged."""

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
