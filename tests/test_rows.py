"""Tick rows of a run: books rebuilt from levels and from orders, days that can be read alone, bytes without pieces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import SynthError
from synth_pipeline.market import engine, rows
from synth_pipeline.market.engine import ASK, BID, HIDDEN, IOC
from synth_pipeline.market.flows import DONE, FULL, Halt, Run, observing
from synth_pipeline.market.flows.pace import Pace
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.tape import has_room, new_tape, record
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Flag
from synth_pipeline.series import IntArray
from synth_pipeline.ticks import book as replays
from synth_pipeline.ticks.messages import of_levels, of_orders
from tests import naive_market as naive

S = NS_PER_SECOND
START = 20_000 * NS_PER_DAY
Book = tuple[naive.Level, dict[tuple[int, int], list[list[int]]]]
"""Lots by (side, price), and orders (lots) in their queues."""


class Script(Run):
    """A run of random orders of every kind, about one a second, that remembers the book after each event."""

    def __init__(self, seed: int, start_ns: int = START, *, capacity: int = 4096) -> None:
        super().__init__(
            new_tape(engine.new_book(1000, levels=256, pool=256), start_ns, capacity=capacity), self._go, Pace.usual()
        )
        self.rng, self.ids, self.seen = stream(seed, "script"), [], list[Book]()
        self.next_ns = start_ns + 1
        for side, price in ((BID, 990), (BID, 980), (ASK, 1010), (ASK, 1020)):
            self.ids.append(engine.limit(self.market.book, self.market.journal, side, price, 1000, owner=9))
        self.market.journal.rows[:] = (0, 0, 0)
        self.opening = self.standing()

    def standing(self) -> Book:
        queues = {
            key: [lots for _, lots, _ in queue] for key, queue in naive.queues(self.market.book).items() if key[0] < 2
        }
        return {key: sum(lots) for key, lots in queues.items()}, {key: [*lots] for key, lots in queues.items()}

    def _go(self, until_ns: int) -> int:
        while self.next_ns <= until_ns:
            if not has_room(self.market, 600):
                return FULL
            self.market.clock.now_ns[0] = self.next_ns
            for _ in range(int(self.rng.integers(1, 3))):
                self.act()
            record(self.market, self.next_ns)
            self.seen.append(self.standing())
            self.next_ns += int(self.rng.integers(1, 2 * S))
        self.market.clock.now_ns[0] = until_ns
        return DONE

    def act(self) -> None:
        book, journal, draw = self.market.book, self.market.journal, self.rng.integers
        kind, side, price, lots = draw(0, 6), int(draw(0, 2)), int(draw(985, 1016)), int(draw(1, 40))
        if kind < 2:
            flags, display = [(0, 0), (0, 5), (HIDDEN, 0), (IOC, 0)][draw(0, 4)]
            self.ids.append(engine.limit(book, journal, side, price, lots, 0, flags, display))
        elif kind == 2:
            engine.market(book, journal, side, lots)
        elif kind == 3:
            engine.modify(book, journal, self.ids[draw(4, len(self.ids))] if len(self.ids) > 4 else 0, price, lots)
        elif len(self.ids) > 4:
            engine.cancel(book, journal, self.ids[draw(4, len(self.ids))])


def by_seq(columns: rows.Columns) -> dict[int, list[dict[str, int]]]:
    """Rows of each event, in order; of the opening under -1."""
    found: dict[int, list[dict[str, int]]] = defaultdict(list)
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        row = dict(zip(columns, values, strict=True))
        found[row["seq"]].append(row)
    return found


@pytest.mark.parametrize("capacity", [700, 4096])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_levels_and_orders_each_rebuild_the_book_of_the_engine_after_every_event(capacity: int, seed: int) -> None:
    run = Script(seed, capacity=capacity)
    tables = rows.joined(rows.tick_pieces(run, START + 60 * S))
    levels, orders, feed = by_seq(tables["book_levels"]), by_seq(tables["orders"]), naive.Feed()
    book: naive.Level = {}
    for number, (lots, queues) in enumerate([run.opening, *run.seen], start=-1):
        for row in levels[number]:
            book[0 if row["side"] > 0 else 1, row["price"]] = row["size"]
        assert {key: size for key, size in book.items() if size} == lots
        for row in orders[number]:
            feed.read(row["kind"], row["order_id"], 0 if row["side"] > 0 else 1, row["price"], row["size"])
        assert {key: [left for _, left in queue] for key, queue in feed.queues.items()} == queues
    replay = replays.replay(tables["book_levels"])
    best = [dict(run.seen[-1][0]) for _ in range(2)]
    assert replay.crossed == 0
    assert replay.bids.tolist() == sorted([price, lots] for (side, price), lots in best[0].items() if side == BID)
    assert replay.asks.tolist()[::-1] == sorted([price, lots] for (side, price), lots in best[1].items() if side == ASK)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10)
def test_trades_agree_with_executions_and_quotes_with_the_top(seed: int) -> None:
    tables = rows.joined(rows.tick_pieces(Script(seed), START + 120 * S))
    trades, orders, quotes = tables["trades"], tables["orders"], tables["quotes"]
    done = np.isin(orders["kind"], (engine.EXECUTE, engine.EXECUTE_HIDDEN))
    for name in ("recv_ns", "seq", "price", "size"):
        assert trades[name].tolist() == orders[name][done].tolist()
    assert (trades["side"] == -orders["side"][done]).all()
    hidden = orders["kind"][done] == engine.EXECUTE_HIDDEN
    assert ((trades["flags"] & Flag.OFF_MARKET > 0) == hidden).all()
    assert trades["trade_id"].tolist() == list(range(1, len(hidden) + 1))
    top = replays.quotes_of(replays.replay(tables["book_levels"]))
    assert all(np.array_equal(quotes[name], top[name]) for name in quotes)


def same(first: rows.Tables, second: rows.Tables) -> bool:
    return all(
        np.array_equal(first[name][column], values) and first[name][column].dtype == values.dtype
        for name, columns in second.items()
        for column, values in columns.items()
    )


def test_rows_do_not_depend_on_how_the_run_is_cut() -> None:
    whole = rows.joined(rows.tick_pieces(Script(5, capacity=8192), START + 300 * S))
    small = Script(5, capacity=650)
    told = rows.TickRows(small)
    parts = [piece for until in (1, 7 * S, 7 * S + 1, 200 * S, 300 * S) for piece in told.pieces(START + until)]
    assert len(parts) > 8
    assert same(rows.joined(parts), whole)
    example = ZeroIntelligence.example()
    runs = [example.start(START, rng=stream(1, "run")) for _ in range(2)]
    told = rows.TickRows(runs[0])
    cut = rows.joined(piece for until in range(1, 60, 7) for piece in told.pieces(START + until * S))
    assert same(cut, rows.joined(rows.tick_pieces(runs[1], START + 57 * S)))


def test_every_day_can_be_read_alone_and_goes_on_where_the_one_before_ended() -> None:
    start = START + NS_PER_DAY - 60 * S
    run = Script(3, start)
    days: dict[int, list[rows.Tables]] = defaultdict(list)
    for piece in rows.tick_pieces(run, START + NS_PER_DAY + 60 * S):
        numbers = {int(time) // NS_PER_DAY for table in piece.values() for time in table["recv_ns"]}
        assert len(numbers) <= 1
        if numbers:
            days[numbers.pop()].append(piece)
    first, second = (rows.joined(parts) for parts in days.values())
    for day in (first, second):
        opening = day["book_levels"]["flags"] & Flag.SNAPSHOT > 0
        assert (np.flatnonzero(opening) == np.arange(opening.sum())).all()
        assert (day["book_levels"]["seq"][opening] == -1).all()
        assert (day["book_levels"]["seq"][~opening] >= 0).all()
    assert (second["book_levels"]["recv_ns"][:1] == START + NS_PER_DAY).all()
    closing, alone = replays.replay(first["book_levels"]), replays.Book()
    own = second["book_levels"]
    opens = {name: column[own["seq"] < 0] for name, column in own.items()}
    state = alone.feed(opens)
    assert np.array_equal(closing.bids, state.bids)
    assert np.array_equal(closing.asks, state.asks)
    assert own["update_id"][0] == first["book_levels"]["update_id"].max()
    resting = second["orders"]["seq"] < 0
    known = set(first["orders"]["order_id"][first["orders"]["kind"] == engine.ADD].tolist())
    assert set(second["orders"]["order_id"][resting].tolist()) <= known
    assert set(
        second["orders"]["order_id"][(second["orders"]["kind"] == engine.ADD) & ~resting].tolist()
    ) & known <= set(second["orders"]["order_id"][resting].tolist())


def test_a_run_goes_on_from_what_another_left_with_the_ids_of_its_orders() -> None:
    example = ZeroIntelligence.example()
    told = rows.TickRows(example.start(START, rng=stream(1, "run")))
    before = rows.joined(told.pieces(START + 30 * S))
    close = told.close()
    again = example.opened_with(close.levels).start(START + 30 * S, rng=stream(2, "run"))
    after = rows.TickRows(again, close)
    tables = rows.joined(after.pieces(START + 60 * S))
    opening = tables["orders"]["seq"] < 0
    assert np.array_equal(tables["orders"]["order_id"][opening], close.orders[:, 0])
    added = (tables["orders"]["kind"] == engine.ADD) & ~opening
    assert tables["orders"]["order_id"][added].min() > close.order_id >= before["orders"]["order_id"].max()
    assert tables["trades"]["trade_id"][0] == before["trades"]["trade_id"][-1] + 1 == close.trade_id + 1
    assert tables["book_levels"]["update_id"][~(tables["book_levels"]["seq"] < 0)].min() > close.update_id
    feed = naive.Feed()
    for row in [row for event in by_seq(tables["orders"]).values() for row in event]:
        feed.read(row["kind"], row["order_id"], 0 if row["side"] > 0 else 1, row["price"], row["size"])
    assert [[key, [lots for _, lots in queue]] for key, queue in sorted(feed.queues.items())] == [
        [key, [lots for _, lots, _ in queue]] for key, queue in sorted(naive.queues(again.market.book).items())
    ]
    with pytest.raises(SynthError, match="simulate that day again"):
        rows.TickRows(example.start(START, rng=stream(2, "run")), close)


def test_messages_of_rows_are_those_of_the_run() -> None:
    example, span = ZeroIntelligence.example(), (START, START + 60 * S)
    tables = rows.joined(rows.tick_pieces(example.start(START, rng=stream(1, "run")), span[1]))
    run = example.start(START, rng=stream(1, "run"))
    straight = observing.orders_of(run, span[1] - 1, example.opening.scale)
    made = of_orders(tables["orders"], tables["book_levels"], span=span, scale=example.opening.scale)
    for name in ("time_ns", "kind", "side", "price", "size"):
        assert np.array_equal(getattr(made, name), getattr(straight, name))
    seen = rows.observed(tables, made, span, example.opening.scale)
    assert np.array_equal(seen.order_id, made.order_id)
    blind = of_levels(tables["book_levels"], tables["trades"], span=span, scale=example.opening.scale)
    assert blind.counts["unmatched_trades"] == 0
    assert blind.counts["executions"] == len(tables["trades"]["seq"])


class Outage(Script):
    halts = (Halt(START + 20 * S, START + 40 * S, rejects=True, is_gap=True),)

    def published_ns(self, time_ns: IntArray) -> IntArray:
        return time_ns + S

    def act(self) -> None:
        if not START + 20 * S <= self.next_ns < START + 40 * S:
            super().act()


def test_after_an_outage_the_whole_book_comes_again_and_delays_keep_the_order() -> None:
    run = Outage(8, capacity=4096)
    tables = rows.joined(rows.tick_pieces(run, START + 60 * S))
    levels, quotes = tables["book_levels"], tables["quotes"]
    again = (levels["flags"] & Flag.GAP_BEFORE) > 0
    assert again.any()
    assert (levels["event_ns"][again] == START + 40 * S).all()
    assert ((quotes["flags"] & Flag.GAP_BEFORE) > 0).sum() == 1
    for table in tables.values():
        assert (np.diff(table["recv_ns"]) >= 0).all()
        assert (np.diff(table["seq"]) >= 0).all()
        own = (table["flags"] & Flag.SNAPSHOT) == 0
        assert (table["recv_ns"][own] == table["event_ns"][own] + S).all()
    replay = replays.replay(levels)
    lots = {price: size for (side, price), size in run.seen[-1][0].items() if side == BID}
    assert dict(replay.bids.tolist()) == lots


# --- how a source publishes


def naive_published(levels: list[dict[str, int]], times: Iterable[int]) -> list[tuple[int, int, int, int]]:
    found, since = [], -1
    for time in times:
        last = {(row["side"], row["price"]): row["size"] for row in levels if since < row["recv_ns"] <= time}
        found += sorted((time, *key, size) for key, size in last.items())
        since = time
    return found


@given(seed=st.integers(0, 2**32), gaps=st.lists(st.integers(1, 20 * S), min_size=1, max_size=8))
@settings(max_examples=15)
def test_published_levels_are_the_last_of_each_price_between_two_times(seed: int, gaps: list[int]) -> None:
    tables = rows.joined(rows.tick_pieces(Script(seed), START + 60 * S))
    times = START + np.cumsum(gaps)
    found = rows.published(tables["book_levels"], times)
    plain = [row for number, event in by_seq(tables["book_levels"]).items() if number >= 0 for row in event]
    own = found["flags"] & Flag.SNAPSHOT == 0
    told = sorted(zip(*(found[name][own].tolist() for name in ("recv_ns", "side", "price", "size")), strict=True))
    assert told == naive_published(plain, times.tolist())
    ends = found["recv_ns"][own][(found["flags"][own] & Flag.LAST) > 0]
    assert ends.tolist() == sorted(set(found["recv_ns"][own].tolist()))


def test_what_is_published_over_midnight_repeats_no_opening() -> None:
    start = START + NS_PER_DAY - 60 * S
    tables = rows.tick_pieces(Script(5, start), start + 120 * S)
    levels = rows.joined(list(tables))["book_levels"]
    again = (levels["seq"] == -1) & (levels["recv_ns"] > start)
    assert 0 < again.sum() < levels["seq"].size
    times = start + np.arange(1, 13) * 10 * S
    once = {name: column[~again] for name, column in levels.items()}
    for name, column in rows.published(levels, times).items():
        np.testing.assert_array_equal(column, rows.published(once, times)[name])


def test_the_rhythm_of_a_record_goes_on_as_long_as_is_asked() -> None:
    example = ZeroIntelligence.example()
    messages = observing.orders_of(example.start(0, rng=stream(1, "run")), 10 * S, example.opening.scale)
    times = rows.rhythm(messages, (100 * S, 135 * S))
    own = np.unique(messages.time_ns)
    assert np.array_equal(times[: own.size], 100 * S + own)
    assert np.array_equal(times[own.size : 2 * own.size], 110 * S + own)
    assert times[-1] == 135 * S


def test_memory_is_that_of_a_tape() -> None:
    run = ZeroIntelligence.example().start(START, rng=stream(1, "run"))
    sizes = [max(len(table["seq"]) for table in piece.values()) for piece in rows.tick_pieces(run, START + 7200 * S)]
    assert max(sizes) <= run.market.journal.levels.size < sum(sizes)
