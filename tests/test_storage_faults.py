"""What can go wrong with a remote store: failures midway, damaged and vanished objects, racing writers, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest

from synth_pipeline import cli, storage
from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.lineage import copies, manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.storage import Place
from synth_pipeline.ticks import rowgroups, store
from tests import object_stores
from tests.object_stores import forget_connections, put
from tests.test_lineage import ROOT, draft
from tests.test_store import BTC, DAYS, LAST, write_day

s3, url = object_stores.s3, object_stores.url

SPAN = (LAST - 240 * 10**9, LAST)


def committed(url: str, aside: Path) -> tuple[Place, Manifest]:
    data = storage.place_of(url)
    return data, put(data, draft(code_version="1"), {"trades": "old trades", "quotes": "old quotes"}, aside)


def texts(data: Place, manifest: Manifest) -> set[str]:
    content = (storage.read(manifest.file(data / manifest.ref, name)) for name in ("trades", "quotes"))
    return {each.decode() for each in content if each is not None}


# --- commits that fail


@pytest.mark.parametrize("error", [OSError("connection reset"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", range(3))
def test_a_commit_that_fails_anywhere_leaves_the_old_version_whole(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    data, old = committed(url, tmp_path)
    assert not isinstance(data, Path)
    left = step

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise error
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("put_file", "pipe_file"):
            patch.setattr(data.fs, name, failing(getattr(data.fs, name)))
        expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as raised:
            put(data, draft(code_version="2"), {"trades": "new trades", "quotes": "new quotes"}, tmp_path)
    if expected is InputError:
        assert str(raised.value).startswith(f"cannot write {url}/ticks/")
        assert "connection reset; check it, try again" in str(raised.value)
    assert manifests.load(data / old.ref) == old
    assert manifests.verify(data / old.ref) == []
    assert texts(data, old) == {"old trades", "old quotes"}
    assert list(tmp_path.iterdir()) == [], "nothing staged is left"
    new = put(data, draft(code_version="2"), {"trades": "new trades", "quotes": "new quotes"}, tmp_path)
    assert manifests.load(data / old.ref) == new
    assert texts(data, new) == {"new trades", "new quotes"}
    assert texts(data, old) == {"old trades", "old quotes"}, "a reader of the old version goes on"


# --- objects and copies that are not what was recorded


@pytest.fixture
def workspace(url: str, tmp_path: Path) -> Workspace:
    return Workspace.of(Settings(home=tmp_path / "home", data_url=url, tracking=False))


def damage(place: Place, content: bytes | None) -> None:
    assert not isinstance(place, Path)
    if content is None:
        place.fs.rm_file(place.path)
    else:
        storage.put(place, content)


@pytest.mark.parametrize("content", [b"old tra", b"OLD TRADES", b""])
def test_a_damaged_copy_is_fetched_again(workspace: Workspace, tmp_path: Path, content: bytes) -> None:
    manifest = put(workspace.settings.data, draft(), {"trades": "old trades"}, tmp_path)
    path = workspace.file(manifest, "trades")
    assert path.is_relative_to(tmp_path / "home" / "cache")
    path.write_bytes(content)
    assert workspace.file(manifest, "trades").read_bytes() == b"old trades"
    path.unlink()
    assert workspace.file(manifest, "trades").read_bytes() == b"old trades"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"trades-\w+ is missing: delete the manifest beside it and make it again"),
        (b"OLD TRADES", r"trades-\w+ has sha256 \w+, recorded was \w+: delete the manifest beside it"),
    ],
)
def test_a_damaged_object_is_never_handed_out(
    workspace: Workspace, tmp_path: Path, content: bytes | None, message: str
) -> None:
    data = workspace.settings.data
    manifest = put(data, draft(), {"trades": "old trades", "quotes": "q"}, tmp_path)
    place = manifest.file(data / manifest.ref, "trades")
    damage(place, content)
    with pytest.raises(SynthError, match=message):
        workspace.file(manifest, "trades")
    assert not list((tmp_path / "home" / "cache").iterdir())
    (mismatch,) = manifests.verify(data / manifest.ref)
    assert (mismatch.name, mismatch.path, mismatch.found is None) == ("trades", place, content is None)
    if content is None:
        assert manifests.is_current(data / manifest.ref, manifest.fingerprint) is None


def test_a_vanished_object_is_named_with_the_verb_that_makes_it(workspace: Workspace, tmp_path: Path) -> None:
    manifest = put(workspace.settings.data, draft(key=f"{BTC}/{DAYS[0]}"), {"trades": "t", "quotes": "q"}, tmp_path)
    damage(manifest.file(workspace.settings.data / manifest.ref, "quotes"), None)
    with pytest.raises(
        NoDataError, match=r"quotes-\w+, a file of the ticks .* is missing or cut short: ingest it again"
    ):
        workspace.require("ticks", "ingest", BTC, DAYS[0])


@pytest.mark.parametrize("kept", [None, 0, 3, 2000, -1000, -1])
def test_windows_of_damaged_objects_are_one_clear_line(url: str, tmp_path: Path, kept: int | None) -> None:
    write_day(tmp_path, DAYS[2], 2)
    data = storage.place_of(url)
    assert not isinstance(data, Path)
    for path in (tmp_path / "ticks").rglob("*.*"):
        storage.upload(path, data / path.relative_to(tmp_path).as_posix())
    (path,) = (tmp_path / "ticks").rglob("trades-*.parquet")
    place = data / path.relative_to(tmp_path).as_posix()
    rowgroups.footer_of.cache_clear()
    damage(place, None if kept is None else path.read_bytes()[:kept])
    with pytest.raises(SynthError) as raised:
        store.read(data, BTC, "trades", *SPAN)
    assert "\n" not in str(raised.value)
    assert path.name in str(raised.value)
    damage(place, path.read_bytes())
    store.read(data, BTC, "trades", *SPAN)
    damage(place, None if kept is None else path.read_bytes()[: max(kept, 0)])
    for read in (store.read, lambda *words: store.scan(*words).collect()):
        with pytest.raises((SynthError, pl.exceptions.ComputeError)) as raised:
            read(data, BTC, "trades", *SPAN)
        assert path.name in str(raised.value)


def test_a_manifest_that_does_not_fit_its_table_is_refused(tmp_path: Path) -> None:
    write_day(tmp_path, DAYS[2], 2)
    (path,) = (tmp_path / "ticks").rglob("manifest.json")
    stored = json.loads(path.read_text())
    stored["outputs"]["trades"]["groups"]["rows"].append(7)
    path.write_text(json.dumps(stored))
    with pytest.raises(SynthError, match=r"trades-\w+\.parquet has other row groups than its manifest says: delete"):
        store.read(tmp_path, BTC, "trades", *SPAN)


# --- racing writers

WRITER = """
import sys
from pathlib import Path
from synth_pipeline import storage
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Manifest
data, aside, who = storage.place_of(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
draft = Manifest(stage="ticks", key="binance_usdm.BTCUSDT/2024-08-08", inputs={}, code_version=who, config={})
print("ready", flush=True)
sys.stdin.readline()
for turn in range(25):
    with staging(aside / "p") as tmp:
        for name in ("trades", "quotes"):
            (tmp / name).write_text(f"{who} {turn}")
        (tmp / "shared").mkdir()
        (tmp / "shared" / "levels").write_text(f"{turn}")
        commit(data / draft.ref, draft, {name: tmp / name for name in ("trades", "quotes", "shared")}, copies=aside)
"""


def test_racing_writers_never_mix_and_readers_never_miss_an_object(s3: str, tmp_path: Path) -> None:
    data, first = committed(f"{s3}/race", tmp_path)
    place = manifests.load(data / first.ref)
    assert place == first
    command = [sys.executable, "-c", WRITER, f"{s3}/race", str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    writers = [subprocess.Popen([*command, who], **pipes) for who in ("a", "b")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.close()
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        manifest = manifests.load(data / first.ref)
        assert manifest is not None
        if manifest == first:
            continue
        found = texts(data, manifest)
        assert len(found) == 1, "one manifest names objects of two writers"
        read = copies.local(data / manifest.ref, manifest, "shared", tmp_path / "reader") / "levels"
        assert read.read_text() == next(iter(found)).split()[1]
        seen |= found
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert manifests.verify(data / first.ref) == []
    assert {text.split()[0] for text in seen} == {"a", "b"}


# --- addresses and refusals


def test_where_data_lie_is_one_setting(tmp_path: Path, s3: str) -> None:
    assert Settings(home=tmp_path).data == tmp_path
    for address in (str(tmp_path / "data"), f"file://{tmp_path}/data"):
        found = Settings(home=tmp_path, data_url=address).data
        assert found == tmp_path / "data"
        assert type(found) is type(tmp_path), "a local folder is a plain path"
    settings = Settings(home=tmp_path, data_url=f"{s3}/desk/")
    assert str(settings.partition("ticks", BTC, DAYS[0])) == f"{s3}/desk/ticks/simulated/BTCUSDT/2025-01-06"
    assert settings.copies == tmp_path / "cache"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("foo://bucket/x", "data at foo://bucket/x: no storage is called 'foo'; use a folder or s3://"),
        ("s3:///", "data at 's3:///' name no bucket: write s3://BUCKET/PREFIX"),
        ("gs://bucket/x", "need a library that is not installed: Please install gcsfs"),
    ],
)
def test_an_address_that_cannot_be_used(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Settings(home=tmp_path, data_url=address)
    monkeypatch.setenv("SYNTH_HOME", str(tmp_path))
    monkeypatch.setenv("SYNTH_DATA_URL", address)
    monkeypatch.setattr(sys, "argv", ["synth-pipeline", "ingest", str(BTC), "2025-01-06"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_connections()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"s3://bucket/x need a library .*: pip install synth-pipeline\[s3\]"):
        storage.place_of("s3://bucket/x")


def refused(data: Place, aside: Path) -> list[str]:
    """The one line that reading a manifest, and committing one, ends in."""
    found = []
    for access in (lambda: manifests.load(data / draft().ref), lambda: put(data, draft(), {"trades": "t"}, aside)):
        with pytest.raises(InputError) as raised:
            access()
        found.append(str(raised.value))
    assert not any("\n" in line for line in found)
    return found


def test_a_bucket_that_is_not_there(s3: str, tmp_path: Path) -> None:
    for line in refused(storage.place_of("s3://nobody/x"), tmp_path):
        assert line.endswith("its bucket is not there; make it, or change SYNTH_DATA_URL")


def test_no_credentials(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    forget_connections()
    for line in refused(storage.place_of(f"{s3}/x"), tmp_path):
        assert "Unable to locate credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile" in line
    forget_connections()


def test_no_permission(s3: str, tmp_path: Path) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="closed")
    put(storage.place_of("s3://closed/x"), draft(), {"trades": "t"}, tmp_path)
    denied = {"Effect": "Deny", "Principal": "*", "Action": ["s3:*"], "Resource": "arn:aws:s3:::closed/*"}
    client.put_bucket_policy(Bucket="closed", Policy=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))
    for line in refused(storage.place_of("s3://closed/x"), tmp_path):
        assert "no permission (" in line
        assert line.endswith("the credentials must allow to get, put and list objects")


def test_a_store_that_does_not_answer(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    forget_connections()
    for line in refused(storage.place_of(f"{s3}/x"), tmp_path):
        assert "Could not connect to the endpoint URL" in line
    forget_connections()
