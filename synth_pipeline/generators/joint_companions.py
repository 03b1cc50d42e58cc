"""The columns beside the prices of several assets: rows of history of all of them at once.

`companions` takes a row of history for every step of one price. Here one and the same row serves every asset, so that
volumes and spreads swell together as they did. Its moves should be the simulated ones, which no row has exactly for
several assets: of 256 rows drawn at random from those in which the assets moved as far *on average* (twenty equally
filled classes of the mean normal score), and the row that follows in history, the nearest is taken, in

- the return of every asset, which counts `_WEIGHT` times as much as any other column,
- its predecessor, to the row of the step before, a column counting as far as its ranks depend on the row before,
- the recent activity of every asset, to that of the simulated path.

All distances are squared differences of ranks. How a row becomes spreads and bars is `companions`' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numba
import numpy as np
from scipy import special, stats

from synth_pipeline.features.transforms import Anchor
from synth_pipeline.features.windows import segments
from synth_pipeline.generators.companions import Companions, persistence, recent_activity
from synth_pipeline.series import FloatArray, IntArray, Series

_CLASSES, _CANDIDATES, _WEIGHT = 20, 256, 4.0


class Rows(NamedTuple):
    """Rows of history as `chosen` compares them."""

    ordered: IntArray
    """Those that have returns, class by class."""
    firsts: IntArray
    """Class c owns ordered[firsts[c]:firsts[c + 1]]."""
    returns: FloatArray
    """Ranks, shape (rows, assets); NaN where a row has none."""
    activity: FloatArray
    """Ranks, shape (rows, assets)."""
    features: FloatArray
    """Ranks times their persistence, shape (rows, columns of all assets)."""


@numba.njit(cache=True)
def chosen(
    rng: np.random.Generator, classes: IntArray, returns: FloatArray, activity: FloatArray, rows: Rows, row: int
) -> IntArray:
    """Return a row of history for every simulated step, the first chosen to follow `row`.

    `classes` has shape (steps,), `returns` and `activity` are ranks of shape (steps, assets).
    """
    found = np.empty(len(classes), dtype=np.int64)
    assets, columns = rows.returns.shape[1], rows.features.shape[1]
    for t in range(len(classes)):
        low, high = rows.firsts[classes[t]], rows.firsts[classes[t] + 1]
        if low == high:
            low, high = max(low - 1, 0), min(high + 1, len(rows.ordered))
        nearest, best = np.inf, -1
        for draw in range(_CANDIDATES + 1):
            if draw < _CANDIDATES:
                candidate = rows.ordered[low + int(rng.random() * (high - low))]
            else:
                candidate = row + 1
                if candidate == len(rows.returns) or np.isnan(rows.returns[candidate, 0]):
                    continue
            distance = 0.0
            for asset in range(assets):
                distance += _WEIGHT * (rows.returns[candidate, asset] - returns[t, asset]) ** 2
                distance += (rows.activity[candidate, asset] - activity[t, asset]) ** 2
            for column in range(columns):
                distance += (rows.features[candidate - 1, column] - rows.features[row, column]) ** 2
            if distance < nearest:
                nearest, best = distance, candidate
        found[t] = row = best
    return found


@dataclass(frozen=True, eq=False)
class JointCompanions:
    """History of the columns beside the prices of several assets, row by row the same time for all."""

    each: tuple[Companions, ...]
    returns: FloatArray
    """Log-returns into each row, shape (rows, assets); NaN after a gap."""

    @classmethod
    def of(cls, parts: Mapping[str, Series], most_rows: int) -> Self:
        """Take the latest `most_rows` rows off series of one market each, whose rows are known in all or in none.

        Raises `InputError` for bars with prices not above 0.
        """
        each = tuple(Companions.of(part, most_rows) for part in parts.values())
        moves = [
            np.concatenate([_returns(part, path, start, stop) for path, start, stop in segments(part)])[-most_rows:]
            for part in parts.values()
        ]
        return cls(each, np.stack(moves, axis=1))

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """Where each asset starts, and its grids."""
        return tuple(companions.anchor for companions in self.each)

    @cached_property
    def _known(self) -> FloatArray:
        """The returns of every asset in order, shape (known rows, assets)."""
        return np.sort(self.returns[np.isfinite(self.returns[:, 0])], axis=0)

    @cached_property
    def _activities(self) -> FloatArray:
        """Recent activity in market units, shape (rows, assets)."""
        levels = [recent_activity(moves, float(np.nanmean(np.abs(moves)))) for moves in self.returns.T]
        return np.stack(levels, axis=1)

    @cached_property
    def _ladders(self) -> FloatArray:
        return np.sort(self._activities, axis=0)

    @cached_property
    def _classes(self) -> tuple[FloatArray, Rows]:
        """Edges of the classes of mean moves, and the rows."""
        known = np.flatnonzero(np.isfinite(self.returns[:, 0]))
        known = known[known > 0]
        ranks = _ranks(self._known, self.returns)
        means = _mean_score(ranks[known])
        edges = np.unique(np.quantile(means, np.arange(1, _CLASSES) / _CLASSES))
        ordered = known[np.argsort(means, kind="stable")]
        firsts = np.searchsorted(np.sort(means), edges, side="right")
        features = np.concatenate([_features(each.values, len(self.returns)) for each in self.each], axis=1)
        bounds = np.concatenate(([0], firsts, [len(known)]))
        return edges, Rows(ordered, bounds, ranks, _ranks(self._ladders, self._activities), features)

    def _choose(
        self, returns: FloatArray, rng: np.random.Generator, row: int, active: FloatArray
    ) -> tuple[IntArray, FloatArray]:
        """Return the row that goes with each step, and the activity after them.

        `row` and `active` are those of the step before.
        """
        if not len(returns):
            return np.empty(0, dtype=np.int64), active
        edges, rows = self._classes
        levels = np.stack([recent_activity(moves, level) for moves, level in zip(returns.T, active, strict=True)], 1)
        ranks = _ranks(self._known, returns)
        classes = np.searchsorted(edges, _mean_score(ranks))
        return chosen(rng, classes, ranks, _ranks(self._ladders, levels), rows, row), levels[-1]

    def joined(self, pieces: Iterator[FloatArray], rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield a path in market units, in pieces of shape (steps, columns of all assets).

        `pieces` are log prices over the last fitted ones, shape (steps, assets); each but the first begins with the
        last ones of the piece before, the first with zeros: its first row is the last fitted one. However a path is
        cut, it is the same.
        """
        row, active = len(self.returns) - 1, self._activities[-1]
        for at, moves in enumerate(pieces):
            prices = np.stack([each.anchor.prices(own) for each, own in zip(self.each, moves.T, strict=True)], axis=1)
            rows, active = self._choose(np.diff(np.log(prices), axis=0), rng, row, active)
            taken = np.append(row, rows)
            row = int(taken[-1])
            tables = [each.table(moves[:, i], prices[:, i], taken) for i, each in enumerate(self.each)]
            yield np.concatenate(tables, axis=1)[1 if at else 0 :]


def _returns(part: Series, path: int, start: int, stop: int) -> FloatArray:
    if stop - start < 2:
        return np.empty(0)
    return np.diff(np.log(part.column(part.price_name)[path, start:stop]), prepend=np.nan)


def _ranks(ladders: FloatArray, values: FloatArray) -> FloatArray:
    """Return where values lie among sorted ones, equal ones in their middle; shapes (…, assets), NaN stays NaN."""
    ranks = np.empty(values.shape)
    for asset, ladder in enumerate(ladders.T):
        ends = [np.searchsorted(ladder, values[:, asset], side=side) for side in ("left", "right")]
        ranks[:, asset] = (ends[0] + ends[1]) / (2 * len(ladder))
    ranks[np.isnan(values)] = np.nan
    return ranks


def _mean_score(ranks: FloatArray) -> FloatArray:
    """Return the mean normal score of the assets' moves, shape (steps,)."""
    scores = special.ndtri(np.clip(ranks, 1e-6, 1 - 1e-6))
    total = np.zeros(len(scores))
    for column in scores.T:
        total += column
    return np.asarray(total / scores.shape[1])


def _features(values: FloatArray, rows: int) -> FloatArray:
    """Return ranks of the columns beside a price, as much as each depends on the row before."""
    if not values.size:
        return np.empty((rows, 0))
    ranks = np.asarray(stats.rankdata(values, axis=0)) / rows
    return ranks * persistence(ranks)
