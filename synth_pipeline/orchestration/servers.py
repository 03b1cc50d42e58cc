"""`up`: the Dagster UI with its daemon and the MLflow UI, as child processes that live and die together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from urllib.error import URLError
from urllib.request import urlopen

import dagster as dg

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.inprocess import instance_folder
from synth_pipeline.settings import Settings

HOST = "127.0.0.1"
READY_SECONDS = 120
"""How long a server may take to answer: a cold first import on a slow disk takes half of it."""
GRACE_SECONDS = 20


def up(settings: Settings, port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Start both servers, say where they are, and wait until interrupted or until one of them dies.

    Raises `InputError` for a port that is taken, `SynthError` when a server does not start or dies.
    """
    for each in (port, mlflow_port):
        _check_free(each)
    environment = os.environ | {
        "DAGSTER_HOME": str(instance_folder(settings)),
        "SYNTH_HOME": str(settings.home),
        "SYNTH_DAGSTER_URL": f"http://{HOST}:{port}",
        "SYNTH_MLFLOW_URL": f"http://{HOST}:{mlflow_port}",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **pools.threads(),
    }
    commands = {"Dagster UI": (_dagster(port), port), "MLflow UI": (_mlflow(settings, mlflow_port), mlflow_port)}
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        pools.set_slots(instance)
    _stop_on_terminate()
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(_child(command, environment, settings)) for name, (command, _) in commands.items()
        }
        try:
            for name, (_, at) in commands.items():
                _wait_until_ready(name, f"http://{HOST}:{at}", running)
                say(f"{name}: http://{HOST}:{at}")
            say("Ctrl-C stops both.")
            while True:
                _check_alive(running)
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("stopping")


def _dagster(port: int) -> list[str]:
    module = "synth_pipeline.orchestration.definitions"
    return [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        module,
        "--host",
        HOST,
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]


def _mlflow(settings: Settings, port: int) -> list[str]:
    store = ["--backend-store-uri", settings.tracking_uri, "--artifacts-destination", settings.artifacts]
    return [sys.executable, "-m", "mlflow", "server", *store, "--host", HOST, "--port", str(port), "--workers", "1"]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise InputError(
                f"port {port} is in use: stop what listens there, or choose another with --port or --mlflow-port"
            )


def _stop_on_terminate() -> None:
    """Treat SIGTERM as Ctrl-C, so that a service manager's stop takes the children down too."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def _child(command: list[str], environment: Mapping[str, str], settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own, its output in a log file, and stop the whole group at the end."""
    log = settings.home / "logs" / f"{command[2]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=settings.home
        )
        try:
            yield child
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def _check_alive(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, child in running.items():
        if child.poll() is not None:
            raise SynthError(
                f"the {name} stopped with exit code {child.returncode}: its log is in the logs folder of the home"
            )


def _wait_until_ready(name: str, url: str, running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        _check_alive(running)
        try:
            urlopen(url, timeout=2).close()
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
        else:
            return
    raise SynthError(
        f"the {name} did not answer at {url} within {READY_SECONDS} s: its log is in the logs folder of the home"
    )
