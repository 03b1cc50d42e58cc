"""Recordings served again: the bytes, the books, the pace, slow and many clients."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.archives.rawlog import CONTINUES, Kind, Record, Writer
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.exchange import feed
from synth_pipeline.exchange.book import Book
from synth_pipeline.exchange.protocol import Item, protocol_of
from synth_pipeline.exchange.server import serve
from synth_pipeline.exchange.sources import Recorded, Simulated
from synth_pipeline.exchange.state import State
from synth_pipeline.rng import stream
from synth_pipeline.venues import BookUpdate, Verdict
from tests import wire
from tests.exchange_clients import DictBook, ask, connected, events, get, listen

STREAMS = "btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade"
PATH = f"/stream?streams={STREAMS}"


@pytest.fixture(autouse=True)
def nobody_is_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_HELD_S", 0.3)
    monkeypatch.setattr(feed, "_SETTLED_S", 0.05)


def rawlog(path: Path, frames: list[tuple[int, bytes]], notes: bool = True) -> Path:
    with Writer(path) as log:
        if notes:
            log.append(Record(wire.START_NS, CONTINUES, Kind.EVENT))
        for offset, payload in frames:
            log.append(Record(wire.START_NS + offset, payload))
    return path


def served(frames: list[tuple[int, bytes]]) -> list[bytes]:
    return [payload for _, payload in frames if payload.startswith(b'{"stream"')]


@pytest.mark.parametrize("form", ["collector", "gzip", "raw log"])
def test_every_archive_is_served_byte_for_byte(tmp_path: Path, form: str) -> None:
    frames = wire.market(3)
    path = (
        rawlog(tmp_path / "x.rawlog", frames)
        if form == "raw log"
        else wire.write_capture(tmp_path / f"x.{'gz' if form == 'gzip' else 'txt'}", frames)
    )

    async def run() -> list[bytes]:
        async with serve(path, "binance_usdm") as exchange:
            heard = await listen(exchange, PATH)
            assert sum(exchange.sent.values()) == len(heard)
            return heard

    assert asyncio.run(run()) == served(frames)


def test_bare_events_are_wrapped_for_who_asks_for_them_so(tmp_path: Path) -> None:
    frames = wire.market(2)
    bare = [(at, json.dumps(json.loads(payload).get("data", json.loads(payload))).encode()) for at, payload in frames]
    path = wire.write_capture(tmp_path / "bare.txt", bare)

    async def run() -> list[bytes]:
        async with serve(path, "binance_usdm") as exchange:
            return await listen(exchange, PATH)

    assert [json.loads(message) for message in asyncio.run(run())] == [json.loads(line) for line in served(frames)]


def test_symbols_of_one_capture_are_served_apart(tmp_path: Path) -> None:
    def renamed(payload: bytes, symbol: str) -> bytes:
        named = payload.replace(b"BTCUSDT", symbol.encode()).replace(b"btcusdt", symbol.lower().encode())
        return named.replace(b'{"lastUpdateId"', b'{"symbol":"%b","lastUpdateId"' % symbol.encode())

    frames = [(at, renamed(payload, symbol)) for at, payload in wire.market(2) for symbol in ("BTCUSDT", "ETHUSDT")]
    path = wire.write_capture(tmp_path / "two.txt", frames)

    async def run() -> list[list[bytes]]:
        async with serve(path, "binance_usdm", clients=2) as exchange:
            paths = PATH, PATH.replace("btcusdt", "ethusdt")
            heard = await asyncio.gather(*(listen(exchange, each) for each in paths))
            books = [await ask(exchange, f"/fapi/v1/depth?symbol={each}USDT&limit=5") for each in ("BTC", "ETH")]
            assert books[0] == books[1]
            return heard

    for symbol, heard in zip((b"btcusdt", b"ethusdt"), asyncio.run(run()), strict=True):
        assert heard == [payload for payload in served(frames) if symbol in payload]


def test_the_recorded_snapshot_is_given_to_who_asks_first_and_nothing_overtakes_it(tmp_path: Path) -> None:
    """As fast as possible, the market stands still at a recorded depth answer until somebody asks for it."""
    frames = wire.market(3)
    recorded = next(payload for _, payload in frames if b"lastUpdateId" in payload)
    place = [payload for _, payload in frames].index(recorded)
    path = wire.write_capture(tmp_path / "x.txt", frames)

    async def run() -> None:
        async with serve(path, "binance_usdm") as exchange, connected(exchange, PATH) as socket:
            before = [await socket.recv() for _ in range(place)]
            asking = await get(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            assert asking.content == recorded
            assert len(before) == place
            await exchange.finished.wait()
            later = await get(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            assert later.json()["lastUpdateId"] == json.loads(served(frames)[-3])["data"]["u"]
            first = await get(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=5")
            assert first.json()["bids"][0] == ["100.0", json.loads(served(frames)[-3])["data"]["b"][0][1]]

    asyncio.run(run())


def test_a_smaller_depth_request_gets_a_cut_of_the_recorded_answer(tmp_path: Path) -> None:
    bids, asks = (
        [(f"{base + sign * level / 10:.1f}", "1.000") for level in range(9)] for base, sign in ((100, -1), (101, 1))
    )
    frames = [(1, wire.depth(95, 99, 91)), (2, wire.snapshot(100, bids, asks)), (3, wire.depth(101, 103, 100))]
    path = wire.write_capture(tmp_path / "x.txt", frames)

    async def run() -> Any:
        async with serve(path, "binance_usdm", speed=1.0) as exchange, connected(exchange, PATH):
            return await ask(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=5")

    answer = asyncio.run(run())
    assert [tuple(level) for level in answer["bids"]] == bids[:5]
    assert [tuple(level) for level in answer["asks"]] == asks[:5]


def bridged(snapshot: dict[str, Any], updates: list[dict[str, Any]]) -> DictBook:
    """Manage a local book as the futures documentation says, from a snapshot and all updates around it."""
    book, last = DictBook(snapshot["bids"], snapshot["asks"]), snapshot["lastUpdateId"]
    following = [update for update in updates if update["u"] > last]
    if following:
        assert following[0]["pu"] <= last, "the first update processed must reach back to the snapshot"
    for before, update in zip([None, *following], following, strict=False):
        assert before is None or update["pu"] == before["u"]
        book.change(update["b"], update["a"])
    return book


@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), moments=st.lists(st.integers(1, 400), min_size=1, max_size=4, unique=True))
def test_a_snapshot_at_any_moment_bridges_to_the_book_at_the_end(seed: int, moments: list[int]) -> None:
    """Whenever it is asked for, snapshot + following updates = the book at the end, by the documented steps."""

    async def run() -> tuple[list[Any], list[bytes], Any]:
        how: dict[str, Any] = {"start_ns": wire.START_NS, "seconds": 4, "rng": stream(seed, "bridge")}
        # Slowly enough that a request falls between messages, not behind all of them.
        async with serve("simulated", "binance_usdm", speed=8.0, **how) as exchange:
            heard = asyncio.create_task(listen(exchange, "/stream?streams=btcusdt@depth@0ms"))
            await exchange.feed.started.wait()
            snapshots = []
            for moment in sorted(moments):
                while sum(exchange.sent.values()) < moment / 8 and not exchange.finished.is_set():
                    await asyncio.sleep(0.001)
                snapshots.append(await ask(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"))
            messages = await heard
            return snapshots, messages, await ask(exchange, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")

    snapshots, heard, end = asyncio.run(run())
    updates = events(heard, "depthUpdate")
    for snapshot in snapshots:
        book = bridged(snapshot, updates)
        assert book.top(20) == [[tuple(level) for level in side[:20]] for side in (end["bids"], end["asks"])]


@pytest.mark.parametrize("venue", ["binance_spot", "binance_usdm", "bybit_linear"])
@given(data=st.data())
@settings(max_examples=15)
def test_a_snapshot_after_any_message_is_what_a_client_with_all_messages_has(venue: str, data: st.DataObject) -> None:
    """Without sockets, after every single message: the state's book equals a dict book fed with the same messages."""
    protocol = protocol_of(venue)
    how: dict[str, Any] = {"start_ns": wire.START_NS, "seconds": 3}
    source = Simulated(["BTCUSDT"], protocol, rng=stream(data.draw(st.integers(0, 99)), "state"), **how)
    state, mirror, rule = State(protocol, source.symbols), None, protocol.venue.sequence_rule()
    stops = data.draw(st.sets(st.integers(0, 300), min_size=1, max_size=10))
    for number, item in enumerate(chain(source.opening, source.items())):
        state.later(item)
        for update in state.read(item):
            if isinstance(update, BookUpdate) and update.snapshot:
                mirror = DictBook(map(list, update.bids), map(list, update.asks))
                rule.snapshot(update.last_id)
            elif isinstance(update, BookUpdate) and mirror is not None:
                assert rule.check(update) is Verdict.IN_ORDER
                mirror.change(map(list, update.bids), map(list, update.asks))
        if number in stops:
            book = state.book("BTCUSDT")
            assert book is not None
            assert mirror is not None
            assert [list(side) for side in book.top(50)] == mirror.top(50)
            assert book.applied_id == rule.last_id


def test_a_hole_in_the_recording_takes_the_book_away_until_its_next_snapshot() -> None:
    protocol = protocol_of("binance_usdm")
    state = State(protocol, ["BTCUSDT"])

    def take(payload: bytes) -> None:
        state.now(Item(wire.START_NS, protocol.stream_of(payload) or b"", payload))

    take(wire.snapshot(100, [("100.0", "5.000")], [("100.1", "5.000")]))
    take(wire.depth(101, 103, 100, [("100.0", "6.000")]))
    book = state.book("BTCUSDT")
    assert book is not None
    assert book.top(1)[0] == [("100.0", "6.000")]
    take(wire.depth(107, 109, 106, [("100.0", "7.000")]))
    assert state.book("BTCUSDT") is None
    assert state.waits_for("BTCUSDT")
    take(wire.depth(110, 112, 109, [("99.9", "1.000")]))
    take(wire.snapshot(108, [("100.0", "7.500")], [("100.1", "5.000")]))
    book = state.book("BTCUSDT")
    assert book is not None
    assert book.applied_id == 112, "what came before the snapshot and is newer belongs to it"
    assert book.top(2)[0] == [("100.0", "7.000"), ("99.9", "1.000")]


def test_a_book_keeps_the_venue_s_own_strings() -> None:
    book = Book(protocol_of("binance_spot").venue.sequence_rule())
    bids = [("100.10000000", "5.00000000"), ("9.90000000", "1.00000000")]
    book.apply(BookUpdate("X", 0, 7, 7, None, bids, [("100.20000000", "2.00000000")], snapshot=True))
    book.apply(BookUpdate("X", 0, 8, 9, None, [("20.00000000", "3.00000000"), ("9.90000000", "0.00000000")], []))
    assert book.top(5) == ([bids[0], ("20.00000000", "3.00000000")], [("100.20000000", "2.00000000")])


def test_a_pace_is_kept(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "x.txt", wire.market(4))

    async def run() -> tuple[float, float, int]:
        async with serve(path, "binance_usdm", speed=4.0) as exchange:
            started = monotonic()
            await listen(exchange, PATH)
            first = (await ask(exchange, "/fapi/v1/time"))["serverTime"]
            await asyncio.sleep(0.2)
            second = (await ask(exchange, "/fapi/v1/time"))["serverTime"]
            return monotonic() - started, first, second

    lasted, first, second = asyncio.run(run())
    assert lasted >= 3.9 / 4
    assert second - first >= 4 * 200, "the market's clock goes on at its pace"


def test_stamps_move_to_now_when_asked(tmp_path: Path) -> None:
    from time import time_ns

    path = wire.write_capture(tmp_path / "x.txt", wire.market(1))

    async def run() -> tuple[list[bytes], Any]:
        async with serve(path, "binance_usdm", retime=True) as exchange:
            return await listen(exchange, PATH), await ask(exchange, "/fapi/v1/time")

    heard, clock = asyncio.run(run())
    moved = events(heard, "depthUpdate")
    original = events(served(wire.market(1)), "depthUpdate")
    shifts = {after["E"] - before["E"] for before, after in zip(original, moved, strict=True)}
    assert len(shifts) == 1
    assert abs(moved[0]["E"] - 400_000 - time_ns() // 10**6) < 600_000 or shifts.pop() > 0
    assert abs(clock["serverTime"] - time_ns() // 10**6) < 60_000


def test_clients_come_and_go_and_each_gets_its_own(tmp_path: Path) -> None:
    """As fast as possible, the market waits for a client that was cut off: nothing is lost over a reconnect."""
    frames = wire.market(60)
    path = wire.write_capture(tmp_path / "x.txt", frames)

    async def run() -> tuple[list[bytes], list[bytes]]:
        async with serve(path, "binance_usdm", clients=2, faults=["session_cut:after=500,stream=trades"]) as exchange:

            async def persistent() -> list[bytes]:
                heard: list[bytes] = []
                while not exchange.finished.is_set():
                    heard += await listen(exchange, "/ws/btcusdt@trade")
                return heard

            return await asyncio.gather(persistent(), persistent())

    first, second = asyncio.run(run())
    trades = [json.loads(payload)["data"] for payload in served(frames) if b'"trade"' in payload]
    assert [json.loads(event) for event in first] == trades
    assert first == second


def test_a_slow_client_bounds_what_is_in_memory_and_loses_nothing(tmp_path: Path) -> None:
    pad = "9" * 2000
    frames = [(number * 1000, wire.trade(number, "100.0", f"1.{pad}")) for number in range(1, 8001)]
    path = wire.write_capture(tmp_path / "x.gz", frames)

    async def run() -> int:
        async with (
            serve(path, "binance_usdm", patience_s=20) as exchange,
            connected(exchange, "/ws/btcusdt@trade") as socket,
        ):
            socket.transport.pause_reading()
            await exchange.feed.started.wait()
            await asyncio.sleep(0.3)
            (client,) = exchange.feed._clients
            assert client.connection.transport.get_write_buffer_size() < 4 * 2**20
            assert not exchange.finished.is_set()
            socket.transport.resume_reading()
            return len([await socket.recv() for _ in frames])

    assert asyncio.run(run()) == len(frames)


def test_a_long_recording_takes_no_more_memory(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        path = rawlog(tmp_path / f"{seconds}.rawlog", wire.market(seconds))

        async def run() -> None:
            async with serve(path, "binance_usdm") as exchange, connected(exchange, PATH, 512) as socket:
                async for _ in socket:
                    if exchange.finished.is_set():
                        return

        tracemalloc.start()
        asyncio.run(run())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)
    assert peak(300) < peak(60) + 2_000_000


def test_sources_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "x.txt", wire.market(1))
    with pytest.raises(NoDataError, match="choose the venue"):
        Recorded([path], protocol_of("bybit_linear"))
    with pytest.raises(InputError, match="does not exist"):
        Recorded([tmp_path / "absent"], protocol_of("binance_usdm"))

    with pytest.raises(InputError, match=r"BTCUSDT is none of binance_coinm .*try BTCUSD_PERP"):
        Simulated(["BTCUSDT"], protocol_of("binance_coinm"), start_ns=wire.START_NS, rng=stream(0))

    async def taken() -> None:
        async with serve(path, "binance_usdm") as exchange, serve(path, "binance_usdm", port=exchange.port):
            pass

    with pytest.raises(InputError, match="choose another --port"):
        asyncio.run(taken())


REAL = {
    "binance_usdm_btcusdt_20240808.gz": ("binance_usdm", "btcusdt@depth@0ms/btcusdt@bookTicker/btcusdt@trade"),
    "binance_spot_btcusdt_20240808.gz": ("binance_spot", "btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade"),
    "binance_coinm_btcusd_perp_20240808.gz": (
        "binance_coinm",
        "btcusd_perp@depth@0ms/btcusd_perp@bookTicker/btcusd_perp@trade",
    ),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_captures_come_back_byte_for_byte_and_bridge(real: Callable[[str], Path], name: str) -> None:
    venue, streams = REAL[name]
    path, count = real(name), 20_000
    protocol = protocol_of(venue)

    async def run() -> tuple[list[bytes], bytes, Any]:
        heard: list[bytes] = []
        async with serve(path, venue) as exchange, connected(exchange, f"/stream?streams={streams}") as socket:
            target = f"{protocol.rest.root(protocol.venue)}/depth?symbol={streams.partition('@')[0].upper()}&limit="  # type: ignore[attr-defined]
            first = (await get(exchange, f"{target}1000")).content
            async for message in socket:
                heard.append(message.encode())  # type: ignore[union-attr]
                if len(heard) == count:
                    break
            later = await ask(exchange, f"{target}100")
            return heard, first, later

    heard, first, later = asyncio.run(run())
    with gzip.open(path) as lines:
        payloads = (line.rstrip().partition(b" ")[2] for line in lines)
        events_of = (payload for payload in payloads if payload.startswith(b'{"stream"'))
        assert heard == [payload for payload, _ in zip(events_of, range(count), strict=False)]
    assert json.loads(first)["lastUpdateId"] <= later["lastUpdateId"]
    assert float(later["bids"][0][0]) < float(later["asks"][0][0])


def test_a_real_bybit_recording_comes_back_in_its_own_words(real: Callable[[str], Path], tmp_path: Path) -> None:
    """The recording stands in another recorder's envelope; what it received is served as received."""
    raw = zstandard.ZstdDecompressor().stream_reader(real("bybit_v5_raw_20260809.jsonl.zst").open("rb"))
    received = [json.loads(line) for line in io.TextIOWrapper(raw, encoding="utf-8")]
    linear = next(each["conn"] for each in received if each.get("addr", "").endswith("/linear"))
    frames = [
        (int(each["ts"] * 1e9), each["data"].encode())
        for each in received
        if each["t"] == "recv" and each["conn"] == linear
    ]
    path = tmp_path / "bybit.rawlog"
    with Writer(path) as log:
        for at_ns, payload in frames:
            log.append(Record(at_ns, payload))
    topics = sorted({json.loads(payload).get("topic", "") for _, payload in frames} - {""})

    async def run() -> tuple[list[bytes], Any]:
        async with serve(path, "bybit_linear") as exchange:
            heard = await listen(
                exchange, "/v5/public/linear", [json.dumps({"op": "subscribe", "args": topics, "req_id": "1"})]
            )
            return heard, await ask(exchange, "/v5/market/orderbook?category=linear&symbol=BTCUSDT&limit=50")

    heard, book = asyncio.run(run())
    assert json.loads(heard[0])["success"] is True
    assert heard[1:] == [payload for _, payload in frames if b'"topic"' in payload]
    mirror = None
    for payload in heard[1:]:
        message = json.loads(payload)
        if message["topic"] == "orderbook.200.BTCUSDT":
            if message["type"] == "snapshot":
                mirror = DictBook(message["data"]["b"], message["data"]["a"])
            else:
                assert mirror is not None
                mirror.change(message["data"]["b"], message["data"]["a"])
    assert mirror is not None
    assert mirror.top(50) == [[tuple(level) for level in book["result"][side]] for side in "ba"]


def test_of_a_recording_of_two_venues_only_one_is_served(real: Callable[[str], Path]) -> None:
    path = real("bybit_v5_raw_20260809.jsonl.zst")
    served = {}
    for venue in ("bybit_linear", "bybit_spot"):
        protocol = protocol_of(venue)
        served[venue] = {item.payload for item in Recorded([path], protocol).items()}
    assert served["bybit_linear"]
    assert served["bybit_spot"]
    assert not served["bybit_linear"] & served["bybit_spot"]


def test_a_market_of_now_tells_the_time_before_it_starts() -> None:
    async def run() -> tuple[int, int]:
        async with serve("simulated", "binance_usdm", speed=1.0) as exchange:
            first = (await ask(exchange, "/fapi/v1/time"))["serverTime"]
            await asyncio.sleep(0.05)
            return first, (await ask(exchange, "/fapi/v1/time"))["serverTime"]

    first, second = asyncio.run(run())
    assert second >= first + 40
