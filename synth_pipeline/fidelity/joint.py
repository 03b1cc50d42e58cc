"""`JointSample`: what a metric of dependence sees of a series of several assets, their log-returns at the same times.

A return counts where every asset has one; elsewhere all are NaN, so that whoever asks for gaps may look at any asset.
Nothing here compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import FloatArray, IntArray, Series


@dataclass(frozen=True, eq=False)
class JointSample(Sample):
    """Log-returns of several assets; `returns` has shape (paths, steps, assets)."""

    @classmethod
    def of(cls, series: Series) -> Self:
        """Take the log-returns of every asset of a series."""
        returns = np.stack([Sample.of(part).returns for part in series.parts().values()], axis=2)
        returns[~np.isfinite(returns).all(axis=2)] = np.nan
        return cls(returns)

    @cached_property
    def counts(self) -> IntArray:
        """How many returns of each path are known, shape (paths,)."""
        counts: IntArray = np.isfinite(self.returns[:, :, 0]).sum(axis=1, dtype=np.int64)
        return counts

    @cached_property
    def in_a_row(self) -> FloatArray:
        """All paths one after the other, a gap between any two, shape (steps, assets)."""
        return np.pad(self.returns, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, self.assets)

    @property
    def assets(self) -> int:
        """How many assets."""
        return int(self.returns.shape[2])

    def windows(self, length: int) -> Self:
        """Cut every path into windows of `length` returns, side by side; a rest at the path's start is left out."""
        count = self.returns.shape[1] // length
        kept = self.returns[:, self.returns.shape[1] - count * length :]
        return replace(self, returns=kept.reshape(-1, length, self.assets))
