"""Archives: ONE FILE = ONE FILE FORMAT of recorded data, read into frames or into typed rows.

A frame archive holds a venue's messages as they came; a row archive holds somebody's tables. A file here defines one
subclass of `FrameArchive` or `RowArchive`; recognition is by content, never by file name alone.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple, cast

import numpy as np
import pyarrow as pa

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import Scale

HEAD_BYTES = 4096
_ZSTD_MAGIC, _GZIP_MAGIC, _XZ_MAGIC, _ZIP_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"\xfd7zXZ\x00", b"PK\x03\x04"


class Line(NamedTuple):
    """One message of a frame archive: its receive time, None where none is readable, its bytes, and what a raw log
    knows besides."""

    received_ns: int | None
    payload: bytes
    kind: int = 0
    """A `rawlog.Kind`: 0 a message, 1 a note of the recorder."""
    monotonic_ns: int = 0
    """The recorder's monotonic clock; 0 where the source has none."""
    connection: int = 0


@dataclass(frozen=True)
class Rows:
    """What a row archive holds of one instrument and one UTC day."""

    tables: Mapping[str, Mapping[str, np.ndarray]]
    """Columns by tick table, as in `schema`, sorted, prices in ticks and sizes in lots."""
    scale: Scale
    coverage: list[tuple[int, int]]
    """Half-open stretches in which the source recorded."""
    visible_levels: int
    """How many levels a side the source shows; 0 when all."""
    quarantine: list[tuple[int, int, str, str, str, bytes]] = field(default_factory=list)
    """Rows of `schema.QUARANTINE`."""


class Archive(ABC):
    """One file format of recorded data."""

    venue: ClassVar[str | None] = None
    """The venue of everything in this format; None where the format does not say."""

    @classmethod
    @abstractmethod
    def matches(cls, path: Path, head: bytes) -> bool:
        """Whether a file is of this format, judged by its first (decompressed) bytes, or by its members when a ZIP."""

    @abstractmethod
    def symbols(self, path: Path) -> list[str]:
        """Return the symbols the file says it holds, or none where the format does not say."""

    @abstractmethod
    def days(self, path: Path) -> list[date]:
        """Return the UTC days the file holds, in order."""


class FrameArchive(Archive):
    """Messages as they came, each with its receive time."""

    @abstractmethod
    def lines(self, path: Path) -> Iterator[Line]:
        """Yield the messages in file order. Raises `InputError` for a truncated or damaged file."""


class RowArchive(Archive):
    """Somebody's tables."""

    def members(self, path: Path) -> list[Path]:
        """Return every file that belongs to the source which `path` names."""
        return [path]

    @abstractmethod
    def rows(self, path: Path, symbol: str, day: date) -> Rows:
        """Read one day. Raises `InputError` for a damaged file, `NoDataError` for a symbol or day it does not hold."""


CONTRACT = Archive


def require_file(path: Path) -> Path:
    """Return the path. Raises `InputError` when no file is there."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file: check the path")
    return path


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressing gzip, zstd and xz by content; faults become one-line `InputError`s."""
    if require_file(path).stat().st_size == 0:
        raise NoDataError(f"{path} is empty: nothing to read")
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    with raw:
        magic = raw.read(6)
        raw.seek(0)
        try:
            with _decompressed(raw, magic) as file:
                yield file
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{path} is truncated or damaged ({error}): fetch the file again") from error


def _decompressed(raw: BinaryIO, magic: bytes) -> BinaryIO:
    if magic.startswith(_GZIP_MAGIC):
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw)))
    if magic.startswith(_XZ_MAGIC):
        return cast(BinaryIO, io.BufferedReader(lzma.LZMAFile(raw)))
    if magic.startswith(_ZSTD_MAGIC):
        # Arrow's reader notices a truncated frame; zstandard's ends there without a word.
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")))
    return raw


def head_of(path: Path) -> bytes:
    """Return the first decompressed bytes of a file, empty for a ZIP. Raises `InputError` as `opened` does."""
    with opened(path) as file:
        if zipfile.is_zipfile(path):
            return b""
        head = file.read(HEAD_BYTES)
    if head.startswith(_ZIP_MAGIC):
        raise InputError(f"{path} is truncated or damaged (a ZIP without its directory): fetch the file again")
    if not head.strip():
        raise NoDataError(f"{path} is empty once decompressed: nothing to read")
    return head
