"""`Series`: the array that generators fit and sample, and that fidelity compares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Series:
    """Equally spaced observations in market units.

    A series without gaps is finite throughout; a gap of the recording is a row of NaN, never a bridged value.
    """

    values: FloatArray
    """Shape (paths, steps, features)."""
    names: tuple[str, ...]
    """Feature names, grid-feature or bar columns: `mid` or `close` is the price."""
    step_ns: int
    """Distance of two steps."""
    start_ns: IntArray
    """Label of the first step of each path, shape (paths,)."""
    tick_size: float
    """Price of one tick; 0 when prices have no grid."""
    lot_size: float = 0.0
    """Size of one lot; 0 when sizes have no grid."""

    def __post_init__(self) -> None:
        shape = self.values.shape
        if self.values.ndim != 3 or shape[2] != len(self.names) or self.start_ns.shape != shape[:1]:
            raise InputError(
                f"a series of shape {shape} does not fit {len(self.names)} names and "
                f"{self.start_ns.shape} start times: shape must be (paths, steps, features)"
            )

    @property
    def paths(self) -> int:
        """How many paths."""
        return int(self.values.shape[0])

    @property
    def steps(self) -> int:
        """How many steps each path has."""
        return int(self.values.shape[1])

    def column(self, name: str) -> FloatArray:
        """Return one feature, shape (paths, steps). Raises `InputError` for a name the series lacks."""
        if name not in self.names:
            raise InputError(f"series has no column {name!r}: it holds {', '.join(self.names)}")
        return self.values[:, :, self.names.index(name)]

    @property
    def price_name(self) -> str:
        """The column that is the price: `mid` of grid features, `close` of bars."""
        for name in ("mid", "close"):
            if name in self.names:
                return name
        raise InputError(f"series has no price column (mid or close): it holds {', '.join(self.names)}")

    def log_returns(self) -> FloatArray:
        """Return log price changes, shape (paths, steps - 1); NaN where either price is."""
        return np.diff(np.log(self.column(self.price_name)), axis=1)

    def select(self, names: tuple[str, ...]) -> Self:
        """Return the series with these columns only, in this order."""
        values = np.stack([self.column(name) for name in names], axis=2)
        return replace(self, values=values, names=names)

    def slice(self, start: int, stop: int) -> Self:
        """Return steps start..stop (half open) of every path."""
        return replace(self, values=self.values[:, start:stop], start_ns=self.start_ns + start * self.step_ns)
