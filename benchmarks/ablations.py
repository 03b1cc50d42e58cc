"""What decided the choices of our own models: one setting changed at a time, the same budget, the same seeds.

`--windows` trains `window_flow` on Stocks under each of `WINDOWS` and prints the Markdown table of `docs/ablations.md`.
It makes no claim. `--steps` sets the budget.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import fidelity_learned
import numpy as np
from fidelity_learned import STOCKS
from tsg import neighbour_distances

from synth_pipeline.fidelity import cross, learned_scores
from synth_pipeline.generators.window_flow import WindowFlow
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

WINDOWS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "1 step: the normal law of the scores": {"steps": 1},
    "not whitened": {"whitening": 1e-9},
    "wholly whitened": {"whitening": 1.0},
    "calibrated after sampling": {},
    "8 sampling steps": {"sampling_steps": 8},
}


class Calibrated(WindowFlow):
    """The model with the calibration of the others."""

    def calibrated(self, scores: FloatArray) -> FloatArray:
        """Map each feature to the standard normal law by itself."""
        return np.stack([each.normal(scores[:, :, at]) for at, each in enumerate(self.calibration)], axis=2)


def windows(steps: int, repeats: int, encoder: int) -> None:
    """Print the table of `window_flow`."""
    real = fidelity_learned.windows(STOCKS)
    print("| what differs | discriminative | Context-FID | correlational | neighbours | processor s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, more in WINDOWS.items():
        kind = Calibrated if name.startswith("calibrated") else WindowFlow
        made = kind.from_settings({"steps": steps, **more})
        started = time.process_time()
        made.fit_windows(real, rng=stream(0, "ablations", "fit"))
        spent = time.process_time() - started
        found = made.sample_windows(len(real), rng=stream(0, "ablations", "sample"))
        told = learned_scores.discriminative(real, found, rng=stream(0, "ablations", "ds"), repeats=repeats)
        fid = learned_scores.context_fid(real, found, rng=stream(0, "ablations", "fid"), repeats=1, steps=encoder)
        together = cross.correlational(real, found, rng=stream(0, "ablations", "corr"))
        ours, other = neighbour_distances(real, found)
        print(
            f"| {name} | {told.mean:.4f} ± {told.half_width:.4f} | {fid.mean:.4f} | {together:.4f} | "
            f"{ours / other:.2f} | {spent:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", action="store_true", required=True, help="the table of window_flow")
    parser.add_argument("--steps", type=int, default=2_000, help="training steps of each row")
    parser.add_argument("--repeats", type=int, default=5, help="of the discriminative score")
    parser.add_argument("--encoder", type=int, default=600, help="training steps of the encoder of Context-FID")
    options = parser.parse_args()
    windows(options.steps, options.repeats, options.encoder)


if __name__ == "__main__":
    main()
