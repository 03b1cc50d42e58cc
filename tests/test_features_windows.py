"""Windows: never over a gap or a break of sessions, none missed; splits: in time, purged, with an embargo."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.features.windows import session_of, split, split_windows, window_starts, windows
from synth_pipeline.series import Series

known_rows = st.lists(st.sampled_from([True, True, True, False]), max_size=60).map(
    lambda rows: np.array(rows, dtype=bool)
)


@given(known_rows, st.integers(1, 8), st.data())
def test_with_a_stride_of_one_every_possible_window_is_found_once(known: np.ndarray, length: int, data: Any) -> None:
    count = len(known)
    session = np.array(
        data.draw(st.lists(st.sampled_from([0, 0, 0, 1, -1]), min_size=count, max_size=count)), dtype=int
    )
    expected = [
        start
        for start in range(count - length + 1)
        if known[start : start + length].all()
        and len({*session[start : start + length], -1}) == 2
        and (session[start : start + length] >= 0).all()
    ]
    assert window_starts(known, length, session=session).tolist() == expected


@given(known_rows, st.integers(1, 8), st.integers(1, 5))
def test_strided_windows_are_some_of_all_and_do_not_come_closer(known: np.ndarray, length: int, stride: int) -> None:
    every, some = window_starts(known, length), window_starts(known, length, stride)
    assert set(some) <= set(every)
    gaps = np.diff(some)
    assert ((gaps >= stride) | (gaps > length)).all()
    if len(every):
        assert some[0] == every[0]


@given(known_rows, st.integers(1, 8), st.integers(1, 5))
def test_the_windows_of_a_series_are_at_these_rows(known: np.ndarray, length: int, stride: int) -> None:
    values = np.where(known, np.arange(len(known), dtype=float), np.nan)[np.newaxis, :, np.newaxis]
    series = Series(values, ("mid",), 1, np.zeros(1, dtype=np.int64), 0.0)
    starts = window_starts(known, length, stride)
    if len(starts):
        assert windows(series, length, stride)[:, 0, 0].tolist() == starts.tolist()


def test_rows_belong_to_the_session_that_holds_their_bucket() -> None:
    labels = np.array([10, 11, 20, 21, 25, 30, 31, 40, 41])
    assert session_of(labels, [(10, 20), (20, 25), (30, 40)]).tolist() == [-1, 0, 0, 1, 1, -1, 2, 2, -1]
    assert session_of(labels, []).tolist() == [-1] * 9


def test_a_window_does_not_lie_across_the_night() -> None:
    session = session_of(np.arange(1, 13), [(0, 6), (6, 12)])
    assert window_starts(np.ones(12, dtype=bool), 4, 2, session).tolist() == [0, 2, 6, 8]


# --- splits


@given(
    st.integers(20, 200),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 9),
    st.floats(0.2, 0.6),
    st.floats(0.1, 0.3),
)
def test_nothing_is_in_two_parts_and_the_parts_keep_their_distance(
    rows: int, length: int, stride: int, horizon: int, embargo: int, train: float, validation: float
) -> None:
    starts = np.arange(0, rows - length + 1, stride)
    try:
        parts = split_windows(starts, length, rows, (train, validation), horizon=horizon, embargo=embargo)
    except TooLittleDataError:
        return
    assert parts.test[-1] + length + horizon <= rows
    for before, after in ((parts.train, parts.validation), (parts.validation, parts.test)):
        used_until = before[-1] + length + horizon
        assert after[0] - used_until >= embargo
    assert {*parts.train, *parts.validation, *parts.test} <= set(starts)


def test_split_by_hand() -> None:
    parts = split_windows(np.arange(0, 98), 3, 100, (0.6, 0.2), horizon=2, embargo=5)
    assert (parts.train[0], parts.train[-1]) == (0, 55)
    assert (parts.validation[0], parts.validation[-1]) == (65, 75)
    assert (parts.test[0], parts.test[-1]) == (85, 95)


def test_a_split_without_validation() -> None:
    parts = split_windows(np.arange(0, 98), 3, 100, (0.6, 0.0))
    assert [len(part) for part in parts] == [58, 0, 38]


def rising(steps: int) -> Series:
    return Series(np.arange(steps, dtype=np.float64)[None, :, None], ("mid",), 1, np.zeros(1, dtype=np.int64), 0.0)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: window_starts(np.ones(3, dtype=bool), 0), InputError, "no windows of 0 rows"),
        (lambda: windows(rising(9), 0), InputError, "no windows of 0 rows"),
        (lambda: windows(rising(9), 2, 0), InputError, "2 rows, 0 apart"),
        (lambda: split(rising(9), 1.5), InputError, "train fraction of 1.5"),
        (lambda: split_windows(np.arange(9), 2, 10, (math.nan, 0.2)), InputError, "a sum below 1"),
        (lambda: session_of(np.arange(3), [(0, 5), (4, 9)]), InputError, "sessions overlap"),
        (lambda: session_of(np.arange(3), [(5, 5)]), InputError, "sessions overlap, go back or are empty"),
        (lambda: split_windows(np.arange(9), 2, 10, (0.8, 0.2)), InputError, "a sum below 1"),
        (lambda: split_windows(np.arange(9), 2, 10, (0.5, 0.2), embargo=3), TooLittleDataError, "left for validation"),
    ],
)
def test_wrong_input_is_named(wrong: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong()
