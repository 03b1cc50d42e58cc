"""Fidelity: metrics against independent libraries and slow twins, the laws of floors and verdicts, real data."""

import csv
import lzma
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, MetricError, TooLittleDataError, UnknownNameError
from synth_pipeline.fidelity import bootstrap, copying, kernels, temporal, validity, weighted
from synth_pipeline.fidelity.comparison import Comparison
from synth_pipeline.fidelity.evaluate import evaluate
from synth_pipeline.fidelity.evaluation import Evaluation
from synth_pipeline.fidelity.metric import StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.rng import stream
from synth_pipeline.series import Series
from tests import naive_fidelity as naive

METRICS = metrics()
TWELVE = {
    "volatility": 3,
    "skewness": 2,
    "kurtosis": 2,
    "max_drawdown": 1.5,
    "acf_lag_1": 1,
    "acf_sum_10": 2,
    "volatility_clustering": 3,
    "hurst_exponent": 2,
    "ljung_box_p": 1,
    "arch_lm_p": 1,
    "rsi_correlation": 2,
    "volatility_persistence": 2,
}


def market(rng, paths, steps, *, level=1e-3, persistence=0.97, roughness=0.3):
    """Log-returns with stochastic volatility: clustered and heavy-tailed, (paths, steps)."""
    warm = 200
    shocks = rng.standard_normal((2, paths, steps + warm))
    log_volatility = np.zeros((paths, steps + warm))
    for t in range(1, steps + warm):
        log_volatility[:, t] = persistence * log_volatility[:, t - 1] + roughness * shocks[0, :, t]
    return (level * np.exp(log_volatility / 2) * shocks[1])[:, warm:]


def series(returns, *, tick=0.0, start=1000.0, name="close"):
    """Prices from log-returns, put on their grid."""
    levels = np.concatenate([np.zeros((len(returns), 1)), np.cumsum(returns, axis=1)], axis=1)
    prices = start * np.exp(levels)
    if tick:
        prices = np.round(prices / tick) * tick
    return Series(prices[:, :, np.newaxis], (name,), 500_000_000, np.zeros(len(returns), dtype=np.int64), tick)


def stretches(train, holdout, seed=1, **more):
    whole = series(market(stream(seed, "real"), 1, train + holdout + 1, **more), tick=0.01)
    return whole.slice(0, train + 1), whole.slice(train + 1, train + holdout + 2)


@pytest.fixture(scope="module")
def pair():
    """A training and a held-out stretch of one market, the one after the other."""
    return stretches(1500, 699)


@pytest.fixture(scope="module")
def long_pair():
    """The same, long enough for clear verdicts."""
    return stretches(4000, 2000, persistence=0.985)


def run(pair, synthetic, seed=0, **more):
    return evaluate(pair[0], synthetic, pair[1], rng=stream(seed, "evaluate"), **more)


def verdicts(evaluation):
    return {result.name: result.verdict for result in evaluation.results}


RETURNS = ("marginal", "temporal", "copying")
"""Families of returns: what windows score costs as much again."""


# ---- kernels against their slow twins, gaps included

gappy = st.lists(
    st.one_of(st.integers(-100, 100).map(lambda n: n / 1000), st.just(math.nan)), min_size=1, max_size=60
).map(lambda values: np.array([values], dtype=np.float64))
twin = settings(max_examples=60)


@twin
@given(gappy)
def test_moments_equal_their_twin(values):
    found = kernels.moments(values)[:, 0]
    np.testing.assert_allclose(found, naive.moments(values[0]), rtol=1e-12, atol=1e-16)


@twin
@given(gappy, gappy)
def test_correlations_equal_their_twin(first, second):
    steps = min(first.shape[1], second.shape[1])
    found = kernels.correlations(first[:, :steps], second[:, :steps])
    np.testing.assert_allclose(found, [naive.correlation(first[0, :steps], second[0, :steps])], atol=1e-12)


@twin
@given(gappy, st.integers(1, 4))
def test_lagrange_multipliers_equal_their_twin(values, lags):
    found = kernels.lagrange_multipliers(values, lags)
    np.testing.assert_allclose(found, [naive.lagrange_multiplier(values[0], lags)], rtol=1e-6, atol=1e-7)


@twin
@given(gappy, st.integers(1, 12))
def test_autocorrelations_equal_their_twin(values, lags):
    expected = naive.autocorrelations(values[0], lags)
    np.testing.assert_allclose(kernels.autocorrelations(values, lags)[0], expected, rtol=1e-7, atol=1e-9)


@twin
@given(gappy)
def test_drawdown_equals_its_twin(values):
    np.testing.assert_allclose(kernels.max_drawdowns(values), [naive.max_drawdown(values[0])], atol=1e-12)


@twin
@given(gappy, st.integers(1, 14))
def test_relative_strength_equals_its_twin(values, period):
    expected = naive.relative_strength(values[0], period)
    np.testing.assert_allclose(kernels.relative_strength(values, period)[0], expected, rtol=1e-9, atol=1e-7)


@twin
@given(gappy, st.integers(3, 12))
def test_fluctuations_equal_their_twin(values, box):
    found = kernels.fluctuations(values, np.array([box]))[0]
    np.testing.assert_allclose(found, [naive.fluctuation(values[0], box)], rtol=1e-6, atol=1e-9)


@twin
@given(gappy, st.integers(1, 8))
def test_block_volatilities_pair_as_their_twin_does(values, length):
    blocks = kernels.block_volatilities(values, length)[0]
    pairs = [pair for pair in pairwise(blocks) if np.isfinite(pair).all()]
    np.testing.assert_allclose(pairs, naive.neighbouring_volatilities(values[0], length), atol=1e-12)


@twin
@given(gappy, gappy, st.sampled_from([0.0, 0.01]))
def test_matches_equal_their_twin(source, path, tolerance):
    equal, longest = kernels.matches(source[0], Sample(source).ranked, path[0], tolerance)
    assert list(equal) == [sum(abs(value - step) <= tolerance for value in source[0]) for step in path[0]]
    assert list(longest) == [
        naive.longest_match_ending(source[0], path[0], end, tolerance) for end in range(1, path.shape[1] + 1)
    ]


# ---- statistics against libraries that we did not write


@pytest.fixture(scope="module")
def rows():
    return market(stream(2, "oracle"), 3, 700)


def test_moments_equal_scipy(rows):
    from scipy import stats

    np.testing.assert_allclose(METRICS["skewness"].statistic(rows), stats.skew(rows, axis=1), rtol=1e-10)
    np.testing.assert_allclose(METRICS["kurtosis"].statistic(rows), stats.kurtosis(rows, axis=1) + 3, rtol=1e-10)
    np.testing.assert_allclose(METRICS["volatility"].statistic(rows), rows.std(axis=1), rtol=1e-12)


def test_distances_equal_scipy(rows):
    from scipy import stats

    first, second = Sample(rows[:1]), Sample(1.3 * rows[1:2, :500])
    thin = [side.pooled[np.linspace(0, side.pooled.size - 1, 200).round().astype(int)] for side in (first, second)]
    assert METRICS["ks_distance"](first, second) == pytest.approx(stats.ks_2samp(*thin).statistic, abs=1e-12)
    spread = (first.pooled.std() + second.pooled.std()) / 2
    expected = stats.wasserstein_distance(first.pooled, second.pooled) / spread
    assert METRICS["wasserstein_distance"](first, second) == pytest.approx(expected, rel=1e-10)


def test_autocorrelation_and_tests_equal_statsmodels(rows):
    from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch
    from statsmodels.tsa.stattools import acf

    np.testing.assert_allclose(temporal.return_acf(rows)[0], acf(rows[0], nlags=20)[1:], atol=1e-12)
    for index, row in enumerate(rows):
        ljung_box = acorr_ljungbox(row, lags=[10])["lb_pvalue"].iloc[0]
        assert weighted.ljung_box_p.statistic(rows)[index] == pytest.approx(ljung_box, rel=1e-8)
        arch = het_arch(row - row.mean(), nlags=5, result_object=False)[1]
        assert weighted.arch_lm_p.statistic(rows)[index] == pytest.approx(arch, rel=1e-6)


@pytest.mark.slow
def test_hurst_exponent_equals_antropy(rows):
    from antropy import detrended_fluctuation

    expected = [detrended_fluctuation(row) for row in rows]
    np.testing.assert_allclose(weighted.hurst_exponent.statistic(rows), expected, rtol=1e-8)


def test_block_length_follows_arch():
    """arch starts the bandwidth at the first negligible lag, the paper at the lag before: close, never equal."""
    from arch.bootstrap import optimal_block_length

    for seed, persistence in ((0, 0.9), (1, 0.97), (2, 0.99)):
        size = np.abs(market(stream(seed, "block"), 1, 3000, persistence=persistence)[0])
        expected = optimal_block_length(size)["stationary"].iloc[0]
        assert bootstrap.block_length(size) == pytest.approx(expected, rel=0.25)


def test_bootstrap_scatters_the_mean_as_arch_does():
    """The variance of a resampled mean is what the block length is for; Monte Carlo error of 2,000 draws is 3 %."""
    from arch.bootstrap import StationaryBootstrap

    path = np.convolve(stream(3, "scatter").standard_normal(420), np.ones(20), mode="valid")
    ours = bootstrap.resamples(Sample(path[np.newaxis]), (2000, path.size), 1, 15.0, rng=stream(4, "draws"))
    theirs = StationaryBootstrap(15, path, seed=stream(5, "arch")).apply(np.mean, 2000)
    assert next(ours).mean(axis=1).std() == pytest.approx(theirs.std(), rel=0.12)


def test_bootstrap_never_bridges_a_gap_and_draws_every_return_equally():
    values = np.arange(60.0)
    values[[10, 11, 40]] = np.nan
    drawn = next(bootstrap.resamples(Sample(values[np.newaxis]), (200, 500), 1, 8.0, rng=stream(6, "gaps")))
    assert np.isfinite(drawn).all()
    counts = np.bincount(drawn.ravel().astype(int), minlength=60)[np.isfinite(values)]
    assert counts.min() > 0.85 * counts.mean()
    assert counts.max() < 1.15 * counts.mean()
    follows = np.diff(drawn, axis=1) == 1
    assert follows.mean() == pytest.approx((1 - 1 / 8) * 54 / 57, abs=0.01)
    steps = drawn[:, 1:][follows]
    assert not np.isin(steps, [12, 41]).any()


# ---- laws that every metric keeps


def test_the_twelve_and_their_weights():
    assert {name: metric.weight for name, metric in METRICS.items() if getattr(metric, "weight", 0)} == TWELVE


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_identical_input_scores_best_and_noise_worse(metric):
    real = market(stream(7, "law"), 2, 1500) + 0.2 * np.abs(market(stream(8, "law"), 2, 1500))
    real[:, 1:] += 0.3 * real[:, :-1]
    sample = Sample(real)
    noise = Sample(stream(9, "noise").normal(0.0, 5e-3, real.shape))
    same, other = metric(sample, sample), metric(sample, noise)
    assert metric.bounds[0] <= min(same, other)
    assert max(same, other) <= metric.bounds[1]
    if metric.family == "copying":
        assert same > 0.99
        assert other == 0
    else:
        best = metric.bounds[0] if metric.goal == "low" else metric.bounds[1]
        assert same == pytest.approx(best, abs=1e-12)
        assert abs(other - best) > 1e-3


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_order_of_paths_changes_nothing(metric):
    rng = stream(10, "order")
    real, made = Sample(market(rng, 2, 600)), Sample(market(rng, 4, 600))
    shuffled = Sample(made.returns[[2, 0, 3, 1]])
    assert metric(real, shuffled) == pytest.approx(metric(real, made), rel=1e-9, abs=1e-12)
    values, reason = metric.per_path(real, made)
    assert reason == ""
    np.testing.assert_allclose(metric.per_path(real, shuffled)[0], values[[2, 0, 3, 1]], rtol=1e-12)
    alone = [metric(real, path) for path in made.one_by_one]
    np.testing.assert_allclose(values, alone, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_too_little_data_is_an_error_that_says_how_much_is_needed(metric):
    short, long = Sample(market(stream(11, "short"), 1, metric.minimum - 1)), Sample(market(stream(11, "long"), 1, 900))
    with pytest.raises(MetricError, match=f"{metric.name} needs {metric.minimum} known returns, the synthetic"):
        metric(long, short)
    with pytest.raises(MetricError, match="the real sample has"):
        metric(short, long)


@pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.family != "copying"], ids=lambda m: m.name)
def test_a_constant_sample_is_told_apart_or_absent_never_flattered(metric):
    real, flat = Sample(market(stream(12, "flat"), 1, 600)), Sample(np.zeros((1, 600)))
    values, reason = metric.per_path(real, flat)
    if np.isnan(values[0]):
        assert metric.name in reason or "autocorrelation" in reason or "equal" in reason or "synthetic sample" in reason
        with pytest.raises(MetricError):
            metric(real, flat)
    else:
        assert values[0] == 0 if metric.goal == "high" else values[0] > 0


def test_gaps_are_left_out_and_not_bridged():
    """A price that jumps across a gap moves no metric: only the returns inside stretches count."""
    prices = series(market(stream(13, "gap"), 1, 800)).values.copy()
    jumped = prices.copy()
    jumped[:, 400:] *= 3.0
    gap = slice(395, 400)
    prices[:, gap] = jumped[:, gap] = np.nan
    plain, moved = (Series(p, ("close",), 1, np.zeros(1, dtype=np.int64), 0.0) for p in (prices, jumped))
    other = series(market(stream(14, "gap"), 1, 800))
    for metric in METRICS.values():
        assert metric(other, moved) == pytest.approx(metric(other, plain), rel=1e-9, abs=1e-12)


def test_a_night_at_the_end_of_the_training_series_costs_none_of_its_windows(pair):
    """Of two short days the training part may end in the night between: windows are cut from its day, not its end."""
    day, holdout = pair
    night = np.full((1, 20_000, 1), np.nan)
    through = replace(day, values=np.concatenate([day.values, night], axis=1))
    other = series(market(stream(15, "night"), 4, 3000), tick=0.01)
    plain, late = (Comparison.of(train, other, holdout) for train in (day, through))
    assert late.length == plain.length
    assert np.array_equal(late.fresh.returns, plain.fresh.returns, equal_nan=True)


def test_a_new_family_name_must_exist():
    with pytest.raises(UnknownNameError, match="temporal"):
        metrics(["temporel"])


def test_fidelity_is_the_weighted_mean_of_what_is_there():
    first, second = METRICS["volatility"], METRICS["acf_lag_1"]
    scores = weighted.fidelity({first: np.array([0.5, 0.5, np.nan]), second: np.array([1.0, np.nan, np.nan])})
    np.testing.assert_allclose(scores, [100 * (3 * 0.5 + 1) / 4, 50.0, np.nan])


# ---- evaluations


def test_a_fresh_draw_of_the_same_market_is_rarely_off():
    """Any number of one market is called otherwise in 5 % of cases: of six markets at most one has any, and few."""
    outside, off = [], []
    for seed in range(6):
        made = series(market(stream(seed, "fresh"), 8, 499), tick=0.01)
        found = run(stretches(1100, 499, seed), made, seed)
        assert found.grade not in ("withheld", "F")
        outside += [result.verdict != "indistinguishable" for result in found.judged]
        off += [result.verdict == "off" for result in found.judged]
    assert np.mean(outside) < 0.03
    assert np.mean(off) < 0.01


def test_shuffled_returns_lose_their_clusters(long_pair):
    returns = Sample.of(long_pair[0]).returns
    shuffled = stream(1, "shuffle").permuted(np.tile(returns, (8, 1)), axis=1)[:, :1999]
    found = run(long_pair, series(shuffled, tick=0.01), families=RETURNS)
    assert verdicts(found)["absolute_return_acf_error"] in ("close", "off")
    assert verdicts(found)["volatility_clustering"] == "off"
    assert verdicts(found)["quantile_error"] == "indistinguishable"
    assert found.conclusion == "off"
    clustering = next(result for result in found.results if result.name == "volatility_clustering")
    assert clustering.synthetic < clustering.real_band[0]
    assert "singly" in clustering.meaning


def test_gaussian_tails_are_off(long_pair):
    spread = float(Sample.of(long_pair[0]).pooled.std())
    found = run(long_pair, series(stream(2, "gauss").normal(0.0, spread, (8, 1999)), tick=0.01), families=RETURNS)
    assert verdicts(found)["kurtosis"] in ("close", "off")
    assert verdicts(found)["lower_tail_index"] == verdicts(found)["upper_tail_index"] == "off"
    assert found.conclusion == "off"
    assert found.fidelity < found.floor


def test_doubled_moves_are_off_and_drift_is_noticed(pair):
    rng = stream(3, "double")
    doubled = run(pair, series(6 * market(rng, 8, 699), tick=0.01), families=RETURNS)
    assert verdicts(doubled)["volatility"] == verdicts(doubled)["wasserstein_distance"] == "off"
    drifting = run(pair, series(market(rng, 8, 699) + 1.5e-3, tick=0.01), families=RETURNS)
    assert verdicts(drifting)["mean_return"] == "off"


def test_a_block_bootstrap_scores_well_and_is_called_a_copy(pair):
    rng = stream(4, "copy")
    copies = next(bootstrap.resamples(Sample.of(pair[0]), (8, 699), 1, 40.0, rng=rng))
    found = run(pair, series(copies, tick=0.01, start=1400.0), families=RETURNS)
    assert found.conclusion == "memorised"
    results = {result.name: result for result in found.results}
    assert results["verbatim_share"].value > 0.8
    assert results["verbatim_share"].floor == 0
    assert results["longest_verbatim_run"].value > 50
    assert found.fidelity > found.fidelity_band[0]


def test_quiet_markets_do_not_copy_each_other():
    """On a coarse grid most returns are 0 and the others one tick: long equal runs are chance, and no copies."""
    rng = stream(5, "quiet")
    moves = rng.choice([-1, 0, 1], p=[0.08, 0.84, 0.08], size=(2, 3000))
    train, other = (Sample.of(series(np.log1p(path / 10_000), tick=0.1)) for path in moves[:, np.newaxis])
    _, longest = kernels.matches(train.in_a_row, train.ranked, other.returns[0], train.resolution)
    assert longest.max() > 20
    assert copying.verbatim_share(train, other) == 0
    assert copying.verbatim_share(train, Sample(train.returns[:, 100:900], train.resolution)) == 1


def test_an_exact_copy_is_found_in_full_and_a_short_quote_only_where_it_is():
    rng = stream(6, "quote")
    train, made = market(rng, 1, 2000), market(rng, 1, 400)
    made[0, 100:112] = train[0, 700:712]
    runs = copying.verbatim_runs(Sample(train), made[0])
    assert runs.max() == 12
    assert int(np.argmax(runs)) == 111
    assert copying.verbatim_share(Sample(train), Sample(made)) == pytest.approx(12 / 400)
    assert copying.longest_verbatim_run(Sample(train), Sample(made)) == 12


def test_short_data_leave_metrics_absent_with_their_reason():
    found = run(stretches(180, 119), series(market(stream(8, "few"), 4, 119), tick=0.01))
    absent = {result.name: result for result in found.results if result.verdict == "absent"}
    assert {"ks_distance", "quantile_error", "absolute_return_acf_error"} <= set(absent)
    assert absent["ks_distance"].reason == "ks_distance needs 200 known returns, the real sample has 119"
    assert all(result.value is None and result.floor is None and result.band is None for result in absent.values())
    assert found.fidelity_weight == 1
    assert found.panels.absolute_return_acf is not None


def test_a_path_that_stands_still_is_invalid_and_scores_nothing(pair):
    found = run(pair, series(np.zeros((3, 699)), tick=0.01), families=RETURNS)
    assert found.conclusion == "invalid"
    assert found.fidelity == 0
    assert verdicts(found)["volatility"] == "off"
    assert verdicts(found)["kurtosis"] == "absent"
    assert 0 < found.fidelity_weight < 0.5


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda prices: prices.__setitem__((0, 5, 0), np.nan), "finite"),
        (lambda prices: prices.__setitem__((0, 5, 0), -1.0), "positive_prices"),
        (lambda prices: prices.__setitem__((0, 5, 0), prices[0, 5, 0] + 0.004), "tick_grid"),
        (lambda prices: prices.__setitem__((0, slice(None), 0), 1000.0), "moving_prices"),
        (lambda prices: prices.__setitem__(0, prices[1]), "distinct_paths"),
    ],
)
def test_each_validity_check_counts_its_own_failure(pair, spoil, name):
    good = series(market(stream(9, "valid"), 3, 699), tick=0.01)
    assert all(check.failures == 0 for check in validity.checks(good))
    prices = good.values.copy()
    spoil(prices)
    bad = Series(prices, good.names, good.step_ns, good.start_ns, good.tick_size)
    broken = {check.name: check.failures for check in validity.checks(bad) if check.failures}
    assert broken == {name: 1}
    assert run(pair, bad, families=["copying"]).conclusion == "invalid"


def test_bars_must_keep_their_order_and_sizes_their_sign():
    bars = np.array([[[10.0, 12.0, 9.0, 11.0, 5.0], [11.0, 11.5, 11.2, 11.4, -1.0]]])
    made = Series(bars, ("open", "high", "low", "close", "volume"), 1, np.zeros(1, dtype=np.int64), 0.1)
    assert {check.name: check.failures for check in validity.checks(made) if check.failures} == {
        "bar_order": 1,
        "non_negative_sizes": 1,
    }


def test_a_mid_price_may_lie_half_way_between_ticks():
    mid = Series(np.array([[[1.05], [1.1], [1.15]]]), ("mid",), 1, np.zeros(1, dtype=np.int64), 0.1)
    assert all(check.failures == 0 for check in validity.checks(mid))


def test_evaluation_is_reproducible_and_lossless_as_json(pair):
    made = series(market(stream(10, "json"), 3, 699), tick=0.01)
    first, second = run(pair, made), run(pair, made)
    assert first.to_json() == second.to_json()
    assert Evaluation.from_json(first.to_json()) == first
    assert run(pair, made, seed=1, families=["copying"]).to_json() != first.to_json()
    rows = first.table()
    assert [row["name"] for row in rows] == [result.name for result in first.results]
    assert set(METRICS) <= {row["name"] for row in rows}
    assert len({tuple(row) for row in rows}) == 1


def test_a_number_does_not_depend_on_the_families_asked_for(pair):
    made = series(market(stream(11, "families"), 3, 699), tick=0.01)
    everything, some = run(pair, made), run(pair, made, families=["temporal"])
    assert {result.family for result in some.results} == {"temporal", "weighted"}
    by_name = {result.name: result for result in everything.results}
    for result in some.results:
        assert (result.value, result.floors, result.band) == tuple(
            getattr(by_name[result.name], field) for field in ("value", "floors", "band")
        )
    assert (some.fidelity, some.floor, some.fidelity_band) == (
        everything.fidelity,
        everything.floor,
        everything.fidelity_band,
    )


def test_windows_are_of_equal_size_and_progress_ends_at_its_total(pair):
    seen = []
    made = series(market(stream(12, "sizes"), 2, 650), tick=0.01)
    found = run(pair, made, progress=lambda done, total, _note="": seen.append((done, total)))
    assert found.sizes.compared_returns == 650
    assert (found.sizes.train_windows, found.sizes.holdout_windows, found.sizes.synthetic_windows) == (2, 1, 2)
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][0] == seen[-1][1]


def test_gaps_in_real_data_are_counted_and_survived(pair):
    train, holdout = (Series(s.values.copy(), s.names, s.step_ns, s.start_ns, s.tick_size) for s in pair)
    train.values[:, 300:340] = np.nan
    holdout.values[:, 100:105] = np.nan
    found = run((train, holdout), series(market(stream(13, "gaps"), 2, 699), tick=0.01), families=RETURNS)
    assert (found.sizes.train_missing, found.sizes.holdout_missing) == (41, 6)
    assert "absent" not in verdicts(found).values()
    assert None in found.panels.price.real


@pytest.mark.parametrize("which", [0, 1, 2])
def test_too_short_a_series_is_the_users_error_and_says_so(pair, which):
    three = [pair[0], series(market(stream(14, "short"), 1, 699)), pair[1]]
    three[which] = three[which].slice(0, 40)
    with pytest.raises(TooLittleDataError, match="returns on a path; windows of 39 are compared and 50 must be known"):
        evaluate(*three, rng=stream(0, "evaluate"))


def test_a_real_market_that_never_moves_cannot_be_compared_with(pair):
    flat = series(np.zeros((1, 699)), tick=0.01)
    with pytest.raises(TooLittleDataError, match="held-out series never moves"):
        evaluate(pair[0], pair[1], flat, rng=stream(0, "evaluate"))


def test_what_is_no_record_is_refused():
    with pytest.raises(InputError, match="not a fidelity record"):
        Evaluation.from_json(b'{"fidelity": "high"}')
    with pytest.raises(InputError, match="not a fidelity record"):
        Evaluation.from_json(b"\xff")


def test_batched_scores_equal_single_ones():
    """Rejection sampling scores many candidates at once: the batch must say what one alone would."""
    real, made = Sample(market(stream(15, "batch"), 1, 500)), Sample(market(stream(16, "batch"), 5, 500))
    twelve = [metric for metric in METRICS.values() if isinstance(metric, StatisticMetric) and metric.weight]
    batch = weighted.fidelity({metric: metric.per_path(real, made)[0] for metric in twelve})
    for index in range(5):
        alone = {metric: np.array([metric(real, made.one_by_one[index])]) for metric in twelve}
        assert weighted.fidelity(alone)[0] == pytest.approx(batch[index], rel=1e-10)


# ---- real prices


def test_real_hours_pass_for_real_and_shuffled_ones_do_not(real):
    with lzma.open(real("binance_usdm_ETHUSDT_1h_to20230630.csv.xz"), "rt") as file:
        close = np.array([float(row["Close"]) for row in csv.DictReader(file)])
    whole = Series(close[np.newaxis, :, np.newaxis], ("close",), 3600 * 10**9, np.zeros(1, dtype=np.int64), 0.01)
    train, holdout, later = whole.slice(8000, 12000), whole.slice(12000, 14000), whole.slice(14000, 16000)
    genuine = evaluate(train, later, holdout, rng=stream(0, "real"))
    assert genuine.conclusion not in ("invalid", "memorised")
    returns = np.tile(Sample.of(train).returns, (6, 1))
    shuffled = series(stream(1, "real").permuted(returns, axis=1)[:, :1999], tick=0.01, start=close[11999])
    mixed = evaluate(train, shuffled, holdout, rng=stream(0, "real"))
    assert mixed.grade not in ("A", "B")
    assert mixed.fidelity < genuine.fidelity
