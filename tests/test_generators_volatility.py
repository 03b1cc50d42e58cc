"""Volatility processes: GARCH, filtered historical simulation, Heston, rough, regimes; twins, oracles, laws."""

from __future__ import annotations

from typing import Any

import arch.univariate as oracle
import numpy as np
import pytest
from scipy import stats
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError
from synth_pipeline.features.regimes import VOLATILITIES
from synth_pipeline.generators import conditional_variance, hidden_markov
from synth_pipeline.generators.conditional_variance import Law as VarianceLaw
from synth_pipeline.generators.filtered_historical_simulation import FilteredHistoricalSimulation
from synth_pipeline.generators.filtered_historical_simulation import Law as FilteredLaw
from synth_pipeline.generators.garch import Garch
from synth_pipeline.generators.geometric_brownian_motion import GeometricBrownianMotion
from synth_pipeline.generators.geometric_brownian_motion import Law as BrownianLaw
from synth_pipeline.generators.heston import Blocks, Heston, chain_of, filtered
from synth_pipeline.generators.heston import Law as HestonLaw
from synth_pipeline.generators.hidden_markov import Chain
from synth_pipeline.generators.price_process import PriceProcess, Returns
from synth_pipeline.generators.regime_switching import Law as RegimeLaw
from synth_pipeline.generators.regime_switching import RegimeSwitching
from synth_pipeline.generators.rough_volatility import Law as RoughLaw
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive

MEMBERS = {
    "garch": np.array([0.05, 0.08, 0.0, 0.87]),
    "gjr": np.array([0.05, 0.03, 0.1, 0.87]),
    "egarch": np.array([-0.01, 0.15, -0.08, 0.95]),
    "figarch": np.array([0.03, 0.2, 0.4, 0.45]),
}
SHAPES = {"normal": np.empty(0), "t": np.array([6.0]), "skewt": np.array([6.0, -0.3])}


def with_law(kind: type[PriceProcess], law: Any, **parameters: Any) -> Any:
    """An unfitted process with this law."""
    made = kind.from_settings(parameters)
    made.law, made.notes = law, []
    return made


def as_series(returns: FloatArray, *, tick: float = 0.0) -> Series:
    """Closes that start at 1000 and follow these returns."""
    prices = 1000 * np.exp(np.concatenate(([0.0], np.cumsum(returns))))
    prices = np.rint(prices / tick) * tick if tick else prices
    return Series(prices[np.newaxis, :, np.newaxis], ("close",), 10**9, np.array([0]), tick)


def as_returns(values: FloatArray, *breaks: int) -> Returns:
    """Returns of stretches that begin at 0 and at each of `breaks`."""
    steps = np.arange(len(values))
    return Returns(values, np.isin(steps, (0, *breaks)), (steps + 1) * 10**9, 0.0, 10**9)


def assert_recovered(process: PriceProcess, truth: dict[str, float], sigmas: float = 3.5) -> None:
    """Every estimate lies within so many standard errors of the truth."""
    for name, value in truth.items():
        estimate = process.estimates[name]
        assert estimate.error is not None, name
        assert abs(estimate.value - value) < sigmas * estimate.error, name


# Geometric Brownian motion.


def test_brownian_volatility_is_recovered_on_a_coarse_grid_too() -> None:
    returns = with_law(GeometricBrownianMotion, BrownianLaw(1e-3)).draw(stream(0, "b"), 20_000)
    for tick in (0.0, 1.0, 4.0):
        series = as_series(returns, tick=tick)
        process = GeometricBrownianMotion().fit(series, rng=stream(0, "fit"))
        assert_recovered(process, {"volatility": 1e-3}, 4.5)
        made = process.sample(4, 20_000, rng=stream(0, "sample")).log_returns()
        assert made.std() == pytest.approx(series.log_returns().std(), rel=0.1)


def test_brownian_returns_are_normal_and_grow_by_nothing() -> None:
    returns = with_law(GeometricBrownianMotion, BrownianLaw(0.05)).draw(stream(0, "n"), 100_000)
    assert stats.kstest(returns, stats.norm(-(0.05**2) / 2, 0.05).cdf).pvalue > 0.01


def test_drift_is_carried_on_only_if_asked_for() -> None:
    returns = 1e-3 * stream(0, "d").standard_normal(4_000) + 2e-4
    still = GeometricBrownianMotion().fit(as_series(returns), rng=stream(0, "fit"))
    moving = GeometricBrownianMotion.from_settings({"drift": True}).fit(as_series(returns), rng=stream(0, "fit"))
    assert abs(still.growth.value - 2e-4) < 4 * (still.growth.error or 0.0)
    ends = [
        process.sample(50, 4_000, rng=stream(0, "s")).log_returns().sum(axis=1).mean() for process in (still, moving)
    ]
    assert ends[1] - ends[0] == pytest.approx(3_999 * still.growth.value)


# The GARCH family.


@pytest.mark.parametrize("volatility", MEMBERS)
def test_the_recursion_is_its_slow_twin(volatility: str) -> None:
    law = VarianceLaw(volatility, "normal", 1.0, MEMBERS[volatility], np.empty(0))
    scores = stream(0, "scores").standard_normal(60)
    start = conditional_variance.long_run(law)
    slow = np.sqrt(naive.variances_slowly(law, scores, start))
    np.testing.assert_allclose(conditional_variance.path(law, scores), slow, rtol=1e-10)


@pytest.mark.parametrize("volatility", MEMBERS)
def test_arch_filters_the_same_volatility_out_of_a_simulated_path(volatility: str) -> None:
    law = VarianceLaw(volatility, "normal", 1.0, MEMBERS[volatility], np.empty(0))
    scores = stream(1, "scores").standard_normal(3_000)
    sigma = conditional_variance.path(law, scores)
    of_arch: Any = {
        "garch": oracle.GARCH(1, 0, 1),
        "gjr": oracle.GARCH(1, 1, 1),
        "egarch": oracle.EGARCH(1, 1, 1),
        "figarch": oracle.FIGARCH(1, 1, truncation=conditional_variance.MEMORY),
    }[volatility]
    kept = MEMBERS[volatility] if volatility != "garch" else MEMBERS["garch"][[0, 1, 3]]
    found = oracle.ZeroMean(sigma * scores, volatility=of_arch, rescale=False).fix(kept)
    # Both start somewhere else; after the memory of the start is gone they agree.
    np.testing.assert_allclose(np.asarray(found.conditional_volatility)[2_000:], sigma[2_000:], rtol=2e-3)


@pytest.mark.parametrize("volatility", ["garch", "gjr", "egarch"])
def test_the_long_run_is_that_of_a_long_path(volatility: str) -> None:
    law = VarianceLaw(volatility, "normal", 1.0, MEMBERS[volatility], np.empty(0))
    sigma = conditional_variance.path(law, stream(0, "long").standard_normal(400_000))
    assert np.mean(sigma**2) == pytest.approx(conditional_variance.long_run(law), rel=0.03)


@pytest.mark.parametrize("distribution", SHAPES)
def test_innovations_have_the_law_that_arch_fits(distribution: str) -> None:
    law = VarianceLaw("garch", distribution, 1.0, MEMBERS["garch"], SHAPES[distribution])
    (drawn,) = conditional_variance.innovations(law, stream(0, "drawn"), [50_000])
    kinds: dict[str, Any] = {"normal": oracle.Normal, "t": oracle.StudentsT, "skewt": oracle.SkewStudent}
    levels = kinds[distribution]().cdf(drawn, SHAPES[distribution] if distribution != "normal" else None)
    assert stats.kstest(levels, "uniform").pvalue > 0.01
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("volatility", "distribution"), [("garch", "t"), ("gjr", "skewt"), ("egarch", "normal")])
def test_a_member_is_recovered_and_chosen(volatility: str, distribution: str) -> None:
    law = VarianceLaw(volatility, distribution, 1e-3, MEMBERS[volatility], SHAPES[distribution])
    returns = with_law(Garch, law).draw(stream(0, "member", volatility), 6_000)
    told = Garch.from_settings({"volatility": volatility, "distribution": distribution})
    told.fit(as_series(returns), rng=stream(0, "fit"))
    names = ("alpha", "beta") if volatility == "garch" else ("alpha", "gamma", "beta")
    at = [1, 3] if volatility == "garch" else [1, 2, 3]
    truth = dict(zip(names, MEMBERS[volatility][at].tolist(), strict=True))
    truth |= dict(zip(("nu", "skew"), SHAPES[distribution].tolist(), strict=False))
    assert_recovered(told, truth)
    free = Garch().fit(as_series(returns[:4_000]), rng=stream(0, "fit"))
    assert free.law.distribution == distribution
    assert free.martingale == (distribution == "normal")


def test_a_told_figarch_remembers_for_long() -> None:
    law = VarianceLaw("figarch", "normal", 1e-3, MEMBERS["figarch"], np.empty(0))
    returns = with_law(Garch, law).draw(stream(0, "long memory"), 8_000)
    process = Garch.from_settings({"volatility": "figarch", "distribution": "normal"})
    process.fit(as_series(returns), rng=stream(0, "fit"))
    assert_recovered(process, {"d": 0.4}, 4.0)
    sizes = np.abs(process.draw(stream(0, "made"), 60_000))
    assert np.corrcoef(sizes[100:], sizes[:-100])[0, 1] > 0.01


def as_fit(law: VarianceLaw) -> conditional_variance.Fit:
    """A fit with this law to returns of a GJR-GARCH of unit variance."""
    scores = stream(0, "scores").standard_normal(20_000)
    truth = VarianceLaw("gjr", "normal", 1.0, np.array([0.02, 0.05, 0.1, 0.88]), np.empty(0))
    returns = conditional_variance.path(truth, scores) * scores
    return conditional_variance.Fit(law, {}, 0.0, scores, returns / returns.std(), scores)


def test_an_estimate_without_a_long_run_is_projected_to_the_kurtosis_of_the_data() -> None:
    fit = as_fit(VarianceLaw("gjr", "normal", 1.0, np.array([1e-8, 0.1, 0.2, 0.8001]), np.empty(0)))
    law, why = conditional_variance.stationary(fit)
    assert "persistence is 1.0001, and is taken as 0.9" in (why or "")
    assert law.coefficients[2] == pytest.approx(2 * law.coefficients[1])
    np.testing.assert_allclose(law.coefficients, (0.02, 0.05, 0.1, 0.88), rtol=0.8)
    scores = stream(1, "scores").standard_normal(1_000_000)
    returns = conditional_variance.path(law, scores) * scores
    assert returns.std() == pytest.approx(1.0, rel=0.05)
    assert np.mean(returns**4) / returns.var() ** 2 == pytest.approx(np.mean(fit.returns**4), rel=0.2)


def test_the_quasi_likelihood_is_that_of_arch() -> None:
    fit = as_fit(VarianceLaw("gjr", "normal", 1.0, MEMBERS["gjr"], np.empty(0)))
    model = oracle.ZeroMean(fit.returns, volatility=oracle.GARCH(1, 1, 1), rescale=False)
    found = model.fix([0.05, 0.03, 0.1, 0.87])
    ours = conditional_variance.quasi_likelihood(fit.returns, MEMBERS["gjr"]) - 10_000 * np.log(2 * np.pi)
    assert ours == pytest.approx(found.loglikelihood, abs=1.0)


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_can_be_given_the_long_run_of_the_data(name: str) -> None:
    far = VarianceLaw(name, "normal", 1.0, MEMBERS[name] + np.array([2.0, 0, 0, 0]), np.empty(0))
    mended, why = conditional_variance.stationary(as_fit(far))
    assert "omega makes the variances agree" in (why or "")
    assert conditional_variance.long_run(mended) == pytest.approx(1.0)
    memory = MEMBERS[name].copy()
    memory[3] += 0.3
    forever = VarianceLaw(name, "normal", 1.0, memory, np.empty(0))
    mended, why = conditional_variance.stationary(as_fit(forever))
    assert conditional_variance.persistence_of(mended) < 1
    assert 0.5 < conditional_variance.long_run(mended) < 2
    fine = VarianceLaw(name, "normal", 1.0, mended.coefficients, np.empty(0))
    assert conditional_variance.stationary(as_fit(fine))[1] is None


def test_resting_prices_get_normal_innovations_with_a_note() -> None:
    returns = 1e-3 * stream(0, "rest").standard_normal(800)
    returns[::4] = 0.0
    process = Garch().fit(as_series(returns), rng=stream(0, "fit"))
    assert process.law.distribution == "normal"
    assert any("returns are 0: innovations are normal" in note for note in process.notes)


# Filtered historical simulation.


def residuals() -> FloatArray:
    """Skewed residuals of mean zero and variance one."""
    drawn = stats.skewnorm.ppf(stream(0, "residuals").random(4_000), -4)
    return np.asarray((drawn - drawn.mean()) / drawn.std())


def test_shocks_are_those_of_history_and_volatility_clusters() -> None:
    truth = with_law(FilteredHistoricalSimulation, FilteredLaw(1e-3, MEMBERS["gjr"], residuals()))
    returns = truth.draw(stream(0, "history"), 6_000)
    process = FilteredHistoricalSimulation().fit(as_series(returns), rng=stream(0, "fit"))
    assert_recovered(process, dict(zip(("alpha", "gamma", "beta"), MEMBERS["gjr"][1:].tolist(), strict=True)))
    assert stats.ks_2samp(process.law.residuals, residuals()).pvalue > 0.01
    made = process.draw(stream(0, "made"), 60_000)
    assert stats.skew(made) == pytest.approx(stats.skew(returns), abs=0.35)
    sizes = np.abs(made)
    assert np.corrcoef(sizes[1:], sizes[:-1])[0, 1] > 0.05


def test_prices_that_rest_rest_as_often_in_samples() -> None:
    rng = stream(0, "rests")
    returns = np.where(rng.random(2_000) < 0.4, 2e-3 * rng.standard_normal(2_000) + 4e-4, 0.0)
    process = FilteredHistoricalSimulation().fit(as_series(returns, tick=0.05), rng=stream(0, "fit"))
    assert process.law.residuals.mean() == pytest.approx(0, abs=1e-9)
    made = process.sample(4, 2_000, rng=stream(0, "sample")).log_returns()
    assert np.mean(made == 0) == pytest.approx(0.6, abs=0.08)


def test_its_compensator_takes_out_what_the_residuals_grow_by() -> None:
    process = with_law(FilteredHistoricalSimulation, FilteredLaw(0.1, MEMBERS["gjr"], residuals()))
    logs, ratios = process._compensator
    for u in (1e-6, 1e-3, 0.07, 0.5):
        exact = np.log(np.mean(np.exp(u * residuals()))) / u**2
        assert np.interp(np.log(u), logs, ratios) == pytest.approx(exact, rel=5e-3)


# Heston.

CALM = HestonLaw(0.05, 1e-4, 2.5e-3, -0.6)


def test_variance_is_gamma_and_mean_reverting_and_levers_returns() -> None:
    returns = with_law(Heston, CALM).draw(stream(0, "heston"), 400_000)
    assert returns.var() == pytest.approx(CALM.variance, rel=0.05)
    # Of squares at lag h, covariance Var(v) e^{-κh}, but for what the average over a step takes off.
    squares = returns**2
    spread = CALM.variance * CALM.vol_of_vol**2 / (2 * CALM.reversion)
    for lag in (5, 20, 40):
        found = float(np.mean((squares[lag:] - squares.mean()) * (squares[:-lag] - squares.mean())))
        assert found == pytest.approx(spread * np.exp(-CALM.reversion * lag), rel=0.25)
    later = np.mean([squares[lag:-50] for lag in (1,)], axis=0)
    assert np.corrcoef(returns[: len(later)], later)[0, 1] < -0.05


def test_the_grid_filter_is_its_slow_twin() -> None:
    law = HestonLaw(0.05, 1.0, 0.25, -0.6)
    for steps in (1, 4):
        chain = chain_of(law, steps)
        sums = np.sqrt(steps) * stream(0, "sums").standard_normal(30)
        squares = np.zeros(30) if steps == 1 else stream(0, "squares").chisquare(steps - 1, 30)
        levels = np.empty(30)
        fast = filtered(sums, squares, np.arange(30) == 0, steps, 1.0, law, chain, levels)
        assert fast == pytest.approx(naive.heston_density(law, chain, sums, squares, steps), abs=1e-4)
        assert ((levels > 0) & (levels < 1)).all()


def test_the_chain_keeps_the_moments_of_the_variance() -> None:
    law = HestonLaw(0.05, 1.0, 0.25, 0.0)
    for steps in (1, 10):
        chain = chain_of(law, steps)
        np.testing.assert_allclose(chain.opening @ chain.moves, chain.opening, atol=1e-9)
        assert chain.opening @ chain.points == pytest.approx(1.0, rel=0.02)
        assert chain.opening @ chain.points**2 - 1 == pytest.approx(0.25**2 / (2 * 0.05), rel=0.06)
        inner = slice(8, 30)
        means = (chain.moves @ chain.points)[inner]
        fade = np.exp(-0.05 * steps)
        np.testing.assert_allclose(means, 1 + (chain.points[inner] - 1) * fade, rtol=0.02)
        spreads = (chain.moves @ chain.points**2)[inner] - means**2
        exact = chain.points[inner] * 0.25**2 / 0.05 * fade * (1 - fade) + 0.25**2 / 0.1 * (1 - fade) ** 2
        np.testing.assert_allclose(spreads, exact, rtol=0.06)


@pytest.mark.parametrize("seed", range(2))
def test_hestons_law_is_recovered(seed: int) -> None:
    returns = with_law(Heston, CALM).draw(stream(seed, "recovery"), 2_500)
    process = Heston().fit(as_series(returns), rng=stream(0, "fit"))
    assert_recovered(process, CALM._asdict())
    assert process.summary()["residual_ks"] < 1.6 / np.sqrt(2_500)


def test_a_persistent_variance_is_fitted_on_longer_blocks() -> None:
    slow = HestonLaw(0.002, 1e-4, 4e-4, -0.5)
    returns = with_law(Heston, slow).draw(stream(3, "slow"), 8_000)
    process = Heston().fit(as_series(returns), rng=stream(0, "fit"))
    assert process.summary()["block_steps"] > 1
    assert process.estimates["vol_of_vol"].value == pytest.approx(4e-4, rel=0.6)
    assert process.estimates["leverage"].value == pytest.approx(-0.5, abs=0.4)


def test_a_variance_far_below_that_of_the_data_is_scaled_with_a_note() -> None:
    rng = stream(0, "bursts")
    returns = np.where(rng.random(3_000) < 0.1, 3e-3, 1e-5) * rng.standard_normal(3_000)
    returns[rng.random(3_000) < 0.6] = 0.0
    process = Heston().fit(as_series(returns), rng=stream(0, "fit"))
    assert any("times that of the data" in note for note in process.notes)
    assert process.law.variance == pytest.approx(np.mean(returns**2), rel=0.01)
    likeliest = process.estimates
    feller = 2 * likeliest["reversion"].value * likeliest["variance"].value / likeliest["vol_of_vol"].value ** 2
    assert process.diagnostics["feller_ratio"] == pytest.approx(feller)


def test_blocks_do_not_span_gaps() -> None:
    blocks = Blocks.of(as_returns(stream(0, "gap").standard_normal(1_000), 405), 10)
    assert len(blocks.sums) == 40 + 59
    assert np.flatnonzero(blocks.opens).tolist() == [0, 40]


ROUGH = RoughLaw(0.15, 0.02, 0.8, 1e-4, -0.5)

# Regimes.

CHAIN = Chain(np.array([0.3, -0.2]), np.array([0.5, 4.0]), np.array([[0.9, 0.1], [0.3, 0.7]]), free_means=True)


def test_the_recursions_are_sums_over_every_path_of_states() -> None:
    returns = stream(0, "few").standard_normal(9)
    opens = np.isin(np.arange(9), (0, 5))
    total, filtered_, predicted = CHAIN.filter(returns, opens)
    smoothed = np.empty_like(filtered_)
    moves = hidden_markov.backward(opens, CHAIN.transitions, filtered_, predicted, smoothed)
    slow_total, slow_smoothed = naive.markov_log_likelihood(returns, opens, CHAIN)
    assert total == pytest.approx(slow_total)
    np.testing.assert_allclose(smoothed, slow_smoothed, rtol=1e-9)
    assert moves.sum() == pytest.approx(7)


def test_the_likelihood_is_that_of_statsmodels() -> None:
    returns = with_law(RegimeSwitching, STATES).draw(stream(3, "oracle"), 400) / 1e-3
    model = MarkovRegression(returns, k_regimes=2, trend="c", switching_variance=True)
    # Theirs: P(0 → 0), P(1 → 0), means, variances.
    at = np.array([0.9, 0.3, 0.3, -0.2, 0.5, 4.0])
    ours, filtered_, _ = CHAIN.filter(returns, np.arange(400) == 0)
    assert ours == pytest.approx(float(model.loglike(at)), rel=1e-9)
    theirs = np.asarray(model.filter(at).filtered_marginal_probabilities)
    np.testing.assert_allclose(filtered_, theirs, atol=1e-9)


def test_every_iterate_raises_the_likelihood() -> None:
    returns, chain = stream(1, "em").standard_t(3, 400), CHAIN
    opens = np.arange(400) == 0
    heights = []
    for _ in range(12):
        chain = chain.step(returns, opens, 1e-6)
        heights.append(chain.log_likelihood)
    # The stationary law of the start moves with the transitions, which EM neglects: a slack of its size.
    assert (np.diff(heights) > -0.02).all()
    assert heights[-1] > heights[0] + 1


STATES = RegimeLaw(np.array([5e-4, 2e-3]), np.zeros(2), np.array([[0.98, 0.02], [0.05, 0.95]]))


@pytest.mark.parametrize("seed", range(2))
def test_states_are_recovered_and_sorted(seed: int) -> None:
    returns = with_law(RegimeSwitching, STATES).draw(stream(seed, "states"), 4_000)
    process = RegimeSwitching().fit(as_series(returns), rng=stream(0, "fit"))
    assert process.summary()["states"] == 2
    truth = {"volatility_low": 5e-4, "volatility_high": 2e-3, "stay_low": 0.98, "stay_high": 0.95}
    assert_recovered(process, truth)
    assert process.martingale
    assert process.summary()["share_low"] == pytest.approx(5 / 7, abs=0.1)


def test_states_of_different_means_are_told_apart_and_grow_by_nothing() -> None:
    bull = STATES._replace(means=np.array([1e-4, -5e-4]))
    returns = with_law(RegimeSwitching, bull).draw(stream(0, "bull"), 8_000)
    process = RegimeSwitching.from_settings({"states": 2}).fit(as_series(returns), rng=stream(0, "fit"))
    assert not process.martingale
    assert process.law.means[0] > 0 > process.law.means[1]
    shares = hidden_markov.stationary(process.law.transitions)
    assert shares @ process.law.means == pytest.approx(0, abs=1e-9)


def test_a_regime_is_kept_throughout() -> None:
    returns = with_law(RegimeSwitching, STATES).draw(stream(0, "states"), 3_000)
    process = RegimeSwitching().fit(as_series(returns), rng=stream(0, "fit"))
    calm, wild = (
        process.sample(5, 500, regime=name, rng=stream(0, "s")).log_returns().std() for name in VOLATILITIES[2]
    )
    assert calm == pytest.approx(5e-4, rel=0.1)
    assert wild == pytest.approx(2e-3, rel=0.1)
    with pytest.raises(InputError, match="has no regime 'bull': it has low_volatility, high_volatility"):
        process.sample(1, 10, regime="bull", rng=stream(0, "s"))
    with pytest.raises(InputError, match="states=9 does not fit: choose 2, 3 or 4"):
        RegimeSwitching.from_settings({"states": 9}).fit(as_series(returns), rng=stream(0, "fit"))


# All of them.

MARTINGALES: dict[str, Any] = {
    "geometric_brownian_motion": BrownianLaw(0.03),
    "garch": VarianceLaw("gjr", "normal", 0.03, MEMBERS["gjr"], np.empty(0)),
    "filtered_historical_simulation": FilteredLaw(0.03, MEMBERS["gjr"], residuals()),
    "heston": HestonLaw(0.05, 1e-3, 6e-3, -0.6),
    "rough_volatility": ROUGH._replace(variance=1e-3),
    "regime_switching": STATES._replace(volatilities=np.array([0.01, 0.06])),
}


@pytest.mark.parametrize("name", MARTINGALES)
def test_prices_are_a_martingale(name: str) -> None:
    process = with_law(plugins.load(generators, name), MARTINGALES[name])
    assert process.martingale
    ends = np.array([np.exp(process.draw(stream(0, "ends", name, path), 30).sum()) for path in range(5_000)])
    assert abs((ends.mean() - 1) / (ends.std() / np.sqrt(len(ends)))) < 3.3
    assert ends.std() > 0.1
