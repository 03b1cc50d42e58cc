"""Utility: what is learned on synthetic data must hold later; trading rules see no step ahead; the book's score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import book_prediction, learners, trading_rules, usefulness, utility
from synth_pipeline.fidelity.book_sample import CANCEL, LIMIT, MARKET, BookSample
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.usefulness import TASKS, Questions, Task, Trial
from synth_pipeline.fidelity.windows import Windows, scaled
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray
from tests import naive_learned as naive

NAMES = ("close", "volume")


def market(seed: int, rows: int = 500, carry: float = 0.7, length: int = 12) -> Windows:
    """A market whose price change carries over to the next step, with volume that follows volatility."""
    rng = stream(seed, "market")
    size = np.exp(0.5 * np.sin(np.arange(rows) / 15))
    shocks = size * rng.standard_normal(rows)
    changes = np.zeros(rows)
    for t in range(1, rows):
        changes[t] = carry * changes[t - 1] + shocks[t]
    volume = size + 0.1 * rng.random(rows)
    values = np.stack([np.cumsum(changes), volume], axis=1)
    cut = np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1)
    return Windows(cut.copy(), NAMES)


def opposite(windows: Windows) -> Windows:
    """The same windows with a price whose changes reverse where they carried over."""
    values = windows.values.copy()
    changes = np.diff(values[:, :, 0], axis=1)
    changes[:, ::2] *= -1
    values[:, 1:, 0] = np.cumsum(changes, axis=1)
    return replace(windows, values=values)


def linear_trial(task: str, synthetic: Windows) -> Trial:
    (trial,) = usefulness.trials(market(1), synthetic, market(2), (task,), ("linear",))
    return trial


# --- tasks


def asked(windows: Windows, task: Task) -> Questions:
    return Questions.of(windows, task, usefulness.still(windows))


def test_nothing_of_the_answer_is_in_what_is_read():
    windows = market(3)
    tampered = windows.values.copy()
    tampered[:, -1] += stream(4, "answer").standard_normal(tampered[:, -1].shape)
    for task in TASKS.values():
        before, after = (asked(replace(windows, values=each), task) for each in (windows.values, tampered))
        np.testing.assert_array_equal(before.x, after.x)
        assert not np.array_equal(before.y, after.y)


def test_questions_do_not_depend_on_level_or_scale():
    windows = market(3)
    moved = replace(windows, values=windows.values * [40.0, 0.01] + [1000.0, -3.0])
    for task in TASKS.values():
        here, there = asked(windows, task), asked(moved, task)
        np.testing.assert_allclose(here.x, there.x, atol=1e-9)
        np.testing.assert_allclose(here.y, there.y, atol=1e-9)


def test_answers_are_what_they_say():
    window = np.array([[[10.0, 1], [11, 2], [10, 1], [12, 4]]])
    windows = Windows(np.repeat(window, 60, axis=0) + np.tile([0, 3], 30)[:, None, None], NAMES)
    windows.values[::2, -1, 0] = 9
    direction, size, value = (asked(windows, TASKS[name]) for name in ("direction", "volatility", "value"))
    assert direction.x.shape == (60, 2, 2)
    np.testing.assert_array_equal(direction.y[:2], [0, 1])
    np.testing.assert_allclose(size.y[:2], np.log1p([1, 2]))
    np.testing.assert_allclose(value.y, 3.0)


def test_the_price_is_found_by_its_name():
    values = np.zeros((1, 4, 3))
    assert usefulness.price_of(Windows(values, ("open", "close", "volume"))) == 1
    assert usefulness.price_of(Windows(values, ("a", "b", "mid"))) == 2
    assert usefulness.price_of(Windows(values, ("BTC:Open", "BTC:Close", "c"))) == 1
    assert usefulness.price_of(Windows(values, ("a", "b", "c"))) == 0


def test_windows_of_changes_ask_what_windows_of_levels_do():
    levels = market(3)
    changes = Windows(np.diff(levels.values, axis=1), NAMES, in_changes=True)
    (given,) = scaled(changes)
    assert given.in_changes
    ups = given.values[:, -1, 0] > usefulness.still(given)[0]
    moved = given.values[:, -1, 0] != usefulness.still(given)[0]
    np.testing.assert_array_equal(asked(given, TASKS["direction"]).y, ups[moved])
    assert np.mean(ups == (changes.values[:, -1, 0] > 0)) > 0.95
    centred = replace(changes, values=changes.values - np.median(changes.values, axis=(0, 1)))
    for task in TASKS.values():
        np.testing.assert_allclose(asked(centred, task).x, asked(given, task).x, atol=1e-9)


def test_too_few_or_still_windows_are_no_questions():
    with pytest.raises(MetricError, match="windows in which every feature moves"):
        asked(market(1, rows=40), TASKS["value"])
    with pytest.raises(MetricError, match="every feature moves"):
        asked(Windows(np.ones((100, 8, 2)), NAMES), TASKS["value"])
    with pytest.raises(MetricError, match="take 4 or more"):
        next(usefulness.trials(market(1, length=3), market(1, length=3), market(2, length=3)))


# --- trials


def test_a_copy_teaches_what_real_windows_teach_and_the_opposite_does_not():
    rng = stream(5, "trial")
    copied = usefulness.outcome(linear_trial("direction", market(1)), 12, rng=rng, resamples=50)
    assert copied.errors.tstr == pytest.approx(copied.errors.trtr)
    assert copied.errors.ratio == pytest.approx(1)
    assert copied.errors.trtr < 0.35
    assert copied.gain_low <= copied.errors.gain <= copied.gain_high
    wrong = usefulness.outcome(linear_trial("direction", opposite(market(1))), 12, rng=rng, resamples=50)
    assert wrong.errors.tstr > 0.6
    assert wrong.errors.trts > 0.6
    assert wrong.gain_high < 0


def test_more_windows_of_the_same_kind_gain():
    few, more, later = market(6, rows=75), market(7, rows=1500), market(8, rows=1500)
    (trial,) = usefulness.trials(few, more, later, ("direction",), ("boosting",))
    found = usefulness.outcome(trial, 12, rng=stream(9, "gain"), resamples=50)
    assert found.gain_low > 0
    assert found.errors.ratio < 1


def test_metrics_tell_a_market_from_its_opposite(monkeypatch):
    for name, value in (("GRU_STEPS", 150), ("TREES", 25)):
        monkeypatch.setattr(learners, name, value)
    real, later = market(1), market(2)
    rng = stream(10, "metrics")
    ratios = [utility.tstr_direction(real, other, later, rng=rng) for other in (market(11), opposite(market(11)))]
    assert ratios[0] < 1.4 < 1.7 < ratios[1]
    gains = [utility.augmentation_gain(real, other, later, rng=rng) for other in (market(11), opposite(market(11)))]
    assert gains[0] > gains[1]
    assert utility.trts_difference(real, market(11), later, rng=rng) < 0.35
    assert utility.tstr_volatility(real, market(11), later, rng=rng) == pytest.approx(1, abs=0.2)
    assert utility.tstr_value(real, market(11), later, rng=rng) == pytest.approx(1, abs=0.4)


def test_errors_of_classes_are_those_of_ranks():
    told, truth = np.array([0.1, 0.9, 0.8, 0.4]), np.array([0.0, 1.0, 0.0, 1.0])
    assert usefulness.error(told, truth, classes=True) == pytest.approx(0.25)
    assert np.isnan(usefulness.error(told, np.ones(4), classes=True))
    assert usefulness.error(told, truth, classes=False) == pytest.approx(np.abs(told - truth).mean())


# --- trading rules


@pytest.mark.parametrize("rule", trading_rules.RULES)
def test_a_rule_is_that_of_the_slow_twin(rule):
    returns = 0.01 * stream(12, "rule").standard_normal((2, 150))
    found = trading_rules.sharpe_ratios(returns)[trading_rules.RULES.index(rule)]
    np.testing.assert_allclose(found, [naive.sharpe(path, rule) for path in returns], atol=1e-9)


def test_no_rule_looks_ahead():
    returns = 0.01 * stream(13, "ahead").standard_normal(120)
    other = returns.copy()
    other[80:] = 0.05 * stream(14, "ahead").standard_normal(40)
    np.testing.assert_array_equal(trading_rules.positions(returns)[:, :80], trading_rules.positions(other)[:, :80])
    assert (trading_rules.positions(returns)[:, 80:] != trading_rules.positions(other)[:, 80:]).any()


def test_gaps_earn_nothing():
    returns = 0.01 * stream(15, "gap").standard_normal((1, 300))
    gapped = returns.copy()
    gapped[0, 100:110] = np.nan
    assert np.isfinite(trading_rules.sharpe_ratios(gapped)).all()
    assert not np.allclose(trading_rules.sharpe_ratios(gapped), trading_rules.sharpe_ratios(returns))


def trending(seed: int, carry: float) -> Sample:
    shocks = 0.01 * stream(seed, "trend").standard_normal((4, 1000))
    returns = shocks.copy()
    for t in range(1, returns.shape[1]):
        returns[:, t] = carry * returns[:, t - 1] + shocks[:, t]
    return Sample(returns)


def test_agreement_of_ranks_equals_scipy():
    rng = stream(16, "ranks")
    for levels in (50, 4, 1):
        for _ in range(20):
            one, two = rng.integers(0, levels, (2, 12)).astype(np.float64)
            expected = stats.kendalltau(one, two).statistic
            assert utility.kendall(one, two) == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)
    assert utility.kendall(np.arange(12.0), np.arange(12.0)) == 1


def test_rules_rank_alike_on_alike_markets():
    agree = utility.rule_rank_agreement
    assert agree(trending(1, 0.4), trending(1, 0.4)) == pytest.approx(1)
    assert agree(trending(1, 0.4), trending(2, 0.4)) > 0.5
    assert agree(trending(1, 0.4), trending(2, -0.4)) < 0
    with pytest.raises(MetricError, match="some rule never trades"):
        agree(trending(1, 0.4), Sample(np.zeros((1, 300))))


# --- the order book


def book(seed: int, drift: float, count: int = 1500) -> BookSample:
    """Messages after each of which the mid price moves by `drift` ticks to the side of the message."""
    rng = stream(seed, "book")
    side = np.where(stream(seed, "sides").random(count) < 0.5 + 0.45 * np.sin(np.arange(count) / 60), 1, -1)
    mid = 10_000 + np.cumsum(np.round(drift * side)).astype(np.int64)
    kind = rng.choice([LIMIT, CANCEL, MARKET], count)
    sizes = rng.integers(1, 9, (2, count))
    touch = np.stack([mid - 1, sizes[0], mid + 1, sizes[1]])
    ones = np.ones(count, np.int64)
    time_ns = np.cumsum(rng.integers(1, 10**9, count))
    return BookSample(time_ns, kind, side, mid - side, sizes[0], 0 * ones, ones, touch, touch[1::2], 0 * ones, 10)


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(book_prediction, "UNITS", 8)
    monkeypatch.setattr(book_prediction, "BATCH", 16)
    monkeypatch.setattr(book_prediction, "LEARNING_RATE", 0.02)
    monkeypatch.setattr(book_prediction, "MOST_TESTED", 60)


@pytest.mark.usefixtures("_small")
def test_synthetic_messages_teach_what_real_ones_do_or_do_not():
    real = book(1, 1.0, 4000)
    score = book_prediction.predictive_score
    alike, again = (score(real, book(2, 1.0), rng=stream(1, "book"), steps=30) for _ in "ab")
    assert alike == again
    assert alike.low <= alike.ratio <= alike.high
    wrong = score(real, book(2, -1.0), rng=stream(1, "book"), steps=30)
    assert wrong.replay == alike.replay
    assert alike.replay < alike.persistence
    assert wrong.ratio > 1.3 * alike.ratio


@pytest.mark.usefixtures("_small")
def test_windows_stay_within_a_stretch():
    real, short = book(1, 1.0, 4000), book(2, 1.0)
    cut = replace(short, stretch=np.arange(len(short)) // 150)
    with pytest.raises(MetricError, match="the synthetic sample has 0"):
        book_prediction.predictive_score(real, cut, rng=stream(1, "book"))
    empty = replace(short, touch=short.touch * np.array([[1], [0], [1], [1]]))
    with pytest.raises(MetricError, match="needs 200 windows of 200 messages"):
        book_prediction.predictive_score(real, empty, rng=stream(1, "book"))


def test_what_is_told_lies_beyond_what_is_read():
    messages = book_prediction._Messages.of(book(3, 1.0), "real")
    start = messages.starts[5]
    read = messages.windows(np.array([start]))
    assert read.shape[1] == 100
    np.testing.assert_array_equal(read[0, -1], messages.rows[start + 99])
    expected: FloatArray = messages.mid[start + 199] - messages.mid[start + 99]
    assert messages.moves(np.array([start]))[0] == expected
    assert stats.describe(messages.starts).minmax == (0, 1300)
