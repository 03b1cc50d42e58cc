"""Regimes of planted histories, at any scale; coarser timeframes that are exactly what the finest one says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from synth_pipeline.bars.calendars import Calendar
from synth_pipeline.bars.checks import Bars
from synth_pipeline.bars.resampling import resample
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError
from synth_pipeline.features import regimes
from synth_pipeline.features.regimes import REGIMES, UNKNOWN, VOLATILITIES, Regimes
from synth_pipeline.features.timeframes import timeframes
from synth_pipeline.generators import hidden_markov
from synth_pipeline.generators.block_bootstrap import BlockBootstrap
from synth_pipeline.generators.regime_switching import RegimeSwitching
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_bootstrap as naive

MINUTE_NS = 60_000_000_000


def closes(returns: FloatArray, *, step_ns: int = MINUTE_NS) -> Series:
    """A history of these returns."""
    prices = 100.0 * np.exp(np.concatenate(([0.0], np.cumsum(returns))))
    return Series(prices[np.newaxis, :, np.newaxis], ("close",), step_ns, np.array([10**18]), 0.0)


def noise(steps: int, scale: float = 0.001, *, seed: int = 0) -> FloatArray:
    """Returns of a market in which nothing happens: their sum goes nowhere."""
    moves = scale * np.clip(stream(seed, "noise").standard_normal(steps), -2.5, 2.5)
    return moves - np.convolve(moves, np.ones(10) / 10, "same")


def names_at(found: Regimes, rows: slice | list[int]) -> set[str]:
    """Which regimes some steps have."""
    return {found.names[label] for label in found.labels[0, rows] if label != UNKNOWN}


def planted() -> FloatArray:
    """A rise, a fall, a storm, a flash crash that is bought back, a slower crash and a rally, calm between."""
    moves = noise(4_000)
    moves[500:900] += 0.0003
    moves[1_200:1_600] -= 0.0003
    moves[2_000:2_200] *= 5.0
    moves[2_600:2_603] = -0.015
    moves[2_603:2_615] += 0.003
    moves[3_000:3_040] -= 0.0012
    moves[3_400:3_440] += 0.0012
    return moves


def test_planted_regimes_are_found() -> None:
    found = regimes.label(closes(planted()))
    assert names_at(found, slice(600, 800)) == {"bull"}
    assert names_at(found, slice(1_300, 1_500)) == {"bear"}
    assert np.mean(found.labels[0, 2_000:2_200] == REGIMES.index("high_volatility")) > 0.6
    assert names_at(found, slice(2_601, 2_624)) == {"flash_crash"}
    assert names_at(found, slice(3_010, 3_035)) == {"crash"}
    assert names_at(found, slice(3_410, 3_435)) == {"rally"}
    assert names_at(found, slice(150, 300)) == {"sideways"}
    assert names_at(found, [2_590, 2_640]).isdisjoint({"flash_crash"})


@pytest.mark.parametrize(("scale", "step_ns"), [(0.01, 500_000_000), (8.0, 86_400_000_000_000)])
def test_regimes_do_not_depend_on_the_scale(scale: float, step_ns: int) -> None:
    found, scaled = regimes.label(closes(planted())), regimes.label(closes(scale * planted(), step_ns=step_ns))
    np.testing.assert_array_equal(found.labels, scaled.labels)


def test_a_mirrored_history_swaps_rise_and_fall() -> None:
    found, mirrored = (regimes.label(closes(sign * planted())) for sign in (1, -1))
    swapped = {"bull": "bear", "bear": "bull", "crash": "rally", "rally": "crash"}
    for name in ("bull", "bear", "high_volatility"):
        same = found.where(name) & mirrored.where(swapped.get(name, name))
        assert same.sum() > 0.85 * found.counts()[name]
    assert names_at(mirrored, slice(3_410, 3_435)) == {"crash"}
    assert "flash_crash" not in names_at(mirrored, slice(2_590, 2_650))


def test_a_flash_crash_begins_at_its_peak_and_lasts_a_tenth_of_a_span_after_its_trough() -> None:
    moves = 0.001 * np.tile([1.0, -1.0], 600)
    moves[695:710] = 0.0005
    moves[700:702] = -0.05
    found = regimes.label(closes(moves))
    crash = np.flatnonzero(found.labels[0] == REGIMES.index("flash_crash"))
    assert crash.tolist() == list(range(701, 703 + 60 // 10))


def test_no_move_spans_a_gap_and_short_stretches_have_no_regime() -> None:
    history = closes(noise(2_000))
    history.values[0, 1_000:] *= 0.5
    history.values[0, 995:1_000] = np.nan
    history.values[0, 1_500:1_520:10] = np.nan
    found = regimes.label(history)
    assert {"flash_crash", "crash"}.isdisjoint(found.counts())
    assert (found.labels[0, 995:1_000] == UNKNOWN).all()
    assert (found.labels[0, 1_501:1_510] == UNKNOWN).all()
    assert (found.labels[0, :995] != UNKNOWN).all()
    assert sum(found.counts().values()) == 2_001 - 5 - 2 - 9


def test_what_cannot_be_labelled_is_unknown() -> None:
    for history in (
        closes(np.zeros(300)),
        closes(noise(15)),
        replace(closes(noise(99)), values=np.full((1, 100, 1), np.nan)),
    ):
        found = regimes.label(history)
        assert (found.labels == UNKNOWN).all()
        assert found.counts() == {}
        with pytest.raises(InputError, match="history has no regime 'bull': it has none, it is too short"):
            found.where("bull")
    with pytest.raises(InputError, match="regimes over a span of 5 steps are noise"):
        regimes.label(closes(noise(100)), span=5)


def test_a_basket_is_labelled_by_its_mean() -> None:
    whole = Series.joined({"ONE": closes(planted()), "TWO": closes(planted())})
    np.testing.assert_array_equal(regimes.label(whole).labels, regimes.label(closes(planted())).labels)


def test_counts_shares_and_words_agree() -> None:
    found = Regimes(("a", "b", "c"), np.array([[0, 0, 1, -1], [0, -1, 1, 1]], dtype=np.int8))
    assert found.counts() == {"a": 3, "b": 3}
    assert found.shares() == {"a": 0.5, "b": 0.5}
    assert found.told() == "a 3 steps (50.0%), b 3 steps (50.0%)"
    assert found.where("b").tolist() == [[False, False, True, False], [False, False, True, True]]
    with pytest.raises(InputError, match=r"no regime 'c': it has a 3 steps \(50.0%\), b 3 steps"):
        found.where("c")


# By a hidden Markov model.


def spells(steps: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns of two volatilities in spells of about fifty, and which."""
    wild = np.cumsum(stream(1, "spells").random(steps) < 0.02) % 2 == 1
    return np.where(wild, 0.004, 0.001) * stream(0, "spells").standard_normal(steps), wild


def test_a_hidden_chain_finds_the_spells() -> None:
    moves, wild = spells(3_000)
    found = hidden_markov.label(closes(moves))
    assert found.names == VOLATILITIES[2]
    assert np.mean((found.labels[0, 1:] == 1) == wild) > 0.93
    assert found.labels[0, 0] == found.labels[0, 1]


def test_a_hidden_chain_begins_anew_after_a_gap() -> None:
    moves, _ = spells(3_000)
    history = closes(moves)
    history.values[0, 1_000:1_010] = np.nan
    history.values[0, 1_010:] *= 3.0
    found = hidden_markov.label(history)
    assert (found.labels[0, 1_000:1_010] == UNKNOWN).all()
    assert (np.delete(found.labels[0], np.s_[1_000:1_010]) != UNKNOWN).all()
    assert found.names == VOLATILITIES[2]  # tripling over the gap is no return


def test_without_returns_a_hidden_chain_labels_nothing() -> None:
    assert (hidden_markov.label(closes(np.zeros(300))).labels == UNKNOWN).all()
    assert (hidden_markov.label(closes(noise(50))).labels == UNKNOWN).all()


def test_states_of_regime_switching_bear_the_same_names() -> None:
    moves, wild = spells(3_000)
    process = RegimeSwitching.from_settings({"states": 2}).fit(closes(moves), rng=stream(0, "fit"))
    assert process.regime_names == VOLATILITIES[2]
    calm, turbulent = (
        process.sample(4, 400, regime=name, rng=stream(0, "s")).log_returns().std() for name in process.regime_names
    )
    assert calm == pytest.approx(moves[~wild].std(), rel=0.1)
    assert turbulent == pytest.approx(moves[wild].std(), rel=0.1)
    with pytest.raises(InputError, match="no regime 'bull': it has low_volatility, high_volatility"):
        process.stream(1, 10, regime="bull", rng=stream(0, "s"))


# Timeframes.


@given(
    factor=st.sampled_from([2, 5, 15, 60]),
    start=st.integers(0, 200),
    steps=st.integers(130, 400),
    seed=st.integers(0, 20),
)
def test_coarser_bars_are_those_of_the_resampler(factor: int, start: int, steps: int, seed: int) -> None:
    first = (10**18 // MINUTE_NS + start) * MINUTE_NS
    series = replace(naive.bars(steps, seed=seed, tick=0.01, lot=0.001), step_ns=MINUTE_NS, start_ns=np.array([first]))
    opens = first - MINUTE_NS + np.arange(steps) * MINUTE_NS
    names = dict(zip(naive.BARS, series.values[0].T, strict=True))
    unknown = {name: np.full(steps, np.nan) for name in ("turnover", "trade_count")}
    columns = {"open_ns": opens, "close_ns": opens + MINUTE_NS, **names, **unknown, "flags": np.zeros(steps, np.uint8)}
    minute = Timeframe.parse("1m")
    bars = Bars(minute, columns, Calendar.learn(opens, minute), [], [], 0, 0)
    wanted = resample(bars, Timeframe.of_ns(factor * MINUTE_NS), keep_partial=False).columns
    whole = (wanted["open_ns"] >= opens[0]) & (wanted["close_ns"] <= opens[-1] + MINUTE_NS)
    made = timeframes(series, [factor])[factor]
    labels = made.start_ns[0] + np.arange(made.steps) * made.step_ns
    np.testing.assert_array_equal(labels, wanted["close_ns"][whole])
    for name in naive.BARS[:4]:
        np.testing.assert_array_equal(made.column(name)[0], wanted[name][whole])
    np.testing.assert_allclose(made.column("volume")[0], wanted["volume"][whole], rtol=1e-12)


def test_every_timeframe_of_a_sampled_path_says_the_same() -> None:
    history = naive.bars(600, tick=0.01, lot=0.001)
    history = replace(history, step_ns=MINUTE_NS, start_ns=np.array([10**18 // MINUTE_NS * MINUTE_NS]))
    sample = BlockBootstrap().fit(history, rng=stream(0, "fit")).sample(3, 1_000, rng=stream(0, "sample"))
    made = timeframes(sample, (1, 5, 15, 60))
    assert made[1] is sample
    np.testing.assert_array_equal(timeframes(made[5], [12])[12].values, made[60].values)
    np.testing.assert_array_equal(timeframes(made[15], [4])[4].start_ns, made[60].start_ns)
    lots = np.rint(made[60].column("volume") / 0.001)
    first = int(made[60].start_ns[0] - made[60].step_ns + MINUTE_NS - sample.start_ns[0]) // MINUTE_NS
    fine = np.rint(sample.column("volume")[:, first : first + 60 * made[60].steps] / 0.001)
    np.testing.assert_array_equal(lots, fine.reshape(3, -1, 60).sum(axis=2))


def test_a_gap_makes_a_gap_and_other_columns_say_what_was_last() -> None:
    values = np.arange(24.0).reshape(1, 12, 2)
    values[0, 5] = np.nan
    series = Series(values, ("mid", "volume"), 500_000_000, np.array([10**18 + 500_000_000]), 0.5, 1.0)
    made = timeframes(series, [4])[4]
    assert made.start_ns.tolist() == [10**18 + 2_000_000_000]
    np.testing.assert_array_equal(made.values[0], [[6.0, 16.0], [np.nan, np.nan], [22.0, 80.0]])


def test_weeks_begin_on_monday() -> None:
    day = 86_400_000_000_000
    monday = 4 * day + 2_800 * 7 * day
    series = replace(naive.bars(30), step_ns=day, start_ns=np.array([monday - 2 * day + day]))
    made = timeframes(series, [7])[7]
    assert made.steps == 4
    assert made.start_ns.tolist() == [monday + 7 * day]
    np.testing.assert_array_equal(made.column("open")[0, 0], series.column("open")[0, 2])


def test_baskets_are_resampled_asset_by_asset() -> None:
    whole = Series.joined({"ONE": naive.bars(200, tick=0.01), "TWO": naive.bars(200, seed=1, tick=0.5)})
    made = timeframes(whole, [4])[4]
    assert made.assets == whole.assets
    part = timeframes(whole.parts()["TWO"], [4])[4]
    np.testing.assert_array_equal(made.parts()["TWO"].values, part.values)


def test_timeframes_that_cannot_be_made_are_refused() -> None:
    series = naive.bars(10, paths=2)
    with pytest.raises(InputError, match="a timeframe of 0 steps is none"):
        timeframes(series, [0])
    with pytest.raises(InputError, match="10 steps hold no whole one of 24"):
        timeframes(replace(series, start_ns=series.start_ns[:1].repeat(2)), [24])
    with pytest.raises(InputError, match="paths begin at different places of a step of 4"):
        timeframes(series, [4])


def test_a_price_that_is_none_is_a_gap() -> None:
    series = closes(planted())
    broken = series.values.copy()
    broken[0, 50:53, 0] = 0.0, -1.0, np.inf
    found = regimes.label(replace(series, values=broken))
    masked = np.where((broken > 0) & np.isfinite(broken), broken, np.nan)
    np.testing.assert_array_equal(found.labels, regimes.label(replace(series, values=masked)).labels)
    assert names_at(found, [50, 51, 52]) == set()


def test_the_steps_of_a_regime_make_a_history_of_their_own() -> None:
    series = replace(closes(planted()), tick_size=0.01)
    found = regimes.label(series)
    where = found.where("bear")
    gathered = regimes.gathered(series, where)
    np.testing.assert_allclose(gathered.log_returns()[0], series.log_returns()[0][where[0, 1:]], rtol=1e-9)
    assert np.median(gathered.column("close")) == pytest.approx(np.median(series.column("close")))
    assert gathered.tick_size == 0.01
    basket = Series.joined({"A": series, "B": replace(series, values=series.values * 2)})
    parts = regimes.gathered(basket, where).parts()
    np.testing.assert_allclose(parts["A"].values * 2, parts["B"].values)
