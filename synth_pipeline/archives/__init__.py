"""Archives: ONE FILE = ONE FILE FORMAT of recorded data, read into frames or into typed rows.

A frame archive holds a venue's messages as they came; a row archive holds somebody's tables. A file here defines one
subclass of `FrameArchive` or `RowArchive`; recognition is by content, never by file name alone.
"""

from __future__ import annotations

import enum
import gzip
import io
import lzma
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
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


_NO_DATA = re.compile(r"/$|(^|/)(\.|__MACOSX)|readme|\.(txt|md|pdf|checksum|json)$", re.IGNORECASE)


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


Columns = dict[str, np.ndarray]
Gap = tuple[int, int, str, str, int]
"""A row of `schema.GAPS`."""
Rejection = tuple[int, int, str, str, str, bytes]
"""A row of `schema.QUARANTINE`."""


class OrderAction(enum.IntEnum):
    """What an order event says of the book of orders."""

    ADD = 1
    REDUCE = 2
    """Some of it, `size`, was taken back."""
    DELETE = 3
    EXECUTE = 4
    """Some of it, `size`, traded."""
    SET = 5
    """It is now of this price and size; a smaller size at the same price keeps its place."""
    LEFT = 6
    """So much of it, `size`, is left after a trade."""
    FILLED = 7
    """A trade of `size` is reported; the reduction that follows for this order is its execution."""
    CLEAR = 8
    """The book is empty from here on; what follows is all there is."""


@dataclass(frozen=True)
class Head:
    """What one look through a day of a row archive tells."""

    scale: Scale
    coverage: list[tuple[int, int]]
    """Half-open stretches in which the source recorded."""
    tables: tuple[str, ...]
    """Tick tables that the source records, or `order_events`, which `ticks.orders` turns into orders and the book."""
    visible_levels: int = 0
    """How many levels a side the source shows; 0 when all."""
    records: int = 0
    late: int = 0
    """Records that stood behind a later one."""


class Batch(NamedTuple):
    """Some rows of one instrument and one UTC day."""

    tables: Mapping[str, Columns]
    """Columns by tick table, as in `schema`, sorted, prices in ticks and sizes in lots. `order_events` has the columns
    of `orders` with an `OrderAction` as `action` in place of `kind`; 0 for a record that only ends an event."""
    gaps: list[Gap]
    quarantine: list[Rejection]


@dataclass(frozen=True)
class Form:
    """What a user says of a table that does not say it itself."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column name, or number from 1, by what it means: time, price, size, side, …"""
    timezone: str = ""
    """Of wall times, such as America/Chicago."""

    def __bool__(self) -> bool:
        return bool(self.columns or self.timezone)


class Archive(ABC):
    """One file format of recorded data."""

    venue: ClassVar[str | None] = None
    """The venue of everything in this format; None where the format does not say."""

    @classmethod
    @abstractmethod
    def matches(cls, path: Path, head: bytes) -> bool:
        """Whether a file is of this format, judged by its first (decompressed) bytes, or by its members when a ZIP."""

    def venue_of(self, path: Path) -> str | None:  # noqa: ARG002 - most formats are of one venue, or say nothing
        """Return the venue that the file says it is of, None where it does not say."""
        return self.venue

    @abstractmethod
    def symbols(self, path: Path) -> list[str]:
        """Return the symbols the file says it holds, or none where the format does not say."""

    @abstractmethod
    def days(self, path: Path) -> list[date]:
        """Return the UTC days the file holds, in order."""


class FrameArchive(Archive):
    """Messages as they came, each with its receive time."""

    def venues(self, path: Path) -> list[str]:
        """Return the venues that the file says its messages are of; none where only the messages can tell."""
        venue = self.venue_of(path)
        return [] if venue is None else [venue]

    @abstractmethod
    def lines(self, path: Path, venue: str | None = None) -> Iterator[Line]:
        """Yield the messages in file order, of one venue where the format tells venues apart.

        Raises `InputError` for a truncated or damaged file.
        """


class RowArchive(Archive):
    """Somebody's tables. All that is yielded is independent of the size of the batches, which bounds the memory."""

    def members(self, path: Path) -> list[Path]:
        """Return every file that belongs to the source which `path` names."""
        return [path]

    @abstractmethod
    def scan(self, path: Path, symbol: str, day: date) -> Head:
        """Look through one day. Raises `InputError` for a damaged file, `NoDataError` for what it does not hold."""

    @abstractmethod
    def batches(self, path: Path, symbol: str, day: date, head: Head) -> Iterator[Batch]:
        """Yield the day's rows in order, on the scale of its head."""

    @abstractmethod
    def keep(self, path: Path, symbol: str, day: date, place: Path) -> Path:
        """Write the day, as it came, into a folder and return the file: this archive reads it back the same."""


CONTRACT = Archive
MACHINERY = frozenset(
    {
        "checksums",
        "columns",
        "csv",
        "drafts",
        "fields",
        "grid",
        "ids",
        "lines",
        "settling",
        "typed",
        "wall_time",
        "window",
    }
)
_PLAIN_SYMBOL = re.compile(r"[^A-Z0-9_\-]+")


def plain_symbol(text: str) -> str:
    """Return a source's symbol in the form of `schema.Instrument`: capitals, other characters as one dash."""
    return _PLAIN_SYMBOL.sub("-", text.upper()).strip("-_")


def merged(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return half-open stretches in order, with those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def require_file(path: Path) -> Path:
    """Return the path. Raises `InputError` when no file is there."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file: check the path")
    return path


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressing gzip, zstd and xz by content; a ZIP of one data file stands for that file.

    Faults become one-line `InputError`s.
    """
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
        except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is truncated or damaged ({error}): fetch the file again") from error


def _decompressed(raw: BinaryIO, magic: bytes) -> BinaryIO:
    if magic.startswith(_GZIP_MAGIC):
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw)))
    if magic.startswith(_XZ_MAGIC):
        return cast(BinaryIO, io.BufferedReader(lzma.LZMAFile(raw)))
    if magic.startswith(_ZSTD_MAGIC):
        # Arrow's reader notices a truncated frame; zstandard's ends there without a word.
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")))
    if magic.startswith(_ZIP_MAGIC) and len(names := data_members(raw)) == 1:
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, zipfile.ZipFile(raw).open(names[0]))))
    return raw


def data_members(file: Path | BinaryIO) -> list[str]:
    """Return the names of the files in a ZIP that hold data: folders, notes and checksums hold none."""
    with zipfile.ZipFile(file) as archive:
        return [name for name in archive.namelist() if not _NO_DATA.search(name)]


def is_plain(path: Path) -> bool:
    """Whether a file is neither compressed nor an archive of files."""
    with path.open("rb") as file:
        magic = file.read(6)
    return not magic.startswith((_GZIP_MAGIC, _XZ_MAGIC, _ZSTD_MAGIC, _ZIP_MAGIC))


def head_of(path: Path) -> bytes:
    """Return the first decompressed bytes of a file, none of a ZIP of several. Raises `InputError` as `opened` does."""
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(_ZIP_MAGIC):
        return b""
    if not head.strip():
        raise NoDataError(f"{path} is empty once decompressed: nothing to read")
    return head
