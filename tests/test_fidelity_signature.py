"""Fidelity, whole paths: signatures against a library, a slow twin and their laws; the discrepancy and its floor."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import signature
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.rng import stream
from tests import naive_fidelity as naive


def moves(name, *shape):
    return 0.5 * stream(1, "signature", name).standard_normal(shape)


def test_signatures_equal_their_twin():
    for d, steps in ((1, 3), (2, 4), (3, 3)):
        path = moves("twin", 1, steps, d)
        order = naive.words(d, 4)
        plain, logarithm = naive.signature(path[0], 4), naive.log_signature(path[0], 4)
        np.testing.assert_allclose(signature.signatures(path)[0], [float(plain[word]) for word in order], atol=1e-12)
        found = signature.log_signatures(path)[0]
        np.testing.assert_allclose(found, [float(logarithm[word]) for word in order], atol=1e-12)


def test_signatures_equal_a_library():
    library = pytest.importorskip("pysiglib")
    path = moves("library", 3, 20, 3)
    points = np.concatenate([np.zeros((3, 1, 3)), np.cumsum(path, axis=1)], axis=1)
    np.testing.assert_allclose(signature.signatures(path), library.sig(points, 4), atol=1e-10)
    np.testing.assert_allclose(signature.log_signatures(path), library.log_sig(points, 4, method=0), atol=1e-10)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000))
def test_signatures_keep_chens_relation_and_the_shuffle_identity(first, second, seed):
    rng = stream(seed, "laws")
    one, two = rng.standard_normal((1, first, 2)), rng.standard_normal((1, second, 2))
    order = naive.words(2, 4)
    by_word = [
        {(): 1.0} | dict(zip(order, signature.signatures(path)[0], strict=True))
        for path in (one, two, np.concatenate([one, two], axis=1))
    ]
    joined = naive.tensor_product(by_word[0], by_word[1])
    np.testing.assert_allclose([joined[word] for word in order], [by_word[2][word] for word in order], atol=1e-9)
    for u, v in itertools.product(order, order):
        if len(u) + len(v) <= 4:
            total = sum(by_word[2][word] for word in naive.shuffles(u, v))
            assert by_word[2][u] * by_word[2][v] == pytest.approx(total, abs=1e-9)


def test_logarithms_vanish_on_shuffles_and_know_no_detours():
    path = moves("logarithm", 1, 7, 2)
    order = naive.words(2, 4)
    by_word = dict(zip(order, signature.log_signatures(path)[0], strict=True))
    for u, v in itertools.product(order, order):
        if len(u) + len(v) <= 4:
            assert sum(by_word[word] for word in naive.shuffles(u, v)) == pytest.approx(0, abs=1e-12)
    there_and_back = np.concatenate([path, -path[:, ::-1]], axis=1)
    np.testing.assert_allclose(signature.log_signatures(there_and_back), 0, atol=1e-12)


def test_area_between_lead_and_lag_is_the_quadratic_variation():
    changes = moves("area", 5, 12)
    found = signature.signatures(signature.lead_lag(changes))[:, 3:12].reshape(5, 3, 3)
    np.testing.assert_allclose(found[:, 1, 2] - found[:, 2, 1], (changes**2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found[:, 0, 0], 0.5, rtol=1e-12)


def test_discrepancy_equals_its_twin_and_scikit_learn():
    from sklearn.metrics.pairwise import rbf_kernel

    real, made = moves("real", 12, 5), moves("made", 9, 5) + 0.3
    law = signature.Law.of(real)
    one, two = real / real.std(axis=0), made / real.std(axis=0)
    width = np.median([((a - b) ** 2).sum() for a, b in itertools.combinations(one, 2)])
    assert law.width == pytest.approx(width)
    found, _ = law.discrepancy(made)
    assert found == pytest.approx(naive.discrepancy(one.tolist(), two.tolist(), width), abs=1e-12)
    across = rbf_kernel(one, two, gamma=1 / width).mean()
    within = [rbf_kernel(side, gamma=1 / width) for side in (one, two)]
    means = [(kernel.sum() - len(kernel)) / len(kernel) / (len(kernel) - 1) for kernel in within]
    assert found == pytest.approx(sum(means) - 2 * across, abs=1e-12)


def test_the_floor_without_permutations_is_the_scatter_between_samples_of_one_law():
    rng = stream(2, "floor")
    found = []
    for _ in range(60):
        one, two = (rng.standard_t(4, (count, 24, 1)) for count in (120, 80))
        found.append(signature.Law.of(signature.features(one)).discrepancy(signature.features(two)))
    scores = np.array([value / deviation for value, deviation in found])
    assert scores.mean() == pytest.approx(0, abs=0.4)
    assert scores.std() == pytest.approx(1, abs=0.3)


def test_order_and_size_together_are_seen():
    """Returns that follow trends have the same distribution as shuffled ones, and other paths."""
    rng = stream(3, "trend")
    noise = rng.standard_normal((2, 1, 6_000))
    trending = np.zeros((2, 1, 6_000))
    for t in range(1, 6_000):
        trending[:, :, t] = 0.4 * trending[:, :, t - 1] + noise[:, :, t]
    real, fresh = Sample(1e-3 * trending[0]), Sample(1e-3 * trending[1])
    mixed = Sample(rng.permuted(fresh.returns, axis=1))
    assert signature.signature_mmd(real, mixed) > 2 * signature.signature_mmd(real, fresh)
    assert signature.signature_mmd(real, mixed) > 0.1
    assert signature.signature_mmd(real, real) == 0


def test_windows_of_several_features_are_compared_side_by_side():
    rng = stream(4, "windows")
    walk = np.cumsum(rng.standard_normal((300, 16)), axis=1)
    pairs = np.stack([walk, walk + 0.1 * rng.standard_normal((300, 16))], axis=2)
    apart = np.stack([walk, rng.permutation(pairs[:, :, 1])], axis=2)
    real, same, other = (Windows(v, ("a", "b")) for v in (pairs[:150], pairs[150:], apart[150:]))
    metric = signature.window_signature_mmd
    assert metric(real, same, real, rng=rng) < 0.02
    assert metric(real, other, real, rng=rng) > metric(real, same, real, rng=rng) + 0.02
    still = Windows(np.zeros((60, 16, 2)), ("a", "b"))
    with pytest.raises(MetricError, match="no real feature moves"):
        metric(real, real, still, rng=rng)
    assert metric(real, still, real, rng=rng) > 0.3


def test_gaps_leave_whole_stretches_only():
    returns = 1e-3 * stream(5, "gaps").standard_normal((1, 2_400))
    cut = returns.copy()
    cut[0, 1_000:1_003] = np.nan
    assert signature.signature_mmd(Sample(returns), Sample(cut)) < 0.05
    with pytest.raises(MetricError, match="there are"):
        signature.Law.of(moves("few", 5, 3)).discrepancy(moves("one", 1, 3))
    with pytest.raises(MetricError, match="that differ"):
        signature.Law.of(np.ones((5, 3)))
