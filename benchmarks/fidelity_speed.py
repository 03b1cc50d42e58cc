"""What an evaluation costs where nothing is trained: many short windows, and one long series. Seconds of CPU, one core:
other load on the machine takes none of them. Floors, bands, verdicts and panels are in the time, compilation is not."""

from __future__ import annotations

import time

import numpy as np
from common import Claim
from threadpoolctl import threadpool_limits

from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.rng import stream
from synth_pipeline.series import Series

NAMES = ("close", "volume", "spread", "imbalance_1", "ofi", "microprice")


def market(name: str, paths: int, steps: int, features: int = len(NAMES)) -> Series:
    """Make paths with clustered volatility, and volume, spread and imbalance that go with it."""
    rng = stream(7, "benchmark", "fidelity", name)
    noise = rng.standard_normal((4, paths, steps))
    level = np.exp(0.5 * np.sin(np.cumsum(0.05 * noise[0], axis=1)))
    moves = 1e-3 * level * rng.standard_t(4, (paths, steps))
    imbalance = np.tanh(noise[1])
    close = 100 * np.exp(np.cumsum(moves, axis=1))
    columns = [
        close,
        np.exp(level + 0.3 * noise[2]),
        0.01 * (1 + np.abs(imbalance)),
        imbalance,
        imbalance + noise[3],
        close * (1 + 1e-5 * imbalance),
    ]
    values = np.stack(columns[:features], axis=2)
    return Series(values, NAMES[:features], 10**9, np.zeros(paths, dtype=np.int64), 0.0)


def seconds(train: Series, synthetic: Series, holdout: Series) -> tuple[float, int]:
    """Return the seconds of an evaluation, and of how many metrics it is."""
    with threadpool_limits(1):  # a second one waits for the first by spinning, and what it spins is counted
        started = time.process_time()
        found = evaluate(train, synthetic, holdout, rng=stream(7, "benchmark", "fidelity"))
        taken = time.process_time() - started
    return taken, sum(result.value is not None for result in found.results)


def measured(*, quick: bool) -> list[Claim]:
    """Measure both, after a short evaluation of each kind that compiles."""
    seconds(*(market(f"warm {side}", 1, 3_000) for side in range(3)))
    seconds(*(market(f"warm {side}", 200, 24) for side in range(3)))
    short, metrics = seconds(market("train", 10_000, 24), market("made", 10_000, 24), market("held", 5_000, 24))
    rows = 200_000 if quick else 1_000_000
    long, others = seconds(market("train", 1, rows, 2), market("made", 1, rows, 2), market("held", 1, rows // 2, 2))
    return [
        Claim(
            "cheap_seconds",
            "evaluation of 10,000 windows of 24 steps and 6 features, nothing trained",
            short,
            5,
            "low",
            {"metrics": metrics},
            "as many training windows, 5,000 held out",
        ),
        Claim(
            "million_seconds",
            f"evaluation of a series of {rows:,} rows, nothing trained",
            long,
            10,
            "low",
            {"metrics": others},
            f"as many training rows, {rows // 2:,} held out; close and volume",
        ),
    ]
