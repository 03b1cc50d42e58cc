"""Whether the evaluator finds what is wrong, and nothing else: planted defects, disguised copies, real against real.

Twelve defects are planted one by one into data that are otherwise sound: a later stretch of the same real bars where
there are files under `SYNTH_REAL_DATA` (default `../shared/data`), and an independent draw of a simulated market. A
defect counts as named when a metric (or check) that is meant for it says so and the grade is no A. Copies are disguised
in three ways. False alarms are counted on blocks of one period dealt to training, synthetic and held-out data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from bootstrap_schemes import DATA, HOURLY, history
from common import Claim, arguments, report

from synth_pipeline.fidelity.bootstrap import resamples, volatility_block_length
from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, IntArray, Series

DAILY = "sp500_daily_1999_2018.csv.gz"
BARS = ("open", "high", "low", "close", "volume")
GRID = ("mid", "spread", "imbalance_1", "volume", "depth_added")
TICK = 0.01
BLOCKS = 24
"""Blocks of one period that are dealt: half of them train, a quarter each is synthetic and held out."""
CLUSTERING = {
    "absolute_return_acf_error",
    "squared_return_acf_error",
    "arch_lm_per_observation",
    "volatility_clustering",
    "volatility_hurst",
    "volatility_persistence",
    "activity_memory_error",
}
TAILS = {"kurtosis", "return_kurtosis", "lower_tail_index", "upper_tail_index", "quantile_error"}
COPIES = {"verbatim_share", "longest_verbatim_run", "near_copy_share", "training_nearness", "duplicate_share"}


class Source(NamedTuple):
    """Real data in three stretches; the third is what defects are planted into."""

    name: str
    train: Series
    holdout: Series
    sound: Series


Plant = Callable[[Source, np.random.Generator], Series]


class Defect(NamedTuple):
    """One thing that can be wrong with synthetic data, and what is meant to say so."""

    name: str
    plant: Plant
    named_by: set[str]


# ---- data


def simulated(seed: int, rows: int) -> FloatArray:
    """Return log-returns and volatilities, shape (2, rows), that cluster, have fat tails and fear falls."""
    rng = stream(seed, "market")
    shocks = rng.standard_normal((2, rows + 500))
    level = np.zeros(rows + 500)
    for t in range(1, level.size):
        level[t] = 0.97 * level[t - 1] - 0.25 * shocks[1, t - 1] + 0.15 * shocks[0, t]
    size = 2e-3 * np.exp(level)
    return np.stack([size * shocks[1], size])[:, 500:]


def simulated_bars(seed: int, rows: int) -> Series:
    """Return bars of a simulated market."""
    returns, size = simulated(seed, rows)
    rng = stream(seed, "bars")
    close = 1_000 * np.exp(np.cumsum(returns))
    opened = np.append(1_000.0, close[:-1])
    wicks = np.exp(size * np.abs(rng.standard_normal((2, rows))))
    high, low = np.maximum(opened, close) * wicks[0], np.minimum(opened, close) / wicks[1]
    volume = np.round(1e6 * size * np.exp(0.3 * rng.standard_normal(rows))) + 1
    prices = np.round(np.stack([opened, high, low, close], axis=1) / TICK) * TICK
    return made(np.column_stack([prices, volume]), BARS, TICK)


def simulated_grid(seed: int, rows: int) -> Series:
    """Return grid features of a simulated market: price, spread, imbalance, volume and depth hang together."""
    returns, size = simulated(seed, rows)
    rng = stream(seed, "grid")
    mid = np.round(1_000 * np.exp(np.cumsum(returns)) / TICK) * TICK
    spread = TICK * (1 + rng.poisson(500 * size))
    imbalance = np.tanh(150 * returns + 0.5 * rng.standard_normal(rows))
    volume = 1e4 * size * np.exp(0.4 * rng.standard_normal(rows))
    depth = 50 / (1 + 200 * size) * np.exp(0.2 * rng.standard_normal(rows))
    return made(np.column_stack([mid, spread, imbalance, volume, depth]), GRID, TICK)


def made(values: FloatArray, names: tuple[str, ...], tick: float) -> Series:
    """Return a series of one path."""
    return Series(values[np.newaxis], names, 60 * 10**9, np.zeros(1, dtype=np.int64), tick)


def thirds(name: str, series: Series) -> Source:
    """Cut a series: half of it trains, a quarter is held out, the last quarter takes the defects."""
    at, to = series.steps // 2, 3 * series.steps // 4
    return Source(name, series.slice(0, at), series.slice(at, to), series.slice(to, series.steps))


def sources(quick: bool) -> Iterator[Source]:
    """Yield simulated bars, and real ones where there are files."""
    rows = 8_000 if quick else 16_000
    whole = simulated_bars(0, rows)
    yield Source(
        "simulated bars", whole.slice(0, rows // 2), whole.slice(rows // 2, rows), simulated_bars(1, rows // 2)
    )
    names = (HOURLY[0],) if quick else (*HOURLY[:2], DAILY)
    for name in names:
        if (DATA / name).exists():
            yield thirds(name.partition(".")[0], on_grid(history(name)))


def on_grid(series: Series) -> Series:
    """Return bars whose prices lie on a grid, of a cent where they have none of their own: else all were unsound."""
    if series.tick_size:
        return series
    values = series.values.copy()
    values[:, :, :4] = np.round(values[:, :, :4] / TICK) * TICK
    return replace(series, values=values, tick_size=TICK)


def simulated_source(rows: int) -> Source:
    """Return simulated grid features."""
    whole = simulated_grid(2, rows)
    return Source(
        "simulated grid", whole.slice(0, rows // 2), whole.slice(rows // 2, rows), simulated_grid(3, rows // 2)
    )


# ---- defects


def rebuilt(like: Series, returns: FloatArray, rows: IntArray | None = None) -> Series:
    """Return bars with these log-returns of the close; shapes and volumes are those of some rows, or of all in turn."""
    values = like.values[0].copy() if rows is None else like.values[0][np.append(0, rows)]
    close = values[0, 3] * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    opened = np.append(close[0], close[:-1])
    body_high, body_low = np.maximum(values[:, 0], values[:, 3]), np.minimum(values[:, 0], values[:, 3])
    high = np.maximum(opened, close) * (values[:, 1] / body_high)
    low = np.minimum(opened, close) * (values[:, 2] / body_low)
    tick = like.tick_size
    prices = np.maximum(np.round(np.stack([opened, high, low, close], axis=1) / tick), 1) * tick
    return made(np.column_stack([prices, values[:, 4]]), BARS, tick)


def returns_of(series: Series) -> FloatArray:
    """Return the log-returns of a series of one path."""
    return Sample.of(series).returns[0]


def shuffled(source: Source, rng: np.random.Generator) -> Series:
    """Put the bars of a stretch in a random order."""
    rows = rng.permutation(source.sound.steps - 1)
    return rebuilt(source.sound, returns_of(source.sound)[rows], rows + 1)


def gaussian(source: Source, rng: np.random.Generator) -> Series:
    """Keep the ranks of returns, and make them Gaussian."""
    returns = returns_of(source.sound)
    drawn = np.sort(rng.normal(returns.mean(), returns.std(), returns.size))
    return rebuilt(source.sound, drawn[np.argsort(np.argsort(returns))])


def unclustered(source: Source, rng: np.random.Generator) -> Series:
    """Keep the signs of returns in their order, and shuffle their sizes."""
    returns = returns_of(source.sound)
    return rebuilt(source.sound, np.sign(returns) * rng.permutation(np.abs(returns)))


def drifting(source: Source, _: np.random.Generator) -> Series:
    """Add 15 % of a standard deviation to every return."""
    returns = returns_of(source.sound)
    return rebuilt(source.sound, returns + 0.15 * returns.std())


def copied(source: Source, rng: np.random.Generator) -> Series:
    """Paste windows of 100 training bars one after the other."""
    rows = pasted(source.train.steps - 1, source.sound.steps - 1, 100, rng)
    return rebuilt(source.train, returns_of(source.train)[rows], rows + 1)


def collapsed(source: Source, rng: np.random.Generator) -> Series:
    """Replay three windows of 48 bars, no training data, with 2 % of noise."""
    starts = rng.integers(0, source.sound.steps - 49, 3)
    rows = np.concatenate([start + np.arange(48) for start in rng.choice(starts, source.sound.steps // 48 + 1)])
    rows = rows[: source.sound.steps - 1]
    return rebuilt(source.sound, returns_of(source.sound)[rows] * (1 + 0.02 * rng.standard_normal(rows.size)), rows + 1)


def broken_bars(source: Source, rng: np.random.Generator) -> Series:
    """Swap high and low of one bar in a hundred."""
    values = source.sound.values.copy()
    hit = rng.random(source.sound.steps) < 0.01
    values[0, hit, 1], values[0, hit, 2] = values[0, hit, 2], values[0, hit, 1]
    return replace(source.sound, values=values)


def off_tick(source: Source, rng: np.random.Generator) -> Series:
    """Move one bar in twenty off the grid of prices."""
    values = source.sound.values.copy()
    values[0, :, :4] += source.sound.tick_size * rng.uniform(0.2, 0.8) * (rng.random((source.sound.steps, 1)) < 0.05)
    return replace(source.sound, values=values)


def reversed_time(source: Source, _: np.random.Generator) -> Series:
    """Let time run backwards."""
    backwards = source.sound.values[0, ::-1].copy()
    backwards[:, [0, 3]] = backwards[:, [3, 0]]
    return made(backwards, BARS, source.sound.tick_size)


def regime_missing(source: Source, rng: np.random.Generator) -> Series:
    """Leave out the wildest third of blocks of 50 bars."""
    returns = returns_of(source.sound)
    blocks = returns[: returns.size // 50 * 50].reshape(-1, 50)
    sizes = blocks.std(axis=1)
    calm = blocks[sizes < np.quantile(sizes, 2 / 3)]
    drawn = calm[rng.integers(0, len(calm), len(blocks) + 1)].ravel()[: returns.size]
    return rebuilt(source.sound, drawn)


def swapped(source: Source, _: np.random.Generator) -> Series:
    """Swap volume and depth."""
    values = source.sound.values.copy()
    values[:, :, [3, 4]] = values[:, :, [4, 3]]
    return replace(source.sound, values=values)


def thinned_book(source: Source, _: np.random.Generator) -> Series:
    """Take away 60 % of the depth."""
    values = source.sound.values.copy()
    values[:, :, 4] *= 0.4
    return replace(source.sound, values=values)


ON_BARS = (
    Defect("shuffled returns", shuffled, CLUSTERING),
    Defect("Gaussian tails", gaussian, TAILS),
    Defect("no clustering", unclustered, CLUSTERING),
    Defect("drift", drifting, {"mean_return", "drift"}),
    Defect("copied training windows", copied, COPIES),
    Defect("collapsed modes", collapsed, {"sibling_distance", "coverage", "diversity", "missing_modes", "beta_recall"}),
    Defect("broken OHLC", broken_bars, {"bar_order"}),
    Defect("off-tick prices", off_tick, {"tick_grid"}),
    Defect(
        "time reversal",
        reversed_time,
        # Read backwards, a price falls where it rose: the signs of returns turn as well.
        {"ranked_leverage", "leverage_effect", "zumbach_effect", "volatility_asymmetry"}
        | {"lagged_cross_correlation_error", "return_skewness", "skewness"},
    ),
    Defect(
        "one regime missing",
        regime_missing,
        {"volatility", "standard_deviation", "missing_modes", "energy_distance", "level_distance", "coverage", *TAILS},
    ),
)
ON_GRID = (
    Defect(
        "swapped features",
        swapped,
        {"level_distance", "cross_correlation_error", "correlational_score", "change_distance"},
    ),
    Defect("thinned book", thinned_book, {"level_distance", "coverage", "beta_recall"}),
)


def named(found: Evaluation, defect: Defect) -> bool:
    """Say whether the defect is called by what is meant for it, and the grade is no A."""
    told = {result.name for result in found.results if result.verdict in ("close", "off")}
    told |= {check.name for check in found.checks if check.failures}
    return bool(told & defect.named_by) and found.grade != "A"


def defects(quick: bool) -> Claim:
    """Plant every defect into every source."""
    shown: dict[str, float] = {}
    cases = [(source, each) for source in sources(quick) for each in ON_BARS]
    cases += [(simulated_source(8_000 if quick else 16_000), each) for each in ON_GRID]
    for source, defect in cases:
        synthetic = defect.plant(source, stream(0, "plant", source.name, defect.name))
        found = evaluate(source.train, synthetic, source.holdout, rng=stream(0, "evaluate"))
        shown[f"{source.name}: {defect.name}"] = float(named(found, defect))
    return Claim(
        "defects_named",
        f"planted defects named by a metric meant for them, with no grade A ({len(shown)} cases)",
        float(np.mean(list(shown.values()))),
        1.0,
        "high",
        {name: value for name, value in shown.items() if value < 1},
        noted(),
    )


# ---- copies


def pasted(total: int, count: int, length: int, rng: np.random.Generator) -> IntArray:
    """Return the rows of windows, one after the other."""
    starts = rng.integers(0, total - length, count // length + 1)
    return np.concatenate([start + np.arange(length) for start in starts])[:count]


def disguised(source: Source, number: int) -> Series:
    """Return copies of the training data: a block bootstrap, pasted windows, or those with 5 % of noise."""
    rng = stream(number, "disguise", source.name)
    returns, count = returns_of(source.train), source.holdout.steps - 1
    if number % 3 == 0:
        sample = Sample.of(source.train)
        block = volatility_block_length(sample)
        return rebuilt(source.holdout, next(resamples(sample, (1, count), 1, block, rng=rng))[0])
    rows = pasted(returns.size, count, (24, 48, 100)[number // 3 % 3], rng)
    noise = 0.05 * returns.std() * rng.standard_normal(count) if number % 3 == 2 else 0.0
    return rebuilt(source.train, returns[rows] + noise, rows + 1)


def copies(quick: bool) -> Claim:
    """Evaluate disguised copies, and count those whose grade is withheld."""
    found: dict[str, float] = {}
    known = list(sources(quick))
    for number in range(6 if quick else 20):
        source = known[number % len(known)]
        record = evaluate(source.train, disguised(source, number), source.holdout, rng=stream(number, "evaluate"))
        found[f"{source.name}, case {number}"] = float(record.grade in ("withheld", "F"))
    return Claim(
        "copies_exposed",
        f"block bootstraps, pasted windows and windows with 5 % noise whose grade is withheld ({len(found)} cases)",
        float(np.mean(list(found.values()))),
        1.0,
        "high",
        {name: value for name, value in found.items() if value < 1},
        noted(),
    )


# ---- false alarms


def dealt(series: Series, rng: np.random.Generator) -> tuple[Series, Series, Series]:
    """Deal blocks of a series to training, synthetic and held-out data."""
    size = series.steps // BLOCKS
    blocks = series.values[0, : size * BLOCKS].reshape(BLOCKS, size, -1)
    order = rng.permutation(BLOCKS)
    parts = np.split(order, [BLOCKS // 2, 3 * BLOCKS // 4])
    first, second, third = (
        replace(series, values=blocks[part], start_ns=np.asarray(part * size * series.step_ns)) for part in parts
    )
    return first, second, third


def false_alarms(quick: bool) -> Claim:
    """Count the checks of real data against real data of the same period that say they are not."""
    rows = 6_000 if quick else 12_000
    known = [("simulated bars", simulated_bars(4, rows))]
    known += [(name, history(name).slice(0, rows)) for name in (HOURLY[0], DAILY) if (DATA / name).exists()]
    alarms, total, shown = 0, 0, dict.fromkeys((name for name, _ in known), 0.0)
    splits = 6 if quick else 100
    for number in range(splits):
        name, series = known[number % len(known)]
        train, synthetic, holdout = dealt(series, stream(number, "deal"))
        record = evaluate(train, synthetic, holdout, rng=stream(number, "evaluate"))
        judged = [result for result in record.results if result.verdict != "absent"]
        called = sum(result.verdict != "indistinguishable" for result in judged)
        alarms, total = alarms + called, total + len(judged)
        shown[name] += called
    return Claim(
        "false_alarm_share",
        f"checks of real against real of the same period that are not indistinguishable, {splits} splits",
        alarms / total,
        0.05,
        "low",
        {f"{name}: alarms": count for name, count in shown.items()},
        f"of {total:,} checks; {noted()}",
    )


def noted() -> str:
    """Say what the figures are of."""
    return "on real and simulated bars" if (DATA / DAILY).exists() else "on simulated bars: no real ones are here"


def measured(*, quick: bool) -> list[Claim]:
    """Measure all three claims."""
    return [defects(quick), copies(quick), false_alarms(quick)]


def main() -> None:
    options = arguments(__doc__).parse_args()
    report("fidelity_defects", measured(quick=options.quick), as_json=options.json)


if __name__ == "__main__":
    main()
