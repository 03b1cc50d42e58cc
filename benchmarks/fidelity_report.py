"""What a full report costs: every family with the learned ones, floors, verdicts, panels and the page; wall seconds.

The series are as long and as wide as the literature's Stocks: 3,685 rows of 6 features, held out 1,600 more.
"""

from __future__ import annotations

import time

from common import Claim
from fidelity_speed import market

from synth_pipeline.reports.report import evaluate
from synth_pipeline.rng import stream

ROWS, HELD = 3_685, 1_600


def measured(*, quick: bool) -> list[Claim]:
    """Evaluate once, what compiles included; a quick run leaves the learned families out and claims nothing."""
    train, made, held = market("train", 1, ROWS), market("made", 1, ROWS), market("held", 1, HELD)
    if quick:
        return []
    started = time.perf_counter()
    report = evaluate(train, made, held, families="all", rng=stream(7, "benchmark", "report"))
    page = report.html()
    seconds = time.perf_counter() - started
    metrics = sum(row["value"] is not None for row in report.table())
    return [
        Claim(
            "report_seconds",
            "full report with learned metrics, seconds",
            seconds,
            180,
            "low",
            {"metrics": metrics, "page (MB)": len(page.encode()) / 1e6},
            f"{ROWS:,} rows of 6 features, {HELD:,} held out; compilation included",
        )
    ]
