"""The Hawkes process of events in continuous time: likelihood with its derivatives, fit, simulation, residuals.

Each event at t_i raises the rate at which the next ones come, and the raise fades:

    λ(t) = μ + Σ_{t_i < t} n β e^{-β (t - t_i)}

(Hawkes 1971, Biometrika 58, eq. 12). n is the branching ratio, the events that one event excites; the process is
stationary for n < 1, with mean rate μ / (1 - n). With A_i = Σ_{j < i} e^{-β (t_i - t_j)}, kept by Ozaki's recursion
(1979, Ann. Inst. Statist. Math. 31, eq. 3), the log-likelihood on [0, T] is

    Σ log(μ + n β A_i) - μ T - n Σ (1 - e^{-β (T - t_i)}),

and gradient and Hessian follow from the same pass over the events, at one exponential each. The fit is Newton's method
on the logarithms of (μ, n, β), begun on a stretch of the events; standard errors are from the exact Hessian. Simulation
is the exact one of Dassios and Zhao (2013), Electron. Commun. Probab. 18, algorithm 3.1. By time rescaling (Papangelou
1972; Ogata 1988, JASA 83), the compensator between neighbouring events is Exp(1) and independent under the true law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from scipy import stats

from synth_pipeline.errors import TooLittleDataError, TrainingError
from synth_pipeline.series import FloatArray

_FEWEST_EVENTS = 20
_FIRST = 20_000
_MOST_STEPS = 100
_FLAT = 1e-9


@numba.njit(cache=True, fastmath=True)
def log_likelihood(times: FloatArray, end: float, base: float, branching: float, decay: float) -> FloatArray:
    """Return log-likelihood, its 3 first and its 6 second derivatives in (μ, n, β), as one array of 10.

    Order: value, μ, n, β, μμ, μn, μβ, nn, nβ, ββ. `times` ascend within [0, end].
    """
    total, product = 0.0, 1.0
    gm = gn = gb = hmm = hmn = hmb = hnn = hnb = hbb = 0.0
    a = b = c = 0.0
    before = times[0]
    for i in range(len(times)):
        gap = times[i] - before
        before = times[i]
        fade = math.exp(-decay * gap)
        if i > 0:
            c = fade * (c + 2.0 * gap * b + gap * gap * (a + 1.0))
            b = fade * (b + gap * (a + 1.0))
            a = fade * (a + 1.0)
        rate = base + branching * decay * a
        inverse = 1.0 / rate
        product *= rate
        if product > 1e200 or product < 1e-200:  # one logarithm for many events
            total += math.log(product)
            product = 1.0
        dn, db = decay * a, branching * (a - decay * b)
        un, ub = dn * inverse, db * inverse
        gm += inverse
        gn += un
        gb += ub
        hmm -= inverse * inverse
        hmn -= inverse * un
        hmb -= inverse * ub
        hnn -= un * un
        hnb += (a - decay * b) * inverse - un * ub
        hbb += branching * (decay * c - 2.0 * b) * inverse - ub * ub
    gap = end - before
    fade = math.exp(-decay * gap)
    c = fade * (c + 2.0 * gap * b + gap * gap * (a + 1.0))
    b = fade * (b + gap * (a + 1.0))
    a = fade * (a + 1.0)
    count = float(len(times))
    total += math.log(product) - base * end - branching * (count - a)
    return np.array(
        [total, gm - end, gn - (count - a), gb - branching * b, hmm, hmn, hmb, hnn, hnb - b, hbb + branching * c]
    )


@numba.njit(cache=True)
def residuals(times: FloatArray, base: float, branching: float, decay: float) -> FloatArray:
    """Return the compensator between neighbouring events, shape (events - 1,)."""
    found = np.empty(len(times) - 1)
    excited = 0.0
    for i in range(1, len(times)):
        gap = times[i] - times[i - 1]
        excited += 1.0
        fade = math.exp(-decay * gap)
        found[i - 1] = base * gap + branching * excited * (1.0 - fade)
        excited *= fade
    return found


@numba.njit(cache=True)
def simulated(rng: np.random.Generator, end: float, base: float, branching: float, decay: float) -> FloatArray:
    """Return the event times on [0, end] of a process without history; the branching ratio must be below 1."""
    times = np.empty(1024)
    count, now, excess = 0, 0.0, 0.0
    while True:
        wait = rng.standard_exponential() / base
        if excess > 0.0:
            left = 1.0 - decay * rng.standard_exponential() / excess
            if left > 0.0:
                wait = min(wait, -math.log(left) / decay)
        now += wait
        if now > end:
            return times[:count]
        excess = excess * math.exp(-decay * wait) + branching * decay
        if count == len(times):
            times = np.concatenate((times, np.empty(count)))
        times[count] = now
        count += 1


@dataclass(frozen=True)
class Fit:
    """Maximum-likelihood estimates; rates are per unit of time of the events."""

    base: float
    """[μ]"""
    branching_ratio: float
    """[n]"""
    decay: float
    """[β]"""
    errors: tuple[float, float, float]
    """Their standard errors."""
    log_likelihood: float

    def residual_p(self, times: FloatArray) -> float:
        """Return the Kolmogorov-Smirnov p-value of the time-rescaled waiting times against Exp(1)."""
        found = residuals(times, self.base, self.branching_ratio, self.decay)
        return float(stats.kstest(found, "expon").pvalue)


def fit(times: FloatArray, end: float) -> Fit:
    """Estimate from the ascending event times of a record on [0, end].

    Raises `TooLittleDataError` below 20 events, `TrainingError` where the estimate is not stationary or the likelihood
    has no inner maximum, as for events that do not cluster.
    """
    if len(times) < _FEWEST_EVENTS:
        raise TooLittleDataError(f"{len(times)} events and {_FEWEST_EVENTS} are needed: record for longer")
    rate = len(times) / end
    free = np.log([0.5 * rate, 0.5, rate])
    if len(times) > 4 * _FIRST:
        first = np.ascontiguousarray(times[:_FIRST])
        free, _, _ = _newton(first, float(first[-1]), free)
    free, value, hessian = _newton(times, end, free)
    base, branching, decay = (float(x) for x in np.exp(free))
    if branching >= 1:
        raise TrainingError(
            f"hawkes: the branching ratio is estimated at {branching:.3f} ≥ 1, which explodes: "
            "the rate of events drifts within the record; fit a shorter one"
        )
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian))) * np.exp(free)
    return Fit(base, branching, decay, (float(errors[0]), float(errors[1]), float(errors[2])), value)


def _newton(times: FloatArray, end: float, free: FloatArray) -> tuple[FloatArray, float, FloatArray]:
    """Return where the likelihood peaks on the log scale, its height and its Hessian there."""
    value, gradient, hessian = _on_log_scale(times, end, free)
    for _ in range(_MOST_STEPS):
        curvature, axes = np.linalg.eigh(-hessian)
        # Where the surface is not concave, |curvature| still gives a direction that climbs.
        step = axes @ ((axes.T @ gradient) / np.maximum(np.abs(curvature), 1e-8 * len(times)))
        if gradient @ step < _FLAT and curvature[0] > 0:
            return free, value, hessian
        step *= min(1.0, 2.0 / float(np.abs(step).max()))
        for _ in range(40):
            trial = _on_log_scale(times, end, free + step)
            if trial[0] > value or np.abs(step).max() < 1e-12:
                break
            step = step / 2
        else:
            break
        free, (value, gradient, hessian) = free + step, trial
        if np.abs(free).max() > 60 or np.abs(step).max() < 1e-12:
            break
    if np.linalg.eigvalsh(-hessian)[0] > 0 and float(np.abs(gradient).max()) < 1e-4 * len(times):
        return free, value, hessian
    raise TrainingError(
        f"hawkes: the likelihood of {len(times)} events has no inner maximum; they may not cluster at all"
    )


def _on_log_scale(times: FloatArray, end: float, free: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    values = np.exp(free)
    found = log_likelihood(times, end, *values)
    upper = np.zeros((3, 3))
    upper[np.triu_indices(3)] = found[4:]
    hessian = upper + np.triu(upper, 1).T
    gradient = found[1:4] * values
    return float(found[0]), gradient, hessian * np.outer(values, values) + np.diag(gradient)
