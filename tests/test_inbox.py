"""The inbox: files become runs once they are whole, once each, and odd ones hold nobody up."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import IO

import dagster as dg
import pytest
from typer.testing import CliRunner

from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import Kind, Record
from synth_pipeline.orchestration import inbox as sensor
from synth_pipeline.orchestration.assets import FEATURES, TICKS, all_assets
from synth_pipeline.orchestration.definitions import definitions
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument, day_of
from synth_pipeline.settings import Settings
from synth_pipeline.stages import inbox as stage
from synth_pipeline.stages.inbox import Look, State, look, look_through
from tests import wire

BTC = Instrument("binance_usdm", "BTCUSDT")
TODAY, YESTERDAY, TOMORROW = (date.fromisoformat(f"2023-11-{day}") for day in (15, 14, 16))
HOUR = 3600 * NS_PER_SECOND
OLD_NS = 10 * 60 * NS_PER_SECOND


class Inbox:
    """A folder, and somebody who looks at it again and again."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.state = settings, State()
        self.folder = settings.inbox
        self.folder.mkdir(parents=True)
        self.now_ns = time.time_ns()

    def look(self, *, later: float = 600.0) -> Look:
        """Look again after some seconds; the state goes through text, as in a cursor."""
        self.now_ns += int(later * NS_PER_SECOND)
        found = look(self.settings, self.state, self.now_ns)
        self.state = State.from_text(found.state.to_text())
        return found

    def settled(self) -> Look:
        """Look twice, so that what lies there is seen to be at rest."""
        first = self.look()
        second = self.look()
        return replace(second, requests=[*first.requests, *second.requests], refused=[*first.refused, *second.refused])

    def hour(self, hour: int, *, instrument: Instrument = BTC, day: date = TODAY, messages: int = 3) -> Path:
        """Write an hour as the recorder does."""
        path = self.folder / instrument.venue / instrument.symbol / f"{instrument}.{day}T{hour:02d}.rawlog"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = (day - date(1970, 1, 1)).days * NS_PER_DAY + hour * HOUR
        with rawlog.Writer(path) as log:
            for number in range(messages):
                at = start + number * (HOUR // messages)
                log.append(Record(at, wire.trade(hour * 1000 + number, "100.0", "1.000"), int(Kind.MESSAGE)))
        return path

    def capture(self, name: str, frames: list[tuple[int, bytes]] | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return wire.write_capture(path, frames or wire.market(3))


@pytest.fixture
def box(settings: Settings) -> Inbox:
    return Inbox(settings)


def cells(found: Look) -> list[tuple[str, str, list[str]]]:
    return [(str(due.instrument), str(due.day), [path.name for path in due.sources]) for due in found.requests]


def test_a_dropped_capture_is_asked_for_once_it_has_come_to_rest(box: Inbox) -> None:
    box.capture("any/depth/of/folders/btc.gz")
    first = box.look()
    assert not first.requests
    assert first.waiting == {"any/depth/of/folders/btc.gz": "may still be growing"}
    assert cells(box.look()) == [(str(BTC), "2023-11-15", ["btc.gz"])]
    assert not box.look().requests


def test_a_growing_file_waits_and_a_changed_one_comes_again(box: Inbox) -> None:
    path = box.capture("btc.log")
    for _ in range(3):
        with path.open("ab") as file:
            file.write(b"%d %s\n" % (wire.START_NS + 10**10, wire.trade(99, "100.0", "1.000")))
        os.utime(path, ns=(box.now_ns, box.now_ns + 600 * NS_PER_SECOND))
        assert not box.look(later=600).requests
    first = box.settled().requests
    box.capture("btc.log", wire.market(5))
    second = box.settled().requests
    assert len(first) == len(second) == 1
    assert first[0].key != second[0].key


def test_a_young_file_waits_even_when_it_looks_the_same(box: Inbox) -> None:
    path = box.capture("btc.log")
    os.utime(path, ns=(box.now_ns, box.now_ns))
    for _ in range(5):
        assert not box.look(later=10).requests
    assert box.look(later=20).requests


@pytest.mark.parametrize("name", [".hidden.gz", "btc.gz.part", "btc.tmp", "btc.crdownload", ".folder/btc.gz"])
def test_unfinished_and_hidden_names_are_not_there(box: Inbox, name: str) -> None:
    box.capture(name)
    found = box.settled()
    assert not (found.requests)
    assert not (found.refused)
    assert not (found.waiting)


@pytest.fixture
def held(box: Inbox) -> Iterator[Callable[[Path], IO[bytes]]]:
    """Hold a file as a recorder does."""
    files: list[IO[bytes]] = []

    def hold(path: Path) -> IO[bytes]:
        file = path.open("ab")
        files.append(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    yield hold
    for file in files:
        file.close()


def test_a_day_waits_for_the_recorder_to_let_go(box: Inbox, held: Callable[[Path], IO[bytes]]) -> None:
    box.hour(9)
    file = held(box.hour(10))
    found = box.settled()
    assert not found.requests
    assert found.waiting[f"{BTC} 2023-11-15"].endswith("T10.rawlog is being written")
    file.close()  # as after kill -9
    names = [f"{BTC}.2023-11-15T{hour:02d}.rawlog" for hour in (9, 10)]
    assert cells(box.look()) == [(str(BTC), "2023-11-15", names)]
    box.hour(11)
    assert cells(box.look()) == [(str(BTC), "2023-11-15", [*names, names[0].replace("T09", "T11")])]
    assert not box.look().requests


def test_one_recorder_does_not_hold_up_another_instrument(box: Inbox, held: Callable[[Path], IO[bytes]]) -> None:
    held(box.hour(10))
    box.hour(10, instrument=Instrument("binance_usdm", "ETHUSDT"))
    assert [str(due.instrument) for due in box.settled().requests] == ["binance_usdm.ETHUSDT"]


def test_neighbouring_hours_over_midnight_come_along(box: Inbox, held: Callable[[Path], IO[bytes]]) -> None:
    for day, hours in ((YESTERDAY, (21, 22, 23)), (TODAY, (0, 1, 23)), (TOMORROW, (0, 1))):
        for hour in hours:
            box.hour(hour, day=day)
    file = held(box.folder / "binance_usdm" / "BTCUSDT" / f"{BTC}.{TOMORROW}T00.rawlog")
    found = box.settled()
    assert [str(due.day) for due in found.requests] == ["2023-11-14"]
    assert "2023-11-16T00" in found.waiting[f"{BTC} {TODAY}"], "today goes on into an hour that is being written"
    file.close()
    assert {day: [name[-12:-7] for name in names] for _, day, names in cells(box.look())} == {
        "2023-11-15": ["14T23", "15T00", "15T01", "15T23", "16T00"],
        "2023-11-16": ["15T23", "16T00", "16T01"],
    }


def test_a_capture_over_midnight_is_two_days(box: Inbox) -> None:
    box.capture("two.gz", [(at - 10 * NS_PER_SECOND, payload) for at, payload in wire.market(20)])
    assert [(day, names) for _, day, names in cells(box.settled())] == [
        ("2023-11-14", ["two.gz"]),
        ("2023-11-15", ["two.gz"]),
    ]


def test_captures_that_meet_at_midnight_come_together(box: Inbox) -> None:
    frames = [(at - 10 * NS_PER_SECOND, payload) for at, payload in wire.market(20)]
    box.capture("a.gz", [frame for frame in frames if frame[0] < 0])
    box.capture("b.gz", [frame for frame in frames if frame[0] >= 0])
    box.capture("far.gz", [(at + 2 * NS_PER_DAY, payload) for at, payload in wire.market(3)])
    assert [(day, names) for _, day, names in cells(box.settled())] == [
        ("2023-11-14", ["a.gz", "b.gz"]),
        ("2023-11-15", ["a.gz", "b.gz"]),
        ("2023-11-17", ["far.gz"]),
    ]


def test_several_symbols_are_several_runs(box: Inbox) -> None:
    box.capture("both.gz", [*wire.market(3), (9, wire.depth(1, 2, 0, symbol="ETHUSDT"))])
    assert [name for name, *_ in cells(box.settled())] == ["binance_usdm.BTCUSDT", "binance_usdm.ETHUSDT"]


def test_a_file_that_does_not_tell_its_instrument_takes_it_from_its_folders(box: Inbox) -> None:
    silent = [(at, json.dumps({"stream": "x", "data": {}}).encode()) for at in (1, 2, 3)]
    box.capture("lost.gz", silent)
    box.capture("binance_spot/btcusdt/told.gz", silent)
    found = box.settled()
    assert cells(found) == [("binance_spot.BTCUSDT", "2023-11-15", ["told.gz"])]
    assert [path.name for path, _ in found.refused] == ["lost.gz"]
    assert "lay it into" in found.refused[0][1]


def test_odd_files_are_refused_once_and_hold_nobody_up(box: Inbox) -> None:
    (box.folder / "notes.txt").write_text("hello")
    (box.folder / "empty.gz").touch()
    (box.folder / "cut.gz").write_bytes(box.capture("whole.gz").read_bytes()[:-20])
    (box.folder / "whole.gz").unlink()
    (box.folder / f"{BTC}.2023-11-15T05.rawlog").write_bytes(b"something else")
    (box.folder / "future.log").write_bytes(b"%d %s\n" % (4_000_000_000 * NS_PER_SECOND, wire.trade(1, "1.0", "1.000")))
    box.capture("good.gz", [(at + NS_PER_DAY, payload) for at, payload in wire.market(3)])
    found = box.settled()
    assert len(found.requests) == 1
    refused = {path.name: reason for path, reason in found.refused}
    assert set(refused) == {"notes.txt", "empty.gz", "cut.gz", f"{BTC}.2023-11-15T05.rawlog", "future.log"}
    assert "no known format" in refused["notes.txt"]
    assert "truncated or damaged" in refused["cut.gz"]
    assert "none: rename it" in refused[f"{BTC}.2023-11-15T05.rawlog"]
    assert not box.look().refused
    box.capture("notes.txt")
    again = box.settled()
    assert not again.refused
    assert [names for _, _, names in cells(again)] == [["notes.txt"]]


def test_a_reader_that_breaks_down_holds_nobody_up(box: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(inbox: Path, name: str) -> object:
        if "bad" in name:
            raise ZeroDivisionError("oops")
        return true(inbox, name)

    true = stage.by_content
    monkeypatch.setattr(stage, "by_content", broken)
    box.capture("bad.gz")
    box.capture("good.gz")
    found = box.settled()
    assert len(found.requests) == 1
    assert "ZeroDivisionError" in found.refused[0][1]


def test_the_same_content_is_taken_once(box: Inbox) -> None:
    first = box.capture("a.gz")
    assert len(box.settled().requests) == 1
    shutil.copy(first, box.folder / "copy of a.gz")
    assert not box.settled().requests
    box.capture("b.gz", [(at + HOUR, payload) for at, payload in wire.market(3)])
    assert cells(box.settled()) == [(str(BTC), "2023-11-15", ["a.gz", "b.gz"])]


def test_a_pair_of_row_files_is_one_source(box: Inbox) -> None:
    from tests.test_lobster import BOOKS, MESSAGES, NAME

    for kind, content in (("message", MESSAGES), ("orderbook", BOOKS)):
        (box.folder / NAME.format(kind)).write_text(content)
    found = box.settled()
    assert [(name, len(names)) for name, _, names in cells(found)] == [("nasdaq.TEST", 2)]
    assert not found.refused


def test_half_a_pair_is_refused_until_the_other_half_comes(box: Inbox) -> None:
    from tests.test_lobster import BOOKS, MESSAGES, NAME

    (box.folder / NAME.format("message")).write_text(MESSAGES)
    first = box.settled()
    assert not first.requests
    assert [path.name for path, _ in first.refused] == [NAME.format("message")]
    box.capture("btc.gz")
    other = box.settled()
    assert [str(due.instrument) for due in other.requests] == [str(BTC)]
    assert not other.refused, "said once"
    (box.folder / NAME.format("orderbook")).write_text(BOOKS)
    assert [(name, len(names)) for name, _, names in cells(box.settled())] == [("nasdaq.TEST", 2)]


def test_a_large_file_is_looked_through_elsewhere(box: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LOOK_BYTES", 100)
    box.capture("large.gz")
    box.look()
    found = box.look()
    assert [name for name, _ in found.large] == ["large.gz"]
    assert not found.requests
    look_through(box.folder, *found.large[0])
    assert len(box.look().requests) == 1
    assert not box.look().large


def test_content_read_and_days_asked_for_are_bounded(box: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "REQUESTS", 4)
    for number in range(10):
        box.capture(f"{number}.log", [(at + number * NS_PER_DAY, payload) for at, payload in wire.market(3)])
    monkeypatch.setattr(stage, "LOOK_BYTES", 3 * (box.folder / "0.log").stat().st_size + 100)
    asked = [due.day for _ in range(12) for due in box.look().requests]
    assert sorted(set(asked)) == [day_of(wire.START_NS + number * NS_PER_DAY) for number in range(10)]
    assert len(asked) <= 13, "a day comes again only when its neighbour was found later"


def test_many_files_are_seen_quickly_and_remembered_briefly(box: Inbox) -> None:
    content = box.hour(0).read_bytes()
    for number in range(100):
        for hour in range(24):
            day = day_of(wire.START_NS + number * NS_PER_DAY)
            (box.folder / "binance_usdm" / "BTCUSDT" / f"{BTC}.{day}T{hour:02d}.rawlog").write_bytes(
                content + bytes([hour])
            )
    first, second, third = box.look(), box.look(), box.look()
    assert [len(found.requests) for found in (first, second, third)] == [50, 50, 0]
    assert len(third.state.to_text()) < 5000
    assert not third.state.known


def test_a_lost_cursor_asks_with_the_same_keys(box: Inbox) -> None:
    box.capture("a.gz")
    box.hour(3, instrument=Instrument("binance_usdm", "ETHUSDT"))
    before = {due.key for due in box.settled().requests}
    box.state = State.from_text("no cursor of ours")
    assert {due.key for due in box.settled().requests} == before


def _evaluate(settings: Settings, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"verbs": Verbs(settings)}, definitions=definitions()
    )
    result = sensor.inbox(context)
    assert isinstance(result, dg.SensorResult)
    return result


def _dropped(settings: Settings) -> Path:
    """Drop a capture over midnight that was written ten minutes ago."""
    settings.inbox.mkdir(parents=True, exist_ok=True)
    frames = [(at - 10 * NS_PER_SECOND, payload) for at, payload in wire.market(30)]
    path = wire.write_capture(settings.inbox / "capture.gz", frames)
    os.utime(path, ns=(time.time_ns() - OLD_NS, time.time_ns() - OLD_NS))
    return path


def test_the_sensor_adds_the_instrument_and_asks_for_its_days(settings: Settings) -> None:
    path = _dropped(settings)
    (settings.inbox / "readme").write_text("x")
    os.utime(settings.inbox / "readme", (1, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        waiting = _evaluate(settings, instance, None)
        assert not waiting.run_requests
        assert "may still be growing" in (waiting.skip_reason.skip_message or "")  # type: ignore[union-attr]
        due = _evaluate(settings, instance, waiting.cursor)
        assert [request.partition_key for request in due.run_requests or []] == [
            "2023-11-14|binance_usdm.BTCUSDT",
            "2023-11-15|binance_usdm.BTCUSDT",
        ]
        (added,) = due.dynamic_partitions_requests or []
        assert added.partition_keys == [str(BTC)]
        config = due.run_requests[0].run_config["ops"]["raw_capture"]["config"]  # type: ignore[index]
        assert config == {"sources": [str(path)]}
        listed = json.loads((settings.home / sensor.REFUSED).read_text())
        assert [Path(row["path"]).name for row in listed] == ["readme"]
        instance.add_dynamic_partitions("instrument", [str(BTC)])
        path.rename(path.with_name("moved.gz"))
        assert not _evaluate(
            settings, instance, _evaluate(settings, instance, due.cursor).cursor
        ).dynamic_partitions_requests
        (settings.inbox / "readme").unlink()
        _evaluate(settings, instance, due.cursor)
        assert json.loads((settings.home / sensor.REFUSED).read_text()) == []


def test_a_requested_run_makes_raw_capture_ticks_and_features(settings: Settings) -> None:
    _dropped(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        due = _evaluate(settings, instance, _evaluate(settings, instance, None).cursor)
        instance.add_dynamic_partitions("instrument", [str(BTC)])
        for request in due.run_requests or []:
            run = dg.materialize(
                all_assets(),
                selection=dg.AssetSelection.assets("raw_capture", *TICKS, FEATURES),
                partition_key=request.partition_key,
                resources={"verbs": Verbs(settings)},
                instance=instance,
                run_config=request.run_config,
            )
            made = {
                event.materialization.asset_key.to_user_string() for event in run.get_asset_materialization_events()
            }
            assert made == {"raw_capture", *TICKS, "features_500ms"}
    from synth_pipeline.lineage import manifests

    raw = manifests.load(settings.home / "raw/binance_usdm/BTCUSDT/2023-11-15")
    assert raw is not None
    assert raw.facts["continues_from_yesterday"]
    assert raw.facts["other_days"] > 0


def test_the_jobs_of_the_sensor_are_in_the_graph(
    settings: Settings, box: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = definitions().get_repository_def()
    assert {"inbox_day", "look_through_large_file"} <= set(repository.job_names)
    assert repository.get_sensor_def("inbox").default_status == dg.DefaultSensorStatus.RUNNING
    config = {"ops": {"raw_capture": {"config": {"sources": ["/a", "/b"]}}}}
    dg.validate_run_config(repository.get_job("inbox_day"), config)
    monkeypatch.setattr(stage, "LOOK_BYTES", 100)
    path = box.capture("large.gz")
    os.utime(path, (1, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = _evaluate(settings, instance, None).cursor
        (request,) = _evaluate(settings, instance, cursor).run_requests or []
        assert request.job_name == "look_through_large_file"
        done = sensor.look_through_large_file.execute_in_process(run_config=request.run_config, instance=instance)
        assert done.success
        (request,) = _evaluate(settings, instance, cursor).run_requests or []
        assert request.partition_key == "2023-11-15|binance_usdm.BTCUSDT"


def test_the_command_line_lists_the_inbox(box: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth_pipeline.cli import app

    monkeypatch.setenv("SYNTH_HOME", str(box.settings.home))
    os.utime(box.capture("old.gz"), (1, 1))
    box.capture("young.gz", [(at + NS_PER_DAY, payload) for at, payload in wire.market(3)])
    (box.folder / "notes.txt").write_text("hello")
    os.utime(box.folder / "notes.txt", (1, 1))
    os.utime(box.hour(3, instrument=Instrument("binance_usdm", "ETHUSDT")), (1, 1))
    document = json.loads(CliRunner().invoke(app, ["inbox", "--json"], catch_exceptions=False).stdout)
    assert list(document["ready"]) == [f"{BTC} 2023-11-15", "binance_usdm.ETHUSDT 2023-11-15"]
    assert document["waiting"] == {"young.gz": "may still be growing"}
    assert [Path(path).name for path in document["refused"]] == ["notes.txt"]
    shown = CliRunner().invoke(app, ["inbox"], catch_exceptions=False).stdout
    assert "refused" in shown
