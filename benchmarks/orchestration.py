"""Orchestration: what a run costs beside its work, what a skip costs, and what a change makes anew.

Days are short recordings of an invented market, so the figures are of the machinery. The empty step runs as steps do
under the daemon: a process of its own, the multiprocess executor with forked steps. `fanout_speedup` is of whole
commands, processes started and imports paid; it needs two free cores.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orchestration_reproduce
from common import Claim, arguments, report

sys.path.insert(0, str(Path(__file__).parents[1]))

from synth_pipeline import stages
from synth_pipeline.orchestration import backfill as backfills
from synth_pipeline.orchestration.inprocess import instance_folder, opened_instance
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import made_days

DAY_S = 86_390
RECORDED_S = 28_800
"""Of each day that is fanned out: eight hours, 30 messages a second. A worker takes four seconds to start, and a second
for each of its runs: on days of minutes that is all there is to see."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
LOAD = (
    "import time; t = time.perf_counter()\n"
    "from synth_pipeline.orchestration.definitions import definitions\n"
    "repository = definitions().get_repository_def(); repository.asset_graph\n"
    "{more}"
    "print(time.perf_counter() - t)"
)
PARTITIONS = (
    "import dagster as dg, os\n"
    "from synth_pipeline.orchestration.assets import FEATURES\n"
    "with dg.DagsterInstance.from_config(os.environ['DAGSTER_HOME']) as instance:\n"
    "    assert len(instance.get_materialized_partitions(FEATURES)) == 3000\n"
)


@contextmanager
def home() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        yield Settings(home=Path(folder), tracking=False)


def python(code: str, settings: Settings, **more: str) -> str:
    """Run code in a fresh interpreter with the environment of a home; return the last line that it prints."""
    environment = os.environ | {"SYNTH_HOME": str(settings.home), "SYNTH_TRACKING": "false"}
    environment |= {"DAGSTER_HOME": str(instance_folder(settings)), "DAGSTER_DISABLE_TELEMETRY": "1"} | more
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().rpartition("\n")[2]


def definitions_load(rounds: int) -> tuple[float, float]:
    """Return seconds to load the definitions, without and with 3,000 partitions in the instance, medians."""
    with home() as settings:
        empty = [float(python(LOAD.format(more=""), settings)) for _ in range(rounds)]
        python(_MATERIALIZED_3000, settings)
        full = [float(python(LOAD.format(more=PARTITIONS), settings)) for _ in range(rounds)]
    return statistics.median(empty), statistics.median(full)


_MATERIALIZED_3000 = """
import dagster as dg, os, datetime
from synth_pipeline.orchestration.assets import FEATURES
from synth_pipeline.orchestration.partitions import cell
from synth_pipeline.schema import Instrument
with dg.DagsterInstance.from_config(os.environ['DAGSTER_HOME']) as instance:
    names = [f'binance_usdm.S{n}' for n in range(3)]
    instance.add_dynamic_partitions('instrument', names)
    for name in names:
        for back in range(1000):
            key = cell(Instrument.parse(name), datetime.date(2020, 1, 1) + datetime.timedelta(days=back))
            instance.report_runless_asset_event(dg.AssetMaterialization(FEATURES, partition=key))
"""

_EMPTY_STEP = """
import dagster as dg
from synth_pipeline.orchestration import definitions

@dg.op
def nothing(): pass

def made():
    @dg.job(executor_def=definitions.EXECUTOR)
    def empty(): nothing()
    return empty

if __name__ == '__main__':
    with dg.DagsterInstance.from_config(__import__('os').environ['DAGSTER_HOME']) as instance:
        result = dg.execute_job(dg.reconstructable(made), instance=instance)
        assert result.success
"""


_SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def step_overhead(rounds: int) -> dict[str, float]:
    """Return seconds from the start of a process to the end of a run with one empty step, by the clock and of the
    processor, medians."""
    with home() as settings:
        script = settings.home / "empty_step.py"
        settings.home.mkdir(exist_ok=True)
        script.write_text(_EMPTY_STEP)
        environment = os.environ | {"DAGSTER_HOME": str(instance_folder(settings)), "SYNTH_HOME": str(settings.home)}
        with opened_instance(settings, []):
            pass  # the database is there
        clock, cpu = [], []
        for _ in range(rounds):
            started, used = time.perf_counter(), _children_s()
            # No pipes: to read one to its end is to wait for the watcher of logs, which looks once a second.
            subprocess.run([sys.executable, str(script)], env=environment, check=True, **_SILENT)
            clock.append(time.perf_counter() - started)
            cpu.append(_children_s() - used)
    return {"clock": statistics.median(clock), "seconds of processor": statistics.median(cpu)}


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def skip_ms(rounds: int) -> dict[str, float]:
    """Return milliseconds of each verb on an unchanged partition, medians."""
    instrument, day = made_days.instrument(), made_days.day(0)
    with home() as settings:
        made_days.record(settings, [0], seconds=20)
        workspace = Workspace(settings)
        verbs = {"ingest": stages.ingest, "featurize": stages.featurize}
        for verb in verbs.values():
            verb(workspace, instrument, day)
        found = {}
        for name, verb in verbs.items():
            seconds = []
            for _ in range(rounds):
                started = time.perf_counter()
                assert verb(workspace, instrument, day).skipped
                seconds.append(time.perf_counter() - started)
            found[name] = 1000 * statistics.median(seconds)
    return found


def cells_remade(days: int) -> tuple[int, int]:
    """Return the cells made anew after one recording of a month × 3 instruments was altered: all, and those too many.

    Every cell goes through its verbs again; what is not skipped was made anew.
    """
    altered = ("ETHUSDT", days // 2)
    instruments = {symbol: made_days.instrument(symbol) for symbol in SYMBOLS}
    with home() as settings:
        made_days.record(settings, range(days), SYMBOLS, seconds=2)
        workspace = Workspace(settings)
        once(workspace, instruments, days)
        made_days.record(settings, [altered[1]], [altered[0]], seconds=3)
        remade = once(workspace, instruments, days)
    return len(remade), len([cell for cell in remade if cell[:2] != altered])


def once(workspace: Workspace, instruments: dict[str, Any], days: int) -> list[tuple[str, int, str]]:
    made = []
    for symbol, instrument in instruments.items():
        for number in range(days):
            for verb in (stages.ingest, stages.featurize):
                if not verb(workspace, instrument, made_days.day(number)).skipped:
                    made.append((symbol, number, verb.__name__))
    return made


def fanout(days: int, seconds: int) -> dict[str, float]:
    """Return seconds of two backfills of so many days by one worker, and of two by two; what drifts meets both."""
    found = {"1 workers": 0.0, "2 workers": 0.0}
    with home() as recorded:
        made_days.record(recorded, range(days), seconds=seconds)
        shutil.rmtree(recorded.home / "captures")  # the store has them
        for workers in (1, 2, 2, 1):
            with home() as settings:
                shutil.copytree(recorded.home, settings.home, dirs_exist_ok=True)
                found[f"{workers} workers"] += _backfill_s(settings, days, workers)
    return found


def _backfill_s(settings: Settings, days: int, workers: int) -> float:
    last = made_days.FIRST + timedelta(days=days - 1)
    started = time.perf_counter()
    plan = backfills.plan(settings, [made_days.instrument()], made_days.FIRST, last)
    outcome = backfills.run_here(settings, plan, workers)
    assert len(outcome.made) == days, outcome.failed
    return time.perf_counter() - started


def tracking_overhead(days: int) -> dict[str, float]:
    """Return seconds of features of so many whole days with MLflow off and on, the database there already."""
    found = {"off": 0.0, "on": 0.0}
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        off, on = (Settings(home=Path(folder, name), tracking=name == "on") for name in found)
        made_days.record(off, range(days + 1), seconds=DAY_S)
        for number in range(days + 1):
            stages.ingest(Workspace(off), made_days.instrument(), made_days.day(number))
        shutil.copytree(off.home, on.home)
        workspaces = {"off": Workspace.of(off), "on": Workspace.of(on)}
        for number in range(days + 1):
            for name, workspace in workspaces.items():
                started = time.perf_counter()
                stages.featurize(workspace, made_days.instrument(), made_days.day(number))
                if number:  # the first day compiles, and opens the database
                    found[name] += time.perf_counter() - started
    return found


def measured(*, quick: bool) -> list[Claim]:
    rounds = 1 if quick else 5
    load, load_3000 = definitions_load(rounds)
    step = step_overhead(rounds)
    skips = skip_ms(20 if quick else 200)
    remade, too_many = cells_remade(4 if quick else 30)
    spread = {} if quick else fanout(30, RECORDED_S)
    tracked = {} if quick else tracking_overhead(2)
    short = "not in the short form"
    return [
        Claim("definitions_load_s", "seconds to load the definitions in a fresh process", load, 2.0, "low"),
        Claim("definitions_load_3000_s", "the same, with 3,000 partitions held and listed", load_3000, 3.0, "low"),
        Claim(
            "step_overhead_s",
            "run of an empty step, start of its process to its end",
            step.pop("clock"),
            4.0,
            "low",
            step,
            f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        ),
        Claim("skip_ms", "unchanged partition, slowest verb, milliseconds", max(skips.values()), 20.0, "low", skips),
        Claim(
            "cells_remade",
            "month × 3 instruments, one recording altered: cells made anew that do not depend on it",
            float(too_many),
            0.0,
            "equal",
            {"cells made anew in all": float(remade)},
        ),
        Claim(
            "fanout_speedup",
            "30 days to features, two workers over one",
            spread["1 workers"] / spread["2 workers"] if spread else None,
            1.6,
            "high",
            spread,
            short if quick else f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        ),
        Claim(
            "tracking_overhead",
            "features of whole days, MLflow on over off",
            tracked["on"] / tracked["off"] if tracked else None,
            1.15,
            "low",
            tracked,
            short if quick else "",
        ),
    ]  # fmt: skip


def main() -> None:
    options = arguments(__doc__).parse_args()
    claims = [*measured(quick=options.quick), *orchestration_reproduce.claims(options.quick)]
    report("orchestration", claims, as_json=options.json)


if __name__ == "__main__":
    main()
