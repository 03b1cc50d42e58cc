"""The book that a run opens with: the last sound one of the record, its levels cut into usual orders."""

from collections.abc import Iterator

import numpy as np

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.market.compiling import njit
from synth_pipeline.market.engine import ASK, BID, Book, Journal, limit, new_book
from synth_pipeline.market.flows.placement import Distances
from synth_pipeline.market.flows.replaying import MOST_ORDERS, orders_in
from synth_pipeline.market.flows.sizes import Sizes, draw_size
from synth_pipeline.market.tape import Market, new_tape
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import Messages, Standing

_SMALLEST_BAND, _LARGEST_BAND = 2**12, 2**20


def opening_of(messages: Messages, reach: int) -> IntArray:
    """Return the levels, rows (side, price, lots), of the last book with two sides, up to a reach from the touch.

    Raises `TooLittleDataError` when no recent book has two sides.
    """
    for book in _backwards(messages):
        if len(book.bids) and len(book.asks) and book.bids[-1, 0] < book.asks[-1, 0]:
            bid, ask = book.bids[-1, 0], book.asks[-1, 0]
            bids, asks = book.bids[book.bids[:, 0] >= ask - reach], book.asks[book.asks[:, 0] <= bid + reach]
            sides = ((BID, bids), (ASK, asks))
            return np.concatenate([np.insert(levels, 0, side, axis=1) for side, levels in sides]).astype(np.int64)
    raise TooLittleDataError("the book lacks a side over the last minutes of the record: end it where both sides quote")


def _backwards(messages: Messages) -> Iterator[Standing]:
    start_ns, end_ns = (int(time) for time in messages.spans[-1])
    for back in range(120):
        moment = end_ns - 1 - back * NS_PER_SECOND
        if moment > start_ns:
            yield messages.slice(moment, moment + 1).initial[-1]


def band_of(reach: int) -> int:
    """Return how many prices a book needs, so that orders up to a reach fit wherever the market is in it."""
    return min(max(1 << (4 * reach - 1).bit_length(), _SMALLEST_BAND), _LARGEST_BAND)


def open_market(levels: IntArray, unit: float, reach: int, start_ns: int, pool: int) -> Market:
    """Return a market whose book has these levels, each of as many equal orders as `unit` lots go into it.

    The pool is made larger where the orders would fill more than a quarter of it.
    """
    centre = int(levels[levels[:, 0] == BID, 1].max() + levels[levels[:, 0] == ASK, 1].min()) // 2
    orders = int(np.minimum(levels[:, 2] / unit + 1, MOST_ORDERS).sum())
    pool = max(pool, 1 << (4 * orders).bit_length())
    market = new_tape(new_book(centre, levels=band_of(reach), pool=pool), start_ns, capacity=max(2**15, 2 * pool))
    _fill(market.book, market.journal, levels, unit)
    return market


@njit(cache=True)
def _fill(book: Book, journal: Journal, levels: IntArray, unit: float) -> None:
    for row in range(len(levels)):
        side, price, lots = levels[row]
        orders = orders_in(lots, unit)
        for number in range(orders):
            limit(book, journal, side, price, lots * (number + 1) // orders - lots * number // orders)
            journal.rows[0].levels = journal.rows[0].trades = journal.rows[0].events = 0


def deepened(
    levels: IntArray,
    distances: Distances,
    limit_rates: FloatArray,
    cancel_rates: FloatArray,
    sizes: Sizes,
    rng: np.random.Generator,
) -> IntArray:
    """Return levels and, beyond the last one seen of each side, as many as stand there in the long run.

    Orders that come at the rate λ and leave at the rate θ each number λ / θ on average, Poisson distributed; sizes come
    from the group that is the number of the class.
    """
    found = [levels]
    classes = distances.class_of
    for side, other in ((BID, levels[levels[:, 0] == ASK, 1].min()), (ASK, levels[levels[:, 0] == BID, 1].max())):
        seen = np.abs(levels[levels[:, 0] == side, 1] - other).max()
        distance = np.arange(seen + 1, classes.size)
        number = rng.poisson(limit_rates[classes[distance]] / cancel_rates[classes[distance]])
        price = other + (2 * side - 1) * distance
        kept = (number > 0) & (price > 0)
        lots = [
            sum(draw_size(sizes, classes[each], rng) for _ in range(count))
            for each, count in zip(distance[kept].tolist(), number[kept].tolist(), strict=True)
        ]
        found.append(np.column_stack((np.full(len(lots), side), price[kept], np.array(lots, dtype=np.int64))))
    return np.concatenate(found)
