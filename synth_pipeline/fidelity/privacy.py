"""Privacy: whether synthetic windows are nearer to training windows than new windows of the same market would be.

Neighbours that are near, not equal: runs of equal returns are `copying`'s. Distances are those of `proximity`, over all
training windows that enter. A number says nothing by itself, since a narrow market has near neighbours everywhere: it
is judged by what training windows that were kept apart score in place of the synthetic ones.
"""

from __future__ import annotations

from math import inf

import numpy as np

from synth_pipeline.fidelity.metric import window_metric
from synth_pipeline.fidelity.proximity import distances, nearest
from synth_pipeline.fidelity.windows import Windows

DUPLICATE = 1e-3
"""Share of a feature's training range by which no value of a duplicate differs."""
FEWEST = 40
_STADLER = "Stadler, Oprisanu, Troncoso 2022, USENIX Security, Synthetic Data: Anonymisation Groundhog Day"


@window_metric(
    title="Nearest-neighbour ratio",
    goal="high",
    bounds=(0.0, inf),
    minimum=FEWEST,
    unit="ratio",
    reference="train",
    citation="Zhao et al. 2021, ACML, CTAB-GAN: distance to closest record",
    meaning="Synthetic windows hug the training windows more than real windows do.",
)
def neighbour_ratio(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Median distance of synthetic windows to the nearest training window, over that of held-out windows."""
    made, real = (float(np.median(nearest(each, train, train).distance)) for each in (synthetic, holdout))
    return made / max(real, 1e-12)


@window_metric(
    title="Nearness to training",
    goal="high",
    bounds=(0.0, inf),
    minimum=FEWEST,
    unit="ratio",
    reference="train",
    exposes=True,
    citation=_STADLER,
    meaning="Synthetic windows are training windows with small changes: they lie next to them, not next to new ones.",
)
def training_nearness(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Median over synthetic windows of the distance to the nearest training window over that to a held-out one."""
    trained, held = (nearest(synthetic, each, train).distance for each in (train, holdout))
    return float(np.median(trained / np.maximum(held, 1e-12)))


@window_metric(
    title="Authenticity",
    goal="high",
    bounds=(0.0, 1.0),
    minimum=FEWEST,
    unit="share",
    reference="train",
    citation="Alaa et al. 2022, ICML, How Faithful is your Synthetic Data?",
    meaning="Many synthetic windows are nearer to a training window than any other training window is.",
)
def authenticity(train: Windows, synthetic: Windows, _: Windows, **__: object) -> float:
    """Share of synthetic windows that are further from their training neighbour than it is from its own."""
    found = nearest(synthetic, train, train)
    neighbours, back = np.unique(found.place, return_inverse=True)
    own = distances(train.at(neighbours), train, train).min(axis=1)
    return float((found.distance > own[back]).mean())


@window_metric(
    title="Duplicates",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=FEWEST,
    unit="share",
    reference="train",
    exposes=True,
    margin=0.02,
    citation="Carlini et al. 2023, USENIX Security, Extracting Training Data from Diffusion Models",
    meaning="Whole training windows reappear.",
)
def duplicate_share(train: Windows, synthetic: Windows, _: Windows, **__: object) -> float:
    """Share of synthetic windows that equal a training window to a thousandth of each feature's range."""
    apart = np.abs(synthetic.values - train.values[nearest(synthetic, train, train).place])
    return float((apart <= DUPLICATE).all(axis=(1, 2)).mean())


@window_metric(
    title="Membership inference",
    goal="low",
    bounds=(0.0, 1.0),
    minimum=FEWEST,
    unit="AUC",
    reference="train",
    exposes=True,
    citation="Hilprecht, Härterich, Bernau 2019, PoPETs: Monte Carlo membership inference by distance",
    meaning="From the synthetic windows it can be told which windows were trained on.",
)
def membership_auc(train: Windows, synthetic: Windows, holdout: Windows, **_: object) -> float:
    """Chance that a training window has a nearer synthetic neighbour than a held-out one, ties halved; 0.5 is blind."""
    members = np.sort(distances(synthetic, train, train).min(axis=0))
    strangers = np.sort(nearest(holdout, synthetic, train).distance)
    nearer, no_further = np.searchsorted(members, strangers), np.searchsorted(members, strangers, side="right")
    return float((nearer + no_further).mean() / (2 * members.size))
