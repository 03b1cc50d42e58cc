"""Bars from trades: their slow twin, Polars, laws of feeding, losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.features.bars import NAMES, BarMaker, BarRule
from synth_pipeline.schema import BarFlag, Flag, Scale
from tests.tick_tables import random_market, trades_table

LINEAR = Scale(Decimal("0.1"), Decimal("0.001"))
INVERSE = Scale(Decimal("0.5"), Decimal("1"), inverse=True)
Columns = dict[str, np.ndarray]
rules = st.sampled_from(
    [
        BarRule("time", 10),
        BarRule("trades", 3),
        BarRule("volume", Decimal("0.011")),
        BarRule("value", Decimal("0.1")),
        BarRule("imbalance", Decimal("0.007")),
    ]
)
trade = st.tuples(st.integers(90, 110), st.integers(1, 9), st.sampled_from([-1, 0, 1]), st.sampled_from([1, 1, 17]))


@st.composite
def trades(draw: st.DrawFn) -> Columns:
    times = sorted(draw(st.lists(st.integers(0, 119), max_size=40)))
    return trades_table(*((at, *draw(trade)) for at in times))


def made(
    rule: BarRule, pieces: list[Columns], scale: Scale = LINEAR, coverage: Sequence[tuple[int, int]] = ()
) -> Columns:
    maker = BarMaker(rule, scale)
    parts = [*(maker.feed(piece, (), coverage) for piece in pieces), maker.finish()]
    return {name: np.concatenate([part[name] for part in parts]) for name in NAMES}


def cut(table: Columns, edges: list[int]) -> list[Columns]:
    places = np.searchsorted(table["recv_ns"], edges)
    return [{name: column[a:b] for name, column in table.items()} for a, b in pairwise([0, *places, None])]


# --- the slow twin


def slow_bars(rule: BarRule, table: Columns, scale: Scale) -> list[list[dict[str, Any]]]:
    """The trades of each bar."""
    tick, lot = Fraction(scale.tick_size), Fraction(scale.lot_size)
    bars: list[list[dict[str, Any]]] = [[]]
    for row in rows_of(table):
        if row["flags"] & Flag.OFF_MARKET:
            continue
        if (
            rule.measure == "time"
            and bars[-1]
            and bars[-1][-1]["recv_ns"] // rule.amount != row["recv_ns"] // rule.amount
        ):
            bars.append([])
        bars[-1].append(row)
        size = sum(t["size"] for t in bars[-1]) * lot
        held = {
            "time": 0,
            "trades": len(bars[-1]),
            "volume": size,
            "imbalance": abs(sum(t["size"] * t["side"] for t in bars[-1])) * lot,
            "value": size * Fraction(rule.contract_value)
            if scale.inverse
            else sum(t["price"] * t["size"] for t in bars[-1]) * tick * lot,
        }[rule.measure]
        if held >= Fraction(rule.amount) and rule.measure != "time":
            bars.append([])
    return [bar for bar in bars if bar]


def rows_of(table: Columns) -> Iterator[dict[str, Any]]:
    for values in zip(*(column.tolist() for column in table.values()), strict=True):
        yield dict(zip(table, values, strict=True))


def described(bar: list[dict[str, Any]], rule: BarRule, scale: Scale) -> dict[str, float]:
    tick, lot = Fraction(scale.tick_size), Fraction(scale.lot_size)
    prices = [row["price"] * tick for row in bar]
    sizes = [row["size"] * lot for row in bar]
    first, last = bar[0]["recv_ns"], bar[-1]["recv_ns"]
    if scale.inverse:
        base = sum(q * Fraction(rule.contract_value) / p for p, q in zip(prices, sizes, strict=True))
        turnover, vwap = base, sum(sizes) * Fraction(rule.contract_value) / base
    else:
        turnover = sum(p * q for p, q in zip(prices, sizes, strict=True))
        vwap = turnover / sum(sizes)
    is_time = rule.measure == "time"
    every = int(rule.amount) if is_time else 1
    return {
        "open_ns": first // every * every,
        "close_ns": first // every * every + every if is_time else last + 1,
        "open": float(prices[0]),
        "high": float(max(prices)),
        "low": float(min(prices)),
        "close": float(prices[-1]),
        "volume": float(sum(sizes)),
        "turnover": float(turnover),
        "trade_count": float(len(bar)),
        "buy_volume": float(sum((q for q, row in zip(sizes, bar, strict=True) if row["side"] > 0), Fraction(0))),
        "vwap": float(vwap),
    }


@given(rules, trades(), st.sampled_from([LINEAR, INVERSE]))
def test_equals_slow_twin(rule: BarRule, table: Columns, scale: Scale) -> None:
    rule = BarRule(
        rule.measure, rule.amount * (1000 if rule.measure in ("volume", "imbalance") and scale.inverse else 1)
    )
    found = made(rule, [table], scale)
    expected = [described(bar, rule, scale) for bar in slow_bars(rule, table, scale)]
    assert len(found["open"]) == len(expected)
    for name in NAMES:
        if name != "flags":
            rounded = 1e-14 if name in ("turnover", "vwap") else 0
            np.testing.assert_allclose(found[name], [bar[name] for bar in expected], rtol=rounded, err_msg=name)


def test_polars_agrees_on_time_bars() -> None:
    table = random_market(40_000)["trades"]
    every = 7_000_000_000
    oracle = (
        pl.DataFrame(table)
        .filter(pl.col("flags") & int(Flag.OFF_MARKET) == 0)
        .group_by((pl.col("recv_ns") // every * every).alias("open_ns"), maintain_order=True)
        .agg(
            open=pl.col("price").first() / 10,
            high=pl.col("price").max() / 10,
            low=pl.col("price").min() / 10,
            close=pl.col("price").last() / 10,
            volume=pl.col("size").sum() / 1000,
            turnover=(pl.col("price") * pl.col("size")).sum() / 10_000,
            trade_count=pl.len(),
            buy_volume=pl.col("size").filter(pl.col("side") > 0).sum() / 1000,
            vwap=(pl.col("price") * pl.col("size")).sum() / pl.col("size").sum() / 10,
        )
    )
    found = made(BarRule("time", every), [table])
    assert len(found["open_ns"]) == len(oracle) > 30
    for name in oracle.columns:
        np.testing.assert_allclose(found[name], oracle[name].to_numpy(), rtol=1e-13, err_msg=name)


# --- laws


@given(rules, trades(), st.lists(st.integers(0, 120), max_size=5).map(sorted))
def test_pieces_equal_one_feed(rule: BarRule, table: Columns, edges: list[int]) -> None:
    whole, pieces = made(rule, [table]), made(rule, cut(table, edges))
    for name in NAMES:
        np.testing.assert_array_equal(pieces[name], whole[name], err_msg=name)


@given(rules, trades())
def test_no_trade_is_lost_or_split(rule: BarRule, table: Columns) -> None:
    on_market = (table["flags"] & Flag.OFF_MARKET) == 0
    bars = made(rule, [table])
    assert bars["trade_count"].sum() == on_market.sum()
    assert round(bars["volume"].sum() * 1000) == table["size"][on_market].sum()
    assert (bars["low"] <= np.minimum(bars["open"], bars["close"])).all()
    assert (bars["high"] >= np.maximum(bars["open"], bars["close"])).all()
    assert ((bars["vwap"] <= bars["high"] * (1 + 1e-15)) & (bars["vwap"] >= bars["low"] * (1 - 1e-15))).all()


@given(rules, trades(), trades(), st.integers(0, 119))
def test_no_look_ahead(rule: BarRule, table: Columns, other: Columns, now: int) -> None:
    """A bar that is closed by a moment stays as it is, whatever trades come after."""
    past, future = cut(table, [now])[0], cut(other, [now])[1]
    changed = {name: np.concatenate([past[name], future[name]]) for name in table}
    before, after = (made(rule, [each], coverage=[(0, 120)]) for each in (table, changed))
    closed = [(bars["close_ns"] <= now) & (bars["flags"] == 0) for bars in (before, after)]
    for name in NAMES:
        np.testing.assert_array_equal(after[name][closed[1]], before[name][closed[0]], err_msg=name)


# --- hand-computed cases


def test_the_trade_that_crosses_a_threshold_stays_whole() -> None:
    table = trades_table((1, 100, 4, 1), (2, 101, 9, 1), (3, 102, 5, -1), (4, 103, 5, 1))
    bars = made(BarRule("volume", Decimal("0.010")), [table])
    assert bars["volume"].tolist() == [0.013, 0.010]
    assert bars["buy_volume"].tolist() == [0.013, 0.005]
    assert bars["open_ns"].tolist() == [1, 3]
    assert bars["close_ns"].tolist() == [3, 5]
    assert bars["flags"].tolist() == [0, 0]


def test_value_of_inverse_contracts_does_not_ask_the_price() -> None:
    table = trades_table((1, 100, 3, 1), (2, 400, 2, 1), (3, 100, 5, -1))
    bars = made(BarRule("value", Decimal(500), contract_value=Decimal(100)), [table], INVERSE)
    assert bars["trade_count"].tolist() == [2.0, 1.0]
    assert bars["turnover"].tolist() == [pytest.approx(300 / 50 + 200 / 200), pytest.approx(500 / 50)]


def test_time_without_trades_is_no_bar() -> None:
    bars = made(BarRule("time", 10), [trades_table((1, 100, 1, 1), (45, 101, 1, 1))])
    assert bars["open_ns"].tolist() == [0, 40]
    assert bars["flags"].tolist() == [0, BarFlag.PARTIAL], "the last was still open"


def test_lost_time_is_flagged_however_it_is_fed() -> None:
    table = trades_table((5, 100, 1, 1), (15, 101, 1, 1), (25, 101, 1, 1), (65, 101, 1, 1), (75, 101, 1, 1))
    gaps = [("trades", 17, 22), ("quotes", 60, 66)]
    maker = BarMaker(BarRule("time", 10), LINEAR)
    whole = maker.feed(table, gaps, [(3, 40), (50, 90)])
    expected = [BarFlag.PARTIAL, BarFlag.PARTIAL, BarFlag.PARTIAL, BarFlag.GAP_BEFORE]
    assert whole["flags"].tolist() == expected
    maker = BarMaker(BarRule("time", 10), LINEAR)
    days = cut(table, [20, 60])
    coverages = [[(3, 20)], [(20, 40), (50, 60)], [(60, 90)]]
    parts = [maker.feed(day, gaps, coverage) for day, coverage in zip(days, coverages, strict=True)]
    assert np.concatenate([part["flags"] for part in parts]).tolist() == expected


def test_columns_are_those_of_the_schema() -> None:
    bars = made(BarRule("trades", 2), [trades_table()])
    for column in schema.BARS.columns:
        assert bars[column.name].dtype == column.dtype, column.name
        assert len(bars[column.name]) == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda: BarRule("dollars", 5), "no bars by 'dollars'"),  # type: ignore[arg-type]
        (lambda: BarRule("trades", 0), "bars of 0 trades end never or always"),
        (lambda: BarRule("volume", Decimal("NaN")), "bars of NaN volume end never or always"),
        (lambda: BarRule("time", Decimal("Infinity")), "bars of Infinity time end never or always"),
        (lambda: BarRule("time", Decimal("0.5")), "bars of 0.5 time"),
        (lambda: made(BarRule("trades", 2), [trades_table((5, 1, 1, 1), (3, 1, 1, 1))]), "not sorted by recv_ns"),
    ],
)
def test_wrong_input_is_named(rule: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rule()
