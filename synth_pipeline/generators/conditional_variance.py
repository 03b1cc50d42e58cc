"""Conditional variance: the GARCH family, fitted by `arch` and simulated by a kernel of our own.

What belongs here: one fit of one member, and paths of it for given innovations; what is built on it is `garch` and
`filtered_historical_simulation`. With r_t = s ε_t, ε_t = σ_t z_t, s the scale of returns and z_t independent of mean
0 and variance 1, σ_t² is

    garch     ω + α ε²_{t-1} + β σ²_{t-1}                                          Bollerslev (1986), J. Econometrics 31
    gjr       ω + (α + γ 1[ε_{t-1} < 0]) ε²_{t-1} + β σ²_{t-1}     Glosten, Jagannathan and Runkle (1993), J. Finance 48
    egarch    exp(ω + α (|z_{t-1}| - √(2/π)) + γ z_{t-1} + β log σ²_{t-1})                Nelson (1991), Econometrica 59
    figarch   ω / (1 - β) + Σ_i λ_i(φ, d, β) ε²_{t-i}, 500 terms  Baillie, Bollerslev, Mikkelsen (1996), J. Econom. 74

The library knows no gaps, so a fit sees the longest stretch without one. Standard errors are the robust ones of
Bollerslev and Wooldridge (1992). Where the long-run variance is below 0.8 or above twice that of the data, ω makes
them agree, as variance targeting would (Engle and Mezrich 1996). An estimate that is not stationary is projected to a
persistence of at most 0.999 before; GARCH and GJR, also where their variance is off by a factor of two, to the
likeliest law with the variance and the kurtosis of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
from scipy import special

from synth_pipeline.errors import TrainingError
from synth_pipeline.generators.inference import Estimate, scores_of
from synth_pipeline.generators.price_process import Returns
from synth_pipeline.series import FloatArray

Volatility = Literal["garch", "gjr", "egarch", "figarch"]
Distribution = Literal["normal", "t", "skewt"]

MEMORY = 500
_MOST_RESTING = 0.1
_HIGHEST, _LEAST, _MOST_APART, _MOST_ROOM = 0.999, 0.8, 2.0, 0.75
_LONGEST_BURN_IN = 20_000
_FULLEST, _MOST = 60.0, 1e26
_CODES = {"garch": 0, "gjr": 0, "egarch": 1, "figarch": 2}
_LINKS = {"gamma": "real", "skew": "correlation", "omega": "positive", "nu": "positive"}
_OF_EGARCH = {"omega": "real", "alpha": "real"}


class Law(NamedTuple):
    """One fitted member of the family."""

    volatility: str
    distribution: str
    scale: float
    """[s]"""
    coefficients: FloatArray
    """ω, α, γ, β; of FIGARCH ω, φ, d, β."""
    shape: FloatArray
    """Degrees of freedom and skewness of the innovations, as far as they have any."""
    downside: float = 0.5
    """E z² 1[z < 0], the share of their variance that innovations have below zero."""


@numba.njit(cache=True, fastmath={"reassoc"})
def _remembered(weights: FloatArray, squares: FloatArray) -> float:
    """Return Σ weights · squares, in whatever order is fastest: 500 terms a step are all that FIGARCH costs."""
    total = 0.0
    for i in range(len(weights)):
        total += weights[i] * squares[i]
    return total


@numba.njit(cache=True)
def variances_of(
    code: int, coefficients: FloatArray, weights: FloatArray, scores: FloatArray, state: FloatArray
) -> FloatArray:
    """Return σ_t² along innovations z_t.

    `state` is what the first step needs of the past, and is left as what the next one needs: its σ², or the last
    ε² that FIGARCH remembers, the latest last; `weights` are FIGARCH's λ, in the same order.
    """
    omega, alpha, gamma, beta = coefficients
    variances, memory = np.empty(len(scores)), len(weights)
    squares = np.concatenate((state, np.empty(len(scores)))) if code == 2 else state
    following = state[0]
    for t in range(len(scores)):
        if code == 2:
            following = omega / (1.0 - beta) + _remembered(weights, squares[t : t + memory])
        now, score = min(following, _MOST), scores[t]
        variances[t] = now
        if code == 2:
            squares[memory + t] = now * score**2
        elif code == 1:
            grown = omega + alpha * (abs(score) - math.sqrt(2.0 / math.pi)) + gamma * score + beta * math.log(now)
            following = math.exp(min(max(grown, -_FULLEST), _FULLEST))
        else:
            following = omega + (alpha + gamma * (score < 0)) * now * score**2 + beta * now
    if code == 2:
        state[:] = squares[len(scores) :]
    else:
        state[0] = following
    return variances


def persistence_of(law: Law) -> float:
    """Return how much of a rise in variance is left after a step (FIGARCH: the sum of its weights)."""
    _, alpha, gamma, beta = law.coefficients
    if law.volatility == "egarch":
        return abs(float(beta))
    if law.volatility == "figarch":
        return float(figarch_weights(law.coefficients).sum())
    return float(alpha + gamma * law.downside + beta)


def long_run(law: Law) -> float:
    """Return the long-run σ²; of EGARCH, with normal innovations (Nelson 1991, theorem A1.2)."""
    omega, alpha, gamma, beta = law.coefficients
    if law.volatility == "egarch":
        powers = beta ** np.arange(min(math.ceil(10 / max(1 - abs(beta), 1e-4)), 100_000))
        up, down = powers * (gamma + alpha), powers * (alpha - gamma)
        grown = np.exp(up**2 / 2) * special.ndtr(up) + np.exp(down**2 / 2) * special.ndtr(down)
        logs = omega / (1 - beta) + float(np.sum(np.log(grown) - powers * alpha * math.sqrt(2 / math.pi)))
        return math.exp(min(max(logs, -_FULLEST), _FULLEST))
    level = omega / (1 - beta) if law.volatility == "figarch" else omega
    return float(level / (1 - persistence_of(law)))


def figarch_weights(coefficients: FloatArray) -> FloatArray:
    """Return λ_1 … λ_500 of (ω, φ, d, β): Baillie, Bollerslev and Mikkelsen, section 3."""
    _, phi, d, beta = coefficients
    weights = np.empty(MEMORY)
    delta, weights[0] = d, d - beta + phi
    for i in range(1, MEMORY):
        before, delta = delta, delta * (i - d) / (i + 1)
        weights[i] = beta * weights[i - 1] + delta - phi * before
    return weights


def opening(law: Law) -> FloatArray:
    """Return the state from which a path starts: the long-run variance, at every step that is remembered."""
    return np.full(MEMORY if law.volatility == "figarch" else 1, min(max(long_run(law), 1e-12), 1e12))


def path(law: Law, scores: FloatArray, state: FloatArray | None = None) -> FloatArray:
    """Return s σ_t along the innovations, shape (steps,), from a state (see `variances_of`) that is moved on."""
    weights = figarch_weights(law.coefficients)[::-1].copy() if law.volatility == "figarch" else np.empty(0)
    state = opening(law) if state is None else state
    variances = variances_of(_CODES[law.volatility], law.coefficients, weights, scores, state)
    return np.asarray(law.scale * np.sqrt(variances))


def paths(law: Law, draws: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield s σ_t and z_t along pieces of innovations, the first of which only burns in."""
    state = opening(law)
    for at, scores in enumerate(draws):
        sigma = path(law, scores, state)
        if at:
            yield sigma, scores


def burn_in_of(law: Law) -> int:
    """Return after how many steps the variance has forgotten where it started, to one part in a thousand."""
    if law.volatility == "figarch":
        return 2 * MEMORY
    return min(math.ceil(math.log(1000) / max(1 - persistence_of(law), 1e-6)), _LONGEST_BURN_IN)


@dataclass(frozen=True)
class Fit:
    """One member of the family, fitted to returns."""

    law: Law
    estimates: dict[str, Estimate]
    log_likelihood: float
    scores: FloatArray
    """Standardised residuals z_t."""
    returns: FloatArray
    """In units of their scale."""
    normal_scores: FloatArray
    """The same as standard normal scores under the fitted innovations, rounded moves anywhere in their cell."""

    @property
    def bic(self) -> float:
        """Schwarz's criterion."""
        return math.log(len(self.scores)) * len(self.estimates) - 2 * self.log_likelihood


def fit(returns: Returns, volatility: Volatility, distribution: Distribution, rng: np.random.Generator) -> Fit:
    """Fit by maximum likelihood, with normal innovations quasi maximum likelihood.

    `returns` are of one stretch. Raises `TrainingError` where the search ends nowhere.
    """
    from arch import univariate as arch

    members: dict[str, Any] = {
        "garch": arch.GARCH(1, 0, 1),
        "gjr": arch.GARCH(1, 1, 1),
        "egarch": arch.EGARCH(1, 1, 1),
        "figarch": arch.FIGARCH(1, 1, truncation=MEMORY),
    }
    kinds: dict[str, Any] = {"normal": arch.Normal, "t": arch.StudentsT, "skewt": arch.SkewStudent}
    of_scores = kinds[distribution]()
    centred = balanced(returns.values)
    scale = float(centred.std())
    model = arch.ZeroMean(centred / scale, volatility=members[volatility], distribution=of_scores, rescale=False)
    found = model.fit(disp="off", show_warning=False)
    names = [name.removesuffix("[1]") for name in found.params.index]
    names = [{"eta": "nu", "lambda": "skew"}.get(name, name) for name in names]
    values = np.asarray(found.params, dtype=np.float64)
    if not np.isfinite(values).all() or not math.isfinite(found.loglikelihood):
        raise TrainingError(f"{volatility}: the likelihood is no number; look for a spike among the prices")
    by_name = dict(zip(names, values.tolist(), strict=True))
    order = ("omega", "phi", "d", "beta") if volatility == "figarch" else ("omega", "alpha", "gamma", "beta")
    coefficients = np.array([by_name.get(name, 0.0) for name in order])
    if volatility == "gjr":  # the search may leave α + γ a rounding error below 0, and variances with it
        coefficients[2] = max(coefficients[2], -coefficients[1])
    shape = np.array([by_name[name] for name in ("nu", "skew") if name in by_name])
    scores = np.asarray(found.std_resid, dtype=np.float64)
    downside = downside_of(scores) if distribution == "skewt" else 0.5
    law = Law(volatility, distribution, scale, coefficients, shape, downside)

    def distribution_of(moves: FloatArray) -> FloatArray:
        levels = of_scores.cdf(moves / found.conditional_volatility, None if distribution == "normal" else shape)
        return np.asarray(levels, dtype=np.float64)

    normal_scores = scores_of(distribution_of, centred / scale, returns.resolution / scale, rng)
    total = float(found.loglikelihood) - len(centred) * math.log(scale)
    estimates = _estimates(volatility, names, values, _errors(found))
    return Fit(law, estimates, total, scores, centred / scale, normal_scores)


def balanced(values: FloatArray) -> FloatArray:
    """Return values less their mean; where more than a tenth are 0, gains and losses each times a factor instead.

    What is 0 then stays so, and the sums are as equal.
    """
    gains, losses = float(values[values > 0].sum()), -float(values[values < 0].sum())
    if np.mean(values == 0) <= _MOST_RESTING or gains <= 0 or losses <= 0:
        return np.asarray(values - values.mean())
    root = math.sqrt(gains / losses)
    return np.asarray(np.where(values > 0, values / root, values * root))


def downside_of(scores: FloatArray) -> float:
    """Return the share of the second moment that lies below zero."""
    return float(np.sum(scores[scores < 0] ** 2) / np.sum(scores**2))


def _errors(found: Any) -> FloatArray:
    """Return the robust standard errors; NaN where the information matrix has no inverse."""
    try:
        return np.asarray(found.std_err, dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full(len(found.params), np.nan)


def _estimates(volatility: str, names: list[str], values: FloatArray, errors: FloatArray) -> dict[str, Estimate]:
    """Leave out the standard error of what lies at its bound: the likelihood does not peak there."""
    links = _LINKS | (_OF_EGARCH if volatility == "egarch" else {})
    made = {}
    for name, value, error in zip(names, values.tolist(), errors.tolist(), strict=True):
        link = links.get(name, "share")
        inner = link == "real" or (value > 1e-6 if link == "positive" else 1e-6 < abs(value) < 1 - 1e-6)
        made[name] = Estimate(value, error if inner and math.isfinite(error) else None, link)
    return made


def stationary(fit: Fit) -> tuple[Law, str | None]:
    """Return the law with a long run that has about the variance of the data, and why it had to be changed for that."""
    law, persistence = fit.law, persistence_of(fit.law)
    variance = long_run(law) if persistence <= _HIGHEST else math.inf
    # More than that of the data may come from spells so rare that history had none.
    if _LEAST < variance < _MOST_APART:
        return law, None
    if persistence > _HIGHEST or (law.volatility in {"garch", "gjr"} and not 1 / _MOST_APART < variance < _MOST_APART):
        law = law._replace(coefficients=_projected(fit))
        why = f"its persistence is {persistence:.4f}, and is taken as {persistence_of(law):.4f}"
    else:
        why = f"its variance is {long_run(law):.2g} times as large"
    coefficients = law.coefficients.copy()
    if law.volatility == "egarch":
        coefficients[0] -= math.log(long_run(law)) * (1 - coefficients[3])
    else:
        coefficients[0] = max(coefficients[0], 1e-12)
        coefficients[0] /= long_run(law._replace(coefficients=coefficients))
    mended = law._replace(coefficients=coefficients)
    return mended, f"{law.volatility} does not have the long run of the data: {why}; omega makes the variances agree"


def _projected(fit: Fit) -> FloatArray:
    """Return coefficients whose memory leaves the variance a long run, of GARCH and GJR by `_targeted`."""
    coefficients = fit.law.coefficients.copy()
    if fit.law.volatility == "egarch":
        coefficients[3] = math.copysign(_HIGHEST, coefficients[3])
    elif fit.law.volatility == "figarch":
        coefficients[1:] *= _HIGHEST / persistence_of(fit.law)
    else:
        coefficients = _targeted(fit)
    return coefficients


def _targeted(fit: Fit) -> FloatArray:
    """Return the likeliest ω, α, γ, β with the variance and the kurtosis of the data, α and γ in proportion.

    With p the persistence, a = E (α + γ 1[z < 0])² and m the mean of the same, the kurtosis of returns is that of the
    innovations, k, times (1 - p²) / (1 - p² - k a + m²) (Bollerslev 1986, theorem 2, with E z⁴ = k). Where shocks alone
    have three quarters of that kurtosis, k a - m² is three quarters of what would make it infinite: volatility
    clusters all the same.
    """
    _, alpha, gamma, _ = fit.law.coefficients
    mean = alpha + gamma * fit.law.downside
    square = alpha**2 + (2 * alpha * gamma + gamma**2) * fit.law.downside
    innovations, kurtosis = float(np.mean(fit.scores**4)), float(np.mean(fit.returns**4))
    share = 1 - innovations / kurtosis
    room = (share if share > 1 - _MOST_ROOM else _MOST_ROOM) / max(innovations * square - mean**2, 1e-12)
    best, found = -math.inf, fit.law.coefficients
    for persistence in np.linspace(0.5, _HIGHEST, 50):
        part = math.sqrt(room * (1 - persistence**2))
        if part * mean > persistence:
            continue
        coefficients = np.array([1 - persistence, part * alpha, part * gamma, persistence - part * mean])
        likelihood = quasi_likelihood(fit.returns, coefficients)
        if likelihood > best:
            best, found = likelihood, coefficients
    return found


@numba.njit(cache=True)
def quasi_likelihood(returns: FloatArray, coefficients: FloatArray) -> float:
    """Return the Gaussian log-likelihood of GJR at (ω, α, γ, β), from unit variance, but for its constant."""
    omega, alpha, gamma, beta = coefficients
    variance, total = 1.0, 0.0
    for move in returns:
        total -= 0.5 * (math.log(variance) + move * move / variance)
        variance = omega + (alpha + gamma * (move < 0)) * move * move + beta * variance
    return total


def innovations(law: Law, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
    """Yield so many z_t of mean 0 and variance 1 for every count, the same ones however they are cut."""
    sizes, signs = rng.spawn(2)
    if law.distribution == "normal":
        yield from (sizes.standard_normal(count) for count in counts)
        return
    nu, skew = float(law.shape[0]), float(law.shape[1]) if law.distribution == "skewt" else 0.0
    c = np.exp(special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2)) / np.sqrt(np.pi * (nu - 2))
    a = 4 * skew * c * (nu - 2) / (nu - 1)
    for count in counts:
        student = np.abs(sizes.standard_t(nu, count)) * np.sqrt((nu - 2) / nu)
        sign = np.where(signs.random(count) < (1 - skew) / 2, -1.0, 1.0)
        yield (sign * (1 + sign * skew) * student - a) / np.sqrt(1 + 3 * skew**2 - a**2)
