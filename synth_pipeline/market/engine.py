"""The matching engine: price-time priority, order by order.

Here belongs what changes a book, and nothing that decides what to send it. Ids grow with time; an order keeps its id
when it is modified and when an iceberg shows its next part. `move_band` follows the market with the ring of prices and
cancels what falls out. The rules, and the venues they are those of, are told in `docs/matching-engine.md`.
"""

from typing import Any

from synth_pipeline.market.book import (
    ADD,
    ALLOW,
    ASK,
    BID,
    CANCEL_BOTH,
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    DELETE,
    EXECUTE,
    EXECUTE_HIDDEN,
    HIDDEN,
    HIDDEN_ROWS,
    IOC,
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
    SIDE,
    STATE,
    TRADE,
    Book,
    Journal,
    Rules,
    best_row,
    depth,
    find,
    front,
    has_room,
    level_bit,
    new_book,
    new_journal,
    next_occupied,
    queue_ahead,
    records,
    resting,
)
from synth_pipeline.market.compiling import kernel

__all__ = [
    "ADD",
    "ALLOW",
    "ASK",
    "BID",
    "CANCEL_BOTH",
    "CANCEL_NEWEST",
    "CANCEL_OLDEST",
    "DELETE",
    "EXECUTE",
    "EXECUTE_HIDDEN",
    "HIDDEN",
    "HIDDEN_ROWS",
    "IOC",
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
    "SIDE",
    "STATE",
    "TRADE",
    "Book",
    "Journal",
    "Rules",
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


@kernel
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


@kernel
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


@kernel
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


@kernel
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


@kernel
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


@kernel
def _refusal(book: Book, journal: Journal, lots: int) -> int:
    rules = book.rules[0]
    if lots < rules.smallest or lots > rules.largest or lots <= 0:
        return REFUSED_SIZE
    if rules.lot != 1 and lots % rules.lot != 0:
        return REFUSED_LOT
    return 0 if has_room(book, journal) else REFUSED_JOURNAL


@kernel
def _price_refusal(book: Book, price: int) -> int:
    low, tick = book.state[0].low, book.rules[0].tick
    if price < low or price >= low + book.levels.shape[1]:
        return REFUSED_PRICE
    return REFUSED_TICK if tick != 1 and price % tick != 0 else 0


@kernel
def _kind_refusal(book: Book, side: int, price: int, lots: int, flags: int, display: int) -> int:
    if (flags & IOC and (flags != IOC or display != 0)) or (flags & HIDDEN and display != 0):
        return REFUSED_FLAGS
    rules = book.rules[0]
    if display < 0 or display % rules.lot != 0 or (display > 0 and (lots - 1) // display >= rules.iceberg_parts):
        return REFUSED_DISPLAY
    if flags & POST_ONLY and _reaches(side, price, book.sides[best_row(book, 1 - side)].best):
        return REFUSED_CROSSES
    return 0


@kernel
def _next_id(book: Book, slot: int) -> int:
    book.state[0].sequence += 1
    return int(book.state[0].sequence) * book.orders.size + slot


@kernel
def _reaches(side: int, price: int, best: int) -> bool:
    """Tell whether an order trades with the best of the other side; never where that is empty."""
    return best <= price if side == BID else best >= price


@kernel
def _match(book: Book, journal: Journal, side: int, price: int, lots: int, taker_id: int, owner: int) -> int:
    """Trade against the other side up to `price` and return the lots left to rest."""
    other = 1 - side
    while lots > 0:
        row = best_row(book, other)
        best = book.sides[row].best
        if not _reaches(side, price, best):
            break
        before = resting(book, other, best)
        lots = _match_level(book, journal, row, best, lots, taker_id, owner)
        _report_level(book, journal, other, best, before)
    return lots


@kernel
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


@kernel
def _fill(book: Book, journal: Journal, slot: int, lots: int, taker_id: int, owner: int) -> int:
    """Trade with one maker, report it and return the lots traded."""
    maker = book.orders[slot]
    traded = min(lots, maker.lots)
    trade = journal.trades[journal.rows[0].trades]
    trade.maker_id, trade.taker_id, trade.taker_side = maker.order_id, taker_id, 1 - maker.side
    trade.price, trade.lots = maker.price, traded
    trade.maker_owner, trade.taker_owner = maker.owner, owner
    journal.rows[0].trades += 1
    book.state[0].traded += traded
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


@kernel
def _delete(book: Book, journal: Journal, slot: int) -> None:
    """Take an order out and free its slot, which keeps what it held until it is used again."""
    order = book.orders[slot]
    _report_event(journal, order, DELETE, order.lots)
    _leave(book, slot)
    order.order_id = 0
    _give_back(book, slot)


@kernel
def _give_back(book: Book, slot: int) -> None:
    book.free[book.state[0].free_slots] = slot
    book.state[0].free_slots += 1


@kernel
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


@kernel
def _shrink(book: Book, order: Any, lots: int) -> None:
    row = _row(order)
    order.lots -= lots
    book.sides[row].lots -= lots
    book.levels[row, order.price & (book.levels.shape[1] - 1)].lots -= lots


@kernel
def _row(order: Any) -> int:
    return int(order.side + HIDDEN_ROWS if order.terms & HIDDEN else order.side)


@kernel
def _parts(order: Any) -> int:
    """Return how often an order will still show a part."""
    return int((order.reserve + order.display - 1) // order.display) if order.reserve > 0 else 0


@kernel
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
        bit = level_bit(row, order.price) & mask
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


@kernel
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
        bit = level_bit(row, order.price) & mask
        book.occupied[row, bit >> 6] &= ~(1 << (bit & 63))
        if own.orders == 0:
            own.best = NO_BID if order.side == BID else NO_ASK
        elif order.price == own.best:
            own.best = next_occupied(book, row, order.price)


@kernel
def _report_level(book: Book, journal: Journal, side: int, price: int, before: int) -> None:
    after = resting(book, side, price)
    if after != before:
        change = journal.levels[journal.rows[0].levels]
        change.side, change.price, change.before, change.after = side, price, before, after
        journal.rows[0].levels += 1


@kernel
def _report_event(journal: Journal, order: Any, kind: int, lots: int) -> None:
    event, is_hidden = journal.events[journal.rows[0].events], order.terms & HIDDEN
    if is_hidden and kind != EXECUTE:
        return
    event.kind, event.order_id = (EXECUTE_HIDDEN, 0) if is_hidden else (kind, order.order_id)
    event.side, event.price, event.lots = order.side, order.price, lots
    journal.rows[0].events += 1
