"""The one training run, the one way to sample and the one checkpoint of all neural generators.

A model file states networks and losses as a `Recipe` and how its network rolls on; it knows nothing of Lightning. Here
lie the optimizers, the average of the weights, the alarms, the budget, determinism and silence. What is kept is the
last average of the weights: no model is selected by a score that is reported later.
"""

from __future__ import annotations

import copy
import json
import logging
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import TooLittleDataError, TrainingError
from synth_pipeline.features.transforms import Marginal, SeriesTransform, checked
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.series import FloatArray, IntArray, Series

State = Any
"""What a network carries from one stretch of a path to the next: a tree of tensors, or None at the start."""

_ROWS, _CHUNK = 16, 64
_CALIBRATION_PATHS, _CALIBRATION_STEPS = 16, 1_500
_DIVERGED = 1e5
_COLLAPSED, _PATIENCE, _PROBES, _SETTLED = 0.05, 3, 40, 100


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
    decay: float = 0.99
    seconds: float | None = None
    """Stop after this time even with steps left. The result then depends on the machine; None is reproducible."""


@dataclass(frozen=True)
class Windows:
    """Every window of `length` steps without a gap, cut on demand: a day of rows is small, its windows are not."""

    rows: Tensor
    starts: IntArray
    length: int

    @classmethod
    def of(cls, scores: Series, length: int, fewest: int) -> Self:
        """Find them. Raises `TooLittleDataError` for fewer than `fewest`."""
        starts = [
            np.arange(path * scores.steps + start, path * scores.steps + stop - length + 1)
            for path, start, stop in segments(scores)
        ]
        found = np.concatenate(starts) if starts else np.empty(0, dtype=np.int64)
        if len(found) < fewest:
            raise TooLittleDataError(
                f"{len(found)} windows of {length} steps without a gap and {fewest} are needed: "
                f"record for longer or choose a shorter window"
            )
        rows = np.nan_to_num(scores.values.reshape(-1, len(scores.names)))
        return cls(torch.from_numpy(rows).to(torch.float32), found, length)

    def batch(self, size: int, noise: torch.Generator) -> Tensor:
        """Return windows drawn at random, shape (size, length, features)."""
        drawn = torch.randint(len(self.starts), (size,), generator=noise).numpy()
        return self.rows[torch.from_numpy(self.starts[drawn][:, np.newaxis] + np.arange(self.length))]


@dataclass
class History:
    """What a training run leaves behind."""

    steps: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Per player, the loss of its last update in every step."""

    def summary(self) -> dict[str, float]:
        """Return the steps taken and, per player, the mean loss over the last tenth."""
        tail = {f"{name}_loss": float(np.mean(past[-max(1, len(past) // 10) :])) for name, past in self.losses.items()}
        return {"training_steps": float(self.steps)} | tail


@contextmanager
def reproducible(rng: np.random.Generator) -> Iterator[torch.Generator]:
    """Seed torch from `rng` and run it on one thread inside the block; leave the process as it was after it.

    One thread, because a sum that is split over threads depends on how many there are. Layers draw their initial
    weights and dropout from the seeded global generator; everything else draws from the one that is given.
    """
    threads = torch.get_num_threads()
    noise = torch.Generator()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(0, 2**63)))
        noise.manual_seed(int(rng.integers(0, 2**63)))
        torch.set_num_threads(1)
        try:
            yield noise
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from announcing its hardware, its tips and its own deprecations."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            yield
        finally:
            logger.setLevel(level)


class _Run:
    """The steps of one training run; the Lightning module hands it batches and optimizers."""

    def __init__(self, name: str, recipe: Recipe, spread: Tensor, noise: torch.Generator, progress: Progress) -> None:
        self.name, self.recipe, self.spread, self.noise, self.progress = name, recipe, spread, noise, progress
        self.total = sum(phase.steps for phase in recipe.phases)
        self.history = History()
        self.average = copy.deepcopy(recipe.average).requires_grad_(False)
        self.collapsed = 0

    def updates(self) -> Iterator[list[tuple[int, float]]]:
        """Yield, for every step, the updates to make: number of the player, share of its learning rate.

        The rate is constant for the first half of a phase and then falls linearly.
        """
        first = 0
        for phase in self.recipe.phases:
            for step in range(phase.steps):
                share = min(1.0, 2 * (1 - step / phase.steps) + 0.02)
                yield [(first + at, share) for at, who in enumerate(phase.players) for _ in range(who.updates)]
            first += len(phase.players)

    def check(self, player: Player, loss: float, norm: float) -> None:
        """Raise `TrainingError` for a loss or gradient that is no number, and for a loss that runs away."""
        where = f"{self.name}: {player.name} at step {self.history.steps}"
        remedy = f"lower its learning rate ({player.learning_rate:g})"
        if not np.isfinite(loss):
            raise TrainingError(f"{where}: non-finite loss {loss}; {remedy}")
        if not np.isfinite(norm):
            raise TrainingError(f"{where}: non-finite gradient; {remedy}")
        if abs(loss) > _DIVERGED:
            raise TrainingError(f"{where}: diverged, its loss is {loss:.3g}; {remedy}")

    def finish_step(self, losses: dict[str, float]) -> None:
        """Average the weights, look for collapse, report."""
        for name, loss in losses.items():
            self.history.losses.setdefault(name, []).append(loss)
        self.history.steps += 1
        done = self.history.steps
        keep = min(self.recipe.decay, done / (done + 9))
        with torch.no_grad():
            for mean, now in zip(
                self.average.state_dict().values(), self.recipe.average.state_dict().values(), strict=True
            ):
                mean.lerp_(now, 1 - keep) if mean.is_floating_point() else mean.copy_(now)
        if done % max(1, self.total // _PROBES) == 0:
            if done > max(_SETTLED, self.total // 4):  # an untrained network may vary little: that is no collapse
                self.look_for_collapse()
            self.progress(done, self.total, ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()))

    def look_for_collapse(self) -> None:
        """Raise `TrainingError` when, some probes in a row, a feature hardly varies from path to path."""
        if self.recipe.probe is None:
            return
        with torch.no_grad():
            varies = self.recipe.probe(self.noise).std(dim=0).mean(dim=0) / self.spread
        low = int(varies.argmin())
        self.collapsed = self.collapsed + 1 if float(varies[low]) < _COLLAPSED else 0
        if self.collapsed >= _PATIENCE:
            raise TrainingError(
                f"{self.name}: collapsed by step {self.history.steps}, feature {low} of different paths varies by "
                f"{float(varies[low]):.1%} of what the data do; use another seed or a lower learning rate"
            )


def train(
    name: str, recipe: Recipe, data: Windows, *, rng: np.random.Generator, progress: Progress = silent
) -> History:
    """Train in place; `recipe.average` ends with averaged weights.

    Runs on the CPU, writes no file and no log; the same `rng` gives the same bytes. Raises `TrainingError` naming what
    went wrong: a loss or gradient that is no number, divergence, collapse.
    """
    import pytorch_lightning as lightning
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    with reproducible(rng) as noise, _quiet():
        run = _Run(name, recipe, data.rows.std(dim=0), noise, progress)
        ends = time.monotonic() + (recipe.seconds or np.inf)
        players = [player for phase in recipe.phases for player in phase.players]

        class Module(lightning.LightningModule):
            automatic_optimization = False

            def __init__(self) -> None:
                super().__init__()
                self.networks = nn.ModuleList([player.network for player in players])

            def configure_optimizers(self) -> list[torch.optim.Optimizer]:
                return [torch.optim.Adam(p.network.parameters(), p.learning_rate, p.betas) for p in players]

            def training_step(self, updates: list[tuple[int, float]], _: int) -> None:
                losses = {}
                optimizers = self.optimizers()
                for at, share in updates:
                    player = players[at]
                    optimizer = optimizers[at] if isinstance(optimizers, list) else optimizers
                    self.toggle_optimizer(optimizer)
                    optimizer.param_groups[0]["lr"] = player.learning_rate * share
                    loss = player.loss(data.batch(recipe.batch, noise), noise)
                    optimizer.zero_grad()
                    self.manual_backward(loss)
                    norm = nn.utils.clip_grad_norm_(player.network.parameters(), player.clip)
                    losses[player.name] = loss.item()
                    run.check(player, losses[player.name], float(norm))
                    optimizer.step()
                    self.untoggle_optimizer(optimizer)
                run.finish_step(losses)
                self.trainer.should_stop = time.monotonic() > ends

        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[LightningEnvironment()],
        )
        trainer.fit(Module(), train_dataloaders=run.updates())
    recipe.average.load_state_dict(run.average.state_dict())
    recipe.average.requires_grad_(False).eval()
    return run.history


def roll_out(
    advance: Callable[[Tensor, State], tuple[Tensor, State]],
    n: int,
    steps: int,
    *,
    width: int,
    rng: np.random.Generator,
    burn_in: int,
) -> FloatArray:
    """Return `n` connected paths of `steps` steps after `burn_in` more, shape (n, steps, features).

    `advance` turns noise of shape (paths, steps, `width`) and the state into features and the next state. It always
    gets the same shape, padded, and every path its own noise: so a path does not depend on how many are asked for, and
    a longer one begins like a shorter one.
    """
    pieces = -(-(burn_in + steps) // _CHUNK)
    streams = per_path(rng, n)
    batches = []
    with reproducible(rng), torch.inference_mode():
        for first in range(0, n, _ROWS):
            own = streams[first : first + _ROWS]
            state, chunks = None, []
            for _ in range(pieces):
                noise = np.zeros((_ROWS, _CHUNK, width), dtype=np.float32)
                for row, stream in enumerate(own):
                    stream.standard_normal(dtype=np.float32, out=noise[row])
                made, state = advance(torch.from_numpy(noise), state)
                chunks.append(made[: len(own)].numpy().astype(np.float64))
            batches.append(np.concatenate(chunks, axis=1)[:, burn_in : burn_in + steps])
    return np.concatenate(batches) if batches else np.empty((0, steps, 0))


class NeuralGenerator(Generator):
    """A generator whose law is a network over standard normal scores.

    A model file adds `build`, `recipe` and `paths`. Its `Parameters` hold at least `window`. After training, each score
    is calibrated: a monotone map, fitted on long paths of the network itself, gives it the N(0, 1) law, so that the
    marginals in market units are those of the data; the network answers for the dependence.
    """

    fewest_windows: ClassVar[int] = 100
    """Windows that a fit asks for at least; they may overlap."""

    @abstractmethod
    def build(self, directions: FloatArray) -> nn.Module:
        """Make the untrained network; `directions` (see `SeriesTransform.directions`) has one entry a feature."""

    @abstractmethod
    def recipe(self, network: nn.Module) -> Recipe:
        """Say how it is trained; what else it needs, such as a critic, is made here."""

    @abstractmethod
    def paths(self, n: int, steps: int, rng: np.random.Generator) -> FloatArray:
        """Sample uncalibrated scores with `self.network`, shape (n, steps, features); see `roll_out`."""

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Fit the transform, train on windows of its scores, calibrate on a path of the trained network."""
        chosen = checked(series, self.columns, self.required, max(self.minimum_steps, self.parameters.window + 1))
        self.transform = SeriesTransform.fit(chosen)
        data = Windows.of(self.transform.encode(chosen, rng=rng), self.parameters.window, self.fewest_windows)
        with reproducible(rng):
            self.network = self.build(self.transform.directions)
            recipe = self.recipe(self.network)
        self.history = train(type(self).__module__.rpartition(".")[2], recipe, data, rng=rng, progress=progress)
        self.calibration = self._calibrated(rng)
        return self

    def _calibrated(self, rng: np.random.Generator) -> tuple[Marginal, ...]:
        made = self.paths(_CALIBRATION_PATHS, min(_CALIBRATION_STEPS, self.max_steps or _CALIBRATION_STEPS), rng)
        odd = self.transform.directions < 0
        return tuple(Marginal.fit(made[:, :, at].ravel(), odd=bool(odd[at]), heaviest=0.0) for at in range(len(odd)))

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Roll the network out, calibrate, decode to market units."""
        self.check_request(n, steps, regime)
        made = self.paths(n, steps, rng)
        scores = [marginal.normal(made[:, :, at]) for at, marginal in enumerate(self.calibration)]
        return self.transform.decode(np.stack(scores, axis=2))

    def save(self, folder: Path) -> None:
        """Write transform, weights and calibration as npz, the rest as JSON."""
        self.transform.save(folder)
        state = {"parameters": asdict(self.parameters), "history": asdict(self.history)}
        (folder / "training.json").write_text(json.dumps(state, sort_keys=True) + "\n")
        weights = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}
        maps = {f"{at}.{key}": a for at, m in enumerate(self.calibration) for key, a in m.arrays().items()}
        with (folder / "weights.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **weights)
        with (folder / "calibration.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **maps)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        state = json.loads((folder / "training.json").read_text())
        made = cls.from_settings(state["parameters"])
        made.transform, made.history = SeriesTransform.load(folder), History(**state["history"])
        with torch.random.fork_rng(devices=[]):  # the initial weights, drawn and then replaced, are nobody's business
            made.network = made.build(made.transform.directions).requires_grad_(False).eval()
        with np.load(folder / "weights.npz", allow_pickle=False) as weights:
            made.network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
        with np.load(folder / "calibration.npz", allow_pickle=False) as maps:
            count = len(made.transform.marginals)
            parts = [{key: maps[f"{at}.{key}"] for key in ("knots", "levels", "tails")} for at in range(count)]
        made.calibration = tuple(map(Marginal.from_arrays, parts))
        return made

    def summary(self) -> dict[str, float]:
        """Return steps, final losses and size of the network."""
        size = sum(parameter.numel() for parameter in self.network.parameters())
        return self.history.summary() | {"weights": float(size)}
