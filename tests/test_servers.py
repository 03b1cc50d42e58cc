"""`up` really serves both UIs, shows our graph, and takes every child down with it."""

from __future__ import annotations

import json
import os
import signal
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


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((servers.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} is in use: .*--port or --mlflow-port"):
            servers.up(Settings(home=tmp_path), port, _free_port(), lambda _: None)


@pytest.mark.slow
def test_both_uis_answer_and_one_signal_stops_all(tmp_path: Path) -> None:
    port, mlflow_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "synth_pipeline", "up", "--port", str(port), "--mlflow-port", str(mlflow_port)]
    environment = os.environ | {"SYNTH_HOME": str(tmp_path / "home")}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command, env=environment, stderr=said, stdout=said, cwd=tmp_path)
    try:
        _wait_for(tmp_path / "said", b"Ctrl-C stops both", process)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        nodes = _query(port, "{ assetNodes { assetKey { path } } }")["assetNodes"]
        assert ["wgan_gp", "fidelity_report"] in [node["assetKey"]["path"] for node in nodes]
        daemons = _query(port, "{ instance { daemonHealth { allDaemonStatuses { daemonType } } } }")
        assert daemons["instance"]["daemonHealth"]["allDaemonStatuses"]
        with urlopen(f"http://{servers.HOST}:{mlflow_port}/health", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=90)
    assert code == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert {entry.name for entry in tmp_path.iterdir()} == {"home", "said"}  # nothing is dropped where it was started


def _wait_for(path: Path, text: bytes, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 2 * servers.READY_SECONDS
    while text not in path.read_bytes():
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.2)
