"""Digests, manifests and the commit protocol, faults included."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.lineage import digests, manifests
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.lineage.references import resolve

DAY = "binance_usdm.BTCUSDT/2024-08-08"
ROOT = Path(__file__).parents[1]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text(max_size=5), plain, max_size=4)


def draft(**changes: Any) -> Manifest:
    values: dict[str, Any] = {"stage": "ticks", "key": DAY, "inputs": {}, "code_version": "0.1.0+abc", "config": {}}
    return Manifest(**values | changes)


def put(home: Path, manifest: Manifest, files: dict[str, str], **more: Any) -> Manifest:
    """Commit text files under their own names and return the manifest."""
    folder = home / manifest.ref
    with staging(folder) as tmp:
        for name, text in files.items():
            (tmp / name).write_text(text)
        return commit(folder, manifest, {name.partition(".")[0]: tmp / name for name in files}, **more)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


SEEN = (digests.code_version, digests._files, digests._source_digest)
"""What a process reads once."""


class TestDigests:
    @given(configs, configs)
    def test_fingerprint_is_blind_to_order_clock_and_outcome(
        self, config: dict[str, Any], facts: dict[str, Any]
    ) -> None:
        inputs = {"raw/a/B/2024-08-08": "1" * 64, "file:x": "2" * 64}
        one = draft(config=config, inputs=inputs)
        turned = {"config": dict(reversed(config.items())), "inputs": dict(reversed(inputs.items()))}
        outcome = {
            "outputs": {"t": manifests.Artifact("t", "3" * 64, 1)},
            "created_at": "now",
            "mlflow_run_id": "4" * 32,
        }
        other = draft(**turned, **outcome, facts=facts)
        assert one.fingerprint == other.fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"stage": "raw"},
            {"key": f"{DAY}/wgan_gp"},
            {"inputs": {"file:x": "1" * 64}},
            {"code_version": "0.1.0+abd"},
            {"config": {"step": 1}},
            {"seed": 0},
        ],
    )
    def test_fingerprint_sees_everything_that_outputs_depend_on(self, change: dict[str, Any]) -> None:
        assert draft(**change).fingerprint != draft().fingerprint

    @given(st.dictionaries(st.text(max_size=6), st.binary(max_size=9).map(lambda b: hashlib.sha256(b).hexdigest())))
    def test_digest_is_a_plain_sha256_over_names_and_contents(self, content: dict[str, str]) -> None:
        made = draft(outputs={name: manifests.Artifact(f"{name}.x", sha, 7, 1) for name, sha in content.items()})
        expected = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        assert made.digest == expected
        turned = replace(made, outputs=dict(reversed(made.outputs.items())), created_at="later", facts={"seconds": 3})
        assert turned.digest == expected

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", Path("x")])
    def test_only_json_enters_a_manifest(self, value: Any) -> None:
        with pytest.raises(
            SynthError, match=r"config of ticks/binance_usdm/BTCUSDT/2024-08-08 is not JSON: .*; give it"
        ):
            draft(config={"deep": [value]})

    def test_tuples_and_numeric_keys_mean_what_json_reads_back(self) -> None:
        assert draft(config={"a": (1, 2), "b": {10: 1, 9: 2}}).fingerprint == (
            draft(config={"b": {"9": 2, "10": 1}, "a": [1, 2]}).fingerprint
        )

    def test_file_digest(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"abc" * 100_000)
        assert digests.sha256_file(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()

    def test_code_version_follows_the_named_sources_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digests, "_PACKAGE", tmp_path)
        (tmp_path / "ticks" / "__pycache__").mkdir(parents=True)
        (tmp_path / "ticks" / "store.py").write_text("a = 1\n")
        (tmp_path / "schema.py").write_text("b = 1\n")
        (tmp_path / "cli.py").write_text("c = 1\n")

        def version() -> str:
            for each in SEEN:
                each.cache_clear()
            assert digests.code_version("ticks", "schema.py") == digests.code_version("schema.py", "ticks")
            return digests.code_version("ticks", "schema.py")

        first = version()
        (tmp_path / "cli.py").write_text("c = 2\n")
        (tmp_path / "ticks" / "__pycache__" / "store.pyc").write_bytes(b"x")
        (tmp_path / "ticks" / ".store.py.swp").write_bytes(b"x")
        assert version() == first
        (tmp_path / "ticks" / "store.py").write_text("a = 2\n")
        changed = version()
        (tmp_path / "ticks" / "store.py").rename(tmp_path / "ticks" / "shop.py")
        assert len({first, changed, version()}) == 3
        for each in SEEN:
            each.cache_clear()

    def test_code_version_is_one_a_process(self) -> None:
        assert digests.code_version("schema.py") is digests.code_version("schema.py")
        with pytest.raises(SynthError, match=r"no source 'tick'.*name a file or folder"):
            digests.code_version("tick")


class TestCommit:
    def test_outputs_are_named_by_content_and_recorded(self, tmp_path: Path) -> None:
        made = put(tmp_path, draft(facts={"a": 1}), {"trades.parquet": "abc"}, rows={"trades": 3}, facts={"gaps": 0})
        sha = hashlib.sha256(b"abc").hexdigest()
        artifact = made.outputs["trades"]
        assert artifact == manifests.Artifact(f"trades-{sha[:12]}.parquet", sha, 3, 3)
        assert made.facts == {"a": 1, "gaps": 0}
        assert made.rows == 3
        folder = tmp_path / "ticks/binance_usdm/BTCUSDT/2024-08-08"
        assert made.file(folder, "trades").read_text() == "abc"
        assert files_below(tmp_path) == {f"{made.ref}/{name}" for name in (artifact.path, "manifest.json")}
        with pytest.raises(SynthError, match=r"has no output 'quotes': it has trades"):
            made.file(folder, "quotes")

    @settings(max_examples=40, deadline=None)
    @given(configs, configs, st.none() | st.integers())
    def test_what_is_loaded_is_what_was_committed(
        self, config: dict[str, Any], facts: dict[str, Any], seed: int | None
    ) -> None:
        with tempfile.TemporaryDirectory() as home:
            made = put(
                Path(home),
                draft(config=config, seed=seed, created_at="2024-08-09T00:00:00Z"),
                {"a.txt": "x"},
                facts=facts,
            )
            loaded = manifests.load(Path(home) / made.ref)
            assert loaded == made
            assert loaded is not None
            assert (loaded.fingerprint, loaded.digest) == (made.fingerprint, made.digest)

    @given(st.dictionaries(st.text(max_size=9), st.lists(st.integers(-(2**63), 2**63 - 1)), max_size=4))
    def test_row_groups_take_a_line_a_list_and_enter_no_digest(self, groups: dict[str, list[int]]) -> None:
        facts = {"coverage": [[1, 2], [3, 4]], "text": "[\n 1,\n 2\n]"}
        plain = draft(outputs={"t": manifests.Artifact("t", "3" * 64, 1, 2)}, facts=facts)
        made = replace(plain, outputs={"t": replace(plain.outputs["t"], groups=groups)})
        content = manifests.encode(made)
        assert manifests.decode(content, Path("m")) == made
        assert manifests.decode(manifests.encode(plain), Path("m")) == plain
        assert b"groups" not in manifests.encode(plain)
        assert content.count(b"\n") == manifests.encode(plain).count(b"\n") + 1 + (len(groups) + 1 if groups else 0)
        assert (made.digest, made.fingerprint) == (plain.digest, plain.fingerprint)

    def test_an_input_whose_name_is_no_text(self, tmp_path: Path) -> None:
        made = put(tmp_path, draft(inputs={f"file:{os.fsdecode(bytes([0x62, 0xFF]))}": "1" * 64}), {"a.txt": "x"})
        assert manifests.load(tmp_path / made.ref) == made

    def test_equal_content_gives_an_equal_digest_anywhere_any_time(self, tmp_path: Path) -> None:
        one = put(tmp_path / "a", draft(created_at="1", seed=1), {"t.parquet": "abc"})
        two = put(tmp_path / "b", draft(created_at="2", seed=2), {"t.csv": "abc"})
        three = put(tmp_path / "c", draft(created_at="1", seed=1), {"t.parquet": "abd"})
        assert one.digest == two.digest != three.digest

    def test_rows_of_something_not_staged_are_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(SynthError, match="rows given for quotes, but staged files are trades"):
            put(tmp_path, draft(), {"trades.parquet": "abc"}, rows={"quotes": 3})

    def test_a_folder_is_one_content_named_folder_with_an_output_a_file(self, tmp_path: Path) -> None:
        manifest = draft(stage="checkpoints", key=f"{DAY}/wgan_gp")
        folder = tmp_path / manifest.ref

        def save(weights: str) -> Manifest:
            with staging(folder) as tmp:
                (tmp / "checkpoint" / "inner").mkdir(parents=True)
                (tmp / "checkpoint" / "weights.pt").write_text(weights)
                (tmp / "checkpoint" / "inner" / "config.json").write_text("{}")
                return commit(folder, manifest, {"model": tmp / "checkpoint"})

        made = save("w1")
        assert set(made.outputs) == {"model/weights.pt", "model/inner/config.json"}
        place = made.file(folder, "model")
        assert place.parent == folder
        assert place.name.startswith("checkpoint-")
        assert files_below(place) == {"weights.pt", "inner/config.json"}
        assert made.file(folder, "model/inner") == place / "inner"
        assert made.file(folder, "model/weights.pt").read_text() == "w1"
        assert save("w1").digest == made.digest
        assert save("w2").file(folder, "model") != place

        (place / "weights.pt").write_text("damaged")
        assert [mismatch.name for mismatch in manifests.verify(folder)] == []
        healed = save("w1")
        assert healed.file(folder, "model") == place
        assert manifests.verify(folder) == []

    @pytest.mark.parametrize(
        ("inner", "message"), [(None, "empty folder"), ("manifest.json", "holds a file called manifest")]
    )
    def test_folders_that_cannot_be_an_output(self, tmp_path: Path, inner: str | None, message: str) -> None:
        folder = tmp_path / "p"

        def write() -> None:
            with staging(folder) as tmp:
                (tmp / "out").mkdir()
                if inner:
                    (tmp / "out" / inner).write_text("{}")
                commit(folder, draft(), {"out": tmp / "out"})

        with pytest.raises(SynthError, match=message):
            write()
        assert manifests.load(folder) is None

    def test_staging_vanishes_whatever_happens_and_readers_ignore_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "ticks" / "v" / "S" / "2024-08-08"

        def write() -> None:
            with staging(folder) as tmp:
                assert tmp.parent == folder.parent
                assert tmp.name.startswith(".staging-")
                (tmp / "manifest.json").write_text("half a file")
                with pytest.raises(NoDataError, match="no partitions yet"):
                    resolve(tmp_path, "0123456789")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write()
        assert list(folder.parent.iterdir()) == []

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "ticks").write_text("a file where a folder belongs")
        with pytest.raises(
            InputError, match=r"cannot write to .*BTCUSDT: Not a directory; make it writable or set SYNTH_HOME"
        ):
            put(tmp_path, draft(), {"a.txt": "x"})


STEP = """
import os, sys
from pathlib import Path
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Manifest
home, steps = Path(sys.argv[1]), int(sys.argv[2])
real = {name: getattr(os, name) for name in ("replace", "fsync", "rename", "unlink")}
def failing(name):
    def call(*args, **kwargs):
        global steps
        steps -= 1
        if steps < 0:
            os._exit(9)
        return real[name](*args, **kwargs)
    return call
draft = Manifest(stage="ticks", key="binance_usdm.BTCUSDT/2024-08-08", inputs={}, code_version="2", config={})
folder = home / draft.ref
with staging(folder) as tmp:
    for name in real:
        setattr(os, name, failing(name))
    for name in ("trades", "quotes"):
        (tmp / f"{name}.parquet").write_text(f"new {name}")
    (tmp / "book").mkdir()
    (tmp / "book" / "levels.parquet").write_text("new book")
    commit(folder, draft, {name: tmp / f"{name}.parquet" for name in ("trades", "quotes")} | {"book": tmp / "book"})
    for name, call in real.items():
        setattr(os, name, call)
"""

WRITER = """
import sys
from pathlib import Path
from synth_pipeline.lineage.commit import commit, staging
from synth_pipeline.lineage.manifests import Manifest
home, who = Path(sys.argv[1]), sys.argv[2]
draft = Manifest(stage="ticks", key="binance_usdm.BTCUSDT/2024-08-08", inputs={}, code_version=who, config={})
folder = home / draft.ref
sys.stdin.readline()
for turn in range(60):
    with staging(folder) as tmp:
        for name in ("trades", "quotes"):
            (tmp / name).write_text(f"{who} {turn}")
        (tmp / "shared").mkdir()
        (tmp / "shared" / "levels").write_text(f"{turn}")
        commit(folder, draft, {name: tmp / name for name in ("trades", "quotes", "shared")})
"""


class TestCrash:
    def test_killed_at_any_step_the_old_partition_stands(self, tmp_path: Path) -> None:
        """Kill the process before each rename, unlink and fsync in turn; afterwards the next writer just succeeds."""
        folder = tmp_path / draft().ref
        old = put(tmp_path, draft(code_version="1"), {"trades.parquet": "old trades", "quotes.parquet": "old quotes"})
        killed = 0
        for step in range(40):
            done = subprocess.run([sys.executable, "-c", STEP, str(tmp_path), str(step)], cwd=ROOT, check=False)
            if done.returncode == 0:
                break
            assert done.returncode == 9
            killed += 1
            now = manifests.load(folder)
            assert now is not None
            if now != old:
                # Past the commit point: new, and whole.
                assert now.code_version == "2"
                assert set(now.outputs) == {"trades", "quotes", "book/levels.parquet"}
            assert manifests.verify(folder) == []
            assert old.file(folder, "trades").read_text() == "old trades"
            assert resolve(tmp_path, now.digest[:12]) == now.ref
        assert done.returncode == 0
        assert killed > 8
        new = manifests.load(folder)
        assert new is not None
        assert new.file(folder, "quotes").read_text() == "new quotes"
        assert manifests.verify(folder) == []

    @pytest.mark.parametrize("call", ["replace", "fsync"])
    def test_an_error_at_any_step_leaves_the_old_partition_and_no_litter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        folder = tmp_path / draft().ref
        old = put(tmp_path, draft(code_version="1"), {"trades.parquet": "old"})
        real = getattr(os, call)
        before_commit = {"replace": 2, "fsync": 3}[call]
        for step in range(before_commit):
            left = step

            def full(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(os, call, full)
                with pytest.raises(SynthError, match=r"No space left on device; what was there before is untouched"):
                    put(tmp_path, draft(code_version="2"), {"trades.parquet": "new"})
            assert manifests.load(folder) == old
            assert manifests.verify(folder) == []
            assert [path.name for path in folder.parent.iterdir()] == [folder.name]
            assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert put(tmp_path, draft(code_version="2"), {"trades.parquet": "new"}) == manifests.load(folder)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_while_the_body_writes(self, tmp_path: Path) -> None:
        def write() -> None:
            with staging(tmp_path / "p") as tmp:
                (tmp / "x").symlink_to("/dev/full")
                (tmp / "x").write_bytes(b"x" * 100_000)

        with pytest.raises(SynthError, match="No space left"):
            write()
        assert list(tmp_path.iterdir()) == []

    def test_errors_that_are_not_about_room_pass_through(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), staging(tmp_path / "p"):
            (tmp_path / "absent").read_bytes()

    def test_racing_writers_never_mix_and_readers_never_miss_a_file(self, tmp_path: Path) -> None:
        put(tmp_path, draft(), {"trades": "first 0", "quotes": "first 0"})
        folder = tmp_path / draft().ref
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), who], cwd=ROOT, stdin=subprocess.PIPE)
            for who in ("a", "b")
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.close()
        seen = set()
        while any(writer.poll() is None for writer in writers):
            manifest = manifests.load(folder)
            assert manifest is not None
            texts = {manifest.file(folder, name).read_text() for name in ("trades", "quotes")}
            assert len(texts) == 1, "one manifest names files of two writers"
            seen |= texts
        assert [writer.returncode for writer in writers] == [0, 0]
        assert manifests.verify(folder) == []
        assert {text.split()[0] for text in seen} >= {"a", "b"}

    def test_a_reader_keeps_what_it_opened_across_a_rewrite(self, tmp_path: Path) -> None:
        old = put(tmp_path, draft(), {"trades.parquet": "old"})
        folder = tmp_path / old.ref
        put(tmp_path, draft(seed=1), {"trades.parquet": "new"})
        assert old.file(folder, "trades").read_text() == "old"


class TestCurrent:
    def test_unchanged_is_skipped_without_reading_outputs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = put(tmp_path, draft(), {"trades.parquet": "abc", "quotes.parquet": "de"})
        folder = tmp_path / made.ref
        opened: list[str] = []
        real = io.open

        def recording(file: Any, *args: Any, **kwargs: Any) -> Any:
            opened.append(Path(file).name)
            return real(file, *args, **kwargs)

        monkeypatch.setattr(io, "open", recording)
        found = manifests.is_current(folder, draft().fingerprint)
        assert opened == ["manifest.json"]
        assert found == replace(made, skipped=True)
        monkeypatch.undo()
        stored = manifests.load(folder)
        assert stored is not None
        assert not stored.skipped

    def test_anything_else_is_not_current(self, tmp_path: Path) -> None:
        assert manifests.is_current(tmp_path / "none", draft().fingerprint) is None
        made = put(tmp_path, draft(), {"trades.parquet": "abc"})
        folder = tmp_path / made.ref
        assert manifests.is_current(folder, draft(config={"step": 2}).fingerprint) is None
        file = made.file(folder, "trades")
        file.write_text("ab")
        assert manifests.is_current(folder, made.fingerprint) is None
        file.unlink()
        assert manifests.is_current(folder, made.fingerprint) is None
        put(tmp_path, draft(), {"trades.parquet": "abc"})
        assert manifests.is_current(folder, made.fingerprint)

    def test_verify_rehashes_everything(self, tmp_path: Path) -> None:
        made = put(tmp_path, draft(), {"a.txt": "abc", "b.txt": "x", "c.txt": "y"})
        folder = tmp_path / made.ref
        assert manifests.verify(folder) == []
        made.file(folder, "a").write_text("abd")
        made.file(folder, "b").unlink()
        assert manifests.is_current(folder, made.fingerprint) is None
        first, second = manifests.verify(folder)
        assert (first.name, first.found) == ("a", hashlib.sha256(b"abd").hexdigest())
        assert (second.name, second.found) == ("b", None)
        assert str(second).endswith("is missing")
        assert made.outputs["a"].sha256[:12] in str(first)
        with pytest.raises(SynthError, match=r"holds no manifest\.json"):
            manifests.verify(tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[: len(text) // 2],
            lambda _: "",
            lambda _: "[]",
            lambda _: "\x00\xff",
            lambda text: text.replace('"seed": null', '"seed": "zero"'),
            lambda text: text.replace('"stage": "ticks"', '"stage": "tocks"'),
            lambda text: text.replace('"inputs": {}', '"inputs": {"file:x": "1"}'),
            lambda text: text.replace('"sha256": "b', '"sha256": "c'),
            lambda text: text.replace('"config": {}', '"config": {"x": NaN}'),
        ],
    )
    def test_a_corrupt_manifest_is_one_clear_line(self, tmp_path: Path, damage: Any) -> None:
        made = put(tmp_path, draft(), {"a.txt": "abc"})
        path = tmp_path / made.ref / "manifest.json"
        assert made.outputs["a"].sha256.startswith("b")
        path.write_text(damage(path.read_text()), encoding="latin-1")
        with pytest.raises(SynthError) as raised:
            manifests.load(path.parent)
        message = str(raised.value)
        assert "\n" not in message
        assert str(path) in message
        assert "delete this file" in message
