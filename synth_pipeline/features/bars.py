"""Bars from trades: by time, by trades, by volume, by value, by imbalance.

What belongs here: trades in, rows of `schema.BARS` out, with the volume that aggressors bought and the VWAP beside.
Bars that somebody else made are read in `bars/`.

**Time bars** cover [k every, (k + 1) every) since the Unix epoch; one without a trade is an absent row. **Tick, volume
and value ("dollar") bars** end with the trade that brings the count, the volume or the value traded to its threshold,
**imbalance bars** with the one that brings the net volume of aggressors, bought minus sold, to it on either side (the
threshold does not move; López de Prado (2018), "Advances in Financial Machine Learning", chapter 2, adapts it).

A trade is never split: what it brings above the threshold stays in the bar that it ends, and the next one starts at
nothing. Value is quote currency; on inverse instruments it is contracts times the quote currency that one is worth, and
turnover is base currency. Trades flagged `OFF_MARKET` are in no bar. OHLC are the nearest doubles of exact prices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.features import kernels
from synth_pipeline.features.buckets import Columns, Coverage, Gaps, LostTime, arrays, lost_time, require_order
from synth_pipeline.schema import BarFlag, Flag
from synth_pipeline.series import FloatArray, IntArray

Measure = Literal["time", "trades", "volume", "value", "imbalance"]
NAMES = (*schema.BARS.names, "buy_volume", "vwap")
_MEASURES: dict[Measure, int] = {"time": 0, "trades": 1, "volume": 2, "value": 3, "imbalance": 4}
_INTS = ("trades", "open_ns", "last_ns", "open", "high", "low", "close", "volume", "bought", "sold")
_TRADES, _OPEN_NS, _LAST_NS, _OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _BOUGHT, _SOLD = range(len(_INTS))


@dataclass(frozen=True)
class BarRule:
    """When a bar ends: after `amount` of a measure.

    Time counts nanoseconds, volume and imbalance market units (contracts on inverse instruments), value quote currency.
    """

    measure: Measure
    amount: int | Decimal
    contract_value: Decimal = Decimal(1)
    """Quote currency that a contract of an inverse instrument is worth."""

    def __post_init__(self) -> None:
        if self.measure not in _MEASURES:
            raise InputError(f"no bars by {self.measure!r}: known are {', '.join(_MEASURES)}")
        is_amount = math.isfinite(self.amount) and self.amount > 0
        if not is_amount or (self.measure in ("time", "trades") and self.amount != int(self.amount)):
            raise InputError(f"bars of {self.amount} {self.measure} end never or always: take a positive amount")


class BarMaker:
    """Makes bars of trades that arrive piece by piece; the bar that is open at the end of a piece goes on in the next.

    Trades fed day by day give the bars of one long feed, bit for bit.
    """

    def __init__(self, rule: BarRule, scale: schema.Scale) -> None:
        self.rule, self.scale = rule, scale
        self._ints = np.zeros(len(_INTS), dtype=np.int64)
        self._turnover = np.zeros(1)  # of the open bar: Σ (p - open) q in ticks and lots, Σ q / p when inverse
        self._lost: list[LostTime] = []
        self._covered_until_ns: int | None = None
        self._closed_ns: int | None = None

    def feed(self, trades: Columns, gaps: Gaps = (), coverage: Coverage = ()) -> dict[str, np.ndarray]:
        """Return the bars that end among these trades: the columns of `schema.BARS`, `buy_volume` and `vwap`.

        `gaps` and `coverage` as `features.grid` takes them: a bar that holds a moment at which trades were lost is
        flagged `PARTIAL`, one that comes after such a moment `GAP_BEFORE`. Without a coverage nothing counts as lost.
        """
        recv_ns, price, size, side, flags = arrays(trades, "recv_ns", "price", "size", "side", "flags")
        require_order("trades", kernels.is_in_time_order(recv_ns))
        self._note_losses(gaps, coverage)
        ints, turnover = np.empty((len(_INTS), len(recv_ns)), dtype=np.int64), np.empty(len(recv_ns))
        scales = (float(self._value_of_one), self.scale.inverse)
        args = (_MEASURES[self.rule.measure], self._threshold, *scales, self._ints, self._turnover)
        made = _make(recv_ns, price, size, side, flags, int(Flag.OFF_MARKET), *args, ints, turnover)
        return self._columns(ints[:, :made], turnover[:made])

    def finish(self) -> dict[str, np.ndarray]:
        """Return the bar that is still open, or no row; the next trade starts a new one.

        It is flagged `PARTIAL`, unless it is a time bar whose end has been covered.
        """
        is_open = int(self._ints[_TRADES] > 0)
        columns = self._columns(self._ints[:, None][:, :is_open].copy(), self._turnover[:is_open].copy())
        is_over = self.rule.measure == "time" and columns["close_ns"] <= (self._covered_until_ns or 0)
        columns["flags"] |= np.where(is_over, 0, BarFlag.PARTIAL).astype(np.uint8)
        self._ints[:], self._turnover[:] = 0, 0.0
        return columns

    @property
    def _value_of_one(self) -> Fraction:
        """Quote currency that a lot is worth, at a price of one tick on linear instruments."""
        price = Fraction(self.rule.contract_value if self.scale.inverse else self.scale.tick_size)
        return price * Fraction(self.scale.lot_size)

    @property
    def _threshold(self) -> float:
        """The amount in what the kernel counts: lots rather than units of size."""
        is_size = self.rule.measure in ("volume", "imbalance")
        return float(Fraction(self.rule.amount) / (Fraction(self.scale.lot_size) if is_size else 1))

    def _note_losses(self, gaps: Gaps, coverage: Coverage) -> None:
        if not coverage:
            return
        start_ns, end_ns = coverage[0][0], coverage[-1][1]
        for time in lost_time("trades", gaps, coverage):
            inside = LostTime(max(time.first_ns, start_ns), min(time.last_ns, end_ns - 1))
            if inside.first_ns <= inside.last_ns:
                self._lost.append(inside)
        before_ns = self._covered_until_ns
        if before_ns is None or before_ns < start_ns:
            self._lost.append(LostTime(-(2**63) if before_ns is None else before_ns, start_ns - 1))
        self._covered_until_ns = end_ns

    def _columns(self, ints: IntArray, turnover: FloatArray) -> dict[str, np.ndarray]:
        tick, lot = Fraction(self.scale.tick_size), Fraction(self.scale.lot_size)
        volume = _times(ints[_VOLUME], lot)
        if self.scale.inverse:
            turnover = turnover * float(self._value_of_one / tick)
            vwap = volume * float(self.rule.contract_value) / turnover
        else:
            vwap = _times(ints[_OPEN] + turnover / ints[_VOLUME], tick)
            turnover = (ints[_OPEN] * ints[_VOLUME].astype(float) + turnover) * float(self._value_of_one)
        columns = {
            "open_ns": ints[_OPEN_NS],
            "close_ns": ints[_LAST_NS] + 1,
            **{name: _times(ints[_INTS.index(name)], tick) for name in ("open", "high", "low", "close")},
            "volume": volume,
            "turnover": turnover,
            "trade_count": ints[_TRADES].astype(float),
            "buy_volume": _times(ints[_BOUGHT], lot),
            "vwap": vwap,
        }
        if self.rule.measure == "time":
            every = int(self.rule.amount)
            columns["open_ns"] = ints[_OPEN_NS] // every * every
            columns["close_ns"] = columns["open_ns"] + every
        columns["flags"] = self._flags(columns)
        return {name: columns[name] for name in NAMES}

    def _flags(self, columns: Mapping[str, np.ndarray]) -> NDArray[np.uint8]:
        opens, closes = columns["open_ns"], columns["close_ns"]
        flags = np.zeros(len(opens), dtype=np.uint8)
        if not len(opens):
            return flags
        # Before the first bar ever, nothing is missing.
        before = np.concatenate(([opens[0] if self._closed_ns is None else self._closed_ns], closes[:-1]))
        for time in self._lost:
            flags[(time.first_ns < closes) & (time.last_ns >= opens)] |= np.uint8(BarFlag.PARTIAL)
            between = np.maximum(time.first_ns, before) < np.minimum(time.last_ns + 1, opens)
            flags[between] |= np.uint8(BarFlag.GAP_BEFORE)
        self._closed_ns = int(closes[-1])
        self._lost = [time for time in self._lost if time.last_ns >= self._closed_ns]
        return flags


def _times(counts: np.ndarray, unit: Fraction) -> FloatArray:
    """Return counts of ticks or lots in market units, the nearest doubles where the counts are whole."""
    return counts.astype(np.float64) * float(unit.numerator) / float(unit.denominator)


@njit(cache=True, nogil=True, error_model="numpy")
def _make(
    recv_ns: IntArray,
    price: IntArray,
    size: IntArray,
    side: NDArray[np.int8],
    flags: NDArray[np.uint8],
    excluded: int,
    measure: int,
    threshold: float,
    value_of_one: float,
    inverse: bool,
    open_bar: IntArray,
    open_turnover: FloatArray,
    ints: IntArray,
    turnover: FloatArray,
) -> int:
    """Fill a column of `ints` and `turnover` for every bar that ends; return how many. The open bar is kept in place.

    `ints` holds what `_INTS` names, `turnover` what `BarMaker` keeps of the open bar.
    """
    made = 0
    every = np.int64(threshold)
    for row in range(recv_ns.size):
        if flags[row] & excluded:
            continue
        at = recv_ns[row]
        if measure == 0 and open_bar[_TRADES] > 0 and at // every != open_bar[_OPEN_NS] // every:
            ints[:, made], turnover[made] = open_bar, open_turnover[0]
            made += 1
            open_bar[:], open_turnover[0] = 0, 0.0
        if open_bar[_TRADES] == 0:
            open_bar[_OPEN_NS] = at
            open_bar[_OPEN] = open_bar[_HIGH] = open_bar[_LOW] = price[row]
        open_bar[_TRADES] += 1
        open_bar[_LAST_NS], open_bar[_CLOSE] = at, price[row]
        open_bar[_HIGH], open_bar[_LOW] = max(open_bar[_HIGH], price[row]), min(open_bar[_LOW], price[row])
        open_bar[_VOLUME] += size[row]
        open_bar[_BOUGHT] += size[row] if side[row] > 0 else 0
        open_bar[_SOLD] += size[row] if side[row] < 0 else 0
        open_turnover[0] += size[row] / price[row] if inverse else float(price[row] - open_bar[_OPEN]) * size[row]
        if measure > 0 and _reached(measure, value_of_one, inverse, open_bar, open_turnover[0]) >= threshold:
            ints[:, made], turnover[made] = open_bar, open_turnover[0]
            made += 1
            open_bar[:], open_turnover[0] = 0, 0.0
    return made


@njit(cache=True, nogil=True, error_model="numpy")
def _reached(measure: int, value_of_one: float, inverse: bool, bar: IntArray, turnover: float) -> float:
    """Return how much of its measure a bar holds."""
    if measure == 1:
        return float(bar[_TRADES])
    if measure == 2:
        return float(bar[_VOLUME])
    if measure == 4:
        return float(abs(bar[_BOUGHT] - bar[_SOLD]))
    if inverse:
        return float(bar[_VOLUME]) * value_of_one
    return float(float(bar[_OPEN]) * bar[_VOLUME] + turnover) * value_of_one
