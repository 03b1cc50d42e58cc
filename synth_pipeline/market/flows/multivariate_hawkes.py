"""The multivariate Hawkes process in a changing state: likelihood and derivatives, fit, standard errors, residuals.

Events of type j raise the rates of all types e, by sums of exponentials, and the state of the world x scales the whole:

    λ_e(t) = f_e(x_t) ψ_e(t),    ψ_e(t) = μ_e a(t) + Σ_j Σ_k n_ejk Σ_{t_i < t, e_i = j} β_k e^{-β_k (t - t_i)}

(Hawkes 1971, Biometrika 58; the factor after Morariu-Patrichi and Pakkanen 2022, Quant. Finance 22, "State-dependent
Hawkes processes and their application to limit order book modelling"). n_ejk ≥ 0 are the events of type e that one of
type j causes through kernel k while f_e = 1; the decays β_k are given. a(t) is a known shape of the day; log f_e is
φ_e · z(x) plus a known offset, with known loadings z. Σ_k n_ejk, averaged over the states met, make the branching
matrix G: the process is stationary where its spectral radius is below 1, and without states mean rates are (I - G)⁻¹ μ.

The sums over the past follow Ozaki's recursion (1979, Ann. Inst. Statist. Math. 31), one exponential an event and
decay. As the state only changes at events, the compensator is linear in `exposures`, sums without parameters in them:
one pass over the events finds them, and one pass a step of the search finds Σ log ψ with gradient and Hessian. The
search is Newton's within n ≥ 0 (projected as in Bertsekas 1982, SIAM J. Control Optim. 20; damped as in Marquardt
1963), begun by steps of EM (Veen and Schoenberg 2008, JASA 103). Standard errors are from the observed information of
all parameters, those at zero too, which makes them cautious there. By time rescaling (Ogata 1988, JASA 83), the
compensator between neighbouring events of a type is Exp(1).

Types may share parameters: a `Design` names the set of each type and what each source is to it, so that buys excite
buys as sells excite sells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from synth_pipeline.errors import TrainingError
from synth_pipeline.market.compiling import njit
from synth_pipeline.progress import Progress, silent
from synth_pipeline.series import FloatArray, IntArray

_EM_STEPS = 4
_MOST_STEPS = 200
_FLAT = 1e-3
"""Log-likelihood that a further step may still promise: far below what data can tell."""
_CAUTION = 1.0
"""Precision of the normal prior of φ: keeps factors finite that hardly any event tells of."""
_FADED = 1e-100
_FEWEST = 50
"""Counted events that a set needs to have more than a base."""


class Design(NamedTuple):
    """Who shares parameters with whom, and what is known beforehand."""

    group: IntArray
    """The parameter set of each type."""
    column: IntArray
    """Shape (types, types): which column of its set the events of a source (second index) are to a type."""
    decays: FloatArray
    """[β] per second."""
    loadings: FloatArray
    """[z] of each cell of the state, shape (sets, cells, factors)."""
    offsets: FloatArray
    """What log f holds besides, known beforehand, shape (sets, cells)."""

    @property
    def groups(self) -> int:
        """Sets of parameters."""
        return int(self.group.max()) + 1

    @property
    def rates(self) -> int:
        """Parameters of ψ in a set: μ and every n."""
        return 1 + (int(self.column.max()) + 1) * len(self.decays)


class Record(NamedTuple):
    """Events of all types, in order of time."""

    times: FloatArray
    """Seconds, strictly ascending within a stretch."""
    types: IntArray
    fresh: np.ndarray
    """Whether an event is the first of a stretch: nothing is known of what came before."""
    counted: np.ndarray
    """Whether an event, and the time since the one before, enter the likelihood; never where `fresh`."""
    cells: IntArray
    """Shape (events, types): the cell of the state in which each type was since the event before; -1 where it could not
    happen."""
    shape: FloatArray
    """[a] on average since the event before."""

    def head(self, events: int) -> Record:
        """Return the first events."""
        return Record(
            self.times[:events],
            self.types[:events],
            self.fresh[:events],
            self.counted[:events],
            self.cells[:events],
            self.shape[:events],
        )


@njit(cache=True, fastmath=True)
def exposures(record: Record, design: Design, sets: int, rates: int) -> tuple[FloatArray, FloatArray]:
    """Return how many counted events each set had in each cell, and the integral of its regressors there.

    Shapes (sets, cells) and (sets, cells + 1, rates), where the last is the time in which a set's events could not
    happen: the compensator is Σ over cells of f times regressors times (μ, n).
    """
    decays, types = len(design.decays), len(design.group)
    counts = np.zeros((sets, design.offsets.shape[1]))
    integrals = np.zeros((sets, design.offsets.shape[1] + 1, rates))
    past, passed, before = np.zeros((types, decays)), np.zeros((types, decays)), 0.0
    for i in range(len(record.times)):
        if record.fresh[i]:
            past[:] = 0.0
            before = record.times[i]
        gap = record.times[i] - before
        before = record.times[i]
        for k in range(decays):
            fade = np.exp(-design.decays[k] * gap)
            for j in range(types):
                passed[j, k] = past[j, k] * (1.0 - fade)
                past[j, k] *= fade
        if record.counted[i]:
            for e in range(types):
                row = integrals[design.group[e], record.cells[i, e]]
                row[0] += record.shape[i] * gap
                for j in range(types):
                    first = 1 + design.column[e, j] * decays
                    for k in range(decays):
                        row[first + k] += passed[j, k]
            counts[design.group[record.types[i]], record.cells[i, record.types[i]]] += 1.0
        past[record.types[i]] += 1.0
    return counts, integrals


@njit(cache=True, fastmath=True)
def slopes(
    record: Record, design: Design, theta: FloatArray, wanted: np.ndarray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return Σ log ψ over counted events, its gradient and negated Hessian, each by wanted set; `theta` is (μ, n).

    Shapes (sets,), (sets, rates) and (sets, rates, rates), the last below the diagonal only.
    """
    decays, types, (sets, rates) = len(design.decays), len(design.group), theta.shape
    values, gradients, curvatures = np.zeros(sets), np.zeros((sets, rates)), np.zeros((sets, rates, rates))
    past, regressors, before = np.zeros((types, decays)), np.zeros(rates), 0.0
    for i in range(len(record.times)):
        if record.fresh[i]:
            past[:] = 0.0
            before = record.times[i]
        gap = record.times[i] - before
        before = record.times[i]
        for k in range(decays):
            fade = np.exp(-design.decays[k] * gap)
            for j in range(types):
                past[j, k] *= fade
        e = record.types[i]
        own = design.group[e]
        if record.counted[i] and wanted[own]:
            regressors[0] = record.shape[i]
            for j in range(types):
                first = 1 + design.column[e, j] * decays
                for k in range(decays):
                    regressors[first + k] = past[j, k] * design.decays[k]
            values[own] += _add(theta[own], regressors, gradients[own], curvatures[own])
        past[e] += 1.0
    return values, gradients, curvatures


@njit(cache=True, fastmath=True)
def _add(theta: FloatArray, regressors: FloatArray, gradient: FloatArray, curvature: FloatArray) -> float:
    """Add one event to gradient and curvature (below its diagonal), and return log ψ."""
    intensity = 0.0
    for p in range(len(theta)):
        intensity += theta[p] * regressors[p]
    inverse = 1.0 / max(intensity, 1e-300)
    for p in range(len(theta)):
        regressors[p] *= inverse
        gradient[p] += regressors[p]
        for q in range(p + 1):
            curvature[p, q] += regressors[p] * regressors[q]
    return float(np.log(intensity)) if intensity > 0.0 else -1e300


@njit(cache=True)
def residuals(record: Record, design: Design, theta: FloatArray, factors: FloatArray) -> FloatArray:
    """Return, for each event, the compensator of its type since the type's event before; NaN where that is unknown."""
    decays, types = len(design.decays), len(design.group)
    past, since, before = np.zeros((types, decays)), np.full(types, np.nan), 0.0
    found = np.full(len(record.times), np.nan)
    for i in range(len(record.times)):
        if record.fresh[i]:
            past[:] = 0.0
            since[:] = np.nan
            before = record.times[i]
        gap = record.times[i] - before
        before = record.times[i]
        for e in range(types):
            own = design.group[e]
            if record.cells[i, e] < 0:
                continue
            passed = theta[own, 0] * record.shape[i] * gap
            for k in range(decays):
                share = 1.0 - np.exp(-design.decays[k] * gap)
                for j in range(types):
                    passed += theta[own, 1 + design.column[e, j] * decays + k] * past[j, k] * share
            since[e] += factors[own, record.cells[i, e]] * passed
        for k in range(decays):
            past[:, k] *= np.exp(-design.decays[k] * gap)
        e = record.types[i]
        if record.counted[i]:
            found[i] = since[e]
        since[e] = 0.0
        past[e] += 1.0
    return found


@dataclass(frozen=True)
class Fit:
    """Maximum-likelihood estimates by set; rates are per second."""

    design: Design
    theta: FloatArray
    """μ and then n by column and decay, shape (sets, rates)."""
    log_factors: FloatArray
    """[φ] shape (sets, factors)."""
    factors: FloatArray
    """[f] of each cell, shape (sets, cells)."""
    covariance: FloatArray
    """Of (μ, n, φ), shape (sets, rates + factors, rates + factors); NaN where the record does not tell."""
    met: FloatArray
    """The integrals of the regressors times f, shape (sets, rates): `theta` times them are the events explained."""
    whole: FloatArray
    """The same as if f were always 1, and events always possible."""
    log_likelihood: float

    @property
    def base(self) -> FloatArray:
        """[μ] of each type."""
        return np.asarray(self.theta[self.design.group, 0])

    @property
    def weights(self) -> FloatArray:
        """[n] of each type by source and decay, shape (types, types, decays)."""
        return _by_type(self.theta, self.design)

    @property
    def branching(self) -> FloatArray:
        """[G] the events of each type that one of each source causes directly, in the states as they were."""
        share = np.divide(self.met, self.whole, out=np.zeros_like(self.met), where=self.whole > 0)
        return np.asarray(_by_type(self.theta * share, self.design).sum(axis=2))

    @property
    def spectral_radius(self) -> float:
        """Of the branching matrix; below 1 the process is stationary."""
        return float(np.abs(np.linalg.eigvals(self.branching)).max())

    def stationary(self, most: float) -> Fit:
        """Return this fit with its n lowered until the spectral radius is at most `most`, and μ raised for it.

        What is explained then comes by itself, so that mean rates stay what they are.
        """
        kept = min(1.0, most / max(self.spectral_radius, 1e-300))
        theta = self.theta.copy()
        theta[:, 1:] *= kept
        lost = ((self.theta - theta) * self.met).sum(axis=1)
        theta[:, 0] += np.divide(lost, self.met[:, 0], out=np.zeros_like(lost), where=self.met[:, 0] > 0)
        return replace(self, theta=theta)

    def mean_rates(self) -> FloatArray:
        """Return events per second by type in the long run where no state matters: (I - G)⁻¹ μ."""
        return np.asarray(np.linalg.solve(np.eye(len(self.base)) - self.branching, self.base), np.float64)


def _by_type(theta: FloatArray, design: Design) -> FloatArray:
    each: FloatArray = theta[:, 1:].reshape(len(theta), -1, len(design.decays))
    return each[design.group[:, None], design.column]


def fit(record: Record, design: Design, *, progress: Progress = silent) -> Fit:
    """Estimate every set. Raises `TrainingError` where the search does not settle."""
    counts, integrals = exposures(record, design, design.groups, design.rates)
    known = zip(counts, integrals, design.offsets, design.loadings, strict=True)
    searches = [_Search(*each) for each in known]
    for step in range(_EM_STEPS + _MOST_STEPS):
        sloped = slopes(record, design, np.stack([search.theta for search in searches]), _unsettled(searches))
        for search, value, gradient, curvature in zip(searches, *sloped, strict=True):
            search.judge(float(value), gradient, curvature, is_newton=step >= _EM_STEPS)
        progress(step + 1, _EM_STEPS + _MOST_STEPS, "climbing the likelihood")
        if all(search.is_done for search in searches):
            break
    if stuck := [own for own, search in enumerate(searches) if not search.is_done]:
        raise TrainingError(
            f"hawkes: the likelihood of parameter set {stuck[0]} still rises after {_MOST_STEPS} steps: "
            "fit a longer record or fewer decays"
        )
    found: list[Any] = [np.stack(column) for column in zip(*(search.estimates() for search in searches), strict=True)]
    found.append(sum(search.value for search in searches))
    return Fit(design, *found)


def _unsettled(searches: list[_Search]) -> np.ndarray:
    return np.array([not search.is_done for search in searches])


def score(record: Record, fitted: Fit) -> float:
    """Return the log-likelihood of the counted events of another record."""
    counts, integrals = exposures(record, fitted.design, *fitted.theta.shape)
    values, _, _ = slopes(record, fitted.design, fitted.theta, np.ones(len(fitted.theta), dtype=np.bool_))
    met = counts > 0
    expected = np.einsum("sc,scr,sr", fitted.factors, integrals[:, :-1], fitted.theta)
    return float(values.sum() + (counts[met] * np.log(fitted.factors[met])).sum() - expected)


class _Search:
    """Where the search for the parameters of one set stands."""

    def __init__(self, counts: FloatArray, integrals: FloatArray, offset: FloatArray, loadings: FloatArray) -> None:
        self.whole, integrals = integrals.sum(axis=0), integrals[:-1]
        seen = (counts > 0) | (integrals[:, 0] > 0)
        self.counts, self.integrals, self.loadings, self.every = counts[seen], integrals[seen], loadings[seen], loadings
        self.offset, self.every_offset = offset[seen], offset
        met = integrals.sum(axis=0)
        self.rates, self.events = len(met), float(counts.sum())
        # A step is measured in the events that it explains, whatever a parameter's own scale.
        self.unit = np.full(self.rates + loadings.shape[1], 1.0 / max(self.events, 1.0))
        # What has all but faded away explains nothing, and its unit squared is no number any more.
        self.unit[: self.rates] = np.divide(1.0, met, out=np.zeros(self.rates), where=met > _FADED)
        if self.events < _FEWEST:
            self.unit[1:] = 0.0
        start = np.zeros(len(self.unit))
        # Half of the events come by themselves, all alike cause the others.
        start[0] = 0.5 * self.events / max(met[0], 1e-300)
        start[1 : self.rates] = 0.5 * self.events / max(met[1:].sum(), 1e-300)
        start[self.unit == 0.0] = 0.0
        self.least = np.full(len(start), -np.inf)
        self.least[: self.rates] = 0.0
        self.least[0] = 1e-6 * start[0]
        self.at = self.trial = start
        self.is_done, self.damping = self.events == 0, 0.0
        self.value = 0.0 if self.is_done else -np.inf
        self.gradient, self.curvature = np.zeros(len(start)), np.zeros((len(start), len(start)))

    @property
    def theta(self) -> FloatArray:
        """(μ, n) to look at next."""
        return self.trial[: self.rates]

    def judge(self, value: float, gradient: FloatArray, curvature: FloatArray, *, is_newton: bool) -> None:
        """Take what Σ log ψ is at the trial, keep the better of the two points and choose the next trial."""
        if self.is_done:
            return
        whole = self._whole(value, gradient, curvature + np.tril(curvature, -1).T)
        if whole[0] > self.value or not is_newton:
            self.at, self.value, self.gradient, self.curvature = self.trial, *whole
            self.damping = self.damping / 8 if self.damping > 1e-6 else 0.0
        else:
            self.damping = max(8 * self.damping, 1e-3)
        if is_newton:
            self._step()
        else:
            met = self._factors(self.at) @ self.integrals
            self.trial = self.at.copy()
            self.trial[: self.rates] *= gradient / np.maximum(met, 1e-300)

    def _factors(self, at: FloatArray) -> FloatArray:
        return np.exp(self.loadings @ at[self.rates :] + self.offset)

    def _whole(self, value: float, gradient: FloatArray, curvature: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return log-likelihood, gradient and negated Hessian in (μ, n, φ) at the trial."""
        phi, factors = self.trial[self.rates :], self._factors(self.trial)
        expected = factors * (self.integrals @ self.theta)
        mixed = self.integrals.T @ (factors[:, None] * self.loadings)
        lower = self.loadings.T @ (expected[:, None] * self.loadings) + _CAUTION * np.eye(len(phi))
        raised = (self.counts - expected) @ self.loadings - _CAUTION * phi
        return (
            value + float(self.counts @ np.log(factors) - expected.sum() - 0.5 * _CAUTION * phi @ phi),
            np.concatenate((gradient - factors @ self.integrals, raised)),
            np.block([[curvature, mixed], [mixed.T, lower]]),
        )

    def _step(self) -> None:
        free = ((self.at > self.least) | (self.gradient > 0)) & (self.unit > 0)
        unit = self.unit[free]
        damped = self.curvature[np.ix_(free, free)] * np.outer(unit, unit)
        damped += (self.damping + 1e-6) * float(np.diag(damped).mean()) * np.eye(len(unit))
        step = np.zeros(len(self.at))
        step[free] = np.linalg.solve(damped, self.gradient[free] * unit) * unit
        step[self.rates :] = np.clip(step[self.rates :], -1.0, 1.0)
        self.trial = np.maximum(self.at + step, self.least)
        promised = 0.5 * float(self.gradient @ (self.trial - self.at))
        self.is_done = abs(promised) < _FLAT or self.damping > 1e12
        if self.is_done:
            self.trial = self.at

    def estimates(self) -> tuple[FloatArray, ...]:
        """Return (μ, n), φ, f of every cell, the covariance, `Fit.met` and `Fit.whole`."""
        theta, phi = self.at[: self.rates], self.at[self.rates :]
        met = self._factors(self.at) @ self.integrals
        return theta, phi, np.exp(self.every @ phi + self.every_offset), _inverse(self.curvature), met, self.whole


def _inverse(information: FloatArray) -> FloatArray:
    """Return the inverse, NaN where the information is none."""
    whole = np.full(information.shape, np.nan)
    told = np.flatnonzero(np.diag(information) > 0)
    inner = np.ix_(told, told)
    if len(told) and np.linalg.eigvalsh(information[inner])[0] > 0:
        whole[inner] = np.linalg.inv(information[inner])
    return whole
