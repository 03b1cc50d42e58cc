"""Hidden Markov models with normal observations: Baum and Welch's recursions, gap by gap, and where they start.

What belongs here: the chain, its likelihood and its iterates, and regimes of volatility by it (`label`); its use as a
law of returns is `regime_switching`. Recursions are scaled (Rabiner 1989, Proc. IEEE 77, section V.A) and start anew
after every gap, from the chain's stationary law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from synth_pipeline.features.regimes import UNKNOWN, VOLATILITIES, Regimes, log_prices
from synth_pipeline.series import FloatArray, IntArray, Series

FEW, MANY = 40, 2_000
"""Iterations of every start, and of the best of them."""
_ENOUGH = 1e-8
_LEAST_RETURNS, _MOST_RETURNS = 100, 100_000
_LEAST_STAY = 1e-6


@numba.njit(cache=True)
def forward(
    returns: FloatArray,
    opens: NDArray[np.bool_],
    means: FloatArray,
    variances: FloatArray,
    transitions: FloatArray,
    opening: FloatArray,
    filtered: FloatArray,
    predicted: FloatArray,
) -> float:
    """Return the log-likelihood; fill P(state | returns so far) and P(state | those before), shape (steps, states)."""
    states, total = len(means), 0.0
    heights, exponents = 1.0 / np.sqrt(2.0 * np.pi * variances), -0.5 / variances
    for t in range(len(returns)):
        mass = 0.0
        for s in range(states):
            before = opening[s]
            if not opens[t]:
                before = 0.0
                for r in range(states):
                    before += filtered[t - 1, r] * transitions[r, s]
            predicted[t, s] = before
            filtered[t, s] = before * max(heights[s] * np.exp(exponents[s] * (returns[t] - means[s]) ** 2), 1e-300)
            mass += filtered[t, s]
        total += math.log(mass)
        for s in range(states):
            filtered[t, s] /= mass
    return total


@numba.njit(cache=True)
def backward(
    opens: NDArray[np.bool_], transitions: FloatArray, filtered: FloatArray, predicted: FloatArray, smoothed: FloatArray
) -> FloatArray:
    """Fill P(state | all returns) and return the expected number of moves between states, shape (states, states)."""
    states = len(transitions)
    moves = np.zeros((states, states))
    for t in range(len(filtered) - 1, -1, -1):
        if t == len(filtered) - 1 or opens[t + 1]:
            smoothed[t] = filtered[t]
            continue
        for s in range(states):
            smoothed[t, s] = 0.0
            for r in range(states):
                joint = filtered[t, s] * transitions[s, r] * smoothed[t + 1, r] / predicted[t + 1, r]
                moves[s, r] += joint
                smoothed[t, s] += joint
    return moves


@numba.njit(cache=True)
def states_of(uniforms: FloatArray, transitions: FloatArray, opening: FloatArray) -> IntArray:
    """Return a path of the chain, one uniform number a step."""
    states = np.empty(len(uniforms), dtype=np.int64)
    row = opening
    for t in range(len(uniforms)):
        state, level = 0, row[0]
        while uniforms[t] > level and state < len(row) - 1:
            state += 1
            level += row[state]
        states[t], row = state, transitions[state]
    return states


def stationary(transitions: FloatArray) -> FloatArray:
    """Return the law that the chain keeps: the solution of π P = π."""
    states = len(transitions)
    system = np.vstack((transitions.T - np.eye(states), np.ones(states)))
    solution = np.linalg.lstsq(system, np.append(np.zeros(states), 1.0))[0]
    clipped = np.maximum(solution, 1e-12)
    return np.asarray(clipped / clipped.sum())


@dataclass(frozen=True)
class Chain:
    """One hidden Markov model in units of the scale of returns, and what it makes of them."""

    means: FloatArray
    variances: FloatArray
    transitions: FloatArray
    free_means: bool
    log_likelihood: float = -math.inf

    @property
    def parameters(self) -> int:
        """How many are free."""
        states = len(self.means)
        return states * states + (states if self.free_means else 1)

    def filter(self, returns: FloatArray, opens: NDArray[np.bool_]) -> tuple[float, FloatArray, FloatArray]:
        """Return log-likelihood, filtered and predicted probabilities."""
        filtered, predicted = np.empty((2, len(returns), len(self.means)))
        opening = stationary(self.transitions)
        total = forward(returns, opens, self.means, self.variances, self.transitions, opening, filtered, predicted)
        return float(total), filtered, predicted

    def step(self, returns: FloatArray, opens: NDArray[np.bool_], least: float) -> Chain:
        """Return the next iterate of EM, with the likelihood of this one."""
        total, filtered, predicted = self.filter(returns, opens)
        smoothed = np.empty_like(filtered)
        moves = backward(opens, self.transitions, filtered, predicted, smoothed) + _LEAST_STAY
        weights = np.maximum(smoothed.sum(axis=0), 1e-9)
        means = smoothed.T @ returns / weights
        if not self.free_means:
            precision = weights / self.variances
            means = np.full_like(means, precision @ means / precision.sum())
        squares = (returns[:, np.newaxis] - means) ** 2
        variances = np.maximum((smoothed * squares).sum(axis=0) / weights, least)
        return Chain(means, variances, moves / moves.sum(axis=1, keepdims=True), self.free_means, total)

    def smooth(self, returns: FloatArray, opens: NDArray[np.bool_]) -> FloatArray:
        """Return P(state | all returns), shape (steps, states)."""
        _, filtered, predicted = self.filter(returns, opens)
        smoothed = np.empty_like(filtered)
        backward(opens, self.transitions, filtered, predicted, smoothed)
        return smoothed

    def climb(self, returns: FloatArray, opens: NDArray[np.bool_], least: float, most: int) -> Chain:
        """Iterate EM until the likelihood of an observation rises by less than 1e-8, at most so often."""
        chain, last = self, -math.inf
        for _ in range(most):
            chain = chain.step(returns, opens, least)
            if chain.log_likelihood - last < _ENOUGH * len(returns):
                break
            last = chain.log_likelihood
        return chain

    def sorted(self) -> Chain:
        """Return it with states in order of volatility."""
        order = np.argsort(self.variances)
        return Chain(
            self.means[order],
            self.variances[order],
            self.transitions[np.ix_(order, order)],
            self.free_means,
            self.log_likelihood,
        )


def starts_of(returns: FloatArray, states: int, free_means: bool, least: float) -> list[Chain]:
    """Return chains whose states split the size of returns by quantiles, sizes blurred over 1, 10 and 50 neighbours."""
    starts = []
    for width in (1, 10, 50):
        blurred = np.convolve(returns**2, np.full(width, 1 / width), mode="same")
        edges = np.quantile(blurred, np.linspace(0, 1, states + 1)[1:-1])
        which = np.searchsorted(edges, blurred)
        variances = np.array(
            [float(np.mean(returns[which == s] ** 2)) if (which == s).any() else 1.0 for s in range(states)]
        )
        stay = 1 - 0.5 / max(width, 5)
        transitions = np.full((states, states), (1 - stay) / (states - 1))
        np.fill_diagonal(transitions, stay)
        spaced = np.maximum(variances, least) * np.linspace(0.99, 1.01, states)
        starts.append(Chain(np.full(states, returns.mean()), spaced, transitions, free_means))
    return starts


def likeliest(returns: FloatArray, opens: NDArray[np.bool_], states: int, free_means: bool, least: float) -> Chain:
    """Return the chain of the highest likelihood that is found from several starts, states in order of volatility."""
    starts = [start.climb(returns, opens, least, FEW) for start in starts_of(returns, states, free_means, least)]
    best = max(starts, key=lambda chain: chain.log_likelihood)
    return best.climb(returns, opens, least, MANY).sorted()


def least_bic(chains: list[Chain], count: int) -> Chain:
    """Return the chain with the least Bayesian information criterion over `count` returns."""
    return min(chains, key=lambda chain: math.log(count) * chain.parameters - 2 * chain.log_likelihood)


def label(series: Series, states: int | None = None) -> Regimes:
    """Label every step by the state of volatility that is most likely, given all of history; see `features.regimes`.

    As many states as asked for, or two to four by BIC, of one mean, estimated from the latest 100,000 returns. Of a
    basket the mean log price is taken; without a hundred returns, or any that is not 0, nothing is labelled.
    """
    prices = log_prices(series)
    moves = np.diff(prices, axis=1)
    known = np.isfinite(moves)
    returns = moves[known]
    labels = np.full(prices.shape, UNKNOWN, dtype=np.int8)
    if len(returns) < _LEAST_RETURNS or not returns.any():
        return Regimes(VOLATILITIES[states or 2], labels)
    opens = (known & ~np.pad(known, ((0, 0), (1, 0)))[:, :-1])[known]
    unit = returns / np.sqrt(np.mean(returns**2))
    step = series.tick_size / float(np.nanmedian(np.exp(prices))) / float(np.sqrt(np.mean(returns**2)))
    least = max(step**2 / 6, 1e-6)
    latest, begins = unit[-_MOST_RETURNS:], opens[-_MOST_RETURNS:].copy()
    begins[0] = True
    counts = (states,) if states else VOLATILITIES
    chain = least_bic([likeliest(latest, begins, count, False, least) for count in counts], len(latest))
    labels[:, 1:][known] = chain.smooth(unit, opens).argmax(axis=1)
    # The first step of a stretch has no return of its own: it goes with the one after.
    first = np.isfinite(prices[:, :-1]) & (labels[:, :-1] == UNKNOWN)
    labels[:, :-1][first] = labels[:, 1:][first]
    return Regimes(VOLATILITIES[len(chain.means)], labels)
