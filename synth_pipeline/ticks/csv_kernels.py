"""Compiled loops over the bytes of a delimited file: lines in, columns of times and numbers filled.

Here lives what touches every byte. What the fields of a row mean, and which are wanted, is `ticks.csv_rows`' part.
Nearly all lines are plain numbers between delimiters: those are read in one go (`_plain_line`). A line with anything
else in it, be it a quote, a blank, an exponent, a fault or an ISO time, is read again field by field (`_any_line`),
which alone knows the rules; the first way only ever answers as the second would.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import IntArray

BY_MAGNITUDE, ISO = -1, -2
"""Instead of the power of ten of a time unit: each value's own size says it, or times are ISO 8601."""
EXACT, EXACT_OR_EMPTY, FLOAT, TEXT, NEAREST, NEAREST_OR_EMPTY = range(6)
"""Kinds of columns."""
MALFORMED_NUMBER, TOO_MANY_DECIMALS, NUMBER_TOO_LARGE, TEXT_TOO_LONG = range(1, 5)
FIELD_COUNT, MALFORMED_TIME, OPEN_QUOTE = range(7, 10)
"""Faults."""
EMPTY_DIGITS, SLOW_FLOAT_DIGITS = -100, -101
"""Instead of the digits after the point: an empty field; a float for Python's parser, whose place is the mantissa."""
NEWLINE = ord("\n")

_EARLIEST_S, _LATEST_S = 631_152_000, 4_102_444_800  # 1990 to 2100: within them a count of one unit is none of another
_LARGEST = np.iinfo(np.int64).max
_TENS = 10 ** np.arange(19)
_ROOM = _LARGEST // _TENS
_SAFE_DIGITS = 18  # as many always fit
_FLOAT_WHOLE = 1 << 53
_RETURN, _SPACE, _QUOTE, _DOT, _COLON, _MINUS, _PLUS = (ord(mark) for mark in '\r ".:-+')
_ZERO, _NINE, _SMALL_E, _LARGE_E, _T, _Z, _SMALL_Z = (ord(mark) for mark in "09eETZz")
_NO_EXPONENT = 99


@njit(cache=True, nogil=True, forceinline=True)
def _trimmed(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int]:
    """Return the span without blanks and without quotes around the whole."""
    while start < stop and (data[start] == _SPACE or data[start] == _RETURN):
        start += 1
    while stop > start and (data[stop - 1] == _SPACE or data[stop - 1] == _RETURN):
        stop -= 1
    if stop - start > 1 and data[start] == _QUOTE and data[stop - 1] == _QUOTE:
        return start + 1, stop - 1
    return start, stop


@njit(cache=True, nogil=True, forceinline=True)
def _exponent(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Return the number after an `e`, `_NO_EXPONENT` when it is none or has three digits."""
    sign = 1
    if start < stop and (data[start] == _MINUS or data[start] == _PLUS):
        sign = -1 if data[start] == _MINUS else 1
        start += 1
    if start == stop or stop - start > 2:
        return _NO_EXPONENT
    value = 0
    for at in range(start, stop):
        if not _ZERO <= data[at] <= _NINE:
            return _NO_EXPONENT
        value = value * 10 + int(data[at]) - _ZERO
    return sign * value


@njit(cache=True, nogil=True, forceinline=True)
def _shifted(value: int, places: int) -> int:
    """Return a number of at least 0 times 10**places, -1 when that does not fit."""
    for _ in range(places):
        if value < 0 or value > _LARGEST // 10:
            return -1
        value *= 10
    return value


@njit(cache=True, nogil=True, forceinline=True)
def _digits(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int, int]:
    """Return (number without its point, -1 when it does not fit; digits after the point; where they end).

    Zeros that end a fraction are not digits. The end is the start when there are none.
    """
    mantissa, after, zeros, at, point = 0, 0, 0, start, -1
    while at < min(stop, start + _SAFE_DIGITS) and _ZERO <= data[at] <= _NINE:
        mantissa = mantissa * 10 + int(data[at]) - _ZERO
        at += 1
    while at < stop and (_ZERO <= data[at] <= _NINE or (data[at] == _DOT and point < 0)):
        if data[at] == _DOT:
            point = at
        elif data[at] == _ZERO and point >= 0:
            zeros += 1
        else:
            digit = int(data[at]) - _ZERO
            mantissa = _shifted(mantissa, zeros + 1)
            mantissa = mantissa + digit if 0 <= mantissa <= _LARGEST - digit else -1
            after += zeros + 1 if point >= 0 else 0
            zeros = 0
        at += 1
    return mantissa, after, start if at == start + 1 and point == start else at


@njit(cache=True, nogil=True, forceinline=True)
def _decimal(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int, int]:
    """Return (mantissa, digits after the point, fault) of a plain decimal or one with an exponent."""
    negative = start < stop and data[start] == _MINUS
    first = start + int(start < stop and (data[start] == _MINUS or data[start] == _PLUS))
    mantissa, after, at = _digits(data, first, stop)
    shift = 0
    if first < at < stop and (data[at] == _SMALL_E or data[at] == _LARGE_E):
        shift, at = _exponent(data, at + 1, stop), stop
    if at == first or at < stop or shift == _NO_EXPONENT:
        return 0, 0, MALFORMED_NUMBER
    after -= shift
    while shift != 0 and after > 0 and mantissa > 0 and mantissa % 10 == 0:
        mantissa //= 10
        after -= 1
    mantissa = _shifted(mantissa, max(-after, 0))
    if mantissa <= 0:
        return 0, 0, 0 if mantissa == 0 else NUMBER_TOO_LARGE
    return (-mantissa if negative else mantissa), max(after, 0), 0


@njit(cache=True, nogil=True, forceinline=True)
def _count_ns(data: NDArray[np.uint8], start: int, stop: int, exponent: int) -> tuple[int, bool]:
    """Return the ns that a count of time units stands for, and whether it is a time, exact in ns."""
    mantissa, digits, fault = _decimal(data, start, stop)
    if fault != 0:
        return 0, False
    return _scaled_ns(mantissa, digits, exponent)


@njit(cache=True, nogil=True, forceinline=True)
def _scaled_ns(mantissa: int, digits: int, exponent: int) -> tuple[int, bool]:
    """Return the ns of a count of time units without its point, `digits` of it after that, and whether it is a time."""
    if exponent == BY_MAGNITUDE:
        whole = mantissa
        for _ in range(digits):
            whole //= 10
        exponent, earliest, latest = 9, _EARLIEST_S, _LATEST_S
        while exponent > 0 and whole >= latest:
            exponent, earliest, latest = exponent - 3, earliest * 1000, latest * 1000
        if not earliest <= whole < latest:
            return 0, False
    if digits > exponent:
        return 0, False
    ns = _shifted(abs(mantissa), exponent - digits)
    return (ns if mantissa > 0 else -ns), ns >= 0


@njit(cache=True, nogil=True, forceinline=True)
def _two(data: NDArray[np.uint8], at: int) -> int:
    """Return the two digits at a place, -10000 when they are none."""
    high, low = int(data[at]) - _ZERO, int(data[at + 1]) - _ZERO
    return 10 * high + low if 0 <= high <= 9 and 0 <= low <= 9 else -10_000


@njit(cache=True, nogil=True, forceinline=True)
def _days(year: int, month: int, day: int) -> int:
    """Return the days since the epoch, -1 for no date (civil calendar, years from March: leap days come last)."""
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 30 if month in {4, 6, 9, 11} else 31
    if month == 2:
        longest = 29 if is_leap else 28
    if not (1970 <= year < 2262 and 1 <= month <= 12 and 1 <= day <= longest):
        return -1
    shifted = year - 1 if month <= 2 else year
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719_468


@njit(cache=True, nogil=True, forceinline=True)
def _zone_ns(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, bool]:
    """Return what a zone (`Z`, `+hh`, `+hhmm`, `+hh:mm` or none) is ahead of UTC, and whether it is one."""
    length = stop - start
    if length == 0 or (length == 1 and (data[start] == _Z or data[start] == _SMALL_Z)):
        return 0, True
    if length not in {3, 5, 6} or (data[start] != _PLUS and data[start] != _MINUS):
        return 0, False
    minutes = 60 * _two(data, start + 1)
    if length == 6 and data[start + 3] != _COLON:
        return 0, False
    if length > 3:
        minutes += _two(data, stop - 2)
    if not 0 <= minutes < 24 * 60:
        return 0, False
    return (minutes if data[start] == _PLUS else -minutes) * 60_000_000_000, True


@njit(cache=True, nogil=True, forceinline=True)
def _iso_ns(data: NDArray[np.uint8], start: int, stop: int) -> tuple[int, bool]:
    """Return the ns of an ISO 8601 time with seconds, and whether it is one, exact in ns."""
    if stop - start < 19 or data[start + 4] != _MINUS or data[start + 7] != _MINUS:
        return 0, False
    if (
        (data[start + 10] != _T and data[start + 10] != _SPACE)
        or data[start + 13] != _COLON
        or data[start + 16] != _COLON
    ):
        return 0, False
    year = 100 * _two(data, start) + _two(data, start + 2)
    days = _days(year, _two(data, start + 5), _two(data, start + 8))
    hour, minute, second = _two(data, start + 11), _two(data, start + 14), _two(data, start + 17)
    if days < 0 or not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return 0, False
    at, nanos, unit = start + 19, 0, 1_000_000_000
    if at < stop and data[at] == _DOT:
        at += 1
        first = at
        while at < stop and _ZERO <= data[at] <= _NINE:
            digit = int(data[at]) - _ZERO
            unit //= 10
            if unit == 0 and digit != 0:
                return 0, False
            nanos += digit * unit
            at += 1
        if at == first:
            return 0, False
    zone, is_zone = _zone_ns(data, at, stop)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second
    return seconds * 1_000_000_000 + nanos - zone, is_zone


@njit(cache=True, nogil=True, forceinline=True)
def _text(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Return up to eight bytes, capitals made small, packed as numpy's S8 lies in memory (little-endian)."""
    packed = np.uint64(0)
    for at in range(start, stop):
        character = np.uint64(data[at])
        if 65 <= character <= 90:
            character += np.uint64(32)
        packed |= character << np.uint64(8 * (at - start))
    return int(np.int64(packed))


@njit(cache=True, nogil=True, forceinline=True)
def _value(data: NDArray[np.uint8], start: int, stop: int, kind: int) -> tuple[int, int, int]:
    """Return (value, digits, fault) of one field."""
    if kind == TEXT:
        if stop - start > 8:
            return 0, 0, TEXT_TOO_LONG
        return _text(data, start, stop), 0, 0
    if start == stop and kind != EXACT and kind != NEAREST:
        return 0, EMPTY_DIGITS, 0
    mantissa, digits, fault = _decimal(data, start, stop)
    if kind == FLOAT and (fault == NUMBER_TOO_LARGE or (fault == 0 and (abs(mantissa) >= _FLOAT_WHOLE or digits > 22))):
        return (start << 16) | min(stop - start, 0xFFFF), SLOW_FLOAT_DIGITS, 0
    if digits > 99:
        return 0, 0, MALFORMED_NUMBER
    return mantissa, digits, fault


@njit(cache=True, nogil=True, forceinline=True)
def _time(data: NDArray[np.uint8], start: int, stop: int, exponent: int) -> tuple[int, int]:
    """Return (ns, fault) of the time field."""
    if exponent == ISO:
        ns, is_time = _iso_ns(data, start, stop)
    else:
        ns, is_time = _count_ns(data, start, stop, exponent)
    return ns, 0 if is_time else MALFORMED_TIME


@njit(cache=True, nogil=True, forceinline=True)
def _plain_number(data: NDArray[np.uint8], at: int) -> tuple[int, int, int]:
    """Return (mantissa, digits after the point, where it ends) of the usual: digits, with a point or without.

    The mantissa is -1 for anything else: what stands there then is for `_decimal` to say.
    """
    mantissa, after, first = 0, 0, at
    while _ZERO <= data[at] <= _NINE:
        mantissa = mantissa * 10 + int(data[at]) - _ZERO
        at += 1
    if data[at] == _DOT:
        point = at
        at += 1
        while _ZERO <= data[at] <= _NINE:
            mantissa = mantissa * 10 + int(data[at]) - _ZERO
            at += 1
        after = at - point - 1
        if after == 0:
            return -1, 0, at
    if at == first or at - first > _SAFE_DIGITS:
        return -1, 0, at
    while after > 0 and mantissa % 10 == 0:
        mantissa //= 10
        after -= 1
    return mantissa, after, at


@njit(cache=True, nogil=True, forceinline=True)
def _plain_end(data: NDArray[np.uint8], at: int, delimiter: int) -> int:
    """Return where a field ends, -1 where it holds a quote or a blank."""
    while (data[at] >= _ZERO and data[at] != delimiter) or (
        data[at] != delimiter and data[at] != NEWLINE and data[at] != _RETURN
    ):
        if data[at] == _QUOTE or data[at] == _SPACE:
            return -1
        at += 1
    return at


@njit(cache=True, nogil=True, forceinline=True)
def _plain_line(  # noqa: C901 - each way out is a line for `_any_line`
    data: NDArray[np.uint8],
    at: int,
    how: tuple[int, int, int],
    slots: IntArray,
    kinds: IntArray,
    row: int,
    time_ns: IntArray,
    values: IntArray,
    digits: NDArray[np.int8],
) -> int:
    """Fill a row from a line of plain numbers and return where the next begins; -1 when anything is unusual."""
    delimiter, time_field, exponent = how
    for number in range(slots.size):
        slot = slots[number]
        if number == time_field or (slot >= 0 and kinds[slot] != TEXT):
            is_negative = data[at] == _MINUS
            mantissa, after, at = _plain_number(data, at + int(is_negative))
            if mantissa < 0:
                return -1
            mantissa = -mantissa if is_negative else mantissa
            if number == time_field:
                time_ns[row], is_time = _scaled_ns(mantissa, after, exponent)
                if not is_time:
                    return -1
            if slot >= 0:
                if kinds[slot] == FLOAT and abs(mantissa) >= _FLOAT_WHOLE:
                    return -1
                values[slot, row], digits[slot, row] = mantissa, after
        else:
            first, at = at, _plain_end(data, at, delimiter)
            if at < 0 or (slot >= 0 and at - first > 8):
                return -1
            if slot >= 0:
                values[slot, row], digits[slot, row] = _text(data, first, at), 0
        if number < slots.size - 1:
            if data[at] != delimiter:
                return -1
            at += 1
    at += int(data[at] == _RETURN)
    return at + 1 if data[at] == NEWLINE else -1


@njit(cache=True, nogil=True)
def parse(
    data: NDArray[np.uint8],
    how: tuple[int, int, int],
    slots: IntArray,
    kinds: IntArray,
    spans: IntArray,
    time_ns: IntArray,
    values: IntArray,
    digits: NDArray[np.int8],
    faults: NDArray[np.uint8],
) -> int:
    """Fill a column of each output per line that is not blank; return how many there are. `data` ends with a line.

    Nearly all lines are plain numbers: those are read in one go, any other field by field.
    """
    row, line = 0, 0
    while line < data.size:
        after, fault = -1, 0
        if how[2] != ISO:
            after = _plain_line(data, line, how, slots, kinds, row, time_ns, values, digits)
        if after < 0:
            after, fault = _any_line(data, line, how, slots, kinds, row, time_ns, values, digits)
        if fault >= 0:
            spans[0, row], spans[1, row], faults[row] = line, after, fault
            row += 1
        line = after
    return row


@njit(cache=True, nogil=True)
def _any_line(
    data: NDArray[np.uint8],
    line: int,
    how: tuple[int, int, int],
    slots: IntArray,
    kinds: IntArray,
    row: int,
    time_ns: IntArray,
    values: IntArray,
    digits: NDArray[np.int8],
) -> tuple[int, int]:
    """Fill a row; return where the next line begins and the row's fault, -1 for a blank line."""
    delimiter, time_field, exponent = how
    begin, number, fault, quoted = line, 0, 0, False
    for at in range(line, data.size):
        is_end = data[at] == NEWLINE
        quoted ^= data[at] == _QUOTE
        if not is_end and (data[at] != delimiter or quoted):
            continue
        start, stop = _trimmed(data, begin, at)
        if number == time_field:
            time_ns[row], late = _time(data, start, stop, exponent)
            fault = late if late != 0 else fault
        if number < slots.size and slots[number] >= 0:
            slot = slots[number]
            values[slot, row], digits[slot, row], bad = _value(data, start, stop, kinds[slot])
            fault = fault if fault != 0 else bad
        number, begin = number + 1, at + 1
        if is_end:
            if number == 1 and start == stop:
                return begin, -1
            fault = fault if number == slots.size else FIELD_COUNT
            return begin, OPEN_QUOTE if quoted else fault
    return data.size, -1


@njit(cache=True, nogil=True)
def to_decimals(
    values: IntArray, digits: NDArray[np.int8], decimals: int, nearest: bool, faults: NDArray[np.uint8]
) -> None:
    """Turn mantissas into units of 10**-`decimals` in place; mark rows whose number is finer or does not fit.

    A finer number that is the text of a float64, within four units in the last place of one that is not, stands for
    that one: 42000.399999999994 is 42000.4. With `nearest` any finer number is the nearest that is not.
    """
    for row in range(values.size):
        if faults[row] != 0 or digits[row] == EMPTY_DIGITS or values[row] == 0:
            continue
        places = decimals - digits[row]
        if places < 0:
            rounded, is_noise = _rounded(values[row], -places)
            if nearest or is_noise:
                values[row] = rounded
            else:
                faults[row] = TOO_MANY_DECIMALS
        elif places > 18 or abs(values[row]) > _ROOM[places]:
            faults[row] = NUMBER_TOO_LARGE
        else:
            values[row] *= _TENS[places]


@njit(cache=True, nogil=True)
def _rounded(mantissa: int, places: int) -> tuple[int, bool]:
    """Return the nearest integer of mantissa / 10**places, and whether what was cut off is noise of a float64."""
    if places > 18:
        return 0, False
    size, unit = abs(mantissa), int(_TENS[places])
    whole = size // unit
    off = size - whole * unit
    if 2 * off >= unit:
        whole, off = whole + 1, unit - off
    return (whole if mantissa > 0 else -whole), off <= size >> 51
