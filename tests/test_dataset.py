"""Datasets: what is written comes back, whatever the pieces; parts and listing; constant memory; damage."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.errors import InputError, NoDataError, SynthError
from synth_pipeline.generators import PIECE
from synth_pipeline.series import Series
from synth_pipeline.synthesis import dataset
from synth_pipeline.synthesis.dataset import Dataset, lazy_dataset, read_dataset, scan_dataset, write_dataset
from tests import sampled

SERIES = {"quotes": sampled.quotes(), "bars": sampled.bars(), "basket": sampled.basket()}
every_series = pytest.mark.parametrize("name", SERIES)


def assert_same(found: Series, expected: Series) -> None:
    """Every field, bit for bit."""
    assert found.values.tobytes() == expected.values.tobytes()
    np.testing.assert_array_equal(found.start_ns, expected.start_ns)
    for name in ("names", "step_ns", "tick_size", "lot_size", "assets"):
        assert getattr(found, name) == getattr(expected, name)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@every_series
def test_what_was_written_is_read_back(name: str, tmp_path: Path) -> None:
    series = SERIES[name]
    assert write_dataset(tmp_path / "made", sampled.pieces(series, (77,))) == series.paths * series.steps
    assert_same(read_dataset(tmp_path / "made"), series)
    assert_same(read_dataset(tmp_path / "made", most_paths=1), next(sampled.pieces(series))[1])
    assert_same(read_dataset(tmp_path / "made", most_paths=99), series)
    np.testing.assert_array_equal(sampled.joined(scan_dataset(tmp_path / "made")), series.values)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 64 rows and parts of 128, so that a small dataset has many."""
    monkeypatch.setattr(dataset, "ROW_GROUP", 64)
    monkeypatch.setattr(dataset, "PART_ROWS", 128)
    monkeypatch.setattr(dataset, "PIECE", 50)


@pytest.mark.usefixtures("small")
def test_parts_are_bounded_listed_and_sorted(tmp_path: Path) -> None:
    series = sampled.quotes(3, 201)
    write_dataset(tmp_path / "made", sampled.pieces(series), about={"seed": 7, "generator": "garch"})
    listing = json.loads((tmp_path / "made" / "dataset.json").read_text())
    assert (listing["paths"], listing["steps"], listing["about"]) == (3, 201, {"seed": 7, "generator": "garch"})
    assert [part["rows"] for part in listing["parts"]] == [128, 128, 128, 128, 91]
    assert listing["parts"][1] == {"file": "part-00001.parquet", "rows": 128, "first": [0, 128], "last": [1, 54]}
    assert listing["parts"][-1]["last"] == [2, 200]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "dataset.json",
        *(part["file"] for part in listing["parts"]),
    }
    rows = duckdb.sql(f"SELECT path, label_ns FROM '{tmp_path}/made/*.parquet'").fetchnumpy()
    np.testing.assert_array_equal(rows["path"], np.repeat(np.arange(3), 201))
    np.testing.assert_array_equal(rows["label_ns"], np.tile(sampled.START_NS + np.arange(201) * 500_000_000, 3))
    metadata = pq.read_schema(tmp_path / "made" / "part-00003.parquet").metadata
    assert (metadata[b"step_ns"], metadata[b"tick_size"]) == (b"500000000", b"0.1")
    assert json.loads(metadata[b"about"]) == listing["about"]


@pytest.mark.usefixtures("small")
@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(1, 150), max_size=4).map(tuple),
    paths=st.integers(1, 5),
    steps=st.sampled_from([1, 2, 63, 64, 65, 100, 128, 129]),
)
def test_bytes_and_pieces_do_not_depend_on_the_cuts(
    cuts: tuple[int, ...], paths: int, steps: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    series, folder = sampled.quotes(paths, steps), tmp_path_factory.mktemp("cuts")
    write_dataset(folder / "whole", sampled.pieces(series))
    write_dataset(folder / "cut", sampled.pieces(series, cuts))
    assert content(folder / "whole") == content(folder / "cut")
    assert_same(read_dataset(folder / "cut"), series)
    found = [(rows.path, rows.step, len(rows.values)) for rows in Dataset.open(folder / "cut").scan()]
    assert found == [(path, step, min(50, steps - step)) for path in range(paths) for step in range(0, steps, 50)]


def test_ten_thousand_short_paths(tmp_path: Path) -> None:
    series = sampled.quotes(10_000, 3)
    write_dataset(tmp_path / "made", sampled.pieces(series))
    assert_same(read_dataset(tmp_path / "made"), series)


def test_pieces_keep_to_the_length_that_generators_stream(tmp_path: Path) -> None:
    series = sampled.quotes(1, PIECE + 5)
    write_dataset(tmp_path / "made", sampled.pieces(series, (1_000,)))
    first, second = scan_dataset(tmp_path / "made")
    assert (first[1].steps, second[1].steps) == (PIECE, 5)
    assert second[1].start_ns[0] == sampled.START_NS + PIECE * 500_000_000


def test_labels_of_a_calendar_take_the_place_of_regular_ones(tmp_path: Path) -> None:
    series = sampled.bars(2, 20)

    def weekdays(steps: np.ndarray) -> np.ndarray:
        return sampled.START_NS + (steps // 5 * 7 + steps % 5) * sampled.DAY_NS

    write_dataset(tmp_path / "made", sampled.pieces(series, (7,)), labels=weekdays)
    labels = lazy_dataset(tmp_path / "made").select("label_ns").collect()["label_ns"].to_numpy()
    np.testing.assert_array_equal(labels, np.tile(weekdays(np.arange(20)), 2))
    assert read_dataset(tmp_path / "made").start_ns.tolist() == [sampled.START_NS] * 2


def test_a_query_sees_every_row_and_unknown_values_stay_unknown(tmp_path: Path) -> None:
    series = sampled.basket()
    series.values[1, 5:9, 4] = np.nan
    write_dataset(tmp_path / "made", sampled.pieces(series))
    found = (
        lazy_dataset(tmp_path / "made")
        .group_by("path")
        .agg(pl.col("ÆTH€:close").mean(), pl.len())
        .sort("path")
        .collect()
    )
    assert found["len"].to_list() == [300, 300]
    np.testing.assert_allclose(found["ÆTH€:close"], series.column("ÆTH€:close").mean(axis=1))
    assert_same(read_dataset(tmp_path / "made"), series)


def test_an_interruption_leaves_no_dataset(tmp_path: Path) -> None:
    def breaking() -> Iterator[tuple[int, Series]]:
        yield from sampled.pieces(sampled.quotes(1, 70_000))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "made", breaking())
    with pytest.raises(NoDataError, match=r"holds no dataset\.json"):
        read_dataset(tmp_path / "made")


def test_a_dataset_is_never_written_over(tmp_path: Path) -> None:
    write_dataset(tmp_path / "made", sampled.pieces(SERIES["bars"]))
    before = content(tmp_path / "made")
    with pytest.raises(InputError, match="holds a dataset already"):
        write_dataset(tmp_path / "made", sampled.pieces(SERIES["quotes"]))
    assert content(tmp_path / "made") == before


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([1], "path 0 has 0 steps"),
        ([0, 2], "came after path 0"),
        ([0, 1, 0], "came after path 1"),
        ([0, 0, 1], "path 1 has 400 steps, path 0 800"),
    ],
)
def test_pieces_out_of_order_are_refused(order: list[int], told: str, tmp_path: Path) -> None:
    given_pieces = dict(sampled.pieces(sampled.quotes(3)))
    with pytest.raises(SynthError, match=told):
        write_dataset(tmp_path / "made", ((path, given_pieces[path]) for path in order))


def test_pieces_of_another_kind_and_none_are_refused(tmp_path: Path) -> None:
    first = next(sampled.pieces(SERIES["quotes"]))[1]
    with pytest.raises(SynthError, match="expected one of"):
        write_dataset(tmp_path / "a", [(0, first), (1, replace(first, tick_size=1.0))])
    with pytest.raises(SynthError, match="has 2 paths"):
        write_dataset(tmp_path / "b", [(0, SERIES["quotes"])])
    with pytest.raises(NoDataError, match="ask for at least one"):
        write_dataset(tmp_path / "c", [])


def test_damage_is_named_with_its_remedy(tmp_path: Path) -> None:
    write_dataset(tmp_path / "made", sampled.pieces(SERIES["quotes"]))
    part, listing = tmp_path / "made" / "part-00000.parquet", tmp_path / "made" / "dataset.json"
    whole = part.read_bytes()
    part.write_bytes(whole[:-9])
    with pytest.raises(SynthError, match=r"part-00000\.parquet is missing or damaged .*sample it again"):
        read_dataset(tmp_path / "made")
    part.unlink()
    with pytest.raises(SynthError, match=r"part-00000\.parquet is missing or damaged"):
        read_dataset(tmp_path / "made")
    write_dataset(tmp_path / "other", sampled.pieces(SERIES["quotes"].slice(0, 10)))
    part.write_bytes((tmp_path / "other" / "part-00000.parquet").read_bytes())
    with pytest.raises(SynthError, match="20 rows, not 800"):
        read_dataset(tmp_path / "made")
    listing.write_text(listing.read_text()[:-40])
    with pytest.raises(SynthError, match=r"dataset\.json is damaged"):
        read_dataset(tmp_path / "made")


@pytest.mark.parametrize("paths", [0, -1, 3])
def test_only_the_paths_that_there_are_can_be_asked_for(paths: int, tmp_path: Path) -> None:
    write_dataset(tmp_path / "made", sampled.pieces(SERIES["quotes"]))
    with pytest.raises(InputError, match="ask for 1 to 2"):
        Dataset.open(tmp_path / "made").head(paths)


_STREAM = """
import sys
from pathlib import Path
import numpy as np
from synth_pipeline.synthesis.dataset import write_dataset, Dataset
from tests import sampled

one = sampled.quotes(1, 65_536)
rows = int(sys.argv[2])
# Values that do not repeat: the dictionary is of no help.
one.values[..., 3] = np.random.default_rng(0).random(one.values.shape[:2])
pieces = ((0, one) for _ in range(rows // 65_536))
write_dataset(Path(sys.argv[1]), pieces)
assert sum(len(each.values) for each in Dataset.open(Path(sys.argv[1])).scan()) == rows
sampled.print_peak()
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (10, 310):
        command = [sys.executable, "-c", _STREAM, str(tmp_path / str(rows)), str(rows * 65_536)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        peaks.append(int(done.stdout))
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 40
