"""The verbs on stored bars: fit, sample under scenarios, evaluate; one instrument and a basket."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from synth_pipeline import stages
from synth_pipeline.bars.files import Options
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.generators import Generator
from synth_pipeline.schema import NS_PER_DAY, Instrument
from synth_pipeline.series import Series
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Scenario
from synth_pipeline.stages.history import parse_cell
from synth_pipeline.synthesis import rejection
from synth_pipeline.synthesis.dataset import lazy_dataset, read_dataset

DAILY = parse_cell("1d")
STOCK, BASKET = Instrument("file", "STOCK"), Instrument.parse("file.STOCK+OTHER")


def _prices(rng: np.random.Generator, common: np.ndarray) -> np.ndarray:
    """Closes whose volatility comes and goes, so that there is something to bootstrap."""
    calm = np.exp(0.8 * np.sin(np.arange(len(common)) / 40))
    return np.round(100 * np.exp(np.cumsum(0.01 * calm * (0.7 * common + 0.7 * rng.standard_normal(len(common))))), 2)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> stages.Workspace:
    home = tmp_path_factory.mktemp("home")
    made = stages.Workspace.of(Settings(home=home, tracking=False, seed=4))
    rng = np.random.default_rng(7)
    days = np.busday_offset(np.datetime64("2015-01-01"), np.arange(1200), roll="forward")
    common = rng.standard_normal(1200)
    for name in ("STOCK", "OTHER"):
        close = _prices(rng, common)
        spread = np.round(close * 0.004, 2) + 0.01
        frame = pl.DataFrame(
            {
                "Date": days,
                "Open": close,
                "High": np.round(close + spread, 2),
                "Low": np.round(close - spread, 2),
                "Close": close,
                "Volume": rng.integers(1_000, 9_000, 1200),
            }
        )
        path = home / f"{name}.csv"
        frame.write_csv(path)
        stages.bars_from_file(made, path, Instrument("file", name), Options())
    stages.fit(made, STOCK, DAILY, "block_bootstrap")
    return made


def test_a_dataset_of_bars_keeps_the_calendar_of_its_market(workspace: stages.Workspace) -> None:
    made = stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=3)
    frame = lazy_dataset(workspace.file(made, "dataset")).collect()
    labels = frame.filter(pl.col("path") == 0)["label_ns"].to_numpy()
    opened = ((labels - NS_PER_DAY) // NS_PER_DAY).astype("M8[D]")
    assert made.facts["steps"] == len(labels) == 840  # the training split: 70 % of 1200
    assert np.is_busday(opened).all()
    assert np.busday_count(opened[0], opened[-1]) == len(opened) - 1
    assert stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=3).skipped


def test_a_scenario_is_a_dataset_of_its_own(workspace: stages.Workspace) -> None:
    plain = stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=2, steps=300)
    wild = Scenario(shocks=("volatility:times=3",))
    shocked = stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=2, steps=300, scenario=wild)
    assert shocked.ref.startswith(f"{plain.ref}@volatility-")
    assert stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=2, steps=300).skipped
    # One shock has one name, however it is written.
    same = Scenario(shocks=("volatility:times=3.0",))
    assert same.name("block_bootstrap") == wild.name("block_bootstrap")
    calm, scaled = (read_dataset(workspace.file(each, "dataset")).log_returns().std() for each in (plain, shocked))
    assert scaled / calm == pytest.approx(3, rel=1e-3)  # the same paths, with the shock on them


def test_paths_under_a_threshold_are_kept_out(workspace: stages.Workspace) -> None:
    chosen = stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=3, scenario=Scenario(min_fidelity=80.0))
    facts = chosen.facts
    assert facts["paths"] == 3 <= facts["candidates"]
    assert facts["mean_fidelity"] >= 80
    assert facts["acceptance_rate"] == pytest.approx(3 / facts["candidates"])
    assert 0 < facts["verbatim_share"] <= 1
    with pytest.raises(InputError, match=r"min_fidelity=99\.99 is out of reach"):
        stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=3, scenario=Scenario(min_fidelity=99.99))
    assert workspace.find("synthetic", STOCK, DAILY, "block_bootstrap@fidelity99.99") is None


def test_a_report_of_a_scenario_stands_beside_the_plain_one(workspace: stages.Workspace) -> None:
    stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=3, scenario=Scenario(min_fidelity=80.0))
    made = stages.evaluate(workspace, STOCK, DAILY, "block_bootstrap@fidelity80")
    document = json.loads(workspace.file(made, "evaluation").read_text())
    assert document["fidelity"] == made.facts["fidelity"]
    assert "<html" in workspace.file(made, "report").read_text()[:400]
    with pytest.raises(NoDataError, match="sample it first"):
        stages.evaluate(workspace, STOCK, DAILY, "block_bootstrap@fidelity12")


def test_a_basket_is_fitted_sampled_and_judged_together(workspace: stages.Workspace) -> None:
    stages.fit(workspace, BASKET, DAILY, "correlated_brownian_motion")
    made = stages.sample(workspace, BASKET, DAILY, "correlated_brownian_motion", paths=2, steps=500)
    parts = read_dataset(workspace.file(made, "dataset")).parts()
    assert set(parts) == {"STOCK", "OTHER"}
    first, second = (part.log_returns().ravel() for part in parts.values())
    assert 0.3 < np.corrcoef(first, second)[0, 1] < 0.7
    judged = stages.evaluate(workspace, BASKET, DAILY, "correlated_brownian_motion")
    assert 0 < judged.facts["fidelity"] <= 100
    with pytest.raises(InputError, match="not on the basket"):
        stages.fit(workspace, BASKET, DAILY, "garch")


@pytest.mark.parametrize(
    ("scenario", "complaint"),
    [
        ({"min_fidelity": 101.0}, "0 to 100"),
        ({"min_fidelity": float("nan")}, "0 to 100"),
        ({"shocks": ("earthquake:at=3",)}, "earthquake"),
        ({"shocks": ("volatility:times=-1",)}, "times"),
    ],
)
def test_an_impossible_scenario_is_refused_at_once(scenario: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Scenario(**scenario)  # type: ignore[arg-type]


def test_a_regime_is_one_that_history_knows(workspace: stages.Workspace) -> None:
    with pytest.raises(InputError, match="no regime 'moon'"):
        stages.sample(workspace, STOCK, DAILY, "block_bootstrap", scenario=Scenario(regime="moon"))
    stages.fit(workspace, STOCK, DAILY, "geometric_brownian_motion")
    with pytest.raises(InputError, match="regime"):
        stages.sample(workspace, STOCK, DAILY, "geometric_brownian_motion", scenario=Scenario(regime="bear"))


def test_a_report_says_that_it_is_of_a_scenario_and_of_chosen_paths(workspace: stages.Workspace) -> None:
    scenario = Scenario(regime="bear", shocks=("volatility:times=2",), min_fidelity=60.0)
    made = stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=2, scenario=scenario)
    assert "steps of regime bear" in made.facts["selected_on"]
    judged = stages.evaluate(workspace, STOCK, DAILY, scenario.name("block_bootstrap"))
    page = workspace.file(judged, "report").read_text()
    assert judged.facts["scenario"] == "regime bear; shock volatility:times=2"
    assert f"2 of {made.facts['candidates']} candidates reach 60" in judged.facts["selected_on"]
    assert "This is a scenario, not the market as it was: regime bear; shock volatility:times=2." in page
    assert "These paths were selected on fidelity to the base series" in page
    stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=2, steps=300)
    plain = stages.evaluate(workspace, STOCK, DAILY, "block_bootstrap")
    assert not {"scenario", "selected_on"} & set(plain.facts)
    assert 'class="proviso"' not in workspace.file(plain, "report").read_text()


def test_a_regime_is_held_against_the_history_of_that_regime(
    workspace: stages.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases, search = [], rejection.accepted

    def seen(generator: Generator, base: Series, **more: Any) -> rejection.Accepted:
        bases.append(base)
        return search(generator, base, **more)

    monkeypatch.setattr(rejection, "accepted", seen)
    for regime in ("bear", None):
        scenario = Scenario(regime=regime, min_fidelity=0.0)
        stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=2, steps=150, scenario=scenario)
    bear, whole = bases
    checkpoint = workspace.find("checkpoints", STOCK, DAILY, "block_bootstrap")
    assert checkpoint is not None
    assert bear.steps == checkpoint.facts["steps_bear"] + 1 < whole.steps == 840
    assert np.nanmean(bear.log_returns()) < np.nanmean(whole.log_returns())


def test_bars_beyond_the_last_time_are_refused(workspace: stages.Workspace) -> None:
    with pytest.raises(InputError, match="100000 bars end after 2262"):
        stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=1, steps=100_000)
    # On weekdays alone so many bars take longer than as many days.
    with pytest.raises(InputError, match="80000 bars end after 2262"):
        stages.sample(workspace, STOCK, DAILY, "block_bootstrap", paths=1, steps=80_000)


def _stored(workspace: stages.Workspace, name: str, close: np.ndarray) -> Instrument:
    path = workspace.settings.home / f"{name}.csv"
    days = np.datetime64("2015-01-01") + np.arange(len(close))
    columns = {"Open": close, "High": close, "Low": close, "Close": close}
    pl.DataFrame({"Date": days, **columns}).write_csv(path)
    instrument = Instrument("file", name)
    stages.bars_from_file(workspace, path, instrument, Options())
    return instrument


def test_a_single_move_that_makes_the_variance_is_named(workspace: stages.Workspace) -> None:
    rng = np.random.default_rng(3)
    close = np.round(100 * np.exp(np.cumsum(0.01 * rng.standard_normal(400))), 2)
    close[200:] = np.round(close[200:] / 4, 2)
    split = stages.fit(workspace, _stored(workspace, "SPLIT", close), DAILY, "geometric_brownian_motion")
    assert any("one move of -7" in note and "(step 200 of 280)" in note for note in split.facts["notes"])
    plain = stages.fit(workspace, STOCK, DAILY, "geometric_brownian_motion")
    assert not any("one move" in note for note in plain.facts["notes"])


def test_too_little_to_fit_says_what_was_held_out(workspace: stages.Workspace) -> None:
    short = _stored(workspace, "SHORT", np.round(100 + np.random.default_rng(3).standard_normal(110), 2))
    with pytest.raises(InputError, match=r"77 steps and 100 are needed.*of 110 steps 77 train.*SYNTH_TRAIN_FRACTION"):
        stages.fit(workspace, short, DAILY, "garch")


def test_a_basket_is_cut_where_all_of_it_is_listed(workspace: stages.Workspace) -> None:
    rng = np.random.default_rng(5)
    old, new = (np.round(100 * np.exp(np.cumsum(0.01 * rng.standard_normal(n))), 2) for n in (1000, 1000))
    _stored(workspace, "OLD", old)
    path = workspace.settings.home / "NEW.csv"
    days = np.datetime64("2015-01-01") + np.arange(750, 1000)
    pl.DataFrame({"Date": days, **dict.fromkeys(("Open", "High", "Low", "Close"), new[750:])}).write_csv(path)
    stages.bars_from_file(workspace, path, Instrument("file", "NEW"), Options())
    made = stages.fit(workspace, Instrument.parse("file.OLD+NEW"), DAILY, "correlated_brownian_motion")
    assert made.facts["train_steps"] == 750 + 175
