"""Wasserstein GAN with gradient penalty over LSTMs, for price, spread, volume and imbalance together.

Critic D and generator G play (Gulrajani et al. 2017, NeurIPS, eq. 3; Arjovsky et al. 2017, ICML)

    max_D min_G   E[D(x)] - E[D(G(z))] - λ E[(‖∇D(x̂)‖₂ - 1)²],      x̂ = u x + (1 - u) G(z),  u ~ U(0, 1),

on windows x of standard normal scores (`features.transforms`). D is an LSTM over stretches of four steps; of each step
it sees the scores, their sizes |x| and the products of both within the step and with the step before: the statistics
in which volatility clusters and in which flow leads price. G is an LSTM that gets fresh noise every step. It is trained
from a zero state after `burn_in` steps that D does not see, so that its state is stationary; sampling carries the state
on, and a path of any length is connected. What D cannot see, dependence over more than a window, is not learnt: half
seconds of a market forget within seconds, but the volatility of hourly bars does not, and its long memory is missed.

No drift, by symmetry. Mirroring bid and ask flips the sign of returns and imbalances (S). Half of the noise flips with
it (M), and what is sampled is (G(z) + S G(M z)) / 2: as M z has the law of z, a path and its mirror image are equally
likely, and the mean return is zero at every step. Real windows are mirrored at random, so D sees nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import gradient_penalty, normal, uniform
from synth_pipeline.generators.neural import NeuralGenerator, State, roll_out
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.series import FloatArray

_PATCH = 4
_PENALISED = 16
# No momentum, as both players move: with it, autocorrelations of real captures were an eighth further off.
BETAS = (0.0, 0.9)


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
    """Random numbers a step, an even count."""
    generator_rate: float = 5e-3
    """Learning rate of the generator."""
    critic_rate: float = 1e-2
    """Learning rate of the critic."""
    penalty: float = 10.0
    """[λ] Weight of the gradient penalty."""


class MirroredLSTM(nn.Module):
    """The generator: noise of shape (paths, steps, noise) and a state → scores and the next state."""

    mirror: Tensor
    noise_mirror: Tensor

    def __init__(self, directions: FloatArray, noise: int, hidden: int) -> None:
        super().__init__()
        features = len(directions)
        self.lstm = nn.LSTM(noise, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden + noise, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, features))
        self.register_buffer("mirror", torch.tensor(directions, dtype=torch.float32), persistent=False)
        signs = torch.where(torch.arange(noise) < noise // 2, -1.0, 1.0)
        self.register_buffer("noise_mirror", signs, persistent=False)
        with torch.no_grad():  # start at the scale of the scores
            scale = self(torch.randn(64, 64, noise))[0].std(dim=(0, 1))
            for parameter in self.head[-1].parameters():
                parameter.div_(scale if parameter.ndim == 1 else scale.unsqueeze(1))

    def forward(self, noise: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Run both images as one batch and average them."""
        both = torch.cat((noise, noise * self.noise_mirror))
        hidden, state = self.lstm(both, state)
        image, mirrored = self.head(torch.cat((hidden, both), dim=-1)).chunk(2)
        return 0.5 * (image + self.mirror * mirrored), state


class Critic(nn.Module):
    """Windows of shape (batch, steps, features + labels) → one number each."""

    def __init__(self, features: int, hidden: int, labels: int = 0) -> None:
        super().__init__()
        self.features = features
        seen = 2 * features
        self.rows, self.columns = torch.triu_indices(seen, seen, 1).unbind()
        self.embed = nn.Linear(seen + len(self.rows) + seen * seen + labels, hidden)
        self.merge = nn.Linear(_PATCH * hidden, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))
        self.bend = nn.LeakyReLU(0.2)

    def forward(self, windows: Tensor) -> Tensor:
        """Average the LSTM's verdict over the stretches."""
        windows, labels = windows[..., : self.features], windows[..., self.features :]
        seen = torch.cat((windows, windows.abs() - 0.8), dim=-1)
        now = seen[..., self.rows] * seen[..., self.columns]
        before = torch.cat((torch.zeros_like(seen[:, :1]), seen[:, :-1]), dim=1)
        lagged = (seen.unsqueeze(-1) * before.unsqueeze(-2)).flatten(2)
        steps = self.bend(self.embed(torch.cat((seen, 0.5 * now, 0.5 * lagged, labels), dim=-1)))
        stretches = self.bend(self.merge(steps[:, steps.shape[1] % _PATCH :].unflatten(1, (-1, _PATCH)).flatten(2)))
        hidden, _ = self.lstm(stretches)
        verdict: Tensor = self.head(torch.cat((hidden, stretches), dim=-1)).mean(dim=(1, 2))
        return verdict


class WassersteinGAN(NeuralGenerator):
    """LSTM generator against LSTM critic, with gradient penalty; connected paths of any length. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters
    mirrored = True

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        return MirroredLSTM(directions, self.parameters.noise, self.parameters.hidden)

    def recipe(self, network: nn.Module) -> Recipe:
        """Let critic and generator take turns."""
        settings: Parameters = self.parameters
        mirror = network.get_buffer("mirror")
        critic = Critic(len(mirror), settings.hidden)

        def made(paths: int, noise: torch.Generator) -> Tensor:
            shape = (paths, settings.burn_in + settings.window, settings.noise)
            windows: Tensor = network(normal(shape, noise, mirror))[0][:, settings.burn_in :]
            return windows

        def critic_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            flip = uniform((len(real), 1, 1), noise, real) < 0.5
            real = torch.where(flip, real * mirror, real)
            with torch.no_grad():
                fake = made(len(real), noise)
            distance: Tensor = critic(real).mean() - critic(fake).mean()
            penalty = gradient_penalty(critic, real[:_PENALISED], fake[:_PENALISED], noise)
            return settings.penalty * penalty - distance

        def generator_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            verdict: Tensor = critic(made(len(real), noise)).mean()
            return -verdict

        players = (
            Player("critic", critic, critic_loss, settings.critic_rate, settings.critic_updates, BETAS),
            Player("generator", network, generator_loss, settings.generator_rate, betas=BETAS),
        )
        return Recipe(
            phases=(Phase(settings.steps, players),),
            batch=settings.batch,
            average=network,
            probe=lambda noise: made(settings.batch, noise),
        )

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Carry the LSTM's state from chunk to chunk."""
        return roll_out(self.network, streams, counts, width=self.parameters.noise, burn_in=256)
