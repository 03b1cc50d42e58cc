"""The columns beside the price: rows of history, resampled to go with a simulated price path.

A price process says how the price moves. Spread, volume and imbalance (of grid features) or opens, highs, lows and
volume (of bars) are taken from history, one row a step, so that they have its joint law exactly. The row of step t is

- one whose own return lies in the same class as the simulated return (classes are twenty equally filled ones, and one
  of zero returns), which keeps what volume, spread and the shape of a bar have to do with the size and sign of a move;
- of these, among 64 drawn at random and the row that follows in history, the one that is nearest in two things: its
  *predecessor* to the row of step t - 1, and its recent activity (an exponential mean of the size of returns) to the
  activity of the simulated path. This is the nearest-neighbour bootstrap of Lall and Sharma (1996), Water Resources
  Research 32, sections 3-4, with one neighbour of a random subset; distances are between ranks, a column counts as
  far as its ranks depend on the row before, and activity as much as one column.

What comes out is lawful by construction: sizes are those of history; a spread fits its mid, because the mid is the
nearest price to where the process is that has the spread's parity; a bar is an open relative to the close before, and
wicks above and below open and close, so low ≤ open, close ≤ high, rounded or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numba
import numpy as np
from scipy import stats

from synth_pipeline.errors import InputError
from synth_pipeline.features.ohlc import BARS, bars_of, shape_of
from synth_pipeline.features.transforms import Anchor, on_grid
from synth_pipeline.features.windows import segments
from synth_pipeline.series import FloatArray, IntArray, Series

_CLASSES, _CANDIDATES, _MEMORY = 20, 64, 0.9
_RESTING = 1e-300


@numba.njit(cache=True)
def resampled(
    rng: np.random.Generator,
    wanted_classes: IntArray,
    wanted_activity: FloatArray,
    ordered: IntArray,
    firsts: IntArray,
    class_of: IntArray,
    features: FloatArray,
    activity: FloatArray,
    row: int,
) -> IntArray:
    """Return a row of history for every simulated return, the first chosen to follow `row`.

    `ordered` lists the rows that have a return, by return; class c owns ordered[firsts[c]:firsts[c + 1]]. `class_of`
    is -1 for rows without a return. Nearness is measured on `features`, shape (rows, features), and `activity`.
    """
    rows = np.empty(len(wanted_classes), dtype=np.int64)
    for t in range(len(wanted_classes)):
        wanted = wanted_classes[t]
        low, high = firsts[wanted], firsts[wanted + 1]
        if low == high:
            low, high = max(low - 1, 0), min(high + 1, len(ordered))
        nearest, best = np.inf, -1
        if row + 1 < len(class_of) and class_of[row + 1] == wanted:
            nearest, best = (activity[row + 1] - wanted_activity[t]) ** 2, row + 1
        for _ in range(_CANDIDATES):
            candidate = ordered[low + int(rng.random() * (high - low))]
            distance = (activity[candidate] - wanted_activity[t]) ** 2
            for feature in range(features.shape[1]):
                distance += (features[candidate - 1, feature] - features[row, feature]) ** 2
            if distance < nearest:
                nearest, best = distance, candidate
        rows[t] = row = best
    return rows


@numba.njit(cache=True)
def recent_activity(returns: FloatArray, level: float) -> FloatArray:
    """Return the exponential mean of the size of returns, from `level` on; what is NaN leaves it as it is."""
    levels = np.empty(len(returns))
    for t in range(len(returns)):
        if np.isfinite(returns[t]):
            level = _MEMORY * level + (1.0 - _MEMORY) * abs(returns[t])
        levels[t] = level
    return levels


@dataclass(frozen=True, eq=False)
class Companions:
    """History of the columns beside the price; empty arrays where the price stands alone."""

    anchor: Anchor
    values: FloatArray
    """Columns other than the price, rows without a gap, shape (rows, columns): of bars as `shape_of` gives them."""
    returns: FloatArray
    """Log-return into each row; NaN after a gap."""

    @classmethod
    def of(cls, series: Series, most_rows: int) -> Self:
        """Take the latest `most_rows` rows off a series. Raises `InputError` for bars with prices not above 0."""
        anchor = Anchor.of(series)
        others = [name for name in series.names if name != series.price_name]
        if not others:
            return cls(anchor, np.empty((0, 0)), np.empty(0))
        pieces, returns = [], []
        for path, start, stop in segments(series):
            if stop - start < 2:
                continue
            rows = dict(zip(series.names, series.values[path, start:stop].T, strict=True))
            moves = np.diff(np.log(rows[series.price_name]), prepend=np.nan)
            rows |= _shape(rows) if series.price_name == "close" else {}
            pieces.append(np.stack([rows[name] for name in others], axis=1))
            returns.append(moves)
        return cls(anchor, np.concatenate(pieces)[-most_rows:], np.concatenate(returns)[-most_rows:])

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of `values`."""
        return tuple(name for name in self.anchor.names if name != self.anchor.price_name)

    @cached_property
    def _classes(self) -> tuple[FloatArray, IntArray, IntArray, IntArray, FloatArray, FloatArray]:
        """Edges of the classes of returns, four arguments of `resampled`, and activity in market units."""
        known = np.flatnonzero(np.isfinite(self.returns))
        known = known[known > 0]
        edges = np.unique(np.quantile(self.returns[known], np.arange(1, _CLASSES) / _CLASSES))
        if (self.returns[known] == 0).any():
            edges = np.union1d(edges, [-_RESTING, 0.0])
        ordered = known[np.argsort(self.returns[known], kind="stable")]
        firsts = np.searchsorted(self.returns[ordered], edges, side="right")
        class_of = np.full(len(self.returns), -1)
        class_of[known] = np.searchsorted(edges, self.returns[known])
        ranks = np.asarray(stats.rankdata(self.values, axis=0)) / len(self.values)
        ranks *= persistence(ranks)
        activity = recent_activity(self.returns, float(np.nanmean(np.abs(self.returns))))
        return edges, ordered, np.concatenate(([0], firsts, [len(known)])), class_of, ranks, activity

    @cached_property
    def _ladder(self) -> tuple[FloatArray, FloatArray]:
        """Activities in order, and the rank of every row's."""
        activity = self._classes[-1]
        ladder = np.sort(activity)
        return ladder, np.searchsorted(ladder, activity) / len(ladder)

    def _choose(self, moves: FloatArray, rng: np.random.Generator, row: int, active: float) -> tuple[IntArray, float]:
        """Return the row of history that goes with each simulated return, and the activity after them.

        `row` and `active` are those of the step before.
        """
        edges, ordered, firsts, class_of, features, _ = self._classes
        ladder, ranks = self._ladder
        levels = recent_activity(moves, active)
        wanted = np.searchsorted(ladder, levels) / len(ladder)
        classes = np.searchsorted(edges, moves)
        rows = resampled(rng, classes, wanted, ordered, firsts, class_of, features, ranks, row)
        return rows, float(levels[-1]) if len(levels) else active

    def join(self, moves: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return a path in market units, shape (steps, columns), for log prices relative to the last fitted one.

        Row 0 is the last fitted row; `moves[0]` is 0.
        """
        return next(self.joined(iter((moves,)), rng))

    def joined(self, pieces: Iterator[FloatArray], rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield such a path in pieces; each of `pieces` but the first begins with the last log price of the one before.

        However a path is cut, it is the same.
        """
        row, active = len(self.returns) - 1, float(self._classes[-1][-1]) if self.names else 0.0
        for at, moves in enumerate(pieces):
            prices = self.anchor.prices(moves)
            rows = np.empty(0, dtype=np.int64)
            if self.names:
                rows, active = self._choose(np.diff(np.log(prices)), rng, row, active)
            table = self.table(moves, prices, np.append(row, rows))
            row = int(rows[-1]) if len(rows) else row
            yield table[1:] if at else table

    def table(self, moves: FloatArray, prices: FloatArray, rows: IntArray) -> FloatArray:
        """Return market units of steps with these log prices, prices and rows of history; step 0 is known already."""
        if not self.names:
            return prices[:, np.newaxis]
        columns = dict(zip(self.names, self.values[rows].T, strict=True))
        columns[self.anchor.price_name] = prices
        if self.anchor.price_name == "close":
            columns |= self._bars(columns)
        elif "spread" in columns:
            columns |= self._quotes(moves, columns["spread"])
        return np.stack([columns[name] for name in self.anchor.names], axis=1)

    def _quotes(self, moves: FloatArray, spread: FloatArray) -> dict[str, FloatArray]:
        """Return mids and spreads that fit each other; the first spread gives way where the last price asks for it."""
        tick = self.anchor.tick_size
        if not tick:
            return {}
        ticks = np.maximum(np.rint(spread / tick), 1.0)
        start = max(np.rint(2 * self.anchor.price / tick), 1.0)
        ticks[0] += (ticks[0] - start) % 2
        quotes = self.anchor.quotes(moves, ticks)
        quotes["mid"][:1] = on_grid(np.array([start]), tick / 2)
        return quotes

    def _bars(self, columns: dict[str, FloatArray]) -> dict[str, FloatArray]:
        """Return opens, highs and lows around the closes."""
        close = columns["close"]
        before = np.append(close[0] * np.exp(-np.nan_to_num(self.returns[-1])), close[:-1])
        return bars_of({name: columns[name] for name in BARS if name in columns}, close, before, self.anchor.nearest)


def persistence(ranks: FloatArray) -> FloatArray:
    """Return the lag-one autocorrelation of every column, 0 where it is negative or the column constant."""
    centred = ranks - ranks.mean(axis=0)
    power = np.maximum((centred**2).sum(axis=0), 1e-12)
    return np.asarray(np.maximum((centred[1:] * centred[:-1]).sum(axis=0) / power, 0.0))


def _shape(rows: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return a stretch of bars as log distances; the first bar opens without a gap."""
    for name in BARS:
        if name in rows and rows[name].min() <= 0:
            raise InputError(f"{name} holds {rows[name].min():g}: log-returns need positive prices; mend the input")
    close = rows["close"]
    return shape_of(rows, np.append(rows.get("open", close)[0], close[:-1]))
