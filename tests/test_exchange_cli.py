"""The command `exchange`, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from tests import wire


@contextmanager
def running(*words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "synth_pipeline", "exchange", *words, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def test_it_says_when_it_is_ready_and_when_all_is_sent_and_stops_on_a_signal(tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "x.txt", wire.market(30))
    table = tmp_path / "bars.csv"
    table.write_text("time,open,high,low,close,volume\n2023-11-15 00:00,1,3,0.5,2,10\n2023-11-15 00:01,2,2,1,1,5\n")
    words = [
        "--venue",
        "binance_usdm",
        "--source",
        str(path),
        "--speed",
        "max",
        "--fault",
        "drop:after=10,stream=trades",
    ]
    with running(*words, "--bars", f"ETHUSDT={table}") as (process, ready):
        urls = ready["urls"]["binance_usdm"]
        with connect(urls["websocket"] + "/ws/btcusdt@trade") as socket:
            trades = [json.loads(socket.recv())["t"] for _ in range(298)]
            assert process.stdout is not None
            done = json.loads(process.stdout.readline())
        assert done["event"] == "finished"
        assert [entry["name"] for entry in done["injected"]] == ["drop"]
        assert set(range(1, 300)) - set(trades) == {done["injected"][0]["ids"][0]}
        with urlopen(urls["rest"] + "/fapi/v1/klines?symbol=ETHUSDT&interval=1m") as answer:
            rows = json.load(answer)
        assert [[float(value) for value in row[1:6]] for row in rows] == [[1, 3, 0.5, 2, 10], [2, 2, 1, 1, 5]]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--venue", "binance_usdm"], "nothing to serve"),
        (["--venue", "nope", "--source", "simulated"], "unknown venue 'nope'"),
        (["--venue", "binance_usdm", "--source", "absent.gz"], "absent.gz does not exist"),
        (["--venue", "binance_usdm", "--source", "simulated", "--speed", "fast"], "--speed 'fast' is no pace"),
        (["--venue", "binance_usdm", "--source", "simulated", "--fault", "drip"], "unknown fault 'drip'"),
        (["--venue", "binance_usdm", "--bars", "x.csv"], "--bars 'x.csv' is not of the form"),
    ],
)
def test_wrong_words_are_named_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    from synth_pipeline import cli

    asyncio.set_event_loop(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["synth-pipeline", "exchange", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_recording_that_breaks_off_is_named_when_it_is_reached(tmp_path: Path) -> None:
    whole = wire.write_capture(tmp_path / "x.gz", wire.market(900)).read_bytes()
    path = tmp_path / "torn.gz"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    words = ["--venue", "binance_usdm", "--source", str(path), "--speed", "max"]
    with running(*words) as (process, ready):
        with connect(ready["urls"]["binance_usdm"]["websocket"] + "/ws/btcusdt@trade") as socket:
            assert sum(1 for _ in socket) > 1000
        assert process.wait(10) == 2
        assert process.stderr is not None
        assert "torn.gz is truncated or damaged" in process.stderr.read()
