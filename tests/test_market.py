"""The simulated market: its flow against its laws, frames against a dict book, prices against stylised facts."""

import gzip
import json
import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import market
from synth_pipeline.errors import InputError
from synth_pipeline.market import engine
from synth_pipeline.market.efficient_price import advance_price, price_law
from synth_pipeline.market.order_flow import advance, flow_law, new_market, rewind
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.market.simulation import DepthStream, Simulation, simulate
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from tests.naive_market import check_totals, depth

NOON_NS = 20_000 * NS_PER_DAY + NS_PER_DAY // 2
DEFAULTS = Parameters()


def test_efficient_price_is_a_martingale_of_the_stated_volatility():
    parameters = replace(DEFAULTS, annual_volatility=2.0, jumps_per_day=0.0, volatility_half_life_s=0.5)
    law, rng = price_law(parameters), stream(0, "market", "price")
    state, steps, seconds = np.zeros(2), 40_000, 0.1
    path = np.empty((steps, 2))
    for step in range(steps):
        advance_price(state, law, 1.0, seconds, rng)
        path[step] = state
    returns = np.diff(path[:, 0])
    per_second = 2.0 / np.sqrt(365 * 86_400)
    assert returns.std() / np.sqrt(seconds) == pytest.approx(per_second, rel=0.05)
    assert abs(np.expm1(returns).mean()) < 4 * returns.std() / np.sqrt(steps)
    assert path[:, 1].std() == pytest.approx(DEFAULTS.log_volatility_sd, rel=0.1)


def run_market(parameters: Parameters, seconds: int, seed: int):
    """Return the market after some time, and the journal's trades of it."""
    price, law, rng = price_law(parameters), flow_law(parameters), stream(seed, "market", "flow")
    market = new_market(NOON_NS, parameters, price, law, rng)
    trades, done = [], False
    while not done:
        done = advance(market, price, law, NOON_NS + seconds * NS_PER_SECOND, rng)
        trades.append(market.journal.trades[: market.journal.rows.trades[0]].copy())
        rewind(market)
    return market, np.concatenate(trades)


def test_uninformed_orders_arrive_at_the_mean_rate_of_the_hawkes_process():
    parameters = replace(DEFAULTS, informed_rate=0.0, intraday_amplitude=0.0)
    seconds = 7200
    _, trades = run_market(parameters, seconds, 1)
    rate = np.unique(trades["taker_id"]).size / seconds
    # Its standard error is about 3 %: the variance of the count is (1 - n)^-2 times that of a Poisson process.
    assert rate == pytest.approx(2 * parameters.market_rate / (1 - parameters.branching_ratio), rel=0.12)
    buys = trades["taker_side"] == engine.BID
    assert 0.3 < buys.mean() < 0.7


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"market_rate": 5.0, "market_size_median": 50.0, "depth_rate": 0.2, "minimum_orders": 3},
        {"annual_volatility": 30.0, "jumps_per_day": 5000.0, "jump_scale_bp": 60.0},
        {"touch_rate": 0.1, "touch_lifetime_s": 0.05, "depth_lifetime_s": 1.0},
    ],
    ids=["default", "hungry takers", "wild price", "fleeting makers"],
)
def test_the_book_never_empties_nor_crosses(changes):
    parameters = replace(DEFAULTS, **changes)
    for seed in range(2):
        market, trades = run_market(parameters, 120, seed)
        assert trades.size > 0
        check_totals(market.book)
        assert market.book.sides.orders[:2].min() >= parameters.minimum_orders


def test_parameters_that_make_no_market_are_named():
    for changes, message in [
        ({"market_rate": -1.0}, "market_rate is -1.0"),
        ({"annual_volatility": float("nan")}, "annual_volatility is nan"),
        ({"depth_lifetime_s": 0.0}, "depth_lifetime_s is 0.0: it must be positive"),
        ({"self_excitation": 0.9, "cross_excitation": 0.2}, "must be below 1"),
        ({"intraday_amplitude": 1.0}, "intraday_amplitude is 1.0"),
        ({"business_time_share": 1.5}, "business_time_share is 1.5"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            replace(DEFAULTS, **changes)
    with pytest.raises(InputError, match="depth orders would number about"):
        run_market(replace(DEFAULTS, depth_lifetime_s=1e5), 1, 0)
    with pytest.raises(InputError, match="choose a tick_size"):
        run_market(replace(DEFAULTS, start_price=1.0), 1, 0)


# ---- frames


def parse(frames):
    """Return (received_ns, kind, data) of each frame; the snapshot's kind is `snapshot`."""
    parsed = []
    for received_ns, payload in frames:
        message = json.loads(payload)
        data = message.get("data", message)
        parsed.append((received_ns, data.get("e", "snapshot"), data))
    return parsed


class DictBook:
    """The book a recorder rebuilds: price strings as decimals, absolute quantities, zero removes."""

    def __init__(self, snapshot: dict) -> None:
        self.last_id, self.bridging = snapshot["lastUpdateId"], True
        self.sides = [self._levels(snapshot["bids"]), self._levels(snapshot["asks"])]

    @staticmethod
    def _levels(levels: list[list[str]]) -> dict[Decimal, Decimal]:
        return {Decimal(price): Decimal(quantity) for price, quantity in levels}

    def apply(self, diff: dict) -> bool:
        """Apply one diff by the venue's rule and return whether it changed anything."""
        if self.bridging:
            assert diff["U"] <= self.last_id <= diff["u"] or diff["pu"] == self.last_id
        else:
            assert diff["pu"] == self.last_id
        self.last_id, self.bridging = diff["u"], False
        before = [dict(side) for side in self.sides]
        for side, levels in zip(self.sides, (diff["b"], diff["a"]), strict=True):
            side.update(self._levels(levels))
            for price in [price for price, quantity in side.items() if not quantity]:
                del side[price]
        return before != self.sides

    def top(self, levels: int) -> list[list[tuple[Decimal, Decimal]]]:
        bids, asks = (sorted(side.items()) for side in self.sides)
        return [bids[::-1][:levels], asks[:levels]]


def quote(ticker: dict) -> list[list[tuple[Decimal, Decimal]]]:
    return [[(Decimal(ticker[price]), Decimal(ticker[quantity]))] for price, quantity in ("bB", "aA")]


def replay(parsed):
    """Rebuild the book from the snapshot and yield (book, diff, changed) after every diff that follows it."""
    snapshot = next(data for _, kind, data in parsed if kind == "snapshot")
    book = DictBook(snapshot)
    for _, kind, data in parsed:
        if kind == "depthUpdate" and data["u"] >= snapshot["lastUpdateId"]:
            # The first one may end where the snapshot was taken.
            was_bridging = book.bridging
            yield book, data, book.apply(data) or was_bridging


@pytest.fixture(scope="module")
def midnight():
    """Frames of two minutes around midnight UTC, parsed."""
    start_ns = 20_000 * NS_PER_DAY - 60 * NS_PER_SECOND
    frames = simulate("BTCUSDT", start_ns, start_ns + 120 * NS_PER_SECOND, rng=stream(0, "market", "midnight"))
    return parse(frames)


def test_ids_chain_without_a_break_over_midnight(midnight):
    diffs = [data for _, kind, data in midnight if kind == "depthUpdate"]
    trades = [data for _, kind, data in midnight if kind == "trade"]
    tickers = [data for _, kind, data in midnight if kind == "bookTicker"]
    assert all(after["pu"] == before["u"] for before, after in pairwise(diffs))
    assert all(diff["pu"] < diff["U"] <= diff["u"] for diff in diffs)
    assert any(diff["U"] > diff["pu"] + 1 for diff in diffs), "ids of other symbols lie in between"
    assert [trade["t"] for trade in trades] == list(range(trades[0]["t"], trades[0]["t"] + len(trades)))
    assert all(after["u"] > before["u"] for before, after in pairwise(tickers))
    midnight_ms = 20_000 * NS_PER_DAY // 1_000_000
    assert diffs[0]["E"] < midnight_ms < diffs[-1]["E"]


def test_times_are_in_order_and_in_ms(midnight):
    received = [received_ns for received_ns, _, _ in midnight]
    assert all(before < after for before, after in pairwise(received))
    for received_ns, _, data in midnight:
        assert data["T"] <= data["E"] < received_ns / 1e6 < data["E"] + 1000
    latency = np.array([received_ns / 1e6 - data["E"] for received_ns, kind, data in midnight if kind != "snapshot"])
    assert DEFAULTS.latency_median_ms * 0.8 < np.median(latency) < DEFAULTS.latency_median_ms * 2
    for of in ("depthUpdate", "trade", "bookTicker"):
        times = [data["T"] for _, kind, data in midnight if kind == of]
        assert times == sorted(times)


def test_the_snapshot_arrives_after_changes_that_it_lacks(midnight):
    place = next(place for place, (_, kind, _) in enumerate(midnight) if kind == "snapshot")
    snapshot = midnight[place][2]
    seen = [data for _, kind, data in midnight[:place] if kind == "depthUpdate"]
    assert seen[0]["u"] < snapshot["lastUpdateId"] < seen[-1]["U"]
    assert any(diff["U"] <= snapshot["lastUpdateId"] <= diff["u"] for diff in seen)
    assert snapshot["bids"] == sorted(snapshot["bids"], key=lambda level: -float(level[0]))
    assert snapshot["asks"] == sorted(snapshot["asks"], key=lambda level: float(level[0]))
    assert min(len(snapshot["bids"]), len(snapshot["asks"])) > 100


def test_a_rebuilt_book_agrees_with_every_book_ticker(midnight):
    tickers = {data["u"]: data for _, kind, data in midnight if kind == "bookTicker"}
    ids, equal, matched = sorted(tickers), 0, 0
    for book, diff, changed in replay(midnight):
        assert changed, f"diff {diff['u']} says nothing new"
        best_bid, best_ask = book.top(1)
        assert best_bid[0][0] < best_ask[0][0]
        last = ids[np.searchsorted(ids, diff["u"], side="right") - 1]
        assert book.top(1) == quote(tickers[last])
        equal += last == diff["u"]
        matched += 1
    assert matched > 1000
    assert equal > 0.3 * matched


def test_trades_print_at_the_touch_that_the_taker_met(midnight):
    touch, sides = None, set()
    for _, kind, data in midnight:
        if kind == "bookTicker":
            assert quote(data) != touch, "only a touch that moved is published"
            touch, traded_at = quote(data), None
        elif kind == "trade" and touch is not None:
            price, sells = Decimal(data["p"]), data["m"]
            # One order may walk through several levels before the touch is published again.
            met = traded_at or touch[0 if sells else 1][0][0]
            assert price <= met if sells else price >= met
            traded_at = price
            sides.add(sells)
    assert sides == {True, False}


def test_a_diff_names_what_was_undone_and_waits_for_what_was_not():
    depth_stream = DepthStream(0, last_id=7, interval_ns=100)
    depth_stream.add(9, [(engine.BID, 500, 4, 6)])
    assert depth_stream.due(99) is None
    depth_stream.add(12, [(engine.BID, 500, 6, 4)])
    assert depth_stream.due(100) is None, "nothing differs"
    depth_stream.add(15, [(engine.ASK, 502, 0, 3), (engine.ASK, 501, 2, 0)])
    assert depth_stream.due(199) is None, "the clock has not ticked again"
    # A snapshot with id 9 to 11 showed 6 lots at 500, so the diff must say that 4 are left.
    assert depth_stream.due(350) == (200, 9, 15, 7, ([(500, 4)], [(501, 0), (502, 3)]))
    depth_stream.add(20, [(engine.BID, 500, 4, 0)])
    assert depth_stream.due(399) is None
    assert depth_stream.due(400) == (400, 20, 20, 15, ([(500, 0)], []))


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32), snapshot_after_ms=st.integers(1, 900), interval_ms=st.sampled_from([1, 50, 100, 250])
)
def test_top_levels_equal_the_engine_s_wherever_the_snapshot_falls(seed, snapshot_after_ms, interval_ms):
    parameters = replace(DEFAULTS, snapshot_after_ms=snapshot_after_ms, diff_interval_ms=interval_ms)
    simulation = Simulation("BTCUSDT", NOON_NS, rng=stream(seed, "market"), parameters=parameters)
    frames = []
    for second in (2, 3, 4):
        # The depth clock ticks here, so all that differs from the engine's book has been published.
        frames += simulation.advance(NOON_NS + second * NS_PER_SECOND)
        *_, (book, _, _) = replay(parse(frames))
        scaled = [[(price * 10, quantity * 1000) for price, quantity in side] for side in book.top(10)]
        assert scaled == [depth(simulation.book, side, 10) for side in range(2)]


FORMS = {
    "depthUpdate": r'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":\d{13},"T":\d{13},"s":"BTCUSDT",'
    r'"U":\d+,"u":\d+,"pu":\d+,"b":LEVELS,"a":LEVELS}}',
    "bookTicker": r'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":\d+,"s":"BTCUSDT","b":PRICE,"B":SIZE,'
    r'"a":PRICE,"A":SIZE,"T":\d{13},"E":\d{13}}}',
    "trade": r'{"stream":"btcusdt@trade","data":{"e":"trade","E":\d{13},"T":\d{13},"s":"BTCUSDT","t":\d+,"p":PRICE,'
    r'"q":SIZE,"X":"MARKET","m":(true|false)}}',
    "snapshot": r'{"lastUpdateId":\d+,"E":\d{13},"T":\d{13},"bids":LEVELS,"asks":LEVELS}',
}


def form_of(payload: bytes) -> str:
    """Return which of the venue's forms the bytes have, to the last comma; fails for any other."""
    text = payload.decode()
    for name, form in FORMS.items():
        form = form.replace("{", r"\{", 3 if name != "snapshot" else 1).replace(r"\{13}", "{13}")
        form = form.replace("LEVELS", r"\[(\[PRICE,SIZE\](,\[PRICE,SIZE\])*)?\]")
        if re.fullmatch(form.replace("PRICE", r'"\d+\.\d{2}"').replace("SIZE", r'"\d+\.\d{3}"'), text):
            return name
    raise AssertionError(f"no form of the venue: {text[:200]}")


def test_every_frame_has_the_venue_s_form():
    frames = list(simulate("BTCUSDT", NOON_NS, NOON_NS + 20 * NS_PER_SECOND, rng=stream(0, "market")))
    assert {form_of(payload) for _, payload in frames} == set(FORMS)


def test_recorded_frames_have_the_same_forms(real):
    seen = set()
    with gzip.open(real("binance_usdm_btcusdt_20240808.gz"), "rb") as lines:
        for _, line in zip(range(3000), lines, strict=False):
            seen.add(form_of(line.rstrip().partition(b" ")[2]))
    assert seen == set(FORMS)


def test_one_seed_gives_one_recording_and_another_seed_another():
    def record(seed: int, seconds: float = 30.0, symbol: str = "BTCUSDT"):
        end_ns = NOON_NS + int(seconds * NS_PER_SECOND)
        return list(simulate(symbol, NOON_NS, end_ns, rng=stream(seed, "market")))

    first = record(1)
    assert record(1) == first
    assert record(2) != first
    # However long one records, the market does not change; what arrives after the end is not recorded.
    short = record(1, 12.345)
    assert short == first[: len(short)]
    assert short[-1].received_ns < NOON_NS + 12.345 * NS_PER_SECOND <= first[len(short)].received_ns


def test_another_symbol_speaks_in_its_own_name_and_decimals():
    parameters = replace(
        DEFAULTS, start_price=2500.0, tick_size=Decimal("0.005"), lot_size=Decimal(1), order_size_median=80.0
    )
    frames = simulate("EthUsdt", NOON_NS, NOON_NS + 5 * NS_PER_SECOND, rng=stream(0, "m"), parameters=parameters)
    messages = [json.loads(payload) for _, payload in frames]
    data = [message["data"] for message in messages if "data" in message]
    assert {message["stream"].partition("@")[0] for message in messages if "stream" in message} == {"ethusdt"}
    assert {each["s"] for each in data} == {"ETHUSDT"}
    bids = [each["b"] for each in data if each["e"] == "bookTicker"]
    assert all(re.fullmatch(r"2\d{3}\.\d{2}[05]", bid) for bid in bids)
    assert all(re.fullmatch(r"\d+", each["q"]) for each in data if each["e"] == "trade")


def test_requests_that_make_no_recording_are_named():
    with pytest.raises(InputError, match="choose a later end"):
        simulate("BTCUSDT", NOON_NS, NOON_NS, rng=stream(0))
    with pytest.raises(InputError, match="symbol 'BTC/USDT'"):
        simulate("BTC/USDT", NOON_NS, NOON_NS + 1, rng=stream(0))


def test_a_longer_recording_takes_no_more_memory():
    def peak_bytes(seconds: int) -> int:
        tracemalloc.start()
        for _ in simulate("BTCUSDT", NOON_NS, NOON_NS + seconds * NS_PER_SECOND, rng=stream(0, "market")):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(20)
    assert peak_bytes(400) < peak_bytes(100) + 2_000_000


def test_progress_counts_to_the_end():
    seen = []

    def report(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    end_ns = NOON_NS + 25 * NS_PER_SECOND
    list(simulate("BTCUSDT", NOON_NS, end_ns, rng=stream(0), progress=report))
    assert seen == [(10, 25), (20, 25), (25, 25)]


# ---- stylised facts


@pytest.fixture(scope="module")
def hour():
    """One simulated hour: receive times in s, kinds, and the touch in ticks of every bookTicker."""
    kinds, times, touch = [], [], []
    for received_ns, payload in simulate("BTCUSDT", NOON_NS, NOON_NS + 3600 * NS_PER_SECOND, rng=stream(0, "hour")):
        kinds.append(re.search(rb'"e":"(\w+)"|lastUpdateId', payload)[1])
        if kinds[-1] == b"bookTicker":
            bid, ask = (re.search(rb'"%c":"([^"]+)"' % side, payload)[1] for side in b"ba")
            times.append((received_ns - NOON_NS) / NS_PER_SECOND)
            touch.append((round(float(bid) * 10), round(float(ask) * 10)))
    return kinds, np.array(times), np.array(touch)


def sampled(hour, step_s: float):
    """Touch on a grid, after the first ten seconds."""
    _, times, touch = hour
    return touch[np.searchsorted(times, np.arange(10, 3600, step_s), side="right") - 1]


def autocorrelation(values: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def test_an_hour_has_the_announced_pace(hour):
    kinds, times, _ = hour
    assert 100_000 < len(kinds) < 300_000
    assert 1 < kinds.count(b"trade") / 3600 < 15
    assert 5 < kinds.count(b"depthUpdate") / 3600 <= 10
    per_second = np.bincount(times.astype(int))
    assert per_second.var() > 2 * per_second.mean(), "busy and quiet seconds differ by more than chance"


def test_returns_have_tails_clusters_and_no_trend(hour):
    mid = sampled(hour, 0.5).mean(axis=1)
    returns = np.diff(np.log(mid))
    z = (returns - returns.mean()) / returns.std()
    assert np.mean(z**4) > 4
    assert abs(autocorrelation(returns, 1)) < 0.1
    for lag in (1, 2, 4, 10, 20):
        assert autocorrelation(np.abs(returns), lag) > 0.05
    assert 0.3 < np.mean(returns == 0) < 0.9
    annual = returns.std() * np.sqrt(2 * 365 * 86_400)
    assert DEFAULTS.annual_volatility / 2.5 < annual < DEFAULTS.annual_volatility * 2.5


def test_spread_is_one_to_three_ticks_mostly(hour):
    touch = sampled(hour, 0.5)
    spread = touch[:, 1] - touch[:, 0]
    assert spread.min() >= 1
    assert np.mean(spread <= 3) > 0.9
    assert spread.max() > 3


def test_an_update_of_one_source_drops_the_kernels_compiled_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "market"
    (folder / "__pycache__").mkdir(parents=True)
    source = Path(market.__file__).read_text()
    (folder / "__init__.py").write_text(source)
    old, new = folder / "__pycache__" / "old.nbi", folder / "__pycache__" / "new.nbc"
    old.touch()
    new.touch()
    os.utime(folder / "__init__.py", (2_000, 2_000))
    os.utime(old, (1_000, 1_000))
    os.utime(new, (3_000, 3_000))
    subprocess.run([sys.executable, "-c", "import market"], cwd=tmp_path, check=True)
    assert not old.exists()
    assert new.exists()
