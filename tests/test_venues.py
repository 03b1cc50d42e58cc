"""Sequence rules and the differences between the venues' wire formats."""

import json

import pytest

from synth_pipeline import plugins, venues
from synth_pipeline.errors import BadMessage
from synth_pipeline.venues import BookUpdate, Ignored, Quote, SequenceRule, Trade, Verdict
from synth_pipeline.venues.binance import FuturesRule, SpotRule
from tests import wire


def _update(first: int, last: int, previous: int | None = None) -> BookUpdate:
    return BookUpdate("BTCUSDT", 0, first, last, previous, [], [])


def _verdicts(rule: SequenceRule, updates: list[BookUpdate]) -> list[Verdict]:
    return [rule.check(update) for update in updates]


def test_nothing_is_known_without_a_snapshot() -> None:
    assert _verdicts(SpotRule(), [_update(1, 5), _update(6, 9)]) == [Verdict.NEEDS_SNAPSHOT] * 2


def test_spot_bridges_drops_and_finds_gaps() -> None:
    rule = SpotRule()
    rule.snapshot(100)
    updates = [
        _update(90, 100),
        _update(99, 103),
        _update(104, 104),
        _update(101, 104),
        _update(104, 106),
        _update(108, 109),
    ]
    assert _verdicts(rule, updates) == [
        Verdict.DUPLICATE,
        Verdict.IN_ORDER,
        Verdict.IN_ORDER,
        Verdict.DUPLICATE,
        Verdict.IN_ORDER,  # overlaps: sizes are absolute as of 106
        Verdict.GAP,
    ]
    assert rule.check(_update(110, 111)) is Verdict.NEEDS_SNAPSHOT


def test_spot_snapshot_older_than_the_updates_is_a_gap() -> None:
    rule = SpotRule()
    rule.snapshot(100)
    assert rule.check(_update(102, 105)) is Verdict.GAP


@pytest.mark.parametrize(
    ("first", "last", "previous", "verdict"),
    [
        (90, 99, 88, Verdict.DUPLICATE),
        (95, 105, 93, Verdict.IN_ORDER),  # U <= L <= u
        (95, 100, 93, Verdict.IN_ORDER),
        (102, 105, 100, Verdict.IN_ORDER),  # pu == L
        (102, 105, 98, Verdict.IN_ORDER),  # nothing lies between pu and U
        (104, 105, 101, Verdict.GAP),
    ],
)
def test_futures_bridge(first: int, last: int, previous: int, verdict: Verdict) -> None:
    rule = FuturesRule()
    rule.snapshot(100)
    assert rule.check(_update(first, last, previous)) is verdict


def test_futures_chain_follows_pu_not_u_plus_one() -> None:
    rule = FuturesRule()
    rule.resume(100)
    updates = [_update(150, 160, 100), _update(150, 160, 100), _update(170, 180, 165)]
    assert _verdicts(rule, updates) == [Verdict.IN_ORDER, Verdict.DUPLICATE, Verdict.GAP]


def test_usdm_messages() -> None:
    venue = plugins.load(venues, "binance_usdm")()
    book = venue.parse(wire.depth(5, 9, 3, [("1.5", "2")], [("1.6", "0")]), 1)[0]
    assert book == BookUpdate("BTCUSDT", 1_700_006_400_101_000_000, 5, 9, 3, [("1.5", "2")], [("1.6", "0")])
    assert venue.parse(wire.trade(7, "1.5", "2", sells=True), 1)[0] == Trade(
        "BTCUSDT", 1_700_006_400_106_000_000, 7, "1.5", "2", -1
    )
    assert venue.parse(wire.trade(8, "1.5", "2", kind="INSURANCE_FUND"), 1)[0].off_market
    assert isinstance(venue.parse(wire.ticker(9, "1.5", "2", "1.6", "3"), 1)[0], Quote)
    assert venue.parse(wire.snapshot(4, [], []), 1)[0].snapshot
    marked = b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","s":"BTCUSDT","p":"1.5"}}'
    assert venue.parse(marked, 1)[0] == Ignored("BTCUSDT", "markPrice")
    assert venue.parse(b'{"result":null,"id":1}', 1)[0] == Ignored(None, "answer")


def test_spot_time_comes_from_receipt_where_the_venue_sends_none() -> None:
    venue = plugins.load(venues, "binance_spot")()
    assert venue.parse(wire.ticker(9, "1.5", "2", "1.6", "3", spot=True), 77)[0].event_ns == 77


def test_microsecond_event_times_are_recognized() -> None:
    venue = plugins.load(venues, "binance_usdm")()
    payload = wire.trade(7, "1.5", "2").replace(b"1700006400106", b"1700006400106123")
    assert venue.parse(payload, 1)[0].event_ns == 1_700_006_400_106_123_000


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("binance_usdm", wire.depth(5, 9, None), "wrong_venue"),
        ("binance_usdm", wire.ticker(9, "1", "1", "2", "1", spot=True), "wrong_venue"),
        ("binance_usdm", wire.trade(1, "1", "1", kind=None), "wrong_venue"),
        ("binance_spot", wire.depth(5, 9, 3), "wrong_venue"),
        ("binance_spot", wire.trade(1, "1", "1"), "wrong_venue"),
        ("binance_coinm", wire.depth(5, 9, 3), "wrong_venue"),
        ("binance_usdm", wire.depth(5, 9, 3)[:-9], "malformed_json"),
        ("binance_usdm", b"", "malformed_json"),
        ("binance_usdm", b'{"hello":"world"}', "unexpected_form"),
        ("binance_usdm", b'{"stream":"btcusdt@trade","data":{"s":"BTCUSDT","t":"seven"}}', "unexpected_form"),
    ],
)
def test_a_refusal_names_its_reason(name: str, payload: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        plugins.load(venues, name)().parse(payload, 1)
    assert refused.value.reason == reason


_COMMON = {"s": "BTCUSD_PERP", "ps": "BTCUSD", "E": 5, "T": 4}


@pytest.mark.parametrize(
    ("name", "payload", "stream"),
    [
        ("binance_usdm", wire.depth(5, 9, 3), "book_levels"),
        ("binance_usdm", wire.ticker(9, "1", "1", "2", "1"), "quotes"),
        ("binance_usdm", wire.trade(7, "1", "1"), "trades"),
        ("binance_usdm", wire.snapshot(4, [], []), "book_levels"),
        ("binance_spot", wire.depth(5, 9, None), "book_levels"),
        ("binance_spot", wire.ticker(9, "1", "1", "2", "1", spot=True), "quotes"),
        ("binance_spot", wire.trade(7, "1", "1", kind=None), "trades"),
        (
            "binance_coinm",
            json.dumps({"e": "depthUpdate", "U": 5, "u": 9, "pu": 3, "b": [], "a": []} | _COMMON),
            "book_levels",
        ),
        (
            "binance_coinm",
            json.dumps({"e": "bookTicker", "u": 9, "b": "1", "B": "1", "a": "2", "A": "1"} | _COMMON),
            "quotes",
        ),
        ("binance_spot", b'{"u":9,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}', "quotes"),
    ],
)
def test_a_head_says_what_the_whole_message_says(name: str, payload: bytes | str, stream: str) -> None:
    payload = payload if isinstance(payload, bytes) else payload.encode()
    venue = plugins.load(venues, name)()
    head, (message,) = venue.head(payload), venue.parse(payload, 0)
    assert (head.stream, head.symbol) == (stream, message.symbol)
    if isinstance(message, BookUpdate):
        assert (head.first_id, head.last_id, head.previous_id, head.snapshot) == (
            *(message.first_id, message.last_id, message.previous_id, message.snapshot),
        )
    else:
        assert head.last_id == (message.update_id if isinstance(message, Quote) else message.trade_id)
    assert (head.event_ns > 0) == (b'"E"' in payload)


def test_a_head_of_anything_else() -> None:
    venue = plugins.load(venues, "binance_usdm")()
    assert venue.head(b'{"result":null,"id":1}').stream == "answer"
    assert venue.head(b'{"error":{"code":2,"msg":"Invalid request"},"id":1}').stream == "refusal"
    assert venue.head(b'{"stream":"btcusdt@trade","data":{"t":"seven"}}').stream == "unexpected_form"
    marked = b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","s":"BTCUSDT","p":"1.5"}}'
    assert (venue.head(marked).symbol, venue.head(marked).stream) == ("BTCUSDT", "markPrice")
    for broken in (b"", b'{"stream":', b"\xff"):
        with pytest.raises(BadMessage, match="malformed_json"):
            venue.head(broken)


def test_subscriptions_are_cut_into_frames_the_venue_takes() -> None:
    venue = plugins.load(venues, "binance_spot")()
    frames = venue.subscribe([f"COIN{number}USDT" for number in range(70)])
    assert max(map(len, frames)) < 4096
    params = [name for frame in frames for name in json.loads(frame)["params"]]
    assert len(params) == len(set(params)) == 210
    assert params[:3] == ["coin0usdt@depth@100ms", "coin0usdt@bookTicker", "coin0usdt@trade"]
    assert [json.loads(frame)["id"] for frame in frames] == [1, 2, 3]
    (frame,) = venue.unsubscribe(["BTCUSDT"], ["trade"])
    assert json.loads(frame) == {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}


def test_usdm_streams_are_routed() -> None:
    usdm, spot = (plugins.load(venues, name)() for name in ("binance_usdm", "binance_spot"))
    assert [usdm.path_of(stream) for stream in usdm.streams] == ["/public/stream", "/public/stream", "/market/stream"]
    assert {spot.path_of(stream) for stream in spot.streams} == {"/stream"}


@pytest.mark.parametrize("name", plugins.names(venues))
def test_every_venue_states_what_the_recorder_needs(name: str) -> None:
    venue = plugins.load(venues, name)()
    assert venue.websocket_url.startswith(("ws://", "wss://"))
    assert venue.rest_url.startswith(("http://", "https://"))
    assert all(venue.path_of(stream).startswith("/") for stream in venue.streams)
    assert {"book_levels", "quotes", "trades"} == {venue.stream_kind(stream) for stream in venue.streams}
    assert venue.time_path.startswith("/")
    assert venue.snapshot_path is None or (0 < venue.snapshot_weight <= venue.weight_per_minute)
    assert venue.sequence_rule().snapshot_overwrites == (venue.snapshot_path is None)
    assert venue.server_time_ns(b'{"serverTime":1700006400000,"time":1700006400000}') == wire.START_NS
    with pytest.raises(BadMessage):
        venue.server_time_ns(b"<html>")
