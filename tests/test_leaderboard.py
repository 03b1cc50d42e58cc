"""What was sampled of one market, ranked and side by side."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest

from synth_pipeline import stages
from synth_pipeline.bars.files import Options
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.reports.leaderboard_page import Entry, ranked, render
from synth_pipeline.schema import Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages.history import parse_cell

DAILY, STOCK = parse_cell("1d"), Instrument("file", "STOCK")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> stages.Workspace:
    home = tmp_path_factory.mktemp("home")
    made = stages.Workspace.of(Settings(home=home, tracking=False, seed=4))
    rng = np.random.default_rng(7)
    days = np.busday_offset(np.datetime64("2015-01-01"), np.arange(900), roll="forward")
    # Volatility comes and goes, so that blocks are long.
    calm = np.exp(0.8 * np.sin(np.arange(900) / 40))
    close = np.round(100 * np.exp(np.cumsum(0.01 * calm * rng.standard_normal(900))), 2)
    frame = pl.DataFrame({"Date": days, "Open": close, "High": close + 0.5, "Low": close - 0.5, "Close": close})
    frame.write_csv(home / "STOCK.csv")
    stages.bars_from_file(made, home / "STOCK.csv", STOCK, Options())
    for name in ("block_bootstrap", "garch", "geometric_brownian_motion"):
        stages.fit(made, STOCK, DAILY, name)
    for name in ("block_bootstrap", "garch"):
        stages.sample(made, STOCK, DAILY, name, paths=3)
        stages.evaluate(made, STOCK, DAILY, name)
    stages.sample(made, STOCK, DAILY, "garch", paths=2, scenario=stages.Scenario(shocks=("volatility:times=3",)))
    return made


def test_replayed_data_stand_below_every_grade_and_what_is_to_be_done_below_them() -> None:
    entries = [
        Entry(name="waits", because="sampled, not evaluated: evaluate it"),
        Entry(name="replay", grade="withheld", fidelity=99.0),
        Entry(name="worse", grade="B", fidelity=70.0),
        Entry(name="better", grade="B", fidelity=80.0),
        Entry(name="best", grade="A", fidelity=60.0),
    ]
    assert [each.name for each in ranked(entries)] == ["best", "better", "worse", "replay", "waits"]
    text = render("market", ranked(entries), {})
    assert [text.index(f'<th scope="row">{each.name}</th>') for each in ranked(entries)] == sorted(
        text.index(f'<th scope="row">{each.name}</th>') for each in entries
    )


def test_the_leaderboard_ranks_what_was_evaluated_and_names_what_was_not(workspace: stages.Workspace) -> None:
    made = stages.leaderboard(workspace, STOCK, DAILY)
    entries = json.loads(workspace.file(made, "leaderboard").read_bytes())
    by_name = {each["name"]: each for each in entries}
    assert by_name["block_bootstrap"]["grade"] == "withheld"
    assert by_name["block_bootstrap"]["verbatim"] > 0.5 > by_name["garch"]["verbatim"]
    assert by_name["garch"]["fresh"] is not None
    assert by_name["garch"]["copy"] is not None
    assert [each["name"] for each in entries[:2]] == ["garch", "block_bootstrap"]
    shocked = next(name for name in by_name if name.startswith("garch@"))
    assert "evaluate it" in by_name[shocked]["because"]
    assert "sample and evaluate it" in by_name["geometric_brownian_motion"]["because"]
    page = workspace.file(made, "report").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert stages.leaderboard(workspace, STOCK, DAILY).skipped


def test_two_datasets_are_compared_and_do_not_enter_the_ranking(workspace: stages.Workspace) -> None:
    made = stages.compare_datasets(workspace, STOCK, DAILY, "garch", "block_bootstrap")
    page = workspace.file(made, "report").read_text(encoding="utf-8")
    assert "<h1>garch beside block_bootstrap</h1>" in page
    assert "block_bootstrap replays training data" in page
    names = {
        each["name"]
        for each in json.loads(workspace.file(stages.leaderboard(workspace, STOCK, DAILY), "leaderboard").read_bytes())
    }
    assert not any("against" in name for name in names)
    with pytest.raises(InputError, match="compared with itself"):
        stages.compare_datasets(workspace, STOCK, DAILY, "garch", "garch")


def test_the_page_of_a_stored_record_is_the_stored_page(workspace: stages.Workspace, tmp_path) -> None:
    stored = stages.evaluate(workspace, STOCK, DAILY, "garch")
    page = stages.rendered([workspace.file(stored, "evaluation")], tmp_path / "page.html")
    assert page.read_bytes() == workspace.file(stored, "report").read_bytes()
    assert f"synth-pipeline reproduce {stored.ref}" in page.read_text(encoding="utf-8")


def test_a_market_without_anything_fitted_has_no_leaderboard(workspace: stages.Workspace) -> None:
    with pytest.raises(NoDataError, match="fit, sample and evaluate"):
        stages.leaderboard(workspace, Instrument("file", "NOTHING"), DAILY)
