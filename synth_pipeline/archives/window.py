"""Visible windows of the book to level changes: what a source that shows N levels a side says of each of them.

A window is a matrix (levels, 4) of ask price, ask size, bid price, bid size, best level first; a level that is not
there has size 0. A level that leaves the window is removed from our book and one that enters is added, so that
replaying the changes gives exactly the recorded window.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from synth_pipeline.archives.drafts import Fault


def faults(windows: np.ndarray) -> np.ndarray:
    """Return the `Fault` of each window, shape (rows, levels, 4): prices and sizes positive, away from the touch, not
    crossed."""
    prices, sizes = windows[:, :, 0::2], windows[:, :, 1::2]
    shown = sizes != 0
    found = np.zeros(len(windows), np.uint8)
    steps = np.diff(prices, axis=1) * np.array([1, -1])
    found[((steps <= 0) & shown[:, 1:]).any(axis=(1, 2)) | (shown[:, 1:] & ~shown[:, :-1]).any(axis=(1, 2))] = (
        Fault.DISORDERED_LEVELS
    )
    found[shown[:, 0].all(axis=1) & (prices[:, 0, 1] >= prices[:, 0, 0])] = Fault.CROSSED_QUOTE
    found[(shown & ((prices <= 0) | (sizes < 0))).any(axis=(1, 2))] = Fault.NOT_POSITIVE
    return found


@njit(cache=True)
def changes(windows: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, side, price, size) of every level unlike the window before; size 0 for one no longer shown."""
    rows, levels = windows.shape[0], windows.shape[1]
    found = np.empty((rows * levels * 4, 4), np.int64)
    count = 0
    for row in range(rows):
        earlier = windows[row - 1] if row else before
        for column, side in ((2, 1), (0, -1)):
            for level in range(levels):
                price, size = earlier[level, column], earlier[level, column + 1]
                if size != 0 and _size_at(windows[row], column, price) == 0:
                    found[count] = row, side, price, 0
                    count += 1
            for level in range(levels):
                price, size = windows[row, level, column], windows[row, level, column + 1]
                if size != 0 and _size_at(earlier, column, price) != size:
                    found[count] = row, side, price, size
                    count += 1
    found = found[:count]
    return found[:, 0].copy(), found[:, 1].copy(), found[:, 2].copy(), found[:, 3].copy()


@njit(cache=True)
def _size_at(window: np.ndarray, column: int, price: int) -> int:
    """Return the size that one side of a window shows at a price, 0 for none."""
    for level in range(window.shape[0]):
        if window[level, column + 1] != 0 and window[level, column] == price:
            return int(window[level, column + 1])
    return 0
