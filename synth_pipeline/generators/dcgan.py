"""Deep convolutional GAN over time: the recipe of Radford, Metz and Chintala (2016, ICLR) in one dimension.

The paper's rules, kept: strided convolutions instead of pooling (transposed ones in G, each doubling the length, from a
projection of z), batch normalization in both but at G's output and D's input, no hidden dense layers, ReLU in G and
leaky ReLU of slope 0.2 in D, weights from N(0, 0.02²), Adam with rate 2·10⁻⁴ and β₁ = 0.5. What differs: convolutions
run over time instead of an image (`book_dcgan` paints images), the output is linear instead of tanh, because scores
have no bounds, and it is cut to the window from the next multiple of 4; the stabilizers of `adversarial` are on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from synth_pipeline.generators import adversarial
from synth_pipeline.generators.adversarial import started
from synth_pipeline.generators.window_gan import WindowGAN
from synth_pipeline.series import FloatArray


@dataclass(frozen=True)
class Parameters(adversarial.Parameters):
    """What a user may set."""

    steps: int = 2_000
    channels: int = 64
    """Channels of the layer next to the data; the one before has twice as many."""
    noise: int = 32
    """Random numbers a window."""
    generator_rate: float = 2e-4
    discriminator_rate: float = 2e-4


class Upward(nn.Module):
    """The generator: noise of shape (windows, noise) → windows of shape (windows, steps, features)."""

    def __init__(self, noise: int, channels: int, steps: int, features: int, dropout: float) -> None:
        super().__init__()
        self.steps, self.features = steps, features
        first = -(-steps // 4)
        self.layers = nn.Sequential(
            nn.Linear(noise, 2 * channels * first, bias=False),
            nn.Unflatten(1, (2 * channels, first)),
            nn.BatchNorm1d(2 * channels),
            nn.ReLU(),
            nn.ConvTranspose1d(2 * channels, channels, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ConvTranspose1d(channels, features, 4, stride=2, padding=1),
        )
        started(self)

    def forward(self, noise: Tensor) -> Tensor:
        """Double the length twice, cut to the window."""
        made: Tensor = self.layers(noise)[..., : self.steps].transpose(1, 2)
        return made


class Downward(nn.Module):
    """The discriminator: windows of shape (windows, steps, features) → one logit each."""

    def __init__(self, channels: int, steps: int, features: int) -> None:
        super().__init__()
        halves = ((steps + 1) // 2 + 1) // 2
        self.layers = nn.Sequential(
            nn.Conv1d(features, channels, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(channels, 2 * channels, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv1d(2 * channels, 1, halves),
        )
        started(self)

    def forward(self, windows: Tensor) -> Tensor:
        """Halve the length twice, then weigh what is left."""
        verdict: Tensor = self.layers(windows.transpose(1, 2)).flatten(1)
        return verdict


class ConvolutionalGAN(WindowGAN):
    """Transposed convolutions against strided ones. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        settings: Parameters = self.parameters
        return Upward(settings.noise, settings.channels, settings.window, len(directions), self.dropout)

    def judge(self, network: nn.Module) -> tuple[nn.Module, int]:
        """Make the strided convolutions."""
        settings: Parameters = self.parameters
        assert isinstance(network, Upward)
        return Downward(settings.channels, settings.window, network.features), network.features
