"""Coarser bars out of finer ones: the laws, a slow twin, and polars as a judge that we did not write."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import schema
from synth_pipeline.bars.calendars import Calendar
from synth_pipeline.bars.checks import Bars, Sound, assemble
from synth_pipeline.bars.resampling import resample
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, BarFlag
from tests import naive_bars

MINUTE_NS = 60 * NS_PER_SECOND


def make(minutes: list[int], timeframe: str = "1m", start_ns: int = 1_700_006_400 * NS_PER_SECOND) -> Bars:
    """Bars at these positions, with prices and sizes that follow from the position alone."""
    at = np.array(sorted(set(minutes)), dtype=np.int64)
    middle = 100 + (at * 7919 % 101) / 8
    columns = {
        "open_ns": start_ns + at * Timeframe.parse(timeframe).ns,
        "seq": np.arange(len(at)),
        "open": middle,
        "high": middle + 1 + at * 31 % 7,
        "low": middle - 1 - at * 17 % 5,
        "close": middle + (at % 3 - 1) / 2,
        "volume": (at * 13 % 29).astype(float),
        "turnover": np.full(len(at), np.nan),
        "trade_count": (at % 11).astype(float),
    }
    return assemble(Sound(columns), Timeframe.parse(timeframe))


def assert_same(left: Bars, right: Bars) -> None:
    assert left.timeframe == right.timeframe
    for name in schema.BARS.names:
        np.testing.assert_array_equal(left.columns[name], right.columns[name], err_msg=name)
    assert left.gaps == right.gaps


minutes = st.lists(st.integers(0, 4000), min_size=1, max_size=400)


@given(
    minutes=minutes,
    steps=st.sampled_from([("5m", "15m"), ("15m", "1h"), ("1h", "4h"), ("30m", "1d"), ("1h", "1w"), ("1d", "1M")]),
)
def test_two_steps_are_one(minutes: list[int], steps: tuple[str, str]) -> None:
    bars = make(minutes)
    middle, end = map(Timeframe.parse, steps)
    assert_same(resample(resample(bars, middle), end), resample(bars, end))


@given(minutes=minutes, timeframe=st.sampled_from(["5m", "1h", "7h", "1d", "1w", "1M"]))
def test_the_slow_twin_agrees(minutes: list[int], timeframe: str) -> None:
    bars = make(minutes)
    names = ("open_ns", "open", "high", "low", "close", "volume")
    rows = [naive_bars.Bar(*row) for row in zip(*(bars.columns[name].tolist() for name in names), strict=True)]
    found = resample(bars, Timeframe.parse(timeframe)).columns
    assert list(zip(*(found[name].tolist() for name in names), strict=True)) == naive_bars.resample(rows, timeframe)


@pytest.mark.parametrize("every", ["15m", "1h", "1d", "1w", "1mo"])
def test_polars_agrees(every: str) -> None:
    bars = make([k for k in range(30_000) if k % 1000 > 40])
    frame = pl.DataFrame({"t": pl.Series(bars.columns["open_ns"]).cast(pl.Datetime("ns"))} | bars.columns)
    judged = frame.group_by_dynamic("t", every=every).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    found = resample(bars, Timeframe.parse(every.replace("mo", "M"))).columns
    assert found["open_ns"].tolist() == judged["t"].dt.epoch("ns").to_list()
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(found[name], judged[name].to_numpy())


def test_partial_buckets_are_marked_or_left_out() -> None:
    bars = make([k for k in range(300) if k not in {70, 71}])
    hours = resample(bars, Timeframe.parse("1h"))
    assert hours.columns["flags"].tolist() == [0, BarFlag.PARTIAL, 0, 0, 0]
    whole = resample(bars, Timeframe.parse("1h"), keep_partial=False)
    assert len(whole) == 4
    assert whole.columns["flags"].tolist() == [0, BarFlag.GAP_BEFORE, 0, 0]
    assert [gap.missing for gap in whole.gaps] == [1]


def test_a_gap_of_whole_buckets_is_a_gap() -> None:
    hours = resample(make([*range(120), *range(300, 360)]), Timeframe.parse("1h"))
    assert len(hours) == 3
    assert [(gap.end_ns - gap.start_ns) // (60 * MINUTE_NS) for gap in hours.gaps] == [3]
    assert hours.columns["flags"].tolist() == [0, 0, BarFlag.GAP_BEFORE]


def test_closed_hours_make_nothing_partial() -> None:
    days = [k for k in range(700) if (k + 2) % 7 < 5]  # 2023-11-15 was a Wednesday
    weeks = resample(make(days, "1d"), Timeframe.parse("1w"))
    assert not (weeks.columns["flags"][1:-1] > 0).any()
    assert not weeks.gaps


def test_unknown_sizes_stay_unknown() -> None:
    bars = make(list(range(60)))
    bars.columns["volume"][30] = np.nan
    hour = resample(bars, Timeframe.parse("1h")).columns
    assert np.isnan(hour["volume"][0])
    assert np.isnan(hour["turnover"][0])
    assert hour["trade_count"][0] == bars.columns["trade_count"].sum()


@pytest.mark.parametrize(("finer", "coarser"), [("7m", "1h"), ("3d", "1w"), ("1h", "1m"), ("1w", "1M"), ("1M", "1w")])
def test_what_does_not_fit_is_refused(finer: str, coarser: str) -> None:
    with pytest.raises(InputError, match="not made of whole bars"):
        resample(make([0, 1, 2], finer), Timeframe.parse(coarser))


@pytest.mark.parametrize("text", ["", "0m", "1x", "h", "1.5h", "-1m"])
def test_timeframes_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not of the form"):
        Timeframe.parse(text)


@given(st.integers(1, 10_000), st.sampled_from("smhd"))
def test_timeframes_come_back_in_their_simplest_words(count: int, unit: str) -> None:
    frame = Timeframe.parse(f"{count}{unit}")
    assert Timeframe.parse(str(frame)) == frame
    assert frame == Timeframe.of_ns(frame.ns)


@given(st.integers(0, 2**61), st.sampled_from(["1s", "7m", "4h", "1d", "1w", "2w", "1M", "3M"]))
def test_a_bucket_holds_its_time(time_ns: int, text: str) -> None:
    frame = Timeframe.parse(text)
    start = frame.floor(np.array([time_ns]))
    assert start[0] <= time_ns < frame.after(start)[0]
    assert frame.floor(start)[0] == start[0]


def test_expected_bars_follow_the_calendar() -> None:
    days = make([k for k in range(700) if (k + 2) % 7 < 5], "1d")
    opens = days.columns["open_ns"]
    calendar = Calendar.learn(opens, Timeframe.parse("1d"))
    year = np.array([opens[0]]), np.array([opens[0] + 364 * NS_PER_DAY])
    assert calendar.expected(*year)[0] == 260
