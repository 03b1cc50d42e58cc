"""The scores that the generation papers print, in their protocol, and splits of windows that do not leak.

Windows in, a score per repeat out. `discriminative` and `predictive` follow Yoon, Jarrett and van der Schaar 2019
("Time-series Generative Adversarial Networks", NeurIPS), `context_fid` Jeha et al. 2022 ("PSA-GAN", ICLR), with the
settings of Yuan and Qiao 2024 ("Diffusion-TS", ICLR): five repeats, and after "±" half of their 95 % t interval.
Windows are scaled to [0, 1] beforehand, each feature by its least and greatest training value.

The protocol trains and tests on windows that share rows, so it rewards copying; `overlap` and `like_sized` are the ways
round it. A repeat has a stream of its own and draws the same numbers whatever runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, special, stats

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import recurrent, ts2vec
from synth_pipeline.fidelity.learners import Learner, area, resampled
from synth_pipeline.rng import one_thread, per_path
from synth_pipeline.series import FloatArray, IntArray

REPEATS, BATCH = 5, 128
DISCRIMINATIVE_STEPS, PREDICTIVE_STEPS = 2_000, 5_000
TRAINED = 0.8
"""Share of the windows that a classifier is trained on."""
CONFIDENCE, RESAMPLES = 0.95, 200
_BLOCK = 5
"""Length of the blocks of a split that shares no rows, in windows' reaches."""


@dataclass(frozen=True)
class Area:
    """Area under the ROC curve of a discriminator on windows it never saw; 0.5 is chance."""

    value: float
    low: float
    high: float
    """Ends of the 95 % interval, by resampling the tested windows in blocks that share rows."""


@dataclass(frozen=True, eq=False)
class Repeats:
    """A score and how far it varies from one training to the next."""

    values: FloatArray
    """Shape (repeats,)."""

    @property
    def mean(self) -> float:
        """What is printed before the "±"."""
        return float(self.values.mean())

    @property
    def half_width(self) -> float:
        """What is printed after it: half of the t interval of the mean, NaN for a single repeat."""
        count = self.values.size
        if count < 2:
            return float("nan")
        error = self.values.std(ddof=1) / np.sqrt(count)
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * error)


def discriminative(
    real: FloatArray,
    synthetic: FloatArray,
    *,
    rng: np.random.Generator,
    repeats: int = REPEATS,
    steps: int = DISCRIMINATIVE_STEPS,
    overlap: int = 0,
) -> Repeats:
    """Return how far from chance a recurrent classifier tells the two apart: |accuracy - 0.5| on a fifth of each.

    With an `overlap`, windows are split so that none in the test has a neighbour that near in training; the default is
    the published split, at random. Shapes are (n, length, features). Raises `MetricError` for too few windows.
    """
    hidden = max(1, real.shape[2] // 2)

    def repeat(own: np.random.Generator) -> float:
        (real_in, real_out), (fake_in, fake_out) = (
            split(len(windows), overlap, rng=own) for windows in (real, synthetic)
        )
        inputs = recurrent.floats(np.concatenate([real[real_in], synthetic[fake_in]]))
        batches = np.concatenate(
            [
                recurrent.drawn(len(real_in), steps, BATCH, rng=own),
                len(real_in) + recurrent.drawn(len(fake_in), steps, BATCH, rng=own),
            ],
            axis=1,
        )
        task = recurrent.last_step(
            inputs, np.repeat([1.0, 0.0], [len(real_in), len(fake_in)]), "cross_entropy", weight=2.0
        )
        weights = recurrent.train(task, batches, hidden, rng=own)
        found = [
            recurrent.logits(weights, hidden, recurrent.floats(windows))[:, -1] > 0
            for windows in (real[real_out], synthetic[fake_out])
        ]
        return abs(float(np.concatenate([found[0], ~found[1]]).mean()) - 0.5)

    return _repeated(repeat, repeats, rng)


def predictive(
    trained_on: FloatArray,
    tested_on: FloatArray,
    *,
    rng: np.random.Generator,
    repeats: int = REPEATS,
    steps: int = PREDICTIVE_STEPS,
) -> Repeats:
    """Return the mean absolute error, one step ahead, in the last feature, of a network that saw only `trained_on`.

    It reads the other features, or the only one. Shapes are (n, length, features).
    """
    hidden = max(1, trained_on.shape[2] // 2)
    read = slice(None, max(1, trained_on.shape[2] - 1))
    inputs, targets = recurrent.floats(trained_on[:, :-1, read]), recurrent.floats(trained_on[:, 1:, -1])
    ahead = inputs.shape[1]
    task = recurrent.Task(inputs, targets, np.full(ahead, 1 / ahead, np.float32), "absolute_error")
    questions, answers = recurrent.floats(tested_on[:, :-1, read]), tested_on[:, 1:, -1]

    def repeat(own: np.random.Generator) -> float:
        weights = recurrent.train(task, recurrent.drawn(len(inputs), steps, BATCH, rng=own), hidden, rng=own)
        told = special.expit(recurrent.logits(weights, hidden, questions).astype(np.float64))
        return float(np.abs(told - answers).mean())

    return _repeated(repeat, repeats, rng)


def told_apart(
    real: FloatArray,
    synthetic: FloatArray,
    learner: Learner,
    *,
    rng: np.random.Generator,
    overlap: int,
    resamples: int = RESAMPLES,
) -> Area:
    """Return how well a learner tells real windows from synthetic ones that share no rows with what it learned from.

    Shapes are (n, length, features). Below 0.5 it is fooled: the synthetic windows that it learned from look like the
    real ones of the test, as copies of them do.
    """
    real, synthetic = like_sized(real, synthetic, rng=rng)
    (real_in, real_out), (fake_in, fake_out) = (split(len(each), overlap, rng=rng) for each in (real, synthetic))
    learned = np.concatenate([real[real_in], synthetic[fake_in]])
    answers = np.repeat([1.0, 0.0], [len(real_in), len(fake_in)])
    asked = np.concatenate([real[real_out], synthetic[fake_out]])
    told = learner(learned, answers, asked, classes=True, rng=rng)
    positive, negative = told[: len(real_out)], told[len(real_out) :]
    around = [
        area(*(each[resampled(each.size, overlap + 1, rng=rng)] for each in (positive, negative)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(around, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Area(area(positive, negative), float(low), float(high))


def context_fid(
    real: FloatArray,
    synthetic: FloatArray,
    *,
    rng: np.random.Generator,
    repeats: int = REPEATS,
    steps: int | None = None,
) -> Repeats:
    """Return the Fréchet distance of the two sets of encodings, by an encoder trained on the real ones each time."""

    def repeat(own: np.random.Generator) -> float:
        weights = ts2vec.train(real, rng=own, steps=steps)
        return frechet(ts2vec.encode(weights, real), ts2vec.encode(weights, synthetic))

    with one_thread():
        return _repeated(repeat, repeats, rng)


def frechet(first: FloatArray, second: FloatArray) -> float:
    """Return |m - n|² + tr(S + T - 2 (S T)^½) of the normal distributions fitted to two samples, shape (n, outputs).

    The trace of the root is the sum of the singular values of S^½ T^½: no root of a matrix that is not symmetric.
    """
    roots, total = [], float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum())
    for sample in (first, second):
        covariance = np.cov(sample, rowvar=False)
        values, vectors = linalg.eigh(covariance)
        roots.append(vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)
        total += float(np.trace(covariance))
    return max(0.0, total - 2 * float(linalg.svdvals(roots[0] @ roots[1]).sum()))


def like_sized(first: FloatArray, second: FloatArray, *, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return both, the larger one thinned at random to the size of the smaller, in its order."""
    size = min(len(first), len(second))
    taken = [
        each if len(each) == size else each[np.sort(rng.choice(len(each), size, replace=False))]
        for each in (first, second)
    ]
    return taken[0], taken[1]


def split(count: int, overlap: int, *, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return positions to train on and to test on, about four to one.

    With an `overlap`, whole blocks of positions are dealt out, and none to train on is within that many steps of one to
    test on: windows of `length` steps cut at every step share rows with their `length - 1` neighbours on either side.
    Raises `MetricError` where a side is left empty.
    """
    if overlap == 0:
        order = rng.permutation(count)
        cut = int(count * TRAINED)
        trained, tested = order[:cut], order[cut:]
    else:
        blocks = np.arange(count) // max(1, min(_BLOCK * overlap, count // 5))
        dealt = rng.permutation(int(blocks[-1]) + 1)
        out = np.isin(blocks, dealt[: max(1, round((1 - TRAINED) * len(dealt)))])
        near = np.convolve(out, np.ones(2 * overlap + 1), mode="full")[overlap : overlap + count] > 0
        trained, tested = np.flatnonzero(~near), np.flatnonzero(out)
    if min(len(trained), len(tested)) == 0:
        raise MetricError(f"{count} windows cannot be split with {overlap} between the parts: take more windows")
    return trained.astype(np.int64), tested.astype(np.int64)


def _repeated(repeat: Callable[[np.random.Generator], float], repeats: int, rng: np.random.Generator) -> Repeats:
    return Repeats(np.array(recurrent.side_by_side(repeat, list(per_path(rng, repeats)))))
