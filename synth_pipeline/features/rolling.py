"""Features over a moving window of grid rows: liquidity, impact, volatility with and without jumps, arrival, cancels.

What belongs here: what is computed from rows of `schema.GRID` and needs more than one of them. Nothing is stored: a
window is an argument, and any stretch of rows that reaches a window back gives the same numbers. The row of label t
says what the rows up to t say, so it knows nothing later.

**Gaps.** A window that holds a row which a gap of the stream concerned hides, or lacks a row, is NaN, and so are the
first rows, until a window is full and clean. A bucket without a trade is no gap.

**Bit for bit.** A window's sum is the sum of the end of one block of rows and the beginning of the next, where blocks
are as long as the window and lie at multiples of it since the epoch (van Herk (1992), Pattern Recognition Letters 13).
That takes two additions a row however long the window is, no rounding error is carried on, and where the rows begin
changes nothing. What is not a sum is computed for each window on its own.

In the formulas r is the log change of the mid over a bucket, n the rows of the window, and sums run over it:

- `return_variance`: realized variance, sum of r² (Andersen, Bollerslev, Diebold, Labys (2003), Econometrica 71).
- `bipower_variance`: π/2 · n/(n - 1) · sum of |r| |r before|, which jumps hardly move; `jump_share`: max(0, 1 -
  bipower / realized variance) (Barndorff-Nielsen and Shephard (2004), Journal of Financial Econometrics 2).
- `roll_spread`: 2 √(-c), c the covariance of successive changes of the last price of buckets with trades; NaN when c is
  positive or there are fewer than four such buckets (Roll (1984), Journal of Finance 39).
- `kyle_lambda`: slope of the regression of mid changes on signed volume, price per size; NaN while signed volume rests
  (Kyle (1985), Econometrica 53).
- `amihud`: mean over buckets with trades of |r| over value traded (Amihud (2002), Journal of Financial Markets 5).
- `trade_imbalance`: sum of signed volume over sum of volume, -1..1.
- `integrated_ofi`: order-flow imbalance of the five best levels, summed with equal weights.
- `cancel_rate`: max(0, 1 - volume / depth removed): the share of the size that left the ten best levels and that trades
  do not explain. L2 does not say why size left, so this is an estimate from sums.
- `quote_interval`, `trade_interval`: mean time between two arrivals of the window, s; `quote_interval_cv`,
  `trade_interval_cv`: its coefficient of variation, 1 for a Poisson stream; from two and three arrivals on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit

from synth_pipeline.errors import InputError
from synth_pipeline.features.buckets import Columns
from synth_pipeline.series import FloatArray

Feature = Callable[["_Rows"], FloatArray]


class _Rows:
    """Grid rows on an unbroken grid, NaN where one is missing, and the window."""

    def __init__(self, columns: Columns, length: int, step_ns: int, value: FloatArray | None) -> None:
        labels = columns["label_ns"]
        self.first = int(labels[0]) // step_ns
        self.rows = labels // step_ns - self.first
        self.count = int(self.rows[-1]) + 1
        self.length, self.step_ns = length, step_ns
        self.has_value = value is not None
        self._columns = columns if value is None else {**columns, "value": value}

    def __getitem__(self, name: str) -> FloatArray:
        whole = np.full(self.count, np.nan)
        whole[self.rows] = self._columns[name]
        return whole

    def sum(self, values: FloatArray, length: int | None = None) -> FloatArray:
        """Return the sum over the window that ends at each row."""
        return rolling_sum(values, length or self.length, self.first)

    @property
    def moves(self) -> FloatArray:
        """Mid changes, NaN over lost quotes: the mid of a bucket that a gap touched may be known at its end."""
        return np.where(np.isfinite(self["ofi"]), np.diff(self["mid"], prepend=np.nan), np.nan)

    @property
    def returns(self) -> FloatArray:
        """Log changes of the mid, NaN likewise."""
        mid = self["mid"]
        logs = np.log(mid, out=np.full(self.count, np.nan), where=mid > 0)
        return np.where(np.isfinite(self.moves), np.diff(logs, prepend=np.nan), np.nan)


def rolling_features(
    columns: Columns, names: tuple[str, ...], *, length: int, step_ns: int, value: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Return `label_ns` and the features `names` of every row, over windows of `length` rows.

    `columns` are those of `schema.GRID` that the features need, of one day or of several, labels ascending. `value` is
    what was traded in each row in quote currency, for instruments whose volume counts contracts (contracts times the
    value of one); left out, it is VWAP times volume. Raises `InputError` for a window below two rows, labels that do
    not ascend on the grid, and names that no feature has.
    """
    labels = columns["label_ns"]
    if length < 2:
        raise InputError(f"a window of {length} rows is too short: take 2 or more")
    if step_ns <= 0:
        raise InputError(f"a grid of {step_ns} ns has no rows: take a positive step")
    if len(labels) and ((np.diff(labels) <= 0).any() or (labels % step_ns).any()):
        raise InputError(f"label_ns does not ascend on a grid of {step_ns} ns: join days in order, and check the step")
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise InputError(f"no rolling feature {unknown[0]!r}: known are {', '.join(FEATURES)}")
    if not len(labels):
        return {"label_ns": labels, **{name: np.empty(0) for name in names}}
    rows = _Rows(columns, length, step_ns, value)
    return {"label_ns": labels, **{name: FEATURES[name](rows)[rows.rows] for name in names}}


def rolling_sum(values: FloatArray, length: int, first: int = 0) -> FloatArray:
    """Return the sum of `values` over the `length` rows up to each one; NaN where one of them is, or is missing.

    `first` is the number of the first row: equal rows with equal numbers give equal bits, wherever the array begins.
    """
    before = first % length
    after = -(before + values.size) % length
    blocks = np.concatenate((np.full(before, np.nan), values, np.full(after, np.nan))).reshape(-1, length)
    heads = np.cumsum(blocks, axis=1).ravel()
    tails = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    place = np.arange(before, before + values.size)
    start = place - length + 1
    is_whole = start % length == 0
    sums = np.where(is_whole, heads[place], heads[place] + tails[start])
    return np.where(start < before, np.nan, sums)


def _return_variance(rows: _Rows) -> FloatArray:
    return rows.sum(rows.returns**2)


def _bipower_variance(rows: _Rows) -> FloatArray:
    sizes = np.abs(rows.returns)
    products = np.full(rows.count, np.nan)
    products[1:] = sizes[1:] * sizes[:-1]
    return math.pi / 2 * rows.length / (rows.length - 1) * rows.sum(products, rows.length - 1)


def _jump_share(rows: _Rows) -> FloatArray:
    variance = _return_variance(rows)
    return np.maximum(1 - _ratio(_bipower_variance(rows), variance), 0)


def _kyle_lambda(rows: _Rows) -> FloatArray:
    size, moves, n = rows["signed_volume"], rows.moves, rows.length
    sum_size, sum_square = rows.sum(size), rows.sum(size * size)
    spread = n * sum_square - sum_size**2
    # A signed volume that rests leaves a difference of rounding errors, and no slope.
    spread[spread <= 1e-12 * n * sum_square] = 0.0
    return _ratio(n * rows.sum(size * moves) - sum_size * rows.sum(moves), spread)


def _amihud(rows: _Rows) -> FloatArray:
    volume = rows["volume"]
    value = rows["value"] if rows.has_value else rows["vwap"] * volume
    has_trade = volume > 0
    cost = np.where(has_trade, np.abs(rows.returns) / np.where(has_trade, value, 1.0), 0.0 * (volume + rows.returns))
    return _ratio(rows.sum(cost), rows.sum(np.where(np.isfinite(volume), has_trade, np.nan)))


def _trade_imbalance(rows: _Rows) -> FloatArray:
    return _ratio(rows.sum(rows["signed_volume"]), rows.sum(rows["volume"]))


def _integrated_ofi(rows: _Rows) -> FloatArray:
    flow = rows["ofi_1"] + rows["ofi_2"] + rows["ofi_3"] + rows["ofi_4"] + rows["ofi_5"]
    return rows.sum(flow)


def _cancel_rate(rows: _Rows) -> FloatArray:
    return np.maximum(1 - _ratio(rows.sum(rows["volume"]), rows.sum(rows["depth_removed"])), 0)


def _roll_spread(rows: _Rows) -> FloatArray:
    covariance = np.full(rows.count, np.nan)
    _price_change_covariance(rows["last_price"], np.isnan(rows["volume"]), rows.length, covariance)
    return 2 * np.sqrt(np.where(covariance <= 0, -covariance, np.nan))


def _intervals(stream: str, which: int) -> Feature:
    def interval(rows: _Rows) -> FloatArray:
        out = np.full((2, rows.count), np.nan)
        count = rows[f"{stream}_count"]
        first, last = rows[f"{stream}_first"], rows[f"{stream}_last"]
        _interval_moments(count, first, last, rows[f"{stream}_interval_squares"], rows.step_ns / 1e9, rows.length, out)
        return np.asarray(out[which])

    return interval


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Return top / bottom, NaN where the bottom is 0."""
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0))


@njit(cache=True, nogil=True, error_model="numpy")
def _price_change_covariance(price: FloatArray, is_lost: np.ndarray, length: int, out: FloatArray) -> None:
    """Fill `out[t]` with the sample covariance of successive price changes among a clean window's rows with a price."""
    prices, lost = np.empty(length), 0
    for t in range(price.size):
        lost += is_lost[t]
        if t >= length:
            lost -= is_lost[t - length]
        if t + 1 < length or lost > 0:
            continue
        count = 0
        for row in range(t + 1 - length, t + 1):
            if not math.isnan(price[row]):
                prices[count] = price[row]
                count += 1
        pairs = count - 2
        if pairs < 2:
            continue
        early, late = (prices[count - 2] - prices[0]) / pairs, (prices[count - 1] - prices[1]) / pairs
        total = 0.0
        for i in range(pairs):
            total += (prices[i + 1] - prices[i] - early) * (prices[i + 2] - prices[i + 1] - late)
        out[t] = total / (pairs - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def _interval_moments(
    count: FloatArray,
    first: FloatArray,
    last: FloatArray,
    squares: FloatArray,
    step: float,
    length: int,
    out: FloatArray,
) -> None:
    """Fill `out`, shape (2, rows), with mean and coefficient of variation of the intervals within each clean window."""
    lost = 0
    for t in range(count.size):
        lost += math.isnan(count[t])
        if t >= length:
            lost -= math.isnan(count[t - length])
        if t + 1 < length or lost > 0:
            continue
        arrivals, begin, end, square = 0.0, 0.0, 0.0, 0.0
        for i in range(length):
            row = t + 1 - length + i
            if count[row] > 0:
                at = i * step + first[row]
                if arrivals == 0:
                    begin = at
                else:
                    square += (at - end) ** 2
                arrivals += count[row]
                square += squares[row]
                end = i * step + last[row]
        if arrivals >= 2:
            mean = (end - begin) / (arrivals - 1)
            out[0, t] = mean
            if arrivals >= 3 and mean > 0:
                out[1, t] = math.sqrt(max(square / (arrivals - 1) - mean * mean, 0.0)) / mean


FEATURES: dict[str, Feature] = {
    "return_variance": _return_variance,
    "bipower_variance": _bipower_variance,
    "jump_share": _jump_share,
    "roll_spread": _roll_spread,
    "kyle_lambda": _kyle_lambda,
    "amihud": _amihud,
    "trade_imbalance": _trade_imbalance,
    "integrated_ofi": _integrated_ofi,
    "cancel_rate": _cancel_rate,
    "quote_interval": _intervals("quote", 0),
    "quote_interval_cv": _intervals("quote", 1),
    "trade_interval": _intervals("trade", 0),
    "trade_interval_cv": _intervals("trade", 1),
}
"""Every rolling feature by name."""
