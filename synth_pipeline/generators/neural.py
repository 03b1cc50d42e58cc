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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import TooLittleDataError, TrainingError
from synth_pipeline.features.marginals import Marginal
from synth_pipeline.features.transforms import Anchor, SeriesTransform, checked, known_columns
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator
from synth_pipeline.generators.pieces import PIECE, counts_of, recut
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import Paths, per_path
from synth_pipeline.series import FloatArray, IntArray, Series

State = Any
"""What a network carries from one stretch of a path to the next: a tree of tensors, or None at the start."""

ROWS = 16
"""Paths of a batch; `roll_out` pads to it."""
_CHUNK = 64
_CALIBRATION_PATHS, _CALIBRATION_STEPS = 16, 1_500
_DIVERGED = 1e5
_COLLAPSED, _PATIENCE, _PROBES, _SETTLED = 0.05, 3, 40, 100


def gpu_names() -> list[str]:
    """Return the names of the GPUs that torch can use."""
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


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
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: a sum that is split over threads depends on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reproducible(rng: np.random.Generator) -> Iterator[torch.Generator]:
    """Seed torch from `rng` and run it on one thread inside the block; leave the process as it was after it.

    Layers draw their initial weights and dropout from the seeded global generator; everything else draws from the one
    that is given.
    """
    noise = torch.Generator()
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(int(rng.integers(0, 2**63)))
        noise.manual_seed(int(rng.integers(0, 2**63)))
        yield noise


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
    streams: Mapping[int, np.random.Generator],
    counts: Iterable[int],
    *,
    width: int,
    burn_in: int,
) -> Iterator[FloatArray]:
    """Yield connected paths in pieces of so many steps after `burn_in` more, shape (paths, steps, features).

    `streams` gives each path its noise, by its row among the `ROWS` of a batch. `advance` turns noise of shape
    (paths, steps, `width`) and the state into features and the next state. It always gets the same shape, padded: so a
    path does not depend on its neighbours, and a longer one begins like a shorter one.
    """
    pieces = recut(_chunks(advance, streams, width), chain((burn_in,), counts), axis=1)
    next(pieces)
    return pieces


def _chunks(
    advance: Callable[[Tensor, State], tuple[Tensor, State]], streams: Mapping[int, np.random.Generator], width: int
) -> Iterator[FloatArray]:
    state = None
    while True:
        noise = np.zeros((ROWS, _CHUNK, width), dtype=np.float32)
        for row, stream in streams.items():
            stream.standard_normal(dtype=np.float32, out=noise[row])
        with one_thread(), torch.inference_mode():
            made, state = advance(torch.from_numpy(noise), state)
        yield made.numpy()[list(streams)].astype(np.float64)


def _batches(first: int, n: int) -> Iterator[range]:
    """Yield the numbers of the paths that share a batch: the same ones wherever the first is."""
    return (range(max(at, first), min(at + ROWS, n)) for at in range(first - first % ROWS, n, ROWS))


class NeuralGenerator(Generator):
    """A generator whose law is a network over standard normal scores.

    A model file adds `build`, `recipe` and `roll`. Its `Parameters` hold at least `window`. After training, each score
    is calibrated: a monotone map, fitted on long paths of the network itself, gives it the N(0, 1) law, so that the
    marginals in market units are those of the data; the network answers for the dependence.
    """

    fewest_windows: ClassVar[int] = 100
    """Windows that a fit asks for at least; they may overlap."""
    notes: list[str]

    @abstractmethod
    def build(self, directions: FloatArray) -> nn.Module:
        """Make the untrained network; `directions` (see `SeriesTransform.directions`) has one entry a feature."""

    @abstractmethod
    def recipe(self, network: nn.Module) -> Recipe:
        """Say how it is trained; what else it needs, such as a critic, is made here."""

    @abstractmethod
    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Sample uncalibrated scores with `self.network` in pieces, shape (paths, count, features); see `roll_out`."""

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Fit the transform, train on windows of its scores, calibrate on a path of the trained network."""
        self.check_assets(series)
        known, self.notes = known_columns(series, self.columns)
        chosen = checked(known, self.columns, self.required, max(self.minimum_steps, self.parameters.window + 1))
        self.transform = SeriesTransform.fit(chosen)
        data = Windows.of(self.transform.encode(chosen, rng=rng), self.parameters.window, self.fewest_windows)
        with reproducible(rng):
            self.network = self.build(self.transform.directions)
            recipe = self.recipe(self.network)
        self.history = train(type(self).__module__.rpartition(".")[2], recipe, data, rng=rng, progress=progress)
        self.calibration = self._calibrated(rng)
        return self

    def _calibrated(self, rng: np.random.Generator) -> tuple[Marginal, ...]:
        steps = min(_CALIBRATION_STEPS, self.max_steps or _CALIBRATION_STEPS)
        made = next(self.roll(dict(enumerate(per_path(rng, ROWS))), (steps,)))
        odd = self.transform.directions < 0
        return tuple(Marginal.fit(made[:, :, at].ravel(), odd=bool(odd[at]), heaviest=0.0) for at in range(len(odd)))

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """Where samples start."""
        return (self.transform.anchor,)

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Roll the network out, calibrate, decode to market units."""
        self.check_request(n, steps, regime)
        streams = per_path(rng, n)
        values = np.empty((n, steps, len(self.transform.anchor.names)))
        for numbers in _batches(0, n):
            start = 0
            for piece in self._pieces(streams, numbers, steps):
                values[numbers.start : numbers.stop, start : start + piece.steps] = piece.values
                start += piece.steps
        return self.transform.anchor.series(values)

    def stream(
        self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[int, Series]]:
        """Yield the same paths piece by piece.

        Paths of one piece are made together, as many as a batch holds; longer ones one by one, at the price of a batch
        each: memory depends neither on `n` nor on `steps`.
        """
        self.check_request(n, steps, regime)
        streams = per_path(rng, n)
        batches = _batches(first, n) if steps <= PIECE else (range(number, number + 1) for number in range(first, n))
        return (
            (number, replace(piece, values=piece.values[at : at + 1], start_ns=piece.start_ns[at : at + 1]))
            for numbers in batches
            for piece in self._pieces(streams, numbers, steps)
            for at, number in enumerate(numbers)
        )

    def _pieces(self, streams: Paths, numbers: range, steps: int) -> Iterator[Series]:
        """Yield pieces of the paths of these numbers, at most `ROWS` of them, in market units."""
        made = self.roll({number % ROWS: streams[number] for number in numbers}, counts_of(steps))
        scores = (
            np.stack([marginal.normal(piece[:, :, at]) for at, marginal in enumerate(self.calibration)], axis=2)
            for piece in made
        )
        return self.transform.decoded(scores)

    def save(self, folder: Path) -> None:
        """Write transform, weights and calibration as npz, the rest as JSON."""
        self.transform.save(folder)
        state = {"parameters": asdict(self.parameters), "history": asdict(self.history), "notes": self.notes}
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
        made.notes = state["notes"]
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
