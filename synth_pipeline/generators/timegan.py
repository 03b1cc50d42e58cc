"""TimeGAN: a GAN in the latent space of an autoencoder, with a supervised step (Yoon, Jarrett, van der Schaar 2019).

Five recurrent networks (NeurIPS 32, section 4): the embedder e and the recovery r turn windows into latent sequences
and back, the generator g makes latent sequences of noise, the supervisor s foretells the next latent step, and the
discriminator judges every step of a latent sequence. Three phases:

1. autoencoder      e, r:  10 √MSE(x, r(e(x)));
2. supervised       g, s:  MSE(h_t+1, s(h)_t) with h = e(x);
3. joint            g, s:  U + γ U_e + 100 √S + 100 V,   e, r:  10 √MSE + 0.1 S,   d:  cross-entropies,

with U, U_e the non-saturating losses on s(g(z)) and g(z), S the supervised loss, V the distance of means and standard
deviations of made and real windows; g and e move twice a step, d rests while its loss is below 0.15. These figures are
those of the authors' program. What differs: the recovery's output is linear instead of a sigmoid, because scores have
no bounds; `warm_up` sets the length of phase 1, a third in the paper; `attention` lets every step of g look back at
those before it; the stabilizers of `adversarial` are on. A window starts from nothing, so paths are one window long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError
from synth_pipeline.generators import adversarial
from synth_pipeline.generators.adversarial import device_of, normal
from synth_pipeline.generators.fixed_windows import WindowGenerator
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.series import FloatArray

_BETAS = (0.9, 0.999)
_HEADS = 2
_GAIN = 4.0
"""Of weights before a sigmoid (Glorot and Bengio 2010, on its slope of a quarter)."""


@dataclass(frozen=True)
class Parameters(adversarial.Parameters):
    """What a user may set."""

    steps: int = 3_000
    hidden: int = 24
    """Width of every network and of the latent space, an even number."""
    layers: int = 3
    """Of every network; the supervisor has one less."""
    gamma: float = 1.0
    """[γ] Weight of the adversarial loss on what the supervisor has not touched."""
    warm_up: float = 1 / 3
    """Share of the steps that train the autoencoder alone; phases 2 and 3 share the rest evenly."""
    attention: bool = False
    """Let every step of the generator look back at those before it."""
    generator_rate: float = 3e-3
    """Of all networks but the discriminator."""
    rests_below: float | None = 0.15
    real_target: float = 1.0
    instance_noise: float | None = None


class Recurrent(nn.Module):
    """A stack of GRUs with a head, and attention to the steps before if asked."""

    def __init__(
        self,
        sizes: tuple[int, int, int],
        layers: int,
        bend: Callable[[Tensor], Tensor] | None,
        dropout: float,
        attention: bool = False,
    ) -> None:
        super().__init__()
        inputs, hidden, outputs = sizes
        self.gru = nn.GRU(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.look = nn.MultiheadAttention(hidden, _HEADS, batch_first=True) if attention else None
        self.head = nn.Linear(hidden, outputs)
        self.bend = bend
        # As the authors' cells are started: torch's smaller weights let little through three layers and a sigmoid.
        for name, weight in self.gru.named_parameters():
            if "weight" in name:
                for gate in weight.detach().chunk(3):
                    nn.init.xavier_uniform_(gate)
        nn.init.xavier_uniform_(self.head.weight, gain=1.0 if bend is None else _GAIN)

    def forward(self, windows: Tensor) -> Tensor:
        """Map sequences of shape (windows, steps, inputs) to (windows, steps, outputs)."""
        hidden, _ = self.gru(windows)
        if self.look is not None:
            later = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool, device=hidden.device).triu(1)
            hidden = hidden + self.look(hidden, hidden, hidden, attn_mask=later, need_weights=False)[0]
        made: Tensor = self.head(hidden)
        return made if self.bend is None else self.bend(made)


class Networks(nn.Module):
    """Embedder, recovery, generator and supervisor; noise → windows."""

    def __init__(self, settings: Parameters, features: int, dropout: float) -> None:
        super().__init__()
        wide, layers = settings.hidden, settings.layers
        fewer = max(layers - 1, 1)
        self.features = features
        self.embedder = Recurrent((features, wide, wide), layers, torch.sigmoid, dropout)
        self.recovery = Recurrent((wide, wide, features), layers, None, dropout)
        self.generator = Recurrent((features, wide, wide), layers, torch.sigmoid, dropout, settings.attention)
        self.supervisor = Recurrent((wide, wide, wide), fewer, torch.sigmoid, dropout)

    def forward(self, noise: Tensor) -> Tensor:
        """Make windows of normal noise, which becomes the paper's uniform."""
        made: Tensor = self.recovery(self.supervisor(self.generator(torch.special.ndtr(noise))))
        return made

    def reconstruction(self, latent: Tensor, windows: Tensor) -> Tensor:
        """Return 10 √MSE of what the recovery gives back."""
        left: Tensor = self.recovery(latent) - windows
        return 10 * left.square().mean().add(1e-8).sqrt()


def supervised(told: Tensor, latent: Tensor) -> Tensor:
    """Return how far what a supervisor told of every latent step is off the next one."""
    missed: Tensor = told[:, :-1] - latent[:, 1:]
    return missed.square().mean()


def moment_distance(real: Tensor, made: Tensor) -> Tensor:
    """Return V: how far means and standard deviations over a batch are apart, averaged over steps and features."""
    spread = (real.var(dim=0) + 1e-6).sqrt() - (made.var(dim=0) + 1e-6).sqrt()
    return spread.abs().mean() + (real.mean(dim=0) - made.mean(dim=0)).abs().mean()


class TimeGAN(WindowGenerator):
    """Five GRU networks, three phases. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        if self.parameters.hidden % _HEADS or not self.parameters.warm_up < 1:
            raise InputError("timegan: hidden must be even and warm_up a share below 1")

    def build(self, directions: FloatArray) -> nn.Module:
        """Make all networks but the discriminator."""
        return Networks(self.parameters, len(directions), self.dropout)

    def noise_shape(self, features: int) -> tuple[int, ...]:
        """Return one number a step and feature, as the authors do."""
        return (self.parameters.window, features)

    def windows(self, network: nn.Module, noise: Tensor) -> Tensor:
        """Generate, supervise, recover."""
        made: Tensor = network(noise)
        return made

    def latent(self, windows: Tensor) -> Tensor:
        """Embed them."""
        assert isinstance(self.network, Networks)
        embedded: Tensor = self.network.embedder(windows)
        return embedded.flatten(1)

    def recipe(self, network: nn.Module) -> Recipe:
        """Train autoencoder, supervisor and then all of them."""
        settings: Parameters = self.parameters
        assert isinstance(network, Networks)
        latents, dynamics = (
            nn.ModuleList([network.embedder, network.recovery]),
            nn.ModuleList([network.generator, network.supervisor]),
        )
        shape = (settings.window, network.features)
        judge = Recurrent((settings.hidden, settings.hidden, 1), settings.layers, None, self.dropout)

        # A recurrent network costs little more for two batches than for one: what it judges goes through together.
        games, settled = 0, settings.steps // 3

        def embed_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            del noise
            return network.reconstruction(network.embedder(real), real)

        def supervised_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            del noise
            latent = network.embedder(real)
            return supervised(network.supervisor(latent), latent)

        def generator_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            nonlocal games
            games += 1
            raw = network.generator(torch.special.ndtr(normal((len(real), *shape), noise, real)))
            latent = network.embedder(real)
            led, told = network.supervisor(torch.cat((raw, latent))).chunk(2)
            yes, early = judge(torch.cat((led, raw))).chunk(2)
            fooled = cross_entropy(yes, 1.0) + settings.gamma * cross_entropy(early, 1.0)
            drift = supervised(told, latent).add(1e-8).sqrt()
            return fooled + 100 * drift + 100 * moment_distance(real, network.recovery(led))

        def joint_embed_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            del noise
            latent = network.embedder(real)
            return network.reconstruction(latent, real) + 0.1 * supervised(network.supervisor(latent), latent)

        def judge_loss(real: Tensor, noise: torch.Generator) -> Tensor:
            with torch.no_grad():
                latent = network.embedder(real)
                raw = network.generator(torch.special.ndtr(normal((len(real), *shape), noise, real)))
                seen = torch.cat((latent, network.supervisor(raw), raw))
            wide = settings.instance_noise or 0.0
            yes, no, early = judge(seen + wide * normal(seen.shape, noise, seen) if wide else seen).chunk(3)
            return (
                cross_entropy(yes, settings.real_target)
                + cross_entropy(no, 0.0)
                + settings.gamma * cross_entropy(early, 0.0)
            )

        def probe(noise: torch.Generator) -> Tensor:
            drawn = normal((settings.batch, *shape), noise, device_of(network))
            # What has not been through half of the third phase, at two games a step, cannot have collapsed.
            return network(drawn) if games > settled else drawn

        first = max(1, round(settings.steps * settings.warm_up))
        second = max(1, (settings.steps - first) // 2)
        fast, slow = settings.generator_rate, settings.discriminator_rate

        def player(name: str, moved: nn.Module, loss: Any, rate: float, updates: int = 1) -> Player:
            return Player(name, moved, loss, rate, updates, _BETAS, settings.clip)

        judged = Player(
            "discriminator",
            judge,
            judge_loss,
            slow,
            settings.discriminator_updates,
            _BETAS,
            settings.clip,
            rests_below=settings.rests_below,
            dead_below=1e-3,
        )
        phases = (
            Phase(first, (player("autoencoder", latents, embed_loss, fast),)),
            Phase(second, (player("supervisor", dynamics, supervised_loss, fast),)),
            Phase(
                max(1, settings.steps - first - second),
                (
                    player("generator", dynamics, generator_loss, fast, 2),
                    player("embedder", latents, joint_embed_loss, fast, 2),
                    judged,
                ),
            ),
        )
        return Recipe(
            phases=phases,
            batch=settings.batch,
            average=network,
            probe=probe,
        )


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Return the mean cross-entropy of logits with one target."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
