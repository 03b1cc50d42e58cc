"""The index of a CSV file: finds what bisection cannot see, is that of one file only, and grows with it."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.errors import InputError
from synth_pipeline.ticks import csv_index
from synth_pipeline.ticks.csv import SortedCsv
from synth_pipeline.ticks.csv_rows import Kind

START_S = 1_723_161_255
START_NS = START_S * 10**9
PRICES = {"price": Kind.EXACT}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_index, "BLOCK", 256)
    monkeypatch.setattr(csv_index, "_READ", 1000)


def lines(at: list[int], first: int = 0) -> str:
    """Rows at these seconds after the start, one tick up a row."""
    return "".join(f"{START_S + second},{first + row}\n" for row, second in enumerate(at))


def write(folder: Path, text: str) -> Path:
    path = folder / "ticks.csv"
    path.write_text("time,price\n" + text)
    return path


def indexed(path: Path) -> SortedCsv:
    return SortedCsv(path, index=path.with_suffix(".index"), tolerance=64)


def seconds(file: SortedCsv, start: int, end: int) -> list[int]:
    found = file.read(START_NS + start * 10**9, START_NS + end * 10**9, PRICES, decimals=0)
    return [*map(int, (found.time_ns - START_NS) // 10**9)]


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(-5, 310), st.integers(0, 100))
def test_no_row_is_missed_however_the_file_is_ordered(
    tmp_path_factory: pytest.TempPathFactory, at: list[int], start: int, length: int
) -> None:
    path = write(tmp_path_factory.mktemp("csv"), lines(at))
    window = (START_NS + start * 10**9, START_NS + (start + length) * 10**9)
    found = indexed(path).read(*window, PRICES, decimals=0, carry_in=True)
    within = sorted((second, row) for row, second in enumerate(at) if start <= second < start + length)
    before = sorted((second, row) for row, second in enumerate(at) if second < start)[-1:]
    assert found.columns["price"].tolist() == [row for _, row in before + within]
    assert found.before_ns == (START_NS + before[0][0] * 10**9 if before else None)
    after = [second for second in at if second >= start + length]
    assert found.after_ns == (START_NS + min(after) * 10**9 if after else None)


@given(st.lists(st.integers(0, 50), max_size=150), st.lists(st.integers(0, 150), max_size=4).map(sorted))
def test_an_index_that_grew_is_that_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, at: list[int], cuts: list[int]
) -> None:
    folder, text = tmp_path_factory.mktemp("csv"), lines(at)
    path = write(folder, "")
    for cut in (*cuts, len(text)):  # a cut may lie within a line
        path.write_text("time,price\n" + text[: max(cut, 0)])
        facts = indexed(path).index().facts()
    assert facts["rows"] == len(at)
    assert facts["unsorted"] == sum(after < before for before, after in pairwise(at))
    assert facts["tied"] == sum(after == before for before, after in pairwise(at))
    ends = np.cumsum([11, *(len(line) + 1 for line in text.splitlines())]).tolist()
    assert facts["unsorted_at"] == [ends[row] for row in range(1, len(at)) if at[row] < at[row - 1]]


def test_a_block_far_from_its_place_is_found_by_the_index_only(tmp_path: Path) -> None:
    at = [*range(500), *range(600, 3000), *range(500, 600), *range(3000, 4000)]
    path = write(tmp_path, lines(at))
    assert seconds(SortedCsv(path, tolerance=64), 450, 650) == [*range(450, 500), *range(600, 650)]
    assert seconds(indexed(path), 450, 650) == list(range(450, 650))


def test_only_what_was_added_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, lines(list(range(2000))))
    reads: list[int] = []

    def progress(done: int, total: int, note: str = "") -> None:
        assert (0 < done <= total, note) == (True, "indexing")
        reads.append(total)

    SortedCsv(path, index=path.with_suffix(".index"), progress=progress).index()
    size = path.stat().st_size
    assert reads[-1] == size - len("time,price\n")
    with path.open("a") as more:
        more.write(lines([2000, 2001], 2000))
    reads.clear()
    assert SortedCsv(path, index=path.with_suffix(".index"), progress=progress).index().rows == 2002
    assert 0 < max(reads) < 700
    reads.clear()
    assert SortedCsv(path, index=path.with_suffix(".index"), progress=progress).index().rows == 2002
    assert reads == []


@pytest.mark.parametrize("change", ["renamed over", "rewritten", "cut", "cut and grown"])
def test_another_file_under_the_name_gets_its_own_index(tmp_path: Path, change: str) -> None:
    path = write(tmp_path, lines(list(range(400))))
    file = indexed(path)
    assert file.index().rows == 400
    changed = "time,price\n" + lines([second + 7 for second in range(400 if change == "rewritten" else 300)])
    if change == "renamed over":
        other = tmp_path / "other.csv"
        other.write_text(changed)
        other.replace(path)
    else:
        path.write_text(changed + lines(list(range(1000, 1200)), 300) * (change == "cut and grown"))
        os.utime(path, ns=(1, 1))  # another time of change, however coarse the clock of the disk
    for each in (file, indexed(path)):
        assert seconds(each, 0, 10) == [7, 8, 9]


def test_a_torn_last_line_and_a_damaged_index_are_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, lines(list(range(100))) + "1723161355,1")
    found = indexed(path).read(START_NS, START_NS + 10**12, PRICES, decimals=0)
    assert (found.time_ns.size, found.unfinished_bytes) == (100, 12)
    path.with_suffix(".index").write_bytes(b"PAR1 nothing")
    assert seconds(indexed(path), 90, 200) == list(range(90, 100))


def test_the_row_carried_in_is_a_sound_one(tmp_path: Path) -> None:
    bad = "".join(f"{START_S + second},none\n" for second in range(10, 200))
    path = write(tmp_path, lines(list(range(10))) + bad + lines([200, 201]))
    found = indexed(path).read(START_NS + 200 * 10**9, START_NS + 300 * 10**9, PRICES, decimals=0, carry_in=True)
    assert (found.carried, found.columns["price"].tolist()) == (1, [9, 0, 1])


def test_lines_longer_than_a_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("time,price,note\n" + "".join(f"{START_S + i},{i},{'x' * 5000}\n" for i in range(20)))
    assert indexed(path).index().rows == 20
    assert seconds(indexed(path), 5, 8) == [5, 6, 7]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, lines([1, 2]))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        SortedCsv(path, index=tmp_path / "file" / "ticks.index").index()
