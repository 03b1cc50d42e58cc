"""Whether a flow finds its own parameters again: simulated from known ones, fitted, compared with its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synth_pipeline import plugins
from synth_pipeline.market import flows
from synth_pipeline.market.flows.calibrated import Calibrated
from synth_pipeline.market.flows.observing import orders_of
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND

SECONDS = 600.0
"""Length of one simulated record."""


@dataclass(frozen=True)
class Recovery:
    """How often the interval of a fit held the true value."""

    coverage: float
    """Share over all parameters and seeds."""
    by_parameter: dict[str, float]
    """Share over seeds."""


def truth_of(name: str, *, seconds: float = SECONDS) -> Calibrated[Any]:
    """Return a flow of known parameters: zero intelligence's example, or another flow as fitted on a run of it."""
    example = ZeroIntelligence.example()
    if name == "zero_intelligence":
        return example
    run = example.start(0, rng=stream(0, "truth", name))
    messages = orders_of(run, int(seconds * NS_PER_SECOND), example.opening.scale)
    flow: Calibrated[Any] = plugins.load(flows, name)()
    return flow.fit(messages, rng=stream(1, "truth", name))


def recovery(name: str, seeds: Sequence[int], *, seconds: float = SECONDS, progress: Progress = silent) -> Recovery:
    """Return how often fits on simulations of a flow, one a seed, cover its parameters."""
    truth = truth_of(name, seconds=seconds)
    hits: dict[str, list[bool]] = {key: [] for key in truth.estimates}
    for number, seed in enumerate(seeds, start=1):
        run = truth.start(0, rng=stream(seed, "recovery", name))
        messages = orders_of(run, int(seconds * NS_PER_SECOND), truth.opening.scale)
        for key, each in type(truth)(truth.parameters).fit_like(messages, truth).estimates.items():
            if key in hits and each.error is not None:
                low, high = each.interval
                hits[key].append(low <= truth.estimates[key].value <= high)
        progress(number, len(seeds), name)
    shares = {key: float(np.mean(each)) for key, each in hits.items() if each}
    return Recovery(float(np.mean([hit for each in hits.values() for hit in each])), shares)
