"""Distances: how far, in ticks, an order lies from the best price of the other side, in classes that widen.

A distance is 1 for the most aggressive price that does not trade. The first `_SINGLES` distances stand alone, the
further ones share classes that are each a quarter wider than the one before, up to the reach of the model; what lies
beyond belongs to the last class and receives no new orders.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.market.book import BID, Book
from synth_pipeline.market.compiling import kernel
from synth_pipeline.series import FloatArray, IntArray

_SINGLES = 6
_GROWTH = 1.25
_LONGEST = 2**14
_SHARE = 0.95
_FEW_LEVELS, _BEYOND = 10, 8
_STEPS = 50


class Distances(NamedTuple):
    """Classes of distances: class c holds edges[c] … edges[c + 1] - 1."""

    edges: IntArray
    """Shape (classes + 1,), from 1 to the reach + 1."""
    class_of: IntArray
    """Shape (reach + 1,): class of each distance; entry 0 is class 0."""

    @property
    def names(self) -> list[str]:
        """First and last distance of each class, as in `7_9`."""
        bounds = zip(self.edges[:-1].tolist(), (self.edges[1:] - 1).tolist(), strict=True)
        return [f"{low}" if low == high else f"{low}_{high}" for low, high in bounds]

    @property
    def middles(self) -> FloatArray:
        """The geometric middle of each class."""
        return np.asarray(np.sqrt(self.edges[:-1] * (self.edges[1:] - 1.0)))


def distances_up_to(reach: int) -> Distances:
    """Return the classes of distances 1 … reach."""
    edges = [1]
    while edges[-1] <= reach:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _GROWTH)) if len(edges) > _SINGLES else edges[-1] + 1)
    edges[-1] = reach + 1
    if len(edges) > _SINGLES + 2 and edges[-1] - edges[-2] < (edges[-2] - edges[-3]) // 2:
        del edges[-2]
    bounds = np.array(edges, dtype=np.int64)
    classes = np.searchsorted(bounds, np.arange(reach + 1), side="right") - 1
    return Distances(bounds, np.maximum(classes, 0).astype(np.int64))


def reach_of(distances: IntArray, depth: int) -> int:
    """Return the reach that holds 95 % of the distances of limit orders, at most 16,384 ticks.

    Of a source that shows few levels (`depth`, 0 for all) it is eight times as far, so that a book stands behind them.
    """
    seen = max(float(np.quantile(distances, _SHARE)), 2.0)
    return int(min(seen * _BEYOND if 0 < depth < _FEW_LEVELS else seen, _LONGEST))


@kernel
def class_at(distances: Distances, distance: int) -> int:
    """Return the class of a distance; of one below 1 the first, of one beyond the reach the last."""
    return int(distances.class_of[min(max(distance, 0), distances.class_of.size - 1)])


@kernel
def draw_distance(distances: Distances, cumulative: FloatArray, rng: np.random.Generator) -> int:
    """Draw a distance: a class by its cumulative probabilities, then any tick of it."""
    which = min(int(np.searchsorted(cumulative, rng.random(), side="right")), cumulative.size - 1)
    low, high = distances.edges[which], distances.edges[which + 1]
    return int(low + int(rng.random() * (high - low)))


@kernel
def on_tick(book: Book, side: int, price: int) -> int:
    """Return the next price of the instrument's tick away from the market; the price itself where it is one."""
    tick = book.rules[0].tick
    if tick == 1:
        return price
    return int(price - price % tick if side == BID else price + -price % tick)


class PowerLaw(NamedTuple):
    """Rates that fall with distance as scale · d^-exponent."""

    scale: float
    exponent: float
    error: float
    """Standard error of the exponent."""


def power_law(distances: Distances, counts: FloatArray, exposures: FloatArray) -> PowerLaw:
    """Return the most likely power law of Poisson counts by class, by Newton's method on (log scale, exponent)."""
    seen = exposures > 0
    place, happened, exposed = distances.middles[seen], counts[seen], exposures[seen]
    design = np.stack((np.ones(place.size), -np.log(place)))
    weights = happened + 0.5
    free = np.linalg.solve((design * weights) @ design.T, (design * weights) @ np.log(weights / exposed))
    for _ in range(_STEPS):
        expected = exposed * np.exp(free @ design)
        information = (design * expected) @ design.T
        step = np.linalg.solve(information, design @ (happened - expected))
        free += step / max(1.0, float(np.abs(step).max()))
    return PowerLaw(float(np.exp(free[0])), float(free[1]), float(np.sqrt(np.linalg.inv(information)[1, 1])))


def extended(
    distances: Distances, limits: FloatArray, cancels: FloatArray, seen: NDArray[np.bool_], placing: PowerLaw
) -> tuple[FloatArray, FloatArray]:
    """Return rates of limit orders and cancellations in which those of classes never seen go on from the last seen.

    Limit orders go on as a power law, of exponent 1 at least; cancellations in inverse proportion to the distance, as
    full books show them.
    """
    if seen.all():
        return limits, cancels
    last = int(np.flatnonzero(seen)[-1])
    ratio = distances.middles / distances.middles[last]
    limits, cancels = limits.copy(), cancels.copy()
    limits[~seen] = limits[last] * ratio[~seen] ** -max(placing.exponent, 1.0)
    cancels[~seen] = cancels[last] / ratio[~seen]
    return limits, cancels
