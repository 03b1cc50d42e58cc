"""Fractional differences: known closed forms, scipy, exact inverses, no look-ahead, the smallest order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from scipy.special import gamma
from statsmodels.tsa.stattools import adfuller

from synth_pipeline.errors import InputError, TooLittleDataError, UnknownNameError
from synth_pipeline.features.fracdiff import difference, integrate, minimal_order, unit_root, weights, width_of
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray


def walk(count: int, seed: int = 0) -> FloatArray:
    return 100 + np.cumsum(stream(seed, "walk").standard_normal(count))


def naive_difference(values: FloatArray, d: float, width: int | None) -> list[float]:
    out = []
    for t in range(len(values)):
        if width is not None and t < width - 1:
            out.append(np.nan)
            continue
        weight, total = 1.0, 0.0
        for k in range(t + 1 if width is None else width):
            total += weight * values[t - k]
            weight *= -(d - k) / (k + 1)
        out.append(total)
    return out


@pytest.mark.parametrize("d", [-0.3, 0.2, 0.4, 0.9, 1.5])
def test_weights_equal_the_gamma_formula(d: float) -> None:
    k = np.arange(0, 60)
    np.testing.assert_allclose(weights(d, 60), gamma(k - d) / gamma(-d) / gamma(k + 1), rtol=1e-10)


def test_whole_orders_are_differences() -> None:
    values = walk(700)
    np.testing.assert_allclose(difference(values, 1.0)[1:], np.diff(values), atol=1e-12)
    np.testing.assert_allclose(difference(values, 2.0, 3)[2:], np.diff(values, 2), atol=1e-12)
    np.testing.assert_array_equal(difference(values, 0.0), values)


@pytest.mark.parametrize("width", [None, 1, 2, 40, 700, 900, 1200])
def test_equals_slow_twin_and_scipy(width: int | None) -> None:
    values = walk(1_100)
    found = difference(values, 0.4, width)
    np.testing.assert_allclose(found, naive_difference(values, 0.4, width), rtol=1e-10, atol=1e-10)
    oracle = fftconvolve(values, weights(0.4, width or len(values)))[: len(values)]
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], oracle[known], atol=1e-9)
    assert known.sum() == max(len(values) - (width or 1) + 1, 0)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200),
    st.floats(0.01, 1.0),
    st.one_of(st.none(), st.integers(1, 60)),
)
def test_the_inverse_gives_the_series_back(values: list[float], d: float, width: int | None) -> None:
    series = np.array(values)
    start = None if width is None else series[: width - 1]
    back = integrate(difference(series, d, width), d, width, start)
    np.testing.assert_allclose(back, series, rtol=0, atol=1e-12 * max(1.0, np.abs(series).max()) * len(values))


@pytest.mark.parametrize("width", [None, 800])
def test_rounding_does_not_grow_on_the_way_back(width: int | None) -> None:
    series = walk(20_000)
    start = None if width is None else series[: width - 1]
    back = integrate(difference(series, 0.4, width), 0.4, width, start)
    np.testing.assert_allclose(back, series, rtol=1e-12)


@pytest.mark.parametrize("width", [None, 1, 30, 700])
@pytest.mark.parametrize("cut", [1, 511, 512, 900])
def test_no_look_ahead_to_the_last_bit(width: int | None, cut: int) -> None:
    values = walk(1_500)
    other = np.concatenate((values[:cut], 7 * walk(600, 4)))
    np.testing.assert_array_equal(difference(other, 0.35, width)[:cut], difference(values, 0.35, width)[:cut])


def test_pieces_with_a_width_of_history_equal_one_pass() -> None:
    values, width = walk(3_000), 100
    whole = difference(values, 0.4, width)
    piece = difference(values[1_000 - width + 1 : 2_000], 0.4, width)[width - 1 :]
    np.testing.assert_array_equal(piece, whole[1_000:2_000])


def test_width_is_where_the_weights_fade() -> None:
    width = width_of(0.4, 1e-4)
    sizes = np.abs(weights(0.4, 2 * width))
    assert (sizes[width:] < 1e-4).all()
    assert sizes[width - 1] >= 1e-4


# --- the smallest order


def test_statsmodels_is_asked_for_the_statistic() -> None:
    values = difference(walk(800), 0.5, 50)[49:]
    oracle = adfuller(values, result_object=True)
    found = unit_root(values)
    assert (found.statistic, found.critical) == (oracle.statistic, oracle.critical_values["5%"])
    assert found.is_stationary


def test_a_random_walk_needs_some_differencing_and_white_noise_none() -> None:
    d = minimal_order(walk(3_000))
    assert 0.05 < d < 0.8
    assert minimal_order(stream(1, "noise").standard_normal(500)) == 0.0


def test_the_smallest_order_passes_and_a_smaller_one_fails() -> None:
    values, width = walk(2_000, 3), 100
    d = minimal_order(values, width=width, tolerance=0.02)
    passed, failed = (unit_root(difference(values, order, width)[width - 1 :]) for order in (d, d - 0.04))
    assert passed.is_stationary
    assert not failed.is_stationary


def test_memory_is_kept() -> None:
    values, width = walk(3_000), 200
    d = minimal_order(values, width=width)
    kept = difference(values, d, width)[width - 1 :]
    assert abs(np.corrcoef(kept, values[width - 1 :])[0, 1]) > abs(np.corrcoef(np.diff(values), values[1:])[0, 1]) + 0.3


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: difference(np.array([1.0, np.nan]), 0.4), InputError, "1 values that are not finite"),
        (lambda: difference(np.ones((2, 2)), 0.4), InputError, "shape \\(2, 2\\)"),
        (lambda: weights(0.4, 0), InputError, "width 0"),
        (lambda: difference(walk(9), 0.4, 0), InputError, "width 0"),
        (lambda: integrate(walk(9), 0.4, 0), InputError, "width 0"),
        (lambda: difference(walk(9), math.nan), InputError, "order nan"),
        (lambda: unit_root(np.ones(100)), InputError, "rests at 1"),
        (lambda: unit_root(walk(100), "7%"), UnknownNameError, "unknown level '7%'"),
        (lambda: minimal_order(walk(100), tolerance=0.0), InputError, "tolerance of 0.0"),
        (lambda: integrate(np.ones(9), 0.4, 4), InputError, "starts from 3 values: got 0"),
        (lambda: minimal_order(walk(20)), TooLittleDataError, "20 values"),
        (lambda: minimal_order(walk(100), width=80), TooLittleDataError, "160 values are needed"),
        (lambda: minimal_order(np.full(100, 5.0)), InputError, "rests at 5"),
        (lambda: minimal_order(np.cumsum(np.cumsum(walk(400)))), InputError, "after a whole difference"),
    ],
)
def test_wrong_input_is_named(wrong: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong()
