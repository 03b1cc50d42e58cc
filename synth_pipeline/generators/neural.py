"""What all neural generators share: networks over standard normal scores, calibrated, rolled on, saved.

A model file adds networks and losses as a `Recipe` (see `training`, which trains it) and how its network rolls on.
Models that make one window of a fixed length are `fixed_windows.WindowGenerator`.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from synth_pipeline.errors import InputError
from synth_pipeline.features.marginals import Marginal
from synth_pipeline.features.transforms import Anchor, SeriesTransform, checked, known_columns
from synth_pipeline.generators import Generator
from synth_pipeline.generators.pieces import PIECE, counts_of, recut
from synth_pipeline.generators.recipe import History, Recipe, Watch, budget_seconds
from synth_pipeline.generators.training import reproducible, train
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import Paths, one_thread, per_path
from synth_pipeline.series import FloatArray, Series

State = Any
"""What a network carries from one stretch of a path to the next: a tree of tensors, or None at the start."""

COLUMNS = ("mid", "spread", "open", "high", "low", "close", "volume", "imbalance_1")
ROWS = 16
"""Paths of a batch; `roll_out` pads to it."""
_CHUNK = 64
_CALIBRATION_STEPS = 1_500
_CALIBRATION_ROWS = 24_000
_HELD_OUT = 0.1
_SEEN = 150
_DROPOUT = 0.1


@dataclass(frozen=True)
class Portrait:
    """Windows that were fitted and windows of the network, both in scores, for a picture of a training run."""

    real: FloatArray
    """Shape (windows, steps, features)."""
    made: FloatArray
    real_latent: FloatArray
    """Shape (windows, size)."""
    made_latent: FloatArray


def gpu_names() -> list[str]:
    """Return the names of the GPUs that torch can use."""
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class Parameters:
    """What a user may set of every neural generator."""

    steps: int = 500
    """Training steps; with several phases, of all of them together."""
    budget: str | None = None
    """Train for this time, such as 90s, 5m or 1h30m, instead of the steps; the result then depends on the machine."""
    preset: Literal["benchmark", "release"] = "benchmark"
    """`benchmark` fits all windows. `release` holds the last tenth out and stops where their loss rises, drops out a
    tenth of the units, and samples no window nearer to a fitted one than 99% of those held out are."""
    window: int = 24
    """Steps of the grid that are learnt from at once."""
    batch: int = 64
    """Windows an update."""
    decay: float = 0.99
    """Of the exponential average of the weights, which is what samples."""


def roll_out(
    advance: Callable[[Tensor, State], tuple[Tensor, State]],
    streams: Mapping[int, np.random.Generator],
    counts: Iterable[int],
    *,
    width: int,
    burn_in: int,
    rows: int = ROWS,
) -> Iterator[FloatArray]:
    """Yield connected paths in pieces of so many steps after `burn_in` more, shape (paths, steps, features).

    `streams` gives each path its noise, by its row among the `rows` of a batch. `advance` turns noise of shape
    (paths, steps, `width`) and the state into features and the next state. It always gets the same shape, padded: so a
    path does not depend on its neighbours, and a longer one begins like a shorter one.
    """
    pieces = recut(_chunks(advance, streams, width, rows), chain((burn_in,), counts), axis=1)
    next(pieces)
    return pieces


def _chunks(
    advance: Callable[[Tensor, State], tuple[Tensor, State]],
    streams: Mapping[int, np.random.Generator],
    width: int,
    rows: int,
) -> Iterator[FloatArray]:
    state = None
    while True:
        noise = np.zeros((rows, _CHUNK, width), dtype=np.float32)
        for row, stream in streams.items():
            stream.standard_normal(dtype=np.float32, out=noise[row])
        with one_thread(), torch.inference_mode():
            made, state = advance(torch.from_numpy(noise), state)
        yield made.numpy()[list(streams)].astype(np.float64)


class NeuralGenerator(Generator):
    """A generator whose law is a network over standard normal scores.

    A model file adds `build`, `recipe` and `roll`. After training, each score is calibrated: a monotone map, fitted on
    long paths of the network itself, gives it the N(0, 1) law, so that the marginals in market units are those of the
    data; the network answers for the dependence.
    """

    fewest_windows: ClassVar[int] = 100
    """Windows that a fit asks for at least; they may overlap."""
    rows: ClassVar[int] = ROWS
    """Paths that are made together."""
    calibration_steps: int = _CALIBRATION_STEPS
    """Steps of the paths that scores are calibrated on."""
    mirrored: ClassVar[bool] = False
    """Whether the network's law is symmetric under the exchange of bid and ask; its calibration is then odd.

    That of others is not: it takes the mean out of a return, and with it the drift.
    """
    is_network = True
    columns: ClassVar[tuple[str, ...]] = COLUMNS
    minimum_steps = 200
    notes: list[str]
    watch: Watch | None = None
    """Set before `fit`: where its state is kept, what it starts from, who is told of its losses."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        self.notes = []
        self.opponents: dict[str, FloatArray] = {}
        budget = self.parameters.budget
        self.seconds = None if budget is None else budget_seconds(budget)

    @property
    def dropout(self) -> float:
        """Share of units that a network leaves out in training."""
        return _DROPOUT if self.parameters.preset == "release" else 0.0

    @abstractmethod
    def build(self, directions: FloatArray) -> nn.Module:
        """Make the untrained network; `directions` (see `SeriesTransform.directions`) has one entry a feature."""

    @abstractmethod
    def recipe(self, network: nn.Module) -> Recipe:
        """Say how it is trained; what else it needs, such as a critic, is made here."""

    @abstractmethod
    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Sample uncalibrated scores with `self.network` in pieces, shape (paths, count, features); see `roll_out`."""

    def roll_regime(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], regime: str
    ) -> Iterator[FloatArray]:
        """Do the same under a regime; asked only of one that `conditions`."""
        raise NotImplementedError

    def inputs(self, scores: Series, series: Series) -> Series:
        """Return what windows are cut from: the scores of a series, and after them what conditions them."""
        del series
        return scores

    def prepared(self, data: Windows) -> Windows:
        """Look at the windows before the networks are made; return them, with how often each is drawn."""
        return data

    def keep(self, folder: Path) -> None:
        """Write what else the model needs; nothing, if not overridden."""

    def recall(self, folder: Path) -> None:
        """Read back what `keep` wrote, before the network is built."""

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Fit the transform, train on windows of its scores, calibrate on a path of the trained network."""
        self.check_assets(series)
        known, self.notes = known_columns(series, self.columns)
        chosen = checked(known, self.columns, self.required, max(self.minimum_steps, self.parameters.window + 1))
        self.transform = SeriesTransform.fit(chosen)
        scores = self.inputs(self.transform.encode(chosen, rng=rng), chosen)
        data = Windows.of(scores, self.parameters.window, self.fewest_windows)
        return self._learnt(data, self.transform.directions, rng, progress)

    def fit_windows(self, values: FloatArray, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Fit windows of any features, shape (windows, steps, features), as benchmarks of windows have them.

        Each feature becomes standard normal by its own law and nothing else is known of it, no regime either. A
        generator fitted so gives `sample_windows` only. Raises `InputError` for windows of another length than the
        parameter `window`.
        """
        if values.ndim != 3 or values.shape[1] != self.parameters.window:
            raise InputError(f"windows of shape {values.shape} are not of {self.parameters.window} steps: set window")
        features = range(values.shape[2])
        self.marginals = tuple(Marginal.fit(values[:, :, at].ravel(), heaviest=0.0) for at in features)
        scores = np.stack([self.marginals[at].normal(values[:, :, at], rng) for at in features], axis=2)
        # Ties are broken by chance, but not from step to step: what rests in the data rests for the network.
        for before, step in pairwise(range(values.shape[1])):
            rests = values[:, step] == values[:, before]
            scores[:, step][rests] = scores[:, before][rests]
        return self._learnt(Windows.cut(scores), np.ones(values.shape[2]), rng, progress)

    def sample_windows(self, n: int, *, rng: np.random.Generator) -> FloatArray:
        """Return n windows like those of `fit_windows`, in their units; window k is the same whatever n is."""

        def in_units(scores: FloatArray) -> FloatArray:
            return np.stack([marginal.value(scores[:, :, at]) for at, marginal in enumerate(self.marginals)], axis=2)

        return self._windows(n, rng, in_units)

    def _windows(
        self, n: int, rng: np.random.Generator, finish: Callable[[FloatArray], FloatArray] = lambda scores: scores
    ) -> FloatArray:
        """Return n windows of calibrated scores, finished; batches are made side by side, one a core, each by one
        thread."""
        streams = per_path(rng, n)

        def batch(first: int) -> FloatArray:
            some = {at: streams[first + at] for at in range(min(self.rows, n - first))}
            return finish(self.calibrated(next(iter(self.roll(some, (self.parameters.window,))))))

        with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.concatenate(list(pool.map(batch, range(0, n, self.rows))))

    def portrait(self, *, rng: np.random.Generator) -> Portrait:
        """Return windows that were fitted beside as many of its own; known after `fit` only, it is not saved."""
        real = self.seen[..., : len(self.calibration)]
        made = self._windows(len(real), rng)
        with one_thread(), torch.inference_mode():
            latent = [self.latent(each).double().numpy() for each in (real, torch.from_numpy(made).float())]
        return Portrait(real.double().numpy(), made, *latent)

    def latent(self, windows: Tensor) -> Tensor:
        """Return where windows of scores, shape (windows, steps, features), lie in the latent space: (windows, size).

        They are their own where a model has none.
        """
        return windows.flatten(1)

    def _learnt(self, data: Windows, directions: FloatArray, rng: np.random.Generator, progress: Progress) -> Self:
        held = None
        if self.parameters.preset == "release":
            data, held = data.parted(_HELD_OUT)
        with reproducible(rng):
            data = self.prepared(data)
            self.network = self.build(directions)
            recipe = replace(self.recipe(self.network), decay=self.parameters.decay, seconds=self.seconds)
        players = {player.name: player.network for phase in recipe.phases for player in phase.players}
        if self.watch is not None and self.watch.start_from is not None:
            self._start_from(self.watch.start_from, players)
        self.history = train(self._name, recipe, data, rng=rng, progress=progress, held=held, watch=self.watch)
        self.opponents = {
            f"{name}.{key}": tensor.numpy()
            for name, network in players.items()
            if network is not self.network
            for key, tensor in network.state_dict().items()
        }
        self.trained(data, rng)
        made = self.calibrating(data, rng)
        self.calibration = tuple(
            Marginal.fit(made[:, :, at].ravel(), odd=bool(self.mirrored and odd), heaviest=0.0)
            for at, odd in enumerate(directions < 0)
        )
        self.seen = data.spread(_SEEN)
        self.learnt(data, held)
        return self

    def trained(self, data: Windows, rng: np.random.Generator) -> None:
        """Mend what the trained network makes before it is calibrated; nothing, if not overridden."""

    def learnt(self, data: Windows, held: Windows | None) -> None:
        """Keep what sampling needs of the windows; nothing, if not overridden."""

    def _start_from(self, folder: Path, players: Mapping[str, nn.Module]) -> None:
        """Load the weights of an earlier fit; leave a note instead where its networks have other sizes."""
        weights, others = folder / "weights.npz", folder / "opponents.npz"
        if not weights.exists() or not others.exists():
            raise InputError(f"{folder} holds no weights to start from: name the folder of a saved {self._name}")
        with np.load(weights, allow_pickle=False) as own, np.load(others, allow_pickle=False) as theirs:
            kept = {"": self.network} | {n: each for n, each in players.items() if each is not self.network}
            found = {f".{key}": own[key] for key in own} | {key: theirs[key] for key in theirs}
        wanted = {f"{name}.{key}": each for name, network in kept.items() for key, each in network.state_dict().items()}
        if {key: tuple(each.shape) for key, each in wanted.items()} != {key: each.shape for key, each in found.items()}:
            self.notes.append("started cold: the networks of the checkpoint to start from have other sizes")
            return
        for name, network in kept.items():
            network.load_state_dict({key: torch.from_numpy(found[f"{name}.{key}"]) for key in network.state_dict()})

    def calibrating(self, data: Windows, rng: np.random.Generator) -> FloatArray:
        """Return scores of the network that its laws are calibrated on, shape (paths, steps, features): long paths."""
        del data
        steps = min(self.calibration_steps, self.max_steps or self.calibration_steps)
        batches = -(-_CALIBRATION_ROWS // (self.rows * steps))
        streams = per_path(rng, self.rows * batches)
        return np.concatenate(
            [
                next(iter(self.roll({at: streams[batch * self.rows + at] for at in range(self.rows)}, (steps,))))
                for batch in range(batches)
            ]
        )

    def calibrated(self, scores: FloatArray) -> FloatArray:
        """Return what the network made, shape (paths, steps, features), as standard normal scores."""
        return np.stack([each.normal(scores[:, :, at]) for at, each in enumerate(self.calibration)], axis=2)

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """Where samples start."""
        return (self.transform.anchor,)

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Roll the network out, calibrate, decode to market units."""
        self.check_request(n, steps, regime)
        streams = per_path(rng, n)
        values = np.empty((n, steps, len(self.transform.anchor.names)))
        for numbers in self._batches(0, n):
            start = 0
            for piece in self._pieces(streams, numbers, steps, regime):
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
        one_by_one = (range(number, number + 1) for number in range(first, n))
        return (
            (number, replace(piece, values=piece.values[at : at + 1], start_ns=piece.start_ns[at : at + 1]))
            for numbers in (self._batches(first, n) if steps <= PIECE else one_by_one)
            for piece in self._pieces(streams, numbers, steps, regime)
            for at, number in enumerate(numbers)
        )

    def _batches(self, first: int, n: int) -> Iterator[range]:
        """Yield the numbers of the paths that share a batch: the same ones wherever the first is."""
        rows = self.rows
        return (range(max(at, first), min(at + rows, n)) for at in range(first - first % rows, n, rows))

    def _pieces(self, streams: Paths, numbers: range, steps: int, regime: str | None) -> Iterator[Series]:
        """Yield pieces of the paths of these numbers, at most a batch of them, in market units."""
        own = {number % self.rows: streams[number] for number in numbers}
        counts = counts_of(steps)
        made = self.roll(own, counts) if regime is None else self.roll_regime(own, counts, regime)
        return self.transform.decoded(map(self.calibrated, made))

    def save(self, folder: Path) -> None:
        """Write transform, weights and calibration as npz, the rest as JSON."""
        self.transform.save(folder)
        self.keep(folder)
        state = {"parameters": asdict(self.parameters), "history": asdict(self.history), "notes": self.notes}
        (folder / "training.json").write_text(json.dumps(state, sort_keys=True) + "\n")
        weights = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}
        maps = {f"{at}.{key}": a for at, m in enumerate(self.calibration) for key, a in m.arrays().items()}
        for name, arrays in (("weights", weights), ("opponents", self.opponents), ("calibration", maps)):
            with (folder / f"{name}.npz").open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        state = json.loads((folder / "training.json").read_text())
        made = cls(cls.Parameters(**state["parameters"]))
        made.transform, made.history = SeriesTransform.load(folder), History(**state["history"])
        made.notes = state["notes"]
        made.recall(folder)
        with torch.random.fork_rng(devices=[]):  # the initial weights, drawn and then replaced, are nobody's business
            made.network = made.build(made.transform.directions).requires_grad_(False).eval()
        with np.load(folder / "weights.npz", allow_pickle=False) as weights:
            made.network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
        with np.load(folder / "opponents.npz", allow_pickle=False) as opponents:
            made.opponents = dict(opponents)
        with np.load(folder / "calibration.npz", allow_pickle=False) as maps:
            count = len(made.transform.marginals)
            parts = [{key: maps[f"{at}.{key}"] for key in ("knots", "levels", "tails")} for at in range(count)]
        made.calibration = tuple(map(Marginal.from_arrays, parts))
        return made

    def summary(self) -> dict[str, float]:
        """Return steps, final losses and size of the network."""
        size = sum(parameter.numel() for parameter in self.network.parameters())
        return self.history.summary() | {"weights": float(size)}
