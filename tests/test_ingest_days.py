"""Many days at once: as one by one, in order where one goes on from another, nothing twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from synth_pipeline import cli, stages
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.days import _chains
from tests import wire

BTC = Instrument("binance_usdm", "BTCUSDT")
DAYS = [date(2023, 11, day) for day in (15, 16, 18)]


def _recorded(workspace: Workspace, folder: Path) -> Workspace:
    """Three days: two of one recording over midnight, and one of another."""
    shift = NS_PER_DAY - 5 * NS_PER_SECOND
    frames = [(at + shift, payload) for at, payload in wire.market(10)]
    frames += [(at + 3 * NS_PER_DAY, payload) for at, payload in wire.market(5)]
    path = wire.write_capture(folder / "capture", frames)
    assert importing.days_of([path]) == DAYS
    for day in DAYS:
        stages.record(workspace, BTC, day, [path])
    return workspace


def _elsewhere(folder: Path) -> Workspace:
    return _recorded(Workspace.of(Settings(home=folder, tracking=False)), folder)


def test_side_by_side_gives_the_same_bytes_as_one_by_one(workspace: Workspace, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    apart = stages.ingest_days(_elsewhere(tmp_path / "one"), BTC, DAYS, workers=3)
    together = _elsewhere(tmp_path / "two")
    in_turn = stages.ingest_days(together, BTC, DAYS, workers=1)
    assert [made.ref[-10:] for made in apart] == [day.isoformat() for day in DAYS]
    assert [made.digest for made in apart] == [made.digest for made in in_turn]
    assert [made.facts["opened_from_yesterday"] for made in apart] == [False, True, False]
    assert all(made.skipped for made in stages.ingest_days(together, BTC, DAYS, workers=3))


def test_days_of_one_recording_are_one_chain(workspace: Workspace, tmp_path: Path) -> None:
    _recorded(workspace, tmp_path)
    assert _chains(workspace, BTC, DAYS) == [DAYS[:2], DAYS[2:]]
    assert stages.recorded_days(workspace, BTC, date(2023, 11, 1), date(2023, 11, 17)) == DAYS[:2]
    with pytest.raises(NoDataError, match=r"no raw of .* from 2020-01-01 to 2020-01-02: record it first"):
        stages.recorded_days(workspace, BTC, date(2020, 1, 1), date(2020, 1, 2))
    with pytest.raises(InputError, match="end before they begin"):
        stages.recorded_days(workspace, BTC, date(2020, 1, 2), date(2020, 1, 1))


def test_a_day_that_fails_leaves_the_others(workspace: Workspace, tmp_path: Path) -> None:
    _recorded(workspace, tmp_path)
    log = workspace.require("raw", "record", BTC, DAYS[2]).file(workspace.folder("raw", BTC, DAYS[2]), "capture")
    content = bytearray(log.read_bytes())
    content[-1] ^= 1
    log.write_bytes(content)
    with pytest.raises(InputError, match="is damaged from byte"):
        stages.ingest_days(workspace, BTC, DAYS, workers=2)
    assert all(stages.ingest(workspace, BTC, day).skipped for day in DAYS[:2])


def test_progress_says_how_far_it_is(workspace: Workspace, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    _recorded(workspace, tmp_path)
    told = replace(workspace, progress=lambda done, total, note="": seen.append((done, total, note)))
    stages.ingest(told, BTC, DAYS[2])
    messages = workspace.require("raw", "record", BTC, DAYS[2]).facts["messages"]
    assert seen == [(messages, messages, "messages read")]


def test_the_command_takes_a_range(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _recorded(workspace, tmp_path)
    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    for words, code in ((["2023-11-14:2023-11-17", "--workers", "1"], 0), (["2023-11-17:2023-11-14"], 2), (["x:y"], 2)):
        monkeypatch.setattr(sys, "argv", ["synth-pipeline", "ingest", str(BTC), *words, "--json"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert (stop.value.code or 0) == code
    assert "ticks/binance_usdm/BTCUSDT/2023-11-16" in capsys.readouterr().out
