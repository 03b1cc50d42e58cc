"""TimeVAE: a variational autoencoder of windows with a trend in its decoder (Desai et al. 2021, arXiv 2111.08095).

    max  E_q(z|x)[log N(x; μ(z), σ(z)²)] · w - KL(q(z|x) ‖ N(0, 1)),      μ(z) = level(z) + trend(z) + residual(z).

Encoder: strided convolutions over time with ReLU, then dense heads for mean and log-variance. Decoder, as in the
paper's interpretable form: a level, a trend Σ_p θ_p(z) (t/T)^p of low degree, and a residual of transposed convolutions
that mirror the encoder. w is the paper's weight of the reconstruction (it suggests 0.5 to 3.5). What differs: the
scale σ is learnt (the paper's is fixed), its logarithm a trend of z as well, because calm and wild windows differ in
little else; and with `observation` a window is drawn from N(μ(z), σ(z)²) instead of being its mean: means of windows
are smoother than windows, and returns are mostly what no smooth curve holds. The seasonal part is left out: a window of
half seconds has no season.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import normal
from synth_pipeline.generators.fixed_windows import WindowGenerator
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.series import FloatArray


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    steps: int = 2_000
    channels: int = 50
    """Channels of the first convolution; the next have two and four times as many, as the paper's 50, 100, 200."""
    latent: int = 8
    """Size of z."""
    degree: int = 2
    """Of the trend."""
    reconstruction: float = 1.0
    """[w] Weight of the reconstruction against the KL distance. With a learnt scale the bound needs none: beyond 1 the
    encoder leaves the prior that windows are drawn from."""
    observation: bool = True
    """Draw windows around the decoder's mean instead of showing the mean."""
    rate: float = 1e-3
    """Learning rate."""
    clip: float = 5.0
    """Largest norm of a gradient."""


class Autoencoder(nn.Module):
    """Encoder and decoder of windows of shape (windows, steps, features)."""

    powers: Tensor

    def __init__(self, settings: Parameters, features: int, dropout: float) -> None:
        super().__init__()
        self.steps, self.features, self.latent = settings.window, features, settings.latent
        widths = (features, settings.channels, 2 * settings.channels, 4 * settings.channels)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for thin, wide in pairwise(widths):
            down += [nn.Conv1d(thin, wide, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(dropout)]
            up[:0] = [nn.ConvTranspose1d(wide, thin, 4, stride=2, padding=1), nn.ReLU()]
        short = -(-settings.window // 8)
        self.encode = nn.Sequential(*down, nn.Flatten(1), nn.LazyLinear(2 * settings.latent))
        self.residual = nn.Sequential(
            nn.Linear(settings.latent, widths[-1] * short), nn.ReLU(), nn.Unflatten(1, (widths[-1], short)), *up[:-1]
        )
        self.weigh = nn.Linear(features, features)
        self.trend = nn.Linear(settings.latent, features * (settings.degree + 1))
        self.scale = nn.Linear(settings.latent, features * (settings.degree + 1))
        time = torch.arange(settings.window) / settings.window
        powers = torch.stack([time**power for power in range(settings.degree + 1)])
        self.register_buffer("powers", powers, persistent=False)
        with torch.no_grad():
            self.encode(torch.zeros(1, features, settings.window))
            self.scale.weight.zero_()
            self.scale.bias.zero_()

    def laws(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of z, shape (windows, latent) each."""
        mean, spread = self.encode(windows.transpose(1, 2)).chunk(2, dim=1)
        return mean, spread.clamp(-10, 10)

    def decode(self, latent: Tensor) -> Tensor:
        """Return μ(z): level and trend, and what they leave."""
        left = self.weigh(self.residual(latent)[..., : self.steps].transpose(1, 2))
        level: Tensor = left + self._curve(self.trend, latent)
        return level

    def log_scale(self, latent: Tensor) -> Tensor:
        """Return log σ(z), shape (windows, steps, features)."""
        return self._curve(self.scale, latent).clamp(-4, 4)

    def _curve(self, weights: nn.Module, latent: Tensor) -> Tensor:
        curve: Tensor = weights(latent).unflatten(1, (self.features, -1)) @ self.powers
        return curve.transpose(1, 2)


def negative_bound(network: Autoencoder, windows: Tensor, weight: float, noise: torch.Generator) -> Tensor:
    """Return minus the weighted evidence bound, per step and feature."""
    mean, spread = network.laws(windows)
    latent = mean + (spread / 2).exp() * normal(mean.shape, noise, mean)
    scale = network.log_scale(latent)
    misfit = (((windows - network.decode(latent)) / scale.exp()) ** 2 / 2 + scale).sum(dim=(1, 2))
    distance = (mean**2 + spread.exp() - 1 - spread).sum(dim=1) / 2
    bound: Tensor = (weight * misfit + distance).mean() / windows[0].numel()
    return bound


class TimeVAE(WindowGenerator):
    """Convolutional autoencoder with a trend. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the autoencoder."""
        return Autoencoder(self.parameters, len(directions), self.dropout)

    def noise_shape(self, features: int) -> tuple[int, ...]:
        """Return the numbers of z, then those of every step and feature."""
        return (self.parameters.latent + self.parameters.window * features,)

    def windows(self, network: nn.Module, noise: Tensor) -> Tensor:
        """Decode z; draw around it."""
        assert isinstance(network, Autoencoder)
        made = network.decode(noise[:, : network.latent])
        if not self.parameters.observation:
            return made
        around = noise[:, network.latent :].reshape(made.shape)
        drawn: Tensor = made + network.log_scale(noise[:, : network.latent]).exp() * around
        return drawn

    def latent(self, windows: Tensor) -> Tensor:
        """Return the means of z."""
        assert isinstance(self.network, Autoencoder)
        return self.network.laws(windows)[0]

    def recipe(self, network: nn.Module) -> Recipe:
        """Raise the evidence bound."""
        settings: Parameters = self.parameters
        assert isinstance(network, Autoencoder)

        def loss(windows: Tensor, noise: torch.Generator) -> Tensor:
            return negative_bound(network, windows, settings.reconstruction, noise)

        player = Player("autoencoder", network, loss, settings.rate, betas=(0.9, 0.999), clip=settings.clip)
        shape = self.noise_shape(network.features)
        return Recipe(
            phases=(Phase(settings.steps, (player,)),),
            batch=settings.batch,
            average=network,
            probe=lambda noise: self.windows(network, normal((settings.batch, *shape), noise, network.powers)),
            held_out=loss,
        )
