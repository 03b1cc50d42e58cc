"""Learners that judge synthetic windows by what they can be taught: four kinds, one call.

A learner takes windows of numbers, shape (n, length, features), and one answer a window, is told whether the answers
are classes (0 and 1), and returns for new windows the probability of a 1, or the value. It scales its input by what it
was trained on and draws from the stream that it is given, so the same stream gives the same answers. torch and
scikit-learn load when they are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import special

from synth_pipeline.fidelity import recurrent, ts2vec
from synth_pipeline.rng import one_thread
from synth_pipeline.series import FloatArray, IntArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH = 128
GRU_UNITS, GRU_STEPS, GRU_RATE = 8, 500, 3e-3
WIDTH, HEADS, LAYERS, TRANSFORMER_STEPS, TRANSFORMER_RATE = 32, 2, 2, 200, 2e-3
TREES, LEAVES, TREE_RATE = 80, 15, 0.1
RIDGE = 10.0
"""Penalty on the squared weights of the linear learner, in standardized units."""


class Learner(Protocol):
    """Windows and answers to learn from, new windows → their answers, shape (new windows,)."""

    def __call__(
        self, x: FloatArray, y: FloatArray, new: FloatArray, *, classes: bool, rng: np.random.Generator
    ) -> FloatArray:
        """Learn and answer."""


def linear(
    x: FloatArray,
    y: FloatArray,
    new: FloatArray,
    *,
    classes: bool,
    rng: np.random.Generator,  # noqa: ARG001
) -> FloatArray:
    """Ridge or logistic regression on `described` windows; it draws nothing."""
    from sklearn.linear_model import LogisticRegression, Ridge

    known, asked = standardized(described(x), described(new))
    if not classes:
        return np.asarray(Ridge(RIDGE).fit(known, y).predict(asked), dtype=np.float64)
    model = LogisticRegression(C=1 / RIDGE, tol=1e-3, max_iter=2_000).fit(known, y > 0.5)
    return np.asarray(model.predict_proba(asked)[:, 1], dtype=np.float64)


def boosting(x: FloatArray, y: FloatArray, new: FloatArray, *, classes: bool, rng: np.random.Generator) -> FloatArray:
    """Gradient-boosted trees on `described` windows."""
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )

    settings: dict[str, Any] = {
        "max_iter": TREES,
        "max_leaf_nodes": LEAVES,
        "learning_rate": TREE_RATE,
        "early_stopping": False,
        "random_state": int(rng.integers(0, 2**31)),
    }
    known, asked = described(x), described(new)
    if not classes:
        return np.asarray(HistGradientBoostingRegressor(**settings).fit(known, y).predict(asked), dtype=np.float64)
    model = HistGradientBoostingClassifier(**settings).fit(known, y > 0.5)
    return np.asarray(model.predict_proba(asked)[:, 1], dtype=np.float64)


def gru(x: FloatArray, y: FloatArray, new: FloatArray, *, classes: bool, rng: np.random.Generator) -> FloatArray:
    """A gated recurrent network of 8 units that answers after the last step."""
    known, asked = standardized(x, new)
    centre, spread = (0.0, 1.0) if classes else _centre_and_spread(y)
    task = recurrent.last_step(
        recurrent.floats(known), (y - centre) / spread, "cross_entropy" if classes else "squared_error"
    )
    batches = recurrent.drawn(len(x), GRU_STEPS, BATCH, rng=rng)
    weights = recurrent.train(task, batches, GRU_UNITS, rng=rng, learning_rate=GRU_RATE)
    told = recurrent.logits(weights, GRU_UNITS, recurrent.floats(asked))[:, -1].astype(np.float64)
    return np.asarray(special.expit(told)) if classes else told * spread + centre


def transformer(
    x: FloatArray, y: FloatArray, new: FloatArray, *, classes: bool, rng: np.random.Generator
) -> FloatArray:
    """Two layers of attention, 32 wide, over the steps of a window, that answer after the last."""
    import torch
    from torch.nn import functional

    known, asked = (torch.from_numpy(each.astype(np.float32)) for each in standardized(x, new))
    centre, spread = (0.0, 1.0) if classes else _centre_and_spread(y)
    answers = torch.from_numpy(((y - centre) / spread).astype(np.float32))
    loss = functional.binary_cross_entropy_with_logits if classes else functional.mse_loss
    batches = recurrent.drawn(len(x), TRANSFORMER_STEPS, BATCH, rng=rng)
    with one_thread():
        weights = _attentive(x.shape[1], x.shape[2], ts2vec.noise_of(rng))
        optimizer = torch.optim.AdamW(weights.values(), TRANSFORMER_RATE, fused=True)
        for rows in torch.from_numpy(batches):
            optimizer.zero_grad()
            loss(_attended(weights, known[rows]), answers[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            told = (
                torch.cat([_attended(weights, part) for part in asked.tensor_split(-(-len(asked) // 1_024))])
                .double()
                .numpy()
            )
    return np.asarray(special.expit(told)) if classes else told * spread + centre


LEARNERS: Mapping[str, Learner] = {"linear": linear, "boosting": boosting, "gru": gru, "transformer": transformer}


def described(x: FloatArray) -> FloatArray:
    """Return windows as rows: every value and change, and each feature's mean, spread, extremes and mean change."""
    changes = np.diff(x, axis=1)
    whole = [x.mean(axis=1), x.std(axis=1), x.min(axis=1), x.max(axis=1)]
    if changes.shape[1]:
        whole += [changes.std(axis=1), np.abs(changes).mean(axis=1)]
    return np.concatenate([x.reshape(len(x), -1), changes.reshape(len(x), -1), *whole], axis=1)


def standardized(known: FloatArray, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both in the units of the first: mean 0 and spread 1 of every last-axis column; a constant one is 0."""
    axes = tuple(range(known.ndim - 1))
    centre, spread = known.mean(axis=axes), known.std(axis=axes)
    scale = np.where(spread > 1e-12 * np.abs(known).max(axis=axes, initial=0.0), spread, np.inf)
    return (known - centre) / scale, (asked - centre) / scale


def _centre_and_spread(y: FloatArray) -> tuple[float, float]:
    return float(y.mean()), float(y.std()) or 1.0


def _attentive(length: int, features: int, noise: torch.Generator) -> dict[str, Tensor]:
    """Draw the weights of an untrained transformer."""
    import torch

    shapes = {"in": (features, WIDTH), "place": (length, WIDTH), "out": (WIDTH, 1)}
    for layer in range(LAYERS):
        shapes |= {f"{layer}.mix": (WIDTH, 3 * WIDTH), f"{layer}.join": (WIDTH, WIDTH)}
        shapes |= {f"{layer}.up": (WIDTH, 2 * WIDTH), f"{layer}.down": (2 * WIDTH, WIDTH)}
    weights = {
        name: torch.randn(shape, generator=noise) * (0.02 if name == "place" else 1 / math.sqrt(shape[0]))
        for name, shape in shapes.items()
    }
    weights["bias"] = torch.zeros(1)
    return {name: tensor.requires_grad_(True) for name, tensor in weights.items()}


def _attended(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the logit of every window, shape (windows,)."""
    from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

    x = x @ weights["in"] + weights["place"]
    for layer in range(LAYERS):
        mixed = layer_norm(x, (WIDTH,)) @ weights[f"{layer}.mix"]
        heads = mixed.reshape(*mixed.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(heads[0], heads[1], heads[2]).transpose(1, 2).flatten(2)
        x = x + seen @ weights[f"{layer}.join"]
        x = x + gelu(layer_norm(x, (WIDTH,)) @ weights[f"{layer}.up"]) @ weights[f"{layer}.down"]
    return (layer_norm(x[:, -1], (WIDTH,)) @ weights["out"]).squeeze(1) + weights["bias"]


def area(positive: FloatArray, negative: FloatArray) -> float:
    """Return the area under the ROC curve: how often a positive window scores above a negative one, ties half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))
    wins = ranks[: positive.size].sum() - positive.size * (positive.size + 1) / 2
    return float(wins / (positive.size * negative.size))


def resampled(count: int, block: int, *, rng: np.random.Generator) -> IntArray:
    """Draw `count` positions in blocks of neighbours, around the end where needed: neighbours stay together."""
    starts = rng.integers(0, count, -(-count // block))
    return ((starts[:, np.newaxis] + np.arange(block)) % count).ravel()[:count]
