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


class Book(NamedTuple):
    """All resting orders. Slot 0 and an id of 0 mean "none"."""

    order_id: IntArray
    """Id of the order in a slot, 0 when free; shape (pool,), as all of the order columns."""
    price: IntArray
    size: IntArray
    """Lots still resting."""
    side: IntArray
    ahead: IntArray
    """Slot of the order before it in its queue."""
    behind: IntArray
    """Slot of the order after it in its queue."""
    free: IntArray
    """Stack of free slots; its height is `free_slots[0]`."""
    first: IntArray
    """Slot at the front of a level's queue; shape (2, levels), as all of the level columns."""
    last: IntArray
    """Slot at the back of a level's queue."""
    level_size: IntArray
    """Lots resting at a level."""
    best: IntArray
    """Best bid and best ask, or `NO_BID` and `NO_ASK`."""
    orders: IntArray
    """Orders resting on each side."""
    volume: IntArray
    """Lots resting on each side."""
    free_slots: IntArray
    sequence: IntArray
    """Ids given so far."""
    band: IntArray
    """Lowest price of the band; its length is that of the ring."""


class Journal(NamedTuple):
    """What the engine did, appended until its reader sets `rows` back to zero.

    One operation reports a (side, price) at most once, with the level's size before and after it.
    """

    level_side: IntArray
    level_price: IntArray
    level_before: IntArray
    level_after: IntArray
    maker_id: IntArray
    taker_id: IntArray
    trade_price: IntArray
    trade_size: IntArray
    taker_side: IntArray
    rows: IntArray
    """Level changes and trades written so far."""


def new_book(centre: int, *, levels: int = 2**16, pool: int = 2**14) -> Book:
    """Return an empty book of at most `pool - 1` orders, its band of `levels` ticks centred on a price.

    `levels` must be a power of two, so that a price finds its level with one mask.
    """

    def column() -> IntArray:
        return np.zeros(pool, dtype=np.int64)

    def ring() -> IntArray:
        return np.zeros((2, levels), dtype=np.int64)

    return Book(
        column(),
        column(),
        column(),
        column(),
        column(),
        column(),
        free=np.arange(pool, 0, -1, dtype=np.int64) - 1,
        first=ring(),
        last=ring(),
        level_size=ring(),
        best=np.array([NO_BID, NO_ASK], dtype=np.int64),
        orders=np.zeros(2, dtype=np.int64),
        volume=np.zeros(2, dtype=np.int64),
        free_slots=np.array([pool - 1], dtype=np.int64),
        sequence=np.zeros(1, dtype=np.int64),
        band=np.array([max(1, centre - levels // 2)], dtype=np.int64),
    )


def new_journal(capacity: int = 2**16) -> Journal:
    """Return an empty journal of at most `capacity` level changes and as many trades."""
    columns = [np.zeros(capacity, dtype=np.int64) for _ in range(9)]
    return Journal._make([*columns, np.zeros(2, dtype=np.int64)])


@njit(cache=True)
def limit(book: Book, journal: Journal, side: int, price: int, size: int) -> int:
    """Match an order up to its price and let the rest join the back of the queue there.

    Returns its id (it may rest no more), or one of the `REFUSED_…` codes, all negative, with nothing changed.
    """
    refusal = _refusal(book, journal, size)
    if refusal != 0:
        return refusal
    if price < book.band[0] or price >= book.band[0] + book.first.shape[1]:
        return REFUSED_PRICE
    if book.free_slots[0] == 0:
        return REFUSED_FULL
    # Taken before matching, which puts the slots of traded orders on the stack.
    book.free_slots[0] -= 1
    slot = book.free[book.free_slots[0]]
    order_id = _next_id(book, slot)
    rest = _match(book, journal, side, price, size, order_id)
    if rest > 0:
        _append(book, journal, slot, order_id, side, price, rest)
    else:
        _give_back(book, slot)
    return order_id


@njit(cache=True)
def market(book: Book, journal: Journal, side: int, size: int) -> int:
    """Match an order at any price; what finds no maker is dropped.

    Returns its id, or one of the `REFUSED_…` codes with nothing changed.
    """
    refusal = _refusal(book, journal, size)
    if refusal != 0:
        return refusal
    order_id = _next_id(book, 0)
    _match(book, journal, side, NO_ASK if side == BID else NO_BID, size, order_id)
    return order_id


@njit(cache=True)
def cancel(book: Book, journal: Journal, order_id: int) -> int:
    """Take an order out of the book and return the lots that rested; 0 for an order that rests no more.

    Returns `REFUSED_JOURNAL` when the change cannot be reported.
    """
    slot = find(book, order_id)
    if slot == 0:
        return 0
    if journal.rows[0] == journal.level_side.size:
        return REFUSED_JOURNAL
    side, price, size = book.side[slot], book.price[slot], book.size[slot]
    before = book.level_size[side, price & (book.first.shape[1] - 1)]
    _remove(book, slot)
    _report_level(book, journal, side, price, before)
    return int(size)


@njit(cache=True)
def move_band(book: Book, journal: Journal, centre: int) -> int:
    """Centre the band on a price, cancel every order that now lies outside, and return how many those were.

    Returns `REFUSED_JOURNAL` when the cancellations might not fit the journal.
    """
    if _refusal(book, journal, 1) != 0:
        return REFUSED_JOURNAL
    levels = book.first.shape[1]
    old_low, low = book.band[0], max(1, centre - levels // 2)
    cancelled = 0
    for price in range(old_low, old_low + levels):
        if low <= price < low + levels:
            continue
        for side in range(2):
            level = price & (levels - 1)
            before = book.level_size[side, level]
            while book.first[side, level] != 0:
                _remove(book, book.first[side, level])
                cancelled += 1
            if before > 0:
                _report_level(book, journal, side, price, before)
    book.band[0] = low
    return cancelled


@njit(cache=True)
def depth(book: Book, side: int, levels: int) -> tuple[IntArray, IntArray]:
    """Return prices and sizes of the best levels of a side, best first; fewer when the side has fewer."""
    prices, sizes = np.empty(levels, dtype=np.int64), np.empty(levels, dtype=np.int64)
    mask, step, rows = book.first.shape[1] - 1, 2 * side - 1, 0
    price, left = book.best[side], book.volume[side]
    while left > 0 and rows < levels:
        size = book.level_size[side, price & mask]
        if size > 0:
            prices[rows], sizes[rows] = price, size
            left -= size
            rows += 1
        price += step
    return prices[:rows], sizes[:rows]


@njit(cache=True)
def level_size(book: Book, side: int, price: int) -> int:
    """Return the lots that rest at a price within the band."""
    return int(book.level_size[side, price & (book.first.shape[1] - 1)])


@njit(cache=True)
def find(book: Book, order_id: int) -> int:
    """Return the slot of an order, or 0 when it does not rest."""
    slot = order_id % book.order_id.size
    return slot if book.order_id[slot] == order_id else 0


@njit(cache=True)
def front(book: Book, side: int) -> int:
    """Return the id of the order that would trade next on a side, or 0 when the side is empty."""
    if book.orders[side] == 0:
        return 0
    return int(book.order_id[book.first[side, book.best[side] & (book.first.shape[1] - 1)]])


@njit(cache=True)
def _refusal(book: Book, journal: Journal, size: int) -> int:
    if size <= 0:
        return REFUSED_SIZE
    # One operation reports at most one trade and one level per resting order, and its own level.
    rows = max(journal.rows[0], journal.rows[1]) + book.orders[0] + book.orders[1] + 1
    return REFUSED_JOURNAL if rows > journal.level_side.size else 0


@njit(cache=True)
def _next_id(book: Book, slot: int) -> int:
    book.sequence[0] += 1
    return int(book.sequence[0]) * book.order_id.size + slot


@njit(cache=True)
def _match(book: Book, journal: Journal, side: int, price: int, size: int, taker_id: int) -> int:
    """Trade against the other side up to `price` and return the size left."""
    other, mask = 1 - side, book.first.shape[1] - 1
    while size > 0 and book.orders[other] > 0:
        best = book.best[other]
        if (side == BID and best > price) or (side == ASK and best < price):
            break
        level = best & mask
        before = book.level_size[other, level]
        while size > 0 and book.first[other, level] != 0:
            size -= _fill(book, journal, book.first[other, level], size, taker_id)
        _report_level(book, journal, other, best, before)
    return size


@njit(cache=True)
def _fill(book: Book, journal: Journal, slot: int, size: int, taker_id: int) -> int:
    """Trade with one maker, report it and return the size traded."""
    side, traded, row = book.side[slot], min(size, book.size[slot]), journal.rows[1]
    journal.maker_id[row] = book.order_id[slot]
    journal.taker_id[row] = taker_id
    journal.trade_price[row] = book.price[slot]
    journal.trade_size[row] = traded
    journal.taker_side[row] = 1 - side
    journal.rows[1] += 1
    if traded == book.size[slot]:
        _remove(book, slot)
    else:
        book.size[slot] -= traded
        book.volume[side] -= traded
        book.level_size[side, book.price[slot] & (book.first.shape[1] - 1)] -= traded
    return int(traded)


@njit(cache=True)
def _append(book: Book, journal: Journal, slot: int, order_id: int, side: int, price: int, size: int) -> None:
    """Put an order into a slot that was taken, and at the back of its queue."""
    level = price & (book.first.shape[1] - 1)
    before, last = book.level_size[side, level], book.last[side, level]
    book.order_id[slot], book.price[slot], book.size[slot], book.side[slot] = order_id, price, size, side
    book.ahead[slot], book.behind[slot] = last, 0
    if last == 0:
        book.first[side, level] = slot
    else:
        book.behind[last] = slot
    book.last[side, level] = slot
    book.level_size[side, level] += size
    book.volume[side] += size
    book.orders[side] += 1
    if (side == BID and price > book.best[BID]) or (side == ASK and price < book.best[ASK]):
        book.best[side] = price
    _report_level(book, journal, side, price, before)


@njit(cache=True)
def _remove(book: Book, slot: int) -> None:
    """Unlink an order from its queue and free its slot; finds the next best level when its own was the best."""
    side, price = book.side[slot], book.price[slot]
    level = price & (book.first.shape[1] - 1)
    ahead, behind = book.ahead[slot], book.behind[slot]
    if ahead == 0:
        book.first[side, level] = behind
    else:
        book.behind[ahead] = behind
    if behind == 0:
        book.last[side, level] = ahead
    else:
        book.ahead[behind] = ahead
    book.level_size[side, level] -= book.size[slot]
    book.volume[side] -= book.size[slot]
    book.orders[side] -= 1
    book.order_id[slot] = 0
    _give_back(book, slot)
    if price == book.best[side] and book.first[side, level] == 0:
        _find_best(book, side)


@njit(cache=True)
def _give_back(book: Book, slot: int) -> None:
    book.free[book.free_slots[0]] = slot
    book.free_slots[0] += 1


@njit(cache=True)
def _find_best(book: Book, side: int) -> None:
    """Walk away from the market until a level holds an order."""
    if book.orders[side] == 0:
        book.best[side] = NO_BID if side == BID else NO_ASK
        return
    mask, step = book.first.shape[1] - 1, 2 * side - 1
    price = book.best[side]
    while book.first[side, price & mask] == 0:
        price += step
    book.best[side] = price


@njit(cache=True)
def _report_level(book: Book, journal: Journal, side: int, price: int, before: int) -> None:
    row = journal.rows[0]
    journal.level_side[row] = side
    journal.level_price[row] = price
    journal.level_before[row] = before
    journal.level_after[row] = book.level_size[side, price & (book.first.shape[1] - 1)]
    journal.rows[0] += 1
