"""The night: what is due on it, in which order it is asked for, who becomes champion, and who hears of a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from synth_pipeline import stages
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.lineage import commit
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.lineage.runs import Champion, NullTracker
from synth_pipeline.orchestration import alerts
from synth_pipeline.orchestration.definitions import definitions
from synth_pipeline.orchestration.nightly import NIGHT, TAG, last_whole_day, nightly
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.schema import day_start_ns
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace, promotion
from tests import made_days

BTC = made_days.instrument()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        made.add_dynamic_partitions("instrument", [str(BTC)])
        yield made


def _at(number: int, hour: int = 1) -> datetime:
    return datetime.fromtimestamp(day_start_ns(made_days.day(number)) / 1e9, UTC) + timedelta(hours=hour)


def _tick(settings: Settings, instance: dg.DagsterInstance, at: datetime) -> list[dg.RunRequest]:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
    found = nightly(context, verbs=Verbs(settings))
    assert isinstance(found, list)
    return found


def _asked(requests: list[dg.RunRequest]) -> list[str]:
    return [request.tags["synth/night"] for request in requests]


class TestSchedule:
    def test_it_waits_until_a_person_turns_it_on(self) -> None:
        assert nightly.default_status is dg.DefaultScheduleStatus.STOPPED
        repository = definitions().get_repository_def()
        assert [each.name for each in repository.schedule_defs] == ["nightly"]
        assert repository.get_job(NIGHT.name)

    def test_yesterday_goes_up_to_features_and_then_the_generators_follow(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        made_days.record(settings, [0])
        day, models = _tick(settings, instance, _at(1))
        assert [key.to_user_string() for key in day.asset_selection or ()] == [
            "raw_capture", "trades", "book_levels", "quotes", "features_500ms",
        ]  # fmt: skip
        selected = {key.to_user_string() for key in models.asset_selection or ()}
        assert selected >= {"wgan_gp/checkpoint", "wgan_gp/champion", "block_bootstrap/fidelity_report"}
        assert "features_500ms" not in selected
        assert {day.partition_key, models.partition_key} == {f"{made_days.day(0)}|{BTC}"}
        assert int(day.tags["dagster/priority"]) > int(models.tags["dagster/priority"])
        assert day.tags[TAG] == models.tags[TAG] == str(BTC)

    def test_three_nights_asleep_are_caught_up_oldest_first(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        made_days.record(settings, [0, 1, 2, 3])
        stages.ingest(Workspace(settings), BTC, made_days.day(0))
        stages.featurize(Workspace(settings), BTC, made_days.day(0))
        days = [made_days.day(number).isoformat() for number in (1, 2, 3)]
        assert _asked(_tick(settings, instance, _at(4))) == [*days, f"{days[-1]} models"]

    def test_a_missing_day_asks_for_nothing_and_one_that_comes_late_is_taken(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        assert _tick(settings, instance, _at(1)) == []
        made_days.record(settings, [0])
        late = made_days.day(0).isoformat()
        assert _asked(_tick(settings, instance, _at(3))) == [late, f"{late} models"]
        assert _tick(settings, instance, _at(9)) == []  # older than a night looks back

    def test_a_revised_day_is_due_again(self, settings: Settings) -> None:
        made_days.record(settings, [0, 1])
        for number in (0, 1):
            stages.ingest(Workspace(settings), BTC, made_days.day(number))
            stages.featurize(Workspace(settings), BTC, made_days.day(number))
        looking = Workspace(settings)
        assert stages.night(looking, BTC, made_days.day(1), 2, []).due == ()
        made_days.record(settings, [0], seconds=4)
        found = stages.night(looking, BTC, made_days.day(1), 2, ["block_bootstrap"])
        assert found == stages.Night((made_days.day(0),), (), made_days.day(1))

    def test_a_second_night_asks_for_nothing_that_is_on_its_way(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        made_days.record(settings, [0, 1])
        first = _tick(settings, instance, _at(2))
        for request in first:
            instance.add_run(dg.DagsterRun("night", status=dg.DagsterRunStatus.STARTED, tags=dict(request.tags)))
        assert _tick(settings, instance, _at(2, hour=2)) == []

    def test_a_clock_set_back_between_two_nights_asks_for_no_day_twice_and_for_none_that_is_not_over(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        made_days.record(settings, [0, 1])
        for request in _tick(settings, instance, _at(2)):
            instance.add_run(dg.DagsterRun("night", status=dg.DagsterRunStatus.STARTED, tags=dict(request.tags)))
        assert not {made_days.day(0).isoformat(), made_days.day(1).isoformat()} & {
            *_asked(_tick(settings, instance, _at(1)))
        }

    def test_an_instrument_of_the_settings_becomes_a_partition(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        chosen = settings.model_copy(update={"nightly_instruments": "simulated.SIM, binance_usdm.ETHUSDT"})
        asked = _tick(chosen, instance, _at(1))
        assert {request.tags["synth/instrument"] for request in asked} == {"simulated.SIM"}
        assert set(instance.get_dynamic_partitions("instrument")) == {str(BTC), "simulated.SIM", "binance_usdm.ETHUSDT"}

    def test_a_damaged_manifest_is_a_run_that_fails_not_a_night_that_does(
        self, settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        (made,) = made_days.record(settings, [0])
        Path(str(settings.data / made.ref / "manifest.json")).write_text("{")
        assert _asked(_tick(settings, instance, _at(1)))[0] == made_days.day(0).isoformat()

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe"])
    def test_summer_time_neither_loses_a_day_nor_takes_one_that_is_not_over(self, zone: str) -> None:
        for month in (3, 4, 10, 11):
            start = datetime(2024, month, 1, tzinfo=UTC)
            ticks = schedule_execution_time_iterator(start.timestamp(), "0 2 * * *", zone, ascending=True)
            at = [next(ticks) for _ in range(40)]
            days = [last_whole_day(each) for each in at]
            assert all(
                datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) <= each
                for day, each in zip(days, at, strict=True)
            )
            assert all(timedelta(0) <= b - a <= timedelta(days=2) for a, b in pairwise(days))

    @pytest.mark.parametrize(
        ("name", "value"),
        [("nightly_hour", 24), ("nightly_timezone", "Mars/Base"), ("nightly_catch_up_days", 0)],
    )
    def test_settings_that_do_not_fit_are_named(self, name: str, value: Any) -> None:
        with pytest.raises(InputError, match=f"SYNTH_{name.upper()}="):
            Settings(**{name: value})

    def test_the_instance_lets_one_run_of_a_night_at_a_time_go(self, settings: Settings) -> None:
        from synth_pipeline.orchestration.inprocess import opened_instance

        with opened_instance(settings, []) as made:
            limits = made.get_concurrency_config().run_queue_config.tag_concurrency_limits
            slots = {limit.name: limit.limit for limit in made.event_log_storage.get_pool_limits()}
        assert {"key": TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1} in limits
        assert slots["cpu"] >= 1


def _evaluation(fidelity: float, band: tuple[float, float] = (90.0, 94.0), conclusion: str = "close") -> Any:
    return SimpleNamespace(fidelity=fidelity, floor=95.0, fidelity_band=band, conclusion=conclusion)


def _put(home: Path, stage: Any, inputs: dict[str, str], name: str, content: str, run_id: str | None) -> Manifest:
    key = f"{BTC}/{made_days.day(0)}/garch"
    draft = Manifest(stage=stage, key=key, inputs=inputs, code_version="", config={}, mlflow_run_id=run_id)
    folder = home / draft.ref
    with commit.staging(folder) as place:
        (place / name).write_text(content)
        return commit.commit(folder, draft, {name: place / name})


class Registry(NullTracker):
    """A registry in memory, of one model."""

    def __init__(self, champion: Champion | None) -> None:
        self.held = champion
        self.verdicts: list[tuple[str, str, bool]] = []
        self.checkpoint: Manifest | None = None

    def champion(self, model: str) -> Champion | None:  # type: ignore[override]  # noqa: ARG002
        return self.held

    def judge(self, model: str, run_id: str, verdict: Any, *, promoted: bool) -> None:  # noqa: ARG002
        self.verdicts.append((model, verdict["reason"], promoted))
        if promoted and self.checkpoint:
            self.held = Champion("9", self.checkpoint.ref, self.checkpoint.digest, verdict["fidelity"])


def _judged(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    champion: Champion | None,
    evaluation: Any,
    run_id: str | None = "r1",
) -> tuple[Workspace, Registry]:
    checkpoint = _put(settings.home, "checkpoints", {}, "checkpoint", "weights", run_id)
    sampled = _put(settings.home, "synthetic", {checkpoint.ref: checkpoint.digest}, "dataset", "rows", None)
    _put(settings.home, "reports", {sampled.ref: sampled.digest}, "evaluation", "{}", None)
    monkeypatch.setattr("synth_pipeline.fidelity.evaluation.Evaluation.from_json", lambda _: evaluation)
    registry = Registry(champion)
    registry.checkpoint = checkpoint
    return Workspace(settings, registry), registry


OLD = Champion("1", "checkpoints/old", "0" * 64, 92.0)


class TestPromotion:
    @pytest.mark.parametrize(
        ("champion", "evaluation", "promoted", "reason"),
        [
            (None, _evaluation(10.0), True, "first of its model"),
            (OLD, _evaluation(95.0), True, "no worse"),
            (OLD, _evaluation(88.0), True, "no worse than the floor band of 4.0 allows"),
            (OLD, _evaluation(87.9), False, "kept the old one: fidelity 87.9 against the champion's 92.0 is worse"),
            (Champion("1", "checkpoints/old", "0" * 64, None), _evaluation(1.0), True, "never judged"),
            (OLD, _evaluation(99.0, conclusion="memorised"), False, "replays its training data"),
            (None, _evaluation(99.0, conclusion="invalid"), False, "values are invalid"),
        ],
    )
    def test_the_newcomer_wins_unless_it_is_worse_by_more_than_chance(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        champion: Champion | None,
        evaluation: Any,
        promoted: bool,
        reason: str,
    ) -> None:
        workspace, registry = _judged(settings, monkeypatch, champion, evaluation)
        made = stages.promote(workspace, BTC, made_days.day(0), "garch")
        assert made.facts["promoted"] is promoted
        assert reason in made.facts["reason"]
        assert registry.verdicts == [(f"{BTC}.garch", made.facts["reason"], promoted)]
        assert made.ref == f"promotions/binance_usdm/BTCUSDT/{made_days.day(0)}/garch"

    def test_what_was_decided_is_not_decided_again(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        for evaluation, promoted in ((_evaluation(95.0), True), (_evaluation(10.0), False)):
            workspace, registry = _judged(settings, monkeypatch, OLD, evaluation)
            stages.promote(workspace, BTC, made_days.day(0), "garch")
            again = stages.promote(workspace, BTC, made_days.day(0), "garch")
            assert again.skipped
            assert again.facts["promoted"] is promoted
            assert len(registry.verdicts) == 1
            monkeypatch.undo()
            Path(str(settings.data / again.ref / "manifest.json")).unlink()

    def test_another_champion_is_another_question(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        workspace, registry = _judged(settings, monkeypatch, OLD, _evaluation(80.0))
        assert not stages.promote(workspace, BTC, made_days.day(0), "garch").facts["promoted"]
        registry.held = Champion("2", "checkpoints/other", "1" * 64, 81.0)
        assert stages.promote(workspace, BTC, made_days.day(0), "garch").facts["promoted"]

    def test_a_checkpoint_fitted_untracked_is_kept_out(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace, registry = _judged(settings, monkeypatch, None, _evaluation(99.0), run_id=None)
        made = stages.promote(workspace, BTC, made_days.day(0), "garch")
        assert (made.facts["promoted"], registry.verdicts) == (False, [])

    def test_a_report_of_an_older_checkpoint_does_not_count(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace, _ = _judged(settings, monkeypatch, OLD, _evaluation(99.0))
        _put(settings.home, "checkpoints", {}, "checkpoint", "other weights", "r2")
        with pytest.raises(NoDataError, match=r"older than checkpoints/.*: sample it again"):
            stages.promote(workspace, BTC, made_days.day(0), "garch")

    def test_the_width_of_the_band_is_what_decides(self) -> None:
        checkpoint = Manifest(stage="checkpoints", key=f"{BTC}/x/garch", inputs={}, code_version="", config={})
        narrow, wide = _evaluation(88.0, (93.0, 94.0)), _evaluation(88.0, (80.0, 94.0))
        assert not promotion.decide(narrow, OLD, checkpoint).promoted
        assert promotion.decide(wide, OLD, checkpoint).promoted


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
        server.shutdown()
        thread.join()


class TestAlerts:
    def test_a_failed_run_reaches_the_webhook(
        self, settings: Settings, webhook: tuple[str, list[dict[str, Any]]]
    ) -> None:
        @dg.op
        def breaks() -> None:
            raise InputError("the disk is full: make room")

        @dg.job
        def broken() -> None:
            breaks()

        address, heard = webhook
        with dg.DagsterInstance.ephemeral() as instance:
            result = broken.execute_in_process(
                instance=instance, raise_on_error=False, tags={"dagster/partition": "d|i"}
            )
            context = dg.build_run_status_sensor_context(
                "alerts",
                dagster_event=result.get_run_failure_event(),
                dagster_instance=instance,
                dagster_run=result.dagster_run,
            ).for_run_failure()
            chosen = settings.model_copy(update={"alert_url": address, "dagster_url": "http://dagster/"})
            alerts.alerts(context, verbs=Verbs(chosen))
        (document,) = heard
        assert "the disk is full: make room" in document["text"]
        assert document["partition"] == "d|i"
        assert document["url"] == f"http://dagster/runs/{result.run_id}"

    def test_without_an_address_nobody_is_told(self, settings: Settings) -> None:
        alerts.tell(settings, {})

    def test_a_mail_says_who_and_what(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[Any] = []

        class Server:
            def __init__(self, *words: Any, **_: Any) -> None:
                sent.append(words)

            def __enter__(self) -> Server:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def has_extn(self, _: str) -> bool:
                return False

            def login(self, *words: str) -> None:
                sent.append(words)

            def send_message(self, message: Any) -> None:
                sent.append((message["From"], message["To"], message["Subject"], message.get_content()))

        monkeypatch.setattr(alerts.smtplib, "SMTP", Server)
        address = "smtp://desk:p%40ss@mail.x:25/?from=a@x&to=b@x&to=c@x"
        document = {"job": "night", "partition": "d|i", "error": "no room", "url": "http://u"}
        alerts.tell(settings.model_copy(update={"alert_url": address}), document)
        assert sent[:2] == [("mail.x", 25), ("desk", "p@ss")]
        assert sent[2][:3] == ("a@x", "b@x, c@x", "synth-pipeline: night d|i failed")
        assert "no room" in sent[2][3]

    @pytest.mark.parametrize("address", ["ftp://x", "smtp://mail.x:25/?from=a@x", "hooks.slack.com/x"])
    def test_an_address_that_cannot_be_used_is_named(self, settings: Settings, address: str) -> None:
        document = {"job": "night", "partition": "", "error": "", "url": ""}
        with pytest.raises(InputError, match="SYNTH_ALERT_URL"):
            alerts.tell(settings.model_copy(update={"alert_url": address}), document)
