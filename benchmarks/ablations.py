"""What decided the choices of our own models: one setting changed at a time, the same budget, the same seeds.

`--windows` trains `window_flow` on Stocks under each of `WINDOWS`, `--held-out` on part of Stocks, of ETTh and of
hourly bars before 2022 H2 under each of `HELD_OUT`; both print a Markdown table of `docs/ablations.md`. The loss on
windows held out decides; scores do not. Neither makes a claim. `--steps` sets the budget.
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from unittest.mock import patch

import fidelity_hours as hours
import fidelity_learned
import numpy as np
import torch
from bootstrap_schemes import DATA
from fidelity_learned import ETTH, STOCKS
from generators import FILE, VALIDATION, market
from torch import Tensor
from tsg import neighbour_distances

from synth_pipeline.fidelity import cross, learned_scores
from synth_pipeline.generators import window_flow
from synth_pipeline.generators.training_windows import Windows
from synth_pipeline.generators.window_flow import WindowDenoiser, WindowFlow
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

WINDOWS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "1 step: the normal law of the scores": {"steps": 1},
    "not whitened": {"whitening": 1e-9},
    "wholly whitened": {"whitening": 1.0},
    "not calibrated after sampling": {},
    "8 sampling steps": {"sampling_steps": 8},
}


_BLOCK, _EVERY, _WHICH, _DRAWS, _MOST = 40, 5, 3, 16, 1_000
"""Windows are held out in blocks, one of every so many; their loss is the mean of so many draws of noise.

None of these blocks holds a record price of Stocks: beyond all that was seen, a score says nothing of a network.
"""


class Uncalibrated(WindowFlow):
    """The model as its network samples."""

    def calibrated(self, scores: FloatArray) -> FloatArray:
        """Leave the scores as they are."""
        return scores


def windows(steps: int, repeats: int, encoder: int) -> None:
    """Print the table of `window_flow`."""
    real = fidelity_learned.windows(STOCKS)
    print("| what differs | discriminative | Context-FID | correlational | neighbours | processor s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, more in WINDOWS.items():
        kind = Uncalibrated if name.startswith("not calibrated") else WindowFlow
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


class Ungained(WindowDenoiser):
    """Without gains."""

    def said(self, numbers: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply by nothing."""
        added, gain = super().said(numbers, known)
        return added, torch.zeros_like(gain)


class Plain(Ungained):
    """Without gains and blind to sizes: a perceptron."""

    def said(self, numbers: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Hide |u|."""
        turned, sizes = numbers.chunk(2, dim=1)
        return super().said(torch.cat((turned, torch.zeros_like(sizes)), dim=1), known)


HELD_OUT: dict[str, tuple[type[WindowDenoiser], dict[str, Any]]] = {
    "as it is": (WindowDenoiser, {}),
    "without gains": (Ungained, {}),
    "without gains and sizes": (Plain, {}),
}


def held_out(steps: int) -> None:
    """Print the denoising loss on windows held out; 1 is that of the normal law where it is the law of what is seen."""
    print("| what differs | Stocks | ETTh | BTCUSDT hourly |")
    print("| --- | --- | --- | --- |")
    for name, (network, more) in HELD_OUT.items():
        with patch.object(window_flow, "WindowDenoiser", network):
            losses = [
                *(
                    _loss_of_windows(fidelity_learned.windows(each), {"steps": steps, **more})
                    for each in (STOCKS, ETTH)
                ),
                _loss_of_bars({"steps": steps, "window": hours.BARS, **more}),
            ]
        print(f"| {name} | " + " | ".join(f"{loss:.4f}" for loss in losses) + " |", flush=True)


def _loss_of_windows(values: FloatArray, settings: dict[str, Any]) -> float:
    """Hold out every so many blocks of windows, and leave out what shares rows with them."""
    held = np.arange(len(values)) // _BLOCK % _EVERY == _WHICH
    near = np.convolve(held, np.ones(2 * values.shape[1] - 1), mode="same") > 0
    made = WindowFlow.from_settings(settings).fit_windows(values[~near], rng=stream(0, "held-out"))
    scores = [law.normal(values[held][..., at]) for at, law in enumerate(made.marginals)]
    return _loss(made, torch.from_numpy(np.stack(scores, axis=2)).float())


def _loss_of_bars(settings: dict[str, Any]) -> float:
    """Hold out the second half of 2022."""
    known = market(DATA / FILE, VALIDATION)
    made = WindowFlow.from_settings(settings).fit(known.train, rng=stream(0, "held-out"))
    scores = made.transform.encode(known.test.select(made.transform.anchor.names), rng=stream(0, "scores"))
    held = Windows.of(scores, hours.BARS, 1).spread(_MOST)
    return _loss(made, torch.cat((held, torch.zeros(*held.shape[:2], len(made.regime_names))), dim=2))


def _loss(made: WindowFlow, held: Tensor) -> float:
    """Return the mean loss, under the same noise for every network."""
    noise = torch.Generator().manual_seed(0)
    assert isinstance(made.network, WindowDenoiser)
    with torch.inference_mode():
        return float(np.mean([float(made.network.misfit(held, noise)) for _ in range(_DRAWS)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    table = parser.add_mutually_exclusive_group(required=True)
    table.add_argument("--windows", action="store_true", help="scores of window_flow on Stocks")
    table.add_argument("--held-out", action="store_true", help="its denoising loss on windows held out")
    parser.add_argument("--steps", type=int, default=2_000, help="training steps of each row")
    parser.add_argument("--repeats", type=int, default=5, help="of the discriminative score")
    parser.add_argument("--encoder", type=int, default=600, help="training steps of the encoder of Context-FID")
    options = parser.parse_args()
    if options.held_out:
        held_out(options.steps)
    else:
        windows(options.steps, options.repeats, options.encoder)


if __name__ == "__main__":
    main()
