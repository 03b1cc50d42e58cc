"""The shape of a book and of what its engine reports: tuples of arrays, so that compiled code can take them.

Here belong constants, record types, empty books and questions to a book; what changes one is `engine`'s. Prices are
positive integers in ticks, sizes integers in lots, sides `BID` and `ASK`. Orders live in a bounded pool of slots, each
price level is a doubly linked queue of slots, and levels lie in a ring indexed by price, with a bit for each that holds
an order. The ring holds one band of prices at a time. Displayed and hidden orders stand in rows of their own, `side`
and `side + HIDDEN_ROWS`.

An order id is `sequence * pool + slot`, so finding an order needs no search.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.cpython.unsafe import numbers

from synth_pipeline.errors import InputError
from synth_pipeline.market.compiling import kernel, njit
from synth_pipeline.series import IntArray

_trailing_zeros: Any = numbers.trailing_zeros

BID, ASK = 0, 1
HIDDEN_ROWS = 2
NO_BID = 0
"""Best bid of a side without orders."""
NO_ASK = 2**62
"""Best ask of a side without orders."""

IOC, POST_ONLY, HIDDEN = 1, 2, 4
"""Flags of a limit order: what does not trade at once is dropped; refused where it would trade; never displayed."""
ALLOW, CANCEL_NEWEST, CANCEL_OLDEST, CANCEL_BOTH = 0, 1, 2, 3
"""What happens where two orders of one owner meet; orders of owner 0 are nobody's and always trade."""
ADD, REDUCE, DELETE, EXECUTE, EXECUTE_HIDDEN = 1, 2, 3, 4, 5
"""Kinds of order event, the codes of the `orders` table."""

REFUSED_SIZE = -1
"""The size is not positive, or outside what the rules allow."""
REFUSED_PRICE = -2
"""The price lies outside the band."""
REFUSED_FULL = -3
"""No slot is free."""
REFUSED_JOURNAL = -4
"""The journal might overflow: the reader must empty it first."""
REFUSED_TICK = -5
"""The price is no multiple of the tick."""
REFUSED_LOT = -6
"""The size is no multiple of the lot."""
REFUSED_FLAGS = -7
"""The flags contradict each other: `IOC` with any other or with a display, `HIDDEN` with a display."""
REFUSED_DISPLAY = -8
"""The displayed part is negative, no multiple of the lot, or would make too many parts."""
REFUSED_CROSSES = -9
"""A `POST_ONLY` order would trade."""


_ORDER_FIELDS = ("order_id", "side", "price", "lots", "ahead", "behind", "owner", "terms", "display", "reserve")
ORDER = np.dtype([(name, np.int64) for name in _ORDER_FIELDS])
"""A slot of the pool: id 0 when free; `lots` stand in the queue, `reserve` is what an iceberg shows later, `display` at
a time; `terms` are its flags, `ahead` and `behind` the slots of its neighbours in the queue."""
LEVEL = np.dtype([(name, np.int64) for name in ("lots", "first", "last")])
"""One row of one price: lots in the queue, slots at its front and at its back."""
SIDE = np.dtype([(name, np.int64) for name in ("best", "orders", "lots", "refreshes")])
"""Best price (or `NO_BID`, `NO_ASK`), orders and lots in the queues, parts that icebergs will still show."""
STATE = np.dtype([(name, np.int64) for name in ("free_slots", "sequence", "low", "traded")])
"""Height of the stack of free slots, ids given so far, lowest price of the band, lots of all trades so far."""

LEVEL_CHANGE = np.dtype([(name, np.int64) for name in ("side", "price", "before", "after")])
"""Lots displayed at one side of one price before and after an operation."""
TRADE = np.dtype(
    [(name, np.int64) for name in ("maker_id", "taker_id", "price", "lots", "taker_side", "maker_owner", "taker_owner")]
)
ORDER_EVENT = np.dtype([(name, np.int64) for name in ("kind", "order_id", "side", "price", "lots")])
"""What an order-by-order feed shows of a resting order: lots added, taken out or traded; hidden orders show nothing but
their executions, without an id."""
ROWS = np.dtype([(name, np.int64) for name in ("levels", "trades", "events")])


class Rules(NamedTuple):
    """Rules of the instrument, in the engine's units; an order that breaks one is refused.

    Those of the `TICK_SIZE`, `LOT_SIZE` and `ICEBERG_PARTS` filters of Binance, and its self-trade prevention modes.
    """

    tick: int = 1
    """Prices are multiples of it."""
    lot: int = 1
    """Sizes are multiples of it."""
    smallest: int = 1
    largest: int = 2**40
    iceberg_parts: int = 100
    """Most parts in which an iceberg may show itself."""
    self_trade: int = ALLOW


RULES = np.dtype([(name, np.int64) for name in Rules._fields])


class Book(NamedTuple):
    """All resting orders. Slot 0 means "none"."""

    orders: np.recarray
    """The pool of `ORDER` slots."""
    free: IntArray
    """Stack of free slots."""
    levels: np.recarray
    """The ring of `LEVEL`, shape (2 sides displayed and 2 hidden, ticks of the band)."""
    occupied: IntArray
    """A bit a level that holds an order, 64 a word, best price first: shape (4 rows, ticks of the band / 64)."""
    sides: np.recarray
    """`SIDE` of displayed bids and asks, then of hidden ones."""
    state: np.recarray
    """One `STATE`."""
    rules: np.recarray
    """One `RULES`: may be changed at any time; what rests already stays."""


class Journal(NamedTuple):
    """What the engine did, appended until its reader sets `rows` back to zero.

    One operation reports a (side, price) at most once among the levels.
    """

    levels: np.recarray
    """`LEVEL_CHANGE` rows."""
    trades: np.recarray
    """`TRADE` rows."""
    events: np.recarray
    """`ORDER_EVENT` rows."""
    rows: np.recarray
    """One `ROWS`: how many of each are written."""


def records(shape: int | tuple[int, ...], dtype: np.dtype[np.void]) -> np.recarray:
    """Return zeroed records whose fields are attributes, in compiled code as outside."""
    return np.zeros(shape, dtype=dtype).view(np.recarray)


def new_book(centre: int, *, levels: int = 2**16, pool: int = 2**14, rules: Rules | None = None) -> Book:
    """Return an empty book of at most `pool - 1` orders, its band of `levels` ticks centred on a price.

    Raises `InputError` unless `levels`, at least 64, and `pool` are powers of two: a mask then finds level and slot.
    """
    for name, value, least in (("levels", levels, 64), ("pool", pool, 2)):
        if value < least or value & (value - 1):
            raise InputError(f"{name} is {value}: choose a power of two from {least} on")
    book = Book(
        orders=records(pool, ORDER),
        free=np.arange(pool, 0, -1, dtype=np.int64) - 1,
        levels=records((4, levels), LEVEL),
        occupied=np.zeros((4, levels // 64), dtype=np.int64),
        sides=records(4, SIDE),
        state=records(1, STATE),
        rules=records(1, RULES),
    )
    book.sides.best[:] = NO_BID, NO_ASK, NO_BID, NO_ASK
    book.state.free_slots[0] = pool - 1
    book.state.low[0] = max(1, centre - levels // 2)
    book.rules[0] = rules or Rules()
    return book


def new_journal(capacity: int = 2**16) -> Journal:
    """Return an empty journal of at most `capacity` rows of each kind."""
    return Journal(
        records(capacity, LEVEL_CHANGE), records(capacity, TRADE), records(capacity, ORDER_EVENT), records(1, ROWS)
    )


@kernel
def resting(book: Book, side: int, price: int) -> int:
    """Return the lots displayed at a price within the band."""
    return int(book.levels[side, price & (book.levels.shape[1] - 1)].lots)


@kernel
def find(book: Book, order_id: int) -> int:
    """Return the slot of an order, or 0 when it does not rest."""
    slot = order_id & (book.orders.size - 1)
    return slot if book.orders[slot].order_id == order_id else 0


@kernel
def front(book: Book, side: int) -> int:
    """Return the id of the order that would trade next on a side, or 0 when the side is empty."""
    row = best_row(book, side)
    if book.sides[row].orders == 0:
        return 0
    return int(book.orders[book.levels[row, book.sides[row].best & (book.levels.shape[1] - 1)].first].order_id)


@kernel
def queue_ahead(book: Book, order_id: int) -> int:
    """Return the lots that would trade before an order at its price, reserves apart; -1 when it does not rest.

    All that is displayed at the price stands ahead of a hidden order. The time it takes grows with the orders ahead.
    """
    slot = find(book, order_id)
    if slot == 0:
        return -1
    order = book.orders[slot]
    lots = resting(book, order.side, order.price) if order.terms & HIDDEN else 0
    slot = order.ahead
    while slot != 0:
        lots += book.orders[slot].lots
        slot = book.orders[slot].ahead
    return lots


@njit(cache=True)
def depth(book: Book, side: int, levels: int) -> tuple[IntArray, IntArray]:
    """Return prices and lots of the best displayed levels, best first; fewer when the side has fewer."""
    prices, sizes = np.empty(levels, dtype=np.int64), np.empty(levels, dtype=np.int64)
    price, left, rows = book.sides[side].best, book.sides[side].lots, 0
    while left > 0 and rows < levels:
        price = next_occupied(book, side, price)
        prices[rows], sizes[rows] = price, resting(book, side, price)
        left -= sizes[rows]
        rows += 1
        price += 2 * side - 1
    return prices[:rows], sizes[:rows]


@kernel
def has_room(book: Book, journal: Journal) -> bool:
    """Tell whether the journal holds whatever one operation can report."""
    sides, rows = book.sides, journal.rows[0]
    orders = sides[0].orders + sides[1].orders + sides[2].orders + sides[3].orders
    refreshes = sides[0].refreshes + sides[1].refreshes
    # An event and a trade for each order or part of one that goes, an event for each part shown, and its own two.
    needed = orders + 2 * refreshes + 2
    return bool(max(rows.levels, rows.trades, rows.events) + needed <= journal.levels.size)


@kernel
def best_row(book: Book, side: int) -> int:
    """Return the row whose best order trades first: at equal prices the displayed one."""
    shown, hidden = book.sides[side].best, book.sides[side + HIDDEN_ROWS].best
    return side + HIDDEN_ROWS if (hidden > shown if side == BID else hidden < shown) else side


@kernel
def level_bit(row: int, price: int) -> int:
    """Number the levels of a row so that better prices come first; the ring's mask is still to be laid over it."""
    return price if row & 1 else ~price


@kernel
def next_occupied(book: Book, row: int, price: int) -> int:
    """Return the best price of a row that holds an order, from `price` on away from the market; there must be one."""
    mask = book.levels.shape[1] - 1
    bit = level_bit(row, price) & mask
    place = bit >> 6
    word = book.occupied[row, place] & (-1 << (bit & 63))
    while word == 0:
        place = (place + 1) & (mask >> 6)
        word = book.occupied[row, place]
    away = ((place << 6) + _trailing_zeros(word) - bit) & mask
    return int(price + away if row & 1 else price - away)
