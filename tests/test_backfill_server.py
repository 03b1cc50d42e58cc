"""Backfills through Dagster's GraphQL and daemon: launched, watched, seen green in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from synth_pipeline.orchestration import backfill as backfills
from synth_pipeline.orchestration import server
from synth_pipeline.orchestration.assets import FEATURES
from synth_pipeline.stages import Workspace
from tests import desk, made_days
from tests.desk import Desk

pytestmark = [
    pytest.mark.xdist_group("backfill_server"),
    # Of Dagster's own pages and daemons, which warn in their threads.
    pytest.mark.filterwarnings("default"),
]
BTC, ETH = made_days.instrument(), made_days.instrument("ETHUSDT")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    settings = desk.settings_of(tmp_path_factory.mktemp("home"))
    with backfills.opened_instance(settings, [BTC, ETH]):
        pass
    with desk.opened(settings) as opened:
        yield opened


def _plan(served: Desk, first: int, last: int) -> backfills.Plan:
    return backfills.plan(served.settings, [BTC, ETH], made_days.day(first), made_days.day(last))


def test_exactly_the_due_cells_are_made_in_chunks_and_the_poisoned_one_is_named(served: Desk) -> None:
    settings = served.settings
    made_days.record(settings, range(3), ["BTCUSDT", "ETHUSDT"])
    made_days.poison(settings, 1)
    plan = _plan(served, 0, 2)
    seen: list[tuple[int, int]] = []
    found = server.watch(
        settings, plan, server.launch(settings, plan), lambda done, total, _="": seen.append((done, total))
    )
    poisoned = f"{BTC}/{made_days.day(1)}"
    assert (len(found.made), list(found.failed)) == (5, [poisoned])
    assert "InputError" in found.failed[poisoned]  # what the ticks said, not that the features had none
    assert seen[-1][1] == 24  # three tables and the features of six cells: nothing was widened
    assert len(served.instance.get_runs()) == 2  # a chunk an instrument
    assert Workspace(settings).find("features", BTC, made_days.day(2)) is not None
    again = _plan(served, 0, 2)
    assert [(chunk.instrument, chunk.days) for chunk in again.chunks] == [(BTC, (made_days.day(1),))]


def test_what_an_earlier_backfill_made_does_not_pass_for_made_now_while_the_daemon_was_away(served: Desk) -> None:
    settings = served.settings
    made_days.record(settings, [10], ["BTCUSDT"])
    first = _plan(served, 10, 10)
    served.paused.set()
    backfill_id = server.launch(settings, first)
    served.paused.clear()  # what was asked for is in the instance, and a daemon that comes back goes on with it
    assert len(server.watch(settings, first, backfill_id).made) == 1
    made_days.record(settings, [10], ["BTCUSDT"], seconds=4)
    made_days.poison(settings, 10)
    plan = _plan(served, 10, 10)
    assert server.watch(settings, plan, server.launch(settings, plan)).made == []


def test_a_server_of_another_home_is_not_asked(served: Desk, tmp_path: Path) -> None:
    assert server.serves(served.settings)
    assert not server.serves(served.settings.model_copy(update={"home": tmp_path}))


@pytest.fixture
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed to open the Dagster UI in")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS.split())
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(120_000)  # a machine under load
        yield tab
        browser.close()


@pytest.mark.slow
def test_a_person_picks_days_in_the_browser_and_sees_them_turn_green(served: Desk, page: Any) -> None:
    made_days.record(served.settings, [20, 21], ["BTCUSDT", "ETHUSDT"])
    backfill_in_browser(page, served.settings.dagster_url, made_days.day(20), made_days.day(21))
    page.get_by_text("100% completed").nth(3).wait_for()
    text = page.locator("body").inner_text()
    assert re.findall(r"100% completed\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", text) == [("4", "0", "4", "0")] * 4, text
    held = served.instance.get_materialized_partitions(FEATURES)
    assert {f"{made_days.day(number)}|{each}" for number in (20, 21) for each in (BTC, ETH)} <= set(held)
    assert _plan(served, 20, 21).chunks == ()


def backfill_in_browser(page: Any, url: str, first: object, last: object) -> None:
    """Pick the days of all instruments for ticks and features in the lineage graph, launch, and open the backfill."""
    upstream = quote(f'1+key:"{FEATURES.to_user_string()}"', safe="")
    page.goto(f"{url}/asset-groups~{upstream}")
    page.get_by_role("button", name="Materialize all").click()
    days, confirm = page.get_by_placeholder("ex: 2012"), page.get_by_role("button", name="Confirm")
    confirm.or_(days).first.wait_for()
    if confirm.is_visible():  # it says that the raw capture was not made here
        confirm.click()
    days.fill(f"[{first}...{last}]")
    days.press("Tab")
    page.get_by_role("button", name="All", exact=True).nth(1).click()
    page.get_by_role("button", name="Launch backfill").click()
    told = page.get_by_text("Created backfill")
    told.wait_for()
    found = re.search(r"Created backfill\s+(\w+)", told.locator("..").inner_text())
    assert found is not None
    page.goto(f"{url}/runs/b/{found[1]}")
