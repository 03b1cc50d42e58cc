"""The time of day: how much more or less than on average the price moves in each part of a UTC day.

A profile is a factor on variance, one a bin of half an hour (or of one step, where steps are longer), with mean one
over the bins that history shows. It is estimated from mean squared returns by bin and day, the squares cut at their
99.5 % quantile, and shrunk towards one as far as its spread is no more than the noise of its days (James and Stein
1961). History must show every bin on at least five days; below that, or for steps of a quarter of a day and longer,
it is flat.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.schema import NS_PER_DAY
from synth_pipeline.series import FloatArray, IntArray

_MOST_BINS, _FEWEST_DAYS, _FEWEST_STEPS = 48, 5, 4
_CUT = 0.995
FLAT = np.ones(1)
"""The profile without a time of day."""


def profile_of(returns: FloatArray, labels_ns: IntArray, step_ns: int) -> tuple[FloatArray, str | None]:
    """Return factors of equal parts of the day, and why they are flat where they are."""
    if step_ns * _FEWEST_STEPS > NS_PER_DAY or NS_PER_DAY % step_ns:
        return FLAT, None
    bins = min(_MOST_BINS, NS_PER_DAY // step_ns)
    part, day = (labels_ns - 1) % NS_PER_DAY * bins // NS_PER_DAY, (labels_ns - 1) // NS_PER_DAY
    squares = np.minimum(returns**2, np.quantile(returns**2, _CUT))
    cells, where = np.unique(np.stack((part, day)), axis=1, return_inverse=True)
    daily = np.bincount(where.ravel(), squares) / np.bincount(where.ravel())
    days = np.bincount(cells[0], minlength=bins)
    seen = days > 0
    if days[seen].min() < _FEWEST_DAYS:
        return FLAT, (
            f"the time of day is left out: its least seen part is on {days[seen].min()} days and "
            f"{_FEWEST_DAYS} are needed"
        )
    means = np.bincount(cells[0], daily, bins)[seen] / days[seen]
    spreads = np.bincount(cells[0], daily**2, bins)[seen] / days[seen] - means**2
    noise = float(np.mean(np.maximum(spreads, 0.0) / (days[seen] - 1)))
    kept = max(0.0, 1.0 - noise / max(float(means.var()), 1e-300))
    factors = np.ones(bins)
    factors[seen] = 1.0 + kept * (means / means.mean() - 1.0)
    return np.maximum(factors, 1e-2), None


def at(profile: FloatArray, labels_ns: IntArray) -> FloatArray:
    """Return the factor of the part of the day that each label closes."""
    return profile[(labels_ns - 1) % NS_PER_DAY * len(profile) // NS_PER_DAY]
