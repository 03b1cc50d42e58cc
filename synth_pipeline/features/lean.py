"""The four features of a quick look: mid, spread, VWAP and volume, a row per bucket.

What belongs here: the leanest way from ticks to these four, for reads of any window and for benchmarks. The columns are
those of `features.grid` bit for bit, for a window without gaps; what a gap hides is decided there, not here.

Time and memory traffic are nearly the same thing here, so each column is read once and only what a label needs of it.
No bucket is searched for: every quote leaves its number at its bucket, so that the last one wins, and the labels are
then read off in one go.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline import schema
from synth_pipeline.features import kernels
from synth_pipeline.features.buckets import Buckets, Columns, arrays, in_chunks, ratio, require_order

_CHUNK = 1 << 15  # buckets that one thread works on at a time


def lean_grid(
    quotes: Columns,
    trades: Columns,
    scale: schema.Scale,
    *,
    step_ns: int,
    start_ns: int,
    end_ns: int,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return `label_ns`, `mid`, `spread`, `vwap` and `volume` of every bucket that starts in [start_ns, end_ns).

    `quotes` needs `recv_ns`, `bid_price` and `ask_price`, and `bid_size` and `ask_size` unless no quote is one-sided;
    `trades` needs `recv_ns`, `price`, `size`, `side` and `flags`. Each may hold rows before the window, of which the
    last quote is carried in. The quote is carried over empty buckets; before the first quote, and where a side is
    empty, mid and spread are NaN. Without a trade VWAP is NaN and volume 0. `threads` changes the time taken and no
    bit. Raises `InputError` for rows of the window that are not sorted by time.
    """
    first, stop = -(-start_ns // step_ns), -(-end_ns // step_ns)
    buckets = Buckets(first, max(stop - first, 0), step_ns)
    recv_ns, bid_price, ask_price = arrays(quotes, "recv_ns", "bid_price", "ask_price")
    has_sizes = "bid_size" in quotes
    bid_size, ask_size = arrays(quotes, "bid_size", "ask_size") if has_sizes else (bid_price[:0], ask_price[:0])
    tick = ratio(scale.tick_size)
    mid, spread, vwap, volume = buckets.new_columns(4)
    last = mid.view(np.int64)  # each is read for the last time just before the mid takes its place

    def fill(start: int) -> None:
        part = slice(start, start + _CHUNK)
        chunk = Buckets(first + start, len(mid[part]), step_ns)
        within = chunk.rows_within("quotes", recv_ns)
        is_sorted = kernels.lean_touch(
            recv_ns[within],
            bid_price,
            ask_price,
            bid_size,
            ask_size,
            within.start,
            chunk.edges_ns[0],
            step_ns,
            tick,
            last[part],
            mid[part],
            spread[part],
        )
        require_order("quotes", is_sorted)
        chunk.trade_features(trades, scale, (vwap[part], volume[part], mid[:0], mid[:0]))

    in_chunks(fill, buckets.count, _CHUNK, threads)
    return {"label_ns": buckets.labels_ns, "mid": mid, "spread": spread, "vwap": vwap, "volume": volume}
