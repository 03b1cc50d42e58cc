"""Validity: properties that every synthetic price must have. They must hold to 100 % and never enter a quality score.

A check counts failures; one that does not apply to a series (no tick grid, no bars) is not made. How *close* a sample
is belongs to the metric families.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.fidelity.evaluation import Check
from synth_pipeline.series import FloatArray, Series

PRICE_COLUMNS = ("mid", "open", "high", "low", "close")
SIZE_COLUMNS = ("spread", "volume", "trade_count", "quote_count", "realized_variance", "buy_volume")
COUNT_COLUMNS = ("trade_count", "quote_count")
LOT_COLUMNS = ("volume", "buy_volume", "signed_volume")
IMBALANCE_COLUMNS = ("imbalance_1", "imbalance_5", "imbalance_10")
WIDEST_GAPS = 10.0
"""A bar may open this many times as far from the close before it as any real one did: no real market needs more."""
_ROUNDING = 1e-9
"""Log-difference of two prices that are the same."""
GRID_TOLERANCE = 1e-3
"""Share of a grid step by which a price may miss its grid: what float64 rounding needs at 10^12 steps, and no more."""


def checks(series: Series, real: Series | None = None) -> tuple[Check, ...]:
    """Make every check that applies to a series; how far bars may open from the close before takes real bars to tell.

    Where every real bar opens exactly at the close before it, so must every synthetic one. Where they open elsewhere,
    none may be ten times as far off as the furthest real one: how often they do is a matter of quality.
    """
    found = [*_checks(series)]
    if real is not None and {"open", "close"} <= set(series.names) & set(real.names):
        found.append(_openings(series, real))
    return tuple(found)


def _checks(series: Series) -> Iterator[Check]:
    prices = _columns(series, PRICE_COLUMNS)
    yield _check("finite", "Finite values", np.isfinite(series.values), "values", "every value is a finite number")
    yield _check(
        "positive_prices", "Positive prices", _or_unknown(prices, prices > 0), "prices", "every price is above zero"
    )
    if series.tick_size > 0:
        # A mid price is the mean of two prices on the grid, so it may lie half way between two ticks.
        step = series.tick_size / 2 if series.price_name == "mid" else series.tick_size
        misses = np.abs(prices / step - np.round(prices / step))
        rule = f"every price is a multiple of {step:g}"
        yield _check("tick_grid", "Tick grid", _or_unknown(prices, misses <= GRID_TOLERANCE), "prices", rule)
    changes = np.diff(series.column(series.price_name), axis=1)
    yield _check(
        "moving_prices", "Moving prices", (changes != 0).any(axis=1), "paths", "no path stands still throughout"
    )
    distinct = np.zeros(series.paths, dtype=np.bool_)
    seen = {sha256(path.tobytes()).digest(): number for number, path in reversed(list(enumerate(series.values)))}
    distinct[list(seen.values())] = True
    yield _check("distinct_paths", "Distinct paths", distinct, "paths", "no path repeats another one")
    if {"open", "high", "low", "close"} <= set(series.names):
        first, high, low, last = (series.column(name) for name in ("open", "high", "low", "close"))
        ordered = (low <= np.minimum(first, last)) & (high >= np.maximum(first, last))
        yield _check("bar_order", "Bar order", _or_unknown(low + high, ordered), "bars", "low ≤ open, close ≤ high")
    if set(SIZE_COLUMNS) & set(series.names):
        sizes = _columns(series, SIZE_COLUMNS)
        rule = "no volume, count, spread or variance is below zero"
        yield _check("non_negative_sizes", "Non-negative sizes", _or_unknown(sizes, sizes >= 0), "values", rule)
    if set(COUNT_COLUMNS) & set(series.names):
        counts = _columns(series, COUNT_COLUMNS)
        whole = _or_unknown(counts, counts == np.round(counts))
        yield _check("whole_counts", "Whole counts", whole, "values", "trades and quotes are counted in whole numbers")
    if series.lot_size > 0 and set(LOT_COLUMNS) & set(series.names):
        lots = _columns(series, LOT_COLUMNS) / series.lot_size
        on_grid = _or_unknown(lots, np.abs(lots - np.round(lots)) <= GRID_TOLERANCE)
        yield _check("lot_grid", "Lot grid", on_grid, "values", f"every volume is a multiple of {series.lot_size:g}")
    if set(IMBALANCE_COLUMNS) & set(series.names):
        shares = _columns(series, IMBALANCE_COLUMNS)
        inside = _or_unknown(shares, np.abs(shares) <= 1)
        yield _check("bounded_imbalance", "Bounded imbalance", inside, "values", "every imbalance lies in -1…1")


def _openings(series: Series, real: Series) -> Check:
    """Check that every bar but a path's first opens near enough to the close before it."""
    widest = float(np.nanmax(_opening_gaps(real), initial=0.0))
    gaps = _opening_gaps(series)
    rule = "every bar opens at the close before it, as all real ones do"
    if widest > _ROUNDING:
        rule = f"no bar opens {WIDEST_GAPS:g} times as far from the close before it as any real one, {widest:.3%}"
    passed = _or_unknown(gaps, gaps <= max(WIDEST_GAPS * widest, _ROUNDING))
    return _check("near_openings", "Openings near the close before", passed, "bars", rule)


def _opening_gaps(series: Series) -> FloatArray:
    """Return how far each bar but the first opens from the close before it, as |log ratio|; NaN where unknown."""
    first, last = series.column("open")[:, 1:], series.column("close")[:, :-1]
    usable = np.isfinite(first) & np.isfinite(last) & (first > 0) & (last > 0)
    gaps: FloatArray = np.full(first.shape, np.nan)
    gaps[usable] = np.abs(np.log(first[usable] / last[usable]))
    return gaps


def _columns(series: Series, names: tuple[str, ...]) -> FloatArray:
    return np.stack([series.column(name) for name in names if name in series.names], axis=2)


def _or_unknown(values: FloatArray, passed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Let values that are not finite pass: the check of that name counts them, once."""
    return passed | ~np.isfinite(values)


def _check(name: str, title: str, passed: NDArray[np.bool_], unit: str, rule: str) -> Check:
    failures = int(passed.size - np.count_nonzero(passed))
    return Check(name, title, 1.0 - failures / max(passed.size, 1), failures, int(passed.size), unit, rule)
