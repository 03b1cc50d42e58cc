"""The Hawkes process, slow and obvious: its likelihood by double loops, its events as a tree of ancestors."""

from __future__ import annotations

import math

import numpy as np

from synth_pipeline.market.flows.multivariate_hawkes import Design, Record
from synth_pipeline.series import FloatArray, IntArray


def log_likelihood(record: Record, design: Design, theta: FloatArray, log_factors: FloatArray) -> float:
    """Sum over all pairs of events; the compensator event by event, type by type."""
    total = 0.0
    for i in range(len(record.times)):
        if not record.counted[i]:
            continue
        own = int(record.types[i])
        total += math.log(factor(record, design, log_factors, i, own) * intensity(record, design, theta, i, own))
        for e in range(len(design.group)):
            if record.cells[i, e] >= 0:
                total -= factor(record, design, log_factors, i, e) * compensator(record, design, theta, i, e)
    return total


def factor(record: Record, design: Design, log_factors: FloatArray, i: int, e: int) -> float:
    own, cell = int(design.group[e]), int(record.cells[i, e])
    return math.exp(float(log_factors[own] @ design.loadings[own, cell]) + float(design.offsets[own, cell]))


def past_of(record: Record, i: int) -> range:
    first = max(at for at in range(i + 1) if record.fresh[at])
    return range(first, i)


def weight(design: Design, theta: FloatArray, e: int, j: int, k: int) -> float:
    return float(theta[design.group[e], 1 + design.column[e, j] * len(design.decays) + k])


def intensity(record: Record, design: Design, theta: FloatArray, i: int, e: int) -> float:
    rate = float(theta[design.group[e], 0]) * float(record.shape[i])
    for at in past_of(record, i):
        for k, decay in enumerate(design.decays.tolist()):
            age = float(record.times[i] - record.times[at])
            rate += weight(design, theta, e, int(record.types[at]), k) * decay * math.exp(-decay * age)
    return rate


def compensator(record: Record, design: Design, theta: FloatArray, i: int, e: int) -> float:
    """Between event i - 1 and event i."""
    begin, end = float(record.times[i - 1]), float(record.times[i])
    passed = float(theta[design.group[e], 0]) * float(record.shape[i]) * (end - begin)
    for at in past_of(record, i):
        for k, decay in enumerate(design.decays.tolist()):
            born = float(record.times[at])
            share = math.exp(-decay * (begin - born)) - math.exp(-decay * (end - born))
            passed += weight(design, theta, e, int(record.types[at]), k) * share
    return passed


def simulated(
    rng: np.random.Generator, end: float, base: FloatArray, weights: FloatArray, decays: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Return times and types on [0, end]: immigrants and, generation by generation, their offspring.

    Hawkes and Oakes (1974), J. Appl. Probab. 11; `weights` have shape (types, sources, decays).
    """
    times = [rng.uniform(0.0, end, rng.poisson(rate * end)) for rate in base]
    found_times, found_types = [], []
    while sum(map(len, times)):
        found_times += times
        found_types += [np.full(len(each), e) for e, each in enumerate(times)]
        children: list[FloatArray] = []
        for e in range(len(base)):
            born = [np.zeros(0)]
            for j, parents in enumerate(times):
                for k, decay in enumerate(decays):
                    each = np.repeat(parents, rng.poisson(weights[e, j, k], len(parents)))
                    born.append(each + rng.exponential(1.0 / decay, len(each)))
            joined = np.concatenate(born)
            children.append(joined[joined < end])
        times = children
    order = np.argsort(np.concatenate(found_times))
    return np.concatenate(found_times)[order], np.concatenate(found_types)[order].astype(np.int64)
