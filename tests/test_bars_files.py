"""Bar files of every shape: what is understood, what is refused and with which remedy, what goes to quarantine."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import archives
from synth_pipeline.bars import dates
from synth_pipeline.bars.checks import Bars
from synth_pipeline.bars.files import Options, read
from synth_pipeline.bars.timeframe import Timeframe, infer
from synth_pipeline.bars.values import decimal_mark, numbers
from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND

START = datetime(2024, 1, 1, tzinfo=UTC)
START_NS = int(START.timestamp()) * NS_PER_SECOND
HOUR_NS = 3600 * NS_PER_SECOND
PRICES = [(100.0 + k, 103.5 + k, 99.25 + k, 101.0 + k, 10.0 * k) for k in range(40)]


def _bars(text: str | bytes, **options: object) -> Bars:
    data = text if isinstance(text, bytes) else text.encode()
    return read(data, "file.csv", Options(**options))[0]  # type: ignore[arg-type]


def _table(
    stamp: Callable[[datetime], str], *, head: str = "time,open,high,low,close,volume", step_hours: int = 1
) -> str:
    rows = [
        f"{stamp(START + timedelta(hours=step_hours * k))},{','.join(map(str, row))}" for k, row in enumerate(PRICES)
    ]
    return "\n".join([head, *rows] if head else rows) + "\n"


def _assert_whole(bars: Bars, *, step_ns: int = HOUR_NS, volume: bool = True) -> None:
    assert bars.columns["open_ns"].tolist() == [START_NS + k * step_ns for k in range(40)]
    assert (bars.columns["close_ns"] - bars.columns["open_ns"] == step_ns).all()
    for at, name in enumerate(("open", "high", "low", "close")):
        assert bars.columns[name].tolist() == [row[at] for row in PRICES]
    assert (
        bars.columns["volume"].tolist() == [row[4] for row in PRICES]
        if volume
        else np.isnan(bars.columns["volume"]).all()
    )
    assert not bars.bad
    assert not bars.gaps
    assert not bars.columns["flags"].any()


STAMPS = {
    "s": lambda at: str(int(at.timestamp())),
    "ms": lambda at: str(int(at.timestamp()) * 10**3),
    "us": lambda at: str(int(at.timestamp()) * 10**6),
    "ns": lambda at: str(int(at.timestamp()) * 10**9),
    "float s": lambda at: f"{int(at.timestamp())}.0",
    "iso": lambda at: at.isoformat(),
    "iso z": lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "iso offset": lambda at: (at + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M:%S+0200"),
    "naive": lambda at: at.strftime("%Y-%m-%d %H:%M:%S"),
    "fraction": lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f"),
    "dots": lambda at: at.strftime("%Y.%m.%d %H:%M"),
    "compact": lambda at: at.strftime("%Y%m%d %H%M%S"),
    "compact tight": lambda at: at.strftime("%Y%m%d%H%M%S"),
    "named": lambda at: at.strftime("%d-%b-%Y %H:%M:%S"),
    "am pm": lambda at: at.strftime("%Y-%m-%d %I-%p"),
}


@pytest.mark.parametrize("form", STAMPS)
def test_times_are_read_however_they_are_written(form: str) -> None:
    _assert_whole(_bars(_table(STAMPS[form])))


@pytest.mark.parametrize(("form", "day_first"), [("%d/%m/%Y", True), ("%m/%d/%Y", False), ("%d.%m.%y", True)])
def test_the_order_of_day_and_month_is_read_from_all_rows(form: str, day_first: bool) -> None:
    table = _table(lambda at: at.strftime(form), step_hours=24)
    _assert_whole(_bars(table), step_ns=NS_PER_DAY)
    _assert_whole(_bars(table, day_first=day_first), step_ns=NS_PER_DAY)


def test_dates_without_leading_zeros() -> None:
    _assert_whole(_bars(_table(lambda at: f"{at.month}/{at.day}/{at.year}", step_hours=24)), step_ns=NS_PER_DAY)


def test_dates_that_may_be_either_are_refused_with_the_option() -> None:
    table = "Date,Open,High,Low,Close\n" + "".join(f"1/{day}/1999,2,3,1,2\n" for day in (4, 5, 6, 7))
    with pytest.raises(InputError, match=r"1/4/1999 may be day-first or month-first.*--dates"):
        _bars(table)
    assert _bars(table, day_first=False).columns["open_ns"][0] == dates.parse(pl.Series(["1999-01-04"]))[0]
    assert _bars(table, day_first=True).timeframe == Timeframe(1, "M")


def test_dates_that_contradict_each_other_are_refused() -> None:
    rows = "".join(f"{date},2,3,1,2\n" for date in ("13/1/2024", "1/14/2024", "15/1/2024", "1/16/2024"))
    with pytest.raises(InputError, match="the file mixes them"):
        _bars("Date,Open,High,Low,Close\n" + rows)


@pytest.mark.parametrize(
    "head",
    [
        "Date,Open,High,Low,Close,Volume",
        "TIMESTAMP,OPEN,HIGH,LOW,CLOSE,VOL",
        "open_time,o,h,l,c,v",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        "Gmt time,Open,High,Low,Close,Volume_(BTC)",
        "datetime,1. open,2. high,3. low,4. close,5. volume",
        '"Date","Open","High","Low","Close/Last","Vol."',
        ",open,high,low,close,volume",
        "time,BTCUSD open,BTCUSD high,BTCUSD low,BTCUSD close,Volume BTC",
        "# time,open,high,low,close,volume",
    ],
)
def test_columns_are_known_by_many_names(head: str) -> None:
    _assert_whole(_bars(_table(STAMPS["naive"], head=head)))


def test_no_header_and_other_delimiters() -> None:
    plain = _table(STAMPS["naive"], head="")
    _assert_whole(_bars(plain))
    for delimiter in (";", "\t", "|"):
        _assert_whole(_bars(plain.replace(",", delimiter)))
    _assert_whole(_bars(_table(STAMPS["ms"], head="").replace(",", "  ")))
    _assert_whole(_bars(plain.replace("\n", "\r\n")))
    _assert_whole(_bars(b"\xef\xbb\xbf" + plain.encode()))
    _assert_whole(_bars(plain.encode("utf-16")))


def test_any_order_of_columns_comments_and_a_preamble() -> None:
    rows = [
        f"{row[3]},{row[4]},{START + timedelta(hours=k)},{row[0]},{row[2]},{row[1]}" for k, row in enumerate(PRICES)
    ]
    text = "https://example.org/data\n# a comment\nclose,volume,date,open,low,high\n" + "\n".join(
        [*rows[:3], "# more", *rows[3:]]
    )
    _assert_whole(_bars(text + "\n\n"))


def test_date_and_time_in_two_columns() -> None:
    for form in ("%Y.%m.%d\t%H:%M:%S", "%Y%m%d\t%H%M%S", "%Y-%m-%d\t%-H:%M"):
        head = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>"
        table = _table(lambda at, form=form: at.strftime(form), head="").replace(",", "\t")  # type: ignore[misc]
        _assert_whole(_bars(f"{head}\n{table}"))


def test_kline_dumps_without_header_have_twelve_columns() -> None:
    rows = []
    for k, (o, h, low, c, v) in enumerate(PRICES):
        ms = (START_NS + k * HOUR_NS) // 10**6
        rows.append(f"{ms},{o},{h},{low},{c},{v},{ms + 3_599_999},{v * 100},{k},1,2,0")
    bars = _bars("\n".join(rows))
    _assert_whole(bars)
    assert bars.columns["turnover"].tolist() == [row[4] * 100 for row in PRICES]
    assert bars.columns["trade_count"].tolist() == list(range(40))
    moved = "\n".join(
        f"{int(row.partition(',')[0]) * (1000 if k > 20 else 1)},{row.partition(',')[2]}" for k, row in enumerate(rows)
    )
    _assert_whole(_bars(moved))


def test_size_and_value_are_told_apart() -> None:
    head = "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount"
    rows = []
    for k, row in enumerate(PRICES):
        at = START + timedelta(hours=k)
        rows.append(
            f"{int(at.timestamp())}000,{at:%Y-%m-%d %H:%M:%S},BTC/USDT,{','.join(map(str, row))},{row[4] * 7},{k}"
        )
    bars, decided = read("\n".join(["https://example.org", head, *rows[::-1]]).encode(), "f.csv", Options())
    _assert_whole(bars)
    assert bars.unordered == 39
    assert bars.columns["turnover"].tolist() == [row[4] * 7 for row in PRICES]
    assert bars.columns["trade_count"].tolist() == list(range(40))
    assert decided["columns"]["time"] == "unix"
    assert "symbol" in decided["ignored_columns"]


def test_a_missing_volume_is_unknown_and_not_zero() -> None:
    text = "\n".join(line.rpartition(",")[0] for line in _table(STAMPS["iso"]).splitlines())
    _assert_whole(_bars(text), volume=False)


def test_several_symbols_need_a_choice() -> None:
    lines = _table(STAMPS["naive"], head="").splitlines()
    both = [f"{line},{name}" for line in lines for name in ("AAPL", "MSFT")]
    text = "\n".join(["date,open,high,low,close,volume,Name", *both])
    with pytest.raises(InputError, match="holds bars of AAPL, MSFT: pass the one you mean with --symbol"):
        _bars(text)
    _assert_whole(_bars(text, symbol="MSFT"))


def test_thousands_separators_currency_signs_and_suffixes() -> None:
    head = '"Date","Price","Open","High","Low","Vol.","Change %"'
    rows = [
        f'"{START + timedelta(days=k):%b %d, %Y}","1,{c:.1f}","$1,{o}","1,{h}","1,{low}","{v / 1000}K","-1.2%"'
        for k, (o, h, low, c, v) in enumerate(PRICES)
    ]
    bars = _bars("\n".join([head, *rows]))
    assert bars.columns["open_ns"].tolist() == [START_NS + k * NS_PER_DAY for k in range(40)]
    assert bars.columns["close"].tolist() == [1000 + row[3] for row in PRICES]
    np.testing.assert_allclose(bars.columns["volume"], [row[4] for row in PRICES], rtol=1e-15)


def test_decimal_commas() -> None:
    rows = [
        f"{START + timedelta(days=k):%d.%m.%Y};"
        + ";".join(f"1.{cell:.2f}".replace(".", "!", 1).replace(".", ",").replace("!", ".") for cell in row[:4])
        for k, row in enumerate(PRICES)
    ]
    bars = _bars("\n".join(["Datum Date;Open;High;Low;Close".replace("Datum ", ""), *rows]))
    assert bars.columns["close"].tolist() == [1000 + row[3] for row in PRICES]


def test_a_number_that_may_be_either_is_refused_with_the_option() -> None:
    text = "date;open;high;low;close\n" + "".join(f"2024-01-{day:02d};1,250;1,300;1,200;1,275\n" for day in range(1, 9))
    with pytest.raises(InputError, match="may be a thousand or a fraction: pass --decimal point"):
        _bars(text)
    assert _bars(text, decimal=",").columns["open"][0] == 1.25
    assert _bars(text, decimal=".").columns["open"][0] == 1250


def test_stamps_at_the_close_are_moved_to_the_open_when_told() -> None:
    shifted = _table(lambda at: STAMPS["naive"](at + timedelta(hours=1)))
    _assert_whole(_bars(shifted, closing=True))
    head = "close_time,open,high,low,close,volume"
    _assert_whole(_bars(_table(lambda at: str(int(at.timestamp() * 1000) + 3_599_999), head=head)))


def test_bad_rows_go_to_quarantine_with_their_reason() -> None:
    lines = _table(STAMPS["naive"]).splitlines()
    stamp = [line.partition(",")[0] for line in lines]
    lines[3] = f"{stamp[3]},100,101,102,103,1"  # the low is above the open
    lines[5] = f"{stamp[5]},100,101,,100,1"
    lines[7] = f"{stamp[7]},100,NaN,99,100,1"
    lines[9] = f"{stamp[9]},100,abc,99,100,1"
    lines[11] = f"{stamp[11]},0,101,0,100,1"
    lines[13] = f"{stamp[13]},100,101,99,100,-5"
    lines[15] = "yesterday,100,101,99,100,1"
    lines[17] = f"{stamp[17]},100,101"
    lines[19] = lines[18]
    lines[20] = f"{stamp[18]},100,1e9,99,100,1"
    bars = _bars("\n".join(lines))
    assert bars.reasons() == {
        "bad_fields": 1,
        "bad_time": 1,
        "conflict": 1,
        "duplicate": 1,
        "missing_value": 2,
        "negative_volume": 1,
        "not_a_number": 1,
        "not_positive": 1,
        "ohlc_order": 1,
    }
    assert {bad.seq for bad in bars.bad} == {4, 6, 8, 10, 12, 14, 16, 18, 20, 21}
    assert next(bad for bad in bars.bad if bad.reason == "bad_time").payload == lines[15].encode()
    assert len(bars) == 30
    assert sum(gap.missing for gap in bars.gaps) == 10


def test_a_bar_across_its_neighbours_is_set_aside() -> None:
    lines = _table(STAMPS["naive"]).splitlines()
    lines.insert(6, "2024-01-01 04:30:00,100,101,99,100,1")
    bars = _bars("\n".join(lines))
    assert bars.reasons() == {"overlap": 1}
    assert len(bars) == 40


def test_missing_bars_are_listed_and_closed_hours_are_not() -> None:
    days = [START + timedelta(days=k) for k in range(70)]
    holiday = datetime(2024, 2, 14, tzinfo=UTC)
    rows = [f"{day:%Y-%m-%d},2,3,1,2,5" for day in days if day.weekday() < 5 and day != holiday]
    bars = _bars("\n".join(["date,open,high,low,close,volume", *rows]))
    assert [(gap.start_ns, gap.missing) for gap in bars.gaps] == [(int(holiday.timestamp()) * NS_PER_SECOND, 1)]
    assert int((bars.columns["flags"] > 0).sum()) == 1


def test_sessions_by_local_time_have_no_gaps_when_the_clocks_change() -> None:
    days = [datetime(2024, 1, 1) + timedelta(days=k) for k in range(366)]
    rows = [f"{day:%Y-%m-%d},2,3,1,2,5" for day in days if day.weekday() < 5]
    bars = _bars("\n".join(["date,open,high,low,close,volume", *rows]), timezone="America/New_York")
    assert not bars.gaps
    assert not bars.bad
    assert str(bars.timeframe) == "1d"


def test_a_file_without_times_needs_a_timeframe_and_a_start() -> None:
    text = "Open,High,Low,Close,Adj_Close,Volume\n" + "".join(
        f"{o},{h},{low},{c},{c},{v}\n" for o, h, low, c, v in PRICES
    )
    with pytest.raises(InputError, match=r"no column of times: pass --timeframe and --start"):
        _bars(text)
    bars, decided = read(text.encode(), "f.csv", Options(timeframe=Timeframe.parse("1h"), start_ns=START_NS))
    _assert_whole(bars)
    assert decided["time"] == "index"
    assert decided["ignored_columns"] == ["Adj_Close"]


def test_what_is_no_table_of_bars_is_refused_with_its_columns() -> None:
    with pytest.raises(
        InputError, match="no column for open among date, a, b, c, d: name it with --columns open=COLUMN"
    ):
        _bars("date,a,b,c,d\n2024-01-01,1,2,3,4\n2024-01-02,1,2,3,4\n")
    with pytest.raises(InputError, match="is no table"):
        _bars("hello world\nthis is a text\n")
    with pytest.raises(NoDataError, match="no rows"):
        _bars("\n\n")
    with pytest.raises(InputError, match=r"rows are no bars \(ohlc_order"):
        _bars("\n".join(f"2024-01-{day:02d},5,1,9,4,7" for day in range(1, 20)))


def test_columns_can_be_named_by_hand() -> None:
    text = _table(STAMPS["naive"], head="a,b,c,d,e,f")
    roles = {"time": "a", "open": "b", "high": "3", "low": "4", "close": "e", "volume": "f"}
    _assert_whole(_bars(text, columns=roles))
    with pytest.raises(InputError, match=r"--columns open=z: file.csv has the columns a, b, c"):
        _bars(text, columns={"open": "z"})


@pytest.mark.parametrize("kind", ["datetime", "naive", "epoch", "text", "decimal", "integer"])
def test_parquet_of_any_column_types(kind: str) -> None:
    times = pl.Series([START + timedelta(hours=k) for k in range(40)])
    stamps = {
        "datetime": times,
        "naive": times.dt.replace_time_zone(None),
        "epoch": times.dt.epoch("ms"),
        "text": times.dt.strftime("%Y-%m-%d %H:%M:%S"),
    }
    frame = pl.DataFrame({"Date": stamps.get(kind, times)}).with_columns(
        **{
            name: pl.Series([row[at] for row in PRICES])
            for at, name in enumerate(("Open", "High", "Low", "Close", "Volume"))
        }
    )
    if kind == "decimal":
        frame = frame.with_columns(pl.col("Open").cast(pl.Decimal(20, 4)))
    if kind == "integer":
        frame = frame.with_columns(pl.col("Open", "Volume").cast(pl.Int64))
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    _assert_whole(_bars(buffer.getvalue()))
    with pytest.raises(InputError, match="damaged Parquet"):
        _bars(buffer.getvalue()[:-20])


def test_finer_bars_are_put_together_and_coarser_ones_refused() -> None:
    bars = _bars(_table(STAMPS["naive"]), timeframe=Timeframe.parse("4h"))
    assert len(bars) == 10
    assert bars.columns["volume"].tolist() == [sum(row[4] for row in PRICES[k : k + 4]) for k in range(0, 40, 4)]
    with pytest.raises(InputError, match="bars are 1h apart, which makes no bars of 7m"):
        _bars(_table(STAMPS["naive"]), timeframe=Timeframe.parse("7m"))


def test_sparse_bars_keep_the_length_that_is_named() -> None:
    lines = _table(STAMPS["naive"]).splitlines()
    bars = _bars("\n".join([lines[0], *lines[1::2]]), timeframe=Timeframe.parse("1h"))
    assert str(bars.timeframe) == "1h"
    assert len(bars.gaps) == 19


@given(
    st.lists(
        st.decimals(min_value=Decimal("1e-8"), max_value=Decimal("1e7"), places=8, allow_nan=False).filter(
            lambda value: len(str(int(value.scaleb(8)))) <= 15
        ),
        min_size=1,
        max_size=20,
    )
)
def test_fifteen_digits_survive(values: list[Decimal]) -> None:
    found = numbers(pl.Series([f"{value:f}" for value in values]))
    assert found.rounded == 0
    assert [Decimal(repr(value)) for value in found.values.tolist()] == [value.normalize() + 0 for value in values]


def test_what_float64_cannot_hold_is_counted() -> None:
    found = numbers(pl.Series(["0.1234567890123456789", "1.5", "12345678901234560000"]))
    assert found.rounded == 1
    assert found.values[0] == 0.1234567890123456789


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["1.5", "1234.25"], "."),
        (["1,5", "1234,25"], ","),
        (["1,234.5"], "."),
        (["1.234,5"], ","),
        (["1,234,567"], "."),
        (["1.234.567"], ","),
        (["0,123"], ","),
        (["1,234", "1.5"], "."),
    ],
)
def test_decimal_marks(cells: list[str], mark: str) -> None:
    assert decimal_mark(pl.Series(cells)) == mark


def test_impossible_dates_are_no_times() -> None:
    found = dates.parse(pl.Series(["2024-02-30", "2024-13-01", "", "nan", "2024-01-01 25:00", "99999999999999999999"]))
    assert (found == dates.NO_TIME).all()


def test_a_zone_moves_times_and_skipped_hours_are_none() -> None:
    found = dates.parse(pl.Series(["2024-07-01 09:30", "2024-03-10 02:30"]), timezone="America/New_York")
    assert found[0] == dates.parse(pl.Series(["2024-07-01 13:30"]))[0]
    assert found[1] == dates.NO_TIME
    with pytest.raises(InputError, match="IANA name"):
        dates.parse(pl.Series(["2024-07-01 09:30"]), timezone="Mars/Base")


def test_months_and_weeks_are_inferred() -> None:
    months = np.array([f"2023-{month:02d}-01" for month in range(1, 13)], dtype="M8[ns]").astype(np.int64)
    assert infer(months) == Timeframe(1, "M")
    assert infer(np.arange(10) * 7 * NS_PER_DAY) == Timeframe(1, "w")
    with pytest.raises(InputError, match="pass --timeframe"):
        infer(np.array([1]))


COMPRESSED = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("ending", [*COMPRESSED, ".zip"])
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    from synth_pipeline.stages.bars import _content

    data, path = _table(STAMPS["iso"]).encode(), tmp_path / f"bars.csv{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("bars.csv", data)
            archive.writestr("__MACOSX/._bars.csv", b"x")
    else:
        path.write_bytes(COMPRESSED[ending](data))
    assert _content(path) == data
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError):
        _content(path)


REAL = [
    ("binance_usdm_BTCUSDT_1h_to20230630.csv.xz", "1h", 30_648, 0),
    ("binance_usdm_SOLUSDT_1h_to20230630.csv.xz", "1h", 24_473, 0),
    ("ftx_btcperp_1m_202201.csv.zst", "1m", 45_031, 0),
    ("sp500_daily_1999_2018.csv.gz", "1d", 5_031, 185),
]


@pytest.mark.parametrize(("name", "timeframe", "rows", "missing"), REAL)
def test_real_files(real: Callable[[str], Path], name: str, timeframe: str, rows: int, missing: int) -> None:
    with archives.opened(real(name)) as file:
        bars = _bars(file.read())
    assert (str(bars.timeframe), len(bars), sum(gap.missing for gap in bars.gaps)) == (timeframe, rows, missing)
    assert not bars.bad
    assert not bars.rounded
