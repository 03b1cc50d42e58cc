"""The samples of one evaluation, cut to paths of equal length, and what it costs to look at all of them.

Long series count as several paths and only so many enter, equally spaced; paths too short to be compared one by one
are bundled, with gaps between. What was left out is told in words, for the record. No metric and no floor is computed
here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.fidelity.joint import JointSample
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import PRICES, Windows, scaled
from synth_pipeline.series import FloatArray, Series

SHORTEST = 50
"""Fewest known returns that a comparison of any kind needs."""
LONGEST = 10_000
"""Most returns of one path that enters a comparison; a longer series counts as several, so that cost stays linear."""
MOST_RETURNS = 60_000
"""Most returns of one side that enter."""
BUNDLE = 2_000
"""About as many returns of short paths make a bundle."""
WINDOW = 24
"""Steps of the windows that window metrics see, the length that the literature compares at."""
MOST_WINDOWS = 4_000
"""Most training windows that window metrics see."""
MOST_JUDGED = 500
"""Most synthetic, and most held-out, windows that cheap window metrics see."""
_ENOUGH = 2_000
"""Windows a side from which on they need not overlap."""


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
    whole_holdout: Sample
    """The held-out series, all of it."""
    unit: int
    """Returns of each of the short paths that are bundled; 0 where none is."""
    thinned: tuple[str, ...]
    """What did not enter, in words."""

    @classmethod
    def of(cls, train: Series, synthetic: Series, holdout: Series) -> Self:
        """Cut three series. Raises `TooLittleDataError` when one has too few returns, or real prices never move."""
        kind = JointSample if synthetic.assets else Sample
        named = {"training": kind.of(train), "synthetic": kind.of(synthetic), "held-out": kind.of(holdout)}
        # The training part of two short days may end in the night between them.
        trimmed = {name: sample.trimmed() for name, sample in named.items()}
        length = min(int(sample.returns.shape[1]) for sample in trimmed.values())
        if length > LONGEST:
            length //= -(-length // LONGEST)
        cut = {name: sample.windows(max(length, 1)) for name, sample in trimmed.items()}
        unit = length if 0 < length < SHORTEST <= min(int(each.counts.sum()) for each in cut.values()) else 0
        if unit:
            most = min(each.paths for each in cut.values())
            cut = {name: each.bundled(min(-(-BUNDLE // unit), most)) for name, each in cut.items()}
        for name, sample in cut.items():
            if sample.counts.max(initial=0) < SHORTEST:
                raise TooLittleDataError(
                    f"the {name} series has {int(named[name].counts.max(initial=0))} known returns on a path; windows "
                    f"of {max(length, 0)} are compared and {SHORTEST} must be known: take more data or longer paths"
                )
            if name != "synthetic" and not sample.pooled.any():
                raise TooLittleDataError(
                    f"the price of the {name} series never moves: take a longer or livelier stretch"
                )
        kept = {name: sample.with_at_least(SHORTEST) for name, sample in cut.items()}
        most = max(MOST_RETURNS // kept["training"].returns.shape[1], 1)
        told = tuple(
            f"{most} of {each.paths} {name} windows of {each.returns.shape[1]} returns, equally spaced"
            for name, each in kept.items()
            if each.paths > most
        )
        fresh, synthetic_, holdout_ = (each.thinned(most) for each in kept.values())
        return cls(named["training"], fresh, holdout_, synthetic_, named["held-out"], unit, told)

    @property
    def length(self) -> int:
        """Returns of every path that is compared."""
        return int(np.shape(self.synthetic.returns)[1])


@dataclass(frozen=True, eq=False)
class Cuts:
    """Training, synthetic and held-out windows of all features, scaled by the training ones."""

    train: Windows
    synthetic: Windows
    holdout: Windows
    overlap: int
    """How many windows on either side share rows with a training window."""
    told: tuple[str, ...]
    """What the windows are, in words."""

    @classmethod
    def of(cls, train: Series, synthetic: Series, holdout: Series, *, most: int = MOST_JUDGED) -> Self | None:
        """Cut three series, `most` windows of the last two; None where they have no feature in common.

        Features of long series are made comparable over time first (`Changes`); those of short paths, which are windows
        themselves, stay as they are.
        """
        names = tuple(name for name in train.names if name in synthetic.names and name in holdout.names)
        if not names:
            return None
        three = [each.select(names) for each in (train, synthetic, holdout)]
        shortest = min(each.steps for each in three)
        are_windows = train.steps <= SHORTEST
        if not are_windows:
            changes = Changes.of(three[0])
            three, shortest = [changes(each) for each in three], shortest - 1
        length = min(WINDOW, shortest)
        stride = min(max(min(length, each.paths * (each.steps - length) // _ENOUGH), 1) for each in three)
        cut = [replace(Windows.of(each, length, stride=stride), in_changes=not are_windows) for each in three]
        # As many synthetic as held-out windows, and as many training ones again to stand in for either.
        judged = min(most, cut[0].count // 2, cut[1].count, cut[2].count)
        if judged == 0:
            return None
        counted = zip(cut, (MOST_WINDOWS, judged, judged), strict=True)
        kept = scaled(*(each.thinned(count).alone() for each, count in counted))
        counts = " and ".join(
            f"{each.count:,} of {whole.count:,} {name}"
            for each, whole, name in zip(kept, cut, ("training", "synthetic", "held-out"), strict=True)
        )
        kind = "values as given" if are_windows else "changes of prices, logarithms of sizes"
        apart = stride * cut[0].count // kept[0].count
        overlap = 0 if are_windows else (length - 1) // max(apart, 1)
        return cls(kept[0], kept[1], kept[2], overlap, (f"windows of {length} steps ({kind}): {counts}",))


@dataclass(frozen=True, eq=False)
class Changes:
    """Makes features comparable over time: prices relative to the last one, sizes relative to the typical one."""

    typical: dict[str, float]
    """Median positive training value of each feature that is never negative."""

    @classmethod
    def of(cls, train: Series) -> Self:
        """Learn the typical sizes."""
        typical = {}
        for name in train.names:
            column = train.column(name)
            known = column[np.isfinite(column)]
            if known.size and known.min() >= 0 and (known > 0).any():
                typical[name] = float(np.median(known[known > 0]))
        return cls(typical)

    def __call__(self, series: Series) -> Series:
        """Return the series of changes, one step shorter; NaN where a price is unknown or not positive."""
        bases = _bases(series)
        columns = [self._column(series, name, bases[name.rpartition(":")[0]]) for name in series.names]
        values = np.stack(columns, axis=2)
        return Series(values, series.names, series.step_ns, series.start_ns + series.step_ns, 0.0, 0.0)

    def _column(self, series: Series, name: str, base: FloatArray) -> FloatArray:
        column = series.column(name)[:, 1:]
        if name.rpartition(":")[2].lower() in PRICES:
            with np.errstate(divide="ignore", invalid="ignore"):
                change = np.log(column / base[:, :-1])
            return np.where(np.isfinite(change), change, np.nan)
        if name in self.typical:
            return np.asarray(np.log1p(np.maximum(column, 0.0) / self.typical[name]))
        return column


def _bases(series: Series) -> dict[str, FloatArray]:
    """Return the price that changes are relative to, by asset ("" of one market)."""
    if series.assets:
        return {name: part.column(part.price_name) for name, part in series.parts().items()}
    return {"": series.column(series.price_name)}
