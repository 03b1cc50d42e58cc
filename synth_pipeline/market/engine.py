"""The matching engine: price-time priority, order by order.

Here belongs what changes a book and what asks it, and nothing that decides what to send it. An order id is
`sequence * pool + slot`, so finding an order needs no search, and ids grow with time. An order keeps its id when it is
modified and when an iceberg shows its next part. `move_band` follows the market with the ring of prices and cancels what
falls out. The rules, and the venues they are those of, are told in `docs/matching-engine.md`.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.cpython.unsafe import numbers

from synth_pipeline.market.book import (
    ADD,
    ALLOW,
    ASK,
    BID,
    Book,
    CANCEL_BOTH,
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    DELETE,
    EXECUTE,
    EXECUTE_HIDDEN,
    HIDDEN,
    HIDDEN_ROWS,
    IOC,
    Journal,
    LEVEL,
    LEVEL_CHANGE,
    NO_ASK,
    NO_BID,
    ORDER,
    ORDER_EVENT,
    POST_ONLY,
    REDUCE,
    REFUSED_CROSSES,
    REFUSED_DISPLAY,
    REFUSED_FLAGS,
    REFUSED_FULL,
    REFUSED_JOURNAL,
    REFUSED_LOT,
    REFUSED_PRICE,
    REFUSED_SIZE,
    REFUSED_TICK,
    ROWS,
    RULES,
    Rules,
    SIDE,
    STATE,
    TRADE,
    new_book,
    new_journal,
    records,
)
from synth_pipeline.series import IntArray

__all__ = [
    "ADD",
    "ALLOW",
    "ASK",
    "BID",
    "Book",
    "CANCEL_BOTH",
    "CANCEL_NEWEST",
    "CANCEL_OLDEST",
    "DELETE",
    "EXECUTE",
    "EXECUTE_HIDDEN",
    "HIDDEN",
    "HIDDEN_ROWS",
    "IOC",
    "Journal",
    "LEVEL",
    "LEVEL_CHANGE",
    "NO_ASK",
    "NO_BID",
    "ORDER",
    "ORDER_EVENT",
    "POST_ONLY",
    "REDUCE",
    "REFUSED_CROSSES",
    "REFUSED_DISPLAY",
    "REFUSED_FLAGS",
    "REFUSED_FULL",
    "REFUSED_JOURNAL",
    "REFUSED_LOT",
    "REFUSED_PRICE",
    "REFUSED_SIZE",
    "REFUSED_TICK",
    "ROWS",
    "RULES",
    "Rules",
    "SIDE",
    "STATE",
    "TRADE",
    "cancel",
    "depth",
    "find",
    "front",
    "has_room",
    "limit",
    "market",
    "modify",
    "move_band",
    "new_book",
    "new_journal",
    "queue_ahead",
    "records",
    "resting",
]

_trailing_zeros: Any = numbers.trailing_zeros


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
        order.owner, order.terms, order.display = owner, flags, display
        before = resting(book, side, price)
        _queue(book, journal, slot, rest)
        _report_level(book, journal, side, price, before)
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
    if refusal == 0 and (order.terms != 0 or order.display != 0):
        refusal = _kind_refusal(book, side, price, lots, order.terms, order.display)
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
        _queue(book, journal, slot, rest)
    else:
        order.order_id = 0
        _give_back(book, slot)
    _report_level(book, journal, side, price, before)
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
    return best <= price if side == BID else best >= price


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
        _queue(book, journal, slot, maker.reserve)
    else:
        maker.order_id = 0
        _give_back(book, slot)
    return int(traded)


@njit(cache=True)
def _delete(book: Book, journal: Journal, slot: int) -> None:
    """Take an order out and free its slot, which keeps what it held until it is used again."""
    order = book.orders[slot]
    _report_event(journal, order, DELETE, order.lots)
    _leave(book, slot)
    order.order_id = 0
    _give_back(book, slot)


@njit(cache=True)
def _give_back(book: Book, slot: int) -> None:
    book.free[book.state[0].free_slots] = slot
    book.state[0].free_slots += 1


@njit(cache=True)
def _reduce(book: Book, journal: Journal, slot: int, surplus: int) -> None:
    """Take lots from an order that keeps its place, from its reserve first."""
    order = book.orders[slot]
    own, hidden = book.sides[order.side], min(surplus, order.reserve)
    own.refreshes -= _parts(order)
    order.reserve -= hidden
    own.refreshes += _parts(order)
    if surplus > hidden:
        _report_event(journal, order, REDUCE, surplus - hidden)
        _shrink(book, order, surplus - hidden)


@njit(cache=True)
def _shrink(book: Book, order: Any, lots: int) -> None:
    row = _row(order)
    order.lots -= lots
    book.sides[row].lots -= lots
    book.levels[row, order.price & (book.levels.shape[1] - 1)].lots -= lots


@njit(cache=True)
def _row(order: Any) -> int:
    return int(order.side + HIDDEN_ROWS if order.terms & HIDDEN else order.side)


@njit(cache=True)
def _parts(order: Any) -> int:
    """Return how often an order will still show a part."""
    return int((order.reserve + order.display - 1) // order.display) if order.reserve > 0 else 0


@njit(cache=True)
def _queue(book: Book, journal: Journal, slot: int, lots: int) -> None:
    """Put an order at the back of its queue with all or, of an iceberg, the displayed part of its lots."""
    order = book.orders[slot]
    order.lots = min(lots, order.display) if order.display > 0 else lots
    order.reserve = lots - order.lots
    row, mask = _row(order), book.levels.shape[1] - 1
    level, own = book.levels[row, order.price & mask], book.sides[row]
    order.ahead, order.behind = level.last, 0
    if level.last == 0:
        level.first = slot
        bit = _bit(row, order.price) & mask
        book.occupied[row, bit >> 6] |= 1 << (bit & 63)
        if (order.side == BID and order.price > own.best) or (order.side == ASK and order.price < own.best):
            own.best = order.price
    else:
        book.orders[level.last].behind = slot
    level.last = slot
    level.lots += order.lots
    own.lots += order.lots
    own.orders += 1
    own.refreshes += _parts(order)
    _report_event(journal, order, ADD, order.lots)


@njit(cache=True)
def _leave(book: Book, slot: int) -> None:
    """Unlink an order from its queue; finds the next best level when its own was the best."""
    order = book.orders[slot]
    row, mask = _row(order), book.levels.shape[1] - 1
    level, own = book.levels[row, order.price & mask], book.sides[row]
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
    own.refreshes -= _parts(order)
    if level.first == 0:
        bit = _bit(row, order.price) & mask
        book.occupied[row, bit >> 6] &= ~(1 << (bit & 63))
        if own.orders == 0:
            own.best = NO_BID if order.side == BID else NO_ASK
        elif order.price == own.best:
            own.best = _next_occupied(book, row, order.price)


@njit(cache=True)
def _bit(row: int, price: int) -> int:
    """Number the levels of a row so that better prices come first; the ring's mask is still to be laid over it."""
    return price if row & 1 else ~price


@njit(cache=True)
def _next_occupied(book: Book, row: int, price: int) -> int:
    """Return the best price of a row that holds an order, from `price` on away from the market; there must be one."""
    mask = book.levels.shape[1] - 1
    bit = _bit(row, price) & mask
    place = bit >> 6
    word = book.occupied[row, place] & (-1 << (bit & 63))
    while word == 0:
        place = (place + 1) & (mask >> 6)
        word = book.occupied[row, place]
    away = ((place << 6) + _trailing_zeros(word) - bit) & mask
    return price + away if row & 1 else price - away


@njit(cache=True)
def _report_level(book: Book, journal: Journal, side: int, price: int, before: int) -> None:
    after = resting(book, side, price)
    if after != before:
        change = journal.levels[journal.rows[0].levels]
        change.side, change.price, change.before, change.after = side, price, before, after
        journal.rows[0].levels += 1


@njit(cache=True)
def _report_event(journal: Journal, order: Any, kind: int, lots: int) -> None:
    event, is_hidden = journal.events[journal.rows[0].events], order.terms & HIDDEN
    if is_hidden and kind != EXECUTE:
        return
    event.kind, event.order_id = (EXECUTE_HIDDEN, 0) if is_hidden else (kind, order.order_id)
    event.side, event.price, event.lots = order.side, order.price, lots
    journal.rows[0].events += 1
