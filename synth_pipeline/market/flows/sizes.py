"""Sizes: drawn from what was seen, so that round lots stay round.

A table holds the quantiles of a sample of sizes at the middles of `POINTS` equal shares; the last point is the mean of
its share, so that a heavy tail keeps its weight. Groups with too few sizes of their own use a wider group's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from synth_pipeline.market.compiling import kernel
from synth_pipeline.series import FloatArray, IntArray

POINTS = 256
_FEWEST = 50
"""Sizes that a table of its own needs."""


class Sizes(NamedTuple):
    """Tables of sizes and which group draws from which; a group is anything that is numbered from 0."""

    tables: IntArray
    """Lots, shape (tables, POINTS), each ascending."""
    table_of: IntArray
    """Shape (groups,)."""


def quantiles(values: IntArray | FloatArray) -> FloatArray:
    """Return the table of a sample, ascending, shape (POINTS,)."""
    ordered = np.sort(values).astype(np.float64)
    middles = (np.arange(POINTS) + 0.5) / POINTS
    table = ordered[np.minimum((middles * ordered.size).astype(np.int64), ordered.size - 1)]
    table[-1] = ordered[-max(1, ordered.size // POINTS) :].mean()
    return table


def sizes_of(sizes: IntArray, groups: IntArray, wider: Sequence[IntArray]) -> Sizes:
    """Return the tables of sizes by group.

    `wider[g]` names the groups whose sizes together stand in where group g has too few; where they have too few as
    well, all sizes do. A group that names only itself always has its own.
    """
    known: dict[tuple[int, ...], int] = {(): 0}
    tables, table_of = [quantiles(sizes)], []
    counts = np.bincount(groups, minlength=len(wider))
    order = np.argsort(groups, kind="stable")
    bounds = np.concatenate(([0], np.cumsum(counts)))
    for group, others in enumerate(wider):
        among: tuple[int, ...] = (group,)
        if counts[group] < _FEWEST and others.size > 1:
            among = tuple(others.tolist())
            among = among if counts[others].sum() >= _FEWEST else ()
        if among not in known:
            known[among] = len(tables)
            rows = np.concatenate([order[bounds[member] : bounds[member + 1]] for member in among])
            tables.append(quantiles(sizes[rows]))
        table_of.append(known[among])
    return Sizes(np.maximum(np.rint(np.stack(tables)), 1).astype(np.int64), np.array(table_of, dtype=np.int64))


@kernel
def draw_size(sizes: Sizes, group: int, rng: np.random.Generator) -> int:
    """Draw lots for a group."""
    return int(sizes.tables[sizes.table_of[group], int(rng.random() * POINTS)])
