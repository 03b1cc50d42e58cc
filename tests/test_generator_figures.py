"""What the benchmark of generators measures is what it says, shown on markets whose answers are known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("open", "high", "low", "close", "volume")
HOUR_NS = 3_600 * 10**9


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    """The script, imported as it is run: its neighbours by their plain names."""
    sys.path.insert(0, str(FOLDER))
    try:
        import generators

        yield generators
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def hours(figures: ModuleType) -> Any:
    return figures.hours


@cache
def bars(steps: int, seed: int = 0) -> Series:
    """Hourly bars whose volatility lasts for days, and whose volume tells it."""
    rng = stream(seed, "hours")
    swings = np.empty(steps)
    swings[0] = 0.0
    for at, shock in enumerate(0.12 * rng.standard_normal(steps - 1), 1):
        swings[at] = 0.98 * swings[at - 1] + shock
    size = 0.005 * np.exp(swings)
    close = 20_000 * np.exp(np.cumsum(size * rng.standard_normal(steps)))
    opened = np.append(20_000.0, close[:-1])
    wicks = np.exp(0.5 * size * np.abs(rng.standard_normal((2, steps))))
    high, low = np.maximum(opened, close) * wicks[0], np.minimum(opened, close) / wicks[1]
    values = np.stack([opened, high, low, close, 1e3 * np.exp(swings)], axis=1)[np.newaxis]
    return Series(values, NAMES, HOUR_NS, np.zeros(1, dtype=np.int64), 0.0)


@cache
def returns(steps: int, seed: int = 0) -> FloatArray:
    return bars(steps, seed).log_returns()[0]


# What is read and what is asked about.


def test_the_answers_lie_beyond_the_hours_that_are_read(hours: Any) -> None:
    series = bars(hours.BARS)
    other = Series(series.values.copy(), NAMES, HOUR_NS, series.start_ns, 0.0)
    other.values[:, hours.READ + 1 :] *= 1.5
    one, two = hours.windows(series), hours.windows(other)
    assert one.shape == (1, hours.READ + hours.AHEAD, 5)
    np.testing.assert_array_equal(hours.read(one), hours.read(two))
    assert hours.moves(two)[0] == pytest.approx(hours.moves(one)[0] + np.log(1.5))
    close = series.column("close")[0]
    assert hours.moves(one)[0] == pytest.approx(np.log(close[-1] / close[hours.READ]))


def test_windows_are_in_the_order_of_time(hours: Any) -> None:
    series = bars(100)
    cut = hours.windows(series)
    assert len(cut) == 100 - hours.BARS + 1
    np.testing.assert_allclose(cut[5, :, 0], series.log_returns()[0, 5 : 5 + hours.BARS - 1])
    np.testing.assert_array_equal(hours.windows(series, 10), cut[::10])
    assert (cut[..., 2] >= np.maximum(cut[..., 0], cut[..., 1])).all()
    assert (cut[..., 3] <= np.minimum(cut[..., 0], cut[..., 1])).all()


def test_shuffled_answers_teach_no_more_than_chance(hours: Any) -> None:
    train, test = hours.windows(bars(5_000)), hours.windows(bars(2_000, seed=1))
    shuffled = train.copy()
    shuffled[:, hours.READ :] = train[stream(0, "shuffle").permutation(len(train)), hours.READ :]
    by_real, by_chance = (hours.taught(source, train, test) for source in (train, shuffled))
    assert by_real.size > 0.75
    assert by_chance.size < 0.65
    assert abs(by_chance.direction - 0.5) < 0.06
    assert abs(by_real.direction - 0.5) < 0.06  # nothing foretells it here
    assert hours.tstr_ratio(by_real, by_real) == 1
    assert hours.tstr_ratio(by_chance, by_real) < 0.93


# Scores.


def test_a_copy_has_no_divergence_and_a_louder_market_has(hours: Any) -> None:
    known = returns(5_000)
    floor = hours.floor_of_divergence(known)
    assert hours.divergence_excess(known, known, floor) == 0
    assert hours.divergence_excess(known, stream(0, "resample").choice(known, 9_000), floor) == 0
    assert hours.divergence_excess(known, 1.5 * known, floor) > 0.02


def test_autocorrelations_are_compared_within_windows(hours: Any) -> None:
    noise = stream(0, "noise").standard_normal((4_000, 25))
    echo = noise[:, 1:] + noise[:, :-1]  # its autocorrelation at lag 1 is one half
    plain, sizes = hours.correlation_differences(noise[:, 1:], echo)
    assert plain == pytest.approx(0.5, abs=0.05)
    assert 0.1 < sizes < 0.4
    assert hours.correlation_differences(noise, noise) == (0, 0)


def test_diversity_is_lost_by_collapse(hours: Any) -> None:
    series = bars(8_000)
    apart = hours.read(hours.windows(series)[:: hours.READ])[..., 0]
    assert hours.diversity(apart, apart, series) == 1
    other = hours.read(hours.windows(bars(8_000, seed=2))[:: hours.READ])[..., 0]
    assert hours.diversity(apart, other, series) > 0.8
    assert hours.diversity(apart, np.repeat(apart[:3], 100, axis=0), series) < 0.3


def test_copies_and_noise_are_the_ends_of_the_discriminative_score(hours: Any) -> None:
    train = hours.windows(bars(2_000))
    train[..., 1] += 1e-4 * stream(0, "open").standard_normal(train.shape[:2])
    noise = train + stream(0, "noise").standard_normal(train.shape)
    assert hours.discriminative(train, train, 1).mean < 0.1
    assert hours.discriminative(train, noise, 1).mean > 0.4


def test_copied_returns_are_found_in_windows(hours: Any) -> None:
    known, fresh = returns(3_000), returns(3_000, seed=3)
    copies = np.lib.stride_tricks.sliding_window_view(known, hours.READ)[::100]
    assert hours.copied_share(known, copies) == 1
    assert hours.copied_share(known, fresh[: 30 * hours.READ].reshape(30, hours.READ)) == 0
    assert hours.copied_share(known, stream(0, "iid").choice(known, (30, hours.READ))) == 0


def test_a_position_is_ruined_where_half_of_it_is_lost_on_the_way(hours: Any) -> None:
    lost = np.log1p(-hours.RUIN / hours.LEVERAGE)
    paths = np.array([[0.9 * lost, 0.0], [1.1 * lost, 0.3], [0.3, lost], [-1.0, 2.0]])
    assert hours.survival(paths) == 0.5
    assert hours.deeper(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == (1 + 0.75) / 2


# The table.


def scores(figures: ModuleType, **more: float) -> dict[str, float]:
    """Values that are as good as every bar, but for those that are named."""
    return {key: bar for key, (bar, _, _) in figures.BARS.items()} | more


def test_the_row_of_the_claims_is_the_one_that_met_most_bars_before_the_test_period(figures: ModuleType) -> None:
    Found, (first, second) = figures.Found, figures.OWN
    found = {row: Found(row, scores(figures, tstr=value)) for row, value in ((first, 2.0), (second, 0.5), ("gan", 9.0))}
    earlier = {first: Found(first, scores(figures, tstr=0.9)), second: Found(second, scores(figures))}
    claims = {claim.id: claim for claim in figures.of_best(found, earlier)}
    assert claims["btc_tstr"].value == 0.5  # not the best of the test period, of ours or of all
    assert claims["btc_tstr"].peers == {first: 2.0, "gan": 9.0}
    assert f"{second} (chosen of {first}, {second} by 2022 H2)" in claims["btc_tstr"].what
    assert not claims["btc_tstr"].met
    found[second] = Found(second, note="collapsed")
    claim = figures.of_best(found, earlier)[0]
    assert (claim.value, claim.note) == (None, "collapsed")


def test_of_rows_that_miss_as_many_bars_the_one_that_misses_by_less_is_chosen(figures: ModuleType) -> None:
    bars, (first, second) = figures.BARS, figures.OWN

    def wins(one: dict[str, float], two: dict[str, float]) -> str:
        runs = {row: figures.Found(row, scores(figures, **each)) for row, each in ((first, one), (second, two))}
        return str(figures.chosen(runs))

    assert wins({"acf1": 2.2 * bars["acf1"][0]}, {"diversity": 0.9 * bars["diversity"][0]}) == second
    assert wins({"acf1": 1.05 * bars["acf1"][0]}, {"diversity": 0.9 * bars["diversity"][0]}) == first
    assert wins({"acf1": 1.2 * bars["acf1"][0], "tstr": 5.0}, {"kl_excess": 1.1 * bars["kl_excess"][0]}) == second
    assert wins({}, {"tstr": 1.1 * bars["tstr"][0]}) == second  # both meet all: more to spare
    assert figures.standing(scores(figures)) == (0, 0, 0)
    assert figures.standing(scores(figures, tstr=0.9 * bars["tstr"][0])) == (1, pytest.approx(0.1), pytest.approx(0.1))


def test_a_row_that_failed_is_not_chosen_and_without_validation_the_claims_say_so(figures: ModuleType) -> None:
    first, second = figures.OWN
    failed = {first: figures.Found(first, note="collapsed"), second: figures.Found(second, scores(figures, tstr=0.0))}
    assert figures.chosen(failed) == second
    claim = figures.of_best({first: figures.Found(first, scores(figures))}, {})[0]
    assert claim.value == figures.BARS["tstr"][0]
    assert "nothing was validated" in claim.note
    assert "Nothing was validated" in figures.validation({})


def test_validation_sees_no_bar_of_the_test_period(figures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    series = bars(24 * 365)
    start_ns = np.array([np.datetime64("2022-05-01T01:00", "ns").astype(np.int64)])
    monkeypatch.setattr(figures, "history", lambda _: replace(series, start_ns=start_ns))
    early, late = (figures.Market.of(Path("bars"), each) for each in (figures.VALIDATION, figures.TEST))

    def label(market: Series, at: int) -> str:
        ns = int(market.start_ns[0]) + (at % market.steps) * HOUR_NS
        return str(np.datetime64(ns, "ns").astype("datetime64[h]"))

    # A label is the end of its bar.
    assert [label(early.train, at) for at in (0, -1)] == ["2022-05-01T01", "2022-07-01T00"]
    assert [label(early.test, at) for at in (0, -1)] == ["2022-07-01T01", "2023-01-01T00"]
    assert [label(late.train, at) for at in (0, -1)] == ["2022-05-01T01", "2023-01-01T00"]
    assert [label(late.test, at) for at in (0, -1)] == ["2023-01-01T01", "2023-05-01T00"]


def test_trainings_of_one_row_are_averaged(figures: ModuleType) -> None:
    runs = [
        figures.Found("timegan", {"ds": 0.1, "tstr": 0.9}),
        figures.Found("timegan", {"ds": 0.3, "tstr": 1.0}),
        figures.Found("dcgan", note="collapsed"),
    ]
    found = figures.merged(runs)
    assert found["timegan"].values == pytest.approx({"ds": 0.2, "tstr": 0.95, "ds_spread": 0.2})
    lines = figures.table(found).splitlines()
    assert len(lines) == 4
    assert "0.950" in lines[2]
    assert lines[3].endswith("| collapsed")
    assert set(figures.PUBLISHED) <= set(figures.ROWS)


def test_the_short_form_trains_less_and_once(figures: ModuleType, tmp_path: Path) -> None:
    whole = figures.jobs(tmp_path, [], 2, 1.0, 5)
    short = figures.jobs(tmp_path, ["findiff", "iid bootstrap"], 1, figures.QUICK, 1)
    assert [job.row for job in short] == ["findiff", "iid bootstrap"]
    assert short[0].settings["steps"] == figures.ROWS["findiff"]["steps"] // 20
    assert sum(job.row == "findiff" for job in whole) == 2
    assert sum(job.row == "iid bootstrap" for job in whole) == 1


def test_the_page_is_made_of_the_rows(figures: ModuleType) -> None:
    values = dict.fromkeys(
        (*figures.COLUMNS, "regime_ordered", "drawdown, bull", "drawdown, flash_crash", "survival, flash_crash"), 0.25
    )
    earlier = {row: figures.Found(row, scores(figures, tstr=0.5)) for row in figures.OWN}
    found = {"rcgan": figures.Found("rcgan", values), "ar_mlp": figures.Found("ar_mlp")}
    page = figures.page(found, earlier, 2, 0.5)
    assert "about 30 s of one core; trainings a row: 2" in page
    assert page.count("| `rcgan` |") == 2
    assert "| `rcgan` | 0.250 | 0.250 | 0.250 | 0.250 |" in page
    assert "| `timegan` | 0.94 | 0.03 | 0.05 | good |" in page
    assert all(f"`{row}` misses 1, by 0.485 of its bars in all" in page for row in figures.OWN)
    assert f"`{figures.OWN[0]}` comes first, so claims are of it" in page
