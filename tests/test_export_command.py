"""The verb and the command `export`: which dataset, under which names, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth_pipeline import cli, stages
from synth_pipeline.schema import Instrument
from synth_pipeline.series import Series
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.workspace import Built, draft_of, materialize
from synth_pipeline.synthesis.dataset import write_dataset
from tests import sampled

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line on the workspace and return (exit code, stdout, stderr)."""
    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["synth-pipeline", "export", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def stored(workspace: Workspace, key: str, series: Series, **more: Any) -> None:
    """Commit a dataset as the partition of a key."""

    def build(place: Path) -> Built:
        write_dataset(place / "dataset", sampled.pieces(series), **more)
        return Built({"dataset": place / "dataset"}, {})

    materialize(workspace, draft_of(workspace, "synthetic", key, {}, ("series.py",), {}, seeded=True), build)


def test_the_command_writes_and_says_what(invoke: Invoke, workspace: Workspace, tmp_path: Path) -> None:
    stored(workspace, "binance_usdm.BTCUSDT/2024-08-08/garch@bear", sampled.quotes(3, 40))
    words = ("binance_usdm.BTCUSDT", "2024-08-08", "garch@bear", "--to", "csv", "--out", tmp_path / "new" / "out")
    code, out, _ = invoke(*words, "--json")
    told = json.loads(out)
    assert (code, told["dataset"]) == (0, "synthetic/binance_usdm/BTCUSDT/2024-08-08/garch@bear")
    assert (told["paths"], told["rows"], told["format"]) == (3, 120, "csv")
    assert [Path(name).name for name in told["files"]] == [
        f"synthetic_{path}_batch_{told['batch']}.csv" for path in (1, 2, 3)
    ]
    assert all(Path(name).is_file() for name in told["files"])
    code, out, err = invoke(*words)
    assert (code, out) == (2, "")
    assert err.startswith("synth-pipeline: ")
    assert err.endswith("or replace it with --force\n")
    assert err.count("\n") == 1
    assert invoke(*words, "--force")[0] == 0
    code, out, _ = invoke(*words[:-1], tmp_path / "one", "--paths", 1)
    assert code == 0
    assert "40 rows of 1 paths" in out
    first = json.loads(invoke(*words[:-1], tmp_path / "again", "--paths", 1, "--json")[1])
    assert first["batch"] != told["batch"]  # another content, another name


def test_the_command_refuses_in_one_line(invoke: Invoke, workspace: Workspace, tmp_path: Path) -> None:
    stored(workspace, "file.SP500/1d/garch", sampled.bars(2, 30))
    out = tmp_path / "out"
    for words, told in (
        (("file.SP500", "1d", "garch", "--to", "exel", "--out", out), "unknown export 'exel'"),
        (
            ("file.SP500", "1d", "heston", "--to", "csv", "--out", out),
            "no synthetic of file.SP500/1d/heston: sample it",
        ),
        (("file.SP500", "1y", "garch", "--to", "csv", "--out", out), "neither a day of features"),
        (("file.SP500", "1d", "garch", "--to", "csv", "--out", out, "--paths", 3), "ask for 1 to 2"),
        (("file.SP500", "1d", "garch", "--to", "csv", "--out", "/proc/out"), "cannot write /proc/out"),
    ):
        code, shown, err = invoke(*words)
        assert (code, shown) == (2, "")
        assert told in err
        assert err.count("\n") == 1
    assert not out.exists()


def test_bars_of_months_are_stamped_with_the_first_of_each(workspace: Workspace, tmp_path: Path) -> None:
    ends = np.array(["2024-02-01", "2024-03-01", "2024-04-01"], dtype="M8[ns]").astype(np.int64)
    stored(workspace, "file.SP500/1M/garch", sampled.bars(1, 3, step_ns=28 * sampled.DAY_NS), labels=ends.__getitem__)
    done = stages.export(
        workspace, Instrument.parse("file.SP500"), stages.parse_cell("1M"), "garch", "csv", tmp_path / "out"
    )
    days = [line[:10] for line in done.files[0].read_text().splitlines()[1:]]
    assert days == ["2024-01-01", "2024-02-01", "2024-03-01"]
