"""The samples of one evaluation, cut to paths of equal length. No metric and no floor is computed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.fidelity.joint import JointSample
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.series import Series

SHORTEST = 50
"""Fewest known returns that a comparison of any kind needs."""
LONGEST = 20_000
"""Most returns of one path that enters a comparison; a longer series counts as several, so that cost stays linear."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Training, synthetic and held-out returns."""

    train: Sample
    """All of the training series, uncut: what copies would come from."""
    fresh: Sample
    """The training series in windows: real data to compare the held-out ones with."""
    holdout: Sample
    """The held-out series in windows."""
    synthetic: Sample
    """The synthetic paths in windows."""

    @classmethod
    def of(cls, train: Series, synthetic: Series, holdout: Series) -> Self:
        """Cut three series. Raises `TooLittleDataError` when one has too few returns, or real prices never move."""
        length = min(train.steps, synthetic.steps, holdout.steps) - 1
        if length > LONGEST:
            length //= -(-length // LONGEST)
        kind = JointSample if synthetic.assets else Sample
        named = {"training": kind.of(train), "synthetic": kind.of(synthetic), "held-out": kind.of(holdout)}
        for name, sample in named.items():
            if length < SHORTEST or sample.windows(length).counts.max(initial=0) < SHORTEST:
                raise TooLittleDataError(
                    f"the {name} series has {int(sample.counts.max(initial=0))} known returns on a path; windows "
                    f"of {max(length, 0)} are compared and {SHORTEST} must be known: take more data or longer paths"
                )
            if name != "synthetic" and not sample.pooled.any():
                raise TooLittleDataError(
                    f"the price of the {name} series never moves: take a longer or livelier stretch"
                )
        fresh, synthetic_, holdout_ = (sample.windows(length).with_at_least(SHORTEST) for sample in named.values())
        return cls(named["training"], fresh, holdout_, synthetic_)

    @property
    def length(self) -> int:
        """Returns of every path that is compared."""
        return int(np.shape(self.synthetic.returns)[1])
