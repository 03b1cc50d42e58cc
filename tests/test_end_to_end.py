"""The whole way, as a user goes it: a recording becomes reports, through Dagster and MLflow, and back to its bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth_pipeline import cli, stages
from synth_pipeline.archives import rawlog
from synth_pipeline.schema import Instrument, parse_day
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.synthesis.dataset import read_dataset

SECONDS = 400
DAY = "2025-01-06"
GENERATORS = "self_exciting_jump_diffusion,wgan_gp"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collector file of the embedded market, as a recorder of the real venue would have left it."""
    settings = Settings(home=tmp_path_factory.mktemp("recorder"), tracking=False)
    instrument, day = Instrument("simulated", "BTCUSDT"), parse_day(DAY)
    made = stages.record(Workspace.of(settings), instrument, day, seconds=SECONDS)
    log = made.file(settings.partition("raw", instrument, day), "capture")
    path = settings.home / "btcusdt.log"
    path.write_bytes(b"".join(b"%d %s\n" % (record.received_ns, record.payload) for record in rawlog.read(log)))
    return path


def _invoke(*words: object) -> None:
    """Run one command in this process; it prints its JSON document."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["synth-pipeline", *map(str, words), "--json"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setenv("SYNTH_HOME", str(home))
    monkeypatch.setenv("SYNTH_GENERATORS", GENERATORS)
    monkeypatch.setenv("SYNTH_SAMPLE_PATHS", "4")

    def answer(*words: object) -> Any:
        _invoke(*words)
        return json.loads(capsys.readouterr().out)

    return answer


@pytest.mark.slow
def test_a_capture_becomes_reports(run: Callable[..., Any], capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(capture.parent)
    document = run("run", capture, "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    assert document["instrument"] == "binance_usdm.BTCUSDT"
    assert document["partitions"] == [DAY]
    assert document["rows"]["trades"] > 0
    assert document["quarantined"] == {}
    assert document["book"] | {"book_ticker_matched": 0} == {
        "gaps": 0,
        "crossed": 0,
        "overtaken": 0,
        "book_ticker_agreement": 1.0,
        "book_ticker_matched": 0,
    }
    assert document["features"]["rows"] == 2 * SECONDS
    assert Path(document["features"]["path"]).is_file()
    assert set(document["generators"]) == set(GENERATORS.split(","))
    for found in document["generators"].values():
        assert Path(found["checkpoint"]).is_dir()
        assert read_dataset(Path(found["dataset"])).paths == 4
        assert "<h1" in Path(found["report"]).read_text(encoding="utf-8")
        assert 0 < found["fidelity"] <= 100
        assert 0 < found["floor"] <= 100
    assert len(document["mlflow"]["run_ids"]) == 3 + 3 * 2
    assert document["skipped"] == []
    assert not (capture.parent / "mlruns").exists()


@pytest.mark.slow
def test_a_second_run_skips_everything(run: Callable[..., Any], capture: Path) -> None:
    first = run("run", capture, "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    again = run("run", capture, "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    assert again["materialized"] == []
    assert len(again["skipped"]) == 5 + 3 * 2
    assert again["generators"] == first["generators"]
    assert again["mlflow"]["run_ids"] == first["mlflow"]["run_ids"]


@pytest.mark.slow
def test_the_chain_leads_from_the_report_to_the_bytes(run: Callable[..., Any], capture: Path) -> None:
    document = run("run", capture, "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    report = document["generators"]["wgan_gp"]["report"]
    chain = run("lineage", report)
    assert chain["ref"] == f"reports/binance_usdm/BTCUSDT/{DAY}/wgan_gp"
    text = json.dumps(chain)
    for stage in ("synthetic", "checkpoints", "features", "ticks", "raw"):
        assert f'"{stage}/binance_usdm/BTCUSDT/{DAY}' in text
    assert f"file:{capture.name}" in text
    assert run("lineage", document["mlflow"]["run_ids"][-1])["ref"].startswith("reports/")


@pytest.mark.slow
def test_mlflow_and_dagster_point_at_each_other(run: Callable[..., Any], capture: Path, home: Path) -> None:
    import dagster as dg
    from mlflow import MlflowClient

    from synth_pipeline.orchestration import inprocess

    document = run("run", capture, "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    client = MlflowClient(document["mlflow"]["tracking_uri"])
    settings = Settings(home=home)
    with dg.DagsterInstance.from_config(str(inprocess.instance_folder(settings))) as instance:
        for run_id in document["mlflow"]["run_ids"]:
            tags = client.get_run(run_id).data.tags
            dagster_run = instance.get_run_by_id(tags["dagster/run_id"])
            assert dagster_run is not None
            assert run_id in dagster_run.tags.values()
            assert tags["dagster/partition"] == f"{DAY}|binance_usdm.BTCUSDT"
    champion = client.get_model_version_by_alias("binance_usdm.BTCUSDT.wgan_gp", "champion")
    assert champion.run_id in document["mlflow"]["run_ids"]


@pytest.mark.slow
def test_the_verbs_give_the_same_bytes_without_dagster(run: Callable[..., Any], capture: Path, tmp_path: Path) -> None:
    document = run("run", capture, "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    settings = Settings(home=tmp_path, tracking=False, sample_paths=4)
    workspace = Workspace.of(settings)
    instrument, day = Instrument("binance_usdm", "BTCUSDT"), parse_day(DAY)
    stages.record(workspace, instrument, day, [capture])
    stages.ingest(workspace, instrument, day)
    stages.featurize(workspace, instrument, day)
    for verb in (stages.fit, stages.sample, stages.evaluate):
        made = verb(workspace, instrument, day, "self_exciting_jump_diffusion")
    there = Path(document["generators"]["self_exciting_jump_diffusion"]["report"])
    assert made.file(settings.home / made.ref, "report").name == there.name  # the name carries the content's digest
