"""The calibration of the embedded market: parameters fitted on real captures, in `calibration.json`, with provenance.

The file holds four things: where everything is from (`provenance`), the queue-reactive order flow (`flow`: its law, and
its rates once more by name with standard errors), how full the book is (`book`), and pace and news
(`efficient_price`). `benchmarks/embedded_market.py --write` makes it anew. Tables of quantiles are stored with fewer
points than they are drawn from; no order and no book of a capture is in it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.market.efficient_price import Driven, EfficientLaw
from synth_pipeline.market.engine import ASK, BID
from synth_pipeline.market.flows import saving
from synth_pipeline.market.flows.calibrated import Opening
from synth_pipeline.market.flows.placement import distances_up_to
from synth_pipeline.market.flows.queue_law import Law
from synth_pipeline.market.flows.queue_reactive import QueueReactive
from synth_pipeline.market.flows.sizes import POINTS
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.rng import per_path
from synth_pipeline.schema import Scale
from synth_pipeline.series import FloatArray, IntArray

PATH = Path(__file__).with_name("calibration.json")
STORED_POINTS = 32
"""Of each table of quantiles; divides `POINTS`."""
_TABLES = ("ahead", "sizes.tables", "shares", "makers")
_CLASS_OF = "grid.distances.class_of"
_LEAST_REACHES = 4
"""Reaches of the flow that a price is from zero at least: else orders find no room, and moves are no longer small."""


class Fullness(NamedTuple):
    """How a book is filled on average, by class of distance behind the best price."""

    best: IntArray
    """Quantiles of the lots at the best price, shape (points,)."""
    shares: FloatArray
    """Of prices at which something rests, shape (classes,)."""
    lots: IntArray
    """Quantiles of what rests there, shape (classes, points)."""


class Calibration(NamedTuple):
    """What `calibration.json` says."""

    law: Law
    fullness: Fullness
    reach: int
    """Ticks from the other side's best price within which orders are placed."""
    unit: float
    """Lots of a usual order."""
    efficient: EfficientLaw


@lru_cache(maxsize=1)
def calibration() -> Calibration:
    """Read the calibration that comes with the package."""
    stored = json.loads(PATH.read_text(encoding="utf-8"))
    flow, book, efficient = stored["flow"], stored["book"], stored["efficient_price"]
    return Calibration(
        law=restored(flow["law"], flow["reach"]),
        fullness=Fullness(*(np.array(book[name]) for name in Fullness._fields)),
        reach=flow["reach"],
        unit=flow["unit"],
        efficient=_efficient(efficient),
    )


def _efficient(stored: dict[str, Any]) -> EfficientLaw:
    day, variances, half_lives = (np.array(stored[name]) for name in ("day", "variances", "half_lives_s"))
    return EfficientLaw(stored["level"], day, variances, half_lives, stored["news_per_day"], stored["news_scale"])


def stored(law: Law) -> dict[str, Any]:
    """Return a law as JSON takes it: numbers to four digits, tables thinned out."""
    arrays = saving.packed(law)
    del arrays[_CLASS_OF]
    for name in _TABLES:
        arrays[name] = thinned(arrays[name])
    return {name: plain(array) for name, array in arrays.items()}


def restored(law: dict[str, Any], reach: int) -> Law:
    """Return the law of what `stored` returned."""
    arrays = {name: np.array(values) for name, values in law.items()}
    for name in _TABLES:
        arrays[name] = np.repeat(arrays[name], POINTS // STORED_POINTS, axis=-1)
    arrays[_CLASS_OF] = distances_up_to(reach).class_of
    made: Law = saving.unpacked(Law, arrays)
    return made


def thinned(table: IntArray | FloatArray) -> IntArray | FloatArray:
    """Return `STORED_POINTS` of the points of tables of quantiles; the last is the mean of its share."""
    shares = table.reshape(*table.shape[:-1], STORED_POINTS, -1)
    kept = shares[..., shares.shape[-1] // 2].copy()
    kept[..., -1] = shares[..., -1, :].mean(axis=-1)
    return kept


def plain(array: np.ndarray) -> Any:
    """Return an array as lists of numbers, of four digits where they are no integers."""
    if array.dtype.kind == "f":
        array = np.array([float(f"{each:.4g}") for each in array.ravel()]).reshape(array.shape)
    return array.tolist()


def embedded_market(parameters: Parameters, start_ns: int, rng: np.random.Generator) -> Driven:
    """Return the market, just opened. Raises `InputError` for a price of too few ticks."""
    known, rngs = calibration(), per_path(rng, 3)
    law = known.efficient._replace(level=known.efficient.level * parameters.pace)
    return Driven(default_flow(parameters, rngs[0]), law, start_ns, float(parameters.tick_size), rngs[1:])


def default_flow(parameters: Parameters, rng: np.random.Generator) -> QueueReactive:
    """Return the calibrated flow with an opening book. Raises `InputError` for a price of too few ticks."""
    known = calibration()
    centre, least = round(parameters.start_price / float(parameters.tick_size)), _LEAST_REACHES * known.reach
    if centre < least:
        raise InputError(
            f"start_price {parameters.start_price:g} is {centre} ticks of {parameters.tick_size}: "
            f"choose a tick_size that makes it at least {least}"
        )
    scale = Scale(parameters.tick_size, parameters.lot_size)
    return _Fitted(known.law, Opening(_levels(known, centre, rng), scale, known.reach, 1.0, known.unit))


class _Fitted(QueueReactive):
    """The flow of a law that was fitted elsewhere."""

    def __init__(self, law: Law, opening: Opening) -> None:
        super().__init__()
        self._law, self._opening = law, opening


def _levels(known: Calibration, centre: int, rng: np.random.Generator) -> IntArray:
    """Return a book as full as on average, rows (side, price, lots), around a spread of one tick."""
    full, classes = known.fullness, known.law.grid.distances.class_of[1 : known.reach]
    points = full.best.size
    rows = []
    for side, sign in ((BID, -1), (ASK, 1)):
        taken = np.flatnonzero(rng.random(classes.size) < full.shares[classes])
        lots = full.lots[classes[taken], rng.integers(0, points, taken.size)]
        best = centre + side
        rows.append([(side, best, int(full.best[rng.integers(0, points)]))])
        rows.append(np.column_stack((np.full(taken.size, side), best + sign * (taken + 1), lots)).tolist())
    return np.array([row for part in rows for row in part], dtype=np.int64)
