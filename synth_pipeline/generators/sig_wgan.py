"""Conditional Sig-WGAN: an autoregressive network that matches expected signatures, without a discriminator.

Of a window, p steps are the past and the other q the future (Ni, Szpruch, Wiese, Liao and Xiao 2020, arXiv 2006.05421).
The expected signature of the future given the past is taken as linear in the signature of the past, by least squares
over the real windows, once, before training; the generator then descends

    E ‖ E_z[S_M(G(past, z))] - L S_M(past) ‖₂²,

the conditional signature-W₁ distance of the paper, with E_z a mean over a few drawn futures. S_M is the signature
truncated at `depth` of the path of cumulated scores with time beside it and, with `lead_lag`, in its lead-lag form,
whose second level holds the squares of moves. Each feature is scaled by how far it goes within real windows, as the
paper's code scales paths: prices that stay at a level go √steps times as far as returns, and the loss is of fourth
powers. G is the paper's autoregressive feed-forward network: residual layers
with PReLU from the last p steps and noise to the next step. It goes on for any length. What differs: the regression is
a ridge, and scores of all features stand together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError
from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import device_of, normal
from synth_pipeline.generators.neural import NeuralGenerator, State, roll_out
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.series import FloatArray

_RIDGE, _MOST_WINDOWS, _FARTHEST = 1e-2, 20_000, 5.0


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    steps: int = 1_000
    window: int = 8
    past: int = 4
    """[p] Steps that the next one is made of; the rest of the window is the future."""
    depth: int = 2
    """[M] Levels of the signature."""
    lead_lag: bool = True
    """Take the signature of the lead-lag path."""
    futures: int = 16
    """Futures drawn for each past."""
    hidden: int = 50
    """Width of the network."""
    noise: int = 5
    """Random numbers a step."""
    rate: float = 1e-3
    """Learning rate."""
    clip: float = 5.0
    """Largest norm of the gradient."""


def signature(increments: Tensor, depth: int) -> Tensor:
    """Return the truncated signature of piecewise linear paths of these increments, shape (paths, steps, channels).

    Levels 1 … depth, flattened side by side. Chen's identity, S(x * y) = S(x) ⊗ S(y), applied step by step, with the
    signature of a straight step d being 1, d, d⊗d/2!, d⊗d⊗d/3!, …
    """
    paths = len(increments)
    levels = [increments.new_zeros(paths, increments.shape[2] ** level) for level in range(1, depth + 1)]
    for step in increments.unbind(1):
        straight = [step]
        for level in range(2, depth + 1):
            straight.append((straight[-1].unsqueeze(2) * step.unsqueeze(1)).flatten(1) / level)
        grown = []
        for level in range(depth):
            total = levels[level] + straight[level]
            for low in range(level):
                total = total + (levels[low].unsqueeze(2) * straight[level - 1 - low].unsqueeze(1)).flatten(1)
            grown.append(total)
        levels = grown
    return torch.cat(levels, dim=1)


def path_signature(scores: Tensor, depth: int, lead_lag: bool) -> Tensor:
    """Return the signatures of cumulated scores, shape (windows, steps, features), with time beside them.

    Steps of white noise go as far as one standard normal number.
    """
    steps = scores.shape[1]
    moves = scores / steps**0.5
    time = torch.full_like(moves[..., :1], 1 / steps)
    if lead_lag:  # the lead moves first, the lag follows
        still = torch.zeros_like(moves)
        lead, lag = torch.cat((moves, still, time / 2), dim=2), torch.cat((still, moves, time / 2), dim=2)
        return signature(torch.stack((lead, lag), dim=2).flatten(1, 2), depth)
    return signature(torch.cat((moves, time), dim=2), depth)


class FeedForward(nn.Module):
    """The last steps, shape (paths, past, features), and noise, shape (paths, noise) → the next step."""

    def __init__(self, settings: Parameters, features: int, dropout: float) -> None:
        super().__init__()
        self.past, self.features, self.noise = settings.past, features, settings.noise
        wide = settings.hidden
        self.inward = nn.Sequential(nn.Linear(settings.past * features + settings.noise, wide), nn.PReLU())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(wide, wide), nn.PReLU(), nn.Dropout(dropout)) for _ in range(2)
        )
        self.outward = nn.Linear(wide, features)

    def forward(self, past: Tensor, noise: Tensor) -> Tensor:
        """Make one step."""
        now = self.inward(torch.cat((past.flatten(1), noise), dim=1))
        for layer in self.layers:
            now = now + layer(now)
        made: Tensor = self.outward(now)
        return made.clamp(-_FARTHEST, _FARTHEST)

    def advance(self, noise: Tensor, state: State) -> tuple[Tensor, State]:
        """Make step after step."""
        past = noise.new_zeros(len(noise), self.past, self.features) if state is None else state
        made = []
        for step in noise.unbind(1):
            made.append(self(past, step))
            past = torch.cat((past[:, 1:], made[-1].unsqueeze(1)), dim=1)
        return torch.stack(made, dim=1), past


class SignatureWGAN(NeuralGenerator):
    """Expected signatures matched by an autoregressive network; paths of any length. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        if not self.parameters.past < self.parameters.window:
            raise InputError(
                f"past={self.parameters.past} leaves no future in a window of {self.parameters.window} steps"
            )

    def _signature(self, scores: Tensor) -> Tensor:
        return path_signature(scores / self.reach.to(scores), self.parameters.depth, self.parameters.lead_lag)

    def prepared(self, data: Windows) -> Windows:
        """Regress the signature of the future on that of the past."""
        real, at = data.spread(_MOST_WINDOWS), self.parameters.past
        self.reach = real.sum(dim=1).square().mean(dim=0).div(real.shape[1]).sqrt()
        past, future = (self._signature(part).double() for part in (real[:, :at], real[:, at:]))
        seen = torch.cat((torch.ones(len(past), 1, dtype=past.dtype), past), dim=1)
        penalty = _RIDGE * len(seen) * torch.eye(seen.shape[1], dtype=seen.dtype)
        penalty[0, 0] = 0.0
        self.regression = torch.linalg.solve(seen.T @ seen + penalty, seen.T @ future).float()
        return data

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        return FeedForward(self.parameters, len(directions), self.dropout)

    def recipe(self, network: nn.Module) -> Recipe:
        """Bring expected signatures together."""
        settings: Parameters = self.parameters
        assert isinstance(network, FeedForward)
        steps = settings.window - settings.past
        regression = self.regression.to(device_of(network).device)

        def drawn(past: Tensor, count: int, noise: torch.Generator) -> Tensor:
            many = past.repeat_interleave(count, dim=0)
            made: Tensor = network.advance(normal((len(many), steps, settings.noise), noise, past), many)[0]
            return made

        def loss(real: Tensor, noise: torch.Generator) -> Tensor:
            past = real[:, : settings.past]
            seen = self._signature(past)
            wanted = regression[0].to(real.device) + seen @ regression[1:].to(real.device)
            made = self._signature(drawn(past, settings.futures, noise))
            apart: Tensor = made.reshape(len(real), settings.futures, -1).mean(dim=1) - wanted
            return apart.square().sum(dim=1).mean()

        player = Player("generator", network, loss, settings.rate, betas=(0.9, 0.999), clip=settings.clip)
        start = network.outward.bias

        def probe(noise: torch.Generator) -> Tensor:
            past = normal((settings.batch, settings.past, network.features), noise, start)
            return drawn(past, 1, noise)

        phases = (Phase(settings.steps, (player,)),)
        return Recipe(phases, settings.batch, network, probe=probe, held_out=loss)

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Carry the last steps from chunk to chunk."""
        assert isinstance(self.network, FeedForward)
        return roll_out(self.network.advance, streams, counts, width=self.parameters.noise, burn_in=64)
