"""The matching engine: price-time priority over limit, market and cancel orders, order by order.

Here belongs the book and nothing that decides what to send it. Prices are positive integers in ticks, sizes integers in
lots, sides `BID` and `ASK`. A book is a tuple of arrays, so that compiled code can take it: orders live in a bounded
pool of slots, each price level is a doubly linked queue of slots, and levels lie in a ring indexed by price. The ring
holds one band of prices at a time; `move_band` follows the market and cancels what falls out.

An order id is `sequence * pool + slot`, so finding an order needs no search, and ids grow with time.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.series import IntArray

BID, ASK = 0, 1
NO_BID = 0
"""Best bid of a side without orders."""
NO_ASK = 2**62
"""Best ask of a side without orders."""

REFUSED_SIZE = -1
"""The size is not positive."""
REFUSED_PRICE = -2
"""The price lies outside the band."""
REFUSED_FULL = -3
"""No slot is free."""
REFUSED_JOURNAL = -4
"""The journal might overflow: the reader must empty it first."""


ORDER = np.dtype([(name, np.int64) for name in ("order_id", "side", "price", "lots", "ahead", "behind")])
"""A slot of the pool: id 0 when free; `ahead` and `behind` are the slots of its neighbours in the queue."""
LEVEL = np.dtype([(name, np.int64) for name in ("lots", "first", "last")])
"""One side of one price: lots resting, slots at the front and at the back of the queue."""
SIDE = np.dtype([(name, np.int64) for name in ("best", "orders", "lots")])
"""Best price (or `NO_BID`, `NO_ASK`), orders and lots resting."""
STATE = np.dtype([(name, np.int64) for name in ("free_slots", "sequence", "low")])
"""Height of the stack of free slots, ids given so far, lowest price of the band."""

LEVEL_CHANGE = np.dtype([(name, np.int64) for name in ("side", "price", "before", "after")])
"""Lots at one side of one price before and after an operation."""
TRADE = np.dtype([(name, np.int64) for name in ("maker_id", "taker_id", "price", "lots", "taker_side")])
ROWS = np.dtype([(name, np.int64) for name in ("levels", "trades")])


class Book(NamedTuple):
    """All resting orders. Slot 0 means "none"."""

    orders: np.recarray
    """The pool of `ORDER` slots."""
    free: IntArray
    """Stack of free slots."""
    levels: np.recarray
    """The ring of `LEVEL`, shape (2 sides, ticks of the band)."""
    sides: np.recarray
    """`SIDE` of bids and asks."""
    state: np.recarray
    """One `STATE`."""


class Journal(NamedTuple):
    """What the engine did, appended until its reader sets `rows` back to zero.

    One operation reports a (side, price) at most once.
    """

    levels: np.recarray
    """`LEVEL_CHANGE` rows."""
    trades: np.recarray
    """`TRADE` rows."""
    rows: np.recarray
    """One `ROWS`: how many of each are written."""


def records(shape: int | tuple[int, ...], dtype: np.dtype[np.void]) -> np.recarray:
    """Return zeroed records whose fields are attributes, in compiled code as outside."""
    return np.zeros(shape, dtype=dtype).view(np.recarray)


def new_book(centre: int, *, levels: int = 2**16, pool: int = 2**14) -> Book:
    """Return an empty book of at most `pool - 1` orders, its band of `levels` ticks centred on a price.

    `levels` must be a power of two, so that a price finds its level with one mask.
    """
    free = np.arange(pool, 0, -1, dtype=np.int64) - 1
    book = Book(records(pool, ORDER), free, records((2, levels), LEVEL), records(2, SIDE), records(1, STATE))
    book.sides.best[:] = NO_BID, NO_ASK
    book.state.free_slots[0] = pool - 1
    book.state.low[0] = max(1, centre - levels // 2)
    return book


def new_journal(capacity: int = 2**16) -> Journal:
    """Return an empty journal of at most `capacity` level changes and as many trades."""
    return Journal(records(capacity, LEVEL_CHANGE), records(capacity, TRADE), records(1, ROWS))


@njit(cache=True)
def limit(book: Book, journal: Journal, side: int, price: int, lots: int) -> int:
    """Match an order up to its price and let the rest join the back of the queue there.

    Returns its id (it may rest no more), or one of the `REFUSED_…` codes, all negative, with nothing changed.
    """
    refusal = _refusal(book, journal, lots)
    if refusal != 0:
        return refusal
    state = book.state[0]
    if price < state.low or price >= state.low + book.levels.shape[1]:
        return REFUSED_PRICE
    if state.free_slots == 0:
        return REFUSED_FULL
    # Taken before matching, which puts the slots of traded orders on the stack.
    state.free_slots -= 1
    slot = book.free[state.free_slots]
    order_id = _next_id(book, slot)
    rest = _match(book, journal, side, price, lots, order_id)
    if rest > 0:
        _append(book, journal, slot, order_id, side, price, rest)
    else:
        _give_back(book, slot)
    return order_id


@njit(cache=True)
def market(book: Book, journal: Journal, side: int, lots: int) -> int:
    """Match an order at any price; what finds no maker is dropped.

    Returns its id, or one of the `REFUSED_…` codes with nothing changed.
    """
    refusal = _refusal(book, journal, lots)
    if refusal != 0:
        return refusal
    order_id = _next_id(book, 0)
    _match(book, journal, side, NO_ASK if side == BID else NO_BID, lots, order_id)
    return order_id


@njit(cache=True)
def cancel(book: Book, journal: Journal, order_id: int) -> int:
    """Take an order out of the book and return the lots that rested; 0 for an order that rests no more.

    Returns `REFUSED_JOURNAL` when the change cannot be reported.
    """
    slot = find(book, order_id)
    if slot == 0:
        return 0
    if journal.rows[0].levels == journal.levels.size:
        return REFUSED_JOURNAL
    order = book.orders[slot]
    before = resting(book, order.side, order.price)
    _remove(book, slot)
    _report_level(book, journal, order.side, order.price, before)
    return int(order.lots)


@njit(cache=True)
def move_band(book: Book, journal: Journal, centre: int) -> int:
    """Centre the band on a price, cancel every order that now lies outside, and return how many those were.

    Returns `REFUSED_JOURNAL` when the cancellations might not fit the journal.
    """
    if _refusal(book, journal, 1) != 0:
        return REFUSED_JOURNAL
    width = book.levels.shape[1]
    old_low, low = book.state[0].low, max(1, centre - width // 2)
    before_all = book.sides[BID].orders + book.sides[ASK].orders
    for price in range(old_low, old_low + width):
        if low <= price < low + width:
            continue
        for side in range(2):
            level = book.levels[side, price & (width - 1)]
            before = level.lots
            while level.first != 0:
                _remove(book, level.first)
            if before > 0:
                _report_level(book, journal, side, price, before)
    book.state[0].low = low
    return int(before_all - book.sides[BID].orders - book.sides[ASK].orders)


@njit(cache=True)
def depth(book: Book, side: int, levels: int) -> tuple[IntArray, IntArray]:
    """Return prices and lots of the best levels of a side, best first; fewer when the side has fewer."""
    prices, sizes = np.empty(levels, dtype=np.int64), np.empty(levels, dtype=np.int64)
    price, left, rows = book.sides[side].best, book.sides[side].lots, 0
    while left > 0 and rows < levels:
        lots = resting(book, side, price)
        if lots > 0:
            prices[rows], sizes[rows] = price, lots
            left -= lots
            rows += 1
        price += 2 * side - 1
    return prices[:rows], sizes[:rows]


@njit(cache=True)
def resting(book: Book, side: int, price: int) -> int:
    """Return the lots that rest at a price within the band."""
    return int(book.levels[side, price & (book.levels.shape[1] - 1)].lots)


@njit(cache=True)
def find(book: Book, order_id: int) -> int:
    """Return the slot of an order, or 0 when it does not rest."""
    slot = order_id % book.orders.size
    return slot if book.orders[slot].order_id == order_id else 0


@njit(cache=True)
def front(book: Book, side: int) -> int:
    """Return the id of the order that would trade next on a side, or 0 when the side is empty."""
    if book.sides[side].orders == 0:
        return 0
    level = book.levels[side, book.sides[side].best & (book.levels.shape[1] - 1)]
    return int(book.orders[level.first].order_id)


@njit(cache=True)
def _refusal(book: Book, journal: Journal, lots: int) -> int:
    if lots <= 0:
        return REFUSED_SIZE
    # One operation reports at most one trade and one level per resting order, and its own level.
    used = max(journal.rows[0].levels, journal.rows[0].trades)
    needed = book.sides[BID].orders + book.sides[ASK].orders + 1
    return REFUSED_JOURNAL if used + needed > journal.levels.size else 0


@njit(cache=True)
def _next_id(book: Book, slot: int) -> int:
    book.state[0].sequence += 1
    return int(book.state[0].sequence) * book.orders.size + slot


@njit(cache=True)
def _match(book: Book, journal: Journal, side: int, price: int, lots: int, taker_id: int) -> int:
    """Trade against the other side up to `price` and return the lots left."""
    other = 1 - side
    makers = book.sides[other]
    while lots > 0 and makers.orders > 0:
        best = makers.best
        if (side == BID and best > price) or (side == ASK and best < price):
            break
        level = book.levels[other, best & (book.levels.shape[1] - 1)]
        before = level.lots
        while lots > 0 and level.first != 0:
            lots -= _fill(book, journal, level.first, lots, taker_id)
        _report_level(book, journal, other, best, before)
    return lots


@njit(cache=True)
def _fill(book: Book, journal: Journal, slot: int, lots: int, taker_id: int) -> int:
    """Trade with one maker, report it and return the lots traded."""
    maker = book.orders[slot]
    traded = min(lots, maker.lots)
    trade = journal.trades[journal.rows[0].trades]
    trade.maker_id, trade.taker_id, trade.taker_side = maker.order_id, taker_id, 1 - maker.side
    trade.price, trade.lots = maker.price, traded
    journal.rows[0].trades += 1
    if traded == maker.lots:
        _remove(book, slot)
    else:
        maker.lots -= traded
        book.sides[maker.side].lots -= traded
        book.levels[maker.side, maker.price & (book.levels.shape[1] - 1)].lots -= traded
    return int(traded)


@njit(cache=True)
def _append(book: Book, journal: Journal, slot: int, order_id: int, side: int, price: int, lots: int) -> None:
    """Put an order into a slot that was taken, and at the back of its queue."""
    level, own = book.levels[side, price & (book.levels.shape[1] - 1)], book.sides[side]
    order = book.orders[slot]
    order.order_id, order.side, order.price, order.lots = order_id, side, price, lots
    order.ahead, order.behind = level.last, 0
    if level.last == 0:
        level.first = slot
    else:
        book.orders[level.last].behind = slot
    level.last = slot
    before = level.lots
    level.lots += lots
    own.lots += lots
    own.orders += 1
    if (side == BID and price > own.best) or (side == ASK and price < own.best):
        own.best = price
    _report_level(book, journal, side, price, before)


@njit(cache=True)
def _remove(book: Book, slot: int) -> None:
    """Unlink an order from its queue and free its slot; finds the next best level when its own was the best.

    The slot keeps side, price and lots until it is used again.
    """
    order = book.orders[slot]
    level, own = book.levels[order.side, order.price & (book.levels.shape[1] - 1)], book.sides[order.side]
    if order.ahead == 0:
        level.first = order.behind
    else:
        book.orders[order.ahead].behind = order.behind
    if order.behind == 0:
        level.last = order.ahead
    else:
        book.orders[order.behind].ahead = order.ahead
    level.lots -= order.lots
    own.lots -= order.lots
    own.orders -= 1
    order.order_id = 0
    _give_back(book, slot)
    if order.price == own.best and level.first == 0:
        own.best = _next_best(book, order.side)


@njit(cache=True)
def _give_back(book: Book, slot: int) -> None:
    book.free[book.state[0].free_slots] = slot
    book.state[0].free_slots += 1


@njit(cache=True)
def _next_best(book: Book, side: int) -> int:
    """Walk from the best price away from the market until a level holds an order."""
    if book.sides[side].orders == 0:
        return NO_BID if side == BID else NO_ASK
    price = int(book.sides[side].best)
    while resting(book, side, price) == 0:
        price += 2 * side - 1
    return price


@njit(cache=True)
def _report_level(book: Book, journal: Journal, side: int, price: int, before: int) -> None:
    change = journal.levels[journal.rows[0].levels]
    change.side, change.price, change.before, change.after = side, price, before, resting(book, side, price)
    journal.rows[0].levels += 1
