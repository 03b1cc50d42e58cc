"""The byte scanner's kernels: records and payloads of a block into columns; see `scan` for what they take and why.

A position is where the next byte stands; -1 says that the bytes are refused. Nothing looks past a byte that it does not
expect, so that the zero byte behind every `bytes` object ends what is cut short. Kernels that call each other stand in
one file, because numba's cache does not follow calls across files, and are inlined, because passing arrays on costs
more than most of them do.
"""

from __future__ import annotations

import numpy as np
from numba import njit

REFUSED, DEPTH, QUOTE, TRADE, IGNORED, OTHER, NOTE = range(7)
"""What the scanner made of a record: not its business, an event of the symbol, an event of a stream that is not used or
of another symbol, a note of the recorder."""

RECEIVED, MONOTONIC, CONNECTION, START, LENGTH, CODE, EVENT_NS, ID = range(8)
"""Columns of a record. Of IGNORED, ID is the stream, of OTHER the symbol."""
FIRST_ID, PREVIOUS_ID, FIRST_LEVEL, BIDS, ASKS = range(8, 13)
"""Further columns of DEPTH; its ID is the final one, -1 says that there is no previous one."""
BID, BID_SIZE, ASK, ASK_SIZE = range(8, 12)
"""Further columns of QUOTE."""
PRICE, SIZE, SIDE, OFF_MARKET = range(8, 12)
"""Further columns of TRADE."""
WIDTH = 13

_E, _T, _FIRST, _LAST, _TRADE_ID, _PREVIOUS = range(1, 7)
_SYMBOL, _PAIR, _EVENT, _KIND = range(7, 11)
_MAKER, _MATCH = 11, 12
_BID, _BID_SIZE, _ASK, _ASK_SIZE, _PRICE, _SIZE = range(13, 19)
_BIDS, _ASKS = 19, 20
_ODD = 21
"""Slots of an object's values, by type: integers, texts, booleans, decimals, levels; `_ODD` marks what none expects."""
SLOTS = 22
_INTEGERS, _TEXTS, _BOOLEANS, _DECIMALS = (1, 6), (7, 10), (11, 12), (13, 18)


def _slots_of_keys() -> np.ndarray:
    """Slot by the one character of a key; 0 unknown, -1 no key at all."""
    slots = np.zeros(256, dtype=np.int64)
    slots[:32] = slots[127:] = slots[ord('"')] = slots[ord("\\")] = -1
    for key, slot in zip(
        "ETUutseXmMbBaApq",
        (_E, _T, _FIRST, _LAST, _TRADE_ID, _SYMBOL, _EVENT, _KIND, _MAKER, _MATCH, *range(_BID, _SIZE + 1)),
        strict=True,
    ):
        slots[ord(key)] = slot
    return slots


def _bits(*slots: int) -> int:
    return sum(1 << slot for slot in slots)


_SLOT_OF_KEY = _slots_of_keys()
_POWERS = 10 ** np.arange(9, dtype=np.int64)
STREAM_START = b'{"stream":"'
_STREAM, _DATA = (np.frombuffer(text, np.uint8) for text in (STREAM_START, b',"data":'))
_DEPTH_EVENT, _QUOTE_EVENT, _TRADE_EVENT, _MARKET = (
    np.frombuffer(text, np.uint8) for text in (b"depthUpdate", b"bookTicker", b"trade", b"MARKET")
)
_DEPTH_NEEDS = _bits(_SYMBOL, _FIRST, _LAST, _BIDS, _ASKS)
_QUOTE_NEEDS = _bits(_SYMBOL, _LAST, _BID, _BID_SIZE, _ASK, _ASK_SIZE)
_TRADE_NEEDS = _bits(_SYMBOL, _TRADE_ID, _PRICE, _SIZE, _MAKER, _T)
_LATEST_MS = 9 * 10**12
_NS_PER_MS = 1_000_000
HEADER_BYTES = 25
"""What stands before each payload; see `archives.rawlog`."""
_EVENT_RECORD = 1


@njit(cache=True, nogil=True, forceinline=True)
def _at(block: np.ndarray, position: int) -> int:
    # As an unsigned index: numba would ask of a signed one, byte by byte, whether it counts from the end.
    return block[np.uintp(position)]  # type: ignore[no-any-return]


@njit(cache=True, nogil=True, forceinline=True)
def scan_records(
    block: np.ndarray,
    ends: np.ndarray,
    texts: np.ndarray,
    bounds: np.ndarray,
    meaning: np.ndarray,
    symbols: int,
    records: np.ndarray,
    levels: np.ndarray,
    slots: np.ndarray,
) -> tuple[int, int]:
    """Fill records and levels; return how many there are of each, -1 for a record that reaches beyond its frame.

    Names are the symbols, then the streams: name k is texts[bounds[k]:bounds[k + 1]]; meaning[k, 0] is a stream's code,
    the rest which events of a symbol are taken.
    """
    record, count, position = 0, 0, 0
    for end in ends:
        while position < end:
            start = position + HEADER_BYTES
            length = _little(block, position + 21, 4)
            if start + length > end:
                return -1, 0
            row = records[record]
            row[RECEIVED], row[MONOTONIC] = _little(block, position, 8), _little(block, position + 8, 8)
            row[CONNECTION], row[START], row[LENGTH] = _little(block, position + 16, 4), start, length
            position = start + length
            if _at(block, start - 5) == _EVENT_RECORD:
                row[CODE] = NOTE
            elif symbols == 0:
                row[CODE] = REFUSED
            else:
                row[CODE], after = _payload(
                    block, start, position, texts, bounds, meaning, symbols, row, levels, count, slots
                )
                count = after if row[CODE] == DEPTH else count
            record += 1
    return record, count


@njit(cache=True, nogil=True, forceinline=True)
def _little(block: np.ndarray, at: int, size: int) -> int:
    value = 0
    for byte in range(size):
        value |= _at(block, at + byte) << (8 * byte)
    return value


@njit(cache=True, nogil=True, inline="always")
def _payload(
    block: np.ndarray,
    start: int,
    stop: int,
    texts: np.ndarray,
    bounds: np.ndarray,
    meaning: np.ndarray,
    symbols: int,
    row: np.ndarray,
    levels: np.ndarray,
    count: int,
    slots: np.ndarray,
) -> tuple[int, int]:
    """Read one payload into its record's row; return its code and how many levels there are now."""
    position, stream, code = start, -1, REFUSED
    if _is(block, start, _STREAM):
        position, stream = _envelope(block, start + len(_STREAM), texts, bounds, symbols, len(meaning))
        if stream < 0:
            return REFUSED, count
        code = meaning[stream, 0]
    position, seen, count = _object(block, position, slots, levels, count, stream >= 0)
    if stream >= 0:
        position = position + 1 if position > 0 and _at(block, position) == 125 else -1
    if position != stop:
        return REFUSED, count
    if code == IGNORED:
        row[ID] = stream - symbols
        return IGNORED, count
    if stream < 0:
        code = _bare_code(block, seen, slots)
    return _event(code, seen, block, slots, texts, bounds, meaning, symbols, row), count


@njit(cache=True, nogil=True, inline="always")
def _envelope(
    block: np.ndarray, name: int, texts: np.ndarray, bounds: np.ndarray, first: int, stop: int
) -> tuple[int, int]:
    """Read a stream's name and what leads to its data; return where these begin, and the stream, -1 if unknown."""
    position = _text(block, name)
    if position < 0:
        return -1, -1
    stream = _find(block, name, position - 1 - name, texts, bounds, first, stop)
    return position + len(_DATA), stream if _is(block, position, _DATA) else -1


@njit(cache=True, nogil=True, inline="always")
def _event(
    code: int,
    seen: int,
    block: np.ndarray,
    slots: np.ndarray,
    texts: np.ndarray,
    bounds: np.ndarray,
    meaning: np.ndarray,
    symbols: int,
    row: np.ndarray,
) -> int:
    """Put an event into its record's row; return its code, REFUSED where a key is missing, odd or another segment's."""
    marks = _marks(code, seen)
    if marks < 0 or seen >> _ODD & 1:
        return REFUSED
    symbol = _find(block, slots[0, _SYMBOL], slots[1, _SYMBOL], texts, bounds, 0, symbols)
    if symbol < 0 or not meaning[symbol, 1 + 4 * (code - DEPTH) + marks]:
        return REFUSED
    if not _fill(code, seen, block, slots, row):
        return REFUSED
    if symbol > 0:
        row[ID] = symbol
        return OTHER
    return code


@njit(cache=True, nogil=True, forceinline=True)
def _is(block: np.ndarray, at: int, text: np.ndarray) -> bool:
    index = 0
    while index < len(text) and _at(block, at + index) == text[index]:
        index += 1
    return index == len(text)


@njit(cache=True, nogil=True, forceinline=True)
def _find(block: np.ndarray, at: int, length: int, texts: np.ndarray, bounds: np.ndarray, first: int, stop: int) -> int:
    """Return the number of the name that stands there, -1 when none does."""
    for name in range(first, stop):
        begin = bounds[name]
        if bounds[name + 1] - begin == length:
            index = 0
            while index < length and _at(block, at + index) == _at(texts, begin + index):
                index += 1
            if index == length:
                return name
    return -1


@njit(cache=True, nogil=True, forceinline=True)
def _bare_code(block: np.ndarray, seen: int, slots: np.ndarray) -> int:
    """What an event outside a combined stream is; spot's quotes carry no event type."""
    if not seen >> _EVENT & 1:
        return QUOTE if seen >> _BID_SIZE & 1 else REFUSED
    at, length = slots[0, _EVENT], slots[1, _EVENT]
    if length == len(_DEPTH_EVENT) and _is(block, at, _DEPTH_EVENT):
        return DEPTH
    if length == len(_QUOTE_EVENT) and _is(block, at, _QUOTE_EVENT):
        return QUOTE
    return TRADE if length == len(_TRADE_EVENT) and _is(block, at, _TRADE_EVENT) else REFUSED


@njit(cache=True, nogil=True, forceinline=True)
def _marks(code: int, seen: int) -> int:
    """Return which of the two marks of its kind an event carries, -1 when it lacks a key that it needs."""
    if code == DEPTH:
        needs, first, second = _DEPTH_NEEDS, _PREVIOUS, _PAIR
    elif code == QUOTE:
        needs, first, second = _QUOTE_NEEDS, _EVENT, _PAIR
    elif code == TRADE:
        needs, first, second = _TRADE_NEEDS, _KIND, _MATCH
    else:
        return -1
    return (seen >> first & 1) | (seen >> second & 1) << 1 if seen & needs == needs else -1


@njit(cache=True, nogil=True, inline="always")
def _fill(code: int, seen: int, block: np.ndarray, slots: np.ndarray, row: np.ndarray) -> bool:
    """Put an event's values into its row; False when one is not as the plain parser wants it."""
    sent, matched = (slots[0, _E] if seen >> _E & 1 else 0), (slots[0, _T] if seen >> _T & 1 else 0)
    if max(sent, matched) > 1000 * _LATEST_MS:
        return False
    stamp = matched if matched or code == TRADE else sent
    event_ns = stamp * 1000 if stamp > _LATEST_MS else stamp * _NS_PER_MS
    row[EVENT_NS] = event_ns if event_ns or code == TRADE else row[RECEIVED]
    if code == TRADE:
        row[ID], row[PRICE], row[SIZE] = slots[0, _TRADE_ID], slots[0, _PRICE], slots[0, _SIZE]
        # The buyer was the maker, so the aggressor sold.
        row[SIDE] = 1 - 2 * slots[0, _MAKER]
        on_market = slots[1, _KIND] == len(_MARKET) and _is(block, slots[0, _KIND], _MARKET)
        row[OFF_MARKET] = seen >> _KIND & 1 and not on_market
        return True
    row[ID] = slots[0, _LAST]
    if code == QUOTE:
        row[BID], row[BID_SIZE] = slots[0, _BID], slots[0, _BID_SIZE]
        row[ASK], row[ASK_SIZE] = slots[0, _ASK], slots[0, _ASK_SIZE]
        return True
    row[FIRST_ID], row[PREVIOUS_ID] = slots[0, _FIRST], slots[0, _PREVIOUS] if seen >> _PREVIOUS & 1 else -1
    row[FIRST_LEVEL], row[BIDS], row[ASKS] = slots[0, _BIDS], slots[1, _BIDS], slots[1, _ASKS]
    return bool(slots[0, _BIDS] <= slots[0, _ASKS])


@njit(cache=True, nogil=True, inline="always")
def _object(
    block: np.ndarray, position: int, slots: np.ndarray, levels: np.ndarray, count: int, combined: bool
) -> tuple[int, int, int]:
    """Read an object into the slots; return the position behind it, -1 when refused, which slots it filled, and how
    many levels there are now."""
    seen = 0
    if _at(block, position) != 123:
        return -1, seen, count
    while True:
        position, slot = _key(block, position + 1, combined)
        if position < 0:
            return -1, seen, count
        position, slot, count = _value(block, position, slot, slots, levels, count)
        if position < 0:
            return -1, seen, count
        if slot:
            seen |= 1 << (_ODD if seen >> slot & 1 else slot)
        if _at(block, position) == 125:
            return position + 1, seen, count
        if _at(block, position) != 44:
            return -1, seen, count


@njit(cache=True, nogil=True, inline="always")
def _key(block: np.ndarray, position: int, combined: bool) -> tuple[int, int]:
    """Read a key and its colon; return the position behind them and the slot, 0 of an unknown key."""
    if _at(block, position) != 34:
        return -1, 0
    slot = _SLOT_OF_KEY[_at(block, position + 1)]
    if slot < 0:
        return -1, 0
    if _at(block, position + 2) == 34:
        position += 3
    elif _at(block, position + 1) == 112 and _at(block, position + 2) in (115, 117) and _at(block, position + 3) == 34:
        slot = _PAIR if _at(block, position + 2) == 115 else _PREVIOUS
        position += 4
    else:
        # Outside a combined stream a long key may be what tells an answer or a snapshot from an event.
        slot, position = 0, _text(block, position + 1) if combined else -1
    if position < 0 or _at(block, position) != 58:
        return -1, 0
    return position + 1, slot


@njit(cache=True, nogil=True, inline="always")
def _value(
    block: np.ndarray, position: int, slot: int, slots: np.ndarray, levels: np.ndarray, count: int
) -> tuple[int, int, int]:
    """Read a value into its slot; return the position behind it, -1 when refused, the slot, `_ODD` if the value is not
    of the key's type, and how many levels there are now."""
    first = _at(block, position)
    if first == 34:
        after = -1
        if _DECIMALS[0] <= slot <= _DECIMALS[1]:
            slots[0, slot], after = _decimal(block, position + 1)
        if after < 0:
            after = _text(block, position + 1)
            slot = slot if slot == 0 or _TEXTS[0] <= slot <= _TEXTS[1] else _ODD
            slots[0, slot], slots[1, slot] = position + 1, after - position - 2
        return after, slot, count
    if first == 91:
        if slot != _BID and slot != _ASK:
            return -1, slot, count
        slot = _BIDS if slot == _BID else _ASKS
        slots[0, slot] = count
        position, after = _levels(block, position + 1, levels, count)
        slots[1, slot] = after - count
        return position, slot, after
    if first == 116 or first == 102:
        slot = slot if slot == 0 or _BOOLEANS[0] <= slot <= _BOOLEANS[1] else _ODD
        slots[0, slot] = first == 116
        return _boolean(block, position), slot, count
    slot = slot if slot == 0 or _INTEGERS[0] <= slot <= _INTEGERS[1] else _ODD
    slots[0, slot], position = _integer(block, position)
    return position, slot, count


@njit(cache=True, nogil=True, forceinline=True)
def _text(block: np.ndarray, position: int) -> int:
    """Return the position behind the closing quote of printable ASCII without escapes, else -1."""
    while True:
        byte = _at(block, position)
        if byte == 34:
            return position + 1
        if byte < 32 or byte > 126 or byte == 92:
            return -1
        position += 1


@njit(cache=True, nogil=True, forceinline=True)
def _boolean(block: np.ndarray, position: int) -> int:
    if _at(block, position) == 116:
        found = _at(block, position + 1) == 114 and _at(block, position + 2) == 117 and _at(block, position + 3) == 101
        return position + 4 if found else -1
    found = _at(block, position + 1) == 97 and _at(block, position + 2) == 108 and _at(block, position + 3) == 115
    return position + 5 if found and _at(block, position + 4) == 101 else -1


@njit(cache=True, nogil=True, forceinline=True)
def _integer(block: np.ndarray, position: int) -> tuple[int, int]:
    start, value, byte = position, 0, _at(block, position)
    while byte >= 48 and byte <= 57:
        value = value * 10 + (byte - 48)
        position += 1
        byte = _at(block, position)
    digits = position - start
    fits = 0 < digits <= 18 and (digits == 1 or _at(block, start) != 48)
    return value, position if fits else -1


@njit(cache=True, nogil=True, forceinline=True)
def _decimal(block: np.ndarray, position: int) -> tuple[int, int]:
    """Read a decimal up to its closing quote as units of 1e-8."""
    start, value, byte = position, 0, _at(block, position)
    while byte >= 48 and byte <= 57:
        value = value * 10 + (byte - 48)
        position += 1
        byte = _at(block, position)
    whole, decimals = position - start, 0
    if _at(block, position) == 46:
        position += 1
        start, byte = position, _at(block, position)
        while byte >= 48 and byte <= 57:
            value = value * 10 + (byte - 48)
            position += 1
            byte = _at(block, position)
        decimals = position - start
        if decimals == 0 or decimals > 8:
            return 0, -1
    if whole == 0 or whole > 10 or _at(block, position) != 34:
        return 0, -1
    return value * _POWERS[8 - decimals], position + 1


@njit(cache=True, nogil=True, forceinline=True)
def _levels(block: np.ndarray, position: int, levels: np.ndarray, count: int) -> tuple[int, int]:
    """Read levels behind their opening bracket; return the position behind the closing one, -1 when refused, and how
    many there are now."""
    if _at(block, position) == 93:
        return position + 1, count
    while True:
        if _at(block, position) != 91 or _at(block, position + 1) != 34:
            return -1, count
        price, position = _decimal(block, position + 2)
        if position < 0 or _at(block, position) != 44 or _at(block, position + 1) != 34:
            return -1, count
        size, position = _decimal(block, position + 2)
        if position < 0 or _at(block, position) != 93:
            return -1, count
        levels[count, 0], levels[count, 1] = price, size
        count += 1
        position += 2
        if _at(block, position - 1) == 93:
            return position, count
        if _at(block, position - 1) != 44:
            return -1, count
