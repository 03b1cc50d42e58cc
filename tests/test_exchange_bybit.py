"""Bybit's v5 protocol, spoken to over real sockets: topics, snapshots on subscription, REST answers and errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from synth_pipeline import plugins, venues
from synth_pipeline.exchange import feed
from synth_pipeline.exchange.limits import RequestLimit
from synth_pipeline.exchange.protocol import Item, Request, protocol_of
from synth_pipeline.exchange.server import serve
from synth_pipeline.exchange.state import State
from synth_pipeline.rng import stream
from synth_pipeline.venues import BookUpdate, Quote, Trade
from tests import wire
from tests.exchange_clients import DictBook, ask, connected, get, listen

CATEGORIES = {"spot": "BTCUSDT", "linear": "BTCUSDT", "inverse": "BTCUSD"}
LEVELS = list[list[str]]


@pytest.fixture(autouse=True)
def the_market_starts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_SETTLED_S", 0.05)


def market(symbol: str, seconds: float = 4.0) -> dict[str, Any]:
    return {"symbols": [symbol], "seconds": seconds, "start_ns": wire.START_NS, "rng": stream(3, "bybit")}


def subscription(*topics: str) -> str:
    return json.dumps({"op": "subscribe", "args": topics, "req_id": "r1"})


def rebuilt(messages: list[dict[str, Any]]) -> DictBook:
    """Keep a book as documented: a snapshot replaces it, a delta changes it, `u` counts up by one."""
    book, last = None, None
    for message in messages:
        data = message["data"]
        if message["type"] == "snapshot":
            book = DictBook(data["b"], data["a"])
        else:
            assert book is not None, "a snapshot comes first"
            assert data["u"] == last + 1
            book.change(data["b"], data["a"])
        last = data["u"]
    assert book is not None
    return book


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_the_simulated_market_speaks_every_category(category: str) -> None:
    symbol = CATEGORIES[category]
    topics = [
        f"{name}.{symbol}"
        for name in ("orderbook.1", "orderbook.50", "orderbook.200", "publicTrade", "tickers", "kline.1")
    ]

    async def run() -> tuple[list[bytes], Any]:
        async with serve("simulated", f"bybit_{category}", **market(symbol)) as exchange:
            heard = await listen(exchange, f"/v5/public/{category}", [subscription(*topics)])
            return heard, await ask(exchange, f"/v5/market/orderbook?category={category}&symbol={symbol}&limit=50")

    heard, answer = asyncio.run(run())
    messages = [json.loads(payload) for payload in heard[1:]]
    assert {message["topic"] for message in messages} == set(topics)
    parser = plugins.load(venues, f"bybit_{category}")()
    found = {type(each) for payload in heard[1:] for each in parser.parse(payload, wire.START_NS)}
    assert {BookUpdate, Quote, Trade} <= found
    for depth in (50, 200):
        book = rebuilt([message for message in messages if message["topic"] == f"orderbook.{depth}.{symbol}"])
        assert max(len(side) for side in book.sides) <= depth
        if depth == 50:
            last = [tuple(level) for level in answer["result"]["b"]], [tuple(level) for level in answer["result"]["a"]]
            assert len(last[0]) == 50
    bars = [message for message in messages if message["topic"].startswith("kline")]
    assert all(bar["data"][-1]["confirm"] is False for bar in bars)


@pytest.mark.parametrize(("category", "acknowledged"), [("spot", "subscribe"), ("linear", ""), ("inverse", "")])
def test_answers_to_frames(category: str, acknowledged: str) -> None:
    symbol = CATEGORIES[category]

    async def run() -> list[Any]:
        frames = [
            {"op": "ping", "req_id": "100001"},
            {"op": "subscribe", "args": [f"kline.1.{symbol}"], "req_id": "7"},
            {"op": "subscribe", "args": [f"kline.1.{symbol}"]},
            {"op": "subscribe", "args": [f"kline.1.{symbol}", f"orderbook.30.{symbol}"]},
            {"op": "subscribe", "args": ["publicTrade.NOPEUSDT"]},
            {"op": "unsubscribe", "args": [f"kline.1.{symbol}"], "req_id": "8"},
            {"op": "nope"},
        ]
        slow = {**market(symbol), "speed": 0.001}
        serving = serve("simulated", f"bybit_{category}", **slow)
        async with serving as exchange, connected(exchange, f"/v5/public/{category}") as socket:
            answers = []
            for frame in frames:
                await socket.send(json.dumps(frame))
                answer = json.loads(await socket.recv())
                assert len(answer.pop("conn_id")) == 36
                answers.append(answer)
            return answers

    named = {} if category == "spot" else {"req_id": "100001"}
    failed = {"success": False, "req_id": "", "op": "subscribe"}
    assert asyncio.run(run()) == [
        {"success": True, "ret_msg": "pong", "op": "ping", **named},
        {"success": True, "ret_msg": acknowledged, "req_id": "7", "op": "subscribe"},
        {**failed, "ret_msg": f"error:already subscribed,topic:kline.1.{symbol}"},
        {**failed, "ret_msg": f"error:already subscribed,topic:kline.1.{symbol}"},
        {**failed, "ret_msg": "error:handler not found,topic:publicTrade.NOPEUSDT"},
        {"success": True, "ret_msg": acknowledged, "req_id": "8", "op": "unsubscribe"},
        {"success": False, "ret_msg": "error:invalid op", "req_id": "", "op": "nope"},
    ]


def test_one_wrong_topic_fails_its_whole_frame_and_spot_takes_ten() -> None:
    protocol = protocol_of("bybit_spot")
    state = State(protocol, ["BTCUSDT"])
    session = protocol.open(Request.of("/v5/public/spot"), "id")
    reply = protocol.hear(session, subscription("publicTrade.BTCUSDT", "orderbook.500.BTCUSDT"), state)
    assert b"handler not found,topic:orderbook.500.BTCUSDT" in reply.answers[0]
    assert not session.streams
    many = subscription(*(f"kline.{interval}.BTCUSDT" for interval in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720, "D")))
    assert b"args size >10" in protocol.hear(session, many, state).answers[0]


def test_who_comes_late_gets_the_book_as_of_the_last_message_and_then_the_changes() -> None:
    async def run() -> tuple[list[bytes], list[bytes]]:
        how = {**market("BTCUSDT", 6), "speed": 6.0}
        async with serve("simulated", "bybit_linear", **how) as exchange:
            early = asyncio.create_task(listen(exchange, "/v5/public/linear", [subscription("orderbook.50.BTCUSDT")]))
            await exchange.feed.started.wait()
            await asyncio.sleep(0.4)
            late = await listen(exchange, "/v5/public/linear", [subscription("orderbook.50.BTCUSDT")])
            return await early, late

    early, late = ([json.loads(payload) for payload in heard[1:]] for heard in asyncio.run(run()))
    assert 0 < len(late) < len(early)
    assert late[0]["type"] == "snapshot"
    assert late[1:] == early[-len(late) + 1 :]
    assert rebuilt(late).top(50) == rebuilt(early).top(50)


def test_a_recorded_topic_greets_a_latecomer_too() -> None:
    protocol = protocol_of("bybit_linear")
    state = State(protocol, ["BTCUSDT"])

    def take(kind: str, bids: LEVELS, update_id: int) -> None:
        data = {"s": "BTCUSDT", "b": bids, "a": [["101", "1"]], "u": update_id, "seq": update_id}
        message = {"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": 5, "data": data, "cts": 4}
        state.now(Item(0, b"orderbook.50.BTCUSDT", json.dumps(message).encode()))

    assert protocol.greeting(b"orderbook.50.BTCUSDT", state) is None
    take("snapshot", [["100", "1"], ["99", "2"]], 7)
    take("delta", [["100", "0"], ["98", "3"]], 8)
    greeting = protocol.greeting(b"orderbook.50.BTCUSDT", state)
    assert greeting is not None
    data = json.loads(greeting)["data"]
    assert (data["b"], data["a"], data["u"]) == ([["99", "2"], ["98", "3"]], [["101", "1"]], 8)


def test_errors_come_with_status_200_and_a_code() -> None:
    async def run() -> None:
        async with serve("simulated", "bybit_linear", **market("BTCUSDT")) as exchange:
            for target, message in {
                "orderbook?category=linear&symbol=NOPE": "params error: symbol invalid",
                "orderbook?category=spot&symbol=BTCUSDT": "params error: Category Invalid",
                "orderbook?category=linear&symbol=BTCUSDT&limit=1001": "params error: limit invalid",
                "kline?symbol=BTCUSDT&interval=2": "Invalid period!",
                "kline?symbol=BTCUSDT&interval=1&start=x": "params error: start invalid",
                "instruments-info?category=linear&symbol=NOPE": "params error: symbol invalid",
            }.items():
                answer = await get(exchange, f"/v5/market/{target}")
                assert (answer.status_code, answer.json()["retCode"]) == (200, 10001), target
                assert answer.json()["retMsg"] == message
            assert (await get(exchange, "/v5/market/nothing")).status_code == 404
            clock = await ask(exchange, "/v5/market/time")
            assert clock["time"] == wire.START_NS // 10**6
            assert clock["result"]["timeSecond"] == str(wire.START_NS // 10**9)

    asyncio.run(run())


def test_instruments_have_their_steps() -> None:
    async def run() -> Any:
        async with serve("simulated", "bybit_linear", **market("BTCUSDT", 1)) as exchange:
            await listen(exchange, "/v5/public/linear", [subscription("publicTrade.BTCUSDT")])
            return await ask(exchange, "/v5/market/instruments-info?category=linear")

    (instrument,) = asyncio.run(run())["result"]["list"]
    assert instrument["symbol"] == "BTCUSDT"
    assert instrument["priceFilter"]["tickSize"] == "0.1"
    assert instrument["lotSizeFilter"]["qtyStep"] == "0.001"


def test_six_hundred_requests_in_five_seconds_are_enough() -> None:
    limit, second = RequestLimit(), 10**9
    assert all(limit.admit(number * second // 200, 1) is None for number in range(600))
    refused = limit.admit(3 * second, 1)
    assert refused is not None
    assert refused.status == 403
    assert limit.admit(500 * second, 1) is not None
    assert limit.admit(604 * second, 1) is None
