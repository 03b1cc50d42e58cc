"""Fidelity, order in time: kernels against slow twins, statistics against libraries, laws and planted defects."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import kernels, temporal
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.rng import stream
from tests import naive_fidelity as naive

gappy = st.lists(
    st.one_of(st.integers(-100, 100).map(lambda n: n / 1000), st.just(math.nan)), min_size=1, max_size=60
).map(lambda values: np.array([values], dtype=np.float64))
twin = settings(max_examples=60)


def market(name, paths, steps, *, leverage=0.0):
    """Clustered log-returns; with `leverage` below 0, falls raise the volatility that follows."""
    shocks = stream(1, "temporal", name).standard_normal((2, paths, steps))
    level, found = np.zeros(paths), np.empty((paths, steps))
    for t in range(steps):
        found[:, t] = 1e-3 * np.exp(level / 2) * shocks[0, :, t]
        level = 0.95 * level + leverage * shocks[0, :, t] + 0.2 * shocks[1, :, t]
    return found


@twin
@given(gappy, st.integers(1, 7))
def test_block_sums_equal_their_twin(values, length):
    found = kernels.block_sums(values, length)[0]
    expected = [total for piece in naive.block_sums(values[0], length) for total in piece]
    np.testing.assert_allclose(found[np.isfinite(found)], expected, atol=1e-12)
    apart = [pair for run in naive.block_sums(values[0], length) for pair in pairwise(run)]
    assert np.isfinite(found[:-1] + found[1:]).sum() == len(apart)


@twin
@given(gappy, st.integers(1, 12))
def test_lagged_correlations_equal_their_twin(values, lags):
    expected = naive.lagged_correlations(values[0], values[0] ** 2, lags)
    np.testing.assert_allclose(kernels.lagged_correlations(values, values**2, lags)[0], expected, rtol=1e-6, atol=1e-8)


@twin
@given(gappy)
def test_ranks_of_values_and_sizes_equal_their_twin(values):
    order = np.argsort(values, axis=1)
    for found, row in zip(temporal.shared_ranks(values, order), (values[0], np.abs(values[0])), strict=True):
        np.testing.assert_array_equal(found[0], naive.shared_ranks(row))


@twin
@given(gappy, st.sampled_from([0.0, 0.02, 0.05]))
def test_burstiness_equals_its_twin(values, least):
    sizes = np.abs(values)
    found = temporal.burstiness(sizes, np.array([least]))[0]
    assert found == pytest.approx(naive.burstiness(sizes[0], least), rel=1e-12, abs=1e-12, nan_ok=True)


@twin
@given(gappy)
def test_falls_equal_their_twin(values):
    found = kernels.falls(values)
    np.testing.assert_allclose(found[np.isfinite(found)], naive.falls(values[0]), atol=1e-12)
    assert not (np.isfinite(found) & np.isnan(values)).any()


@twin
@given(gappy, st.integers(1, 8))
def test_devolatilised_returns_equal_their_twin(values, warm):
    found = kernels.devolatilised(values, 0.9, warm)
    np.testing.assert_allclose(found[np.isfinite(found)], naive.devolatilised(values[0], 0.9, warm), rtol=1e-9)


def test_statistics_equal_statsmodels_and_antropy():
    from antropy import detrended_fluctuation
    from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch
    from statsmodels.tsa.stattools import acf, ccf

    rows = market("oracle", 2, 900)
    for at, row in enumerate(rows):
        ljung_box = acorr_ljungbox(row, lags=[10])["lb_stat"].iloc[0]
        assert temporal.ljung_box_per_observation.statistic(rows)[at] == pytest.approx(ljung_box / 900, rel=1e-8)
        multiplier = het_arch(row - row.mean(), nlags=5, result_object=False)[0]
        assert temporal.arch_lm_per_observation.statistic(rows)[at] == pytest.approx(multiplier / 900, rel=1e-6)
        np.testing.assert_allclose(temporal.squared_return_acf(rows)[at], acf(row**2, nlags=50)[1:], atol=1e-12)
        expected = ccf(row**2, row, adjusted=False, nlags=11)[1:]
        np.testing.assert_allclose(temporal.leverage(rows)[at], expected, atol=1e-12)
        memory = detrended_fluctuation(np.abs(row))
        assert temporal.volatility_hurst.statistic(rows)[at] == pytest.approx(memory, rel=1e-8)


def test_kurtosis_by_horizon_equals_scipy():
    from scipy import stats

    rows = market("horizon", 2, 960)
    for at, steps in enumerate(temporal.HORIZONS):
        sums = rows.reshape(2, -1, steps).sum(axis=2)
        expected = np.log(stats.kurtosis(sums, axis=1) + 3)
        np.testing.assert_allclose(temporal.log_kurtosis_by_horizon(rows)[:, at], expected, rtol=1e-9)


def test_drawdown_distance_equals_scipy():
    from scipy import stats

    first, second = market("falls", 1, 800), 1.4 * market("others", 1, 800)
    expected = stats.wasserstein_distance(naive.falls(first[0]), naive.falls(second[0]))
    expected /= (first.std() + second.std()) / 2
    assert temporal.drawdown_distance(Sample(first), Sample(second)) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(MetricError, match="synthetic price never falls"):
        temporal.drawdown_distance(Sample(first), Sample(np.abs(second)))


def test_time_reversal_turns_the_signs_of_what_tells_time():
    rows = market("reversed", 3, 600, leverage=-0.2)
    for metric in (temporal.zumbach_effect, temporal.volatility_asymmetry):
        np.testing.assert_allclose(metric.statistic(rows[:, ::-1]), -metric.statistic(rows), atol=1e-12)


def test_leverage_is_negative_where_falls_raise_volatility_and_gone_backwards():
    rows = market("leverage", 4, 4_000, leverage=-0.2)
    assert temporal.leverage_effect.statistic(rows).max() < -0.05
    assert temporal.ranked_leverage.statistic(rows).max() < -0.05
    assert np.abs(temporal.ranked_leverage.statistic(market("none", 4, 4_000))).max() < 0.05
    assert np.abs(temporal.leverage_effect.statistic(market("none", 4, 4_000))).max() < 0.05
    assert temporal.leverage_effect.statistic(rows[:, ::-1]).min() > -0.03


def test_leverage_by_ranks_is_spearmans_and_no_single_crash_decides_it():
    rows = market("ranks", 2, 500, leverage=-0.2)
    rows[0, 100:103] = np.nan
    for path, found in zip(rows, temporal.ranked_leverage.statistic(rows), strict=True):
        moves, sizes = (stats.rankdata(each, nan_policy="omit") for each in (path, np.abs(path)))
        expected = []
        for lag in range(1, 11):
            both = np.isfinite(moves[:-lag]) & np.isfinite(sizes[lag:])
            expected.append(np.corrcoef(moves[:-lag][both], sizes[lag:][both])[0, 1])
        assert found == pytest.approx(np.mean(expected), abs=0.005)
    crashed = rows.copy()
    crashed[:, 250] = -1.0
    change = temporal.ranked_leverage.statistic(crashed) - temporal.ranked_leverage.statistic(rows)
    assert np.abs(change).max() < 0.02


def test_shocks_that_fade_have_a_direction():
    """Volatility jumps up and decays: large moves foretell, they are not foretold."""
    rng = stream(2, "fading")
    jumps = (rng.random((4, 4_000)) < 0.01) * 8.0
    level = np.ones((4, 4_000))
    for t in range(1, 4_000):
        level[:, t] = 1 + 0.9 * (level[:, t - 1] - 1) + jumps[:, t]
    rows = 1e-3 * level * rng.standard_normal((4, 4_000))
    assert temporal.volatility_asymmetry.statistic(rows).min() > 0.02
    assert temporal.volatility_asymmetry.statistic(rows[:, ::-1]).max() < -0.02


def test_past_trends_that_raise_volatility_are_found():
    rng = stream(3, "trends")
    rows = np.zeros((4, 6_000))
    for t in range(20, 6_000):
        trend = rows[:, t - 10 : t].sum(axis=1)
        rows[:, t] = np.sqrt(1e-6 + 0.06 * trend**2) * rng.standard_normal(4)
    assert temporal.zumbach_effect.statistic(rows).mean() > 0.1
    assert abs(temporal.zumbach_effect.statistic(market("plain", 32, 6_000)).mean()) < 0.03


def test_bursts_regularity_and_chance_are_told_apart():
    rng = stream(4, "bursts")
    chance = np.abs(rng.standard_normal(4_000))
    regular = 0.1 * chance
    regular[::20] += 10
    bursts = 0.1 * chance
    bursts[:200] += 10
    bursts[2_000:2_010] += 10
    found = temporal.intermittency.statistic(np.stack([chance, regular, bursts]))
    assert abs(found[0]) < 0.1
    assert found[1] < -0.9
    assert found[2] > 0.5
    assert math.isnan(temporal.intermittency.statistic(np.zeros((1, 500)))[0])


def test_intermittency_counts_no_wait_over_a_gap():
    sizes = np.full(1_000, 0.1)
    sizes[::20] = 1.0
    whole, cut = sizes.copy(), np.concatenate([sizes[:500], np.full(7, math.nan), sizes[500:]])
    found = temporal.intermittency.statistic(np.stack([whole, cut[:1_000]]))
    assert found == pytest.approx([-1.0, -1.0])


def test_drift_is_that_of_a_random_walk_or_more():
    rng = stream(5, "drift")
    walks = rng.standard_normal((400, 500))
    assert temporal.drift.statistic(walks).mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)
    signs = rng.choice([-1.0, 1.0], (400, 1))
    assert temporal.drift.statistic(walks + 0.2 * signs).mean() == pytest.approx(0.2 * np.sqrt(500), rel=0.1)


def test_conditional_tails_lose_what_volatility_explains():
    from scipy import stats

    rows = market("tails", 4, 5_000)
    excess, raw = temporal.conditional_kurtosis.statistic(rows) - 3, stats.kurtosis(rows, axis=1)
    assert excess.mean() < 0.7 * raw.mean()
    plain = stream(7, "plain").standard_normal((4, 5_000))
    assert temporal.conditional_kurtosis.statistic(plain).mean() == pytest.approx(3.1, abs=0.2)


def test_memory_of_windows_is_that_of_their_series():
    """Of long windows it is the usual autocorrelation; features that stand still on one side count as forgetful."""
    rows = market("windows", 1, 3_000).T.reshape(1, 3_000, 1)
    expected = naive.autocorrelations(rows[0, :, 0], 5)
    np.testing.assert_allclose(temporal.window_memory(rows)[:, 0], expected, atol=2e-3)
    levels = Windows(np.cumsum(rows, axis=1).reshape(125, 24, 1), ("close",))
    rng = stream(6, "none")
    assert temporal.change_memory_error(levels, levels, levels, rng=rng) == 0
    still = Windows(np.zeros((60, 24, 1)), ("close",))
    centred = levels.changes - levels.changes.mean(axis=(0, 1))
    gap = temporal.activity_memory_error(levels, still, levels, rng=rng)
    assert gap == pytest.approx(np.sqrt(np.mean(temporal.window_memory(np.abs(centred)) ** 2)))
    with pytest.raises(MetricError, match="every real feature is constant"):
        temporal.change_memory_error(levels, levels, still, rng=rng)
    short = Windows(np.zeros((60, 6, 1)), ("close",))
    with pytest.raises(MetricError, match="windows of 7 steps, these have 6"):
        temporal.change_memory_error(short, short, short, rng=rng)
