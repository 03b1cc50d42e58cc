"""Rejection sampling: paths of a generator, kept when their fidelity to a base series is high enough.

Candidates (`candidates`) are scored with the twelve weighted metrics against the base (`fidelity.scoring` says how the
two are compared), and the first that reach the threshold are accepted, in their order. Only scores are kept: an
accepted path is drawn again when it is read, piece by piece, so memory depends neither on their number nor on their
length.

The search ends without success when `most_candidates` were scored, or as soon as the threshold is out of reach: when
so few acceptances would have a chance below one in a thousand at the rate that is needed from now on, or when by
Cantelli's inequality no law with the mean and the spread of the scores so far reaches that rate.

What is accepted was selected on the score itself, which therefore says nothing more about it; how much of the base it
copies word for word (`fidelity.copying`) is counted beside it.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.special import bdtr

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.copying import Copied
from synth_pipeline.generators import Generator
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray, Series
from synth_pipeline.synthesis.candidates import Candidate, Judge, Request, in_order, parts_of, together

_PER_PATH, _FEWEST = 200, 1000
"""Candidates for each path that is asked for, and in all, after which a search gives up."""
_CHECKED_EVERY, _TRUSTED = 25, 100
"""How often it is asked whether the threshold is in reach; from how many candidates on scores have a spread."""
_DOUBT = 0.001
_BATCH_STEPS, _BATCH = 1_000_000, 64
"""Most steps and most candidates of one task."""


@dataclass(eq=False)
class Tally:
    """All candidates so far, in their order."""

    paths: int
    min_fidelity: float
    most: int
    metrics: tuple[str, ...]
    scores: list[float] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    """Numbers of the candidates that reach the threshold."""
    copies: list[Copied] = field(default_factory=list)
    sums: FloatArray = field(default_factory=lambda: np.zeros(2))
    """Of scores, and of their squares."""
    lost: FloatArray | float = 0.0
    """Points that each metric has cost, summed."""
    best: float = 0.0

    def add(self, candidate: Candidate) -> None:
        """Count one more."""
        if candidate.copied is not None:
            self.accepted.append(self.tried)
            self.copies.append(candidate.copied)
        self.scores.append(candidate.score)
        self.sums += candidate.score, candidate.score**2
        self.lost = self.lost + candidate.lost
        self.best = max(self.best, candidate.score)

    @property
    def tried(self) -> int:
        """How many were scored."""
        return len(self.scores)

    @property
    def acceptance_rate(self) -> float:
        """Share of them that was accepted."""
        return len(self.accepted) / max(self.tried, 1)

    @property
    def is_done(self) -> bool:
        """Whether as many were accepted as were asked for."""
        return len(self.accepted) >= self.paths

    @property
    def is_hopeless(self) -> bool:
        """Whether the candidates that are left will not do (see the module)."""
        needed, left = self.paths - len(self.accepted), self.most - self.tried
        if needed > left:
            return True
        if self.tried % _CHECKED_EVERY:
            return False
        rate = needed / left
        if bdtr(len(self.accepted), self.tried, rate) < _DOUBT:
            return True
        if self.tried < _TRUSTED:
            return False
        mean, square = self.sums / self.tried
        variance, short = max(square - mean**2, 0.0), max(self.min_fidelity - mean, 0.0)
        return bool(variance < rate * (variance + short**2))

    def histogram(self, width: int = 1) -> dict[int, int]:
        """Return how many scores lie within `width` points from each multiple of it on, empty ranges left out."""
        counts = Counter(min(math.floor(score), 100 - width) // width * width for score in self.scores)
        return dict(sorted(counts.items()))

    @property
    def costs(self) -> dict[str, float]:
        """Points of 100 that each metric costs a candidate on average, the dearest first."""
        means = np.broadcast_to(self.lost, len(self.metrics)) / max(self.tried, 1)
        return dict(sorted(zip(self.metrics, means.tolist(), strict=True), key=lambda item: -item[1]))

    def note(self) -> str:
        """Say in a few words how it goes."""
        return f"{self.tried} candidates, {self.acceptance_rate:.0%} accepted, best {self.best:.1f}"

    def refusal(self) -> str:
        """Say why there is no result and what helps."""
        width = next(width for width in (1, 2, 5, 10, 25, 100) if len(self.histogram(width)) <= 6)
        shown = ", ".join(f"{low}-{low + width}: {count}" for low, count in self.histogram(width).items())
        reached = math.floor(10 * float(np.quantile(self.scores, 0.99))) / 10
        (dearest, points), *_ = self.costs.items()
        return (
            f"min_fidelity={self.min_fidelity:g} is out of reach: {len(self.accepted)} of {self.tried} candidates "
            f"passed, and {self.paths} of at most {self.most} are wanted (scores {shown}; the best {self.best:.1f}, "
            f"1 % reach {reached:g}; {dearest} costs most, {points:.1f} points): lower it, allow more candidates or "
            f"fit another generator"
        )


@dataclass(frozen=True, eq=False)
class Accepted:
    """The outcome: which candidates were accepted, and the way to their paths."""

    judge: Judge
    tally: Tally

    def pieces(self) -> Iterator[tuple[int, Series]]:
        """Yield (number of the path, piece) of the accepted paths, numbered from 0, as a generator streams them."""
        return (
            (number, piece)
            for number, candidate in enumerate(self.tally.accepted)
            for _, piece in self.judge.paths(candidate, candidate + 1)
        )

    @property
    def scores(self) -> tuple[float, ...]:
        """Fidelity of each accepted path."""
        return tuple(self.tally.scores[number] for number in self.tally.accepted)

    @property
    def acceptance_rate(self) -> float:
        """Accepted paths over candidates that were scored until the last of them."""
        return self.tally.acceptance_rate

    @property
    def best(self) -> float:
        """Highest score of any candidate."""
        return self.tally.best

    @property
    def copied(self) -> Copied:
        """What the accepted paths have in common with the base word for word: the longest run, the sums of the rest."""
        return together(self.tally.copies)

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        copies = self.copied
        return {
            "selected_on": "fidelity to the base series, by the twelve weighted metrics",
            "min_fidelity": self.tally.min_fidelity,
            "candidates": self.tally.tried,
            "acceptance_rate": self.acceptance_rate,
            "best_fidelity": self.best,
            "mean_fidelity": float(np.mean(self.scores)),
            "fidelity_histogram": {str(low): count for low, count in self.tally.histogram().items()},
            "points_lost": self.tally.costs,
            "longest_verbatim_run": copies.longest,
            "mean_verbatim_run": copies.steps / copies.runs if copies.runs else 0.0,
            "verbatim_share": copies.steps / max(copies.known, 1),
        }


def accepted(
    generator: Generator,
    base: Series,
    *,
    paths: int,
    steps: int,
    min_fidelity: float,
    regime: str | None = None,
    rng: np.random.Generator,
    workers: int = 1,
    most_candidates: int | None = None,
    watch: Progress = silent,
) -> Accepted:
    """Search for `paths` candidates of `steps` steps that score `min_fidelity`, 0 to 100, or more against `base`.

    By default at most 200 candidates a path are scored, and a thousand at least. `rng` is not moved on. With a regime,
    `base` is what paths under it should resemble.
    Raises `InputError` where `generator.stream` does, for a threshold that is none or out of reach (with the histogram
    of scores and advice), `TooLittleDataError` for a base or paths too short to be scored.
    """
    if not 0 <= min_fidelity <= 100:
        raise InputError(f"min_fidelity={min_fidelity:g} is no fidelity: give a number from 0 to 100")
    most = max(_FEWEST, _PER_PATH * paths) if most_candidates is None else most_candidates
    if most < paths:
        raise InputError(f"{most} candidates are too few for {paths} paths: allow one for each at least")
    if workers < 1:
        raise InputError(f"{workers} workers do nothing: give one at least")
    generator.stream(paths, steps, regime=regime, rng=copy.deepcopy(rng))  # refuses what it cannot honour
    prices = {asset: part.select((part.price_name,)) for asset, part in parts_of(base).items()}
    judge = Judge(generator, Request(prices, steps, regime, copy.deepcopy(rng), min_fidelity))
    tally = Tally(paths, min_fidelity, most, judge.metrics)
    watch(0, paths, "scoring candidates")
    batch = partial(_batch, tally, steps, workers)
    with closing(in_order(judge, most, workers, batch)) as candidates:
        for candidate in candidates:
            tally.add(candidate)
            watch(len(tally.accepted), paths, tally.note())
            if tally.is_done:
                return Accepted(judge, tally)
            if tally.is_hopeless:
                break
    raise InputError(tally.refusal())


def _batch(tally: Tally, steps: int, workers: int) -> int:
    """Return how many candidates to score in one go: as many as are likely needed, at most as many as were scored."""
    passed = len(tally.accepted)
    likely = (tally.paths - passed) * (tally.tried + 1) // ((passed + 1) * workers)
    return max(min(likely, tally.tried, _BATCH, _BATCH_STEPS // steps), 1)
