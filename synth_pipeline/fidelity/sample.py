"""`Sample`: what a metric sees of a series, its log-returns cut to equal lengths.

Every rule about gaps, bad prices and lengths lives here, so that a metric is about its statistic alone. Nothing here
compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from synth_pipeline.fidelity.once import Once
from synth_pipeline.series import FloatArray, IntArray, Series


def log_returns(price: FloatArray) -> FloatArray:
    """Return the log-returns of prices along the last axis; a price that is not positive and finite counts as a gap."""
    usable = np.isfinite(price) & (price > 0)
    return np.diff(np.log(price if usable.all() else np.where(usable, price, np.nan)), axis=-1)


@dataclass(frozen=True, eq=False)
class Sample(Once):
    """Log-returns of one source; NaN where a gap (or a price that has no logarithm) hides one."""

    returns: FloatArray
    """Shape (paths, steps)."""
    resolution: float = 0.0
    """Log-return of one tick at the typical price; 0 when prices have no grid."""

    @classmethod
    def of(cls, series: Series) -> Self:
        """Take the log-returns of a series' price; a price that is not positive and finite counts as a gap."""
        price = series.column(series.price_name)
        usable = np.isfinite(price) & (price > 0)
        typical = float(np.median(price[usable])) if series.tick_size and usable.any() else np.inf
        return cls(log_returns(price), series.tick_size / typical)

    @property
    def paths(self) -> int:
        """How many paths."""
        return int(self.returns.shape[0])

    @cached_property
    def counts(self) -> IntArray:
        """How many returns of each path are known, shape (paths,)."""
        counts: IntArray = np.isfinite(self.returns).sum(axis=1, dtype=np.int64)
        return counts

    @cached_property
    def pooled(self) -> FloatArray:
        """Every known return, path after path."""
        return self.returns[np.isfinite(self.returns)]

    @cached_property
    def ordered(self) -> FloatArray:
        """Every known return, from the lowest on."""
        return np.sort(self.pooled)

    @cached_property
    def ranked(self) -> IntArray:
        """Where in `in_a_row` the known returns are, from the lowest on."""
        return np.argsort(self.in_a_row, kind="stable")[: self.pooled.size]

    @cached_property
    def in_a_row(self) -> FloatArray:
        """All paths one after the other, a gap between any two."""
        gap = np.full((self.paths, 1), np.nan)
        return np.concatenate([self.returns, gap], axis=1).ravel()

    def trimmed(self) -> Self:
        """Leave out the steps before the first return that any path knows, and those after the last."""
        is_known = np.isfinite(self.returns)
        known = np.flatnonzero(is_known.any(axis=(0, *range(2, is_known.ndim))))
        return replace(self, returns=self.returns[:, known[0] : known[-1] + 1]) if known.size else self

    def windows(self, length: int) -> Self:
        """Cut every path into windows of `length` returns, side by side; a rest at the path's start is left out."""
        count = self.returns.shape[1] // length
        kept = self.returns[:, self.returns.shape[1] - count * length :]
        return replace(self, returns=kept.reshape(-1, length))

    def bundled(self, count: int) -> Self:
        """Put `count` paths after each other, a gap between any two, to make one; a rest at the end is left out."""
        kept = self.returns[: self.paths // count * count]
        gaps = np.full((kept.shape[0], 1, *kept.shape[2:]), np.nan)
        joined = np.concatenate([kept, gaps], axis=1)
        whole = joined.reshape(-1, count * joined.shape[1], *kept.shape[2:])
        return replace(self, returns=whole[:, :-1])

    def thinned(self, most: int) -> Self:
        """Return at most `most` paths, equally spaced, the first and the last among them."""
        if self.paths <= most:
            return self
        return self.at(np.linspace(0, self.paths - 1, most).round().astype(np.int64))

    def at(self, positions: IntArray) -> Self:
        """Return the paths at some positions, in that order."""
        return replace(self, returns=self.returns[positions])

    @cached_property
    def one_by_one(self) -> tuple[Self, ...]:
        """Every path by itself; the same samples for every metric, so that what one finds of a path others know."""
        return tuple(replace(self, returns=self.returns[index : index + 1]) for index in range(self.paths))

    def with_at_least(self, count: int) -> Self:
        """Return the paths that hold at least `count` known returns."""
        return self if (self.counts >= count).all() else replace(self, returns=self.returns[self.counts >= count])
