"""Records of a row archive as a format's reader hands them on: typed, not yet judged, numbers still decimals.

What belongs here: the form of a draft, the reasons for which a row goes to quarantine, and the clock: which record lies
in which day, and what becomes of a time that cannot be right.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.archives.fields import NO_TIME, Decimals
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND

CONTRADICTION_NS = 60 * NS_PER_SECOND
"""A time this far from both its neighbours, which agree, is wrong by itself."""


class Fault(enum.IntEnum):
    """What is wrong with a row; its name in lower case is the reason in quarantine."""

    NONE = 0
    WRONG_COLUMNS = 1
    TORN_LINE = 2
    """The last line of a file that ends without a line end: it may be cut."""
    MALFORMED = 3
    """No record of this format (no JSON object, an unknown record type)."""
    BAD_TIME = 4
    MALFORMED_NUMBER = 5
    MALFORMED_ID = 6
    NOT_POSITIVE = 7
    OFF_TICK = 8
    """Not on the day's tick grid: integers of ticks cannot hold it, and nothing is rounded."""
    OFF_LOT = 9
    CROSSED_QUOTE = 10
    UNKNOWN_SIDE = 11
    UNKNOWN_KIND = 12
    DUPLICATE_TRADE = 13
    DISORDERED_LEVELS = 14
    """The levels of one side do not go away from the touch."""

    DUPLICATE_UPDATE = 16
    AFTER_GAP = 15
    """Updates are missing before it: what it changes is unknown until the next full book."""

    @property
    def reason(self) -> str:
        """The slug of `schema.QUARANTINE`."""
        return self.name.lower()


class Piece(NamedTuple):
    """Rows of one table out of the records of a draft."""

    table: str
    """A tick table, `order_events`, or `books`: the visible window of both sides after every record."""
    at: np.ndarray
    """Number of the record that each row is of, rising."""
    columns: Mapping[str, np.ndarray]
    """What is an integer already; `flags` hold what the format says besides LAST and BAD_CLOCK."""
    prices: Mapping[str, Decimals]
    sizes: Mapping[str, Decimals]
    faults: np.ndarray
    """`Fault` of each row."""
    shapes_grid: np.ndarray | None = None
    """Where a row's price takes part in finding the tick; None for everywhere."""


@dataclass
class Draft:
    """Some records of one symbol, in file order."""

    recv_ns: np.ndarray
    """`NO_TIME` where none can be read."""
    event_ns: np.ndarray
    faults: np.ndarray
    """`Fault` of each record; a faulty one gives no rows."""
    pieces: Callable[[], list[Piece]]
    """The rows, read when asked for: days and times need no numbers."""
    payload: Callable[[int], bytes]
    """The record as it came."""
    payloads: Callable[[np.ndarray], bytes] | None = None
    """Many records, each with what ends it; None where one by one will do."""
    bytes: int = 0
    """How many of the file they were read from, where that is known."""
    first: int = 0
    """Number in the file of the first record."""
    late: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    """Where `recv_ns` is not what the source says, set by `Clock`."""

    def __len__(self) -> int:
        return len(self.recv_ns)


def numbered(drafts: Iterable[Draft]) -> Iterator[Draft]:
    """Number the records through all drafts."""
    count = 0
    for draft in drafts:
        draft.first = count
        count += len(draft)
        yield draft


def settled(drafts: Iterable[Draft]) -> Iterator[tuple[Draft, np.ndarray]]:
    """Yield the drafts with the time that each record is filed under; a time that stands alone is a fault.

    A record without a readable time belongs where the one before it does, leading ones to the first that has one; a
    time is wrong when it is far from both its neighbours, which agree. Times that only step back stay as they are.
    """
    waiting: list[Draft] = []
    before = NO_TIME
    for draft in drafts:
        readable = draft.recv_ns[draft.recv_ns != NO_TIME]
        if len(readable) and waiting:
            for earlier in waiting:
                before, times = _filed(earlier, before, int(readable[0]))
                yield earlier, times
            waiting.clear()
        waiting.append(draft)
    for earlier in waiting:
        before, times = _filed(earlier, before, NO_TIME)
        yield earlier, times


def _filed(draft: Draft, before: int, after: int) -> tuple[int, np.ndarray]:
    times, lone, latest = _file(draft.recv_ns, before, after)
    draft.faults[(draft.faults == 0) & (lone | (draft.recv_ns == NO_TIME))] = Fault.BAD_TIME
    return int(latest), times


@njit(cache=True)
def _file(recv: np.ndarray, before: int, after: int) -> tuple[np.ndarray, np.ndarray, int]:
    count = len(recv)
    following = np.full(count + 1, after, np.int64)
    for row in range(count - 1, -1, -1):
        following[row] = recv[row] if recv[row] != NO_TIME else following[row + 1]
    times, lone = np.empty(count, np.int64), np.zeros(count, np.bool_)
    for row in range(count):
        time, next_time = recv[row], following[row + 1]
        if time != NO_TIME and before != NO_TIME and next_time != NO_TIME:
            distance = min(abs(time - before), abs(time - next_time))
            lone[row] = abs(next_time - before) <= CONTRADICTION_NS < distance
        if time != NO_TIME and not lone[row]:
            before = time
        times[row] = before if before != NO_TIME else next_time
    return times, lone, before


class Clock:
    """Receive times that never step back, for the records of one day."""

    def __init__(self, day_start_ns: int) -> None:
        self._start, self._end = day_start_ns, day_start_ns + NS_PER_DAY
        self._latest = NO_TIME
        self.late = 0
        """Records that stood behind a later one."""

    def within(self, draft: Draft, times: np.ndarray) -> np.ndarray:
        """Return where the records of the day are; `recv_ns` of those becomes the latest time so far."""
        inside = np.asarray((times >= self._start) & (times < self._end))
        latest = np.maximum.accumulate(np.concatenate(([self._latest], times[inside])))
        late = latest[1:] != draft.recv_ns[inside]
        self.late += int((latest[1:] > times[inside]).sum())
        draft.recv_ns = draft.recv_ns.copy()
        draft.recv_ns[inside] = latest[1:]
        draft.late = np.zeros(len(draft), np.bool_)
        draft.late[inside] = late
        self._latest = int(latest[-1])
        return inside
