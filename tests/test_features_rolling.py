"""Rolling features against their slow twin, pandas and statsmodels; tiling, gaps, no look-ahead."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.rolling import RollingOLS

from synth_pipeline.errors import InputError
from synth_pipeline.features.rolling import FEATURES, rolling_features, rolling_sum
from synth_pipeline.rng import stream
from tests import naive_features

STEP = 10**9
NAMES = tuple(FEATURES)
Columns = dict[str, np.ndarray]


def grid_rows(count: int, seed: int = 0, *, losses: float = 0.0, gaps: float = 0.0) -> list[dict[str, Any]]:
    """Rows as the grid has them; some hidden by a loss, some missing."""
    rng = stream(seed, "rolling", count)
    rows, mid = [], 100.0
    for label in range(1, count + 1):
        if rng.random() < gaps:
            continue
        mid += 0.5 * int(rng.integers(-2, 3))
        lost = rng.random() < losses
        sizes = [0.001 * int(rng.integers(1, 50)) for _ in range(int(rng.integers(0, 4)))]
        signs = rng.choice([-1, 1], len(sizes)).tolist()
        volume = sum(sizes)
        arrivals = {key: np.sort(rng.integers(0, STEP, int(rng.integers(0, 4)))) / STEP for key in ("quote", "trade")}
        row: dict[str, Any] = {
            "label_ns": label * STEP,
            "mid": mid,
            "ofi": float(rng.integers(-5, 6)),
            "volume": volume,
            "signed_volume": sum(size * sign for size, sign in zip(sizes, signs, strict=True)),
            "vwap": mid + 0.25 if sizes else np.nan,
            "last_price": mid + 0.5 * int(rng.choice([-1, 1])) if sizes else np.nan,
            "depth_removed": 0.01 * int(rng.integers(0, 9)),
            **{f"ofi_{level}": float(rng.integers(-5, 6)) for level in range(1, 6)},
        }
        for key, at in arrivals.items():
            row |= {
                f"{key}_arrivals": at.tolist(),
                f"{key}_count": float(len(at)),
                f"{key}_first": at[0] if len(at) else np.nan,
                f"{key}_last": at[-1] if len(at) else np.nan,
                f"{key}_interval_squares": float((np.diff(at) ** 2).sum()),
            }
        if lost:
            hidden = rng.choice(["mid", "ofi", "volume", "quote_count", "trade_count", "depth_removed", "ofi_3"])
            row |= dict.fromkeys((hidden, "signed_volume") if hidden == "volume" else (hidden,), np.nan)
        rows.append(row)
    return rows


def columns_of(rows: list[dict[str, Any]]) -> Columns:
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if not name.endswith("arrivals")}


def features(columns: Columns, length: int, **options: Any) -> Columns:
    given = {"names": NAMES, "step_ns": STEP} | options
    return rolling_features(columns, given.pop("names"), length=length, **given)


@pytest.mark.parametrize(
    ("length", "losses", "gaps"), [(2, 0.1, 0.1), (7, 0.03, 0.02), (20, 0.0, 0.0), (20, 0.01, 0.01)]
)
def test_equals_slow_twin(length: int, losses: float, gaps: float) -> None:
    rows = grid_rows(160, seed=length, losses=losses, gaps=gaps)
    found = features(columns_of(rows), length)
    for name in NAMES:
        expected = naive_features.rolling_feature(name, rows, length, STEP)
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)
        assert length == 2 or np.isfinite(found[name]).any(), name


# --- laws


@given(st.integers(0, 40), st.integers(2, 13), st.lists(st.integers(1, 119), max_size=5).map(sorted))
def test_pieces_with_the_tail_of_the_piece_before_equal_one_pass(seed: int, length: int, cuts: list[int]) -> None:
    columns = columns_of(grid_rows(120, seed=seed % 4, losses=0.02))
    whole = features(columns, length)
    for start, stop in pairwise([0, *cuts, 120]):
        tail = max(start - length, 0)  # a window, and the mid before it
        piece = features({name: column[tail:stop] for name, column in columns.items()}, length)
        for name in NAMES:
            np.testing.assert_array_equal(piece[name][start - tail :], whole[name][start:stop], err_msg=name)


@pytest.mark.parametrize("cut", [5, 40, 77])
def test_no_look_ahead(cut: int) -> None:
    past, future = columns_of(grid_rows(120)), columns_of(grid_rows(120, seed=9))
    changed = {name: np.concatenate([past[name][:cut], 3 * future[name][cut:]]) for name in past}
    changed["label_ns"] = past["label_ns"]
    before, after = features(past, 6), features(changed, 6)
    for name in NAMES:
        np.testing.assert_array_equal(after[name][:cut], before[name][:cut], err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_a_window_that_touches_a_loss_is_nan_until_it_is_clean(name: str) -> None:
    columns = columns_of(grid_rows(60, seed=3))
    hidden = {key: values.copy() for key, values in columns.items()}
    for key in hidden.keys() - {"label_ns"}:
        hidden[key][30] = np.nan
    clean, found = features(columns, 5)[name], features(hidden, 5)[name]
    length = 6 if name in ("return_variance", "bipower_variance", "jump_share", "kyle_lambda", "amihud") else 5
    assert np.isnan(found[30 : 30 + length]).all()
    np.testing.assert_array_equal(found[30 + length :], clean[30 + length :])
    np.testing.assert_array_equal(found[:30], clean[:30])


def test_a_gap_within_a_bucket_is_not_bridged_by_the_mids_around_it() -> None:
    columns = columns_of(grid_rows(30, seed=1))
    columns["ofi"][10] = np.nan  # the mid is known again at the end of the bucket
    assert np.isnan(features(columns, 3, names=("return_variance",))["return_variance"][10:13]).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 9), st.integers(-50, 50))
def test_rolling_sum_is_the_sum(values: list[float], length: int, first: int) -> None:
    found = rolling_sum(np.array(values), length, first)
    for end in range(len(values)):
        window = values[end - length + 1 : end + 1]
        if end + 1 < length:
            assert np.isnan(found[end])
        else:
            assert found[end] == pytest.approx(sum(window), rel=1e-12, abs=1e-6)


def test_rolling_sum_forgets_a_huge_value_that_has_left() -> None:
    assert rolling_sum(np.array([1e300, 1.0, 2.0, 3.0, 4.0]), 2).tolist()[2:] == [3.0, 5.0, 7.0]


# --- oracles


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.DataFrame(columns_of(grid_rows(2_000, seed=5)))


def found(frame: pd.DataFrame, name: str, length: int) -> np.ndarray:
    columns = {key: frame[key].to_numpy() for key in frame}
    return features(columns, length, names=(name,))[name]


def test_statsmodels_agrees_on_kyle_lambda(rows: pd.DataFrame) -> None:
    design = sm.add_constant(rows["signed_volume"])[1:]
    oracle = RollingOLS(rows["mid"].diff()[1:], design, window=30).fit().params["signed_volume"]
    np.testing.assert_allclose(found(rows, "kyle_lambda", 30)[1:], oracle, rtol=1e-8, atol=1e-8)


def test_pandas_agrees_on_sums(rows: pd.DataFrame) -> None:
    r = np.log(rows["mid"]).diff()
    amihud = (
        (r.abs() / (rows["vwap"] * rows["volume"])).rolling(40, min_periods=1).mean().where(r.rolling(40).count() == 40)
    )
    oracles = {
        "return_variance": (r**2).rolling(40).sum(),
        "bipower_variance": np.pi / 2 * 40 / 39 * (r.abs() * r.abs().shift()).rolling(39).sum(),
        "trade_imbalance": rows["signed_volume"].rolling(40).sum() / rows["volume"].rolling(40).sum(),
        "integrated_ofi": rows[[f"ofi_{level}" for level in range(1, 6)]].sum(axis=1).rolling(40).sum(),
        "amihud": amihud,
    }
    for name, oracle in oracles.items():
        skipped = (
            41 if name == "bipower_variance" else 0
        )  # pandas' window of products reaches no further back than ours
        np.testing.assert_allclose(
            found(rows, name, 40)[skipped:], oracle[skipped:], rtol=1e-9, atol=1e-12, err_msg=name
        )


def test_pandas_agrees_on_the_covariance_of_roll(rows: pd.DataFrame) -> None:
    traded = rows[rows["last_price"].notna()].reset_index(drop=True)
    labels = (np.arange(len(traded)) + 1) * STEP
    change = traded["last_price"].diff()
    covariance = change.rolling(28).cov(change.shift())
    oracle = 2 * np.sqrt(-covariance.where(covariance <= 0))
    roll = found(traded.assign(label_ns=labels), "roll_spread", 30)
    is_clear = (covariance.abs() > 1e-9).to_numpy()  # nearer to 0, rounding decides on which side of it
    np.testing.assert_allclose(roll[is_clear], oracle[is_clear], rtol=1e-9)


# --- by hand


def test_roll_recovers_the_spread_of_a_bouncing_price() -> None:
    sides = stream(2, "bounce").choice([-1.0, 1.0], 20_000)
    columns = columns_of(grid_rows(1)) | {
        "label_ns": (np.arange(20_000) + 1) * STEP,
        "last_price": 100 + 0.25 * sides,
        "volume": np.ones(20_000),
    }
    assert features(columns, 19_999, names=("roll_spread",))["roll_spread"][-1] == pytest.approx(0.5, rel=0.02)


def test_poisson_arrivals_have_a_coefficient_of_variation_of_one() -> None:
    at = np.cumsum(stream(3, "poisson").exponential(0.1, 40_000))
    numbers = at.astype(int)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = np.append(starts[1:], len(at))
    columns = {
        "label_ns": (numbers[starts] + 1) * STEP,
        "quote_count": (ends - starts).astype(float),
        "quote_first": at[starts] % 1,
        "quote_last": at[ends - 1] % 1,
        "quote_interval_squares": np.array([(np.diff(at[a:b]) ** 2).sum() for a, b in zip(starts, ends, strict=True)]),
    }
    row = features(columns, 3000, names=("quote_interval", "quote_interval_cv"))
    known = np.isfinite(row["quote_interval"])
    assert known.any()
    np.testing.assert_allclose(row["quote_interval"][known], 0.1, rtol=0.03)
    np.testing.assert_allclose(row["quote_interval_cv"][known], 1.0, rtol=0.03)


def test_value_traded_may_be_given() -> None:
    columns = columns_of(grid_rows(30))
    linear = features(columns, 5, names=("amihud",))["amihud"]
    doubled = features(columns, 5, names=("amihud",), value=2 * columns["vwap"] * columns["volume"])["amihud"]
    np.testing.assert_allclose(doubled, linear / 2, rtol=1e-14)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"length": 1}, "a window of 1 rows is too short"),
        ({"step_ns": 0}, "a grid of 0 ns has no rows"),
        ({"names": ("vpin",)}, "no rolling feature 'vpin'"),
        ({"label_ns": [3, 2]}, "does not ascend"),
        ({"label_ns": [STEP, STEP + 1]}, "does not ascend"),
    ],
)
def test_wrong_input_is_named(wrong: dict[str, Any], words: str) -> None:
    columns = columns_of(grid_rows(2)) | {"label_ns": np.array(wrong.get("label_ns", [STEP, 2 * STEP]))}
    with pytest.raises(InputError, match=words):
        features(columns, wrong.get("length", 2), names=wrong.get("names", NAMES), step_ns=wrong.get("step_ns", STEP))


def test_no_rows_have_no_features() -> None:
    empty = {name: column[:0] for name, column in columns_of(grid_rows(2)).items()}
    assert {len(column) for column in features(empty, 3).values()} == {0}
