"""The grid against DuckDB and Polars, which know nothing of our kernels, on generated and on recorded ticks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from synth_pipeline import schema
from synth_pipeline.features.grid import grid_features
from synth_pipeline.schema import Flag, Scale
from tests.tick_tables import HALF_SECOND_NS, SPAN_NS, Ticks, depth_table, quotes_table, random_market, trades_table

SCALE = Scale(Decimal("0.1"), Decimal("0.001"))


def wide_features(market: Ticks, start_ns: int = 0, end_ns: int = SPAN_NS) -> dict[str, np.ndarray]:
    return grid_features(
        **market,
        gaps=(),
        coverage=[(0, SPAN_NS)],
        scale=SCALE,
        step_ns=HALF_SECOND_NS,
        start_ns=start_ns,
        end_ns=end_ns,
    )


def recorded_market(path: Path) -> Ticks:
    """The bookTicker and trade streams of a Binance USD-M capture of BTCUSDT (tick 0.1, lot 0.001)."""
    quotes, trades = [], []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            received, _, payload = line.partition(" ")
            if "@bookTicker" in payload[:60]:
                data = json.loads(payload)["data"]
                quotes.append(
                    (int(received), *(whole(data[k], s) for k, s in (("b", 1), ("B", 3), ("a", 1), ("A", 3))))
                )
            elif "@trade" in payload[:60]:
                data = json.loads(payload)["data"]
                flag = Flag.LAST if data["X"] == "MARKET" else Flag.LAST | Flag.OFF_MARKET
                trades.append((int(received), whole(data["p"], 1), whole(data["q"], 3), -1 if data["m"] else 1, flag))
    quotes.sort(key=lambda row: row[0])
    trades.sort(key=lambda row: row[0])
    return {
        "quotes": quotes_table(*quotes) | {"seq": np.arange(len(quotes))},
        "trades": trades_table(*trades) | {"seq": np.arange(len(trades))},
        "depth": depth_table(),
    }


def whole(text: str, decimals: int) -> int:
    number = Decimal(text).scaleb(decimals)
    assert number == int(number)
    return int(number)


@pytest.fixture(scope="module", params=["generated", "recorded"])
def market(request: pytest.FixtureRequest, real: Callable[[str], Path]) -> Ticks:
    if request.param == "generated":
        return random_market(30_000)
    return recorded_market(real("binance_usdm_btcusdt_20240808.gz"))


@pytest.fixture(scope="module")
def rows(market: Ticks) -> dict[str, np.ndarray]:
    """Features of all buckets that the market touches, covered from edge to edge."""
    first, last = market["quotes"]["recv_ns"][[0, -1]] // HALF_SECOND_NS
    covered = (int(first * HALF_SECOND_NS), int((last + 1) * HALF_SECOND_NS))
    window = {"step_ns": HALF_SECOND_NS, "start_ns": covered[0], "end_ns": covered[1]}
    return grid_features(**market, gaps=(), coverage=[covered], scale=SCALE, **window)


def assert_close(rows: dict[str, np.ndarray], oracle: dict[str, np.ndarray], **tolerances: float) -> None:
    for name, tolerance in tolerances.items():
        np.testing.assert_allclose(rows[name], oracle[name].astype(float), rtol=tolerance, atol=1e-18, err_msg=name)


def test_duckdb_agrees(market: Ticks, rows: dict[str, np.ndarray]) -> None:
    base = duckdb.connect()
    for name in ("quotes", "trades"):
        base.register(name, pl.DataFrame(market[name]).to_arrow())
    base.register("labels", pl.DataFrame({"label_ns": rows["label_ns"]}).to_arrow())
    oracle = base.sql(f"""
        with traded as (
            select (recv_ns // {HALF_SECOND_NS} + 1) * {HALF_SECOND_NS} as label_ns, count(*) as trade_count,
                   sum(size) / 1000 as volume, sum(size * side) / 1000 as signed_volume,
                   sum(price::hugeint * size) / sum(size) / 10 as vwap
            from trades where flags & {int(Flag.OFF_MARKET)} = 0 group by 1
        ),
        touch as (
            select recv_ns, max_by(bid_price, seq) as bid, max_by(ask_price, seq) as ask,
                   max_by(bid_size, seq) as bid_lots, max_by(ask_size, seq) as ask_lots from quotes group by 1
        )
        select labels.label_ns, coalesce(trade_count, 0) as trade_count, coalesce(volume, 0) as volume,
               coalesce(signed_volume, 0) as signed_volume, vwap, (bid + ask) / 20 as mid, (ask - bid) / 10 as spread,
               (bid_lots - ask_lots) / (bid_lots + ask_lots) as imbalance_1,
               (bid * ask_lots + ask * bid_lots) / (bid_lots + ask_lots) / 10 as microprice
        from labels asof join touch on labels.label_ns > touch.recv_ns left join traded using (label_ns) order by 1
    """).fetchnumpy()
    oracle["vwap"] = np.ma.filled(oracle["vwap"], np.nan)
    exact = dict.fromkeys(("trade_count", "volume", "signed_volume", "mid", "spread", "imbalance_1"), 0.0)
    assert_close(rows, oracle, **exact, vwap=1e-14, microprice=1e-14)


def test_polars_agrees(market: Ticks, rows: dict[str, np.ndarray]) -> None:
    label = ((pl.col("recv_ns") // HALF_SECOND_NS + 1) * HALF_SECOND_NS).alias("label_ns")
    bid, ask, bid_lots, ask_lots = (pl.col(name) for name in ("bid_price", "ask_price", "bid_size", "ask_size"))
    is_up, is_down = bid >= bid.shift(), bid <= bid.shift()
    ask_up, ask_down = ask >= ask.shift(), ask <= ask.shift()
    flow = is_up * bid_lots - is_down * bid_lots.shift() - ask_down * ask_lots + ask_up * ask_lots.shift()
    quotes = pl.DataFrame(market["quotes"]).with_columns(
        label, flow.fill_null(0).alias("flow"), (((bid + ask) / 2).log().diff() ** 2).fill_null(0).alias("square")
    )
    changes = quotes.group_by("label_ns").agg(pl.col("flow").sum() / 1000, pl.col("square").sum())
    labels = pl.DataFrame({"label_ns": rows["label_ns"]})
    oracle = (
        labels.join_asof(
            quotes.select("recv_ns", mid=(bid + ask) / 20, spread=(ask - bid) / 10),
            left_on="label_ns",
            right_on="recv_ns",
            allow_exact_matches=False,
        )
        .join(changes, on="label_ns", how="left", maintain_order="left")
        .with_columns(pl.col("flow", "square").fill_null(0))
        .rename({"flow": "ofi", "square": "realized_variance"})
    )
    columns = {name: oracle[name].to_numpy() for name in oracle.columns}
    assert_close(rows, columns, mid=3e-16, spread=3e-16, ofi=3e-16)  # Polars multiplies by 1 / 10, which rounds twice
    # The oracle's difference of two logarithms near 11 is good to about 1e-15 only, a tick here is 1.6e-6.
    assert_close(rows, columns, realized_variance=1e-8)


def test_polars_agrees_on_arrivals(market: Ticks, rows: dict[str, np.ndarray]) -> None:
    labels = pl.DataFrame({"label_ns": rows["label_ns"]})
    kept = {"quotes": Flag.SNAPSHOT, "trades": Flag.OFF_MARKET}
    for table, flag in kept.items():
        name, since = table[:-1], pl.col("recv_ns") % HALF_SECOND_NS / 1e9
        arrived = (
            pl.DataFrame(market[table])
            .filter(pl.col("flags") & int(flag) == 0)
            .with_columns(label_ns=(pl.col("recv_ns") // HALF_SECOND_NS + 1) * HALF_SECOND_NS)
            .with_columns(interval=pl.col("recv_ns").diff().over("label_ns"))
        )
        stated = arrived.group_by("label_ns", maintain_order=True).agg(
            pl.len().alias(f"{name}_count"),
            since.first().alias(f"{name}_first"),
            since.last().alias(f"{name}_last"),
            ((pl.col("interval") / 1e9) ** 2).sum().alias(f"{name}_interval_squares"),
            *([(pl.col("price").last() / 10).alias("last_price")] if table == "trades" else []),
        )
        oracle = labels.join(stated, on="label_ns", how="left", maintain_order="left").with_columns(
            pl.col(f"{name}_count", f"{name}_interval_squares").fill_null(0)
        )
        columns = {column: oracle[column].to_numpy() for column in oracle.columns[1:]}
        assert_close(rows, columns, **dict.fromkeys(columns, 1e-12))


def test_windows_in_threads_equal_one_pass() -> None:
    market = random_market(20_000)
    whole = wide_features(market)
    cuts = np.linspace(0, SPAN_NS, 14).astype(int).tolist()
    with ThreadPoolExecutor(4) as pool:
        windows = list(pool.map(lambda cut: wide_features(market, *cut), pairwise(cuts)))
    for name in schema.GRID.names:
        joined = np.concatenate([window[name] for window in windows])
        np.testing.assert_array_equal(joined, whole[name], err_msg=name)
