"""Vanilla GAN: two multilayer perceptrons over flattened windows, the game of Goodfellow et al. (2014).

    min_G max_D  E[log D(x)] + E[log(1 - D(G(z)))],        z ~ N(0, 1),

with the non-saturating loss for G (NeurIPS 27, section 3). Networks are perceptrons with leaky units, as the paper's
are perceptrons of rectified and maxout units; the output is linear, because scores have no bounds. The paper's training
is instance_noise unset, real_target 1 and discriminator_updates 1; the defaults steady it. A window is made at once, so
nothing orders its steps but what D happens to notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from synth_pipeline.generators import adversarial
from synth_pipeline.generators.window_gan import WindowGAN
from synth_pipeline.series import FloatArray


@dataclass(frozen=True)
class Parameters(adversarial.Parameters):
    """What a user may set."""

    steps: int = 2_000
    hidden: int = 128
    """Width of both perceptrons, which have two hidden layers."""
    noise: int = 32
    """Random numbers a window."""


def perceptron(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return two hidden layers of leaky units."""
    layers: list[nn.Module] = []
    for width in (inputs, hidden):
        layers += [nn.Linear(width, hidden), nn.LeakyReLU(0.2), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


class VanillaGAN(WindowGAN):
    """Perceptron against perceptron over whole windows. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        settings: Parameters = self.parameters
        size = settings.window * len(directions)
        shaped = nn.Unflatten(1, (settings.window, len(directions)))
        return nn.Sequential(perceptron(settings.noise, settings.hidden, size, self.dropout), shaped)

    def judge(self, network: nn.Module) -> tuple[nn.Module, int]:
        """Make a perceptron over the flat window."""
        settings: Parameters = self.parameters
        last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
        inputs = nn.Sequential(nn.Flatten(1), perceptron(last.out_features, settings.hidden, 1, self.dropout))
        return inputs, last.out_features // settings.window
