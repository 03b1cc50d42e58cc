"""Twelve plain trading rules over log-returns, compiled nowhere and clever nowhere: what a user would rank on a market.

A rule gives the position to hold over the next step from returns up to and including this one. Positions are in units
of the asset; costs are left out, since what is compared is the order of the rules, not their worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from synth_pipeline.series import FloatArray

Rule = Callable[[FloatArray], FloatArray]
"""Log-returns (paths, steps) → positions after each of them, same shape."""

_TARGET_STEPS, _MOST = 20, 3.0
"""Over how many steps volatility is measured, and the largest position that scaling by it may take."""


def sharpe_ratios(returns: FloatArray) -> FloatArray:
    """Return the Sharpe ratio, mean over deviation of a step's gain, of every rule on every path, shape (rules, paths).

    `returns` has shape (paths, steps); a gap (NaN) earns nothing and is not counted. NaN where a rule never trades.
    """
    known = np.isfinite(returns)
    filled, counted = np.where(known, returns, 0.0), known[:, 1:]
    count = np.maximum(counted.sum(axis=1), 1)
    ratios = np.full((len(RULES), len(returns)), np.nan)
    for at, rule in enumerate(RULES.values()):
        gains = rule(filled)[:, :-1] * filled[:, 1:]
        mean = gains.sum(axis=1) / count
        spread = np.sqrt((((gains - mean[:, np.newaxis]) * counted) ** 2).sum(axis=1) / count)
        ratios[at] = np.divide(mean, spread, out=ratios[at], where=spread > 0)
    return ratios


def _sums(returns: FloatArray, steps: int) -> FloatArray:
    """Return sums of the last `steps` returns, of as many as there are at the start."""
    total = np.cumsum(returns, axis=1)
    total[:, steps:] -= total[:, :-steps].copy()
    return total


def _momentum(steps: int) -> Rule:
    return lambda returns: np.sign(_sums(returns, steps))


def _reversal(steps: int) -> Rule:
    return lambda returns: -np.sign(_sums(returns, steps))


def _crossover(fast: int, slow: int) -> Rule:
    """Long while the fast moving average of the log-price is above the slow one, short while below."""

    def rule(returns: FloatArray) -> FloatArray:
        price = np.cumsum(returns, axis=1)
        steps = np.arange(1, price.shape[1] + 1)
        averages = (_sums(price, span) / np.minimum(steps, span) for span in (fast, slow))
        return np.sign(next(averages) - next(averages))

    return rule


def _breakout(steps: int) -> Rule:
    """Long from a price at its highest of the last steps on, short from one at its lowest on."""

    def rule(returns: FloatArray) -> FloatArray:
        price = np.cumsum(returns, axis=1)
        back = steps - 1 - steps // 2  # moves the filter's window from around a step to the one that it ends
        highest = maximum_filter1d(price, steps, axis=1, mode="nearest", origin=back)
        lowest = minimum_filter1d(price, steps, axis=1, mode="nearest", origin=back)
        signal = (price >= highest).astype(np.float64) - (price <= lowest)
        last = np.maximum.accumulate(np.where(signal != 0, np.arange(price.shape[1]), 0), axis=1)
        return np.take_along_axis(signal, last, axis=1)

    return rule


def _volatility_target(direction: Rule) -> Rule:
    """Scale a rule's position so that its recent volatility stays at that of the path so far."""

    def rule(returns: FloatArray) -> FloatArray:
        steps = np.arange(1, returns.shape[1] + 1)
        recent = np.sqrt(_sums(returns**2, _TARGET_STEPS).clip(0.0) / np.minimum(steps, _TARGET_STEPS))
        whole = np.sqrt(np.cumsum(returns**2, axis=1) / steps)
        scale = np.divide(whole, recent, out=np.ones_like(recent), where=recent > 0)
        return direction(returns) * np.minimum(scale, _MOST)

    return rule


def _long(returns: FloatArray) -> FloatArray:
    return np.ones_like(returns)


RULES: Mapping[str, Rule] = {
    "momentum 5": _momentum(5),
    "momentum 20": _momentum(20),
    "momentum 60": _momentum(60),
    "reversal 1": _reversal(1),
    "reversal 3": _reversal(3),
    "reversal 10": _reversal(10),
    "breakout 20": _breakout(20),
    "breakout 55": _breakout(55),
    "crossover 5/20": _crossover(5, 20),
    "crossover 10/50": _crossover(10, 50),
    "long, volatility target": _volatility_target(_long),
    "momentum 20, volatility target": _volatility_target(_momentum(20)),
}
