"""The best levels of the book at the labels of a grid, as columns that can be turned back into a book.

Per side and level k = 1 … 5 the size that stands there, and from level 2 on the distance of its price from that of the
level before it, a tick at least. With mid and spread these are the whole ladder: prices in order whatever the numbers.
What belongs here: these columns and the book that they mean. What does not: learning them (`generators.book_dcgan`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synth_pipeline.features.buckets import Columns, ratio
from synth_pipeline.schema import Scale
from synth_pipeline.series import FloatArray, IntArray

LEVELS = 5
SIDES = ("bid", "ask")
NAMES = tuple(
    name
    for side in SIDES
    for name in (
        *(f"{side}_size_{level}" for level in range(1, LEVELS + 1)),
        *(f"{side}_gap_{level}" for level in range(2, LEVELS + 1)),
    )
)


def book_columns(ladder: Columns, labels_ns: IntArray, scale: Scale) -> dict[str, FloatArray]:
    """Return the columns of `NAMES` in market units at labels: what the last event before each left.

    `ladder` is as `features.depth.depth_columns` takes it. NaN before the first event, and where a side shows fewer
    than five levels.
    """
    events = np.searchsorted(ladder["recv_ns"], labels_ns) - 1
    out = {name: np.full(len(labels_ns), np.nan) for name in NAMES}
    if not len(ladder["recv_ns"]) or ladder["bid_size"].shape[1] < LEVELS:
        return out
    whole = (ladder["bid_size"][events, :LEVELS] > 0).all(axis=1) & (ladder["ask_size"][events, :LEVELS] > 0).all(
        axis=1
    )
    known = np.flatnonzero((events >= 0) & whole)
    tick, lot = ratio(scale.tick_size), ratio(scale.lot_size)
    for side in SIDES:
        sizes = ladder[f"{side}_size"][events[known], :LEVELS] * lot[0] / lot[1]
        gaps = np.abs(np.diff(ladder[f"{side}_price"][events[known], :LEVELS], axis=1)) * tick[0] / tick[1]
        for level in range(LEVELS):
            out[f"{side}_size_{level + 1}"][known] = sizes[:, level]
            if level:
                out[f"{side}_gap_{level + 1}"][known] = gaps[:, level - 1]
    return out


def ladder_prices(columns: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the prices of bids and asks that `mid`, `spread` and the gaps mean, each of shape (…, levels)."""
    sides = []
    for side, sign in zip(SIDES, (-1, 1), strict=True):
        best = columns["mid"] + sign * columns["spread"] / 2
        gaps = np.stack([columns[f"{side}_gap_{level}"] for level in range(2, LEVELS + 1)], axis=-1)
        behind = np.concatenate((np.zeros_like(gaps[..., :1]), gaps.cumsum(axis=-1)), axis=-1)
        sides.append(best[..., np.newaxis] + sign * behind)
    return sides[0], sides[1]
