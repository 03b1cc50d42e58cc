"""Backfills through a real Dagster server with its daemon on the loopback: launched, watched, seen in a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from synth_pipeline.orchestration import backfill as backfills
from synth_pipeline.orchestration import server, servers
from synth_pipeline.orchestration.inprocess import instance_folder
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import made_days

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backfill_server")]
BTC, ETH = made_days.instrument(), made_days.instrument("ETHUSDT")


class Served(NamedTuple):
    settings: Settings
    process: subprocess.Popen[bytes]


def _start(settings: Settings, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "DAGSTER_HOME": str(instance_folder(settings)),
        "SYNTH_HOME": str(settings.home),
        "SYNTH_TRACKING": "false",
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    process = subprocess.Popen(
        servers._dagster(port),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=settings.home,
    )
    deadline = time.monotonic() + servers.READY_SECONDS
    while not server.serves(settings):
        assert process.poll() is None, "the server died"
        assert time.monotonic() < deadline, "the server did not answer"
        time.sleep(0.5)
    return process


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind((servers.HOST, 0))
        port = int(probe.getsockname()[1])
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, tracking=False, dagster_url=f"http://{servers.HOST}:{port}")
    process = _start(settings, port)
    yield Served(settings, process)
    servers._stop(process)


def _plan(settings: Settings, first: int, last: int) -> backfills.Plan:
    return backfills.plan(settings, [BTC, ETH], made_days.day(first), made_days.day(last))


def _daemon(process: subprocess.Popen[bytes]) -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    (found,) = [child for child in children if "dagster._daemon" in child.cmdline()]
    return found


def test_exactly_the_due_cells_are_made_in_chunks(served: Served) -> None:
    settings = served.settings
    made_days.record(settings, range(3), ["BTCUSDT", "ETHUSDT"])
    plan = _plan(settings, 0, 2)
    seen: list[tuple[int, int]] = []
    found = server.watch(
        settings, plan, server.launch(settings, plan), lambda done, total, _="": seen.append((done, total))
    )
    assert (len(found.made), found.failed) == (6, {})
    assert _plan(settings, 0, 2).chunks == ()
    assert seen[-1] == (24, 24)  # three tables and the features of six cells: nothing was widened
    with backfills.opened_instance(settings, []) as instance:
        assert len(instance.get_runs()) == 2  # a chunk an instrument


def test_a_poisoned_cell_is_named_and_the_others_are_made(served: Served) -> None:
    settings = served.settings
    made_days.record(settings, range(10, 14), ["BTCUSDT", "ETHUSDT"])
    made_days.poison(settings, 11)
    plan = _plan(settings, 10, 13)
    found = server.watch(settings, plan, server.launch(settings, plan))
    assert (len(found.made), list(found.failed)) == (7, [f"{BTC}/{made_days.day(11)}"])
    assert Workspace(settings).find("features", BTC, made_days.day(13)) is not None


def test_a_server_of_another_home_is_not_asked(served: Served, tmp_path: Path) -> None:
    other = served.settings.model_copy(update={"home": tmp_path})
    assert not server.serves(other)


def test_after_a_killed_daemon_a_new_one_ends_the_backfill(served: Served) -> None:
    """What was asked for is in the instance; `dagster dev` ends with its daemon and is started again."""
    settings = served.settings
    made_days.record(settings, range(20, 22), ["BTCUSDT"])
    plan = _plan(settings, 20, 21)
    backfill_id = server.launch(settings, plan)
    _daemon(served.process).send_signal(signal.SIGKILL)
    servers._stop(served.process)
    again = _start(settings, int(settings.dagster_url.rpartition(":")[2]))
    try:
        found = server.watch(settings, plan, backfill_id)
    finally:
        servers._stop(again)
    assert (len(found.made), found.failed) == (2, {})
