"""Regimes: what each step of a history belongs to, by rules on its own scale.

What belongs here: the vocabulary, `label` by rules, and what a labelling tells (`Regimes`). A labelling by a hidden
Markov model is `generators.hidden_markov.label`; drawing from a regime belongs to generators.

The rules look at whole moves, before and after a step: labels are for sampling from history, not for trading on them.
All thresholds are in units of the series itself, so they mean the same for half seconds and for days. With r the
log-returns, σ their root mean square, and a *span* of a twentieth of the longest stretch, from 20 to 250 steps:

- *flash_crash* a fall of 6 recent σ or more within five steps, and the tenth of a span that follows it;
- *crash*, *rally* a fall, a rise of 4 recent σ or more within a fifth of a span;
- *high_volatility* a root mean square, over the eighth of a span around the step, of twice its median or more;
- *bull*, *bear* a rise, a fall over the span around the step of half of what a random walk of σ does (σ √span): about
  10 % a year for the S&P 500;
- *sideways* every other step.

High volatility ends below one and a half times the median, a bull or bear market below half of what began it. The first
that fits is taken. Recent σ is the root mean square over the span before the move began; it and the median count as
σ / 4 at least. A move over k steps is held against √k times recent σ. A stretch shorter than the least span has no
labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import InputError
from synth_pipeline.series import FloatArray, IntArray, Series

REGIMES = ("flash_crash", "crash", "rally", "high_volatility", "bull", "bear", "sideways")
"""What the rules tell apart, the first that fits first."""
VOLATILITIES = {
    2: ("low_volatility", "high_volatility"),
    3: ("low_volatility", "normal_volatility", "high_volatility"),
    4: ("low_volatility", "normal_volatility", "high_volatility", "extreme_volatility"),
}
"""Names of the states of a model of volatility, by how many it has, from calm to wild."""
UNKNOWN = -1
LEAST_SPAN, MOST_SPAN = 20, 250
_FLASH, _SWING = 6.0, 4.0
_WILD, _WILD_ENDS = 2.0, 1.5
_TREND, _TREND_ENDS = 0.5, 0.25
_FLASH_STEPS = 5


@dataclass(frozen=True, eq=False)
class Regimes:
    """The regime of every step."""

    names: tuple[str, ...]
    labels: NDArray[np.int8]
    """Number of the name, `UNKNOWN` without one; shape (paths, steps)."""

    def counts(self) -> dict[str, int]:
        """Return how many steps each regime has, the commonest first, those without a step left out."""
        found = np.bincount(self.labels[self.labels >= 0].astype(np.int64), minlength=len(self.names))
        ranked = sorted(zip(self.names, found.tolist(), strict=True), key=lambda each: -each[1])
        return {name: count for name, count in ranked if count}

    def shares(self) -> dict[str, float]:
        """Return which share of the labelled steps each regime has."""
        counts = self.counts()
        return {name: count / sum(counts.values()) for name, count in counts.items()}

    def told(self) -> str:
        """Return names, counts and shares in words."""
        shares = self.shares()
        return ", ".join(f"{name} {count} steps ({shares[name]:.1%})" for name, count in self.counts().items())

    def where(self, name: str) -> NDArray[np.bool_]:
        """Return which steps are of a regime, shape (paths, steps). Raises `InputError` for one that is not there."""
        if name not in self.counts():
            raise InputError(f"history has no regime {name!r}: it has {self.told() or 'none, it is too short'}")
        return np.asarray(self.labels == self.names.index(name))


def label(series: Series, *, span: int | None = None) -> Regimes:
    """Label every step of a series by the rules of this module; a basket by the mean log price of its assets.

    Raises `InputError` for a span below 20 steps.
    """
    prices = log_prices(series)
    stretches = [(path, start, stop) for path, row in enumerate(prices) for start, stop in _known(row)]
    if span is None:
        longest = max((stop - start for _, start, stop in stretches), default=0)
        span = min(max(longest // 20, LEAST_SPAN), MOST_SPAN)
    if span < LEAST_SPAN:
        raise InputError(f"regimes over a span of {span} steps are noise: take {LEAST_SPAN} or more")
    labels = np.full(prices.shape, UNKNOWN, dtype=np.int8)
    stretches = [each for each in stretches if each[2] - each[1] > LEAST_SPAN]
    pieces = [prices[path, start:stop] for path, start, stop in stretches]
    moves = [np.diff(piece) for piece in pieces]
    scale = float(np.sqrt(np.mean(np.concatenate(moves) ** 2))) if moves else 0.0
    if scale == 0.0:
        return Regimes(REGIMES, labels)
    wilds = [np.sqrt(_around(np.append(move[:1], move) ** 2, max(span // 8, 5))) for move in moves]
    typical = max(float(np.median(np.concatenate(wilds))), scale / 4)
    for (path, start, stop), piece, wild in zip(stretches, pieces, wilds, strict=True):
        labels[path, start:stop] = _ruled(piece, _held(wild / typical, _WILD, _WILD_ENDS), scale, span)
    return Regimes(REGIMES, labels)


def gathered(series: Series, where: NDArray[np.bool_]) -> Series:
    """Return the price of one path made of the returns of some steps, one after the other, as if history had no others.

    `where` has the shape (paths, steps). A price has the median of the whole history, so that a tick is as large to it.
    """
    kept = where & np.isfinite(np.diff(log_prices(series), axis=1, prepend=np.nan))
    if series.assets:
        return Series.joined({name: _gathered(part, kept) for name, part in series.parts().items()})
    return _gathered(series, kept)


def _gathered(series: Series, kept: NDArray[np.bool_]) -> Series:
    prices = series.column(series.price_name)
    moves = np.diff(log_prices(series), axis=1, prepend=np.nan)[kept]
    path = np.exp(np.concatenate(([0.0], np.cumsum(moves))))
    path *= np.nanmedian(prices) / np.median(path)
    return replace(
        series, values=path[np.newaxis, :, np.newaxis], names=(series.price_name,), start_ns=series.start_ns[:1]
    )


def log_prices(series: Series) -> FloatArray:
    """Return the log price of every step, the mean over the assets of a basket; shape (paths, steps).

    A price that is none (infinite, 0 or below) is a gap.
    """
    parts = series.parts().values() if series.assets else (series,)
    prices = np.array([part.column(part.price_name) for part in parts])
    mean: FloatArray = np.log(np.where((prices > 0) & np.isfinite(prices), prices, np.nan)).mean(axis=0)
    return mean


def _known(row: FloatArray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.isfinite(row).astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _ruled(prices: FloatArray, wild: NDArray[np.bool_], scale: float, span: int) -> NDArray[np.int8]:
    """Label one stretch of log prices."""
    recent = np.maximum(_recent(np.diff(prices, prepend=prices[0]), span), scale / 4)
    trend = _trend(prices, span) / scale
    rules = (
        _swings(-prices, recent, _FLASH, _FLASH_STEPS, span // 10),
        _swings(-prices, recent, _SWING, span // 5, 0),
        _swings(prices, recent, _SWING, span // 5, 0),
        wild,
        _held(trend, _TREND, _TREND_ENDS),
        _held(-trend, _TREND, _TREND_ENDS),
    )
    return np.select(rules, range(len(rules)), len(rules)).astype(np.int8)


def _held(values: FloatArray, begins: float, ends: float) -> NDArray[np.bool_]:
    """Return which steps lie between one that reaches `begins` and the next one below `ends`."""
    decided = (values >= begins) | (values < ends)
    last = np.maximum.accumulate(np.where(decided, np.arange(len(values)), 0))
    return np.asarray(values[last] >= begins)


def _recent(moves: FloatArray, span: int) -> FloatArray:
    """Return the root mean square of the `span` moves up to each step; infinite before a whole least span of them."""
    total = np.concatenate(([0.0], np.cumsum(moves**2)))
    ends = np.arange(1, len(moves) + 1)
    firsts = np.maximum(ends - span, 1)
    mean = (total[ends] - total[firsts]) / np.maximum(ends - firsts, 1)
    return np.where(ends > LEAST_SPAN, np.sqrt(np.maximum(mean, 0.0)), np.inf)


def _swings(prices: FloatArray, recent: FloatArray, sigmas: float, longest: int, after: int) -> NDArray[np.bool_]:
    """Return the steps of every rise of `sigmas` or more within `longest` steps, and `after` steps more.

    A rise begins at the lowest and ends at the highest price that it holds, with steps upwards.
    """
    edges = np.zeros(len(prices) + 1, dtype=np.int64)
    low, high, up = prices, prices, np.diff(prices) > 0
    for steps in range(1, min(longest, len(prices) - 1) + 1):
        low, high = np.minimum(low[:-1], prices[steps:]), np.maximum(high[:-1], prices[steps:])
        whole = (low == prices[:-steps]) & (high == prices[steps:]) & up[: len(up) - steps + 1] & up[steps - 1 :]
        begins: IntArray = np.flatnonzero(whole & (high - low >= sigmas * recent[:-steps] * np.sqrt(steps)))
        edges[begins + 1] += 1
        np.subtract.at(edges, np.minimum(begins + steps + after + 1, len(prices)), 1)
    return np.cumsum(edges[:-1]) > 0


def _around(values: FloatArray, width: int) -> FloatArray:
    """Return the mean of the `width` values around each one, of fewer at the ends."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    at = np.arange(len(values))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at - width // 2 + width, len(values))
    return np.asarray(np.maximum(total[high] - total[low], 0.0) / (high - low))


def _trend(prices: FloatArray, span: int) -> FloatArray:
    """Return the move over the `span` steps around each one, of fewer at the ends, over the root of their number."""
    at = np.arange(len(prices))
    low, high = np.maximum(at - span // 2, 0), np.minimum(at - span // 2 + span, len(prices) - 1)
    return np.asarray((prices[high] - prices[low]) / np.sqrt(high - low))
