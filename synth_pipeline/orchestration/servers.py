"""`up`: the Dagster UI with its daemon and the MLflow UI, as child processes that live and die together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

import dagster as dg

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.orchestration import pools
from synth_pipeline.orchestration.inprocess import instance_folder
from synth_pipeline.orchestration.server import ask
from synth_pipeline.settings import Settings

HOST = "127.0.0.1"
READY_SECONDS = 120
"""How long a server may take to answer: a cold first import on a slow disk takes half of it."""
GRACE_SECONDS = 20
_HEALTH = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
Say = Callable[[str], None]
Rest = Callable[[float], None]


_STEADY_SECONDS = 60
"""A server that dies sooner after its start than this would only die again."""


@dataclass
class _Served:
    """One server, and the process that it is now."""

    name: str
    command: list[str]
    port: int
    child: subprocess.Popen[bytes]
    started_s: float

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def up(settings: Settings, port: int, mlflow_port: int, say: Say) -> None:
    """Start both servers, say where they are and that they are well, and wait until interrupted.

    One that dies is started again. Raises `InputError` for a port that is taken, `SynthError` when a server does not
    start, or dies within a minute.
    """
    for taken in (port, mlflow_port):
        _check_free(taken)
    here = settings.model_copy(
        update={"dagster_url": f"http://{HOST}:{port}", "mlflow_url": f"http://{HOST}:{mlflow_port}"}
    )
    environment = os.environ | {
        "DAGSTER_HOME": str(instance_folder(settings)),
        "SYNTH_HOME": str(settings.home),
        "SYNTH_DAGSTER_URL": here.dagster_url,
        "SYNTH_MLFLOW_URL": here.mlflow_url,
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **pools.threads(),
    }
    commands = {"Dagster UI": (_dagster(port), port), "MLflow UI": (_mlflow(settings, mlflow_port), mlflow_port)}
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        pools.set_slots(instance)
    rest = _rest_until_told()
    with ExitStack() as stack:

        def start(command: list[str]) -> subprocess.Popen[bytes]:
            return stack.enter_context(_child(command, environment, settings))

        running = [
            _Served(name, command, at, start(command), time.monotonic()) for name, (command, at) in commands.items()
        ]
        try:
            for each in running:
                _wait_until_ready(each, running, rest)
                say(f"{each.name}: {each.url} answers")
            say("Ctrl-C stops both.")
            say(f"Dagster's daemons: {_daemons(here, running, rest)}")
            while True:
                _revive(running, start, say)
                rest(0.5)
        except KeyboardInterrupt:
            say("stopping")


def _revive(running: Sequence[_Served], start: Callable[[list[str]], subprocess.Popen[bytes]], say: Say) -> None:
    """Start again what died. What was asked of Dagster is in its instance, so backfills and queued runs go on."""
    for each in running:
        if each.child.poll() is None:
            continue
        if time.monotonic() - each.started_s < _STEADY_SECONDS:
            _check_alive([each])
        say(f"{each.name} stopped with exit code {each.child.returncode}: starting it again")
        _stop(each.child)  # what it left behind holds its port
        each.child, each.started_s = start(each.command), time.monotonic()


def _daemons(settings: Settings, running: Sequence[_Served], rest: Rest) -> str:
    """Wait for the first heartbeat of every daemon and say how they are."""
    deadline = time.monotonic() + READY_SECONDS
    sick = ["none answers"]
    while sick and time.monotonic() < deadline:
        _check_alive(running)
        rest(0.5)
        try:
            found = ask(settings, _HEALTH, {})["instance"]["daemonHealth"]["allDaemonStatuses"]
        except OSError:
            continue
        sick = [each["daemonType"].lower() for each in found if each["required"] and not each["healthy"]]
    return f"not well: {', '.join(sick)}" if sick else "well"


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


def _rest_until_told() -> Rest:
    """Return a sleep that ends in `KeyboardInterrupt` after Ctrl-C or a service manager's SIGTERM.

    Anywhere else it could hit the start of a server, which nobody would stop then.
    """
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: told.append(number))

    def rest(seconds: float) -> None:
        time.sleep(seconds)
        if told:
            raise KeyboardInterrupt

    return rest


@contextmanager
def _child(command: list[str], environment: Mapping[str, str], settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own, its output in a log file, and stop the whole group at the end."""
    log = settings.home / "logs" / f"{command[2]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
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


def _check_alive(running: Sequence[_Served]) -> None:
    for each in running:
        if each.child.poll() is not None:
            raise SynthError(
                f"the {each.name} stopped with exit code {each.child.returncode}: its log is in the logs folder of the "
                "home"
            )


def _wait_until_ready(served: _Served, running: Sequence[_Served], rest: Rest) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        _check_alive(running)
        try:
            urlopen(served.url, timeout=2).close()
        except (URLError, TimeoutError, ConnectionError):
            rest(0.3)
        else:
            return
    raise SynthError(
        f"the {served.name} did not answer at {served.url} within {READY_SECONDS} s: its log is in the logs folder of "
        "the home"
    )
