"""Fidelity: checklists with their bars and floors, severity of scenarios, validity of bars and books."""

import math

import msgspec
import numpy as np
import pytest

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import checklists, stress, validity
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.rng import stream
from synth_pipeline.series import Series


def bars(name, steps=3_000, *, drift=0.0, scale=1.0, clustered=True):
    rng = stream(1, "checklists", name)
    level = np.zeros(steps)
    for t in range(1, steps):
        level[t] = 0.97 * level[t - 1] + 0.25 * rng.standard_normal()
    size = scale * 1e-3 * np.exp((level if clustered else rng.permutation(level)) / 2)
    moves = size * rng.standard_normal(steps) + drift
    close = 100 * np.exp(np.cumsum(moves))
    volume = np.round(np.exp(3 + 400 * np.abs(moves) / scale + 0.3 * rng.standard_normal(steps)), 2)
    values = np.stack([close, volume], axis=1)[np.newaxis]
    return Series(values, ("close", "volume"), 10**9, np.zeros(1, dtype=np.int64), 0.0, 0.01)


def by_name(checklist):
    return {check.name: check for check in checklist.checks}


# ---- checklists


def test_a_copy_passes_every_check_of_parity_and_fresh_data_do_not():
    real, fresh = bars("real"), bars("fresh")
    found = checklists.feature_parity(real, real, fresh)
    assert found.share == 1
    assert found.floor_share < 1
    assert {check.name for check in found.checks} >= {
        "return_mean",
        "volume_ks",
        "squared_return_acf_5",
        "volatility_volume",
    }
    assert len(found.checks) == 3 * 5 + 2 * 5 + 3


def test_parity_checks_are_what_they_say():
    from scipy import stats

    real, other = bars("real"), bars("other", scale=1.3)
    found = by_name(checklists.feature_parity(real, other))
    one, two = (Sample.of(side).pooled for side in (real, other))
    assert found["return_mean"].value == pytest.approx(abs(two.mean() - one.mean()) / one.std())
    assert found["return_variance"].value == pytest.approx(abs(two.var() / one.var() - 1))
    assert found["return_skewness"].value == pytest.approx(abs(stats.skew(two) - stats.skew(one)))
    assert found["return_kurtosis"].value == pytest.approx(abs(stats.kurtosis(two) - stats.kurtosis(one)))
    thin = [side[np.linspace(0, side.size - 1, 500).round().astype(int)] for side in (one, two)]
    assert found["return_ks"].value == pytest.approx(stats.ks_2samp(*thin).pvalue)
    assert not found["return_variance"].passed
    assert found["return_acf_1"].floor is None
    sizes = [np.corrcoef(np.abs(Sample.of(side).returns[0]), side.values[0, 1:, 1])[0, 1] for side in (real, other)]
    assert found["volatility_volume"].value == pytest.approx(abs(np.subtract(*sizes)), rel=1e-9)


def test_a_feature_that_stands_still_has_no_value_and_a_reason():
    real, flat = bars("real"), bars("flat")
    flat.values[:, :, 1] = 5.0
    found = checklists.feature_parity(real, flat)
    checks = by_name(found)
    assert checks["volume_mean"].value is None
    assert "does not vary" in checks["volume_mean"].reason
    assert "does not vary" in checks["volatility_volume"].reason
    assert not checks["volume_mean"].passed
    assert found.share == sum(check.passed for check in found.checks) / len(found.checks)
    assert not any(check.applies for check in checklists.feature_parity(flat, real).checks if "volume" in check.name)


def test_the_augmentation_table_measures_its_own_and_takes_what_is_handed_in():
    real, made, fresh = bars("real"), bars("made"), bars("fresh")
    found = by_name(checklists.augmentation_table(real, made, fresh, learned={"tstr_ratio": 0.93}))
    assert found["tstr_ratio"].passed
    assert found["augmented_sharpe"].value is None
    assert "not handed in" in found["augmented_sharpe"].reason
    assert {name: (check.bar, check.goal) for name, check in found.items()} == {
        "tstr_ratio": (0.9, "high"),
        "augmented_sharpe": (0.0, "high"),
        "stress_survival": (0.95, "high"),
        "distribution_kl": (0.05, "low"),
        "temporal_coherence": (0.1, "low"),
        "diversity": (0.8, "high"),
    }
    assert found["diversity"].passed
    assert found["distribution_kl"].floor == pytest.approx(found["distribution_kl"].value, abs=0.1)


def test_collapsed_modes_are_not_diverse():
    real = bars("real")
    one = real.slice(0, 25)
    paths = np.tile(one.values, (60, 1, 1))
    collapsed = Series(paths, one.names, one.step_ns, np.zeros(60, dtype=np.int64), 0.0)
    assert checklists.diversity(real, collapsed) < 0.2
    assert checklists.diversity(real, bars("fresh")) > 0.8
    with pytest.raises(MetricError, match="diversity needs 9 windows"):
        checklists.diversity(real, real.slice(0, 50))


def test_weighted_fidelity_is_the_number_of_the_evaluation():
    real, noise = bars("real"), bars("noise", clustered=False, scale=2.0)
    found = checklists.weighted_fidelity(real, real, noise).checks[0]
    assert found.value == pytest.approx(100)
    assert found.floor < 80


def test_path_diagnostics_name_drift_width_and_lost_clusters():
    real = bars("real", 12_000)
    good = by_name(checklists.path_diagnostics(real, bars("fresh", 12_000), bars("other", 12_000)))
    drifting = by_name(checklists.path_diagnostics(real, bars("drift", 12_000, drift=2e-4)))
    assert not drifting["drift"].passed
    assert drifting["width"].passed == good["width"].passed
    mixed = by_name(checklists.path_diagnostics(real, bars("mixed", 12_000, clustered=False)))
    assert not mixed["clustering"].passed
    assert mixed["clustering"].value > 2 * good["clustering"].value
    wide = by_name(checklists.path_diagnostics(real, bars("wide", 12_000, scale=2)))
    assert not wide["width"].passed
    assert not wide["returns_ks"].passed
    assert "300 steps" in good["drift"].title


def test_checklists_are_records():
    found = checklists.feature_parity(bars("real"), bars("made"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=checklists.Checklist) == found
    assert checklists.Checklist(name="empty", checks=()).share is None


# ---- stress


def test_severity_of_a_scenario_is_counted_by_hand():
    prices = np.array([[100.0, 110, 88, 99, 105, 111, 100], [100.0, 101, 102, 103, 104, 105, 106]])
    found = stress.of_paths(prices)
    np.testing.assert_allclose(found.max_drawdown, [0.2, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.duration, [1, 0])
    np.testing.assert_allclose(found.recovery, [3, 0])
    expected = np.sqrt((np.diff(np.log(prices)) ** 2).mean(axis=1))
    np.testing.assert_allclose(found.peak_volatility, expected)


def test_an_episode_begins_before_its_first_label_and_may_recover_after_its_last():
    prices = np.array([[100.0, 80, 70, 75, 90, 101, 100, np.nan, 100, 50, 60, 60]])
    labels = np.zeros(prices.shape, dtype=bool)
    labels[0, 1:4] = labels[0, 9:11] = True
    found = stress.of_episodes(prices, labels)
    np.testing.assert_allclose(found.max_drawdown, [0.3, 0.5])
    np.testing.assert_allclose(found.duration, [2, 1])
    np.testing.assert_allclose(found.recovery, [3, math.inf])
    labels[0, 6:8] = True
    assert stress.of_episodes(prices, labels).duration.size == 2


def test_scenarios_are_placed_among_episodes():
    rng = stream(2, "stress")

    def crashes(count, depth):
        steps = np.concatenate([np.full((count, 5), -depth / 5), np.full((count, 20), depth / 15)], axis=1)
        moves = steps * rng.uniform(0.5, 1.5, (count, 1)) + 1e-3 * rng.standard_normal(steps.shape)
        return 100 * np.exp(np.concatenate([np.zeros((count, 1)), np.cumsum(moves, axis=1)], axis=1))

    real = stress.of_paths(crashes(40, 0.1))
    like, grave, mild = (
        {place.name: place for place in stress.placements(stress.of_paths(crashes(40, depth)), real)}
        for depth in (0.1, 0.5, 0.01)
    )
    assert set(like) == set(stress.MEASURES)
    assert like["max_drawdown"].percentile == pytest.approx(50, abs=15)
    assert grave["max_drawdown"].percentile > 95
    assert grave["max_drawdown"].graver > 0.8
    assert mild["max_drawdown"].milder > 0.8
    with pytest.raises(MetricError, match="there are 3 and 40; label more history"):
        stress.placements(real, stress.of_paths(crashes(3, 0.1)))


def test_ties_count_by_half():
    same = stress.Severity(*(np.ones(6) for _ in range(4)))
    assert {place.percentile for place in stress.placements(same, same)} == {50}


# ---- validity


def failures(series, real=None):
    return {check.name: check.failures for check in validity.checks(series, real) if check.failures}


def candles(opens):
    closes = [10.0, 11.0, 12.0, 11.0]
    rows = [
        [first, max(first, last), min(first, last), last, 1.5, 3.0] for first, last in zip(opens, closes, strict=True)
    ]
    names = ("open", "high", "low", "close", "volume", "trade_count")
    return Series(np.array([rows]), names, 1, np.zeros(1, dtype=np.int64), 0.1, 0.5)


def test_bars_open_where_the_real_ones_do():
    exact, near, far = candles([10, 10, 11, 12]), candles([10, 10.1, 11, 12]), candles([10, 10, 22, 12])
    assert failures(near) == {}
    assert failures(exact, exact) == {}
    assert failures(near, exact) == {"near_openings": 1}
    assert failures(near, near) == {}
    assert failures(far, near) == {"near_openings": 1}


def test_counts_are_whole_volumes_in_lots_and_imbalances_bounded():
    broken = candles([10, 10, 11, 12])
    broken.values[0, 1, 4] = 1.7
    broken.values[0, 2, 5] = 2.5
    assert failures(broken) == {"lot_grid": 1, "whole_counts": 1}
    book = np.array([[[10.0, 0.5], [10.1, -1.2], [10.0, np.nan]]])
    made = Series(book, ("mid", "imbalance_1"), 1, np.zeros(1, dtype=np.int64), 0.1)
    assert failures(made) == {"finite": 1, "bounded_imbalance": 1}
