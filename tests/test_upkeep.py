"""Looking after the store: damage is found and named, what nothing names goes, what somebody needs stays."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import stages, storage
from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.lineage import manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_DAY, QUOTES, TRADES, Instrument, day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages.history import parse_cell
from synth_pipeline.ticks import parquet, verification
from tests import object_stores, wire
from tests.object_stores import put

s3, url = object_stores.s3, object_stores.url

BTC, DAY = Instrument("binance_usdm", "BTCUSDT"), date(2023, 11, 15)
NOBODY = 2**22 + 1
"""No process: numbers end at 2**22 (`man 5 proc`)."""


@pytest.fixture
def workspace(tmp_path: Path) -> stages.Workspace:
    made = stages.Workspace.of(Settings(home=tmp_path / "home", tracking=False))
    capture = wire.write_capture(tmp_path / "capture.gz", [*wire.market(30), (31_000_000_000, b'{"e":"trade"')])
    for day in (DAY,):
        stages.record(made, BTC, day, [capture])
        stages.ingest(made, BTC, day)
        stages.featurize(made, BTC, day)
    return made


def _table(workspace: stages.Workspace, name: str) -> Path:
    manifest = workspace.require("ticks", "ingest", BTC, DAY)
    return manifest.file(workspace.folder("ticks", BTC, DAY), name)


def test_a_sound_store_has_no_problems(workspace: stages.Workspace) -> None:
    checked = stages.verify(workspace)
    assert [each.ref.partition("/")[0] for each in checked] == ["raw", "ticks", "features"]
    assert all(each.problems == () and each.files > 0 for each in checked)


@pytest.mark.parametrize(
    ("what", "stages_named"),
    [
        ("ticks", ["ticks"]),
        ("binance_usdm.BTCUSDT", ["raw", "ticks", "features"]),
        ("binance_usdm.BTCUSDT/2023-11-15", ["raw", "ticks", "features"]),
        ("features/binance_usdm/BTCUSDT/2023-11-15", ["features"]),
        ("features/binance_usdm.BTCUSDT", ["features"]),
    ],
)
def test_a_part_of_the_store_can_be_named(workspace: stages.Workspace, what: str, stages_named: list[str]) -> None:
    assert [each.ref.partition("/")[0] for each in stages.verify(workspace, what)] == stages_named


def test_what_names_nothing_is_refused(workspace: stages.Workspace) -> None:
    for what in ("binance_usdm.ETHUSDT", "tick", "nothing"):
        with pytest.raises(NoDataError, match=what):
            stages.verify(workspace, what)


def test_one_flipped_byte_is_found(workspace: stages.Workspace) -> None:
    path = _table(workspace, "trades")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    bad = [each for each in stages.verify(workspace) if each.problems]
    assert [each.ref for each in bad] == [f"ticks/binance_usdm/BTCUSDT/{DAY}"]
    assert "sha256" in bad[0].problems[0]
    path.unlink()
    assert "missing" in stages.verify(workspace, "ticks")[0].problems[0]


def test_a_manifest_that_is_none_hides_no_other_partition(workspace: stages.Workspace) -> None:
    (workspace.folder("ticks", BTC, DAY) / manifests.NAME).write_text('{"stage"')
    raw, ticks, features = stages.verify(workspace)
    assert "is corrupt" in ticks.problems[0]
    assert (raw.problems, features.problems) == ((), ())


def _trades(rows: int, **changes: np.ndarray) -> dict[str, np.ndarray]:
    start = day_start_ns(DAY)
    columns = {name: np.ones(rows, dtype=TRADES.arrow.field(name).type.to_pandas_dtype()) for name in TRADES.names}
    columns |= {"recv_ns": start + np.arange(rows) // 3, "seq": np.arange(rows)}
    return columns | changes


@pytest.mark.parametrize("rows", [5, 40_000])
def test_rows_that_break_a_rule_are_found_wherever_they_lie(tmp_path: Path, rows: int) -> None:
    span = (day_start_ns(DAY), day_start_ns(DAY) + NS_PER_DAY)

    def told(**changes: np.ndarray) -> list[str]:
        path = tmp_path / "trades.parquet"
        parquet.write_table(path, TRADES, _trades(rows, **changes))
        return verification.findings(path, TRADES, span, rows)

    sound = _trades(rows)
    assert told() == []
    for at in {1, rows // 2, min(parquet.ROW_GROUP, rows - 1), rows - 1}:
        late, size, side, day = (sound[name].copy() for name in ("recv_ns", "size", "side", "recv_ns"))
        late[at] = late[at - 1] - 1
        size[at], side[at] = -1, 3
        day[at:] = span[1]
        assert told(recv_ns=late)[0].startswith(f"row {at}: recv_ns")
        assert told(size=size) == [f"row {at}: size -1 cannot be"]
        assert told(side=side) == [f"row {at}: side 3 cannot be"]
        assert told(recv_ns=day) == [f"row {at}: recv_ns {span[1]} lies outside of the partition's day"]
    path = tmp_path / "trades.parquet"
    parquet.write_table(path, TRADES, sound)
    assert verification.findings(path, TRADES, span, rows + 1) == [f"has {rows} rows and the manifest says {rows + 1}"]
    assert "has no column" in verification.findings(path, QUOTES, span)[0]


def _refeaturize(workspace: stages.Workspace, step_ms: int) -> None:
    settings = Settings(home=workspace.settings.home, tracking=False, step_ms=step_ms)
    stages.featurize(stages.Workspace.of(settings), BTC, DAY)


def test_compact_removes_what_nothing_names_and_nothing_else(workspace: stages.Workspace) -> None:
    _refeaturize(workspace, 1000)
    folder = workspace.folder("features", BTC, DAY)
    left_behind = folder.parent / f".staging-{folder.name}-{NOBODY}-dead"
    left_behind.mkdir()
    (left_behind / "half.parquet").write_bytes(b"half")
    kept = stages.compact(workspace)
    assert kept == []
    planned = stages.compact(workspace, grace_s=0, dry_run=True)
    assert len(list(folder.glob("*.parquet"))) == 2
    done = stages.compact(workspace, grace_s=0)
    assert done == planned
    assert {each.place.name[:8] for each in done} == {"features", ".staging"}
    assert len(list(folder.glob("*.parquet"))) == 1
    assert not left_behind.exists()
    assert all(each.problems == () for each in stages.verify(workspace))
    assert stages.compact(workspace, grace_s=0) == []


def test_what_a_crash_left_is_removed_where_nothing_was_ever_committed(tmp_path: Path) -> None:
    made = stages.Workspace.of(Settings(home=tmp_path / "home", data_url=str(tmp_path / "data"), tracking=False))
    days, stored = tmp_path / "data/ticks/binance_usdm/BTCUSDT", tmp_path / "home/cache"
    dead = [days / f".staging-{DAY}-{NOBODY}-a", days.parent / f"ETHUSDT/.staging-{DAY}-{NOBODY}-b"]
    dead += [stored / f".staging-partition-{NOBODY}-c", tmp_path / f"home/hot/v/S/.staging-{DAY}-{NOBODY}-d"]
    running = days / f".staging-{DAY}-{os.getpid()}-e"
    for folder in (*dead, running):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"half")
    with pytest.raises(NoDataError, match="no partition"):
        stages.compact(made)  # all of it is young
    assert [each.place for each in stages.compact(made, str(BTC), grace_s=0)] == dead[:1]
    assert {each.place for each in stages.compact(made, grace_s=0)} == set(dead[1:])
    assert not any(folder.exists() for folder in dead)
    assert running.exists()


def test_compact_goes_on_past_a_manifest_that_cannot_be_read(workspace: stages.Workspace) -> None:
    _refeaturize(workspace, 1000)
    folder = workspace.folder("features", BTC, DAY)
    broken = workspace.folder("raw", BTC, DAY) / "manifest.json"
    broken.write_text("{")
    with pytest.raises(SynthError, match=r"raw/.*; all other partitions are compacted"):
        stages.compact(workspace, grace_s=0)
    assert len(list(folder.glob("*.parquet"))) == 1
    assert broken.exists()


def test_a_hot_table_goes_with_its_source(workspace: stages.Workspace) -> None:
    from synth_pipeline.ticks import store

    start = day_start_ns(DAY)
    store.read(workspace.settings.home, BTC, "quotes", start, start + NS_PER_DAY, hot=True)
    hot = list((workspace.settings.home / "hot").rglob("*.hot"))
    assert len(hot) == 1
    assert stages.compact(workspace, grace_s=0) == []
    hot[0].rename(hot[0].with_name("quotes-000000000000.hot"))
    assert [each.place.name for each in stages.compact(workspace, grace_s=0)] == ["quotes-000000000000.hot"]


def test_a_bucket_is_compacted_and_verified_too(url: str, tmp_path: Path) -> None:
    data = storage.place_of(url)
    draft = Manifest(stage="ticks", key=f"{BTC}/{DAY}", inputs={}, code_version="1", config={})
    first = put(data, draft, {"facts": "one"}, tmp_path)
    second = put(data, draft, {"facts": "two"}, tmp_path)
    made = stages.Workspace.of(Settings(home=tmp_path / "home", data_url=url, tracking=False))
    assert stages.compact(made) == []
    planned = stages.compact(made, grace_s=0, dry_run=True)
    assert [each.place.name for each in planned] == [first.outputs["facts"].path]
    assert stages.compact(made, grace_s=0) == planned
    assert stages.compact(made, grace_s=0) == []
    assert storage.size(data / draft.ref / second.outputs["facts"].path) == 3
    assert stages.verify(made)[0].problems == ()
    storage.put(data / draft.ref / second.outputs["facts"].path, b"2wo")
    assert "sha256" in stages.verify(made)[0].problems[0]


def test_row_groups_that_are_not_those_of_the_manifest_are_found(workspace: stages.Workspace) -> None:
    path = workspace.folder("ticks", BTC, DAY) / manifests.NAME
    document = json.loads(path.read_text())
    document["outputs"]["quotes"]["groups"]["first_recv_ns"][0] += 1
    path.write_text(json.dumps(document))
    assert "row groups" in stages.verify(workspace, "ticks")[0].problems[0]


def test_a_grace_that_is_no_time_is_refused(workspace: stages.Workspace) -> None:
    for grace in (-1.0, float("nan"), float("inf"), 1e300):
        with pytest.raises(InputError, match="grace"):
            stages.compact(workspace, grace_s=grace)


def test_the_quarantine_is_listed_with_its_reasons(workspace: stages.Workspace) -> None:
    rows = stages.quarantine(workspace, BTC, DAY)
    facts = workspace.require("ticks", "ingest", BTC, DAY).facts
    assert len(rows["reason"]) == sum(facts["quarantined"].values()) > 0
    reason = rows["reason"][0]
    assert set(stages.quarantine(workspace, BTC, DAY, reason)["reason"]) == {reason}
    with pytest.raises(InputError, match="the reasons are"):
        stages.quarantine(workspace, BTC, DAY, "no_such_reason")
    with pytest.raises(NoDataError):
        stages.quarantine(workspace, BTC, parse_cell("1d"))


def test_the_commands_speak_json_and_exit_1_on_damage(
    workspace: stages.Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from synth_pipeline.cli import app

    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    runner = CliRunner()
    listed = tmp_path / "refused.jsonl"
    done = runner.invoke(app, ["quarantine", str(BTC), str(DAY), "--json", "--out", str(listed)])
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert sum(document["counts"].values()) == len(listed.read_text().splitlines()) == len(document["rows"])
    assert document["rows"][0]["payload"] == '{"e":"trade"'
    for place in (tmp_path, tmp_path / "none" / "refused.jsonl"):
        done = runner.invoke(app, ["quarantine", str(BTC), str(DAY), "--out", str(place)])
        assert isinstance(done.exception, InputError)
        assert f"--out {place} cannot be written" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []
    done = runner.invoke(app, ["verify", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["problems"] == {}
    done = runner.invoke(app, ["compact", "--dry-run", "--json"])
    assert json.loads(done.stdout) == {"removed": [], "bytes": 0, "dry_run": True}
    os.truncate(_table(workspace, "quotes"), 100)
    done = runner.invoke(app, ["verify", "--json"])
    assert done.exit_code == 1
    assert list(json.loads(done.stdout)["problems"]) == [f"ticks/binance_usdm/BTCUSDT/{DAY}"]
    assert manifests.load(workspace.folder("ticks", BTC, DAY)) is not None
