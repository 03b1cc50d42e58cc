"""Delimited text as arrays: equal to `csv`, `decimal` and `datetime`; grids equal to a slow search; wall times."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.archives.fields import NO_TIME, Decimals, of_integers, split, to_integers
from synth_pipeline.archives.grid import PRICE_MAJORITY, Step, Tally, common_step, on_grid
from synth_pipeline.archives.ids import CountingIds
from synth_pipeline.archives.wall_time import WallClock
from synth_pipeline.errors import InputError

_WORDS = st.text(st.characters(codec="ascii", exclude_characters='",\n\r\x00 '), max_size=8)
_NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**9), max_value=10**9).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text("0123456789.-+e ", max_size=12),
)


def _decimals(texts: list[str]) -> Decimals:
    return split("".join(f"{text or '?'}\n" for text in texts).encode(), ";", 1).decimals(0)


@given(st.lists(st.lists(_WORDS, min_size=1, max_size=4), max_size=8), st.booleans())
def test_fields_are_those_of_the_csv_module(rows: list[list[str]], crlf: bool) -> None:
    end = "\r\n" if crlf else "\n"
    text = "".join(",".join(f'"{word}"' if len(word) % 2 else word for word in row) + end for row in rows)
    expected = [row for row in csv.reader(io.StringIO(text)) if row]
    fields = split(text.encode(), ",", 3)
    whole = "".join(f"{line}\n" for line in text.replace("\r", "").split("\n") if line)
    assert fields.lines(np.arange(len(expected))) == whole.encode()
    assert fields.widths.tolist() == [len(row) for row in expected]
    for at, row in enumerate(expected):
        if len(row) == 3:
            assert [fields.text(at, column) for column in range(3)] == row


def test_quotes_hold_delimiters_and_spaces_fall_off() -> None:
    fields = split(b'"a,b", 1.5 ,"""x"""\n', ",", 3)
    assert [fields.text(0, column) for column in range(2)] == ["a,b", "1.5"]


@given(st.lists(_NUMBERS, min_size=1, max_size=20))
def test_decimals_are_exact_or_none(texts: list[str]) -> None:
    texts = [text.strip() for text in texts]
    found = _decimals(texts)
    for text, mantissa, exponent, valid in zip(texts, *(part.tolist() for part in found), strict=True):
        try:
            expected = Decimal(text)
        except InvalidOperation:
            assert not valid
            continue
        digits = int("".join(map(str, expected.normalize().as_tuple().digits)))
        if valid:
            assert Decimal(mantissa).scaleb(exponent) == expected
            assert mantissa == 0 or mantissa % 10 != 0
        else:
            assert digits > 2**62 or abs(expected.adjusted()) > 900 or len(text) > 30


@given(st.lists(st.integers(-(2**60), 2**60), min_size=1), st.integers(-9, 0))
def test_integers_come_and_go_as_decimals(values: list[int], exponent: int) -> None:
    numbers = of_integers(np.array(values), exponent)
    back = to_integers(numbers._replace(exponent=numbers.exponent - np.where(numbers.mantissa == 0, 0, exponent)))
    assert back[0].tolist() == values
    assert back[1].all()


_MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 30))


@given(_MOMENTS, st.integers(0, 999), st.sampled_from(["-", "/", ""]), st.sampled_from([" ", "T", "D"]))
def test_times_are_those_of_datetime(moment: datetime, ns: int, dash: str, between: str) -> None:
    total = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000 + ns
    fraction = f"{moment.microsecond:06}{ns:03}"
    day, clock = moment.strftime(f"%Y{dash}%m{dash}%d"), moment.strftime("%H:%M:%S")
    texts = {
        f"{day}{between}{clock}.{fraction}": total,
        f"{day}{between}{clock}.{fraction[:3]}": total // 10**6 * 10**6,
        f"{day}{between}{clock}Z": total // 10**9 * 10**9,
        f"{day}{between}{clock}+05:30": total // 10**9 * 10**9 - 19_800 * 10**9,
        f"{day}{between}{clock}-0800": total // 10**9 * 10**9 + 28_800 * 10**9,
        moment.strftime("%m/%d/%Y %H:%M:%S"): total // 10**9 * 10**9,
        str(total): total,
        str(total // 10**3): total // 10**3 * 10**3,
        str(total // 10**6): total // 10**6 * 10**6,
        f"{total // 10**9}.{fraction}": total,
    }
    times, _ = split("".join(f"{text}\n" for text in texts).encode(), ";", 1).times(0)
    assert times.tolist() == list(texts.values())


@pytest.mark.parametrize(
    "text",
    ["", "abc", "17", "2024-02-30 00:00:00", "2024-13-01 00:00:00", "2024-01-05 24:00:00", "2024-01-05 9:30:00",
     "2024-01-05", "-1700000000", "99999999999999999999", "2024-01-05 09:30:00.1x", "2024-01-05 09:30:00+99:00", "nan"],
)  # fmt: skip
def test_what_is_no_time_is_none(text: str) -> None:
    times, _ = split(f"{text or '?'}\n".encode(), ";", 1).times(0)
    assert times.tolist() == [NO_TIME]


def _slow_step(values: list[Decimal], majority: float) -> Decimal:
    steps = sorted(Decimal(lead).scaleb(power) for power in range(-12, 12) for lead in (1, 2, Decimal("2.5"), 5))
    return next(s for s in reversed(steps) if sum(v % s == 0 for v in values) >= majority * len(values))


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=40),
    st.sampled_from(["0.01", "0.25", "0.5", "5", "0.00002", "0.125", "1000"]),
    st.sampled_from([1.0, PRICE_MAJORITY, 0.9]),
)
def test_the_grid_is_the_coarsest_that_a_slow_search_finds(steps: list[int], size: str, majority: float) -> None:
    values = [Decimal(size) * step for step in steps]
    tally = Tally()
    for value in values:
        tally.add(_decimals([f"{value:f}"]))
    found = tally.step(majority)
    assert found.size == _slow_step(values, majority)
    assert Step.of(found.size).size == found.size
    counts, fits = on_grid(_decimals([f"{value:f}" for value in values]), found)
    for value, count, fit in zip(values, counts.tolist(), fits.tolist(), strict=True):
        assert fit == (value % found.size == 0)
        assert not fit or count * found.size == value


def test_one_corrupt_number_does_not_cost_the_others_their_place() -> None:
    texts = ["1500.25"] * 5000 + ["0.1234567890123456789"]
    tally = Tally()
    tally.add(_decimals(texts))
    assert tally.step(1.0).size == Decimal("0.01")
    noisy = ["250.5", "99.75"] * 400 + ["0.30000000000000004", "100000000000.25"] * 3
    tally = Tally()
    tally.add(_decimals(noisy))
    _, fits = on_grid(_decimals(noisy), tally.step(1.0))
    assert fits[:800].all()


def test_a_common_step_holds_both_grids() -> None:
    for sizes, expected in ((("0.25", "0.1"), "0.01"), (("0.5", "0.25"), "0.25"), (("1", "0.001"), "0.001")):
        assert common_step([Step.of(Decimal(size)) for size in sizes]).size == Decimal(expected)


def _clock(zone: str, texts: list[str]) -> list[str]:
    fields = split("".join(f"{text}\n" for text in texts).encode(), ";", 1)
    times = WallClock(zone).to_utc(fields.times(0)[0])
    return [
        "" if t == NO_TIME else str(np.datetime64(int(t), "s" if t < 10**12 else "ns"))[:19] for t in times.tolist()
    ]


def test_wall_times_follow_the_clock_changes() -> None:
    assert _clock("America/Chicago", ["2013-09-01 17:00:00", "2013-12-01 17:00:00"]) == [
        "2013-09-01T22:00:00",
        "2013-12-01T23:00:00",
    ]
    autumn = ["2024-11-03 00:59:59", "2024-11-03 01:30:00", "2024-11-03 01:59:59", "2024-11-03 01:00:01",
              "2024-11-03 01:30:00", "2024-11-03 02:00:00"]  # fmt: skip
    assert _clock("America/Chicago", autumn) == [
        "2024-11-03T05:59:59",
        "2024-11-03T06:30:00",
        "2024-11-03T06:59:59",
        "2024-11-03T07:00:01",
        "2024-11-03T07:30:00",
        "2024-11-03T08:00:00",
    ]
    assert _clock("America/Chicago", ["2024-03-10 01:59:59", "2024-03-10 02:30:00", "2024-03-10 03:00:00"]) == [
        "2024-03-10T07:59:59",
        "",
        "2024-03-10T08:00:00",
    ]
    with pytest.raises(InputError, match="time zone 'Nowhere' is not known"):
        WallClock("Nowhere")


@given(st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)), min_size=1, max_size=20))
def test_unambiguous_wall_times_are_those_of_zoneinfo(moments: list[datetime]) -> None:
    zone = ZoneInfo("Europe/Berlin")
    sound = [m for m in moments if m.replace(tzinfo=zone).utcoffset() == m.replace(tzinfo=zone, fold=1).utcoffset()]
    local = [int(m.replace(tzinfo=UTC, microsecond=0).timestamp()) * 10**9 for m in sound]
    expected = [int(m.replace(tzinfo=zone, microsecond=0).timestamp()) * 10**9 for m in sound]
    assert WallClock("Europe/Berlin").to_utc(np.array(local, np.int64)).tolist() == expected


def _checked(ids: list[int]) -> tuple[list[int], list[int], list[tuple[int, ...]]]:
    counting = CountingIds()
    faults, after = counting.check(np.array(ids), np.arange(len(ids)) * 10)
    return faults.tolist(), np.flatnonzero(after).tolist(), [(gap[0], gap[1], gap[4]) for gap in counting.gaps()]


def test_ids_that_count_up_are_followed() -> None:
    assert _checked([5, 6, 7]) == ([0, 0, 0], [], [])
    assert _checked([5, 6, 9, 10]) == ([0] * 4, [2], [(10, 20, 2)])
    assert _checked([5, 7, 6, 8])[2] == []  # a late one fills its hole
    assert _checked([5, 6, 6, 7])[0] == [0, 0, 13, 0]
    assert _checked([5, 10**15, 6, 7]) == ([0, 6, 0, 0], [], [])
    assert _checked([5, 10**15, 10**15 + 1])[0] == [0, 6, 0]
