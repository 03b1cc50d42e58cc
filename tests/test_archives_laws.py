"""Laws of every row archive: one archive claims a file, batches do not matter, a kept day reads back the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import archives as package
from synth_pipeline import plugins
from synth_pipeline.archives import Form, head_of
from synth_pipeline.archives.generic_csv import GenericCsv
from synth_pipeline.archives.typed import TypedArchive
from synth_pipeline.capture import importing
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.rng import stream
from synth_pipeline.schema import TICK_TABLES
from tests import archive_files, wire
from tests.archive_files import DAY, ROWS, joined, load, sample, tables_of

SAMPLES = pytest.mark.parametrize("name", list(ROWS))
LINES = [name for name in ROWS if not name.startswith("dbn") and name != "lobster"]


def _claims(path: Path) -> list[str]:
    head = head_of(path)
    return [name for name in plugins.names(package) if plugins.load(package, name).matches(path, head)]


@SAMPLES
def test_exactly_one_archive_claims_a_file(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    assert _claims(made.path) == [made.archive]
    archive = load(made.archive)
    assert archive.days(made.path) == [made.day]
    assert archive.venue_of(made.path) == made.venue
    assert made.symbol in archive.symbols(made.path) or made.venue is None


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip", "lobster"),
        ("binance_coinm_btcusd_perp_20240808.gz", "collector"),
        ("binance_spot_btcusdt_20240809.gz", "collector"),
        ("binance_usdm_btcusdt_20240808.gz", "collector"),
        ("binance_usdm_trxusdt_merged_20250414.csv.zst", "merged_csv"),
        ("bitstamp_btcusd_l3_orders_20150501.csv.xz", "bitstamp_orders"),
        ("bitstamp_btcusd_l3_raw_20150501.log.xz", "bitstamp"),
        ("bybit_v5_raw_20260809.jsonl.zst", "cryptofeed"),
        ("es_trades_20130901_0903_a.csv.xz", "generic_csv"),
    ],
)
def test_real_files_are_claimed_by_one(real: Callable[[str], Path], name: str, archive: str) -> None:
    assert _claims(real(name)) == [archive]


@pytest.mark.parametrize(
    "name",
    [
        "binance_usdm_BTCUSDT_1h_to20230630.csv.xz",
        "ftx_btcperp_1m_202201.csv.zst",
        "sp500_daily_1999_2018.csv.gz",
        "stock_data.csv",
        "ETTh1.csv.zst",
        "exchange_rate.txt.gz",
    ],
)
def test_bars_and_other_tables_are_no_ticks(real: Callable[[str], Path], name: str) -> None:
    assert [each for each in _claims(real(name)) if each != "binance_vision"] == []


def test_a_capture_is_claimed_by_the_collector_alone(tmp_path: Path) -> None:
    assert _claims(wire.write_capture(tmp_path / "capture.gz", wire.market(2))) == ["collector"]


@SAMPLES
def test_batches_do_not_matter(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    archive = load(made.archive)
    assert isinstance(archive, TypedArchive)
    head = archive.scan(made.path, made.symbol, made.day)
    expected, gaps, rejected = joined(archive.batches(made.path, made.symbol, made.day, head))
    assert set(expected) <= set(head.tables)
    for chunk_bytes in (1, 90, 333):
        found, found_gaps, found_rejected = joined(
            archive.batches(made.path, made.symbol, made.day, head, chunk_bytes=chunk_bytes)
        )
        assert found.keys() == expected.keys()
        for table, columns in expected.items():
            for column, values in columns.items():
                np.testing.assert_array_equal(found[table][column], values, err_msg=f"{table}.{column}")
        assert (found_gaps, found_rejected) == (gaps, rejected)


@SAMPLES
def test_a_kept_day_reads_back_the_same(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    archive = load(made.archive)
    (tmp_path / "kept").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    kept = archive.keep(made.path, made.symbol, made.day, tmp_path / "kept")
    assert _claims(kept) == [made.archive]
    first = tables_of(archive, made.path, made.symbol, tmp_path / "a", made.day)
    second = tables_of(load(made.archive), kept, made.symbol, tmp_path / "b", made.day)
    for table, columns in first.items():
        for column, values in columns.items():
            np.testing.assert_array_equal(second[table][column], values, err_msg=f"{table}.{column}")
    again = archive.keep(made.path, made.symbol, made.day, tmp_path / "a")
    assert again.read_bytes() == kept.read_bytes()


@SAMPLES
def test_tables_are_the_schemas_sorted_and_positive(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    tables = tables_of(load(made.archive), made.path, made.symbol, tmp_path, made.day)
    assert sum(
        len(columns["recv_ns"]) for table, columns in tables.items() if table in ("trades", "quotes", "book_levels")
    )
    for table, columns in tables.items():
        for column in TICK_TABLES[table].columns:
            assert column.dtype in ("string", "binary") or columns[column.name].dtype == np.dtype(column.dtype)
        if "seq" in columns and len(columns["seq"]):
            keys = np.stack([columns["recv_ns"], columns["seq"]], axis=1)
            assert (keys[1:] >= keys[:-1]).all(axis=1).any() or len(keys) == 1
            assert (np.lexsort((columns["seq"], columns["recv_ns"])) == np.arange(len(keys))).all()
    assert (tables["trades"]["price"] > 0).all()
    assert (tables["trades"]["size"] > 0).all()


@pytest.mark.parametrize("name", LINES)
def test_junk_goes_to_quarantine_and_disturbs_nothing(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    archive = load(made.archive)
    with package.opened(made.path) as file:
        lines = file.read().splitlines(keepends=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    clean = tables_of(archive, made.path, made.symbol, tmp_path / "a", made.day)
    torn = tmp_path / "torn"
    torn.mkdir()
    path = torn / made.path.name.removesuffix(".gz").replace(".zip", ".data")
    path.write_bytes(
        b"".join([*lines[:-1], b"\xff\xfe garbage, of no format\n", *lines[-1:], lines[-1][: len(lines[-1]) // 2]])
    )
    broken = tables_of(archive, path, made.symbol, tmp_path / "b", made.day)
    assert len(broken["quarantine"]["reason"]) >= len(clean["quarantine"]["reason"]) + 2
    for table in ("trades", "quotes", "book_levels"):
        np.testing.assert_array_equal(
            broken[table]["price" if table != "quotes" else "bid_price"],
            clean[table]["price" if table != "quotes" else "bid_price"],
        )


@SAMPLES
def test_another_day_or_symbol_is_not_there(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    archive = load(made.archive)
    with pytest.raises(NoDataError, match="2031-01-01"):
        archive.scan(made.path, made.symbol, DAY.replace(year=2031, day=1))


def test_a_file_without_a_good_row_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2024-01-05.csv"
    rows = [f"{n},NaN,1,1,{archive_files.START_S * 1000},true" for n in range(3)]
    path.write_text("id,price,qty,quote_qty,time,is_buyer_maker\n" + "\n".join(rows) + "\n")
    with pytest.raises(NoDataError, match=r"no good row of BTCUSDT on 2024-01-05 \(3 malformed_number\)"):
        load("binance_vision").scan(path, "BTCUSDT", DAY)


def test_a_form_is_kept_on_top_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("a;b;c\n05:00:00.5;10,5;1\n")
    path.write_text("a;b;c\n2024-01-04 20:00:00.5;10.5;1\n2024-01-04 20:00:01;10.75;2\n")
    archive = GenericCsv(Form({"time": "a", "price": "2", "size": "c"}, "America/Chicago"))
    kept = archive.keep(path, "X", DAY, tmp_path)
    assert _claims(kept) == ["generic_csv"]
    (tmp_path / "a").mkdir()
    trades = tables_of(GenericCsv(), kept, "X", tmp_path / "a")["trades"]
    assert (trades["recv_ns"] - archive_files.START_NS).tolist() == [7_200_500_000_000, 7_201_000_000_000]
    again = GenericCsv().keep(kept, "X", DAY, tmp_path / "a")
    assert again.read_bytes() == kept.read_bytes()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form({"colour": "a"}), "colour is no meaning of a column"),
        (Form({"price": "z"}), "has no column 'z'; it has a, b, c"),
        (Form({"price": "b"}), "say the rest as --columns"),
        (Form({"time": "a", "price": "b", "size": "c"}, "Mars/Olympus"), "time zone 'Mars/Olympus' is not known"),
    ],
)
def test_a_form_that_does_not_fit_is_named(tmp_path: Path, form: Form, message: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("a,b,c\n2024-01-05 20:00:00,10.5,1\n")
    with pytest.raises(InputError, match=message):
        GenericCsv(form).scan(path, "X", DAY)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "lobster"])
def test_damage_is_quarantined_or_an_error_of_one_line(name: str, tmp_path: Path) -> None:
    made = sample(name, tmp_path)
    with package.opened(made.path) as file:
        content = file.read()
    rng = stream(8, "damage", name)
    path, refusals = tmp_path / "damaged", []
    for _ in range(12):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 3).tolist():
            damaged[at : at + int(rng.integers(0, 9))] = rng.bytes(int(rng.integers(0, 6)))
        path.write_bytes(bytes(damaged))
        try:
            archive = importing.archive_of(path)
            assert isinstance(archive, TypedArchive)
            head = archive.scan(path, made.symbol, made.day)
            joined(archive.batches(path, made.symbol, made.day, head))
        except InputError as error:
            refusals.append(str(error))
    assert not [refusal for refusal in refusals if "\n" in refusal]
