"""Signature MMD: a distance of the laws of whole paths, by the log-signatures of short stretches.

A path is augmented with time and with its own lag (the lead-lag transform, which makes its quadratic variation visible
as area), its log-signature is cut off at level 4 and laid out as tensor coordinates. Level k holds the k-fold iterated
integrals. Two sets of log-signatures are compared by the maximum mean discrepancy with a Gaussian kernel, whose
unbiased estimate is 0 on average for two samples of one law. Chevyrev and Oberhauser (2022), "Signature moments to
characterize laws of stochastic processes", JMLR 23(176); Gretton et al. (2012), "A kernel two-sample test", JMLR 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import moments
from synth_pipeline.fidelity.metric import metric, window_metric
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray, IntArray

LEVELS = 4
LANES = 80
"""Paths that the kernel takes side by side; loops over fewer than 56 are unrolled, and twice as slow."""
STRETCH = 20
"""Returns of one stretch."""
MOST = 150
"""Stretches of one side that are compared, equally spaced: cost is quadratic."""


@metric(
    title="Signature MMD",
    goal="low",
    bounds=(0.0, np.sqrt(2.0)),
    minimum=10 * STRETCH,
    citation="Chevyrev, Oberhauser 2022, JMLR 23(176); Gretton et al. 2012, JMLR 13",
    meaning="Stretches of the path are told apart by their shape: order and size of moves together are wrong.",
)
def signature_mmd(real: Sample, synthetic: Sample) -> float:
    """Maximum mean discrepancy of log-signatures of stretches of 20 log-returns; 0 where the unbiased square is less.

    Of at most 150 stretches a side, scaled by the standard deviation of all real log-returns.
    """
    spread, law = real.once(_law)
    squared, _ = law.discrepancy(features(_stretches(synthetic) / spread))
    return float(np.sqrt(max(squared, 0.0)))


def _law(real: Sample) -> tuple[float, Law]:
    spread = float(moments.standard_deviation(real.pooled[np.newaxis])[0])
    if spread == 0.0:
        raise MetricError("signature_mmd is undefined: all real returns are equal")
    return spread, Law.of(features(_stretches(real) / spread))


@window_metric(
    title="Signature MMD of windows",
    goal="low",
    bounds=(-1.0, 2.0),
    minimum=50,
    citation="Chevyrev, Oberhauser 2022, JMLR 23(176); Gretton et al. 2012, JMLR 13",
    meaning="Windows are told apart by the shape of their paths, one feature beside the others.",
)
def window_signature_mmd(_: Windows, synthetic: Windows, holdout: Windows, **__: object) -> float:
    """Unbiased squared maximum mean discrepancy of windows, by the log-signatures of all features side by side.

    Of at most 150 windows a side; each feature scaled by the standard deviation of its real changes.
    """
    centre, spread, law = holdout.once(_window_law)
    changes = synthetic.thinned(MOST).changes - centre
    return law.discrepancy(features(changes[:, :, spread > 0] / spread[spread > 0]))[0]


def _window_law(real: Windows) -> tuple[FloatArray, FloatArray, Law]:
    """Return mean and deviation of the changes of each feature, and their law; many sets are held against one."""
    changes = real.thinned(MOST).changes
    # Changes that were scaled to [0, 1] have lost their 0: paths go from the real mean.
    centre, spread = changes.mean(axis=(0, 1)), changes.std(axis=(0, 1))
    if not (spread > 0).any():
        raise MetricError("window_signature_mmd is undefined: no real feature moves")
    return centre, spread, Law.of(features((changes - centre)[:, :, spread > 0] / spread[spread > 0]))


def features(changes: FloatArray) -> FloatArray:
    """Return the log-signatures of stretches, features side by side, shape (n, length, features) → (n, numbers).

    Changes are summed to a path over √length, so that a random walk of deviation 1 ends at about 1 whatever the length.
    """
    length, count = changes.shape[1:]
    each = [log_signatures(lead_lag(changes[:, :, at] / np.sqrt(length))) for at in range(count)]
    return np.concatenate(each, axis=1)


def lead_lag(changes: FloatArray) -> FloatArray:
    """Return the increments of (time, lead, lag) of paths from their changes, (n, steps) → (n, 2 · steps, 3).

    The lead moves first, with half a step of time; then the lag follows it. Time goes from 0 to 1.
    """
    count, steps = changes.shape
    moves = np.zeros((count, 2 * steps, 3))
    moves[:, :, 0] = 0.5 / steps
    moves[:, 0::2, 1] = changes
    moves[:, 1::2, 2] = changes
    return moves


def signatures(moves: FloatArray) -> FloatArray:
    """Return the signatures of paths, of increments (n, steps, d), level after level; shape (n, d + d² + d³ + d⁴).

    In each level the last index runs fastest.
    """
    return _in_lanes(moves, logarithm=False)


def log_signatures(moves: FloatArray) -> FloatArray:
    """Return the logarithms of the signatures of paths, laid out as `signatures` does."""
    return _in_lanes(moves, logarithm=True)


@njit(cache=True, error_model="numpy")
def _in_lanes(moves: FloatArray, logarithm: bool) -> FloatArray:
    """Return the signatures of paths or their logarithms.

    Paths go side by side in lanes, since the numbers of one path are too few to be worth vector instructions.
    """
    count, steps, d = moves.shape
    bounds = np.cumsum(np.array([0, d, d**2, d**3, d**4]))
    result = np.empty((count, bounds[-1]))
    so_far, scratch = np.empty((bounds[-1], LANES)), np.zeros((d**4, LANES))
    step = np.zeros((d, LANES))
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        so_far[:] = 0.0
        for t in range(steps):
            step[:, :lanes] = moves[first : first + lanes, t].T
            _go_on(so_far, bounds, step, scratch)
        if logarithm:
            _take_logarithm(so_far, bounds)
        result[first : first + lanes] = so_far[:, :lanes].T
    return result


@njit(cache=True, error_model="numpy")
def _go_on(so_far: FloatArray, bounds: IntArray, step: FloatArray, gain: FloatArray) -> None:
    """Multiply signatures by the exponential of the next increment s, in place, by Chen's identity.

    Highest level first, in Horner's scheme: level 3 gains ((s / 3 + S1) s / 2 + S2) s.
    """
    head = np.empty(LANES)
    for level in range(LEVELS, 0, -1):
        level_so_far = so_far[bounds[level - 1] : bounds[level]]
        _add(level_so_far if level == 1 else gain, step, 1.0 / level, 1.0 if level == 1 else 0.0)
        for lower in range(1, level):
            known, share = so_far[bounds[lower - 1] : bounds[lower]], 1.0 / (level - lower)
            is_last = lower == level - 1
            _lengthen(level_so_far if is_last else gain, 1.0 if is_last else 0.0, gain, known, step, share, head)


@njit(cache=True, error_model="numpy")
def _add(rows: FloatArray, other: FloatArray, share: float, kept: float) -> None:
    """Make the first rows a share of themselves plus one of the others, in place."""
    for i in range(len(other)):
        row, more = rows[i], other[i]
        for lane in range(LANES):
            row[lane] = kept * row[lane] + share * more[lane]


@njit(cache=True, error_model="numpy")
def _lengthen(
    rows: FloatArray,
    kept: float,
    gain: FloatArray,
    so_far: FloatArray,
    step: FloatArray,
    share: float,
    head: FloatArray,
) -> None:
    """Make rows a share of themselves plus the product of `gain` and `so_far` with a share of a step, in place.

    From the last row on, since the rows may be those of `gain`.
    """
    d = len(step)
    for i in range(len(so_far) - 1, -1, -1):
        old, known = gain[i], so_far[i]
        for lane in range(LANES):
            head[lane] = (old[lane] + known[lane]) * share
        for j in range(d):
            row, letter = rows[i * d + j], step[j]
            for lane in range(LANES):
                row[lane] = kept * row[lane] + head[lane] * letter[lane]


@njit(cache=True, error_model="numpy")
def _take_logarithm(signature: FloatArray, bounds: IntArray) -> None:
    """Make signatures their logarithms, in place: x - x²/2 + x³/3 - x⁴/4 in the tensor algebra, without 1 for level 0.

    As x has no level 0, nothing is cut off but levels above 4.
    """
    one, two, three, four = (
        signature[: bounds[1]],
        signature[bounds[1] : bounds[2]],
        signature[bounds[2] : bounds[3]],
        signature[bounds[3] :],
    )
    # The squares, cubes and fourth power of x, level by level.
    square_two = _product(one, one)
    square_three = _product(one, two) + _product(two, one)
    square_four = _product(one, three) + _product(two, two) + _product(three, one)
    cube_three = _product(square_two, one)
    cube_four = _product(square_two, two) + _product(square_three, one)
    four[:] = four - square_four / 2.0 + cube_four / 3.0 - _product(cube_three, one) / 4.0
    three[:] = three - square_three / 2.0 + cube_three / 3.0
    two[:] = two - square_two / 2.0


@njit(cache=True, error_model="numpy")
def _product(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the tensor product of rows, the index of the second running fastest."""
    product = np.empty((len(first) * len(second), LANES))
    for i in range(len(first)):
        for j in range(len(second)):
            row, one, two = product[i * len(second) + j], first[i], second[j]
            for lane in range(LANES):
                row[lane] = one[lane] * two[lane]
    return product


@dataclass(frozen=True, eq=False)
class Law:
    """Real rows of numbers, ready to be held against synthetic ones."""

    rows: FloatArray
    """Of the numbers that vary, over their standard deviations."""
    scales: FloatArray
    """The standard deviation of each number, 0 for one that does not vary and is left out."""
    width: float
    """Median squared distance of two rows: twice the squared width of the Gaussian kernel."""
    within: float
    """Mean kernel of two rows."""
    variance: float
    """Mean square of the centred kernel of two rows."""

    @classmethod
    def of(cls, real: FloatArray) -> Self:
        """Prepare real rows. Raises `MetricError` for fewer than two, or rows that are all equal."""
        spread = real.std(axis=0)
        # Coordinates that are 0 for every path, such as those of time alone, hold nothing but rounding.
        scales = np.where(spread > 1e-9 * spread.max(initial=0.0), spread, 0.0)
        rows = real[:, scales > 0] / scales[scales > 0]
        squares = _squares(rows, rows)
        width = float(np.median(squares[np.triu_indices(len(rows), 1)])) if len(rows) > 1 else 0.0
        if width <= 0:
            raise MetricError(f"a discrepancy needs real stretches that differ, these {len(rows)} do not")
        kernel = np.exp(-squares / width)
        means = kernel.mean(axis=0)
        centred = kernel - means - means[:, np.newaxis] + kernel.mean()
        return cls(rows, scales, width, _off_diagonal(kernel), _off_diagonal(centred**2))

    def discrepancy(self, synthetic: FloatArray) -> tuple[float, float]:
        """Return the unbiased squared maximum mean discrepancy, and its standard deviation if both had one law.

        The deviation is the one of the degenerate U-statistic that the estimate is under one law (Gretton et al. 2012,
        section 5), from the real kernel values: no permutations. It takes rows to be independent. Raises `MetricError`
        for fewer than two synthetic rows.
        """
        n, m = len(self.rows), len(synthetic)
        if m < 2:
            raise MetricError(f"a discrepancy needs 2 synthetic stretches, there are {m}")
        rows = synthetic[:, self.scales > 0] / self.scales[self.scales > 0]
        other = _off_diagonal(np.exp(-_squares(rows, rows) / self.width))
        across = float(np.exp(-_squares(self.rows, rows) / self.width).mean())
        weight = 2.0 / (n * (n - 1)) + 2.0 / (m * (m - 1)) + 4.0 / (n * m)
        return self.within + other - 2.0 * across, float(np.sqrt(self.variance * weight))


def _off_diagonal(kernel: FloatArray) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _squares(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the squared distances of rows, shape (n, m)."""
    squares: FloatArray = (first**2).sum(axis=1)[:, np.newaxis] + (second**2).sum(axis=1) - 2.0 * first @ second.T
    return np.maximum(squares, 0.0, out=squares)


def _stretches(sample: Sample) -> FloatArray:
    """Return at most 150 stretches of 20 log-returns, side by side from the start of each run, shape (n, 20, 1).

    Equally spaced where there are more. Raises `MetricError` where no run is long enough for one.
    """
    row = sample.in_a_row
    place, is_gap = np.arange(row.size), np.isnan(row)
    since_gap = place - np.maximum.accumulate(np.where(is_gap, place, -1)) - 1
    gaps = np.concatenate([[0], np.cumsum(is_gap)])
    starts = place[: row.size - STRETCH + 1]
    starts = starts[(since_gap[starts] % STRETCH == 0) & (gaps[starts + STRETCH] == gaps[starts])]
    if not starts.size:
        raise MetricError(f"signature_mmd needs {STRETCH} known returns in a row: gaps cut the sample shorter")
    if starts.size > MOST:
        starts = starts[np.linspace(0, starts.size - 1, MOST).round().astype(np.int64)]
    return row[starts[:, np.newaxis] + np.arange(STRETCH), np.newaxis]
