"""`Series`: the array that generators fit and sample, and that fidelity compares.

One of several assets is the series of each, side by side: `ASSET:column` names a column, `assets` holds the grids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Self

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_MARK = ":"


@dataclass(frozen=True)
class Asset:
    """One asset of a series of several: its name, and the grids of its prices and sizes."""

    name: str
    tick_size: float
    lot_size: float


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
    assets: tuple[Asset, ...] = ()
    """Of a series of several assets, each one: `names` are `ASSET:column`, asset after asset, and the series itself
    has no tick and no lot. Empty for the series of one market."""

    def __post_init__(self) -> None:
        shape = self.values.shape
        if self.values.ndim != 3 or shape[2] != len(self.names) or self.start_ns.shape != shape[:1]:
            raise InputError(
                f"a series of shape {shape} does not fit {len(self.names)} names and "
                f"{self.start_ns.shape} start times: shape must be (paths, steps, features)"
            )
        if self.assets:
            self._check_assets()

    def _check_assets(self) -> None:
        wanted = [asset.name for asset in self.assets]
        for name in wanted:
            if not name or _MARK in name:
                raise InputError(f"asset {name!r} cannot name columns: take a name that is not empty and without ':'")
        if stray := next((name for name in self.names if not name.partition(_MARK)[2]), None):
            raise InputError(f"column {stray!r} of a series of {', '.join(wanted)} is of none: name it ASSET:column")
        found = [asset for asset, _ in groupby(name.partition(_MARK)[0] for name in self.names)]
        if found != wanted or len(set(wanted)) < len(wanted):
            raise InputError(
                f"columns are of {', '.join(found)} and the assets are {', '.join(wanted)}: give every asset once, "
                f"with its columns together and in the same order"
            )
        if self.tick_size or self.lot_size:
            raise InputError(
                f"a series of {len(wanted)} assets has tick size {self.tick_size:g} and lot size {self.lot_size:g}: "
                f"leave both 0, every asset has its own"
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
        """The column that is the price: `mid` of grid features, `close` of bars. Raises `InputError` without one."""
        if self.assets:
            raise InputError(
                f"a series of {len(self.assets)} assets ({', '.join(asset.name for asset in self.assets)}) has no one "
                f"price: take one asset, or a generator of several"
            )
        for name in ("mid", "close"):
            if name in self.names:
                return name
        raise InputError(f"series has no price column (mid or close): it holds {', '.join(self.names)}")

    def log_returns(self) -> FloatArray:
        """Return log price changes, shape (paths, steps - 1); NaN where either price is."""
        return np.diff(np.log(self.column(self.price_name)), axis=1)

    def select(self, names: tuple[str, ...]) -> Self:
        """Return the series with these columns only, in this order; an asset without any is left out."""
        values = np.stack([self.column(name) for name in names], axis=2)
        grids = {asset.name: asset for asset in self.assets}
        kept = dict.fromkeys(name.partition(_MARK)[0] for name in names) if grids else {}
        return replace(self, values=values, names=names, assets=tuple(grids[name] for name in kept))

    def slice(self, start: int, stop: int) -> Self:
        """Return steps start..stop (half open) of every path."""
        return replace(self, values=self.values[:, start:stop], start_ns=self.start_ns + start * self.step_ns)

    def parts(self) -> dict[str, Series]:
        """Return the series of each asset by its name; `joined` puts them together again.

        Raises `InputError` for a series of one market, which has no parts.
        """
        if not self.assets:
            raise InputError("a series of one market has no parts: join several first")
        parts = {}
        for asset in self.assets:
            whole = tuple(name for name in self.names if name.partition(_MARK)[0] == asset.name)
            names = tuple(name.partition(_MARK)[2] for name in whole)
            at = self.names.index(whole[0])
            values = self.values[:, :, at : at + len(whole)]
            parts[asset.name] = Series(values, names, self.step_ns, self.start_ns, asset.tick_size, asset.lot_size)
        return parts

    @classmethod
    def joined(cls, parts: Mapping[str, Series]) -> Self:
        """Put series of one market each side by side, over the labels that all of them span.

        What one lacks within that span stays NaN in its columns, so such a row is a gap of the whole. Raises
        `InputError` for no parts, parts of several assets, steps or paths that differ, and spans without a common
        label.
        """
        if not parts:
            raise InputError("there is nothing to join: name at least one asset")
        series = list(parts.values())
        first, count = common_span(parts)
        step = series[0].step_ns
        cut = [
            np.stack([row[begin : begin + count] for row, begin in zip(each.values, skipped, strict=True)])
            for each in series
            for skipped in [(first - each.start_ns) // step]
        ]
        return cls(
            values=np.concatenate(cut, axis=2),
            names=tuple(f"{name}{_MARK}{column}" for name, each in parts.items() for column in each.names),
            step_ns=step,
            start_ns=first,
            tick_size=0.0,
            assets=tuple(Asset(name, each.tick_size, each.lot_size) for name, each in parts.items()),
        )


def common_span(parts: Mapping[str, Series]) -> tuple[IntArray, int]:
    """Return the first label that all parts span, shape (paths,), and over how many steps they do.

    Raises `InputError` as `Series.joined` says.
    """
    told, series = ", ".join(parts), list(parts.values())
    if any(each.assets for each in series):
        raise InputError(f"one of {told} is itself of several assets: join their parts")
    if len(steps := {each.step_ns for each in series}) > 1:
        shown = " and ".join(f"{step / 1e9:g} s" for step in sorted(steps))
        raise InputError(f"{told} have steps of {shown}: bring them to one timeframe before joining them")
    if len(paths := {each.paths for each in series}) > 1:
        raise InputError(f"{told} have {' and '.join(map(str, sorted(paths)))} paths: join series of equally many")
    starts = np.stack([each.start_ns for each in series])
    ends = starts + np.array([[each.steps] for each in series]) * series[0].step_ns
    if ((starts - starts[0]) % series[0].step_ns).any():
        raise InputError(f"{told} lie on grids that are shifted against each other: align their labels to one grid")
    first = starts.max(axis=0)
    counts = (ends.min(axis=0) - first) // series[0].step_ns
    if counts.min() < 1:
        raise InputError(f"{told} have no label in common: choose assets that were traded at the same time")
    if counts.min() != counts.max():
        raise InputError(f"{told} overlap for {counts.min()} to {counts.max()} steps: make all paths equally long")
    return first, int(counts[0])
