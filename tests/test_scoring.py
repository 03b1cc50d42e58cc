"""Scoring: the fidelity of candidates against one base, whatever the pieces, the lengths and the company."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.fidelity import copying, weighted
from synth_pipeline.fidelity.metric import StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.fidelity.scoring import Base, Scorer
from synth_pipeline.rng import stream
from synth_pipeline.series import Series

TWELVE = [metric for metric in metrics().values() if isinstance(metric, StatisticMetric) and metric.weight]


def market(seed, steps, paths=1, level=0.01):
    """Prices of a market whose volatility clusters, (paths, steps)."""
    rng = stream(seed, "market")
    swings = np.cumsum(0.1 * rng.standard_normal((paths, steps - 1)), axis=1) / np.sqrt(np.arange(1, steps))
    returns = level * np.exp(swings) * rng.standard_t(4, (paths, steps - 1))
    return 100 * np.exp(np.concatenate([np.zeros((paths, 1)), np.cumsum(returns, axis=1)], axis=1))


def series(prices, tick=0.0):
    starts = np.zeros(len(prices), dtype=np.int64)
    return Series(prices[:, :, np.newaxis], ("close",), 60 * 10**9, starts, tick)


def scored(base, paths):
    scorer = Scorer(base)
    for number, path in enumerate(paths):
        scorer.add(number, path)
    return scorer.finish()


def by_hand(real, made):
    """The fidelity of one path as the metrics themselves compute it."""
    return weighted.fidelity({metric: metric.per_path(real, made)[0] for metric in TWELVE})[0]


@pytest.fixture(scope="module")
def base():
    return Base.of(series(market(1, 801)), 801)


def test_a_score_is_the_fidelity_that_the_metrics_give(base):
    made = market(2, 801, paths=6)
    for number, found in scored(base, made).items():
        assert found.score == pytest.approx(
            by_hand(base.sample, Sample.of(series(made[number : number + 1]))), rel=1e-9
        )
        assert found.score == pytest.approx(100.0 - found.lost.sum(), rel=1e-12)
        assert (found.lost >= 0).all()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(110, 400), st.floats(0, 0.05), st.sampled_from([0.0, 0.01, 1.0]))
def test_a_copy_scores_exactly_100(seed, steps, missing, tick):
    prices = market(seed, steps)
    prices = np.round(prices / tick) * tick if tick else prices
    prices[stream(seed, "gaps").random(prices.shape) < missing * 110 / steps] = np.nan
    try:
        base = Base.of(series(prices, tick), steps)
    except TooLittleDataError:
        return
    ((_, found),) = scored(base, prices).items()
    assert found.score == 100.0
    assert not found.lost.any()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 800), max_size=6), st.integers(2, 5), st.integers(1, 900))
def test_pieces_and_company_change_no_bit(cuts, count, batch):
    base = Base.of(series(market(1, 301)), 801)
    made = market(3, 801, paths=count)
    alone = [scored(base, made[number : number + 1])[0] for number in range(count)]
    scorer = Scorer(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synth_pipeline.fidelity.scoring._BATCH", batch)
        for number, path in enumerate(made):
            for piece in np.split(path, sorted(cuts)):
                scorer.add(number, piece)
        found = scorer.finish()
    assert list(found) == list(range(count))
    for number, each in enumerate(alone):
        assert found[number].score == each.score
        assert found[number].lost.tobytes() == each.lost.tobytes()
        assert found[number].head.tobytes() == each.head.tobytes()


@pytest.mark.parametrize(("real_steps", "steps"), [(301, 901), (901, 301), (301, 1100), (1001, 301)])
def test_lengths_that_differ_are_compared_in_windows_of_the_shorter(real_steps, steps):
    real, made = market(4, real_steps), market(5, steps)
    length = min(real_steps, steps) - 1
    found = scored(Base.of(series(real), steps), made)[0].score
    windows = [Sample.of(series(prices)).windows(length) for prices in (real, made)]
    similarities = {metric: np.array([metric(*windows)]) for metric in TWELVE}
    assert found == pytest.approx(weighted.fidelity(similarities)[0], rel=1e-9)


def test_a_metric_that_a_candidate_leaves_undefined_costs_all_its_points(base):
    flat = scored(base, np.full((1, 801), 50.0))[0]
    names = [metric.name for metric in base.twelve]
    assert flat.score == 0
    assert flat.lost[names.index("kurtosis")] == pytest.approx(100 * 2 / 22.5)


def test_the_head_is_what_the_search_for_copies_looks_at(base):
    prices = market(6, 801)
    quoted = prices[0].copy()
    quoted[200:301] = 3 * base_prices()[400:501]
    made = Sample.of(series(quoted[np.newaxis]))
    head = scored(base, quoted[np.newaxis])[0].head
    np.testing.assert_array_equal(head, made.returns[0])
    found = copying.copied(base.sample, head)
    assert found.longest == copying.longest_verbatim_run(base.sample, made) == 100
    assert found.runs == 1
    assert found.steps / found.known == copying.verbatim_share(base.sample, made) == 100 / 800


def base_prices():
    return market(1, 801)[0]


def test_of_a_long_path_only_the_first_steps_are_searched(monkeypatch):
    monkeypatch.setattr(copying, "MOST_PAIRS", 20_000)
    base = Base.of(series(market(1, 301)), 2001)
    head = scored(base, market(7, 2001))[0].head
    assert 50 <= base.looked_at < 200
    assert head.size == base.looked_at


@pytest.mark.parametrize(
    ("prices", "steps", "words"),
    [
        (market(1, 90), 500, "base series of 89 known returns .* needs 100 returns"),
        (market(1, 500), 100, "paths of 100 steps cannot be scored: .* ask for longer"),
        (np.full((1, 500), 7.0), 500, "does not define skewness, .* never moves"),
        (np.full((1, 500), math.nan), 500, "base series of 0 known returns"),
        (-market(1, 500), 500, "base series of 0 known returns"),
        (np.where(np.arange(500) % 9 == 0, math.nan, market(1, 500)), 500, "gaps cut it to pieces"),
    ],
)
def test_a_base_that_does_not_define_all_twelve_is_refused(prices, steps, words):
    with pytest.raises(TooLittleDataError, match=words) as caught:
        Base.of(series(prices), steps)
    assert "\n" not in str(caught.value)


def test_a_gap_in_the_base_is_survived():
    prices = market(8, 901)
    prices[0, 300:320] = math.nan
    assert 50 < scored(Base.of(series(prices), 901), market(9, 901))[0].score < 100


def test_a_base_of_several_paths_is_their_mean():
    real, made = market(10, 401, paths=3), market(11, 401)
    base = Base.of(series(real), 401)
    similarities = {metric: np.array([metric(Sample.of(series(real)), Sample.of(series(made)))]) for metric in TWELVE}
    assert scored(base, made)[0].score == pytest.approx(weighted.fidelity(similarities)[0], rel=1e-9)
    assert replace(base, steps=401).length == 400
