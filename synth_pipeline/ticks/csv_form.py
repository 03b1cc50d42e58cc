"""How a CSV file is written: delimiter, header, which column is the time and in which unit.

What belongs here: recognizing all that from the first lines, and refusing to guess. The time column is the one whose
name says so and whose values are times; where no name does, the only column of times. A number is a time when it lies
between the years 1990 and 2100 as a count of s, ms, us or ns, which no two units have in common: so each value says its
own unit, and a file may change from ms to us (Binance's spot archives did on 2025-01-01). Other numbers need it said.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.ticks import csv_rows
from synth_pipeline.ticks.csv_kernels import BY_MAGNITUDE, ISO
from synth_pipeline.ticks.csv_rows import Form, Rows, Unit

_EXPONENTS: dict[str, int] = {"s": 9, "ms": 6, "us": 3, "ns": 0, "iso": ISO}
_FOREIGN = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "ZIP",
    b"PAR1": "Parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BOM = b"\xef\xbb\xbf"
_SAMPLES = 64
_TIME_NAME = re.compile(r"(.*[ _.])?(timestamps?|times?|ts|datetime|date|unix|t)([ _.]?(s|ms|us|ns))?|.*_(ms|us|ns)")
_UNIT_NAME = re.compile(r".*[ _.](s|ms|us|ns)")
_YEAR = re.compile(r"(?!19[7-9]\d|2[01]\d\d|22[0-5]\d|226[01])\d{4}-\d\d")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def check_is_text(path: Path, head: bytes) -> None:
    """Raise `InputError` for a file that is compressed, or no CSV at all."""
    kind = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    if kind is not None:
        raise InputError(f"{path} is {kind}: only plain CSV can be sought by bytes; convert it first")


def recognize(path: Path, head: bytes, time: str | None, unit: Unit | None, columns: Sequence[str]) -> Form:
    """Return how a file that begins with these whole lines is to be read; what the caller says goes first.

    Raises `InputError` naming the option that settles it when something is ambiguous.
    """
    try:
        return _recognized(path, head, time, unit, columns)
    except csv.Error as error:
        raise InputError(f"the first rows of {path} cannot be read: {error}; write it without such fields") from error


def _recognized(path: Path, head: bytes, time: str | None, unit: Unit | None, columns: Sequence[str]) -> Form:
    at, line = _first_line(path, head)
    delimiter = _delimiter(path, line)
    first = _fields(line, delimiter)
    if any(_NUMBER.fullmatch(text) for text in first) or _times_among(first, ISO):
        names = tuple(str(number) for number in range(len(first)))
    else:
        names, at = tuple(first), at + len(line) + 1
    if columns and len(columns) != len(names):
        raise InputError(f"{len(columns)} names for the {len(names)} columns of {path}: `columns` names every one")
    names = tuple(columns) or names
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path} has two columns {twice[0]!r}: give each its name with the option `columns`")
    rows = [_fields(row, delimiter) for row in head[at:].split(b"\n")[:-1][:_SAMPLES] if row.strip()]
    samples = [row for row in rows if len(row) == len(names)]
    position = _time_field(path, names, samples, time, unit)
    exponent = _exponent(path, names[position], [row[position] for row in samples], unit)
    return Form(names, ord(delimiter), position, exponent, at, settled=bool(samples))


def moment_ns(text: str) -> int:
    """Return the ns of a time as in a file, of a day, or to the hour or minute.

    Raises `InputError` for anything else, and for a time that int64 ns since 1970 cannot hold.
    """
    for exponent in (ISO, BY_MAGNITUDE):
        for written in (text, f"{text}T00:00:00", f"{text}:00", f"{text}:00:00"):
            rows = _read_as([written], exponent)
            if len(rows) == 1 and not rows.faults[0]:
                return int(rows.time_ns[0])
    if _YEAR.match(text):
        raise InputError(f"time {text!r} is not in the years 1970 to 2261, which nanoseconds in 64 bits can hold")
    raise InputError(
        f"time {text!r} is neither ISO 8601 such as 2024-01-01T00:00:00 (UTC) nor a count of s, ms, us or ns since 1970"
    )


def _first_line(path: Path, head: bytes) -> tuple[int, bytes]:
    """Return the first line that is neither blank nor a comment, and where it begins."""
    at = len(_BOM) if head.startswith(_BOM) else 0
    while (end := head.find(b"\n", at)) >= 0:
        line = head[at:end]
        if line.strip() and not line.startswith(b"#"):
            return at, line
        at = end + 1
    raise NoDataError(f"{path} holds no row: nothing but blank lines, comments or an unfinished line")


def _delimiter(path: Path, line: bytes) -> str:
    unquoted = re.sub(rb'"[^"]*"', b"", line).decode("utf-8", "replace")
    (best, most), (_, second) = Counter({mark: unquoted.count(mark) for mark in ",;\t|"}).most_common(2)
    if most == second and most > 0:
        raise InputError(
            f"{path} could be split at more than one mark ({unquoted[:60]!r}): write it with one delimiter"
        )
    return best


def _fields(line: bytes, delimiter: str) -> list[str]:
    text = line.decode("utf-8", "replace")
    # Python's reader takes no field above 128 kB; without a quote there is nothing for it to do.
    fields = next(csv.reader([text], delimiter=delimiter), [""]) if '"' in text else text.split(delimiter)
    return [field.strip() for field in fields]


def _read_as(texts: Sequence[str], exponent: int) -> Rows:
    return csv_rows.parse("".join(f"{text}\n" for text in texts).encode(), 0, Form(("time",), 0, 0, exponent, 0), {}, 0)


def _times_among(texts: Sequence[str], exponent: int) -> int:
    return int((_read_as(texts, exponent).faults == 0).sum())


def _time_field(path: Path, names: Sequence[str], samples: list[list[str]], time: str | None, unit: Unit | None) -> int:
    if time is not None:
        if time not in names:
            raise InputError(f"{path} has no column {time!r} to take the time from: it has {', '.join(names)}")
        return names.index(time)
    exponents = (BY_MAGNITUDE, ISO) if unit is None else (_EXPONENTS[unit],)
    columns = [[row[position] for row in samples] for position in range(len(names))]
    is_time = [any(2 * _times_among(column, way) > len(column) for way in exponents) for column in columns]
    named = [position for position, name in enumerate(names) if _TIME_NAME.fullmatch(name.lower())]
    found = [position for position in named if is_time[position]] or (named if unit is None and len(named) == 1 else [])
    if not named:
        found = [position for position in range(len(names)) if is_time[position]]
    if len(found) != 1:
        which = " and ".join(repr(names[position]) for position in found) or "none"
        raise InputError(
            f"{path}: which of the columns {', '.join(names)} is the time that it is sorted by is not clear ({which} "
            f"could be it): say so with the option `time`, and `unit` where numbers do not show it"
        )
    return found[0]


def _exponent(path: Path, name: str, values: list[str], unit: Unit | None) -> int:
    if unit is not None:
        return _EXPONENTS[unit]
    fitting = [way for way in (BY_MAGNITUDE, ISO) if _times_among(values, way)]
    if len(fitting) == 1:
        _check_agrees_with_name(path, name, values, fitting[0])
        return fitting[0]
    suffix = _UNIT_NAME.fullmatch(name.lower())
    if suffix:
        return _EXPONENTS[suffix[1]]
    if not values:
        return BY_MAGNITUDE
    raise InputError(
        f"column {name!r} of {path} holds {values[0]!r}, which is no ISO time and, as a count of s, ms, us or ns, not "
        f"between 1990 and 2100: say which with the option `unit`"
    )


def _check_agrees_with_name(path: Path, name: str, values: list[str], exponent: int) -> None:
    suffix = _UNIT_NAME.fullmatch(name.lower())
    if suffix and exponent == BY_MAGNITUDE:
        by_size, by_name = _read_as(values, BY_MAGNITUDE), _read_as(values, _EXPONENTS[suffix[1]])
        is_sound = by_size.faults == 0
        if (by_size.time_ns[is_sound] != by_name.time_ns[is_sound]).any():
            raise InputError(
                f"column {name!r} of {path} holds {values[0]!r}, whose size is not that of its name's unit: say which "
                f"is right with the option `unit`"
            )
