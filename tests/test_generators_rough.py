"""Rough volatility: its kernel, its samples and its fit against closed forms and integrals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from synth_pipeline.errors import TooLittleDataError
from synth_pipeline.generators import rough_volatility
from synth_pipeline.generators.inference import free_of
from synth_pipeline.generators.rough_volatility import RoughVolatility
from synth_pipeline.rng import stream
from tests.test_generators_volatility import ROUGH, as_returns, as_series, assert_recovered, with_law


def test_what_lies_beyond_the_kernel_is_the_share_that_is_told() -> None:
    for hurst, reversion in ((0.1, 0.02), (0.9, 0.02), (0.3, 1e-5)):
        weights, norm = rough_volatility.kernel_of(hurst, reversion)
        length = len(weights)
        told = special.gammaincc(2 * hurst, 2 * reversion * length)
        exact = special.gamma(2 * hurst) / (2 * reversion) ** (2 * hurst)
        assert told < 7e-5 or reversion < 4.6e-5
        # The first cell of the sum is close, not exact: its weight is the kernel's at half a step.
        assert norm**2 / exact == pytest.approx(1 - told, abs=0.02)


@given(hurst=st.floats(0.05, 0.45), lag=st.floats(0.5, 80.0))
@settings(max_examples=20)
def test_the_autocorrelation_is_that_of_the_gamma_kernel(hurst: float, lag: float) -> None:
    def kernel(x: float) -> float:
        return float(x ** (hurst - 0.5) * np.exp(-0.05 * x))

    # u = x^{H + 1/2} takes the singularity away.
    power = 1 / (hurst + 0.5)

    def product(u: float) -> float:
        x = u**power
        return kernel(x + lag) * float(np.exp(-0.05 * x)) * power

    norm = special.gamma(2 * hurst) / 0.1 ** (2 * hurst)
    exact = integrate.quad(product, 0, 400 ** (1 / power), limit=400)[0] / norm
    assert rough_volatility.matern(np.array([lag]), hurst, 0.05)[0] == pytest.approx(exact, rel=1e-3)


def test_simulated_log_variance_has_the_autocorrelation_and_roughness_of_the_law() -> None:
    still = with_law(RoughVolatility, ROUGH._replace(leverage=0.0))
    logs = np.concatenate([np.log(np.maximum(still.draw(stream(0, "r", k), 40_000) ** 2, 1e-30)) for k in range(4)])
    # The logarithm of a squared normal adds π²/2 of white noise.
    assert logs.var() - np.pi**2 / 2 == pytest.approx(0.8**2, rel=0.15)
    for lag in (1, 10, 50):
        found = float(np.mean((logs[lag:] - logs.mean()) * (logs[:-lag] - logs.mean())))
        exact = 0.64 * rough_volatility.matern(np.array([float(lag)]), 0.15, 0.02)[0]
        assert found == pytest.approx(exact, abs=0.05)


def test_variance_is_known_before_the_return_and_levered_by_it_after() -> None:
    returns = with_law(RoughVolatility, ROUGH._replace(leverage=-0.9)).draw(stream(0, "lever"), 200_000)
    logs = np.log(np.maximum(returns**2, 1e-30))
    scaled = returns / returns.std()
    after = [float(np.mean(scaled[:-lag] * (logs[lag:] - logs.mean()))) for lag in (1, 2, 5)]
    weights, norm = rough_volatility.kernel_of(0.15, 0.02)
    exact = [-0.9 * 0.8 * np.exp(-(0.8**2) / 8) * weights[lag - 1] / norm for lag in (1, 2, 5)]
    np.testing.assert_allclose(after, exact, atol=0.03)
    before = [float(np.mean(scaled[lag:] * (logs[:-lag] - logs.mean()))) for lag in (1, 2, 5)]
    np.testing.assert_allclose(before, 0, atol=0.03)


@pytest.mark.parametrize("seed", range(2))
def test_the_rough_law_is_recovered(seed: int) -> None:
    returns = with_law(RoughVolatility, ROUGH).draw(stream(seed, "recovery"), 20_000)
    process = RoughVolatility().fit(as_series(returns), rng=stream(0, "fit"))
    assert_recovered(process, ROUGH._asdict())
    assert process.summary()["hurst_by_scaling"] < 0.35


def test_smooth_volatility_is_not_called_rough() -> None:
    smooth = with_law(RoughVolatility, ROUGH._replace(hurst=0.5, reversion=0.01))
    process = RoughVolatility().fit(as_series(smooth.draw(stream(0, "smooth"), 16_000)), rng=stream(0, "fit"))
    low, high = process.estimates["hurst"].interval
    assert low < 0.5 < high
    assert process.estimates["hurst"].value > 0.3


def test_stretches_too_short_for_a_spectrum_are_refused() -> None:
    short = as_returns(stream(0, "short").standard_normal(300), *range(20, 300, 20))
    with pytest.raises(TooLittleDataError, match="no stretch without a gap has 128 returns"):
        rough_volatility.LogVariances.of(short, 4)


def test_the_expected_periodogram_is_the_mean_of_periodograms() -> None:
    process = with_law(RoughVolatility, ROUGH._replace(leverage=0.0))
    pieces = [as_returns(process.draw(stream(0, "p", k), 512)) for k in range(300)]
    blocks = [rough_volatility.LogVariances.of(piece, 4) for piece in pieces]
    links = {"hurst": "share", "reversion": "positive", "vol_of_log": "positive"}
    free = free_of({"hurst": 0.15, "reversion": 0.08, "vol_of_log": 0.8}, links)
    mean = np.mean([each._periodograms[0] for each in blocks], axis=0)
    expected = np.mean([each.expected(free)[0] for each in blocks], axis=0)
    assert np.mean(mean / expected) == pytest.approx(1, abs=0.04)
    assert np.mean((mean / expected)[:6]) == pytest.approx(1, abs=0.15)
    assert np.mean((mean / expected)[-20:]) == pytest.approx(1, abs=0.08)
