"""The matching engine: price-time priority, order by order.

Here belongs the book and nothing that decides what to send it. Prices are positive integers in ticks, sizes integers in
lots, sides `BID` and `ASK`. A book is a tuple of arrays, so that compiled code can take it: orders live in a bounded
pool of slots, each price level is a doubly linked queue of slots, and levels lie in a ring indexed by price, with a bit
for each that holds an order. The ring holds one band of prices at a time; `move_band` follows the market and cancels
what falls out. Displayed and hidden orders stand in rows of their own, `side` and `side + HIDDEN_ROWS`.

An order id is `sequence * pool + slot`, so finding an order needs no search, and ids grow with time. An order keeps its
id when it is modified and when an iceberg shows its next part. The rules, and the venues they are those of, are told in
`docs/matching-engine.md`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros

from synth_pipeline.errors import InputError
from synth_pipeline.series import IntArray

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


ORDER = np.dtype(
    [(name, np.int64) for name in ("order_id", "price", "lots", "reserve", "display", "owner")]
    + [(name, np.int32) for name in ("ahead", "behind", "side", "flags")]
)
"""A slot of the pool, one cache line: id 0 when free; `lots` stand in the queue, `reserve` is what an iceberg shows
later, `display` at a time; `ahead` and `behind` are the slots of its neighbours in the queue."""
LEVEL = np.dtype([("lots", np.int64), ("first", np.int32), ("last", np.int32)])
"""One row of one price: lots in the queue, slots at its front and at its back."""
SIDE = np.dtype([(name, np.int64) for name in ("best", "orders", "lots", "refreshes")])
"""Best price (or `NO_BID`, `NO_ASK`), orders and lots in the queues, parts that icebergs will still show."""
STATE = np.dtype([(name, np.int64) for name in ("free_slots", "sequence", "low")])
"""Height of the stack of free slots, ids given so far, lowest price of the band."""

LEVEL_CHANGE = np.dtype([(name, np.int64) for name in ("side", "price", "before", "after")])
"""Lots displayed at one side of one price before and after an operation."""
TRADE = np.dtype(
    [
        (name, np.int64)
        for name in ("maker_id", "taker_id", "price", "lots", "taker_side", "maker_owner", "taker_owner")
    ]
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


@njit(cache=True)
def limit(
    book: Book, journal: Journal, side: int, price: int, lots: int, owner: int = 0, flags: int = 0, display: int = 0
) -> int:
    """Match an order up to its price and let the rest join the back of the queue there.

    Returns its id (it may rest no more), or one of the `REFUSED_…` codes, all negative, with nothing changed.
    """
    refusal = _refusal(book, journal, lots)
    if refusal == 0:
        refusal = _price_refusal(book, price)
    if refusal == 0 and (flags != 0 or display != 0):
        refusal = _kind_refusal(book, side, price, lots, flags, display)
    if refusal != 0:
        return refusal
    if flags & IOC:
        order_id = _next_id(book, 0)
        _match(book, journal, side, price, lots, order_id, owner)
        return order_id
    state = book.state[0]
    if state.free_slots == 0:
        return REFUSED_FULL
    # Taken before matching, which puts the slots of traded orders on the stack.
    state.free_slots -= 1
    slot = book.free[state.free_slots]
    order_id = _next_id(book, slot)
    rest = _match(book, journal, side, price, lots, order_id, owner)
    if rest > 0:
        order = book.orders[slot]
        order.order_id, order.side, order.price = order_id, side, price
        order.owner, order.flags, order.display = owner, flags, display
        _rest(book, journal, slot, rest, resting(book, side, price))
    else:
        _give_back(book, slot)
    return order_id


@njit(cache=True)
def market(book: Book, journal: Journal, side: int, lots: int, owner: int = 0) -> int:
    """Match an order at any price; what finds no maker is dropped.

    Returns its id, or one of the `REFUSED_…` codes with nothing changed.
    """
    refusal = _refusal(book, journal, lots)
    if refusal != 0:
        return refusal
    order_id = _next_id(book, 0)
    _match(book, journal, side, NO_ASK - 1 if side == BID else NO_BID + 1, lots, order_id, owner)
    return order_id


@njit(cache=True)
def cancel(book: Book, journal: Journal, order_id: int) -> int:
    """Take an order out of the book and return the lots that rested; 0 for an order that rests no more.

    Returns `REFUSED_JOURNAL` when the change cannot be reported.
    """
    slot = find(book, order_id)
    if slot == 0:
        return 0
    if max(journal.rows[0].levels, journal.rows[0].events) == journal.levels.size:
        return REFUSED_JOURNAL
    order = book.orders[slot]
    before = resting(book, order.side, order.price)
    _delete(book, journal, slot)
    _report_level(book, journal, order.side, order.price, before)
    return int(order.lots + order.reserve)


@njit(cache=True)
def modify(book: Book, journal: Journal, order_id: int, price: int, lots: int) -> int:
    """Change the price of a resting order and the lots it still wants; an iceberg's count its reserve.

    It keeps its place in the queue when only lots go, the reserve first; else it leaves, may trade, and joins the back.
    Returns its id, 0 for an order that rests no more, or one of the `REFUSED_…` codes with nothing changed.
    """
    slot = find(book, order_id)
    if slot == 0:
        return 0
    order = book.orders[slot]
    side, old_price = order.side, order.price
    refusal = _refusal(book, journal, lots)
    if refusal == 0:
        refusal = _price_refusal(book, price)
    if refusal == 0:
        refusal = _kind_refusal(book, side, price, lots, order.flags, order.display)
    if refusal != 0:
        return refusal
    before, surplus = resting(book, side, old_price), order.lots + order.reserve - lots
    if price == old_price and surplus >= 0:
        _reduce(book, journal, slot, surplus)
        _report_level(book, journal, side, old_price, before)
        return order_id
    _report_event(journal, order, DELETE, order.lots)
    _leave(book, slot)
    if price != old_price:
        _report_level(book, journal, side, old_price, before)
        before = resting(book, side, price)
    rest = _match(book, journal, side, price, lots, order_id, order.owner)
    if rest > 0:
        order.price = price
        _rest(book, journal, slot, rest, before)
    else:
        _free(book, slot)
    return order_id


@njit(cache=True)
def move_band(book: Book, journal: Journal, centre: int) -> int:
    """Centre the band on a price, cancel every order that now lies outside, and return how many those were.

    Returns `REFUSED_JOURNAL` when the cancellations might not fit the journal.
    """
    if not has_room(book, journal):
        return REFUSED_JOURNAL
    width = book.levels.shape[1]
    old_low, low = book.state[0].low, max(1, centre - width // 2)
    gone = 0
    for price in range(old_low, old_low + width):
        if low <= price < low + width:
            continue
        for row in range(4):
            level, before = book.levels[row, price & (width - 1)], resting(book, row % 2, price)
            while level.first != 0:
                _delete(book, journal, level.first)
                gone += 1
            if row < HIDDEN_ROWS:
                _report_level(book, journal, row, price, before)
    book.state[0].low = low
    return gone


@njit(cache=True)
def has_room(book: Book, journal: Journal) -> bool:
    """Tell whether the journal holds whatever one operation can report."""
    sides, rows = book.sides, journal.rows[0]
    orders = sides[0].orders + sides[1].orders + sides[2].orders + sides[3].orders
    refreshes = sides[0].refreshes + sides[1].refreshes
    # An event and a trade for each order or part of one that goes, an event for each part shown, and its own two.
    needed = orders + 2 * refreshes + 2
    return bool(max(rows.levels, rows.trades, rows.events) + needed <= journal.levels.size)


@njit(cache=True)
def depth(book: Book, side: int, levels: int) -> tuple[IntArray, IntArray]:
    """Return prices and lots of the best displayed levels, best first; fewer when the side has fewer."""
    prices, sizes = np.empty(levels, dtype=np.int64), np.empty(levels, dtype=np.int64)
    price, left, rows = book.sides[side].best, book.sides[side].lots, 0
    while left > 0 and rows < levels:
        price = _next_occupied(book, side, price)
        prices[rows], sizes[rows] = price, resting(book, side, price)
        left -= sizes[rows]
        rows += 1
        price += 2 * side - 1
    return prices[:rows], sizes[:rows]


@njit(cache=True)
def resting(book: Book, side: int, price: int) -> int:
    """Return the lots displayed at a price within the band."""
    return int(book.levels[side, price & (book.levels.shape[1] - 1)].lots)


@njit(cache=True)
def find(book: Book, order_id: int) -> int:
    """Return the slot of an order, or 0 when it does not rest."""
    slot = order_id & (book.orders.size - 1)
    return slot if book.orders[slot].order_id == order_id else 0


@njit(cache=True)
def front(book: Book, side: int) -> int:
    """Return the id of the order that would trade next on a side, or 0 when the side is empty."""
    row = _best_row(book, side)
    if book.sides[row].orders == 0:
        return 0
    return int(book.orders[book.levels[row, book.sides[row].best & (book.levels.shape[1] - 1)].first].order_id)


@njit(cache=True)
def queue_ahead(book: Book, order_id: int) -> int:
    """Return the lots that would trade before an order at its price, reserves apart; -1 when it does not rest.

    All that is displayed at the price stands ahead of a hidden order. Takes as long as orders of its own row stand ahead.
    """
    slot = find(book, order_id)
    if slot == 0:
        return -1
    order = book.orders[slot]
    lots = resting(book, order.side, order.price) if order.flags & HIDDEN else 0
    slot = order.ahead
    while slot != 0:
        lots += book.orders[slot].lots
        slot = book.orders[slot].ahead
    return lots


@njit(cache=True)
def _refusal(book: Book, journal: Journal, lots: int) -> int:
    rules = book.rules[0]
    if lots < rules.smallest or lots > rules.largest or lots <= 0:
        return REFUSED_SIZE
    if rules.lot != 1 and lots % rules.lot != 0:
        return REFUSED_LOT
    return 0 if has_room(book, journal) else REFUSED_JOURNAL


@njit(cache=True)
def _price_refusal(book: Book, price: int) -> int:
    low, tick = book.state[0].low, book.rules[0].tick
    if price < low or price >= low + book.levels.shape[1]:
        return REFUSED_PRICE
    return REFUSED_TICK if tick != 1 and price % tick != 0 else 0


@njit(cache=True)
def _kind_refusal(book: Book, side: int, price: int, lots: int, flags: int, display: int) -> int:
    if (flags & IOC and (flags != IOC or display != 0)) or (flags & HIDDEN and display != 0):
        return REFUSED_FLAGS
    rules = book.rules[0]
    if display < 0 or display % rules.lot != 0 or (display > 0 and (lots - 1) // display >= rules.iceberg_parts):
        return REFUSED_DISPLAY
    if flags & POST_ONLY and _reaches(side, price, book.sides[_best_row(book, 1 - side)].best):
        return REFUSED_CROSSES
    return 0


@njit(cache=True)
def _next_id(book: Book, slot: int) -> int:
    book.state[0].sequence += 1
    return int(book.state[0].sequence) * book.orders.size + slot


@njit(cache=True)
def _reaches(side: int, price: int, best: int) -> bool:
    """Tell whether an order trades with the best of the other side; never where that is empty."""
    return best <= price if side == BID else best >= price > NO_BID and best != NO_BID


@njit(cache=True)
def _best_row(book: Book, side: int) -> int:
    """Return the row whose best order trades first: at equal prices the displayed one."""
    shown, hidden = book.sides[side].best, book.sides[side + HIDDEN_ROWS].best
    return side + HIDDEN_ROWS if (hidden > shown if side == BID else hidden < shown) else side


@njit(cache=True)
def _match(book: Book, journal: Journal, side: int, price: int, lots: int, taker_id: int, owner: int) -> int:
    """Trade against the other side up to `price` and return the lots left to rest."""
    other = 1 - side
    while lots > 0:
        row = _best_row(book, other)
        best = book.sides[row].best
        if not _reaches(side, price, best):
            break
        before = resting(book, other, best)
        lots = _match_level(book, journal, row, best, lots, taker_id, owner)
        _report_level(book, journal, other, best, before)
    return lots


@njit(cache=True)
def _match_level(book: Book, journal: Journal, row: int, price: int, lots: int, taker_id: int, owner: int) -> int:
    """Trade along one queue and return the lots left."""
    level, self_trade = book.levels[row, price & (book.levels.shape[1] - 1)], book.rules[0].self_trade
    while lots > 0 and level.first != 0:
        if self_trade == ALLOW or owner == 0 or book.orders[level.first].owner != owner:
            lots -= _fill(book, journal, level.first, lots, taker_id, owner)
            continue
        if self_trade != CANCEL_NEWEST:
            _delete(book, journal, level.first)
        if self_trade != CANCEL_OLDEST:
            return 0
    return lots


@njit(cache=True)
def _fill(book: Book, journal: Journal, slot: int, lots: int, taker_id: int, owner: int) -> int:
    """Trade with one maker, report it and return the lots traded."""
    maker = book.orders[slot]
    traded = min(lots, maker.lots)
    trade = journal.trades[journal.rows[0].trades]
    trade.maker_id, trade.taker_id, trade.taker_side = maker.order_id, taker_id, 1 - maker.side
    trade.price, trade.lots = maker.price, traded
    trade.maker_owner, trade.taker_owner = maker.owner, owner
    journal.rows[0].trades += 1
    _report_event(journal, maker, EXECUTE, traded)
    if traded < maker.lots:
        _shrink(book, maker, traded)
        return int(traded)
    _leave(book, slot)
    if maker.reserve > 0:
        _rest(book, journal, slot, maker.reserve, 0)
    else:
        _free(book, slot)
    return int(traded)
