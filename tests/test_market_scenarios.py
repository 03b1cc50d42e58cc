"""Scenarios of a simulated market: laws of every scenario on every flow, and what each does, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import plugins
from synth_pipeline.errors import InputError, SynthError, UnknownNameError
from synth_pipeline.market import flows, scenarios
from synth_pipeline.market.engine import ASK, BID, limit
from synth_pipeline.market.flows import Run
from synth_pipeline.market.flows.calibrated import Calibrated
from synth_pipeline.market.flows.hawkes import Hawkes
from synth_pipeline.market.flows.recovery import truth_of
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.scenarios import Scenario
from synth_pipeline.market.scenarios.flash_crash import SELLER
from synth_pipeline.market.scenarios.measuring import Looks, look, resilience
from synth_pipeline.market.scenarios.staging import under
from synth_pipeline.market.session import Session
from synth_pipeline.market.tape import rewind
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import IntArray

S = NS_PER_SECOND
FLOWS = plugins.names(flows)
STRENGTHS = {
    "exchange_outage": ("for=4", "for=0"),
    "flash_crash": ("for=5,participation=0.5", "lots=0"),
    "latency_spike": ("for=4,by=2", "by=0"),
    "liquidity_drought": ("for=5,limits=0.7,lots=0.8,cancels=1.2", "limits=1,lots=1,cancels=1"),
    "one_sided_flow": ("for=5,takes=2,limits=0.8", "takes=1"),
    "tick_size_change": ("for=5,times=4", "times=1"),
}
"""Of every scenario, parameters with some strength and with none."""


@cache
def flow_of(name: str) -> Calibrated:
    """Return a flow of known parameters."""
    return Hawkes.example() if name == "hawkes" else truth_of(name, seconds=120.0)


def trace(run: Run, untils: Sequence[int]) -> IntArray:
    """Return the order events of a run that is advanced time by time: time, kind, id, side, price, lots."""
    found = []
    for until in untils:
        done = False
        while not done:
            done = run.advance(until)
            events = run.market.tape[: run.market.clock.events[0]]
            assert ((events.bid < events.ask) & (events.bid_lots > 0) & (events.ask_lots > 0)).all()
            times = np.repeat(events.time_ns, np.diff(events.event_rows, prepend=0))
            rows = run.market.journal.events[: times.size]
            found.append(np.column_stack((times, rows.kind, rows.order_id, rows.side, rows.price, rows.lots)))
            rewind(run.market)
    return np.concatenate(found)


def started(name: str, *texts: str, seed: int = 1) -> Run:
    return under(flow_of(name), texts).start(0, rng=stream(seed, "run"))


# --- as text


def test_every_scenario_is_listed_and_has_defaults() -> None:
    assert set(STRENGTHS) == set(plugins.names(scenarios))
    for name in STRENGTHS:
        assert not Scenario.parse(name).is_neutral
        assert Scenario.parse(f"{name}:{STRENGTHS[name][1]}").is_neutral
        assert plugins.headline(scenarios, name)


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_scenario_is_what_its_text_says(name: str) -> None:
    made = Scenario.parse(f"{name}:{STRENGTHS[name][0]},at=1.5m")
    assert made.at == 90.0
    assert Scenario.parse(str(made)) == made
    assert {each.name for each in fields(made)} >= {"at", "duration"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("flash_crush", "flash_crash"),
        ("flash_crash:speed=3", "no parameter 'speed': it has at, for, lots, participation, every"),
        ("flash_crash:lots", "'lots' of scenario 'flash_crash:lots' is not of the form key=value"),
        ("flash_crash:lots=1,lots=2", "'lots' .* stands twice"),
        ("flash_crash:lots=2.5", "cannot have lots=2.5: it must be a whole number"),
        ("flash_crash:participation=lots", "cannot have participation=lots: it must be a number"),
        ("flash_crash:participation=1.5", "cannot have participation=1.5: it must be at least 0 and at most 1"),
        ("flash_crash:participation=1", "lacks lots"),
        ("latency_spike:by=soon", "cannot have by=soon: it must be a time such as"),
        ("latency_spike:by=nan", "cannot have by=nan"),
        ("exchange_outage:orders=lose", "cannot have orders=lose: it must be one of queue, reject"),
        ("exchange_outage:for=1d,burst=1", "cannot have burst=1: it must be at least for / 10000"),
        ("tick_size_change:times=0", "cannot have times=0: it must be at least 1"),
        ("one_sided_flow:at=-1", "cannot have at=-1.0: it must be at least 0"),
    ],
)
def test_what_is_no_scenario_is_said_in_one_line(text: str, reason: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=reason) as caught:
        Scenario.parse(text)
    assert "\n" not in str(caught.value)


# --- laws of all scenarios on all flows


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("scenario", STRENGTHS)
def test_laws_of_a_run_under_a_scenario(name: str, scenario: str) -> None:
    text = f"{scenario}:at=3,{STRENGTHS[scenario][0]}"
    run = started(name, text)
    opened = [int(run.market.book.sides.lots[side]) for side in (BID, ASK)]
    whole = trace(run, [15 * S])
    assert (np.diff(whole[:, 0]) >= 0).all()
    # What was added and did not leave stands in the book: no lot is lost or made.
    for side in (BID, ASK):
        own = whole[whole[:, 3] == side]
        left = opened[side] + np.where(own[:, 1] == 1, own[:, 5], -own[:, 5]).sum()
        assert left == run.market.book.sides.lots[side]
    cuts = np.sort(stream(2, "cuts").integers(1, 15 * S, 30)).tolist()
    assert np.array_equal(trace(started(name, text), [*cuts, 3 * S, 8 * S, 15 * S]), whole)
    plain = trace(started(name), [15 * S])
    assert np.array_equal(whole[whole[:, 0] < 3 * S], plain[plain[:, 0] < 3 * S])
    assert np.array_equal(whole, plain) == (scenario == "latency_spike")


@pytest.mark.parametrize("name", FLOWS)
def test_without_strength_the_run_is_the_flows_own(name: str) -> None:
    neutral = [f"{scenario}:at=3,{none}" for scenario, (_, none) in STRENGTHS.items()]
    assert under(flow_of(name), neutral) is flow_of(name)


@settings(max_examples=6)
@given(
    texts=st.lists(
        st.sampled_from([f"{name}:{some}" for name, (some, _) in STRENGTHS.items()]), min_size=2, max_size=4
    ),
    ats=st.lists(st.integers(0, 8), min_size=4, max_size=4),
    cuts=st.lists(st.integers(1, 15 * S - 1), max_size=8),
)
def test_several_scenarios_act_together(texts: list[str], ats: list[int], cuts: list[int]) -> None:
    dated = [f"{text},at={at}" for text, at in zip(texts, ats, strict=False)]
    whole = trace(started("zero_intelligence", *dated), [15 * S])
    assert np.array_equal(trace(started("zero_intelligence", *dated), [*sorted(cuts), 15 * S]), whole)


def test_what_a_flow_has_besides_its_runs_is_still_there() -> None:
    flow = flow_of("zero_intelligence")
    staged = under(flow, ["liquidity_drought"])
    assert staged.opening is flow.opening
    assert staged.summary().keys() == flow.summary().keys()


def test_a_run_that_begins_later_finds_the_scenario_where_it_is() -> None:
    flow = flow_of("zero_intelligence")
    text = ["exchange_outage:at=10,for=10,orders=reject", "tick_size_change:at=5,times=5,for=20"]
    late = under(flow, text, origin_ns=0).start(12 * S, rng=stream(1, "run"))
    events = trace(late, [24 * S])
    assert set(events[events[:, 0] < 20 * S, 0].tolist()) <= {20 * S}
    assert late.market.book.sides.best[BID] % 5 == 0
    after = under(flow, text, origin_ns=0).start(30 * S, rng=stream(1, "run"))
    assert np.array_equal(trace(after, [40 * S]), trace(flow.start(30 * S, rng=stream(1, "run")), [40 * S]))


# --- what each does

BEFORE, LATE, AFTER = (10, 30), (60, 90), (150, 180)
"""Seconds: before a scenario of [30, 90), when it has lasted, when it is long over."""


@cache
def looks_of(name: str, *texts: str, seed: int = 1) -> Looks:
    return look(started(name, *texts, seed=seed), 180 * S, S // 2)


def means(name: str, column: str, *texts: str, seeds: int = 5) -> list[float]:
    """Return means of what looks show over the three times and several seeds."""
    found = []
    for seed in range(seeds):
        looks = looks_of(name, *texts, seed=seed)
        values = looks.bid_lots + looks.ask_lots if column == "depth" else getattr(looks, column)
        times = looks.time_ns / S
        found.append([values[(times > low) & (times <= high)].mean() for low, high in (BEFORE, LATE, AFTER)])
    return np.mean(found, axis=0).tolist()


def counted(name: str, side: int, kind: int, *texts: str, seeds: int = 5) -> list[int]:
    """Return how many order events of a kind there are on a side at the three times, over several seeds."""
    events = np.concatenate([trace(started(name, *texts, seed=seed), [180 * S]) for seed in range(seeds)])
    wanted = events[(events[:, 1] == kind) & (events[:, 3] == side), 0] / S
    return [int(((wanted > low) & (wanted <= high)).sum()) for low, high in (BEFORE, LATE, AFTER)]


@pytest.mark.parametrize("name", FLOWS)
def test_a_drought_widens_the_spread_and_thins_the_book_until_it_ends(name: str) -> None:
    mild, harsh = (
        f"liquidity_drought:at=30,for=60,{given}" for given in ("limits=0.8,cancels=1.1", "limits=0.6,cancels=1.3")
    )
    depths, spreads = (
        [means(name, column, *text) for text in ((), (mild,), (harsh,))] for column in ("depth", "spread")
    )
    assert depths[0][1] > 1.05 * depths[1][1] > 1.1 * depths[2][1]
    assert spreads[0][1] < spreads[1][1] < spreads[2][1]
    for each in (1, 2):
        assert depths[each][0] == depths[0][0]
        assert depths[each][2] == pytest.approx(depths[0][2], rel=0.25)
        assert spreads[each][2] < 0.5 * (spreads[0][2] + spreads[2][1])


def test_smaller_orders_alone_thin_the_book_in_proportion() -> None:
    # Nothing but limit orders and cancellations: orders rest as long as before, and are half as large.
    flow = ZeroIntelligence.example()
    flow._law = flow.law._replace(market_rate=1e-9)
    lots = []
    for texts in ([], ["liquidity_drought:limits=1,cancels=1,lots=0.5,for=1h"]):
        looks = look(under(flow, texts).start(0, rng=stream(1, "run")), 600 * S, 5 * S, levels=60)
        lots.append(float((looks.bid_lots + looks.ask_lots)[20:].mean()))
        flow = ZeroIntelligence.example()
        flow._law = flow.law._replace(market_rate=1e-9)
    # One lot does not become half of one: of sizes 1 … 12 the mean goes from 6.5 to 39.5 / 12.
    assert lots[1] / lots[0] == pytest.approx(39.5 / 78, rel=0.06)


@pytest.mark.parametrize("name", FLOWS)
def test_one_sided_flow_trades_as_much_more_on_one_side_and_presses_the_price(name: str) -> None:
    plain, mids = counted(name, BID, 4), {}
    for takes in (2, 4):
        text = f"one_sided_flow:at=30,for=60,takes={takes}"
        sold, bought = counted(name, BID, 4, text), counted(name, ASK, 4, text)
        # Fills, not orders, are counted, and they depend on what rests there.
        assert 0.7 * takes < sold[1] / plain[1] < 1.3 * takes
        assert 0.7 < bought[1] / counted(name, ASK, 4)[1] < 1.4
        assert sold[2] / plain[2] == pytest.approx(1.0, abs=0.5)
        mids[takes] = means(name, "mid", text)
    buying = means(name, "mid", "one_sided_flow:at=30,for=60,takes=4,side=buy")
    usual = means(name, "mid")
    assert mids[4][1] < mids[2][1] < usual[1] < buying[1]


@pytest.mark.parametrize("name", FLOWS)
def test_more_limit_orders_of_one_side_pile_up_there(name: str) -> None:
    text = "one_sided_flow:at=30,for=60,takes=1,limits=1.5"
    assert counted(name, ASK, 1, text)[1] / counted(name, ASK, 1)[1] == pytest.approx(1.5, rel=0.15)
    looks = [looks_of(name, text, seed=seed) for seed in range(5)]
    late = (looks[0].time_ns > 60 * S) & (looks[0].time_ns <= 90 * S)
    assert np.mean([each.ask_lots[late].mean() / each.bid_lots[late].mean() for each in looks]) > 1.15


def sale(name: str, text: str, seed: int = 1) -> tuple[int, int, int]:
    """Return lots of the seller, of all who trade while it sells, and of the seller's largest order."""
    run, sold, traded, largest = started(name, text, seed=seed), 0, 0, 0
    for tenth in range(1, 1000):
        assert run.advance(tenth * S // 10)
        trades = run.market.journal.trades[: run.market.journal.rows.trades[0]]
        own = int(trades.lots[trades.taker_owner == SELLER].sum())
        sold, largest = sold + own, max(largest, own)
        traded += int(trades.lots.sum()) if 300 < tenth <= 900 else 0
        rewind(run.market)
    return sold, traded, largest


@pytest.mark.parametrize("name", FLOWS)
def test_the_seller_sells_what_was_said(name: str) -> None:
    sold, _, largest = sale(name, "flash_crash:at=30,for=60,lots=120,participation=1")
    assert sold == 120
    assert largest <= 4  # evenly, but for what an order leaves to the next one
    for share in (0.2, 0.5):
        sold, traded, _ = sale(name, f"flash_crash:at=30,for=60,participation={share}")
        assert sold / traded == pytest.approx(share, abs=0.04)
    assert sale(name, "flash_crash:at=30,for=60,lots=10,participation=0.5")[0] == 10


@pytest.mark.parametrize("name", FLOWS)
def test_a_crash_is_the_deeper_the_larger_the_seller_and_the_book_refills(name: str) -> None:
    found = {}
    for share in (0.3, 0.7):
        text = f"flash_crash:at=30,for=60,participation={share}"
        found[share] = [resilience(looks_of(name, text, seed=seed), 30 * S, 90 * S) for seed in range(5)]
    plain = [resilience(looks_of(name, seed=seed), 30 * S, 90 * S) for seed in range(5)]
    falls = [np.mean([each.drawdown for each in some]) for some in (plain, found[0.3], found[0.7])]
    assert falls[0] < falls[2] > 1.2 * falls[1]
    refilled = means(name, "depth", "flash_crash:at=30,for=60,participation=0.7")[2] / means(name, "depth")[2]
    assert refilled == pytest.approx(1.0, abs=0.5)
    assert np.mean([each.widest_spread for each in found[0.7]]) > np.mean([each.widest_spread for each in plain])


def test_a_share_of_the_volume_counts_what_a_participant_trades() -> None:
    seen: list[IntArray] = []
    session = Session(
        started("zero_intelligence", "flash_crash:at=1,for=30,participation=0.3,every=0.5"),
        on_tape=lambda market: seen.append(
            np.array(market.journal.trades[["lots", "taker_owner"]][: market.journal.rows.trades[0]].tolist())
        ),
    )
    taker = session.join("taker")
    session.step(S)
    seen.clear()
    for step in range(11, 310):
        taker.submit(BID if step % 2 else ASK, None, 5, kind="market")  # the last that happens in a step
        session.step(step * S // 10)
    trades = np.concatenate([each for each in seen if each.size])
    sold = trades[trades[:, 1] == SELLER, 0].sum()
    others = trades[trades[:, 1] != SELLER, 0].sum()
    assert sold / (sold + others) == pytest.approx(0.3, abs=0.01)


def test_a_seller_leaves_a_market() -> None:
    run = started("zero_intelligence", "flash_crash:at=1,for=1,lots=100000,participation=1,every=0.01")
    with pytest.raises(SynthError, match=r"broke down at \d+ ns: (no bid is left|the mid has left)"):
        trace(run, [600 * S])
    assert run.now_ns > 1.05 * S


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("rule", ["queue", "reject"])
def test_an_outage_is_silent_and_then_makes_up_for_it_or_not(name: str, rule: str) -> None:
    text, burst, usual = f"exchange_outage:at=20,for=30,burst=5,orders={rule}", [], []
    for seed in range(5):
        run, plain = started(name, text, seed=seed), trace(started(name, seed=seed), [60 * S])[:, 0]
        times = trace(run, [60 * S])[:, 0]
        assert not ((times >= 20 * S) & (times < 50 * S)).any()
        assert run.halts == [flows.Halt(20 * S, 50 * S, rule == "reject", False)]
        burst.append(((times >= 50 * S) & (times < 55 * S)).sum())
        usual.append(((plain >= 20 * S) & (plain < 55 * S)).sum())
    expected = np.mean(usual) * (1.0 if rule == "queue" else 5 / 35)
    assert np.mean(burst) == pytest.approx(expected, rel=0.25)


def test_a_halted_venue_takes_no_orders_of_agents_either() -> None:
    run = started(
        "zero_intelligence", "exchange_outage:at=5,for=10", "flash_crash:at=2,for=20,lots=100,participation=1"
    )
    assert not ((events := trace(run, [30 * S]))[:, 0] // S == 7).any()
    assert len(events)
    gap = under(flow_of("zero_intelligence"), ["exchange_outage:feed=gap"]).start(0, rng=stream(1, "run")).halts[0]
    assert gap.is_gap


class Jump:
    """A fundamental price that jumps at 40 s."""

    def __init__(self, flow: Calibrated, ticks: int) -> None:
        mid = 0.5 * (flow.opening.levels[flow.opening.levels[:, 0] == BID, 1].max() + 1) * 2
        self.log_price = np.log(np.where(np.arange(200) < 40, mid, mid + ticks) * float(flow.opening.scale.tick_size))

    def piece(self, now_ns: int) -> tuple[int, int, np.ndarray]:  # noqa: ARG002 - all in one piece
        return 0, S, self.log_price


@pytest.mark.parametrize("name", FLOWS)
def test_a_fundamental_price_goes_on_in_an_outage(name: str) -> None:
    flow = flow_of(name)
    run = under(flow, ["exchange_outage:at=30,for=30"]).start(0, rng=stream(1, "run"), fundamental=Jump(flow, 25))
    looks = look(run, 80 * S, S)
    assert np.ptp(looks.mid[30:59]) == 0
    assert looks.mid[65:].mean() - looks.mid[20:59].mean() == pytest.approx(25, abs=2 * flow.opening.spread + 2)


@pytest.mark.parametrize("name", FLOWS)
def test_who_follows_a_price_does_so_at_the_pace_of_makers(name: str) -> None:
    flow = flow_of(name)
    assert Scenario.parse("liquidity_drought:limits=0.3").stretches(0)[0].pace.response.tolist() == [0.3]
    moved = []
    for pace in (1.0, 0.0):
        run = flow.start(0, rng=stream(1, "run"), fundamental=Jump(flow, 25))
        run.pace.response[:], run.pace.is_new[0] = pace, 1
        looks = look(run, 50 * S, S)
        moved.append(float(looks.mid[45:].mean() - looks.mid[20:39].mean()))
    assert moved[0] == pytest.approx(25, abs=2 * flow.opening.spread + 2)
    assert moved[1] < 15


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("rule", ["reprice", "cancel"])
def test_prices_lie_on_the_new_tick_and_later_on_the_old_one(name: str, rule: str) -> None:
    run = started(name, f"tick_size_change:at=10,for=20,times=5,orders={rule}")
    before = trace(run, [10 * S - 1])
    orders = run.market.book.orders
    rested = orders[orders.order_id > 0].copy()
    moment = trace(run, [10 * S])
    off = rested[rested.price % 5 != 0]
    gone = moment[moment[:, 1] == 3]
    assert sorted(gone[:, 2].tolist()) == sorted(off.order_id.tolist())
    assert (moment[:, 0] == 10 * S).all()
    added = moment[moment[:, 1] == 1]
    if rule == "cancel":
        assert not len(added)
    else:
        # The better price first, then the older order; to the next price away from the market.
        turn = sorted(off.tolist(), key=lambda each: (each[1], each[2] if each[1] else -each[2], each[0]))
        named = {
            each[0]: (each[1], each[2] // 5 * 5 if each[1] == BID else -(-each[2] // 5) * 5, each[3]) for each in turn
        }
        for side in (BID, ASK):
            own = added[added[:, 3] == side]
            assert own[:, 2].tolist() == [each[0] for each in turn if each[1] == side]
            assert [tuple(row) for row in own[:, 3:].tolist()] == [named[each] for each in own[:, 2].tolist()]
    during, after = trace(run, [30 * S - 1]), trace(run, [60 * S])
    assert (during[:, 4] % 5 == 0).all()
    assert len(during) > 0.3 * len(before)
    assert (after[after[:, 1] == 1, 4] % 5 != 0).any()


@pytest.mark.parametrize("name", FLOWS)
def test_on_a_coarse_tick_as_much_rests_as_on_a_fine_one(name: str) -> None:
    lots = []
    for texts in ((), ("tick_size_change:at=10,times=3",), ("tick_size_change:at=10,times=10",)):
        run, rested = started(name, *texts), []
        for second in range(60, 600, 10):
            while not run.advance(second * S):
                rewind(run.market)
            rested.append(int(run.market.book.sides.lots[:2].sum()))
        lots.append(np.mean(rested))
    assert 0.5 < lots[1] / lots[0] < 1.5
    assert 0.5 < lots[2] / lots[0] < 1.5


# --- latency, measuring, the book between calls


@given(
    times=st.lists(st.integers(0, 20), min_size=1, max_size=40),
    spikes=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 8), st.integers(0, 9)), min_size=1, max_size=3),
)
def test_messages_are_late_and_in_order(times: list[int], spikes: list[tuple[int, int, int]]) -> None:
    texts = [f"latency_spike:at={at},for={length},by={by}" for at, length, by in spikes]
    flow = under(_Still(), texts)
    run = flow.start(0, rng=stream(1, "run"))
    sent = np.sort(np.array(times)) * S
    arrived = run.published_ns(sent)
    expected = np.arange(0, 40 * 10 + 1) * S // 10
    for at, length, by in spikes:
        # Tenth by tenth: what arrives can not come before what came before it.
        late = [each + by * S if at * S <= each < (at + length) * S else each for each in range(0, 100 * S, S // 10)]
        end = (at + length) * S - 1 + by * S
        held, reached = [], 0
        for each, then in zip(range(0, 100 * S, S // 10), late, strict=True):
            reached = max(reached, then, end + 1 if each >= (at + length) * S else 0) if by else max(reached, then)
            held.append(reached)
        expected = np.array([held[each // (S // 10)] for each in expected])
    assert arrived.tolist() == expected[sent // (S // 10)].tolist()
    assert (np.diff(arrived) >= 0).all()
    assert (arrived >= sent).all()


class _Still(ZeroIntelligence):
    """A flow that need not be started anew for every example."""

    _run = ZeroIntelligence.example().start(0, rng=stream(1, "run"))

    def start(self, *_: object, **__: object) -> Run:  # type: ignore[override]
        return self._run


def test_resilience_of_looks_made_by_hand() -> None:
    mid = np.array([100, 100, 99, 95, 90, 92, 96, 97])
    looks = Looks(
        np.arange(1, 9) * S, mid - 1, mid + np.array([1, 1, 1, 3, 4, 1, 1, 1]),
        np.array([50, 50, 40, 20, 10, 30, 45, 50]), np.array([50, 50, 50, 50, 40, 50, 50, 50]),
    )  # fmt: skip
    found = resilience(looks, 2 * S, 5 * S)
    mids = 0.5 * (looks.bid + looks.ask)
    assert found.drawdown == pytest.approx((mids[2] - mids[4]) / mids[2])
    assert found.low_s == 3.0
    assert found.taken_back == pytest.approx((mids[7] - mids[4]) / (mids[2] - mids[4]))
    assert found.half_back_s == 2.0
    assert found.least_depth == 0.5
    assert found.depth_back_s == 2.0
    assert found.widest_spread == 2.5
    with pytest.raises(InputError, match="no looks before or after"):
        resilience(looks, 9 * S, 10 * S)


def test_a_book_that_somebody_emptied_is_named_before_the_flow_goes_on() -> None:
    run = flow_of("zero_intelligence").start(0, rng=stream(1, "run"))
    limit(run.market.book, run.market.journal, ASK, 1 + int(run.market.book.state.low[0]), 10**6, 5)
    with pytest.raises(SynthError, match="broke down at 0 ns: no bid is left"):
        run.advance(S)
