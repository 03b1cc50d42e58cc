"""`record` live and `replay`, as a person runs them: signals, JSON lines, metrics, and the way into ticks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth_pipeline import stages
from synth_pipeline.archives import rawlog
from synth_pipeline.capture import importing, metrics
from synth_pipeline.capture.figures import Figures
from synth_pipeline.cli import live
from synth_pipeline.errors import InputError
from synth_pipeline.schema import Instrument, Scale, day_of
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks import parquet
from tests import wire
from tests.scripted import Scripted, notes_of, payloads_of, record, until
from tests.test_cli import Invoke, invoke

__all__ = ["invoke"]
DAY = date.fromisoformat(wire.DAY)


@asynccontextmanager
async def _recording(exchange: Scripted, folder: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    urls = {"simulated": {"websocket": f"ws://{exchange.url}", "rest": f"http://{exchange.url}"}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "synth_pipeline", "record", "--venue", "simulated", "--symbols", "BTCUSDT"),
        *("--raw-dir", str(folder), "--json", *words),
        env=os.environ | {"SYNTH_VENUE_URLS": json.dumps(urls), "SYNTH_HOME": str(folder / "home")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: exchange.heard, 30.0)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    sent = [wire.trade(each, "100.0", "1") for each in range(1, 301)]

    async def run() -> tuple[int | None, bytes, bytes]:
        async with Scripted() as exchange, _recording(exchange, tmp_path) as process:
            await exchange.send(*sent)
            await asyncio.sleep(1.3)
            process.send_signal(number)
            out, err = await process.communicate()
            return process.returncode, out, err

    code, out, err = asyncio.run(run())
    assert code == 0, err
    assert err == b""
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0]["messages"] == 300
    assert lines[-1]["summary"]
    assert (lines[-1]["messages"], lines[-1]["dropped"], lines[-1]["gaps"]) == (300, 0, 0)
    assert payloads_of(tmp_path) == sent
    assert notes_of(tmp_path)[-1] == {"event": "stop", "reason": number.name}


def test_a_kill_and_a_restart_in_the_same_hour(tmp_path: Path) -> None:
    async def run() -> None:
        async with Scripted() as exchange:
            async with _recording(exchange, tmp_path) as process:
                await exchange.send(*(wire.trade(each, "100.0", "1") for each in range(1, 101)))
                await asyncio.sleep(1.0)
                process.kill()
                await process.wait()
            path = next(tmp_path.glob("*/*/*.rawlog"))
            assert not rawlog.is_being_written(path)
            with path.open("ab") as file:
                file.write(path.read_bytes()[16:60])
            exchange.heard.clear()
            async with _recording(exchange, tmp_path, "--for", "1s") as process:
                await exchange.send(wire.trade(101, "100.0", "1"))
                assert await process.wait() == 0

    asyncio.run(run())
    assert payloads_of(tmp_path) == [wire.trade(each, "100.0", "1") for each in range(1, 102)]
    assert [note["event"] for note in notes_of(tmp_path) if note["event"] != "clock"] == [
        *("start", "connected", "torn", "start", "connected", "stop")
    ]


def _tables(workspace: Workspace, instrument: Instrument, day: date, sources: list[Path]) -> dict[str, Any]:
    """Return the ticks of a day without what depends on when they were received."""
    stages.record(workspace, instrument, day, sources)
    made = stages.ingest(workspace, instrument, day)
    tables = {}
    for name in ("trades", "quotes", "book_levels"):
        path = made.file(workspace.folder("ticks", instrument, day), name)
        scale: Scale = parquet.read_scale(path)
        rows = parquet.read_table(path)
        tables[name] = {key: values for key, values in rows.items() if key not in {"recv_ns", "seq"}} | {
            "scale": np.array([str(scale.tick_size), str(scale.lot_size)])
        }
    return tables


def test_what_a_venue_sends_is_ingested_alike_live_and_from_a_file(tmp_path: Path) -> None:
    frames = wire.market(20)
    first, bridge, *rest = (payload for _, payload in frames)

    async def script(exchange: Scripted, recorder: Any) -> None:
        await exchange.send(first)
        await until(lambda: recorder.figures.snapshots)
        await exchange.send(*rest)
        await until(lambda: recorder.figures.messages == len(frames) - 1)

    def depth(path: str) -> tuple[int, bytes, dict[str, str]]:
        return (200, bridge, {}) if "depth" in path else (200, b'{"serverTime":1700006400000}', {})

    figures = record(tmp_path / "raw", script, rest=depth)
    assert figures.gaps == 0
    instrument = Instrument("simulated", "BTCUSDT")
    direct, recorded = (Workspace.of(Settings(home=tmp_path / name, tracking=False)) for name in ("direct", "recorded"))
    logs = sorted((tmp_path / "raw").rglob("*.rawlog"))
    assert stages.identify(logs, None, None) == instrument
    day = day_of(next(rawlog.read(logs[0])).received_ns)
    file = wire.write_capture(tmp_path / "capture.gz", frames)
    expected = _tables(direct, instrument, DAY, [file])
    found = _tables(recorded, instrument, day, logs)
    for name, columns in expected.items():
        for key, values in columns.items():
            np.testing.assert_array_equal(found[name][key], values, err_msg=f"{name}.{key}")


def test_a_restart_around_midnight_is_no_continuation(tmp_path: Path) -> None:
    midnight = wire.START_NS + 86_400 * 10**9
    lines = [
        rawlog.Record(midnight - 9, wire.trade(1, "100.0", "1")),
        rawlog.note("stop", midnight - 5, reason="asked to stop"),
        rawlog.note("start", midnight + 5, venue="simulated", symbol="BTCUSDT"),
        rawlog.Record(midnight + 9, wire.trade(2, "100.0", "1")),
    ]
    with rawlog.Writer(tmp_path / "both.rawlog") as log:
        for line in lines:
            log.append(line)
    for day in importing.days_of([tmp_path / "both.rawlog"]):
        archive = importing.archive_of(tmp_path / "both.rawlog")
        assert isinstance(archive, rawlog.RawLog)
        path = tmp_path / f"{day}.rawlog"
        written = importing.write_day(path, archive.lines(tmp_path / "both.rawlog"), day, "BTCUSDT")
        assert not written.continues_from_yesterday
        assert all(each.payload != rawlog.CONTINUES for each in rawlog.read(path))


def test_figures_are_served_to_prometheus() -> None:
    figures = Figures(messages=7, gaps=2, offset_ns=-1_500_000_000)
    figures.lags_ns.extend([10_000_000, 30_000_000])
    port = metrics.serve(figures, "binance_usdm", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    assert 'synth_recorder_messages_total{venue="binance_usdm"} 7.0' in text
    assert 'synth_recorder_gaps_total{venue="binance_usdm"} 2.0' in text
    assert 'synth_recorder_clock_offset_seconds{venue="binance_usdm"} -1.5' in text
    assert 'synth_recorder_lag_seconds{quantile="0.5",venue="binance_usdm"} 1.52' in text
    with pytest.raises(InputError, match="give another --metrics-port"):
        metrics.serve(figures, "binance_usdm", port)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1d", 86400), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert live.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5s", "0s", "ten minutes"])
def test_a_duration_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="is not of the form 90s"):
        live.seconds_of(text)


def test_wrong_words_are_one_line(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {
        ("--symbols", "BTCUSDT"): "give --venue with it",
        ("--venue", "binance_usd", "--symbols", "BTCUSDT"): "Did you mean 'binance_usdm'?",
        ("--venue", "simulated", "--symbols", " , "): "no symbols to record",
        ("--venue", "simulated", "--symbols", "BTC/USDT"): "not of the form venue.SYMBOL",
        ("--venue", "simulated", "--symbols", "BTCUSDT", "--for", "soon"): "duration 'soon'",
    }
    for words, part in lines.items():
        code, out, err = invoke("record", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert part in err
    (tmp_path / "taken").write_text("a file, no folder")
    code, _, err = invoke("record", "--venue", "simulated", "--symbols", "BTCUSDT", "--raw-dir", tmp_path / "taken")
    assert (code, "give another --raw-dir" in err) == (2, True), err
    monkeypatch.setenv("SYNTH_VENUE_URLS", "{nonsense")
    code, _, err = invoke("record", "--venue", "simulated", "--symbols", "BTCUSDT")
    assert (code, "no JSON" in err) == (2, True), err
    for urls, part in (
        ({"simulated": {"websocket": "127.0.0.1:9443"}}, "'127.0.0.1:9443' does not begin with ws:// or wss://"),
        (
            {"simulated": {"rest": "ws://127.0.0.1:9443"}},
            "'ws://127.0.0.1:9443' does not begin with http:// or https://",
        ),
        ({"simulate": {"websocket": "ws://127.0.0.1:9443"}}, "Did you mean 'simulated'?"),
    ):
        monkeypatch.setenv("SYNTH_VENUE_URLS", json.dumps(urls))
        code, _, err = invoke("record", "--venue", "simulated", "--symbols", "BTCUSDT", "--for", "1s")
        assert (code, err.count("\n"), part in err) == (2, 1, True), err


def test_replay_prints_records(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "day.rawlog"
    with rawlog.Writer(path) as log:
        log.append(rawlog.note("start", wire.START_NS, venue="simulated"))
        log.append(rawlog.Record(wire.START_NS + 1, b'{"a":1}', 0, 5, 2))
        log.append(rawlog.Record(wire.START_NS + 2, b"\xff", 0, 6, 2))
    code, out, _ = invoke("replay", path, "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["kind"] for line in lines] == ["note", "message", "message"]
    assert lines[1] == {
        "received_ns": wire.START_NS + 1,
        "monotonic_ns": 5,
        "connection": 2,
        "kind": "message",
        "payload": '{"a":1}',
    }
    _, out, _ = invoke("replay", path, "--limit", 2)
    assert out.splitlines()[1] == '2023-11-15T00:00:00.000000001   2   {"a":1}'
    assert len(out.splitlines()) == 2
    code, _, err = invoke("replay", tmp_path / "absent.rawlog")
    assert (code, "check the path" in err) == (2, True)
    path.write_bytes(path.read_bytes()[:-3])
    _, out, _ = invoke("replay", path)
    assert "torn" in out
