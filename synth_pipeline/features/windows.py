"""Cutting a series: contiguous segments, fixed-length windows, the chronological split.

Nothing here bridges a gap: a window or segment never holds NaN, and none lies across the break of two sessions. Nothing
here shuffles: time order is kept. Window starts are row numbers, so that nothing is copied until they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.series import FloatArray, IntArray, Series


def series_from_grid(
    columns: Mapping[str, np.ndarray], names: tuple[str, ...], *, step_ns: int, tick_size: float, lot_size: float
) -> Series:
    """Make one path of grid columns; rows with any NaN in `names` stay NaN in all of them, as gaps.

    `columns` must hold `label_ns` on an unbroken grid of `step_ns`.
    """
    values = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
    values[~np.isfinite(values).all(axis=1)] = np.nan
    return Series(
        values=values[np.newaxis],
        names=names,
        step_ns=step_ns,
        start_ns=np.asarray(columns["label_ns"][:1], dtype=np.int64),
        tick_size=tick_size,
        lot_size=lot_size,
    )


def segments(series: Series) -> list[tuple[int, int, int]]:
    """Return (path, start, stop) of every longest run without NaN, in path and time order."""
    found = []
    for path in range(series.paths):
        known = np.isfinite(series.values[path]).all(axis=1).astype(np.int8)
        edges = np.diff(np.concatenate(([0], known, [0])))
        starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        found += [(path, int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]
    return found


def windows(series: Series, length: int, stride: int = 1) -> FloatArray:
    """Return every window of `length` steps, `stride` apart, that lies within one segment.

    Shape (windows, length, features). Raises `TooLittleDataError` when no segment is long enough, `InputError` for a
    length or stride below 1.
    """
    _check_lengths(length, stride)
    cuts = [
        series.values[path, first : first + length]
        for path, start, stop in segments(series)
        for first in range(start, stop - length + 1, stride)
    ]
    if not cuts:
        longest = max((stop - start for _, start, stop in segments(series)), default=0)
        raise TooLittleDataError(
            f"no window of {length} steps fits: the longest stretch without a gap has {longest} steps; "
            f"record for longer or choose a shorter window"
        )
    return np.stack(cuts)


def split(series: Series, fraction: float) -> tuple[Series, Series]:
    """Cut every path in time: the first `fraction` of the steps to train on, the rest held out.

    Raises `InputError` for a fraction that is not within 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"a train fraction of {fraction} is no share: take a number from 0 to 1")
    cut = int(series.steps * fraction)
    return series.slice(0, cut), series.slice(cut, series.steps)


def session_of(labels_ns: IntArray, sessions: Sequence[tuple[int, int]]) -> IntArray:
    """Return the number of the session that holds each row's bucket, -1 for none.

    `sessions` are half-open intervals, ascending and disjoint: when the recording ran, or the market was open. A label
    is the end of a bucket, so the label that equals a session's end belongs to it, the one that equals its start not.
    Raises `InputError` for sessions that overlap or go back.
    """
    edges = np.array([edge for session in sessions for edge in session], dtype=np.int64)
    if (np.diff(edges[::2]) <= 0).any() or (edges[1::2] <= edges[::2]).any() or (edges[2::2] < edges[1:-1:2]).any():
        raise InputError("sessions overlap, go back or are empty: sort them and merge those that overlap")
    found = np.searchsorted(edges[::2], labels_ns, side="left") - 1
    is_within = (found >= 0) & (labels_ns <= np.append(edges[1::2], 0)[found])
    return np.where(is_within, found, -1)


def window_starts(is_known: np.ndarray, length: int, stride: int = 1, session: IntArray | None = None) -> IntArray:
    """Return the first rows of the windows of `length` rows that hold known rows of one session only.

    They lie `stride` apart, counted from the first row of each unbroken stretch. `is_known` says of every row whether
    nothing in it is missing, `session` where it belongs, as `session_of` gives it. Raises `InputError` for a length or
    stride below 1.
    """
    _check_lengths(length, stride)
    belongs = np.where(is_known, 0 if session is None else session, -1)
    edges = np.flatnonzero(np.diff(belongs, prepend=-1, append=-1))
    stretches = [(start, stop) for start, stop in pairwise(edges) if belongs[start] >= 0]
    starts = [np.arange(start, stop - length + 1, stride) for start, stop in stretches]
    return np.concatenate((*starts, np.empty(0, dtype=np.int64))).astype(np.int64)


def _check_lengths(length: int, stride: int) -> None:
    if length < 1 or stride < 1:
        raise InputError(f"no windows of {length} rows, {stride} apart: take 1 or more of both")


class Split(NamedTuple):
    """First rows of windows, in time order."""

    train: IntArray
    validation: IntArray
    test: IntArray


def split_windows(
    starts: IntArray, length: int, rows: int, fractions: tuple[float, float], *, horizon: int = 0, embargo: int = 0
) -> Split:
    """Cut windows in time: the first of `fractions` of the rows trains, the second validates, the rest tests.

    A window belongs to a part if all its rows, and the `horizon` rows after it that its target is made of, lie within;
    others are purged. The first `embargo` rows after each cut belong to no part, so that what is remembered across it
    has time to fade (López de Prado (2018), chapter 7). Raises `InputError` for fractions that leave no test part,
    `TooLittleDataError` for a part without a window.
    """
    train, validation = fractions
    if not (train > 0 and validation >= 0 and train + validation < 1) or horizon < 0 or embargo < 0:
        raise InputError(
            f"fractions {fractions}, horizon {horizon}, embargo {embargo}: take a train fraction above 0, "
            f"a sum below 1, nothing negative"
        )
    first, second = int(rows * train), int(rows * (train + validation))
    bounds = ((0, first), (first + embargo, second), (second + embargo, rows))
    parts = [starts[(starts >= begin) & (starts + length + horizon <= end)] for begin, end in bounds]
    for name, part in zip(Split._fields, parts, strict=True):
        if not len(part) and not (name == "validation" and validation == 0):
            raise TooLittleDataError(
                f"no window of {length} rows, horizon {horizon}, is left for {name} after an embargo of {embargo}: "
                f"record for longer, or choose shorter ones"
            )
    return Split(*parts)
