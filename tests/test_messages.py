"""Messages lead exactly over every book of their source, and say what was done and what cannot be known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import schema, stages
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.rng import stream
from synth_pipeline.schema import Flag, Instrument, Scale
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks import messages as messages_
from synth_pipeline.ticks import store
from synth_pipeline.ticks.book import Book
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, SHOWN, Messages, books, of_levels, of_orders, of_store
from tests import naive_messages as naive
from tests.naive_messages import Columns, table

SCALE = Scale(Decimal("0.1"), Decimal("0.001"))
LAST, FULL = int(Flag.LAST), int(Flag.SNAPSHOT)
MS = 1_000_000


def levels_table(*rows: tuple[int, int, int, int, int]) -> Columns:
    """Rows of time in ms, side, price, size, flags."""
    names = ("recv_ns", "side", "price", "size", "flags")
    found = [dict(zip(names, (row[0] * MS, *row[1:]), strict=True)) for row in rows]
    return table(schema.BOOK_LEVELS, [row | {"event_ns": row["recv_ns"], "seq": row["recv_ns"]} for row in found])


def trades_table(*rows: tuple[int, int, int, int], flags: int = LAST) -> Columns:
    """Rows of time in ms, price, size and the aggressor's side."""
    names = ("recv_ns", "price", "size", "side")
    found = [dict(zip(names, (row[0] * MS, *row[1:]), strict=True)) for row in rows]
    return table(schema.TRADES, [row | {"event_ns": row["recv_ns"], "flags": flags} for row in found])


def orders_table(*rows: tuple[int, int, int, int, int, int]) -> Columns:
    """Rows of time in ms, kind, side, price, size, id; one event each."""
    names = ("recv_ns", "kind", "side", "price", "size", "order_id")
    found = [dict(zip(names, (row[0] * MS, *row[1:]), strict=True)) for row in rows]
    return table(schema.ORDERS, [row | {"seq": number, "flags": LAST} for number, row in enumerate(found)])


OPENING = ((1, 1, 99, 5, FULL), (1, 1, 98, 7, FULL), (1, -1, 101, 4, FULL), (1, -1, 102, 6, FULL | LAST))
SPAN = (0, 1000 * MS)


def told(messages: Messages) -> list[tuple[int, ...]]:
    """Kind, side, price and size of every message."""
    each = (messages.kind, messages.side, messages.price, messages.size)
    return [tuple(int(value) for value in row) for row in zip(*each, strict=True)]


def from_levels(*rows: tuple[int, int, int, int, int], trades: Columns | None = None, depth: int = 0) -> Messages:
    trades = trades_table() if trades is None else trades
    return of_levels(levels_table(*OPENING, *rows), trades, span=SPAN, scale=SCALE, depth=depth)


def check_laws(messages: Messages) -> None:
    assert (np.diff(messages.time_ns) >= 0).all()
    assert (messages.size[messages.kind != SHOWN] > 0).all()
    for standing in messages.initial:
        assert (standing.bids[:, 1] > 0).all()
        assert (standing.asks[:, 1] > 0).all()


# --- level changes and trades


def test_a_decrease_that_a_trade_explains_is_an_execution_and_the_rest_a_cancellation() -> None:
    messages = from_levels((50, -1, 101, 1, LAST), trades=trades_table((40, 101, 2, 1)))
    assert told(messages) == [(MARKET, -1, 101, 2), (CANCEL, -1, 101, 1)]
    assert messages.time_ns.tolist() == [40 * MS, 50 * MS]
    assert messages.ends.tolist() == [False, True]
    assert messages.counts["executions"] == 1


def test_a_trade_of_more_than_stood_there_tells_of_an_order_that_came_in_between() -> None:
    messages = from_levels((50, -1, 101, 0, LAST), trades=trades_table((40, 101, 9, 1)))
    assert told(messages) == [(LIMIT, -1, 101, 5), (MARKET, -1, 101, 9)]
    assert messages.counts["inferred_orders"] == 1


def test_a_trade_at_a_level_that_stays_as_it_was_was_made_good() -> None:
    messages = from_levels((50, 1, 98, 8, LAST), trades=trades_table((40, 101, 3, 1)))
    assert told(messages) == [(LIMIT, -1, 101, 3), (MARKET, -1, 101, 3), (LIMIT, 1, 98, 1)]


def test_what_stood_in_front_of_a_trade_was_gone_before_it() -> None:
    messages = from_levels((50, -1, 101, 0, 0), (50, -1, 102, 2, LAST), trades=trades_table((40, 102, 4, 1)))
    assert told(messages) == [(CANCEL, -1, 101, 4), (MARKET, -1, 102, 4)]


def test_a_trade_that_the_book_contradicts_is_counted_and_left_out() -> None:
    # A buyer pays 98, where buyers stand.
    messages = from_levels((50, 1, 98, 8, LAST), trades=trades_table((40, 98, 3, 1)))
    assert told(messages) == [(LIMIT, 1, 98, 1)]
    assert messages.counts["unmatched_trades"] == 1


def test_a_trade_whose_stamp_lies_just_beyond_its_event_is_found_by_what_it_took() -> None:
    rows = ((50, -1, 101, 1, LAST), (100, 1, 99, 6, LAST))
    messages = from_levels(*rows, trades=trades_table((52, 101, 3, 1)))
    assert told(messages) == [(MARKET, -1, 101, 3), (LIMIT, 1, 99, 1)]


def test_a_trade_without_a_side_takes_from_the_level_that_lost() -> None:
    messages = from_levels((50, 1, 99, 2, LAST), trades=trades_table((40, 99, 3, 0)))
    assert told(messages) == [(MARKET, 1, 99, 3)]


def test_prints_off_the_market_touch_nothing() -> None:
    trades = trades_table((40, 101, 2, 1), flags=LAST | int(Flag.OFF_MARKET))
    messages = from_levels((50, -1, 101, 2, LAST), trades=trades)
    assert told(messages) == [(CANCEL, -1, 101, 2)]


def test_a_level_beyond_the_full_book_was_perhaps_always_there() -> None:
    messages = from_levels((50, 1, 90, 3, LAST), (60, 1, 90, 0, LAST), (70, 1, 90, 2, LAST))
    assert told(messages) == [(SHOWN, 1, 90, 3), (CANCEL, 1, 90, 3), (LIMIT, 1, 90, 2)]


def test_levels_that_enter_and_leave_the_sight_are_no_orders() -> None:
    rows = ((50, 1, 100, 2, 0), (50, 1, 98, 0, LAST), (60, 1, 100, 0, 0), (60, 1, 98, 7, LAST))
    messages = from_levels(*rows, depth=2)
    assert told(messages) == [(SHOWN, 1, 98, 0), (LIMIT, 1, 100, 2), (CANCEL, 1, 100, 2), (SHOWN, 1, 98, 7)]
    assert "levels beyond 2" in messages.unobserved


def test_without_trades_executions_are_said_to_be_unobserved() -> None:
    assert "executions" in from_levels((50, 1, 98, 8, LAST)).unobserved
    assert "executions" not in from_levels((50, 1, 98, 8, LAST), trades=trades_table((40, 101, 1, 1))).unobserved


def test_a_gap_and_a_full_book_each_open_a_stretch() -> None:
    again = ((200, 1, 97, 5, FULL), (200, -1, 103, 4, FULL | LAST))
    rows = (*OPENING, (50, 1, 98, 8, LAST), *again, (250, 1, 97, 6, LAST), (310, 1, 97, 9, LAST), (400, 1, 97, 1, LAST))
    gaps = [(100 * MS, 200 * MS), (300 * MS, 310 * MS)]
    messages = of_levels(levels_table(*rows), trades_table(), gaps, span=SPAN, scale=SCALE)
    assert told(messages) == [(LIMIT, 1, 98, 1), (LIMIT, 1, 97, 1), (CANCEL, 1, 97, 8)]
    assert messages.opens.tolist() == [0, 1, 2]
    assert (messages.spans // MS).tolist() == [[1, 100], [200, 300], [310, 1000]]
    assert [standing.bids.tolist() for standing in messages.initial] == [[[98, 7], [99, 5]], [[97, 5]], [[97, 9]]]
    assert messages.seconds == pytest.approx(0.099 + 0.1 + 0.69)


def test_nothing_but_a_full_book_is_no_data() -> None:
    with pytest.raises(NoDataError, match="nothing was done to the book"):
        from_levels()


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), actions=st.integers(1, 12))
def test_messages_lead_over_every_published_book(seed: int, actions: int) -> None:
    venue = naive.run_venue(stream(seed, "venue"), 30, actions)
    levels, trades = table(schema.BOOK_LEVELS, venue.levels), table(schema.TRADES, venue.trades)
    messages = of_levels(levels, trades, span=(0, venue.now), scale=SCALE)
    check_laws(messages)
    assert _once(naive.books_at_ends(messages)) == _once(venue.books)[1:]
    executed = messages.counts["executions"] + messages.counts["unmatched_trades"]
    before_the_end = trades["recv_ns"] <= levels["recv_ns"][-1]
    assert executed == np.count_nonzero(before_the_end)
    assert (messages.kind == MARKET).sum() == messages.counts["executions"]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_with_an_event_an_action_every_trade_is_exactly_what_was_taken(seed: int) -> None:
    venue = naive.run_venue(stream(seed, "venue"), 60, 1)
    trades = table(schema.TRADES, venue.trades)
    messages = of_levels(table(schema.BOOK_LEVELS, venue.levels), trades, span=(0, venue.now), scale=SCALE)
    executed = messages.kind == MARKET
    assert messages.counts["inferred_orders"] == messages.counts["unmatched_trades"] == 0
    assert np.array_equal(messages.price[executed], trades["price"])
    assert np.array_equal(messages.size[executed], trades["size"])
    assert np.array_equal(messages.time_ns[executed], trades["recv_ns"])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_differences_without_trades_are_what_left_and_what_came(seed: int) -> None:
    venue = naive.run_venue(stream(seed, "venue"), 30, 6)
    levels = table(schema.BOOK_LEVELS, venue.levels)
    messages = of_levels(levels, trades_table(), span=(0, venue.now), scale=SCALE)
    assert [(LIMIT if kind == SHOWN else kind, *row) for kind, *row in told(messages)] == [
        *naive.messages_of_differences(levels)
    ]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), cut=st.floats(0.05, 0.95))
def test_books_before_every_message_and_cuts_anywhere(seed: int, cut: float) -> None:
    venue = naive.run_venue(stream(seed, "venue"), 30, 6)
    levels, trades = table(schema.BOOK_LEVELS, venue.levels), table(schema.TRADES, venue.trades)
    messages = of_levels(levels, trades, span=(0, venue.now), scale=SCALE)
    book = {
        (side, price): size for side, rows in ((1, 0), (-1, 1)) for price, size in messages.initial[0][rows].tolist()
    }
    ladders = np.concatenate([ladder for _, ladder in books(messages, 4, chunk=7)], axis=2 - 1)
    for row in range(len(messages)):
        assert not naive.is_crossed(book)
        assert ladders[:, row].tolist() == naive.ladder_of(book, 4)
        naive.apply(book, messages, row)
    first, second = messages.split(cut)
    assert first.seconds + second.seconds == pytest.approx(messages.seconds)
    assert told(first) + told(second) == told(messages)
    both = [ladder for half in (first, second) for _, ladder in books(half, 4)]
    assert np.array_equal(np.concatenate(both, axis=1), ladders)


def _once(books: list[dict[naive.Level, int]]) -> list[dict[naive.Level, int]]:
    return [book for number, book in enumerate(books) if number == 0 or book != books[number - 1]]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_cut_outside_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        from_levels((50, 1, 98, 8, LAST)).split(fraction)


def test_a_slice_outside_has_no_data() -> None:
    with pytest.raises(NoDataError, match="no messages from"):
        from_levels((50, 1, 98, 8, LAST)).slice(2 * SPAN[1], 3 * SPAN[1])


# --- orders


def from_orders(*rows: tuple[int, int, int, int, int, int], levels: Columns | None = None, depth: int = 0) -> Messages:
    shown = levels_table() if levels is None else levels
    return of_orders(orders_table(*rows), shown, span=SPAN, scale=SCALE, depth=depth)


def test_orders_are_messages_but_hidden_executions_are_not() -> None:
    messages = from_orders(
        (1, 1, 1, 99, 5, 7), (2, 5, 1, 99, 3, 0), (3, 4, 1, 99, 2, 7), (4, 2, 1, 99, 1, 7), (5, 3, 1, 99, 2, 7)
    )
    assert told(messages) == [(LIMIT, 1, 99, 5), (MARKET, 1, 99, 2), (CANCEL, 1, 99, 1), (CANCEL, 1, 99, 2)]
    assert messages.order_id.tolist() == [7, 7, 7, 7]
    assert messages.counts["hidden_executions"] == 1
    assert "hidden orders" in messages.unobserved


@pytest.mark.parametrize("taker_first", [False, True])
def test_an_order_across_the_spread_takes_and_rests_with_what_is_left(taker_first: bool) -> None:
    reports = [(3, 4, 1, 99, 5, 1), (4, 4, -1, 99, 5, 2)]
    both = reports[::-1] if taker_first else reports
    both = [(3 + number, *row[1:]) for number, row in enumerate(both)]
    messages = from_orders((1, 1, 1, 99, 5, 1), (2, 1, -1, 99, 8, 2), *both, (6, 3, -1, 99, 3, 2))
    assert told(messages) == [(LIMIT, 1, 99, 5), (MARKET, 1, 99, 5), (LIMIT, -1, 99, 3), (CANCEL, -1, 99, 3)]


def test_an_order_across_the_spread_that_is_filled_never_rests() -> None:
    messages = from_orders((1, 1, 1, 99, 5, 1), (2, 1, -1, 99, 5, 2), (3, 4, 1, 99, 5, 1), (4, 4, -1, 99, 5, 2))
    assert told(messages) == [(LIMIT, 1, 99, 5), (MARKET, 1, 99, 5)]


def test_levels_that_no_order_explains_are_shown() -> None:
    # One level of sight: behind the order that is cancelled stands one that was never told of.
    full = (1, 1, 99, 5, FULL), (1, -1, 101, 4, FULL | LAST)
    orders = table(
        schema.ORDERS, [{"recv_ns": 2 * MS, "seq": 2, "kind": 3, "side": 1, "price": 99, "size": 5, "order_id": 1}]
    )
    levels = levels_table(*full, (2, 1, 99, 0, 0), (2, 1, 97, 6, LAST))
    levels["seq"] = np.array([1, 1, 2, 2])
    messages = of_orders(orders, levels, span=SPAN, scale=SCALE, depth=1)
    assert told(messages) == [(CANCEL, 1, 99, 5), (SHOWN, 1, 97, 6)]
    assert messages.ends.tolist() == [False, True]


def test_a_halt_opens_a_stretch() -> None:
    messages = from_orders((1, 1, 1, 99, 5, 1), (2, 7, 0, -1, 0, 0), (3, 1, 1, 99, 2, 2))
    assert messages.opens.tolist() == [0, 1]
    assert messages.initial[1].bids.tolist() == [[99, 5]]


# --- the store, on real captures

CAPTURES = {
    "usdm": (("binance_usdm_btcusdt_20240808.gz",), ("2024-08-08",)),
    "spot": (("binance_spot_btcusdt_20240808.gz", "binance_spot_btcusdt_20240809.gz"), ("2024-08-08", "2024-08-09")),
    "coinm": (
        ("binance_coinm_btcusd_perp_20240808.gz", "binance_coinm_btcusd_perp_20240809.gz"),
        ("2024-08-08", "2024-08-09"),
    ),
    "lobster": (("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip",), ("2012-06-21",)),
    "bitstamp": (("bitstamp_btcusd_l3_raw_20150501.log.xz",), ("2015-05-01",)),
}


def ingested(workspace: Workspace, files: list[Path], days: tuple[str, ...]) -> Instrument:
    instrument = stages.identify(files, None, None)
    for day in days:
        stages.record(workspace, instrument, date.fromisoformat(day), files)
        stages.ingest(workspace, instrument, date.fromisoformat(day))
    return instrument


@pytest.mark.parametrize("name", CAPTURES)
def test_real_captures_are_led_over_book_by_book(
    name: str, real: Callable[[str], Path], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, days = CAPTURES[name]
    instrument = ingested(workspace, [real(file) for file in files], days)
    home, window = workspace.settings.home, (f"{days[0]}T00:00", f"{days[-1]}T23:59:59")
    messages = of_store(home, instrument, *window)
    check_laws(messages)
    depth = messages.depth or 10
    after = _after_ends(messages, depth)
    replay = Book().feed(store.read(home, instrument, "book_levels", *window).columns, depth)
    sound = ~((replay.top[:, 1] > 0) & (replay.top[:, 3] > 0) & (replay.top[:, 0] >= replay.top[:, 2]))
    stretch = (replay.recv_ns[:, np.newaxis] > messages.spans[:, 0]) & (
        replay.recv_ns[:, np.newaxis] <= messages.spans[:, 1]
    )
    published = replay.ladder[:, sound & stretch.any(axis=1)].transpose(1, 0, 2).reshape(-1, 4 * depth)
    assert len(published) > 6000
    missing = _lacking(after, published)
    # Where an order takes, the source tells its side of the trade a moment after the other.
    assert missing <= (0.003 * len(published) if name == "bitstamp" else 0)
    if name in ("usdm", "spot", "coinm"):
        assert messages.counts["unmatched_trades"] < 0.01 * messages.counts["executions"]
        assert "order ids" in messages.unobserved
    monkeypatch.setattr(messages_, "PIECE_NS", 61_000_000_000)
    pieces = of_store(home, instrument, *window)
    assert np.array_equal(pieces.opens, messages.opens)
    assert abs(len(pieces) - len(messages)) <= 1e-3 * len(messages)


def _after_ends(messages: Messages, depth: int) -> np.ndarray:
    """Return the books after the ends of events, but for the last of each stretch, shape (events, 4 × depth)."""
    ladders = np.concatenate([ladder for _, ladder in books(messages, depth)], axis=1).transpose(1, 0, 2)
    ends = np.flatnonzero(messages.ends[:-1] & (messages.stretch[1:] == messages.stretch[:-1]))
    return ladders[ends + 1].reshape(len(ends), -1)


def _lacking(after: np.ndarray, published: np.ndarray) -> int:
    """Count published books that are not among those that messages lead over, the last few apart."""
    seen = {row.tobytes() for row in np.ascontiguousarray(after)}
    return sum(row.tobytes() not in seen for row in np.ascontiguousarray(published[1:-1]))


def test_messages_of_lobster_are_those_of_its_message_file(real: Callable[[str], Path], workspace: Workspace) -> None:
    instrument = ingested(workspace, [real("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip")], ("2012-06-21",))
    home, window = workspace.settings.home, ("2012-06-21T00:00", "2012-06-22T00:00")
    orders = store.read(home, instrument, "orders", *window).columns
    messages = of_store(home, instrument, *window)
    visible = np.isin(orders["kind"], (1, 2, 3, 4))
    visible[orders["recv_ns"] <= messages.spans[0, 0]] = False
    kinds = np.where(orders["kind"] == 3, CANCEL, orders["kind"])[visible]
    sent = messages.kind != SHOWN
    assert np.array_equal(messages.kind[sent], kinds)
    for name, source in (("price", "price"), ("size", "size"), ("order_id", "order_id"), ("time_ns", "recv_ns")):
        assert np.array_equal(getattr(messages, name)[sent], orders[source][visible]), name


def test_a_store_without_a_book_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "trades.csv"
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
    file.write_text(f"{head}\nbinance-futures,BTCUSDT,1723161300000000,1723161300001000,1,buy,61700.1,0.5\n")
    instrument = ingested(workspace, [file], ("2024-08-08",))
    with pytest.raises(NoDataError, match="has no book"):
        of_store(workspace.settings.home, instrument, "2024-08-08T00:00", "2024-08-09T00:00")


def test_a_window_in_the_middle_of_a_day_begins_with_the_book_of_that_time(
    real: Callable[[str], Path], workspace: Workspace
) -> None:
    instrument = ingested(workspace, [real("binance_usdm_btcusdt_20240808.gz")], ("2024-08-08",))
    home, middle = workspace.settings.home, 1_723_161_400_000_000_000
    whole = of_store(home, instrument, "2024-08-08T23:50", "2024-08-09T00:00").slice(middle, middle + 10 * 10**9)
    part = of_store(home, instrument, middle, middle + 10 * 10**9)
    for mine, theirs in zip(part.initial[0], whole.initial[0], strict=True):
        assert np.array_equal(mine[-100:], theirs[-100:])
    rest = slice(2000, -2000)
    assert np.array_equal(part.price[rest], whole.price[whole.time_ns >= part.time_ns[0]][: len(part)][rest])
