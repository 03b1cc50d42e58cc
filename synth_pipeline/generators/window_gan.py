"""What the adversarial models of one window share: a window is made of one vector of noise, in a duel with a judge.

A model file adds the generator as `build` and the discriminator as `judge`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from synth_pipeline.generators.adversarial import device_of, duel, normal
from synth_pipeline.generators.fixed_windows import WindowGenerator
from synth_pipeline.generators.recipe import Phase, Recipe


class WindowGAN(WindowGenerator):
    """A network that turns a vector of noise into a window, against a discriminator of windows."""

    @abstractmethod
    def judge(self, network: nn.Module) -> tuple[nn.Module, int]:
        """Make the discriminator, windows of shape (windows, steps, features) → one logit each; return it and how many
        features the windows of the generator have."""

    def noise_shape(self, features: int) -> tuple[int, ...]:
        """Return one vector a window."""
        del features
        return (self.parameters.noise,)

    def windows(self, network: nn.Module, noise: Tensor) -> Tensor:
        """Run the generator."""
        made: Tensor = network(noise)
        return made

    def recipe(self, network: nn.Module) -> Recipe:
        """Let discriminator and generator take turns."""
        settings = self.parameters
        discriminator, features = self.judge(network)

        def made(like: Tensor, noise: torch.Generator) -> Tensor:
            return self.windows(network, normal((len(like), settings.noise), noise, like))

        return Recipe(
            phases=(Phase(settings.steps, duel(settings, network, discriminator, made, features=features)),),
            batch=settings.batch,
            average=network,
            probe=lambda noise: made(device_of(network).new_zeros(settings.batch), noise),
        )
