"""Where steps run is one setting, and what each needs of a node is said on it."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pytest

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError
from synth_pipeline.orchestration import executors, pools, results
from synth_pipeline.orchestration.assets import all_assets
from synth_pipeline.settings import Settings


def test_steps_run_in_processes_unless_a_cluster_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executors.executor(Settings()).name == "multiprocess"
    monkeypatch.setitem(sys.modules, "dagster_ray", None)
    with pytest.raises(InputError, match=r"SYNTH_EXECUTOR=ray needs .*pip install synth-pipeline\[ray\]"):
        executors.executor(Settings(executor="ray"))
    with pytest.raises(InputError, match="SYNTH_EXECUTOR='slurm' does not fit"):
        Settings(executor="slurm")  # type: ignore[arg-type]


@pytest.mark.parametrize("gpu", [True, False])
def test_training_alone_asks_for_a_gpu(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_GPU", str(gpu))
    training = {
        f"{name}__{asset}" for name in plugins.names(generators) for asset in ("checkpoint", "synthetic_dataset")
    }
    asked = {}
    for each in all_assets():
        op = each.node_def
        if "dagster-ray/config" in op.tags:
            asked[op.name] = json.loads(op.tags["dagster-ray/config"])
            assert each.op.pool == (pools.CPU if "num_gpus" not in asked[op.name] else "gpu")
    assert {name for name, needs in asked.items() if needs == {"num_cpus": 1, "num_gpus": 1}} == (
        training if gpu else set()
    )
    assert all(needs["num_cpus"] == 1 for needs in asked.values())
    assert len(asked) == 3 * len(plugins.names(generators)) + 4


def test_a_step_that_asks_for_more_than_its_memory_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_GPU", "false")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(InputError, match=r"more than its 2\.0 GiB of memory \(Unable to allocate.*STEP_MEMORY_GIB"):
            pool.submit(_step, 2.0, 3.0).result()
        assert pool.submit(_step, 2.0, 0.1).result() == 2 * 2**30  # the same process, later
        assert pool.submit(_limit).result() == _limit()
    before = _limit()
    assert _step(2.0, 0.1) == before  # a process that people are in is left alone


def _step(limit: float, wanted: float) -> int:
    """Make a cell whose verb asks for so many GiB; return the limit under which it did."""
    verbs: Any = SimpleNamespace(settings=Settings(step_memory_gib=limit), workspace=lambda *_: None)
    key = dg.MultiPartitionKey({"day": "2025-01-06", "instrument": "binance_usdm.BTCUSDT"})

    def verb(*_: Any) -> Any:
        np.empty(round(wanted * 2**30), np.int8)
        return _limit()

    made: Any = results._made(SimpleNamespace(), verbs, verb, key).manifest  # type: ignore[arg-type]
    return int(made)


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]
