"""Chunk flow: one connected path of any length, a chunk at a time, with memory from half seconds to hours.

A path is made of chunks of scores (`features.transforms`). Of each score, location and scale given the past are those
of a cascade of averages at many scales (`cascade`), fitted by likelihood; what is left, the innovations y, become
standard normal by their own law, and a rectified flow (`rectified_flow`) draws a chunk of them at once, of all
features, given

- the averages of the cascade, and the locations and scales that they give;
- the last `window` - `chunk` steps;
- the regime, where one is asked for.

What it draws in the states of history is held against what was there, and mended (`residuals`) before it is fed back.
Back, step by step, z = m + s y moves the cascade on, so scale answers to every step and not only to every chunk, and
the next chunk begins where the last one ended. An untrained flow draws white noise: the model is then a multivariate
cousin of GARCH, and training adds what innovations of different steps and features tell of each other.

Nothing runs away. Scales are averages of past activities with weights that add up to one; scores are bounded; what the
flow knows of the cascade is kept within what training has seen, and noise on it in training (Chen et al. 2024, NeurIPS,
section 3, forces diffusion so) makes it forgive its own mistakes.

No drift, by symmetry: the flow is its own mirror image (bid for ask), and so is the cascade. Paths of mirrored noise
are mirrored paths, so the mean return is zero. Bull and bear, crash and rally are mirror images too: what is learnt of
one is known of the other. Half of the training windows are drawn evenly over regimes, weighted back where no regime is
told, so paths under no regime are those of history. Where one is told, past directions are hidden: a direction comes
from the regime, or a bull market that fell by chance would go on as a bear.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor, nn

from synth_pipeline.errors import InputError
from synth_pipeline.features.marginals import Marginal
from synth_pipeline.features.regimes import REGIMES, UNKNOWN, Regimes, label
from synth_pipeline.generators import neural
from synth_pipeline.generators.adversarial import normal, uniform
from synth_pipeline.generators.cascade import Atoms, Cascade
from synth_pipeline.generators.neural import NeuralGenerator, State, roll_out
from synth_pipeline.generators.recipe import Phase, Player, Recipe
from synth_pipeline.generators.rectified_flow import Pair, Velocity, carried, losses
from synth_pipeline.generators.residuals import Residuals
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.progress import Progress
from synth_pipeline.rng import one_thread
from synth_pipeline.series import FloatArray, IntArray, Series

BoolArray = NDArray[np.bool_]

_FEWEST_STEPS = 10
_TOLD = 0.3
"""Share of the windows of a batch whose regime is told."""
_POOL, _POOL_OF_REGIME = 512, 64
_BRIEF = 3
"""Scales of the cascade at which the flow sees directions: half-lives of 4 steps and less."""
_HIDDEN = 0.15
_BURN_IN = 128
_DRAWN = 8_192
"""Chunks of history that what the flow draws is held against."""
_LONGEST_CALIBRATION = 8_192
_CALL = 64
"""Steps that `roll_out` asks for at once."""
_SIDES = {"bull": (0, 1), "bear": (0, -1), "rally": (1, 1), "crash": (1, -1), "flash_crash": (2, -1)}
_AXES = 5


@dataclass(frozen=True)
class Parameters(neural.Parameters):
    """What a user may set."""

    steps: int = 6_000
    batch: int = 128
    decay: float = 0.998
    window: int = 20
    """Steps that training cuts: the last `chunk` are drawn, given those before."""
    chunk: int = 4
    """Steps that are drawn at once, a power of 2 up to 64."""
    width: int = 96
    """Pairs of hidden units a layer."""
    blocks: int = 2
    """Residual blocks of the velocity."""
    dropped: float = 0.1
    """Share of hidden units that training leaves out."""
    rate: float = 2e-3
    """Learning rate."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    context_noise: float = 0.3
    """Most noise on the context in training, in its own standard deviations."""
    solver_steps: int = 4
    """Steps of Heun's method from noise to a chunk."""
    guidance: float = 1.5
    """[w] Weight of a regime's velocity against that of none; 1 is without guidance."""


class Seen(NamedTuple):
    """The numbers of the cascade as the flow sees them: within what training held, on its scale."""

    centre: FloatArray
    spread: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, values: FloatArray, odd: BoolArray) -> Self:
        """Take bounds and scales of training rows, shape (rows, numbers), those of odd numbers about zero."""
        most = np.abs(values).max(axis=0)
        low, high = np.where(odd, -most, values.min(axis=0)), np.where(odd, most, values.max(axis=0))
        centre = np.where(odd, 0.0, values.mean(axis=0))
        return cls(centre, np.sqrt(((values - centre) ** 2).mean(axis=0)) + 1e-3, low, high)

    def __call__(self, values: FloatArray) -> FloatArray:
        """Return them clipped and scaled."""
        return (np.clip(values, self.low, self.high) - self.centre) / self.spread


@dataclass
class Memory:
    """What a batch of paths carries from chunk to chunk."""

    cascade: FloatArray
    recent: FloatArray
    words: FloatArray
    """The regimes that followed, as `_words` says them."""


class ChunkFlow(NeuralGenerator):
    """Rectified flow of innovations over a cascade of scales; connected paths of any length. See the module."""

    Parameters: ClassVar[type[Any]] = Parameters
    mirrored = True
    conditions = True
    rows = 64

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)
        chosen: Parameters = self.parameters
        if chosen.chunk not in (1, 2, 4, 8, 16, 32, 64):
            raise InputError(f"chunk_flow: chunk {chosen.chunk} is no power of 2 up to 64")
        if chosen.window <= chosen.chunk:
            raise InputError(f"chunk_flow: window {chosen.window} must be above chunk {chosen.chunk}")
        self.regime_names: tuple[str, ...] = ()

    # What is learnt from.

    def regimes_of(self, series: Series) -> Regimes:
        """Label a history by rules."""
        return label(series)

    def inputs(self, scores: Series, series: Series) -> Series:
        """Put behind the scores where a path opens, what regime a step is of, and how rare that is."""
        regimes = self.regimes_of(series)
        counts = regimes.counts()
        self.regime_names = tuple(name for name in REGIMES if counts.get(name, 0) >= _FEWEST_STEPS)
        self.notes.append(f"regimes of history: {regimes.told() or 'none, it is too short'}")
        table = np.zeros((len(regimes.names) + 1, 2 * _AXES))  # the last row is that of no label
        for name in self.regime_names:
            table[regimes.names.index(name)] = _words(name)
        kinds = np.where(regimes.labels == UNKNOWN, len(regimes.names), regimes.labels)
        sizes = np.bincount(kinds.ravel(), minlength=len(table))
        rarity = (kinds.size / np.count_nonzero(sizes) / np.maximum(sizes, 1))[kinds]
        opens = np.zeros(kinds.shape)
        opens[:, 0] = 1.0
        columns = np.concatenate((opens[..., None], table[kinds], rarity[..., None]), axis=2)
        names = (*scores.names, *(f"extra_{at}" for at in range(columns.shape[2])))
        return replace(scores, values=np.concatenate((scores.values, columns), axis=2), names=names)

    def _learnt(self, data: Windows, directions: FloatArray, rng: np.random.Generator, progress: Progress) -> Self:
        features, rows = len(directions), data.rows.numpy().astype(np.float64)
        if rows.shape[1] == features:  # windows that were cut elsewhere: each is a path, and nothing is known of it
            extra = np.zeros((len(rows), 2 + 2 * _AXES))
            extra[data.starts, 0] = extra[:, -1] = 1.0
            self.marginals_: Sequence[Marginal] = self.marginals
            price = None
        else:
            rows, extra = rows[:, :features], rows[:, features:]
            self.marginals_ = self.transform.marginals
            price = self.transform.anchor.names.index(self.transform.anchor.price_name)
        covered = np.zeros(len(rows) + 1, dtype=np.int64)
        np.add.at(covered, data.starts, 1)
        np.add.at(covered, data.starts + data.length, -1)
        known = np.cumsum(covered[:-1]) > 0
        # Paths long enough to leave where they were begun: half of history, from many of its places.
        self.calibration_steps = int(np.clip(known.sum() // 2, 256, _LONGEST_CALIBRATION))
        self.odd = directions < 0
        columns = self._columns(np.where(known[:, np.newaxis], rows, np.nan), known, extra, data, price, rng)
        made = replace(data, rows=torch.from_numpy(columns).to(torch.float32))
        super()._learnt(made, directions, rng, progress)
        self.seen = data.spread(len(self.seen))  # scores, as paths are shown, where the flow sees innovations
        return self

    def _columns(
        self,
        scores: FloatArray,
        known: BoolArray,
        extra: FloatArray,
        data: Windows,
        price: int | None,
        rng: np.random.Generator,
    ) -> FloatArray:
        """Fit the cascade; return innovations, drivers, what is seen of the cascade, and the rest, a row each."""
        atoms = Atoms.of(self.marginals_, self.odd.tolist())
        self.cascade, drivers, cascade = Cascade.fit(scores, extra[:, 0] > 0, self.odd, atoms, price)
        made, mean, scale = self.cascade.innovations(np.nan_to_num(scores), cascade, rng)
        self.laws = tuple(Marginal.fit(made[known, at], odd=bool(odd)) for at, odd in enumerate(self.odd))
        innovations = np.stack([law.normal(made[:, at]) for at, law in enumerate(self.laws)], axis=1)
        raw = self._raw(cascade, mean, scale)
        self.sight = Seen.of(raw[known], self.seen_odd)
        self.pool = self._pool(data, cascade, drivers, extra[:, 1:-1])
        return np.concatenate((innovations, drivers[:, : len(self.odd)], self.sight(raw), extra[:, 1:]), axis=1)

    def trained(self, data: Windows, rng: np.random.Generator) -> None:
        """Hold what the flow draws in states of history against what was there."""
        network, features = self.network, len(self.odd)
        assert isinstance(network, Velocity)
        lags, windows = self.parameters.window - self.parameters.chunk, data.spread(_DRAWN)
        seen = windows[:, lags, 2 * features : 2 * features + len(self.seen_odd)]
        recent = windows[:, :lags, features : 2 * features]
        noise = rng.standard_normal((len(windows), self.parameters.chunk, features), dtype=np.float32)
        with one_thread(), torch.inference_mode():
            context = self._context(network, seen, recent, torch.zeros(len(windows), 2 * _AXES), 1.0)
            made = carried(network, torch.from_numpy(noise), [(1.0, context)], self.parameters.solver_steps)
        known, states = windows[:, lags:, :features].double().numpy(), seen[:, ~self.seen_odd].double().numpy()
        self.residuals = Residuals.fit(known, made.double().numpy(), states, self.odd.tolist())

    def _pool(self, data: Windows, cascade: FloatArray, drivers: FloatArray, words: FloatArray) -> Memory:
        """Keep memories for paths to open with: those of windows evenly spread, and more of each regime."""
        lags = data.length - self.parameters.chunk
        said = words[data.starts + lags + self.parameters.chunk // 2]
        kept = [_spread(np.arange(len(said)), _POOL)]
        for name, turn in product(self.regime_names, (1, -1)):
            kept.append(_spread(np.flatnonzero((said == _words(name, turn)).all(axis=1)), _POOL_OF_REGIME))
        chosen = np.concatenate(kept)
        self.unbiased = len(kept[0])
        firsts = data.starts[chosen] + lags
        recent = drivers[firsts[:, np.newaxis] + np.arange(-lags, 0), : len(self.odd)]
        return Memory(cascade[firsts].astype(np.float64), recent.astype(np.float64), said[chosen])

    @property
    def seen_odd(self) -> BoolArray:
        """Which numbers of the cascade mirror."""
        features, scales = len(self.odd), len(self.cascade.decays)
        each = np.concatenate((self.odd, np.zeros(2 * features, dtype=bool)))
        return np.concatenate((np.tile(each, scales), self.odd, np.zeros(features, dtype=bool)))

    def _raw(self, cascade: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
        """Return the numbers that the flow sees of the cascade: averages, locations, logarithms of scales.

        No slow average of a direction: what a day tells of it is that day's, and would come back as a trend.
        """
        features = len(self.odd)
        averages = np.concatenate((cascade[..., :features], np.log(cascade[..., features:] + 0.01)), axis=2)
        averages[:, _BRIEF:, np.flatnonzero(self.odd)] = 0.0
        return np.concatenate((averages.reshape(len(averages), -1), mean, np.log(scale)), axis=1)

    def prepared(self, data: Windows) -> Windows:
        """Draw half of the windows evenly over the regimes in the middle of their chunks."""
        middle = torch.from_numpy(data.starts + data.length - self.parameters.chunk + self.parameters.chunk // 2)
        return replace(data, weights=0.5 + 0.5 * data.rows[middle, -1])

    # The network.

    def build(self, directions: FloatArray) -> nn.Module:
        """Make the velocity."""
        settings: Parameters = self.parameters
        lags = settings.window - settings.chunk
        odd = int(self.seen_odd.sum()) + lags * int((directions < 0).sum()) + _AXES
        even = int((~self.seen_odd).sum()) + lags * int((directions > 0).sum()) + _AXES
        return Velocity(
            directions.tolist(), settings.chunk, (even, odd), settings.width, settings.blocks, settings.dropped
        )

    def _context(self, network: Velocity, seen: Tensor, recent: Tensor, words: Tensor, shown: Tensor | float) -> Pair:
        """Part what is known before a chunk by what mirrors; past directions only where they are `shown`."""
        odd = torch.from_numpy(self.seen_odd)
        even_words, odd_words = words.chunk(2, dim=1)
        return Pair(
            torch.cat((seen[:, ~odd], recent[..., network.even].flatten(1), even_words), dim=1),
            torch.cat((seen[:, odd] * shown, recent[..., network.odd].flatten(1) * shown, odd_words), dim=1),
        )

    def recipe(self, network: nn.Module) -> Recipe:
        """Learn the velocity between noise and chunks."""
        settings: Parameters = self.parameters
        assert isinstance(network, Velocity)
        features, lags = len(self.odd), settings.window - settings.chunk
        ends = np.cumsum((features, features, len(self.seen_odd), 2 * _AXES)).tolist()

        def loss(windows: Tensor, noise: torch.Generator) -> Tensor:
            chunks, recent = windows[:, lags:, : ends[0]], windows[:, :lags, ends[0] : ends[1]]
            seen, words = windows[:, lags, ends[1] : ends[2]], windows[:, lags:, ends[2] : ends[3]].mean(dim=1)
            told = (uniform((len(windows), 1), noise, windows) < _TOLD).float()
            middle = windows[:, lags + settings.chunk // 2, -1:]
            shown = (1 - told) * (uniform((len(windows), 1), noise, windows) >= _HIDDEN)
            weight = torch.where(told > 0, torch.ones_like(middle), 1 / (0.5 + 0.5 * middle))[:, 0]
            if network.training:
                depth = settings.context_noise * uniform((len(windows), 1), noise, windows)
                seen = seen + depth * normal(seen.shape, noise, seen)
                recent = recent + depth.unsqueeze(2) * normal(recent.shape, noise, recent)
            time = torch.sigmoid(normal((len(windows), 1), noise, windows))
            found = losses(
                network,
                chunks,
                self._context(network, seen, recent, words * told, shown),
                normal(chunks.shape, noise, chunks),
                time,
            )
            return (weight * found).mean()

        player = Player("velocity", network, loss, settings.rate, betas=(0.9, 0.99), clip=settings.clip)
        return Recipe((Phase(settings.steps, (player,)),), settings.batch, network, held_out=loss)

    # Paths.

    def roll(self, streams: Mapping[int, np.random.Generator], counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw chunk after chunk under no regime."""
        return self._rolled(streams, counts, None)

    def roll_regime(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], regime: str
    ) -> Iterator[FloatArray]:
        """Draw chunk after chunk under one regime."""
        return self._rolled(streams, counts, regime)

    def check_request(self, n: int, steps: int, regime: str | None) -> None:
        """Raise `InputError` as every generator does, and for a regime that the fitted history has not."""
        super().check_request(n, steps, regime)
        if regime is not None and regime not in self.regime_names:
            known = ", ".join(self.regime_names) or "none: its history is too short"
            raise InputError(f"history has no regime {regime!r} in {_FEWEST_STEPS} steps or more: it has {known}")

    def _rolled(
        self, streams: Mapping[int, np.random.Generator], counts: Iterable[int], regime: str | None
    ) -> Iterator[FloatArray]:
        size = self.parameters.chunk

        def advance(noise: Tensor, state: State) -> tuple[Tensor, State]:
            memory: Memory = self._opening(noise[:, 0].numpy(), regime) if state is None else state
            made = [self._chunk(noise[:, at : at + size], memory, regime) for at in range(0, noise.shape[1], size)]
            return torch.from_numpy(np.concatenate(made, axis=1)), memory

        return roll_out(advance, streams, counts, width=len(self.odd), burn_in=_BURN_IN, rows=self.rows)

    def _opening(self, noise: FloatArray, regime: str | None) -> Memory:
        """Take memories of history at random, or of the steps of a regime, mirrored ones among them."""
        drawn = noise[:, int(np.argmax(self.odd))]
        each = np.arange(self.unbiased)
        numbers, turns = np.concatenate((each, each[::-1])), np.repeat([-1, 1], len(each))
        if regime is not None:
            own = [np.flatnonzero((self.pool.words == _words(regime, turn)).all(axis=1)) for turn in (-1, 1)]
            if any(map(len, own)):
                numbers, turns = np.concatenate(own), np.repeat([-1, 1], [len(part) for part in own])
        place = np.minimum((ndtr(drawn.astype(np.float64)) * len(numbers)).astype(np.int64), len(numbers) - 1)
        turned = np.where((turns[place] < 0)[:, np.newaxis, np.newaxis] & self.odd, -1.0, 1.0)
        cascade = self.pool.cascade[numbers[place]].copy()
        cascade[:, :, : len(self.odd)] *= turned
        return Memory(cascade, self.pool.recent[numbers[place]] * turned, self.pool.words[numbers[place]])

    def _chunk(self, noise: Tensor, memory: Memory, regime: str | None) -> FloatArray:
        """Draw one chunk of each path and move the memory on; shape (paths, chunk, features)."""
        network, settings = self.network, self.parameters
        assert isinstance(network, Velocity)
        seen = torch.from_numpy(self.sight(self._raw(memory.cascade, *self.cascade.law(memory.cascade)))).float()
        recent = torch.from_numpy(memory.recent).float()

        def context(name: str | None) -> Pair:
            words = torch.from_numpy(_words(name)).float().expand(len(noise), -1)
            return self._context(network, seen, recent, words, float(regime is None))

        contexts = [(1.0, context(None))]
        if regime is not None:
            contexts = [(1 - settings.guidance, context(None)), (settings.guidance, context(regime))]
        made = carried(network, noise, contexts, settings.solver_steps).numpy().astype(np.float64)
        normals = self.residuals(made, seen[:, ~self.seen_odd].double().numpy())
        innovations = np.stack([law.value(normals[..., at]) for at, law in enumerate(self.laws)], axis=2)
        scores, drivers = self.cascade.draw(innovations, memory.cascade)
        recent_ = np.concatenate((memory.recent, drivers[..., : len(self.odd)]), axis=1)
        memory.recent = recent_[:, recent_.shape[1] - memory.recent.shape[1] :]
        return scores

    # On disk.

    def keep(self, folder: Path) -> None:
        """Write the cascade, what is seen of it, memories to start from and the regimes."""
        cascade = self.cascade
        arrays = {
            "odd": cascade.odd,
            "decays": cascade.decays,
            "slopes": cascade.slopes,
            "weights": cascade.weights,
            "level": cascade.level,
            **{f"atoms_{name}": array for name, array in vars(cascade.atoms).items()},
            **{f"seen_{name}": array for name, array in self.sight._asdict().items()},
            **{f"pool_{name}": array for name, array in vars(self.pool).items()},
            "unbiased": np.array(self.unbiased),
            "slopes_of_residuals": self.residuals.slopes,
            **{
                f"{name}_{at}_{key}": array
                for name, laws in (("law", self.laws), ("residual", self.residuals.laws))
                for at, law in enumerate(laws)
                for key, array in law.arrays().items()
            },
        }
        with (folder / "cascade.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        (folder / "regimes.json").write_text(json.dumps({"names": self.regime_names}) + "\n")

    def recall(self, folder: Path) -> None:
        """Read them back."""
        self.regime_names = tuple(json.loads((folder / "regimes.json").read_text())["names"])
        with np.load(folder / "cascade.npz", allow_pickle=False) as kept:
            atoms = Atoms(*(kept[f"atoms_{name}"] for name in ("low", "high", "drivers")))
            own = [kept[name] for name in ("odd", "decays", "slopes", "weights", "level")]
            self.odd = own[0]
            self.cascade = Cascade(own[0], own[1], atoms, *own[2:])
            self.sight = Seen(*(kept[f"seen_{name}"] for name in Seen._fields))
            self.pool = Memory(kept["pool_cascade"], kept["pool_recent"], kept["pool_words"])
            self.unbiased = int(kept["unbiased"])
            self.laws, residuals = (
                tuple(
                    Marginal.from_arrays({key: kept[f"{name}_{at}_{key}"] for key in ("knots", "levels", "tails")})
                    for at in range(len(own[0]))
                )
                for name in ("law", "residual")
            )
            self.residuals = Residuals(kept["slopes_of_residuals"], residuals)


def _spread(numbers: IntArray, most: int) -> IntArray:
    """Return at most so many of some numbers, evenly spread."""
    return numbers[np.unique(np.linspace(0, max(len(numbers) - 1, 0), min(most, len(numbers))).astype(np.int64))]


def _words(regime: str | None, turn: int = 1) -> FloatArray:
    """Say a regime in numbers: which axis it is on, and then which side of it; all 0 for none. -1 is its mirror."""
    said = np.zeros(2 * _AXES)
    if regime is not None:
        axis, side = _SIDES.get(regime, (3 if regime == "high_volatility" else 4, 0))
        said[axis], said[_AXES + axis] = 1.0, turn * side
    return said
