"""Generators that make one window of a fixed length at once: paths no longer than that.

Two windows of such a model do not go on from one another, so a longer path is refused by name. Under
`preset=release` a window is drawn anew while it lies nearer to a fitted window than 99% of the windows held out do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import TrainingError
from synth_pipeline.generators.neural import NeuralGenerator
from synth_pipeline.generators.training_windows import Windows, nearest
from synth_pipeline.rng import one_thread
from synth_pipeline.series import FloatArray

Make = Callable[[nn.Module, Tensor], Tensor]
"""A network and noise of shape (windows, *noise_shape) → windows."""

_NEAREST_SHARE = 0.01
_DRAWS = 20


class WindowGenerator(NeuralGenerator):
    """A network that turns a fixed count of normal numbers into a window.

    A model file adds `build`, `recipe`, `noise_shape` and `windows`.
    """

    rows: ClassVar[int] = 256

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self.max_steps = self.parameters.window
        self.fitted: Windows | None = None
        self.too_near = 0.0

    @abstractmethod
    def noise_shape(self, features: int) -> tuple[int, ...]:
        """Return the shape of the normal numbers that one window is made of."""

    @abstractmethod
    def windows(self, network: nn.Module, noise: Tensor) -> Tensor:
        """Return windows, shape (windows, steps, features), made of noise of shape (windows, *noise_shape)."""

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Make one window a path and hand it out in pieces."""
        return self.handed_out(streams, counts, self.windows)

    def handed_out(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], make: Make
    ) -> Iterator[FloatArray]:
        """Do so with windows that `make` makes."""
        made, start = self._drawn(streams, make), 0
        for count in counts:
            yield made[:, start : start + count]
            start += count

    def _drawn(self, streams: Mapping[int, np.random.Generator], make: Make) -> FloatArray:
        """Return a window for each row, none of them a copy."""
        features = len(self.transform.marginals) if hasattr(self, "transform") else len(self.marginals)
        noise = np.zeros((self.rows, *self.noise_shape(features)), dtype=np.float32)
        wanted = list(streams)
        for _ in range(_DRAWS):
            for row in wanted:
                streams[row].standard_normal(dtype=np.float32, out=noise[row])
            with one_thread(), torch.inference_mode():
                made = make(self.network, torch.from_numpy(noise)).double().numpy()
                wanted = self._copies(made, wanted)
            if not wanted:
                return np.asarray(made[list(streams)])
        raise TrainingError(
            f"{self._name}: a window was a copy of a fitted one {_DRAWS} times: the network has memorised its windows; "
            f"train it for fewer steps or on more data, or take preset=benchmark"
        )

    def _copies(self, made: FloatArray, rows: list[int]) -> list[int]:
        """Return which of the rows are nearer to a fitted window than fresh ones are."""
        if self.fitted is None:
            return []
        near = nearest(torch.from_numpy(self.calibrated(made)).float(), self.fitted) < self.too_near
        return [row for row in rows if near[row]]

    def learnt(self, data: Windows, held: Windows | None) -> None:
        """Keep the fitted windows, and how near to them 1% of the windows held out lie."""
        if held is not None:
            self.too_near = float(nearest(held.spread(self.rows), data).quantile(_NEAREST_SHARE))
            self.fitted = data

    def keep(self, folder: Path) -> None:
        """Write the fitted windows, where samples are held against them."""
        if self.fitted is not None:
            with (folder / "fitted.npz").open("wb") as file:
                known = {"rows": self.fitted.rows.numpy(), "starts": self.fitted.starts}
                np.savez(file, allow_pickle=False, too_near=self.too_near, **known)

    def recall(self, folder: Path) -> None:
        """Read them back."""
        if (folder / "fitted.npz").exists():
            with np.load(folder / "fitted.npz", allow_pickle=False) as kept:
                self.fitted = Windows(torch.from_numpy(kept["rows"]), kept["starts"], self.parameters.window)
                self.too_near = float(kept["too_near"])
