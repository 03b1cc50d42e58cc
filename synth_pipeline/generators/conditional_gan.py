"""Conditional GAN: an LSTM under a market regime, against the critic of a Wasserstein GAN with gradient penalty.

Generator and critic both see a label y at every step (Mirza and Osindero 2014, arXiv 1411.1784) and play the game of
Gulrajani et al. (2017, NeurIPS, eq. 3),

    max_D min_G   E[D(x, y)] - E[D(G(z, y), y)] - λ E[(‖∇_x D(x̂, y)‖₂ - 1)²],

x̂ between a real window and one made under the same labels. Labels are the regimes of `features.regimes`, found in the
fitted history: `sample(regime=…)` takes bull, bear, flash_crash, crash, rally, high_volatility or sideways, those of
them that the history has. The label of a step is known only from the moves around it, so a generator under bull rises
by design. Without a regime a path walks through those of history, and its mean return is zero (see `neural`). A path of
any length is connected, as in `wgan_gp`, whose critic this one is with labels beside the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import gradient_penalty
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.generators.regime_conditions import ConditionedGenerator, ConditionedLSTM
from synth_pipeline.generators.wgan_gp import Critic
from synth_pipeline.series import FloatArray

_BETAS = (0.0, 0.9)


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    critic_updates: int = 2
    """Updates of the critic a step."""
    burn_in: int = 8
    """Steps before the window that the critic does not see."""
    hidden: int = 32
    """Width of both LSTMs."""
    noise: int = 8
    """Random numbers a step."""
    generator_rate: float = 5e-3
    """Learning rate of the generator."""
    critic_rate: float = 1e-2
    """Learning rate of the critic."""
    penalty: float = 10.0
    """[λ] Weight of the gradient penalty."""


class ConditionalGAN(ConditionedGenerator):
    """LSTM under regimes against an LSTM critic with gradient penalty. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        settings: Parameters = self.parameters
        return ConditionedLSTM(settings.noise, len(self.regime_names), settings.hidden, len(directions))

    def recipe(self, network: nn.Module) -> Recipe:
        """Let critic and generator take turns."""
        settings: Parameters = self.parameters
        assert isinstance(network, ConditionedLSTM)
        features = network.features
        critic = Critic(features, settings.hidden, network.labels)

        def critic_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            with torch.no_grad():
                fake = network.like(real, settings.burn_in, noise)
            distance: Tensor = critic(real).mean() - critic(fake).mean()
            some = slice(0, max(1, len(real) // 4))
            labels = real[some, :, features:]
            penalty = gradient_penalty(
                lambda x: critic(torch.cat((x, labels), dim=-1)),
                real[some, :, :features],
                fake[some, :, :features],
                noise,
            )
            return settings.penalty * penalty - distance

        def generator_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            verdict: Tensor = critic(network.like(real, settings.burn_in, noise)).mean()
            return -verdict

        players = (
            Player("critic", critic, critic_loss, settings.critic_rate, settings.critic_updates, _BETAS),
            Player("generator", network, generator_loss, settings.generator_rate, betas=_BETAS),
        )
        return Recipe(
            phases=(Phase(settings.steps, players),),
            batch=settings.batch,
            average=network,
            probe=lambda noise: network.probe(settings.batch, settings.window, settings.burn_in, noise),
        )
