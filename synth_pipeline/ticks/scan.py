"""Raw-log blocks to columns, straight from the bytes: records, and in them the payloads of Binance's known forms.

What the scanner takes is a subset of what `Venue.parse` takes, read to the same values; everything else it refuses, and
the caller gives it to `Venue.parse`. So nothing depends on the scanner but speed. It takes::

    payload  = object | {"stream":"NAME","data": object }       NAME a stream that was seen before
    object   = {"KEY":value, …}                                 no space, no escape, keys in any order, bids before asks
    value    = int | "decimal" | "text" | true | false | [["price","size"], …]
    int      = up to 18 digits · decimal = up to 10 digits, and up to 8 after a point

Which keys an event must and must not carry is the venue's `check_segment`, asked once a symbol. Unknown keys are passed
over, as the plain parser does. The forms are documented in `venues/binance.py`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.ticks.scan_kernels import (
    CODE,
    DEPTH,
    HEADER_BYTES,
    IGNORED,
    LENGTH,
    QUOTE,
    REFUSED,
    SLOTS,
    START,
    STREAM_START,
    TRADE,
    WIDTH,
    scan_records,
)
from synth_pipeline.venues import Venue
from synth_pipeline.venues.binance import BinanceVenue, Depth, Print, Ticker

_MOST_NAMES = 64
"""Streams, and symbols, that are told apart; what a capture has more of goes through the plain parser."""
_LOOKED_AT = 256
"""Refused records of a block whose streams are learned; of a stream that is new, one is among them."""
_CODES = {"book_levels": DEPTH, "quotes": QUOTE, "trades": TRADE}


@dataclass(frozen=True)
class Block:
    """A run of records, scanned. The arrays are the scanner's own and hold until its next block."""

    content: bytes
    records: np.ndarray
    """Shape (records, columns), int64; `scan_kernels` names the columns. Prices and sizes are in units of 1e-8."""
    levels: np.ndarray
    """Shape (levels, 2), int64: price and size of the levels of all DEPTH records."""

    def payload(self, record: int) -> bytes:
        """Return the payload of one record."""
        start, length = self.records[record, START : LENGTH + 1].tolist()
        return self.content[start : start + length]


class Names:
    """The streams and symbols that a log is known to hold, shared by its scanners; what is learned stays."""

    def __init__(self, venue: Venue, symbol: str) -> None:
        self._venue = venue if isinstance(venue, BinanceVenue) else None
        self._symbol = symbol.upper()
        self._symbols = {} if self._venue is None else {symbol.encode(): _taken(self._venue, symbol)}
        self._learning = threading.Lock()
        self.streams: dict[bytes, int] = {}
        """Code of the events of each known stream."""
        self.table = self._table()
        """What `scan_records` takes of it: the names, where each ends, what each means, how many are symbols."""

    def stream(self, number: int) -> str:
        """Return the name of the stream of an IGNORED record."""
        return list(self.streams)[number].decode()

    def symbol(self, number: int) -> str:
        """Return the symbol of an OTHER record."""
        return list(self._symbols)[number].decode()

    def learn_symbol(self, symbol: str | None) -> None:
        """Take the events of one more symbol from now on: they are told from those that nobody knows."""
        if self._venue is None or symbol is None or not symbol.isascii() or symbol.upper() == self._symbol:
            return
        with self._learning:
            if symbol.encode() not in self._symbols and len(self._symbols) < _MOST_NAMES:
                self._symbols[symbol.encode()] = _taken(self._venue, symbol)
                self.table = self._table()

    def learn_streams(self, names: Iterable[bytes]) -> bool:
        """Take the events of more streams from now on; return whether there were any new ones."""
        if self._venue is None:
            return False
        with self._learning:
            known = len(self.streams)
            for name in names:
                kind = self._venue.stream_kind(name.decode().partition("@")[2])
                if kind and len(self.streams) < _MOST_NAMES:
                    self.streams.setdefault(name, _CODES.get(kind, IGNORED))
            self.table = self._table()
            return known < len(self.streams)

    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        names = [*self._symbols, *self.streams]
        meaning = [[0, *taken] for taken in self._symbols.values()]
        meaning += [[code, *12 * [0]] for code in self.streams.values()]
        bounds, taken = np.cumsum([0, *map(len, names)]), np.array(meaning, np.int64).reshape(-1, 13)
        return np.frombuffer(b"".join(names), np.uint8), bounds, taken, len(self._symbols)


class Scanner:
    """Scans blocks into arrays of its own."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._records, self._levels = np.empty((0, WIDTH), np.int64), np.empty((0, 2), np.int64)
        self._slots = np.zeros((2, SLOTS), dtype=np.int64)

    def scan(self, frames: Sequence[bytes]) -> Block:
        """Scan frames of whole records. Raises `InputError` when one ends within a record."""
        content = frames[0] if len(frames) == 1 else b"".join(frames)
        most = len(content) // HEADER_BYTES + 1
        if len(self._records) < most:
            # No level is shorter than nine bytes.
            self._records, self._levels = np.empty((most, WIDTH), np.int64), np.empty((3 * most, 2), np.int64)
        ends = np.cumsum([len(frame) for frame in frames])
        if not self._names.streams:
            # Most streams are met in the first frame: the rest need not be scanned twice.
            self._meet(self._scan(content, ends[:1]))
        found = self._scan(content, ends)
        return self._scan(content, ends) if self._meet(found) else found

    def _meet(self, block: Block) -> bool:
        """Learn the streams of refused records; return whether there were any new ones."""
        refused = np.flatnonzero(block.records[:, CODE] == REFUSED)[:_LOOKED_AT].tolist()
        return self._names.learn_streams({_stream_of(block.payload(record)) for record in refused} - {b""})

    def _scan(self, content: bytes, ends: np.ndarray) -> Block:
        block = np.frombuffer(content, np.uint8)
        records, levels = scan_records(block, ends, *self._names.table, self._records, self._levels, self._slots)
        if records < 0:
            raise InputError("a frame of the raw log ends within a record: re-import the capture it came from")
        return Block(content, self._records[:records], self._levels[:levels])


def scan_ahead(blocks: Iterable[Sequence[bytes]], names: Names, threads: int = 1) -> Iterator[Block]:
    """Scan blocks of frames, so many at a time ahead of the one in use; each holds until the next is asked for."""
    scanners = cycle([Scanner(names) for _ in range(threads + 1)])
    pending: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        for frames in blocks:
            pending.append(pool.submit(next(scanners).scan, frames))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _stream_of(payload: bytes) -> bytes:
    """The stream that a combined event says it is of, empty for anything else."""
    name = payload[len(STREAM_START) : payload.find(b'"', len(STREAM_START))]
    return name if payload.startswith(STREAM_START) and name.isascii() else b""


def _taken(venue: BinanceVenue, symbol: str) -> list[int]:
    """Ask the venue which events of a symbol it takes: of depth, quotes and trades by the marks they carry."""
    taken = np.zeros((3, 4), dtype=np.int64)
    for marks in range(4):
        first, second = bool(marks & 1), bool(marks & 2)
        pair = "" if second else None
        events = (
            Depth(symbol, 0, 0, [], [], pu=0 if first else None, ps=pair),
            Ticker(symbol, 0, "", "", "", "", e="" if first else None, ps=pair),
            Print(symbol, 0, "", "", False, 0, X="" if first else None, M=False if second else None),
        )
        taken[:, marks] = [venue.check_segment(event) is None for event in events]
    return [int(value) for value in taken.ravel()]
