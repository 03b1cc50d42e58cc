"""pams as a peer of `simulator.py`, in a Python of its own.

Run with a stream of orders (.npy) and a file for the trades; prints the seconds of CPU taken. Its market is called
as its runner would call it, without the runner, the agents and their sessions. The methods have underscores, since
there are no others.
"""

from __future__ import annotations

import random
import sys
import time

import numpy as np
from pams.logs.base import ExecutionLog
from pams.market import Market
from pams.order import LIMIT_ORDER, MARKET_ORDER, Cancel, Order

LIMIT, CANCEL = 0, 2


def run(sent: np.ndarray) -> tuple[float, list[ExecutionLog]]:
    """Send every order, let the market execute after each, and return seconds and executions."""
    market = Market(market_id=0, prng=random.Random(0), simulator=None, name="market")
    market.setup({"tickSize": 1.0, "marketPrice": float(sent["price"][0])})
    market._set_time(0, float(sent["price"][0]))
    market._is_running = True
    rows = list(zip(*(sent[name].tolist() for name in ("kind", "side", "price", "lots", "order")), strict=True))
    orders: list[Order] = []
    executions: list[ExecutionLog] = []
    started = time.process_time()
    for kind, side, price, lots, target in rows:
        if kind == CANCEL:
            market._cancel_order(Cancel(orders[target]))
            continue
        how = (LIMIT_ORDER, float(price)) if kind == LIMIT else (MARKET_ORDER, None)
        order = Order(0, 0, is_buy=side == 0, kind=how[0], volume=lots, price=how[1])
        orders.append(order)
        market._add_order(order)
        executions += market._execution()
    return time.process_time() - started, executions


def main() -> None:
    stream, place = sys.argv[1:]
    seconds, executions = run(np.load(stream))
    rows = [(each.buy_order_id, each.sell_order_id, int(each.price), each.volume) for each in executions]
    np.save(place, np.array(rows, dtype=np.int64).reshape(-1, 4))
    print(seconds)


if __name__ == "__main__":
    main()
