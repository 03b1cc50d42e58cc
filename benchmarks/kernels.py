"""Ticks to half-second features, nothing but the kernels: against the loop of source document 4 and against Polars.

The loop of the document walks buckets and forgets the quote at every bucket's start, so that an empty bucket has a mid
of 0; it has no spread, and a VWAP of the mid where nothing traded. It does less than ours, so ratios to it flatter it.
Where both mean something (buckets with a quote, or a trade), its numbers and ours are checked equal.
"""

from __future__ import annotations

import ctypes
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numba
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from common import Claim, arguments, interleaved, report

from synth_pipeline import schema
from synth_pipeline.features.grid import grid_features
from synth_pipeline.features.lean import lean_grid
from synth_pipeline.rng import stream

STEP_NS = 500_000_000
SCALE = schema.Scale(Decimal("0.1"), Decimal("0.001"))
ROWS = 20_000_000
ROUNDS = 9
FIRST_LIGHT = (
    "label_ns",
    *("mid", "microprice", "spread", "vwap", "volume", "signed_volume", "trade_count"),
    *("imbalance_1", "imbalance_10", "ofi", "realized_variance", "flags"),
)
LEAN = ("mid", "spread", "vwap", "volume")
Columns = dict[str, np.ndarray]


@numba.njit(cache=True, nogil=True)
def document_4(
    at: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    traded_at: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    step: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return start, mid, VWAP and volume of each bucket the way source document 4 does, in our own words."""
    buckets = (at[-1] - at[0]) // step + 1
    starts, mid = np.empty(buckets, np.int64), np.empty(buckets)
    vwap, volume = np.empty(buckets), np.empty(buckets)
    quote, trade = 0, 0
    for bucket in range(buckets):
        starts[bucket] = at[0] + bucket * step
        end = starts[bucket] + step
        last_bid, last_ask = 0.0, 0.0
        while quote < at.size and at[quote] < end:
            last_bid, last_ask = bid[quote], ask[quote]
            quote += 1
        mid[bucket] = (last_bid + last_ask) / 2
        sizes, value = 0.0, 0.0
        while trade < traded_at.size and traded_at[trade] < end:
            sizes += size[trade]
            value += price[trade] * size[trade]
            trade += 1
        volume[bucket] = sizes
        vwap[bucket] = value / sizes if sizes > 0 else mid[bucket]
    return starts, mid, vwap, volume


def bursty_times(count: int, activity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buckets = np.repeat(np.arange(activity.size), rng.multinomial(count, activity / activity.sum()))
    start = 1_700_000_000 * 10**9
    times = np.sort(start + buckets * STEP_NS + rng.integers(0, STEP_NS, count))
    times[0] = start  # the document's grid starts at the first tick; this puts it where ours starts
    return times


def market(rows: int) -> tuple[Columns, Columns]:
    """Quotes and trades in bursts, so that two buckets in five are empty, as many rows a bucket as in a busy market."""
    rng = stream(4, "benchmark", "kernels", rows)
    buckets, trades = round(rows * 0.151), round(rows * 0.13)
    activity = rng.gamma(0.35, 1.0, buckets) * np.repeat(rng.gamma(1.0, 1.0, buckets // 600 + 1), 600)[:buckets]
    bid = 600_000 + np.cumsum(rng.integers(-2, 3, rows) * (rng.random(rows) < 0.2))
    quotes = {
        "recv_ns": bursty_times(rows, activity, rng),
        "bid_price": bid,
        "bid_size": rng.integers(1, 5000, rows),
        "ask_price": bid + rng.integers(1, 4, rows),
        "ask_size": rng.integers(1, 5000, rows),
        "flags": np.ones(rows, np.uint8),
    }
    traded = {
        "recv_ns": bursty_times(trades, activity, rng),
        "price": 600_000 + rng.integers(-50, 50, trades),
        "size": rng.integers(1, 1000, trades),
        "side": rng.choice(np.array([-1, 1], np.int8), trades),
        "flags": np.ones(trades, np.uint8),
    }
    return quotes, traded


def polars_four(quotes: pl.DataFrame, trades: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return mid and spread, VWAP and volume of the buckets that hold something; Polars makes no grid of it."""
    bucket = pl.col("recv_ns") // STEP_NS
    touch = quotes.group_by(bucket.alias("bucket"), maintain_order=True).agg(pl.col("bid", "ask").last())
    traded = trades.group_by(bucket.alias("bucket"), maintain_order=True).agg(
        pl.col("size").sum(), (pl.col("price") * pl.col("size")).sum().alias("value")
    )
    return touch.with_columns(mid=(pl.col("bid") + pl.col("ask")) / 2, spread=pl.col("ask") - pl.col("bid")), traded


def check(ours: Columns, document: tuple[np.ndarray, ...], columns: Columns) -> None:
    """Raise unless the lean columns are those of the grid, and the document's where those mean something."""
    for name in LEAN:
        np.testing.assert_array_equal(ours[name], columns[name], err_msg=name)
    starts, mid, vwap, volume = document
    rows = slice(0, len(starts))
    np.testing.assert_array_equal(ours["label_ns"][rows], starts + STEP_NS)
    has_quote, has_trade = mid > 0, volume > 0
    np.testing.assert_allclose(mid[has_quote], ours["mid"][rows][has_quote], rtol=1e-14)
    np.testing.assert_allclose(vwap[has_trade], ours["vwap"][rows][has_trade], rtol=1e-12)
    np.testing.assert_allclose(volume, ours["volume"][rows], rtol=1e-12, atol=1e-12)


def set_allocator(*, keeps: bool) -> None:
    """Have the C library keep freed memory, or take every large array from the system and give it back.

    Left alone it does either, as the calls before happen to have been. The document's loop, as published, makes its
    arrays at every call: on memory that the system has to clear first it takes half as long again.
    """
    c = ctypes.CDLL(None)
    if hasattr(c, "mallopt"):  # glibc; -3 is M_MMAP_THRESHOLD, -1 M_TRIM_THRESHOLD
        c.mallopt(-3, 32 * 2**20 if keeps else 2**20)
        c.mallopt(-1, 2**30)


def main() -> None:
    args = arguments(__doc__).parse_args()
    set_allocator(keeps=False)  # before anything is freed that could be kept
    rows, rounds = (ROWS // 2, 5) if args.quick else (ROWS, ROUNDS)
    quotes, trades = market(rows)
    at, traded_at = quotes["recv_ns"], trades["recv_ns"]
    bid, ask, price = (column / 10 for column in (quotes["bid_price"], quotes["ask_price"], trades["price"]))
    size = trades["size"] / 1000
    start_ns, end_ns = int(at[0]), int(max(at[-1], traded_at[-1])) // STEP_NS * STEP_NS + STEP_NS
    window = {"step_ns": STEP_NS, "start_ns": start_ns, "end_ns": end_ns}
    # The document's loop reads prices only; the lean kernel may, where every quote is known to have two sides.
    two_sided = {name: quotes[name] for name in ("recv_ns", "bid_price", "ask_price")}
    no_depth = {name: np.empty(0, np.int64) for name in ("recv_ns", "bid_size_10", "ask_size_10", "known")}
    frames = (
        pl.DataFrame({"recv_ns": at, "bid": bid, "ask": ask}),
        pl.DataFrame({"recv_ns": traded_at, "price": price, "size": size}),
    )
    threads = os.cpu_count() or 1

    def first_light(threads: int) -> Columns:
        covered = [(start_ns, end_ns)]
        return grid_features(quotes, trades, no_depth, (), covered, SCALE, **window, names=FIRST_LIGHT, threads=threads)

    lean: dict[str, Any] = {
        "4 features, all threads": lambda: lean_grid(two_sided, trades, SCALE, **window, threads=threads),
        "4 features, 1 thread": lambda: lean_grid(two_sided, trades, SCALE, **window),
        "4 features, 1 thread, one-sided quotes looked for": lambda: lean_grid(quotes, trades, SCALE, **window),
    }
    methods: dict[str, Any] = {
        "document 4": lambda: document_4(at, bid, ask, traded_at, price, size, STEP_NS),
        **lean,
        "all features, all threads": lambda: first_light(threads),
        "all features, 1 thread": lambda: first_light(1),
        "Polars, 4 features": lambda: polars_four(*frames),
    }
    document, columns = methods["document 4"](), first_light(1)
    for method in lean.values():
        check(method(), document, columns)
    for name, column in first_light(threads).items():
        np.testing.assert_array_equal(column, columns[name])
    del document, columns
    seconds = interleaved(methods, rounds)
    set_allocator(keeps=True)
    kept = interleaved(methods, rounds)
    peers = {f"{name}, ms": 1e3 * value for name, value in seconds.items()}
    peers |= {f"{name}, memory kept, ms": 1e3 * value for name, value in kept.items()}
    size_note = f"{rows:,} quotes, {len(traded_at):,} trades, {(end_ns - start_ns) // STEP_NS:,} buckets"
    claims = []
    for claim, what, bar in (("kernel4_vs_seed", "4 features", 0.5), ("kernel_all_vs_seed", "all features", 1.5)):
        ratios = [
            each[f"{what}, {workers}"] / each["document 4"]
            for each in (seconds, kept)
            for workers in ("all threads", "1 thread")
        ]
        # Where other work keeps the cores busy, one thread is quicker.
        note = (
            f"the quicker of {threads} threads ({ratios[0]:.2f}) and 1 ({ratios[1]:.2f}), same bits; "
            f"on memory kept from call to call {ratios[2]:.2f} and {ratios[3]:.2f}; {size_note}"
        )
        title = f"aggregation kernel, {what}: time over the kernel of source document 4"
        claims.append(Claim(claim, title, min(ratios[:2]), bar, "low", peers, note))
        peers = {}
    report("kernels", claims, as_json=args.json)


if __name__ == "__main__":
    main()
