"""Transforms: exact round trips, laws of what is decoded, the tails against scipy."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.features.marginals import Marginal, Tail
from synth_pipeline.features.transforms import Anchor, SeriesTransform, checked, on_grid, rounded_walk
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive

GRIDS = st.sampled_from([(0.1, 0.001), (0.01, 0.00001), (0.5, 1.0), (0.25, 10.0), (5.0, 0.1), (1e-5, 1.0), (0.0, 0.0)])


def one_path(series: Series, price: float) -> SeriesTransform:
    """A fitted transform whose samples start at a price of our choice."""
    fitted = SeriesTransform.fit(series)
    return replace(fitted, anchor=replace(fitted.anchor, price=price))


def assert_lawful(series: Series) -> None:
    """Hold a decoded series to what a venue could have shown."""
    assert np.isfinite(series.values).all()
    mid, spread = series.column("mid"), series.column("spread")
    assert (mid > 0).all()
    assert (series.column("volume") >= 0).all()
    assert (np.abs(series.column("imbalance_1")) <= 1).all()
    if series.tick_size:
        ticks, halves = spread / series.tick_size, mid / (series.tick_size / 2)
        assert np.allclose(ticks, np.rint(ticks), rtol=1e-12)
        assert (np.rint(ticks) >= 1).all()
        assert np.allclose(halves, np.rint(halves), rtol=1e-12)
        bid = (np.rint(halves) - np.rint(ticks)) / 2
        assert (bid == np.rint(bid)).all()
        assert (bid >= 1).all()
    if series.lot_size:
        lots = series.column("volume") / series.lot_size
        assert np.allclose(lots, np.rint(lots), rtol=1e-12)


@pytest.mark.parametrize(("tick", "lot"), [(0.1, 0.001), (0.01, 1.0), (5.0, 0.1)])
def test_scores_decode_to_the_very_series_they_came_from(tick: float, lot: float) -> None:
    series = naive.market(600, tick=tick, lot=lot)
    transform = one_path(series, float(series.values[0, 0, 0]))
    scores = transform.encode(series, rng=stream(1, "ties")).values
    assert np.isnan(scores[0, 0]).all()
    scores[0, 0] = 0.0
    back = transform.decode(scores)
    for name in ("mid", "spread", "volume", "imbalance_1"):
        np.testing.assert_allclose(back.column(name)[:, 1:], series.column(name)[:, 1:], rtol=1e-9, atol=1e-9)
    assert back.column("mid")[0, 0] == series.column("mid")[0, 0]


def test_scores_of_the_fitted_series_are_standard_normal() -> None:
    series = naive.market(4_000)
    scores = SeriesTransform.fit(series).encode(series, rng=stream(0, "ties")).values[0, 1:]
    for at, name in enumerate(series.names):
        assert stats.kstest(scores[:, at], "norm").statistic < 0.02, name


def test_a_gap_and_the_row_after_it_have_no_score() -> None:
    series = naive.market(400)
    series.values[0, 100:120] = np.nan
    scores = SeriesTransform.fit(series).encode(series, rng=stream(0, "ties")).values[0]
    missing = np.flatnonzero(np.isnan(scores).any(axis=1))
    assert missing.tolist() == [0, *range(100, 121)]
    assert np.isnan(scores[missing]).all()


def test_zero_returns_keep_their_share_and_stay_exactly_zero() -> None:
    series = naive.market(5_000)
    transform = SeriesTransform.fit(series)
    decoded = transform.decode(stream(3, "scores").standard_normal((4, 5_000, 4)))
    real, made = (np.mean(s.log_returns() == 0) for s in (series, decoded))
    assert 0.4 < real < 0.8
    # At a spread of one tick, its parity moves the mid by half a tick, however the return was drawn.
    assert abs(real - made) < 0.05


def test_moves_of_half_ticks_survive_a_spread_of_many_ticks_and_the_spread_keeps_its_law() -> None:
    rng = stream(0, "wide")
    spreads = 2.0 + rng.poisson(12.0, (4, 20_000))
    moves = rng.choice([0, 0, 0, 0, -1, 1, -2, 2, 3, -3], spreads.shape)
    returns = np.log1p(moves / 4e5)  # within a hundredth of so many half ticks
    prices, placed = rounded_walk(returns, spreads, np.full(4, 4e5), spreads[:, 0] + spreads[:, 0] % 2, False)
    kept = np.diff(prices, axis=1) == moves[:, 1:]
    assert kept.mean() > 0.98
    assert kept[moves[:, 1:] == 0].all()
    assert ((prices - placed) % 2 == 0).all()
    assert np.abs(placed - spreads).max() <= 1
    assert abs(placed.mean() - spreads.mean()) < 0.1
    assert placed.std() == pytest.approx(spreads.std(), rel=0.1)  # towards the one before: a little less


def test_a_spread_of_one_tick_comes_back_with_the_next_move() -> None:
    returns = np.log(np.array([[401 / 400, 1.0, 402 / 401, 404 / 402]]))
    prices, placed = rounded_walk(returns, np.array([[2.0, 1.0, 1.0, 1.0]]), np.array([400.0]), np.array([2.0]), False)
    assert placed.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert prices.tolist() == [[401.0, 401.0, 401.0, 403.0]]


def test_the_map_of_directions_is_odd() -> None:
    values = stream(0, "values").standard_t(3, 500)
    marginal = Marginal.fit(values, odd=True)
    at = np.concatenate((values, values * 3))
    np.testing.assert_allclose(marginal.normal(-at), -marginal.normal(at), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(marginal.value(-at), -marginal.value(at), rtol=1e-9, atol=1e-12)


def test_symmetric_scores_decode_to_prices_without_drift() -> None:
    series = naive.market(2_000)
    transform = SeriesTransform.fit(series)
    scores = stream(5, "scores").standard_normal((400, 500, 4))
    both = np.concatenate((scores, scores * transform.directions))
    ends = transform.decode(both).column("mid")[:, -1]
    drift = np.log(ends / transform.anchor.price)
    assert abs(drift.mean()) < 1e-3 * drift.std()


@settings(max_examples=40)
@given(
    grids=GRIDS,
    price=st.floats(1e-3, 1e6),
    scores=arrays.arrays(np.float64, (2, 40, 4), elements=st.floats(-40, 40)),
    seed=st.integers(0, 50),
)
def test_whatever_a_network_says_decodes_to_a_lawful_market(
    grids: tuple[float, float], price: float, scores: FloatArray, seed: int
) -> None:
    tick, lot = grids
    series = naive.market(150, seed=seed, price=max(price, 20 * tick), tick=tick or 0.01, lot=lot or 0.001)
    transform = SeriesTransform.fit(replace(series, tick_size=tick, lot_size=lot))
    decoded = transform.decode(scores)
    assert_lawful(decoded)
    first = decoded.column("mid")[:, 0]
    np.testing.assert_allclose(first, series.column("mid")[0, -1], rtol=1e-9)


@settings(max_examples=60)
@given(
    values=arrays.arrays(
        np.float64, st.integers(20, 200), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.0, 0.25, 1.0, 7.0])
    ),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_repeated_values_survive_the_round_trip(values: FloatArray, odd: bool, seed: int) -> None:
    marginal = Marginal.fit(values, odd=odd)
    back = marginal.value(marginal.normal(values, stream(seed, "ties")))
    np.testing.assert_allclose(back, values, atol=1e-9)


def test_the_map_back_is_monotone_into_the_tails() -> None:
    marginal = Marginal.fit(stream(0, "values").standard_t(3, 3_000))
    values = marginal.value(np.linspace(-9, 9, 4_001))
    assert (np.diff(values) >= 0).all()


def test_extremes_exceed_history_but_not_twofold() -> None:
    history = stream(0, "values").standard_t(3, 3_000)
    made = Marginal.fit(history).value(stream(1, "scores").standard_normal(300_000))
    assert history.max() < made.max() <= 2 * history.max() - np.median(history)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_tails_find_the_law_that_scipy_drew_from(shape: float) -> None:
    drawn = np.sort(stats.genpareto.rvs(shape, scale=2.0, size=1_600_000, random_state=stream(0, "tail", str(shape))))
    tail = Tail.fit(drawn, 0.5)
    assert tail.shape == pytest.approx(shape, abs=0.08)
    far = np.array([0.002, 0.001, 0.00025])
    np.testing.assert_allclose(tail.quantile(far), stats.genpareto.isf(far, shape, scale=2.0), rtol=0.03)
    np.testing.assert_allclose(tail.exceedance(tail.quantile(far)), far, rtol=1e-9)


def test_prices_walk_like_the_slow_twin() -> None:
    rng = stream(0, "walk")
    returns = rng.standard_normal((3, 200)) * 0.02 * (rng.random((3, 200)) < 0.6)
    for spreads in (np.zeros((3, 200)), 1.0 + rng.poisson(0.5, (3, 200)), 1.0 + rng.poisson(8.0, (3, 200))):
        for held in (False, True):
            found = rounded_walk(returns, spreads, np.full(3, 400.0), spreads[:, 0], held)
            for ours, theirs in zip(found, naive.rounded_walk(returns, spreads, 400.0, held=held), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_a_price_that_rests_rests_whatever_its_spread_does() -> None:
    returns, spreads = np.zeros((1, 500)), 1.0 + stream(0, "rest").poisson(6.0, (1, 500))
    spreads[0, 0] += spreads[0, 0] % 2
    prices, placed = rounded_walk(returns, spreads, np.array([400.0]), spreads[:, 0], False)
    assert (prices == 400).all()
    assert np.abs(placed - spreads).max() == 1
    assert placed.min() >= 1


def one_sided(steps: int, flicker: float) -> Series:
    """Mids and spreads of a book of which one side moves at a time; some spreads widen by two ticks about the mid."""
    rng = stream(0, "one side")
    ticks, mid = np.empty(steps), np.empty(steps)
    spread, middle = 10.0, 4e5
    for at, (chance, side) in enumerate(zip(rng.random(steps), rng.choice([-1.0, 1.0], steps), strict=True)):
        if chance < 0.2:  # the side that moves is as likely to widen the spread as not, within bounds
            change = 1.0 if spread < 3 else -1.0 if spread > 30 else float(rng.choice([-1.0, 1.0]))
            spread, middle = spread + change, middle + side
        ticks[at], mid[at] = spread + 2 * (rng.random() < flicker), middle
    values = np.stack((on_grid(mid, 0.005), on_grid(ticks, 0.01)), axis=1)
    return Series(values[np.newaxis], ("mid", "spread"), 500_000_000, np.array([0]), 0.01, 0.0)


@pytest.mark.parametrize(("flicker", "still"), [(0.0, True), (0.001, True), (0.1, False)])
def test_a_mid_that_rests_holds_its_spread_where_history_has_it_so(flicker: float, still: bool) -> None:
    series = one_sided(6_000, flicker)
    transform = SeriesTransform.fit(series)
    scores = stream(1, "scores").standard_normal((4, 3_000, 2))
    made = transform.decode(scores)
    changed = np.diff(made.column("spread"), axis=1) != 0
    rests = np.diff(made.column("mid"), axis=1) == 0
    assert 0.7 < rests.mean() < 0.9
    assert changed[rests].any() != still
    assert changed[~rests].mean() > 0.8
    assert np.mean(made.column("spread")) == pytest.approx(np.mean(series.column("spread")), rel=0.1)
    pieces = list(transform.decoded(iter(np.array_split(scores, 7, axis=1))))
    np.testing.assert_array_equal(np.concatenate([piece.values for piece in pieces], axis=1), made.values)


def test_a_wide_spread_gives_way_to_the_nearest_mid_and_a_narrow_one_does_not() -> None:
    rng = stream(0, "quotes")
    anchor = Anchor.of(one_sided(50, 0.0))
    levels, ticks = np.cumsum(rng.standard_normal(20_000)) * 1e-6, 1.0 + rng.poisson(3.0, 20_000)
    quotes = anchor.quotes(levels, ticks)
    mids, placed = np.rint(quotes["mid"] / 0.005), np.rint(quotes["spread"] / 0.01)
    latent = anchor.price * np.exp(levels) / 0.005
    wide = ticks > 2
    np.testing.assert_array_equal((mids - placed) % 2, 0)
    np.testing.assert_array_equal(placed[~wide], ticks[~wide])
    np.testing.assert_array_equal(mids[wide], np.rint(latent)[wide])
    assert np.abs(mids - latent).max() <= 1
    assert np.abs(placed - ticks).max() == 1
    assert abs((placed - ticks)[wide].mean()) < 0.05


@given(units=st.integers(0, 10**9), tick=st.sampled_from(["0.1", "0.05", "0.01", "0.00001", "0.005", "1", "5", "0.25"]))
def test_grid_values_are_the_doubles_of_their_decimals(units: int, tick: str) -> None:
    exact = float(units * Decimal(tick))
    made = float(on_grid(np.array([float(units)]), float(tick))[0])
    assert made == exact


BAR_SCORES = arrays.arrays(np.float64, (2, 40, 5), elements=st.floats(-40, 40))


def assert_bars(series: Series) -> None:
    """Hold decoded bars to what a venue could have shown."""
    assert np.isfinite(series.values).all()
    opened, high, low, close = (series.column(name) for name in ("open", "high", "low", "close"))
    assert (low > 0).all()
    assert (low <= np.minimum(opened, close)).all()
    assert (high >= np.maximum(opened, close)).all()
    assert (series.column("volume") >= 0).all()
    if series.tick_size:
        ticks = series.values[:, :, :4] / series.tick_size
        np.testing.assert_allclose(ticks, np.rint(ticks), rtol=1e-12)


@pytest.mark.parametrize("tick", [0.0, 0.5, 20.0])
def test_bars_decode_to_the_very_bars_they_came_from(tick: float) -> None:
    series = naive.bars(600, tick=tick)
    # Opens away from the close before, and a bar without wicks.
    gaps = 1 + 0.01 * stream(0, "gaps").standard_normal(600)
    opens = series.values[0, :, 0] * gaps
    series.values[0, :, 0] = np.rint(opens / tick) * tick if tick else opens
    series.values[0, :, 1] = np.maximum(series.values[0, :, 1], series.values[0, :, 0])
    series.values[0, :, 2] = np.minimum(series.values[0, :, 2], series.values[0, :, 0])
    series.values[0, 77, 1:3] = np.sort(series.values[0, 77, [0, 3]])[::-1]
    transform = one_path(series, float(series.values[0, 0, 3]))
    scores = transform.encode(series, rng=stream(1, "ties")).values
    scores[0, 0] = 0.0
    back = transform.decode(scores)
    np.testing.assert_allclose(back.values[:, 1:], series.values[:, 1:], rtol=1e-8)


@settings(max_examples=40)
@given(tick=st.sampled_from([0.0, 0.5, 20.0, 1e-5]), scores=BAR_SCORES, seed=st.integers(0, 50))
def test_whatever_a_network_says_decodes_to_bars_in_order(tick: float, scores: FloatArray, seed: int) -> None:
    series = naive.bars(150, seed=seed, tick=tick)
    transform = SeriesTransform.fit(series)
    whole = transform.decode(scores)
    assert_bars(whole)
    np.testing.assert_allclose(whole.column("close")[:, 0], series.column("close")[0, -1], rtol=1e-12)
    cut = list(transform.decoded((scores[:, :13], scores[:, 13:14], scores[:, 14:])))
    np.testing.assert_allclose(np.concatenate([piece.values for piece in cut], axis=1), whole.values, rtol=1e-9)
    assert [int(piece.start_ns[0] - whole.start_ns[0]) // whole.step_ns for piece in cut] == [0, 13, 14]


def test_bars_upside_down_have_mirrored_scores() -> None:
    series = naive.bars(2_000, tick=0.0)
    upside_down = 1 / series.values
    upside_down[0, :, [1, 2]] = upside_down[0, :, [2, 1]]
    upside_down[0, :, 4] = series.values[0, :, 4]
    transform = SeriesTransform.fit(series)
    assert transform.directions.tolist() == [-1, 1, -1, -1, 1]
    scores = transform.encode(series, rng=stream(0, "ties")).values
    mirrored = transform.encode(replace(series, values=upside_down), rng=stream(0, "ties")).values
    # The gapless opens of this market are all ties, which fall anywhere.
    expected = (scores * transform.directions)[0, 1:, 1:]
    np.testing.assert_allclose(mirrored[0, 1:, 1:], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["high", "low"])
def test_one_wick_without_the_other_is_refused(name: str) -> None:
    series = naive.bars(300).select(("open", name, "close"))
    with pytest.raises(InputError, match=f"bars have open and {name} beside close: give both of high and low, or none"):
        SeriesTransform.fit(series)


def test_saved_and_loaded_transforms_are_the_same(tmp_path: Path) -> None:
    series = naive.market(300)
    transform = SeriesTransform.fit(series)
    transform.save(tmp_path)
    loaded = SeriesTransform.load(tmp_path)
    scores = stream(0, "scores").standard_normal((2, 50, 4))
    np.testing.assert_array_equal(loaded.decode(scores).values, transform.decode(scores).values)
    first = transform.encode(series, rng=stream(1, "ties")).values
    np.testing.assert_array_equal(loaded.encode(series, rng=stream(1, "ties")).values, first)
    assert loaded.anchor == transform.anchor


def test_the_anchor_is_the_last_row_that_is_no_gap() -> None:
    series = naive.market(300)
    series.values[0, 290:] = np.nan
    anchor = Anchor.of(series)
    assert anchor.price == series.values[0, 289, 0]
    assert anchor.next_ns == series.start_ns[0] + 290 * series.step_ns


def test_columns_without_a_transform_are_refused_by_name() -> None:
    series = naive.market(300)
    with pytest.raises(InputError, match="'vwap' has no transform"):
        SeriesTransform.fit(replace(series, names=("mid", "spread", "volume", "vwap")))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: v[:10], TooLittleDataError, "10 steps and 100 are needed"),
        (lambda v: v * np.nan, TooLittleDataError, "0 steps and 100 are needed"),
        (lambda v: v * 0 + 5, InputError, "rests at 5 throughout"),
        (lambda v: np.where(np.arange(len(v))[:, None] == 50, -1, v), InputError, "mid holds -1"),
        (lambda v: np.where(np.arange(len(v))[:, None] == 50, 0, v), InputError, "mid holds 0"),
        (lambda v: np.where(np.arange(len(v))[:, None] < 50, 5.0, 6.0) + 0 * v, TooLittleDataError, "moves 1 times"),
    ],
)
def test_bad_prices_are_refused(change: object, error: type[Exception], message: str) -> None:
    series = naive.market(200)
    bad = replace(series, values=change(series.values[0])[np.newaxis])  # type: ignore[operator]
    with pytest.raises(error, match=message):
        checked(bad, ("mid", "spread"), (), 100)
