"""Series of several assets: joining and splitting are exact inverses, and what cannot be joined is told in one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.errors import InputError
from synth_pipeline.features.windows import segments, split
from synth_pipeline.rng import stream
from synth_pipeline.series import Asset, Series

HOUR = 3600 * 10**9


def part(
    steps: int = 6, *, first: int = 0, names: tuple[str, ...] = ("close", "volume"), paths: int = 1, tick: float = 0.5
) -> Series:
    """A series of one market whose values tell their path, label and column."""
    at = first + np.arange(steps)
    values = np.stack(
        [np.stack([1000 * (p + 1) + at + column / 10 for p in range(paths)]) for column in range(len(names))]
    )
    start = np.full(paths, first * HOUR)
    return Series(np.moveaxis(values, 0, 2), names, HOUR, start, tick, 0.001)


def assert_same(first: Series, second: Series) -> None:
    """Equal in every field, NaN where NaN."""
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.start_ns, second.start_ns)
    for field in ("names", "step_ns", "tick_size", "lot_size", "assets"):
        assert getattr(first, field) == getattr(second, field), field


def test_parts_stand_side_by_side_with_grids_of_their_own() -> None:
    joined = Series.joined({"BTCUSDT": part(tick=0.1), "ETHUSDT": part(names=("close",), tick=0.01)})
    assert joined.names == ("BTCUSDT:close", "BTCUSDT:volume", "ETHUSDT:close")
    assert joined.assets == (Asset("BTCUSDT", 0.1, 0.001), Asset("ETHUSDT", 0.01, 0.001))
    assert (joined.tick_size, joined.lot_size) == (0.0, 0.0)
    np.testing.assert_array_equal(joined.column("ETHUSDT:close"), part().column("close"))


@given(
    starts=st.lists(st.integers(-5, 5), min_size=1, max_size=4),
    gaps=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 19), st.booleans())),
    paths=st.integers(1, 3),
)
def test_joining_keeps_the_common_labels_and_splitting_gives_each_part_back(
    starts: list[int], gaps: set[tuple[int, int, bool]], paths: int
) -> None:
    parts = {f"A{at}": part(20, first=first, paths=paths) for at, first in enumerate(starts)}
    for asset, row, whole in gaps:
        if asset < len(starts):
            parts[f"A{asset}"].values[:, row, 0 if whole else 1 :] = np.nan
    joined = Series.joined(parts)
    first, steps = max(starts), 20 + min(starts) - max(starts)
    assert joined.start_ns.tolist() == [first * HOUR] * paths
    assert joined.steps == steps
    for name, begun in zip(parts, starts, strict=True):
        assert_same(joined.parts()[name], parts[name].slice(first - begun, first - begun + steps))
    assert_same(Series.joined(joined.parts()), joined)


def test_paths_that_start_at_different_times_are_joined_path_by_path() -> None:
    early, late = part(5, paths=2), part(5, paths=2)
    early, late = (replace(each, start_ns=np.array(s) * HOUR) for each, s in ((early, [0, 10]), (late, [2, 12])))
    joined = Series.joined({"A": early, "B": late})
    assert joined.start_ns.tolist() == [2 * HOUR, 12 * HOUR]
    np.testing.assert_array_equal(joined.column("A:close"), early.column("close")[:, 2:])
    np.testing.assert_array_equal(joined.column("B:close"), late.column("close")[:, :3])


def test_a_row_that_one_asset_lacks_is_a_gap_of_the_whole_and_stays_known_in_the_others() -> None:
    gappy = part()
    gappy.values[0, 3] = np.nan
    joined = Series.joined({"A": gappy, "B": part()})
    assert segments(joined) == [(0, 0, 3), (0, 4, 6)]
    assert np.isfinite(joined.parts()["B"].values).all()


def test_cutting_in_time_and_choosing_columns_keep_the_assets() -> None:
    joined = Series.joined({"A": part(), "B": part(tick=0.25)})
    train, held = split(joined, 0.5)
    assert train.assets == held.assets == joined.assets
    assert_same(held.parts()["B"], part(tick=0.25).slice(3, 6))
    chosen = joined.select(("B:close", "A:volume"))
    assert chosen.assets == (joined.assets[1], joined.assets[0])
    assert joined.select(("B:volume",)).assets == (joined.assets[1],)
    assert part().select(("volume",)).assets == ()


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({}, "nothing to join: name at least one asset"),
        ({"A": part(), "B": replace(part(), step_ns=HOUR // 2)}, "A, B have steps of 1800 s and 3600 s: bring them"),
        ({"A": part(), "B": replace(part(), start_ns=np.array([1]))}, "A, B lie on grids that are shifted"),
        ({"A": part(), "B": part(first=6)}, "A, B have no label in common"),
        ({"A": part(), "B": part(paths=2)}, "A, B have 1 and 2 paths: join series of equally many"),
        (
            {"A": part(paths=2), "B": replace(part(paths=2), start_ns=np.array([0, HOUR]))},
            "A, B overlap for 5 to 6 steps: make all paths equally long",
        ),
        ({"A": part(), "B": Series.joined({"C": part()})}, "one of A, B is itself of several assets"),
        ({"A:B": part()}, "asset 'A:B' cannot name columns"),
        ({"": part()}, "asset '' cannot name columns"),
    ],
)
def test_what_cannot_be_joined_is_told(parts: dict[str, Series], told: str) -> None:
    with pytest.raises(InputError, match=told) as raised:
        Series.joined(parts)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"names": ("A:close", "B:close", "A:volume", "B:volume")},
            "columns are of A, B, A, B and the assets are A, B",
        ),
        ({"assets": (Asset("A", 1, 1),)}, "columns are of A, B and the assets are A"),
        ({"assets": (Asset("B", 1, 1), Asset("A", 1, 1))}, "columns are of A, B and the assets are B, A"),
        ({"names": ("A:close", "A:volume", "B:close", "volume")}, "column 'volume' of a series of A, B is of none"),
        ({"tick_size": 0.5}, "has tick size 0.5 and lot size 0: leave both 0"),
    ],
)
def test_columns_and_assets_must_agree(changes: dict[str, object], told: str) -> None:
    joined = Series.joined({"A": part(), "B": part()})
    with pytest.raises(InputError, match=told):
        replace(joined, **changes)  # type: ignore[arg-type]


def test_several_assets_have_no_one_price_and_one_market_no_parts() -> None:
    joined = Series.joined({"A": part(), "B": part()})
    with pytest.raises(InputError, match=r"a series of 2 assets \(A, B\) has no one price: take one asset, or a gen"):
        joined.log_returns()
    with pytest.raises(InputError, match="a series of one market has no parts: join several first"):
        part().parts()


def test_joining_leaves_its_parts_alone() -> None:
    parts = {"A": part(), "B": part(first=2)}
    joined = Series.joined(parts)
    joined.values[:] = stream(0, "noise").standard_normal(joined.values.shape)
    np.testing.assert_array_equal(parts["A"].values, part().values)
