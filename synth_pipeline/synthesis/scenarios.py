"""Scenarios: shocks put on a stream of sampled paths, and the markets that come out.

Several shocks act one after the other, on prices that have no grid in between; what they changed is then put back on
its grid, each value by itself. So what a shock leaves alone stays bit for bit, nothing accumulates along a path, and
the result does not depend on how paths are cut into pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import InputError
from synth_pipeline.features.transforms import on_grid
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray, Series
from synth_pipeline.synthesis.columns import BARS, COUNTS, SIZES, Market, markets
from synth_pipeline.synthesis.shocks import Columns, Effect, Shock, price_of

__all__ = ["Shock", "shocked"]

_MOST_UNITS = 2.0**50
_SMALLEST, _LARGEST = 1e-300, 1e300
_WIDEST = 1.99
"""Spread over mid that leaves a bid above 0 where there is no tick."""

Pieces = Iterable[tuple[int, Series]]


def shocked(pieces: Pieces, shocks: Sequence[Shock], *, rng: np.random.Generator) -> Iterator[tuple[int, Series]]:
    """Put shocks on every path, one after the other, and yield the pieces that come out, cut as they came.

    What is random in a shock depends on the path's number alone. Raises `InputError` for a shock of an asset or of
    columns that the series lacks, and for one that begins after the paths have ended.
    """
    seed = int(rng.integers(0, 2**63))
    return _shocked(pieces, shocks, seed) if shocks else iter(pieces)


def _shocked(pieces: Pieces, shocks: Sequence[Shock], seed: int) -> Iterator[tuple[int, Series]]:
    path, step = -1, 0
    effects: list[tuple[Market, list[Effect]]] = []
    for number, piece in pieces:
        if number != path:
            _check_reached(shocks, step, piece.step_ns) if path >= 0 else _check_columns(shocks, piece)
            path, step = number, 0
            effects = [(market, _effects(shocks, market, piece.step_ns, seed, path)) for market in markets(piece)]
        values = piece.values.copy()
        steps = np.arange(step, step + piece.steps)
        for market, chain in effects:
            _apply(chain, market, steps, values[0])
        yield number, replace(piece, values=values)
        step += piece.steps
    if path >= 0:
        _check_reached(shocks, step, piece.step_ns)


def _effects(shocks: Sequence[Shock], market: Market, step_ns: int, seed: int, path: int) -> list[Effect]:
    """Return what happens to one path of one market, with random streams of its own."""
    return [
        shock.effect(step_ns, stream(seed, at, market.asset, path))
        for at, shock in enumerate(shocks)
        if shock.asset in ("", market.asset)
    ]


def _check_columns(shocks: Sequence[Shock], piece: Series) -> None:
    found = markets(piece)
    for shock in shocks:
        hit = [market for market in found if shock.asset in ("", market.asset)]
        if not hit:
            known = ", ".join(market.asset for market in found if market.asset) or "one market: leave asset out"
            raise InputError(f"shock {shock} is of asset {shock.asset!r} and the series is of {known}")
        for market in hit:
            price_of(dict.fromkeys(market.columns, np.empty(0)))
            if shock.needs and not set(shock.needs) & set(market.columns):
                raise InputError(
                    f"shock {shock} changes sizes, spreads and imbalances, and the series holds only "
                    f"{', '.join(market.columns)}: take a generator that samples these"
                )


def _check_reached(shocks: Sequence[Shock], steps: int, step_ns: int) -> None:
    for shock in shocks:
        if shock.start(step_ns) >= steps:
            ends = steps * step_ns / NS_PER_SECOND
            raise InputError(
                f"shock {shock} begins after the paths end, at {ends:.15g} s: sample longer ones, or move it"
            )


def _apply(chain: Sequence[Effect], market: Market, steps: IntArray, values: FloatArray) -> None:
    """Change the columns of one market in place, shape (steps, features)."""
    before: Columns = {name: np.ascontiguousarray(values[:, at]) for name, at in market.columns.items()}
    after = before
    for effect in chain:
        after = effect(after, steps)
    changed = {name: ~((after[name] == before[name]) | np.isnan(before[name])) for name in before}
    for name, column in _on_grids(market, before, after, changed).items():
        values[:, market.columns[name]] = column


def _on_grids(market: Market, before: Columns, after: Columns, changed: dict[str, NDArray[np.bool_]]) -> Columns:
    """Return the columns with what was changed on its grid, and with bars and quotes that fit together."""
    settled = dict(after)
    # A bar is rounded whole, and so is a quote: rounding keeps the order of prices that all went through it.
    bars = np.logical_or.reduce([changed[name] for name in BARS if name in changed] or [np.zeros(1, np.bool_)])
    for name in after:
        step = market.step_of(name)
        if name in SIZES or name in COUNTS:
            settled[name] = np.where(changed[name], _whole(before[name], after[name], step), before[name])
        elif name in BARS or name == "last_price":
            rows = bars if name in BARS else changed[name]
            settled[name] = np.where(rows, _price(after[name], step), before[name])
    if "mid" in after:
        settled |= _quotes(market.tick_size, before, after, changed)
    return settled


def _price(prices: FloatArray, step: float) -> FloatArray:
    """Return the nearest possible prices, above 0; NaN stays."""
    if not step:
        return np.clip(prices, _SMALLEST, _LARGEST)
    return on_grid(np.clip(np.rint(prices / step), 1.0, _MOST_UNITS), step)


def _whole(before: FloatArray, after: FloatArray, step: float) -> FloatArray:
    """Return sizes in whole lots, and counts: toward 0 where they have a sign, but something stays something."""
    if not step:
        return after
    units = np.where(before < 0, np.trunc(after / step), np.maximum(np.rint(after / step), np.sign(after)))
    return on_grid(units, step)


def _quotes(tick: float, before: Columns, after: Columns, changed: dict[str, NDArray[np.bool_]]) -> Columns:
    """Return mids and spreads with bid and ask on the grid, above 0: what was not changed stays, the other fits it."""
    mid, moved = after["mid"], changed["mid"]
    if not tick or "spread" not in after:
        made = {"mid": np.where(moved, _price(mid, tick / 2), before["mid"])}
        if "spread" in after:
            made["spread"] = np.where(changed["spread"], np.minimum(after["spread"], _WIDEST * mid), before["spread"])
        return made
    spread = np.maximum(np.rint(after["spread"] / tick), 1.0)
    halves = spread + 2 * np.clip(np.rint((2 * mid / tick - spread) / 2), 1.0, _MOST_UNITS)
    fixed = np.rint(2 * before["mid"] / tick)
    odd = fixed % 2
    fitting = odd + 2 * np.rint((after["spread"] / tick - odd) / 2)
    fitting = np.minimum(np.maximum(fitting, 2 - odd), np.maximum(fixed - 2, 2 - odd))
    widened = changed["spread"] & ~moved
    return {
        "mid": np.where(moved, on_grid(halves, tick / 2), before["mid"]),
        "spread": np.where(moved, on_grid(spread, tick), np.where(widened, on_grid(fitting, tick), before["spread"])),
    }
