"""When a simulated market is no market any more: what can break, in words, and the compiled check for it."""

from synth_pipeline.market.compiling import kernel
from synth_pipeline.market.engine import ASK, BID, Book, move_band
from synth_pipeline.market.tape import Market, record

NO_BIDS, NO_ASKS, RUNAWAY, NO_SLOT, EXPLOSION = 2, 3, 4, 5, 6
REASONS = {
    NO_BIDS: "no bid is left, so nothing tells where the next orders belong: calibrate on a longer or calmer record",
    NO_ASKS: "no ask is left, so nothing tells where the next orders belong: calibrate on a longer or calmer record",
    RUNAWAY: "the mid has left the price it is held to by more than half of it: the flow's rates pull it away",
    NO_SLOT: "the book is full: the flow places more orders than it cancels",
    EXPLOSION: "orders excite ever more orders: the flow is not stationary in the states that it runs into",
}
"""What each code says."""


@kernel
def emptied(book: Book) -> int:
    """Return the code of a side without orders, or 0."""
    if book.sides[BID].orders == 0:
        return NO_BIDS
    return NO_ASKS if book.sides[ASK].orders == 0 else 0


@kernel
def broken(book: Book, anchor: float) -> int:
    """Return a code of `REASONS`, or 0; `anchor` is the price, in ticks, that the mid should stay near."""
    code = emptied(book)
    if code != 0:
        return code
    if abs(0.5 * (book.sides[BID].best + book.sides[ASK].best) - anchor) > 0.5 * anchor:
        return RUNAWAY
    return NO_SLOT if book.state[0].free_slots == 0 else 0


@kernel
def lowest_price(low: int, width: int, mid: int) -> int:
    """Return where a price band of `width` ticks from `low` on starts once it has followed the mid."""
    return low if abs(mid - low - width // 2) <= width // 4 else max(1, mid - width // 2)


@kernel
def settle(market: Market, anchor: float) -> int:
    """Check the market after an event and let the price band follow it; returns a code of `REASONS`, or 0."""
    book = market.book
    code = broken(book, anchor)
    if code != 0:
        return code
    mid = (book.sides[BID].best + book.sides[ASK].best) // 2
    if lowest_price(book.state[0].low, book.levels.shape[1], mid) == book.state[0].low:
        return 0
    if move_band(book, market.journal, mid) > 0:
        record(market, market.clock[0].now_ns)
    return 0
