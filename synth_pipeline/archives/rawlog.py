"""The raw log of our own recorder: bytes as received, append-only, in checksummed zstd frames.

Layout (little endian), version 1::

    file    = magic "SYNTHRAW" · version u8 · 7 zero bytes · frame*
    frame   = length u32 · crc32 u32 · `length` bytes of zstd, which hold record*
    record  = received_ns i64 · monotonic_ns i64 · connection u32 · kind u8 · length u32 · payload

`received_ns` is the wall clock at receipt, never corrected; `monotonic_ns` is 0 where the source has no such clock. A
frame whose length or checksum does not fit is a torn tail: a reader says where, nothing after it is trusted.
"""

from __future__ import annotations

import enum
import re
import struct
import zlib
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

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
_FRAME = struct.Struct("<II")
_RECORD = struct.Struct("<qqIBI")


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


class Writer:
    """Appends records to a new raw log; closing writes the last frame."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._file.write(MAGIC)
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._pending = bytearray()
        self.records = 0
        """Records written so far."""

    def append(self, record: Record) -> None:
        """Add one record; it reaches the file with its frame."""
        self._pending += _RECORD.pack(
            record.received_ns, record.monotonic_ns, record.connection, record.kind, len(record.payload)
        )
        self._pending += record.payload
        self.records += 1
        if len(self._pending) >= FRAME_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            frame = self._compressor.compress(bytes(self._pending))
            self._file.write(_FRAME.pack(len(frame), zlib.crc32(frame)) + frame)
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


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a raw log. Raises `InputError` where the file is no raw log or is damaged."""
    decompressor = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is not a raw log of version 1: re-import the capture it came from")
        while head := file.read(_FRAME.size):
            where = file.tell() - len(head)
            length, checksum = _FRAME.unpack(head) if len(head) == _FRAME.size else (-1, 0)
            frame = file.read(length) if length >= 0 else b""
            if len(frame) != length or zlib.crc32(frame) != checksum:
                raise InputError(f"{path} is damaged from byte {where} on: re-import the capture it came from")
            yield from _records(decompressor.decompress(frame))


def _records(block: bytes) -> Iterator[Record]:
    position = 0
    while position < len(block):
        received_ns, monotonic_ns, connection, kind, length = _RECORD.unpack_from(block, position)
        position += _RECORD.size
        yield Record(received_ns, block[position : position + length], kind, monotonic_ns, connection)
        position += length


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
        payloads = (record.payload for record in islice(read(path), _PEEK))
        return sorted({match[1].decode() for payload in payloads if (match := _SYMBOL.search(payload))})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the receive stamps."""
        return [day_of(number * NS_PER_DAY) for number in sorted({r.received_ns // NS_PER_DAY for r in read(path)})]

    def lines(self, path: Path) -> Iterator[Line]:
        """Yield every record, notes of the recorder included."""
        return (Line(r.received_ns, r.payload, r.kind, r.monotonic_ns, r.connection) for r in read(path))
