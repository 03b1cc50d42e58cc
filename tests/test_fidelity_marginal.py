"""Fidelity, single returns: distances, divergences and tails against libraries and slow twins."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import distributions, marginal, neighbours
from synth_pipeline.fidelity.distributions import grouped
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.rng import stream
from tests import naive_fidelity as naive

values = st.lists(st.integers(-30, 30).map(lambda n: n / 7), min_size=2, max_size=40).map(np.array)


def heavy(name, *shape, freedom=4):
    return 1e-3 * stream(1, "marginal", name).standard_t(freedom, shape)


@settings(max_examples=60)
@given(values, values)
def test_distances_equal_scipy(first, second):
    from scipy import stats

    one, two = np.sort(first), np.sort(second)
    assert distributions.wasserstein(grouped(one), grouped(two)) == pytest.approx(
        stats.wasserstein_distance(first, second), abs=1e-12
    )
    assert distributions.energy(grouped(one), grouped(two)) == pytest.approx(
        stats.energy_distance(first, second), abs=1e-7
    )
    assert distributions.kolmogorov_smirnov(one, two) == pytest.approx(
        stats.ks_2samp(first, second, method="asymp").statistic
    )


def test_transport_equals_pot():
    ot = pytest.importorskip("ot")
    first, second = np.sort(heavy("one", 400)), np.sort(heavy("two", 300) + 1e-4)
    assert distributions.wasserstein(grouped(first), grouped(second)) == pytest.approx(
        ot.wasserstein_1d(first, second), rel=1e-9
    )


@settings(max_examples=60)
@given(values, values)
def test_jensen_shannon_equals_scipy(first, second):
    from scipy.spatial.distance import jensenshannon

    edges = np.array([-2.05, -0.55, 0.45, 1.95])
    bounds = [-math.inf, *edges, math.inf]
    shares = [[np.mean((side > low) & (side <= high)) for low, high in pairwise(bounds)] for side in (first, second)]
    found = distributions.jensen_shannon(np.sort(first), np.sort(second), edges)
    assert found == pytest.approx(float(jensenshannon(*shares, base=2)), abs=1e-7)


def test_more_numbers_than_are_told_apart_are_grouped_without_harm():
    from scipy import stats

    first, second = heavy("many", 70_001), 1.2 * heavy("others", 45_000)
    expected = stats.wasserstein_distance(first, second)
    assert distributions.wasserstein(grouped(np.sort(first)), grouped(np.sort(second))) == pytest.approx(
        expected, rel=1e-3
    )


@settings(max_examples=60)
@given(values.filter(lambda v: v.size > 5), values.filter(lambda v: v.size > 5), st.integers(1, 5))
def test_neighbour_divergence_equals_its_twin_with_ties(first, second, k):
    found = neighbours.divergence(first, second, k)
    assert found == pytest.approx(naive.neighbour_divergence(first.tolist(), second.tolist(), k), abs=1e-9)


def test_neighbour_divergence_equals_the_published_form_without_ties():
    from sklearn.neighbors import NearestNeighbors

    first, second = heavy("p", 500)[:, np.newaxis], 1.5 * heavy("q", 400)[:, np.newaxis]
    own = NearestNeighbors(n_neighbors=6).fit(first).kneighbors(first)[0][:, 5]
    other = NearestNeighbors(n_neighbors=5).fit(second).kneighbors(first)[0][:, 4]
    expected = np.log(other / own).mean() + np.log(400 / 499)
    assert neighbours.divergence(first[:, 0], second[:, 0], 5) == pytest.approx(expected, rel=1e-9)


def test_neighbour_divergence_estimates_known_divergences():
    """Gaussians, one twice as wide: log 2 + 1/8 - 1/2; and an atom of 0.8 against one of 0.6."""
    rng = stream(2, "kl")
    wide = [neighbours.divergence(rng.standard_normal(1000), 2 * rng.standard_normal(1000)) for _ in range(30)]
    assert np.mean(wide) == pytest.approx(np.log(2) + 1 / 8 - 1 / 2, abs=0.02)

    def atom(share):
        return np.where(rng.random(1000) < share, 0.0, rng.standard_normal(1000))

    mixed = [neighbours.divergence(atom(0.8), atom(0.6)) for _ in range(30)]
    assert np.mean(mixed) == pytest.approx(0.8 * np.log(0.8 / 0.6) + 0.2 * np.log(0.2 / 0.4), abs=0.03)


def test_hill_is_the_maximum_likelihood_of_a_pareto_tail():
    from scipy import stats

    path = heavy("hill", 2_000)
    index, error = marginal.hill(path)
    highest = np.sort(path)[-101:]
    assert index == pytest.approx(stats.pareto.fit(highest[1:], floc=0, fscale=highest[0])[0], rel=1e-6)
    assert error == pytest.approx(index / 10)


def test_hill_finds_each_tail_and_its_error():
    rng = stream(3, "tails")
    found = []
    for _ in range(40):
        path = np.where(rng.random(4_000) < 0.5, rng.pareto(3.0, 4_000) + 1, -(rng.pareto(5.0, 4_000) + 1))
        found.append([*marginal.hill(path), marginal.hill(-path)[0]])
    upper, error, lower = np.mean(found, axis=0)
    assert (upper, lower) == pytest.approx((3.0, 5.0), rel=0.08)
    assert np.std([row[0] for row in found]) == pytest.approx(error, rel=0.35)


def test_steps_of_a_coarse_grid_are_no_tail():
    moves = stream(4, "grid").choice([-1, 0, 1], p=[0.1, 0.8, 0.1], size=3_000) * 1e-4
    assert math.isnan(marginal.hill(moves)[0])
    with pytest.raises(MetricError, match="lower_tail_index of the synthetic sample"):
        marginal.lower_tail_index(Sample(heavy("real", 1, 900)), Sample(moves[np.newaxis]))
    assert math.isnan(marginal.hill(np.zeros(500))[0])
    assert math.isnan(marginal.hill(-np.abs(heavy("losses", 500)))[0])


@pytest.mark.parametrize("name", ["energy_distance", "jensen_shannon_distance", "neighbour_divergence"])
def test_distances_grow_with_the_difference(name):
    metric = getattr(marginal, name)
    real, rest = Sample(heavy("real", 4, 1_500)), heavy("other", 4, 1_500)
    found = [metric(real, Sample(scale * rest)) for scale in (1.0, 1.5, 3.0)]
    assert found == sorted(found)
    assert found[0] < 0.15 * found[2]


def test_thin_and_heavy_tails_are_told_by_their_index():
    real = Sample(heavy("real", 2, 4_000, freedom=3))
    gauss = Sample(1e-3 * stream(5, "gauss").standard_normal((2, 4_000)))
    for metric in (marginal.lower_tail_index, marginal.upper_tail_index):
        assert metric.level(gauss, "synthetic") > 1.5 * metric.level(real, "real")


def test_features_are_compared_one_by_one():
    from scipy import stats

    rng = stream(6, "features")
    real = rng.random((60, 12, 3))
    made = 0.5 * rng.random((80, 12, 3))
    real[:, :, 2] = 0.25
    expected = [
        stats.wasserstein_distance(real[:, :, at].ravel(), made[:, :, at].ravel()) / real[:, :, at].std()
        for at in (0, 1)
    ]
    ordered = [marginal.by_feature(side) for side in (real, made)]
    assert marginal.feature_distance(*ordered) == pytest.approx(np.mean(expected), rel=1e-9)
    names = ("a", "b", "c")
    windows, others = Windows(real, names), Windows(made, names)
    assert marginal.level_distance(windows, others, windows, rng=rng) == pytest.approx(np.mean(expected), rel=1e-9)
    assert marginal.change_distance(windows, windows, windows, rng=rng) == 0
    with pytest.raises(MetricError, match="constant"):
        marginal.feature_distance(np.zeros((1, 250)), ordered[1][:1])
