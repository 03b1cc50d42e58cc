"""What all price processes share: the columns beside the price, bars, grids, gaps, fallbacks, inference."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.diagnostic import acorr_ljungbox
from statsmodels.tsa.stattools import acf

from synth_pipeline import generators, plugins
from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.features.transforms import checked
from synth_pipeline.generators.companions import Companions
from synth_pipeline.generators.geometric_brownian_motion import GeometricBrownianMotion
from synth_pipeline.generators.inference import (
    LINKS,
    Estimate,
    climb,
    covariance,
    estimates_of,
    ljung_box,
    mean_error,
    scores_of,
)
from synth_pipeline.generators.price_process import PriceProcess, Returns, unrounded
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive

NAMES = [
    name
    for name in plugins.names(generators)
    if issubclass(kind := plugins.load(generators, name), PriceProcess) and kind is not PriceProcess
]
HOUR_NS = 3_600 * 10**9

every_process = pytest.mark.parametrize("name", NAMES)


def fit(name: str, series: Series) -> PriceProcess:
    """A fitted process."""
    made: PriceProcess = plugins.load(generators, name)().fit(series, rng=stream(0, "fit"))
    return made


# Bars.


@every_process
@pytest.mark.parametrize("tick", [0.0, 0.5])
def test_bars_keep_their_order_and_their_grids(name: str, tick: float) -> None:
    series = naive.bars(400, tick=tick)
    series.values[0, 150] = np.nan
    process = fit(name, series)
    sample = process.sample(3, 300, rng=stream(0, "sample"))
    assert sample.names == series.select(sample.names).names
    assert set(sample.names) == {"open", "high", "low", "close", "volume"}
    opened, high, low, close = (sample.column(each) for each in ("open", "high", "low", "close"))
    assert (low <= np.minimum(opened, close)).all()
    assert (high >= np.maximum(opened, close)).all()
    assert (low > 0).all()
    assert np.isin(sample.column("volume"), series.column("volume")).all()
    if tick:
        np.testing.assert_allclose(sample.values[:, :, :4] / tick, np.rint(sample.values[:, :, :4] / tick), rtol=1e-12)
    np.testing.assert_allclose(sample.values[:, 0], np.broadcast_to(series.values[0, -1], (3, 5)), rtol=1e-9)
    # Bars of this market open where the one before closed: so do sampled ones.
    np.testing.assert_allclose(opened[:, 1:], close[:, :-1], rtol=1e-9)


def test_the_shape_of_bars_and_volume_go_with_the_move() -> None:
    series = naive.bars(2_500)
    sample = fit("self_exciting_jump_diffusion", series).sample(4, 3_000, rng=stream(0, "sample"))

    def facts(bars: Series) -> FloatArray:
        moves = np.abs(bars.log_returns())
        ranges = np.log(bars.column("high") / bars.column("low"))[:, 1:]
        volume = np.log(bars.column("volume"))[:, 1:]
        pairs = ((moves, volume), (moves, ranges), (volume[:, 1:], volume[:, :-1]), (ranges[:, 1:], ranges[:, :-1]))
        return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])

    np.testing.assert_allclose(facts(sample), facts(series), atol=0.15)
    assert stats.ks_2samp(sample.column("volume").ravel(), series.column("volume").ravel()).statistic < 0.06


def test_real_bars_are_sampled(real: object) -> None:
    path = real("binance_usdm_ETHUSDT_1h_to20230630.csv.xz")  # type: ignore[operator]
    values = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2, 3, 4, 5))[-2_000:]
    series = Series(values[np.newaxis], ("open", "high", "low", "close", "volume"), HOUR_NS, np.array([0]), 0.01)
    sample = fit("filtered_historical_simulation", series).sample(2, 2_000, rng=stream(0, "sample"))
    assert (sample.column("high") >= sample.column("low")).all()
    assert stats.ks_2samp(sample.log_returns().ravel(), series.log_returns().ravel()).statistic < 0.06


# Grid features.


def test_quotes_fit_each_other() -> None:
    sample = fit("merton_jump_diffusion", naive.market(700)).sample(4, 500, rng=stream(0, "sample"))
    halves, ticks = np.rint(sample.column("mid") / 0.05), np.rint(sample.column("spread") / 0.1)
    np.testing.assert_allclose(halves * 0.05, sample.column("mid"), rtol=1e-12)
    np.testing.assert_array_equal((halves - ticks) % 2, 0)
    assert (ticks >= 1).all()


def test_what_a_quote_does_beside_the_price_is_history() -> None:
    series = naive.market(2_000)
    sample = fit("self_exciting_jump_diffusion", series).sample(4, 2_000, rng=stream(0, "sample"))
    for name in ("spread", "volume", "imbalance_1"):
        assert stats.ks_2samp(sample.column(name).ravel(), series.column(name).ravel()).statistic < 0.06
    for bars in (series, sample):
        moved = np.abs(np.sign(bars.log_returns()))
        assert np.corrcoef(moved.ravel(), np.log1p(bars.column("volume")[:, 1:]).ravel())[0, 1] > 0.1
        flow = bars.column("imbalance_1")
        assert np.corrcoef(flow[:, 1:].ravel(), flow[:, :-1].ravel())[0, 1] > 0.25


def test_rows_are_chosen_as_the_slow_twin_chooses() -> None:
    series = checked(naive.market(400), GeometricBrownianMotion.columns, (), 100)
    companions = Companions.of(series, 1_000)
    moves = np.append(1e-4 * stream(0, "moves").standard_normal(80), np.zeros(20))
    path = companions.join(np.concatenate(([0.0], np.cumsum(moves))), stream(0, "rows"))
    prices = companions.anchor.prices(np.concatenate(([0.0], np.cumsum(moves))))
    rows = naive.resampled_slowly(companions, np.diff(np.log(prices)), stream(0, "rows"))
    at = companions.anchor.names.index("volume")
    np.testing.assert_array_equal(path[1:, at], companions.values[rows, companions.names.index("volume")])


def test_rows_with_the_return_that_is_asked_for_are_taken() -> None:
    series = naive.market(600)
    companions = Companions.of(series, 1_000)
    edges, _, _, class_of, *_ = companions._classes
    known = np.isfinite(companions.returns)
    assert known.sum() == 599
    np.testing.assert_array_equal(class_of[known], np.searchsorted(edges, companions.returns[known]))
    zero = class_of[known][companions.returns[known] == 0]
    assert len(set(zero.tolist())) == 1
    assert (companions.returns[known][class_of[known] == zero[0]] == 0).all()


# Fallbacks and refusals.


@every_process
def test_a_column_that_is_missing_is_left_out_with_a_note(name: str, tmp_path: Path) -> None:
    series = naive.bars(300)
    series.values[0, :, series.names.index("volume")] = np.nan
    process = fit(name, series)
    sample = process.sample(1, 20, rng=stream(0, "sample"))
    assert "volume" not in sample.names
    process.save(tmp_path)
    state = json.loads((tmp_path / f"{name}.json").read_text())
    assert "volume is missing in 100% of the rows: fitted and sampled without it" in state["notes"]
    assert np.isfinite(sample.values).all()


@every_process
def test_no_return_spans_a_gap(name: str) -> None:
    series = naive.market(500)
    series.values[0, 250:260] = np.nan
    series.values[0, 260:] *= 3.0  # a move that happened where nothing was recorded
    series = replace(series, tick_size=0.0)
    process = fit(name, series)
    assert any("1 gaps: no return spans one" in note for note in process.notes)
    made = process.sample(4, 300, rng=stream(0, "sample")).log_returns()
    assert np.abs(made).max() < 0.05


@every_process
def test_a_row_that_lacks_another_column_has_a_return_all_the_same(name: str) -> None:
    series = naive.bars(400)
    whole = fit(name, series.select(("close",)))
    series.values[0, 200:210, series.names.index("volume")] = np.nan
    process = fit(name, series)
    assert process.growth == whole.growth
    assert process.estimates == whole.estimates


@every_process
def test_estimates_have_intervals_around_them(name: str) -> None:
    process = fit(name, naive.market(600))
    assert process.estimates
    for estimate in process.estimates.values():
        low, high = estimate.interval
        assert low <= estimate.value <= high
        assert estimate.error is None or estimate.error > 0
    summary = process.summary()
    assert {"growth", "growth_se", "residual_ks", "residual_ljung_box_p"} <= set(summary)


def test_bars_out_of_order_are_put_in_order() -> None:
    series = naive.bars(300)
    series.values[0, 50, series.names.index("high")] *= 0.9
    process = fit("geometric_brownian_motion", series)
    assert any("1 bars have a high or low inside" in note for note in process.notes)


def test_ten_bars_are_too_few() -> None:
    with pytest.raises(TooLittleDataError, match="the longest stretch without a gap has 10 steps"):
        fit("garch", naive.bars(10))


# Inference.


@given(sigma=st.floats(0.02, 5.0))
@settings(max_examples=20)
def test_rounding_a_normal_move_is_undone(sigma: float) -> None:
    rng = stream(0, "unrounded")
    start = rng.random(200_000)
    moved = np.rint(start + sigma * rng.standard_normal(200_000)) - np.rint(start)
    scale = float(np.sqrt(np.mean(moved**2)))
    assert unrounded(scale, 1.0) == pytest.approx(sigma, rel=0.05)
    assert unrounded(0.3, 0.0) == 0.3


def test_mids_of_one_spread_move_by_whole_ticks() -> None:
    whole = np.cumsum(stream(0, "ticks").integers(-3, 4, 500)) * 0.1 + 1_000.05
    series = Series(whole[None, :, None], ("mid",), 10**9, np.array([0]), 0.1)
    assert Returns.of(series, 0.05).resolution == pytest.approx(0.1 / np.median(whole))
    halves = replace(series, values=series.values + 0.05 * (np.arange(500)[None, :, None] % 2))
    assert Returns.of(halves, 0.05).resolution == pytest.approx(0.05 / np.median(halves.values))


def test_stretches_are_kept_apart() -> None:
    series = naive.market(300)
    series.values[0, [0, 100, 101, 200]] = np.nan
    returns = Returns.of(series.select(("mid",)), 0.0)
    assert [len(piece) for piece in returns.pieces()] == [98, 97, 98]
    assert len(returns.longest()) == 98
    expected = series.log_returns()[0]
    np.testing.assert_allclose(returns.values, expected[np.isfinite(expected)])
    labels = series.start_ns[0] + (1 + np.flatnonzero(np.isfinite(expected))) * series.step_ns
    np.testing.assert_array_equal(returns.labels_ns, labels)
    last = returns.latest(150)
    assert last.opens[0]
    assert last.opens.sum() == 2


@pytest.mark.parametrize("link", LINKS)
def test_links_invert_and_intervals_stay_where_values_can_be(link: str) -> None:
    value = {"real": -3.0, "positive": 0.02, "share": 0.97, "correlation": -0.9, "reciprocal": 0.02}[link]
    assert LINKS[link].value(LINKS[link].free(value)) == pytest.approx(value)
    slope = (LINKS[link].value(LINKS[link].free(value) + 1e-6) - value) / 1e-6
    assert LINKS[link].slope(value) == pytest.approx(slope, rel=1e-4)
    low, high = Estimate(value, 0.02, link).interval
    assert low < value < high
    allowed = {"real": True, "share": 0 < low < high < 1, "correlation": -1 < low < high < 1}
    assert allowed.get(link, low > 0)
    assert Estimate(value, None, link).interval == (-math.inf, math.inf)


def test_information_is_that_of_a_known_likelihood() -> None:
    values = 2.0 * stream(0, "known").standard_normal(500) + 1.0

    def likelihood(free: FloatArray) -> float:
        return float(stats.norm.logpdf(values, free[0], np.exp(free[1])).sum())

    bounds = np.array([(-10.0, 10.0), (-10.0, 10.0)])
    best, free = climb(lambda free: likelihood(free) / 500, np.array([0.0, 0.0]), bounds, 100)
    np.testing.assert_allclose(free, (values.mean(), np.log(values.std())), rtol=1e-4)
    assert best == pytest.approx(likelihood(free) / 500)
    among = covariance(likelihood, free)
    np.testing.assert_allclose(np.diag(among), (values.var() / 500, 1 / 1_000), rtol=1e-3)
    found = estimates_of(free, among, {"mean": "real", "scale": "positive"})
    assert found["scale"].error == pytest.approx(values.std() / np.sqrt(1_000), rel=1e-3)
    at_bound = covariance(likelihood, free, np.array([(-10.0, 10.0), (free[1], 10.0)]))
    assert np.isnan(at_bound[1, 1])
    assert at_bound[0, 0] == pytest.approx(values.var() / 500, rel=1e-3)


def test_the_error_of_a_mean_grows_with_dependence() -> None:
    noise = stream(0, "error").standard_normal(50_000)
    assert mean_error(noise) == pytest.approx(1 / np.sqrt(50_000), rel=0.1)
    smooth = np.convolve(noise, np.ones(5) / 5, mode="valid")
    # The long-run variance of a moving average of white noise is that of the noise.
    assert mean_error(smooth) == pytest.approx(1 / np.sqrt(50_000), rel=0.2)


def test_ljung_box_is_that_of_statsmodels_and_does_not_look_over_gaps() -> None:
    values = stream(0, "ljung").standard_normal(400)
    values[1:] += 0.15 * values[:-1]
    theirs = acorr_ljungbox(values, lags=[20])["lb_pvalue"].iloc[0]
    assert ljung_box(values, np.zeros(400, dtype=np.int64)) == pytest.approx(float(theirs), rel=1e-9)
    alternating = np.tile([1.0, -1.0], 200)
    assert abs(acf(alternating, nlags=1)[1]) > 0.9
    assert ljung_box(alternating, np.arange(400)) == pytest.approx(1.0)


def test_scores_of_rounded_values_are_normal() -> None:
    rng = stream(0, "scores")
    values = np.rint(rng.standard_normal(20_000) / 0.8) * 0.8
    scores = scores_of(lambda x: np.asarray(stats.norm.cdf(x)), values, 0.8, rng)
    assert stats.kstest(scores, "norm").pvalue > 0.01
