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
from torch import Tensor

from synth_pipeline.generators import wgan_gp
from synth_pipeline.generators.adversarial import gradient_penalty
from synth_pipeline.generators.recipe import Player
from synth_pipeline.generators.regime_conditions import ConditionedGenerator, ConditionedLSTM


@dataclass(frozen=True)
class Parameters(wgan_gp.Parameters):
    """What a user may set."""

    noise: int = 8
    """Random numbers a step."""


class ConditionalGAN(ConditionedGenerator):
    """LSTM under regimes against an LSTM critic with gradient penalty. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def players(self, network: ConditionedLSTM) -> tuple[Player, ...]:
        """Let critic and generator play."""
        settings: Parameters = self.parameters
        features = network.features
        critic = wgan_gp.Critic(features, settings.hidden, network.labels)

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

        return (
            Player("critic", critic, critic_loss, settings.critic_rate, settings.critic_updates, wgan_gp.BETAS),
            Player("generator", network, generator_loss, settings.generator_rate, betas=wgan_gp.BETAS),
        )
