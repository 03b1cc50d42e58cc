"""A text file of unknown shape into columns of text: encoding, delimiter, comments, preamble, header or none.

Lines with another number of fields than the rest are kept apart; nothing here knows what a bar is beyond the names of
its columns.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from synth_pipeline.bars.columns import is_header
from synth_pipeline.errors import InputError, NoDataError

_DELIMITERS = ("\t", ";", "|", ",", " ")
"""In order of trust: a comma may also be a decimal mark, a space may also stand inside a date."""
_COMMENTS = ("#", "%", "//")
_SAMPLE = 200
_LEAST_FIELDS = 4
_LEAST_SHARE = 0.8
_NUMBER = re.compile(r"[\s$€£¥+-]*[\d.,']*\d[\d.,']*(?:[eE][+-]?\d+)?\s*[KMBT%]?")


@dataclass
class Sheet:
    """Columns of one file."""

    names: list[str] | None
    """None where the file has no header."""
    columns: list[pl.Series]
    seq: np.ndarray
    """Line (or row) numbers, from 1."""
    payload: Callable[[int], bytes]
    """Text of the row at a position."""
    ragged: list[tuple[int, bytes]] = field(default_factory=list)
    """Lines with too few or too many fields, with their numbers."""


def decode(data: bytes) -> str:
    """Return the text of UTF-8, UTF-16 (by its byte-order mark) or Latin-1 bytes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def sheet(text: str, name: str) -> Sheet:
    """Return the columns of a text. Raises `NoDataError` for an empty one, `InputError` for one without columns."""
    lines = pl.DataFrame({"text": text.replace("\r\n", "\n").replace("\r", "\n").split("\n")}).with_row_index("line", 1)
    lines = lines.filter(pl.col("text").str.strip_chars() != "")
    comment = pl.any_horizontal(pl.col("text").str.strip_chars_start().str.starts_with(mark) for mark in _COMMENTS)
    comments, lines = lines.filter(comment), lines.filter(~comment)
    if lines.is_empty():
        raise NoDataError(f"{name} holds no rows: check the file")
    sample = lines["text"].head(_SAMPLE).to_list()
    delimiter, fields = _delimiter(sample, name)
    first = next((at for at, line in enumerate(sample) if _is_data(_split(line, delimiter), fields)), None)
    if first is None:
        raise InputError(f"{name} has no row of {fields} fields with numbers in it: check the file")
    names = _header([*comments["text"].to_list()[:_SAMPLE], *sample[:first]], delimiter)
    return _columns(lines.slice(first), delimiter, fields, names)


def _delimiter(sample: Sequence[str], name: str) -> tuple[str, int]:
    for delimiter in _DELIMITERS:
        counts = Counter(len(_split(line, delimiter)) for line in sample)
        fields, found = counts.most_common(1)[0]
        if fields >= _LEAST_FIELDS and found >= _LEAST_SHARE * len(sample):
            return delimiter, fields
    raise InputError(
        f"{name} is no table: its lines, such as {sample[-1][:60]!r}, do not have the same {_LEAST_FIELDS} or more "
        "fields, by tab, semicolon, bar, comma or space"
    )


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _is_data(cells: Sequence[str], fields: int) -> bool:
    return len(cells) == fields and sum(_NUMBER.fullmatch(cell) is not None for cell in cells) >= _LEAST_FIELDS - 1


def _header(before: Sequence[str], delimiter: str) -> list[str] | None:
    """Return the names in the last line before the data that looks like a header; it may be a comment."""
    for line in reversed(before):
        cells = [cell.strip() for cell in _split(line.strip().lstrip("#%/ "), delimiter)]
        if is_header(cells):
            return cells
    return None


def _columns(lines: pl.DataFrame, delimiter: str, fields: int, names: list[str] | None) -> Sheet:
    text = lines["text"]
    if delimiter == " " or text.str.contains('"', literal=True).any():
        split = pl.Series("cells", [_split(line, delimiter) for line in text.to_list()], dtype=pl.List(pl.String))
    else:
        split = text.str.split(delimiter)
    whole = split.list.len() == fields
    kept = lines.filter(whole)
    columns = [split.filter(whole).list.get(at).str.strip_chars() for at in range(fields)]
    ragged = [(line, row.encode()) for line, row in lines.filter(~whole).iter_rows()]
    rows = kept["text"]
    if names is not None and len(names) < fields:
        names = [*names, *[""] * (fields - len(names))]
    return Sheet(names, columns, kept["line"].to_numpy().astype(np.int64), lambda at: rows[at].encode(), ragged)
