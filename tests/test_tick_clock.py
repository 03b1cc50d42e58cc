"""Which receive times are believed, and which rows are flagged for it."""

import numpy as np
import pytest

from synth_pipeline.schema import NS_PER_SECOND, Flag
from synth_pipeline.ticks.clock import Clock
from synth_pipeline.ticks.scan_kernels import MONOTONIC, RECEIVED

WALL, TICKS = 1_700_006_400 * NS_PER_SECOND, 5 * NS_PER_SECOND


def _timed(stamps: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Times and flags of (wall, monotonic) stamps given in ms after a start; monotonic 0 where below zero."""
    records = np.zeros((len(stamps), max(RECEIVED, MONOTONIC) + 1), np.int64)
    for row, (wall, ticks) in enumerate(stamps):
        records[row, RECEIVED] = WALL + wall * 10**6
        records[row, MONOTONIC] = TICKS + ticks * 10**6 if ticks >= 0 else 0
    times, flags, _ = Clock().time(records)
    return ((times - WALL) // 10**6).tolist(), flags.tolist()


def test_a_message_of_another_socket_taken_up_later_is_no_bad_clock() -> None:
    assert _timed([(0, 0), (10, 10), (8, 8), (11, 11)]) == ([0, 10, 10, 11], [0, 0, 0, 0])


@pytest.mark.parametrize("ticks", [11, -1])
def test_a_clock_that_stepped_back_is_flagged(ticks: int) -> None:
    """The monotonic clock went on, or there is none."""
    times, flags = _timed([(0, 0), (10, 10 if ticks > 0 else -1), (8, ticks)])
    assert times == [0, 10, 10]
    assert flags == [0, 0, int(Flag.BAD_CLOCK)]


def test_a_wall_clock_that_stands_further_back_than_the_monotonic_one_is_flagged() -> None:
    assert _timed([(0, 0), (1000, 1000), (500, 999)])[1] == [0, 0, int(Flag.BAD_CLOCK)]
