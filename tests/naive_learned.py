"""Learned scores, slow and obvious: the recurrent cell of TensorFlow 1 one window at a time, its slopes by autograd."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def parts(weights: Tensor, features: int, hidden: int) -> list[Tensor]:
    """Cut a row of weights into gate kernel and bias, candidate kernel and bias, head and its bias."""
    joined = features + hidden
    shapes = [(joined, 2 * hidden), (2 * hidden,), (joined, hidden), (hidden,), (hidden, 1), (1,)]
    cut = torch.split(weights, [math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(cut, shapes, strict=True)]


def gated_logits(weights: np.ndarray, hidden: int, windows: np.ndarray) -> np.ndarray:
    """The logit after every step of every window, in plain numpy."""
    gate, gate_bias, kernel, bias, head, head_bias = (
        part.numpy() for part in parts(torch.from_numpy(weights.astype(np.float64)), windows.shape[2], hidden)
    )
    told = np.empty(windows.shape[:2])
    for n, window in enumerate(windows.astype(np.float64)):
        state = np.zeros(hidden)
        for t, x in enumerate(window):
            gates = 1 / (1 + np.exp(-(np.concatenate([x, state]) @ gate + gate_bias)))
            reset, update = gates[:hidden], gates[hidden:]
            candidate = np.tanh(np.concatenate([x, reset * state]) @ kernel + bias)
            state = update * state + (1 - update) * candidate
            told[n, t] = (state @ head + head_bias)[0]
    return told


def loss(
    weights: Tensor, hidden: int, windows: np.ndarray, targets: np.ndarray, step_weights: np.ndarray, kind: str
) -> Tensor:
    """The loss in torch, so that torch can differentiate it."""
    x, truth = torch.from_numpy(windows.astype(np.float64)), torch.from_numpy(targets.astype(np.float64))
    gate, gate_bias, kernel, bias, head, head_bias = parts(weights, x.shape[2], hidden)
    state = torch.zeros(len(x), hidden, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for t, weight in enumerate(step_weights):
        reset, update = torch.sigmoid(torch.cat([x[:, t], state], 1) @ gate + gate_bias).split(hidden, 1)
        candidate = torch.tanh(torch.cat([x[:, t], reset * state], 1) @ kernel + bias)
        state = update * state + (1 - update) * candidate
        logit = (state @ head + head_bias)[:, 0]
        off = {
            "cross_entropy": lambda logit=logit, t=t: torch.nn.functional.binary_cross_entropy_with_logits(
                logit, truth[:, t]
            ),
            "absolute_error": lambda logit=logit, t=t: (torch.sigmoid(logit) - truth[:, t]).abs().mean(),
            "squared_error": lambda logit=logit, t=t: ((logit - truth[:, t]) ** 2).mean() / 2,
        }[kind]()
        total = total + float(weight) * off
    return total


def told_apart(one: np.ndarray, two: np.ndarray) -> float:
    """TS2Vec's contrast of one group, (items, outputs) each: every item finds its partner among all others."""
    both, items, total = np.concatenate([one, two]), len(one), 0.0
    for at in range(2 * items):
        others = [each for each in range(2 * items) if each != at]
        chances = np.array([both[at] @ both[each] for each in others])
        partner = others.index((at + items) % (2 * items))
        total -= chances[partner] - np.log(np.exp(chances).sum())
    return total / (2 * items)


def contrast(one: np.ndarray, two: np.ndarray) -> float:
    """TS2Vec's hierarchical loss of two encodings (batch, steps, outputs)."""
    total, levels = 0.0, 0
    while one.shape[1] >= 1:
        levels += 1
        total += 0.5 * np.mean([told_apart(one[:, t], two[:, t]) for t in range(one.shape[1])])
        if one.shape[1] == 1:
            break
        total += 0.5 * np.mean([told_apart(a, b) for a, b in zip(one, two, strict=True)])
        kept = one.shape[1] // 2
        one, two = (
            np.stack([each[:, 2 * at : 2 * at + 2].max(axis=1) for at in range(kept)], axis=1) for each in (one, two)
        )
    return total / levels


def sharpe(returns: np.ndarray, rule: str) -> float:
    """A trading rule step by step on one path without gaps: its positions see nothing of the step they earn."""
    gains = []
    position = 0.0
    for t in range(len(returns) - 1):
        past = returns[: t + 1]
        price = np.cumsum(past)
        name, _, number = rule.partition(" ")
        if name == "momentum" and "," not in rule:
            position = float(np.sign(past[-int(number) :].sum()))
        elif name == "reversal":
            position = -float(np.sign(past[-int(number) :].sum()))
        elif name == "breakout":
            seen = price[-int(number) :]
            if len(seen) < int(number):
                seen = np.concatenate([np.full(int(number) - len(seen), price[0]), seen])
            signal = float(price[-1] >= seen.max()) - float(price[-1] <= seen.min())
            position = signal or position
        elif name == "crossover":
            fast, slow = (int(each) for each in number.split("/"))
            position = float(np.sign(price[-fast:].mean() - price[-slow:].mean()))
        else:
            recent, whole = np.sqrt((past[-20:] ** 2).mean()), np.sqrt((past**2).mean())
            direction = 1.0 if name.startswith("long") else float(np.sign(past[-20:].sum()))
            position = direction * min(whole / recent, 3.0)
        gains.append(position * returns[t + 1])
    return float(np.mean(gains) / np.std(gains))
