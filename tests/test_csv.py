"""The sorted-CSV loader against its slow twin, on files of every form and with every fault we know of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.rng import stream
from synth_pipeline.ticks import csv as csv_module
from synth_pipeline.ticks import csv_kernels
from synth_pipeline.ticks.csv import Slice, SortedCsv
from synth_pipeline.ticks.csv_rows import Kind
from tests import naive_csv

START_S = 1_723_161_255
START_NS = START_S * 10**9
NAMES = ("timestamp", "bid_price", "ask_price", "bid_volume")
PRICES = dict.fromkeys(NAMES[1:], Kind.EXACT)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def to_file(content: str | bytes) -> Path:
        path = tmp_path / "ticks.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def rows_text(times: list[int], *, header: bool = True) -> str:
    """A file of microsecond stamps, one cent up a row."""
    lines = [f"{at},{100 + i / 100:.2f},{101 + i / 100:.2f},{i % 7 + 0.5}" for i, at in enumerate(times)]
    return "\n".join([*([",".join(NAMES)] if header else []), *lines, ""])


def seconds(*at: float) -> list[int]:
    """Moments after the start as microseconds since the epoch."""
    return [START_S * 10**6 + round(each * 10**6) for each in at]


def read(path: Path, first: float, last: float, tolerance: int = 64, **options: object) -> Slice:
    """Read a window given in seconds after the start."""
    window = (START_NS + round(first * 10**9), START_NS + round(last * 10**9))
    return SortedCsv(path, tolerance=tolerance).read(*window, PRICES, **options)  # type: ignore[arg-type]


def after_start(found: Slice) -> list[float]:
    return ((found.time_ns - START_NS) / 10**9).tolist()


# --- any form of file, against the twin


@dataclass(frozen=True)
class Written:
    """A file and how it was written."""

    text: str
    names: tuple[str, ...]
    unit: str
    has_header: bool
    delimiter: str


@st.composite
def files(draw: st.DrawFn) -> Written:
    unit = draw(st.sampled_from(["s", "ms", "us", "ns", "iso"]))
    names = tuple(draw(st.permutations(NAMES)))
    has_header, delimiter = draw(st.booleans()), draw(st.sampled_from(",;\t|"))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 7, 1000, 10**6]), min_size=1, max_size=150))
    lines = [delimiter.join(names)] if has_header else []
    for i, at in enumerate(np.cumsum(gaps).tolist()):
        row = {"timestamp": stamp(draw, START_NS + at * 1000, unit), "bid_price": f"{i}.{i % 3}"}
        row |= {"ask_price": draw(st.sampled_from(["1e-05", "3", "-0.25", ".5", "+7.", "12.30"])), "bid_volume": "0.1"}
        quote = draw(st.sampled_from(["", "", '"', " "]))
        lines.append(delimiter.join(f"{quote}{row[name]}{quote}" for name in names))
        lines += [""] * draw(st.sampled_from([0, 0, 0, 1]))
    opening = draw(st.sampled_from(["", "\ufeff", "# made by hand\n\n"]))
    return Written(opening + end.join([*lines, ""]), names, unit, has_header, delimiter)


def stamp(draw: st.DrawFn, ns: int, unit: str) -> str:
    """Write a time in a unit, exactly, with as many zeros as anybody may like."""
    if unit == "iso":
        zone = draw(st.sampled_from(["", "Z", "+00:00", "+0000"]))
        mark = draw(st.sampled_from("T "))
        return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d{mark}%H:%M:%S}.{ns % 10**9:09d}{zone}"
    value = Decimal(ns) / naive_csv.FACTORS[unit]
    return f"{value:f}" + ("0" if "." in f"{value:f}" and draw(st.booleans()) else "")


@given(files(), st.integers(-5, 40_000), st.integers(0, 60_000), st.sampled_from([16, 64, 4096]))
def test_equals_slow_twin(
    tmp_path_factory: pytest.TempPathFactory, file: Written, start_us: int, length_us: int, tolerance: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_form.csv"
    path.write_bytes(file.text.encode())
    start, end = START_NS + start_us * 1000, START_NS + (start_us + length_us) * 1000
    names = () if file.has_header else file.names
    found = SortedCsv(path, columns=names, tolerance=tolerance).read(start, end, PRICES, carry_in=True)
    form = {"time": "timestamp", "unit": file.unit, "names": file.names}
    rows, before = naive_csv.window(file.text, start, end, **form, has_header=file.has_header, delimiter=file.delimiter)
    assert found.carried == len(before)
    assert found.time_ns.tolist() == [ns for ns, _ in before + rows]
    for name in PRICES:
        assert found.columns[name].tolist() == [int(values[name].scaleb(8)) for _, values in before + rows]
    assert (found.rejected, found.unsorted_at.size, found.unfinished_bytes) == ({}, 0, 0)


def test_equals_polars_on_a_file_of_many_probes(tmp_path: Path) -> None:
    rng = stream(1, "csv", "polars")
    times = START_S * 10**6 + np.cumsum(rng.integers(0, 20_000, 60_000))
    bids = 60_000 + np.cumsum(rng.integers(-1, 2, 60_000))
    path = tmp_path / "ticks.csv"
    pl.DataFrame(
        {"timestamp": times, "bid_price": bids / 10, "ask_price": (bids + 1) / 10, "bid_volume": 0.125}
    ).write_csv(path)
    file = SortedCsv(path)
    assert file.span() == (times[0] * 1000, times[-1] * 1000)
    for start in rng.integers(times[0] - 10**6, times[-1], 12).tolist():
        end = start + int(rng.integers(0, 10**8))
        found = file.read(start * 1000, end * 1000, {"bid_price": Kind.FLOAT, "bid_volume": Kind.FLOAT})
        frame = pl.scan_csv(path).filter(pl.col("timestamp").is_between(start, end, closed="left")).collect()
        np.testing.assert_array_equal(found.time_ns, frame["timestamp"].to_numpy() * 1000)
        np.testing.assert_array_equal(found.columns["bid_price"], frame["bid_price"].to_numpy())
        np.testing.assert_array_equal(found.columns["bid_volume"], frame["bid_volume"].to_numpy())
        assert found.bytes_read <= found.slice_bytes + 2 * csv_module.TOLERANCE + 30_000


# --- windows


def test_windows_tile(write: Callable[[str], Path]) -> None:
    path = write(rows_text(seconds(*np.repeat(np.arange(100), 5))))
    whole = read(path, 0, 100)
    parts = [read(path, first, first + 12.5) for first in np.arange(0, 100, 12.5)]
    assert np.concatenate([part.time_ns for part in parts]).tolist() == whole.time_ns.tolist()
    assert np.concatenate([part.columns["bid_price"] for part in parts]).tolist() == whole.columns["bid_price"].tolist()


def test_ties_belong_whole_to_the_edge_they_are_at(write: Callable[[str], Path]) -> None:
    path = write(rows_text(seconds(*[1] * 200, *[2] * 200, *[3] * 200)))
    found = read(path, 2, 3)
    assert after_start(found) == [2.0] * 200
    assert np.diff(found.columns["bid_price"]).tolist() == [1_000_000] * 199  # file order


@pytest.mark.parametrize(
    ("window", "rows"), [((-9, -1), []), ((50, 60), []), ((2.5, 2.6), []), ((2, 2), []), ((-9, 99), [1, 2, 3])]
)
def test_windows_before_beside_and_after_the_rows(
    write: Callable[[str], Path], window: tuple[float, float], rows: list[float]
) -> None:
    assert after_start(read(write(rows_text(seconds(1, 2, 3))), *window)) == rows


def test_the_row_before_and_the_time_after_a_window(write: Callable[[str], Path]) -> None:
    path = write(rows_text(seconds(1, 2, 2, 3, 4)))
    found = read(path, 2.5, 2.6, carry_in=True)
    assert (found.carried, after_start(found), found.columns["bid_price"].tolist()) == (1, [2.0], [10_002_000_000])
    assert (found.before_ns, found.after_ns) == (START_NS + 2 * 10**9, START_NS + 3 * 10**9)
    first = read(path, 0, 2, carry_in=True)
    assert (first.carried, first.before_ns, after_start(first)) == (0, None, [1.0])
    assert read(path, 4, 9).after_ns is None


def test_one_row_and_no_rows(write: Callable[[str], Path]) -> None:
    assert after_start(read(write(rows_text(seconds(1))), 0, 2)) == [1.0]
    path = write(rows_text([]))
    assert (after_start(read(path, 0, 2)), SortedCsv(path).span()) == ([], None)


def test_a_reversed_window_and_an_unknown_column_are_refused(write: Callable[[str], Path]) -> None:
    path = write(rows_text(seconds(1, 2)))
    with pytest.raises(InputError, match="swap the two"):
        read(path, 2, 1)
    with pytest.raises(InputError, match="no column 'last'"):
        SortedCsv(path).read(0, 1, {"last": Kind.EXACT})


# --- files that grow, or break off


def test_a_growing_file_is_read_as_it_is_now(write: Callable[[str], Path]) -> None:
    path = write(rows_text([]))
    file, window = SortedCsv(path), (START_NS, START_NS + 10**11)
    assert file.read(*window, PRICES).time_ns.size == 0
    for step in range(1, 40):
        with path.open("a") as more:
            more.write(f"{START_S + step},1.5,1.75,")
        torn = file.read(*window, PRICES)
        assert (torn.time_ns.size, torn.unfinished_bytes) == (step - 1, 20)
        with path.open("a") as more:
            more.write("2.5\n")
        whole = file.read(*window, PRICES)
        assert (whole.time_ns.size, whole.unfinished_bytes) == (step, 0)
    assert file.span() == (START_NS + 10**9, START_NS + 39 * 10**9)


def test_another_file_under_the_same_name_is_recognized_anew(write: Callable[[str], Path]) -> None:
    path = write(rows_text(seconds(1, 2)))
    file = SortedCsv(path)
    other = path.with_name("other.csv")
    other.write_text(f"bid_price,ask_price,bid_volume,timestamp\n1,2,3,{START_S + 5}\n")
    other.replace(path)
    assert after_start(file.read(START_NS, START_NS + 10**10, PRICES)) == [5.0]


def test_every_cut_of_a_file_gives_its_whole_lines(write: Callable[[str], Path]) -> None:
    text = rows_text(seconds(*range(12)))
    for length in range(len(text.splitlines()[0]) + 1, len(text) + 1):
        found = read(write(text[:length]), 0, 99)
        assert len(found.time_ns) == text[:length].count("\n") - 1
        assert found.unfinished_bytes == length - text[:length].rfind("\n") - 1


# --- files that are not quite sorted


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=300),
    st.integers(0, 25),
    st.integers(0, 400),
    st.integers(0, 200),
)
def test_a_little_disorder_is_mended_and_reported(
    tmp_path_factory: pytest.TempPathFactory, at: list[int], reach: int, start: int, length: int
) -> None:
    shaken = [ms for _, ms in sorted((ms + (ms * 7919 + i) % (reach + 1), ms) for i, ms in enumerate(sorted(at)))]
    path = tmp_path_factory.getbasetemp() / "shaken.csv"
    path.write_text(rows_text([START_S * 10**6 + ms * 1000 for ms in shaken]))
    found = read(path, start / 1000, (start + length) / 1000, tolerance=2048)
    expected = sorted(ms for ms in at if start <= ms < start + length)
    assert ((found.time_ns - START_NS) // 10**6).tolist() == expected
    if start == 0 and length > 450:
        assert found.unsorted_at.size == int((np.diff(shaken) < 0).sum())


@pytest.mark.parametrize("stray", [START_S * 10**6 - 10**9, START_S * 10**6 + 10**12, 1_000_000_000_000_000])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_strays_mislead_no_search(write: Callable[[str], Path], stray: int, count: int) -> None:
    times = seconds(*np.arange(4000) / 10)
    for place in (600, 1000, 2000, 2001, 3000, 3999 - count):
        spoiled = times[:place] + [stray] * count + times[place:]
        path = write(rows_text(spoiled))
        for first, last in ((0, 400), (50, 60), (190, 210), (199.9, 200.05), (340, 500)):
            found = read(path, first, last, tolerance=1024)
            expected = [at for at in np.arange(4000) / 10 if first <= at < last]
            assert after_start(found) == pytest.approx(expected, abs=1e-9), (place, first, last)
        whole = read(path, 0, 400, tolerance=1024)
        assert whole.unsorted_at.size == 1
        assert min(abs(at - line_start(path, place)) for at in whole.unsorted_at) <= 60 * (count + 1)


def line_start(path: Path, row: int) -> int:
    return sum(len(line) for line in path.read_bytes().splitlines(keepends=True)[: row + 1])


def test_a_block_out_of_place_is_found(write: Callable[[str], Path]) -> None:
    """A reconnected recorder appends what it had missed: a block a few kB late."""
    times = np.arange(6000) / 10
    moved = np.concatenate([times[:3000], times[3150:3300], times[3000:3150], times[3300:]])
    path = write(rows_text(seconds(*moved)))
    for first, last in ((295, 345), (300, 315), (314, 316), (320, 330), (0, 600)):
        found = read(path, first, last, tolerance=12_000)
        assert after_start(found) == pytest.approx(times[(times >= first) & (times < last)].tolist(), abs=1e-9)


def test_files_that_are_not_sorted_are_refused(write: Callable[[str], Path]) -> None:
    times = seconds(*np.arange(3000))
    with pytest.raises(InputError, match="runs backwards in timestamp"):
        read(write(rows_text(times[::-1])), 100, 200)
    with pytest.raises(InputError, match="runs backwards in timestamp"):
        SortedCsv(write(rows_text(times[::-1]))).span()
    shuffled = stream(2, "csv", "shuffled").permutation(times[1:-1]).tolist()
    with pytest.raises(InputError, match="is not sorted by timestamp around byte"):
        read(write(rows_text([times[0], *shuffled, times[-1]])), 100, 200, tolerance=128)


# --- what cannot be read


def test_bad_rows_are_counted_with_their_reason(write: Callable[[str], Path]) -> None:
    lines = rows_text(seconds(*range(40))).splitlines(keepends=True)
    lines[5] = "1723161259000000,1.5,1.5\n"
    lines[6] = f"{seconds(5)[0]},1.5,abc,1\n"
    lines[7] = "yesterday,1,1,1\n"
    lines[8] = f"{seconds(7)[0]},1.123456789,1,1\n"
    lines[9] = f"{seconds(8)[0]},99999999999999999999,1,1\n"
    lines[10] = f"{seconds(9)[0]},1,,1\n"
    lines[30] = "outside,the,window,0\n"
    found = read(write("".join(lines)), 2, 20)
    assert after_start(found) == [2, 3, *range(10, 20)]
    assert found.rejected == {
        "field_count": 1,
        "malformed_number": 2,
        "malformed_time": 1,
        "too_many_decimals": 1,
        "number_too_large": 1,
    }
    assert found.rejected_at == [sum(map(len, lines[:row])) for row in range(5, 10)]


def test_a_window_of_nothing_but_bad_rows_says_why(write: Callable[[str], Path]) -> None:
    path = write(rows_text(seconds(1, 2)).replace(",100.", ",1.000000000001"))
    with pytest.raises(InputError, match=r"no row of the window .* at byte 41, has too_many_decimals: check"):
        read(path, 0, 9)


def test_a_line_break_within_quotes_is_refused(write: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="a quote that its line does not close, at byte 41"):
        read(write(",".join(NAMES) + f'\n{seconds(1)[0]},"1\n5",2,3\n{seconds(2)[0]},1,2,3\n'), 0, 9)


def test_numbers_as_floats_texts_and_empty_fields(write: Callable[[str], Path]) -> None:
    numbers = ["0.30000000000000004", "1e-05", "123456789012345678901234.5", "", "9007199254740993", "-1.5E3"]
    sides = ["buy", "SELL", "", "true", "b", "12345678"]
    lines = [f"{START_S + i},{number},{side}" for i, (number, side) in enumerate(zip(numbers, sides, strict=True))]
    file = SortedCsv(write("\n".join(["time,size,side", *lines, ""])))
    found = file.read(START_NS, START_NS + 10**10, {"size": Kind.FLOAT, "side": Kind.TEXT})
    np.testing.assert_array_equal(found.columns["size"], [float(number or "nan") for number in numbers])
    assert found.columns["side"].tolist() == [side.lower().encode() for side in sides]
    exact = file.read(START_NS, START_NS + 10**10, {"size": Kind.EXACT_OR_EMPTY}, decimals=5)
    # The first is the float64 next to 0.3: noise, not decimals.
    assert exact.columns["size"].tolist() == [30_000, 1, 0, -150_000_000]
    assert exact.rejected == {"number_too_large": 2}


def test_exact_numbers_fit_to_the_last_one(write: Callable[[str], Path]) -> None:
    largest = 2**63 - 1
    text = f"time,size\n{START_S},{largest}\n{START_S + 1},-{largest}\n{START_S + 2},{largest + 1}\n"
    found = SortedCsv(write(text)).read(START_NS, START_NS + 10**10, {"size": Kind.EXACT}, decimals=0)
    assert (found.columns["size"].tolist(), found.rejected) == ([largest, -largest], {"number_too_large": 1})


# --- times


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2024-02-29T23:59:59.999999999Z", 1_709_251_199_999_999_999),
        ("2024-03-01 00:00:00", 1_709_251_200_000_000_000),
        ("2024-03-01T09:00:00+09:00", 1_709_251_200_000_000_000),
        ("2024-02-29T19:30:00.5-0430", 1_709_251_200_500_000_000),
        ("1709251200.25", 1_709_251_200_250_000_000),
        ("1709251200250.5", 1_709_251_200_250_500_000),
        ("1.70925120025e9", 1_709_251_200_250_000_000),
    ],
)
def test_times_of_every_form(write: Callable[[str], Path], text: str, ns: int) -> None:
    assert SortedCsv(write(f"time,price\n{text},1\n")).span() == (ns, ns)


@pytest.mark.parametrize(
    "text",
    ["2024-02-30T00:00:00", "2023-02-29T00:00:00", "2024-01-01T24:00:00", "2024-01-01T00:00:60", "2024-1-1T00:00:00",
     "2024-01-01T00:00:00.", "2024-01-01T00:00:00.0000000001", "2024-01-01T00:00:00+9", "1709251200.1234567891", "12"],
)  # fmt: skip
def test_what_is_no_time_is_rejected(write: Callable[[str], Path], text: str) -> None:
    good = "2024-01-01T00:00:00" if "T" in text else "1704067200"
    found = SortedCsv(write(f"time,price\n{good},1\n{text},1\n{good},1\n")).read(0, 2**62, {"price": Kind.EXACT})
    assert (found.rejected, len(found.time_ns)) == ({"malformed_time": 1}, 2)


def test_a_file_may_change_its_unit(write: Callable[[str], Path]) -> None:
    """Binance's spot archives went from ms to us on 2025-01-01."""
    path = write("time,price\n1735689599999,1\n1735689600000000,2\n1735689600000001,3\n")
    assert SortedCsv(path).read(0, 2**62, {}).time_ns.tolist() == [
        1_735_689_599_999_000_000,
        1_735_689_600_000_000_000,
        1_735_689_600_000_001_000,
    ]


def test_a_unit_that_is_said_goes_first(write: Callable[[str], Path]) -> None:
    path = write("time,price\n34200.017,1\n34200.5,2\n")
    with pytest.raises(InputError, match="option `unit`"):
        SortedCsv(path)
    assert SortedCsv(path, unit="s").span() == (34_200_017_000_000, 34_200_500_000_000)
    assert SortedCsv(write("time_ms,price\n34200,1\n"), unit="us").span() == (34_200_000, 34_200_000)
    assert SortedCsv(write("time_ms,price\n34200,1\n")).span() == (34_200_000_000, 34_200_000_000)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("timestamp,local_timestamp,price\n1723161255,1723161256,1\n", {}, "'timestamp' and 'local_timestamp'"),
        ("1723161255,1723161256,1\n", {}, "'0' and '1'"),
        ("a,b\n1,2\n", {}, "none could be it"),
        ("time,price\nsoon,1\n", {}, "no ISO time"),
        ("time_ms,price\n1723161255,1\n", {}, "size is not that of its name's unit"),
        ("time,time\n1723161255,1\n", {}, "two columns 'time'"),
        ("1723161255,1\n", {"columns": ("time",)}, "1 names for the 2 columns"),
        ("time,price\n1723161255,1\n", {"time": "ts"}, "no column 'ts'"),
        ("time,price;size|x\n1,2;3|4\n", {}, "one delimiter"),
        ("\xff\xfetime", {}, "is UTF-16"),
        ("\x1f\x8b\x08", {}, "is gzip"),
    ],
)
def test_what_is_ambiguous_or_foreign_is_refused(
    write: Callable[[str | bytes], Path], text: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        SortedCsv(write(text.encode("latin-1")), **options)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "timestamp,pri", "# nothing\n\n"])
def test_a_file_without_a_line_has_no_data(write: Callable[[str], Path], text: str) -> None:
    with pytest.raises(NoDataError):
        SortedCsv(write(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        SortedCsv(tmp_path / "none.csv")


def test_the_time_column_that_is_said_is_taken(write: Callable[[str], Path]) -> None:
    path = write("timestamp,local_timestamp,price\n1723161255,1723161256,1\n")
    assert SortedCsv(path, time="local_timestamp").span() == (START_NS + 10**9, START_NS + 10**9)


def test_long_lines_and_pieces_of_a_large_read(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_module, "_CHUNK", 1000)
    pad = "x" * 700
    lines = [f"{START_S + i},{i},{pad if i % 3 else ''}" for i in range(300)]
    path = write("\n".join(["time,price,note", *lines, ""]))
    for window in ((0, 300), (100, 103), (299, 400)):
        found = SortedCsv(path, tolerance=64).read(
            START_NS + window[0] * 10**9, START_NS + window[1] * 10**9, {"price": Kind.EXACT}, decimals=0
        )
        assert found.columns["price"].tolist() == list(range(window[0], min(window[1], 300)))


_ODD = st.sampled_from(
    ["", ".", "-", "+1", "1e3", " 1", '"1"', "1.", ".5", "-0", "00.10", "9" * 19, "1.0" + "0" * 20, "é", "x\r"]
)
_FIELD = st.one_of(
    st.from_regex(r"-?[0-9]{1,17}(\.[0-9]{1,9})?", fullmatch=True), st.text("0123456789.-", max_size=20), _ODD
)


@given(
    st.lists(st.lists(_FIELD, min_size=1, max_size=4).map(",".join), min_size=1, max_size=6),
    st.lists(st.sampled_from([*Kind]), min_size=3, max_size=3),
    st.sampled_from([0, 6, csv_kernels.BY_MAGNITUDE]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lines_read_in_one_go_are_read_as_field_by_field(
    lines: list[str], kinds: list[Kind], exponent: int, end: str
) -> None:
    data = np.frombuffer("".join(line + end for line in lines).encode(), dtype=np.uint8)
    how, slots, codes = (ord(","), 0, exponent), np.array([0, 1, 2]), np.array([*map(int, kinds)])

    def room() -> tuple[np.ndarray, ...]:
        shapes = ((2, 6), np.int64), (6, np.int64), ((3, 6), np.int64), ((3, 6), np.int8), (6, np.uint8)
        return tuple(np.zeros(shape, dtype) for shape, dtype in shapes)  # type: ignore[call-overload]

    fast, slow = room(), room()
    count = csv_kernels.parse(data, how, slots, codes, *fast)
    row, line = 0, 0
    while line < data.size:
        after, fault = csv_kernels._any_line(data, line, how, slots, codes, row, *slow[1:4])
        if fault >= 0:
            slow[0][:, row], slow[4][row] = (line, after), fault
            row += 1
        line = after
    assert count == row
    sound = slow[4] == 0
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_array_equal(fast[4], slow[4])
    for one, other in zip(fast[1:4], slow[1:4], strict=True):
        np.testing.assert_array_equal(one[..., sound], other[..., sound])


def test_fields_of_any_length(write: Callable[[bytes], Path]) -> None:
    """Python's own reader takes no field above 128 kB, quoted or not."""
    path = write(b"time,price,note\n" + b"".join(b"%d,%d,%b\n" % (START_S + i, i, b"x" * 200_000) for i in range(9)))
    found = SortedCsv(path).read(START_NS + 3 * 10**9, START_NS + 5 * 10**9, {"price": Kind.EXACT}, decimals=0)
    assert found.columns["price"].tolist() == [3, 4]
    with pytest.raises(InputError, match="cannot be read: field larger than field limit"):
        SortedCsv(write(b'time,price,note\n1723161255,1,"%b"\n' % (b"x" * 200_000)))


def test_bytes_that_are_no_utf_8_are_text_like_any_other(write: Callable[[bytes], Path]) -> None:
    path = write(b"time,price,na\xefve\n" + b"".join(b"%d,%d,caf\xe9\n" % (START_S + i, i) for i in range(5)))
    file = SortedCsv(path)
    assert file.read(START_NS, START_NS + 10**10, {"price": Kind.EXACT}, decimals=0).columns["price"].tolist() == [
        *range(5)
    ]
    assert file.form.names[:2] == ("time", "price")
