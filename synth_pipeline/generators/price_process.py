"""Price processes: a law of log-returns, and everything around it that all of them share.

What belongs here: from a series to returns and back to a market (`PriceProcess`), and the checkpoint. What does not:
any law; the columns beside the price (`companions`); likelihoods and tests (`inference`).

A process estimates the parameters of its law from the returns of every stretch without a gap, and draws returns from
it. The sampled log price is their sum; what is shown is the nearest price on the grid, so rounding never accumulates.
Every law is written as a martingale: exp(log price) has a constant mean. What history grew by is estimated beside it,
with its standard error, and is added only if `drift` asks for it: over a day of half seconds it is noise, which a path
would carry on as a trend.

A price on a grid moves more than the price it rounds. Where the root mean square s of returns is not far above the grid
step h, the variance of the rounded price is that of the latent one after the moment equation of `unrounded`; laws are
fitted to returns scaled down by it, and rounding the sample puts the variance back.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from synth_pipeline.errors import TrainingError
from synth_pipeline.features.transforms import Anchor, checked, known_columns
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator
from synth_pipeline.generators.companions import Companions
from synth_pipeline.generators.inference import Estimate, mean_error
from synth_pipeline.generators.pieces import counts_of
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.series import FloatArray, IntArray, Series

Report = Callable[[float, str], None]
"""Called with the share of a fit that is done, and what it does now."""

_HARMONICS = np.arange(1, 4_001)


def unrounded(scale: float, step: float) -> float:
    """Return the standard deviation of a latent normal move whose rounding to a grid of `step` has the scale `scale`.

    With U uniform within a cell, E (⌊U + σZ⌉ - ⌊U⌉)² = σ² + 1/6 - Σ_k exp(-2 π² k² σ²) / (π² k²) for a step of 1: the
    Fourier series of x² + {x}(1 - {x}). Far above the grid this is Sheppard's correction.
    """
    if step <= 0 or scale <= 0:
        return scale
    target = (scale / step) ** 2

    def excess(log_sigma: float) -> float:
        squares = (np.pi * _HARMONICS) ** 2
        variance = math.exp(2 * log_sigma)
        return variance + 1 / 6 - float(np.sum(np.exp(-2 * squares * variance) / squares)) - target

    low, high = math.log(1e-3), math.log(scale / step + 1.0)
    return step * math.exp(float(optimize.brentq(excess, low, high))) if excess(low) < 0 else step * 1e-3


@dataclass(frozen=True)
class Returns:
    """Log-returns of every stretch without a gap, one after the other."""

    values: FloatArray
    opens: NDArray[np.bool_]
    """The first return of each stretch."""
    labels_ns: IntArray
    """The label at which each return was known."""
    resolution: float
    """Step of the price grid over the median price; 0 without a grid."""
    step_ns: int

    @classmethod
    def of(cls, series: Series, price_step: float) -> Self:
        """Take them off the price of a series."""
        prices, labels = [], []
        for path, start, stop in segments(series):
            if stop - start > 1:
                prices.append(series.column(series.price_name)[path, start:stop])
                labels.append(series.start_ns[path] + np.arange(start + 1, stop) * series.step_ns)
        returns = [np.diff(np.log(piece)) for piece in prices]
        opens = np.zeros(sum(map(len, returns)), dtype=np.bool_)
        opens[np.cumsum([0, *map(len, returns[:-1])])] = True
        step = _grid_of(prices, price_step) / float(np.median(np.concatenate(prices)))
        return cls(np.concatenate(returns), opens, np.concatenate(labels), step, series.step_ns)

    @property
    def scale(self) -> float:
        """Root mean square of the returns."""
        return float(np.sqrt(np.mean(self.values**2)))

    @property
    def stretch(self) -> NDArray[np.int64]:
        """The number of the stretch that each return is of."""
        return np.cumsum(self.opens)

    @property
    def resting(self) -> float:
        """Share of returns that are 0."""
        return float(np.mean(self.values == 0))

    def __len__(self) -> int:
        return len(self.values)

    def latest(self, count: int) -> Self:
        """Return the last `count` of them."""
        opens = self.opens[-count:].copy()
        opens[0] = True
        return replace(self, values=self.values[-count:], opens=opens, labels_ns=self.labels_ns[-count:])

    def latent(self) -> Self:
        """Return them scaled down to the latent price (see the module)."""
        return replace(self, values=self.values * (unrounded(self.scale, self.resolution) / self.scale))

    def longest(self) -> Self:
        """Return the longest stretch alone, for laws whose library knows no gaps."""
        first = int(np.argmax(np.bincount(self.stretch)))
        inside = self.stretch == first
        return replace(self, values=self.values[inside], opens=self.opens[inside], labels_ns=self.labels_ns[inside])

    def pieces(self) -> list[FloatArray]:
        """Return each stretch."""
        return np.split(self.values, np.flatnonzero(self.opens)[1:])


def _grid_of(prices: list[FloatArray], price_step: float) -> float:
    """Return the step that prices move by: a whole tick where nearly all mids move by whole ticks, as spreads rest."""
    if not price_step:
        return 0.0
    moves = np.concatenate([np.rint(np.diff(piece) / price_step) for piece in prices])
    moves = moves[moves != 0]
    return 2 * price_step if len(moves) and np.mean(moves % 2 == 0) > 0.9 else price_step


@dataclass(frozen=True)
class Parameters:
    """What a user may set of every price process."""

    most_returns: int = 100_000
    """A fit sees at most this many, the latest."""
    drift: bool = False
    """Let samples grow as history did, instead of making them martingales."""


class PriceProcess(Generator):
    """A law of log-returns. A subclass estimates it and draws from it; `law` is a named tuple of floats and arrays."""

    Parameters: ClassVar[type[Any]] = Parameters
    Law: ClassVar[type[Any]]
    columns = ("mid", "spread", "open", "high", "low", "close", "volume", "imbalance_1")

    law: Any
    estimates: Mapping[str, Estimate]
    """What was estimated, with standard errors and 95 % intervals; set by `estimate`."""
    diagnostics: Mapping[str, float]
    """Likelihood, criteria, residual tests and derived quantities; set by `estimate`."""
    notes: list[str]

    @abstractmethod
    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Set `law`, `estimates` and `diagnostics`; append to `notes`. Raises `TrainingError` where that fails."""

    @property
    def martingale(self) -> bool:
        """Whether exp(log price) has a constant mean by construction."""
        return True

    @abstractmethod
    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Yield so many log-returns of the martingale law for every count, which go on from those before.

        However a path is cut, it is the same; what is carried from one piece to the next has a fixed size.
        """

    def run_regime(self, rng: np.random.Generator, counts: Iterable[int], regime: str) -> Iterator[FloatArray]:
        """Yield them under one regime; asked only of a process that `conditions`."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, steps: int) -> FloatArray:
        """Return `steps` of them, the same first ones however many are asked for."""
        return next(self.run(rng, (steps,)))

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate the law by the method in the module's docstring."""
        self.__dict__ = {"parameters": self.parameters}  # nothing that is cached of a fit before
        self.check_assets(series)
        known, self.notes = known_columns(series, self.columns)
        chosen = checked(known, self.columns, self.required, self.minimum_steps)
        self.anchor = Anchor.of(chosen)
        self.companions = Companions.of(chosen, self.parameters.most_returns)
        # A row that only lacks another column has a return all the same.
        returns = Returns.of(chosen.select((chosen.price_name,)), self.anchor.price_step).latest(
            self.parameters.most_returns
        )
        if int(returns.opens.sum()) > 1:
            self.notes.append(f"history has {int(returns.opens.sum()) - 1} gaps: no return spans one")
        growth = np.expm1(returns.values)
        self.growth = Estimate(float(np.log1p(growth.mean())), mean_error(growth), "real")
        self.estimate(returns, rng=rng, report=lambda share, what: progress(round(100 * share), 100, what))
        if not all(np.isfinite(value).all() for value in self.law if not isinstance(value, str)):
            raise TrainingError(f"{self._name}: the estimate is no number; look for a spike among the prices")
        progress(100, 100, "fitted")
        return self

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """Where samples start."""
        return (self.anchor,)

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Return paths that start at the last fitted row; the other columns go with the price."""
        self.check_request(n, steps, regime)
        values = np.empty((n, steps, len(self.anchor.names)))
        for path, own in enumerate(per_path(rng, n)):
            for start, piece in self._pieces(own, steps, regime):
                values[path, start : start + len(piece)] = piece
        return self.anchor.series(values)

    def stream(
        self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[int, Series]]:
        """Yield the same paths piece by piece; memory depends neither on `n` nor on `steps`."""
        self.check_request(n, steps, regime)
        streams = per_path(rng, n)
        return (
            (number, self.anchor.series(piece[np.newaxis], start))
            for number in range(first, n)
            for start, piece in self._pieces(streams[number], steps, regime)
        )

    def _pieces(self, own: np.random.Generator, steps: int, regime: str | None) -> Iterator[tuple[int, FloatArray]]:
        """Yield (first step, values of shape (steps, columns)) of every piece of a path."""
        of_price, of_others = own.spawn(2)
        # The first step is the last fitted row: no return leads there.
        counts = (count - (not at) for at, count in enumerate(counts_of(steps)))
        returns = self.run(of_price, counts) if regime is None else self.run_regime(of_price, counts, regime)
        start = 0
        for piece in self.companions.joined(self._moves(returns), of_others):
            yield start, piece
            start += len(piece)

    def _moves(self, returns: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Yield log prices over the last fitted one, each piece from the last of the one before."""
        growth, level = self.growth.value if self.parameters.drift else 0.0, 0.0
        for piece in returns:
            moves = np.cumsum(np.concatenate(([level], piece + growth)))
            level = float(moves[-1])
            yield moves

    def save(self, folder: Path) -> None:
        """Write `NAME.json`, and `NAME.npz` with the arrays."""
        law = self.law._asdict()
        arrays = {f"law.{key}": value for key, value in law.items() if isinstance(value, np.ndarray)}
        arrays |= {"companions": self.companions.values, "returns": self.companions.returns}
        state = {
            "parameters": asdict(self.parameters),
            "anchor": asdict(self.anchor),
            "law": {key: value for key, value in law.items() if not isinstance(value, np.ndarray)},
            "estimates": {name: asdict(each) | ends_of(each) for name, each in self.estimates.items()},
            "growth": asdict(self.growth),
            "diagnostics": dict(self.diagnostics),
            "notes": self.notes,
        }
        (folder / f"{self._name}.json").write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
        with (folder / f"{self._name}.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        name = cls.__module__.rpartition(".")[2]
        state = json.loads((folder / f"{name}.json").read_text())
        made = cls.from_settings(state["parameters"])
        made.anchor = Anchor.from_json(state["anchor"])
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            laws = {key.removeprefix("law."): arrays[key] for key in arrays.files if key.startswith("law.")}
            made.companions = Companions(made.anchor, arrays["companions"], arrays["returns"])
        made.law = cls.Law(**state["law"], **laws)
        made.estimates = {
            key: Estimate(each["value"], each["error"], each["link"]) for key, each in state["estimates"].items()
        }
        made.growth, made.diagnostics, made.notes = Estimate(**state["growth"]), state["diagnostics"], state["notes"]
        return made

    def summary(self) -> dict[str, float]:
        """Return estimates, their standard errors (`…_se`, where they exist), likelihood and diagnostics."""
        named = {**self.estimates, "growth": self.growth}
        values = {name: each.value for name, each in named.items()}
        errors = {f"{name}_se": each.error for name, each in named.items() if each.error is not None}
        return values | errors | dict(self.diagnostics)


def ends_of(estimate: Estimate) -> dict[str, float | None]:
    """Return the ends of an interval as a checkpoint has them; None where they are infinite."""
    low, high = estimate.interval
    return {"low": low, "high": high} if math.isfinite(low) and math.isfinite(high) else {"low": None, "high": None}
