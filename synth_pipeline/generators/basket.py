"""Baskets: a joint law of the log-returns of several assets, and everything around it that all of them share.

What belongs here: from a series of several assets to their returns and back to markets (`Basket`), and the checkpoint.
What does not: any law; the columns beside the prices (`joint_companions`).

A law draws the returns of all assets at once, each of them a martingale as in `price_process`, which also says what the
price grids and `drift` do. What is known of one asset alone may enter its own estimates; what they have to do with each
other is estimated from rows that both, or all, have. The last row that all have is where samples start.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from synth_pipeline.errors import InputError, TooLittleDataError, TrainingError
from synth_pipeline.features.transforms import Anchor, checked, known_columns
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator, price_process
from synth_pipeline.generators.companions import Companions
from synth_pipeline.generators.inference import Estimate, mean_error
from synth_pipeline.generators.joint_companions import JointCompanions
from synth_pipeline.generators.pieces import PIECE, counts_of
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns, ends_of
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.series import Asset, FloatArray, Series

_FEWEST_MOVES = 10


@dataclass(frozen=True, eq=False)
class Histories:
    """Log-returns of several assets."""

    names: tuple[str, ...]
    own: tuple[Returns, ...]
    """Of each asset by itself, over every stretch that it has."""
    moves: FloatArray
    """On their common grid, shape (steps, assets), NaN where an asset has none; a row of NaN between two paths."""
    common: tuple[Returns, ...]
    """Of each asset over the rows that all have, the same ones for all."""

    @classmethod
    def of(cls, prices: Series, most: int) -> Self:
        """Take the latest `most` off the prices of several assets."""
        parts, common = prices.parts(), only_whole_rows(prices).parts()
        steps = [Anchor.of(part).price_step for part in parts.values()]
        own, shared = (
            tuple(Returns.of(part, step).latest(most) for part, step in zip(each.values(), steps, strict=True))
            for each in (parts, common)
        )
        moves = [np.pad(part.log_returns(), ((0, 0), (0, 1)), constant_values=np.nan) for part in parts.values()]
        return cls(tuple(parts), own, np.stack([each.ravel() for each in moves], axis=1)[-most - 1 :], shared)

    def check_moves(self) -> None:
        """Raise `TooLittleDataError` for an asset that hardly moves while all trade."""
        for name, returns in zip(self.names, self.common, strict=True):
            moves = int(np.count_nonzero(returns.longest().values))
            if moves < _FEWEST_MOVES:
                raise TooLittleDataError(
                    f"{name} moves {moves} times in the longest stretch that all assets have and {_FEWEST_MOVES} are "
                    f"needed: leave it out or take a longer history"
                )

    def longest(self) -> list[Returns]:
        """Return the longest common stretch of each asset, on the scale of its latent price."""
        return [returns.longest().latent() for returns in self.common]


def only_whole_rows(series: Series) -> Series:
    """Return a series with NaN throughout where a row lacks anything."""
    is_whole = np.isfinite(series.values).all(axis=2, keepdims=True)
    return replace(series, values=np.where(is_whole, series.values, np.nan))


class Basket(Generator):
    """A joint law of log-returns. A subclass estimates it and draws from it; `law` is as a `PriceProcess` has it."""

    Parameters: ClassVar[type[Any]] = price_process.Parameters
    Law: ClassVar[type[Any]]
    twin: ClassVar[str]
    """The generator that does the same for one asset."""
    columns = PriceProcess.columns
    multi_asset = True

    law: Any
    estimates: Mapping[str, Estimate]
    """What was estimated, as `ASSET.name` or `ASSET.ASSET.name`; set by `estimate`."""
    diagnostics: Mapping[str, float]
    """Likelihood, criteria and derived quantities; set by `estimate`."""
    notes: list[str]

    @abstractmethod
    def estimate(self, histories: Histories, *, rng: np.random.Generator, report: Report) -> None:
        """Set `law`, `estimates` and `diagnostics`; append to `notes`. Raises `TrainingError` where that fails."""

    @abstractmethod
    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Yield so many log-returns of the martingale law for every count, shape (count, assets).

        They go on from those before: however a path is cut, it is the same.
        """

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate the law by the method in the module's docstring.

        Raises `InputError` for a series of one asset, naming the generator to take, `TooLittleDataError` for assets
        with too few rows in common, and what every generator raises for one of them.
        """
        self.__dict__ = {"parameters": self.parameters, "notes": []}  # no estimate or cache of a fit before
        if len(series.assets) < 2:
            raise InputError(f"{self._name} is fitted on several assets, not on one: take {self.twin}, or a basket")
        parts = {name: self._checked(name, part) for name, part in series.parts().items()}
        whole = self._shared(parts)
        prices = whole.select(tuple(f"{name}:{part.price_name}" for name, part in parts.items()))
        histories = Histories.of(prices, self.parameters.most_returns)
        histories.check_moves()
        self.companions = JointCompanions.of(only_whole_rows(whole).parts(), self.parameters.most_returns)
        growth = {name: np.expm1(own.values) for name, own in zip(histories.names, histories.own, strict=True)}
        self.growth = {
            name: Estimate(float(np.log1p(each.mean())), mean_error(each), "real") for name, each in growth.items()
        }
        self.estimate(histories, rng=rng, report=lambda share, what: progress(round(100 * share), 100, what))
        if not all(np.isfinite(value).all() for value in self.law if not isinstance(value, str)):
            raise TrainingError(f"{self._name}: the estimate is no number; look for a spike among the prices")
        progress(100, 100, "fitted")
        return self

    def _checked(self, name: str, part: Series) -> Series:
        """Make the checks of one asset that a generator of one makes."""
        try:
            known, notes = known_columns(part, self.columns)
            chosen = checked(known, self.columns, self.required, self.minimum_steps)
        except InputError as error:
            raise type(error)(f"{name}: {error}") from error
        self.notes += [f"{name}: {note}" for note in notes]
        return chosen

    def _shared(self, parts: Mapping[str, Series]) -> Series:
        """Return the assets side by side up to the last row that all have."""
        whole = Series.joined(parts)
        shared = segments(whole)
        longest = max((stop - start for _, start, stop in shared), default=0)
        if longest < self.minimum_steps:
            rows = {name: int(np.isfinite(part.values).all(axis=2).sum()) for name, part in parts.items()}
            told = ", ".join(f"{count:,} of {name}" for name, count in rows.items())
            raise TooLittleDataError(
                f"of {told} rows {sum(stop - start for _, start, stop in shared):,} are known of all, at most "
                f"{longest:,} without a gap, and {self.minimum_steps} are needed: leave out the asset that lacks most"
            )
        if len(shared) > 1:
            self.notes.append(f"rows that all assets have come in {len(shared)} stretches: no return spans a gap")
        last, _, stop = shared[-1]
        values = whole.values[: last + 1].copy()
        values[last, stop:] = np.nan
        return replace(whole, values=values, start_ns=whole.start_ns[: last + 1])

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """Where samples start, for each asset."""
        return self.companions.anchors

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Return paths that start at the last row that all assets had; the other columns go with the prices."""
        pieces = list(self.stream(n, steps, regime=regime, rng=rng))
        values = np.concatenate([piece.values for _, piece in pieces], axis=1)
        first = pieces[0][1]
        return replace(first, values=values.reshape(n, steps, -1), start_ns=np.repeat(first.start_ns, n))

    def stream(
        self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[int, Series]]:
        """Yield the same paths piece by piece; memory depends neither on `n` nor on `steps`."""
        self.check_request(n, steps, regime)
        streams = per_path(rng, n)
        return (
            (number, self._series(piece, start))
            for number in range(first, n)
            for start, piece in self._pieces(streams[number], steps)
        )

    def _pieces(self, own: np.random.Generator, steps: int) -> Iterator[tuple[int, FloatArray]]:
        """Yield (first step, values of shape (steps, columns)) of every piece of a path."""
        of_prices, of_others = own.spawn(2)
        # The first step is the last fitted row: no return leads there.
        counts = (count - (not at) for at, count in enumerate(counts_of(steps)))
        moves = self._moves(self.run(of_prices, counts))
        return zip(range(0, steps, PIECE), self.companions.joined(moves, of_others), strict=True)

    def _moves(self, returns: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Yield log prices over the last fitted ones, each piece from the last of the one before."""
        growth = np.array([each.value if self.parameters.drift else 0.0 for each in self.growth.values()])
        level = np.zeros((1, len(growth)))
        for piece in returns:
            moves = np.cumsum(np.concatenate((level, piece + growth)), axis=0)
            level = moves[-1:]
            yield moves

    def _series(self, values: FloatArray, start: int) -> Series:
        """Wrap a piece of one path, shape (steps, columns)."""
        anchors = dict(zip(self.growth, self.companions.anchors, strict=True))
        first = next(iter(anchors.values()))
        return Series(
            values=values[np.newaxis],
            names=tuple(f"{asset}:{name}" for asset, anchor in anchors.items() for name in anchor.names),
            step_ns=first.step_ns,
            start_ns=np.array([first.next_ns + start * first.step_ns]),
            tick_size=0.0,
            assets=tuple(Asset(name, anchor.tick_size, anchor.lot_size) for name, anchor in anchors.items()),
        )

    def save(self, folder: Path) -> None:
        """Write `NAME.json`, and `NAME.npz` with the arrays."""
        law = self.law._asdict()
        arrays = {f"law.{key}": value for key, value in law.items() if isinstance(value, np.ndarray)}
        arrays |= {f"companions.{i}": each.values for i, each in enumerate(self.companions.each)}
        state = {
            "parameters": asdict(self.parameters),
            "anchors": [asdict(anchor) for anchor in self.companions.anchors],
            "law": {key: value for key, value in law.items() if not isinstance(value, np.ndarray)},
            "growth": {name: asdict(each) for name, each in self.growth.items()},
            "estimates": {name: asdict(each) | ends_of(each) for name, each in self.estimates.items()},
            "diagnostics": dict(self.diagnostics),
            "notes": self.notes,
        }
        (folder / f"{self._name}.json").write_text(json.dumps(state, indent=1) + "\n")
        with (folder / f"{self._name}.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, returns=self.companions.returns, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        name = cls.__module__.rpartition(".")[2]
        state = json.loads((folder / f"{name}.json").read_text())
        made = cls.from_settings(state["parameters"])
        anchors = [Anchor.from_json(anchor) for anchor in state["anchors"]]
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            laws = {key.removeprefix("law."): arrays[key] for key in arrays.files if key.startswith("law.")}
            returns = arrays["returns"]
            companions = tuple(
                Companions(anchor, arrays[f"companions.{i}"], returns[:, i]) for i, anchor in enumerate(anchors)
            )
        made.companions = JointCompanions(companions, returns)
        made.law = cls.Law(**state["law"], **laws)
        made.growth = {key: Estimate(**value) for key, value in state["growth"].items()}
        made.estimates = {
            key: Estimate(each["value"], each["error"], each["link"]) for key, each in state["estimates"].items()
        }
        made.diagnostics, made.notes = state["diagnostics"], state["notes"]
        return made

    def summary(self) -> dict[str, float]:
        """Return estimates, their standard errors (`…_se`, where they exist), likelihood and diagnostics."""
        named = {**self.estimates} | {f"{name}.growth": each for name, each in self.growth.items()}
        values = {name: each.value for name, each in named.items()}
        errors = {f"{name}_se": each.error for name, each in named.items() if each.error is not None}
        return values | errors | dict(self.diagnostics)
