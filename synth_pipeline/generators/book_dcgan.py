"""Deep convolutional GAN over pictures of the book: Radford, Metz and Chintala (2016, ICLR) in levels and time.

A window is a picture, as wide as its steps and as high as the levels of the book (`features.book_image`). Its channels
are the logarithms, as scores, of the sizes of bids and of asks and of the distances in price from a level to the next;
where the best level has no such distance, the spread stands on the bid's side and the move of the mid on the ask's. So
a picture is the whole ladder at every step: decoded, sizes are positive and prices in order, whatever the network made.
Other columns (volume) have a channel each, one level high. Without a book, such as for bars, all columns do, and the
picture is one level high.

The rules of the paper are those of `dcgan`, with convolutions over both directions: strided, and transposed ones that
double height and width twice, from a projection of z, cut to the picture; batch normalization, ReLU and leaky ReLU,
weights from N(0, 0.02²), Adam with β₁ = 0.5. The output is linear: scores have no bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synth_pipeline.features.book_image import LEVELS, NAMES
from synth_pipeline.generators import adversarial
from synth_pipeline.generators.adversarial import started
from synth_pipeline.generators.window_gan import WindowGAN
from synth_pipeline.series import FloatArray

_PLANES = {"bid_size": 0, "ask_size": 1, "bid_gap": 2, "ask_gap": 3}
_BEST = {"spread": (2, 0), "mid": (3, 0)}


@dataclass(frozen=True)
class Parameters(adversarial.Parameters):
    """What a user may set."""

    steps: int = 2_000
    channels: int = 32
    """Channels of the layer next to the picture; the one before has twice as many."""
    noise: int = 32
    """Random numbers a picture."""
    generator_rate: float = 2e-4
    discriminator_rate: float = 2e-4


def places(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return for each column its channel and its level in the picture."""
    if not set(NAMES) & set(names):
        return [(channel, 0) for channel in range(len(names))]
    found, more = [], len(_PLANES)
    for name in names:
        if name in NAMES:
            plane, _, level = name.rpartition("_")
            found.append((_PLANES[plane], int(level) - 1))
        elif name in _BEST:
            found.append(_BEST[name])
        else:
            found.append((more, 0))
            more += 1
    return found


class Pictures(nn.Module):
    """The generator: noise of shape (windows, noise) → windows of shape (windows, steps, features)."""

    def __init__(self, settings: Parameters, at: Sequence[tuple[int, int]], dropout: float) -> None:
        super().__init__()
        self.at, self.steps = tuple(zip(*at, strict=True)), settings.window
        self.planes, self.levels = max(self.at[0]) + 1, LEVELS if max(self.at[1]) else 1
        wide, first = settings.channels, (-(-self.levels // 4), -(-settings.window // 4))
        self.layers = nn.Sequential(
            nn.Linear(settings.noise, 2 * wide * first[0] * first[1], bias=False),
            nn.Unflatten(1, (2 * wide, *first)),
            nn.BatchNorm2d(2 * wide),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * wide, wide, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ConvTranspose2d(wide, self.planes, 4, stride=2, padding=1),
        )
        started(self)

    def forward(self, noise: Tensor) -> Tensor:
        """Paint, cut to the picture, read the columns off it."""
        made: Tensor = self.layers(noise)[..., : self.levels, : self.steps]
        return made[:, self.at[0], self.at[1]].transpose(1, 2)

    def picture(self, windows: Tensor) -> Tensor:
        """Return windows as pictures of shape (windows, planes, levels, steps); what no column is, is 0."""
        empty = windows.new_zeros(len(windows), self.planes, self.levels, self.steps)
        where = [torch.tensor(each, device=windows.device) for each in self.at]
        return empty.index_put((torch.arange(len(windows), device=windows.device)[:, None], *where), windows.mT)


class Critic(nn.Module):
    """The discriminator: windows of shape (windows, steps, features) → one logit each."""

    def __init__(self, pictures: Pictures, channels: int) -> None:
        super().__init__()
        self.picture = pictures.picture
        high, wide = (((size + 1) // 2 + 1) // 2 for size in (pictures.levels, pictures.steps))
        self.layers = nn.Sequential(
            nn.Conv2d(pictures.planes, channels, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 1, (high, wide)),
        )
        started(self)

    def forward(self, windows: Tensor) -> Tensor:
        """Halve the picture twice, then weigh what is left."""
        verdict: Tensor = self.layers(self.picture(windows)).flatten(1)
        return verdict


class BookGAN(WindowGAN):
    """Two-dimensional convolutions over levels and time. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters
    columns = ("mid", "spread", *NAMES, "open", "high", "low", "close", "volume")

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network for the picture that the fitted columns make."""
        names = self.transform.anchor.names if hasattr(self, "transform") else [""] * len(directions)
        return Pictures(self.parameters, places(names), self.dropout)

    def judge(self, network: nn.Module) -> tuple[nn.Module, int]:
        """Make the critic of pictures."""
        assert isinstance(network, Pictures)
        return Critic(network, self.parameters.channels), len(network.at[0])
