"""A run's tape as rows of the tick tables: `orders`, `book_levels`, `quotes` and `trades`, piece by piece.

An event of the tape is one exchange event: its rows share time, `seq` (its number within the day, from 0) and
`update_id` (its number since the market began, from 1; so the one before is always one less). `LAST` marks the last row
of an event in each table. Every UTC day opens, at its first moment or where the run begins, with the whole book, all
orders in order of priority and the touch: rows flagged `SNAPSHOT`, of `seq` -1 and of the last update id, as
`ticks.store` has them; so any day can be read alone. `order_id` is the number of the order since the market began. A
quote is a touch that differs from the one before; a trade has the taker's side, and `OFF_MARKET` where its maker was
hidden. All integers are the engine's own. `event_ns` is when it happened, `recv_ns` when it got through the delays of
the run, where it has any, and within the day. After an outage in which the feed broke off, the whole book comes again,
marked `GAP_BEFORE`. Memory is that of a tape and of the book.

Here belongs nothing that decides what happens, and no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import SynthError
from synth_pipeline.market.book import ADD, ASK, BID, EXECUTE, EXECUTE_HIDDEN, Book, depth, next_occupied
from synth_pipeline.market.compiling import njit
from synth_pipeline.market.flows import Halt, Run
from synth_pipeline.market.tape import rewind
from synth_pipeline.schema import BOOK_LEVELS, NS_PER_DAY, ORDERS, QUOTES, TRADES, Flag, Scale, Table
from synth_pipeline.series import IntArray
from synth_pipeline.ticks.messages import Messages, of_levels, of_orders

Columns = dict[str, np.ndarray]
Tables = dict[str, Columns]
"""Rows by table name: `orders`, `book_levels`, `quotes`, `trades`."""
TABLES = (ORDERS, BOOK_LEVELS, QUOTES, TRADES)
OPENING_SEQ = -1
_FLAGS = (Flag.LAST, Flag.SNAPSHOT, Flag.OFF_MARKET, Flag.GAP_BEFORE)
_LAST, _SNAPSHOT, _OFF_MARKET, _GAP_BEFORE = (np.uint8(flag) for flag in _FLAGS)


class Close(NamedTuple):
    """A market as one run leaves it and another may go on from it."""

    orders: IntArray
    """Rows (id, side, price, lots) of the displayed orders, bids first, best first, in order of priority."""
    order_id: int
    """The last id given."""
    update_id: int
    trade_id: int

    @property
    def levels(self) -> IntArray:
        """Rows (side, price, lots), an order each: an opening book in which every order keeps its place."""
        return self.orders[:, 1:]


NOTHING = Close(np.empty((0, 4), np.int64), 0, 0, 0)
"""Before a market begins."""


class TickRows:
    """Runs a flow and tells its tape as rows; ids go on from `before`, where the run opened with that book."""

    def __init__(self, run: Run, before: Close = NOTHING) -> None:
        """Take a run. Raises `SynthError` where its book is not the one that it is said to go on from."""
        self._run, self._before = run, before
        self._now_ns = self._recv_ns = self._day_end_ns = run.now_ns
        self._is_open = False
        self._seq, self._update_id, self._trade_id = 0, before.update_id, before.trade_id
        self._top = np.full(4, -1)
        self._received = np.empty(0, np.int64)
        if len(before.orders) and not np.array_equal(standing_orders(run.market.book)[:, 1:], before.levels):
            raise SynthError("the run does not open with the orders of the day before: simulate that day again")

    @property
    def events(self) -> int:
        """Events told so far."""
        return self._update_id - self._before.update_id

    @property
    def now_ns(self) -> int:
        """The time up to which it is told."""
        return self._now_ns

    def outages(self) -> list[Halt]:
        """Return the times in which the feed breaks off."""
        return [halt for halt in self._run.halts if halt.is_gap]

    def pieces(self, until_ns: int) -> Iterator[Tables]:
        """Run up to a time, exclusive, and yield the rows; those of one piece are of one UTC day."""
        while self._now_ns < until_ns:
            breaks = [halt.end_ns for halt in self.outages() if halt.end_ns > self._now_ns]
            self._day_end_ns = (self._now_ns // NS_PER_DAY + 1) * NS_PER_DAY
            end_ns = min(until_ns, self._day_end_ns, *breaks)
            if not self._is_open:
                yield self._opening(OPENING_SEQ)
            done = False
            while not done:
                done = self._run.advance(end_ns - 1)
                self._now_ns = end_ns if done else self._run.now_ns
                yield self._drained()
            if end_ns == self._day_end_ns:
                self._is_open, self._seq = False, 0
            elif end_ns in breaks:
                yield self._opening(self._seq)
                self._seq += 1

    def close(self) -> Close:
        """Return the market as it stands now."""
        orders = standing_orders(self._run.market.book)
        orders[:, 0] = self._ids(orders[:, 0])
        last = int(self._run.market.book.state.sequence[0]) - len(self._before.orders)
        return Close(orders, self._before.order_id + last, self._update_id, self._trade_id)

    def _ids(self, engine_ids: np.ndarray) -> np.ndarray:
        """Return the number of each order since the market began; those from before keep theirs, hidden ones have 0."""
        kept = self._before.orders[:, 0]
        numbers = engine_ids // self._run.market.book.orders.size
        ids = np.where(engine_ids > 0, numbers + (self._before.order_id - kept.size), 0)
        old = (numbers > 0) & (numbers <= kept.size)
        ids[old] = kept[numbers[old] - 1]
        return ids

    def _opening(self, seq: int) -> Tables:
        """Tell the whole book, orders and touch."""
        self._is_open, self._recv_ns = True, max(self._recv_ns, self._now_ns)
        orders, levels = self.close().orders, standing_levels(self._run.market.book)
        sides = [levels[levels[:, 0] == side, 1:][:1] for side in (BID, ASK)]
        self._top = np.concatenate([side[0] if len(side) else np.zeros(2, np.int64) for side in sides])
        full = _SNAPSHOT if seq == OPENING_SEQ else _SNAPSHOT | _GAP_BEFORE
        shared = {"event_ns": self._now_ns, "recv_ns": self._recv_ns, "seq": seq, "update_id": self._update_id}
        named = {"kind": np.full(len(orders), ADD), "order_id": orders[:, 0]}
        return {
            "orders": _opening_rows(ORDERS, orders[:, 1:], shared, full, **named),
            "book_levels": _opening_rows(BOOK_LEVELS, levels, shared, full),
            "quotes": _rows(QUOTES, **_spread(shared, 1), **_quote(self._top[np.newaxis]), flags=[full | _LAST]),
            "trades": TRADES.empty(),
        }

    def _drained(self) -> Tables:
        """Take the tape and the journal, and empty them."""
        market = self._run.market
        journal, told = market.journal, market.tape[: market.clock.events[0]]
        self._received = np.minimum(self._run.published_ns(told["time_ns"]), self._day_end_ns - 1)
        self._recv_ns = int(self._received[-1]) if told.size else self._recv_ns
        tables = {
            "orders": self._orders(told, journal.events),
            "book_levels": self._levels(told, journal.levels),
            "quotes": self._quotes(told),
            "trades": self._trades(told, journal.trades, journal.events),
        }
        self._seq += told.size
        self._update_id += told.size
        self._trade_id += tables["trades"]["seq"].size
        rewind(market)
        return tables

    def _shared(self, told: np.ndarray, ends: np.ndarray) -> tuple[Columns, np.ndarray]:
        """Return what all rows of a list have of their events, and which are the last of one."""
        event = np.repeat(np.arange(told.size), np.diff(ends, prepend=0))
        last = np.append(event[1:] != event[:-1], True)[: event.size]
        return self._of(told, event), last

    def _of(self, told: np.ndarray, event: np.ndarray) -> Columns:
        """Return times and numbers of some events."""
        times = {"recv_ns": self._received[event], "event_ns": told["time_ns"][event]}
        return times | {"seq": self._seq + event, "update_id": self._update_id + 1 + event}

    def _levels(self, told: np.ndarray, rows: np.ndarray) -> Columns:
        shared, last = self._shared(told, told["level_rows"])
        rows = rows[: last.size]
        return _rows(
            BOOK_LEVELS,
            **shared,
            side=1 - 2 * rows["side"],
            price=rows["price"],
            size=rows["after"],
            flags=last * _LAST,
        )

    def _orders(self, told: np.ndarray, rows: np.ndarray) -> Columns:
        shared, last = self._shared(told, told["event_rows"])
        rows = rows[: last.size]
        named = {"kind": rows["kind"], "order_id": self._ids(rows["order_id"]), "side": 1 - 2 * rows["side"]}
        return _rows(ORDERS, **shared, **named, price=rows["price"], size=rows["lots"], flags=last * _LAST)

    def _trades(self, told: np.ndarray, rows: np.ndarray, events: np.ndarray) -> Columns:
        shared, _ = self._shared(told, told["trade_rows"])
        rows = rows[: shared["seq"].size]
        # Every trade is one execution among the events of orders, in the same order.
        kinds = events["kind"][: told["event_rows"][-1] if told.size else 0]
        hidden = kinds[(kinds == EXECUTE) | (kinds == EXECUTE_HIDDEN)] == EXECUTE_HIDDEN
        return _rows(
            TRADES,
            **shared,
            trade_id=self._trade_id + 1 + np.arange(rows.size),
            price=rows["price"],
            size=rows["lots"],
            side=1 - 2 * rows["taker_side"],
            flags=_LAST | hidden * _OFF_MARKET,
        )

    def _quotes(self, told: np.ndarray) -> Columns:
        top = np.stack((told["bid"], told["bid_lots"], told["ask"], told["ask_lots"]), axis=1)
        top[:, 2][top[:, 3] == 0] = 0
        changed = (np.concatenate((self._top[None], top[:-1]))[: len(top)] != top).any(axis=1)
        self._top = top[-1].copy() if len(top) else self._top
        event = np.flatnonzero(changed)
        return _rows(
            QUOTES,
            **self._of(told, event),
            **_quote(top[event]),
            flags=np.full(event.size, _LAST),
        )


def tick_pieces(run: Run, until_ns: int, before: Close = NOTHING) -> Iterator[Tables]:
    """Run up to a time, exclusive, and yield its rows piece by piece, as `TickRows.pieces` does."""
    return TickRows(run, before).pieces(until_ns)


def joined(pieces: Iterable[Tables]) -> Tables:
    """Return all rows of some pieces in memory."""
    found = list(pieces)
    return {
        table.name: {name: np.concatenate([piece[table.name][name] for piece in found]) for name in table.names}
        for table in TABLES
    }


def rows_of_close(close: Close, now_ns: int) -> Columns:
    """Return the orders that rest as rows of `orders`."""
    at = {"event_ns": now_ns, "recv_ns": now_ns, "seq": OPENING_SEQ}
    named = {"kind": np.full(len(close.orders), ADD), "order_id": close.orders[:, 0]}
    return _opening_rows(ORDERS, close.levels, at, _SNAPSHOT, **named)


def _rows(form: Table, **columns: object) -> Columns:
    """Return the columns of a table, of its types."""
    return {column.name: np.ascontiguousarray(columns[column.name], dtype=column.dtype) for column in form.columns}


def _spread(values: dict[str, int], count: int) -> Columns:
    return {name: np.full(count, value) for name, value in values.items()}


def _opening_rows(form: Table, rows: IntArray, shared: dict[str, int], full: np.uint8, **more: np.ndarray) -> Columns:
    """Return rows (side, price, lots) that take the place of all that was known."""
    flags = np.full(len(rows), full)
    flags[-1:] |= _LAST
    side, price, size = rows.T
    return _rows(form, **_spread(shared, len(rows)), **more, side=1 - 2 * side, price=price, size=size, flags=flags)


def _quote(top: np.ndarray) -> Columns:
    return dict(zip(("bid_price", "bid_size", "ask_price", "ask_size"), top.T, strict=True))


def standing_levels(book: Book) -> IntArray:
    """Return the displayed levels of a book, rows (side, price, lots): bids, then asks, best first."""
    sides = [np.column_stack(depth(book, side, int(book.sides.orders[side]))) for side in (BID, ASK)]
    return np.concatenate([np.insert(levels, 0, side, axis=1) for side, levels in enumerate(sides)])


@njit(cache=True)
def standing_orders(book: Book) -> IntArray:
    """Return the displayed orders of a book, rows (engine's id, side, price, lots): bids, then asks, by priority."""
    found = np.empty((book.sides[BID].orders + book.sides[ASK].orders, 4), dtype=np.int64)
    row, mask = 0, book.levels.shape[1] - 1
    for side in range(2):
        left, price = book.sides[side].orders, book.sides[side].best
        while left > 0:
            price = next_occupied(book, side, price)
            slot = book.levels[side, price & mask].first
            while slot != 0:
                order = book.orders[slot]
                found[row, 0], found[row, 1], found[row, 2], found[row, 3] = order.order_id, side, price, order.lots
                slot = order.behind
                row += 1
                left -= 1
            price += 2 * side - 1
    return found


def rhythm(messages: Messages, span: tuple[int, int]) -> IntArray:
    """Return times of publication over a span, ns: those of a record's first stretch, again and again."""
    start, end = messages.spans[0].tolist()
    times = np.unique(messages.time_ns[messages.ends])
    times = times[(times > start) & (times <= end)] - start
    rounds = -(-(span[1] - span[0]) // (end - start))
    repeated = [number * (end - start) + times for number in range(rounds)]
    found: IntArray = span[0] + np.concatenate((*repeated, [span[1] - span[0]]))
    return found


def published(levels: Columns, times: IntArray) -> Columns:
    """Return level changes as a source shows them that publishes only at some times: of every level that changed since
    the time before, its last size. The book that opens the rows stays as it is, those that open further days repeat
    what is known; what follows the last time is left out."""
    repeats = (levels["flags"] & (_SNAPSHOT | _GAP_BEFORE)) == _SNAPSHOT
    opening = int(repeats.size if repeats.all() else repeats.argmin())
    rest = {name: column[opening:][~repeats[opening:]] for name, column in levels.items()}
    event = np.searchsorted(times, rest["recv_ns"])
    order = np.lexsort((np.arange(event.size), rest["price"], rest["side"], event))
    keys = np.stack((event, rest["side"], rest["price"]))[:, order]
    last = order[np.append((keys[:, 1:] != keys[:, :-1]).any(axis=0), True)[: order.size]]
    last = last[event[last] < times.size]
    found = {name: column[last] for name, column in rest.items()}
    found["recv_ns"] = found["event_ns"] = times[event[last]]
    found["seq"] = event[last]
    ends = np.append(np.diff(event[last]) > 0, True)[: last.size]
    found["flags"] = ends * _LAST
    return {name: np.concatenate((levels[name][:opening], found[name])) for name in levels}


def observed(tables: Tables, like: Messages, span: tuple[int, int], scale: Scale) -> Messages:
    """Return the messages of rows as the source of a record would have let them be seen.

    Order by order where it does so, else level changes at its rhythm with trades between; as many levels. The rows
    begin with a whole book.
    """
    if (like.order_id > 0).any():
        found = of_orders(tables["orders"], tables["book_levels"], span=span, scale=scale)
    else:
        levels = published(tables["book_levels"], rhythm(like, span))
        found = of_levels(levels, tables["trades"], span=span, scale=scale)
    return replace(found, depth=like.depth)
