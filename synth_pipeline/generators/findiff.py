"""FinDiff: a denoising diffusion model of rows, here of flattened windows (Sattarov, Schreyer and Borth 2023, ICAIF).

A window x_0 is noised in T steps, x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε with β from 10⁻⁴ to β_T linearly, and a perceptron
with an embedding of t learns ε by least squares (Ho, Jain and Abbeel 2020, NeurIPS, algorithms 1 and 2):

    min E ‖ε - ε_θ(x_t, t)‖²,
    x_{t-1} = (x_t - β_t / √(1 - ᾱ_t) ε_θ) / √α_t + σ_t z,        σ_t² = β_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t).

What differs: the paper's rows are bank records with embedded categories, which series of prices have none of; here a
row is a window of steps, so that the model is one of time too, and the perceptron sees sizes |x_t| beside x_t, in which
volatility clusters. T is smaller than the paper's 500, and β_T = 10 / T keeps the last step noise all the same. Weights
are averaged, as in Ho et al. A window is made at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import normal, uniform
from synth_pipeline.generators.fixed_windows import WindowGenerator
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.series import FloatArray

_BETAS = (0.9, 0.999)
_SMALLEST, _LARGEST = 1e-4, 0.5


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    steps: int = 4_000
    batch: int = 256
    decay: float = 0.995
    diffusion_steps: int = 100
    """[T] Steps from a window to noise."""
    hidden: int = 256
    """Width of the perceptron, which has `layers` residual layers."""
    layers: int = 3
    """Residual layers."""
    rate: float = 1e-3
    """Learning rate."""
    clip: float = 1.0
    """Largest norm of the gradient."""


def residual_layer(wide: int, dropout: float) -> nn.Sequential:
    """Return what is added to the stream in one layer."""
    inner = (nn.Linear(wide, wide), nn.SiLU(), nn.Dropout(dropout), nn.Linear(wide, wide))
    return nn.Sequential(nn.LayerNorm(wide), *inner)


class Denoiser(nn.Module):
    """Noised windows, flattened, and their times → the noise in them."""

    alphas: Tensor
    kept: Tensor

    def __init__(self, settings: Parameters, features: int, dropout: float) -> None:
        super().__init__()
        self.steps, self.features, self.times = settings.window, features, settings.diffusion_steps
        size, wide = settings.window * features, settings.hidden
        self.inward, self.outward = nn.Linear(2 * size, wide), nn.Linear(wide, size)
        self.time = nn.Sequential(nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.layers = nn.ModuleList(residual_layer(wide, dropout) for _ in range(settings.layers))
        rates = torch.arange((wide + 1) // 2) / ((wide + 1) // 2)
        self.register_buffer("pace", 10_000.0**-rates, persistent=False)
        betas = torch.linspace(_SMALLEST, min(10 / self.times, _LARGEST), self.times, dtype=torch.float64)
        self.register_buffer("alphas", 1 - betas, persistent=False)
        self.register_buffer("kept", (1 - betas).cumprod(dim=0), persistent=False)

    def forward(self, noised: Tensor, times: Tensor) -> Tensor:
        """Return the noise, shape (windows, steps · features), for times of shape (windows,)."""
        angles = times[:, None] * self.get_buffer("pace") * (1_000 / self.times)
        when = self.time(torch.cat((angles.sin(), angles.cos()), dim=1)[:, : self.inward.out_features])
        now = self.inward(torch.cat((noised, noised.abs() - 0.8), dim=1)) + when
        for layer in self.layers:
            now = now + layer(now + when)
        found: Tensor = self.outward(now)
        return found

    def misfit(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return the mean squared error of the noise at random times."""
        clean = windows.flatten(1)
        times = (uniform((len(clean),), noise, clean) * self.times).long().clamp_max(self.times - 1)
        drawn = normal(clean.shape, noise, clean)
        kept = self.kept[times, None].float()
        loss: Tensor = (self(kept.sqrt() * clean + (1 - kept).sqrt() * drawn, times) - drawn).square().mean()
        return loss

    def drawn(self, noise: Tensor) -> Tensor:
        """Walk from noise to windows; `noise`, shape (windows, times, steps · features), is used up in order."""
        now = noise[:, 0]
        for step in range(self.times - 1, -1, -1):
            alpha, kept = float(self.alphas[step]), float(self.kept[step])
            found = self(now, torch.full((len(now),), step, device=now.device))
            now = (now - (1 - alpha) / (1 - kept) ** 0.5 * found) / alpha**0.5
            if step:
                before = float(self.kept[step - 1])
                now = now + ((1 - alpha) * (1 - before) / (1 - kept)) ** 0.5 * noise[:, self.times - step]
        return now.reshape(len(now), self.steps, self.features)


class FinDiff(WindowGenerator):
    """Denoising diffusion of flattened windows. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the denoiser."""
        return Denoiser(self.parameters, len(directions), self.dropout)

    def noise_shape(self, features: int) -> tuple[int, ...]:
        """Return a window of noise for the start and one for every step but the last."""
        return (self.parameters.diffusion_steps, self.parameters.window * features)

    def windows(self, network: nn.Module, noise: Tensor) -> Tensor:
        """Denoise step by step."""
        assert isinstance(network, Denoiser)
        return network.drawn(noise)

    def recipe(self, network: nn.Module) -> Recipe:
        """Learn the noise."""
        settings: Parameters = self.parameters
        assert isinstance(network, Denoiser)
        player = Player("denoiser", network, network.misfit, settings.rate, betas=_BETAS, clip=settings.clip)
        phases = (Phase(settings.steps, (player,)),)
        return Recipe(phases, settings.batch, network, held_out=network.misfit)
