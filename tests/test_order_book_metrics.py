"""The statistics of LOB-Bench: against definitions said slowly, outside oracles, and laws of distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synth_pipeline import stages
from synth_pipeline.errors import MetricError, TooLittleDataError
from synth_pipeline.fidelity import book_comparison, book_scores, impact, order_book
from synth_pipeline.fidelity.book_sample import CANCEL, LIMIT, MARKET, BookSample
from synth_pipeline.fidelity.order_book import STATISTICS
from synth_pipeline.rng import stream
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks.messages import books, of_store

SHOWN = 0
LEVELS = 10


class Market:
    """A book that orders act on at random: columns of messages and the book before each."""

    def __init__(self, seed: int, count: int, step_ns: int = 3_000_000) -> None:
        self.rng = stream(seed, "book")
        self.book = {(side, 1000 - side * (away + 1)): 10 for side in (1, -1) for away in range(14)}
        self.rows: list[tuple[int, ...]] = []
        self.books: list[dict[tuple[int, int], int]] = []
        self.time = 34_200 * 10**9
        self.step_ns = step_ns
        self.alive: list[tuple[int, int, int, int]] = []
        while len(self.rows) < count:
            self.act()

    def best(self, side: int) -> int:
        prices = [price for (own, price), size in self.book.items() if own == side and size > 0]
        return max(prices) if side > 0 else min(prices)

    def count(self, side: int) -> int:
        return sum(there > 0 for (own, _), there in self.book.items() if own == side)

    def act(self) -> None:
        self.time += int(self.rng.integers(0, self.step_ns))
        side, what, size = int(self.rng.choice((1, -1))), self.rng.random(), int(self.rng.integers(1, 12))
        if what < 0.55:
            price = self.best(-side) - side * int(self.rng.integers(1, 14))
            self.tell(LIMIT, side, price, size, len(self.rows) + 1)
            self.alive.append((side, price, size, len(self.rows)))
        elif what < 0.85 and self.alive:
            side, price, size, order = self.alive.pop(int(self.rng.integers(len(self.alive))))
            if self.book.get((side, price), 0) > size or (
                self.book.get((side, price), 0) == size and self.count(side) > 11
            ):
                self.tell(CANCEL, side, price, size, order)
        elif self.count(side) > 11:
            price = self.best(side)
            self.tell(MARKET, side, price, min(size, self.book[side, price]), 0)

    def tell(self, kind: int, side: int, price: int, size: int, order: int) -> None:
        self.books.append(dict(self.book))
        self.rows.append((self.time, kind, side, price, size, order))
        self.book[side, price] = self.book.get((side, price), 0) + (size if kind == LIMIT else -size)

    def ladder(self) -> np.ndarray:
        found = np.zeros((4, len(self.books), LEVELS), np.int64)
        for row, book in enumerate(self.books):
            for which, side in enumerate((1, -1)):
                prices = sorted((p for (own, p), size in book.items() if own == side and size > 0), reverse=side > 0)
                for level, price in enumerate(prices[:LEVELS]):
                    found[2 * which : 2 * which + 2, row, level] = price, book[side, price]
        return found

    def sample(self, levels: int = LEVELS) -> BookSample:
        columns = tuple(np.array(self.rows).T)
        return BookSample.of(columns, [(slice(0, len(self.rows)), self.ladder())], [0], levels)  # type: ignore[arg-type]

    def lobster(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Messages and books after them as frames, of messages within the ten best levels, but the last."""
        names = ("time", "kind", "side", "price", "size", "order")
        messages = pd.DataFrame(self.rows, columns=names)
        ladder = self.ladder()
        deepest = np.where(messages.side > 0, ladder[0, :, -1], -ladder[2, :, -1])
        is_full = np.where(messages.side > 0, ladder[1, :, -1], ladder[3, :, -1]) > 0
        kept = np.flatnonzero(~is_full | (messages.side * messages.price >= deepest))
        after = ladder[:, kept[1:]]
        books = {
            f"{name}{level}": after[which, :, level]
            for which, name in enumerate(("b", "B", "a", "A"))
            for level in range(LEVELS)
        }
        return messages.iloc[kept[:-1]].reset_index(drop=True), pd.DataFrame(books)


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(1, 3000, step_ns=300_000_000)


@pytest.fixture(scope="module")
def sample(market: Market) -> BookSample:
    return market.sample()


# --- statistics, said slowly with pandas


def slow(name: str, messages: pd.DataFrame, after: pd.DataFrame) -> np.ndarray:
    """Every statistic by its definition, message by message."""
    mid = (after.a0 + after.b0) / 2
    simple: dict[str, Callable[[], Iterable[float]]] = {
        "spread": lambda: after.a0 - after.b0,
        "orderbook_imbalance": lambda: (after.B0 - after.A0) / (after.B0 + after.A0),
        "log_inter_arrival_time": lambda: [math.log(max(wait / 1e6, 1e-9)) for wait in messages.time.diff().iloc[1:]],
        "log_time_to_cancel": lambda: [*_lives(messages)],
        "ask_volume_touch": lambda: after.A0,
        "bid_volume_touch": lambda: after.B0,
    }
    if name in simple:
        return np.array(simple[name]())
    if name in ("ask_volume", "bid_volume"):
        return np.array(
            after[[f"{'A' if name.startswith('ask') else 'B'}{level}" for level in range(LEVELS)]].sum(axis=1)
        )
    if "depth" in name:
        chosen = (messages.kind == (LIMIT if "limit" in name else CANCEL)) & (
            messages.side == (-1 if "ask" in name else 1)
        )
        return np.array(((mid - messages.price) * messages.side)[chosen])
    if "levels" in name:
        return np.array([*_levels(name, messages, after)])
    if name == "vol_per_min":
        trades = messages[messages.kind == MARKET]
        whole = (messages.time // 10**9).between(
            messages.time.iloc[0] // 10**9 + 1, messages.time.iloc[-1] // 10**9 - 1
        )
        trades = trades[whole[trades.index]]
        return np.array(trades.groupby(trades.time // 10**9)["size"].sum() * 60)
    flow = pd.Series([0.0, *_flows(after)]).rolling(100).mean()
    flow.iloc[:100] = np.nan
    if name == "ofi":
        return np.array(flow.dropna())
    sign = {"ofi_up": 1, "ofi_stay": 0, "ofi_down": -1}[name]
    return np.array(flow.shift(1)[np.sign(mid.diff()) == sign].dropna())


def _lives(messages: pd.DataFrame) -> Iterator[float]:
    orders = messages[messages.kind.isin((LIMIT, CANCEL)) & (messages.order > 0)]
    for _, rows in orders.groupby("order"):
        if len(rows) > 1 and rows.kind.iloc[0] == LIMIT and rows.kind.iloc[1] == CANCEL:
            yield math.log(max((rows.time.iloc[1] - rows.time.iloc[0]) / 1e9, 1e-9))


def _levels(name: str, messages: pd.DataFrame, after: pd.DataFrame) -> Iterator[int]:
    """The place of the price among the prices of the book after (placed) or before (cancelled)."""
    side, letter = (-1, "a") if "ask" in name else (1, "b")
    for row in range(1, len(messages)):
        message = messages.iloc[row]
        if message.side == side and message.kind == (LIMIT if "limit" in name else CANCEL):
            book = after.iloc[row if "limit" in name else row - 1]
            yield 1 + [book[f"{letter}{level}"] for level in range(LEVELS)].index(message.price)


def _flows(after: pd.DataFrame) -> Iterator[float]:
    for row in range(1, len(after)):
        new, old = after.iloc[row], after.iloc[row - 1]
        yield float(
            (new.b0 >= old.b0) * new.B0 - (new.b0 <= old.b0) * old.B0
            - (new.a0 <= old.a0) * new.A0 + (new.a0 >= old.a0) * old.A0
        )  # fmt: skip


UNCONDITIONAL = [name for name in STATISTICS if "_given_" not in name]


def test_there_are_all_statistics() -> None:
    assert len(UNCONDITIONAL) == 21
    assert len(STATISTICS) == 24
    assert len(impact.IMPACT) == 6
    discrete = {name for name in UNCONDITIONAL if STATISTICS[name].discrete}
    assert discrete == {"spread", *(name for name in UNCONDITIONAL if name.endswith("_levels"))}
    for each in STATISTICS.values():
        assert (each.goal, each.minimum, bool(each.citation), bool(each.what), bool(each.meaning)) == (
            "low",
            100,
            *[True] * 3,
        )


@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_statistics_are_what_their_definitions_say(name: str, market: Market, sample: BookSample) -> None:
    expected = slow(name, *market.lobster())
    values = STATISTICS[name].values(sample)
    if "levels" in name:
        # The slow one needs a row before.
        values = values[values.size - expected.size :]
    if name == "log_time_to_cancel":
        values, expected = np.sort(values), np.sort(expected)
    assert expected.size > 50
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_what_a_source_does_not_show_is_absent_with_its_reason(market: Market, sample: BookSample) -> None:
    touch = market.sample(levels=1)
    for name, reason in (("ask_volume", "shows 1"), ("limit_ask_order_levels", "shows")):
        with pytest.raises(MetricError, match=reason):
            STATISTICS[name].values(touch)
    anonymous = replace(sample, order_id=np.zeros(len(sample), np.int64))
    with pytest.raises(MetricError, match="order ids"):
        STATISTICS["log_time_to_cancel"].values(anonymous)
    rows = book_comparison.compare(touch, touch, rng=stream(0, "c")).rows
    hidden = {row.name for row in rows if "the source shows" in row.reason}
    assert hidden == {"ask_volume", "bid_volume", *(name for name in UNCONDITIONAL if name.endswith("_levels"))}
    assert all(bool(row.reason) == (row.l1 is None) for row in rows)


def test_too_few_values_are_no_statistic(sample: BookSample) -> None:
    with pytest.raises(MetricError, match="needs 100 values"):
        STATISTICS["spread"].compare(sample, sample.rows(slice(0, 50)), rng=stream(0, "c"))


def test_gaps_are_not_bridged(market: Market) -> None:
    columns = tuple(np.array(market.rows).T)
    whole, middle = market.sample(), len(market.rows) // 2
    cut = BookSample.of(columns, [(slice(0, len(market.rows)), market.ladder())], [0, middle])  # type: ignore[arg-type]
    assert len(cut) == len(whole) - 1
    assert STATISTICS["ofi"].values(cut).size <= STATISTICS["ofi"].values(whole).size - 100
    waits = STATISTICS["log_inter_arrival_time"]
    assert waits.values(cut).size == len(cut) - 2


def test_levels_in_sight_move_the_book_but_are_no_messages(market: Market) -> None:
    columns, ladder = np.array(market.rows).T.copy(), market.ladder()
    columns[1, 100] = SHOWN
    found = BookSample.of(tuple(columns), [(slice(0, len(ladder[0])), ladder)], [0])  # type: ignore[arg-type]
    assert SHOWN not in found.kind
    at = int(np.searchsorted(found.time_ns, columns[0, 99], side="right")) - 1
    assert found.touch[:, at].tolist() == ladder[:, 101, 0].tolist() or columns[0, 99] == columns[0, 100]


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(TooLittleDataError, match="0 messages"):
        BookSample.of(tuple(np.zeros((6, 0))), [], [0])  # type: ignore[arg-type]


# --- distances


values = st.lists(st.integers(-50, 50), min_size=2, max_size=200).map(lambda row: np.array(row, np.float64))


@settings(max_examples=60)
@given(first=values, second=values)
def test_distances_agree_with_other_peoples(first: np.ndarray, second: np.ndarray) -> None:
    pooled = np.concatenate((first, second))
    if np.ptp(pooled) > 0:
        expected = stats.wasserstein_distance(first / pooled.std(ddof=1), second / pooled.std(ddof=1))
        assert book_scores.wasserstein(first, second) == pytest.approx(expected, abs=1e-12)
    points = np.unique(pooled)
    shares = [np.array([(side == point).mean() for point in points]) for side in (first, second)]
    assert book_scores.total_variation(first, second, discrete=True) == pytest.approx(
        np.abs(shares[0] - shares[1]).sum() / 2
    )
    low, high = np.percentile(pooled, [25, 75])
    if high > low:
        edges = np.histogram_bin_edges(pooled.astype(np.float64), bins="fd")
        counts = [np.histogram(side, edges)[0] / side.size for side in (first, second)]
        expected = np.abs(counts[0] - counts[1]).sum() / 2
        # A value on an edge may fall on either side of it, by rounding.
        on_edges = np.isclose(pooled[:, np.newaxis], edges[1:-1]).any(axis=1).mean()
        assert abs(book_scores.total_variation(first, second, discrete=False) - expected) <= 2 * on_edges + 1e-12


@settings(max_examples=40)
@given(first=values, second=values, third=values)
def test_total_variation_of_values_is_a_metric(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> None:
    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return book_scores.total_variation(one, other, discrete=True)

    assert apart(first, first) == 0.0
    assert apart(first, second) == pytest.approx(apart(second, first))
    assert 0.0 <= apart(first, second) <= 1.0
    assert apart(first, third) <= apart(first, second) + apart(second, third) + 1e-12


def test_an_atom_does_not_hide_the_rest() -> None:
    first = np.concatenate((np.zeros(700), np.linspace(1, 2, 300)))
    second = np.concatenate((np.zeros(700), np.linspace(5, 6, 300)))
    assert book_scores.total_variation(first, second, discrete=False) == pytest.approx(0.3)
    assert book_scores.total_variation(first, np.zeros(1000), discrete=False) == pytest.approx(0.3)


def test_a_value_far_out_takes_no_memory() -> None:
    first = np.append(np.linspace(0, 1, 1000), 1e12)
    assert book_scores.total_variation(first, first[:-1], discrete=False) == pytest.approx(1 / 1001, rel=1e-3)


@pytest.mark.parametrize(("first", "second"), [(np.ones(5), np.ones(7)), (np.empty(0), np.ones(3))])
def test_what_has_no_scale_or_no_value_has_no_distance(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(MetricError):
        book_scores.wasserstein(first, second)


def test_intervals_hold_the_value_and_blocks_widen_them() -> None:
    rng = stream(3, "interval")
    noise = rng.standard_normal((2, 4000))
    for row in noise:
        for at in range(1, row.size):
            row[at] = 0.98 * row[at - 1] + 0.2 * row[at]
    placed = book_scores.ranks(noise[0], noise[1])
    lengths = tuple(book_scores.block_length(row) for row in noise)
    assert min(lengths) > 20
    score = book_scores.scored(placed, lengths, rng=rng)  # type: ignore[arg-type]
    assert score.value == pytest.approx(book_scores.wasserstein(noise[0], noise[1]))
    assert score.interval[1] - score.interval[0] > 2 * (score.published_interval[1] - score.published_interval[0])
    again = book_scores.scored(placed, (1.0, 1.0), rng=rng)
    assert again.interval == pytest.approx(again.published_interval, rel=0.35)


# --- conditions


def test_a_condition_that_one_sample_lacks_counts_as_wholly_different() -> None:
    first, second = np.array([1.0, 2.0, 1.0, 2.0]), np.array([1.0, 2.0])
    placed = book_scores.grouped(
        first, second, np.array([0.0, 0.0, 1.0, 1.0]), np.zeros(2), lambda a, b: book_scores.bins(a, b, discrete=True)
    )
    assert book_scores.distance(placed) == pytest.approx(2 / 6)


def test_conditional_distances_are_weighted_means_of_their_groups(sample: BookSample) -> None:
    other = Market(2, 3000).sample()
    found = STATISTICS["ask_volume_given_spread"].compare(sample, other, rng=stream(0, "c"))
    spreads = [order_book.spread.values(each) for each in (sample, other)]
    sizes = [order_book.ask_volume_touch.values(each) for each in (sample, other)]
    totals = np.zeros(2)
    for value in np.unique(np.concatenate(spreads)):
        groups = [size[spread == value] for size, spread in zip(sizes, spreads, strict=True)]
        weight = sum(group.size for group in groups) / sum(size.size for size in sizes)
        if not min(group.size for group in groups):
            totals[0] += weight
        elif np.ptp(np.concatenate(groups)) > 0:
            totals += weight * np.array(
                [book_scores.total_variation(*groups, discrete=False), book_scores.wasserstein(*groups)]
            )
    assert [score.value for score in found] == pytest.approx(totals.tolist())


def test_the_hour_is_compared_where_both_samples_have_it(sample: BookSample) -> None:
    later = replace(sample, time_ns=sample.time_ns + 5 * 3600 * 10**9)
    with pytest.raises(MetricError, match="no condition in common"):
        STATISTICS["spread_given_hour"].compare(sample, later, rng=stream(0, "c"))
    assert STATISTICS["spread_given_hour"].compare(sample, sample, rng=stream(0, "c"))[0].value == 0.0


# --- impact


@pytest.mark.parametrize("name", impact.IMPACT)
def test_responses_are_averages_over_messages(name: str, sample: BookSample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impact, "MINIMUM", 1)
    kind = {"market": MARKET, "limit": LIMIT, "cancel": CANCEL}[name.split("_")[1]]
    response = impact.IMPACT[name].response(sample)
    for place in (0, 5, 12):
        lag, changes = int(impact.LAGS[place]), []
        for row in range(1, len(sample) - lag + 1):
            before, after = sample.mid[row - 1], sample.mid[row]
            if sample.kind[row] == kind and sample.level[row] == 1 and (before != after) == name.endswith("moving"):
                up = sample.side[row] if kind == LIMIT else -sample.side[row]
                changes.append((sample.mid[row + lag - 1] - before) * up)
        assert response[place] == pytest.approx(np.mean(changes))
    assert impact.IMPACT[name].compare(sample, sample) == 0.0


def test_a_message_that_moves_the_mid_is_felt_at_once(sample: BookSample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impact, "MINIMUM", 1)
    for name in impact.IMPACT:
        first = impact.IMPACT[name].response(sample)[0]
        assert first > 0.0 if name.endswith("moving") else first == 0.0


# --- the table


def test_the_same_market_scores_better_than_another(sample: BookSample) -> None:
    alike, other = (Market(seed, 3000, step_ns=step).sample() for seed, step in ((5, 300_000_000), (6, 3_000_000)))
    near = book_comparison.compare(sample, alike, rng=stream(0, "c"), floor=book_comparison.halves(sample))
    far = book_comparison.compare(sample, other, rng=stream(0, "c"))
    by_name = {row.name: row for row in far.rows}
    assert near.mean("l1") < far.mean("l1")
    waits = by_name["log_inter_arrival_time"].l1
    assert waits is not None
    assert waits.value > 0.5
    assert 0.0 < near.floor_mean("l1") < 0.5
    assert math.isnan(far.floor_mean("l1"))
    scores = sorted(row.l1.value for row in near.rows[:21] if row.l1)
    assert near.median("l1") == pytest.approx(np.median(scores))
    assert near.interquartile_mean("l1") == pytest.approx(np.mean(scores[len(scores) // 4 : -(len(scores) // 4)]))


def test_the_same_seed_gives_the_same_table(sample: BookSample) -> None:
    tables = [book_comparison.compare(sample, Market(5, 2000).sample(), rng=stream(0, "c")) for _ in range(2)]
    assert tables[0] == tables[1]


def test_divergence_looks_at_the_blocks_of_the_horizon(sample: BookSample) -> None:
    paths = [sample.rows(slice(start, start + 300)) for start in range(0, 2400, 300)]
    found = book_comparison.divergence(sample, paths, 4)
    assert found["spread"].shape == (4,)
    assert np.isfinite(found["spread"][:3]).all()
    assert np.isnan(found["spread"][3])
    first = np.concatenate([order_book.spread.values(path.rows(slice(0, 100))) for path in paths])
    assert found["spread"][0] == book_scores.total_variation(order_book.spread.values(sample), first, discrete=True)


# --- real data


def test_halves_of_a_real_day_are_as_far_apart_as_measured_elsewhere(
    real: Callable[[str], Path], workspace: Workspace
) -> None:
    """Measured elsewhere on this file: L1 .145 and Wasserstein .243, with statistics of one level counted as 0."""
    file = real("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip")
    instrument = stages.identify([file], None, None)
    for verb in (lambda *cell: stages.record(workspace, *cell, [file]), lambda *cell: stages.ingest(workspace, *cell)):
        verb(instrument, date(2012, 6, 21))
    messages = of_store(workspace.settings.home, instrument, "2012-06-21T00:00", "2012-06-22T00:00")
    columns = (messages.time_ns, messages.kind, messages.side, messages.price, messages.size, messages.order_id)
    sample = BookSample.of(columns, books(messages, 1), messages.opens, 1)
    found = book_comparison.compare(*book_comparison.halves(sample), rng=stream(0, "halves"))
    assert sum(row.l1 is not None for row in found.rows[:21]) == 15
    assert found.mean("l1") == pytest.approx(0.145, abs=0.03)
    assert found.mean("wasserstein") == pytest.approx(0.243, abs=0.05)
