"""Rolling features and bars again in SQL (DuckDB), on rows with losses, holes and ties in them, and over midnight."""

from __future__ import annotations

from decimal import Decimal

import duckdb
import numpy as np
import polars as pl
import pytest

from synth_pipeline.features.bars import BarRule
from synth_pipeline.features.rolling import FEATURES
from synth_pipeline.schema import NS_PER_DAY, Flag
from tests.test_features_bars import made
from tests.test_features_rolling import STEP, columns_of, features, grid_rows
from tests.tick_tables import random_market

LENGTH = 12
MIDNIGHT_NS = 20_000 * NS_PER_DAY
_ROLLING = f"""
    with unbroken as (
        select unnest(range(min(label_ns), max(label_ns) + 1, {STEP})) as label_ns from given
    ),
    grid as (
        select *, case when ofi is not null then mid - lag(mid) over up end as move,
                  case when ofi is not null then ln(mid) - ln(lag(mid) over up) end as r,
                  label_ns / 1e9 - {STEP / 1e9} + quote_first as quote_begin,
                  label_ns / 1e9 - {STEP / 1e9} + quote_last as quote_end,
                  label_ns / 1e9 - {STEP / 1e9} + trade_first as trade_begin,
                  label_ns / 1e9 - {STEP / 1e9} + trade_last as trade_end
        from unbroken left join given using (label_ns) window up as (order by label_ns)
    ),
    windows as (
        select a.label_ns as label, b.* from given a join grid b
        on b.label_ns > a.label_ns - {LENGTH * STEP} and b.label_ns <= a.label_ns
    ),
    sums as (
        select label,
               case when count(r) = {LENGTH} then sum(r * r) end as return_variance,
               case when count(r) = {LENGTH}
                    then pi() / 2 * {LENGTH / (LENGTH - 1)} * sum(abs(r) * abs(before)) end as bipower_variance,
               case when return_variance > 0 then greatest(0, 1 - bipower_variance / return_variance) end as jump_share,
               case when least(count(move), count(signed_volume)) = {LENGTH}
                    then regr_slope(move, signed_volume) end as kyle_lambda,
               case when least(count(r), count(volume)) = {LENGTH}
                    then sum(abs(r) / (vwap * volume)) filter (volume > 0)
                         / nullif(count_if(volume > 0), 0) end as amihud,
               case when count(volume) = {LENGTH}
                    then sum(signed_volume) / nullif(sum(volume), 0) end as trade_imbalance,
               case when count(flow) = {LENGTH} then sum(flow) end as integrated_ofi,
               case when least(count(volume), count(depth_removed)) = {LENGTH} and sum(depth_removed) > 0
                    then greatest(0, 1 - sum(volume) / sum(depth_removed)) end as cancel_rate
        from (select *, lag(r) over (partition by label order by label_ns) as before,
                     ofi_1 + ofi_2 + ofi_3 + ofi_4 + ofi_5 as flow from windows)
        group by label
    ),
    changes as (
        select label, last_price - lag(last_price) over (partition by label order by label_ns) as change, label_ns
        from windows where last_price is not null
    ),
    roll as (
        select label, covar_samp(change, before) as covariance
        from (select *, lag(change) over (partition by label order by label_ns) as before from changes)
        where before is not null group by label having count(*) >= 2
    ),
    {{intervals}}
    select sums.*, {{features}},
           case when (select count(volume) from windows w where w.label = sums.label) = {LENGTH} and covariance <= 0
                then 2 * sqrt(-covariance) end as roll_spread
    from sums left join roll using (label) left join quote using (label) left join trade using (label) order by label
"""
_INTERVALS = f"""{{s}} as (
        select label, sum({{s}}_count) as arrivals, count({{s}}_count) = {LENGTH} as known,
               (max({{s}}_end) - min({{s}}_begin)) / nullif(arrivals - 1, 0) as mean,
               sum({{s}}_interval_squares + coalesce(({{s}}_begin - before) ** 2, 0)) as squares,
               squares / nullif(arrivals - 1, 0) as square
        from (select *, max({{s}}_end) over (partition by label order by label_ns
                                             rows between unbounded preceding and 1 preceding) as before from windows)
        group by label
    )"""
_MOMENTS = """case when {s}.known and {s}.arrivals >= 2 then {s}.mean end as {s}_interval,
           case when {s}.known and {s}.arrivals >= 3
                then sqrt(greatest({s}.square - {s}.mean ** 2, 0)) / {s}.mean end as {s}_interval_cv"""


@pytest.mark.parametrize("seed", range(4))
def test_every_rolling_feature_is_what_sql_says(seed: int) -> None:
    columns = columns_of(grid_rows(400, seed=seed, losses=0.02, gaps=0.01))
    base = duckdb.connect()
    base.register("given", pl.DataFrame(columns).fill_nan(None).to_arrow())
    both = ("quote", "trade")
    query = _ROLLING.format(
        intervals=",\n    ".join(_INTERVALS.format(s=s) for s in both),
        features=",\n           ".join(_MOMENTS.format(s=s) for s in both),
    )
    oracle = base.sql(query).pl()
    assert set(oracle.columns) - {"label"} == set(FEATURES)
    shift = (MIDNIGHT_NS - 200 * STEP) // STEP * STEP
    found = features(columns | {"label_ns": columns["label_ns"] + shift}, LENGTH)
    assert found["label_ns"][0] < MIDNIGHT_NS < found["label_ns"][-1]
    for name in FEATURES:
        expected = oracle[name].cast(pl.Float64).to_numpy().copy()
        if name == "roll_spread":  # near 0 rounding decides on which side of it a covariance lies
            is_near = (np.nan_to_num(found[name]) < 1e-6) & (np.nan_to_num(expected) < 1e-6)
            expected[is_near & np.isfinite(found[name])] = 0.0
            found[name][is_near & np.isfinite(expected)] = 0.0
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)
        assert np.isfinite(expected).sum() > 40, name
        assert np.isnan(expected).sum() > 20, name


_BARS = f"""
    with recursive traded as (
        select row_number() over (order by recv_ns, seq) as i, *, sum(size) over up as volume_sum,
               sum(size * price) over up as value_sum, sum(size * side) over up as net
        from (select * from trades where flags & {int(Flag.OFF_MARKET)} = 0)
        window up as (order by recv_ns, seq)
    ),
    ends(last, i) as (
        select 0, 0
        union all
        select ends.i, (select min(t.i) from traded t where t.i > ends.i and {{reached}}) as next
        from ends left join traded past on past.i = ends.i where ends.i is not null
    ),
    whole as (select last, coalesce(i, (select max(i) from traded)) as i from ends where i is distinct from 0)
    select min(recv_ns) as open_ns, max(recv_ns) + 1 as close_ns, min_by(price, t.i) / 10 as open,
           max(price) / 10 as high, min(price) / 10 as low, max_by(price, t.i) / 10 as close,
           sum(size) / 1000 as volume, sum(size * price) / 10000 as turnover, count(*) as trade_count,
           coalesce(sum(size) filter (side > 0), 0) / 1000 as buy_volume, sum(size * price) / sum(size) / 10 as vwap
    from whole join traded t on t.i > whole.last and t.i <= whole.i group by whole.last order by whole.last
"""


@pytest.mark.parametrize(
    ("rule", "reached"),
    [
        (BarRule("trades", 7), "t.i - ends.i >= 7"),
        (BarRule("volume", Decimal(9)), "t.volume_sum - coalesce(past.volume_sum, 0) >= 9000"),
        (BarRule("value", Decimal(200_000)), "t.value_sum - coalesce(past.value_sum, 0) >= 2000000000"),
        (BarRule("imbalance", Decimal(2)), "abs(t.net - coalesce(past.net, 0)) >= 2000"),
    ],
    ids=lambda each: each.measure if isinstance(each, BarRule) else "",
)
def test_every_kind_of_bar_is_what_sql_says(rule: BarRule, reached: str) -> None:
    trades = random_market(6_000)["trades"]
    trades["recv_ns"] = trades["recv_ns"] // 10**8 * 10**8 + MIDNIGHT_NS - 150 * STEP  # ties, and midnight
    base = duckdb.connect()
    base.register("trades", pl.DataFrame(trades).to_arrow())
    oracle = base.sql(_BARS.format(reached=reached)).pl()
    found = made(rule, [trades])
    assert len(found["open_ns"]) == len(oracle) > 30
    for name in oracle.columns:
        expected = oracle[name].cast(pl.Float64 if name[-3:] != "_ns" else pl.Int64).to_numpy()
        np.testing.assert_allclose(found[name], expected, rtol=1e-13, err_msg=name)
