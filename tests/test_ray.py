"""The same graph on a Ray cluster of two nodes, where only one has a GPU: `make test-ray` installs what it needs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from synth_pipeline import stages
from synth_pipeline.orchestration.assets import FEATURES, TICKS
from synth_pipeline.orchestration.inprocess import instance_folder, opened_instance
from synth_pipeline.orchestration.partitions import cell
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace

pytest.importorskip("dagster_ray", reason="the extra [ray] is not installed: make test-ray")
ray = pytest.importorskip("ray", reason="the extra [ray] is not installed: make test-ray")

SOURCE, DAY = Instrument("simulated", "BTCUSDT"), date(2025, 1, 6)
GENERATOR = "geometric_brownian_motion"
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def node(folder: Path, *words: str) -> Iterator[None]:
    """Run a node of a cluster; its processes end with it."""
    command = [str(BIN / "ray"), "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", *words]
    memory = ["--object-store-memory=80000000", "--num-cpus=1"]
    log = folder / f"node-{len(list(folder.iterdir()))}.log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, *memory], stdout=file, stderr=file, env=_environment(), cwd=folder)
        try:
            yield
        except BaseException:
            print(log.read_text())
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes of one CPU each on the loopback, the second with a GPU, which nobody looks for."""
    folder = tmp_path_factory.mktemp("ray")
    port, dashboard = free_ports(2)
    address = f"http://127.0.0.1:{dashboard}"
    with node(folder, "--head", f"--port={port}", "--include-dashboard=true", f"--dashboard-port={dashboard}"):
        wait_for(lambda: len(nodes(address)) == 1)
        with node(folder, f"--address=127.0.0.1:{port}", "--num-gpus=1"):
            wait_for(lambda: len(nodes(address)) == 2)
            yield address


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the cluster does not come up"
        time.sleep(0.5)


def nodes(address: str) -> list[Any]:
    from ray.util.state import list_nodes

    try:
        return [each for each in list_nodes(address=address) if each.state == "ALIVE"]
    except Exception:  # noqa: BLE001 - the dashboard is not up yet, in whichever way
        return []


@pytest.mark.slow
def test_steps_run_on_the_node_that_has_what_they_need(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.job_submission import JobSubmissionClient

    settings = Settings(home=tmp_path / "home", tracking=False)
    selected = ["raw_capture", *TICKS, FEATURES.to_user_string()]
    selected += [f"{GENERATOR}/{name}" for name in ("checkpoint", "synthetic_dataset", "fidelity_report")]
    chosen = {"SYNTH_HOME": str(settings.home), "SYNTH_TRACKING": "false", "SYNTH_EXECUTOR": "ray", "SYNTH_GPU": "true"}
    chosen |= {"SYNTH_SAMPLE_PATHS": "2", "DAGSTER_HOME": str(instance_folder(settings)), "RAY_ADDRESS": cluster}
    config = tmp_path / "run.yaml"
    config.write_text("ops: {raw_capture: {config: {seconds: 300}}}")
    with opened_instance(settings, [SOURCE]) as instance:
        command = [str(BIN / "dagster"), "asset", "materialize", "-m", "synth_pipeline.orchestration.definitions"]
        command += ["--select", ",".join(selected), "--partition", str(cell(SOURCE, DAY)), "-c", str(config)]
        done = subprocess.run(
            command, env=_environment() | chosen, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
    jobs = {job.metadata["dagster/op"]: job for job in JobSubmissionClient(cluster).list_jobs()}
    with_gpu = {each.node_id for each in nodes(cluster) if each.resources_total.get("GPU")}
    assert len(with_gpu) == 1
    of_training = {f"{GENERATOR}__checkpoint", f"{GENERATOR}__synthetic_dataset"}
    assert len(jobs) == 6
    assert of_training < jobs.keys()
    assert all(jobs[name].driver_node_id in with_gpu for name in of_training)
    # What Ray made is what the verbs make here.
    here = Workspace(Settings(home=tmp_path / "here", tracking=False, sample_paths=2))
    stages.record(here, SOURCE, DAY, seconds=300)
    stages.ingest(here, SOURCE, DAY)
    stages.featurize(here, SOURCE, DAY)
    stages.fit(here, SOURCE, DAY, GENERATOR)
    stages.sample(here, SOURCE, DAY, GENERATOR)
    report = stages.evaluate(here, SOURCE, DAY, GENERATOR)
    there = Workspace(settings).require("reports", "evaluate", SOURCE, DAY, GENERATOR)
    assert there.digest == report.digest
    assert there.dagster_run_id == run.run_id
