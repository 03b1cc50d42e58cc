"""Any two files, frames or arrays of any tool as a report: what is told apart, what is refused, and in which words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

from synth_pipeline import stages
from synth_pipeline.cli import app
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.reports import Reading, Report, evaluate
from synth_pipeline.reports.tables import aligned, series_of
from synth_pipeline.rng import stream
from synth_pipeline.series import Series

DAYS = pl.date_range(pl.date(2015, 1, 1), pl.date(2018, 12, 31), eager=True)[:900]
RETURNS = ["marginal", "temporal", "copying"]


def walk(name: str, paths: int = 1, steps: int = 900, size: float = 0.01) -> np.ndarray:
    moves = size * stream(5, "walk", name).standard_t(5, (paths, steps))
    return np.round(100 * np.exp(np.cumsum(moves, axis=1)), 2)


def bars(price: np.ndarray) -> pl.DataFrame:
    wide = np.round(price * 0.01, 2)
    columns = {"Date": DAYS[: price.size], "Open": price, "High": price + wide, "Low": price - wide, "Close": price}
    return pl.DataFrame({**columns, "Adj Close": price * 0.9, "Volume": np.arange(1.0, price.size + 1.0) % 97})


def long_form(prices: np.ndarray, key: str = "sample", price: str = "price") -> pl.DataFrame:
    paths, steps = prices.shape
    index = {key: np.repeat(np.arange(paths), steps), "step": np.tile(np.arange(steps), paths)}
    return pl.DataFrame({**index, price: prices.ravel()})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    bars(walk("real")[0]).write_csv(tmp_path / "real.csv")
    long_form(walk("made", 4, 300)).write_parquet(tmp_path / "made.parquet")
    return tmp_path


def test_frames_columns_and_arrays_of_the_same_prices_are_the_same_series() -> None:
    price = walk("same", 1, 200)
    frame = pl.DataFrame({"close": price[0]})
    for data in (frame, frame.lazy(), frame["close"], frame.to_pandas(), frame.to_pandas()["close"], price, price[0]):
        made = series_of(data, "it")
        assert made.names == ("close",)
        assert np.array_equal(made.values[:, :, 0], price)
    indexed = pd.Series(price[0], index=pd.date_range("2020-01-01", periods=200, freq="h"), name="last")
    hourly = series_of(indexed, "it")
    assert hourly.step_ns == 3_600 * 10**9
    assert np.array_equal(hourly.values[0, :, 0], price[0])


def test_paths_lie_below_each_other_and_shorter_ones_end_with_gaps() -> None:
    prices = walk("long", 3, 60)
    made = series_of(long_form(prices)[:-10], "it")
    assert made.names == ("close",)
    assert made.values.shape == (3, 60, 1)
    assert np.array_equal(made.values[:2, :, 0], prices[:2])
    assert np.isnan(made.values[2, 50:, 0]).all()
    named = series_of(long_form(prices, key="world"), "it", Reading(path="world"))
    assert np.array_equal(named.values[:, :, 0], prices)


def test_rows_are_put_in_the_order_of_their_times() -> None:
    table = bars(walk("order")[0])
    assert np.array_equal(series_of(table.reverse(), "it").values, series_of(table, "it").values)


def test_bars_keep_their_columns_and_an_adjusted_price_leaves_them_out() -> None:
    table = bars(walk("bars")[0])
    assert series_of(table, "it").names == ("close", "open", "high", "low", "volume")
    adjusted = series_of(table, "it", Reading(price="Adj Close"))
    assert adjusted.names == ("close", "volume")
    assert np.array_equal(adjusted.values[0, :, 0], table["Adj Close"].to_numpy())


def test_what_is_compared_has_the_same_columns_and_steps() -> None:
    real = series_of(bars(walk("a")[0]), "real")
    made = series_of(pl.DataFrame({"volume": np.ones(50), "mid": walk("b", 1, 50)[0]}), "made")
    both = aligned({"real": real, "made": made})
    assert both["real"].names == both["made"].names == ("close", "volume")
    assert both["made"].step_ns == real.step_ns
    other = pd.Series(walk("c", 1, 50)[0], index=pd.date_range("2020-01-01", periods=50, freq="h"))
    with pytest.raises(InputError, match="steps of 86400 s and made of 3600 s"):
        aligned({"real": real, "made": series_of(other, "made")})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), "name it with --price"),
        (pl.DataFrame({"close": np.linspace(-1, 1, 50)}), "holds no prices"),
        (pl.DataFrame({"close": []}), "no rows"),
        (pl.DataFrame({"symbol": ["A", "B"], "close": [1.0, 2.0]}), "--path symbol"),
        (pl.DataFrame({"close": ["1.5"] * 30 + ["oops"]}), "row 31 of it has 'oops'"),
        (pl.DataFrame({"date": ["2020-01-01", "2020-01-01"], "close": [1.0, 2.0]}), "two rows of 2020-01-01"),
        (np.ones((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\)"),
        (object(), "give a Series, a frame or an array"),
    ],
)
def test_what_only_a_person_can_decide_is_refused_in_one_line(data: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as found:
        series_of(data, "it")
    assert "\n" not in str(found.value)


def test_the_call_takes_frames_and_returns_what_can_be_kept_and_drawn(tmp_path: Path) -> None:
    report = evaluate(walk("real")[0], long_form(walk("made", 4, 300)).to_pandas(), families=RETURNS)
    assert report.score == report.evaluation.fidelity
    assert {"name", "verdict", "value", "fresh", "copy"} <= set(report.table()[0])
    assert pl.DataFrame(report.table(), infer_schema_length=None).height == len(report.evaluation.results)
    assert report.figure("losses").layout.xaxis.type == "log"
    with pytest.raises(InputError, match="losses"):
        report.figure("nothing")
    again = Report.load(report.save(tmp_path / "record.json"))
    assert again == report
    assert evaluate(walk("real")[0], walk("made", 4, 300), families=RETURNS) == report


def test_arrays_of_few_decimals_have_a_grid_so_that_equal_moves_are_no_copies() -> None:
    coarse = np.round(walk("coarse", 1, 3000, size=1e-4), 2)
    report = evaluate(coarse, np.round(walk("other", 3, 600, size=1e-4), 2), families=["copying"])
    assert report.evaluation.sizes.tick_size == 0.01
    assert report.evaluation.grade != "withheld"


def test_series_of_features_are_taken_as_they_are() -> None:
    values = np.stack([walk("real", 1, 900), walk("volume", 1, 900)], axis=2)
    real = Series(values, ("close", "volume"), 10**9, np.zeros(1, dtype=np.int64), 0.01)
    report = evaluate(real, np.stack([walk("made", 4, 300), walk("more", 4, 300)], axis=2), families=RETURNS)
    assert report.evaluation.sizes.tick_size == 0.01
    assert report.evaluation.exhibits is not None
    assert report.evaluation.exhibits.correlations is not None
    assert report.evaluation.exhibits.correlations.names == ["close", "volume"]


# --- files


def test_files_become_a_page_a_record_and_the_same_page_again(files: Path) -> None:
    page, again = files / "out" / "page.html", files / "again.html"
    given = ["evaluate", str(files / "real.csv"), str(files / "made.parquet"), "--families", ",".join(RETURNS)]
    done = CliRunner().invoke(app, [*given, "--to", str(page)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "made.parquet: grade" in done.stdout
    assert "copy" in done.stdout
    record = Report.load(page.with_suffix(".json")).evaluation
    assert record.sizes.synthetic_paths == 4
    assert record.sizes.tick_size == 0.01
    assert record.sizes.holdout == "the last 30% of the real data"
    assert page.with_suffix(".json").name not in record.provenance["command"]
    told = CliRunner().invoke(app, ["evaluate", "--render", str(page.with_suffix(".json")), "--to", str(again)])
    assert told.exit_code == 0
    assert again.read_bytes() == page.read_bytes()


def test_two_files_stand_beside_each_other_and_json_holds_both_records(files: Path) -> None:
    with gzip.open(files / "other.csv.gz", "wt") as file:
        file.write(long_form(walk("other", 3, 300, size=0.03), price="Close").write_csv(separator=";"))
    given = ["evaluate", str(files / "real.csv"), str(files / "made.parquet"), "--against", str(files / "other.csv.gz")]
    done = CliRunner().invoke(app, [*given, "--families", "marginal", "--json", "--to", str(files / "two.html")])
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)
    assert list(records) == ["made.parquet", "other.csv.gz"]
    assert records["made.parquet"]["fidelity"] > records["other.csv.gz"]["fidelity"]
    assert "<h1>made.parquet beside other.csv.gz</h1>" in (files / "two.html").read_text(encoding="utf-8")
    assert len(Report.load(files / "two.2.json").evaluation.results) > 10


def test_held_out_files_and_datasets_are_taken(files: Path) -> None:
    bars(walk("later")[0]).write_csv(files / "later.csv")
    asked = stages.Files(files / "real.csv", files / "made.parquet", files / "later.csv", tick_size=0.0)
    (report,) = stages.evaluate_files(asked, families=["marginal"]).values()
    assert report.evaluation.sizes.holdout == "given"
    assert report.evaluation.sizes.tick_size == 0.0
    assert "--holdout" in report.evaluation.provenance["command"]
    assert any(name.startswith("held_out later.csv") for name in report.evaluation.provenance)


def test_decimals_of_a_computation_are_no_grid(files: Path) -> None:
    bars(walk("real")[0] * 1.0000001234567).write_csv(files / "real.csv")
    (report,) = stages.evaluate_files(
        stages.Files(files / "real.csv", files / "made.parquet"), families=["marginal"]
    ).values()
    assert report.evaluation.sizes.tick_size == 0.0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"close\n", "no rows"),
        (b"\x00\x01\x02", "neither a CSV nor a Parquet"),
        (b"PAR1nonsense", "damaged Parquet"),
    ],
)
def test_files_that_are_no_table_are_refused_in_one_line(files: Path, content: bytes, says: str) -> None:
    (files / "bad").write_bytes(content)
    with pytest.raises(InputError, match=says) as found:
        stages.evaluate_files(stages.Files(files / "real.csv", files / "bad"))
    assert "\n" not in str(found.value)


def test_what_is_asked_wrongly_is_answered_with_the_remedy(files: Path) -> None:
    real, made = files / "real.csv", files / "made.parquet"
    with pytest.raises(NoDataError, match="no file"):
        stages.evaluate_files(stages.Files(real, files / "nowhere.csv"))
    with pytest.raises(InputError, match=r"'x' for --price: they have Date, Open"):
        stages.evaluate_files(stages.Files(real, made, price="x"))
    for words, says in (
        (["evaluate", str(real)], "not 1 arguments"),
        (["evaluate", "--render", "a.json"], "--to PAGE.html"),
        (["evaluate", "a.B", "1d", "c", "--price", "x"], "--price is of files"),
    ):
        with pytest.raises(InputError, match=says):
            CliRunner().invoke(app, words, catch_exceptions=False)
