"""The grid against its slow twin, its laws, hand-computed cases."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import schema
from synth_pipeline.errors import InputError
from synth_pipeline.features import depth, kernels
from synth_pipeline.features.grid import grid_features
from synth_pipeline.schema import Flag, GridFlag, Scale
from tests import naive_features
from tests.tick_tables import Ticks, depth_table, ladder_table, quotes_table, trades_table

STEP = 10
HORIZON = 120
LINEAR = Scale(Decimal("0.1"), Decimal("0.001"))
INVERSE = Scale(Decimal("0.5"), Decimal("10"), inverse=True)
ROUNDED = {
    "microprice": 1e-14,
    "vwap": 1e-14,
    "realized_variance": 1e-12,
    "depth_mid": 1e-14,
    "book_slope": 1e-13,
    **dict.fromkeys(("quote_interval_squares", "trade_interval_squares"), 1e-14),
}
"""Columns that are not the nearest double of their exact value, and how far from it they may lie."""


def features(
    quotes: dict[str, np.ndarray] | None = None,
    trades: dict[str, np.ndarray] | None = None,
    depth: dict[str, np.ndarray] | None = None,
    ladder: dict[str, np.ndarray] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Features of 0..HORIZON, all of it covered, unless the options say otherwise."""
    whole = {"step_ns": STEP, "start_ns": 0, "end_ns": HORIZON}
    return grid_features(
        quotes_table() if quotes is None else quotes,
        trades_table() if trades is None else trades,
        depth_table() if depth is None else depth,
        options.pop("gaps", ()),
        options.pop("coverage", [(0, HORIZON)]),
        options.pop("scale", LINEAR),
        ladder=ladder,
        **(whole | options),
    )


def times(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, HORIZON - 1), max_size=count).map(sorted)


@st.composite
def ticks(draw: st.DrawFn) -> Ticks:
    """A little market: ties in time, empty buckets, one-sided books, snapshots, off-market prints."""
    lots = st.integers(0, 6)
    quote = st.tuples(st.integers(90, 110), lots, st.integers(1, 4), lots, st.sampled_from([1, 1, 1, 3]))
    quotes = [(at, bid, a, bid + wide, b, flag) for at in draw(times(40)) for bid, a, wide, b, flag in [draw(quote)]]
    trade = st.tuples(st.integers(90, 110), st.integers(1, 9), st.sampled_from([-1, 0, 1]), st.sampled_from([1, 1, 17]))
    trades = [(at, *draw(trade)) for at in draw(times(20))]
    depth = [(at, draw(lots), draw(lots), draw(st.booleans())) for at in draw(times(15))]
    rungs = [(at, *draw(ladders())) for at in draw(times(20))]
    return {
        "quotes": quotes_table(*quotes),
        "trades": trades_table(*trades),
        "depth": depth_table(*depth),
        "ladder": ladder_table(*rungs),
    }


@st.composite
def ladders(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Both sides of a book, mostly of about ten levels at nearly the same prices, sometimes short, empty or crossed."""
    missing = draw(st.sets(st.integers(0, 12), max_size=draw(st.sampled_from([2, 13]))))
    prices = [offset for offset in range(13) if offset not in missing]
    size = st.integers(1, 6)
    touch = draw(st.integers(99, 101))
    bids = [(touch - offset, draw(size)) for offset in prices]
    asks = [(touch + draw(st.sampled_from([1, 2])) + offset, draw(size)) for offset in prices]
    asks = sorted(dict(asks).items())
    shift = draw(st.sampled_from([0, 0, 0, 0, -2]))
    return bids[:10], [(price + shift, lots) for price, lots in asks[: draw(st.sampled_from([10, 10, 10, 3, 0]))]]


def gap_lists() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    gap = st.tuples(
        st.sampled_from(["trades", "quotes", "book_levels", "all"]), st.integers(0, HORIZON), st.integers(0, 25)
    )
    return st.lists(gap.map(lambda g: (g[0], g[1], g[1] + g[2])), max_size=3)


@st.composite
def coverages(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Mostly all of it; else a few intervals, which may touch."""
    if draw(st.booleans()):
        return [(0, HORIZON)]
    cuts = sorted(draw(st.sets(st.integers(0, HORIZON), min_size=2, max_size=6)))
    pairs = [pair for pair in pairwise(cuts) if draw(st.booleans())]
    return pairs or [(cuts[0], cuts[-1])]


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray], rows: slice = slice(None)) -> None:
    """Every column equal, bit for bit."""
    for name in schema.GRID.names:
        np.testing.assert_array_equal(left[name][rows], right[name][rows], err_msg=name)


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in schema.GRID.names}


def rows_from(table: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: column[start:stop] for name, column in table.items()}


# --- the slow twin


@given(ticks(), gap_lists(), coverages(), st.sampled_from([LINEAR, INVERSE]), st.integers(0, 40), st.integers(60, 150))
def test_equals_slow_twin(
    market: Ticks, gaps: list[Any], coverage: list[Any], scale: Scale, start_ns: int, end_ns: int
) -> None:
    window = {"step_ns": STEP, "start_ns": start_ns, "end_ns": end_ns}
    fast = grid_features(**market, gaps=gaps, coverage=coverage, scale=scale, **window)
    slow = naive_features.grid_features(**market, gaps=gaps, coverage=coverage, scale=scale, **window)
    assert len(fast["label_ns"]) == len(slow)
    for column in schema.GRID.columns:
        expected = np.array([row[column.name] for row in slow], dtype=column.dtype)
        np.testing.assert_allclose(
            fast[column.name], expected, rtol=ROUNDED.get(column.name, 0), atol=1e-30, err_msg=column.name
        )


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(-2, 2)), max_size=60), st.integers(1, 10**14))
def test_rows_are_counted_exactly_at_the_edges(near: list[tuple[int, int]], step_ns: int) -> None:
    first_edge_ns = 1_723_161_255 * 10**9 // step_ns * step_ns
    edges_ns = first_edge_ns + step_ns * np.arange(3002)
    moments = np.array([edges_ns[bucket] + shift for bucket, shift in near], dtype=np.int64)
    moments = np.sort(moments.clip(edges_ns[0], edges_ns[-1] - 1))
    rows = np.empty(len(edges_ns), dtype=np.int64)
    kernels.rows_before_edges(moments, first_edge_ns, step_ns, rows)
    np.testing.assert_array_equal(rows, np.searchsorted(moments, edges_ns, side="left"))


# --- laws


@given(ticks(), gap_lists(), coverages(), st.lists(st.integers(-5, HORIZON + 20), max_size=4).map(sorted))
def test_tiling_windows_equal_one_pass(market: Ticks, gaps: list[Any], coverage: list[Any], cuts: list[int]) -> None:
    edges = [-20, *cuts, HORIZON + 40]
    shared = {"gaps": gaps, "coverage": coverage, "scale": LINEAR, "step_ns": STEP}
    whole = grid_features(**market, **shared, start_ns=edges[0], end_ns=edges[-1])
    windows = [
        grid_features(**window_rows(market, start, end), **shared, start_ns=start, end_ns=end)
        for start, end in pairwise(edges)
    ]
    assert_same(joined(windows), whole)


def window_rows(market: Ticks, start_ns: int, end_ns: int) -> Ticks:
    """The rows that a window needs: its own, and one quote and depth row carried in."""
    first_ns, last_ns = -(-start_ns // STEP) * STEP, -(-end_ns // STEP) * STEP
    bounds = {name: np.searchsorted(table["recv_ns"], [first_ns, last_ns]) for name, table in market.items()}
    carried = {"quotes": 1, "depth": 1, "ladder": 1, "trades": 0}
    return {
        name: rows_from(table, max(bounds[name][0] - carried[name], 0), bounds[name][1])
        for name, table in market.items()
    }


@given(ticks())
def test_day_by_day_equals_one_pass(market: Ticks) -> None:
    day = 4 * STEP
    days = []
    for start in range(0, HORIZON, day):
        opened = {name: opened_day(name, table, start, start + day) for name, table in market.items()}
        days.append(features(**opened, coverage=[(start, start + day)], start_ns=start, end_ns=start + day))
    assert_same(joined(days), features(**market))


def opened_day(name: str, table: dict[str, np.ndarray], start_ns: int, end_ns: int) -> dict[str, np.ndarray]:
    """A day's own rows after an opening row that repeats, at midnight, how the book stood."""
    start, stop = np.searchsorted(table["recv_ns"], [start_ns, end_ns])
    day = rows_from(table, start, stop)
    if name == "trades" or start == 0:
        return day
    opening = {column: values[start - 1 : start].copy() for column, values in table.items()}
    opening["recv_ns"][:] = start_ns
    if name == "quotes":
        opening["flags"][:] = Flag.LAST | Flag.SNAPSHOT
    return {column: np.concatenate([opening[column], day[column]]) for column in table}


@given(ticks(), ticks(), gap_lists(), gap_lists(), coverages(), st.integers(1, HORIZON // STEP), st.integers(0, 30))
def test_no_look_ahead(
    market: Ticks, other: Ticks, gaps: list[Any], other_gaps: list[Any], coverage: list[Any], cut: int, longer: int
) -> None:
    """Another future from a label on (rows, gaps, end of the recording) leaves the rows up to the label as they are."""
    label = cut * STEP
    changed = {}
    for name, table in market.items():
        past = rows_from(table, 0, int(np.searchsorted(table["recv_ns"], label)))
        future = rows_from(
            other[name], int(np.searchsorted(other[name]["recv_ns"], label)), len(other[name]["recv_ns"])
        )
        changed[name] = {column: np.concatenate([past[column], future[column]]) for column in table}
    is_past = [known < label - 1 for _, known, _ in gaps]
    past_gaps = [
        (name, known, again + longer * (again >= label))
        for (name, known, again), past in zip(gaps, is_past, strict=True)
        if past
    ]
    future_gaps = [(name, known + label, again + label) for name, known, again in other_gaps]
    past_coverage = [(start, end + longer * (end >= label)) for start, end in coverage if start < label]
    before = features(**market, gaps=gaps, coverage=coverage, end_ns=HORIZON + 40)
    after = features(**changed, gaps=past_gaps + future_gaps, coverage=past_coverage, end_ns=HORIZON + 40)
    shared = min(int((table["label_ns"] <= label).sum()) for table in (before, after))
    assert_same(rows_from(after, 0, shared), rows_from(before, 0, shared))
    assert not np.isfinite(before["volume"][shared : int((before["label_ns"] <= label).sum())]).any()


@given(ticks(), st.integers(0, 10**9))
def test_moving_everything_by_whole_steps_moves_labels_only(market: Ticks, steps: int) -> None:
    shift = steps * STEP
    moved = {name: table | {"recv_ns": table["recv_ns"] + shift} for name, table in market.items()}
    expected = features(**market)
    found = features(**moved, coverage=[(shift, shift + HORIZON)], start_ns=shift, end_ns=shift + HORIZON)
    assert_same(found, expected | {"label_ns": expected["label_ns"] + shift})


@given(ticks())
def test_no_trade_is_lost_or_doubled(market: Ticks) -> None:
    trades = market["trades"]
    on_market = (trades["flags"] & Flag.OFF_MARKET) == 0
    row = features(**market)
    assert row["trade_count"].sum() == on_market.sum()
    assert Fraction(round(row["volume"].sum() * 1000)) == trades["size"][on_market].sum()


@given(ticks(), st.integers(0, 39))
def test_a_snapshot_that_repeats_the_book_changes_nothing(market: Ticks, place: int) -> None:
    quotes = market["quotes"]
    if place < len(quotes["recv_ns"]):
        repeated = {name: np.insert(column, place, column[place]) for name, column in quotes.items()}
        repeated["flags"][place + 1] |= Flag.SNAPSHOT
        assert_same(features(**(market | {"quotes": repeated})), features(**market))


# --- hand-computed cases


def test_order_flow_imbalance_by_hand() -> None:
    quotes = quotes_table(
        (5, 100, 3, 101, 4),  # carried in
        (11, 100, 5, 101, 4),  # bid queue grows by 2: +2
        (12, 101, 2, 102, 6),  # bid steps up: +2; ask steps up, the old queue of 4 is gone: +4
        (13, 101, 2, 102, 1),  # ask queue shrinks by 5: +5
        (14, 100, 9, 101, 3),  # bid steps down, 2 gone: -2; ask steps down with 3: -3
        (21, 100, 9, 101, 3),  # nothing changed: 0
    )
    assert features(quotes)["ofi"][:3].tolist() == [0.0, 0.008, 0.0]


def test_realized_variance_by_hand() -> None:
    quotes = quotes_table((5, 100, 3, 102, 4), (11, 102, 5, 104, 4), (12, 102, 2, 104, 6), (13, 100, 2, 102, 1))
    expected = 2 * math.log(103 / 101) ** 2
    np.testing.assert_allclose(features(quotes)["realized_variance"][:3], [0.0, expected, 0.0], rtol=1e-14)


@pytest.mark.parametrize("move", [1, 10**6, 4 * 10**6, 9 * 10**6, 10**9])
def test_realized_variance_loses_nothing_to_cancellation(move: int) -> None:
    bid = 2 * 10**8
    quotes = quotes_table((1, bid, 1, bid, 1), (11, bid + move, 1, bid + move, 1))
    exact = float((Decimal(bid + move) / Decimal(bid)).ln() ** 2)
    assert features(quotes)["realized_variance"][1] == pytest.approx(exact, rel=2e-15)


def test_price_without_logarithm_has_no_variance() -> None:
    quotes = quotes_table((1, 5, 1, 6, 1), (11, -7, 1, -6, 1), (21, -6, 1, -5, 1))
    row = features(quotes)
    assert np.isnan(row["realized_variance"]).tolist() == [False, True, True] + [False] * 9
    assert row["mid"][1] == -0.65


def test_microprice_leans_to_the_thin_side() -> None:
    row = features(quotes_table((1, 100, 3, 102, 1)))
    assert row["microprice"][0] == pytest.approx(0.1 * (100 * 1 + 102 * 3) / 4, rel=1e-15)
    assert (row["mid"][0], row["spread"][0], row["imbalance_1"][0]) == (10.1, 0.2, 0.5)


def test_last_of_tied_quotes_wins() -> None:
    assert features(quotes_table((3, 100, 1, 102, 1), (3, 110, 1, 112, 1)))["mid"][0] == 11.1


def test_quote_at_the_label_belongs_to_the_next_bucket() -> None:
    row = features(quotes_table((9, 100, 1, 102, 1), (10, 110, 1, 112, 1)))
    assert row["mid"][:2].tolist() == [10.1, 11.1]
    assert row["label_ns"][:2].tolist() == [10, 20]


def test_prices_and_sizes_are_the_nearest_doubles() -> None:
    row = features(quotes_table((1, 3, 1, 3, 1)), trades_table((1, 3, 3, 1), (2, 3, 4, -1)))
    assert (row["mid"][0], row["vwap"][0], row["volume"][0], row["signed_volume"][0]) == (0.3, 0.3, 0.007, -0.001)


def test_inverse_vwap_weighs_by_base_amount() -> None:
    row = features(trades=trades_table((1, 100, 3, 1), (2, 200, 3, -1)), scale=INVERSE)
    assert row["vwap"][0] == pytest.approx(0.5 * 6 / (3 / 100 + 3 / 200), rel=1e-15)
    assert (row["volume"][0], row["signed_volume"][0]) == (60.0, 0.0)


def test_vwap_of_numbers_beyond_int64() -> None:
    prices, size = (10**13, 10**13 + 7), 10**12
    vwap = features(trades=trades_table((1, prices[0], size, 1), (2, prices[1], size, 1)))["vwap"][0]
    assert vwap == float(Fraction(sum(prices), 20))


def test_off_market_prints_are_in_no_sum() -> None:
    row = features(trades=trades_table((1, 100, 3, 1), (2, 500, 99, 1, Flag.OFF_MARKET)))
    assert (row["vwap"][0], row["volume"][0], row["trade_count"][0]) == (10.0, 0.003, 1.0)


def test_no_trade_has_no_vwap_but_a_volume_of_zero() -> None:
    row = features(trades=trades_table((1, 100, 3, 1), (25, 100, 3, 1)))
    assert np.isnan(row["vwap"]).tolist() == [False, True, False] + [True] * 9
    assert row["volume"][:3].tolist() == [0.003, 0.0, 0.003]


def test_one_sided_book_is_flagged_and_counts_no_change() -> None:
    row = features(quotes_table((1, 100, 1, 102, 1), (11, 100, 1, 0, 0), (21, 100, 1, 102, 1), (22, 100, 5, 102, 1)))
    assert np.isnan(row["mid"]).tolist() == [False, True] + [False] * 10
    assert row["flags"][:3].tolist() == [GridFlag.NO_BOOK, GridFlag.NO_BOOK | GridFlag.ONE_SIDED, GridFlag.NO_BOOK]
    assert row["ofi"][:3].tolist() == [0.0, 0.0, 0.004]


# --- gaps and coverage


def test_gap_is_never_bridged() -> None:
    quotes = quotes_table((1, 100, 1, 102, 1), (47, 110, 1, 112, 1), (48, 110, 4, 112, 1))
    row = features(quotes, trades_table((2, 100, 3, 1), (45, 100, 3, 1)), gaps=[("all", 15, 28)])
    assert np.isnan(row["mid"]).tolist() == [False, True, True, True] + [False] * 8
    assert np.isnan(row["volume"]).tolist() == [False, True, True] + [False] * 9
    assert ((row["flags"] & GridFlag.GAP) > 0).tolist() == [False, True, True] + [False] * 9
    assert row["ofi"][4] == 0.003, "from the first quote after the gap on, and not from the last before it"


def test_gap_hides_only_its_own_stream() -> None:
    market = {
        "quotes": quotes_table((1, 100, 1, 102, 1)),
        "trades": trades_table((15, 100, 3, 1)),
        "depth": depth_table((1, 5, 3, True)),
    }
    columns = {"quotes": "mid", "trades": "volume", "book_levels": "imbalance_10"}
    for hidden, column in columns.items():
        row = features(**market, gaps=[(hidden, 12, 14)])
        assert {name for name in columns.values() if np.isnan(row[name][1])} == {column}
        assert row["flags"][1] & GridFlag.GAP


@pytest.mark.parametrize("again", [15, 16])
def test_gap_without_a_moment_between_its_ends_still_counts(again: int) -> None:
    quotes = quotes_table((15, 100, 1, 102, 1), (16, 110, 1, 112, 1), (31, 100, 1, 102, 1))
    row = features(quotes_table((15, 100, 1, 102, 1)), gaps=[("all", 15, again)])
    assert np.isnan(row["volume"]).tolist() == [False, True] + [False] * 10
    assert np.isnan(row["mid"]).all()
    assert np.isfinite(features(quotes, gaps=[("all", 15, again)])["mid"][1:]).all()


def test_partly_covered_buckets_have_no_sums() -> None:
    quotes, trades = quotes_table((17, 100, 1, 102, 1), (41, 100, 1, 102, 1)), trades_table((18, 100, 3, 1))
    row = features(quotes, trades, coverage=[(15, 45)])
    assert row["label_ns"].tolist() == [20, 30, 40, 50]
    assert ((row["flags"] & GridFlag.GAP) > 0).tolist() == [True, False, False, True]
    assert np.isnan(row["volume"]).tolist() == [True, False, False, True]
    assert np.isnan(row["mid"]).tolist() == [False, False, False, True], "unknown after the recording stopped"


def test_time_between_coverage_is_a_gap_of_everything() -> None:
    market = {"quotes": quotes_table((1, 100, 1, 102, 1), (62, 100, 1, 102, 1)), "depth": depth_table((1, 5, 3, True))}
    row = features(**market, coverage=[(0, 20), (50, 90)])
    assert row["label_ns"].tolist() == list(range(10, 100, 10))
    assert np.isnan(row["mid"]).tolist() == [False, False, True, True, True, True, False, False, False]
    assert np.isnan(row["volume"]).tolist() == [False, False, True, True, True, False, False, False, False]
    assert np.isnan(row["imbalance_10"]).tolist() == [False, False] + [True] * 7


def test_touching_coverage_is_no_gap() -> None:
    market = {"quotes": quotes_table((1, 100, 1, 102, 1)), "depth": depth_table((1, 5, 3, True))}
    assert_same(features(**market, coverage=[(0, 37), (37, HORIZON)]), features(**market))


def test_empty_tables_have_rows_without_numbers() -> None:
    row = features(ladder=ladder_table())
    assert len(row["label_ns"]) == HORIZON // STEP
    assert (row["flags"] == GridFlag.NO_BOOK | GridFlag.STALE).all()
    assert {name for name in schema.GRID.names if np.isnan(row[name]).all()} == {
        *("mid", "microprice", "spread", "imbalance_1", "imbalance_10", "vwap", "ofi", "realized_variance"),
        *("last_price", "quote_first", "quote_last", "trade_first", "trade_last", *depth.NAMES),
    }
    assert (row["trade_count"] == 0).all()


@pytest.mark.parametrize("window", [{"coverage": []}, {"start_ns": 200, "end_ns": 300}, {"start_ns": 5, "end_ns": 5}])
def test_nothing_covered_means_no_rows(window: dict[str, Any]) -> None:
    row = features(quotes_table((1, 100, 1, 102, 1)), **window)
    assert {name: (len(row[name]), row[name].dtype.name) for name in row} == {
        column.name: (0, column.dtype) for column in schema.GRID.columns
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"quotes": quotes_table((5, 1, 1, 2, 1), (3, 1, 1, 2, 1))}, "rows of quotes are not sorted by recv_ns"),
        (
            {"quotes": quotes_table((5, 1, 1, 2, 1), (3 * HORIZON, 1, 1, 2, 1), (7, 1, 1, 2, 1))},
            "rows of quotes are not sorted",
        ),
        (
            {"trades": trades_table(*((at % 1500 % HORIZON, 1, 1, 1) for at in range(3000)))},
            "rows of trades are not sorted",
        ),
        ({"depth": depth_table((5, 1, 1, True), (3, 1, 1, True))}, "rows of depth are not sorted"),
        ({"gaps": [("orders", 3, 5)]}, "unknown stream 'orders'"),
        ({"gaps": [("quotes", 5, 3)]}, "gap of quotes ends at 3 ns, before its start 5 ns"),
        ({"coverage": [(0, 50), (40, 60)]}, "coverage goes back from 50 to 40 ns"),
        ({"coverage": [(5, 5)]}, "coverage interval [5, 5) is empty"),
        ({"step_ns": 0}, "steps of 0 ns"),
        ({"start_ns": 9, "end_ns": 5}, "no grid from 9 to 5 ns"),
    ],
)
def test_wrong_input_is_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        features(**wrong)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
