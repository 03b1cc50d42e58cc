"""Chunk flow with one of its parts taken out at a time: what each does for paths of two hours of the AMZN day.

Prints a Markdown table; it makes no claim. Facts are those of `generators_paths`; drift is the |z| of the mean log
price of 64 paths, spread of ends the standard deviation of log prices after two hours over that of independent
returns of the same size; state the standard deviation of the logarithm of the return's scale along paths, over that
along the training series.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from bootstrap_schemes import DATA
from common import arguments, machine
from generators_paths import DRIFTING, STEPS, Check, Recording, checks, recordings, share
from torch import Tensor, nn

from synth_pipeline.fidelity import temporal
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.generators import cascade
from synth_pipeline.generators.chunk_flow import ChunkFlow
from synth_pipeline.generators.rectified_flow import Pair, Velocity
from synth_pipeline.generators.residuals import Residuals
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series


def _constant(_: int, scores: FloatArray, mean: FloatArray, averages: FloatArray, *__: Any) -> tuple[FloatArray, float]:
    """Stand in for the likelihood of scales: all weight on the constant."""
    weights = np.zeros(1 + averages[0].size * 2 // 3)
    weights[0] = 1.0
    return weights, float(np.mean((scores - mean) ** 2))


class Steady(ChunkFlow):
    """Without the state of volatility: scales are constant, and the flow sees no activity."""

    def _columns(self, *given: Any) -> FloatArray:
        with patch.object(cascade, "_climbed", _constant):
            return super()._columns(*given)

    def _raw(self, averages: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
        """Hide activities and scales."""
        found = super()._raw(averages, mean, scale)
        features, scales = len(self.odd), len(self.cascade.decays)
        activities = np.tile(np.arange(3 * features) >= features, scales)
        found[:, : activities.size][:, activities] = 0.0
        found[:, -features:] = 0.0
        return found


class OneSided(ChunkFlow):
    """Without the mirror: every number is one that does not change its sign."""

    def build(self, directions: FloatArray) -> nn.Module:
        """Call every number even."""
        settings, lags = self.parameters, self.parameters.window - self.parameters.chunk
        known = len(self.seen_odd) + lags * len(directions) + 10
        ones = [1.0] * len(directions)
        return Velocity(ones, settings.chunk, (known, 0), settings.width, settings.blocks, settings.dropped)

    def _context(self, network: Velocity, seen: Tensor, recent: Tensor, words: Tensor, shown: Tensor | float) -> Pair:
        """Put everything into the even part."""
        del network, shown
        return Pair(torch.cat((seen, recent.flatten(1), words), dim=1), seen[:, :0])


class Uncalibrated(ChunkFlow):
    """Scores as the flow makes them."""

    def calibrated(self, scores: FloatArray) -> FloatArray:
        """Change nothing."""
        return scores


class Unmended(ChunkFlow):
    """What the flow draws is fed back as it is."""

    def trained(self, data: Windows, rng: np.random.Generator) -> None:
        """Mend nothing."""
        del data, rng
        self.residuals = cast(Residuals, lambda drawn, _: drawn)


VARIANTS: dict[str, tuple[type[ChunkFlow], dict[str, Any]]] = {
    "all of it": (ChunkFlow, {}),
    "no state of volatility": (Steady, {}),
    "no mirror": (OneSided, {}),
    "no calibration": (Uncalibrated, {}),
    "draws not mended": (Unmended, {}),
    "no noise on the context": (ChunkFlow, {"context_noise": 1e-9}),
    "no training of the flow": (ChunkFlow, {"steps": 1}),
}


def state(generator: ChunkFlow, series: Series) -> float:
    """Return the standard deviation of the logarithm of the scale of returns along a series."""
    scores = generator.transform.encode(series, rng=stream(0, "state")).values
    rows = scores.reshape(-1, scores.shape[2])
    opens = np.zeros(len(rows), dtype=bool)
    opens[:: scores.shape[1]] = True
    fitted, atoms = generator.cascade, generator.cascade.atoms
    _, averages = cascade.remembered(rows, opens, fitted.odd, fitted.decays, atoms.low, atoms.high, atoms.drivers)
    at = generator.transform.anchor.names.index(series.price_name)
    known = np.isfinite(rows).all(axis=1)
    return float(np.log(fitted.law(averages[known])[1][:, at]).std())


def measured(recording: Recording, facts: list[Check], kind: type[ChunkFlow], settings: dict[str, Any]) -> list[float]:
    """Return the columns of the table."""
    generator = kind.from_settings(settings).fit(recording.train, rng=stream(0, "fit"))
    paths = generator.sample(DRIFTING, STEPS + 1, rng=stream(0, "paths"))
    some = replace(paths, values=paths.values[:8], start_ns=paths.start_ns[:8])
    real, made = Sample.of(recording.train), Sample.of(paths)
    ends, size = made.returns.sum(axis=1), float(made.returns.std())
    return [
        share(facts, recording.train, some)[0],
        temporal.absolute_return_acf_error(real, made),
        abs(float(ends.mean() / (ends.std(ddof=1) / np.sqrt(len(ends))))),
        float(ends.std()) / (size * np.sqrt(STEPS)),
        size / float(real.pooled.std()),
        state(generator, some) / state(generator, recording.train),
    ]


def main() -> None:
    """Measure every variant."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=3_000, help="training steps of each variant")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        recording = next(recordings(DATA, Path(home)))
    facts = checks(recording.train)
    steps = {"steps": 200 if asked.quick else asked.steps}
    rows = {name: measured(recording, facts, kind, steps | more) for name, (kind, more) in VARIANTS.items()}
    if asked.json:
        print(json.dumps({"benchmark": "chunk_flow_ablation", "machine": machine(), "claims": [], "rows": rows}))
        return
    heads = ("facts", "ACF distance", "drift z", "spread of ends", "size", "state")
    print(f"| | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")
    for name, row in rows.items():
        print(f"| {name} | {row[0]:.2f} | {row[1]:.4f} | {row[2]:.1f} | {row[3]:.2f} | {row[4]:.2f} | {row[5]:.2f} |")


if __name__ == "__main__":
    main()
