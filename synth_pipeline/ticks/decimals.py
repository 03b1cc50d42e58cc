"""Decimal strings to exact integers, and the price and lot grid that a day of them lies on. Floats take no part."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from numba import njit

WIRE_DECIMALS = 8
"""Digits after the point that the integers keep; no venue here sends more."""
PRICE_MAJORITY = 0.999
"""Share of a day's prices that must lie on a grid for it to be the tick grid; the rest is quarantined."""


def to_integers(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Parse plain decimals such as `61800.20` into units of 1e-8.

    Returns int64 values and a boolean mask of those that are plain non-negative decimals which fit; where the mask is
    False the value is 0.
    """
    if not texts:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    fixed = np.array([text.encode("ascii", "replace") for text in texts], dtype=np.bytes_)
    return _parse(fixed.view(np.uint8).reshape(len(texts), fixed.dtype.itemsize))


@njit(cache=True)
def _parse(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.zeros(texts.shape[0], np.int64)
    valid = np.zeros(texts.shape[0], np.bool_)
    for row in range(texts.shape[0]):
        value, digits, after = np.int64(0), 0, -1
        fits = True
        for column in range(texts.shape[1]):
            character = texts[row, column]
            if character == 0:
                break
            if character == 46 and after < 0:
                after = 0
            elif 48 <= character <= 57:
                digits += 1
                if after >= 0:
                    after += 1
                if after > WIRE_DECIMALS:
                    fits = fits and bool(
                        character == 48
                    )  # more zeros change nothing; another digit would be rounded away
                else:
                    fits = fits and bool(value <= (9_223_372_036_854_775_807 - (character - 48)) // 10)
                    value = value * 10 + (character - 48)
            else:
                fits = False
        for _ in range(WIRE_DECIMALS - min(max(after, 0), WIRE_DECIMALS)):
            fits = fits and bool(value <= 922_337_203_685_477_580)
            value *= 10
        if fits and digits > 0:
            values[row], valid[row] = value, True
    return values, valid


_MOST_ZEROS = 19
_EVEN, _FIVE, _OTHER = range(3)


class Steps:
    """Counts on which steps of 1, 2 or 5 × 10^k units the positive ones of many values lie, a piece at a time.

    A value lies on every such step below its last digit that is not zero; on the three steps at that digit it lies by
    whether the digit is even, five, or neither. So the place and kind of that digit are all that need be counted.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((_MOST_ZEROS, 3), dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Take some values."""
        _count_last_digits(values, self._counts)

    def coarsest(self, majority: float) -> int:
        """Return the coarsest step on which at least this share of the values lies, 1 for no values."""
        total = int(self._counts.sum())
        for power in range(14 if total else -1, -1, -1):
            beyond = int(self._counts[power + 1 :].sum())
            even, five, other = self._counts[power].tolist()
            for leading, here in ((5, five), (2, even), (1, even + five + other)):
                if beyond + here >= majority * total:
                    return int(leading * 10**power)
        return 1


@njit(cache=True)
def _count_last_digits(values: np.ndarray, counts: np.ndarray) -> None:
    for value in values:
        if value <= 0:
            continue
        zeros = 0
        # Constant divisors: each is a multiplication.
        while value % 100_000_000 == 0:
            value, zeros = value // 100_000_000, zeros + 8
        if value % 10_000 == 0:
            value, zeros = value // 10_000, zeros + 4
        if value % 100 == 0:
            value, zeros = value // 100, zeros + 2
        if value % 10 == 0:
            value, zeros = value // 10, zeros + 1
        digit = value % 10
        counts[zeros, _FIVE if digit == 5 else _EVEN if digit % 2 == 0 else _OTHER] += 1


def infer_grid(values: np.ndarray, majority: float) -> int:
    """Return the coarsest step of 1, 2 or 5 × 10^k units on which at least this share of the positive values lies.

    Exchanges change tick sizes over the years and captures do not carry them, so the day's own values decide. For
    prices a majority below one keeps a corrupt minority from making the grid finer; for sizes it is one, since venues
    do hold dust finer than today's lot rule (a Binance spot snapshot of 2024 carries three such levels). Returns 1
    for no values.
    """
    steps = Steps()
    steps.add(values)
    return steps.coarsest(majority)


def as_decimal(units: int) -> Decimal:
    """Return a number of 1e-8 units as an exact decimal without trailing zeros."""
    return Decimal(units).scaleb(-WIRE_DECIMALS).normalize() + Decimal(0)
