"""Validity: properties that every synthetic price must have. They must hold to 100 % and never enter a quality score.

A check counts failures; one that does not apply to a series (no tick grid, no bars) is not made. How *close* a sample
is belongs to the metric families.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.fidelity.evaluation import Check
from synth_pipeline.series import FloatArray, Series

PRICE_COLUMNS = ("mid", "open", "high", "low", "close")
SIZE_COLUMNS = ("spread", "volume", "trade_count", "realized_variance")
GRID_TOLERANCE = 1e-3
"""Share of a grid step by which a price may miss its grid: what float64 rounding needs at 10^12 steps, and no more."""


def checks(series: Series) -> tuple[Check, ...]:
    """Make every check that applies to a series."""
    return tuple(_checks(series))


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
    distinct[np.unique(series.values, axis=0, return_index=True)[1]] = True
    yield _check("distinct_paths", "Distinct paths", distinct, "paths", "no path repeats another one")
    if {"open", "high", "low", "close"} <= set(series.names):
        first, high, low, last = (series.column(name) for name in ("open", "high", "low", "close"))
        ordered = (low <= np.minimum(first, last)) & (high >= np.maximum(first, last))
        yield _check("bar_order", "Bar order", _or_unknown(low + high, ordered), "bars", "low ≤ open, close ≤ high")
    if set(SIZE_COLUMNS) & set(series.names):
        sizes = _columns(series, SIZE_COLUMNS)
        rule = "no volume, count, spread or variance is below zero"
        yield _check("non_negative_sizes", "Non-negative sizes", _or_unknown(sizes, sizes >= 0), "values", rule)


def _columns(series: Series, names: tuple[str, ...]) -> FloatArray:
    return np.stack([series.column(name) for name in names if name in series.names], axis=2)


def _or_unknown(values: FloatArray, passed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Let values that are not finite pass: the check of that name counts them, once."""
    return passed | ~np.isfinite(values)


def _check(name: str, title: str, passed: NDArray[np.bool_], unit: str, rule: str) -> Check:
    failures = int(passed.size - np.count_nonzero(passed))
    return Check(name, title, 1.0 - failures / max(passed.size, 1), failures, int(passed.size), unit, rule)
