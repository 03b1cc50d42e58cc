"""The matching engine, slow and obvious; a plain reader of an order-by-order feed; an audit of the fast arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

from synth_pipeline.market import engine
from synth_pipeline.market.engine import ASK, BID, CANCEL_NEWEST, CANCEL_OLDEST, HIDDEN, IOC, POST_ONLY

Level = dict[tuple[int, int], int]


@dataclass
class Order:
    order_id: int
    side: int
    price: int
    lots: int
    """Lots in the queue."""
    owner: int = 0
    flags: int = 0
    display: int = 0
    reserve: int = 0

    @property
    def is_hidden(self) -> bool:
        return bool(self.flags & HIDDEN)


@dataclass
class NaiveBook:
    """Price-time priority by searching the list of orders in order of priority; ids count up; side 0 bids, 1 asks."""

    orders: list[Order] = field(default_factory=list)
    trades: list[tuple[int, ...]] = field(default_factory=list)
    """(maker id, taker id, price, lots, taker side, maker's owner, taker's owner)"""
    events: list[tuple[int, ...]] = field(default_factory=list)
    """(kind, order id, side, price, lots)"""
    ids: int = 0
    low: int = 1
    high: int = 2**40
    """Prices are taken from `low` up to, not including, `high`."""
    rules: engine.Rules = field(default_factory=engine.Rules)

    def limit(self, side: int, price: int, lots: int, owner: int = 0, flags: int = 0, display: int = 0) -> int:
        if refusal := self._size_refusal(lots) or self._refusal(side, price, lots, flags, display):
            return refusal
        self.ids += 1
        rest = self._match(side, price, lots, self.ids, owner)
        if rest and not flags & IOC:
            self._queue(Order(self.ids, side, price, 0, owner, flags, display), rest)
        return self.ids

    def market(self, side: int, lots: int, owner: int = 0) -> int:
        if refusal := self._size_refusal(lots):
            return refusal
        self.ids += 1
        self._match(side, None, lots, self.ids, owner)
        return self.ids

    def cancel(self, order_id: int) -> int:
        order = self.find(order_id)
        if order is None:
            return 0
        self._delete(order)
        return order.lots + order.reserve

    def modify(self, order_id: int, price: int, lots: int) -> int:
        order = self.find(order_id)
        if order is None:
            return 0
        refusal = self._size_refusal(lots) or self._refusal(order.side, price, lots, order.flags, order.display)
        if refusal:
            return refusal
        fewer = order.lots + order.reserve - lots
        if price == order.price and fewer >= 0:
            from_reserve = min(fewer, order.reserve)
            order.reserve -= from_reserve
            if fewer > from_reserve:
                order.lots -= fewer - from_reserve
                self._tell(engine.REDUCE, order, fewer - from_reserve)
            return order_id
        self._delete(order)
        rest = self._match(order.side, price, lots, order_id, order.owner)
        if rest:
            order.price = price
            self._queue(order, rest)
        return order_id

    def keep(self, low: int, high: int) -> int:
        """Cancel all outside low..high (half open), by price, bids first, displayed ones first."""
        gone = sorted(
            (order for order in self.orders if not low <= order.price < high),
            key=lambda order: (order.price, order.is_hidden, order.side),
        )
        for order in gone:
            self._delete(order)
        self.low, self.high = low, high
        return len(gone)

    def find(self, order_id: int) -> Order | None:
        return next((order for order in self.orders if order.order_id == order_id), None)

    def queue(self, side: int, price: int, *, hidden: bool = False) -> list[Order]:
        return [order for order in self.orders if (order.side, order.price, order.is_hidden) == (side, price, hidden)]

    def queue_ahead(self, order_id: int) -> int:
        order = self.find(order_id)
        if order is None:
            return -1
        queue = self.queue(order.side, order.price)
        if order.is_hidden:
            queue += self.queue(order.side, order.price, hidden=True)
        return sum(each.lots for each in queue[: queue.index(order)])

    def levels(self) -> Level:
        """Displayed lots by (side, price)."""
        lots: Level = {}
        for order in self.orders:
            if not order.is_hidden:
                lots[order.side, order.price] = lots.get((order.side, order.price), 0) + order.lots
        return lots

    def depth(self, side: int) -> list[tuple[int, int]]:
        levels = [(price, lots) for (level_side, price), lots in self.levels().items() if level_side == side]
        return sorted(levels, reverse=side == BID)

    def front(self, side: int, price: int | None = None) -> Order | None:
        """The order of a side that trades next, with an order up to a price."""
        sign = 1 if side == ASK else -1
        willing = [
            order
            for order in self.orders
            if order.side == side and (price is None or sign * order.price <= sign * price)
        ]
        return min(willing, key=lambda order: (sign * order.price, order.is_hidden), default=None)

    def _size_refusal(self, lots: int) -> int:
        if lots <= 0 or not self.rules.smallest <= lots <= self.rules.largest:
            return engine.REFUSED_SIZE
        return engine.REFUSED_LOT if lots % self.rules.lot else 0

    def _refusal(self, side: int, price: int, lots: int, flags: int, display: int) -> int:
        if not self.low <= price < self.high:
            return engine.REFUSED_PRICE
        if price % self.rules.tick:
            return engine.REFUSED_TICK
        if (flags & IOC and (flags != IOC or display)) or (flags & HIDDEN and display):
            return engine.REFUSED_FLAGS
        if display < 0 or display % self.rules.lot or (display and -(-lots // display) > self.rules.iceberg_parts):
            return engine.REFUSED_DISPLAY
        if flags & POST_ONLY and self.front(1 - side, price):
            return engine.REFUSED_CROSSES
        return 0

    def _match(self, side: int, price: int | None, lots: int, taker_id: int, owner: int) -> int:
        while lots and (maker := self.front(1 - side, price)):
            if owner and maker.owner == owner and self.rules.self_trade != engine.ALLOW:
                if self.rules.self_trade != CANCEL_NEWEST:
                    self._delete(maker)
                if self.rules.self_trade != CANCEL_OLDEST:
                    return 0
                continue
            traded = min(lots, maker.lots)
            self.trades.append((maker.order_id, taker_id, maker.price, traded, side, maker.owner, owner))
            self._tell(engine.EXECUTE, maker, traded)
            maker.lots -= traded
            lots -= traded
            if not maker.lots:
                self.orders.remove(maker)
                if maker.reserve:
                    self._queue(maker, maker.reserve)
        return lots

    def _queue(self, order: Order, lots: int) -> None:
        order.lots = min(lots, order.display or lots)
        order.reserve = lots - order.lots
        self.orders.append(order)
        self._tell(engine.ADD, order, order.lots)

    def _delete(self, order: Order) -> None:
        self.orders = [each for each in self.orders if each is not order]
        self._tell(engine.DELETE, order, order.lots)

    def _tell(self, kind: int, order: Order, lots: int) -> None:
        if not order.is_hidden:
            self.events.append((kind, order.order_id, order.side, order.price, lots))
        elif kind == engine.EXECUTE:
            self.events.append((engine.EXECUTE_HIDDEN, 0, order.side, order.price, lots))


class Feed:
    """Reads an order-by-order feed into queues and asserts that only the front of the best queue trades."""

    def __init__(self) -> None:
        self.queues: dict[tuple[int, int], list[list[int]]] = {}
        """[order id, lots] in order of priority by (side, price)."""

    def read(self, kind: int, order_id: int, side: int, price: int, lots: int) -> None:
        assert lots > 0
        queue = self.queues.setdefault((side, price), [])
        if kind == engine.ADD:
            assert order_id not in {each for other in self.queues.values() for each, _ in other}
            queue.append([order_id, lots])
        elif kind == engine.EXECUTE_HIDDEN:
            assert order_id == 0
            self._is_best(side, price, or_better=True)
            assert not queue, "a hidden order traded before a displayed one of its price"
        else:
            place = next(place for place, order in enumerate(queue) if order[0] == order_id)
            if kind == engine.EXECUTE:
                assert place == 0
                self._is_best(side, price)
            queue[place][1] -= lots
            assert queue[place][1] >= 0
            assert (kind == engine.DELETE) <= (queue[place][1] == 0)
            if queue[place][1] == 0:
                del queue[place]
        if not queue:
            del self.queues[side, price]

    def levels(self) -> Level:
        return {level: sum(lots for _, lots in queue) for level, queue in self.queues.items()}

    def _is_best(self, side: int, price: int, *, or_better: bool = False) -> None:
        prices = [at for (of, at), queue in self.queues.items() if of == side and queue]
        if or_better:
            prices.append(price)
        assert price == (max if side == BID else min)(prices)


def queues(book: engine.Book) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """Walk every queue: (id, lots, reserve) in order of priority by (row, price); asserts that the links agree."""
    found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    width, low = book.levels.shape[1], int(book.state.low[0])
    levels, occupied = book.levels.tolist(), book.occupied.tolist()
    for row in range(4):
        for price in range(low, low + width):
            lots, first, last = levels[row][price % width]
            slot, ahead, queue = first, 0, []
            while slot:
                order = book.orders[slot]
                assert (order.ahead, order.side, order.price) == (ahead, row % 2, price)
                assert bool(order.terms & HIDDEN) == (row >= 2)
                queue.append((int(order.order_id), int(order.lots), int(order.reserve)))
                slot, ahead = int(order.behind), slot
            assert last == ahead
            assert lots == sum(lots for _, lots, _ in queue)
            bit = (price if row % 2 else ~price) % width
            assert bool(occupied[row][bit // 64] >> bit % 64 & 1) == bool(queue)
            if queue:
                found[row, price] = queue
    return found


def check_totals(book: engine.Book) -> None:
    """Every aggregate equals what the queues say, and the book is not crossed."""
    found = queues(book)
    used = [order_id % book.orders.size for queue in found.values() for order_id, _, _ in queue]
    free = book.free[: book.state.free_slots[0]].tolist()
    assert sorted(used + free) == list(range(1, book.orders.size))
    best = []
    for row in range(4):
        own = {price: queue for (of, price), queue in found.items() if of == row}
        orders = [order for queue in own.values() for order in queue]
        assert book.sides.orders[row] == len(orders)
        assert book.sides.lots[row] == sum(lots for _, lots, _ in orders)
        displays = [int(book.orders[order_id % book.orders.size].display) for order_id, _, _ in orders]
        parts = [-(-left // shown) for (_, _, left), shown in zip(orders, displays, strict=True) if left]
        assert book.sides.refreshes[row] == sum(parts)
        best.append((max if row % 2 == BID else min)(own, default=(engine.NO_BID, engine.NO_ASK)[row % 2]))
        assert book.sides.best[row] == best[-1]
    assert max(best[BID], best[BID + 2]) < min(best[ASK], best[ASK + 2])


def depth(book: engine.Book, side: int, levels: int) -> list[tuple[int, int]]:
    prices, lots = engine.depth(book, side, levels)
    return list(zip(prices.tolist(), lots.tolist(), strict=True))
