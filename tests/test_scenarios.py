"""Shocks: what each does within its stretch, that it leaves the rest alone, and that what comes out is a market."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity import validity
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from synth_pipeline.synthesis.scenarios import Shock, shocked
from synth_pipeline.synthesis.shocks import KINDS
from tests import sampled

NEUTRAL = ("volatility:times=1,at=10", "liquidity_drought:times=1", "flash_crash:depth=0,for=20", "trend:by=0,for=9",
           "gap:by=0,at=30")  # fmt: skip
SERIES = {"quotes": sampled.quotes(), "bars": sampled.bars(), "basket": sampled.basket()}
every_series = pytest.mark.parametrize("name", SERIES)


def after(series: Series, *texts: str, cuts: tuple[int, ...] = (), seed: int = 0) -> Series:
    """The series after shocks, streamed in pieces."""
    shocks = [Shock.parse(text) for text in texts]
    return replace(series, values=sampled.joined(shocked(sampled.pieces(series, cuts), shocks, rng=stream(seed, "s"))))


def steps_of(series: Series, start: int, stop: int) -> str:
    """`at=…,for=…` of a stretch of steps."""
    seconds = series.step_ns / 1e9
    return f"at={start * seconds!r},for={(stop - start) * seconds!r}"


def assert_valid(series: Series) -> None:
    """Every check of every market passes."""
    for market in series.parts().values() if series.assets else (series,):
        assert not [check for check in validity.checks(market) if check.failures]


def rounding(series: Series, prices: FloatArray) -> float:
    """The most that rounding to a whole tick changes a log-return, both ends."""
    return 2 * series.tick_size / float(prices.min())


@every_series
@pytest.mark.parametrize("text", NEUTRAL)
def test_a_neutral_shock_changes_no_byte(name: str, text: str) -> None:
    series = SERIES[name]
    if name == "bars" and text.startswith("flash"):
        text += ",at=1d"
    assert after(series, text, cuts=(37,)).values.tobytes() == series.values.tobytes()


def test_no_shock_leaves_the_pieces_as_they_are() -> None:
    given_pieces = list(sampled.pieces(SERIES["quotes"], (100,)))
    assert list(shocked(given_pieces, [], rng=stream(0, "s"))) == given_pieces


def _any_shock(series: Series) -> st.SearchStrategy[str]:
    at = st.integers(0, series.steps - 2)
    lasting = st.integers(1, series.steps)
    stretch = st.builds(lambda first, length: steps_of(series, first, first + length), at, lasting)
    times = st.floats(1.0, 6.0).map(lambda value: f"times={value!r}")
    share = st.floats(-0.5, 0.9).map(lambda value: f"by={value!r}")
    return st.one_of(
        st.builds("volatility:{},{}".format, st.floats(0.05, 5).map(lambda value: f"times={value!r}"), stretch),
        st.builds("liquidity_drought:{},{},ramp={}".format, times, stretch, st.sampled_from(["0", "20", "2d"])),
        st.builds(
            "flash_crash:depth={!r},{},recovery={}".format, st.floats(0, 0.7), stretch, st.sampled_from([5, 9e5])
        ),
        st.builds("trend:{},{}".format, share, stretch),
        st.builds(lambda by, text: f"gap:{by},{text.split(',')[0]}", share, stretch),
        st.builds(lambda text: f"outage:{text.split(',')[0]},for={series.step_ns * 9 / 1e9!r}", stretch),
    )


@every_series
@settings(max_examples=25)
@given(data=st.data())
def test_shocks_compose_into_lawful_markets_whatever_the_cuts(name: str, data: st.DataObject) -> None:
    series = SERIES[name]
    texts = data.draw(st.lists(_any_shock(series), min_size=1, max_size=3))
    cuts = tuple(data.draw(st.lists(st.integers(1, 170), min_size=1, max_size=3)))
    whole = after(series, *texts)
    assert_valid(whole)
    assert all(Shock.parse(str(Shock.parse(text))) == Shock.parse(text) for text in texts)
    assert after(series, *texts, cuts=cuts).values.tobytes() == whole.values.tobytes()


@pytest.mark.parametrize("times", [0.25, 3.0])
def test_volatility_scales_returns_within_its_stretch_only(times: float) -> None:
    series = SERIES["quotes"]
    first, last = 100, 250
    shaken = after(series, f"volatility:times={times},{steps_of(series, first, last)}")
    before, now = series.log_returns(), shaken.log_returns()
    error = rounding(series, shaken.column("mid"))
    inside = slice(first - 1, last - 1)  # return k leads into step k + 1
    np.testing.assert_allclose(now[:, inside], times * before[:, inside], atol=error)
    np.testing.assert_array_equal(shaken.values[:, :first], series.values[:, :first])
    # rounding never accumulates: the whole way after the stretch is as it was, to the same one tick
    np.testing.assert_allclose(
        np.log(shaken.column("mid")[:, last:] / shaken.column("mid")[:, last - 1 : last]),
        np.log(series.column("mid")[:, last:] / series.column("mid")[:, last - 1 : last]),
        atol=error,
    )
    np.testing.assert_array_equal(shaken.column("spread"), series.column("spread"))


def test_volatility_scales_wicks_and_nights_of_bars() -> None:
    series = SERIES["bars"]
    shaken = after(series, f"volatility:times=2,{steps_of(series, 50, 60)}")
    error = rounding(series, shaken.column("low"))
    for name, base in (("high", "close"), ("low", "close"), ("open", "close")):
        before = np.log(series.column(name) / series.column(base))[:, 50:60]
        now = np.log(shaken.column(name) / shaken.column(base))[:, 50:60]
        np.testing.assert_allclose(now, 2 * before, atol=error)
    night = [np.log(each.column("open")[:, 60] / each.column("close")[:, 59]) for each in (series, shaken)]
    np.testing.assert_allclose(*night, atol=error)


def test_volatility_from_the_first_step_keeps_the_first_price() -> None:
    for series in (SERIES["quotes"], SERIES["bars"]):
        shaken = after(series, "volatility:times=3")
        np.testing.assert_array_equal(shaken.column(series.price_name)[:, 0], series.column(series.price_name)[:, 0])
        assert np.std(shaken.log_returns()) == pytest.approx(3 * np.std(series.log_returns()), rel=1e-3)


@every_series
def test_an_outage_holds_prices_and_trades_nothing(name: str) -> None:
    series = SERIES[name]
    silent = after(series, f"outage:{steps_of(series, 20, 45)}", cuts=(33,))
    outside = np.r_[0:20, 45 : series.steps]
    np.testing.assert_array_equal(silent.values[:, outside], series.values[:, outside])
    for at, column in enumerate(series.names):
        plain = column.rpartition(":")[2]
        held = silent.values[:, 20:45, at]
        if plain == "volume":
            assert not held.any()
        elif plain in ("open", "high", "low"):
            close = series.values[:, 19, series.names.index(column.replace(plain, "close"))]
            np.testing.assert_array_equal(held, np.repeat(close[:, None], 25, axis=1))
        else:
            np.testing.assert_array_equal(held, np.repeat(series.values[:, 19:20, at], 25, axis=1))


def test_an_outage_from_the_first_step_holds_its_price_and_flags_say_so() -> None:
    series = SERIES["quotes"]
    flagged = replace(
        series,
        names=(*series.names, "flags"),
        values=np.concatenate((series.values, 1 + 0 * series.values[:, :, :1]), axis=2),
    )
    silent = after(flagged, "outage:for=5")
    assert (silent.column("mid")[:, :10] == series.column("mid")[:, :1]).all()
    assert (silent.column("flags")[:, :10] == 5).all()
    assert (silent.column("flags")[:, 10:] == 1).all()


def test_a_drought_widens_spreads_and_thins_trade() -> None:
    series = SERIES["quotes"]
    dry = after(series, f"liquidity_drought:times=5,{steps_of(series, 100, 200)}")
    inside, outside = slice(100, 200), np.r_[0:100, 200:400]
    np.testing.assert_array_equal(dry.values[:, outside], series.values[:, outside])
    np.testing.assert_array_equal(dry.column("mid"), series.column("mid"))
    ratio = dry.column("spread")[:, inside] / (5 * series.column("spread")[:, inside])
    assert np.abs(ratio - 1).max() < 0.21  # to the tick that keeps bid and ask on the grid
    volume, was = dry.column("volume")[:, inside], series.column("volume")[:, inside]
    np.testing.assert_allclose(volume, was / 5, atol=0.001)
    assert ((volume > 0) == (was > 0)).all()
    changed = dry.column("imbalance_1")[:, inside] != series.column("imbalance_1")[:, inside]
    assert changed.all()
    assert np.abs(dry.column("imbalance_1")).max() <= 1


def test_the_ramps_of_a_drought_lead_in_and_out() -> None:
    series = replace(sampled.quotes(1, 200), lot_size=0.0)
    volume = series.column("volume")
    volume[:] = 1.0
    dry = after(series, "liquidity_drought:times=4,at=20,for=60,ramp=10").column("volume")[0]
    assert (np.diff(dry[39:61]) < 0).all()
    np.testing.assert_allclose(dry[60:140], 0.25)
    np.testing.assert_allclose(dry[40:61], dry[139:160][::-1])
    assert (dry[:40] == 1).all()
    assert (dry[160:] == 1).all()


def test_noise_is_the_paths_own() -> None:
    series = SERIES["quotes"]
    later = shocked(
        ((path, piece) for path, piece in sampled.pieces(series) if path == 1),
        [Shock.parse("liquidity_drought:times=9")],
        rng=stream(0, "s"),
    )
    np.testing.assert_array_equal(sampled.joined(later)[0], after(series, "liquidity_drought:times=9").values[1])
    other = after(series, "liquidity_drought:times=9", seed=1)
    assert not np.array_equal(other.values, after(series, "liquidity_drought:times=9").values)


def test_a_flash_crash_falls_by_its_depth_and_comes_back() -> None:
    series = SERIES["quotes"]
    crashed = after(series, "flash_crash:depth=0.3,at=50,for=10,recovery=40")
    ratio = crashed.column("mid") / series.column("mid")
    assert ratio[:, 120] == pytest.approx(0.7, abs=1e-5)
    assert (np.diff(ratio[:, 100:121], axis=1) < 0).all()
    assert (np.diff(ratio[:, 120:201], axis=1) > 0).all()
    np.testing.assert_array_equal(crashed.values[:, 200:], series.values[:, 200:])
    halfway = after(series, "flash_crash:depth=0.3,at=50,for=10,recovery=40,rebound=0.5")
    np.testing.assert_allclose((halfway.column("mid") / series.column("mid"))[:, 200:], 0.7**0.5, atol=1e-5)


def test_a_gap_is_the_night_of_a_bar_and_a_trend_is_not() -> None:
    series = SERIES["bars"]
    gapped = after(series, "gap:by=-0.2,at=40d")
    np.testing.assert_array_equal(gapped.values[:, :40], series.values[:, :40])
    np.testing.assert_allclose(gapped.values[:, 40:, :4] / series.values[:, 40:, :4], 0.8, atol=1e-4)
    rising = after(series, "trend:by=1,at=40d,for=10d")
    ratio = rising.column("close") / series.column("close")
    assert ratio[:, 50:] == pytest.approx(2, abs=1e-4)
    np.testing.assert_allclose(
        rising.column("open")[:, 41:51] / rising.column("close")[:, 40:50],
        series.column("open")[:, 41:51] / series.column("close")[:, 40:50],
        atol=rounding(series, series.column("low")),
    )


def test_one_asset_of_several_is_hit_alone() -> None:
    series = SERIES["basket"]
    hit = after(series, "gap:by=0.5,at=3d,asset=BTCUSDT")
    before, now = series.parts(), hit.parts()
    np.testing.assert_array_equal(now["ÆTH€"].values, before["ÆTH€"].values)
    assert (now["BTCUSDT"].column("close")[:, 3:] > before["BTCUSDT"].column("close")[:, 3:]).all()


def test_gaps_of_a_series_stay_gaps() -> None:
    series = sampled.quotes(1)
    series.values[0, 100:140] = np.nan
    for text in ("volatility:times=2,at=55", "outage:at=40,for=40", "liquidity_drought:times=3", "gap:by=0.1,at=60"):
        hit = after(series, text, cuts=(120,))
        np.testing.assert_array_equal(np.isnan(hit.values), np.isnan(series.values))
    shaken = after(series, "volatility:times=2,at=55,for=20")  # from within the gap
    inside = np.log(shaken.column("mid")[0, 149] / series.column("mid")[0, 99])
    assert inside == pytest.approx(2 * np.log(series.column("mid")[0, 149] / series.column("mid")[0, 99]), abs=1e-5)


def test_sizes_and_prices_without_a_grid_are_not_rounded() -> None:
    series = replace(sampled.bars(1), tick_size=0.0, lot_size=0.0)
    series.values[:] *= np.pi
    hit = after(series, "volatility:times=2", "liquidity_drought:times=3")
    np.testing.assert_allclose(hit.log_returns(), 2 * series.log_returns(), atol=1e-12)
    np.testing.assert_allclose(hit.column("volume"), series.column("volume") / 3)
    assert_valid(hit)


def test_a_price_of_one_tick_stays_a_price() -> None:
    series = sampled.quotes(1, 200, tick=0.1)
    series.values[..., 0] = np.where(np.arange(200) % 2, 0.25, 0.15)
    series.values[..., 1] = 0.1
    for text in ("gap:by=-0.9,at=20", "liquidity_drought:times=50", "volatility:times=20"):
        hit = after(series, text)
        assert (hit.column("mid") - hit.column("spread") / 2 > 0.05).all()
        halves, ticks = np.rint(hit.column("mid") / 0.05), np.rint(hit.column("spread") / 0.1)
        assert ((halves - ticks) % 2 == 0).all()


def test_quotes_without_a_grid_keep_a_bid() -> None:
    series = replace(sampled.quotes(1), tick_size=0.0)
    hit = after(series, "liquidity_drought:times=1e7,at=10,for=20")
    assert (hit.column("mid") - hit.column("spread") / 2 > 0).all()
    assert (hit.column("spread")[:, 20:60] > 1e5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_json_bring_a_shock_back(kind: str) -> None:
    known = {
        "times": "3.5",
        "by": "-0.125",
        "depth": "0.25",
        "for": "120",
        "ramp": "5",
        "recovery": "7",
        "rebound": "0.5",
    }
    names = [each.metadata.get("key") or each.name for each in fields(KINDS[kind])]
    text = f"{kind}:at=10m,asset=ÆTH€," + ",".join(f"{name}={known[name]}" for name in names if name in known)
    shock = Shock.parse(text)
    assert isinstance(shock, KINDS[kind])
    assert shock.at == 600.0
    plain = shock.to_json()
    assert plain["at"] == 600.0
    assert Shock.of(plain.pop("kind"), plain) == shock
    assert Shock.parse(str(shock)) == shock


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("volatilty:times=3", "Did you mean 'volatility'"),
        ("", "unknown shock ''"),
        ("volatility", "lacks times"),
        ("volatility:times=0", "must be above 0"),
        ("volatility:times=nan", "must be above 0"),
        ("volatility:times=inf", "must be above 0"),
        ("volatility:times=x", "must be a number"),
        ("volatility:times=2,times=3", "stands twice"),
        ("volatility:times", "not of the form name=value"),
        ("volatility:times=2,depth=1", "has no parameter 'depth': it has at, asset, for, times"),
        ("volatility:times=2,at=-1", "must be at least 0"),
        ("volatility:times=2,at=5y", "a time such as 600, 90s, 10m, 1h or 5d"),
        ("volatility:times=2,at=", "a time such as"),
        ("outage:at=5", "lacks for"),
        ("outage:for=0", "must be above 0"),
        ("liquidity_drought:times=0.5", "must be at least 1"),
        ("flash_crash:depth=1,for=5", "must be at least 0 and below 1"),
        ("gap:by=-1", "must be above -1"),
    ],
)
def test_what_is_no_shock_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        Shock.parse(text)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("quotes", "volatility:times=2,at=1h", "begins after the paths end, at 200 s"),
        ("quotes", "outage:at=10.1,for=0.2", "covers no step of 0.5 s"),
        ("quotes", "outage:for=5,asset=BTCUSDT", "one market: leave asset out"),
        ("basket", "outage:for=5d,asset=SOL", "the series is of BTCUSDT, ÆTH€"),
        ("closes", "liquidity_drought:times=2", "the series holds only close"),
        ("volumes", "volatility:times=2", "a shock needs a price"),
    ],
)
def test_a_shock_that_does_not_fit_the_series_is_refused(name: str, text: str, told: str) -> None:
    more = {"closes": SERIES["bars"].select(("close",)), "volumes": SERIES["bars"].select(("volume",))}
    with pytest.raises(InputError, match=told):
        after((SERIES | more)[name], text)
