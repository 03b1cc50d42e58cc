"""`Windows`: what a window metric sees, short cuts of equal length of a series, all features at once.

Cutting, leaving out what gaps spoil, thinning and scaling happen here, so that a metric is about its statistic alone.
The benchmarks of the field cut at every step and scale each feature to [0, 1] by its least and greatest training
value (Yoon, Jarrett, van der Schaar 2019, NeurIPS, and the papers that compare with it). Nothing here compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.once import Once
from synth_pipeline.series import FloatArray, IntArray, Series

PRICES = frozenset(
    {"mid", "microprice", "vwap", "depth_mid", "last_price", "open", "high", "low", "close", "adj_close"}
)
"""Columns that are prices, by their names in small letters."""


@dataclass(frozen=True, eq=False)
class Windows(Once):
    """Windows of one source, finite throughout."""

    values: FloatArray
    """Shape (n, length, features), in the order of time within a path."""
    names: tuple[str, ...]
    """Of the features."""
    origin: tuple[Windows, IntArray] | None = None
    """Which windows of which larger set they are, where they were taken from one."""
    in_changes: bool = False
    """Whether prices are changes from the step before already, as windows of long series are; levels otherwise."""

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.shape[2] != len(self.names):
            raise InputError(
                f"windows of shape {self.values.shape} do not fit {len(self.names)} names: shape must be (n, length, "
                f"features)"
            )

    @classmethod
    def of(cls, series: Series, length: int, *, stride: int = 1, columns: Sequence[str] | None = None) -> Self:
        """Cut every path of a series into windows of `length` steps, one every `stride` steps, path after path.

        A window that holds a value that is not finite is left out. Raises `InputError` for an unknown column, or paths
        shorter than a window.
        """
        chosen = series if columns is None else series.select(tuple(columns))
        if not 1 <= length <= series.steps or stride < 1:
            raise InputError(
                f"paths of {series.steps} steps cannot be cut into windows of {length}, one every {stride}: take a "
                f"length from 1 to {series.steps} and a stride of 1 or more"
            )
        cut = np.lib.stride_tricks.sliding_window_view(chosen.values, length, axis=1)[:, ::stride]
        flat = cut.transpose(0, 1, 3, 2).reshape(-1, length, len(chosen.names))
        return cls(flat[np.isfinite(flat).all(axis=(1, 2))], chosen.names)

    @property
    def count(self) -> int:
        """How many windows."""
        return int(self.values.shape[0])

    @property
    def length(self) -> int:
        """Steps of each window."""
        return int(self.values.shape[1])

    @property
    def flat(self) -> FloatArray:
        """Each window as one row, shape (n, length · features)."""
        return self.values.reshape(self.count, -1)

    @cached_property
    def changes(self) -> FloatArray:
        """Return the changes of all features from step to step, or the values where prices are changes already."""
        return self.values if self.in_changes else np.diff(self.values, axis=1)

    @cached_property
    def moves(self) -> FloatArray:
        """Return the features as they enter correlations, one step shorter: prices as changes, others as they are."""
        moves = self.values[:, 1:].copy()
        for at, name in enumerate(self.names):
            if name.rpartition(":")[2].lower() in PRICES and not self.in_changes:
                moves[:, :, at] = np.diff(self.values[:, :, at], axis=1)
        return moves

    def thinned(self, most: int) -> Self:
        """Return at most `most` windows, equally spaced, the first and the last among them."""
        if self.count <= most:
            return self
        return self.at(np.linspace(0, self.count - 1, most).round().astype(np.int64))

    def at(self, positions: IntArray) -> Self:
        """Return the windows at some positions, in that order."""
        whole, places = self.rooted
        return replace(self, values=self.values[positions], origin=(whole, places[positions]))

    @property
    def rooted(self) -> tuple[Windows, IntArray]:
        """The set that they were taken from, and their positions in it; themselves where they are that set."""
        return self.origin or (self, np.arange(self.count))

    def alone(self) -> Self:
        """Return the same windows as a set of their own, which knows nothing of where they come from."""
        return replace(self, origin=None)


def scaled(train: Windows, *others: Windows) -> tuple[Windows, ...]:
    """Return `train` and the others with each feature mapped so that `train` spans [0, 1]; a constant one becomes 0."""
    low, high = train.values.min(axis=(0, 1)), train.values.max(axis=(0, 1))
    span = np.where(high > low, high - low, 1.0)
    return tuple(replace(each, values=(each.values - low) / span, origin=None) for each in (train, *others))
