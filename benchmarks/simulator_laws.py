"""Compiled flows and audits for `simulator.py`: zero intelligence, everything that an engine can be sent, one queue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.market import engine, tape
from synth_pipeline.market.engine import ASK, BID, HIDDEN, IOC, NO_ASK, NO_BID, POST_ONLY

LIMIT, MARKET, CANCEL = 0, 1, 2
SENT = np.dtype([(name, np.int64) for name in ("kind", "side", "price", "lots", "order")])
"""An order as sent; `order` counts the orders sent before, of a cancellation it is the order cancelled."""
FEWEST_LIVE = 400
_CENTRE = 2**19
_MEAN_DISTANCE = 8.0
_ROOM = 64


class Flow(NamedTuple):
    """A book, what is sent to it, and the orders that may still rest."""

    market: tape.Market
    live: np.ndarray
    count: np.ndarray
    sent: np.recarray


def new_flow(events: int, *, live: int = 4096) -> Flow:
    """Return a flow with an empty book that can send so many events at a time."""
    market = tape.new_tape(engine.new_book(_CENTRE), 0)
    return Flow(market, np.zeros(live, np.int64), np.zeros(1, np.int64), engine.records(events, SENT))


@njit(cache=True)
def zero_intelligence(flow: Flow, seconds_per_event: float, rng: np.random.Generator) -> int:
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
        market.clock[0].now_ns += 1 + int(rng.standard_exponential() * seconds_per_event * 1e9)
        sent, what = flow.sent[event], rng.random()
        sent.side = BID if rng.random() < 0.5 else ASK
        if what < 0.5 or flow.count[0] < FEWEST_LIVE:
            sent.kind, sent.lots, sent.price = LIMIT, 1 + int(rng.random() * 5), limit_price(book, sent.side, rng)
            sent.order = engine.limit(book, journal, sent.side, sent.price, sent.lots)
            live[flow.count[0]] = sent.order
            flow.count[0] += 1
        elif what < 0.58:
            sent.kind, sent.lots = MARKET, 1 + int(rng.random() * 8)
            sent.order = engine.market(book, journal, sent.side, sent.lots)
        else:
            sent.kind, sent.order = CANCEL, draw_live(flow, rng)
            if engine.cancel(book, journal, sent.order) == 0:
                continue
        sent.order = sent.order // book.orders.size - 1
        tape.record(market, market.clock[0].now_ns)
        event += 1
    return trades + journal.rows[0].trades


@njit(cache=True)
def limit_price(book: engine.Book, side: int, rng: np.random.Generator) -> int:
    """Draw a price away from the other side's best."""
    best = book.sides[1 - side].best
    if best in (NO_BID, NO_ASK):
        best = _CENTRE
    away = 1 + int(rng.standard_exponential() * _MEAN_DISTANCE)
    return int(best - away if side == BID else best + away)


@njit(cache=True)
def draw_live(flow: Flow, rng: np.random.Generator) -> int:
    """Take an order from the list of those that may rest, each as likely as any other."""
    drawn = int(rng.random() * flow.count[0])
    order = flow.live[drawn]
    flow.count[0] -= 1
    flow.live[drawn] = flow.live[flow.count[0]]
    return int(order)


@njit(cache=True)
def forget_gone(flow: Flow) -> None:
    """Keep only the orders that rest."""
    kept = 0
    for place in range(flow.count[0]):
        if engine.find(flow.market.book, flow.live[place]) != 0:
            flow.live[kept] = flow.live[place]
            kept += 1
    flow.count[0] = kept


@njit(cache=True)
def replay(market: tape.Market, sent: np.recarray, ids: np.ndarray) -> int:
    """Send a recorded stream to an empty book and return the trades; `ids` has room for each order."""
    book, journal, orders, trades = market.book, market.journal, 0, 0
    for event in range(sent.size):
        if not engine.has_room(book, journal):
            trades += journal.rows[0].trades
            tape.rewind(market)
        row = sent[event]
        if row.kind == CANCEL:
            engine.cancel(book, journal, ids[row.order])
            continue
        if row.kind == LIMIT:
            ids[orders] = engine.limit(book, journal, row.side, row.price, row.lots)
        else:
            ids[orders] = engine.market(book, journal, row.side, row.lots)
        orders += 1
    return trades + journal.rows[0].trades


# --- every kind of order, and the laws that none may break


class Shadow(NamedTuple):
    """What the journal alone says of the book, by slot of the pool and by price."""

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


def new_shadow(book: engine.Book) -> Shadow:
    """Return the shadow of an empty book."""
    per_slot = [np.zeros(book.orders.size, np.int64) for _ in range(5)]
    return Shadow(*per_slot, np.zeros((2, 2 * _CENTRE), np.int64), np.zeros(1, np.int64))


@njit(cache=True)
def stress(flow: Flow, shadow: Shadow, events: int, rng: np.random.Generator) -> int:
    """Send every kind of order, owned ones too, and return how many laws were broken, each operation looked at."""
    book, journal, broken = flow.market.book, flow.market.journal, 0
    for _ in range(events):
        if not engine.has_room(book, journal):
            tape.rewind(flow.market)
        if flow.count[0] >= flow.live.size - 1:
            forget_gone(flow)
        broken += _send_any(flow, shadow, rng)
        best_bid = max(book.sides[BID].best, book.sides[BID + engine.HIDDEN_ROWS].best)
        best_ask = min(book.sides[ASK].best, book.sides[ASK + engine.HIDDEN_ROWS].best)
        broken += best_bid >= best_ask
    return broken


@njit(cache=True)
def _send_any(flow: Flow, shadow: Shadow, rng: np.random.Generator) -> int:
    """Send one operation, compare what it reports with the shadow, and keep the shadow up to date."""
    book, journal = flow.market.book, flow.market.journal
    rows, mask = journal.rows[0], book.orders.size - 1
    levels, trades, events = rows.levels, rows.trades, rows.events
    side, owner = BID if rng.random() < 0.5 else ASK, int(rng.random() * 4)
    price, lots = limit_price(book, side, rng), 1 + int(rng.random() * 8)
    what, before, first = rng.random(), 0, engine.front(book, 1 - side)
    if what < 0.45 or flow.count[0] < FEWEST_LIVE:
        order = _send_limit(book, journal, side, price, lots, owner, rng)
        if order > 0 and engine.find(book, order) != 0:
            flow.live[flow.count[0]] = order
            flow.count[0] += 1
            before = lots
    elif what < 0.55:
        price = NO_ASK if side == BID else NO_BID
        order = engine.market(book, journal, side, lots, owner)
    elif what < 0.7:
        order = flow.live[int(rng.random() * flow.count[0])]
        slot = engine.find(book, order)
        if slot != 0:
            side, owner, lots = book.orders[slot].side, book.orders[slot].owner, 1 + int(rng.random() * 20)
            price, first = book.orders[slot].price + int(rng.random() * 5) - 2, engine.front(book, 1 - side)
        order = engine.modify(book, journal, order, price, lots)
        before = lots
    else:
        order, lots = draw_live(flow, rng), 0
        slot = engine.find(book, order)
        wanted = shadow.wanted[slot] if slot != 0 else 0
        broken = int(engine.cancel(book, journal, order) != wanted)
        if slot != 0:
            shadow.wanted[slot] = 0
        return broken + _read_levels(journal, levels, shadow) + _read_events(journal, events, shadow, mask)
    broken = int(order <= 0 and (rows.levels, rows.trades, rows.events) != (levels, trades, events))
    if order > 0:
        slot = order & mask
        if before > 0:
            shadow.order[slot], shadow.owner[slot], shadow.wanted[slot] = order, owner, before
        broken += _read_trades(book, journal, trades, shadow, order, side, price, lots, first)
        if before > 0 and engine.find(book, order) == 0:
            shadow.wanted[slot] = 0
    return broken + _read_levels(journal, levels, shadow) + _read_events(journal, events, shadow, mask)
