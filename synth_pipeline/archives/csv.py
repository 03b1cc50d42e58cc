"""Delimited text as drafts: a preamble of comments and a header, then a record a line.

A format says what its columns mean (`read`); here are blocks of whole lines, lines of a wrong width, a last line that
may be cut, and the records of one symbol where a file holds several. A file that ends without a line end may have been
cut in its last line, which then goes to quarantine; compressed files say themselves that they are whole. A file whose
times fall (the newest row first) is read backwards. A file of many days is looked through once; from then on a day is
read from where its first row stands to its last.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from synth_pipeline.archives import is_plain, opened, plain_symbol
from synth_pipeline.archives.drafts import Draft, Fault, Piece, settled
from synth_pipeline.archives.fields import NO_TIME, Fields, split
from synth_pipeline.archives.typed import CHUNK_BYTES, TypedArchive
from synth_pipeline.schema import NS_PER_DAY, day_of

_BOM = b"\xef\xbb\xbf"
_PEEK_BYTES = 1 << 16
Span = tuple[int, int]
"""Where a stretch of a (decompressed) file begins and ends, at line ends."""


@dataclass(frozen=True)
class Layout:
    """How one file is written."""

    columns: tuple[str, ...]
    """Names in lower case."""
    preamble: bytes
    """Everything before the first record, with its line ends."""
    delimiter: str = ","
    symbol: str | None = None
    """The column that holds the symbol, where there is one."""

    def index(self, *names: str) -> int:
        """Return where the first of these columns that is there stands. Raises `KeyError` for none."""
        for name in names:
            if name in self.columns:
                return self.columns.index(name)
        raise KeyError(names)


class Reading(NamedTuple):
    """What a format reads from a block: times, faults of whole records, and the rows."""

    recv_ns: np.ndarray
    event_ns: np.ndarray
    pieces: Callable[[], list[Piece]]
    faults: np.ndarray | None = None


class CsvArchive(TypedArchive):
    """A row archive in delimited text."""

    @abstractmethod
    def layout(self, path: Path) -> Layout:
        """Return how the file is written. Raises `InputError` when it is not of this format."""

    @abstractmethod
    def read(self, path: Path, layout: Layout, fields: Fields, first: int) -> Reading:
        """Read a block of records, `first` is the number of its first; lines of a wrong width have empty fields."""

    def preamble(self, path: Path) -> bytes:
        """Return comments and header."""
        return self.layout(path).preamble

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the first records."""
        layout = self.layout(path)
        if layout.symbol is None:
            return []
        fields = split(peek(path)[len(layout.preamble) :], layout.delimiter, len(layout.columns))
        rows = np.flatnonzero(fields.widths == len(layout.columns)).tolist()
        column = layout.columns.index(layout.symbol)
        return sorted({plain_symbol(fields.text(row, column)) for row in rows})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the records' times."""
        return sorted(self._spans(path))

    def drafts_of_day(self, path: Path, symbol: str, day: date) -> Iterator[Draft]:
        """Yield the part of the file that holds a day, and the blocks around it, by which lone times are known."""
        span = self._spans(path).get(day)
        return iter(()) if span is None else self._drafts(path, symbol, CHUNK_BYTES, span)

    def _spans(self, path: Path) -> dict[date, Span]:
        state = path.stat()
        return _spans_of(self, path.resolve(), (state.st_ino, state.st_size, state.st_mtime_ns))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def drafts(self, path: Path, symbol: str | None, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Draft]:
        """Yield blocks of records, those of one symbol where a column names it, and those that cannot be read."""
        return self._drafts(path, symbol, chunk_bytes, None)

    def _drafts(self, path: Path, symbol: str | None, chunk_bytes: int, span: Span | None) -> Iterator[Draft]:
        layout = self.layout(path)
        first = size = 0
        start, stop = span or (len(layout.preamble), None)
        read = backwards(path, start, chunk_bytes) if self._falls(path) else blocks(path, start, chunk_bytes, stop)
        for block, is_torn in read:
            size += len(block)
            fields = split(block, layout.delimiter, len(layout.columns))
            faults = np.where(fields.widths == len(layout.columns), 0, Fault.WRONG_COLUMNS).astype(np.uint8)
            if is_torn and len(faults):
                faults[-1] = Fault.TORN_LINE
            if symbol is not None and layout.symbol is not None:
                column = layout.columns.index(layout.symbol)
                wanted = self._is_symbol(fields, column, symbol) | (faults != 0)
                fields, faults = fields.at(wanted), faults[wanted]
            if len(faults):
                draft = self._draft(self.read(path, layout, fields, first), fields, faults)
                draft.bytes, size = size, 0
                yield draft
                first += len(faults)

    def _falls(self, path: Path) -> bool:
        """Whether the times of the first records only step back."""
        layout = self.layout(path)
        fields = split(peek(path)[len(layout.preamble) :], layout.delimiter, len(layout.columns))
        whole = fields.at(fields.widths == len(layout.columns))
        if not len(whole.start):
            return False
        times = self.read(path, layout, whole, 0).recv_ns
        steps = np.diff(times[times != NO_TIME])
        return bool((steps < 0).any() and not (steps > 0).any())

    def _is_symbol(self, fields: Fields, column: int, symbol: str) -> np.ndarray:
        """Where a record is of the symbol; files hold few symbols, so each text is made plain once."""
        names = fields.distinct(column)
        return fields.equal(column, [name for name in names if plain_symbol(name) == symbol])

    @staticmethod
    def _draft(reading: Reading, fields: Fields, faults: np.ndarray) -> Draft:
        if reading.faults is not None:
            faults = np.where(faults == 0, reading.faults, faults).astype(np.uint8)
        return Draft(reading.recv_ns, reading.event_ns, faults, reading.pieces, fields.line, fields.lines)


@lru_cache(maxsize=8)
def _spans_of(archive: CsvArchive, path: Path, state: tuple[int, ...]) -> dict[date, Span]:  # noqa: ARG001 - in the key
    """Return the days of a file and which of its bytes hold each: its blocks, and one before and one behind."""
    edges, found = [len(archive.layout(path).preamble)], dict[int, list[int]]()
    for block, (draft, times) in enumerate(settled(archive._drafts(path, None, CHUNK_BYTES, None))):
        edges.append(edges[-1] + draft.bytes)
        for number in np.unique(times[times != NO_TIME] // NS_PER_DAY).tolist():
            found.setdefault(number, [block, block])[1] = block
    if archive._falls(path):
        return {day_of(number * NS_PER_DAY): (edges[0], edges[-1]) for number in found}
    last = len(edges) - 1
    return {
        day_of(number * NS_PER_DAY): (edges[max(first - 1, 0)], edges[min(end + 2, last)])
        for number, (first, end) in found.items()
    }


def peek(path: Path) -> bytes:
    """Return the first whole lines of a file."""
    with opened(path) as file:
        head = file.read(_PEEK_BYTES)
    return head if len(head) < _PEEK_BYTES else head[: head.rfind(b"\n") + 1]


def first_lines(head: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the first line that is no comment (a byte order mark, comments), and that line."""
    at = len(_BOM) if head.startswith(_BOM) else 0
    while at < len(head):
        end = head.find(b"\n", at) + 1 or len(head)
        line = head[at:end]
        if line.strip() and not line.startswith(b"#"):
            return head[:at], line
        at = end
    return head, b""


def header_of(head: bytes, delimiter: str = ",") -> tuple[str, ...]:
    """Return the names in the first line that is no comment, in lower case."""
    _, line = first_lines(head)
    return tuple(name.strip().strip('"').lower() for name in line.decode("utf-8", "replace").split(delimiter))


def blocks(path: Path, start: int, chunk_bytes: int, stop: int | None = None) -> Iterator[tuple[bytes, bool]]:
    """Yield blocks of whole lines from a byte on, and whether the last line of a block may be cut; with `stop`, which
    is the end of a line or of the file, no more than there are before that byte."""
    with opened(path) as file:
        _skip(file, start)
        rest, left = b"", sys.maxsize if stop is None else stop - start
        while chunk := file.read(min(chunk_bytes, left)):
            left -= len(chunk)
            whole, end, tail = (rest + chunk).rpartition(b"\n")
            rest = tail
            if end:
                yield whole + end, False
        if rest.strip():
            yield rest, is_plain(path)


def backwards(path: Path, start: int, chunk_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """Yield what `blocks` does with the last line first, by way of a scratch file."""
    with opened(path) as file, tempfile.TemporaryFile() as spool:
        _skip(file, start)
        shutil.copyfileobj(file, spool)
        at, rest = spool.tell(), b""
        while at > 0:
            size = min(chunk_bytes, at)
            at -= size
            spool.seek(at)
            block = spool.read(size) + rest
            cut = block.find(b"\n") + 1 if at else 0
            rest, lines = (block[:cut], block[cut:]) if cut or not at else (block, b"")
            if lines.strip():
                yield (
                    b"".join(line.rstrip(b"\r\n") + b"\n" for line in reversed(lines.splitlines(keepends=True))),
                    False,
                )


def _skip(file: BinaryIO, count: int) -> None:
    while count > 0 and (skipped := len(file.read(min(count, CHUNK_BYTES)))):
        count -= skipped
