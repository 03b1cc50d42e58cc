"""RCGAN: a recurrent conditional GAN, LSTM against LSTM, judged at every step (Esteban, Hyland and Rätsch 2017).

G is an LSTM that gets fresh noise and the label of every step; D is an LSTM that says of every step, knowing those
before it, whether it is real, and the loss is the mean of the cross-entropies over steps (arXiv 1706.02633, eqs. 1-4).
Labels are market regimes (see `regime_conditions`). What differs: D is moved by Adam, not by plain gradient descent,
and sees the sizes of scores beside them, in which volatility clusters; the output is linear instead of tanh, because
scores have no bounds; and G starts some steps before the window that D sees, so that its state is stationary and a path
can go on for any length; the stabilizers of `adversarial` are on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synth_pipeline.generators import adversarial
from synth_pipeline.generators.adversarial import duel
from synth_pipeline.generators.recipe import Player
from synth_pipeline.generators.regime_conditions import ConditionedGenerator, ConditionedLSTM


@dataclass(frozen=True)
class Parameters(adversarial.Parameters):
    """What a user may set."""

    steps: int = 1_000
    hidden: int = 64
    """Width of both LSTMs."""
    noise: int = 5
    """Random numbers a step."""
    burn_in: int = 8
    """Steps before the window that the discriminator does not see."""


class StepwiseDiscriminator(nn.Module):
    """Windows with labels, shape (windows, steps, features) → one logit a step."""

    def __init__(self, features: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.features = features
        self.lstm = nn.LSTM(2 * features + labels, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """Judge every step by what came before it."""
        hidden, _ = self.lstm(torch.cat((windows, windows[..., : self.features].abs() - 0.8), dim=-1))
        verdict: Tensor = self.head(hidden).squeeze(-1)
        return verdict


class RecurrentConditionalGAN(ConditionedGenerator):
    """LSTM against LSTM, judged at every step. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def players(self, network: ConditionedLSTM) -> tuple[Player, ...]:
        """Let a judge of every step and the generator play."""
        settings: Parameters = self.parameters
        judge = StepwiseDiscriminator(network.features, network.labels, settings.hidden)
        return duel(
            settings,
            network,
            judge,
            lambda real, noise: network.like(real, settings.burn_in, noise),
            features=network.features,
        )
