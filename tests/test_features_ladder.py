"""Ladders equal a plain dictionary's best levels; features of depth by hand and against Polars."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.features.grid import grid_features
from synth_pipeline.rng import stream
from synth_pipeline.schema import Flag, Scale
from synth_pipeline.ticks import book as books
from tests.tick_tables import depth_table, ladder_table, quotes_table, trades_table

UNIT = Scale(Decimal(1), Decimal(1))
changes = st.tuples(st.sampled_from([1, -1]), st.integers(1, 40), st.integers(0, 9))
events = st.lists(st.tuples(st.booleans(), st.lists(changes, min_size=1, max_size=25)), min_size=1, max_size=30)


def level_rows(events: list[tuple[bool, list[tuple[int, int, int]]]]) -> dict[str, np.ndarray]:
    rows = []
    for number, (is_snapshot, levels) in enumerate(events):
        for index, (side, price, size) in enumerate(levels):
            flags = (Flag.SNAPSHOT if is_snapshot else 0) | (Flag.LAST if index == len(levels) - 1 else 0)
            rows.append((number, side, price, max(size, 1) if is_snapshot else size, flags))
    columns = np.array(rows, dtype=np.int64).T
    names = ("recv_ns", "side", "price", "size", "flags")
    return dict(zip(names, columns, strict=True)) | {"flags": columns[4].astype(np.uint8)}


def best_levels(events: list[Any], count: int) -> list[list[list[tuple[int, int]]]]:
    book: dict[int, dict[int, int]] = {1: {}, -1: {}}
    found = []
    for is_snapshot, levels in events:
        if is_snapshot:
            book = {1: {}, -1: {}}
        for side, price, size in levels:
            book[side][price] = max(size, 1) if is_snapshot else size
            if not book[side][price]:
                del book[side][price]
        ordered = [sorted(book[side].items(), reverse=side == 1)[:count] for side in (1, -1)]
        found.append([levels + [(0, 0)] * (count - len(levels)) for levels in ordered])
    return found


@given(events, st.integers(0, 12), st.integers(1, 200))
def test_ladders_equal_the_dictionary_however_they_are_fed(wanted: list[Any], visible: int, piece: int) -> None:
    rows = level_rows(wanted)
    book = books.Book()
    parts = []
    for start in range(0, len(rows["flags"]), piece):
        part = {name: column[start : start + piece] for name, column in rows.items()}
        parts.append(books.ladder_of(book.feed(part, books.DEPTH), visible))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    expected = best_levels(wanted, min(visible or 10, 10))
    for which, side in enumerate(("bid", "ask")):
        pairs = np.stack((found[f"{side}_price"], found[f"{side}_size"]), axis=2).tolist()
        assert pairs == [[list(level) for level in event[which]] for event in expected]
    assert found["recv_ns"].tolist() == list(range(len(wanted)))


def test_more_levels_than_the_first_allocation() -> None:
    full = level_rows([(True, [(1, price, price) for price in range(1, 5001)])])
    found = books.ladder_of(books.replay(full), 0)
    assert found["bid_price"].tolist() == [list(range(5000, 4990, -1))]


def depth_features(ladder: dict[str, np.ndarray], end_ns: int = 20, scale: Scale = UNIT) -> dict[str, np.ndarray]:
    window = {"step_ns": 10, "start_ns": 0, "end_ns": end_ns}
    tables = (quotes_table(), trades_table(), depth_table())
    return grid_features(*tables, (), [(0, end_ns)], scale, **window, ladder=ladder)


def test_state_by_hand() -> None:
    row = depth_features(ladder_table((1, [(99, 2), (97, 4)], [(101, 1), (104, 3)])))
    assert row["depth_mid"][0] == pytest.approx((99 * 2 + 97 * 4 + 101 + 104 * 3) / 10, rel=1e-15)
    bid, ask = (1 * 2 + 3 * 6) / (1 + 9), (1 * 1 + 4 * 4) / (1 + 16)
    assert row["book_slope"][0] == pytest.approx((bid + ask) / 2, rel=1e-15)
    assert row["imbalance_5"].tolist() == [0.2, 0.2]


def test_slope_is_size_per_price() -> None:
    ladder = ladder_table((1, [(99, 2), (97, 4)], [(101, 1), (104, 3)]))
    one, other = depth_features(ladder), depth_features(ladder, scale=Scale(Decimal("0.5"), Decimal("0.01")))
    assert other["book_slope"][0] == pytest.approx(one["book_slope"][0] * 0.01 / 0.5, rel=1e-15)
    assert other["depth_mid"][0] == one["depth_mid"][0] / 2


def test_multi_level_flow_and_depth_changes_by_hand() -> None:
    row = depth_features(
        ladder_table(
            (1, [(99, 2), (98, 4)], [(101, 1), (102, 3)]),
            (12, [(99, 5), (98, 4)], [(101, 1), (102, 3)]),  # the best bid grows by 3
            (13, [(99, 5), (97, 6)], [(101, 1), (102, 2)]),  # 98 leaves (-4), 97 comes; an ask of the second level goes
        )
    )
    assert [row[f"ofi_{level}"][1] for level in range(1, 6)] == [3.0, -4.0 + 1.0, 0.0, 0.0, 0.0]
    assert (row["depth_added"][1], row["depth_removed"][1]) == (3.0 + 6.0, 4.0 + 1.0)


def test_what_falls_off_the_ladder_is_not_removed() -> None:
    bids = [(100 - level, 5) for level in range(10)]
    asks = [(110, 1)]
    row = depth_features(ladder_table((1, bids, asks), (12, [(101, 7), *bids[:9]], asks), (13, bids, asks)))
    assert (row["depth_added"][1], row["depth_removed"][1]) == (7.0, 7.0)


def test_a_source_of_five_levels_has_no_feature_of_ten() -> None:
    ladder = ladder_table((1, [(99, 2), (97, 4)], [(101, 1), (104, 3)]), (12, [(99, 1)], [(101, 1)]))
    row = depth_features({name: column[:, :5] if column.ndim == 2 else column for name, column in ladder.items()})
    missing = {
        name for name in ("depth_mid", "book_slope", "depth_added", "depth_removed") if np.isnan(row[name]).all()
    }
    assert len(missing) == 4
    assert np.isfinite(row["imbalance_5"]).all()
    assert row["ofi_1"].tolist() == [0.0, -1.0]


def test_polars_agrees() -> None:
    rng = stream(5, "ladder")
    count, levels = 4_000, 10
    at = np.sort(rng.integers(0, 20_000, count))
    best = 1000 + np.cumsum(rng.integers(-1, 2, count))
    steps = np.cumsum(rng.integers(1, 3, (2, count, levels)), axis=2)
    bid, ask = best[:, None] - steps[0], best[:, None] + steps[1]
    sizes = rng.integers(1, 50, (2, count, levels))
    ladder = {"recv_ns": at, "bid_price": bid, "bid_size": sizes[0], "ask_price": ask, "ask_size": sizes[1]}
    found = depth_features(ladder, end_ns=20_000)
    flat = {
        f"{side}{kind}{level}": ladder[f"{name}_{column}"][:, level]
        for side, name in (("b", "bid"), ("a", "ask"))
        for kind, column in (("p", "price"), ("q", "size"))
        for level in range(levels)
    }
    frame = pl.DataFrame({"recv_ns": at, **flat}).with_columns(label_ns=(pl.col("recv_ns") // 10 + 1) * 10)
    flows = []
    for level in range(5):
        bp, bq, ap, aq = (pl.col(f"{name}{level}") for name in ("bp", "bq", "ap", "aq"))
        flow = (bp >= bp.shift()) * bq - (bp <= bp.shift()) * bq.shift()
        flow = flow - (ap <= ap.shift()) * aq + (ap >= ap.shift()) * aq.shift()
        flows.append(flow.fill_null(0).alias(f"ofi_{level + 1}"))
    value = pl.sum_horizontal(pl.col(f"{s}p{k}") * pl.col(f"{s}q{k}") for s in "ba" for k in range(levels))
    weight = pl.sum_horizontal(pl.col(f"{s}q{k}") for s in "ba" for k in range(levels))
    five = [pl.sum_horizontal(pl.col(f"{s}q{k}") for k in range(5)) for s in "ba"]
    state = {"depth_mid": value / weight, "imbalance_5": (five[0] - five[1]) / (five[0] + five[1])}
    mid, slopes = (pl.col("bp0") + pl.col("ap0")) / 2, []
    for side in "ba":
        away = [(pl.col(f"{side}p{k}") - mid).abs() for k in range(levels)]
        upto = [pl.sum_horizontal(pl.col(f"{side}q{j}") for j in range(k + 1)) for k in range(levels)]
        products = (d * q for d, q in zip(away, upto, strict=True))
        slopes.append(pl.sum_horizontal(products) / pl.sum_horizontal(d**2 for d in away))
    state["book_slope"] = (slopes[0] + slopes[1]) / 2
    labels = pl.DataFrame({"label_ns": found["label_ns"]})
    sums = frame.with_columns(flows).group_by("label_ns").agg(pl.col(f"ofi_{k}").sum() for k in range(1, 6))
    oracle = labels.join(sums, on="label_ns", how="left", maintain_order="left").fill_null(0)
    states = labels.join_asof(
        frame.select("recv_ns", **state), left_on="label_ns", right_on="recv_ns", allow_exact_matches=False
    )
    for name in ("ofi_1", "ofi_2", "ofi_3", "ofi_4", "ofi_5"):
        np.testing.assert_array_equal(found[name], oracle[name].to_numpy().astype(float), err_msg=name)
    np.testing.assert_allclose(found["depth_mid"], states["depth_mid"].to_numpy(), rtol=1e-14)
    np.testing.assert_allclose(found["imbalance_5"], states["imbalance_5"].to_numpy(), rtol=1e-15)
    np.testing.assert_allclose(found["book_slope"], states["book_slope"].to_numpy(), rtol=1e-12)


def test_duckdb_agrees_on_depth_that_came_and_went() -> None:
    rng = stream(6, "ladder")
    count, levels = 1_500, 10
    at = np.sort(rng.integers(0, 6_000, count))
    best = 1000 + np.cumsum(rng.integers(-1, 2, count))
    steps = np.cumsum(rng.integers(1, 3, (2, count, levels)), axis=2)
    sizes = rng.integers(1, 50, (2, count, levels))
    prices = best[:, None] + np.array([-1, 1])[:, None, None] * steps
    ladder = {"recv_ns": at, "bid_price": prices[0], "bid_size": sizes[0], "ask_price": prices[1], "ask_size": sizes[1]}
    found = depth_features(ladder, end_ns=6_000)
    side, event, _ = np.indices(prices.shape)
    base = duckdb.connect()
    shown = {"side": 2 * side.ravel() - 1, "event": event.ravel(), "price": prices.ravel(), "size": sizes.ravel()}
    base.register("shown", pl.DataFrame(shown).to_arrow())
    base.register("events", pl.DataFrame({"event": np.arange(count), "label_ns": (at // 10 + 1) * 10}).to_arrow())
    oracle = base.sql("""
        with before as (select side, event + 1 as event, price, size from shown),
        ends as (select side, event, max(price * side) as last from shown group by all),
        changes as (
            select side, event, price, coalesce(a.size, 0) - coalesce(b.size, 0) as change
            from shown a full join before b using (side, event, price)
        )
        select label_ns, coalesce(sum(change) filter (change > 0), 0) as depth_added,
               coalesce(-sum(change) filter (change < 0), 0) as depth_removed
        from changes join ends now using (side, event)
        join ends earlier on earlier.side = changes.side and earlier.event = changes.event - 1
        join events using (event) where price * changes.side <= least(now.last, earlier.last) group by label_ns
    """).pl()
    labels = pl.DataFrame({"label_ns": found["label_ns"]})
    rows = labels.join(oracle, on="label_ns", how="left", maintain_order="left").fill_null(0)
    for name in ("depth_added", "depth_removed"):
        np.testing.assert_array_equal(found[name], rows[name].cast(pl.Float64).to_numpy(), err_msg=name)
        assert (found[name] > 0).sum() > 100
