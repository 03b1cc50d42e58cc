"""Candidates of rejection sampling: paths of a generator and their scores, drawn in as many processes as wanted.

Candidate k is path k of `generator.stream`, and candidates come in the order of k: nothing depends on the number of
processes, or on how many a process is given at a time. Of several assets the one that scores lowest counts: a basket is
as good as the worst of it. Which candidates are accepted is not decided here.
"""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Generating
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.copying import Copied, copied
from synth_pipeline.fidelity.scoring import Base, Scored, Scorer
from synth_pipeline.generators import Generator
from synth_pipeline.series import FloatArray, Series

START_S = 3.0
"""What it costs to start a process that has its libraries loaded."""


class Candidate(NamedTuple):
    """What is kept of one candidate."""

    score: float
    lost: FloatArray
    """Points of 100 that each of the twelve metrics costs, shape (12,)."""
    copied: Copied | None
    """Counted where the score reaches the threshold."""


@dataclass(frozen=True, eq=False)
class Request:
    """What candidates are drawn and scored by, all but the generator."""

    prices: dict[str, Series]
    """The base by asset; one of no name where there is one market."""
    steps: int
    regime: str | None
    rng: np.random.Generator
    """The state that all candidates come from; never moved on."""
    min_fidelity: float


class Judge:
    """Draws candidates and scores them, in any process."""

    def __init__(self, generator: Generator, request: Request) -> None:
        self.generator, self.request = generator, request
        self.bases = {asset: Base.of(series, request.steps) for asset, series in request.prices.items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the twelve."""
        return tuple(metric.name for metric in next(iter(self.bases.values())).twelve)

    def paths(self, first: int, stop: int) -> Iterator[tuple[int, Series]]:
        """Draw candidates `first` … `stop` - 1 in pieces."""
        asked, rng = self.request, copy.deepcopy(self.request.rng)
        return self.generator.stream(stop, asked.steps, regime=asked.regime, rng=rng, first=first)

    def candidates(self, first: int, stop: int) -> list[Candidate]:
        """Draw and score candidates `first` … `stop` - 1."""
        scorers = {asset: Scorer(base) for asset, base in self.bases.items()}
        for number, piece in self.paths(first, stop):
            for asset, part in self._checked(piece).items():
                scorers[asset].add(number, part.column(part.price_name)[0])
        found = {asset: scorer.finish() for asset, scorer in scorers.items()}
        made = []
        for number in range(first, stop):
            by_asset = {asset: scored[number] for asset, scored in found.items()}
            worst = min(by_asset.values(), key=lambda scored: scored.score)
            passes = worst.score >= self.request.min_fidelity
            copies = [self._copied(asset, scored) for asset, scored in by_asset.items() if passes]
            made.append(Candidate(worst.score, worst.lost, together(copies) if copies else None))
        return made

    def _copied(self, asset: str, scored: Scored) -> Copied:
        tick = self.request.prices[asset].tick_size
        return copied(self.bases[asset].sample, scored.head, tick / scored.typical)

    def _checked(self, piece: Series) -> dict[str, Series]:
        """Return the piece by asset. Raises `InputError` when the base is of other markets, or of another step."""
        parts = parts_of(piece)
        made, real = ((sorted(each), {part.step_ns for part in each.values()}) for each in (parts, self.request.prices))
        if made != real:
            told = [f"{', '.join(names) or 'one market'} every {min(steps) / 1e9:g} s" for names, steps in (made, real)]
            raise InputError(f"paths are of {told[0]}, the base is of {told[1]}: give the series that was fitted")
        return parts


def in_order(judge: Judge, most: int, workers: int, batch: Callable[[], int]) -> Generating[Candidate]:
    """Score at most `most` candidates, `batch` of them in one go, and yield them in their order.

    Other processes are started only after as much work as their start costs: many searches are over by then.
    """
    first, started = 0, perf_counter()
    while first < most and (workers < 2 or perf_counter() - started < START_S):
        stop = min(first + batch(), most)
        yield from judge.candidates(first, stop)
        first = stop
    if first < most:
        yield from _side_by_side(judge, range(first, most), workers, batch)


def _side_by_side(judge: Judge, numbers: range, workers: int, batch: Callable[[], int]) -> Generating[Candidate]:
    """Score candidates in other processes, one task more than there are of them on the way."""
    first, tasks = numbers.start, deque[Future[list[Candidate]]]()
    with tempfile.TemporaryDirectory() as folder:
        judge.generator.save(Path(folder))
        # A fresh interpreter each: a fork of a process that has threads may hang.
        context, known = multiprocessing.get_context("spawn"), (type(judge.generator), Path(folder), judge.request)
        pool = ProcessPoolExecutor(workers, context, initializer=_open, initargs=known)
        try:
            while first < numbers.stop or tasks:
                while first < numbers.stop and len(tasks) <= workers:
                    stop = min(first + batch(), numbers.stop)
                    tasks.append(pool.submit(_judged, first, stop))
                    first = stop
                yield from tasks.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


_opened: list[Judge] = []
"""In a process of its own: the one that it works for."""


def _open(kind: type[Generator], folder: Path, request: Request) -> None:
    _opened.append(Judge(kind.load(folder), request))


def _judged(first: int, stop: int) -> list[Candidate]:
    return _opened[0].candidates(first, stop)


def parts_of(series: Series) -> dict[str, Series]:
    """Return the series of each asset, or the one of no name."""
    return series.parts() if series.assets else {"": series}


def together(copies: Sequence[Copied]) -> Copied:
    """Return the longest run of all, and the sums of the rest."""
    longest, runs, steps, known = zip(*copies, strict=True)
    return Copied(max(longest), sum(runs), sum(steps), sum(known))
