"""Every grid column again in SQL (DuckDB), over midnight, with gaps, ties, snapshots, one-sided and empty buckets.

The rules are those of `features.grid`, told in another language; nothing of ours is called but to be compared.
"""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from synth_pipeline import schema
from synth_pipeline.features.grid import grid_features
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Flag, GridFlag, Scale
from tests.test_grid_oracles import SCALE
from tests.tick_tables import HALF_SECOND_NS as STEP
from tests.tick_tables import SPAN_NS, Ticks, random_market

MIDNIGHT_NS = 20_000 * NS_PER_DAY
START_NS = MIDNIGHT_NS - 150 * NS_PER_SECOND - 7
"""The first moment of the market, three hundred seconds before its last: midnight lies in the middle, off the grid."""
COVERAGE = [(START_NS, START_NS + SPAN_NS // 3), (START_NS + SPAN_NS // 3 + 9 * STEP + 1, START_NS + SPAN_NS)]
GAPS = [
    ("quotes", START_NS + 20 * STEP + 3, START_NS + 31 * STEP + 5),
    ("trades", MIDNIGHT_NS - 2 * STEP - 1, MIDNIGHT_NS + STEP),
    ("all", START_NS + 411 * STEP, START_NS + 411 * STEP),
    ("book_levels", START_NS + 450 * STEP, START_NS + 470 * STEP + 1),
]


@pytest.fixture(scope="module")
def market() -> Ticks:
    rng, market = stream(7, "grid", "sql"), random_market(6_000)
    for table in ("quotes", "trades"):
        market[table]["recv_ns"] = market[table]["recv_ns"] // 10**8 * 10**8 + START_NS  # many ties
    quotes = market["quotes"]
    for side in ("bid_size", "ask_size"):
        quotes[side][rng.random(quotes[side].size) < 0.03] = 0
    snapshots = np.flatnonzero(rng.random(quotes["flags"].size) < 0.02)
    quotes["flags"][snapshots] |= np.uint8(Flag.SNAPSHOT)
    at = np.sort(rng.integers(START_NS, START_NS + SPAN_NS, 900))
    market["depth"] = {"recv_ns": at, "known": rng.random(at.size) < 0.9} | {
        name: rng.integers(0, 40, at.size) for name in ("bid_size_10", "ask_size_10")
    }
    return market


def lost() -> list[tuple[str, int, int]]:
    """Stream, first and last lost moment, as docs/features.md says: within gaps, and outside the coverage."""
    streams = ("quotes", "trades", "book_levels")
    found = [(name, start + 1, end - 1) if end > start + 1 else (name, start, start) for name, start, end in GAPS]
    outside = [(0, COVERAGE[0][0] - 1), (COVERAGE[0][1], COVERAGE[1][0] - 1), (COVERAGE[1][1], 2**62)]
    found += [("all", *times) for times in outside]
    return [(name, *times) for stated, *times in found for name in (streams if stated == "all" else (stated,))]  # type: ignore[misc]


def database(market: Ticks, labels: np.ndarray) -> duckdb.DuckDBPyConnection:
    base = duckdb.connect()
    base.register("labels", pl.DataFrame({"label": labels}).to_arrow())
    base.register("lost", pl.DataFrame(lost(), schema=["stream", "first", "last"], orient="row").to_arrow())
    for name in ("quotes", "trades", "depth"):
        frame = pl.DataFrame(market[name])
        base.register(name, frame.with_columns(seq=pl.int_range(len(frame))).to_arrow())
    base.sql(f"""
        create temp table touched as
            select label, stream from labels, lost where last >= label - {STEP} and first < label group by all
    """)
    return base


def state(stream: str, table: str) -> str:
    """The last row of a table before each label, if nothing was lost since: that hides it until the next row."""
    return f"""
        select label, known.* from labels
        asof join (from {table} qualify row_number() over (partition by recv_ns order by seq desc) = 1) known
        on label > known.recv_ns
        where not exists (from lost where stream = '{stream}' and first < label and last >= known.recv_ns)
    """


def of_quotes(base: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    return base.sql(f"""
        with known as ({state("quotes", "quotes")}),
        changes as (
            select *, recv_ns // {STEP} * {STEP} as edge, lag(recv_ns) over rows as before_ns,
                   lag(bid_price) over rows as b, lag(bid_size) over rows as bq,
                   lag(ask_price) over rows as a, lag(ask_size) over rows as aq
            from quotes window rows as (order by recv_ns, seq)
        ),
        counted as (
            select edge + {STEP} as label,
                   (bid_price >= b)::int * bid_size - (bid_price <= b)::int * bq
                   - (ask_price <= a)::int * ask_size + (ask_price >= a)::int * aq as flow,
                   ln((bid_price + ask_price) / (b + a)) ** 2 as square
            from changes where least(bid_size, ask_size, bq, aq) > 0
            and not exists (from lost where stream = 'quotes' and first < edge and last >= before_ns)
        ),
        sums as (select label, sum(flow) / 1000 as ofi, sum(square) as realized_variance from counted group by label),
        arrivals as (
            select recv_ns // {STEP} * {STEP} + {STEP} as label, recv_ns % {STEP} / 1e9 as since,
                   (recv_ns - lag(recv_ns) over (partition by recv_ns // {STEP} order by recv_ns)) / 1e9 as apart
            from quotes where flags & {int(Flag.SNAPSHOT)} = 0
        ),
        arrived as (
            select label, count(*) as quote_count, min(since) as quote_first, max(since) as quote_last,
                   coalesce(sum(apart * apart), 0) as quote_interval_squares
            from arrivals group by label
        )
        select l.label, case when two then (bid_price + ask_price) / 20 end as mid,
               case when two then (ask_price - bid_price) / 10 end as spread,
               case when two then (bid_size - ask_size) / (bid_size + ask_size) end as imbalance_1,
               case when two then (bid_price * ask_size + ask_price * bid_size) / (bid_size + ask_size) / 10 end
                   as microprice,
               case when k.label is not null and t.label is null then coalesce(ofi, 0) end as ofi,
               case when k.label is not null and t.label is null then coalesce(realized_variance, 0) end
                   as realized_variance,
               case when t.label is null then coalesce(quote_count, 0) end as quote_count,
               case when t.label is null then quote_first end as quote_first,
               case when t.label is null then quote_last end as quote_last,
               case when t.label is null then coalesce(quote_interval_squares, 0) end as quote_interval_squares,
               coalesce(quote_count, 0) = 0 as stale, k.label is not null and not two as one_sided
        from labels l left join (select *, least(bid_size, ask_size) > 0 as two from known) k using (label)
        left join sums using (label) left join arrived using (label)
        left join (from touched where stream = 'quotes') t using (label) order by l.label
    """).pl()


def of_trades(base: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    return base.sql(f"""
        with on_market as (
            select *, recv_ns // {STEP} * {STEP} + {STEP} as label, recv_ns % {STEP} / 1e9 as since,
                   (recv_ns - lag(recv_ns) over (partition by recv_ns // {STEP} order by recv_ns, seq)) / 1e9 as apart
            from trades where flags & {int(Flag.OFF_MARKET)} = 0
        ),
        sums as (
            select label, count(*) as trade_count, sum(size) / 1000 as volume, sum(size * side) / 1000 as signed_volume,
                   sum(price::hugeint * size) / sum(size) / 10 as vwap,
                   max_by(price, (recv_ns, seq)) / 10 as last_price,
                   min(since) as trade_first, max(since) as trade_last,
                   coalesce(sum(apart * apart), 0) as trade_interval_squares
            from on_market group by label
        )
        select l.label, vwap, last_price, trade_first, trade_last, coalesce(volume, 0) as volume,
               coalesce(signed_volume, 0) as signed_volume, coalesce(trade_count, 0) as trade_count,
               coalesce(trade_interval_squares, 0) as trade_interval_squares, t.label is not null as lost
        from labels l left join sums using (label) left join (from touched where stream = 'trades') t using (label)
        order by l.label
    """).pl()


def of_depth(base: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    return base.sql(f"""
        with known as ({state("book_levels", "depth")})
        select l.label, coalesce(known, false) as known,
               case when known and least(bid_size_10, ask_size_10) > 0
                    then (bid_size_10 - ask_size_10) / (bid_size_10 + ask_size_10) end as imbalance_10
        from labels l left join known using (label) order by l.label
    """).pl()


@pytest.fixture(scope="module")
def rows(market: Ticks) -> dict[str, np.ndarray]:
    window: dict[str, Any] = {"step_ns": STEP, "start_ns": START_NS - 5 * STEP, "end_ns": START_NS + SPAN_NS + 5 * STEP}
    return grid_features(**market, gaps=GAPS, coverage=COVERAGE, scale=SCALE, **window)


def test_every_column_is_what_sql_says(market: Ticks, rows: dict[str, np.ndarray]) -> None:
    labels = rows["label_ns"]
    assert labels[0] < MIDNIGHT_NS < labels[-1]
    base = database(market, labels)
    quotes, trades, depth = of_quotes(base), of_trades(base), of_depth(base)
    trades = trades.with_columns(
        pl.when(pl.col("lost")).then(None).otherwise(pl.col(name)).alias(name)
        for name in trades.columns
        if name not in {"label", "lost"}
    )
    rounded = dict.fromkeys(("microprice", "vwap"), 1e-14) | {"realized_variance": 1e-9}
    rounded |= {f"{name}_interval_squares": 1e-12 for name in ("quote", "trade")}
    compared = set()
    for frame in (quotes, trades, depth):
        for name in set(frame.columns) & set(schema.GRID.names):
            oracle = frame[name].cast(pl.Float64).to_numpy()
            np.testing.assert_allclose(rows[name], oracle, rtol=rounded.get(name, 1e-15), atol=1e-18, err_msg=name)
            assert np.isnan(oracle).any(), name
            assert np.isfinite(oracle).sum() > 100, name
            compared.add(name)
    of_the_ladder = {name for name in schema.GRID.names if name.startswith(("ofi_", "depth_"))}
    assert compared == set(schema.GRID.names) - of_the_ladder - {"label_ns", "flags", "imbalance_5", "book_slope"}


def test_the_flags_are_what_sql_says(market: Ticks, rows: dict[str, np.ndarray]) -> None:
    base = database(market, rows["label_ns"])
    quotes, depth = of_quotes(base), of_depth(base)
    touched = base.sql("select label, label in (select label from touched) as lost from labels order by label").pl()
    one_sided = quotes["one_sided"] | (depth["known"] & depth["imbalance_10"].is_null())
    oracles = {
        GridFlag.GAP: touched["lost"],
        GridFlag.STALE: quotes["stale"],
        GridFlag.ONE_SIDED: one_sided,
        GridFlag.NO_BOOK: ~depth["known"],
    }
    for flag, oracle in oracles.items():
        np.testing.assert_array_equal((rows["flags"] & flag) > 0, oracle.to_numpy(), err_msg=flag.name)
        assert 10 < oracle.sum() < len(oracle) - 10


def test_inverse_contracts(market: Ticks, rows: dict[str, np.ndarray]) -> None:
    inverse = Scale(SCALE.tick_size, SCALE.lot_size, inverse=True)
    window: dict[str, Any] = {"step_ns": STEP, "start_ns": START_NS, "end_ns": START_NS + SPAN_NS}
    found = grid_features(**market, gaps=(), coverage=[(0, 2**62)], scale=inverse, **window)
    base = duckdb.connect()
    base.register("trades", pl.DataFrame(market["trades"]).to_arrow())
    oracle = base.sql(f"""
        select (recv_ns // {STEP} + 1) * {STEP} as label, sum(size) / sum(size / price) / 10 as vwap from trades
        where flags & {int(Flag.OFF_MARKET)} = 0 group by label order by label
    """).fetchnumpy()
    within = np.isin(oracle["label"], found["label_ns"])
    traded = np.isin(found["label_ns"], oracle["label"])
    np.testing.assert_allclose(found["vwap"][traded], oracle["vwap"][within], rtol=1e-13)
    assert np.isnan(found["vwap"][~traded]).all()
