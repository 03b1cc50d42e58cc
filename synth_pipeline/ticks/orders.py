"""The book of orders (L3): from order events, whatever their wording, to `orders`, level changes and the top of book.

An order is known by its id; what priority it has changes nothing here. A source without an opening book shows only the
orders that it names. Which quotes can be trusted all the same follows from price-time priority: when an order that was
seen coming trades, no older unseen one of the same side can stand at its price or better, and none comes later. So a
side's best seen price is the true one as long as it is better than what is left to the unseen (`_unseen`). Until then,
and whenever the touch retreats behind that limit, the top is unknown, not guessed.

Such sources lose deletions too, and what they forgot to delete crosses the book for good. There an order that a later
one of the other side has contradicted for `PATIENCE_NS` is taken out: it would have traded. A complete book is left as
it is; before an opening it may well be crossed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.archives import Columns, OrderAction
from synth_pipeline.schema import NS_PER_SECOND, Flag

_ADD, _REDUCE, _DELETE, _EXECUTE, _SET, _LEFT, _FILLED, _CLEAR = map(int, OrderAction)
_LAST = int(Flag.LAST)
_FAR = 2**62
_KEY, _STATE, _PRICE, _SIDE, _SIZE, _PENDING, _SINCE = range(7)
_EMPTY, _LIVE, _GONE = 0, 1, 2
_BIDS, _ASKS, _UNSEEN_BID, _UNSEEN_ASK, _USED, _ORDERS, _UNKNOWN_IDS, _REPEATED, _OVERDRAWN = range(9)
_CONTRADICTED, _CROSSED_NS, _NOW = range(9, 12)
"""Places in the counters: levels a side, the best prices that unseen orders may have, slots in use, live orders, what
was odd, since when the book is crossed (0 when it is not), and the time of the event at hand."""
PATIENCE_NS = NS_PER_SECOND
"""How long a book may be crossed before it counts as wrong: an incoming order is reported before what it meets."""
_CAPACITY = 1024
_ORDER_COLUMNS = ("at", "order_id", "kind", "side", "price", "size")
_LEVEL_COLUMNS = ("at", "side", "price", "size", "last")
_TOP_COLUMNS = ("at", "bid_price", "bid_size", "ask_price", "ask_size", "known", "crossed")


class Outcome(NamedTuple):
    """What some order events come to, rows by the number of their event."""

    orders: Columns
    """`at`, `order_id`, `kind` (LOBSTER's codes), `side`, `price`, `size`."""
    levels: Columns
    """`at`, `side`, `price`, `size`, `last`."""
    tops: Columns
    """`at`, and `bid_price`, `bid_size`, `ask_price`, `ask_size` wherever a book event ended; `known` is False where
    an unseen order may be better, `crossed` where the bid is at or above the ask."""


class OrderBook:
    """A book of orders that is fed with whole events, piece by piece."""

    def __init__(self) -> None:
        self._orders = np.zeros((_CAPACITY, 7), np.int64)
        self._levels = np.zeros((2, _CAPACITY, 2), np.int64)
        self._counters = np.zeros(12, np.int64)
        self._counters[_UNSEEN_BID], self._counters[_UNSEEN_ASK] = _FAR, _FAR

    @property
    def is_complete(self) -> bool:
        """Whether no order can be unseen: the source has said that the book was empty."""
        return bool(self._counters[_UNSEEN_BID] == -_FAR)

    @property
    def counts(self) -> dict[str, int]:
        """Events of ids never seen, of ids added twice, of more than was left, and orders taken out."""
        names = {"unknown_orders": _UNKNOWN_IDS, "repeated_orders": _REPEATED, "overdrawn_orders": _OVERDRAWN}
        names["contradicted_orders"] = _CONTRADICTED
        return {name: int(self._counters[place]) for name, place in names.items()}

    def feed(self, events: Columns) -> Outcome:
        """Apply rows of `order_events`; the last of them must be marked LAST. Rows of no action only end an event."""
        names = ("recv_ns", "action", "order_id", "side", "price", "size", "flags")
        times, action, order_id, side, price, size, flags = (events[name].astype(np.int64) for name in names)
        self._orders, self._levels, orders, levels, tops = _feed(
            times, action, order_id, side, price, size, flags, self._orders, self._levels, self._counters
        )
        return Outcome(_named(_ORDER_COLUMNS, orders), _named(_LEVEL_COLUMNS, levels), _named(_TOP_COLUMNS, tops))


def _named(names: tuple[str, ...], rows: np.ndarray) -> Columns:
    return dict(zip(names, rows.T, strict=True))


@njit(cache=True)
def _feed(
    times: np.ndarray,
    actions: np.ndarray,
    ids: np.ndarray,
    sides: np.ndarray,
    prices: np.ndarray,
    sizes: np.ndarray,
    flags: np.ndarray,
    orders: np.ndarray,
    levels: np.ndarray,
    counters: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows = len(actions)
    told, tops = np.empty((2 * rows, 6), np.int64), np.empty((rows, 7), np.int64)
    moves = np.empty((2 * rows + 16, 5), np.int64)
    told_count = move_count = top_count = event_moves = 0
    for row in range(rows):
        if 2 * (counters[_USED] + 1) > len(orders):
            orders = _rehashed(orders, counters)
        deepest = max(counters[_BIDS], counters[_ASKS])
        if deepest + 2 > levels.shape[1]:
            larger = np.zeros((2, 2 * levels.shape[1], 2), np.int64)
            larger[:, : levels.shape[1]] = levels
            levels = larger
        if move_count + 2 * deepest + 2 > len(moves):
            more = np.empty((2 * len(moves) + 2 * deepest + 2, 5), np.int64)
            more[:move_count] = moves[:move_count]
            moves = more
        before, counters[_NOW] = move_count, times[row]
        if actions[row] == _CLEAR:
            move_count = _clear(row, orders, levels, counters, moves, move_count)
        elif actions[row] != 0:
            told_count, move_count = _event(
                row, actions[row], ids[row], sides[row], prices[row], sizes[row],
                orders, levels, counters, told, told_count, moves, move_count,
            )  # fmt: skip
        if flags[row] & _LAST and _is_contradicted(levels, counters):
            move_count = _take_out(row, orders, levels, counters, moves, move_count)
        event_moves += move_count - before
        if flags[row] & _LAST:
            _settle_fills(orders, ids, actions, row, flags)
            if event_moves:
                moves[move_count - 1, 4] = 1
                _top(row, levels, counters, tops[top_count])
                top_count += 1
            event_moves = 0
    return orders, levels, told[:told_count], moves[:move_count], tops[:top_count]


@njit(cache=True)
def _event(
    row: int, action: int, order: int, side: int, price: int, size: int,
    orders: np.ndarray, levels: np.ndarray, counters: np.ndarray,
    told: np.ndarray, told_count: int, moves: np.ndarray, move_count: int,
) -> tuple[int, int]:  # fmt: skip
    """Apply one event of one order and write down what it comes to."""
    slot = _find(orders, order)
    if slot < 0:
        return _unseen(
            row, action, order, side, price, size, orders, levels, counters, told, told_count, moves, move_count
        )
    held_price, held_side, held = orders[slot, _PRICE], orders[slot, _SIDE], orders[slot, _SIZE]
    if action == _FILLED:
        orders[slot, _PENDING] += size
        _limit_unseen(counters, held_side, held_price, 1)
        return told_count, move_count
    counters[_REPEATED] += action == _ADD
    if action in (_ADD, _SET) and (price != held_price or side != held_side or size > held):
        _tell(told, told_count, row, order, _DELETE, held_side, held_price, held)
        _tell(told, told_count + 1, row, order, _ADD, side, price, size)
        move_count = _move(row, levels, counters, held_side, held_price, -held, moves, move_count)
        orders[slot, _PRICE], orders[slot, _SIDE], orders[slot, _SIZE], orders[slot, _PENDING] = price, side, size, 0
        orders[slot, _SINCE] = counters[_NOW]
        return told_count + 2, _move(row, levels, counters, side, price, size, moves, move_count)
    left, is_trade = _left(action, held, size, counters)
    traded = held - left if is_trade else min(orders[slot, _PENDING], held - left)
    if traded > 0:
        _limit_unseen(counters, held_side, held_price, 1)
        _tell(told, told_count, row, order, _EXECUTE, held_side, held_price, traded)
        told_count += 1
    if held - left > traded:
        kind = _DELETE if left == 0 else _REDUCE
        _tell(told, told_count, row, order, kind, held_side, held_price, held - left - traded)
        told_count += 1
    orders[slot, _SIZE], orders[slot, _PENDING] = left, max(orders[slot, _PENDING] - traded, 0)
    if left == 0:
        orders[slot, _STATE] = _GONE
        counters[_ORDERS] -= 1
    if left == held:
        return told_count, move_count
    return told_count, _move(row, levels, counters, held_side, held_price, left - held, moves, move_count)


@njit(cache=True)
def _unseen(
    row: int, action: int, order: int, side: int, price: int, size: int,
    orders: np.ndarray, levels: np.ndarray, counters: np.ndarray,
    told: np.ndarray, told_count: int, moves: np.ndarray, move_count: int,
) -> tuple[int, int]:  # fmt: skip
    """Apply an event of an order that is not in the book: it comes, or was there before anything was recorded."""
    comes = action in (_ADD, _SET)
    counters[_UNKNOWN_IDS] += not comes
    if side != 0 and action in (_EXECUTE, _LEFT, _FILLED):
        _limit_unseen(counters, side, price, 0)
    if comes or action in (_REDUCE, _DELETE, _EXECUTE):
        _tell(told, told_count, row, order, _ADD if comes else action, side, price, size)
        told_count += 1
    if size > 0 and (comes or action == _LEFT):
        _insert(orders, counters, order, price, side, size)
        move_count = _move(row, levels, counters, side, price, size, moves, move_count)
    return told_count, move_count


@njit(cache=True)
def _left(action: int, held: int, size: int, counters: np.ndarray) -> tuple[int, bool]:
    """Return what is left of an order, and whether the rest traded."""
    if action == _DELETE:
        return 0, False
    if action in (_REDUCE, _EXECUTE):
        counters[_OVERDRAWN] += size > held
        return max(held - size, 0), action == _EXECUTE
    if action == _LEFT:
        counters[_OVERDRAWN] += size > held
        return min(size, held), True
    return size, False


@njit(cache=True)
def _tell(told: np.ndarray, at: int, row: int, order: int, kind: int, side: int, price: int, size: int) -> None:
    told[at, 0], told[at, 1], told[at, 2], told[at, 3], told[at, 4], told[at, 5] = row, order, kind, side, price, size


@njit(cache=True)
def _limit_unseen(counters: np.ndarray, side: int, price: int, behind: int) -> None:
    """Note that unseen orders of a side are no better than a price, or worse by `behind` ticks."""
    which, signed = (_UNSEEN_BID, price) if side > 0 else (_UNSEEN_ASK, -price)
    counters[which] = min(counters[which], signed - behind)


@njit(cache=True)
def _settle_fills(orders: np.ndarray, ids: np.ndarray, actions: np.ndarray, row: int, flags: np.ndarray) -> None:
    """Forget reported trades that no reduction followed within the event."""
    at = row
    while at >= 0 and (at == row or not flags[at] & _LAST):
        if actions[at] == _FILLED:
            slot = _find(orders, ids[at])
            if slot >= 0:
                orders[slot, _PENDING] = 0
        at -= 1


@njit(cache=True)
def _is_crossed(levels: np.ndarray, counters: np.ndarray) -> bool:
    bids, asks = counters[_BIDS], counters[_ASKS]
    return bool(bids > 0 and asks > 0 and levels[0, bids - 1, 0] >= -levels[1, asks - 1, 0])


@njit(cache=True)
def _is_contradicted(levels: np.ndarray, counters: np.ndarray) -> bool:
    """Note whether the book is crossed, and return whether it has been for too long in a book that is not complete."""
    if not _is_crossed(levels, counters):
        counters[_CROSSED_NS] = 0
    elif counters[_CROSSED_NS] == 0:
        counters[_CROSSED_NS] = counters[_NOW]
    lasts = counters[_CROSSED_NS] > 0 and counters[_NOW] - counters[_CROSSED_NS] > PATIENCE_NS
    return bool(lasts and counters[_UNSEEN_BID] != -_FAR)


@njit(cache=True)
def _take_out(
    row: int, orders: np.ndarray, levels: np.ndarray, counters: np.ndarray, moves: np.ndarray, move_count: int
) -> int:
    """Take out, of the two best levels, the one whose newest order is the older, until the book is sound."""
    while _is_crossed(levels, counters):
        newest = np.zeros(2, np.int64)
        for pick in range(2):
            # First the ages of both levels, then the older of them goes.
            loser = 0 if newest[0] <= newest[1] else 1
            for slot in range(len(orders)):
                which = 0 if orders[slot, _SIDE] > 0 else 1
                best = levels[which, counters[_BIDS + which] - 1, 0] * (1 - 2 * which)
                if orders[slot, _STATE] != _LIVE or orders[slot, _PRICE] != best:
                    continue
                if pick == 0:
                    newest[which] = max(newest[which], orders[slot, _SINCE])
                elif which == loser:
                    orders[slot, _STATE] = _GONE
                    counters[_ORDERS] -= 1
                    counters[_CONTRADICTED] += 1
        loser = 0 if newest[0] <= newest[1] else 1
        best = levels[loser, counters[_BIDS + loser] - 1]
        side = 1 - 2 * loser
        move_count = _move(row, levels, counters, side, best[0] * side, -best[1], moves, move_count)
    counters[_CROSSED_NS] = 0
    return move_count


@njit(cache=True)
def _top(row: int, levels: np.ndarray, counters: np.ndarray, top: np.ndarray) -> None:
    top[:] = 0
    top[0] = row
    known = True
    for which in range(2):
        count = counters[_BIDS + which]
        if count:
            top[1 + 2 * which] = levels[which, count - 1, 0] * (1 - 2 * which)
            top[2 + 2 * which] = levels[which, count - 1, 1]
        best = levels[which, count - 1, 0] if count else -_FAR
        known = known and bool(best > counters[_UNSEEN_BID + which] or counters[_UNSEEN_BID + which] == -_FAR)
    top[5] = known
    top[6] = top[2] > 0 and top[4] > 0 and top[1] >= top[3]


@njit(cache=True)
def _clear(
    row: int, orders: np.ndarray, levels: np.ndarray, counters: np.ndarray, moves: np.ndarray, move_count: int
) -> int:
    for which in range(2):
        for level in range(counters[_BIDS + which]):
            moves[move_count, 0], moves[move_count, 1] = row, 1 - 2 * which
            moves[move_count, 2] = levels[which, level, 0] * (1 - 2 * which)
            moves[move_count, 3], moves[move_count, 4] = 0, 0
            move_count += 1
        counters[_BIDS + which] = 0
    orders[:, _STATE] = _EMPTY
    counters[_USED] = counters[_ORDERS] = 0
    counters[_UNSEEN_BID], counters[_UNSEEN_ASK] = -_FAR, -_FAR
    return move_count


@njit(cache=True)
def _move(
    row: int, levels: np.ndarray, counters: np.ndarray, side: int, price: int, change: int, moves: np.ndarray, at: int
) -> int:
    """Add to one level and write its new size down; a side ascends to its best level."""
    which = 0 if side > 0 else 1
    book, count, key = levels[which], counters[_BIDS + which], price * side
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if book[middle, 0] < key:
            low = middle + 1
        else:
            high = middle
    if low == count or book[low, 0] != key:
        if change <= 0:
            return at
        for level in range(count, low, -1):
            book[level, 0], book[level, 1] = book[level - 1, 0], book[level - 1, 1]
        book[low, 0], book[low, 1] = key, 0
        count += 1
    size = book[low, 1] + change
    book[low, 1] = size
    if size <= 0:
        size = 0
        for level in range(low, count - 1):
            book[level, 0], book[level, 1] = book[level + 1, 0], book[level + 1, 1]
        count -= 1
    counters[_BIDS + which] = count
    moves[at, 0], moves[at, 1], moves[at, 2], moves[at, 3], moves[at, 4] = row, side, price, size, 0
    return at + 1


@njit(cache=True)
def _slot(key: int, capacity: int) -> int:
    mixed = key ^ (key >> 31)
    return int(((mixed * 0x9E3779B97F4A7C1) >> 24) & (capacity - 1))


@njit(cache=True)
def _find(orders: np.ndarray, order: int) -> int:
    """Return where a live order stands, -1 for none."""
    at = _slot(order, len(orders))
    while orders[at, _STATE] != _EMPTY:
        if orders[at, _STATE] == _LIVE and orders[at, _KEY] == order:
            return at
        at = (at + 1) & (len(orders) - 1)
    return -1


@njit(cache=True)
def _insert(orders: np.ndarray, counters: np.ndarray, order: int, price: int, side: int, size: int) -> None:
    at = _slot(order, len(orders))
    while orders[at, _STATE] == _LIVE:
        at = (at + 1) & (len(orders) - 1)
    counters[_USED] += orders[at, _STATE] == _EMPTY
    counters[_ORDERS] += 1
    orders[at, _KEY], orders[at, _STATE], orders[at, _PRICE] = order, _LIVE, price
    orders[at, _SIDE], orders[at, _SIZE], orders[at, _PENDING], orders[at, _SINCE] = side, size, 0, counters[_NOW]


@njit(cache=True)
def _rehashed(orders: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Return a table with room for as many live orders again, without those gone."""
    capacity = _CAPACITY
    while capacity < 4 * counters[_ORDERS]:
        capacity *= 2
    fresh = np.zeros((capacity, 7), np.int64)
    counters[_USED] = counters[_ORDERS] = 0
    for row in range(len(orders)):
        if orders[row, _STATE] == _LIVE:
            old = orders[row]
            _insert(fresh, counters, old[_KEY], old[_PRICE], old[_SIDE], old[_SIZE])
            fresh[_find(fresh, old[_KEY]), _PENDING:] = old[_PENDING:]
    return fresh
