"""Block bootstrap: stretches of history itself, cut into blocks of joint rows and put together anew.

Nothing is assumed about the law of returns. A sampled path is made of rows that history had (`joint_rows`: the
log-return of the price and, in the same row, the shape of the bar and the volume, or spread, volume and imbalance), in
runs as they followed each other there. Within a block all dependence survives; what survives from block to block is a
matter of the `scheme` (`blocks`):

    hybrid       every kind of block as often as in history, joined where recent volatility is alike; the default
    stationary   Politis and Romano 1994: geometric lengths, each block drawn independently
    circular     Politis and Romano 1992: one length, each block drawn independently
    moving       Künsch 1989: the same without wrapping round the ends

Block lengths are what the dependence of r, |r| and r² asks for (`block_length`), not what the amount of data does: the
longest of the three for blocks drawn independently, their mean for the hybrid, whose joins pass volatility on; at most
a third of the longest stretch. `block_length` overrides the rule.

Of several assets the same rows are taken for all, so what they have to do with each other, at once or with a lead,
survives as it was. `sample(regime=…)` takes only rows of that regime of history (`features.regimes` by rules, or a
hidden Markov chain of volatilities with `regimes=hmm`), in blocks that neither begin nor end outside it.

A path grows as history did. Over as many steps as history has, the hybrid's end prices spread less than independent
returns would (see docs/bootstrap.md): for the risk of a long horizon take `scheme=stationary`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import InputError
from synth_pipeline.features import regimes
from synth_pipeline.features.regimes import Regimes
from synth_pipeline.features.transforms import Anchor, checked, known_columns
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator, hidden_markov
from synth_pipeline.generators.block_length import BlockLengths
from synth_pipeline.generators.blocks import Blocks, Scheme
from synth_pipeline.generators.joint_rows import JointRows
from synth_pipeline.generators.pieces import PIECE, counts_of
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.series import Asset, FloatArray, IntArray, Series

_FEWEST_BLOCKS = 3
_NAME = "block_bootstrap"
_ROWS = ("opening", "moves", "others")


@dataclass(frozen=True)
class Parameters:
    """What a user may set."""

    scheme: Scheme = "hybrid"
    """How blocks are cut, drawn and joined."""
    block_length: float | None = None
    """Mean steps of a block; what the dependence of history asks for without it."""
    regimes: Literal["rules", "hmm"] = "rules"
    """What labels history for `sample(regime=…)`."""


class BlockBootstrap(Generator):
    """Joint rows of history in blocks. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    columns = ("mid", "spread", "open", "high", "low", "close", "volume", "imbalance_1")
    conditions = True
    multi_asset = True

    assets: tuple[JointRows, ...]
    """Rows of each asset; one of no name where there is one market."""
    asset_names: tuple[str, ...]
    opens: IntArray
    """First row of each stretch."""
    labels: NDArray[np.int8]
    """Regime of each row, as a number in `regime_names`."""
    regime_names: tuple[str, ...]
    lengths: BlockLengths
    notes: list[str]

    def fit(self, series: Series, *, rng: np.random.Generator, progress: Progress = silent) -> Self:  # noqa: ARG002
        """Take the rows of every stretch without a gap, estimate block lengths, label regimes."""
        self.__dict__ = {"parameters": self.parameters, "notes": []}  # no cache of a fit before
        parts = self._checked(series)
        whole = Series.joined(parts) if series.assets else parts[""]
        spans = [(path, start, stop) for path, start, stop in segments(whole) if stop - start > 1]
        self.asset_names = tuple(parts)
        self.assets = tuple(JointRows.of(part, spans) for part in parts.values())
        self.opens = np.cumsum([0, *(stop - start - 1 for _, start, stop in spans[:-1])])
        if len(spans) > 1:
            self.notes.append(f"history has {len(spans) - 1} gaps: no block spans one")
        progress(30, 100, "block lengths")
        self.lengths = BlockLengths.of(np.mean([each.moves for each in self.assets], axis=0))
        progress(70, 100, "regimes")
        labelled = self.regimes_of(whole)
        self.regime_names = labelled.names
        self.labels = np.concatenate([labelled.labels[path, start + 1 : stop] for path, start, stop in spans])
        self.notes += [f"regimes of history: {self.regimes.told() or 'none, it is too short'}"]
        if self.parameters.block_length is not None and self.parameters.block_length > self._most:
            self.notes.append(f"block_length {self.parameters.block_length:g} is cut to {self._most:g}")
        progress(100, 100, "fitted")
        return self

    def _checked(self, series: Series) -> dict[str, Series]:
        """Return each asset's columns after the checks that every generator makes; rows that one lacks are gaps."""
        parts = {}
        for name, part in (series.parts() if series.assets else {"": series}).items():
            known, notes = known_columns(part, self.columns)
            self.notes += [f"{name}: {note}" if name else note for note in notes]
            parts[name] = known.select(tuple(each for each in known.names if each in self.columns) or known.names)
        lacking = ~np.all([np.isfinite(part.values).all(axis=2) for part in _same_span(parts).values()], axis=0)
        made = {}
        for name, part in _same_span(parts).items():
            rows = replace(part, values=np.where(lacking[..., np.newaxis], np.nan, part.values))
            try:
                made[name] = checked(rows, self.columns, self.required, self.minimum_steps)
            except InputError as error:
                raise (type(error)(f"{name}: {error}") if name else error) from error
        return made

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """Where samples start, for each asset."""
        return tuple(each.anchor for each in self.assets)

    def regimes_of(self, series: Series) -> Regimes:
        """Label a history by rules or by a hidden Markov chain, as `regimes` says."""
        return regimes.label(series) if self.parameters.regimes == "rules" else hidden_markov.label(series)

    @property
    def regimes(self) -> Regimes:
        """The regime of every row, one path of them."""
        return Regimes(self.regime_names, self.labels[np.newaxis])

    @property
    def length(self) -> float:
        """Mean steps of a block."""
        scheme: Scheme = self.parameters.scheme
        asked: float | None = self.parameters.block_length
        if asked is None:
            asked = (
                self.lengths.middle if scheme == "hybrid" else self.lengths.longest(geometric=scheme == "stationary")
            )
        return min(max(asked, 1.0), self._most)

    @property
    def _most(self) -> float:
        return max(float((self._stops - self.opens).max()) / 3, 1.0)

    @property
    def _stops(self) -> IntArray:
        return np.append(self.opens[1:], len(self.labels))

    @cached_property
    def _sizes(self) -> FloatArray:
        """Size of every row's move in units of the mean one, the mean over assets."""
        sizes = [np.abs(each.moves) for each in self.assets]
        return np.asarray(np.mean([size / size.mean() for size in sizes], axis=0))

    @cached_property
    def _kept(self) -> dict[str | None, Blocks]:
        return {}

    def blocks(self, regime: str | None = None) -> Blocks:
        """Return what blocks are drawn from: all of history, or the stretches of one regime.

        Raises `InputError` for a regime that history lacks, or has for fewer than three blocks.
        """
        if regime not in self._kept:
            self._kept[regime] = self._blocks_of(regime)
        return self._kept[regime]

    def _blocks_of(self, regime: str | None) -> Blocks:
        if regime is None:
            return Blocks(self.opens, self._stops, self._sizes, self.parameters.scheme, self.length)
        inside = self.regimes.where(regime)[0]
        begins = inside & ~np.append(False, inside[:-1])
        begins[self.opens] = inside[self.opens]
        ends = inside & ~np.append(inside[1:], False)
        ends[self._stops - 1] = inside[self._stops - 1]
        opens, stops = np.flatnonzero(begins), np.flatnonzero(ends) + 1
        found = Blocks(opens, stops, self._sizes, self.parameters.scheme, self.length)
        if found.expected < _FEWEST_BLOCKS:
            raise InputError(
                f"regime {regime!r} has {found.count} steps, {found.expected} blocks of history, and {_FEWEST_BLOCKS} "
                f"are needed: choose another or a smaller block_length; history has {self.regimes.told()}"
            )
        return found

    def sample(self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator) -> Series:
        """Return paths that start at the last fitted row.

        Raises `InputError` for a regime that history lacks, or has for fewer than three blocks.
        """
        self.check_request(n, steps, regime)
        blocks = self.blocks(regime)
        values = np.empty((n, steps, sum(len(each.anchor.names) for each in self.assets)))
        for path, own in enumerate(per_path(rng, n)):
            for start, piece in self._pieces(own, steps, blocks):
                values[path, start : start + len(piece)] = piece
        return self._series(values, 0)

    def stream(
        self, n: int, steps: int, *, regime: str | None = None, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[int, Series]]:
        """Yield the same paths piece by piece; memory depends neither on `n` nor on `steps`."""
        self.check_request(n, steps, regime)
        blocks, streams = self.blocks(regime), per_path(rng, n)
        return (
            (number, self._series(piece[np.newaxis], start))
            for number in range(first, n)
            for start, piece in self._pieces(streams[number], steps, blocks)
        )

    def _pieces(self, own: np.random.Generator, steps: int, blocks: Blocks) -> Iterator[tuple[int, FloatArray]]:
        """Yield (first step, values of shape (steps, columns)) of every piece of a path."""
        # The first step is the last fitted row: it is not drawn.
        counts = (count - (not at) for at, count in enumerate(counts_of(steps)))
        same = tee(blocks.rows(own, counts), len(self.assets))
        markets = zip(*(each.market(rows) for each, rows in zip(self.assets, same, strict=True)), strict=True)
        for start, pieces in zip(range(0, steps, PIECE), markets, strict=True):
            yield start, pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def _series(self, values: FloatArray, start: int) -> Series:
        """Wrap sampled values, shape (paths, steps, columns), as a series `start` steps after the fitted one."""
        anchors = self.anchors
        if self.asset_names == ("",):
            return anchors[0].series(values, start)
        named = list(zip(self.asset_names, anchors, strict=True))
        return Series(
            values=values,
            names=tuple(f"{asset}:{name}" for asset, anchor in named for name in anchor.names),
            step_ns=anchors[0].step_ns,
            start_ns=np.full(len(values), anchors[0].next_ns + start * anchors[0].step_ns, dtype=np.int64),
            tick_size=0.0,
            assets=tuple(Asset(asset, anchor.tick_size, anchor.lot_size) for asset, anchor in named),
        )

    def save(self, folder: Path) -> None:
        """Write `block_bootstrap.json`, and `block_bootstrap.npz` with the rows of history."""
        state = {
            "parameters": asdict(self.parameters),
            "anchors": [asdict(each.anchor) for each in self.assets],
            "levels": [each.level for each in self.assets],
            "asset_names": self.asset_names,
            "regime_names": self.regime_names,
            "lengths": asdict(self.lengths),
            "notes": self.notes,
        }
        arrays: dict[str, NDArray[Any]] = {"opens": self.opens, "labels": self.labels}
        for at, each in enumerate(self.assets):
            arrays |= {f"{name}.{at}": getattr(each, name) for name in _ROWS}
        (folder / f"{_NAME}.json").write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
        with (folder / f"{_NAME}.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        state = json.loads((folder / f"{_NAME}.json").read_text())
        made = cls.from_settings(state["parameters"])
        made.asset_names, made.regime_names = tuple(state["asset_names"]), tuple(state["regime_names"])
        made.lengths, made.notes = BlockLengths(**state["lengths"]), state["notes"]
        with np.load(folder / f"{_NAME}.npz", allow_pickle=False) as arrays:
            made.opens, made.labels = arrays["opens"], arrays["labels"]
            made.assets = tuple(
                JointRows(
                    Anchor.from_json(anchor),
                    arrays[f"opening.{at}"],
                    arrays[f"moves.{at}"],
                    arrays[f"others.{at}"],
                    level,
                )
                for at, (anchor, level) in enumerate(zip(state["anchors"], state["levels"], strict=True))
            )
        return made

    def summary(self) -> dict[str, float]:
        """Return block lengths, asked for and chosen, how many blocks there are, and the share of each regime."""
        blocks = self.blocks()
        asked = {f"block_length_{name}": value for name, value in self.lengths.geometric.items()}
        asked |= {f"fixed_block_length_{name}": value for name, value in self.lengths.fixed.items()}
        counts, shares = self.regimes.counts(), self.regimes.shares()
        return (
            {"block_length": self.length}
            | asked
            | {"rows": float(blocks.count), "blocks": float(blocks.expected), "stretches": float(len(self.opens))}
            | {f"steps_{name}": float(count) for name, count in counts.items()}
            | {f"share_{name}": share for name, share in shares.items()}
        )


def _same_span(parts: dict[str, Series]) -> dict[str, Series]:
    """Return the parts of a basket over the labels that all span."""
    return Series.joined(parts).parts() if "" not in parts else parts
