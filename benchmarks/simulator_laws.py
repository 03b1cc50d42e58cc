"""Compiled flows and audits for `simulator.py`: zero intelligence, everything that an engine can be sent, one queue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from synth_pipeline.market import engine, tape
from synth_pipeline.market.engine import ASK, BID, HIDDEN, IOC, NO_ASK, NO_BID, POST_ONLY, kernel

LIMIT, MARKET, CANCEL, MODIFY = 0, 1, 2, 3
SENT = np.dtype([(name, np.int64) for name in ("kind", "side", "price", "lots", "order")])
"""What was sent; `order` counts the orders sent before, of a cancellation it is the order cancelled."""
LIMIT_RATE, MARKET_RATE, MODIFY_RATE, CANCEL_RATE = 1.0, 0.16, 0.3, 7e-4
"""Per unit of time; cancellations per order that rests."""
MEAN_DISTANCE_TICKS = 8.0
MOST_TAKEN = 8
"""Lots of the largest market order, sent only where they find a maker: what peers do with a rest differs."""
_CENTRE = 2**19


class Flow(NamedTuple):
    """A book, what is sent to it, and the orders that may still rest."""

    market: tape.Market
    live: np.ndarray
    count: np.ndarray
    sent: np.recarray


def new_flow(events: int, *, live: int = 4096, levels: int = 2**16) -> Flow:
    """Return a flow with an empty book that can send so many events at a time."""
    market = tape.new_tape(engine.new_book(_CENTRE, levels=levels), 0)
    return Flow(market, np.zeros(live, np.int64), np.zeros(1, np.int64), engine.records(events, SENT))


@kernel
def zero_intelligence(flow: Flow, rng: np.random.Generator) -> int:
    """Fill `flow.sent` with limit orders, market orders and cancellations at random, do them, and return the trades.

    Limit orders lie at exponential distances from the other side, cancellations take any order alike.
    """
    market, live, trades, event = flow.market, flow.live, 0, 0
    book, journal = market.book, market.journal
    while event < flow.sent.size:
        if not (engine.has_room(book, journal) and tape.has_room(market, 1)):
            trades += journal.rows[0].trades
            tape.rewind(market)
        if flow.count[0] == live.size:
            forget_gone(flow)
        total = LIMIT_RATE + MARKET_RATE + CANCEL_RATE * flow.count[0]
        market.clock[0].now_ns += 1 + int(rng.standard_exponential() / total * 1e6)
        sent, what = flow.sent[event], rng.random() * total
        sent.side = BID if rng.random() < 0.5 else ASK
        if what < LIMIT_RATE or book.sides[1 - sent.side].lots < MOST_TAKEN:
            sent.kind, sent.lots, sent.price = LIMIT, 1 + int(rng.random() * 5), limit_price(book, sent.side, rng)
            sent.order = engine.limit(book, journal, sent.side, sent.price, sent.lots)
            live[flow.count[0]] = sent.order
            flow.count[0] += 1
        elif what < LIMIT_RATE + MARKET_RATE:
            sent.kind, sent.lots = MARKET, 1 + int(rng.random() * MOST_TAKEN)
            sent.order = engine.market(book, journal, sent.side, sent.lots)
        else:
            sent.kind, sent.order = CANCEL, draw_live(flow, rng)
            if engine.cancel(book, journal, sent.order) == 0:
                continue
        sent.order = sent.order // book.orders.size - 1
        tape.record(market, market.clock[0].now_ns)
        event += 1
    return trades + journal.rows[0].trades


@kernel
def limit_price(book: engine.Book, side: int, rng: np.random.Generator) -> int:
    """Draw a price away from the other side's best."""
    best = book.sides[1 - side].best
    if best in (NO_BID, NO_ASK):
        best = _CENTRE
    away = 1 + int(rng.standard_exponential() * MEAN_DISTANCE_TICKS)
    return int(best - away if side == BID else best + away)


@kernel
def draw_live(flow: Flow, rng: np.random.Generator) -> int:
    """Take an order from the list of those that may rest, each as likely as any other."""
    drawn = int(rng.random() * flow.count[0])
    order = flow.live[drawn]
    flow.count[0] -= 1
    flow.live[drawn] = flow.live[flow.count[0]]
    return int(order)


@kernel
def forget_gone(flow: Flow) -> None:
    """Keep only the orders that rest."""
    kept = 0
    for place in range(flow.count[0]):
        if engine.find(flow.market.book, flow.live[place]) != 0:
            flow.live[kept] = flow.live[place]
            kept += 1
    flow.count[0] = kept


@kernel
def replay(market: tape.Market, sent: np.recarray, ids: np.ndarray, trades: np.recarray) -> int:
    """Send a recorded stream to an empty book, put its trades into `trades`, and return how many they are.

    `ids` has room for each order.
    """
    book, journal, orders, count = market.book, market.journal, 0, 0
    for event in range(sent.size):
        if not engine.has_room(book, journal):
            count = _take_trades(market, trades, count)
        row = sent[event]
        if row.kind == CANCEL:
            engine.cancel(book, journal, ids[row.order])
            continue
        if row.kind == LIMIT:
            ids[orders] = engine.limit(book, journal, row.side, row.price, row.lots)
        else:
            ids[orders] = engine.market(book, journal, row.side, row.lots)
        orders += 1
    return _take_trades(market, trades, count)


@kernel
def _take_trades(market: tape.Market, trades: np.recarray, count: int) -> int:
    for row in range(market.journal.rows[0].trades):
        trades[count] = market.journal.trades[row]
        count += 1
    tape.rewind(market)
    return count


# --- every kind of order, and the laws that none may break

OPERATION = np.dtype(
    [(name, np.int64) for name in ("kind", "side", "price", "lots", "order", "owner", "flags", "display")]
)


class Shadow(NamedTuple):
    """What answers and journal alone say of the book, by slot of the pool and by (side, price)."""

    wanted: np.ndarray
    """Lots that an order still wants: what it was sent with less its trades."""
    order: np.ndarray
    owner: np.ndarray
    fed: np.ndarray
    """Lots displayed, from the order events."""
    joined: np.ndarray
    """When it joined its queue last, from the order events."""
    shown: np.ndarray
    """Lots displayed at (side, price), from the level changes."""
    clock: np.ndarray
    resting: np.ndarray
    """Scratch: whether a slot was met in a queue."""
    sent: np.recarray
    """Scratch: one `OPERATION`."""


def new_shadow(book: engine.Book) -> Shadow:
    """Return the shadow of an empty book."""
    per_slot = [np.zeros(book.orders.size, np.int64) for _ in range(5)]
    return Shadow(
        *per_slot,
        shown=np.zeros((2, 2 * _CENTRE), np.int64),
        clock=np.zeros(1, np.int64),
        resting=np.zeros(book.orders.size, np.bool_),
        sent=engine.records(1, OPERATION),
    )


@kernel
def stress(flow: Flow, shadow: Shadow, events: int, rng: np.random.Generator) -> int:
    """Send every kind of order, owned ones too, and return how many laws were broken, each operation looked at."""
    book, journal, broken = flow.market.book, flow.market.journal, 0
    sent = shadow.sent[0]
    for _ in range(events):
        if not engine.has_room(book, journal):
            tape.rewind(flow.market)
        if flow.count[0] == flow.live.size:
            forget_gone(flow)
        _draw_operation(flow, sent, rng)
        broken += _send(flow, shadow, sent)
        best = book.sides.best
        broken += max(best[BID], best[BID + engine.HIDDEN_ROWS]) >= min(best[ASK], best[ASK + engine.HIDDEN_ROWS])
    return broken


@kernel
def _draw_operation(flow: Flow, sent: np.record, rng: np.random.Generator) -> None:
    book, what = flow.market.book, rng.random() * (LIMIT_RATE + MARKET_RATE + MODIFY_RATE + CANCEL_RATE * flow.count[0])
    sent.side, sent.owner, sent.lots = int(rng.random() * 2), int(rng.random() * 4), 1 + int(rng.random() * 8)
    sent.flags = sent.display = 0
    if what < LIMIT_RATE or flow.count[0] == 0:
        sent.kind, sent.price, how = LIMIT, limit_price(book, sent.side, rng), int(rng.random() * 16)
        if how < 8:
            sent.flags = (IOC, POST_ONLY, HIDDEN, HIDDEN, HIDDEN | POST_ONLY, IOC | HIDDEN, 0, 0)[how]
            sent.display = (0, 0, 0, 0, 0, 0, 1, 3)[how]
            sent.lots *= 1 + 3 * (how > 5)
    elif what < LIMIT_RATE + MARKET_RATE:
        sent.kind, sent.price = MARKET, NO_ASK if sent.side == BID else NO_BID
    elif what < LIMIT_RATE + MARKET_RATE + MODIFY_RATE:
        sent.kind, sent.order = MODIFY, flow.live[int(rng.random() * flow.count[0])]
        order = book.orders[sent.order & (book.orders.size - 1)]
        sent.side, sent.owner, sent.price = order.side, order.owner, order.price + int(rng.random() * 7) - 3
    else:
        sent.kind, sent.order = CANCEL, draw_live(flow, rng)


@kernel
def _send(flow: Flow, shadow: Shadow, sent: np.record) -> int:
    """Do one operation, keep the shadow up to date with what it answers and reports, and count what disagrees."""
    book, journal = flow.market.book, flow.market.journal
    rows, first, side = journal.rows[0], engine.front(book, 1 - sent.side), sent.side
    levels, trades, events = rows.levels, rows.trades, rows.events
    if sent.kind == LIMIT:
        answer = engine.limit(book, journal, side, sent.price, sent.lots, sent.owner, sent.flags, sent.display)
    elif sent.kind == MARKET:
        answer = engine.market(book, journal, side, sent.lots, sent.owner)
    elif sent.kind == MODIFY:
        answer = engine.modify(book, journal, sent.order, sent.price, sent.lots)
    else:
        answer = engine.cancel(book, journal, sent.order)
    if answer <= 0:
        return int(rows.levels != levels or rows.trades != trades or rows.events != events)
    broken = _read_levels(journal, levels, shadow) + _read_events(book, journal, events, trades, shadow)
    if sent.kind == CANCEL:
        slot = sent.order & (book.orders.size - 1)
        broken += shadow.order[slot] != sent.order or shadow.wanted[slot] != answer
        shadow.wanted[slot] = 0
        return broken
    return broken + _read_trades(flow, trades, shadow, sent, answer, first)


@kernel
def _read_trades(flow: Flow, since: int, shadow: Shadow, sent: np.record, taker: int, first: int) -> int:
    """Keep the ledger of what each order wants; the best maker trades first, prices worsen up to the limit."""
    book, journal, broken = flow.market.book, flow.market.journal, 0
    mask, sign = book.orders.size - 1, 1 if sent.side == BID else -1
    place, nobodys = taker & mask, sent.owner == 0
    if shadow.order[place] != taker:
        # The order that had the slot must have gone by its trades, a cancellation, or the self-trade rule.
        broken += shadow.wanted[place] != 0 and shadow.owner[place] == 0 and place != 0
        shadow.order[place], shadow.owner[place] = taker, sent.owner
    shadow.wanted[place], last = sent.lots, -NO_ASK
    for row in range(since, journal.rows[0].trades):
        trade = journal.trades[row]
        slot = trade.maker_id & mask
        broken += row == since and nobodys and trade.maker_id != first
        broken += shadow.order[slot] != trade.maker_id or shadow.owner[slot] != trade.maker_owner
        broken += trade.taker_id != taker or trade.taker_owner != sent.owner or trade.lots <= 0
        broken += trade.price != book.orders[slot].price
        broken += not nobodys and trade.maker_owner == sent.owner and book.rules[0].self_trade != engine.ALLOW
        is_hidden = book.orders[slot].terms & HIDDEN != 0
        broken += is_hidden and shadow.shown[1 - sent.side, trade.price] != 0
        broken += not last <= sign * trade.price <= sign * sent.price
        last = sign * trade.price
        shadow.wanted[slot] -= trade.lots
        shadow.wanted[place] -= trade.lots
        broken += shadow.wanted[slot] < 0 or shadow.wanted[place] < 0
    if engine.find(book, taker) == 0:
        broken += shadow.wanted[place] > 0 and place != 0 and nobodys
        shadow.wanted[place] = 0
    elif sent.kind == LIMIT:
        flow.live[flow.count[0]] = taker
        flow.count[0] += 1
    return broken


@kernel
def _read_levels(journal: engine.Journal, since: int, shadow: Shadow) -> int:
    broken = 0
    for row in range(since, journal.rows[0].levels):
        change = journal.levels[row]
        broken += shadow.shown[change.side, change.price] != change.before or change.after < 0
        shadow.shown[change.side, change.price] = change.after
    return broken


@kernel
def _read_events(book: engine.Book, journal: engine.Journal, since: int, trade: int, shadow: Shadow) -> int:
    """Follow the feed by order; its executions must be the trades, one by one."""
    broken = 0
    for row in range(since, journal.rows[0].events):
        event = journal.events[row]
        slot = event.order_id & (book.orders.size - 1)
        if event.kind >= engine.EXECUTE:
            broken += event.lots != journal.trades[trade].lots or event.price != journal.trades[trade].price
            trade += 1
        if event.kind == engine.ADD:
            broken += shadow.fed[slot] != 0
            shadow.fed[slot] = event.lots
            shadow.clock[0] += 1
            shadow.joined[slot] = shadow.clock[0]
        elif event.kind != engine.EXECUTE_HIDDEN:
            shadow.fed[slot] -= event.lots
            broken += shadow.fed[slot] < 0 or (event.kind == engine.DELETE and shadow.fed[slot] != 0)
    return broken + (trade != journal.rows[0].trades)


@kernel
def recount(book: engine.Book, shadow: Shadow) -> int:
    """Walk every queue and return how many totals, links, bits, places, ledgers and displayed lots are wrong."""
    broken, used, resting = 0, 0, shadow.resting
    resting[:] = False
    width, low = book.levels.shape[1], book.state[0].low
    for row in range(4):
        orders, lots, best = 0, 0, NO_BID if row % 2 == BID else NO_ASK
        for price in range(low, low + width):
            level = book.levels[row, price & (width - 1)]
            counted, queued = _recount_queue(book, shadow, row, price)
            broken += queued < 0 or level.lots != queued
            bit = (price if row % 2 == ASK else ~price) & (width - 1)
            broken += ((book.occupied[row, bit >> 6] >> (bit & 63)) & 1) != (counted > 0)
            if row < engine.HIDDEN_ROWS:
                broken += shadow.shown[row, price] != queued
            orders, lots = orders + counted, lots + queued
            if counted > 0 and (row % 2 == BID or best == NO_ASK):
                best = price
        own = book.sides[row]
        broken += own.orders != orders or own.lots != lots or own.best != best
        used += orders
    broken += used + book.state[0].free_slots != book.orders.size - 1
    for place in range(book.state[0].free_slots):
        broken += resting[book.free[place]]
    for slot in range(1, book.orders.size):
        # What the self-trade rule took out is known to nobody but the book.
        broken += not resting[slot] and (
            shadow.fed[slot] != 0 or (shadow.wanted[slot] != 0 and shadow.owner[slot] == 0)
        )
    return broken


@kernel
def _recount_queue(book: engine.Book, shadow: Shadow, row: int, price: int) -> tuple[int, int]:
    """Return orders and lots of a queue, lots negative where something is wrong with it."""
    level = book.levels[row, price & (book.levels.shape[1] - 1)]
    slot, ahead, orders, lots, wrong = level.first, 0, 0, 0, False
    while slot != 0 and not wrong:
        order = book.orders[slot]
        wrong = order.ahead != ahead or order.price != price or order.side != row % 2 or shadow.resting[slot]
        wrong |= order.order_id != shadow.order[slot] or order.lots + order.reserve != shadow.wanted[slot]
        wrong |= order.lots <= 0 or order.reserve < 0
        if row < engine.HIDDEN_ROWS:
            wrong |= order.lots != shadow.fed[slot]
            wrong |= ahead != 0 and shadow.joined[ahead] >= shadow.joined[slot]
        shadow.resting[slot] = True
        orders, lots, slot, ahead = orders + 1, lots + order.lots, order.behind, slot
    return orders, -1 if wrong or level.last != ahead else lots


@kernel
def follow(flow: Flow, shadow: Shadow, centre: int) -> int:
    """Move the band and return how many laws that broke."""
    book, journal = flow.market.book, flow.market.journal
    tape.rewind(flow.market)
    before = book.sides.orders.sum()
    gone = engine.move_band(book, journal, centre)
    low, width = book.state[0].low, book.levels.shape[1]
    for slot in range(1, book.orders.size):
        if not low <= book.orders[slot].price < low + width:
            shadow.wanted[slot] = 0
    broken = _read_levels(journal, 0, shadow) + _read_events(book, journal, 0, 0, shadow)
    return broken + (gone < 0 or before - gone != book.sides.orders.sum())


# --- one queue


@kernel
def one_queue(
    market: tape.Market, rates: tuple[float, float, float], events: int, rng: np.random.Generator, seconds: np.ndarray
) -> None:
    """Let single lots arrive at one price (rate 0), trade (rate 1) and cancel (rate 2, each order); add up the time
    spent with each number of orders, the last place for all beyond."""
    book, journal = market.book, market.journal
    for _ in range(events):
        if not engine.has_room(book, journal):
            tape.rewind(market)
        queue = book.sides[BID].orders
        taken = rates[1] if queue > 0 else 0.0
        total = rates[0] + taken + rates[2] * queue
        seconds[min(queue, seconds.size - 1)] += rng.standard_exponential() / total
        what = rng.random() * total
        if what < rates[0]:
            engine.limit(book, journal, BID, _CENTRE, 1)
        elif what < rates[0] + taken:
            engine.market(book, journal, ASK, 1)
        else:
            slot = book.levels[BID, _CENTRE & (book.levels.shape[1] - 1)].first
            for _ in range(min(int((what - rates[0] - taken) / rates[2]), queue - 1)):
                slot = book.orders[slot].behind
            engine.cancel(book, journal, book.orders[slot].order_id)
