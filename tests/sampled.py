"""Small lawful samples, and cuts of them into the pieces that generators stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from synth_pipeline.rng import stream
from synth_pipeline.series import Series

START_NS = 1_723_075_200_000_000_000
"""2024-08-08, the first label."""
DAY_NS = 86_400_000_000_000
QUOTES = ("mid", "spread", "volume", "imbalance_1")
BARS = ("open", "high", "low", "close", "volume")


def quotes(paths: int = 2, steps: int = 400, seed: int = 0, *, tick: float = 0.1, lot: float = 0.001) -> Series:
    """Grid features: bids and asks on whole ticks, sizes in whole lots."""
    rng = stream(seed, "quotes")
    shape = (paths, steps)
    spread = rng.integers(1, 4, shape)
    latent = 60_000 * np.exp(np.cumsum(rng.standard_normal(shape) * 2e-4, axis=1)) / tick
    halves = spread + 2 * np.rint(latent - spread / 2)
    volume = np.rint(rng.lognormal(0, 2, shape) * 1000) * (rng.random(shape) < 0.7)
    columns = (halves / round(2 / tick), spread / round(1 / tick), volume / round(1 / lot), rng.uniform(-1, 1, shape))
    start_ns = np.full(paths, START_NS)
    return Series(np.stack(columns, axis=2), QUOTES, 500_000_000, start_ns, tick, lot)


def bars(paths: int = 2, steps: int = 300, seed: int = 0, *, step_ns: int = DAY_NS) -> Series:
    """Bars in cents, sizes whole."""
    rng = stream(seed, "bars")
    shape = (paths, steps)
    close = 1_000 * np.exp(np.cumsum(rng.standard_normal(shape) * 0.02, axis=1))
    opened = np.roll(close, 1, axis=1) * np.exp(rng.standard_normal(shape) * 0.002)
    opened[:, 0] = 1_000
    high = np.maximum(opened, close) * np.exp(np.abs(rng.standard_normal(shape)) * 0.005)
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.standard_normal(shape)) * 0.005)
    prices = np.rint(np.stack((opened, high, low, close), axis=2) * 100) / 100
    volume = np.rint(rng.lognormal(10, 1, (*shape, 1)))
    start_ns = np.full(paths, START_NS + step_ns)
    return Series(np.concatenate((prices, volume), axis=2), BARS, step_ns, start_ns, 0.01, 1.0)


def basket(paths: int = 2, steps: int = 300) -> Series:
    """Bars of two assets, one with a name that is not ASCII."""
    return Series.joined({"BTCUSDT": bars(paths, steps, 1), "ÆTH€": bars(paths, steps, 2)})


def pieces(series: Series, cuts: Sequence[int] = ()) -> Iterator[tuple[int, Series]]:
    """Stream every path in pieces of these lengths, over and over; whole without any."""
    for path in range(series.paths):
        one = Series(
            series.values[path : path + 1],
            series.names,
            series.step_ns,
            series.start_ns[path : path + 1],
            series.tick_size,
            series.lot_size,
            series.assets,
        )
        start, turn = 0, 0
        while start < series.steps:
            stop = min(start + (cuts[turn % len(cuts)] if cuts else series.steps), series.steps)
            yield path, one.slice(start, stop)
            start, turn = stop, turn + 1


def joined(streamed: Iterator[tuple[int, Series]]) -> np.ndarray:
    """Put pieces together again, shape (paths, steps, features)."""
    paths: dict[int, list[np.ndarray]] = {}
    for path, piece in streamed:
        paths.setdefault(path, []).append(piece.values[0])
    return np.stack([np.concatenate(parts) for parts in paths.values()])


def print_peak() -> None:
    """Print the most memory that this process has held, in MB: `ru_maxrss` may be that of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
