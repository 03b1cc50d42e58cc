"""What the columns of a dataset are, and the grid that each lies on.

A column of several assets is `ASSET:column`; what it is says the part after the colon.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from synth_pipeline.series import Asset

BARS = ("open", "high", "low", "close")
BAR_PRICES = frozenset(BARS)
SIZES = frozenset(
    {"volume", "signed_volume", "ofi", *(f"ofi_{level}" for level in range(1, 6)), "depth_added", "depth_removed"}
)
"""In lots."""
COUNTS = frozenset({"trade_count", "quote_count", "flags"})
_TICKS = BAR_PRICES | {"spread", "last_price"}


class Gridded(Protocol):
    """A series, or a dataset."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""

    @property
    def tick_size(self) -> float:
        """Price of one tick; 0 without a grid."""

    @property
    def lot_size(self) -> float:
        """Size of one lot; 0 without a grid."""

    @property
    def assets(self) -> tuple[Asset, ...]:
        """Assets with grids of their own; empty for one market."""


@dataclass(frozen=True)
class Market:
    """The columns of one asset, and its grids."""

    asset: str
    """Empty where there is only one."""
    columns: dict[str, int]
    """Position by name, the name without the asset."""
    tick_size: float
    lot_size: float

    def step_of(self, name: str) -> float:
        """Distance of two possible values of a column; 0 where there is none. A mid lies half way between two ticks."""
        if name == "mid":
            return self.tick_size / 2
        if name in _TICKS:
            return self.tick_size
        if name in SIZES:
            return self.lot_size
        return 1.0 if name in COUNTS else 0.0


def markets(like: Gridded) -> tuple[Market, ...]:
    """Return the market of every asset, in order."""
    if not like.assets:
        return (Market("", _positions(enumerate(like.names)), like.tick_size, like.lot_size),)
    split = [name.partition(":") for name in like.names]
    return tuple(
        Market(
            asset.name,
            _positions((at, column) for at, (owner, _, column) in enumerate(split) if owner == asset.name),
            asset.tick_size,
            asset.lot_size,
        )
        for asset in like.assets
    )


def _positions(numbered: Iterable[tuple[int, str]]) -> dict[str, int]:
    return {name: at for at, name in numbered}
