"""Reference strategies: quotes by their formula, schedules kept, fill rates and impact against plain measurement."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, SynthError, TooLittleDataError
from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.latency import Latency
from synth_pipeline.market.session import REFUSALS, Session
from synth_pipeline.market.strategies import impact as impacts
from synth_pipeline.market.strategies import play, wealth_of
from synth_pipeline.market.strategies.fill_rates import FillRates, measure
from synth_pipeline.market.strategies.impact import impact
from synth_pipeline.market.strategies.maker import MarketMaker, Quoting
from synth_pipeline.market.strategies.taker import Pov, Twap
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND as S

MS = S // 1000
FLOW = ZeroIntelligence.example()
LATENCY = Latency.of(2 * MS, 0.4)
RATES = FillRates(1.0, 0.1, 1.5, 0.1, 0.5, np.array([1.0]), np.array([0.2]))


def session_of(seed: int = 1) -> Session:
    return Session(FLOW.start(0, rng=stream(seed, "run")))


# --- fill rates


def test_fill_rates_are_those_of_quotes_that_nobody_stands_before() -> None:
    found = measure(FLOW, rng=stream(1, "rates"), windows=600, window_s=1.0)
    # By plain counting on the same run: in which windows did buyers get to `distance` above the mid, sellers below it?
    session = Session(FLOW.start(0, rng=stream(1, "rates")))
    watcher = session.join("watcher")
    hits, waited = np.zeros(len(found.distances)), np.zeros(len(found.distances))
    for second in range(600):
        mid = watcher.mid
        assert mid is not None
        session.step((second + 1) * S)
        for taker, sign in ((BID, 1), (ASK, -1)):
            for which, distance in enumerate(found.distances):
                times = [
                    row["time_ns"] / S - second
                    for row in watcher.trades
                    if row["taker_side"] == taker and sign * (row["price"] - mid) >= distance
                ]
                hits[which] += bool(times)
                waited[which] += times[0] if times else 1.0
    np.testing.assert_allclose(found.rates, hits / waited)
    weights = hits / hits.sum()
    x, y = found.distances, np.log(hits / waited)
    slope = (weights * (x - weights @ x) * (y - weights @ y)).sum() / (weights * (x - weights @ x) ** 2).sum()
    assert found.decay == pytest.approx(-slope)
    assert found.rate == pytest.approx(math.exp(weights @ y - slope * (weights @ x)))
    assert 0 < found.decay_se < found.decay
    assert found.volatility > 0


def test_errors_of_fill_rates_cover_what_other_seeds_give() -> None:
    found = [measure(FLOW, rng=stream(seed, "rates"), windows=400, window_s=1.0) for seed in range(12)]
    decays, errors = np.array([each.decay for each in found]), np.array([each.decay_se for each in found])
    assert 0.4 < decays.std(ddof=1) / errors.mean() < 2.5


def test_too_few_windows_are_named() -> None:
    with pytest.raises(InputError, match="at least 20"):
        measure(FLOW, rng=stream(1, "rates"), windows=5)
    with pytest.raises(TooLittleDataError, match="longer windows"):
        measure(FLOW, rng=stream(1, "rates"), windows=20)


# --- the market maker


@given(risk=st.floats(1e-3, 10.0), inventory=st.integers(-20, 20), volatility=st.floats(0.0, 50.0))
def test_quotes_follow_the_formula_and_its_symmetries(risk: float, inventory: int, volatility: float) -> None:
    rates = RATES._replace(volatility=volatility)
    quoting = Quoting(rates, risk)
    gamma, k = risk * rates.decay, rates.decay
    base = math.log(1 + gamma / k) / gamma
    s = math.sqrt(volatility**2 * gamma / (2 * k * rates.rate) * (1 + gamma / k) ** (1 + k / gamma))
    bid, ask = quoting.distances(inventory)
    assert bid == pytest.approx(base + (2 * inventory + 1) / 2 * s, rel=1e-9, abs=1e-9)
    assert ask == pytest.approx(base - (2 * inventory - 1) / 2 * s, rel=1e-9, abs=1e-9)
    assert quoting.distances(-inventory) == pytest.approx((ask, bid))


def test_quotes_hardly_averse_to_risk_are_the_monopolists() -> None:
    quoting = Quoting(RATES, 1e-9)
    assert quoting.distances(5) == pytest.approx((1 / RATES.decay, 1 / RATES.decay), abs=1e-3)


def test_the_maker_earns_the_spread_and_holds_no_more_than_it_may() -> None:
    session = session_of(2)
    who = session.join("maker", LATENCY, rng=stream(2, "latency"))
    maker = MarketMaker(who, Quoting(measure(FLOW, rng=stream(1, "rates"), windows=3000)), lots=2, most=10)
    fills = 0
    for _ in range(2000):
        before = len(who.orders)
        maker.act(session.now_ns)
        assert len(who.orders) <= max(before, 2)
        session.step(session.now_ns + 100 * MS)
        assert abs(session.settled(who)[0]) <= 10
        assert all(fill.is_maker for fill in who.fills)
        fills += len(who.fills)
    mid = who.mid
    assert mid is not None
    assert fills > 30
    assert who.cash + who.position * mid > 0


def test_inventory_pushes_quotes_to_the_other_side() -> None:
    session = session_of()
    who = session.join("maker")
    maker = MarketMaker(who, Quoting(RATES._replace(volatility=3.0)), lots=1, most=50)
    maker.act(0)
    session.step(S)
    flat = {order.side: order.price for order in who.orders.values()}
    mid = who.mid
    who.submit(BID, None, 8, kind="market")
    session.step(S)
    maker.act(S)
    session.step(S)
    assert who.position >= 8
    long = {order.side: order.price for order in who.orders.values()}
    assert mid is not None
    assert mid - long[BID] > mid - flat[BID]
    assert long[ASK] <= flat[ASK]


# --- takers


def test_twap_sends_equal_slices_at_equal_times() -> None:
    session = session_of()
    taker = session.join("taker")
    twap = Twap(taker, ASK, 50, start_ns=S, end_ns=6 * S, slices=5)
    found = []
    for _ in range(70):
        twap.act(session.now_ns)
        session.step(session.now_ns + 100 * MS)
        found += taker.fills
    times = sorted({fill.time_ns for fill in found})
    assert times == [S, 2 * S, 3 * S, 4 * S, 5 * S]
    assert {sum(fill.lots for fill in found if fill.time_ns == at) for at in times} == {10}
    twap.act(session.now_ns)
    assert twap.is_done
    assert taker.position == -50


def test_what_a_slice_does_not_get_goes_with_the_next() -> None:
    run = FLOW.start(0, rng=stream(1, "run"))
    run.market.book.rules.largest[0] = 60
    session = Session(run)
    taker = session.join("taker", LATENCY, rng=stream(1, "latency"))
    twap = Twap(taker, BID, 90, start_ns=0, end_ns=S, slices=1)
    told = []
    for _ in range(4):
        twap.act(session.now_ns)
        session.step(session.now_ns + 100 * MS)
        told += [(report.event, report.lots) for report in taker.reports if report.event == "refused"]
    # Too large for the rules, and asked for again and again, but never twice at once.
    assert told == [("refused", 90)] * 4
    run.market.book.rules.largest[0] = 10**6
    for _ in range(2):
        twap.act(session.now_ns)
        session.step(session.now_ns + 100 * MS)
    assert taker.position == 90


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_pov_keeps_its_share_of_the_volume(share: float) -> None:
    session = session_of()
    taker = session.join("taker", LATENCY, rng=stream(1, "latency"))
    pov, volume = Pov(taker, BID if share == 0.1 else ASK, 60, share=share), 0
    while not pov.is_done and session.now_ns < 400 * S:
        pov.act(session.now_ns)
        session.step(session.now_ns + 100 * MS)
        volume += int(taker.trades["lots"].sum())
        if pov.filled > 20:
            assert pov.filled / volume == pytest.approx(share, abs=0.6 * share)
    assert pov.is_done
    assert abs(taker.position) == 60


def test_parent_orders_that_are_none_are_named() -> None:
    taker = session_of().join("taker")
    for make, match in (
        (lambda: Twap(taker, BID, 0, start_ns=0, end_ns=1, slices=1), "0 lots"),
        (lambda: Twap(taker, BID, 5, start_ns=1, end_ns=1, slices=1), "slices from 1 to 1"),
        (lambda: Pov(taker, BID, 5, share=1.0), "share is 1.0"),
        (lambda: MarketMaker(taker, Quoting(RATES), lots=0), "lots=0"),
        (lambda: Quoting(RATES, 0.0), "risk_aversion is 0.0"),
        (lambda: play(session_of(), [], S, step_ns=0), "step_ns is 0"),
    ):
        with pytest.raises(InputError, match=match):
            make()


def test_played_wealth_is_that_of_the_participants() -> None:
    session = session_of(3)
    makers = [MarketMaker(session.join(name), Quoting(RATES), lots=2) for name in ("a", "b")]
    rows = play(session, makers, 20 * S + 1, step_ns=300 * MS)
    assert all(len(each) == 67 and each["time_ns"][-1] == 20 * S + 1 for each in rows)
    for maker, each in zip(makers, rows, strict=True):
        who = maker.participant
        assert (each["position"][-1], each["cash"][-1]) == (who.position, who.cash)
        assert wealth_of(each)[-1] == who.cash + who.position * (who.mid or 0)


# --- impact


def test_impact_grows_with_size_and_is_nothing_before_the_order() -> None:
    found = impact(FLOW, [100, 10, 40, 10], rng=stream(1, "impact"), runs=12, execution_s=5.0, after_s=5.0, slices=5)
    assert found.sizes.tolist() == [10, 40, 100]
    assert found.path.shape == found.path_se.shape == (3, 40)
    assert found.peak[0] < found.peak[2]
    assert found.peak[2] > 3 * found.peak_se[2]
    assert found.exponent is not None
    assert found.exponent_se is not None
    assert found.exponent > 0
    assert (found.filled == 1).all()
    np.testing.assert_allclose(found.share / found.share[0], found.sizes / found.sizes[0])
    rows = found.table()
    assert [row["lots"] for row in rows] == [10, 40, 100]
    assert [row["temporary"] for row in rows] == pytest.approx((found.peak - found.permanent).tolist())
    again = impact(FLOW, [40], rng=stream(1, "impact"), runs=12, execution_s=5.0, after_s=5.0, slices=5)
    assert np.array_equal(again.path[0], found.path[1])
    assert again.exponent is None
    assert "measure 3 or more" in again.note


@settings(max_examples=15)
@given(delta=st.floats(0.2, 1.5), scale=st.floats(0.5, 20.0), seed=st.integers(0, 100))
def test_the_exponent_of_a_power_law_is_found(delta: float, scale: float, seed: int) -> None:
    lots = np.array([10, 20, 50, 100, 200])
    law = scale * (lots / lots[-1]) ** delta
    # One shock a run to all sizes alike, as common seeds make it, and a small one of each.
    rng = stream(seed, "law")
    peaks = law * (1 + 0.05 * rng.standard_normal((30, 1)) + 0.05 * rng.standard_normal((30, 5)))
    exponent, error, note = impacts._exponent(lots, peaks)
    assert exponent is not None
    assert error is not None
    assert abs(exponent - delta) < 5 * error + 0.01
    assert error < 0.1
    assert note == ""


def test_impact_that_noise_hides_has_no_exponent() -> None:
    peaks = stream(1, "noise").standard_normal((20, 3))
    peaks -= peaks.mean(axis=0)
    exponent, error, note = impacts._exponent(np.array([1, 2, 3]), peaks)
    assert exponent is error is None
    assert "does not stand out" in note


def test_impact_that_cannot_be_measured_is_named() -> None:
    for how in ({"runs": 3}, {"sizes": []}, {"sizes": [0, 5]}, {"execution_s": 0.0}, {"slices": 0}):
        with pytest.raises(InputError):
            impact(FLOW, **({"sizes": [5], "rng": stream(1, "x")} | how))  # type: ignore[arg-type]
    with pytest.raises(SynthError, match=r"empti|no ask is left"):
        impact(FLOW, [10**6], rng=stream(1, "x"), runs=4)


# --- the documentation

EVENTS = ("accepted", "refused", "filled", "modified", "cancelled", "expired")
TEXT = (Path(__file__).parents[1] / "docs" / "market-sessions.md").read_text(encoding="utf-8")


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = TEXT.split("```python\n")[1].split("```")[0]
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert any("filled" in line for line in lines)
    assert len(lines) >= 2


def test_the_documentation_has_every_reason_and_event() -> None:
    for word in (*REFUSALS.values(), "gone", "halted", *EVENTS):
        assert f"`{word}`" in TEXT
