"""The raw log of our own recorder: bytes as received, append-only, in checksummed zstd frames.

Layout (little endian), version 1::

    file    = magic "SYNTHRAW" · version u8 · 7 zero bytes · frame*
    frame   = length u32 · crc32 u32 · `length` bytes of zstd, which hold record*
    record  = received_ns i64 · monotonic_ns i64 · connection u32 · kind u8 · length u32 · payload

`received_ns` is the wall clock at receipt, never corrected; `monotonic_ns` is 0 where the source has no such clock.
`docs/raw-log.md` says it at length, with the recorder's notes.
"""

from __future__ import annotations

import enum
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple, Self

import msgspec
import zstandard

from synth_pipeline.archives import FrameArchive, Line
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, day_of

MAGIC = b"SYNTHRAW\x01" + bytes(7)
CONTINUES = b'{"event":"continues"}'
"""Payload of an EVENT record at either end of a log: on that side the recording goes on over the day's border."""
SILENCE_NS = 60 * NS_PER_SECOND
"""No message at all for longer than this means that nothing was being recorded."""
FRAME_BYTES = 256 * 1024
"""Raw bytes gathered into one frame: zstd loses 6 % of its ratio at 64 KiB and gains little above 1 MiB."""
RECORD = struct.Struct("<qqIBI")
"""What stands before each payload: received_ns, monotonic_ns, connection, kind, length."""
_FRAME = struct.Struct("<II")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LEVEL = 1
"""On recorded streams level 1 is faster than 3 and no larger: 6.5 against 6.3 times smaller in 256 KiB frames."""

Tail = Literal["strict", "mend", "growing"]
"""What a reader does at bytes that are no whole frame: refuse the file; note them as `torn` and go on at the next whole
frame; or, in a file still being written, stop there without a word."""


class Kind(enum.IntEnum):
    """What a record holds."""

    MESSAGE = 0
    """One WebSocket message or REST answer, as received."""
    EVENT = 1
    """A JSON note of the recorder itself: `{"event": …}`."""


class Record(NamedTuple):
    """One received payload."""

    received_ns: int
    payload: bytes
    kind: int = Kind.MESSAGE
    monotonic_ns: int = 0
    connection: int = 0


class Compressor:
    """Turns packed records into frames; one for each thread."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)

    def frame(self, block: bytes | bytearray) -> bytes:
        """Return the frame of a block of packed records."""
        body: bytes = self._zstd.compress(block)
        return _FRAME.pack(len(body), zlib.crc32(body)) + body


class Writer:
    """Appends records to a new raw log; closing writes the last frame."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._file.write(MAGIC)
        self._compressor = Compressor()
        self._pending = bytearray()
        self.records = 0
        """Records written so far."""

    def append(self, record: Record) -> None:
        """Add one record; it reaches the file with its frame."""
        self._pending += pack(record)
        self.records += 1
        if len(self._pending) >= FRAME_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write(self._compressor.frame(self._pending))
            self._pending.clear()

    def close(self) -> None:
        """Write what is pending and close the file."""
        try:
            self._flush()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pack(record: Record) -> bytes:
    """Return a record as it stands in a block."""
    head = RECORD.pack(record.received_ns, record.monotonic_ns, record.connection, record.kind, len(record.payload))
    return head + record.payload


def note(name: str, received_ns: int, monotonic_ns: int = 0, **facts: object) -> Record:
    """Return a recorder's note as a record."""
    return Record(received_ns, msgspec.json.encode({"event": name} | facts), int(Kind.EVENT), monotonic_ns)


def is_being_written(path: Path) -> bool:
    """Whether a recorder holds the file; its death by any cause ends that."""
    import fcntl  # absent on Windows, where nothing records

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read(path: Path, tail: Tail = "strict") -> Iterator[Record]:
    """Yield the records of a raw log; see `Tail` for one that is damaged or still being written.

    Raises `InputError` where the file is no raw log, or is damaged and `tail` does not allow for it.
    """
    received_ns = 0
    for block in blocks(path, tail):
        if isinstance(block, Torn):
            yield note("torn", received_ns, bytes=block.bytes)
            continue
        try:
            for record in records(block):
                received_ns = record.received_ns
                yield record
        except (struct.error, ValueError):
            raise InputError(f"{path} holds a frame that no recorder of ours wrote: fetch the file again") from None


class Torn(NamedTuple):
    """Bytes of a file that are no whole frame."""

    bytes: int


def blocks(path: Path, tail: Tail = "strict") -> Iterator[bytes | Torn]:
    """Yield the decompressed frames of a raw log, and with `mend` what lies torn between them.

    Raises `InputError` as `read` does.
    """
    decompressor = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is not a raw log of version 1: re-import the capture it came from")
        size = os.fstat(file.fileno()).st_size
        while (where := file.tell()) < size:
            block = _block(file, size, decompressor)
            if block is not None:
                yield block
                continue
            if tail == "strict":
                raise InputError(f"{path} is damaged from byte {where} on: re-import the capture it came from")
            whole = next_whole(file, where, size)
            if tail == "growing":
                if whole == size:
                    return
                raise InputError(f"{path} is damaged at byte {where}: stop its recorder and move the file away")
            yield Torn(whole - where)
            file.seek(whole)


def _block(file: BinaryIO, size: int, decompressor: zstandard.ZstdDecompressor) -> bytes | None:
    """Read the frame at the file's position, None where none is whole."""
    head = file.read(_FRAME.size)
    if len(head) != _FRAME.size:
        return None
    length, checksum = _FRAME.unpack(head)
    if length > size - file.tell():
        return None
    body = file.read(length)
    if zlib.crc32(body) != checksum:
        return None
    try:
        block: bytes = decompressor.decompress(body)
    except zstandard.ZstdError:
        return None
    return block


def next_whole(file: BinaryIO, start: int, size: int) -> int:
    """Return where the next whole frame behind `start` begins, or `size`: each begins with zstd's magic number."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        body = view.find(_ZSTD_MAGIC, start + _FRAME.size + 1)
        while body >= 0:
            length, checksum = _FRAME.unpack_from(view, body - _FRAME.size)
            if body + length <= size and zlib.crc32(view[body : body + length]) == checksum:
                return body - _FRAME.size
            body = view.find(_ZSTD_MAGIC, body + 1)
    return size


def whole_bytes(path: Path) -> int:
    """Return how much of a raw log's file is worth keeping: up to the end of its last whole frame.

    Raises `InputError` for a file that is no raw log; one torn within its magic is worth nothing.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):
                return 0
            raise InputError(f"{path} is no raw log of version 1: move it away, it will not be written over")
        decompressor, end = zstandard.ZstdDecompressor(), len(MAGIC)
        while (where := file.tell()) < size:
            if _block(file, size, decompressor) is not None:
                end = file.tell()
            else:
                file.seek(next_whole(file, where, size))
        return end


def records(block: bytes) -> Iterator[Record]:
    """Yield the records of a decompressed frame. Raises `ValueError` or `struct.error` where it holds others."""
    position = 0
    while position < len(block):
        received_ns, monotonic_ns, connection, kind, length = RECORD.unpack_from(block, position)
        position += RECORD.size + length
        if position > len(block):
            raise ValueError("a record reaches beyond its frame")
        yield Record(received_ns, block[position - length : position], kind, monotonic_ns, connection)


_SYMBOL = re.compile(rb'"s(?:ymbol)?":"([A-Za-z0-9_\-]+)"')
_PEEK = 200


class RawLog(FrameArchive):
    """A raw log read back as a recording."""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """The magic, of any version: `read` names a version that it does not know."""
        return head.startswith(MAGIC[:8])

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the first messages."""
        payloads = (record.payload for record in islice(read(path, "mend"), _PEEK))
        return sorted({match[1].decode() for payload in payloads if (match := _SYMBOL.search(payload))})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the receive stamps."""
        return [
            day_of(number * NS_PER_DAY) for number in sorted({r.received_ns // NS_PER_DAY for r in read(path, "mend")})
        ]

    def lines(self, path: Path, venue: str | None = None) -> Iterator[Line]:  # noqa: ARG002 - of one venue
        """Yield every record, notes of the recorder included; what a crash tore is a note where it lies."""
        return (
            Line(r.received_ns or None, r.payload, r.kind, r.monotonic_ns, r.connection) for r in read(path, "mend")
        )
