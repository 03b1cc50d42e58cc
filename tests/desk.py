"""A Dagster server in the test process: its web server, daemons without their pauses, runs with forked steps.

What Dagster's daemon does every thirty seconds is done at once here; storage, queue, executor and pages are the real
ones.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import uvicorn
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster_webserver.app import create_app_from_workspace_process_context

from synth_pipeline.orchestration import servers
from synth_pipeline.orchestration.inprocess import instance_folder
from synth_pipeline.settings import Settings

MODULE = "synth_pipeline.orchestration.definitions"
_LAUNCHER = """
run_launcher:
  module: dagster._core.launcher.sync_in_memory_run_launcher
  class: SyncInMemoryRunLauncher
"""


class Desk(NamedTuple):
    settings: Settings
    instance: dg.DagsterInstance
    context: WorkspaceProcessContext
    paused: threading.Event
    """While it is set the daemon does nothing, as if it were dead."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((servers.HOST, 0))
        return int(probe.getsockname()[1])


def settings_of(home: Path, **more: Any) -> Settings:
    """Settings of a home in the environment too, where the definitions read them."""
    chosen = {"tracking": False, "dagster_url": f"http://{servers.HOST}:{free_port()}"} | more
    return Settings(home=home, **chosen)


@contextmanager
def opened(settings: Settings) -> Iterator[Desk]:
    config = instance_folder(settings) / "dagster.yaml"
    # What tries a failed run again is one more daemon, and a backfill would wait for it.
    config.write_text(config.read_text().replace("max_retries: 1", "max_retries: 0") + _LAUNCHER)
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name=MODULE), location_name="synth_pipeline")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("home", "tracking", "dagster_url", "mlflow_tracking_uri", "generators"):
            patch.setenv(f"SYNTH_{name.upper()}", str(getattr(settings, name)))
        patch.setenv("DAGSTER_HOME", str(config.parent))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(config.parent)))
        target = InProcessTestWorkspaceLoadTarget(origin)
        context = stack.enter_context(WorkspaceProcessContext(instance, target))
        desk = Desk(settings, instance, context, threading.Event())
        stack.enter_context(_web_server(desk))
        stack.enter_context(_daemon(desk))
        yield desk


@contextmanager
def _web_server(desk: Desk) -> Iterator[None]:
    port = int(desk.settings.dagster_url.rpartition(":")[2])
    app = create_app_from_workspace_process_context(desk.context)
    server = uvicorn.Server(uvicorn.Config(app, servers.HOST, port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _daemon(desk: Desk) -> Iterator[None]:
    stopped, queue = threading.Event(), QueuedRunCoordinatorDaemon(interval_seconds=1)
    log = logging.getLogger("dagster.daemon")

    def work() -> None:
        while not stopped.wait(0.1):
            if not desk.paused.is_set():
                list(execute_backfill_iteration(desk.context, log))
                list(queue.run_iteration(desk.context))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
