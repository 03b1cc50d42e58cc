"""The command line as a person meets it: one clear line and exit code 2 for wrong input, clean JSON on stdout."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synth_pipeline import cli
from tests import wire

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line in a home of its own and return (exit code, stdout, stderr)."""
    monkeypatch.setenv("SYNTH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNTH_TRACKING", "false")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["synth-pipeline", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def _assert_one_line(answer: tuple[int, str, str], *parts: str) -> None:
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    assert err.startswith("synth-pipeline: ")
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err


def test_a_missing_file(invoke: Invoke, tmp_path: Path) -> None:
    _assert_one_line(invoke("run", tmp_path / "absent.gz", "--venue", "binance_usdm"), "absent.gz", "check the path")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "x.gz", "--seconds", "3"], "No such option: --seconds"),
        (["runn"], "No such command 'runn'"),
        (["run"], "Missing argument 'FILE'"),
        (["demo", "--seconds", "long"], "Invalid value for '--seconds'"),
    ],
)
def test_words_that_fit_no_command(invoke: Invoke, words: list[str], told: str) -> None:
    _assert_one_line(invoke(*words), told, "(see synth-pipeline", "--help)")


def test_no_words_at_all_show_the_help(invoke: Invoke) -> None:
    code, out, err = invoke()
    assert (code, out) == (2, "")
    assert "Usage: synth-pipeline" in err
    assert "demo" in err


def test_an_empty_file(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty.gz").touch()
    _assert_one_line(invoke("run", tmp_path / "empty.gz", "--venue", "binance_usdm"), "is empty")


def test_a_truncated_gzip_leaves_nothing_behind(invoke: Invoke, tmp_path: Path) -> None:
    whole = wire.write_capture(tmp_path / "whole.gz", wire.market(100)).read_bytes()
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    answer = invoke("run", tmp_path / "cut.gz", "--venue", "binance_usdm", "--symbol", "BTCUSDT")
    _assert_one_line(answer, "cut.gz is truncated or damaged", "fetch the file again")
    assert not list((tmp_path / "home").rglob("manifest.json"))


def test_the_wrong_venue(invoke: Invoke, tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(5))
    answer = invoke("run", path, "--venue", "binance_spot", "--symbol", "BTCUSDT")
    _assert_one_line(answer, "not of venue 'binance_spot'", "those of binance_usdm", "check --venue")
    assert not (tmp_path / "home").exists()


def test_an_unknown_venue_symbol_and_generator(invoke: Invoke, tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(5))
    _assert_one_line(invoke("run", path, "--venue", "binance_usd"), "unknown venue", "Did you mean 'binance_usdm'?")
    answer = invoke("run", path, "--venue", "binance_usdm", "--symbol", "DOGEUSDT")
    _assert_one_line(answer, "DOGEUSDT", "holds BTCUSDT", "check --symbol")
    answer = invoke("run", path, "--venue", "binance_usdm", "--generators", "wgan_gb")
    _assert_one_line(answer, "unknown generator 'wgan_gb'", "Did you mean 'wgan_gp'?")


def test_a_file_of_another_kind(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing like a capture\n" * 20)
    _assert_one_line(invoke("run", tmp_path / "notes.txt"), "of no known format", "collector, ", "lobster, ")


def test_too_short_a_recording_says_how_much_is_needed(invoke: Invoke, tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(10))
    answer = invoke("run", path, "--generators", "self_exciting_jump_diffusion")
    _assert_one_line(answer, "steps")


def test_a_day_or_instrument_of_the_wrong_form(invoke: Invoke) -> None:
    _assert_one_line(invoke("ingest", "binance_usdm.BTCUSDT", "08/08/2024"), "08/08/2024", "2024-08-08")
    _assert_one_line(invoke("ingest", "BTCUSDT", "2024-08-08"), "venue.SYMBOL")
    _assert_one_line(invoke("ingest", "binance_usdm.BTCUSDT", "2024-08-08"), "record it first")


@pytest.mark.parametrize(
    ("name", "value"),
    [("SYNTH_SEED", "abc"), ("SYNTH_STEP_MS", "0"), ("SYNTH_TRAIN_FRACTION", "2"), ("SYNTH_FIRST_DAY", "soon")],
)
def test_a_setting_that_does_not_fit(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(5))
    _assert_one_line(invoke("record", path), f"setting {name}='{value}' does not fit")


def test_nothing_to_record(invoke: Invoke) -> None:
    _assert_one_line(invoke("record"), "nothing to record")


def test_an_unknown_lineage_reference(invoke: Invoke) -> None:
    _assert_one_line(invoke("lineage", "reports/nowhere"), "nowhere")


def test_steps_one_by_one_speak_json(invoke: Invoke, tmp_path: Path) -> None:
    path = wire.write_capture(tmp_path / "capture.gz", wire.market(60))
    cell = ("binance_usdm.BTCUSDT", wire.DAY)
    for words in (("record", path), ("ingest", *cell), ("features", *cell)):
        code, out, err = invoke(*words, "--json")
        assert code == 0, err
        document = json.loads(out)
        assert document["skipped"] is False
        assert all(Path(file).exists() for file in document["files"].values())
        code, out, _ = invoke(*words, "--json")
        assert json.loads(out)["skipped"] is True


def test_quarantined_rows_are_counted_in_the_answer(invoke: Invoke, tmp_path: Path) -> None:
    frames = wire.market(60)
    frames[100] = (frames[100][0], frames[100][1][:30])
    frames.insert(200, (frames[200][0], wire.trade(10**6, "100.05", "1")))
    path = wire.write_capture(tmp_path / "capture.gz", frames)
    invoke("record", path)
    _, out, _ = invoke("ingest", "binance_usdm.BTCUSDT", wire.DAY, "--json")
    quarantined = json.loads(out)["facts"]["quarantined"]
    assert quarantined["malformed_json"] == 1
    assert quarantined["off_tick"] == 1


def test_listings_and_help_name_what_there_is(invoke: Invoke) -> None:
    for words, expected in {
        ("generators",): "wgan_gp",
        ("venues",): "binance_coinm",
        ("archives",): "lobster",
        ("metrics",): "hurst",
        ("--help",): "demo",
        ("run", "--help"): "example:",
        ("--version",): "synth-pipeline",
    }.items():
        code, out, _ = invoke(*words)
        assert code == 0
        assert expected in out.lower()


def test_gzip_of_nothing(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "hollow.gz").write_bytes(gzip.compress(b""))
    _assert_one_line(invoke("run", tmp_path / "hollow.gz"), "is empty once decompressed")
