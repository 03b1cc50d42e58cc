"""Coverage: whether synthetic windows lie where real ones do, and reach everywhere that real ones do.

Distances are those of `proximity`; k is 5 throughout. What lies *too* near to single training windows is `privacy`'s.
"""

from __future__ import annotations

from math import inf

import numpy as np

from synth_pipeline.fidelity.metric import window_metric
from synth_pipeline.fidelity.proximity import distances, kept, nearest
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.series import FloatArray

NEIGHBOURS = 5
MODES = 20
FEWEST = 40
"""Fewest windows a side: below, neighbours of the fifth order are half the sample away."""
_LEVELS = np.linspace(0.0, 1.0, 31)
_NAEEM = "Naeem et al. 2020, ICML, Reliable Fidelity and Diversity Metrics for Generative Models"
_ALAA = "Alaa et al. 2022, ICML, How Faithful is your Synthetic Data?"


@window_metric(
    title="Density",
    goal="target",
    bounds=(0.0, inf),
    minimum=FEWEST,
    citation=_NAEEM,
    meaning="Windows lie where no real ones do, or crowd where real ones are thickest.",
)
def density(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """How many held-out windows have a synthetic one among their near ones, per synthetic window, over k; 1 is real."""
    between = distances(synthetic, holdout, train)
    return float((between <= _radii(holdout, train)).sum() / (NEIGHBOURS * synthetic.count))


@window_metric(
    title="Coverage",
    goal="high",
    bounds=(0.0, 1.0),
    minimum=FEWEST,
    unit="share",
    citation=_NAEEM,
    meaning="Parts of what the market does are never produced.",
)
def coverage(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Share of held-out windows that have a synthetic one nearer than their fifth held-out neighbour."""
    between = distances(synthetic, holdout, train)
    return float((between.min(axis=0) <= _radii(holdout, train)).mean())


@window_metric(
    title="α-precision",
    goal="high",
    bounds=(0.0, 1.0),
    minimum=FEWEST,
    citation=_ALAA,
    meaning="Typical windows are too rare, or nothing but typical ones is produced.",
)
def alpha_precision(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """One less twice the mean gap of α and the share of synthetic windows in the ball of the α most typical ones."""
    centre = _centre(holdout)
    radii = np.quantile(distances(holdout, centre, train)[:, 0], _LEVELS)
    inside = (distances(synthetic, centre, train) <= radii).mean(axis=0)
    return _integrated(inside)


@window_metric(
    title="β-recall",
    goal="high",
    bounds=(-1.0, 1.0),
    minimum=FEWEST,
    citation=_ALAA,
    meaning="Real windows, typical or odd ones, have no synthetic counterpart.",
)
def beta_recall(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """One less twice the mean gap of β and the share of held-out windows near the β most typical synthetic ones."""
    from_centre = distances(synthetic, _centre(synthetic), train)[:, 0]
    found = nearest(holdout, synthetic, train)
    near = found.distance <= _radii(holdout, train)
    covered = near[:, np.newaxis] & (from_centre[found.place][:, np.newaxis] <= np.quantile(from_centre, _LEVELS))
    return _integrated(covered.mean(axis=0))


@window_metric(
    title="Diversity",
    goal="target",
    bounds=(0.0, inf),
    minimum=FEWEST,
    unit="ratio",
    citation="Nikitin et al. 2024, NeurIPS, TSGM: diversity as distance inside the sample",
    meaning="Windows are more alike, or more different, than those of the market.",
)
def diversity(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Median distance of two synthetic windows over that of two held-out ones; 1 is real."""
    return _median_distance(synthetic, train) / max(_median_distance(holdout, train), 1e-12)


@window_metric(
    title="Mode collapse",
    goal="high",
    bounds=(0.0, inf),
    minimum=FEWEST,
    unit="ratio",
    citation="Richardson, Weiss 2018, NeurIPS, On GANs and GMMs",
    meaning="The same few windows come again and again with small changes.",
)
def sibling_distance(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Median distance of a synthetic window to the nearest other one, over the same of held-out ones; 0 is collapse."""
    made, real = (float(np.median(nearest(each, each, train).distance)) for each in (synthetic, holdout))
    return made / max(real, 1e-12)


@window_metric(
    title="Missing modes",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=FEWEST,
    unit="share",
    citation="Richardson, Weiss 2018, NeurIPS, On GANs and GMMs",
    meaning="Some kinds of windows, such as those of one regime, are missing or too rare.",
)
def missing_modes(train: Windows, synthetic: Windows, _: Windows, *, rng: np.random.Generator) -> float:
    """Share of training windows whose kind the synthetic ones lack, kinds being the cells of 20 windows at random."""
    centres = train.at(rng.choice(train.count, min(MODES, train.count // 2), replace=False))
    shares = [
        np.bincount(distances(each, centres, train).argmin(axis=1), minlength=MODES) / each.count
        for each in (train, synthetic)
    ]
    return float(np.maximum(shares[0] - shares[1], 0.0).sum())


def _centre(windows: Windows) -> Windows:
    return Windows(windows.values.mean(axis=0, keepdims=True), windows.names)


def _radii(windows: Windows, train: Windows) -> FloatArray:
    """Return the distance of each window to its fifth neighbour, shape (n,)."""

    def found() -> FloatArray:
        apart = distances(windows, windows, train)
        return np.partition(apart, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1].astype(np.float64)

    return kept(windows, train.rooted[0], "_radii", found)


def _median_distance(windows: Windows, train: Windows) -> float:
    def found() -> float:
        apart = distances(windows, windows, train)
        return float(np.median(apart[np.triu_indices(windows.count, 1)]))

    return kept(windows, train.rooted[0], "_median_distance", found)


def _integrated(shares: FloatArray) -> float:
    return 1.0 - 2.0 * float(np.trapezoid(np.abs(shares - _LEVELS), _LEVELS))
