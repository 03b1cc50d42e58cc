"""The simulated market: its flow against its laws, frames against a dict book, prices against stylised facts."""

import gzip
import json
import re
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError
from synth_pipeline.market import engine
from synth_pipeline.market.calibration import (
    PATH,
    calibration,
    embedded_market,
    restored,
    stored,
)
from synth_pipeline.market.efficient_price import STEP_NS, Driven, EfficientLaw, steps
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.parameters import Parameters
from synth_pipeline.market.simulation import DepthStream, Simulation, simulate
from synth_pipeline.market.tape import rewind
from synth_pipeline.rng import per_path, stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from tests.naive_market import check_totals, depth

NOON_NS = 20_000 * NS_PER_DAY + NS_PER_DAY // 2
DEFAULTS = Parameters()
STEPS_PER_S = NS_PER_SECOND // STEP_NS
CALM = EfficientLaw(1.0, np.ones(1), np.zeros(1), np.ones(1), 0.0, 1e-3)


# ---- pace and news


def take(law: EfficientLaw, seconds: int, seed: int = 0) -> np.ndarray:
    """Pace and news of each step, shape (steps, 2)."""
    found = islice(steps(law, NOON_NS, stream(seed, "market", "pace")), int(seconds * STEPS_PER_S))
    return np.array(list(found))


def test_the_pace_has_the_stated_mean_variance_and_half_life():
    law = CALM._replace(level=0.5, variances=np.array([0.4]), half_lives_s=np.array([5.0]))
    pace = take(law, 15_000)[:, 0]
    logs = np.log(pace)
    assert pace.mean() == pytest.approx(0.5, rel=0.1)
    assert logs.var() == pytest.approx(0.4, rel=0.2)
    assert autocorrelation(logs, int(5 * STEPS_PER_S)) == pytest.approx(0.5, abs=0.08)


def test_the_pace_follows_the_day():
    hours = np.array([1.5, 0.5] * 12)
    pace = take(CALM._replace(day=hours), 7200)[:, 0]
    assert set(pace[: 3600 * STEPS_PER_S]) == {1.5}
    assert set(pace[3600 * STEPS_PER_S :]) == {0.5}


def test_news_is_as_frequent_and_as_large_as_stated_and_learnt_within_seconds():
    law, seconds = CALM._replace(news_per_day=2000.0, news_scale=2e-3), 20_000
    learnt = take(law, seconds)[:, 1]
    # Half of what is left is learnt in five seconds, so more than the rest of what was known before is new.
    share = 1 - 0.5 ** (1 / (5 * STEPS_PER_S))
    jumps = (learnt[1:] - (1 - share) * learnt[:-1]) / share
    jumps = jumps[np.abs(jumps) > 1e-5]
    assert jumps.size / seconds * 86_400 == pytest.approx(2000, rel=0.2)
    assert np.abs(jumps).mean() == pytest.approx(2e-3, rel=0.2)
    assert not take(CALM, 3600)[:, 1].any()


def test_the_mid_takes_in_the_news():
    law = CALM._replace(news_per_day=3000.0, news_scale=3e-3)
    market = driven(law, per_path(stream(3, "market"), 2))
    news = sum(each for _, each in islice(steps(law, NOON_NS, per_path(stream(3, "market"), 2)[1]), 120 * STEPS_PER_S))
    drain(market, 120)
    sides = market.market.book.sides
    moved = np.log(0.5 * (sides.best[0] + sides.best[1]) / 10_000.5)
    assert abs(news) > 0.005
    # By itself the flow of round numbers moves the mid by a few ticks of 1e-4.
    assert moved == pytest.approx(news, abs=0.002)


def driven(law: EfficientLaw, rngs) -> Driven:
    return Driven(ZeroIntelligence.example(), law, NOON_NS, 0.01, rngs)


def drain(market: Driven, seconds: int) -> int:
    """Run on and return how many events there were."""
    events, done = 0, False
    until_ns = int(market.market.clock.now_ns[0]) + seconds * NS_PER_SECOND
    while not done:
        done = market.advance(until_ns)
        events += int(market.market.clock.events[0])
        rewind(market.market)
    return events


def test_twice_the_pace_makes_twice_the_events():
    once, twice = (drain(driven(CALM._replace(level=level), per_path(stream(0), 2)), 400) for level in (1.0, 2.0))
    assert twice / once == pytest.approx(2.0, rel=0.1)


def test_how_the_time_is_cut_makes_no_difference():
    law = calibration().efficient
    whole, parts = (driven(law, per_path(stream(1), 2)) for _ in range(2))
    drain(whole, 6)
    for millisecond in (1, 249, 250, 251, 1000, 3999, 6000):
        assert parts.advance(NOON_NS + millisecond * 1_000_000)
        rewind(parts.market)
    assert [depth(whole.market.book, side, 50) for side in range(2)] == [
        depth(parts.market.book, side, 50) for side in range(2)
    ]


# ---- calibration


def test_the_calibration_says_where_it_is_from():
    document = json.loads(PATH.read_text())
    assert PATH.stat().st_size < 200_000
    provenance = document["provenance"]
    assert {"captures", "bars", "files_sha256", "code_version", "date", "estimators", "made_by"} <= set(provenance)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in provenance["files_sha256"].values())
    estimates = document["flow"]["estimates"].values()
    assert sum(error is not None and 0 < error < value for value, error in estimates) > 0.9 * len(estimates)
    efficient = document["efficient_price"]
    for name in ("level", "news_per_day", "news_scale"):
        assert 0 < efficient[f"{name}_se"] < efficient[name]
    assert np.mean(efficient["day"]) == pytest.approx(1.0, abs=1e-3)


def test_the_calibration_reads_back_what_was_written():
    known = calibration()
    again = restored(json.loads(json.dumps(stored(known.law))), known.reach)
    for own, other in zip(leaves(known.law), leaves(again), strict=True):
        assert own.dtype == other.dtype
        np.testing.assert_array_equal(own, other)


def leaves(law) -> list[np.ndarray]:
    return [leaf for each in law for leaf in (leaves(each) if isinstance(each, tuple) else [np.asarray(each)])]


@pytest.mark.parametrize(
    "changes",
    [{}, {"pace": 8.0}, {"start_price": 3_000.0}, {"tick_size": Decimal("0.01"), "lot_size": Decimal("0.0001")}],
    ids=["default", "a busy day", "few ticks", "fine units"],
)
def test_the_market_holds(changes):
    parameters = replace(DEFAULTS, **changes)
    market = embedded_market(parameters, NOON_NS, stream(0, "market"))
    assert drain(market, 60) > 1000
    check_totals(market.market.book)
    assert market.market.book.sides.orders[:2].min() > 100


def test_parameters_that_make_no_market_are_named():
    for changes, message in [
        ({"pace": -1.0}, "pace is -1.0: it must be zero or more"),
        ({"pace": 0.0}, "pace is 0.0: it must be positive"),
        ({"start_price": float("nan")}, "start_price is nan"),
        ({"snapshot_levels": 0}, "snapshot_levels is 0: it must be positive"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            replace(DEFAULTS, **changes)
    with pytest.raises(InputError, match="choose a tick_size that makes it at least"):
        embedded_market(replace(DEFAULTS, start_price=1.0), NOON_NS, stream(0))


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
        changed = False
        for side, levels in zip(self.sides, (diff["b"], diff["a"]), strict=True):
            for price, quantity in self._levels(levels).items():
                changed |= side.get(price, 0) != quantity
                side[price] = quantity
                if not quantity:
                    del side[price]
        return changed

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
    """Frames of a minute around midnight UTC, parsed."""
    start_ns = 20_000 * NS_PER_DAY - 30 * NS_PER_SECOND
    frames = simulate("BTCUSDT", start_ns, start_ns + 60 * NS_PER_SECOND, rng=stream(0, "market", "midnight"))
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
    assert matched > 800
    assert equal > 0, "some changes of the book are of its top"


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
    depth_stream.add(8, 9, [(engine.BID, 500, 4, 6)])
    assert depth_stream.due(99) is None
    depth_stream.add(12, 12, [(engine.BID, 500, 6, 4)])
    assert depth_stream.due(100) is None, "nothing differs"
    depth_stream.add(15, 15, [(engine.ASK, 502, 0, 3), (engine.ASK, 501, 2, 0)])
    assert depth_stream.due(199) is None, "the clock has not ticked again"
    # A snapshot with id 9 to 11 showed 6 lots at 500, so the diff must say that 4 are left.
    assert depth_stream.due(350) == (200, 8, 15, 7, ([(500, 4)], [(501, 0), (502, 3)]))
    depth_stream.add(20, 20, [(engine.BID, 500, 4, 0)])
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
    parameters = replace(DEFAULTS, start_price=2500.0, tick_size=Decimal("0.005"), lot_size=Decimal(1))
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
    assert peak_bytes(120) < peak_bytes(40) + 2_000_000


def test_progress_counts_to_the_end():
    seen = []

    def report(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    end_ns = NOON_NS + 25 * NS_PER_SECOND
    list(simulate("BTCUSDT", NOON_NS, end_ns, rng=stream(0), progress=report))
    assert seen == [(10, 25), (20, 25), (25, 25)]


# ---- stylised facts


SECONDS = 600


class Heard:
    """What frames say: counts of kinds, the touch in ticks, market orders, changes, sizes by level."""

    def __init__(self, frames) -> None:
        self.kinds: list[str] = []
        received, touch, orders, changed, self.sizes = [], [], set(), [], []
        parsed = parse(frames)
        for received_ns, kind, data in parsed:
            self.kinds.append(kind)
            received.append(received_ns)
            if kind == "bookTicker":
                touch.append((received_ns, round(float(data["b"]) * 10), round(float(data["a"]) * 10)))
            elif kind == "trade":
                orders.add((data["T"], data["m"]))
            elif kind == "depthUpdate":
                changed.append(len(data["b"]) + len(data["a"]))
        for number, (book, _, _) in enumerate(replay(parsed)):
            if number % 200 == 0:
                self.sizes += [[float(size) for _, size in side] for side in book.top(12)]
        self.times = (np.array(received) - received[0]) / NS_PER_SECOND
        at = np.array([each for each, *_ in touch])
        grid = received[0] + np.arange(10, self.times[-1], 0.5) * NS_PER_SECOND
        self.touch = np.array(touch)[np.searchsorted(at, grid, side="right") - 1, 1:]
        self.spread = self.touch[:, 1] - self.touch[:, 0]
        self.returns = np.diff(np.log(self.touch.mean(axis=1)))
        self.changed = np.array(changed)
        self.orders = np.array(sorted(orders)) / [1000, 1]
        self.fano = self.of_orders(1.0)

    def of_orders(self, width_s: float) -> float:
        """Variance over mean of how many market orders there are in a bin."""
        counts = np.bincount(((self.orders[:, 0] - self.orders[0, 0]) / width_s).astype(int))
        return float(counts.var() / counts.mean())


@pytest.fixture(scope="module")
def heard():
    return Heard(simulate("BTCUSDT", NOON_NS, NOON_NS + SECONDS * NS_PER_SECOND, rng=stream(0, "hour")))


def autocorrelation(values: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def is_real(found: Heard) -> dict[str, bool]:
    """Which of the facts that the real captures share hold; the bands are wider than they are apart."""
    size, returns = np.abs(found.returns), found.returns
    of_size = [autocorrelation(size, lag) for lag in range(1, 21)]
    by_level = np.mean([each for each in found.sizes if len(each) == 12], axis=0)
    per_second = np.bincount(found.times.astype(int))
    return {
        "the spread is one tick nearly always": np.mean(found.spread == 1) > 0.85,
        "and now and then many": found.spread.max() > 10,
        "most lots stand at the touch": by_level[0] > 2 * by_level[1:].mean(),
        "returns have tails": np.mean((returns / returns.std()) ** 4) > 6,
        "half or more are zero": 0.4 < np.mean(returns == 0) < 0.95,
        "they have no trend": abs(autocorrelation(returns, 1)) < 0.15,
        "their size clusters": float(np.mean(of_size)) > 0.005 and min(of_size[:2]) > 0.02,
        "market orders cluster": found.fano > 4 and found.of_orders(10.0) > 8,
        "so do messages": per_second.var() > 20 * per_second.mean(),
        "diffs differ in length": np.quantile(found.changed, 0.9) > 4 * np.quantile(found.changed, 0.1),
    }


def test_the_market_is_real(heard):
    assert [fact for fact, holds in is_real(heard).items() if not holds] == []


def test_it_has_the_announced_pace(heard):
    seconds = heard.times[-1]
    assert 20 < len(heard.kinds) / seconds < 400
    assert 1 < len(heard.orders) / seconds < 30
    assert 15 < heard.kinds.count("depthUpdate") / seconds <= 20
    annual = heard.returns.std() * np.sqrt(2 * 365 * 86_400)
    assert 0.2 < annual < 2.0


def test_real_captures_are_real(real):
    def frames():
        with gzip.open(real("binance_usdm_btcusdt_20240808.gz"), "rb") as lines:
            for line in lines:
                received, _, payload = line.rstrip().partition(b" ")
                yield int(received), payload

    assert [fact for fact, holds in is_real(Heard(frames())).items() if not holds] == []


def test_constant_rates_are_not(monkeypatch):
    """Zero intelligence at an even pace, without news."""

    def constant(parameters, start_ns, rng):
        return driven(CALM, per_path(rng, 2))

    monkeypatch.setattr("synth_pipeline.market.simulation.embedded_market", constant)
    parameters = replace(DEFAULTS, tick_size=Decimal("0.1"))
    found = Heard(
        simulate("BTCUSDT", NOON_NS, NOON_NS + 600 * NS_PER_SECOND, rng=stream(0, "zero"), parameters=parameters)
    )
    assert sum(not holds for holds in is_real(found).values()) >= 5


def test_the_afternoon_is_busier_than_the_night():
    def events(hour: int) -> int:
        law = calibration().efficient._replace(variances=np.zeros(1), half_lives_s=np.ones(1))
        start_ns = 20_000 * NS_PER_DAY + hour * 3600 * NS_PER_SECOND
        return drain(Driven(ZeroIntelligence.example(), law, start_ns, 0.01, per_path(stream(0), 2)), 200)

    assert 1.6 < events(14) / events(4) < 2.6
