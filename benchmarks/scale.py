"""155 million quotes, end to end: CSV files to the store, then half an hour out of it as half-second features.

A market is generated a day at a time as two sorted CSV files, 50 bytes a quote, with a trade to every eight quotes.
Each day is recorded and ingested in a process of its own whose memory is watched, and its files are deleted; generation
is in no figure. Small days, ingested in turn with the large ones, show what a row costs where there are few. Queries
run on the whole store and, in turn, on one of its first days alone.

    python benchmarks/scale.py --rows 155e6    # a quarter of an hour on two quiet cores, 5 GB of disk
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import polars as pl
import psutil
from common import Claim, arguments, report

from synth_pipeline import stages
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages.window_features import window_features

BTC = Instrument("generated", "BTCUSDT")
FIRST = date(2025, 1, 6)
STEP_NS = 500_000_000
LENGTH_NS = 1800 * NS_PER_SECOND
FEATURES = ("mid", "spread", "vwap", "volume")
TICK, LOT = 0.1, 0.001
ROWS_A_DAY = 10_000_000
QUERIES = 40
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How many quotes, in how many days."""

    rows: int

    @property
    def days(self) -> int:
        """Days of the whole store."""
        return max(4, round(self.rows / ROWS_A_DAY))

    @property
    def rows_a_day(self) -> int:
        """Quotes of a day."""
        return self.rows // self.days

    @property
    def few_days(self) -> int:
        """Days of the small store: 20 of 155 million quotes."""
        return max(1, round(self.days * 20 / 155))

    @property
    def small_rows(self) -> int:
        """Quotes of a small day: 1 of 155 million, but no fewer than show more than the work that a day takes."""
        return max(self.rows // 155, 100_000)


# --- the market


def market(number: int, rows: int) -> tuple[Arrays, Arrays]:
    """Return quotes and trades of a day in microseconds, ticks and lots; every day is busy at the same times."""
    rng = stream(37, "benchmark", "scale", number)
    busy = np.exp(stream(37, "benchmark", "busy").normal(0, 0.8, 1440))
    minutes = rng.choice(1440, rows, p=busy / busy.sum())
    at = np.sort(minutes * 60_000_000 + (rng.random(rows) ** 2 * 60_000_000).astype(np.int64))
    at += day_start_ns(FIRST + timedelta(days=number)) // 1000
    bid = 600_000 + np.cumsum(rng.integers(-1, 2, rows) * (rng.random(rows) < 0.3))
    ask = bid + rng.integers(1, 4, rows)
    sizes = rng.integers(1, 20_000, (2, rows))
    traded = np.sort(rng.choice(rows, rows // 8, replace=False))
    buys = rng.random(traded.size) < 0.5
    price = np.where(buys, ask[traded], bid[traded])
    quotes = {"timestamp": at, "bid_price": bid, "ask_price": ask, "bid_size": sizes[0], "ask_size": sizes[1]}
    trades = {"timestamp": at[traded], "price": price, "size": rng.integers(1, 5000, traded.size), "buys": buys}
    return quotes, trades


def write_csv(folder: Path, number: int, rows: int) -> list[Path]:
    """Write a day as two files in market units."""
    quotes, trades = market(number, rows)
    sides = pl.when(pl.col("buys")).then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("side")
    frames = {
        "quotes": _in_units(pl.DataFrame(quotes)),
        "trades": _in_units(pl.DataFrame(trades).with_columns(sides).drop("buys")),
    }
    paths = [folder / f"{name}_{rows}_{number}.csv" for name in frames]
    for path, frame in zip(paths, frames.values(), strict=True):
        frame.write_csv(path)
    return paths


def _in_units(frame: pl.DataFrame) -> pl.DataFrame:
    units = [pl.col("^.*price$") * TICK, pl.col("^.*size$") * LOT]
    return frame.with_columns(units).with_columns(pl.col("^.*price$").round(1), pl.col("^.*size$").round(3))


# --- ingestion


def ingesting(jobs: Connection) -> None:
    """Record and ingest days on request, in a process of its own: home, day and files in, seconds and rows out."""
    while (job := jobs.recv()) is not None:
        home, day, paths = job
        workspace = stages.Workspace.of(Settings(home=home, tracking=False))
        started = time.perf_counter()
        stages.record(workspace, BTC, day, paths)
        made = stages.ingest(workspace, BTC, day)
        jobs.send((time.perf_counter() - started, made.facts["rows"]))
        shutil.rmtree(workspace.folder("raw", BTC, day))


class Ingestion:
    """The process, and the most memory that it and what it starts took."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=ingesting, args=(theirs,))
        self._process.start()
        self.peak_bytes = 0
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._watched)
        self._watch.start()

    def _watched(self) -> None:
        process = psutil.Process(self._process.pid)
        while not self._is_over.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, (process, *process.children(recursive=True)))))

    def day(self, home: Path, number: int, rows: int) -> float:
        """Ingest one generated day and return the seconds a row, quotes and trades alike."""
        paths = write_csv(self._folder, number, rows)
        self._jobs.send((home, FIRST + timedelta(days=number), paths))
        seconds, found = self._jobs.recv()
        if (found["quotes"], found["trades"]) != (rows, rows // 8):
            raise AssertionError(f"day {number} came in with {found}")
        for path in paths:
            path.unlink()
        return float(seconds / (rows + rows // 8))

    def close(self) -> None:
        """End the process."""
        self._jobs.send(None)
        self._is_over.set()
        self._watch.join()
        self._process.join()


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def ingest(plan: Plan, folder: Path) -> tuple[list[float], list[float], int]:
    """Ingest all days, small ones in turn; return seconds a row of either and the peak of memory in bytes."""
    ingestion, large, small = Ingestion(folder), [], []
    ingestion.day(folder / "warm", 0, plan.small_rows)
    every = max(plan.days // 8, 1)
    for number in range(plan.days):
        large.append(ingestion.day(folder / "whole", number, plan.rows_a_day))
        if number % every == 0:
            small.append(ingestion.day(folder / f"small{number}", number, plan.small_rows))
            shutil.rmtree(folder / f"small{number}")
    ingestion.close()
    return large, small, ingestion.peak_bytes


# --- queries


def span(rng: np.random.Generator, days: int, second: int) -> tuple[int, int]:
    """Return half an hour that begins at this second of one of so many days."""
    start = day_start_ns(FIRST) + int(rng.integers(days)) * NS_PER_DAY + second * NS_PER_SECOND
    return start, start + LENGTH_NS


def query(home: Path, window: tuple[int, int]) -> Arrays:
    """Return the features of a window."""
    return window_features(home, BTC, *window, step_ns=STEP_NS, columns=FEATURES)


def queries(plan: Plan, folder: Path) -> dict[str, float]:
    """Return the median seconds of a query on either store, the same times of day in turn."""
    few = folder / "few" / "ticks" / BTC.venue / BTC.symbol
    whole = folder / "whole" / "ticks" / BTC.venue / BTC.symbol
    for number in range(plan.few_days):
        name = (FIRST + timedelta(days=number)).isoformat()
        shutil.copytree(whole / name, few / name, copy_function=os.link)
    rng = stream(37, "benchmark", "queries")
    windows = {
        name: [span(rng, days, int(second)) for second in stream(37, "seconds").integers(60, 84_000, QUERIES)]
        for name, days in (("whole", plan.days), ("few", plan.few_days))
    }
    for name in windows:
        require_equal(folder / name, windows[name][0], plan)
    seconds: dict[str, list[float]] = {name: [] for name in windows}
    for is_timed in (False, True, True, True, True, True):
        for pair in zip(*windows.values(), strict=True):
            for name, window in zip(windows, pair, strict=True):
                started = time.perf_counter()
                query(folder / name, window)
                if is_timed:
                    seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def require_equal(home: Path, window: tuple[int, int], plan: Plan) -> None:
    """Stop unless a window's features are those of the generated day, computed from its arrays."""
    quotes, trades = market((window[0] - day_start_ns(FIRST)) // NS_PER_DAY, plan.rows_a_day)
    found = query(home, window)
    last = np.searchsorted(quotes["timestamp"] * 1000, found["label_ns"]) - 1
    bid, ask = quotes["bid_price"][last], quotes["ask_price"][last]
    np.testing.assert_allclose(found["mid"], (bid + ask) / 2 * TICK, rtol=1e-12)
    edges = np.searchsorted(trades["timestamp"] * 1000, [window[0], *found["label_ns"]])
    sums = np.diff(np.concatenate(([0], np.cumsum(trades["size"])))[edges])
    np.testing.assert_allclose(found["volume"], sums * LOT, rtol=1e-12, atol=1e-12)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=float, default=155e6, help="quotes in all")
    given = parser.parse_args()
    plan = Plan(2_000_000 if given.quick else int(given.rows))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small, peak = ingest(plan, folder)
        stored = sum(path.stat().st_size for path in (folder / "whole" / "ticks").rglob("*.parquet"))
        seconds = queries(plan, folder)
    per_row = {"large": statistics.median(large), "small": statistics.median(small)}
    size = f"{plan.rows / 1e6:,.3g} M quotes in {plan.days} days"
    label = "" if plan.rows >= 155_000_000 else "a smaller size than the claim's"
    claims = [
        Claim(
            "scale_memory_gib",
            f"{size}, CSV to store: peak memory of the whole process tree, GiB",
            peak / 2**30,
            3.0,
            "low",
            {"bytes on disk a quote, its share of trades included": stored / plan.rows},
            label,
        ),
        Claim(
            "scale_query_ratio",
            f"30 minutes of half-second features out of {size}: time over that out of "
            f"{plan.few_days * plan.rows_a_day / 1e6:.3g} M",
            seconds["whole"] / seconds["few"],
            1.5,
            "low",
            {f"{store} store, ms": value * 1e3 for store, value in seconds.items()},
            label,
        ),
        Claim(
            "scale_linearity",
            f"CSV to store, {size}: time a row over that of a day of {plan.small_rows / 1e6:.3g} M",
            per_row["large"] / per_row["small"],
            1.2,
            "low",
            {f"{kind} days, µs a row": value * 1e6 for kind, value in per_row.items()},
            label,
        ),
    ]
    report("scale", claims, as_json=given.json)


if __name__ == "__main__":
    main()
