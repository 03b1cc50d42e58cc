"""Twelve plain trading rules over log-returns: what a user would rank on a market.

A rule gives the position to hold over the next step from returns up to and including this one. Positions are in units
of the asset; costs are left out, since what is compared is the order of the rules, not their worth.

- `momentum n`, `reversal n`: the sign of the sum of the last n returns, or its opposite.
- `breakout n`: long from a price at its highest of the last n on, short from one at its lowest on.
- `crossover m/n`: long while the moving average of m log-prices is above that of n, short while below.
- `volatility target`: a position scaled so that the volatility of the last 20 steps stays at that of the path so far.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray

RULES = (
    "momentum 5",
    "momentum 20",
    "momentum 60",
    "reversal 1",
    "reversal 3",
    "reversal 10",
    "breakout 20",
    "breakout 55",
    "crossover 5/20",
    "crossover 10/50",
    "long, volatility target",
    "momentum 20, volatility target",
)
_SPANS = np.array([5, 20, 60, 1, 3, 10])
_REVERSALS = 3
"""Of these spans, the last ones, from which on it is the opposite that is held."""
_BREAKOUTS = np.array([20, 55])
_CROSSOVERS = np.array([[5, 20], [10, 50]])
_TARGET_STEPS, _MOST = 20, 3.0
"""Over how many steps volatility is measured, and the largest position that scaling by it may take."""


def sharpe_ratios(returns: FloatArray) -> FloatArray:
    """Return the Sharpe ratio, mean over deviation of a step's gain, of every rule on every path, shape (rules, paths).

    `returns` has shape (paths, steps); a gap (NaN) earns nothing and is not counted. NaN where a rule never trades.
    """
    ratios = np.full((len(RULES), len(returns)), np.nan)
    for at, path in enumerate(returns):
        known = np.isfinite(path)
        filled = np.where(known, path, 0.0)
        _rate(positions(filled), filled, known, ratios[:, at])
    return ratios


@njit(cache=True, fastmath={"reassoc", "contract"})
def _rate(held: FloatArray, returns: FloatArray, known: NDArray[np.bool_], ratios: FloatArray) -> None:
    """Write the Sharpe ratio of each rule that trades."""
    count = max(known[1:].sum(), 1)
    for rule in range(len(held)):
        total, square = 0.0, 0.0
        for step in range(1, returns.size):
            total += held[rule, step - 1] * returns[step]
        mean = total / count
        for step in range(1, returns.size):
            square += known[step] * (held[rule, step - 1] * returns[step] - mean) ** 2
        if square > 0:
            ratios[rule] = mean / np.sqrt(square / count)


@njit(cache=True)
def positions(returns: FloatArray) -> FloatArray:
    """Return the position of every rule after each return of a path without gaps, shape (rules, steps)."""
    steps = returns.size
    held = np.zeros((12, steps))
    price, moved = np.cumsum(returns), np.cumsum(returns**2)
    for number in range(_SPANS.size):
        _follow(price, _SPANS[number], -1.0 if number >= _REVERSALS else 1.0, held[number])
    for number in range(_BREAKOUTS.size):
        _break_out(price, _BREAKOUTS[number], held[6 + number])
    total = np.cumsum(price)
    for number in range(len(_CROSSOVERS)):
        fast, slow = _CROSSOVERS[number]
        for step in range(steps):
            held[8 + number, step] = np.sign(_mean(total, step, fast) - _mean(total, step, slow))
    for step in range(steps):
        recent, whole = _mean(moved, step, _TARGET_STEPS), moved[step] / (step + 1)
        scale = min(np.sqrt(whole / recent), _MOST) if recent > 0 else 1.0
        held[10, step], held[11, step] = scale, scale * held[1, step]
    return held


@njit(cache=True)
def _mean(total: FloatArray, step: int, span: int) -> float:
    """Return the mean of the last `span` values from their running total, of as many as there are at the start."""
    if step < span:
        return float(total[step] / (step + 1))
    return float((total[step] - total[step - span]) / span)


@njit(cache=True)
def _follow(price: FloatArray, span: int, way: float, held: FloatArray) -> None:
    for step in range(price.size):
        before = price[step - span] if step >= span else 0.0
        held[step] = way * np.sign(price[step] - before)


@njit(cache=True)
def _break_out(price: FloatArray, span: int, held: FloatArray) -> None:
    high = low = 0  # where the highest and the lowest price of the last `span` are, the latest of equals
    for step in range(price.size):
        first = max(step - span + 1, 0)
        if high < first:
            high = first + int(np.argmax(price[first : step + 1]))
        if low < first:
            low = first + int(np.argmin(price[first : step + 1]))
        high = step if price[step] >= price[high] else high
        low = step if price[step] <= price[low] else low
        if (high == step) != (low == step):
            held[step] = 1.0 if high == step else -1.0
        elif step > 0:
            held[step] = held[step - 1]
