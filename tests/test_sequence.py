"""What the recorder decides while messages pass: bridges, stalls, copies of two connections, the clock, the waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import plugins, venues
from synth_pipeline.capture.backoff import Backoff
from synth_pipeline.capture.clock import Clock
from synth_pipeline.capture.figures import Figures
from synth_pipeline.capture.overlap import Arrival, Overlap
from synth_pipeline.capture.sequence import Book, Counted, Rising, Stream
from synth_pipeline.rng import stream as rng_stream
from synth_pipeline.venues import Head, Venue, Verdict
from synth_pipeline.venues.binance import FuturesRule, SpotRule
from synth_pipeline.venues.bybit import BybitRule

OLD, NEW = 1, 2


def _update(last: int, previous: int) -> Head:
    return Head("BTCUSDT", "book_levels", previous + 1, last, previous)


def _chain(length: int, start: int = 100) -> list[Head]:
    return [_update(start + 3 * number + 3, start + 3 * number) for number in range(length)]


@given(rule=st.sampled_from([SpotRule, FuturesRule]), snapshot=st.integers(90, 140), early=st.integers(0, 10))
def test_a_snapshot_bridges_exactly_when_it_reaches_what_waits(rule: Any, snapshot: int, early: int) -> None:
    """Updates 101..103, 104..106, …: some come before the snapshot, the rest after it."""
    book, updates = Book(rule()), _chain(10)
    for update in updates[:early]:
        assert book.check(update) is Verdict.NEEDS_SNAPSHOT
    too_old = snapshot < 100 and early > 0
    assert book.take_snapshot(snapshot) is not too_old
    if too_old:
        assert not book.is_known
        assert book.take_snapshot(100 + 3 * early)
    # An update that comes later than a snapshot which holds it already is no second copy.
    verdicts = {book.check(update) for update in updates[early:]}
    # Nor is one that comes first, and begins behind the snapshot, a gap in the stream.
    assert verdicts <= ({Verdict.NEEDS_SNAPSHOT} if snapshot < 100 and not early else {Verdict.IN_ORDER})


def test_a_second_hole_while_waiting_needs_a_snapshot_from_behind_it() -> None:
    book = Book(FuturesRule())
    for update in (_update(103, 100), _update(110, 106)):
        book.check(update)
    assert not book.take_snapshot(102)
    assert not book.take_snapshot(105)
    assert book.take_snapshot(108)
    assert book.check(_update(113, 110)) is Verdict.IN_ORDER


def test_a_bybit_snapshot_overwrites_at_any_time() -> None:
    book = Book(BybitRule())

    def snapshot(u: int) -> Head:
        return Head("BTCUSDT", "book_levels", u, u, snapshot=True)

    def delta(u: int) -> Head:
        return Head("BTCUSDT", "book_levels", u, u)

    assert book.check(delta(5)) is Verdict.NEEDS_SNAPSHOT
    heads = [snapshot(50), delta(51), delta(51), delta(53), delta(54), snapshot(60), snapshot(1), delta(2)]
    assert [book.check(head) for head in heads] == [
        *(Verdict.IN_ORDER, Verdict.IN_ORDER, Verdict.DUPLICATE, Verdict.GAP, Verdict.NEEDS_SNAPSHOT),
        *(Verdict.IN_ORDER, Verdict.IN_ORDER, Verdict.IN_ORDER),
    ]
    assert book.last_id == 2


def test_trades_count_up() -> None:
    trades = Counted("trades")
    heads = [Head("A", "trades", number, number) for number in (7, 8, 8, 11, 12)]
    assert [trades.check(head) for head in heads] == [
        *(Verdict.IN_ORDER, Verdict.IN_ORDER, Verdict.DUPLICATE, Verdict.GAP, Verdict.IN_ORDER)
    ]


@pytest.mark.parametrize(
    ("pause", "messages", "silence", "stalled"),
    [(10, 50, 999, False), (10, 50, 1001, True), (100, 50, 1999, False), (100, 50, 2001, True), (10, 1, 10**6, False)],
)
def test_a_stream_is_stalled_by_its_own_measure(pause: int, messages: int, silence: int, stalled: bool) -> None:
    found = Stream("quotes")
    for number in range(messages):
        found.hear(number * pause + 1)
    assert found.is_stalled((messages - 1) * pause + 1 + silence, 1000) is stalled


def _arrival(stream: Book | Counted | Rising, head: Head, connection: int, at_ns: int = 0) -> Arrival:
    return Arrival(None, stream, head, connection, 0, at_ns, b"")  # type: ignore[arg-type] - no log is involved


def _merged(
    venue: Venue, stream: Book | Counted | Rising, heads: list[Head], late: int, order: list[bool], known: int
) -> list[Head]:
    """Deliver all heads on the old connection and those from `late` on, on the new one too, interleaved by `order`.

    Returns what was recorded.
    """
    recorded: list[Head] = []

    def keep(head: Head) -> None:
        assert stream.check(head) in (Verdict.IN_ORDER, Verdict.NEEDS_SNAPSHOT)
        recorded.append(head)

    for head in heads[:known]:
        keep(head)
    overlap = Overlap(venue, OLD, Figures())

    def take(connection: int, head: Head) -> None:
        if overlap.is_news(_arrival(stream, head, connection)):
            keep(head)

    old, new = heads[known:], heads[late:]
    for is_old in order:
        queue = old if is_old else new
        if queue:
            take(OLD if is_old else NEW, queue.pop(0))
    # The old connection is closed once the new one has joined, and not before what it had was read.
    while old and not overlap.is_complete:
        take(OLD, old.pop(0))
    overlap.old_is_closed = True
    for arrival in overlap.release(0):
        keep(arrival.head)
    while new:
        take(NEW, new.pop(0))
    return recorded


@given(
    kind=st.sampled_from(["spot", "futures", "trades", "quotes"]),
    known=st.integers(0, 20),
    behind=st.integers(-5, 10),
    order=st.lists(st.booleans(), max_size=60),
)
def test_two_connections_give_each_message_once_and_in_order(
    kind: str, known: int, behind: int, order: list[bool]
) -> None:
    """Whatever the interleaving, wherever the new connection begins (before or after what the old one delivered)."""
    venue = plugins.load(venues, "binance_spot" if kind == "spot" else "binance_usdm")()
    stream: Book | Counted | Rising
    if kind in {"spot", "futures"}:
        stream, heads = Book(SpotRule() if kind == "spot" else FuturesRule()), _chain(30)
        stream.take_snapshot(100)
    else:
        stream = Counted("trades") if kind == "trades" else Rising("quotes")
        steps = 1 if kind == "trades" else 4
        heads = [Head("BTCUSDT", kind, 9 + steps * number, 9 + steps * number) for number in range(30)]
    late = max(0, min(len(heads) - 1, known - behind))
    recorded = _merged(venue, stream, list(heads), late, order, known)
    assert recorded == heads


def test_what_a_dead_connection_no_longer_brings_is_released_after_a_second() -> None:
    """The old connection is half-open: the new one's messages are held, then recorded, none lost."""
    trades, figures = Counted("trades"), Figures()
    heads = [Head("BTCUSDT", "trades", number, number) for number in range(5, 12)]
    trades.check(heads[0])
    overlap = Overlap(plugins.load(venues, "binance_usdm")(), OLD, figures)
    assert not any(overlap.is_news(_arrival(trades, head, NEW, 10)) for head in heads[2:5])
    assert not overlap.is_complete
    assert list(overlap.release(10**9)) == []
    assert [arrival.head for arrival in overlap.release(10**9 + 11)] == heads[2:5]
    assert overlap.is_complete
    assert overlap.is_news(_arrival(trades, heads[5], NEW))
    assert [overlap.is_news(_arrival(trades, head, OLD)) for head in heads[1:6]] == [True, *[False] * 4]
    assert figures.duplicates == 4


def test_a_bybit_book_follows_the_connection_of_its_latest_snapshot() -> None:
    venue = plugins.load(venues, "bybit_linear")()
    overlap, book = Overlap(venue, OLD, Figures()), Book(BybitRule())

    def is_news(connection: int, head: Head) -> bool:
        return overlap.is_news(_arrival(book, head, connection))

    snapshot, other = (Head("BTCUSDT", "book_levels", u, u, snapshot=True) for u in (40, 7000))
    delta = Head("BTCUSDT", "book_levels", 41, 41)
    book.check(snapshot)
    assert is_news(OLD, delta)
    assert not is_news(NEW, delta)
    assert is_news(NEW, other)
    assert overlap.is_complete
    assert not is_news(OLD, delta)
    assert is_news(NEW, Head("BTCUSDT", "book_levels", 7001, 7001))


@given(
    offset=st.integers(-5_000, 5_000), latency=st.integers(0, 300), there=st.integers(0, 200), back=st.integers(0, 200)
)
def test_the_clock_offset_lies_within_its_error(offset: int, latency: int, there: int, back: int) -> None:
    clock, ms = Clock(), 10**6
    clock.look(0, 0)
    venue_ns = 1_000_000 * ms
    sent_ns = venue_ns - there * ms + offset * ms
    clock.asked(1, sent_ns, sent_ns + (there + back) * ms, venue_ns)
    for extra in (50, 0, 20):
        clock.heard(2, (offset + latency + extra) * ms)
    found = clock.offset()
    assert found is not None
    assert found.error_ns is not None
    assert abs(found.offset_ns - offset * ms) <= found.error_ns + 1


def test_the_clock_forgets_what_is_old_and_notices_steps() -> None:
    clock, second = Clock(), 10**9
    assert clock.offset() is None
    clock.heard(0, 5)
    assert not clock.look(1000 * second, 0)
    assert clock.offset() == (5, None)
    assert not clock.look(1200 * second, 200 * second)
    assert clock.offset() is None
    clock.heard(200 * second, 7)
    assert clock.look(1202 * second, 201 * second)
    assert (clock.offset(), clock.steps) == (None, 1)


def test_a_venue_that_sets_its_clock_is_believed_anew() -> None:
    clock, second = Clock(), 10**9
    clock.asked(0, 100 * second, 100 * second + 10, 98 * second)
    clock.heard(1, 2 * second + 7)
    assert clock.offset() == (2 * second + 3, 3)
    clock.asked(2, 130 * second, 130 * second + 10, 123 * second)
    assert clock.offset() == (7 * second + 5, 5)


def test_waits_grow_jittered_up_to_the_cap() -> None:
    waits = Backoff(rng_stream(0, "waits"), 0.5, 8.0)
    tries = [[waits.next_seconds() for _ in range(8)] for _ in range(200) if waits.reset() is None]
    for number in range(8):
        bound = min(8.0, 0.5 * 2**number)
        column = [row[number] for row in tries]
        assert 0 <= min(column) < 0.1 * bound
        assert 0.9 * bound < max(column) <= bound
