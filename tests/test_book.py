"""The rebuilt book equals a plain dictionary after every event."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.rng import stream
from synth_pipeline.schema import Flag
from synth_pipeline.ticks import book, quality
from synth_pipeline.ticks.quality import book_ticker_agreement
from tests import naive

sides, sizes = st.sampled_from([1, -1]), st.integers(0, 9)
near = st.integers(1, 40)
anywhere = st.builds(
    int.__add__, st.sampled_from([0, 64, 16_000, 49_000, 65_500, 131_000, 10**6, 2**40, 2**63 - 42]), near
)
"""Prices around which the window must be laid anew, up to the largest that there are."""


def _events(prices: st.SearchStrategy[int]) -> st.SearchStrategy[list[Any]]:
    changes = st.lists(st.tuples(sides, prices, sizes), min_size=1, max_size=25)
    return st.lists(st.tuples(st.booleans(), changes), min_size=1, max_size=40)


events = _events(near) | _events(anywhere)


def _rows(events: list[tuple[bool, list[tuple[int, int, int]]]]) -> dict[str, np.ndarray]:
    def flat() -> Iterator[tuple[int, int, int, int, int, int]]:
        for number, (is_snapshot, levels) in enumerate(events):
            for index, (side, price, size) in enumerate(levels):
                flags = (Flag.SNAPSHOT if is_snapshot else 0) | (Flag.LAST if index == len(levels) - 1 else 0)
                yield number, number + 7, side, price, max(size, 1) if is_snapshot else size, flags

    names = ("recv_ns", "update_id", "side", "price", "size", "flags")
    rows = {name: np.array(values) for name, values in zip(names, zip(*flat(), strict=True), strict=True)}
    return rows | {"event_ns": rows["recv_ns"] - 1, "seq": rows["recv_ns"], "flags": rows["flags"].astype(np.uint8)}


@settings(max_examples=200)
@given(events)
def test_replay_equals_the_dictionary(wanted: list[Any]) -> None:
    rows = _rows(wanted)
    found = book.replay(rows)
    expected = list(naive.replay_book(rows))
    assert found.top.tolist() == [top for top, _ in expected]
    assert found.depth.tolist() == [depth for _, depth in expected]
    assert found.update_id.tolist() == [number + 7 for number in range(len(wanted))]
    assert book.Book().feed(rows).top.tolist() == found.top.tolist()
    left = _left(wanted)
    assert found.bids.tolist() == sorted(map(list, left[1].items()))
    assert found.asks.tolist() == sorted(map(list, left[-1].items()), reverse=True)


def _left(events: list[Any]) -> dict[int, dict[int, int]]:
    """All levels after the last event."""
    sides: dict[int, dict[int, int]] = {1: {}, -1: {}}
    for is_snapshot, levels in events:
        sides = {1: {}, -1: {}} if is_snapshot else sides
        for side, price, size in levels:
            sides[side] |= {price: max(size, is_snapshot)}
    return {side: {price: size for price, size in levels.items() if size} for side, levels in sides.items()}


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([1, 40, 3000, 20_000, 70_000]), st.integers(1, 500))
def test_a_market_that_drifts_equals_the_dictionary(seed: int, stride: int, width: int) -> None:
    """Hundreds of levels under a touch that wanders, leaps and comes back, the sides empty now and then."""
    rng = stream(seed, "book")
    touch, wanted = 10**7, []
    for _ in range(60):
        touch = max(touch + int(rng.integers(-stride, stride + 1)), 1000)
        away, side = rng.integers(0, width, 20), rng.choice([1, -1], 20)
        size = rng.integers(0, 9, 20) * (rng.random() < 0.95)
        levels = [(int(s), int(touch - s * a), int(q)) for s, a, q in zip(side, away, size, strict=True)]
        wanted.append((bool(rng.random() < 0.02), levels))
    rows = _rows(wanted)
    found, expected = book.replay(rows), list(naive.replay_book(rows))
    assert found.top.tolist() == [top for top, _ in expected]
    assert found.depth.tolist() == [depth for _, depth in expected]
    assert found.bids.tolist() == sorted(map(list, _left(wanted)[1].items()))


@given(events, st.lists(st.integers(0, 200), max_size=4), st.booleans())
def test_a_book_fed_in_pieces_is_the_same_book(wanted: list[Any], cuts: list[int], gap: bool) -> None:
    rows = _rows(wanted)
    rows["flags"] = rows["flags"] | np.where(np.arange(len(rows["flags"])) % 7 == 0, Flag.BAD_CLOCK, 0).astype(np.uint8)
    whole, fed = book.replay(rows), book.Book()
    pieces = [fed.feed(part, book.DEPTH) for part in _cut(rows, sorted(cuts))]
    for name in ("recv_ns", "update_id", "flags", "top", "depth"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        assert joined.tolist() == getattr(whole, name).tolist(), name
    assert (fed.bids.tolist(), fed.asks.tolist()) == (whole.bids.tolist(), whole.asks.tolist())
    quotes, top = [], None
    for piece in pieces:
        quotes.append(book.quotes_of(piece, top)["seq"])
        top = piece.top[-1] if len(piece.top) else top
    assert np.concatenate(quotes).tolist() == book.quotes_of(whole)["seq"].tolist()
    recorded = {name: values[:0] if gap else values for name, values in _as_quotes(whole).items()}
    assert book_ticker_agreement(pieces, [recorded]) == book_ticker_agreement([whole], _cut(recorded, sorted(cuts)))


def _cut(rows: dict[str, np.ndarray], cuts: list[int]) -> list[dict[str, np.ndarray]]:
    parts = {name: np.split(values, cuts) for name, values in rows.items()}
    return [{name: values[number] for name, values in parts.items()} for number in range(len(cuts) + 1)]


def _as_quotes(replay: book.Replay) -> dict[str, np.ndarray]:
    """Every second event's top as a recorded quote, one size off in some."""
    rows = {name: replay.top[::2, column] for column, name in enumerate(quality._TOP)}
    return rows | {"update_id": replay.update_id[::2], "bid_size": rows["bid_size"] + (rows["bid_size"] == 3)}


def test_more_levels_than_the_first_allocation() -> None:
    count = 5000
    rows = _rows([(True, [(1, price, 1) for price in range(1, count + 1)]), (False, [(1, count, 0)])])
    found = book.replay(rows)
    assert len(found.bids) == count - 1
    assert found.top[:, 0].tolist() == [count, count - 1]
    assert found.depth[:, 0].tolist() == [10, 10]


def test_crossed_counts_events_not_levels() -> None:
    rows = _rows(
        [(True, [(1, 10, 1), (-1, 11, 1)]), (False, [(1, 11, 4), (1, 12, 4)]), (False, [(1, 11, 0), (1, 12, 0)])]
    )
    assert book.replay(rows).crossed == 1


def test_quotes_of_keeps_changes_of_the_top_and_every_full_book() -> None:
    full = (True, [(1, 10, 1), (-1, 12, 1)])
    quotes = book.quotes_of(
        book.replay(_rows([full, (False, [(1, 9, 5)]), (False, [(1, 11, 2)]), (False, [(1, 11, 0)]), full]))
    )
    assert quotes["bid_price"].tolist() == [10, 11, 10, 10]
    assert quotes["recv_ns"].tolist() == [0, 2, 3, 4]
    assert ((quotes["flags"] & Flag.SNAPSHOT) > 0).tolist() == [True, False, False, True]


def test_agreement_needs_all_four_numbers() -> None:
    found = book.replay(_rows([(True, [(1, 10, 1), (-1, 12, 1)]), (False, [(1, 10, 5)])]))
    quotes = {
        "update_id": np.array([7, 8, 9]),
        "bid_price": np.array([10, 10, 1]),
        "bid_size": np.array([1, 4, 1]),
        "ask_price": np.array([12, 12, 1]),
        "ask_size": np.array([1, 1, 1]),
    }
    agreement = book_ticker_agreement([found], [quotes])
    assert agreement == (2, 1)
    assert agreement.share == 0.5
    assert book_ticker_agreement([found], []).share is None
