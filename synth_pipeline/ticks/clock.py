"""When a record counts as received: the recorder's wall clock, as long as it can be believed.

What is certain is the order of arrival, so the time of a row never falls, and a row whose time is not what the recorder
wrote is flagged BAD_CLOCK; the raw log keeps what was written.

- Where the wall clock stands behind the time reached, rows keep that time until it has caught up.
- Where the log carries a monotonic clock (recordings of our own do), it tells a step of the wall clock from a silence.
  After a step forward rows are timed by it; a step that has lasted ten seconds is believed from then on, and what lies
  between is a gap, `clock_step`: time that never passed. One that is taken back sooner leaves nothing but the flags.
  After a step back of over a minute rows are timed by it too, or hours of them would share one time.
- Where both clocks stand a moment behind the record before, nothing is wrong with either: messages of two sockets are
  written in the order in which they were taken up. Such a row takes the time reached, without a flag.
- A log without one (collector files) gives no way to tell; a stamp that its neighbours contradict is the archive's to
  judge.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from synth_pipeline.archives.rawlog import SILENCE_NS
from synth_pipeline.schema import NS_PER_SECOND, Flag
from synth_pipeline.ticks.scan_kernels import MONOTONIC, RECEIVED

STEP_NS = NS_PER_SECOND
"""The wall clock may run ahead of the monotonic one by this much from one record to the next; more is a step."""
SETTLED_NS = 10 * NS_PER_SECOND
"""A step forward that lasts this long is believed."""
JITTER_NS = NS_PER_SECOND // 1000
"""The two clocks are read one after the other: so much may lie between the readings of one moment."""
_BAD = int(Flag.BAD_CLOCK)
_LATEST, _MONOTONIC, _AHEAD, _SINCE = range(4)


class Clock:
    """Times the messages of one log, in order of arrival."""

    def __init__(self) -> None:
        self._state = np.zeros(4, dtype=np.int64)

    @property
    def latest_ns(self) -> int:
        """The time reached; 0 before the first message."""
        return int(self._state[_LATEST])

    def begin_anew(self) -> None:
        """Another recorder goes on: its monotonic clock says nothing about the one before."""
        self._state[_MONOTONIC] = 0

    def time(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
        """Time the records of `scan.Block.records`, messages only.

        Returns `recv_ns` and flags, one each, and the steps that were believed: (time before, time after).
        """
        times, flags = np.empty(len(records), np.int64), np.zeros(len(records), np.int64)
        steps = np.empty((len(records), 2), np.int64)
        count = _time(records[:, RECEIVED], records[:, MONOTONIC], times, flags, steps, self._state)
        return times, flags, [(before, after) for before, after in steps[:count].tolist()]


@njit(cache=True, nogil=True)
def _time(
    received: np.ndarray,
    monotonic: np.ndarray,
    times: np.ndarray,
    flags: np.ndarray,
    steps: np.ndarray,
    state: np.ndarray,
) -> int:
    """Fill times and flags; return how many steps were believed. `state[_AHEAD]` is how far the wall clock ran ahead
    of the monotonic one when it stepped, `state[_SINCE]` the monotonic time of that, 0 when it did not."""
    believed = 0
    for row in range(len(received)):
        latest, wall, ticks = state[_LATEST], received[row], monotonic[row]
        passed = ticks - state[_MONOTONIC] if ticks > 0 and state[_MONOTONIC] > 0 else np.int64(-1)
        time = max(wall, latest)
        if passed < 0 or wall <= latest + passed + STEP_NS:
            state[_SINCE] = 0
            if passed >= 0 and wall < latest - SILENCE_NS:
                time = latest + passed
        elif state[_SINCE] == 0 or abs(wall - ticks - state[_AHEAD]) > STEP_NS:
            state[_AHEAD], state[_SINCE] = wall - ticks, ticks
            time = latest + passed
        elif ticks - state[_SINCE] >= SETTLED_NS:
            steps[believed, 0], steps[believed, 1] = latest, wall
            believed += 1
            state[_SINCE] = 0
        else:
            time = latest + passed
        times[row] = time
        taken_up_later = 0 < ticks < state[_MONOTONIC] and latest - wall <= state[_MONOTONIC] - ticks + JITTER_NS
        flags[row] = _BAD if time != wall and not taken_up_later else 0
        state[_LATEST], state[_MONOTONIC] = time, max(ticks, state[_MONOTONIC]) if passed >= 0 else ticks
    return believed
