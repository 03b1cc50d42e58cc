"""The recorder against a venue on loopback that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from pathlib import Path

import pytest

from synth_pipeline.archives import rawlog
from synth_pipeline.capture import logfile
from synth_pipeline.capture.recorder import Plan, Recorder
from synth_pipeline.capture.session import Limits
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.rng import stream
from tests import wire
from tests.scripted import QUICK, Scripted, notes_of, payloads_of, record, records_of, until

BIDS, ASKS = [("100.0", "5.000")], [("100.1", "5.000")]


def _answering(*ids: int, also: dict[int, tuple[int, bytes, dict[str, str]]] | None = None):  # type: ignore[no-untyped-def]
    """A REST side whose n-th depth answer is the n-th id, the last one for ever; `also` puts others in between."""
    asked = iter(range(10**6))

    def rest(path: str) -> tuple[int, bytes, dict[str, str]]:
        if "depth" not in path:
            return 200, b'{"serverTime":1700006400000}', {}
        number = next(asked)
        if also and number in also:
            return also[number]
        return 200, wire.snapshot(ids[min(number, len(ids) - 1)], BIDS, ASKS), {}

    return rest


def _depth(first: int, last: int, previous: int, symbol: str = "BTCUSDT") -> bytes:
    return wire.depth(first, last, previous, BIDS, symbol=symbol)


def _names(folder: Path, symbol: str = "BTCUSDT") -> list[str]:
    return [note["event"] for note in notes_of(folder, symbol) if note["event"] != "clock"]


def test_everything_sent_is_recorded_in_order_between_start_and_stop(tmp_path: Path) -> None:
    sent = [payload for _, payload in wire.market(3) if b"lastUpdateId" not in payload]

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(*sent)
        await until(lambda: recorder.figures.snapshots)

    figures = record(tmp_path, script, rest=_answering(100))
    assert payloads_of(tmp_path) == sent
    assert _names(tmp_path) == ["start", "connected", "stop"]
    assert notes_of(tmp_path)[0] | {"version": ""} == {
        "event": "start",
        "venue": "simulated",
        "symbol": "BTCUSDT",
        "streams": ["depth@0ms", "bookTicker", "trade"],
        "version": "",
    }
    assert (figures.messages, figures.gaps, figures.dropped, figures.repeated) == (len(sent), 0, 0, 0)
    records = records_of(tmp_path)
    assert [each.monotonic_ns for each in records] == sorted(each.monotonic_ns for each in records)
    assert all(abs(each.received_ns - time.time_ns()) < 60 * 10**9 for each in records)
    assert wire.snapshot(100, BIDS, ASKS) in [each.payload for each in records if not each.connection]


def test_a_gap_fetches_a_snapshot_of_that_symbol_only(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(_depth(101, 105, 100), _depth(101, 105, 100, "ETHUSDT"))
        await until(lambda: recorder.figures.snapshots == 2)
        await exchange.send(_depth(106, 110, 105), _depth(106, 110, 105, "ETHUSDT"))
        await exchange.send(_depth(121, 125, 120), _depth(111, 115, 110, "ETHUSDT"))
        await until(lambda: recorder.figures.snapshots == 3)

    figures = record(tmp_path, script, symbols=("BTCUSDT", "ETHUSDT"), rest=_answering(102, 102, 123))
    assert (figures.gaps, figures.snapshots, figures.connects) == (1, 3, 1)
    assert [note for note in notes_of(tmp_path) if note["event"] == "gap"] == [
        {"event": "gap", "stream": "book_levels", "last_id": 110, "first_id": 121}
    ]
    assert "gap" not in _names(tmp_path, "ETHUSDT")
    assert sum(not each.connection and not each.kind for each in records_of(tmp_path)) == 2
    assert sum(not each.connection and not each.kind for each in records_of(tmp_path, "ETHUSDT")) == 1


def test_a_missing_trade_is_noted(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(*(wire.trade(number, "100.0", "1") for number in (7, 8, 11)))
        await until(lambda: recorder.figures.gaps)

    record(tmp_path, script)
    assert {"event": "gap", "stream": "trades", "last_id": 8, "first_id": 11} in notes_of(tmp_path)


def test_a_snapshot_older_than_the_buffer_is_asked_for_again(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(_depth(101, 105, 100))
        await until(lambda: len(exchange.snapshots_asked()) == 3)
        await asyncio.sleep(0.2)

    figures = record(tmp_path, script, rest=_answering(90, 95, 103))
    assert (figures.snapshots, figures.snapshot_failures) == (3, 2)
    assert _names(tmp_path).count("snapshot_failed") == 2


def test_the_venue_is_left_alone_for_as_long_as_it_says(tmp_path: Path) -> None:
    asked: list[float] = []

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(_depth(101, 105, 100))
        await until(lambda: recorder.figures.snapshots)
        asked.extend(exchange.snapshots_asked())

    refused = {0: (429, b'{"code":-1003}', {"Retry-After": "1"}), 1: (500, b"", {})}
    figures = record(tmp_path, script, rest=_answering(103, also=refused))
    assert figures.snapshot_failures == 2
    assert asked[1] - asked[0] >= 1.0
    assert [note["reason"][:8] for note in notes_of(tmp_path) if note["event"] == "snapshot_failed"] == [
        "HTTP 429",
        "HTTP 500",
    ]


def test_a_lost_connection_is_noted_and_replaced(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(wire.trade(1, "100.0", "1"))
        await until(lambda: recorder.figures.messages == 1)
        exchange.refuse_with = [503, 418]
        exchange.clients[0].transport.abort()
        await until(lambda: len(exchange.clients) == 2)
        await exchange.send(wire.trade(3, "100.0", "1"))
        await until(lambda: recorder.figures.messages == 2)
        await exchange.clients[1].close(1001, "going away")
        await until(lambda: len(exchange.clients) == 3)

    figures = record(tmp_path, script)
    notes = [note for note in notes_of(tmp_path) if note["event"] != "clock"]
    assert [note["event"] for note in notes] == [
        *("start", "connected", "disconnected", "connect_failed", "connect_failed", "connected"),
        *("gap", "disconnected", "connected", "stop"),
    ]
    assert [note["reason"] for note in notes if note["event"] == "disconnected"] == [
        "connection lost",
        "closed by the venue: 1001 going away",
    ]
    connections = [note["connection"] for note in notes if note["event"] == "connected"]
    assert len(set(connections)) == 3
    assert (figures.connects, figures.connect_failures, figures.disconnects) == (3, 2, 2)


def test_a_successor_takes_over_without_loss_or_duplicate(tmp_path: Path) -> None:
    """Both connections carry all messages from the moment they are open; the new one lags, then leads."""
    sent = [payload for _, payload in wire.market(12) if b"lastUpdateId" not in payload]

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        at: dict[int, int] = {}
        number = 0
        while number < len(sent) or any(place < number for place in at.values()):
            number = min(number + 3, len(sent))
            for client in range(len(exchange.clients)):
                if client not in at:
                    at[client] = max(0, number - 3)
                if exchange.clients[client].state.name != "OPEN":
                    at[client] = number
                behind = 0 if client % 2 == number % 2 or number == len(sent) else 2
                upto = max(at[client], number - behind)
                await exchange.send(*sent[at[client] : upto], client=client)
                at[client] = upto
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)

    figures = record(tmp_path, script, rest=_answering(100), session_seconds=0.3, overlap_seconds=2.0)
    for kind in (b"depthUpdate", b"bookTicker", b'"trade"'):
        assert [each for each in payloads_of(tmp_path) if kind in each] == [each for each in sent if kind in each]
    assert figures.handovers >= 2
    assert figures.duplicates > 0
    assert (figures.gaps, figures.disconnects) == (0, 0)


@pytest.mark.parametrize("silent", ["connection", "stream"])
def test_silence_reconnects(tmp_path: Path, silent: str) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        for number in range(1, 400):
            if len(exchange.clients) > 1:
                return
            if number < 30:
                await exchange.send(wire.ticker(number, "100.0", "1", "100.1", "1"))
            if silent == "stream" or number < 30:
                await exchange.send(_depth(number, number, number - 1))
            await asyncio.sleep(0.005)

    figures = record(tmp_path, script, rest=_answering(1), stall_seconds=0.4)
    assert figures.stalls == 1
    reason = next(note["reason"] for note in notes_of(tmp_path) if note["event"] == "disconnected")
    assert reason == (
        "stalled: the connection is silent" if silent == "connection" else "stalled: quotes of BTCUSDT are silent"
    )


def test_a_peer_that_no_longer_answers_pings_is_left(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        exchange.clients[0].transport.pause_reading()
        await until(lambda: len(exchange.clients) == 2)
        await exchange.send(wire.trade(1, "100.0", "1"))
        await until(lambda: recorder.figures.messages)

    record(tmp_path, script, ping_seconds=0.2)
    assert "keepalive ping timeout" in next(
        note["reason"] for note in notes_of(tmp_path) if note["event"] == "disconnected"
    )


def test_garbage_is_kept_and_an_oversize_frame_ends_the_connection(tmp_path: Path) -> None:
    garbage = [b"<html>busy</html>", b'{"stream":"btcusdt@trade","data":{"s":"BTCU']

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(*garbage)
        await until(lambda: recorder.figures.garbage == 2)
        await exchange.send(b'{"filler":"' + b"x" * 20_000 + b'"}')
        await until(lambda: len(exchange.clients) == 2)

    record(tmp_path, script, message_bytes=10_000)
    assert payloads_of(tmp_path) == garbage
    assert "1009" in next(note["reason"] for note in notes_of(tmp_path) if note["event"] == "disconnected")


class _Disk:
    """Stands in for `os.pwrite` of the log files: as slow, or as full, as the test wants."""

    def __init__(self) -> None:
        self.is_stuck = self.is_full = False
        self._write = os.pwrite

    def __call__(self, file: int, data: bytes, offset: int) -> int:
        while self.is_stuck:
            time.sleep(0.01)
        if self.is_full:
            self._write(file, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(file, data, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> _Disk:
    found = _Disk()
    monkeypatch.setattr(logfile.os, "pwrite", found)
    return found


@pytest.mark.parametrize("trouble", ["is_stuck", "is_full"])
def test_a_slow_or_full_disk_costs_counted_messages_and_no_memory(tmp_path: Path, disk: _Disk, trouble: str) -> None:
    held: list[int] = []

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(*(wire.trade(number, "100.0", "1") for number in range(1, 11)))
        await asyncio.sleep(0.3)
        setattr(disk, trouble, True)
        for start in range(11, 2011, 100):
            await exchange.send(*(wire.trade(number, "100.0", "1") for number in range(start, start + 100)))
            await asyncio.sleep(0.02)
            held.append(recorder.figures.held_bytes)
        await until(lambda: recorder.figures.dropped)
        setattr(disk, trouble, False)
        await until(lambda: not recorder.figures.held_bytes)
        await exchange.send(*(wire.trade(number, "100.0", "1") for number in range(2011, 2021)))
        await until(lambda: recorder.figures.messages == 2020)

    figures = record(tmp_path, script, buffer_bytes=50_000)
    kept = [json.loads(payload)["data"]["t"] for payload in payloads_of(tmp_path)]
    dropped = [note for note in notes_of(tmp_path) if note["event"] == "dropped"]
    assert max(held) <= 50_000
    assert figures.dropped == sum(note["messages"] for note in dropped) == 2020 - len(kept) > 0
    assert kept == sorted(kept)
    assert kept[-10:] == list(range(2011, 2021))
    (first, *_) = dropped
    place = next(
        at for at, each in enumerate(records_of(tmp_path)) if each.kind and b'"event":"dropped"' in each.payload
    )
    before, after = records_of(tmp_path)[place - 1], records_of(tmp_path)[place]
    assert before.received_ns <= first["since_ns"] <= after.received_ns


def test_a_disk_that_stays_full_ends_the_recording_all_the_same(
    tmp_path: Path, disk: _Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synth_pipeline.capture.disk._LAST_TRIES_SECONDS", 0.3)

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(wire.trade(1, "100.0", "1"))
        await asyncio.sleep(0.3)
        disk.is_full = True
        await exchange.send(wire.trade(2, "100.0", "1"))
        await until(lambda: recorder.figures.messages == 2)

    figures = record(tmp_path, script)
    assert "bytes were never written" in str(figures.fault)
    assert [json.loads(payload)["data"]["t"] for payload in payloads_of(tmp_path)] == [1]


def test_a_restart_in_the_same_hour_appends(tmp_path: Path) -> None:
    for number in (1, 2):

        async def script(exchange: Scripted, recorder: Recorder, number: int = number) -> None:
            await exchange.send(wire.trade(number, "100.0", "1"))
            await until(lambda: recorder.figures.messages)

        record(tmp_path, script)
    assert payloads_of(tmp_path) == [wire.trade(1, "100.0", "1"), wire.trade(2, "100.0", "1")]
    assert [name for name in _names(tmp_path) if name in {"start", "stop"}] == ["start", "stop"] * 2


def test_a_file_that_is_taken_or_no_log_is_refused(tmp_path: Path) -> None:
    async def second(exchange: Scripted, recorder: Recorder) -> None:
        path = next(tmp_path.glob("*/*/*.rawlog"))
        assert rawlog.is_being_written(path)
        with pytest.raises(InputError, match="is being written by another recorder"):
            logfile.LogFile(path)
        await exchange.send(wire.trade(1, "100.0", "1"))
        await until(lambda: recorder.figures.messages)

    record(tmp_path, second)
    path = next(tmp_path.glob("*/*/*.rawlog"))
    assert not rawlog.is_being_written(path)
    path.write_bytes(b"something of somebody else's")
    with pytest.raises(InputError, match="no raw log"):
        logfile.LogFile(path)
    assert path.read_bytes() == b"something of somebody else's"


def test_a_venue_that_sends_nothing_is_named(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        return

    with pytest.raises(NoDataError, match="nothing came from ws://127"):
        record(tmp_path, script)


def test_a_symbol_that_the_venue_does_not_have_is_named_with_its_answer(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(b'{"result":null,"id":1}')
        await until(lambda: recorder.figures.snapshot_failures)

    def rest(path: str) -> tuple[int, bytes, dict[str, str]]:
        return 400, b'{"code":-1121,\n"msg":"Invalid symbol."}', {}

    with pytest.raises(
        NoDataError, match=r"nothing came from ws://127.* \(snapshot of NOSUCH: HTTP 400: .*Invalid"
    ) as it:
        record(tmp_path, script, symbols=("NOSUCH",), rest=rest)
    assert "\n" not in str(it.value)


def test_a_new_file_opens_with_a_snapshot(tmp_path: Path) -> None:
    async def script(exchange: Scripted, recorder: Recorder) -> None:
        await exchange.send(_depth(101, 105, 100))
        await until(lambda: recorder.figures.snapshots == 1)
        (tape,) = recorder._tapes.values()
        tape.log._end_ns = 0  # as if the hour were over
        await exchange.send(_depth(106, 110, 105))
        await until(lambda: recorder.figures.snapshots == 2)

    figures = record(tmp_path, script, rest=_answering(103, 108))
    assert (figures.gaps, figures.snapshot_failures) == (0, 0)


def test_a_successor_that_is_refused_leaves_the_old_connection_alone(tmp_path: Path) -> None:
    sent = [wire.trade(number, "100.0", "1") for number in range(1, 61)]

    async def script(exchange: Scripted, recorder: Recorder) -> None:
        exchange.refuse_with = [503] * 1000
        for number, payload in enumerate(sent):
            await exchange.send(payload, client=0)
            await asyncio.sleep(0.01)
            if number == 40:
                exchange.clients[0].transport.abort()
                await until(lambda: recorder.figures.disconnects)
                exchange.refuse_with = []
                await until(lambda: len(exchange.clients) == 2)
        await exchange.send(wire.trade(61, "100.0", "1"))
        await until(lambda: recorder.figures.gaps)

    figures = record(tmp_path, script, session_seconds=0.3)
    assert payloads_of(tmp_path) == [*sent[:41], wire.trade(61, "100.0", "1")]
    assert figures.disconnects == 1
    names = _names(tmp_path)
    assert names.index("disconnected") < len(names) - 1 - names[::-1].index("connected")


def test_a_refused_handshake_is_tried_again_and_named(tmp_path: Path) -> None:
    async def run() -> str:
        async with Scripted() as exchange:
            urls = {"websocket": f"wss://{exchange.url}", "rest": f"http://{exchange.url}"}
            plan = Plan.of("simulated", ["BTCUSDT"], tmp_path, urls=urls)  # type: ignore[arg-type]
            limits = Limits(**QUICK)
            with pytest.raises(NoDataError) as refused:
                await Recorder(plan, rng=stream(0, "tls"), limits=limits).run(0.5)
            return str(refused.value)

    message = asyncio.run(run())
    assert message.startswith("nothing came from wss://")
    assert "Error: " in message  # TLS spoken to a server that speaks none: reset or refused, as the system has it
    assert "\n" not in message
