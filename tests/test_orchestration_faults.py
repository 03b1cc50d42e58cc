"""Faults of a machine under load: processes killed, disks full, two at once, new code midway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from synth_pipeline import stages
from synth_pipeline.lineage import commit
from synth_pipeline.orchestration import backfill as backfills
from synth_pipeline.orchestration import inprocess
from synth_pipeline.orchestration.assets import FEATURES, TICKS, all_assets
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from tests import made_days

BTC = made_days.instrument()
BASE = [*map(dg.AssetKey, TICKS), FEATURES]
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_step_that_is_killed_leaves_nothing_half_made_and_the_next_run_makes_it(settings: Settings) -> None:
    """`kill -9` in the middle of `featurize`, its files staged and not committed."""
    made_days.record(settings, [0])
    stages.ingest(Workspace(settings), BTC, made_days.day(0))
    code = (
        "import sys, time; from pathlib import Path\n"
        "from synth_pipeline import stages\n"
        "from synth_pipeline.lineage import commit\n"
        "from synth_pipeline.settings import Settings\n"
        "from tests import made_days\n"
        "def stuck(*words, **names): print('staged', flush=True); time.sleep(600)\n"
        "commit.commit = stuck\n"
        "settings = Settings(home=Path(sys.argv[1]), tracking=False)\n"
        "stages.featurize(stages.Workspace(settings), made_days.instrument(), made_days.day(0))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(settings.home)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"staged\n"
        child.send_signal(signal.SIGKILL)
    assert Workspace(settings).find("features", BTC, made_days.day(0)) is None
    assert not stages.day_is_current(Workspace(settings), BTC, made_days.day(0))
    made = stages.featurize(Workspace(settings), BTC, made_days.day(0))
    assert not made.skipped
    assert stages.featurize(Workspace(settings), BTC, made_days.day(0)).skipped


def test_a_full_disk_fails_the_cell_in_one_line_and_keeps_what_was_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_days.record(settings, [0, 1])
    workspace = Workspace(settings)
    before = [stages.ingest(workspace, BTC, made_days.day(number)) for number in (0, 1)]

    def full(_: Path) -> None:
        raise OSError(28, os.strerror(28))

    chunk = backfills.Chunk(BTC, (made_days.day(0), made_days.day(1)))
    with monkeypatch.context() as patch:
        patch.setattr(commit, "_sync", full)
        told = backfills._make(settings, BASE, chunk)
    assert len(told) == 2
    assert all("No space left on device" in error and "make room" in error for error in told.values())
    after = [workspace.require("ticks", "ingest", BTC, made_days.day(number)) for number in (0, 1)]
    assert [each.digest for each in after] == [each.digest for each in before]
    assert backfills._make(settings, BASE, chunk) == {}


@pytest.mark.slow
def test_a_worker_that_is_killed_names_its_cells_and_the_next_backfill_makes_them(settings: Settings) -> None:
    made_days.record(settings, range(3))
    plan = backfills.plan(settings, [BTC], made_days.day(0), made_days.day(2))
    code = (
        "import sys; from pathlib import Path\n"
        "from synth_pipeline.orchestration import backfill as b\n"
        "from synth_pipeline.settings import Settings\n"
        "from tests import made_days\n"
        "if __name__ == '__main__':\n"
        "    settings = Settings(home=Path(sys.argv[1]), tracking=False)\n"
        "    plan = b.plan(settings, [made_days.instrument()], made_days.day(0), made_days.day(2))\n"
        "    print(b.run_here(settings, plan, 1))\n"
    )
    script = settings.home / "script.py"
    script.write_text(code)
    import psutil

    with subprocess.Popen(
        [sys.executable, str(script), str(settings.home)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    ) as child:
        workers: list[psutil.Process] = []
        while not workers:
            assert child.poll() is None
            time.sleep(0.05)
            workers = [
                each
                for each in psutil.Process(child.pid).children()
                if any("spawn_main" in word for word in each.cmdline())
            ]
        workers[0].kill()
        said = child.communicate()[0]
    assert "the process died: run it again" in said
    again = backfills.plan(settings, [BTC], made_days.day(0), made_days.day(2))
    assert again.cells == plan.cells
    assert backfills._make(settings, BASE, again.chunks[0]) == {}


def test_two_nights_at_once_make_the_same_bytes_and_one_commit_stands(settings: Settings) -> None:
    """Both see nothing and both build; whichever commits last, the content and its name are the same."""
    made_days.record(settings, [0])
    workspace = Workspace(settings)
    first = stages.ingest(workspace, BTC, made_days.day(0))
    Path(str(settings.data / first.ref / "manifest.json")).unlink()  # the other has not committed yet
    second = stages.ingest(workspace, BTC, made_days.day(0))
    assert not second.skipped
    assert second.digest == first.digest
    assert [artifact.path for artifact in second.outputs.values()] == [
        artifact.path for artifact in first.outputs.values()
    ]
    assert not [found for found in stages.verify(workspace) if found.problems]


def test_code_upgraded_between_the_stages_of_a_run_keeps_its_version_in_a_process(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process keeps the version that it began with; a later one sees the new code and makes the cell again."""
    made_days.record(settings, [0])
    stages.ingest(Workspace(settings), BTC, made_days.day(0))
    assert stages.ingest(Workspace(settings), BTC, made_days.day(0)).skipped
    monkeypatch.setattr("synth_pipeline.stages.workspace.code_version", lambda *_: "0.2.0+new")
    assert not stages.day_is_current(Workspace(settings), BTC, made_days.day(0), features=False)
    assert not stages.ingest(Workspace(settings), BTC, made_days.day(0)).skipped


def test_a_run_in_process_shows_memory_and_device(settings: Settings) -> None:
    made_days.record(settings, [0])
    with inprocess.opened_instance(settings, [BTC]) as instance:
        inprocess.run_cell(instance, all_assets(), Verbs(settings), BTC, made_days.day(0), BASE)
        event = instance.get_latest_materialization_event(FEATURES)
        assert event is not None
        shown = event.asset_materialization.metadata if event.asset_materialization else {}
    assert shown["peak_memory_mb"].value > 10
    assert shown["device"].value == "cpu"
