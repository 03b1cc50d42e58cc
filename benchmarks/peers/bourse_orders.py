"""bourse as a peer of `simulator.py`, in a Python of its own.

Run with a stream of orders (.npy), a file for the trades and `each` or `batches`; prints the seconds of CPU taken.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import bourse
import numpy as np

LIMIT, CANCEL = 0, 2
BATCH = 1000


def one_by_one(sent: np.ndarray) -> tuple[float, Any]:
    """Call the book once an order, in order; at equal times it would take orders of one price in any order."""
    book = bourse.core.OrderBook(0, 1)
    place, cancel, set_time = book.place_order, book.cancel_order, book.set_time
    rows = list(zip(*(sent[name].tolist() for name in ("kind", "side", "price", "lots", "order")), strict=True))
    started = time.process_time()
    for now, (kind, side, price, lots, order) in enumerate(rows):
        set_time(now)
        if kind == CANCEL:
            cancel(order)
        elif kind == LIMIT:
            place(side == 0, lots, 0, price=price)
        else:
            place(side == 0, lots, 0)
    return time.process_time() - started, book.get_trades()


def in_batches(sent: np.ndarray) -> tuple[float, Any]:
    """Hand over arrays of orders; bourse draws the order in which it does a batch. Market orders become limits."""
    environment = bourse.core.StepEnvNumpy(0, 0, 1, BATCH)
    price = np.where(sent["kind"] == LIMIT, sent["price"], np.where(sent["side"] == 0, 2**30, 1)).astype(np.uint32)
    kind = np.where(sent["kind"] == CANCEL, 2, 1).astype(np.uint32)
    is_bid, lots = sent["side"] == 0, sent["lots"].astype(np.uint32)
    order = np.where(sent["kind"] == CANCEL, sent["order"], 0).astype(np.uint64)
    trader = np.zeros(sent.size, np.uint32)
    started = time.process_time()
    for begin in range(0, sent.size, BATCH):
        batch = slice(begin, begin + BATCH)
        environment.submit_instructions(
            (kind[batch], is_bid[batch], lots[batch], trader[batch], price[batch], order[batch])
        )
        environment.step()
    return time.process_time() - started, environment.get_trades()


def main() -> None:
    stream, place, mode = sys.argv[1:]
    seconds, trades = (one_by_one if mode == "each" else in_batches)(np.load(stream))
    rows = np.array(trades, dtype=np.int64).reshape(-1, 6)
    # time, side, price, lots, taker, maker
    np.save(place, rows[:, [5, 4, 2, 3]])
    print(seconds)


if __name__ == "__main__":
    main()
