"""Joint rows: what a market did in each step of history, relative to the step before, and a market made of such rows.

What belongs here: from a series to rows that mean the same at any price level, and back, piece by piece. What does not:
which row comes when.

A row is the log-return of the price, and of bars the log distances of `features.ohlc`: the open from the close before,
wicks from open and close; a spread and an imbalance are kept as they were. Volume is held against its recent
level, an exponential mean of what went before, so that a history whose volume grew is no jumble of small and large
ones: samples trade at the last level. A market made of rows is lawful by construction: the latent log price is the sum
of returns, what is shown is the nearest price on the grid (that a spread of its parity allows), so rounding never
accumulates; a bar hangs on the prices shown, and rounding keeps low ≤ open, close ≤ high.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.features.ohlc import BARS, bars_of, shape_of
from synth_pipeline.features.transforms import Anchor, on_grid
from synth_pipeline.features.windows import segments
from synth_pipeline.series import FloatArray, IntArray, Series

LEVEL_STEPS = 250
"""The recent level of volume forgets over so many steps, or a twentieth of history where that is longer."""
_LEAST_LEVEL = 0.01


@dataclass(frozen=True, eq=False)
class JointRows:
    """History of one asset as rows that can follow any other."""

    anchor: Anchor
    opening: FloatArray
    """The last fitted row in market units, shape (columns,): where every sample begins."""
    moves: FloatArray
    """Log-return of each row, shape (rows,)."""
    others: FloatArray
    """The columns beside the price, relative as the module says, shape (columns - 1, rows)."""
    level: float
    """Volume that a relative volume of 1 stands for; 1 without volume."""

    @classmethod
    def of(cls, series: Series, spans: Sequence[tuple[int, int, int]]) -> JointRows:
        """Take the rows of stretches (path, start, stop), each but its first, which follows nothing.

        Raises `InputError` for a price of bars that is not above 0.
        """
        anchor = Anchor.of(series)
        kept, level = [], 1.0
        volumes = _relative_volumes(series, spans) if "volume" in series.names else None
        for at, (path, start, stop) in enumerate(spans):
            market = dict(zip(series.names, series.values[path, start:stop].T, strict=True))
            columns = _relative(market, anchor.price_name)
            if volumes is not None:
                columns["volume"], level = volumes[at]
            kept.append(np.stack([columns[name] for name in (anchor.price_name, *others_of(anchor))]))
        table = np.concatenate(kept, axis=1)
        path, _, stop = segments(series)[-1]
        opening = _opening(dict(zip(series.names, series.values[path, stop - 1].tolist(), strict=True)), anchor)
        return cls(anchor, opening, np.ascontiguousarray(table[0]), np.ascontiguousarray(table[1:]), level)

    def market(self, rows: Iterable[IntArray]) -> Iterator[FloatArray]:
        """Yield a path in market units, shape (steps, columns), piece by piece; the first piece opens with `opening`.

        Pieces of rows may be of any length: what comes out is the same, cut at the same places.
        """
        price = float(self.opening[self.anchor.names.index(self.anchor.price_name)])
        latent = 0.0
        for at, chosen in enumerate(rows):
            levels = np.cumsum(np.append(latent, self.moves[chosen]))
            made = self._columns(levels[1:], price, self.others[:, chosen])
            piece = np.empty((len(chosen) + (not at), len(self.anchor.names)))
            piece[0] = self.opening
            for column, name in enumerate(self.anchor.names):
                piece[not at :, column] = made[name]
            yield piece
            latent, price = float(levels[-1]), float(np.append(price, made[self.anchor.price_name])[-1])

    def _columns(self, levels: FloatArray, before: float, others: FloatArray) -> dict[str, FloatArray]:
        """Return the columns of the next steps, whose latent log prices are `levels`; `before` is the price before."""
        columns = dict(zip(others_of(self.anchor), others, strict=True))
        if "volume" in columns:
            columns["volume"] = _sizes(columns["volume"] * self.level, self.anchor.lot_size)
        name, tick = self.anchor.price_name, self.anchor.tick_size
        if name == "mid" and "spread" in columns and tick:
            ticks = np.maximum(np.rint(columns["spread"] / self.anchor.tick_size), 1.0)
            return columns | self.anchor.quotes(levels, ticks)
        price = columns[name] = self.anchor.prices(levels)
        if name != "close":
            return columns
        shape = {each: columns[each] for each in BARS if each in columns}
        return columns | bars_of(shape, price, np.append(before, price)[:-1], self.anchor.nearest)


def others_of(anchor: Anchor) -> tuple[str, ...]:
    """Return the columns beside the price."""
    return tuple(name for name in anchor.names if name != anchor.price_name)


def _relative(market: dict[str, FloatArray], price_name: str) -> dict[str, FloatArray]:
    """Return what each row of a stretch but the first is relative to the row before."""
    price, rows = market[price_name], {name: values[1:] for name, values in market.items()}
    rows[price_name] = np.diff(np.log(price))
    if price_name != "close":
        return rows
    for name in BARS:
        if name in market and market[name].min() <= 0:
            raise InputError(f"{name} holds {market[name].min():g}: log-returns need positive prices; mend the input")
    return rows | shape_of(rows | {"close": price[1:]}, price[:-1])


def _relative_volumes(series: Series, spans: Sequence[tuple[int, int, int]]) -> list[tuple[FloatArray, float]]:
    """Return of every stretch the volumes but the first over the level before them, and the level after all."""
    from scipy.signal import lfilter

    volumes = [series.column("volume")[path, start:stop] for path, start, stop in spans]
    total = np.concatenate(volumes)
    mean = float(total.mean()) or 1.0
    steps = max(LEVEL_STEPS, len(total) // 20)
    level = float(total[:steps].mean()) or mean
    forgets = 1.0 / steps
    made = []
    for volume in volumes:
        after = lfilter([forgets], [1.0, forgets - 1.0], volume, zi=[(1.0 - forgets) * level])[0]
        levels = np.maximum(np.append(level, after), _LEAST_LEVEL * mean)
        made.append((volume[1:] / levels[1:-1], float(levels[-1])))
        level = float(levels[-1])
    return made


def _opening(row: dict[str, float], anchor: Anchor) -> FloatArray:
    """Return the last fitted row, on the grid and with its wicks mended, in the order of the anchor's columns."""
    step, tick = anchor.price_step, anchor.tick_size
    if anchor.price_name == "close":
        body = (row["close"], row.get("open", row["close"]))
        row |= {"high": max(row.get("high", 0.0), *body), "low": min(row.get("low", np.inf), *body)}
    elif "spread" in row and tick:
        halves, ticks = round(2 * row["mid"] / tick), max(round(row["spread"] / tick), 1)
        row["spread"] = (ticks + (ticks - halves) % 2) * tick
    values = []
    for name in anchor.names:
        grid = step if name in (anchor.price_name, *BARS) else tick if name == "spread" else 0.0
        value = np.array([row[name]])
        values.append(on_grid(np.maximum(np.rint(value / grid), 1.0), grid) if grid else value)
    return np.concatenate(values)


def _sizes(sizes: FloatArray, lot: float) -> FloatArray:
    return on_grid(np.rint(sizes / lot), lot) if lot else sizes
