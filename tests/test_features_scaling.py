"""Scalers: scikit-learn and pandas as oracles, inverses, nothing known of the future."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.features.scaling import Kind, PastScaler, Scaler
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

KINDS: dict[Kind, Any] = {"standard": StandardScaler, "robust": RobustScaler, "min_max": MinMaxScaler}
numbers = arrays.arrays(np.float64, st.tuples(st.integers(2, 40), st.integers(1, 3)), elements=st.floats(-1e9, 1e9))


def market(rows: int, seed: int = 0) -> FloatArray:
    noise = stream(seed, "scaling").standard_normal((rows, 3))
    return np.stack((60_000 + np.cumsum(noise[:, 0]), np.abs(noise[:, 1]), noise[:, 2] * 1e-6), axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learn_agrees(kind: Kind) -> None:
    training, held_out = market(500), market(100, seed=1)
    oracle = KINDS[kind]().fit(training)
    scaler = Scaler.fit(training, kind)
    np.testing.assert_allclose(scaler.apply(held_out), oracle.transform(held_out), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_is_left_out(kind: Kind) -> None:
    training = market(300)
    gap = training.copy()
    gap[100:120] = np.nan
    expected = Scaler.fit(np.delete(training, slice(100, 120), axis=0), kind)
    found = Scaler.fit(gap, kind)
    np.testing.assert_allclose(found.centre, expected.centre, rtol=1e-14)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-12)
    assert np.isnan(found.apply(gap)[100:120]).all()


@given(numbers, st.sampled_from(list(KINDS)))
def test_the_inverse_is_exact_to_rounding(values: FloatArray, kind: Kind) -> None:
    scaler = Scaler.fit(values, kind)
    back = scaler.invert(scaler.apply(values))
    np.testing.assert_array_less(
        np.abs(back - values), 4 * np.finfo(float).eps * (np.abs(values) + np.abs(scaler.centre)) + 1e-300
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_resting_feature_is_centred(kind: Kind) -> None:
    values = np.full((100, 1), 0.1)
    scaler = Scaler.fit(values, kind)
    assert scaler.scale.tolist() == [1.0]
    np.testing.assert_allclose(scaler.apply(values), 0, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_state_survives_on_disk(kind: Kind, tmp_path: Path) -> None:
    scaler, values = Scaler.fit(market(50), kind), market(20, seed=2)
    scaler.save(tmp_path / "scaler.json")
    np.testing.assert_array_equal(Scaler.load(tmp_path / "scaler.json").apply(values), scaler.apply(values))
    past = PastScaler(20, minimum=3)
    past.save(tmp_path / "past.json")
    assert PastScaler.load(tmp_path / "past.json") == past


# --- nothing but the past


@pytest.mark.parametrize("scaler", [PastScaler(30), PastScaler(None), PastScaler(None, minimum=25)])
def test_pandas_agrees(scaler: PastScaler) -> None:
    values = market(400)
    frame = pd.DataFrame(values).shift()
    window = frame.expanding(scaler.minimum) if scaler.length is None else frame.rolling(scaler.length)
    found = scaler.apply(values)
    np.testing.assert_allclose(found.centre, window.mean(), rtol=1e-12, atol=1e-20)
    np.testing.assert_allclose(found.scale[3:], window.std(ddof=0)[3:], rtol=1e-5)
    np.testing.assert_array_equal(found.values, (values - found.centre) / found.scale)


@pytest.mark.parametrize("scaler", [PastScaler(30), PastScaler(None)])
@pytest.mark.parametrize("now", [1, 30, 31, 170])
def test_another_future_changes_nothing_known_now(scaler: PastScaler, now: int) -> None:
    values = market(200)
    shifted = values.copy()
    shifted[now:] = 100 * market(200, seed=5)[now:]
    before, after = scaler.apply(values), scaler.apply(shifted)
    np.testing.assert_array_equal(after.values[:now], before.values[:now])
    np.testing.assert_array_equal(after.centre[: now + 1], before.centre[: now + 1])
    np.testing.assert_array_equal(after.scale[: now + 1], before.scale[: now + 1])


def test_a_fitted_scaler_has_not_seen_what_is_held_out() -> None:
    values = market(200)
    shifted = np.concatenate((values[:150], values[150:] + 1e6))
    np.testing.assert_array_equal(Scaler.fit(shifted[:150]).apply(values), Scaler.fit(values[:150]).apply(values))


def test_pieces_with_a_window_of_history_equal_one_pass() -> None:
    values, scaler = market(300), PastScaler(40)
    whole, piece = scaler.apply(values).values, scaler.apply(values[100 - 40 : 200]).values
    np.testing.assert_array_equal(piece[40:], whole[100:200])


def test_a_gap_empties_a_window_and_is_left_out_of_all_the_past() -> None:
    values = market(100)
    values[50] = np.nan
    rolling, expanding = PastScaler(10).apply(values).values, PastScaler(None).apply(values).values
    assert np.isnan(rolling[50:61]).all()
    assert np.isfinite(rolling[61:]).all()
    assert np.flatnonzero(np.isnan(expanding).any(axis=1)).tolist() == [0, 1, 50]


@given(numbers, st.one_of(st.none(), st.integers(2, 8)))
def test_a_path_is_rebuilt_from_its_past(values: FloatArray, length: int | None) -> None:
    # A spread that the rounding of a rebuilt row would swallow tells no scale.
    values = np.round(values, 6)
    scaler = PastScaler(length)
    first = scaler.minimum if length is None else length
    if len(values) <= first:
        return
    scaled = scaler.apply(values)
    back = scaler.invert(scaled.values[first:], values[:first])
    # Each row is scaled by the rows rebuilt before it, whose rounding it inherits, times its distance in scales.
    growth = np.prod(1 + np.abs(scaled.values[first:]))
    if growth < 1e4:
        np.testing.assert_allclose(back, values[first:], rtol=0, atol=1e-10 * growth * max(np.abs(values).max(), 1e-3))


def test_a_long_path_is_rebuilt_closely() -> None:
    values, scaler = market(5_000), PastScaler(100)
    back = scaler.invert(scaler.apply(values).values[100:], values[:100])
    np.testing.assert_allclose(back, values[100:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: Scaler.fit(np.ones((3, 1)), "log"), InputError, "no scaler 'log'"),  # type: ignore[arg-type]
        (lambda: Scaler.fit(np.array([[1.0, np.nan]])), TooLittleDataError, "feature 1 has no value"),
        (lambda: Scaler.fit(np.array([[1.0, np.inf]])), InputError, "feature 1 has an infinite value"),
        (lambda: PastScaler(5).apply(np.ones(9)), InputError, "shape \\(9,\\)"),
        (lambda: PastScaler(1), InputError, "over 1 rows, at least 2"),
        (lambda: PastScaler(5).invert(np.ones((3, 1)), np.ones((4, 1))), TooLittleDataError, "history of 4 rows"),
    ],
)
def test_wrong_input_is_named(wrong: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong()
