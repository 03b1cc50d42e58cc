"""Rows on their way to the store, in units of 1e-8: written as they come, read back when the day's grid is known.

A piece is a few int64 matrices that belong together, columns first; a spill is a scratch file of pieces, native byte
order, never kept: per matrix its two dimensions, then its values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

TRADE_COLUMNS = ("recv_ns", "event_ns", "seq", "trade_id", "price", "size", "side", "flags")
QUOTE_COLUMNS = ("recv_ns", "event_ns", "seq", "update_id", "bid_price", "bid_size", "ask_price", "ask_size", "flags")
BOOK_COLUMNS = ("recv_ns", "event_ns", "seq", "update_id", "flags", "bids", "asks")
"""One book event: what its levels share, and how many bids and asks it has; a second matrix holds price and size."""
MALFORMED = -1
"""Stands for a number that is no plain decimal."""


class Spill:
    """Pieces of one table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces = 0
        self.rows = 0
        """Columns of the first matrices so far."""

    def append(self, *matrices: np.ndarray) -> None:
        """Write one piece; without anything in its first matrix it is none."""
        if not matrices[0].shape[1]:
            return
        self._pieces += 1
        self.rows += matrices[0].shape[1]
        with self._path.open("ab") as file:
            for matrix in matrices:
                np.array(matrix.shape, dtype=np.int64).tofile(file)
                np.ascontiguousarray(matrix, dtype=np.int64).tofile(file)

    def pieces(self, matrices: int = 1) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield every piece of so many matrices, in order, and remove the file."""
        if not self._pieces:
            return
        with self._path.open("rb") as file:
            for _ in range(self._pieces):
                yield tuple(_read(file) for _ in range(matrices))
        self._path.unlink()


def _read(file: BinaryIO) -> np.ndarray:
    rows, columns = np.fromfile(file, np.int64, 2).tolist()
    return np.fromfile(file, np.int64, rows * columns).reshape(rows, columns)
