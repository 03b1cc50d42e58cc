"""Run by a Python that has hftbacktest: load a file as it does, and write its top of book at given times."""

import sys

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest  # type: ignore[import-not-found,unused-ignore]
from hftbacktest.data import validate_event_order  # type: ignore[import-not-found,unused-ignore]
from hftbacktest.types import event_dtype  # type: ignore[import-not-found,unused-ignore]
from numba import njit

path, times_path, tick, lot, out = sys.argv[1:]
data, times = np.load(path)["data"], np.load(times_path)
assert data.dtype == event_dtype
validate_event_order(data)
asset = BacktestAsset().data([path]).linear_asset(1.0).constant_order_latency(0, 0).power_prob_queue_model(2.0)
asset = asset.no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0).last_trades_capacity(len(data))
backtest = HashMapMarketDepthBacktest([asset.tick_size(float(tick)).lot_size(float(lot))])


@njit  # type: ignore[untyped-decorator,unused-ignore]
def run(backtest, times, tops):  # type: ignore[no-untyped-def]
    for row in range(len(times)):
        backtest.elapse(times[row] - backtest.current_timestamp)
        depth = backtest.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        tops[row, 0], tops[row, 1] = bid, depth.bid_qty_at_tick(bid)
        tops[row, 2], tops[row, 3] = ask, depth.ask_qty_at_tick(ask)
    return len(backtest.last_trades(0))


tops = np.zeros((len(times), 4))
trades = run(backtest, times, tops)
backtest.close()
np.savez(out, tops=tops, trades=trades)
