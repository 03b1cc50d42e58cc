"""How often quotes of each distance from the mid are filled: what a market maker needs to know of an order flow.

The rate at which a quote δ ticks from the mid is filled is taken to be A e^{-kδ}, as Avellaneda and Stoikov (2008),
"High-frequency trading in a limit order book", Quant. Finance 8, take it. It is measured on an undisturbed run: at the
start of each window, as long as a quote stands before it is moved, quotes of all distances are imagined on both sides,
and one is filled when market orders reach its price (so nobody stands ahead of it: the optimistic case). With h fills
in T seconds of waiting, windows without a fill counted whole, λ(δ) = h / T is the maximum of the likelihood; log λ is
fitted by a line, weighted by h. Errors are those of a jackknife over stretches of time, since the distances share their
trades.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.flows import OrderFlow
from synth_pipeline.market.participant import Participant
from synth_pipeline.market.session import Session
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray

_DISTANCES, _BLOCKS, _FEWEST, _SLOWER = 12, 10, 10, 10


class FillRates(NamedTuple):
    """The fitted law, and what it was fitted to."""

    rate: float
    """[A] fills per second at the mid."""
    rate_se: float
    decay: float
    """[k] per tick."""
    decay_se: float
    volatility: float
    """[σ] of the mid, ticks per square root of a second, from its changes over ten windows."""
    distances: FloatArray
    """Ticks from the mid."""
    rates: FloatArray
    """Fills per second measured at each."""


def measure(
    flow: OrderFlow,
    *,
    rng: np.random.Generator,
    start_ns: int = 0,
    windows: int = 6000,
    window_s: float = 0.1,
) -> FillRates:
    """Measure a flow's fill rates on a run of its own.

    Raises `TooLittleDataError` where too few distances are reached to tell a law.
    """
    if windows < 2 * _SLOWER or not window_s > 0:
        raise InputError(f"windows={windows} of window_s={window_s}: give at least {2 * _SLOWER}, of a positive length")
    session = Session(flow.start(start_ns, rng=rng))
    watcher, step_ns = session.join("watcher"), round(window_s * NS_PER_SECOND)
    mids, reached = [_mid(watcher)], []
    for number in range(windows):
        session.step(start_ns + (number + 1) * step_ns)
        reached.append(_reached(watcher.trades, mids[-1], start_ns + number * step_ns))
        mids.append(_mid(watcher))
    distances = _grid(np.concatenate([distance for both in reached for distance, _ in both]))
    waits = np.array([[_waits(*side, distances, window_s) for side in both] for both in reached])
    hits, seconds = (waits < window_s).sum(axis=1), waits.sum(axis=1)
    return _fitted(distances, hits, seconds, _volatility(mids, window_s))


def _mid(watcher: Participant) -> float:
    mid = watcher.mid
    assert mid is not None  # a session whose book loses a side has stopped
    return mid


def _volatility(mids: list[float], window_s: float) -> float:
    # Over one window the mid mostly moves to and fro.
    return float(np.diff(mids[::_SLOWER]).std() / math.sqrt(_SLOWER * window_s))


def _reached(trades: np.ndarray, mid: float, start_ns: int) -> list[tuple[FloatArray, FloatArray]]:
    """Return for each side of quotes the furthest distance reached by each trade, and after how many seconds."""
    found = []
    for taker, sign in ((BID, 1.0), (ASK, -1.0)):
        own = trades[trades["taker_side"] == taker]
        furthest = np.maximum.accumulate(sign * (own["price"] - mid)) if own.size else np.empty(0)
        found.append((furthest, (own["time_ns"] - start_ns) / NS_PER_SECOND))
    return found


def _grid(reached: FloatArray) -> FloatArray:
    """Return distances that trades do reach, from near to far."""
    positive = reached[reached > 0]
    if positive.size < _FEWEST * 2:
        raise TooLittleDataError(f"{positive.size} trades in all windows: take more or longer windows")
    return np.unique(np.quantile(positive, np.linspace(0.02, 0.98, _DISTANCES), method="inverted_cdf"))


def _waits(furthest: FloatArray, seconds: FloatArray, distances: FloatArray, window_s: float) -> FloatArray:
    """Return how long a quote of each distance waits in a window, `window_s` where it is not filled."""
    return np.append(seconds, window_s)[np.searchsorted(furthest, distances)]


def _fitted(distances: FloatArray, hits: IntArray, seconds: FloatArray, volatility: float) -> FillRates:
    """Fit the law to fills and seconds by window and distance, with errors by leaving out a tenth of the time."""
    kept = hits.sum(axis=0) >= _FEWEST
    if kept.sum() < 2:
        raise TooLittleDataError(f"{kept.sum()} distances have {_FEWEST} fills: take more or longer windows")
    distances, hits, seconds = distances[kept], hits[:, kept], seconds[:, kept]
    blocks = np.arange(len(hits)) * _BLOCKS // len(hits)
    without = np.array(
        [_line(distances, hits[blocks != b].sum(0), seconds[blocks != b].sum(0)) for b in range(_BLOCKS)]
    )
    errors = np.sqrt((_BLOCKS - 1) * without.var(axis=0))
    level, decay = _line(distances, hits.sum(axis=0), seconds.sum(axis=0))
    if decay <= 0:
        raise TooLittleDataError(f"fills do not become rarer with distance (decay {decay:.3g}): take more windows")
    rate = math.exp(level)
    rates = hits.sum(axis=0) / seconds.sum(axis=0)
    return FillRates(rate, rate * float(errors[0]), decay, float(errors[1]), volatility, distances, rates)


def _line(distances: FloatArray, hits: IntArray, seconds: FloatArray) -> tuple[float, float]:
    """Return log A and k."""
    # polyfit takes the square roots of weights; the variance of log λ is 1 / hits.
    held = np.maximum(hits, 0.5)
    slope, level = np.polyfit(distances, np.log(held / seconds), 1, w=np.sqrt(held))
    return float(level), -float(slope)
