"""What `generators.py` measures, on windows of hourly bars: definitions only, with what each takes and means.

A window is 32 bars: the first gives the price that returns are from, the next `READ` hours are what is compared and
what a learner reads, the last `AHEAD` hours are what it is asked about. Nothing of an answer is in the hours that are
read: the label of train-on-synthetic-test-on-real (TSTR) lies beyond them. An hour is five numbers: the log distances
of close, open, high and low from the close before, and log(1 + volume).

- **TSTR ratio**: two questions of a window, whether the price is higher at its end than after the hours read, and
  whether the root mean square return of the hours ahead is above that of the median training window; a linear and a
  boosted learner (`fidelity.learners`). The mean accuracy on windows of the test period after training on synthetic
  windows, over that after training on real ones.
- **KL excess**: divergence of training from synthetic hourly returns by fifth nearest neighbours, in nats
  (`fidelity.neighbours`), beyond what one half of the days of training is from the other; at least 0.
- **ACF difference**: of the lag-1 autocorrelation of returns within windows; `clustering` is that of their sizes.
- **Diversity**: coverage of training windows by as many synthetic ones (`checklists.diversity`).
- **Discriminative score over fresh**: that of the published protocol between training and synthetic windows, over that
  between training windows and those of the test period: 1 is as hard to tell as what came next.
- **Copied share**: returns in verbatim runs of five or more (`copying.verbatim_share`), against all of training.
- **Survival**: share of windows in which a long position of `LEVERAGE` times its equity never loses half of it: stress
  survival, with ruin defined.
- **Sharpe gain**: annual Sharpe ratio over the test period of the linear answer to the first question, learned from
  real and synthetic windows together, less the same learned from real ones; windows that do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth_pipeline.fidelity import checklists, copying, kernels, learned_scores, moments, neighbours, stress
from synth_pipeline.fidelity.learned_scores import Repeats
from synth_pipeline.fidelity.learners import LEARNERS
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, IntArray, Series

READ, AHEAD = 24, 7
BARS = 1 + READ + AHEAD
TEACHERS = ("linear", "boosting")
TAUGHT, SCORED = 2_000, 3_000
"""Windows that a learner learns from, and that the discriminative score sees, a side."""
LEVERAGE, RUIN = 5.0, 0.5
HOURS_A_YEAR = 8_766
_DEALS, _DAY = 8, 24


def windows(series: Series, stride: int = 1) -> FloatArray:
    """Cut a series of bars into windows, shape (n, 31, 5): what each hour is, the first bar left out."""
    close = series.column("close")
    before = close[:, :-1]
    columns = [np.log(series.column(name)[:, 1:] / before) for name in ("close", "open", "high", "low")]
    hours = np.stack([*columns, np.log1p(series.column("volume")[:, 1:])], axis=2)
    cut = np.lib.stride_tricks.sliding_window_view(hours, BARS - 1, axis=1)[:, ::stride]
    return np.ascontiguousarray(cut.transpose(0, 1, 3, 2).reshape(-1, BARS - 1, hours.shape[2]))


def thinned(values: FloatArray, most: int) -> FloatArray:
    """Return at most so many, equally spaced."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(np.int64)]


def read(cut: FloatArray) -> FloatArray:
    """Return the hours that are compared and read."""
    return cut[:, :READ]


def sizes(cut: FloatArray) -> FloatArray:
    """Return the root mean square return of the hours ahead, shape (n,)."""
    return np.asarray(np.sqrt((cut[:, READ:, 0] ** 2).mean(axis=1)))


def moves(cut: FloatArray) -> FloatArray:
    """Return the log-return over the hours ahead, shape (n,)."""
    return np.asarray(cut[:, READ:, 0].sum(axis=1))


@dataclass(frozen=True)
class Taught:
    """How well questions about the test period are answered, and what trading on the answers earns."""

    direction: float
    size: float
    """Mean accuracies over the learners."""
    sharpe: float


def taught(source: FloatArray, train: FloatArray, test: FloatArray) -> Taught:
    """Learn from `source`, answer windows of the test period; `train` says what a median size is."""
    some, median = thinned(source, TAUGHT), float(np.median(sizes(train)))
    answers = {"direction": (moves(some) > 0, moves(test) > 0), "size": (sizes(some) > median, sizes(test) > median)}
    right: dict[str, list[float]] = {question: [] for question in answers}
    gains = np.zeros(1)
    for question, (known, truth) in answers.items():
        for name in TEACHERS:
            told = (
                LEARNERS[name](
                    read(some), known.astype(np.float64), read(test), classes=True, rng=stream(0, "taught", name)
                )
                > 0.5
            )
            right[question].append(float((told == truth).mean()))
            if (question, name) == ("direction", "linear"):
                gains = (np.where(told, 1.0, -1.0) * moves(test))[::AHEAD]
    sharpe = float(gains.mean() / gains.std() * np.sqrt(HOURS_A_YEAR / AHEAD))
    return Taught(*(float(np.mean(each)) for each in right.values()), sharpe)


def tstr_ratio(by_synthetic: Taught, by_real: Taught) -> float:
    """Return the ratio of the mean accuracies."""
    return (by_synthetic.direction + by_synthetic.size) / (by_real.direction + by_real.size)


def floor_of_divergence(train: FloatArray) -> float:
    """Return the mean divergence of one half of the days of training returns, shape (steps,), from the other."""
    days = train[: train.size // _DAY * _DAY].reshape(-1, _DAY)
    found, rng = [], stream(0, "days")
    for _ in range(_DEALS):
        order = rng.permutation(len(days))
        found.append(neighbours.divergence(*(days[half].ravel() for half in np.array_split(order, 2))))
    return float(np.mean(found))


def divergence_excess(train: FloatArray, synthetic: FloatArray, floor: float) -> float:
    """Return how far training returns are from synthetic ones beyond `floor`, in nats."""
    return max(neighbours.divergence(train, synthetic) - floor, 0.0)


def correlation_differences(train: FloatArray, synthetic: FloatArray) -> tuple[float, float]:
    """Return by how much lag-1 autocorrelations of returns and of their sizes differ, within windows of (n, steps)."""

    def first(returns: FloatArray) -> float:
        return float(moments.mean(kernels.autocorrelations(returns, 1).T)[-1])

    return abs(first(train) - first(synthetic)), abs(first(np.abs(train)) - first(np.abs(synthetic)))


def as_prices(returns: FloatArray, like: Series) -> Series:
    """Return windows of returns, shape (n, steps), as a series of closes."""
    logs = np.cumsum(np.concatenate([np.zeros((len(returns), 1)), returns], axis=1), axis=1)
    start_ns: IntArray = np.zeros(len(returns), dtype=np.int64)
    return Series(np.exp(logs)[:, :, np.newaxis], ("close",), like.step_ns, start_ns, 0.0)


def diversity(train: FloatArray, synthetic: FloatArray, like: Series) -> float:
    """Return the share of training windows, shape (n, 24), that as many synthetic ones cover."""
    count = min(len(train), len(synthetic), checklists.MOST_WINDOWS)
    real, made = (as_prices(thinned(each, count), like) for each in (train, synthetic))
    return checklists.diversity(real, made)


def discriminative(train: FloatArray, others: FloatArray, repeats: int) -> Repeats:
    """Return the score of the published protocol between windows of the hours read, in [0, 1] by column of training."""
    low, high = train.min(axis=(0, 1)), train.max(axis=(0, 1))
    count = min(len(train), len(others), SCORED)
    first, second = ((read(thinned(each, count)) - low) / (high - low) for each in (train, others))
    return learned_scores.discriminative(first, second, rng=stream(0, "discriminative"), repeats=repeats)


def copied_share(train: FloatArray, synthetic: FloatArray) -> float:
    """Return the share of synthetic returns, shape (n, steps), in verbatim runs from training ones, (steps,)."""
    made = Sample(synthetic)
    return copying.verbatim_share(Sample(train[np.newaxis]), made.bundled(made.paths))


def survival(returns: FloatArray) -> float:
    """Return the share of paths, shape (n, steps), in which a leveraged long position keeps half of its equity."""
    equity = 1 + LEVERAGE * np.expm1(np.cumsum(returns, axis=1))
    return float((equity.min(axis=1) > RUIN).mean())


def drawdowns(prices: FloatArray) -> FloatArray:
    """Return the largest loss from a running peak of each path, shape (paths,)."""
    return stress.of_paths(prices).max_drawdown


def deeper(first: FloatArray, second: FloatArray) -> float:
    """Return how often one of `first` is above one of `second`, ties counted by half."""
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, side="left") + np.searchsorted(ordered, first, side="right")
    return float(below.mean() / (2 * second.size))
