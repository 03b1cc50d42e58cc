"""Decimal strings become exact integers or are refused; the grid is found in spite of a corrupt minority."""

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.ticks.decimals import Steps, as_decimal, infer_grid, to_integers
from tests import naive_ticks


@given(
    st.lists(st.decimals(min_value=0, max_value=90_000_000_000, places=8).map(lambda value: f"{value:f}"), max_size=20)
)
def test_every_plain_decimal_is_exact(texts: list[str]) -> None:
    values, valid = to_integers(texts)
    assert valid.all()
    assert [Decimal(int(value)).scaleb(-8) for value in values] == [Decimal(text) for text in texts]


def test_what_is_no_plain_decimal_is_marked_and_zero() -> None:
    texts = ["1.5", "", "-1", "1e3", "NaN", "1.2.3", ".", "0x10", "1,5", " 1", "1.", ".5", "00.50"]
    values, valid = to_integers(texts)
    expected = {"1.5": 150_000_000, "1.": 100_000_000, ".5": 50_000_000, "00.50": 50_000_000}
    assert {text: int(value) for text, value, fits in zip(texts, values, valid, strict=True) if fits} == expected
    assert (values[~valid] == 0).all()


def test_digits_beyond_the_scale_are_an_error_and_zeros_are_not() -> None:
    values, valid = to_integers(["0.123456780", "0.1234567800000", "0.123456789"])
    assert valid.tolist() == [True, True, False]
    assert values[0] == values[1] == 12_345_678


def test_overflow_is_refused_not_wrapped() -> None:
    values, valid = to_integers(["92233720368.54775807", "92233720368.54775808", "99999999999999999999"])
    assert valid.tolist() == [True, False, False]
    assert values[0] == 2**63 - 1


def test_grid_is_the_coarsest_step_of_the_majority() -> None:
    prices = np.arange(1, 5001, dtype=np.int64) * 10_000_000  # 0.1
    assert infer_grid(prices, 0.999) == 10_000_000
    corrupt = np.append(prices, [12_345_678, 1])
    assert infer_grid(corrupt, 0.999) == 10_000_000
    assert infer_grid(corrupt, 1.0) == 1


def test_grid_knows_ticks_of_two_and_five() -> None:
    assert infer_grid(np.arange(1, 3000, dtype=np.int64) * 50, 0.999) == 50
    assert infer_grid(np.arange(1, 3000, dtype=np.int64) * 25, 0.999) == 5
    assert infer_grid(np.zeros(3, dtype=np.int64), 0.999) == 1


values = st.lists(
    st.integers(-5, 2**63 - 1) | st.integers(0, 999).flatmap(lambda v: st.integers(0, 15).map(lambda k: v * 10**k)),
    max_size=30,
)


@given(st.lists(values, max_size=4), st.sampled_from([1.0, 0.999, 0.5]))
def test_counting_last_digits_piece_by_piece_finds_the_same_grid(parts: list[list[int]], majority: float) -> None:
    steps = Steps()
    for part in parts:
        steps.add(np.array(part, dtype=np.int64))
    every = [value for part in parts for value in part]
    assert steps.coarsest(majority) == naive_ticks.coarsest_step(every, majority)
    assert infer_grid(np.array(every, dtype=np.int64), majority) == steps.coarsest(majority)


@given(st.integers(0, 2**62))
def test_as_decimal_is_exact(units: int) -> None:
    assert as_decimal(units) * 10**8 == units
