"""The time of day: how much more or less than on average happens in each half hour of a UTC day.

One factor scales all rates of a flow. It is the rate of messages in a half hour relative to the mean over the half
hours that were watched, drawn towards 1 as far as it differs no more than five-minute counts let one expect (the
positive-part rule of James and Stein 1961; neighbouring five minutes are taken to share one rate). Half hours never
watched have 1.
"""

import numpy as np

from synth_pipeline.market.compiling import kernel
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray

_BIN_NS, _PART_NS = 1800 * NS_PER_SECOND, 300 * NS_PER_SECOND
_FEWEST_BINS = 4
FLAT = np.ones(1)
"""The shape without a time of day."""


def shape_of(time_ns: IntArray, spans: IntArray) -> tuple[FloatArray, str | None]:
    """Return the factors, one a half hour, from times of messages and watched spans (shape (spans, 2)).

    Also returns why they are flat, where they are.
    """
    bins, parts = NS_PER_DAY // _BIN_NS, _BIN_NS // _PART_NS
    first = int(spans[0, 0]) // _PART_NS
    watched = _watched(spans, first)
    counts = np.bincount(time_ns // _PART_NS - first, minlength=watched.size)[: watched.size]
    whole = watched >= 0.5 * _PART_NS / NS_PER_SECOND
    number = (np.arange(watched.size)[whole] + first) // parts % bins
    rates = counts[whole] / watched[whole]
    seen = np.bincount(number, minlength=bins)
    known = seen >= 3
    if known.sum() < _FEWEST_BINS:
        return FLAT, f"no time of day: {known.sum()} half hours were watched and {_FEWEST_BINS} are needed"
    means = np.bincount(number, rates, bins)[known] / seen[known]
    spreads = np.bincount(number, rates**2, bins)[known] / seen[known] - means**2
    noise = float(np.mean(np.maximum(spreads, 0.0) / (seen[known] - 1)))
    kept = max(0.0, 1.0 - noise / max(float(means.var()), 1e-300))
    shape = np.ones(bins)
    shape[known] = np.maximum(1.0 + kept * (means / means.mean() - 1.0), 1e-2)
    return shape, None


def _watched(spans: IntArray, first: int) -> FloatArray:
    """Return the seconds watched of each five minutes since number `first`."""
    count = int(spans[-1, 1]) // _PART_NS - first + 1
    watched = np.zeros(count)
    for start, end in spans.tolist():
        for number in range(start // _PART_NS, end // _PART_NS + 1):
            inside = min(end, (number + 1) * _PART_NS) - max(start, number * _PART_NS)
            watched[number - first] += max(inside, 0) / NS_PER_SECOND
    return watched


@kernel
def activity(shape: FloatArray, now_ns: int) -> float:
    """Return the factor at a time."""
    return float(shape[now_ns % NS_PER_DAY * shape.size // NS_PER_DAY])


@kernel
def shape_end_ns(shape: FloatArray, now_ns: int) -> int:
    """Return when the factor may change next."""
    if shape.size == 1:
        return 2**62
    bin_ns = NS_PER_DAY // shape.size
    return (now_ns // bin_ns + 1) * bin_ns


@kernel
def next_candidate(
    shape: FloatArray, since_ns: IntArray, next_ns: IntArray, rate: float, until_ns: int, rng: np.random.Generator
) -> int:
    """Return the next time of a Poisson process of `rate` times the factor, or -1 when it lies beyond `until_ns`.

    `since_ns` and `next_ns`, one entry each, hold the last time and the one that is drawn (0: none), so that the times
    do not depend on how often it is asked. Nothing comes at the rate 0.
    """
    if rate <= 0.0:
        return -1
    if next_ns[0] == 0:
        next_ns[0] = _after(shape, since_ns[0], rng.standard_exponential(), rate)
    if next_ns[0] > until_ns:
        return -1
    since_ns[0] = next_ns[0]
    next_ns[0] = 0
    return int(since_ns[0])


@kernel
def _after(shape: FloatArray, now_ns: int, mass: float, rate: float) -> int:
    """Return when a rate times the factor adds up to `mass`."""
    if shape.size == 1:
        return now_ns + int(mass / rate * NS_PER_SECOND + 0.5)
    while True:
        pace = rate * activity(shape, now_ns)
        end_ns = shape_end_ns(shape, now_ns)
        left = (end_ns - now_ns) / NS_PER_SECOND
        if mass <= pace * left:
            return now_ns + int(mass / pace * NS_PER_SECOND + 0.5)
        mass -= pace * left
        now_ns = end_ns
