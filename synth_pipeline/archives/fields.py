"""Delimited text as arrays: lines into fields, fields into exact decimals, integers and times. Floats take no part.

A block is whole lines of bytes; a field is named by where it starts and ends in it. What a column means belongs to the
formats; what a wrong field costs belongs to `typed`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND

NO_TIME = -(2**62)
"""Stands where a time cannot be read."""
_EARLIEST_NS, _LATEST_NS = 631_152_000 * NS_PER_SECOND, 4_102_444_800 * NS_PER_SECOND
"""The years 1990 to 2100: no recorded market lies elsewhere."""
_MANTISSA_LIMIT = 2**62


class Decimals(NamedTuple):
    """Exact numbers `mantissa` × 10^`exponent`, no mantissa ending in zero; all of one shape."""

    mantissa: np.ndarray
    exponent: np.ndarray
    valid: np.ndarray
    """False where the text is no plain number that fits; the mantissa is 0 there."""

    def at(self, rows: np.ndarray | slice) -> Decimals:
        """Return some of the rows."""
        return Decimals(self.mantissa[rows], self.exponent[rows], self.valid[rows])


class Fields(NamedTuple):
    """The fields of a block of lines."""

    block: np.ndarray
    """uint8."""
    start: np.ndarray
    """Shape (lines, columns), int64."""
    end: np.ndarray
    widths: np.ndarray
    """How many fields each line has; starts and ends hold only where that is the number of columns."""
    line_start: np.ndarray
    line_end: np.ndarray

    def line(self, row: int) -> bytes:
        """Return one line as it came, without its end."""
        return self.block[self.line_start[row] : self.line_end[row]].tobytes()

    def lines(self, rows: np.ndarray) -> bytes:
        """Return some lines as they came, each with a line end."""
        copied: np.ndarray = _copied(self.block, self.line_start[rows], self.line_end[rows])
        return copied.tobytes()

    def text(self, row: int, column: int) -> str:
        """Return one field."""
        return self.block[self.start[row, column] : self.end[row, column]].tobytes().decode("utf-8", "replace")

    def decimals(self, column: int) -> Decimals:
        """Read a column as exact numbers; `1.5e-7` and a leading sign are understood."""
        return Decimals(*_decimals(self.block, self.start[:, column], self.end[:, column]))

    def integers(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a column as int64, with a mask of those that are whole numbers which fit."""
        return to_integers(self.decimals(column))

    def one_of(self, column: int, words: tuple[str, ...]) -> np.ndarray:
        """Return which of the words, in lower case, each field is, whatever its own case; -1 for none of them."""
        encoded = [word.encode() for word in words]
        width = max(map(len, encoded))
        table = np.zeros((len(words), width), np.uint8)
        for row, word in enumerate(encoded):
            table[row, : len(word)] = np.frombuffer(word, np.uint8)
        lengths = np.array([len(word) for word in encoded])
        found: np.ndarray = _one_of(self.block, self.start[:, column], self.end[:, column], table, lengths)
        return found

    def at(self, rows: np.ndarray) -> Fields:
        """Return some of the lines."""
        parts = (self.start, self.end, self.widths, self.line_start, self.line_end)
        return Fields(self.block, *(part[rows] for part in parts))

    def distinct(self, column: int) -> list[str]:
        """Return the different texts of a column that has few of them, of whole lines only."""
        found: list[str] = []
        rows = np.flatnonzero(self.widths == self.start.shape[1])
        while len(rows):
            found.append(self.text(int(rows[0]), column))
            rows = rows[1:]  # a text that is no UTF-8 does not equal what it is read as
            rows = rows[~self.at(rows).equal(column, found[-1:])]
        return found

    def equal(self, column: int, texts: list[str]) -> np.ndarray:
        """Return where a field is one of the texts, whatever its case."""
        if not texts:
            return np.zeros(len(self.start), np.bool_)
        same: np.ndarray = self.one_of(column, tuple(text.lower() for text in texts)) >= 0
        return same

    def times(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a column as ns; `NO_TIME` where it is no time of the years 1990 to 2100.

        Understood are epochs in s (with a fraction or without), ms, µs and ns by their digits, and dates with a time of
        day such as `2024-01-05 09:30:00.123`, with `T`, `D` or a space between, `/` or `-` or nothing in the date, `Z`
        or an offset behind. The second array says where the text is a wall time without an offset: those ns count as if
        the clock were UTC.
        """
        return _times(self.block, self.start[:, column], self.end[:, column])

    def dates(self, column: int) -> np.ndarray:
        """Read a column of dates as ns of their midnight, as if the clock were UTC; `NO_TIME` for anything else."""
        days: np.ndarray = _dates(self.block, self.start[:, column], self.end[:, column])
        return days

    def clock_times(self, column: int) -> np.ndarray:
        """Read a column of times of day, `09:30:00.123`, as ns since midnight; `NO_TIME` for anything else."""
        times: np.ndarray = _clock_times(self.block, self.start[:, column], self.end[:, column])
        return times


def split(block: bytes, delimiter: str, columns: int) -> Fields:
    """Split whole lines into fields; empty lines are left out, double quotes around a field are taken off."""
    data = np.frombuffer(block, np.uint8)
    return Fields(data, *_split(data, ord(delimiter), columns, block.count(b"\n") + 1))


def to_integers(numbers: Decimals) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers as int64, with a mask of those that are whole and fit."""
    return _whole(numbers.mantissa, numbers.exponent, numbers.valid)


def of_integers(values: np.ndarray, exponent: int) -> Decimals:
    """Return fixed-point integers, `values` × 10^`exponent`, as decimals of the same shape."""
    mantissa, places = _normalized(np.ascontiguousarray(values).reshape(-1).astype(np.int64), exponent)
    return Decimals(mantissa.reshape(values.shape), places.reshape(values.shape), np.ones(values.shape, np.bool_))


@njit(cache=True)
def _split(
    block: np.ndarray, delimiter: int, columns: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    start, end = np.zeros((most, columns), np.int64), np.zeros((most, columns), np.int64)
    count, line_start, line_end = np.zeros(most, np.int64), np.zeros(most, np.int64), np.zeros(most, np.int64)
    row, position, size = 0, 0, len(block)
    while position < size:
        first, field, field_start, quoted = position, 0, position, False
        while position < size and block[position] != 10:
            if block[position] == 34:
                quoted = not quoted
            elif block[position] == delimiter and not quoted:
                if field < columns:
                    start[row, field], end[row, field] = field_start, position
                field, field_start = field + 1, position + 1
            position += 1
        stop = position
        position += 1
        while stop > first and block[stop - 1] == 13:
            stop -= 1
        if stop == first:
            continue
        if field < columns:
            start[row, field], end[row, field] = field_start, max(stop, field_start)
        count[row], line_start[row], line_end[row] = field + 1, first, stop
        if count[row] == columns:
            _trim(block, start[row], end[row])
        row += 1
    return start[:row], end[:row], count[:row], line_start[:row], line_end[:row]


@njit(cache=True)
def _trim(block: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Take spaces, then quotes, off the fields of a line."""
    for column in range(len(start)):
        left, right = start[column], end[column]
        while left < right and block[left] == 32:
            left += 1
        while right > left and block[right - 1] == 32:
            right -= 1
        if right - left >= 2 and block[left] == 34 and block[right - 1] == 34:
            left, right = left + 1, right - 1
        start[column], end[column] = left, right


@njit(cache=True)
def _copied(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    copy, at = np.empty((ends - starts + 1).sum(), np.uint8), 0
    for row in range(len(starts)):
        size = ends[row] - starts[row]
        copy[at : at + size] = block[starts[row] : ends[row]]
        copy[at + size] = 10
        at += size + 1
    return copy


@njit(cache=True)
def _decimals(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = len(starts)
    mantissas, exponents, valid = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    for row in range(rows):
        mantissa, exponent, is_valid = _decimal(block, starts[row], ends[row])
        if is_valid:
            mantissas[row], exponents[row], valid[row] = mantissa, exponent, True
    return mantissas, exponents, valid


@njit(cache=True)
def _decimal(block: np.ndarray, start: int, end: int) -> tuple[int, int, bool]:
    """Return mantissa, exponent and whether the text is a number; zeros at the end of the mantissa go."""
    negative = start < end and block[start] == 45
    position = start + (start < end and (block[start] == 45 or block[start] == 43))
    mantissa, zeros, digits, after_point = 0, 0, 0, -1
    while position < end:
        character = block[position]
        if character == 46 and after_point < 0:
            after_point = 0
        elif 48 <= character <= 57:
            digits += 1
            after_point += after_point >= 0
            zeros += 1  # held back: zeros at the end never enter the mantissa
            if character != 48:
                for _ in range(zeros):
                    if mantissa > _MANTISSA_LIMIT // 10:
                        return 0, 0, False
                    mantissa *= 10
                mantissa, zeros = mantissa + (character - 48), 0
        else:
            break
        position += 1
    scale, is_valid = _scale(block, position, end)
    if digits == 0 or not is_valid or mantissa > _MANTISSA_LIMIT:
        return 0, 0, False
    exponent = scale + zeros - max(after_point, 0)
    return (-mantissa if negative else mantissa), (exponent if mantissa else 0), True


@njit(cache=True)
def _scale(block: np.ndarray, position: int, end: int) -> tuple[int, bool]:
    """Read `e-7`, or nothing."""
    if position == end:
        return 0, True
    if block[position] != 101 and block[position] != 69:
        return 0, False
    position += 1
    sign = 1
    if position < end and (block[position] == 45 or block[position] == 43):
        sign = -1 if block[position] == 45 else 1
        position += 1
    if position == end or end - position > 3:
        return 0, False
    scale = 0
    for at in range(position, end):
        if not 48 <= block[at] <= 57:
            return 0, False
        scale = scale * 10 + (block[at] - 48)
    return sign * scale, True


@njit(cache=True)
def _normalized(values: np.ndarray, exponent: int) -> tuple[np.ndarray, np.ndarray]:
    mantissas, exponents = values.copy(), np.full(len(values), exponent, np.int64)
    for row in range(len(values)):
        if mantissas[row] == 0:
            exponents[row] = 0
        while mantissas[row] != 0 and mantissas[row] % 10 == 0:
            mantissas[row] //= 10
            exponents[row] += 1
    return mantissas, exponents


@njit(cache=True)
def _whole(mantissa: np.ndarray, exponent: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, whole = np.zeros(len(mantissa), np.int64), np.zeros(len(mantissa), np.bool_)
    for row in range(len(mantissa)):
        value, fits = mantissa[row], bool(valid[row] and exponent[row] >= 0)
        for _ in range(min(exponent[row], 20) if fits else 0):
            fits = fits and bool(abs(value) <= _MANTISSA_LIMIT // 10)
            value = value * 10 if fits else 0
        if fits:
            values[row], whole[row] = value, True
    return values, whole


@njit(cache=True)
def _one_of(
    block: np.ndarray, starts: np.ndarray, ends: np.ndarray, words: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    found = np.full(len(starts), -1, np.int64)
    for row in range(len(starts)):
        for word in range(len(lengths)):
            if ends[row] - starts[row] != lengths[word]:
                continue
            same = True
            for at in range(lengths[word]):
                character = block[starts[row] + at]
                if 65 <= character <= 90:
                    character += 32
                if character != words[word, at]:
                    same = False
                    break
            if same:
                found[row] = word
                break
    return found


@njit(cache=True)
def _times(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times, is_local = np.full(len(starts), NO_TIME, np.int64), np.zeros(len(starts), np.bool_)
    for row in range(len(starts)):
        date_like = False
        for at in range(starts[row] + 1, ends[row]):
            date_like = date_like or block[at] == 58
        if date_like:
            time, local = _date_time(block, starts[row], ends[row])
        else:
            time, local = _epoch(block, starts[row], ends[row]), False
        if _EARLIEST_NS <= time < _LATEST_NS:
            times[row], is_local[row] = time, local
    return times, is_local


@njit(cache=True)
def _epoch(block: np.ndarray, start: int, end: int) -> int:
    """Return ns of an epoch in s, ms, µs or ns: the digits before the point tell which."""
    mantissa, exponent, is_valid = _decimal(block, start, end)
    if not is_valid or mantissa <= 0:
        return NO_TIME
    digits, rest = exponent, mantissa
    while rest > 0:
        rest //= 10
        digits += 1
    unit = -1
    for power, fewest in ((9, 9), (6, 12), (3, 15), (0, 18)):
        if fewest <= digits <= fewest + 1:
            unit = power
    exponent += unit
    if unit < 0 or exponent < -9:
        return NO_TIME
    for _ in range(exponent):
        mantissa *= 10
    for _ in range(-exponent):
        mantissa //= 10  # digits below a nanosecond: a time is no price
    return mantissa


@njit(cache=True)
def _number(block: np.ndarray, start: int, end: int) -> int:
    """Return a plain integer, -1 for anything else."""
    value = 0 if end > start else -1
    for at in range(start, end):
        if not 48 <= block[at] <= 57:
            return -1
        value = value * 10 + (block[at] - 48)
    return value


@njit(cache=True)
def _day_ns(year: int, month: int, day: int) -> int:
    """Return midnight of a day of the Gregorian calendar (days from civil, H. Hinnant), `NO_TIME` for none."""
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 28 + is_leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if year <= 0 or not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1]:
        return NO_TIME
    shifted = year - (month <= 2)
    era = shifted // 400
    year_of_era = shifted - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return (era * 146_097 + day_of_era - 719_468) * NS_PER_DAY


@njit(cache=True)
def _date(block: np.ndarray, start: int, end: int) -> int:
    """Read `2024-01-05`, `2024/01/05`, `20240105` or `01/05/2024` (month first)."""
    if end - start == 8:
        return _day_ns(
            _number(block, start, start + 4), _number(block, start + 4, start + 6), _number(block, start + 6, end)
        )
    if end - start != 10:
        return NO_TIME
    if block[start + 2] == 47 and block[start + 5] == 47:
        return _day_ns(
            _number(block, start + 6, end), _number(block, start, start + 2), _number(block, start + 3, start + 5)
        )
    return _day_ns(
        _number(block, start, start + 4), _number(block, start + 5, start + 7), _number(block, start + 8, end)
    )


@njit(cache=True)
def _clock(block: np.ndarray, start: int, end: int) -> int:
    """Read `09:30:00` or `09:30:00.123456789` as ns since midnight."""
    if end - start < 8 or block[start + 2] != 58 or block[start + 5] != 58:
        return NO_TIME
    hour, minute = _number(block, start, start + 2), _number(block, start + 3, start + 5)
    second = _number(block, start + 6, start + 8)
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return NO_TIME
    fraction, weight = 0, 100_000_000
    if end - start > 8:
        if block[start + 8] != 46 and block[start + 8] != 44 and block[start + 8] != 58:
            return NO_TIME
        for at in range(start + 9, end):
            if not 48 <= block[at] <= 57:
                return NO_TIME
            fraction += (block[at] - 48) * weight
            weight //= 10
    return ((hour * 60 + minute) * 60 + second) * NS_PER_SECOND + fraction


@njit(cache=True)
def _date_time(block: np.ndarray, start: int, end: int) -> tuple[int, bool]:
    """Read a date and a time of day; also return whether no offset from UTC stands behind."""
    between = start
    while between < end and block[between] != 32 and block[between] != 84 and block[between] != 68:
        between += 1
    stop = between
    while stop < end and block[stop] != 43 and block[stop] != 45 and block[stop] != 90:
        stop += 1
    day, clock, offset = _date(block, start, between), _clock(block, between + 1, stop), _offset(block, stop, end)
    if day == NO_TIME or clock == NO_TIME or offset == NO_TIME:
        return NO_TIME, False
    return day + clock - offset, stop == end


@njit(cache=True)
def _offset(block: np.ndarray, start: int, end: int) -> int:
    """Read `Z`, `+01`, `+0100`, `-05:30` or nothing as ns ahead of UTC."""
    if start == end or (block[start] == 90 and end == start + 1):
        return 0
    hours = _number(block, start + 1, min(start + 3, end))
    minutes = _number(block, end - 2, end) if end - start > 3 else 0
    if end - start not in (3, 5, 6) or not (0 <= hours <= 14 and 0 <= minutes < 60):
        return NO_TIME
    return (1 if block[start] == 43 else -1) * (hours * 60 + minutes) * 60 * NS_PER_SECOND


@njit(cache=True)
def _dates(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    days = np.full(len(starts), NO_TIME, np.int64)
    for row in range(len(starts)):
        days[row] = _date(block, starts[row], ends[row])
    return days


@njit(cache=True)
def _clock_times(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    times = np.full(len(starts), NO_TIME, np.int64)
    for row in range(len(starts)):
        times[row] = _clock(block, starts[row], ends[row])
    return times
