"""Bybit's rules in ingestion: snapshots overwrite, trade ids do not count up, quotes repeat, depth is limited."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.archives.rawlog import Record
from synth_pipeline.schema import Flag
from synth_pipeline.ticks import assemble, book
from tests import wire
from tests.ingested import Ingested, ingest_day
from tests.wire import START_NS

FULL = ([("100.0", "1"), ("99.0", "2")], [("101.0", "3"), ("102.0", "4")])


def _ingest(*payloads: bytes, venue: str = "bybit_linear") -> Ingested:
    return ingest_day((Record(START_NS + number, payload) for number, payload in enumerate(payloads)), venue)


def _levels(day: Ingested) -> tuple[list[list[int]], list[list[int]]]:
    replayed = book.replay(day.tables["book_levels"])
    return replayed.bids.tolist(), replayed.asks.tolist()


def test_a_snapshot_takes_the_place_of_a_known_book() -> None:
    day = _ingest(
        wire.bybit_book(5, *FULL, whole=True),
        wire.bybit_book(6, [("96.0", "9")], []),
        wire.bybit_book(7, [("98.0", "5")], [("103.0", "6")], whole=True),
        wire.bybit_book(8, [("97.0", "1")], []),
    )
    assert _levels(day) == ([[97, 1], [98, 5]], [[103, 6]])
    assert day.counts["gaps"] == 0
    assert day.counts["book_events"] == {"snapshots": 2, "applied": 4}
    assert day.ticks.close_update_id == 8
    assert day.ticks.visible_levels == 200


def test_a_snapshot_after_a_hole_in_the_ids_ends_it() -> None:
    day = _ingest(
        wire.bybit_book(5, *FULL, whole=True),
        wire.bybit_book(8, [("98.0", "5")], []),
        wire.bybit_book(9, [("98.0", "6")], []),
        wire.bybit_book(10, *FULL, whole=True),
        wire.bybit_book(11, [("100.0", "7")], []),
    )
    assert _levels(day)[0] == [[99, 2], [100, 7]]
    gaps = day.tables["gaps"]
    hidden = gaps["stream"] == "book_levels"
    assert (gaps["start_ns"][hidden] - START_NS).tolist() == [0]
    assert (gaps["end_ns"][hidden] - START_NS).tolist() == [3]
    assert day.counts["gaps"] == 1
    assert day.counts["quarantined"] == {}
    assert day.counts["book_events"]["superseded_by_snapshot"] == 2  # type: ignore[index]


def test_a_restart_of_the_venue_begins_at_one() -> None:
    day = _ingest(
        wire.bybit_book(500, *FULL, whole=True),
        wire.bybit_book(900, FULL[0][:1], FULL[1][:1], whole=True, depth=1),
        wire.bybit_book(1, [("98.0", "5")], [("103.0", "6")]),
        wire.bybit_book(1, [("98.0", "5")], [("103.0", "6")], whole=True, depth=1),
        wire.bybit_book(2, [], [("103.0", "7")]),
        wire.bybit_book(2, [("98.0", "5")], [("103.0", "7")], whole=True, depth=1),
    )
    assert _levels(day) == ([[98, 5]], [[103, 7]])
    assert day.counts["quarantined"] == {}
    assert day.tables["quotes"]["update_id"].tolist() == [900, 1, 2]
    # Streams of different depths count apart: equal ids say nothing.
    assert day.counts["book_ticker_matched"] == 0
    assert day.tables["gaps"]["stream"].tolist().count("book_levels") == 1
    snapshot = day.tables["book_levels"]["flags"][day.tables["book_levels"]["update_id"] == 1]
    assert (snapshot & (Flag.SNAPSHOT | Flag.GAP_BEFORE) > 0).all()


def test_a_quiet_book_that_no_update_followed_is_known_all_the_same() -> None:
    day = _ingest(wire.bybit_book(5, *FULL, whole=True))
    assert day.ticks.close_update_id == 5
    assert "never_bridged" not in day.tables["gaps"]["reason"].tolist()


def test_a_repeated_quote_is_no_fault() -> None:
    touch = (FULL[0][:1], FULL[1][:1])
    day = _ingest(*(wire.bybit_book(7, *touch, whole=True, depth=1) for _ in range(3)))
    assert day.tables["quotes"]["update_id"].tolist() == [7]
    assert day.counts["quarantined"] == {}
    assert day.counts["book_events"] == {"repeated_quotes": 2}


def test_a_side_without_levels_is_an_empty_one() -> None:
    day = _ingest(wire.bybit_book(7, FULL[0][:1], [], whole=True, depth=1))
    assert day.tables["quotes"]["ask_size"].tolist() == [0]
    assert day.counts["quarantined"] == {}


def test_trades_packed_into_one_message_are_kept_in_order_and_repeated_ones_found() -> None:
    first, second, third = (wire.uuid_of(number) for number in (900, 5, 30))
    day = _ingest(wire.bybit_trades(first, second), wire.bybit_trades(second), wire.bybit_trades(third, block=True))
    trades = day.tables["trades"]
    assert trades["seq"].tolist() == [0, 0, 2]
    assert (np.diff(trades["trade_id"]) < 0).any()
    assert (trades["flags"] & Flag.OFF_MARKET > 0).tolist() == [False, False, True]
    assert day.counts["quarantined"] == {"duplicate_trade": 1}
    assert day.counts["trade_gaps"] == 0
    assert day.tables["gaps"]["reason"].tolist() == []


def test_the_memory_for_repeated_trades_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "LATE_IDS", 10)
    ids = [wire.uuid_of(number) for number in range(30)]
    day = _ingest(*(wire.bybit_trades(each) for each in [*ids, ids[25], ids[2]]))
    assert day.counts["quarantined"] == {"duplicate_trade": 1}


events = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(st.integers(90, 99), st.integers(0, 3)), min_size=1, max_size=4)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40)
@given(events)
def test_the_book_is_what_a_dictionary_says(wanted: list[tuple[bool, list[tuple[int, int]]]]) -> None:
    wanted = [(True, [(95, 1)]), *wanted]
    payloads: list[bytes] = []
    expected: dict[Decimal, int] = {}
    for number, (whole, changes) in enumerate(wanted, start=10):
        levels = {price: max(size, 1) if whole else size for price, size in changes}
        payloads.append(
            wire.bybit_book(number, [(f"{price}.0", str(size)) for price, size in levels.items()], [], whole=whole)
        )
        expected = ({} if whole else expected) | {Decimal(price): size for price, size in levels.items()}
    day = _ingest(*payloads)
    tick, lot = day.ticks.scale.tick_size, day.ticks.scale.lot_size
    found = {int(price) * tick: int(size) * lot for price, size in book.replay(day.tables["book_levels"]).bids}
    assert found == {price: size for price, size in expected.items() if size}
