"""The doctor names what is wrong and what to do, and changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from synth_pipeline import stages
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import diagnosis
from synth_pipeline.stages.diagnosis import Finding
from tests import wire
from tests.test_upkeep import BTC, DAY, NOBODY


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    workspace = stages.Workspace.of(made.model_copy(update={"tracking": False}))
    stages.record(workspace, BTC, DAY, [wire.write_capture(tmp_path / "capture.gz", wire.market(5))])
    return made


def _found(settings: Settings) -> dict[str, Finding]:
    return {each.name: each for each in stages.doctor(settings)}


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_sound_home_is_fine_and_stays_as_it_is(settings: Settings) -> None:
    before = _files(settings.home)
    found = _found(settings)
    assert {"python", "libraries", "machine", "gpu", "home", "store", "leftovers", "mlflow", "dagster"} == set(found)
    assert [each.name for each in found.values() if each.state == "wrong"] == []
    assert found["store"].told.startswith("1 partitions")
    assert _files(settings.home) == before


def test_a_home_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    found = stages.doctor(Settings(home=tmp_path / "not" / "yet"))
    assert [each for each in found if each.state == "wrong"] == []
    assert not (tmp_path / "not").exists()


def test_damage_is_named_with_a_remedy(settings: Settings) -> None:
    folder = settings.partition("raw", BTC, DAY)
    assert isinstance(folder, Path)
    capture = next(folder.glob("capture-*"))
    capture.write_bytes(capture.read_bytes()[:-1])
    store = _found(settings)["store"]
    assert store.state == "wrong"
    assert str(capture) in store.told
    assert "verify" in store.remedy
    (folder / "manifest.json").write_text("{")
    assert "is corrupt" in _found(settings)["store"].told


def test_what_dead_processes_left_is_noted_once_it_is_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    left = settings.partition("raw", BTC, DAY).parent / f".staging-2023-11-16-{NOBODY}-dead"
    assert isinstance(left, Path)
    left.mkdir()
    assert _found(settings)["leftovers"].state == "fine"
    monkeypatch.setattr(diagnosis, "GRACE_S", 0)
    assert _found(settings)["leftovers"].state == "note"
    assert left.exists()


def test_databases_are_checked(settings: Settings) -> None:
    path = settings.home / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("create table runs (id integer primary key, name text)")
        database.executemany("insert into runs (name) values (?)", [("x" * 100,)] * 2000)
    assert _found(settings)["mlflow"].state == "fine"
    content = bytearray(path.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    path.write_bytes(content)
    assert _found(settings)["mlflow"].state == "wrong"
    (settings.home / "dagster").mkdir()
    (settings.home / "dagster" / "runs.db").write_bytes(b"no database at all" * 100)
    assert _found(settings)["dagster runs"].state == "wrong"


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    found = _found(Settings(home=tmp_path, mlflow_tracking_uri="http://127.0.0.1:1"))
    assert found["mlflow"].state == "wrong"
    assert "does not answer" in found["mlflow"].told


def test_a_library_that_does_not_fit_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "requires", lambda _: ["numpy<1", "no-such-thing>=1", 'moto; extra == "dev"'])
    libraries = _found(settings)["libraries"]
    assert libraries.state == "wrong"
    assert "is not <1; no-such-thing is missing" in libraries.told


def test_a_full_disk_is_in_the_way(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    for free, state in ((5e8, "wrong"), (5e9, "note"), (5e10, "fine")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(1e12, 1e12 - free, free))
        assert _found(settings)["home"].state == state


def test_command(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from synth_pipeline.cli import main

    monkeypatch.setenv("SYNTH_HOME", str(settings.home))
    monkeypatch.setattr("sys.argv", ["synth-pipeline", "doctor", "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert {"python", "store"} <= {each["name"] for each in json.loads(capsys.readouterr().out)}
    capture = next(Path(str(settings.partition("raw", Instrument("binance_usdm", "BTCUSDT"), DAY))).glob("capture-*"))
    capture.unlink()
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
