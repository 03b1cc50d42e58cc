"""Scores that train a network or another learner: the ones that papers print, and held-out ones that copies cannot win.

The published ones compare with the training windows, in the published protocol; nothing is held out there, so an exact
copy is the best that there is, and real data of a later period do worse than it. `learned_scores` has the protocol, and
the values of every repeat with their interval; here is the mean, once for each metric.
"""

from __future__ import annotations

from math import inf

import numpy as np

from synth_pipeline.fidelity import learned_scores, learners
from synth_pipeline.fidelity.metric import window_metric
from synth_pipeline.fidelity.windows import Windows

_TIMEGAN = "Yoon, Jarrett, van der Schaar 2019, NeurIPS; settings of Yuan and Qiao 2024, ICLR"
_MINIMUM, _ENCODERS = 100, 1


@window_metric(
    title="Discriminative score",
    goal="low",
    bounds=(0.0, 0.5),
    minimum=_MINIMUM,
    citation=_TIMEGAN,
    meaning="A small recurrent network tells synthetic windows from the training ones.",
    reference="train",
    cost="learned",
)
def discriminative_score(
    train: Windows,
    synthetic: Windows,
    holdout: Windows,  # noqa: ARG001
    *,
    rng: np.random.Generator,
) -> float:
    """How far from chance a recurrent classifier tells training and synthetic windows apart, mean of five trainings."""
    return learned_scores.discriminative(train.values, synthetic.values, rng=rng).mean


@window_metric(
    title="Predictive score",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=_MINIMUM,
    citation=_TIMEGAN,
    meaning="What synthetic windows teach about the next value does not hold in real ones.",
    reference="train",
    cost="learned",
)
def predictive_score(
    train: Windows,
    synthetic: Windows,
    holdout: Windows,  # noqa: ARG001
    *,
    rng: np.random.Generator,
) -> float:
    """Mean absolute error one step ahead on training windows of a network that saw synthetic ones, five trainings."""
    return learned_scores.predictive(synthetic.values, train.values, rng=rng).mean


@window_metric(
    title="Context-FID",
    goal="low",
    bounds=(0.0, inf),
    minimum=_MINIMUM,
    citation="Jeha et al. 2022, ICLR; encoder of Yue et al. 2022, AAAI",
    meaning="An encoder that learned the real windows sees the synthetic ones elsewhere, or spread otherwise.",
    reference="train",
    cost="learned",
)
def context_fid(
    train: Windows,
    synthetic: Windows,
    holdout: Windows,  # noqa: ARG001
    *,
    rng: np.random.Generator,
) -> float:
    """Fréchet distance of the encodings of synthetic and training windows, one training of the encoder.

    The protocol has five, as `learned_scores.context_fid` does; a report needs the number four times, for its floors.
    """
    return learned_scores.context_fid(train.values, synthetic.values, rng=rng, repeats=_ENCODERS).mean


@window_metric(
    title="Discriminative score, later period",
    goal="low",
    bounds=(0.0, 0.5),
    minimum=_MINIMUM,
    citation=_TIMEGAN,
    meaning="Synthetic windows are unlike the period that followed; the floor tells how unlike the training ones are.",
    cost="learned",
)
def later_discriminative_score(
    train: Windows,  # noqa: ARG001
    synthetic: Windows,
    holdout: Windows,
    *,
    rng: np.random.Generator,
) -> float:
    """The discriminative score against held-out windows, none tested sharing rows with one learned from."""
    first, second = learned_scores.like_sized(holdout.values, synthetic.values, rng=rng)
    return learned_scores.discriminative(first, second, rng=rng, overlap=holdout.length - 1).mean


def _told_apart(learner: str, synthetic: Windows, holdout: Windows, rng: np.random.Generator) -> float:
    found = learned_scores.told_apart(
        holdout.values, synthetic.values, learners.LEARNERS[learner], rng=rng, overlap=holdout.length - 1
    )
    return abs(found.value - 0.5)


@window_metric(
    title="Held-out discriminator: boosted trees",
    goal="low",
    bounds=(0.0, 0.5),
    minimum=_MINIMUM,
    citation="Lopez-Paz and Oquab 2017, ICLR",
    meaning="Trees on plain features of a window tell synthetic from real.",
    cost="learned",
)
def boosting_discriminator(
    train: Windows,  # noqa: ARG001
    synthetic: Windows,
    holdout: Windows,
    *,
    rng: np.random.Generator,
) -> float:
    """|AUC - 0.5| of boosted trees that tell held-out from synthetic windows, on windows sharing no rows."""
    return _told_apart("boosting", synthetic, holdout, rng)


@window_metric(
    title="Held-out discriminator: recurrent",
    goal="low",
    bounds=(0.0, 0.5),
    minimum=_MINIMUM,
    citation="Lopez-Paz and Oquab 2017, ICLR",
    meaning="A recurrent network tells synthetic from real by how windows unfold.",
    cost="learned",
)
def gru_discriminator(
    train: Windows,  # noqa: ARG001
    synthetic: Windows,
    holdout: Windows,
    *,
    rng: np.random.Generator,
) -> float:
    """|AUC - 0.5| of a recurrent network that tells held-out from synthetic windows, on windows sharing no rows."""
    return _told_apart("gru", synthetic, holdout, rng)


@window_metric(
    title="Held-out discriminator: transformer",
    goal="low",
    bounds=(0.0, 0.5),
    minimum=_MINIMUM,
    citation="Lopez-Paz and Oquab 2017, ICLR",
    meaning="A small transformer tells synthetic from real by how steps of a window relate.",
    cost="learned",
)
def transformer_discriminator(
    train: Windows,  # noqa: ARG001
    synthetic: Windows,
    holdout: Windows,
    *,
    rng: np.random.Generator,
) -> float:
    """|AUC - 0.5| of a small transformer that tells held-out from synthetic windows, on windows sharing no rows."""
    return _told_apart("transformer", synthetic, holdout, rng)
