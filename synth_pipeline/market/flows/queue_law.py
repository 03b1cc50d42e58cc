"""From counted queues to the law of the queue-reactive flow: rates drawn together, sizes, shares, positions.

A rate is n / T of its cell, the maximum of the likelihood of point processes with predictable intensities, drawn
towards the mean over the cells around it, so that a cell that was hardly seen has a rate; its standard error is √n / T
likewise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from synth_pipeline.errors import TrainingError
from synth_pipeline.generators.inference import Estimate
from synth_pipeline.market.flows import queues
from synth_pipeline.market.flows.calibrated import FEWEST_TOLD
from synth_pipeline.market.flows.placement import Distances
from synth_pipeline.market.flows.queues import BEHIND, BEST, INSIDE, SPREADS, Counts, Grid, Rates
from synth_pipeline.market.flows.replaying import Record
from synth_pipeline.market.flows.sizes import POINTS, Sizes, quantiles, sizes_of
from synth_pipeline.market.flows.tallying import rates_of, tally
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT

_PRIOR = 1.0
_BEST = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
_OTHER, _QUARTERS = (0.25, 0.75), (0.25, 0.5, 0.75)
"""Shares of best queues, opposite queues and queues behind, as messages meet them, below the bounds of classes."""
_FEWEST = 50
"""Values that a table of their own needs."""


class Law(NamedTuple):
    """Rates and sizes as the compiled loop needs them; rates are per second, behind the best also per price."""

    grid: Grid
    rates: Rates
    ahead: FloatArray
    """Where in the spread orders stand, 0 a tick before their own best, 1 before the other: shape (SPREADS, POINTS)."""
    sizes: Sizes
    """Groups: limit orders inside by spread, at the best by size, market orders by size, behind by distance, first at
    empty and then at other prices."""
    shares: FloatArray
    """Share of the queue that a cancellation takes, at the best by size, behind by distance: shape (…, POINTS)."""
    makers: IntArray
    """Lots of the orders that one addition at the touch consists of, shape (POINTS,); empty where it is one."""
    positions: FloatArray
    """Share of the queue ahead of the cancelled order, shape (POINTS,); empty where orders are not known."""
    day: FloatArray
    """Factor of each part of the day."""


def law_of(found: Record, counts: Counts, grid: Grid, day: FloatArray) -> tuple[Law, dict[str, Estimate]]:
    """Return the law that counts of a record tell, and its parameters by name."""
    inside, inside_error = _smooth(counts.inside, counts.inside_seconds, along=0, over=1)
    best, best_error = _stacked([_smooth(each, counts.best_seconds, along=2, over=1) for each in counts.best])
    behind, behind_error = _stacked([_smooth(each, counts.behind_seconds, along=0) for each in counts.behind])
    behind[1, :, 0] = 0.0
    if found.rows.depth:
        _extend(behind, counts, found, grid, day)
    rates, errors = Rates(inside, best, behind), Rates(inside_error, best_error, behind_error)
    law = Law(
        grid=grid,
        rates=rates,
        ahead=_ahead(counts),
        sizes=_sizes(found, counts, grid),
        shares=_shares(found, counts, grid),
        makers=_makers(found),
        positions=_positions(found),
        day=day,
    )
    return law, _named(counts, rates, errors, grid)


def _extend(behind: FloatArray, counts: Counts, found: Record, grid: Grid, day: FloatArray) -> None:
    """Put the rates of zero intelligence where nothing is seen: of a price, and of the one order that stands there."""
    distances = grid.distances
    rates, _ = rates_of(tally(found.rows, distances, day, found.unit), distances)
    unseen = np.flatnonzero(counts.behind_seconds.sum(axis=1) == 0)
    from_other = np.minimum(distances.middles[unseen] + found.spread, distances.class_of.size - 1).astype(np.int64)
    behind[0, unseen] = rates.limit[distances.class_of[from_other], None]
    behind[1, unseen, 1:] = rates.cancel[distances.class_of[from_other], None]


def grid_of(found: Record, distances: Distances) -> Grid:
    """Return classes of sizes with their bounds at quantiles of what the record shows."""
    nothing = np.array([2**62])
    counts = queues.count(found.rows, Grid(nothing, nothing, nothing, distances), np.ones(1))
    best, behind = counts.before[counts.region == BEST], counts.before[(counts.region == BEHIND) & (counts.before > 0)]
    return Grid(_bounds(best, _BEST), _bounds(best, _OTHER), _bounds(behind, _QUARTERS), distances)


def _bounds(sizes: IntArray, shares: tuple[float, ...]) -> IntArray:
    """Return the different quantiles of sizes."""
    if not sizes.size:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.quantile(sizes, shares).astype(np.int64))


def _smooth(
    count: FloatArray, seconds: FloatArray, along: int, over: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return rates and standard errors; a cell is drawn towards the mean over its neighbours, that to the mean of all.

    Neighbours are two classes to either side of the axis `along`, at all of the axis `over`. Either mean counts as
    `_PRIOR` events.
    """
    overall = max(float(count.sum()), _PRIOR) / max(float(seconds.sum()), 1e-9)
    near, exposed = _near(count, along, over), _near(seconds, along, over)
    wide = (near + _PRIOR) / (exposed + _PRIOR / overall)
    exposure = seconds + _PRIOR / wide
    return (count + _PRIOR) / exposure, np.sqrt(count + _PRIOR) / exposure


def _near(values: FloatArray, along: int, over: int | None) -> FloatArray:
    """Return sums over a neighbourhood."""
    if over is not None:
        values = values.sum(axis=over, keepdims=True)
    ends = [(2, 2) if axis == along else (0, 0) for axis in range(values.ndim)]
    return np.asarray(sliding_window_view(np.pad(values, ends), 5, axis=along).sum(axis=-1))


def _stacked(pairs: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    rates, errors = zip(*pairs, strict=True)
    return np.stack(rates), np.stack(errors)


def _named(counts: Counts, rates: Rates, errors: Rates, grid: Grid) -> dict[str, Estimate]:
    """Return the rate of every cell in which enough happened to tell an interval."""
    found: dict[str, Estimate] = {}
    for spread, role in _cells(counts.inside):
        name = f"limit_inside_{2**spread + 1}_{('other', 'own')[role]}"
        found[name] = Estimate(float(rates.inside[spread, role]), float(errors.inside[spread, role]))
    for kind, width, other, size in _cells(counts.best):
        name = f"{_KINDS[kind]}_best_{_WIDTHS[width]}_{_OPPOSITE[other]}_q{size}"
        cell = (kind, width, other, size)
        found[name] = Estimate(float(rates.best[cell]), float(errors.best[cell]))
    for kind, distance, size in _cells(counts.behind):
        name = f"{_KINDS[kind]}_behind_{grid.distances.names[distance]}_q{size}"
        found[name] = Estimate(float(rates.behind[kind, distance, size]), float(errors.behind[kind, distance, size]))
    return found


def _cells(happened: FloatArray) -> list[tuple[int, ...]]:
    return [tuple(each) for each in np.argwhere(happened >= FEWEST_TOLD).tolist()]


def theta_of(counts: Counts) -> dict[str, float]:
    """Return the share θ of gaps that the other side fills, and its standard error; nothing where it is 0 or 1."""
    moved, gaps = float(counts.inside[:, 0].sum()), float(counts.inside.sum())
    if not 0 < moved < gaps:
        return {}
    return {"theta": moved / gaps, "theta_se": math.sqrt(moved / gaps * (1 - moved / gaps) / gaps)}


_KINDS, _OPPOSITE = ("limit", "cancel", "market"), ("small", "usual", "large")
_WIDTHS = ("1", "2_4", "5_32", "33_256", "wider")


def _sizes(found: Record, counts: Counts, grid: Grid) -> Sizes:
    """Return sizes by group, of neighbouring groups where one has too few."""
    rows, best, distances = found.rows, grid.best.size + 1, grid.distances.edges.size - 1
    placed, taken = rows.kind == LIMIT, rows.takes > 0
    first = (0, SPREADS, SPREADS + best, SPREADS + 2 * best, SPREADS + 2 * best + distances)
    parts = (
        (placed & (counts.region == INSIDE), rows.size, first[0] + counts.state),
        (placed & (counts.region == BEST), rows.size, first[1] + counts.state),
        (taken & (counts.region == BEST), rows.takes, first[2] + counts.state),
        (placed & (counts.region == BEHIND) & (counts.before <= 0), rows.size, first[3] + counts.distance),
        (placed & (counts.region == BEHIND) & (counts.before > 0), rows.size, first[4] + counts.distance),
    )
    ranges = [*zip(first, (*first[1:], first[4] + distances), strict=True)]
    wider = [np.arange(max(each - 2, low), min(each + 3, high)) for low, high in ranges for each in range(low, high)]
    sizes = np.concatenate([values[mask] for mask, values, _ in parts])
    return sizes_of(sizes, np.concatenate([groups[mask] for mask, _, groups in parts]), wider)


def _makers(found: Record) -> IntArray:
    """Return the sizes of orders that an addition at the touch consists of."""
    if found.makers.size < _FEWEST:
        return np.zeros(0, dtype=np.int64)
    return np.maximum(quantiles(found.makers), 1).astype(np.int64)


def _positions(found: Record) -> FloatArray:
    return quantiles(found.positions) if found.positions.size >= _FEWEST else np.zeros(0)


def _ahead(counts: Counts) -> FloatArray:
    """Return where in the spread orders stand, by its class, of neighbouring classes where one has too few."""
    among = [counts.region == INSIDE, *((counts.region == INSIDE) & (counts.state == each) for each in range(SPREADS))]
    near = [np.any(among[max(each, 1) : each + 3], axis=0) for each in range(SPREADS)]
    picked = [(among[1 + each], near[each], among[0]) for each in range(SPREADS)]
    return np.stack([_pick([counts.ahead[mask] for mask in masks]) for masks in picked])


def _pick(samples: list[FloatArray]) -> FloatArray:
    """Return the table of the first sample that is large enough, else of the last."""
    enough = [each for each in samples if each.size >= _FEWEST] or samples[-1:]
    return quantiles(enough[0]) if enough[0].size else np.ones(POINTS)


def _shares(found: Record, counts: Counts, grid: Grid) -> FloatArray:
    """Return the shares of queues that cancellations take, at the best by size, then behind by distance."""
    taken = (found.rows.kind == CANCEL) & (counts.region >= BEST) & (counts.before > 0)
    share = np.minimum(found.rows.size[taken] / counts.before[taken], 1.0)
    best = grid.best.size + 1
    groups = np.where(counts.region == BEST, counts.state, best + counts.distance)[taken]
    tables = []
    for group in range(best + grid.distances.edges.size - 1):
        low, high = (0, best) if group < best else (best, groups.max(initial=best) + 1)
        own = share[groups == group]
        near = share[(np.abs(groups - group) <= 2) & (groups >= low) & (groups < high)]
        tables.append(_pick([own, near, share]))
    return np.stack(tables)


def growth_of(found: Record, counts: Counts, grid: Grid) -> tuple[str, ...]:
    """Say which of the longest queues grow on average, by more than twice the standard error.

    Cancellations of a share of the queue will stop it, so that is a note; where they take one order each, nothing does:
    raises `TrainingError`.
    """
    rows = found.rows
    regions = (("best", BEST, grid.best, counts.best_seconds), ("other", BEHIND, grid.behind, counts.behind_seconds))
    for name, region, bounds, seconds in regions:
        longest = bounds.size + (region == BEHIND)
        there = (counts.region == region) & (counts.state == longest)
        added = np.where(rows.kind == LIMIT, rows.size, np.where(rows.kind == CANCEL, -rows.size, -rows.takes))[there]
        lasted = float(seconds[..., longest].sum())
        if bounds.size == 0 or added.sum() <= 2 * math.sqrt(float((added.astype(np.float64) ** 2).sum())):
            continue
        fault = f"{name} queues of more than {bounds[-1]} lots grow by {added.sum() / lasted:.3g} lots a second"
        if found.positions.size >= _FEWEST:
            raise TrainingError(f"not stationary: {fault}: fit on a longer or calmer record")
        return (f"not stationary: {fault} on average",)
    return ()
