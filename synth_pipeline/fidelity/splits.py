"""Floors of window metrics: the training windows are dealt into the parts that real and synthetic data play.

- split half: blocks of training windows kept apart, in place of the synthetic ones, against the rest: what an
  independent sample of the training period scores. Windows that touch them are left out of both;
- fresh: the held-out windows in place of the synthetic ones, the ones kept apart in theirs;
- copy: training windows in place of the synthetic ones;
- bootstrap: the same in blocks drawn with replacement; those are copies too, so both are no standard but a warning.

All at the sizes of the comparison: the synthetic windows too are held against training windows of which some are
kept apart, three times. A metric that trains a learner sees all of them and is dealt fewer times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity.comparison import Cuts
from synth_pipeline.fidelity.metric import WindowMetric
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

DEALS = 20
FRESH = 3
LEARNED_DEALS = 1
BLOCKS = 10
"""Blocks that a part of the training windows is made of."""


class Roles(NamedTuple):
    """Three sets of windows in the order in which a metric takes them."""

    train: Windows
    synthetic: Windows
    holdout: Windows


@dataclass(frozen=True, eq=False)
class Scores:
    """What a window metric takes, NaN where it is undefined, and why the first of those is."""

    value: float
    split_half: FloatArray
    fresh: FloatArray
    bootstrap: FloatArray
    copy: FloatArray
    reason: str = ""


def measured(
    chosen: Mapping[str, WindowMetric], cuts: Cuts, *, rng: np.random.Generator, tick: Callable[[str], None]
) -> dict[str, Scores]:
    """Score synthetic windows and every floor, metric by metric; `tick` is called with the name of each."""
    seed = int(rng.integers(2**63))
    deals = [_deal(cuts, rng) for _ in range(DEALS)]
    judged = [Roles(each.train, cuts.synthetic, cuts.holdout) for each in deals[:FRESH]]
    fresh = [Roles(each.train, cuts.holdout, each.synthetic) for each in deals[:FRESH]]
    drawn = [cuts.train.at(_blocks(cuts, rng, replace=True)).alone() for _ in range(FRESH)]
    replayed = [Roles(cuts.train, each, cuts.holdout) for each in drawn]
    copy = [Roles(cuts.train, cuts.train.at(_blocks(cuts, rng, replace=False)).alone(), cuts.holdout)]
    found = {}
    for name, metric in chosen.items():
        many = metric.cost == "cheap"
        value, reason = _score(metric, judged if many else [Roles(cuts.train, cuts.synthetic, cuts.holdout)], seed)
        split_half, split_reason = _score(metric, deals if many else deals[:LEARNED_DEALS], seed)
        found[name] = Scores(
            value=float(value.mean()),
            split_half=split_half,
            fresh=_score(metric, fresh if many else fresh[:1], seed)[0],
            bootstrap=_score(metric, replayed if many else [], seed)[0],
            copy=_score(metric, copy, seed)[0],
            reason=reason or split_reason,
        )
        tick(name)
    return found


def _score(metric: WindowMetric, all_roles: Iterable[Roles], seed: int) -> tuple[FloatArray, str]:
    """Return the values, and the reason of the first that is undefined."""
    values, reason = [], ""
    for number, roles in enumerate(all_roles):
        try:
            values.append(metric(*roles, rng=stream(seed, metric.name, number)))
        except MetricError as error:
            values.append(np.nan)
            reason = reason or str(error)
    return np.array(values), reason


def _deal(cuts: Cuts, rng: np.random.Generator) -> Roles:
    """Keep blocks of training windows apart, as many windows as there are synthetic ones, and what touches them out."""
    kept = _blocks(cuts, rng, replace=False)
    touching = np.unique(kept[:, np.newaxis] + np.arange(-cuts.overlap, cuts.overlap + 1))
    rest = np.setdiff1d(np.arange(cuts.train.count), touching)
    return Roles(cuts.train.at(rest), cuts.train.at(kept), cuts.holdout)


def _blocks(cuts: Cuts, rng: np.random.Generator, *, replace: bool) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Draw positions of as many training windows as there are synthetic ones, in blocks."""
    wanted, total = cuts.synthetic.count, cuts.train.count
    length = -(-wanted // BLOCKS)
    starts = np.arange(rng.integers(length), total - length + 1, length)
    count = min(BLOCKS, starts.size)
    drawn = rng.choice(starts, count, replace=replace)
    return np.sort((drawn[:, np.newaxis] + np.arange(length)).ravel()[:wanted])
