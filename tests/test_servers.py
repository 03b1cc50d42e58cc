"""`up` really serves both UIs, shows our graph, and takes every child down with it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest

from synth_pipeline.errors import InputError
from synth_pipeline.orchestration import servers
from synth_pipeline.settings import Settings


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((servers.HOST, 0))
        return int(probe.getsockname()[1])


def _query(port: int, text: str) -> Any:
    body = json.dumps({"query": text}).encode()
    request = Request(f"http://{servers.HOST}:{port}/graphql", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def _wait_for_dagster(port: int) -> None:
    deadline = time.monotonic() + servers.READY_SECONDS
    while True:
        try:
            assert _query(port, "{ version }")["version"]
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((servers.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} is in use: .*--port or --mlflow-port"):
            servers.up(Settings(home=tmp_path), port, _free_port(), lambda _: None)


def _descendants(process: psutil.Process, word: str) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if word in child.cmdline():
                found.append(child)
    return found


@pytest.mark.slow
def test_up_shows_health_revives_what_is_killed_and_one_key_on_its_terminal_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, mlflow_port = _free_port(), _free_port()
    code = (
        "from synth_pipeline import cli; from synth_pipeline.orchestration import servers; servers._STEADY_SECONDS = 0"
    )
    words = ["synth-pipeline", "up", "--port", str(port), "--mlflow-port", str(mlflow_port)]
    command = [
        sys.executable,
        "-c",
        f"import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {code}; sys.argv = {words!r}; cli.main()",
    ]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        env=os.environ | {"SYNTH_HOME": str(tmp_path / "home"), "NO_COLOR": "1", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(ours)
    parent = psutil.Process(process.pid)
    try:
        terminal.wait_for(f"Dagster UI: http://{servers.HOST}:{port} answers")
        terminal.wait_for(f"MLflow UI: http://{servers.HOST}:{mlflow_port} answers")
        terminal.wait_for("daemons: well")
        nodes = _query(port, "{ assetNodes { assetKey { path } } }")["assetNodes"]
        assert {"wgan_gp fidelity_report", "wgan_gp champion", "leaderboard"} <= {
            " ".join(node["assetKey"]["path"]) for node in nodes
        }
        for word in ("dagster_webserver", "mlflow"):
            _descendants(parent, word)[0].kill()
        terminal.wait_for("Dagster UI stopped with exit code")
        terminal.wait_for("MLflow UI stopped with exit code")
        _wait_for_dagster(port)
        _descendants(parent, "dagster._daemon")[0].kill()
        terminal.wait_for("Dagster UI stopped with exit code", times=2)
        children = parent.children(recursive=True)
    finally:
        os.write(ours, b"\x03")
        ended = process.wait(timeout=120)
    assert ended == 0
    assert "Traceback" not in terminal.text
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert {entry.name for entry in tmp_path.iterdir()} == {"home"}  # nothing is dropped where it was started


class Terminal:
    """What a program writes on its terminal."""

    def __init__(self, end: int) -> None:
        self.text = ""
        self._end = end

    def wait_for(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + 2 * servers.READY_SECONDS
        while " ".join(self.text.split()).count(words) < times:
            assert time.monotonic() < deadline, self.text
            ready, _, _ = select.select([self._end], [], [], 1.0)
            if ready:
                self.text += os.read(self._end, 65536).decode()
