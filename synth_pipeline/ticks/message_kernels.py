"""Compiled loops of `ticks.messages`: level changes and trades, or orders, to messages; and the book along messages.

A side of the book is an array of (key, size) rows that ascends to its best level; a key is the price of a bid and the
negated price of an ask. Levels of size 0 stand for those that are known to be empty.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from synth_pipeline.schema import Flag

LIMIT, CANCEL, MARKET, SHOWN = 1, 2, 4, 0
_LAST = int(Flag.LAST)
TIME, KIND, SIDE, PRICE, SIZE, ORDER_ID, ENDS = range(7)
"""Columns of written messages."""
COLUMNS = 7
_ID, _SIDE, _PRICE, _LEFT, _OWED, _RESTS = range(6)
"""Columns of takers: what is left, how much of its trades an order has still to report itself (both sides of a trade
report it, in any order; negative where it was first), and whether it rests by now."""
TAKER_COLUMNS = 6
EXECUTED, UNMATCHED, INFERRED, HIDDEN = range(4)
"""Counts: executions told, trades that the book contradicts, orders that only a trade tells of, executions of hidden
orders."""


@njit(cache=True)
def place_of(side: np.ndarray, count: int, key: int) -> int:
    """Return where a key stands or would stand; searched from the best level, where most changes are."""
    step, high = 1, count
    while step <= count and side[count - step, 0] >= key:
        high = count - step
        step *= 2
    low = max(count - step, -1) + 1
    while low < high:
        middle = (low + high) // 2
        if side[middle, 0] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def size_at(side: np.ndarray, count: int, key: int) -> int:
    """Return the size at a key, -1 where nothing is known of it."""
    place = place_of(side, count, key)
    return int(side[place, 1]) if place < count and side[place, 0] == key else -1


@njit(cache=True)
def put(book: np.ndarray, counts: np.ndarray, known: np.ndarray, which: int, key: int, size: int) -> None:
    """Set the size at a key. A level that becomes empty where the source may hide others is remembered as such."""
    side, count = book[which], counts[which]
    place = place_of(side, count, key)
    if place < count and side[place, 0] == key:
        side[place, 1] = size
        if size == 0 and key >= known[which]:
            for level in range(place, count - 1):
                side[level, 0], side[level, 1] = side[level + 1, 0], side[level + 1, 1]
            counts[which] -= 1
    elif size > 0 or key < known[which]:
        for level in range(count, place, -1):
            side[level, 0], side[level, 1] = side[level - 1, 0], side[level - 1, 1]
        side[place, 0], side[place, 1] = key, size
        counts[which] += 1
    # All above the best level is empty for certain, so that nothing need be remembered there.
    while counts[which] > 0 and side[counts[which] - 1, 1] == 0:
        counts[which] -= 1
    if counts[which] > 0:
        known[which] = min(known[which], side[counts[which] - 1, 0])


@njit(cache=True)
def best_of(book: np.ndarray, counts: np.ndarray, which: int) -> int:
    """Return the best key of a side, a very low one when it is empty."""
    return int(book[which, counts[which] - 1, 0]) if counts[which] > 0 else -(2**62)


@njit(cache=True)
def sizes_before(
    side: np.ndarray, price: np.ndarray, size: np.ndarray, book: np.ndarray, counts: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Apply level changes and return what stood at each level before, -1 where that is not known."""
    before = np.empty(side.size, np.int64)
    for row in range(side.size):
        which = 0 if side[row] > 0 else 1
        key = price[row] * side[row]
        held = size_at(book[which], counts[which], key)
        before[row] = -1 if held < 0 and key < known[which] else max(held, 0)
        put(book, counts, known, which, key, size[row])
    return before


@njit(cache=True)
def assign(
    trades: np.ndarray, clock: np.ndarray, first: np.ndarray, side: np.ndarray, price: np.ndarray, drop: np.ndarray,
    slack: int,
) -> np.ndarray:  # fmt: skip
    """Return the event that each trade is part of: of those whose time it may be, the one that lost most at its price.

    `trades` has rows of time, resting side (0 unknown), price and size; `first` are the events' first rows and their
    number of rows at the end; `drop` is what is left to explain of each row and is used up here. The side of a trade
    that has none becomes that of the level that it explains.
    """
    events = clock.size
    found = np.empty(len(trades), np.int64)
    for trade in range(len(trades)):
        time, quantity = trades[trade, 0], trades[trade, 3]
        nominal = min(np.searchsorted(clock, time), events - 1)
        found[trade], most, best_row = nominal, 0, -1
        event = np.searchsorted(clock, time - slack)
        while event < events and (event == 0 or clock[event - 1] < time + slack):
            for row in range(first[event], first[event + 1]):
                if price[row] != trades[trade, 2] or trades[trade, 1] * side[row] < 0:
                    continue
                explained = min(drop[row], quantity)
                if explained > most or (explained == most > 0 and event == nominal):
                    found[trade], most, best_row = event, explained, row
            event += 1
        if best_row >= 0:
            drop[best_row] -= most
            trades[trade, 1] = side[best_row]
    return found


@njit(cache=True)
def _write(out: np.ndarray, at: int, time: int, kind: int, side: int, price: int, size: int, order_id: int = 0) -> int:
    out[at, TIME], out[at, KIND], out[at, SIDE], out[at, PRICE] = time, kind, side, price
    out[at, SIZE], out[at, ORDER_ID], out[at, ENDS] = size, order_id, 0
    return at + 1


@njit(cache=True)
def of_changes(
    times: np.ndarray, first: np.ndarray, side: np.ndarray, price: np.ndarray, size: np.ndarray, before: np.ndarray,
    trades: np.ndarray, trade_times: np.ndarray, trade_first: np.ndarray, visible: int,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, tally: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return messages that lead from the book as it stands over the changes of every event.

    Within an event first come its trades, at their own times; then what else left, then what came: so no book between
    is crossed.
    """
    out = np.empty((2 * side.size + 2 * len(trades) + 1, COLUMNS), np.int64)
    at = 0
    for event in range(times.size):
        start, stop, begin = first[event], first[event + 1], at
        was_full = np.array([counts[0] >= visible > 0, counts[1] >= visible > 0])
        worst = np.array([book[0, 0, 0], book[1, 0, 0]])
        for trade in range(trade_first[event], trade_first[event + 1]):
            at = _trade(
                trades[trade], trade_times[trade], start, stop, side, price, size, before,
                book, counts, known, tally, out, at,
            )  # fmt: skip
        for row in range(start, stop):
            which, key = (0, price[row]) if side[row] > 0 else (1, -price[row])
            held = size_at(book[which], counts[which], key)
            if size[row] < held or (size[row] == 0 and before[row] < 0):
                put(book, counts, known, which, key, size[row])
            if size[row] < held:
                at = _write(out, at, times[event], CANCEL, side[row], price[row], held - size[row])
        for row in range(start, stop):
            which, key = (0, price[row]) if side[row] > 0 else (1, -price[row])
            held = max(size_at(book[which], counts[which], key), 0)
            if held < size[row]:
                is_new_sight = (before[row] < 0 and held == 0) or (was_full[which] and key < worst[which])
                kind, told = (SHOWN, size[row]) if is_new_sight else (LIMIT, size[row] - held)
                put(book, counts, known, which, key, size[row])
                at = _write(out, at, times[event], kind, side[row], price[row], told)
        if visible:
            _out_of_sight(out, begin, at, book, counts, visible)
        if at > begin:
            out[at - 1, ENDS] = 1
    return out[:at]


@njit(cache=True)
def _out_of_sight(out: np.ndarray, begin: int, end: int, book: np.ndarray, counts: np.ndarray, visible: int) -> None:
    """Turn cancellations behind the last level that is still shown into levels that went out of sight."""
    for row in range(begin, end):
        which = 0 if out[row, SIDE] > 0 else 1
        key = out[row, PRICE] * out[row, SIDE]
        is_gone = size_at(book[which], counts[which], key) <= 0
        if out[row, KIND] == CANCEL and is_gone and counts[which] >= visible and key < book[which, 0, 0]:
            out[row, KIND], out[row, SIZE] = SHOWN, 0


@njit(cache=True)
def _trade(
    trade: np.ndarray, time: int, start: int, stop: int,
    side: np.ndarray, price: np.ndarray, size: np.ndarray, before: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, tally: np.ndarray, out: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Write one trade down, with what must have gone or come before it."""
    resting, at_price, quantity = trade[1], trade[2], trade[3]
    which = 0 if resting > 0 else 1
    key = at_price * resting
    held = max(size_at(book[which], counts[which], key), 0)
    is_changed = False
    for row in range(start, stop):
        is_changed |= side[row] == resting and price[row] == at_price
    # Where the event leaves the level as it was, as much came as was executed.
    came = quantity - held if is_changed else quantity
    if resting == 0 or (came > 0 and -key <= best_of(book, counts, 1 - which)):
        tally[UNMATCHED] += 1
        return at
    for row in range(start, stop):
        # Price priority: what stood in front of a trade and is gone after the event was gone before the trade.
        if side[row] == resting and price[row] * resting > key and 0 <= size[row] < before[row]:
            front = price[row] * resting
            there = size_at(book[which], counts[which], front)
            if there > size[row]:
                put(book, counts, known, which, front, size[row])
                at = _write(out, at, time, CANCEL, resting, price[row], there - size[row])
    if came > 0:
        tally[INFERRED] += 1
        at = _write(out, at, time, LIMIT, resting, at_price, came)
    put(book, counts, known, which, key, held + max(came, 0) - quantity)
    tally[EXECUTED] += 1
    return _write(out, at, time, MARKET, resting, at_price, quantity)


@njit(cache=True)
def of_orders(
    orders: np.ndarray, levels: np.ndarray, takers: np.ndarray, taker_count: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, tally: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return messages of order events, and what the shown levels (price by price, after each event) add to them.

    `orders` has rows of time, seq, kind, side, price, size, id; `levels` of time, seq, side, price, size. An order that
    comes at or beyond the other side's best price takes: it is held back in `takers` until it has traded, and what is
    left of it becomes a limit order.
    """
    out = np.empty((len(orders) + len(levels) + len(orders) + taker_count[0] + 1, COLUMNS), np.int64)
    at = row = level = 0
    while row < len(orders) or level < len(levels):
        if level == len(levels) or (row < len(orders) and _is_before(orders[row], levels[level])):
            time, seq = orders[row, 0], orders[row, 1]
        else:
            time, seq = levels[level, 0], levels[level, 1]
        begin = at
        while row < len(orders) and orders[row, 0] == time and orders[row, 1] == seq:
            at = _order(orders[row], takers, taker_count, book, counts, known, tally, out, at)
            row += 1
        stop = level
        while stop < len(levels) and levels[stop, 0] == time and levels[stop, 1] == seq:
            stop += 1
        for each in range(level, stop):
            at = _level(levels, each, stop, takers, taker_count, book, counts, known, out, at)
        level = stop
        at = _rest(time, takers, taker_count, book, counts, known, out, at)
        if at > begin:
            out[at - 1, ENDS] = 1
    return out[:at]


@njit(cache=True)
def _is_before(order: np.ndarray, level: np.ndarray) -> bool:
    return bool(order[0] < level[0] or (order[0] == level[0] and order[1] <= level[1]))


@njit(cache=True)
def _order(
    order: np.ndarray, takers: np.ndarray, taker_count: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, tally: np.ndarray, out: np.ndarray, at: int,
) -> int:  # fmt: skip
    time, kind, side, price, size, order_id = order[0], order[2], order[3], order[4], order[5], order[6]
    which, key = (0, price) if side > 0 else (1, -price)
    held = max(size_at(book[which], counts[which], key), 0)
    if kind == 1 and -key <= best_of(book, counts, 1 - which):
        place = taker_count[0]
        takers[place] = 0
        takers[place, _ID], takers[place, _SIDE], takers[place, _PRICE], takers[place, _LEFT] = (
            order_id, side, price, size,
        )  # fmt: skip
        taker_count[0] += 1
        return at
    if kind == 1:
        put(book, counts, known, which, key, held + size)
        return _write(out, at, time, LIMIT, side, price, size, order_id)
    if kind == 4:
        size = _own_trade(takers, taker_count, order_id, size)
    else:
        for taker in range(taker_count[0]):
            if takers[taker, _ID] == order_id and not takers[taker, _RESTS]:
                takers[taker, _LEFT] = max(takers[taker, _LEFT] - size, 0)
                return at
    if kind > 4 or held == 0 or size == 0:
        tally[UNMATCHED] += kind == 4 and size > 0
        tally[HIDDEN] += kind == 5
        return at
    put(book, counts, known, which, key, max(held - size, 0))
    if kind == 4:
        tally[EXECUTED] += 1
        _take(takers, taker_count, side, price, size)
    return _write(out, at, time, MARKET if kind == 4 else CANCEL, side, price, min(size, held), order_id)


@njit(cache=True)
def _own_trade(takers: np.ndarray, taker_count: np.ndarray, order_id: int, size: int) -> int:
    """Take in a taker's own report of its trade; return what of it is a trade of an order that rests."""
    for taker in range(taker_count[0]):
        if takers[taker, _ID] == order_id:
            told = size if not takers[taker, _RESTS] else min(size, takers[taker, _OWED])
            new = max(told - max(takers[taker, _OWED], 0), 0)
            takers[taker, _LEFT] = max(takers[taker, _LEFT] - new, 0)
            takers[taker, _OWED] -= told
            return size - told
    return size


@njit(cache=True)
def _take(takers: np.ndarray, taker_count: np.ndarray, side: int, price: int, size: int) -> None:
    """Let the newest taker across the spread have met what was executed, unless it has said so itself."""
    for taker in range(taker_count[0] - 1, -1, -1):
        is_across = takers[taker, _SIDE] == -side and takers[taker, _PRICE] * side <= price * side
        if is_across and not takers[taker, _RESTS]:
            new = max(size - max(-takers[taker, _OWED], 0), 0)
            takers[taker, _LEFT] = max(takers[taker, _LEFT] - new, 0)
            takers[taker, _OWED] += size
            return


@njit(cache=True)
def _level(
    levels: np.ndarray, row: int, stop: int, takers: np.ndarray, taker_count: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, out: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Write a level down that is not as the orders have it; only the last of an event's changes of it counts."""
    time, side, price, size = levels[row, 0], levels[row, 2], levels[row, 3], levels[row, 4]
    which, key = (0, price) if side > 0 else (1, -price)
    for taker in range(taker_count[0]):
        if takers[taker, _SIDE] == side and takers[taker, _PRICE] == price:
            size -= max(takers[taker, _OWED], 0) + (0 if takers[taker, _RESTS] else takers[taker, _LEFT])
    size = max(size, 0)
    if max(size_at(book[which], counts[which], key), 0) == size:
        return at
    for later in range(row + 1, stop):
        if levels[later, 2] == side and levels[later, 3] == price:
            return at
    put(book, counts, known, which, key, size)
    return _write(out, at, time, SHOWN, side, price, size)


@njit(cache=True)
def _rest(
    time: int, takers: np.ndarray, taker_count: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, out: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Let takers that no longer cross rest with what is left of them; forget those of which nothing more will come."""
    kept = 0
    for taker in range(taker_count[0]):
        side, price, size = takers[taker, _SIDE], takers[taker, _PRICE], takers[taker, _LEFT]
        which, key = (0, price) if side > 0 else (1, -price)
        is_free = -key > best_of(book, counts, 1 - which)
        if size > 0 and is_free and not takers[taker, _RESTS]:
            held = max(size_at(book[which], counts[which], key), 0)
            put(book, counts, known, which, key, held + size)
            at = _write(out, at, time, LIMIT, side, price, size, takers[taker, _ID])
            takers[taker, _RESTS] = 1
        is_over = takers[taker, _OWED] <= 0 and (size == 0 or takers[taker, _RESTS])
        if not is_over:
            takers[kept] = takers[taker]
            kept += 1
    taker_count[0] = kept
    return at


@njit(cache=True)
def replay(
    kind: np.ndarray, side: np.ndarray, price: np.ndarray, size: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray, ladder: np.ndarray,
) -> None:  # fmt: skip
    """Fill price and size of the best levels before every message, then apply it."""
    for row in range(kind.size):
        for which in range(2):
            sign, count = 1 - 2 * which, counts[which]
            for level in range(ladder.shape[2]):
                there = level < count
                ladder[2 * which, row, level] = book[which, count - 1 - level, 0] * sign if there else 0
                ladder[2 * which + 1, row, level] = book[which, count - 1 - level, 1] if there else 0
        apply(kind[row], side[row], price[row], size[row], book, counts, known)


@njit(cache=True)
def apply(kind: int, side: int, price: int, size: int, book: np.ndarray, counts: np.ndarray, known: np.ndarray) -> None:
    """Apply one message."""
    which, key = (0, price) if side > 0 else (1, -price)
    if kind != SHOWN:
        held = max(size_at(book[which], counts[which], key), 0)
        size = held + size if kind == LIMIT else max(held - size, 0)
    put(book, counts, known, which, key, size)


@njit(cache=True)
def apply_all(
    kind: np.ndarray, side: np.ndarray, price: np.ndarray, size: np.ndarray,
    book: np.ndarray, counts: np.ndarray, known: np.ndarray,
) -> None:  # fmt: skip
    """Apply messages."""
    for row in range(kind.size):
        apply(kind[row], side[row], price[row], size[row], book, counts, known)
