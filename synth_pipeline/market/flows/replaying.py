"""Messages as the fits walk over them: plain arrays, and the book on a ladder of prices.

Executions of one side that follow each other within a millisecond are one market order: venues report its fills one by
one, and a recorder stamps each. Of the limit orders that one event of the source shows together
the best comes first, as if it had been there before the others joined behind it.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.market.compiling import njit
from synth_pipeline.market.flows.positions import positions_of
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, SHOWN, Messages, books

BID, ASK = 0, 1
_FEWEST_EVENTS, _FEWEST_SECONDS = 100, 5.0
_SHORT_SECONDS = 60.0
_TOGETHER_NS = 1_000_000
MOST_ORDERS = 100
"""Orders that a level is taken to hold at most, when only its lots are known."""
_MARGIN, _WIDEST = 2**15, 2**23
"""Ticks of the ladder beyond every best price, and at most."""


class Rows(NamedTuple):
    """Messages and books as arrays; prices count from the ladder's lowest."""

    time_ns: IntArray
    kind: IntArray
    side: IntArray
    """0 bid, 1 ask, of the resting order."""
    price: IntArray
    size: IntArray
    lasts: IntArray
    """1 where an order comes or goes, by its id; -1 throughout where ids are unknown."""
    takes: IntArray
    """Lots of the market order that begins here; 0 at the other messages."""
    opens: IntArray
    """Shape (stretches + 1,): first message of each stretch, and the end."""
    starts_ns: IntArray
    ends_ns: IntArray
    standing: IntArray
    """Rows (side, price, lots) of the books at the starts."""
    standing_opens: IntArray
    """Shape (stretches + 1,): first row of each book, and the end."""
    depth: int
    """Levels a side that are seen, 0 for all."""
    width: int
    """Prices of the ladder."""
    base: int
    """The ladder's lowest price, ticks."""


class Ladder(NamedTuple):
    """The book of a replay: lots and (known or inferred) orders at each price, shape (2, prices)."""

    lots: IntArray
    orders: IntArray
    best: IntArray
    """Best price of each side; -1 and the width where there is none."""


@dataclass(frozen=True)
class Record:
    """Messages prepared for fitting, and what a first look at their books shows."""

    rows: Rows
    placed: IntArray
    """Distances of limit orders from the other side's best, ticks."""
    spread: float
    """Median number of ticks between the best prices, over messages."""
    unit: float
    """Lots of a usual limit order: what stands at the start is counted in it."""
    makers: IntArray
    """Lots of the orders that market orders used up, by their fills; none where orders have ids."""
    positions: FloatArray
    """Where in their queues cancelled orders stood, 0 … 1; none where orders have no ids."""
    notes: tuple[str, ...]
    """What the source does not tell and what is taken instead."""


def record_of(messages: Messages) -> Record:
    """Return messages prepared for fitting.

    Raises `TooLittleDataError` for messages too few, of too short a time, without executions or on one side only.
    """
    _check(messages)
    messages = _arranged(messages)
    ladders = [ladder[:, :, 0] for _, ladder in books(messages, 1)]
    bid, bid_size, ask, ask_size = np.concatenate(ladders, axis=1)
    empty = (bid_size == 0) | (ask_size == 0)
    side = (messages.side < 0).astype(np.int64)
    price = messages.price.astype(np.int64)
    distance = np.where(side == BID, ask - price, price - bid)
    best = np.concatenate((bid[bid_size > 0], ask[ask_size > 0]))
    if not best.size or empty.all():
        raise TooLittleDataError("the book never has two sides: take a record that shows both")
    sizes = messages.size[messages.kind == LIMIT]
    return Record(
        rows=_rows(messages, side, price, (int(best.min()), int(best.max()))),
        placed=distance[(messages.kind == LIMIT) & ~empty & (distance > 0)].astype(np.int64),
        spread=float(np.median((ask - bid)[~empty])),
        unit=float(np.minimum(sizes, np.quantile(sizes, 0.99)).mean()),
        makers=_makers(messages),
        positions=positions_of(messages),
        notes=_notes(messages, _lasting(messages, empty)),
    )


def _rows(messages: Messages, side: IntArray, price: IntArray, touched: tuple[int, int]) -> Rows:
    base = max(touched[0] - _MARGIN, 0)
    standing = [_levels(book.bids, BID, base) + _levels(book.asks, ASK, base) for book in messages.initial]
    flat = [row for book in standing for row in book]
    return Rows(
        time_ns=messages.time_ns.astype(np.int64),
        kind=messages.kind.astype(np.int64),
        side=side,
        price=price - base,
        size=messages.size.astype(np.int64),
        lasts=_comings(messages),
        takes=_taken(messages),
        opens=np.append(messages.opens, len(messages)).astype(np.int64),
        starts_ns=messages.spans[:, 0].astype(np.int64),
        ends_ns=messages.spans[:, 1].astype(np.int64),
        standing=np.array(flat, dtype=np.int64).reshape(-1, 3),
        standing_opens=np.cumsum([0, *map(len, standing)]),
        depth=messages.depth,
        width=min(touched[1] + _MARGIN - base, _WIDEST),
        base=base,
    )


def _lasting(messages: Messages, marked: NDArray[np.bool_]) -> float:
    """Return for how many seconds the book stood as before the marked messages."""
    waits = np.diff(messages.time_ns, prepend=messages.time_ns[:1])
    waits[messages.opens] = messages.time_ns[messages.opens] - messages.spans[:, 0]
    return float(waits[marked].sum()) / NS_PER_SECOND


def _notes(messages: Messages, one_sided_s: float) -> tuple[str, ...]:
    found = []
    hidden = set(messages.unobserved)
    if "number of orders" in hidden:
        found.append("numbers of orders are inferred from additions, cancellations and the fills of market orders")
    if "queue position" in hidden:
        found.append("which order of a queue is cancelled is not observed")
    found += [f"not observed: {name}" for name in messages.unobserved if name.startswith(("changes between", "hidden"))]
    if messages.depth:
        found.append(f"levels seen on a side: {messages.depth}; rates beyond are extrapolated")
    if messages.seconds < _SHORT_SECONDS:
        found.append(
            f"only {messages.seconds:.1f} s are watched: what happens less than once in a while has no rate of its own"
        )
    if one_sided_s > 0.001 * messages.seconds:
        found.append(f"one side is empty for {one_sided_s:.1f} of {messages.seconds:.1f} s: that time is left out")
    if messages.scale.inverse:
        found.append("sizes count contracts of fixed quote value (inverse contract)")
    return (*found, *_drift(messages))


def _drift(messages: Messages) -> list[str]:
    """Say where the rate of messages differs between the halves of the record by more than a half."""
    early, late = (len(half) / half.seconds for half in messages.split(0.5))
    if 2 / 3 * early < late < 3 / 2 * early:
        return []
    return [f"not stationary: {early:.3g} messages a second in the first half, {late:.3g} in the second"]


def _check(messages: Messages) -> None:
    """Raise `TooLittleDataError` for what no flow can be fitted on."""
    counts = {name: int((messages.kind == code).sum()) for name, code in _KINDS.items()}
    if messages.seconds < _FEWEST_SECONDS:
        raise TooLittleDataError(
            f"{messages.seconds:.1f} s of messages are too short: take at least {_FEWEST_SECONDS} s"
        )
    if not counts["executions"]:
        raise TooLittleDataError("the messages hold no executions: record trades beside the book")
    for name, count in counts.items():
        if count < (10 if name == "executions" else _FEWEST_EVENTS):
            raise TooLittleDataError(f"{count} {name} are too few to tell a rate: take a longer record")
    for name, code in (("bids", 1), ("asks", -1)):
        if not (messages.side[messages.kind == LIMIT] == code).any():
            raise TooLittleDataError(f"no limit order joins the {name}: the record shows one side only")


_KINDS = {"limit orders": LIMIT, "cancellations": CANCEL, "executions": MARKET}


_COLUMNS = ("time_ns", "kind", "side", "price", "size", "order_id")


def _arranged(messages: Messages) -> Messages:
    """Return the messages in an order that tells what each met.

    Limit orders of one event and time come by price, the best first. What a source tells of between the fills of one
    market order comes before it: the orders that it met there must have been there.
    """
    index, placed = np.arange(len(messages)), messages.kind == LIMIT
    event = np.concatenate(([0], np.cumsum(messages.ends)[:-1]))
    begins, lasts = _market_orders(messages)
    depth = np.zeros(len(messages) + 1, dtype=np.int64)
    np.add.at(depth, begins + 1, 1)
    np.add.at(depth, lasts + 1, -1)
    inside = np.cumsum(depth)[:-1] > 0
    met = inside.copy()
    met[begins] |= inside[np.minimum(begins + 1, len(messages) - 1)]
    new = np.append(True, (event[1:] != event[:-1]) | (messages.time_ns[1:] != messages.time_ns[:-1]))
    alone = new | ~placed | np.append(True, ~placed[:-1])
    run = np.cumsum(np.where(met, ~inside, alone))
    rank = np.where(met, index, -messages.price * messages.side)
    order = np.lexsort((rank, messages.kind == MARKET, run))
    columns = {name: getattr(messages, name)[order] for name in _COLUMNS}
    # What moved before a fill has its time, which is less than a millisecond earlier.
    columns["time_ns"] = np.minimum.accumulate(columns["time_ns"][::-1])[::-1]
    return replace(messages, **columns)


def _market_orders(messages: Messages) -> tuple[IntArray, IntArray]:
    """Return the first and the last fill of each market order."""
    at = np.flatnonzero(messages.kind == MARKET)
    if not at.size:
        return at, at
    key = np.stack((messages.side[at], messages.stretch[at]))
    later = np.diff(messages.time_ns[at]) > _TOGETHER_NS
    new = np.append(True, later | (np.diff(key) != 0).any(axis=0))
    return at[new], at[np.append(new[1:], True)]


def _taken(messages: Messages) -> IntArray:
    """Return the lots of each market order at its first fill."""
    begins, lasts = _market_orders(messages)
    filled = np.cumsum(np.where(messages.kind == MARKET, messages.size, 0))
    takes = np.zeros(len(messages), dtype=np.int64)
    takes[begins] = filled[lasts] - filled[begins] + messages.size[begins]
    return takes


def _makers(messages: Messages) -> IntArray:
    """Return the sizes of all fills but the last of each market order, which may leave something of what it met."""
    _, lasts = _market_orders(messages)
    whole = messages.kind == MARKET
    whole[lasts] = False
    return np.asarray(messages.size[whole & (messages.order_id == 0)])


def _levels(levels: IntArray, side: int, base: int) -> list[tuple[int, int, int]]:
    return [(side, price - base, lots) for price, lots in levels.tolist()]


def _comings(messages: Messages) -> IntArray:
    """Return 1 for messages with which an order comes or goes as a whole; -1 where most have no id."""
    known = np.flatnonzero((messages.kind != SHOWN) & (messages.order_id != 0))
    found = np.zeros(len(messages), dtype=np.int64)
    if 2 * known.size < (messages.kind != SHOWN).sum():
        return found - 1
    rows = known[np.argsort(messages.order_id[known], kind="stable")]
    placed, ids = messages.kind[rows] == LIMIT, messages.order_id[rows]
    signed = np.where(placed, messages.size[rows], -messages.size[rows])
    first = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    before_first = np.repeat((np.cumsum(signed) - signed)[first], np.diff(np.append(first, ids.size)))
    left = np.cumsum(signed) - before_first
    # An order that was there before the record goes with the first message that takes from it.
    found[rows] = np.where(placed, left == messages.size[rows], left <= 0)
    return found


def new_ladder(rows: Rows) -> Ladder:
    """Return an empty ladder."""
    return Ladder(
        np.zeros((2, rows.width), dtype=np.int64), np.zeros((2, rows.width), dtype=np.int64), np.array([-1, rows.width])
    )


@njit(cache=True)
def orders_in(lots: int, unit: float) -> int:
    """Return how many orders of `unit` lots a level is taken to hold when only its lots are known."""
    return min(max(int(lots / unit + 0.5), 1), MOST_ORDERS, lots) if lots > 0 else 0


@njit(cache=True)
def open_stretch(ladder: Ladder, rows: Rows, stretch: int, unit: float) -> None:
    """Set the book at the start of a stretch; a level counts as many orders as `unit` lots go into it."""
    ladder.lots[:] = 0
    ladder.orders[:] = 0
    ladder.best[BID], ladder.best[ASK] = -1, rows.width
    for row in range(rows.standing_opens[stretch], rows.standing_opens[stretch + 1]):
        side, price, lots = rows.standing[row]
        show(ladder, side, price, lots, unit)


@njit(cache=True)
def show(ladder: Ladder, side: int, price: int, lots: int, unit: float) -> None:
    """Set what stands at a price."""
    if 0 <= price < ladder.lots.shape[1]:
        ladder.lots[side, price] = lots
        ladder.orders[side, price] = orders_in(lots, unit)
        _look(ladder, side, price)


@njit(cache=True)
def apply(ladder: Ladder, rows: Rows, at: int, unit: float) -> None:
    """Let a message change the book.

    The number of orders follows ids where they are known. Else each addition is an order, each cancellation takes one
    out, and an execution as many as go with its share of the level; a level that empties has none.
    """
    side, price, size, kind = rows.side[at], rows.price[at], rows.size[at], rows.kind[at]
    if kind == SHOWN:
        show(ladder, side, price, size, unit)
        return
    if not 0 <= price < ladder.lots.shape[1]:
        return
    before, orders = ladder.lots[side, price], ladder.orders[side, price]
    ladder.lots[side, price] += size if kind == LIMIT else -size
    left = ladder.lots[side, price]
    if rows.lasts[at] >= 0:
        orders += rows.lasts[at] if kind == LIMIT else -rows.lasts[at]
    elif kind == LIMIT:
        orders += 1
    elif kind == CANCEL:
        orders -= 1
    elif before > 0:
        orders = int(orders * max(left, 0) / before + 0.5)
    ladder.orders[side, price] = max(orders, 1) if left > 0 else 0
    _look(ladder, side, price)


@njit(cache=True)
def _look(ladder: Ladder, side: int, price: int) -> None:
    """Find the best price again after a change at a price."""
    out = -1 if side == BID else 1
    width = ladder.lots.shape[1]
    if ladder.lots[side, price] > 0:
        if (ladder.best[side] - price) * out > 0 or not 0 <= ladder.best[side] < width:
            ladder.best[side] = price
    elif price == ladder.best[side]:
        at = price
        while 0 <= at < width and ladder.lots[side, at] <= 0:
            at += out
        ladder.best[side] = at


@njit(cache=True)
def is_open(ladder: Ladder) -> bool:
    """Tell whether both sides have a best price and do not cross."""
    return bool(0 <= ladder.best[BID] < ladder.best[ASK] < ladder.lots.shape[1])


@njit(cache=True)
def sight(ladder: Ladder, side: int, depth: int, reach: int) -> int:
    """Return the furthest distance from the other side's best, at most `reach`, at which levels are seen."""
    out = -1 if side == BID else 1
    if depth == 0:
        return reach
    price, seen = ladder.best[side], 0
    far = abs(price - ladder.best[1 - side])
    while far <= reach and 0 <= price < ladder.lots.shape[1]:
        seen += ladder.lots[side, price] > 0
        if seen == depth:
            return int(far)
        price += out
        far += 1
    return reach
