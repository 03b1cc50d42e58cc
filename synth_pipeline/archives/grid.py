"""The tick and lot grid that exact decimals lie on, found at bounded memory, and the decimals counted on it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.archives.fields import Decimals

_LOWEST, _HIGHEST = -30, 30
_LARGEST = 2**62
_MOST = 0.999
_QUARTERS = 1
PRICE_MAJORITY = 0.999
"""Share of a day's prices that must lie on a grid for it to be the tick grid; the rest is quarantined."""


class Step(NamedTuple):
    """A grid of `leading` × 10^`exponent`."""

    leading: int
    exponent: int

    @classmethod
    def of(cls, size: Decimal) -> Step:
        """Read back what `size` said."""
        parts = size.normalize().as_tuple()
        return cls(int("".join(map(str, parts.digits))), int(parts.exponent))

    @property
    def size(self) -> Decimal:
        """The step as an exact decimal."""
        return Decimal(self.leading).scaleb(self.exponent).normalize() + Decimal(0)


class Tally:
    """How many numbers lie on each step of 1, 2, 2.5 or 5 × 10^k; numbers are added piece by piece."""

    def __init__(self) -> None:
        self._counts = np.zeros((_HIGHEST - _LOWEST + 1, 4), np.int64)
        """By exponent: numbers whose mantissa is a multiple of 2, of 25, of 5 but not of 25, of none of them."""
        self._largest = np.zeros(_HIGHEST - _LOWEST + 1, np.int64)
        """By exponent: the largest mantissa seen."""

    def add(self, numbers: Decimals) -> None:
        """Count the positive ones."""
        _count(numbers.mantissa.reshape(-1), numbers.exponent.reshape(-1), self._counts, self._largest)

    def step(self, majority: float) -> Step:
        """Return the coarsest step on which at least this share of the numbers lies; 1 for no numbers.

        Where that is so fine that large numbers would not fit into 62 bits, which a few corrupt ones can bring about,
        it is the step on which most numbers both lie and fit.
        """
        found = self._coarsest(majority)
        held = {exponent: self._held(exponent) for exponent in range(_HIGHEST, found.exponent - 1, -1)}
        if held[found.exponent] == self._counts[found.exponent - _LOWEST :].sum():
            return found
        return Step(1, next(exponent for exponent, count in held.items() if count >= _MOST * max(held.values())))

    def _coarsest(self, majority: float) -> Step:
        total = self._counts.sum()
        if total == 0:
            return Step(1, 0)
        for exponent in range(_HIGHEST, _LOWEST - 1, -1):
            row = exponent - _LOWEST
            (twos, quarters, fives, _), above = self._counts[row], self._counts[row + 1 :].sum()
            finer = self._counts[row - 1][_QUARTERS] if row else 0
            for step, more in (
                (Step(5, exponent), quarters + fives),
                (Step(25, exponent - 1), quarters + fives + finer),
                (Step(2, exponent), twos),
                (Step(1, exponent), self._counts[row].sum()),
            ):
                if above + more >= majority * total:
                    return step
        return Step(1, _LOWEST)

    def _held(self, exponent: int) -> int:
        """Return how many numbers surely lie on a power of ten and fit, judged by the largest of each exponent."""
        return sum(
            int(self._counts[row].sum())
            for row in range(exponent - _LOWEST, len(self._counts))
            if int(self._largest[row]) * 10 ** (row + _LOWEST - exponent) <= _LARGEST
        )


def common_step(steps: Sequence[Step]) -> Step:
    """Return the coarsest step on whose grid all of these lie."""
    finest = min(steps, key=lambda step: step.size)
    together = all(step.size % finest.size == 0 for step in steps)
    return finest if together else Step(1, min(step.exponent for step in steps))


def on_grid(numbers: Decimals, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Return how many steps each number is, and where it is a whole number of steps that fits; 0 elsewhere."""
    shape = numbers.mantissa.shape
    mantissa, exponent, valid = (part.reshape(-1) for part in numbers)
    values, fits = _on_grid(mantissa, exponent, valid, step.leading, step.exponent)
    return values.reshape(shape), fits.reshape(shape)


@njit(cache=True)
def _count(mantissa: np.ndarray, exponent: np.ndarray, counts: np.ndarray, largest: np.ndarray) -> None:
    for row in range(len(mantissa)):
        if mantissa[row] > 0:
            at = min(max(exponent[row], _LOWEST), _HIGHEST) - _LOWEST
            # A mantissa never ends in zero, so 2 and 5 never both divide it.
            divisor = 0 if mantissa[row] % 2 == 0 else (1 if mantissa[row] % 25 == 0 else 2)
            counts[at, divisor if divisor < 2 or mantissa[row] % 5 == 0 else 3] += 1
            largest[at] = max(largest[at], mantissa[row])


@njit(cache=True)
def _on_grid(
    mantissa: np.ndarray, exponent: np.ndarray, valid: np.ndarray, leading: int, step_exponent: int
) -> tuple[np.ndarray, np.ndarray]:
    values, fits = np.zeros(len(mantissa), np.int64), np.zeros(len(mantissa), np.bool_)
    for row in range(len(mantissa)):
        if not valid[row] or (mantissa[row] != 0 and exponent[row] < step_exponent):
            continue
        value, sound = mantissa[row], True
        for _ in range(exponent[row] - step_exponent if mantissa[row] != 0 else 0):
            if abs(value) > _LARGEST // 10:
                sound = False
                break
            value *= 10
        if sound and value % leading == 0:
            values[row], fits[row] = value // leading, True
    return values, fits
