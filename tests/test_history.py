"""What generators are fitted on: bars as steps that know weekends, holidays and gaps; baskets; the right refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import generators as package
from synth_pipeline import plugins, stages
from synth_pipeline.bars.calendars import Calendar
from synth_pipeline.bars.files import Options
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, Instrument, parse_day
from synth_pipeline.settings import Settings
from synth_pipeline.stages.history import History, decimal_step, parse_cell

HOUR, DAY = Timeframe.parse("1h"), Timeframe.parse("1d")
GBM = plugins.load(package, "geometric_brownian_motion")


def _workspace(home: Path) -> stages.Workspace:
    return stages.Workspace.of(Settings(home=home, tracking=False))


def _store(workspace: stages.Workspace, name: str, times: list[np.datetime64], closes: list[float]) -> Instrument:
    path = workspace.settings.home / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{time},{close},{close + 0.5},{close - 0.5},{close},10" for time, close in zip(times, closes, strict=True)]
    path.write_text("\n".join(["Date,Open,High,Low,Close,Volume", *rows]) + "\n")
    instrument = Instrument("file", name)
    stages.bars_from_file(workspace, path, instrument, Options())
    return instrument


def _weekdays(first: str, count: int, *without: str) -> list[np.datetime64]:
    days = np.busday_offset(np.datetime64(first), np.arange(count + len(without)), roll="forward")
    return [day for day in days if day not in {np.datetime64(other) for other in without}]


def _prices(count: int, seed: int = 1) -> list[float]:
    steps = np.random.default_rng(seed).integers(-40, 41, count)
    return (np.round(100 + np.cumsum(steps) / 100, 2)).tolist()


def test_weekends_and_holidays_are_no_gaps_of_daily_bars(tmp_path: Path) -> None:
    days = _weekdays("2024-01-01", 200, "2024-02-19", "2024-05-27")
    instrument = _store(_workspace(tmp_path), "STOCK", days, _prices(len(days)))
    series = History.of(_workspace(tmp_path), instrument, DAY).series(GBM)
    assert series.values.shape == (1, len(days), 5)
    assert np.isfinite(series.values).all()
    assert (series.tick_size, series.lot_size) == (0.01, 1.0)


def test_a_bar_that_is_missing_in_open_hours_is_a_gap(tmp_path: Path) -> None:
    hours = np.arange("2024-01-01", "2024-03-01", dtype="M8[h]")
    kept = np.delete(hours, [100, 101, 102])
    instrument = _store(_workspace(tmp_path), "COIN", list(kept.astype("M8[s]")), _prices(len(kept)))
    series = History.of(_workspace(tmp_path), instrument, HOUR).series(GBM)
    missing = np.isnan(series.values[0]).all(axis=1)
    assert series.steps == len(hours)
    assert np.flatnonzero(missing).tolist() == [100, 101, 102]


def test_labels_follow_the_calendar_of_the_market(tmp_path: Path) -> None:
    days = _weekdays("2024-01-01", 150)
    instrument = _store(_workspace(tmp_path), "STOCK", days, _prices(len(days)))
    history = History.of(_workspace(tmp_path), instrument, DAY)
    train = history.series(GBM).slice(0, 100)
    label_of = history.labels(train)
    assert label_of is not None
    closes = label_of(np.arange(50))
    expected = np.array(days[100:150]).astype("M8[D]").astype(np.int64) * NS_PER_DAY + NS_PER_DAY
    np.testing.assert_array_equal(closes, expected)


@pytest.mark.parametrize("timeframe", ["1d", "1w", "1M", "1h", "15m"])
def test_the_calendar_goes_on_where_bars_end(timeframe: str) -> None:
    frame = Timeframe.parse(timeframe)
    first = np.array([0 if timeframe != "1w" else 4 * NS_PER_DAY], dtype=np.int64)
    opens = [first]
    while len(opens) < 60:
        opens.append(frame.after(opens[-1]))
    whole = np.concatenate(opens)
    calendar = Calendar.learn(whole[:40], frame)
    np.testing.assert_array_equal(calendar.following(int(whole[39]), np.arange(20)), whole[40:])


def test_a_basket_has_a_step_wherever_a_member_has_a_bar(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    days = _weekdays("2024-01-01", 120)
    _store(workspace, "LONG", days, _prices(120))
    _store(workspace, "LATE", days[30:], _prices(90, seed=2))
    history = History.of(workspace, Instrument.parse("file.LONG+LATE"), DAY)
    assert set(history.inputs) == {"bars/file/LONG/1d", "bars/file/LATE/1d"}
    series = history._known.read(("close",))
    assert series.names == ("LONG:close", "LATE:close")
    assert np.isnan(series.column("LATE:close")[0, :30]).all()
    assert np.isfinite(series.column("LATE:close")[0, 30:]).all()
    with pytest.raises(InputError, match="not on the basket"):
        history.series(GBM)


def test_a_coin_beside_a_stock_goes_from_friday_to_monday(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    every = list(np.arange("2024-01-01", "2024-07-01", dtype="M8[D]"))
    days = [day for day in every if np.is_busday(day)]
    coin = _prices(len(every))
    _store(workspace, "COIN", every, coin)
    _store(workspace, "STOCK", days, _prices(len(days), seed=2))
    history = History.of(workspace, Instrument.parse("file.COIN+STOCK"), DAY)
    series = history._known.read(("close",))
    assert series.steps == len(days)
    assert np.isfinite(series.values).all()
    np.testing.assert_array_equal(series.column("COIN:close")[0], np.array(coin)[np.is_busday(every)])
    label_of = history.labels(series)
    assert label_of is not None
    assert np.is_busday(((label_of(np.arange(10)) - NS_PER_DAY) // NS_PER_DAY).astype("M8[D]")).all()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    with pytest.raises(NoDataError, match=r"no bars of file\.NONE/1d"):
        History.of(workspace, Instrument.parse("file.NONE"), DAY)
    with pytest.raises(NoDataError, match=r"no features of file\.NONE/2024-01-01"):
        History.of(workspace, Instrument.parse("file.NONE"), parse_day("2024-01-01"))


def test_a_cell_is_a_day_or_a_timeframe() -> None:
    assert parse_cell("2024-01-31") == parse_day("2024-01-31")
    assert parse_cell("60m") == HOUR
    for text in ("1x", "2024-13-01", "", "day"):
        with pytest.raises(InputError):
            parse_cell(text)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([1.0, 25.0], 1.0),
        ([0.1, 0.3, 1234.7], 0.1),
        ([60123.45, 0.01], 0.01),
        ([1 / 3], 0.0),
        ([np.nan, 2.5], 0.1),
        ([1.2345e-6, 1.2e-6], 1e-10),
        ([123456789.123456, 1.0], 1e-6),
        ([1234567.123456789, 1.0], 0.0),
    ],
)
def test_the_price_grid_is_read_off_the_prices(values: list[float], step: float) -> None:
    assert decimal_step(np.array(values)) == step
