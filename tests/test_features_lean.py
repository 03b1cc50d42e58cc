"""The lean four are columns of the grid, bit for bit, in any window and any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.features import lean
from synth_pipeline.features.grid import grid_features
from synth_pipeline.features.lean import lean_grid
from synth_pipeline.schema import Scale
from tests.test_grid import HORIZON, INVERSE, LINEAR, STEP, ticks
from tests.tick_tables import HALF_SECOND_NS, SPAN_NS, Ticks, depth_table, quotes_table, random_market, trades_table

LEAN = ("label_ns", "mid", "spread", "vwap", "volume")


@given(ticks(), st.sampled_from([LINEAR, INVERSE]), st.integers(0, HORIZON), st.integers(0, HORIZON))
def test_equals_the_grid(market: Ticks, scale: Scale, start_ns: int, length_ns: int) -> None:
    window = {"step_ns": STEP, "start_ns": start_ns, "end_ns": start_ns + length_ns}
    found = lean_grid(market["quotes"], market["trades"], scale, **window)
    coverage = [(0, 3 * HORIZON)]
    whole = grid_features(market["quotes"], market["trades"], depth_table(), (), coverage, scale, **window)
    for name in LEAN:
        np.testing.assert_array_equal(found[name], whole[name], err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    market = random_market(20_000)
    window = {"step_ns": HALF_SECOND_NS, "start_ns": 0, "end_ns": SPAN_NS}
    whole = lean_grid(market["quotes"], market["trades"], LINEAR, **window)
    monkeypatch.setattr(lean, "_CHUNK", 37)
    cut = lean_grid(market["quotes"], market["trades"], LINEAR, threads=threads, **window)
    for name in LEAN:
        np.testing.assert_array_equal(cut[name], whole[name], err_msg=name)


def test_sizes_may_be_left_out_where_no_quote_is_one_sided() -> None:
    market = random_market(2_000)
    window = {"step_ns": HALF_SECOND_NS, "start_ns": 0, "end_ns": SPAN_NS}
    prices = {name: market["quotes"][name] for name in ("recv_ns", "bid_price", "ask_price")}
    expected = lean_grid(market["quotes"], market["trades"], LINEAR, **window)
    found = lean_grid(prices, market["trades"], LINEAR, **window)
    np.testing.assert_array_equal(found["mid"], expected["mid"])


def test_empty_buckets_carry_the_quote_and_have_no_vwap() -> None:
    quotes = quotes_table((12, 100, 1, 102, 1), (35, 110, 1, 112, 0))
    row = lean_grid(quotes, trades_table((15, 100, 3, 1)), LINEAR, step_ns=10, start_ns=0, end_ns=50)
    np.testing.assert_array_equal(row["mid"], [np.nan, 10.1, 10.1, np.nan, np.nan])
    np.testing.assert_array_equal(row["vwap"], [np.nan, 10.0, np.nan, np.nan, np.nan])
    assert row["volume"].tolist() == [0.0, 0.003, 0.0, 0.0, 0.0]
    assert row["label_ns"].tolist() == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("rows", [[(5, 1), (3, 1)], [(at % 1500, 1) for at in range(3000)], [(5, 1), (900, 1), (7, 1)]])
@pytest.mark.parametrize("table", ["quotes", "trades"])
def test_unsorted_rows_are_named_or_outside(table: str, rows: list[tuple[int, int]]) -> None:
    bad = {
        "quotes": quotes_table(*((at, 100, 1, 101, 1) for at, _ in rows)),
        "trades": trades_table(*((at, 100, 1, 1) for at, _ in rows)),
    }
    tables = {"quotes": quotes_table(), "trades": trades_table()} | {table: bad[table]}
    window = {"step_ns": 10, "start_ns": 0, "end_ns": 2000}
    with pytest.raises(InputError, match=f"rows of {table} are not sorted"):
        lean_grid(tables["quotes"], tables["trades"], LINEAR, **window)


def test_a_grid_may_be_asked_for_some_columns() -> None:
    market = random_market(2_000)
    window = {"step_ns": HALF_SECOND_NS, "start_ns": 0, "end_ns": SPAN_NS}
    whole = grid_features(**market, gaps=(), coverage=[(0, SPAN_NS)], scale=LINEAR, **window)
    assert tuple(whole) == schema.GRID.names
    for names in (("label_ns", "mid"), ("quote_count", "depth_mid", "flags")):
        some = grid_features(**market, gaps=(), coverage=[(0, SPAN_NS)], scale=LINEAR, **window, names=names)
        assert tuple(some) == names
        for name in names:
            np.testing.assert_array_equal(some[name], whole[name])
