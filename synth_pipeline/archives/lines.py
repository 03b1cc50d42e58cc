"""Logs with a JSON document a line as drafts; numbers are taken as the text that stands there, never as floats."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from synth_pipeline.archives.csv import blocks, peek
from synth_pipeline.archives.drafts import Draft
from synth_pipeline.archives.fields import Decimals, split
from synth_pipeline.archives.typed import CHUNK_BYTES, TypedArchive

_DOUBLE_DIGITS = 15
"""So many significant digits survive a double."""


class LineArchive(TypedArchive):
    """A row archive with a document a line. A line that is cut is no document, so nothing else need be told of it."""

    @abstractmethod
    def read(self, blocks: Iterator[list[bytes]], symbol: str | None) -> Iterator[Draft]:
        """Yield a draft for every block of lines."""

    def preamble(self, path: Path) -> bytes:  # noqa: ARG002 - there is none
        """Return nothing: there is no header."""
        return b""

    def drafts(self, path: Path, symbol: str | None, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Draft]:
        """Yield the lines of one symbol, and those that cannot be read."""
        return self.read((_lines(block) for block, _ in blocks(path, 0, chunk_bytes)), symbol)

    def first_lines(self, path: Path) -> list[bytes]:
        """Return the first lines of a file."""
        return _lines(peek(path))


def _lines(block: bytes) -> list[bytes]:
    return [line.rstrip(b"\r") for line in block.split(b"\n") if line.strip()]


def text_of(number: msgspec.Raw) -> bytes:
    """Return a JSON number, or one in quotes, as it stands there.

    A bare number of more than 15 digits is a double written out; its shortest decimal is the same double.
    """
    text = bytes(number)
    if text.startswith(b'"'):
        return text.strip(b'"')
    if sum(character in b"0123456789" for character in text.lstrip(b"0.")) > _DOUBLE_DIGITS and b"." in text:
        return repr(float(text)).encode()
    return text


def numbers(texts: Sequence[bytes]) -> Decimals:
    """Read texts as exact numbers."""
    # A letter stands for an empty text, whose line would be left out.
    block = b"\n".join(text if text and b"\n" not in text else b"-" for text in texts)
    return split(block, "\x00", 1).decimals(0)
