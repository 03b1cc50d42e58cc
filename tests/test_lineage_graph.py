"""The way back to raw bytes, and the names under which people ask for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from synth_pipeline.errors import NoDataError, SynthError
from synth_pipeline.lineage import bundles, drawing, graph, manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.lineage.references import resolve
from tests.test_lineage import DAY, draft, put


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A day through every stage; the report reads features both directly and through the checkpoint."""
    raw = put(tmp_path, draft(stage="raw", inputs={"file:BTC.gz": "f" * 64}), {"capture.jsonl.zst": "frames"})
    ticks = put(tmp_path, draft(inputs={raw.ref: raw.digest}), {"trades.parquet": "t"}, rows={"trades": 1234})
    features = put(
        tmp_path,
        draft(stage="features", inputs={ticks.ref: ticks.digest}),
        {"features.parquet": "f"},
        rows={"features": 10},
    )
    key = f"{DAY}/wgan_gp"
    point = put(
        tmp_path,
        draft(stage="checkpoints", key=key, inputs={features.ref: features.digest}, seed=7),
        {"weights.pt": "w"},
    )
    data = put(tmp_path, draft(stage="synthetic", key=key, inputs={point.ref: point.digest}), {"paths.parquet": "p"})
    put(
        tmp_path,
        draft(
            stage="reports",
            key=key,
            inputs={data.ref: data.digest, features.ref: features.digest},
            mlflow_run_id="0123456789abcdef" * 2,
        ),
        {"report.html": "<html>", "metrics.json": "{}"},
    )
    return tmp_path


REPORT = "reports/binance_usdm/BTCUSDT/2024-08-08/wgan_gp"


class TestChain:
    def test_every_stage_down_to_the_bytes(self, home: Path) -> None:
        node = graph.chain(home, "reports/binance_usdm.BTCUSDT/2024-08-08/wgan_gp")
        assert [found.stage for found in graph.walk(node)] == [
            *("reports", "synthetic", "features", "checkpoints", "ticks", "raw", "file"),
        ]
        assert node.sound
        for found in graph.walk(node):
            for child in found.children:
                assert found.manifest is not None
                assert found.manifest.inputs[child.ref] == child.digest

    def test_the_tree_a_person_reads(self, home: Path) -> None:
        raw_sha = hashlib.sha256(b"frames").hexdigest()
        short = {found.ref: found.digest[:12] for found in graph.walk(graph.chain(home, REPORT))}
        day = "binance_usdm/BTCUSDT/2024-08-08"
        assert graph.render(graph.chain(home, REPORT)).splitlines() == [
            f"{REPORT}  {short[REPORT]}",
            f"├── synthetic/{day}/wgan_gp  {short[f'synthetic/{day}/wgan_gp']}",
            f"│   └── checkpoints/{day}/wgan_gp  {short[f'checkpoints/{day}/wgan_gp']}",
            f"│       └── features/{day}  {short[f'features/{day}']}  10 rows",
            f"│           └── ticks/{day}  {short[f'ticks/{day}']}  1,234 rows",
            f"│               └── raw/{day}  {short[f'raw/{day}']}",
            f"│                   ├── capture-{raw_sha[:12]}.jsonl.zst  {raw_sha}",
            f"│                   └── file:BTC.gz  {'f' * 64}",
            f"└── features/{day}  {short[f'features/{day}']}  10 rows (inputs as above)",
        ]

    def test_a_changed_upstream_is_stale_for_those_that_read_the_old_one(self, home: Path) -> None:
        before = graph.chain(home, REPORT)
        features = next(found for found in graph.walk(before) if found.stage == "features")
        assert features.manifest is not None
        again = put(home, features.manifest, {"features.parquet": "changed"})
        node = graph.chain(home, REPORT)
        assert not node.sound
        assert [found.problem for found in graph.walk(node) if found.problem] == [
            f"stale: was {features.digest[:12]}, now {again.digest[:12]}"
        ]
        assert graph.render(node).count("[stale: was") == 2
        old = next(found.manifest for found in graph.walk(node) if found.stage == "checkpoints")
        assert old is not None
        point = put(home, replace(old, inputs={again.ref: again.digest}), {"weights.pt": "w"})
        assert graph.chain(home, point.ref).sound
        problems = [found.ref for found in graph.walk(graph.chain(home, REPORT)) if found.problem]
        assert problems == [again.ref], "same weights from new features: only the report's own reading is stale"

    def test_missing_damaged_and_unreadable_are_said_where_they_are(self, home: Path) -> None:
        day = "binance_usdm/BTCUSDT/2024-08-08"
        next((home / "ticks" / day).glob("trades-*")).unlink()
        (home / "raw" / day / "manifest.json").write_text("{")
        (home / "checkpoints" / day / "wgan_gp" / "manifest.json").unlink()
        node = graph.chain(home, REPORT)
        problems = {found.ref.partition("/")[0]: str(found.problem) for found in graph.walk(node) if found.problem}
        assert problems["ticks"].startswith("damaged: ")
        assert problems["raw"].startswith("unreadable: ")
        assert problems["checkpoints"].startswith("missing: ")
        assert len(problems) == 3
        assert set(graph.to_json(node)["problems"]) == {
            f"{found.ref}: {found.problem}" for found in graph.walk(node) if found.problem
        }

    def test_the_json_form_holds_every_edge_once(self, home: Path) -> None:
        node = graph.chain(home, REPORT)
        document = json.loads(json.dumps(graph.to_json(node)))
        assert document["ref"] == REPORT
        assert document["sound"] is True
        by_ref = {entry["ref"]: entry for entry in document["nodes"]}
        assert len(by_ref) == len(document["nodes"]) == 7
        assert document["nodes"][0]["ref"] == REPORT
        for found in graph.walk(node):
            if found.manifest:
                stored = by_ref[found.ref]
                assert {edge["ref"]: edge["digest"] for edge in stored["inputs"]} == found.manifest.inputs
                assert stored["fingerprint"] == found.manifest.fingerprint
                assert stored["outputs"].keys() == found.manifest.outputs.keys()

    def test_a_chain_of_a_thousand_days_is_walked_and_drawn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Warm starts make each day's checkpoint an input of the next."""
        stored: dict[str, Manifest] = {}
        previous: dict[str, str] = {}
        for day in range(1500):
            made = draft(stage="checkpoints", key=f"v.S/{day:04}/g", inputs=previous)
            stored[str(tmp_path / made.ref)] = made
            previous = {made.ref: made.digest}
        monkeypatch.setattr(graph, "load", lambda folder: stored.get(str(folder)))
        monkeypatch.setattr(graph, "resolve_all", lambda _, text: [text])
        node = graph.chain(tmp_path, "checkpoints/v/S/1499/g")
        assert sum(1 for _ in graph.walk(node)) == 1500
        assert len(graph.render(node).splitlines()) == 1500
        assert len(graph.to_json(node)["nodes"]) == 1500
        assert [made.ref for made in bundles.manifests_of(node)] == [
            f"checkpoints/v/S/{day:04}/g" for day in range(1500)
        ]
        assert drawing.to_html(node).count("<summary>") == 1500
        assert drawing.to_dot(node).count(" -> ") == 1499

    def test_what_does_not_exist_or_eats_itself(self, home: Path) -> None:
        with pytest.raises(NoDataError, match="names no partition"):
            graph.chain(home, "ticks/binance_usdm/BTCUSDT/2024-08-09")
        (home / REPORT / "manifest.json").write_text("{")
        with pytest.raises(SynthError, match=f"{REPORT} is unreadable: manifest .* is corrupt"):
            graph.chain(home, REPORT)
        one, two = "ticks/v/S/1", "ticks/v/S/2"
        put(home, draft(key="v.S/1", inputs={two: "0"}), {"a.txt": "x"})
        put(home, draft(key="v.S/2", inputs={one: "0"}), {"a.txt": "x"})
        with pytest.raises(SynthError, match=r"depends on itself through ticks/v/S/. ← ticks/v/S/. ← ticks/v/S/."):
            graph.chain(home, one)


class TestResolve:
    def test_all_the_names_of_one_report(self, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        made = manifests.load(home / REPORT)
        assert made is not None
        html = made.file(home / REPORT, "report")
        elsewhere = tmp_path.parent / "mailed.html"
        elsewhere.write_bytes(html.read_bytes())
        monkeypatch.chdir(home / "reports")
        names = [
            REPORT,
            f"{REPORT}/",
            "reports/binance_usdm.BTCUSDT/2024-08-08/wgan_gp",
            str(home / REPORT),
            str(html),
            f"{REPORT}/{html.name}",
            "binance_usdm/BTCUSDT/2024-08-08/wgan_gp",
            str(elsewhere),
            "0123456789abcdef" * 2,
            made.digest,
            made.digest[:8],
            made.digest[:12].upper(),
            made.outputs["metrics"].sha256[:9],
        ]
        assert {name: resolve(home, name) for name in names} == dict.fromkeys(names, REPORT)

    def test_an_outside_file_finds_where_it_went_in(self, home: Path) -> None:
        assert resolve(home, "f" * 64) == "raw/binance_usdm/BTCUSDT/2024-08-08"

    @pytest.mark.parametrize(
        "text", ["reports", "nonsense", "", ".", "abcdef1", "0" * 32, "../../etc", "/etc/hostname", "x" * 300]
    )
    def test_what_names_nothing_lists_what_there_is(self, home: Path, text: str) -> None:
        with pytest.raises(NoDataError, match=rf"{REPORT}") as raised:
            resolve(home, text)
        assert "\n" not in str(raised.value)

    def test_a_long_list_is_cut(self, tmp_path: Path) -> None:
        for day in range(12):
            put(tmp_path, draft(key=f"v.S/{day:02}"), {"a.txt": f"{day}"})
        with pytest.raises(NoDataError, match=r"there are ticks/v/S/04, .*ticks/v/S/11 and 4 more$"):
            resolve(tmp_path, "nonsense")

    def test_content_that_several_share_is_ambiguous_but_a_partition_outranks_a_file(self, home: Path) -> None:
        one = put(home, draft(key="v.S/1"), {"gaps.parquet": "none"})
        put(home, draft(key="v.S/2"), {"gaps.parquet": "none"})
        with pytest.raises(NoDataError, match="several partitions: ticks/v/S/1, ticks/v/S/2; give one"):
            resolve(home, one.outputs["gaps"].sha256)
        put(home, draft(key="v.S/3", inputs={"file:x": one.digest}), {"a.txt": "y"})
        with pytest.raises(NoDataError, match="several partitions: ticks/v/S/1, ticks/v/S/2; give one"):
            resolve(home, one.digest)

    def test_one_corrupt_manifest_does_not_hide_the_others(self, home: Path) -> None:
        made = manifests.load(home / REPORT)
        assert made is not None
        (home / "ticks/binance_usdm/BTCUSDT/2024-08-08/manifest.json").write_text("{")
        assert resolve(home, made.digest[:10]) == REPORT
        with pytest.raises(SynthError, match=r"not found among the readable manifests, and: manifest .* is corrupt"):
            resolve(home, "0" * 12)
