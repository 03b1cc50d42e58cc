"""Rejection sampling of the block bootstrap: how fast candidates are drawn and scored, and how many pass.

The twelve metrics are also computed with statsmodels, scipy, pandas and antropy, and candidates drawn with arch, the
way one would without this project; values must agree before anything is timed. Real series are the daily S&P 500 and
hourly crypto bars under `SYNTH_REAL_DATA` (default `../shared/data`); without them all is measured on generated ones,
and the notes say so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from bootstrap_schemes import DATA, HOURLY, NAMES, history
from common import Claim, arguments, interleaved, report

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.metric import StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.scoring import Base, Scorer
from synth_pipeline.generators.block_bootstrap import BlockBootstrap
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from synth_pipeline.synthesis.candidates import Judge, Request
from synth_pipeline.synthesis.rejection import accepted

DAILY = "sp500_daily_1999_2018.csv.gz"
ROWS, MILLION, THRESHOLD = 2_500, 1_000_000, 95.0
MINUTE_NS, DAY_NS = 60 * 10**9, 86_400 * 10**9
TWELVE = [found for found in metrics(["weighted"]).values() if isinstance(found, StatisticMetric)]
GENERATED = "on a generated series: no real ones under SYNTH_REAL_DATA"


def generated(rows: int) -> Series:
    """Return daily bars of a market whose volatility clusters."""
    rng = stream(0, "benchmark")
    swings = np.empty(rows)
    swings[0] = 0.0
    for t, shock in enumerate(0.15 * rng.standard_normal(rows - 1), 1):
        swings[t] = 0.98 * swings[t - 1] + shock
    size = 0.01 * np.exp(swings)
    close = 100 * np.exp(np.cumsum(size * rng.standard_normal(rows)))
    opened = np.append(100.0, close[:-1])
    wicks = np.exp(0.5 * size * np.abs(rng.standard_normal((2, rows))))
    high, low = np.maximum(opened, close) * wicks[0], np.minimum(opened, close) / wicks[1]
    values = np.stack([opened, high, low, close, 1e6 * np.exp(swings)], axis=1)
    return Series(values[np.newaxis], NAMES, DAY_NS, np.zeros(1, dtype=np.int64), 0.0)


def daily() -> tuple[Series, str]:
    """Return 2,500 daily bars, and what must be said of them."""
    if (DATA / DAILY).exists():
        return history(DAILY).slice(0, ROWS), ""
    return generated(ROWS), GENERATED


def files() -> Iterator[tuple[str, Series]]:
    """Yield every series that acceptance is measured on."""
    found = [name for name in (DAILY, *HOURLY) if (DATA / name).exists()]
    yield from ((name.partition(".")[0], history(name)) for name in found)
    if not found:
        yield "generated", generated(5_000)


def fitted(series: Series) -> BlockBootstrap:
    """Return the bootstrap of a series."""
    return BlockBootstrap().fit(series, rng=stream(0, "fit"))


# ---- speed


def per_second(paths: int) -> Claim:
    """Count the candidates that are drawn, scored and, where they pass, searched for copies, on two cores."""
    series, note = daily()
    generator = fitted(series)
    seconds: dict[int, float] = {}
    for workers in (1, 2):
        started = time.perf_counter()
        found = accepted(
            generator,
            series,
            paths=paths,
            steps=ROWS,
            min_fidelity=THRESHOLD,
            rng=stream(0, "candidates"),
            workers=workers,
            most_candidates=1_000 * paths,
        )
        seconds[workers] = time.perf_counter() - started
    return Claim(
        "bootstrap_candidates_per_s",
        f"candidates of {ROWS:,} daily rows drawn and scored with the 12 metrics per second, 2 processes",
        found.tally.tried / seconds[2],
        300.0,
        "high",
        {"one process": found.tally.tried / seconds[1], "candidates": found.tally.tried},
        ", ".join(filter(None, ["the start of the second process included", note])),
    )


def by_libraries(returns: FloatArray) -> dict[str, float]:
    """Compute the twelve statistics of one path of log-returns the way that libraries offer."""
    import pandas as pd
    from antropy import detrended_fluctuation
    from scipy import stats
    from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch
    from statsmodels.tsa.stattools import acf

    path = pd.Series(returns)
    price = np.exp(path.cumsum())
    correlations = acf(returns, nlags=10)[1:]
    change = path.where(path.index >= 14)
    # Wilder's averages begin with plain ones of the first fourteen.
    gain, loss = path.clip(lower=0.0), (-path).clip(lower=0.0)
    averages = []
    for side in (gain, loss):
        seeded = side.copy()
        seeded.iloc[:13] = np.nan
        seeded.iloc[13] = side.iloc[:14].mean()
        averages.append(seeded.ewm(alpha=1 / 14, adjust=False).mean())
    strength = 100.0 * averages[0] / (averages[0] + averages[1])
    blocks = np.sqrt((returns[: len(returns) // 10 * 10].reshape(-1, 10) ** 2).mean(axis=1))
    return {
        "volatility": float(returns.std()),
        "skewness": float(stats.skew(returns)),
        "kurtosis": float(stats.kurtosis(returns, fisher=False)),
        "max_drawdown": float((1.0 - price / price.cummax().clip(lower=1.0)).max()),
        "acf_lag_1": float(correlations[0]),
        "acf_sum_10": float(correlations.sum()),
        "volatility_clustering": float(acf(np.abs(returns), nlags=10)[1:].mean()),
        "hurst_exponent": float(detrended_fluctuation(returns)),
        "ljung_box_p": float(acorr_ljungbox(returns, lags=[10])["lb_pvalue"].iloc[0]),
        "arch_lm_p": float(het_arch(returns - returns.mean(), nlags=5, result_object=False)[1]),
        "rsi_correlation": float(strength.shift(1).corr(change)),
        "volatility_persistence": float(np.corrcoef(blocks[:-1], blocks[1:])[0, 1]),
    }


def by_us(returns: FloatArray) -> dict[str, FloatArray]:
    """Compute them for many paths at once, as a search does."""
    return {metric.name: metric.statistic(returns) for metric in TWELVE}


def against_libraries(rounds: int) -> Claim:
    """Time the twelve metrics of the same candidates, ours in batches of 50, after checking that values are equal."""
    from arch.bootstrap import StationaryBootstrap

    series, note = daily()
    generator, rng = fitted(series), stream(0, "candidates")
    sample = Sample.of(generator.sample(50, ROWS, rng=rng)).returns
    real = Sample.of(series).returns[0]
    ours = by_us(sample)
    for index in (0, 1):
        for name, value in by_libraries(sample[index]).items():
            np.testing.assert_allclose(ours[name][index], value, rtol=1e-6, err_msg=name)
    draws = StationaryBootstrap(generator.length, real, seed=stream(0, "arch")).bootstrap(10**9)
    base = Base.of(series, ROWS)

    def one_by_libraries() -> None:
        by_libraries(next(draws)[0][0])

    def fifty_by_us() -> None:
        scorer = Scorer(base)
        for number, piece in generator.stream(50, ROWS, rng=stream(0, "draws")):
            scorer.add(number, piece.column("close")[0])
        scorer.finish()

    methods: dict[str, Callable[[], Any]] = {
        "ours": lambda: by_us(sample),
        "libraries": lambda: by_libraries(sample[0]),
        "ours, whole": fifty_by_us,
        "libraries, whole": one_by_libraries,
    }
    seconds = interleaved(methods, rounds)
    return Claim(
        "bootstrap_vs_library",
        f"twelve metrics of {ROWS:,} rows: speed over arch, statsmodels, scipy, pandas and antropy",
        seconds["libraries"] / (seconds["ours"] / 50),
        30.0,
        "high",
        {
            "libraries, µs": 1e6 * seconds["libraries"],
            "ours, µs": 1e6 * seconds["ours"] / 50,
            "drawing included (ours: OHLCV rows; arch: returns alone)": seconds["libraries, whole"]
            / (seconds["ours, whole"] / 50),
        },
        ", ".join(filter(None, ["one core each", note])),
    )


def million(rounds: int) -> Claim:
    """Time one candidate of a million rows, drawn, scored against as many and searched for copies."""
    series, note = daily()
    whole = fitted(Series(series.values, series.names, MINUTE_NS, series.start_ns, 0.0))
    base = whole.sample(1, MILLION, rng=stream(0, "base"))
    generator = fitted(base)
    started = time.perf_counter()
    judge = Judge(generator, Request({"": base}, MILLION, None, stream(0, "candidates"), 0.0))
    prepared = time.perf_counter() - started
    seconds = []
    for number in range(rounds):
        started = time.perf_counter()
        judge.candidates(number, number + 1)
        seconds.append(time.perf_counter() - started)
    return Claim(
        "bootstrap_million_s",
        "one candidate of a million minute bars, drawn and scored with the 12 metrics, seconds",
        statistics.median(seconds),
        3.0,
        "low",
        {"metrics of the base, once, s": prepared},
        note,
    )


# ---- acceptance


def acceptance(paths: int) -> Claim:
    """Accept paths as long as each file at fidelity 95; beside it what is copied, and what the later half scores."""
    rates, shown, notes = [], {}, []
    for name, series in files():
        half = series.steps // 2
        scorer = Scorer(Base.of(series.slice(0, half), half))
        scorer.add(0, series.slice(series.steps - half, series.steps).column("close")[0])
        shown[f"{name}: later half of history against the first"] = scorer.finish()[0].score
        try:
            found = accepted(
                fitted(series),
                series,
                paths=paths,
                steps=series.steps,
                min_fidelity=THRESHOLD,
                rng=stream(0, "acceptance", name),
                workers=2,
            )
        except InputError as error:
            rates.append(0.0)
            notes.append(f"{name}: {error}")
            continue
        facts = found.facts()
        rates.append(found.acceptance_rate)
        shown[f"{name}: acceptance"] = found.acceptance_rate
        shown |= {f"{name}: {each}": facts[each] for each in ("mean_fidelity", "verbatim_share")}
        shown |= {f"{name}: {each}": facts[each] for each in ("mean_verbatim_run", "longest_verbatim_run")}
    if not (DATA / DAILY).exists():
        notes.append(GENERATED)
    notes.append("a path is a replay in blocks: it is new in the order of what happened, not in what can happen")
    return Claim(
        "acceptance_95",
        f"share of candidates whose fidelity is {THRESHOLD:g} or more, worst file",
        min(rates),
        0.80,
        "high",
        shown,
        "; ".join(notes),
    )


def main() -> None:
    options = arguments(__doc__).parse_args()
    quick = options.quick
    claims = [
        per_second(1_000 if quick else 10_000),
        against_libraries(15 if quick else 100),
        million(1 if quick else 5),
        acceptance(50 if quick else 400),
    ]
    report("bootstrap", claims, as_json=options.json)


if __name__ == "__main__":
    main()
