"""Slow, obvious twins of the bootstrap's kernels, and small histories to draw from."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np

from synth_pipeline.features.transforms import on_grid
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, IntArray, Series

HOUR_NS = 3_600_000_000_000
BARS = ("open", "high", "low", "close", "volume")


def bars(
    steps: int, *, paths: int = 1, seed: int = 0, tick: float = 0.0, lot: float = 0.0, price: float = 100.0
) -> Series:
    """Return bars whose volatility clusters and whose volume goes with it and grows threefold."""
    rng = stream(seed, "bars")
    noise = rng.standard_normal((paths, steps + 60))
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(60) / math.sqrt(60), "valid"), 1, noise)[
        :, :steps
    ]
    sigma = 0.004 * np.exp(0.7 * smooth)
    returns = sigma * rng.standard_t(5, (paths, steps))
    close = price * np.exp(np.cumsum(returns, axis=1))
    before = np.concatenate((np.full((paths, 1), price), close[:, :-1]), axis=1)
    opened = before * np.exp(0.1 * sigma * rng.standard_normal((paths, steps)))
    high = np.maximum(opened, close) * np.exp(sigma * rng.random((paths, steps)))
    low = np.minimum(opened, close) * np.exp(-sigma * rng.random((paths, steps)))
    volume = np.linspace(1_000, 3_000, steps) * np.exp(0.5 * smooth + 0.3 * rng.standard_normal((paths, steps)))
    prices = [on_grid(np.rint(each / tick), tick) if tick else each for each in (opened, high, low, close)]
    sizes = on_grid(np.rint(volume / lot), lot) if lot else volume
    values = np.stack([*prices, sizes], axis=2)
    return Series(values, BARS, HOUR_NS, np.arange(paths) * steps * HOUR_NS + 10**18, tick, lot)


def independent_rows(
    rng: np.random.Generator, count: int, stretches: list[range], length: float, scheme: str
) -> list[int]:
    """The three independent schemes, a row at a time, from the same random numbers as the kernel."""
    if scheme == "moving":
        starts = [row for each in stretches for row in each[: max(len(each) - round(length) + 1, 1)]]
    else:
        starts = [row for each in stretches for row in each]
    rows: list[int] = []
    while len(rows) < count:
        start = starts[int(rng.random() * len(starts))]
        home = next(each for each in stretches if start in each)
        lasts = int(length + 0.5)
        if scheme == "stationary":
            lasts = 1 + int(math.log1p(-rng.random()) / math.log1p(-1 / length))
        block = [start + at for at in range(lasts)]
        if scheme == "moving":
            rows += [row for row in block if row in home]
        else:
            rows += [home[(row - home[0]) % len(home)] for row in block]
    return rows[:count]


def cut(rng: np.random.Generator, stretches: list[range], length: int) -> list[range]:
    """Random blocks that tile every stretch."""
    sizes = range(max(length // 2, 1), max(length + length // 2, 1) + 1)
    blocks = []
    for each in stretches:
        edges = [each.start, each.start + 1 + int(rng.random() * sizes[-1])]
        if len(each) <= length:
            edges[-1] = each.stop
        while edges[-1] < each.stop:
            edges.append(edges[-1] + sizes[int(rng.random() * len(sizes))])
        rng.random()  # the kernel draws a length after the last block, too
        blocks += [range(first, min(end, each.stop)) for first, end in pairwise(edges)]
    return blocks


def circuit(rng: np.random.Generator, edges: list[tuple[int, int]], classes: int, root: int) -> list[int]:
    """An Euler circuit: last exits by loop-erased walks to the root, the other exits in random order."""
    exits = {vertex: [at for at, (source, _) in enumerate(edges) if source == vertex] for vertex in range(classes)}
    last: dict[int, int] = {}
    reached = {root} | {vertex for vertex in range(classes) if not exits[vertex]}
    for vertex in range(classes):
        at = vertex
        while at not in reached:
            last[at] = exits[at][int(rng.random() * len(exits[at]))]
            at = edges[last[at]][1]
        at = vertex
        while at not in reached:
            reached.add(at)
            at = edges[last[at]][1]
    for vertex, own in exits.items():
        top = len(own) - 1
        if vertex in last:
            place = own.index(last[vertex])
            own[place], own[top] = own[top], own[place]
            top -= 1
        for at in range(top, 0, -1):
            other = int(rng.random() * (at + 1))
            own[at], own[other] = own[other], own[at]
    walk, at = [], root
    while exits[at]:
        walk.append(exits[at].pop(0))
        at = edges[walk[-1]][1]
    return walk


def epoch(
    rng: np.random.Generator,
    stretches: list[range],
    before: list[int],
    after: list[int],
    fourth: list[float],
    length: int,
    classes: int,
) -> list[int]:
    """The rows of one epoch of the hybrid, from the same random numbers as the kernel."""
    blocks = cut(rng, stretches, length)
    phase = rng.random()
    ends = [(before[block[0]], after[block[-1]]) for block in blocks]
    wild = [0.25 * math.log(max(sum(fourth[row] for row in block), 1e-12)) / math.log1p(0.5) for block in blocks]
    kinds = [(*each, math.floor(size + phase)) for each, size in zip(ends, wild, strict=True)]
    chosen = list(range(len(blocks)))
    for kind in sorted(set(kinds)):
        alike = [at for at, each in enumerate(kinds) if each == kind]
        for at in alike:
            chosen[at] = alike[int(rng.random() * len(alike))]
    return [row for at in circuit(rng, ends, classes, after[stretches[-1][-1]]) for row in blocks[chosen[at]]]


def circuits(edges: list[tuple[int, int]], root: int) -> set[tuple[int, ...]]:
    """Every Euler circuit from `root`, as orders of the edges."""
    return {
        order
        for order in permutations(range(len(edges)))
        if edges[order[0]][0] == root
        and edges[order[-1]][1] == root
        and all(edges[a][1] == edges[b][0] for a, b in pairwise(order))
    }


def blocks_of(rows: IntArray, following: dict[int, int]) -> list[int]:
    """Lengths of the runs in which every row is the one that follows in history."""
    lengths = [1]
    for before, after in pairwise(rows.tolist()):
        if following.get(before) == after:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths


def optimal_length(values: FloatArray) -> tuple[float, float]:
    """Politis and White's rule as the paper of 2009 states it: mean length of geometric and of fixed blocks."""
    count = len(values)
    centred = values - values.mean()
    patience, furthest = max(5, int(math.log10(count))), math.ceil(math.sqrt(count)) + max(5, int(math.log10(count)))
    cov = [float(centred[lag:] @ centred[: count - lag]) / count for lag in range(furthest + 1)]
    bound = 2 * math.sqrt(math.log10(count) / count)
    small = [abs(each / cov[0]) < bound for each in cov]
    quiet = [lag for lag in range(furthest - patience + 1) if all(small[lag : lag + patience])]
    width = min(2 * max(quiet[0] if quiet else furthest, 1), furthest)
    window = [min(1.0, 2 * (1 - lag / width)) for lag in range(1, width + 1)]
    spread = 2 * sum(w * lag * cov[lag] for lag, w in enumerate(window, 1))
    level = cov[0] + 2 * sum(w * cov[lag] for lag, w in enumerate(window, 1))
    most = math.ceil(min(3 * math.sqrt(count), count / 3))
    both = [(2 * spread**2 / (factor * level**2)) ** (1 / 3) * count ** (1 / 3) for factor in (2, 4 / 3)]
    return min(both[0], most), min(both[1], most)


def volume_levels(volume: list[float], steps: int) -> list[float]:
    """The recent level before each step, and the one after the last."""
    level = sum(volume[:steps]) / len(volume[:steps])
    least = 0.01 * sum(volume) / len(volume)
    levels = [max(level, least)]
    for each in volume:
        level += (each - level) / steps
        levels.append(max(level, least))
    return levels


def frequencies(rows: IntArray, count: int) -> FloatArray:
    """How often each row comes, as a share."""
    return np.bincount(rows, minlength=count) / len(rows)
