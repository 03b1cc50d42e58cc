"""What models learn from synthetic windows, tested on real ones of a later period: the runs behind `utility`.

A task asks of a window's last change what the changes before it tell. Every change is in units of the window: divided
by the root mean square change of its feature over the steps that are read. So a later period of another price level or
volatility asks the same questions, and nothing of the answer is in the scale. Where windows hold changes, scaled to
[0, 1], the median training one stands for no change.

    TRTR trained on real, tested on held-out real      TSTR trained on synthetic, tested on held-out real
    TRTS trained on real, tested on synthetic          both: trained on real and synthetic together, tested as TRTR
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import ReferenceType, ref

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.learners import LEARNERS, area, resampled
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

TEACHERS = ("linear", "boosting", "gru")
"""The learners that utility is measured with."""
MOST = 1_200
"""Windows a side that are learned from; more are thinned."""
CONFIDENCE, RESAMPLES = 0.95, 200
_FEWEST = 50
_PRICES = ("mid", "close")


@dataclass(frozen=True)
class Task:
    """One question about the last step of a window."""

    title: str
    classes: bool
    """Whether the answer is yes or no, and its error 1 - AUC; of a number, the error is the mean absolute one."""
    answers: Callable[[FloatArray, int], FloatArray]
    """Last changes (n, features) in units of the window, position of the price → answers (n,), NaN for none."""


def _direction(last: FloatArray, price: int) -> FloatArray:
    return np.where(last[:, price] == 0, np.nan, last[:, price] > 0)


def _volatility(last: FloatArray, price: int) -> FloatArray:
    return np.asarray(np.log1p(np.abs(last[:, price])))


def _value(last: FloatArray, price: int) -> FloatArray:  # noqa: ARG001
    return last[:, -1]


TASKS: Mapping[str, Task] = {
    "direction": Task("sign of the next price change", True, _direction),
    "volatility": Task("size of the next price change", False, _volatility),
    "value": Task("next value of the last feature", False, _value),
}


@dataclass(frozen=True)
class Questions:
    """Windows of one source put to one task."""

    x: FloatArray
    """Changes that are read, shape (n, steps, features)."""
    y: FloatArray
    """Answers, shape (n,)."""

    @classmethod
    def of(cls, windows: Windows, task: Task, still: FloatArray) -> Questions:
        """Ask the task of every window that has an answer; `still` is no change, one number a feature.

        Raises `MetricError` when too few have.
        """
        changes = windows.changes - still
        read = changes[:, :-1]
        unit = np.sqrt((read**2).mean(axis=1, keepdims=True))
        in_units = np.divide(changes, unit, out=np.zeros_like(changes), where=unit > 0)
        y = task.answers(in_units[:, -1], price_of(windows))
        moved = unit[:, 0].all(axis=1) & np.isfinite(y)
        if moved.sum() < _FEWEST or (task.classes and np.unique(y[moved]).size < 2):
            raise MetricError(f"{moved.sum()} windows in which every feature moves say the {task.title}: take more")
        return cls(in_units[moved, :-1], y[moved])

    def joined(self, other: Questions) -> Questions:
        """Return the questions of both."""
        return Questions(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))


@dataclass(frozen=True)
class Errors:
    """Errors of one learner on one task, by what it was trained and tested on."""

    trtr: float
    tstr: float
    trts: float
    both: float

    @property
    def ratio(self) -> float:
        """Error after training on synthetic windows over that after training on real ones; 1 is as good as real."""
        return self.tstr / self.trtr

    @property
    def gain(self) -> float:
        """The share of the error that adding synthetic windows removes."""
        return 1 - self.both / self.trtr


@dataclass(frozen=True)
class Outcome:
    """The errors of one learner on one task, and how sure the gain is."""

    task: str
    learner: str
    errors: Errors
    gain_low: float
    gain_high: float
    """Ends of the gain's 95 % interval, by resampling held-out windows in blocks that share rows."""


def price_of(windows: Windows) -> int:
    """Return the position of the price among the features: `mid` or `close`, else the first."""
    named = (at for at, name in enumerate(windows.names) if name.rpartition(":")[2].lower() in _PRICES)
    return next(named, 0)


def still(train: Windows) -> FloatArray:
    """Return what counts as no change, shape (features,)."""
    if not train.in_changes:
        return np.zeros(len(train.names))
    return np.asarray(np.median(train.values, axis=(0, 1)))


@dataclass(frozen=True)
class Trial:
    """One learner on one task: whom it may learn from, and whom it is asked about."""

    task: str
    learner: str
    real: Questions
    synthetic: Questions
    later: Questions
    """Of the held-out windows."""

    def told(self, source: Questions, asked: Questions, *, rng: np.random.Generator) -> FloatArray:
        """Return the answers to some questions after learning from others."""
        classes = TASKS[self.task].classes
        return LEARNERS[self.learner](source.x, source.y, asked.x, classes=classes, rng=rng)

    def error(self, told: FloatArray, asked: Questions) -> float:
        """Return how wrong answers are."""
        return error(told, asked.y, TASKS[self.task].classes)


def trials(
    train: Windows,
    synthetic: Windows,
    holdout: Windows,
    tasks: Sequence[str] = tuple(TASKS),
    learners: Sequence[str] = TEACHERS,
) -> Iterator[Trial]:
    """Yield every learner on every task. Raises `MetricError` for windows of too few steps, or too few of them."""
    if train.changes.shape[1] < 3:
        raise MetricError(f"windows of {train.length} steps leave nothing to read before the last: take 4 or more")
    zero = still(train)
    thinned = [each.thinned(MOST) for each in (train, synthetic, holdout)]
    for task in tasks:
        real, fake, later = (Questions.of(each, TASKS[task], zero) for each in thinned)
        yield from (Trial(task, learner, real, fake, later) for learner in learners)


def outcome(trial: Trial, block: int, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> Outcome:
    """Run a trial in all four ways; the interval of the gain keeps `block` neighbouring held-out windows together."""
    found, by_real, by_both = _run(trial, rng)
    later, gains = trial.later, []
    for _ in range(resamples):
        rows = resampled(later.y.size, block, rng=rng)
        drawn = Questions(later.x[rows], later.y[rows])
        gains.append(1 - trial.error(by_both[rows], drawn) / trial.error(by_real[rows], drawn))
    low, high = np.nanquantile(gains, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Outcome(trial.task, trial.learner, found, float(low), float(high))


def _run(trial: Trial, rng: np.random.Generator) -> tuple[Errors, FloatArray, FloatArray]:
    """Return the errors, and the answers to held-out questions after training on real windows, and on both kinds."""
    later, ahead = trial.later, trial.later.y.size
    answers = trial.told(trial.real, later.joined(trial.synthetic), rng=rng)
    by_real, backward = answers[:ahead], answers[ahead:]
    by_both = trial.told(trial.real.joined(trial.synthetic), later, rng=rng)
    tstr = trial.error(trial.told(trial.synthetic, later, rng=rng), later)
    trts, both = trial.error(backward, trial.synthetic), trial.error(by_both, later)
    return Errors(trial.error(by_real, later), tstr, trts, both), by_real, by_both


def errors(train: Windows, synthetic: Windows, holdout: Windows, task: str) -> tuple[Errors, ...]:
    """Return the errors of every teacher on a task, computed once for three sets: several metrics are made of them.

    The learners' random numbers are of a stream of their own, so that it does not matter which metric asks first.
    """
    kept: dict[tuple[str, int, int], tuple[ReferenceType[Windows], ReferenceType[Windows], tuple[Errors, ...]]]
    kept = train.__dict__.setdefault("_errors", {})
    key = task, id(synthetic), id(holdout)
    if key not in kept or kept[key][0]() is not synthetic or kept[key][1]() is not holdout:
        trained = trials(train, synthetic, holdout, (task,))
        found = tuple(_run(trial, stream(0, "utility", task, trial.learner))[0] for trial in trained)
        kept[key] = ref(synthetic), ref(holdout), found
    return kept[key][2]


def error(told: FloatArray, truth: FloatArray, classes: bool) -> float:
    """Return 1 - AUC of classes (NaN for one class alone), the mean absolute error of numbers."""
    if not classes:
        return float(np.abs(told - truth).mean())
    yes = truth > 0.5
    return 1 - area(told[yes], told[~yes]) if yes.any() and not yes.all() else float("nan")
