"""Slow, obvious twins of the kernels that take pages of Parquet apart."""

from __future__ import annotations

from synth_pipeline.ticks.pages import Page

RLE, ONES = 3, 1
PLAIN, DELTAS, SPLIT = 0, 5, 9


class CutError(Exception):
    """There is less than was announced, or something else."""


class Bytes:
    """Bytes read one after the other."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self.content, self.at = content, at

    def take(self, count: int) -> bytes:
        """Return the next ones."""
        if count < 0 or self.at + count > len(self.content):
            raise CutError
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self) -> int:
        """Return an unsigned number of 7 bits a byte, lowest first, as 64 bits hold it."""
        found: list[int] = []
        while not found or found[-1] >= 128:
            if len(found) == 10:
                raise CutError
            found += self.take(1)
        return int64(sum((byte & 127) << 7 * place for place, byte in enumerate(found)))

    def signed(self) -> int:
        """Return a number with its sign in the lowest bit."""
        number = self.number() % 2**64
        return number // 2 if number % 2 == 0 else -(number + 1) // 2


def int64(number: int) -> int:
    """Return what is left of a number in 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def page_of(content: bytes, at: int) -> Page | None:
    """The header of a page, None where there is none that is known."""
    reader = Bytes(content, at)
    try:
        fields = _struct(reader, 1)
    except CutError:
        return None
    inner = fields.get(5)
    if fields.get(1) != 0 or not isinstance(inner, dict):
        return None
    begin, size = reader.at, fields.get(3, 0)
    assert isinstance(size, int)
    rows = inner.get(1, 0)
    if inner.get(3) != RLE or rows <= 0 or size <= 0 or begin + size > len(content):
        return None
    return begin, begin + size, fields.get(2, 0), rows, inner.get(2, 0)  # type: ignore[return-value]


def _struct(reader: Bytes, depth: int) -> dict[int, object]:
    found: dict[int, object] = {}
    number = 0
    while (head := reader.take(1)[0]) % 16:
        if head < 16 or depth > 4:
            raise CutError
        number += head // 16
        match head % 16:
            case 1 | 2:
                pass
            case 5 | 6:
                found[number] = reader.signed()
            case 8:
                reader.take(reader.number())
            case 12:
                found[number] = _struct(reader, depth + 1)
            case _:
                raise CutError
    return found


def values(body: bytes, encoding: int, count: int, wanted: int) -> list[int] | None:
    """The first `wanted` of the `count` values of a page, None where it is not as it should be."""
    try:
        reader = Bytes(body)
        size = int.from_bytes(reader.take(4), "little")
        is_run = reader.number() == 2 * count and reader.take(1) == bytes([ONES]) and reader.at == 4 + size
        if not is_run or len(body) < 16:
            return None
        if encoding == DELTAS:
            return _sums(reader, count, wanted)
        rest = body[reader.at :]
        if encoding not in (PLAIN, SPLIT) or len(rest) != 8 * count:
            return None
        cells = [rest[8 * i : 8 * i + 8] if encoding == PLAIN else rest[i::count] for i in range(wanted)]
        return [int.from_bytes(cell, "little", signed=True) for cell in cells]
    except CutError:
        return None


def _sums(reader: Bytes, count: int, wanted: int) -> list[int] | None:
    block, parts, total = reader.number(), reader.number(), reader.number()
    found = [reader.signed()]
    if total != count or not 0 < parts <= block <= 2**20 or block % (32 * parts):
        return None
    while len(found) < wanted:
        least, widths = reader.signed(), reader.take(parts)
        for width in widths:
            if len(found) < wanted:
                packed = int.from_bytes(reader.take(width * (block // parts) // 8), "little")
                if width > 56:
                    return None
                for _ in range(block // parts):
                    found.append(int64(found[-1] + least + packed % 2**width))
                    packed >>= width
    return found[:wanted]
