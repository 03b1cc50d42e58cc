"""What the adversarial generators share: noise, the two-player game of Goodfellow et al. (2014), its stabilizers.

With D a discriminator that gives logits, one a window or one a step, the players descend

    D: BCE(D(x), 1) + BCE(D(G(z)), 0)                G: BCE(D(G(z)), 1),

the second being the non-saturating loss of section 3 of the paper. Stabilizers are parameters: a learning rate each,
updates of D a step, instance noise on what D sees (Sønderby et al. 2017, ICLR), smaller targets for real windows
(Salimans et al. 2016, NeurIPS), gradient clipping, a rest for a D that wins. The gradient penalty is that of Gulrajani
et al. (2017), NeurIPS, eq. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synth_pipeline.generators import neural
from synth_pipeline.generators.recipe import Player

_DEAD = 1e-3
_SPREAD = 0.02


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set of every two-player game."""

    generator_rate: float = 1e-3
    """Learning rate of the generator."""
    discriminator_rate: float = 1e-3
    """Learning rate of the discriminator."""
    discriminator_updates: int = 1
    """Updates of the discriminator a step."""
    instance_noise: float | None = 0.1
    """Standard deviation of what is added to all that the discriminator sees, in scores."""
    real_target: float = 0.9
    """What the discriminator should say of real windows; 1 is the paper's."""
    clip: float = 5.0
    """Largest norm of a gradient."""
    rests_below: float | None = None
    """The discriminator is not moved while its loss is below this."""


def started(network: nn.Module) -> nn.Module:
    """Draw initial weights as Radford, Metz and Chintala (2016) do, from N(0, 0.02²), scales from N(1, 0.02²)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, _SPREAD)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, _SPREAD)
    return network


def normal(shape: Sequence[int], noise: torch.Generator, like: Tensor) -> Tensor:
    """Return standard normal numbers on the device of another tensor, drawn on the CPU: the same on every device."""
    return torch.randn(tuple(shape), generator=noise).to(like.device)


def uniform(shape: Sequence[int], noise: torch.Generator, like: Tensor) -> Tensor:
    """Return numbers between 0 and 1 on the device of another tensor, drawn on the CPU."""
    return torch.rand(tuple(shape), generator=noise).to(like.device)


def device_of(network: nn.Module) -> Tensor:
    """Return a tensor that lies where the network does."""
    return next(network.parameters())


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, noise: torch.Generator) -> Tensor:
    """Return E[(‖∇D(x̂)‖₂ - 1)²] on random interpolates of the two batches, shape (batch, steps, features)."""
    share = uniform((len(real), 1, 1), noise, real)
    between = (share * real + (1 - share) * made).requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers cannot be differentiated twice
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    excess: Tensor = gradient.flatten(1).norm(dim=1) - 1
    return (excess**2).mean()


def duel(
    settings: Parameters,
    generator: nn.Module,
    discriminator: nn.Module,
    made: Callable[[Tensor, torch.Generator], Tensor],
    *,
    features: int,
    betas: tuple[float, float] = (0.5, 0.999),
) -> tuple[Player, ...]:
    """Return discriminator and generator, taking turns.

    `made` makes windows like a batch of real ones: as many, and under their conditions, which stand behind the first
    `features` columns of both.
    """
    bce = nn.functional.binary_cross_entropy_with_logits
    wide = settings.instance_noise or 0.0

    def logits(windows: Tensor, noise: torch.Generator) -> Tensor:
        if wide:
            blurred = windows[..., :features]
            blurred = blurred + wide * normal(blurred.shape, noise, blurred)
            windows = torch.cat((blurred, windows[..., features:]), dim=-1)
        verdict: Tensor = discriminator(windows)
        return verdict

    def discriminate(real: Tensor, noise: torch.Generator) -> Tensor:
        with torch.no_grad():
            fake = made(real, noise)
        yes, no = logits(real, noise), logits(fake, noise)
        loss: Tensor = bce(yes, torch.full_like(yes, settings.real_target)) + bce(no, torch.zeros_like(no))
        return loss

    def generate(real: Tensor, noise: torch.Generator) -> Tensor:
        verdict = logits(made(real, noise), noise)
        loss: Tensor = bce(verdict, torch.ones_like(verdict))
        return loss

    target = torch.tensor(settings.real_target)
    least = float(bce(torch.logit(target), target)) if settings.real_target < 1 else 0.0
    return (
        Player(
            "discriminator",
            discriminator,
            discriminate,
            settings.discriminator_rate,
            settings.discriminator_updates,
            betas,
            settings.clip,
            rests_below=settings.rests_below,
            dead_below=least + _DEAD,
        ),
        Player("generator", generator, generate, settings.generator_rate, betas=betas, clip=settings.clip),
    )
