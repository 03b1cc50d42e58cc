"""The efficient price: what a fully informed trader would pay, before any order says so.

A martingale with stochastic volatility and rare jumps,

    d log P = -(σ² / 2 + ν) dt + σ dW + dJ,      σ = s · a(t) · exp(x - v²),      dx = -κ x dt + v √(2κ) dB,

with W, B independent Brownian motions, J a compound Poisson process of Laplace jumps and ν its compensator, a(t) the
shape of the day. E[exp(2 (x - v²))] = 1, so s is the root mean square volatility where a(t) = 1. Log-volatility as an
Ornstein-Uhlenbeck process: Scott (1987), "Option pricing when the variance changes randomly"; jumps: Merton (1976).

Here belongs the price that traders know. The price that the market shows is the order book's affair.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from synth_pipeline.market.parameters import Parameters
from synth_pipeline.series import FloatArray

_SECONDS_PER_YEAR = 365 * 86_400


class PriceLaw(NamedTuple):
    """The coefficients per second, of log price."""

    volatility: float
    reversion: float
    log_volatility_sd: float
    jump_rate: float
    jump_scale: float


def price_law(parameters: Parameters) -> PriceLaw:
    """Turn market units into coefficients per second."""
    return PriceLaw(
        volatility=parameters.annual_volatility / math.sqrt(_SECONDS_PER_YEAR),
        reversion=math.log(2) / parameters.volatility_half_life_s,
        log_volatility_sd=parameters.log_volatility_sd,
        jump_rate=parameters.jumps_per_day / 86_400,
        jump_scale=parameters.jump_scale_bp * 1e-4,
    )


def start_state(parameters: Parameters, law: PriceLaw, rng: np.random.Generator) -> FloatArray:
    """Return log price and log-volatility deviation x, the latter drawn from its stationary law."""
    return np.array([math.log(parameters.start_price), law.log_volatility_sd * rng.standard_normal()])


@njit(cache=True)
def advance_price(state: FloatArray, law: PriceLaw, activity: float, seconds: float, rng: np.random.Generator) -> None:
    """Move the state on: x by its exact transition, the price by one Euler step at the volatility before it."""
    sd = law.log_volatility_sd
    volatility = law.volatility * activity * math.exp(state[1] - sd * sd)
    # E[exp(J)] of a Laplace jump is 1 / (1 - scale²).
    compensator = law.jump_rate * (1.0 / (1.0 - law.jump_scale**2) - 1.0)
    state[0] += volatility * math.sqrt(seconds) * rng.standard_normal()
    state[0] -= (0.5 * volatility * volatility + compensator) * seconds
    if rng.random() < law.jump_rate * seconds:
        jump = law.jump_scale * rng.standard_exponential()
        state[0] += jump if rng.random() < 0.5 else -jump
    kept = math.exp(-law.reversion * seconds)
    state[1] = state[1] * kept + sd * math.sqrt(1.0 - kept * kept) * rng.standard_normal()
