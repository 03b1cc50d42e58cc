"""The book that a run opens with: the last sound one of the record, its levels cut into orders of usual sizes."""

from collections.abc import Iterator

import numpy as np
from numba import njit

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.market.engine import ASK, BID, Book, Journal, limit, new_book, resting
from synth_pipeline.market.flows.placement import Distances
from synth_pipeline.market.flows.sizes import Sizes, draw_size
from synth_pipeline.market.tape import Market, new_tape
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import Messages, Standing

_SMALLEST_BAND, _LARGEST_BAND = 2**12, 2**20
_MOST_ORDERS = 50
"""Orders that one level is cut into at most."""


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
    return min(max(1 << (8 * reach - 1).bit_length(), _SMALLEST_BAND), _LARGEST_BAND)


def open_market(
    levels: IntArray, reach: int, sizes: Sizes, group: int, start_ns: int, pool: int, rng: np.random.Generator
) -> Market:
    """Return a market whose book has these levels, cut into orders of sizes of a group."""
    centre = int(levels[levels[:, 0] == BID, 1].max() + levels[levels[:, 0] == ASK, 1].min()) // 2
    book = new_book(centre, levels=band_of(reach), pool=pool)
    market = new_tape(book, start_ns, capacity=max(2**15, 2 * pool))
    fill(market.book, market.journal, levels, sizes, group, rng)
    market.journal.rows[0] = (0, 0, 0)
    return market


@njit(cache=True)
def fill(book: Book, journal: Journal, levels: IntArray, sizes: Sizes, group: int, rng: np.random.Generator) -> None:
    """Let orders join until every level holds its lots."""
    for row in range(len(levels)):
        side, price, lots = levels[row]
        for number in range(_MOST_ORDERS):
            left = lots - resting(book, side, price)
            if left <= 0:
                break
            last = number == _MOST_ORDERS - 1
            limit(book, journal, side, price, left if last else min(left, draw_size(sizes, group, rng)))
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
