"""Binance's protocol, spoken to over real sockets: streams, frames, REST answers, limits and errors."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from synth_pipeline import plugins, venues
from synth_pipeline.exchange import feed
from synth_pipeline.exchange.limits import FrameLimit, WeightLimit
from synth_pipeline.exchange.protocol import protocol_of
from synth_pipeline.exchange.server import serve
from synth_pipeline.rng import stream
from synth_pipeline.venues import BookUpdate, Quote, Trade
from tests import wire
from tests.exchange_clients import ask, connected, events, get, listen

START_NS = wire.START_NS
STREAMS = "btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade"
SEGMENTS = {"binance_spot": "BTCUSDT", "binance_usdm": "BTCUSDT", "binance_coinm": "BTCUSD_PERP"}


@pytest.fixture(autouse=True)
def nobody_is_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_HELD_S", 0.1)
    monkeypatch.setattr(feed, "_SETTLED_S", 0.05)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return wire.write_capture(tmp_path / "btcusdt.txt", wire.market(5))


def captured(path: Path) -> list[bytes]:
    return [line.partition(b" ")[2] for line in path.read_bytes().splitlines()]


def test_a_combined_stream_is_the_captured_bytes_and_a_raw_one_the_events_in_them(capture: Path) -> None:
    async def run() -> tuple[list[bytes], list[bytes]]:
        async with serve(capture, "binance_usdm", clients=2) as exchange:
            streams = STREAMS.split("/")
            both = listen(exchange, f"/stream?streams={STREAMS}"), listen(exchange, f"/ws/{'/'.join(streams)}")
            return tuple(await asyncio.gather(*both))  # type: ignore[return-value]

    wrapped, bare = asyncio.run(run())
    lines = [line for line in captured(capture) if line.startswith(b'{"stream"')]
    assert wrapped == lines
    assert [json.loads(event) for event in bare] == [json.loads(line)["data"] for line in lines]


def test_depth_comes_at_whatever_speed_is_asked_for_under_the_name_asked_for(capture: Path) -> None:
    async def run() -> list[bytes]:
        async with serve(capture, "binance_usdm") as exchange:
            return await listen(exchange, "/public/stream?streams=btcusdt@depth@0ms")

    heard = asyncio.run(run())
    depths = [line for line in captured(capture) if b"depthUpdate" in line]
    assert heard == [line.replace(b"depth@100ms", b"depth@0ms") for line in depths]


def test_frames_subscribe_unsubscribe_and_list(capture: Path) -> None:
    async def run() -> list[Any]:
        # As in the documentation, one frame after the other, each with its answer.
        requests = [
            {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 1},
            {"method": "LIST_SUBSCRIPTIONS", "id": 3},
            {"method": "UNSUBSCRIBE", "params": ["ethusdt@trade"], "id": "x312"},
            {"method": "GET_PROPERTY", "params": ["combined"], "id": 2},
            {"method": "SET_PROPERTY", "params": ["combined", True], "id": None},
            {"method": "LIST_SUBSCRIPTIONS", "id": 4},
        ]
        async with serve(capture, "binance_usdm", speed=0.001) as exchange, connected(exchange, "/ws") as socket:
            answers = []
            for request in requests:
                await socket.send(json.dumps(request))
                answers.append(json.loads(await socket.recv()))
            return answers

    assert asyncio.run(run()) == [
        {"result": None, "id": 1},
        {"result": ["btcusdt@trade", "ethusdt@trade"], "id": 3},
        {"result": None, "id": "x312"},
        {"result": False, "id": 2},
        {"result": None, "id": None},
        {"result": ["btcusdt@trade"], "id": 4},
    ]


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        ("{", 3, "Invalid JSON"),
        ('{"id":1}', 2, "missing field `method`"),
        ('{"method":"SUBSCRIB","params":[],"id":1}', 2, "unknown variant `SUBSCRIB`"),
        ('{"method":"SUBSCRIBE","params":[],"id":1.5}', 2, "request ID must be"),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2, "must be a string"),
        ('{"method":"SUBSCRIBE","id":1}', 2, "missing field `params`"),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1, "expected Boolean"),
        ('{"method":"SET_PROPERTY","params":["speed",true],"id":1}', 0, "Unknown property"),
        ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2, "property name must be a string"),
    ],
)
def test_wrong_frames_get_the_documented_error(frame: str, code: int, message: str) -> None:
    protocol = protocol_of("binance_spot")
    session = protocol.open(_request("/ws"), "id")
    reply = protocol.hear(session, frame, None)  # type: ignore[arg-type]
    error = json.loads(reply.answers[0])["error"]
    assert error["code"] == code
    assert message in error["msg"]
    assert not session.streams


def test_a_connection_listens_to_1024_streams_at_most() -> None:
    protocol = protocol_of("binance_spot")
    session = protocol.open(_request("/stream"), "id")
    names = [f"s{number}@trade" for number in range(1025)]
    many = json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1})
    assert b'"code":4' in protocol.hear(session, many, None).answers[0]  # type: ignore[arg-type]
    most = json.dumps({"method": "SUBSCRIBE", "params": names[:1024], "id": 1})
    assert protocol.hear(session, most, None).subscribed == names[:1024]  # type: ignore[arg-type]


async def flood(socket: ClientConnection) -> None:
    for number in range(200):
        await socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        await socket.recv()


def test_who_sends_too_many_frames_is_cut(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_spot") as exchange, connected(exchange, "/ws") as socket:
            with pytest.raises(ConnectionClosedError) as closed:
                await flood(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008

    asyncio.run(run())


def test_frames_are_counted_by_the_second() -> None:
    limit = FrameLimit(2)
    assert [limit.admit(at) for at in (0, 1, 2, 10**9, 10**9 + 1, 10**9 + 2)] == [True, True, False, True, True, False]
    assert all(FrameLimit(None).admit(0) for _ in range(1000))


def test_paths_that_are_not_the_venue_s_are_refused(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_spot") as exchange:
            for path in ("/public/stream", "/v5/public/spot", "/"):
                with pytest.raises(InvalidStatus) as refused:
                    async with connected(exchange, path):
                        pass
                assert refused.value.response.status_code == 404
            assert (await get(exchange, "/fapi/v1/time")).status_code == 404
            assert (await get(exchange, "/api/v3/nothing")).status_code == 404

    asyncio.run(run())


def test_errors_have_the_documented_codes(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_usdm") as exchange:
            for target, code in {
                "depth?symbol=NOPE": -1121,
                "depth": -1102,
                "depth?symbol=BTCUSDT&limit=7": -4021,
                "depth?symbol=BTCUSDT&limit=x": -1130,
                "klines?symbol=BTCUSDT": -1102,
                "klines?symbol=BTCUSDT&interval=7m": -1120,
                "klines?symbol=BTCUSDT&interval=1s": -1120,
                "klines?symbol=BTCUSDT&interval=1m&limit=1501": -1130,
                "klines?symbol=BTCUSDT&interval=1m&startTime=x": -1100,
            }.items():
                answer = await get(exchange, f"/fapi/v1/{target}")
                assert (answer.status_code, answer.json()["code"]) == (400, code), target

    asyncio.run(run())


def test_spot_takes_large_limits_for_its_largest(capture: Path) -> None:
    protocol = protocol_of("binance_spot")
    assert protocol.rest.depth_limit(_request("/api/v3/depth?limit=9999")) == 5000  # type: ignore[attr-defined]
    assert protocol.rest.bar_limit(_request("/api/v3/klines?limit=9999")) == 1000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("venue", "target", "weight"),
    [
        ("binance_spot", "/api/v3/depth?limit=5000", 250),
        ("binance_spot", "/api/v3/depth", 5),
        ("binance_spot", "/api/v3/klines?limit=1000", 2),
        ("binance_spot", "/api/v3/exchangeInfo", 20),
        ("binance_usdm", "/fapi/v1/depth?limit=1000", 20),
        ("binance_usdm", "/fapi/v1/depth", 10),
        ("binance_usdm", "/fapi/v1/klines?limit=1500", 10),
        ("binance_coinm", "/dapi/v1/klines?limit=99", 1),
        ("binance_coinm", "/dapi/v1/time", 1),
    ],
)
def test_weights_are_the_documented_ones(venue: str, target: str, weight: int) -> None:
    assert protocol_of(venue).weight(_request(target)) == weight


def test_weight_is_counted_by_the_minute_then_refused_then_banned() -> None:
    limit, second = WeightLimit(100), 10**9
    assert limit.admit(0, 60) is None
    assert limit.headers["X-MBX-USED-WEIGHT-1M"] == "60"
    warned = limit.admit(second, 60)
    assert warned is not None
    assert (warned.status, warned.headers["Retry-After"]) == (429, "59")
    banned = limit.admit(2 * second, 1)
    assert banned is not None
    assert (banned.status, banned.headers["Retry-After"]) == (418, "120")
    assert limit.admit(123 * second, 1) is None
    assert limit.admit(180 * second, 60) is None
    assert limit.used == 60


def test_every_answer_says_what_was_used_and_the_clock_is_the_market_s(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_usdm") as exchange:
            answer = await get(exchange, "/fapi/v1/time")
            assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "1"
            assert answer.json() == {"serverTime": START_NS // 10**6}
            info = await ask(exchange, "/fapi/v1/exchangeInfo")
            assert [each["symbol"] for each in info["symbols"]] == ["BTCUSDT"]
            await listen(exchange, f"/stream?streams={STREAMS}")
            info = await ask(exchange, "/fapi/v1/exchangeInfo?symbol=BTCUSDT")
            price, size = info["symbols"][0]["filters"]
            assert (price["tickSize"], size["stepSize"]) == ("0.1", "0.25")
            assert (await ask(exchange, "/fapi/v1/time"))["serverTime"] == START_NS // 10**6 + 4900

    asyncio.run(run())


def test_a_capture_without_a_snapshot_has_no_book_to_show(tmp_path: Path) -> None:
    frames = [frame for frame in wire.market(2) if b"lastUpdateId" not in frame[1]]
    path = wire.write_capture(tmp_path / "no_snapshot.txt", frames)

    async def run() -> None:
        async with serve(path, "binance_usdm") as exchange:
            heard = await listen(exchange, f"/stream?streams={STREAMS}")
            assert len(heard) == len(frames)
            answer = await get(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            assert (answer.status_code, answer.json()["code"]) == (503, -1001)

    asyncio.run(run())


def test_streams_that_no_capture_holds_are_made_of_trades_and_depth(capture: Path) -> None:
    async def run() -> list[bytes]:
        async with serve(capture, "binance_usdm") as exchange:
            names = "btcusdt@aggTrade/btcusdt@kline_1m/btcusdt@depth5@100ms/btcusdt@trade"
            return await listen(exchange, f"/stream?streams={names}")

    heard = asyncio.run(run())
    trades, aggregates = events(heard, "trade"), events(heard, "aggTrade")
    assert [(each["f"], each["p"], each["m"]) for each in aggregates] == [
        (each["t"], each["p"], each["m"]) for each in trades
    ]
    bars = events(heard, "kline")
    assert bars
    assert bars[-1]["k"]["i"] == "1m"
    partial = events(heard, "depthUpdate")
    assert all(len(each["b"]) <= 5 and each["b"][0][0] == "100.0" for each in partial)


@pytest.mark.parametrize("venue", sorted(SEGMENTS))
def test_the_simulated_market_speaks_every_segment(venue: str) -> None:
    """Every message is one that the venue's own parser takes, and the chain of the book holds."""
    symbol = SEGMENTS[venue]
    protocol = protocol_of(venue)

    async def run() -> tuple[list[bytes], Any]:
        how: dict[str, Any] = {"symbols": [symbol], "seconds": 5, "start_ns": START_NS, "rng": stream(1, "test")}
        async with serve("simulated", venue, **how) as exchange:
            root = protocol.rest.root(protocol.venue)  # type: ignore[attr-defined]
            subscription = protocol.venue.subscribe([symbol])[0].decode()
            heard = await listen(exchange, protocol.venue.websocket_path, [subscription])
            return heard, await ask(exchange, f"{root}/depth?symbol={symbol}&limit=1000")

    heard, book = asyncio.run(run())
    parser = plugins.load(venues, venue)()
    found = [message for payload in heard[1:] for message in parser.parse(payload, START_NS)]
    assert {type(message) for message in found} == {BookUpdate, Quote, Trade}
    updates = [message for message in found if isinstance(message, BookUpdate)]
    rule = parser.sequence_rule()
    rule.resume(updates[0].last_id)
    assert all(rule.check(update).value == "in order" for update in updates[1:])
    assert book["lastUpdateId"] == updates[-1].last_id
    assert float(book["bids"][0][0]) < float(book["asks"][0][0])


def _request(target: str) -> Any:
    from synth_pipeline.exchange.protocol import Request

    return Request.of(target)
