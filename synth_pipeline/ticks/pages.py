"""Whole-number columns of a day file by compiled loops: the rows of `ParquetDay.read` in a fraction of the time.

A half-hour window is a dozen pages of some thousand rows, for which pyarrow takes longer to get ready than to decode,
and longer still when the caches of the processor are cold. Here a column of a row group takes one read and, a page, one
decompression and one loop. Known is the kind of page in which our own files hold int64, version 1 of
https://parquet.apache.org/docs/file-format/data-pages/:

    header    struct PageHeader in the compact protocol of Thrift
    body      zstd of: uint32, bytes of the definition levels; these, a single run of ones (RLE); the values, PLAIN,
              DELTA_BINARY_PACKED or BYTE_STREAM_SPLIT

Whatever else a column holds (nulls, dictionaries, other types and codecs, damage) is pyarrow's to read, or to refuse.

Loading numba takes longer than pyarrow takes for a hundred windows: only who has it loaded anyway should read here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import zstandard
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import IntArray
from synth_pipeline.ticks.rowgroups import Columns, DayRows, ParquetDay, source_of

Bytes = NDArray[np.uint8]
Page = tuple[int, int, int, int, int]

_KNOWN = ("INT64", "ZSTD")
_NONE = (-1, -1, -1, -1, -1)
_INTEGERS, _BINARY, _STRUCT, _BOOLEANS = (5, 6), 8, 12, (1, 2)
"""Types of Thrift's compact protocol that a page header has."""
_DATA_PAGE, _RLE = 0, 3
_PLAIN, _DELTA_BINARY_PACKED, _BYTE_STREAM_SPLIT = 0, 5, 9
_LARGEST_BLOCK = 2**20
_WIDEST = 56
"""Bits of a packed number that a word of eight bytes holds, wherever in its first byte the number begins."""


class _Decompressor(threading.local):
    """One a thread, since it works in memory of its own."""

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress


_ZSTD = _Decompressor()


def read(table: DayRows, start_ns: int, end_ns: int, names: Sequence[str], *, carry_in: bool) -> Columns:
    """Return what `table.read` does. Raises as it does."""
    if isinstance(table, ParquetDay):
        groups = table.groups(start_ns, end_ns, carry_in=carry_in)
        if groups and all(table.chunk(group, name).kind == _KNOWN for group in groups for name in names):
            try:
                return _read(table, groups, (start_ns, end_ns), names, carry_in=carry_in)
            except (OSError, ValueError, MemoryError, pa.ArrowException, zstandard.ZstdError):
                pass  # pyarrow reads it, or says what is wrong
    return table.read(start_ns, end_ns, names, carry_in=carry_in)


def _read(
    table: ParquetDay, groups: Sequence[int], window: tuple[int, int], names: Sequence[str], *, carry_in: bool
) -> Columns:
    source = source_of(table.path, table.footer, groups, names)
    times = _column(table, source, groups, "recv_ns")
    start, stop = np.searchsorted(times, window).tolist()
    start -= int(carry_in and start > 0)
    others = {name: _column(table, source, groups, name, stop) for name in names if name != "recv_ns"}
    return {name: others.get(name, times)[start:stop] for name in names}


def _column(
    table: ParquetDay, source: pa.NativeFile, groups: Sequence[int], name: str, stop: int | None = None
) -> IntArray:
    """Return the rows of a column in some row groups, up to row `stop`."""
    chunks = [table.chunk(group, name) for group in groups]
    values = np.empty(sum(chunk.rows for chunk in chunks), dtype=np.int64)[:stop]
    row = 0
    for chunk in chunks:
        _take(source.read_at(chunk.end - chunk.start, chunk.start), values[row : row + chunk.rows])
        row += chunk.rows
    return values


def _take(chunk: bytes, values: IntArray) -> None:
    """Fill `values` with the first that the pages of a chunk hold. Raises `ValueError` for unknown or damaged ones."""
    content, end, row = np.frombuffer(chunk, dtype=np.uint8), 0, 0
    while row < values.size:
        begin, end, size, rows, encoding = page_of(content, end)
        body = _ZSTD.decompress(memoryview(chunk)[begin:end]) if begin > 0 else b""
        if len(body) != size or not fill(np.frombuffer(body, dtype=np.uint8), encoding, rows, values[row : row + rows]):
            raise ValueError
        row += rows


@njit(cache=True, nogil=True, error_model="numpy")
def page_of(content: Bytes, at: int) -> Page:
    """Read the header of the data page that begins there.

    Return where its body begins and ends, how many bytes that decompresses to, how many values, their encoding; five
    times -1 for pages of other kinds and where no page begins.
    """
    fields = np.zeros((2, 8), dtype=np.int64)
    fields[0, 1] = -1
    begin = _integers(content, at, fields)
    end = begin + fields[0, 3]
    is_known = fields[0, 1] == _DATA_PAGE and fields[1, 3] == _RLE and fields[1, 1] > 0
    if not is_known or not 0 < begin < end <= content.size:
        return _NONE
    return begin, end, fields[0, 2], fields[1, 1], fields[1, 2]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _integers(content: Bytes, at: int, fields: IntArray) -> int:
    """Put the integers of a struct, and of the structs right in it, at their numbers; return where it ends, or -1."""
    last, depth = np.zeros(4, dtype=np.int64), 0
    while 0 <= at < content.size and depth < last.size:
        kind, step = content[at] & 15, content[at] >> 4
        at += 1
        if kind == 0:
            if depth == 0:
                return at
            depth -= 1
            continue
        if step == 0:  # numbers of fields lie so far apart in no page header
            return -1
        last[depth] += step
        if kind == _STRUCT:
            depth += 1
            last[depth % last.size] = 0
        elif kind == _BINARY or kind in _INTEGERS:
            value, at = _varint(content, at)
            if kind == _BINARY:
                at += value
            elif depth < 2 and last[depth] < 8:
                fields[depth, last[depth]] = _signed(value)
        elif kind not in _BOOLEANS:
            return -1
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def fill(body: Bytes, encoding: int, count: int, values: IntArray) -> bool:
    """Fill `values` with the first of the `count` that the body of a page holds; return whether it is as it should."""
    if body.size < 16 or body[2] or body[3]:  # words are read from it, and its levels are few bytes
        return False
    run, at = _varint(body, 4)
    if run != 2 * count or at + 1 != 4 + body[0] + 256 * body[1] or body[at] != 1:
        return False
    at += 1
    if encoding == _DELTA_BINARY_PACKED:
        return _fill_summed(body, at, count, values)
    if at + 8 * count != body.size:
        return False
    if encoding == _PLAIN:
        for i in range(values.size):
            values[i] = np.int64(_word(body, np.uint64(at + 8 * i)))
    elif encoding == _BYTE_STREAM_SPLIT:
        values[:] = 0
        for byte in range(8):
            stream = body[at + byte * count : at + (byte + 1) * count]
            for i in range(values.size):
                values[i] |= np.int64(stream[i]) << (8 * byte)
    else:
        return False
    return True


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _fill_summed(body: Bytes, at: int, count: int, values: IntArray) -> bool:
    """Sum up differences: blocks of parts, each packed at its own width above the least difference of the block."""
    block, at = _varint(body, at)
    parts, at = _varint(body, at)
    total, at = _varint(body, at)
    first, at = _varint(body, at)
    if total != count or not 0 < parts <= block <= _LARGEST_BLOCK or block % (32 * parts):
        return False
    values[0] = value = _signed(first)
    row, rows, last_word = 1, block // parts, np.uint64(body.size - 8)
    while row < values.size:
        least, at = _varint(body, at)
        least, widths, at = _signed(least), at, at + parts
        if at > body.size:
            return False
        for part in range(parts):
            width, upto = int(np.int64(body[widths + part])), min(row + rows, values.size)
            end = at + width * rows // 8
            if row < upto and (width > _WIDEST or end > body.size):
                return False
            bit, mask = np.uint64(8 * at), (np.uint64(1) << np.uint64(width)) - np.uint64(1)
            for i in range(row, upto):
                word = min(bit >> np.uint64(3), last_word)
                value += least + int(np.int64(_word(body, word) >> (bit - np.uint64(8) * word) & mask))
                values[np.uint64(i)] = value
                bit += np.uint64(width)
            row, at = upto, end
    return True


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _word(body: Bytes, at: np.uint64) -> np.uint64:
    """Return eight bytes as a number, little-endian: one instruction, once compiled."""
    word = np.uint64(body[at])
    for byte in range(1, 8):
        word |= np.uint64(body[at + np.uint64(byte)]) << np.uint64(8 * byte)
    return word


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _varint(content: Bytes, at: int) -> tuple[int, int]:
    """Read a ULEB128 number; return it and where it ends, beyond the content if that ends before."""
    value, shift = np.int64(0), np.int64(0)
    while at < content.size and shift < 64:
        byte = np.int64(content[at])
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return int(value), at
    return 0, content.size + 1


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _signed(value: int) -> int:
    """Undo the zigzag encoding, whose lowest bit is the sign."""
    return int(np.int64(np.uint64(value) >> np.uint64(1))) ^ -(value & 1)
