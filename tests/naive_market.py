"""The matching engine, slow and obvious, and an audit of the fast one's arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

from synth_pipeline.market import engine


@dataclass
class Order:
    order_id: int
    side: int
    price: int
    lots: int


@dataclass
class NaiveBook:
    """Price-time priority by searching the list of orders in order of arrival; ids count up; side 0 bids, 1 asks."""

    orders: list[Order] = field(default_factory=list)
    trades: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """(maker id, taker id, price, lots, taker side)"""
    ids: int = 0

    def limit(self, side: int, price: int, lots: int) -> int:
        self.ids += 1
        rest = self._match(side, lots, lambda maker: maker <= price if side == 0 else maker >= price)
        if rest:
            self.orders.append(Order(self.ids, side, price, rest))
        return self.ids

    def market(self, side: int, lots: int) -> int:
        self.ids += 1
        self._match(side, lots, lambda _: True)
        return self.ids

    def cancel(self, order_id: int) -> int:
        found = [order for order in self.orders if order.order_id == order_id]
        self.orders = [order for order in self.orders if order.order_id != order_id]
        return sum(order.lots for order in found)

    def keep(self, low: int, high: int) -> int:
        """Cancel all outside low..high (half open)."""
        kept = [order for order in self.orders if low <= order.price < high]
        cancelled = len(self.orders) - len(kept)
        self.orders = kept
        return cancelled

    def levels(self) -> dict[tuple[int, int], int]:
        """Lots by (side, price)."""
        lots: dict[tuple[int, int], int] = {}
        for order in self.orders:
            lots[order.side, order.price] = lots.get((order.side, order.price), 0) + order.lots
        return lots

    def depth(self, side: int) -> list[tuple[int, int]]:
        levels = [(price, lots) for (level_side, price), lots in self.levels().items() if level_side == side]
        return sorted(levels, reverse=side == 0)

    def _match(self, side, lots, is_willing) -> int:
        while lots:
            makers = [order for order in self.orders if order.side != side and is_willing(order.price)]
            if not makers:
                break
            best = (min if side == 0 else max)(order.price for order in makers)
            maker = next(order for order in makers if order.price == best)
            traded = min(lots, maker.lots)
            self.trades.append((maker.order_id, self.ids, maker.price, traded, side))
            maker.lots -= traded
            lots -= traded
            if not maker.lots:
                self.orders.remove(maker)
        return lots


def orders(book: engine.Book) -> list[tuple[int, int, int, int]]:
    """Walk every queue: (ordinal, side, price, lots), by side, price and priority; asserts that the links agree."""
    found = []
    for side in range(2):
        low = int(book.state.low[0])
        for price in range(low, low + book.levels.shape[1]):
            level = book.levels[side, price % book.levels.shape[1]]
            slot, ahead = int(level.first), 0
            while slot:
                order = book.orders[slot]
                assert (order.ahead, order.side, order.price) == (ahead, side, price)
                found.append((int(order.order_id) // book.orders.size, side, price, int(order.lots)))
                slot, ahead = int(order.behind), slot
            assert level.last == ahead
    return found


def check_totals(book: engine.Book) -> None:
    """Every aggregate equals what the queues say, and the book is not crossed."""
    found = orders(book)
    free = {int(slot) for slot in book.free[: book.state.free_slots[0]]}
    assert len(free) == book.state.free_slots[0] == book.orders.size - 1 - len(found)
    assert 0 not in free
    for side in range(2):
        own = [order for order in found if order[1] == side]
        assert book.sides.orders[side] == len(own)
        assert book.sides.lots[side] == sum(lots for *_, lots in own)
        prices = {price for _, _, price, _ in own}
        none = (engine.NO_BID, engine.NO_ASK)[side]
        assert book.sides.best[side] == ((max, min)[side](prices) if prices else none)
        for price in prices:
            assert engine.resting(book, side, price) == sum(lots for _, _, at, lots in own if at == price)
    assert book.sides.best[engine.BID] < book.sides.best[engine.ASK]


def depth(book: engine.Book, side: int, levels: int) -> list[tuple[int, int]]:
    prices, lots = engine.depth(book, side, levels)
    return list(zip(prices.tolist(), lots.tolist(), strict=True))
