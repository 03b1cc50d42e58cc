"""Rectified flow with a mirror: a velocity that carries noise to chunks, equal to its own mirror image by construction.

What belongs here: layers, velocity, loss and sampler. What does not: what a chunk and its context are (`chunk_flow`).

Data y and noise ε are joined by straight lines, x_t = (1 - t) ε + t y, and the velocity v is learnt by (Liu, Gong, Liu
2023, ICLR, eq. 1; t logit-normal: Esser et al. 2024, ICML, section 3.1)

    min E ‖v(x_t, t, c) - (y - ε)‖²,        dx/dt = v(x, t, c)  from  x_0 = ε.

For y standard normal and unknown to c the answer is v = g(t) x with g = (2 t - 1) / (t² + (1 - t)²): that is what the
network starts from, and it learns how chunks differ from white noise.

Mirroring bid and ask flips the sign of some features and of some numbers of the context; M v(x, c) = v(M x, M c) must
hold. Hidden units come in pairs (h, h') that change places under M. Linear maps that commute with it act on the sums e
= h + h' and the differences o = h - h' apart, and any function of single units commutes with it too: so every layer is
equivariant (Cohen, Welling 2016, ICML, for the group of two) at half the work of a layer that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_TIMES = 8


class Pair(NamedTuple):
    """Numbers that stay and numbers that change their sign when bid and ask change places."""

    even: Tensor
    odd: Tensor

    def plus(self, other: Pair) -> Pair:
        """Add another, part by part."""
        return Pair(self.even + other.even, self.odd + other.odd)


class MirrorLinear(nn.Module):
    """A linear map of pairs that commutes with the mirror; only what is even has a shift."""

    def __init__(self, even: int, odd: int, out_even: int, out_odd: int, gain: float = 1.0) -> None:
        super().__init__()
        self.even = nn.Parameter(gain * torch.randn(even, out_even) / max(even, 1) ** 0.5)
        self.odd = nn.Parameter(gain * torch.randn(odd, out_odd) / max(odd, 1) ** 0.5)
        self.shift = nn.Parameter(torch.zeros(out_even))

    def forward(self, given: Pair) -> Pair:
        """Map both parts."""
        return Pair(given.even @ self.even + self.shift, given.odd @ self.odd)


class MirrorUnits(nn.Module):
    """Pairs of hidden units, bent one by one; a share of them left out in training, both of a pair together."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, given: Pair) -> Pair:
        """Go to the units, bend, come back."""
        one, other = nn.functional.silu(given.even + given.odd), nn.functional.silu(given.even - given.odd)
        kept = self.dropout(torch.ones_like(one)) if self.training and self.dropout.p else 1.0
        return Pair((one + other) * kept, (one - other) * kept)


class Velocity(nn.Module):
    """Chunks (batch, steps, features), times (batch, 1) and a context → velocities; M v(x, c) = v(M x, M c)."""

    mirror: Tensor

    def __init__(
        self, directions: Sequence[float], steps: int, context: tuple[int, int], width: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("mirror", torch.tensor(directions, dtype=torch.float32), persistent=False)
        self.even = [at for at, direction in enumerate(directions) if direction > 0]
        self.odd = [at for at, direction in enumerate(directions) if direction < 0]
        sizes = steps * len(self.even), steps * len(self.odd)
        self.seen = nn.ModuleList([MirrorLinear(*context, width, width), MirrorLinear(width, width, width, width)])
        self.clock = nn.Linear(2 * _TIMES, width)
        self.enter = MirrorLinear(*sizes, width, width)
        self.told = nn.ModuleList([MirrorLinear(width, width, width, width, 0.5) for _ in range(blocks)])
        self.inner = nn.ModuleList([MirrorLinear(width, width, width, width) for _ in range(blocks)])
        self.outer = nn.ModuleList([MirrorLinear(width, width, width, width, 0.3) for _ in range(blocks)])
        self.leave = MirrorLinear(width, width, *sizes, gain=0.0)
        self.units = MirrorUnits(dropout)

    def context(self, given: Pair) -> Pair:
        """Return what all velocities of a chunk know of the context; made once a chunk."""
        first, second = self.seen
        found: Pair = second(self.units(first(given)))
        return found

    def forward(self, chunks: Tensor, time: Tensor, context: Pair) -> Tensor:
        """Return the velocities, shape as the chunks."""
        angles = time * torch.pi * torch.arange(1, _TIMES + 1, device=time.device)
        clock = self.clock(torch.cat((angles.sin(), angles.cos()), dim=1))
        known = self.units(Pair(context.even + clock, context.odd))
        now: Pair = self.enter(Pair(chunks[..., self.even].flatten(1), chunks[..., self.odd].flatten(1)))
        for told, inner, outer in zip(self.told, self.inner, self.outer, strict=True):
            now = now.plus(outer(self.units(inner(now).plus(told(known)))))
        found: Pair = self.leave(self.units(now))
        made = torch.empty_like(chunks)
        for at, part in ((self.even, found.even), (self.odd, found.odd)):
            made[..., at] = part.view(len(chunks), self.steps, len(at))
        return made + (slope(time) * chunks.flatten(1)).view_as(chunks)


def slope(time: Tensor) -> Tensor:
    """Return g(t), by which standard normal noise is carried to standard normal data."""
    return (2 * time - 1) / (time**2 + (1 - time) ** 2)


def losses(network: Velocity, chunks: Tensor, context: Pair, noise: Tensor, time: Tensor) -> Tensor:
    """Return the mean squared error of the velocity of each chunk, shape (batch,)."""
    at = time.unsqueeze(2)
    found: Tensor = network((1 - at) * noise + at * chunks, time, network.context(context))
    return (found - (chunks - noise)).square().mean(dim=(1, 2))


def carried(network: Velocity, noise: Tensor, contexts: Sequence[tuple[float, Pair]], steps: int) -> Tensor:
    """Carry noise to chunks in so many steps of Heun's method, at the weighted sum of the velocities under contexts.

    With weights w of a regime and 1 - w of none this is classifier-free guidance (Ho, Salimans 2022, eq. 6).
    """
    known = [(weight, network.context(context)) for weight, context in contexts]
    now = noise
    for step in range(steps):
        time = torch.full((len(noise), 1), step / steps)
        first = _total(network, now, time, known)
        guess = now + first / steps
        now = now + (first + _total(network, guess, time + 1 / steps, known)) / (2 * steps)
    return now


def _total(network: Velocity, now: Tensor, time: Tensor, known: Sequence[tuple[float, Pair]]) -> Tensor:
    found = torch.zeros_like(now)
    for weight, context in known:
        found += weight * network(now, time, context)
    return found
