"""The quick way and the plain one give the same bytes, whatever is wrong with a stream and wherever blocks begin."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline import plugins, venues
from synth_pipeline.archives.rawlog import Record
from synth_pipeline.rng import stream
from synth_pipeline.ticks import ingest, sequence
from synth_pipeline.ticks import scan_kernels as columns
from synth_pipeline.ticks.assemble import Known
from synth_pipeline.ticks.scan import Names
from synth_pipeline.venues import Head, Venue
from tests import naive_ticks, wire
from tests.ingested import Ingested, ingest_day
from tests.wire import START_NS

Frames = list[tuple[int, bytes]]
VENUES = {"binance_usdm": "BTCUSDT", "binance_spot": "BTCUSDT", "binance_coinm": "BTCUSD_PERP"}


class _Nothing(Names):
    """Names of nothing: every message goes through the parser and the assembler."""

    def __init__(self, _: Venue, symbol: str) -> None:
        super().__init__(plugins.load(venues, "bybit_spot")(), symbol)


def _plainly(frames: Frames, venue: str, **options: Any) -> Ingested:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "Names", _Nothing)
        return _ingested(frames, venue, **options)


def _ingested(frames: Frames, venue: str, **options: Any) -> Ingested:
    records = [Record(START_NS + at, payload) for at, payload in frames]
    return ingest_day(records, venue, VENUES[venue], day_start=START_NS, **options)


def _market(venue: str, events: int, seed: int) -> Frames:
    """A small market of any segment: updates, quotes and trades in turn, a snapshot among the first."""
    rng, symbol = stream(seed, "faults"), VENUES[venue]
    marks = {"binance_usdm": {}, "binance_spot": {}, "binance_coinm": {"ps": "BTCUSD"}}[venue]
    times = {} if venue == "binance_spot" else {"T": 1_700_006_400_101, "E": 1_700_006_400_105}
    event = {"e": "trade", "s": symbol, "T": 1_700_006_400_101}
    frames: Frames = []

    def side(middle: int) -> list[tuple[str, str]]:
        count = int(rng.integers(0, 4))
        return [(f"{middle + int(rng.integers(9)):.1f}", f"{rng.integers(0, 3)}.250") for _ in range(count)]

    last, number = 100, 1
    for turn in range(events):
        at, choice = turn * 20_000_000, rng.integers(3)
        if turn == events // 10:
            frames.append((at, wire.snapshot(last + int(rng.integers(-3, 1)), [*side(90), ("99.0", "1")], side(101))))
        if choice == 0:
            first, previous = last + 1, {} if venue == "binance_spot" else {"pu": last}
            last = first + int(rng.integers(0, 3))
            data = {"e": "depthUpdate", "s": symbol, "U": first, "u": last} | marks | times | previous
            frames.append((at, _wrapped("depth@100ms", symbol, data | {"b": side(90), "a": side(101)})))
        elif choice == 1:
            data = ({} if venue == "binance_spot" else {"e": "bookTicker"}) | {"u": last + turn, "s": symbol} | marks
            touch = {"b": f"{90 + turn % 9}.0", "B": "1.250", "a": "101.5", "A": "2"}
            frames.append((at, _wrapped("bookTicker", symbol, data | touch | times)))
        else:
            traded = {"t": number, "p": f"{95 + turn % 9}.5", "q": "0.250", "m": bool(turn % 2)}
            kind = {"M": True} if venue == "binance_spot" else {"X": "MARKET" if turn % 7 else "INSURANCE_FUND"}
            frames.append((at, _wrapped("trade", symbol, event | traded | kind)))
            number += 1
    return frames


def _wrapped(name: str, symbol: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": f"{symbol.lower()}@{name}", "data": data}, separators=(",", ":")).encode()


def _drop(frames: Frames, at: int, size: int) -> None:
    del frames[at : at + 1 + size // 8]


def _repeat(frames: Frames, at: int, size: int) -> None:
    frames.insert(min(at + size, len(frames)), frames[at])


def _swap(frames: Frames, at: int, size: int) -> None:
    other = min(at + size, len(frames) - 1)
    (early, first), (late, second) = frames[at], frames[other]
    frames[at], frames[other] = (early, second), (late, first)


def _delay(frames: Frames, at: int, size: int) -> None:
    _, payload = frames.pop(at)
    other = min(at + size, len(frames) - 1)
    frames.insert(other, (frames[other][0], payload))


def _snapshot(frames: Frames, at: int, size: int) -> None:
    frames.insert(at, (frames[at][0], wire.snapshot(100 + 2 * at // 3 + size, [("99.0", "2")], [("102.0", "2")])))


def _cut(frames: Frames, at: int, size: int) -> None:
    frames[at] = (frames[at][0], frames[at][1][:-size])


def _corrupt(frames: Frames, at: int, size: int) -> None:
    payload = frames[at][1]
    place = (7 * size * at) % len(payload)
    frames[at] = (frames[at][0], payload[:place] + b'x1"-'[size % 4 : size % 4 + 1] + payload[place + 1 :])


def _leap(frames: Frames, at: int, size: int) -> None:
    """An id far off: the last digits of each number repeated."""
    frames[at] = (
        frames[at][0],
        frames[at][1].replace(b'"u":', b'"u":99999999999999').replace(b'"t":', b'"t":9999999999999'),
    )


def _step_clock(frames: Frames, at: int, size: int) -> None:
    stepped = [(time - size * 50_000_000, payload) for time, payload in frames[at : at + size]]
    frames[at : at + size] = [(max(time, 0), payload) for time, payload in stepped]


def _fall_silent(frames: Frames, at: int, size: int) -> None:
    frames[at:] = [(time + 70_000_000_000, payload) for time, payload in frames[at:]]


def _mix_in(frames: Frames, at: int, size: int) -> None:
    other = frames[at][1].replace(b"BTCUSD", b"ETHUSD").replace(b"btcusd", b"ethusd")
    frames[at:at] = [(frames[at][0], other)] * size


def _move_off_grid(frames: Frames, at: int, size: int) -> None:
    frames[at] = (frames[at][0], frames[at][1].replace(b'.5"', b'.503"').replace(b'[["9', b'[["9.00000001","1"],["9'))


def _add_unused(frames: Frames, at: int, size: int) -> None:
    kinds = (
        b'{"stream":"btcusdt@aggTrade","data":{"a":1,"p":"1.5"}}',
        b'{"result":null,"id":1}',
        b'{"stream":"x","data":{}}',
    )
    frames.insert(at, (frames[at][0], kinds[size % 3]))


FAULTS: list[Callable[[Frames, int, int], None]] = [
    _drop, _repeat, _swap, _delay, _snapshot, _cut, _corrupt, _leap, _step_clock, _fall_silent, _mix_in, _move_off_grid,
    _add_unused,
]  # fmt: skip
faults = st.lists(st.tuples(st.sampled_from(FAULTS), st.floats(0, 0.999), st.integers(1, 40)), max_size=8)


def _faulty(venue: str, wanted: list[tuple[Callable[[Frames, int, int], None], float, int]], seed: int) -> Frames:
    frames = _market(venue, 150, seed)
    for fault, where, size in wanted:
        fault(frames, int(where * len(frames)), size)
    return frames


def _assert_same(one: Ingested, other: Ingested) -> None:
    assert one.counts == other.counts
    assert one.ticks.coverage == other.ticks.coverage
    assert one.ticks.close_update_id == other.ticks.close_update_id
    assert one.content == other.content


@settings(max_examples=200)
@given(st.sampled_from(sorted(VENUES)), faults, st.integers(0, 3), st.sampled_from([1, 5, 10**6]))
def test_faults_are_met_the_same_way_by_the_quick_path_and_the_plain_one(
    venue: str, wanted: list[Any], seed: int, frame_records: int
) -> None:
    frames = _faulty(venue, wanted, seed)
    _assert_same(_ingested(frames, venue, block_bytes=3000, frame_records=frame_records), _plainly(frames, venue))


def test_the_quick_path_is_taken_where_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    venue = plugins.load(venues, "binance_usdm")
    parse = venue.parse
    monkeypatch.setattr(venue, "parse", lambda self, payload, at: (parsed.append(payload), parse(self, payload, at))[1])
    frames = _market("binance_usdm", 2000, 0)
    _ingested(frames, "binance_usdm")
    waiting = [payload for _, payload in frames[:200] if b"depthUpdate" in payload]
    assert set(parsed) <= {payload for _, payload in frames if b"lastUpdateId" in payload} | set(waiting)


heads = st.lists(
    st.builds(
        lambda stream, first, width, back: Head("S", stream, first, first + width, first - 1 - back),
        st.sampled_from(["book_levels", "quotes", "trades"]),
        st.integers(5, 12) | st.just(10**13),
        st.integers(0, 2),
        st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=12,
)
ids = st.none() | st.integers(3, 9)


@settings(max_examples=1000)
@given(st.sampled_from(["binance_usdm", "binance_spot"]), heads, ids, st.booleans(), ids, ids, ids)
def test_how_far_a_block_is_in_order_equals_the_rule_asked_one_by_one(
    name: str,
    events: list[Head],
    book: int | None,
    bridging: bool,
    before_gap: int | None,
    quote: int | None,
    trade: int | None,
) -> None:
    rule = plugins.load(venues, name)().sequence_rule()
    before_gap = before_gap if book is None else None
    if book is not None:
        (rule.snapshot if bridging else rule.resume)(book)
    known = Known(*(-1 if each is None else each for each in (book, rule.bridging, before_gap, quote, trade)))
    records = np.zeros((len(events), columns.WIDTH), dtype=np.int64)
    codes = {"book_levels": columns.DEPTH, "quotes": columns.QUOTE, "trades": columns.TRADE}
    for row, event in zip(records, events, strict=True):
        row[columns.CODE], row[columns.ID] = codes[event.stream], event.last_id
        row[columns.FIRST_ID], row[columns.PREVIOUS_ID] = event.first_id, event.previous_id
    reached, found, applied, _, last_trade = sequence.in_order(records, 0, sequence.rule_number(rule), known)
    expected, waiting = naive_ticks.in_order(events, rule, before_gap, quote, trade)
    assert (reached, np.flatnonzero(records[:, columns.CODE] == sequence.WAITING).tolist()) == (expected, waiting)
    assert (found.book_id, found.bridging) == (-1 if rule.last_id is None else rule.last_id, rule.bridging)
    kinds = [event.stream for event in events[:reached]]
    assert applied == kinds.count("book_levels") - len(waiting)
    assert last_trade == max((number for number, kind in enumerate(kinds) if kind == "trades"), default=-1)
