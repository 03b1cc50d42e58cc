"""When quotes and trades arrive: how many, when the first and the last of a bucket, how unevenly in between.

What belongs here: what a bucket must say of its arrivals so that their intervals can be known over any window of
buckets, those across bucket borders too (`features.rolling`). A quote flagged `SNAPSHOT` repeats the book and a trade
flagged `OFF_MARKET` met no order of the book: neither is an arrival.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline import schema
from synth_pipeline.features import kernels
from synth_pipeline.features.buckets import Buckets, Columns, LostTime, arrays, ratio, require_order
from synth_pipeline.schema import NS_PER_SECOND, Flag
from synth_pipeline.series import FloatArray, IntArray

QUOTES = ("quote_count", "quote_first", "quote_last", "quote_interval_squares")
TRADES = ("last_price", "trade_first", "trade_last", "trade_interval_squares")
NAMES = (*QUOTES, *TRADES)


def arrival_columns(
    quotes: Columns,
    trades: Columns,
    buckets: Buckets,
    lost_quotes: list[LostTime],
    lost_trades: list[LostTime],
    scale: schema.Scale,
) -> dict[str, FloatArray]:
    """Return the features of `NAMES`, a row per bucket; where it touches lost time of its stream, it is NaN."""
    quoted, _ = _arrivals("quotes", quotes, Flag.SNAPSHOT, buckets)
    traded, last_row = _arrivals("trades", trades, Flag.OFF_MARKET, buckets)
    tick = ratio(scale.tick_size)
    price = np.full(buckets.count, np.nan)
    has_trade = last_row > 0
    price[has_trade] = trades["price"][last_row[has_trade] - 1] * tick[0] / tick[1]
    traded[0] = price
    for columns, lost in ((quoted, lost_quotes), (traded, lost_trades)):
        for span in buckets.touched(lost):
            for column in columns:
                column[span] = np.nan
    return dict(zip(NAMES, (*quoted, *traded), strict=True))


def _arrivals(table: str, rows: Columns, excluded: Flag, buckets: Buckets) -> tuple[list[FloatArray], IntArray]:
    """Return count, first, last (s) and squared intervals (s²), and 1 + the row of each bucket's last arrival."""
    recv_ns, flags = arrays(rows, "recv_ns", "flags")
    within = buckets.rows_within(table, recv_ns)
    new = buckets.new_column
    out = (new(), new(), new(), new())
    last_row = np.empty(buckets.count, dtype=np.int64)
    is_sorted = kernels.arrivals(
        recv_ns[within], flags[within], int(excluded), buckets.edges_ns[0], buckets.step_ns, last_row, out
    )
    require_order(table, is_sorted)
    last_row[last_row > 0] += within.start
    count, first, last, squares = out
    return [count, first / NS_PER_SECOND, last / NS_PER_SECOND, squares / NS_PER_SECOND**2], last_row
