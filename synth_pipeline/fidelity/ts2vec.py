"""TS2Vec: the encoder of windows behind Context-FID, trained on real windows alone.

Yue et al. 2022, "TS2Vec: Towards Universal Representation of Time Series", AAAI, with the settings that the generation
papers score with: width 64, ten blocks of dilation 1, 2, 4, … and an eleventh to 320 outputs, batches of 8, AdamW at
1e-3, 200 steps up to 100,000 numbers of data and 600 beyond; the encoder used is the average over all steps.

A step crops every window of a batch twice, with a common overlap, hides half of the time steps of each crop, and asks
that a step's two encodings be nearer to each other than to those of other steps and of other windows, at every scale of
a pyramid of maxima. The encoding of a window is the largest value over time of each output, nothing hidden.

Noise comes from a generator of its own and every sum runs on the calling thread, so threads of several trainings do not
meet. torch loads when a function is called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline.series import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Weights = dict[str, Tensor]

WIDTH, OUTPUTS, BLOCKS = 64, 320, 10
BATCH, LEARNING_RATE, DECAY, DROPPED, HIDDEN = 8, 1e-3, 0.01, 0.1, 0.5
FEW_STEPS, MANY_STEPS, MANY_NUMBERS = 200, 600, 100_000
_CHUNK = 512
"""Windows that are encoded together."""


def noise_of(rng: np.random.Generator) -> torch.Generator:
    """Return a source of noise of torch's that `rng` seeds."""
    import torch

    return torch.Generator().manual_seed(int(rng.integers(0, 2**63)))


def train(windows: FloatArray, *, rng: np.random.Generator, steps: int | None = None) -> Weights:
    """Return the weights of an encoder of windows (n, length, features); after the published steps by default."""
    import torch

    noise = noise_of(rng)
    data = torch.from_numpy(windows.astype(np.float32))
    count = steps or (FEW_STEPS if windows.size <= MANY_NUMBERS else MANY_STEPS)
    weights = _initial(data.shape[1], data.shape[2], noise)
    for tensor in weights.values():
        tensor.requires_grad_(True)
    average = {name: tensor.detach().clone() for name, tensor in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), LEARNING_RATE, weight_decay=DECAY, fused=True)
    for step, rows in zip(range(count), _batches(len(data), noise), strict=False):
        optimizer.zero_grad()
        _loss(weights, data[rows], noise).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch._foreach_lerp_(list(average.values()), [tensor.detach() for tensor in weights.values()], 1 / (step + 1))
    return average


def encode(weights: Weights, windows: FloatArray) -> FloatArray:
    """Return the encodings of windows, shape (n, 320)."""
    import torch

    with torch.no_grad():
        parts = [
            _encoded(weights, torch.from_numpy(windows[first : first + _CHUNK].astype(np.float32))).amax(dim=1)
            for first in range(0, len(windows), _CHUNK)
        ]
        return torch.cat(parts).double().numpy()


def _initial(length: int, features: int, noise: torch.Generator) -> Weights:
    """Draw weights as layers of torch do: uniform within one over the root of how many numbers enter.

    A convolution whose dilation reaches beyond the window meets zeros left and right and has its middle alone.
    """
    import torch

    def drawn(shape: tuple[int, ...], enter: int) -> Tensor:
        return (torch.rand(shape, generator=noise) * 2 - 1) / math.sqrt(enter)

    weights = {"first": drawn((features, WIDTH), features), "first.bias": drawn((WIDTH,), features)}
    for block in range(BLOCKS + 1):
        out, taps = WIDTH if block < BLOCKS else OUTPUTS, 3 if 2**block < length else 1
        for part, enter in (("a", WIDTH), ("b", out)):
            weights[f"{block}{part}"] = drawn((taps, enter, out), 3 * enter)
            weights[f"{block}{part}.bias"] = drawn((out,), 3 * enter)
    weights["across"] = drawn((WIDTH, OUTPUTS), WIDTH)
    weights["across.bias"] = drawn((OUTPUTS,), WIDTH)
    return weights


def _batches(count: int, noise: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of rows, every row once before any comes again; what is left of a round is dropped."""
    import torch

    size = min(BATCH, count)
    while True:
        order = torch.randperm(count, generator=noise)
        yield from order[: count - count % size].reshape(-1, size)


def _encoded(weights: Weights, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
    """Return the encoding of every step, shape (batch, length, 320); with noise, as in training, much is hidden."""
    import torch
    from torch.nn.functional import gelu

    x = x @ weights["first"] + weights["first.bias"]
    if noise is not None:
        x = x * (torch.rand(x.shape[:2], generator=noise) < HIDDEN).unsqueeze(2)
    for block in range(BLOCKS + 1):
        past = x if block < BLOCKS else x @ weights["across"] + weights["across.bias"]
        for part in "ab":
            x = _convolved(gelu(x), weights[f"{block}{part}"], weights[f"{block}{part}.bias"], 2**block)
        x = x + past
    if noise is not None:
        x = x * (torch.rand(x.shape, generator=noise) >= DROPPED) / (1 - DROPPED)
    return x


def _convolved(x: Tensor, kernel: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Convolve along time, zeros outside: steps t - dilation, t and t + dilation."""
    import torch

    if dilation >= x.shape[1]:
        return x @ kernel[len(kernel) // 2] + bias
    zeros = x.new_zeros(x.shape[0], dilation, x.shape[2])
    before, after = torch.cat([zeros, x[:, :-dilation]], dim=1), torch.cat([x[:, dilation:], zeros], dim=1)
    return torch.cat([before, x, after], dim=2) @ kernel.flatten(0, 1) + bias


def _loss(weights: Weights, x: Tensor, noise: torch.Generator) -> Tensor:
    """Crop a batch twice around a common stretch, encode both crops and contrast them on that stretch."""
    import torch

    def below(low: int, high: int, size: int = 1) -> Tensor:
        return torch.randint(low, high, (size,), generator=noise)

    length = x.shape[1]
    common = int(below(2, length + 1))
    left = int(below(0, length - common + 1))
    right = left + common
    first, last = int(below(0, left + 1)), int(below(right, length + 1))
    shift = below(-first, length - last + 1, len(x)).unsqueeze(1)
    row = torch.arange(len(x)).unsqueeze(1)
    one = _encoded(weights, x[row, shift + torch.arange(first, right)], noise)[:, -common:]
    two = _encoded(weights, x[row, shift + torch.arange(left, last)], noise)[:, :common]
    return contrast(one, two)


def contrast(one: Tensor, two: Tensor) -> Tensor:
    """Return the hierarchical contrastive loss of two encodings, each of shape (batch, steps, outputs)."""
    from torch.nn.functional import max_pool1d

    total, levels = one.new_zeros(()), 0
    while True:
        total = total + _told_apart(one.transpose(0, 1), two.transpose(0, 1)) / 2  # from other windows
        if one.shape[1] == 1:
            return total / (levels + 1)
        total = total + _told_apart(one, two) / 2  # from other steps
        one, two = (max_pool1d(each.transpose(1, 2), 2).transpose(1, 2) for each in (one, two))
        levels += 1


def _told_apart(one: Tensor, two: Tensor) -> Tensor:
    """Return the cross-entropy of finding each item's partner among all others, shape (groups, items, outputs)."""
    import torch

    items = one.shape[1]
    if items == 1:
        return one.new_zeros(())
    both = torch.cat([one, two], dim=1)
    likeness = (both @ both.transpose(1, 2)).masked_fill(torch.eye(2 * items, dtype=torch.bool), -math.inf)
    chances = likeness.log_softmax(dim=2)
    at = torch.arange(items)
    return -(chances[:, at, at + items].mean() + chances[:, at + items, at].mean()) / 2
