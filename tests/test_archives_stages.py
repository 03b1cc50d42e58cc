"""Tables through the verbs: which instrument they are of, what is stored of each day, and a rebuild without words."""

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from synth_pipeline import stages
from synth_pipeline.archives import Form
from synth_pipeline.capture import importing
from synth_pipeline.cli import app
from synth_pipeline.errors import InputError, NoDataError, UnknownNameError
from synth_pipeline.schema import Instrument
from synth_pipeline.stages import Workspace
from tests import archive_files, wire
from tests.archive_files import DAY, START_S, sample

CHICAGO = Form(timezone="America/Chicago")
ES = Instrument("cme", "ES")


def test_tables_say_their_instrument_or_take_any_name(tmp_path: Path) -> None:
    assert str(stages.identify([sample("vision trades", tmp_path).path], None, None)) == "binance_usdm.BTCUSDT"
    assert str(stages.identify([sample("tardis quotes", tmp_path).path], "tardis", None)) == "deribit.BTC-PERPETUAL"
    assert str(stages.identify([sample("dbn mbo", tmp_path).path], None, "esh4")) == "glbx_mdp3.ESH4"
    es = sample("es trades", tmp_path).path
    assert stages.identify([es], "cme", "es") == ES
    with pytest.raises(InputError, match=r"does not say which venue .* or a name of your own"):
        stages.identify([es], None, "ES")
    with pytest.raises(InputError, match="no named symbol: pass the one you mean with --symbol"):
        stages.identify([es], "cme", None)
    with pytest.raises(InputError, match="is not of the form"):
        stages.identify([es], "C M E", "ES")
    with pytest.raises(InputError, match="of venue 'deribit', not 'cme': check --venue"):
        stages.identify([sample("tardis quotes", tmp_path).path], "cme", None)
    capture = wire.write_capture(tmp_path / "capture", wire.market(2))
    with pytest.raises(UnknownNameError, match="unknown venue 'cme'"):
        stages.identify([capture], "cme", None)


def _two_days(folder: Path) -> Path:
    path = folder / "ES 2024.csv"
    rows = [
        f"2024-01-{4 + n // 5:02} {18 - 13 * (n // 5)}:0{n % 5}:00.500,{4700 + n / 4:.2f},{n + 1}" for n in range(10)
    ]
    path.write_text("DateTime,Price,Volume\n" + "\n".join(row.replace(" 5:", " 05:") for row in rows) + "\nnonsense\n")
    return path


def test_each_day_keeps_its_own_lines_and_needs_no_words_again(workspace: Workspace, tmp_path: Path) -> None:
    path = _two_days(tmp_path)
    assert stages.identify([path], "cme", "ES", CHICAGO) == ES
    days = importing.days_of([path], CHICAGO)
    assert days == [DAY]
    made = stages.record(workspace, ES, DAY, [path], form=CHICAGO)
    assert stages.record(workspace, ES, DAY, [path], form=CHICAGO).skipped
    ticks = stages.ingest(workspace, ES, DAY)
    assert ticks.facts["rows"]["trades"] == 10
    assert ticks.facts["quarantined"] == {"wrong_columns": 1}
    utc = [stages.record(workspace, ES, day, [path]) for day in importing.days_of([path])]
    assert [stages.ingest(workspace, ES, day).facts["rows"]["trades"] for day in importing.days_of([path])] == [5, 5]
    stored = [
        manifest.file(workspace.folder("raw", ES, day), "archive").read_bytes()
        for manifest, day in zip(utc, importing.days_of([path]), strict=True)
    ]
    assert [content.count(b"\n") for content in stored] == [6, 7]
    assert made.config == {"columns": {}, "timezone": "America/Chicago"}
    assert made.digest != utc[1].digest


def test_a_book_and_its_trades_are_recorded_together(workspace: Workspace, tmp_path: Path) -> None:
    sources = [archive_files.tardis_trades(tmp_path), archive_files.tardis_book(tmp_path)]
    instrument = stages.identify(sources, None, "BTCUSDT")
    made = stages.record(workspace, instrument, DAY, sources)
    assert sorted(made.outputs) == ["archive", "archive_2"]
    rows = stages.ingest(workspace, instrument, DAY).facts["rows"]
    assert (rows["trades"], rows["book_levels"]) == (3, 9)
    with pytest.raises(NoDataError, match="holds BTC-PERPETUAL, not BTCUSDT"):
        stages.record(workspace, instrument, DAY, [archive_files.tardis_quotes(tmp_path)])
    with pytest.raises(InputError, match="are tables and recordings"):
        stages.record(workspace, instrument, DAY, [*sources, wire.write_capture(tmp_path / "c", wire.market(2))])


def test_inverse_contracts_keep_their_kind(workspace: Workspace, tmp_path: Path) -> None:
    path = archive_files.vision_agg_trades(tmp_path)
    instrument = stages.identify([path], None, None)
    assert str(instrument) == "binance_coinm.BTCUSD_PERP"
    stages.record(workspace, instrument, DAY, [path])
    from synth_pipeline.ticks import parquet

    ticks = stages.ingest(workspace, instrument, DAY)
    assert parquet.read_scale(ticks.file(workspace.folder("ticks", instrument, DAY), "trades")).inverse


@pytest.mark.parametrize("name", list(archive_files.ROWS))
def test_every_format_reaches_the_tick_store(name: str, workspace: Workspace, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    instrument = stages.identify([made.path], made.venue or "somewhere", made.symbol)
    raw = stages.record(workspace, instrument, made.day, [made.path])
    ticks = stages.ingest(workspace, instrument, made.day)
    assert sum(ticks.facts["rows"][table] for table in ("trades", "quotes", "book_levels")) > 0
    assert ticks.inputs == {raw.ref: raw.digest}
    assert stages.ingest(workspace, instrument, made.day).skipped


def test_the_command_line_takes_columns_and_a_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    path = tmp_path / "odd.csv"
    path.write_text(f"a,b,c\n{START_S}.5,10,2\n{START_S + 1},11,2\n")
    words = ["record", str(path), "--venue", "own", "--symbol", "X", "--json"]
    runner = CliRunner()
    refused = runner.invoke(app, words)
    assert isinstance(refused.exception, InputError)
    assert "--columns" in str(refused.exception)
    taken = runner.invoke(app, [*words, "--columns", "time=a,price=b,size=c"])
    assert taken.exit_code == 0, taken.exception
    assert '"ref": "raw/own/X/2024-01-05"' in taken.stdout
    wrong = runner.invoke(app, [*words, "--columns", "time"])
    assert "is not of the form meaning=column" in str(wrong.exception)
    assert runner.invoke(app, ["ingest", "own.X", "2024-01-05", "--json"]).exit_code == 0


def test_days_of_a_file_are_utc_days_of_its_zone(tmp_path: Path) -> None:
    assert importing.days_of([_two_days(tmp_path)]) == [date(2024, 1, 4), DAY]
