"""Wall times of a time zone to UTC, in file order: an hour that comes twice is told apart by the order of its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numba import njit

from synth_pipeline.archives.fields import NO_TIME
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND

_SLOT_NS = 900 * NS_PER_SECOND
"""Clocks change at quarters of an hour only."""
_DISORDER_NS = 300 * NS_PER_SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class WallClock:
    """Converts the times of one file, block by block."""

    def __init__(self, name: str) -> None:
        try:
            self._zone = ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise InputError(f"time zone {name!r} is not known: give one such as America/Chicago or UTC") from error
        self._latest = np.array([NO_TIME], np.int64)
        self._offsets: dict[int, tuple[int, int]] = {}

    def to_utc(self, local_ns: np.ndarray) -> np.ndarray:
        """Return UTC ns; `NO_TIME` for a time that the clock skipped."""
        slots, which = np.unique(local_ns // _SLOT_NS, return_inverse=True)
        early, late = np.array([self._offset(slot) for slot in slots.tolist()], np.int64).reshape(-1, 2).T
        times: np.ndarray = _to_utc(local_ns, early[which], late[which], self._latest)
        return times

    def _offset(self, slot: int) -> tuple[int, int]:
        """Return the offsets of a quarter of an hour, as it comes first and as it comes again."""
        if slot not in self._offsets:
            if not abs(slot) < 2**33:
                return 0, 0  # no time at all
            moment = _EPOCH + timedelta(seconds=slot * 900)
            first, second = (moment.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
            self._offsets[slot] = (_ns(first or timedelta()), _ns(second or timedelta()))
        return self._offsets[slot]


def _ns(offset: timedelta) -> int:
    return int(offset.total_seconds()) * NS_PER_SECOND


@njit(cache=True)
def _to_utc(local: np.ndarray, early: np.ndarray, late: np.ndarray, latest: np.ndarray) -> np.ndarray:
    times = np.full(len(local), NO_TIME, np.int64)
    for row in range(len(local)):
        if local[row] == NO_TIME or early[row] < late[row]:
            continue
        first = local[row] - early[row]
        again = early[row] > late[row] and latest[0] != NO_TIME and first < latest[0] - _DISORDER_NS
        times[row] = local[row] - late[row] if again else first
        latest[0] = max(latest[0], times[row])
    return times
