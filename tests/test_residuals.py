"""What a network draws is mended in scale, given a state, and in law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from synth_pipeline.features.marginals import Marginal
from synth_pipeline.generators.residuals import Residuals, _log_scale
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray


def drawn(effect: FloatArray, rows: int, seed: int, heavy: float = np.inf) -> tuple[FloatArray, FloatArray]:
    """States and draws of two features whose log scale they move, of normal or of Student's law."""
    rng = stream(seed, "drawn")
    states = rng.standard_normal((rows, len(effect)))
    noise = rng.standard_normal((rows, 4, 2)) if np.isinf(heavy) else rng.standard_t(heavy, (rows, 4, 2))
    return states, noise * np.exp(states @ effect)[:, np.newaxis]


def test_slopes_are_those_of_a_general_purpose_minimiser() -> None:
    states, made = drawn(np.array([[0.3, 0.0], [-0.2, 0.0]]), 500, 0)
    squares = (made[..., 0] ** 2).mean(axis=1)

    def loss(beta: FloatArray) -> float:
        scale = beta[0] + states @ beta[1:]
        return float(4 * (scale + squares * np.exp(-scale)).sum() + 400 * (beta[1:] ** 2).sum() / 2)

    wanted = minimize(loss, np.zeros(3), tol=1e-12).x[1:]
    np.testing.assert_allclose(_log_scale(states, squares, 4), wanted, atol=1e-5)


def test_draws_get_the_scale_that_history_has_in_a_state() -> None:
    effect, wrong = np.array([[0.15, 0.0], [0.0, -0.15]]), np.array([[0.5, 0.0], [0.0, 0.1]])
    states, known = drawn(effect, 20_000, 0)
    made = drawn(np.zeros((2, 2)), 20_000, 1)[1] * np.exp(states @ wrong)[:, np.newaxis]
    fitted = Residuals.fit(known, made, states, [True, False])
    np.testing.assert_allclose(fitted.slopes, effect - wrong, atol=0.02)
    found = fitted(made, states)
    for at in range(2):
        wild = states[:, at] > 1
        ratio = [each[wild, :, at].std() / each[~wild, :, at].std() for each in (known, made, found)]
        assert abs(ratio[1] - ratio[0]) > 0.2
        assert ratio[2] == pytest.approx(ratio[0], abs=0.05)


def test_heavy_draws_get_the_normal_law() -> None:
    states, known = drawn(np.zeros((2, 2)), 20_000, 0)
    made = drawn(np.zeros((2, 2)), 20_000, 1, heavy=4.0)[1]
    fitted = Residuals.fit(known, made, states, [True, False])
    again = drawn(np.zeros((2, 2)), 20_000, 2, heavy=4.0)
    found = fitted(again[1], again[0])
    for at in range(2):
        assert stats.kstest(found[..., at].ravel(), "norm").statistic < 0.01
        assert stats.kurtosis(found[..., at].ravel()) == pytest.approx(0, abs=0.1)


def test_few_rows_mend_little_and_good_draws_are_left_alone() -> None:
    states, known = drawn(np.zeros((30, 2)), 100, 0)
    made = drawn(np.zeros((30, 2)), 100, 1)[1]
    factor = states @ Residuals.fit(known, made, states, [False, False]).slopes
    assert factor.std() < 0.15


def test_a_mirrored_draw_is_mended_to_the_mirror() -> None:
    states, known = drawn(np.zeros((3, 2)), 400, 0)
    made = drawn(np.zeros((3, 2)), 400, 1)[1]
    fitted = Residuals.fit(known, made, states, [True, False])
    np.testing.assert_allclose(fitted(-made, states)[..., 0], -fitted(made, states)[..., 0], atol=1e-12)


def test_the_map_survives_the_disk() -> None:
    states, known = drawn(np.zeros((3, 2)), 400, 0)
    fitted = Residuals.fit(known, known * 1.5, states, [True, False])
    again = Residuals(fitted.slopes, tuple(Marginal.from_arrays(law.arrays()) for law in fitted.laws))
    np.testing.assert_array_equal(again(known, states), fitted(known, states))
