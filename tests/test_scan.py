"""The byte scanner reads what it takes exactly as the plain parser does, and takes the venues' documented forms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import plugins, venues
from synth_pipeline.archives.rawlog import Kind, Record, pack
from synth_pipeline.errors import InputError
from synth_pipeline.rng import stream
from synth_pipeline.ticks import scan_kernels as columns
from synth_pipeline.ticks.scan import Block, Names, Scanner
from synth_pipeline.venues import Venue
from tests import naive_ticks, wire

RECEIVED_NS = 1_700_006_400_000_000_000
_DEPTH = {"e": "depthUpdate", "E": 1700000000105, "T": 1700000000101, "s": "BTCUSDT", "U": 5, "u": 9}
_LEVELS: dict[str, Any] = {"b": [["37000.10", "0.250"], ["36999.90", "0.000"]], "a": [["37000.20", "12"]]}
_TICKER = {"u": 9, "s": "BTCUSDT", "b": "37000.10", "B": "0.250", "a": "37000.20", "A": "1.000"}
_TRADE = {"e": "trade", "E": 1700000000107, "s": "BTCUSDT", "t": 71, "p": "37000.3", "q": "0.01"}
FORMS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "binance_spot": [
        ("depth@100ms", {k: v for k, v in _DEPTH.items() if k != "T"} | _LEVELS),
        ("bookTicker", _TICKER),
        ("trade", _TRADE | {"T": 1700000000106, "m": True, "M": True}),
        ("aggTrade", _TRADE | {"e": "aggTrade", "a": 26129, "f": 100, "l": 105, "T": 1700000000106, "m": True}),
    ],
    "binance_usdm": [
        ("depth@0ms", _DEPTH | {"pu": 3} | _LEVELS),
        ("depth", _DEPTH | {"pu": 3, "b": [], "a": []}),
        ("bookTicker", {"e": "bookTicker"} | _TICKER | {"T": 1700000000101123, "E": 1700000000105456}),
        ("trade", _TRADE | {"T": 1700000000106, "X": "MARKET", "m": False}),
        ("trade", _TRADE | {"T": 1700000000106, "X": "INSURANCE_FUND", "m": True}),
        ("markPrice@1s", {"e": "markPriceUpdate", "E": 1, "s": "BTCUSDT", "p": "37000.12345678", "r": "-0.01", "T": 2}),
    ],
    "binance_coinm": [
        ("depth@0ms", {"e": "depthUpdate", "s": "BTCUSD_PERP", "ps": "BTCUSD", "U": 5, "u": 9, "pu": 3} | _LEVELS),
        ("bookTicker", {"u": 9, "e": "bookTicker"} | _TICKER | {"s": "BTCUSD_PERP", "ps": "BTCUSD", "T": 1, "E": 2}),
        ("trade", _TRADE | {"s": "BTCUSD_PERP", "T": 1700000000106, "X": "MARKET", "m": False}),
    ],
}


def _payload(venue: str, name: str, data: dict[str, Any], *, bare: bool = False) -> bytes:
    symbol = _symbol(venue).lower()
    return json.dumps(data if bare else {"stream": f"{symbol}@{name}", "data": data}, separators=(",", ":")).encode()


def _symbol(venue: str) -> str:
    return "BTCUSD_PERP" if venue == "binance_coinm" else "BTCUSDT"


def _scan(venue: Venue, symbol: str, payloads: list[bytes]) -> Block:
    names = Names(venue, symbol)
    names.learn_symbol("ETHUSDT")
    return Scanner(names).scan([pack(Record(RECEIVED_NS, payload)) for payload in payloads])


def _taken(block: Block, record: int) -> tuple[Any, ...] | None:
    """One record in the words of the naive twin, None where it was refused."""
    row = block.records[record].tolist()
    match row[columns.CODE]:
        case columns.DEPTH:
            first, count = row[columns.FIRST_LEVEL], row[columns.BIDS] + row[columns.ASKS]
            levels = [tuple(level) for level in block.levels[first : first + count].tolist()]
            return ("depth", *row[columns.EVENT_NS : columns.PREVIOUS_ID + 1], *row[11:13], levels)
        case columns.QUOTE:
            return ("quote", *row[columns.EVENT_NS : columns.ASK_SIZE + 1])
        case columns.TRADE:
            return ("trade", *row[columns.EVENT_NS : columns.OFF_MARKET + 1])
        case columns.IGNORED:
            return ("ignored",)
        case columns.OTHER:
            return ("other", "ETHUSDT")
    return None


def _assert_as_parsed(venue: Venue, symbol: str, payloads: list[bytes]) -> int:
    """Every payload that is taken is read as the parser reads it; return how many were taken."""
    block, taken = _scan(venue, symbol, payloads), 0
    for record, payload in enumerate(payloads):
        found = _taken(block, record)
        if found is not None:
            expected = naive_ticks.read(venue, symbol, payload, RECEIVED_NS)
            assert expected is not None, payload
            assert found == expected[: len(found)], payload
            taken += 1
    return taken


@pytest.mark.parametrize("name", FORMS)
def test_documented_forms_are_taken_in_any_order_of_keys(name: str) -> None:
    venue = plugins.load(venues, name)()
    payloads, asks_first = [], 0
    for kind, data in FORMS[name]:
        keys = list(data)
        for turn in range(len(keys)):
            turned = keys[turn:] + keys[:turn]
            payloads.append(_payload(name, kind, {key: data[key] for key in turned}))
            asks_first += "U" in data and len(data["a"]) > 0 and turned.index("a") < turned.index("b")
        payloads.append(_payload(name, kind, data | {"nq": "1.5", "st": 3, "x": True}))
    assert _assert_as_parsed(venue, _symbol(name), payloads) == len(payloads) - asks_first


@pytest.mark.parametrize("name", FORMS)
def test_events_outside_a_combined_stream_are_taken(name: str) -> None:
    venue = plugins.load(venues, name)()
    events = [(kind, data) for kind, data in FORMS[name] if data.get("e") not in {"aggTrade", "markPriceUpdate"}]
    payloads = [_payload(name, kind, data, bare=True) for kind, data in events]
    assert _assert_as_parsed(venue, _symbol(name), payloads) == len(payloads)


@pytest.mark.parametrize("name", FORMS)
def test_another_segments_events_are_left_to_the_parser(name: str) -> None:
    venue = plugins.load(venues, name)()
    for other in set(FORMS) - {name}:
        payloads = [_payload(other, kind, data, bare=bare) for kind, data in FORMS[other] for bare in (False, True)]
        _assert_as_parsed(venue, _symbol(other), payloads)


@pytest.mark.parametrize("name", FORMS)
def test_mutated_payloads_are_read_as_the_parser_reads_them_or_refused(name: str) -> None:
    venue, rng = plugins.load(venues, name)(), stream(0, "scan", name)
    originals = [_payload(name, kind, data, bare=bare) for kind, data in FORMS[name] for bare in (False, True)]
    payloads = [_mutated(originals[number % len(originals)], rng) for number in range(30_000)]
    taken = _assert_as_parsed(venue, _symbol(name), payloads)
    assert 3_000 < taken < 20_000


_BYTES = b'"\\{}[],:.-+eE0123456789 abtTuUpsqmMBAxX\x00\x1f\x7f\xff\n\t/n'


def _mutated(payload: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes replaced, left out, put in or moved; or a piece repeated; or the end cut off."""
    text = bytearray(payload)
    for _ in range(rng.integers(1, 4)):
        at, other = rng.integers(0, len(text), 2)
        byte = _BYTES[rng.integers(len(_BYTES))]
        match rng.integers(7):
            case 0:
                text[at] = byte
            case 1:
                del text[at]
            case 2:
                text.insert(at, byte)
            case 3:
                text[at], text[other] = text[other], text[at]
            case 4:
                text[at:at] = text[min(at, other) : min(at, other) + rng.integers(1, 12)]
            case 5:
                text[at] = ord("0123456789"[rng.integers(10)])
            case 6 if rng.random() < 0.1:
                del text[max(at, 1) :]
        if not text:
            return b"{"
    return bytes(text)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**20).map(str) | st.decimals(0, 10**11, places=9).map(lambda value: f"{value:f}"),
            st.text(".0123456789-+eE_ ", max_size=22),
        ),
        max_size=12,
    ),
    st.integers(-(10**3), 2**64) | st.integers(10**15, 10**16),
)
def test_numbers_of_any_length_are_read_exactly_or_refused(levels: list[tuple[str, str]], number: int) -> None:
    venue = plugins.load(venues, "binance_usdm")()
    payloads = [_payload("binance_usdm", "depth", _DEPTH | {"pu": 3, "b": levels, "a": [pair]}) for pair in levels]
    payloads += [_payload("binance_usdm", "depth", _DEPTH | {"pu": number, "b": [], "a": []})]
    payloads += [_payload("binance_usdm", "trade", _TRADE | {"T": number, "m": True})]
    _assert_as_parsed(venue, "BTCUSDT", payloads)


def test_what_tells_an_answer_or_a_snapshot_is_left_to_the_parser() -> None:
    venue = plugins.load(venues, "binance_spot")()
    payloads = [
        wire.snapshot(5, [("100.0", "1")], []),
        b'{"result":null,"id":1}',
        b'{"id":1,"s":"BTCUSDT","u":9,"b":"1","B":"1","a":"2","A":"1"}',
        b'{"lastUpdateId":7,"s":"BTCUSDT","u":9,"b":"1","B":"1","a":"2","A":"1"}',
    ]
    assert _assert_as_parsed(venue, "BTCUSDT", payloads) == 0


def test_records_of_many_frames_and_notes_among_them() -> None:
    scanner = Scanner(Names(plugins.load(venues, "binance_usdm")(), "BTCUSDT"))
    records = [
        Record(7, b'{"event":"start"}', Kind.EVENT, 8, 9),
        Record(-3, wire.trade(1, "1.5", "2"), 0, 2**62, 2**32 - 1),
    ]
    block = scanner.scan([pack(records[0]), b"", pack(records[1]) + pack(records[0])])
    assert block.records[:, columns.CODE].tolist() == [columns.NOTE, columns.TRADE, columns.NOTE]
    assert [block.payload(number) for number in range(3)] == [
        records[0].payload,
        records[1].payload,
        records[0].payload,
    ]
    assert block.records[:, : columns.CONNECTION + 1].tolist() == [[7, 8, 9], [-3, 2**62, 2**32 - 1], [7, 8, 9]]


def test_a_record_that_reaches_beyond_its_frame_is_an_error() -> None:
    scanner = Scanner(Names(plugins.load(venues, "binance_usdm")(), "BTCUSDT"))
    whole = pack(Record(1, b"{}"))
    with pytest.raises(InputError, match="ends within a record"):
        scanner.scan([whole[:-1], whole])
