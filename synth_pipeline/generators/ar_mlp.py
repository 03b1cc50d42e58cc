"""Autoregressive perceptron: the next step from the last ones, three layers of 256, 128 and 64 units.

With h the last `lags` steps of scores, a perceptron (linear, batch normalization, ReLU, dropout, three times) gives the
law of the next step, a mixture of K normal laws with diagonal covariances (Bishop 1994, mixture density networks),

    q(x_t | h) = Σ_k π_k(h) N(x_t; μ_k(h), σ_k(h)²),

trained by maximum likelihood; a path is drawn from it step by step. Such a path drifts: the direction of the days that
it learnt from comes back at every step and adds up. The cure is a law that has no direction. Mirroring bid and ask (S)
flips returns and imbalances, and what is trained and drawn from by default is the average of both images,

    p(x_t | h) = q(x_t | h) / 2 + q(S x_t | S h) / 2,

for which p(S x | S h) = p(x | h): a path and its mirror image are equally likely, and the mean return is zero at every
step, whatever was learnt. Momentum and flow that leads price stay: they change sign with the path.
`cure_drift=false` draws from q and shows the drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError
from synth_pipeline.generators import neural
from synth_pipeline.generators.neural import NeuralGenerator, State, roll_out
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.series import FloatArray

_FARTHEST = 5.0
"""A score that a path feeds back is no larger: beyond it the perceptron has seen nothing."""


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    steps: int = 1_500
    batch: int = 256
    lags: int = 16
    """Steps that the next one is drawn from, fewer than the `window` that training cuts."""
    width: int = 256
    """Units of the first layer; the next have a half and a quarter of them."""
    laws: int = 5
    """[K] Normal laws in the mixture."""
    dropped: float = 0.3
    """Share of units that training leaves out."""
    rate: float = 1e-3
    """Learning rate."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    cure_drift: bool = True
    """Average the law with its mirror image."""


class MixturePerceptron(nn.Module):
    """Histories of shape (paths, lags, features) → logits, means and log-scales of the mixture."""

    mirror: Tensor

    def __init__(self, settings: Parameters, directions: FloatArray) -> None:
        super().__init__()
        self.laws, self.features, self.lags = settings.laws, len(directions), settings.lags
        self.cured = settings.cure_drift
        self.register_buffer("mirror", torch.tensor(directions, dtype=torch.float32), persistent=False)
        layers: list[nn.Module] = []
        inputs = 2 * self.lags * self.features
        for width in (settings.width, settings.width // 2, settings.width // 4):
            layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(settings.dropped)]
            inputs = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, settings.laws * (1 + 2 * self.features))

    def one_image(self, history: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the law of q: logits (paths, laws), means and log-scales (paths, laws, features)."""
        seen = torch.cat((history, history.abs() - 0.8), dim=-1).flatten(1)
        found = self.head(self.body(seen))
        means, scales = found[:, self.laws :].reshape(len(history), self.laws, 2, self.features).unbind(2)
        return found[:, : self.laws].log_softmax(dim=1), means, scales.clamp(-4.0, 2.0)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the law of the next step, of both images where drift is cured."""
        if not self.cured:
            return self.one_image(history)
        logits, means, scales = self.one_image(torch.cat((history, history * self.mirror)))
        ours, theirs = means.chunk(2)
        return (
            torch.cat(logits.chunk(2), dim=1) - float(np.log(2)),
            torch.cat((ours, theirs * self.mirror), dim=1),
            torch.cat(scales.chunk(2), dim=1),
        )

    def likelihood(self, windows: Tensor) -> Tensor:
        """Return the mean log-likelihood of the last step of windows given those before it, per feature."""
        last = windows[:, -1:]
        logits, means, scales = self(windows[:, -1 - self.lags : -1])
        each = -(((last - means) / scales.exp()) ** 2) / 2 - scales - 0.5 * float(np.log(2 * np.pi))
        found: Tensor = (logits + each.sum(dim=2)).logsumexp(dim=1).mean() / self.features
        return found

    def folded(self) -> list[tuple[Tensor, Tensor]]:
        """Return the layers with batch normalization multiplied in: a path runs them once a step."""
        layers = []
        for linear, norm in pairwise(self.body):
            if not isinstance(linear, nn.Linear) or not isinstance(norm, nn.BatchNorm1d):
                continue
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            layers.append((linear.weight * gain[:, None], (linear.bias - norm.running_mean) * gain + norm.bias))
        return [*layers, (self.head.weight, self.head.bias)]

    def advance(self, noise: Tensor, state: State) -> tuple[Tensor, State]:
        """Draw step after step: the first two numbers of each choose the image and the law, the others draw from it."""
        history = noise.new_zeros(len(noise), self.lags, self.features) if state is None else state
        *layers, (weight, bias) = self.folded()
        flips = (noise[..., :1] < 0) & self.cured
        signs = torch.where(flips, self.mirror, torch.ones_like(self.mirror)).unbind(1)
        chance, drawn = torch.special.ndtr(noise[..., 1:2]).unbind(1), noise[..., 2:].unbind(1)
        rows, made, size = torch.arange(len(noise)), [], self.laws
        for step, sign in enumerate(signs):
            image = history * sign.unsqueeze(1)
            now = torch.cat((image, image.abs() - 0.8), dim=-1).flatten(1)
            for matrix, shift in layers:
                now = nn.functional.linear(now, matrix, shift).relu_()
            now = nn.functional.linear(now, weight, bias)
            law = (now[:, :size].softmax(dim=1).cumsum(dim=1) < chance[step]).sum(dim=1).clamp_max_(size - 1)
            mean, scale = now[:, size:].reshape(len(now), size, 2, self.features)[rows, law].unbind(1)
            found = (mean + scale.clamp(-4.0, 2.0).exp() * drawn[step]).clamp_(-_FARTHEST, _FARTHEST) * sign
            history = torch.cat((history[:, 1:], found.unsqueeze(1)), dim=1)
            made.append(found)
        return torch.stack(made, dim=1), history


class AutoregressivePerceptron(NeuralGenerator):
    """Mixture of normal laws for the next step, symmetric under mirroring; paths of any length. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters
    # Its calibration is odd even where drift is not cured: so the drift of the network can be seen.
    mirrored = True

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        if not (self.parameters.lags < self.parameters.window and self.parameters.width >= 4):
            raise InputError("ar_mlp: lags must be below window, and width 4 or more")

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the perceptron."""
        return MixturePerceptron(self.parameters, directions)

    def recipe(self, network: nn.Module) -> Recipe:
        """Raise the likelihood of the last step of a window."""
        settings: Parameters = self.parameters
        assert isinstance(network, MixturePerceptron)

        def loss(windows: Tensor, noise: torch.Generator) -> Tensor:
            del noise
            return -network.likelihood(windows)

        player = Player("perceptron", network, loss, settings.rate, betas=(0.9, 0.999), clip=settings.clip)
        phases = (Phase(settings.steps, (player,)),)
        return Recipe(phases, settings.batch, network, held_out=loss)

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw step by step from the last `lags` steps."""
        assert isinstance(self.network, MixturePerceptron)
        return roll_out(
            self.network.advance, streams, counts, width=2 + self.network.features, burn_in=8 * self.network.lags
        )
