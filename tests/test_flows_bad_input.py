"""What records may lack or have in them, for every order flow: a clear error, or a fallback that a note tells."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from synth_pipeline import plugins
from synth_pipeline.errors import SynthError
from synth_pipeline.market import flows
from synth_pipeline.market.engine import ASK, BID, cancel, front
from synth_pipeline.market.flows.calibrated import Calibrated
from synth_pipeline.market.flows.observing import CONTINUOUS, levels_of, orders_of
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.tape import rewind
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND, Scale
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, Messages
from tests import naive_flows as naive

S = NS_PER_SECOND
FLOWS = plugins.names(flows)
SECONDS = 300
STEP = S // 100


@pytest.fixture(scope="module")
def record() -> Messages:
    """Five minutes of zero intelligence as a source of level changes tells them."""
    example = ZeroIntelligence.example()
    run = example.start(0, rng=stream(3, "record"))
    return levels_of(run, SECONDS * S, example.opening.scale, CONTINUOUS, rng=stream(4, "record"))


def fitted(name: str, messages: Messages) -> Calibrated:
    flow: Calibrated = plugins.load(flows, name)()
    return flow.fit(messages, rng=stream(1, "fit"))


def refusal(name: str, messages: Messages) -> str:
    """Return the one line with which a record is refused."""
    with pytest.raises(SynthError) as caught:
        fitted(name, messages)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rates(flow: Calibrated, seconds: int = 30) -> tuple[float, float]:
    """Run a flow, see that it is a market all the time, and return events a second and the mean spread."""
    run, events, spreads = flow.start(0, rng=stream(2, "run")), 0, []
    for second in range(1, seconds + 1):
        while not run.advance(second * S):
            events += int(run.market.clock.events[0])
            rewind(run.market)
        sides = run.market.book.sides
        assert sides.best[BID] < sides.best[ASK]
        spreads.append(int(sides.best[ASK] - sides.best[BID]))
        events += int(run.market.clock.events[0])
        rewind(run.market)
    return events / seconds, float(np.mean(spreads))


def rows_of(messages: Messages, kept: np.ndarray) -> Messages:
    names = ("time_ns", "kind", "side", "price", "size", "order_id", "ends")
    return replace(messages, **{name: getattr(messages, name)[kept] for name in names})


def without_asks(messages: Messages, start_s: float, end_s: float, *, crossing: bool = False) -> Messages:
    """Return a record in which all asks leave, one after the other, and come back, perhaps below bids that stayed."""
    start, end = round(start_s * S), round(end_s * S)
    kept = (messages.side > 0) | (messages.time_ns < start) | (messages.time_ns >= end)
    if crossing:
        kept &= ~((messages.kind == MARKET) & (messages.time_ns >= start) & (messages.time_ns < end))
    left = rows_of(messages, kept)
    parts = [(left.time_ns, left.kind, left.side, left.price, left.size)]
    for moment, kind in ((start, CANCEL), (end, LIMIT)):
        if 0 < moment < SECONDS * S:
            levels = messages.slice(moment, moment + 1).initial[0].asks
            count = len(levels)
            times = moment + STEP * (np.arange(count) - (0 if kind == CANCEL else count))
            parts.append((times, np.full(count, kind), np.full(count, -1), levels[:, 0], levels[:, 1]))
    columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    time_ns, kind, side, price, size = (column[order] for column in columns)
    made = replace(
        left, time_ns=time_ns, kind=kind.astype(np.int8), side=side.astype(np.int8), price=price, size=size,
        order_id=np.zeros_like(time_ns), ends=np.ones(len(order), dtype=bool),
    )  # fmt: skip
    if start > 0:
        return made
    return replace(made, initial=(made.initial[0]._replace(asks=made.initial[0].asks[:0]),))


# --- what is refused


@pytest.mark.parametrize("name", FLOWS)
def test_a_record_without_trades_is_refused(name: str, record: Messages) -> None:
    assert refusal(name, rows_of(record, record.kind != MARKET)) == (
        "the messages hold no executions: record trades beside the book"
    )
    few = np.cumsum(record.kind == MARKET) <= 5
    assert refusal(name, rows_of(record, few | (record.kind != MARKET))) == (
        "5 executions are too few to tell a rate: take a longer record"
    )


@pytest.mark.parametrize("name", FLOWS)
def test_a_record_of_one_side_is_refused(name: str, record: Messages) -> None:
    bids = rows_of(record, (record.side > 0) | (record.kind == MARKET))
    assert refusal(name, bids) == "no limit order joins the asks: the record shows one side only"


@pytest.mark.parametrize("name", FLOWS)
def test_a_record_that_ends_on_one_side_is_refused(name: str, record: Messages) -> None:
    assert refusal(name, without_asks(record, 150, SECONDS)) == (
        "the book lacks a side over the last minutes of the record: end it where both sides quote"
    )


@pytest.mark.parametrize("name", FLOWS)
def test_seconds_are_too_short(name: str, record: Messages) -> None:
    assert refusal(name, record.slice(0, 3 * S)) == "3.0 s of messages are too short: take at least 5.0 s"
    thin = rows_of(record, (record.kind != LIMIT) | (np.cumsum(record.kind == LIMIT) % 50 == 0))
    assert "limit orders are too few to tell a rate" in refusal(name, thin.slice(0, 30 * S))


# --- what is taken, and told


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("start", "end"), [(0, 120), (90, 210), (200, 290)])
def test_minutes_of_one_side_are_left_out_and_told(name: str, start: int, end: int, record: Messages) -> None:
    flow, whole = fitted(name, without_asks(record, start, end)), fitted(name, record)
    told = [note for note in flow.notes if note.startswith("one side is empty for")]
    assert len(told) == 1
    assert float(told[0].split()[5]) == pytest.approx(end - start, abs=2)
    assert not [note for note in whole.notes if note.startswith("one side")]
    ran, usual = rates(flow), rates(whole)
    assert ran[0] == pytest.approx(usual[0], rel=0.5)
    assert ran[1] < 3 * usual[1] + 2


def test_what_happens_while_sides_cross_does_not_count(record: Messages) -> None:
    crossed = fitted("zero_intelligence", without_asks(record, 90, 210, crossing=True)).summary()
    whole = fitted("zero_intelligence", record).summary()
    for rate in ("market_rate", "limit_rate_2", "limit_rate_8_9", "cancel_rate_8_9"):
        assert abs(crossed[rate] - whole[rate]) < 5 * crossed[f"{rate}_se"]


@pytest.mark.parametrize("name", FLOWS)
def test_one_level_is_enough(name: str) -> None:
    example = ZeroIntelligence.example()
    seen = naive.top_only(orders_of(example.start(0, rng=stream(3, "record")), 90 * S, example.opening.scale))
    flow = fitted(name, seen)
    assert "levels seen on a side: 1; rates beyond are extrapolated" in flow.notes
    assert len(flow.opening.levels) >= 12
    assert rates(flow)[1] < 8


@pytest.mark.parametrize("name", FLOWS)
def test_an_inverse_contract_is_counted_in_contracts(name: str, record: Messages) -> None:
    scale = Scale(Decimal("0.1"), Decimal(1), inverse=True)
    flow, linear = fitted(name, replace(record, scale=scale)), fitted(name, record)
    assert "sizes count contracts of fixed quote value (inverse contract)" in flow.notes
    assert flow.opening.scale == scale
    np.testing.assert_equal(flow.summary(), linear.summary())


@pytest.mark.parametrize("name", FLOWS)
def test_ten_seconds_are_told_to_be_few(name: str, record: Messages) -> None:
    flow = fitted(name, record.slice(100 * S, 110 * S))
    assert "only 10.0 s are watched: what happens less than once in a while has no rate of its own" in flow.notes
    assert not [note for note in fitted(name, record).notes if note.endswith("no rate of its own")]
    rates(flow)


@pytest.mark.parametrize("name", FLOWS)
def test_a_change_of_pace_is_told(name: str, record: Messages) -> None:
    half = SECONDS * S // 2
    late = record.time_ns >= half
    times = np.where(late, half + 3 * (record.time_ns - half), record.time_ns)
    flow = fitted(name, replace(record, time_ns=times, spans=np.array([[0, 2 * SECONDS * S]])))
    assert any(note.startswith("not stationary:") for note in flow.notes)


# --- what breaks in a run


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("side", [BID, ASK])
def test_a_side_that_somebody_empties_is_named(name: str, side: int, record: Messages) -> None:
    run = fitted(name, record.slice(0, 60 * S)).start(0, rng=stream(2, "run"))
    run.advance(S)
    while front(run.market.book, side):
        cancel(run.market.book, run.market.journal, front(run.market.book, side))
    with pytest.raises(SynthError, match=rf"broke down at \d+ ns: no {('bid', 'ask')[side]} is left"):
        run.advance(2 * S)
