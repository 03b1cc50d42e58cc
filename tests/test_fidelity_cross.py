"""Fidelity, features beside each other: correlations against libraries and slow twins, couplings, planted defects."""

from dataclasses import replace

import numpy as np
import pytest

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import cross
from synth_pipeline.fidelity.windows import Windows, scaled
from synth_pipeline.rng import stream
from tests import naive_fidelity as naive

NAMES = ("close", "volume", "spread", "imbalance_1")


def market(name, steps=4_000):
    """Volume and spread go with the size of moves, moves with the imbalance before them; as windows of 24."""
    rng = stream(1, "cross", name)
    noise = rng.standard_normal((4, steps))
    imbalance = np.tanh(0.7 * noise[0])
    moves = noise[1] + np.concatenate([[0.0], imbalance[:-1]])
    volume = np.exp(0.5 * np.abs(moves) + 0.3 * noise[2])
    spread = 1 + np.abs(imbalance) + 0.2 * np.abs(noise[3])
    columns = np.stack([100 + 0.01 * np.cumsum(moves), volume, spread, imbalance], axis=1)
    return Windows(columns[: steps // 24 * 24].reshape(-1, 24, 4), NAMES)


def shuffled(windows, at, name="shuffle"):
    """The same windows, one feature of each drawn from another one."""
    values = windows.values.copy()
    values[:, :, at] = stream(2, name).permutation(values[:, :, at])
    return Windows(values, windows.names)


@pytest.fixture(scope="module")
def pair():
    return market("train"), market("held")


def rng():
    return stream(3, "draws")


def test_correlations_equal_numpy_and_their_twin(pair):
    values = pair[0].moves[:40]
    np.testing.assert_allclose(
        cross.lagged_correlations(values, (0,))[0], np.corrcoef(values.reshape(-1, 4).T), rtol=1e-9, atol=1e-12
    )
    for lag in (1, 4):
        expected = [[naive.feature_correlation(values, one, two, lag) for two in range(4)] for one in range(4)]
        np.testing.assert_allclose(cross.lagged_correlations(values, (lag,))[0], expected, rtol=1e-9, atol=1e-12)


def test_prices_enter_as_changes_and_others_as_they_are(pair):
    moving = pair[0].moves
    np.testing.assert_array_equal(moving[:, :, 0], np.diff(pair[0].values[:, :, 0], axis=1))
    np.testing.assert_array_equal(moving[:, :, 1:], pair[0].values[:, 1:, 1:])
    changed = replace(pair[0], in_changes=True)
    np.testing.assert_array_equal(changed.moves, pair[0].values[:, 1:])
    np.testing.assert_array_equal(changed.changes, pair[0].values)
    np.testing.assert_array_equal(pair[0].changes, np.diff(pair[0].values, axis=1))


def test_no_correlation_depends_on_the_scale(pair):
    train, held = pair
    one, two = scaled(train, held)
    for metric in (
        cross.cross_correlation_error,
        cross.lagged_cross_correlation_error,
        cross.spread_imbalance_error,
        cross.volume_volatility_error,
    ):
        assert metric(train, held, train, rng=rng()) == pytest.approx(metric(one, two, one, rng=rng()), rel=1e-9)


def test_correlational_score_follows_its_definition(pair):
    """Spelled out: five draws, products of standardised features, mean over time, then windows, lower triangle."""
    real, made = (side.values for side in pair)
    draws, scores = rng(), []
    for _ in range(5):
        products = []
        for side in (real, made):
            drawn = side[draws.integers(0, len(side), len(side) // 5)]
            deviation = np.sqrt(((drawn - drawn.mean((0, 1))) ** 2).sum((0, 1)) / (drawn.shape[0] * drawn.shape[1] - 1))
            score = (drawn - drawn.mean((0, 1))) / deviation
            products.append([(score[:, :, i] * score[:, :, j]).mean(1).mean(0) for i in range(4) for j in range(i + 1)])
        scores.append(np.abs(np.subtract(*products)).sum() / 10)
    assert cross.correlational(real, made, rng=rng()) == pytest.approx(np.mean(scores), rel=1e-9)
    assert cross.correlational_score(*pair, pair[0], rng=rng()) == pytest.approx(np.mean(scores), rel=1e-9)


def test_the_coupling_that_is_broken_is_named(pair):
    train, held = pair
    genuine = {
        metric.name: metric(train, train, held, rng=rng())
        for metric in (cross.spread_imbalance_error, cross.volume_volatility_error, cross.cross_correlation_error)
    }
    assert max(genuine.values()) < 0.06
    thin = shuffled(train, NAMES.index("volume"))
    assert cross.volume_volatility_error(train, thin, held, rng=rng()) > 0.4
    assert cross.spread_imbalance_error(train, thin, held, rng=rng()) < 0.06
    wide = shuffled(train, NAMES.index("spread"))
    assert cross.spread_imbalance_error(train, wide, held, rng=rng()) > 0.4
    assert cross.volume_volatility_error(train, wide, held, rng=rng()) < 0.06
    turned = Windows(train.values[:, ::-1], NAMES)
    assert cross.lagged_cross_correlation_error(train, turned, held, rng=rng()) > 0.05
    assert cross.lagged_cross_correlation_error(train, train, held, rng=rng()) < 0.03


def test_swapped_features_are_noticed(pair):
    train, held = pair
    swapped = Windows(train.values[:, :, [3, 1, 2, 0]], NAMES)
    metric = cross.lagged_cross_correlation_error
    assert metric(train, swapped, held, rng=rng()) > 2 * metric(train, train, held, rng=rng())
    tied = Windows(train.values[:, :, [0, 1, 1, 3]], NAMES)
    for metric in (cross.correlational_score, cross.cross_correlation_error):
        assert metric(train, tied, held, rng=rng()) > 2 * metric(train, train, held, rng=rng())


def test_a_feature_that_stands_still_correlates_with_nothing(pair):
    train, held = pair
    values = train.values.copy()
    values[:, :, 2:] = 0.5
    still = Windows(values, NAMES)
    real = cross.lagged_correlations(held.moves, (0,))[0]
    assert cross.cross_correlation_error(train, still, held, rng=rng()) > abs(real[2, 3]) / 3
    with pytest.raises(MetricError, match="no two real features move"):
        cross.cross_correlation_error(train, train, Windows(0 * train.values, NAMES), rng=rng())
    with pytest.raises(MetricError, match="constant"):
        cross.correlational_score(train, still, held, rng=rng())


def test_what_is_missing_is_said(pair):
    alone = Windows(pair[0].values[:, :, :1], ("close",))
    with pytest.raises(MetricError, match="no feature 'volume': they hold close"):
        cross.volume_volatility_error(alone, alone, alone, rng=rng())
    with pytest.raises(MetricError, match="needs 2 features and windows of 3: these have 1 and 24"):
        cross.cross_correlation_error(alone, alone, alone, rng=rng())
    with pytest.raises(MetricError, match="correlational_score needs 50 windows, the synthetic sample has 3"):
        cross.correlational_score(pair[0], pair[0].thinned(3), pair[1], rng=rng())
