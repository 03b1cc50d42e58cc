"""Jump processes: the Hawkes process of events, the self-exciting jump diffusion, Merton's; against twins and laws."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from synth_pipeline.errors import TooLittleDataError, TrainingError
from synth_pipeline.generators import diurnal, hawkes, jump_filter
from synth_pipeline.generators.jump_filter import Law, distribution, filtered, rounded_density
from synth_pipeline.generators.merton_jump_diffusion import Law as MertonLaw
from synth_pipeline.generators.merton_jump_diffusion import MertonJumpDiffusion, log_likelihood
from synth_pipeline.generators.merton_jump_diffusion import distribution as merton_distribution
from synth_pipeline.generators.price_process import Returns
from synth_pipeline.generators.self_exciting_jump_diffusion import SelfExcitingJumpDiffusion, rescaled
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive

RATES = st.tuples(st.floats(0.2, 3.0), st.floats(0.05, 0.9), st.floats(0.2, 8.0))

# Hawkes processes in continuous time.


@settings(max_examples=20)
@given(rates=RATES, seed=st.integers(0, 50))
def test_the_likelihood_is_that_of_every_pair_of_events(rates: tuple[float, float, float], seed: int) -> None:
    times = hawkes.simulated(stream(seed, "events"), 30.0, 1.0, 0.5, 2.0)
    found = hawkes.log_likelihood(times, 30.0, *rates)
    assert found[0] == pytest.approx(naive.hawkes_log_likelihood(times, 30.0, *rates), rel=1e-9, abs=1e-9)


@settings(max_examples=20)
@given(rates=RATES, seed=st.integers(0, 50))
def test_its_derivatives_are_those_of_differences(rates: tuple[float, float, float], seed: int) -> None:
    times = hawkes.simulated(stream(seed, "events"), 60.0, 1.0, 0.5, 2.0)
    at = np.array(rates)
    found = hawkes.log_likelihood(times, 60.0, *at)
    first = optimize.approx_fprime(at, lambda x: float(hawkes.log_likelihood(times, 60.0, *x)[0]), 1e-6)
    np.testing.assert_allclose(found[1:4], first, rtol=1e-3, atol=2e-2)
    second = optimize.approx_fprime(at, lambda x: hawkes.log_likelihood(times, 60.0, *x)[1:4], 1e-6)
    np.testing.assert_allclose(found[4:], second[np.triu_indices(3)], rtol=1e-3, atol=0.05)


def test_residuals_are_the_compensator_between_events() -> None:
    times = hawkes.simulated(stream(1, "events"), 25.0, 1.0, 0.5, 2.0)
    np.testing.assert_allclose(hawkes.residuals(times, 0.8, 0.6, 1.5), naive.compensator(times, 0.8, 0.6, 1.5))


def test_simulated_events_have_the_rate_and_the_dispersion_of_the_process() -> None:
    counts = np.array([len(hawkes.simulated(stream(0, "c", k), 400.0, 1.0, 0.5, 2.0)) for k in range(400)])
    # Stationary rate μ / (1 - n), less the events that the missing history would have excited; variance μ / (1 - n)³.
    missing = 1.0 / (1 - 0.5) * 0.5 / (2.0 * (1 - 0.5))
    assert counts.mean() == pytest.approx(800 - missing, abs=4 * counts.std() / 20)
    assert counts.var() == pytest.approx(400 / (1 - 0.5) ** 3, rel=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_a_fit_recovers_the_process_and_passes_its_own_test(seed: int) -> None:
    times = hawkes.simulated(stream(seed, "fit"), 20_000.0, 1.0, 0.6, 3.0)
    found = hawkes.fit(times, 20_000.0)
    for value, truth, error in zip(
        (found.base, found.branching_ratio, found.decay), (1.0, 0.6, 3.0), found.errors, strict=True
    ):
        assert abs(value - truth) < 3.5 * error
        assert error < 0.05 * truth
    assert found.residual_p(times) > 0.01


def test_the_maximum_is_that_of_a_general_search() -> None:
    times = hawkes.simulated(stream(7, "search"), 800.0, 1.0, 0.5, 2.0)
    found = hawkes.fit(times, 800.0)
    searched = optimize.minimize(
        lambda x: -hawkes.log_likelihood(times, 800.0, *np.exp(x))[0],
        np.log([0.5, 0.3, 1.0]),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-9, "maxiter": 2_000},
    )
    np.testing.assert_allclose((found.base, found.branching_ratio, found.decay), np.exp(searched.x), rtol=1e-5)
    assert found.log_likelihood == pytest.approx(-searched.fun)


def test_intensify_finds_the_same_likelihood_and_maximum() -> None:
    oracle = pytest.importorskip("intensify")
    times = hawkes.simulated(stream(3, "oracle"), 2_000.0, 1.0, 0.5, 2.0)
    for base, branching, decay in ((1.0, 0.5, 2.0), (0.7, 0.3, 5.0), (1.4, 0.8, 0.6)):
        model = oracle.Hawkes(mu=base, kernel=oracle.ExponentialKernel(alpha=branching, beta=decay))
        ours = hawkes.log_likelihood(times, 2_000.0, base, branching, decay)[0]
        assert ours == pytest.approx(model.log_likelihood(times, 2_000.0), rel=1e-9)
    start = oracle.Hawkes(mu=0.5, kernel=oracle.ExponentialKernel(alpha=0.3, beta=1.0))
    theirs = start.fit(times, T=2_000.0).params
    found = hawkes.fit(times, 2_000.0)
    kernel = theirs["kernel"]
    np.testing.assert_allclose(
        (found.base, found.branching_ratio, found.decay), (theirs["mu"], kernel.alpha, kernel.beta), rtol=1e-2
    )


def test_events_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(TooLittleDataError, match="5 events and 20 are needed"):
        hawkes.fit(np.arange(5.0), 5.0)
    with pytest.raises(TrainingError, match="no inner maximum"):
        hawkes.fit(np.arange(1.0, 500.0), 500.0)
    # A rate that explodes towards the end of the record.
    exploding = 100.0 * (1 - np.exp(-np.linspace(0.01, 8.0, 4_000)))
    with pytest.raises(TrainingError, match=r"≥ 1, which explodes|no inner maximum"):
        hawkes.fit(exploding, 100.0)


# The self-exciting jump diffusion.

QUIET = Law(2e-4, 0.4, 0.5, 0.5, 2e-3, 3.0, 5.0, 0.05, 2.0)
"""Jumps ten times the diffusion, so that a few thousand steps determine every parameter."""


def as_series(returns: FloatArray, *, tick: float = 0.0) -> Series:
    """Prices that start at 1000 and follow these returns."""
    prices = 1000 * np.exp(np.cumsum(returns))
    prices = np.rint(2 * prices / tick) * tick / 2 if tick else prices
    return Series(prices[np.newaxis, :, np.newaxis], ("mid",), 500_000_000, np.array([0]), tick)


@cache
def fitted() -> SelfExcitingJumpDiffusion:
    """One fitted on a small market."""
    return SelfExcitingJumpDiffusion().fit(naive.market(700), rng=stream(0, "fit"))


def autocorrelation(values: FloatArray, lag: int) -> float:
    """Mean over paths of the autocorrelation along the last axis."""
    return float(np.mean([np.corrcoef(row[lag:], row[:-lag])[0, 1] for row in np.atleast_2d(values)]))


def test_simulation_is_its_slow_twin() -> None:
    profile = np.linspace(0.5, 1.5, 400)
    fast = naive.jumps(stream(0, "twin"), profile, 50, QUIET)
    slow = naive.simulated_slowly(stream(0, "twin"), profile, 50, QUIET)
    for ours, theirs in zip(fast, slow, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-15)


def test_the_filter_is_its_slow_twin_and_restarts_after_a_gap() -> None:
    profile = np.linspace(0.7, 1.3, 60)
    returns, _ = naive.jumps(stream(1, "twin"), profile, 500, QUIET)
    opens = np.isin(np.arange(60), (0, 25))
    means, variances = np.empty((2, 60))
    likelihood = filtered(returns, opens, profile, 0.0, QUIET, means, variances)
    slow_likelihood, slow_means = naive.filtered_slowly(returns, opens, profile, QUIET)
    assert likelihood == pytest.approx(slow_likelihood, abs=1e-5)
    np.testing.assert_allclose(means, slow_means, rtol=1e-5)
    assert means[25] == QUIET.mean_intensity * profile[25] != means[24]


def test_assuming_a_gamma_density_costs_little_likelihood() -> None:
    returns, _ = naive.jumps(stream(2, "exact"), np.ones(150), 500, QUIET)
    opens = np.arange(150) == 0
    assumed = filtered(returns, opens, np.ones(150), 0.0, QUIET, *np.empty((2, 150)))
    assert abs(assumed - naive.exact_log_likelihood(returns, QUIET)) < 0.5


def test_two_large_jumps_are_nearly_the_normal_they_are_taken_for() -> None:
    rng = stream(0, "two")
    up, down, share = jump_filter.large_jumps(QUIET)
    sizes = np.abs(rng.standard_normal((200_000, 2)))
    moves = np.where(rng.random((200_000, 2)) < share, up * sizes, -down * sizes).sum(axis=1)
    assert moves.mean() == pytest.approx(0.0, abs=4 * moves.std() / np.sqrt(200_000))
    assert moves.var() == pytest.approx(2 * up * down, rel=0.02)
    assert stats.kstest(moves, stats.norm(scale=np.sqrt(2 * up * down)).cdf).statistic < 0.06


@given(spread=st.floats(0.01, 8.0), move=st.floats(-12.0, 12.0))
def test_rounding_is_a_triangle_averaged_over_the_normal(spread: float, move: float) -> None:
    errors = (np.arange(20_000) + 0.5) / 10_000 - 1
    exact = np.mean(stats.norm.pdf(move + errors, scale=spread) * (1 - np.abs(errors))) * 2
    made = rounded_density(move, spread, 1.0)
    # Sheppard's correction is a series in (resolution / spread)²; elsewhere only the quadrature errs.
    assert made == pytest.approx(exact, rel=5e-3 if spread >= 2 and abs(move) < 4 * spread else 2e-2, abs=1e-4)


@given(variance=st.floats(0.01, 4.0), scale=st.floats(0.01, 8.0), move=st.floats(-12.0, 12.0))
def test_a_large_jump_is_skew_normal(variance: float, scale: float, move: float) -> None:
    whole = np.sqrt(variance + scale**2)
    exact = stats.skewnorm.pdf(move, scale / np.sqrt(variance), scale=whole)
    assert jump_filter.skewed_density(move, variance, scale) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_the_distribution_is_the_integral_of_the_density() -> None:
    means, variances = np.array([0.7]), np.array([0.2])
    opens = np.array([True])

    def density(move: float) -> float:
        # A filter that opens at these moments: the long run of a law that has them.
        return float(np.exp(filtered(np.array([move]), opens, np.ones(1), 0.0, QUIET, *np.empty((2, 1)))))

    long_run = np.array([QUIET.mean_intensity]), np.array([jump_filter.memory(QUIET)[2]])
    for move in (-0.004, -1e-4, 0.002):
        area = integrate.quad(density, -0.2, move, points=(-0.01, -0.001), limit=400)[0]
        assert distribution(np.array([move]), QUIET, *long_run)[0] == pytest.approx(area, abs=1e-4)
    assert distribution(np.array([-9.0]), QUIET, means, variances)[0] == pytest.approx(0.0, abs=1e-12)
    assert distribution(np.array([9.0]), QUIET, means, variances)[0] == pytest.approx(1.0)


def test_the_compensator_is_the_mean_growth_of_a_jump() -> None:
    wild = QUIET._replace(jump=0.1, up_ratio=2.0, down_ratio=4.0, large_share=0.2)
    up, down, share = jump_filter.large_jumps(wild)
    half = stats.halfnorm
    large = share * half(scale=up).expect(np.exp) + (1 - share) * half(scale=down).expect(lambda x: np.exp(-x))
    exact = 0.8 * (np.exp(0.1**2 / 2) - 1) + 0.2 * (large - 1)
    assert jump_filter.jump_growth(wild) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_maximum_likelihood_recovers_the_law(seed: int) -> None:
    returns, _ = naive.jumps(stream(seed, "recovery"), np.ones(4_000), 1_000, QUIET)
    generator = SelfExcitingJumpDiffusion().fit(as_series(returns, tick=0.01), rng=stream(0, "fit"))
    for name, truth in QUIET._asdict().items():
        estimate = generator.estimates[name]
        assert estimate.error is not None, name
        assert abs(np.log(estimate.value / truth)) < 4.5 * estimate.error / estimate.value, name
    summary = generator.summary()
    # All of them together: twice the gain of likelihood over the truth is chi-squared.
    known = Returns.of(as_series(returns, tick=0.01), 0.005)
    at_truth = filtered(known.values, known.opens, np.ones(len(known)), known.resolution, QUIET, *np.empty((2, 3_999)))
    assert 0 < 2 * (summary["log_likelihood"] - at_truth) < stats.chi2(9).ppf(0.9999)
    assert abs(summary["base_intensity"] - 0.2) < 3.5 * summary["base_intensity_se"]
    assert summary["residual_ks"] < 1.6 / np.sqrt(4_000)
    assert summary["rescaled_p"] > 0.001
    assert summary["jump_share_of_variance"] > 0.97


def test_down_jumps_larger_than_up_jumps_are_told_apart() -> None:
    skewed = QUIET._replace(up_ratio=2.0, down_ratio=9.0)
    returns, _ = naive.jumps(stream(0, "skewed"), np.ones(3_000), 1_000, skewed)
    generator = SelfExcitingJumpDiffusion().fit(as_series(returns), rng=stream(0, "fit"))
    assert generator.estimates["up_ratio"].interval[1] < generator.estimates["down_ratio"].interval[0]
    made = generator.sample(4, 20_000, rng=stream(0, "sample")).log_returns()
    assert stats.skew(made, axis=None) < -0.5


def test_prices_are_a_martingale() -> None:
    wild = Law(0.01, 0.5, 0.6, 0.3, 0.05, 2.0, 4.0, 0.1, 3.0)
    ends = np.array(
        [
            np.exp(naive.jumps(rng, np.ones(50), 0, wild)[0].sum())
            for rng in (stream(0, "martingale", path) for path in range(20_000))
        ]
    )
    z = (ends.mean() - 1) / (ends.std() / np.sqrt(len(ends)))
    assert abs(z) < 3
    # Without the compensator the mean would stand far above one.
    assert ends.std() > 0.3


def test_the_mean_intensity_is_base_over_one_less_branching() -> None:
    law = QUIET._replace(decay=0.8)
    _, intensities = naive.jumps(stream(0, "intensity"), np.ones(400_000), 1_000, law)
    base = law.mean_intensity * (1 - law.branching_ratio)
    assert intensities.mean() == pytest.approx(base / (1 - law.branching_ratio), rel=0.02)
    assert intensities.min() >= base


def test_volatility_clusters_and_fades() -> None:
    returns = np.abs(fitted().sample(20, 3_000, rng=stream(0, "clusters")).log_returns())
    assert autocorrelation(returns, 1) > 0.05
    assert abs(autocorrelation(returns, 60)) < 0.02


def test_samples_rest_as_often_as_the_market() -> None:
    real = naive.market(700).log_returns()
    made = fitted().sample(20, 700, rng=stream(0, "rest")).log_returns()
    assert np.mean(made == 0) == pytest.approx(np.mean(real == 0), abs=0.06)


def test_a_plain_random_walk_is_fitted_too() -> None:
    returns = 1e-3 * stream(0, "walk").standard_normal(1_000)
    generator = SelfExcitingJumpDiffusion().fit(as_series(returns), rng=stream(0, "fit"))
    made = generator.sample(10, 1_000, rng=stream(0, "sample")).log_returns()
    assert made.std() == pytest.approx(1e-3, rel=0.1)
    assert abs(stats.kurtosis(made, axis=None)) < 1


def test_activity_that_drifts_away_is_held_at_a_stationary_estimate() -> None:
    rng = stream(0, "drift")
    returns = np.exp(np.linspace(0, 5, 1_500)) * 1e-5 * rng.standard_normal(1_500)
    generator = SelfExcitingJumpDiffusion().fit(as_series(returns), rng=stream(0, "fit"))
    assert generator.summary()["branching_ratio"] < 1
    assert any("not stationary" in note for note in generator.notes)


def test_hours_of_a_real_market_are_matched(real: Any) -> None:
    closes = np.loadtxt(real("binance_usdm_BTCUSDT_1h_to20230630.csv.xz"), delimiter=",", skiprows=1, usecols=4)
    bars = Series(closes[np.newaxis, -2_000:, np.newaxis], ("close",), 3_600 * 10**9, np.array([0]), 0.1)
    generator = SelfExcitingJumpDiffusion().fit(bars, rng=stream(0, "fit"))
    made = generator.sample(6, 2_000, rng=stream(0, "sample")).log_returns()
    observed = bars.log_returns()
    assert stats.ks_2samp(made.ravel(), observed.ravel()).statistic < 0.04
    for lag in (1, 5, 20):
        assert abs(autocorrelation(np.abs(made), lag) - autocorrelation(np.abs(observed), lag)) < 0.12


# Time rescaling and the time of day.


def test_rescaled_waits_of_the_true_probabilities_are_exponential() -> None:
    rng = stream(0, "waits")
    chances = 0.05 + 0.4 * (np.sin(np.arange(60_000) / 40) + 1) / 2
    happened = rng.random(60_000) < chances
    waits = rescaled(chances, happened, np.arange(60_000) // 30_000, rng)
    assert len(waits) == happened.sum() - 2
    assert stats.kstest(waits, "expon").pvalue > 0.01
    assert stats.kstest(rescaled(np.full(60_000, 0.25), happened, np.zeros(60_000), rng), "expon").pvalue < 1e-6


def test_the_time_of_day_is_learnt_and_sampled() -> None:
    hours = np.arange(24 * 40)
    factors = np.where(hours % 24 < 12, 0.4, 1.6)
    returns, _ = naive.jumps(stream(0, "day"), factors, 500, QUIET._replace(mean_intensity=1.0))
    prices = 1000 * np.exp(np.concatenate(([0.0], np.cumsum(returns))))
    series = Series(prices[None, :, None], ("close",), 3_600 * 10**9, np.array([0]), 0.0)
    generator = SelfExcitingJumpDiffusion().fit(series, rng=stream(0, "fit"))
    assert len(generator.law.profile) == 24
    made = generator.sample(20, 24 * 50 + 1, rng=stream(0, "sample"))
    assert (int(made.start_ns[0]) // (3_600 * 10**9)) % 24 == len(prices) % 24
    squares = made.log_returns() ** 2
    hour = (len(prices) + np.arange(24 * 50)) % 24
    quiet, busy = squares[:, hour < 12].mean(), squares[:, hour >= 12].mean()
    learnt = generator.law.profile[12:].mean() / generator.law.profile[:12].mean()
    assert learnt > 1.3
    assert busy / quiet == pytest.approx(learnt, rel=0.3)


def test_the_profile_is_flat_without_a_time_of_day() -> None:
    rng = stream(0, "flat")
    labels = np.arange(1, 24 * 40 + 1) * 3_600 * 10**9
    factors, why = diurnal.profile_of(rng.standard_normal(24 * 40), labels, 3_600 * 10**9)
    assert why is None
    assert np.abs(factors - 1).max() < 0.35
    assert diurnal.profile_of(np.ones(48), labels[:48], 3_600 * 10**9)[1] is not None
    days = np.arange(1, 101) * 86_400 * 10**9
    assert diurnal.profile_of(rng.standard_normal(100), days, 86_400 * 10**9) == (diurnal.FLAT, None)


# Merton's jump diffusion.

BURSTS = MertonLaw(1e-3, 0.1, -5e-4, 4e-3)


def test_the_mixture_is_that_of_scipy() -> None:
    returns = 3e-3 * stream(0, "mixture").standard_normal(50)
    values = (1e-3, 0.4, -2e-4, 3e-3, 1e-4)
    slow = naive.merton_log_likelihood(returns, 1e-8, *values)
    assert log_likelihood(returns, 1e-8, *values) == pytest.approx(slow, rel=1e-9)


def merton(law: MertonLaw) -> MertonJumpDiffusion:
    """An unfitted one with this law."""
    made = MertonJumpDiffusion()
    made.law = law
    return made


def test_simulated_returns_have_the_cumulants_of_the_law() -> None:
    law = BURSTS
    returns = merton(law).draw(stream(0, "cumulants"), 400_000)
    jump = [law.jump_mean, law.jump_mean**2 + law.jump**2, law.jump_mean**3 + 3 * law.jump_mean * law.jump**2]
    fourth = law.jump_mean**4 + 6 * law.jump_mean**2 * law.jump**2 + 3 * law.jump**4
    variance = law.diffusion**2 + law.intensity * jump[1]
    assert returns.var() == pytest.approx(variance, rel=0.02)
    assert stats.skew(returns) == pytest.approx(law.intensity * jump[2] / variance**1.5, abs=0.1)
    assert stats.kurtosis(returns) == pytest.approx(law.intensity * fourth / variance**2, rel=0.1)
    growth = law.intensity * np.expm1(law.jump_mean + law.jump**2 / 2)
    location = -(law.diffusion**2) / 2 - growth
    levels = merton_distribution(returns[:20_000], law, location)
    assert stats.kstest(levels, "uniform").pvalue > 0.01


def test_jumps_of_resting_prices_have_no_mean_so_that_they_rest() -> None:
    rng = stream(0, "rests")
    moved = rng.random(3_000) < 0.3
    # Moves up are larger than moves down: a mean of jumps, were it let.
    returns = np.where(moved, 2e-3 * (np.abs(rng.standard_normal(3_000)) - 0.4), 0.0)
    process = MertonJumpDiffusion().fit(as_series(returns, tick=0.2), rng=stream(0, "fit"))
    assert process.law.jump_mean == 0
    assert process.estimates["jump_mean"].error is None
    assert any("of the returns are 0: jumps have the mean 0" in note for note in process.notes)
    made = process.sample(4, 3_000, rng=stream(0, "sample")).log_returns()
    assert np.mean(made == 0) == pytest.approx(0.7, abs=0.1)


def test_mertons_prices_are_a_martingale() -> None:
    wild = merton(MertonLaw(0.02, 0.3, -0.05, 0.08))
    ends = np.exp(wild.draw(stream(0, "martingale"), 400_000).reshape(20_000, 20).sum(axis=1))
    assert abs((ends.mean() - 1) / (ends.std() / np.sqrt(len(ends)))) < 3


@pytest.mark.parametrize("seed", range(3))
def test_mertons_law_is_recovered(seed: int) -> None:
    returns = merton(BURSTS).draw(stream(seed, "recovery"), 4_000)
    generator = MertonJumpDiffusion().fit(as_series(returns), rng=stream(0, "fit"))
    for name, truth in BURSTS._asdict().items():
        estimate = generator.estimates[name]
        assert estimate.error is not None
        assert abs(estimate.value - truth) < 3.5 * estimate.error, name


def test_repeated_returns_do_not_collapse_a_component() -> None:
    returns = 1e-3 * stream(0, "repeat").standard_normal(600)
    returns[::2] = 0.0
    generator = MertonJumpDiffusion().fit(as_series(returns), rng=stream(0, "fit"))
    made = generator.sample(4, 2_000, rng=stream(0, "sample")).log_returns()
    assert made.std() == pytest.approx(returns.std(), rel=0.15)
    assert generator.summary()["diffusion"] >= 0.99e-3 * np.sqrt(np.mean(returns**2))


def test_a_grid_adds_nothing_to_the_law() -> None:
    returns = merton(BURSTS).draw(stream(5, "grid"), 4_000)
    fine, coarse = (
        MertonJumpDiffusion().fit(as_series(returns, tick=tick), rng=stream(0, "fit")) for tick in (0.0, 2.0)
    )
    assert coarse.summary()["diffusion"] == pytest.approx(fine.summary()["diffusion"], rel=0.1)
    made = replace(coarse.sample(4, 4_000, rng=stream(0, "sample")), tick_size=0.0)
    assert made.log_returns().std() == pytest.approx(as_series(returns, tick=2.0).log_returns().std(), rel=0.1)
