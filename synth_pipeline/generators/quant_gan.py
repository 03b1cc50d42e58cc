"""Quant GAN: temporal convolutional networks against each other (Wiese, Knobloch, Korn and Kretschmer 2020).

G maps noise z_t of a few numbers a step to scores by a causal TCN (Quantitative Finance 20, section 5): a block of
kernel 1, then blocks of two dilated causal convolutions of kernel 2 with PReLU and a residual connection, dilations
1, 2, 4, …; what blocks give is summed by skip connections into a linear head. Six dilations see 127 steps, the paper's.
D is the same network over windows, and its last step is the verdict. Returns are made normal before, as the paper does,
by the inverse of the heavy-tail Lambert W transform (Goerg 2015, The Scientific World Journal),

    z = (r - μ) / σ,        u = sign(z) √(W(δ z²) / δ),        δ such that u has the kurtosis 3,

or, with `gaussianize=scores`, by their own law as all other features. What differs: other features stand beside the
return, and the way back to market units is the calibration of all neural generators, a monotone map that holds that of
Lambert W. Losses are those of Goodfellow et al. (2014), the stabilizers of `adversarial` are on. Noise is stationary
and so is what a causal network makes of it: paths of any length, without memory beyond the receptive field. The paper's
stochastic-volatility head is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn

from synth_pipeline.generators import adversarial
from synth_pipeline.generators.adversarial import device_of, duel, normal
from synth_pipeline.generators.neural import NeuralGenerator, State, roll_out
from synth_pipeline.generators.recipe import Phase, Recipe
from synth_pipeline.series import FloatArray, Series

_HEAVIEST = 2.0


@dataclass(frozen=True)
class Parameters(adversarial.Parameters):
    """What a user may set."""

    steps: int = 1_000
    window: int = 64
    batch: int = 32
    hidden: int = 24
    """Channels of both networks; the paper has 80."""
    dilations: int = 6
    """Blocks of dilated convolutions: they see 2^(dilations + 1) - 1 steps."""
    noise: int = 3
    """Random numbers a step."""
    gaussianize: Literal["lambert_w", "scores"] = "lambert_w"
    """What makes returns normal."""


def lambert_gaussian(values: FloatArray, delta: float) -> FloatArray:
    """Return what the heavy-tail Lambert W transform u · exp(δ u² / 2) made these values of."""
    if delta < 1e-9:
        return values
    inner = special.lambertw(delta * values**2)  # type: ignore[call-overload]  # its stubs know no arrays of float64
    return np.asarray(np.sign(values) * np.sqrt(inner.real / delta))


def tail_parameter(values: FloatArray) -> float:
    """Return the δ in [0, 2] at which the Gaussianized values have the kurtosis of a normal law, by bisection."""

    def kurtosis(delta: float) -> float:
        made = lambert_gaussian(values, delta)
        made = made - made.mean()
        return float((made**4).mean() / (made**2).mean() ** 2)

    low, high = 0.0, _HEAVIEST
    if kurtosis(low) <= 3:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if kurtosis(middle) > 3 else (low, middle)
    return (low + high) / 2


class Causal(nn.Conv1d):
    """A dilated causal convolution of sequences of shape (paths, steps, channels): one product of matrices."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return fewer steps than came in: the last ones."""
        (kernel,), (dilation,) = self.kernel_size, self.dilation
        steps = inputs.shape[1] - (kernel - 1) * dilation
        seen = torch.cat([inputs[:, tap * dilation : tap * dilation + steps] for tap in range(kernel)], dim=2)
        return nn.functional.linear(seen, self.weight.transpose(1, 2).flatten(1), self.bias)


class Block(nn.Module):
    """Two dilated causal convolutions and a way around them."""

    def __init__(self, thin: int, wide: int, dilation: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Causal(thin, wide, kernel, dilation=dilation),
            nn.PReLU(),
            nn.Dropout(dropout),
            Causal(wide, wide, kernel, dilation=dilation),
            nn.PReLU(),
        )
        self.around = Causal(thin, wide, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return fewer steps than came in: the last ones."""
        made: Tensor = self.body(inputs)
        passed: Tensor = self.around(inputs[:, -made.shape[1] :])
        return made + passed


class TemporalNetwork(nn.Module):
    """Sequences of shape (paths, steps, inputs) → (paths, steps - `before`, outputs)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dilations: int, dropout: float) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.before = 2 * (2**dilations - 1)
        """Steps that a step is made of, besides itself."""
        self.blocks = nn.ModuleList([Block(inputs, hidden, 1, 1, dropout)])
        self.blocks.extend(Block(hidden, hidden, 2**level, 2, dropout) for level in range(dilations))
        self.head = nn.Linear(hidden, outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        """Run the blocks, sum what they give, weigh it."""
        now, skipped = sequences, []
        for block in self.blocks:
            now = block(now)
            skipped.append(now)
        made: Tensor = self.head(torch.stack([each[:, -now.shape[1] :] for each in skipped]).sum(dim=0))
        return made

    def advance(self, noise: Tensor, state: State) -> tuple[Tensor, State]:
        """Go on from the noise before."""
        known = noise.new_zeros(len(noise), self.before, self.inputs) if state is None else state
        both = torch.cat((known, noise), dim=1)
        return self(both), both[:, noise.shape[1] :]


class Verdict(nn.Module):
    """The discriminator: windows, padded in front, → one logit each."""

    def __init__(self, network: TemporalNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        """Return what the last step says."""
        lacking = max(self.network.before + 1 - windows.shape[1], 0)
        verdict: Tensor = self.network(nn.functional.pad(windows, (0, 0, lacking, 0)))[:, -1]
        return verdict


class QuantGAN(NeuralGenerator):
    """TCN against TCN; connected paths of any length. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def inputs(self, scores: Series, series: Series) -> Series:
        """Put the Gaussianized return in place of its score."""
        if self.parameters.gaussianize == "scores":
            return scores
        at = scores.names.index(series.price_name)
        known = np.isfinite(scores.values[..., at])
        moves = self.transform.codecs[at].encode(series.values[:, :, at])[known]
        unit = (moves - moves.mean()) / moves.std()
        self.delta = tail_parameter(unit)
        made = lambert_gaussian(unit, self.delta)
        values = scores.values.copy()
        values[known, at] = (made - made.mean()) / made.std()
        self.notes.append(f"returns: Lambert W with δ = {self.delta:.3f}")
        return replace(scores, values=values)

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        settings: Parameters = self.parameters
        return TemporalNetwork(settings.noise, settings.hidden, len(directions), settings.dilations, self.dropout)

    def recipe(self, network: nn.Module) -> Recipe:
        """Let discriminator and generator take turns."""
        settings: Parameters = self.parameters
        assert isinstance(network, TemporalNetwork)
        judge = TemporalNetwork(network.outputs, settings.hidden, 1, settings.dilations, self.dropout)

        def made(like: Tensor, noise: torch.Generator) -> Tensor:
            shape = (len(like), network.before + settings.window, settings.noise)
            windows: Tensor = network(normal(shape, noise, like))
            return windows

        return Recipe(
            phases=(Phase(settings.steps, duel(settings, network, Verdict(judge), made, features=network.outputs)),),
            batch=settings.batch,
            average=network,
            probe=lambda noise: made(device_of(network).new_zeros(settings.batch), noise),
        )

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Carry the noise that the network still sees from chunk to chunk."""
        assert isinstance(self.network, TemporalNetwork)
        burn_in = self.network.before
        return roll_out(self.network.advance, streams, counts, width=self.parameters.noise, burn_in=burn_in)
