"""The matching engine against its slow twin, and against the laws that every matching engine keeps."""

from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.market import engine
from tests.naive_market import NaiveBook, check_totals, depth, orders

CENTRE, WIDTH, POOL = 500, 64, 64
SIDES = st.integers(0, 1)
PRICES = st.integers(CENTRE - 8, CENTRE + 8)
LOTS = st.integers(1, 9)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("limit"), SIDES, PRICES, LOTS),
        st.tuples(st.just("limit"), SIDES, PRICES, LOTS),
        st.tuples(st.just("market"), SIDES, LOTS),
        st.tuples(st.just("cancel"), st.integers(1, 60)),
        st.tuples(st.just("move_band"), st.integers(CENTRE - 36, CENTRE + 36)),
    ),
    max_size=60,
)


class Twins:
    """The engine and its twin, fed the same."""

    def __init__(self) -> None:
        self.fast, self.journal = engine.new_book(CENTRE, levels=WIDTH, pool=POOL), engine.new_journal(256)
        self.slow = NaiveBook()
        self.ids = [0]

    def apply(self, kind: str, *arguments: int) -> tuple[int, int]:
        """Do one operation on both and return what they answer, ids as ordinals."""
        if kind == "cancel":
            ordinal = arguments[0]
            order_id = self.ids[ordinal] if ordinal < len(self.ids) else 1
            return engine.cancel(self.fast, self.journal, order_id), self.slow.cancel(ordinal)
        if kind == "move_band":
            fast = engine.move_band(self.fast, self.journal, arguments[0])
            return fast, self.slow.keep(arguments[0] - WIDTH // 2, arguments[0] + WIDTH // 2)
        if kind == "limit" and not 0 <= arguments[1] - self.fast.state.low[0] < WIDTH:
            return engine.limit(self.fast, self.journal, *arguments), engine.REFUSED_PRICE
        order_id = getattr(engine, kind)(self.fast, self.journal, *arguments)
        self.ids.append(order_id)
        return order_id // POOL, getattr(self.slow, kind)(*arguments)

    def drain(self) -> tuple[dict[tuple[int, int], tuple[int, int]], list[tuple[int, ...]]]:
        """Return and forget the journal: level changes by (side, price), and trades with ordinals."""
        levels = self.journal.levels[: self.journal.rows.levels[0]].tolist()
        trades = self.journal.trades[: self.journal.rows.trades[0]].tolist()
        self.journal.rows[:] = (0, 0)
        changes = {(side, price): (before, after) for side, price, before, after in levels}
        assert len(changes) == len(levels)
        return changes, [(maker // POOL, taker // POOL, *rest) for maker, taker, *rest in trades]


@settings(max_examples=250)
@given(OPERATIONS)
def test_engine_equals_its_slow_twin_at_every_operation(operations):
    twins = Twins()
    for operation in operations:
        before, traded = twins.slow.levels(), len(twins.slow.trades)
        fast, slow = twins.apply(*operation)
        assert fast == slow
        changes, trades = twins.drain()
        assert trades == twins.slow.trades[traded:]
        after = twins.slow.levels()
        assert changes == {
            level: (before.get(level, 0), after.get(level, 0))
            for level in before.keys() | after.keys()
            if before.get(level, 0) != after.get(level, 0)
        }
        twin_orders = [(order.order_id, order.side, order.price, order.lots) for order in twins.slow.orders]
        assert orders(twins.fast) == sorted(twin_orders, key=lambda order: (order[1], order[2], order[0]))
        for side in range(2):
            assert depth(twins.fast, side, 5) == twins.slow.depth(side)[:5]
        check_totals(twins.fast)


@settings(max_examples=100)
@given(OPERATIONS)
def test_no_lot_is_lost_and_priority_is_kept(operations):
    twins = Twins()
    for kind, *arguments in operations:
        resting = {ordinal: price for ordinal, _, price, _ in orders(twins.fast)}
        lots_before = int(twins.fast.sides.lots.sum())
        answer, _ = twins.apply(kind, *arguments)
        _, trades = twins.drain()
        traded = sum(lots for *_, lots, _ in trades)
        if kind in {"limit", "market"} and answer > 0:
            added = arguments[-1] - traded if kind == "limit" else 0
            assert traded <= arguments[-1]
            assert twins.fast.sides.lots.sum() == lots_before - traded + added
        elif kind == "cancel":
            assert twins.fast.sides.lots.sum() == lots_before - answer
        sign = 1 if trades and trades[0][4] == engine.BID else -1
        ranks = [(sign * price, maker) for maker, _, price, _, _ in trades]
        assert ranks == sorted(ranks)
        assert all(price == resting[maker] for maker, _, price, _, _ in trades)
        # No trade passes over an order of better price, or of the same price and earlier.
        left = [(sign * price, ordinal) for ordinal, side, price, _ in orders(twins.fast) if side != arguments[0]]
        assert not trades or min(left, default=ranks[-1]) >= ranks[-1]


def test_engine_refuses_what_it_cannot_do_and_changes_nothing():
    book, journal = engine.new_book(CENTRE, levels=WIDTH, pool=4), engine.new_journal(6)
    assert engine.limit(book, journal, engine.BID, CENTRE, 0) == engine.REFUSED_SIZE
    assert engine.market(book, journal, engine.BID, -3) == engine.REFUSED_SIZE
    assert engine.limit(book, journal, engine.BID, CENTRE - WIDTH // 2 - 1, 1) == engine.REFUSED_PRICE
    assert engine.limit(book, journal, engine.ASK, CENTRE + WIDTH // 2, 1) == engine.REFUSED_PRICE
    ids = [engine.limit(book, journal, engine.BID, CENTRE, 1) for _ in range(3)]
    assert engine.limit(book, journal, engine.BID, CENTRE, 1) == engine.REFUSED_JOURNAL
    assert engine.move_band(book, journal, CENTRE + 9) == engine.REFUSED_JOURNAL
    journal.rows[:] = (0, 0)
    assert engine.limit(book, journal, engine.BID, CENTRE, 1) == engine.REFUSED_FULL
    journal.rows[:] = (6, 0)
    assert engine.cancel(book, journal, ids[0]) == engine.REFUSED_JOURNAL
    assert engine.market(book, journal, engine.ASK, 1) == engine.REFUSED_JOURNAL
    assert orders(book) == [(ordinal, engine.BID, CENTRE, 1) for ordinal in (1, 2, 3)]
    check_totals(book)


def test_an_id_never_names_the_next_order_in_its_slot():
    book, journal = engine.new_book(CENTRE, levels=WIDTH, pool=2), engine.new_journal()
    first = engine.limit(book, journal, engine.BID, CENTRE, 5)
    assert engine.cancel(book, journal, first) == 5
    second = engine.limit(book, journal, engine.BID, CENTRE, 7)
    assert second % 2 == first % 2
    assert engine.cancel(book, journal, first) == 0
    assert engine.front(book, engine.BID) == second
