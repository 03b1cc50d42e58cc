"""How a neural generator is trained, in words: players, phases, a recipe; what surrounds a run, and what it leaves.

What belongs here: what a model file or a caller says. What does not: doing it (`training`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError

_BUDGET = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_WARM_UP = 0.01


def budget_seconds(text: str) -> float:
    """Return the seconds of a budget such as `5m`, `1h30m` or `90s`. Raises `InputError` for other words and for 0."""
    found = _BUDGET.fullmatch(text.strip())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3_600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise InputError(f"budget {text!r} is no time: write it like 90s, 5m or 1h30m")
    return total


def held_then_falling(share: float) -> float:
    """Return the share of a rate, by how much of a phase is over: all for half of it, then falling linearly."""
    return min(1.0, 2 * (1 - max(share, 0.0)) + 0.02)


def warmed_cosine(share: float) -> float:
    """Return the same of a rate that rises over the first hundredth of a phase and falls along a cosine to 0."""
    at = min(max(share, 0.0), 1.0)
    return min(1.0, at / _WARM_UP + 0.02) * (1 + math.cos(math.pi * at)) / 2


@dataclass(frozen=True)
class Player:
    """One optimizer: what it moves, down which loss, how often a step."""

    name: str
    network: nn.Module
    loss: Callable[[Tensor, torch.Generator], Tensor]
    """Of a batch of windows, shape (batch, steps, features), and the source of noise; a scalar."""
    learning_rate: float
    updates: int = 1
    betas: tuple[float, float] = (0.5, 0.9)
    clip: float = 10.0
    """Largest norm of the gradient."""
    weight_decay: float = 0.0
    """Decoupled from the gradient, as AdamW has it."""
    schedule: Callable[[float], float] = held_then_falling
    """The share of its learning rate that it has, of how much of the phase is over."""
    rests_below: float | None = None
    """Its weights are left alone while its loss is below this: an adversary that wins lets the other catch up."""
    dead_below: float | None = None
    """A loss that stays below this is an alarm: it tells real from made without fail, and teaches nothing."""


@dataclass(frozen=True)
class Phase:
    """Steps in which the same players take turns, in this order."""

    steps: int
    players: tuple[Player, ...]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    phases: tuple[Phase, ...]
    batch: int
    average: nn.Module
    """What is sampled from later: it ends as the exponential average of its own weights."""
    probe: Callable[[torch.Generator], Tensor] | None = None
    """Makes a few windows, shape (paths, steps, features), on which the alarm for collapse looks."""
    held_out: Callable[[Tensor, torch.Generator], Tensor] | None = None
    """Loss of windows that training never sees; where it rises, the last phase ends. Never a score that is reported."""
    decay: float = 0.99
    seconds: float | None = None
    """Train for this time instead of the steps, which then only say how the phases share it.

    The result then depends on the machine; None is reproducible.
    """


@dataclass(frozen=True)
class Watch:
    """What surrounds a training run without changing what it learns from its data."""

    state: Path | None = None
    """File in which the run is kept, and from which it goes on; remove it once the generator is saved."""
    every_seconds: float = 30.0
    """How often it is written."""
    start_from: Path | None = None
    """Folder of an earlier saved generator whose weights training starts from: yesterday's, for a nightly run. Where
    its networks have other sizes training starts cold, with a note."""
    on_losses: Callable[[int, Mapping[str, float]], None] | None = None
    """Called after every step with its number and the losses of its players."""
    accelerator: str = "auto"
    """`cpu`, `gpu`, or the one GPU where there is one."""
    devices: int = 1
    """How many processes train together, a GPU or core each; a step then learns from as many batches."""
    mixed: bool = False
    """Compute in bfloat16 where that is safe, on a GPU only."""


@dataclass
class History:
    """What a training run leaves behind."""

    steps: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Per player, the loss of its last update in every step."""
    begins: dict[str, int] = field(default_factory=dict)
    """Per player, how many steps were over when its losses begin."""
    held_out: list[float] = field(default_factory=list)
    """Loss of the averaged weights on held-out windows, at every probe."""
    held_out_at: list[int] = field(default_factory=list)
    """After how many steps each of them was."""

    def summary(self) -> dict[str, float]:
        """Return the steps taken, per player the mean loss over the last tenth, and the least held-out loss."""
        tail = {f"{name}_loss": float(np.mean(past[-max(1, len(past) // 10) :])) for name, past in self.losses.items()}
        least = {"held_out_loss": min(self.held_out)} if self.held_out else {}
        return {"training_steps": float(self.steps)} | tail | least

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return per player, and of the held-out windows, each loss with the number of its step."""
        found = {f"loss/{name}": list(enumerate(past, self.begins[name] + 1)) for name, past in self.losses.items()}
        held_out = list(zip(self.held_out_at, self.held_out, strict=True))
        return found | ({"loss/held out": held_out} if held_out else {})
