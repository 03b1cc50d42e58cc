"""A result is rebuilt from outside bytes with its digests, or the first stage that differs is named with its cause."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from synth_pipeline import stages
from synth_pipeline.bars.files import Options
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.cli import main
from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.lineage import drawing, environment, graph, manifests, references
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Scenario, Workspace, reproduction
from tests import wire

BTC, DAY = Instrument("binance_usdm", "BTCUSDT"), date(2023, 11, 15)
STOCK, DAILY, WEEKLY = Instrument("file", "STOCK"), Timeframe.parse("1d"), Timeframe.parse("1w")
DATASET = "synthetic/file/STOCK/1w/geometric_brownian_motion@volatility-"
FEATURES = "features/binance_usdm/BTCUSDT/2023-11-15"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A home with a recorded day, and a scenario on weekly bars made of a file's; the files themselves are gone."""
    folder = tmp_path_factory.mktemp("made")
    made = Workspace.of(Settings(home=folder / "home", tracking=False, seed=3, step_ms=1000), tags=RUN)
    capture = wire.write_capture(folder / "capture.gz", wire.market(20))
    stages.record(made, BTC, DAY, [capture])
    stages.ingest(made, BTC, DAY)
    stages.featurize(made, BTC, DAY)
    close = np.round(100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, 1400))), 2)
    days = np.arange(np.datetime64("2020-01-06"), np.datetime64("2020-01-06") + 1400)
    path = folder / "STOCK.csv"
    pl.DataFrame({"Date": days, "Close": close, "Open": close, "High": close, "Low": close}).write_csv(path)
    stages.bars_from_file(made, path, STOCK, Options())
    stages.resample_bars(made, STOCK, DAILY, WEEKLY)
    stages.fit(made, STOCK, WEEKLY, "geometric_brownian_motion")
    scenario = Scenario(shocks=("volatility:times=2",))
    stages.sample(made, STOCK, WEEKLY, "geometric_brownian_motion", paths=3, steps=40, scenario=scenario)
    capture.unlink()
    path.unlink()
    return made


RUN = {"dagster/run_id": "0f4dd21f-3d3e-4c23-8d38-2ac8bd1b5d20"}


def _dataset(workspace: Workspace) -> str:
    folders = references.manifests(workspace.settings.data)
    return next(ref for folder in folders if (ref := _ref(workspace, folder)).startswith(DATASET))


def _ref(workspace: Workspace, folder: object) -> str:
    return str(folder).removeprefix(f"{workspace.settings.data}/")


def test_a_scenario_on_bars_has_the_same_bytes_again(made: Workspace) -> None:
    found = stages.reproduce(made, _dataset(made))
    assert found.is_identical
    assert found.first_difference is None
    kinds = [(each.ref.split("/")[0], each.is_copy) for each in found.stages]
    assert kinds == [("bars", True), ("bars", False), ("checkpoints", False), ("synthetic", False)]
    assert all(each.rebuilt == each.recorded and not each.why for each in found.stages)


def test_a_recorded_day_is_rebuilt_with_its_own_configuration(made: Workspace, tmp_path: Path) -> None:
    # The home that asks has other settings; the manifests' hold.
    asking = Workspace.of(Settings(home=made.settings.home, tracking=False, step_ms=500, seed=9))
    home = tmp_path / "clean"
    found = stages.reproduce(asking, FEATURES, home=home)
    assert [each.ref.split("/")[0] for each in found.stages] == ["raw", "ticks", "features"]
    assert found.is_identical
    assert manifests.verify(home / FEATURES) == []
    with pytest.raises(InputError, match="is not empty"):
        stages.reproduce(asking, FEATURES, home=home)


def _other(workspace: Workspace, folder: Path) -> Workspace:
    shutil.copytree(workspace.settings.home, folder / "home")
    return Workspace.of(Settings(home=folder / "home", tracking=False))


def _rewrite(workspace: Workspace, ref: str, **changes: object) -> Manifest:
    folder = workspace.settings.home / ref
    manifest = manifests.load(folder)
    assert manifest is not None
    changed = replace(manifest, **changes)  # type: ignore[arg-type]
    (folder / manifests.NAME).write_bytes(manifests.encode(changed))
    return changed


def _with_other_bytes(workspace: Workspace, ref: str, **changes: object) -> Manifest:
    manifest = manifests.load(workspace.settings.home / ref)
    assert manifest is not None
    outputs = {name: replace(artifact, sha256="0" * 64) for name, artifact in manifest.outputs.items()}
    return _rewrite(workspace, ref, outputs=outputs, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, r"features differ though inputs, code, configuration and seed are the same; .*not deterministic"),
        ({"environment": {"numpy": "1.0"}}, r"are the same; numpy 1\.0 then, \d.* now"),
        (
            {"code_version": "0.0.1+abc", "environment": {"commit": "f" * 40}},
            r"made by code 0\.0\.1\+abc, this is .*; check out commit ffffffffffff",
        ),
        ({"config": {"step_ms": 1000, "grid": "old"}}, "configuration grid not as recorded"),
        ({"inputs": {"ticks/binance_usdm/BTCUSDT/2023-11-15": "1" * 64}}, "inputs ticks/.* not as recorded"),
    ],
)
def test_a_difference_is_named_with_its_cause(
    made: Workspace, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    other = _other(made, tmp_path)
    _with_other_bytes(other, FEATURES, **changes)
    found = stages.reproduce(other, FEATURES)
    assert not found.is_identical
    assert [each.is_identical for each in found.stages] == [True, True, False]
    assert found.first_difference is not None
    assert found.first_difference.ref == FEATURES
    assert re.search(words, found.first_difference.why), found.first_difference.why


def test_the_first_difference_ends_it(made: Workspace, tmp_path: Path) -> None:
    other = _other(made, tmp_path)
    altered = _with_other_bytes(other, "ticks/binance_usdm/BTCUSDT/2023-11-15")
    _rewrite(other, FEATURES, inputs={altered.ref: altered.digest})
    found = stages.reproduce(other, FEATURES)
    assert [each.ref.split("/")[0] for each in found.stages] == ["raw", "ticks"]
    assert found.first_difference is not None
    assert found.first_difference.ref == altered.ref


def test_a_stage_that_cannot_be_made_is_a_difference(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(workspace: Workspace, manifest: Manifest) -> Manifest:
        raise SynthError("no such thing")

    monkeypatch.setitem(reproduction._VERBS, "features", fails)
    found = stages.reproduce(made, FEATURES)
    assert found.first_difference is not None
    assert found.first_difference.rebuilt is None
    assert found.first_difference.why == "it cannot be made anew: no such thing"


def test_altered_raw_bytes_are_found(made: Workspace, tmp_path: Path) -> None:
    other = _other(made, tmp_path)
    path = next((other.settings.home / "raw/binance_usdm/BTCUSDT/2023-11-15").glob("capture-*.rawlog"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for altered in (content, content[:-9], content + b"more"):
        path.write_bytes(altered)
        first = stages.reproduce(other, FEATURES).first_difference
        assert first is not None
        assert (first.ref, first.is_copy) == ("raw/binance_usdm/BTCUSDT/2023-11-15", True)
        assert path.name in first.why


# --- bundles


def test_a_bundle_is_enough_on_another_machine(made: Workspace, tmp_path: Path) -> None:
    elsewhere = Workspace.of(Settings(home=tmp_path / "elsewhere", tracking=False))
    for ref in (_dataset(made), FEATURES):
        written = stages.bundle(made, ref, tmp_path / "whole.zip", raw=True)
        assert written.without == ()
        found = stages.reproduce(elsewhere, str(tmp_path / "whole.zip"))
        assert found.is_identical
        assert found.ref == ref
        again = stages.bundle(made, ref, tmp_path / "again.zip", raw=True)
        assert again == written
        assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert not (tmp_path / "elsewhere").exists()


def test_a_bundle_without_raw_bytes_says_what_it_lacks(made: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    written = stages.bundle(made, FEATURES, path)
    raw = "raw/binance_usdm/BTCUSDT/2023-11-15"
    assert written.without == (raw,)
    with zipfile.ZipFile(path) as archive:
        assert [name for name in archive.namelist() if name.startswith(f"data/{raw}")] == [f"data/{raw}/manifest.json"]
    elsewhere = Workspace.of(Settings(home=tmp_path / "elsewhere", tracking=False))
    with pytest.raises(NoDataError, match=rf"the bytes of {raw} are not here .*bundle with --raw"):
        stages.reproduce(elsewhere, str(path))
    assert stages.reproduce(made, str(path)).is_identical  # a home that has them


def test_a_bundle_that_could_not_be_rebuilt_is_not_written(made: Workspace, tmp_path: Path) -> None:
    other = _other(made, tmp_path)
    shutil.rmtree(other.settings.home / "ticks")
    with pytest.raises(SynthError, match=r"cannot be bundled: ticks/.* is missing"):
        stages.bundle(other, FEATURES, tmp_path / "none.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def _bundle_of(path: Path, entries: dict[str, str]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return str(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"bundle.json": '{"format": 9}'}, "is a bundle of format 9, this version reads 1"),
        ({"bundle.json": "{"}, "is damaged"),
        ({"bundle.json": '{"format": 1}'}, "is damaged"),
        ({"bundle.json": '{"format": 1}', "data/../../evil": "x"}, "leads out of its folder"),
    ],
)
def test_a_bundle_that_is_none_is_refused(made: Workspace, tmp_path: Path, entries: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        stages.reproduce(made, _bundle_of(tmp_path / "bad.zip", entries))
    assert not (tmp_path.parent / "evil").exists()


# --- runs, environment, drawing


def test_a_dagster_run_means_what_nothing_else_of_it_was_made_from(made: Workspace, tmp_path: Path) -> None:
    home = made.settings.home
    with pytest.raises(NoDataError, match="means several partitions"):
        references.resolve(home, RUN["dagster/run_id"])
    other = _other(made, tmp_path)
    _rewrite(other, FEATURES, dagster_run_id=None)
    shutil.rmtree(other.settings.home / "synthetic")
    shutil.rmtree(other.settings.home / "checkpoints")
    shutil.rmtree(other.settings.home / "bars")
    found = references.resolve(other.settings.home, RUN["dagster/run_id"])
    assert found == "ticks/binance_usdm/BTCUSDT/2023-11-15"
    with pytest.raises(NoDataError, match="names no partition, file, run or digest"):
        references.resolve(home, "0f4dd21f-3d3e-4c23-8d38-000000000000")


def test_the_environment_is_recorded_and_enters_no_digest(made: Workspace) -> None:
    manifest = manifests.load(made.settings.home / FEATURES)
    assert manifest is not None
    assert manifest.environment["numpy"] == np.__version__
    assert manifest.environment["processor"]
    assert replace(manifest, environment={}).fingerprint == manifest.fingerprint


def test_the_commit_of_a_checkout_is_read_without_git(tmp_path: Path) -> None:
    commit, head = "1" * 40, tmp_path / "HEAD"
    assert environment._commit(tmp_path) is None
    head.write_text(f"{commit}\n")
    assert environment._commit(tmp_path) == commit
    head.write_text("ref: refs/heads/main\n")
    assert environment._commit(tmp_path) is None
    (tmp_path / "packed-refs").write_text(f"# pack-refs\n{'2' * 40} refs/heads/other\n{commit} refs/heads/main\n")
    assert environment._commit(tmp_path) == commit
    (tmp_path / "refs/heads").mkdir(parents=True)
    (tmp_path / "refs/heads/main").write_text("3" * 40)
    assert environment._commit(tmp_path) == "3" * 40


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - as called
        if tag not in ("meta", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_drawings_name_every_partition_once(made: Workspace, tmp_path: Path) -> None:
    other = _other(made, tmp_path)
    _with_other_bytes(other, "ticks/binance_usdm/BTCUSDT/2023-11-15")
    node = graph.chain(other.settings.home, FEATURES)
    dot = drawing.to_dot(node)
    assert dot.count("[label=") == len({found.ref for found in graph.walk(node)}) == 4
    assert dot.count(" -> ") == 3
    assert dot.count("#c62828") == 1
    page = _Words()
    page.feed(drawing.to_html(node))
    assert page.open == []
    assert "stale: was" in page.text
    assert all(found.ref in page.text for found in graph.walk(node))


# --- the command line


def _run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["synth-pipeline", *words])
    code = 0
    try:
        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_commands(
    made: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_HOME", str(made.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    code, text, _ = _run(capsys, monkeypatch, "reproduce", FEATURES, "--json")
    told = json.loads(text)
    assert (code, told["identical"], told["first_difference"]) == (0, True, None)
    assert [each["copied"] for each in told["stages"]] == [True, False, False]
    code, text, _ = _run(capsys, monkeypatch, "bundle", FEATURES, str(tmp_path / "b.zip"), "--raw", "--json")
    assert (code, json.loads(text)["ref"]) == (0, FEATURES)
    code, text, _ = _run(capsys, monkeypatch, "reproduce", str(tmp_path / "b.zip"))
    assert code == 0
    assert "is reproduced: every digest is as recorded" in text
    code, _, text = _run(capsys, monkeypatch, "lineage", FEATURES, "--write", str(tmp_path / "l.svg"))
    assert (code, text.count("\n")) == (2, 1)
    code, _, _ = _run(capsys, monkeypatch, "lineage", FEATURES, "--write", str(tmp_path / "l.dot"))
    assert code == 0
    assert (tmp_path / "l.dot").read_text().startswith("digraph lineage")
    other = _other(made, tmp_path)
    _with_other_bytes(other, FEATURES)
    monkeypatch.setenv("SYNTH_HOME", str(other.settings.home))
    code, text, complaint = _run(capsys, monkeypatch, "reproduce", FEATURES, "--json")
    assert code == 1
    assert json.loads(text)["first_difference"]["ref"] == FEATURES
    assert complaint.startswith(f"synth-pipeline: {FEATURES} differs: ")
