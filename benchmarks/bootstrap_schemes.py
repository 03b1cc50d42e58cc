"""Schemes of the block bootstrap beside each other: how near candidates come to history, and how much they copy.

Of every file and scheme, with block lengths by the rule, and of the hybrid with shorter ones too: the share of
candidates as long as the file whose fidelity is 95 or more, their median fidelity, the longest verbatim run and the
share of copied steps (means over a few of them), the share of rows of history that a candidate uses, and how far end
prices spread, in units of what those of independent returns would (the standard deviation of a return times √n). Prints
the Markdown table of `docs/bootstrap.md`; it makes no claim.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, machine

from synth_pipeline.bars import files
from synth_pipeline.fidelity.copying import copied
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.scoring import Base, Scorer
from synth_pipeline.generators.block_bootstrap import BlockBootstrap
from synth_pipeline.generators.blocks import SCHEMES
from synth_pipeline.rng import per_path, stream
from synth_pipeline.series import Series

DATA = Path(os.environ.get("SYNTH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
HOURLY = tuple(f"binance_usdm_{asset}USDT_1h_to20230630.csv.xz" for asset in ("BTC", "ETH", "SOL", "LINK"))
SETTINGS: tuple[dict[str, Any], ...] = (
    *({"scheme": scheme} for scheme in SCHEMES),
    *({"block_length": n} for n in (60, 20)),
)
NAMES = ("open", "high", "low", "close", "volume")
COPIES, MOST_STEPS = 5, 6_000
"""Candidates that are searched for copies, and how much of each: a search takes as long as there are pairs of rows."""


def history(name: str) -> Series:
    """Return the bars of a file, one step each."""
    data = (DATA / name).read_bytes()
    data = gzip.decompress(data) if name.endswith(".gz") else lzma.decompress(data)
    bars, _ = files.read(data, name, files.Options())
    values = np.stack([bars.columns[column] for column in NAMES], axis=1)[np.newaxis]
    return Series(values, NAMES, bars.timeframe.ns, bars.columns["close_ns"][:1], 0.0)


def measured(series: Series, settings: dict[str, Any], candidates: int) -> dict[str, Any]:
    """Return the figures of one scheme on one file."""
    generator = BlockBootstrap.from_settings(settings).fit(series, rng=stream(0, "fit"))
    scorer, ends = Scorer(Base.of(series, series.steps)), []
    for number, piece in generator.stream(candidates, series.steps, rng=stream(0, "candidates")):
        prices = piece.column("close")[0]
        scorer.add(number, prices)
        ends.append(float(np.log(prices[-1] / series.column("close")[0, -1])))
    found = list(scorer.finish().values())
    real = Sample.of(series)
    heads = [copied(real, each.head[:MOST_STEPS]) for each in found[:COPIES]]
    scores = [each.score for each in found]
    moves = generator.assets[0].moves
    return {
        "scheme": generator.parameters.scheme,
        "block_length": generator.length,
        "accepted": float(np.mean(np.array(scores) >= 95.0)),
        "median_fidelity": statistics.median(scores),
        "longest_run": statistics.mean(each.longest for each in heads),
        "copied": statistics.mean(each.steps / each.known for each in heads),
        "used": statistics.mean(_used(generator, series.steps - 1)),
        "spread": statistics.stdev(ends) / float(moves.std() * np.sqrt(len(moves))),
    }


def _used(generator: BlockBootstrap, steps: int) -> Iterator[float]:
    """Yield which share of the rows of history each of a few candidates uses."""
    for own in per_path(stream(0, "used"), COPIES):
        (rows,) = generator.blocks().rows(own, [steps])
        yield len(np.unique(rows)) / len(generator.labels)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| file | scheme | block | fidelity ≥ 95 | median | longest run | copied | rows used | end spread |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            f"| {row['file']} | {row['scheme']} | {row['block_length']:.0f} | {row['accepted']:.0%} | "
            f"{row['median_fidelity']:.1f} | {row['longest_run']:.0f} | {row['copied']:.1%} | {row['used']:.0%} | "
            f"{row['spread']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every scheme on every file that is there."""
    asked = arguments(__doc__).parse_args()
    names = ("sp500_daily_1999_2018.csv.gz", *HOURLY)[: 2 if asked.quick else None]
    rows = []
    for name in (name for name in names if (DATA / name).exists()):
        series = history(name)
        label = name.partition("_1h")[0].partition("_1999")[0]
        rows += [{"file": label} | measured(series, each, 40 if asked.quick else 200) for each in SETTINGS]
    document = {"benchmark": "bootstrap_schemes", "machine": machine(), "claims": [], "schemes": rows}
    print(json.dumps(document, indent=2) if asked.json else table(rows))


if __name__ == "__main__":
    main()
