"""Fits of networks through the verb, the command line and Dagster: killed and taken up again, warm, cold, failing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pytest

from synth_pipeline import cli, stages
from synth_pipeline.errors import InputError, TrainingError
from synth_pipeline.generators import neural
from synth_pipeline.lineage import compaction, graph, manifests
from synth_pipeline.lineage.commit import STAGING
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.orchestration import nightly
from synth_pipeline.orchestration.assets import generator_assets
from synth_pipeline.orchestration.partitions import cell
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.reports import drawing
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace, diagnosis, training

ROOT = Path(__file__).parents[1]
BTC, MONDAY = Instrument("simulated", "BTCUSDT"), date(2025, 1, 6)
TUESDAY = MONDAY + timedelta(days=1)
THURSDAY, NEXT_MONDAY = MONDAY + timedelta(days=3), MONDAY + timedelta(days=7)
TINY = {"steps": 40, "hidden": 8, "noise": 8}
GAN = "vanilla_gan"


class KilledError(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the features of three days of a week and of the Monday after it."""
    home = tmp_path_factory.mktemp("days")
    workspace = Workspace(Settings(home=home, tracking=False))
    for day in (MONDAY, TUESDAY, THURSDAY, NEXT_MONDAY):
        stages.record(workspace, BTC, day, seconds=160)
        stages.ingest(workspace, BTC, day)
        stages.featurize(workspace, BTC, day)
    return home


@pytest.fixture
def workspace(days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The same days in a home of its own; states are written at every step, a fit sees two days."""
    home = tmp_path / "home"
    shutil.copytree(days, home)
    monkeypatch.setattr(training, "KEPT_EVERY_S", 0.0)
    monkeypatch.setattr(neural, "_SEEN", 40)  # pictures are quicker of fewer windows
    return Workspace(Settings(home=home, tracking=False, lookback_days=2))


def states(workspace: Workspace) -> list[Path]:
    return [
        path for path in workspace.settings.home.rglob(".*") if path.name.startswith((STAGING, compaction.TRAINING))
    ]


def kept(workspace: Workspace) -> list[Path]:
    return [path for path in states(workspace) if path.name.startswith(compaction.TRAINING)]


def undisturbed(days: Path, tmp_path: Path, **parameters: Any) -> Manifest:
    """The same fit in a home where nothing happens."""
    home = tmp_path / "quiet"
    shutil.copytree(days, home)
    quiet = Workspace(Settings(home=home, tracking=False, lookback_days=2))
    return stages.fit(quiet, BTC, TUESDAY, GAN, TINY | parameters)


@pytest.fixture
def run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a command in the home; return its exit code and what it says on stderr."""
    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    monkeypatch.setenv("SYNTH_LOOKBACK_DAYS", "2")

    def answer(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["synth-pipeline", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().err

    return answer


# Going on after a kill.


def test_a_killed_fit_goes_on_with_the_same_bytes(workspace: Workspace, days: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def dying(done: int, total: int, note: str = "") -> None:
        seen.append(done)
        if done >= 10:
            raise KilledError

    with pytest.raises(KilledError):
        stages.fit(replace(workspace, progress=dying), BTC, TUESDAY, GAN, TINY)
    (state,) = states(workspace)
    assert state.name.startswith(".training-vanilla_gan-")
    assert workspace.find("checkpoints", BTC, TUESDAY, GAN) is None
    # Another fit of the same partition neither takes this state up nor removes it.
    stages.fit(workspace, BTC, TUESDAY, GAN, TINY | {"hidden": 4})
    assert states(workspace) == [state]
    killed, seen[:] = max(seen), []
    made = stages.fit(replace(workspace, progress=lambda *words: seen.append(words[0])), BTC, TUESDAY, GAN, TINY)
    assert min(seen) >= killed
    assert made.digest == undisturbed(days, tmp_path).digest
    assert states(workspace) == []


def command(workspace: Workspace, *words: str) -> subprocess.Popen[bytes]:
    """Start `synth-pipeline` in a process of its own, its states written at every step."""
    code = (
        "from synth_pipeline import cli\nfrom synth_pipeline.stages import training\n"
        "training.KEPT_EVERY_S = 0.0\ncli.main()\n"
    )
    own = {"SYNTH_HOME": str(workspace.settings.home), "SYNTH_TRACKING": "false", "SYNTH_LOOKBACK_DAYS": "2"}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stdout=subprocess.DEVNULL)


def test_a_command_that_is_killed_goes_on_when_asked_again(
    workspace: Workspace, run: Callable[..., tuple[int, str]], days: Path, tmp_path: Path
) -> None:
    words = ["fit", str(BTC), str(TUESDAY), GAN, "--steps", "80", "--set", "hidden=8", "--set", "noise=8"]
    with command(workspace, *words) as child:
        deadline = time.monotonic() + 120
        while not kept(workspace):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert workspace.find("checkpoints", BTC, TUESDAY, GAN) is None
    run(*words)
    made = workspace.require("checkpoints", "fit", BTC, TUESDAY, GAN)
    assert made.digest == undisturbed(days, tmp_path, steps=80).digest
    assert kept(workspace) == []


def test_what_a_dead_run_left_is_known_and_goes_when_it_is_compacted(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.folder("checkpoints", BTC, MONDAY)
    assert isinstance(folder, Path)
    folder.mkdir(parents=True)
    state = folder / ".training-dcgan-0123456789ab"
    state.write_bytes(b"state")
    monkeypatch.setattr(diagnosis, "GRACE_S", 0.0)
    told = {each.name: each for each in stages.doctor(workspace.settings)}["leftovers"]
    assert "0 staging folders and 1 training runs of dead processes" in told.told
    assert str(state) in told.told
    assert stages.compact(workspace) == []
    assert [each.place for each in stages.compact(workspace, grace_s=0)] == [state]
    assert not state.exists()


# Warm starts.


def night(workspace: Workspace, day: date, **parameters: Any) -> Manifest:
    return stages.fit(replace(workspace, is_night=True), BTC, day, GAN, TINY | parameters)


def test_a_night_starts_from_the_checkpoint_before_and_a_week_begins_cold(workspace: Workspace) -> None:
    monday, tuesday = night(workspace, MONDAY), night(workspace, TUESDAY)
    assert "start_from" not in monday.config
    assert tuesday.config["start_from"] == monday.ref
    assert tuesday.inputs[monday.ref] == monday.digest
    assert "start_from" not in night(workspace, THURSDAY, hidden=6).config
    assert night(workspace, THURSDAY).config["start_from"] == tuesday.ref
    assert "start_from" not in night(workspace, NEXT_MONDAY).config
    # Who asks by day finds what the night made; what was made cold by day stays so at night.
    assert stages.fit(workspace, BTC, THURSDAY, GAN, TINY).skipped
    cold = stages.fit(workspace, BTC, THURSDAY, GAN, TINY, start_from="none")
    assert "start_from" not in cold.config
    assert night(workspace, THURSDAY).skipped


def test_a_run_of_the_schedule_is_a_night(workspace: Workspace) -> None:
    def opened(tags: dict[str, str]) -> Workspace:
        node = SimpleNamespace(op_handle=SimpleNamespace(name="vanilla_gan__checkpoint"))
        context: Any = SimpleNamespace(run=SimpleNamespace(run_id="r", tags=tags), op_execution_context=node)
        return Verbs(workspace.settings, lambda *_: None).workspace(context, "key")

    assert opened({nightly.TAG: str(BTC)}).is_night
    assert not opened({}).is_night


def test_without_the_setting_every_night_starts_cold(workspace: Workspace) -> None:
    settings = workspace.settings.model_copy(update={"warm_start": False})
    night(replace(workspace, settings=settings), MONDAY)
    assert "start_from" not in night(replace(workspace, settings=settings), TUESDAY).config


def test_a_warm_start_is_an_input_that_lineage_shows_and_reproduce_rebuilds(workspace: Workspace) -> None:
    monday, tuesday = night(workspace, MONDAY), night(workspace, TUESDAY)
    node = graph.chain(workspace.settings.data, tuesday.ref)
    assert monday.ref in {child.ref for child in node.children}
    again = stages.reproduce(workspace, tuesday.ref)
    assert again.is_identical, again.first_difference
    assert [each.ref for each in again.stages if each.ref.startswith("checkpoints")] == [monday.ref, tuesday.ref]
    # A start that changes makes stale what was started from it.
    other = stages.fit(workspace, BTC, MONDAY, GAN, TINY | {"batch": 32})
    assert other.digest != monday.digest
    assert not stages.fit(workspace, BTC, TUESDAY, GAN, TINY).skipped


def test_a_start_that_cannot_be_is_named(workspace: Workspace) -> None:
    monday = stages.fit(workspace, BTC, MONDAY, GAN, TINY)
    tuesday = stages.fit(workspace, BTC, TUESDAY, GAN, TINY, start_from=monday.ref)
    for generator, day, ref, words in (
        (GAN, MONDAY, monday.ref, "is, or started from, the checkpoint of"),
        (GAN, MONDAY, tuesday.ref, "is, or started from, the checkpoint of"),
        ("dcgan", TUESDAY, monday.ref, "is no sound checkpoint of dcgan"),
        (GAN, TUESDAY, f"features/simulated/BTCUSDT/{MONDAY}", f"is no sound checkpoint of {GAN}"),
        ("garch", TUESDAY, monday.ref, "garch is no network and starts from no checkpoint"),
        (GAN, TUESDAY, "checkpoints/x/y", "names no partition"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            stages.fit(workspace, BTC, day, generator, start_from=ref)
        assert "\n" not in str(raised.value)
    wide = stages.fit(workspace, BTC, TUESDAY, GAN, TINY | {"hidden": 9}, start_from=monday.ref)
    assert "started cold: the networks of the checkpoint to start from have other sizes" in wide.facts["notes"]


# What a fit leaves to look at.


def test_pictures_lie_in_the_checkpoint(workspace: Workspace) -> None:
    made = stages.fit(workspace, BTC, TUESDAY, "time_vae", {"steps": 12, "channels": 4, "latent": 4})
    folder = workspace.file(made, "pictures")
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found.keys() == {"losses.svg", "samples.svg", "latent.svg"}
    assert found["latent.svg"].count("<circle") > 50
    assert "loss/autoencoder" in found["losses.svg"]
    assert "imbalance_1, samples" in found["samples.svg"]
    assert not set(manifests.verify(folder.parent))


def test_losses_and_pictures_reach_mlflow_and_the_model_its_registry(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    settings = workspace.settings.model_copy(update={"tracking": True})
    made = stages.fit(Workspace.of(settings), BTC, TUESDAY, GAN, TINY)

    from mlflow import MlflowClient

    assert made.mlflow_run_id is not None
    client = MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)
    points = client.get_metric_history(made.mlflow_run_id, "loss/generator")
    assert [point.step for point in points] == list(range(1, TINY["steps"] + 1))
    run = client.get_run(made.mlflow_run_id)
    pictures = Path(run.info.artifact_uri.removeprefix("file://"), Path(made.path("pictures")).name)
    assert {path.name for path in pictures.iterdir()} == {"losses.svg", "samples.svg", "latent.svg"}
    champion = Workspace.of(settings).tracker.champion(f"{BTC}.{GAN}")
    assert champion is not None
    assert champion.digest == made.digest
    # Without the tracker the bytes are the same.
    assert stages.fit(workspace, BTC, TUESDAY, GAN, TINY).skipped


def test_a_curve_is_drawn_in_its_frame() -> None:
    line = np.stack((np.arange(2_000.0), np.sin(np.arange(2_000.0))), axis=1)
    text = drawing.curves("a <title>", {"sine": line, "flat": line * [1, 0]})
    assert "a &lt;title&gt;" in text
    (path, _) = [part.split('"')[0] for part in text.split('points="')[1:]]
    places = np.array([pair.split(",") for pair in path.split()], dtype=float)
    assert len(places) <= 600
    assert (places.min(axis=0) >= 46).all()
    assert (places.max(axis=0) <= [46 + 760, 46 + 420]).all()
    assert text == drawing.curves("a <title>", {"sine": line, "flat": line * [1, 0]})


# The command line.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("garch", "--budget", "5m"), "garch has no parameter 'budget'"),
        (("block_bootstrap", "--preset", "release"), "block_bootstrap has no parameter 'preset'"),
        (("garch", "--start-from", "checkpoints/a/b/c/garch"), "garch is no network"),
        ((GAN, "--steps", "5", "--set", "steps=6"), "--steps 5 and --set steps=6 are one parameter"),
        ((GAN, "--budget", "5 minutes"), "write it like 90s, 5m or 1h30m"),
        ((GAN, "--preset", "fast"), "parameter preset='fast' does not fit"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    run: Callable[..., tuple[int, str]], words: tuple[str, ...], told: str
) -> None:
    code, err = run("fit", BTC, TUESDAY, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_a_gpu_that_is_not_there_is_refused(
    run: Callable[..., tuple[int, str]], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_ACCELERATOR", "gpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("fit", BTC, TUESDAY, GAN) == (
        2,
        "synth-pipeline: there is no GPU that torch can use: choose accelerator auto or cpu\n",
    )


def test_an_alarm_is_one_line_and_nothing_is_left(run: Callable[..., tuple[int, str]], workspace: Workspace) -> None:
    code, err = run("fit", BTC, TUESDAY, GAN, "--steps", 30, "--set", "generator_rate=1e30")
    assert code == 1
    assert err.startswith("synth-pipeline: vanilla_gan: ")
    assert "lower its learning rate" in err
    assert err.count("\n") == 1
    folder = workspace.folder("checkpoints", BTC, TUESDAY)
    assert isinstance(folder, Path)
    assert list(folder.iterdir()) == []


def test_an_alarm_fails_the_step_with_its_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def collapsing(*_: object) -> None:
        raise TrainingError("vanilla_gan: collapsed by step 40")

    monkeypatch.setattr(training, "surround", collapsing)
    checkpoint = generator_assets(GAN)[0]
    key = cell(BTC, TUESDAY)
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("instrument", [str(BTC)])
        done = dg.materialize(
            [checkpoint],
            instance=instance,
            partition_key=key,
            resources={"verbs": Verbs(workspace.settings)},
            raise_on_error=False,
        )
    (failed,) = done.get_step_failure_events()
    cause = failed.step_failure_data.error.cause
    assert cause is not None
    assert "TrainingError: vanilla_gan: collapsed by step 40" in cause.message
    assert states(workspace) == []
