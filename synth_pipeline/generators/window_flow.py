"""WindowFlow: our model of short windows, a denoising diffusion of flattened windows in whitened coordinates.

Scores of a window, flattened to x with mean m and covariance Q Λ Qᵀ, become

    z = k Λ^(-a/2) Qᵀ (x - m),         of variances s² = k² Λ^(1-a) with mean 1.

With a = 0 noise hides the small differences between columns and steps that make returns and bars; with a = 1 they count
as much as levels; a = ½ lies between. On z stands the diffusion of `edm`, each coordinate at its own variance, so that
the network, a residual perceptron, starts as the normal law with the covariance of the data and learns the rest.

Its inputs y, of variance 1, are turned back by Q: u = Q y is as near to the scores of the window, step by step, as
uncorrelated numbers can be. The perceptron sees u and |u|, and says for every number of u what to add and by what to
multiply it, F = Qᵀ (f + g u), of f and g 0 at the start. For what separates a market from a normal law is first that
its law is a mixture of normal laws of many sizes: of those, E[x | y] is y times a factor that depends on the sizes of
all others, a product that a perceptron without g has to piece together.
docs/ablations.md has what was measured of these choices.

What the trained network samples errs a little in mean and covariance, by chance of its training: the same linear map
mends every sample, the least that makes them those of the training windows (`edm.least_change`).

Where the history has regimes (`features.regimes`), the label of a window is that of one of its steps, drawn anew each
time it is learnt from, and left out in a tenth of the draws; so p(window | regime) has a window as often as it has
steps of that regime. The network starts at the mean of the windows of a label. A sample without a regime draws its
label as often as history has it; one under a regime may go beyond it by `guidance`. A window is made at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import normal, uniform
from synth_pipeline.generators.edm import Preconditioning, evened, guided, heun, least_change, moments, noise_levels
from synth_pipeline.generators.fixed_windows import WindowGenerator
from synth_pipeline.generators.recipe import Phase, Player, Recipe, warmed_cosine
from synth_pipeline.generators.regime_conditions import RegimeConditions
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.rng import one_thread
from synth_pipeline.series import FloatArray

_BETAS = (0.9, 0.99)
_LEAST, _MOST = 0.005, 20.0
"""Noise levels of the sampler's ends, in units of z."""
_LEFT_OUT = 0.1
_PACES, _EMBEDDED = 32, 128
_FLAT = 1e-7
"""Variances count as this share of the largest at least."""
_MEASURED = 20_000
_MENDED_BY, _AT_ONCE = 16_384, 1_024
"""Samples that the mending is measured on, and how many of them are made together."""


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    steps: int = 4_000
    batch: int = 128
    decay: float = 0.999
    hidden: int = 256
    """Width of the perceptron, which has `layers` residual layers."""
    layers: int = 3
    """Residual layers."""
    whitening: float = 0.5
    """[a] How far windows are whitened: 0 not at all, 1 wholly."""
    noise_median: float = 0.3
    """Median of σ in training, in units of z."""
    noise_spread: float = 1.2
    """Standard deviation of ln σ in training."""
    sampling_steps: int = 18
    """Steps of Heun's method; one less than twice as many calls of the network."""
    guidance: float = 1.5
    """How far a sample under a regime goes from that of none: 1 is the law of the regime, more exaggerates it."""
    rate: float = 1e-3
    """Learning rate, after a warm-up and before a cosine to 0."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""


class Layer(nn.Module):
    """What a residual layer adds to the stream, told of noise and regime between its two products."""

    def __init__(self, wide: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, wide))
        self.told = nn.Linear(_EMBEDDED, wide)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(wide, wide))

    def forward(self, now: Tensor, known: Tensor) -> Tensor:
        """Return it, shape (rows, wide)."""
        added: Tensor = self.second(self.first(now) + self.told(known))
        return added


class WindowDenoiser(nn.Module):
    """Whitened windows with noise in them → without it."""

    mean: Tensor
    scales: Tensor
    directions: Tensor
    variances: Tensor
    least: Tensor
    most: Tensor
    shares: Tensor
    shifts: Tensor
    paces: Tensor
    mending: Tensor
    offset: Tensor

    def __init__(self, settings: Parameters, features: int, regimes: int, dropout: float) -> None:
        super().__init__()
        self.settings, self.features, self.regimes = settings, features, regimes
        size, wide = settings.window * features, settings.hidden
        for name, shape in (
            ("mean", (size,)),
            ("directions", (size, size)),
            ("shares", (regimes + 1,)),
            ("shifts", (regimes, size)),
            ("offset", (size,)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("mending", torch.eye(size))
        for name in ("scales", "variances", "least", "most"):
            self.register_buffer(name, torch.ones(size))
        self.register_buffer("paces", torch.logspace(-1.5, 1.0, _PACES), persistent=False)
        self.inward = nn.Linear(2 * size, wide)
        self.outward = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, 2 * size))
        self.regime = nn.Linear(regimes, _EMBEDDED, bias=False) if regimes else None
        self.level = nn.Sequential(nn.Linear(2 * _PACES, _EMBEDDED), nn.SiLU(), nn.Linear(_EMBEDDED, _EMBEDDED))
        self.layers = nn.ModuleList(Layer(wide, dropout) for _ in range(settings.layers))
        for parameter in self.outward[-1].parameters():
            nn.init.zeros_(parameter)

    def measure(self, windows: Tensor) -> None:
        """Learn the coordinates from windows with their labels behind them, and where the mean of a regime lies."""
        labels, windows = windows[..., self.features :].mean(dim=1), windows[..., : self.features]
        mean, covariance = moments(windows.flatten(1).double())
        spread, directions = torch.linalg.eigh(covariance)
        spread = spread.clamp_min(_FLAT * float(spread[-1]))
        scales = spread ** (-self.settings.whitening / 2)
        scales = scales / (spread * scales**2).mean().sqrt()
        found = {"mean": mean, "directions": directions, "scales": scales, "variances": spread * scales**2}
        for name, tensor in found.items():
            self.get_buffer(name).copy_(tensor)
        coordinates = self.whitened(windows)
        shares = labels.mean(dim=0)
        self.shares.copy_(torch.cat((shares, 1 - shares.sum(dim=0, keepdim=True))))
        means = labels.T @ coordinates / labels.sum(dim=0)[:, None].clamp_min(1)
        self.shifts.copy_(means / self.variances.sqrt())
        self.least.copy_(coordinates.amin(dim=0))
        self.most.copy_(coordinates.amax(dim=0))

    def whitened(self, windows: Tensor) -> Tensor:
        """Return coordinates, shape (windows, steps · features)."""
        return (windows.flatten(1) - self.mean) @ self.directions * self.scales

    def unwhitened(self, coordinates: Tensor) -> Tensor:
        """Return windows, shape (windows, steps, features)."""
        flat = (coordinates / self.scales) @ self.directions.T + self.mean
        return flat.reshape(len(flat), self.settings.window, self.features)

    def forward(self, inputs: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F of scaled inputs; one `sigma` a row, or one for all; labels of shape (rows, regimes)."""
        angles = sigma.log().reshape(-1, 1) * self.paces
        known = self.level(torch.cat((angles.sin(), angles.cos()), dim=1))
        shift: Tensor | float = 0.0
        if self.regime is not None and labels is not None:
            known = known + self.regime(labels)
            shift = labels @ self.shifts * sigma / (self.variances + sigma**2).sqrt()
        known = nn.functional.silu(known)
        turned = inputs @ self.directions.T
        added, gain = self.said(torch.cat((turned, turned.abs()), dim=1), known)
        found: Tensor = (added + gain * turned) @ self.directions + shift
        return found

    def said(self, numbers: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and g, of u and |u| side by side and of noise level and regime."""
        now = self.inward(numbers)
        for layer in self.layers:
            now = now + layer(now, known)
        added, gain = self.outward(now).chunk(2, dim=1)
        return added, gain

    def misfit(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return the mean squared error of F at random noise levels, of windows with their labels behind them."""
        clean = self.whitened(windows[..., : self.features])
        sigma = (self.settings.noise_spread * normal((len(clean), 1), noise, clean)).exp() * self.settings.noise_median
        noised = clean + sigma * normal(clean.shape, noise, clean)
        at = Preconditioning.at(sigma, self.variances)
        found = self(at.inward * noised, sigma, self._labels(windows, noise))
        loss: Tensor = (found - at.target(clean, noised)).square().mean()
        return loss

    def _labels(self, windows: Tensor, noise: torch.Generator) -> Tensor | None:
        """Return the label of a step of each window, zeros where it is left out."""
        if not self.regimes:
            return None
        chances = uniform((2, len(windows)), noise, windows)
        steps = (chances[0] * windows.shape[1]).long().clamp_max(windows.shape[1] - 1)
        drawn = windows[torch.arange(len(windows), device=windows.device), steps, self.features :]
        return drawn * (chances[1] >= _LEFT_OUT)[:, None]

    def drawn_labels(self, chances: Tensor) -> Tensor:
        """Return labels as often as history has them, by numbers between 0 and 1; shape (windows, regimes)."""
        which = torch.searchsorted(self.shares.cumsum(dim=0), chances).clamp_max(self.regimes)
        return torch.eye(self.regimes + 1, device=chances.device)[which][:, :-1]

    def walked(self, noise: Tensor, labels: Tensor | None, weight: float) -> Tensor:
        """Walk from noise to coordinates, both of shape (windows, steps · features)."""
        levels = noise_levels(self.settings.sampling_steps, _LEAST, _MOST).to(noise.device)
        field = guided(partial(self, labels=labels), partial(self, labels=None), weight)
        return heun(field, noise, levels, self.variances)

    def drawn(self, noise: Tensor, labels: Tensor | None, weight: float) -> Tensor:
        """Walk from noise, and mend that, to windows within the range of the data."""
        return self._mended(self.walked(noise, labels, weight))

    def _mended(self, coordinates: Tensor) -> Tensor:
        found = coordinates @ self.mending + self.offset
        return self.unwhitened(found.clamp(self.least, self.most))

    def mend(self, windows: Tensor, noise: Tensor) -> Tensor:
        """Learn the map that makes mean and covariance of samples those of windows; return the mended samples.

        `noise`, shape (samples, steps · features), is evened first: with it as it comes, C errs 2.6 times as much.
        """
        chances = (torch.arange(len(noise)) + 0.5) / len(noise)
        labels = self.drawn_labels(chances)
        even = evened(noise.double()).float()
        parts = (slice(first, first + _AT_ONCE) for first in range(0, len(even), _AT_ONCE))
        walked = torch.cat([self.walked(even[part], labels[part] if self.regimes else None, 1.0) for part in parts])
        deviations = self.variances.double().sqrt()
        (mean, covariance), (wanted_mean, wanted) = (
            moments(each.double() / deviations) for each in (walked, self.whitened(windows))
        )
        change = least_change(covariance, wanted)
        self.mending.copy_(change * deviations / deviations[:, None])
        self.offset.copy_((wanted_mean - mean @ change) * deviations)
        return self._mended(walked)


class WindowFlow(RegimeConditions, WindowGenerator):
    """Diffusion of whitened windows. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def prepared(self, data: Windows) -> Windows:
        """Take what the coordinates are measured on."""
        self._measured = data.spread(_MEASURED)
        return data

    def calibrating(self, data: Windows, rng: np.random.Generator) -> FloatArray:
        """Mend what the network samples, and return these samples: of even noise, they have more even laws.

        Steps of a window share a level and a size, so a law takes thousands of windows (docs/ablations.md).
        """
        network = self.network
        assert isinstance(network, WindowDenoiser)
        size = len(network.mean)
        noise = rng.standard_normal((max(_MENDED_BY, 4 * size), size), dtype=np.float32)
        with one_thread(), torch.inference_mode():
            mended = network.mend(data.spread(_MEASURED)[..., : network.features], torch.from_numpy(noise))
        return np.asarray(mended.double().numpy())

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the denoiser, in the coordinates of the windows where there are any yet."""
        features, regimes = len(directions), len(self.regime_names)
        network = WindowDenoiser(self.parameters, features, regimes, self.dropout)
        if hasattr(self, "_measured"):
            network.measure(self._measured)
            del self._measured
        return network

    def noise_shape(self, features: int) -> tuple[int, ...]:
        """Return the numbers of a window, and one for its regime."""
        return (self.parameters.window * features + 1,)

    def windows(self, network: nn.Module, noise: Tensor) -> Tensor:
        """Draw regimes, and windows under them."""
        assert isinstance(network, WindowDenoiser)
        labels = network.drawn_labels(torch.special.ndtr(noise[:, -1])) if network.regimes else None
        return network.drawn(noise[:, :-1], labels, 1.0)

    def roll_regime(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], regime: str
    ) -> Iterator[FloatArray]:
        """Make one window a path, under a regime."""
        label = torch.zeros(self.rows, len(self.regime_names))
        label[:, self.regime_names.index(regime)] = 1.0

        def made(network: nn.Module, noise: Tensor) -> Tensor:
            assert isinstance(network, WindowDenoiser)
            return network.drawn(noise[:, :-1], label, self.parameters.guidance)

        return self.handed_out(streams, counts, made)

    def recipe(self, network: nn.Module) -> Recipe:
        """Learn to denoise."""
        settings: Parameters = self.parameters
        assert isinstance(network, WindowDenoiser)
        player = Player(
            "denoiser",
            network,
            network.misfit,
            settings.rate,
            betas=_BETAS,
            clip=settings.clip,
            weight_decay=settings.weight_decay,
            schedule=warmed_cosine,
        )
        phases = (Phase(settings.steps, (player,)),)
        return Recipe(phases, settings.batch, network, held_out=network.misfit)
