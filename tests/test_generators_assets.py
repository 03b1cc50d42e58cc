"""Generators of several assets: kernels against slow twins, recovery of simulated laws, martingales, real markets."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synth_pipeline.bars.files import Options, read
from synth_pipeline.errors import InputError, TooLittleDataError, TrainingError
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.generators import conditional_variance, dcc_garch, garch_margins, vine_copula
from synth_pipeline.generators.basket import Basket, Histories
from synth_pipeline.generators.correlated_brownian_motion import (
    CorrelatedBrownianMotion,
    Parameters,
    nearest_correlation,
    overlapping,
)
from synth_pipeline.generators.dcc_garch import DccGarch
from synth_pipeline.generators.inference import Estimate
from synth_pipeline.generators.joint_companions import Rows, chosen
from synth_pipeline.generators.vine_copula import PARAMETERS, Shock, VineCopula
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_baskets as naive

KINDS: tuple[type[Basket], ...] = (CorrelatedBrownianMotion, DccGarch, VineCopula)
every_kind = pytest.mark.parametrize("kind", KINDS)
TARGET = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, -0.2], [0.3, -0.2, 1.0]])


def normals(seed: int, steps: int, correlation: FloatArray) -> FloatArray:
    return stream(seed, "normals").multivariate_normal(np.zeros(len(correlation)), correlation, steps)


def inside(estimate: Estimate, truth: float) -> bool:
    low, high = estimate.interval
    return estimate.error is not None and low <= truth <= high


def coverage(repeats: Iterable[dict[str, bool]]) -> dict[str, float]:
    found = list(repeats)
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


# Kernels against their twins.


def test_rows_are_chosen_as_the_twin_chooses_them() -> None:
    rng = stream(0, "rows")
    returns = rng.random((300, 3))
    returns[[0, 120, 299]] = np.nan
    known = np.flatnonzero(np.isfinite(returns[:, 0]))
    rows = Rows(known, np.array([0, 100, 100, 297]), returns, rng.random((300, 3)), rng.random((300, 4)))
    wanted, active, classes = rng.random((80, 3)), rng.random((80, 3)), rng.integers(0, 3, 80)
    found = chosen(stream(1, "draw"), classes, wanted, active, rows, 298)
    assert found.tolist() == naive.chosen(stream(1, "draw"), classes, wanted, active, rows, 298)
    assert not np.isin(found, [0, 120, 299]).any()


few = st.lists(st.sampled_from([0.0, 0.0, 1.0, -2.0, 3.0]), min_size=12, max_size=12).map(np.array)


@given(few, few, st.sets(st.integers(0, 11), max_size=3))
def test_overlapping_moves_are_those_that_the_twin_counts(
    first: FloatArray, second: FloatArray, gaps: set[int]
) -> None:
    first[list(gaps)] = second[list(gaps)] = np.nan
    assert overlapping(first, second).sum() == pytest.approx(naive.covariance_of_overlaps(first, second))


def test_without_resting_prices_overlapping_moves_are_simultaneous_ones() -> None:
    moves = normals(0, 50, TARGET)
    np.testing.assert_allclose(overlapping(moves[:, 0], moves[:, 1]), moves[:, 0] * moves[:, 1])


@settings(max_examples=20)
@given(st.integers(0, 50), st.floats(0, 0.3), st.floats(0, 0.65))
def test_dynamic_correlations_equal_their_twin(seed: int, news: float, memory: float) -> None:
    scores = normals(seed, 40, TARGET)
    stars = dcc_garch.starred(scores, news, memory)
    terms, surprises = naive.dynamic(scores, TARGET, news, memory)
    np.testing.assert_allclose(dcc_garch.likelihoods(scores, stars, TARGET, news, memory), terms, atol=1e-9)
    np.testing.assert_allclose(dcc_garch.surprises(stars, TARGET, news, memory), surprises, atol=1e-9)
    made = dcc_garch.correlated(scores, TARGET.copy(), TARGET, news, memory)
    np.testing.assert_allclose(made, naive.correlated(scores, TARGET, news, memory), atol=1e-9)


def test_the_nearest_correlation_matrix_is_highams() -> None:
    # Higham (2002), section 4: the example that opens his experiments.
    indefinite = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    expected = np.array([[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]])
    np.testing.assert_allclose(nearest_correlation(indefinite), expected, atol=1e-4)
    np.testing.assert_allclose(nearest_correlation(TARGET), TARGET, atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_no_correlation_matrix_is_nearer_than_the_nearest(seed: int) -> None:
    rng = stream(seed, "matrices")
    wild = rng.uniform(-1, 1, (4, 4))
    wild = np.triu(wild, 1) + np.triu(wild, 1).T + np.eye(4)
    found = nearest_correlation(wild)
    assert np.linalg.eigvalsh(found)[0] > -1e-9
    np.testing.assert_array_equal(np.diag(found), 1.0)
    for _ in range(20):
        other = np.corrcoef(rng.standard_normal((4, 6)))
        assert np.linalg.norm(found - wild) <= np.linalg.norm(0.9 * found + 0.1 * other - wild) + 1e-6


# Recovery: the truth lies inside the 95 % intervals.


def test_brownian_motion_recovers_volatilities_and_correlations() -> None:
    sigma = np.array([0.01, 0.02, 0.005])

    def once(seed: int) -> dict[str, bool]:
        series = naive.closes(sigma * normals(seed, 1_000, TARGET))
        found = CorrelatedBrownianMotion().fit(series, rng=stream(seed, "fit")).estimates
        truths = {f"{name}.volatility": value for name, value in zip("ABC", sigma, strict=True)}
        truths |= {
            f"{a}.{b}.correlation": TARGET[i, j]
            for a, b, i, j in (("A", "B", 0, 1), ("A", "C", 0, 2), ("B", "C", 1, 2))
        }
        return {name: inside(found[name], truth) for name, truth in truths.items()}

    assert min(coverage(map(once, range(100))).values()) >= 0.90


def test_dynamic_correlations_recover_their_parameters() -> None:
    news, memory = 0.05, 0.9

    def once(seed: int) -> dict[str, bool]:
        rng, matrix = stream(seed, "dcc"), TARGET.copy()
        scores = dcc_garch.correlated(rng.standard_normal((2_500, 3)), matrix, TARGET, news, memory)[500:]
        found = dcc_garch.fit((scores - scores.mean(axis=0)) / scores.std(axis=0))
        target = Estimate(float(found.correlation[0, 1]), float(found.errors[0, 1]), "correlation")
        return {"a": inside(found.news, news), "b": inside(found.memory, memory), "S": inside(target, TARGET[0, 1])}

    assert min(coverage(map(once, range(100))).values()) >= 0.90


@pytest.mark.slow
def test_dcc_garch_recovers_its_parameters_from_prices() -> None:
    """The whole of the estimation, volatilities first: intervals allow for what their errors add."""
    law = dcc_garch.Law(
        scale=np.array([0.01, 0.02]),
        coefficients=np.array([[0.05, 0.05, 0.0, 0.9], [0.04, 0.08, 0.0, 0.88]]),
        downside=np.full(2, 0.5),
        news=0.05,
        memory=0.9,
        correlation=TARGET[:2, :2],
    )
    truth = DccGarch()
    truth.law = law

    def once(seed: int) -> dict[str, bool]:
        returns = next(truth.run(stream(seed, "prices"), (4_000,)))
        found = DccGarch().fit(naive.closes(returns), rng=stream(seed, "fit")).estimates
        truths = {"a": law.news, "b": law.memory, "A.B.correlation": law.correlation[0, 1], "A.beta": 0.9}
        return {name: inside(found[name], value) for name, value in truths.items()}

    assert min(coverage(map(once, range(100))).values()) >= 0.90


def garch_returns(seed: int, steps: int) -> FloatArray:
    law = conditional_variance.Law("gjr", "normal", 0.01, np.array([0.05, 0.05, 0.08, 0.86]), np.empty(0))
    scores = stream(seed, "garch").standard_normal(steps)
    return np.asarray(conditional_variance.path(law, scores) * scores)


def test_variances_along_returns_are_those_that_made_them() -> None:
    law = conditional_variance.Law("gjr", "normal", 1.0, np.array([0.05, 0.05, 0.08, 0.86]), np.empty(0))
    scores = stream(0, "shocks").standard_normal(500)
    sigma = conditional_variance.path(law, scores, np.ones(1))
    made = garch_margins.variances_along(sigma * scores, law.coefficients)
    np.testing.assert_allclose(made, sigma**2, rtol=1e-12)


def test_influences_add_up_to_the_library_s_robust_errors() -> None:
    series = naive.closes(np.stack([garch_returns(0, 6_000), garch_returns(1, 6_000)], axis=1))
    histories = Histories.of(series, 6_000)
    for returns in histories.longest():
        fit = conditional_variance.fit(returns, "gjr", "normal", stream(0, "fit"))
        for at, each in garch_margins.influence(fit).items():
            expected = fit.estimates[("omega", "alpha", "gamma", "beta")[at]].error
            assert np.sqrt(np.sum(each**2)) / len(each) == pytest.approx(expected, rel=0.05)
        np.testing.assert_allclose(
            garch_margins.residuals_at(fit, fit.law.coefficients)[200:],
            garch_margins.standardised(fit.scores)[200:],
            atol=0.01,
        )


def test_correlations_that_rest_are_found_to_rest() -> None:
    found = dcc_garch.fit(normals(3, 2_000, TARGET))
    assert (found.news.value, found.memory.value, found.moves) == (0.0, 0.0, False)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert inside(Estimate(float(found.correlation[i, j]), float(found.errors[i, j]), "correlation"), TARGET[i, j])


def vine_of(family: str, *parameters: float) -> Any:
    import pyvinecopulib as pv

    kind = getattr(pv.families, family)
    pair = pv.Bicop.from_family(kind, parameters=np.array(parameters).reshape(-1, 1))
    return pv.Vinecop.from_structure(structure=pv.RVineStructure.from_order([1, 2]), pair_copulas=[[pair]])


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("gaussian", (0.7,)),
        ("clayton", (1.2,)),
        ("gumbel", (1.6,)),
        ("frank", (4.0,)),
        ("bb1", (0.5, 1.5)),
        pytest.param("student", (0.6, 5.0), marks=pytest.mark.slow),
    ],
)
def test_copulas_recover_their_parameters(family: Any, parameters: tuple[float, ...]) -> None:
    import pyvinecopulib as pv

    truth = vine_of(family, *parameters)

    def once(seed: int) -> dict[str, bool]:
        levels = pv.to_pseudo_obs(truth.inverse_rosenblatt(stream(seed, "copula").random((1_000, 2))))
        found = vine_copula.estimates_of(vine_copula.fit(levels, "bic", family), levels, ("A", "B"))
        names = [name for name, _ in PARAMETERS[family]]
        return {
            name: any(inside(each, value) for key, each in found.items() if key.endswith(f".{name}"))
            for name, value in zip(names, parameters, strict=True)
        }

    assert min(coverage(map(once, range(100))).values()) >= 0.90


def test_standard_errors_allow_for_ranks() -> None:
    """Of a Gaussian copula the error is known: (1 - ρ²) / √n (Klaassen and Wellner 1997), a quarter above naive."""
    levels = np.asarray(stats.rankdata(normals(0, 8_000, np.array([[1, 0.8], [0.8, 1]])), axis=0)) / 8_001
    found = vine_copula.fit(levels, "bic", "gaussian")
    assert vine_copula.standard_errors(found, levels)[0] == pytest.approx(0.36 / np.sqrt(8_000), rel=0.08)


def test_families_are_told_apart() -> None:
    for family, parameters in (("clayton", (1.5,)), ("gumbel", (1.8,)), ("gaussian", (0.6,)), ("student", (0.6, 4.0))):
        levels = vine_of(family, *parameters).inverse_rosenblatt(stream(1, "families").random((3_000, 2)))
        found = vine_copula.fit(levels, "bic", None).pair_copulas[0][0]
        # A survival Joe copula is a Clayton copula in all but name, so families are told by what they do in the tails.
        truth = vine_of(family, *parameters).pair_copulas[0][0]
        np.testing.assert_allclose(found.taildep, truth.taildep, atol=0.08)


# Laws of samples.


def fat(seed: int, steps: int, freedom: float = 4.0, correlation: float = 0.6) -> FloatArray:
    """Shocks of a Student copula: crashes together."""
    rng = stream(seed, "fat")
    joint = normals(seed, steps, np.array([[1, correlation], [correlation, 1]]))
    return np.asarray(joint / np.sqrt(rng.chisquare(freedom, (steps, 1)) / freedom))


@every_kind
def test_each_asset_is_a_martingale(kind: type[Basket]) -> None:
    """Given the past exp(return) has mean 1, so growth adds up to nothing, however volatility clusters."""
    series = naive.closes(0.005 * np.clip(fat(2, 1_500), -8, 8))
    generator = kind().fit(series, rng=stream(0, "fit"))
    growth = np.expm1(next(generator.run(stream(0, "long"), (200_000,))))
    z = growth.mean(axis=0) / (growth.std(axis=0) / np.sqrt(len(growth)))
    assert np.abs(z).max() <= 3
    ends = generator.sample(1_000, 25, rng=stream(0, "paths")).values[:, -1] / series.values[0, -1]
    z = (ends.mean(axis=0) - 1) / (ends.std(axis=0) / np.sqrt(len(ends)))
    assert np.abs(z).max() <= 3


def test_drift_is_history_s_growth_and_only_on_request() -> None:
    series = naive.closes(0.002 + 0.01 * normals(0, 2_000, TARGET))
    parameters = replace(Parameters(), drift=True)
    grown = CorrelatedBrownianMotion(parameters).fit(series, rng=stream(0, "fit"))
    ends = np.log(grown.sample(200, 500, rng=stream(0, "s")).values[:, -1] / series.values[0, -1]).mean(axis=0) / 499
    history = np.log(series.values[0, -1] / series.values[0, 0]) / 2_000
    np.testing.assert_allclose(ends, history, atol=2e-4)


def tail_of(generator: Basket) -> float:
    shocks = np.diff(np.log(generator.sample(1, 30_000, rng=stream(0, "tails")).values[0]), axis=0)
    return naive.together(shocks, 0.02, lower=True)


def test_a_vine_keeps_the_tail_dependence_that_a_gaussian_copula_loses() -> None:
    moves = 0.005 * fat(5, 6_000, freedom=3.0)
    series, real = naive.closes(moves), naive.together(moves, 0.02, lower=True)
    vine, gaussian = (
        VineCopula.from_settings(chosen).fit(series, rng=stream(0, "fit")) for chosen in ({}, {"family": "gaussian"})
    )
    assert tail_of(vine) == pytest.approx(real, abs=0.06)
    assert tail_of(gaussian) < real - 0.1
    assert vine.diagnostics["A.B.lower_tail"] > 0.25
    assert gaussian.diagnostics["A.B.lower_tail"] == 0.0
    assert vine.diagnostics["bic"] < gaussian.diagnostics["bic"]


def test_shocks_have_mean_nought_variance_one_and_tails_beyond_history() -> None:
    residuals = stats.t.rvs(4, size=3_000, random_state=stream(0, "t"))
    residuals = (residuals - residuals.mean()) / residuals.std()
    shock = Shock.of(residuals)
    drawn = shock.value(stream(1, "levels").random(400_000))
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert drawn.min() < residuals.min()
    for size in (0.01, 0.1, 0.5):
        expected = np.log(np.exp(size * (drawn - drawn.mean())).mean())
        assert shock.growth(np.array([size]))[0] == pytest.approx(expected, rel=0.05)


@every_kind
def test_volumes_and_ranges_of_assets_swell_together(kind: type[Basket]) -> None:
    real = naive.several_bars(2_500)
    made = kind().fit(real, rng=stream(0, "fit")).sample(1, 4_000, rng=stream(0, "sample"))

    def facts(series: Series) -> list[float]:
        parts = list(series.parts().values())
        volumes = [np.log(part.column("volume")[0]) for part in parts]
        ranges = [np.log(part.column("high") / part.column("low"))[0] for part in parts]
        pairs = [volumes, ranges, (volumes[0], ranges[0]), (volumes[0][1:], volumes[0][:-1])]
        return [float(np.corrcoef(*pair)[0, 1]) for pair in pairs]

    np.testing.assert_allclose(facts(made), facts(real), atol=0.3)
    assert min(facts(real)) > 0.5


def test_an_asset_with_a_price_alone_goes_with_one_that_has_bars() -> None:
    whole = naive.several_bars(600)
    series = whole.select((*(name for name in whole.names if name.startswith("A:")), "B:close"))
    made = CorrelatedBrownianMotion().fit(series, rng=stream(0, "fit")).sample(2, 50, rng=stream(0, "sample"))
    assert made.names == series.names
    np.testing.assert_array_equal(made.values[:, 0], np.tile(series.values[0, -1], (2, 1)))


def test_asynchronous_moves_are_put_together() -> None:
    """B shows each of its moves three steps late and all at once: only overlapping moves see the correlation."""
    moves = 0.01 * normals(1, 6_000, np.array([[1, 0.8], [0.8, 1]]))
    moves[:, 1] = np.where(np.arange(6_000) % 4 == 3, np.convolve(moves[:, 1], np.ones(4))[:6_000], 0.0)
    series = naive.closes(moves)
    plain, put_together = (
        CorrelatedBrownianMotion.from_settings({"asynchronous": way}).fit(series, rng=stream(0, "fit"))
        for way in (False, True)
    )
    name = "A.B.correlation"
    assert plain.estimates[name].value < 0.5
    assert put_together.estimates[name].value == pytest.approx(0.8, abs=0.05)


def test_pairs_that_fit_no_joint_law_are_mended_with_a_note() -> None:
    """In the first half A moves with B and B with C, in the second A against C, B then being away."""
    first, second = normals(0, 300, np.eye(3)), normals(1, 300, np.eye(3))
    first[:, 1] = first[:, 0] = first[:, 2]
    second[:, 2] = -second[:, 0]
    series = naive.closes(0.01 * np.concatenate((first[:110], second, first[110:])))
    values = series.values.copy()
    values[0, 111:411, 1] = np.nan
    generator = CorrelatedBrownianMotion().fit(replace(series, values=values), rng=stream(0, "fit"))
    assert any("fit no joint law (least eigenvalue -" in note for note in generator.notes)
    assert np.linalg.eigvalsh(generator.law.correlation)[0] > -1e-9
    assert np.isfinite(generator.sample(2, 50, rng=stream(0, "sample")).values).all()


def test_a_short_history_takes_nothing_from_the_others() -> None:
    moves = 0.01 * normals(0, 3_000, TARGET)
    moves[:2_000, 0] *= 3
    series = naive.closes(moves)
    values = series.values.copy()
    values[0, :2_001, 2] = np.nan
    found = CorrelatedBrownianMotion().fit(replace(series, values=values), rng=stream(0, "fit")).estimates
    assert found["A.volatility"].value == pytest.approx(0.01 * np.sqrt((2 * 9 + 1) / 3), rel=0.06)
    assert found["C.volatility"].value == pytest.approx(0.01, rel=0.06)


# What cannot be fitted.


@every_kind
def test_one_asset_is_sent_to_the_generator_of_one(kind: type[Basket]) -> None:
    series = naive.closes(0.01 * normals(0, 300, TARGET))
    for one in (series.parts()["A"], series.select(("A:close",))):
        with pytest.raises(InputError, match=f"is fitted on several assets, not on one: take {kind.twin}, or a basket"):
            kind().fit(one, rng=stream(0, "fit"))


@every_kind
def test_few_rows_in_common_are_counted(kind: type[Basket]) -> None:
    series = naive.closes(0.01 * normals(0, 300, TARGET))
    values = series.values.copy()
    values[0, :150, 0], values[0, 200:, 1] = np.nan, np.nan
    told = r"of 151 of A, 200 of B, 301 of C rows 50 are known of all, at most 50 without a gap, and 100 are needed"
    with pytest.raises(TooLittleDataError, match=told):
        kind().fit(replace(series, values=values), rng=stream(0, "fit"))


@every_kind
def test_faults_of_one_asset_name_it(kind: type[Basket]) -> None:
    def damaged(change: Callable[[FloatArray], None]) -> Series:
        series = naive.closes(0.01 * normals(0, 400, TARGET))
        change(series.values[0])
        return series

    def rests(values: FloatArray) -> None:
        values[:250, 2] = np.nan
        values[250:, 1] = values[250, 1]

    for change, told in (
        (lambda values: values.__setitem__((7, 1), -1.0), "B: close holds -1: log-returns need positive prices"),
        (lambda values: values.__setitem__((slice(None), 2), 5.0), "C: close rests at 5 throughout"),
        (rests, "B moves 0 times in the longest stretch that all assets have and 10 are needed: leave it out"),
    ):
        with pytest.raises(InputError, match=told):
            kind().fit(damaged(change), rng=stream(0, "fit"))


def test_gaps_are_noted_and_the_longest_common_stretch_is_filtered() -> None:
    series = naive.closes(0.01 * normals(0, 900, TARGET))
    values = series.values.copy()
    values[0, 300, 1] = np.nan
    generator = DccGarch().fit(replace(series, values=values), rng=stream(0, "fit"))
    assert "rows that all assets have come in 2 stretches: no return spans a gap" in generator.notes
    assert any("longest stretch of rows that all assets have: 599 of 898 returns" in note for note in generator.notes)


def test_an_asset_that_is_another_cannot_have_moving_correlations() -> None:
    moves = 0.01 * normals(0, 500, TARGET)
    moves[:, 1] = moves[:, 0]
    with pytest.raises(TrainingError, match="an asset is made of others, exactly: leave out one"):
        DccGarch().fit(naive.closes(moves), rng=stream(0, "fit"))


# Real markets.


@pytest.fixture(scope="module")
def hourly(real: Callable[[str], Path]) -> Series:
    """Two years of hourly bars of four coins."""
    parts = {}
    for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "LINKUSDT"):
        data = lzma.decompress(real(f"binance_usdm_{name}_1h_to20230630.csv.xz").read_bytes())
        columns = read(data, name, Options())[0].columns
        names = ("open", "high", "low", "close", "volume")
        values = np.stack([columns[each] for each in names], axis=1)[np.newaxis]
        tick = 0.01 if name in ("BTCUSDT", "ETHUSDT") else 0.0001
        parts[name] = Series(values, names, naive.HOUR, columns["close_ns"][:1].astype(np.int64), tick)
    whole = Series.joined(parts)
    return whole.slice(whole.steps - 17_500, whole.steps)


@pytest.mark.slow
def test_real_coins_crash_together_in_a_vine_and_not_in_a_gaussian_copula(hourly: Series) -> None:
    train = hourly.slice(hourly.steps - 6_000, hourly.steps)
    errors = {}
    for family in (None, "gaussian"):
        generator = VineCopula.from_settings({"family": family}).fit(train, rng=stream(0, "fit"))
        made = generator.sample(4, 6_000, rng=stream(0, "sample"))
        errors[family] = {name: metric(train, made) for name, metric in metrics(joint=True).items()}
    vine, gaussian = errors[None], errors["gaussian"]
    assert gaussian["crash_dependence"] > 0.1
    assert vine["crash_dependence"] < 0.6 * gaussian["crash_dependence"]
    assert vine["volatility_correlation_error"] < 0.5 * gaussian["volatility_correlation_error"]
    assert vine["correlation_error"] < 0.05
    assert vine["rank_correlation_error"] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[:2])
def test_real_coins_keep_their_correlations(kind: type[Basket], hourly: Series) -> None:
    generator = kind().fit(hourly.slice(0, 8_000), rng=stream(0, "fit"))
    made = generator.sample(1, 8_000, rng=stream(0, "sample"))
    real, sample = (
        np.corrcoef([part.log_returns()[0] for part in each.parts().values()])
        for each in (hourly.slice(0, 8_000), made)
    )
    np.testing.assert_allclose(sample, real, atol=0.1)
    for part in made.parts().values():
        assert (part.column("low") <= np.minimum(part.column("open"), part.column("close"))).all()
