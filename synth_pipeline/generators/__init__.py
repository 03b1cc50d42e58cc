"""Generators: ONE FILE = ONE GENERATOR, fitted on series, sampling new ones.

A file defines one subclass of `Generator` and a frozen dataclass of its parameters; its docstring holds the maths and
the citation. Nothing else is edited: discovery is by file name, and `tests/test_generators.py` holds it to every law
below.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from synth_pipeline import plugins
from synth_pipeline.errors import InputError
from synth_pipeline.generators.pieces import PIECE
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import later, per_path
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import Series

if TYPE_CHECKING:
    from synth_pipeline.features.regimes import Regimes
    from synth_pipeline.features.transforms import Anchor

MACHINERY = frozenset(
    {
        "adversarial",
        "basket",
        "block_length",
        "blocks",
        "cascade",
        "companions",
        "conditional_variance",
        "diurnal",
        "edm",
        "fixed_windows",
        "garch_margins",
        "hawkes",
        "hidden_markov",
        "inference",
        "joint_companions",
        "joint_rows",
        "jump_filter",
        "neural",
        "pieces",
        "price_process",
        "recipe",
        "rectified_flow",
        "residuals",
        "regime_conditions",
        "training",
        "training_state",
        "training_together",
        "training_windows",
        "window_gan",
    }
)
"""Files here that are shared machinery, not generators."""
CONDITIONING = ("block_bootstrap", "chunk_flow", "conditional_gan", "rcgan", "regime_switching", "window_flow")
"""Generators that sample under a regime, as an error names them."""
OF_BOOKS = ("book_dcgan",)
"""Generators with columns that are read off the book itself (`features.book_image`), not off the features."""
_LAST_NS = 2**63 - 1


class Generator(ABC):
    """Something fitted on series that samples new ones.

    Laws, held by the contract tests: `fit` does not touch its input; the same seed samples the same bytes and another
    seed others; path k does not depend on how many paths are asked for; save → load → sample changes nothing; every
    sample is finite, its price positive and on the (half-)tick grid, its volume non-negative, by construction.
    """

    Parameters: ClassVar[type[Any]]
    """Frozen dataclass of what a user may set; every field has a default."""
    columns: ClassVar[tuple[str, ...]]
    """Features it is fitted on and samples, best first choice; `fit` takes those of them that the series has."""
    required: ClassVar[tuple[str, ...]] = ()
    """Features without which it cannot be fitted. The price column (`mid` or `close`) is always required."""
    conditions: ClassVar[bool] = False
    """Whether `sample` honours a regime."""
    multi_asset: ClassVar[bool] = False
    """Whether `fit` takes a series of several assets."""
    is_network: ClassVar[bool] = False
    """Whether `fit` trains step by step (`neural`): it can go on after a kill and start from an earlier fit."""
    max_steps: int | None = None
    """Longest connected path; None means unlimited."""
    minimum_steps: ClassVar[int] = 100
    """Fewest steps without a gap that `fit` accepts."""
    notes: Sequence[str] = ()
    """What the fit fell back on and why, one line each; they go into the checkpoint's manifest."""

    def __init__(self, parameters: Any = None) -> None:
        self.parameters = self.Parameters() if parameters is None else parameters

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Make one from plain values.

        Raises `InputError` for a name that `Parameters` lacks, a value of another type, a number that is not positive.
        """
        parameters = plugins.parameters_of(cls, settings)
        for field in fields(parameters):
            value = getattr(parameters, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
                raise InputError(f"parameter {field.name}={value!r} does not fit: it must be positive and finite")
        return cls(parameters)

    @abstractmethod
    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate from a series (rows of NaN are gaps) and return self.

        Raises `TooLittleDataError` below `minimum_steps`, `InputError` for prices that are not positive or constant,
        `TrainingError` when the estimation itself fails.
        """

    @abstractmethod
    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Return `n` independent connected paths of `steps` steps, in market units, on the tick grid.

        Every path starts at the last fitted price and at the step after the last fitted label.
        Raises `InputError` for a regime when the generator does not condition, or for more than `max_steps`.
        """

    def regimes_of(self, series: Series) -> Regimes:
        """Label the steps of a history with the regimes that `sample` takes; asked only of one that `conditions`."""
        raise NotImplementedError

    def stream(
        self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[int, Series]]:
        """Yield (number of the path, piece) for paths `first` … n - 1, one after the other.

        A piece is the next `PIECE` steps of one path, or what is left of it; joined, they are what `sample(n, …)` gives
        from the same state of `rng`. Memory does not depend on n. This one holds one path at a time; a generator that
        can go on from where a piece ended needs no more than a piece.
        Raises `InputError` where `sample` does.
        """
        self.check_request(n, steps, regime)
        source = later(rng, 0)
        per_path(rng, n)  # moves `rng` on as `sample` does
        return (
            (number, path.slice(start, min(start + PIECE, steps)))
            for number in range(first, n)
            for path in (self.sample(1, steps, regime=regime, rng=later(source, number)),)
            for start in range(0, steps, PIECE)
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted state into an existing folder: weights and JSON, no pickled code."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Return what a person wants to see of the fit: estimates, standard errors, likelihood, final losses."""

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def anchors(self) -> Sequence[Anchor]:
        """Where samples start, one for each asset; known once it is fitted."""
        return ()

    def check_assets(self, series: Series) -> None:
        """Raise `InputError` for a series of several assets where this generator takes one."""
        assets = getattr(series, "assets", ())
        if assets and not self.multi_asset:
            names = ", ".join(asset.name for asset in assets)
            raise InputError(f"{self._name} takes one asset, not {len(assets)} ({names}): choose one of them")

    def check_request(self, n: int, steps: int, regime: str | None) -> None:
        """Raise `InputError` when the request is one that this generator cannot honour."""
        if n < 1 or steps < 1:
            raise InputError(f"{n} paths of {steps} steps are nothing to sample: ask for at least one of each")
        if regime is not None and not self.conditions:
            raise InputError(
                f"{self._name} does not condition on regimes: leave out regime {regime!r}, "
                f"or take {', '.join(CONDITIONING[:-1])} or {CONDITIONING[-1]}"
            )
        if self.max_steps is not None and steps > self.max_steps:
            raise InputError(
                f"{self._name} samples at most {self.max_steps} connected steps, not {steps}: it makes one window "
                f"(parameter window); take a generator without one for longer paths"
            )
        for anchor in self.anchors:
            if steps > (most := (_LAST_NS - anchor.next_ns) // anchor.step_ns):
                raise InputError(
                    f"{steps} steps of {anchor.step_ns / NS_PER_SECOND:g} s end after 2262, the last year of times in "
                    f"ns: ask for {most} at most"
                )


CONTRACT = Generator
__all__ = ["CONTRACT", "MACHINERY", "PIECE", "Generator"]
