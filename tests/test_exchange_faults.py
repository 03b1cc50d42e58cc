"""Every fault by name does what it says, and its log says what it did."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidMessage

from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.exchange import faults, feed
from synth_pipeline.exchange.protocol import Item, protocol_of
from synth_pipeline.exchange.server import Exchange, serve
from synth_pipeline.rng import stream
from tests import wire
from tests.exchange_clients import connected, events, get, listen

PATH = "/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade"
DEPTH = "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"


@pytest.fixture(autouse=True)
def nobody_is_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_HELD_S", 0.1)
    monkeypatch.setattr(feed, "_SETTLED_S", 0.05)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return wire.write_capture(tmp_path / "x.txt", wire.market(30))


def clean(path: Path) -> list[bytes]:
    payloads = (line.partition(b" ")[2] for line in path.read_bytes().splitlines())
    return [payload for payload in payloads if payload.startswith(b'{"stream"')]


def heard_with(path: Path, *names: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    async def run() -> tuple[list[bytes], list[dict[str, Any]]]:
        async with serve(path, "binance_usdm", faults=names, rng=stream(4, "faults")) as exchange:
            return await listen(exchange, PATH), exchange.injected

    return asyncio.run(run())


def ids(payload: bytes) -> list[int]:
    event = json.loads(payload)["data"]
    return {"depthUpdate": lambda: [event["U"], event["u"]], "trade": lambda: [event["t"]] * 2}[event["e"]]()


def test_drop_takes_messages_away(capture: Path) -> None:
    heard, injected = heard_with(capture, "drop:count=5,share=0.1,after=50")
    gone = Counter(clean(capture)) - Counter(heard)
    assert sum(gone.values()) == 5
    assert [entry["name"] for entry in injected] == ["drop"] * 5
    assert sorted(entry["ids"] for entry in injected) == sorted(ids(payload) for payload in gone)
    assert heard == [payload for payload in clean(capture) if payload not in gone]


def test_gap_takes_a_run_of_one_stream_away(capture: Path) -> None:
    heard, injected = heard_with(capture, "gap:length=7,stream=book_levels,after=20")
    (entry,) = injected
    gone = [payload for payload in clean(capture) if payload not in heard]
    assert (entry["messages"], len(gone)) == (7, 7)
    assert entry["ids"] == [ids(gone[0])[0], ids(gone[-1])[1]]
    assert {json.loads(payload)["data"]["e"] for payload in gone} == {"depthUpdate"}
    depths = [ids(payload) for payload in heard if b"depthUpdate" in payload]
    around = [(a[1], b[0]) for a, b in pairwise(depths) if b[0] != a[1] + 1]
    assert around[-1] == (entry["ids"][0] - 1, entry["ids"][1] + 1)


def test_duplicate_sends_twice(capture: Path) -> None:
    heard, injected = heard_with(capture, "duplicate:count=3,stream=trades")
    twice = [payload for payload, count in Counter(heard).items() if count == 2]
    assert [entry["ids"] for entry in injected] == [ids(payload) for payload in twice]
    assert len(heard) == len(clean(capture)) + 3


def test_reorder_swaps_two_of_a_stream(capture: Path) -> None:
    heard, injected = heard_with(capture, "reorder:count=2,stream=trades")
    assert Counter(heard) == Counter(clean(capture))
    trades = [ids(payload)[0] for payload in heard if b'"trade"' in payload]
    swapped = [b for a, b in pairwise(trades) if b < a]
    assert swapped == [entry["ids"][0] for entry in injected]


def test_what_is_held_back_goes_out_at_the_end() -> None:
    protocol = protocol_of("binance_usdm")
    reorder = faults.parse_fault("reorder:after=0")
    reorder.bind(protocol, stream(0), [])
    item = Item(0, b"btcusdt@trade", wire.trade(1, "100.0", "1"))
    assert reorder.publish(item) == ()
    assert reorder.left() == (item,)


def test_stall_is_a_silence_after_which_all_comes(capture: Path) -> None:
    started = monotonic()
    heard, injected = heard_with(capture, "stall:seconds=0.7")
    assert monotonic() - started > 0.7
    assert heard == clean(capture)
    assert injected[0]["seconds"] == 0.7


def test_garbage_is_no_json_and_comes_besides(capture: Path) -> None:
    heard, injected = heard_with(capture, "garbage:count=4")
    assert len(injected) == 4
    bad = [payload for payload in heard if not _is_json(payload)]
    assert [len(payload) for payload in bad] == [entry["bytes"] for entry in injected]
    assert [payload for payload in heard if _is_json(payload)] == clean(capture)


def test_oversize_is_larger_than_a_client_takes(capture: Path) -> None:
    heard, injected = heard_with(capture, "oversize:size=3000000")
    assert max(map(len, heard)) == 3_000_000 == injected[0]["bytes"]

    async def refused() -> None:
        async with serve(capture, "binance_usdm", faults=["oversize:size=3000000"]) as exchange:
            async with connect(exchange.websocket_url + PATH) as socket:
                with pytest.raises(ConnectionClosedError) as closed:
                    await forever(socket)
            assert closed.value.sent is not None
            assert closed.value.sent.code == 1009

    asyncio.run(refused())


async def forever(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


def test_clock_step_moves_every_stamp_from_there_on(capture: Path) -> None:
    async def run() -> tuple[list[bytes], Any]:
        async with serve(capture, "binance_usdm", faults=["clock_step:ms=-90000,after=30"]) as exchange:
            heard = await listen(exchange, PATH)
            return heard, (await get(exchange, "/fapi/v1/time")).json()["serverTime"]

    heard, clock = asyncio.run(run())
    stamps = [event["E"] for event in events(heard, "trade")]
    assert len(set(stamps)) == 2
    assert stamps[-1] - stamps[0] == -90_000
    assert clock == wire.START_NS // 10**6 + 29_900 - 90_000
    assert [ids(payload) for payload in heard if b"trade" in payload] == [
        ids(payload) for payload in clean(capture) if b"trade" in payload
    ]


def test_half_open_is_a_connection_that_is_dead_without_a_word(capture: Path) -> None:
    async def run() -> None:
        serving = serve(capture, "binance_usdm", faults=["half_open:after=40"])
        async with asyncio.timeout(20), serving as exchange, connected(exchange, PATH) as socket:
            before = [await socket.recv() for _ in range(60)]
            assert [message.encode() for message in before] == clean(capture)[:60]  # type: ignore[union-attr]
            pong = await socket.ping()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pong), 0.3)
            assert not exchange.finished.is_set()
            rest = await listen(exchange, PATH)
            assert rest == clean(capture)[60:], "who comes back gets what follows"
            socket.transport.abort()

    asyncio.run(run())


def test_session_cut_closes_and_who_returns_misses_nothing(capture: Path) -> None:
    async def run() -> None:
        names = ["session_cut:after=50,count=2,share=0.2"]
        async with serve(capture, "binance_usdm", faults=names, rng=stream(9)) as exchange:
            heard, sessions = [], 0
            while not exchange.finished.is_set():
                heard += await listen(exchange, PATH)
                sessions += 1
            assert heard == clean(capture)
            assert sessions == 3
            assert [entry["name"] for entry in exchange.injected] == ["session_cut"] * 2

    asyncio.run(run())


def test_session_cut_by_age(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_usdm", speed=1.0, faults=["session_cut:seconds=0.4"]) as exchange:
            started = monotonic()
            heard = await listen(exchange, PATH)
            assert 0.35 < monotonic() - started < 3
            assert 0 < len(heard) < len(clean(capture))
            assert exchange.injected[0]["seconds"] == 0.4

    asyncio.run(run())


def test_rate_limit_warns_then_bans(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_usdm", faults=["rate_limit:seconds=1"]) as exchange:
            first, second = await get(exchange, "/fapi/v1/time"), await get(exchange, "/fapi/v1/time")
            assert (first.status_code, first.headers["Retry-After"]) == (429, "1")
            assert (second.status_code, second.headers["Retry-After"]) == (418, "2")
            assert second.json()["code"] == -1003
            await asyncio.sleep(2)
            assert (await get(exchange, "/fapi/v1/time")).status_code == 200
            assert len(exchange.injected) == 1

    asyncio.run(run())


def test_stale_snapshot_is_older_than_all_that_was_sent(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_usdm", faults=["stale_snapshot"]) as exchange:
            heard = await listen(exchange, PATH)
            first = events(heard, "depthUpdate")[0]
            stale, fresh = (await get(exchange, DEPTH)).json(), (await get(exchange, DEPTH)).json()
            assert stale["lastUpdateId"] < first["pu"]
            assert fresh["lastUpdateId"] == events(heard, "depthUpdate")[-1]["u"]
            assert exchange.injected[0]["symbol"] == "BTCUSDT"

    asyncio.run(run())


def test_slow_snapshot_shows_the_book_of_the_request(tmp_path: Path) -> None:
    async def run() -> None:
        how: dict[str, Any] = {"seconds": 3, "speed": 4.0, "start_ns": wire.START_NS}
        async with serve("simulated", "binance_usdm", faults=["slow_snapshot:seconds=0.5"], **how) as exchange:
            listening = asyncio.create_task(listen(exchange, "/ws/btcusdt@depth"))
            await exchange.feed.started.wait()
            await asyncio.sleep(0.1)
            started = monotonic()
            late, prompt = (await get(exchange, DEPTH)).json(), (await get(exchange, DEPTH)).json()
            assert monotonic() - started >= 0.5
            assert late["lastUpdateId"] < prompt["lastUpdateId"]
            await listening

    asyncio.run(run())


def test_tls_refusal_meets_whoever_connects(capture: Path) -> None:
    async def run() -> None:
        async with serve(capture, "binance_usdm", faults=["tls_refusal:count=2"]) as exchange:
            with pytest.raises(InvalidMessage):
                async with connect(exchange.websocket_url + PATH):
                    pass
            with pytest.raises(ssl.SSLError):
                async with connect(exchange.websocket_url.replace("ws:", "wss:") + PATH):
                    pass
            assert await listen(exchange, PATH) == clean(capture)
            assert [entry["name"] for entry in exchange.injected] == ["tls_refusal"] * 2

    asyncio.run(run())


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), drops=st.integers(1, 4), doubles=st.integers(1, 4))
def test_faults_compose_and_a_seed_gives_the_same_ones(seed: int, drops: int, doubles: int) -> None:
    items = [Item(at, b"btcusdt@trade", wire.trade(at, "100.0", "1")) for at in range(300)]

    def spoiled() -> tuple[list[Item], list[dict[str, Any]]]:
        log: list[dict[str, Any]] = []
        chosen = [
            faults.parse_fault(f"drop:share=0.05,count={drops},after=3"),
            faults.parse_fault(f"duplicate:share=0.05,count={doubles}"),
        ]
        faults.bind_all(chosen, protocol_of("binance_usdm"), stream(seed), log)
        out = items
        for fault in chosen:
            out = [each for item in out for each in fault.publish(item)]  # type: ignore[misc]
        return out, log

    out, log = spoiled()
    again, other = spoiled()
    assert again == out
    assert [entry["ids"] for entry in other] == [entry["ids"] for entry in log]
    counts = Counter(entry["name"] for entry in log)
    assert len(out) == len(items) - counts["drop"] + counts["duplicate"]


def test_a_fault_can_be_held_to_a_symbol_and_a_stream() -> None:
    log: list[dict[str, Any]] = []
    drop = faults.parse_fault("drop:count=0,after=0,symbol=ETHUSDT,stream=quotes")
    drop.bind(protocol_of("binance_usdm"), stream(0), log)
    ticker = wire.ticker(7, "100.0", "1", "100.1", "1")
    for symbol, name, passes in (("eth", "bookTicker", 0), ("btc", "bookTicker", 1), ("eth", "trade", 1)):
        item = Item(0, f"{symbol}usdt@{name}".encode(), ticker)
        assert len(drop.publish(item)) == passes
    assert [(entry["symbol"], entry["stream"], entry["ids"]) for entry in log] == [("ETHUSDT", "quotes", [7, 7])]


def test_the_log_can_be_asked_for(capture: Path) -> None:
    async def run(exchange: Exchange) -> None:
        await listen(exchange, PATH)
        assert (await get(exchange, "/_faults")).json() == exchange.injected
        status = (await get(exchange, "/_status")).json()
        assert status == {"finished": True, "sent": exchange.sent}

    async def main() -> None:
        async with serve(capture, "binance_usdm", faults=["drop"]) as exchange:
            await run(exchange)

    asyncio.run(main())


def test_faults_that_do_not_exist_are_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown fault 'drip'.*Did you mean 'drop'"):
        faults.parse_fault("drip")
    with pytest.raises(UnknownNameError, match="parameter of the fault drop"):
        faults.parse_fault("drop:cout=3")
    with pytest.raises(InputError, match="count='x' is no int"):
        faults.parse_fault("drop:count=x")


def _is_json(payload: bytes) -> bool:
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True
