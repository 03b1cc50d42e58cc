"""Bybit v5: its wire, and the recorder's ways with it."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from synth_pipeline import plugins, venues
from synth_pipeline.capture.recorder import Plan, Recorder
from synth_pipeline.errors import BadMessage, InputError
from synth_pipeline.venues import BookUpdate, Ignored, Message, Quote, Trade, Venue, Verdict
from tests import wire
from tests.scripted import Scripted, notes_of, payloads_of, record, until

BIDS, ASKS = [("100.0", "5.000")], [("100.1", "5.000")]
SEGMENTS = {"bybit_spot": "BTCUSDT", "bybit_linear": "BTCUSDT", "bybit_inverse": "BTCUSD"}


def _venue(name: str) -> Venue:
    found: Venue = plugins.load(venues, name)()
    return found


@pytest.mark.parametrize(("name", "symbol"), SEGMENTS.items())
def test_books_quotes_and_trades(name: str, symbol: str) -> None:
    venue = _venue(name)
    stamp = 1_700_006_400_101_000_000
    (update,) = venue.parse(wire.bybit_book(9, BIDS, [], symbol=symbol), 1)
    assert update == BookUpdate(symbol, stamp, 9, 9, None, BIDS, [])
    (whole,) = venue.parse(wire.bybit_book(9, BIDS, ASKS, whole=True, depth=1000, symbol=symbol), 1)
    assert isinstance(whole, BookUpdate)
    assert whole.snapshot
    (restarted,) = venue.parse(wire.bybit_book(1, BIDS, ASKS, symbol=symbol), 1)
    assert isinstance(restarted, BookUpdate)
    assert restarted.snapshot
    (quote,) = venue.parse(wire.bybit_book(9, BIDS, ASKS, whole=True, depth=1, symbol=symbol), 1)
    assert quote == Quote(symbol, stamp, 9, "100.0", "5.000", "100.1", "5.000")
    ids = ("2290000000000000071", "2290000000000000075") if name == "bybit_spot" else (wire.uuid_of(1), wire.uuid_of(2))
    trades = venue.parse(wire.bybit_trades(*ids, symbol=symbol, side="Sell"), 1)
    assert [type(trade) for trade in trades] == [Trade, Trade]
    assert [(trade.side, trade.price, trade.size, trade.event_ns) for trade in trades if isinstance(trade, Trade)] == [
        (-1, "100.10", "0.250", 1_700_006_400_106_000_000)
    ] * 2


def test_trade_ids_become_distinct_positive_int64() -> None:
    spot, linear = _venue("bybit_spot"), _venue("bybit_linear")

    def ids(venue: Venue, *names: str) -> list[int]:
        return [each.trade_id for each in venue.parse(wire.bybit_trades(*names), 1) if isinstance(each, Trade)]

    assert ids(spot, "2290000001189048101") == [2290000001189048101]
    highest = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    assert ids(linear, "00000002-0000-0000-0000-000000000000", highest) == [2 << 31, 2**63 - 1]
    assert not spot.trade_ids_count_up
    assert spot.visible_levels == 200


def test_an_off_market_print_is_marked() -> None:
    venue = _venue("bybit_linear")
    for block, rpi in ((True, False), (False, True), (False, False)):
        (trade,) = venue.parse(wire.bybit_trades(wire.uuid_of(3), block=block, rpi=rpi), 1)
        assert isinstance(trade, Trade)
        assert trade.off_market == (block or rpi)


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("bybit_spot", wire.bybit_trades(wire.uuid_of(1)), "wrong_venue"),
        ("bybit_linear", wire.bybit_trades("2290000001189048101"), "wrong_venue"),
        ("bybit_linear", wire.bybit_trades("zzzzzzzz-0000-5000-8000-000000000000"), "unexpected_form"),
        ("bybit_linear", wire.bybit_book(5, BIDS, ASKS, symbol="BTCUSD"), "wrong_venue"),
        ("bybit_inverse", wire.bybit_book(5, BIDS, ASKS), "wrong_venue"),
        ("bybit_spot", wire.bybit_book(5, BIDS, ASKS, symbol="BTC-26DEC25"), "wrong_venue"),
        ("bybit_linear", wire.bybit_book(5, BIDS, [], depth=1), "partial_quote"),
        ("bybit_linear", wire.bybit_book(5, BIDS, ASKS)[:-7], "malformed_json"),
        ("bybit_linear", b"\xff\xfe", "malformed_json"),
        ("bybit_linear", b'{"hello":"world"}', "unexpected_form"),
        ("bybit_linear", b'{"topic":"orderbook.200.BTCUSDT","data":{"u":-1}}', "unexpected_form"),
        ("bybit_linear", wire.depth(5, 9, 3), "unexpected_form"),
        ("binance_usdm", wire.bybit_book(5, BIDS, ASKS), "unexpected_form"),
    ],
)
def test_a_refusal_names_its_reason(name: str, payload: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        _venue(name).parse(payload, 1)
    assert refused.value.reason == reason


def test_answers_and_other_topics_are_ignored() -> None:
    venue = _venue("bybit_linear")
    pong = b'{"success":true,"ret_msg":"pong","conn_id":"a","req_id":"","op":"ping"}'
    assert venue.parse(pong, 1) == (Ignored(None, "answer"),)
    tickers = b'{"topic":"tickers.BTCUSDT","type":"delta","data":{"symbol":"BTCUSDT"},"cs":1,"ts":1700006400000}'
    assert venue.parse(tickers, 1) == (Ignored("BTCUSDT", "tickers"),)
    assert venue.head(b'{"success":false,"ret_msg":"error:handler not found","op":"subscribe"}').stream == "refusal"


def test_frames_hold_no_more_topics_than_a_segment_takes() -> None:
    symbols = [f"COIN{number}USDT" for number in range(9)]
    frames = [json.loads(frame) for frame in _venue("bybit_spot").subscribe(symbols)]
    assert [len(frame["args"]) for frame in frames] == [10, 10, 7]
    assert {frame["op"] for frame in frames} == {"subscribe"}
    assert frames[0]["args"][:3] == ["orderbook.200.COIN0USDT", "orderbook.1.COIN0USDT", "publicTrade.COIN0USDT"]
    (frame,) = _venue("bybit_linear").unsubscribe(["BTCUSDT"], ["orderbook.500"])
    assert json.loads(frame) == {"op": "unsubscribe", "args": ["orderbook.500.BTCUSDT"], "req_id": "1"}


def test_two_depths_of_one_book_cannot_be_told_apart_later() -> None:
    with pytest.raises(InputError, match="record one of them"):
        Plan.of("bybit_linear", ["BTCUSDT"], Path(), streams=["orderbook.50", "orderbook.200"])


def test_a_gap_subscribes_anew_to_that_book_only(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await exchange.send(wire.bybit_book(5, BIDS, ASKS, whole=True, symbol=symbol))
            await exchange.send(wire.bybit_book(6, BIDS, [], symbol=symbol))
        await exchange.send(wire.bybit_book(8, BIDS, []))
        await until(lambda: len(exchange.heard) == 3)
        await exchange.send(wire.bybit_book(90, BIDS, ASKS, whole=True), wire.bybit_book(91, BIDS, []))
        await until(lambda: recorder.figures.messages == 7)

    figures = record(tmp_path, script, venue="bybit_linear", symbols=("BTCUSDT", "ETHUSDT"))
    assert (figures.gaps, figures.snapshots, figures.connects) == (1, 3, 1)
    assert {"event": "gap", "stream": "book_levels", "last_id": 6, "first_id": 8} in notes_of(tmp_path)
    assert all(note["event"] != "gap" for note in notes_of(tmp_path, "ETHUSDT"))


def test_a_book_that_stays_without_snapshot_costs_the_connection(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(wire.bybit_book(6, BIDS, []))
        await until(lambda: len(exchange.clients) == 2)
        assert [frame["op"] for frame in exchange.heard[1:7]] == ["unsubscribe", "subscribe"] * 3

    figures = record(tmp_path, script, venue="bybit_linear", streams=("orderbook.200",), snapshot_seconds=0.05)
    assert figures.snapshot_failures == 1


def test_heartbeats_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.load(venues, "bybit_spot"), "heartbeat_seconds", 0.05)

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(b'{"success":true,"ret_msg":"subscribe","op":"subscribe"}')
        await exchange.send(wire.bybit_trades(wire.uuid_of(1)))
        await until(lambda: exchange.heard.count({"op": "ping"}) >= 3)

    record(tmp_path, script, venue="bybit_spot")


def test_a_successor_takes_over_without_loss_or_duplicate(tmp_path: Path) -> None:
    """Trades carry random ids, and each connection numbers its books from a snapshot of its own."""

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        seen: dict[int, int] = {}
        for number in range(1, 150):
            for client in range(len(exchange.clients)):
                if client not in seen:
                    seen[client] = 1000 * client
                    await exchange.send(wire.bybit_book(seen[client], BIDS, ASKS, whole=True), client=client)
                seen[client] += 1
                await exchange.send(wire.bybit_book(seen[client], BIDS, []), client=client)
                await exchange.send(wire.bybit_trades(wire.uuid_of(number)), client=client)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)

    figures = record(
        tmp_path, script, venue="bybit_linear", streams=("orderbook.200", "publicTrade"), session_seconds=0.2
    )
    assert figures.handovers >= 2
    assert figures.gaps == 0
    venue, rule = _venue("bybit_linear"), _venue("bybit_linear").sequence_rule()
    messages: list[Message] = [each for payload in payloads_of(tmp_path) for each in venue.parse(payload, 1)]
    trades = [each.trade_id >> 31 for each in messages if isinstance(each, Trade)]
    assert trades == list(range(1, 150))
    verdicts = Counter[Verdict]()
    for each in messages:
        if isinstance(each, BookUpdate):
            if each.snapshot:
                rule.snapshot(each.last_id)
            else:
                verdicts[rule.check(each)] += 1
    assert set(verdicts) == {Verdict.IN_ORDER}


@pytest.mark.parametrize(("connection", "name"), [("BYBIT.ws.2", "bybit_linear"), ("BYBIT.ws.3", "bybit_spot")])
def test_a_real_recording_is_read_whole_and_its_chains_hold(
    real: Callable[[str], Path], connection: str, name: str
) -> None:
    venue = _venue(name)
    rules, found = {}, Counter[object]()
    with real("bybit_v5_raw_20260809.jsonl.zst").open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            envelope = json.loads(line)
            if envelope["t"] != "recv" or envelope["conn"] != connection:
                continue
            payload = envelope["data"].encode()
            for message in venue.parse(payload, 1):
                found[type(message)] += 1
                if isinstance(message, BookUpdate):
                    head = venue.head(payload)
                    assert (head.symbol, head.last_id, head.snapshot) == (
                        *(message.symbol, message.last_id, message.snapshot),
                    )
                    rule = rules.setdefault(message.symbol, venue.sequence_rule())
                    if message.snapshot:
                        rule.snapshot(message.last_id)
                    else:
                        found[rule.check(message)] += 1
    assert found[Trade] > 10
    assert found[Verdict.IN_ORDER] == found[BookUpdate] - len(rules) > 500
    assert not found[Verdict.GAP]
