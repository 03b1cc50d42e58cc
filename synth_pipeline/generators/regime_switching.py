"""Regime switching: normal returns whose volatility is that of a hidden Markov chain of market conditions.

Over one step of the grid, in state s_t ∈ {1 … K} with transition matrix P,

    log S_t - log S_{t-1} = -σ²(s_t) / 2 + (m(s_t) - m̄) + σ(s_t) ε_t,        ε_t ~ N(0, 1),

a Gaussian hidden Markov model (Hamilton 1989, Econometrica 57; Rydén, Teräsvirta and Åsbrink 1998, J. Appl.
Econometrics 13). States are sorted by volatility. Means m differ between states only where BIC prefers it, and then m̄
is their long-run mean; where they are equal, exp(log S) is a martingale.

Calibration is maximum likelihood by the EM algorithm of Baum and Welch (Rabiner 1989, Proc. IEEE 77, section III)
with scaled recursions that start anew after every gap, from the chain's stationary law, and from several starts:
quantile splits of the size of returns, plain and blurred over neighbours. BIC chooses between two, three and four
states unless `states` says. A state's variance stays above h²/6 of the price grid and a millionth of the variance of
returns: a mixture's likelihood is unbounded where one state shrinks onto a repeated return. Standard errors are from
the observed information of the same likelihood. Simulation is exact: it starts from the stationary law.
`sample(regime=…)` stays in one state throughout; the states are called low_volatility, normal_volatility,
high_volatility and extreme_volatility, as `features.regimes` has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from synth_pipeline.errors import InputError, TrainingError
from synth_pipeline.features.regimes import VOLATILITIES, Regimes
from synth_pipeline.generators import hidden_markov, price_process
from synth_pipeline.generators.hidden_markov import Chain, least_bic, likeliest, states_of, stationary
from synth_pipeline.generators.inference import Estimate, covariance, criteria, residual_tests, scores_of
from synth_pipeline.generators.price_process import PriceProcess, Report, Returns
from synth_pipeline.series import FloatArray, IntArray, Series


class Law(NamedTuple):
    """The parameters, per step of the grid, states from calm to turbulent."""

    volatilities: FloatArray
    """[σ] shape (states,)"""
    means: FloatArray
    """[m - m̄] shape (states,); zero where the states share one."""
    transitions: FloatArray
    """[P] shape (states, states), rows sum to 1."""


@dataclass(frozen=True)
class Parameters(price_process.Parameters):
    """What a user may set."""

    states: int | None = None
    """How many states; two to four by BIC without it."""


class RegimeSwitching(PriceProcess):
    """EM from several starts, BIC for the number of states, exact simulation. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    Law = Law
    conditions = True

    def estimate(self, returns: Returns, *, rng: np.random.Generator, report: Report) -> None:
        """Climb from every start for every number of states; keep the least BIC."""
        latent = returns.latent()
        scale = latent.scale
        unit = latent.values / scale
        least = max(returns.resolution**2 / 6 / scale**2, 1e-6)
        asked = self.parameters.states
        if asked is not None and asked not in VOLATILITIES:
            raise InputError(f"regime_switching: states={asked} does not fit: choose 2, 3 or 4")
        kinds = [(states, free) for states in ((asked,) if asked else VOLATILITIES) for free in (False, True)]
        found = []
        for at, (states, free_means) in enumerate(kinds):
            report(0.8 * at / len(kinds), f"{states} states")
            found.append(likeliest(unit, returns.opens, states, free_means, least))
        chain = least_bic(found, len(unit))
        if not math.isfinite(chain.log_likelihood):
            raise TrainingError("regime_switching: the likelihood is no number; look for a spike among the prices")
        if (chain.variances <= least * 1.01).any():
            self.notes.append("the calmest state rests on the price grid: its volatility is the least that it can show")
        report(0.85, "standard errors")
        self._keep(chain, unit, scale, returns, rng, least)

    def _keep(
        self, chain: Chain, unit: FloatArray, scale: float, returns: Returns, rng: np.random.Generator, least: float
    ) -> None:
        likelihood, _, predicted = chain.filter(unit, returns.opens)
        volatilities, shares = np.sqrt(chain.variances), stationary(chain.transitions)
        means = chain.means - shares @ chain.means if chain.free_means else np.zeros_like(chain.means)
        self.law = Law(scale * volatilities, scale * means, chain.transitions)
        names = [name.removesuffix("_volatility") for name in VOLATILITIES[len(means)]]
        self.estimates = _estimates(chain, unit, returns.opens, scale, names, least)

        def distribution(moves: FloatArray) -> FloatArray:
            return np.asarray(
                (predicted * special.ndtr((moves[:, np.newaxis] - chain.means) / volatilities)).sum(axis=1)
            )

        scores = scores_of(distribution, unit, returns.resolution / scale, rng)
        total = likelihood - len(unit) * math.log(scale)
        self.diagnostics = (
            criteria(total, chain.parameters, len(unit))
            | {"states": float(len(means))}
            | {f"share_{name}": float(share) for name, share in zip(names, shares, strict=True)}
            | residual_tests(scores, returns.stretch)
        )

    @property
    def regime_names(self) -> tuple[str, ...]:
        """The regime that each state stands for, in the words of `features.regimes`."""
        return VOLATILITIES[len(self.law.means)]

    def check_request(self, n: int, steps: int, regime: str | None) -> None:
        """Raise `InputError` as every generator does, and for a regime that is none of the states."""
        super().check_request(n, steps, regime)
        if regime is not None and regime not in self.regime_names:
            raise InputError(f"regime_switching has no regime {regime!r}: it has {', '.join(self.regime_names)}")

    def regimes_of(self, series: Series) -> Regimes:
        """Label a history by the likeliest states of a chain of as many."""
        return hidden_markov.label(series, len(self.law.means))

    @property
    def martingale(self) -> bool:
        """Whether the states share one mean."""
        return not bool(self.law.means.any())

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw the chain, then the returns."""
        opening = stationary(self.law.transitions)
        for count in counts:
            both = rng.random((count, 2))
            states = states_of(both[:, 0], self.law.transitions, opening)
            opening = self.law.transitions[states[-1]] if count else opening
            yield self._returns(states, both[:, 1])

    def run_regime(self, rng: np.random.Generator, counts: Iterable[int], regime: str) -> Iterator[FloatArray]:
        """Draw returns of one state."""
        state = self.regime_names.index(regime)
        return (self._returns(np.full(count, state), rng.random(count)) for count in counts)

    def _returns(self, states: IntArray, uniforms: FloatArray) -> FloatArray:
        sigma = self.law.volatilities[states]
        return np.asarray(sigma * special.ndtri(uniforms) - sigma**2 / 2 + self.law.means[states])


def _estimates(
    chain: Chain, unit: FloatArray, opens: NDArray[np.bool_], scale: float, names: Sequence[str], least: float
) -> dict[str, Estimate]:
    """Return volatility, share of stays and, where they differ, mean of every state with standard errors."""
    states, means = len(names), chain.means if chain.free_means else chain.means[:1]
    away = ~np.eye(states, dtype=bool)
    stays = np.diag(chain.transitions)
    odds = np.log(np.maximum(chain.transitions, 1e-12) / stays[:, np.newaxis])[away]
    free = np.concatenate((np.log(chain.variances) / 2, means, odds))

    def likelihood(free: FloatArray) -> float:
        ratios = np.ones((states, states))
        ratios[away] = np.exp(free[states + len(means) :])
        transitions = ratios / ratios.sum(axis=1, keepdims=True)
        moved = free[states : states + len(means)]
        each = np.broadcast_to(moved, states).copy() if len(moved) == 1 else moved.copy()
        return Chain(each, np.exp(2 * free[:states]), transitions, chain.free_means).filter(unit, opens)[0]

    # Transitions that never happen and volatilities at the least have no inner maximum: they are kept fixed.
    bounds = np.full((len(free), 2), (-np.inf, np.inf))
    bounds[:states, 0] = math.log(least) / 2
    bounds[states + len(means) :, 0] = math.log(1e-4)
    among = covariance(likelihood, free, bounds)
    sigmas = np.sqrt(np.diag(among))
    found = {
        f"volatility_{name}": Estimate(scale * math.exp(free[at]), _known(scale * math.exp(free[at]) * sigmas[at]))
        for at, name in enumerate(names)
    }
    for at, name in enumerate(names if chain.free_means else ()):
        found[f"mean_{name}"] = Estimate(scale * free[states + at], _known(scale * sigmas[states + at]), "real")
    ratios = np.arange(len(odds)).reshape(states, states - 1) + states + len(means)
    for at, name in enumerate(names):
        # d stay / d odds = -stay · move: the softmax of a row with its own stay as the reference.
        slopes = -stays[at] * chain.transitions[at][away[at]]
        block = among[np.ix_(ratios[at], ratios[at])]
        known = np.isfinite(np.diag(block))
        variance = slopes[known] @ block[np.ix_(known, known)] @ slopes[known] if known.any() else math.nan
        found[f"stay_{name}"] = Estimate(float(stays[at]), _known(math.sqrt(variance)), "share")
    return found


def _known(error: float) -> float | None:
    return float(error) if math.isfinite(error) else None
