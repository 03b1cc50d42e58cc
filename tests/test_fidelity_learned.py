"""Learned scores: the cell against slow twins and autograd, the protocol's laws, splits that share no rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from sklearn.metrics import roc_auc_score

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import learned, learned_scores, learners, recurrent, ts2vec
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.windows import Windows, scaled
from synth_pipeline.rng import one_thread, stream
from synth_pipeline.series import FloatArray
from tests import naive_learned as naive

LOSSES: tuple[recurrent.Loss, ...] = ("cross_entropy", "absolute_error", "squared_error")


def walks(seed: int, rows: int = 600, features: int = 3, length: int = 12) -> FloatArray:
    """Overlapping windows of mean-reverting walks, in [0, 1]."""
    shocks = stream(seed, "walks").standard_normal((rows, features))
    values = np.zeros((rows, features))
    for t in range(1, rows):
        values[t] = 0.9 * values[t - 1] + shocks[t]
    values = (values - values.min(0)) / (values.max(0) - values.min(0))
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1).copy()


def noise(like: FloatArray, seed: int = 0) -> FloatArray:
    return stream(seed, "noise").random(like.shape)


# --- the recurrent network


def task(loss: recurrent.Loss, features: int, seed: int = 0) -> recurrent.Task:
    rng = stream(seed, "task")
    windows, targets = rng.standard_normal((37, 7, features)), rng.random((37, 7))
    if loss == "cross_entropy":
        targets = targets.round()
    weights = np.array([0, 1, 0, 0, 0.5, 2, 1], np.float32)
    return recurrent.Task(recurrent.floats(windows), recurrent.floats(targets), weights, loss)


@pytest.mark.parametrize(("features", "hidden"), [(1, 1), (3, 2), (5, 6)])
def test_the_cell_is_tensorflows(features, hidden):
    weights = recurrent.initial(features, hidden, rng=stream(1, "weights")) * 3
    windows = 2 * stream(2, "windows").standard_normal((300, 9, features))
    told = recurrent.logits(weights, hidden, recurrent.floats(windows))
    np.testing.assert_allclose(told, naive.gated_logits(weights, hidden, windows), atol=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("features", "hidden"), [(1, 1), (4, 3)])
def test_slopes_are_those_of_autograd(loss, features, hidden):
    given_task = task(loss, features)
    weights = recurrent.initial(features, hidden, rng=stream(1, "weights"))
    value, gradient = recurrent.loss_and_gradient(weights, hidden, given_task)
    row = torch.from_numpy(weights.astype(np.float64)).requires_grad_(True)
    slow = naive.loss(row, hidden, given_task.inputs, given_task.targets, given_task.step_weights, loss)
    slow.backward()
    assert value == pytest.approx(slow.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, row.grad.numpy(), atol=2e-6)


def test_the_squashing_is_exact_to_single_precision():
    points = np.linspace(-12, 12, 4001).astype(np.float32)
    found = np.array([recurrent._tanh(point) for point in points])
    assert np.abs(found - np.tanh(points.astype(np.float64))).max() < 2e-7
    assert recurrent._tanh(np.float32(0)) == 0


def test_training_is_adam_of_tensorflows_form():
    given_task, hidden = task("squared_error", 3), 2
    batches = recurrent.drawn(37, 25, 16, rng=stream(3, "batches"))
    found = recurrent.train(given_task, batches, hidden, rng=stream(4, "train"))
    row = torch.from_numpy(recurrent.initial(3, hidden, rng=stream(4, "train")).astype(np.float64))
    row.requires_grad_(True)
    first, second = torch.zeros_like(row), torch.zeros_like(row)
    for step, rows in enumerate(batches, 1):
        inputs, targets = given_task.inputs[rows], given_task.targets[rows]
        (slope,) = torch.autograd.grad(
            naive.loss(row, hidden, inputs, targets, given_task.step_weights, "squared_error"), row
        )
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        rate = 1e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        row = (row - rate * first / (second.sqrt() + 1e-8)).detach().requires_grad_(True)
    np.testing.assert_allclose(found, row.detach().numpy(), atol=1e-4)
    assert np.abs(found - recurrent.initial(3, hidden, rng=stream(4, "train"))).max() > 0.01


def test_initial_weights_are_glorots():
    weights = torch.from_numpy(recurrent.initial(40, 20, rng=stream(5, "weights")))
    gate, gate_bias, kernel, bias, head, head_bias = (part.numpy() for part in naive.parts(weights, 40, 20))
    for drawn, limit in ((gate, np.sqrt(6 / 100)), (kernel, np.sqrt(6 / 80)), (head, np.sqrt(6 / 21))):
        assert np.abs(drawn).max() <= limit
        assert drawn.std() == pytest.approx(limit / np.sqrt(3), rel=0.35 if drawn is head else 0.1)
    assert (gate_bias == 1).all()
    assert not bias.any()
    assert not head_bias.any()


def test_a_batch_holds_no_row_twice():
    batches = recurrent.drawn(50, 200, 40, rng=stream(6, "batches"))
    assert all(len(set(batch)) == 40 for batch in batches)
    assert np.bincount(batches.ravel(), minlength=50).min() > 100
    assert recurrent.drawn(5, 3, 128, rng=stream(6, "batches")).shape == (3, 5)


# --- TS2Vec


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_the_contrast_is_that_of_the_slow_twin(steps):
    one, two = stream(7, "encodings", steps).standard_normal((2, 3, steps, 4))
    found = ts2vec.contrast(torch.from_numpy(one), torch.from_numpy(two)).item()
    assert found == pytest.approx(naive.contrast(one, two), rel=1e-9)


@pytest.mark.parametrize("dilation", [1, 4, 9])
def test_convolutions_are_torchs(dilation):
    rng = stream(8, "convolution")
    x, bias = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((2, 9, 3), (5,)))
    kernel = torch.from_numpy(rng.standard_normal((3, 3, 5)))
    slow = torch.nn.functional.conv1d(
        x.transpose(1, 2), kernel.permute(2, 1, 0), bias, padding=dilation, dilation=dilation
    ).transpose(1, 2)
    torch.testing.assert_close(ts2vec._convolved(x, kernel, bias, dilation), slow)


def test_an_encoder_draws_from_its_own_stream_alone():
    windows, before = walks(1)[:64], torch.random.get_rng_state()
    with one_thread():
        first, again, other = (ts2vec.train(windows, rng=stream(seed, "e"), steps=3) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["across"], other["across"])
    assert ts2vec.encode(first, windows).shape == (64, ts2vec.OUTPUTS)


def test_context_fid_of_a_copy_is_nothing_and_of_noise_is_much():
    windows = walks(2)
    copied = learned_scores.context_fid(windows, windows, rng=stream(1, "fid"), repeats=1, steps=8).mean
    fresh = learned_scores.context_fid(windows, walks(3), rng=stream(1, "fid"), repeats=1, steps=8).mean
    apart = learned_scores.context_fid(windows, noise(windows), rng=stream(1, "fid"), repeats=1, steps=8).mean
    assert 0 <= copied < 1e-6
    assert copied < fresh < apart


def test_the_frechet_distance_is_that_of_the_root():
    rng = stream(9, "frechet")
    first, second = rng.standard_normal((80, 4)), 0.3 + rng.standard_normal((90, 4)) @ rng.standard_normal((4, 4))
    s, t = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    slow = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    assert learned_scores.frechet(first, second) == pytest.approx(slow, rel=1e-9)
    assert learned_scores.frechet(first, second) == pytest.approx(learned_scores.frechet(second, first), rel=1e-9)


# --- scores


def short(real: FloatArray, synthetic: FloatArray, seed: int = 1, **settings: int) -> learned_scores.Repeats:
    return learned_scores.discriminative(real, synthetic, rng=stream(seed, "ds"), steps=300, **settings)


def test_noise_is_told_apart_and_a_copy_is_not():
    windows = walks(4, 1000, features=8)
    rough = np.clip(stream(4, "rough").normal(0.3, 0.4, windows.shape), 0, 1)
    assert short(windows, rough).mean > 0.4
    assert short(rough, windows).mean > 0.4
    assert short(windows, windows).mean < 0.08


def test_what_a_flat_or_inverted_window_teaches_does_not_hold():
    windows = walks(4, 800, features=4)
    flat = np.repeat(windows.mean(axis=1, keepdims=True), windows.shape[1], axis=1)
    taught = {
        name: learned_scores.predictive(each, windows, rng=stream(1, "ps"), repeats=2, steps=1000).mean
        for name, each in (("copy", windows), ("inverted", 1 - windows), ("flat", flat))
    }
    assert taught["copy"] < min(taught["inverted"], taught["flat"])


def test_swapped_labels_turn_the_classifier_round():
    given_task = task("cross_entropy", 4)
    swapped = dataclasses.replace(given_task, targets=1 - given_task.targets)
    weights = recurrent.initial(4, 2, rng=stream(1, "weights"))
    head = slice(-3, None)
    turned = weights.copy()
    turned[head] *= -1
    (there, slopes), (back, turned_slopes) = (
        recurrent.loss_and_gradient(row, 2, each) for row, each in ((weights, given_task), (turned, swapped))
    )
    assert there == pytest.approx(back, rel=1e-6)
    turned_slopes[head] *= -1
    np.testing.assert_allclose(slopes, turned_slopes, atol=1e-6)


def test_a_repeat_is_the_same_in_any_company(monkeypatch):
    windows = walks(7)
    together = short(windows, noise(windows) * 0.5 + windows * 0.5, repeats=4).values
    alone = short(windows, noise(windows) * 0.5 + windows * 0.5, repeats=2).values
    np.testing.assert_array_equal(together[:2], alone)
    monkeypatch.setattr(recurrent.os, "cpu_count", lambda: 1)
    np.testing.assert_array_equal(short(windows, noise(windows) * 0.5 + windows * 0.5, repeats=4).values, together)
    other = short(windows, noise(windows) * 0.5 + windows * 0.5, repeats=4, seed=2).values
    assert not np.array_equal(other, together)


def test_the_interval_is_students():
    values = np.array([0.01, 0.02, 0.015, 0.03, 0.005])
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    found = learned_scores.Repeats(values)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert stats.t.ppf(0.975, 4) == pytest.approx(2.776, abs=1e-3)
    assert np.isnan(learned_scores.Repeats(values[:1]).half_width)


@given(st.integers(10, 3000), st.integers(0, 60), st.integers(0, 2**32))
@settings(max_examples=80)
def test_a_split_shares_no_rows(count, overlap, seed):
    try:
        trained, tested = learned_scores.split(count, overlap, rng=stream(seed, "split"))
    except MetricError:
        assert 20 * overlap > count
        return
    assert trained.size
    assert tested.size
    assert np.abs(trained[:, None] - tested[None]).min() > overlap
    if overlap == 0:
        assert sorted([*trained, *tested]) == list(range(count))
        assert trained.size == int(count * 0.8)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_the_area_is_scikit_learns(positive, negative):
    found = learners.area(np.array(positive, float), np.array(negative, float))
    truth = np.repeat([1, 0], [len(positive), len(negative)])
    assert found == pytest.approx(roc_auc_score(truth, [*positive, *negative]))


# --- held-out discriminators


@pytest.fixture(autouse=True)
def _short_transformer(monkeypatch):
    monkeypatch.setattr(learners, "TRANSFORMER_STEPS", 100)


@pytest.mark.parametrize("name", sorted(learners.LEARNERS))
def test_a_discriminator_is_fooled_by_fresh_windows_and_not_by_noise(name):
    rng, windows, learner = stream(10, "held-out"), walks(8, 800), learners.LEARNERS[name]
    apart = learned_scores.told_apart(windows, noise(windows), learner, rng=rng, overlap=11)
    assert apart.value > 0.9
    assert apart.low <= apart.value <= apart.high


def test_a_copy_fools_the_held_out_discriminator():
    windows = walks(9, 800)
    found = learned_scores.told_apart(windows, windows, learners.boosting, rng=stream(11, "copy"), overlap=11)
    assert found.high < 0.4, "tested real windows were learned from as synthetic ones"


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("name", sorted(learners.LEARNERS))
def test_a_learner_learns_and_repeats_itself(name, classes):
    rng = stream(12, "learner")
    x = rng.standard_normal((500, 6, 2))
    y = x[:, -1, 0] + 0.5 * x[:, -2, 1] + 0.1 * rng.standard_normal(500)
    answers = (y > 0).astype(float) if classes else 10 + 3 * y
    told, again = (
        learners.LEARNERS[name](x[:400], answers[:400], x[400:], classes=classes, rng=stream(13, name)) for _ in "ab"
    )
    np.testing.assert_array_equal(told, again)
    assert stats.spearmanr(told, y[400:]).statistic > 0.65
    if classes:
        assert ((told >= 0) & (told <= 1)).all()
    else:
        assert np.abs(told - answers[400:]).mean() < 0.8 * np.abs(answers[400:] - 10).mean()


# --- metrics


def test_metrics_of_the_family_are_declared():
    found = {metric.name for metric in vars(learned).values() if getattr(metric, "cost", "") == "learned"}
    assert found == {
        "discriminative_score",
        "predictive_score",
        "context_fid",
        "later_discriminative_score",
        "boosting_discriminator",
        "gru_discriminator",
        "transformer_discriminator",
    }
    assert metrics(["learned"]) == {}, "metrics of windows are no metrics of returns"


def test_metrics_take_windows(monkeypatch):
    names = ("a", "b", "close")
    parts = [Windows(walks(seed), names) for seed in (14, 15, 16)]
    train, synthetic, holdout = scaled(*parts)
    monkeypatch.setattr(learned_scores.discriminative, "__kwdefaults__", {**_defaults(), "steps": 40})
    rng = stream(15, "metrics")
    for metric in (learned.discriminative_score, learned.later_discriminative_score, learned.boosting_discriminator):
        assert 0 <= metric(train, synthetic, holdout, rng=rng) <= 0.5
    with pytest.raises(MetricError, match="needs 100 windows"):
        learned.context_fid(train, synthetic.thinned(10), holdout, rng=rng)


def _defaults() -> dict[str, object]:
    return dict(learned_scores.discriminative.__kwdefaults__)
