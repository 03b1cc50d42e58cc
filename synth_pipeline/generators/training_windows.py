"""Windows of standard normal scores: what the neural generators learn from, and what is held out of it.

What belongs here: cutting, drawing and holding out. What does not: what is learnt from them (`training`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.features.windows import segments
from synth_pipeline.series import FloatArray, IntArray, Series

_CHUNK = 1_024


@dataclass(frozen=True)
class Windows:
    """Every window of `length` steps without a gap, cut on demand: a day of rows is small, its windows are not."""

    rows: Tensor
    starts: IntArray
    length: int
    weights: Tensor | None = None
    """How often each is drawn, relative to the others; None: all alike."""

    @classmethod
    def of(cls, scores: Series, length: int, fewest: int) -> Self:
        """Find them. Raises `TooLittleDataError` for fewer than `fewest`."""
        starts = [
            np.arange(path * scores.steps + start, path * scores.steps + stop - length + 1)
            for path, start, stop in segments(scores)
        ]
        found = np.concatenate(starts) if starts else np.empty(0, dtype=np.int64)
        if len(found) < fewest:
            raise TooLittleDataError(
                f"{len(found)} windows of {length} steps without a gap and {fewest} are needed: "
                f"record for longer or choose a shorter window"
            )
        rows = np.nan_to_num(scores.values.reshape(-1, len(scores.names)))
        return cls(torch.from_numpy(rows).to(torch.float32), found, length)

    @classmethod
    def cut(cls, windows: FloatArray) -> Self:
        """Take windows that are cut already, shape (windows, length, features), in the order of time."""
        count, length, features = windows.shape
        rows = torch.from_numpy(windows.reshape(-1, features)).to(torch.float32)
        return cls(rows, np.arange(count, dtype=np.int64) * length, length)

    def at(self, which: IntArray) -> Tensor:
        """Return the windows of these numbers, shape (windows, length, features)."""
        found: Tensor = self.rows[torch.from_numpy(self.starts[which][:, np.newaxis] + np.arange(self.length))]
        return found

    def spread(self, most: int) -> Tensor:
        """Return at most so many of them, evenly over time."""
        count = len(self.starts)
        return self.at(np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)))

    def batch(self, size: int, noise: torch.Generator) -> Tensor:
        """Return windows drawn at random, shape (size, length, features)."""
        if self.weights is None:
            drawn = torch.randint(len(self.starts), (size,), generator=noise)
        else:
            drawn = torch.multinomial(self.weights, size, replacement=True, generator=noise)
        return self.at(drawn.numpy())

    def parted(self, share: float) -> tuple[Self, Self]:
        """Hold out the last `share` of the windows; those that share rows with one held out belong to neither part.

        Raises `TooLittleDataError` when a part has none.
        """
        cut = round(len(self.starts) * (1 - share))
        border = self.starts[cut] if cut < len(self.starts) else 0
        kept = self.starts[:cut][self.starts[:cut] + self.length <= border]
        if not len(kept) or cut == len(self.starts):
            raise TooLittleDataError(
                f"{len(self.starts)} windows of {self.length} steps leave none to hold out: "
                f"record for longer, choose a shorter window or preset=benchmark"
            )
        weights = None if self.weights is None else self.weights[: len(kept)]
        late = None if self.weights is None else self.weights[cut:]
        return replace(self, starts=kept, weights=weights), replace(self, starts=self.starts[cut:], weights=late)


def nearest(made: Tensor, data: Windows) -> Tensor:
    """Return the distance of each made window, shape (windows, steps, features), to the nearest of `data`.

    A distance is the root mean square over steps and features: in scores, two unrelated windows lie about √2 apart.
    """
    flat = made.flatten(1)
    least = torch.full((len(flat),), torch.inf)
    for first in range(0, len(data.starts), _CHUNK):
        known = data.at(np.arange(first, min(first + _CHUNK, len(data.starts))))[..., : made.shape[2]].flatten(1)
        apart = (flat**2).sum(dim=1, keepdim=True) + (known**2).sum(dim=1) - 2 * flat @ known.T
        least = torch.minimum(least, apart.amin(dim=1))
    return (least.clamp_min(0) / flat.shape[1]).sqrt()
