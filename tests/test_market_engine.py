"""The matching engine against its slow twin, and against the laws that every matching engine keeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError
from synth_pipeline.market import engine
from synth_pipeline.market.engine import ASK, BID, HIDDEN, IOC, NO_ASK, NO_BID, POST_ONLY
from synth_pipeline.market.tape import has_room, new_tape, record, rewind
from tests.naive_market import Feed, NaiveBook, check_totals, depth, queues

CENTRE, WIDTH, POOL = 500, 64, 64
SIDES = st.integers(0, 1)
PRICES = st.integers(CENTRE - 6, CENTRE + 6)
LOTS = st.integers(-1, 12)
OWNERS = st.integers(0, 2)
FLAGS = st.sampled_from([0, 0, 0, IOC, POST_ONLY, HIDDEN, HIDDEN, HIDDEN | POST_ONLY, IOC | POST_ONLY])
DISPLAYS = st.sampled_from([0, 0, 0, 1, 2, 4, -1])
ORDINALS = st.integers(1, 40)
LIMITS = st.tuples(st.just("limit"), SIDES, PRICES, LOTS, OWNERS, FLAGS, DISPLAYS)
OPERATIONS = st.lists(
    st.one_of(
        LIMITS,
        LIMITS,
        st.tuples(st.just("market"), SIDES, LOTS, OWNERS),
        st.tuples(st.just("cancel"), ORDINALS),
        st.tuples(st.just("modify"), ORDINALS, PRICES, LOTS),
        st.tuples(st.just("move_band"), st.integers(CENTRE - 36, CENTRE + 36)),
    ),
    max_size=60,
)
RULES = st.builds(
    engine.Rules,
    tick=st.sampled_from([1, 1, 2]),
    lot=st.sampled_from([1, 1, 2]),
    smallest=st.sampled_from([1, 3]),
    largest=st.sampled_from([10, 100]),
    iceberg_parts=st.sampled_from([3, 100]),
    self_trade=st.integers(0, 3),
)


class Twins:
    """The engine and its twin, fed the same."""

    def __init__(self, rules: engine.Rules) -> None:
        self.fast = engine.new_book(CENTRE, levels=WIDTH, pool=POOL, rules=rules)
        self.journal = engine.new_journal(1024)
        self.slow = NaiveBook(low=CENTRE - WIDTH // 2, high=CENTRE + WIDTH // 2, rules=rules)
        self.ids = [0]

    def apply(self, kind: str, *arguments: int) -> tuple[int, int]:
        """Do one operation on both and return what they answer, ids as ordinals."""
        if kind in {"cancel", "modify"}:
            ordinal, *rest = arguments
            order_id = self.ids[ordinal] if ordinal < len(self.ids) else 1
            fast = getattr(engine, kind)(self.fast, self.journal, order_id, *rest)
            slow = getattr(self.slow, kind)(ordinal, *rest)
            return (self.ordinal(fast) if kind == "modify" else fast), slow
        if kind == "move_band":
            fast = engine.move_band(self.fast, self.journal, arguments[0])
            return fast, self.slow.keep(arguments[0] - WIDTH // 2, arguments[0] + WIDTH // 2)
        order_id = getattr(engine, kind)(self.fast, self.journal, *arguments)
        if order_id > 0:
            self.ids.append(order_id)
        return self.ordinal(order_id), getattr(self.slow, kind)(*arguments)

    @staticmethod
    def ordinal(order_id: int) -> int:
        return order_id // POOL if order_id > 0 else order_id

    def drain(self) -> tuple[dict[tuple[int, int], tuple[int, int]], list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Return and forget the journal: level changes by (side, price), trades and events with ordinals."""
        rows = self.journal.rows[0]
        levels = self.journal.levels[: rows.levels].tolist()
        trades = [
            (self.ordinal(maker), self.ordinal(taker), *rest)
            for maker, taker, *rest in self.journal.trades[: rows.trades].tolist()
        ]
        events = [
            (kind, self.ordinal(order), *rest) for kind, order, *rest in self.journal.events[: rows.events].tolist()
        ]
        self.journal.rows[:] = (0, 0, 0)
        changes = {(side, price): (before, after) for side, price, before, after in levels}
        assert len(changes) == len(levels), "a level is reported twice"
        return changes, trades, events

    def fast_queues(self) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
        return {
            level: [(self.ordinal(order), *rest) for order, *rest in queue]
            for level, queue in queues(self.fast).items()
        }

    def slow_queues(self) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
        found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for order in self.slow.orders:
            row = order.side + engine.HIDDEN_ROWS * order.is_hidden
            found.setdefault((row, order.price), []).append((order.order_id, order.lots, order.reserve))
        return found


@settings(max_examples=300)
@given(OPERATIONS, RULES)
def test_engine_equals_its_slow_twin_at_every_operation(operations, rules):
    twins = Twins(rules)
    for operation in operations:
        before, traded, told = twins.slow.levels(), len(twins.slow.trades), len(twins.slow.events)
        fast, slow = twins.apply(*operation)
        assert fast == slow
        changes, trades, events = twins.drain()
        assert trades == twins.slow.trades[traded:]
        assert events == twins.slow.events[told:]
        after = twins.slow.levels()
        assert changes == {
            level: (before.get(level, 0), after.get(level, 0))
            for level in before.keys() | after.keys()
            if before.get(level, 0) != after.get(level, 0)
        }
        assert twins.fast_queues() == twins.slow_queues()
        for side in range(2):
            assert depth(twins.fast, side, 5) == twins.slow.depth(side)[:5]
            front = twins.slow.front(side)
            assert twins.ordinal(engine.front(twins.fast, side)) == (front.order_id if front else 0)
        for ordinal, order_id in enumerate(twins.ids):
            assert engine.queue_ahead(twins.fast, order_id) == twins.slow.queue_ahead(ordinal)
        check_totals(twins.fast)


@settings(max_examples=150)
@given(OPERATIONS, RULES)
def test_feed_and_level_changes_each_reproduce_the_book_and_priority_is_kept(operations, rules):
    """The reader of the feed asserts at each trade that the best price and the front of its queue traded."""
    twins, feed, levels = Twins(rules), Feed(), {}
    for operation in operations:
        twins.apply(*operation)
        changes, trades, events = twins.drain()
        for event in events:
            feed.read(*event)
        for level, (before, after) in changes.items():
            assert levels.get(level, 0) == before
            levels[level] = after
        shown = {level: queue for level, queue in twins.fast_queues().items() if level[0] < engine.HIDDEN_ROWS}
        assert shown == {
            level: [(order_id, lots, shown[level][place][2]) for place, (order_id, lots) in enumerate(queue)]
            for level, queue in feed.queues.items()
        }
        assert {level: lots for level, lots in levels.items() if lots} == feed.levels()
        executed = [(price, lots) for kind, _, _, price, lots in events if kind in {4, 5}]
        assert executed == [(price, lots) for _, _, price, lots, *_ in trades]


@settings(max_examples=150)
@given(OPERATIONS, st.sampled_from([engine.ALLOW, engine.CANCEL_OLDEST]))
def test_no_lot_and_no_order_is_lost(operations, self_trade):
    """A ledger of what each order still wants, kept from answers and trades alone, equals what rests."""
    twins, wants, owners, never_rests = Twins(engine.Rules(self_trade=self_trade)), {}, {}, set()
    for kind, *arguments in operations:
        if kind == "move_band":
            continue
        answer, _ = twins.apply(kind, *arguments)
        if kind in {"limit", "market"} and answer > 0:
            wants[answer] = arguments[1 if kind == "market" else 2]
            owners[answer] = arguments[2 if kind == "market" else 3]
            if kind == "market" or arguments[4] == IOC:
                never_rests.add(answer)
        elif kind == "cancel" and answer > 0:
            assert wants.pop(arguments[0]) == answer
        elif kind == "modify" and answer > 0:
            wants[answer] = arguments[2]
        for maker, taker, _, lots, *_ in twins.drain()[1]:
            wants[maker] -= lots
            wants[taker] -= lots
            assert self_trade == engine.ALLOW or owners[maker] != owners[taker] or owners[maker] == 0
        rests = {order: lots + reserve for queue in twins.fast_queues().values() for order, lots, reserve in queue}
        gone = {order for order, lots in wants.items() if lots > 0 and order not in rests} - never_rests
        if gone:  # the older orders of an owner who met them, and nobody else's
            assert self_trade == engine.CANCEL_OLDEST
            assert {owners[order] for order in gone} == {owners[answer]} != {0}
            wants = {order: lots for order, lots in wants.items() if order not in gone}
        assert rests == {order: lots for order, lots in wants.items() if lots and order not in never_rests}


def small(pool: int = POOL, **rules: int) -> tuple[engine.Book, engine.Journal]:
    return engine.new_book(CENTRE, levels=WIDTH, pool=pool, rules=engine.Rules(**rules)), engine.new_journal()


def test_engine_refuses_what_it_cannot_do_and_changes_nothing():
    book = engine.new_book(CENTRE, levels=WIDTH, pool=4)
    journal = engine.new_journal(6)
    assert engine.limit(book, journal, BID, CENTRE, 0) == engine.REFUSED_SIZE
    assert engine.market(book, journal, BID, -3) == engine.REFUSED_SIZE
    assert engine.limit(book, journal, BID, CENTRE - WIDTH // 2 - 1, 1) == engine.REFUSED_PRICE
    assert engine.limit(book, journal, ASK, CENTRE + WIDTH // 2, 1) == engine.REFUSED_PRICE
    ids = [engine.limit(book, journal, BID, CENTRE, 1) for _ in range(3)]
    assert engine.limit(book, journal, BID, CENTRE, 1) == engine.REFUSED_JOURNAL
    assert engine.modify(book, journal, ids[0], CENTRE, 2) == engine.REFUSED_JOURNAL
    assert engine.move_band(book, journal, CENTRE + 9) == engine.REFUSED_JOURNAL
    journal.rows[:] = (0, 0, 0)
    assert engine.limit(book, journal, BID, CENTRE, 1) == engine.REFUSED_FULL
    journal.rows[:] = (6, 0, 0)
    assert engine.cancel(book, journal, ids[0]) == engine.REFUSED_JOURNAL
    journal.rows[:] = (0, 0, 6)
    assert engine.cancel(book, journal, ids[0]) == engine.REFUSED_JOURNAL
    assert engine.market(book, journal, ASK, 1) == engine.REFUSED_JOURNAL
    assert queues(book) == {(BID, CENTRE): [(order_id, 1, 0) for order_id in ids]}
    check_totals(book)
    # A full pool takes an order that cannot rest.
    journal.rows[:] = (0, 0, 0)
    assert engine.limit(book, journal, ASK, CENTRE, 2, 0, IOC) > 0
    assert book.sides.orders.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("sizes", [{"levels": 100}, {"levels": 32}, {"pool": 24}, {"pool": 1}])
def test_a_book_of_other_sizes_than_powers_of_two_is_refused(sizes):
    with pytest.raises(InputError, match="choose a power of two"):
        engine.new_book(CENTRE, **sizes)


def test_an_id_never_names_the_next_order_in_its_slot():
    book, journal = small(pool=2)
    first = engine.limit(book, journal, BID, CENTRE, 5)
    assert engine.cancel(book, journal, first) == 5
    second = engine.limit(book, journal, BID, CENTRE, 7)
    assert second % 2 == first % 2
    assert engine.cancel(book, journal, first) == 0
    assert engine.modify(book, journal, first, CENTRE, 1) == 0
    assert engine.front(book, BID) == second


def test_fewer_lots_keep_the_place_and_more_lots_or_another_price_lose_it():
    book, journal = small()
    first, second, third = (engine.limit(book, journal, BID, CENTRE, 5) for _ in range(3))
    assert engine.modify(book, journal, first, CENTRE, 2) == first
    assert [engine.queue_ahead(book, order) for order in (first, second, third)] == [0, 2, 7]
    assert engine.modify(book, journal, second, CENTRE, 6) == second
    assert [engine.queue_ahead(book, order) for order in (first, third, second)] == [0, 2, 7]
    assert engine.modify(book, journal, first, CENTRE - 1, 2) == first
    assert engine.modify(book, journal, first, CENTRE, 2) == first
    assert [engine.queue_ahead(book, order) for order in (third, second, first)] == [0, 5, 11]


def test_a_modified_order_may_trade_and_an_unchanged_one_says_nothing():
    book, journal = small()
    ask = engine.limit(book, journal, ASK, CENTRE + 2, 3)
    bid = engine.limit(book, journal, BID, CENTRE, 5, 7)
    rows = journal.rows[0].tolist()
    assert engine.modify(book, journal, bid, CENTRE, 5) == bid
    assert journal.rows[0].tolist() == rows
    assert engine.modify(book, journal, bid, CENTRE + 2, 5) == bid
    assert journal.trades[0].tolist() == (ask, bid, CENTRE + 2, 3, BID, 0, 7)
    assert queues(book) == {(BID, CENTRE + 2): [(bid, 2, 0)]}


def test_an_iceberg_shows_its_next_part_at_the_back_of_the_queue():
    book, journal = small()
    iceberg = engine.limit(book, journal, ASK, CENTRE, 10, 0, 0, 4)
    plain = engine.limit(book, journal, ASK, CENTRE, 5)
    assert depth(book, ASK, 1) == [(CENTRE, 9)]
    engine.market(book, journal, BID, 4)
    assert queues(book) == {(ASK, CENTRE): [(plain, 5, 0), (iceberg, 4, 2)]}
    engine.market(book, journal, BID, 10)
    assert queues(book) == {(ASK, CENTRE): [(iceberg, 1, 0)]}
    assert journal.trades.lots[: journal.rows.trades[0]].tolist() == [4, 5, 4, 1]


def test_hidden_orders_trade_after_displayed_ones_of_their_price_and_before_worse_prices():
    book, journal = small()
    hidden = engine.limit(book, journal, ASK, CENTRE, 5, 0, HIDDEN)
    worse = engine.limit(book, journal, ASK, CENTRE + 1, 5)
    shown = engine.limit(book, journal, ASK, CENTRE, 5)
    assert depth(book, ASK, 9) == [(CENTRE, 5), (CENTRE + 1, 5)]
    assert engine.queue_ahead(book, hidden) == 5
    engine.market(book, journal, BID, 12)
    assert journal.trades.maker_id[:3].tolist() == [shown, hidden, worse]
    assert [tuple(event)[:2] for event in journal.events[3:5].tolist()] == [
        (engine.EXECUTE_HIDDEN, 0),
        (engine.EXECUTE, worse),
    ]


def test_post_only_is_refused_where_it_would_trade_with_anything_even_hidden():
    book, journal = small()
    engine.limit(book, journal, ASK, CENTRE, 5, 0, HIDDEN)
    assert engine.limit(book, journal, BID, CENTRE, 1, 0, POST_ONLY) == engine.REFUSED_CROSSES
    maker = engine.limit(book, journal, BID, CENTRE - 1, 1, 0, POST_ONLY)
    assert engine.modify(book, journal, maker, CENTRE, 1) == engine.REFUSED_CROSSES
    assert queues(book)[BID, CENTRE - 1] == [(maker, 1, 0)]


@pytest.mark.parametrize(
    ("self_trade", "traded", "left"),
    [
        (engine.ALLOW, [(3, 1), (4, 2)], {}),
        (engine.CANCEL_NEWEST, [], {(ASK, CENTRE): 3, (ASK, CENTRE + 1): 4}),
        (engine.CANCEL_OLDEST, [(4, 2)], {(BID, CENTRE + 1): 3}),
        (engine.CANCEL_BOTH, [], {(ASK, CENTRE + 1): 4}),
    ],
)
def test_orders_of_one_owner_meet_by_the_rule_of_the_book(self_trade, traded, left):
    book, journal = small(self_trade=self_trade)
    engine.limit(book, journal, ASK, CENTRE, 3, 1)
    engine.limit(book, journal, ASK, CENTRE + 1, 4, 2)
    engine.limit(book, journal, BID, CENTRE + 1, 7, 1)
    trades = journal.trades[: journal.rows.trades[0]]
    assert list(zip(trades.lots.tolist(), trades.maker_owner.tolist(), strict=True)) == traded
    assert {level: sum(lots for _, lots, _ in queue) for level, queue in queues(book).items()} == left


def test_rules_may_change_while_orders_rest():
    book, journal = small()
    odd = engine.limit(book, journal, BID, CENTRE + 1, 3)
    book.rules.tick[0], book.rules.lot[0] = 10, 2
    assert engine.limit(book, journal, BID, CENTRE + 1, 4) == engine.REFUSED_TICK
    assert engine.limit(book, journal, BID, CENTRE, 3) == engine.REFUSED_LOT
    assert engine.limit(book, journal, BID, CENTRE, 4) > 0
    assert engine.cancel(book, journal, odd) == 3


@given(st.sets(st.integers(1, 4095), min_size=1, max_size=40), SIDES)
def test_the_next_level_is_found_however_far_it_lies(prices, side):
    book, journal = engine.new_book(2048, levels=4096), engine.new_journal()
    ids = {price: engine.limit(book, journal, side, price, 1) for price in prices}
    for price in sorted(prices, reverse=side == BID):
        assert book.sides.best[side] == price
        assert engine.cancel(book, journal, ids[price]) == 1
    assert book.sides.best[side] == (NO_BID, NO_ASK)[side]


def test_the_tape_says_when_and_how_far_the_journal_reaches():
    market = new_tape(engine.new_book(CENTRE), 1_000, capacity=4)
    assert market.clock.now_ns[0] == 1_000
    engine.limit(market.book, market.journal, BID, CENTRE, 5)
    record(market, 1_500)
    engine.limit(market.book, market.journal, ASK, CENTRE + 2, 3)
    engine.market(market.book, market.journal, BID, 1)
    record(market, 1_600)
    assert market.tape[:2].tolist() == [
        (1_500, 1, 0, 1, CENTRE, 5, NO_ASK, 0),
        (1_600, 3, 1, 3, CENTRE, 5, CENTRE + 2, 2),
    ]
    assert has_room(market, 2)
    assert not has_room(market, 3)
    rewind(market)
    assert has_room(market, 4)
    assert market.journal.rows[0].tolist() == (0, 0, 0)
