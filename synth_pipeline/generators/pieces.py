"""Long paths in pieces: how many steps each has, and arrays cut anew along time.

What belongs here: sizes and cuts. What a law carries from one piece to the next is in its own file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from synth_pipeline.series import FloatArray, IntArray

Array = TypeVar("Array", FloatArray, IntArray)

PIECE = 65_536
"""Most steps that a piece of a streamed path has."""


def counts_of(steps: int) -> Iterator[int]:
    """Yield how many steps each piece of a path has."""
    return (min(PIECE, steps - start) for start in range(0, steps, PIECE))


def recut(blocks: Iterator[Array], counts: Iterable[int], axis: int = 0) -> Iterator[Array]:
    """Yield what an endless series of blocks holds, so many rows of `axis` as every count says."""
    left = next(blocks)
    for count in counts:
        parts, have = [left], left.shape[axis]
        while have < count:
            parts.append(next(blocks))
            have += parts[-1].shape[axis]
        now, left = np.split(np.concatenate(parts, axis=axis), [count], axis=axis)
        yield now
