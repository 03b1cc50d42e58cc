"""Small tick tables for tests of features: rows said plainly, and a market of random bursts."""

from __future__ import annotations

import numpy as np

from synth_pipeline import schema
from synth_pipeline.rng import stream
from synth_pipeline.schema import Flag

Ticks = dict[str, dict[str, np.ndarray]]
"""`quotes` and `trades` as their tick tables, `depth` and, where there is one, `ladder` as the grid takes them."""

HALF_SECOND_NS = 500_000_000
SPAN_NS = 600 * HALF_SECOND_NS
"""How long a random market lasts, from 0."""


def quotes_table(*rows: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Rows of recv_ns, bid_price, bid_size, ask_price, ask_size and flags, which may be left out."""
    full = [(*row, *(Flag.LAST,) * (6 - len(row))) for row in rows]
    return as_table(schema.QUOTES, ("recv_ns", "bid_price", "bid_size", "ask_price", "ask_size", "flags"), full)


def trades_table(*rows: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Rows of recv_ns, price, size, side and flags, which may be left out."""
    full = [(*row, *(Flag.LAST,) * (5 - len(row))) for row in rows]
    return as_table(schema.TRADES, ("recv_ns", "price", "size", "side", "flags"), full)


def as_table(table: schema.Table, names: tuple[str, ...], rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    given_columns = dict(zip(names, np.array(rows, dtype=np.int64).reshape(-1, len(names)).T, strict=True))
    zeros = np.zeros(len(rows), dtype=np.int64)
    return {column.name: given_columns.get(column.name, zeros).astype(column.dtype) for column in table.columns}


def depth_table(*rows: tuple[int, int, int, bool]) -> dict[str, np.ndarray]:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    table = dict(zip(("recv_ns", "bid_size_10", "ask_size_10", "known"), columns, strict=True))
    return table | {"known": table["known"].astype(np.bool_)}


def ladder_table(*rows: tuple[int, list[tuple[int, int]], list[tuple[int, int]]]) -> dict[str, np.ndarray]:
    """Rows of recv_ns and both sides as (price, size), best first, ten levels at most."""
    out = np.zeros((4, len(rows), 10), dtype=np.int64)
    for event, (_, *sides) in enumerate(rows):
        for which, side in enumerate(sides):
            for level, (price, size) in enumerate(side[:10]):
                out[2 * which, event, level], out[2 * which + 1, event, level] = price, size
    names = ("bid_price", "bid_size", "ask_price", "ask_size")
    return {"recv_ns": np.array([row[0] for row in rows], dtype=np.int64), **dict(zip(names, out, strict=True))}


def random_market(rows: int) -> Ticks:
    """Bursts of quotes and trades over five minutes, with ties in time and long empty stretches."""
    rng = stream(11, "grid", "market", rows)
    bursts = rng.integers(0, SPAN_NS, rows // 40)
    at = np.sort((rng.choice(bursts, rows) + rng.integers(0, 3 * HALF_SECOND_NS, rows)) // 1000 * 1000 % SPAN_NS)
    bid = 600_000 + np.cumsum(rng.integers(-2, 3, rows) * (rng.random(rows) < 0.2))
    sizes = rng.integers(1, 5000, (2, rows))
    quotes = quotes_table(*zip(at, bid, sizes[0], bid + rng.integers(1, 4, rows), sizes[1], strict=True))
    traded = np.sort(rng.choice(rows, rows // 8))
    flags = rng.choice([1, 1, 1, 17], len(traded))
    columns = (at[traded], bid[traded], rng.integers(1, 1000, len(traded)), rng.choice([-1, 1], len(traded)), flags)
    trades = trades_table(*zip(*columns, strict=True))
    return {
        "quotes": quotes | {"seq": np.arange(rows)},
        "trades": trades | {"seq": np.arange(len(traded))},
        "depth": depth_table(),
    }
