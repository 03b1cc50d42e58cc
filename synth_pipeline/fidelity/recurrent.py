"""A small recurrent network and its training, compiled: the judge of the learned scores.

One layer of the gated unit as TensorFlow 1 has it, which differs from torch's in two places: the gates' bias begins at
1, and the reset gate acts on the state before the candidate's product. With input x and state h,

    (r, u) = sigmoid([x, h] G + g)    c = tanh([x, r h] C + k)    h' = u h + (1 - u) c    logit = h' w + b

G, C and w are drawn as Glorot and Bengio (2010, AISTATS) have it, g = 1, k = b = 0. Adam has TensorFlow's form. All
weights are one row of float32. A batch lies along the last axis, so that every loop over it is one over vector
registers; its sums do not depend on the number of threads, for a network is trained by one. `side_by_side` trains
several at once, each on a thread of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from synth_pipeline.series import FloatArray, IntArray

Floats = NDArray[np.float32]
Loss = Literal["cross_entropy", "absolute_error", "squared_error"]
"""Of the logit and a target of 0 or 1; of its sigmoid and a target in [0, 1]; of the bare logit, halved."""
T = TypeVar("T")
R = TypeVar("R")

_CROSS_ENTROPY, _ABSOLUTE_ERROR, _SQUARED_ERROR = range(3)
_CODES: dict[Loss, int] = {
    "cross_entropy": _CROSS_ENTROPY,
    "absolute_error": _ABSOLUTE_ERROR,
    "squared_error": _SQUARED_ERROR,
}
LEARNING_RATE, _BETA_1, _BETA_2, _EPSILON = 1e-3, 0.9, 0.999, 1e-8
_ANY_ORDER = {"reassoc", "contract"}
_PIECE = 256
"""Windows that are judged together."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a network learns."""

    inputs: Floats
    """Shape (n, steps, features)."""
    targets: Floats
    """Shape (n, steps)."""
    step_weights: Floats
    """Weight of the loss at every step, shape (steps,)."""
    loss: Loss


def floats(values: FloatArray) -> Floats:
    """Return values as the network takes them."""
    return np.ascontiguousarray(values, dtype=np.float32)


def last_step(inputs: Floats, targets: FloatArray, loss: Loss, weight: float = 1.0) -> Task:
    """Return the task of telling one number a window, shape (n,), after its last step."""
    told, weights = np.zeros(inputs.shape[:2], np.float32), np.zeros(inputs.shape[1], np.float32)
    told[:, -1], weights[-1] = targets, weight
    return Task(inputs, told, weights, loss)


def drawn(count: int, steps: int, size: int, *, rng: np.random.Generator) -> IntArray:
    """Draw a batch of rows for every step, shape (steps, size); no row comes twice in one batch."""
    size = min(size, count)
    return np.stack([rng.choice(count, size, replace=False, shuffle=False) for _ in range(steps)])


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return `work` of every item in order, computed on as many threads as there are cores."""
    with ThreadPoolExecutor(threads(len(items))) as pool:
        return list(pool.map(work, items))


def threads(items: int) -> int:
    """Return how many threads `side_by_side` works on."""
    return max(1, min(items, os.cpu_count() or 1))


def initial(features: int, hidden: int, *, rng: np.random.Generator) -> Floats:
    """Draw the weights of an untrained network: G, g, C, k, w, b one after the other."""
    joined = features + hidden
    parts = [
        _glorot(joined, 2 * hidden, rng),
        np.ones(2 * hidden),
        _glorot(joined, hidden, rng),
        np.zeros(hidden),
        _glorot(hidden, 1, rng),
        np.zeros(1),
    ]
    return np.concatenate(parts).astype(np.float32)


def _glorot(rows: int, columns: int, rng: np.random.Generator) -> FloatArray:
    limit = math.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, rows * columns)


def train(
    task: Task, batches: IntArray, hidden: int, *, rng: np.random.Generator, learning_rate: float = LEARNING_RATE
) -> Floats:
    """Return the weights after one step of Adam a batch; `batches` are rows of the task, shape (steps, size)."""
    weights = initial(task.inputs.shape[2], hidden, rng=rng)
    code = _CODES[task.loss]
    _descend(weights, hidden, task.inputs, task.targets, task.step_weights, batches, code, learning_rate)
    return weights


def logits(weights: Floats, hidden: int, inputs: Floats) -> Floats:
    """Return the logit after every step, shape (n, steps)."""
    return _judged(weights, hidden, inputs)


def loss_and_gradient(weights: Floats, hidden: int, task: Task) -> tuple[float, Floats]:
    """Return the loss over all windows of a task, and its gradient."""
    count, steps, features = task.inputs.shape
    room = _room(steps, features, hidden, count)
    gradient = np.empty_like(weights)
    every = np.arange(count)
    code = _CODES[task.loss]
    loss = _gradient(weights, hidden, task.inputs, task.targets, task.step_weights, every, code, room, gradient)
    return float(loss), gradient


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER, forceinline=True)
def _tanh(x: np.float32) -> np.float32:
    """Return tanh: Lambert's continued fraction at x/8, doubled three times; no branch, so loops over it vectorize."""
    eighth = np.float32(0.125) * np.float32(min(max(x, np.float32(-10.0)), np.float32(10.0)))
    square = eighth * eighth
    top = eighth * (np.float32(105.0) + np.float32(10.0) * square)
    t = top / (np.float32(105.0) + square * (np.float32(45.0) + square))
    for _ in range(3):
        t = np.float32(2.0) * t / (np.float32(1.0) + t * t)
    return t


@njit(cache=True, nogil=True)
def _room(steps: int, features: int, hidden: int, size: int) -> tuple[np.ndarray, ...]:
    """Make room for a batch: inputs, states, gates, candidates, reset states, logits, and slopes of all of them."""
    x = np.empty((steps, features, size), np.float32)
    states = np.zeros((steps + 1, hidden, size), np.float32)
    gates = np.empty((steps, 2 * hidden, size), np.float32)
    candidates = np.empty((steps, hidden, size), np.float32)
    kept = np.empty((steps, hidden, size), np.float32)
    out = np.empty((steps, size), np.float32)
    slopes = np.empty((4 * hidden, size), np.float32)
    return x, states, gates, candidates, kept, out, slopes


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER, forceinline=True)
def _add_product(total: np.ndarray, kernel: np.ndarray, rows: np.ndarray, first: int) -> None:
    """Add kernel[first:]ᵀ rows to `total`, shapes (outputs, size), (inputs, outputs), (inputs, size)."""
    for j in range(total.shape[0]):
        row = total[j]
        for i in range(rows.shape[0]):
            weight, other = kernel[first + i, j], rows[i]
            for b in range(row.size):
                row[b] += weight * other[b]


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER, forceinline=True)
def _add_back(total: np.ndarray, kernel: np.ndarray, slopes: np.ndarray, first: int) -> None:
    """Add kernel[first:] slopes to `total`, the way back of `_add_product`."""
    for i in range(total.shape[0]):
        row = total[i]
        for j in range(slopes.shape[0]):
            weight, other = kernel[first + i, j], slopes[j]
            for b in range(row.size):
                row[b] += weight * other[b]


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER, forceinline=True)
def _add_outer(gradient: np.ndarray, rows: np.ndarray, slopes: np.ndarray, first: int) -> None:
    """Add rows slopesᵀ, summed over the batch, to gradient[first:]."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(slopes.shape[0]):
            other, total = slopes[j], np.float32(0.0)
            for b in range(row.size):
                total += row[b] * other[b]
            gradient[first + i, j] += total


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER, forceinline=True)
def _add_sums(gradient: np.ndarray, slopes: np.ndarray) -> None:
    for j in range(slopes.shape[0]):
        total, row = np.float32(0.0), slopes[j]
        for b in range(row.size):
            total += row[b]
        gradient[j] += total


@njit(cache=True, nogil=True, forceinline=True)
def _parts(row: np.ndarray, features: int, hidden: int) -> tuple[np.ndarray, ...]:
    """Cut a row of weights, or of their gradient, into G, g, C, k, w, b."""
    joined = features + hidden
    one = joined * 2 * hidden
    two = one + 2 * hidden
    three = two + joined * hidden
    four = three + hidden
    five = four + hidden
    return (
        row[:one].reshape(joined, 2 * hidden),
        row[one:two],
        row[two:three].reshape(joined, hidden),
        row[three:four],
        row[four:five],
        row[five:],
    )


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER)
def _forward(weights: np.ndarray, hidden: int, room: tuple[np.ndarray, ...]) -> None:
    """Fill everything but the inputs from them; the first state is 0."""
    x, states, gates, candidates, kept, out, _ = room
    steps, features, size = x.shape
    gate_kernel, gate_bias, kernel, bias, head, head_bias = _parts(weights, features, hidden)
    half, one = np.float32(0.5), np.float32(1.0)
    for t in range(steps):
        gate, candidate, before, after = gates[t], candidates[t], states[t], states[t + 1]
        for j in range(2 * hidden):
            gate[j] = gate_bias[j]
        _add_product(gate, gate_kernel, x[t], 0)
        _add_product(gate, gate_kernel, before, features)
        for j in range(2 * hidden):
            row = gate[j]
            for b in range(size):
                row[b] = half + half * _tanh(half * row[b])
        for j in range(hidden):
            reset, old, new = gate[j], before[j], kept[t, j]
            for b in range(size):
                new[b] = reset[b] * old[b]
            candidate[j] = bias[j]
        _add_product(candidate, kernel, x[t], 0)
        _add_product(candidate, kernel, kept[t], features)
        out[t] = head_bias[0]
        logit = out[t]
        for j in range(hidden):
            row, update, old, new, weight = candidate[j], gate[hidden + j], before[j], after[j], head[j]
            for b in range(size):
                row[b] = _tanh(row[b])
            for b in range(size):
                new[b] = update[b] * old[b] + (one - update[b]) * row[b]
                logit[b] += weight * new[b]


@njit(cache=True, nogil=True, fastmath=_ANY_ORDER)
def _backward(weights: np.ndarray, hidden: int, room: tuple[np.ndarray, ...], gradient: np.ndarray) -> None:
    """Fill the gradient from what `_forward` left; in place of the logits lie the slopes of the loss in them by now."""
    x, states, gates, candidates, kept, out, slopes = room
    steps, features, size = x.shape
    gate_kernel, _, kernel, _, head, _ = _parts(weights, features, hidden)
    gradient[:] = 0
    d_gate_kernel, d_gate_bias, d_kernel, d_bias, d_head, d_head_bias = _parts(gradient, features, hidden)
    one = np.float32(1.0)
    # Slopes in the state, in what the gates get, in what the candidate gets (then in what the reset gate kept).
    d_state, d_gate, d_candidate = slopes[:hidden], slopes[hidden : 3 * hidden], slopes[3 * hidden :]
    d_kept = np.empty((hidden, size), np.float32)
    d_state[:] = 0
    for back in range(steps):
        t = steps - 1 - back
        gate, candidate, before, after, logit = gates[t], candidates[t], states[t], states[t + 1], out[t]
        _add_outer(d_head.reshape(hidden, 1), after, out[t : t + 1], 0)
        _add_sums(d_head_bias, out[t : t + 1])
        for j in range(hidden):
            slope, weight, old = d_state[j], head[j], before[j]
            row, update, d_update, d_row = candidate[j], gate[hidden + j], d_gate[hidden + j], d_candidate[j]
            for b in range(size):
                total = slope[b] + weight * logit[b]
                d_row[b] = total * (one - update[b]) * (one - row[b] * row[b])
                d_update[b] = total * (old[b] - row[b]) * update[b] * (one - update[b])
                slope[b] = total * update[b]
        d_kept[:] = 0
        _add_back(d_kept, kernel, d_candidate, features)
        for j in range(hidden):
            slope, lost, old, reset, d_reset = d_state[j], d_kept[j], before[j], gate[j], d_gate[j]
            for b in range(size):
                d_reset[b] = lost[b] * old[b] * reset[b] * (one - reset[b])
                slope[b] += lost[b] * reset[b]
        _add_back(d_state, gate_kernel, d_gate, features)
        _add_outer(d_gate_kernel, x[t], d_gate, 0)
        _add_outer(d_gate_kernel, before, d_gate, features)
        _add_sums(d_gate_bias, d_gate)
        _add_outer(d_kernel, x[t], d_candidate, 0)
        _add_outer(d_kernel, kept[t], d_candidate, features)
        _add_sums(d_bias, d_candidate)


@njit(cache=True, nogil=True)
def _gather(inputs: np.ndarray, chosen: np.ndarray, x: np.ndarray) -> None:
    steps, features = inputs.shape[1:]
    for b in range(chosen.size):
        window = inputs[chosen[b]]
        for t in range(steps):
            for d in range(features):
                x[t, d, b] = window[t, d]


@njit(cache=True, nogil=True)
def _gradient(
    weights: np.ndarray,
    hidden: int,
    inputs: np.ndarray,
    targets: np.ndarray,
    step_weights: np.ndarray,
    chosen: np.ndarray,
    code: int,
    room: tuple[np.ndarray, ...],
    gradient: np.ndarray,
) -> float:
    """Fill the gradient of one batch and return its loss: summed over steps with their weights, the mean over rows."""
    out = room[5]
    _gather(inputs, chosen, room[0])
    _forward(weights, hidden, room)
    loss, size = 0.0, chosen.size
    for t in range(out.shape[0]):
        if step_weights[t] == 0:
            out[t] = 0
            continue
        weight = step_weights[t] / np.float32(size)
        for b in range(size):
            logit, target = out[t, b], targets[chosen[b], t]
            off = logit - target
            if code == _SQUARED_ERROR:
                loss += weight * off * off / 2
                out[t, b] = weight * off
                continue
            probability = np.float32(0.5) + np.float32(0.5) * _tanh(np.float32(0.5) * logit)
            if code == _CROSS_ENTROPY:
                loss += weight * (max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit))))
                out[t, b] = weight * (probability - target)
            else:
                loss += weight * abs(probability - target)
                sign = np.float32((probability > target) - (probability < target))
                out[t, b] = weight * sign * probability * (np.float32(1.0) - probability)
    _backward(weights, hidden, room, gradient)
    return loss


@njit(cache=True, nogil=True)
def _descend(
    weights: np.ndarray,
    hidden: int,
    inputs: np.ndarray,
    targets: np.ndarray,
    step_weights: np.ndarray,
    batches: np.ndarray,
    code: int,
    learning_rate: float,
) -> None:
    """Move the weights by one step of Adam a batch."""
    room = _room(inputs.shape[1], inputs.shape[2], hidden, batches.shape[1])
    gradient = np.empty_like(weights)
    first, second = np.zeros(weights.size), np.zeros(weights.size)
    for step in range(batches.shape[0]):
        _gradient(weights, hidden, inputs, targets, step_weights, batches[step], code, room, gradient)
        rate = learning_rate * math.sqrt(1 - _BETA_2 ** (step + 1)) / (1 - _BETA_1 ** (step + 1))
        for i in range(weights.size):
            slope = gradient[i]
            first[i] += (1 - _BETA_1) * (slope - first[i])
            second[i] += (1 - _BETA_2) * (slope * slope - second[i])
            weights[i] -= np.float32(rate * first[i] / (math.sqrt(second[i]) + _EPSILON))


@njit(cache=True, nogil=True)
def _judged(weights: np.ndarray, hidden: int, inputs: np.ndarray) -> np.ndarray:
    """Return the logits of any number of windows, piece by piece."""
    count, steps, features = inputs.shape
    found = np.empty((count, steps), np.float32)
    for start in range(0, count, _PIECE):
        chosen = np.arange(start, min(start + _PIECE, count))
        room = _room(steps, features, hidden, chosen.size)
        _gather(inputs, chosen, room[0])
        _forward(weights, hidden, room)
        out = room[5]
        for t in range(steps):
            for b in range(chosen.size):
                found[start + b, t] = out[t, b]
    return found
