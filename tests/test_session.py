"""Sessions: exact order of events against a naive twin, whatever the steps, the flow, and who else is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.market import engine
from synth_pipeline.market.engine import ASK, BID
from synth_pipeline.market.flows import Halt, Run
from synth_pipeline.market.flows.calibrated import Calibrated
from synth_pipeline.market.flows.recovery import truth_of
from synth_pipeline.market.latency import Delay, Latency
from synth_pipeline.market.participant import OpenOrder, Participant, Report
from synth_pipeline.market.scenarios import staging
from synth_pipeline.market.session import Session
from synth_pipeline.market.tape import Market
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND as S
from tests.naive_session import Action, NaiveSession

MS = S // 1000
END = 3 * S
FLOWS = ("zero_intelligence", "queue_reactive", "hawkes")
JITTERED = Latency(Delay(2 * MS, 0.5), Delay(3 * MS, 0.5), Delay(5 * MS, 0.8))
LATENCIES = (JITTERED, Latency(), Latency.of(20 * MS))


@cache
def flow_of(name: str) -> Calibrated[Any]:
    return truth_of(name, seconds=60.0)


def run_of(name: str = "zero_intelligence", seed: int = 1) -> Run:
    return flow_of(name).start(0, rng=stream(seed, "run"))


def rng_of(who: int) -> np.random.Generator:
    return stream(who, "latency")


def script_of(seed: int, number: int = 60, people: int = 3) -> list[Action]:
    """Return actions of several participants around the price that flows open at, in order of time."""
    rng, found, sent = stream(seed, "script"), list[Action](), [0] * people
    for time_ns in np.sort(rng.integers(0, END // (100 * MS), number) * 100 * MS).tolist():
        who, side, lots = int(rng.integers(people)), int(rng.integers(2)), int(rng.integers(1, 30))
        price = int(rng.integers(9_994, 10_008))
        what = str(rng.choice(["submit", "submit", "submit", "cancel", "modify"])) if sent[who] else "submit"
        if what != "submit":
            order, lots = int(rng.integers(1, sent[who] + 1)), lots if what == "modify" else 0
            found.append(Action(time_ns, who, what, order, price=price, lots=lots))
            continue
        sent[who] += 1
        hows: list[dict[str, object]] = [{}, {}, {"ioc": True}, {"post_only": True}, {"hidden": True}, {"display": 3}]
        how = hows[rng.integers(len(hows))]
        if rng.random() < 0.2:
            how, price = {"kind": "market"}, None  # type: ignore[assignment]
        found.append(Action(time_ns, who, "submit", sent[who], side, price, lots, how))
    # An action on an order needs its side only where it is submitted.
    sides = {(each.who, each.order): each.side for each in found if each.what == "submit"}
    for each in found:
        each.side = sides[each.who, each.order]
    return found


@dataclass
class Seen:
    """All that one participant saw, and had at the end."""

    reports: list[Report] = field(default_factory=list)
    trades: list[tuple[int, ...]] = field(default_factory=list)
    last: tuple[Any, ...] = ()


def send(who: Participant, action: Action) -> None:
    if action.what == "submit":
        assert who.submit(action.side, action.price, action.lots, **action.how) == action.order  # type: ignore[arg-type]
    elif action.what == "cancel":
        who.cancel(action.order)
    else:
        assert action.price is not None
        who.modify(action.order, action.price, action.lots)


def play(session: Session, people: list[Participant], script: list[Action], cuts: Iterable[int] = ()) -> list[Seen]:
    """Play a script, stepping to its times and to the cuts."""
    found = [Seen() for _ in people]
    for until_ns in sorted({*cuts, *(action.time_ns for action in script), END}):
        session.step(until_ns)
        for who, seen in zip(people, found, strict=True):
            seen.reports += who.reports
            seen.trades += [tuple(row) for row in who.trades.tolist()]
        for action in script:
            if action.time_ns == until_ns < END:
                send(people[action.who], action)
    for who, seen in zip(people, found, strict=True):
        bids, asks = who.book(10**4)
        settled, ahead = session.settled(who), session.queue_ahead(who)
        seen.last = (bids.tolist(), asks.tolist(), who.position, who.cash, dict(who.orders), settled, ahead)
    return found


def whole(
    name: str, script: list[Action], cuts: Iterable[int] = (), latencies: Iterable[Latency] = LATENCIES
) -> list[Seen]:
    session = Session(run_of(name))
    people = [session.join(f"p{who}", latency, rng=rng_of(who)) for who, latency in enumerate(latencies)]
    return play(session, people, script, cuts)


# --- the order of events


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("seed", range(3))
def test_everything_is_as_the_naive_twin_has_it(name: str, seed: int) -> None:
    script = script_of(seed)
    found = whole(name, script, range(0, END, 70 * MS))
    delays = [[latency.orders, latency.reports, latency.feed] for latency in LATENCIES]
    twin = NaiveSession(run_of(name), delays, [rng_of(who) for who in range(3)], script, END)
    assert sum(len(seen.reports) for seen in found) > 50
    for who, seen in enumerate(found):
        told = [(r.time_ns, r.order, r.event, r.lots, r.left) for r in seen.reports]
        assert told == twin.told(who, END)
        packets = twin.received(who, END)
        bids, asks, position, cash, orders, settled, ahead = seen.last
        assert [[tuple(row) for row in side] for side in (bids, asks)] == twin.view(packets)
        public = ("price", "lots", "taker_side")
        assert seen.trades == [(p.time_ns, *(t[key] for key in public)) for p in packets for t in p.trades]
        assert settled == twin.settled(who)
        fills = [r for r in seen.reports if r.event == "filled"]
        assert position == sum(r.lots * (1 - 2 * r.side) for r in fills)
        assert cash == -sum(r.lots * r.price * (1 - 2 * r.side) for r in fills)
        resting = {order: held[0] for (own, order), held in twin.orders.items() if own == who}
        assert ahead == {order: engine.queue_ahead(twin.run.market.book, each) for order, each in resting.items()}
    # Without latency a participant knows all that the exchange does.
    bids, asks, position, cash, orders, settled, ahead = found[1].last
    assert (position, cash) == settled
    assert set(orders) == set(ahead)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, END), max_size=60), name=st.sampled_from(FLOWS))
def test_nothing_depends_on_how_time_is_cut_into_steps(seed: int, cuts: list[int], name: str) -> None:
    script = script_of(seed, 25)
    assert whole(name, script, cuts) == whole(name, script)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(FLOWS))
def test_who_does_nothing_changes_nothing(seed: int, name: str) -> None:
    script = script_of(seed, 25, people=2)
    alone = whole(name, script, latencies=LATENCIES[:2])
    session = Session(run_of(name))
    idle = session.join("idle", JITTERED, rng=rng_of(7))
    people = [session.join(f"p{who}", LATENCIES[who], rng=rng_of(who)) for who in range(2)]
    assert play(session, people, script) == alone
    assert idle.position == idle.cash == 0
    assert not idle.reports


@pytest.mark.parametrize("name", FLOWS)
def test_a_session_in_which_nobody_acts_is_the_flow_alone(name: str) -> None:
    run = run_of(name)
    session = Session(run)
    session.join("idle", JITTERED, rng=rng_of(1))
    for until_ns in range(0, END + 1, 10 * MS):
        session.step(until_ns)
    alone = run_of(name)
    assert alone.advance(END)
    assert run.market.book.state.sequence[0] == alone.market.book.state.sequence[0]
    for side in (BID, ASK):
        assert np.array_equal(engine.depth(run.market.book, side, 10**4), engine.depth(alone.market.book, side, 10**4))


def test_what_is_sent_at_one_time_over_equal_links_comes_in_that_order_after_the_flow() -> None:
    session = Session(run_of())
    first, second = session.join("first"), session.join("second")
    session.step(S)
    price = int(first.book(1)[0][0, 0])
    late = second.submit(BID, price, 5)
    early = first.submit(BID, price, 7)
    session.step(S)
    ahead = first.book(1)[0][0, 1] - 12
    assert session.queue_ahead(second) == {late: ahead}
    assert session.queue_ahead(first) == {early: ahead + 5}
    assert [report.time_ns for report in (*first.reports, *second.reports)] == [S, S]


# --- conservation


@pytest.mark.parametrize("name", FLOWS)
def test_positions_and_cash_follow_from_trades_and_add_up(name: str) -> None:
    trades: list[np.ndarray] = []

    def keep(market: Market) -> None:
        trades.append(market.journal.trades[: market.journal.rows.trades[0]].copy())

    session, script = Session(run_of(name), on_tape=keep), script_of(11, 120)
    people = [session.join(f"p{who}", latency, rng=rng_of(who)) for who, latency in enumerate(LATENCIES)]
    found = play(session, people, script)
    done = np.concatenate(trades)
    assert done["lots"].sum() == sum(row[2] for row in found[1].trades)
    totals = np.zeros(2, dtype=np.int64)
    for owner in range(4):
        signs = 1 - 2 * done["taker_side"]
        bought = signs * ((done["taker_owner"] == owner).astype(int) - (done["maker_owner"] == owner)) * done["lots"]
        own = np.array([bought.sum(), -(bought * done["price"]).sum()])
        if owner:
            assert tuple(own) == found[owner - 1].last[5]
        totals += own
    assert not totals.any()
    assert any(seen.last[5][0] for seen in found)


def test_a_participant_changes_the_book_at_once_and_the_flow_from_then_on() -> None:
    quiet, loud = run_of(seed=5), run_of(seed=5)
    session = Session(loud)
    taker = session.join("taker")
    session.step(S)
    quiet.advance(S)
    before = quiet.market.book.sides.best.copy()
    assert np.array_equal(before, loud.market.book.sides.best)
    taker.submit(BID, None, 200, kind="market")
    session.step(S)
    assert taker.position == 200
    assert loud.market.book.sides.best[ASK] > before[ASK]
    assert loud.market.book.sides.best[BID] == before[BID]
    session.step(END)
    quiet.advance(END)
    assert not np.array_equal(loud.market.book.sides.lots, quiet.market.book.sides.lots)


# --- what is reported


def opened(latency: Latency | None = None, **rules: int) -> tuple[Session, Participant, int, int]:
    """Return a session after a second, one participant, best bid and ask."""
    run = run_of()
    for rule, value in rules.items():
        run.market.book.rules[rule][0] = value
    session = Session(run)
    who = session.join("who", latency, rng=rng_of(1))
    session.step(S)
    bids, asks = who.book(1)
    return session, who, int(bids[0, 0]), int(asks[0, 0])


def events(who: Participant) -> list[tuple[int, str, int, int, str]]:
    return [(r.order, r.event, r.lots, r.left, r.reason) for r in who.reports]


@pytest.mark.parametrize(
    ("price", "lots", "how", "reason"),
    [
        (10_000, 0, {}, "size"),
        (10_000, -3, {}, "size"),
        (10_000, 2**41, {}, "size"),
        (0, 4, {}, "price"),
        (10**9, 4, {}, "price"),
        (9_999, 4, {}, "tick"),
        (9_990, 5, {}, "lot"),
        (9_990, 4, {"ioc": True, "post_only": True}, "flags"),
        (9_990, 4, {"hidden": True, "display": 2}, "flags"),
        (9_990, 4, {"display": -2}, "display"),
        (10_100, 4, {"post_only": True}, "crosses"),
        (None, 3, {"kind": "market"}, "lot"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_reason(
    price: int | None, lots: int, how: dict[str, Any], reason: str
) -> None:
    session, who, *_ = opened(tick=10, lot=2)
    order = who.submit(BID, price, lots, **how)
    session.step(S)
    assert events(who) == [(order, "refused", lots, 0, reason)]
    assert not who.orders
    assert session.settled(who) == (0, 0)


def test_the_life_of_an_order_is_told() -> None:
    session, who, bid, ask = opened()
    order = who.submit(BID, bid - 3, 10, post_only=True)
    assert who.orders[order] == OpenOrder(BID, bid - 3, 10, is_accepted=False)
    session.step(S)
    assert who.orders[order] == OpenOrder(BID, bid - 3, 10, is_accepted=True)
    who.modify(order, bid - 4, 8)
    session.step(S)
    assert events(who) == [(order, "modified", 8, 8, "")]
    assert who.orders[order].price == bid - 4
    who.modify(order, ask + 2, 8)
    session.step(S)
    assert events(who) == [(order, "refused", 8, 8, "crosses")]
    assert who.orders[order] == OpenOrder(BID, bid - 4, 8, is_accepted=True)
    who.cancel(order)
    who.cancel(order)
    session.step(S)
    assert events(who) == [(order, "cancelled", 8, 0, ""), (order, "refused", 0, 0, "gone")]
    assert not who.orders


def test_takers_are_told_what_they_got_and_what_is_gone() -> None:
    session, who, _, ask = opened()
    there = int(who.book(1)[1][0, 1])
    ioc = who.submit(BID, ask, there + 4, ioc=True)
    session.step(S)
    assert sum(fill.lots for fill in who.fills) == there == who.position
    assert not any(fill.is_maker for fill in who.fills)
    assert events(who)[-1] == (ioc, "expired", 4, 0, "unfilled")
    deep = who.submit(BID, None, 10**6, kind="market")
    with pytest.raises(SynthError, match="no ask is left"):
        session.step(END)
    assert (deep, "expired") in [(report.order, report.event) for report in who.reports]
    with pytest.raises(SynthError, match="no ask is left"):
        session.step(END)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (engine.ALLOW, ["accepted", "filled", "filled"]),
        (engine.CANCEL_NEWEST, ["accepted", "expired"]),
        (engine.CANCEL_OLDEST, ["accepted", "expired"]),
        (engine.CANCEL_BOTH, ["accepted", "expired", "expired"]),
    ],
)
def test_trades_with_oneself_follow_the_rule_and_are_told(rule: int, told: list[str]) -> None:
    session, who, bid, ask = opened(self_trade=rule)
    assert ask - bid > 1 or who.submit(ASK, None, int(who.book(1)[0][0, 1]), kind="market")
    session.step(S)
    bid, ask = int(who.book(1)[0][0, 0]), int(who.book(1)[1][0, 0])
    before = session.settled(who)
    maker = who.submit(BID, bid + 1, 4, hidden=True)
    session.step(S)
    taker = who.submit(ASK, bid + 1, 4)
    session.step(S)
    assert [report.event for report in who.reports] == told
    assert session.settled(who) == before
    assert set(session.queue_ahead(who)) == (
        {taker} if rule == engine.CANCEL_OLDEST else {maker} if rule == 1 else set()
    )
    if rule != engine.ALLOW:
        assert {report.reason for report in who.reports[1:]} == {"self_trade"}


def test_reports_come_late_and_in_order() -> None:
    session, who, _, ask = opened(Latency(Delay(MS), Delay(10 * MS), Delay()))
    who.submit(BID, ask, 3, ioc=True)
    session.step(S + 5 * MS)
    assert who.position == 0
    assert not who.reports
    assert session.settled(who) == (3, -3 * ask)
    session.step(S + 11 * MS)
    assert [report.time_ns for report in who.reports] == [S + MS] * len(who.reports)
    assert (who.position, who.cash) == session.settled(who)


def test_a_late_feed_shows_the_book_as_it_was() -> None:
    shown: dict[int, list[Any]] = {}
    for delay in (0, 50 * MS):
        session = Session(run_of())
        who = session.join("who", Latency(feed=Delay(delay)))
        for until_ns in range(50 * MS, END, 50 * MS):
            session.step(until_ns)
            shown.setdefault(delay, []).append([side.tolist() for side in who.book(20)])
            assert who.seen_ns <= until_ns - delay
    assert shown[0][:-1] == shown[50 * MS][1:]


# --- what the venue does


def test_orders_that_the_price_band_leaves_behind_expire_at_that_moment() -> None:
    found = []
    for step_ns in (END, MS):
        run = run_of()
        # Above the middle half of the band, so that the band moves with the flow's first event.
        run.market.book.state.low[0] = 10_000 - 3_500
        session = Session(run)
        who, reports = session.join("who"), []
        who.submit(BID, 7_001, 5)
        who.submit(BID, 7_002, 5, hidden=True)
        for until_ns in range(step_ns, END + 1, step_ns):
            session.step(until_ns)
            reports += who.reports
        assert not who.orders
        assert [(report.event, report.reason) for report in reports[2:]] == [("expired", "venue")] * 2
        found.append(reports)
    assert found[0] == found[1]
    assert 0 < found[0][2].time_ns == found[0][3].time_ns < END


def test_orders_that_the_venue_puts_to_another_price_are_told() -> None:
    flow = staging.under(flow_of("zero_intelligence"), ["tick_size_change:at=1,times=5"])
    found = []
    for step_ns in (END, 10 * MS):
        session = Session(flow.start(0, rng=stream(1, "run")))
        who, reports = session.join("who"), []
        who.submit(BID, 9_987, 5)
        who.submit(ASK, 10_020, 5)
        for until_ns in range(step_ns, END + 1, step_ns):
            session.step(until_ns)
            reports += who.reports
        assert Report(S, 1, "modified", BID, 9_985, 5, 5, reason="venue") in reports
        assert [report.order for report in reports if report.reason == "venue"] == [1]
        assert who.orders[1].price == 9_985
        found.append(reports)
    assert found[0] == found[1]


def test_a_latency_spike_holds_for_all_links() -> None:
    flow = staging.under(flow_of("zero_intelligence"), ["latency_spike:at=1,for=0.5,by=0.2"])
    session = Session(flow.start(0, rng=stream(1, "run")))
    who = session.join("who")
    session.step(S + 100 * MS)
    assert who.seen_ns < S
    _, asks = who.book(1)
    who.submit(BID, int(asks[0, 0]) + 20, 3, ioc=True)
    session.step(S + 300 * MS)
    # It got there after 200 ms, and the answer takes as long again.
    assert session.settled(who)[0] == 3
    assert not who.reports
    session.step(S + 500 * MS)
    assert {report.time_ns for report in who.reports} == {S + 300 * MS}
    session.step(END)
    assert who.seen_ns > END - S


@pytest.mark.parametrize("rejects", [True, False])
def test_a_halted_venue_refuses_or_keeps_what_comes(rejects: bool) -> None:
    session, who, _, ask = opened()
    session.run.halts = (Halt(S, 2 * S, rejects, False),)
    who.submit(BID, ask - 5, 3)
    session.step(S + S // 2)
    assert events(who) == ([(1, "refused", 3, 0, "halted")] if rejects else [])
    session.step(2 * S)
    assert bool(who.orders) != rejects
    if not rejects:
        assert [report.time_ns for report in who.reports] == [2 * S]


def test_a_full_tape_is_emptied_within_a_step_and_loses_nothing() -> None:
    found = []
    for steps in (1, 40):
        drained: list[int] = []
        session = Session(run_of(), on_tape=lambda market, drained=drained: drained.append(int(market.clock.events[0])))
        who, trades = session.join("who", JITTERED, rng=rng_of(1)), []
        maker = session.join("maker")
        maker.submit(BID, 9_000, 10**6, display=10**5)
        for number in range(steps):
            session.step((number + 1) * 6000 * S // steps)
            trades += who.trades.tolist()
        found.append((trades, [side.tolist() for side in who.book(10**4)], sum(drained)))
        if steps == 1:
            assert len(drained) > 2
    assert found[0] == found[1]
    assert found[0][2] > 2**17


# --- what is no request


def test_what_makes_no_sense_is_named() -> None:
    session, who, bid, _ = opened()
    for bad, match in (
        (lambda: who.submit(2, bid, 1), "side is 2"),
        (lambda: who.submit(BID, None, 1), "price is None"),
        (lambda: who.submit(BID, bid, 1.5), "lots is 1.5"),  # type: ignore[arg-type]
        (lambda: who.submit(BID, 2**63, 1), "below 2\\^62"),
        (lambda: who.submit(BID, bid, 1, kind="market"), "a market order has no price"),
        (lambda: who.submit(BID, None, 1, kind="market", ioc=True), "a market order has no price"),
        (lambda: who.submit(BID, bid, 1, kind="stop"), "kind is 'stop'"),  # type: ignore[arg-type]
        (lambda: who.cancel(1), "has sent no order 1"),
        (lambda: who.modify(0, bid, 1), "has sent no order 0"),
        (lambda: session.step(S - 1), "cannot go back"),
        (lambda: session.join("who"), "is there already"),
        (lambda: session.join("other", Latency.of(5, 0.1)), "has no rng"),
    ):
        with pytest.raises(InputError, match=match):
            bad()
    session.step(S)
    assert not who.orders
