"""Regimes as conditions of recurrent generators: which step has which, how they follow one another, what a user asks.

The steps of the fitted series are labelled by the rules of `features.regimes`; every step of a window has its label
behind its scores, one column a regime. A path without a regime walks through them by the Markov chain of the history's
labels; with one, it stays in it. Rare regimes are shown to the networks more often: half of the windows are drawn
evenly over the regimes of their last steps. That changes how often a regime is seen, not what it looks like.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError
from synth_pipeline.features.regimes import UNKNOWN, Regimes, label
from synth_pipeline.generators.adversarial import device_of, uniform
from synth_pipeline.generators.neural import NeuralGenerator, State, roll_out
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.series import FloatArray, Series

_FEWEST_STEPS = 10


class ConditionedLSTM(nn.Module):
    """Noise and labels, shape (paths, steps, …), and a state → scores and the next state."""

    def __init__(self, noise: int, labels: int, hidden: int, features: int) -> None:
        super().__init__()
        self.features, self.noise, self.labels = features, noise, labels
        self.lstm = nn.LSTM(noise + labels, hidden, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(hidden + noise + labels, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, features)
        )
        with torch.no_grad():  # start at the scale of the scores
            scale = self(torch.randn(64, 64, noise), torch.zeros(64, 64, labels))[0].std(dim=(0, 1))
            for parameter in self.head[-1].parameters():
                parameter.div_(scale if parameter.ndim == 1 else scale.unsqueeze(1))

    def forward(self, noise: Tensor, labels: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Run the LSTM; its head sees the noise and the label of the step again."""
        inputs = torch.cat((noise, labels), dim=-1)
        hidden, state = self.lstm(inputs, state)
        return self.head(torch.cat((hidden, inputs), dim=-1)), state

    def like(self, real: Tensor, burn_in: int, noise: torch.Generator) -> Tensor:
        """Return windows under the labels of real ones, which stand behind their features, with these labels."""
        labels = real[..., self.features :]
        known = torch.cat((labels[:, :1].expand(-1, burn_in, -1), labels), dim=1)
        drawn = torch.randn((*known.shape[:2], self.noise), generator=noise).to(real.device)
        made: Tensor = self(drawn, known)[0][:, burn_in:]
        return torch.cat((made, labels), dim=-1)

    def probe(self, batch: int, steps: int, burn_in: int, noise: torch.Generator) -> Tensor:
        """Return windows, each under one regime drawn at random, without labels."""
        where = device_of(self)
        labels = torch.zeros(batch, steps, self.labels, device=where.device)
        if self.labels:
            chosen = (uniform((batch,), noise, where) * self.labels).long()
            labels[torch.arange(batch), :, chosen] = 1.0
        real = torch.cat((labels.new_zeros(batch, steps, self.features), labels), dim=-1)
        return self.like(real, burn_in, noise)[..., : self.features]


class RegimeConditions(NeuralGenerator):
    """A generator that learns the regimes of the history that it is fitted on."""

    conditions = True

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self.regime_names: tuple[str, ...] = ()
        self.chain = np.zeros((1, 1))

    def regimes_of(self, series: Series) -> Regimes:
        """Label a history by rules."""
        return label(series)

    def inputs(self, scores: Series, series: Series) -> Series:
        """Put a column for each regime behind the scores; learn how regimes follow one another."""
        regimes = self.regimes_of(series)
        counts = regimes.counts()
        self.regime_names = tuple(name for name in regimes.names if counts.get(name, 0) >= _FEWEST_STEPS)
        self.notes.append(f"regimes of history: {regimes.told() or 'none, it is too short'}")
        numbers = np.array([self._number(name) for name in regimes.names])
        labels = np.where(regimes.labels == UNKNOWN, len(self.regime_names), numbers[regimes.labels])
        states = len(self.regime_names) + 1
        moves = np.zeros((states, states))
        # History is closed to a ring: so a long path has each regime as often as history does.
        np.add.at(moves, (labels.ravel(), np.roll(labels, -1, axis=1).ravel()), 1.0)
        # A path comes from the last state, that of no regime: where history has none of it, anything may follow.
        moves[moves.sum(axis=1) == 0] = moves.sum(axis=0)
        self.chain = moves / moves.sum(axis=1, keepdims=True)
        columns = np.eye(states)[labels][..., :-1]
        names = (*scores.names, *(f"regime_{name}" for name in self.regime_names))
        return replace(scores, values=np.concatenate((scores.values, columns), axis=2), names=names)

    def _number(self, name: str) -> int:
        return self.regime_names.index(name) if name in self.regime_names else len(self.regime_names)

    def check_request(self, n: int, steps: int, regime: str | None) -> None:
        """Raise `InputError` as every generator does, and for a regime that the fitted history has not."""
        super().check_request(n, steps, regime)
        if regime is not None and regime not in self.regime_names:
            known = ", ".join(self.regime_names) or "none: its history is too short"
            raise InputError(f"history has no regime {regime!r} in {_FEWEST_STEPS} steps or more: it has {known}")

    def keep(self, folder: Path) -> None:
        """Write the regimes and their chain."""
        super().keep(folder)
        state = {"names": self.regime_names, "chain": self.chain.tolist()}
        (folder / "regimes.json").write_text(json.dumps(state) + "\n")

    def recall(self, folder: Path) -> None:
        """Read them back."""
        super().recall(folder)
        state = json.loads((folder / "regimes.json").read_text())
        self.regime_names, self.chain = tuple(state["names"]), np.array(state["chain"])


class ConditionedGenerator(RegimeConditions):
    """A `ConditionedLSTM` that rolls on under a chain of regimes, or under one. A model file adds its `players`."""

    @abstractmethod
    def players(self, network: ConditionedLSTM) -> tuple[Player, ...]:
        """Make the opponent; return both, in the order in which they take turns."""

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the generator network."""
        settings = self.parameters
        return ConditionedLSTM(settings.noise, len(self.regime_names), settings.hidden, len(directions))

    def recipe(self, network: nn.Module) -> Recipe:
        """Let the players take turns."""
        settings = self.parameters
        assert isinstance(network, ConditionedLSTM)
        return Recipe(
            phases=(Phase(settings.steps, self.players(network)),),
            batch=settings.batch,
            average=network,
            probe=lambda noise: network.probe(settings.batch, settings.window, settings.burn_in, noise),
        )

    def prepared(self, data: Windows) -> Windows:
        """Draw half of the windows evenly over the regimes of their last steps."""
        if not self.regime_names:
            return data
        last = data.rows[torch.from_numpy(data.starts + data.length - 1), -len(self.regime_names) :]
        each = torch.cat((last, 1 - last.sum(dim=1, keepdim=True)), dim=1)
        even = (each / each.sum(dim=0).clamp_min(1)).sum(dim=1)
        return replace(data, weights=even / even.sum() + 1 / len(even))

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Walk through the regimes of history."""
        return self._rolled(streams, counts, None)

    def roll_regime(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], regime: str
    ) -> Iterator[FloatArray]:
        """Stay in one regime."""
        return self._rolled(streams, counts, self._number(regime))

    def _rolled(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], only: int | None
    ) -> Iterator[FloatArray]:
        network = self.network
        assert isinstance(network, ConditionedLSTM)
        steps_up = torch.from_numpy(self.chain.cumsum(axis=1))
        columns = torch.eye(len(self.chain))[:, :-1]

        def advance(noise: Tensor, state: State) -> tuple[Tensor, State]:
            # The last state has no regime: a path starts there, and moves on with its first step.
            now, memory = (torch.full((len(noise),), len(self.chain) - 1), None) if state is None else state
            chance = torch.special.ndtr(noise[..., -1:].double())
            labels = []
            for step in range(noise.shape[1]):
                if only is None:
                    now = (steps_up[now] < chance[:, step]).sum(dim=1).clamp_max(len(self.chain) - 1)
                else:
                    now = torch.full_like(now, only)
                labels.append(columns[now])
            made, memory = network(noise[..., :-1], torch.stack(labels, dim=1), memory)
            return made, (now, memory)

        return roll_out(advance, streams, counts, width=network.noise + 1, burn_in=256)
